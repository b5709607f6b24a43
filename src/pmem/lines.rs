//! How do cache lines reach the persistence domain on x86-64?
//!
//! Whole lines are stored non-temporally; the ragged lines at the edges of a copy are stored through the cache and
//! written back, because a partly filled write-combining buffer costs more than the line's write-back (measured:
//! two ragged edges add 160 ns non-temporally and 20-80 ns this way) and can not store single bytes.
//! SSE2 stores are as fast as AVX2, AVX-512 and MOVDIR64B ones here (4 KiB: 342, 340, 341, 337 ns with the fence),
//! so there is one routine, and it runs on every x86-64.
//!
//! Invariants:
//! 1. Every line of a copy is stored either wholly non-temporally or through the cache and written back, never both.
//! 2. After [`Lines::fence`], everything this thread copied, zeroed and flushed before is in the persistence domain.
//! 3. No aligned 8-byte word is torn, and no byte beside the range is stored to.

use super::memory::Memory;
use crate::units::PoolOff;
use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count};
use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_setzero_si128, _mm_stream_si128};

const LINE: usize = crate::units::LINE_BYTES as usize;

/// The instruction that writes a line back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WriteBack {
    /// Keeps the line in the cache.
    Clwb,
    /// Evicts the line.
    ClflushOpt,
    /// Evicts the line, one after the other.
    Clflush,
    /// The persistence domain holds the caches (eADR).
    Nothing,
    /// Only noted.
    #[cfg(test)]
    Noted,
}

impl WriteBack {
    /// The best instruction of this processor.
    fn detect() -> Self {
        const LEAF_7_CLFLUSHOPT: u32 = 1 << 23;
        const LEAF_7_CLWB: u32 = 1 << 24;
        let leaf_7 = if __cpuid(0).eax >= 7 { __cpuid_count(7, 0).ebx } else { 0 };
        match leaf_7 {
            bits if bits & LEAF_7_CLWB != 0 => Self::Clwb,
            bits if bits & LEAF_7_CLFLUSHOPT != 0 => Self::ClflushOpt,
            _ => Self::Clflush,
        }
    }
}

/// Persistence by cache lines.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lines {
    write_back: WriteBack,
}

impl Lines {
    /// For a medium whose persistence domain holds the caches if `eadr`.
    ///
    /// # Errors
    /// None on x86-64, which can always flush; other machines can not.
    #[allow(clippy::unnecessary_wraps)]
    pub(super) fn new(eadr: bool) -> crate::error::Result<Self> {
        Ok(Self { write_back: if eadr { WriteBack::Nothing } else { WriteBack::detect() } })
    }

    pub(super) const fn name(&self) -> &'static str {
        match self.write_back {
            WriteBack::Clwb => "lines (clwb)",
            WriteBack::ClflushOpt => "lines (clflushopt)",
            WriteBack::Clflush => "lines (clflush)",
            WriteBack::Nothing => "lines (eADR)",
            #[cfg(test)]
            WriteBack::Noted => "lines (noted)",
        }
    }

    #[inline]
    pub(super) fn copy(&self, memory: &Memory, at: PoolOff, bytes: &[u8]) {
        let (head, rest) = bytes.split_at(head_bytes(at, bytes.len()));
        let (body, tail) = rest.as_chunks::<LINE>();
        let start = at.plus(head.len() as u64);
        if !head.is_empty() || !tail.is_empty() {
            self.copy_ragged(memory, (at, head), (start.plus(body.as_flattened().len() as u64), tail));
        }
        stream(memory, start, body);
    }

    #[inline]
    pub(super) fn zero(&self, memory: &Memory, at: PoolOff, len: u64) {
        let zeros = [0; LINE];
        let head = head_bytes(at, len as usize);
        let tail = (len as usize - head) % LINE;
        self.copy_ragged(memory, (at, &zeros[..head]), (at.plus(len - tail as u64), &zeros[..tail]));
        stream_zeros(memory, at.plus(head as u64), (len as usize - head) / LINE);
    }

    /// Stores the parts of lines at the edges of a copy. Storing part of a word is a locked instruction, which waits
    /// for every write-back and non-temporal store before it (130 ns each); hence this order, and before the body.
    fn copy_ragged(&self, memory: &Memory, head: (PoolOff, &[u8]), tail: (PoolOff, &[u8])) {
        let edges = [head, tail];
        for (at, bytes) in edges {
            memory.write(at, bytes);
        }
        for (at, bytes) in edges {
            if !bytes.is_empty() {
                self.flush(memory, at, bytes.len() as u64);
            }
        }
    }

    #[inline]
    pub(super) fn flush(&self, memory: &Memory, at: PoolOff, len: u64) {
        let skip = at.0 % LINE as u64;
        let start = memory.pointer(PoolOff(at.0 - skip), skip + len);
        let lines = (skip + len).div_ceil(LINE as u64) as usize;
        match self.write_back {
            WriteBack::Clwb => each_line(start, lines, clwb),
            WriteBack::ClflushOpt => each_line(start, lines, clflushopt),
            WriteBack::Clflush => each_line(start, lines, clflush),
            WriteBack::Nothing => {}
            #[cfg(test)]
            WriteBack::Noted => each_line(start, lines, tests::note),
        }
    }

    /// Also with eADR: a non-temporal store waits in a buffer that is no cache.
    #[inline]
    pub(super) fn fence(&self) {
        // SAFETY: the instruction only orders and drains this thread's stores.
        unsafe { asm!("sfence", options(nostack, preserves_flags)) }
    }
}

/// How many of `len` bytes at `at` come before the first whole line.
#[inline]
fn head_bytes(at: PoolOff, len: usize) -> usize {
    ((at.0 as usize).wrapping_neg() % LINE).min(len)
}

#[inline]
fn each_line(start: *mut u8, lines: usize, write_back: impl Fn(*mut u8)) {
    for line in 0..lines {
        write_back(start.wrapping_add(line * LINE));
    }
}

#[inline]
fn clwb(line: *mut u8) {
    // SAFETY: chosen only where cpuid has CLWB; it changes no memory, and `flush` names lines of the mapping only.
    unsafe { asm!("clwb [{}]", in(reg) line, options(nostack, preserves_flags)) }
}

#[inline]
fn clflushopt(line: *mut u8) {
    // SAFETY: chosen only where cpuid has CLFLUSHOPT; otherwise as in `clwb`.
    unsafe { asm!("clflushopt [{}]", in(reg) line, options(nostack, preserves_flags)) }
}

#[inline]
fn clflush(line: *mut u8) {
    // SAFETY: every x86-64 has CLFLUSH; otherwise as in `clwb`.
    unsafe { asm!("clflush [{}]", in(reg) line, options(nostack, preserves_flags)) }
}

/// Stores whole lines at `at`, a multiple of 64.
#[inline]
fn stream(memory: &Memory, at: PoolOff, lines: &[[u8; LINE]]) {
    let mut to = memory.pointer(at, lines.as_flattened().len() as u64).cast::<__m128i>();
    for line in lines {
        let from = line.as_ptr().cast::<__m128i>();
        // SAFETY: `from` is readable for a line, at any alignment; `to` is writable for a line (see `pointer`) and
        // 64-byte aligned, as `at` is and the base is page aligned. SSE2 is part of x86-64. That the stores are
        // weakly ordered is the point: `fence` follows before anything relies on them.
        unsafe {
            let parts = [
                _mm_loadu_si128(from),
                _mm_loadu_si128(from.add(1)),
                _mm_loadu_si128(from.add(2)),
                _mm_loadu_si128(from.add(3)),
            ];
            _mm_stream_si128(to, parts[0]);
            _mm_stream_si128(to.add(1), parts[1]);
            _mm_stream_si128(to.add(2), parts[2]);
            _mm_stream_si128(to.add(3), parts[3]);
            to = to.add(4);
        }
    }
}

/// Zeroes `lines` whole lines at `at`, a multiple of 64.
#[inline]
fn stream_zeros(memory: &Memory, at: PoolOff, lines: usize) {
    let mut to = memory.pointer(at, (lines * LINE) as u64).cast::<__m128i>();
    for _ in 0..lines {
        // SAFETY: as in `stream`.
        unsafe {
            let zero = _mm_setzero_si128();
            _mm_stream_si128(to, zero);
            _mm_stream_si128(to.add(1), zero);
            _mm_stream_si128(to.add(2), zero);
            _mm_stream_si128(to.add(3), zero);
            to = to.add(4);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [WriteBack; 4] =
        [WriteBack::Clwb, WriteBack::ClflushOpt, WriteBack::Clflush, WriteBack::Nothing];
    const PAGES: usize = 1 << 16;

    fn memory() -> (memmap2::MmapRaw, Memory) {
        let map: memmap2::MmapRaw = memmap2::MmapOptions::new().len(PAGES).map_anon().unwrap().into();
        // SAFETY: the mapping is page aligned, PAGES bytes, and returned beside the memory.
        let memory = unsafe { Memory::new(map.as_mut_ptr(), PAGES as u64) };
        (map, memory)
    }

    /// Copies and zeroes `len` bytes at `at`, and compares them and the 128 bytes on both sides.
    fn copy_and_compare(lines: Lines, memory: &Memory, at: usize, len: usize) {
        let source: Vec<u8> = (0..len + 1).map(|i| (i * 7 + at) as u8 | 1).collect();
        let bytes = &source[at % 2..at % 2 + len];
        let mut expected = vec![0xEE; at + len + 128];
        memory.write(PoolOff(0), &expected);
        expected[at..at + len].copy_from_slice(bytes);
        let mut found = vec![0; expected.len()];
        lines.copy(memory, PoolOff(at as u64), bytes);
        lines.fence();
        memory.read(PoolOff(0), &mut found);
        assert_eq!(found, expected, "copy of {len} bytes at {at}");
        lines.zero(memory, PoolOff(at as u64), len as u64);
        lines.fence();
        expected[at..at + len].fill(0);
        memory.read(PoolOff(0), &mut found);
        assert_eq!(found, expected, "zero of {len} bytes at {at}");
    }

    fn usable() -> impl Iterator<Item = Lines> {
        let best = WriteBack::detect();
        let usable = move |w: &WriteBack| match w {
            WriteBack::Clwb => best == WriteBack::Clwb,
            WriteBack::ClflushOpt => best != WriteBack::Clflush,
            WriteBack::Clflush | WriteBack::Nothing | WriteBack::Noted => true,
        };
        ALL.into_iter().filter(usable).map(|write_back| Lines { write_back })
    }

    #[test]
    fn every_offset_and_length_residue_is_copied_and_nothing_beside() {
        let (_map, memory) = memory();
        for lines in usable() {
            for at in 128..192 {
                for len in 0..64 {
                    for longer in [0, 64, 192] {
                        copy_and_compare(lines, &memory, at, longer + len);
                    }
                }
            }
        }
    }

    #[test]
    fn long_copies_are_copied_and_nothing_beside() {
        let (_map, memory) = memory();
        for lines in usable() {
            for len in [4095, 4096, 4097, 8192, 12345, 40_000] {
                for at in [128, 129, 136, 144, 160, 191, 4095, 4096] {
                    copy_and_compare(lines, &memory, at, len);
                }
            }
        }
    }

    std::thread_local! {
        static NOTED: std::cell::RefCell<Vec<usize>> = const { std::cell::RefCell::new(Vec::new()) };
    }

    pub(super) fn note(line: *mut u8) {
        NOTED.with_borrow_mut(|noted| noted.push(line as usize));
    }

    /// The lines written back since the last call, as numbers from the start of `memory`.
    fn noted(memory: &Memory) -> Vec<usize> {
        let base = memory.pointer(PoolOff(0), 0) as usize;
        let mut lines: Vec<usize> = NOTED.take().iter().map(|line| (line - base) / LINE).collect();
        lines.sort_unstable();
        lines
    }

    #[test]
    fn exactly_the_ragged_lines_of_a_copy_are_written_back() {
        let (_map, memory) = memory();
        let lines = Lines { write_back: WriteBack::Noted };
        for at in 0..64 {
            for len in 0..200 {
                let (first, end) = (at / LINE, (at + len).div_ceil(LINE));
                let whole = |line: &usize| line * LINE >= at && (line + 1) * LINE <= at + len;
                let ragged: Vec<usize> = (first..end).filter(|line| len > 0 && !whole(line)).collect();
                lines.copy(&memory, PoolOff(at as u64), &[1; 200][..len]);
                assert_eq!(noted(&memory), ragged, "copy of {len} bytes at {at}");
                lines.zero(&memory, PoolOff(at as u64), len as u64);
                assert_eq!(noted(&memory), ragged, "zero of {len} bytes at {at}");
                if len > 0 {
                    lines.flush(&memory, PoolOff(at as u64), len as u64);
                    assert_eq!(
                        noted(&memory),
                        (first..end).collect::<Vec<_>>(),
                        "flush of {len} bytes at {at}"
                    );
                }
            }
        }
    }

    #[test]
    fn eadr_flushes_nothing_and_says_so() {
        assert_eq!(Lines::new(true).unwrap().name(), "lines (eADR)");
        assert!(Lines::new(false).unwrap().name().starts_with("lines (cl"));
    }
}
