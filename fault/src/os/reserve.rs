//! Which addresses are ours, and what may be put there?
//!
//! An [`Area`] is a range of addresses that the system gave us and that nobody else maps into. Everything that replaces
//! translations goes through it, each a single system call, so that a thread that touches the memory meanwhile finds what
//! was there before or what is there after.
//!
//! Invariants:
//! 1. From [`Area::reserve`] to [`Area::unmap`], every address of the range is mapped by us. What can leave a hole is
//!    repaired before anything else is done, or the process ends.
//! 2. A call that maps into the range holds a [`Use`], and `unmap` waits for those and refuses new ones: nothing is ever
//!    mapped to addresses that were given back.
//! 3. A forked child has no part of the range and maps nothing there: the reservation is not inherited, and what is mapped into it
//!    is taken away in the child before `fork` returns there.

use super::sys::{at_home, failed, give_up};
use crate::mutation::{self, Mutation};
use daxstore::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use daxstore::sync::thread;
use daxstore::units::CHUNK_BYTES;
use daxstore::{Error, Result};
use std::fs::File;
use std::os::fd::AsRawFd;

/// Bytes of a page of the system.
pub(super) const PAGE: u64 = 4096;

/// Set in `Area::uses` once the range is given back.
const DEAD: usize = 1 << (usize::BITS - 1);
/// Where an area's changes start to be counted: so far from another's that no two areas at one address, one after the other, were
/// ever changed equally often.
static CHANGES: AtomicU64 = AtomicU64::new(0);
const ANONYMOUS: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;

/// A range of addresses that is ours.
#[derive(Debug)]
pub(super) struct Area {
    base: usize,
    len: usize,
    /// How many calls map into it just now, and [`DEAD`].
    uses: AtomicUsize,
    /// How many calls have changed what is mapped.
    changes: AtomicU64,
    /// Forked children take it away themselves.
    left_by_children: AtomicBool,
}

/// The right to map into an area: as long as it lives, the area is mapped and ours.
#[derive(Debug)]
struct Use<'a>(&'a Area);

impl Use<'_> {
    /// Keeps what was mapped there a moment ago from forked children.
    fn not_inherited(&self, to: *mut libc::c_void, bytes: usize) {
        if self.0.left_by_children.load(Ordering::Acquire) {
            return;
        }
        // SAFETY: the range is one that was mapped into the area in use; the advice changes no contents. It fails only
        // where a mapping would have to be split, which a new one has not; and failing would take nothing back.
        unsafe { libc::madvise(to, bytes, libc::MADV_DONTFORK) };
    }
}

impl Drop for Use<'_> {
    fn drop(&mut self) {
        self.0.changes.fetch_add(1, Ordering::Release);
        self.0.uses.fetch_sub(1, Ordering::Release);
    }
}

/// A `mmap` that failed late has taken what was there before away: takes the addresses, of the area that is used, again
/// before anybody else does.
fn repair(using: &Use<'_>, to: *mut libc::c_void, bytes: usize) -> bool {
    // SAFETY: the call only looks whether all of the range is mapped.
    let whole = unsafe { libc::msync(to, bytes, libc::MS_ASYNC) } == 0;
    if whole || std::io::Error::last_os_error().raw_os_error() != Some(libc::ENOMEM) {
        return false;
    }
    let flags = ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
    // SAFETY: with this flag nothing that exists is replaced; the range is ours while it is used.
    let got = unsafe { libc::mmap(to, bytes, libc::PROT_NONE, flags, -1, 0) };
    if got != to {
        give_up("the addresses of a mapping were lost to somebody else while one of its translations failed");
    }
    using.not_inherited(to, bytes);
    true
}

/// Takes `len` bytes at `start`, of an area of the parent process, from this forked child.
pub(super) fn leave_in_child(start: usize, len: usize) {
    // SAFETY: in a child that was forked a moment ago, whose only thread is here, the addresses are those that the parent
    // had reserved, and nothing else can be there.
    unsafe { libc::munmap(start as *mut _, len) };
}

/// The error of what is done to an area that was given back.
pub(super) fn gone() -> Error {
    Error::InvalidArgument("the mapping was unmapped, or belongs to the parent process")
}

impl Area {
    /// Reserves `len` bytes without any rights, that start as many bytes after a multiple of `align` as `congruent_to`
    /// does (and so for 2 MiB). `len` is rounded up to whole pages. Nothing of it is locked, dumped or inherited.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn reserve(len: u64, congruent_to: u64, align: u64) -> Result<Self> {
        const WHAT: &str = "reserving addresses";
        let align = align.max(CHUNK_BYTES);
        let whole = len.checked_next_multiple_of(PAGE).and_then(|len| len.checked_add(align));
        let too_large = || Error::InvalidArgument("a mapping is longer than the addresses of a process");
        let whole = whole.and_then(|whole| usize::try_from(whole).ok()).ok_or_else(too_large)?;
        let len = whole - align as usize;
        if len == 0 || !align.is_power_of_two() || !congruent_to.is_multiple_of(PAGE) {
            return Err(Error::InvalidArgument("a mapping is not empty, and begins at a whole page"));
        }
        // SAFETY: a new mapping wherever the system likes touches none that exists.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), whole, libc::PROT_NONE, ANONYMOUS, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(failed(WHAT));
        }
        let start = start as usize;
        let congruent_to = congruent_to + if mutation::is(Mutation::Askew) { PAGE } else { 0 };
        let skip = (congruent_to as usize).wrapping_sub(start) & (align as usize - 1);
        let area = Self {
            base: start + skip,
            len,
            uses: AtomicUsize::new(0),
            changes: AtomicU64::new(CHANGES.fetch_add(1 << 32, Ordering::Relaxed)),
            left_by_children: AtomicBool::new(false),
        };
        // SAFETY: both ranges are ends of what was mapped a moment ago, which nobody else knows of, and what is left is
        // exactly the area. `munmap` of no bytes fails and does nothing.
        unsafe {
            libc::munmap(start as *mut _, skip);
            libc::munmap((area.base + len) as *mut _, align as usize - skip);
            // With `mlockall(MCL_FUTURE)` the whole range would be filled as soon as it has rights.
            libc::munlock(area.base as *mut _, len);
        }
        [libc::MADV_DONTFORK, libc::MADV_DONTDUMP].iter().try_for_each(|a| area.advise(0, len as u64, *a))?;
        // A system without huge pages does not know the advice, and does not need it.
        let _ = area.advise(0, len as u64, libc::MADV_NOHUGEPAGE);
        Ok(area)
    }

    /// The first address.
    pub(super) fn base(&self) -> usize {
        self.base
    }

    /// Bytes.
    pub(super) fn len(&self) -> u64 {
        self.len as u64
    }

    /// Says that forked children take the area away ([`leave_in_child`]): what is mapped into it from now on needs no word to the
    /// system, which would cost as much as half a fault.
    pub(super) fn is_left_by_children(&self) {
        self.left_by_children.store(true, Ordering::Release);
    }

    /// How many calls have changed what is mapped here.
    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    fn enter(&self) -> Result<Use<'_>> {
        if at_home() && self.uses.fetch_add(1, Ordering::Acquire) & DEAD == 0 {
            return Ok(Use(self));
        }
        if at_home() {
            self.uses.fetch_sub(1, Ordering::Release);
        }
        Err(gone())
    }

    /// Whether the range was given back, or belongs to the parent process.
    pub(super) fn is_gone(&self) -> bool {
        !at_home() || self.uses.load(Ordering::Acquire) & DEAD != 0
    }

    /// The address of `at`, if all of `len` bytes from there are ours and whole pages.
    fn place(&self, at: u64, len: u64) -> Result<(*mut libc::c_void, usize)> {
        let inside = at.checked_add(len).is_some_and(|end| end <= self.len());
        if !inside || len == 0 || !(at | len).is_multiple_of(PAGE) {
            return Err(Error::InvalidArgument("a translation is of whole pages inside its mapping"));
        }
        Ok(((self.base + at as usize) as *mut _, len as usize))
    }

    /// Maps `len` bytes of `file` from `offset` to `at`, with these rights and flags besides `MAP_FIXED`.
    ///
    /// # Errors
    /// The system's, and `true` if the range is a reservation without rights now, which lost what it was.
    pub(super) fn file(
        &self,
        at: u64,
        len: u64,
        how: How,
        file: &File,
        offset: u64,
    ) -> Result<(), (Error, bool)> {
        let offset =
            i64::try_from(offset).map_err(|_| (Error::InvalidArgument("an offset past 2^63"), false))?;
        let using = self.enter().map_err(|e| (e, false))?;
        let (to, bytes) = self.place(at, len).map_err(|e| (e, false))?;
        let flags = how.flags | libc::MAP_FIXED;
        // SAFETY: the range is inside of the area (`place`), which is ours while `using` lives; its memory is shared
        // with everybody who maps the file, so no code relies on what it holds.
        let got = unsafe { libc::mmap(to, bytes, how.prot, flags, file.as_raw_fd(), offset) };
        if got == libc::MAP_FAILED {
            let error = failed("mapping memory of the pool");
            return Err((error, repair(&using, to, bytes)));
        }
        using.not_inherited(to, bytes);
        Ok(())
    }

    /// Maps new memory of zeros to `len` bytes at `at`, with these rights.
    ///
    /// # Errors
    /// The system's; nothing changed then.
    pub(super) fn fresh(&self, at: u64, len: u64, prot: i32) -> Result<()> {
        let using = self.enter()?;
        let (to, bytes) = self.place(at, len)?;
        // SAFETY: the range is inside of the area, which is ours while `using` lives.
        let got = unsafe { libc::mmap(to, bytes, prot, ANONYMOUS | libc::MAP_FIXED, -1, 0) };
        if got == libc::MAP_FAILED {
            return Err(failed("mapping new memory"));
        }
        using.not_inherited(to, bytes);
        Ok(())
    }

    /// Changes the rights of `len` bytes at `at`.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn protect(&self, at: u64, len: u64, prot: i32) -> Result<()> {
        let _using = self.enter()?;
        let (to, bytes) = self.place(at, len)?;
        // SAFETY: the range is ours; no reference to its memory exists that different rights could break.
        match unsafe { libc::mprotect(to, bytes, prot) } {
            0 => Ok(()),
            _ => Err(failed("giving a mapping its rights")),
        }
    }

    /// Gives the system advice on `len` bytes at `at`.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn advise(&self, at: u64, len: u64, advice: i32) -> Result<()> {
        let _using = self.enter()?;
        let (to, bytes) = self.place(at, len)?;
        // SAFETY: the range is ours; no code relies on what it holds.
        match unsafe { libc::madvise(to, bytes, advice) } {
            0 => Ok(()),
            _ => Err(failed("advising the system on a mapping")),
        }
    }

    /// Moves the translations of the first `len` bytes of `from` to `at`, where they replace what was there; `from` is
    /// left as it was, without them. With userfaultfd this waits until a thread has read that it happened.
    ///
    /// # Errors
    /// The system's; nothing changed then.
    pub(super) fn take(&self, at: u64, len: u64, from: &Self) -> Result<()> {
        let _using = self.enter()?;
        let _from = from.enter()?;
        let (to, bytes) = self.place(at, len)?;
        let (source, _) = from.place(0, len)?;
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | libc::MREMAP_DONTUNMAP;
        // SAFETY: both ranges are inside of areas that are ours while the uses live, and different areas do not overlap.
        let got = unsafe { libc::mremap(source, bytes, bytes, flags, to) };
        if got == libc::MAP_FAILED { Err(failed("taking translations away")) } else { Ok(()) }
    }

    /// Throws the contents of the area away, locked or not.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn empty(&self) -> Result<()> {
        let using = self.enter()?;
        // SAFETY: the range is ours; the call changes only whether it is locked.
        unsafe { libc::munlock(self.base as *const _, self.len) };
        drop(using);
        self.advise(0, self.len(), libc::MADV_DONTNEED)
    }

    /// Runs `body` with the address of `at` while `len` bytes from there are ours.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where they are not, the body's.
    pub(super) fn within<T>(&self, at: u64, len: u64, body: impl FnOnce(usize) -> Result<T>) -> Result<T> {
        let _using = self.enter()?;
        let (address, _) = self.place(at, len)?;
        body(address as usize)
    }

    /// Puts a page of new memory that holds `page` to `at`, in one step, with these rights.
    ///
    /// # Errors
    /// The system's; nothing changed then.
    pub(super) fn page(&self, at: u64, page: &[u8; PAGE as usize], prot: i32) -> Result<()> {
        let source = Self::reserve(PAGE, 0, PAGE)?;
        source.protect(0, PAGE, libc::PROT_READ | libc::PROT_WRITE)?;
        // SAFETY: the page was mapped writable above, and nobody else knows of it.
        unsafe { std::ptr::copy_nonoverlapping(page.as_ptr(), source.base as *mut u8, page.len()) };
        source.protect(0, PAGE, prot)?;
        self.take(at, PAGE, &source)
    }

    /// Loads the byte at `at` of a readable area that user code does not know.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] outside of the area.
    pub(super) fn load(&self, at: u64) -> Result<u8> {
        let _using = self.enter()?;
        let (from, _) = self.place(at & !(PAGE - 1), PAGE)?;
        // SAFETY: the page is mapped while the use lives; whoever calls this made it readable.
        Ok(unsafe { from.cast::<u8>().cast_const().read_volatile() })
    }

    /// Gives the addresses back. Waits for the calls that map into them; later ones fail.
    pub(super) fn unmap(&self) {
        if !at_home() || self.uses.fetch_or(DEAD, Ordering::AcqRel) & DEAD != 0 {
            return;
        }
        while self.uses.load(Ordering::Acquire) != DEAD {
            thread::yield_now();
        }
        // SAFETY: the range is ours, no call maps into it now, and none will.
        unsafe { libc::munmap(self.base as *mut _, self.len) };
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        self.unmap();
    }
}

/// The rights and the flags of a mapping of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct How {
    /// `PROT_*`.
    pub(super) prot: i32,
    /// `MAP_*`, without `MAP_FIXED`.
    pub(super) flags: i32,
}
