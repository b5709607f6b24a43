//! Is a value read where it lies, and does it stay there for as long as somebody looks?

#![allow(clippy::unwrap_used, reason = "a test has nobody to report to")]

use daxstore::{Store, StoreOptions};
use daxstore_kv::{Db, Error, Options};

fn store(bytes: u64) -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let options = StoreOptions::new().assume_persistent(true);
    let store = Store::create(dir.path().join("pool"), bytes, &options).unwrap();
    (dir, store)
}

#[test]
fn a_value_that_is_looked_at_stays_whatever_becomes_of_its_key() {
    let (_dir, store) = store(256 << 20);
    // Without the promise of being alone, which only unsafe code can give, values are copied: what is held is the same.
    let db = Db::open(&store, "/kv", Options::new().create(true)).unwrap();
    let values = [vec![1; 100], vec![2; 9000], vec![3; 3 << 20]];
    for (n, value) in (0_u8..).zip(&values) {
        db.put(&[n], value).unwrap();
    }
    let free = || db.stats().unwrap().media_bytes;
    let lent: Vec<_> = (0..3).map(|n| db.get_ref(&[n]).unwrap().unwrap()).collect();
    assert!(db.get_ref(b"none").unwrap().is_none());
    assert_eq!(db.stats().unwrap().lent, 3);
    for n in 0..3 {
        assert!(db.delete(&[n]).unwrap());
    }
    let held = free();
    db.compact().unwrap();
    assert_eq!(free(), held, "a large record that is looked at keeps its chunks");
    // Others are freed and used again meanwhile.
    for round in 0..20_000_u32 {
        db.put(b"other", &round.to_le_bytes().repeat(25)).unwrap();
    }
    assert!(free() <= held + (4 << 20), "{} {held}", free());
    for (lent, value) in lent.iter().zip(&values) {
        assert!(**lent == value[..]);
    }
    drop(lent);
    db.compact().unwrap();
    assert!(free() + (4 << 20) <= held, "{} {held}", free());
    assert_eq!(db.stats().unwrap().lent, 0);
    assert!(db.verify().unwrap().faults.is_empty());
}

#[test]
fn values_above_the_threshold_have_chunks_of_their_own() {
    let (_dir, store) = store(256 << 20);
    let options = Options::new().create(true).large_value_bytes(64 << 10);
    let db = Db::open(&store, "/kv", options).unwrap();
    let before = db.stats().unwrap().space;
    db.put(b"pages", &vec![1; 60 << 10]).unwrap();
    assert_eq!(db.stats().unwrap().space.large, before.large);
    db.put(b"chunk", &vec![2; 70 << 10]).unwrap();
    assert_eq!(db.stats().unwrap().space.large, before.large + (2 << 20));
    let value = db.get_ref(b"chunk").unwrap().unwrap();
    assert!(value.iter().all(|byte| *byte == 2) && value.len() == 70 << 10);
    drop(value);
    let error = db.put(b"larger", &vec![0; (1 << 30) + 1]).unwrap_err();
    assert!(matches!(error, Error::ValueLength(_)) && error.to_string().contains("2^30"), "{error}");
    db.close().unwrap();
    let db = Db::open(&store, "/kv", Options::new()).unwrap();
    assert_eq!(db.get(b"chunk").unwrap().unwrap(), vec![2; 70 << 10]);
    assert!(db.verify().unwrap().faults.is_empty());
}

#[test]
fn a_value_is_lent_in_the_mapping_to_who_is_alone() {
    let (_dir, store) = store(256 << 20);
    // SAFETY: nobody else knows of the pool, and the file is opened here alone.
    let options = unsafe { Options::new().create(true).alone() };
    let db = Db::open(&store, "/kv", options).unwrap();
    for (n, len) in (0_u8..).zip([0, 100, 9000, 1 << 20, 5 << 20]) {
        db.put(&[n], &vec![n; len]).unwrap();
        let lent = db.get_ref(&[n]).unwrap().unwrap();
        assert!(lent.is_in_place() && lent.len() == len && lent.iter().all(|byte| *byte == n));
        db.put(&[n], b"another").unwrap();
        for round in 0..3000_u32 {
            db.put(b"beside", &[round as u8; 100]).unwrap();
        }
        db.compact().unwrap();
        assert!(lent.len() == len && lent.iter().all(|byte| *byte == n), "{len}");
    }
    // It may be read by any thread.
    db.put(b"large", &vec![7; 1 << 20]).unwrap();
    let lent = db.get_ref(b"large").unwrap().unwrap();
    std::thread::scope(|scope| {
        for part in lent.chunks(1 << 18) {
            scope.spawn(move || assert!(part.iter().all(|byte| *byte == 7)));
        }
        scope.spawn(|| db.delete(b"large").unwrap());
    });
    drop(lent);
    assert!(db.verify().unwrap().faults.is_empty());
}

#[test]
fn a_damaged_value_is_not_lent_and_not_held() {
    let (_dir, store) = store(64 << 20);
    let db = Db::open(&store, "/kv", Options::new().create(true)).unwrap();
    db.put(b"key", &[0xab; 20_000]).unwrap();
    db.close().unwrap();
    let file = store.open("/kv", &daxstore::OpenOptions::new().read(true).write(true)).unwrap();
    let mut bytes = vec![0; file.len() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    let at = bytes.windows(100).position(|window| window == [0xab; 100]).unwrap() as u64;
    file.write_all_at(&[0], at + 9999).unwrap();
    drop(file);
    // SAFETY: the other handle is gone.
    let options = unsafe { Options::new().alone() };
    let db = Db::open(&store, "/kv", options).unwrap();
    assert!(matches!(db.get_ref(b"key"), Err(Error::Record { .. })));
    assert_eq!(db.stats().unwrap().lent, 0);
    db.put(b"key", b"new").unwrap();
    assert_eq!(db.get_ref(b"key").unwrap().unwrap()[..], *b"new");
}

/// Moves 3 GiB of memory, which a debug build does slowly.
#[test]
#[cfg_attr(debug_assertions, ignore = "run with --release")]
fn a_value_of_a_gibibyte_is_kept() {
    let (_dir, store) = store(1400 << 20);
    let db = Db::open(&store, "/kv", Options::new().create(true)).unwrap();
    let mut value: Vec<u8> = (0..1_u32 << 30).map(|n| (n ^ n >> 9) as u8).collect();
    db.put(b"large", &value).unwrap();
    assert!(db.get_ref(b"large").unwrap().unwrap()[..] == value[..]);
    value.push(0);
    assert!(matches!(db.put(b"larger", &value), Err(Error::ValueLength(n)) if n == value.len()));
    assert!(matches!(db.put(b"second", &value[1..]), Err(Error::NoSpace { .. })));
    std::mem::forget(db);
    let db = Db::open(&store, "/kv", Options::new()).unwrap();
    assert!(db.get(b"large").unwrap().unwrap()[..] == value[..1 << 30]);
    assert!(db.delete(b"large").unwrap());
    assert!(db.compact().unwrap() >= 1 << 30);
}
