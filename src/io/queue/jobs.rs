//! How do the threads of a queue come to their work, and when do they sleep?
//!
//! One list of jobs, the oldest first. To wake a thread that sleeps takes about as long as to copy a megabyte, so a thread
//! that finds nothing looks for work for a while before it sleeps, as long as that pays; and no more threads are woken than
//! there are processors for, of which the caller has one: one that waits takes work too.
//!
//! Invariants:
//! 1. Each job is taken once; they are taken in the order in which they came.
//! 2. A thread that sleeps has said so under the lock, where it saw no job; who puts jobs in, or takes some and leaves others,
//!    looks under the lock who sleeps. While there is a job, a thread of the queue is awake or was called, and looks at the list
//!    again before it sleeps.
//! 3. A call wakes one sleeper, which is not counted as asleep from the call on.

use crate::pmem::mutation::{self, Mutation};
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use crate::sync::{Condvar, Mutex, MutexGuard, processors};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How long a thread looks at most, in nanoseconds, before it sleeps: about what it takes to wake it.
const MOST_NANOS: u64 = 50_000;
/// How long it looks where looking has not paid.
const LEAST_NANOS: u64 = 1_000;
/// How often it looks between two looks at the clock.
const LOOKS: u32 = 32;
/// How often the queue's threads take work before a caller that took some counts as gone. One that writes as fast as it can
/// comes back as often as each of them; between, it prepares the next request.
const HELP_LASTS: u32 = 8;

/// How long is it worth while to look for something before one sleeps?
#[derive(Debug)]
pub(super) struct Patience(AtomicU64);

impl Default for Patience {
    fn default() -> Self {
        Self(AtomicU64::new(MOST_NANOS))
    }
}

impl Patience {
    /// Looks whether something that another thread does has happened, for as long as that has paid of late. Loom's
    /// threads, and those of one processor, never run at once: there is one look.
    pub fn look(&self, happened: impl Fn() -> bool) -> bool {
        if cfg!(loom) || processors() < 2 {
            return happened();
        }
        let nanos = self.0.load(Ordering::Relaxed);
        let until = Instant::now() + Duration::from_nanos(nanos);
        loop {
            let mut looks = 0..LOOKS;
            if looks.any(|_| {
                std::hint::spin_loop();
                happened()
            }) {
                self.0.store((nanos * 2).min(MOST_NANOS), Ordering::Relaxed);
                return true;
            }
            if Instant::now() >= until {
                self.0.store((nanos / 2).max(LEAST_NANOS), Ordering::Relaxed);
                return false;
            }
        }
    }

    /// Sleeps by `sleep`: if that was short, to look longer would have paid.
    pub fn sleep<R>(&self, sleep: impl FnOnce() -> R) -> R {
        if cfg!(loom) {
            return sleep();
        }
        let begin = Instant::now();
        let result = sleep();
        if begin.elapsed() < Duration::from_nanos(2 * MOST_NANOS) {
            self.0.store(MOST_NANOS, Ordering::Relaxed);
        }
        result
    }
}

/// How much a thread takes at once.
#[derive(Clone, Copy, Debug)]
pub struct Batch<T> {
    /// Jobs.
    pub jobs: usize,
    /// Bytes after which it takes no further job.
    pub bytes: u64,
    /// How many bytes a job has.
    pub of: fn(&T) -> u64,
}

#[derive(Debug)]
struct State<T> {
    waiting: VecDeque<T>,
    /// Threads that sleep and were not called.
    asleep: usize,
    /// Threads that look for work, or were called to it.
    idle: usize,
    /// Calls that no sleeper has followed yet.
    calls: usize,
    /// So often do threads of the queue take work before no caller counts as taking any.
    helped: u32,
    closed: bool,
}

impl<T> State<T> {
    /// Callers that take work, as far as it shows.
    fn helpers(&self) -> usize {
        usize::from(self.helped > 0)
    }
}

/// The jobs of a queue.
#[derive(Debug)]
pub struct Jobs<T> {
    state: Mutex<State<T>>,
    called: Condvar,
    /// How many jobs there are, for who looks without the lock.
    len: AtomicUsize,
    /// Threads of the queue.
    workers: usize,
    batch: Batch<T>,
    patience: Patience,
}

impl<T> Jobs<T> {
    /// No jobs yet, for `workers` threads that call [`Self::next`] and take `batch` at once.
    #[must_use]
    pub fn new(workers: usize, batch: Batch<T>) -> Self {
        let waiting = VecDeque::new();
        let state = State { waiting, asleep: 0, idle: 0, calls: 0, helped: 0, closed: false };
        let (state, len) = (Mutex::new(state), AtomicUsize::new(0));
        Self { state, called: Condvar::new(), len, workers, batch, patience: Patience::default() }
    }

    /// Whether there are any jobs.
    #[must_use]
    pub fn any(&self) -> bool {
        self.len.load(Ordering::Acquire) > 0
    }

    /// Puts `jobs` at the end.
    pub fn put(&self, jobs: impl IntoIterator<Item = T>) {
        let mut state = self.state.lock();
        state.waiting.extend(jobs);
        self.len.store(state.waiting.len(), Ordering::Release);
        let call = self.is_call_due(&mut state, 1);
        drop(state);
        self.call(call);
    }

    /// The next jobs for a caller that waits; none where there are none.
    pub fn help(&self) -> Vec<T> {
        if !self.any() {
            return Vec::new();
        }
        let mut state = self.state.lock();
        state.helped = HELP_LASTS;
        self.take(&mut state, 0)
    }

    /// The next jobs for a thread of the queue, which waits for them; `None` where there are none and there will be none.
    pub fn next(&self) -> Option<Vec<T>> {
        let mut state = self.state.lock();
        loop {
            if self.is_one_too_many(&state) {
                state = self.sleep(state);
            }
            if !state.waiting.is_empty() {
                return Some(self.take_and_call(state));
            }
            if state.closed {
                return None;
            }
            state.idle += 1;
            drop(state);
            let came = self.patience.look(|| self.any());
            state = self.state.lock();
            state.idle -= 1;
            let is_empty = state.waiting.is_empty() || mutation::is(Mutation::SleepUnseen);
            if !came && is_empty && !state.closed {
                state = self.sleep(state);
            }
        }
    }

    /// Takes jobs for a thread of the queue, and calls another one where that leaves some that nobody would look for.
    fn take_and_call(&self, mut state: MutexGuard<'_, State<T>>) -> Vec<T> {
        let helpers = state.helpers();
        state.helped = state.helped.saturating_sub(1);
        let jobs = self.take(&mut state, helpers);
        let call = self.is_call_due(&mut state, helpers);
        drop(state);
        self.call(call);
        jobs
    }

    /// Sleeps until called, or until no jobs come any more.
    fn sleep<'s>(&'s self, mut state: MutexGuard<'s, State<T>>) -> MutexGuard<'s, State<T>> {
        state.asleep += 1;
        state = self.patience.sleep(|| {
            while state.calls == 0 && !state.closed {
                state = self.called.wait(state);
            }
            state
        });
        if state.calls > 0 {
            state.calls -= 1;
            state.idle -= 1;
        }
        state
    }

    /// Whether more threads of the queue are awake than there are processors for beside a caller that takes work. The last one never
    /// is.
    fn is_one_too_many(&self, state: &State<T>) -> bool {
        let awake = self.workers.saturating_sub(state.asleep);
        let last = usize::from(!mutation::is(Mutation::LastSleeps));
        !state.closed && awake > last && awake + state.helpers() + 1 > processors() + last
    }

    /// No jobs come any more: threads of the queue get what there is, then `None`.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.called.notify_all();
    }

    /// Takes what a batch has room for, and no more than a fair part beside those that look for work, and `helpers`.
    fn take(&self, state: &mut State<T>, helpers: usize) -> Vec<T> {
        let fair = state.waiting.len().div_ceil(1 + helpers + state.idle);
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while taken.len() < fair.min(self.batch.jobs.max(1)) && bytes < self.batch.bytes.max(1) {
            let Some(job) = state.waiting.pop_front() else { break };
            bytes += (self.batch.of)(&job);
            taken.push(job);
        }
        self.len.store(state.waiting.len(), Ordering::Release);
        taken
    }

    /// Whether a sleeper is to be called: there are more jobs than threads that look for them, and a processor for it, while `others`
    /// that are not the queue's threads run; or none is awake.
    fn is_call_due(&self, state: &mut State<T>, others: usize) -> bool {
        let awake = self.workers.saturating_sub(state.asleep);
        let has_room = awake == 0 || awake + others < processors();
        let due = state.asleep > 0 && state.waiting.len() > state.idle && has_room;
        if due {
            state.asleep -= 1;
            state.calls += 1;
            state.idle += 1;
        }
        due
    }

    fn call(&self, due: bool) {
        if due {
            self.called.notify_one();
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn jobs(workers: usize) -> Jobs<u64> {
        Jobs::new(workers, Batch { jobs: 4, bytes: 10, of: |job| *job })
    }

    #[test]
    fn a_batch_ends_with_its_jobs_or_its_bytes_or_what_is_fair() {
        let few = jobs(0);
        few.put([1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!((few.help(), few.help()), (vec![1, 2, 3, 4], vec![5, 6]));
        assert_eq!((few.help(), few.help(), few.any()), (vec![7, 8], vec![], false));
        // Another one looks for work: half is left to it.
        few.state.lock().idle = 1;
        few.put([1, 1, 1]);
        assert_eq!((few.help(), few.help()), (vec![1, 1], vec![1]));
    }

    #[test]
    fn a_sleeper_is_called_where_nobody_is_awake_or_a_processor_is_free() {
        let two = jobs(2);
        two.state.lock().asleep = 2;
        two.put([1]);
        assert_eq!(two.state.lock().asleep, 1, "nobody was awake");
        assert_eq!(two.state.lock().calls, 1);
        two.put([]);
        assert_eq!(two.state.lock().calls, 1, "the one that was called will find the job");
        two.put([1, 1]);
        let more = usize::from(processors() > 2);
        assert_eq!(two.state.lock().calls, 1 + more, "the caller has a processor");
    }

    #[test]
    fn who_finds_more_awake_than_there_are_processors_sleeps_unless_it_is_the_last() {
        let many = jobs(processors() + 1);
        let too_many = || many.is_one_too_many(&many.state.lock());
        assert!(too_many(), "more threads than processors");
        many.state.lock().asleep = 1;
        assert!(!too_many());
        many.put([1]);
        assert_eq!(many.help(), [1]);
        assert_eq!(too_many(), processors() > 1, "the caller has a processor");
        many.state.lock().asleep = processors();
        assert!(!too_many(), "the last one");
    }

    #[test]
    fn patience_ends_where_it_does_not_pay_and_comes_back_where_it_would_have() {
        let patience = Patience::default();
        (0..10).for_each(|_| _ = patience.look(|| false));
        let end = patience.0.load(Ordering::Relaxed);
        assert_eq!(end, if processors() < 2 { MOST_NANOS } else { LEAST_NANOS });
        patience.sleep(|| ());
        assert_eq!(patience.0.load(Ordering::Relaxed), MOST_NANOS);
    }
}
