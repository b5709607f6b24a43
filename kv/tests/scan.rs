//! Does a scan lend what a range gives, whatever happens beside it?

#![allow(clippy::unwrap_used, reason = "a test has nobody to report to")]

use daxstore::{Store, StoreOptions};
use daxstore_kv::{Db, Error, Options, Scan};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn store(bytes: u64) -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let options = StoreOptions::new().assume_persistent(true);
    let store = Store::create(dir.path().join("pool"), bytes, &options).unwrap();
    (dir, store)
}

/// Keys of many lengths, in another order than their numbers.
fn key(n: u64) -> Vec<u8> {
    let mut key = n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes().to_vec();
    key.resize(8 + (n % 40) as usize, b'x');
    key
}

/// Now and then one that fills a scan's memory alone.
fn value(n: u64, round: u64) -> Vec<u8> {
    let len = if n % 500 == 7 { 100_000 } else { (n * 7 + round * 31) % 300 };
    (0..len).map(|i| (n + i * 3 + round) as u8).collect()
}

fn all(mut scan: Scan<'_, daxstore_kv::media::Mapped>) -> Vec<(Vec<u8>, Vec<u8>)> {
    let (mut pairs, mut key, mut value) = (Vec::new(), Vec::new(), Vec::new());
    while scan.next_into(&mut key, &mut value).unwrap() {
        pairs.push((key.clone(), value.clone()));
    }
    assert!(scan.next().unwrap().is_none(), "a scan that is over stays so");
    pairs
}

fn pairs(model: &Model) -> Vec<(Vec<u8>, Vec<u8>)> {
    model.clone().into_iter().collect()
}

fn filled(db: &Db, count: u64) -> Model {
    let mut model = Model::new();
    for n in 0..count {
        db.put(&key(n), &value(n, 0)).unwrap();
        model.insert(key(n), value(n, 0));
    }
    model
}

#[test]
fn a_scan_lends_what_was_there_when_it_began() {
    let (_dir, store) = store(256 << 20);
    let db = Db::open(&store, "/kv", Options::new().create(true)).unwrap();
    let mut model = filled(&db, 6000);
    assert!(all(db.scan(..)) == pairs(&model));
    let (snapshot, begun, before) = (db.snapshot(), db.scan(..), model.clone());
    for n in 0..6000 {
        match n % 3 {
            0 => {
                db.put(&key(n), &value(n, 1)).unwrap();
                model.insert(key(n), value(n, 1));
            }
            1 if n % 2 == 0 => {
                db.delete(&key(n)).unwrap();
                model.remove(&key(n));
            }
            _ => {
                db.put(&key(n + 10_000), &value(n, 2)).unwrap();
                model.insert(key(n + 10_000), value(n, 2));
            }
        }
    }
    assert!(all(begun) == pairs(&before));
    assert!(all(snapshot.scan(..)) == pairs(&before));
    assert!(all(db.scan(..)) == pairs(&model));
    let keys: Vec<_> = all(db.scan(..).keys_only());
    assert!(
        keys.iter().map(|(key, _)| key).eq(model.keys()) && keys.iter().all(|(_, value)| value.is_empty())
    );
    assert_eq!((snapshot.len().unwrap(), db.snapshot().len().unwrap()), (6000, model.len() as u64));
}

#[test]
fn a_scan_has_the_ends_that_it_is_given() {
    let (_dir, store) = store(128 << 20);
    let db = Db::open(&store, "/kv", Options::new().create(true)).unwrap();
    let model = filled(&db, 1500);
    let tree = db.tree("other").unwrap();
    assert!(all(tree.scan(..)).is_empty() && tree.snapshot().is_empty().unwrap());
    tree.put(&key(3), b"of the other").unwrap();
    assert_eq!(all(tree.scan(..)), [(key(3), b"of the other".to_vec())]);
    let keys: Vec<_> = model.keys().cloned().collect();
    for (i, j) in (0..60).map(|i| (i * 23 % 1500, (i * 23 + i * i % 211) % 1500)).filter(|(i, j)| i < j) {
        type End<'k> = fn(&'k [u8]) -> Bound<&'k [u8]>;
        for (low, high) in
            [(Bound::Included as End<'_>, Bound::Excluded as End<'_>), (Bound::Excluded, Bound::Included)]
        {
            let range = (low(&keys[i]), high(&keys[j]));
            let expected: Vec<_> =
                model.range::<[u8], _>(range).map(|(k, v)| (k.clone(), v.clone())).collect();
            assert!(all(db.scan(range)) == expected);
        }
    }
}

#[test]
fn damage_is_told_once_and_passed() {
    let (_dir, store) = store(64 << 20);
    let db = Db::open(&store, "/kv", Options::new().create(true)).unwrap();
    for n in 0..3000 {
        db.put(&key(n), &[n as u8; 64]).unwrap();
    }
    db.close().unwrap();
    let file = store.open("/kv", &daxstore::OpenOptions::new().read(true).write(true)).unwrap();
    let mut bytes = vec![0; file.len() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    for n in [1234_u64, 1236] {
        let wanted = [key(n), vec![n as u8; 64]].concat();
        let at = bytes.windows(wanted.len()).position(|window| window == wanted).unwrap();
        file.write_all_at(&[0xee], (at + wanted.len()) as u64 - 5).unwrap();
    }
    let db = Db::open(&store, "/kv", Options::new()).unwrap();
    // Also by scans that make copies, and that read them.
    for _ in 0..4 {
        let (mut scan, mut found, mut damaged) = (db.scan(..), 0, 0);
        loop {
            match scan.next() {
                Ok(Some(_)) => found += 1,
                Ok(None) => break,
                Err(Error::Record { .. }) => damaged += 1,
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!((found, damaged), (2998, 2));
    }
    assert!(db.stats().unwrap().scan_memory > 0);
    assert_eq!(db.range(..).unwrap().filter(Result::is_err).count(), 2);
    [1234, 1236].iter().for_each(|n| db.put(&key(*n), b"well again").unwrap());
    assert_eq!(all(db.scan(..)).len(), 3000);
}

#[test]
fn a_scan_beside_writers_sees_every_key_that_stays_once_and_whole() {
    let (_dir, store) = store(256 << 20);
    let db = Db::open(&store, "/kv", Options::new().create(true)).unwrap();
    let small = |n: u64, round: u64| [n.to_le_bytes(), round.to_le_bytes()].concat().repeat(5);
    for n in 0..4000 {
        db.put(&key(n), &small(n, 0)).unwrap();
    }
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for round in 1..12_u64 {
                for n in 0..4000 {
                    db.put(&key(n), &small(n, round)).unwrap();
                    let other = key(100_000 + n * 3 + round % 2);
                    if n % 4 == 0 { assert!(db.delete(&other).is_ok()) } else { db.put(&other, b"").unwrap() }
                }
            }
            over.store(true, Ordering::Release);
        });
        let mut least = BTreeMap::new();
        while !over.load(Ordering::Acquire) {
            let (mut scan, mut stayed, mut last) = (db.scan(..), 0, Vec::new());
            while let Some((key, value)) = scan.next().unwrap() {
                assert!(last.as_slice() < key, "keys ascend");
                last = key.to_vec();
                if value.is_empty() {
                    continue;
                }
                stayed += 1;
                assert_eq!(value, value[..16].repeat(5), "a value of one change");
                let round = u64::from_le_bytes(*value[8..16].first_chunk().unwrap());
                let seen = least.insert(key.to_vec(), round).unwrap_or(0);
                assert!(round >= seen, "a later scan sees what an earlier one saw, or newer");
            }
            assert_eq!(stayed, 4000);
        }
        writer.join().unwrap();
    });
}

/// A record that is longer than what is read together, of a key that is gone, was copied in vain over and over.
#[cfg(feature = "sim")]
#[test]
fn a_long_record_of_a_deleted_key_is_passed() {
    let sim = std::sync::Arc::new(daxstore::pmem::sim::Sim::new(32 << 20).unwrap());
    let db = Db::open_sim(sim, &Options::new().create(true).seed(7)).unwrap();
    db.put(b"a", &vec![1; 300_000]).unwrap();
    db.put(b"b", b"small").unwrap();
    db.delete(b"a").unwrap();
    let mut scan = db.scan::<std::ops::RangeFull>(..);
    assert_eq!(scan.next().unwrap(), Some((&b"b"[..], &b"small"[..])));
    assert_eq!(scan.next().unwrap(), None);
}
