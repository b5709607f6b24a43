//! What do the tables of all modes have in common?
//!
//! A [`Ground`] is the addresses of one mapping with what may be put there: blocks of the pool and the end of the file.
//! Offsets are checked against the medium's unit before the system sees them: a devdax device maps the wrong page at an
//! offset that is not aligned, without a word (`docs/fault.md`).

use super::reserve::{Area, How, gone};
use super::{Protection, Wish};
use daxstore::iomap::Memory;
use daxstore::sync::Arc;
use daxstore::units::PoolOff;
use daxstore::{Error, Result};
use std::fs::File;

/// The addresses of a mapping, and what can be mapped there.
#[derive(Debug)]
pub(super) struct Ground {
    pub(super) area: Arc<Area>,
    memory: Memory,
    protection: Protection,
    private: bool,
    empty: &'static File,
}

impl Ground {
    /// Reserves addresses for `wish`.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn new(memory: &Memory, wish: &Wish, empty: &'static File) -> Result<Self> {
        let len = wish.len.checked_next_multiple_of(memory.unit.max(1));
        let len = len.ok_or(Error::InvalidArgument("a mapping is longer than the addresses of a process"))?;
        let area = Arc::new(Area::reserve(len, wish.congruent_to, memory.unit)?);
        Ok(Self { area, memory: memory.clone(), protection: wish.protection, private: wish.private, empty })
    }

    /// The rights of translations that are there.
    pub(super) fn prot(&self) -> i32 {
        match self.protection {
            Protection::ReadOnly => libc::PROT_READ,
            Protection::Writable => libc::PROT_READ | libc::PROT_WRITE,
        }
    }

    fn flags(&self) -> i32 {
        match (self.private, self.memory.sync) {
            (true, _) => libc::MAP_PRIVATE | libc::MAP_NORESERVE,
            (false, true) => libc::MAP_SHARED_VALIDATE | libc::MAP_SYNC,
            (false, false) => libc::MAP_SHARED,
        }
    }

    /// Maps `len` bytes of the pool from `pool` to `at`.
    ///
    /// # Errors
    /// The system's, and `true` if the range has no rights and no watch now.
    pub(super) fn block(&self, at: u64, len: u64, pool: PoolOff) -> Result<(), (Error, bool)> {
        let address = self.area.base() as u64 + at;
        if !(at | len | pool.0 | address).is_multiple_of(self.memory.unit.max(1)) {
            return Err((Error::InvalidArgument("a translation is of whole units of the medium"), false));
        }
        let how = How { prot: self.prot(), flags: self.flags() };
        self.area.file(at, len, how, &self.memory.file, pool.0)
    }

    /// Maps what is beyond the end of a file.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn beyond(&self, at: u64, len: u64) -> Result<()> {
        if self.area.is_gone() {
            return Ok(());
        }
        let how = How { prot: self.prot(), flags: libc::MAP_SHARED | libc::MAP_NORESERVE };
        // Neighbours have neighbouring offsets, so that they are one mapping to the kernel.
        self.area.file(at, len, how, self.empty, at).map_err(|(error, _)| error)
    }

    /// Fails if the addresses are not ours any more.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`].
    pub(super) fn check(&self) -> Result<()> {
        if self.area.is_gone() { Err(gone()) } else { Ok(()) }
    }
}
