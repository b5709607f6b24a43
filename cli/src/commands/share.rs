//! How are files copied within a pool?

use crate::args::{Cp, Dedupe, Snapshot};
use crate::commands::names::{Pair, inside, is_directory, several_need_a_directory};
use crate::failure::{Context, Result};
use crate::names::{JsonName, shown};
use crate::output::{Output, Verdict};
use crate::pool::{Opener, close};
use crate::size::counted;
use daxstore::{OpenOptions, Store};
use serde::Serialize;
use std::path::Path;

/// Bytes moved by one call.
const PIECE_BYTES: usize = 1 << 20;
/// Bytes that are compared at a time: what differs somewhere is shared elsewhere.
const DEDUPE_BYTES: u64 = 1 << 20;

#[derive(Serialize)]
struct Copied {
    copied: Vec<Pair>,
    reflink: bool,
}

/// `cp`.
pub fn cp(opener: Opener, args: &Cp, output: &mut Output) -> Result<Verdict> {
    let Some((dest, sources)) = args.paths.split_last() else { return Ok(Verdict::Good) };
    let store = opener.write(&args.pool)?;
    let into = is_directory(&store, dest)?;
    if sources.len() > 1 && !into {
        return Err(several_need_a_directory("copy to", dest));
    }
    let mut copied = Vec::new();
    for source in sources {
        let to = if into { inside(dest, source, "copy")? } else { dest.clone() };
        let copy = if args.reflink { store.reflink(source, &to) } else { copy(&store, source, &to) };
        copy.context(|| format!("copy {} to {}", shown(source), shown(&to)))?;
        copied.push(Pair { from: JsonName::new(source), to: JsonName::new(&to) });
    }
    close(store, &args.pool)?;
    output.document(&Copied { copied, reflink: args.reflink })?;
    Ok(Verdict::Good)
}

/// Copies every byte of a file; the copy is named when it is complete.
fn copy(store: &Store, from: &Path, to: &Path) -> daxstore::Result<()> {
    let source = store.open(from, &OpenOptions::new().read(true))?;
    let mode = source.metadata().mode;
    let copy = store.open_unnamed(&OpenOptions::new().write(true).mode(mode))?;
    let (mut piece, mut at) = (vec![0; PIECE_BYTES], 0);
    loop {
        let got = source.read_at(&mut piece, at)?;
        if got == 0 {
            return store.link_file(&copy, to);
        }
        copy.write_all_at(piece.get(..got).unwrap_or_default(), at)?;
        at += got as u64;
    }
}

#[derive(Serialize)]
struct Taken {
    #[serde(flatten)]
    pair: Pair,
    files: u64,
    directories: u64,
    symlinks: u64,
    links: u64,
    bytes: u64,
}

/// `snapshot`.
pub fn snapshot(opener: Opener, args: &Snapshot, output: &mut Output) -> Result<Verdict> {
    let store = opener.write(&args.pool)?;
    let what = || format!("copy {} to {}", shown(&args.dir), shown(&args.copy));
    let made = store.snapshot(&args.dir, &args.copy).context(what)?;
    close(store, &args.pool)?;
    output.line(format_args!(
        "{}: {}, {}",
        shown(&args.copy),
        counted(made.files, "file", "files"),
        counted(made.directories, "directory", "directories"),
    ))?;
    let pair = Pair { from: JsonName::new(&args.dir), to: JsonName::new(&args.copy) };
    let daxstore::Snapshot { files, directories, symlinks, links, bytes, .. } = made;
    output.document(&Taken { pair, files, directories, symlinks, links, bytes })?;
    Ok(Verdict::Good)
}

#[derive(Serialize)]
struct Deduped {
    files: Vec<Shared>,
    /// Blocks of the pool that were freed.
    freed_blocks: u64,
}

#[derive(Serialize)]
struct Shared {
    #[serde(flatten)]
    name: JsonName,
    /// Bytes that are the same in both and shared now.
    same: u64,
    size: u64,
}

/// `dedupe`.
pub fn dedupe(opener: Opener, args: &Dedupe, output: &mut Output) -> Result<Verdict> {
    let Some((first, others)) = args.paths.split_first() else { return Ok(Verdict::Good) };
    let store = opener.write(&args.pool)?;
    let free = store.statfs().free;
    let mut files = Vec::new();
    for path in others {
        let (same, size) = dedupe_one(&store, first, path)
            .context(|| format!("compare {} with {}", shown(path), shown(first)))?;
        output.line(format_args!("{}: {same} of {size} bytes shared", shown(path)))?;
        files.push(Shared { name: JsonName::new(path), same, size });
    }
    let freed_blocks = store.statfs().free.saturating_sub(free);
    close(store, &args.pool)?;
    output.document(&Deduped { files, freed_blocks })?;
    Ok(Verdict::Good)
}

/// Bytes that both have at the same place, shared now; and how many the second has.
fn dedupe_one(store: &Store, first: &Path, other: &Path) -> daxstore::Result<(u64, u64)> {
    let source = store.open(first, &OpenOptions::new().read(true))?;
    let target = store.open(other, &OpenOptions::new().read(true).write(true))?;
    let (size, shorter) = (target.len(), target.len().min(source.len()));
    // A part of a block is shared only at the end of both.
    let end = if source.len() == size { size } else { shorter - shorter % daxstore::units::BLOCK_BYTES };
    let (mut at, mut same) = (0, 0);
    while at < end {
        let len = DEDUPE_BYTES.min(end - at);
        if target.dedupe_range(&source, at, at, len)? {
            same += len;
        }
        at += len;
    }
    Ok((same, size))
}
