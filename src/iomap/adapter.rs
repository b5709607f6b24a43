//! How does a back end that maps one block at a time report holes in full?
//!
//! [`ByBlocks`] asks such a back end block after block and joins the answers to maximal runs, after what Linux's DAX needed of
//! `get_block_t`: told of one block of a hole at a time, a fault handler can never map 2 MiB of zeros.
//!
//! Invariant: a run ends where the state changes, where blocks are not contiguous in the pool, and at the end of the request;
//! nowhere else, whatever steps the back end answers in.

use super::{Cookie, FileRange, Intent, Iomap, IomapOps, State};
use crate::error::{Error, Result};
use crate::units::{BLOCK_BYTES, Block, FileBlock};
use std::num::NonZeroU64;

/// What a back end says of a block and those that follow it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Blocks {
    /// No space: this many blocks at least.
    Hole(NonZeroU64),
    /// Data in this many blocks at least, contiguous from this one of the pool.
    Mapped(Block, NonZeroU64),
    /// Space without data, as `Mapped`.
    Unwritten(Block, NonZeroU64),
}

impl Blocks {
    const fn count(self) -> u64 {
        match self {
            Self::Hole(n) | Self::Mapped(_, n) | Self::Unwritten(_, n) => n.get(),
        }
    }

    /// Whether `next`, which is `done` blocks further, is of the same run.
    fn goes_on(self, done: u64, next: Self) -> bool {
        match (self, next) {
            (Self::Hole(_), Self::Hole(_)) => true,
            (Self::Mapped(a, _), Self::Mapped(b, _)) | (Self::Unwritten(a, _), Self::Unwritten(b, _)) => {
                a.0.checked_add(done) == Some(b.0)
            }
            _ => false,
        }
    }
}

/// A file whose blocks are looked up one by one, or a few at a time (`get_block_t` of Linux).
pub trait GetBlocks {
    /// What is at `block`, and for how many blocks of at most `max` (not 0) that is known to hold. One is enough of an answer.
    ///
    /// # Errors
    /// Damage of the file's block map.
    fn get_blocks(&self, block: FileBlock, max: u64) -> Result<Blocks>;

    /// When the answers are true: it moves on with each change of them.
    fn cookie(&self) -> Cookie;
}

/// A back end of single blocks, as a mapper of runs.
#[derive(Clone, Copy, Debug)]
pub struct ByBlocks<B>(pub B);

impl<B: GetBlocks> ByBlocks<B> {
    /// The run at `from`, of at most `max` blocks: its first answer, and how many blocks it has.
    fn run(&self, from: FileBlock, max: u64) -> Result<(Blocks, u64)> {
        let first = self.0.get_blocks(from, max)?;
        let mut len = first.count().min(max);
        while len < max {
            let next = self.0.get_blocks(FileBlock(from.0 + len), max - len)?;
            if !first.goes_on(len, next) {
                break;
            }
            len += next.count().min(max - len);
        }
        Ok((first, len))
    }
}

impl<B: GetBlocks> IomapOps for ByBlocks<B> {
    fn begin(&self, range: FileRange, _intent: Intent) -> Result<Iomap> {
        if range.len == 0 {
            return Err(Error::InvalidArgument("a mapper is asked for bytes"));
        }
        let cookie = self.0.cookie();
        let from = FileBlock::of(range.offset);
        let (first, len) = self.run(from, FileBlock::ceil(range.end()).0 - from.0)?;
        let into = range.offset % BLOCK_BYTES;
        let state = match first {
            Blocks::Hole(_) => State::Hole,
            Blocks::Mapped(block, _) => State::Mapped(block.offset().plus(into)),
            Blocks::Unwritten(block, _) => State::Unwritten(block.offset().plus(into)),
        };
        let end = FileBlock(from.0 + len).offset().min(range.end());
        let range = FileRange { offset: range.offset, len: end - range.offset };
        Ok(Iomap { range, state, shared: false, cookie })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cell::Cell;

    const ONE: NonZeroU64 = NonZeroU64::MIN;

    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    enum Kind {
        Hole,
        Mapped(u64),
        Unwritten(u64),
    }

    fn one(kind: Kind, count: NonZeroU64) -> Blocks {
        match kind {
            Kind::Hole => Blocks::Hole(count),
            Kind::Mapped(at) => Blocks::Mapped(Block(at), count),
            Kind::Unwritten(at) => Blocks::Unwritten(Block(at), count),
        }
    }

    /// As ext2: contiguous data in one answer, of a hole one block only.
    struct Ext2(Vec<Kind>);

    impl GetBlocks for Ext2 {
        fn get_blocks(&self, block: FileBlock, max: u64) -> Result<Blocks> {
            let kind = |n: u64| self.0.get((block.0 + n) as usize).copied().unwrap_or(Kind::Hole);
            let count = match kind(0) {
                Kind::Hole | Kind::Unwritten(_) => 1,
                Kind::Mapped(at) => {
                    (1..max).take_while(|n| kind(*n) == Kind::Mapped(at + n)).count() as u64 + 1
                }
            };
            Ok(one(kind(0), NonZeroU64::new(count).unwrap()))
        }

        fn cookie(&self) -> Cookie {
            Cookie(7)
        }
    }

    const POINTERS: u64 = 8;

    /// As indirect blocks: a leaf of 8 pointers, 0 for a hole; a leaf that is missing is a hole of all its blocks.
    struct Indirect {
        leaves: Vec<Option<[u64; POINTERS as usize]>>,
        asked: Cell<u64>,
    }

    impl GetBlocks for Indirect {
        fn get_blocks(&self, block: FileBlock, _max: u64) -> Result<Blocks> {
            self.asked.set(self.asked.get() + 1);
            let slot = block.0 % POINTERS;
            match self.leaves.get((block.0 / POINTERS) as usize).copied().flatten() {
                None => Ok(Blocks::Hole(NonZeroU64::new(POINTERS - slot).unwrap())),
                Some(leaf) if leaf[slot as usize] == 0 => Ok(Blocks::Hole(ONE)),
                Some(leaf) => Ok(Blocks::Mapped(Block(leaf[slot as usize]), ONE)),
            }
        }

        fn cookie(&self) -> Cookie {
            Cookie(8)
        }
    }

    /// The run of `kinds` at byte `range.offset`, counted block by block.
    fn expected(kinds: &[Kind], range: FileRange) -> (State, u64) {
        let from = range.offset / BLOCK_BYTES;
        let kind = |n: u64| kinds.get((from + n) as usize).copied().unwrap_or(Kind::Hole);
        let after = |n: u64| match kind(0) {
            Kind::Hole => Kind::Hole,
            Kind::Mapped(at) => Kind::Mapped(at + n),
            Kind::Unwritten(at) => Kind::Unwritten(at + n),
        };
        let blocks =
            (1..).take_while(|n| (from + n) * BLOCK_BYTES < range.end() && kind(*n) == after(*n)).count();
        let end = ((from + blocks as u64 + 1) * BLOCK_BYTES).min(range.end());
        let into = range.offset % BLOCK_BYTES;
        let state = match kind(0) {
            Kind::Hole => State::Hole,
            Kind::Mapped(at) => State::Mapped(Block(at).offset().plus(into)),
            Kind::Unwritten(at) => State::Unwritten(Block(at).offset().plus(into)),
        };
        (state, end - range.offset)
    }

    fn kinds() -> impl Strategy<Value = Vec<Kind>> {
        let run = (0..3_u8, 1..9_u64, 1..6_u64).prop_map(|(kind, at, len)| {
            let at = at * 4;
            (0..len).map(move |n| match kind {
                0 => Kind::Hole,
                1 => Kind::Mapped(at + n),
                _ => Kind::Unwritten(at + n),
            })
        });
        proptest::collection::vec(run, 0..12).prop_map(|runs| runs.into_iter().flatten().collect())
    }

    proptest! {
        #[test]
        fn runs_are_maximal_however_the_back_end_answers(
            kinds in kinds(), offset in 0..200_000_u64, len in 1..200_000_u64,
        ) {
            let range = FileRange { offset, len };
            let map = ByBlocks(Ext2(kinds.clone())).begin(range, Intent::Read).unwrap();
            prop_assert_eq!((map.state, map.range.len), expected(&kinds, range));
            prop_assert_eq!((map.range.offset, map.cookie), (offset, Cookie(7)));
        }

        #[test]
        fn holes_of_missing_leaves_and_of_empty_pointers_are_one(
            leaves in proptest::collection::vec(proptest::option::of([0..3_u64, 0..3, 0..3, 0..3, 0..3, 0..3, 0..3, 0..3]), 0..6),
            offset in 0..200_000_u64, len in 1..200_000_u64,
        ) {
            let pointer = |at: &u64| if *at == 0 { Kind::Hole } else { Kind::Mapped(*at) };
            let kinds: Vec<_> = leaves.iter().flat_map(|leaf| leaf.unwrap_or([0; 8])).map(|at| pointer(&at)).collect();
            let back = Indirect { leaves, asked: Cell::new(0) };
            let range = FileRange { offset, len };
            let map = ByBlocks(back).begin(range, Intent::Report).unwrap();
            prop_assert_eq!((map.state, map.range.len), expected(&kinds, range));
        }
    }

    #[test]
    fn a_hole_of_two_mib_is_one_run_in_few_questions() {
        let back = Indirect { leaves: Vec::new(), asked: Cell::new(0) };
        let map = ByBlocks(back);
        let found = map.begin(FileRange { offset: 0, len: 2 << 20 }, Intent::Read).unwrap();
        assert_eq!((found.state, found.range.len), (State::Hole, 2 << 20));
        assert_eq!(map.0.asked.get(), 512 / POINTERS);
        let ext2 = ByBlocks(Ext2(Vec::new()));
        assert_eq!(
            ext2.begin(FileRange { offset: 5, len: 2 << 20 }, Intent::Read).unwrap().range.len,
            2 << 20
        );
        assert!(ext2.begin(FileRange { offset: 5, len: 0 }, Intent::Read).is_err());
    }
}
