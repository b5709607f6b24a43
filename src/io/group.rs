//! How does what waits become durable, as one?
//!
//! One fence for the data of all files of the group, one record with their extents and sizes. Whatever else changes the
//! pool does this before: [`settle`].
//!
//! Invariants:
//! 1. All that waits is in one record, and the group is held until it was applied: so groups become durable in the order
//!    in which they were, and each as a whole.
//! 2. A fence is the thread's own. Who commits flushes what others stored, which the lock made visible to it, and fences
//!    once for all.
//! 3. Blocks that are overwritten are freed by that record: nobody has them before (J3).

use crate::alloc::Op;
use crate::error::{Error, Result};
use crate::extent::ExtentMapMut;
use crate::inode::{Draft, Fs, Group, InodeCore, Places, now};
use crate::mapper::replace;
use crate::pmem::mutation::{self, Mutation};
use crate::pmem::thread_number;

/// Makes durable what waits, in all files, with one record. Whatever changes the pool does this first. The caller holds
/// no `state`.
///
/// # Errors
/// Damage, errors of the medium: what waits goes on waiting.
pub fn settle(fs: &Fs) -> Result<()> {
    if !fs.ordered.waits() || mutation::is(Mutation::OvertakeGroup) {
        return Ok(());
    }
    commit(fs, &mut fs.ordered.lock())
}

/// Commits the group with a write once `bytes` wait, or `nanos` nanoseconds after the first of them was written.
///
/// # Errors
/// As [`settle`].
pub fn set_bounds(fs: &Fs, bytes: u64, nanos: i64) -> Result<()> {
    fs.ordered.set_bounds(bytes, nanos);
    settle(fs)
}

/// Commits the group if its bound in time is reached: in how many nanoseconds it will be, where something waits after all.
///
/// # Errors
/// As [`settle`].
pub fn settle_when_due(fs: &Fs) -> Result<Option<i64>> {
    if !fs.ordered.waits() {
        return Ok(None);
    }
    let mut group = fs.ordered.lock();
    if group.files.is_empty() {
        return Ok(None);
    }
    match fs.ordered.left(now() - group.began) {
        0 => commit(fs, &mut group).map(|()| None),
        left => Ok(Some(left)),
    }
}

/// What was left for the last handle of a file: nothing waits in it any more, nothing is reserved for it.
///
/// # Errors
/// As [`settle`].
pub(super) fn after_last_handle(fs: &Fs, core: &InodeCore) -> Result<()> {
    if fs.ordered.has_ahead() {
        fs.ordered.lock().give_ahead_back(&fs.space, Some(core.ino));
    }
    if core.pending.any() { settle(fs) } else { Ok(()) }
}

/// Makes what waits durable and the files', as one.
pub(super) fn commit(fs: &Fs, group: &mut Group) -> Result<()> {
    if group.files.is_empty() {
        return Ok(());
    }
    if group.stuck {
        return Err(Error::Poisoned("writes that waited could not be made durable"));
    }
    if mutation::is(Mutation::GroupInTwo) {
        commit_each(fs, group)?;
    } else {
        let files: Vec<_> = group.files.values().map(|member| member.core.clone()).collect();
        commit_files(fs, group, &files.iter().map(|core| &**core).collect::<Vec<_>>())?;
    }
    group.files.clear();
    group.stored.clear();
    group.places = Places::default();
    group.bytes = 0;
    Ok(())
}

/// A record for each file, the last first: what a broken commit would do.
fn commit_each(fs: &Fs, group: &mut Group) -> Result<()> {
    let files: Vec<_> = group.files.values().rev().map(|member| member.core.clone()).collect();
    files.iter().try_for_each(|core| commit_files(fs, group, &[core]))
}

/// One record for `files`, by number.
fn commit_files(fs: &Fs, group: &mut Group, files: &[&InodeCore]) -> Result<()> {
    let (mut data, thread) = (fs.region().data_writer(), thread_number());
    for stored in group.stored.iter().filter(|stored| stored.thread != thread) {
        data.adopt(stored.at, stored.len)?;
    }
    let durable = data.fence()?;
    let mut op = fs.space.begin().for_conversion();
    let (mut drafts, mut kept) = (Vec::new(), 0);
    for core in files {
        let mut draft = Draft::lock(core);
        place(fs, core, &mut op, &mut draft)?;
        draft.stage(&mut op)?;
        drafts.push(draft);
    }
    // From here on the blocks go with the operation: if that fails they are given back although they are shown.
    for run in files.iter().flat_map(|core| core.pending.read().new_runs()) {
        op.hold(run);
        kept += run.len;
    }
    group.stuck = true;
    debug_assert!(
        fs.journal().capacity() - op.room() <= group.record_bytes(),
        "a group of {} bytes of record takes {}",
        group.record_bytes(),
        fs.journal().capacity() - op.room()
    );
    op.commit(durable)?;
    group.stuck = false;
    fs.space.end_keeping(kept);
    for draft in drafts {
        let core = draft.core();
        core.pending.clear();
        if mutation::is(Mutation::ForgetFirst) {
            core.pending.settled();
        }
        let published = draft.publish(fs.region());
        core.pending.settled();
        published?;
    }
    Ok(())
}

/// Puts what waits in `core` into its draft.
fn place(fs: &Fs, core: &InodeCore, op: &mut Op<'_>, draft: &mut Draft<'_>) -> Result<()> {
    let waiting = core.pending.read();
    for run in waiting.runs() {
        if run.new {
            replace(fs, op, draft, run.file, run.run)?;
        } else {
            let (ino, geometry) = (draft.ino(), fs.journal().geometry());
            let mut map = ExtentMapMut::new(op, draft.root(), ino, geometry);
            let converted = map.convert(run.file..run.end())?;
            op.count_unwritten(-(converted as i64));
        }
    }
    draft.inode.size = draft.inode.size.max(waiting.size.unwrap_or(0));
    draft.touch(waiting.time);
    Ok(())
}
