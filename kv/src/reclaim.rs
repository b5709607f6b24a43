//! Which space did a crash, or a dropped tree, leave behind without anybody to name it?
//!
//! A change that power cut off leaves a slot with half a record; a split that was not finished leaves pages; so do the lists of batches, and the
//! ordered index of a tree that was dropped. None of it is looked for at open, which takes no longer than it must. [`Db::compact`](crate::Db::compact)
//! finds it: all runs that the maps of pages have, less those that somebody names.
//!
//! Invariants:
//! 1. A slot with half a record, or a damaged one, is free if the index does not name it. It was so at open, and nobody was given it since: who
//!    supersedes the damaged record of a key takes its slot out of the lost ones, under the key's lock (`Sweep::is_handed`).
//! 2. A run is freed if it was there before its possible owners were asked, none of them named it, and it was not taken or given
//!    back meanwhile ([`Watch`]). Who takes a run names it, or gives it back, before he lets go of the lock that he is asked under; who gives one
//!    back notes it afterwards, under the same lock: he may have begun before anybody looked.

use crate::chunks::{self, ChunkKind};
use crate::core::Core;
#[cfg(feature = "sim")]
use crate::db::Db;
use crate::epoch::full_fence;
use crate::error::Result;
use crate::heap::{CLASSES, LARGEST, slot_bytes};
use crate::media::Media;
use crate::mutation::{self, Mutation};
use crate::pages;
use crate::session::Old;
use daxstore::sync::Mutex;
use daxstore::sync::atomic::{AtomicBool, Ordering};
use std::collections::HashSet;

/// Which runs were taken or given back while somebody looks.
#[derive(Debug, Default)]
pub struct Watch {
    is_on: AtomicBool,
    seen: Mutex<HashSet<u64>>,
}

impl Watch {
    /// Notes that the run at `at` was taken or given back. Who looks and found it in a map before that, sees this note when he was at the
    /// lock under which it was done.
    #[inline]
    pub fn note(&self, at: u64) {
        full_fence();
        if self.is_on.load(Ordering::SeqCst) && !mutation::is(Mutation::NoWatch) {
            self.seen.lock().insert(at);
        }
    }

    fn begin(&self) {
        self.seen.lock().clear();
        self.is_on.store(true, Ordering::SeqCst);
        full_fence();
    }

    fn end(&self) {
        self.is_on.store(false, Ordering::SeqCst);
    }
}

/// What is named by nobody, so far as is known.
struct Unnamed(HashSet<u64>);

impl Unnamed {
    fn name(&mut self, at: u64) {
        self.0.remove(&at);
    }
}

impl<M: Media> Core<M> {
    /// Frees the slots and runs whose records could not be read when they were swept, and which the index does not name.
    pub(crate) fn free_lost_slots(&self) -> Result<()> {
        let asked = self.sweep.lost();
        if asked.is_empty() {
            return Ok(());
        }
        let mut unnamed = asked.clone();
        // Where that fails nobody knows what the rest of the index names.
        self.index.each_segment(self.media(), &self.stripes, |entries| {
            for (_, at) in entries {
                if !mutation::is(Mutation::FreeNamed) {
                    unnamed.remove(at);
                }
            }
        })?;
        // What is named stays: its key's damage is told of when it is read, and its space is free when the key is overwritten.
        let lost = self.sweep.take_lost(&asked, &unnamed);
        // A damaged record may have been superseded ahead of the sweep a moment ago: it is needed as long as any other (K6).
        let sequence = self.last_sequence();
        let olds = lost.into_iter().map(|(class, at)| {
            let bytes = if class == CLASSES { LARGEST + 8 } else { slot_bytes(class) };
            Old { at, bytes, sequence, until: sequence, tombstone: false }
        });
        let mut taken = self.begin()?;
        taken.session.wait(olds.collect(), self.env.epochs.advance());
        Ok(())
    }

    /// Frees the runs of pages and chunks that nobody names.
    pub(crate) fn free_lost_pages(&self) -> Result<()> {
        self.env.watch.begin();
        let freed = self.find_lost_pages().and_then(|lost| {
            let seen = self.env.watch.seen.lock().clone();
            // One that is taken or given back from here on was named before.
            lost.0.difference(&seen).try_for_each(|at| self.env.free(*at))
        });
        self.env.watch.end();
        freed
    }

    fn find_lost_pages(&self) -> Result<Unnamed> {
        let mut unnamed = Unnamed(HashSet::new());
        for run in chunks::runs(self.media())? {
            match run.kind {
                ChunkKind::Directory | ChunkKind::List => drop(unnamed.0.insert(run.at())),
                ChunkKind::Index => {
                    unnamed.0.extend(pages::runs(self.media(), run.at())?.iter().map(|run| run.at));
                }
                ChunkKind::Pages => {
                    let runs = pages::runs(self.media(), run.at())?;
                    unnamed.0.extend(runs.iter().filter(|run| !run.kind.is_of_record()).map(|run| run.at));
                }
                _ => {}
            }
        }
        for taken in self.sessions.each() {
            taken.session.lists.all.iter().for_each(|(at, _)| unnamed.name(*at));
        }
        self.index.each_page(&self.env, |at| unnamed.name(at))?;
        for tree in self.trees.reachable() {
            tree.ordered.pages(|page| {
                if !mutation::is(Mutation::FreeOrdered) {
                    unnamed.name(page.at);
                }
            })?;
        }
        // Last: what ceased to be named since is here, or was given back.
        self.env.each_retired(|at| unnamed.name(at));
        Ok(unnamed)
    }
}

#[cfg(feature = "sim")]
impl<M: Media> Db<M> {
    /// Frees what nobody names, as [`Self::compact`] does in the course of it.
    ///
    /// # Errors
    /// As [`Self::compact`].
    pub fn free_lost(&self) -> Result<()> {
        let core = self.core();
        let _one = core.compacting.lock();
        core.drain_all()?;
        core.free_lost_slots()?;
        core.free_lost_pages()
    }

    /// Where the slots lie that hold records of so many bytes and are free, when nothing waits to be free any more.
    ///
    /// # Errors
    /// As [`Self::compact`].
    pub fn free_slots(&self, bytes: u64) -> Result<Vec<u64>> {
        let core = self.core();
        core.sweep_all()?;
        core.drain_all()?;
        core.give_all_slots();
        Ok(crate::heap::class_of(bytes).map_or_else(Vec::new, |class| core.heap.all(class)))
    }
}
