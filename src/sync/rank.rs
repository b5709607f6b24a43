//! Is every lock taken in the order of `docs/locking.md`?
//!
//! In debug builds each thread keeps the ranks it holds, and taking one that is lower than one already held panics:
//! a deadlock that needs two threads and bad luck is seen by one thread at once. Release builds check nothing. Loom
//! finds deadlocks itself, and its threads share what is local to a thread, so it is left alone.

use std::marker::PhantomData;

/// What a lock protects, outermost first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Rank {
    /// The exclusive lock of a directory's state; several, ancestors first.
    Directory,
    /// Byte ranges of a file.
    Io,
    /// A turn of a range of a mapped file.
    Transition,
    /// The group of writes that wait to be made durable.
    Group,
    /// The exclusive lock of a file's state; several, by number.
    File,
    /// The intents.
    Intents,
    /// Stripes of chunks and groups.
    Space,
    /// A lane of the journal.
    Lane,
}

const RANKS: usize = Rank::Lane as usize + 1;
const CHECKED: bool = cfg!(all(debug_assertions, not(loom)));

std::thread_local! {
    /// How many of each rank this thread holds.
    static HELD: std::cell::Cell<[u16; RANKS]> = const { std::cell::Cell::new([0; RANKS]) };
}

/// A rank held by this thread.
#[derive(Debug)]
#[must_use = "a rank is held as long as this lives"]
pub struct Held {
    rank: Rank,
    /// Ranks are counted by thread.
    _here: PhantomData<*const ()>,
}

impl Held {
    /// Notes that this thread is about to take, or has just taken, a lock of `rank`.
    #[inline]
    pub fn new(rank: Rank) -> Self {
        if CHECKED {
            let mut held = HELD.get();
            if let Some(lower) = held.iter().skip(rank as usize + 1).position(|count| *count > 0) {
                let inner = rank as usize + 1 + lower;
                debug_assert!(std::thread::panicking(), "{rank:?} locked after a lock of rank {inner}");
            }
            held[rank as usize] += 1;
            HELD.set(held);
        }
        Self { rank, _here: PhantomData }
    }
}

impl Drop for Held {
    #[inline]
    fn drop(&mut self) {
        if CHECKED {
            let mut held = HELD.get();
            held[self.rank as usize] -= 1;
            HELD.set(held);
        }
    }
}

#[cfg(all(test, debug_assertions, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_kept() {
        let directory = Held::new(Rank::Directory);
        let _child = Held::new(Rank::Directory);
        let _file = Held::new(Rank::File);
        let lane = Held::new(Rank::Lane);
        drop(directory);
        drop(lane);
        let _intents = Held::new(Rank::Intents);
    }

    #[test]
    #[should_panic(expected = "Io locked after a lock of rank 4")]
    fn a_step_outwards_panics() {
        let _file = Held::new(Rank::File);
        let _io = Held::new(Rank::Io);
    }
}
