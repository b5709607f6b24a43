//! What if the owner has no room for records, only for the name of a node?
//!
//! Then its root area has room for one child and for no record of a leaf: the same tree, whose topmost node is
//! found by offset and level.

use super::insert::insert_in;
use super::nodes::WriteNodes;
use super::payload::Payload;
use super::records::{CHILD_BYTES, Packed};
use super::remove::remove_in;
use crate::error::Result;
use crate::layout::{ROOT_BYTES, RootArea};
use crate::units::{Ino, PoolOff};

/// How much a root may hold.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// An inode's root area.
    Area,
    /// The name of one node.
    Pointer,
}

impl Room {
    /// Bytes of packed records on `level`.
    pub const fn bytes(self, level: u8) -> usize {
        match (self, level) {
            (Self::Area, _) => ROOT_BYTES,
            (Self::Pointer, 0) => 0,
            (Self::Pointer, _) => CHILD_BYTES,
        }
    }
}

/// A tree whose root is a node: the attributes of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeRoot {
    /// The topmost node; `PoolOff(0)` for an empty tree.
    pub at: PoolOff,
    /// Its level.
    pub level: u8,
}

impl NodeRoot {
    /// The tree without records.
    pub const EMPTY: Self = Self { at: PoolOff(0), level: 0 };

    /// The tree as a root area, for the calls that only read.
    #[must_use]
    pub fn area(&self) -> RootArea {
        let mut root = RootArea::default();
        if self.at.0 != 0 {
            root.level = self.level.saturating_add(1);
            root.insert(0, 0, &self.at.0.to_le_bytes());
        }
        root
    }

    pub(super) fn from_area(root: &RootArea) -> Self {
        match root.level.checked_sub(1) {
            Some(level) => Self { at: root.view().child(0), level },
            None => Self::EMPTY,
        }
    }

    /// As [`super::insert`].
    ///
    /// # Errors
    /// As there.
    pub fn insert<N: WriteNodes + ?Sized>(
        &mut self,
        nodes: &mut N,
        owner: Ino,
        key: u64,
        payload: &[u8],
    ) -> Result<()> {
        let mut root = self.area();
        insert_in(nodes, &mut root, owner, Room::Pointer, key, payload)?;
        *self = Self::from_area(&root);
        Ok(())
    }

    /// As [`super::remove`].
    ///
    /// # Errors
    /// As there.
    pub fn remove<N: WriteNodes + ?Sized>(
        &mut self,
        nodes: &mut N,
        owner: Ino,
        key: u64,
    ) -> Result<Option<Payload>> {
        let mut root = self.area();
        let taken = remove_in(nodes, &mut root, owner, Room::Pointer, key)?;
        *self = Self::from_area(&root);
        Ok(taken)
    }
}
