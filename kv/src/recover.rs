//! What is there after a crash?
//!
//! Nothing is read but the fixed first chunk, the table of chunks and the maps of pages, and what the rings lead to: at most some hundred
//! notes a session. Each note's record is entered into the index, unless that names a later one of its key. The ordered indexes are told, and take
//! what they were told when somebody looks, or some with each change: for each key, they may read the start of every leaf of a group. The notes that
//! were replayed are of their sessions' groups: when such a group is written back, as any other, they are gone.
//!
//! Invariants:
//! 1. K8: a note is replayed when the record at its place has its sequence number and is right: else the slot was given to another change
//!    later, which could only be after this one had become durable in the index.
//! 2. K9: the greater sequence number wins. So the order of notes and rings does not matter, and a replay may be repeated.
//! 3. What was replayed is durable in the hash index before anything is changed, and in the ordered ones before the tails move. Until then a session
//!    says which note is the oldest in its ring, as for those of its own (K6, K7); and no tree is dropped.

use crate::batch::read_list;
use crate::core::{Core, Parts};
use crate::env::{Env, TreeId};
use crate::error::{Damage, Error, Result, Structure};
use crate::hash::{Index, Room};
use crate::layout::superblock::{self as at, CLEAN};
use crate::layout::{CHUNK, CHUNK_TABLE, MAGIC, SESSIONS, TREE_BYTES, TREES};
use crate::media::Media;
use crate::mutation::{self, Mutation};
use crate::order::waits;
use crate::record::{self, Key, Whole};
use crate::ring::{Note, Ring};
use crate::sealed::seal;
use crate::sizes::Sizes;
use crate::superblock::{Superblock, store};
use crate::sweep::Sweep;
use crate::trees::Trees;
use daxstore::sync::Arc;
use daxstore::sync::atomic::Ordering;

/// What an open did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The database had been closed.
    pub clean: bool,
    /// Notes found in rings.
    pub notes: u64,
    /// Records that were entered into the index.
    pub replayed: u64,
    /// Ordered indexes that were built anew from the records.
    pub rebuilt: u64,
}

/// One in so many of the keys that were replayed is taken into an ordered index with each change, and this many at least: each may have a group of
/// leaves read, some tens of microseconds.
const SOME: usize = 32;
const FEW: usize = 4;

impl<M: Media> Core<M> {
    /// Makes a database in memory that has none. Durable on return; a crash before leaves none.
    ///
    /// # Errors
    /// [`Error::NoSpace`]; those of the fences.
    pub(crate) fn create(media: M, seed: Option<u64>, sizes: Sizes) -> Result<Self> {
        if media.capacity() >= CHUNK && media.len() < CHUNK {
            media.grow(CHUNK)?;
            // A file that was shorter than any database, and begins as one: it was cut.
            match media.load(at::MAGIC) {
                0 => {}
                MAGIC => return Err(Damage::new(Structure::Superblock, 0, "a whole file", CHUNK, 0).into()),
                _ => return Err(Error::NotADatabase),
            }
        }
        let zeros = vec![0; 4096];
        // What an unfinished creation left.
        let ranges = [(8, 4088), (CHUNK_TABLE, 4096)];
        for (at, len) in ranges {
            media.write_through(at, &zeros[..len]);
        }
        for tree in 0..TREES as u64 {
            let at = crate::layout::CATALOG + tree * TREE_BYTES;
            if media.load(at) != 0 {
                media.write_through(at, &zeros[..8]);
            }
        }
        media.fence()?;
        let superblock = Superblock::prepare(&media, seed)?;
        let salt = superblock.salt;
        (0..SESSIONS).for_each(|number| Ring { number, salt }.set_tail(&media, 0));
        let env = Arc::new(Env::create(media, sizes)?);
        let index = Index::create(&env, salt)?;
        let limit = superblock.limit(&env.media)?;
        let parts =
            Parts { env, index, salt, limit, sweep: Sweep::none(), trees: Trees::new(), read_only: false };
        let core = Self::new(parts);
        core.tree("")?;
        superblock.finish(core.media())?;
        Ok(core)
    }

    /// Opens the database in `media`; `Ok(Err(media))`: there is none.
    ///
    /// # Errors
    /// [`Error::NotADatabase`], [`Error::FutureVersion`], [`Error::NeedsRecovery`]; damage.
    pub(crate) fn open(
        media: M,
        read_only: bool,
        repair: bool,
        sizes: Sizes,
    ) -> Result<Result<(Self, Recovery), M>> {
        let Some(superblock) = Superblock::open(&media)? else { return Ok(Err(media)) };
        let (clean, limit) = (superblock.is_clean(&media), superblock.limit(&media)?);
        if read_only && !clean {
            return Err(Error::NeedsRecovery);
        }
        let env = Arc::new(Env::open(media, sizes)?);
        let salt = superblock.salt;
        let index = Index::open(&env, salt, !read_only)?;
        let sweep = if read_only { Sweep::none() } else { Sweep::of(env.pages.inherited().clone()) };
        let (trees, dropping) = Trees::open(&env, clean, repair)?;
        let core = Self::new(Parts { env, index, salt, limit, sweep, trees, read_only });
        let mut recovery = Recovery { clean, ..Recovery::default() };
        if !read_only {
            core.replay(&mut recovery)?;
            store(core.media(), CLEAN, 0);
            core.trees.write_counts(core.media(), false);
            core.media().fence()?;
            if repair {
                core.drain_all()?;
                recovery.rebuilt = core.repair()?;
            }
            for tree in dropping {
                core.finish_drop(tree)?;
            }
        }
        Ok(Ok((core, recovery)))
    }

    /// Replays every ring. The hash index has all of it durably then; the ordered indexes are told, and have it durably when the sessions' groups
    /// are written back, which what was replayed is part of.
    fn replay(&self, recovery: &mut Recovery) -> Result<()> {
        let mut ends = Vec::new();
        for taken in self.sessions.each() {
            let (notes, end) = taken.session.ring.pending(self.media())?;
            recovery.notes += notes.len() as u64;
            for note in &notes {
                recovery.replayed += self.replay_note(*note)?;
            }
            ends.push((end, notes));
        }
        self.media().fence()?;
        for (mut taken, (end, notes)) in self.sessions.each().zip(ends) {
            let told = if notes.is_empty() || mutation::is(Mutation::ForgetReplayed) {
                Vec::new()
            } else {
                self.trees.each_with_records().iter().map(|tree| tree.id).collect()
            };
            taken.session.go_on(end, notes.len() as u64, told);
            let oldest = notes.iter().map(|note| note.sequence).min();
            if !mutation::is(Mutation::YoungReplayed) {
                taken.seen.oldest.store(oldest.unwrap_or(u64::MAX), Ordering::Release);
            }
        }
        self.has_replayed.store(recovery.notes > 0, Ordering::Release);
        Ok(())
    }

    /// Takes some of what was replayed into the ordered indexes; when they have all, empties the rings of sessions that nobody uses. Each change
    /// does so, as long as anything is left: so none of them waits for long, and the rings are empty soon.
    ///
    /// # Errors
    /// As [`Self::write_back`], but where there is no space: what waits for it waits, and so do the rings.
    #[cold]
    pub(crate) fn finish_some(&self) -> Result<()> {
        for tree in self.trees.each_with_records() {
            let most = (tree.ordered.waiting() / SOME).max(FEW);
            match tree.ordered.settle_some(most) {
                Ok(true) => return Ok(()),
                Ok(false) | Err(Error::NoSpace { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        if self.has_replayed.swap(false, Ordering::AcqRel) {
            waits(self.drain_free())?;
        }
        Ok(())
    }

    fn replay_note(&self, note: Note) -> Result<u64> {
        let mut replayed = 0;
        for record in self.records(note) {
            replayed += u64::from(self.replay_record(&record)?);
        }
        Ok(replayed)
    }

    /// The records that a note leads to: all that it tells of, or none.
    fn records(&self, note: Note) -> Vec<Whole> {
        if !note.list {
            return self.record(note.at, note.sequence).into_iter().collect();
        }
        let Some(places) = read_list(self.media(), self.salt, note.at, note.sequence) else {
            return Vec::new();
        };
        let records: Vec<_> = places.iter().map(|at| self.record(*at, note.sequence)).collect();
        if records.iter().any(Option::is_none) && !mutation::is(Mutation::PartialBatch) {
            return Vec::new();
        }
        records.into_iter().flatten().collect()
    }

    /// The record at `at`, if it is that of `sequence`.
    fn record(&self, at: u64, sequence: u64) -> Option<Whole> {
        if at > self.media().len() - 64 {
            return None;
        }
        let record = match mutation::is(Mutation::NoRecordCheck) {
            true => record::read_unchecked(self.media(), self.salt, at),
            false => record::read(self.media(), self.salt, at),
        };
        record.ok().filter(|r| r.head.sequence() == sequence || mutation::is(Mutation::AnySequence))
    }

    fn replay_record(&self, record: &Whole) -> Result<bool> {
        let key = Key { tree: record.tree, bytes: &record.key, hash: record.hash };
        if self.trees.by_id(record.tree).is_none() {
            return Ok(false);
        }
        loop {
            let found = self.index.find(self.media(), &key)?;
            if let Some(found) = &found
                && found.head.sequence() >= record.head.sequence()
                && !(mutation::is(Mutation::LastWins) && found.at != record.at)
            {
                // What the index knows of it may not be durable in the ordered index.
                self.order_replayed(&key, found.at, &found.head)?;
                return Ok(false);
            }
            let place = match found {
                Some(found) => found.place,
                None => match self.index.hold(self.media(), key.hash)? {
                    Ok(place) => place,
                    Err(full) => {
                        self.index.split(&self.env, &self.stripes, key.hash, full, Room::Enough)?;
                        continue;
                    }
                },
            };
            self.index.fill(self.media(), place, key.hash, record.at);
            self.media().flush(place.at, 8);
            self.order_replayed(&key, record.at, &record.head)?;
            return Ok(true);
        }
    }

    /// Writes everything back and says that the database is closed.
    ///
    /// # Errors
    /// Those of the fences; [`Error::Poisoned`].
    pub(crate) fn close(&self) -> Result<()> {
        if self.read_only {
            return Ok(());
        }
        self.drain_all()?;
        self.trees.write_counts(self.media(), true);
        store(self.media(), CLEAN, seal(self.salt, CLEAN, 1));
        self.poison(self.media().fence())
    }

    /// Deletes the records of a tree that was dropped, and the tree.
    pub(crate) fn finish_drop(&self, id: TreeId) -> Result<()> {
        let Some(tree) = self.trees.by_id(id) else { return Ok(()) };
        self.delete_all(&tree)?;
        self.drain_all()?;
        self.trees.finish_drop(self.media(), id, self.last_sequence() + 1)
    }
}
