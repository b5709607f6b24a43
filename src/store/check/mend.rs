//! How is one fault mended?
//!
//! Each remedy is one change, through the journal. What it says was lost names the file.

use super::inodes::{Checker, Which};
use super::media::MAX_VERSION;
use super::remedy::{Field, Remedy};
use crate::alloc::{Op, Space};
use crate::error::{Damage, Result, Structure};
use crate::extent::ExtentMapMut;
use crate::inode::InodeTable;
use crate::inode::shares::Share;
use crate::journal::Journal;
use crate::layout::{FileKind, HEADER_BYTES, Image, Inode, Kind};
use crate::namespace::entry;
use crate::pmem::Durable;
use crate::sync::Arc;
use crate::tree::{self, Cut, NodeRoot};
use crate::units::{BLOCK_BYTES, FileBlock, Ino, MAX_FILE_BYTES, PoolOff};
use std::ffi::OsStr;
use std::ops::{ControlFlow, Range};
use std::os::unix::ffi::OsStrExt;

/// Bytes of a record that are left when a file gives up blocks.
const ROOM_LEFT: u64 = 3000;

/// What mending works on.
pub(super) struct Mender<'m> {
    pub checker: &'m Checker<'m>,
    pub space: Arc<Space>,
    table: InodeTable,
}

fn attributes(inode: &Inode) -> NodeRoot {
    NodeRoot { at: inode.xattrs, level: inode.xattr_level }
}

fn set_attributes(inode: &mut Inode, tree: NodeRoot) {
    (inode.xattrs, inode.xattr_level) = (tree.at, tree.level);
}

impl<'m> Mender<'m> {
    pub fn new(checker: &'m Checker<'m>, space: Arc<Space>) -> Self {
        Self { checker, table: InodeTable::new(space.clone()), space }
    }

    pub fn journal(&self) -> &Journal {
        self.space.journal()
    }

    /// Applies `remedy`; what is lost by it.
    pub fn apply(&self, remedy: Remedy) -> Result<Option<String>> {
        match remedy {
            Remedy::Cut { ino, which, part, high } => self.cut(ino, which, part, high).map(Some),
            Remedy::Empty { ino, which } => self.empty(ino, which).map(Some),
            Remedy::Drop { ino, which, key } => self.drop_record(ino, which, key).map(Some),
            Remedy::GiveUp { ino, file, run } => {
                let range = file..FileBlock(file.0 + run.len);
                self.give_up(ino, range.clone())?;
                Ok(Some(self.bytes(ino, &range)))
            }
            Remedy::GiveUpFrom { ino, from } => {
                self.give_up(ino, from..FileBlock(MAX_FILE_BYTES / BLOCK_BYTES)).map(|()| None)
            }
            Remedy::Retype { ino, key, kind } => self.retype(ino, key, kind).map(|()| None),
            Remedy::FreeInode(ino) => self.free_inode(ino),
            Remedy::Set(ino, field) => self.set(ino, field).map(|()| None),
            Remedy::Unshare(start) => self.unshare(start).map(|()| None),
            Remedy::Share { run, owners } => self.share(Share { run, owners }).map(|()| None),
            Remedy::Root => self.make_root().map(Some),
            Remedy::Intents => self.make_intents().map(Some),
            Remedy::Reattach(ino) => self.reattach(ino).map(|()| None),
            Remedy::Nothing
            | Remedy::Rewritten
            | Remedy::Lane(_)
            | Remedy::Marks
            | Remedy::FreeSlot(_)
            | Remedy::Leaks => Ok(None),
        }
    }

    /// How a user knows `ino`.
    pub fn name(&self, ino: Ino) -> String {
        match self.checker.path(ino) {
            Some(path) => format!("{:?}", OsStr::from_bytes(&path)),
            None => format!("inode {ino}"),
        }
    }

    fn bytes(&self, ino: Ino, range: &Range<FileBlock>) -> String {
        let size = self.checker.read_inode(ino).map_or(u64::MAX, |inode| inode.size);
        let (from, to) = (range.start.offset().min(size), range.end.offset().min(size));
        format!("bytes {from} to {to} of {}", self.name(ino))
    }

    /// What a range of keys is to a user.
    fn keys(&self, ino: Ino, which: Which, low: u64, high: u64) -> String {
        if ino == self.checker.media.intents {
            let shares = which == Which::Attributes;
            return if shares {
                "nothing: owners are counted anew"
            } else {
                "notes of unfinished operations"
            }
            .into();
        }
        let name = self.name(ino);
        if which == Which::Attributes {
            return format!("extended attributes of {name}");
        }
        match self.checker.find(ino).map(|i| self.checker.inodes[i].kind) {
            Some(FileKind::Regular) => self.bytes(ino, &(FileBlock(low)..FileBlock(high.saturating_add(1)))),
            Some(FileKind::Directory) => {
                format!("names in {name}; what they led to is in /lost+found")
            }
            _ => format!("the target of {name}"),
        }
    }

    /// Changes the inode `ino` and its trees by `f`, in one record.
    pub fn change(&self, ino: Ino, f: impl FnOnce(&mut Op<'_>, &mut Inode) -> Result<()>) -> Result<()> {
        let mut inode = self.table.load(ino)?;
        let mut op = self.space.begin().for_removal();
        f(&mut op, &mut inode)?;
        op.write_inode(ino, &inode)?;
        op.commit(Durable::no_data())
    }

    fn cut(&self, ino: Ino, which: Which, part: Cut, high: u64) -> Result<String> {
        let lost = self.keys(ino, which, part.low, high);
        self.change(ino, |op, inode| {
            match which {
                Which::Content => {
                    tree::cut(op, &mut inode.root, ino, part)?;
                }
                Which::Attributes => {
                    let mut tree = attributes(inode);
                    tree.cut(op, ino, part)?;
                    set_attributes(inode, tree);
                }
            }
            Ok(())
        })?;
        Ok(lost)
    }

    fn empty(&self, ino: Ino, which: Which) -> Result<String> {
        self.change(ino, |_, inode| {
            match which {
                Which::Content => inode.root = crate::layout::RootArea::default(),
                Which::Attributes => set_attributes(inode, NodeRoot::EMPTY),
            }
            Ok(())
        })?;
        Ok(self.keys(ino, which, 0, u64::MAX))
    }

    fn drop_record(&self, ino: Ino, which: Which, key: u64) -> Result<String> {
        let mut lost = self.keys(ino, which, key, key);
        self.change(ino, |op, inode| {
            match which {
                Which::Content => {
                    let taken = tree::remove(op, &mut inode.root, ino, key)?;
                    if inode.kind == FileKind::Directory
                        && let Some(name) = taken.as_ref().and_then(|payload| payload.get(9..))
                    {
                        lost = format!("the name {:?} in {}", OsStr::from_bytes(name), self.name(ino));
                    }
                }
                Which::Attributes => {
                    let mut tree = attributes(inode);
                    tree.remove(op, ino, key)?;
                    set_attributes(inode, tree);
                }
            }
            Ok(())
        })?;
        Ok(lost)
    }

    /// Makes a range of a file a hole, in as many records as it takes; whoever owns the blocks keeps them.
    fn give_up(&self, ino: Ino, mut range: Range<FileBlock>) -> Result<()> {
        let geometry = self.checker.media.geometry;
        while !range.is_empty() {
            self.change(ino, |op, inode| {
                let mut map = ExtentMapMut::new(op, &mut inode.root, ino, geometry);
                range.start = map.remove(range.clone(), |op, _| {
                    let is_full = op.room() < ROOM_LEFT;
                    Ok(if is_full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
                })?;
                Ok(())
            })?;
        }
        Ok(())
    }

    fn retype(&self, ino: Ino, key: u64, kind: FileKind) -> Result<()> {
        self.change(ino, |op, inode| {
            let Some(found) = tree::get(op, &inode.root, ino, key)? else { return Ok(()) };
            let mut payload = found.to_vec();
            entry::set_kind(&mut payload, kind);
            tree::insert(op, &mut inode.root, ino, key, &payload)
        })
    }

    /// Frees an inode that can not be read or that nobody wants; what it holds is freed as a leak.
    fn free_inode(&self, ino: Ino) -> Result<Option<String>> {
        let facts = self.checker.find(ino).map(|i| &self.checker.inodes[i]);
        let is_deleted = facts.is_some_and(|facts| facts.names == 0 && facts.links == 0);
        let lost = (!is_deleted).then(|| match facts {
            Some(_) => format!("{} as a whole", self.name(ino)),
            None => format!("all that inode {ino} was and held"),
        });
        self.sane_version(ino.offset())?;
        let mut tx = self.journal().begin();
        tx.stage(ino.offset(), Image::new(Kind::Free, HEADER_BYTES))?;
        tx.commit(Durable::no_data())?;
        Ok(lost)
    }

    /// Sets a version that changes can not have led to, of an object that is about to be replaced, to 0: no record of
    /// this epoch names the object.
    pub fn sane_version(&self, at: PoolOff) -> Result<()> {
        let region = self.journal().region();
        if region.load(at)? >= MAX_VERSION {
            region.store_word(at, 0)?;
            region.flush(at, 8)?;
            region.fence()?;
        }
        Ok(())
    }

    fn set(&self, ino: Ino, field: Field) -> Result<()> {
        self.change(ino, |_, inode| {
            match field {
                Field::Links(links) => inode.links = links,
                Field::Size(size) => inode.size = size,
                Field::Blocks(blocks) => inode.blocks = blocks,
                Field::Parent(parent) => inode.parent = parent,
                Field::Flags(known) => inode.flags &= known,
                Field::Capacity(capacity) => inode.capacity = capacity,
                Field::Hint(hint) => inode.hint = hint,
                Field::Generation(generation) => inode.generation = generation,
                Field::Mode => {}
            }
            Ok(())
        })
    }

    /// Damage: what was to be there for a repair is not.
    pub fn missing(&self, ino: Ino) -> crate::Error {
        Damage::new(Structure::Inode, ino.offset(), "no inode to mend", 1, 0).into()
    }
}
