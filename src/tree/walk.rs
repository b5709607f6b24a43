//! What does a tree hold, all of it, damaged or not?
//!
//! A walk shows every node and every record once, in order. Where a node can not be believed it tells which keys may
//! be missing, and goes on beside it. Levels fall and ranges are disjoint, so a walk of any tree ends.

use super::node::{Down, Node, Span, open_root};
use super::nodes::ReadNodes;
use super::records::{Packed, View};
use crate::error::{Damage, Error, Result};
use crate::layout::RootArea;
use crate::units::{Ino, PoolOff};

/// Part of a tree that can not be read.
#[derive(Debug)]
pub struct Lost {
    /// The node that is not believed.
    pub at: PoolOff,
    /// The level it was looked for on.
    pub level: u8,
    /// The lowest key that it or what is below it can hold.
    pub low: u64,
    /// The highest.
    pub high: u64,
    /// Why it is not believed.
    pub error: Error,
}

/// Who takes in what a walk comes by.
pub trait Visit {
    /// A sound node, before what is below it. An error makes it lost.
    ///
    /// # Errors
    /// Whatever makes the node unfit here.
    fn node(&mut self, at: PoolOff) -> Result<(), Damage>;
    /// A record of a leaf, ascending.
    fn record(&mut self, key: u64, payload: &[u8]);
    /// A node that can not be believed.
    fn lost(&mut self, lost: Lost);
}

/// Shows `visit` all of the tree that `owner` keeps in `root`.
///
/// # Errors
/// Damage of the root area.
pub fn walk<N: ReadNodes + ?Sized>(
    nodes: &N,
    root: &RootArea,
    owner: Ino,
    visit: &mut impl Visit,
) -> Result<()> {
    let view = open_root(root, owner)?;
    below(nodes, owner, view, Span::whole(root.level), visit);
    Ok(())
}

fn below<N: ReadNodes + ?Sized>(nodes: &N, owner: Ino, view: View<'_>, span: Span, visit: &mut impl Visit) {
    for i in 0..view.count() {
        if span.level == 0 {
            visit.record(view.key(i), view.payload(i));
            continue;
        }
        let down = Down::child(view, span, i);
        let read = Node::read(nodes, owner, &down).and_then(|node| {
            visit.node(down.at)?;
            Ok(node)
        });
        match read {
            Ok(node) => below(nodes, owner, node.view(), down.span, visit),
            Err(error) => {
                let Down { at, span: Span { level, low, high } } = down;
                visit.lost(Lost { at, level, low, high, error });
            }
        }
    }
}
