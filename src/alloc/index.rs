//! Which groups have what is wanted?
//!
//! Loaded groups only, by what they have, so that a search touches groups that have it and no others: its cost
//! grows neither with the pool nor with how full it is.

use super::group::{BUCKETS, Summary};
use crate::units::Group;
use std::collections::BTreeSet;

/// The loaded, sound groups by what they have.
#[derive(Debug, Default)]
pub(super) struct Index {
    free: BTreeSet<u64>,
    unread: BTreeSet<u64>,
    best: [BTreeSet<u64>; BUCKETS],
}

fn put(set: &mut BTreeSet<u64>, group: u64, is_in: bool) {
    if is_in {
        set.insert(group);
    } else {
        set.remove(&group);
    }
}

/// The first of `set` at or after `near`, else the first.
fn nearest(set: &BTreeSet<u64>, near: u64) -> Option<u64> {
    set.range(near..).next().or_else(|| set.first()).copied()
}

impl Index {
    pub fn update(&mut self, group: Group, before: Summary, after: Summary) {
        put(&mut self.free, group.0, after.free);
        put(&mut self.unread, group.0, after.unread);
        if let Some(set) = before.best.and_then(|b| self.best.get_mut(usize::from(b))) {
            set.remove(&group.0);
        }
        if let Some(set) = after.best.and_then(|b| self.best.get_mut(usize::from(b))) {
            set.insert(group.0);
        }
    }

    /// A group with a free chunk, the one at or after `near` if there is one.
    pub fn free(&self, near: u64) -> Option<Group> {
        nearest(&self.free, near).map(Group)
    }

    /// A group with broken chunks that were not read yet.
    pub fn unread(&self, near: u64) -> Option<Group> {
        nearest(&self.unread, near).map(Group)
    }

    /// Up to `most` groups with a broken chunk whose longest run is in `bucket` or a higher one; `near` first if it
    /// is such a group.
    pub fn with_runs(&self, bucket: usize, near: u64, most: usize) -> Vec<Group> {
        let sets = self.best.get(bucket..).unwrap_or_default();
        let own = sets.iter().any(|set| set.contains(&near)).then_some(near);
        let others = sets.iter().flatten().copied().filter(|g| *g != near);
        own.into_iter().chain(others).take(most).map(Group).collect()
    }

    /// A group with the longest runs there are.
    pub fn longest(&self) -> Option<Group> {
        self.best.iter().rev().find_map(|set| set.first()).copied().map(Group)
    }
}
