//! How does a record get in?
//!
//! One descent; a node with room is written once and nothing else is. A node without room is cut: at the right
//! end of the tree the full node stays as it is and the new record starts a new one, so that growth in key
//! order fills nodes; elsewhere the bytes are halved. Records differ in size, so that a record may need a node
//! to itself between two others: a cut yields up to three nodes.

use super::node::{Down, Node, Span, open_root};
use super::nodes::WriteNodes;
use super::payload::MAX_PAYLOAD;
use super::records::{CHILD_BYTES, Packed, RECORD_BYTES, View, Wide};
use super::rooted::Room;
use crate::error::{Damage, Error, Result, Structure};
use crate::layout::{MAX_TREE_LEVEL, NODE_AREA_BYTES, RootArea};
use crate::units::{Ino, PoolOff};
use std::ops::Range;

/// Puts a record into the tree that `owner` keeps in `root`, in place of one with the same key.
///
/// # Errors
/// [`Error::InvalidArgument`] for more than [`MAX_PAYLOAD`] bytes, no space, damage on the way. After an error
/// the change that this was part of must be dropped.
pub fn insert<N: WriteNodes + ?Sized>(
    nodes: &mut N,
    root: &mut RootArea,
    owner: Ino,
    key: u64,
    payload: &[u8],
) -> Result<()> {
    insert_in(nodes, root, owner, Room::Area, key, payload)
}

/// How many node writes one insert into this tree can need at most, new nodes included.
#[must_use]
pub fn insert_writes(root: &RootArea) -> u64 {
    // The leaf in three, each node above in two, and up to two nodes below a new root.
    u64::from(root.level) * 2 + 3
}

pub(super) fn insert_in<N: WriteNodes + ?Sized>(
    nodes: &mut N,
    root: &mut RootArea,
    owner: Ino,
    room: Room,
    key: u64,
    payload: &[u8],
) -> Result<()> {
    if payload.len() > MAX_PAYLOAD {
        return Err(Error::InvalidArgument("a tree record has at most 470 bytes"));
    }
    let view = open_root(root, owner)?;
    let span = Span::whole(root.level);
    let mut writer = Writer { nodes, owner };
    let Some(change) = writer.change(view, span, key, payload)? else { return Ok(()) };
    if change.fits(view, room.bytes(root.level)) {
        change.apply(root);
        return Ok(());
    }
    writer.raise(root, &change)
}

/// The nodes that appeared right of a node, at most two, and the lowest key in it now.
struct Split {
    first: u64,
    new: [(u64, PoolOff); 2],
    count: usize,
}

/// Up to three records to put in place of record `at`, or before it.
struct Change<'a> {
    at: usize,
    replace: bool,
    records: [(u64, Bytes<'a>); 3],
    count: usize,
}

/// A payload: a caller's, or the name of a child.
#[derive(Clone, Copy)]
enum Bytes<'a> {
    Record(&'a [u8]),
    Child([u8; 8]),
}

impl Bytes<'_> {
    fn child(at: PoolOff) -> Self {
        Self::Child(at.0.to_le_bytes())
    }

    fn get(&self) -> &[u8] {
        match self {
            Self::Record(bytes) => bytes,
            Self::Child(bytes) => bytes,
        }
    }
}

impl<'a> Change<'a> {
    /// Puts one record among the records of a leaf.
    fn record(view: View<'_>, key: u64, payload: &'a [u8]) -> Self {
        let record = (key, Bytes::Record(payload));
        Self { at: view.below(key), replace: view.find(key).is_some(), records: [record; 3], count: 1 }
    }

    /// Names the nodes that appeared right of child `i`.
    fn children(view: View<'_>, i: usize, split: &Split) -> Self {
        let own = (view.key(i).min(split.first), Bytes::child(view.child(i)));
        let mut change = Self { at: i + 1, replace: false, records: [own; 3], count: 0 };
        // Only a first child can hold keys below its bound; between siblings the bound becomes binding.
        if split.first < view.key(i) {
            (change.at, change.replace, change.count) = (i, true, 1);
        }
        for (key, at) in &split.new[..split.count] {
            change.records[change.count] = (*key, Bytes::child(*at));
            change.count += 1;
        }
        change
    }

    fn new_records(&self) -> &[(u64, Bytes<'a>)] {
        &self.records[..self.count]
    }

    fn replaced(&self) -> usize {
        usize::from(self.replace)
    }

    fn fits(&self, view: View<'_>, capacity: usize) -> bool {
        let gone = if self.replace { RECORD_BYTES + view.payload(self.at).len() } else { 0 };
        let come: usize = self.new_records().iter().map(|(_, b)| RECORD_BYTES + b.get().len()).sum();
        view.used() - gone + come <= capacity
    }

    /// Makes the change in place; the caller saw that it fits.
    fn apply(&self, holder: &mut impl Packed) {
        let mut records = self.new_records();
        if let ([(key, bytes), rest @ ..], true) = (records, self.replace)
            && bytes.get().len() == holder.view().payload(self.at).len()
        {
            holder.set_key(self.at, *key);
            holder.overwrite(self.at, bytes.get());
            records = rest;
        } else if self.replace {
            holder.remove(self.at);
        }
        let from = self.at + self.count - records.len();
        for (i, (key, bytes)) in records.iter().enumerate() {
            holder.insert(from + i, *key, bytes.get());
        }
    }

    /// What `view` holds after the change.
    fn applied(&self, view: View<'_>) -> Wide {
        let mut wide = Wide::new();
        wide.extend(view, 0..self.at);
        for (key, bytes) in self.new_records() {
            wide.insert(wide.count(), *key, bytes.get());
        }
        wide.extend(view, self.at + self.replaced()..view.count());
        wide
    }

    /// Where to cut `wide` into two or three nodes.
    fn cuts(&self, wide: View<'_>) -> (usize, usize) {
        let size = |i: usize| i * RECORD_BYTES + wide.start(i);
        let larger = |i: usize| size(i).max(wide.used() - size(i));
        match (1..wide.count()).min_by_key(|i| larger(*i)) {
            Some(i) if larger(i) <= NODE_AREA_BYTES => (i, wide.count()),
            _ => (self.at, self.at + 1),
        }
    }
}

struct Writer<'n, N: ?Sized> {
    nodes: &'n mut N,
    owner: Ino,
}

impl<N: WriteNodes + ?Sized> Writer<'_, N> {
    /// What an insert asks of the holder of `view`, after what it did below: nothing, where it ended there.
    fn change<'p>(
        &mut self,
        view: View<'_>,
        span: Span,
        key: u64,
        payload: &'p [u8],
    ) -> Result<Option<Change<'p>>> {
        if span.level == 0 {
            return Ok(Some(Change::record(view, key, payload)));
        }
        let i = view.child_of(key);
        let split = self.insert(&Down::child(view, span, i), key, payload)?;
        Ok(split.map(|split| Change::children(view, i, &split)))
    }

    fn insert(&mut self, down: &Down, key: u64, payload: &[u8]) -> Result<Option<Split>> {
        let mut node = Node::read(self.nodes, self.owner, down)?;
        let Some(change) = self.change(node.view(), down.span, key, payload)? else { return Ok(None) };
        if change.fits(node.view(), NODE_AREA_BYTES) {
            change.apply(&mut node);
            self.nodes.write_node(down.at, node.into_image())?;
            return Ok(None);
        }
        if down.span.is_rightmost() && change.at == node.count() {
            return self.start_right_of(&node, down.span.level, &change).map(Some);
        }
        self.cut(down, &change.applied(node.view()), &change).map(Some)
    }

    /// Leaves a full node as it is and puts the change into a new one.
    fn start_right_of(&mut self, node: &Node, level: u8, change: &Change<'_>) -> Result<Split> {
        let mut wide = Wide::new();
        for (key, bytes) in change.new_records() {
            wide.insert(wide.count(), *key, bytes.get());
        }
        let new = self.put_new(level, wide.view(), 0..wide.count())?;
        Ok(Split { first: node.view().key(0), new: [new; 2], count: 1 })
    }

    /// Cuts what no longer fits the node at `down`.
    fn cut(&mut self, down: &Down, wide: &Wide, change: &Change<'_>) -> Result<Split> {
        let view = wide.view();
        let (first, second) = change.cuts(view);
        let left = Node::of(self.owner, down.span.level, view, 0..first);
        self.nodes.write_node(down.at, left.into_image())?;
        let new = self.put_new(down.span.level, view, first..second)?;
        let mut split = Split { first: view.key(0), new: [new; 2], count: 1 };
        if second < view.count() {
            split.new[1] = self.put_new(down.span.level, view, second..view.count())?;
            split.count = 2;
        }
        Ok(split)
    }

    /// Moves what no longer fits the root area into nodes below it.
    fn raise(&mut self, root: &mut RootArea, change: &Change<'_>) -> Result<()> {
        let level = root.level;
        if level >= MAX_TREE_LEVEL {
            let (at, most) = (self.owner.offset(), u64::from(MAX_TREE_LEVEL));
            return Err(Damage::new(Structure::Inode, at, "tree level", most, most + 1).into());
        }
        let wide = change.applied(root.view());
        let view = wide.view();
        let one = view.used() <= NODE_AREA_BYTES;
        let (first, second) = if one { (view.count(), view.count()) } else { change.cuts(view) };
        *root = RootArea { level: level + 1, trusted: root.trusted, ..RootArea::default() };
        for range in [0..first, first..second, second..view.count()] {
            if !range.is_empty() {
                let (key, at) = self.put_new(level, view, range)?;
                root.insert(root.count(), key, &at.0.to_le_bytes());
            }
        }
        Ok(())
    }

    /// Writes a new node of the records `range` of `view`: its lowest key and where it is.
    fn put_new(&mut self, level: u8, view: View<'_>, range: Range<usize>) -> Result<(u64, PoolOff)> {
        let key = view.key(range.start);
        let at = self.nodes.alloc_node()?;
        self.nodes.write_node(at, Node::of(self.owner, level, view, range).into_image())?;
        Ok((key, at))
    }
}

const _: () = assert!(3 * CHILD_BYTES <= crate::layout::ROOT_BYTES);
