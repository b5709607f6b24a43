//! How does a database lie in simulated memory?
//!
//! The simulated device of the file store records every store, flush and fence; the database over it is the one that
//! ships. It counts what was asked of it, so that tests can say how many fences an operation costs.

use super::{Media, Work};
use crate::error::{Error, Result};
use daxstore::pmem::Region;
use daxstore::pmem::sim::Sim;
use daxstore::sync::{Arc, Mutex};
use daxstore::units::PoolOff;

/// What was asked of simulated memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SimCounts {
    /// Fences.
    pub fences: u64,
    /// Lines flushed.
    pub lines: u64,
    /// Bytes written through.
    pub through: u64,
}

/// Simulated memory, all of it usable: growth is a larger logical length, as the host makes a file longer.
#[derive(Debug)]
pub struct SimMedia {
    region: Region,
    sim: Arc<Sim>,
    /// Taken where a word is looked at and replaced in one step.
    words: Mutex<()>,
}

impl SimMedia {
    /// The memory of `sim`.
    #[must_use]
    pub fn new(sim: Arc<Sim>) -> Self {
        Self { region: Region::sim(sim.clone()), sim, words: Mutex::default() }
    }

    /// What was asked of it until now.
    #[must_use]
    pub fn counts(&self) -> SimCounts {
        let counts = self.region.counts();
        SimCounts { fences: counts.fences, lines: counts.flushed_lines, through: counts.nt_bytes }
    }
}

/// A simulated access fails only outside of the memory, which [`Media`] answers with silence.
fn inside<T: Default>(done: daxstore::Result<T>) -> T {
    debug_assert!(done.is_ok(), "outside of the memory");
    done.unwrap_or_default()
}

impl Media for SimMedia {
    fn len(&self) -> u64 {
        self.region.len()
    }

    fn capacity(&self) -> u64 {
        self.sim.capacity()
    }

    fn grow(&self, len: u64) -> Result<()> {
        if len > self.region.len() {
            return Err(Error::NoSpace { needed: len - self.region.len() });
        }
        Ok(())
    }

    fn load(&self, at: u64) -> u64 {
        inside(self.region.load(PoolOff(at)))
    }

    fn store(&self, at: u64, word: u64) {
        let _one = self.words.lock();
        inside(self.region.store_word(PoolOff(at), word));
    }

    fn compare_exchange(&self, at: u64, old: u64, new: u64) -> std::result::Result<u64, u64> {
        let _one = self.words.lock();
        let found = self.load(at);
        if found != old {
            return Err(found);
        }
        inside(self.region.store_word(PoolOff(at), new));
        Ok(found)
    }

    fn read(&self, at: u64, buf: &mut [u8]) {
        inside(self.region.read(PoolOff(at), buf));
    }

    fn equals(&self, at: u64, bytes: &[u8]) -> bool {
        let mut found = vec![0; bytes.len()];
        self.read(at, &mut found);
        found == bytes
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        inside(self.region.store(PoolOff(at), bytes));
    }

    fn write_through(&self, at: u64, bytes: &[u8]) {
        inside(self.region.copy_nt(PoolOff(at), bytes));
    }

    fn flush(&self, at: u64, len: u64) {
        inside(self.region.flush(PoolOff(at), len));
    }

    fn fence(&self) -> Result<()> {
        Ok(self.region.fence()?)
    }

    fn prefetch(&self, _at: u64) {}

    fn work(&self) -> Option<Work> {
        let SimCounts { fences, lines, through } = self.counts();
        Some(Work { fences, lines, through })
    }
}
