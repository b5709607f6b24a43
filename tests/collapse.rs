//! Are blocks taken out of a file, and put in, without copying, whatever the file looks like?

#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use daxstore::layout::Geometry;
use daxstore::pmem::mutation::{self, Mutation};
use daxstore::pmem::sim::Sim;
use daxstore::{AllocateMode, Error, File, OpenOptions, State, Store, StoreOptions};
use std::sync::Arc;

const BLOCK: u64 = 4096;

fn store(size: u64) -> Store {
    Store::create_sim(Arc::new(Sim::new(size).unwrap()), &StoreOptions::new()).unwrap()
}

/// What block `n` of a file holds.
fn page(n: u64) -> Vec<u8> {
    n.to_le_bytes().repeat(BLOCK as usize / 8)
}

fn number(file: &File, block: u64) -> u64 {
    let mut found = [0; 8];
    file.read_exact_at(&mut found, block * BLOCK).unwrap();
    u64::from_le_bytes(found)
}

/// A file whose block `n` holds `n` + 1, in one extent.
fn numbered(store: &Store, blocks: u64) -> File {
    let file = store.create("f").unwrap();
    let all: Vec<u8> = (1..=blocks).flat_map(page).collect();
    file.write_all_at(&all, 0).unwrap();
    file
}

fn numbers(file: &File) -> Vec<u64> {
    (0..file.len() / BLOCK).map(|block| number(file, block)).collect()
}

fn is_invalid(result: daxstore::Result<()>) -> bool {
    matches!(result, Err(error) if error.errno() == libc::EINVAL)
}

#[test]
fn what_follows_moves_to_where_the_range_began() {
    let store = store(64 << 20);
    let file = numbered(&store, 10);
    file.allocate(3 * BLOCK, 2 * BLOCK, AllocateMode::Collapse).unwrap();
    assert_eq!(numbers(&file), [1, 2, 3, 6, 7, 8, 9, 10]);
    file.allocate(0, BLOCK, AllocateMode::Collapse).unwrap();
    assert_eq!(numbers(&file), [2, 3, 6, 7, 8, 9, 10]);
    file.allocate(2 * BLOCK, 3 * BLOCK, AllocateMode::Insert).unwrap();
    assert_eq!(numbers(&file), [2, 3, 0, 0, 0, 6, 7, 8, 9, 10]);
    assert_eq!(file.seek_hole(0).unwrap(), 2 * BLOCK);
    assert_eq!(file.seek_data(2 * BLOCK).unwrap(), 5 * BLOCK);
    file.allocate(0, BLOCK, AllocateMode::Insert).unwrap();
    assert_eq!(numbers(&file), [0, 2, 3, 0, 0, 0, 6, 7, 8, 9, 10]);
    assert_eq!(file.metadata().blocks, 7);
    file.close().unwrap();
    assert!(store.check().unwrap().is_clean());
}

/// A last block that is not full stays so.
#[test]
fn the_end_moves_with_the_rest() {
    let store = store(64 << 20);
    let file = numbered(&store, 4);
    file.append(&[7; 100]).unwrap();
    file.allocate(BLOCK, 2 * BLOCK, AllocateMode::Collapse).unwrap();
    assert_eq!(file.len(), 2 * BLOCK + 100);
    file.allocate(2 * BLOCK, BLOCK, AllocateMode::Insert).unwrap();
    assert_eq!(file.len(), 3 * BLOCK + 100);
    file.set_len(4 * BLOCK).unwrap();
    let mut last = [1; BLOCK as usize];
    file.read_exact_at(&mut last, 3 * BLOCK).unwrap();
    assert!(last[..100].iter().all(|byte| *byte == 7) && last[100..].iter().all(|byte| *byte == 0));
}

#[test]
fn only_whole_blocks_before_the_end_are_taken() {
    let store = store(64 << 20);
    let file = numbered(&store, 10);
    for mode in [AllocateMode::Collapse, AllocateMode::Insert] {
        for (offset, len) in [(1, BLOCK), (0, BLOCK + 1), (512, 512), (0, 0), (10 * BLOCK, BLOCK)] {
            assert!(is_invalid(file.allocate(offset, len, mode)), "{mode:?} {offset} {len}");
        }
        let read_only = store.open("f", &OpenOptions::new().read(true)).unwrap();
        assert!(matches!(read_only.allocate(0, BLOCK, mode), Err(Error::NotOpenedFor(_))));
    }
    // What reaches the end is truncated.
    assert!(is_invalid(file.allocate(9 * BLOCK, BLOCK, AllocateMode::Collapse)));
    assert!(is_invalid(file.allocate(0, 10 * BLOCK, AllocateMode::Collapse)));
    assert!(is_invalid(file.allocate(0, 1 << 40, AllocateMode::Collapse)));
    let far = file.allocate(0, (1 << 62) - BLOCK, AllocateMode::Insert);
    assert!(matches!(far, Err(Error::FileTooLarge { .. })), "{far:?}");
    // Space that was asked for at the end of the largest file can not move.
    file.allocate((1 << 62) - BLOCK, BLOCK, AllocateMode::KeepSize).unwrap();
    let far = file.allocate(0, BLOCK, AllocateMode::Insert);
    assert!(matches!(far, Err(Error::FileTooLarge { .. })), "{far:?}");
    assert_eq!(numbers(&file), (1..=10).collect::<Vec<_>>());
    assert!(store.check().unwrap().is_clean());
}

/// Space beyond the end, asked for or ahead of a growing file, stays beyond it.
#[test]
fn space_beyond_the_end_stays_there() {
    let store = store(64 << 20);
    let file = numbered(&store, 8);
    file.append(&page(9)).unwrap();
    file.allocate(20 * BLOCK, 4 * BLOCK, AllocateMode::KeepSize).unwrap();
    file.allocate(BLOCK, 5 * BLOCK, AllocateMode::Collapse).unwrap();
    assert_eq!(numbers(&file), [1, 7, 8, 9]);
    let beyond = |at: u64| matches!(file.extents(at * BLOCK, BLOCK).unwrap()[0].state, State::Unwritten(_));
    assert!(beyond(15) && beyond(18) && !beyond(19));
    file.allocate(2 * BLOCK, BLOCK, AllocateMode::Insert).unwrap();
    assert_eq!(numbers(&file), [1, 7, 0, 8, 9]);
    assert!(beyond(16) && beyond(19) && !beyond(20));
    file.set_len(30 * BLOCK).unwrap();
    assert!((5..30).all(|block| number(&file, block) == 0));
    file.close().unwrap();
    assert!(store.check().unwrap().is_clean());
}

/// A file of one extent that is opened and closed again is one extent; without the join it is two.
#[test]
fn extents_that_meet_again_are_one() {
    let extents = |rule| {
        mutation::set(rule);
        let store = store(64 << 20);
        let file = numbered(&store, 40);
        file.close().unwrap();
        let before = store.check().unwrap().extents;
        let file = store.open("f", &OpenOptions::new().read(true).write(true)).unwrap();
        file.allocate(10 * BLOCK, 7 * BLOCK, AllocateMode::Insert).unwrap();
        assert_eq!(store.check().unwrap().extents, before + 1);
        file.allocate(10 * BLOCK, 7 * BLOCK, AllocateMode::Collapse).unwrap();
        assert_eq!(numbers(&file), (1..=40).collect::<Vec<_>>());
        mutation::set(None);
        store.check().unwrap().extents - before
    };
    assert_eq!(extents(None), 0);
    assert_eq!(extents(Some(Mutation::ShiftWithoutJoin)), 1, "ShiftWithoutJoin goes unnoticed");
}

/// A file of `extents` extents of one block each, every other block a hole, made without writing them: `number` of
/// extents is what counts.
fn perforated(store: &Store, extents: u64) -> File {
    let file = store.create("f").unwrap();
    file.allocate(0, 2 * extents * BLOCK, AllocateMode::Allocate).unwrap();
    for i in 0..extents {
        file.allocate((2 * i + 1) * BLOCK, BLOCK, AllocateMode::Punch).unwrap();
    }
    file
}

fn states(file: &File) -> Vec<(u64, u64, State)> {
    let size = file.len();
    let extents = file.extents(0, size).unwrap();
    extents.iter().map(|extent| (extent.range.offset, extent.range.len, extent.state)).collect()
}

/// Records are bounded and few: a leaf of 26 extents takes one image, whatever the direction.
#[test]
fn many_extents_move_in_few_records_of_bounded_size() {
    let extents = if cfg!(debug_assertions) { 20_000 } else { 100_000 };
    let sim = Arc::new(Sim::new(2 << 30).unwrap());
    let geometry = Geometry { size: 2 << 30, lanes: 2, lane_bytes: 32 << 10, arena_blocks: 16 };
    let store = Store::create_sim(sim, &StoreOptions::new().geometry(geometry)).unwrap();
    let file = perforated(&store, extents);
    let before = states(&file);
    assert!(before.len() as u64 >= 2 * extents);
    let fences = |f: &dyn Fn()| {
        let before = store.counts();
        f();
        store.counts().since(before).fences
    };
    let inserted = fences(&|| file.allocate(4 * BLOCK, 6 * BLOCK, AllocateMode::Insert).unwrap());
    assert_eq!(file.len(), (2 * extents + 6) * BLOCK);
    let free = store.statfs().free;
    let collapsed = fences(&|| file.allocate(4 * BLOCK, 6 * BLOCK, AllocateMode::Collapse).unwrap());
    assert_eq!(states(&file), before);
    assert_eq!(store.statfs().free, free);
    // A record has room for some 50 leaves of at least 13 extents; lanes fill and are covered on the way.
    let most = extents / 13 / 40 * 2 + 20;
    assert!(inserted < most && collapsed < most, "{inserted} and {collapsed} fences, {most} at most");
    file.close().unwrap();
    assert!(store.check().unwrap().is_clean());
}

/// Nothing is needed to move extents: on a pool without a free block they move all the same.
#[test]
fn a_full_pool_has_room_enough() {
    let store = store(16 << 20);
    let file = perforated(&store, 300);
    let filler = store.create("filler").unwrap();
    let mut len = store.statfs().free;
    while len > 0 {
        match filler.allocate(filler.len(), len * BLOCK, AllocateMode::Allocate) {
            Ok(()) => {}
            Err(Error::NoSpace { .. }) => len /= 2,
            Err(error) => panic!("{error}"),
        }
    }
    let before = states(&file);
    file.allocate(0, 10 * BLOCK, AllocateMode::Insert).unwrap();
    file.allocate(0, 10 * BLOCK, AllocateMode::Collapse).unwrap();
    assert_eq!(states(&file), before);
    file.allocate(20 * BLOCK, 100 * BLOCK, AllocateMode::Collapse).unwrap();
    assert!(store.check().unwrap().is_clean());
}
