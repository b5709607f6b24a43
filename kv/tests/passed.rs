//! Is a key found after a crash whose entry lies behind lines that were full when it was put?
//!
//! One thread has taken the last entry of a line and stops before its fence. Another puts keys that go past that line, and many changes more, so that
//! what it did is written back and no ring tells of it. Then power is cut: the first thread's entry is gone, and nothing fills its place. Every key
//! whose put returned must be found all the same (K21).

#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, reason = "a test has nobody to report to")]

use daxstore::pmem::sim::Sim;
use daxstore::units::PoolOff;
use daxstore_kv::media::{Media, SimMedia};
use daxstore_kv::mutation::{self, Mutation};
use daxstore_kv::{Db, Options, Result};
use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;
use std::time::Duration;

const BYTES: u64 = 8 << 20;

/// Which thread stops, whom it tells, and who lets it go on.
type Stop = (ThreadId, Sender<()>, Receiver<()>);

/// Simulated memory with a copy of what is durable for certain, in which a thread can be stopped before its fence.
#[derive(Debug)]
struct Memory {
    memory: SimMedia,
    durable: Mutex<Vec<u8>>,
    /// What each thread flushed since its last fence.
    flushed: Mutex<HashMap<ThreadId, Vec<(u64, u64)>>>,
    stop: Mutex<Option<Stop>>,
}

impl Memory {
    fn note(&self, at: u64, len: u64) {
        let from = at & !63;
        let mut flushed = self.flushed.lock().unwrap();
        flushed
            .entry(std::thread::current().id())
            .or_default()
            .push((from, (at + len - from).next_multiple_of(64)));
    }
}

/// The memory, as the database owns it and the test looks at it.
#[derive(Clone, Debug)]
struct Shared(Arc<Memory>);

impl Media for Shared {
    fn len(&self) -> u64 {
        self.0.memory.len()
    }

    fn capacity(&self) -> u64 {
        self.0.memory.capacity()
    }

    fn grow(&self, len: u64) -> Result<()> {
        self.0.memory.grow(len)
    }

    fn load(&self, at: u64) -> u64 {
        self.0.memory.load(at)
    }

    fn store(&self, at: u64, word: u64) {
        self.0.memory.store(at, word);
    }

    fn compare_exchange(&self, at: u64, old: u64, new: u64) -> std::result::Result<u64, u64> {
        self.0.memory.compare_exchange(at, old, new)
    }

    fn read(&self, at: u64, buf: &mut [u8]) {
        self.0.memory.read(at, buf);
    }

    fn equals(&self, at: u64, bytes: &[u8]) -> bool {
        self.0.memory.equals(at, bytes)
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        self.0.memory.write(at, bytes);
    }

    fn write_through(&self, at: u64, bytes: &[u8]) {
        self.0.memory.write_through(at, bytes);
        self.0.note(at, bytes.len() as u64);
    }

    fn flush(&self, at: u64, len: u64) {
        self.0.memory.flush(at, len);
        self.0.note(at, len);
    }

    fn fence(&self) -> Result<()> {
        let me = std::thread::current().id();
        let stop = self.0.stop.lock().unwrap().take_if(|stop| stop.0 == me);
        if let Some((_, there, go_on)) = stop {
            there.send(()).unwrap();
            // Whoever gives up on the test lets go too.
            let _went = go_on.recv();
        }
        let flushed = self.0.flushed.lock().unwrap().remove(&me).unwrap_or_default();
        let mut durable = self.0.durable.lock().unwrap();
        for (at, len) in flushed {
            self.0.memory.read(at, &mut durable[at as usize..(at + len) as usize]);
        }
        drop(durable);
        self.0.memory.fence()
    }

    fn prefetch(&self, _at: u64) {}
}

fn options() -> Options {
    Options::new().create(true).seed(7).small()
}

fn key(n: u64) -> [u8; 8] {
    n.to_be_bytes()
}

/// Keys that are in the index before: about seven entries of ten.
const BEFORE: u64 = 175;
/// Keys that are put beside the one that stops.
const BESIDE: u64 = 8;

/// How many of the keys whose puts returned are not found after power was cut while the put of key `stopped` was at its fence; `None` where
/// that could not be tried.
fn lost(base: &Sim, stopped: u64, rule: Option<Mutation>) -> Option<usize> {
    let sim = Arc::new(base.fork().unwrap());
    let mut durable = vec![0; BYTES as usize];
    sim.peek(PoolOff(0), &mut durable);
    let memory = SimMedia::new(sim);
    let (flushed, stop) = (Mutex::default(), Mutex::default());
    let memory = Shared(Arc::new(Memory { memory, durable: Mutex::new(durable), flushed, stop }));
    let db = Db::open_media(memory.clone(), &options()).unwrap();
    let (there, is_there) = channel();
    let (go, go_on) = channel::<()>();
    let beside: Vec<u64> = (0..BESIDE).map(|n| 1000 + stopped * BESIDE + n).collect();
    let image = std::thread::scope(|scope| {
        let (db, memory, beside) = (&db, &memory, &beside);
        scope.spawn(move || {
            // Its session has slots.
            db.put(&key(0), &[0; 8]).unwrap();
            *memory.0.stop.lock().unwrap() = Some((std::thread::current().id(), there, go_on));
            db.put(&key(stopped), &[1; 8]).unwrap();
        });
        is_there.recv().unwrap();
        let (done, is_done) = channel();
        scope.spawn(move || {
            mutation::set(rule);
            beside.iter().for_each(|n| db.put(&key(*n), &[2; 8]).unwrap());
            (0..300_u64).for_each(|n| db.put(&key(1), &n.to_le_bytes()).unwrap());
            // Nobody waits any more where it took too long.
            let _sent = done.send(memory.0.durable.lock().unwrap().clone());
        });
        // Where a segment has to be split, the second waits for the first.
        let image = is_done.recv_timeout(Duration::from_secs(2)).ok();
        drop(go);
        image
    })?;
    let cut = Arc::new(Sim::new(BYTES).unwrap());
    cut.poke(PoolOff(0), &image);
    let again = Db::open_sim(cut, &options()).unwrap();
    let all = (0..BEFORE).chain(beside);
    Some(all.filter(|n| again.get(&key(*n)).unwrap().is_none()).count())
}

fn lost_in_all(rule: Option<Mutation>) -> usize {
    let sim = Arc::new(Sim::new(BYTES).unwrap());
    let db = Db::open_sim(sim.clone(), &options()).unwrap();
    (0..BEFORE).for_each(|n| db.put(&key(n), &[0; 8]).unwrap());
    db.close().unwrap();
    let (mut tried, mut all) = (0, 0);
    for stopped in 500..700 {
        if let Some(lost) = lost(&sim, stopped, rule) {
            tried += 1;
            all += lost;
        }
        if all > 0 {
            break;
        }
    }
    assert!(all > 0 || tried > 150, "{tried} were tried");
    all
}

#[test]
fn keys_behind_a_line_whose_last_entry_power_cut_off_are_found() {
    assert_eq!(lost_in_all(None), 0);
}

#[test]
fn a_line_that_is_passed_and_not_flushed_is_noticed() {
    assert!(lost_in_all(Some(Mutation::NoPassedFlush)) > 0);
}
