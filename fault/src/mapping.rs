//! What can be done with a mapped range of a file?
//!
//! A [`Mapping`] is made by [`MapOptions::map`] and gives its addresses back when it is dropped. Its memory is touched
//! through its methods, which are sound whatever others do to the file at the same time, or through the raw pointer.
//!
//! Invariants:
//! 1. The addresses are the mapping's from before its view joins the file until after it has left: no translation is
//!    ever installed in somebody else's memory.
//! 2. The file is held: it lives without a name as long as the mapping does.

use crate::entries::Entry;
use crate::fetch::Pin;
use crate::os::{self, OsMap, Protection, Registration, Wish, confirm};
use crate::space::FileSpace;
use crate::stats::Stats;
use crate::table::Mode;
use crate::view::{View, ViewParams};
use daxstore::error::{Error, Result};
use daxstore::iomap::{Access, FaultOps, FileRange};
use daxstore::sync::Arc;
use daxstore::units::{BLOCK_BYTES, CHUNK_BYTES};

/// How a file shall be mapped. The default: shared, to be read only, in the best mode there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MapOptions {
    write: bool,
    private: bool,
    flushed_by_user: bool,
    mode: Option<Mode>,
}

impl MapOptions {
    /// The default.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the memory may be stored to.
    #[must_use]
    pub const fn write(mut self, write: bool) -> Self {
        self.write = write;
        self
    }

    /// Whether stores are the mapping's own and never reach the file (`MAP_PRIVATE`). A page is copied when it is first
    /// touched: later changes of the file are not seen in it. Without [`Self::write`] it is as a shared mapping.
    #[must_use]
    pub const fn private(mut self, private: bool) -> Self {
        self.private = private;
        self
    }

    /// Whether the user makes durable what it stores, by [`Mapping::flush`] and the like, so that [`Mapping::sync`], a sync of the
    /// file, and unmapping need not: they cost nothing for this mapping, and do nothing for it.
    #[must_use]
    pub const fn flushed_by_user(mut self, flushed_by_user: bool) -> Self {
        self.flushed_by_user = flushed_by_user;
        self
    }

    /// Forces how faults are served; mapping fails where that can not be.
    #[must_use]
    pub const fn mode(mut self, mode: Mode) -> Self {
        self.mode = Some(mode);
        self
    }

    /// Maps `len` bytes of `file` from byte `offset`, a multiple of 4 KiB (or of the alignment of a devdax device, if that is
    /// larger). The range may reach beyond the end of the file, however far: a touch there raises SIGBUS until the file has grown.
    ///
    /// # Errors
    /// [`Error::NotOpenedFor`] where the file is not open for reading, or (shared, to be stored to) for writing;
    /// [`Error::InvalidArgument`] for an empty or unaligned range; [`Error::Unsupported`] for a pool that can not be mapped, or a
    /// mode that can not be had; in mode E what installing everything fails with; the system's.
    pub fn map<F: FaultOps + Clone + 'static>(self, file: &F, offset: u64, len: u64) -> Result<Mapping> {
        self.map_dyn(Arc::new(file.clone()), FileRange::new(offset, len)?)
    }

    fn map_dyn(self, file: Arc<dyn FaultOps>, asked: FileRange) -> Result<Mapping> {
        let attachment = FileSpace::of(file.clone())?;
        let memory = attachment.memory().clone();
        let unit = memory.unit.max(BLOCK_BYTES);
        if asked.len == 0 || !asked.offset.is_multiple_of(unit) {
            let why =
                "a mapping is not empty, and begins at a multiple of 4 KiB (on a device: of its alignment)";
            return Err(Error::InvalidArgument(why));
        }
        let range = FileRange::new(asked.offset, asked.len.next_multiple_of(unit))?;
        let protection = if self.write { Protection::Writable } else { Protection::ReadOnly };
        let private = self.private && self.write;
        let wish = Wish { len: range.len, congruent_to: range.offset, protection, private, mode: self.mode };
        let (addresses, table) = os::map(&memory, &wish)?;
        let params = ViewParams {
            range,
            address: addresses.base as u64,
            writable: self.write,
            private,
            tracked: !self.flushed_by_user,
            budget: os::budget(),
        };
        let view = attachment.join(params, table)?;
        let left = |error| {
            let _first_counts = view.leave(|| {});
            error
        };
        let registration = os::register(&addresses, view.clone()).map_err(left)?;
        let access = access(&*file, &addresses, asked.len).map_err(left)?;
        Ok(Mapping { access, view: Some(view), registration: Some(registration), addresses, asked })
    }
}

fn access(file: &dyn FaultOps, addresses: &OsMap, len: u64) -> Result<Box<dyn Access>> {
    let base = std::ptr::with_exposed_provenance_mut(addresses.base);
    // SAFETY: the addresses are reserved, page aligned and at least `len` bytes long; the mapping that owns them drops the
    // access before them. Each touch of them is served by the handler, or answered by a signal. The mapping lends no
    // reference to them but of atomics.
    unsafe { file.access_at(base, len.min(addresses.len)) }
}

/// What a mapping is told of the use of a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Advice {
    /// Translations of 2 MiB are welcome: the default. For the whole mapping.
    Huge,
    /// Translations of 4 KiB are preferred, where the medium has them. For the whole mapping, from the next fault on.
    NoHuge,
    /// The range will be read soon: its translations are installed now.
    WillNeed,
    /// The range is not needed for now: its translations are given up, and pages that failed are tried again. Nothing is
    /// lost.
    DontNeed,
}

/// A range of a file as memory. Anybody may store to it at any time, so it lends no slices: copy in and out, use atomics,
/// or take the raw pointer. Offsets are in bytes from the mapping's start.
#[derive(Debug)]
pub struct Mapping {
    access: Box<dyn Access>,
    view: Option<Arc<View>>,
    registration: Option<Registration>,
    addresses: OsMap,
    asked: FileRange,
}

impl Mapping {
    fn view(&self) -> Result<&View> {
        self.view.as_deref().ok_or(Error::InvalidArgument("the mapping was closed"))
    }

    /// The bytes of the file that `len` bytes from `offset` are.
    fn range(&self, offset: u64, len: u64) -> Result<FileRange> {
        match offset.checked_add(len) {
            Some(end) if end <= self.asked.len => Ok(FileRange { offset: self.asked.offset + offset, len }),
            _ => Err(Error::OutOfMapping { offset, len, mapped: self.asked.len }),
        }
    }

    fn stores(&self) -> Result<()> {
        if self.view()?.params().writable { Ok(()) } else { Err(Error::NotOpenedFor("writing")) }
    }

    /// Bytes of the mapping.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.asked.len
    }

    /// Whether it has none; never so.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.asked.len == 0
    }

    /// The bytes of the file that it shows.
    #[must_use]
    pub const fn file_range(&self) -> FileRange {
        self.asked
    }

    /// How its faults are served.
    #[must_use]
    pub const fn mode(&self) -> Mode {
        self.addresses.mode
    }

    /// Whether system calls may be given addresses of it that have no translation yet (`read(2)` into it, `write(2)` from it).
    /// Where not, they fail with `EFAULT` unless the range is prefaulted.
    #[must_use]
    pub const fn serves_system_calls(&self) -> bool {
        self.addresses.kernel_faults
    }

    /// The address of the first byte. It is valid for loads (and stores, if it may be stored to) of [`Self::len`] bytes as long
    /// as the mapping lives; what another thread or process stores at the same time, and what lies beyond the
    /// end of the file, is for the user to see to.
    #[must_use]
    pub fn as_ptr(&self) -> *mut u8 {
        std::ptr::with_exposed_provenance_mut(self.addresses.base)
    }

    /// Copies `buf.len()` bytes from `offset` into `buf`.
    ///
    /// # Errors
    /// [`Error::OutOfMapping`].
    #[inline]
    pub fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.access.read(offset, buf)
    }

    /// Stores `bytes` at `offset` through the cache; no aligned word of 8 bytes is torn. Durable after [`Self::flush`].
    ///
    /// # Errors
    /// [`Error::OutOfMapping`], [`Error::NotOpenedFor`].
    #[inline]
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.stores()?;
        self.access.write(offset, bytes)
    }

    /// Stores `bytes` at `offset` past the cache; no aligned word of 8 bytes is torn. Durable after [`Self::fence`].
    ///
    /// # Errors
    /// [`Error::OutOfMapping`], [`Error::NotOpenedFor`].
    #[inline]
    pub fn write_through(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.stores()?;
        self.access.write_through(offset, bytes)
    }

    /// The atomic at `offset`, which is a multiple of its size.
    ///
    /// # Errors
    /// [`Error::OutOfMapping`], [`Error::NotOpenedFor`] where the memory may not be stored to.
    #[inline]
    pub fn atomic<A: crate::atomic::Atomic>(&self, offset: u64) -> Result<&A> {
        self.stores()?;
        let size = size_of::<A>() as u64;
        self.range(offset, size)?;
        if !offset.is_multiple_of(size) {
            return Err(Error::OutOfMapping { offset, len: size, mapped: self.asked.len });
        }
        // SAFETY: the bytes lie in the mapping, which lives as long as the reference and is mapped to be stored to; they
        // are aligned, since the base is page aligned; every pattern of bytes is a value of an atomic, and anybody may
        // store to one.
        Ok(unsafe { &*self.as_ptr().add(offset as usize).cast::<A>() })
    }

    /// Makes what was stored to `len` bytes at `offset` durable, by flushing their cache lines and a fence. (On a pool that
    /// is durable by pages, their pages are written.)
    ///
    /// # Errors
    /// [`Error::OutOfMapping`]; [`Error::Io`] where the system could not write.
    #[inline]
    pub fn flush(&self, offset: u64, len: u64) -> Result<()> {
        self.access.flush(offset, len)?;
        self.access.fence()
    }

    /// Starts making `len` bytes at `offset` durable: they are after this thread's next [`Self::fence`].
    ///
    /// # Errors
    /// [`Error::OutOfMapping`].
    #[inline]
    pub fn flush_lines(&self, offset: u64, len: u64) -> Result<()> {
        self.access.flush(offset, len)
    }

    /// Waits until what this thread flushed and wrote through is durable.
    ///
    /// # Errors
    /// [`Error::Io`] where the system could not write; then nothing is known of what was flushed.
    #[inline]
    pub fn fence(&self) -> Result<()> {
        self.access.fence()
    }

    /// Makes everything durable that was stored to `len` bytes at `offset` through any mapping of the file (`msync`): how many
    /// bytes were flushed. It takes the translations of what may have been stored to away, so that the next sync has only what was
    /// touched since; [`Self::flush`] is cheaper for who knows what it stored.
    ///
    /// # Errors
    /// [`Error::OutOfMapping`]; the system's: what was not flushed is flushed by the next call.
    pub fn sync(&self, offset: u64, len: u64) -> Result<u64> {
        let range = self.range(offset, len)?;
        self.view()?.sync(range)
    }

    /// Takes advice on `len` bytes at `offset`.
    ///
    /// # Errors
    /// [`Error::OutOfMapping`]; for [`Advice::WillNeed`] those of [`Self::prefault`]; for [`Advice::DontNeed`] [`Error::Unsupported`]
    /// in mode E.
    pub fn advise(&self, offset: u64, len: u64, advice: Advice) -> Result<()> {
        let range = self.range(offset, len)?;
        let view = self.view()?;
        match advice {
            Advice::Huge => view.advise_huge(true),
            Advice::NoHuge => view.advise_huge(false),
            Advice::WillNeed => view.prefault(range, false)?,
            Advice::DontNeed => view.evict(range)?,
        }
        Ok(())
    }

    /// Installs the translations of `len` bytes at `offset`, for loads or for stores (holes get blocks then), and has the
    /// system take them: no touch of them faults, until something takes them away.
    ///
    /// # Errors
    /// [`Error::OutOfMapping`], [`Error::NotOpenedFor`]; [`Error::UnexpectedEnd`] beyond the end of the file; what would have raised
    /// SIGBUS: no space, damage, a bad medium.
    pub fn prefault(&self, offset: u64, len: u64, write: bool) -> Result<()> {
        let range = self.range(offset, len)?;
        self.view()?.prefault(range, write)?;
        let page = offset % BLOCK_BYTES;
        os::populate(self.addresses.base + (offset - page) as usize, len + page, write)
    }

    /// Keeps the blocks of `len` bytes at `offset` from being given to anybody else, freed or not, until the answer is dropped:
    /// for transfers by hardware, which no fault stops. Where the mapping may be stored to, holes get blocks first.
    ///
    /// # Errors
    /// Those of [`Self::prefault`].
    pub fn pin(&self, offset: u64, len: u64) -> Result<Pin> {
        let range = self.range(offset, len)?;
        self.view()?.pin(range)
    }

    /// Fails unless every whole 2 MiB of the file in `len` bytes at `offset` is translated by one translation. Installs them all,
    /// and looks at what the system made of them: by what it says, or (on DAX, where it says nothing) by how many faults it took.
    ///
    /// # Errors
    /// [`Error::NotHuge`] with the first that is not, and why; [`Error::InvalidArgument`] where there is no whole one; those of
    /// [`Self::prefault`].
    pub fn require_huge(&self, offset: u64, len: u64) -> Result<()> {
        let range = self.range(offset, len)?;
        let first = range.offset.next_multiple_of(CHUNK_BYTES);
        let end = range.end() - range.end() % CHUNK_BYTES;
        if first >= end {
            return Err(Error::InvalidArgument("the range holds no aligned 2 MiB of the file"));
        }
        let whole = FileRange { offset: first, len: end - first };
        let view = self.view()?;
        view.huge(whole)?;
        let faults = confirm::minor_faults()?;
        self.prefault(first - self.asked.offset, whole.len, view.stores_to_file())?;
        let faults = confirm::minor_faults()? - faults;
        let start = self.addresses.base + (first - self.asked.offset) as usize;
        // The system counts no pages of a device, and does not say so.
        let is_device = view.memory().unit > BLOCK_BYTES;
        let told = if is_device { None } else { confirm::huge_bytes(start, whole.len)? };
        let is_huge = match told {
            Some(bytes) => bytes >= whole.len,
            // One for a load and one for a store.
            None => faults <= whole.len / CHUNK_BYTES * 2,
        };
        if is_huge {
            return Ok(());
        }
        let why = "the system installed smaller ones; see `daxstore info` for what the pool lies on";
        Err(Error::NotHuge { offset: first, why })
    }

    /// What became of the mapping's faults.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.view.as_ref().map(|view| view.stats()).unwrap_or_default()
    }

    /// What is installed in `len` bytes at `offset`, in order.
    ///
    /// # Errors
    /// [`Error::OutOfMapping`].
    pub fn installed(&self, offset: u64, len: u64) -> Result<Vec<Entry>> {
        let range = self.range(offset, len)?;
        Ok(self.view()?.resolved(range))
    }

    /// Gives the mapping up, and says what a drop could not: whether what was stored to it and never synced could be flushed.
    ///
    /// # Errors
    /// Those of flushing.
    pub fn close(mut self) -> Result<()> {
        self.give_up()
    }

    fn give_up(&mut self) -> Result<()> {
        let Some(view) = self.view.take() else { return Ok(()) };
        let mut registration = self.registration.take();
        if let Some(registration) = &mut registration {
            registration.quit();
        }
        // In the view's last turn: nobody has the blocks while a store may still reach them.
        let left = view.leave(|| registration.iter().for_each(Registration::unmap));
        drop(registration);
        left
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // Nobody is left to be told; `close` tells.
        let _flushed = self.give_up();
    }
}
