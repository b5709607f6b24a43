//! Is everything there after a crash that was made durable, and nothing else once the rest was told again?
//!
//! At every fence of a write-back, images are made of what may be left, opened, told again of what the database would tell
//! (what came after the last write-back that returned), and compared with the model. Some images are crashed again while
//! they are opened, and one is gone on with: its pages are used again.

#![allow(clippy::unwrap_used, reason = "a test has nobody to report to")]

use super::memory::{Memory, Moment, Pages, Random};
use super::model::{Index, Model, TREE, assert_same, change, fresh};
use crate::ordered::mutation::{self, Mutation};
use crate::ordered::{Ordered, Sizes};
use std::ops::Bound;
use std::sync::Arc;

/// A change: key, record or none, sequence number.
pub type Told = (Vec<u8>, Option<u64>, u64);

const ROOT: u64 = 256;

/// Opens what is left, with only its pages in use.
fn recover(image: Memory) -> (Arc<Pages>, Index) {
    let pages = Arc::new(Pages::new(image));
    let index = Ordered::open(&pages, TREE, ROOT).unwrap();
    let mut kept = Vec::new();
    index.pages(|page| kept.push(page)).unwrap();
    pages.only(&kept);
    (pages, index)
}

pub fn judge(image: Memory, told: &[Told], model: &Model) -> (Arc<Pages>, Index) {
    let (pages, index) = recover(image);
    told.iter().for_each(|(key, record, sequence)| change(&index, key, *record, *sequence));
    assert_same(&index, model);
    index.write_back(0).unwrap();
    index.told_again();
    assert_same(&index, model);
    let findings = index.verify().unwrap();
    assert!(findings.errors.is_empty(), "{:?}", findings.errors);
    assert_eq!(findings.keys, model.len() as u64);
    (pages, index)
}

/// Crashes during recovery.
pub fn crash_again(moment: &Moment, random: &mut Random, told: &[Told], model: &Model) {
    let image = moment.image(random);
    image.watch();
    let pages = Arc::new(Pages::new(image));
    let index = Ordered::open(&pages, TREE, ROOT).unwrap();
    let mut moments = pages.memory.moments();
    let mut kept = Vec::new();
    index.pages(|page| kept.push(page)).unwrap();
    // Once it is open, others take what was not kept.
    moments.last_mut().unwrap().only(&kept);
    for moment in moments {
        judge(moment.image(random), told, model);
    }
}

/// A key of one of a few places, so that groups there split, and are emptied.
fn near(random: &mut Random, window: u64) -> Vec<u8> {
    let n = window * 64 + random.below(64);
    let long = if n % 16 == 3 { 40 } else { 12 };
    [&n.to_be_bytes()[6..], &vec![n as u8; long]].concat()
}

/// Rounds of changes and write-backs; crashes in each; goes on with what one of them left.
fn crash_rounds(seed: u64, rounds: u64) {
    let mut random = Random(seed);
    let (mut pages, mut index) = fresh(1 << 19, Sizes::SMALL);
    let mut model = Model::new();
    let mut sequence = 0;
    for round in 0..rounds {
        let (mut told, deletes) = (Vec::new(), if round % 24 < 16 { 1 } else { 10 });
        let window = random.below(40);
        pages.memory.watch();
        for _ in 0..1 + random.below(140) {
            sequence += 1;
            let key = near(&mut random, window);
            let record = (random.below(10) >= deletes).then(|| 8 * random.below(1 << 20));
            change(&index, &key, record, sequence);
            match record {
                Some(record) => model.insert(key.clone(), record),
                None => model.remove(&key),
            };
            told.push((key, record, sequence));
            if random.below(40) == 0 {
                // A reader has what waits taken into the leaves; nothing of it is durable.
                let _first = index.cursor(Bound::Unbounded).next().unwrap();
            }
        }
        index.write_back(0).unwrap();
        let moments = pages.memory.moments();
        let (last, before) = moments.split_last().unwrap();
        for moment in before {
            judge(moment.image(&mut random), &told, &model);
            judge(moment.image(&mut random), &told, &model);
        }
        judge(last.image(&mut random), &[], &model);
        if round % 3 == 0 {
            crash_again(&moments[random.below(moments.len() as u64) as usize], &mut random, &told, &model);
        }
        if round % 4 == 0 {
            let at = random.below(moments.len() as u64) as usize;
            (pages, index) = judge(moments[at].image(&mut random), &told, &model);
            index.write_back(0).unwrap();
        }
    }
}

#[test]
fn what_was_made_durable_is_there_after_every_crash() {
    for seed in 0..12 {
        crash_rounds(seed, 48);
    }
}

/// Two keys are appended; the power takes the first and leaves the second. What is told then goes where the first was.
fn tear() {
    let (pages, index) = fresh(1 << 16, Sizes::SMALL);
    let base: Model = (0..9).map(|n| (vec![b'a', n], 8 * u64::from(n))).collect();
    base.iter().for_each(|(key, record)| change(&index, key, Some(*record), 1));
    index.write_back(0).unwrap();
    let durable = pages.memory.moments().remove(0);
    change(&index, b"b", Some(16), 2);
    change(&index, b"c", Some(24), 3);
    index.cursor(Bound::Unbounded).next().unwrap();
    let image = pages.memory.moments().remove(0).without_first(&durable);
    let (_pages, index) = recover(image);
    change(&index, b"c", None, 4);
    assert_same(&index, &base);
}

#[test]
fn what_lies_behind_a_torn_entry_does_not_come_back() {
    tear();
    let torn = std::thread::spawn(|| {
        mutation::set(Some(Mutation::AppendToTorn));
        tear();
    });
    assert!(torn.join().is_err(), "nobody noticed");
}

/// Whether some round fails with `mutation` on.
fn is_caught(mutation: Mutation) -> bool {
    (0..40).any(|seed| {
        let run = move || {
            mutation::set(Some(mutation));
            let failed = std::panic::catch_unwind(|| crash_rounds(seed, 48)).is_err();
            mutation::set(None);
            failed
        };
        std::thread::spawn(run).join().unwrap()
    })
}

#[test]
fn a_broken_rule_is_noticed() {
    use Mutation::{
        FreeEarly, KeepRecords, NoEntrySum, NoFlush, NoPageFence, NoRecordFence, NoWordFlush, YoungerFirst,
    };
    let rules =
        [NoPageFence, NoRecordFence, FreeEarly, KeepRecords, YoungerFirst, NoEntrySum, NoFlush, NoWordFlush];
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let missed: Vec<_> = rules.into_iter().filter(|rule| !is_caught(*rule)).collect();
    std::panic::set_hook(hook);
    assert!(missed.is_empty(), "not noticed: {missed:?}");
}
