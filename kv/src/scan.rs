//! How are the records of a range read one after another, as fast as memory gives them?
//!
//! A [`Scan`] walks a tree's ordered index as one snapshot sees it. Which record is a key's, the hash index says: the hint of the ordered
//! index is where the record lay when the key was new, so it tells only which memory to ask for. What the index and the records need is
//! asked for some keys ahead; keys and values are lent out of buffers that are used again.
//!
//! Invariants:
//! 1. Records are looked up and copied out under a pin, some at a time; what is lent lies in the scan's own memory.
//! 2. A key that the snapshot does not see is passed over; damage is told once, in its place, and passed.

use crate::core::Core;
use crate::db::Tree;
use crate::env::Env;
use crate::error::{Error, Result};
use crate::iter::Seen;
use crate::media::Media;
use crate::mutation::{self, Mutation};
use crate::ordered::Cursor;
use crate::record::{self, Head, TOMBSTONE};
use daxstore::sync::Arc;
use std::ops::{Bound, Range};

/// Keys that are looked up under one pin: so many at most are read in vain when the scan ends early.
const TOGETHER: usize = 8;
/// Bytes of values after which no more are read together.
const ENOUGH: usize = 64 << 10;
/// Bytes of values that a scan begins with room for.
const VALUES: usize = 2 << 10;
/// How many keys ahead the line of the hash index, and the record at the hint, are asked for.
const FAR: usize = 12;
/// Hashes that are kept: a power of two above [`FAR`].
const RING: usize = 16;

/// The number of a snapshot, that is given back.
#[derive(Debug)]
pub(crate) struct Number<M: Media> {
    tree: Tree<M>,
    pub sequence: u64,
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
    /// The hashes of the next `asked` keys in hand, from `first` on, round and round.
    hashes: [u64; RING],
    first: usize,
    asked: usize,
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
            hashes: [0; RING],
            first: 0,
            asked: 0,
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
        self.keys_only = true;
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
        let guesses = self.guess();
        let mut nth = 0;
        while nth < TOGETHER && self.values.len() < ENOUGH && self.error.is_none() {
            self.ask(nth);
            let Some((bytes, _)) = self.cursor.ahead(nth).filter(|(key, _)| is_below(key, &self.high)) else {
                self.over = nth < self.cursor.in_hand();
                break;
            };
            let key = record::Key { tree: self.tree.id(), bytes, hash: self.hash(nth) };
            let start = self.values.len();
            let seen = core.find_by(guesses[nth], &key, self.number.sequence);
            let read = seen.and_then(|seen| match seen {
                Some(_) if self.keys_only => Ok(true),
                Some(seen) => self.tree.read_value(&key, seen, &mut self.values).map(|()| true),
                None => Ok(false),
            });
            match read {
                Ok(true) => self.read.push(Read { nth, value: start..self.values.len() }),
                Ok(false) => {}
                Err(error) => self.error = Some(error),
            }
            nth += 1;
        }
        self.cursor.pass(nth);
        self.passed = nth;
        self.first += nth;
        self.asked -= nth;
    }

    /// Where the records of the next keys most likely lie. Those that are not at their hints are asked for.
    #[inline]
    fn guess(&mut self) -> [u64; TOGETHER] {
        let core = self.tree.core();
        self.ask(0);
        std::array::from_fn(|nth| {
            let Some((_, hint)) = self.cursor.ahead(nth) else { return 0 };
            let at = core.index.guess(core.media(), self.hash(nth), hint);
            if at != hint && at != 0 {
                (0..3).for_each(|line| core.media().prefetch(at + line * 64));
            }
            at
        })
    }

    /// The hash of the `nth` key in hand, which was asked for.
    #[inline]
    fn hash(&self, nth: usize) -> u64 {
        self.hashes[(self.first + nth) % RING]
    }

    /// Asks for what the keys after the `nth` need.
    #[inline]
    fn ask(&mut self, nth: usize) {
        let core = self.tree.core();
        let media = core.media();
        while self.asked <= nth + FAR {
            let Some((key, hint)) = self.cursor.ahead(self.asked) else { break };
            let hash = record::hash(core.salt, self.tree.id(), key);
            self.hashes[(self.first + self.asked) % RING] = hash;
            core.index.prefetch(media, hash);
            (0..3).for_each(|line| media.prefetch(hint + line * 64));
            self.asked += 1;
        }
        self.cursor.ask_next(self.first + nth);
    }
}
