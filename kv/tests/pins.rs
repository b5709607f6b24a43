//! Is what a reader looks at left alone until it has left?
//!
//! A reader has found a key's record and stops just before it copies the value out, while the key is overwritten many times: the record's slot must
//! not be used again meanwhile (K13). With the rule switched off, it is.

#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, reason = "a test has nobody to report to")]

use daxstore::pmem::sim::Sim;
use daxstore_kv::media::{Media, SimMedia};
use daxstore_kv::mutation::{self, Mutation};
use daxstore_kv::{Db, Error, Options, Result};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;

/// A stop before the next copy of a thread: it tells that it is there, and waits.
#[derive(Debug)]
struct Stop {
    thread: ThreadId,
    there: Sender<()>,
    go_on: Receiver<()>,
}

/// Simulated memory in which a thread can be stopped.
#[derive(Debug)]
struct Stopping {
    memory: SimMedia,
    stop: Arc<Mutex<Option<Stop>>>,
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
        self.memory.load(at)
    }

    fn store(&self, at: u64, word: u64) {
        self.memory.store(at, word);
    }

    fn compare_exchange(&self, at: u64, old: u64, new: u64) -> std::result::Result<u64, u64> {
        self.memory.compare_exchange(at, old, new)
    }

    fn read(&self, at: u64, buf: &mut [u8]) {
        let stop = self.stop.lock().unwrap().take_if(|stop| stop.thread == std::thread::current().id());
        if let Some(stop) = stop {
            stop.there.send(()).unwrap();
            stop.go_on.recv().unwrap();
        }
        self.memory.read(at, buf);
    }

    fn equals(&self, at: u64, bytes: &[u8]) -> bool {
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
        self.memory.fence()
    }

    fn prefetch(&self, _at: u64) {}
}

/// What a reader gets that stops while `rule` is off and the key is overwritten.
fn got(rule: Option<Mutation>) -> std::result::Result<Option<Vec<u8>>, Error> {
    let stop = Arc::new(Mutex::new(None));
    let memory = SimMedia::new(Arc::new(Sim::new(16 << 20).unwrap()));
    let media = Stopping { memory, stop: stop.clone() };
    let db = Db::open_media(media, &Options::new().create(true).seed(7)).unwrap();
    db.put(b"key", &[1; 100]).unwrap();
    let (there, is_there) = channel();
    let (go, go_on) = channel();
    let got = std::thread::scope(|scope| {
        let (db, stop) = (&db, &stop);
        let reader = scope.spawn(move || {
            *stop.lock().unwrap() = Some(Stop { thread: std::thread::current().id(), there, go_on });
            db.get(b"key")
        });
        is_there.recv().unwrap();
        mutation::set(rule);
        for n in 0..1000 {
            db.put(b"key", &[n as u8; 100]).unwrap();
        }
        mutation::set(None);
        go.send(()).unwrap();
        reader.join().unwrap()
    });
    // When the reader has left, the same space serves again.
    let before = db.stats().unwrap().media_bytes;
    (0..30_000_u64).for_each(|n| db.put(b"key", &[n as u8; 100]).unwrap());
    assert_eq!(db.stats().unwrap().media_bytes, before);
    got
}

#[test]
fn a_slot_that_a_reader_looks_at_is_not_used_again() {
    assert_eq!(got(None).unwrap(), Some(vec![1; 100]));
}

#[test]
fn a_slot_that_is_used_while_a_reader_looks_at_it_is_noticed() {
    let found = got(Some(Mutation::IgnorePins));
    assert!(matches!(found, Err(Error::Record { .. })), "{found:?}");
}
