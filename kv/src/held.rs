//! Which records are looked at where they lie, and are freed later for that reason?
//!
//! A reader's pin keeps everything that was there from being used again, so it is held for the length of a call. Who looks at a record
//! longer holds that record alone: whatever else is superseded meanwhile is free as always.
//!
//! Invariants:
//! 1. A record is held from within a pin under which it was found: who frees it looks here after that pin has gone.
//! 2. What would have been freed while it was held is freed by the last who lets it go, once.

use crate::epoch::Epochs;
use crate::error::Result;
use crate::mutation::{self, Mutation};
use crate::session::Old;
use daxstore::sync::Mutex;
use daxstore::sync::atomic::{AtomicUsize, Ordering};
use std::collections::HashMap;

/// A record that is held.
#[derive(Debug, Default)]
struct One {
    holders: usize,
    /// It would have been freed.
    old: Option<Old>,
}

/// The records that are held, by where they lie.
#[derive(Debug, Default)]
pub struct Held {
    any: AtomicUsize,
    all: Mutex<HashMap<u64, One>>,
}

impl Held {
    /// Holds the record that `find` finds: where it lies, and what is known of it.
    ///
    /// # Errors
    /// Those of `find`.
    pub fn hold_found<T>(
        &self,
        epochs: &Epochs,
        find: impl FnOnce() -> Result<Option<(u64, T)>>,
    ) -> Result<Option<(u64, T)>> {
        let mut pin = Some(epochs.pin());
        let found = find()?;
        pin.take_if(|_| mutation::is(Mutation::HoldLate));
        if let Some((at, _)) = &found {
            self.hold(*at);
        }
        Ok(found)
    }

    fn hold(&self, at: u64) {
        self.all.lock().entry(at).or_default().holders += 1;
        self.any.fetch_add(1, Ordering::SeqCst);
    }

    /// Whether somebody holds the record, which is superseded and needed by nobody else: he frees it then.
    #[inline]
    pub fn keeps(&self, old: &Old) -> bool {
        if self.any.load(Ordering::SeqCst) == 0 {
            return false;
        }
        let is_held = self.all.lock().get_mut(&old.at).map(|one| one.old = Some(*old)).is_some();
        is_held && !mutation::is(Mutation::FreeHeld)
    }

    /// Lets go of the record at `at`: what the caller is to free.
    #[must_use]
    pub fn let_go(&self, at: u64) -> Option<Old> {
        let mut all = self.all.lock();
        let one = all.get_mut(&at)?;
        one.holders -= 1;
        let old = if one.holders == 0 { all.remove(&at).and_then(|one| one.old) } else { None };
        self.any.fetch_sub(1, Ordering::SeqCst);
        old
    }

    /// How many are held, each as often as it is.
    pub fn count(&self) -> usize {
        self.any.load(Ordering::SeqCst)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_last_who_lets_go_frees_what_was_superseded() {
        let held = Held::default();
        let old = Old { at: 64, bytes: 32, sequence: 1, until: 2, tombstone: false };
        assert!(!held.keeps(&old));
        (0..2).for_each(|_| held.hold(64));
        assert!(held.keeps(&old) && !held.keeps(&Old { at: 128, ..old }));
        assert!(held.let_go(64).is_none());
        assert_eq!((held.let_go(64).map(|old| old.at), held.count()), (Some(64), 0));
        held.hold(64);
        assert!(held.let_go(64).is_none(), "nothing superseded it this time");
    }
}
