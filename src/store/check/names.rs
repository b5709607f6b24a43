//! Do names lead to inodes, and inodes to the root?
//!
//! Every directory's entries are read once. A directory has one name, and going up from it ends at the root; anything
//! else may have more names, or none while its deletion is noted.

use super::inodes::{CLEAN_UP, Checker, Facts, Names, Which};
use super::remedy::{Field, Remedy};
use super::report::{FaultKind, Faults, Phase, Progress};
use super::slots::NodeReader;
use crate::layout::{FileKind, RootArea, Seed};
use crate::namespace::entry::{self, Entry};
use crate::tree;
use crate::units::{Ino, PoolOff};

/// How many directories a path is followed through.
const MAX_DEPTH: usize = 4096;

/// A directory whose entries are being read.
struct Directory<'c> {
    ino: Ino,
    root: Ino,
    hidden: Ino,
    seed: Seed,
    inodes: &'c mut [Facts],
    unreadable: &'c [Ino],
    names: Names,
    entries: u64,
    subdirectories: u32,
}

fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

impl Directory<'_> {
    fn at(&self) -> PoolOff {
        self.ino.offset()
    }

    fn record(&mut self, key: u64, payload: &[u8], faults: &mut Faults) {
        self.entries += 1;
        let (at, ino) = (self.at(), Some(self.ino));
        let drop = Remedy::Drop { ino: self.ino, which: Which::Content, key };
        let (entry, name) = match entry::decode(self.ino, key, payload) {
            Ok(found) => found,
            Err(error) => return faults.error(FaultKind::Entry, at, ino, &error).by(drop),
        };
        let expected = self.seed.name_key(name);
        if key >> 8 != expected >> 8 {
            let expected = format_args!("key {expected:#x} for {:?}", text(name));
            return faults.number(FaultKind::Entry, at, ino, expected, format_args!("{key:#x}")).by(drop);
        }
        if !self.names.is_new(key, name) {
            let found = format_args!("{:?} again", text(name));
            return faults.number(FaultKind::EntryTwice, at, ino, "one entry", found).by(drop);
        }
        self.follow(&entry, name, faults);
    }

    fn follow(&mut self, entry: &Entry, name: &[u8], faults: &mut Faults) {
        let (at, ino) = (self.at(), Some(self.ino));
        let drop = Remedy::Drop { ino: self.ino, which: Which::Content, key: entry.key };
        let found = self.inodes.binary_search_by_key(&entry.ino, |facts| facts.ino);
        let Some(child) = found.ok().filter(|_| entry.ino != self.hidden) else {
            let damaged = self.unreadable.binary_search(&entry.ino).is_ok();
            let what = if damaged { "a damaged inode" } else { "no inode" };
            let found = format_args!("{:?} leads to number {}, {what}", text(name), entry.ino);
            return faults.number(FaultKind::EntryDangling, at, ino, "an inode in use", found).by(drop);
        };
        let child = &mut self.inodes[child];
        if child.kind != entry.kind {
            let expected = format_args!("{:?}, as inode {} is", child.kind, entry.ino);
            let found = format_args!("{:?} at {:?}", entry.kind, text(name));
            let remedy = Remedy::Retype { ino: self.ino, key: entry.key, kind: child.kind };
            faults.number(FaultKind::EntryKind, at, ino, expected, found).by(remedy);
        }
        child.names += 1;
        if child.kind == FileKind::Directory {
            if child.names > 1 || child.ino == self.root {
                let found = format_args!("{:?} leads to directory {} too", text(name), child.ino);
                let found =
                    faults.number(FaultKind::SecondParent, at, ino, "one name for a directory", found);
                return found.by(drop);
            }
            self.subdirectories += 1;
        }
        if child.names == 1 {
            (child.named_in, child.key) = (self.ino, entry.key);
        }
    }
}

impl Checker<'_> {
    /// Reads the entries of every directory.
    pub fn read_directories(&mut self) {
        let total = self.inodes.len();
        for i in 0..total {
            if i % 16384 == 16383 {
                (self.progress)(Progress { phase: Phase::Directories, done: i as u64, total: total as u64 });
            }
            match self.inodes[i].kind {
                FileKind::Regular => self.report.files += 1,
                FileKind::Symlink => self.report.symlinks += 1,
                FileKind::Directory => {
                    self.report.directories += 1;
                    self.read_directory(i);
                }
            }
        }
        // The inode of the intents is nobody's file.
        self.report.files -= u64::from(self.find(self.media.intents).is_some()).min(self.report.files);
    }

    fn read_directory(&mut self, i: usize) {
        let (ino, size) = (self.inodes[i].ino, self.inodes[i].size);
        let Some(inode) = self.read_inode(ino) else { return };
        let (entries, subdirectories) = self.read_entries(ino, &inode.root);
        self.inodes[i].subdirectories = subdirectories;
        if entries != size {
            let found = self.faults.number(FaultKind::DirectorySize, ino.offset(), Some(ino), entries, size);
            found.by(Remedy::Set(ino, Field::Size(entries)));
        }
    }

    fn read_entries(&mut self, ino: Ino, root: &RootArea) -> (u64, u32) {
        let unreadable = std::mem::take(&mut self.unreadable);
        let (seed, hidden, top) = (self.media.seed, self.media.intents, self.media.root);
        let (mut trees, inodes, ..) = self.trees();
        let mut directory = Directory {
            ino,
            root: top,
            hidden,
            seed,
            inodes,
            unreadable: &unreadable,
            names: Names::default(),
            entries: 0,
            subdirectories: 0,
        };
        trees.walk(ino, Which::Content, root, |key, payload, faults| directory.record(key, payload, faults));
        let counts = (directory.entries, directory.subdirectories);
        self.unreadable = unreadable;
        counts
    }

    /// Checks who is linked how often, and from where, when all names are known.
    pub fn check_links(&mut self) {
        if self.find(self.media.root).is_none_or(|i| self.inodes[i].kind != FileKind::Directory) {
            let at = self.media.root.offset();
            let found = self.faults.number(
                FaultKind::RootDirectory,
                at,
                Some(self.media.root),
                "a directory",
                "none",
            );
            found.by(Remedy::Root);
        }
        if self.find(self.media.intents).is_none_or(|i| self.inodes[i].kind != FileKind::Regular) {
            let at = self.media.intents.offset();
            let found =
                self.faults.number(FaultKind::IntentsInode, at, Some(self.media.intents), "an inode", "none");
            found.by(Remedy::Intents);
        }
        for i in 0..self.inodes.len() {
            let facts = &self.inodes[i];
            if facts.ino == self.media.intents {
                continue;
            }
            if facts.kind == FileKind::Directory {
                self.check_directory(i);
            } else {
                self.check_file(i);
            }
        }
        self.check_ways_up();
    }

    fn check_file(&mut self, i: usize) {
        let Facts { ino, links, names, intents, .. } = self.inodes[i];
        if names == 0 && (links != 0 || intents & CLEAN_UP == 0) {
            self.nameless(ino, links, links == 0);
        } else if links != names {
            let found = self.faults.number(FaultKind::LinkCount, ino.offset(), Some(ino), names, links);
            found.by(Remedy::Set(ino, Field::Links(names)));
        }
    }

    /// An inode without a name is given one, unless it says itself that it is deleted.
    fn nameless(&mut self, ino: Ino, links: u32, delete: bool) {
        let found = format_args!("{links} links, and no intent to delete it or links all the same");
        let remedy = if delete { Remedy::FreeInode(ino) } else { Remedy::Reattach(ino) };
        self.faults.number(FaultKind::Orphan, ino.offset(), Some(ino), "a name", found).by(remedy);
    }

    fn check_directory(&mut self, i: usize) {
        let Facts { ino, links, names, intents, parent, named_in, subdirectories, size, .. } = self.inodes[i];
        let (at, is_root) = (ino.offset(), ino == self.media.root);
        if names == 0 && !is_root {
            if links != 0 || intents & CLEAN_UP == 0 || size != 0 {
                self.nameless(ino, links, links == 0 && size == 0);
            }
            return;
        }
        let expected = subdirectories.saturating_add(2);
        if links != expected {
            let found = self.faults.number(FaultKind::LinkCount, at, Some(ino), expected, links);
            found.by(Remedy::Set(ino, Field::Links(expected)));
        }
        let expected = if is_root { ino } else { named_in };
        if parent != expected {
            let found = self.faults.number(FaultKind::ParentField, at, Some(ino), expected, parent);
            found.by(Remedy::Set(ino, Field::Parent(expected)));
        }
    }

    /// Finds directories that go round in circles, since each has one name at most.
    fn check_ways_up(&mut self) {
        const UNKNOWN: u8 = 0;
        const DONE: u8 = 1;
        const ON_THE_WAY: u8 = 2;
        // A directory in the root, the most frequent kind, ends here.
        let top = self.media.root;
        let deep = |facts: &Facts| facts.kind == FileKind::Directory && facts.named_in != Ino(0);
        if !self.inodes.iter().any(|facts| deep(facts) && facts.named_in != top) {
            return;
        }
        let mut states = vec![UNKNOWN; self.inodes.len()];
        let mut way = Vec::new();
        for start in 0..self.inodes.len() {
            let mut next = deep(&self.inodes[start]).then_some(start);
            while let Some(i) = next.filter(|i| states[*i] == UNKNOWN) {
                states[i] = ON_THE_WAY;
                way.push(i);
                next = self.find(self.inodes[i].named_in);
            }
            if let Some(i) = next.filter(|i| states[*i] == ON_THE_WAY) {
                let Facts { ino, named_in, key, .. } = self.inodes[i];
                let remedy = Remedy::Drop { ino: named_in, which: Which::Content, key };
                let (at, kind) = (ino.offset(), FaultKind::Unreachable);
                self.faults.number(kind, at, Some(ino), "a way to the root", "a circle").by(remedy);
            }
            way.drain(..).for_each(|i| states[i] = DONE);
        }
    }

    /// The path of `ino`, if there is one that can be read.
    pub fn path(&self, ino: Ino) -> Option<Vec<u8>> {
        let mut names = Vec::new();
        let mut at = ino;
        while at != self.media.root {
            let facts = &self.inodes[self.find(at)?];
            if facts.named_in == Ino(0) || names.len() >= MAX_DEPTH {
                return None;
            }
            let directory = self.read_inode(facts.named_in)?;
            let reader = NodeReader { media: &self.media, slots: &self.nodes };
            let payload = tree::get(&reader, &directory.root, facts.named_in, facts.key).ok()??;
            names.push(entry::decode(at, facts.key, &payload).ok()?.1.to_vec());
            at = facts.named_in;
        }
        let mut path = vec![b'/'];
        path.extend(names.iter().rev().map(Vec::as_slice).collect::<Vec<_>>().join(&b'/'));
        Some(path)
    }
}
