//! Model 19: copies of leaves that scans read.
//!
//! What a scan lends of a copy is what its snapshot sees, while a key of the leaf is overwritten or deleted, or a new one comes, and whoever makes
//! the copy meanwhile (K22). A copy that is out of date would be read for ever: each model scans again when all are done.

use crate::kv_memory::{Base, Watched, filled, key, open_watched, value};
use crate::{explore_large, part, together};
use daxstore_kv::{Scan, Tree};
use std::ops::RangeFull;

/// How many keys there are at first, in one leaf, with the value 0.
const KEYS: u64 = 2;

/// So many keys have every lock of a model's.
const OTHERS: u64 = 4;

/// Records, of each the number of its key and that of its value.
type Records = Vec<(u64, u64)>;

fn records(mut scan: Scan<'_, Watched>) -> Records {
    let mut found = Vec::new();
    while let Some((key, value)) = scan.next().expect("sound") {
        assert!(value.len() == 40 && value.iter().all(|byte| *byte == value[0]), "a value of one change");
        found.push((key[7].into(), value[0].into()));
    }
    found
}

fn scan(db: &Base) -> Records {
    records(db.scan::<RangeFull>(..))
}

fn get(db: &Base, n: u64) -> Option<u64> {
    db.get(&key(n)).expect("sound").map(|value| value[0].into())
}

fn put(tree: &Tree<Watched>, n: u64, number: u64) {
    tree.put(&key(n), &value(number)).expect("put");
}

/// Takes what waits into the leaves, as whoever looks at the order does. Who goes down makes no copies.
fn settle(db: &Base) {
    assert!(db.last().expect("sound").is_some());
}

fn copied(db: &Base) -> u64 {
    db.stats().expect("sound").scan_memory
}

/// What was done before. Once scanned is no reason for a copy, twice is one.
mod before {
    use super::{Base, KEYS, OTHERS, copied, put, scan, settle};

    /// A scan makes a copy.
    pub fn scanned(db: &Base) {
        scan(db);
        assert_eq!(copied(db), 0);
    }

    /// A scan makes one, of records of which the order was not told.
    pub fn overwritten(db: &Base) {
        (0..KEYS).for_each(|n| put(db, n, 1));
        scanned(db);
    }

    /// A scan reads a copy.
    pub fn scanned_twice(db: &Base) {
        (0..2).for_each(|_| drop(scan(db)));
        assert!(copied(db) > 0);
    }

    /// A scan reads one, and looks at each record: of another tree records with every lock were superseded.
    pub fn counted(db: &Base) {
        scanned_twice(db);
        let other = db.tree("other").expect("a tree");
        (0..2 * OTHERS).for_each(|n| put(&other, n % OTHERS, n));
    }

    /// A scan makes a copy from that of the leaf as it was.
    pub fn changed(db: &Base) {
        scanned_twice(db);
        put(db, KEYS, 1);
        settle(db);
        assert!(copied(db) > 0, "the leaf was not replaced");
    }
}

/// The values that a key has one after the other; `None`: it has none.
type Values = &'static [Option<u64>];

/// Gives key `n`, which has the first of these values, the others in turn.
fn change(db: &Base, n: u64, values: Values) {
    for pair in values.windows(2) {
        match pair[1] {
            Some(value) => put(db, n, value),
            None => assert!(db.delete(&key(n)).expect("deleted")),
        }
        if pair[0].is_none() {
            settle(db);
        }
    }
}

/// Of what a scan found, which of its values key `n` had, and all else.
fn parted(mut found: Records, n: u64, values: Values) -> (usize, Records) {
    let place = found.iter().position(|record| record.0 == n);
    let value = place.map(|place| found.remove(place).1);
    (place_of(value, values), found)
}

fn place_of(value: Option<u64>, values: Values) -> usize {
    values
        .iter()
        .position(|other| *other == value)
        .unwrap_or_else(|| panic!("{value:?} is none of {values:?}"))
}

/// Which snapshot is scanned. Who goes first needs one preemption less to be met in the midst of what it does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sees {
    /// One that was taken before any change: who changes goes first.
    Before,
    /// One that is taken now: who scans goes first.
    Now,
    /// The same; who changes scans too, and sees what it did.
    Both,
}

/// Scans what is there now, of key `n` what was seen before or something newer, and all else as `expected`.
fn look(db: &Base, n: u64, values: Values, expected: &[(u64, u64)]) {
    let earlier = place_of(get(db, n), values);
    let (found, others) = parted(scan(db), n, values);
    assert!(found >= earlier, "older than what was seen before: {found} and {earlier}");
    assert_eq!(others, expected);
}

/// After `before`, scans while key `n`, which has the first of `values`, gets the others.
fn beside(name: &str, before: fn(&Base), (n, values): (u64, Values), sees: Sees) {
    let pool = filled(KEYS);
    explore_large(name, move || {
        let db = open_watched(Watched::with_words(pool.copy()));
        before(&db);
        let old = db.snapshot();
        let was: Records = (0..10).filter_map(|n| Some((n, get(&db, n)?))).collect();
        let (first, others) = parted(was.clone(), n, values);
        assert_eq!(first, 0);
        let (reader, writer, expected) = (db.clone(), db.clone(), others.clone());
        let last = values.len() - 1;
        let change = part(move || {
            change(&writer, n, values);
            if sees == Sees::Both {
                assert_eq!(parted(scan(&writer), n, values).0, last);
            }
        });
        together(match sees {
            Sees::Before => vec![part(move || assert_eq!(records(old.scan::<RangeFull>(..)), was)), change],
            Sees::Now | Sees::Both => vec![change, part(move || look(&reader, n, values, &expected))],
        });
        for _ in 0..3 {
            assert_eq!(parted(scan(&db), n, values), (last, others.clone()));
        }
        assert_eq!(place_of(get(&db, n), values), last);
        assert!(copied(&db) > 0);
    });
}

/// A key of the leaf is overwritten.
const OVERWRITTEN: (u64, Values) = (0, &[Some(0), Some(5)]);
/// The same, where it was before.
const AGAIN: (u64, Values) = (0, &[Some(1), Some(5)]);
/// A new key comes into the leaf.
const NEW: (u64, Values) = (9, &[None, Some(5)]);
/// A key goes.
const DELETED: (u64, Values) = (0, &[Some(0), None]);

#[test]
fn a_copy_is_made_beside_an_overwrite() {
    beside("kv copies: made beside an overwrite", before::scanned, OVERWRITTEN, Sees::Now);
}

#[test]
fn a_snapshot_makes_a_copy_beside_an_overwrite() {
    beside("kv copies: made by a snapshot beside an overwrite", before::scanned, OVERWRITTEN, Sees::Before);
}

#[test]
fn a_copy_is_made_beside_another_overwrite() {
    beside("kv copies: made beside another overwrite", before::overwritten, AGAIN, Sees::Before);
}

#[test]
fn a_copy_is_made_of_an_earlier_one_beside_an_overwrite() {
    beside(
        "kv copies: made of an earlier one beside an overwrite",
        before::changed,
        OVERWRITTEN,
        Sees::Before,
    );
}

#[test]
fn a_copy_is_read_beside_an_overwrite() {
    beside("kv copies: read beside an overwrite", before::scanned_twice, OVERWRITTEN, Sees::Now);
}

#[test]
fn records_of_a_copy_are_looked_at_beside_an_overwrite() {
    beside("kv copies: looked at beside an overwrite", before::counted, OVERWRITTEN, Sees::Before);
}

#[test]
fn a_copy_is_made_beside_a_new_key() {
    beside("kv copies: made beside a new key", before::scanned, NEW, Sees::Now);
}

#[test]
fn two_make_a_copy_beside_a_new_key() {
    beside("kv copies: made by two beside a new key", before::scanned, NEW, Sees::Both);
}

#[test]
fn a_copy_is_made_of_an_earlier_one_beside_a_new_key() {
    beside("kv copies: made of an earlier one beside a new key", before::changed, NEW, Sees::Now);
}

#[test]
fn a_copy_is_read_beside_a_new_key() {
    beside("kv copies: read beside a new key", before::scanned_twice, NEW, Sees::Now);
}

#[test]
fn a_copy_is_made_beside_a_key_that_goes() {
    beside("kv copies: made beside a key that goes", before::scanned, DELETED, Sees::Before);
}

#[test]
fn a_copy_is_read_beside_a_key_that_goes() {
    beside("kv copies: read beside a key that goes", before::scanned_twice, DELETED, Sees::Now);
}

#[cfg(loom)]
#[test]
fn broken_rules_are_noticed() {
    use crate::assert_caught;
    use daxstore_kv::mutation::Mutation;
    let caught = |model: &str, mutation: Mutation| assert_caught(&format!("kv_copies::{model}"), mutation);
    caught("a_copy_is_made_beside_an_overwrite", Mutation::NoCount);
    caught("a_copy_is_read_beside_a_key_that_goes", Mutation::NoCount);
    caught("a_snapshot_makes_a_copy_beside_an_overwrite", Mutation::CountEarly);
    caught("a_copy_is_made_beside_another_overwrite", Mutation::CountEarly);
    caught("records_of_a_copy_are_looked_at_beside_an_overwrite", Mutation::CountEarly);
    caught("a_copy_is_made_beside_a_new_key", Mutation::StaleCopy);
    caught("a_copy_is_made_of_an_earlier_one_beside_a_new_key", Mutation::StaleCopy);
    caught("a_copy_is_read_beside_a_new_key", Mutation::KeepCopy);
}
