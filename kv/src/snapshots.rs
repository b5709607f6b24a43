//! What did a key hold when a snapshot was taken?
//!
//! A snapshot is a sequence number: it sees the changes up to it. While there are snapshots, who supersedes a record notes it here, with
//! the sequence numbers between which it was the newest. All of it is in memory: snapshots end with the process.
//!
//! Invariants:
//! 1. A snapshot is announced before its number is taken, and begins when every change up to that number is over. So a later change sees
//!    the announcement, and notes what it supersedes.
//! 2. Before the number is taken, nothing that a snapshot could need is free any more ([`Snapshots::oldest`] is 0): who takes the number and
//!    has not told of it yet loses nothing to who frees meanwhile.
//! 3. A record is noted before the index names its successor, and until its slot is free.

use crate::epoch::full_fence;
use daxstore::sync::Mutex;
use daxstore::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::collections::HashMap;

/// A record that is not the newest of its key.
#[derive(Clone, Copy, Debug)]
struct Version {
    at: u64,
    sequence: u64,
    until: u64,
}

const SHARDS: usize = if cfg!(loom) { 1 } else { 64 };

/// Versions by the hash of their key.
type Shard = HashMap<u64, Vec<Version>>;

/// The snapshots of a database.
#[derive(Debug)]
pub struct Snapshots {
    announced: AtomicUsize,
    /// The numbers that are taken, ascending, and how often.
    taken: Mutex<Vec<(u64, usize)>>,
    oldest: AtomicU64,
    shards: Box<[Mutex<Shard>]>,
    versions: AtomicUsize,
}

impl Default for Snapshots {
    fn default() -> Self {
        Self {
            announced: AtomicUsize::new(0),
            taken: Mutex::default(),
            oldest: AtomicU64::new(u64::MAX),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            versions: AtomicUsize::new(0),
        }
    }
}

impl Snapshots {
    /// Takes a snapshot: `number` takes its number, `settle` waits until changes up to it are over.
    pub fn take(&self, number: impl FnOnce() -> u64, settle: impl FnOnce(u64)) -> u64 {
        self.announced.fetch_add(1, Ordering::SeqCst);
        full_fence();
        let sequence = {
            let mut taken = self.taken.lock();
            self.oldest.swap(0, Ordering::SeqCst);
            full_fence();
            let sequence = number();
            match taken.binary_search_by_key(&sequence, |(number, _)| *number) {
                Ok(at) => taken[at].1 += 1,
                Err(at) => taken.insert(at, (sequence, 1)),
            }
            self.publish(&taken);
            sequence
        };
        settle(sequence);
        sequence
    }

    /// Ends a snapshot.
    pub fn end(&self, sequence: u64) {
        let mut taken = self.taken.lock();
        if let Ok(at) = taken.binary_search_by_key(&sequence, |(number, _)| *number) {
            taken[at].1 -= 1;
            if taken[at].1 == 0 {
                taken.remove(at);
            }
        }
        self.publish(&taken);
        drop(taken);
        self.announced.fetch_sub(1, Ordering::SeqCst);
    }

    fn publish(&self, taken: &[(u64, usize)]) {
        let oldest = taken.first().map_or(u64::MAX, |(number, _)| *number);
        self.oldest.store(oldest, Ordering::SeqCst);
    }

    /// The oldest; the greatest number: there is none; 0: one is being taken. Asked after the changes that superseded what is to be freed.
    pub fn oldest(&self) -> u64 {
        full_fence();
        self.oldest.load(Ordering::SeqCst)
    }

    /// Whether what is superseded is to be noted. Asked after the change took its sequence number.
    #[inline]
    pub fn are_announced(&self) -> bool {
        full_fence();
        self.announced.load(Ordering::SeqCst) > 0
    }

    fn shard(&self, hash: u64) -> &Mutex<Shard> {
        &self.shards[hash as usize % SHARDS]
    }

    /// Notes that the record at `at` was the newest of its key from `sequence` until before `until`.
    pub fn note(&self, hash: u64, at: u64, sequence: u64, until: u64) {
        let version = Version { at, sequence, until };
        self.shard(hash).lock().entry(hash).or_default().push(version);
        self.versions.fetch_add(1, Ordering::Release);
    }

    /// The records that were the newest of a key with this hash at `sequence`: where they lie, and their own sequence numbers.
    pub fn find(&self, hash: u64, sequence: u64) -> Vec<(u64, u64)> {
        let shard = self.shard(hash).lock();
        let versions = shard.get(&hash).into_iter().flatten();
        versions
            .filter(|v| v.sequence <= sequence && sequence < v.until)
            .map(|v| (v.at, v.sequence))
            .collect()
    }

    /// Whether any record is noted.
    #[inline]
    pub fn have_versions(&self) -> bool {
        self.versions.load(Ordering::Acquire) > 0
    }

    /// Forgets the record at `at`, whose slot is about to be free.
    pub fn forget(&self, hash: u64, at: u64) {
        let mut shard = self.shard(hash).lock();
        let Some(versions) = shard.get_mut(&hash) else { return };
        let before = versions.len();
        versions.retain(|version| version.at != at);
        self.versions.fetch_sub(before - versions.len(), Ordering::Release);
        if versions.is_empty() {
            shard.remove(&hash);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_free_while_a_number_is_taken() {
        let snapshots = Snapshots::default();
        assert_eq!(snapshots.oldest(), u64::MAX);
        let number = || {
            assert_eq!((snapshots.oldest(), snapshots.are_announced()), (0, true));
            7
        };
        assert_eq!(snapshots.take(number, |_| assert_eq!(snapshots.oldest(), 7)), 7);
        assert_eq!(snapshots.take(|| 9, |_| assert_eq!(snapshots.oldest(), 7)), 9);
        snapshots.end(7);
        assert_eq!(snapshots.oldest(), 9);
        snapshots.end(9);
        assert_eq!((snapshots.oldest(), snapshots.are_announced()), (u64::MAX, false));
    }
}
