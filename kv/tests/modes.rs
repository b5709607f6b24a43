//! Does a database work however the faults of its mapping are served, and does it say where 2 MiB can not be had?

#![allow(clippy::unwrap_used, reason = "a test has nobody to report to")]

use daxstore::{Store, StoreOptions};
use daxstore_fault::Mode;
use daxstore_kv::{Db, Options};

fn store(bytes: u64) -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let options = StoreOptions::new().assume_persistent(true);
    let store = Store::create(dir.path().join("pool"), bytes, &options).unwrap();
    (dir, store)
}

fn key(n: u64) -> [u8; 8] {
    n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()
}

/// Grown, emptied, compacted and opened again, in every mode in turn.
#[test]
fn every_mode_serves_a_database() {
    let (_dir, store) = store(256 << 20);
    for (round, mode) in (1_u8..).zip([Mode::Eager, Mode::Signal, Mode::Eager, Mode::Userfault]) {
        let options = Options::new().create(true).mode(mode).max_bytes(128 << 20);
        let db = match Db::open(&store, "/kv", options) {
            // Who may not use userfaultfd has the other modes.
            Err(daxstore_kv::Error::Store(_)) if mode == Mode::Userfault => continue,
            opened => opened.unwrap(),
        };
        for n in 0..50_000 {
            db.put(&key(n), &[round; 300]).unwrap();
        }
        db.put(b"large", &vec![round; 5 << 20]).unwrap();
        for n in 500..50_000 {
            assert!(db.delete(&key(n)).unwrap());
        }
        let before = db.stats().unwrap().media_bytes;
        let back = db.compact().unwrap();
        assert!(db.stats().unwrap().media_bytes < before);
        // What was mapped beforehand stays the file's: it is used again.
        assert_eq!(back == 0, mode == Mode::Eager, "{mode:?}: {back}");
        assert!((0..500).all(|n| db.get(&key(n)).unwrap().unwrap() == [round; 300]));
        assert!(db.get(b"large").unwrap().unwrap() == vec![round; 5 << 20]);
        assert!(db.verify().unwrap().faults.is_empty());
        db.close().unwrap();
    }
}

/// What is required is there, or the open says which 2 MiB are not.
#[test]
fn translations_of_2_mib_are_had_or_the_lack_of_them_is_told() {
    let (_dir, store) = store(256 << 20);
    let opened = Db::open(&store, "/kv", Options::new().create(true).require_huge(true));
    let filled = opened.and_then(|db| {
        (0..100_000).try_for_each(|n| db.put(&key(n), &[1; 300]))?;
        db.require_huge()
    });
    let is_huge = match filled {
        Ok(()) => true,
        Err(daxstore_kv::Error::Store(error)) if matches!(*error, daxstore::Error::NotHuge { .. }) => false,
        Err(error) => panic!("{error}"),
    };
    // Without it, all is the same but the refusal.
    let db = Db::open(&store, "/other", Options::new().create(true)).unwrap();
    (0..100_000).for_each(|n| db.put(&key(n), &[1; 300]).unwrap());
    println!("translations of 2 MiB: {is_huge}; without asking: {:?}", db.require_huge());
    assert_eq!(db.verify().unwrap().records, 100_000);
}
