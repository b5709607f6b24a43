//! What did the kernel really install?
//!
//! The store maps memory so that translations of 2 MiB are possible; whether the kernel made one is its decision. For
//! memory with pages behind it, it says so in `/proc/self/smaps`. For DAX it does not: there, the number of
//! faults that touching took tells it.

use daxstore::{Error, Result};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::OnceLock;

/// Lines of smaps that count memory under translations of 2 MiB.
const HUGE: [&str; 3] = ["AnonHugePages:", "ShmemPmdMapped:", "FilePmdMapped:"];
/// Flags of mappings that smaps does not count them for: `MAP_SYNC`, and memory without pages (DAX on older kernels).
const UNCOUNTED: [&str; 3] = ["sf", "mm", "pf"];

/// How many of `len` bytes from address `start` are translated 2 MiB at a time. `None` where the kernel does not tell:
/// for DAX, and for a part of what is one mapping to it, unless that has none.
///
/// # Errors
/// [`Error::Io`] without `/proc`.
pub(crate) fn huge_bytes(start: usize, len: u64) -> Result<Option<u64>> {
    let smaps = File::open("/proc/self/smaps").map_err(|e| Error::io("opening /proc/self/smaps", e))?;
    count(BufReader::new(smaps), start as u64, start as u64 + len)
}

/// How many faults this thread has taken that needed no I/O: the difference says what a touch took.
///
/// # Errors
/// The system's.
pub(crate) fn minor_faults() -> Result<u64> {
    super::sys::minor_faults()
}

/// Whether the kernel gives the huge zero page to memory that asks for it.
pub(super) fn has_huge_zeros() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    let setting = |name| {
        let path = Path::new("/sys/kernel/mm/transparent_hugepage").join(name);
        std::fs::read_to_string(path).unwrap_or_default()
    };
    *HAS.get_or_init(|| {
        let enabled = setting("enabled");
        setting("use_zero_page").trim() == "1" && !enabled.is_empty() && !enabled.contains("[never]")
    })
}

fn count(smaps: impl BufRead, start: u64, end: u64) -> Result<Option<u64>> {
    let (mut bytes, mut told, mut bounds) = (0, true, (0, 0));
    for line in smaps.lines() {
        let line = line.map_err(|e| Error::io("reading /proc/self/smaps", e))?;
        if let Some(next) = heading(&line) {
            bounds = next;
            continue;
        }
        if bounds.0 >= end || bounds.1 <= start {
            continue;
        }
        let mut words = line.split_ascii_whitespace();
        let key = words.next().unwrap_or_default();
        if HUGE.contains(&key) {
            let found = words.next().and_then(|kib| kib.parse().ok()).unwrap_or(0) << 10;
            bytes += found;
            told &= found == 0 || (start <= bounds.0 && bounds.1 <= end);
        }
        told &= key != "VmFlags:" || !words.any(|flag| UNCOUNTED.contains(&flag));
    }
    Ok(told.then_some(bytes))
}

/// The addresses of the mapping that a line begins the report of.
fn heading(line: &str) -> Option<(u64, u64)> {
    let (start, end) = line.split_ascii_whitespace().next()?.split_once('-')?;
    Some((u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "10000000-10400000 rw-s 00000000 00:1b 7 /pool\n\
        Rss:                4096 kB\nAnonHugePages:         0 kB\nShmemPmdMapped:     4096 kB\nVmFlags: rd wr sh\n\
        20000000-20200000 rw-s 00000000 00:1b 7 /pool\n\
        ShmemPmdMapped:        0 kB\nVmFlags: rd wr sh\n\
        30000000-30200000 rw-s 00000000 103:1 7 /dax\n\
        FilePmdMapped:         0 kB\nVmFlags: rd wr sh sf mm hg\n";

    fn told(start: u64, end: u64) -> Option<u64> {
        count(SMAPS.as_bytes(), start, end).unwrap()
    }

    #[test]
    fn what_smaps_tells_is_summed_and_what_it_does_not_is_not_guessed() {
        assert_eq!(told(0x1000_0000, 0x1040_0000), Some(4 << 20));
        assert_eq!(told(0x1000_0000, 0x2020_0000), Some(4 << 20));
        assert_eq!(told(0x2010_0000, 0x2020_0000), Some(0));
        assert_eq!(told(0x1000_0000, 0x1020_0000), None, "part of one mapping");
        assert_eq!(told(0x3000_0000, 0x3020_0000), None, "DAX");
        assert_eq!(told(0x4000_0000, 0x4020_0000), Some(0), "nothing mapped");
    }
}
