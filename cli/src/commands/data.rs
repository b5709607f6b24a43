//! How do a file's bytes get in and out?

use crate::args::{Cat, Create, Fallocate, Mode, OneFile, Truncate, Write};
use crate::failure::{Context, Failure, Result};
use crate::names::{JsonName, shown};
use crate::output::{Output, Verdict};
use crate::pool::{Opener, close};
use daxstore::{AllocateMode, File, OpenOptions, Store};
use serde::Serialize;
use std::io::Read;
use std::path::Path;

/// Bytes moved by one call: half a chunk, so that a large file's extents stay whole.
const PIECE_BYTES: usize = 1 << 20;

#[derive(Serialize)]
struct Contents {
    files: Vec<Content>,
}

#[derive(Serialize)]
struct Content {
    #[serde(flatten)]
    path: JsonName,
    bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hex: Option<String>,
}

/// `cat`.
pub fn cat(opener: Opener, args: &Cat, output: &mut Output) -> Result<Verdict> {
    let store = opener.read(&args.pool)?;
    let mut files = Vec::new();
    for path in &args.paths {
        if output.json() {
            files.push(content(&store, path)?);
        } else {
            copy_out(&store, path, output)?;
        }
    }
    output.document(&Contents { files })?;
    Ok(Verdict::Good)
}

fn content(store: &Store, path: &Path) -> Result<Content> {
    let bytes = store.read(path).context(|| format!("read {}", shown(path)))?;
    let len = bytes.len();
    let (text, hex) = match String::from_utf8(bytes) {
        Ok(text) => (Some(text), None),
        Err(error) => (None, Some(crate::names::hex(error.as_bytes()))),
    };
    Ok(Content { path: JsonName::new(path), bytes: len, text, hex })
}

fn copy_out(store: &Store, path: &Path, output: &mut Output) -> Result<()> {
    let what = || format!("read {}", shown(path));
    let file = store.open(path, &OpenOptions::new().read(true)).context(what)?;
    let mut piece = vec![0; PIECE_BYTES];
    let mut at = 0;
    loop {
        let got = file.read_at(&mut piece, at).context(what)?;
        if got == 0 {
            return Ok(());
        }
        output.bytes(piece.get(..got).unwrap_or_default())?;
        at += got as u64;
    }
}

#[derive(Serialize)]
struct Written {
    path: JsonName,
    offset: u64,
    bytes: u64,
    size: u64,
}

/// `write`.
pub fn write(opener: Opener, args: &Write, output: &mut Output) -> Result<Verdict> {
    let store = opener.write(&args.pool)?;
    let what = || format!("write {}", shown(&args.path));
    let replace = args.offset.is_none() && !args.append;
    let options = OpenOptions::new().read(true).write(true).create(true).truncate(replace);
    let file = store.open(&args.path, &options).context(what)?;
    let offset = if args.append { file.len() } else { args.offset.unwrap_or(0) };
    let bytes = copy_in(&file, offset, &args.path)?;
    let size = file.len();
    file.close().context(what)?;
    close(store, &args.pool)?;
    output.document(&Written { path: JsonName::new(&args.path), offset, bytes, size })?;
    Ok(Verdict::Good)
}

fn copy_in(file: &File, offset: u64, path: &Path) -> Result<u64> {
    let mut input = std::io::stdin().lock();
    let mut piece = Vec::with_capacity(PIECE_BYTES);
    let mut written = 0;
    loop {
        piece.clear();
        let got = input.by_ref().take(PIECE_BYTES as u64).read_to_end(&mut piece);
        if got.context(|| String::from("read standard input"))? == 0 {
            return Ok(written);
        }
        file.write_all_at(&piece, offset.saturating_add(written))
            .context(|| format!("write {}", shown(path)))?;
        written += piece.len() as u64;
    }
}

#[derive(Serialize)]
struct Resized {
    path: JsonName,
    size: u64,
    blocks: u64,
}

/// `create`.
pub fn create(opener: Opener, args: &Create, output: &mut Output) -> Result<Verdict> {
    let what = || format!("create {}", shown(&args.path));
    let store = opener.write(&args.pool)?;
    let options = OpenOptions::new().write(true).create_new(true).sequential(args.sequential);
    let options = options.capacity(args.capacity.unwrap_or(0));
    let file = store.open(&args.path, &options).context(what)?;
    if let Some(bytes) = args.extent_hint {
        file.set_extent_hint(bytes).context(what)?;
    }
    finish_resize(store, file, &args.pool, &args.path, output)
}

/// `reset`.
pub fn reset(opener: Opener, args: &OneFile, output: &mut Output) -> Result<Verdict> {
    let what = || format!("reset {}", shown(&args.path));
    let store = opener.write(&args.pool)?;
    let file = store.open(&args.path, &OpenOptions::new().write(true)).context(what)?;
    file.reset().context(what)?;
    finish_resize(store, file, &args.pool, &args.path, output)
}

/// `truncate`.
pub fn truncate(opener: Opener, args: &Truncate, output: &mut Output) -> Result<Verdict> {
    let what = || format!("truncate {}", shown(&args.path));
    let store = opener.write(&args.pool)?;
    let file = store.open(&args.path, &OpenOptions::new().write(true).create(true)).context(what)?;
    file.set_len(args.size).context(what)?;
    finish_resize(store, file, &args.pool, &args.path, output)
}

/// `fallocate`.
pub fn fallocate(opener: Opener, args: &Fallocate, output: &mut Output) -> Result<Verdict> {
    let what = || format!("allocate space of {}", shown(&args.path));
    if args.length == 0 {
        return Err(Failure::new(what(), "the length is 0", "name a length of at least one byte"));
    }
    let (mode, create) = match args.mode {
        Mode::Allocate => (AllocateMode::Allocate, true),
        Mode::KeepSize => (AllocateMode::KeepSize, true),
        Mode::Punch => (AllocateMode::Punch, false),
        Mode::Zero => (AllocateMode::Zero, false),
        Mode::Collapse => (AllocateMode::Collapse, false),
        Mode::Insert => (AllocateMode::Insert, false),
        Mode::Unshare => (AllocateMode::Unshare, false),
    };
    let store = opener.write(&args.pool)?;
    let file = store.open(&args.path, &OpenOptions::new().write(true).create(create)).context(what)?;
    file.allocate(args.offset, args.length, mode).context(what)?;
    finish_resize(store, file, &args.pool, &args.path, output)
}

fn finish_resize(store: Store, file: File, pool: &Path, path: &Path, output: &mut Output) -> Result<Verdict> {
    let what = || format!("close {}", shown(path));
    let metadata = file.metadata();
    file.close().context(what)?;
    close(store, pool)?;
    output.document(&Resized { path: JsonName::new(path), size: metadata.size, blocks: metadata.blocks })?;
    Ok(Verdict::Good)
}
