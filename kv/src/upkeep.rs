//! How do slots become free again, and rings empty?
//!
//! Done by whoever changes something, in the course of it: when a group is full, when a session has no slot of a class, and at a close.
//! No lock of a key is held then.

use crate::chunks::Reserve;
use crate::core::Core;
use crate::error::{Error, Result};
use crate::heap::{CLASSES, class_of};
use crate::media::Media;
use crate::mutation::{self, Mutation};
use crate::record::{self, Head};
use crate::session::{Old, Session, Taken};
use daxstore::sync::atomic::Ordering;

/// Groups that wait for other sessions before these are looked after.
const PATIENCE: usize = 8;

impl<M: Media> Core<M> {
    /// Starts writing the session's group back: its lines are durable with the next fence.
    ///
    /// # Errors
    /// [`Error::NoSpace`] where the ordered index has none; damage.
    #[cold]
    pub(crate) fn write_back(&self, taken: &mut Taken<'_>) -> Result<()> {
        self.write_back_order(&mut taken.session)?;
        taken.session.flush(self.media());
        self.env.collect()?;
        self.collect(&mut taken.session)?;
        // A little with each group, so that what is free when the slots run out has waited long enough.
        if let Some(class) = taken.session.wanted
            && !self.sweep(&mut taken.session, class)?
        {
            taken.session.wanted = None;
        }
        let is_stuck = taken.session.waiting.len() > PATIENCE
            && taken.session.waiting.front().is_some_and(|first| first.sequence >= self.sessions.oldest());
        if is_stuck {
            self.drain_others(&taken.session)?;
        }
        Ok(())
    }

    /// Writes everything back of the sessions that nobody uses at the moment.
    ///
    /// # Errors
    /// As [`Self::drain`].
    pub(crate) fn drain_free(&self) -> Result<()> {
        self.sessions.each_free().try_for_each(|mut taken| self.drain(&mut taken))
    }

    /// Writes back what other sessions left, that nobody uses at the moment.
    fn drain_others(&self, own: &Session) -> Result<()> {
        let first = own.waiting.front().map_or(0, |first| first.sequence);
        for mut other in self.sessions.each_free() {
            if other.seen.oldest.load(Ordering::Acquire) <= first {
                self.drain(&mut other)?;
            }
        }
        Ok(())
    }

    /// Writes everything of a session back: its ring is empty then, durably.
    ///
    /// # Errors
    /// As [`Self::write_back`]; those of the fences.
    pub(crate) fn drain(&self, taken: &mut Taken<'_>) -> Result<()> {
        for _ in 0..4 {
            if taken.session.is_clean() && taken.seen.oldest.load(Ordering::Acquire) == u64::MAX {
                break;
            }
            if taken.session.is_idle() {
                self.write_back_order(&mut taken.session)?;
                taken.session.flush(self.media());
            }
            self.fence_idle(taken)?;
            self.fence_idle(taken)?;
        }
        self.collect(&mut taken.session)
    }

    fn fence_idle(&self, taken: &mut Taken<'_>) -> Result<()> {
        self.poison(self.media().fence())?;
        let epoch = || self.env.epochs.advance();
        taken.session.fenced(&self.env.media, taken.seen, u64::MAX, epoch);
        Ok(())
    }

    /// Writes everything of every session back.
    ///
    /// # Errors
    /// As [`Self::drain`].
    pub(crate) fn drain_all(&self) -> Result<()> {
        // What one takes out of the index is another group's: until nothing is left, or nothing can go.
        for _ in 0..4 {
            for mut taken in self.sessions.each() {
                self.drain(&mut taken)?;
            }
        }
        self.env.collect()
    }

    /// Frees what nothing needs any more.
    pub(crate) fn collect(&self, session: &mut Session) -> Result<()> {
        if session.waiting.is_empty() {
            return Ok(());
        }
        let oldest = self.sessions.oldest();
        let snapshot = self.snapshots.oldest();
        let epoch = if mutation::is(Mutation::IgnorePins) { u64::MAX } else { self.env.epochs.oldest() };
        while let Some(first) = session.waiting.front() {
            let no_ring = first.sequence < oldest || mutation::is(Mutation::PurgeEarly);
            if !(no_ring && first.epoch < epoch && first.until <= snapshot) {
                break;
            }
            let Some(waiting) = session.waiting.pop_front() else { break };
            for old in &waiting.olds {
                if old.tombstone {
                    self.purge(session, old)?;
                } else {
                    self.free(session, old)?;
                }
            }
            session.recycle(waiting.olds);
        }
        Ok(())
    }

    fn free(&self, session: &mut Session, old: &Old) -> Result<()> {
        // A slot that was lost may hold anything; nobody noted a record there that does not fit.
        if self.snapshots.have_versions()
            && let Ok(head) = Head::checked(self.media(), old.at)
        {
            let mut key = Vec::new();
            self.media().append_to(old.at + head.before_key(), head.key_len(), &mut key);
            let hash = record::hash(self.salt, head.tree(self.media(), old.at), &key);
            self.snapshots.forget(hash, old.at);
        }
        if self.held.keeps(old) {
            return Ok(());
        }
        match class_of(old.bytes) {
            Some(class) => session.kept.push(&self.heap, class, old.at),
            None => self.env.free(old.at)?,
        }
        Ok(())
    }

    /// Takes a tombstone out of the index, if it is still the newest of its key. Its slot waits again.
    fn purge(&self, session: &mut Session, old: &Old) -> Result<()> {
        let record = record::read(self.media(), self.salt, old.at)?;
        let _held = self.stripes.lock(record.hash);
        if let Some(place) = self.index.names(self.media(), record.hash, old.at)? {
            self.index.clear(self.media(), place);
            session.touched(place.at);
            self.order_delete(session, &record, old)?;
            session.supersede(Old { tombstone: false, ..*old });
        }
        Ok(())
    }

    /// Gets free slots of a class, from others, from the sweep, or from a new slab.
    ///
    /// # Errors
    /// [`Error::NoSpace`].
    #[cold]
    pub(crate) fn refill(&self, taken: &mut Taken<'_>, class: usize, reserve: Reserve) -> Result<()> {
        let session = &mut *taken.session;
        if session.kept.take_from(&self.heap, class) {
            return Ok(());
        }
        session.wanted = self.sweep(session, class)?.then_some(class);
        self.sweep(session, CLASSES)?;
        self.collect(session)?;
        if session.kept.take_from(&self.heap, class) {
            return Ok(());
        }
        match session.kept.take_slab(&self.env, class, reserve) {
            Err(Error::NoSpace { needed }) => self.scrape(taken, class, needed),
            done => done,
        }
    }

    /// Where there is no new space: everything that waits, here and at others.
    fn scrape(&self, taken: &mut Taken<'_>, class: usize, needed: u64) -> Result<()> {
        while self.sweep(&mut taken.session, class)? {}
        for _ in 0..2 {
            self.drain(taken)?;
            for mut other in self.sessions.each_free() {
                self.drain(&mut other)?;
                other.session.kept.give_all(&self.heap);
            }
        }
        self.drain(taken)?;
        if taken.session.kept.take_from(&self.heap, class) { Ok(()) } else { Err(Error::NoSpace { needed }) }
    }
}
