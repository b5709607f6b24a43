//! What is in flight in a queue?
//!
//! A ticket for each request from before it holds anything until after its completion can be seen: they bound the depth, and
//! drains wait for them.
//!
//! Invariants:
//! 1. Tickets grow in the order in which they were given out.
//! 2. Whoever waits was, under the lock, neither done nor able to do any work itself; what changes either comes with a
//!    wake-up made under the lock after it. So no wake-up is lost.

use crate::sync::{Condvar, Mutex};
use crate::units::Ino;
use std::collections::BTreeMap;

/// A request in flight: earlier ones have smaller numbers.
pub(super) type Ticket = u64;

#[derive(Debug, Default)]
pub(super) struct State {
    next: Ticket,
    live: BTreeMap<Ticket, Ino>,
    /// Threads that wait for a change.
    asleep: usize,
}

impl State {
    /// Whether none before `upto` is in flight, of file `ino` if one is named.
    fn is_drained(&self, upto: Ticket, ino: Option<Ino>) -> bool {
        !self.live.range(..upto).any(|(_, of)| ino.is_none_or(|ino| ino == *of))
    }
}

/// The requests in flight.
#[derive(Debug, Default)]
pub(super) struct Flight {
    state: Mutex<State>,
    changed: Condvar,
}

/// What a thread that waits can do itself.
pub(super) trait Work {
    /// Whether it could do any now.
    fn has_work(&self) -> bool;
    /// Does some.
    fn work(&self);
}

impl Flight {
    /// Waits until `done`, which is asked under the lock and may change the state.
    fn wait_until<R>(&self, work: &impl Work, mut done: impl FnMut(&mut State) -> Option<R>) -> R {
        let mut state = self.state.lock();
        loop {
            if let Some(result) = done(&mut state) {
                return result;
            }
            if work.has_work() {
                drop(state);
                work.work();
                state = self.state.lock();
            } else {
                state.asleep += 1;
                state = self.changed.wait(state);
                state.asleep -= 1;
            }
        }
    }

    /// A ticket for a request of `ino`, once fewer than `depth` are in flight.
    pub fn enter(&self, work: &impl Work, depth: usize, ino: Ino) -> Ticket {
        self.wait_until(work, |state| {
            (state.live.len() < depth).then(|| {
                let ticket = state.next;
                state.next += 1;
                state.live.insert(ticket, ino);
                ticket
            })
        })
    }

    /// Gives a ticket back.
    pub fn leave(&self, ticket: Ticket) {
        let mut state = self.state.lock();
        state.live.remove(&ticket);
        self.wake(&state);
    }

    /// Wakes who waits: a call of the system, made only where anybody does.
    fn wake(&self, state: &State) {
        if state.asleep > 0 {
            self.changed.notify_all();
        }
    }

    /// Tells who waits that there is something to do, or something done.
    pub fn tell(&self) {
        self.wake(&self.state.lock());
    }

    /// Waits until no request with a ticket before `upto` (before now, if none is given) is in flight, of `ino` if one is
    /// named.
    pub fn drain(&self, work: &impl Work, upto: Option<Ticket>, ino: Option<Ino>) {
        let upto = upto.unwrap_or_else(|| self.state.lock().next);
        self.wait_until(work, |state| state.is_drained(upto, ino).then_some(()));
    }

    /// Waits for something that is told of by [`Self::leave`] or [`Self::tell`].
    pub fn wait_for(&self, work: &impl Work, done: impl Fn() -> bool) {
        self.wait_until(work, |_| done().then_some(()));
    }

    /// How many are in flight.
    pub fn len(&self) -> usize {
        self.state.lock().live.len()
    }
}
