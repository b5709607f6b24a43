//! How is a file read and written by somebody else than the caller?
//!
//! A [`Queue`] has threads that copy; a caller submits a request with its buffers and gets a ticket. The
//! caller's thread finds the places of a write and reserves what its record can need (`write.rs`); the threads copy, and fence
//! what they copied; who copied last makes it the file's, with what else was finished (`end_io`).
//!
//! Invariants:
//! 1. A request has everything it waits for when it is put where the threads find it: its bytes of the file in `io`,
//!    its turn of a mapped file, its space. The threads wait for `state`s and what is inside of them only. So each request
//!    ends whatever callers do, and so does each wait for one.
//! 2. Bytes are held from submission until the write is the file's: requests for overlapping bytes (writes: blocks) take
//!    effect in the order in which they were submitted; truncates, punches and whatever else changes these bytes wait for what
//!    is in flight there.
//! 3. A request keeps its inode alive by a handle. What is left to do for the last handle waits for `io`, so
//!    the threads that do I/O leave it to another one, which also runs the callbacks.
//! 4. A caller that waits for a place in the queue, or for bytes in flight, holds no bytes.

mod flight;
mod jobs;
mod ticket;
mod write;

pub use jobs::{Batch, Jobs};
pub use ticket::{Calling, Completed, Completer, Queued};

use super::read::{check_regular, read_held};
use super::write::{append_vectored, write_vectored};
use super::{Handle, WriteFlags};
use crate::error::{Error, Result};
use crate::inode::{DetachedRange, Fs, InodeCore, RangeGuard};
use crate::iomap::FileRange;
use crate::pmem::mutation::{self, Mutation};
use crate::sync::channel::{Receiver, Sender, unbounded};
use crate::sync::{Arc, Mutex, thread};
use crate::units::Ino;
use flight::{Flight, Ticket, Work};
use jobs::Patience;
use std::io::{IoSlice, IoSliceMut};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use write::{Part, WriteIo};

/// How a queue works.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Threads that copy. With none the callers do what is waiting, in [`Queue::step`] and wherever they wait.
    pub workers: usize,
    /// Requests in flight; who submits more waits.
    pub depth: usize,
    /// Bytes of the parts that a large write is cut into, a multiple of 4096.
    pub part: u64,
    /// Parts that one thread copies before it fences them, if they are small.
    pub batch: usize,
    /// Bytes after which a thread takes nothing more before it fences.
    pub batch_bytes: u64,
}

/// What a request wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Want {
    /// To fill the buffers from this byte on.
    Read(u64),
    /// To write the buffers from this byte on.
    Write(u64),
    /// To write all of the buffers at the end.
    Append,
}

/// Bytes of a file held in `io`, by nobody's thread.
#[derive(Debug)]
struct HeldBytes {
    core: Arc<InodeCore>,
    range: Option<DetachedRange>,
}

impl HeldBytes {
    fn new(handle: &Handle, guard: RangeGuard<'_>) -> Self {
        Self { core: handle.shared_core().clone(), range: Some(guard.detach()) }
    }
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        if let Some(range) = self.range.take() {
            drop(self.core.io.attach(range));
        }
    }
}

/// A read in flight. Dropped in this order: the bytes are let go, then the end is told.
#[derive(Debug)]
struct ReadIo {
    held: HeldBytes,
    handle: Handle,
    asked: FileRange,
    buffers: Vec<Vec<u8>>,
    completer: Completer,
}

/// What a thread takes at once.
#[derive(Debug)]
enum Job {
    Read(Box<ReadIo>),
    /// A part of a write.
    Write(Part),
}

/// What is left when a request has ended, for somebody who may wait for locks.
#[derive(Debug)]
enum After {
    Call(Calling),
    Release(Handle),
}

impl After {
    fn run(self) {
        match self {
            Self::Call(calling) => calling.run(),
            Self::Release(handle) => drop(handle),
        }
    }
}

/// What all threads of a queue share.
#[derive(Debug)]
pub(super) struct Shared {
    fs: Arc<Fs>,
    limits: Limits,
    flight: Flight,
    jobs: Jobs<Job>,
    /// Of callers that wait for the end of a request.
    patience: Patience,
    /// The way to the thread that runs callbacks, in a queue that has one and was not dropped.
    after: Mutex<Option<Sender<After>>>,
}

impl Work for Shared {
    fn has_work(&self) -> bool {
        self.is_driven() && self.jobs.any()
    }

    fn work(&self) {
        self.step();
    }
}

impl Shared {
    /// Whether there are no threads, so that callers do the work.
    fn is_driven(&self) -> bool {
        self.limits.workers == 0
    }

    /// Does what one thread would do next: whether there was anything.
    fn step(&self) -> bool {
        let batch = self.jobs.help();
        if batch.is_empty() {
            return false;
        }
        let done = catch_unwind(AssertUnwindSafe(|| self.run(batch)));
        let ended = done.map(|after| {
            let run = |after: After| catch_unwind(AssertUnwindSafe(|| after.run()));
            after.into_iter().map(run).fold(Ok(()), Result::and)
        });
        self.flight.tell();
        // What panicked is the caller's to hear of, once nobody waits for it any more.
        if let Err(panic) = ended.and_then(|ended| ended) {
            resume_unwind(panic);
        }
        true
    }

    /// Does for the queue's threads what one of them would do next: whether there was anything. Who waits can copy meanwhile, which
    /// is cheaper than to sleep and be woken. Callbacks still run in their own thread.
    fn help(&self) -> bool {
        let batch = self.jobs.help();
        if batch.is_empty() {
            return false;
        }
        // It may be others' requests that panic, of which this caller is not to hear.
        let done = catch_unwind(AssertUnwindSafe(|| self.run(batch))).unwrap_or_default();
        for after in done {
            let lost = match &*self.after.lock() {
                Some(tail) => tail.send(after).err(),
                None => Some(after),
            };
            if let Some(after) = lost {
                let _panicked = catch_unwind(AssertUnwindSafe(|| after.run()));
            }
        }
        true
    }

    /// Does `batch`, under one fence.
    fn run(&self, batch: Vec<Job>) -> Vec<After> {
        let (mut after, mut parts) = (Vec::new(), Vec::new());
        for job in batch {
            match job {
                Job::Read(read) => read.run(&mut after),
                Job::Write(part) => parts.push(part),
            }
        }
        write::run(&self.fs, parts, &mut after);
        after
    }
}

impl Job {
    fn bytes(&self) -> u64 {
        match self {
            Self::Read(read) => read.asked.len,
            Self::Write(part) => part.bytes(),
        }
    }
}

impl ReadIo {
    fn run(self, after: &mut Vec<After>) {
        let Self { held, handle, asked, mut buffers, completer } = self;
        completer.begun();
        let mut slices: Vec<_> = buffers.iter_mut().map(|buffer| IoSliceMut::new(buffer)).collect();
        let result = read_held(&handle, &mut slices, asked);
        drop(held);
        let completed = Completed { result, offset: asked.offset, buffers };
        end(handle, completer, completed, after);
    }
}

/// Ends a request that holds nothing any more.
fn end(handle: Handle, completer: Completer, completed: Completed, after: &mut Vec<After>) {
    after.extend(handle.release_unless_last().map(After::Release));
    after.extend(completer.complete(completed).map(After::Call));
}

/// Asynchronous I/O of the files of one store. Dropped, it waits for everything that was submitted.
#[derive(Debug)]
pub struct Queue {
    shared: Arc<Shared>,
    workers: Vec<thread::JoinHandle<()>>,
    /// Runs the callbacks, and lets last handles go.
    tail: Option<thread::JoinHandle<()>>,
}

fn worker(shared: &Shared, after: &Sender<After>) {
    while let Some(batch) = shared.jobs.next() {
        // Whatever panics abandons the requests it had; the others need this thread all the same.
        let done = catch_unwind(AssertUnwindSafe(|| shared.run(batch))).unwrap_or_default();
        for after_one in done {
            if let Err(lost) = after.send(after_one) {
                lost.run();
            }
        }
    }
}

fn tail(work: &Receiver<After>) {
    while let Some(after) = work.recv() {
        // A callback that panics must not keep the others from being run.
        let _panicked = catch_unwind(AssertUnwindSafe(|| after.run()));
    }
}

impl Queue {
    /// A queue for the files of `fs`.
    #[must_use]
    pub fn new(fs: Arc<Fs>, limits: Limits) -> Self {
        let batch = Batch { jobs: limits.batch, bytes: limits.batch_bytes, of: Job::bytes };
        let (jobs, after) = (Jobs::new(limits.workers, batch), Mutex::new(None));
        let (flight, patience) = (Flight::default(), Patience::default());
        let shared = Arc::new(Shared { fs, limits, flight, jobs, patience, after });
        let (mut workers, mut tail_thread) = (Vec::new(), None);
        if limits.workers > 0 {
            let (after, work) = unbounded();
            tail_thread = Some(thread::spawn(move || tail(&work)));
            *shared.after.lock() = Some(after.clone());
            for _ in 0..limits.workers {
                let (shared, after) = (shared.clone(), after.clone());
                workers.push(thread::spawn(move || worker(&shared, &after)));
            }
        }
        Self { shared, workers, tail: tail_thread }
    }

    /// Submits a request: what can be said at once (no space, not a file of this store) is said to the ticket too. Waits
    /// while the queue is full, and while bytes it needs are held.
    pub fn submit(&self, handle: &Handle, want: Want, buffers: Vec<Vec<u8>>) -> Queued {
        let ticket = self.shared.flight.enter(&*self.shared, self.shared.limits.depth.max(1), handle.ino());
        let (completer, queued) = Completer::new(&self.shared, ticket);
        let jobs = match self.prepare(handle, want, buffers, completer) {
            Ok(jobs) => jobs,
            Err((completer, completed)) => {
                completer.complete(completed).into_iter().for_each(Calling::run);
                return queued;
            }
        };
        self.shared.jobs.put(jobs);
        if self.shared.is_driven() {
            self.shared.flight.tell();
        }
        queued
    }

    /// A request that ends with `error` at once.
    pub fn refuse(&self, handle: &Handle, error: Error, buffers: Vec<Vec<u8>>) -> Queued {
        let ticket = self.shared.flight.enter(&*self.shared, usize::MAX, handle.ino());
        let (completer, queued) = Completer::new(&self.shared, ticket);
        let completed = Completed { result: Err(error), offset: 0, buffers };
        completer.complete(completed).into_iter().for_each(Calling::run);
        queued
    }

    fn prepare(
        &self,
        handle: &Handle,
        want: Want,
        buffers: Vec<Vec<u8>>,
        completer: Completer,
    ) -> Result<Vec<Job>, (Completer, Completed)> {
        let len = buffers.iter().map(|buffer| buffer.len() as u64).sum();
        let planned = self.check(handle).and_then(|()| match want {
            Want::Read(offset) => FileRange::new(offset, len).map(|asked| Some((asked, None))),
            Want::Write(_) | Want::Append if len == 0 => Ok(Some((FileRange { offset: 0, len: 0 }, None))),
            _ => {
                let plan = self.plan(handle, want, len, completer.ticket())?;
                Ok(plan.map(|plan| (plan.range, Some(plan))))
            }
        });
        let offset = if let Want::Read(offset) | Want::Write(offset) = want { offset } else { 0 };
        let (range, plan) = match planned {
            Ok(Some((range, plan))) if range.len > 0 => (range, plan),
            Ok(None) => {
                let completed = self.write_at_once(handle, want, buffers, completer.ticket());
                return Err((completer, completed));
            }
            other => return Err((completer, Completed { result: other.map(|_| 0), offset, buffers })),
        };
        let Some(plan) = plan else {
            let held = self.hold(handle, range.offset, range.end(), false);
            let read = ReadIo { held, handle: handle.clone(), asked: range, buffers, completer };
            return Ok(vec![Job::Read(Box::new(read))]);
        };
        let parts = self.parts(range);
        let io = Arc::new(WriteIo::new(handle.clone(), plan, buffers, completer));
        Ok(parts.into_iter().map(|part| Job::Write(Part::new(io.clone(), part))).collect())
    }

    /// Writes in the thread that submits, after what it submitted before for the file.
    fn write_at_once(&self, handle: &Handle, want: Want, buffers: Vec<Vec<u8>>, ticket: Ticket) -> Completed {
        self.drain_before(ticket, Some(handle.ino()));
        let slices: Vec<_> = buffers.iter().map(|buffer| IoSlice::new(buffer)).collect();
        let (offset, result) = match want {
            Want::Read(offset) => (offset, Ok(0)),
            Want::Write(offset) => (offset, write_vectored(handle, &slices, offset, WriteFlags::NONE)),
            Want::Append => match append_vectored(handle, &slices, WriteFlags::NONE) {
                Ok(offset) => (offset, Ok(slices.iter().map(|slice| slice.len()).sum())),
                Err(error) => (0, Err(error)),
            },
        };
        Completed { result, offset, buffers }
    }

    fn check(&self, handle: &Handle) -> Result<()> {
        if !Arc::ptr_eq(handle.fs(), &self.shared.fs) {
            return Err(Error::InvalidArgument("a queue takes the files of its own store"));
        }
        check_regular(handle)
    }

    /// The parts of a write of `range`, one after the other.
    fn parts(&self, range: FileRange) -> Vec<FileRange> {
        let (size, mut at, mut parts) =
            (self.shared.limits.part.max(crate::units::BLOCK_BYTES), range.offset, Vec::new());
        while at < range.end() {
            // A rest shorter than half a part goes with the part before it.
            let left = range.end() - at;
            let len = if left < size + size / 2 { left } else { size - at % crate::units::BLOCK_BYTES };
            parts.push(FileRange { offset: at, len });
            at += len;
        }
        parts
    }

    /// Holds bytes `start` to `end` of the file, and does what is waiting meanwhile.
    fn hold(&self, handle: &Handle, start: u64, end: u64, exclusive: bool) -> HeldBytes {
        let io = &handle.core().io;
        loop {
            if let Some(guard) = io.try_hold(start, end, exclusive) {
                return HeldBytes::new(handle, guard);
            }
            let done = if self.shared.is_driven() { self.shared.step() } else { self.shared.help() };
            if !done {
                break;
            }
        }
        HeldBytes::new(handle, if exclusive { io.exclusive(start, end) } else { io.shared(start, end) })
    }

    /// Does what one thread would do next, in a queue without threads: whether there was anything.
    pub fn step(&self) -> bool {
        self.shared.is_driven() && self.shared.step()
    }

    /// Waits until everything that was submitted before the call has ended.
    pub fn drain(&self) {
        self.shared.flight.drain(&*self.shared, None, None);
    }

    /// As [`Self::drain`], for the requests of one file.
    pub fn drain_file(&self, ino: Ino) {
        self.shared.flight.drain(&*self.shared, None, Some(ino));
    }

    /// Waits for the requests of `ino` (of all files, if none is named) with tickets before `ticket`.
    fn drain_before(&self, ticket: Ticket, ino: Option<Ino>) {
        self.shared.flight.drain(&*self.shared, Some(ticket), ino);
    }

    /// How many requests are in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.shared.flight.len()
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        while self.shared.is_driven() && self.shared.step() {}
        self.shared.jobs.close();
        for worker in self.workers.drain(..) {
            let _panicked = worker.join();
        }
        drop(self.shared.after.lock().take());
        // The last callback may be what drops the queue.
        if let Some(tail) = self.tail.take()
            && tail.thread().id() != thread::current().id()
        {
            let _panicked = tail.join();
        }
        debug_assert!(mutation::is(Mutation::DrainWaiting) || !self.shared.jobs.any());
    }
}
