//! What is left for a thread that may take its time?
//!
//! Whoever answers a fault can not take translations away: that can wait for another fault to be taken up. What needs
//! it is parked here; the fault stays unanswered until [`View::keep_up`] was called.
//!
//! Rule: what is parked is seen as due by whoever looks after it was parked, and those who wait for it are woken after
//! it was done.

use crate::entries::{Entry, What};
use crate::space::Turn;
use crate::stats::Count;
use crate::table::{Answer, Mode};
use crate::turns::Kind;
use crate::view::View;
use daxstore::Result;
use daxstore::iomap::FileRange;
use daxstore::sync::Mutex;
// Flags that only say that it is worth to look, and where to begin: no part of a protocol that loom could get wrong.
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Chunks that are kept zeroed ahead.
const CHUNKS_AHEAD: usize = 4;
/// Bytes of the file whose entries are given up together.
const TOGETHER: u64 = 64 << 20;

/// A store that got blocks which another view does not show yet.
#[derive(Debug)]
struct Stale {
    /// The fault's turn: nobody learns of the blocks meanwhile.
    turn: Turn,
    range: FileRange,
    page: FileRange,
}

#[derive(Debug, Default)]
struct Parked {
    /// Pages that found no room.
    full: Vec<FileRange>,
    stale: Vec<Stale>,
}

/// What a view has to do later.
#[derive(Debug, Default)]
pub(crate) struct Upkeep {
    parked: Mutex<Parked>,
    due: AtomicBool,
    zeros: AtomicBool,
    hand: AtomicU64,
}

impl Upkeep {
    pub(crate) fn is_due(&self) -> bool {
        self.due.load(Ordering::Acquire) || self.zeros.load(Ordering::Relaxed)
    }

    /// A chunk that was zeroed ahead is gone.
    pub(crate) fn want_zeros(&self) {
        self.zeros.store(true, Ordering::Relaxed);
    }

    fn park(&self, park: impl FnOnce(&mut Parked)) {
        let mut parked = self.parked.lock();
        park(&mut parked);
        self.due.store(true, Ordering::Release);
    }

    fn take(&self) -> Parked {
        let mut parked = self.parked.lock();
        self.due.store(false, Ordering::Release);
        std::mem::take(&mut *parked)
    }
}

impl View {
    /// A fault found no room for another mapping.
    pub(crate) fn out_of_room(&self, turn: Turn, page: FileRange, may_wait: bool) -> Answer {
        let budget = &self.params().budget;
        if budget.is_vain() {
            self.fail(page);
            drop(turn);
            return self.woken(page);
        }
        drop(turn);
        if may_wait {
            budget.relieve();
            return self.woken(page);
        }
        self.upkeep.park(|parked| parked.full.push(page));
        Answer::Wait
    }

    /// A store got the blocks of `range`, and another view could not be given them.
    pub(crate) fn stale(&self, turn: Turn, range: FileRange, page: FileRange, may_wait: bool) -> Answer {
        if may_wait && self.clear_outdated(range).is_ok() {
            drop(turn);
            return self.woken(page);
        }
        self.upkeep.park(|parked| parked.stale.push(Stale { turn, range, page }));
        if may_wait { self.woken(page) } else { Answer::Wait }
    }

    /// Takes what is not the file's any more in `range` away from every view. The caller has the turn.
    pub(crate) fn clear_outdated(&self, range: FileRange) -> Result<()> {
        self.clear(range, |view| view.outdated(range))
    }

    /// Takes zeros and guarded copies in `range` away from every view, and blocks too if others will take their place. The
    /// caller has the turn.
    pub(crate) fn clear_all(&self, range: FileRange, blocks: bool) -> Result<()> {
        let goes = |what| match what {
            What::Zero { .. } | What::Guarded => true,
            What::Block(_) => blocks,
            What::Copy | What::Beyond | What::Failed => false,
        };
        self.clear(range, |view| Ok(view.ranges_of(range, goes)))
    }

    fn clear(&self, range: FileRange, find: impl Fn(&Self) -> Result<Vec<FileRange>>) -> Result<()> {
        // Without a fault handler they stay until blocks take their place.
        let views = self.space().views(range).into_iter().filter(|view| view.table().mode() != Mode::Eager);
        for view in views {
            for zeros in find(&view)? {
                view.table().missing(view.at(zeros.offset), zeros.len)?;
                view.change(|inside| inside.entries.cut(zeros));
                view.counters().add_range(Count::Upgrades, Count::UpgradedBytes, zeros.len);
            }
        }
        Ok(())
    }

    /// Does what is due.
    pub(crate) fn keep_up(&self) {
        if self.upkeep.zeros.swap(false, Ordering::Relaxed) {
            let zeroed = |_: &usize| matches!(self.file().zero_ahead(CHUNKS_AHEAD), Ok(true));
            let _count = (0..CHUNKS_AHEAD).take_while(zeroed).count();
        }
        let parked = self.upkeep.take();
        if !parked.full.is_empty() || !parked.stale.is_empty() || self.params().budget.is_tight() {
            self.params().budget.relieve();
        }
        for stale in parked.stale {
            if self.clear_outdated(stale.range).is_err() {
                self.upkeep.park(|parked| parked.stale.push(stale));
                continue;
            }
            drop(stale.turn);
            self.wake(stale.page);
        }
        parked.full.into_iter().for_each(|page| self.wake(page));
    }

    /// How many mappings of the system it takes.
    pub(crate) fn cost(&self) -> usize {
        self.look(|inside| inside.entries.cost())
    }

    /// Gives up to `wanted` mappings up, those first that were not given up for longest: how many it has fewer. Waits for no
    /// turn.
    pub(crate) fn give_up(&self, wanted: usize) -> usize {
        if self.table().mode() == Mode::Eager {
            return 0;
        }
        let before = self.cost();
        for range in self.heaps(self.upkeep.hand.load(Ordering::Relaxed)) {
            if before.saturating_sub(self.cost()) >= wanted {
                break;
            }
            if let Some(_turn) = self.space().try_turn(range, Kind::Invalidate)
                && self.forget(range, None).is_ok()
            {
                self.counters().add_range(Count::Evictions, Count::EvictedBytes, range.len);
                self.upkeep.hand.store(range.end(), Ordering::Relaxed);
            }
        }
        before.saturating_sub(self.cost())
    }

    /// The entries that lie near each other as ranges, from `hand` on and round.
    fn heaps(&self, hand: u64) -> Vec<FileRange> {
        let entries: Vec<Entry> = self.look(|inside| {
            let goes = |entry: &Entry| entry.what != What::Copy;
            inside
                .entries
                .from(hand)
                .chain(inside.entries.within(FileRange { offset: 0, len: hand }))
                .filter(goes)
                .collect()
        });
        let mut heaps: Vec<FileRange> = Vec::new();
        for range in entries.into_iter().map(|entry| entry.range) {
            match heaps.last_mut() {
                Some(heap)
                    if heap.offset / TOGETHER == range.offset / TOGETHER && range.offset >= heap.offset =>
                {
                    heap.len = range.end() - heap.offset;
                }
                _ => heaps.push(range),
            }
        }
        heaps
    }
}
