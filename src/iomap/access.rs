//! How are the bytes of a mapping loaded, stored and made durable?

use crate::error::Result;
use std::fmt::Debug;
use std::sync::atomic::AtomicU64;

/// The memory of a mapping, in bytes from its start. Anybody may store to it at any time, so nothing here lends it but
/// as atomics. A touch beyond the end of the file, or of a bad place of the medium, raises SIGBUS, as in any mapping;
/// what is outside the mapping is [`crate::Error::OutOfMapping`].
pub trait Access: Debug + Send + Sync {
    /// Copies `buf.len()` bytes from `at` into `buf`.
    ///
    /// # Errors
    /// [`crate::Error::OutOfMapping`].
    fn read(&self, at: u64, buf: &mut [u8]) -> Result<()>;

    /// Stores `bytes` at `at` through the cache; no aligned word of 8 bytes is torn. Durable after a flush and a fence.
    ///
    /// # Errors
    /// [`crate::Error::OutOfMapping`].
    fn write(&self, at: u64, bytes: &[u8]) -> Result<()>;

    /// Stores `bytes` at `at` past the cache; no aligned word of 8 bytes is torn. Durable after a fence of this thread.
    ///
    /// # Errors
    /// [`crate::Error::OutOfMapping`].
    fn write_through(&self, at: u64, bytes: &[u8]) -> Result<()>;

    /// The word at `at`, a multiple of 8.
    ///
    /// # Errors
    /// [`crate::Error::OutOfMapping`].
    fn word(&self, at: u64) -> Result<&AtomicU64>;

    /// Starts writing the lines of `len` bytes at `at` back: durable after a fence of this thread.
    ///
    /// # Errors
    /// [`crate::Error::OutOfMapping`].
    fn flush(&self, at: u64, len: u64) -> Result<()>;

    /// Waits until what this thread flushed and wrote through is durable.
    ///
    /// # Errors
    /// [`crate::Error::Io`] where the system could not write; then nothing is known of what was flushed.
    fn fence(&self) -> Result<()>;
}
