//! How is mapped memory touched without a reference into it?
//!
//! The mapping may be stored to by other threads, other processes and (through user mappings) by programs that
//! know no lock, so everything here copies through raw pointers and no `&T` to the medium ever exists. Callers
//! ([`super::Region`]) have checked every range against the pool's size.

use crate::units::PoolOff;
use std::sync::atomic::{AtomicU64, Ordering};

/// A mapped range of addresses that stays mapped as long as its owner.
#[derive(Debug)]
pub(super) struct Memory {
    base: *mut u8,
    len: u64,
}

// SAFETY: the pointer is to a mapping that every thread may access; the owner unmaps it only when it is dropped,
// and hands the memory out by `&Memory`, so no thread can use it afterwards.
unsafe impl Send for Memory {}
// SAFETY: as for Send; concurrent access is by raw copies only, and metadata is copied under locks.
unsafe impl Sync for Memory {}

impl Memory {
    /// The memory of a mapping of `len` bytes at `base`.
    ///
    /// # Safety
    /// `base` is 4096-byte aligned and the start of a mapping of at least `len` bytes that is readable and
    /// writable, and outlives this value.
    pub(super) unsafe fn new(base: *mut u8, len: u64) -> Self {
        Self { base, len }
    }

    fn pointer(&self, at: PoolOff, len: u64) -> *mut u8 {
        debug_assert!(at.0.checked_add(len).is_some_and(|end| end <= self.len));
        // SAFETY: callers checked that `at + len` lies within the pool, which lies within the mapping.
        unsafe { self.base.add(at.0 as usize) }
    }

    pub(super) fn read(&self, at: PoolOff, buf: &mut [u8]) {
        let from = self.pointer(at, buf.len() as u64);
        // SAFETY: `from` is readable for `buf.len()` bytes (see `pointer`), and `buf` is memory of the caller's
        // that does not overlap: no `&mut [u8]` to the medium exists.
        unsafe { std::ptr::copy_nonoverlapping(from, buf.as_mut_ptr(), buf.len()) }
    }

    pub(super) fn write(&self, at: PoolOff, bytes: &[u8]) {
        let to = self.pointer(at, bytes.len() as u64);
        // SAFETY: as in `read`, with the directions exchanged.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) }
    }

    pub(super) fn zero(&self, at: PoolOff, len: u64) {
        let to = self.pointer(at, len);
        // SAFETY: `to` is writable for `len` bytes (see `pointer`).
        unsafe { std::ptr::write_bytes(to, 0, len as usize) }
    }

    fn word(&self, at: PoolOff) -> &AtomicU64 {
        let pointer = self.pointer(at, 8).cast::<u64>();
        // SAFETY: callers checked that `at` is a multiple of 8, the base is page aligned, and an atomic may be
        // stored to by anyone; the reference does not outlive `self`.
        unsafe { AtomicU64::from_ptr(pointer) }
    }

    pub(super) fn load(&self, at: PoolOff) -> u64 {
        u64::from_le(self.word(at).load(Ordering::Acquire))
    }
}
