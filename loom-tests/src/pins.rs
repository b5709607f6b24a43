//! Model 10: pins. Freed pinned blocks are nobody's until the last unpin, and somebody's after it.
//!
//! Mutations: `IgnorePins`, `UnpinInTwoSteps`.

use crate::{Pool, explore, geometry, part, superblock, together};
use daxstore::alloc::{Space, Want};
use daxstore::error::Result;
use daxstore::journal::Journal;
use daxstore::pmem::sim::Sim;
use daxstore::pmem::{Durable, Region};
use daxstore::units::{FileBlock, Run};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

fn open(sim: Arc<Sim>) -> Space {
    let (journal, _) = Journal::open(Arc::new(Region::sim(sim))).unwrap();
    Space::new(Arc::new(journal)).unwrap()
}

fn pool() -> Arc<Pool> {
    let geometry = geometry(2);
    Pool::new(geometry.size, move |sim| {
        Journal::format(&Region::sim(sim), &superblock(geometry)).unwrap();
    })
}

fn take(space: &Space, blocks: u64, near: Option<Run>) -> Result<Run> {
    let mut op = space.begin();
    let goal = near.map(|run| run.start);
    let run = op.reserve(&Want { blocks, file_block: FileBlock(0), goal })?;
    op.commit(Durable::no_data())?;
    Ok(run)
}

fn free(space: &Space, run: Run) -> Result<()> {
    let mut op = space.begin();
    op.release(run)?;
    op.commit(Durable::no_data())
}

fn overlap(a: Run, b: Run) -> bool {
    a.start < b.end() && b.start < a.end()
}

/// Media, DRAM and counters agree, and so they do when it is opened again.
fn assert_agrees(space: Space, sim: &Arc<Sim>, used: u64) {
    for space in [space, open(sim.clone())] {
        let report = space.report().unwrap();
        assert_eq!(report.free_blocks, report.usable_blocks - used, "counters");
        assert_eq!(report.free_chunks * 512 + report.free_in_broken, report.free_blocks, "media");
    }
}

/// One frees what another one unpins meanwhile, and takes blocks near it.
fn unpinned_while_freed(name: &str, blocks: u64) {
    let pool = pool();
    explore(name, move || {
        let sim = pool.copy();
        let space = Arc::new(open(sim.clone()));
        let run = take(&space, blocks, None).unwrap();
        // Somebody else has pinned a block of it, and keeps it pinned.
        let kept = Run::new(run.start, 1);
        space.pin(&[kept, run]).unwrap();
        let unpinned = Arc::new(AtomicBool::new(false));
        let (freeing, unpinning, seen) = (space.clone(), space.clone(), unpinned.clone());
        together(vec![
            part(move || {
                unpinned.store(true, Ordering::SeqCst);
                unpinning.unpin(&[run]);
            }),
            part(move || {
                free(&freeing, run).unwrap();
                let got = take(&freeing, blocks, Some(Run::new(run.end(), 0))).unwrap();
                assert!(!overlap(got, kept), "a pinned block is given away: {got:?}");
                assert!(!overlap(got, run) || seen.load(Ordering::SeqCst), "before it was unpinned: {got:?}");
                free(&freeing, got).unwrap();
            }),
        ]);
        assert_eq!(space.free_blocks(), space.journal().geometry().usable_blocks() - 1, "one is pinned");
        space.unpin(&[kept]);
        let again = take(&space, blocks, Some(run)).unwrap();
        assert_eq!(again, run, "all of it can be had again");
        let space = Arc::into_inner(space).expect("all parts are done");
        assert_agrees(space, &sim, blocks);
    });
}

#[test]
fn some_blocks() {
    unpinned_while_freed("pins: some blocks", 4);
}

/// The bit of the chunk in its group changes, and no descriptor.
#[test]
fn a_whole_chunk() {
    unpinned_while_freed("pins: a whole chunk", 512);
}

#[cfg(loom)]
#[test]
fn mutations_are_caught() {
    use daxstore::pmem::mutation::Mutation;
    crate::assert_caught("pins::some_blocks", Mutation::IgnorePins);
    crate::assert_caught("pins::some_blocks", Mutation::UnpinInTwoSteps);
    crate::assert_caught("pins::a_whole_chunk", Mutation::UnpinInTwoSteps);
}
