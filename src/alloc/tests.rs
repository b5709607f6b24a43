//! Does the allocator keep its rules? Pools are formatted by hand over simulated memory.

#![cfg(feature = "sim")]

mod held;

use super::*;
use crate::layout::{FileKind, Image, Inode, Kind, LABEL_BYTES, RootArea, Seed, SlotClass, Superblock};
use crate::pmem::Durable;
use crate::pmem::Region;
use crate::pmem::sim::Sim;
use crate::tree::{ReadNodes, WriteNodes};
use crate::units::{Block, CHUNK_BLOCKS, FileBlock, Ino, PoolOff};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const TINY: u64 = 8 << 20;
/// 32 chunks, and still the small geometry.
const SMALL: u64 = 62 << 20;

fn format(size: u64) -> Arc<Sim> {
    format_part(size, size)
}

/// A pool of `size` bytes on a medium that has more.
fn format_part(medium: u64, size: u64) -> Arc<Sim> {
    let sim = Arc::new(Sim::new(medium).unwrap());
    let superblock = Superblock {
        compat: 0,
        ro_compat: 0,
        incompat: 0,
        uuid: [7; 16],
        label: [0; LABEL_BYTES],
        geometry: Geometry::for_size(size),
        epoch: 1,
        sequence: 1,
        seed: Seed(11),
        root: Ino(0),
        intents: Ino(0),
        created: 0,
    };
    Journal::format(&Region::sim(sim.clone()), &superblock).unwrap();
    sim
}

fn open(sim: &Arc<Sim>) -> Space {
    let (journal, _) = Journal::open(Arc::new(Region::sim(sim.clone()))).unwrap();
    Space::new(Arc::new(journal)).unwrap()
}

fn space(size: u64) -> Space {
    open(&format(size))
}

fn want(blocks: u64, file_block: u64, goal: Option<u64>) -> Want {
    Want { blocks, file_block: FileBlock(file_block), goal: goal.map(Block) }
}

/// Reserves and commits one run.
fn get(space: &Space, blocks: u64, file_block: u64, goal: Option<u64>) -> Result<Run> {
    let mut op = space.begin();
    let run = op.reserve(&want(blocks, file_block, goal))?;
    op.commit(Durable::no_data())?;
    Ok(run)
}

fn release(space: &Space, run: Run) -> Result<()> {
    let mut op = space.begin();
    op.release(run)?;
    op.commit(Durable::no_data())
}

fn free_chunks(space: &Space) -> u64 {
    space.report().unwrap().free_chunks
}

/// What DRAM says after everything was loaded: available blocks.
fn available(space: &Space) -> u64 {
    let mut free = 0;
    for group in (0..space.geometry().groups()).map(Group) {
        let chunks = space.geometry().group_chunks(group);
        free += space
            .with_group(group, |state, journal| {
                state.read_all(journal)?;
                let block = |i, b| u64::from(state.is_available(i, &bits::run(b, 1)));
                Ok((0..chunks)
                    .flat_map(|i| (0..CHUNK_BLOCKS).map(move |b| (i, b)))
                    .map(|(i, b)| block(i, b))
                    .sum::<u64>())
            })
            .unwrap();
    }
    free
}

/// Media, DRAM and counters agree when nothing is under way.
fn check(space: &Space) {
    let report = space.report().unwrap();
    assert_eq!(report.damage, []);
    let on_media = report.free_chunks * CHUNK_BLOCKS + report.free_in_broken;
    assert_eq!(on_media, space.free_blocks(), "media against counters: {report:?}");
    assert_eq!(available(space), on_media, "DRAM against media");
    let used = space.journal.totals().used as u64;
    assert_eq!(used, report.usable_blocks - report.free_blocks);
}

fn inode() -> Inode {
    Inode {
        version: 0,
        kind: FileKind::Regular,
        permissions: 0o644,
        links: 1,
        uid: 0,
        gid: 0,
        size: 0,
        blocks: 0,
        atime: 0,
        mtime: 0,
        ctime: 0,
        btime: 0,
        generation: 0,
        flags: 0,
        xattrs: PoolOff(0),
        xattr_level: 0,
        parent: Ino(0),
        hint: 0,
        capacity: 0,
        root: RootArea::default(),
    }
}

fn new_inode(space: &Space) -> Result<Ino> {
    let mut op = space.begin();
    let ino = op.alloc_inode()?;
    op.write_inode(ino, &inode())?;
    op.commit(Durable::no_data())?;
    Ok(ino)
}

fn free_inode(space: &Space, ino: Ino) -> Result<()> {
    let mut op = space.begin().for_removal();
    op.free_inode(ino)?;
    op.commit(Durable::no_data())
}

#[test]
fn whole_slots_get_whole_chunks_in_a_row() {
    let space = space(SMALL);
    let run = get(&space, 4 * 512 + 100, 512, None).unwrap();
    assert_eq!((run.start.in_chunk(), run.len), (0, 4 * 512));
    let next = get(&space, 2 * 512, 5 * 512, Some(run.end().0)).unwrap();
    assert_eq!(next.start, run.end(), "the goal's chunks");
    assert_eq!(free_chunks(&space), 30 - 6);
    check(&space);
}

#[test]
fn small_wants_leave_free_chunks_alone() {
    let space = space(TINY);
    let before = free_chunks(&space);
    for i in 0..400 {
        let run = get(&space, 1, i * 7, None).unwrap();
        assert_eq!(run.start.chunk(), Chunk(0));
    }
    assert_eq!(free_chunks(&space), before);
    check(&space);
}

#[test]
fn a_want_goes_on_at_its_goal() {
    let space = space(TINY);
    let first = get(&space, 10, 3, None).unwrap();
    let more = get(&space, 5, 13, Some(first.end().0)).unwrap();
    assert_eq!(more, Run::new(first.end(), 5));
    let at_a_used_block = get(&space, 5, 18, Some(first.start.0)).unwrap();
    assert!(at_a_used_block.start.0 >= more.end().0 || at_a_used_block.end().0 <= first.start.0);
    check(&space);
}

#[test]
fn a_place_in_a_broken_chunk_is_congruent_where_it_can_be() {
    let space = space(TINY);
    for file_block in [200, 512 + 210, 3 * 512 + 400] {
        let run = get(&space, 8, file_block, None).unwrap();
        assert_eq!((run.start.in_chunk(), run.len), (file_block % 512, 8));
        assert_eq!(run.start.chunk(), Chunk(0));
    }
    let elsewhere = get(&space, 8, 200, None).unwrap();
    assert_eq!(elsewhere.start.chunk(), Chunk(0), "congruence is not worth a chunk to a small want");
    assert_ne!(elsewhere.start.in_chunk(), 200);
}

#[test]
fn a_medium_want_breaks_a_chunk_congruently() {
    let space = space(TINY);
    let run = get(&space, 300, 10, None).unwrap();
    assert_eq!((run.start.in_chunk(), run.len), (10, 300));
    assert!(run.start.chunk().0 > 0);
    // What is left of the chunk serves others.
    let rest = get(&space, 150, 512 + 320, None).unwrap();
    assert_eq!(rest.start.in_chunk(), 320);
    check(&space);
}

#[test]
fn a_want_stops_where_whole_slots_begin() {
    let space = space(SMALL);
    let head = get(&space, 12 + 1024, 500, None).unwrap();
    assert!(head.len <= 12);
    let body = get(&space, 1024, 512, Some(head.end().0)).unwrap();
    assert_eq!((body.start.in_chunk(), body.len), (0, 1024));
}

#[test]
fn large_wants_are_served_by_pieces_when_chunks_are_gone() {
    let space = space(TINY);
    for i in 0..3 {
        assert_eq!(get(&space, 512, i * 512, None).unwrap().len, 512);
    }
    let piece = get(&space, 512, 0, None).unwrap();
    assert!(piece.len > 200, "the longest run first: {piece:?}");
    check(&space);
}

#[test]
fn a_full_pool_says_so_and_keeps_its_reserve() {
    let space = space(TINY);
    let usable = space.geometry().usable_blocks();
    let mut runs = Vec::new();
    let error = loop {
        match get(&space, 100, 0, None) {
            Ok(run) => runs.push(run),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::NoSpace { needed: 100, free: 0 }), "{error}");
    assert_eq!(space.free_blocks(), usable / 64, "the reserve");
    assert!(space.begin().ensure(1).is_err());
    assert!(space.begin().alloc_inode().is_err(), "an arena is a normal reservation");
    let mut op = space.begin().for_removal();
    let node = op.alloc_node().unwrap();
    op.write_node(node, Image::new(Kind::Node, 32)).unwrap();
    op.commit(Durable::no_data()).unwrap();
    check(&space);
    for run in runs {
        release(&space, run).unwrap();
    }
    check(&space);
    let with_arena = u64::from(node.block().chunk().0 > 0);
    assert_eq!(free_chunks(&space), 3 - with_arena, "empty chunks are whole again");
}

#[test]
fn unwritten_blocks_keep_room_for_their_conversion() {
    let space = space(TINY);
    let mut op = space.begin();
    op.count_unwritten(640);
    assert_eq!(space.floor(), 31 + 10, "from the moment they are given");
    drop(op);
    assert_eq!(space.floor(), 31);
    let mut op = space.begin();
    op.count_unwritten(640);
    op.commit(Durable::no_data()).unwrap();
    let mut op = space.begin();
    op.count_unwritten(-64);
    assert_eq!(space.floor(), 41, "until the conversion is durable");
    op.commit(Durable::no_data()).unwrap();
    assert_eq!((space.floor(), space.journal.totals().unwritten), (31 + 9, 576));
}

#[test]
fn what_is_set_aside_lies_where_nodes_can_be() {
    for (blocks, reopen) in [(1, false), (30, false), (512, false), (450, true), (512, true)] {
        let sim = format(TINY);
        let mut space = open(&sim);
        for _ in 0..20 {
            new_inode(&space).unwrap();
        }
        // Chunk 0 has the inodes, and more room than is set aside.
        get(&space, 380, 0, Some(80)).unwrap();
        while get(&space, blocks, 0, None).is_ok() {
            if reopen {
                space = open(&sim);
            }
        }
        let floor = space.floor();
        assert_eq!(space.free_blocks(), floor, "wants of {blocks}");
        let mut op = space.begin().for_conversion();
        for i in 0..floor * 8 {
            op.alloc_node().unwrap_or_else(|e| panic!("wants of {blocks}, node {i}: {e}"));
        }
        drop(op);
        check(&space);
    }
}

#[test]
fn fragments_serve_arenas_when_nothing_else_is_left() {
    let space = space(TINY);
    let mut singles = Vec::new();
    while let Ok(run) = get(&space, 1, 0, None) {
        singles.push(run);
    }
    // Every fourth block of the first chunks becomes free: no aligned run of 4 is.
    for run in singles.iter().filter(|run| run.start.0 % 4 == 1).take(300) {
        release(&space, *run).unwrap();
    }
    while get(&space, 1, 0, None).is_ok() {}
    let mut op = space.begin().for_conversion();
    let nodes: BTreeSet<_> = (0..40).map(|_| op.alloc_node().unwrap().0).collect();
    assert_eq!(nodes.len(), 40);
    drop(op);
    check(&space);
}

#[test]
fn a_dropped_operation_changes_nothing() {
    let sim = format(TINY);
    let space = open(&sim);
    let inode = new_inode(&space).unwrap();
    let run = get(&space, 20, 0, None).unwrap();
    let before = (space.report().unwrap(), available(&space));
    let mut op = space.begin();
    op.reserve(&want(512, 0, None)).unwrap();
    op.reserve(&want(300, 40, None)).unwrap();
    op.reserve(&want(3, 9, None)).unwrap();
    op.alloc_inode().unwrap();
    op.free_inode(inode).unwrap();
    op.release(run).unwrap();
    assert_eq!(space.free_blocks(), before.0.free_blocks - 815);
    drop(op);
    assert_eq!((space.report().unwrap(), available(&space)), before);
    check(&space);
}

#[test]
fn what_is_given_back_is_not_allocated() {
    let space = space(TINY);
    let mut op = space.begin();
    let run = op.reserve(&want(512, 0, None)).unwrap();
    op.give_back(Run::new(Block(run.start.0 + 100), 12));
    op.give_back(Run::new(Block(run.start.0 + 100), 12));
    assert_eq!(space.begin().reserve(&want(12, 100, None)).unwrap().len, 12);
    op.commit(Durable::no_data()).unwrap();
    assert_eq!(space.journal.totals().used, 500);
    check(&space);
    // All of it, in two parts: the chunk is free again.
    let mut op = space.begin();
    let run = op.reserve(&want(512, 0, None)).unwrap();
    op.give_back(Run::new(run.start, 200));
    op.give_back(Run::new(Block(run.start.0 + 200), 312));
    op.commit(Durable::no_data()).unwrap();
    check(&space);
    assert_eq!(free_chunks(&space), 2);
}

#[test]
fn freed_blocks_are_not_given_away_before_the_commit() {
    let space = space(TINY);
    while get(&space, 512, 0, None).is_ok() {}
    let mut op = space.begin();
    op.release(Run::new(Block(512), 512)).unwrap();
    assert!(get(&space, 1, 0, None).is_err());
    op.commit(Durable::no_data()).unwrap();
    assert_eq!(get(&space, 512, 0, None).unwrap(), Run::new(Block(512), 512));
    assert!(get(&space, 1, 0, None).is_err(), "what is left is the reserve");
    check(&space);
}

#[test]
fn releasing_what_is_not_in_use_is_damage() {
    let space = space(TINY);
    let run = get(&space, 20, 0, None).unwrap();
    let is_damage = |result| matches!(result, Err(Error::Corrupt(_)));
    let mut op = space.begin();
    op.release(run).unwrap();
    assert!(is_damage(op.release(Run::new(Block(run.start.0 + 19), 1))), "twice in one operation");
    op.commit(Durable::no_data()).unwrap();
    assert!(is_damage(release(&space, run)), "twice");
    assert!(is_damage(release(&space, Run::new(Block(512), 512))), "a free chunk");
    assert!(is_damage(release(&space, Run::new(Block(1), 1))), "a header block");
    assert!(is_damage(release(&space, Run::new(Block(3 * 512 + 500), 13))), "past the end");
    let ino = new_inode(&space).unwrap();
    assert!(is_damage(release(&space, Run::new(ino.offset().block(), 1))), "an arena");
    check(&space);
}

#[test]
fn slots_are_recognised() {
    let space = space(TINY);
    let ino = new_inode(&space).unwrap();
    let ask = |at, class| space.contains_arena_slot(PoolOff(at), class).unwrap();
    let at = ino.offset().0;
    for _ in 0..2 {
        assert!(ask(at, SlotClass::Inode));
        assert!(!ask(at, SlotClass::Node));
        assert!(!ask(at + 8, SlotClass::Inode));
        assert!(!ask(4096, SlotClass::Inode));
        assert!(!ask(u64::MAX - 255, SlotClass::Inode));
        assert!(!ask(3 << 21, SlotClass::Inode));
    }
    let is_damage = |result| matches!(result, Err(Error::Corrupt(_)));
    assert!(is_damage(free_inode(&space, Ino(ino.0 + 4096))), "not a slot");
    assert!(is_damage(free_inode(&space, Ino(ino.0 + 1))), "not in use");
    let mut op = space.begin();
    op.free_inode(ino).unwrap();
    assert!(is_damage(op.free_inode(ino)), "twice in one operation");
    op.commit(Durable::no_data()).unwrap();
    assert!(is_damage(free_inode(&space, ino)), "twice");
}

#[test]
fn classes_do_not_share_a_chunk() {
    let space = space(TINY);
    let ino = new_inode(&space).unwrap();
    let mut op = space.begin();
    let node = op.alloc_node().unwrap();
    assert!(op.read_node(node).is_err(), "still free");
    op.write_node(node, Image::new(Kind::Node, 32)).unwrap();
    assert_eq!(op.read_node(node).unwrap().kind(), Kind::Node);
    op.commit(Durable::no_data()).unwrap();
    assert_ne!(node.block().chunk(), ino.offset().block().chunk());
    let report = space.report().unwrap();
    assert_eq!((report.inode_arena_blocks, report.node_arena_blocks, report.inodes), (4, 4, 1));
    check(&space);
}

#[test]
fn empty_arenas_go_back_to_files_in_a_new_epoch() {
    let sim = format(TINY);
    let space = open(&sim);
    let inos: Vec<_> = (0..200).map(|_| new_inode(&space).unwrap()).collect();
    let kept = inos[70];
    inos.iter().filter(|ino| **ino != kept).for_each(|ino| free_inode(&space, *ino).unwrap());
    assert_eq!(space.report().unwrap().inode_arena_blocks, 16);
    let epoch = space.journal.superblock().epoch;
    let op = space.begin();
    assert_eq!(space.try_reclaim().unwrap(), None, "an operation is under way");
    drop(op);
    assert_eq!(space.try_reclaim().unwrap(), Some(12));
    assert_eq!(space.journal.superblock().epoch, epoch + 1, "J7");
    check(&space);
    assert!(!space.contains_arena_slot(inos[0].offset(), SlotClass::Inode).unwrap());
    assert!(space.contains_arena_slot(kept.offset(), SlotClass::Inode).unwrap());
    let mut again: BTreeSet<_> = (0..200).map(|_| new_inode(&space).unwrap()).collect();
    assert!(again.insert(kept) && again.len() == 201);
}

#[test]
fn a_reopened_pool_knows_what_is_used() {
    let sim = format(SMALL);
    let first = open(&sim);
    let mut runs = vec![get(&first, 2048, 0, None).unwrap(), get(&first, 300, 100, None).unwrap()];
    runs.extend((0..50).map(|i| get(&first, 3, i * 17, None).unwrap()));
    let before = first.report().unwrap();
    drop(first);
    let second = open(&sim);
    check(&second);
    assert_eq!(second.report().unwrap(), before);
    runs.into_iter().for_each(|run| release(&second, run).unwrap());
    check(&second);
    assert_eq!((free_chunks(&second), second.journal.totals().used), (30, 0));
}

#[test]
fn open_touches_nothing_and_growth_is_seen() {
    let sim = format_part(2 << 30, SMALL);
    let space = open(&sim);
    assert!(space.groups.read().is_empty());
    assert_eq!(get(&space, 512 * 40, 0, None).unwrap().len, 512 * 30);
    assert!(get(&space, 512, 0, None).unwrap().len < 512);
    space
        .journal
        .update_superblock(|s| {
            s.geometry.size = (1 << 30) + TINY;
            Ok(())
        })
        .unwrap();
    assert_eq!(get(&space, 512 * 600, 0, None).unwrap().len, 512 * (512 - 31));
    assert_eq!(get(&space, 512 * 600, 0, None).unwrap().len, 512 * 3);
    check(&space);
}

#[test]
fn every_block_of_every_group_can_be_had() {
    for tail in [2, 8] {
        let space = space((1 << 30) + (tail << 20));
        while get(&space, 512 * 512, 0, None).is_ok() {}
        assert_eq!(space.spare_blocks(), 0);
        assert_eq!(space.free_blocks(), 64);
        check(&space);
    }
}

#[test]
fn looking_for_room_begins_no_group() {
    let space = space((3 << 30) + TINY);
    for i in 0..600 {
        assert_eq!(get(&space, 2, i * 5, None).unwrap().start.chunk().group(), Group(0));
    }
    new_inode(&space).unwrap();
    for group in (1..4).map(Group).filter(|g| space.groups.read().contains_key(&g.0)) {
        assert!(space.with_group(group, |state, _| Ok(state.is_fresh())).unwrap());
    }
}

#[test]
fn damage_of_a_descriptor_is_an_error_of_its_group_alone() {
    let size = (1 << 30) + (8 << 20);
    let sim = format(size);
    let space = open(&sim);
    let run = get(&space, 3, 100, None).unwrap();
    assert_eq!(run.start.chunk(), Chunk(0));
    // Else recovery would put the descriptor right.
    space.journal.quiesce().unwrap();
    drop(space);
    sim.poke(PoolOff(2 * 4096 + 20), &[0xff]);
    let space = open(&sim);
    let other = get(&space, 3, 100, None).unwrap();
    assert_eq!(other.start.chunk().group(), Group(1), "the sound group serves");
    let error = release(&space, run).unwrap_err();
    assert!(matches!(&error, Error::Corrupt(d) if d.at == PoolOff(2 * 4096)), "{error}");
    let report = space.report().unwrap();
    assert_eq!((report.damaged_chunks, report.damage.len()), (1, 1));
}

#[test]
fn whole_chunks_survive_a_mix_of_sizes() {
    let space = space(SMALL);
    let mut small = Vec::new();
    // Files of 1 to 40 blocks come and go; two thirds stay.
    let mut seed = 1u64;
    for i in 0..600u64 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let mut left = seed >> 33 & 31 | 1;
        while left > 0 {
            let run = get(&space, left, 0, None).unwrap();
            left -= run.len;
            small.push(run);
        }
        if i % 3 == 0 {
            release(&space, small.swap_remove((seed >> 40) as usize % small.len())).unwrap();
        }
    }
    let used: u64 = small.iter().map(|run| run.len).sum();
    let least = (used + 59).div_ceil(CHUNK_BLOCKS);
    let touched = 31 - free_chunks(&space);
    assert!(touched <= least + 1, "{used} blocks touch {touched} chunks, {least} would do");
    check(&space);
}

#[test]
fn threads_get_disjoint_blocks_and_slots() {
    let space = space(512 << 20);
    let work = |thread: u64| {
        let (mut runs, mut inos, mut chunks) = (Vec::new(), Vec::new(), BTreeSet::new());
        for i in 0..300 {
            let run = get(&space, 1 + i % 9, (thread * 1000 + i) * 3, None).unwrap();
            chunks.insert(run.start.chunk());
            runs.push(run);
            if i % 50 == 0 {
                runs.push(get(&space, 1024, 0, None).unwrap());
            }
            if i % 4 == 3 {
                release(&space, runs.swap_remove(i as usize % runs.len())).unwrap();
            }
            inos.push(new_inode(&space).unwrap());
            if i % 5 == 4 {
                free_inode(&space, inos.swap_remove(i as usize % inos.len())).unwrap();
            }
        }
        (runs, inos)
    };
    let results: Vec<_> = std::thread::scope(|s| {
        let threads: Vec<_> = (0..2).map(|n| s.spawn(move || work(n))).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    let (mut blocks, mut inos) = (BTreeSet::new(), BTreeSet::new());
    for (runs, own) in &results {
        assert!(runs.iter().all(|run| (run.start.0..run.end().0).all(|b| blocks.insert(b))));
        assert!(own.iter().all(|ino| inos.insert(*ino)));
    }
    assert_eq!(space.journal.totals().inodes as usize, inos.len());
    check(&space);
}

#[test]
fn two_threads_fill_different_chunks() {
    let space = space(512 << 20);
    let fill = || -> BTreeSet<u64> {
        let blocks = (0..200).map(|i| get(&space, 1, i * 5 + 1, None).unwrap());
        blocks.skip(100).map(|run| run.start.chunk().0).collect()
    };
    // Each thread works in turn, so that the outcome does not hang on timing.
    let (first, second) = std::thread::scope(|s| {
        let first = s.spawn(fill).join().unwrap();
        (first, s.spawn(fill).join().unwrap())
    });
    let shared = first.intersection(&second).count();
    assert!(shared < second.len(), "{first:?} {second:?}");
}

#[derive(Clone, Debug)]
enum Step {
    Take { class: bool },
    Free { class: bool, which: usize },
    Abandon { class: bool, which: usize },
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => any::<bool>().prop_map(|class| Step::Take { class }),
        5 => (any::<bool>(), any::<usize>()).prop_map(|(class, which)| Step::Free { class, which }),
        2 => (any::<bool>(), any::<usize>()).prop_map(|(class, which)| Step::Abandon { class, which }),
        1 => Just(Step::Reopen),
    ]
}

fn take_slot(op: &mut Op<'_>, class: SlotClass) -> PoolOff {
    let at = match class {
        SlotClass::Inode => op.alloc_inode().unwrap().offset(),
        SlotClass::Node => op.alloc_node().unwrap(),
    };
    match class {
        SlotClass::Inode => op.write_inode(Ino::at(at), &inode()).unwrap(),
        SlotClass::Node => op.write_node(at, Image::new(Kind::Node, 32)).unwrap(),
    }
    at
}

fn put_slot(op: &mut Op<'_>, class: SlotClass, at: PoolOff) {
    match class {
        SlotClass::Inode => op.free_inode(Ino::at(at)).unwrap(),
        SlotClass::Node => op.free_node(at).unwrap(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_slot_is_handed_out_twice(steps in prop::collection::vec(step(), 1..250)) {
        let sim = format(TINY);
        let mut space = open(&sim);
        let mut model: [BTreeSet<PoolOff>; 2] = Default::default();
        for step in steps {
            let class_of = |class: bool| SlotClass::ALL[usize::from(class)];
            match step {
                Step::Take { class } => {
                    let mut op = space.begin();
                    // Several at once, so that arenas fill.
                    for _ in 0..9 {
                        let at = take_slot(&mut op, class_of(class));
                        prop_assert!(model[usize::from(class)].insert(at), "{at:?} twice");
                    }
                    op.commit(Durable::no_data()).unwrap();
                }
                Step::Free { class, which } => {
                    let slots = &mut model[usize::from(class)];
                    let Some(at) = slots.iter().nth(which % slots.len().max(1)).copied() else { continue };
                    slots.remove(&at);
                    let mut op = space.begin();
                    put_slot(&mut op, class_of(class), at);
                    op.commit(Durable::no_data()).unwrap();
                }
                Step::Abandon { class, which } => {
                    let slots = &model[usize::from(class)];
                    let mut op = space.begin();
                    let new = take_slot(&mut op, class_of(class));
                    prop_assert!(!slots.contains(&new));
                    if let Some(at) = slots.iter().nth(which % slots.len().max(1)) {
                        put_slot(&mut op, class_of(class), *at);
                    }
                    put_slot(&mut op, class_of(class), new);
                }
                Step::Reopen => {
                    drop(space);
                    space = open(&sim);
                }
            }
        }
        for class in SlotClass::ALL {
            for at in &model[usize::from(class == SlotClass::Node)] {
                prop_assert!(space.contains_arena_slot(*at, class).unwrap());
            }
        }
        prop_assert_eq!(space.journal.totals().inodes as usize, model[0].len());
        check(&space);
    }

    #[test]
    fn blocks_have_one_owner(steps in prop::collection::vec((0u8..10, 1u64..1100, 0u64..2000, any::<usize>()), 1..120)) {
        let sim = format(16 << 20);
        let mut space = open(&sim);
        let mut owned: BTreeMap<u64, u64> = BTreeMap::new();
        for (what, blocks, file_block, which) in steps {
            match what {
                0 => { drop(space); space = open(&sim); }
                1..=3 => {
                    let Some((start, len)) = owned.iter().nth(which % owned.len().max(1)).map(|(s, l)| (*s, *l)) else { continue };
                    // A part in the middle, or all.
                    let (from, to) = if what == 1 { (len / 3, len - len / 3) } else { (0, len) };
                    owned.remove(&start);
                    if from > 0 { owned.insert(start, from); }
                    if to < len { owned.insert(start + to, len - to); }
                    release(&space, Run::new(Block(start + from), to - from)).unwrap();
                }
                _ => {
                    let goal = owned.iter().next_back().map(|(s, l)| s + l).filter(|_| what > 6);
                    match get(&space, blocks, file_block, goal) {
                        Ok(run) => {
                            prop_assert!(space.geometry().is_allocatable(run.start, run.len));
                            prop_assert!((1..=blocks).contains(&run.len));
                            let before = owned.range(..run.end().0).next_back();
                            prop_assert!(before.is_none_or(|(s, l)| s + l <= run.start.0), "{run:?} {before:?}");
                            owned.insert(run.start.0, run.len);
                        }
                        Err(error) => {
                            prop_assert!(matches!(error, Error::NoSpace { .. }), "{error}");
                            prop_assert!(space.spare_blocks() == 0);
                        }
                    }
                }
            }
        }
        check(&space);
        prop_assert_eq!(space.journal.totals().used as u64, owned.values().sum::<u64>());
    }
}
