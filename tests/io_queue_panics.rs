//! What becomes of queued I/O where something panics: a callback, a waker, the thread that copies?
//!
//! Everybody else is told, nobody waits for ever, bytes and space are let go, and nothing that was not copied comes to light.

#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use daxstore::pmem::mutation::{self, Mutation};
use daxstore::pmem::sim::Sim;
use daxstore::{Error, File, IoQueue, IoQueueOptions, IoRequest, OpenOptions, Store, StoreOptions};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

const B: u64 = 4096;

/// A store whose free blocks hold what a removed file had.
fn store() -> Store {
    let store = Store::create_sim(Arc::new(Sim::new(16 << 20).unwrap()), &StoreOptions::new()).unwrap();
    let free = store.statfs().free - 200;
    store.write("old", &vec![0xcc; (free * B) as usize]).unwrap();
    store.remove_file("old").unwrap();
    store
}

fn open(store: &Store, name: &str) -> File {
    store.open(name, &OpenOptions::new().read(true).write(true).create(true)).unwrap()
}

fn write(at: u64, blocks: u64) -> IoRequest {
    IoRequest::write(at * B, vec![vec![9; (blocks * B) as usize]])
}

/// `f`, in a thread that has a minute for it.
fn in_time<R: Send + 'static>(f: impl FnOnce() -> R + Send + 'static) -> R {
    let (done, end) = mpsc::channel();
    let thread = std::thread::spawn(move || done.send(f()));
    let result = end.recv_timeout(Duration::from_secs(60)).expect("an end within a minute");
    thread.join().unwrap().unwrap();
    result
}

fn panics<R>(f: impl FnOnce() -> R) -> bool {
    catch_unwind(AssertUnwindSafe(f)).is_err()
}

#[test]
fn a_callback_that_panics_keeps_nobody_waiting() {
    let calls = in_time(|| {
        let (store, calls) = (store(), Arc::new(AtomicUsize::new(0)));
        let file = open(&store, "f");
        let queue = IoQueue::new(&store, IoQueueOptions::new());
        for i in 0..20 {
            let calls = calls.clone();
            queue.submit(&file, write(i, 1)).on_complete(move |ended| {
                calls.fetch_add(1, Ordering::Relaxed);
                assert!(ended.result.is_err(), "this panics");
            });
        }
        queue.drain();
        assert_eq!(queue.submit(&file, write(3, 2)).wait().result.unwrap(), 2 * B as usize);
        drop(queue);
        assert!(store.check().unwrap().is_clean());
        calls.load(Ordering::Relaxed)
    });
    assert_eq!(calls, 20, "each is called");
}

/// Who drives a queue hears of the panic, after the other callbacks of the step were called.
#[test]
fn a_callback_that_panics_in_a_step_is_the_drivers() {
    let (store, calls) = (store(), Arc::new(AtomicUsize::new(0)));
    let file = open(&store, "f");
    // One that makes the file longer would wait for those before it.
    file.set_len(3 * B).unwrap();
    let queue = IoQueue::new(&store, IoQueueOptions::new().workers(0));
    for i in 0..3 {
        let calls = calls.clone();
        queue.submit(&file, write(i, 1)).on_complete(move |_| {
            calls.fetch_add(1, Ordering::Relaxed);
            assert_eq!(i, 1, "the first and the last panic");
        });
    }
    assert!(panics(|| queue.step()));
    assert_eq!((calls.load(Ordering::Relaxed), queue.in_flight()), (3, 0));
    queue.drain();
    assert_eq!(queue.submit(&file, write(0, 3)).wait().result.unwrap(), 3 * B as usize);
}

/// A waker that panics.
struct Broken;

impl Wake for Broken {
    fn wake(self: Arc<Self>) {
        panic!("a waker panics on purpose");
    }
}

#[test]
fn a_waker_that_panics_keeps_nobody_waiting() {
    for workers in [0, 2] {
        in_time(move || {
            let store = store();
            let file = open(&store, "f");
            let queue = IoQueue::new(&store, IoQueueOptions::new().workers(workers));
            let tickets: Vec<_> = (0..12).map(|i| queue.submit(&file, write(64 * i, 64))).collect();
            let waker = Waker::from(Arc::new(Broken));
            let mut ends = Vec::new();
            for (i, mut ticket) in tickets.into_iter().enumerate() {
                if i % 3 == 0
                    && workers > 0
                    && let Poll::Ready(ended) = pin!(&mut ticket).poll(&mut Context::from_waker(&waker))
                {
                    ends.push(ended);
                } else {
                    ends.push(ticket.wait());
                }
            }
            queue.drain();
            assert_eq!(queue.in_flight(), 0);
            assert!(ends.iter().all(|ended| matches!(ended.result, Ok(262_144))), "{ends:?}");
            drop(queue);
            assert!(store.check().unwrap().is_clean());
        });
    }
}

/// A write in three parts of which the thread that has the second panics: the count that it ends with.
fn panic_in_the_second_part(store: &Store, file: &File, rule: Mutation) -> Result<usize, Error> {
    let options = IoQueueOptions::new().workers(0).part_bytes(4 * B).batch(1);
    let queue = IoQueue::new(store, options);
    let ticket = queue.submit(file, write(0, 12));
    assert!(queue.step());
    mutation::set(Some(rule));
    let panicked = panics(|| queue.step());
    mutation::set(None);
    assert!(panicked);
    assert!(queue.step() && !queue.step());
    assert_eq!(queue.in_flight(), 0);
    ticket.wait().result
}

#[test]
fn what_nobody_copied_is_not_accepted() {
    let store = store();
    let file = open(&store, "f");
    file.set_len(12 * B).unwrap();
    assert_eq!(panic_in_the_second_part(&store, &file, Mutation::PanicInPart).unwrap(), 4 * B as usize);
    let mut found = vec![1; 12 * B as usize];
    file.read_exact_at(&mut found, 0).unwrap();
    let (copied, rest) = found.split_at(4 * B as usize);
    assert!(copied.iter().all(|byte| *byte == 9), "what was copied");
    assert!(rest.iter().all(|byte| *byte == 0), "what was not");
    assert_eq!(file.metadata().blocks, 4, "the rest went back");
    assert!(store.check().unwrap().is_clean());
    // The bytes are free for others, and the space.
    file.write_all_at(&[7; 12 * B as usize], 0).unwrap();
}

/// Who waits copies for others meanwhile, and is not to fail with what it copies for them.
#[test]
fn who_waits_does_not_panic_for_others() {
    in_time(|| {
        let store = store();
        let file = open(&store, "f");
        file.set_len(512 * B).unwrap();
        let queue = IoQueue::new(&store, IoQueueOptions::new().workers(1));
        for _ in 0..20 {
            let tickets: Vec<_> = (0..8).map(|i| queue.submit(&file, write(64 * i, 64))).collect();
            mutation::set(Some(Mutation::PanicInPart));
            let ends: Vec<_> = tickets.into_iter().map(|ticket| ticket.wait().result).collect();
            mutation::set(None);
            assert!(ends.iter().all(|end| matches!(end, Ok(262_144) | Err(Error::Abandoned))), "{ends:?}");
            queue.drain();
        }
        assert!(store.check().unwrap().is_clean());
    });
}

#[test]
fn a_part_that_is_forgotten_is_noticed() {
    let store = store();
    let file = open(&store, "f");
    file.set_len(12 * B).unwrap();
    panic_in_the_second_part(&store, &file, Mutation::ForgetPart).unwrap();
    let mut found = vec![1; 12 * B as usize];
    file.read_exact_at(&mut found, 0).unwrap();
    assert!(found.contains(&0xcc), "what another file held comes to light with the rule broken");
}

#[test]
fn a_write_whose_thread_panics_is_abandoned() {
    let store = store();
    let file = open(&store, "f");
    file.set_len(8 * B).unwrap();
    store.reclaim().unwrap();
    let free = store.statfs().free;
    let queue = IoQueue::new(&store, IoQueueOptions::new().workers(0));
    let (one, other) = (queue.submit(&file, write(0, 2)), queue.submit(&file, write(5, 2)));
    mutation::set(Some(Mutation::PanicInPart));
    let panicked = panics(|| queue.step());
    mutation::set(None);
    assert!(panicked);
    queue.drain();
    assert!(matches!(one.wait().result, Err(Error::Abandoned)));
    assert!(matches!(other.wait().result, Err(Error::Abandoned)));
    // What was opened for nodes goes, too.
    store.reclaim().unwrap();
    assert_eq!((file.metadata().blocks, store.statfs().free), (0, free));
    file.write_all_at(&[7; 12 * B as usize], 0).unwrap();
    assert!(store.check().unwrap().is_clean());
}
