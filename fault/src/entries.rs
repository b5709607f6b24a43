//! What is installed in a mapping?
//!
//! An interval map by file offset. It is the handler's memory of what it asked the system for, and what its decisions
//! go by: the page tables themselves can not be asked.
//!
//! Invariants:
//! 1. Entries do not overlap and are not empty.
//! 2. Neighbours that are one thing are one entry: blocks that are contiguous in the file and in the pool, and
//!    equals of the other kinds; but for what is left of zeros of 2 MiB.
//! 3. Zeros of 2 MiB are one entry of a whole slot; what is left of one that was cut is small.

use daxstore::iomap::FileRange;
use daxstore::units::{CHUNK_BYTES, PoolOff};
use std::collections::BTreeMap;

/// What is installed somewhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// The pool's bytes from here.
    Block(PoolOff),
    /// Zeros that a store can not change.
    Zero {
        /// By one translation of 2 MiB.
        huge: bool,
    },
    /// SIGBUS: the file ends before.
    Beyond,
    /// Memory of the mapping's own.
    Copy,
    /// Memory of the mapping's own that a store can not change: what the file has in blocks that other files own too.
    Guarded,
    /// SIGBUS: a fault could not be answered.
    Failed,
}

impl What {
    /// What it is `bytes` further on.
    const fn advanced(self, bytes: u64) -> Self {
        match self {
            Self::Block(at) => Self::Block(at.plus(bytes)),
            other => other,
        }
    }

    /// A part of it.
    const fn part(self, from: u64) -> Self {
        match self {
            Self::Zero { .. } => Self::Zero { huge: false },
            other => other.advanced(from),
        }
    }

    /// Whether `next`, `bytes` further on, is the same thing going on.
    fn goes_on(self, bytes: u64, next: Self) -> bool {
        self != Self::Zero { huge: true } && self.advanced(bytes) == next
    }

    /// Whether the system keeps a mapping of its own for it. Zeros and copies lie in the reservation itself where
    /// userfaultfd made them, and count where they did not, which is seen from `zeros`.
    const fn counts(self, zeros: bool) -> bool {
        match self {
            Self::Block(_) | Self::Beyond | Self::Failed => true,
            Self::Zero { .. } | Self::Copy | Self::Guarded => zeros,
        }
    }
}

/// Something that is installed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The bytes of the file.
    pub range: FileRange,
    /// What they are.
    pub what: What,
}

impl Entry {
    /// What of it lies in `range`; `None` for nothing.
    #[must_use]
    pub fn within(self, range: FileRange) -> Option<Self> {
        let start = self.range.offset.max(range.offset);
        let end = self.range.end().min(range.end());
        let part = FileRange { offset: start, len: end.checked_sub(start).filter(|len| *len > 0)? };
        let what = if part == self.range { self.what } else { self.what.part(start - self.range.offset) };
        Some(Self { range: part, what })
    }
}

/// The entries of one mapping.
#[derive(Debug, Default)]
pub struct Entries {
    map: BTreeMap<u64, (u64, What)>,
    /// Whether zeros and copies are mappings of their own.
    zeros: bool,
    /// Entries that are mappings of their own.
    counted: usize,
    /// Those of them after which the bare reservation comes.
    ends: usize,
}

impl Entries {
    /// No entries. With `zeros`, zeros and copies count as mappings of their own.
    #[must_use]
    pub fn new(zeros: bool) -> Self {
        Self { zeros, ..Self::default() }
    }

    /// How many mappings of the system they take at most, with what is left of the reservation between them.
    #[must_use]
    pub const fn cost(&self) -> usize {
        self.counted + self.ends
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    fn entry(start: u64, (len, what): (u64, What)) -> Entry {
        Entry { range: FileRange { offset: start, len }, what }
    }

    /// The entry that holds byte `offset`.
    #[must_use]
    pub fn get(&self, offset: u64) -> Option<Entry> {
        self.up_to(offset).filter(|entry| offset < entry.range.end())
    }

    /// The last entry that starts at or before `offset`.
    fn up_to(&self, offset: u64) -> Option<Entry> {
        self.map.range(..=offset).next_back().map(|(start, value)| Self::entry(*start, *value))
    }

    /// How far one can go from `kept` to both sides, within `range`, without meeting an entry that `stays`: from where to
    /// where.
    #[must_use]
    pub fn gap(&self, kept: FileRange, range: FileRange, stays: impl Fn(What) -> bool) -> (u64, u64) {
        let entry = |(start, value): (&u64, &(u64, What))| Self::entry(*start, *value);
        let (mut before, mut after) = (range.offset, range.end());
        // What begins before the end of `kept` and reaches beyond both its ends bounds both.
        for entry in self.map.range(..kept.end()).rev().map(entry) {
            let end = entry.range.end();
            if end <= range.offset || before > range.offset {
                break;
            }
            if stays(entry.what) {
                if end > kept.end() {
                    after = kept.end();
                }
                if entry.range.offset < kept.offset {
                    before = end.min(kept.offset);
                }
            }
        }
        if after > kept.end() {
            let mut on = self.map.range(kept.end()..range.end().max(kept.end())).map(entry);
            after = on.find(|entry| stays(entry.what)).map_or(after, |entry| entry.range.offset);
        }
        (before, after)
    }

    /// The entries that hold byte `offset` or come after it, in order.
    pub fn from(&self, offset: u64) -> impl Iterator<Item = Entry> + '_ {
        let start = self.get(offset).map_or(offset, |entry| entry.range.offset);
        self.map.range(start..).map(|(start, value)| Self::entry(*start, *value))
    }

    /// What of the entries lies in `range`, in order.
    pub fn within(&self, range: FileRange) -> impl Iterator<Item = Entry> + '_ {
        let inside = self.from(range.offset).take_while(move |entry| entry.range.offset < range.end());
        inside.filter_map(move |entry| entry.within(range))
    }

    /// Whether `a` ends where the next entry, which counts, begins.
    fn is_followed(&self, end: u64) -> bool {
        self.map.get(&end).is_some_and(|(_, what)| what.counts(self.zeros))
    }

    /// Whether an entry that counts ends at `start`.
    fn is_preceded(&self, start: u64) -> bool {
        let before = self.map.range(..start).next_back();
        before.is_some_and(|(at, (len, what))| at + len == start && what.counts(self.zeros))
    }

    /// Puts an entry that touches no other.
    fn put_alone(&mut self, entry: Entry) {
        let counts = usize::from(entry.what.counts(self.zeros));
        self.counted += counts;
        self.ends += counts;
        self.map.insert(entry.range.offset, (entry.range.len, entry.what));
    }

    fn put(&mut self, entry: Entry) {
        if entry.what.counts(self.zeros) {
            self.counted += 1;
            self.ends += usize::from(!self.is_followed(entry.range.end()));
            self.ends -= usize::from(self.is_preceded(entry.range.offset));
        }
        self.map.insert(entry.range.offset, (entry.range.len, entry.what));
    }

    fn take(&mut self, entry: Entry) {
        self.map.remove(&entry.range.offset);
        if entry.what.counts(self.zeros) {
            self.counted -= 1;
            self.ends -= usize::from(!self.is_followed(entry.range.end()));
            self.ends += usize::from(self.is_preceded(entry.range.offset));
        }
    }

    /// Takes `range` out: what was there.
    pub fn cut(&mut self, range: FileRange) -> Vec<Entry> {
        let last = range.end().checked_sub(1).and_then(|last| self.up_to(last));
        if last.is_none_or(|entry| entry.range.end() <= range.offset) {
            return Vec::new();
        }
        let whole: Vec<_> =
            self.from(range.offset).take_while(|entry| entry.range.offset < range.end()).collect();
        let mut parts = Vec::with_capacity(whole.len());
        for entry in whole {
            let Some(part) = entry.within(range) else { continue };
            self.take(entry);
            parts.push(part);
            let before =
                FileRange { offset: entry.range.offset, len: part.range.offset - entry.range.offset };
            let after = FileRange { offset: part.range.end(), len: entry.range.end() - part.range.end() };
            [before, after].into_iter().filter_map(|rest| entry.within(rest)).for_each(|rest| self.put(rest));
        }
        parts
    }

    /// Puts `what` at `range`: what was there. Zeros of 2 MiB are put a slot at a time.
    pub fn insert(&mut self, range: FileRange, what: What) -> Vec<Entry> {
        debug_assert!(range.len > 0, "an entry is not empty");
        debug_assert!(
            what != What::Zero { huge: true }
                || (range.len == CHUNK_BYTES && range.offset.is_multiple_of(CHUNK_BYTES)),
            "zeros of 2 MiB are one slot"
        );
        let mut new = Entry { range, what };
        if self.up_to(range.end()).is_none_or(|entry| entry.range.end() < range.offset) {
            // Nothing touches it: the usual case of a fault.
            self.put_alone(new);
            return Vec::new();
        }
        let parts = self.cut(range);
        let before = range.offset.checked_sub(1).and_then(|last| self.get(last));
        if let Some(before) = before
            && before.what.goes_on(before.range.len, what)
        {
            self.take(before);
            let len = before.range.len + range.len;
            new = Entry { range: FileRange { offset: before.range.offset, len }, what: before.what };
        }
        let after = self.get(range.end());
        if let Some(after) = after
            && new.what.goes_on(new.range.len, after.what)
        {
            self.take(after);
            new.range.len += after.range.len;
        }
        self.put(new);
        parts
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PAGE: u64 = 4096;
    const PAGES: u64 = 3 * CHUNK_BYTES / PAGE;

    /// The same by pages: what, and where in it.
    type Model = Vec<Option<What>>;

    fn pages(from: u64, len: u64) -> FileRange {
        FileRange { offset: from * PAGE, len: len * PAGE }
    }

    fn shown(entries: &Entries) -> Model {
        let page = |i| entries.get(i * PAGE).and_then(|entry| entry.within(pages(i, 1)));
        (0..PAGES).map(|i| page(i).map(|entry| entry.what)).collect()
    }

    /// Mappings that a model takes: runs of what goes on, and gaps after them.
    fn cost(entries: &Entries) -> usize {
        let all: Vec<_> = entries.from(0).filter(|e| e.what.counts(entries.zeros)).collect();
        let gap = |i: usize| all.get(i + 1).is_none_or(|next| next.range.offset > all[i].range.end());
        all.len() + (0..all.len()).filter(|i| gap(*i)).count()
    }

    fn check(entries: &Entries, model: &Model) {
        let small = |what: &Option<What>| match what {
            Some(What::Zero { .. }) => Some(What::Zero { huge: false }),
            other => *other,
        };
        let got: Vec<_> = shown(entries).iter().map(small).collect();
        let want: Vec<_> = model.iter().map(small).collect();
        assert!(got == want, "{:?}", entries.map);
        assert_eq!(entries.cost(), cost(entries), "{:?}", entries.map);
        let all: Vec<_> = entries.from(0).collect();
        for pair in all.windows(2) {
            let (a, b) = (pair[0], pair[1]);
            assert!(a.range.end() <= b.range.offset, "{a:?} overlaps {b:?}");
            let left = a.what == What::Zero { huge: false };
            let apart = left || a.range.end() < b.range.offset || !a.what.goes_on(a.range.len, b.what);
            assert!(apart, "{a:?} and {b:?} are one");
        }
    }

    fn whats() -> impl Strategy<Value = What> {
        prop_oneof![
            (0..4_u64).prop_map(|i| What::Block(PoolOff(i << 30))),
            Just(What::Zero { huge: false }),
            Just(What::Beyond),
            Just(What::Copy),
            Just(What::Failed),
        ]
    }

    #[derive(Clone, Debug)]
    enum Op {
        Put(u64, u64, What),
        Huge(u64),
        Cut(u64, u64),
    }

    fn ops() -> impl Strategy<Value = Op> {
        let range = (0..PAGES).prop_flat_map(|from| (Just(from), 1..=(PAGES - from).min(700)));
        prop_oneof![
            3 => (range.clone(), whats()).prop_map(|((from, len), what)| Op::Put(from, len, what)),
            1 => (0..3_u64).prop_map(Op::Huge),
            2 => range.prop_map(|(from, len)| Op::Cut(from, len)),
        ]
    }

    /// A block's place in the pool is congruent to the page, so that blocks put side by side can go on.
    fn placed(what: What, page: u64) -> What {
        what.advanced(page * PAGE)
    }

    fn run(ops: &[Op], zeros: bool) {
        let mut entries = Entries::new(zeros);
        let mut model: Model = vec![None; PAGES as usize];
        for op in ops {
            match *op {
                Op::Put(from, len, what) => {
                    entries.insert(pages(from, len), placed(what, from));
                    (from..from + len).for_each(|i| model[i as usize] = Some(placed(what, i)));
                }
                Op::Huge(slot) => {
                    entries.insert(pages(slot * 512, 512), What::Zero { huge: true });
                    (slot * 512..slot * 512 + 512)
                        .for_each(|i| model[i as usize] = Some(What::Zero { huge: true }));
                }
                Op::Cut(from, len) => {
                    let before: Vec<_> = entries.within(pages(from, len)).collect();
                    assert_eq!(entries.cut(pages(from, len)), before, "what was there");
                    (from..from + len).for_each(|i| model[i as usize] = None);
                }
            }
            check(&entries, &model);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn entries_are_what_an_array_of_pages_is(ops in prop::collection::vec(ops(), 1..24), zeros: bool) {
            run(&ops, zeros);
        }
    }

    #[test]
    fn what_is_left_of_huge_zeros_is_small() {
        let mut entries = Entries::new(false);
        entries.insert(pages(0, 512), What::Zero { huge: true });
        entries.insert(pages(512, 512), What::Zero { huge: true });
        assert_eq!(entries.from(0).count(), 2, "zeros of two slots are two");
        entries.cut(pages(7, 1));
        let left: Vec<_> = entries.from(0).map(|entry| entry.what).collect();
        let small = What::Zero { huge: false };
        assert_eq!(left, [small, small, What::Zero { huge: true }]);
    }

    #[test]
    fn a_gap_ends_at_what_stays() {
        let mut entries = Entries::new(false);
        entries.insert(pages(0, 2), What::Beyond);
        entries.insert(pages(3, 1), What::Zero { huge: false });
        entries.insert(pages(8, 4), What::Copy);
        let stays = |what| !matches!(what, What::Zero { .. });
        let gap = |from, len| entries.gap(pages(from, len), pages(0, 20), stays);
        assert_eq!(gap(5, 1), (2 * PAGE, 8 * PAGE));
        assert_eq!(gap(1, 1), (PAGE, 8 * PAGE), "an entry around what is kept ends at it");
        assert_eq!(gap(9, 1), (9 * PAGE, 10 * PAGE), "on both sides");
        assert_eq!(gap(12, 1), (12 * PAGE, 20 * PAGE));
        assert_eq!(entries.gap(pages(5, 1), pages(4, 3), stays), (4 * PAGE, 7 * PAGE));
    }
}
