//! How is a key changed, durably, with one fence?
//!
//! [`Core`] is a database over any memory. A change writes its record into a free slot and a note into its session's ring, past the
//! cache; one fence makes both durable. Then the index is made to name the record, by a plain store that is written back later, with
//! others (`session`).
//!
//! Invariants (`docs/kv.md` has them all):
//! 1. K3: a change that returned is durable: its record, and the note that leads recovery to it.
//! 2. K4: the index names a record only when it is durable. So what anybody reads stays, whatever happens.
//! 3. All changes of a key are made under its lock, and their sequence numbers ascend.
//! 4. What a change needs (a slot, an entry) it has before it writes anything.

use crate::chunks::Reserve;
use crate::env::{Env, TreeId};
use crate::error::{Error, Result};
use crate::hash::{Found, Full, Index, Look, Place, Room};
use crate::heap::{self, Heap, class_of};
use crate::held::Held;
use crate::layout::superblock::SEQUENCE_LIMIT;
use crate::media::Media;
use crate::mutation::{self, Mutation};
use crate::record::{self, Head, Key, MAX_VALUE, TOLD, TOMBSTONE};
use crate::ring::Note;
use crate::sealed::seal;
use crate::session::{Old, Seen, Session, Sessions, Taken};
use crate::snapshots::Snapshots;
use crate::stripes::Stripes;
use crate::superblock::{SEQUENCES, store};
use crate::sweep::Sweep;
use crate::trees::{TreeState, Trees};
use daxstore::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use daxstore::sync::{Arc, Mutex};
use std::borrow::Cow;

/// Longer values are read under a pin: their space may be the pool's again meanwhile.
const UNPINNED: usize = 4096;

/// A database over some memory.
#[derive(Debug)]
pub struct Core<M: Media> {
    pub(crate) env: Arc<Env<M>>,
    pub(crate) index: Index,
    pub(crate) salt: u64,
    pub(crate) stripes: Stripes,
    pub(crate) sessions: Sessions,
    pub(crate) heap: Heap,
    pub(crate) sweep: Sweep,
    pub(crate) snapshots: Snapshots,
    pub(crate) held: Held,
    pub(crate) trees: Trees<M>,
    /// The first sequence number that can be given out.
    first: u64,
    /// The next sequence number.
    pub(crate) next: AtomicU64,
    /// No sequence number at or above it is used before it moved, durably.
    limit: AtomicU64,
    moving_limit: Mutex<()>,
    poisoned: AtomicBool,
    /// Whether ordered indexes may not have what was replayed, in their leaves.
    pub(crate) has_replayed: AtomicBool,
    /// Held while space is looked for that can go back to the pool.
    pub(crate) compacting: Mutex<()>,
    pub(crate) read_only: bool,
}

/// What a change is to do.
pub enum Action<'v> {
    /// The key gets this value.
    Put(Cow<'v, [u8]>),
    /// The key is deleted.
    Delete,
    /// Nothing changes.
    Nothing,
}

/// How an attempt at a change ended.
enum Attempt {
    /// It was made; whether the key had a value before.
    Done(bool),
    /// There was no free slot of this class; whether the reserve may be used for one.
    NoSlot(usize, Reserve),
    /// There was no room in the index.
    Full(Full),
}

/// A change is under way, for snapshots, until it goes.
pub(crate) struct Active<'a>(&'a AtomicU64);

impl Drop for Active<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.store(u64::MAX, Ordering::Release);
    }
}

/// What [`Core`] is made of.
pub(crate) struct Parts<M: Media> {
    pub env: Arc<Env<M>>,
    pub index: Index,
    pub salt: u64,
    pub limit: u64,
    pub sweep: Sweep,
    pub trees: Trees<M>,
    pub read_only: bool,
}

impl<M: Media> Core<M> {
    /// A database of these parts.
    pub(crate) fn new(parts: Parts<M>) -> Self {
        let limit = parts.limit;
        Self {
            env: parts.env,
            index: parts.index,
            salt: parts.salt,
            stripes: Stripes::default(),
            sessions: Sessions::new(parts.salt),
            heap: Heap::default(),
            sweep: parts.sweep,
            snapshots: Snapshots::default(),
            held: Held::default(),
            trees: parts.trees,
            first: limit,
            next: AtomicU64::new(limit),
            limit: AtomicU64::new(limit),
            moving_limit: Mutex::default(),
            poisoned: AtomicBool::new(false),
            has_replayed: AtomicBool::new(false),
            compacting: Mutex::default(),
            read_only: parts.read_only,
        }
    }

    /// The memory.
    #[inline]
    pub(crate) fn media(&self) -> &M {
        &self.env.media
    }

    /// The sequence number given out last.
    pub(crate) fn last_sequence(&self) -> u64 {
        self.next.load(Ordering::SeqCst) - 1
    }

    /// How many sequence numbers were given out since the database was opened.
    pub(crate) fn changes(&self) -> u64 {
        self.next.load(Ordering::Relaxed) - self.first
    }

    /// After a failure of which nobody knows what is durable, nothing is changed any more.
    pub(crate) fn poison<T>(&self, done: Result<T>) -> Result<T> {
        if done.is_err() {
            self.poisoned.store(true, Ordering::Release);
        }
        done
    }

    /// Takes a session for a change, and writes its group back if that is due.
    #[inline]
    pub(crate) fn begin(&self) -> Result<Taken<'_>> {
        if self.read_only {
            return Err(Error::ReadOnly);
        }
        if self.poisoned.load(Ordering::Relaxed) {
            return Err(Error::Poisoned);
        }
        if self.has_replayed.load(Ordering::Relaxed) {
            self.finish_some()?;
        }
        let mut taken = self.sessions.take();
        if taken.session.is_due() {
            self.write_back(&mut taken)?;
        }
        Ok(taken)
    }

    /// A sequence number that was never used, also not by a change that power cut off.
    #[inline]
    pub(crate) fn sequence(&self) -> Result<u64> {
        let sequence = self.next.fetch_add(1, Ordering::SeqCst);
        if sequence >= self.limit.load(Ordering::Acquire) {
            self.move_limit(sequence)?;
        }
        Ok(sequence)
    }

    #[cold]
    fn move_limit(&self, sequence: u64) -> Result<()> {
        let _one = self.moving_limit.lock();
        let mut limit = self.limit.load(Ordering::Acquire);
        if sequence < limit {
            return Ok(());
        }
        while limit <= sequence {
            limit += SEQUENCES;
        }
        if !mutation::is(Mutation::NoLimit) {
            store(self.media(), SEQUENCE_LIMIT, seal(self.salt, SEQUENCE_LIMIT, limit));
            self.poison(self.media().fence())?;
        }
        self.limit.store(limit, Ordering::Release);
        Ok(())
    }

    /// Changes `key` as `decide` says, who is given the record that it has; asked again where room had to be made first. Whether the
    /// key had a value before. `expected`: bytes of the value, where they are known.
    ///
    /// # Errors
    /// [`Error::NoSpace`], [`Error::ValueLength`], [`Error::ReadOnly`], before anything changed; damage; those of `decide`.
    #[inline]
    pub(crate) fn change<'v>(
        &self,
        tree: &TreeState<M>,
        key: &Key<'_>,
        expected: Option<usize>,
        mut decide: impl FnMut(Option<&Found>) -> Result<Action<'v>>,
    ) -> Result<bool> {
        // Before any locked instruction: until the stores of the change before are out, nothing behind one begins.
        self.index.prefetch_head(self.media(), key.hash);
        let mut taken = self.begin()?;
        if let Some(value) = expected {
            self.expect(&taken.session, key, value);
        }
        let mut has_split = false;
        loop {
            match self.attempt(&mut taken, tree, key, &mut decide, has_split)? {
                Attempt::Done(live) => return Ok(live),
                Attempt::NoSlot(class, reserve) => self.refill(&mut taken, class, reserve)?,
                Attempt::Full(full) => {
                    self.index.split(&self.env, &self.stripes, key.hash, full, Room::Enough)?;
                    self.env.collect()?;
                    has_split = true;
                }
            }
        }
    }

    /// Asks for the lines at the edges of the slot that a record of `key` will be written to: only parts of them are stored, so they come from memory
    /// first, best while the index is looked at.
    #[inline]
    fn expect(&self, session: &Session, key: &Key<'_>, value: usize) {
        let bytes = Head::new(0, key, value, 0).bytes();
        if let Some(at) = class_of(bytes).and_then(|class| session.kept.peek(class)) {
            self.media().prefetch_write(at);
            self.media().prefetch_write(at + bytes);
        }
    }

    /// Says that a change is under way, before it takes its number.
    #[inline]
    pub(crate) fn activate<'s>(&self, seen: &'s Seen) -> Active<'s> {
        seen.active.store(self.next.load(Ordering::Relaxed), Ordering::Relaxed);
        Active(&seen.active)
    }

    #[inline]
    fn attempt<'v>(
        &self,
        taken: &mut Taken<'_>,
        tree: &TreeState<M>,
        key: &Key<'_>,
        decide: &mut impl FnMut(Option<&Found>) -> Result<Action<'v>>,
        has_split: bool,
    ) -> Result<Attempt> {
        let _active = self.activate(taken.seen);
        // A locked instruction: what is active is seen by every snapshot that comes after this.
        let _pin = self.env.pin();
        let _held = self.stripes.lock(key.hash);
        let look = self.index.look(self.media(), key)?;
        let found = match look {
            Look::Found(found) => Some(found),
            Look::Free(_) | Look::Full(_) => None,
        };
        let live = found.filter(|found| !found.head.is(TOMBSTONE) && tree.has(&found.head));
        let (value, flags) = match decide(live.as_ref())? {
            Action::Put(value) => (value, flags_of(live.as_ref(), true)),
            Action::Delete if live.is_some() => (Cow::Borrowed(&[][..]), flags_of(live.as_ref(), false)),
            Action::Delete | Action::Nothing => return Ok(Attempt::Done(live.is_some())),
        };
        if value.len() > MAX_VALUE {
            return Err(Error::ValueLength(value.len()));
        }
        // Who drops it waits for those that were under way before.
        if flags & TOMBSTONE == 0 && tree.dropped.load(Ordering::SeqCst) {
            return Err(Error::TreeDropped);
        }
        let head = Head::new(0, key, value.len(), flags);
        let bytes = head.bytes();
        let Some(at) = self.slot(&mut taken.session, bytes)? else {
            let reserve = if found.is_some() { Reserve::Use } else { Reserve::Keep };
            return Ok(Attempt::NoSlot(class_of(bytes).unwrap_or(0), reserve));
        };
        let place = match self.place(key, look)? {
            Ok(place) => place,
            Err(full) => {
                self.put_slot_back(&mut taken.session, at, bytes)?;
                return Ok(Attempt::Full(full));
            }
        };
        let sequence = self.sequence()?;
        let change = Change { key, place, found, at, bytes, sequence, flags };
        self.make_durable(taken, &change, &value)?;
        match self.publish(&mut taken.session, &change) {
            Became::New => {
                tree.gained.fetch_add(1, Ordering::Relaxed);
                self.order_insert(&mut taken.session, tree, &change)?;
                // Who had to replace a segment of the hash index leaves the leaves to those that come.
                if !has_split {
                    self.order_settle(&taken.session, tree)?;
                }
            }
            Became::Gone => {
                tree.gained.fetch_sub(1, Ordering::Relaxed);
            }
            Became::Other => {}
        }
        Ok(Attempt::Done(live.is_some()))
    }

    /// The entry for `key`: that which it has, or one that is held now.
    #[inline]
    pub(crate) fn place(&self, key: &Key<'_>, look: Look) -> Result<Result<Place, Full>> {
        match look {
            Look::Found(found) => Ok(Ok(found.place)),
            Look::Free(free) => self.index.hold_free(self.media(), key.hash, free),
            Look::Full(full) => Ok(Err(full)),
        }
    }

    /// Writes record and note, and fences: the change has happened.
    #[inline]
    fn make_durable(&self, taken: &mut Taken<'_>, change: &Change<'_>, value: &[u8]) -> Result<()> {
        let Change { key, at, sequence, .. } = *change;
        let (media, session) = (self.media(), &mut *taken.session);
        let head = Head::new(sequence, key, value.len(), change.flags).sealed(self.salt, at, key.hash, value);
        if mutation::is(Mutation::IndexFirst) {
            self.index.fill(media, change.place, key.hash, at);
        }
        record::write(media, at, &head, key, value, &mut session.buf);
        session.ring.write(media, session.position, Note { sequence, at, list: false });
        session.position += 1;
        if !mutation::is(Mutation::NoFence) {
            self.poison(media.fence())?;
        }
        session.fenced(media, taken.seen, sequence, || self.env.epochs.advance());
        Ok(())
    }

    /// Lets everybody see a durable change.
    #[inline]
    pub(crate) fn publish(&self, session: &mut Session, change: &Change<'_>) -> Became {
        let Change { key, place, found, at, sequence, flags, .. } = *change;
        let live = found.filter(|found| !found.head.is(TOMBSTONE));
        if let Some(old) = live.filter(|_| self.snapshots.are_announced()) {
            self.snapshots.note(key.hash, old.at, old.head.sequence(), sequence);
        }
        let count = |broken: bool| {
            // K22: when it can be seen.
            if found.is_some()
                && broken == mutation::is(Mutation::CountEarly)
                && !mutation::is(Mutation::NoCount)
            {
                self.stripes.supersede(key.hash);
            }
        };
        count(true);
        self.index.fill(self.media(), place, key.hash, at);
        session.changed(place.at);
        if let Some(old) = found {
            // K15: whoever sees a snapshot that has this change sees the mark.
            if let Some(word) = old.head.superseded().filter(|_| !mutation::is(Mutation::NoMark)) {
                self.media().store(old.at + 8, word);
                if !mutation::is(Mutation::NoMarkFlush) {
                    session.touched(old.at + 8);
                }
            }
            count(false);
            self.supersede(session, &old, sequence);
        }
        let is_tombstone = flags & TOMBSTONE != 0;
        if is_tombstone {
            let (sequence, until) = (sequence, sequence);
            session.supersede(Old { at, bytes: change.bytes, sequence, until, tombstone: true });
        }
        match (live.is_some(), is_tombstone) {
            (false, false) => Became::New,
            (true, true) => Became::Gone,
            _ => Became::Other,
        }
    }

    /// The slot of `old` is free when nothing needs it, unless the sweep sees to it.
    #[inline]
    fn supersede(&self, session: &mut Session, old: &Found, until: u64) {
        let (at, bytes, sequence) = (old.at, old.head.bytes(), old.head.sequence());
        if self.sweep.is_handed(at, bytes) {
            session.supersede(Old { at, bytes, sequence, until, tombstone: false });
            if mutation::is(Mutation::ReuseAtOnce)
                && let Some(class) = class_of(bytes)
            {
                session.kept.push(&self.heap, class, at);
            }
        }
    }

    /// A free slot for a record of `bytes`; `None`: the session has none of its class.
    #[inline]
    pub(crate) fn slot(&self, session: &mut Session, bytes: u64) -> Result<Option<u64>> {
        match class_of(bytes) {
            Some(class) => Ok(session.kept.pop(class)),
            None => heap::take_run(&self.env, bytes).map(Some),
        }
    }

    /// Gives a slot back that was not used.
    pub(crate) fn put_slot_back(&self, session: &mut Session, at: u64, bytes: u64) -> Result<()> {
        match class_of(bytes) {
            Some(class) => {
                session.kept.put_back(&self.heap, class, at);
                Ok(())
            }
            None => self.env.free(at),
        }
    }

    /// The record of `key` that is the newest, tombstones left out. The caller is pinned.
    #[inline]
    pub(crate) fn find(&self, key: &Key<'_>) -> Result<Option<Found>> {
        let found = self.index.find(self.media(), key)?;
        Ok(found.filter(|found| !found.head.is(TOMBSTONE)))
    }

    /// Puts the value of `key` into `buf`, which is empty, without a pin: whether that could be done. Where not, the caller looks again with one.
    ///
    /// K20: what was copied is right for this key, and afterwards the index still says what it said before: so no pin is needed to know that the
    /// record was the key's newest at some moment of the call, and durable. A pin is a locked instruction, and nothing behind one begins before
    /// everything before it is done: without, the misses of several gets are waited for together.
    #[inline]
    pub(crate) fn get_unpinned(&self, tree: &TreeState<M>, key: &Key<'_>, buf: &mut Vec<u8>) -> bool {
        let media = self.media();
        let Some(glimpse) = self.index.glimpse(media, key.hash) else { return false };
        let at = glimpse.at();
        if at > media.len() - 64 {
            return false;
        }
        let head = Head::load(media, at);
        if head.is(TOMBSTONE) || head.value_len() > UNPINNED || !head.fits(at, media.len()) {
            return false;
        }
        if !head.is_of(media, at, key) {
            return false;
        }
        media.append_to(at + head.before_value(), head.value_len(), buf);
        if !head.is_right(self.salt, at, key.hash, buf) {
            return false;
        }
        // What was copied was copied before the words are looked at again.
        fence(Ordering::Acquire);
        (self.index.is_still(media, &glimpse) || mutation::is(Mutation::NoSecondLook)) && tree.has(&head)
    }

    /// A key of a tree.
    #[inline]
    pub(crate) fn key<'k>(&self, tree: TreeId, bytes: &'k [u8]) -> Result<Key<'k>> {
        Key::new(self.salt, tree, bytes)
    }
}

/// The flags of the record that a change writes; `live` is what the key has, and `put` whether it gets a value.
#[inline]
pub(crate) const fn flags_of(live: Option<&Found>, put: bool) -> u64 {
    match (live, put) {
        (_, false) => TOMBSTONE,
        (None, true) => TOLD,
        (Some(_), true) => 0,
    }
}

/// What became of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Became {
    /// It has a value, and had none.
    New,
    /// It had a value, and has none.
    Gone,
    /// Neither.
    Other,
}

/// A change that has all it needs.
#[derive(Clone, Copy)]
pub(crate) struct Change<'k> {
    pub key: &'k Key<'k>,
    pub place: Place,
    pub found: Option<Found>,
    pub at: u64,
    pub bytes: u64,
    pub sequence: u64,
    pub flags: u64,
}
