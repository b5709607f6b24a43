//! What is a file on the media?
//!
//! | offset | bytes | field |
//! | ---: | ---: | --- |
//! | 0 | 16 | header |
//! | 16 | 4 | mode: type and permission bits as in `stat(2)` |
//! | 20 | 4 | links; 0 for a file without a name |
//! | 24 | 4 | uid |
//! | 28 | 4 | gid |
//! | 32 | 8 | durable size: bytes of a file or link target, entries of a directory |
//! | 40 | 8 | blocks of 4 KiB in extents and attribute values, unwritten ones included |
//! | 48 | 8 | atime, nanoseconds since 1970 |
//! | 56 | 8 | mtime |
//! | 64 | 8 | ctime |
//! | 72 | 8 | btime |
//! | 80 | 4 | generation: differs between the inodes that had the slot one after the other; not 0 |
//! | 84 | 4 | flags |
//! | 88 | 8 | pool offset of the root node of the attribute tree, 0 for none |
//! | 96 | 8 | inode number of the parent (directories; else 0) |
//! | 104 | 1 | level of the attribute tree's root node |
//! | 105 | 3 | reserved, zero |
//! | 108 | 4 | extent-size hint in blocks, 0 for none (files and directories) |
//! | 112 | 8 | capacity in bytes of a sequential file, 0 for none |
//! | 120 | 1 | level of the tree's root area: 0 a leaf |
//! | 121 | 1 | reserved, zero |
//! | 122 | 2 | records in the root area |
//! | 124 | 4 | reserved, zero |
//! | 128 | up to 120 | root area of the tree: extents of a file, entries of a directory, pieces of a link target |
//! | 248 | 8 | not part of the object: the lazy mtime word |
//!
//! The lazy mtime word carries the time of overwrites in place, which write no record: its low 10 bits are the
//! low 10 bits of the version of the inode it belongs to, the rest are the time's high 54 bits. It counts where
//! the versions agree and it is later than `mtime`.

use super::{Image, Kind, get16, get32, get64, put};
use crate::error::{Damage, Structure};
use crate::units::{Ino, MAX_FILE_BYTES, PoolOff};

/// Bytes of an inode before its root area.
pub const INODE_FIXED_BYTES: usize = 128;
/// Bytes of the root area.
pub const ROOT_BYTES: usize = 120;
/// Where the lazy mtime word lies in the slot.
pub const LAZY_MTIME_AT: u64 = 248;
/// Bytes of a tree node before its record area.
pub const NODE_FIXED_BYTES: usize = 32;
/// Bytes of a tree node's record area.
pub const NODE_AREA_BYTES: usize = 480;
/// The highest level a tree can have; more is damage.
pub const MAX_TREE_LEVEL: u8 = 24;

/// What kind of file an inode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
}

impl FileKind {
    const TYPE_MASK: u32 = 0o170_000;

    /// The type bits of `mode`.
    #[must_use]
    pub const fn type_bits(self) -> u32 {
        match self {
            Self::Regular => 0o100_000,
            Self::Directory => 0o040_000,
            Self::Symlink => 0o120_000,
        }
    }

    /// The kind that the type bits of `mode` tell.
    #[must_use]
    pub const fn of_mode(mode: u32) -> Option<Self> {
        Some(match mode & Self::TYPE_MASK {
            0o100_000 => Self::Regular,
            0o040_000 => Self::Directory,
            0o120_000 => Self::Symlink,
            _ => return None,
        })
    }

    /// The byte a directory entry carries: `DT_REG`, `DT_DIR`, `DT_LNK`.
    #[must_use]
    pub const fn entry_byte(self) -> u8 {
        (self.type_bits() >> 12) as u8
    }

    /// The kind that a directory entry's byte tells.
    #[must_use]
    pub const fn of_entry_byte(byte: u8) -> Option<Self> {
        Self::of_mode((byte as u32) << 12)
    }
}

/// The file has blocks beyond its end that were asked for (`fallocate` keep-size): they are not trimmed.
pub const INODE_KEEP_BEYOND_END: u32 = 1;
/// The file is written at its end alone.
pub const INODE_SEQUENTIAL: u32 = 2;
/// The largest extent-size hint, in blocks: 1 GiB.
pub const MAX_HINT_BLOCKS: u32 = 1 << 18;
/// The two bits of [`Durability`]: 0 where the inode names none; 1 strict, 2 atomic-data, 3 ordered.
pub const INODE_DURABILITY: u32 = 0x0c;
const DURABILITY_SHIFT: u32 = INODE_DURABILITY.trailing_zeros();

/// What of a write survives a crash, and when (`docs/io.md`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Durability {
    /// Durable when the call returns; the bytes of an overwrite in place are old or new word by word.
    #[default]
    Strict,
    /// Durable when the call returns, and old or new as a whole.
    AtomicData,
    /// In order, as a whole, and durable at the next sync, or after a bound in bytes or time: a crash leaves what a
    /// prefix of the calls made.
    Ordered,
}

impl Durability {
    /// Every level.
    pub const ALL: [Self; 3] = [Self::Strict, Self::AtomicData, Self::Ordered];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::AtomicData => "atomic-data",
            Self::Ordered => "ordered",
        }
    }

    /// The level of that name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.name() == name)
    }

    /// The bits in an inode's flags that name `level`.
    #[must_use]
    pub const fn bits(level: Option<Self>) -> u32 {
        let number = match level {
            None => 0,
            Some(Self::Strict) => 1,
            Some(Self::AtomicData) => 2,
            Some(Self::Ordered) => 3,
        };
        number << DURABILITY_SHIFT
    }

    /// The level that the flags of an inode name, if they name one.
    #[must_use]
    pub const fn of_flags(flags: u32) -> Option<Self> {
        match (flags & INODE_DURABILITY) >> DURABILITY_SHIFT {
            1 => Some(Self::Strict),
            2 => Some(Self::AtomicData),
            3 => Some(Self::Ordered),
            _ => None,
        }
    }
}

impl std::fmt::Display for Durability {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The packed sorted records of a tree's root, as they lie in an inode. `tree` knows the packing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootArea {
    /// 0 where the records are the tree's own, else they name nodes of the next lower level.
    pub level: u8,
    /// How many records.
    pub count: u16,
    /// Bytes of `area` in use.
    pub used: usize,
    /// The packed records.
    pub area: [u8; ROOT_BYTES],
    /// The packing was found well formed and was changed by `tree` alone since.
    pub trusted: bool,
}

impl Default for RootArea {
    fn default() -> Self {
        Self { level: 0, count: 0, used: 0, area: [0; ROOT_BYTES], trusted: false }
    }
}

/// The checked content of an inode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inode {
    /// Version of the object this was read from; the journal sets the next one.
    pub version: u64,
    /// The kind, as `mode` tells it.
    pub kind: FileKind,
    /// Permission bits, 0 to 0o7777.
    pub permissions: u32,
    /// Names that lead here; a directory counts itself and its subdirectories' parents too.
    pub links: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of a file or link target, entries of a directory.
    pub size: u64,
    /// Blocks of 4 KiB in extents, unwritten ones included.
    pub blocks: u64,
    /// Nanoseconds since 1970.
    pub atime: i64,
    /// Nanoseconds since 1970.
    pub mtime: i64,
    /// Nanoseconds since 1970.
    pub ctime: i64,
    /// Nanoseconds since 1970.
    pub btime: i64,
    /// How often the slot became an inode.
    pub generation: u32,
    /// `INODE_*` bits.
    pub flags: u32,
    /// Root node of the attribute tree, `PoolOff(0)` for none.
    pub xattrs: PoolOff,
    /// Level of that node.
    pub xattr_level: u8,
    /// A directory's parent; the root is its own.
    pub parent: Ino,
    /// In how many blocks space is best given out, aligned to as many; 0 for no hint.
    pub hint: u32,
    /// How many bytes a sequential file may have; 0 for no bound.
    pub capacity: u64,
    /// The tree of extents, entries or target pieces.
    pub root: RootArea,
}

impl Inode {
    /// The object to stage.
    #[must_use]
    pub fn encode(&self) -> Image {
        let mut image = Image::new(Kind::Inode, INODE_FIXED_BYTES + self.root.used);
        let b = image.bytes_mut();
        put(b, 16, &(self.kind.type_bits() | self.permissions).to_le_bytes());
        put(b, 20, &self.links.to_le_bytes());
        put(b, 24, &self.uid.to_le_bytes());
        put(b, 28, &self.gid.to_le_bytes());
        put(b, 32, &self.size.to_le_bytes());
        put(b, 40, &self.blocks.to_le_bytes());
        put(b, 48, &self.atime.to_le_bytes());
        put(b, 56, &self.mtime.to_le_bytes());
        put(b, 64, &self.ctime.to_le_bytes());
        put(b, 72, &self.btime.to_le_bytes());
        put(b, 80, &self.generation.to_le_bytes());
        put(b, 84, &self.flags.to_le_bytes());
        put(b, 88, &self.xattrs.0.to_le_bytes());
        put(b, 96, &self.parent.0.to_le_bytes());
        b[104] = self.xattr_level;
        put(b, 108, &self.hint.to_le_bytes());
        put(b, 112, &self.capacity.to_le_bytes());
        b[120] = self.root.level;
        put(b, 122, &self.root.count.to_le_bytes());
        put(b, INODE_FIXED_BYTES, &self.root.area[..self.root.used]);
        image
    }

    /// The inode in `image`, read from `at`; `None` where the slot is free.
    ///
    /// # Errors
    /// [`Damage`] for a length, mode, size or level that can not be. The packing of the root area is checked
    /// by `tree`.
    pub fn decode(at: PoolOff, image: &Image) -> Result<Option<Self>, Damage> {
        if image.kind() == Kind::Free {
            return Ok(None);
        }
        let damage = |what, expected, found| Err(Damage::new(Structure::Inode, at, what, expected, found));
        let b = image.bytes();
        let Some(used) = b.len().checked_sub(INODE_FIXED_BYTES).filter(|used| *used <= ROOT_BYTES) else {
            return damage("length", (INODE_FIXED_BYTES + ROOT_BYTES) as u64, b.len() as u64);
        };
        let mode = get32(b, 16);
        let Some(kind) = FileKind::of_mode(mode) else {
            return damage("file type", u64::from(FileKind::Regular.type_bits()), u64::from(mode));
        };
        if get64(b, 32) > MAX_FILE_BYTES {
            return damage("size", MAX_FILE_BYTES, get64(b, 32));
        }
        let level = b[120].max(b[104]);
        if level > MAX_TREE_LEVEL {
            return damage("tree level", u64::from(MAX_TREE_LEVEL), u64::from(level));
        }
        let (level, count) = (b[120], get16(b, 122));
        let mut root = RootArea { level, count, used, ..RootArea::default() };
        root.area[..used].copy_from_slice(&b[INODE_FIXED_BYTES..]);
        Ok(Some(Self {
            version: image.version(),
            kind,
            permissions: mode & 0o7777,
            links: get32(b, 20),
            uid: get32(b, 24),
            gid: get32(b, 28),
            size: get64(b, 32),
            blocks: get64(b, 40),
            atime: get64(b, 48) as i64,
            mtime: get64(b, 56) as i64,
            ctime: get64(b, 64) as i64,
            btime: get64(b, 72) as i64,
            generation: get32(b, 80),
            flags: get32(b, 84),
            xattrs: PoolOff(get64(b, 88)),
            xattr_level: b[104],
            parent: Ino(get64(b, 96)),
            hint: get32(b, 108),
            capacity: get64(b, 112),
            root,
        }))
    }
}
