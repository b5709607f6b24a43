//! How does a change of several objects become one?
//!
//! A [`Tx`] is read through and staged into; [`Tx::commit`] consumes it, demands the durable token of any data it
//! makes reachable, and returns when the change is durable and applied. Dropped, it leaves no trace. The caller
//! holds the locks of every object it stages from before it reads it until after the commit (J3).

use super::Journal;
use super::record::{self, RECORD_HEADER_BYTES, entry_bytes};
use crate::error::{Damage, Error, Result, Structure};
use crate::layout::{Counters, Image, Kind, get64, put};
use crate::pmem::Durable;
use crate::pmem::mutation::{self, Mutation};
use crate::units::PoolOff;
use std::cell::RefCell;

/// One object of a change: where its home is, and where its image lies in the record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub home: PoolOff,
    /// Where the image starts in the record; 8 bytes that name it come before.
    pub start: usize,
    /// Bytes of the image.
    pub len: usize,
}

/// The record of a change in the making: room for the header, then the entries one after the other.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub bytes: Vec<u8>,
    pub entries: Vec<Entry>,
}

impl Draft {
    /// Puts `image` in as the object at `home`, in place of one that is there.
    pub fn put(&mut self, home: PoolOff, image: &Image) {
        let (bytes, len) = (image.bytes(), image.bytes().len());
        match self.entries.iter().position(|entry| entry.home == home) {
            Some(i) if self.entries[i].len == len => {
                let start = self.entries[i].start;
                self.bytes[start..start + len].copy_from_slice(bytes);
                return;
            }
            Some(i) => self.remove(i),
            None => {}
        }
        self.bytes.extend_from_slice(&record::entry_word(home, len).to_le_bytes());
        self.entries.push(Entry { home, start: self.bytes.len(), len });
        self.bytes.extend_from_slice(bytes);
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
    }

    fn remove(&mut self, i: usize) {
        let gone = self.entries.remove(i);
        let size = entry_bytes(gone.len) as usize;
        self.bytes.drain(gone.start - 8..gone.start - 8 + size);
        for entry in self.entries.iter_mut().filter(|entry| entry.start > gone.start) {
            entry.start -= size;
        }
    }

    pub fn image(&self, entry: Entry) -> &[u8] {
        &self.bytes[entry.start..entry.start + entry.len]
    }

    pub fn image_mut(&mut self, entry: Entry) -> &mut [u8] {
        &mut self.bytes[entry.start..entry.start + entry.len]
    }
}

// A thread makes change after change: their buffers are used again.
std::thread_local! {
    static SPARE: RefCell<Vec<Draft>> = const { RefCell::new(Vec::new()) };
}

/// A change in the making.
#[derive(Debug)]
#[must_use = "a transaction that is not committed changes nothing"]
pub struct Tx<'j> {
    journal: &'j Journal,
    draft: Draft,
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
        let mut draft = SPARE.with(|spare| spare.borrow_mut().pop()).unwrap_or_default();
        draft.entries.clear();
        draft.bytes.clear();
        draft.bytes.resize(RECORD_HEADER_BYTES as usize, 0);
        Self { journal, draft, counters: Counters::default() }
    }

    /// The object at `at`, of `kind` or free: as staged here, else from its home.
    ///
    /// # Errors
    /// Damage of the object.
    pub fn read(&self, at: PoolOff, kind: Kind) -> Result<Image> {
        match self.draft.entries.iter().find(|entry| entry.home == at) {
            Some(entry) => Ok(Image::made(self.draft.image(*entry))),
            None => self.journal.read(at, kind),
        }
    }

    /// Makes `image` the object at `at` with the commit; staging again replaces. Its version becomes the home's
    /// plus one (J4).
    ///
    /// # Errors
    /// [`Error::TooBig`] where the record would not fit a lane; nothing is staged then.
    pub fn stage(&mut self, at: PoolOff, mut image: Image) -> Result<()> {
        let old = self.draft.entries.iter().find(|entry| entry.home == at);
        let needed =
            self.bytes() - old.map_or(0, |old| entry_bytes(old.len)) + entry_bytes(image.bytes().len());
        if needed > self.journal.capacity() {
            return Err(Error::TooBig { needed, capacity: self.journal.capacity() });
        }
        let step = if mutation::is(Mutation::NoVersion) { 0 } else { 1 };
        let version = next_version(self.journal, at, step)?;
        put(image.bytes_mut(), 0, &version.to_le_bytes());
        self.draft.put(at, &image);
        Ok(())
    }

    /// Adds `change` to the pool's totals with the commit.
    pub fn count(&mut self, change: Counters) {
        self.counters = self.counters.plus(change);
    }

    /// Bytes of record left.
    #[must_use]
    pub fn room(&self) -> u64 {
        self.journal.capacity().saturating_sub(self.bytes())
    }

    /// Bytes of record taken, with room for the lane's counters.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.draft.bytes.len() as u64 + entry_bytes(Kind::Lane.slot_bytes())
    }

    /// Whether nothing is staged or counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.draft.entries.is_empty() && self.counters == Counters::default()
    }

    /// Makes the change durable and applies it; `data` proves that what it makes reachable is durable (J2). Without
    /// that proof there is no commit, and a transaction is committed once:
    ///
    /// ```compile_fail,E0061
    /// # fn publish(tx: daxstore::journal::Tx<'_>) -> daxstore::Result<()> {
    /// tx.commit()
    /// # }
    /// ```
    ///
    /// ```compile_fail,E0382
    /// # use daxstore::pmem::Durable;
    /// # fn publish(tx: daxstore::journal::Tx<'_>) -> daxstore::Result<()> {
    /// tx.commit(Durable::no_data())?;
    /// tx.commit(Durable::no_data())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Poisoned`] and errors of the medium; after the latter the journal is poisoned.
    pub fn commit(mut self, data: Durable) -> Result<()> {
        let _spent = data;
        if self.is_empty() {
            return Ok(());
        }
        let mut draft = std::mem::take(&mut self.draft);
        let result = self.journal.commit(&mut draft, self.counters);
        self.draft = draft;
        result
    }
}

impl Drop for Tx<'_> {
    fn drop(&mut self) {
        let draft = std::mem::take(&mut self.draft);
        // At the end of a thread the spare buffers may be gone already.
        let _kept = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < 4 {
                spare.push(draft);
            }
        });
    }
}

/// The version of an image's bytes.
pub(super) fn version(image: &[u8]) -> u64 {
    get64(image, 0)
}
