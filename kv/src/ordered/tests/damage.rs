//! Is damage found, named, and kept to itself?

#![allow(clippy::unwrap_used, reason = "a test has nobody to report to")]

use super::memory::Random;
use super::model::{Model, TREE, assert_same, fresh, tell};
use crate::error::Error;
use crate::media::Media;
use crate::ordered::{Change, Ordered, Page, Sizes};
use std::collections::BTreeMap;
use std::ops::Bound;

/// Keys that a whole walk finds, and how many errors it tells of.
fn walk(index: &super::model::Index) -> (BTreeMap<Vec<u8>, u64>, Vec<Error>) {
    let (mut found, mut errors) = (BTreeMap::new(), Vec::new());
    let mut cursor = index.cursor(Bound::Unbounded);
    let mut last = Vec::new();
    loop {
        match cursor.next() {
            Ok(Some((key, hint))) => {
                assert!(found.is_empty() || *key > *last, "out of order");
                last = key.to_vec();
                found.insert(key.to_vec(), hint);
            }
            Ok(None) => return (found, errors),
            Err(error) => errors.push(error),
        }
        assert!(errors.len() < 10_000, "the walk does not end");
    }
}

#[test]
fn no_flipped_bit_goes_unnoticed_or_takes_the_rest_down() {
    let mut noticed = 0;
    for seed in 0..150 {
        let mut random = Random(seed);
        let (pages, index) = fresh(1 << 20, Sizes::SMALL);
        let mut model = Model::new();
        for n in 0..1500 {
            tell(&index, &mut model, &random.next().to_be_bytes(), Some(8 * n), n);
        }
        index.write_back(0).unwrap();
        let mut all: Vec<Page> = Vec::new();
        index.pages(|page| all.push(page)).unwrap();
        drop(index);
        let page = all[random.below(all.len() as u64) as usize];
        let at = page.at + random.below(page.bytes / 8) * 8;
        pages.memory.damage(at, random.below(64) as u32);
        let Ok(index) = Ordered::open(&pages, TREE, 256) else {
            noticed += 1;
            continue;
        };
        index.told_again();
        let (found, errors) = walk(&index);
        let wrong = found.iter().filter(|(key, hint)| model.get(*key) != Some(hint)).count();
        assert_eq!(wrong, 0, "seed {seed}: a key that never was");
        let findings = index.verify().unwrap();
        if found.len() < model.len() {
            noticed += 1;
            assert!(!errors.is_empty(), "seed {seed}: keys are missing and nobody says so");
            assert!(!findings.errors.is_empty(), "seed {seed}");
        }
        // The rest is served, also for writing.
        for n in 0..800 {
            index.apply(Change::Insert, &random.next().to_be_bytes(), 8 * n, 2000 + n).unwrap();
        }
        index.write_back(0).unwrap();
        let (more, after) = walk(&index);
        assert!(more.len() >= found.len() + 800, "seed {seed}: {} {}", found.len(), more.len());
        assert!(errors.is_empty() || !after.is_empty(), "seed {seed}: the loss is forgotten");
        let records = model.iter().map(|(key, hint)| Ok((key.clone(), *hint)));
        let root = Ordered::rebuild(&pages, TREE, records).unwrap();
        assert_same(&Ordered::open(&pages, TREE, root).unwrap(), &model);
    }
    assert!(noticed > 20, "{noticed}");
}

/// What a group says of its low bound is a copy: where that is damaged, or was never written, its first leaf is asked.
#[test]
fn a_low_bound_that_is_damaged_is_looked_for_elsewhere() {
    for word in [40, 48, 56] {
        let (pages, index) = fresh(1 << 20, Sizes::SMALL);
        let mut model = Model::new();
        for n in 0..1500_u64 {
            tell(&index, &mut model, &(n * 7919 % 1500).to_be_bytes(), Some(8 * n), n);
        }
        index.write_back(0).unwrap();
        let mut groups = Vec::new();
        index.pages(|page| groups.push(page)).unwrap();
        groups.retain(|page| pages.memory.load(page.at + 8) & 0xffff_ffff == 0x7075_6f72);
        assert!(groups.len() > 3, "{groups:?}");
        drop(index);
        let is_there = |page: &&Page| pages.memory.load(page.at + word) != 0;
        let damaged: Vec<_> = groups.iter().filter(is_there).collect();
        assert!(word > 40 || damaged.len() == groups.len(), "{damaged:?}");
        damaged.iter().for_each(|page| pages.memory.damage(page.at + word, 3));
        assert_same(&Ordered::open(&pages, TREE, 256).unwrap(), &model);
    }
}
