//! Who may touch which bytes of a file?
//!
//! The `io_lock` of a file: a lock of byte ranges, shared or exclusive. Requests are granted in order of arrival
//! among those that conflict, so nobody starves.
//!
//! Invariants:
//! 1. No two holders' ranges overlap unless both are shared.
//! 2. A request waits only for conflicting requests that came before it.

use crate::pmem::mutation::{self, Mutation};
use crate::sync::rank::{Held, Rank};
use crate::sync::{Condvar, Mutex};

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
    queue: Mutex<Queue>,
    released: Condvar,
}

/// A held range; released when dropped.
#[derive(Debug)]
#[must_use = "a range is held as long as its guard lives"]
pub struct RangeGuard<'l> {
    lock: &'l RangeLock,
    id: u64,
    _rank: Held,
}

impl RangeLock {
    /// Holds bytes `start` to `end` (exclusive) shared with other readers.
    pub fn shared(&self, start: u64, end: u64) -> RangeGuard<'_> {
        self.acquire(start, end, false)
    }

    /// Holds bytes `start` to `end` (exclusive) alone.
    pub fn exclusive(&self, start: u64, end: u64) -> RangeGuard<'_> {
        self.acquire(start, end, true)
    }

    /// How many requests wait now.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.lock().waiting
    }

    fn acquire(&self, start: u64, end: u64, exclusive: bool) -> RangeGuard<'_> {
        let rank = Held::new(Rank::Io);
        let mut queue = self.queue.lock();
        let id = queue.next;
        queue.next += 1;
        let request = Request { id, start, end: end.max(start + 1), exclusive };
        let free = |queue: &Queue, request: &Request| {
            !exclusive && mutation::is(Mutation::ReadersDoNotWait)
                || queue.requests.iter().take_while(|r| r.id < request.id).all(|r| !r.conflicts(request))
        };
        if free(&queue, &request) {
            queue.requests.push(request);
            return RangeGuard { lock: self, id, _rank: rank };
        }
        let probe = Request { ..request };
        queue.requests.push(request);
        queue.waiting += 1;
        while !free(&queue, &probe) {
            queue = self.released.wait(queue);
        }
        queue.waiting -= 1;
        RangeGuard { lock: self, id, _rank: rank }
    }
}

impl Drop for RangeGuard<'_> {
    fn drop(&mut self) {
        let mut queue = self.lock.queue.lock();
        if let Some(index) = queue.requests.iter().position(|r| r.id == self.id) {
            queue.requests.remove(index);
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
                        let _guard = lock.acquire(start, start + 2, exclusive);
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
    }

    #[test]
    fn disjoint_exclusive_ranges_are_held_at_once() {
        let lock = RangeLock::default();
        let _low = lock.exclusive(0, 10);
        let _high = lock.exclusive(10, u64::MAX);
        assert_eq!(lock.queue.lock().requests.len(), 2);
    }
}
