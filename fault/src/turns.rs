//! Who has the turn of which bytes of a mapped file?
//!
//! Whoever answers a fault, allocates or removes has the turn of the bytes for as long as what it knows of them must stay
//! true. One leaf mutex guards who has which; it is held for a look at a short list, never across a call of the
//! file or of a table, and never while user memory is touched.
//!
//! Rules:
//! 1. Overlapping turns exclude each other, but for loads beside a turn that allocates: the source of a write may
//!    be a mapping of the very bytes it writes.
//! 2. A fault that may not wait and finds a conflict is dropped, and that is noted in the turn in its way: when this ends, its
//!    owner wakes whoever was dropped. The note is made before the turn can end, and the waking comes after.
//! 3. A turn that waits keeps newer faults out, or faults without end would keep it out; unless it waits for one
//!    that allocates: whose end may need those very faults.
//! 4. A turn that allocates becomes one that invalidates after the loads in it have ended; new ones are kept
//!    out meanwhile.

use crate::mutation::{self, Mutation};
use daxstore::iomap::FileRange;
use daxstore::sync::{Condvar, Mutex, MutexGuard};

/// What a turn is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// To answer a load.
    Read,
    /// To answer a store: holes and unwritten parts may get blocks.
    Write,
    /// To allocate blocks that nobody sees yet.
    Allocate,
    /// To change what the bytes are, or where.
    Invalidate,
}

impl Kind {
    /// Rule 1.
    const fn conflicts(self, other: Self) -> bool {
        !matches!((self, other), (Self::Allocate, Self::Read) | (Self::Read, Self::Allocate))
    }
}

/// Whether two ranges share a byte.
pub(crate) const fn overlap(a: FileRange, b: FileRange) -> bool {
    a.offset < b.end() && b.offset < a.end()
}

/// The smallest range with both in it.
fn hull(a: FileRange, b: FileRange) -> FileRange {
    let offset = a.offset.min(b.offset);
    FileRange { offset, len: a.end().max(b.end()) - offset }
}

/// A turn that somebody has; given back by [`Turns::end`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TurnId(u64);

#[derive(Clone, Copy, Debug)]
struct Turn {
    id: TurnId,
    range: FileRange,
    kind: Kind,
    /// It waits to become one that invalidates.
    upgrading: bool,
    /// Where faults were dropped because of it.
    dropped: Option<FileRange>,
}

impl Turn {
    /// What it is to those who come now.
    const fn acts_as(&self) -> Kind {
        if self.upgrading { Kind::Invalidate } else { self.kind }
    }

    const fn keeps_out(&self, range: FileRange, kind: Kind) -> bool {
        overlap(self.range, range) && self.acts_as().conflicts(kind)
    }

    fn note(&mut self, range: FileRange) {
        if !mutation::is(Mutation::DropSilently) {
            self.dropped = Some(self.dropped.map_or(range, |before| hull(before, range)));
        }
    }
}

#[derive(Debug, Default)]
struct State {
    held: Vec<Turn>,
    waiting: Vec<Turn>,
    /// How many threads wait to be notified.
    sleepers: usize,
    last: u64,
}

impl State {
    fn turn(&mut self, range: FileRange, kind: Kind) -> Turn {
        self.last += 1;
        Turn { id: TurnId(self.last), range, kind, upgrading: false, dropped: None }
    }

    /// Whether somebody other than `but` has a turn that keeps this one out.
    fn is_held(&self, range: FileRange, kind: Kind, but: Option<TurnId>) -> bool {
        self.held.iter().any(|turn| Some(turn.id) != but && turn.keeps_out(range, kind))
    }

    /// Rule 3: whether the end of what this one waits for can depend on a fault.
    fn waits_for_copy(&self, waiter: &Turn) -> bool {
        let copies = |turn: &Turn| turn.kind == Kind::Allocate && !turn.upgrading;
        let is = self.held.iter().any(|turn| copies(turn) && turn.keeps_out(waiter.range, waiter.kind));
        is && !mutation::is(Mutation::WaitersFirst)
    }

    /// The turn, held or waited for, that keeps a fault out.
    fn in_the_way(&mut self, range: FileRange, kind: Kind, but: Option<TurnId>) -> Option<&mut Turn> {
        let held = |turn: &Turn| Some(turn.id) != but && turn.keeps_out(range, kind);
        if let Some(i) = self.held.iter().position(held) {
            return self.held.get_mut(i);
        }
        let waiting = |turn: &Turn| turn.keeps_out(range, kind) && !self.waits_for_copy(turn);
        let i = self.waiting.iter().position(waiting)?;
        self.waiting.get_mut(i)
    }

    fn hold(&mut self, range: FileRange, kind: Kind) -> TurnId {
        let turn = self.turn(range, kind);
        self.held.push(turn);
        turn.id
    }

    fn find(&mut self, id: TurnId) -> Option<&mut Turn> {
        self.held.iter_mut().find(|turn| turn.id == id)
    }
}

/// The turns of one file.
#[derive(Debug, Default)]
pub struct Turns {
    state: Mutex<State>,
    changed: Condvar,
}

impl Turns {
    fn sleep<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        state.sleepers += 1;
        let mut state = self.changed.wait(state);
        state.sleepers -= 1;
        state
    }

    fn notify(&self, state: &State) {
        if state.sleepers > 0 {
            self.changed.notify_all();
        }
    }

    /// The turn of a fault in `range`, or `None` where somebody else is first, who then wakes `range` at the end.
    pub fn try_fault(&self, range: FileRange, kind: Kind) -> Option<TurnId> {
        let mut state = self.state.lock();
        if let Some(turn) = state.in_the_way(range, kind, None) {
            turn.note(range);
            return None;
        }
        Some(state.hold(range, kind))
    }

    /// A turn of `range` if it can be had at once; nobody is told otherwise.
    pub fn try_turn(&self, range: FileRange, kind: Kind) -> Option<TurnId> {
        let mut state = self.state.lock();
        if state.in_the_way(range, kind, None).is_some() {
            return None;
        }
        Some(state.hold(range, kind))
    }

    /// The turn of a fault in `range`, waited for.
    pub fn wait_fault(&self, range: FileRange, kind: Kind) -> TurnId {
        let mut state = self.state.lock();
        while state.in_the_way(range, kind, None).is_some() {
            state = self.sleep(state);
        }
        state.hold(range, kind)
    }

    /// The turn of `range`, waited for before faults that come later.
    pub fn wait(&self, range: FileRange, kind: Kind) -> TurnId {
        let mut state = self.state.lock();
        let turn = state.turn(range, kind);
        state.waiting.push(turn);
        while state.is_held(range, kind, None) {
            state = self.sleep(state);
        }
        let place = state.waiting.iter().position(|waiting| waiting.id == turn.id);
        let turn = place.map_or(turn, |i| state.waiting.swap_remove(i));
        state.held.push(turn);
        turn.id
    }

    /// The turn of exactly `range` that allocates, if there is one.
    #[must_use]
    pub fn allocating(&self, range: FileRange) -> Option<TurnId> {
        self.exactly(range, |kind| kind == Kind::Allocate)
    }

    /// The turn of exactly `range` that allocates or invalidates, if there is one.
    #[must_use]
    pub fn changing(&self, range: FileRange) -> Option<TurnId> {
        self.exactly(range, |kind| matches!(kind, Kind::Allocate | Kind::Invalidate))
    }

    fn exactly(&self, range: FileRange, is: impl Fn(Kind) -> bool) -> Option<TurnId> {
        let state = self.state.lock();
        state.held.iter().find(|turn| turn.range == range && is(turn.kind)).map(|turn| turn.id)
    }

    /// Makes a turn that allocates one that invalidates (rule 4).
    pub fn upgrade(&self, id: TurnId) {
        let mut state = self.state.lock();
        let Some(turn) = state.find(id) else { return };
        turn.upgrading = true;
        let range = turn.range;
        while state.is_held(range, Kind::Invalidate, Some(id)) && !mutation::is(Mutation::UpgradeAtOnce) {
            state = self.sleep(state);
        }
        if let Some(turn) = state.find(id) {
            turn.upgrading = false;
            turn.kind = Kind::Invalidate;
        }
    }

    /// Lets a fault's turn grow towards `want` as far as nobody else is in the way, in whole multiples of `slot`: the
    /// range it has then.
    pub fn extend(&self, id: TurnId, want: FileRange, slot: u64) -> FileRange {
        let mut state = self.state.lock();
        let Some(turn) = state.find(id).copied() else { return want };
        let mut got = hull(turn.range, want);
        while let Some(other) = state.in_the_way(got, turn.kind, Some(id)) {
            let clipped = clip(turn.range, got, other.range, slot);
            if clipped == got {
                got = turn.range;
                break;
            }
            got = clipped;
        }
        if let Some(turn) = state.find(id) {
            turn.range = got;
        }
        got
    }

    /// Ends a turn. Where faults were dropped because of it, the caller shall wake them now.
    #[must_use]
    pub fn end(&self, id: TurnId) -> Option<FileRange> {
        let mut state = self.state.lock();
        let place = state.held.iter().position(|turn| turn.id == id)?;
        let turn = state.held.swap_remove(place);
        self.notify(&state);
        turn.dropped
    }

    /// Where faults were dropped because of this turn so far.
    #[must_use]
    pub fn dropped(&self, id: TurnId) -> Option<FileRange> {
        self.state.lock().find(id).and_then(|turn| turn.dropped)
    }

    /// How many turns are held, and how many are waited for.
    #[must_use]
    pub fn count(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.held.len(), state.waiting.len())
    }
}

/// `got` without what `other` has of it on its side of `own`.
fn clip(own: FileRange, got: FileRange, other: FileRange, slot: u64) -> FileRange {
    let (start, end) = if other.offset >= own.end() {
        (got.offset, (other.offset - other.offset % slot).max(own.end()).min(got.end()))
    } else {
        let after = other.end().checked_next_multiple_of(slot).unwrap_or(own.offset);
        (after.min(own.offset).max(got.offset), got.end())
    };
    FileRange { offset: start, len: end - start }
}
