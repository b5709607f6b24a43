//! What does a database hold, where do its bytes go, and what did its changes cost?
//!
//! Everything here is counted when it is asked for: from the table of chunks, the maps of pages, the directory of the hash index, and the
//! lists of free slots. While others change the database, two figures may be from moments apart.

use crate::chunks::{self, ChunkKind};
use crate::core::Core;
use crate::db::Db;
use crate::error::Result;
use crate::heap::{SLAB, slot_bytes};
use crate::layout::{CHUNK, PAGE};
use crate::media::{Media, Work};
use crate::pages::{self, PageKind};
use crate::record::{Head, TOMBSTONE};

/// What a database takes, and has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Records of all trees.
    pub records: u64,
    /// Trees, with the one without a name.
    pub trees: u64,
    /// Bytes that the database's chunks take.
    pub media_bytes: u64,
    /// Bytes of its file; what is more than that waits to be used, or went back to the pool.
    pub file_bytes: u64,
    /// Changes that were made since it was opened, about.
    pub changes: u64,
    /// What the chunks are used for.
    pub space: Space,
    /// Values that are read where they lie at the moment.
    pub lent: u64,
    /// Bytes of the process's memory that copies of records have, for scans ([`crate::Options::scan_memory`]).
    pub scan_memory: u64,
    /// Sessions that changed something since it was opened: as many as threads did at once.
    pub sessions: u64,
    /// Fences and flushes since the pool was opened, by whatever changed it; `None` where nobody counts.
    pub work: Option<Work>,
}

/// What a database's chunks are used for, in bytes. The sum is what they have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// Superblock, rings, catalog, table of chunks.
    pub fixed: u64,
    /// Slots with records, and those of which nobody knows yet that they are free.
    pub slots: u64,
    /// Slots that are known to be free.
    pub free_slots: u64,
    /// The ends of slabs, which no slot takes.
    pub slab_ends: u64,
    /// Records with pages of their own.
    pub runs: u64,
    /// Records with chunks of their own.
    pub large: u64,
    /// Segments of the hash index.
    pub hash: u64,
    /// Directories of the hash index.
    pub directory: u64,
    /// The ordered indexes.
    pub ordered: u64,
    /// Lists of batches.
    pub lists: u64,
    /// Maps of pages.
    pub maps: u64,
    /// Free pages in chunks of records.
    pub free_pages: u64,
    /// Free pages in chunks of everything else.
    pub free_index_pages: u64,
    /// Free chunks of the file that have their space.
    pub spare: u64,
}

impl Space {
    /// Every part with its name, in order.
    #[must_use]
    pub const fn parts(&self) -> [(&'static str, u64); 14] {
        [
            ("records", self.slots),
            ("runs", self.runs),
            ("large", self.large),
            ("free_slots", self.free_slots),
            ("slab_ends", self.slab_ends),
            ("free_pages", self.free_pages),
            ("hash", self.hash),
            ("directory", self.directory),
            ("ordered", self.ordered),
            ("lists", self.lists),
            ("free_index_pages", self.free_index_pages),
            ("maps", self.maps),
            ("fixed", self.fixed),
            ("spare", self.spare),
        ]
    }

    /// All of it.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.parts().iter().map(|(_, bytes)| bytes).sum()
    }

    fn add_pages<M: Media>(&mut self, media: &M, at: u64, free: fn(&mut Self) -> &mut u64) -> Result<()> {
        self.maps += PAGE;
        let mut rest = CHUNK - PAGE;
        for run in pages::runs(media, at)? {
            let bytes = run.kind.pages() as u64 * PAGE;
            rest -= bytes;
            match run.kind {
                PageKind::Slab(class) => {
                    let used = SLAB - SLAB % slot_bytes(class.into());
                    self.slots += used;
                    self.slab_ends += SLAB - used;
                }
                PageKind::Record(_) => self.runs += bytes,
                PageKind::Segment(_) => self.hash += bytes,
                PageKind::Directory(_) => self.directory += bytes,
                PageKind::Ordered(_) | PageKind::Group(_) => self.ordered += bytes,
                PageKind::List(_) => self.lists += bytes,
                PageKind::Map => self.maps += bytes,
            }
        }
        *free(self) += rest;
        Ok(())
    }
}

impl<M: Media> Core<M> {
    /// What the chunks are used for. Sessions that are busy are waited for.
    pub(crate) fn space(&self) -> Result<Space> {
        let mut space = Space::default();
        for run in chunks::runs(self.media())? {
            let bytes = run.count * CHUNK;
            match run.kind {
                ChunkKind::Fixed => space.fixed += bytes,
                ChunkKind::Record => space.large += bytes,
                ChunkKind::Directory => space.directory += bytes,
                ChunkKind::Ordered => space.ordered += bytes,
                ChunkKind::List => space.lists += bytes,
                ChunkKind::Pages => space.add_pages(self.media(), run.at(), |space| &mut space.free_pages)?,
                ChunkKind::Index => {
                    space.add_pages(self.media(), run.at(), |space| &mut space.free_index_pages)?;
                }
            }
        }
        space.free_slots = self.heap.free_bytes();
        for taken in self.sessions.each() {
            space.free_slots += taken.session.kept.free_bytes();
        }
        space.slots = space.slots.saturating_sub(space.free_slots);
        space.spare = self.env.chunks.ready() * CHUNK;
        Ok(space)
    }
}

impl<M: Media> Db<M> {
    /// Bytes of all keys and values: every record is looked at, its value left out.
    ///
    /// # Errors
    /// Damage of the hash index.
    pub fn logical_bytes(&self) -> Result<u64> {
        let core = self.core();
        let mut bytes = 0;
        core.index.each_segment(core.media(), &core.stripes, |entries| {
            let _pin = core.env.pin();
            for (n, (_, at)) in entries.iter().enumerate() {
                if let Some((_, ahead)) = entries.get(n + 8) {
                    core.media().prefetch(*ahead);
                }
                let head = Head::load(core.media(), *at);
                if !head.is(TOMBSTONE) {
                    bytes += (head.key_len() + head.value_len()) as u64;
                }
            }
        })?;
        Ok(bytes)
    }

    /// What the database takes, and has. After a crash the first call counts the records.
    ///
    /// # Errors
    /// Damage.
    pub fn stats(&self) -> Result<Stats> {
        let core = self.core();
        let trees = self.all_trees();
        let mut records = 0;
        for tree in &trees {
            records += tree.len()?;
        }
        Ok(Stats {
            records,
            trees: trees.len() as u64,
            media_bytes: core.env.chunks.used() * CHUNK,
            file_bytes: core.media().len(),
            changes: core.changes(),
            space: core.space()?,
            lent: core.held.count() as u64,
            scan_memory: self.copies().bytes(),
            sessions: core.sessions.each().filter(|taken| taken.session.position > 0).count() as u64,
            work: core.media().work(),
        })
    }
}
