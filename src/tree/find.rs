//! How is a record found?
//!
//! Bounds may be stale, so the leaf whose range holds a key can lack a neighbour of it; every leaf has a
//! record, so the neighbour is then at the near edge of the next leaf, which the descent noted on its way.

use super::node::{Down, Node, Span, open_root};
use super::nodes::ReadNodes;
use super::payload::Payload;
use super::records::{Packed, View};
use crate::error::Result;
use crate::layout::{Image, RootArea};
use crate::units::{Ino, PoolOff};
use std::ops::ControlFlow;

/// The leaf whose range holds a key: the root area itself, or a node.
enum Leaf<'r> {
    Root(View<'r>),
    Node(Node),
}

/// Where a descent ended, and the subtrees next to its way.
pub(super) struct Place<'r> {
    leaf: Leaf<'r>,
    /// The last step, where there was one.
    down: Option<Down>,
    before: Option<Down>,
    after: Option<Down>,
}

impl Place<'_> {
    /// The leaf, where it is a node.
    pub fn into_node(self) -> Option<(Down, Node)> {
        match (self.down, self.leaf) {
            (Some(down), Leaf::Node(node)) => Some((down, node)),
            _ => None,
        }
    }

    fn view(&self) -> View<'_> {
        match &self.leaf {
            Leaf::Root(view) => *view,
            Leaf::Node(node) => node.view(),
        }
    }
}

/// Goes to the leaf whose range holds `key`.
pub(super) fn descend<'r, N: ReadNodes + ?Sized>(
    nodes: &N,
    root: &'r RootArea,
    owner: Ino,
    key: u64,
) -> Result<Place<'r>> {
    let view = open_root(root, owner)?;
    let mut place = Place { leaf: Leaf::Root(view), down: None, before: None, after: None };
    let mut span = Span::whole(root.level);
    while span.level > 0 {
        let view = place.view();
        let i = view.child_of(key);
        let (down, before, after) = (
            Down::child(view, span, i),
            i.checked_sub(1).map(|i| Down::child(view, span, i)),
            (i + 1 < view.count()).then(|| Down::child(view, span, i + 1)),
        );
        place.before = before.or(place.before);
        place.after = after.or(place.after);
        place.leaf = Leaf::Node(Node::read(nodes, owner, &down)?);
        (place.down, span) = (Some(down), down.span);
    }
    Ok(place)
}

/// The last (or first) leaf below `down`.
fn edge<N: ReadNodes + ?Sized>(nodes: &N, owner: Ino, mut down: Down, last: bool) -> Result<Node> {
    loop {
        let node = Node::read(nodes, owner, &down)?;
        if down.span.level == 0 {
            return Ok(node);
        }
        let i = if last { node.count() - 1 } else { 0 };
        down = Down::child(node.view(), down.span, i);
    }
}

/// The payload of `key` in the tree that `owner` keeps in `root`.
///
/// # Errors
/// Damage on the way.
pub fn get<N: ReadNodes + ?Sized>(
    nodes: &N,
    root: &RootArea,
    owner: Ino,
    key: u64,
) -> Result<Option<Payload>> {
    let place = descend(nodes, root, owner, key)?;
    let view = place.view();
    Ok(view.find(key).map(|i| Payload::new(view.payload(i))))
}

/// What `f` makes of the record with the largest key at or below `key`.
pub(crate) fn with_floor<N: ReadNodes + ?Sized, R>(
    nodes: &N,
    root: &RootArea,
    owner: Ino,
    key: u64,
    f: impl FnOnce(u64, &[u8]) -> R,
) -> Result<Option<R>> {
    let place = descend(nodes, root, owner, key)?;
    let view = place.view();
    if let Some(i) = view.at_or_below(key) {
        return Ok(Some(f(view.key(i), view.payload(i))));
    }
    let Some(before) = place.before else { return Ok(None) };
    let leaf = edge(nodes, owner, before, true)?;
    let last = leaf.count() - 1;
    Ok(Some(f(leaf.view().key(last), leaf.view().payload(last))))
}

/// What `f` makes of the record with the smallest key at or above `key`.
pub(crate) fn with_ceil<N: ReadNodes + ?Sized, R>(
    nodes: &N,
    root: &RootArea,
    owner: Ino,
    key: u64,
    f: impl FnOnce(u64, &[u8]) -> R,
) -> Result<Option<R>> {
    let place = descend(nodes, root, owner, key)?;
    let view = place.view();
    let i = view.below(key);
    if i < view.count() {
        return Ok(Some(f(view.key(i), view.payload(i))));
    }
    let Some(after) = place.after else { return Ok(None) };
    let leaf = edge(nodes, owner, after, false)?;
    Ok(Some(f(leaf.view().key(0), leaf.view().payload(0))))
}

/// The record with the largest key at or below a key, and those beside it, as `decode` makes them.
#[derive(Debug)]
pub(crate) struct Near<R> {
    /// The record before the one at the key.
    pub before: Option<R>,
    /// The one at or below the key.
    pub at: Option<R>,
    /// The first above the key.
    pub after: Option<R>,
}

/// The records around `key`: one way down, and a leaf more where `key` lies at the edge of one. Without `before` that one
/// is not looked for.
pub(crate) fn near<N: ReadNodes + ?Sized, R>(
    nodes: &N,
    root: &RootArea,
    owner: Ino,
    key: u64,
    before: bool,
    decode: impl Fn(u64, &[u8]) -> R,
) -> Result<Near<R>> {
    let place = descend(nodes, root, owner, key)?;
    let view = place.view();
    let of = |view: View<'_>, i: usize| decode(view.key(i), view.payload(i));
    // Records from here on are above the key.
    let above = view.at_or_below(key).map_or(0, |i| i + 1);
    let after = match place.after {
        _ if above < view.count() => Some(of(view, above)),
        Some(after) => Some(of(edge(nodes, owner, after, false)?.view(), 0)),
        None => None,
    };
    let mut near = Near { before: None, at: above.checked_sub(1).map(|i| of(view, i)), after };
    if above > 1 {
        near.before = before.then(|| of(view, above - 2));
        return Ok(near);
    }
    let Some(down) = place.before.filter(|_| before || above == 0) else { return Ok(near) };
    let leaf = edge(nodes, owner, down, true)?;
    let last = leaf.count() - 1;
    if above == 1 {
        near.before = Some(of(leaf.view(), last));
        return Ok(near);
    }
    let key = leaf.view().key(last);
    near.at = Some(of(leaf.view(), last));
    near.before = match (before, last.checked_sub(1), key.checked_sub(1)) {
        (false, ..) | (_, None, None) => None,
        (true, Some(i), _) => Some(of(leaf.view(), i)),
        (true, None, Some(key)) => with_floor(nodes, root, owner, key, decode)?,
    };
    Ok(near)
}

/// The record with the largest key at or below `key`.
///
/// # Errors
/// Damage on the way.
pub fn floor<N: ReadNodes + ?Sized>(
    nodes: &N,
    root: &RootArea,
    owner: Ino,
    key: u64,
) -> Result<Option<(u64, Payload)>> {
    with_floor(nodes, root, owner, key, |key, payload| (key, Payload::new(payload)))
}

/// The record with the smallest key at or above `key`.
///
/// # Errors
/// Damage on the way.
pub fn ceil<N: ReadNodes + ?Sized>(
    nodes: &N,
    root: &RootArea,
    owner: Ino,
    key: u64,
) -> Result<Option<(u64, Payload)>> {
    with_ceil(nodes, root, owner, key, |key, payload| (key, Payload::new(payload)))
}

/// The record with the largest key. Taking the last record away until there is none frees a tree of any size
/// in steps as small as wanted.
///
/// # Errors
/// Damage on the way.
pub fn last<N: ReadNodes + ?Sized>(nodes: &N, root: &RootArea, owner: Ino) -> Result<Option<(u64, Payload)>> {
    floor(nodes, root, owner, u64::MAX)
}

/// Shows `f` each record from key `from` on, ascending, until it breaks. Each node is read once.
///
/// # Errors
/// Damage on the way, and what `f` returns.
pub fn scan<N: ReadNodes + ?Sized>(
    nodes: &N,
    root: &RootArea,
    owner: Ino,
    from: u64,
    mut f: impl FnMut(u64, &[u8]) -> Result<ControlFlow<()>>,
) -> Result<()> {
    let view = open_root(root, owner)?;
    let mut scan = Scan { nodes, owner, from, f: &mut f };
    scan.records(view, Span::whole(root.level)).map(|_| ())
}

struct Scan<'s, N: ?Sized, F> {
    nodes: &'s N,
    owner: Ino,
    from: u64,
    f: &'s mut F,
}

impl<N: ReadNodes + ?Sized, F: FnMut(u64, &[u8]) -> Result<ControlFlow<()>>> Scan<'_, N, F> {
    fn records(&mut self, view: View<'_>, span: Span) -> Result<ControlFlow<()>> {
        let first = if span.level == 0 { view.below(self.from) } else { view.child_of(self.from) };
        for i in first..view.count() {
            let flow = if span.level == 0 {
                (self.f)(view.key(i), view.payload(i))?
            } else {
                let down = Down::child(view, span, i);
                let node = Node::read(self.nodes, self.owner, &down)?;
                self.records(node.view(), down.span)?
            };
            if flow.is_break() {
                return Ok(flow);
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// Shows `f` every node, parents before children: its pool offset and its image, or why it can not be
/// believed. Where `f` takes an error without returning it, the walk goes on beside the damaged node.
///
/// # Errors
/// Damage of the root area, and what `f` returns.
pub fn for_each_node<N: ReadNodes + ?Sized>(
    nodes: &N,
    root: &RootArea,
    owner: Ino,
    mut f: impl FnMut(PoolOff, Result<&Image>) -> Result<()>,
) -> Result<()> {
    let view = open_root(root, owner)?;
    visit(nodes, owner, view, Span::whole(root.level), &mut f)
}

fn visit<N: ReadNodes + ?Sized>(
    nodes: &N,
    owner: Ino,
    view: View<'_>,
    span: Span,
    f: &mut impl FnMut(PoolOff, Result<&Image>) -> Result<()>,
) -> Result<()> {
    if span.level == 0 {
        return Ok(());
    }
    for i in 0..view.count() {
        let down = Down::child(view, span, i);
        match Node::read(nodes, owner, &down) {
            Ok(node) => {
                f(down.at, Ok(node.image()))?;
                visit(nodes, owner, node.view(), down.span, f)?;
            }
            Err(error) => f(down.at, Err(error))?,
        }
    }
    Ok(())
}
