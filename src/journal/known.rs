//! Which objects need no checking when they are read again?
//!
//! A lossy set of (home, version) pairs: those whose check and content were found good since the pool was opened, and
//! those this process wrote. A version comes once to a home as long as its arena is one, so a pair stays true.
//! Where an arena was given back to files and opened again versions start from 0, but then every version above is
//! written by this process anew, and so good too. What is damaged later by the medium is found at the next open, or by
//! `check`.

// A hint that orders nothing, and loom would spend its time on it.
#[cfg(not(loom))]
use crate::sync::atomic::{AtomicU64, Ordering};
#[cfg(loom)]
use std::sync::atomic::{AtomicU64, Ordering};

use crate::units::PoolOff;

/// The set. An entry is one word that mixes both numbers; a false match needs 64 equal bits.
#[derive(Debug)]
pub(super) struct Known {
    entries: Box<[AtomicU64]>,
}

impl Known {
    /// A set for a pool of `blocks` blocks: an entry for every four, within limits.
    pub fn new(blocks: u64) -> Self {
        let entries = (blocks / 4).next_power_of_two().clamp(1 << 8, 1 << 16);
        Self { entries: (0..entries).map(|_| AtomicU64::new(0)).collect() }
    }

    fn place(&self, home: PoolOff) -> &AtomicU64 {
        let hash = (home.0 / 64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        &self.entries[(hash >> 40) as usize % self.entries.len()]
    }

    const fn tag(home: PoolOff, version: u64) -> u64 {
        (home.0 / 64).wrapping_mul(0xd6e8_feb8_6659_fd93).rotate_left(29)
            ^ version.wrapping_mul(0xff51_afd7_ed55_8ccd)
            | 1
    }

    pub fn note(&self, home: PoolOff, version: u64) {
        self.place(home).store(Self::tag(home, version), Ordering::Relaxed);
    }

    pub fn has(&self, home: PoolOff, version: u64) -> bool {
        self.place(home).load(Ordering::Relaxed) == Self::tag(home, version)
    }
}
