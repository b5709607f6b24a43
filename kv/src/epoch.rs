//! When has every reader left that may still look at what was taken away?
//!
//! A reader pins the epoch in which it began. Who takes something away (so that nobody new finds it) notes the epoch by
//! [`Epochs::advance`], and reuses it when no pin of that epoch or an older one is left ([`Epochs::oldest`]).
//!
//! Invariants:
//! 1. A pin stands before the first load of what it protects, and after the last.
//! 2. An epoch is advanced after what is retired can not be found any more.
//! 3. A pin's epoch is at most the one that began it: so who pinned a later epoch than the noted one began after the
//!    retiring, and can not find what was retired.

use daxstore::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Pins that can be held at once.
const SLOTS: usize = if cfg!(loom) { 3 } else { 256 };

/// A pin's place, alone in its lines: the epoch, or 0.
#[repr(align(128))]
#[derive(Debug, Default)]
struct Slot(AtomicU64);

/// The epochs of a database.
#[derive(Debug)]
pub struct Epochs {
    global: AtomicU64,
    /// Slots at and above were never used.
    used: AtomicUsize,
    slots: Box<[Slot]>,
}

/// While it lives, what its holder can find is not reused.
#[derive(Debug)]
pub struct Pin<'a>(&'a AtomicU64);

impl Drop for Pin<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.store(0, Ordering::Release);
    }
}

impl Default for Epochs {
    fn default() -> Self {
        let slots = (0..SLOTS).map(|_| Slot::default()).collect();
        Self { global: AtomicU64::new(1), used: AtomicUsize::new(0), slots }
    }
}

std::thread_local! {
    static NUMBER: usize = {
        static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
    };
}

/// A small number of the calling thread, for spreading threads over places.
#[inline]
#[must_use]
pub fn thread_number() -> usize {
    NUMBER.with(|number| *number)
}

/// Orders a locked instruction before every later load, as it does by itself on x86-64; elsewhere, and in models, a fence is needed.
#[inline(always)]
pub fn full_fence() {
    if cfg!(any(loom, not(target_arch = "x86_64"))) {
        daxstore::sync::atomic::fence(Ordering::SeqCst);
    }
}

impl Epochs {
    /// Pins the current epoch. Held for the length of a call; waits where 256 are held.
    #[inline]
    pub fn pin(&self) -> Pin<'_> {
        // Models begin with the last: whoever comes next is in one below, which counts as known then.
        let first = if cfg!(loom) { SLOTS - 1 } else { thread_number() };
        let mut tries = 0;
        loop {
            let at = (first + tries) % SLOTS;
            let slot = &self.slots[at].0;
            // Before the pin stands: who made the slot known did so before it, then, and who looks for pins after it knows the slot.
            let is_known = at < self.used.load(Ordering::Acquire);
            let epoch = self.global.load(Ordering::SeqCst);
            if slot.load(Ordering::Relaxed) == 0
                && slot.compare_exchange(0, epoch, Ordering::SeqCst, Ordering::Relaxed).is_ok()
            {
                full_fence();
                return if is_known { Pin(slot) } else { self.first_use(at) };
            }
            tries += 1;
            if tries.is_multiple_of(SLOTS) {
                daxstore::sync::thread::yield_now();
            }
        }
    }

    /// Makes a slot known to who looks for pins, before it is relied upon.
    #[cold]
    fn first_use(&self, at: usize) -> Pin<'_> {
        self.used.fetch_max(at + 1, Ordering::SeqCst);
        let slot = &self.slots[at].0;
        // Known now: what this pin protects is looked at only from here on, so the epoch is taken again.
        slot.store(self.global.load(Ordering::SeqCst), Ordering::SeqCst);
        full_fence();
        Pin(slot)
    }

    /// Begins a new epoch: the one that was, which is over when [`Self::oldest`] is above it.
    pub fn advance(&self) -> u64 {
        self.global.fetch_add(1, Ordering::SeqCst)
    }

    /// The oldest epoch that is pinned; none: the greatest number.
    pub fn oldest(&self) -> u64 {
        full_fence();
        let used = self.used.load(Ordering::SeqCst);
        let pins = self.slots[..used].iter().map(|slot| slot.0.load(Ordering::SeqCst));
        pins.filter(|epoch| *epoch != 0).min().unwrap_or(u64::MAX)
    }

    /// Whether nobody pins `epoch` or an older one.
    #[cfg(test)]
    pub fn is_over(&self, epoch: u64) -> bool {
        self.oldest() > epoch
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_is_over_when_its_pins_are_gone() {
        let epochs = Epochs::default();
        let (one, two) = (epochs.pin(), epochs.pin());
        let noted = epochs.advance();
        let later = epochs.pin();
        assert!(!epochs.is_over(noted));
        drop(one);
        assert!(!epochs.is_over(noted));
        drop(two);
        assert!(epochs.is_over(noted));
        assert!(!epochs.is_over(epochs.advance()));
        drop(later);
        assert_eq!(epochs.oldest(), u64::MAX);
    }
}
