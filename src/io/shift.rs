//! How are blocks taken out of the middle of a file, or put in, without copying what follows?
//!
//! `fallocate(2)`'s collapse and insert. The keys of the extents that follow move, node by node; no data do, and no space
//! is needed but for cutting the extent at the border. What fits one record is one; more is a chain of records under an
//! intent, whose every record leaves the file with a gap that the intent names: recovery goes on from there.
//!
//! Invariants:
//! 1. The file is not seen half moved: everything from the border on is held in `io`, no mapping has a translation of it,
//!    recovery finishes before anybody looks, and a store that is opened to be read only is refused until that was done.
//! 2. Locks first, then translations go, then what was stored through them is made durable (R31): notes of it are by
//!    offset in the file, and would name other blocks after the move.
//! 3. Blocks beyond the end move with the rest: they stay beyond it, and nothing of them comes to light (R32).
//! 4. What can fail but for the medium fails before the first record: every extent that is to move is read and checked.

use super::Handle;
use super::group;
use super::remove::{self, publish_intents};
use super::resize::hold_from;
use super::turn;
use crate::alloc::Op;
use crate::error::{Damage, Error, Result, Structure};
use crate::extent::{ExtentMap, ExtentMapMut, MAX_FILE_BLOCKS};
use crate::inode::{Draft, Fs, InodeCore, Intent, Intents, Shift, ShiftChange, now};
use crate::iomap::{FileRange, Transition};
use crate::layout::Feature;
use crate::pmem::Durable;
use crate::pmem::mutation::{self, Mutation};
use crate::units::{BLOCK_BYTES, FileBlock, MAX_FILE_BYTES};
use std::ops::ControlFlow;

/// Takes `range` out of the file, or puts a hole of its length in where it begins.
///
/// # Errors
/// [`Error::InvalidArgument`] for what is not whole blocks, a range to be taken out that reaches the end, or one to be put
/// in that begins there; [`Error::FileTooLarge`]; mappings that can not let go; no space for the nodes of a cut; damage.
/// Nothing is changed then.
pub(super) fn shift(handle: &Handle, range: FileRange, change: ShiftChange) -> Result<()> {
    if !range.offset.is_multiple_of(BLOCK_BYTES) || !range.len.is_multiple_of(BLOCK_BYTES) {
        return Err(Error::InvalidArgument("what is collapsed or inserted is whole blocks of 4096 bytes"));
    }
    let (_guard, size) = hold_from(handle, range.offset);
    let (fs, core) = (handle.fs(), handle.core());
    group::settle(fs)?;
    let shift = plan(range, change, size)?;
    check_what_moves(fs, core, &shift)?;
    let turn = take_from_mappings(fs, core, range.offset)?;
    Shifter { fs, core, shift, has_intent: false }.run()?;
    drop(turn);
    if change == ShiftChange::Collapse {
        // Copies in private mappings stay where they are, but for those that are beyond the end now.
        drop(turn::resize(core, size, shift.size)?);
    }
    Ok(())
}

/// Takes up a move that an earlier run began; nobody else uses the file.
///
/// # Errors
/// Damage, also where the move does not fit the file; errors of the medium.
pub fn resume_shift(fs: &Fs, core: &InodeCore, shift: Shift) -> Result<()> {
    check_what_moves(fs, core, &shift)?;
    Shifter { fs, core, shift, has_intent: true }.run()
}

/// What has to be done to a file of `size` bytes.
fn plan(range: FileRange, change: ShiftChange, size: u64) -> Result<Shift> {
    let (start, by) = (FileBlock::of(range.offset), range.len / BLOCK_BYTES);
    match change {
        ShiftChange::Collapse if range.end() >= size => Err(Error::InvalidArgument(
            "what is collapsed ends before the end of the file; truncate it instead",
        )),
        ShiftChange::Collapse => {
            Ok(Shift { change, start, end: FileBlock::of(range.end()), by, size: size - range.len })
        }
        ShiftChange::Insert if range.offset >= size => Err(Error::InvalidArgument(
            "what is inserted begins before the end of the file; truncate it instead",
        )),
        ShiftChange::Insert if size > MAX_FILE_BYTES - range.len => {
            Err(Error::FileTooLarge { offset: size, len: range.len })
        }
        ShiftChange::Insert => {
            Ok(Shift { change, start, end: FileBlock(MAX_FILE_BLOCKS), by, size: size + range.len })
        }
    }
}

/// Reads every extent from the border on, so that none is found to be damaged when others have moved; and that there is
/// room for those that move up, which an intent from the media may be wrong about.
fn check_what_moves(fs: &Fs, core: &InodeCore, shift: &Shift) -> Result<()> {
    let state = core.state.read();
    let map = ExtentMap::new(&*fs.space, &state.root, core.ino, fs.journal().geometry());
    // Where what moves up will end.
    let mut reached = 0;
    map.for_each(shift.start, |extent| {
        if shift.change == ShiftChange::Insert && extent.file < shift.end {
            reached = extent.end().0 + shift.by;
            if reached > MAX_FILE_BLOCKS {
                let len = shift.by.saturating_mul(BLOCK_BYTES);
                return Err(Error::FileTooLarge { offset: extent.end().offset(), len });
            }
        } else if extent.file.0 < reached {
            let at = core.ino.offset();
            return Err(Damage::new(Structure::Intent, at, "room to move", reached, extent.file.0).into());
        }
        Ok(ControlFlow::Continue(()))
    })
}

/// Takes everything from `offset` on from the file's mappings, and makes what was stored through them durable.
fn take_from_mappings(fs: &Fs, core: &InodeCore, offset: u64) -> Result<Transition> {
    let range = FileRange { offset, len: MAX_FILE_BYTES - offset };
    if mutation::is(Mutation::ShiftMapped) {
        return Ok(Transition::none());
    }
    let turn = core.space.invalidate(range, false)?;
    if !mutation::is(Mutation::ShiftUnflushed) {
        turn.write_back(&mut |places| {
            places.iter().try_for_each(|(at, len)| fs.region().flush(*at, *len))?;
            fs.region().fence()
        })?;
    }
    Ok(turn)
}

/// Bytes of record for the inode, the intent and its inode, beside the nodes of the file's tree.
const ROOM_LEFT: u64 = 1600;
/// Bytes of record that a node takes.
const NODE_ROOM: u64 = 528;

/// A move in as many records as it takes.
struct Shifter<'f> {
    fs: &'f Fs,
    core: &'f InodeCore,
    /// What is left to do.
    shift: Shift,
    /// The intent is on the media.
    has_intent: bool,
}

impl<'f> Shifter<'f> {
    fn run(mut self) -> Result<()> {
        loop {
            let mut draft = Draft::lock(self.core);
            let mut op = self.fs.space.begin().for_conversion();
            let mut intents = None;
            let left = self.step(&mut op, &mut draft, &mut intents)?;
            if left.is_some() && !self.fs.journal().has(Feature::Unfinished) {
                // Once for each pool, and nothing of this step is on the media.
                drop((op, intents, draft));
                self.fs.journal().announce(Feature::Unfinished)?;
                continue;
            }
            if left.is_none() {
                draft.inode.size = self.shift.size;
            }
            if !self.has_intent {
                // Once: recovery changes nothing that was not to be.
                draft.touch(now());
            }
            draft.stage(&mut op)?;
            self.note(&mut op, left, &mut intents)?;
            op.commit(Durable::no_data())?;
            draft.publish(self.fs.region())?;
            publish_intents(self.fs, intents)?;
            match left {
                Some(left) => self.shift = left,
                None => return Ok(()),
            }
        }
    }

    /// Writes what is left with each record of several, and removes it with the last.
    fn note(
        &mut self,
        op: &mut Op<'f>,
        left: Option<Shift>,
        intents: &mut Option<Intents<'f>>,
    ) -> Result<()> {
        let ino = self.core.ino;
        if left.is_none() && !self.has_intent || mutation::is(Mutation::ShiftIntentFirst) && self.has_intent {
            return Ok(());
        }
        let intents = intents.get_or_insert_with(|| Intents::lock(&self.fs.intents));
        match left {
            Some(_) if mutation::is(Mutation::ShiftIntentFirst) => {}
            Some(left) => intents.put(op, ino, Intent::Shift(left))?,
            None => intents.remove(op, ino, Intent::Shift(self.shift))?,
        }
        self.has_intent = true;
        Ok(())
    }

    /// Does as much as fits the record: what is left. `intents` are locked where blocks lose an owner.
    fn step(
        &self,
        op: &mut Op<'f>,
        draft: &mut Draft<'_>,
        intents: &mut Option<Intents<'f>>,
    ) -> Result<Option<Shift>> {
        let Shift { change, start, end, by, .. } = self.shift;
        let (ino, geometry) = (draft.ino(), self.fs.journal().geometry());
        let level = u64::from(draft.inode.root.level);
        let room = ROOM_LEFT + (level + 1) * NODE_ROOM;
        let more = |op: &Op<'f>| op.room() >= room;
        match change {
            ShiftChange::Collapse => {
                let freed = remove::free_range(self.fs, op, draft, intents, start..end)?;
                if freed < end || !op.is_empty() && !more(op) {
                    return Ok(Some(self.shift));
                }
                let next = ExtentMapMut::new(op, draft.root(), ino, geometry).close(start..end, more)?;
                Ok(next.map(|next| Shift { start: FileBlock(next.0 - by), end: next, ..self.shift }))
            }
            ShiftChange::Insert => {
                let mut map = ExtentMapMut::new(op, draft.root(), ino, geometry);
                map.split_at(start)?;
                let until = map.open(start..end, by, more)?;
                Ok(until.map(|until| Shift { end: until, ..self.shift }))
            }
        }
    }
}
