//! Who may touch which bytes of a file?
//!
//! The `io_lock` of a file: a lock of byte ranges, shared or exclusive. Requests are granted in order of arrival
//! among those that conflict, so nobody starves.
//!
//! While nobody wants a range alone, readers only count themselves; whoever does waits until those have left, and
//! sends the next ones to the queue.
//!
//! Invariants:
//! 1. No two holders' ranges overlap unless both are shared.
//! 2. A request waits only for conflicting requests that came before it, and a writer for the readers that are
//!    counted when it comes, whatever their ranges.
//! 3. Either a reader that counts itself sees that a writer is there, or the writer sees the count: both store before
//!    they load, in the one order of `SeqCst`.

use crate::pmem::mutation::{self, Mutation};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::rank::{Held, Rank};
use crate::sync::{Condvar, Mutex, in_one_order};

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
    /// Readers that hold or try to hold without the queue.
    counted: AtomicU64,
    /// Writers in the queue.
    writers: AtomicU64,
    queue: Mutex<Queue>,
    released: Condvar,
}

/// A held range; released when dropped.
#[derive(Debug)]
#[must_use = "a range is held as long as its guard lives"]
pub struct RangeGuard<'l> {
    lock: &'l RangeLock,
    /// The request in the queue; `None` for a reader that is only counted.
    id: Option<u64>,
    _rank: Held,
}

impl RangeLock {
    /// Holds bytes `start` to `end` (exclusive) shared with other readers.
    #[inline]
    pub fn shared(&self, start: u64, end: u64) -> RangeGuard<'_> {
        let rank = Held::new(Rank::Io);
        self.counted.fetch_add(1, Ordering::SeqCst);
        in_one_order();
        if self.writers.load(Ordering::SeqCst) == 0 {
            return RangeGuard { lock: self, id: None, _rank: rank };
        }
        self.count_out();
        self.acquire(start, end, false, rank)
    }

    /// A counted reader leaves, and wakes the writers that may wait for it.
    fn count_out(&self) {
        self.counted.fetch_sub(1, Ordering::SeqCst);
        in_one_order();
        if self.writers.load(Ordering::SeqCst) > 0 {
            let _queue = self.queue.lock();
            self.released.notify_all();
        }
    }

    /// Holds bytes `start` to `end` (exclusive) alone.
    pub fn exclusive(&self, start: u64, end: u64) -> RangeGuard<'_> {
        self.acquire(start, end, true, Held::new(Rank::Io))
    }

    /// How many requests wait now.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.lock().waiting
    }

    /// Whether `request` may be held now: by what came before it, and (a writer's) by the readers that are counted.
    fn is_free(&self, queue: &Queue, request: &Request) -> bool {
        if !request.exclusive && mutation::is(Mutation::ReadersDoNotWait) {
            return true;
        }
        let mut before = queue.requests.iter().take_while(|r| r.id < request.id);
        let counted = request.exclusive
            && self.counted.load(Ordering::SeqCst) > 0
            && !mutation::is(Mutation::IgnoreCounted);
        !counted && before.all(|r| !r.conflicts(request))
    }

    fn acquire(&self, start: u64, end: u64, exclusive: bool, rank: Held) -> RangeGuard<'_> {
        let mut queue = self.queue.lock();
        if exclusive {
            self.writers.fetch_add(1, Ordering::SeqCst);
            in_one_order();
        }
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
        RangeGuard { lock: self, id: Some(id), _rank: rank }
    }
}

impl Drop for RangeGuard<'_> {
    fn drop(&mut self) {
        let Some(id) = self.id else { return self.lock.count_out() };
        let mut queue = self.lock.queue.lock();
        if let Some(index) = queue.requests.iter().position(|r| r.id == id) {
            let request = queue.requests.remove(index);
            if request.exclusive {
                self.lock.writers.fetch_sub(1, Ordering::SeqCst);
            }
        }
        if queue.waiting > 0 {
            if mutation::is(Mutation::WakeOne) {
                self.lock.released.notify_one();
            } else {
                self.lock.released.notify_all();
            }
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
        assert_eq!((lock.counted.into_inner(), lock.writers.into_inner()), (0, 0));
    }

    #[test]
    fn disjoint_exclusive_ranges_are_held_at_once() {
        let lock = RangeLock::default();
        let _low = lock.exclusive(0, 10);
        let _high = lock.exclusive(10, u64::MAX);
        assert_eq!(lock.queue.lock().requests.len(), 2);
    }
}
