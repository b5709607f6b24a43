//! How many mappings of the system may the views take?
//!
//! The system has a limit (`vm.max_map_count`), at which nothing can be taken away any more either. All views of a process
//! share a budget below it; when it becomes tight, translations are given up in big ranges.

use crate::view::View;
use daxstore::sync::{Arc, Mutex, Weak};
// Counts that only say when to begin to give up are no part of a protocol: seen by loom, they would only
// multiply the interleavings.
use std::sync::atomic::{AtomicUsize, Ordering};

/// How often in a row nothing could be given up until a fault that finds no room fails.
const TRIES: usize = 100;

/// The mappings that all views of a process may take.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    used: AtomicUsize,
    vain: AtomicUsize,
    views: Mutex<Vec<Weak<View>>>,
}

impl Budget {
    /// A budget of `limit` mappings: 80 % of `vm.max_map_count` leaves the process enough of its own.
    #[must_use]
    pub fn new(limit: usize) -> Arc<Self> {
        let (used, vain) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Self { limit, used, vain, views: Mutex::new(Vec::new()) })
    }

    /// How many mappings the views take, at most.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// How many they may take.
    #[must_use]
    pub const fn limit(&self) -> usize {
        self.limit
    }

    pub(crate) fn moved(&self, before: usize, after: usize) {
        if after > before {
            self.used.fetch_add(after - before, Ordering::Relaxed);
        } else if before > after {
            self.used.fetch_sub(before - after, Ordering::Relaxed);
        }
    }

    pub(crate) fn has_room(&self) -> bool {
        self.used() < self.limit
    }

    /// Whether it is time to give something up.
    pub(crate) fn is_tight(&self) -> bool {
        self.used() > self.limit - self.limit / 8
    }

    /// Whether giving up was tried again and again in vain.
    pub(crate) fn is_vain(&self) -> bool {
        self.vain.load(Ordering::Relaxed) >= TRIES
    }

    pub(crate) fn add(&self, view: &Arc<View>) {
        let mut views = self.views.lock();
        views.retain(|view| view.strong_count() > 0);
        views.push(Arc::downgrade(view));
    }

    /// Lets the views that take most give a quarter of the budget up, as far as nobody has the turn of what would
    /// go: how many mappings fewer there are. Waits for no turn.
    pub(crate) fn relieve(&self) -> usize {
        let mut views: Vec<_> = self.views.lock().iter().filter_map(Weak::upgrade).collect();
        views.sort_by_key(|view| std::cmp::Reverse(view.cost()));
        let wanted = self.limit / 4 + 1;
        let give = |freed: usize, view: &Arc<View>| freed + view.give_up(wanted.saturating_sub(freed));
        let freed = views.iter().fold(0, give);
        if freed > 0 {
            self.vain.store(0, Ordering::Relaxed);
        } else {
            self.vain.fetch_add(1, Ordering::Relaxed);
        }
        freed
    }
}
