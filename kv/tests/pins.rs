//! Is what a reader looks at left alone until it has left, and does a snapshot wait for what is under way?
//!
//! A reader has found a key's record and stops just before it copies the value out, while the key is overwritten many times: the record's slot must
//! not be used again meanwhile (K13). A batch stops before its fence, with a number and nothing to be seen: a snapshot whose number is not less
//! waits for it (K16). A reader without a pin stops where it is about to look at the record, while the key is overwritten until its slot has a record
//! whose fence never comes: it must not show that one (K20). With the rules switched off, the slot is used, the snapshot sees half of the batch, and what
//! is not durable is shown.

#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, reason = "a test has nobody to report to")]

use daxstore::pmem::sim::Sim;
use daxstore_kv::media::{Media, SimMedia};
use daxstore_kv::mutation::{self, Mutation};
use daxstore_kv::{Batch, Db, Error, Options, Result};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;

/// A stop before the next copy, or the next fence, of a thread: it tells that it is there, and waits.
#[derive(Debug)]
struct Stop {
    thread: ThreadId,
    at_fence: bool,
    there: Sender<()>,
    go_on: Receiver<()>,
}

/// Simulated memory in which a thread can be stopped.
#[derive(Debug)]
struct Stopping {
    memory: SimMedia,
    stop: Arc<Mutex<Option<Stop>>>,
    hook: Arc<Hook>,
}

/// What happens, once, before the word at `at` is loaded. Fences fail while that word is not `first`, if that is not 0.
#[derive(Default)]
struct Hook {
    at: AtomicU64,
    then: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    first: AtomicU64,
    /// What it was at the last load of anything.
    seen: AtomicU64,
    /// Where a key was compared last.
    compared: AtomicU64,
}

impl std::fmt::Debug for Hook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Hook")
    }
}

impl Stopping {
    fn stop(&self, at_fence: bool) {
        let is_here =
            |stop: &mut Stop| stop.thread == std::thread::current().id() && stop.at_fence == at_fence;
        let stop = self.stop.lock().unwrap().take_if(is_here);
        if let Some(stop) = stop {
            stop.there.send(()).unwrap();
            stop.go_on.recv().unwrap();
        }
    }
}

impl Media for Stopping {
    fn len(&self) -> u64 {
        self.memory.len()
    }

    fn capacity(&self) -> u64 {
        self.memory.capacity()
    }

    fn grow(&self, len: u64) -> Result<()> {
        self.memory.grow(len)
    }

    fn load(&self, at: u64) -> u64 {
        self.hook.seen.store(self.memory.load(self.hook.at.load(Ordering::Relaxed)), Ordering::Relaxed);
        if at == self.hook.at.load(Ordering::Relaxed) {
            let then = self.hook.then.lock().unwrap().take();
            if let Some(then) = then {
                then();
            }
        }
        self.memory.load(at)
    }

    fn store(&self, at: u64, word: u64) {
        self.memory.store(at, word);
    }

    fn compare_exchange(&self, at: u64, old: u64, new: u64) -> std::result::Result<u64, u64> {
        self.memory.compare_exchange(at, old, new)
    }

    fn read(&self, at: u64, buf: &mut [u8]) {
        self.stop(false);
        self.memory.read(at, buf);
    }

    fn equals(&self, at: u64, bytes: &[u8]) -> bool {
        self.hook.compared.store(at, Ordering::Relaxed);
        self.memory.equals(at, bytes)
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        self.memory.write(at, bytes);
    }

    fn write_through(&self, at: u64, bytes: &[u8]) {
        self.memory.write_through(at, bytes);
    }

    fn flush(&self, at: u64, len: u64) {
        self.memory.flush(at, len);
    }

    fn fence(&self) -> Result<()> {
        self.stop(true);
        let first = self.hook.first.load(Ordering::Relaxed);
        if first != 0 && self.memory.load(self.hook.at.load(Ordering::Relaxed)) != first {
            return Err(Error::NoSpace { needed: 0 });
        }
        self.memory.fence()
    }

    fn prefetch(&self, _at: u64) {}
}

/// Bytes of a value that is read under a pin.
const LONG: usize = 5000;

/// What a reader gets that stops while `rule` is off and the key is overwritten.
fn got(rule: Option<Mutation>) -> std::result::Result<Option<Vec<u8>>, Error> {
    let stop = Arc::new(Mutex::new(None));
    let memory = SimMedia::new(Arc::new(Sim::new(16 << 20).unwrap()));
    let media = Stopping { memory, stop: stop.clone(), hook: Arc::default() };
    let db = Db::open_media(media, &Options::new().create(true).seed(7)).unwrap();
    db.put(b"key", &[1; LONG]).unwrap();
    let (there, is_there) = channel();
    let (go, go_on) = channel();
    let got = std::thread::scope(|scope| {
        let (db, stop) = (&db, &stop);
        let reader = scope.spawn(move || {
            *stop.lock().unwrap() =
                Some(Stop { thread: std::thread::current().id(), at_fence: false, there, go_on });
            db.get(b"key")
        });
        is_there.recv().unwrap();
        mutation::set(rule);
        for n in 0..1000 {
            db.put(b"key", &[n as u8; LONG]).unwrap();
        }
        mutation::set(None);
        go.send(()).unwrap();
        reader.join().unwrap()
    });
    // When the reader has left, the same space serves again.
    let before = db.stats().unwrap().media_bytes;
    (0..5_000_u64).for_each(|n| db.put(b"key", &[n as u8; LONG]).unwrap());
    assert_eq!(db.stats().unwrap().media_bytes, before);
    got
}

#[test]
fn a_slot_that_a_reader_looks_at_is_not_used_again() {
    assert_eq!(got(None).unwrap(), Some(vec![1; LONG]));
}

#[test]
fn a_slot_that_is_used_while_a_reader_looks_at_it_is_noticed() {
    let found = got(Some(Mutation::IgnorePins));
    assert!(matches!(found, Err(Error::Record { .. })), "{found:?}");
}

/// What a snapshot that is taken while a batch is under way sees of its two keys, one before the batch is over and one after.
fn seen(rule: Option<Mutation>) -> [Option<Vec<u8>>; 2] {
    let stop = Arc::new(Mutex::new(None));
    let memory = SimMedia::new(Arc::new(Sim::new(16 << 20).unwrap()));
    let db = Db::open_media(
        Stopping { memory, stop: stop.clone(), hook: Arc::default() },
        &Options::new().create(true).seed(7),
    )
    .unwrap();
    let both = |value: &[u8]| {
        let mut batch = Batch::new();
        [b"a", b"b"].iter().for_each(|key| batch.put(*key, value));
        db.write(&batch).unwrap();
    };
    // The writer's own session has slots and a list before it is stopped.
    both(b"old");
    let (there, is_there) = channel();
    let (go, go_on) = channel();
    std::thread::scope(|scope| {
        let (db, stop, both) = (&db, &stop, &both);
        scope.spawn(move || {
            both(b"old");
            *stop.lock().unwrap() =
                Some(Stop { thread: std::thread::current().id(), at_fence: true, there, go_on });
            both(b"new");
        });
        is_there.recv().unwrap();
        if rule.is_none() {
            // Nothing tells when the snapshot waits: it may, for a while.
            let reader = scope.spawn(|| {
                let snapshot = db.snapshot();
                [b"a", b"b"].map(|key| snapshot.get(key).unwrap())
            });
            std::thread::sleep(std::time::Duration::from_millis(50));
            assert!(!reader.is_finished(), "a snapshot did not wait");
            go.send(()).unwrap();
            return reader.join().unwrap();
        }
        mutation::set(rule);
        let snapshot = db.snapshot();
        mutation::set(None);
        let first = snapshot.get(b"a").unwrap();
        go.send(()).unwrap();
        while db.get(b"b").unwrap().as_deref() != Some(b"new") {
            std::thread::yield_now();
        }
        [first, snapshot.get(b"b").unwrap()]
    })
}

#[test]
fn a_snapshot_waits_for_a_batch_under_way() {
    assert_eq!(seen(None), [Some(b"new".to_vec()), Some(b"new".to_vec())]);
}

#[test]
fn a_snapshot_that_does_not_wait_is_noticed() {
    let [one, two] = seen(Some(Mutation::NoSettle));
    assert_ne!(one, two);
}

/// What a reader without a pin gets, before whom the key is overwritten until the record's slot has one that is not durable; and the last value
/// whose put returned.
fn shown(rule: Option<Mutation>) -> [Vec<u8>; 2] {
    let memory = SimMedia::new(Arc::new(Sim::new(16 << 20).unwrap()));
    let hook = Arc::new(Hook::default());
    let media = Stopping { memory, stop: Arc::default(), hook: hook.clone() };
    let db = Db::open_media(media, &Options::new().create(true).seed(7)).unwrap();
    db.put(b"key", &[0; 100]).unwrap();
    db.get(b"key").unwrap();
    // The key lies behind a header of 16 bytes.
    let record = hook.compared.load(Ordering::Relaxed) - 16;
    let last = Arc::new(Mutex::new(Vec::new()));
    let (writer, told, of) = (db.clone(), last.clone(), hook.clone());
    *hook.then.lock().unwrap() = Some(Box::new(move || {
        mutation::set(None);
        of.first.store(of.seen.load(Ordering::Relaxed), Ordering::Relaxed);
        for n in 1..10_000_u64 {
            let value = [n.to_le_bytes().as_slice(), &[0; 92]].concat();
            match writer.put(b"key", &value) {
                Ok(()) => *told.lock().unwrap() = value,
                Err(_) => return mutation::set(rule),
            }
        }
        panic!("the slot was not used again");
    }));
    mutation::set(rule);
    hook.at.store(record, Ordering::Relaxed);
    let found = db.get(b"key").unwrap().unwrap();
    mutation::set(None);
    let last = last.lock().unwrap().clone();
    [found, last]
}

#[test]
fn a_get_without_a_pin_shows_what_is_durable() {
    let [found, last] = shown(None);
    assert_eq!(found, last);
}

#[test]
fn a_get_that_does_not_look_twice_is_noticed() {
    let [found, last] = shown(Some(Mutation::NoSecondLook));
    assert_ne!(found, last);
}
