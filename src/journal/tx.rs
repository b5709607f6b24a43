//! How does a change of several objects become one?
//!
//! A [`Tx`] is read through and staged into; [`Tx::commit`] consumes it, demands the durable token of any data it
//! makes reachable, and returns when the change is durable and applied. Dropped, it leaves no trace. The caller
//! holds the locks of every object it stages from before it reads it until after the commit (J3).

use super::Journal;
use super::record::{RECORD_HEADER_BYTES, entry_bytes};
use crate::error::{Damage, Error, Result, Structure};
use crate::layout::{Counters, Image, Kind};
use crate::pmem::Durable;
use crate::pmem::mutation::{self, Mutation};
use crate::units::PoolOff;

/// A change in the making.
#[derive(Debug)]
#[must_use = "a transaction that is not committed changes nothing"]
pub struct Tx<'j> {
    journal: &'j Journal,
    images: Vec<(PoolOff, Image)>,
    bytes: u64,
    counters: Counters,
}

/// The version after that of the object at `at`.
///
/// # Errors
/// Damage where there is none.
pub(super) fn next_version(journal: &Journal, at: PoolOff, step: u64) -> Result<u64> {
    let version = journal.region().load(at)?;
    let next = version.checked_add(step);
    Ok(next.ok_or_else(|| Damage::new(Structure::Record, at, "the last version", 0, version))?)
}

impl<'j> Tx<'j> {
    pub(super) fn new(journal: &'j Journal) -> Self {
        // The lane's counters may join at commit: their room is set aside.
        let bytes = RECORD_HEADER_BYTES + entry_bytes(Kind::Lane.slot_bytes());
        Self { journal, images: Vec::with_capacity(8), bytes, counters: Counters::default() }
    }

    /// The object at `at`, of `kind` or free: as staged here, else from its home.
    ///
    /// # Errors
    /// Damage of the object.
    pub fn read(&self, at: PoolOff, kind: Kind) -> Result<Image> {
        match self.images.iter().find(|(home, _)| *home == at) {
            Some((_, image)) => Ok(image.clone()),
            None => self.journal.read(at, kind),
        }
    }

    /// Makes `image` the object at `at` with the commit; staging again replaces. Its version becomes the home's
    /// plus one (J4).
    ///
    /// # Errors
    /// [`Error::TooBig`] where the record would not fit a lane; nothing is staged then.
    pub fn stage(&mut self, at: PoolOff, mut image: Image) -> Result<()> {
        let step = if mutation::is(Mutation::NoVersion) { 0 } else { 1 };
        image.seal(self.journal.seed(), at, next_version(self.journal, at, step)?);
        let index = self.images.iter().position(|(home, _)| *home == at);
        let old = index.map_or(0, |i| entry_bytes(self.images[i].1.bytes().len()));
        let bytes = self.bytes - old + entry_bytes(image.bytes().len());
        if bytes > self.journal.capacity() {
            return Err(Error::TooBig { needed: bytes, capacity: self.journal.capacity() });
        }
        self.bytes = bytes;
        match index {
            Some(i) => self.images[i].1 = image,
            None => self.images.push((at, image)),
        }
        Ok(())
    }

    /// Adds `change` to the pool's totals with the commit.
    pub fn count(&mut self, change: Counters) {
        self.counters = self.counters.plus(change);
    }

    /// Bytes of record left.
    #[must_use]
    pub fn room(&self) -> u64 {
        self.journal.capacity() - self.bytes
    }

    /// Bytes of record taken.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether nothing is staged or counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.images.is_empty() && self.counters == Counters::default()
    }

    /// Makes the change durable and applies it; `data` proves that what it makes reachable is durable (J2).
    ///
    /// # Errors
    /// [`Error::Poisoned`] and errors of the medium; after the latter the journal is poisoned.
    pub fn commit(self, data: Durable) -> Result<()> {
        let _spent = data;
        if self.is_empty() { Ok(()) } else { self.journal.commit(self.images, self.counters) }
    }
}
