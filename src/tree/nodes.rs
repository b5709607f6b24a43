//! What does a tree ask of whoever holds its nodes?

use crate::error::Result;
use crate::layout::Image;
use crate::units::PoolOff;

/// Reads nodes: the media under a lock, or a change in the making.
pub trait ReadNodes {
    /// The node at `at`: of kind `Node`, its check verified.
    ///
    /// # Errors
    /// Damage, also where the slot is free.
    fn read_node(&self, at: PoolOff) -> Result<Image>;

    /// Hears that the packing of `node`, read from `at`, was found well formed, so that it need not be looked at
    /// again as long as the node stays as it is.
    fn vouch(&self, _at: PoolOff, _node: &Image) {}
}

/// Changes nodes, as one step with everything else of the same change.
pub trait WriteNodes: ReadNodes {
    /// Puts `node` at `at`.
    ///
    /// # Errors
    /// [`crate::error::Error::TooBig`] where the change does not fit a record.
    fn write_node(&mut self, at: PoolOff, node: Image) -> Result<()>;

    /// A free slot for a node.
    ///
    /// # Errors
    /// No space.
    fn alloc_node(&mut self) -> Result<PoolOff>;

    /// Frees the node at `at` with the change.
    ///
    /// # Errors
    /// As for [`Self::write_node`].
    fn free_node(&mut self, at: PoolOff) -> Result<()>;
}
