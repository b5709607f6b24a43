//! How does a change of several objects become durable as one, with one fence?
//!
//! Version-guarded image redo lanes (`docs/crash-consistency.md`). The invariants, by number:
//! - J1 no home byte is stored before the commit fence returned (`lane`).
//! - J2 data a record makes reachable is fenced before: [`Tx::commit`] asks for the token.
//! - J3 locks, frees and sizes are published after commit and apply: callers hold their locks across `commit`.
//! - J4 versions only grow: [`Tx::stage`] takes the home's plus one.
//! - J5 images are whole objects, and nothing else stores to an object.
//! - J6 ring space is reused only once it is covered (`lane`).
//! - J7 arenas become something else only after [`Journal::quiesce`].
//! - J8 only a salted hash makes a record valid (`record`).
//! - J9 data overwrites in place touch data blocks only.
//! - J10 recovery applies, flushes, fences, and then starts the next epoch (`recover`).

mod known;
mod lane;
mod record;
mod recover;
mod superblock;
mod tx;

pub use recover::Recovery;
pub use superblock::Copies;
pub use tx::Tx;

use crate::error::{Error, Result};
use crate::layout::{self, Counters, Feature, Geometry, HEADER_BYTES, Image, Kind, Seed, Superblock};
use crate::pmem::mutation::{self, Mutation};
use crate::pmem::{Region, thread_number};
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::rank::{Held, Rank};
use crate::sync::{Arc, Mutex, MutexGuard};
use crate::units::PoolOff;
use crossbeam::utils::CachePadded;
use known::Known;
use lane::Lane;
use record::Origin;

/// The journal of one open pool.
#[derive(Debug)]
pub struct Journal {
    region: Arc<Region>,
    seed: Seed,
    /// As at open; the size that grows is in `size`.
    geometry: Geometry,
    size: AtomicU64,
    epoch: AtomicU64,
    superblock: Mutex<Superblock>,
    lanes: Box<[CachePadded<Mutex<Lane>>]>,
    known: Known,
    read_only: bool,
    poisoned: AtomicBool,
}

impl Journal {
    /// Formats nothing but the superblocks: everything else of a new pool is zero.
    ///
    /// # Errors
    /// Errors of the medium.
    pub fn format(region: &Region, superblock: &Superblock) -> Result<()> {
        superblock::write(region, superblock)
    }

    /// Recovers the pool in `region` and opens its journal.
    ///
    /// # Errors
    /// [`Error::NotAPool`], [`Error::Truncated`], versions and features that are not known, damage.
    pub fn open(region: Arc<Region>) -> Result<(Self, Recovery)> {
        let found = Self::usable_superblock(&region)?;
        found.check_writable()?;
        let (superblock, recovery) = recover::recover(&region, &found)?;
        Ok((Self::new(region, superblock, false)?, recovery))
    }

    /// Opens the journal of the pool in `region` without writing anything.
    ///
    /// # Errors
    /// As [`Self::open`], and [`Error::NeedsRecovery`] where the last run did not close the pool.
    pub fn open_read_only(region: Arc<Region>) -> Result<Self> {
        let superblock = Self::clean_superblock(&region)?;
        Self::new(region, superblock, true)
    }

    /// Recovers the pool in `region` without opening it, and returns its superblock: the part of [`Self::open`] that
    /// works with damaged lane counters too.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn recover(region: &Region) -> Result<Superblock> {
        let found = Self::usable_superblock(region)?;
        found.check_writable()?;
        Ok(recover::recover(region, &found)?.0)
    }

    /// The superblock of the pool in `region`, which needs no recovery.
    ///
    /// # Errors
    /// As [`Self::open_read_only`].
    pub fn clean_superblock(region: &Region) -> Result<Superblock> {
        let superblock = Self::usable_superblock(region)?;
        if recover::is_needed(region, &superblock)? { Err(Error::NeedsRecovery) } else { Ok(superblock) }
    }

    fn usable_superblock(region: &Region) -> Result<Superblock> {
        let superblock = Copies::read(region)?.newest()?;
        if superblock.geometry.size > region.len() {
            return Err(Error::Truncated { expected: superblock.geometry.size, found: region.len() });
        }
        Ok(superblock)
    }

    fn new(region: Arc<Region>, superblock: Superblock, read_only: bool) -> Result<Self> {
        let (seed, geometry) = (superblock.seed, superblock.geometry);
        let lane = |index| {
            let at = geometry.lane(index);
            let counters = Counters::decode(&read_object(&region, seed, at, Kind::Lane)?);
            let lane = Lane::new(index, geometry.ring(index), geometry.ring_bytes(), counters);
            Ok(CachePadded::new(Mutex::new(lane)))
        };
        let lanes = (0..geometry.lanes).map(lane).collect::<Result<_>>()?;
        Ok(Self {
            region,
            seed,
            geometry,
            size: AtomicU64::new(geometry.size),
            epoch: AtomicU64::new(superblock.epoch),
            superblock: Mutex::new(superblock),
            lanes,
            known: Known::new(geometry.blocks()),
            read_only,
            poisoned: AtomicBool::new(false),
        })
    }

    /// The pool.
    #[must_use]
    pub fn region(&self) -> &Arc<Region> {
        &self.region
    }

    /// The pool's salt.
    #[must_use]
    pub fn seed(&self) -> Seed {
        self.seed
    }

    /// The pool's geometry, with its size of now.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        Geometry { size: self.size.load(Ordering::Acquire), ..self.geometry }
    }

    /// The epoch of now.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// The superblock of now.
    #[must_use]
    pub fn superblock(&self) -> Superblock {
        self.superblock.lock().clone()
    }

    /// Has the superblock say that the pool may have what `feature` says, durably, if it does not yet: a quiesce, once for
    /// each pool. The caller comes before any object has it.
    ///
    /// # Errors
    /// As [`Self::quiesce`].
    pub fn announce(&self, feature: Feature) -> Result<()> {
        if self.has(feature) {
            return Ok(());
        }
        self.update_superblock(|superblock| {
            superblock.add(feature);
            Ok(())
        })
    }

    /// Whether the superblock says that the pool may have what `feature` says.
    #[must_use]
    pub fn has(&self, feature: Feature) -> bool {
        mutation::is(Mutation::Unannounced) || self.superblock.lock().has(feature)
    }

    /// Whether changes are refused.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// The home copy of the object at `at`, of `kind` or free. The caller holds the lock that protects it.
    ///
    /// # Errors
    /// Damage of the object.
    pub fn read(&self, at: PoolOff, kind: Kind) -> Result<Image> {
        let mut header = [0; HEADER_BYTES];
        self.region.read(at, &mut header)?;
        let known = |version| self.known.has(at, version);
        Image::fetch(self.seed, at, kind, &header, known, |body| {
            self.region.read(at.plus(HEADER_BYTES as u64), body)
        })
    }

    /// Notes that the content of the object at `at` was found well formed at `version`: it is trusted from now on.
    pub fn vouch(&self, at: PoolOff, version: u64) {
        self.known.note(at, version);
    }

    /// Starts a change.
    pub fn begin(&self) -> Tx<'_> {
        Tx::new(self)
    }

    /// The largest record, in bytes.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.geometry.ring_bytes() / 64 * 64
    }

    /// The pool's totals: the sum of the lanes' counters.
    #[must_use]
    pub fn totals(&self) -> Counters {
        self.lanes.iter().fold(Counters::default(), |sum, lane| sum.plus(lane.lock().counters))
    }

    /// Whether a change may be made now.
    ///
    /// # Errors
    /// [`Error::ReadOnly`], [`Error::Poisoned`].
    pub fn writable(&self) -> Result<()> {
        if self.read_only { Err(Error::ReadOnly) } else { self.healthy() }
    }

    /// Whether every change so far is durable.
    ///
    /// # Errors
    /// [`Error::Poisoned`].
    pub fn healthy(&self) -> Result<()> {
        if self.poisoned.load(Ordering::Acquire) {
            return Err(Error::Poisoned("the medium did not take a journal record"));
        }
        Ok(())
    }

    /// A lane of this thread's, or any free one, or this thread's once it is free.
    fn take_lane(&self) -> MutexGuard<'_, Lane> {
        let own = thread_number() % self.lanes.len();
        let (before, after) = self.lanes.split_at(own);
        after.iter().chain(before).find_map(|lane| lane.try_lock()).unwrap_or_else(|| self.lanes[own].lock())
    }

    fn commit(&self, draft: &mut tx::Draft, change: Counters) -> Result<()> {
        for i in 0..draft.entries.len() {
            let entry = draft.entries[i];
            layout::seal(self.seed, entry.home, draft.image_mut(entry));
        }
        let _rank = Held::new(Rank::Lane);
        let mut lane = self.take_lane();
        // Only now: a change that failed in this lane meanwhile left a record that may be valid.
        self.writable()?;
        let counters = lane.counters.plus(change);
        if change != Counters::default() {
            let at = self.geometry.lane(lane.index);
            let mut image = counters.encode();
            image.seal(self.seed, at, tx::next_version(self, at, 1)?);
            draft.put(at, &image);
        }
        let origin = Origin { seed: self.seed, epoch: self.epoch.load(Ordering::Acquire), lane: lane.index };
        let result = lane.commit(&self.region, origin, draft, &self.known);
        match result {
            Ok(()) => lane.counters = counters,
            Err(_) => self.poisoned.store(true, Ordering::Release),
        }
        result
    }

    /// Makes every home durable and starts a new epoch while no change is under way, so that no record of the
    /// journal names any object: what J7 asks for, and what a clean close leaves.
    ///
    /// # Errors
    /// [`Error::ReadOnly`], [`Error::Poisoned`], errors of the medium.
    pub fn quiesce(&self) -> Result<()> {
        self.update_superblock(|_| Ok(()))
    }

    /// Changes the superblock by `change` while no change of anything else is under way, of the superblock neither.
    ///
    /// # Errors
    /// As [`Self::quiesce`], and those of `change`, after which everything is as before.
    pub fn update_superblock(&self, change: impl FnOnce(&mut Superblock) -> Result<()>) -> Result<()> {
        let _rank = Held::new(Rank::Lane);
        let mut superblock = self.superblock.lock();
        let mut lanes: Vec<_> = self.lanes.iter().map(|lane| lane.lock()).collect();
        self.writable()?;
        let mut next = superblock::next_epoch(&superblock);
        change(&mut next)?;
        // A fence that failed leaves unknown which homes are durable, as a superblock that was not written does.
        if let Err(error) = self.start_epoch(&mut lanes, &next) {
            self.poisoned.store(true, Ordering::Release);
            return Err(error);
        }
        self.epoch.store(next.epoch, Ordering::Release);
        self.size.store(next.geometry.size, Ordering::Release);
        *superblock = next;
        Ok(())
    }
}

impl Journal {
    /// Makes the homes of every lane durable, and then `next` the superblock.
    fn start_epoch(&self, lanes: &mut Vec<MutexGuard<'_, Lane>>, next: &Superblock) -> Result<()> {
        for lane in &mut *lanes {
            lane.checkpoint(&self.region)?;
        }
        if mutation::is(Mutation::EpochWithoutLanes) {
            lanes.clear();
        }
        superblock::write(&self.region, next)
    }
}

fn read_object(region: &Region, seed: Seed, at: PoolOff, kind: Kind) -> Result<Image> {
    let mut slot = [0; crate::layout::MAX_OBJECT_BYTES];
    let slot = &mut slot[..kind.slot_bytes()];
    region.read(at, slot)?;
    Ok(Image::open(seed, at, kind, slot)?)
}
