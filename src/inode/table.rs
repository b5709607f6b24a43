//! Which inodes are in memory?
//!
//! One [`InodeCore`] an inode, found by number. Entries that nobody holds are let go when a shard grows large.
//! A freed inode is forgotten before its number can be given out again.

use super::InodeCore;
use super::core::clear_lazy_word;
use crate::alloc::Space;
use crate::error::{Damage, Error, Result, Structure};
use crate::layout::{Inode, Kind, LAZY_MTIME_AT, SlotClass};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Arc, Mutex};
use crate::units::Ino;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

const SHARDS: usize = 16;
/// Entries of a shard above which unused ones are let go.
const SHARD_ENTRIES: usize = 4096;

/// Spreads inode numbers: they come from the pool and not from an adversary, and one multiplication is enough.
#[derive(Debug, Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|b| self.write_u64(u64::from(*b)));
    }

    fn write_u64(&mut self, n: u64) {
        self.0 = (self.0 ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31);
    }
}

#[derive(Debug, Default)]
struct Shard {
    cores: HashMap<Ino, Arc<InodeCore>, BuildHasherDefault<Spread>>,
    sweep_at: usize,
}

/// The inodes in memory.
#[derive(Debug)]
pub struct InodeTable {
    space: Arc<Space>,
    shards: [Mutex<Shard>; SHARDS],
    /// An inode that no name may lead to: its lock is taken after all others.
    hidden: AtomicU64,
}

impl InodeTable {
    /// An empty table.
    #[must_use]
    pub fn new(space: Arc<Space>) -> Self {
        Self { space, shards: Default::default(), hidden: AtomicU64::new(0) }
    }

    /// From now on `ino` is not found here any more; the core that was is returned.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn hide(&self, ino: Ino) -> Result<Arc<InodeCore>> {
        let core = self.get(ino)?;
        self.hidden.store(ino.0, Ordering::Release);
        Ok(core)
    }

    fn shard(&self, ino: Ino) -> &Mutex<Shard> {
        &self.shards[(ino.0 % SHARDS as u64) as usize]
    }

    /// The inode `ino`, read from the media unless it is in memory.
    ///
    /// # Errors
    /// Damage, also where the slot holds no inode.
    pub fn get(&self, ino: Ino) -> Result<Arc<InodeCore>> {
        if ino.0 == self.hidden.load(Ordering::Acquire) {
            return Err(
                Damage::new(Structure::Inode, ino.offset(), "a file that is the intents'", 0, ino.0).into()
            );
        }
        let mut shard = self.shard(ino).lock();
        if let Some(core) = shard.cores.get(&ino) {
            return Ok(core.clone());
        }
        let core = Arc::new(InodeCore::new(ino, self.load(ino)?));
        shard.put(core.clone());
        Ok(core)
    }

    /// The inode `ino` as the media have it.
    ///
    /// # Errors
    /// Damage, also where the slot holds no inode.
    pub fn load(&self, ino: Ino) -> Result<Inode> {
        let missing = || Error::Corrupt(Damage::new(Structure::Inode, ino.offset(), "no inode", 1, 0));
        if ino.0 == 0 {
            return Err(missing());
        }
        self.check_place(ino)?;
        let journal = self.space.journal();
        let image = journal.read(ino.offset(), Kind::Inode)?;
        let mut inode = Inode::decode(ino.offset(), &image)?.ok_or_else(missing)?;
        let word = journal.region().load(ino.offset().plus(LAZY_MTIME_AT))?;
        if InodeCore::is_left_over(&inode, word) && !journal.is_read_only() {
            clear_lazy_word(journal.region(), ino)?;
        }
        InodeCore::join_lazy_word(&mut inode, word);
        Ok(inode)
    }

    /// Refuses a number from the media that names no slot of an arena: what lies there may be a file's data, made to
    /// look like an inode. Where a damaged descriptor can not tell, the inode's own check has to do, so that the files
    /// of its chunk can still be read.
    fn check_place(&self, ino: Ino) -> Result<()> {
        match self.space.contains_arena_slot(ino.offset(), SlotClass::Inode) {
            Ok(true) | Err(Error::Corrupt(_)) => Ok(()),
            Ok(false) => {
                Err(Damage::new(Structure::Inode, ino.offset(), "not a slot of an arena", 1, 0).into())
            }
            Err(error) => Err(error),
        }
    }

    /// Puts a new inode's core in; its number was given out just now, so nobody looks for it yet.
    pub fn put(&self, core: Arc<InodeCore>) {
        self.shard(core.ino).lock().put(core);
    }

    /// Forgets an inode that is about to be freed.
    pub fn forget(&self, ino: Ino) {
        self.shard(ino).lock().cores.remove(&ino);
    }
}

impl Shard {
    fn put(&mut self, core: Arc<InodeCore>) {
        if self.cores.len() >= self.sweep_at.max(SHARD_ENTRIES) {
            // Under the shard's lock a count of one means that only the table holds it, and nobody can come.
            self.cores.retain(|_, core| Arc::strong_count(core) > 1);
            self.sweep_at = self.cores.len() * 2;
        }
        self.cores.insert(core.ino, core);
    }
}
