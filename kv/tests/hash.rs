//! Does the hash index take keys whose hashes agree in many bits, and give back what keys left?

#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, reason = "a test has nobody to report to")]

#[allow(dead_code, reason = "a part of it is used")]
mod common;

use common::{Effort, Op, Setting, State, contents, crashes_in};
use daxstore::pmem::sim::Sim;
use daxstore_kv::mutation::Mutation;
use daxstore_kv::{Db, Options};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Bits that the hashes of the keys agree in.
const BITS: u32 = 15;

/// So many keys whose hashes begin with the same bits, in a database of the seed that all have here.
fn alike(count: usize) -> Vec<Vec<u8>> {
    let sim = Arc::new(Sim::new(common::BYTES).unwrap());
    let db = Db::open_sim(sim, &Options::new().create(true).seed(7)).unwrap();
    let all = (0_u64..).map(|n| n.to_le_bytes().to_vec());
    let first = db.hash_of(b"first").unwrap() >> (64 - BITS);
    all.filter(|key| db.hash_of(key).unwrap() >> (64 - BITS) == first).take(count).collect()
}

fn small(is_small: bool) -> Setting {
    let default = Setting::default();
    let options = if is_small { default.options.clone().small() } else { default.options.clone() };
    Setting { options, ..default }
}

/// More of them than the lines hold in which one may lie: the segment is replaced by as many as it takes.
#[test]
fn keys_that_agree_in_many_bits_are_taken() {
    for is_small in [false, true] {
        let sim = Arc::new(Sim::new(common::BYTES).unwrap());
        let options = small(is_small).options;
        let db = Db::open_sim(sim.clone(), &options).unwrap();
        for n in 0..200_u64 {
            db.put(&n.to_be_bytes(), b"another").unwrap();
        }
        let keys = alike(150);
        for key in &keys {
            db.put(key, key).unwrap();
        }
        for key in &keys {
            assert_eq!(db.get(key).unwrap().as_ref(), Some(key));
        }
        assert!(db.verify().unwrap().faults.is_empty());
        db.close().unwrap();
        let db = Db::open_sim(sim, &options).unwrap();
        let before = db.stats().unwrap().space;
        assert!(before.directory > 2048, "{before:?}");
        for key in &keys {
            assert!(db.delete(key).unwrap());
        }
        db.compact().unwrap();
        let after = db.stats().unwrap().space;
        assert!(after.directory == 2048 && after.hash < before.hash, "{after:?} {before:?}");
        assert_eq!(db.len().unwrap(), 200);
        assert!(db.verify().unwrap().faults.is_empty());
    }
}

/// Keys that agree come one by one, up to where the segment is replaced by many, and are deleted; then segments are merged.
fn deep(rule: Option<Mutation>) -> Result<common::Counts, String> {
    let keys = alike(70);
    let put = |key: &Vec<u8>| (key.clone(), Some(vec![1; 8]));
    let setup = [Op::Batch(0, keys[..60].iter().map(put).collect())];
    let mut ops: Vec<_> = keys[60..].iter().map(|key| Op::Put(0, key.clone(), vec![2; 8])).collect();
    ops.push(Op::Batch(0, keys[..66].iter().map(|key| (key.clone(), None)).collect()));
    ops.extend([Op::Compact(0), Op::Put(0, b"one".to_vec(), vec![3; 8])]);
    crashes_in(&small(true), &setup, &ops, Effort { images: 6, first: 0, seed: 1, further: 47 }, rule)
}

#[test]
fn segments_become_many_and_one_again_at_any_crash() {
    let counts = deep(None).unwrap();
    println!("{counts:?}");
    assert!(counts.images > 1000 && counts.nested > 0, "{counts:?}");
}

#[test]
fn a_directory_that_is_named_before_it_is_durable_is_noticed() {
    assert!(deep(Some(Mutation::DirectoryFirst)).is_err());
}

/// Batches with more new keys than segments have room for: each splits some while it is looked up, and goes on.
fn splits(rule: Option<Mutation>) -> Result<common::Counts, String> {
    let key = |n: u64| format!("key {n:04}").into_bytes();
    let change = |n: u64, with: u8| (key(n * 7 % 1000), (!n.is_multiple_of(11)).then(|| vec![with; 8]));
    let setup = [Op::Batch(0, (0..300).map(|n| change(n, 1)).collect())];
    let batch = |from: u64| Op::Batch(0, (from..from + 200).map(|n| change(n, 2)).collect());
    let mut ops: Vec<_> = (1..7).map(|n| batch(n * 110)).collect();
    ops.extend((0..10).map(|n| Op::Put(0, key(n * 30 + 1), vec![4; 8])));
    crashes_in(&small(true), &setup, &ops, Effort { images: 40, first: 8, seed: 3, further: 23 }, rule)
}

#[test]
fn batches_split_segments_at_any_crash() {
    let counts = splits(None).unwrap();
    println!("{counts:?}");
    assert!(counts.images > 1000 && counts.nested > 0, "{counts:?}");
}

#[test]
fn what_a_batch_found_before_a_split_is_looked_for_again() {
    assert!(splits(Some(Mutation::KeepSpots)).is_err());
}

/// Most keys go, and the indexes of small parts shrink: segments and groups are merged, and pages move.
fn shrinks(rule: Option<Mutation>) -> Result<common::Counts, String> {
    let key = |n: u64| format!("key {n:04}").into_bytes();
    let batch = |from: u64, value: fn(u64) -> Option<Vec<u8>>| {
        Op::Batch(0, (from..from + 100).map(|n| (key(n * 7 % 900), value(n * 7 % 900))).collect())
    };
    let setup: Vec<_> = (0..9).map(|n| batch(n * 100, |_| Some(vec![1; 8]))).collect();
    let mut ops: Vec<_> =
        (0..9).map(|n| batch(n * 100, |n| n.is_multiple_of(15).then(|| vec![2; 9]))).collect();
    ops.extend([Op::Compact(0), Op::Put(0, key(3), vec![3; 8]), Op::Compact(0)]);
    ops.extend((0..30).map(|n| Op::Put(0, key(n * 30 + 1), vec![4; 8])));
    ops.push(Op::Compact(0));
    crashes_in(&small(true), &setup, &ops, Effort { images: 3, first: 8, seed: 5, further: 211 }, rule)
}

#[test]
fn the_indexes_shrink_at_any_crash() {
    let counts = shrinks(None).unwrap();
    println!("{counts:?}");
    assert!(counts.images > 1000 && counts.nested > 0, "{counts:?}");
}

#[test]
fn a_merged_segment_that_is_named_before_it_is_durable_is_noticed() {
    assert!(shrinks(Some(Mutation::SplitFirst)).is_err());
}

/// The directory and the segments of a large index that is emptied go back, while others read and write.
#[test]
fn a_hash_index_without_keys_is_as_small_as_a_new_one() {
    let db = common::fresh();
    let key = |n: u64| n.to_be_bytes();
    let new = db.stats().unwrap().space;
    for n in 0..20_000 {
        db.put(&key(n), b"x").unwrap();
    }
    let full = db.stats().unwrap().space;
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let db = &db;
            scope.spawn(move || {
                for n in (thread..20_000).step_by(2) {
                    assert!(db.delete(&key(n)).unwrap());
                    let other = 100_000 + n % 50;
                    db.put(&key(other), &key(n)).unwrap();
                    assert!(db.get(&key(other)).unwrap().is_some());
                }
            });
        }
        (0..5).for_each(|_| _ = db.compact().unwrap());
    });
    db.compact().unwrap();
    let after = db.stats().unwrap().space;
    println!("{new:?}\n{full:?}\n{after:?}");
    assert!(after.hash <= new.hash && after.directory <= new.directory && after.hash * 8 < full.hash);
    assert!(after.ordered <= new.ordered + 8192, "{after:?}");
    let expected = (0..20_000).map(|n| (key(100_000 + n % 50).to_vec(), ())).collect::<BTreeMap<_, _>>();
    let found: State = contents(&db).unwrap();
    assert!(found[""].keys().eq(expected.keys()));
    assert!(db.verify().unwrap().faults.is_empty());
}
