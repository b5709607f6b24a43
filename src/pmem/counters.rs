//! How many fences, flushed lines and bytes did the work take?
//!
//! Counted per thread slot, so that counting costs no shared cache line; summed on demand.

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

const SLOTS: usize = 32;

#[derive(Debug, Default)]
pub(super) struct CountersByThread {
    slots: [CachePadded<Slot>; SLOTS],
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
#[inline]
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

impl CountersByThread {
    #[inline]
    fn slot(&self) -> &Slot {
        &self.slots[thread_number() % SLOTS]
    }

    #[inline]
    pub(super) fn fence(&self) {
        self.slot().fences.fetch_add(1, Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn flushed_lines(&self, n: u64) {
        self.slot().flushed_lines.fetch_add(n, Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn nt_bytes(&self, n: u64) {
        self.slot().nt_bytes.fetch_add(n, Ordering::Relaxed);
    }

    pub(super) fn sum(&self) -> Counts {
        let mut sum = Counts::default();
        for slot in &self.slots {
            sum.fences += slot.fences.load(Ordering::Relaxed);
            sum.flushed_lines += slot.flushed_lines.load(Ordering::Relaxed);
            sum.nt_bytes += slot.nt_bytes.load(Ordering::Relaxed);
        }
        sum
    }
}
