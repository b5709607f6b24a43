//! What does each inode say of itself, and does its content agree?
//!
//! Inodes are visited in order of their numbers, which is the rule of who owns what several claim: arenas before
//! files, and the lower number before the higher. Directories' entries are read in a second pass (`names`), when every
//! inode is known.

use super::media::Media;
use super::remedy::{Field, Remedy};
use super::report::{CheckReport, FaultKind, Faults, Found, Phase, Progress};
use super::shares::Owners;
use super::slots::{NodeReader, NodeSlots, SHARED, Slot, arena_blocks, look};
use super::space::Chunks;
use crate::error::{Damage, Error};
use crate::extent::Extent;
use crate::inode::Intent;
use crate::io::xattr;
use crate::layout::{
    FileKind, INODE_DURABILITY, INODE_KEEP_BEYOND_END, INODE_SEQUENTIAL, Inode, Kind, MAX_HINT_BLOCKS,
    RootArea, SlotClass, get32,
};
use crate::pmem::Region;
use crate::tree::{self, Cut, Lost, NodeRoot, Visit};
use crate::units::{BLOCK_BYTES, FileBlock, Ino, MAX_FILE_BYTES, MAX_SYMLINK_BYTES, PoolOff, Run};

/// An intent to clean up is noted.
pub(super) const CLEAN_UP: u8 = 1;
/// An intent to change a range is noted.
pub(super) const RANGE: u8 = 2;
/// An intent to remove a snapshot in the making is noted.
pub(super) const SNAPSHOT: u8 = 4;

/// What is remembered of an inode.
#[derive(Debug)]
pub(super) struct Facts {
    pub ino: Ino,
    pub kind: FileKind,
    pub links: u32,
    pub size: u64,
    /// A directory's parent, as it says.
    pub parent: Ino,
    /// [`CLEAN_UP`], [`RANGE`] and [`SNAPSHOT`].
    pub intents: u8,
    /// Entries that lead here.
    pub names: u32,
    /// The first of them: its directory, and its key there.
    pub named_in: Ino,
    pub key: u64,
    /// A directory's directories.
    pub subdirectories: u32,
}

/// Which tree of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    Content,
    Attributes,
}

/// A check under way, and what it has found out.
pub(super) struct Checker<'r> {
    pub media: Media<'r>,
    pub faults: Faults,
    pub chunks: Chunks,
    pub nodes: NodeSlots,
    /// Inodes that could be read, in order.
    pub inodes: Vec<Facts>,
    /// Those that could not.
    pub unreadable: Vec<Ino>,
    /// Inodes with intents, in order.
    pub intents: Vec<(Ino, u8)>,
    /// Blocks of shared extents.
    pub owners: Owners,
    /// Nodes that were looked for and not believed.
    pub lost: Vec<PoolOff>,
    pub report: CheckReport,
    pub progress: &'r dyn Fn(Progress),
}

/// Takes in one tree.
struct TreeVisit<'c, F> {
    nodes: &'c NodeSlots,
    faults: &'c mut Faults,
    lost: &'c mut Vec<PoolOff>,
    count: &'c mut u64,
    owner: Ino,
    which: Which,
    record: F,
}

impl<F: FnMut(u64, &[u8], &mut Faults)> Visit for TreeVisit<'_, F> {
    fn node(&mut self, at: PoolOff) -> Result<(), Damage> {
        *self.count += 1;
        self.nodes.claim(at)
    }

    fn record(&mut self, key: u64, payload: &[u8]) {
        (self.record)(key, payload, self.faults);
    }

    fn lost(&mut self, lost: Lost) {
        let Lost { at, level, low, high, error } = lost;
        let shared = matches!(&error, Error::Corrupt(damage) if damage.what == SHARED);
        let kind = if shared { FaultKind::NodeShared } else { FaultKind::Node };
        let part = Cut { at, level, low };
        let remedy = Remedy::Cut { ino: self.owner, which: self.which, part, high };
        self.faults.error(kind, at, Some(self.owner), &error).by(remedy);
        self.lost.push(at);
    }
}

/// Everything of a checker but its inodes: what reading one tree needs.
pub(super) struct Trees<'c> {
    pub media: &'c Media<'c>,
    pub nodes: &'c NodeSlots,
    pub faults: &'c mut Faults,
    pub lost: &'c mut Vec<PoolOff>,
    pub count: &'c mut u64,
}

impl Trees<'_> {
    /// Shows `record` every record of one tree of `owner`.
    pub fn walk(
        &mut self,
        owner: Ino,
        which: Which,
        root: &RootArea,
        record: impl FnMut(u64, &[u8], &mut Faults),
    ) {
        let reader = NodeReader { media: self.media, slots: self.nodes };
        let mut visit = TreeVisit {
            nodes: self.nodes,
            faults: self.faults,
            lost: self.lost,
            count: self.count,
            owner,
            which,
            record,
        };
        if let Err(error) = tree::walk(&reader, root, owner, &mut visit) {
            let found = self.faults.error(FaultKind::RootArea, owner.offset(), Some(owner), &error);
            found.by(Remedy::Empty { ino: owner, which });
        }
    }
}

/// Looks for doubled names among records that come in the order of their hashes.
#[derive(Default)]
pub(super) struct Names {
    hash: u64,
    /// Names with that hash.
    seen: Vec<Vec<u8>>,
    any: bool,
}

impl Names {
    /// Whether `name`, the name in record `key`, came before.
    pub fn is_new(&mut self, key: u64, name: &[u8]) -> bool {
        if !self.any || self.hash != key >> 8 {
            (self.any, self.hash) = (true, key >> 8);
            self.seen.truncate(1);
            match self.seen.first_mut() {
                Some(first) => {
                    first.clear();
                    first.extend_from_slice(name);
                }
                None => self.seen.push(name.to_vec()),
            }
            return true;
        }
        let is_new = self.seen.iter().all(|seen| seen != name);
        self.seen.push(name.to_vec());
        is_new
    }
}

/// Notes each part of `run` that the medium has lost; `what` says it of how far into the run and how long it is, in bytes.
fn lost_bytes(region: &Region, run: Run, ino: Ino, faults: &mut Faults, what: impl Fn(u64, u64) -> String) {
    let (mut at, end) = (run.start.offset(), run.end().offset());
    while let Some((lost, len)) = region.bad(at, end.0 - at.0) {
        faults.add(FaultKind::LostBytes, lost, Some(ino), what(lost.0 - run.start.offset().0, len));
        at = lost.plus(len);
    }
}

impl<'r> Checker<'r> {
    pub fn trees(&mut self) -> (Trees<'_>, &mut Vec<Facts>, &mut Chunks, &mut Owners) {
        let trees = Trees {
            media: &self.media,
            nodes: &self.nodes,
            faults: &mut self.faults,
            lost: &mut self.lost,
            count: &mut self.report.nodes,
        };
        (trees, &mut self.inodes, &mut self.chunks, &mut self.owners)
    }

    /// Where in `inodes` the inode `ino` is.
    pub fn find(&self, ino: Ino) -> Option<usize> {
        self.inodes.binary_search_by_key(&ino, |facts| facts.ino).ok()
    }

    /// Reads an inode once more.
    pub fn read_inode(&self, ino: Ino) -> Option<Inode> {
        let image = self.media.read(ino.offset(), Kind::Inode).ok()?;
        Inode::decode(ino.offset(), &image).ok().flatten()
    }

    /// Reads the intents.
    pub fn read_intents(&mut self) {
        let owner = self.media.intents;
        let Some(inode) = self.read_inode(owner) else { return };
        let mut found: Vec<(Ino, u8)> = Vec::new();
        let (mut trees, ..) = self.trees();
        trees.walk(owner, Which::Content, &inode.root, |key, payload, faults| {
            let drop = Remedy::Drop { ino: owner, which: Which::Content, key };
            let mask = match Intent::decode(owner, key, payload) {
                Ok((_, Intent::CleanUp)) if key % 4 == 0 => CLEAN_UP,
                Ok((_, Intent::Range { .. } | Intent::Shift(_))) if key % 4 == 1 => RANGE,
                Ok((_, Intent::Snapshot)) if key % 4 == 2 => SNAPSHOT,
                Ok(_) => {
                    let at = owner.offset();
                    return faults.number(FaultKind::Intent, at, None, "a key of its kind", key).by(drop);
                }
                Err(error) => return faults.error(FaultKind::Intent, owner.offset(), None, &error).by(drop),
            };
            match found.last_mut() {
                Some((ino, all)) if ino.0 == key / 4 => *all |= mask,
                _ => found.push((Ino(key / 4), mask)),
            }
        });
        self.report.intents = found.len() as u64;
        self.intents = found;
    }

    /// Reads every inode, and what it holds unless it is a directory.
    pub fn read_inodes(&mut self) {
        let chunks = self.chunks.broken.iter();
        let blocks: Vec<_> = chunks.flat_map(|broken| arena_blocks(broken, SlotClass::Inode)).collect();
        let total = blocks.len() as u64;
        self.report.blocks_arena = total + self.nodes.blocks();
        for (done, block) in blocks.into_iter().enumerate() {
            if done % 1024 == 1023 {
                (self.progress)(Progress { phase: Phase::Files, done: done as u64, total });
            }
            for slot in 0..BLOCK_BYTES / Ino::SLOT_BYTES {
                let at = block.offset().plus(slot * Ino::SLOT_BYTES);
                if let Slot::InUse = look(&self.media, at, SlotClass::Inode, &mut self.faults) {
                    self.slot(at);
                }
            }
        }
    }

    /// An inode slot in use.
    fn slot(&mut self, at: PoolOff) {
        let ino = Ino::at(at);
        let found = self.media.read(at, Kind::Inode).and_then(|image| {
            let mode = get32(image.bytes(), 16);
            Ok(Inode::decode(at, &image)?.map(|inode| (mode, inode)))
        });
        match found {
            Ok(Some((mode, inode))) => {
                self.fields(ino, mode, &inode);
                self.inode(ino, &inode);
            }
            // `look` saw it in use: nobody changes it meanwhile.
            Ok(None) => {}
            Err(damage) => {
                self.faults.damage(FaultKind::Inode, &damage, Some(ino)).by(Remedy::FreeInode(ino));
                self.unreadable.push(ino);
            }
        }
    }

    fn fields(&mut self, ino: Ino, mode: u32, inode: &Inode) {
        let (at, faults) = (ino.offset(), &mut self.faults);
        if mode >> 16 != 0 {
            let found = faults.number(FaultKind::Mode, at, Some(ino), "type and permission bits alone", mode);
            found.by(Remedy::Set(ino, Field::Mode));
        }
        if inode.generation == 0 {
            let found = faults.number(FaultKind::Generation, at, Some(ino), "at least 1", 0);
            found.by(Remedy::Set(ino, Field::Generation(1)));
        }
        let is_file = inode.kind == FileKind::Regular;
        let known = match inode.kind {
            FileKind::Regular => INODE_KEEP_BEYOND_END | INODE_SEQUENTIAL | INODE_DURABILITY,
            FileKind::Directory => INODE_DURABILITY,
            FileKind::Symlink => 0,
        };
        if inode.flags & !known != 0 {
            let found = faults.number(FaultKind::Flags, at, Some(ino), known, inode.flags);
            found.by(Remedy::Set(ino, Field::Flags(known)));
        }
        let is_sequential = is_file && inode.flags & INODE_SEQUENTIAL != 0;
        let least = if is_sequential && inode.capacity > 0 { inode.size } else { 0 };
        let most = if is_sequential { MAX_FILE_BYTES } else { 0 };
        if !(least..=most).contains(&inode.capacity) {
            let expected = format_args!("{least} to {most}");
            let found = faults.number(FaultKind::Capacity, at, Some(ino), expected, inode.capacity);
            found.by(Remedy::Set(ino, Field::Capacity(inode.capacity.clamp(least, most))));
        }
        let most = if inode.kind == FileKind::Symlink { 0 } else { MAX_HINT_BLOCKS };
        if inode.hint > most {
            let found = faults.number(FaultKind::Hint, at, Some(ino), most, inode.hint);
            found.by(Remedy::Set(ino, Field::Hint(0)));
        }
    }

    fn inode(&mut self, ino: Ino, inode: &Inode) {
        let intents = self.intents.binary_search_by_key(&ino, |(ino, _)| *ino);
        let facts = Facts {
            ino,
            kind: inode.kind,
            links: inode.links,
            size: inode.size,
            parent: inode.parent,
            intents: intents.ok().and_then(|i| self.intents.get(i)).map_or(0, |(_, mask)| *mask),
            names: 0,
            named_in: Ino(0),
            key: 0,
            subdirectories: 0,
        };
        let mut blocks = 0;
        if ino != self.media.intents {
            match inode.kind {
                FileKind::Regular => blocks = self.extents(inode, &facts),
                FileKind::Symlink => self.target(ino, inode),
                FileKind::Directory => {}
            }
        }
        self.inodes.push(facts);
        if ino != self.media.intents {
            blocks += self.attributes(ino, inode);
        }
        if blocks != inode.blocks {
            let found =
                self.faults.number(FaultKind::BlockCount, ino.offset(), Some(ino), blocks, inode.blocks);
            found.by(Remedy::Set(ino, Field::Blocks(blocks)));
        }
    }

    /// The extents of a file: how many blocks.
    fn extents(&mut self, inode: &Inode, facts: &Facts) -> u64 {
        if inode.root.count == 0 && inode.root.used == 0 && inode.root.level == 0 {
            return 0;
        }
        let (ino, at, geometry) = (facts.ino, facts.ino.offset(), self.media.geometry);
        let size_end = FileBlock::ceil(inode.size);
        let keep = inode.flags & INODE_KEEP_BEYOND_END != 0;
        let (mut end, mut blocks, mut unwritten, mut extents) = (FileBlock(0), 0, 0, 0);
        let region = self.media.region;
        let (mut trees, _, chunks, owners) = self.trees();
        trees.walk(ino, Which::Content, &inode.root, |key, payload, faults| {
            let drop = Remedy::Drop { ino, which: Which::Content, key };
            let extent = match Extent::decode(key, payload, ino, &geometry) {
                Ok(extent) => extent,
                Err(error) => return faults.error(FaultKind::Extent, at, Some(ino), &error).by(drop),
            };
            if extent.file < end {
                let expected = format_args!("file block {end} or later");
                faults.number(FaultKind::Extent, at, Some(ino), expected, key).by(drop);
            }
            end = end.max(extent.end());
            extents += 1;
            blocks += extent.len;
            unwritten += if extent.written { 0 } else { extent.len };
            if extent.end() > size_end && facts.intents == 0 && (extent.written || !keep) {
                let state = if extent.written { "written" } else { "unwritten" };
                let found = format_args!("{state} blocks up to {}", extent.end());
                let expected = format_args!("none from file block {size_end} on");
                let remedy = Remedy::GiveUpFrom { ino, from: size_end };
                faults.number(FaultKind::BeyondEnd, at, Some(ino), expected, found).by(remedy);
            }
            if extent.written {
                lost_bytes(region, extent.run(), ino, faults, |into, len| {
                    let start = extent.file.offset() + into;
                    let end = (start + len).min(inode.size.max(start));
                    format!("bytes {start} to {end} of the file are lost; overwrite them to repair it")
                });
            }
            // Who shares blocks may: the others are counted when all are known.
            let known = if extent.shared { owners.claim(extent.run()) } else { Vec::new() };
            chunks.claim(extent.run(), |twice| {
                for run in Owners::unknown(&known, twice) {
                    let file = FileBlock(extent.file.0 + (run.start.0 - extent.pool.0));
                    let remedy = Remedy::GiveUp { ino, file, run };
                    shared(faults, ino, run, format_args!("file block {file}")).by(remedy);
                }
            });
        });
        self.report.extents += extents;
        self.report.blocks_unwritten += unwritten;
        blocks
    }

    fn target(&mut self, ino: Ino, inode: &Inode) {
        let (mut len, mut fits, mut nul) = (0, true, false);
        let (mut trees, ..) = self.trees();
        trees.walk(ino, Which::Content, &inode.root, |key, piece, _| {
            fits &= key == len;
            len += piece.len() as u64;
            nul |= piece.contains(&0);
        });
        let longest = MAX_SYMLINK_BYTES as u64;
        let at = ino.offset();
        if !fits || nul {
            let found = self.faults.number(
                FaultKind::LinkTarget,
                at,
                Some(ino),
                "a text in one piece",
                "gaps or NUL",
            );
            found.by(Remedy::FreeInode(ino));
        } else if len != inode.size || !(1..=longest).contains(&len) {
            let expected = format_args!("{} bytes, 1 to {longest}", inode.size);
            let found = self.faults.number(FaultKind::LinkTarget, at, Some(ino), expected, len);
            found.by(Remedy::FreeInode(ino));
        }
    }

    /// The attributes of an inode: how many blocks their values have.
    fn attributes(&mut self, ino: Ino, inode: &Inode) -> u64 {
        if inode.xattrs.0 == 0 {
            return 0;
        }
        let (at, geometry, seed) = (ino.offset(), self.media.geometry, self.media.seed);
        let root = NodeRoot { at: inode.xattrs, level: inode.xattr_level }.area();
        let (mut blocks, mut count, mut names) = (0, 0, Names::default());
        let region = self.media.region;
        let (mut trees, _, chunks, _) = self.trees();
        trees.walk(ino, Which::Attributes, &root, |key, payload, faults| {
            count += 1;
            let drop = Remedy::Drop { ino, which: Which::Attributes, key };
            let attribute = match xattr::decode(ino, key, payload) {
                Ok(attribute) => attribute,
                Err(error) => return faults.error(FaultKind::Xattr, at, Some(ino), &error).by(drop),
            };
            let name = attribute.name;
            let expected = seed.name_key(&name);
            if xattr::check_name(&name).is_err() || key >> 8 != expected >> 8 || !names.is_new(key, &name) {
                let expected = format_args!("a usable name, once, with key {expected:#x}");
                let found = format_args!("{:?} with key {key:#x}", String::from_utf8_lossy(&name));
                faults.number(FaultKind::Xattr, at, Some(ino), expected, found).by(drop);
            }
            let xattr::Value::Blocks { runs, .. } = attribute.value else { return };
            for run in runs {
                if !geometry.is_allocatable(run.start, run.len) {
                    faults.number(FaultKind::Xattr, at, Some(ino), "blocks in the pool", run.start).by(drop);
                    continue;
                }
                blocks += run.len;
                lost_bytes(region, run, ino, faults, |_, len| {
                    format!("{len} bytes of {:?} are lost; set it again", String::from_utf8_lossy(&name))
                });
                chunks.claim(run, |run| shared(faults, ino, run, "an attribute").by(drop));
            }
        });
        self.report.xattrs += count;
        blocks
    }
}

#[cold]
fn shared(faults: &mut Faults, ino: Ino, run: Run, user: impl std::fmt::Display) -> &mut Found {
    let found = format_args!("{} blocks from {} on that another owns, in {user}", run.len, run.start);
    faults.number(FaultKind::BlockShared, run.start.offset(), Some(ino), "one owner", found)
}
