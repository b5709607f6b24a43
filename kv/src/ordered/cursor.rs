//! Which key comes next?
//!
//! A cursor lies between two keys. It has one leaf's keys in hand, taken out under the leaf's lock, and the bounds between which
//! they are all there were. Beyond a bound it looks for the leaf there anew: splits and merges that happen meanwhile change
//! nothing for it.
//!
//! Invariant: keys that are there from before a cursor passes to after are met once, in order. Of keys that come and go
//! meanwhile each is met or not.

use super::group::State;
use super::leaf::Content;
use super::mutation::{self, Mutation};
use super::{Ordered, Space, corrupt};
use crate::error::{Error, Result};
use crate::media::Media;
use std::ops::Bound;

/// How many records ahead are asked for.
const AHEAD: usize = 8;
/// Lines of a leaf of short keys.
const LEAF_LINES: u64 = 32;

/// Where a cursor lies before it has a leaf.
#[derive(Debug)]
enum Start {
    At(Bound<Vec<u8>>),
    End,
}

/// A place between two keys of an index.
#[derive(Debug)]
pub struct Cursor<'o, S: Space> {
    ordered: &'o Ordered<S>,
    start: Option<Start>,
    content: Content,
    buf: Vec<u8>,
    /// How many keys of `content` lie before.
    at: usize,
    /// Keys from `low` on and below `high` are in hand; `None`: there is nothing beyond.
    low: Option<Vec<u8>>,
    high: Option<Vec<u8>>,
    /// What is told before the keys in hand.
    errors: Vec<Error>,
    /// Where the leaf above most likely lies; 0: nobody knows.
    next_leaf: u64,
}

impl<S: Space> Ordered<S> {
    /// A cursor before the first key that is at least, or above, `from`. It sees every change that was told of before.
    pub fn cursor(&self, from: Bound<&[u8]>) -> Cursor<'_, S> {
        self.cursor_at(Start::At(from.map(<[u8]>::to_vec)))
    }

    /// A cursor after the last key.
    pub fn cursor_at_end(&self) -> Cursor<'_, S> {
        self.cursor_at(Start::End)
    }

    fn cursor_at(&self, start: Start) -> Cursor<'_, S> {
        let (content, buf, errors) = Default::default();
        let (low, high, start) = (None, None, Some(start));
        Cursor { ordered: self, start, content, buf, at: 0, low, high, errors, next_leaf: 0 }
    }

    /// Calls `with` with the group that holds `key`, or with `below` the keys just below it.
    fn with_group<T>(
        &self,
        key: &[u8],
        below: bool,
        with: impl FnOnce(usize, &State) -> T,
    ) -> (Option<Vec<u8>>, Option<Vec<u8>>, Result<T>) {
        loop {
            let (index, low, group) = {
                let top = self.top.read();
                let index = if below { top.keys.find_below(key) } else { top.keys.find(key) };
                (index, top.keys.get(index).to_vec(), top.groups[index].clone())
            };
            let state = group.state.read();
            let holds = if below { state.holds_below(key) } else { state.holds(key) };
            if holds || (mutation::is(Mutation::NoRetry) && state.loaded) {
                return (None, None, Ok(with(index, &state)));
            }
            let loaded = state.loaded || state.retired;
            drop(state);
            if !loaded {
                let mut state = group.state.write();
                if let Err(error) = state.load(self.memory(), self.tree) {
                    let high = state.high.as_ref().map(|high| high.to_vec());
                    return ((index > 0).then_some(low), high, Err(error));
                }
            } else {
                daxstore::sync::thread::yield_now();
            }
        }
    }
}

impl<S: Space> Cursor<'_, S> {
    /// The next key and its record's hint, which the cursor passes; `None` at the end. An error names what could not be
    /// read; the cursor has passed that then.
    ///
    /// # Errors
    /// [`crate::error::Damage`]; where changes that wait can not be taken, why.
    #[allow(clippy::should_implement_trait, reason = "what it lends lives until the next call")]
    pub fn next(&mut self) -> Result<Option<(&[u8], u64)>> {
        if !self.turn()? {
            return Ok(None);
        }
        self.at += 1;
        if let Some(ahead) = self.content.items.get(self.at + AHEAD) {
            self.ordered.memory().prefetch(ahead.hint);
        }
        let item = &self.content.items[self.at - 1];
        Ok(Some((self.content.key(item), item.hint)))
    }

    /// The key before and its record's hint, which the cursor passes; `None` at the start.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub fn prev(&mut self) -> Result<Option<(&[u8], u64)>> {
        self.begin()?;
        while self.at == 0 {
            let Some(low) = self.low.take() else { return Ok(None) };
            self.load(&low, true);
            self.tell()?;
        }
        self.at -= 1;
        if let Some(ahead) = self.at.checked_sub(AHEAD).and_then(|at| self.content.items.get(at)) {
            self.ordered.memory().prefetch(ahead.hint);
        }
        let item = &self.content.items[self.at];
        Ok(Some((self.content.key(item), item.hint)))
    }

    /// Sees to it that keys are in hand, and tells whether there are any; those in hand before stay where they are.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub fn turn(&mut self) -> Result<bool> {
        self.begin()?;
        while self.at >= self.content.items.len() {
            let Some(high) = self.high.take() else { return Ok(false) };
            self.load(&high, false);
            self.tell()?;
        }
        Ok(true)
    }

    /// How many keys [`Self::next`] will give without looking at the index again.
    pub fn in_hand(&self) -> usize {
        self.content.items.len() - self.at
    }

    /// The key that is `n` keys ahead of the cursor with its hint; `None` where that is not in hand.
    #[inline]
    pub fn ahead(&self, n: usize) -> Option<(&[u8], u64)> {
        self.content.items.get(self.at + n).map(|item| (self.content.key(item), item.hint))
    }

    /// The key that is `n` keys behind the cursor, one of those that were in hand.
    #[inline]
    pub fn behind(&self, n: usize) -> Option<&[u8]> {
        let at = self.at.checked_sub(n)?;
        self.content.items.get(at).map(|item| self.content.key(item))
    }

    /// Asks for one of the lines of the leaf that comes next, the `nth` round and round: who asks once a key finds the leaf in the cache.
    #[inline]
    pub fn ask_next(&self, nth: usize) {
        if self.next_leaf != 0 {
            self.ordered.memory().prefetch(self.next_leaf + (nth as u64 % LEAF_LINES) * 64);
        }
    }

    /// Passes `n` keys, at most those in hand.
    #[inline]
    pub fn pass(&mut self, n: usize) {
        self.at = (self.at + n).min(self.content.items.len());
    }

    /// Finds the first leaf.
    fn begin(&mut self) -> Result<()> {
        let Some(start) = self.start.take() else { return self.tell() };
        self.ordered.settle()?;
        match start {
            Start::At(Bound::Unbounded) => self.load(&[], false),
            Start::At(Bound::Included(key)) => self.load(&key, false),
            Start::At(Bound::Excluded(key)) => {
                self.load(&key, false);
                self.at +=
                    usize::from(self.content.items.get(self.at).is_some_and(|i| self.content.key(i) == key));
            }
            Start::End => self.load_last(),
        }
        self.tell()
    }

    /// The next error that was met.
    fn tell(&mut self) -> Result<()> {
        self.errors.pop().map_or(Ok(()), Err)
    }

    fn load_last(&mut self) {
        let last = self.ordered.top.read().keys.last().to_vec();
        self.load(&last, false);
        while let Some(high) = self.high.take() {
            self.load(&high, false);
        }
        self.at = self.content.items.len();
    }

    /// Takes the leaf that holds `key`, and lies before the first key that is not below it.
    fn load(&mut self, key: &[u8], below: bool) {
        let ordered = self.ordered;
        self.content.clear();
        let (low, high, result) =
            ordered.with_group(key, below, |index, state| self.take(key, below, index, state));
        if let Err(error) = result {
            (self.low, self.high) = (low, high);
            self.errors.push(error);
        }
        let Content { items, .. } = &self.content;
        self.at = items.partition_point(|item| self.content.key(item) < key);
    }

    fn take(&mut self, key: &[u8], below: bool, index: usize, state: &State) {
        let place = if below { state.keys.find_below(key) } else { state.keys.find(key) };
        let ordered = self.ordered;
        let read = state.leaves[place].read(ordered.memory(), ordered.tree, &mut self.buf, &mut self.content);
        match read {
            Ok(read) if ordered.misses(&read) => self.errors.push(corrupt(
                state.leaves[place].page.at,
                "a leaf of which nothing was lost",
                0,
                1,
            )),
            Ok(_) => {}
            Err(error) => {
                self.content.clear();
                self.errors.push(error);
            }
        }
        if place == 0 {
            self.errors.extend(state.damaged.iter().map(super::group::Damaged::error));
        }
        let first = index == 0 && place == 0;
        if first {
            // Where the keys of a group belonged that can not be read, nobody knows.
            let damaged = &ordered.top.read().damaged;
            self.errors.extend(damaged.iter().map(|at| corrupt(*at, "a group that can be read", 1, 0)));
        }
        self.low = (!first).then(|| state.keys.get(place).to_vec());
        self.high = state.high_of(place).map(<[u8]>::to_vec);
        self.next_leaf = state.leaves.get(place + 1).map_or(0, |leaf| leaf.page.at);
    }
}
