//! How does an inode without a name go away, however large it is?
//!
//! What fits the record at hand goes with it; the rest follows in a chain of records, under an intent that
//! recovery takes up. The size goes first or in the same record, blocks after it, from the end (R28).

use crate::alloc::Op;
use crate::error::Result;
use crate::extent::{Extent, ExtentMap, ExtentMapMut};
use crate::inode::{Draft, Fs, InodeCore, Intent, Intents, shares};
use crate::io::{group, xattr};
use crate::layout::FileKind;
use crate::pmem::Durable;
use crate::pmem::mutation::{self, Mutation};
use crate::sync::Arc;
use crate::sync::atomic::Ordering;
use crate::tree;
use crate::units::{FileBlock, Ino};
use std::ops::{ControlFlow, Range};

/// Bytes of a record that are left for the intent and the inode when contents are removed.
const ROOM_LEFT: u64 = 2600;

/// What became of an inode in a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It is freed with the change.
    Gone,
    /// Its handles keep it; the last one deletes it.
    Kept,
    /// There is more to free than fits the record: [`delete`] goes on.
    Unfinished,
}

/// Adds the end of an inode that has no links left to `op`; `intents` is locked if it must be.
///
/// # Errors
/// Damage, no room in the record.
pub fn drop_inode<'f>(
    fs: &'f Fs,
    op: &mut Op<'_>,
    draft: &mut Draft<'_>,
    intents: &mut Option<Intents<'f>>,
) -> Result<Fate> {
    let ino = draft.ino();
    if draft.inode.kind == FileKind::Directory {
        forget_snapshots(fs, op, &[ino], intents)?;
    }
    let is_pinned = draft.core().is_pinned() && !mutation::is(Mutation::NoPinCheck);
    if !is_pinned && remove_contents(fs, op, draft, intents)? {
        if draft.core().has_intent.load(Ordering::Acquire) {
            intents.get_or_insert_with(|| Intents::lock(&fs.intents)).remove(op, ino, Intent::CleanUp)?;
        }
        // One that could not be finished must not meet the slot's next inode.
        if intents.is_some() || Intents::has_range(&fs.intents, &fs.space, ino)? {
            intents.get_or_insert_with(|| Intents::lock(&fs.intents)).remove_range(op, ino)?;
        }
        op.free_inode(ino)?;
        return Ok(Fate::Gone);
    }
    intents.get_or_insert_with(|| Intents::lock(&fs.intents)).put(op, ino, Intent::CleanUp)?;
    draft.stage(op)?;
    Ok(if is_pinned { Fate::Kept } else { Fate::Unfinished })
}

/// Adds to `op` that the directories `dirs`, which the caller has locked, are no snapshots in the making any more: they
/// go, or get a name for good. `intents` is locked if it must be.
///
/// # Errors
/// Damage, no room in the record.
pub fn forget_snapshots<'f>(
    fs: &'f Fs,
    op: &mut Op<'_>,
    dirs: &[Ino],
    intents: &mut Option<Intents<'f>>,
) -> Result<()> {
    for ino in dirs {
        if intents.is_some() || Intents::has_snapshot(&fs.intents, &fs.space, *ino)? {
            let intents = intents.get_or_insert_with(|| Intents::lock(&fs.intents));
            intents.remove(op, *ino, Intent::Snapshot)?;
        }
    }
    Ok(())
}

/// Whether the inode was freed. It stays false only as long as the caller holds the inode's exclusive lock.
fn is_gone(core: &InodeCore) -> bool {
    core.gone.load(Ordering::Acquire) && !mutation::is(Mutation::NoGoneCheck)
}

/// Commits a change that frees `gone`, if there is one. It is out of the table before its number can be given out
/// again, which is at once after the commit; and back if the change did not happen.
///
/// # Errors
/// Those of the commit.
pub fn commit(fs: &Fs, op: Op<'_>, gone: Option<&Arc<InodeCore>>) -> Result<()> {
    let Some(gone) = gone else { return op.commit(Durable::no_data()) };
    let late = mutation::is(Mutation::ForgetLate);
    if !late {
        fs.table.forget(gone.ino);
    }
    let result = op.commit(Durable::no_data());
    if late {
        fs.table.forget(gone.ino);
    }
    if result.is_err() {
        fs.table.put(gone.clone());
    }
    result
}

/// Publishes `draft` after the commit of a change that gave it `fate`.
///
/// # Errors
/// Errors of the medium.
pub fn publish(fs: &Fs, draft: Draft<'_>, fate: Fate) -> Result<()> {
    let core = draft.core();
    if fate == Fate::Gone {
        core.gone.store(true, Ordering::Release);
    } else {
        core.has_intent.store(true, Ordering::Release);
    }
    draft.publish(fs.region())
}

/// Frees blocks, records and attributes until all are gone (`true`) or the record has no room for more.
fn remove_contents<'f>(
    fs: &'f Fs,
    op: &mut Op<'_>,
    draft: &mut Draft<'_>,
    intents: &mut Option<Intents<'f>>,
) -> Result<bool> {
    let done = match draft.inode.kind {
        FileKind::Regular => remove_blocks(fs, op, draft, intents, FileBlock(0))?,
        FileKind::Directory | FileKind::Symlink => remove_records(op, draft)?,
    };
    Ok(done && xattr::remove_all(op, draft, ROOM_LEFT)?)
}

fn remove_records(op: &mut Op<'_>, draft: &mut Draft<'_>) -> Result<bool> {
    let ino = draft.ino();
    while let Some((key, _)) = tree::last(op, draft.root(), ino)? {
        if op.room() < ROOM_LEFT {
            return Ok(false);
        }
        tree::remove(op, draft.root(), ino, key)?;
    }
    Ok(true)
}

/// Frees blocks of a file from the end down to block `from`, until done (`true`) or the record has no room for
/// more; as [`free_range`].
///
/// # Errors
/// Damage.
pub fn remove_blocks<'f>(
    fs: &'f Fs,
    op: &mut Op<'_>,
    draft: &mut Draft<'_>,
    intents: &mut Option<Intents<'f>>,
    from: FileBlock,
) -> Result<bool> {
    let geometry = fs.journal().geometry();
    while let Some(last) = ExtentMap::new(op, &draft.inode.root, draft.ino(), geometry).last()? {
        if last.end() <= from {
            break;
        }
        if op.room() < ROOM_LEFT {
            return Ok(false);
        }
        free_range(fs, op, draft, intents, last.file.max(from)..last.end())?;
    }
    Ok(true)
}

/// Frees the blocks of `range` from its start on, until its end or the record has no room for more: returns the
/// file block that was reached. Blocks that others own too only lose an owner: `intents` are locked for that, to be
/// published after the commit.
///
/// # Errors
/// Damage.
pub fn free_range<'f>(
    fs: &'f Fs,
    op: &mut Op<'_>,
    draft: &mut Draft<'_>,
    intents: &mut Option<Intents<'f>>,
    range: Range<FileBlock>,
) -> Result<FileBlock> {
    let (ino, geometry) = (draft.ino(), fs.journal().geometry());
    let (mut rest, mut freed, mut full) = (range, 0, false);
    while let Some(piece) = first_step(fs, op, intents.as_ref(), draft, &rest)? {
        ExtentMapMut::new(op, &mut draft.inode.root, ino, geometry)
            .remove(piece.file..piece.end(), |_, _| Ok(ControlFlow::Continue(())))?;
        shares::release(fs, op, intents, piece.run(), piece.shared)?;
        freed += piece.len;
        if !piece.written {
            op.count_unwritten(-(piece.len as i64));
        }
        rest.start = piece.end();
        full = op.room() < ROOM_LEFT;
        if full {
            break;
        }
    }
    draft.inode.blocks = draft.inode.blocks.saturating_sub(freed);
    Ok(if full { rest.start } else { rest.end })
}

/// The part of the first extent in `range` that goes in one step: of shared blocks, as far as the counts of owners that
/// change fit the record.
fn first_step(
    fs: &Fs,
    op: &Op<'_>,
    intents: Option<&Intents<'_>>,
    draft: &Draft<'_>,
    range: &Range<FileBlock>,
) -> Result<Option<Extent>> {
    let map = ExtentMap::new(op, &draft.inode.root, draft.ino(), fs.journal().geometry());
    match map.first_in(range)?.and_then(|extent| extent.clip(range)) {
        Some(piece) if piece.shared => {
            let len = shares::reach(fs, op, intents, piece.run())?.len;
            Ok(Some(Extent { len, ..piece }))
        }
        piece => Ok(piece),
    }
}

/// Does what was left for the moment when nobody holds the inode any more.
///
/// # Errors
/// Errors of the medium, damage; the intent stays for recovery then.
pub fn after_last_handle(fs: &Fs, core: &Arc<InodeCore>) -> Result<()> {
    group::after_last_handle(fs, core)?;
    let links = core.state.read().links;
    if is_gone(core) {
        Ok(())
    } else if links == 0 {
        delete(fs, core)
    } else if core.has_intent.load(Ordering::Acquire) {
        trim(fs, core)
    } else {
        Ok(())
    }
}

/// Deletes an inode without links and handles, in as many records as it takes.
///
/// # Errors
/// Errors of the medium, damage; the intent stays for recovery then.
pub fn delete(fs: &Fs, core: &Arc<InodeCore>) -> Result<()> {
    loop {
        let mut draft = Draft::lock(core);
        if is_gone(core) || core.is_pinned() {
            return Ok(());
        }
        let mut op = fs.space.begin().for_removal();
        let mut intents = None;
        let fate = drop_inode(fs, &mut op, &mut draft, &mut intents)?;
        commit(fs, op, (fate == Fate::Gone).then_some(core))?;
        publish(fs, draft, fate)?;
        publish_intents(fs, intents)?;
        if fate != Fate::Unfinished {
            return Ok(());
        }
    }
}

/// Frees a file's blocks beyond its end and the intent to do so.
///
/// # Errors
/// Errors of the medium, damage; the intent stays for recovery then.
pub fn trim(fs: &Fs, core: &InodeCore) -> Result<()> {
    // Only files have bytes to hold. A directory has such an intent if a repair gave one that was deleted a name.
    let is_file = core.state.read().kind == FileKind::Regular;
    let _io = is_file.then(|| core.io.exclusive(0, u64::MAX));
    group::settle(fs)?;
    trim_held(fs, core)
}

/// As [`trim`], for a caller that holds all bytes beyond the file's end.
///
/// # Errors
/// As [`trim`].
pub fn trim_held(fs: &Fs, core: &InodeCore) -> Result<()> {
    loop {
        let mut draft = Draft::lock(core);
        if is_gone(core) {
            // Its last name went after its last handle, and before this.
            return Ok(());
        }
        let mut op = fs.space.begin().for_removal();
        let keep = draft.inode.flags & crate::layout::INODE_KEEP_BEYOND_END != 0;
        let end = FileBlock::ceil(draft.inode.size);
        let is_file = draft.inode.kind == FileKind::Regular;
        let mut intents = None;
        let done = keep || !is_file || remove_blocks(fs, &mut op, &mut draft, &mut intents, end)?;
        // Without a name the file still needs its intent: to be deleted.
        let ends = done && draft.inode.links > 0;
        if ends {
            let intents = intents.get_or_insert_with(|| Intents::lock(&fs.intents));
            intents.remove(&mut op, core.ino, Intent::CleanUp)?;
        }
        draft.stage(&mut op)?;
        op.commit(Durable::no_data())?;
        if ends {
            core.has_intent.store(false, Ordering::Release);
        }
        draft.publish(fs.region())?;
        publish_intents(fs, intents)?;
        if done {
            return Ok(());
        }
    }
}

/// Publishes the intents after the commit, if they were locked.
///
/// # Errors
/// Errors of the medium.
pub fn publish_intents(fs: &Fs, intents: Option<Intents<'_>>) -> Result<()> {
    intents.map_or(Ok(()), |intents| intents.publish(&fs.space))
}
