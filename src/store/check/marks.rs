//! What must the marks be?
//!
//! Computed from the claims; only what differs from the media is written.

use super::media::Media;
use super::space::{BrokenChunk, Chunks, GroupMarks, union};
use crate::layout::{Bits, ChunkObject, GroupObject, Image, Kind};
use crate::units::{CHUNK_BLOCKS, Chunk, PoolOff};

/// What a chunk shall be.
enum Wanted {
    Free,
    Whole,
    Broken(ChunkObject),
}

impl Chunks {
    /// Blocks that have an owner.
    pub fn owned(&self) -> u64 {
        let broken: u64 = self.broken.iter().map(|broken| broken.owned.count()).sum();
        let whole: u64 = self.groups.iter().map(|marks| marks.whole.count() * CHUNK_BLOCKS).sum();
        let parts: u64 = self.parts.values().map(Bits::count).sum();
        broken + whole + parts
    }

    /// The descriptors and group objects to be written so that everything owned is marked; what is marked and not owned
    /// stays so if `keep`.
    pub fn rebuilt(&self, media: &Media<'_>, keep: bool) -> Vec<(PoolOff, Image)> {
        let mut writes = Vec::new();
        for marks in &self.groups {
            let group = self.rebuild_group(media, marks, keep, &mut writes);
            let mut old = marks.object;
            old.used.set(0);
            old.broken.set(0);
            if !marks.known || old != group {
                writes.push((media.geometry.group_object(marks.group), group.encode()));
            }
        }
        writes
    }

    fn rebuild_group(
        &self,
        media: &Media<'_>,
        marks: &GroupMarks,
        keep: bool,
        writes: &mut Vec<(PoolOff, Image)>,
    ) -> GroupObject {
        let mut group = GroupObject::default();
        for i in 0..media.geometry.group_chunks(marks.group) {
            let chunk = Chunk(marks.group.first_chunk().0 + i);
            let wanted = self.wanted(marks, chunk, keep);
            let at = media.geometry.chunk_descriptor(chunk);
            let found = media.read(at, Kind::Chunk).and_then(|image| ChunkObject::decode(at, &image));
            match wanted {
                // A later change counts on the version that is there.
                Wanted::Free | Wanted::Whole if found.is_err() => {
                    writes.push((at, ChunkObject::default().encode()));
                }
                Wanted::Broken(object) if found != Ok(object) => writes.push((at, object.encode())),
                _ => {}
            }
            if !matches!(wanted, Wanted::Free) {
                group.used.set(i);
            }
            if matches!(wanted, Wanted::Broken(_)) {
                group.broken.set(i);
            }
        }
        group
    }

    fn wanted(&self, marks: &GroupMarks, chunk: Chunk, keep: bool) -> Wanted {
        let i = chunk.in_group();
        let found = self.broken.binary_search_by_key(&chunk, |broken| broken.chunk);
        let (marked, owned, arenas) = match found.ok().and_then(|i| self.broken.get(i)) {
            Some(BrokenChunk { object, known, owned, .. }) => {
                let marked = if *known { object.used } else { Bits::default() };
                (marked, *owned, ChunkObject { used: object.meta, ..*object })
            }
            None => {
                let whole = marks.known && marks.object.used.get(i) && !marks.object.broken.get(i);
                let marked = if whole { Bits::ALL } else { Bits::default() };
                (marked, self.claimed(marks, i), ChunkObject::default())
            }
        };
        let used = if keep { union(&marked, &owned) } else { owned };
        let stays_broken = found.is_ok() || i == 0;
        if used == Bits::default() && i > 0 {
            Wanted::Free
        } else if used == Bits::ALL && !stays_broken {
            Wanted::Whole
        } else {
            let class = arenas.class.filter(|_| arenas.meta != Bits::default());
            Wanted::Broken(ChunkObject { used, meta: arenas.meta, class })
        }
    }
}
