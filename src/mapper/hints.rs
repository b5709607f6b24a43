//! When may shared blocks be stored to again?
//!
//! When the others are gone. The file's extent still says that it is shared then: the flag is a hint, and a release looks at
//! one file only. The next write to such an extent asks the tree of shares, clears the flag in a record of its own, and
//! goes in place from there on. (XFS keeps the hint in the inode, and asks its refcount tree at each write.)
//!
//! Invariant: a flag goes only while the file has no mappings, which may show copies of shared blocks, and while the
//! caller holds bytes in `io`, so that none comes. Other files can not become owners meanwhile, but through this
//! file's extent, under the same exclusive `state`.

use crate::alloc::Op;
use crate::error::{Error, Result};
use crate::extent::{Extent, ExtentMap, ExtentMapMut};
use crate::inode::{Draft, Fs, InodeCore, shares};
use crate::pmem::Durable;
use crate::units::FileBlock;
use std::ops::{ControlFlow, Range};

/// Bytes of record kept free before a further extent changes: the tree's nodes and the inode.
const ROOM_LEFT: u64 = 3000;

/// Clears the flags of extents with a block in `blocks` as far as nobody else owns them any more: whether there were any.
/// Nothing is done where there is no space for it, or where the file is mapped.
///
/// # Errors
/// Damage, errors of the medium.
pub(super) fn clear(fs: &Fs, core: &InodeCore, blocks: &Range<FileBlock>) -> Result<bool> {
    if core.space.get().is_some() || sole(fs, core, blocks)?.is_empty() {
        return Ok(false);
    }
    match commit(fs, core, blocks) {
        Err(Error::NoSpace { .. }) => Ok(false),
        done => done,
    }
}

fn commit(fs: &Fs, core: &InodeCore, blocks: &Range<FileBlock>) -> Result<bool> {
    let pieces = sole(fs, core, blocks)?;
    let mut op = fs.space.begin().for_conversion();
    let mut draft = Draft::lock(core);
    let (ino, geometry) = (draft.ino(), fs.journal().geometry());
    let mut changed = 0;
    for piece in pieces {
        if op.room() < ROOM_LEFT {
            break;
        }
        if !stands(&op, &draft, &piece, fs)? {
            continue;
        }
        let range = piece.file..piece.end();
        changed += ExtentMapMut::new(&mut op, draft.root(), ino, geometry).set_shared(range, false)?;
    }
    if changed == 0 {
        return Ok(false);
    }
    draft.stage(&mut op)?;
    op.commit(Durable::no_data())?;
    draft.publish(fs.region())?;
    Ok(true)
}

/// Whether the file still has `piece` there, and alone.
fn stands(op: &Op<'_>, draft: &Draft<'_>, piece: &Extent, fs: &Fs) -> Result<bool> {
    let map = ExtentMap::new(op, &draft.inode.root, draft.ino(), fs.journal().geometry());
    let range = piece.file..piece.end();
    let same = map.first_in(&range)?.and_then(|extent| extent.clip(&range)) == Some(*piece);
    Ok(same && shares::owners(fs, piece.run())?.iter().all(|part| part.owners == 1))
}

/// The parts of shared extents in `blocks`, whole extents, that nobody else owns.
fn sole(fs: &Fs, core: &InodeCore, blocks: &Range<FileBlock>) -> Result<Vec<Extent>> {
    let mut flagged = Vec::new();
    {
        let state = core.state.read();
        let map = ExtentMap::new(&*fs.space, &state.root, core.ino, fs.journal().geometry());
        map.for_each(blocks.start, |extent| {
            if extent.file >= blocks.end {
                return Ok(ControlFlow::Break(()));
            }
            flagged.extend(extent.shared.then_some(extent));
            Ok(ControlFlow::Continue(()))
        })?;
    }
    let mut found = Vec::new();
    for extent in flagged {
        for part in shares::owners(fs, extent.run())?.iter().filter(|part| part.owners == 1) {
            let file = FileBlock(extent.file.0 + (part.run.start.0 - extent.pool.0));
            found.push(Extent { file, pool: part.run.start, len: part.run.len, ..extent });
        }
    }
    Ok(found)
}
