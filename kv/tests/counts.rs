//! How many fences does a change cost?

#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, reason = "a test has nobody to report to")]

use daxstore::pmem::sim::Sim;
use daxstore_kv::{Batch, Db, Options};
use std::sync::Arc;

fn key(n: u64) -> [u8; 16] {
    let mut key = [b'k'; 16];
    key[8..].copy_from_slice(&n.to_be_bytes());
    key
}

/// Exactly one, writing back and reuse of slots included, once there are enough slots.
#[test]
fn overwrites_updates_and_batches_cost_one_fence() {
    let sim = Arc::new(Sim::new(32 << 20).unwrap());
    let db = Db::open_sim(sim, &Options::new().create(true).seed(3)).unwrap();
    for round in 0..4 {
        for n in 0..1000 {
            db.put(&key(n), &[round; 100]).unwrap();
        }
    }
    let before = db.counts();
    for n in 0..1000 {
        db.put(&key(n), &[9; 100]).unwrap();
    }
    let counts = db.counts();
    assert_eq!(counts.fences - before.fences, 1000);
    // At most the lines of the record at its ragged ends, of the note, and of the entry.
    assert!(counts.lines - before.lines <= 1100, "{}", counts.lines - before.lines);
    // The record of 136 bytes, the note of 16, and now and then the tail.
    assert!(counts.through - before.through <= 153 * 1000, "{}", counts.through - before.through);
    for n in 0..1000 {
        db.update(&key(n), |_| Some(vec![8; 100])).unwrap();
    }
    assert_eq!(db.counts().fences - counts.fences, 1000);
    let mut batch = Batch::new();
    (0..100).for_each(|n| batch.put(&key(n), &[7; 100]));
    (0..10).for_each(|_| db.write(&batch).unwrap());
    let before = db.counts().fences;
    (0..50).for_each(|_| db.write(&batch).unwrap());
    assert_eq!(db.counts().fences - before, 50);
}

/// A new key costs one fence too; its group costs some more, and so does a new slab or segment.
#[test]
fn inserts_and_deletes_cost_little_more_than_one_fence() {
    let sim = Arc::new(Sim::new(32 << 20).unwrap());
    let db = Db::open_sim(sim, &Options::new().create(true).seed(3)).unwrap();
    for n in 0..3000 {
        db.put(&key(n), &[1; 100]).unwrap();
    }
    let before = db.counts().fences;
    for n in 3000..6000 {
        db.put(&key(n), &[1; 100]).unwrap();
    }
    let inserts = db.counts().fences - before;
    assert!((3000..=3300).contains(&inserts), "{inserts}");
    let before = db.counts().fences;
    for n in 0..3000 {
        assert!(db.delete(&key(n)).unwrap());
    }
    let deletes = db.counts().fences - before;
    assert!((3000..=3200).contains(&deletes), "{deletes}");
}
