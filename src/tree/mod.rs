//! How are sorted records kept in fixed-size nodes?
//!
//! One B+tree serves directories, attributes, extents, link targets and intents: records of a unique `u64` key
//! and up to [`MAX_PAYLOAD`] bytes. The root is a small area that its owner holds ([`RootArea`] in an inode, or
//! a [`NodeRoot`]); every other node is an object of 512 bytes with a record area of 480.
//!
//! Invariants:
//! 1. A node's records have strictly ascending keys, and no node but the root is empty.
//! 2. A record of a node above level 0 names a child of the next lower level by a lower bound of the child's
//!    keys. Bounds may be stale (lower than need be); the first bound of a node binds nothing, since keys below
//!    it go to the first child. So the keys of child `i` lie from bound `i` (of the first child: from where the
//!    node's own range begins) to before bound `i + 1`.
//! 3. Everything read from media is checked against both before it is used: a tree that breaks them is damage
//!    with a place. Since levels fall and ranges are disjoint, no hostile tree makes a walk long or endless.
//! 4. A call that fails leaves the root unspecified: the change it was part of is to be dropped.
//!
//! [`RootArea`]: crate::layout::RootArea

mod cut;
mod find;
mod insert;
#[cfg(test)]
pub(crate) mod mock;
mod node;
mod nodes;
mod payload;
mod records;
mod rekey;
mod remove;
mod rooted;
mod shift;
#[cfg(test)]
mod tests;
mod walk;

pub use cut::{Cut, cut};
pub(crate) use find::{Near, near, with_ceil, with_floor};
pub use find::{ceil, floor, for_each_node, get, last, scan};
pub use insert::{insert, insert_writes};
pub use node::vouch_root;
pub use nodes::{ReadNodes, WriteNodes};
pub use payload::{MAX_PAYLOAD, Payload};
pub(crate) use rekey::rekey;
pub use remove::remove;
pub use rooted::NodeRoot;
pub use shift::{shift_down, shift_up};
pub use walk::{Lost, Visit, walk};
