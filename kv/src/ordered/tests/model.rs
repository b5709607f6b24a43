//! Does the index say what a sorted map says?

#![allow(clippy::unwrap_used, reason = "a test has nobody to report to")]

use super::memory::{Memory, Pages, Random};
use crate::env::TreeId;
use crate::ordered::{Change, Cursor, Ordered, Sizes};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

pub type Model = BTreeMap<Vec<u8>, u64>;
pub type Index = Ordered<Pages>;

pub const TREE: TreeId = TreeId(7);

/// An empty index over `bytes` bytes of memory.
pub fn fresh(bytes: u64, sizes: Sizes) -> (Arc<Pages>, Index) {
    let pages = Arc::new(Pages::new(Memory::new(bytes)));
    let root = Ordered::create_sized(&pages, TREE, sizes).unwrap();
    let index = Ordered::open(&pages, TREE, root).unwrap();
    (pages, index)
}

/// What a change does to the model and, told, to the index.
pub fn tell(index: &Index, model: &mut Model, key: &[u8], record: Option<u64>, sequence: u64) {
    change(index, key, record, sequence);
    match record {
        Some(record) => model.insert(key.to_vec(), record),
        None => model.remove(key),
    };
}

pub fn change(index: &Index, key: &[u8], record: Option<u64>, sequence: u64) {
    let kind = if record.is_some() { Change::Insert } else { Change::Delete };
    index.apply(kind, key, record.unwrap_or(0), sequence).unwrap_or_else(|e| panic!("{e}"));
}

pub fn forward(cursor: &mut Cursor<'_, Pages>, limit: usize) -> Vec<(Vec<u8>, u64)> {
    let mut found = Vec::new();
    while found.len() < limit
        && let Some((key, hint)) = cursor.next().unwrap()
    {
        found.push((key.to_vec(), hint));
    }
    found
}

pub fn backward(cursor: &mut Cursor<'_, Pages>, limit: usize) -> Vec<(Vec<u8>, u64)> {
    let mut found = Vec::new();
    while found.len() < limit
        && let Some((key, hint)) = cursor.prev().unwrap()
    {
        found.push((key.to_vec(), hint));
    }
    found
}

/// Both directions, whole.
pub fn assert_same(index: &Index, model: &Model) {
    let mut expected: Vec<_> = model.iter().map(|(key, hint)| (key.clone(), *hint)).collect();
    assert_eq!(forward(&mut index.cursor(Bound::Unbounded), usize::MAX), expected);
    expected.reverse();
    assert_eq!(backward(&mut index.cursor_at_end(), usize::MAX), expected);
}

/// A key of one of several families: short and dense, with a long start in common, long, numbers.
pub fn key(random: &mut Random, span: u64) -> Vec<u8> {
    let n = random.below(span);
    match n % 7 {
        0 => n.to_be_bytes()[4..].to_vec(),
        1 => [b"user0000/".as_slice(), n.to_string().as_bytes()].concat(),
        2 => vec![b'a'; 1 + (n % 40) as usize],
        3 => [vec![(n % 5) as u8; 100], n.to_le_bytes().to_vec()].concat(),
        4 if n.is_multiple_of(31) => [vec![b'l'; 300], n.to_be_bytes().to_vec()].concat(),
        _ => (n ^ 0x55).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes().to_vec(),
    }
}

/// Changes to an index beside a model, in groups; reopened now and then.
fn churn(seed: u64, sizes: Sizes, groups: u64, span: u64, deletes: u64) {
    let (pages, mut index) = fresh(4 << 20, sizes);
    let root = 256;
    let mut model = Model::new();
    let mut random = Random(seed);
    for group in 0..groups {
        for i in 0..1 + random.below(90) {
            let key = key(&mut random, span);
            let phase = if group % 40 < 20 { deletes } else { 10 - deletes };
            let record = (random.below(10) >= phase).then(|| 8 * random.below(1 << 30));
            tell(&index, &mut model, &key, record, group * 100 + i);
        }
        match random.below(8) {
            0 => assert_same(&index, &model),
            1..5 => index.write_back(0).unwrap(),
            5 => {
                index.write_back(0).unwrap();
                drop(index);
                index = Ordered::open(&pages, TREE, root).unwrap();
                let mut kept = Vec::new();
                index.pages(|page| kept.push(page)).unwrap();
                pages.only(&kept);
            }
            _ => {}
        }
    }
    assert_same(&index, &model);
    let findings = index.verify().unwrap();
    assert!(findings.errors.is_empty(), "{:?}", findings.errors);
    assert_eq!(findings.keys, model.len() as u64);
    assert_eq!(pages.used() - 256, findings.bytes);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn says_what_a_sorted_map_says(seed: u64, small: bool, span in 20u64..4000, deletes in 1u64..9) {
        churn(seed, if small { Sizes::SMALL } else { Sizes::DEFAULT }, 120, span, deletes);
    }

    #[test]
    fn cursors_start_anywhere_and_turn(seed: u64, starts in prop::collection::vec((any::<u64>(), 0u8..3, 0u8..30, 0u8..30), 1..40)) {
        let (_pages, index) = fresh(1 << 20, Sizes::SMALL);
        let mut model = Model::new();
        let mut random = Random(seed);
        for i in 0..600 {
            tell(&index, &mut model, &key(&mut random, 900), Some(8 * i), i);
        }
        for (n, bound, ahead, back) in starts {
            let key = key(&mut Random(n), 900);
            let from = match bound {
                0 => Bound::Included(&key[..]),
                1 => Bound::Excluded(&key[..]),
                _ => Bound::Unbounded,
            };
            let mut cursor = index.cursor(from);
            let pairs: Vec<_> = model.iter().map(|(key, hint)| (key.clone(), *hint)).collect();
            let at = pairs.iter().take_while(|(k, _)| match bound { 0 => *k < key, 1 => *k <= key, _ => false }).count();
            let to = pairs.len().min(at + usize::from(ahead));
            prop_assert_eq!(forward(&mut cursor, ahead.into()), &pairs[at..to]);
            let mut behind = pairs[to.saturating_sub(back.into())..to].to_vec();
            behind.reverse();
            prop_assert_eq!(backward(&mut cursor, back.into()), behind);
        }
    }
}

#[test]
fn sequential_keys_fill_their_leaves() {
    let (pages, index) = fresh(4 << 20, Sizes::DEFAULT);
    let count = 60_000_u64;
    for n in 0..count {
        index.apply(Change::Insert, format!("user{n:012}").as_bytes(), 8 * n, n).unwrap();
        if n % 64 == 63 {
            index.write_back(0).unwrap();
        }
    }
    let findings = index.verify().unwrap();
    assert_eq!((findings.keys, findings.errors.len()), (count, 0));
    assert!(findings.bytes < 11 * count, "{} bytes a key", findings.bytes as f64 / count as f64);
    assert_eq!(pages.used() - 256, findings.bytes);
}

/// Bytes and fences a key of an index into which `count` keys that `key` makes were put, 64 a write-back.
fn cost(count: u64, mut key: impl FnMut() -> Vec<u8>) -> (f64, f64) {
    let (pages, index) = fresh(8 << 20, Sizes::DEFAULT);
    let before = pages.memory.counts();
    for n in 0..count {
        index.apply(Change::Insert, &key(), 8 * n, n).unwrap();
        // As sessions do it with the last changes of a group.
        if n % 64 >= 62 {
            index.settle_many(true).unwrap();
        }
        if n % 64 == 63 {
            index.write_back(0).unwrap();
        }
    }
    let after = pages.memory.counts();
    let findings = index.verify().unwrap();
    assert_eq!((findings.keys, findings.errors.len()), (count, 0));
    // What the writer keeps for its next leaves is the same however many keys there are.
    let kept = index.writer.lock().kept().map(|page| page.bytes).sum::<u64>();
    let each = |sum: u64| sum as f64 / count as f64;
    (each(findings.bytes - kept), each(after.0 - before.0))
}

#[test]
fn random_keys_take_at_most_22_bytes_and_few_fences() {
    let mut random = Random(1);
    // As dense as a million keys of twelve digits are.
    let (bytes, fences) = cost(60_000, || format!("user{:012}", random.below(60_000_000_000)).into_bytes());
    assert!(bytes < 22.0, "{bytes} bytes a key");
    assert!(fences < 3.75 / 64.0, "{fences} fences a key");
}

#[test]
fn keys_of_random_bytes_take_at_most_30_bytes() {
    let mut random = Random(2);
    let (bytes, _) = cost(60_000, || [random.next().to_be_bytes(), random.next().to_be_bytes()].concat());
    assert!(bytes < 30.0, "{bytes} bytes a key");
}

#[test]
fn deleted_keys_give_their_space_back() {
    let (pages, index) = fresh(4 << 20, Sizes::DEFAULT);
    let empty = pages.used();
    for n in 0..30_000_u64 {
        index.apply(Change::Insert, &(n * 7919 % 30_011).to_be_bytes(), 8 * n, n).unwrap();
    }
    index.write_back(0).unwrap();
    let full = pages.used();
    for n in 0..30_000_u64 {
        index.apply(Change::Delete, &(n * 7919 % 30_011).to_be_bytes(), 0, 30_000 + n).unwrap();
        if n % 64 == 0 {
            index.write_back(0).unwrap();
        }
    }
    index.write_back(0).unwrap();
    assert!(index.cursor(Bound::Unbounded).next().unwrap().is_none());
    let findings = index.verify().unwrap();
    assert!(findings.errors.is_empty(), "{:?}", findings.errors);
    // The writer keeps up to 64 free pages of 2 KiB, and as many again between two records.
    assert!(pages.used() < empty + 300_000, "{empty} {full} {}", pages.used());
}

#[test]
fn a_full_pool_changes_nothing_and_loses_nothing() {
    let (pages, index) = fresh(1 << 20, Sizes::SMALL);
    let mut model = Model::new();
    let mut random = Random(3);
    let mut sequence = 0;
    for _ in 0..60 {
        *pages.allowance.lock().unwrap() = random.below(6);
        let mut full = false;
        for _ in 0..60 {
            sequence += 1;
            let key = key(&mut random, 2000);
            // Failing to take changes into leaves does not fail the telling: it waits.
            let _full = index.apply(Change::Insert, &key, 8 * sequence, sequence);
            model.insert(key, 8 * sequence);
        }
        full |= index.write_back(0).is_err();
        *pages.allowance.lock().unwrap() = u64::MAX;
        if full {
            index.write_back(0).unwrap();
        }
        assert_same(&index, &model);
    }
    assert!(index.verify().unwrap().errors.is_empty());
}
