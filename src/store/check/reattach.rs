//! Where does go what lost its name?
//!
//! Into `/lost+found`, as `#` and its inode number. The root directory and the inode of the intents are made anew where
//! they are gone.

use super::mend::Mender;
use crate::alloc::Op;
use crate::error::Result;
use crate::inode::{Draft, InodeCore};
use crate::layout::{FileKind, Inode};
use crate::namespace::entry::{self, Entry};
use crate::pmem::Durable;
use crate::store::open::hidden;
use crate::units::Ino;

/// The names tried for the directory.
const NAMES: [&[u8]; 3] = [b"lost+found", b"lost+found.1", b"lost+found.2"];

impl Mender<'_> {
    /// Makes a new root directory.
    pub fn make_root(&self) -> Result<String> {
        let root = self.make(FileKind::Directory, 0o755, 2, |ino| ino)?;
        self.journal().update_superblock(|superblock| {
            superblock.root = root;
            Ok(())
        })?;
        Ok("the root directory; what was in it is in /lost+found".into())
    }

    /// Makes a new inode for the intents.
    pub fn make_intents(&self) -> Result<String> {
        let intents = self.make(FileKind::Regular, 0, 1, |_| Ino(0))?;
        self.journal().update_superblock(|superblock| {
            superblock.intents = intents;
            Ok(())
        })?;
        Ok("notes of unfinished operations".into())
    }

    fn make(&self, kind: FileKind, permissions: u32, links: u32, parent: impl Fn(Ino) -> Ino) -> Result<Ino> {
        let mut op = self.space.begin().for_removal();
        let ino = op.alloc_inode()?;
        op.write_inode(ino, &hidden(kind, permissions, links, parent(ino)))?;
        op.commit(Durable::no_data())?;
        Ok(ino)
    }

    /// Gives the inode `ino` a name in `/lost+found`. Its links are counted in a later round.
    pub fn reattach(&self, ino: Ino) -> Result<()> {
        let child = self.load(ino)?;
        let home = self.lost_and_found()?;
        let mut op = self.space.begin().for_removal();
        self.enter(&mut op, home, format!("#{ino}").as_bytes(), ino, &child)?;
        op.commit(Durable::no_data())
    }

    fn load(&self, ino: Ino) -> Result<Inode> {
        self.checker.read_inode(ino).ok_or_else(|| self.missing(ino))
    }

    fn find(&self, directory: Ino, inode: &Inode, name: &[u8]) -> Result<entry::Probe> {
        entry::probe(&*self.space, self.journal().seed(), directory, &inode.root, name)
    }

    /// The directory for what lost its name; made if need be.
    fn lost_and_found(&self) -> Result<Ino> {
        let root = self.journal().superblock().root;
        let inode = self.load(root)?;
        let mut free = None;
        for name in NAMES {
            match self.find(root, &inode, name)?.found {
                Some(found) if self.load(found.ino).is_ok_and(|i| i.kind == FileKind::Directory) => {
                    return Ok(found.ino);
                }
                Some(_) => {}
                None => free = free.or(Some(name)),
            }
        }
        let name = free.ok_or_else(|| self.missing(root))?;
        let mut op = self.space.begin().for_removal();
        let ino = op.alloc_inode()?;
        let child = hidden(FileKind::Directory, 0o700, 2, root);
        op.write_inode(ino, &child)?;
        self.enter(&mut op, root, name, ino, &child)?;
        op.commit(Durable::no_data())?;
        Ok(ino)
    }

    /// Adds the name of `child` to a directory, unless it is there.
    fn enter(&self, op: &mut Op<'_>, directory: Ino, name: &[u8], ino: Ino, child: &Inode) -> Result<()> {
        let inode = self.load(directory)?;
        let probe = self.find(directory, &inode, name)?;
        if probe.found.is_some() {
            return Err(crate::error::Error::Exists);
        }
        let core = InodeCore::new(directory, inode);
        let mut draft = Draft::lock(&core);
        let entry = Entry { key: probe.free, ino, kind: child.kind };
        entry::put(op, &mut draft, self.journal().seed(), name, entry)?;
        draft.inode.size = draft.inode.size.saturating_add(1);
        let subdirectories = u32::from(child.kind == FileKind::Directory);
        draft.inode.links = draft.inode.links.saturating_add(subdirectories);
        draft.stage(op)
    }
}
