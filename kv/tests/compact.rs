//! Does what records left go back to the pool, with nothing lost, whenever power is cut and whoever looks meanwhile?

#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, reason = "a test has nobody to report to")]

#[allow(dead_code, reason = "a part of it is used")]
mod common;

use common::{Effort, Op, State, contents, crashes};
use daxstore::pmem::sim::Sim;
use daxstore::units::PoolOff;
use daxstore::{Store, StoreOptions};
use daxstore_kv::mutation::{self, Mutation};
use daxstore_kv::{Db, Error, Options};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

fn key(n: u64) -> Vec<u8> {
    format!("key {n:05}").into_bytes()
}

fn value(n: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| (n * 7 + i * 3) as u8).collect()
}

fn store(bytes: u64) -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let options = StoreOptions::new().assume_persistent(true);
    let store = Store::create(dir.path().join("pool"), bytes, &options).unwrap();
    (dir, store)
}

/// Four large slots a slab: few records fill a chunk. Most are deleted, in each of the chunks.
fn sparse(keep: u64) -> Vec<Op> {
    let puts = (0..520).map(|n| Op::Put(0, key(n), value(n, 7000)));
    let deletes = (0..520).filter(|n| n % keep != 3).map(|n| Op::Delete(0, key(n)));
    puts.chain(deletes).collect()
}

fn compacts() -> Result<common::Counts, String> {
    let mut ops = vec![Op::Compact(0)];
    ops.extend((0..8).map(|n| Op::Put(0, key(600 + n), value(n, 7000))));
    ops.extend([Op::Delete(0, key(3)), Op::Compact(0), Op::Put(0, key(103), value(1, 50)), Op::Compact(0)]);
    ops.extend((0..8).map(|n| Op::Put(0, key(700 + n), value(n, 7000))));
    let effort = Effort { images: 4, first: 0, seed: 3, further: 211 };
    crashes(&sparse(100), &ops, effort, None)
}

#[test]
fn records_are_moved_and_chunks_given_back_at_any_crash() {
    let counts = compacts().unwrap();
    println!("{counts:?}");
    assert!(counts.images > 1500 && counts.nested > 0, "{counts:?}");
}

/// Compacts a database of many keys, and adds others, which need pages of the ordered index.
fn compacted_and_used(rule: Option<Mutation>) -> Result<(), String> {
    let db = common::fresh();
    let mut state = BTreeMap::new();
    for n in 0..4000 {
        db.put(&key(n * 2), b"x").unwrap();
        state.insert(key(n * 2), b"x"[..].into());
    }
    mutation::set(rule);
    let compacted = db.compact();
    mutation::set(None);
    compacted.map_err(|error| error.to_string())?;
    for n in 0..4000 {
        db.put(&key(n * 2 + 1), b"y").map_err(|error| error.to_string())?;
        state.insert(key(n * 2 + 1), b"y"[..].into());
    }
    if contents(&db)? == State::from([("", state)]) { Ok(()) } else { Err("other contents".to_owned()) }
}

#[test]
fn pages_of_the_order_that_are_taken_for_lost_are_noticed() {
    compacted_and_used(None).unwrap();
    let done = std::panic::catch_unwind(|| compacted_and_used(Some(Mutation::FreeOrdered)));
    assert!(!matches!(done, Ok(Ok(()))));
}

/// Opens a database in simulated memory with records of which a snapshot keeps every old version from being free.
fn compacted_under_a_snapshot(rule: Option<Mutation>) -> Result<(), String> {
    let db = common::fresh();
    let mut state = BTreeMap::new();
    for n in 0..300 {
        db.put(&key(n), &value(n, 7000)).unwrap();
    }
    for n in (0..300).filter(|n| n % 20 != 0) {
        db.delete(&key(n)).unwrap();
    }
    for n in (0..300).step_by(20) {
        state.insert(key(n), value(n, 7000).into());
    }
    let snapshot = db.snapshot();
    mutation::set(rule);
    let compacted = db.compact();
    mutation::set(None);
    compacted.map_err(|error| error.to_string())?;
    for n in 1000..1260 {
        db.put(&key(n), &value(n, 7000)).map_err(|error| error.to_string())?;
        state.insert(key(n), value(n, 7000).into());
    }
    for n in (0..300).step_by(20) {
        if snapshot.get(&key(n)).map_err(|error| error.to_string())? != Some(value(n, 7000)) {
            return Err(format!("the snapshot lost {n}"));
        }
    }
    drop(snapshot);
    db.compact().map_err(|error| error.to_string())?;
    if contents(&db)? != State::from([("", state)]) {
        return Err("other contents".to_owned());
    }
    let faults = db.verify().map_err(|error| error.to_string())?.faults;
    if faults.is_empty() { Ok(()) } else { Err(format!("{faults:?}")) }
}

#[test]
fn what_a_snapshot_sees_stays_where_it_is() {
    compacted_under_a_snapshot(None).unwrap();
}

#[test]
fn a_slab_that_is_given_back_too_early_is_noticed() {
    let done = std::panic::catch_unwind(|| compacted_under_a_snapshot(Some(Mutation::FreeFull)));
    assert!(!matches!(done, Ok(Ok(()))));
}

/// A record is damaged, so that nobody can read in its slot whose it is; then everything is compacted and filled.
fn compacted_beside_damage(rule: Option<Mutation>) -> bool {
    let sim = Arc::new(Sim::new(common::BYTES).unwrap());
    let db = Db::open_sim(sim.clone(), &Options::new().create(true).seed(7)).unwrap();
    for n in 0..40 {
        db.put(&key(n), &value(n, 300)).unwrap();
    }
    db.close().unwrap();
    let mut all = vec![0; common::BYTES as usize];
    let region = daxstore::pmem::Region::sim(sim.clone());
    region.read(PoolOff(0), &mut all).unwrap();
    let wanted = value(17, 300);
    let at = all.windows(300).position(|window| window == wanted).unwrap() as u64;
    region.store(PoolOff(at + 200), &[0xee; 8]).unwrap();
    let db = Db::open_sim(sim, &Options::new().create(true).seed(7)).unwrap();
    assert!(matches!(db.get(&key(17)), Err(Error::Record { .. })));
    mutation::set(rule);
    db.compact().unwrap();
    mutation::set(None);
    for n in 100..300 {
        db.put(&key(n), &value(n, 300)).unwrap();
    }
    let still = matches!(db.get(&key(17)), Err(Error::Record { .. }));
    still && (0..40).filter(|n| *n != 17).all(|n| db.get(&key(n)).ok().flatten() == Some(value(n, 300)))
}

#[test]
fn a_damaged_record_keeps_its_slot_and_a_slot_that_is_named_and_given_out_is_noticed() {
    assert!(compacted_beside_damage(None));
    assert!(!compacted_beside_damage(Some(Mutation::FreeNamed)));
}

/// What a crash leaves is found: after many crashes no more is in use than after one.
#[test]
fn space_that_crashes_lost_is_found_again() {
    let (_dir, store) = store(256 << 20);
    let open = || Db::open(&store, "/kv", Options::new().create(true)).unwrap();
    let db = open();
    for n in 0..3000 {
        db.put(&key(n), &value(n, 100)).unwrap();
    }
    let mut used = Vec::new();
    let mut db = Some(db);
    for round in 0..12 {
        let it = db.take().unwrap();
        let tree = it.tree("other").unwrap();
        let mut batch = daxstore_kv::Batch::new();
        (0..4000).for_each(|n| batch.put(&key(n), &value(n, 50)));
        for _ in 0..5 {
            tree.write(&batch).unwrap();
        }
        drop(tree);
        assert!(it.drop_tree("other").unwrap());
        // Nothing of it is closed: as if the process had been killed here.
        std::mem::forget(it);
        let it = open();
        if round % 2 == 1 {
            it.compact().unwrap();
            used.push(it.stats().unwrap().space.total());
        }
        assert_eq!(it.len().unwrap(), 3000);
        db = Some(it);
    }
    assert!(used.iter().all(|bytes| *bytes <= used[0]), "{used:?}");
    let report = db.unwrap().verify().unwrap();
    assert!(report.faults.is_empty(), "{:?}", report.faults);
}

#[test]
fn a_database_that_is_used_is_compacted() {
    let (_dir, store) = store(256 << 20);
    let db = Db::open(&store, "/kv", Options::new().create(true)).unwrap();
    let count = 60_000;
    for n in 0..count {
        db.put(&key(n), &value(n, 200 + (n % 50) as usize)).unwrap();
    }
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (db, over) = (&db, &over);
            scope.spawn(move || {
                let mut round = 0;
                while !over.load(Ordering::Acquire) {
                    round += 1;
                    for n in (thread..count).step_by(2) {
                        match (n + round) % 7 {
                            0 => drop(db.delete(&key(n)).unwrap()),
                            1 => db.put(&key(n), &value(n, 200 + (n % 50) as usize)).unwrap(),
                            _ => {}
                        }
                        if let Some(found) = db.get(&key(n)).unwrap() {
                            assert!(found == value(n, 200 + (n % 50) as usize), "{n}");
                        }
                    }
                }
            });
        }
        scope.spawn(|| {
            while !over.load(Ordering::Acquire) {
                for record in db.range(..).unwrap() {
                    let (found, bytes) = record.unwrap();
                    let n: u64 = std::str::from_utf8(&found[4..]).unwrap().parse().unwrap();
                    assert!(bytes == value(n, 200 + (n % 50) as usize), "{n}");
                }
            }
        });
        for _ in 0..6 {
            db.compact().unwrap();
        }
        over.store(true, Ordering::Release);
    });
    let report = db.verify().unwrap();
    assert!(report.faults.is_empty(), "{:?}", report.faults);
    for n in (0..count).filter(|n| n % 40 != 0) {
        db.delete(&key(n)).unwrap();
    }
    let before = db.stats().unwrap();
    let back = db.compact().unwrap();
    let after = db.stats().unwrap();
    assert!(back >= before.media_bytes / 2, "{back} of {}", before.media_bytes);
    assert!(after.media_bytes * 2 < before.media_bytes, "{after:?} {before:?}");
    assert!(db.verify().unwrap().faults.is_empty());
    for n in 0..count {
        db.put(&key(n), &value(n, 200)).unwrap();
    }
    assert_eq!(db.verify().unwrap().records, count);
}

/// Where the pool is full, a chunk is there for overwrites and deletes all the same, also after everything free went back.
#[test]
fn a_chunk_is_kept_back_after_space_went_back_to_the_pool() {
    let (_dir, store) = store(64 << 20);
    let db = Db::open(&store, "/kv", Options::new().create(true)).unwrap();
    for n in 0..40_000 {
        db.put(&key(n), &value(n, 400)).unwrap();
    }
    for n in 2000..40_000 {
        db.delete(&key(n)).unwrap();
    }
    assert!(db.compact().unwrap() > 8 << 20);
    // Somebody else takes all that the pool has.
    let options = daxstore::OpenOptions::new().read(true).write(true).create(true);
    let other = store.open("/other", &options).unwrap();
    let mut at = 0;
    for step in [1 << 20, 4096] {
        while other.write_all_at(&vec![1; step], at).is_ok() {
            at += step as u64;
        }
    }
    let mut count = 2000;
    let full = loop {
        match db.put(&key(count), &value(count, 400)) {
            Ok(()) => count += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(full, Error::NoSpace { .. }), "{full}");
    for n in 0..count {
        db.put(&key(n), &value(n + 1, 400)).unwrap();
    }
    for n in 0..count {
        assert!(db.delete(&key(n)).unwrap());
    }
    assert!(db.verify().unwrap().faults.is_empty());
}
