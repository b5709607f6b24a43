//! How do bytes reach the persistence domain?
//!
//! A [`Region`] is a mapped pool. Persistent memory is named by offset, and this module is the only code that
//! dereferences it: no reference into the medium leaves. Every access is checked against the pool's size.
//!
//! Invariants:
//! 1. What [`Region::copy_nt`] and [`Region::zero_nt`] stored, and what [`Region::flush`] named, is durable when the
//!    same thread's next [`Region::fence`] returned without error.
//! 2. A plain store may become durable at any time, word by word, in any order; or never.
//! 3. An aligned 8-byte word is never torn.

mod counters;
mod memory;
pub mod mutation;
#[cfg(feature = "sim")]
pub mod sim;

use counters::CountersByThread;
pub use counters::{Counts, thread_number};

use crate::error::{Error, Result};
use crate::sync::Arc;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::units::PoolOff;
use memory::Memory;

/// The kinds of medium.
enum Backend {
    /// Memory that records what is done to it.
    #[cfg(feature = "sim")]
    Sim(Arc<sim::Sim>),
}

/// A mapped pool.
pub struct Region {
    backend: Backend,
    size: AtomicU64,
    counters: CountersByThread,
}

/// Proof that every byte of data the caller is about to publish is durable (invariant J2 of the journal).
#[derive(Debug)]
#[must_use = "a durable token is spent by the commit that publishes the data"]
pub struct Durable(());

impl Durable {
    /// For a change that makes no data reachable.
    pub const fn no_data() -> Self {
        Self(())
    }
}

/// Stores data that a commit will publish; only its fence makes the token that the commit asks for.
#[derive(Debug)]
#[must_use = "data is not durable before `fence`"]
pub struct DataWriter<'r> {
    region: &'r Region,
}

impl DataWriter<'_> {
    /// Copies `bytes` to `at` with non-temporal stores.
    ///
    /// # Errors
    /// [`Error::OutOfPool`].
    pub fn copy(&mut self, at: PoolOff, bytes: &[u8]) -> Result<()> {
        self.region.copy_nt(at, bytes)
    }

    /// Zeroes `len` bytes from `at` with non-temporal stores.
    ///
    /// # Errors
    /// [`Error::OutOfPool`].
    pub fn zero(&mut self, at: PoolOff, len: u64) -> Result<()> {
        self.region.zero_nt(at, len)
    }

    /// Waits until everything stored through this writer is durable.
    ///
    /// # Errors
    /// [`Error::Io`] where the system could not write.
    pub fn fence(self) -> Result<Durable> {
        if !mutation::is(mutation::Mutation::NoDataFence) {
            self.region.fence()?;
        }
        Ok(Durable(()))
    }
}

impl std::fmt::Debug for Region {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Region {{ {} bytes }}", self.len())
    }
}

impl Region {
    /// A region over simulated memory.
    #[cfg(feature = "sim")]
    #[must_use]
    pub fn sim(sim: Arc<sim::Sim>) -> Self {
        let size = AtomicU64::new(sim.len());
        Self { backend: Backend::Sim(sim), size, counters: CountersByThread::default() }
    }

    /// Bytes that may be accessed.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    /// Whether there is nothing to access; never so for a pool.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn memory(&self) -> &Memory {
        match &self.backend {
            #[cfg(feature = "sim")]
            Backend::Sim(sim) => sim.memory(),
        }
    }

    fn check(&self, at: PoolOff, len: u64) -> Result<()> {
        let size = self.len();
        match at.0.checked_add(len) {
            Some(end) if end <= size => Ok(()),
            _ => Err(Error::OutOfPool { at, len, size }),
        }
    }

    /// Copies `buf.len()` bytes from `at` into `buf`.
    ///
    /// # Errors
    /// [`Error::OutOfPool`].
    pub fn read(&self, at: PoolOff, buf: &mut [u8]) -> Result<()> {
        self.check(at, buf.len() as u64)?;
        self.memory().read(at, buf);
        Ok(())
    }

    /// The aligned word at `at`.
    ///
    /// # Errors
    /// [`Error::OutOfPool`], also where `at` is not a multiple of 8.
    pub fn load(&self, at: PoolOff) -> Result<u64> {
        self.check_word(at)?;
        Ok(self.memory().load(at))
    }

    fn check_word(&self, at: PoolOff) -> Result<()> {
        if !at.0.is_multiple_of(8) {
            return Err(Error::OutOfPool { at, len: 8, size: self.len() });
        }
        self.check(at, 8)
    }

    /// Stores `bytes` at `at` through the cache: visible at once, durable only after a flush and a fence.
    ///
    /// # Errors
    /// [`Error::OutOfPool`].
    pub fn store(&self, at: PoolOff, bytes: &[u8]) -> Result<()> {
        self.check(at, bytes.len() as u64)?;
        match &self.backend {
            #[cfg(feature = "sim")]
            Backend::Sim(sim) => sim.store(at, bytes, false),
        }
        Ok(())
    }

    /// Copies `bytes` to `at` with non-temporal stores: durable after the next fence of this thread.
    ///
    /// # Errors
    /// [`Error::OutOfPool`].
    pub fn copy_nt(&self, at: PoolOff, bytes: &[u8]) -> Result<()> {
        self.check(at, bytes.len() as u64)?;
        self.counters.nt_bytes(bytes.len() as u64);
        match &self.backend {
            #[cfg(feature = "sim")]
            Backend::Sim(sim) => sim.store(at, bytes, true),
        }
        Ok(())
    }

    /// Zeroes `len` bytes at `at` with non-temporal stores: durable after the next fence of this thread.
    ///
    /// # Errors
    /// [`Error::OutOfPool`].
    pub fn zero_nt(&self, at: PoolOff, len: u64) -> Result<()> {
        self.check(at, len)?;
        self.counters.nt_bytes(len);
        match &self.backend {
            #[cfg(feature = "sim")]
            Backend::Sim(sim) => sim.zero(at, len),
        }
        Ok(())
    }

    /// Starts writing the lines of `len` bytes at `at` back: durable after the next fence of this thread.
    ///
    /// # Errors
    /// [`Error::OutOfPool`].
    pub fn flush(&self, at: PoolOff, len: u64) -> Result<()> {
        self.check(at, len)?;
        let lines = (at.0 + len).div_ceil(64) - at.0 / 64;
        self.counters.flushed_lines(lines);
        match &self.backend {
            #[cfg(feature = "sim")]
            Backend::Sim(sim) => sim.flush(at, len),
        }
        Ok(())
    }

    /// Waits until this thread's non-temporal stores and flushes are durable.
    ///
    /// # Errors
    /// [`Error::Io`] where the system could not write; then nothing is known of what was flushed.
    pub fn fence(&self) -> Result<()> {
        self.counters.fence();
        match &self.backend {
            #[cfg(feature = "sim")]
            Backend::Sim(sim) => sim.fence(),
        }
        Ok(())
    }

    /// A writer of data that a commit will publish.
    pub fn data_writer(&self) -> DataWriter<'_> {
        DataWriter { region: self }
    }

    /// What was counted since the region was mapped, over all threads.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counters.sum()
    }
}
