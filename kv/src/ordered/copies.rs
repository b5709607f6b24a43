//! Which leaves have their records in memory, side by side in the order of their keys?
//!
//! Who scans a leaf for the second time copies its records out, checks them, and leaves the copy with the leaf. From then on a scan reads the copy,
//! and of all else only how often records with the same lock (`stripes.rs`) were superseded. Copies are in memory only: nothing durable
//! depends on them.
//!
//! Invariants:
//! 1. A copy has an entry for each key of its leaf, in order. Who changes the leaf takes the copy out of use under the group's lock, and one
//!    that was made of an earlier state of the leaf is not taken in.
//! 2. What a copy has of a record was right, and the newest of its key, after the count of its lock was taken that stands beside it: who supersedes a
//!    record counts when the record is marked and the hash index names its successor. Where the count is another now, a record of which the
//!    index was told (K15) is the newest as long as its header on the medium is what it was; another one, as long as the hash index names it
//!    besides. Else the key is looked up.
//! 3. Copies have no more than their bytes together, but for those that are being made or looked at.

use super::group::Leaf;
use super::keys::{common, head};
use super::{Ordered, Space};
use crate::mutation::{self, Mutation};
use crate::prefetch::{line_of, lines_of};
use crate::record::Head;
use crate::stripes::Stripes;
use daxstore::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use daxstore::sync::{Arc, Mutex};
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::ops::Range;

/// Bytes that a copy has at most: leaves with more are read from where their records lie.
pub const LARGEST: usize = 256 << 10;
/// Where there is no room, one of so many copies that could be made is made, in place of others.
const ONE_OF: u32 = 8;

/// How a record of a copy is known to be the newest of its key, where records with its lock were superseded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// By its header.
    Told,
    /// By its header, and because the hash index names it.
    Named,
    /// Not at all: of the record there is the key alone.
    Unknown,
}

/// What a record was when it was copied.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    /// Where it lies on the medium.
    pub at: u64,
    /// Its header.
    pub head: Head,
    /// How it is known.
    pub source: Source,
}

impl Origin {
    /// Whether there is a record, not only its key.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.source != Source::Unknown
    }
}

/// How long a record is, and how often records with its lock were superseded when it was looked at.
#[derive(Debug)]
struct Entry {
    value: u32,
    key: u16,
    stripe: u16,
    count: AtomicU64,
}

/// How many bytes ahead records are asked for.
const AHEAD: usize = 1536;
/// A leaf of short keys has not many more.
const USUAL: usize = 96;
/// The count of an entry that is looked at each time.
const NEVER: u64 = u64::MAX;

/// The records of a leaf. What a search needs lies in it, in lines that can be asked for as soon as it is known where it is.
#[derive(Debug)]
#[repr(C)]
pub struct LeafCopy {
    /// No record has a greater sequence number.
    newest: u64,
    /// How many entries were found to be out of date.
    misses: AtomicU32,
    /// The bytes of every key, if they are as many and all that differs is in the heads.
    even: Option<u32>,
    /// Keys with their values.
    bytes: Box<[u8]>,
    entries: Box<[Entry]>,
    /// What all keys begin with.
    shared: SmallVec<[u8; 16]>,
    /// Of each key what comes then, as [`head`].
    heads: SmallVec<[u64; USUAL]>,
    /// Where each record begins among the bytes, and where the last ends.
    starts: SmallVec<[u32; USUAL]>,
    origins: Box<[Origin]>,
    counted: Arc<AtomicU64>,
}

impl Drop for LeafCopy {
    fn drop(&mut self) {
        self.counted.fetch_sub(self.size(), Ordering::Relaxed);
    }
}

impl LeafCopy {
    fn size(&self) -> u64 {
        let each = size_of::<u64>() + size_of::<Entry>() + size_of::<Origin>();
        (size_of::<Self>() + self.entries.len() * each + self.bytes.len()) as u64
    }

    /// How many keys there are.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Where they are.
    #[must_use]
    pub fn places(&self) -> Range<usize> {
        0..self.len()
    }

    /// Key and value of the `n`-th record; both are empty where there is none.
    #[inline]
    #[must_use]
    pub fn record(&self, n: usize) -> (&[u8], &[u8]) {
        let (Some(entry), Some(start)) = (self.entries.get(n), self.starts.get(n)) else {
            return Default::default();
        };
        let (start, key, value) = (*start as usize, usize::from(entry.key), entry.value as usize);
        self.bytes
            .get(start..start + key + value)
            .unwrap_or_default()
            .split_at_checked(key)
            .unwrap_or_default()
    }

    /// As [`Self::record`], for who goes on to the records above: asks for what comes later.
    #[inline]
    #[must_use]
    pub fn lend(&self, n: usize) -> (&[u8], &[u8]) {
        let (key, value) = self.record(n);
        let later = self.starts.get(n).map_or(0, |start| *start as usize) + AHEAD;
        lines_of(self.bytes.get(later..later + key.len() + value.len()).unwrap_or_default());
        (key, value)
    }

    /// Asks for what a search needs.
    #[inline]
    fn ask_to_search(&self) {
        line_of(self);
        self.heads.iter().step_by(8).for_each(line_of);
        self.starts.iter().step_by(16).for_each(line_of);
    }

    /// Asks for the records from the `n`-th on.
    #[inline]
    pub fn ask(&self, n: usize) {
        let Some(start) = self.starts.get(n).map(|start| *start as usize) else { return };
        lines_of(self.bytes.get(start..(start + AHEAD).min(self.bytes.len())).unwrap_or_default());
        self.entries[n..].iter().take(AHEAD / 32).step_by(4).for_each(line_of);
    }

    /// The key of the `n`-th record.
    #[inline]
    #[must_use]
    pub fn key(&self, n: usize) -> &[u8] {
        self.record(n).0
    }

    /// What the `n`-th record was, if it was known.
    #[inline]
    #[must_use]
    pub fn origin(&self, n: usize) -> Option<&Origin> {
        self.origins.get(n)
    }

    /// How many of the records in `places` no record with the same lock was superseded of since they were looked at: up to the first.
    #[inline]
    #[must_use]
    pub fn unchanged(&self, places: Range<usize>, stripes: &Stripes) -> usize {
        let is_same = |entry: &Entry| {
            stripes.superseded(usize::from(entry.stripe)) == entry.count.load(Ordering::Relaxed)
        };
        self.entries.get(places).unwrap_or_default().iter().take_while(|entry| is_same(entry)).count()
    }

    /// Notes that the `n`-th record is the newest of its key, as was seen after its lock had this count.
    pub fn is_newest(&self, n: usize, count: u64) {
        if let Some(entry) = self.entries.get(n) {
            entry.count.store(count, Ordering::Relaxed);
        }
    }

    /// The count of the lock of the `n`-th record.
    #[must_use]
    pub fn count_of(&self, n: usize, stripes: &Stripes) -> u64 {
        self.entries.get(n).map_or(0, |entry| stripes.superseded(usize::from(entry.stripe)))
    }

    /// How many keys are below `key`.
    #[must_use]
    pub fn below(&self, key: &[u8]) -> usize {
        if key.is_empty() {
            return 0;
        }
        let shared = self.shared.len();
        match key.get(..shared).unwrap_or(key).cmp(&self.shared) {
            std::cmp::Ordering::Less => 0,
            std::cmp::Ordering::Greater => self.entries.len(),
            std::cmp::Ordering::Equal => {
                // All of them, not one after the other: they are waited for together.
                let wanted = head(key, shared);
                let first = self.heads.iter().map(|head| usize::from(*head < wanted)).sum::<usize>();
                if self.even == Some(key.len() as u32) {
                    return first;
                }
                let same = self.heads[first..].iter().take_while(|head| **head == wanted).count();
                first + (first..first + same).take_while(|n| self.key(*n) < key).count()
            }
        }
    }

    /// No record has a greater sequence number.
    #[must_use]
    pub fn newest(&self) -> u64 {
        self.newest
    }

    /// Notes that so many entries were out of date.
    pub fn missed(&self, count: usize) {
        self.misses.fetch_add(count as u32, Ordering::Relaxed);
    }

    fn is_worn(&self) -> bool {
        self.misses.load(Ordering::Relaxed) as usize * 4 > self.entries.len()
    }
}

/// What becomes a copy.
#[derive(Debug, Default)]
pub struct Draft {
    starts: SmallVec<[u32; USUAL]>,
    entries: Vec<Entry>,
    origins: Vec<Origin>,
    bytes: Vec<u8>,
}

impl Draft {
    /// With room for so many records, of about so many bytes, or of as many as `old` has.
    #[must_use]
    pub fn with(records: usize, old: Option<&LeafCopy>, bytes: usize) -> Self {
        let bytes = old.map_or(bytes, |old| old.bytes.len() + bytes / records.max(1)).min(LARGEST);
        Self {
            starts: SmallVec::with_capacity(records),
            entries: Vec::with_capacity(records),
            origins: Vec::with_capacity(records),
            bytes: Vec::with_capacity(bytes),
        }
    }

    /// Adds the `n`-th record of `old` as it is there: whether there is room for more.
    pub fn add_old(&mut self, old: &LeafCopy, n: usize) -> bool {
        let (Some(origin), Some(entry)) = (old.origins.get(n), old.entries.get(n)) else { return true };
        let count = entry.count.load(Ordering::Relaxed);
        self.add(*origin, (usize::from(entry.stripe), count), old.record(n))
    }

    /// Adds the next record: whether there is room for more. `count`: of its lock, before it was looked at.
    pub fn add(
        &mut self,
        origin: Origin,
        (stripe, count): (usize, u64),
        (key, value): (&[u8], &[u8]),
    ) -> bool {
        let count = AtomicU64::new(if origin.is_known() { count } else { NEVER });
        self.starts.push(self.bytes.len() as u32);
        let (key_len, value_len) = (key.len() as u16, value.len() as u32);
        self.entries.push(Entry { value: value_len, key: key_len, stripe: stripe as u16, count });
        self.origins.push(origin);
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value);
        self.bytes.len() <= LARGEST
    }

    fn finish(self, counted: &Arc<AtomicU64>) -> Arc<LeafCopy> {
        let known = self.origins.iter().filter(|origin| origin.is_known());
        let newest = known.map(|origin| origin.head.sequence()).max().unwrap_or(0);
        let key = |(entry, start): (&Entry, &u32)| &self.bytes[*start as usize..][..usize::from(entry.key)];
        let mut keys = self.entries.iter().zip(&self.starts).map(key);
        let first = keys.next().unwrap_or_default();
        let last = keys.next_back().unwrap_or(first);
        let shared: SmallVec<_> = first[..common(first, last)].into();
        let is_even = |len: &usize| self.entries.iter().all(|entry| usize::from(entry.key) == *len);
        let even = Some(first.len()).filter(|len| *len <= shared.len() + 8).filter(is_even);
        let heads =
            self.entries.iter().zip(&self.starts).map(|entry| head(key(entry), shared.len())).collect();
        let copy = LeafCopy {
            newest,
            misses: AtomicU32::new(0),
            even: even.map(|len| len as u32),
            bytes: self.bytes.into(),
            entries: self.entries.into(),
            shared,
            heads,
            starts: self.starts,
            origins: self.origins.into(),
            counted: counted.clone(),
        };
        counted.fetch_add(copy.size(), Ordering::Relaxed);
        Arc::new(copy)
    }
}

/// What a leaf has of its copy. Everything but the flags changes while the leaf's group is held exclusively.
#[derive(Debug, Default)]
pub(super) struct OfLeaf {
    has: Option<Arc<LeafCopy>>,
    /// One that was made of an earlier state of the leaf.
    old: Option<Arc<LeafCopy>>,
    /// The number of who makes one, and of the leaf as it is: another one where that changed, or where another leaf came into its page. Zero: nobody.
    making: AtomicU64,
    /// Under which number the clock knows it; 0: not at all.
    ticket: u64,
    /// It would have too many bytes.
    is_too_large: bool,
    /// A scan came by.
    is_met: AtomicBool,
    /// Somebody read the copy since the hand of the clock came by.
    is_used: AtomicBool,
}

/// A copy that is to be made, of the leaf as it is now.
#[derive(Debug)]
pub struct Wanted {
    number: u64,
    /// What was copied before.
    pub old: Option<Arc<LeafCopy>>,
}

/// What a leaf says to who asks for its copy.
pub(super) enum Answer {
    /// Read the records where they lie.
    No,
    /// Make one.
    Make(Wanted),
    Read(Arc<LeafCopy>),
}

impl OfLeaf {
    /// Asks for the copy, for a snapshot that shows changes up to `seen`.
    #[inline]
    pub(super) fn ask(&self, seen: u64, clock: &Clock) -> Answer {
        let old = match &self.has {
            Some(copy) => {
                copy.ask_to_search();
                if copy.newest > seen {
                    return Answer::No;
                }
                set(&self.is_used);
                if !copy.is_worn() {
                    return Answer::Read(copy.clone());
                }
                Some(copy)
            }
            None if self.is_too_large => return Answer::No,
            None => self.old.as_ref(),
        };
        if old.is_none() && !set(&self.is_met) {
            return Answer::No;
        }
        let number = clock.numbers.fetch_add(1, Ordering::Relaxed) + 1;
        self.making.store(number, Ordering::Relaxed);
        Answer::Make(Wanted { number, old: old.cloned() })
    }

    /// Asks for the line that the copy begins in.
    #[inline]
    pub(super) fn prefetch(&self) {
        if let Some(copy) = &self.has {
            line_of(&**copy);
        }
    }

    /// The leaf is changed.
    #[inline]
    pub(super) fn change(&mut self) {
        self.making.store(0, Ordering::Relaxed);
        if let Some(copy) = self.has.take_if(|_| !mutation::is(Mutation::KeepCopy)) {
            self.old = Some(copy);
        }
    }

    /// Takes the copy in that was `wanted`, or notes that it would be too large, if the leaf is still what it was: whether the clock has to be told.
    fn take_in(&mut self, wanted: &Wanted, copy: Option<&Arc<LeafCopy>>) -> bool {
        if self.making.load(Ordering::Relaxed) != wanted.number && !mutation::is(Mutation::StaleCopy) {
            return false;
        }
        self.making.store(0, Ordering::Relaxed);
        self.old = None;
        self.has = copy.cloned();
        self.is_too_large = copy.is_none();
        self.is_used.store(true, Ordering::Relaxed);
        let is_new = self.has.is_some() && self.ticket == 0;
        if is_new {
            self.ticket = wanted.number;
        }
        is_new
    }

    /// The hand of the clock comes by with `ticket`: whether it is to come again. With `evict`, a copy that nobody read since goes.
    fn stays(&mut self, ticket: u64, evict: bool) -> bool {
        if self.ticket != ticket {
            return false;
        }
        let has = self.has.is_some() || self.old.is_some();
        if has && (!evict || self.is_used.swap(false, Ordering::Relaxed)) {
            return true;
        }
        (self.has, self.old, self.ticket) = (None, None, 0);
        false
    }
}

/// Sets a flag: whether it was set.
#[inline]
fn set(flag: &AtomicBool) -> bool {
    let is = flag.load(Ordering::Relaxed);
    if !is {
        flag.store(true, Ordering::Relaxed);
    }
    is
}

/// The memory that the copies of a database have.
#[derive(Debug)]
pub struct Copies {
    most: u64,
    bytes: Arc<AtomicU64>,
    refused: AtomicU32,
}

impl Copies {
    /// Of at most `most` bytes together.
    #[must_use]
    pub fn new(most: u64) -> Self {
        Self { most, bytes: Arc::default(), refused: AtomicU32::new(0) }
    }

    /// Whether there are any, ever.
    #[must_use]
    pub fn are_made(&self) -> bool {
        self.most > 0
    }

    /// Bytes that they have together.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether they have more than they may.
    #[must_use]
    pub fn are_too_many(&self) -> bool {
        self.bytes() > self.most
    }

    /// Whether one more is to be made: always, where there is room.
    pub fn may_make(&self) -> bool {
        self.bytes() < self.most || self.refused.fetch_add(1, Ordering::Relaxed).is_multiple_of(ONE_OF)
    }

    /// The copy that `draft` becomes.
    #[must_use]
    pub fn finish(&self, draft: Draft) -> Arc<LeafCopy> {
        draft.finish(&self.bytes)
    }
}

/// The leaves of an index that have copies, by a key of each, in the order in which the hand comes by.
#[derive(Debug, Default)]
pub(super) struct Clock {
    leaves: Mutex<VecDeque<(u64, Box<[u8]>)>>,
    numbers: AtomicU64,
}

impl<S: Space> Ordered<S> {
    /// Takes `copy` in, which was `wanted` of the leaf with `key`; `None`: it would be too large.
    pub fn take_copy_in(&self, key: &[u8], wanted: &Wanted, copy: Option<&Arc<LeafCopy>>) {
        if self.with_leaf(key, |leaf| leaf.copy.take_in(wanted, copy)) {
            self.clock.leaves.lock().push_back((wanted.number, key.into()));
        }
    }

    /// Moves the hand of the clock past one leaf; with `evict`, that loses its copy if nobody read it since the hand came by. Whether there was one.
    pub fn turn_clock(&self, evict: bool) -> bool {
        let Some((ticket, key)) = self.clock.leaves.lock().pop_front() else { return false };
        if self.with_leaf(&key, |leaf| leaf.copy.stays(ticket, evict)) {
            self.clock.leaves.lock().push_back((ticket, key));
        }
        true
    }

    /// How many leaves the clock has.
    pub fn copied(&self) -> usize {
        self.clock.leaves.lock().len()
    }

    /// Calls `with` with the leaf of `key`; false, where that can not be read.
    fn with_leaf(&self, key: &[u8], with: impl FnOnce(&mut Leaf) -> bool) -> bool {
        loop {
            let (_, group) = self.group_of(key);
            let mut state = group.state.write();
            if !state.loaded && !state.retired {
                return false;
            }
            if state.holds(key) {
                let place = state.keys.find(key);
                return with(&mut state.leaves[place]);
            }
            drop(state);
            daxstore::sync::thread::yield_now();
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn origin(at: u64, source: Source) -> Origin {
        Origin { at, head: Head::of(&[]), source }
    }

    fn copy_of(copies: &Copies, records: &[(Vec<u8>, Vec<u8>)]) -> Arc<LeafCopy> {
        let mut draft = Draft::with(records.len(), None, 0);
        for (n, (key, value)) in (0..).zip(records) {
            assert!(draft.add(origin(n, Source::Told), (0, 0), (key, value)));
        }
        copies.finish(draft)
    }

    proptest! {
        #[test]
        fn keys_are_found_and_records_are_what_they_were(
            shared in prop::collection::vec(0u8..3, 0..20),
            suffixes in prop::collection::btree_set(prop::collection::vec(0u8..3, 0..12), 0..40),
            even in any::<bool>(),
            others in prop::collection::vec(prop::collection::vec(0u8..4, 0..30), 0..20),
        ) {
            let mut keys: Vec<_> = suffixes.into_iter().map(|suffix| [&shared[..], &suffix].concat()).collect();
            if even {
                keys.iter_mut().for_each(|key| key.resize(shared.len() + 7, 0));
                keys.sort();
                keys.dedup();
            }
            let records: Vec<_> = keys.iter().map(|key| (key.clone(), vec![7; key.len() * 3 % 50])).collect();
            let copies = Copies::new(1 << 20);
            let copy = copy_of(&copies, &records);
            prop_assert_eq!(copy.len(), records.len());
            for (n, (key, value)) in records.iter().enumerate() {
                prop_assert_eq!(copy.record(n), (&key[..], &value[..]));
                prop_assert_eq!(copy.lend(n), (&key[..], &value[..]));
            }
            prop_assert_eq!(copy.record(records.len()), Default::default());
            let near = keys.iter().flat_map(|key| [key.clone(), [key, &[1][..]].concat(), [key, &[0][..]].concat()]);
            let mixed = others.iter().map(|other| [&shared[..], other].concat());
            for key in near.chain(mixed).chain(others.iter().cloned()) {
                prop_assert_eq!(copy.below(&key), keys.iter().filter(|other| **other < key).count(), "{:?}", key);
            }
            prop_assert!(copies.bytes() > 0);
            drop(copy);
            prop_assert_eq!(copies.bytes(), 0);
        }
    }

    #[test]
    fn what_is_not_known_is_looked_at_each_time() {
        let (copies, stripes) = (Copies::new(1 << 20), Stripes::default());
        let mut draft = Draft::with(3, None, 0);
        for (n, source) in (0..).zip([Source::Told, Source::Unknown, Source::Named]) {
            draft.add(origin(n, source), (0, 0), (&[n as u8], &[]));
        }
        let copy = copies.finish(draft);
        assert_eq!((copy.unchanged(0..3, &stripes), copy.unchanged(2..3, &stripes)), (1, 1));
        stripes.supersede(0);
        assert_eq!((copy.unchanged(0..3, &stripes), copy.unchanged(2..3, &stripes)), (0, 0));
        copy.is_newest(0, copy.count_of(0, &stripes));
        assert_eq!(copy.unchanged(0..1, &stripes), 1);
    }

    #[test]
    fn what_has_too_many_bytes_is_no_copy() {
        let mut draft = Draft::default();
        let value = vec![0; LARGEST / 4];
        let added = (0..9_u8).map(|n| draft.add(origin(1, Source::Told), (0, 0), (&[n], &value)));
        assert_eq!(added.take_while(|has_room| *has_room).count(), 3);
    }

    #[test]
    fn a_copy_that_nobody_reads_goes_when_the_hand_comes_by() {
        let (copies, clock) = (Copies::new(1 << 20), Clock::default());
        let mut leaf = OfLeaf::default();
        let ask = |leaf: &OfLeaf, seen| leaf.ask(seen, &clock);
        assert!(matches!(ask(&leaf, 9), Answer::No), "once is not again");
        let Answer::Make(wanted) = ask(&leaf, 9) else { panic!("a copy is to be made") };
        let copy = copy_of(&copies, &[(vec![1], vec![2])]);
        assert!(leaf.take_in(&wanted, Some(&copy)));
        assert!(!leaf.take_in(&wanted, Some(&copy)), "that was for another leaf, or the leaf as it was");
        assert!(matches!(ask(&leaf, 9), Answer::Read(_)));
        let ticket = wanted.number;
        assert!(leaf.stays(ticket, true), "it was read");
        assert!(leaf.stays(ticket, false) && !leaf.stays(ticket + 1, false));
        assert!(!leaf.stays(ticket, true));
        assert!(matches!(ask(&leaf, 9), Answer::Make(_)));
    }

    #[test]
    fn a_changed_leaf_is_copied_from_what_was_there() {
        let (copies, clock) = (Copies::new(1 << 20), Clock::default());
        let mut leaf = OfLeaf::default();
        leaf.ask(9, &clock);
        let Answer::Make(wanted) = leaf.ask(9, &clock) else { panic!("a copy is to be made") };
        leaf.change();
        let copy = copy_of(&copies, &[(vec![1], vec![2])]);
        assert!(!leaf.take_in(&wanted, Some(&copy)), "the leaf changed");
        let Answer::Make(wanted) = leaf.ask(9, &clock) else { panic!("a copy is to be made") };
        assert!(leaf.take_in(&wanted, Some(&copy)));
        leaf.change();
        let Answer::Make(wanted) = leaf.ask(9, &clock) else { panic!("a copy is to be made") };
        assert!(wanted.old.is_some_and(|old| Arc::ptr_eq(&old, &copy)));
    }
}
