//! Which slots were free when the database was opened?
//!
//! Nobody wrote that down. When a session wants a slot of a class, some slots of the slabs that were there at open are looked at: one whose
//! record the index does not name is free, after everything that waits for the others' sake. Each slot is looked at once.
//!
//! Invariants:
//! 1. A slot ahead of the sweep is nobody's to free but the sweep's; one behind it is freed by who supersedes it. Both are decided under
//!    the lock of the record's key: never by both, never by neither.
//! 2. No slot of a slab that waits to be swept is given out.
//! 3. A slot whose record could not be read is lost, until the index is asked for it (`reclaim`) or its record is superseded: both are
//!    decided under the lock of the record's key.

use crate::core::Core;
use crate::error::Result;
use crate::heap::{CLASSES, class_of, slot_bytes, slots};
use crate::inherited::Inherited;
use crate::layout::{CHUNK, PAGE};
use crate::media::Media;
use crate::mutation::{self, Mutation};
use crate::record::{self, Head, TOMBSTONE};
use crate::session::{Old, Session};
use daxstore::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use daxstore::sync::{Arc, Mutex};
use std::collections::{HashMap, HashSet};

/// Slots that one call looks at.
const STEP: usize = 128;

/// Chunks that one call reads the maps of.
const MAPS: usize = 8;

/// How far the slabs of one class (the last: runs of one record) that were there at open were looked at.
#[derive(Debug, Default)]
struct Class {
    /// The next slab, and slot in it.
    next: Mutex<(usize, u64)>,
    /// Slots below were looked at; the greatest number: all were.
    boundary: AtomicU64,
}

/// The sweep.
#[derive(Debug)]
pub struct Sweep {
    classes: Box<[Class]>,
    inherited: Arc<Inherited>,
    /// Slots with half a record or a damaged one, and their classes.
    lost: Mutex<HashMap<u64, usize>>,
    any_lost: AtomicBool,
}

impl Sweep {
    /// Of a database in which nothing is looked for.
    #[must_use]
    pub fn none() -> Self {
        Self::of(Arc::new(Inherited::of(&[])))
    }

    /// Of a database that had this at open.
    #[must_use]
    pub fn of(inherited: Arc<Inherited>) -> Self {
        let first = inherited.frontier();
        let class = || Class { next: Mutex::default(), boundary: AtomicU64::new(first) };
        let classes = (0..=CLASSES).map(|_| class()).collect();
        Self { classes, inherited, lost: Mutex::default(), any_lost: AtomicBool::new(false) }
    }

    /// Where the slots lie whose records could not be read.
    pub fn lost(&self) -> HashSet<u64> {
        self.lost.lock().keys().copied().collect()
    }

    /// Takes the slots that were `asked` for out, and gives those that are still lost and `unnamed`, each with its class: the caller frees them.
    /// The others are named by the index, and nobody asks for them again.
    pub fn take_lost(&self, asked: &HashSet<u64>, unnamed: &HashSet<u64>) -> Vec<(usize, u64)> {
        let mut lost = self.lost.lock();
        let taken = asked.iter().filter_map(|at| Some((lost.remove(at)?, *at)));
        let taken = taken.filter(|(_, at)| unnamed.contains(at)).collect();
        self.any_lost.store(!lost.is_empty(), Ordering::Release);
        taken
    }

    /// Hands the slot of the record at `at` to who superseded it, and now frees it, unless it is ahead of the sweep, which does that then. The
    /// caller has the lock of the record's key, and the index does not name the record any more.
    #[inline]
    pub fn is_handed(&self, at: u64, bytes: u64) -> bool {
        let class = class_of(bytes).unwrap_or(CLASSES);
        let boundary = self.classes[class].boundary.load(Ordering::Acquire);
        let is_behind = at < boundary || !self.inherited.holds(at, class);
        if is_behind && self.any_lost.load(Ordering::Acquire) && !mutation::is(Mutation::FreeLostTwice) {
            self.lost.lock().remove(&at);
        }
        is_behind
    }

    fn lose(&self, class: usize, at: u64) {
        self.lost.lock().insert(at, class);
        self.any_lost.store(true, Ordering::Release);
    }
}

impl<M: Media> Core<M> {
    /// Looks at some slots of `class` (that of runs: the number of classes): whether any were left. What is free begins to wait.
    ///
    /// # Errors
    /// Damage of the index.
    pub fn sweep(&self, session: &mut Session, class: usize) -> Result<bool> {
        let sweep = &self.sweep.classes[class];
        if sweep.boundary.load(Ordering::Acquire) == u64::MAX {
            return Ok(false);
        }
        let Some(mut next) = sweep.next.try_lock() else { return Ok(false) };
        let (slots, bytes) = if class == CLASSES { (1, CHUNK) } else { (slots(class), slot_bytes(class)) };
        let (mut free, mut maps) = (Vec::new(), 0);
        for _ in 0..STEP {
            let (slab, slot) = *next;
            let inherited = &self.sweep.inherited;
            let is_read = inherited.frontier() == u64::MAX;
            let Some(first) = inherited.slab(class, slab) else {
                if is_read {
                    sweep.boundary.store(u64::MAX, Ordering::Release);
                }
                if is_read || maps == MAPS {
                    break;
                }
                maps += 1;
                self.env.pages.read_next(self.media())?;
                continue;
            };
            let at = first + slot * bytes;
            *next = if slot + 1 == slots { (slab + 1, 0) } else { (slab, slot + 1) };
            // Up to the next slab there is none of the class.
            let boundary = if class == CLASSES { at + PAGE } else { at + bytes };
            let publish = || sweep.boundary.store(boundary, Ordering::Release);
            if let Some(old) = self.look_at_slot(session, class, at, publish)? {
                // Whatever superseded it has its number by now.
                let sequence = self.last_sequence();
                let until = old.until.max(sequence);
                free.push(Old { sequence: old.sequence.max(sequence), until, ..old });
            }
        }
        session.wait(free, self.env.epochs.advance());
        Ok(true)
    }

    /// Looks at every slot that was not looked at.
    ///
    /// # Errors
    /// As [`Self::sweep`].
    pub fn sweep_all(&self) -> Result<()> {
        for class in 0..=CLASSES {
            loop {
                let mut taken = self.begin()?;
                if !self.sweep(&mut taken.session, class)? {
                    break;
                }
            }
        }
        Ok(())
    }

    /// What begins to wait of the slot at `at`. `publish` tells that it was looked at.
    fn look_at_slot(
        &self,
        session: &mut Session,
        class: usize,
        at: u64,
        publish: impl Fn(),
    ) -> Result<Option<Old>> {
        let media = &self.env.media;
        let head = Head::load(media, at);
        if head.first == 0 {
            publish();
            return self.never_used(class, at);
        }
        let Ok(record) = record::read(media, self.salt, at) else {
            // Torn when power was cut, or damaged since and still named: who asks the whole index can say.
            self.sweep.lose(class, at);
            publish();
            return Ok(None);
        };
        let bytes = head.bytes();
        let old = |tombstone| Old { at, bytes, sequence: head.sequence(), until: head.sequence(), tombstone };
        let _held = self.stripes.lock(record.hash);
        let named = self.index.names(media, record.hash, at)?.is_some();
        publish();
        if !named {
            return Ok(Some(old(false)));
        }
        if head.is(TOMBSTONE) {
            session.supersede(old(true));
        }
        Ok(None)
    }

    /// A slot that never held a record is free.
    fn never_used(&self, class: usize, at: u64) -> Result<Option<Old>> {
        if class == CLASSES {
            self.env.free(at)?;
            return Ok(None);
        }
        Ok(Some(Old { at, bytes: slot_bytes(class), sequence: 0, until: 0, tombstone: false }))
    }
}
