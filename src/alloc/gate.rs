//! How is a moment found in which no operation is under way?
//!
//! Each operation counts itself in from begin to end; whoever wants the moment closes the gate, looks at the counts,
//! and gives up at once if there is any: it never waits for an operation, so an operation may begin another one of
//! the same thread while the gate is being closed. Operations that begin while it is closed wait until it opens.
//!
//! Invariants:
//! 1. Between [`Gate::close`] and the drop of what it returned no operation is under way.
//! 2. Either an operation that counts itself in sees that the gate is closing, or who closes it sees the count: both
//!    store before they load, in the one order of `SeqCst`.

use super::SHARDS;
use crate::pmem::mutation::{self, Mutation};
use crate::pmem::thread_number;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Condvar, Mutex, in_one_order};
use crossbeam::utils::CachePadded;

/// What operations pass.
#[derive(Debug, Default)]
pub(super) struct Gate {
    /// Operations under way, by the thread that began them.
    inside: [CachePadded<AtomicU64>; SHARDS],
    closing: AtomicBool,
    /// Held while `closing` changes.
    turn: Mutex<()>,
    opened: Condvar,
}

/// An operation under way.
#[derive(Debug)]
#[must_use = "an operation is under way as long as its pass lives"]
pub(super) struct Pass<'g> {
    gate: &'g Gate,
    shard: usize,
}

impl Pass<'_> {
    /// Lets the operation go on without this borrow of the gate, until [`Gate::leave`] is told the number returned.
    pub fn detach(self) -> usize {
        std::mem::ManuallyDrop::new(self).shard
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        self.gate.leave(self.shard);
    }
}

/// The gate, closed.
#[derive(Debug)]
#[must_use = "the gate opens when this is dropped"]
pub(super) struct Closed<'g>(&'g Gate);

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        let _turn = self.0.turn.lock();
        self.0.closing.store(false, Ordering::SeqCst);
        self.0.opened.notify_all();
    }
}

impl Gate {
    /// Counts an operation in, once the gate is open.
    pub fn enter(&self) -> Pass<'_> {
        loop {
            let shard = thread_number() % SHARDS;
            self.inside[shard].fetch_add(1, Ordering::SeqCst);
            in_one_order();
            let pass = Pass { gate: self, shard };
            if !self.closing.load(Ordering::SeqCst) {
                return pass;
            }
            drop(pass);
            let mut turn = self.turn.lock();
            while self.closing.load(Ordering::SeqCst) {
                turn = self.opened.wait(turn);
            }
        }
    }

    /// Counts out an operation whose pass was detached.
    pub fn leave(&self, shard: usize) {
        self.inside[shard].fetch_sub(1, Ordering::Release);
    }

    /// Closes the gate, unless an operation is under way or somebody else closed it.
    pub fn close(&self) -> Option<Closed<'_>> {
        {
            let _turn = self.turn.lock();
            if self.closing.swap(true, Ordering::SeqCst) {
                return None;
            }
        }
        in_one_order();
        let closed = Closed(self);
        let nobody = self.inside.iter().all(|inside| inside.load(Ordering::SeqCst) == 0);
        (nobody || mutation::is(Mutation::NoGate)).then_some(closed)
    }
}
