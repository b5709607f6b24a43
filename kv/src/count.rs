//! How many records does a tree have, when nobody wrote it down?
//!
//! After a crash that is not known. The hash index names every record, and a record's header says whose it is: so one walk over the index, which
//! lies in long runs, counts all trees at once. Beside changes the walk is of no one moment; then a snapshot is counted.
//!
//! Invariant: a count is kept with what the tree had gained at the same moment. That of a snapshot is such a moment as long as no number was given
//! out since: the changes up to it are over, and others did not begin to count.

use crate::core::Core;
use crate::db::Tree;
use crate::env::TreeId;
use crate::error::Result;
use crate::media::Media;
use crate::record::{Head, TOMBSTONE};
use daxstore::sync::atomic::Ordering;
use std::collections::HashMap;

/// How often a moment without a change is looked for.
const TRIES: usize = 8;
/// Records that are asked for ahead.
const AHEAD: usize = 16;

impl<M: Media> Core<M> {
    /// How many records each tree has, while nothing changes; `None` where a header makes no sense.
    fn count_named(&self) -> Result<Option<HashMap<TreeId, u64>>> {
        let (mut counts, mut is_sound) = (HashMap::new(), true);
        let media = self.media();
        self.index.each_segment(media, &self.stripes, |entries| {
            let _pin = self.env.pin();
            for (n, (_, at)) in entries.iter().enumerate() {
                if let Some((_, ahead)) = entries.get(n + AHEAD) {
                    media.prefetch(*ahead);
                }
                match Head::checked(media, *at) {
                    Ok(head) if head.is(TOMBSTONE) => {}
                    Ok(head) => *counts.entry(head.tree(media, *at)).or_default() += 1,
                    Err(_) => is_sound = false,
                }
            }
        })?;
        Ok(is_sound.then_some(counts))
    }
}

impl<M: Media> Tree<M> {
    /// Counts the records, and keeps the count where a moment can be had for it.
    pub(crate) fn count(&self) -> Result<u64> {
        let core = self.core();
        for _ in 0..TRIES {
            let moment = self.snapshot();
            let sequence = moment.sequence();
            let trees = core.trees.each().into_iter().map(|tree| (tree.gained.load(Ordering::Acquire), tree));
            let trees: Vec<_> = trees.collect();
            let gained = self.state().gained.load(Ordering::Acquire);
            if core.last_sequence() != sequence {
                continue;
            }
            let counts = core.count_named()?.filter(|_| core.last_sequence() == sequence);
            let Some(counts) = counts else {
                let count = moment.len()?;
                *self.state().base.lock() = Some(count.saturating_add_signed(-gained));
                return Ok(count);
            };
            let count_of = |id| counts.get(&id).copied().unwrap_or(0);
            for (gained, tree) in &trees {
                let mut base = tree.base.lock();
                if base.is_none() {
                    *base = Some(count_of(tree.id).saturating_add_signed(-gained));
                }
            }
            return Ok(count_of(self.id()));
        }
        self.snapshot().len()
    }
}
