//! Do typed trees keep values, and keys in their order?

#![cfg(feature = "serde")]
#![allow(clippy::unwrap_used, reason = "a test has nobody to report to")]

use daxstore::{Store, StoreOptions};
use daxstore_kv::typed::{Key, Tree};
use daxstore_kv::{Batch, Db, Error, Options};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use std::fmt::Debug;

#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
enum Shape {
    Point,
    Circle { radius: u32, name: Option<String> },
    Path(Vec<(i16, i16)>),
}

fn bytes<K: Key>(key: &K) -> Vec<u8> {
    let mut bytes = Vec::new();
    key.encode(&mut bytes);
    bytes
}

/// The bytes come in the order of the keys, lead back to them, and none begins another.
fn agree<K: Key + Ord + Debug>(a: &K, b: &K) {
    let (one, other) = (bytes(a), bytes(b));
    assert_eq!(one.cmp(&other), a.cmp(b), "{a:?} {b:?}");
    assert_eq!(one.starts_with(&other), a == b, "{a:?} {b:?}");
    let mut rest = &one[..];
    assert_eq!(K::decode(&mut rest).as_ref(), Some(a));
    assert!(rest.is_empty() && K::decode(&mut &one[..one.len() - 1]).is_none(), "{a:?}");
}

fn few_bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop_oneof![Just(0_u8), Just(1), Just(255), any::<u8>()], 0..5)
}

proptest! {
    #[test]
    fn numbers_come_in_order(a: (u8, i16, u64), b: (u8, i16, u64), c: (i128, bool, char), d: (i128, bool, char)) {
        agree(&a, &b);
        agree(&(a.0 % 2, a.1, b.2), &(b.0 % 2, a.1, a.2));
        agree(&c, &d);
        agree(&(c.1, d.2), &(d.1, c.2));
        agree(&Some(a.1), &None);
        agree(&Some(a.1), &Some(b.1));
    }

    #[test]
    fn texts_and_bytes_come_in_order(a in few_bytes(), b in few_bytes(), c: String, d: String, n: u16) {
        agree(&a, &b);
        agree(&(a.clone(), n), &(b.clone(), n ^ 1));
        agree(&(a.clone(), b.clone()), &(b, a));
        agree(&c, &d);
        agree(&(n.to_be_bytes(), 1_u8), &([0, 1], 0));
    }
}

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let options = StoreOptions::new().assume_persistent(true);
    let store = Store::create(dir.path().join("pool"), 64 << 20, &options).unwrap();
    (dir, store)
}

fn shape(n: i64) -> Shape {
    match n % 3 {
        0 => Shape::Point,
        1 => Shape::Circle { radius: n as u32, name: (n % 2 == 0).then(|| format!("{n}")) },
        _ => Shape::Path(vec![(1, -1); n.unsigned_abs() as usize % 9]),
    }
}

#[test]
fn values_are_kept_and_ranges_are_of_keys() {
    let (_dir, store) = store();
    let db = Db::open(&store, "/kv", Options::new().create(true)).unwrap();
    let tree: Tree<(i64, String), Shape> = Tree::new(db.tree("shapes").unwrap());
    for n in -200..200 {
        tree.put(&(n, format!("{}", n % 5)), &shape(n)).unwrap();
    }
    let key = |n: i64| (n, format!("{}", n % 5));
    for n in -200..200 {
        assert_eq!(tree.get(&key(n)).unwrap(), Some(shape(n)));
    }
    let found: Vec<_> = tree.range(key(-7)..key(9)).unwrap().map(|record| record.unwrap().0.0).collect();
    assert_eq!(found, (-7..9).collect::<Vec<_>>());
    let last = tree.range(..key(0)).unwrap().next_back().unwrap().unwrap();
    assert_eq!(last, (key(-1), shape(-1)));
    assert_eq!(tree.first().unwrap().unwrap().0, key(-200));
    assert_eq!(tree.last().unwrap().unwrap().1, shape(199));
    assert!(tree.update(&key(5), |old| (old == Some(shape(5))).then_some(Shape::Point)).unwrap());
    assert_eq!(tree.get(&key(5)).unwrap(), Some(Shape::Point));
    assert!(tree.delete(&key(5)).unwrap() && !tree.contains(&key(5)).unwrap());
    let mut batch = Batch::new();
    tree.put_in(&mut batch, &key(5), &shape(8)).unwrap();
    tree.delete_in(&mut batch, &key(6));
    db.write(&batch).unwrap();
    assert_eq!((tree.get(&key(5)).unwrap(), tree.len().unwrap()), (Some(shape(8)), 399));
}

#[test]
fn what_is_of_another_type_is_an_error_and_changes_nothing() {
    let (_dir, store) = store();
    let db = Db::open(&store, "/kv", Options::new().create(true)).unwrap();
    db.put(&bytes(&7_u32), &[9, 9, 9]).unwrap();
    let tree: Tree<u32, Shape> = Tree::new((*db).clone());
    assert!(matches!(tree.get(&7), Err(Error::Codec(_))));
    assert!(matches!(tree.update(&7, |_| None), Err(Error::Codec(_))));
    assert!(matches!(tree.range(..).unwrap().next(), Some(Err(Error::Codec(_)))));
    assert_eq!(db.get(&bytes(&7_u32)).unwrap().unwrap(), [9, 9, 9]);
    let other: Tree<u64, Shape> = Tree::new((*db).clone());
    assert!(matches!(other.first(), Err(Error::Codec(daxstore_kv::error::Part::Key))));
}
