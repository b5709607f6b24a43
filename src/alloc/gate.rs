//! Is no operation under way right now?
//!
//! Operations count themselves in and out, each thread in a place of its own. Closing succeeds only at a moment when
//! there is none, and holds new ones off until it is over; it never waits for an operation, so a thread may start
//! one while it has another. (The counts and the flag are Dekker's pattern: hence sequential consistency.)

use super::SHARDS;
use crate::pmem::thread_number;
use crate::sync::atomic::{AtomicBool, AtomicI64, Ordering::SeqCst};
use crate::sync::{Condvar, Mutex};
use crossbeam::utils::CachePadded;

/// Counts operations, and keeps them out for a while.
#[derive(Debug)]
pub(super) struct Gate {
    inside: Box<[CachePadded<AtomicI64>]>,
    closed: AtomicBool,
    lock: Mutex<()>,
    opened: Condvar,
}

/// Proof that no operation is under way; opens the gate when dropped.
#[derive(Debug)]
pub(super) struct Closed<'g>(&'g Gate);

/// An operation's ticket: where it is counted.
#[derive(Debug)]
pub(super) struct Inside(usize);

impl Gate {
    pub fn new() -> Self {
        Self {
            inside: std::iter::repeat_with(CachePadded::default).take(SHARDS).collect(),
            closed: AtomicBool::new(false),
            lock: Mutex::default(),
            opened: Condvar::new(),
        }
    }

    /// Counts an operation in, once the gate is open.
    pub fn enter(&self) -> Inside {
        let slot = thread_number() % SHARDS;
        loop {
            self.inside[slot].fetch_add(1, SeqCst);
            if !self.closed.load(SeqCst) {
                return Inside(slot);
            }
            self.inside[slot].fetch_sub(1, SeqCst);
            let mut guard = self.lock.lock();
            while self.closed.load(SeqCst) {
                guard = self.opened.wait(guard);
            }
        }
    }

    /// Counts an operation out.
    pub fn leave(&self, ticket: Inside) {
        self.inside[ticket.0].fetch_sub(1, SeqCst);
    }

    /// Closes the gate if nothing is inside now.
    pub fn try_close(&self) -> Option<Closed<'_>> {
        if self.closed.swap(true, SeqCst) {
            return None;
        }
        let closed = Closed(self);
        self.inside.iter().all(|count| count.load(SeqCst) == 0).then_some(closed)
    }
}

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        {
            let _guard = self.0.lock.lock();
            self.0.closed.store(false, SeqCst);
        }
        self.0.opened.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closes_only_when_nothing_is_inside() {
        let gate = Gate::new();
        let ticket = gate.enter();
        assert!(gate.try_close().is_none());
        let second = gate.enter();
        gate.leave(ticket);
        gate.leave(second);
        let closed = gate.try_close().unwrap();
        assert!(gate.try_close().is_none(), "closed by another");
        std::thread::scope(|s| {
            let late = s.spawn(|| gate.enter());
            std::thread::sleep(std::time::Duration::from_millis(20));
            assert!(!late.is_finished());
            drop(closed);
            gate.leave(late.join().unwrap());
        });
        assert!(gate.try_close().is_some());
    }
}
