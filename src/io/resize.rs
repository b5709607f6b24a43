//! How does a file get another size?
//!
//! The size and the first blocks to go are one record; more blocks than fit it follow under the intent to trim.
//! When a file grows, what its last block holds past the old end is zeroed and fenced before (R25, R26). When a mapped
//! file shrinks, what its last block holds past the new end is zeroed after.

use super::Handle;
use super::group;
use super::read::check_regular;
use super::remove;
use super::write::{clean_last_block, zero_tail};
use super::{sequential, turn, unshare};
use crate::error::{Error, Result};
use crate::inode::{Draft, Fs, InodeCore, Intent, Intents, RangeGuard, now};
use crate::layout::INODE_KEEP_BEYOND_END;
use crate::pmem::Durable;
use crate::pmem::mutation::{self, Mutation};
use crate::sync::atomic::Ordering;
use crate::units::{BLOCK_BYTES, FileBlock, MAX_FILE_BYTES};

/// Holds every byte from the block of `from` or of the file's end on, whichever is lower; the size stands still.
pub(super) fn hold_from(handle: &Handle, from: u64) -> (RangeGuard<'_>, u64) {
    loop {
        let size = handle.core().size();
        let low = from.min(size);
        let guard = handle.core().io.exclusive(low - low % BLOCK_BYTES, u64::MAX);
        if handle.core().size() == size {
            return (guard, size);
        }
    }
}

/// Sets the file's size in bytes: cuts it, or makes it longer by a hole.
///
/// # Errors
/// Not a regular file, a sequential one, sizes past 2^62, damage.
pub fn set_len(handle: &Handle, size: u64) -> Result<()> {
    check_regular(handle)?;
    if size > MAX_FILE_BYTES {
        return Err(Error::FileTooLarge { offset: 0, len: size });
    }
    sequential::refuse(handle.core(), size)?;
    let (_guard, old) = hold_from(handle, size);
    group::settle(handle.fs())?;
    // What is zeroed in place is the file's own: where a file grows, and where mappings show the block of its new end.
    let to = if size > old { size } else { FileBlock::ceil(size).offset() };
    if size > old || handle.core().space.get().is_some() {
        unshare::tail(handle.fs(), handle.core(), size.min(old), to)?;
    }
    let _turn = turn::resize(handle.core(), old, size)?;
    if size > old { lengthen(handle, old, size) } else { shorten(handle, size) }
}

fn lengthen(handle: &Handle, old: u64, size: u64) -> Result<()> {
    let (fs, core) = (handle.fs(), handle.core());
    let mut data = fs.region().data_writer();
    let zeroed = zero_tail(fs, core, &mut data, old, size)?;
    let durable = if zeroed { data.fence()? } else { Durable::no_data() };
    let mut draft = Draft::lock(core);
    draft.inode.size = size;
    draft.touch(now());
    let mut op = fs.space.begin().for_removal();
    draft.stage(&mut op)?;
    op.commit(durable)?;
    draft.publish(fs.region())
}

pub(super) fn shorten(handle: &Handle, size: u64) -> Result<()> {
    let (fs, core) = (handle.fs(), handle.core());
    if mutation::is(Mutation::FreeBeforeSize) {
        free_first(fs, core, size)?;
    }
    let mut draft = Draft::lock(core);
    draft.inode.size = size;
    draft.inode.flags &= !INODE_KEEP_BEYOND_END;
    draft.touch(now());
    let mut op = fs.space.begin().for_removal();
    let mut intents = None;
    let done = remove::remove_blocks(fs, &mut op, &mut draft, &mut intents, FileBlock::ceil(size))?;
    if !done && !core.has_intent.load(Ordering::Acquire) {
        let intents = intents.get_or_insert_with(|| Intents::lock(&fs.intents));
        intents.put(&mut op, core.ino, Intent::CleanUp)?;
    }
    draft.stage(&mut op)?;
    op.commit(Durable::no_data())?;
    if !done {
        core.has_intent.store(true, Ordering::Release);
    }
    draft.publish(fs.region())?;
    remove::publish_intents(fs, intents)?;
    if core.space.get().is_some() {
        // The block that holds the end stays mapped: what it holds beyond is not to be seen there.
        clean_last_block(fs, core, size)?;
    }
    if done { Ok(()) } else { remove::trim_held(fs, core) }
}

/// Frees the blocks beyond `size` in a record of its own: what a broken truncate would do.
fn free_first(fs: &Fs, core: &InodeCore, size: u64) -> Result<()> {
    let mut draft = Draft::lock(core);
    let mut op = fs.space.begin().for_removal();
    let mut intents = None;
    remove::remove_blocks(fs, &mut op, &mut draft, &mut intents, FileBlock::ceil(size))?;
    draft.stage(&mut op)?;
    op.commit(Durable::no_data())?;
    draft.publish(fs.region())?;
    remove::publish_intents(fs, intents)
}
