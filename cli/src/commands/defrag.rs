//! How do files get 2 MiB translations?
//!
//! Every file is found first, so that the bar knows how far it is; a file with several names is taken once.

use crate::args::Defrag;
use crate::failure::{Context, Result};
use crate::names::{JsonName, shown};
use crate::output::{Output, Verdict};
use crate::pool::{Opener, close};
use crate::progress::Progress;
use crate::size::counted;
use daxstore::{Defragmented, FileKind, Metadata, OpenOptions, Store};
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Bytes between two steps of the bar.
const STEP: u64 = 64 << 20;

/// Slots of 2 MiB.
#[derive(Serialize)]
struct Slots {
    slots: u64,
    huge_before: u64,
    huge_after: u64,
    with_holes: u64,
    shared: u64,
    no_free_chunk: u64,
    pinned: u64,
    mapped: u64,
}

impl Slots {
    fn new(found: &Defragmented) -> Self {
        Self {
            slots: found.slots,
            huge_before: found.already,
            huge_after: found.huge(),
            with_holes: found.with_holes,
            shared: found.shared,
            no_free_chunk: found.no_chunk,
            pinned: found.pinned,
            mapped: found.mapped,
        }
    }
}

#[derive(Serialize)]
struct JsonFile {
    #[serde(flatten)]
    name: JsonName,
    #[serde(flatten)]
    slots: Slots,
}

#[derive(Serialize)]
struct Report {
    files: Vec<JsonFile>,
    total: Slots,
}

/// Files to be looked at, each once.
#[derive(Default)]
struct Files {
    found: Vec<(PathBuf, u64)>,
    seen: BTreeSet<u64>,
}

impl Files {
    fn add(&mut self, path: PathBuf, metadata: &Metadata) {
        let is_new = metadata.links < 2 || self.seen.insert(metadata.ino.0);
        if metadata.kind == FileKind::Regular && is_new {
            self.found.push((path, metadata.size));
        }
    }

    /// The file at `path`, or all files below it.
    fn collect(&mut self, store: &Store, path: &Path) -> Result<()> {
        let mut waiting = vec![path.to_path_buf()];
        while let Some(path) = waiting.pop() {
            let what = || format!("look at {}", shown(&path));
            let metadata = store.symlink_metadata(&path).context(what)?;
            if metadata.kind != FileKind::Directory {
                self.add(path, &metadata);
                continue;
            }
            let mut names = Vec::new();
            for entry in store.open_dir(&path).context(what)?.read_dir() {
                names.push(entry.context(what)?.name);
            }
            names.sort_by(|a, b| b.cmp(a));
            waiting.extend(names.iter().map(|name| path.join(name)));
        }
        Ok(())
    }
}

/// `defrag`.
pub fn defrag(opener: Opener, args: &Defrag, output: &mut Output) -> Result<Verdict> {
    let store = opener.write(&args.pool)?;
    let mut files = Files::default();
    for path in &args.paths {
        files.collect(&store, path)?;
    }
    let total = files.found.iter().map(|(_, size)| size).sum();
    let progress = Progress::bytes("moving", total, output.json());
    let mut sum = Defragmented::default();
    let mut report = Vec::new();
    for (path, size) in &files.found {
        let found = one(&store, path, *size, &progress)?;
        sum += found;
        if found.slots > 0 {
            report.push((path, found));
        }
    }
    drop(progress);
    close(store, &args.pool)?;
    for (path, found) in &report {
        output.line(format_args!("{}: {}", shown(path), line(found)))?;
    }
    output.line(format_args!("{}: {}", counted(report.len() as u64, "file", "files"), line(&sum)))?;
    let files =
        report.iter().map(|(path, found)| JsonFile { name: JsonName::new(path), slots: Slots::new(found) });
    output.document(&Report { files: files.collect(), total: Slots::new(&sum) })?;
    Ok(Verdict::Good)
}

fn one(store: &Store, path: &Path, size: u64, progress: &Progress) -> Result<Defragmented> {
    let what = || format!("defragment {}", shown(path));
    let file = store.open(path, &OpenOptions::new().write(true)).context(what)?;
    let mut found = Defragmented::default();
    let mut at = 0;
    while at < size {
        let step = STEP.min(size - at);
        // Whole slots: the last one reaches beyond the end.
        found += file.defrag_range(at, STEP).context(what)?;
        progress.advance(step);
        at += step;
    }
    file.close().context(what)?;
    Ok(found)
}

fn line(found: &Defragmented) -> String {
    let mut text = format!(
        "{}, {} huge before, {} after",
        counted(found.slots, "slot of 2 MiB", "slots of 2 MiB"),
        found.already,
        found.huge()
    );
    let left = [
        (found.with_holes, "with holes"),
        (found.shared, "shared with other files"),
        (found.no_chunk, "without a free chunk"),
        (found.pinned, "pinned"),
        (found.mapped, "mapped eagerly"),
    ];
    for (slots, why) in left.iter().filter(|(slots, _)| *slots > 0) {
        text.push_str(&format!(", {slots} left: {why}"));
    }
    text
}
