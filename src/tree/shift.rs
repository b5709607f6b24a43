//! How do all records from a key on move by as many keys?
//!
//! Node by node, where they lie: a leaf is written once whatever it holds, its bound above moves with it, and no node is
//! made or freed. So a shift of any tree needs no space, and in steps as small as one leaf it goes on from wherever it
//! stopped.
//!
//! Invariants:
//! 1. After each call the tree keeps all rules of trees: what moved and what did not are on different sides of a gap as
//!    wide as the shift, and the bounds are on the same side as the keys they bind.
//! 2. A call moves whole leaves, but for the one that holds the first key of all that move. Moving down it takes the
//!    lowest keys first, moving up the highest, into the gap.

use super::node::{Down, Node, Span, open_root};
use super::nodes::WriteNodes;
use super::records::{Packed, View};
use crate::error::Result;
use crate::layout::RootArea;
use crate::units::Ino;
use std::ops::Range;

/// Moves the records with keys from `from` on `by` keys down, lowest first, while `more` says so; at least one leaf. There
/// is no record in the `by` keys before `from`. Returns a key (exclusive) below which all have moved, and none from it on;
/// `None` where all have.
///
/// # Errors
/// Damage on the way. After an error the change that this was part of must be dropped.
pub fn shift_down<N: WriteNodes + ?Sized>(
    nodes: &mut N,
    root: &mut RootArea,
    owner: Ino,
    from: u64,
    by: u64,
    more: impl FnMut(&N) -> bool,
) -> Result<Option<u64>> {
    let view = open_root(root, owner)?;
    let low = Lowered { from, by };
    let mut shifter = Shifter { nodes, owner, by, keys: from..u64::MAX, more, reached: None, stopped: None };
    shifter.clear_edge(view, Span::whole(root.level), low)?;
    shifter.down(root, Span::whole(root.level), low)?;
    Ok(shifter.stopped)
}

/// Moves the records with the `keys` `by` keys up, highest first, while `more` says so; at least one leaf. There is no
/// record in the `by` keys from the end of `keys` on, or the end is the largest key. Returns the key from which on all have
/// moved, and none before it; `None` where all have.
///
/// # Errors
/// Damage on the way. After an error the change that this was part of must be dropped.
pub fn shift_up<N: WriteNodes + ?Sized>(
    nodes: &mut N,
    root: &mut RootArea,
    owner: Ino,
    keys: Range<u64>,
    by: u64,
    more: impl FnMut(&N) -> bool,
) -> Result<Option<u64>> {
    open_root(root, owner)?;
    let mut shifter = Shifter { nodes, owner, by, keys, more, reached: None, stopped: None };
    let span = Span::whole(root.level);
    shifter.up(root, span)?;
    Ok(shifter.stopped)
}

/// Where bounds go when keys move down.
#[derive(Clone, Copy)]
struct Lowered {
    from: u64,
    by: u64,
}

impl Lowered {
    /// Where the gap begins: what does not move lies before it.
    const fn gap(self) -> u64 {
        self.from - self.by
    }

    /// A bound's new place: no key of its node is below it, and none of the node before is at or above it.
    fn bound(self, key: u64) -> u64 {
        if key > self.from { key - self.by } else { key.min(self.gap()) }
    }
}

struct Shifter<'n, N: ?Sized, F> {
    nodes: &'n mut N,
    owner: Ino,
    by: u64,
    keys: Range<u64>,
    more: F,
    /// The lowest key that the leaf changed last could hold before.
    reached: Option<u64>,
    /// The key at which it ended for want of more.
    stopped: Option<u64>,
}

impl<N: WriteNodes + ?Sized, F: FnMut(&N) -> bool> Shifter<'_, N, F> {
    /// Whether no further child is to be gone to, since enough was done.
    fn stops(&mut self) -> bool {
        self.stopped.is_some() || self.reached.is_some() && !(self.more)(self.nodes)
    }

    /// Moves the records `which` of a leaf; whether there were any.
    fn leaf(
        &mut self,
        holder: &mut impl Packed,
        span: Span,
        which: Range<usize>,
        move_key: impl Fn(u64) -> u64,
    ) -> bool {
        for i in which.clone() {
            holder.set_key(i, move_key(holder.view().key(i)));
        }
        if !which.is_empty() {
            self.reached = Some(span.low);
        }
        !which.is_empty()
    }

    fn read(&self, view: View<'_>, span: Span, i: usize) -> Result<(Down, Node)> {
        let down = Down::child(view, span, i);
        Ok((down, Node::read(self.nodes, self.owner, &down)?))
    }

    /// Moves what is in `holder`, of `span`, down; whether it changed.
    fn down(&mut self, holder: &mut impl Packed, span: Span, low: Lowered) -> Result<bool> {
        if span.level == 0 {
            let (first, by) = (holder.view().below(self.keys.start), self.by);
            return Ok(self.leaf(holder, span, first..holder.count(), |key| key - by));
        }
        let mut changed = false;
        let first = holder.view().child_of(self.keys.start);
        for i in first..holder.count() {
            let (down, mut node) = self.read(holder.view(), span, i)?;
            if self.stops() {
                self.stopped.get_or_insert(down.span.low);
                break;
            }
            if self.down(&mut node, down.span, low)? {
                self.nodes.write_node(down.at, node.into_image())?;
                let key = if i == 0 { span.low } else { holder.view().key(i) };
                holder.set_key(i, low.bound(key));
                changed = true;
            }
            if self.stopped.is_some() {
                break;
            }
        }
        // The first bound binds nothing, and may be anywhere below the second.
        if holder.count() > 1 && holder.view().key(0) >= holder.view().key(1) {
            holder.set_key(0, low.bound(span.low));
        }
        Ok(changed)
    }

    /// A first bound binds nothing: on the way to the last key before the gap it may lie in the gap, or above, where the
    /// bound of the node to the right is about to go. A node's only bound is made what it need be.
    fn clear_edge(&mut self, view: View<'_>, span: Span, low: Lowered) -> Result<()> {
        let Some(last) = low.gap().checked_sub(1).filter(|_| span.level > 0) else { return Ok(()) };
        let (mut down, mut node) = self.read(view, span, view.child_of(last))?;
        while down.span.level > 0 {
            if node.count() == 1 && node.view().key(0) >= low.gap() {
                node.set_key(0, down.span.low);
                let image = Node::of(self.owner, down.span.level, node.view(), 0..1).into_image();
                self.nodes.write_node(down.at, image)?;
            }
            (down, node) = self.read(node.view(), down.span, node.view().child_of(last))?;
        }
        Ok(())
    }

    /// Moves what is in `holder`, of `span`, up: whether it changed, and whether all of it has moved by now.
    fn up(&mut self, holder: &mut impl Packed, span: Span) -> Result<(bool, bool)> {
        if span.level == 0 {
            let (first, end) = (holder.view().below(self.keys.start), holder.view().below(self.keys.end));
            let by = self.by;
            return Ok((self.leaf(holder, span, first..end, |key| key + by), first == 0));
        }
        let mut changed = false;
        let Some(last) = self.keys.end.checked_sub(1) else { return Ok((false, true)) };
        for i in (0..=holder.view().child_of(last)).rev() {
            if self.stops() {
                self.stopped = self.reached;
                return Ok((changed, false));
            }
            let (down, mut node) = self.read(holder.view(), span, i)?;
            let (wrote, all) = self.up(&mut node, down.span)?;
            if wrote {
                self.nodes.write_node(down.at, node.into_image())?;
            }
            if !all {
                return Ok((changed | wrote, false));
            }
            holder.set_key(i, holder.view().key(i) + self.by);
            changed = true;
        }
        Ok((changed, true))
    }
}
