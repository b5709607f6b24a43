//! Do the media hold what they must?
//!
//! A check reads every structure in use from its home, whatever any cache says, and verifies each against the rules of
//! the media ([`FaultKind`] names them). Damage found in one place stops nothing elsewhere. The store must be quiet
//! meanwhile. Work and memory are proportional to what is used: one object for each GiB, and the chunks, arenas,
//! inodes and records in use.

mod inodes;
mod marks;
mod media;
mod mend;
mod names;
mod reattach;
mod remedy;
mod repair;
mod report;
mod shares;
mod slots;
mod space;
#[cfg(test)]
mod tests;

pub use repair::check_path;
#[cfg(feature = "sim")]
pub use repair::check_sim;
pub use report::{CheckReport, Fault, FaultKind, Phase, Progress, Repair};

use super::Store;
use crate::error::Result;
use crate::layout::{Counters, FileKind, Kind, SUPERBLOCK_A, SUPERBLOCK_B, SUPERBLOCK_BYTES, Superblock};
use crate::units::PoolOff;
use inodes::{CLEAN_UP, Checker, RANGE, SNAPSHOT, Which};
use media::Media;
use remedy::Remedy;
use report::{Faults, Found};
use shares::Owners;
use slots::NodeSlots;
use space::Chunks;

impl Store {
    /// Checks every rule of the media, and changes nothing. No call may be in flight meanwhile, else what it changes
    /// can look like a fault.
    ///
    /// # Errors
    /// None for damage, which the report tells of.
    pub fn check(&self) -> Result<CheckReport> {
        // What waits has blocks that the media do not know.
        crate::io::settle(&self.inner.fs)?;
        let journal = self.inner.fs.journal();
        let superblock = journal.superblock();
        let mut faults = Faults::default();
        check_superblocks(journal.region(), &superblock, &mut faults);
        let media = Media {
            region: journal.region(),
            seed: journal.seed(),
            geometry: superblock.geometry,
            root: superblock.root,
            intents: superblock.intents,
        };
        Ok(check(media, faults, &|_| ()).into_report())
    }
}

/// Compares both superblocks with `expected`.
fn check_superblocks(region: &crate::pmem::Region, expected: &Superblock, faults: &mut Faults) {
    let (mut first, mut second) = ([0; SUPERBLOCK_BYTES], [0; SUPERBLOCK_BYTES]);
    for (at, bytes) in [(SUPERBLOCK_A, &mut first), (SUPERBLOCK_B, &mut second)] {
        if let Err(error) = region.read(at, bytes) {
            faults.error(FaultKind::Superblock, at, None, &error).by(Remedy::Rewritten);
        }
    }
    if Superblock::decode(SUPERBLOCK_A, &first).is_ok_and(|found| found == *expected) && first == second {
        return;
    }
    for (at, bytes) in [(SUPERBLOCK_A, &first), (SUPERBLOCK_B, &second)] {
        match Superblock::decode(at, bytes) {
            Ok(found) if found == *expected => {}
            Ok(found) => {
                let found = faults.number(FaultKind::Superblock, at, None, expected.sequence, found.sequence);
                found.by(Remedy::Rewritten);
            }
            Err(error) => faults.error(FaultKind::Superblock, at, None, &error).by(Remedy::Rewritten),
        }
    }
}

/// Checks the pool; `faults` are those found before.
fn check<'r>(media: Media<'r>, faults: Faults, progress: &'r dyn Fn(Progress)) -> Checker<'r> {
    let mut checker = Checker {
        media,
        faults,
        chunks: Chunks::default(),
        nodes: NodeSlots::default(),
        inodes: Vec::new(),
        unreadable: Vec::new(),
        intents: Vec::new(),
        owners: Owners::default(),
        lost: Vec::new(),
        report: CheckReport::default(),
        progress,
    };
    checker.chunks = Chunks::load(&media, &mut checker.faults);
    checker.nodes = NodeSlots::load(&media, &checker.chunks, &mut checker.faults);
    checker.read_intents();
    checker.read_inodes();
    checker.read_directories();
    checker.check_links();
    checker.check_intents();
    checker.check_shares();
    checker.check_leaked_nodes();
    checker.report.blocks_used = checker.chunks.compare(&media, &mut checker.faults);
    checker.check_totals();
    checker
}

impl Checker<'_> {
    /// Checks that intents are about inodes.
    fn check_intents(&mut self) {
        for i in 0..self.intents.len() {
            let (ino, mask) = self.intents[i];
            let owner = self.media.intents;
            let found = self.find(ino).filter(|_| ino != owner).map(|i| self.inodes[i].kind);
            let kinds = [
                (CLEAN_UP, 0, "clean up", None),
                (RANGE, 1, "change a range", Some(FileKind::Regular)),
                (SNAPSHOT, 2, "remove a snapshot", Some(FileKind::Directory)),
            ];
            for (bit, slot, kind, of) in kinds {
                let fits = found.is_some_and(|found| of.is_none_or(|of| of == found));
                if mask & bit != 0 && !fits {
                    let key = ino.0.wrapping_mul(4) | slot;
                    let found = format_args!("an intent to {kind} number {ino}");
                    let remedy = Remedy::Drop { ino: owner, which: Which::Content, key };
                    let at = owner.offset();
                    self.faults
                        .number(FaultKind::IntentDangling, at, None, "an inode in use", found)
                        .by(remedy);
                }
            }
        }
    }

    /// Checks the nodes that belong to no tree.
    fn check_leaked_nodes(&mut self) {
        self.lost.sort_unstable();
        for at in self.nodes.unseen() {
            if self.lost.binary_search(&at).is_ok() {
                continue;
            }
            let found = match self.media.read(at, Kind::Node) {
                Ok(_) => self.faults.number(FaultKind::NodeLeaked, at, None, "a tree", "a node of none"),
                Err(damage) => self.faults.damage(FaultKind::Slot, &damage, None),
            };
            found.by(Remedy::FreeSlot(at));
        }
    }

    /// Compares the lanes' counters with what was counted.
    fn check_totals(&mut self) {
        let Some(found) = self.totals() else { return };
        let lane = self.media.geometry.lane(0);
        let inodes = (self.inodes.len() + self.unreadable.len()) as i64;
        let counted = [
            (FaultKind::UsedTotal, self.report.blocks_used as i64, found.used),
            (FaultKind::UnwrittenTotal, self.report.blocks_unwritten as i64, found.unwritten),
            (FaultKind::InodeTotal, inodes, found.inodes),
        ];
        for (kind, expected, found) in counted {
            let known = kind != FaultKind::UsedTotal || self.chunks.all_known();
            if known && expected != found {
                self.faults.number(kind, lane, None, expected, found).by(Remedy::Leaks);
            }
        }
    }

    /// The sum of the lanes' counters, if all could be read.
    fn totals(&mut self) -> Option<Counters> {
        let mut sum = Some(Counters::default());
        for lane in 0..self.media.geometry.lanes {
            let at: PoolOff = self.media.geometry.lane(lane);
            if matches!(self.media.header(at), Ok([0, 0])) {
                continue;
            }
            match self.media.read(at, Kind::Lane) {
                Ok(image) => sum = sum.map(|sum| sum.plus(Counters::decode(&image))),
                Err(damage) => {
                    self.faults.damage(FaultKind::LaneCounters, &damage, None).by(Remedy::Lane(at));
                    sum = None;
                }
            }
        }
        sum
    }

    /// What was found, with the paths of what is wrong.
    fn take_found(&mut self) -> Vec<Found> {
        let mut found = std::mem::take(&mut self.faults.0);
        for Found { fault, .. } in &mut found {
            fault.path = fault.ino.and_then(|ino| self.path(ino));
        }
        found
    }

    fn into_report(mut self) -> CheckReport {
        let faults = self.take_found().into_iter().map(|found| found.fault).collect();
        CheckReport { faults, ..self.report }
    }
}
