//! Model: how the threads of a queue get their jobs. Each job is taken once, in order, and by somebody: whoever sleeps where
//! it should be awake is a deadlock, which loom finds.
//!
//! Mutations: `SleepUnseen`, `LastSleeps`.

use crate::{Event, explore, part, pick, together};
use daxstore::io::queue::{Batch, Jobs};
use std::sync::{Arc, Mutex};

/// Jobs, which of them were taken, and whether all were.
struct Scene {
    jobs: Jobs<usize>,
    taken: Mutex<Vec<usize>>,
    all: usize,
    done: Event,
}

impl Scene {
    fn new(workers: usize, all: usize) -> Arc<Self> {
        let batch = Batch { jobs: 2, bytes: u64::MAX, of: |_| 1 };
        let (jobs, done) = (Jobs::new(workers, batch), Event::default());
        Arc::new(Self { jobs, taken: Mutex::default(), all, done })
    }

    fn took(&self, batch: &[usize]) {
        assert!(batch.windows(2).all(|pair| pair[0] < pair[1]), "in order: {batch:?}");
        let mut taken = self.taken.lock().unwrap();
        taken.extend(batch);
        let is_done = taken.len() == self.all;
        drop(taken);
        if is_done {
            self.done.set();
        }
    }

    /// A thread of the queue.
    fn work(self: &Arc<Self>) -> crate::Part {
        let scene = self.clone();
        part(move || {
            while let Some(batch) = scene.jobs.next() {
                assert!(!batch.is_empty(), "who gets something gets a job");
                scene.took(&batch);
            }
        })
    }

    /// Ends when every job was taken by somebody; before that nothing wakes who sleeps wrongly.
    fn finish(&self) {
        self.done.wait();
        self.jobs.close();
        let mut taken = self.taken.lock().unwrap().clone();
        taken.sort_unstable();
        assert!(taken.into_iter().eq(0..self.all), "each once");
    }
}

#[test]
fn a_job_wakes_a_thread_that_is_about_to_sleep() {
    explore("jobs: one thread", || {
        let all = pick(2, 200);
        let scene = Scene::new(1, all);
        let own = scene.clone();
        let put = part(move || {
            (0..all).for_each(|job| own.jobs.put([job]));
            own.finish();
        });
        together(vec![scene.work(), put]);
    });
}

/// More threads than processors: one of them sleeps while the caller takes work, and not both.
#[test]
fn a_caller_that_helps_leaves_a_thread_awake() {
    explore("jobs: two threads and a caller", || {
        let all = pick(3, 300);
        let scene = Scene::new(2, all);
        let own = scene.clone();
        let put = part(move || {
            let mut next = 0;
            while next < all {
                let end = all.min(next + 2);
                own.jobs.put(next..end);
                next = end;
                let helped = own.jobs.help();
                own.took(&helped);
            }
            own.finish();
        });
        together(vec![scene.work(), scene.work(), put]);
    });
}

#[cfg(loom)]
#[test]
fn mutations_are_caught() {
    use daxstore::pmem::mutation::Mutation;
    crate::assert_caught("io_jobs::a_job_wakes_a_thread_that_is_about_to_sleep", Mutation::SleepUnseen);
    crate::assert_caught("io_jobs::a_caller_that_helps_leaves_a_thread_awake", Mutation::LastSleeps);
}
