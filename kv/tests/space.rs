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

/// A sequence of numbers from a seed (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % n
    }

    fn shuffle(&mut self, all: &mut [u64]) {
        for i in (1..all.len()).rev() {
            all.swap(i, self.below(i as u64 + 1) as usize);
        }
    }
}

/// A database, and the keys that it has.
struct Held {
    _dir: tempfile::TempDir,
    store: Store,
    db: Db,
    live: Vec<u64>,
    next: u64,
    value: Vec<u8>,
    random: Random,
}

impl Held {
    /// With so many records, loaded in no order.
    fn loaded(records: u64, value: usize) -> Self {
        let (dir, store) = store((records * (value as u64 + 64) * 2).max(1 << 28));
        let db = Db::open(&store, "/kv", Options::new().create(true).seed(7)).unwrap();
        let live: Vec<u64> = (0..records).collect();
        let value = vec![7; value];
        for thousand in live.chunks(1000) {
            let mut batch = Batch::new();
            thousand.iter().for_each(|n| batch.put(&key(*n), &value));
            db.write(&batch).unwrap();
        }
        Self { _dir: dir, store, db, live, next: records, value, random: Random(records) }
    }

    /// Deletes so many of the keys, in no order.
    fn delete(&mut self, count: usize) {
        self.random.shuffle(&mut self.live);
        for n in self.live.drain(self.live.len() - count..) {
            assert!(self.db.delete(&key(n)).unwrap());
        }
    }

    /// Puts so many new keys.
    fn put(&mut self, count: usize) {
        for _ in 0..count {
            self.db.put(&key(self.next), &self.value).unwrap();
            self.live.push(self.next);
            self.next += 1;
        }
    }

    /// Puts new values of so many keys, at random.
    fn overwrite(&mut self, count: usize) {
        for _ in 0..count {
            let n = self.live[self.random.below(self.live.len() as u64) as usize];
            self.db.put(&key(n), &self.value).unwrap();
        }
    }

    /// Bytes of the medium for each of keys and values.
    fn all(&self) -> f64 {
        self.db.stats().unwrap().media_bytes as f64 / self.logical() as f64
    }

    /// The same with all that the file has: growth ahead of need, and the chunk that is kept back.
    fn file(&self) -> f64 {
        let blocks = self.store.metadata("/kv").unwrap().blocks;
        (blocks * daxstore::units::BLOCK_BYTES) as f64 / self.logical() as f64
    }

    fn logical(&self) -> u64 {
        (self.live.len() * (16 + self.value.len())) as u64
    }

    /// Bytes of the medium for each of keys and values, less the first chunk and those that wait to be used: these are the same
    /// however many records there are, or a fixed part of it.
    fn own(&self, what: &str) -> f64 {
        let stats = self.db.stats().unwrap();
        let logical = self.db.logical_bytes().unwrap();
        assert_eq!(logical, self.logical());
        assert_eq!(stats.space.total() - stats.space.spare, stats.media_bytes);
        let each = |bytes: u64| bytes as f64 / logical as f64;
        let own = each(stats.media_bytes - stats.space.fixed);
        println!("{what}: {own:.3}, with the first chunk {:.3}, the file {:.3}", self.all(), self.file());
        let parts = stats.space.parts().into_iter().filter(|(_, bytes)| *bytes > 0);
        let parts: Vec<_> = parts.map(|(name, bytes)| format!("{name} {:.4}", each(bytes))).collect();
        println!("  {}", parts.join(", "));
        own
    }
}

/// How many bytes a byte of keys and values may take.
struct Most {
    /// Loaded, and while keys come and go.
    own: f64,
    /// The same with the first chunk.
    all: f64,
    /// The same with the chunk that is kept back, and what the file was given ahead of need.
    file: f64,
    /// Half of the keys deleted, and compacted.
    after: f64,
}

/// Deletes half of the keys and puts as many new ones, ten times; then overwrites; then deletes half, and compacts.
fn churn(records: u64, value: usize, most: &Most) {
    let mut held = Held::loaded(records, value);
    let half = records as usize / 2;
    let check = |held: &Held, what: &str| {
        let own = held.own(what);
        assert!(own <= most.own, "{what}: {own}");
        assert!(held.all() <= most.all, "{what}: {}", held.all());
        assert!(held.file() <= most.file, "{what}: {}", held.file());
    };
    check(&held, "loaded");
    for round in 0..10 {
        held.delete(half);
        held.put(half);
        check(&held, &format!("churned {round}"));
    }
    held.overwrite(half);
    check(&held, "overwritten");
    held.delete(half);
    held.own("half deleted");
    held.db.compact().unwrap();
    let own = held.own("compacted");
    assert!(own <= most.after, "{own}");
    held.put(half);
    check(&held, "half put again");
    assert!(held.db.verify().unwrap().faults.is_empty());
}

/// A chunk is a twentieth of all of this: what differs by one is not looked at.
#[test]
fn records_of_100_bytes() {
    churn(200_000, 100, &Most { own: 1.64, all: 1.73, file: 1.82, after: 1.64 });
}

#[test]
#[ignore = "a million records take long: cargo test -p daxstore-kv --release --test space -- --ignored"]
fn a_million_records_of_100_bytes() {
    churn(1_000_000, 100, &Most { own: 1.47, all: 1.5, file: 1.51, after: 1.49 });
}

#[test]
fn records_of_1_kib() {
    churn(60_000, 1024, &Most { own: 1.12, all: 1.15, file: 1.18, after: 1.15 });
}

/// Most of the keys go: what is left takes as much for each byte as it would alone.
#[test]
fn few_of_many_records_take_no_more_than_few() {
    let mut held = Held::loaded(200_000, 100);
    held.delete(180_000);
    held.db.compact().unwrap();
    let own = held.own("a tenth, compacted");
    let few = Held::loaded(20_000, 100).own("as many alone");
    // Each of the two may have begun one chunk more than the other.
    assert!(own <= few + 2.0 * f64::from(2 << 20) / held.logical() as f64, "{own} and {few}");
    held.put(20_000);
    assert!(held.db.verify().unwrap().faults.is_empty());
}
