//! What does the real store do, seen as the model sees itself?
//!
//! The only file of these tests that calls the public API for operations and snapshots.

use super::ops::{Attributes, BLOCK, Blocks, Must, On, Op, Outcome, Target, bytes};
use super::state::{Body, Cell, Entry, Page, State};
use daxstore::iomap::{FaultOps, FileRange, Placement, State as ExtentState};
use daxstore::{
    AllocateMode, Dir, File, Follow, Metadata, Node, OpenOptions, RenameMode, Result, SetAttributes, Store,
    XattrMode,
};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

/// Files larger than this are not read in full to see that what is not mapped reads as zeros.
const READ_IN_FULL: u64 = 1 << 20;

/// A store and the handles that operations left open.
pub struct Real {
    pub store: Store,
    handles: BTreeMap<u8, File>,
}

impl Real {
    /// A store without open handles.
    pub fn new(store: Store) -> Self {
        Self { store, handles: BTreeMap::new() }
    }

    /// Closes every handle.
    pub fn close_all(&mut self) {
        self.handles.clear();
    }

    /// Does `op`.
    pub fn run(&mut self, op: &Op) -> Result<Outcome> {
        let root: &Dir = self.store.root();
        match *op {
            Op::Create(path) => root.open(path, &OpenOptions::new().write(true).create_new(true)).map(drop),
            Op::CreateSequential { path, capacity } => {
                let options = OpenOptions::new().write(true).create_new(true);
                root.open(path, &options.sequential(true).capacity(capacity)).map(drop)
            }
            Op::Hint { on, blocks } => {
                return self.on_file(on, |file| file.set_extent_hint(blocks * BLOCK).map(|()| Outcome::Done));
            }
            Op::Reset(on) => return self.on_file(on, |file| file.reset().map(|()| Outcome::Done)),
            Op::CreateUnnamed { path, len, fill } => create_unnamed(root, path, len, fill),
            Op::Mkdir(path) => root.create_dir(path, 0o755).map(drop),
            Op::Rmdir(path) => root.remove_dir(path),
            Op::Unlink(path) => root.remove_file(path),
            Op::Link { from, to } => root.hard_link(from, to),
            Op::Symlink { target, path } => root.symlink(target, path).map(drop),
            Op::Rename { from, to, target } => root.rename_to(from, root, to, rename_mode(target)),
            Op::Write { on, at, len, fill } => {
                return self.on_file(on, |file| write(file, &bytes(fill, at, len), at));
            }
            Op::Append { on, len, fill } => return self.on_file(on, |file| append(file, len, fill)),
            Op::Truncate { on, size } => {
                return self.on_file(on, |file| file.set_len(size).map(|()| Outcome::Done));
            }
            Op::Fallocate { on, blocks, at, len } => {
                let mode = allocate_mode(blocks);
                return self.on_file(on, |file| file.allocate(at, len, mode).map(|()| Outcome::Done));
            }
            Op::Populate { on, at, len, whole } => {
                let placement = if whole { Placement::Whole } else { Placement::Any };
                let range = FileRange { offset: at, len };
                return self.on_file(on, |file| {
                    let done = file.populate(range, placement)?;
                    Ok(if done { Outcome::Done } else { Outcome::Skipped })
                });
            }
            Op::Reflink { from, to, at, to_at, len, same } => {
                return self.on_two(from, to, |from, to| {
                    let same = match same {
                        true => to.dedupe_range(from, at, to_at, len)?,
                        false => to.reflink_range(from, at, to_at, len).map(|()| true)?,
                    };
                    Ok(if same { Outcome::Done } else { Outcome::Skipped })
                });
            }
            Op::Become { from, to } => {
                return self.on_two(from, to, |from, to| to.reflink(from).map(|()| Outcome::Done));
            }
            Op::Clone { from, to } => root.reflink(from, to),
            Op::Defrag(on) => return self.on_file(on, |file| file.defrag().map(|_| Outcome::Done)),
            Op::SetAttr { on, set } => {
                return self.on_node(on, |node| node.set_attributes(&attributes(&set)));
            }
            Op::SetXattr { on, name, len, fill, must } => {
                let (value, must) = (bytes(fill, 0, len), xattr_mode(must));
                return self.on_node(on, |node| node.set_xattr(name, &value, must));
            }
            Op::RemoveXattr { on, name } => return self.on_node(on, |node| node.remove_xattr(name)),
            Op::Open { path, handle } => return self.open(path, handle),
            Op::Close(handle) => {
                let closed = self.handles.remove(&handle).is_some();
                return Ok(if closed { Outcome::Done } else { Outcome::Skipped });
            }
        }
        .map(|()| Outcome::Done)
    }

    fn on_file(&self, on: On, change: impl FnOnce(&File) -> Result<Outcome>) -> Result<Outcome> {
        match on {
            On::Path(path) => change(&self.store.root().open(path, &OpenOptions::new().write(true))?),
            On::Open(handle) => self.handles.get(&handle).map_or(Ok(Outcome::Skipped), change),
        }
    }

    fn on_two(
        &self,
        from: On,
        to: On,
        change: impl FnOnce(&File, &File) -> Result<Outcome>,
    ) -> Result<Outcome> {
        let find = |on| match on {
            On::Path(path) => {
                self.store.root().open(path, &OpenOptions::new().read(true).write(true)).map(Some)
            }
            On::Open(handle) => Ok(self.handles.get(&handle).cloned()),
        };
        match (find(from)?, find(to)?) {
            (Some(from), Some(to)) => change(&from, &to),
            _ => Ok(Outcome::Skipped),
        }
    }

    fn on_node(&self, on: On, change: impl FnOnce(&Node) -> Result<()>) -> Result<Outcome> {
        match on {
            On::Path(path) => change(&self.store.root().open_node(path, Follow::Yes)?)?,
            On::Open(handle) => match self.handles.get(&handle) {
                Some(file) => change(file)?,
                None => return Ok(Outcome::Skipped),
            },
        }
        Ok(Outcome::Done)
    }

    fn open(&mut self, path: &str, handle: u8) -> Result<Outcome> {
        if self.handles.contains_key(&handle) {
            return Ok(Outcome::Skipped);
        }
        let file = self.store.root().open(path, &OpenOptions::new().read(true).write(true))?;
        self.handles.insert(handle, file);
        Ok(Outcome::Done)
    }

    /// What a user sees through open handles.
    pub fn open_files(&self) -> Result<BTreeMap<u8, Entry>> {
        let entry = |(handle, file): (&u8, &File)| {
            Ok((*handle, entry(file, &file.metadata(), String::new(), file_body(file)?)?))
        };
        self.handles.iter().map(entry).collect()
    }
}

fn create_unnamed(root: &Dir, path: &str, len: u64, fill: u8) -> Result<()> {
    let file = root.open_unnamed(&OpenOptions::new().write(true))?;
    file.write_all_at(&bytes(fill, 0, len), 0)?;
    root.link_file(&file, path)
}

fn write(file: &File, data: &[u8], at: u64) -> Result<Outcome> {
    Ok(Outcome::Wrote(file.write_at(data, at)? as u64))
}

/// The bytes of an append depend on where it lands: nobody else writes meanwhile.
fn append(file: &File, len: u64, fill: u8) -> Result<Outcome> {
    let at = file.len();
    Ok(Outcome::Appended(file.append(&bytes(fill, at, len))?))
}

fn rename_mode(target: Target) -> RenameMode {
    match target {
        Target::Replace => RenameMode::Replace,
        Target::NoReplace => RenameMode::NoReplace,
        Target::Exchange => RenameMode::Exchange,
    }
}

fn allocate_mode(blocks: Blocks) -> AllocateMode {
    match blocks {
        Blocks::Allocate => AllocateMode::Allocate,
        Blocks::KeepSize => AllocateMode::KeepSize,
        Blocks::Punch => AllocateMode::Punch,
        Blocks::Zero => AllocateMode::Zero,
        Blocks::Collapse => AllocateMode::Collapse,
        Blocks::Insert => AllocateMode::Insert,
        Blocks::Unshare => AllocateMode::Unshare,
    }
}

fn xattr_mode(must: Must) -> XattrMode {
    match must {
        Must::Either => XattrMode::Either,
        Must::Create => XattrMode::Create,
        Must::Replace => XattrMode::Replace,
    }
}

fn attributes(set: &Attributes) -> SetAttributes {
    let Attributes { mode, uid, gid, atime, mtime } = *set;
    SetAttributes { mode, uid, gid, atime, mtime }
}

/// What a user sees of `store` through names.
pub fn state(store: &Store) -> Result<State> {
    let mut found = Vec::new();
    walk(store.root(), String::new(), &mut found)?;
    found.sort_by(|(a, ..), (b, ..)| a.cmp(b));
    let mut first: BTreeMap<u64, String> = BTreeMap::new();
    let mut state = State::default();
    for (path, ino, mut entry) in found {
        entry.identity.clone_from(first.entry(ino).or_insert_with(|| path.clone()));
        state.names.insert(path, entry);
    }
    Ok(state)
}

fn walk(directory: &Dir, path: String, found: &mut Vec<(String, u64, Entry)>) -> Result<()> {
    for item in directory.read_dir() {
        let item = item?;
        let name = item.name.to_string_lossy().into_owned();
        let below = if path.is_empty() { name } else { format!("{path}/{name}") };
        let node = directory.open_node(&item.name, Follow::No)?;
        let metadata = node.metadata();
        let body = match metadata.kind {
            daxstore::FileKind::Directory => {
                walk(&directory.open_dir(&item.name)?, below, found)?;
                continue;
            }
            daxstore::FileKind::Symlink => {
                Body::Symlink(directory.read_link(&item.name)?.as_os_str().as_bytes().to_vec())
            }
            daxstore::FileKind::Regular => {
                file_body(&directory.open(&item.name, &OpenOptions::new().read(true))?)?
            }
        };
        assert_eq!(metadata.ino, item.ino, "the entry {below} names the inode it leads to");
        assert_eq!(metadata.kind, item.kind, "the entry {below} names the kind of its inode");
        found.push((below, ino(&metadata), entry(&node, &metadata, String::new(), body)?));
    }
    let node: &Node = directory;
    let metadata = node.metadata();
    found.push((path, ino(&metadata), entry(node, &metadata, String::new(), Body::Directory)?));
    Ok(())
}

fn ino(metadata: &Metadata) -> u64 {
    metadata.ino.0
}

fn entry(node: &Node, metadata: &Metadata, identity: String, body: Body) -> Result<Entry> {
    let mut xattrs = BTreeMap::new();
    for name in node.list_xattrs()? {
        let value = node.get_xattr(OsStr::from_bytes(&name))?;
        xattrs.insert(String::from_utf8_lossy(&name).into_owned(), value);
    }
    Ok(Entry {
        identity,
        mode: metadata.mode,
        links: metadata.links,
        uid: metadata.uid,
        gid: metadata.gid,
        size: if matches!(body, Body::File(_)) { metadata.size } else { 0 },
        atime: Some(metadata.atime),
        mtime: Some(metadata.mtime),
        xattrs,
        capacity: metadata.capacity,
        grown: false,
        body,
    })
}

/// The content of a file: of small ones one read of everything, of large ones a read for each mapped block.
fn file_body(file: &File) -> Result<Body> {
    let size = file.len();
    let mut all = vec![0xa5; if size <= READ_IN_FULL { size as usize } else { 0 }];
    file.read_exact_at(&mut all, 0)?;
    let mut cells = BTreeMap::new();
    for extent in file.extents(0, size.next_multiple_of(BLOCK))? {
        for block in extent.range.offset / BLOCK..extent.range.end().div_ceil(BLOCK) {
            let cell = match extent.state {
                ExtentState::Hole | ExtentState::Reserved => continue,
                ExtentState::Unwritten(_) => Cell::Unwritten,
                ExtentState::Mapped(_) if all.is_empty() => Cell::Mapped(page(file, block, size)?),
                ExtentState::Mapped(_) => Cell::Mapped(page_of(&all, block)),
            };
            assert!(cells.insert(block, cell).is_none(), "block {block} is in two extents");
        }
    }
    for (block, bytes) in (0..).zip(all.chunks(BLOCK as usize)) {
        let zeros = matches!(cells.get(&block), Some(Cell::Mapped(_))) || bytes.iter().all(|byte| *byte == 0);
        assert!(zeros, "block {block} is not mapped and does not read as zeros");
    }
    Ok(Body::File(cells))
}

fn page(file: &File, block: u64, size: u64) -> Result<Page> {
    let mut page = [0; 4096];
    let seen = size.saturating_sub(block * BLOCK).min(BLOCK) as usize;
    file.read_exact_at(&mut page[..seen], block * BLOCK)?;
    Ok(Arc::new(page))
}

fn page_of(all: &[u8], block: u64) -> Page {
    let mut page = [0; 4096];
    let bytes = &all[(block * BLOCK) as usize..];
    let bytes = &bytes[..bytes.len().min(4096)];
    page[..bytes.len()].copy_from_slice(bytes);
    Arc::new(page)
}
