//! Which key comes next?
//!
//! A cursor lies between two keys. It has one leaf's keys in hand, taken out under the leaf's lock, and the bounds between which
//! they are all there were. Beyond a bound it looks for the leaf there anew: splits and merges that happen meanwhile change
//! nothing for it.
//!
//! Invariant: keys that are there from before a cursor passes to after are met once, in order. Of keys that come and go
//! meanwhile each is met or not.

use super::group::State;
use super::leaf::{Content, Hint};
use super::mutation::{self, Mutation};
use super::{Ordered, Space, corrupt};
use crate::error::{Error, Result};
use crate::media::Media;
use std::ops::Bound;

/// How many records ahead are asked for.
const AHEAD: usize = 8;
/// Lines of a leaf of short keys.
const LEAF_LINES: u64 = 32;

/// How many keys are taken out of a leaf at once, at least.
const TAKEN: usize = 16;

/// How many cursors' memory is kept.
const PARTS: usize = 16;

/// Where a cursor lies before it has a leaf.
#[derive(Debug)]
enum Start {
    At(Bound<Vec<u8>>),
    End,
}

/// A bound, or that there is none, with memory that is used again.
#[derive(Debug, Default)]
struct Edge {
    key: Vec<u8>,
    is: bool,
}

impl Edge {
    fn set(&mut self, key: Option<&[u8]>) {
        self.is = key.is_some();
        self.key.clear();
        self.key.extend_from_slice(key.unwrap_or_default());
    }
}

/// A place between two keys of an index.
#[derive(Debug)]
pub struct Cursor<'o, S: Space> {
    ordered: &'o Ordered<S>,
    start: Option<Start>,
    content: Content,
    /// The page that `content` is taken out of.
    buf: Vec<u8>,
    /// How many keys of `content` lie before.
    at: usize,
    /// Keys from `low` on and below `high` are in hand, or in `buf`; without a bound there is nothing beyond.
    low: Edge,
    high: Edge,
    /// What is told before the keys in hand.
    errors: Vec<Error>,
    /// Where the leaf above most likely lies; 0: nobody knows.
    next_leaf: u64,
}

/// Memory of a cursor, for the next one.
#[derive(Debug, Default)]
pub(super) struct Parts {
    content: Content,
    buf: Vec<u8>,
}

impl<S: Space> Drop for Cursor<'_, S> {
    fn drop(&mut self) {
        if cfg!(loom) {
            return;
        }
        self.content.clear();
        let mut parts = self.ordered.parts.lock();
        if parts.len() < PARTS {
            parts.push(Parts {
                content: std::mem::take(&mut self.content),
                buf: std::mem::take(&mut self.buf),
            });
        }
    }
}

/// What is to be looked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// Keys that are not below; what is below is left out.
    From,
    /// The same, with what is below.
    Around,
    /// Keys that are below.
    Below,
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
        // A model need not look at who meets whom here.
        let kept = if cfg!(loom) { None } else { self.parts.lock().pop() };
        let Parts { content, buf } = kept.unwrap_or_default();
        let (low, high, errors, start) = (Edge::default(), Edge::default(), Vec::new(), Some(start));
        Cursor { ordered: self, start, content, buf, at: 0, low, high, errors, next_leaf: 0 }
    }

    /// Calls `with` with the group that holds `key`, or with `below` the keys just below it. Where that can not be read, its bounds.
    fn with_group<T>(
        &self,
        key: &[u8],
        below: bool,
        with: impl FnOnce(usize, &State) -> T,
    ) -> std::result::Result<T, Box<Unread>> {
        loop {
            let (index, group) = {
                let top = self.top.read();
                let index = if below { top.keys.find_below(key) } else { top.keys.find(key) };
                (index, top.groups[index].clone())
            };
            let state = group.state.read();
            let holds = if below { state.holds_below(key) } else { state.holds(key) };
            if holds || (mutation::is(Mutation::NoRetry) && state.loaded) {
                return Ok(with(index, &state));
            }
            let loaded = state.loaded || state.retired;
            drop(state);
            if !loaded {
                let mut state = group.state.write();
                if let Err(error) = state.load(self.memory(), self.tree) {
                    let high = state.high.as_ref().map(|high| high.to_vec());
                    drop(state);
                    let top = self.top.read();
                    let index = if below { top.keys.find_below(key) } else { top.keys.find(key) };
                    let low = (index > 0).then(|| top.keys.get(index).to_vec());
                    return Err(Box::new(Unread { low, high, error }));
                }
            } else {
                daxstore::sync::thread::yield_now();
            }
        }
    }
}

/// Keys that can not be read: their bounds, and why.
struct Unread {
    low: Option<Vec<u8>>,
    high: Option<Vec<u8>>,
    error: Error,
}

impl<S: Space> Cursor<'_, S> {
    /// The next key and where its record lay, which the cursor passes; `None` at the end. An error names what could not be
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
            self.ordered.memory().prefetch(ahead.hint.at());
        }
        let item = &self.content.items[self.at - 1];
        Ok(Some((self.content.key(item), item.hint.at())))
    }

    /// The key before and where its record lay, which the cursor passes; `None` at the start.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub fn prev(&mut self) -> Result<Option<(&[u8], u64)>> {
        self.begin(Wanted::Around)?;
        while self.at == 0 {
            if !std::mem::take(&mut self.low.is) {
                return Ok(None);
            }
            let low = std::mem::take(&mut self.low.key);
            self.load(low, Wanted::Below);
            self.tell()?;
        }
        self.at -= 1;
        if let Some(ahead) = self.at.checked_sub(AHEAD).and_then(|at| self.content.items.get(at)) {
            self.ordered.memory().prefetch(ahead.hint.at());
        }
        let item = &self.content.items[self.at];
        Ok(Some((self.content.key(item), item.hint.at())))
    }

    /// Sees to it that keys are in hand, and tells whether there are any; those in hand before stay where they are.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub fn turn(&mut self) -> Result<bool> {
        self.begin(Wanted::From)?;
        while self.at >= self.content.items.len() && !self.content.more(&self.buf, TAKEN) {
            if !std::mem::take(&mut self.high.is) {
                return Ok(false);
            }
            let high = std::mem::take(&mut self.high.key);
            self.load(high, Wanted::From);
            self.tell()?;
        }
        Ok(true)
    }

    /// Takes keys out of the leaf in hand, if it has them, until there are `n` ahead.
    #[inline]
    pub fn prepare(&mut self, n: usize) {
        let ahead = self.content.items.len() - self.at;
        if ahead < n {
            self.content.more(&self.buf, (n - ahead).max(TAKEN));
        }
    }

    /// How many keys were taken out and not passed.
    pub fn in_hand(&self) -> usize {
        self.content.items.len() - self.at
    }

    /// The key that is `n` keys ahead of the cursor with its hint; `None` where that is not in hand.
    #[inline]
    pub fn ahead(&self, n: usize) -> Option<(&[u8], Hint)> {
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
    fn begin(&mut self, wanted: Wanted) -> Result<()> {
        let Some(start) = self.start.take() else { return self.tell() };
        self.ordered.settle()?;
        match start {
            Start::At(Bound::Unbounded) => self.load(Vec::new(), wanted),
            Start::At(Bound::Included(key)) => self.load(key, wanted),
            Start::At(Bound::Excluded(key)) => {
                self.load(key.clone(), wanted);
                self.prepare(1);
                let is = self.content.items.get(self.at).is_some_and(|item| self.content.key(item) == key);
                self.at += usize::from(is);
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
        self.load(last, Wanted::Around);
        while std::mem::take(&mut self.high.is) {
            let high = std::mem::take(&mut self.high.key);
            self.load(high, Wanted::Around);
        }
        self.at = self.content.items.len();
    }

    /// Takes the leaf that holds `key`, and lies before the first key that is not below it.
    fn load(&mut self, key: Vec<u8>, wanted: Wanted) {
        let ordered = self.ordered;
        self.content.clear();
        let take = |index, state: &_| self.take(&key, wanted, index, state);
        match ordered.with_group(&key, wanted == Wanted::Below, take) {
            Ok(()) => {}
            Err(unread) => {
                self.low.set(unread.low.as_deref());
                self.high.set(unread.high.as_deref());
                self.errors.push(unread.error);
                self.at = 0;
                return;
            }
        }
        if wanted == Wanted::From {
            self.at = 0;
            // What is in hand begins with `key`, where anything lies below it.
            self.low.key = key;
            return;
        }
        let Content { items, .. } = &self.content;
        self.at = items.partition_point(|item| self.content.key(item) < &*key);
    }

    fn take(&mut self, key: &[u8], wanted: Wanted, index: usize, state: &State) {
        let place = match wanted {
            Wanted::Below => state.keys.find_below(key),
            Wanted::From | Wanted::Around => state.keys.find(key),
        };
        let (ordered, leaf) = (self.ordered, &state.leaves[place]);
        let read = match wanted {
            Wanted::From => leaf.begin(ordered.memory(), ordered.tree, key, &mut self.buf, &mut self.content),
            Wanted::Around | Wanted::Below => leaf
                .read(ordered.memory(), ordered.tree, &mut self.buf, &mut self.content)
                .map(|read| (read, false)),
        };
        let below = read.as_ref().is_ok_and(|(_, below)| *below);
        match read {
            Ok((read, _)) if ordered.misses(&read) => {
                self.errors.push(corrupt(leaf.page.at, "a leaf of which nothing was lost", 0, 1));
            }
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
        match wanted {
            Wanted::From => self.low.is = below || !first,
            Wanted::Around | Wanted::Below => self.low.set((!first).then(|| state.keys.get(place))),
        }
        self.high.set(state.high_of(place));
        self.next_leaf = state.leaves.get(place + 1).map_or(0, |leaf| leaf.page.at);
    }
}
