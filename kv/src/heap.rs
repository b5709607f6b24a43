//! Where do records lie?
//!
//! A record of at most 8 KiB lies in a slot of its class, in a slab of 16 pages of such slots. A larger one has a run of pages, or of
//! chunks, of its own. Which slots are free is known in memory: sessions keep some of each class, and exchange them here.
//!
//! Invariants:
//! 1. A slot is in one list of free slots, or in the hands of one change, or named by the index, or waits to be free; never two.
//! 2. K19. While a chunk is being emptied, what becomes free in it is kept apart, and nobody is given a slot of it.

use crate::chunks::Reserve;
use crate::env::Env;
use crate::error::Result;
use crate::layout::{CHUNK, PAGE};
use crate::media::Media;
use crate::mutation::{self, Mutation};
use crate::pages::{self, PageKind, SLAB_PAGES};
use daxstore::sync::Mutex;
use daxstore::sync::atomic::{AtomicU64, Ordering};
use std::collections::HashMap;

/// Bytes of the largest slot.
pub const LARGEST: u64 = 8192;
/// Classes of slots.
pub const CLASSES: usize = 128;
/// Bytes of a slab.
pub const SLAB: u64 = SLAB_PAGES as u64 * PAGE;

/// Up to here every multiple of 8 is a class; above, there are 16 to each doubling.
const FINE: u64 = 512;

/// The class of records of so many bytes, a multiple of 8; `None` for one with a run of its own.
#[inline]
#[must_use]
pub const fn class_of(bytes: u64) -> Option<usize> {
    if bytes <= FINE {
        return Some((bytes / 8 - 1) as usize);
    }
    if bytes > LARGEST {
        return None;
    }
    let power = (bytes - 1).ilog2();
    let step = (1 << power) / 16;
    let index = (bytes - 1 - (1 << power)) / step;
    Some(64 + (power as usize - 9) * 16 + index as usize)
}

/// Bytes of a slot of a class.
#[must_use]
pub const fn slot_bytes(class: usize) -> u64 {
    if class < 64 {
        return (class as u64 + 1) * 8;
    }
    let power = (class - 64) / 16 + 9;
    (1 << power) + ((class as u64 - 64) % 16 + 1) * ((1 << power) / 16)
}

/// Slots of a slab of a class.
#[must_use]
pub const fn slots(class: usize) -> u64 {
    SLAB / slot_bytes(class)
}

/// How many slots change hands at once.
const EXCHANGE: usize = 64;
/// How many a session keeps of a class at most.
const KEPT: usize = 512;

/// The free slots that no session keeps.
#[derive(Debug)]
pub struct Heap {
    pools: Box<[Mutex<Vec<u64>>]>,
    /// The chunk that is being emptied; 0: none.
    leaving: AtomicU64,
    /// Free slots of that chunk, by class.
    left: Mutex<Vec<(usize, u64)>>,
}

/// The free slots that a session keeps, by class.
#[derive(Debug)]
pub struct Kept(Box<[Vec<u64>]>);

impl Default for Heap {
    fn default() -> Self {
        let pools = (0..CLASSES).map(|_| Mutex::default()).collect();
        Self { pools, leaving: AtomicU64::new(0), left: Mutex::default() }
    }
}

impl Heap {
    /// Gives a slot back that nobody keeps.
    pub fn give(&self, class: usize, at: u64) {
        if !self.keeps_apart(class, at) {
            self.pools[class].lock().push(at);
        }
    }

    /// Whether a free slot lies in the chunk that is being emptied: it is kept apart then.
    #[inline]
    fn keeps_apart(&self, class: usize, at: u64) -> bool {
        let chunk = at - at % CHUNK;
        if self.leaving.load(Ordering::Relaxed) != chunk || mutation::is(Mutation::NotApart) {
            return false;
        }
        let mut left = self.left.lock();
        let is_leaving = self.leaving.load(Ordering::Relaxed) == chunk;
        if is_leaving {
            left.push((class, at));
        }
        is_leaving
    }

    /// From now on nobody is given a slot of `chunk`, but for those that sessions keep: these give them away ([`Kept::give_all`]) before
    /// [`Self::gather`]. One chunk at a time.
    pub fn leave(&self, chunk: u64) {
        self.leaving.store(chunk, Ordering::Relaxed);
    }

    /// Puts the free slots of the chunk that is being emptied apart.
    pub fn gather(&self) {
        let chunk = self.leaving.load(Ordering::Relaxed);
        let mut gathered = Vec::new();
        for (class, pool) in self.pools.iter().enumerate() {
            pool.lock().retain(|at| {
                let is_leaving = at - at % CHUNK == chunk;
                gathered.extend(is_leaving.then_some((class, *at)));
                !is_leaving
            });
        }
        self.left.lock().extend(gathered);
    }

    /// How many slots of a class are free in the slab at `slab`, of the chunk that is being emptied.
    pub fn count_left(&self, class: usize, slab: u64) -> u64 {
        let left = self.left.lock();
        left.iter().filter(|(of, at)| *of == class && (slab..slab + SLAB).contains(at)).count() as u64
    }

    /// The chunk is emptied no more: its free slots are given out again, but for those of these slabs, which were given back.
    pub fn stay(&self, gone: &[u64]) {
        let left = {
            let mut left = self.left.lock();
            self.leaving.store(0, Ordering::Relaxed);
            std::mem::take(&mut *left)
        };
        if mutation::is(Mutation::ForgetApart) {
            return;
        }
        let is_gone = |at: u64| gone.iter().any(|slab| (*slab..*slab + SLAB).contains(&at));
        left.into_iter().filter(|(_, at)| !is_gone(*at)).for_each(|(class, at)| self.give(class, at));
    }

    /// Where the slots of a class lie that nobody keeps.
    #[cfg(feature = "sim")]
    pub fn all(&self, class: usize) -> Vec<u64> {
        self.pools[class].lock().clone()
    }

    /// Bytes of the slots that nobody keeps.
    pub fn free_bytes(&self) -> u64 {
        self.pools.iter().enumerate().map(|(class, pool)| pool.lock().len() as u64 * slot_bytes(class)).sum()
    }

    /// How many slots nobody keeps, by chunk and class.
    pub fn count(&self) -> HashMap<(u64, usize), u64> {
        let mut all = HashMap::new();
        for (class, pool) in self.pools.iter().enumerate() {
            pool.lock().iter().for_each(|at| *all.entry((at - at % CHUNK, class)).or_default() += 1);
        }
        all
    }

    /// Takes the slabs of a class out of which every slot is free: where they begin.
    pub fn take_free_slabs<M: Media>(&self, media: &M, class: usize) -> Vec<u64> {
        let mut pool = self.pools[class].lock();
        pool.sort_unstable();
        let (mut free, mut rest) = (Vec::new(), Vec::with_capacity(pool.len()));
        let (count, bytes) = (slots(class) as usize, slot_bytes(class));
        let mut at = 0;
        while at < pool.len() {
            let first = pool[at];
            let is_slab = first.is_multiple_of(PAGE)
                && pool.get(at + count - 1) == Some(&(first + (count as u64 - 1) * bytes))
                && pages::kind_at(media, first).is_ok_and(|kind| kind == PageKind::Slab(class as u16));
            let taken = if is_slab { count } else { 1 };
            if is_slab {
                free.push(first);
            } else {
                rest.push(first);
            }
            at += taken;
        }
        *pool = rest;
        free
    }
}

impl Default for Kept {
    fn default() -> Self {
        Self((0..CLASSES).map(|_| Vec::new()).collect())
    }
}

impl Kept {
    /// A free slot of the class.
    #[inline]
    pub fn pop(&mut self, class: usize) -> Option<u64> {
        self.0[class].pop()
    }

    /// The free slot of the class that [`Self::pop`] would take.
    #[inline]
    pub fn peek(&self, class: usize) -> Option<u64> {
        self.0[class].last().copied()
    }

    /// Keeps a free slot; gives some away if there are many.
    #[inline]
    pub fn push(&mut self, heap: &Heap, class: usize, at: u64) {
        if heap.keeps_apart(class, at) {
            return;
        }
        let kept = &mut self.0[class];
        kept.push(at);
        if kept.len() > KEPT {
            let rest = kept.len() - KEPT / 2;
            heap.pools[class].lock().extend(kept.drain(..rest));
        }
    }

    /// Keeps a free slot that was not used, however many there are.
    pub fn put_back(&mut self, heap: &Heap, class: usize, at: u64) {
        if !heap.keeps_apart(class, at) {
            self.0[class].push(at);
        }
    }

    /// Bytes of the slots that it has.
    pub fn free_bytes(&self) -> u64 {
        self.0.iter().enumerate().map(|(class, kept)| kept.len() as u64 * slot_bytes(class)).sum()
    }

    /// How many it has of the class.
    pub fn len(&self, class: usize) -> usize {
        self.0[class].len()
    }

    /// Takes free slots that others gave away: whether there were any.
    pub fn take_from(&mut self, heap: &Heap, class: usize) -> bool {
        let mut pool = heap.pools[class].lock();
        let rest = pool.len().saturating_sub(EXCHANGE);
        self.0[class].extend(pool.drain(rest..).filter(|at| !heap.keeps_apart(class, *at)));
        !self.0[class].is_empty()
    }

    /// Takes a new slab, durably.
    ///
    /// # Errors
    /// [`crate::Error::NoSpace`].
    pub fn take_slab<M: Media>(&mut self, env: &Env<M>, class: usize, reserve: Reserve) -> Result<()> {
        let at = env.alloc_pages_with(PageKind::Slab(class as u16), reserve)?;
        let bytes = slot_bytes(class);
        // A slot that never had a record begins with a word of 0.
        for slot in 0..slots(class) {
            if env.media.load(at + slot * bytes) != 0 {
                env.media.store(at + slot * bytes, 0);
                env.media.flush(at + slot * bytes, 8);
            }
        }
        env.media.fence()?;
        self.0[class].extend((0..slots(class)).rev().map(|slot| at + slot * bytes));
        Ok(())
    }

    /// Gives everything away.
    pub fn give_all(&mut self, heap: &Heap) {
        for (kept, pool) in self.0.iter_mut().zip(&heap.pools) {
            if !kept.is_empty() {
                pool.lock().append(kept);
            }
        }
    }
}

/// A run of its own for a record of `bytes`. Durable with this thread's next fence.
///
/// # Errors
/// [`crate::Error::NoSpace`], before anything changed.
pub fn take_run<M: Media>(env: &Env<M>, bytes: u64) -> Result<u64> {
    env.alloc_record(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_size_has_the_smallest_slot_that_holds_it() {
        for bytes in (8..=LARGEST).step_by(8) {
            let class = class_of(bytes).expect("a class");
            assert!(slot_bytes(class) >= bytes, "{bytes}");
            assert!(class == 0 || slot_bytes(class - 1) < bytes, "{bytes}");
            assert!(bytes < 136 || slot_bytes(class) * 16 <= bytes * 17 + 128, "{bytes}");
        }
        assert_eq!(class_of(LARGEST), Some(CLASSES - 1));
        assert_eq!(class_of(LARGEST + 8), None);
    }
}
