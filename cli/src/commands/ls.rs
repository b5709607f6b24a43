//! What is in a directory?
//!
//! Directories still to be listed wait on a stack of paths, so the depth of a tree is no limit.

use super::stat::{Attributes, kind_name, mode_text};
use crate::args::Ls;
use crate::failure::{Context, Result};
use crate::names::{JsonName, shown};
use crate::output::{Output, Verdict};
use crate::pool::Opener;
use crate::time;
use daxstore::{FileKind, Metadata, Store};
use serde::Serialize;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

struct Entry {
    name: OsString,
    kind: FileKind,
    ino: u64,
    long: Option<Long>,
}

struct Long {
    metadata: Metadata,
    target: Option<PathBuf>,
}

#[derive(Serialize)]
struct JsonEntry {
    #[serde(flatten)]
    name: JsonName,
    kind: &'static str,
    ino: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    attributes: Option<Attributes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<JsonName>,
}

#[derive(Serialize)]
struct JsonDirectory {
    path: JsonName,
    entries: Vec<JsonEntry>,
}

#[derive(Serialize)]
struct Listing {
    directories: Vec<JsonDirectory>,
}

/// `ls`.
pub fn ls(opener: Opener, args: &Ls, output: &mut Output) -> Result<Verdict> {
    let store = opener.read(&args.pool)?;
    let mut listing = Listing { directories: Vec::new() };
    let mut waiting = vec![args.path.clone()];
    let mut first = true;
    while let Some(path) = waiting.pop() {
        let entries = entries(&store, &path, args.long)?;
        if args.recursive {
            output.line(format_args!("{}{}:", if first { "" } else { "\n" }, shown(&path)))?;
            let below = entries.iter().rev().filter(|e| e.kind == FileKind::Directory);
            waiting.extend(below.map(|e| path.join(&e.name)));
        }
        print(&entries, output)?;
        if output.json() {
            listing.directories.push(json(&path, &entries));
        }
        first = false;
    }
    output.document(&listing)?;
    Ok(Verdict::Good)
}

/// The entries of the directory at `path`, or the one file there, sorted by name.
fn entries(store: &Store, path: &Path, long: bool) -> Result<Vec<Entry>> {
    let what = || format!("list {}", shown(path));
    let metadata = store.metadata(path).context(what)?;
    if metadata.kind != FileKind::Directory {
        let name = path.as_os_str().to_owned();
        let entry = Entry { name, kind: metadata.kind, ino: metadata.ino.0, long: None };
        return Ok(vec![Entry { long: long.then_some(Long { metadata, target: None }), ..entry }]);
    }
    let dir = store.open_dir(path).context(what)?;
    let mut entries = Vec::new();
    for entry in dir.read_dir() {
        let entry = entry.context(what)?;
        let path = path.join(&entry.name);
        let long = if long { Some(long_of(store, &path)?) } else { None };
        entries.push(Entry { name: entry.name, kind: entry.kind, ino: entry.ino.0, long });
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

fn long_of(store: &Store, path: &Path) -> Result<Long> {
    let what = || format!("stat {}", shown(path));
    let metadata = store.symlink_metadata(path).context(what)?;
    let target = match metadata.kind {
        FileKind::Symlink => Some(store.read_link(path).context(what)?),
        _ => None,
    };
    Ok(Long { metadata, target })
}

fn print(entries: &[Entry], output: &mut Output) -> Result<()> {
    let widest = |number: fn(&Metadata) -> u64| {
        let longest = entries.iter().filter_map(|e| e.long.as_ref()).map(|l| number(&l.metadata)).max();
        longest.unwrap_or(0).to_string().len()
    };
    let (links, size) = (widest(|m| m.links.into()), widest(|m| m.size));
    for entry in entries {
        let Some(Long { metadata, target }) = &entry.long else {
            output.line(shown(&entry.name))?;
            continue;
        };
        let arrow = target.as_ref().map(|t| format!(" -> {}", shown(t))).unwrap_or_default();
        output.line(format_args!(
            "{} {:>links$} {}:{} {:>size$} {} {}{arrow}",
            mode_text(metadata.kind, metadata.mode),
            metadata.links,
            metadata.uid,
            metadata.gid,
            metadata.size,
            time::to_seconds(metadata.mtime),
            shown(&entry.name),
        ))?;
    }
    Ok(())
}

fn json(path: &Path, entries: &[Entry]) -> JsonDirectory {
    let entry = |entry: &Entry| JsonEntry {
        name: JsonName::new(&entry.name),
        kind: kind_name(entry.kind),
        ino: entry.ino,
        attributes: entry.long.as_ref().map(|l| Attributes::new(&l.metadata)),
        target: entry.long.as_ref().and_then(|l| l.target.as_ref()).map(JsonName::new),
    };
    JsonDirectory { path: JsonName::new(path), entries: entries.iter().map(entry).collect() }
}
