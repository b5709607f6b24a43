//! How is a damaged pool mended?
//!
//! In rounds: a check, then the remedies of the earliest stage that has any, then a check again, until nothing is left
//! or nothing helps. Every change of an object that is in use is a journal record, so a crash leaves a pool that can be
//! repaired again. Nothing is guessed: what can not be read is taken out and named as lost.

use super::media::{MAX_VERSION, Media};
use super::mend::Mender;
use super::remedy::{Remedy, Stage};
use super::report::{CheckReport, Fault, FaultKind, Faults, Found, Phase, Progress, Repair};
use super::{Checker, check, check_superblocks};
use crate::alloc::Space;
use crate::error::{Error, Result};
use crate::journal::{Copies, Journal};
use crate::layout::{Counters, Image, SUPERBLOCK_A, SUPERBLOCK_B, Superblock};
use crate::pmem::{Durable, Region};
use crate::store::StoreOptions;
use crate::sync::Arc;
use crate::units::{Ino, PoolOff};
use std::collections::HashMap;
use std::path::Path;

/// Rounds after which a repair gives up.
const MAX_ROUNDS: u32 = 24;
/// How often one remedy is tried.
const MAX_TRIES: u32 = 2;
/// Bytes of a record that one more descriptor may need.
const ROOM_LEFT: u64 = 256;

/// Checks the pool at `path`, which nobody has open, and with `repair` mends what can be mended without guessing. The
/// journal is recovered first, unless `options` open the pool read-only. With `repair` the report has the faults found
/// at first and those that came to light while mending, each with its outcome.
///
/// # Errors
/// [`Error::NotAPool`], [`Error::Held`], [`Error::Truncated`], both superblocks damaged, [`Error::NeedsRecovery`] for
/// a read-only check of a pool that was not closed, [`Error::ReadOnly`] for a read-only repair, errors of the system.
pub fn check_path(
    path: impl AsRef<Path>,
    repair: bool,
    options: &StoreOptions,
    progress: &dyn Fn(Progress),
) -> Result<CheckReport> {
    check_region(Arc::new(Region::open_file(path, &options.region)?), repair, progress)
}

/// As [`check_path`], of the pool in simulated memory.
///
/// # Errors
/// As there.
#[cfg(feature = "sim")]
pub fn check_sim(sim: Arc<crate::pmem::sim::Sim>, repair: bool) -> Result<CheckReport> {
    check_region(Arc::new(Region::sim(sim)), repair, &|_| ())
}

/// As [`check_path`], of the pool in `region`.
///
/// # Errors
/// As there.
pub(super) fn check_region(
    region: Arc<Region>,
    repair: bool,
    progress: &dyn Fn(Progress),
) -> Result<CheckReport> {
    let read_only = region.info().read_only;
    if repair && read_only {
        return Err(Error::ReadOnly);
    }
    let mut faults = Faults::default();
    broken_copies(&region, &mut faults)?;
    let superblock = if read_only { Journal::clean_superblock(&region)? } else { Journal::recover(&region)? };
    if superblock.root == Ino(0) {
        return Err(Error::NotAPool);
    }
    if faults.0.is_empty() {
        check_superblocks(&region, &superblock, &mut faults);
    }
    let mut repairer = Repairer {
        region,
        journal: None,
        superblock,
        faults: Vec::new(),
        known: HashMap::new(),
        second_tries: 2,
    };
    repairer.run(faults, repair, progress)
}

/// Notes copies of the superblock that are broken before recovery writes both.
fn broken_copies(region: &Region, faults: &mut Faults) -> Result<()> {
    let Copies { a, b } = Copies::read(region)?;
    let one_is_sound = a.is_ok() || b.is_ok();
    for (at, copy) in [(SUPERBLOCK_A, a), (SUPERBLOCK_B, b)] {
        if let Err(error) = copy
            && one_is_sound
        {
            faults.error(FaultKind::Superblock, at, None, &error).by(Remedy::Rewritten);
        }
    }
    Ok(())
}

/// What makes a fault the same in the next round.
type Key = (FaultKind, PoolOff, Option<Ino>, String);

fn key(fault: &Fault) -> Key {
    (fault.kind, fault.at, fault.ino, fault.what.clone())
}

struct Repairer {
    region: Arc<Region>,
    /// Opened once its counters can be read.
    journal: Option<Arc<Journal>>,
    superblock: Superblock,
    /// Every fault of any round.
    faults: Vec<Fault>,
    /// Where in `faults` each is, and how often a remedy was tried.
    known: HashMap<Key, (usize, u32)>,
    /// How often what did not help may still be tried again.
    second_tries: u32,
}

impl Repairer {
    fn run(&mut self, first: Faults, repair: bool, progress: &dyn Fn(Progress)) -> Result<CheckReport> {
        let region = self.region.clone();
        let mut before = first;
        for round in 0.. {
            let mut checker = check(self.media(&region), std::mem::take(&mut before), progress);
            let found = checker.take_found();
            let open = self.note(&found);
            let stage = found.iter().zip(&open).filter(|(_, (_, tries))| *tries < MAX_TRIES);
            let stage = stage.filter_map(|(found, _)| found.remedy.stage()).min();
            let Some(stage) = stage.filter(|_| repair && round < MAX_ROUNDS) else {
                return self.finish(checker, &found, repair, round);
            };
            progress(Progress { phase: Phase::Repair, done: u64::from(round), total: u64::from(MAX_ROUNDS) });
            self.apply(stage, &checker, &found, &open)?;
        }
        Err(Error::InvalidArgument("a repair without end"))
    }

    fn media<'r>(&self, region: &'r Region) -> Media<'r> {
        let superblock = self.journal.as_ref().map_or_else(|| self.superblock.clone(), |j| j.superblock());
        Media {
            region,
            seed: superblock.seed,
            geometry: superblock.geometry,
            root: superblock.root,
            intents: superblock.intents,
        }
    }

    /// Takes the faults of a round in; where each is noted, and how often it was worked on.
    fn note(&mut self, found: &[Found]) -> Vec<(usize, u32)> {
        let mut places = Vec::new();
        for Found { fault, remedy } in found {
            let next = self.faults.len();
            let place = *self.known.entry(key(fault)).or_insert((next, 0));
            if place.0 == next {
                let mut fault = fault.clone();
                if matches!(remedy, Remedy::Rewritten) && !self.region.info().read_only {
                    fault.outcome = Some(Repair::Mended);
                }
                self.faults.push(fault);
            }
            places.push(place);
        }
        places
    }

    /// Applies the remedies of `stage`.
    fn apply(
        &mut self,
        stage: Stage,
        checker: &Checker<'_>,
        found: &[Found],
        open: &[(usize, u32)],
    ) -> Result<()> {
        let with_place = found.iter().zip(open);
        let mut now: Vec<_> = with_place
            .filter(|(found, (_, tries))| found.remedy.stage() == Some(stage) && *tries < MAX_TRIES)
            .map(|(found, (place, _))| (found.remedy, *place, key(&found.fault)))
            .collect();
        now.sort_by_key(|(remedy, ..)| remedy.order());
        let mender = match stage {
            Stage::First => None,
            _ => Some(Mender::new(checker, Arc::new(Space::new(self.journal()?)?))),
        };
        let wholesale = match (&mender, stage) {
            (Some(mender), Stage::Marks) => Some(write_marks(mender, true)),
            (Some(mender), Stage::Leaks) => Some(self.free_leaks(mender, &now)),
            _ => None,
        };
        for (remedy, place, key) in now {
            let outcome = match (&wholesale, &mender) {
                (Some(Ok(())), _) => Ok(None),
                (Some(Err(error)), _) => Err(error.to_string()),
                (None, Some(mender)) => mender.apply(remedy).map_err(|error| error.to_string()),
                (None, None) => self.first_aid(remedy).map_err(|error| error.to_string()),
            };
            if let Some((_, tries)) = self.known.get_mut(&key) {
                *tries += 1;
            }
            self.faults[place].outcome = Some(match outcome {
                Ok(None) => Repair::Mended,
                Ok(Some(lost)) => Repair::Lost(lost),
                Err(why) => Repair::Left(why),
            });
        }
        if stage == Stage::Leaks && self.second_tries > 0 {
            // There may be room now for what had none.
            self.second_tries -= 1;
            self.known.values_mut().for_each(|(_, tries)| *tries = 0);
        }
        Ok(())
    }

    /// The journal, opened for the first change that goes through it.
    fn journal(&mut self) -> Result<Arc<Journal>> {
        if let Some(journal) = &self.journal {
            return Ok(journal.clone());
        }
        let journal = Arc::new(Journal::open(self.region.clone())?.0);
        self.journal = Some(journal.clone());
        Ok(journal)
    }

    /// What is done before the journal can be opened: no valid record names anything now.
    fn first_aid(&self, remedy: Remedy) -> Result<Option<String>> {
        if let Remedy::Lane(at) = remedy {
            let mut image = Counters::default().encode();
            let version = self.region.load(at)?;
            image.seal(self.superblock.seed, at, if version < MAX_VERSION { version + 1 } else { 1 });
            self.region.store(at, image.bytes())?;
            self.region.flush(at, image.bytes().len() as u64)?;
            self.region.fence()?;
        }
        Ok(None)
    }

    /// Frees slots and blocks that nobody owns, and sets the totals to what was counted.
    fn free_leaks(&self, mender: &Mender<'_>, now: &[(Remedy, usize, Key)]) -> Result<()> {
        let slots = now.iter().filter_map(|(remedy, ..)| match remedy {
            Remedy::FreeSlot(at) => Some((*at, Image::new(crate::layout::Kind::Free, 16))),
            _ => None,
        });
        write_all(mender, slots.collect())?;
        write_marks(mender, false)?;
        let (journal, checker) = (mender.journal(), mender.checker);
        let found = journal.totals();
        let mut tx = journal.begin();
        tx.count(Counters {
            used: checker.chunks.owned() as i64 - found.used,
            unwritten: checker.report.blocks_unwritten as i64 - found.unwritten,
            inodes: checker.inodes.len() as i64 - found.inodes,
        });
        tx.commit(Durable::no_data())
    }

    /// The report of the last check, with every fault of any round.
    fn finish(
        &mut self,
        checker: Checker<'_>,
        last: &[Found],
        repair: bool,
        rounds: u32,
    ) -> Result<CheckReport> {
        let mut faults = std::mem::take(&mut self.faults);
        if repair {
            let left: Vec<_> = last.iter().filter_map(|found| self.known.get(&key(&found.fault))).collect();
            for (place, _) in left {
                let fault = &mut faults[*place];
                let is_rewritten = matches!(fault.outcome, Some(Repair::Mended)) && rounds == 0;
                if !matches!(fault.outcome, Some(Repair::Left(_))) && !is_rewritten {
                    let why = match fault.kind {
                        FaultKind::LostBytes => "nothing but those bytes mends it; write them again",
                        _ => "no remedy helped",
                    };
                    fault.outcome = Some(Repair::Left(why.into()));
                }
            }
            faults.iter_mut().for_each(|fault| {
                fault.outcome.get_or_insert(Repair::Mended);
            });
        }
        if let Some(journal) = &self.journal {
            journal.quiesce()?;
        }
        Ok(CheckReport { faults, repair_rounds: rounds, ..checker.report })
    }
}

fn write_marks(mender: &Mender<'_>, keep: bool) -> Result<()> {
    write_all(mender, mender.checker.chunks.rebuilt(&mender.checker.media, keep))
}

/// Writes objects, in order, in as many records as it takes.
fn write_all(mender: &Mender<'_>, writes: Vec<(PoolOff, Image)>) -> Result<()> {
    let mut writes = writes.into_iter().peekable();
    while writes.peek().is_some() {
        let mut tx = mender.journal().begin();
        while tx.room() >= ROOM_LEFT
            && let Some((at, image)) = writes.next()
        {
            mender.sane_version(at)?;
            tx.stage(at, image)?;
        }
        tx.commit(Durable::no_data())?;
    }
    Ok(())
}
