//! How is the pool's memory used at other addresses?
//!
//! A [`Window`] is memory of a file as it is mapped somewhere else: in parts of the pool, in the file's order. It is stored
//! to and made durable as a [`Region`] is, and counts with it. A touch of what is not translated yet is a fault, which
//! the handler of the mapping serves: whoever uses a window holds no lock that it needs.
//!
//! Invariant: as for a region; every access is checked against the window's length.

use super::memory::Memory;
use super::{Backend, Region, pages};
use crate::error::{Error, Result};
use crate::sync::Arc;
use crate::units::PoolOff;
use std::sync::atomic::AtomicU64;

/// Mapped memory of a file of the pool.
#[derive(Debug)]
pub struct Window {
    region: Arc<Region>,
    memory: Memory,
    len: u64,
    /// What waits to be written back, where the pool is made durable by pages.
    collected: pages::Collected,
}

impl Window {
    /// The `len` bytes at `base` as memory of `region`'s pool.
    ///
    /// # Safety
    /// `base` is a multiple of 4096, and `len` bytes from it are mapped as long as the window lives, so that a load is
    /// served (or answered by a signal); so is a store, if anything is stored through it. Nobody has a Rust
    /// reference to them but to atomics.
    #[must_use]
    pub unsafe fn new(region: Arc<Region>, base: *mut u8, len: u64) -> Self {
        // SAFETY: the caller's promise.
        let memory = unsafe { Memory::new(base, len.next_multiple_of(8)) };
        Self { region, memory, len, collected: pages::Collected::default() }
    }

    /// Bytes of the window.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is nothing to access.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[inline]
    fn check(&self, at: u64, len: u64) -> Result<PoolOff> {
        match at.checked_add(len) {
            Some(end) if end <= self.len => Ok(PoolOff(at)),
            _ => Err(Error::OutOfMapping { offset: at, len, mapped: self.len }),
        }
    }

    /// Copies `buf.len()` bytes from `at` into `buf`.
    ///
    /// # Errors
    /// [`Error::OutOfMapping`].
    #[inline]
    pub fn read(&self, at: u64, buf: &mut [u8]) -> Result<()> {
        let at = self.check(at, buf.len() as u64)?;
        self.memory.read(at, buf);
        Ok(())
    }

    /// The aligned word at `at`.
    ///
    /// # Errors
    /// [`Error::OutOfMapping`], also where `at` is not a multiple of 8.
    #[inline]
    pub fn word(&self, at: u64) -> Result<&AtomicU64> {
        let place = self.check(at, 8)?;
        if !at.is_multiple_of(8) {
            return Err(Error::OutOfMapping { offset: at, len: 8, mapped: self.len });
        }
        Ok(self.memory.word(place))
    }

    /// Stores `bytes` at `at` through the cache; no aligned word is torn. Durable after [`Self::flush`] and a fence.
    ///
    /// # Errors
    /// [`Error::OutOfMapping`].
    #[inline]
    pub fn write(&self, at: u64, bytes: &[u8]) -> Result<()> {
        let at = self.check(at, bytes.len() as u64)?;
        self.memory.write(at, bytes);
        Ok(())
    }

    /// Copies `bytes` to `at` with non-temporal stores: durable after this thread's next fence.
    ///
    /// # Errors
    /// [`Error::OutOfMapping`].
    #[inline]
    pub fn copy_nt(&self, at: u64, bytes: &[u8]) -> Result<()> {
        let place = self.check(at, bytes.len() as u64)?;
        self.region.counters.nt_bytes(bytes.len() as u64);
        match &self.region.backend {
            Backend::Lines(_, lines) => lines.copy(&self.memory, place, bytes),
            #[cfg(feature = "libpmem")]
            Backend::Libpmem(_) => super::libpmem::copy(&self.memory, place, bytes),
            Backend::Pages(..) => {
                self.memory.write(place, bytes);
                self.collected.add(place, bytes.len() as u64);
            }
            #[cfg(feature = "sim")]
            Backend::Sim(_) => self.memory.write(place, bytes),
        }
        Ok(())
    }

    /// Starts writing the lines of `len` bytes at `at` back: durable after this thread's next fence.
    ///
    /// # Errors
    /// [`Error::OutOfMapping`].
    #[inline]
    pub fn flush(&self, at: u64, len: u64) -> Result<()> {
        let place = self.check(at, len)?;
        if len == 0 {
            return Ok(());
        }
        self.region.counters.flushed_lines((at + len).div_ceil(64) - at / 64);
        match &self.region.backend {
            Backend::Lines(_, lines) => lines.flush(&self.memory, place, len),
            #[cfg(feature = "libpmem")]
            Backend::Libpmem(_) => super::libpmem::flush(&self.memory, place, len),
            Backend::Pages(..) => self.collected.add(place, len),
            #[cfg(feature = "sim")]
            Backend::Sim(_) => {}
        }
        Ok(())
    }

    /// Waits until this thread's non-temporal stores and flushes are durable.
    ///
    /// # Errors
    /// [`Error::Io`] where the system could not write; then nothing is known of what was flushed.
    #[inline]
    pub fn fence(&self) -> Result<()> {
        match &self.region.backend {
            Backend::Pages(mapping, _) => {
                self.region.counters.fence();
                self.collected.write_file(mapping.file())
            }
            _ => self.region.fence(),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::pmem::RegionOptions;
    use std::sync::atomic::Ordering;

    const LEN: u64 = 8 << 20;
    const PART: u64 = 1 << 20;

    /// A pool in memory, and its second MiB mapped again.
    #[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    fn window(assume_persistent: bool) -> (tempfile::TempDir, Arc<Region>, memmap2::MmapRaw, Window) {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let path = dir.path().join("pool");
        let options = RegionOptions { assume_persistent, ..RegionOptions::default() };
        let region = Arc::new(Region::create_file(&path, LEN, &options).unwrap());
        let file = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let map = memmap2::MmapOptions::new().offset(PART).len(PART as usize).map_raw(&file).unwrap();
        // SAFETY: the mapping is page aligned, PART bytes long, and returned beside the window.
        let window = unsafe { Window::new(region.clone(), map.as_mut_ptr(), PART) };
        (dir, region, map, window)
    }

    #[test]
    fn what_is_stored_through_a_window_is_in_the_pool() {
        for assume_persistent in [true, false] {
            let (_dir, region, _map, window) = window(assume_persistent);
            let before = region.counts();
            window.copy_nt(4095, b"across").unwrap();
            window.write(8200, b"plain").unwrap();
            window.flush(8200, 5).unwrap();
            window.word(16).unwrap().store(7, Ordering::Release);
            window.fence().unwrap();
            let counts = region.counts().since(before);
            assert_eq!((counts.fences, counts.nt_bytes, counts.flushed_lines), (1, 6, 1));
            let mut found = [0; 6];
            region.read(PoolOff(PART + 4095), &mut found).unwrap();
            assert_eq!(&found, b"across");
            region.read(PoolOff(PART + 8200), &mut found[..5]).unwrap();
            assert_eq!(&found[..5], b"plain");
            assert_eq!(region.load(PoolOff(PART + 16)).unwrap(), u64::from_le(7));
        }
    }

    #[test]
    fn nothing_outside_is_touched() {
        let (_dir, _region, _map, window) = window(true);
        assert!(window.read(PART - 1, &mut [0; 2]).is_err());
        assert!(window.write(u64::MAX, &[1]).is_err());
        assert!(window.copy_nt(PART, &[1]).is_err());
        assert!(window.flush(1, PART).is_err());
        assert!(window.word(PART).is_err());
        assert!(window.word(12).is_err());
        assert!(window.read(PART - 1, &mut [0; 1]).is_ok());
    }
}
