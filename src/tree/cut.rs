//! How is a part that can not be read taken out of a tree?
//!
//! By removing the record that names it, and the nodes above that empty by that. The part itself is not looked at and
//! not freed: nobody knows what it is.

use super::node::{Down, Node, Span, open_root};
use super::nodes::WriteNodes;
use super::records::Packed;
use super::rooted::NodeRoot;
use crate::error::Result;
use crate::layout::RootArea;
use crate::units::{Ino, PoolOff};

/// Which part.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// The node to be taken out.
    pub at: PoolOff,
    /// Its level.
    pub level: u8,
    /// The lowest key it can hold.
    pub low: u64,
}

/// Takes the node `part`, and with it all below, out of the tree that `owner` keeps in `root`; whether it was there.
///
/// # Errors
/// Damage on the way.
pub fn cut<N: WriteNodes + ?Sized>(
    nodes: &mut N,
    root: &mut RootArea,
    owner: Ino,
    part: Cut,
) -> Result<bool> {
    open_root(root, owner)?;
    let span = Span::whole(root.level);
    let found = take(nodes, root, owner, span, part)?;
    if root.count == 0 {
        *root = RootArea::default();
    }
    Ok(found)
}

impl NodeRoot {
    /// As [`cut`].
    ///
    /// # Errors
    /// As there.
    pub fn cut<N: WriteNodes + ?Sized>(&mut self, nodes: &mut N, owner: Ino, part: Cut) -> Result<bool> {
        let mut root = self.area();
        let found = cut(nodes, &mut root, owner, part)?;
        *self = Self::from_area(&root);
        Ok(found)
    }
}

/// Takes the part out of what is below `holder`.
fn take<N: WriteNodes + ?Sized>(
    nodes: &mut N,
    holder: &mut impl Packed,
    owner: Ino,
    span: Span,
    part: Cut,
) -> Result<bool> {
    if span.level <= part.level {
        return Ok(false);
    }
    if span.level - 1 == part.level {
        let found = (0..holder.count()).find(|i| holder.view().child(*i) == part.at);
        return Ok(found.inspect(|i| holder.remove(*i)).is_some());
    }
    let i = holder.view().child_of(part.low);
    let down = Down::child(holder.view(), span, i);
    let mut node = Node::read(nodes, owner, &down)?;
    if !take(nodes, &mut node, owner, down.span, part)? {
        return Ok(false);
    }
    if node.count() == 0 {
        nodes.free_node(down.at)?;
        holder.remove(i);
    } else {
        nodes.write_node(down.at, node.into_image())?;
    }
    Ok(true)
}
