//! What is the ordered index of a tree told, and when?
//!
//! Invariant: K14. A key is told of before its record's note is gone from its ring, and again at every replay: so the ordered index misses no
//! key. It may have keys whose records are gone: who reads it asks the hash index. A key is taken out of it with its tombstone, when no
//! snapshot is older.

use crate::core::{Change, Core};
use crate::error::{Error, Result};
use crate::media::Media;
use crate::mutation::{self, Mutation};
use crate::ordered;
use crate::record::{Head, Key, TOLD, TOMBSTONE, Whole};
use crate::session::{Old, Session};
use crate::trees::TreeState;
use daxstore::sync::Arc;
use std::ops::Bound;

/// A key that waits for want of space is seen nevertheless, and its group is not written back before it was taken: that says so.
#[inline]
pub(crate) fn waits(told: Result<()>) -> Result<()> {
    match told {
        Err(Error::NoSpace { .. }) => Ok(()),
        told => told,
    }
}

impl<M: Media> Core<M> {
    /// A key is new. [`Self::order_settle`] comes after it.
    pub(crate) fn order_insert(
        &self,
        session: &mut Session,
        tree: &TreeState<M>,
        change: &Change<'_>,
    ) -> Result<()> {
        if mutation::is(Mutation::NoOrder) {
            return Ok(());
        }
        note(session, tree);
        tree.ordered.announce(ordered::Change::Insert, change.key.bytes, change.at, change.sequence)
    }

    /// As [`Self::order_insert`], of many keys.
    pub(crate) fn order_insert_all<'k>(
        &self,
        session: &mut Session,
        tree: &TreeState<M>,
        keys: impl Iterator<Item = (&'k [u8], u64)>,
        sequence: u64,
    ) {
        if !mutation::is(Mutation::NoOrder) {
            note(session, tree);
            tree.ordered.announce_all(keys, sequence);
        }
    }

    /// Takes what `tree` was told of into its ordered index, if that is much, or has to be done soon.
    #[inline]
    pub(crate) fn order_settle(&self, session: &Session, tree: &TreeState<M>) -> Result<()> {
        waits(tree.ordered.settle_many(session.is_nearly_due()))
    }

    /// A key's tombstone leaves the hash index.
    pub(crate) fn order_delete(&self, session: &mut Session, record: &Whole, old: &Old) -> Result<()> {
        let Some(tree) = self.trees.by_id(record.tree) else { return Ok(()) };
        note(session, &tree);
        waits(tree.ordered.apply(ordered::Change::Delete, &record.key, old.at, old.sequence))
    }

    /// A record of `key` was found in a ring; its newest, maybe a tombstone, lies at `at`. What the ordered index says of the key may be where a
    /// record lies whose mark (K15) was lost: so it is told of the newest, whatever that is.
    pub(crate) fn order_replayed(&self, key: &Key<'_>, at: u64, newest: &Head) -> Result<()> {
        let Some(tree) = self.trees.by_id(key.tree) else { return Ok(()) };
        if mutation::is(Mutation::NoRetelling) && (newest.is(TOMBSTONE) || !newest.is(TOLD)) {
            return Ok(());
        }
        tree.ordered.announce(ordered::Change::Insert, key.bytes, at, newest.sequence())
    }

    /// Makes durable what the session's group told.
    pub(crate) fn write_back_order(&self, session: &mut Session) -> Result<()> {
        while let Some(id) = session.told.last() {
            if let Some(tree) = self.trees.by_id(*id) {
                tree.ordered.write_back(session.ring.number)?;
            }
            session.told.pop();
        }
        Ok(())
    }

    /// The tree with this name, made if there is none.
    pub(crate) fn tree(&self, name: &str) -> Result<Arc<TreeState<M>>> {
        self.trees.get_or_make(&self.env, name, || self.last_sequence() + 1)
    }

    /// Deletes every record of a tree that nobody finds any more.
    pub(crate) fn delete_all(&self, tree: &TreeState<M>) -> Result<()> {
        let mut from = Bound::Unbounded;
        loop {
            let mut keys = Vec::new();
            let mut cursor = tree.ordered.cursor(from.as_ref().map(|key: &Vec<u8>| &**key));
            while keys.len() < 256
                && let Some((key, _)) = cursor.next()?
            {
                keys.push(key.to_vec());
            }
            drop(cursor);
            let Some(last) = keys.last().cloned() else { return Ok(()) };
            for key in &keys {
                let key = self.key(tree.id, key)?;
                self.change(tree, &key, Some(0), |_| Ok(crate::core::Action::Delete))?;
            }
            from = Bound::Excluded(last);
        }
    }
}

/// Notes that the session's group told a tree of something.
fn note<M: Media>(session: &mut Session, tree: &TreeState<M>) {
    if session.told.last() != Some(&tree.id) && !session.told.contains(&tree.id) {
        session.told.push(tree.id);
    }
}
