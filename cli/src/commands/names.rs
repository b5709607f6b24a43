//! How do names come, go and move?

use crate::args::{Ln, Mkdir, Mv, Rm};
use crate::failure::{Context, Failure, Result};
use crate::names::{JsonName, shown};
use crate::output::{Output, Verdict};
use crate::pool::{Opener, close};
use daxstore::{Error, FileKind, RenameMode, Store};
use serde::Serialize;
use std::path::{Path, PathBuf};

#[derive(Serialize)]
struct Made {
    made: Vec<JsonName>,
}

#[derive(Serialize)]
struct Removed {
    removed: Vec<JsonName>,
}

#[derive(Serialize)]
struct Moved {
    moved: Vec<Pair>,
}

#[derive(Serialize)]
struct Linked {
    linked: Pair,
    symbolic: bool,
}

/// Two names.
#[derive(Serialize)]
pub struct Pair {
    pub from: JsonName,
    pub to: JsonName,
}

/// `mkdir`.
pub fn mkdir(opener: Opener, args: &Mkdir, output: &mut Output) -> Result<Verdict> {
    let store = opener.write(&args.pool)?;
    for path in &args.paths {
        let made = if args.parents {
            store.create_dir_all(path, args.mode)
        } else {
            store.create_dir(path, args.mode)
        };
        made.context(|| format!("make directory {}", shown(path)))?;
    }
    close(store, &args.pool)?;
    output.document(&Made { made: args.paths.iter().map(JsonName::new).collect() })?;
    Ok(Verdict::Good)
}

/// `rm`.
pub fn rm(opener: Opener, args: &Rm, output: &mut Output) -> Result<Verdict> {
    let store = opener.write(&args.pool)?;
    for path in &args.paths {
        remove(&store, path, args.recursive).context(|| format!("remove {}", shown(path)))?;
    }
    close(store, &args.pool)?;
    output.document(&Removed { removed: args.paths.iter().map(JsonName::new).collect() })?;
    Ok(Verdict::Good)
}

fn remove(store: &Store, path: &Path, recursive: bool) -> daxstore::Result<()> {
    match (store.symlink_metadata(path)?.kind, recursive) {
        (FileKind::Directory, true) => store.remove_dir_all(path),
        (FileKind::Directory, false) => Err(Error::IsDirectory),
        _ => store.remove_file(path),
    }
}

/// `mv`.
pub fn mv(opener: Opener, args: &Mv, output: &mut Output) -> Result<Verdict> {
    let Some((dest, sources)) = args.paths.split_last() else { return Ok(Verdict::Good) };
    let mode = match (args.no_replace, args.exchange) {
        (true, _) => RenameMode::NoReplace,
        (_, true) => RenameMode::Exchange,
        _ => RenameMode::Replace,
    };
    let store = opener.write(&args.pool)?;
    let into = !args.exchange && is_directory(&store, dest)?;
    if sources.len() > 1 && !into {
        return Err(several_need_a_directory("move to", dest));
    }
    let mut moved = Vec::new();
    for source in sources {
        let to = if into { inside(dest, source, "move")? } else { dest.clone() };
        let what = || format!("move {} to {}", shown(source), shown(&to));
        store.rename_to(source, store.root(), &to, mode).context(what)?;
        moved.push(Pair { from: JsonName::new(source), to: JsonName::new(&to) });
    }
    close(store, &args.pool)?;
    output.document(&Moved { moved })?;
    Ok(Verdict::Good)
}

/// `ln`.
pub fn ln(opener: Opener, args: &Ln, output: &mut Output) -> Result<Verdict> {
    let store = opener.write(&args.pool)?;
    let into = is_directory(&store, &args.link)?;
    let link = if into { inside(&args.link, &args.target, "link")? } else { args.link.clone() };
    let linked =
        if args.symbolic { store.symlink(&args.target, &link) } else { store.hard_link(&args.target, &link) };
    linked.context(|| format!("link {} to {}", shown(&link), shown(&args.target)))?;
    close(store, &args.pool)?;
    let linked = Pair { from: JsonName::new(&link), to: JsonName::new(&args.target) };
    output.document(&Linked { linked, symbolic: args.symbolic })?;
    Ok(Verdict::Good)
}

/// Is there a directory at `path`, perhaps behind symbolic links? What can not be told is no directory unless
/// the store can not read it.
pub fn is_directory(store: &Store, path: &Path) -> Result<bool> {
    match store.metadata(path) {
        Ok(metadata) => Ok(metadata.kind == FileKind::Directory),
        Err(Error::NotFound | Error::NotDirectory | Error::SymlinkLoop) => Ok(false),
        Err(error) => Err(Failure::store(format!("look at {}", shown(path)), &error)),
    }
}

/// The refusal of several sources for something that is no directory.
pub fn several_need_a_directory(what: &str, dest: &Path) -> Failure {
    Failure::new(
        format!("{what} {}", shown(dest)),
        "several sources need a directory, and this is none",
        "make it first with `daxstore mkdir`, or name one source",
    )
}

/// `dest` plus the last name of `source`.
pub fn inside(dest: &Path, source: &Path, what: &str) -> Result<PathBuf> {
    let name = source.file_name().ok_or_else(|| {
        Failure::new(
            format!("{what} {}", shown(source)),
            "it has no name of its own",
            "give the new name in full instead of a directory",
        )
    })?;
    Ok(dest.join(name))
}
