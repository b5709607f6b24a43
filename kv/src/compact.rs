//! How does space that records left go back to the pool, while the database is used?
//!
//! Slots that became free lie among others that are not, so that few chunks are without records. The records of the chunks that have the
//! fewest move into free slots elsewhere: each by a change of its key that gives it the value it has, as a `put` would, durable by one fence. So
//! nothing about crashes, snapshots or readers is new: a moved record has a new sequence number, the old one is superseded, and its slot is
//! free when nothing needs it (K6). A chunk that is without records then goes back; one that is not, because a snapshot, a reader or a
//! [`crate::ValueRef`] needs something in it, stays as it is.
//!
//! Invariants:
//! 1. A chunk of records is emptied only where its records have room in chunks that stay: so it takes no space but what changes made meanwhile take.
//! 2. Nobody is given space of a chunk that is being emptied (`heap`, `pages`).
//! 3. A slab is given back when every slot of it is free, and known to nobody.

use crate::core::{Action, Core};
use crate::db::Db;
use crate::env::Env;
use crate::error::{Error, Result};
use crate::heap::{CLASSES, slot_bytes, slots};
use crate::layout::{CHUNK, PAGE};
use crate::media::Media;
use crate::mutation::{self, Mutation};
use crate::pages::{self, PageKind, PageRun, SLAB_PAGES};
use crate::record::{self, Head, Key, TOMBSTONE};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

/// A chunk of which more than this part, in 16ths, is records is left as it is: moving them gains little.
const FULL: u64 = 15;
/// A chunk with a longer run of pages is left as it is: there is seldom such a run elsewhere.
const LONGEST: u16 = 256;
/// How often the records of a chunk are looked for: those that changes under way put there come to light later.
const ROUNDS: usize = 3;

/// What lies in a chunk of records.
#[derive(Debug, Default)]
struct Content {
    at: u64,
    /// Slots that are not free, and free ones, by class.
    classes: BTreeMap<usize, (u64, u64)>,
    /// Slabs that would hold the runs of one record each.
    runs: u64,
    /// Slabs that its free pages have room for.
    rooms: u64,
    /// Bytes of slots and runs that are not free.
    bytes: u64,
    /// A record in it has a run that is too long.
    stays: bool,
}

impl Content {
    fn of<M: Media>(
        env: &Env<M>,
        (at, rooms): (u64, u64),
        free: &HashMap<(u64, usize), u64>,
    ) -> Result<Self> {
        let mut content = Self { at, rooms, ..Self::default() };
        for run in pages::runs(&env.media, at)? {
            match run.kind {
                PageKind::Slab(class) => {
                    content.classes.entry(class.into()).or_default().0 += slots(class.into());
                }
                PageKind::Record(count) => {
                    content.runs += u64::from(count.div_ceil(SLAB_PAGES));
                    content.bytes += u64::from(count) * PAGE;
                    content.stays |= count > LONGEST;
                }
                // Pages of an ordered index in it move with those of its own chunks (`vacate`).
                _ => {}
            }
        }
        for (class, (used, unused)) in &mut content.classes {
            *unused = free.get(&(at, *class)).copied().unwrap_or(0).min(*used);
            *used -= *unused;
            content.bytes += *used * slot_bytes(*class);
        }
        Ok(content)
    }
}

/// The space that chunks which stay have for records.
#[derive(Debug, Default)]
struct Room {
    /// Free slots, by class.
    slots: BTreeMap<usize, u64>,
    /// Slabs.
    slabs: u64,
}

impl Room {
    fn of(contents: &[Content]) -> Self {
        let mut room = Self::default();
        for content in contents {
            room.slabs += content.rooms;
            for (class, (_, free)) in &content.classes {
                *room.slots.entry(*class).or_default() += free;
            }
        }
        room
    }

    /// Takes what the records of `content` need out of the space that is not in its own chunk: whether there was so much.
    fn take(&mut self, content: &Content) -> bool {
        let Some(mut slabs) = self.slabs.checked_sub(content.rooms + content.runs) else { return false };
        let mut after = Vec::new();
        for (class, (used, free)) in &content.classes {
            let mut elsewhere = self.slots.get(class).copied().unwrap_or(0).saturating_sub(*free);
            let more = used.saturating_sub(elsewhere).div_ceil(slots(*class));
            let Some(rest) = slabs.checked_sub(more) else { return false };
            slabs = rest;
            elsewhere += more * slots(*class);
            after.push((*class, elsewhere - used));
        }
        self.slabs = slabs;
        self.slots.extend(after);
        true
    }
}

/// The chunks that are to be emptied, those with the least in them first.
fn plan(mut contents: Vec<Content>) -> Vec<u64> {
    let mut room = Room::of(&contents);
    contents.sort_by_key(|content| content.bytes);
    let mut all = Vec::new();
    for content in contents {
        if content.bytes * 16 <= CHUNK * FULL && !content.stays && room.take(&content) {
            all.push(content.at);
        }
    }
    all
}

impl<M: Media> Core<M> {
    /// Gives back what records left; see [`Db::compact`].
    pub(crate) fn compact(&self) -> Result<u64> {
        if self.read_only {
            return Err(Error::ReadOnly);
        }
        let _one = self.compacting.lock();
        self.sweep_all()?;
        self.free_lost_slots()?;
        self.drain_all()?;
        self.shrink_indexes()?;
        self.free_lists()?;
        self.free_lost_pages()?;
        self.give_all_slots();
        self.free_empty_slabs()?;
        self.env.pages.read_all(self.media())?;
        let records = self.plan()?;
        let indexes = self.plan_vacating(&records)?;
        self.vacate(&records, &indexes)?;
        // What left the chunks of records may have room among the rest now.
        for _ in 0..ROUNDS {
            let indexes = self.plan_vacating(&[])?;
            if indexes.is_empty() {
                break;
            }
            self.vacate(&[], &indexes)?;
        }
        for chunk in self.env.pages.take_free_chunks() {
            self.env.chunks.give(self.media(), chunk)?;
        }
        self.env.chunks.release(self.media())
    }

    /// Empties these chunks, of records and of the indexes; meanwhile nobody is given pages of them.
    fn vacate(&self, records: &[u64], indexes: &[u64]) -> Result<()> {
        records.iter().chain(indexes).for_each(|chunk| self.env.pages.close_chunk(*chunk));
        let emptied = self.shrink_indexes().and_then(|()| self.empty_all(records));
        for (chunks, of_records) in [(records, true), (indexes, false)] {
            for chunk in chunks {
                self.env.pages.open_chunk(self.media(), *chunk, of_records)?;
            }
        }
        emptied
    }

    /// Moves the records of these chunks elsewhere.
    fn empty_all(&self, chunks: &[u64]) -> Result<()> {
        for chunk in chunks {
            match self.empty(*chunk) {
                // What others took meanwhile is missing here: it is as compact as it gets.
                Err(Error::NoSpace { .. }) => break,
                done => done?,
            }
        }
        Ok(())
    }

    /// Puts the free slots that sessions keep where all of them are.
    pub(crate) fn give_all_slots(&self) {
        for mut taken in self.sessions.each() {
            taken.session.kept.give_all(&self.heap);
        }
    }

    fn free_empty_slabs(&self) -> Result<()> {
        for class in 0..CLASSES {
            for slab in self.heap.take_free_slabs(self.media(), class) {
                self.env.free(slab)?;
            }
        }
        Ok(())
    }

    fn plan(&self) -> Result<Vec<u64>> {
        let free = self.heap.count();
        let rooms = self.env.pages.rooms().into_iter();
        let contents = rooms.map(|room| Content::of(&self.env, room, &free));
        Ok(plan(contents.collect::<Result<_>>()?))
    }

    /// Moves the records of `chunk` elsewhere.
    fn empty(&self, chunk: u64) -> Result<()> {
        self.heap.leave(chunk);
        let emptied = self.move_all(chunk);
        let gone = self.free_emptied(chunk);
        self.heap.stay(gone.as_deref().unwrap_or_default());
        gone.and(emptied)
    }

    fn move_all(&self, chunk: u64) -> Result<()> {
        self.give_all_slots();
        self.heap.gather();
        for _ in 0..ROUNDS {
            let mut moved = 0;
            for run in pages::runs(self.media(), chunk)? {
                for at in places(run) {
                    moved += u64::from(self.move_record(at)?);
                }
            }
            self.drain_all()?;
            if moved == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Gives the slabs of `chunk` back of which every slot is free.
    fn free_emptied(&self, chunk: u64) -> Result<Vec<u64>> {
        let mut gone = Vec::new();
        for run in pages::runs(self.media(), chunk)? {
            if let PageKind::Slab(class) = run.kind
                && (self.heap.count_left(class.into(), run.at) == slots(class.into())
                    || mutation::is(Mutation::FreeFull))
            {
                self.env.free(run.at)?;
                gone.push(run.at);
            }
        }
        Ok(gone)
    }

    /// Moves the record at `at`, if the index names one there: whether it did.
    fn move_record(&self, at: u64) -> Result<bool> {
        if Head::load(self.media(), at).first == 0 {
            return Ok(false);
        }
        // Free slots hold old records, or what a change under way has written so far.
        let pin = self.env.pin();
        let Ok(old) = record::read(self.media(), self.salt, at) else { return Ok(false) };
        let is_named = self.index.names(self.media(), old.hash, at)?.is_some();
        drop(pin);
        let Some(tree) = self.trees.by_id(old.tree).filter(|_| is_named && !old.head.is(TOMBSTONE)) else {
            return Ok(false);
        };
        let key = Key { tree: old.tree, bytes: &old.key, hash: old.hash };
        let mut moved = false;
        let changed = self.change(&tree, &key, None, |found| {
            // Whoever changed it meanwhile moved it.
            moved = found.is_some_and(|found| found.at == at && found.head == old.head);
            Ok(if moved { Action::Put(Cow::Borrowed(&old.value)) } else { Action::Nothing })
        });
        match changed {
            // Its records are being deleted.
            Err(Error::TreeDropped) => Ok(false),
            changed => changed.map(|_| moved),
        }
    }
}

/// Where records may lie in a run.
fn places(run: PageRun) -> impl Iterator<Item = u64> {
    let (count, bytes) = match run.kind {
        PageKind::Slab(class) => (slots(class.into()), slot_bytes(class.into())),
        PageKind::Record(_) => (1, 0),
        _ => (0, 0),
    };
    (0..count).map(move |n| run.at + n * bytes)
}

impl<M: Media> Db<M> {
    /// Gives space back that records left, while the database is used: slots and pages that nobody knew to be free since the last crash; segments
    /// of the hash index that are larger than their entries need; and the chunks with the fewest records, after these were moved, each by
    /// one change. Needs no space of its own. What a snapshot, an iterator or a [`crate::ValueRef`] still needs stays. How many
    /// bytes of the file went back to the pool, durably.
    ///
    /// # Errors
    /// [`Error::ReadOnly`]; damage; those of the fences.
    pub fn compact(&self) -> Result<u64> {
        self.core().compact()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn content(at: u64, used: u64, free: u64, rooms: u64) -> Content {
        let bytes = used * slot_bytes(16);
        Content { at, classes: [(16, (used, free))].into(), rooms, bytes, ..Content::default() }
    }

    #[test]
    fn only_what_fits_elsewhere_is_moved_and_the_emptiest_first() {
        let all = vec![content(1, 800, 200, 0), content(2, 50, 950, 0), content(3, 100, 900, 0)];
        assert_eq!(plan(all), [2, 3]);
        // Together they have room for one of them.
        assert_eq!(plan(vec![content(1, 600, 400, 0), content(2, 400, 600, 0)]), [2]);
        assert_eq!(plan(vec![content(1, 600, 300, 0), content(2, 400, 500, 0)]), [0_u64; 0]);
        // A slab more makes room.
        assert_eq!(plan(vec![content(1, 600, 300, 1), content(2, 400, 500, 0)]), [2]);
        // Alone, there is nowhere to go, also not to its own free pages.
        assert_eq!(plan(vec![content(1, 10, 990, 40)]), [0_u64; 0]);
    }

    #[test]
    fn full_chunks_and_long_runs_stay() {
        let full = CHUNK / slot_bytes(16);
        assert_eq!(plan(vec![content(1, full, 0, 0), content(2, 0, full * 2, 99)]), [2]);
        let long = Content { stays: true, ..content(1, 10, 10, 0) };
        assert_eq!(plan(vec![long, content(2, 900, 900, 0)]), [0_u64; 0]);
    }
}
