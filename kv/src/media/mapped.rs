//! How does a database touch the file that it has mapped?
//!
//! One file, mapped once over more than it has, so that it grows under the mapping. The hot accesses go to the addresses
//! directly; what needs the pool's way of making durable goes through the [`Mapping`].
//!
//! Invariant: `len` is at most the file's length, which is at most the mapping's: no access faults beyond the file's end.

use super::{Media, Work};
use crate::error::{Error, Result};
use daxstore::sync::Mutex;
use daxstore::{AllocateMode, File, Store};
use daxstore_fault::{MapOptions, Mapping, Mode, Stats};
use std::sync::atomic::{AtomicU64, Ordering};

use daxstore::units::BLOCK_BYTES;

const WORD: u64 = 8;
/// Where a processor fetches two lines at a time, the first asks for both.
const CHUNK: u64 = daxstore::units::CHUNK_BYTES;

/// A mapped file.
pub struct Mapped {
    base: *mut u8,
    len: AtomicU64,
    writable: bool,
    mapping: Mapping,
    file: File,
    store: Store,
    huge: bool,
    growing: Mutex<()>,
}

// SAFETY: the pointer is to the mapping beside it, which any thread may access; every access goes through atomics or copies.
unsafe impl Send for Mapped {}
// SAFETY: as for Send.
unsafe impl Sync for Mapped {}

impl std::fmt::Debug for Mapped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mapped {{ {} bytes }}", self.len())
    }
}

impl Mapped {
    /// Maps `file` of `store` over `capacity` bytes, whole chunks of 2 MiB. What lies in the last partial chunk of the file is left out.
    ///
    /// # Errors
    /// What mapping says.
    pub fn new(store: &Store, file: File, capacity: u64, writable: bool, mode: Option<Mode>) -> Result<Self> {
        let len = file.len() - file.len() % CHUNK;
        let mut options = MapOptions::new().write(writable).flushed_by_user(true);
        if let Some(mode) = mode {
            options = options.mode(mode);
        }
        let mapping = options.map(&file, 0, capacity.max(len).max(CHUNK))?;
        let base = mapping.as_ptr();
        Ok(Self {
            base,
            len: AtomicU64::new(len),
            writable,
            mapping,
            file,
            store: store.clone(),
            huge: false,
            growing: Mutex::default(),
        })
    }

    /// From now on each 2 MiB is translated by one translation, or not used.
    ///
    /// # Errors
    /// [`daxstore::Error::NotHuge`] with the first that is not, and why.
    pub fn all_huge(mut self) -> Result<Self> {
        self.huge = true;
        if self.len() > 0 {
            self.require_huge()?;
        }
        Ok(self)
    }

    /// What became of the mapping's faults.
    #[must_use]
    pub fn faults(&self) -> Stats {
        self.mapping.stats()
    }

    /// Keeps the blocks of `len` bytes at `at` from being given to anybody else until the answer is dropped.
    ///
    /// # Errors
    /// Those of [`Mapping::pin`].
    pub fn pin(&self, at: u64, len: u64) -> Result<daxstore_fault::Pin> {
        Ok(self.mapping.pin(at, len)?)
    }

    #[inline]
    fn has(&self, at: u64, len: u64) -> bool {
        let end = self.len.load(Ordering::Relaxed);
        len <= end && at <= end - len
    }

    #[inline]
    fn within(&self, at: u64, len: u64) -> bool {
        let (inside, end) = (self.has(at, len), self.len.load(Ordering::Relaxed));
        debug_assert!(inside, "{len} bytes at {at:#x} of {end:#x}");
        inside
    }

    /// The word at `at`, if it lies in the file.
    #[inline]
    fn word(&self, at: u64) -> Option<&AtomicU64> {
        if !self.within(at, WORD) || !at.is_multiple_of(WORD) {
            return None;
        }
        // SAFETY: the word lies within `len`, which the mapping beside `base` covers as long as `self` lives; the base is
        // page aligned and `at` a multiple of 8; anybody may store to an atomic.
        Some(unsafe { AtomicU64::from_ptr(self.base.add(at as usize).cast::<u64>()) })
    }

    /// The word that holds byte `at`, as memory has it, and as another may be changing it.
    #[inline]
    fn raw(&self, at: u64) -> [u8; 8] {
        self.word(at - at % WORD).map_or([0; 8], |word| word.load(Ordering::Relaxed).to_ne_bytes())
    }

    /// Loads or, if the file is open for that, stores.
    #[inline]
    fn writable_word(&self, at: u64) -> Option<&AtomicU64> {
        if self.writable { self.word(at) } else { None }
    }
}

impl Media for Mapped {
    #[inline]
    fn len(&self) -> u64 {
        self.len.load(Ordering::Acquire)
    }

    fn capacity(&self) -> u64 {
        self.mapping.len() - self.mapping.len() % CHUNK
    }

    fn grow(&self, len: u64) -> Result<()> {
        let _one = self.growing.lock();
        let now = self.len();
        if len <= now {
            return Ok(());
        }
        if len > self.capacity() {
            return Err(Error::NoSpace { needed: len - now });
        }
        // A little ahead, so that one call serves many chunks; exactly, where the pool has no more.
        let ahead = (now / 128).clamp(CHUNK, 32 * CHUNK) / CHUNK * CHUNK;
        let target = len.max((now + ahead).min(self.capacity()));
        let allocate = |to: u64| self.file.allocate(now, to - now, AllocateMode::Allocate);
        let reached = match allocate(target) {
            Err(daxstore::Error::NoSpace { .. }) if target > len => allocate(len).map(|()| len),
            done => done.map(|()| target),
        };
        match reached {
            Ok(reached) => {
                if self.huge {
                    self.mapping.require_huge(now, reached - now)?;
                }
                self.len.store(reached, Ordering::Release);
            }
            Err(daxstore::Error::NoSpace { .. }) => return Err(Error::NoSpace { needed: len - now }),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn reserve(&self, at: u64, len: u64) -> Result<()> {
        match self.file.allocate(at, len, AllocateMode::KeepSize) {
            Err(daxstore::Error::NoSpace { .. }) => Err(Error::NoSpace { needed: len }),
            done => Ok(done?),
        }
    }

    fn release(&self, at: u64, len: u64) -> Result<Option<u64>> {
        let had = self.file.metadata().blocks;
        match self.file.allocate(at, len, AllocateMode::Punch) {
            // A mapping that serves no faults can not lose blocks (mode E).
            Err(daxstore::Error::Unsupported { .. }) => Ok(None),
            done => {
                done?;
                Ok(Some(had.saturating_sub(self.file.metadata().blocks) * BLOCK_BYTES))
            }
        }
    }

    #[inline]
    fn load(&self, at: u64) -> u64 {
        self.word(at).map_or(0, |word| u64::from_le(word.load(Ordering::Acquire)))
    }

    #[inline]
    fn load_pair(&self, at: u64) -> [u64; 2] {
        if !self.within(at, 2 * WORD) || !at.is_multiple_of(WORD) {
            return [0; 2];
        }
        [0, 1].map(|n| {
            // SAFETY: both words lie within `len` (checked above), which the mapping covers; `at` is a multiple of 8.
            let word = unsafe { AtomicU64::from_ptr(self.base.add(at as usize + n * 8).cast::<u64>()) };
            u64::from_le(word.load(Ordering::Acquire))
        })
    }

    #[inline]
    fn load_line(&self, at: u64) -> [u64; 8] {
        if !self.within(at, 64) || !at.is_multiple_of(WORD) {
            return [0; 8];
        }
        std::array::from_fn(|n| {
            // SAFETY: the line lies within `len` (checked above), which the mapping covers; `at` is a multiple of 8.
            let word = unsafe { AtomicU64::from_ptr(self.base.add(at as usize + n * 8).cast::<u64>()) };
            u64::from_le(word.load(Ordering::Acquire))
        })
    }

    #[inline]
    fn store(&self, at: u64, word: u64) {
        if let Some(place) = self.writable_word(at) {
            place.store(word.to_le(), Ordering::Release);
        }
    }

    #[inline]
    fn compare_exchange(&self, at: u64, old: u64, new: u64) -> std::result::Result<u64, u64> {
        let Some(place) = self.writable_word(at) else { return Err(!old) };
        let swapped = place.compare_exchange(old.to_le(), new.to_le(), Ordering::AcqRel, Ordering::Acquire);
        swapped.map(u64::from_le).map_err(u64::from_le)
    }

    #[inline]
    fn read(&self, at: u64, buf: &mut [u8]) {
        if !self.within(at, buf.len() as u64) {
            return buf.fill(0);
        }
        let skip = (at % WORD) as usize;
        let head = if skip == 0 { 0 } else { (8 - skip).min(buf.len()) };
        let (first, rest) = buf.split_at_mut(head);
        if head > 0 {
            first.copy_from_slice(&self.raw(at)[skip..skip + head]);
        }
        let mut at = at + head as u64;
        let (words, tail) = rest.as_chunks_mut::<8>();
        // SAFETY: the words lie within `len` (checked above), which the mapping covers; aligned, as `at` is a multiple of 8 now.
        let mut from = unsafe { self.base.add(at as usize) }.cast::<u64>();
        for word in words {
            // SAFETY: as for the first; each of the words lies in the range that was checked.
            *word = unsafe { AtomicU64::from_ptr(from) }.load(Ordering::Relaxed).to_ne_bytes();
            from = from.wrapping_add(1);
            at += WORD;
        }
        if !tail.is_empty() {
            let len = tail.len();
            tail.copy_from_slice(&self.raw(at)[..len]);
        }
    }

    #[inline]
    fn append_to(&self, at: u64, len: usize, buf: &mut Vec<u8>) {
        let start = buf.len();
        let words = len.div_ceil(8);
        if !at.is_multiple_of(WORD) || !self.within(at, words as u64 * WORD) {
            buf.resize(start + len, 0);
            return self.read(at, &mut buf[start..]);
        }
        buf.reserve(words * 8);
        // SAFETY: the words lie within `len` (checked above), which the mapping covers; `at` is a multiple of 8.
        let mut from = unsafe { self.base.add(at as usize) }.cast::<u64>();
        let mut copy = |place: &mut [std::mem::MaybeUninit<u8>; 8]| {
            // SAFETY: as for the first; each of the words lies in the range that was checked.
            let word = unsafe { AtomicU64::from_ptr(from) }.load(Ordering::Relaxed);
            *place = word.to_ne_bytes().map(std::mem::MaybeUninit::new);
            from = from.wrapping_add(1);
        };
        let places = &mut buf.spare_capacity_mut().as_chunks_mut::<8>().0[..words];
        let (lines, rest) = places.as_chunks_mut::<8>();
        lines.iter_mut().for_each(|line| line.iter_mut().for_each(&mut copy));
        rest.iter_mut().for_each(copy);
        // SAFETY: there is room for the words, which hold `len` bytes, and all of them were stored.
        unsafe { buf.set_len(start + len) }
    }

    #[inline]
    fn equals(&self, at: u64, bytes: &[u8]) -> bool {
        if !at.is_multiple_of(WORD) {
            let mut found = vec![0; bytes.len()];
            self.read(at, &mut found);
            return found == bytes;
        }
        let (words, tail) = bytes.as_chunks::<8>();
        let mut at = at;
        for word in words {
            if self.raw(at) != *word {
                return false;
            }
            at += WORD;
        }
        tail.is_empty() || self.raw(at)[..tail.len()] == *tail
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        if self.within(at, bytes.len() as u64) {
            let stored = self.mapping.write(at, bytes);
            debug_assert!(stored.is_ok(), "{stored:?}");
        }
    }

    #[inline]
    fn write_through(&self, at: u64, bytes: &[u8]) {
        if self.within(at, bytes.len() as u64) {
            let stored = self.mapping.write_through(at, bytes);
            debug_assert!(stored.is_ok(), "{stored:?}");
        }
    }

    #[inline]
    fn flush(&self, at: u64, len: u64) {
        if self.within(at, len) {
            let flushed = self.mapping.flush_lines(at, len);
            debug_assert!(flushed.is_ok(), "{flushed:?}");
        }
    }

    #[inline]
    fn fence(&self) -> Result<()> {
        Ok(self.mapping.fence()?)
    }

    unsafe fn lend(&self, at: u64, len: u64) -> Option<&[u8]> {
        if !self.within(at, len) {
            return None;
        }
        // SAFETY: the bytes lie within `len` (checked above), which the mapping covers as long as `self` lives, readable and from then on
        // initialised; that nobody stores to them meanwhile is the caller's promise.
        Some(unsafe { std::slice::from_raw_parts(self.base.add(at as usize), len as usize) })
    }

    #[inline]
    fn prefetch(&self, at: u64) {
        #[cfg(target_arch = "x86_64")]
        if at < self.len.load(Ordering::Relaxed) {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            // SAFETY: a prefetch reads nothing that a program sees, and faults nowhere; the address lies in the mapping.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(self.base.add(at as usize).cast::<i8>().cast_const()) }
        }
    }

    #[inline]
    fn prefetch_write(&self, at: u64) {
        #[cfg(target_arch = "x86_64")]
        if at < self.len.load(Ordering::Relaxed) {
            use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
            // SAFETY: as for a prefetch to read; a processor that does not know this one does nothing.
            unsafe { _mm_prefetch::<_MM_HINT_ET0>(self.base.add(at as usize).cast::<i8>().cast_const()) }
        }
    }

    #[inline]
    fn prefetch_bytes(&self, at: u64, len: u64) {
        #[cfg(target_arch = "x86_64")]
        if self.has(at, len) {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            let mut line = at & !63;
            while line < at + len {
                // SAFETY: a prefetch reads nothing that a program sees, and faults nowhere; the address lies in the mapping.
                unsafe { _mm_prefetch::<_MM_HINT_T0>(self.base.add(line as usize).cast::<i8>().cast_const()) }
                line += 64;
            }
        }
    }

    fn work(&self) -> Option<Work> {
        let counts = self.store.counts();
        Some(Work { fences: counts.fences, lines: counts.flushed_lines, through: counts.nt_bytes })
    }

    fn require_huge(&self) -> Result<()> {
        Ok(self.mapping.require_huge(0, self.len())?)
    }
}
