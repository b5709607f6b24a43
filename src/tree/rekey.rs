//! How does a record move to a nearby key?
//!
//! An extent that loses its front, or grows one, changes its key and nothing else. Where the new key belongs
//! between the same neighbours in the same leaf, that is one write of one node.

use super::find::descend;
use super::insert::insert;
use super::node::open_root;
use super::nodes::WriteNodes;
use super::records::{Packed, View};
use super::remove::remove;
use crate::error::Result;
use crate::layout::RootArea;
use crate::units::Ino;

/// Takes the record of key `from` out, if there is one, and puts one of key `to` in.
///
/// # Errors
/// As for [`insert`].
pub(crate) fn rekey<N: WriteNodes + ?Sized>(
    nodes: &mut N,
    root: &mut RootArea,
    owner: Ino,
    from: u64,
    to: u64,
    payload: &[u8],
) -> Result<()> {
    if root.level == 0 {
        if let Some(i) = movable(open_root(root, owner)?, from, to, payload) {
            change(root, i, to, payload);
            return Ok(());
        }
    } else if let Some((down, mut node)) = descend(nodes, root, owner, from)?.into_node()
        && (down.span.low..=down.span.high).contains(&to)
        && let Some(i) = movable(node.view(), from, to, payload)
    {
        change(&mut node, i, to, payload);
        return nodes.write_node(down.at, node.into_image());
    }
    remove(nodes, root, owner, from)?;
    insert(nodes, root, owner, to, payload)
}

/// The record of `from`, where `to` is between the same neighbours and the payload as long.
fn movable(view: View<'_>, from: u64, to: u64, payload: &[u8]) -> Option<usize> {
    let i = view.find(from)?;
    let above = i.checked_sub(1).is_none_or(|before| view.key(before) < to);
    let below = i + 1 == view.count() || to < view.key(i + 1);
    (above && below && view.payload(i).len() == payload.len()).then_some(i)
}

fn change(holder: &mut impl Packed, i: usize, key: u64, payload: &[u8]) {
    holder.set_key(i, key);
    holder.overwrite(i, payload);
}
