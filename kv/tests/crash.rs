//! Does a database survive power loss at every instruction?

#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, reason = "a test has nobody to report to")]

mod common;
mod crash {
    pub mod structure;
}

use common::{Effort, Op, Setting, crashes, crashes_in};
use daxstore_kv::mutation::Mutation;

const EFFORT: Effort = Effort { images: 6, first: 0, seed: 1, further: 401 };

fn key(n: u64) -> Vec<u8> {
    format!("key {n:04}").into_bytes()
}

fn value(n: u64, round: u64) -> Vec<u8> {
    vec![(n * 5 + round) as u8; ((n * 7 + round * 13) % 90) as usize]
}

/// A mixture of changes to few keys in some sessions, by a simple generator.
fn mixture(seed: u64, count: usize, keys: u64, sessions: u64) -> Vec<Op> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 20) % below
    };
    let op = |round: usize| {
        let session = next(sessions) as u8;
        match next(10) {
            0..=5 => {
                let n = next(keys);
                Op::Put(session, key(n), value(n, round as u64))
            }
            6..=8 => Op::Delete(session, key(next(keys))),
            _ => {
                let mut one = || {
                    let n = next(keys);
                    (key(n), (n % 4 != 1).then(|| value(n, round as u64)))
                };
                Op::Batch(session, (0..5).map(|_| one()).collect())
            }
        }
    };
    (0..count).map(op).collect()
}

#[test]
fn puts_deletes_and_batches() {
    let mut images = 0;
    for seed in 0..3 {
        let counts =
            crashes(&mixture(seed, 40, 20, 1), &mixture(seed + 100, 60, 20, 1), EFFORT, None).unwrap();
        images += counts.images + counts.nested;
    }
    println!("{images} images");
    assert!(images > 3000, "{images}");
}

#[test]
fn groups_are_written_back_and_slots_used_again() {
    let effort = Effort { images: 3, ..EFFORT };
    crashes(&mixture(5, 40, 12, 1), &mixture(6, 420, 12, 1), effort, None).unwrap();
}

#[test]
fn sessions_supersede_each_others_records() {
    let effort = Effort { images: 3, ..EFFORT };
    crashes(&mixture(7, 40, 10, 1), &mixture(8, 420, 10, 3), effort, None).unwrap();
}

/// Changes of a database whose process was killed: each does some of what recovery left to be done, and power is cut in that too.
fn go_on(rule: Option<Mutation>) -> Result<u64, String> {
    let setting = Setting { killed: true, ..Setting::default() };
    let mut images = 0;
    for seed in 0..3 {
        let setup = mixture(seed + 20, 150, 20, 3);
        let counts = crashes_in(&setting, &setup, &mixture(seed + 30, 140, 20, 3), EFFORT, rule)?;
        images += counts.images + counts.nested;
    }
    Ok(images)
}

#[test]
fn changes_go_on_after_a_kill() {
    let images = go_on(None).unwrap();
    println!("{images} images");
    assert!(images > 3000, "{images}");
}

/// The keys that only a ring tells of are found when their tree is dropped, and when power is cut in that.
#[test]
fn a_tree_is_dropped_after_a_kill() {
    let setting = Setting { killed: true, ..Setting::default() };
    let some = |from: u64| (from..from + 12).map(|n| (key(n), Some(value(n, 1)))).collect();
    let setup = [Op::Make("one"), Op::In("one", some(0)), Op::In("one", some(12))];
    let ops = [Op::Drop("one"), Op::Make("one"), Op::In("one", some(3)), Op::Compact(0)];
    let counts =
        crashes_in(&setting, &setup, &ops, Effort { images: 12, further: 13, ..EFFORT }, None).unwrap();
    println!("{counts:?}");
    assert!(counts.images > 200 && counts.nested > 0, "{counts:?}");
}

#[test]
fn what_was_replayed_and_forgotten_is_noticed() {
    assert!(go_on(Some(Mutation::ForgetReplayed)).is_err());
}

/// A key that only the ring of a killed session tells of is deleted by another one, whose groups come and go until nothing of it is left.
fn delete_what_was_replayed(session: u8, rule: Option<Mutation>) -> Result<common::Counts, String> {
    let setting = Setting { killed: true, ..Setting::default() };
    // Nobody else wants a slot of this size.
    let setup = [Op::Put(0, key(0), vec![7; 77])];
    let others = (0..280).map(|n| Op::Put(session, key(1 + n % 5), vec![1; 8]));
    let ops: Vec<_> = std::iter::once(Op::Delete(session, key(0))).chain(others).collect();
    crashes_in(&setting, &setup, &ops, Effort { images: 2, first: 200, ..EFFORT }, rule)
}

#[test]
fn what_was_replayed_and_deleted_does_not_come_back() {
    let counts = delete_what_was_replayed(1, None).unwrap();
    assert!(counts.images > 300, "{counts:?}");
}

#[test]
fn a_ring_of_which_nobody_knows_that_it_has_notes_is_noticed() {
    // One of the two has another ring than who was killed.
    let rule = Some(Mutation::YoungReplayed);
    assert!((1..=2).any(|session| delete_what_was_replayed(session, rule).is_err()));
}

/// New keys up to where the first segment of the index is replaced, and over it.
fn replace_segments(rule: Option<Mutation>) -> Result<common::Counts, String> {
    let setup: Vec<_> = (0..40)
        .map(|n| Op::Batch(0, (0..25).map(|i| (key(n * 25 + i), Some(vec![1; 8]))).collect()))
        .collect();
    let ops: Vec<_> = (1000..1180).map(|n| Op::Put(0, key(n), vec![2; 8])).collect();
    let effort = Effort { images: 2, further: 97, ..EFFORT };
    crashes(&setup, &ops, effort, rule)
}

#[test]
fn segments_are_replaced() {
    replace_segments(None).unwrap();
}

#[test]
fn a_segment_that_is_named_before_it_is_durable_is_noticed() {
    assert!(replace_segments(Some(Mutation::SplitFirst)).is_err());
}

/// New keys by turns of two sessions, beside `there` that are there: what one takes into the leaves of the ordered index with its last change before
/// the other's group is full, the other makes durable.
fn insert_by_turns(there: u64, rule: Option<Mutation>) -> Result<common::Counts, String> {
    let setup = [Op::Batch(0, (0..there).map(|n| (key(n), Some(vec![1; 8]))).collect())];
    let new = |n: u64| there + n * 37 % 140;
    let ops: Vec<_> = (0..140).map(|n| Op::Put((n % 2) as u8, key(new(n)), vec![2; 8])).collect();
    let effort = Effort { images: 6, first: 120, further: 97, ..EFFORT };
    crashes(&setup, &ops, effort, rule)
}

#[test]
fn sessions_write_each_others_leaves_back() {
    let images: u64 = (0..12).map(|n| insert_by_turns(n * 8, None).unwrap().images).sum();
    println!("{images} images");
    assert!(images > 5000, "{images}");
}

#[test]
fn leaves_that_their_writer_does_not_wait_for_are_noticed() {
    assert!((0..12).any(|n| insert_by_turns(n * 8, Some(Mutation::NoTakerFence)).is_err()));
}

/// Fails unless a crash of one of some mixtures shows that the rule is broken.
fn caught(rule: Mutation) {
    let found = (0..6).any(|seed| {
        let effort = Effort { images: 6, seed, further: 1_000_000, ..EFFORT };
        crashes(&mixture(seed, 30, 6, 1), &mixture(seed + 50, 300, 6, 3), effort, Some(rule)).is_err()
    });
    assert!(found, "{rule:?} is not noticed");
}

macro_rules! caught {
    ($($name:ident: $rule:ident;)*) => {
        $(#[test]
        fn $name() {
            caught(Mutation::$rule);
        })*
    };
}

caught! {
    a_change_without_its_fence_is_noticed: NoFence;
    a_tail_that_moves_too_early_is_noticed: NoWriteBack;
    a_slot_that_is_used_too_early_is_noticed: ReuseAtOnce;
    a_tombstone_that_goes_too_early_is_noticed: PurgeEarly;
    an_order_of_notes_that_counts_is_noticed: LastWins;
    half_a_batch_is_noticed: PartialBatch;
    an_index_that_is_ahead_is_noticed: IndexFirst;
    a_note_that_leads_to_another_record_is_noticed: AnySequence;
    sequence_numbers_that_come_again_are_noticed: NoLimit;
    a_record_without_its_checksum_is_noticed: NoRecordCheck;
    an_order_that_misses_keys_is_noticed: NoOrder;
    a_superseded_record_without_its_mark_is_noticed: NoMark;
    a_mark_that_is_not_flushed_is_noticed: NoMarkFlush;
    an_order_that_is_not_told_of_the_newest_is_noticed: NoRetelling;
}
