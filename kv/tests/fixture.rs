//! Do databases that were made when this format was new still open, with everything in them?
//!
//! `fixtures/v2-closed` and `fixtures/v2-crashed` are images of format version 2, which must open for ever: of a database that was closed, and of one
//! that power cut after its last change returned, with nothing durable that need not be. They are kept as runs of bytes that are not 0: offset and
//! length, 8 bytes each, and the bytes. `KV_MAKE_FIXTURES=1` writes them anew, which only a new version may want.

#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, reason = "a test has nobody to report to")]

use daxstore::pmem::sim::Sim;
use daxstore::pmem::sim::crash::{Cause, Replay};
use daxstore::units::PoolOff;
use daxstore::{OpenOptions, Store, StoreOptions};
use daxstore_kv::media::Media;
use daxstore_kv::{Batch, Db, Options, Recovery};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

const BYTES: u64 = 8 << 20;

type State = BTreeMap<&'static str, BTreeMap<Vec<u8>, Vec<u8>>>;

fn key(n: u64) -> Vec<u8> {
    format!("key {:05}", n * 7919 % 10_007).into_bytes()
}

fn value(n: u64) -> Vec<u8> {
    let len = if n == 9 { 9000 } else { n * 13 % 90 };
    (0..len).map(|i| (i * 3 + n) as u8).collect()
}

/// Before the crash; that of the closed one.
const CLOSED: u64 = 240;
/// Keys that are new after it.
const AFTER: u64 = 40;

/// What is in the image.
fn expected(crashed: bool) -> State {
    let mut state = State::from([("", BTreeMap::new()), ("named", BTreeMap::new())]);
    let mut put = |tree: &str, n, value: Vec<u8>| state.get_mut(tree).unwrap().insert(key(n), value);
    (0..CLOSED).for_each(|n| drop(put("", n, value(n))));
    (0..CLOSED / 4).for_each(|n| drop(put("named", n, value(n + 1))));
    (20..50).for_each(|n| drop(put("", n, value(n + 2))));
    if crashed {
        (CLOSED..CLOSED + AFTER).for_each(|n| drop(put("", n, value(n))));
        (60..70).for_each(|n| drop(put("named", n, value(n + 3))));
    }
    (0..CLOSED).step_by(10).for_each(|n| drop(state.get_mut("").unwrap().remove(&key(n))));
    if crashed {
        (1..CLOSED).step_by(40).for_each(|n| drop(state.get_mut("").unwrap().remove(&key(n))));
    }
    state
}

/// Makes what [`expected`] says.
fn make(crashed: bool) -> Arc<Sim> {
    let sim = Arc::new(Sim::new(BYTES).unwrap());
    let db = Db::open_sim(sim.clone(), &Options::new().create(true).seed(0x6b76)).unwrap();
    let named = db.tree("named").unwrap();
    (0..CLOSED).for_each(|n| db.put(&key(n), &value(n)).unwrap());
    (0..CLOSED / 4).for_each(|n| named.put(&key(n), &value(n + 1)).unwrap());
    let mut batch = Batch::new();
    (20..50).for_each(|n| batch.put(&key(n), &value(n + 2)));
    db.write(&batch).unwrap();
    (0..CLOSED).step_by(10).for_each(|n| assert!(db.delete(&key(n)).unwrap()));
    drop(named);
    db.close().unwrap();
    if !crashed {
        return sim;
    }
    let after = Arc::new(sim.fork().unwrap());
    sim.start_trace();
    let db = Db::open_sim(sim.clone(), &Options::new()).unwrap();
    let named = db.tree("named").unwrap();
    (CLOSED..CLOSED + AFTER).for_each(|n| db.put(&key(n), &value(n)).unwrap());
    let mut batch = Batch::new();
    (60..70).for_each(|n| batch.put(&key(n), &value(n + 3)));
    named.write(&batch).unwrap();
    (1..CLOSED).step_by(40).for_each(|n| assert!(db.delete(&key(n)).unwrap()));
    let trace = sim.take_trace();
    let mut replay = Replay::new(&after, &trace);
    while replay.advance().unwrap().cause != Cause::End {}
    after
}

fn path(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "fixtures", name].iter().collect()
}

/// Lines of 64 bytes that are not all 0, those that follow each other in one run.
fn packed(sim: &Sim) -> Vec<u8> {
    let (mut packed, mut run, mut start) = (Vec::new(), Vec::new(), 0_u64);
    for at in (0..=BYTES).step_by(64) {
        let mut line = [0; 64];
        if at < BYTES {
            sim.peek(PoolOff(at), &mut line);
        }
        if line != [0; 64] {
            start = if run.is_empty() { at } else { start };
            run.extend_from_slice(&line);
        } else if !run.is_empty() {
            packed.extend_from_slice(&start.to_le_bytes());
            packed.extend_from_slice(&(run.len() as u64).to_le_bytes());
            packed.append(&mut run);
        }
    }
    packed
}

/// Offsets and bytes of a fixture.
fn unpacked(name: &str) -> Vec<(u64, Vec<u8>)> {
    let bytes = std::fs::read(path(name)).unwrap();
    let (mut all, mut rest) = (Vec::new(), &bytes[..]);
    while let Some((head, more)) = rest.split_first_chunk::<16>() {
        let at = u64::from_le_bytes(*head.first_chunk().unwrap());
        let len = u64::from_le_bytes(*head.last_chunk().unwrap()) as usize;
        all.push((at, more[..len].to_vec()));
        rest = &more[len..];
    }
    all
}

fn check<M: Media>(db: &Db<M>, expected: &State, recovery: Recovery) {
    assert_eq!(db.recovery(), recovery);
    assert_eq!(db.trees().unwrap(), ["named"]);
    for (name, map) in expected {
        let tree = if name.is_empty() { (**db).clone() } else { db.tree(name).unwrap() };
        let found: BTreeMap<_, _> = tree.range(..).unwrap().map(Result::unwrap).collect();
        assert!(found == *map, "{name}: {} records instead of {}", found.len(), map.len());
        assert_eq!(tree.len().unwrap(), map.len() as u64);
        assert!(map.iter().all(|(key, value)| tree.get(key).unwrap().as_ref() == Some(value)), "{name}");
    }
    let report = db.verify().unwrap();
    assert!(report.faults.is_empty(), "{:?}", report.faults);
    assert_eq!(report.records, expected.values().map(|map| map.len() as u64).sum::<u64>());
    for n in 0..300 {
        db.put(format!("later {n}").as_bytes(), &value(n)).unwrap();
    }
    assert!((0..300).all(|n| db.get(format!("later {n}").as_bytes()).unwrap() == Some(value(n))));
}

fn opens(name: &str, crashed: bool) {
    if std::env::var_os("KV_MAKE_FIXTURES").is_some() {
        std::fs::write(path(name), packed(&make(crashed))).unwrap();
    }
    // The batch began by writing back what came before: what its rings lead to is the batch, in one note, and the deletes after it.
    let notes = 1 + CLOSED.div_ceil(40);
    let replayed = 10 + CLOSED.div_ceil(40);
    let recovery = match crashed {
        true => Recovery { clean: false, notes, replayed, rebuilt: 0 },
        false => Recovery { clean: true, ..Recovery::default() },
    };
    let (expected, runs) = (expected(crashed), unpacked(name));
    let sim = Arc::new(Sim::new(BYTES).unwrap());
    runs.iter().for_each(|(at, bytes)| sim.poke(PoolOff(*at), bytes));
    check(&Db::open_sim(sim, &Options::new()).unwrap(), &expected, recovery);
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let options = StoreOptions::new().assume_persistent(true);
    let store = Store::create(dir.path().join("pool"), 64 << 20, &options).unwrap();
    let file = store.open("/kv", &OpenOptions::new().write(true).create(true)).unwrap();
    file.set_len(BYTES).unwrap();
    runs.iter().for_each(|(at, bytes)| file.write_all_at(bytes, *at).unwrap());
    drop(file);
    check(&Db::open(&store, "/kv", Options::new()).unwrap(), &expected, recovery);
}

#[test]
fn a_closed_one_of_version_2() {
    opens("v2-closed", false);
}

#[test]
fn one_of_version_2_that_power_cut() {
    opens("v2-crashed", true);
}
