//! Who may change a key?
//!
//! Keys share 4096 locks by the first bits of their hash. So a segment of the hash index, which is all keys of one prefix, is changed by
//! nobody else while a range of locks is held (or the one lock that covers it).
//!
//! Invariant: locks are taken in ascending order, and nobody who holds one waits for anything but a greater one, the medium, or a
//! lock that is held for a bounded time by who waits for none of these. Who holds some and wants others in between tries, and does without.

use daxstore::sync::atomic::{AtomicU32, Ordering};
use std::ops::Range;

/// Bits of a hash that choose its lock.
pub const BITS: u32 = if cfg!(loom) { 1 } else { 12 };

/// The locks of keys.
#[derive(Debug)]
pub struct Stripes(Box<[AtomicU32]>);

/// Locks that are held: of a range, given back when it goes.
#[derive(Debug)]
pub struct Held<'a> {
    stripes: &'a Stripes,
    range: Range<usize>,
}

impl Drop for Held<'_> {
    #[inline]
    fn drop(&mut self) {
        self.range.clone().for_each(|stripe| self.stripes.unlock(stripe));
    }
}

impl Default for Stripes {
    fn default() -> Self {
        Self((0..1usize << BITS).map(|_| AtomicU32::new(0)).collect())
    }
}

/// The lock of a hash.
#[inline]
#[must_use]
pub const fn of(hash: u64) -> usize {
    (hash >> (64 - BITS)) as usize
}

/// The locks of all hashes that begin with the `depth` bits of `hash`.
const fn prefix(hash: u64, depth: u32) -> Range<usize> {
    let count = 1 << BITS.saturating_sub(depth);
    let first = of(hash) / count * count;
    first..first + count
}

impl Stripes {
    /// Waits for the lock of `hash`.
    #[inline]
    pub fn lock(&self, hash: u64) -> Held<'_> {
        let stripe = of(hash);
        self.take(stripe);
        Held { stripes: self, range: stripe..stripe + 1 }
    }

    /// Waits for the locks of all hashes that begin with the `depth` bits of `hash`.
    pub fn lock_prefix(&self, hash: u64, depth: u32) -> Held<'_> {
        let range = prefix(hash, depth);
        range.clone().for_each(|stripe| self.take(stripe));
        Held { stripes: self, range }
    }

    /// The locks of all hashes that begin with the `depth` bits of `hash`, but for those in `held`, which ascend; `None` where somebody has one.
    pub fn try_lock_prefix(&self, hash: u64, depth: u32, held: &[usize]) -> Option<HeldList<'_>> {
        let range = prefix(hash, depth);
        let mut taken = HeldList { stripes: self, list: Vec::with_capacity(range.len()) };
        for stripe in range.filter(|stripe| held.binary_search(stripe).is_err()) {
            self.0[stripe].compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).ok()?;
            taken.list.push(stripe);
        }
        Some(taken)
    }

    /// Waits for these locks, which ascend and differ.
    pub fn lock_all(&self, stripes: &[usize]) -> HeldList<'_> {
        stripes.iter().for_each(|stripe| self.take(*stripe));
        HeldList { stripes: self, list: stripes.to_vec() }
    }

    #[inline]
    fn take(&self, stripe: usize) {
        let lock = &self.0[stripe];
        let mut tries = 0_u32;
        while lock.compare_exchange_weak(0, 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
            tries += 1;
            if tries < 64 && !cfg!(loom) {
                std::hint::spin_loop();
            } else {
                daxstore::sync::thread::yield_now();
            }
        }
    }

    #[inline]
    fn unlock(&self, stripe: usize) {
        self.0[stripe].store(0, Ordering::Release);
    }
}

/// Locks of a list that are held.
#[derive(Debug)]
pub struct HeldList<'a> {
    stripes: &'a Stripes,
    list: Vec<usize>,
}

impl Drop for HeldList<'_> {
    fn drop(&mut self) {
        self.list.iter().for_each(|stripe| self.stripes.unlock(*stripe));
    }
}
