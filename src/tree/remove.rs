//! How does a record get out?
//!
//! A node that empties is freed. One that is a quarter full or less is not written at once but handed to its
//! parent, which joins it with a neighbour where both fit one node. A root with one child takes the child's
//! records where they fit.

use super::node::{Down, Node, Span, open_root};
use super::nodes::WriteNodes;
use super::payload::Payload;
use super::records::{Packed, View};
use super::rooted::Room;
use crate::error::Result;
use crate::layout::{NODE_AREA_BYTES, ROOT_BYTES, RootArea};
use crate::units::Ino;

/// Bytes in use up to which a node is joined with a neighbour; at least a root area, so that a root's only
/// child comes by here before it is written.
const SHORT_BYTES: usize = NODE_AREA_BYTES / 4;
const _: () = assert!(SHORT_BYTES >= ROOT_BYTES);

/// Takes the record of `key` out of the tree that `owner` keeps in `root`: its payload, if there was one.
///
/// # Errors
/// Damage on the way. After an error the change that this was part of must be dropped.
pub fn remove<N: WriteNodes + ?Sized>(
    nodes: &mut N,
    root: &mut RootArea,
    owner: Ino,
    key: u64,
) -> Result<Option<Payload>> {
    remove_in(nodes, root, owner, Room::Area, key)
}

pub(super) fn remove_in<N: WriteNodes + ?Sized>(
    nodes: &mut N,
    root: &mut RootArea,
    owner: Ino,
    room: Room,
    key: u64,
) -> Result<Option<Payload>> {
    let view = open_root(root, owner)?;
    let span = Span::whole(root.level);
    let mut remover = Remover { nodes, owner, taken: None };
    if root.level == 0 {
        if let Some(i) = remover.take(view, key) {
            root.remove(i);
        }
        return Ok(remover.taken);
    }
    let i = view.child_of(key);
    match remover.remove(&Down::child(view, span, i), key)? {
        After::Settled => return Ok(remover.taken),
        After::Short(child) if root.count == 1 && child.area().len() <= room.bytes(span.level - 1) => {
            remover.pull_up(root, &child)?;
        }
        after => {
            remover.settle(root, span, i, after)?;
        }
    }
    remover.lower(root, room)?;
    Ok(remover.taken)
}

/// What is left of a node that a record was taken from.
enum After {
    /// It is written, or was not changed.
    Settled,
    /// It is not written yet, since it has few records.
    Short(Node),
    /// It has no records and is not freed yet.
    Empty,
}

struct Remover<'n, N: ?Sized> {
    nodes: &'n mut N,
    owner: Ino,
    taken: Option<Payload>,
}

impl<N: WriteNodes + ?Sized> Remover<'_, N> {
    /// Finds `key` among the records of a leaf and keeps a copy of its payload.
    fn take(&mut self, view: View<'_>, key: u64) -> Option<usize> {
        let i = view.find(key)?;
        self.taken = Some(Payload::new(view.payload(i)));
        Some(i)
    }

    fn remove(&mut self, down: &Down, key: u64) -> Result<After> {
        let mut node = Node::read(self.nodes, self.owner, down)?;
        if down.span.level == 0 {
            let Some(i) = self.take(node.view(), key) else { return Ok(After::Settled) };
            node.remove(i);
            return self.leave(down, node);
        }
        let i = node.view().child_of(key);
        let after = self.remove(&Down::child(node.view(), down.span, i), key)?;
        if self.settle(&mut node, down.span, i, after)? {
            return self.leave(down, node);
        }
        Ok(After::Settled)
    }

    /// Writes a changed node, or leaves it to its parent.
    fn leave(&mut self, down: &Down, node: Node) -> Result<After> {
        if node.count() == 0 {
            return Ok(After::Empty);
        }
        if node.area().len() <= SHORT_BYTES {
            return Ok(After::Short(node));
        }
        self.nodes.write_node(down.at, node.into_image())?;
        Ok(After::Settled)
    }

    /// Does what child `i` of `parent` needs; whether `parent` changed.
    fn settle(&mut self, parent: &mut impl Packed, span: Span, i: usize, after: After) -> Result<bool> {
        match after {
            After::Settled => Ok(false),
            After::Short(child) => self.join(parent, span, i, child),
            After::Empty => {
                self.nodes.free_node(parent.view().child(i))?;
                parent.remove(i);
                Ok(true)
            }
        }
    }

    /// Joins `child`, the short child `i` of `parent`, with a neighbour, or writes it where neither has room.
    fn join(&mut self, parent: &mut impl Packed, span: Span, i: usize, child: Node) -> Result<bool> {
        let down = Down::child(parent.view(), span, i);
        let before = i.checked_sub(1);
        let after = (i + 1 < parent.count()).then_some(i + 1);
        for other in [before, after].into_iter().flatten() {
            let sibling = Node::read(self.nodes, self.owner, &Down::child(parent.view(), span, other))?;
            if child.area().len() + sibling.area().len() > NODE_AREA_BYTES {
                continue;
            }
            let (left, right) = if other < i { (sibling, child) } else { (child, sibling) };
            self.append(parent, span, i.min(other), left, right)?;
            return Ok(true);
        }
        self.nodes.write_node(down.at, child.into_image())?;
        Ok(false)
    }

    /// Moves all of `right`, child `i + 1` of `parent`, to the end of `left`, child `i`.
    fn append(
        &mut self,
        parent: &mut impl Packed,
        span: Span,
        i: usize,
        mut left: Node,
        mut right: Node,
    ) -> Result<()> {
        if span.level > 1 {
            // Keys below a node's first bound go to its first child; the parent's bound is the binding one.
            right.set_key(0, parent.view().key(i + 1));
        }
        left.extend(right.view(), 0..right.count());
        self.nodes.write_node(parent.view().child(i), left.into_image())?;
        self.nodes.free_node(parent.view().child(i + 1))?;
        parent.remove(i + 1);
        Ok(())
    }

    /// Makes the root lower while it has a single child that fits it.
    fn lower(&mut self, root: &mut RootArea, room: Room) -> Result<()> {
        while root.level > 0 && root.count == 1 {
            let span = Span::whole(root.level);
            let child = Node::read(self.nodes, self.owner, &Down::child(root.view(), span, 0))?;
            if child.area().len() > room.bytes(span.level - 1) {
                break;
            }
            self.pull_up(root, &child)?;
        }
        if root.count == 0 {
            root.level = 0;
        }
        Ok(())
    }

    /// Puts the records of `child`, the only child, into the root.
    fn pull_up(&mut self, root: &mut RootArea, child: &Node) -> Result<()> {
        self.nodes.free_node(root.view().child(0))?;
        let (level, trusted) = (root.level.saturating_sub(1), root.trusted);
        *root = RootArea { level, trusted, ..RootArea::default() };
        root.extend(child.view(), 0..child.count());
        Ok(())
    }
}
