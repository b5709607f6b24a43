//! What is one node, and when is it believed?
//!
//! | offset | bytes | field |
//! | ---: | ---: | --- |
//! | 0 | 16 | header |
//! | 16 | 8 | owner: the inode whose tree the node is part of |
//! | 24 | 1 | level: 0 for a leaf |
//! | 25 | 1 | reserved, zero |
//! | 26 | 2 | records |
//! | 28 | 4 | reserved, zero |
//! | 32 | up to 480 | packed records |

use super::nodes::ReadNodes;
use super::records::{Broken, Packed, View};
use crate::error::{Damage, Error, Result, Structure};
use crate::layout::{Image, Kind, MAX_TREE_LEVEL, NODE_FIXED_BYTES, RootArea, get16, get64, put};
use crate::units::{Ino, PoolOff};
use std::ops::Range;

/// What a node may hold: its level and the keys from `low` to `high`, both included.
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub level: u8,
    pub low: u64,
    pub high: u64,
}

impl Span {
    /// The span of a root on `level`.
    pub const fn whole(level: u8) -> Self {
        Self { level, low: 0, high: u64::MAX }
    }

    /// Whether nothing lies to the right of a node with this span.
    pub const fn is_rightmost(self) -> bool {
        self.high == u64::MAX
    }
}

/// A node to go to, and what it must hold.
#[derive(Clone, Copy)]
pub(super) struct Down {
    pub at: PoolOff,
    pub span: Span,
}

impl Down {
    /// The child that record `i` of `view` names, where `view` has span `of` and a level above 0.
    pub fn child(view: View<'_>, of: Span, i: usize) -> Self {
        let low = if i == 0 { of.low } else { view.key(i) };
        let high = if i + 1 < view.count() { view.key(i + 1).saturating_sub(1) } else { of.high };
        Self { at: view.child(i), span: Span { level: of.level.saturating_sub(1), low, high } }
    }
}

/// A checked copy of a node, or one in the making.
pub(super) struct Node {
    image: Image,
}

impl Node {
    /// An empty node.
    pub fn new(owner: Ino, level: u8) -> Self {
        let mut image = Image::new(Kind::Node, NODE_FIXED_BYTES);
        put(image.bytes_mut(), 16, &owner.0.to_le_bytes());
        put(image.bytes_mut(), 24, &[level]);
        Self { image }
    }

    /// A node of the records `range` of `view`.
    pub fn of(owner: Ino, level: u8, view: View<'_>, range: Range<usize>) -> Self {
        let mut node = Self::new(owner, level);
        node.extend(view, range);
        node
    }

    /// The node at `down`, once it was found to be what its parent says.
    pub fn read<N: ReadNodes + ?Sized>(nodes: &N, owner: Ino, down: &Down) -> Result<Self> {
        let image = nodes.read_node(down.at)?;
        match check(&image, owner, down.span) {
            Ok(()) => {
                if !image.is_trusted() {
                    nodes.vouch(down.at, &image);
                }
                Ok(Self { image })
            }
            Err((what, expected, found)) => {
                Err(Damage::new(Structure::Node, down.at, what, expected, found).into())
            }
        }
    }

    pub fn image(&self) -> &Image {
        &self.image
    }

    pub fn into_image(self) -> Image {
        self.image
    }
}

fn check(image: &Image, owner: Ino, span: Span) -> Result<(), Broken> {
    let b = image.bytes();
    if image.kind() != Kind::Node {
        return Err(("kind", Kind::Node as u64, image.kind() as u64));
    }
    if b.len() < NODE_FIXED_BYTES {
        return Err(("length", NODE_FIXED_BYTES as u64, b.len() as u64));
    }
    if get64(b, 16) != owner.0 {
        return Err(("owner", owner.0, get64(b, 16)));
    }
    if b[24] != span.level {
        return Err(("level", u64::from(span.level), u64::from(b[24])));
    }
    let (area, count) = (&b[NODE_FIXED_BYTES..], usize::from(get16(b, 26)));
    let view =
        if image.is_trusted() { View::trusted(area, count) } else { View::open(area, count, span.level)? };
    let Some(last) = view.count().checked_sub(1) else {
        return Err(("record count", 1, 0));
    };
    if view.key(0) < span.low {
        return Err(("lowest key", span.low, view.key(0)));
    }
    if view.key(last) > span.high {
        return Err(("highest key", span.high, view.key(last)));
    }
    Ok(())
}

impl Packed for Node {
    fn count(&self) -> usize {
        usize::from(get16(self.image.bytes(), 26))
    }

    fn area(&self) -> &[u8] {
        &self.image.bytes()[NODE_FIXED_BYTES..]
    }

    fn resize(&mut self, count: usize, used: usize) -> &mut [u8] {
        self.image.set_len(NODE_FIXED_BYTES + used);
        put(self.image.bytes_mut(), 26, &(count as u16).to_le_bytes());
        &mut self.image.bytes_mut()[NODE_FIXED_BYTES..]
    }
}

/// The records of a root area, checked.
pub(super) fn open_root(root: &RootArea, owner: Ino) -> Result<View<'_>> {
    let damage = |(what, expected, found)| {
        Error::from(Damage::new(Structure::Inode, owner.offset(), what, expected, found))
    };
    if root.trusted {
        return Ok(View::trusted(&root.area[..root.used], usize::from(root.count)));
    }
    let area = root.area.get(..root.used);
    let area = area.ok_or_else(|| damage(("root area", root.area.len() as u64, root.used as u64)))?;
    // One more than a node can have: the pointer to a node of the highest level.
    if root.level > MAX_TREE_LEVEL + 1 {
        return Err(damage(("root level", u64::from(MAX_TREE_LEVEL), u64::from(root.level))));
    }
    if root.level > 0 && root.count == 0 {
        return Err(damage(("root children", 1, 0)));
    }
    View::open(area, usize::from(root.count), root.level).map_err(damage)
}

/// Trusts the root area of `owner` from now on, if its packing is well formed; else every use of it says why not.
pub fn vouch_root(root: &mut RootArea, owner: Ino) {
    root.trusted = open_root(root, owner).is_ok();
}
