//! Do scans of what was scanned before, which read copies in memory, give what is in the database?

#![allow(clippy::unwrap_used, reason = "a test has nobody to report to")]

use daxstore::{Store, StoreOptions};
use daxstore_kv::media::Mapped;
use daxstore_kv::{Db, Error, Options, Scan};
use std::collections::BTreeMap;
use std::ops::Bound;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

/// Bytes that a copy has at most, with what it has for each record.
const LARGEST: u64 = 300 << 10;

fn store(bytes: u64) -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let options = StoreOptions::new().assume_persistent(true);
    let store = Store::create(dir.path().join("pool"), bytes, &options).unwrap();
    (dir, store)
}

fn opened(store: &Store) -> Db {
    Db::open(store, "/kv", Options::new().create(true)).unwrap()
}

/// Keys of several lengths, in another order than their numbers.
fn key(n: u64) -> Vec<u8> {
    let mut key = n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes().to_vec();
    key.resize(8 + (n % 3) as usize * 9, b'k');
    key
}

fn value(n: u64, round: u64) -> Vec<u8> {
    (0..(n * 7 + round * 31) % 200).map(|i| (n + i * 3 + round) as u8).collect()
}

fn all(mut scan: Scan<'_, Mapped>) -> Model {
    let mut found = Model::new();
    let mut last = None;
    scan.for_each_while(|key, value| {
        assert!(last.as_deref() < Some(key), "keys ascend");
        last = Some(key.to_vec());
        found.insert(key.to_vec(), value.to_vec());
        true
    })
    .unwrap();
    found
}

fn copied(db: &Db) -> u64 {
    db.stats().unwrap().scan_memory
}

/// A database and what it holds.
struct Pair {
    db: Db,
    model: Model,
}

impl Pair {
    fn put(&mut self, n: u64, round: u64) {
        self.db.put(&key(n), &value(n, round)).unwrap();
        self.model.insert(key(n), value(n, round));
    }

    fn delete(&mut self, n: u64) {
        assert_eq!(self.db.delete(&key(n)).unwrap(), self.model.remove(&key(n)).is_some());
    }

    /// Scans until copies were made of what there is now, and read.
    fn compare(&self) {
        for round in 0..3 {
            assert!(all(self.db.scan(..)) == self.model, "scan {round}");
        }
        assert!(copied(&self.db) > 0);
    }
}

#[test]
fn copies_follow_every_change() {
    let (_dir, store) = store(256 << 20);
    let mut pair = Pair { db: opened(&store), model: Model::new() };
    (0..5000).for_each(|n| pair.put(n, 0));
    pair.compare();
    // Few changes, then many: of the latter, leaves split, and are merged.
    for round in 1..4 {
        for n in (0..5000).filter(|n| n % 97 == round) {
            pair.put(n, round);
            pair.delete(n + 1);
            pair.put(n + 5000 * round, round);
            let range = key(n)..key(n + 2);
            if range.start < range.end {
                let wanted: Model =
                    pair.model.range(range.clone()).map(|(k, v)| (k.clone(), v.clone())).collect();
                assert!(
                    all(pair.db.scan((Bound::Included(&*range.start), Bound::Excluded(&*range.end))))
                        == wanted
                );
            }
        }
        pair.compare();
        (0..5000).for_each(|n| pair.put(n, round));
        pair.compare();
        (5000..20_000).for_each(|n| pair.put(n, round));
        pair.compare();
        (4000..20_000).for_each(|n| pair.delete(n));
        pair.compare();
        pair.db.compact().unwrap();
        pair.compare();
        // A key that is gone and comes again.
        (3000..3300).for_each(|n| pair.delete(n));
        pair.compare();
        (3000..3300).for_each(|n| pair.put(n, round + 7));
        pair.compare();
    }
    let mut batch = daxstore_kv::Batch::new();
    for n in 0..1000 {
        batch.put(&key(n * 3), b"of a batch");
        pair.model.insert(key(n * 3), b"of a batch".to_vec());
    }
    pair.db.write(batch).unwrap();
    pair.compare();
    assert!(pair.db.verify().unwrap().faults.is_empty());
}

#[test]
fn a_snapshot_does_not_see_what_was_copied_later() {
    let (_dir, store) = store(256 << 20);
    let mut pair = Pair { db: opened(&store), model: Model::new() };
    (0..3000).for_each(|n| pair.put(n, 0));
    pair.compare();
    let mut moments = Vec::new();
    for round in 1..5 {
        moments.push((pair.db.snapshot(), pair.model.clone()));
        (0..3000).filter(|n| n % 5 == round).for_each(|n| pair.put(n, round));
        (0..3000).filter(|n| n % 11 == round).for_each(|n| pair.delete(n));
        (3000..3200).for_each(|n| pair.put(n + 200 * round, round));
        pair.compare();
        for (snapshot, model) in moments.iter().chain(moments.iter().rev()) {
            assert!(all(snapshot.scan(..)) == *model);
        }
    }
    moments.clear();
    pair.compare();
}

#[test]
fn they_have_no_more_memory_than_they_may() {
    let (_dir, store) = store(256 << 20);
    let mut pair = Pair { db: opened(&store), model: Model::new() };
    (0..20_000).for_each(|n| pair.put(n, 0));
    let most = 1 << 20;
    for bytes in [0, most, u64::MAX] {
        drop(pair.db);
        pair.db = Db::open(&store, "/kv", Options::new().scan_memory(bytes)).unwrap();
        assert!(all(pair.db.scan(..)) == pair.model);
        assert_eq!(copied(&pair.db), 0, "what is scanned once is not copied");
        for round in 0..20 {
            assert!(all(pair.db.scan(..)) == pair.model);
            assert!(copied(&pair.db) <= bytes.saturating_add(LARGEST), "{bytes}, {round}");
        }
        let has = copied(&pair.db);
        match bytes {
            0 => assert_eq!(has, 0),
            // Each record has some fifty bytes besides.
            u64::MAX => assert!((3 << 20..5 << 20).contains(&has), "{has}"),
            _ => assert!(has > most / 2, "{has}"),
        }
    }
    // Ranges that are scanned once in a while do not take the place of what is scanned all the time.
    drop(pair.db);
    pair.db = Db::open(&store, "/kv", Options::new().scan_memory(most)).unwrap();
    let keys: Vec<_> = pair.model.keys().cloned().collect();
    for n in 0..4000 {
        let from = if n % 2 == 0 { 0 } else { n * 7919 % 19_000 };
        let wanted = pair.model.range(keys[from].clone()..).take(100);
        let mut scan = pair.db.scan((Bound::Included(&*keys[from]), Bound::Unbounded)).limit(100);
        for (key, value) in wanted {
            assert_eq!(scan.next().unwrap(), Some((&key[..], &value[..])));
        }
        assert!(copied(&pair.db) <= most + LARGEST);
    }
}

#[test]
fn the_memory_of_a_tree_that_is_dropped_comes_back() {
    let (_dir, store) = store(128 << 20);
    let db = opened(&store);
    let (one, other) = (db.tree("one").unwrap(), db.tree("other").unwrap());
    for n in 0..1000 {
        one.put(&key(n), &value(n, 1)).unwrap();
        other.put(&key(n), &value(n, 2)).unwrap();
    }
    let scanned = |tree: &daxstore_kv::Tree| (0..3).map(|_| all(tree.scan(..)).len()).sum::<usize>();
    assert_eq!((scanned(&one), scanned(&other)), (3000, 3000));
    let both = copied(&db);
    drop(one);
    assert!(db.drop_tree("one").unwrap());
    assert!(copied(&db) < both * 3 / 4, "{} {both}", copied(&db));
    // One of the same name has nothing of it.
    let one = db.tree("one").unwrap();
    assert!(all(one.scan(..)).is_empty());
    one.put(&key(1), b"new").unwrap();
    assert_eq!(scanned(&one), 3);
    assert_eq!(all(other.scan(..)).len(), 1000);
}

#[test]
fn long_records_are_read_where_they_lie() {
    let (_dir, store) = store(256 << 20);
    let mut pair = Pair { db: opened(&store), model: Model::new() };
    // Leaves with more than a copy may have.
    for n in 0..1000 {
        pair.db.put(&key(n), &vec![n as u8; 8000]).unwrap();
        pair.model.insert(key(n), vec![n as u8; 8000]);
    }
    for _ in 0..4 {
        assert!(all(pair.db.scan(..)) == pair.model);
    }
    assert!(copied(&pair.db) < 1 << 20, "{} of 8 MB: only leaves of few keys", copied(&pair.db));
    // Small ones, among which some are too long to be copied.
    (0..1000).for_each(|n| pair.put(n, 1));
    for n in (0..1000).filter(|n| n % 50 == 0) {
        let long = vec![n as u8; 5000 << (n / 50 % 5)];
        pair.db.put(&key(n), &long).unwrap();
        pair.model.insert(key(n), long);
    }
    // What is not copied is known to be too large until the leaf changes.
    (1000..3000).for_each(|n| pair.put(n, 1));
    pair.compare();
    for n in (0..1000).filter(|n| n % 50 == 0) {
        pair.put(n, 2);
    }
    pair.compare();
}

/// What is older than the newest, and damaged, was not there for who looked.
#[test]
fn damage_of_what_a_snapshot_sees_is_told() {
    let (_dir, store) = store(64 << 20);
    let db = opened(&store);
    let keys = [b"key one", b"key two", b"key six"];
    keys.iter().for_each(|key| db.put(*key, &[0x5a; 100]).unwrap());
    let snapshot = db.snapshot();
    keys.iter().for_each(|key| db.put(*key, b"newer").unwrap());
    let file = store.open("/kv", &daxstore::OpenOptions::new().read(true).write(true)).unwrap();
    let mut bytes = vec![0; file.len() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    let place = |key: &[u8]| {
        let wanted = [key, &[0x5a; 100]].concat();
        bytes.windows(wanted.len()).position(|window| window == wanted).unwrap() as u64
    };
    // A byte of the key, and the header's sequence number.
    file.write_all_at(b"K", place(b"key two")).unwrap();
    file.write_all_at(&[0xff], place(b"key six") - 16 + 5).unwrap();
    assert_eq!(snapshot.get(b"key one").unwrap().unwrap(), [0x5a; 100]);
    for key in [b"key two", b"key six"] {
        assert!(matches!(snapshot.get(key), Err(Error::Damage(_))), "{:?}", snapshot.get(key));
        assert_eq!(db.get(key).unwrap().unwrap(), b"newer");
    }
    let (mut scan, mut damaged) = (snapshot.scan::<std::ops::RangeFull>(..), 0);
    loop {
        match scan.next() {
            Ok(Some((key, _))) => assert_eq!(key, b"key one"),
            Ok(None) => break,
            Err(Error::Damage(_)) => damaged += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(damaged, 2);
}

/// A scan knows the keys of the next leaf, and is to copy it; that is changed before.
fn a_key_comes_before_the_copy_is_made() -> bool {
    let (_dir, store) = store(64 << 20);
    let mut pair = Pair { db: opened(&store), model: Model::new() };
    (0..1000).for_each(|n| pair.put(n, 0));
    assert!(all(pair.db.scan(..)) == pair.model);
    let keys: Vec<_> = pair.model.keys().cloned().collect();
    let db = pair.db.clone();
    let mut scan = db.scan(..);
    for (passed, at) in keys.iter().enumerate() {
        assert_eq!(scan.next().unwrap().unwrap().0, at);
        if passed % 10 == 5 {
            // Beside each of the next keys one more, which a range that is positioned takes into its leaf.
            for n in (passed + 5..passed + 100).step_by(20).filter(|n| *n < keys.len()) {
                let beside = [&keys[n][..], b"'"].concat();
                pair.db.put(&beside, b"beside").unwrap();
                pair.model.insert(beside, b"beside".to_vec());
            }
            assert!(pair.db.first().unwrap().is_some());
        }
        if passed > 700 {
            break;
        }
    }
    drop(scan);
    (0..3).all(|_| all(pair.db.scan(..)) == pair.model)
}

#[test]
fn a_leaf_that_changes_while_it_is_copied_keeps_no_copy() {
    assert!(a_key_comes_before_the_copy_is_made());
}

/// It sees what it is to see.
#[cfg(feature = "sim")]
#[test]
fn a_copy_of_an_earlier_leaf_is_noticed() {
    use daxstore_kv::mutation::{self, Mutation};
    mutation::set(Some(Mutation::StaleCopy));
    let is_right = a_key_comes_before_the_copy_is_made();
    mutation::set(None);
    assert!(!is_right);
}
