//! Does a database keep what it is given, over a real mapping and over simulated memory?

#![allow(clippy::unwrap_used, reason = "a test has nobody to report to")]

use daxstore::{Store, StoreOptions};
use daxstore_kv::{Batch, Db, Error, Options};
use std::collections::BTreeMap;
use std::ops::Bound;

fn store(bytes: u64) -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let options = StoreOptions::new().assume_persistent(true);
    let store = Store::create(dir.path().join("pool"), bytes, &options).unwrap();
    (dir, store)
}

fn key(n: u64) -> [u8; 16] {
    let mut key = [b'k'; 16];
    key[8..].copy_from_slice(&n.to_be_bytes());
    key
}

fn value(n: u64, round: u64) -> Vec<u8> {
    let len = (n * 7 + round * 31) % 200;
    (0..len).map(|i| (n + i * 3 + round) as u8).collect()
}

#[test]
fn what_is_put_is_got_also_after_a_close_and_after_none() {
    let (_dir, store) = store(256 << 20);
    let count = 50_000;
    for close in [true, false, true] {
        let db = Db::open(&store, "/kv", Options::new().create(true)).unwrap();
        for n in 0..count {
            if db.contains(&key(n)).unwrap() {
                assert_eq!(db.get(&key(n)).unwrap().unwrap(), value(n, 1), "{n}");
            }
        }
        for n in 0..count {
            db.put(&key(n), &value(n, 0)).unwrap();
        }
        for n in 0..count {
            db.put(&key(n), &value(n, 1)).unwrap();
        }
        for n in (0..count).step_by(3) {
            assert!(db.delete(&key(n)).unwrap());
            assert!(!db.delete(&key(n)).unwrap());
        }
        for n in 0..count {
            let expected = (n % 3 != 0).then(|| value(n, 1));
            assert_eq!(db.get(&key(n)).unwrap(), expected, "{n}");
        }
        if close {
            db.close().unwrap();
        } else {
            std::mem::forget(db);
        }
    }
}

#[test]
fn batches_updates_and_swaps() {
    let (_dir, store) = store(128 << 20);
    let db = Db::open(&store, "/kv", Options::new().create(true)).unwrap();
    let mut model = BTreeMap::new();
    for round in 0..40_u64 {
        let mut batch = Batch::new();
        for i in 0..500 {
            let n = (round * 131 + i * 17) % 3000;
            if (n + round) % 5 == 0 {
                batch.delete(&key(n));
                model.remove(&n);
            } else {
                batch.put(&key(n), &value(n, round));
                model.insert(n, value(n, round));
            }
        }
        db.write(&batch).unwrap();
        db.update(&key(5), |old| Some([old.unwrap_or(b""), b"x"].concat()[..1].to_vec())).unwrap();
        let now = db.get(&key(5)).unwrap().unwrap();
        model.insert(5, now.clone());
        assert!(!db.compare_and_swap(&key(5), None, Some(b"y")).unwrap());
        assert!(db.compare_and_swap(&key(5), Some(&now), Some(b"y")).unwrap());
        model.insert(5, b"y".to_vec());
        for n in 0..3000 {
            assert_eq!(db.get(&key(n)).unwrap().as_ref(), model.get(&n), "{n} in {round}");
        }
    }
    assert!(matches!(db.put(b"", b"x"), Err(Error::KeyLength(0))));
}

#[test]
fn large_values_have_runs_of_their_own() {
    let (_dir, store) = store(256 << 20);
    let db = Db::open(&store, "/kv", Options::new().create(true)).unwrap();
    for round in 0..6_usize {
        for (n, len) in [9000, 70_000, 1 << 20, 5 << 20, 8192, 8150].into_iter().enumerate() {
            let value: Vec<u8> = (0..len + round).map(|i| (i * 7 + round) as u8).collect();
            db.put(&key(n as u64), &value).unwrap();
            assert!(db.get(&key(n as u64)).unwrap().unwrap() == value, "{len}");
        }
    }
}

#[test]
fn a_full_database_says_so_and_takes_overwrites() {
    let (_dir, store) = store(64 << 20);
    let options = Options::new().create(true).max_bytes(16 << 20);
    let db = Db::open(&store, "/kv", options.clone()).unwrap();
    let mut count = 0;
    let full = loop {
        match db.put(&key(count), &[7; 100]) {
            Ok(()) => count += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(full, Error::NoSpace { .. }), "{full}");
    assert!(count > 70_000, "{count}");
    for n in 0..count {
        db.put(&key(n), &[8; 100]).unwrap();
    }
    for n in 0..count {
        assert!(db.delete(&key(n)).unwrap(), "{n}");
    }
    for n in 0..count {
        db.put(&key(n), &[9; 100]).unwrap();
    }
    std::mem::forget(db);
    let db = Db::open(&store, "/kv", options).unwrap();
    for n in 0..count {
        db.put(&key(n), &[n as u8; 100]).unwrap();
        assert_eq!(db.get(&key(n)).unwrap().unwrap(), [n as u8; 100]);
    }
}

#[test]
fn many_threads_change_and_read() {
    let (_dir, store) = store(256 << 20);
    let db = Db::open(&store, "/kv", Options::new().create(true)).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let db = db.clone();
            scope.spawn(move || {
                for i in 0..40_000_u64 {
                    let n = (i * 7919 + thread) % 10_000;
                    if n % 4 == thread {
                        db.put(&key(n), &value(n, i)).unwrap();
                        assert_eq!(db.get(&key(n)).unwrap().unwrap(), value(n, i));
                        if i % 5 == 0 {
                            assert!(db.delete(&key(n)).unwrap());
                        }
                    } else {
                        db.get(&key(n)).unwrap();
                    }
                }
            });
        }
        for _ in 0..2 {
            let db = db.clone();
            scope.spawn(move || {
                for _ in 0..20_000 {
                    db.update(b"counter", |old| {
                        let old = old.map_or(0, |b| u64::from_le_bytes(b.try_into().unwrap()));
                        Some((old + 1).to_le_bytes().to_vec())
                    })
                    .unwrap();
                }
            });
        }
    });
    assert_eq!(db.get(b"counter").unwrap().unwrap(), 40_000_u64.to_le_bytes());
}

#[test]
fn ranges_and_snapshots_see_one_moment() {
    let (_dir, store) = store(256 << 20);
    let db = Db::open(&store, "/kv", Options::new().create(true)).unwrap();
    let mut model = BTreeMap::new();
    for i in 0..20_000_u64 {
        let n = i * 7919 % 20_000;
        db.put(&key(n), &value(n, 0)).unwrap();
        model.insert(key(n).to_vec(), value(n, 0));
    }
    let before = db.snapshot();
    let all = |range: daxstore_kv::Range<_>| range.collect::<Result<Vec<_>, _>>().unwrap();
    let pairs = |model: &BTreeMap<Vec<u8>, Vec<u8>>| model.clone().into_iter().collect::<Vec<_>>();
    let old = pairs(&model);
    for round in 1..4 {
        for n in (0..20_000).step_by(3) {
            db.put(&key(n), &value(n, round)).unwrap();
            model.insert(key(n).to_vec(), value(n, round));
        }
        for n in (1..20_000).step_by(5) {
            db.delete(&key(n)).unwrap();
            model.remove(key(n).as_slice());
            db.put(&key(n + 1_000_000), b"new").unwrap();
            model.insert(key(n + 1_000_000).to_vec(), b"new".to_vec());
        }
    }
    assert!(all(before.range(..)) == old);
    assert!(all(db.range(..).unwrap()) == pairs(&model));
    assert_eq!(db.len().unwrap(), model.len() as u64);
    assert_eq!(before.len().unwrap(), 20_000);
    let (mut range, mut expected) = (
        db.range((Bound::Included(&key(50)[..]), Bound::Excluded(&key(15_000)[..]))).unwrap(),
        model.range(key(50).to_vec()..key(15_000).to_vec()),
    );
    for i in 0.. {
        let (found, expected) = match i % 3 {
            0 => (range.next_back(), expected.next_back()),
            _ => (range.next(), expected.next()),
        };
        let found = found.transpose().unwrap();
        assert_eq!(found.as_ref().map(|(k, v)| (k, v)), expected);
        if expected.is_none() {
            break;
        }
    }
    assert_eq!(db.first().unwrap().unwrap().0, *model.keys().next().unwrap());
    assert_eq!(db.last().unwrap().unwrap().0, *model.keys().next_back().unwrap());
    assert_eq!(
        all(db.prefix(&key(0)[..14]).unwrap()).len(),
        model.keys().filter(|k| k[..14] == key(0)[..14]).count()
    );
    drop(before);
    std::mem::forget(db);
    let db = Db::open(&store, "/kv", Options::new()).unwrap();
    assert!(all(db.range(..).unwrap()) == pairs(&model));
    assert_eq!(db.len().unwrap(), model.len() as u64);
}

#[test]
fn trees_are_apart_and_can_be_dropped() {
    let (_dir, store) = store(128 << 20);
    let db = Db::open(&store, "/kv", Options::new().create(true)).unwrap();
    let (one, two) = (db.tree("one").unwrap(), db.tree("two").unwrap());
    for n in 0..2000 {
        db.put(&key(n), b"none").unwrap();
        one.put(&key(n), b"one").unwrap();
        let mut batch = Batch::new();
        batch.put(&key(n), b"two");
        one.put_in(&mut batch, &key(n + 1), b"one");
        two.write(&batch).unwrap();
    }
    for tree in [&one, &two, &db] {
        assert_eq!(tree.len().unwrap(), 2000 + u64::from(tree.name() == "one"));
        assert!(tree.range(..).unwrap().all(|record| {
            let name = record.unwrap().1;
            name == tree.name().as_bytes() || (tree.name().is_empty() && name == b"none")
        }));
    }
    assert!(db.drop_tree("one").unwrap() && !db.drop_tree("one").unwrap());
    assert!(matches!(one.put(b"a", b"b"), Err(Error::TreeDropped)));
    assert_eq!(db.trees().unwrap(), ["two"]);
    assert_eq!(db.tree("one").unwrap().len().unwrap(), 0);
    assert_eq!(two.get(&key(7)).unwrap().unwrap(), b"two");
}

#[test]
fn a_batch_is_not_written_to_another_tree_of_the_name() {
    let (_dir, store) = store(128 << 20);
    let db = Db::open(&store, "/kv", Options::new().create(true)).unwrap();
    let one = db.tree("one").unwrap();
    let mut batch = Batch::new();
    batch.put(b"of none", b"none");
    one.put_in(&mut batch, b"of one", b"one");
    db.drop_tree("one").unwrap();
    let another = db.tree("one").unwrap();
    assert!(matches!(db.write(&batch), Err(Error::TreeDropped)));
    assert!(another.is_empty().unwrap() && db.is_empty().unwrap());
}

#[test]
fn what_is_put_beside_a_drop_is_deleted_or_refused() {
    let (_dir, store) = store(128 << 20);
    let db = Db::open(&store, "/kv", Options::new().create(true)).unwrap();
    for round in 0..20 {
        let one = db.tree("one").unwrap();
        assert!(one.is_empty().unwrap());
        let begun = std::sync::Barrier::new(3);
        std::thread::scope(|scope| {
            for thread in 0..2_u64 {
                let (one, begun) = (&one, &begun);
                scope.spawn(move || {
                    begun.wait();
                    for n in 0.. {
                        let number = n * 2 + thread;
                        let put = match number % 3 {
                            0 => one.write({
                                let mut batch = Batch::new();
                                batch.put(&key(number), b"of a batch");
                                batch
                            }),
                            _ => one.put(&key(number), b"x"),
                        };
                        match put {
                            Ok(()) => {}
                            Err(Error::TreeDropped) => break,
                            Err(error) => panic!("{error}"),
                        }
                    }
                });
            }
            begun.wait();
            std::thread::sleep(std::time::Duration::from_micros(200 * round));
            assert!(db.drop_tree("one").unwrap());
        });
        let report = db.verify().unwrap();
        assert!(report.faults.is_empty() && report.records == 0, "{report:?}");
    }
}

#[test]
fn what_is_deleted_gives_its_space_back() {
    let (_dir, store) = store(256 << 20);
    let db = Db::open(&store, "/kv", Options::new().create(true)).unwrap();
    let free = || store.statfs().free * store.statfs().block_bytes;
    for n in 0..100_000 {
        db.put(&key(n), &[1; 300]).unwrap();
    }
    let full = (db.stats().unwrap(), free());
    assert_eq!(full.0.records, 100_000);
    for n in 100..100_000 {
        db.delete(&key(n)).unwrap();
    }
    std::mem::forget(db);
    let db = Db::open(&store, "/kv", Options::new()).unwrap();
    let bytes = db.compact().unwrap();
    assert!(bytes > 24 << 20, "{bytes}");
    assert!(free() >= full.1 + bytes / 2, "{} {}", free(), full.1);
    let report = db.verify().unwrap();
    assert!(report.faults.is_empty(), "{:?}", report.faults);
    assert_eq!(report.records, 100);
    for n in 0..100_000 {
        db.put(&key(n), &[2; 300]).unwrap();
    }
    assert_eq!(db.verify().unwrap().records, 100_000);
    db.backup(&store, "/copy").unwrap();
    let copy = Db::open(&store, "/copy", Options::new().read_only(true)).unwrap();
    assert!(copy.range(..).unwrap().map(Result::unwrap).eq(db.range(..).unwrap().map(Result::unwrap)));
    assert_eq!(copy.len().unwrap(), 100_000);
    assert!(matches!(copy.put(b"a", b"b"), Err(Error::ReadOnly)));
}

#[test]
fn damage_is_named_and_does_not_take_the_rest_down() {
    let (_dir, store) = store(64 << 20);
    let db = Db::open(&store, "/kv", Options::new().create(true)).unwrap();
    for n in 0..3000 {
        db.put(&key(n), &[n as u8; 64]).unwrap();
    }
    db.close().unwrap();
    let file = store.open("/kv", &daxstore::OpenOptions::new().read(true).write(true)).unwrap();
    let mut bytes = vec![0; file.len() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    let wanted = [&key(1234)[..], &[1234_u64 as u8; 64]].concat();
    let at = bytes.windows(wanted.len()).position(|window| window == wanted).unwrap();
    file.write_all_at(&[0xee], at as u64 + 30).unwrap();
    let db = Db::open(&store, "/kv", Options::new()).unwrap();
    let error = db.get(&key(1234)).unwrap_err();
    assert!(matches!(error, Error::Record { .. }) && error.to_string().contains("checksum"), "{error}");
    for n in (0..3000).filter(|n| *n != 1234) {
        assert!(db.get(&key(n)).unwrap().is_some());
    }
    assert_eq!(db.range(..).unwrap().filter(Result::is_err).count(), 1);
    assert_eq!(db.verify().unwrap().faults.len(), 1);
    db.put(&key(1234), b"new").unwrap();
    assert!(db.verify().unwrap().faults.is_empty());
}
