//! How many bytes of the medium does a byte of keys and values take, and does that stay so?

#![allow(clippy::unwrap_used, reason = "a test has nobody to report to")]

use daxstore::{Store, StoreOptions};
use daxstore_kv::{Batch, Db, Options};

fn store(bytes: u64) -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let options = StoreOptions::new().assume_persistent(true);
    let store = Store::create(dir.path().join("pool"), bytes, &options).unwrap();
    (dir, store)
}

/// 16 bytes, as the benchmark has them: `user` and twelve digits, in no order.
fn key(n: u64) -> [u8; 16] {
    let mut key = *b"user000000000000";
    let mut rest = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 1_000_000_000_000;
    for digit in key[4..].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    key
}

/// Bytes of the medium for each of keys and values, the first chunk and the one that is kept back left out: at a million records they
/// are a thirtieth, here more.
fn each(db: &Db, what: &str) -> f64 {
    let stats = db.stats().unwrap();
    let logical = db.logical_bytes().unwrap();
    assert_eq!(stats.space.total() - stats.space.spare, stats.media_bytes);
    let own = stats.media_bytes - stats.space.fixed;
    let each = own as f64 / logical as f64;
    println!(
        "{what}: {each:.3} of {logical}, with everything {:.3}",
        stats.media_bytes as f64 / logical as f64
    );
    for (name, bytes) in stats.space.parts() {
        println!("  {name:<18} {:.4}", bytes as f64 / logical as f64);
    }
    each
}

/// Deletes every other key and puts as many new ones, ten times; then deletes most, and compacts.
fn churn(records: u64, value: &[u8], most: f64, after: f64) {
    let (_dir, store) = store(1 << 30);
    let db = Db::open(&store, "/kv", Options::new().create(true)).unwrap();
    let mut live: Vec<u64> = (0..records).collect();
    for thousand in live.chunks(1000) {
        let mut batch = Batch::new();
        thousand.iter().for_each(|n| batch.put(&key(*n), value));
        db.write(&batch).unwrap();
    }
    assert!(each(&db, "loaded") <= most);
    let mut next = records;
    for round in 0..10 {
        for (i, n) in live.iter_mut().enumerate() {
            if (i + round) % 2 == 0 {
                assert!(db.delete(&key(*n)).unwrap());
                *n = u64::MAX;
            }
        }
        for n in live.iter_mut().filter(|n| **n == u64::MAX) {
            *n = next;
            db.put(&key(next), value).unwrap();
            next += 1;
        }
        assert!(each(&db, &format!("churned {round}")) <= most);
    }
    for n in live.iter().skip(1).step_by(2) {
        assert!(db.delete(&key(*n)).unwrap());
    }
    each(&db, "half deleted");
    db.compact().unwrap();
    assert!(each(&db, "compacted") <= after);
    assert!(db.verify().unwrap().faults.is_empty());
}

#[test]
fn records_of_100_bytes() {
    churn(200_000, &[7; 100], 1.65, 2.2);
}

#[test]
fn records_of_1_kib() {
    churn(60_000, &[7; 1024], 1.2, 1.25);
}
