//! What should an operation do?
//!
//! The file system in the simplest form that answers every call: maps of names, blocks and attributes in
//! memory, errors as errno. What POSIX and Linux say is right; where they leave a choice, the comment says which.

mod sharing;

use super::ops::{Attributes, BLOCK, Blocks, Must, On, Op, Outcome, Target, pattern};
use super::state::{Body, Cell, Entry, State, Torn};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

type Id = u64;
type Answer<T = Outcome> = Result<T, i32>;

const ROOT: Id = 0;

#[derive(Clone, Debug)]
enum Kind {
    Directory(BTreeMap<String, Id>),
    Symlink(&'static str),
    File(BTreeMap<u64, Cell>),
}

#[derive(Clone, Debug)]
struct Node {
    mode: u32,
    links: u32,
    uid: u32,
    gid: u32,
    size: u64,
    atime: Option<i64>,
    mtime: Option<i64>,
    xattrs: BTreeMap<String, Vec<u8>>,
    capacity: Option<u64>,
    grown: bool,
    kind: Kind,
}

/// The file system in memory.
#[derive(Clone, Debug)]
pub struct Model {
    nodes: BTreeMap<Id, Node>,
    next: Id,
    handles: BTreeMap<u8, Id>,
    /// User and group of what is made.
    owner: (u32, u32),
}

/// Where a path leads: the directory, the name in it, and what has that name.
struct Place {
    directory: Id,
    name: String,
    node: Option<Id>,
}

impl Node {
    fn new(mode: u32, kind: Kind) -> Self {
        let links = if matches!(kind, Kind::Directory(_)) { 2 } else { 1 };
        let (uid, gid, size, atime, mtime) = (0, 0, 0, None, None);
        let (xattrs, capacity) = (BTreeMap::new(), None);
        Self { mode, links, uid, gid, size, atime, mtime, xattrs, capacity, grown: false, kind }
    }

    fn is_directory(&self) -> bool {
        matches!(self.kind, Kind::Directory(_))
    }

    fn names(&mut self) -> Answer<&mut BTreeMap<String, Id>> {
        match &mut self.kind {
            Kind::Directory(names) => Ok(names),
            _ => Err(libc::ENOTDIR),
        }
    }

    fn cells(&mut self) -> Answer<&mut BTreeMap<u64, Cell>> {
        match &mut self.kind {
            Kind::File(cells) => Ok(cells),
            Kind::Directory(_) => Err(libc::EISDIR),
            Kind::Symlink(_) => Err(libc::EINVAL),
        }
    }
}

impl Model {
    /// A file system with the given root directory alone, whose owner makes everything.
    pub fn new(root: &Entry) -> Self {
        let mut node = Node::new(root.mode, Kind::Directory(BTreeMap::new()));
        (node.uid, node.gid) = (root.uid, root.gid);
        let owner = (root.uid, root.gid);
        Self { nodes: [(ROOT, node)].into(), next: 1, handles: BTreeMap::new(), owner }
    }

    /// Does `op`; an error is an errno, and then nothing has changed.
    pub fn apply(&mut self, op: &Op) -> Answer {
        match *op {
            Op::Create(path) => self.add(path, Node::new(0o644, Kind::File(BTreeMap::new()))).map(drop),
            Op::CreateSequential { path, capacity } => {
                let capacity = Some(if capacity == 0 { 1 << 62 } else { capacity });
                self.add(path, Node { capacity, ..Node::new(0o644, Kind::File(BTreeMap::new())) }).map(drop)
            }
            Op::Hint { on, .. } => {
                return self.on_node(on, |node| {
                    node.grown = true;
                    node.cells().map(drop)
                });
            }
            Op::Reset(on) => return self.on_file(on, Node::reset),
            Op::CreateUnnamed { path, len, fill } => self.create_unnamed(path, len, fill),
            Op::Mkdir(path) => self.add(path, Node::new(0o755, Kind::Directory(BTreeMap::new()))).map(drop),
            Op::Rmdir(path) => self.rmdir(path),
            Op::Unlink(path) => self.unlink(path),
            Op::Link { from, to } => self.link(from, to),
            Op::Symlink { target, path } => self.add(path, Node::new(0o777, Kind::Symlink(target))).map(drop),
            Op::Rename { from, to, target } => self.rename(from, to, target),
            Op::Write { on, at, len, fill } => return self.write(on, Some(at), len, fill),
            Op::Append { on, len, fill } => return self.write(on, None, len, fill),
            Op::Truncate { on, size } => return self.on_file(on, |node| node.truncate(size)),
            Op::Fallocate { on, blocks, at, len } => {
                return match blocks {
                    Blocks::Unshare => self.on_node(on, |node| node.fallocate(blocks, at, len)),
                    _ => self.on_file(on, |node| node.fallocate(blocks, at, len)),
                };
            }
            Op::Populate { on, at, len, whole } => return self.populate(on, at, len, whole),
            Op::Reflink { from, to, at, to_at, len, same } => {
                return self.reflink(from, to, at, to_at, len, same);
            }
            Op::Become { from, to } => return self.become_(from, to),
            Op::Clone { from, to } => self.clone_file(from, to),
            Op::Defrag(on) => return self.on_node(on, |node| node.cells().map(drop)),
            Op::SetAttr { on, set } => return self.on_node(on, |node| node.set_attributes(&set)),
            Op::SetXattr { on, name, len, fill, must } => {
                let value = super::ops::bytes(fill, 0, len);
                return self.on_node(on, |node| node.set_xattr(name, value, must));
            }
            Op::RemoveXattr { on, name } => {
                let remove = |node: &mut Node| node.xattrs.remove(name).map(drop).ok_or(libc::ENODATA);
                return self.on_node(on, remove);
            }
            Op::Open { path, handle } => return self.open(path, handle),
            Op::Close(handle) => return Ok(self.close(handle)),
        }
        .map(|()| Outcome::Done)
    }

    /// Whether `op` would do something.
    pub fn accepts(&self, op: &Op) -> bool {
        !matches!(self.clone().apply(op), Err(_) | Ok(Outcome::Skipped))
    }

    /// Closes every handle, as a power cut or a close of the store does.
    pub fn close_all(&mut self) {
        while let Some(handle) = self.handles.keys().next().copied() {
            self.close(handle);
        }
    }

    fn node(&self, id: Id) -> &Node {
        &self.nodes[&id]
    }

    fn node_mut(&mut self, id: Id) -> &mut Node {
        self.nodes.get_mut(&id).expect("an id of the model's")
    }

    /// Follows `path` from `directory`; the last component too, if it is a symbolic link and `follow` is set.
    fn walk(&self, directory: Id, path: &str, follow: bool, hops: u32) -> Answer<Place> {
        let (parent, name) = path.rsplit_once('/').map_or(("", path), |(parent, name)| (parent, name));
        let directory = match parent {
            "" => directory,
            parent => self.walk(directory, parent, true, hops)?.node.ok_or(libc::ENOENT)?,
        };
        let Kind::Directory(names) = &self.node(directory).kind else {
            return Err(libc::ENOTDIR);
        };
        let node = names.get(name).copied();
        match node.map(|id| &self.node(id).kind) {
            Some(Kind::Symlink(_)) if follow && hops == 40 => Err(libc::ELOOP),
            Some(Kind::Symlink(target)) if follow => self.walk(directory, target, true, hops + 1),
            _ => Ok(Place { directory, name: name.to_string(), node }),
        }
    }

    fn place(&self, path: &str) -> Answer<Place> {
        self.walk(ROOT, path, false, 0)
    }

    fn resolve(&self, path: &str) -> Answer<Id> {
        self.walk(ROOT, path, true, 0)?.node.ok_or(libc::ENOENT)
    }

    /// Whether there is something at `path`.
    pub fn exists(&self, path: &str) -> bool {
        self.place(path).is_ok_and(|place| place.node.is_some())
    }

    fn on_node(&mut self, on: On, change: impl FnOnce(&mut Node) -> Answer<()>) -> Answer {
        let id = match on {
            On::Path(path) => self.resolve(path)?,
            On::Open(handle) => match self.handles.get(&handle) {
                Some(id) => *id,
                None => return Ok(Outcome::Skipped),
            },
        };
        change(self.node_mut(id)).map(|()| Outcome::Done)
    }

    fn on_file(&mut self, on: On, change: impl FnOnce(&mut Node) -> Answer<()>) -> Answer {
        self.on_node(on, |node| {
            node.cells()?;
            change(node)?;
            node.mtime = None;
            Ok(())
        })
    }

    fn set_name(&mut self, directory: Id, name: &str, id: Option<Id>) {
        let directory = self.node_mut(directory);
        directory.mtime = None;
        if let Kind::Directory(names) = &mut directory.kind {
            match id {
                Some(id) => names.insert(name.to_string(), id),
                None => names.remove(name),
            };
        }
    }

    fn add(&mut self, path: &str, mut node: Node) -> Answer<Id> {
        let place = self.place(path)?;
        if place.node.is_some() {
            return Err(libc::EEXIST);
        }
        let id = self.next;
        self.next += 1;
        (node.uid, node.gid) = self.owner;
        if node.is_directory() {
            self.node_mut(place.directory).links += 1;
        }
        self.nodes.insert(id, node);
        self.set_name(place.directory, &place.name, Some(id));
        Ok(id)
    }

    fn create_unnamed(&mut self, path: &str, len: u64, fill: u8) -> Answer<()> {
        let id = self.add(path, Node::new(0o644, Kind::File(BTreeMap::new())))?;
        self.node_mut(id).write(0, len, fill)
    }

    /// One name of `id` less; the inode goes with its last name and handle.
    fn drop_link(&mut self, id: Id) {
        self.node_mut(id).links -= 1;
        self.reap(id);
    }

    fn reap(&mut self, id: Id) {
        if self.node(id).links == 0 && !self.handles.values().any(|open| *open == id) {
            self.nodes.remove(&id);
        }
    }

    fn unlink(&mut self, path: &str) -> Answer<()> {
        let place = self.place(path)?;
        let id = place.node.ok_or(libc::ENOENT)?;
        if self.node(id).is_directory() {
            return Err(libc::EISDIR);
        }
        self.set_name(place.directory, &place.name, None);
        self.drop_link(id);
        Ok(())
    }

    fn rmdir(&mut self, path: &str) -> Answer<()> {
        let place = self.place(path)?;
        let id = place.node.ok_or(libc::ENOENT)?;
        if !self.node_mut(id).names()?.is_empty() {
            return Err(libc::ENOTEMPTY);
        }
        self.set_name(place.directory, &place.name, None);
        self.nodes.remove(&id);
        self.node_mut(place.directory).links -= 1;
        Ok(())
    }

    /// A symbolic link is linked itself, as Linux does.
    fn link(&mut self, from: &str, to: &str) -> Answer<()> {
        let id = self.place(from)?.node.ok_or(libc::ENOENT)?;
        let place = self.place(to)?;
        if place.node.is_some() {
            return Err(libc::EEXIST);
        }
        if self.node(id).is_directory() {
            return Err(libc::EPERM);
        }
        self.node_mut(id).links += 1;
        self.set_name(place.directory, &place.name, Some(id));
        Ok(())
    }

    /// Whether `below` is `above` or lies somewhere below it.
    fn is_within(&self, below: Id, above: Id) -> bool {
        let children = match &self.node(above).kind {
            Kind::Directory(names) => names.values().copied().collect(),
            _ => Vec::new(),
        };
        below == above || children.into_iter().any(|child| self.is_within(below, child))
    }

    fn rename(&mut self, from: &str, to: &str, target: Target) -> Answer<()> {
        let (from, to) = (self.place(from)?, self.place(to)?);
        let id = from.node.ok_or(libc::ENOENT)?;
        match (target, to.node) {
            (Target::NoReplace, Some(_)) => return Err(libc::EEXIST),
            (Target::Exchange, None) => return Err(libc::ENOENT),
            _ => {}
        }
        if self.is_within(to.directory, id) {
            return Err(libc::EINVAL);
        }
        match to.node {
            Some(over) if over == id => Ok(()),
            Some(over) if target == Target::Exchange => self.exchange(&from, &to, id, over),
            Some(over) => self.replace(&from, &to, id, over),
            None => {
                self.move_name(&from, &to, id);
                Ok(())
            }
        }
    }

    fn exchange(&mut self, from: &Place, to: &Place, id: Id, over: Id) -> Answer<()> {
        if self.is_within(from.directory, over) {
            return Err(libc::EINVAL);
        }
        let directories = |id: Id| u32::from(self.node(id).is_directory());
        let (there, back) = (directories(id), directories(over));
        self.set_name(from.directory, &from.name, Some(over));
        self.set_name(to.directory, &to.name, Some(id));
        let links = &mut self.node_mut(from.directory).links;
        *links = *links + back - there;
        let links = &mut self.node_mut(to.directory).links;
        *links = *links + there - back;
        Ok(())
    }

    fn replace(&mut self, from: &Place, to: &Place, id: Id, over: Id) -> Answer<()> {
        match (self.node(id).is_directory(), &self.node(over).kind) {
            (true, Kind::Directory(names)) if !names.is_empty() => return Err(libc::ENOTEMPTY),
            (true, Kind::Directory(_)) => self.rmdir_at(to, over),
            (true, _) => return Err(libc::ENOTDIR),
            (false, Kind::Directory(_)) => return Err(libc::EISDIR),
            (false, _) => self.drop_link(over),
        }
        self.move_name(from, to, id);
        Ok(())
    }

    fn rmdir_at(&mut self, place: &Place, id: Id) {
        self.nodes.remove(&id);
        self.node_mut(place.directory).links -= 1;
    }

    fn move_name(&mut self, from: &Place, to: &Place, id: Id) {
        self.set_name(from.directory, &from.name, None);
        self.set_name(to.directory, &to.name, Some(id));
        if self.node(id).is_directory() {
            self.node_mut(from.directory).links -= 1;
            self.node_mut(to.directory).links += 1;
        }
    }

    fn write(&mut self, on: On, at: Option<u64>, len: u64, fill: u8) -> Answer {
        let mut offset = 0;
        let answer = self.on_node(on, |node| {
            node.cells()?;
            offset = at.unwrap_or(node.size);
            node.write(offset, len, fill)
        })?;
        Ok(match (answer, at) {
            (Outcome::Done, Some(_)) => Outcome::Wrote(len),
            (Outcome::Done, None) => Outcome::Appended(offset),
            (other, _) => other,
        })
    }

    fn populate(&mut self, on: On, at: u64, len: u64, whole: bool) -> Answer {
        let mut done = true;
        let answer = self.on_node(on, |node| {
            let size = node.size;
            node.cells()?;
            node.changeable()?;
            let cells = node.cells()?;
            let range = blocks(&(at..at + len));
            if range.end > size.div_ceil(BLOCK) || range.start / 512 != (range.end - 1) / 512 {
                return Err(libc::EINVAL);
            }
            let mapped = |block| matches!(cells.get(&block), Some(Cell::Mapped(_)));
            if range.clone().all(mapped) || whole && range.clone().any(mapped) {
                done = !whole;
                return Ok(());
            }
            for block in range {
                map(cells, block);
            }
            node.mtime = None;
            Ok(())
        })?;
        Ok(if done { answer } else { Outcome::Skipped })
    }

    fn open(&mut self, path: &str, handle: u8) -> Answer {
        if self.handles.contains_key(&handle) {
            return Ok(Outcome::Skipped);
        }
        let id = self.resolve(path)?;
        self.node_mut(id).cells()?;
        self.handles.insert(handle, id);
        Ok(Outcome::Done)
    }

    fn close(&mut self, handle: u8) -> Outcome {
        match self.handles.remove(&handle) {
            Some(id) => {
                self.reap(id);
                Outcome::Done
            }
            None => Outcome::Skipped,
        }
    }

    /// The words of named files that `op`, done now, overwrites in place.
    pub fn torn(&self, op: &Op, state: &State) -> Vec<Torn> {
        let on = match op {
            Op::Write { on, .. } | Op::Append { on, .. } | Op::Fallocate { on, .. } => *on,
            _ => return Vec::new(),
        };
        let id = match on {
            On::Path(path) => self.resolve(path).ok(),
            On::Open(handle) => self.handles.get(&handle).copied(),
        };
        let Some(id) = id else { return Vec::new() };
        let path = self.paths().into_iter().find(|(_, other)| *other == id);
        let Some(entry) = path.and_then(|(path, _)| state.names.get(&path)) else {
            return Vec::new();
        };
        let node = self.node(id);
        let ranges = match *op {
            Op::Write { at, len, .. } => std::iter::once(at..at + len).collect(),
            Op::Append { len, .. } => std::iter::once(node.size..node.size + len).collect(),
            Op::Fallocate { blocks: Blocks::Punch | Blocks::Zero, at, len, .. } => edges(at..at + len),
            _ => Vec::new(),
        };
        ranges.into_iter().map(|range| (entry.identity.clone(), range)).collect()
    }

    /// Every path with its node, in order.
    fn paths(&self) -> Vec<(String, Id)> {
        let mut paths = Vec::new();
        self.add_paths(String::new(), ROOT, &mut paths);
        paths.sort();
        paths
    }

    fn add_paths(&self, path: String, id: Id, paths: &mut Vec<(String, Id)>) {
        if let Kind::Directory(names) = &self.node(id).kind {
            for (name, child) in names {
                let below = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
                self.add_paths(below, *child, paths);
            }
        }
        paths.push((path, id));
    }

    /// What a user sees through names.
    pub fn state(&self) -> State {
        let paths = self.paths();
        let mut first = BTreeMap::new();
        let mut state = State::default();
        for (path, id) in paths {
            let identity = first.entry(id).or_insert_with(|| path.clone()).clone();
            state.names.insert(path, self.node(id).entry(identity));
        }
        state
    }

    /// What a user sees through open handles.
    pub fn open_files(&self) -> BTreeMap<u8, Entry> {
        let entry = |(handle, id): (&u8, &Id)| (*handle, self.node(*id).entry(String::new()));
        self.handles.iter().map(entry).collect()
    }
}

impl Node {
    /// Blocks past the end, and bytes past it, are not seen.
    fn entry(&self, identity: String) -> Entry {
        let body = match &self.kind {
            Kind::Directory(_) => Body::Directory,
            Kind::Symlink(target) => Body::Symlink(target.as_bytes().to_vec()),
            Kind::File(cells) => {
                let seen = cells.range(..self.size.div_ceil(BLOCK));
                Body::File(seen.map(|(block, cell)| (*block, cell.clone())).collect())
            }
        };
        Entry {
            identity,
            mode: self.mode,
            links: self.links,
            uid: self.uid,
            gid: self.gid,
            size: self.size,
            atime: self.atime,
            mtime: self.mtime,
            xattrs: self.xattrs.clone(),
            capacity: self.capacity,
            grown: self.grown,
            body,
        }
    }

    fn write(&mut self, at: u64, len: u64, fill: u8) -> Answer<()> {
        if len == 0 {
            return Ok(());
        }
        match self.capacity {
            Some(_) if at != self.size => return Err(libc::EINVAL),
            Some(capacity) if at + len > capacity => return Err(libc::EFBIG),
            _ => {}
        }
        let cells = self.cells()?;
        for block in blocks(&(at..at + len)) {
            let page = map(cells, block);
            for offset in within(block, &(at..at + len)) {
                page[(offset % BLOCK) as usize] = pattern(fill, offset);
            }
        }
        self.grown |= at + len > self.size;
        self.size = self.size.max(at + len);
        self.mtime = None;
        Ok(())
    }

    fn reset(&mut self) -> Answer<()> {
        if self.capacity.is_none() {
            return Err(libc::EINVAL);
        }
        self.size = 0;
        self.cells()?.clear();
        Ok(())
    }

    /// Fails for a sequential file.
    fn changeable(&self) -> Answer<()> {
        if self.capacity.is_some() { Err(libc::EINVAL) } else { Ok(()) }
    }

    fn truncate(&mut self, size: u64) -> Answer<()> {
        self.changeable()?;
        let old = self.size;
        let cells = self.cells()?;
        if size <= old {
            // Space that was asked for beyond the end stays where the file grows into it.
            cells.split_off(&size.div_ceil(BLOCK));
        }
        if let Some(Cell::Mapped(page)) = cells.get_mut(&(size / BLOCK)) {
            Arc::make_mut(page)[(size % BLOCK) as usize..].fill(0);
        }
        self.size = size;
        Ok(())
    }

    fn fallocate(&mut self, change: Blocks, at: u64, len: u64) -> Answer<()> {
        if len == 0 {
            return Err(libc::EINVAL);
        }
        if change == Blocks::Unshare {
            return self.cells().map(|_| ());
        }
        if change != Blocks::KeepSize {
            self.changeable()?;
        }
        if matches!(change, Blocks::Collapse | Blocks::Insert) {
            return self.shift(change, at, len);
        }
        let cells = self.cells()?;
        let range = at..at + len;
        let full = range.start.div_ceil(BLOCK)..range.end / BLOCK;
        if matches!(change, Blocks::Punch | Blocks::Zero) {
            for edge in edges(range.clone()) {
                if let Some(Cell::Mapped(page)) = cells.get_mut(&(edge.start / BLOCK)) {
                    let start = (edge.start % BLOCK) as usize;
                    let end = start + (edge.end - edge.start) as usize;
                    Arc::make_mut(page)[start..end].fill(0);
                }
            }
            full.for_each(|block| drop(cells.remove(&block)));
        }
        if change != Blocks::Punch {
            for block in blocks(&range) {
                cells.entry(block).or_insert(Cell::Unwritten);
            }
        }
        if matches!(change, Blocks::Allocate | Blocks::Zero) {
            self.size = self.size.max(range.end);
        }
        Ok(())
    }

    fn shift(&mut self, change: Blocks, at: u64, len: u64) -> Answer<()> {
        let size = self.size;
        let collapse = change == Blocks::Collapse;
        if !at.is_multiple_of(BLOCK)
            || !len.is_multiple_of(BLOCK)
            || (if collapse { at + len } else { at }) >= size
        {
            return Err(libc::EINVAL);
        }
        self.size = if collapse { size - len } else { size + len };
        let (from, by) = (at / BLOCK, len / BLOCK);
        let cells = self.cells()?;
        let mut rest = cells.split_off(&from);
        if collapse {
            rest = rest.split_off(&(from + by));
        }
        cells.extend(
            rest.into_iter().map(|(block, cell)| (if collapse { block - by } else { block + by }, cell)),
        );
        Ok(())
    }

    fn set_attributes(&mut self, set: &Attributes) -> Answer<()> {
        self.mode = set.mode.unwrap_or(self.mode);
        self.uid = set.uid.unwrap_or(self.uid);
        self.gid = set.gid.unwrap_or(self.gid);
        self.atime = set.atime.or(self.atime);
        self.mtime = set.mtime.or(self.mtime);
        Ok(())
    }

    fn set_xattr(&mut self, name: &str, value: Vec<u8>, must: Must) -> Answer<()> {
        match (must, self.xattrs.contains_key(name)) {
            (Must::Create, true) => return Err(libc::EEXIST),
            (Must::Replace, false) => return Err(libc::ENODATA),
            _ => self.xattrs.insert(name.to_string(), value),
        };
        Ok(())
    }
}

/// The blocks that a range of bytes touches.
fn blocks(range: &Range<u64>) -> Range<u64> {
    range.start / BLOCK..range.end.div_ceil(BLOCK)
}

/// The part of a range that lies in a block.
fn within(block: u64, range: &Range<u64>) -> Range<u64> {
    range.start.max(block * BLOCK)..range.end.min((block + 1) * BLOCK)
}

/// The parts of a range that cover a block only partly.
fn edges(range: Range<u64>) -> Vec<Range<u64>> {
    let parts = blocks(&range).map(|block| within(block, &range));
    parts.filter(|part| part.end - part.start < BLOCK).collect()
}

/// The bytes of a block, which is mapped from now on.
fn map(cells: &mut BTreeMap<u64, Cell>, block: u64) -> &mut [u8; 4096] {
    let cell = cells.entry(block).or_insert(Cell::Unwritten);
    if *cell == Cell::Unwritten {
        *cell = Cell::Mapped(Arc::new([0; 4096]));
    }
    match cell {
        Cell::Mapped(page) => Arc::make_mut(page),
        Cell::Unwritten => unreachable!("it was just mapped"),
    }
}
