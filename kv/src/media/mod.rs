//! What memory does a database lie in?
//!
//! [`Media`] is the one way to it, so that the crash suite runs the very code that ships over simulated memory. Bytes are named by
//! their offset from the file's start.
//!
//! Invariants:
//! 1. No access leaves the memory: one that would is refused by the implementation (a load gives 0, a store does nothing).
//! 2. What [`Media::write_through`] stored and [`Media::flush`] named is durable when the same thread's next
//!    [`Media::fence`] returned without error. Anything else that was stored may become durable at any time, word by word, or never.
//! 3. No aligned word of 8 bytes is torn.

#[cfg(not(loom))]
mod mapped;
#[cfg(feature = "sim")]
mod sim;

#[cfg(not(loom))]
pub use mapped::Mapped;
/// Under loom there are no mappings.
#[cfg(loom)]
pub use sim::SimMedia as Mapped;
#[cfg(feature = "sim")]
pub use sim::{SimCounts, SimMedia};

use crate::error::Result;

/// What was done to make memory durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Fences.
    pub fences: u64,
    /// Cache lines flushed.
    pub lines: u64,
    /// Bytes stored past the cache.
    pub through: u64,
}

/// The memory that a database lies in. Words are little-endian on the medium, and aligned to 8.
pub trait Media: Send + Sync + 'static {
    /// Bytes that may be used now. It only grows.
    fn len(&self) -> u64;

    /// Bytes that it can have.
    fn capacity(&self) -> u64;

    /// Whether there is none; never so for a database.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes it at least `len` bytes long. What is new reads as zeros. Durable on return.
    ///
    /// # Errors
    /// [`crate::Error::NoSpace`], before anything changed; what the file store says.
    fn grow(&self, len: u64) -> Result<()>;

    /// Has space for `len` bytes at `at`, whole chunks within the memory: what has none reads as zeros then, all else stays.
    ///
    /// # Errors
    /// [`crate::Error::NoSpace`], before anything changed; what the file store says.
    fn reserve(&self, _at: u64, _len: u64) -> Result<()> {
        Ok(())
    }

    /// Gives the space of `len` bytes at `at`, whole chunks, back: how many bytes had some; `None` where that can not be done. They are not
    /// touched before they are reserved again.
    ///
    /// # Errors
    /// What the file store says.
    fn release(&self, _at: u64, len: u64) -> Result<Option<u64>> {
        Ok(Some(len))
    }

    /// The word at `at`, and everything that was stored before it was stored (acquire).
    fn load(&self, at: u64) -> u64;

    /// The words at `at` and behind it, as [`Self::load`].
    #[inline]
    fn load_pair(&self, at: u64) -> [u64; 2] {
        [self.load(at), self.load(at + 8)]
    }

    /// The eight words of the line at `at`, a multiple of 64, as [`Self::load`].
    #[inline]
    fn load_line(&self, at: u64) -> [u64; 8] {
        std::array::from_fn(|n| self.load(at + n as u64 * 8))
    }

    /// Stores a word through the cache, after everything that was stored before (release). Durable after a flush and a fence.
    fn store(&self, at: u64, word: u64);

    /// Replaces the word at `at` where it is `old`; the word found where it is not.
    ///
    /// # Errors
    /// The word found.
    fn compare_exchange(&self, at: u64, old: u64, new: u64) -> std::result::Result<u64, u64>;

    /// Copies bytes out. Others may store to them meanwhile: who reads sees to it that they do not, or checks what came out.
    fn read(&self, at: u64, buf: &mut [u8]);

    /// Appends `len` bytes at `at` to `buf`, as [`Self::read`].
    fn append_to(&self, at: u64, len: usize, buf: &mut Vec<u8>) {
        let start = buf.len();
        buf.resize(start + len, 0);
        self.read(at, &mut buf[start..]);
    }

    /// Whether the bytes at `at` are these.
    fn equals(&self, at: u64, bytes: &[u8]) -> bool;

    /// Stores bytes through the cache. Durable after a flush and a fence.
    fn write(&self, at: u64, bytes: &[u8]);

    /// Stores bytes past the cache. Durable after this thread's fence.
    fn write_through(&self, at: u64, bytes: &[u8]);

    /// Starts writing the cache lines of `len` bytes back: durable after this thread's fence.
    fn flush(&self, at: u64, len: u64);

    /// Waits until what this thread flushed and wrote through is durable.
    ///
    /// # Errors
    /// What the system says; then nothing is known of what was flushed.
    fn fence(&self) -> Result<()>;

    /// The `len` bytes at `at`, where they lie; `None` where this memory does not lend, or they leave it.
    ///
    /// # Safety
    /// Nobody stores to these bytes while the answer lives.
    unsafe fn lend(&self, _at: u64, _len: u64) -> Option<&[u8]> {
        None
    }

    /// Asks for the line at `at`, which will be read soon.
    fn prefetch(&self, at: u64);

    /// Asks for the line at `at`, which will be stored to soon.
    fn prefetch_write(&self, _at: u64) {}

    /// Asks for the lines of `len` bytes at `at`, of which there is at least one.
    #[inline]
    fn prefetch_bytes(&self, at: u64, len: u64) {
        (at & !63..at + len).step_by(64).for_each(|line| self.prefetch(line));
    }

    /// What was done until now, by this database and whoever shares its pool; `None`: nobody counts.
    fn work(&self) -> Option<Work> {
        None
    }

    /// Whether every 2 MiB can be had by one translation, and is.
    ///
    /// # Errors
    /// [`daxstore::Error::NotHuge`] with the first that is not.
    fn require_huge(&self) -> Result<()> {
        Ok(())
    }
}
