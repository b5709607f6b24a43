//! Do readers meet every key that stays, whatever writers do beside them?
//!
//! The body of the models of `loom-tests`, with many keys and real threads: groups split, empty and are taken out while cursors walk both
//! ways.

use super::memory::Random;
use super::model::{Index, Model, assert_same, fresh};
use crate::ordered::{Change, Sizes};
use std::ops::Bound;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};

const KEYS: u64 = 4000;

fn key(n: u64) -> [u8; 16] {
    let mut key = [7; 16];
    key[..8].copy_from_slice(&n.to_be_bytes());
    key
}

fn number(key: &[u8]) -> u64 {
    u64::from_be_bytes(key[..8].try_into().unwrap())
}

/// Tells of keys that are no multiples of 10, all in one range at a time, and takes them out again. Each writer has its own.
fn write(index: &Index, writer: u64, rounds: u64, sequence: &AtomicU64) {
    let mut random = Random(writer);
    for _ in 0..rounds {
        let from = random.below(KEYS - 400);
        let own = (from..from + 400).filter(|n| n % 10 == writer);
        for change in [Change::Insert, Change::Delete] {
            for (i, n) in own.clone().enumerate() {
                index.apply(change, &key(n), 8 * n, sequence.fetch_add(1, Ordering::Relaxed)).unwrap();
                if i % 16 == 15 {
                    index.write_back(0).unwrap();
                }
            }
            index.write_back(0).unwrap();
        }
    }
}

fn read(index: &Index, upward: bool, walks: u64) {
    for _ in 0..walks {
        let mut cursor = if upward { index.cursor(Bound::Unbounded) } else { index.cursor_at_end() };
        let (mut last, mut stay) = (None, 0);
        while let Some((met, _)) = (if upward { cursor.next() } else { cursor.prev() }).unwrap() {
            let met = number(met);
            let ordered = last.is_none_or(|last| if upward { last < met } else { last > met });
            assert!(ordered, "{met} after {last:?}");
            last = Some(met);
            stay += u64::from(met.is_multiple_of(10));
        }
        assert_eq!(stay, KEYS / 10, "keys that stay");
    }
}

#[test]
fn what_stays_is_met_by_every_walk() {
    let (pages, index) = fresh(4 << 20, Sizes::SMALL);
    for n in (0..KEYS).step_by(10) {
        index.apply(Change::Insert, &key(n), 8 * n, 0).unwrap();
    }
    let (sequence, start) = (AtomicU64::new(1), Barrier::new(5));
    std::thread::scope(|scope| {
        for writer in 1..4 {
            let (index, sequence, start) = (&index, &sequence, &start);
            scope.spawn(move || {
                start.wait();
                write(index, writer, 60, sequence);
            });
        }
        for upward in [true, false] {
            let (index, start) = (&index, &start);
            scope.spawn(move || {
                start.wait();
                read(index, upward, 60);
            });
        }
    });
    let model = Model::from_iter((0..KEYS).step_by(10).map(|n| (key(n).to_vec(), 8 * n)));
    assert_same(&index, &model);
    let findings = index.verify().unwrap();
    assert!(findings.errors.is_empty(), "{:?}", findings.errors);
    assert_eq!(pages.used() - 256, findings.bytes);
}
