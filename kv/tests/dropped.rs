//! Does nobody see the records of a tree as those of another that had, or has, the same number?
//!
//! A tree's number is its place in the catalog; that of a dropped tree is given to the next one that is made. Handles and snapshots of the
//! dropped one may be there still, and a snapshot that is older may be asked for the new one (K18).

#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, reason = "a test has nobody to report to")]

use daxstore::pmem::sim::Sim;
use daxstore_kv::media::SimMedia;
use daxstore_kv::mutation::{self, Mutation};
use daxstore_kv::{Batch, Db, Error, Options, Scan, Snapshot, Tree};
use std::sync::Arc;

type SimTree = Tree<SimMedia>;

fn database() -> Db<SimMedia> {
    let sim = Arc::new(Sim::new(16 << 20).unwrap());
    Db::open_sim(sim, &Options::new().create(true).seed(7)).unwrap()
}

const KEYS: [&[u8]; 3] = [b"a", b"b", b"c"];

fn fill(tree: &SimTree, value: &[u8]) {
    KEYS.iter().for_each(|key| tree.put(key, value).unwrap());
}

fn scanned(mut scan: Scan<'_, SimMedia>) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    while let Some((_, value)) = scan.next().unwrap() {
        all.push(value.to_vec());
    }
    all
}

/// The values that a snapshot shows, looked at in every way that there is.
fn shown(snapshot: &Snapshot<SimMedia>) -> Vec<Vec<u8>> {
    let got: Vec<_> = KEYS.iter().filter_map(|key| snapshot.get(key).unwrap()).collect();
    let mut back: Vec<_> = snapshot.range(..).rev().map(|record| record.unwrap().1).collect();
    back.reverse();
    assert_eq!(snapshot.range(..).map(|record| record.unwrap().1).collect::<Vec<_>>(), got);
    assert_eq!((&back, scanned(snapshot.scan(..))), (&got, got.clone()));
    let held = KEYS.iter().filter(|key| snapshot.contains(key).unwrap()).count();
    assert_eq!((snapshot.len().unwrap(), held), (got.len() as u64, got.len()));
    assert_eq!(snapshot.is_empty().unwrap(), got.is_empty());
    got
}

/// That a tree which is over shows nothing, and takes nothing.
fn assert_over(tree: &SimTree) {
    assert!(KEYS.iter().all(|key| tree.get(key).unwrap().is_none() && !tree.contains(key).unwrap()));
    assert!(KEYS.iter().all(|key| tree.get_ref(key).unwrap().is_none()));
    assert!(shown(&tree.snapshot()).is_empty() && scanned(tree.scan(..)).is_empty());
    assert_eq!((tree.range(..).unwrap().count(), tree.prefix(b"a").unwrap().count()), (0, 0));
    assert_eq!((tree.len().unwrap(), tree.first().unwrap(), tree.last().unwrap()), (0, None, None));
    let mut batch = Batch::new();
    tree.put_in(&mut batch, b"a", b"x");
    let refused = [
        tree.put(b"a", b"x"),
        tree.delete(b"a").map(drop),
        tree.write(&batch),
        tree.update(b"a", |_| Some(b"x".to_vec())).map(drop),
        tree.compare_and_swap(b"a", None, None).map(drop),
    ];
    assert!(refused.iter().all(|done| matches!(done, Err(Error::TreeDropped))), "{refused:?}");
}

#[test]
fn a_snapshot_older_than_a_drop_shows_no_tree_that_was_made_later() {
    let db = database();
    let old = db.tree("one").unwrap();
    fill(&old, b"old");
    let before = db.snapshot();
    assert!(db.drop_tree("one").unwrap());
    let new = db.tree("one").unwrap();
    assert_eq!(shown(&before.of(&new)), [b""; 0], "it was not there");
    fill(&new, b"new");
    assert_eq!(shown(&before.of(&new)), [b""; 0], "it was not there");
    assert_eq!(shown(&before.of(&old)), [b"old"; 3], "what there was at that moment");
    assert_eq!(shown(&new.snapshot()), [b"new"; 3]);
    assert_over(&old);
    // Also by a moment that is the new tree's.
    assert_eq!(shown(&new.snapshot().of(&old)), [b""; 0]);
    drop(before);
    fill(&new, b"newer");
    db.compact().unwrap();
    assert_eq!(shown(&new.snapshot()), [b"newer"; 3]);
    assert_over(&old);
}

#[test]
fn what_was_lent_and_begun_before_a_drop_stays_as_it_was() {
    let db = database();
    let old = db.tree("one").unwrap();
    fill(&old, b"old");
    let lent = old.get_ref(b"a").unwrap().unwrap();
    let (mut scan, mut range) = (old.scan(..), old.range(..).unwrap());
    assert_eq!(scan.next().unwrap(), Some((&b"a"[..], &b"old"[..])));
    assert_eq!(range.next_back().unwrap().unwrap().1, b"old");
    db.drop_tree("one").unwrap();
    let new = db.tree("two").unwrap();
    fill(&new, b"new");
    db.compact().unwrap();
    assert_eq!((&*lent, lent.is_still_there()), (&b"old"[..], true));
    assert_eq!(scanned(scan), [b"old"; 2]);
    assert!(range.all(|record| record.unwrap().1 == b"old"));
}

#[test]
fn trees_of_a_number_that_never_had_a_record_are_apart_too() {
    let db = database();
    let (old, before) = (db.tree("one").unwrap(), db.snapshot());
    db.drop_tree("one").unwrap();
    let new = db.tree("one").unwrap();
    fill(&new, b"new");
    assert_over(&old);
    assert_eq!((shown(&before.of(&old)), shown(&before.of(&new))), (vec![], vec![]));
}

#[test]
fn trees_that_are_not_told_apart_are_noticed() {
    for rule in [Mutation::NoEnd, Mutation::NoBegin] {
        let noticed = std::panic::catch_unwind(|| {
            mutation::set(Some(rule));
            a_snapshot_older_than_a_drop_shows_no_tree_that_was_made_later();
        });
        mutation::set(None);
        assert!(noticed.is_err(), "{rule:?}");
    }
}
