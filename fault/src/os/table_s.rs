//! How are translations changed without userfaultfd?
//!
//! Every address of a mapping has rights or none: what is missing has none, so that a touch raises SIGSEGV, and holes are
//! memory of zeros that can only be read. Every change is one `mmap` or `mremap` over what was there. In mode S
//! the signal is answered; in mode E it is not, and nothing is ever made missing again.
//!
//! Rule: zeros replace what is there. Who installs them has the turn of the range and knows that it is missing.

use super::confirm::has_huge_zeros;
use super::ground::Ground;
use crate::table::{Installed, Mode, Table};
use daxstore::units::{CHUNK_BYTES, PoolOff};
use daxstore::{Error, Result};

/// The translations of a mapping whose faults come by SIGSEGV, or not at all.
#[derive(Debug)]
pub(super) struct TableS {
    ground: Ground,
    mode: Mode,
}

impl TableS {
    /// The table of `ground`, whose faults come by signal or, with [`Mode::Eager`], not at all.
    pub(super) fn new(ground: Ground, mode: Mode) -> Self {
        Self { ground, mode }
    }
}

impl Table for TableS {
    fn mode(&self) -> Mode {
        self.mode
    }

    fn block(&self, at: u64, len: u64, pool: PoolOff) -> Result<()> {
        self.ground.block(at, len, pool).map_err(|(error, _)| error)
    }

    fn zero(&self, at: u64, len: u64) -> Result<Installed> {
        self.ground.area.fresh(at, len, libc::PROT_READ)?;
        Ok(Installed::Done)
    }

    fn zero_huge(&self, at: u64) -> Result<bool> {
        let address = self.ground.area.base() as u64 + at;
        if !address.is_multiple_of(CHUNK_BYTES) || !has_huge_zeros() {
            return Ok(false);
        }
        self.ground.area.fresh(at, CHUNK_BYTES, libc::PROT_READ)?;
        // Who loads before the advice gets zeros of 4 KiB, which is as right.
        let _ = self.ground.area.advise(at, CHUNK_BYTES, libc::MADV_HUGEPAGE);
        Ok(true)
    }

    fn copy(&self, at: u64, page: &[u8; 4096], guarded: bool) -> Result<Installed> {
        self.ground.area.page(at, page, if guarded { libc::PROT_READ } else { self.ground.prot() })?;
        Ok(Installed::Done)
    }

    fn missing(&self, at: u64, len: u64) -> Result<()> {
        if self.mode == Mode::Eager {
            return Err(Error::Unsupported {
                backend: "mappings without a fault handler",
                why: "what they have mapped can not be taken back; unmap the file first",
            });
        }
        if self.ground.area.is_gone() {
            return Ok(());
        }
        self.ground.area.fresh(at, len, libc::PROT_NONE)
    }

    fn beyond(&self, at: u64, len: u64) -> Result<()> {
        self.ground.beyond(at, len)
    }

    fn wake(&self, _at: u64, _len: u64) {}
}
