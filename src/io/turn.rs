//! Which bytes of a mapped file does a change announce?
//!
//! A change of blocks that a mapping could see runs in a turn ([`Transition`]): begun under `io`, before `state`, ended
//! when the change is published or was given up. A file that is not mapped costs one load of a flag.
//!
//! 1. What gets blocks (holes and unwritten space that is written, space that is allocated) is announced block by
//!    block, from its first block that is not mapped on: mapped blocks stay what and where they are while `io` is held.
//! 2. A file that grows is announced from its old end on, since a mapping holds "beyond the end" there.
//!    Shared blocks are replaced where they are written: they count as not mapped.
//! 3. What only overwrites mapped blocks waits for faults in them that were under way when they were seen to be mapped
//!    ([`settle`]), and is not announced else: the mappings hold those very blocks.

use super::write::block_start;
use crate::error::Result;
use crate::inode::{Fs, InodeCore};
use crate::iomap::{FileRange, Intent, IomapOps, State, Transition};
use crate::mapper::FileMap;
use crate::pmem::mutation::{self, Mutation};
use crate::units::FileBlock;

/// The turn of a change that gives blocks to holes and unwritten parts of `range`, and makes the file, of `size` bytes,
/// as long as the range's end if it `grows`. To be made one that invalidates before the change is published. The caller
/// holds these bytes in `io`.
///
/// # Errors
/// Damage.
pub(super) fn allocate(
    fs: &Fs,
    core: &InodeCore,
    range: FileRange,
    size: u64,
    grows: bool,
) -> Result<Transition> {
    if core.space.get().is_none() {
        return Ok(Transition::none());
    }
    let from = block_start(if grows { range.offset.min(size) } else { range.offset });
    let end = FileBlock::ceil(range.end()).offset();
    let first = from;
    let from = after_mapped(fs, core, from, end.min(FileBlock::ceil(size).offset()))?;
    if from > first {
        settle(core, FileRange { offset: first, len: from - first });
    }
    Ok(core.space.allocate(FileRange { offset: from, len: end.saturating_sub(from) }))
}

/// Waits until every mapping shows the blocks of `range`, which were seen to be mapped: a fault that gave them to the file may still
/// be at replacing the zeros that other mappings show there. The caller is about to overwrite them in place.
pub(super) fn settle(core: &InodeCore, range: FileRange) {
    if !mutation::is(Mutation::OverwriteUnsettled) {
        let from = block_start(range.offset);
        drop(
            core.space
                .allocate(FileRange { offset: from, len: FileBlock::ceil(range.end()).offset() - from }),
        );
    }
}

/// The first byte from `from` on that is not mapped to a sound block of the file's own, at most `end`.
fn after_mapped(fs: &Fs, core: &InodeCore, mut from: u64, end: u64) -> Result<u64> {
    let map = FileMap::new(fs, core);
    while from < end {
        let run = map.begin(FileRange { offset: from, len: end - from }, Intent::Report)?;
        let State::Mapped(at) = run.state else { break };
        if run.shared {
            break;
        }
        if let Some((bad, _)) = fs.region().bad(at, run.range.len) {
            // A lost block is replaced where the write covers it.
            return Ok(block_start(from + bad.0.saturating_sub(at.0)));
        }
        from = run.range.end();
    }
    Ok(from)
}

/// The turn of a change of every block that `range` touches, of a file of `size` bytes that becomes as long as the
/// range's end if it `grows`; as [`allocate`].
pub(super) fn replace(core: &InodeCore, range: FileRange, size: u64, grows: bool) -> Transition {
    let from = block_start(if grows { range.offset.min(size) } else { range.offset });
    let end = FileBlock::ceil(range.end()).offset();
    core.space.allocate(FileRange { offset: from, len: end - from })
}

/// The turn of a change of the size from `old` to `new` bytes, in which no translation of what is between is left.
///
/// # Errors
/// Mappings that can not let go of it.
pub(super) fn resize(core: &InodeCore, old: u64, new: u64) -> Result<Transition> {
    let (from, end) = if new > old {
        (FileBlock::ceil(old).offset(), FileBlock::ceil(new).offset())
    } else {
        (FileBlock::ceil(new).offset(), crate::units::MAX_FILE_BYTES)
    };
    core.space.invalidate(FileRange { offset: from, len: end - from }, new <= old)
}
