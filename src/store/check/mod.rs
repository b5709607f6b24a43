//! Do the media hold what they must?
//!
//! A check reads every structure in use from its home, whatever any cache says, and verifies each against the rules of
//! the media ([`FaultKind`] names them). Damage found in one place stops nothing elsewhere. The store must be quiet
//! meanwhile. Work and memory are proportional to what is used: one object for each GiB, and the chunks, arenas,
//! inodes and records in use.

mod inodes;
mod media;
mod names;
mod report;
mod slots;
mod space;

pub use report::{CheckReport, Fault, FaultKind, Phase, Progress, Repair};

use super::Store;
use crate::error::Result;
use crate::layout::{Counters, Kind, SUPERBLOCK_A, SUPERBLOCK_B, SUPERBLOCK_BYTES, Superblock};
use crate::units::PoolOff;
use inodes::Checker;
use media::Media;
use report::Faults;
use slots::NodeSlots;
use space::Chunks;

impl Store {
    /// Checks every rule of the media, and changes nothing. No call may be in flight meanwhile, else what it changes
    /// can look like a fault.
    ///
    /// # Errors
    /// None for damage, which the report tells of.
    pub fn check(&self) -> Result<CheckReport> {
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
            faults.error(FaultKind::Superblock, at, None, &error);
        }
    }
    if Superblock::decode(SUPERBLOCK_A, &first).is_ok_and(|found| found == *expected) && first == second {
        return;
    }
    for (at, bytes) in [(SUPERBLOCK_A, &first), (SUPERBLOCK_B, &second)] {
        match Superblock::decode(at, bytes) {
            Ok(found) if found == *expected => {}
            Ok(found) => {
                faults.number(FaultKind::Superblock, at, None, expected.sequence, found.sequence);
            }
            Err(error) => faults.error(FaultKind::Superblock, at, None, &error),
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
    checker.check_leaked_nodes();
    checker.report.blocks_used = checker.chunks.compare(&media, &mut checker.faults);
    checker.check_totals();
    checker
}

impl Checker<'_> {
    /// Checks that intents are about inodes.
    fn check_intents(&mut self) {
        for i in 0..self.intents.len() {
            let (ino, _) = self.intents[i];
            if self.find(ino).is_none() || ino == self.media.intents {
                let at = self.media.intents.offset();
                self.faults.number(FaultKind::IntentDangling, at, Some(ino), "an inode in use", "none");
            }
        }
    }

    /// Checks the nodes that belong to no tree.
    fn check_leaked_nodes(&mut self) {
        for at in self.nodes.unseen() {
            if self.lost.iter().any(|lost| lost.at == at) {
                continue;
            }
            match self.media.read(at, Kind::Node) {
                Ok(_) => self.faults.number(FaultKind::NodeLeaked, at, None, "a tree", "a node of none"),
                Err(damage) => self.faults.damage(FaultKind::Slot, &damage, None),
            }
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
                self.faults.number(kind, lane, None, expected, found);
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
                    self.faults.damage(FaultKind::LaneCounters, &damage, None);
                    sum = None;
                }
            }
        }
        sum
    }

    /// What was found, with the paths of what is wrong.
    fn into_report(mut self) -> CheckReport {
        let mut faults = std::mem::take(&mut self.faults.0);
        for fault in &mut faults {
            fault.path = fault.ino.and_then(|ino| self.path(ino));
        }
        self.report.faults = faults;
        self.report
    }
}
