//! How are pages installed before they are touched, and kept where they are?
//!
//! Calls, not faults: they wait for their turns, and say why something can not be had where a fault would raise SIGBUS.

use crate::entries::What;
use crate::serve::{Scope, Trouble};
use crate::table::Mode;
use crate::turns::Kind;
use crate::view::{View, clip, page_of};
use daxstore::iomap::{FaultOps, FileRange, State};
use daxstore::sync::Arc;
use daxstore::units::PoolOff;
use daxstore::{Error, Result};
use std::io;

/// The blocks of some bytes, which nobody else is given as long as this lives.
#[derive(Debug)]
pub struct Pin {
    file: Arc<dyn FaultOps>,
    runs: Vec<(PoolOff, u64)>,
}

impl Pin {
    /// Where in the pool the blocks are: place and bytes, in the order of the file. Holes are left out.
    #[must_use]
    pub fn runs(&self) -> &[(PoolOff, u64)] {
        &self.runs
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.file.unpin(&self.runs);
    }
}

impl View {
    /// Installs what `range` has, as a load or store of each page would; a page that failed is tried again.
    ///
    /// # Errors
    /// [`Error::UnexpectedEnd`] beyond the end of the file; [`Error::NotOpenedFor`] for stores where they are not allowed;
    /// what would have become SIGBUS: no space, damage, a bad medium, `ENOMEM`. What came before it is installed.
    pub fn prefault(&self, range: FileRange, write: bool) -> Result<()> {
        let range = self.clip(range);
        if write && !self.params().writable {
            return Err(Error::NotOpenedFor("writing"));
        }
        let end = self.end_of(self.file().size());
        if range.len > 0 && range.end() > end {
            let (wanted, found) = (range.len, end.saturating_sub(range.offset));
            let bytes = |len| usize::try_from(len).unwrap_or(usize::MAX);
            return Err(Error::UnexpectedEnd { wanted: bytes(wanted), found: bytes(found) });
        }
        let failed = |entry: &crate::entries::Entry| entry.what == What::Failed;
        for entry in self.resolved(range).into_iter().filter(failed) {
            self.evict(entry.range)?;
        }
        self.fetch_range(range, write)
    }

    fn fetch_range(&self, range: FileRange, write: bool) -> Result<()> {
        let mut at = range.offset;
        while at < range.end() {
            at = self.fetch(at, write)?.max(at);
        }
        Ok(())
    }

    /// Where what is installed from `offset` on ends, if it is right for such a touch.
    fn installed(&self, offset: u64, write: bool) -> Option<u64> {
        let entry = self.look(|inside| inside.entries.get(offset))?;
        let right = match entry.what {
            What::Zero { .. } | What::Guarded => !write,
            What::Block(_) | What::Copy | What::Beyond => true,
            What::Failed => false,
        };
        right.then_some(entry.range.end())
    }

    /// Installs what is at `offset`: where it ends, or `offset` to be asked again.
    fn fetch(&self, offset: u64, write: bool) -> Result<u64> {
        let write = write || self.copies();
        let turn = self.turn_to_fetch(offset, write);
        if let Some(end) = self.installed(offset, write) {
            return Ok(end);
        }
        match self.serve(&Scope::of(&turn), offset, write) {
            Ok(_) => {
                drop(turn);
                let end = self.installed(offset, write);
                if end.is_none() {
                    daxstore::sync::thread::yield_now();
                }
                Ok(end.unwrap_or(offset))
            }
            Err(Trouble::Refused(error)) => Err(error),
            Err(Trouble::Full) => {
                drop(turn);
                self.make_room().map(|()| offset)
            }
            Err(Trouble::Stale(range)) => self.clear_outdated(range).map(|()| offset),
        }
    }

    fn make_room(&self) -> Result<()> {
        if self.params().budget.relieve() > 0 {
            return Ok(());
        }
        Err(Error::io("too many mappings in the process", io::Error::from_raw_os_error(libc::ENOMEM)))
    }

    /// Installs everything there is, for a table without faults.
    pub(crate) fn fetch_all(&self) -> Result<()> {
        self.fetch_range(self.range(), self.stores_to_file())
    }

    /// Installs what the file has in `range` now, for a table without faults. The caller has the turn.
    pub(crate) fn install_again(&self, range: FileRange) {
        let range = self.clip(range);
        if self.table().mode() != Mode::Eager || range.len == 0 {
            return;
        }
        let old = |what: What| !matches!(what, What::Block(_) | What::Copy);
        for entry in self.resolved(range).into_iter().filter(|entry| old(entry.what)) {
            self.change(|inside| inside.entries.cut(entry.range));
        }
        let write = self.stores_to_file() || self.copies();
        let mut at = range.offset;
        while at < range.end() {
            let served = match self.installed(at, write) {
                Some(end) => Ok(FileRange { offset: at, len: end - at }),
                None => self.serve(&Scope::Given(range), at, write),
            };
            if served.is_err() || self.installed(at, write).is_none() {
                self.fail(page_of(at));
            }
            at = self.installed(at, write).unwrap_or(page_of(at).end());
        }
    }

    /// Keeps the blocks that `range` has now from being given to anybody else, removed from the file or not, until the answer
    /// is dropped. Where stores are allowed, holes are given blocks first.
    ///
    /// # Errors
    /// Those of [`Self::prefault`], damage.
    pub fn pin(&self, range: FileRange) -> Result<Pin> {
        let range = if range.len == 0 { range } else { self.clip(self.space().whole(range)) };
        loop {
            if self.stores_to_file() {
                self.prefault(range, true)?;
            }
            // Not an allocating one: the store takes such a turn of the same range for its own, to go on with.
            let _turn = self.space().turn(range, Kind::Invalidate);
            if let Some(runs) = self.runs_to_pin(range)? {
                self.file().pin(&runs)?;
                return Ok(Pin { file: self.file().clone(), runs });
            }
        }
    }

    /// The blocks of `range`, whose turn the caller has; `None` where some that shall be stored to were shared meanwhile.
    fn runs_to_pin(&self, range: FileRange) -> Result<Option<Vec<(PoolOff, u64)>>> {
        let within = clip(range, FileRange { offset: 0, len: self.end_of(self.file().size()) });
        let mut runs = Vec::new();
        let mut at = within.offset;
        while at < within.end() {
            let run = self.file().run_at(at, within)?;
            if run.shared && self.stores_to_file() {
                return Ok(None);
            }
            let rest = FileRange { offset: at, len: run.range.end().saturating_sub(at).max(1) };
            if let State::Unwritten(pool) | State::Mapped(pool) = run.state {
                runs.push((pool.plus(at - run.range.offset), rest.len));
            }
            at = rest.end();
        }
        Ok(Some(runs))
    }
}
