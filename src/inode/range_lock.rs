//! Who may touch which bytes of a file?
//!
//! The `io_lock` of a file: a lock of byte ranges, shared or exclusive. Requests are granted in order of arrival
//! among those that conflict, so nobody starves.
//!
//! Two kinds of requests do without the queue, by one locked instruction each way on one word. Readers count themselves;
//! writers of a few blocks set the bits of their blocks, of which there are 32 for all blocks. Both only while nothing
//! stands against it; what does is gone soon as a rule, so they look again for a while before they go to the queue.
//!
//! Invariants:
//! 1. No two holders' ranges overlap unless both are shared.
//! 2. A request in the queue waits only for conflicting requests that came before it, for short writers of blocks with
//!    the same bits, and (a writer) for the readers that are counted when it comes, whatever their ranges.
//! 3. While a request is in the queue no writer goes past the queue, and while a writer is, no reader does.
//! 4. Who leaves without having been queued, and sees in the word that requests are queued, wakes them under the
//!    queue's lock. Who is queued says so in the word before it looks at it, under that lock: of the two changes to one
//!    word the later one sees the earlier, so it sees who left, or is woken.

use crate::pmem::mutation::{self, Mutation};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::rank::{Held, Rank};
use crate::sync::{Condvar, Mutex, spin};
use crate::units::BLOCK_BYTES;
use crossbeam::utils::CachePadded;

/// The word: one of the readers that hold, or try to, without the queue. Linux has at most 2^22 threads.
const READER: u64 = 1;
const ALL_READERS: u64 = QUEUED - READER;
/// Requests are in the queue; changes under its lock.
const QUEUED: u64 = 1 << 30;
/// Writers are in the queue; changes under its lock.
const QUEUED_WRITER: u64 = 1 << 31;
/// From here on, a bit for every 32nd block: set while a writer that is not in the queue holds one of these blocks.
const BLOCKS_AT: u32 = 32;

/// Blocks that a writer may hold without the queue. The queue costs some 50 ns, and as many blocks take 5 us: beyond,
/// there is little to win and more to wait for.
const SHORT: u64 = 16;
/// How often a request tries to do without the queue.
const TRIES: u32 = 2;
/// How often a request looks whether what stands against it is gone, each time: some 2 us in all, in which a write of
/// a few blocks ends.
const LOOKS: u32 = 32;

/// The bits of the blocks that bytes `start` to `end` touch.
#[inline]
const fn bits(start: u64, end: u64) -> u64 {
    let first = start / BLOCK_BYTES;
    let end = if end > start { end } else { start + 1 };
    let blocks = end.div_ceil(BLOCK_BYTES) - first;
    if blocks >= 32 {
        return (u32::MAX as u64) << BLOCKS_AT;
    }
    ((((1_u64 << blocks) - 1) as u32).rotate_left((first % 32) as u32) as u64) << BLOCKS_AT
}

#[derive(Debug)]
struct Request {
    id: u64,
    start: u64,
    end: u64,
    exclusive: bool,
}

impl Request {
    const fn conflicts(&self, other: &Self) -> bool {
        (self.exclusive || other.exclusive) && self.start < other.end && other.start < self.end
    }
}

#[derive(Debug, Default)]
struct Queue {
    next: u64,
    waiting: usize,
    /// Holders and waiters in order of arrival.
    requests: Vec<Request>,
}

/// A lock of byte ranges.
#[derive(Debug, Default)]
pub struct RangeLock {
    /// Alone in its cache lines: two writers of different blocks change it all the time, and what lies beside this lock
    /// is read by both.
    word: CachePadded<AtomicU64>,
    queue: Mutex<Queue>,
    released: Condvar,
}

/// How a range is held.
#[derive(Clone, Copy, Debug)]
enum Hold {
    /// By what it added to the word.
    Word(u64),
    /// By the request with this number.
    Queued(u64),
}

/// A held range; released when dropped.
#[derive(Debug)]
#[must_use = "a range is held as long as its guard lives"]
pub struct RangeGuard<'l> {
    lock: &'l RangeLock,
    hold: Hold,
    _rank: Held,
}

impl RangeLock {
    /// Holds bytes `start` to `end` (exclusive) shared with other readers.
    #[inline]
    pub fn shared(&self, start: u64, end: u64) -> RangeGuard<'_> {
        let rank = Held::new(Rank::Io);
        let against = QUEUED_WRITER | bits(start, end);
        for _ in 0..TRIES {
            let before = self.word.fetch_add(READER, Ordering::AcqRel);
            if before & against == 0 {
                return RangeGuard { lock: self, hold: Hold::Word(READER), _rank: rank };
            }
            self.leave(READER);
            if !self.soon(against, QUEUED_WRITER) {
                break;
            }
        }
        self.acquire(start, end, false, rank)
    }

    /// Holds bytes `start` to `end` (exclusive) alone.
    #[inline]
    pub fn exclusive(&self, start: u64, end: u64) -> RangeGuard<'_> {
        let rank = Held::new(Rank::Io);
        if end.saturating_sub(start) <= SHORT * BLOCK_BYTES {
            let own = bits(start, end);
            if self.set(own) {
                return RangeGuard { lock: self, hold: Hold::Word(own), _rank: rank };
            }
        }
        self.acquire(start, end, true, rank)
    }

    /// Sets the bits `own` of a writer, if nothing stands against it now or soon. Bits that were set in vain stand
    /// against others only until they are taken out again.
    #[inline]
    fn set(&self, own: u64) -> bool {
        let readers = if mutation::is(Mutation::IgnoreCounted) { 0 } else { ALL_READERS };
        let queued = if mutation::is(Mutation::OvertakeQueue) { 0 } else { QUEUED };
        let against = own | readers | queued;
        for _ in 0..TRIES {
            // Not looked at first: the line would have to come from another writer's cache twice.
            let before = self.word.fetch_or(own, Ordering::AcqRel);
            if before & against == 0 {
                return true;
            }
            if own & !before != 0 {
                self.leave(own & !before);
            }
            if !self.soon(against, QUEUED) {
                break;
            }
        }
        false
    }

    /// Whether the word comes to be without `against` within a short time, which is not waited for if `queued` is set.
    #[cold]
    fn soon(&self, against: u64, queued: u64) -> bool {
        let word = || self.word.load(Ordering::Relaxed);
        spin(LOOKS, || word() & against == 0 || word() & queued != 0);
        word() & against == 0
    }

    /// Takes `what` (a counted reader, or a writer's bits) out of the word, and wakes those that may wait for it.
    #[inline]
    fn leave(&self, what: u64) {
        let before = self.word.fetch_sub(what, Ordering::AcqRel);
        if before & QUEUED != 0 && !mutation::is(Mutation::LeaveSilently) {
            self.wake(&self.queue.lock());
        }
    }

    /// Wakes all that wait in the queue, since any of them may be free now.
    #[cold]
    fn wake(&self, queue: &Queue) {
        if queue.waiting == 0 {
            return;
        }
        if mutation::is(Mutation::WakeOne) {
            self.released.notify_one();
        } else {
            self.released.notify_all();
        }
    }

    /// How many requests wait now.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.lock().waiting
    }

    /// Whether `request` may be held now: by what came before it, by the short writers' bits, and (a writer's) by the
    /// readers that are counted.
    fn is_free(&self, queue: &Queue, request: &Request) -> bool {
        if !request.exclusive && mutation::is(Mutation::ReadersDoNotWait) {
            return true;
        }
        let mut against =
            if mutation::is(Mutation::IgnoreShort) { 0 } else { bits(request.start, request.end) };
        if request.exclusive && !mutation::is(Mutation::IgnoreCounted) {
            against |= ALL_READERS;
        }
        let mut before = queue.requests.iter().take_while(|r| r.id < request.id);
        self.word.load(Ordering::Acquire) & against == 0 && before.all(|r| !r.conflicts(request))
    }

    #[cold]
    fn acquire(&self, start: u64, end: u64, exclusive: bool, rank: Held) -> RangeGuard<'_> {
        let mut queue = self.queue.lock();
        let queued = if exclusive { QUEUED | QUEUED_WRITER } else { QUEUED };
        self.word.fetch_or(queued, Ordering::AcqRel);
        let id = queue.next;
        queue.next += 1;
        let request = Request { id, start, end: end.max(start + 1), exclusive };
        let probe = Request { ..request };
        queue.requests.push(request);
        if !self.is_free(&queue, &probe) {
            queue.waiting += 1;
            while !self.is_free(&queue, &probe) {
                queue = self.released.wait(queue);
            }
            queue.waiting -= 1;
        }
        RangeGuard { lock: self, hold: Hold::Queued(id), _rank: rank }
    }

    /// The queued request `id` leaves.
    fn leave_queue(&self, id: u64) {
        let mut queue = self.queue.lock();
        queue.requests.retain(|r| r.id != id);
        let mut gone = 0;
        if queue.requests.is_empty() {
            gone |= QUEUED;
        }
        if !queue.requests.iter().any(|r| r.exclusive) {
            gone |= QUEUED_WRITER;
        }
        self.word.fetch_and(!gone, Ordering::AcqRel);
        self.wake(&queue);
    }
}

impl Drop for RangeGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        match self.hold {
            Hold::Word(what) => self.lock.leave(what),
            Hold::Queued(id) => self.lock.leave_queue(id),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicI64, Ordering};

    #[test]
    fn overlapping_writers_exclude_each_other_and_disjoint_ones_do_not() {
        let lock = RangeLock::default();
        let cells: Vec<AtomicI64> = (0..8).map(|_| AtomicI64::new(0)).collect();
        std::thread::scope(|scope| {
            for thread in 0..4_u64 {
                let (lock, cells) = (&lock, &cells);
                scope.spawn(move || {
                    for round in 0..2000_u64 {
                        let start = (round * 7 + thread) % 7;
                        let exclusive = !(round + thread).is_multiple_of(3);
                        let _guard = if exclusive {
                            lock.exclusive(start, start + 2)
                        } else {
                            lock.shared(start, start + 2)
                        };
                        for cell in &cells[start as usize..start as usize + 2] {
                            let before = cell.fetch_add(if exclusive { -1000 } else { 1 }, Ordering::SeqCst);
                            assert!(if exclusive { before == 0 } else { before >= 0 }, "{before}");
                        }
                        for cell in &cells[start as usize..start as usize + 2] {
                            cell.fetch_sub(if exclusive { -1000 } else { 1 }, Ordering::SeqCst);
                        }
                    }
                });
            }
        });
        assert!(lock.queue.lock().requests.is_empty());
        assert_eq!(lock.word.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn disjoint_exclusive_ranges_are_held_at_once() {
        let lock = RangeLock::default();
        let _low = lock.exclusive(0, 17 * BLOCK_BYTES);
        let _high = lock.exclusive(17 * BLOCK_BYTES, u64::MAX);
        assert_eq!(lock.queue.lock().requests.len(), 2);
    }
}
