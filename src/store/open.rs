//! How does a pool begin, and how does it come back?
//!
//! A new pool is zeros but for its superblocks, the first arena, the root directory and the hidden inode of the
//! intents; the superblocks name the latter two last, so that a pool whose making was cut short is not a pool yet.
//! Opening recovers the journal and then does what the intents ask for: work proportional to the journal and to what
//! was under way, never to the pool.

use super::options::StoreOptions;
use super::snapshot;
use crate::alloc::Space;
use crate::error::{Damage, Error, Result, Structure};
use crate::inode::{Fs, Intent, list_intents, now};
use crate::io::{self, remove};
use crate::journal::{Journal, Recovery};
use crate::layout::{
    Durability, FileKind, Geometry, Inode, LABEL_BYTES, RootArea, SUPERBLOCK_A, SUPERBLOCK_B,
    SUPERBLOCK_BYTES, Seed, Superblock,
};
use crate::pmem::mutation::{self, Mutation};
use crate::pmem::{Durable, Region};
use crate::sync::Arc;
use crate::sync::atomic::Ordering;
use crate::units::{
    BLOCK_BYTES, CHUNK_BYTES, GROUP_BYTES, Group, Ino, MAX_POOL_BYTES, MIN_POOL_BYTES, PoolOff,
};
use std::ops::Range;
use std::time::Instant;

/// The identity and the salt of a new pool: random, unless a test asks for the same every time.
fn identity(options: &StoreOptions) -> Result<([u8; 16], Seed)> {
    #[cfg(feature = "sim")]
    if let Some(seed) = options.seed {
        return Ok((uuid::Uuid::from_u64_pair(seed, !seed).into_bytes(), Seed(seed)));
    }
    let _only_tests_ask = options;
    let mut seed = [0; 8];
    getrandom::fill(&mut seed).map_err(|e| Error::io("asking for random bytes", std::io::Error::other(e)))?;
    Ok((uuid::Uuid::new_v4().into_bytes(), Seed(u64::from_le_bytes(seed))))
}

fn superblock(size: u64, options: &StoreOptions) -> Result<Superblock> {
    if !(MIN_POOL_BYTES..=MAX_POOL_BYTES).contains(&size) {
        return Err(Error::PoolSize(size));
    }
    if options.label.len() > LABEL_BYTES {
        return Err(Error::InvalidArgument("a label has at most 64 bytes"));
    }
    let mut label = [0; LABEL_BYTES];
    label[..options.label.len()].copy_from_slice(options.label.as_bytes());
    let (uuid, seed) = identity(options)?;
    let geometry = options.geometry.unwrap_or_else(|| Geometry::for_size(size));
    geometry.validate().map_err(|_| Error::InvalidArgument("a geometry that can not be"))?;
    Ok(Superblock {
        compat: 0,
        ro_compat: 0,
        incompat: 0,
        uuid,
        label,
        geometry: Geometry { size: size - size % CHUNK_BYTES, ..geometry },
        epoch: 1,
        sequence: 1,
        seed,
        root: Ino(0),
        intents: Ino(0),
        created: now(),
    })
}

/// Zeroes whatever of the pool's own structures is not zero already; a new file is. The magic words go first: an old pool
/// is whole, or none, at any moment.
fn clear(region: &Region, geometry: &Geometry) -> Result<()> {
    if region.info().zeroed {
        return Ok(());
    }
    for superblock in [SUPERBLOCK_A, SUPERBLOCK_B] {
        region.zero_nt(superblock, 8)?;
    }
    region.fence()?;
    clear_headers(region, geometry, 0..geometry.groups())
}

/// Zeroes the headers of `groups`, durably.
fn clear_headers(region: &Region, geometry: &Geometry, groups: Range<u64>) -> Result<()> {
    for group in groups.map(Group) {
        let len = geometry.header_blocks(group) * BLOCK_BYTES;
        region.provision(group.offset(), len)?;
        region.zero_nt(group.offset(), len)?;
    }
    region.fence()
}

/// Makes the pool of `journal` `size` bytes long, whole chunks.
///
/// The file grows by zeros. What the region had beyond the pool's end may be anything: the headers of groups that begin
/// there are cleared before a superblock names them. (A group that was cut by the old end has its whole header.) The
/// superblock's lock decides between calls at the same time; one that comes late can not shrink the pool.
///
/// # Errors
/// [`Error::CanNotShrink`], [`Error::PoolSize`], errors of the system and of the medium.
pub(super) fn grow(journal: &Journal, size: u64) -> Result<()> {
    journal.writable()?;
    if size > MAX_POOL_BYTES {
        return Err(Error::PoolSize(size));
    }
    let region = journal.region();
    let had = region.len();
    if size > had && size >= journal.geometry().size {
        region.grow(size)?;
    }
    journal.update_superblock(|superblock| {
        let current = superblock.geometry.size;
        if size < current {
            return Err(Error::CanNotShrink { current, asked: size });
        }
        let grown = Geometry { size, ..superblock.geometry };
        let unclear = superblock.geometry.groups()..grown.groups().min(had.div_ceil(GROUP_BYTES));
        if !unclear.is_empty() {
            clear_headers(region, &grown, unclear)?;
        }
        superblock.geometry = grown;
        Ok(())
    })
}

pub(super) fn hidden(kind: FileKind, permissions: u32, links: u32, parent: Ino) -> Inode {
    let (uid, gid) = super::process_owner();
    let time = now();
    Inode {
        version: 0,
        kind,
        permissions,
        links,
        uid,
        gid,
        size: 0,
        blocks: 0,
        atime: time,
        mtime: time,
        ctime: time,
        btime: time,
        generation: 1,
        flags: 0,
        xattrs: PoolOff(0),
        xattr_level: 0,
        parent,
        hint: 0,
        capacity: 0,
        root: RootArea::default(),
    }
}

/// Makes a pool of `size` bytes in `region`, destroying what is there.
///
/// # Errors
/// [`Error::PoolSize`], [`Error::PoolExists`] without `force`, errors of the medium.
pub(super) fn format(region: &Arc<Region>, size: u64, options: &StoreOptions) -> Result<()> {
    let superblock = superblock(size, options)?;
    if !region.info().zeroed && !options.region.force && holds_something(region)? {
        return Err(Error::PoolExists);
    }
    // Nothing that is there is wanted.
    for (at, len) in region.bad_ranges() {
        region.mend(at, len)?;
    }
    // The lanes, the tables and the first metadata are in the first chunk: a full host says so here.
    region.provision(PoolOff(0), CHUNK_BYTES)?;
    clear(region, &superblock.geometry)?;
    Journal::format(region, &superblock)?;
    let (journal, _) = Journal::open(region.clone())?;
    let space = Space::new(Arc::new(journal))?;
    let mut op = space.begin();
    let (root, intents) = (op.alloc_inode()?, op.alloc_inode()?);
    op.write_inode(root, &hidden(FileKind::Directory, 0o755, 2, root))?;
    let flags = match options.durability {
        Durability::Strict => 0,
        level => Durability::bits(Some(level)),
    };
    op.write_inode(intents, &Inode { flags, ..hidden(FileKind::Regular, 0, 1, Ino(0)) })?;
    op.commit(Durable::no_data())?;
    space.journal().update_superblock(|superblock| {
        (superblock.root, superblock.intents) = (root, intents);
        Ok(())
    })
}

/// Whether anything was stored where a pool's superblock would be.
fn holds_something(region: &Region) -> Result<bool> {
    let mut bytes = [0; SUPERBLOCK_BYTES];
    region.read(PoolOff(0), &mut bytes)?;
    Ok(bytes != [0; SUPERBLOCK_BYTES])
}

/// Opens the pool in `region`: recovers it and finishes what was under way, unless it is read-only.
///
/// # Errors
/// What [`Journal::open`] says, damage of the root directory.
pub(super) fn open(region: Arc<Region>) -> Result<(Arc<Fs>, Recovery)> {
    let start = Instant::now();
    let read_only = region.info().read_only;
    let (journal, mut recovery) = if read_only {
        (Journal::open_read_only(region)?, Recovery::default())
    } else {
        Journal::open(region)?
    };
    if journal.superblock().root == Ino(0) {
        return Err(Error::NotAPool);
    }
    let fs = Arc::new(Fs::new(Arc::new(Space::new(Arc::new(journal))?))?);
    if !read_only {
        recovery.intents = finish_intents(&fs)?;
    } else if has_half_moved(&fs)? {
        return Err(Error::NeedsRecovery);
    }
    recovery.nanos = start.elapsed().as_nanos() as u64;
    Ok((fs, recovery))
}

/// Whether the blocks of a file have moved in part only: it is not to be seen like that.
fn has_half_moved(fs: &Fs) -> Result<bool> {
    let inode = fs.intents.state.read();
    match list_intents(&fs.space, fs.intents.ino, &inode) {
        Ok(intents) => Ok(intents.iter().any(|(_, intent)| matches!(intent, Intent::Shift(_)))),
        Err(Error::Corrupt(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Does what the intents say; how many there were. One that can not be done stays and is logged: `check` names
/// what is in its way.
fn finish_intents(fs: &Arc<Fs>) -> Result<u64> {
    let intents = {
        let inode = fs.intents.state.read();
        match list_intents(&fs.space, fs.intents.ino, &inode) {
            Ok(intents) => intents,
            Err(error @ Error::Corrupt(_)) => {
                tracing::warn!(%error, "unfinished operations can not be read");
                return Ok(0);
            }
            Err(error) => return Err(error),
        }
    };
    // Those of files in a snapshot that is removed are gone by then, and not lost with their inodes.
    let last_is_snapshot = !mutation::is(Mutation::SnapshotsFirst);
    let (last, first): (Vec<_>, Vec<_>) = intents
        .iter()
        .copied()
        .partition(|(_, intent)| matches!(intent, Intent::Snapshot) == last_is_snapshot);
    for (ino, intent) in first.into_iter().chain(last) {
        if let Err(error) = finish(fs, ino, intent) {
            tracing::warn!(ino = ino.0, %error, "an unfinished operation stays unfinished");
        }
    }
    Ok(intents.len() as u64)
}

fn finish(fs: &Arc<Fs>, ino: Ino, intent: Intent) -> Result<()> {
    let core = fs.table.get(ino)?;
    match intent {
        Intent::CleanUp => {
            core.has_intent.store(true, Ordering::Release);
            remove::after_last_handle(fs, &core)
        }
        Intent::Range { .. } | Intent::Shift(_) if core.state.read().kind != FileKind::Regular => {
            Err(Damage::new(Structure::Intent, ino.offset(), "a change of blocks of no file", 0, ino.0)
                .into())
        }
        Intent::Range { change, start, end, size } => io::resume(fs, &core, change, start..end, size),
        Intent::Shift(shift) => io::resume_shift(fs, &core, shift),
        Intent::Snapshot => snapshot::discard(fs, ino),
    }
}
