//! How are the records of a range read one after another, as fast as memory gives them?
//!
//! A [`Scan`] walks a tree's ordered index as one snapshot sees it. Where a record lies the hint of the ordered index says; by the record's mark
//! (K15) it is seen whether it is the newest of its key still. Else the hash index is asked, and asked first where that happens often. Records
//! are asked for some keys ahead, and some are copied out together, whole, and checked; what is lent lies in the copies. Leaves that are scanned
//! again and again have copies of their records in memory ([`crate::ordered::copies`]), which are lent instead.
//!
//! Invariants:
//! 1. Records are looked up and copied out under a pin, some at a time; what is lent lies in the scan's own memory.
//! 2. A key that the snapshot does not see is passed over; damage is told once, in its place, and passed.

mod copied;

use crate::core::Core;
use crate::db::Tree;
use crate::env::Env;
use crate::error::{Error, Result};
use crate::media::Media;
use crate::mutation::{self, Mutation};
use crate::ordered::{Ask, Cursor};
use crate::record::{self, Head, Key, TOLD};
use daxstore::sync::Arc;
use std::ops::{Bound, Range};

/// Keys that are looked up under one pin.
const TOGETHER: usize = 16;
/// The rest of a leaf, if it has not more keys than that, is read together.
const MOST: usize = 24;
/// Bytes of records after which no more are read together.
const ENOUGH: usize = 64 << 10;
/// How many keys ahead a record is asked for.
const FAR: usize = 16;
/// How many records are copied before one is looked at.
const LATER: usize = 2;
/// Keys of which something is remembered until their records are read: twice [`FAR`] are ahead of [`MOST`].
const RING: usize = 64;
/// Bytes of a record that are asked for until one was seen, and at most.
const BYTES: (u64, u64) = (136, 640);
/// Bytes of the leaf above that are asked for with each key.
const LINES_A_KEY: u64 = 128;
/// That nothing is lent in this place.
const NONE: u32 = u32::MAX;
/// That the record is in the copy in hand: its place there is the rest.
const COPIED: u32 = 1 << 31;

/// The number of a snapshot, that is given back.
#[derive(Debug)]
pub(crate) struct Number<M: Media> {
    tree: Tree<M>,
    sequence: u64,
}

impl<M: Media> Number<M> {
    /// That of a snapshot that is taken now.
    pub(crate) fn take(tree: &Tree<M>) -> Arc<Self> {
        Arc::new(Self { tree: tree.clone(), sequence: take(tree.core()) })
    }

    /// Up to which sequence number its moment shows what `tree` has.
    #[inline]
    pub(crate) fn of(&self, tree: &Tree<M>) -> u64 {
        tree.state().seen_by(self.sequence)
    }
}

impl<M: Media> Drop for Number<M> {
    fn drop(&mut self) {
        self.tree.core().snapshots.end(self.sequence);
    }
}

fn take<M: Media>(core: &Core<M>) -> u64 {
    let settle = |sequence| {
        if !mutation::is(Mutation::NoSettle) {
            core.sessions.wait_for(sequence);
        }
    };
    core.snapshots.take(|| core.last_sequence(), settle)
}

/// The hash of a key, and where the hash index says that its record lies.
#[derive(Clone, Copy, Debug, Default)]
struct Guess {
    hash: u64,
    at: u64,
}

/// Which of the keys that are read together do not have their record where it was expected.
#[derive(Debug, Default)]
struct Missed {
    nth: [u8; MOST],
    count: usize,
}

impl Missed {
    #[inline]
    fn add(&mut self, nth: usize) {
        self.nth[self.count] = nth as u8;
        self.count += 1;
    }

    fn each(&self) -> &[u8] {
        &self.nth[..self.count]
    }
}

/// Whose snapshot a scan sees.
#[derive(Debug)]
pub(crate) enum Moment<M: Media> {
    /// Its own: the number goes back with the scan.
    Own,
    /// Another's, which lives as long.
    Of { _number: Arc<Number<M>> },
}

/// The records of a range of keys, in order, as a snapshot sees them: lent one by one, without an allocation for each.
#[derive(Debug)]
pub struct Scan<'t, M: Media> {
    tree: &'t Tree<M>,
    moment: Moment<M>,
    /// Of the snapshot.
    sequence: u64,
    /// Up to which it shows what the tree has.
    seen: u64,
    cursor: Cursor<'t, Env<M>>,
    ask: Ask,
    /// How many more records may be wanted.
    left: usize,
    /// Whether the hash index is asked first: hints were wrong.
    doubts: bool,
    /// Whether values are not read.
    keys_only: bool,
    /// How many of the next keys' records were asked for.
    asked: usize,
    /// How many of the next keys' entries in the hash index were asked for.
    hashed: usize,
    /// How many keys were passed.
    first: usize,
    /// How many of those that are read together do not have their record at the hint.
    wrong: usize,
    /// About how many bytes a record has.
    bytes: u64,
    /// Of keys, in the places of their numbers; empty until one is looked up.
    ring: Vec<Guess>,
    /// Records that were read, whole, as they lie on the medium.
    records: Vec<u8>,
    /// Where each begins that was read and not yet lent, in order.
    starts: [u32; MOST],
    lent: usize,
    read: usize,
    /// Places of records of the copy in hand that are lent first, in order.
    run: Range<usize>,
    /// A key.
    key: Vec<u8>,
    /// What is told after what was read was lent.
    error: Option<Error>,
}

impl<M: Media> Drop for Scan<'_, M> {
    fn drop(&mut self) {
        self.cursor.give_bytes(std::mem::take(&mut self.records));
        if matches!(self.moment, Moment::Own) {
            self.tree.core().snapshots.end(self.sequence);
        }
    }
}

impl<'t, M: Media> Scan<'t, M> {
    /// Of the keys of `tree` from `low` on and up to `high`, as they are now.
    pub(crate) fn now(tree: &'t Tree<M>, low: Bound<&[u8]>, high: Bound<Vec<u8>>) -> Self {
        let sequence = take(tree.core());
        Self::with(tree, Moment::Own, sequence, low, high)
    }

    /// The same, as of `number`.
    pub(crate) fn new(
        tree: &'t Tree<M>,
        number: Arc<Number<M>>,
        low: Bound<&[u8]>,
        high: Bound<Vec<u8>>,
    ) -> Self {
        let sequence = number.sequence;
        Self::with(tree, Moment::Of { _number: number }, sequence, low, high)
    }

    fn with(
        tree: &'t Tree<M>,
        moment: Moment<M>,
        sequence: u64,
        low: Bound<&[u8]>,
        high: Bound<Vec<u8>>,
    ) -> Self {
        let mut cursor = tree.state().ordered.cursor_between(low, high);
        let seen = tree.state().seen_by(sequence);
        let copies = Some(seen).filter(|_| tree.copies().are_made());
        let ask = Ask { keys: usize::MAX, records: FAR, bytes: BYTES.0, copies };
        cursor.ask_first(ask);
        let records = cursor.take_bytes();
        Self {
            tree,
            moment,
            sequence,
            seen,
            cursor,
            ask,
            left: usize::MAX,
            doubts: false,
            keys_only: false,
            asked: FAR,
            hashed: 0,
            first: 0,
            wrong: 0,
            bytes: BYTES.0,
            ring: Vec::new(),
            records,
            starts: [0; MOST],
            lent: 0,
            read: 0,
            run: 0..0,
            key: Vec::new(),
            error: None,
        }
    }

    /// The same, with empty values in place of the records': these are not read, and not checked.
    #[must_use]
    pub fn keys_only(mut self) -> Self {
        (self.keys_only, self.doubts, self.asked, self.bytes) = (true, true, 0, 1);
        self.ask = Ask { keys: self.left, records: 0, bytes: 0, copies: None };
        self.cursor.ask_first(self.ask);
        self
    }

    /// The same, which ends after `n` records: nothing is asked for that lies behind them, which makes short scans faster.
    #[must_use]
    pub fn limit(mut self, n: usize) -> Self {
        self.left = n;
        self.asked = self.asked.min(n);
        (self.ask.keys, self.ask.records) = (n, self.asked);
        self.cursor.ask_first(self.ask);
        self
    }

    /// The next record's key and value, which live until the next call; `None` at the end.
    ///
    /// # Errors
    /// Damage, which the scan has passed: the next call goes on behind it.
    #[allow(clippy::should_implement_trait, reason = "what it lends lives until the next call")]
    #[inline]
    pub fn next(&mut self) -> Result<Option<(&[u8], &[u8])>> {
        if self.run.is_empty() && self.lent == self.read && !self.fetch()? {
            return Ok(None);
        }
        if let Some(n) = self.run.next() {
            return Ok(self.cursor.copy().map(|copy| copy.lend(n)));
        }
        let start = self.starts[self.lent];
        self.lent += 1;
        if start & COPIED != 0 {
            return Ok(self.cursor.copy().map(|copy| copy.record((start & !COPIED) as usize)));
        }
        let record = self.records.get(start as usize..).unwrap_or_default();
        let (_, key, value) = Head::of(record).parts(record);
        Ok(Some((key, value)))
    }

    /// Calls `each` for one record after the other until it says that it wants no more, or there are none: a little faster than [`Self::next`].
    ///
    /// # Errors
    /// As [`Self::next`].
    pub fn for_each_while(&mut self, mut each: impl FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
        loop {
            if let Some(copy) = self.cursor.copy() {
                for n in self.run.by_ref() {
                    let (key, value) = copy.lend(n);
                    if !each(key, value) {
                        return Ok(());
                    }
                }
            }
            let Some((key, value)) = self.next()? else { return Ok(()) };
            if !each(key, value) {
                return Ok(());
            }
        }
    }

    /// Puts the next record's key and value in place of what `key` and `value` held: whether there was one. It allocates only where they
    /// are too small.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub fn next_into(&mut self, key: &mut Vec<u8>, value: &mut Vec<u8>) -> Result<bool> {
        key.clear();
        value.clear();
        let Some((its_key, its_value)) = self.next()? else { return Ok(false) };
        key.extend_from_slice(its_key);
        value.extend_from_slice(its_value);
        Ok(true)
    }

    /// Reads the next records: whether there are any.
    fn fetch(&mut self) -> Result<bool> {
        (self.lent, self.read) = (0, 0);
        while self.read == 0 && self.run.is_empty() {
            // What was copied in vain, a long record of a key that is gone, leaves room for the next.
            self.records.clear();
            if let Some(error) = self.error.take() {
                return Err(error);
            }
            if self.left == 0 || !self.cursor.turn()? {
                return Ok(false);
            }
            if let Some(wanted) = self.cursor.wanted_copy() {
                self.make_copy(&wanted);
            }
            match self.cursor.copy() {
                Some(_) => self.read_copied(),
                None => self.read_together(),
            }
        }
        self.left -= self.read + self.run.len();
        Ok(true)
    }

    /// Reads the records of the next keys in hand.
    fn read_together(&mut self) {
        let in_hand = self.cursor.in_hand();
        let most = if in_hand <= MOST { in_hand } else { TOGETHER }.min(self.left);
        let ahead = most + if self.doubts { 2 * FAR } else { FAR };
        if in_hand < ahead.min(self.left) {
            self.cursor.look_ahead(self.left - in_hand);
        }
        if self.first == 0 {
            self.asked = self.asked.min(self.cursor.known());
        }
        let core = self.tree.core();
        let _pin = core.env.pin();
        let goes_on = self.left > in_hand;
        let mut missed = Missed::default();
        self.wrong = 0;
        let mut passed = match self.doubts {
            false => self.read_hinted(core, most, goes_on, &mut missed),
            true => self.read_named(core, most, &mut missed),
        };
        self.read = passed;
        if missed.count > 0 {
            passed = self.read_missed(core, passed, missed.each());
        }
        self.cursor.pass(passed);
        self.first += passed;
        self.asked = self.asked.saturating_sub(passed);
        self.hashed = self.hashed.saturating_sub(passed);
        self.doubt(passed);
    }

    /// Copies the records of up to `most` of the keys in hand out, and asks for what comes after: of how many keys. Each is compared with what it
    /// was expected to be a little later: a processor that loads what it stores just now waits, and one that only asks waits for memory.
    fn read_hinted(&mut self, core: &Core<M>, most: usize, goes_on: bool, missed: &mut Missed) -> usize {
        let (media, tree) = (core.media(), self.tree.id());
        let mut leaf = if goes_on { std::mem::take(self.cursor.unasked()) } else { 0..0 };
        let (listed, ahead) = self.cursor.listed();
        let hand = listed.slots;
        let known = (hand.len() + ahead.len()).min(self.left);
        let (mut copied, mut checked) = (0, 0);
        loop {
            let goes_on = copied < most && self.records.len() < ENOUGH;
            if goes_on {
                while self.asked < known.min(copied + FAR + 1) {
                    let slot = hand.get(self.asked).or_else(|| ahead.get(self.asked - hand.len()));
                    media.prefetch_bytes(slot.map_or(0, |slot| slot.hint.at()), self.bytes);
                    self.asked += 1;
                }
                if !leaf.is_empty() {
                    media.prefetch_bytes(leaf.start, LINES_A_KEY);
                    leaf.start += LINES_A_KEY;
                }
                let from = self.records.len() as u32;
                let may_be = core.append_hinted(hand[copied].hint, self.seen, u64::MAX, &mut self.records);
                self.starts[copied] = if may_be { from } else { NONE };
                copied += 1;
                if copied <= LATER {
                    continue;
                }
            } else if checked == copied {
                break;
            }
            let record = self.records.get(self.starts[checked] as usize..).unwrap_or_default();
            if !core.is_newest(tree, hand[checked].hint.at(), record, |key| listed.is(checked, key)) {
                missed.add(checked);
            }
            checked += 1;
        }
        if goes_on {
            *self.cursor.unasked() = leaf;
        }
        copied
    }

    /// The same, where the hash index says that they lie.
    fn read_named(&mut self, core: &Core<M>, most: usize, missed: &mut Missed) -> usize {
        let mut copied = 0;
        while copied < most && self.records.len() < ENOUGH {
            self.ask_by_hash(core, copied);
            let (from, at) = (self.records.len() as u32, self.ring[(self.first + copied) % RING].at);
            let may_be = !self.keys_only && core.append_named(at, self.seen, &mut self.records);
            self.starts[copied] = if may_be { from } else { NONE };
            copied += 1;
        }
        let (tree, (listed, _)) = (self.tree.id(), self.cursor.listed());
        for (nth, (slot, start)) in listed.slots.iter().zip(&self.starts).take(copied).enumerate() {
            let record = self.records.get(*start as usize..).unwrap_or_default();
            let Guess { hash, at } = self.ring[(self.first + nth) % RING];
            self.wrong += usize::from(at != slot.hint.at() || !Head::of(record).is(TOLD));
            if !core.is_seen(tree, (hash, at), record, |key| listed.is(nth, key)) {
                missed.add(nth);
            }
        }
        copied
    }

    /// Learns from what was read of `passed` keys.
    fn doubt(&mut self, passed: usize) {
        if self.keys_only {
            return;
        }
        let each = self.records.len().checked_div(self.read);
        self.bytes = each.map_or(self.bytes, |each| (each as u64).clamp(BYTES.0, BYTES.1));
        match self.doubts {
            false if self.wrong * 4 > passed => (self.doubts, self.asked, self.hashed) = (true, 0, 0),
            true if self.wrong * 8 < passed => self.doubts = false,
            _ => {}
        }
    }

    /// Looks the records up that were not where they were expected, of the first `passed` keys: how many of these are passed then. All are asked
    /// for together, first their entries in the hash index.
    #[cold]
    fn read_missed(&mut self, core: &Core<M>, passed: usize, missed: &[u8]) -> usize {
        if !self.doubts {
            self.wrong = missed.len();
            missed.iter().for_each(|nth| self.ask_entry(core, usize::from(*nth)));
            missed.iter().for_each(|nth| self.ask_named(core, usize::from(*nth)));
        }
        self.look_up(passed, missed, |scan, nth| scan.read_anywhere(core, nth))
    }

    /// Looks the records of `missed` up, of the first `passed` keys: how many of these are passed then. `read` appends one to the records, if there is
    /// any; after many bytes, or damage, the rest is left for the next time.
    fn look_up(
        &mut self,
        mut passed: usize,
        missed: &[u8],
        read: impl Fn(&mut Self, usize) -> Result<bool>,
    ) -> usize {
        let begun = self.records.len();
        for nth in missed.iter().map(|nth| usize::from(*nth)) {
            let start = self.records.len();
            let found = read(self, nth);
            let is_last = found.is_err() || self.records.len() - begun >= ENOUGH;
            self.starts[nth] = if matches!(found, Ok(true)) { start as u32 } else { NONE };
            self.error = found.err();
            if is_last {
                passed = nth + 1;
                break;
            }
        }
        self.close_up(passed);
        passed
    }

    /// Only what is there of the first `passed` is lent.
    fn close_up(&mut self, passed: usize) {
        self.read = 0;
        for nth in 0..passed {
            self.starts[self.read] = self.starts[nth];
            self.read += usize::from(self.starts[nth] != NONE);
        }
    }

    /// Reads what the snapshot sees of the key that is `nth` keys ahead, wherever it is: whether it sees anything.
    fn read_anywhere(&mut self, core: &Core<M>, nth: usize) -> Result<bool> {
        let (tree, sequence, cursor) = (self.tree.id(), self.seen, &self.cursor);
        let Guess { hash, at } = self.ring[(self.first + nth) % RING];
        let start = self.records.len();
        // Where the hash index was asked first, that was tried.
        if !self.doubts && core.append_named(at, sequence, &mut self.records) {
            let is_key = |key: &[u8]| cursor.listed().0.is(nth, key);
            if core.is_seen(tree, (hash, at), &self.records[start..], is_key) {
                return Ok(true);
            }
            self.records.truncate(start);
        }
        self.key.clear();
        cursor.append_key(nth, &mut self.key);
        let key = Key { tree, bytes: &self.key, hash: record::hash(core.salt, tree, &self.key) };
        if self.keys_only && core.is_named(&key, at, sequence) {
            return Ok(append_alone(&key, &mut self.records));
        }
        append_newest(self.tree, &key, sequence, self.keys_only, &mut self.records)
    }

    /// Asks for what the keys after the `nth` need, where the hash index is asked first.
    fn ask_by_hash(&mut self, core: &Core<M>, nth: usize) {
        let known = self.cursor.known().min(self.left);
        while self.hashed < known.min(nth + 2 * FAR + 1) {
            self.ask_entry(core, self.hashed);
            self.hashed += 1;
        }
        while self.asked < known.min(nth + FAR + 1) {
            self.ask_named(core, self.asked);
            self.asked += 1;
        }
    }

    /// Asks for the entry in the hash index of the key that is `nth` keys ahead.
    fn ask_entry(&mut self, core: &Core<M>, nth: usize) {
        if self.ring.is_empty() {
            self.ring.resize(RING, Guess::default());
        }
        self.key.clear();
        self.cursor.append_key(nth, &mut self.key);
        let hash = record::hash(core.salt, self.tree.id(), &self.key);
        self.ring[(self.first + nth) % RING] = Guess { hash, at: 0 };
        core.index.prefetch(core.media(), hash);
    }

    /// Asks for the record of that key, where its entry says it lies.
    fn ask_named(&mut self, core: &Core<M>, nth: usize) {
        let hint = self.cursor.hint(nth).map_or(0, |hint| hint.at());
        let guess = &mut self.ring[(self.first + nth) % RING];
        guess.at = core.index.guess(core.media(), guess.hash, hint);
        core.media().prefetch_bytes(guess.at, self.bytes);
    }
}

/// Appends what a snapshot sees of `key`, without its value with `keys_only`: whether it sees anything. The caller is pinned.
fn append_newest<M: Media>(
    tree: &Tree<M>,
    key: &Key<'_>,
    sequence: u64,
    keys_only: bool,
    to: &mut Vec<u8>,
) -> Result<bool> {
    let Some((at, head)) = tree.core().find_at(key, sequence)? else { return Ok(false) };
    if keys_only {
        return Ok(append_alone(key, to));
    }
    let start = to.len();
    head.append(key, to);
    if let Err(error) = tree.read_value(key, (at, head), to) {
        to.truncate(start);
        return Err(error);
    }
    to.resize(to.len().next_multiple_of(8), 0);
    Ok(true)
}

/// Appends a record of `key` without a value.
fn append_alone(key: &Key<'_>, to: &mut Vec<u8>) -> bool {
    Head::new(0, key, 0, 0).append(key, to);
    to.resize(to.len().next_multiple_of(8), 0);
    true
}
