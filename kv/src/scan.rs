//! How are the records of a range read one after another, as fast as memory gives them?
//!
//! A [`Scan`] walks a tree's ordered index as one snapshot sees it. Where a record lies the hint of the ordered index says; by the record's mark
//! (K15) it is seen whether it is the newest of its key still. Else the hash index is asked, and asked first where that happens often. Records are asked for some keys ahead; keys and
//! values are lent out of buffers that are used again.
//!
//! Invariants:
//! 1. Records are looked up and copied out under a pin, some at a time; what is lent lies in the scan's own memory.
//! 2. A key that the snapshot does not see is passed over; damage is told once, in its place, and passed.
//! 3. K15: a record at its hint is believed if it has the hint's sequence number, is right, and is not marked as superseded. The number is the
//!    snapshot's or an older one: so every change that superseded it before the snapshot has marked it.

use crate::core::Core;
use crate::db::Tree;
use crate::env::Env;
use crate::error::{Error, Result};
use crate::iter::Seen;
use crate::media::Media;
use crate::mutation::{self, Mutation};
use crate::ordered::{Cursor, Hint};
use crate::record::{self, Head, TOLD, TOMBSTONE};
use daxstore::sync::Arc;
use std::ops::{Bound, Range};

/// Keys that are looked up under one pin: so many at most are read in vain when the scan ends early.
const TOGETHER: usize = 8;
/// Bytes of values after which no more are read together.
const ENOUGH: usize = 64 << 10;
/// Bytes of values that a scan begins with room for.
const VALUES: usize = 2 << 10;
/// How many keys ahead the record at the hint is asked for.
const FAR: usize = 12;

/// The number of a snapshot, that is given back.
#[derive(Debug)]
pub(crate) struct Number<M: Media> {
    tree: Tree<M>,
    sequence: u64,
}

impl<M: Media> Number<M> {
    /// That of a snapshot that is taken now.
    pub(crate) fn take(tree: &Tree<M>) -> Arc<Self> {
        let core = tree.core();
        let settle = |sequence| {
            if !mutation::is(Mutation::NoSettle) {
                core.sessions.wait_for(sequence);
            }
        };
        let sequence = core.snapshots.take(|| core.last_sequence(), settle);
        Arc::new(Self { tree: tree.clone(), sequence })
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

impl<M: Media> Core<M> {
    /// The record of `key` that a snapshot with this number sees. The caller is pinned.
    #[inline]
    pub(crate) fn find_at(&self, key: &record::Key<'_>, sequence: u64) -> Result<Option<Seen>> {
        if let Some(found) = self.index.find(self.media(), key)?
            && found.head.sequence() <= sequence
        {
            return Ok((!found.head.is(TOMBSTONE)).then_some((found.at, found.head)));
        }
        Ok(self.find_older(key, sequence))
    }

    /// Appends the record of `key` to `buf`, if that at `hint` is its newest and has this number or an older one: where its value lies there.
    /// The caller is pinned.
    #[inline]
    fn read_newest(
        &self,
        key: &record::Key<'_>,
        hint: Hint,
        sequence: u64,
        buf: &mut Vec<u8>,
    ) -> Option<Range<usize>> {
        let (media, at) = (self.media(), hint.at());
        if at == 0 || at > media.len() - 64 {
            return None;
        }
        let head = Head::load(media, at);
        let is_seen = head.is(TOLD) && head.sequence() <= sequence && hint.is_of(head.sequence());
        let key_len = head.key_len();
        if !is_seen
            || !head.fits(at, media.len())
            || key_len != key.bytes.len()
            || head.tree(media, at) != key.tree
        {
            return None;
        }
        let start = buf.len();
        media.append_to(at + head.before_key(), key_len + head.value_len(), buf);
        let (its_key, value) = buf[start..].split_at(key_len);
        if its_key == key.bytes && head.is_newest(self.salt, at, key.hash, value) {
            return Some(start + key_len..buf.len());
        }
        buf.truncate(start);
        None
    }

    /// As [`Self::find_at`], by what [`crate::hash::Index::guess`] said under the same pin.
    #[inline]
    fn find_by(&self, guess: u64, key: &record::Key<'_>, sequence: u64) -> Result<Option<Seen>> {
        let media = self.media();
        if guess != 0 && guess <= media.len() - 64 {
            let head = Head::load(media, guess);
            let is_seen = !head.is(TOMBSTONE) && head.sequence() <= sequence;
            if is_seen && head.fits(guess, media.len()) && head.is_of(media, guess, key) {
                return Ok(Some((guess, head)));
            }
        }
        self.find_at(key, sequence)
    }

    #[cold]
    fn find_older(&self, key: &record::Key<'_>, sequence: u64) -> Option<Seen> {
        self.snapshots.find(key.hash, sequence).into_iter().find_map(|at| {
            let head = Head::load(self.media(), at);
            (head.fits(at, self.media().len()) && head.is_of(self.media(), at, key)).then_some((at, head))
        })
    }
}

pub(crate) fn is_below(key: &[u8], high: &Bound<Vec<u8>>) -> bool {
    match high {
        Bound::Unbounded => true,
        Bound::Included(high) => key <= &**high,
        Bound::Excluded(high) => key < &**high,
    }
}

/// A record that was read and not yet lent.
#[derive(Debug)]
struct Read {
    /// Its key's number of those that were passed together.
    nth: usize,
    value: Range<usize>,
}

/// The records of a range of keys, in order, as a snapshot sees them: lent one by one, without an allocation for each.
#[derive(Debug)]
pub struct Scan<'t, M: Media> {
    tree: &'t Tree<M>,
    number: Arc<Number<M>>,
    cursor: Cursor<'t, Env<M>>,
    high: Bound<Vec<u8>>,
    /// Whether the hash index is asked first: hints were wrong.
    doubts: bool,
    /// How many of the next keys' records were asked for.
    asked: usize,
    /// How many keys were passed.
    first: usize,
    values: Vec<u8>,
    read: Vec<Read>,
    /// How many of `read` were lent.
    lent: usize,
    /// How many keys the cursor passed together.
    passed: usize,
    /// What is told after `read` was lent.
    error: Option<Error>,
    over: bool,
    /// Whether values are not read.
    keys_only: bool,
}

impl<'t, M: Media> Scan<'t, M> {
    /// Of the keys of `tree` from `low` on and up to `high`, as of `number`.
    pub(crate) fn new(
        tree: &'t Tree<M>,
        number: Arc<Number<M>>,
        low: Bound<&[u8]>,
        high: Bound<Vec<u8>>,
    ) -> Self {
        Self {
            tree,
            number,
            cursor: tree.state().ordered.cursor(low),
            high,
            doubts: false,
            asked: 0,
            first: 0,
            values: Vec::with_capacity(VALUES),
            read: Vec::with_capacity(TOGETHER),
            lent: 0,
            passed: 0,
            error: None,
            over: false,
            keys_only: false,
        }
    }

    /// The same, with empty values in place of the records': these are not read, and not checked.
    #[must_use]
    pub fn keys_only(mut self) -> Self {
        (self.keys_only, self.doubts) = (true, true);
        self
    }

    /// The next record's key and value, which live until the next call; `None` at the end.
    ///
    /// # Errors
    /// Damage, which the scan has passed: the next call goes on behind it.
    #[allow(clippy::should_implement_trait, reason = "what it lends lives until the next call")]
    #[inline]
    pub fn next(&mut self) -> Result<Option<(&[u8], &[u8])>> {
        if self.lent == self.read.len() && !self.fetch()? {
            return Ok(None);
        }
        let Read { nth, value } = &self.read[self.lent];
        self.lent += 1;
        let key = self.cursor.behind(self.passed - nth).unwrap_or_default();
        Ok(Some((key, &self.values[value.clone()])))
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
        self.read.clear();
        self.values.clear();
        self.lent = 0;
        while self.read.is_empty() {
            if let Some(error) = self.error.take() {
                return Err(error);
            }
            if self.cursor.in_hand() == 0 {
                self.asked = 0;
            }
            if self.over || !self.cursor.turn()? {
                return Ok(false);
            }
            self.read_together();
        }
        Ok(true)
    }

    /// Reads the records of the next keys in hand.
    fn read_together(&mut self) {
        let core = self.tree.core();
        let _pin = core.env.pin();
        self.cursor.prepare(TOGETHER + FAR);
        let doubted = self.doubts;
        let guesses = if doubted { self.guess() } else { [0; TOGETHER] };
        let (mut nth, mut missed) = (0, 0);
        while nth < TOGETHER && self.values.len() < ENOUGH && self.error.is_none() {
            self.ask(nth);
            let Some((bytes, hint)) = self.cursor.ahead(nth) else { break };
            if !is_below(bytes, &self.high) {
                self.over = true;
                break;
            }
            let start = self.values.len();
            let hash = record::hash(core.salt, self.tree.id(), bytes);
            let key = record::Key { tree: self.tree.id(), bytes, hash };
            let sequence = self.number.of(self.tree);
            let newest = match doubted {
                true => None,
                false => core.read_newest(&key, hint, sequence, &mut self.values),
            };
            let read = newest.map(Some).map_or_else(
                || {
                    missed += usize::from(guesses[nth] != hint.at());
                    let seen = core.find_by(guesses[nth], &key, sequence)?;
                    if let Some(seen) = seen.filter(|_| !self.keys_only) {
                        self.tree.read_value(&key, seen, &mut self.values)?;
                    }
                    Ok(seen.map(|_| start..self.values.len()))
                },
                Ok,
            );
            match read {
                Ok(value) => self.read.extend(value.map(|value| Read { nth, value })),
                Err(error) => self.error = Some(error),
            }
            nth += 1;
        }
        self.doubts = self.keys_only || missed > 1;
        self.cursor.pass(nth);
        self.passed = nth;
        self.first += nth;
        self.asked -= nth;
    }

    /// Where the records of the next keys most likely lie, as the hash index says. Those that are not at their hints are asked for.
    fn guess(&mut self) -> [u64; TOGETHER] {
        let core = self.tree.core();
        self.ask(0);
        std::array::from_fn(|nth| {
            let Some((key, hint)) = self.cursor.ahead(nth) else { return 0 };
            let at = core.index.guess(core.media(), record::hash(core.salt, self.tree.id(), key), hint.at());
            if at != hint.at() && at != 0 {
                (0..3).for_each(|line| core.media().prefetch(at + line * 64));
            }
            at
        })
    }

    /// Asks for what the keys after the `nth` need.
    #[inline]
    fn ask(&mut self, nth: usize) {
        let core = self.tree.core();
        let media = core.media();
        while self.asked <= nth + FAR {
            let Some((key, hint)) = self.cursor.ahead(self.asked) else { break };
            (0..3).for_each(|line| media.prefetch(hint.at() + line * 64));
            if self.doubts {
                core.index.prefetch(media, record::hash(core.salt, self.tree.id(), key));
            }
            self.asked += 1;
        }
        self.cursor.ask_next(self.first + nth);
    }
}
