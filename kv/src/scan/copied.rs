//! How are the records of a leaf read that lie in memory, side by side, and how do they come there?
//!
//! Invariants:
//! 1. What is lent of a copy was seen to be what the snapshot sees, after the snapshot was taken: when that was, every change that it shows had been
//!    counted (invariant 2 of [`crate::ordered::copies`]). Keys of which that can not be said are looked up.
//! 2. A copy is made under one pin, of a leaf that was read whole: each of its keys has an entry.

use super::{COPIED, FAR, MOST, Missed, Scan, append_newest};
use crate::core::Core;
use crate::db::Tree;
use crate::error::Result;
use crate::media::Media;
use crate::ordered::Hint;
use crate::ordered::copies::{Draft, LeafCopy, Origin, Source, Wanted};
use crate::record::{self, Head, Key, TOLD};
use crate::stripes;

/// Bytes of a record that is copied, at most; the keys of longer ones are looked up.
const LONG: u64 = 8 << 10;

/// So many records before the end of a copy, what lies above is asked for.
const TAIL: usize = 12;

/// A record of the copy of an earlier state of a leaf.
type Old<'c> = Option<(&'c LeafCopy, usize)>;

impl<M: Media> Scan<'_, M> {
    /// Finds the next records of the copy in hand that can be lent.
    pub(super) fn read_copied(&mut self) {
        let core = self.tree.core();
        let Some((_, mut places)) = self.cursor.copied() else { return };
        if places.len() > TAIL {
            // The rest when what lies above is on its way.
            places.end -= TAIL;
        } else if places.len() < self.left {
            self.cursor.look_ahead(self.left - places.len());
            if let Some((above, first)) = self.cursor.copy_ahead() {
                above.ask(first);
            }
        }
        let Some((copy, _)) = self.cursor.copied() else { return };
        places.end = places.end.min(places.start.saturating_add(self.left));
        let same = copy.unchanged(places.clone(), &core.stripes);
        (self.asked, self.hashed) = (0, 0);
        let passed = if same > 0 {
            self.run = places.start..places.start + same;
            if self.first == 0 {
                copy.ask(places.start);
            }
            same
        } else {
            self.read_counted(core, places.start, places.len().min(MOST))
        };
        self.cursor.pass(passed);
        self.first += passed;
    }

    /// Looks at where the first `most` records of the copy in hand from the place `first` on lie: how many keys are passed.
    #[cold]
    fn read_counted(&mut self, core: &Core<M>, first: usize, most: usize) -> usize {
        let Some(copy) = self.cursor.copy() else { return 0 };
        let _pin = core.env.pin();
        let origins = || (first..first + most).filter_map(|n| copy.origin(n));
        origins().for_each(|origin| core.media().prefetch(origin.at));
        let mut missed = Missed::default();
        for (nth, origin) in origins().enumerate() {
            let n = first + nth;
            let count = copy.count_of(n, &core.stripes);
            if core.is_still(origin, record::hash(core.salt, self.tree.id(), copy.key(n))) {
                copy.is_newest(n, count);
                self.starts[nth] = n as u32 | COPIED;
            } else {
                missed.add(nth);
            }
        }
        self.read = most;
        match missed.count {
            0 => most,
            _ => self.read_stale(core, (first, most), missed.each()),
        }
    }

    /// Looks the keys up whose records are not what was copied, of the first `passed` from the place `first` on: how many of these are passed then.
    fn read_stale(&mut self, core: &Core<M>, (first, passed): (usize, usize), missed: &[u8]) -> usize {
        let Some(copy) = self.cursor.copy() else { return 0 };
        // What is looked up each time says nothing of the copy.
        let is_known = |nth: &&u8| copy.origin(first + usize::from(**nth)).is_some_and(Origin::is_known);
        copy.missed(missed.iter().filter(is_known).count());
        let tree = self.tree.id();
        let hash = |nth: u8| record::hash(core.salt, tree, copy.key(first + usize::from(nth)));
        missed.iter().for_each(|nth| core.index.prefetch(core.media(), hash(*nth)));
        self.look_up(passed, missed, |scan, nth| {
            let Some(copy) = scan.cursor.copy() else { return Ok(false) };
            let bytes = copy.key(first + nth);
            let key = Key { tree, bytes, hash: record::hash(core.salt, tree, bytes) };
            append_newest(scan.tree, &key, scan.seen, scan.keys_only, &mut scan.records)
        })
    }

    /// Makes the copy of the leaf in hand that is wanted, if there is room for it.
    #[cold]
    pub(super) fn make_copy(&mut self, wanted: &Wanted) {
        let copies = self.tree.copies();
        if !copies.may_make() {
            return;
        }
        let copy = self.draft(wanted.old.as_deref()).map(|draft| copies.finish(draft));
        self.key.clear();
        self.cursor.whole().append_key(0, &mut self.key);
        self.tree.state().ordered.take_copy_in(&self.key, wanted, copy.as_ref());
        self.tree.make_room();
        if let Some(copy) = copy.filter(|copy| copy.newest() <= self.seen) {
            self.cursor.take_copy(copy);
        }
    }

    /// Copies the records of all keys of the leaf in hand, those that `old` has from there; `None` where they are too many bytes.
    fn draft(&mut self, old: Option<&LeafCopy>) -> Option<Draft> {
        let core = self.tree.core();
        let _pin = core.env.pin();
        let (media, tree, bytes) = (core.media(), self.tree.id(), self.bytes);
        let listed = self.cursor.whole();
        let slots = listed.slots;
        let mut olds = old.into_iter().flat_map(|copy| copy.places().map(move |n| (copy, n))).peekable();
        let mut draft = Draft::with(slots.len(), old, slots.len() * bytes as usize);
        let mut record = std::mem::take(&mut self.records);
        let is_new = |n: &usize| old.is_none() && *n < slots.len();
        let ask = |n: usize| media.prefetch_bytes(slots[n].hint.at(), bytes);
        (0..FAR).filter(is_new).for_each(ask);
        let mut has_room = true;
        for (n, slot) in slots.iter().enumerate() {
            Some(n + FAR).filter(is_new).into_iter().for_each(ask);
            self.key.clear();
            listed.append_key(n, &mut self.key);
            while olds.next_if(|(copy, n)| *copy.key(*n) < *self.key).is_some() {}
            let old = olds.next_if(|(copy, n)| *copy.key(*n) == *self.key);
            has_room = match old.filter(|(copy, n)| copy.unchanged(*n..n + 1, &core.stripes) == 1) {
                Some((copy, n)) => draft.add_old(copy, n),
                None => {
                    let key = Key { tree, bytes: &self.key, hash: record::hash(core.salt, tree, &self.key) };
                    let stripe = stripes::of(key.hash);
                    // Before the record is looked at (K22).
                    let count = core.stripes.superseded(stripe);
                    let (origin, value) = still(core, &key, old)
                        .unwrap_or_else(|| copy_record(self.tree, &key, slot.hint, &mut record));
                    draft.add(origin, (stripe, count), (key.bytes, value))
                }
            };
            if !has_room {
                break;
            }
        }
        record.clear();
        self.records = record;
        has_room.then_some(draft)
    }
}

impl<M: Media> Tree<M> {
    /// Sees to it that copies do not have more memory than they may: those that were not read for long go. A step of the clock of this tree is made
    /// in any case, so that leaves that are gone do not gather there.
    fn make_room(&self) {
        self.state().ordered.turn_clock(false);
        if !self.copies().are_too_many() {
            return;
        }
        for tree in self.core().trees.each() {
            for _ in 0..2 * tree.ordered.copied() {
                if !self.copies().are_too_many() || !tree.ordered.turn_clock(true) {
                    break;
                }
            }
        }
    }
}

/// What an earlier copy has of `key`, if that is still its newest record.
fn still<'c, M: Media>(core: &Core<M>, key: &Key<'_>, old: Old<'c>) -> Option<(Origin, &'c [u8])> {
    let (copy, n) = old?;
    let origin = copy.origin(n)?;
    core.is_still(origin, key.hash).then(|| (*origin, copy.record(n).1))
}

/// The newest record of `key`, and its value, which lies in `to`. The caller is pinned.
fn copy_record<'r, M: Media>(
    tree: &Tree<M>,
    key: &Key<'_>,
    hint: Hint,
    to: &'r mut Vec<u8>,
) -> (Origin, &'r [u8]) {
    let core = tree.core();
    to.clear();
    let is_newest = core.append_hinted(hint, u64::MAX, LONG, to)
        && core.is_newest(key.tree, hint.at(), to, |found| found == key.bytes);
    let origin = match is_newest {
        true => Some(Origin { at: hint.at(), head: Head::of(to), source: Source::Told }),
        false => {
            to.clear();
            // Who reads the copy is told of damage.
            named(tree, key, to).ok().flatten()
        }
    };
    match origin {
        Some(origin) => (origin, origin.head.parts(to).2),
        None => (Origin { at: 0, head: Head::of(&[]), source: Source::Unknown }, &[]),
    }
}

/// Puts the record that the hash index names into `to`.
fn named<M: Media>(tree: &Tree<M>, key: &Key<'_>, to: &mut Vec<u8>) -> Result<Option<Origin>> {
    let core = tree.core();
    let Some(found) = tree.find(key)?.filter(|found| found.head.bytes() <= LONG) else { return Ok(None) };
    core.media().append_to(found.at, found.head.bytes() as usize, to);
    let (at, head) = (found.at, Head::of(to));
    let is_key = |found: &[u8]| found == key.bytes;
    // One of which the index was told may be superseded by now, and is marked then: it would be taken for the newest for ever.
    let (is_right, source) = match head.is(TOLD) {
        true => (core.is_newest(key.tree, at, to, is_key), Source::Told),
        false => (core.is_seen(key.tree, (key.hash, at), to, is_key), Source::Named),
    };
    Ok(is_right.then_some(Origin { at, head, source }))
}
