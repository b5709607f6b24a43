//! What did the last run leave undone?
//!
//! Work proportional to the lanes, never to the pool. In every lane the valid records of the superblock's epoch
//! are collected; for each object the image with the highest version is applied if it is not below the home's.
//! No order across records is needed, and doing it twice is doing it once. J10: apply, flush, fence, then the
//! next epoch in both superblocks, one after the other; only then does anything else happen.

use super::record::{Origin, Record};
use super::superblock;
use crate::error::{Damage, Result, Structure};
use crate::layout::{Superblock, get64};
use crate::pmem::Region;
use crate::pmem::mutation::{self, Mutation};
use crate::units::PoolOff;
use std::collections::BTreeMap;

/// What recovery found and did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Valid journal records found.
    pub records: u64,
    /// Objects whose newest image was written home: those whose home was behind, and those that had that version
    /// already and might be torn.
    pub objects: u64,
    /// Unfinished operations that were finished (orphans, trims, long changes).
    pub intents: u64,
    /// How long it all took, in nanoseconds.
    pub nanos: u64,
}

/// The newest images of the lanes, by home.
struct Newest {
    rings: Vec<u8>,
    /// Home to (version, where the image's bytes start in `rings`, their length); ascending, so that recovery does the
    /// same each time.
    images: BTreeMap<PoolOff, (u64, usize, usize)>,
    records: u64,
}

fn collect(region: &Region, superblock: &Superblock) -> Result<Newest> {
    let geometry = superblock.geometry;
    let ring_bytes = geometry.ring_bytes() as usize;
    let mut newest =
        Newest { rings: vec![0; ring_bytes * geometry.lanes as usize], images: BTreeMap::new(), records: 0 };
    for lane in 0..geometry.lanes {
        let base = lane as usize * ring_bytes;
        region.read(geometry.ring(lane), &mut newest.rings[base..base + ring_bytes])?;
        let origin = Origin { seed: superblock.seed, epoch: superblock.epoch, lane };
        collect_lane(&mut newest, base, ring_bytes, origin);
    }
    Ok(newest)
}

fn collect_lane(newest: &mut Newest, base: usize, ring_bytes: usize, origin: Origin) {
    let ring = &newest.rings[base..base + ring_bytes];
    let mut at = 0;
    while at < ring_bytes {
        let Some(record) = Record::parse(&ring[at..], origin) else {
            at += 64;
            continue;
        };
        newest.records += 1;
        for (home, bytes) in record.images() {
            let start = bytes.as_ptr() as usize - newest.rings.as_ptr() as usize;
            let found = (get64(bytes, 0), start, bytes.len());
            let best = newest.images.entry(home).or_insert(found);
            if found.0 > best.0 {
                *best = found;
            }
        }
        at += record.len().next_multiple_of(64);
    }
}

/// Whether an object can have its home at `at`: outside the superblocks and the rings.
fn is_home(superblock: &Superblock, at: PoolOff, len: usize) -> bool {
    let geometry = &superblock.geometry;
    let in_lanes = at >= geometry.lane(0) && at < geometry.lane(geometry.lanes);
    let is_counters = (at.0.wrapping_sub(geometry.lane(0).0)).is_multiple_of(u64::from(geometry.lane_bytes))
        && len as u64 <= crate::layout::LANE_COUNTER_BYTES;
    let on_superblock = at.block().0 == 0 || at.block() == crate::layout::SUPERBLOCK_B.block();
    at.0 + len as u64 <= geometry.size && !on_superblock && (!in_lanes || is_counters)
}

/// Whether the lanes hold anything that the homes lack.
///
/// # Errors
/// Damage.
pub(super) fn is_needed(region: &Region, superblock: &Superblock) -> Result<bool> {
    let newest = collect(region, superblock)?;
    for (home, (version, start, len)) in &newest.images {
        let mut found = vec![0; *len];
        region.read(*home, &mut found)?;
        if get64(&found, 0) <= *version && found != newest.rings[*start..start + len] {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Brings every home up to date and starts the next epoch, of which the returned superblock tells.
///
/// # Errors
/// Damage of a record's content, errors of the medium.
pub(super) fn recover(region: &Region, superblock: &Superblock) -> Result<(Superblock, Recovery)> {
    let newest = collect(region, superblock)?;
    let mut objects = 0;
    if mutation::is(Mutation::EpochFirst) {
        let next = superblock::next_epoch(superblock);
        superblock::write(region, &next)?;
    }
    for (home, (version, start, len)) in &newest.images {
        if !is_home(superblock, *home, *len) {
            return Err(Damage::new(Structure::Record, *home, "home of an image", 0, home.0).into());
        }
        if region.load(*home)? <= *version {
            region.store(*home, &newest.rings[*start..start + len])?;
            region.flush(*home, *len as u64)?;
            objects += 1;
        }
    }
    if !mutation::is(Mutation::NoRecoveryFence) {
        region.fence()?;
    }
    let next = superblock::next_epoch(superblock);
    superblock::write(region, &next)?;
    Ok((next, Recovery { records: newest.records, objects, ..Recovery::default() }))
}
