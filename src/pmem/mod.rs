//! How do bytes reach the persistence domain?
//!
//! A [`Region`] is a mapped pool. Persistent memory is named by offset, and this module is the only code that
//! dereferences it: no reference into the medium leaves. Every access is checked against the pool's size.
//!
//! Invariants:
//! 1. What [`Region::copy_nt`] and [`Region::zero_nt`] stored, and what [`Region::flush`] named, is durable when the
//!    same thread's next [`Region::fence`] returned without error.
//! 2. A plain store may become durable at any time, word by word, in any order; or never.
//! 3. An aligned 8-byte word is never torn, also where a store covers only a part of it, and no byte beside the range
//!    of a store is touched.
//! 4. A region opened read-only is never stored to.
//! 5. Bytes that the medium is known to have lost are not touched, also not stored to: the call says so instead.
//!
//! On persistent memory the fence is the cost (about 180 ns), and a locked instruction (taking a lock, an atomic add)
//! between a flush or non-temporal store and its fence waits just as long. So: take locks first, copy, fence.

mod bad;
mod counters;
mod fiemap;
mod host;
mod info;
#[cfg(feature = "libpmem")]
mod libpmem;
#[cfg(target_arch = "x86_64")]
mod lines;
#[cfg(not(target_arch = "x86_64"))]
#[path = "no_lines.rs"]
mod lines;
mod mapping;
mod memory;
pub mod mutation;
mod open;
mod pages;
#[cfg(feature = "sim")]
pub mod sim;
mod window;

pub use fiemap::{HostExtent, host_extents};
pub use info::{Durability, Medium, RegionInfo};
pub use open::RegionOptions;
pub use window::Window;

use bad::BadRanges;
use counters::CountersByThread;
#[cfg(loom)]
pub use counters::set_thread_number;
pub use counters::{Counts, thread_number};
use std::collections::BTreeSet;

use crate::error::{Damage, Error, Result, Structure};
#[cfg(feature = "sim")]
use crate::sync::Arc;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::units::{CHUNK_BYTES, PoolOff};
use lines::Lines;
use mapping::{LineMapping, PageMapping};
use memory::Memory;

/// The kinds of medium.
enum Backend {
    /// Persistent memory, made durable by cache lines.
    Lines(LineMapping, Lines),
    /// Persistent memory, made durable by libpmem.
    #[cfg(feature = "libpmem")]
    Libpmem(LineMapping),
    /// A plain file, made durable by pages.
    Pages(PageMapping, pages::Collected),
    /// Memory that records what is done to it.
    #[cfg(feature = "sim")]
    Sim(Arc<sim::Sim>),
}

/// A mapped pool.
pub struct Region {
    backend: Backend,
    size: AtomicU64,
    /// Bytes from the start on of which none is bad; the size where no byte is.
    sound: AtomicU64,
    bad: Mutex<BadRanges>,
    /// Chunks that [`Self::prime`] has seen to.
    primed: Mutex<BTreeSet<u64>>,
    counters: CountersByThread,
    info: RegionInfo,
    host: Option<open::Host>,
}

/// Proof that every byte of data the caller is about to publish is durable (invariant J2 of the journal).
///
/// It is not made by hand:
///
/// ```compile_fail,E0423
/// let proof = daxstore::pmem::Durable(());
/// ```
///
/// and is good for one commit:
///
/// ```compile_fail,E0382
/// # fn both(one: daxstore::journal::Tx<'_>, two: daxstore::journal::Tx<'_>) -> daxstore::Result<()> {
/// let proof = daxstore::pmem::Durable::no_data();
/// one.commit(proof)?;
/// two.commit(proof)
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a durable token is spent by the commit that publishes the data"]
pub struct Durable(());

impl Durable {
    /// For a change that makes no data reachable.
    pub const fn no_data() -> Self {
        Self(())
    }

    /// The proof of both, for the one commit that publishes both.
    pub const fn and(self, other: Self) -> Self {
        let (Self(()), Self(())) = (self, other);
        Self(())
    }
}

/// Stores data that a commit will publish; only its fence makes the token that the commit asks for.
///
/// ```
/// # fn publish(
/// #     region: &daxstore::pmem::Region,
/// #     tx: daxstore::journal::Tx<'_>,
/// #     at: daxstore::units::PoolOff,
/// # ) -> daxstore::Result<()> {
/// let mut data = region.data_writer();
/// data.copy(at, b"new")?;
/// tx.commit(data.fence()?)
/// # }
/// ```
///
/// After the fence nothing can be stored that the token would not vouch for:
///
/// ```compile_fail,E0382
/// # fn publish(
/// #     region: &daxstore::pmem::Region,
/// #     tx: daxstore::journal::Tx<'_>,
/// #     at: daxstore::units::PoolOff,
/// # ) -> daxstore::Result<()> {
/// let mut data = region.data_writer();
/// let durable = data.fence()?;
/// data.copy(at, b"late")?;
/// tx.commit(durable)
/// # }
/// ```
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

    /// Answers for the `len` bytes at `at`, which another thread stored and handed over with a lock: its fence to come
    /// would be good for nobody else.
    ///
    /// # Errors
    /// [`Error::OutOfPool`].
    pub fn adopt(&mut self, at: PoolOff, len: u64) -> Result<()> {
        if mutation::is(mutation::Mutation::NotAdopted) { Ok(()) } else { self.region.flush(at, len) }
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

    /// As [`Self::fence`], of what this thread stored through each of `writers`, of one region: one fence for all, and a
    /// proof for each.
    ///
    /// # Errors
    /// As [`Self::fence`].
    pub fn fence_all(writers: Vec<Self>) -> Result<Vec<Durable>> {
        let count = writers.len();
        if let Some(one) = writers.into_iter().next() {
            let Durable(()) = one.fence()?;
        }
        Ok(std::iter::repeat_with(|| Durable(())).take(count).collect())
    }
}

impl std::fmt::Debug for Region {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Region {{ {} bytes, {} }}", self.len(), self.info.backend)
    }
}

impl Region {
    /// A region over simulated memory.
    #[cfg(feature = "sim")]
    #[must_use]
    pub fn sim(sim: Arc<sim::Sim>) -> Self {
        let size = sim.len();
        let info = RegionInfo {
            backend: "sim",
            medium: Medium::Simulated,
            durability: Durability::ProcessOnly,
            eadr: false,
            read_only: false,
            zeroed: false,
            mapped: sim.capacity(),
            path: None,
        };
        Self::new(Backend::Sim(sim), size, info, None)
    }

    fn new(backend: Backend, size: u64, info: RegionInfo, host: Option<open::Host>) -> Self {
        Self {
            backend,
            size: AtomicU64::new(size),
            sound: AtomicU64::new(size),
            bad: Mutex::default(),
            primed: Mutex::default(),
            counters: CountersByThread::default(),
            info,
            host,
        }
    }

    /// Bytes of the pool.
    #[must_use]
    #[inline]
    pub fn len(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    /// Whether there is nothing to access; never so for a pool.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[inline]
    fn memory(&self) -> &Memory {
        match &self.backend {
            Backend::Lines(mapping, _) => mapping.memory(),
            #[cfg(feature = "libpmem")]
            Backend::Libpmem(mapping) => mapping.memory(),
            Backend::Pages(mapping, _) => mapping.memory(),
            #[cfg(feature = "sim")]
            Backend::Sim(sim) => sim.memory(),
        }
    }

    #[inline]
    fn check(&self, at: PoolOff, len: u64) -> Result<()> {
        match at.0.checked_add(len) {
            Some(end) if end <= self.sound.load(Ordering::Acquire) => Ok(()),
            _ => self.check_all(at, len),
        }
    }

    #[cold]
    fn check_all(&self, at: PoolOff, len: u64) -> Result<()> {
        self.check_bounds(at, len)?;
        match self.bad(at, len) {
            None => Ok(()),
            Some((bad, _)) => {
                Err(Damage::new(Structure::Medium, bad, "readable bytes", len, bad.0 - at.0).into())
            }
        }
    }

    /// The end of `len` bytes from `at`, which lie within the pool.
    fn check_bounds(&self, at: PoolOff, len: u64) -> Result<u64> {
        let size = self.len();
        at.0.checked_add(len).filter(|end| *end <= size).ok_or(Error::OutOfPool { at, len, size })
    }

    /// Whether the medium has lost any byte of the pool, as far as is known.
    #[must_use]
    pub fn has_bad(&self) -> bool {
        self.sound.load(Ordering::Acquire) < self.len()
    }

    /// On a file with DAX, faults every chunk of `len` bytes from `at` in by the region's own mapping, once, as one translation
    /// where that is possible. A chunk that was mapped by 4 KiB first has none of 2 MiB, in no mapping, as long as
    /// the kernel keeps the file in mind.
    ///
    /// # Errors
    /// [`Error::OutOfPool`].
    pub fn prime(&self, at: PoolOff, len: u64) -> Result<()> {
        let end = self.check_bounds(at, len)?;
        let mapping = match &self.backend {
            Backend::Lines(mapping, _) => mapping,
            #[cfg(feature = "libpmem")]
            Backend::Libpmem(mapping) => mapping,
            _ => return Ok(()),
        };
        if self.info.medium != Medium::Fsdax {
            return Ok(());
        }
        for chunk in at.0 / CHUNK_BYTES..end.div_ceil(CHUNK_BYTES) {
            if self.primed.lock().contains(&chunk) {
                continue;
            }
            // Before it is noted: nobody goes on who found it noted and not done.
            mapping.prime(PoolOff(chunk * CHUNK_BYTES), !self.info.read_only);
            self.primed.lock().insert(chunk);
        }
        Ok(())
    }

    /// The first bytes of the `len` from `at` that the medium has lost, as far as is known: where, and how many in a
    /// row. Whole blocks of 4 KiB are lost, cut to what is asked for.
    #[must_use]
    #[inline]
    pub fn bad(&self, at: PoolOff, len: u64) -> Option<(PoolOff, u64)> {
        let end = at.0.saturating_add(len);
        if end <= self.sound.load(Ordering::Acquire) {
            return None;
        }
        self.bad.lock().first(at.0..end).map(|found| (PoolOff(found.start), found.end - found.start))
    }

    /// Every range that the medium has lost, as far as is known, ascending: where, and how many bytes.
    #[must_use]
    pub fn bad_ranges(&self) -> Vec<(PoolOff, u64)> {
        self.bad.lock().all()
    }

    /// Notes that the medium has lost the blocks of `len` bytes from `at`: calls that need them fail from now on. It is
    /// noted in memory only.
    ///
    /// # Errors
    /// [`Error::OutOfPool`].
    pub fn mark_bad(&self, at: PoolOff, len: u64) -> Result<()> {
        let end = self.check_bounds(at, len)?;
        self.change_bad(|bad| bad.add(at.0..end));
        Ok(())
    }

    fn change_bad(&self, change: impl FnOnce(&mut BadRanges)) {
        let mut bad = self.bad.lock();
        change(&mut bad);
        let size = self.len();
        self.sound.store(bad.lowest().map_or(size, |lowest| lowest.min(size)), Ordering::Release);
    }

    #[inline]
    fn check_store(&self, at: PoolOff, len: u64) -> Result<()> {
        if self.info.read_only {
            return Err(Error::ReadOnly);
        }
        self.check(at, len)
    }

    /// Copies `buf.len()` bytes from `at` into `buf`.
    ///
    /// # Errors
    /// [`Error::OutOfPool`], damage of the medium.
    #[inline]
    pub fn read(&self, at: PoolOff, buf: &mut [u8]) -> Result<()> {
        self.check(at, buf.len() as u64)?;
        self.memory().read(at, buf);
        Ok(())
    }

    /// The aligned word at `at`.
    ///
    /// # Errors
    /// [`Error::OutOfPool`], also where `at` is not a multiple of 8.
    #[inline]
    pub fn load(&self, at: PoolOff) -> Result<u64> {
        self.check_word(at)?;
        Ok(self.memory().load(at))
    }

    #[inline]
    fn check_word(&self, at: PoolOff) -> Result<()> {
        if !at.0.is_multiple_of(8) {
            return Err(Error::OutOfPool { at, len: 8, size: self.len() });
        }
        self.check(at, 8)
    }

    /// Stores the aligned word at `at` at once and after everything this thread stored before (release): visible at
    /// once, durable only after a flush and a fence.
    ///
    /// # Errors
    /// [`Error::OutOfPool`], also where `at` is not a multiple of 8; [`Error::ReadOnly`].
    #[inline]
    pub fn store_word(&self, at: PoolOff, value: u64) -> Result<()> {
        self.check_word(at)?;
        self.check_store(at, 8)?;
        match &self.backend {
            #[cfg(feature = "sim")]
            Backend::Sim(sim) => sim.store(at, &value.to_le_bytes(), false),
            _ => self.memory().store_word(at, value),
        }
        Ok(())
    }

    /// Stores `bytes` at `at` through the cache: visible at once, durable only after a flush and a fence.
    ///
    /// # Errors
    /// [`Error::OutOfPool`]; [`Error::ReadOnly`].
    #[inline]
    pub fn store(&self, at: PoolOff, bytes: &[u8]) -> Result<()> {
        self.check_store(at, bytes.len() as u64)?;
        match &self.backend {
            Backend::Lines(mapping, _) => mapping.memory().write(at, bytes),
            #[cfg(feature = "libpmem")]
            Backend::Libpmem(mapping) => mapping.memory().write(at, bytes),
            Backend::Pages(mapping, _) => mapping.memory().write(at, bytes),
            #[cfg(feature = "sim")]
            Backend::Sim(sim) => sim.store(at, bytes, false),
        }
        Ok(())
    }

    /// Copies `bytes` to `at` with non-temporal stores: durable after the next fence of this thread. Lines that are not
    /// covered as a whole are stored through the cache and written back, so that small pieces of one line are better
    /// assembled first: four copies of 16 bytes cost three times one of 64.
    ///
    /// # Errors
    /// [`Error::OutOfPool`]; [`Error::ReadOnly`].
    #[inline]
    pub fn copy_nt(&self, at: PoolOff, bytes: &[u8]) -> Result<()> {
        self.check_store(at, bytes.len() as u64)?;
        self.counters.nt_bytes(bytes.len() as u64);
        match &self.backend {
            Backend::Lines(mapping, lines) => lines.copy(mapping.memory(), at, bytes),
            #[cfg(feature = "libpmem")]
            Backend::Libpmem(mapping) => libpmem::copy(mapping.memory(), at, bytes),
            Backend::Pages(mapping, collected) => {
                mapping.memory().write(at, bytes);
                collected.add(at, bytes.len() as u64);
            }
            #[cfg(feature = "sim")]
            Backend::Sim(sim) => sim.store(at, bytes, true),
        }
        Ok(())
    }

    /// Zeroes `len` bytes at `at` with non-temporal stores: durable after the next fence of this thread.
    ///
    /// # Errors
    /// [`Error::OutOfPool`]; [`Error::ReadOnly`].
    pub fn zero_nt(&self, at: PoolOff, len: u64) -> Result<()> {
        self.check_store(at, len)?;
        self.counters.nt_bytes(len);
        match &self.backend {
            Backend::Lines(mapping, lines) => lines.zero(mapping.memory(), at, len),
            #[cfg(feature = "libpmem")]
            Backend::Libpmem(mapping) => libpmem::zero(mapping.memory(), at, len),
            Backend::Pages(mapping, collected) => {
                mapping.memory().zero(at, len);
                collected.add(at, len);
            }
            #[cfg(feature = "sim")]
            Backend::Sim(sim) => sim.zero(at, len),
        }
        Ok(())
    }

    /// Starts writing the lines of `len` bytes at `at` back: durable after the next fence of this thread.
    ///
    /// # Errors
    /// [`Error::OutOfPool`].
    #[inline]
    pub fn flush(&self, at: PoolOff, len: u64) -> Result<()> {
        self.check(at, len)?;
        if len == 0 || self.info.read_only {
            return Ok(());
        }
        let lines = (at.0 + len).div_ceil(64) - at.0 / 64;
        self.counters.flushed_lines(lines);
        match &self.backend {
            Backend::Lines(mapping, lines) => lines.flush(mapping.memory(), at, len),
            #[cfg(feature = "libpmem")]
            Backend::Libpmem(mapping) => libpmem::flush(mapping.memory(), at, len),
            Backend::Pages(_, collected) => collected.add(at, len),
            #[cfg(feature = "sim")]
            Backend::Sim(sim) => sim.flush(at, len),
        }
        Ok(())
    }

    /// Waits until this thread's non-temporal stores and flushes are durable.
    ///
    /// # Errors
    /// [`Error::Io`] where the system could not write; then nothing is known of what was flushed.
    #[inline]
    pub fn fence(&self) -> Result<()> {
        self.counters.fence();
        match &self.backend {
            Backend::Lines(_, lines) => lines.fence(),
            #[cfg(feature = "libpmem")]
            Backend::Libpmem(_) => libpmem::fence(),
            Backend::Pages(mapping, collected) => collected.write(mapping)?,
            #[cfg(feature = "sim")]
            Backend::Sim(sim) => sim.fence(),
        }
        Ok(())
    }

    /// What was found when the region was opened.
    #[must_use]
    pub fn info(&self) -> &RegionInfo {
        &self.info
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
