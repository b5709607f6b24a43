//! How does a tree whose order is damaged get it back?
//!
//! The ordered index says nothing that the records do not: where a page of it can not be read, or a key is missing in it, it is built anew of
//! the records that the hash index names. That is done while a database is opened, before anybody uses it, and only where it is
//! asked for ([`Options::repair`](crate::Options::repair)), as every record is read.
//!
//! Invariants:
//! 1. The new index is durable, with every key, before the catalog names it. A crash before leaves the old one, whose damage is told of as
//!    before; the pages of either that nobody names then are found by [`Db::compact`](crate::Db::compact).
//! 2. Of a new index nothing is torn: what is so later is damage (`Ordered::told_again`). Of others that can not be said: a deletion that a crash
//!    tore out of a leaf is told of by nobody again.

use crate::core::Core;
use crate::env::{Env, TreeId};
use crate::error::{Error, Result, Structure};
use crate::media::Media;
use crate::ordered::Ordered;
use crate::record::{self, TOMBSTONE, Whole};
use crate::trees::{TreeState, Trees, root_of};
use daxstore::sync::Arc;
use std::collections::{HashSet, VecDeque};
use std::ops::Bound;

/// The records that the hash index names, one after another. Nobody changes anything meanwhile.
struct Records<'c, M: Media> {
    core: &'c Core<M>,
    /// The hash that the next segment begins with.
    next: Option<u64>,
    found: VecDeque<u64>,
}

impl<M: Media> Iterator for Records<'_, M> {
    /// Records that are damaged are left out: their keys can not be told.
    type Item = Result<Whole>;

    fn next(&mut self) -> Option<Self::Item> {
        let media = self.core.media();
        loop {
            while let Some(at) = self.found.pop_front() {
                if let Some(ahead) = self.found.get(8) {
                    media.prefetch(*ahead);
                }
                let whole = record::read(media, self.core.salt, at).ok();
                if let Some(whole) = whole.filter(|whole| !whole.head.is(TOMBSTONE)) {
                    return Some(Ok(whole));
                }
            }
            match self.core.index.records_of(media, self.next.take()?) {
                Ok((found, next)) => (self.found, self.next) = (found.into(), next),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl<M: Media> Core<M> {
    fn each_record(&self) -> Records<'_, M> {
        Records { core: self, next: Some(0), found: VecDeque::new() }
    }

    /// Builds the ordered indexes anew that are damaged, or that the medium has nothing readable of: how many. Nobody uses the
    /// database yet.
    ///
    /// # Errors
    /// [`Error::NoSpace`]; damage of the hash index; those of the fences.
    pub(crate) fn repair(&self) -> Result<u64> {
        let mut damaged = HashSet::new();
        for tree in self.trees.reachable() {
            let is_named = self.trees.names(self.media(), &tree);
            if !is_named || !tree.ordered.verify()?.errors.is_empty() {
                damaged.insert(tree.id);
            }
        }
        for record in self.each_record() {
            let Whole { tree, key, .. } = record?;
            if !damaged.contains(&tree) && self.misses(tree, &key) {
                damaged.insert(tree);
            }
        }
        for id in &damaged {
            self.rebuild(*id)?;
        }
        Ok(damaged.len() as u64)
    }

    /// Whether a tree's ordered index does not have a key, or can not say.
    fn misses(&self, tree: TreeId, key: &[u8]) -> bool {
        let Some(tree) = self.trees.by_id(tree) else { return false };
        let mut cursor = tree.ordered.cursor(Bound::Included(key));
        !cursor.next().is_ok_and(|found| found.is_some_and(|(found, _)| found == key))
    }

    fn rebuild(&self, id: TreeId) -> Result<()> {
        let keys = self.each_record().filter_map(|record| match record {
            Ok(Whole { tree, key, at, .. }) => (tree == id).then_some(Ok((key, at))),
            Err(error) => Some(Err(error)),
        });
        let root = Ordered::rebuild(&self.env, id, keys)?;
        let ordered = Ordered::open(&self.env, id, root)?;
        ordered.told_again();
        self.trees.replace(self.media(), id, root, ordered)
    }
}

impl<M: Media> Trees<M> {
    /// The ordered index that the catalog names; where nothing of it can be read and `repair` is asked for, an empty one that the catalog does not name.
    pub(crate) fn order(env: &Arc<Env<M>>, id: TreeId, repair: bool) -> Result<Ordered<Env<M>>> {
        match root_of(&env.media, id).and_then(|root| Ordered::open(env, id, root)) {
            Err(Error::Damage(damage)) if repair && damage.structure == Structure::Ordered => {
                Ordered::open(env, id, Ordered::create(env, id)?)
            }
            opened => opened,
        }
    }
}

/// As `tree`, with another ordered index.
pub(crate) fn with_order<M: Media>(tree: &TreeState<M>, ordered: Ordered<Env<M>>) -> TreeState<M> {
    use daxstore::sync::Mutex;
    use daxstore::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Acquire};
    TreeState {
        id: tree.id,
        name: tree.name.clone(),
        ordered,
        gained: AtomicI64::new(tree.gained.load(Acquire)),
        base: Mutex::new(*tree.base.lock()),
        dropped: AtomicBool::new(tree.dropped.load(Acquire)),
        birth: tree.birth,
        begin: tree.begin,
        end: AtomicU64::new(tree.end.load(Acquire)),
    }
}
