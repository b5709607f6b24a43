//! Model 3: blocks. None is given twice, and what a change frees can be had only after that change.
//!
//! Owners are noted beside the store, a flag a block. Mutation: `FreeEarly`.

use crate::{Pool, explore, geometry, part, pick, superblock, together};
use daxstore::alloc::{Space, Want};
use daxstore::error::Result;
use daxstore::journal::Journal;
use daxstore::layout::{Bits, ChunkObject, GroupObject, Kind};
use daxstore::pmem::sim::Sim;
use daxstore::pmem::{Durable, Region};
use daxstore::units::{Block, Chunk, FileBlock, Group, Run};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

struct Blocks {
    space: Space,
    owned: Vec<AtomicBool>,
    count: AtomicU64,
}

fn open(sim: Arc<Sim>) -> Space {
    let (journal, _) = Journal::open(Arc::new(Region::sim(sim))).unwrap();
    Space::new(Arc::new(journal)).unwrap()
}

/// The blocks that the media have in use in `chunk`; nobody changes it.
fn used_on_media(space: &Space, chunk: Chunk) -> Bits {
    let (journal, geometry) = (space.journal(), space.journal().geometry());
    let at = geometry.group_object(Group(0));
    let group =
        GroupObject::decode(at, &journal.read(at, Kind::Group).unwrap(), geometry.group_chunks(Group(0)))
            .unwrap();
    if chunk.0 > 0 && !group.broken.get(chunk.0) {
        return if group.used.get(chunk.0) { Bits::ALL } else { Bits::default() };
    }
    let at = geometry.chunk_descriptor(chunk);
    ChunkObject::decode(at, &journal.read(at, Kind::Chunk).unwrap()).unwrap().used
}

impl Blocks {
    fn open(sim: Arc<Sim>) -> Self {
        let space = open(sim);
        let blocks = space.journal().geometry().blocks();
        let owned = (0..blocks).map(|_| AtomicBool::new(false)).collect();
        Self { space, owned, count: AtomicU64::new(0) }
    }

    fn each(run: Run) -> impl Iterator<Item = usize> {
        (run.start.0..run.end().0).map(|block| block as usize)
    }

    /// Takes a run that nobody else has, near `goal`.
    fn take(&self, blocks: u64, goal: Option<Block>) -> Result<Run> {
        let mut op = self.space.begin();
        let run = op.reserve(&Want { blocks, file_block: FileBlock(0), goal })?;
        for block in Self::each(run) {
            assert!(!self.owned[block].swap(true, Ordering::SeqCst), "block {block} was given twice");
        }
        #[cfg(loom)]
        self.assert_free_on_media(run);
        op.commit(Durable::no_data())?;
        self.count.fetch_add(run.len, Ordering::SeqCst);
        Ok(run)
    }

    /// A reserved block is free on the media too: whoever freed it has committed. Loom only, whose threads do not
    /// store while this reads.
    #[cfg(loom)]
    fn assert_free_on_media(&self, run: Run) {
        let used = used_on_media(&self.space, run.start.chunk());
        assert!(!used.any(run.start.in_chunk(), run.len), "reserved before it was freed: {run:?}");
    }

    fn free(&self, run: Run) -> Result<()> {
        let mut op = self.space.begin();
        op.release(run)?;
        // From the commit on, which returns later, somebody else may have them.
        Self::each(run).for_each(|block| self.owned[block].store(false, Ordering::SeqCst));
        self.count.fetch_sub(run.len, Ordering::SeqCst);
        op.commit(Durable::no_data())
    }

    /// What the media have in use are the blocks with an owner, here and after opening again.
    fn assert_agrees(&self, sim: &Arc<Sim>) {
        for space in [&self.space, &open(sim.clone())] {
            let report = space.report().unwrap();
            assert_eq!(report.damage, []);
            let used = self.count.load(Ordering::SeqCst);
            assert_eq!(space.free_blocks(), report.usable_blocks - used, "counters");
            assert_eq!(
                report.free_chunks * 512 + report.free_in_broken,
                report.usable_blocks - used,
                "media"
            );
            let geometry = space.journal().geometry();
            for chunk in (0..geometry.chunks()).map(Chunk) {
                let used = used_on_media(space, chunk);
                let header = if chunk.0 == 0 { geometry.header_blocks(Group(0)) } else { 0 };
                let first = chunk.first_block().0;
                for block in (header..512).filter(|block| used.get(*block)) {
                    assert!(self.owned[(first + block) as usize].load(Ordering::SeqCst), "used, nobody's");
                }
            }
        }
    }
}

fn pool() -> Arc<Pool> {
    let geometry = geometry(2);
    Pool::new(geometry.size, move |sim| {
        Journal::format(&Region::sim(sim), &superblock(geometry)).unwrap();
    })
}

/// Each takes the blocks of the same chunk, and what the other one frees.
#[test]
fn blocks_of_one_chunk() {
    let pool = pool();
    explore("space: one chunk", move || {
        let sim = pool.copy();
        let blocks = Arc::new(Blocks::open(sim.clone()));
        let runs = [4, 4].map(|len| blocks.take(len, None).unwrap());
        let parts = runs.map(|run| {
            let blocks = blocks.clone();
            part(move || {
                let mut run = run;
                for _ in 0..pick(1, 100) {
                    blocks.free(run).unwrap();
                    // Where the other one's blocks were, or its own.
                    run = blocks.take(4, Some(runs[0].start)).unwrap();
                }
            })
        });
        together(parts.into());
        blocks.assert_agrees(&sim);
    });
}

/// The chunk breaks for one and becomes whole for the other: the same bits of the group object, and the descriptor.
#[test]
fn one_chunk_breaks_and_becomes_free() {
    let pool = pool();
    explore("space: group bits", move || {
        let sim = pool.copy();
        let blocks = Arc::new(Blocks::open(sim.clone()));
        let start = Block(512);
        let first = blocks.take(512, Some(start)).unwrap();
        let low = Run::new(first.start, 8);
        let high = Run::new(Block(first.start.0 + 8), first.len - 8);
        let parts = [low, high].map(|run| {
            let blocks = blocks.clone();
            part(move || {
                let mut run = run;
                for _ in 0..pick(1, 30) {
                    blocks.free(run).unwrap();
                    run = match blocks.take(run.len, Some(run.start)) {
                        Ok(run) => run,
                        Err(error) => panic!("{error}"),
                    };
                }
            })
        });
        together(parts.into());
        blocks.assert_agrees(&sim);
    });
}

/// The last blocks: both can not have them all, nobody gets more than there is, and the floor stays.
#[test]
fn the_last_blocks() {
    let pool = pool();
    explore("space: the last blocks", move || {
        let sim = pool.copy();
        let blocks = Arc::new(Blocks::open(sim.clone()));
        while blocks.space.free_blocks() > blocks.space.floor() + 6 {
            let left = blocks.space.free_blocks() - blocks.space.floor() - 6;
            blocks.take(left.min(512), None).unwrap();
        }
        let parts = [0, 1].map(|_| {
            let blocks = blocks.clone();
            part(move || {
                let mut left = 3;
                while left > 0 {
                    left -= blocks.take(left, None).expect("three for each").len;
                }
            })
        });
        together(parts.into());
        assert_eq!(blocks.space.free_blocks(), blocks.space.floor());
        assert!(blocks.take(1, None).is_err(), "the floor is left");
        blocks.assert_agrees(&sim);
    });
}

#[cfg(loom)]
#[test]
fn mutations_are_caught() {
    crate::assert_caught("space::blocks_of_one_chunk", daxstore::pmem::mutation::Mutation::FreeEarly);
}
