//! Does a database survive power loss while its parts are made, grow, and go?
//!
//! What its neighbours do with small records, done with the database itself, values with runs of their own, batches of many, trees, the file's
//! end, and the hash index from one page to a directory that was doubled, with windows that moved.

use crate::common::{Counts, Effort, Op, Setting, crashes_in};
use daxstore_kv::mutation::Mutation;

const EFFORT: Effort = Effort { images: 6, first: 0, seed: 1, further: 101 };

fn key(n: u64) -> Vec<u8> {
    format!("key {n:04}").into_bytes()
}

fn value(n: u64, len: usize) -> Vec<u8> {
    (0..len).map(|i| (i as u64 * 3 + (i as u64 >> 8) + n) as u8).collect()
}

fn put(n: u64, len: usize) -> Op {
    Op::Put(0, key(n), value(n + len as u64, len))
}

/// Changes of other keys, so that groups are written back and what was superseded is used again.
fn others(round: u64, count: u64) -> impl Iterator<Item = Op> {
    (0..count).map(move |n| put(1000 + n % 20, ((n * 7 + round * 31) % 90) as usize))
}

fn survives(setting: &Setting, setup: &[Op], ops: &[Op], effort: Effort) -> Counts {
    let counts = crashes_in(setting, setup, ops, effort, None).unwrap();
    println!("{counts:?}");
    assert!(counts.nested > 0 && counts.images > counts.points, "{counts:?}");
    counts
}

fn creation(rule: Option<Mutation>) -> Result<Counts, String> {
    let setting = Setting { made: true, len: 0, ..Setting::default() };
    let effort = Effort { images: 24, further: 11, ..EFFORT };
    crashes_in(&setting, &[], &[put(1, 10), put(2, 20), Op::Make("one"), put(1, 30)], effort, rule)
}

/// Each crash leaves no database, or an empty one, or what was acknowledged; also where a chunk of pages is made for the first record.
#[test]
fn a_database_is_made() {
    let counts = creation(None).unwrap();
    assert!(counts.nested > 0 && counts.images > 500, "{counts:?}");
}

#[test]
fn a_chunk_that_is_named_before_its_map_is_made_is_noticed() {
    assert!(creation(Some(Mutation::MapLate)).is_err());
}

/// Values in runs of pages: new, over a small one, over a large one, deleted, and their runs used again.
#[test]
fn values_have_runs_of_pages() {
    let mut ops = vec![put(1, 9000), put(2, 50), put(2, 20_000), put(1, 9100), put(1, 10), put(2, 30_000)];
    ops.extend([Op::Delete(0, key(2)), put(3, 12_000)]);
    for round in 0..3 {
        ops.extend(others(round, 70));
        ops.extend([put(round, 11_000 + round as usize), Op::Delete(0, key(round + 1)), put(4, 9000)]);
    }
    survives(&Setting::default(), &[put(1, 9500)], &ops, Effort { images: 3, ..EFFORT });
}

/// The same in runs of chunks.
#[test]
fn values_have_runs_of_chunks() {
    let large = 2_100_000;
    let mut ops = vec![put(1, large), put(1, large + 8)];
    ops.extend(others(0, 135));
    ops.extend([Op::Delete(0, key(1)), put(2, large)]);
    survives(&Setting::default(), &[put(5, 10)], &ops, Effort { images: 1, further: 199, ..EFFORT });
}

/// Batches whose lists grow out of their buffers, with records that are new, overwritten and deleted.
#[test]
fn batches_of_many() {
    let batch = |first: u64, count: u64, len: usize| {
        let all = (first..first + count).map(|n| (key(n), (n % 7 != 3).then(|| value(n, len))));
        Op::Batch(0, all.collect())
    };
    let ops = [batch(0, 300, 20), batch(100, 1100, 8), batch(50, 200, 30), batch(600, 600, 10)];
    survives(&Setting::default(), &[batch(0, 200, 12)], &ops, Effort { images: 8, further: 31, ..EFFORT });
}

#[test]
fn trees_are_made_and_dropped() {
    let fill = |tree, first: u64| {
        let some = move |n: u64| (key(first + n), Some(value(n, (n * 5 % 60) as usize)));
        (0..6).map(move |i| Op::In(tree, (i * 5..i * 5 + 5).map(some).collect()))
    };
    let mut ops = vec![Op::Make("one"), Op::Make("two")];
    ops.extend(fill("one", 0).chain(fill("two", 10)));
    ops.push(Op::Drop("one"));
    ops.extend(others(1, 10));
    ops.push(Op::Make("one"));
    ops.extend(fill("one", 3));
    ops.extend([Op::Drop("two"), Op::Drop("one"), put(1, 10)]);
    survives(&Setting::default(), &[put(1, 30)], &ops, Effort { images: 4, further: 61, ..EFFORT });
}

#[test]
fn space_is_given_back() {
    let mut setup: Vec<_> = (0..30).map(|n| put(n, 9000)).collect();
    setup.extend(
        (0..40).map(|n| Op::Batch(0, (0..25).map(|i| (key(n * 25 + i), Some(value(n, 60)))).collect())),
    );
    let mut ops: Vec<_> =
        (0..40).map(|n| Op::Batch(0, (0..25).map(|i| (key(n * 25 + i), None)).collect())).collect();
    ops.extend([Op::Compact, put(1, 70), put(2, 9000), Op::Compact]);
    ops.extend((0..20).map(|n| put(n, 65)));
    survives(&Setting::default(), &setup, &ops, Effort { images: 4, further: 61, ..EFFORT });
}

/// The file is as short as it can be, and grows chunk by chunk.
#[test]
fn the_file_grows() {
    let setting = Setting { len: 0, ..Setting::default() };
    let ops: Vec<_> = (0..24).map(|n| put(n, 200_000 + n as usize)).collect();
    survives(&setting, &[put(1, 10)], &ops, Effort { images: 2, further: 41, ..EFFORT });
}

fn small() -> Setting {
    let default = Setting::default();
    Setting { options: default.options.clone().small(), ..default }
}

/// New keys from the first page of the index on, in batches between which some come alone.
fn growth(rule: Option<Mutation>, images: usize) -> Result<Counts, String> {
    let batch = |n: u64| Op::Batch(0, (0..40).map(|i| (key(n * 50 + i), Some(value(i, 8)))).collect());
    let ops: Vec<_> = (0..40).flat_map(|n| [batch(n), put(n * 50 + 45, 8), put(n * 50 + 46, 9)]).collect();
    crashes_in(&small(), &[put(1, 3)], &ops, Effort { images, further: 97, ..EFFORT }, rule)
}

/// Segments are replaced and split, the directory is doubled several times, and windows move.
#[test]
fn the_hash_index_grows_from_one_page() {
    println!("{:?}", growth(None, 3).unwrap());
}

/// Few keys in small leaves and groups, over and over: leaves are split and merged, tombstones leave, rings go round.
#[test]
fn keys_come_and_go_in_small_parts() {
    let delete = |n| Op::Delete(0, key(n));
    let mut ops = Vec::new();
    for round in 0..4 {
        ops.extend((0..90).map(|n| put(n * 7 % 90 + round, (n % 30) as usize)));
        ops.extend((0..90).filter(|n| n % 4 != 1).map(|n| delete(n * 7 % 90 + round)));
    }
    survives(&small(), &[put(1, 3)], &ops, Effort { images: 2, further: 199, ..EFFORT });
}
