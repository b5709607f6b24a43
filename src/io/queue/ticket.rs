//! How does a request end exactly once, and how does its submitter learn of it?
//!
//! A request carries a [`Completer`], which can only be moved; ending the request spends it, so that a second end can not be
//! written. Dropped on the way (the thread that had it is gone), it ends the request as [`Error::Abandoned`]. The
//! submitter has the [`Queued`] ticket, which is spent the same way by whoever learns of the end: a waiter, a poll, a
//! callback or a `Future`.
//!
//! Invariants:
//! 1. What the ticket gives was put there once, after everything the request did is durable and its bytes of the file
//!    are let go.
//! 2. A callback runs once, on no thread that does I/O, and holding nothing.

use super::Shared;
use super::flight::Ticket;
use crate::error::{Error, Result};
use crate::pmem::mutation::{self, Mutation};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Arc, Condvar, Mutex};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// How a request ended.
#[derive(Debug)]
#[must_use = "a request may have failed"]
pub struct Completed {
    /// How many bytes were read or written, counted from `offset`. A write of fewer than asked left the file with just
    /// these.
    pub result: Result<usize>,
    /// The byte of the file that the first byte was read from or written to: of an append, the end it found.
    pub offset: u64,
    /// The request's buffers, in order and as long as they were. Of a read, the first `result` bytes are the file's.
    pub buffers: Vec<Vec<u8>>,
}

/// What to do when a request ends.
pub(super) type Callback = Box<dyn FnOnce(Completed) + Send>;

enum State {
    Waiting { waker: Option<Waker>, callback: Option<Callback>, asleep: bool },
    Done(Completed),
    Taken,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Waiting { .. } => "Waiting",
            Self::Done(_) => "Done",
            Self::Taken => "Taken",
        })
    }
}

/// Where a request's end is put.
#[derive(Debug)]
pub(super) struct Slot {
    state: Mutex<State>,
    /// The request has ended, for who looks without the lock.
    done: AtomicBool,
    ended: Condvar,
}

impl Slot {
    fn take(&self) -> Option<Completed> {
        let mut state = self.state.lock();
        match std::mem::replace(&mut *state, State::Taken) {
            State::Done(completed) => Some(completed),
            other => {
                *state = other;
                None
            }
        }
    }

    fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }
}

/// The right and the duty to end one request, once:
///
/// ```compile_fail,E0382
/// # use daxstore::io::queue::{Completed, Completer};
/// fn twice(completer: Completer, one: Completed, two: Completed) {
///     drop(completer.complete(one));
///     drop(completer.complete(two));
/// }
/// ```
#[derive(Debug)]
#[must_use = "a request that is not ended is abandoned"]
pub struct Completer {
    slot: Option<Arc<Slot>>,
    shared: Arc<Shared>,
    ticket: Ticket,
}

/// A callback with what it is to be called with.
#[must_use = "a callback that is not run tells nobody"]
pub struct Calling(Callback, Completed);

impl Calling {
    /// Calls it.
    pub fn run(self) {
        (self.0)(self.1);
    }
}

impl std::fmt::Debug for Calling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Calling")
    }
}

impl Completer {
    pub(super) fn new(shared: &Arc<Shared>, ticket: Ticket) -> (Self, Queued) {
        let state = Mutex::new(State::Waiting { waker: None, callback: None, asleep: false });
        let slot = Arc::new(Slot { state, done: AtomicBool::new(false), ended: Condvar::new() });
        let completer = Self { slot: Some(slot.clone()), shared: shared.clone(), ticket };
        (completer, Queued { slot, shared: shared.clone() })
    }

    pub(super) fn ticket(&self) -> Ticket {
        self.ticket
    }

    /// Notes that somebody is at the request.
    pub(super) fn begun(&self) {
        if mutation::is(Mutation::DrainWaiting) {
            self.shared.flight.leave(self.ticket);
        }
    }

    /// Ends the request. Returns its callback, if it has one, to be called by somebody who does no I/O.
    pub fn complete(mut self, completed: Completed) -> Option<Calling> {
        self.end(completed)
    }

    fn end(&mut self, completed: Completed) -> Option<Calling> {
        let slot = self.slot.take()?;
        let mut state = slot.state.lock();
        let mut woken = None;
        let calling = match std::mem::replace(&mut *state, State::Taken) {
            State::Waiting { callback: Some(callback), .. } => Some(Calling(callback, completed)),
            State::Waiting { waker, callback: None, asleep } => {
                *state = State::Done(completed);
                slot.done.store(true, Ordering::Release);
                // A call of the system, and most who wait look.
                if asleep {
                    slot.ended.notify_all();
                }
                woken = waker;
                None
            }
            ended => {
                *state = ended;
                None
            }
        };
        drop(state);
        self.shared.flight.leave(self.ticket);
        // Last, and whatever it does: it is the caller's code, and others that ended with this request are to be told too.
        if let Some(waker) = woken {
            let _panicked = catch_unwind(AssertUnwindSafe(|| waker.wake()));
        }
        calling
    }
}

impl Drop for Completer {
    fn drop(&mut self) {
        let completed = Completed { result: Err(Error::Abandoned), offset: 0, buffers: Vec::new() };
        if let Some(calling) = self.end(completed) {
            // This thread may be unwinding already.
            let _panicked = catch_unwind(AssertUnwindSafe(|| calling.run()));
        }
    }
}

/// A request that was submitted: a ticket for its end. Dropped, the request is done all the same and nobody is told.
#[derive(Debug)]
#[must_use = "what became of the request is said to the ticket"]
pub struct Queued {
    slot: Arc<Slot>,
    shared: Arc<Shared>,
}

impl Queued {
    /// Whether the request ended: [`Self::wait`] would not wait.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.slot.is_done()
    }

    /// How the request ended, or the ticket again where it has not yet.
    ///
    /// # Errors
    /// The ticket.
    pub fn try_wait(self) -> Result<Completed, Self> {
        self.slot.take().ok_or(self)
    }

    /// Waits until the request has ended, and does what waits in the queue meanwhile.
    pub fn wait(self) -> Completed {
        if self.shared.is_driven() {
            self.shared.flight.wait_for(&*self.shared, || self.slot.is_done());
        } else {
            let happened = || self.slot.is_done() || self.shared.jobs.any();
            while !self.slot.is_done() && (self.shared.help() || self.shared.patience.look(happened)) {}
        }
        let mut state = self.slot.state.lock();
        loop {
            match std::mem::replace(&mut *state, State::Taken) {
                State::Done(completed) => return completed,
                _ => *state = State::Waiting { waker: None, callback: None, asleep: true },
            }
            state = self.shared.patience.sleep(|| self.slot.ended.wait(state));
        }
    }

    /// Has `callback` called once with how the request ended: here and now if it has, else by a thread that does no I/O of
    /// the queue. It may use the store and the queue; the callbacks of a queue run one after the other.
    pub fn on_complete(self, callback: impl FnOnce(Completed) + Send + 'static) {
        let mut state = self.slot.state.lock();
        match std::mem::replace(&mut *state, State::Taken) {
            State::Done(completed) => {
                drop(state);
                callback(completed);
            }
            _ => *state = State::Waiting { waker: None, callback: Some(Box::new(callback)), asleep: false },
        }
    }
}

/// The request's end. Needs no runtime; on a queue without threads a poll does what is waiting.
impl Future for Queued {
    type Output = Completed;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Completed> {
        while self.shared.is_driven() && !self.slot.is_done() && self.shared.step() {}
        let mut state = self.slot.state.lock();
        match std::mem::replace(&mut *state, State::Taken) {
            State::Done(completed) => Poll::Ready(completed),
            _ => {
                *state =
                    State::Waiting { waker: Some(context.waker().clone()), callback: None, asleep: false };
                Poll::Pending
            }
        }
    }
}
