//! How does a write keep its places while others copy its data?
//!
//! A [`Planned`] write has a place for every byte it takes, and holds what its record can need: blocks, and nodes of
//! the tree for each piece that is inserted or converted. So it can not fail for want of space any more, on a full
//! pool either. Nothing of it is on the media before [`Planned::join`] makes it a part of an operation.

use super::{PIECE_BYTES, Piece, REPLACED_BYTES, ROOM_LEFT, Writer};
use crate::alloc::{Op, Reservation};
use crate::error::Result;
use crate::inode::{Draft, Fs, Intents};
use crate::iomap::{self, FileRange, WriteMap};
use crate::mapper::{FileMap, WriterMap};
use crate::units::{Block, FileBlock, Run};
use std::collections::VecDeque;

/// A write whose places are known and whose space is reserved. The caller holds its bytes in `io` as long as it lives.
#[derive(Debug)]
pub struct Planned {
    range: FileRange,
    /// The file's size when it was planned.
    size: u64,
    pieces: Vec<Piece>,
    reserved: Option<Reservation>,
}

impl Writer<'_> {
    /// Gives every byte of the write a place, and reserves what making them the file's can need: the places, in order, and
    /// how many bytes they take, all unless the extents do not fit one record.
    ///
    /// # Errors
    /// [`crate::Error::NoSpace`], damage.
    pub fn plan(mut self) -> Result<(Planned, Vec<WriteMap>, u64)> {
        let (range, mut places) = (self.view.range, Vec::new());
        let taken = iomap::walk_write(&mut self, range, |place| {
            places.push(*place);
            Ok(place.range.len)
        })?;
        let pieces = std::mem::take(&mut self.pieces);
        if !pieces.is_empty() {
            // Each piece can cut each level of the tree and raise it; the tree can be a level higher by then.
            let level = self.core.state.read().root.level.max(self.fs.intents.state.read().root.level);
            self.op.prepare_nodes((pieces.len() as u64 + 1) * (u64::from(level) + 3))?;
        }
        for (_, run) in std::mem::take(&mut self.ready) {
            self.op.give_back(run);
        }
        let reserved = (!pieces.is_empty()).then(|| self.op.reserved(&self.fs.space));
        Ok((Planned { range, size: self.size, pieces, reserved }, places, taken))
    }
}

impl Planned {
    /// Whether a record must say anything of the write, which ends at byte `end`.
    #[must_use]
    pub fn needs_record(&self, end: u64) -> bool {
        !self.pieces.is_empty() || end > self.size
    }

    /// Whether the write replaces blocks that the medium has lost.
    #[must_use]
    pub fn replaces_bad(&self) -> bool {
        self.pieces.iter().any(|piece| piece.replaces.is_some())
    }

    /// Bytes of record that the write can need, beside those that every record needs.
    #[must_use]
    pub fn record_bytes(&self) -> u64 {
        let replaced = self.pieces.iter().filter(|piece| piece.replaces.is_some()).count() as u64;
        let blocks = self.reserved.as_ref().map_or(0, Reservation::record_bytes);
        ROOM_LEFT + self.pieces.len() as u64 * PIECE_BYTES + replaced * REPLACED_BYTES + blocks
    }

    /// Lets go of everything from byte `end` on: it was not written, so it does not become the file's (R21, R22), and
    /// neither does what was reserved ahead of it (R17).
    pub fn cut(&mut self, end: u64) {
        let mut kept = Vec::new();
        for mut piece in std::mem::take(&mut self.pieces) {
            let filled = FileBlock::ceil(end).0.saturating_sub(piece.file.0).min(piece.filled);
            if filled < piece.filled {
                let rest = Run::new(Block(piece.run.start.0 + filled), piece.run.len - filled);
                if let Some(reserved) = self.reserved.as_mut().filter(|_| piece.new) {
                    reserved.give_back(rest);
                }
                piece.run.len = filled;
                piece.filled = filled;
            }
            if filled > 0 {
                kept.push(piece);
            }
        }
        self.pieces = kept;
    }

    /// Makes the write, of which `end` is the first byte that was not written, a part of `op` and of `draft`, which is of
    /// its file: extents, conversions, and the size, which never moves backwards (R14). Returns the operation, and whether
    /// blocks lie ahead of the end.
    ///
    /// # Errors
    /// Damage, [`crate::Error::TooBig`]. The operation is given up then.
    pub fn join<'f>(
        mut self,
        fs: &'f Fs,
        mut op: Op<'f>,
        draft: &mut Draft<'f>,
        intents: &mut Option<Intents<'f>>,
        end: u64,
    ) -> Result<(Op<'f>, bool)> {
        if let Some(reserved) = self.reserved.take() {
            op.take_over(reserved);
        }
        let (core, range, size) = (draft.core(), self.range, self.size);
        let map = FileMap::new(fs, core);
        let view = WriterMap { map, range, size };
        let (pieces, ready) = (Vec::new(), VecDeque::new());
        let (window, open, bad, shared) = (range, None, 0, 0);
        let mut writer = Writer { fs, core, map, view, op, pieces, size, window, open, bad, shared, ready };
        let mut beyond = false;
        for piece in self.pieces {
            debug_assert!(piece.filled > 0 && piece.run.len >= piece.filled && piece.lead == 0);
            beyond |= piece.run.len > piece.filled;
            writer.place(draft, intents, piece)?;
        }
        draft.inode.size = draft.inode.size.max(end);
        Ok((writer.op, beyond))
    }
}
