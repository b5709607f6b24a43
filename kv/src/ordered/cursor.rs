//! Which key comes next?
//!
//! A cursor lies between two keys. It has one leaf in hand, copied under the leaf's lock, and the bounds between which its keys
//! are all there were. Beyond a bound it looks for the leaf there anew: splits and merges that happen meanwhile change
//! nothing for it. Who reads upwards has the leaf above brought before it is reached ([`Cursor::look_ahead`]).
//!
//! Invariant: keys that are there from before a cursor passes to after are met once, in order. Of keys that come and go
//! meanwhile each is met or not.

use super::copies::{Answer, LeafCopy, Wanted as Make};
use super::group::{Damaged, Group, Leaf, State};
use super::hand::{Hand, Kept};
use super::leaf::Hint;
use super::mutation::{self, Mutation};
use super::view::{Listed, Part, Slot};
use super::{LEAF_BYTES, Ordered, Page, Space, corrupt};
use crate::error::{Error, Result};
use crate::media::Media;
use daxstore::sync::Arc;
use std::ops::{Bound, Range};

/// How many records ahead are asked for by who takes keys one by one.
const AHEAD: usize = 8;

/// Where a cursor lies before it has a leaf.
#[derive(Clone, Copy, Debug)]
enum Start {
    /// Before the key that is wanted.
    Before,
    /// Behind it.
    Behind,
    End,
}

/// What is to be looked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// The leaf of a key.
    Of,
    /// The leaf of the keys just below it.
    Below,
}

/// What is wanted of the first leaf of a cursor that goes up.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    /// So many keys, if it has them.
    pub keys: usize,
    /// So many records are asked for as soon as it is known where they may lie.
    pub records: usize,
    /// About how many bytes each has.
    pub bytes: u64,
    /// Copies of leaves are read, and made, of records with sequence numbers up to this one.
    pub copies: Option<u64>,
}

impl Ask {
    const ALL: Self = Self { keys: usize::MAX, records: 0, bytes: 0, copies: None };
}

/// A place between two keys of an index.
#[derive(Debug)]
pub struct Cursor<'o, S: Space> {
    ordered: &'o Ordered<S>,
    start: Option<Start>,
    /// How many keys in hand lie before.
    at: usize,
    /// Whether the leaf above was brought.
    is_ahead: bool,
    ask: Ask,
    /// Keys beyond are left out, going up.
    end: Bound<Vec<u8>>,
    kept: Kept<'o>,
}

impl<S: Space> Ordered<S> {
    /// A cursor before the first key that is at least, or above, `from`. It sees every change that was told of before.
    pub fn cursor(&self, from: Bound<&[u8]>) -> Cursor<'_, S> {
        self.cursor_between(from, Bound::Unbounded)
    }

    /// As [`Self::cursor`], for going up, to `end` and no further.
    pub fn cursor_between(&self, from: Bound<&[u8]>, end: Bound<Vec<u8>>) -> Cursor<'_, S> {
        let (start, key) = match from {
            Bound::Unbounded => (Start::Before, &[][..]),
            Bound::Included(key) => (Start::Before, key),
            Bound::Excluded(key) => (Start::Behind, key),
        };
        self.cursor_at(start, key, end)
    }

    /// A cursor after the last key.
    pub fn cursor_at_end(&self) -> Cursor<'_, S> {
        self.cursor_at(Start::End, &[], Bound::Unbounded)
    }

    fn cursor_at(&self, start: Start, key: &[u8], end: Bound<Vec<u8>>) -> Cursor<'_, S> {
        let mut kept = Kept::take(&self.parts);
        kept.hand.clear();
        kept.wanted.clear();
        kept.wanted.extend_from_slice(key);
        let ask = Ask::ALL;
        Cursor { ordered: self, start: Some(start), at: 0, is_ahead: false, ask, end, kept }
    }

    /// Calls `with` with the group that holds `key`, or with `below` the keys just below it. Where that can not be read, its bounds.
    fn with_group<T>(
        &self,
        key: &[u8],
        below: bool,
        with: impl FnOnce(usize, &Arc<Group>, &State) -> T,
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
                return Ok(with(index, &group, &state));
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

    /// Takes a leaf into `hand`: that of `key`, from there on, or that of the keys just below it.
    fn take(&self, hand: &mut Hand, key: &[u8], wanted: Wanted, ask: Ask) {
        hand.clear();
        let below = wanted == Wanted::Below;
        let part = Part { from: if below { &[] } else { key }, most: ask.keys };
        let taken = self.with_group(key, below, |index, group, state| {
            let place = if below { state.keys.find_below(key) } else { state.keys.find(key) };
            self.take_leaf(hand, group, state, (index, place), part, ask);
        });
        if let Err(unread) = taken {
            hand.low.set(unread.low.as_deref());
            hand.high.set(unread.high.as_deref());
            hand.errors.push(unread.error);
        }
    }

    /// Takes `keys` keys of the leaf above that in `hand` into `next`. Where nothing was split or merged, it lies in the next place of the group.
    fn take_above(&self, hand: &Hand, next: &mut Hand, keys: usize, ask: Ask) {
        let (key, ask) = (&*hand.high.key, Ask { keys, records: 0, ..ask });
        if let Some((group, place)) = &hand.spot {
            let state = group.state.read();
            if state.holds(key) && state.keys.bound_of(place + 1) == Some(key) {
                next.clear();
                let part = Part { from: &[], most: keys };
                self.take_leaf(next, group, &state, (usize::MAX, place + 1), part, ask);
                return next.low.set(Some(key));
            }
        }
        self.take(next, key, Wanted::Of, ask);
    }

    /// Takes `part` of the leaf at this place of the group with this index into `hand`, and asks for the first records.
    fn take_leaf(
        &self,
        hand: &mut Hand,
        group: &Arc<Group>,
        state: &State,
        (index, place): (usize, usize),
        part: Part<'_>,
        ask: Ask,
    ) {
        let leaf = &state.leaves[place];
        match ask.copies.map_or(Answer::No, |seen| leaf.copy.ask(seen, &self.clock)) {
            Answer::Read(copy) => {
                if let Some(above) = state.leaves.get(place + 1) {
                    above.copy.prefetch();
                }
                hand.places = copy.below(part.from)..copy.len();
                hand.copy = Some(copy);
            }
            Answer::Make(make) => {
                self.take_view(hand, leaf, Part { from: &[], most: usize::MAX }, Ask { records: 0, ..ask });
                hand.places.start = hand.view.below(part.from);
                hand.make = hand.errors.is_empty().then_some(make);
            }
            Answer::No => self.take_view(hand, leaf, part, ask),
        }
        if place == 0 {
            hand.errors.extend(state.damaged.iter().map(Damaged::error));
        }
        let first = index == 0 && place == 0;
        if first {
            // Where the keys of a group belonged that can not be read, nobody knows.
            let damaged = &self.top.read().damaged;
            hand.errors.extend(damaged.iter().map(|at| corrupt(*at, "a group that can be read", 1, 0)));
        }
        let low = if hand.view.is_below() { part.from } else { state.keys.get(place) };
        hand.low.set((hand.view.is_below() || !first).then_some(low));
        hand.spot = Some((group.clone(), place));
        if hand.view.above(&mut hand.high.key) {
            hand.high.is = true;
            return;
        }
        hand.high.set(state.high_of(place));
        let above = state.leaves.get(place + 1).map_or(Page { at: 0, bytes: 0 }, |leaf| leaf.page);
        hand.above = above.at..above.at + above.bytes.min(LEAF_BYTES);
    }

    /// Takes `part` of the keys of `leaf` into `hand`, and asks for the first records.
    fn take_view(&self, hand: &mut Hand, leaf: &Leaf, part: Part<'_>, ask: Ask) {
        let media = self.memory();
        let read = leaf.view(media, self.tree, &mut hand.view, part, |view| {
            for hint in (0..ask.records).map_while(|n| view.hint(n)) {
                media.prefetch_bytes(hint.at(), ask.bytes);
            }
        });
        match read {
            Ok(read) if self.misses(&read) => {
                hand.errors.push(corrupt(leaf.page.at, "a leaf of which nothing was lost", 0, 1));
            }
            Ok(_) => {}
            Err(error) => hand.errors.push(error),
        }
        hand.places = 0..hand.view.len();
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
        Ok(self.lend(self.at - 1, Some(self.at + AHEAD)))
    }

    /// The key before and where its record lay, which the cursor passes; `None` at the start.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub fn prev(&mut self) -> Result<Option<(&[u8], u64)>> {
        self.begin()?;
        while self.at == self.kept.hand.places.start {
            if !self.kept.hand.low.is {
                return Ok(None);
            }
            self.is_ahead = false;
            let parts = &mut *self.kept;
            let key = std::mem::take(&mut parts.hand.low.key);
            self.ordered.take(&mut parts.hand, &key, Wanted::Below, Ask::ALL);
            self.at = parts.hand.below(&key);
            self.tell()?;
        }
        self.at -= 1;
        Ok(self.lend(self.at, self.at.checked_sub(AHEAD)))
    }

    /// The key in the place `at`, and asks for the record of the one in the place `ahead`.
    fn lend(&mut self, at: usize, ahead: Option<usize>) -> Option<(&[u8], u64)> {
        let parts = &mut *self.kept;
        let view = &parts.hand.view;
        if let Some(hint) = ahead.and_then(|ahead| view.hint(ahead)) {
            self.ordered.memory().prefetch(hint.at());
        }
        parts.key.clear();
        view.append_key(at, &mut parts.key);
        Some((&parts.key, view.hint(at)?.at()))
    }

    /// Sees to it that keys are in hand, and tells whether there are any.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub fn turn(&mut self) -> Result<bool> {
        self.begin()?;
        while self.at >= self.kept.hand.places.end {
            if !self.look_ahead(usize::MAX) {
                return Ok(false);
            }
            let parts = &mut *self.kept;
            std::mem::swap(&mut parts.hand, &mut parts.ahead);
            (self.at, self.is_ahead) = (parts.hand.places.start, false);
            self.tell()?;
        }
        Ok(true)
    }

    /// Brings the leaf above that in hand, or `keys` keys of it, unless that was done: whether there is one.
    pub fn look_ahead(&mut self, keys: usize) -> bool {
        let parts = &mut *self.kept;
        if !self.is_ahead && parts.hand.high.is {
            self.ordered.take_above(&parts.hand, &mut parts.ahead, keys, self.ask);
            parts.ahead.end_at(&self.end);
            self.is_ahead = true;
        }
        self.is_ahead
    }

    /// How many keys in hand were not passed.
    #[inline]
    pub fn in_hand(&self) -> usize {
        self.kept.hand.places.end - self.at
    }

    /// How many keys are known that were not passed, of leaves without a copy.
    #[inline]
    pub fn known(&self) -> usize {
        self.in_hand() + self.ahead().map_or(0, |ahead| ahead.places.len())
    }

    /// The leaf above, if it was brought and has no copy.
    #[inline]
    fn ahead(&self) -> Option<&Hand> {
        Some(&self.kept.ahead).filter(|ahead| self.is_ahead && ahead.is_view())
    }

    /// The copy of the leaf in hand, and the places of its records that were not passed.
    #[inline]
    pub fn copied(&self) -> Option<(&LeafCopy, Range<usize>)> {
        let hand = &self.kept.hand;
        Some((hand.copy.as_ref()?, self.at..hand.places.end))
    }

    /// The copy of the leaf in hand.
    #[inline]
    pub fn copy(&self) -> Option<&LeafCopy> {
        self.kept.hand.copy.as_deref()
    }

    /// The copy of the leaf above, if that was brought and has one, and its first place.
    #[inline]
    pub fn copy_ahead(&self) -> Option<(&LeafCopy, usize)> {
        let ahead = &self.kept.ahead;
        Some((ahead.copy.as_deref().filter(|_| self.is_ahead)?, ahead.places.start))
    }

    /// The copy that is to be made of the leaf in hand, once; [`Self::whole`] has its keys then.
    #[inline]
    pub fn wanted_copy(&mut self) -> Option<Make> {
        self.kept.hand.make.take()
    }

    /// All keys of the leaf in hand.
    pub fn whole(&self) -> Listed<'_> {
        let view = &self.kept.hand.view;
        view.listed(0..view.len())
    }

    /// Puts the copy that was made in place of the leaf in hand.
    pub fn take_copy(&mut self, copy: Arc<LeafCopy>) {
        self.kept.hand.copy = Some(copy);
    }

    /// Where the record of the key that is `n` keys ahead of the cursor may lie; `None` where that key is not known.
    #[inline]
    pub fn hint(&self, n: usize) -> Option<Hint> {
        let (hand, at) = self.nth(n);
        hand.view.hint(at)
    }

    /// Appends the key that is `n` keys ahead of the cursor to `out`; nothing where it is not known.
    #[inline]
    pub fn append_key(&self, n: usize, out: &mut Vec<u8>) {
        let (hand, at) = self.nth(n);
        hand.view.append_key(at, out);
    }

    /// The keys in hand that were not passed, and those of the leaf above, if that was brought.
    #[inline]
    pub fn listed(&self) -> (Listed<'_>, &[Slot]) {
        let ahead = self.ahead().map_or(&[][..], |ahead| ahead.view.slots(ahead.places.clone()));
        (self.kept.hand.view.listed(self.at..self.kept.hand.places.end), ahead)
    }

    #[inline]
    fn nth(&self, n: usize) -> (&Hand, usize) {
        let (parts, at) = (&*self.kept, self.at + n);
        match (at.checked_sub(parts.hand.places.end), self.ahead()) {
            (Some(at), Some(ahead)) => (ahead, at),
            _ => (&parts.hand, at),
        }
    }

    /// What is to be asked for as soon as the first leaf is taken.
    pub fn ask_first(&mut self, ask: Ask) {
        self.ask = ask;
    }

    /// Which bytes of the leaf above were not asked for: who asks for some once a key finds the leaf in the cache.
    #[inline]
    pub fn unasked(&mut self) -> &mut Range<u64> {
        &mut self.kept.hand.above
    }

    /// Passes `n` keys, at most those in hand.
    #[inline]
    pub fn pass(&mut self, n: usize) {
        self.at = (self.at + n).min(self.kept.hand.places.end);
    }

    /// Memory for who reads with the cursor, empty.
    pub fn take_bytes(&mut self) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.kept.bytes);
        bytes.clear();
        bytes
    }

    /// Gives that memory back.
    pub fn give_bytes(&mut self, bytes: Vec<u8>) {
        self.kept.bytes = bytes;
    }

    /// Finds the first leaf.
    fn begin(&mut self) -> Result<()> {
        let Some(start) = self.start else { return self.tell() };
        self.start = None;
        self.ordered.settle()?;
        let parts = &mut *self.kept;
        match start {
            Start::Before | Start::Behind => {
                self.ordered.take(&mut parts.hand, &parts.wanted, Wanted::Of, self.ask);
                self.at = parts.hand.places.start;
                self.at +=
                    usize::from(matches!(start, Start::Behind) && parts.hand.is(self.at, &parts.wanted));
            }
            Start::End => self.take_last(),
        }
        let parts = &mut *self.kept;
        parts.hand.end_at(&self.end);
        self.at = self.at.min(parts.hand.places.end);
        self.tell()
    }

    /// The next error that was met.
    #[inline]
    fn tell(&mut self) -> Result<()> {
        self.kept.hand.errors.pop().map_or(Ok(()), Err)
    }

    fn take_last(&mut self) {
        let parts = &mut *self.kept;
        let mut key = self.ordered.top.read().keys.last().to_vec();
        loop {
            // What is told of a leaf that is passed here is told of all the same.
            let errors = std::mem::take(&mut parts.hand.errors);
            self.ordered.take(&mut parts.hand, &key, Wanted::Of, Ask::ALL);
            parts.hand.errors.extend(errors);
            if !parts.hand.high.is {
                break;
            }
            key.clone_from(&parts.hand.high.key);
        }
        self.at = parts.hand.places.end;
    }
}
