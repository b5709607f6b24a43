//! Model 16: the core of the key-value store.
//!
//! A reader without a lock gets a key's old value or its new one, whole, while the key is overwritten so often that slots are used again (K4, K13),
//! and while the segment of the hash index that has it is split (K11). Changes of two threads are both kept, by a split and by
//! the rings whose tails move meanwhile (K5, K6). A snapshot sees all of a batch or nothing (K16).
//!
//! The mutations `IgnorePins` and `NoSettle` are shown by `kv/tests/pins.rs`, which stops threads where it matters.

use crate::kv_memory::{Base, filled, first_to_split, key, killed, open, value};
use crate::{explore, part, pick, together};
use daxstore_kv::Batch;
use std::sync::Arc;

#[test]
fn a_value_is_read_whole_while_its_slot_is_used_again() {
    let pool = filled(2);
    explore("kv core: a reader beside overwrites", move || {
        let db = open(pool.copy());
        // So that the slot is none of those that wait to be swept, and a group is on its way when the reader comes.
        (0..6).for_each(|n| db.put(&key(n % 2), &value(n)).expect("put"));
        let (reader, writer) = (db.clone(), db);
        together(vec![
            part(move || {
                for n in 1..pick(16, 600) as u64 {
                    writer.put(&key(0), &value(n)).expect("put");
                }
            }),
            part(move || {
                for _ in 0..pick(1, 300) {
                    let found = reader.get(&key(0)).expect("a record that is whole").expect("a value");
                    assert!(
                        found.len() == 40 && found.iter().all(|b| *b == found[0]),
                        "a value of one change"
                    );
                }
            }),
        ]);
    });
}

#[test]
fn keys_are_found_while_their_segment_is_split() {
    let count = first_to_split();
    let pool = filled(count);
    explore("kv core: a reader beside a split", move || {
        let db = open(pool.copy());
        let (reader, writer, after) = (db.clone(), db.clone(), db);
        together(vec![
            part(move || writer.put(&key(count), &value(1)).expect("put")),
            part(move || {
                assert_eq!(reader.get(&key(count / 2)).expect("sound").as_deref(), Some(&value(0)[..]));
                assert_eq!(reader.get(&key(count + 1000)).expect("sound"), None);
            }),
        ]);
        assert_eq!(after.get(&key(count)).expect("sound").as_deref(), Some(&value(1)[..]));
    });
}

#[test]
fn two_put_while_a_segment_is_split() {
    let count = first_to_split();
    let pool = filled(count);
    explore("kv core: two put beside a split", move || {
        let sim = pool.copy();
        let db = open(sim.clone());
        let put = |n: u64| {
            let db = db.clone();
            part(move || db.put(&key(n), &value(1)).expect("put"))
        };
        together(vec![put(count), put(count + 1)]);
        let check = |db: &Base| {
            for n in 0..count + 2 {
                let expected = value(u64::from(n >= count));
                assert_eq!(db.get(&key(n)).expect("sound").as_deref(), Some(&expected[..]), "{n}");
            }
        };
        check(&db);
        drop(db);
        check(&open(sim));
    });
}

/// A batch splits the segment while it has locks, where it can have the others too, and else gives everything up and tries again.
#[test]
fn a_batch_splits_a_segment_beside_a_put() {
    let count = first_to_split();
    let pool = filled(count);
    explore("kv core: a batch that splits beside a put", move || {
        let sim = pool.copy();
        let db = open(sim.clone());
        let (writer, other) = (db.clone(), db.clone());
        together(vec![
            part(move || {
                let mut batch = Batch::new();
                [0, 1].iter().for_each(|n| batch.put(&key(count + n), &value(1)));
                writer.write(&batch).expect("written");
            }),
            part(move || other.put(&key(count + 2), &value(1)).expect("put")),
        ]);
        let check = |db: &Base| {
            for n in 0..count + 3 {
                let expected = value(u64::from(n >= count));
                assert_eq!(db.get(&key(n)).expect("sound").as_deref(), Some(&expected[..]), "{n}");
            }
        };
        check(&db);
        drop(db);
        check(&open(sim));
    });
}

/// Two sessions supersede each other's records: what one of them holds at the end is what recovery finds.
#[test]
fn rings_whose_tails_move_lead_to_the_newest() {
    let pool = filled(2);
    explore("kv core: two sessions and one key", move || {
        let sim = pool.copy();
        let db = open(sim.clone());
        let put = |first: u64| {
            let db = db.clone();
            part(move || {
                for n in 0..pick(4, 300) as u64 {
                    db.put(&key(0), &value(first + n)).expect("put");
                }
            })
        };
        together(vec![put(10), put(110)]);
        let last = db.get(&key(0)).expect("sound").expect("a value");
        // The process dies: nothing of what its sessions were about is done.
        let died = Arc::new(sim.fork().expect("memory"));
        let again = open(died);
        assert_eq!(again.get(&key(0)).expect("sound").as_deref(), Some(&last[..]));
        assert_eq!(again.verify().expect("sound").faults.len(), 0);
    });
}

#[test]
fn a_snapshot_sees_all_of_a_batch_or_nothing() {
    let pool = filled(4);
    explore("kv core: a snapshot beside a batch", move || {
        let db = open(pool.copy());
        let (reader, writer) = (db.clone(), db);
        together(vec![
            part(move || {
                for n in 1..pick(2, 200) as u64 {
                    let mut batch = Batch::new();
                    [0, 3].iter().for_each(|k| batch.put(&key(*k), &value(n)));
                    writer.write(&batch).expect("written");
                }
            }),
            part(move || {
                for _ in 0..pick(1, 100) {
                    let snapshot = reader.snapshot();
                    let [one, two] = [0, 3].map(|k| snapshot.get(&key(k)).expect("sound").expect("a value"));
                    assert_eq!(one, two, "of one batch");
                }
            }),
        ]);
    });
}

/// Two change a database whose process was killed: both do some of what recovery left, and one empties the rings beside the other. A walk
/// finds all keys meanwhile, and so does the next recovery.
#[test]
fn changes_go_on_beside_what_was_replayed() {
    let pool = killed(3);
    explore("kv core: changes beside what was replayed", move || {
        let sim = pool.copy();
        let db = open(sim.clone());
        let keys = |db: &Base| db.range(..).expect("sound").map(|one| one.expect("a record").0.to_vec());
        let put = |n: u64| {
            let db = db.clone();
            part(move || db.put(&key(n), &value(1)).expect("put"))
        };
        let walker = db.clone();
        let walk = part(move || {
            let found: Vec<_> = keys(&walker).collect();
            assert!((0..3).all(|n| found.contains(&key(n).to_vec())), "{found:?}");
        });
        together(vec![put(0), put(3), walk]);
        let died = Arc::new(sim.fork().expect("memory"));
        let again = open(died);
        assert_eq!(keys(&again).count(), 4);
        for n in 0..4 {
            let expected = value(u64::from(n % 3 == 0));
            assert_eq!(again.get(&key(n)).expect("sound").as_deref(), Some(&expected[..]), "{n}");
        }
        assert_eq!(again.verify().expect("sound").faults.len(), 0);
    });
}
