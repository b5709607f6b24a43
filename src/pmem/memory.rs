//! How is mapped memory touched without a reference into it?
//!
//! The mapping may be stored to by other threads, other processes and (through user mappings) by programs that
//! know no lock, so everything here copies through raw pointers; the only references into the medium are to atomics,
//! which anyone may store to. Callers ([`super::Region`], [`super::Window`]) have checked every range against the
//! length.
//!
//! Invariant: a store never tears an aligned 8-byte word and never touches a byte beside its range.

use crate::units::PoolOff;
use std::sync::atomic::{AtomicU64, Ordering};

const WORD: usize = 8;

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
    /// `base` is 4096-byte aligned and the start of a mapping of at least `len` bytes that is readable, is
    /// writable if anything is stored through this value, and outlives this value.
    pub(super) unsafe fn new(base: *mut u8, len: u64) -> Self {
        Self { base, len }
    }

    /// The address of `len` bytes at `at`, for the backends of this module.
    #[inline]
    pub(super) fn pointer(&self, at: PoolOff, len: u64) -> *mut u8 {
        debug_assert!(at.0.checked_add(len).is_some_and(|end| end <= self.len.next_multiple_of(8)));
        // SAFETY: callers checked that `at + len` lies within the pool, which lies within the mapping; a mapping
        // is whole pages, so that rounding the end up to a word stays inside.
        unsafe { self.base.add(at.0 as usize) }
    }

    #[inline]
    pub(super) fn read(&self, at: PoolOff, buf: &mut [u8]) {
        let from = self.pointer(at, buf.len() as u64);
        // SAFETY: `from` is readable for `buf.len()` bytes (see `pointer`), and `buf` is memory of the caller's
        // that does not overlap: no `&mut [u8]` to the medium exists.
        unsafe { std::ptr::copy_nonoverlapping(from, buf.as_mut_ptr(), buf.len()) }
    }

    /// Stores `bytes` word by word: no aligned word is ever torn, and no byte beside the range is stored to.
    #[inline]
    pub(super) fn write(&self, at: PoolOff, bytes: &[u8]) {
        let (head, rest) = bytes.split_at(head_bytes(at, bytes.len()));
        self.merge(at, head);
        let mut at = at.plus(head.len() as u64);
        let (words, tail) = rest.as_chunks::<WORD>();
        for word in words {
            self.word(at).store(u64::from_ne_bytes(*word), Ordering::Relaxed);
            at = at.plus(WORD as u64);
        }
        self.merge(at, tail);
    }

    /// As [`Self::write`], of `len` zeros.
    pub(super) fn zero(&self, at: PoolOff, len: u64) {
        let zeros = [0; WORD];
        let end = at.plus(len);
        let head = head_bytes(at, len as usize);
        self.merge(at, &zeros[..head]);
        let mut at = at.plus(head as u64);
        while end.0 - at.0 >= WORD as u64 {
            self.word(at).store(0, Ordering::Relaxed);
            at = at.plus(WORD as u64);
        }
        self.merge(at, &zeros[..(end.0 - at.0) as usize]);
    }

    /// Stores fewer than 8 bytes of one word. A plain store of 3, 5, 6 or 7 bytes would be two, which a crash can
    /// part; a plain store of the whole word would undo what another thread does to its other bytes.
    #[inline]
    fn merge(&self, at: PoolOff, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let skip = at.0 as usize % WORD;
        let word = self.word(PoolOff(at.0 - skip as u64));
        let mut old = word.load(Ordering::Relaxed);
        loop {
            let mut new = old.to_ne_bytes();
            new[skip..skip + bytes.len()].copy_from_slice(bytes);
            match word.compare_exchange_weak(
                old,
                u64::from_ne_bytes(new),
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return,
                Err(now) => old = now,
            }
        }
    }

    #[inline]
    pub(super) fn word(&self, at: PoolOff) -> &AtomicU64 {
        let pointer = self.pointer(at, 8).cast::<u64>();
        // SAFETY: callers checked that `at` is a multiple of 8, the base is page aligned, and an atomic may be
        // stored to by anyone; the reference does not outlive `self`.
        unsafe { AtomicU64::from_ptr(pointer) }
    }

    #[inline]
    pub(super) fn load(&self, at: PoolOff) -> u64 {
        u64::from_le(self.word(at).load(Ordering::Acquire))
    }

    #[inline]
    pub(super) fn store_word(&self, at: PoolOff, value: u64) {
        self.word(at).store(value.to_le(), Ordering::Release);
    }
}

/// How many of `len` bytes at `at` come before the first whole word.
#[inline]
fn head_bytes(at: PoolOff, len: usize) -> usize {
    ((at.0 as usize).wrapping_neg() % WORD).min(len)
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(not(loom))]
    use crate::sync::thread;

    const LEN: u64 = 4096;

    fn memory() -> (memmap2::MmapRaw, Memory) {
        let map: memmap2::MmapRaw = memmap2::MmapOptions::new().len(LEN as usize).map_anon().unwrap().into();
        // SAFETY: the mapping is page aligned, LEN bytes, and returned beside the memory.
        let memory = unsafe { Memory::new(map.as_mut_ptr(), LEN) };
        (map, memory)
    }

    #[test]
    fn every_offset_and_length_is_stored_and_nothing_beside() {
        let (_map, memory) = memory();
        let bytes: Vec<u8> = (0..40).map(|i| i + 1).collect();
        for at in 0..16 {
            for len in 0..=bytes.len() {
                memory.write(PoolOff(0), &[0xEE; 80]);
                memory.write(PoolOff(at as u64), &bytes[..len]);
                let mut expected = [0xEE; 80];
                expected[at..at + len].copy_from_slice(&bytes[..len]);
                let mut found = [0; 80];
                memory.read(PoolOff(0), &mut found);
                assert_eq!(found, expected, "at {at}, {len} bytes");
                memory.zero(PoolOff(at as u64), len as u64);
                expected[at..at + len].fill(0);
                memory.read(PoolOff(0), &mut found);
                assert_eq!(found, expected, "zero at {at}, {len} bytes");
            }
        }
    }

    #[cfg(not(loom))]
    #[test]
    fn neighbours_in_one_word_do_not_undo_each_other() {
        let (_map, memory) = memory();
        let together = std::sync::Barrier::new(2);
        thread::scope(|scope| {
            for (at, len) in [(1, 3), (4, 4)] {
                let (memory, together) = (&memory, &together);
                scope.spawn(move || {
                    together.wait();
                    // What a round stored is looked at by the next one: at once, a processor would find it in its own
                    // store buffer.
                    let mut bytes = [0; 4];
                    for round in 0..3_000_000u32 {
                        let mut found = [0; 4];
                        memory.read(PoolOff(at), &mut found[..len]);
                        assert_eq!(found[..len], bytes[..len]);
                        bytes = [round as u8; 4];
                        memory.write(PoolOff(at), &bytes[..len]);
                    }
                });
            }
        });
    }

    #[test]
    fn words_are_little_endian() {
        let (_map, memory) = memory();
        memory.store_word(PoolOff(8), 0x0102_0304_0506_0708);
        let mut found = [0; 8];
        memory.read(PoolOff(8), &mut found);
        assert_eq!(found, [8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(memory.load(PoolOff(8)), 0x0102_0304_0506_0708);
    }
}
