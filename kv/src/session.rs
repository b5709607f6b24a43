//! What does a session do between the fence of a change and the reuse of what it superseded?
//!
//! A change takes a session for as long as it lasts. The session's ring has a note of every change whose index entry may not be durable.
//! Changes are written back in groups: the first change after 64 flushes the lines of the index that the 64 changed, and its own fence
//! makes them durable. The next moves the tail, which its fence makes durable; after that the notes are gone, and what the group superseded
//! waits until nothing needs it. So writing back costs no fence of its own.
//!
//! Invariants:
//! 1. K5: the tail moves when the lines of every change that it passes are durable.
//! 2. K6: a superseded slot is free when (a) its group was written back; (b) no ring holds a note of its sequence number or an older one;
//!    (c) every reader has left who was there; (d) no snapshot needs it.
//! 3. K7: a tombstone leaves the index when (b) and (d) hold for it: no replay can find an older record of its key.

use crate::env::TreeId;
use crate::heap::Kept;
use crate::layout::SESSIONS;
use crate::media::Media;
use crate::mutation::{self, Mutation};
use crate::ring::Ring;
use daxstore::sync::atomic::{AtomicU64, Ordering};
use daxstore::sync::{Mutex, MutexGuard};
use std::collections::VecDeque;

/// Changes of a group.
pub const GROUP: u64 = if cfg!(loom) { 2 } else { 64 };

/// The last changes of a group.
const LAST: u64 = if cfg!(loom) { 0 } else { 2 };

/// So many notes may be in a ring that was replayed without counting for the group that they belong to.
const REPLAYED: u64 = 192;

/// A slot that was superseded, or a tombstone that may leave the index.
#[derive(Clone, Copy, Debug)]
pub struct Old {
    /// Where the record lies.
    pub at: u64,
    /// Its bytes, by which its class is known.
    pub bytes: u64,
    /// Its sequence number: no ring may hold a note of it or an older one.
    pub sequence: u64,
    /// The sequence number that superseded it: a snapshot older than that needs it.
    pub until: u64,
    /// It is a tombstone that the index names.
    pub tombstone: bool,
}

/// What waits to be free together.
#[derive(Debug, Default)]
pub struct Waiting {
    /// No reader may pin this epoch or an older one.
    pub epoch: u64,
    /// No ring may hold a note of this sequence number or an older one.
    pub sequence: u64,
    /// No snapshot may be older.
    pub until: u64,
    /// The slots.
    pub olds: Vec<Old>,
}

/// How far the group before this one is.
#[derive(Debug, Default)]
enum Stage {
    /// Written back, or there was none.
    #[default]
    Done,
    /// Its lines were flushed: durable with the next fence.
    Flushed,
    /// The tail moved: durable with the next fence. The ring's first note then has this sequence number.
    Moved(u64),
}

/// Buffers for the lists of batches, offset and bytes, used in turn.
///
/// A batch begins by writing back what can be: so the batch before the last but one is durable in the index when a batch
/// begins, and its list can be overwritten (the tail may not have passed its note: replay finds no list there, and needs none).
#[derive(Debug, Default)]
pub struct Lists {
    /// The buffers.
    pub all: [(u64, u64); 4],
    /// Which is the next.
    pub next: usize,
}

/// What others see of a session.
#[repr(align(128))]
#[derive(Debug)]
pub struct Seen {
    /// No note of its ring is older; the greatest number: there is none.
    pub oldest: AtomicU64,
    /// The change under way has this sequence number or a later one; the greatest number: there is none.
    pub active: AtomicU64,
}

/// A session.
#[derive(Debug)]
pub struct Session {
    /// Its ring.
    pub ring: Ring,
    /// Where the next note goes.
    pub position: u64,
    /// Scratch for a record.
    pub buf: Vec<u8>,
    /// Free slots.
    pub kept: Kept,
    /// What waits to be free, oldest first.
    pub waiting: VecDeque<Waiting>,
    /// Changes of this group.
    changes: u64,
    /// Lines of the index that it changed.
    dirty: Vec<u64>,
    superseded: Vec<Old>,
    stage: Stage,
    /// Of the group before: where its notes end, and what it superseded.
    before: (u64, Vec<Old>),
    spare: Vec<Vec<Old>>,
    /// Buffers for the lists of batches.
    pub lists: Lists,
    /// The class of slots that it wanted last, while there is something to sweep.
    pub wanted: Option<usize>,
    /// The trees whose ordered indexes were told of something in this group.
    pub told: Vec<TreeId>,
}

impl Session {
    fn new(ring: Ring) -> Self {
        Self {
            ring,
            position: 0,
            buf: Vec::new(),
            kept: Kept::default(),
            waiting: VecDeque::new(),
            changes: 0,
            dirty: Vec::new(),
            superseded: Vec::new(),
            stage: Stage::Done,
            before: Default::default(),
            spare: Vec::new(),
            lists: Lists::default(),
            wanted: None,
            told: Vec::new(),
        }
    }

    /// What was replayed of its ring, so many notes up to `end`, is its group so far; these trees' ordered indexes were told of it, and what it
    /// changed in the hash index is durable. A group is full when the ring holds [`REPLAYED`] notes more than a full group: so whoever is killed again
    /// and again finds room in it.
    pub fn go_on(&mut self, end: u64, notes: u64, told: Vec<TreeId>) {
        (self.position, self.told) = (end, told);
        self.changes = notes.saturating_sub(REPLAYED);
    }

    /// Whether the group is to be written back before the next change.
    #[inline]
    pub fn is_due(&self) -> bool {
        self.changes >= GROUP && matches!(self.stage, Stage::Done)
    }

    /// Whether the group is to be written back before one of the next changes. Who makes one of the last takes into the ordered index what waits there,
    /// so that little is left for who writes back.
    #[inline]
    pub fn is_nearly_due(&self) -> bool {
        self.changes + LAST > GROUP
    }

    /// Flushes the lines of the group: they are durable with the next fence.
    pub fn flush<M: Media>(&mut self, media: &M) {
        if !mutation::is(Mutation::NoWriteBack) {
            self.dirty.iter().for_each(|line| media.flush(*line, 64));
        }
        self.dirty.clear();
        self.changes = 0;
        let spare = self.spare.pop().unwrap_or_default();
        self.before = (self.position, std::mem::replace(&mut self.superseded, spare));
        self.stage = Stage::Flushed;
    }

    /// After a fence: the group before goes one stage on. `sequence` is that of the note written under the fence, the greatest number
    /// where there was none. `epoch` begins a new epoch, and gives the one that was.
    #[inline]
    pub fn fenced<M: Media>(&mut self, media: &M, seen: &Seen, sequence: u64, epoch: impl Fn() -> u64) {
        match self.stage {
            Stage::Done => {
                if seen.oldest.load(Ordering::Relaxed) == u64::MAX {
                    seen.oldest.store(sequence, Ordering::Release);
                }
            }
            Stage::Flushed => {
                self.ring.set_tail(media, self.before.0);
                self.stage = Stage::Moved(sequence);
            }
            Stage::Moved(oldest) => {
                seen.oldest.store(oldest.min(sequence), Ordering::Release);
                self.stage = Stage::Done;
                self.let_wait(epoch());
            }
        }
    }

    /// What the group before superseded begins to wait.
    fn let_wait(&mut self, epoch: u64) {
        let olds = std::mem::take(&mut self.before.1);
        self.wait(olds, epoch);
    }

    /// These wait to be free, from `epoch` on.
    pub fn wait(&mut self, olds: Vec<Old>, epoch: u64) {
        if olds.is_empty() {
            return self.spare.push(olds);
        }
        let sequence = olds.iter().map(|old| old.sequence).max().unwrap_or(0);
        let until = olds.iter().map(|old| old.until).max().unwrap_or(0);
        self.waiting.push_back(Waiting { epoch, sequence, until, olds });
    }

    /// Gives the memory of a list back.
    pub fn recycle(&mut self, mut olds: Vec<Old>) {
        olds.clear();
        if self.spare.len() < 16 {
            self.spare.push(olds);
        }
    }

    /// Notes that a change was made: the line of the index that it changed.
    #[inline]
    pub fn changed(&mut self, entry: u64) {
        self.changes += 1;
        self.touched(entry);
    }

    /// Notes that a line of the index was changed.
    #[inline]
    pub fn touched(&mut self, entry: u64) {
        let line = entry & !63;
        if self.dirty.last() != Some(&line) {
            self.dirty.push(line);
        }
    }

    /// Notes what a change superseded.
    #[inline]
    pub fn supersede(&mut self, old: Old) {
        self.superseded.push(old);
    }

    /// Whether no group is on its way.
    pub fn is_idle(&self) -> bool {
        matches!(self.stage, Stage::Done)
    }

    /// Whether nothing of it is to be written back.
    pub fn is_clean(&self) -> bool {
        matches!(self.stage, Stage::Done)
            && self.dirty.is_empty()
            && self.superseded.is_empty()
            && self.changes == 0
    }
}

/// The sessions of a database.
#[derive(Debug)]
pub struct Sessions {
    all: Box<[Mutex<Session>]>,
    seen: Box<[Seen]>,
}

/// A session that is taken.
pub struct Taken<'a> {
    /// The session.
    pub session: MutexGuard<'a, Session>,
    /// What others see of it.
    pub seen: &'a Seen,
}

/// How many there are: as many as rings, but in models.
const COUNT: usize = if cfg!(loom) { 3 } else { SESSIONS };

impl Sessions {
    /// Those of the database with this number.
    #[must_use]
    pub fn new(salt: u64) -> Self {
        let seen = || Seen { oldest: AtomicU64::new(u64::MAX), active: AtomicU64::new(u64::MAX) };
        let session = |number| Mutex::new(Session::new(Ring { number, salt }));
        Self { all: (0..COUNT).map(session).collect(), seen: (0..COUNT).map(|_| seen()).collect() }
    }

    /// Takes a session, the same for the same thread where that is free.
    #[inline]
    pub fn take(&self) -> Taken<'_> {
        let first = crate::epoch::thread_number();
        for n in 0..COUNT {
            let at = (first + n) % COUNT;
            if let Some(session) = self.all[at].try_lock() {
                return Taken { session, seen: &self.seen[at] };
            }
        }
        let at = first % COUNT;
        Taken { session: self.all[at].lock(), seen: &self.seen[at] }
    }

    /// Each session that is free, in turn.
    pub fn each_free(&self) -> impl Iterator<Item = Taken<'_>> {
        let pairs = self.all.iter().zip(&self.seen);
        pairs.filter_map(|(session, seen)| Some(Taken { session: session.try_lock()?, seen }))
    }

    /// Each session, when it is free.
    pub fn each(&self) -> impl Iterator<Item = Taken<'_>> {
        self.all.iter().zip(&self.seen).map(|(session, seen)| Taken { session: session.lock(), seen })
    }

    /// No ring holds an older note.
    pub fn oldest(&self) -> u64 {
        self.seen.iter().map(|seen| seen.oldest.load(Ordering::Acquire)).min().unwrap_or(u64::MAX)
    }

    /// Waits until every change with this sequence number or an older one is over.
    pub fn wait_for(&self, sequence: u64) {
        for seen in &self.seen {
            while seen.active.load(Ordering::SeqCst) <= sequence {
                daxstore::sync::thread::yield_now();
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::ring::NOTES;

    /// The group that was replayed, the one before it and what comes until both are written back have room in a ring.
    #[test]
    fn a_ring_that_was_replayed_is_due_before_it_is_full() {
        let is_due = |notes| {
            let mut session = Session::new(Ring { number: 0, salt: 7 });
            session.go_on(notes, notes, Vec::new());
            session.is_due()
        };
        assert!(!is_due(0) && !is_due(REPLAYED + GROUP - 1));
        assert!(is_due(REPLAYED + GROUP) && is_due(NOTES));
        const { assert!(REPLAYED + 3 * GROUP < NOTES) };
    }
}
