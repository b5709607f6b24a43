//! How many fences, flushed lines and bytes did the work take?
//!
//! Every thread counts in a slot of its own, with plain loads and stores: a locked instruction would wait for the
//! thread's flushes and non-temporal stores (130 ns measured), so that counting them would cost as much as a fence.
//! Threads beyond the slots share one, with locked instructions. Summed on demand.
//!
//! Invariant: no two living threads have the same slot, except the shared one; so no count is lost.

use crate::sync::atomic::{AtomicU64, Ordering};
use crossbeam::utils::CachePadded;

/// What was done to a region.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Fences.
    pub fences: u64,
    /// Cache lines flushed.
    pub flushed_lines: u64,
    /// Bytes stored non-temporally.
    pub nt_bytes: u64,
}

impl Counts {
    /// What was done since `earlier`.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        Self {
            fences: self.fences - earlier.fences,
            flushed_lines: self.flushed_lines - earlier.flushed_lines,
            nt_bytes: self.nt_bytes - earlier.nt_bytes,
        }
    }
}

#[derive(Debug, Default)]
struct Slot {
    fences: AtomicU64,
    flushed_lines: AtomicU64,
    nt_bytes: AtomicU64,
}

/// Slots with one thread each.
const OWNED: usize = 32;
/// The slot of everybody else.
const SHARED: usize = OWNED;

#[derive(Debug, Default)]
pub(super) struct CountersByThread {
    owned: [CachePadded<Slot>; OWNED],
    shared: CachePadded<Slot>,
}

// A process-wide number for each thread: it decides nothing but which slot is used.
#[cfg(not(loom))]
static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
#[cfg(not(loom))]
std::thread_local! {
    static NUMBER: usize = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
}

/// A small number that differs between threads of this process, from 0.
#[cfg(not(loom))]
#[must_use]
pub fn thread_number() -> usize {
    NUMBER.with(|n| *n)
}

// Loom's threads all run on one thread of the system, and each run of a model must see the same numbers.
#[cfg(loom)]
loom::thread_local! {
    static NUMBER: std::cell::Cell<usize> = std::cell::Cell::new(0);
}

/// The number that the model gave this thread, else 0.
#[cfg(loom)]
#[must_use]
pub fn thread_number() -> usize {
    NUMBER.with(std::cell::Cell::get)
}

/// Gives this thread of a model its number.
#[cfg(loom)]
pub fn set_thread_number(number: usize) {
    NUMBER.with(|n| n.set(number));
}

// A bit for each owned slot that has a thread. Neither does loom see this.
static TAKEN: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
std::thread_local! {
    static SLOT: OwnSlot = OwnSlot::take();
}

/// A slot's number, given back when its thread ends.
struct OwnSlot(usize);

impl OwnSlot {
    fn take() -> Self {
        let mut taken = TAKEN.load(Ordering::Relaxed);
        loop {
            let free = taken.trailing_ones() as usize;
            if free >= OWNED {
                return Self(SHARED);
            }
            // Acquire: what the slot's last thread counted is seen.
            match TAKEN.compare_exchange_weak(taken, taken | 1 << free, Ordering::Acquire, Ordering::Relaxed)
            {
                Ok(_) => return Self(free),
                Err(now) => taken = now,
            }
        }
    }
}

impl Drop for OwnSlot {
    fn drop(&mut self) {
        if self.0 != SHARED {
            TAKEN.fetch_and(!(1 << self.0), Ordering::Release);
        }
    }
}

impl Slot {
    /// Adds to a counter of a slot that is this thread's only if `own`.
    #[inline]
    fn add(counter: &AtomicU64, n: u64, own: bool) {
        if own {
            counter.store(counter.load(Ordering::Relaxed) + n, Ordering::Relaxed);
        } else {
            counter.fetch_add(n, Ordering::Relaxed);
        }
    }
}

impl CountersByThread {
    /// The slot to count in, and whether it is this thread's own.
    #[inline]
    fn slot(&self) -> (&Slot, bool) {
        // A thread that is ending may have given its slot back.
        let number = SLOT.try_with(|slot| slot.0).unwrap_or(SHARED);
        match self.owned.get(number) {
            Some(slot) => (slot, true),
            None => (&self.shared, false),
        }
    }

    #[inline]
    pub(super) fn fence(&self) {
        let (slot, own) = self.slot();
        Slot::add(&slot.fences, 1, own);
    }

    #[inline]
    pub(super) fn flushed_lines(&self, n: u64) {
        let (slot, own) = self.slot();
        Slot::add(&slot.flushed_lines, n, own);
    }

    #[inline]
    pub(super) fn nt_bytes(&self, n: u64) {
        let (slot, own) = self.slot();
        Slot::add(&slot.nt_bytes, n, own);
    }

    pub(super) fn sum(&self) -> Counts {
        let mut sum = Counts::default();
        for slot in self.owned.iter().chain([&self.shared]) {
            sum.fences += slot.fences.load(Ordering::Relaxed);
            sum.flushed_lines += slot.flushed_lines.load(Ordering::Relaxed);
            sum.nt_bytes += slot.nt_bytes.load(Ordering::Relaxed);
        }
        sum
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    #[test]
    fn no_count_is_lost_however_many_threads_count() {
        const THREADS: usize = 3 * OWNED;
        const EACH: u64 = 10_000;
        let counters = CountersByThread::default();
        for _ in 0..2 {
            let together = Barrier::new(THREADS);
            crate::sync::thread::scope(|scope| {
                for _ in 0..THREADS {
                    scope.spawn(|| {
                        counters.fence();
                        together.wait();
                        (0..EACH).for_each(|_| counters.nt_bytes(3));
                        counters.flushed_lines(2);
                    });
                }
            });
        }
        let threads = 2 * THREADS as u64;
        let expected = Counts { fences: threads, flushed_lines: 2 * threads, nt_bytes: 3 * EACH * threads };
        assert_eq!(counters.sum(), expected);
    }
}
