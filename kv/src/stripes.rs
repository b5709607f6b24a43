//! Who may change a key?
//!
//! Keys share 4096 locks by the first bits of their hash. So a segment of the hash index, which is all keys of one prefix, is changed by
//! nobody else while a range of locks is held (or the one lock that covers it).
//!
//! Invariant: locks are taken in ascending order, and nobody who holds one waits for anything but a greater one, the medium, or a
//! lock that is held for a bounded time by who waits for none of these. Who holds some and wants others in between tries, and does without.
//!
//! Beside each lock is counted how many records of its keys were superseded, when that can be seen: who looks at the count first, and then at a
//! record that is the newest of its key, knows that it still is as long as the count stays.

use daxstore::sync::atomic::{AtomicU64, Ordering};
use std::ops::Range;

/// Bits of a hash that choose its lock.
pub const BITS: u32 = if cfg!(loom) { 1 } else { 12 };

/// A lock is the lowest bit of its word; above it is the count.
const LOCKED: u64 = 1;

/// The locks of keys.
#[derive(Debug)]
pub struct Stripes(Box<[AtomicU64]>);

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
        Self((0..1usize << BITS).map(|_| AtomicU64::new(0)).collect())
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
            self.try_take(stripe).then_some(())?;
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
        let mut tries = 0_u32;
        while !self.try_take(stripe) {
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
        let word = self.0[stripe].load(Ordering::Relaxed);
        self.0[stripe].store(word & !LOCKED, Ordering::Release);
    }

    #[inline]
    fn try_take(&self, stripe: usize) -> bool {
        let word = self.0[stripe].load(Ordering::Relaxed) & !LOCKED;
        self.0[stripe].compare_exchange(word, word | LOCKED, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Counts that a record of a key with this hash is superseded: it is marked, and the index names its successor. The caller has the lock.
    #[inline]
    pub fn supersede(&self, hash: u64) {
        let word = self.0[of(hash)].load(Ordering::Relaxed);
        self.0[of(hash)].store(word.wrapping_add(2 * LOCKED), Ordering::Release);
    }

    /// How many records of keys with this lock were superseded. What is looked at afterwards is as new as the count.
    #[inline]
    pub fn superseded(&self, stripe: usize) -> u64 {
        self.0[stripe].load(Ordering::Acquire) >> 1
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
