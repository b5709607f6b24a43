//! How are translations changed under userfaultfd?
//!
//! Every address of a mapping is either registered anonymous memory, missing or write-protected zeros, or a mapping of
//! something else over it. A range becomes missing again by moving registered memory over it (`mremap`): to map and
//! register afterwards would lose what is stored in between.
//!
//! Rules:
//! 1. The staging memory that is moved has no pages. Somebody who locks all memory of the process fills it; then it is
//!    emptied, and what was moved with such pages is moved over again.
//! 2. `mremap` waits until a handler thread has read of it. So at most one of the two handler threads is in it, which the lock
//!    of the zeros' staging memory sees to; the other reads while it waits for that lock. And who calls `zero_huge` or
//!    `missing` holds no lock that another fault's answer wants.

use super::ground::Ground;
use super::reserve::Area;
use super::service::pause;
use super::sys::minor_faults;
use super::userfault::{Copied, Userfault, Watch};
use crate::table::{Installed, Mode, Table};
use daxstore::Result;
use daxstore::sync::Mutex;
use daxstore::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use daxstore::sync::thread;
use daxstore::units::{CHUNK_BYTES, PoolOff};

/// Bytes that can be made missing at once: more would be faster for whole files, and are what `mlockall` fills.
const STAGING_BYTES: u64 = 64 << 20;
/// After so many attempts without a huge zero page none is made any more.
const HUGE_ATTEMPTS: u32 = 8;

/// Registered memory without pages, to be moved over what shall be missing.
#[derive(Debug)]
pub(super) struct Staging {
    area: Area,
    /// How many fills were done when it was emptied last. Held by who moves it.
    clean: Mutex<u64>,
    /// Fills begun, and done (rule 1).
    begun: AtomicU64,
    done: AtomicU64,
}

impl Staging {
    /// # Errors
    /// The system's.
    pub(super) fn new(uffd: &Userfault, prot: i32) -> Result<Self> {
        let area = Area::reserve(STAGING_BYTES, 0, 0)?;
        uffd.register(area.base(), area.len(), Watch::All)?;
        area.protect(0, area.len(), prot)?;
        Ok(Self { area, clean: Mutex::new(0), begun: AtomicU64::new(0), done: AtomicU64::new(0) })
    }

    /// Lets a thread go on that touched the staging memory, if `address` is there.
    pub(super) fn fill(&self, uffd: &Userfault, address: usize) -> bool {
        let page = address & !(super::reserve::PAGE as usize - 1);
        if !(self.area.base()..self.area.base() + self.area.len() as usize).contains(&page) {
            return false;
        }
        self.begun.fetch_add(1, Ordering::SeqCst);
        let _ = uffd.zeros(page, super::reserve::PAGE);
        self.done.fetch_add(1, Ordering::SeqCst);
        uffd.wake(page, super::reserve::PAGE);
        true
    }

    /// Its addresses, which no user code knows.
    #[cfg(test)]
    pub(super) fn area_for_test(&self) -> &Area {
        &self.area
    }

    /// Moves it over `len` bytes at `at`, at most as many as it has.
    fn cover(&self, target: &Area, at: u64, len: u64) -> Result<()> {
        let mut clean = self.clean.lock();
        loop {
            let done = self.done.load(Ordering::SeqCst);
            let begun = self.begun.load(Ordering::SeqCst);
            if done != begun {
                thread::yield_now();
                continue;
            }
            if done != *clean {
                self.area.empty()?;
                *clean = done;
            }
            target.take(at, len, &self.area)?;
            if self.begun.load(Ordering::SeqCst) == begun {
                return Ok(());
            }
        }
    }
}

/// Where huge zero pages are made.
#[derive(Debug)]
pub(super) struct Zeros {
    area: Mutex<Area>,
    failures: AtomicU32,
}

impl Zeros {
    /// # Errors
    /// The system's.
    pub(super) fn new() -> Result<Self> {
        Ok(Self { area: Mutex::new(Area::reserve(CHUNK_BYTES, 0, 0)?), failures: AtomicU32::new(0) })
    }

    /// Makes one and moves it to `at`, if the system gives one.
    fn put(&self, uffd: &Userfault, target: &Area, at: u64, prot: i32) -> Result<bool> {
        if self.failures.load(Ordering::Relaxed) >= HUGE_ATTEMPTS {
            return Ok(false);
        }
        let area = loop {
            match self.area.try_lock() {
                Some(area) => break area,
                None => pause(uffd),
            }
        };
        if !make_huge(&area, prot)? {
            self.failures.fetch_add(1, Ordering::Relaxed);
            return Ok(false);
        }
        uffd.register(area.base(), CHUNK_BYTES, Watch::Stores)?;
        loop {
            match uffd.write_protect(area.base(), CHUNK_BYTES) {
                Err(error) if error.errno() == libc::EAGAIN => pause(uffd),
                done => break done?,
            }
        }
        uffd.register(area.base(), CHUNK_BYTES, Watch::All)?;
        target.take(at, CHUNK_BYTES, &area)?;
        Ok(true)
    }
}

/// Puts the huge zero page into `area`: `false` where the system has none.
fn make_huge(area: &Area, prot: i32) -> Result<bool> {
    area.fresh(0, CHUNK_BYTES, prot)?;
    if area.advise(0, CHUNK_BYTES, libc::MADV_HUGEPAGE).is_err() {
        return Ok(false);
    }
    area.load(0)?;
    let before = minor_faults()?;
    area.load(CHUNK_BYTES - super::reserve::PAGE)?;
    Ok(minor_faults()? == before)
}

/// What tables of this mode share.
#[derive(Debug)]
pub(super) struct Tools {
    pub(super) uffd: Userfault,
    /// For mappings that are read only.
    pub(super) read_only: Staging,
    /// For those that can be stored to.
    pub(super) writable: Staging,
    pub(super) zeros: Zeros,
}

/// The translations of a mapping whose faults come by userfaultfd.
#[derive(Debug)]
pub(super) struct TableU {
    ground: Ground,
    tools: &'static Tools,
}

impl TableU {
    /// # Errors
    /// The system's; `ENOMEM` where it promises only memory that there is (`vm.overcommit_memory` 2).
    pub(super) fn new(ground: Ground, tools: &'static Tools) -> Result<Self> {
        let table = Self { ground, tools };
        table.watch(0, table.ground.area.len())?;
        Ok(table)
    }

    fn address(&self, at: u64) -> usize {
        self.ground.area.base() + at as usize
    }

    /// Makes a reservation without rights one that is missing.
    fn watch(&self, at: u64, len: u64) -> Result<()> {
        self.tools.uffd.register(self.address(at), len, Watch::All)?;
        self.ground.area.protect(at, len, self.ground.prot())
    }

    fn staging(&self) -> &Staging {
        if self.ground.prot() & libc::PROT_WRITE == 0 { &self.tools.read_only } else { &self.tools.writable }
    }
}

impl From<Copied> for Installed {
    fn from(copied: Copied) -> Self {
        match copied {
            Copied::Done => Self::Done,
            Copied::Again => Self::Again,
        }
    }
}

impl Table for TableU {
    fn mode(&self) -> Mode {
        Mode::Userfault
    }

    fn block(&self, at: u64, len: u64, pool: PoolOff) -> Result<()> {
        self.ground.block(at, len, pool).or_else(|(error, lost)| {
            if lost {
                self.watch(at, len)?;
            }
            Err(error)
        })
    }

    fn zero(&self, at: u64, len: u64) -> Result<Installed> {
        self.ground.area.within(at, len, |address| Ok(self.tools.uffd.zeros(address, len)?.into()))
    }

    fn zero_huge(&self, at: u64) -> Result<bool> {
        self.ground.check()?;
        if !self.address(at).is_multiple_of(CHUNK_BYTES as usize) {
            return Ok(false);
        }
        self.tools.zeros.put(&self.tools.uffd, &self.ground.area, at, self.ground.prot())
    }

    fn copy(&self, at: u64, page: &[u8; 4096], guarded: bool) -> Result<Installed> {
        self.ground.area.within(at, 4096, |address| Ok(self.tools.uffd.page(address, page, guarded)?.into()))
    }

    fn missing(&self, at: u64, len: u64) -> Result<()> {
        if self.ground.area.is_gone() {
            return Ok(());
        }
        let mut done = 0;
        while done < len {
            let piece = (len - done).min(STAGING_BYTES);
            self.staging().cover(&self.ground.area, at + done, piece)?;
            done += piece;
        }
        Ok(())
    }

    fn beyond(&self, at: u64, len: u64) -> Result<()> {
        self.ground.beyond(at, len)
    }

    fn wake(&self, at: u64, len: u64) {
        self.tools.uffd.wake(self.address(at), len);
    }
}
