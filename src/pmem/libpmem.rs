//! How does PMDK's libpmem make stores durable?
//!
//! Over the crate `pmem`: `nodrain` copies, `flush` and `drain`, and nothing else of it: its `persistentmap` drops a
//! vector it does not own. libpmem chooses its instructions by itself, and skips flushes with eADR by itself. It does
//! not care whether an aligned word is stored in one piece, so it gets whole words only.

use super::memory::Memory;
use crate::units::PoolOff;
use std::cell::UnsafeCell;

const WORD: usize = 8;
const LINE: u64 = crate::units::LINE_BYTES;

/// A line of the medium as `pmem::flush` wants to be told of it: it takes a reference, of which it uses address and
/// size. Behind a reference to an `UnsafeCell` anybody may change anything.
#[repr(C, align(64))]
struct Line(#[allow(dead_code, reason = "only its size counts")] UnsafeCell<[u8; LINE as usize]>);

/// Lines flushed by one call, where there are as many.
const MANY: u64 = 64;

pub(super) const NAME: &str = "libpmem";

pub(super) fn copy(memory: &Memory, at: PoolOff, bytes: &[u8]) {
    let head = ((at.0 as usize).wrapping_neg() % WORD).min(bytes.len());
    let (head, rest) = bytes.split_at(head);
    let (body, tail) = rest.split_at(rest.len() / WORD * WORD);
    let start = at.plus(head.len() as u64);
    copy_ragged(memory, (at, head), (start.plus(body.len() as u64), tail));
    let to = memory.pointer(start, body.len() as u64);
    // SAFETY: `to` is writable for the body (see `pointer`), which is the caller's memory and does not overlap.
    unsafe { pmem::nodrain::copy_nooverlapping(body.as_ptr(), to, body.len()) }
}

pub(super) fn zero(memory: &Memory, at: PoolOff, len: u64) {
    let zeros = [0; WORD];
    let head = ((at.0 as usize).wrapping_neg() % WORD).min(len as usize);
    let tail = (len as usize - head) % WORD;
    let body = len as usize - head - tail;
    let start = at.plus(head as u64);
    copy_ragged(memory, (at, &zeros[..head]), (start.plus(body as u64), &zeros[..tail]));
    let to = memory.pointer(start, body as u64);
    // SAFETY: `to` is writable for `body` bytes (see `pointer`).
    unsafe { pmem::nodrain::write_bytes(to, 0, body) }
}

/// Stores the parts of words at the edges of a copy: before the flushes and before the body, as `lines` does and tells
/// why.
fn copy_ragged(memory: &Memory, head: (PoolOff, &[u8]), tail: (PoolOff, &[u8])) {
    let edges = [head, tail];
    for (at, bytes) in edges {
        memory.write(at, bytes);
    }
    for (at, bytes) in edges {
        if !bytes.is_empty() {
            flush(memory, at, bytes.len() as u64);
        }
    }
}

pub(super) fn flush(memory: &Memory, at: PoolOff, len: u64) {
    let skip = at.0 % LINE;
    let mut start = PoolOff(at.0 - skip);
    let mut lines = (skip + len).div_ceil(LINE);
    while lines > 0 {
        let step = if lines >= MANY { MANY } else { 1 };
        flush_lines(memory, start, step);
        start = start.plus(step * LINE);
        lines -= step;
    }
}

/// Flushes 1 or `MANY` lines.
fn flush_lines(memory: &Memory, at: PoolOff, lines: u64) {
    let line = memory.pointer(at, 1).cast::<Line>();
    // SAFETY: the lines lie in the mapping, which is whole pages, and are 64-byte aligned as `at` is and the base is
    // page aligned. `Line` is an `UnsafeCell` of bytes: any contents are valid, anybody may change them, and the
    // references end with the calls.
    unsafe {
        if lines == MANY {
            pmem::flush(&*line.cast::<[Line; MANY as usize]>());
        } else {
            pmem::flush(&*line);
        }
    }
}

pub(super) fn fence() {
    pmem::drain();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_offset_and_length_residue_is_copied_and_nothing_beside() {
        const BYTES: usize = 16384;
        let map: memmap2::MmapRaw = memmap2::MmapOptions::new().len(BYTES).map_anon().unwrap().into();
        // SAFETY: the mapping is page aligned, BYTES long, and lives as long as this function.
        let memory = unsafe { Memory::new(map.as_mut_ptr(), BYTES as u64) };
        let source: Vec<u8> = (0..9000).map(|i| (i * 7) as u8 | 1).collect();
        for at in 128..192 {
            for len in (0..64).chain([64 + at % 64, 320 + at % 64, 4096 + at % 64, 8999]) {
                let mut expected = vec![0xEE; at + len + 128];
                memory.write(PoolOff(0), &expected);
                let mut found = vec![0; expected.len()];
                copy(&memory, PoolOff(at as u64), &source[1..1 + len]);
                flush(&memory, PoolOff(at as u64), len as u64);
                fence();
                expected[at..at + len].copy_from_slice(&source[1..1 + len]);
                memory.read(PoolOff(0), &mut found);
                assert_eq!(found, expected, "copy of {len} bytes at {at}");
                zero(&memory, PoolOff(at as u64), len as u64);
                fence();
                expected[at..at + len].fill(0);
                memory.read(PoolOff(0), &mut found);
                assert_eq!(found, expected, "zero of {len} bytes at {at}");
            }
        }
    }
}
