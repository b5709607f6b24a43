//! Is space given in the pieces that a file asks for, where there is room, and as it fits where there is none? And is what is
//! reserved ahead of a growing file little, and gone in the end?

#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use daxstore::iomap::{FaultOps, FileRange, Placement};
use daxstore::pmem::mutation::{self, Mutation};
use daxstore::pmem::sim::Sim;
use daxstore::{AllocateMode, Error, File, Follow, OpenOptions, State, Store, StoreOptions};
use std::sync::Arc;

const BLOCK: u64 = 4096;
const CHUNK: u64 = 2 << 20;

fn store(size: u64) -> Store {
    Store::create_sim(Arc::new(Sim::new(size).unwrap()), &StoreOptions::new()).unwrap()
}

/// Which blocks of the first `n` have space: mapped, unwritten or hole.
fn picture(file: &File, n: u64) -> String {
    let all = file.extents(0, n * BLOCK).unwrap();
    let of = |extent: &daxstore::FileExtent| match extent.state {
        State::Mapped(_) => "m",
        State::Unwritten(_) => "u",
        _ => ".",
    };
    all.iter().map(|extent| of(extent).repeat((extent.range.len / BLOCK) as usize)).collect()
}

fn hinted(store: &Store, name: &str, hint: u64) -> File {
    let file = store.create(name).unwrap();
    file.set_extent_hint(hint).unwrap();
    file
}

#[test]
fn a_hint_is_a_number_of_blocks_up_to_a_gib_and_is_inherited() {
    let sim = Arc::new(Sim::new(64 << 20).unwrap());
    let store = Store::create_sim(sim.clone(), &StoreOptions::new()).unwrap();
    let file = store.create("f").unwrap();
    for bad in [1, 4095, 4097, (1 << 30) + BLOCK, 1 << 62, u64::MAX] {
        assert!(matches!(file.set_extent_hint(bad), Err(Error::InvalidArgument(_))), "{bad}");
    }
    for good in [BLOCK, 1 << 30, 0, 64 << 10] {
        file.set_extent_hint(good).unwrap();
        assert_eq!(file.metadata().extent_hint, good);
    }
    store.create_dir("d", 0o755).unwrap();
    store.create("d/before").unwrap();
    store.open_dir("d").unwrap().set_extent_hint(CHUNK).unwrap();
    store.create_dir("d/e", 0o755).unwrap();
    store.create("d/e/f").unwrap();
    store.symlink("x", "d/link").unwrap();
    let unnamed = store.open_dir("d/e").unwrap().open_unnamed(&OpenOptions::new().write(true)).unwrap();
    assert_eq!(unnamed.metadata().extent_hint, CHUNK);
    let link = store.open_node("d/link", Follow::No).unwrap();
    assert!(matches!(link.set_extent_hint(BLOCK), Err(Error::InvalidArgument(_))));
    drop((file, unnamed, link));
    store.close().unwrap();
    let store = Store::open_sim(sim).unwrap();
    let hint = |path: &str| store.symlink_metadata(path).unwrap().extent_hint;
    assert_eq!(
        ["f", "d", "d/before", "d/e", "d/e/f", "d/link"].map(hint),
        [64 << 10, CHUNK, 0, CHUNK, CHUNK, 0]
    );
    assert!(store.check().unwrap().is_clean());
}

#[test]
fn a_write_into_a_hole_gets_the_aligned_piece_around_it() {
    let store = store(64 << 20);
    let file = hinted(&store, "f", 8 * BLOCK);
    file.set_len(32 * BLOCK).unwrap();
    file.write_all_at(&[7; 100], 11 * BLOCK).unwrap();
    assert_eq!(picture(&file, 32), "........uuumuuuu................");
    // What has space already is left alone, and a hole is filled no further than it goes.
    file.write_all_at(&[7; 5 * BLOCK as usize], 14 * BLOCK).unwrap();
    assert_eq!(picture(&file, 32), "........uuumuummmmmuuuuu........");
    let mut all = vec![1; 32 * BLOCK as usize];
    file.read_exact_at(&mut all, 0).unwrap();
    let written = |at: usize| at / 4096 >= 14 && at / 4096 < 19 || at / 4096 == 11 && at % 4096 < 100;
    assert!(all.iter().enumerate().all(|(at, byte)| (*byte == 7) == written(at) && matches!(byte, 0 | 7)));
    file.allocate(0, 32 * BLOCK, AllocateMode::Punch).unwrap();
    file.write_all_at(&[1; BLOCK as usize], 2 * BLOCK).unwrap();
    file.allocate(3 * BLOCK, BLOCK, AllocateMode::Punch).unwrap();
    file.allocate(5 * BLOCK, BLOCK, AllocateMode::Allocate).unwrap();
    assert_eq!(picture(&file, 10), "uumuuuuu..");
    file.allocate(9 * BLOCK, 8 * BLOCK, AllocateMode::Allocate).unwrap();
    assert_eq!(picture(&file, 32), "uumuuuuuuuuuuuuuuuuuuuuu........");
    let free = store.statfs().free;
    drop(file);
    assert!(store.check().unwrap().is_clean());
    store.remove_file("f").unwrap();
    assert!(store.statfs().free > free);
}

/// Gives `blocks` blocks from block `at` what a fault of a store there needs.
fn fault(file: &File, at: u64, blocks: u64) {
    let range = FileRange { offset: at * BLOCK, len: blocks * BLOCK };
    assert!(file.populate(range, Placement::Any).unwrap());
}

#[test]
fn a_fault_in_a_hole_gets_the_aligned_piece_around_it() {
    let store = store(64 << 20);
    let file = hinted(&store, "f", 8 * BLOCK);
    file.set_len(30 * BLOCK + 1).unwrap();
    let free = store.statfs().free;
    fault(&file, 11, 1);
    assert_eq!(picture(&file, 32), "........uuumuuuu................");
    assert_eq!(file.metadata().blocks, 8);
    // The rest of the piece takes no space any more, and is one run with it.
    for at in [10, 12, 8, 15, 9, 13, 14] {
        fault(&file, at, 1);
        assert_eq!(file.metadata().blocks, 8);
    }
    assert_eq!(picture(&file, 32), "........mmmmmmmm................");
    assert_eq!(file.extents(8 * BLOCK, 8 * BLOCK).unwrap().len(), 1);
    assert!(free - store.statfs().free <= 9, "8 blocks, and perhaps one of metadata");
    // A hole is filled no further than it goes, and than the file does.
    file.allocate(10 * BLOCK, 4 * BLOCK, AllocateMode::Punch).unwrap();
    fault(&file, 12, 1);
    fault(&file, 30, 1);
    assert_eq!(picture(&file, 32), "........mmuumumm........uuuuuum.");
    // Holes and what has space already, in one call.
    file.allocate(0, 32 * BLOCK, AllocateMode::Punch).unwrap();
    file.write_all_at(&[1; BLOCK as usize], 5 * BLOCK).unwrap();
    file.allocate(2 * BLOCK, 2 * BLOCK, AllocateMode::Punch).unwrap();
    assert_eq!(picture(&file, 32), "uu..umuu........................");
    fault(&file, 3, 10);
    assert_eq!(picture(&file, 32), "uuummmmmmmmmmuuu................");
    drop(file);
    assert!(store.check().unwrap().is_clean());
}

/// A slot's turn is what a fault has, and room is needed by others.
#[test]
fn a_fault_follows_a_hint_within_its_slot_and_where_there_is_room() {
    let store = store(16 << 20);
    let file = hinted(&store, "f", 1 << 30);
    file.set_len(2 * CHUNK + 10 * BLOCK).unwrap();
    file.set_extent_hint(0).unwrap();
    file.write_all_at(&[1; BLOCK as usize], CHUNK).unwrap();
    file.set_extent_hint(1 << 30).unwrap();
    fault(&file, 512 + 100, 1);
    let expected = ".".repeat(512) + "m" + &"u".repeat(99) + "m" + &"u".repeat(411) + &".".repeat(10);
    assert_eq!(picture(&file, 1034), expected);
    file.allocate(0, 3 * CHUNK, AllocateMode::Punch).unwrap();
    let filler = store.create("filler").unwrap();
    let free = store.statfs().free;
    filler.allocate(0, (free - free / 20) * BLOCK, AllocateMode::Allocate).unwrap();
    fault(&file, 512 + 100, 1);
    assert_eq!(file.metadata().blocks, 1, "a pool that is nearly full has no room for wishes");
    assert!(store.check().unwrap().is_clean());
}

/// What lies around the blocks of a fault reads as zeros, whatever it held for somebody else.
fn all_zeros_around(rule: Option<Mutation>) -> bool {
    let store = store(16 << 20);
    let free = store.statfs().free;
    store.write("old", &vec![0xcc; ((free - 200) * BLOCK) as usize]).unwrap();
    store.remove_file("old").unwrap();
    let file = hinted(&store, "f", 64 * BLOCK);
    file.set_len(256 * BLOCK).unwrap();
    mutation::set(rule);
    [3, 70, 191, 255].into_iter().for_each(|at| fault(&file, at, 1));
    mutation::set(None);
    assert_eq!(file.metadata().blocks, 256);
    let mut found = vec![1; 256 * BLOCK as usize];
    file.read_exact_at(&mut found, 0).unwrap();
    found.iter().all(|byte| *byte == 0)
}

#[test]
fn what_a_fault_gets_for_a_hint_reads_as_zeros() {
    assert!(all_zeros_around(None));
    assert!(!all_zeros_around(Some(Mutation::HintedAsData)), "a rule that is broken goes unnoticed");
}

#[test]
fn appends_get_whole_pieces_and_the_rest_of_the_last_one_goes_at_the_last_close() {
    let store = store(64 << 20);
    let (file, other) = (hinted(&store, "f", 16 * BLOCK), hinted(&store, "g", 16 * BLOCK));
    for _ in 0..40 {
        file.append(&[1; BLOCK as usize]).unwrap();
        other.append(&[2; BLOCK as usize]).unwrap();
    }
    assert_eq!((file.metadata().blocks, other.metadata().blocks), (48, 48));
    // Each piece lies together, although the two grew by turns.
    let extents = file.extents(0, 40 * BLOCK).unwrap();
    assert!(extents.len() <= 3, "{extents:?}");
    drop((file, other));
    let file = store.open("f", &OpenOptions::new().read(true)).unwrap();
    assert_eq!(file.metadata().blocks, 40);
    assert!(store.check().unwrap().is_clean());
}

#[test]
fn a_hint_of_a_chunk_makes_slots_that_are_one_translation() {
    let store = store(64 << 20);
    let file = hinted(&store, "f", CHUNK);
    file.set_len(4 * CHUNK).unwrap();
    file.write_all_at(&[1; 10], CHUNK + 300 * BLOCK).unwrap();
    let other = store.create("other").unwrap();
    other.write_all_at(&[1; 100 * BLOCK as usize], 0).unwrap();
    for block in (0..512).rev().step_by(3) {
        file.write_all_at(&[1; BLOCK as usize], CHUNK + block * BLOCK).unwrap();
    }
    file.write_all_at(&vec![1; CHUNK as usize], CHUNK).unwrap();
    let extents = file.extents(CHUNK, CHUNK).unwrap();
    assert!(extents.len() == 1 && extents[0].huge, "{extents:?}");
}

/// All of a pool can be written to, whatever the hint.
#[test]
fn a_hint_never_makes_a_pool_full() {
    for hint in [64 << 10, CHUNK, 1 << 30] {
        let store = store(16 << 20);
        let file = hinted(&store, "f", hint);
        let (mut at, mut written) = (0, 0);
        loop {
            match file.write_at(&[1; BLOCK as usize], at) {
                Ok(_) => written += 1,
                Err(Error::NoSpace { .. }) => break,
                Err(error) => panic!("{error}"),
            }
            at += 3 * BLOCK;
        }
        // What is not written lies between, a third of it written: the pool was not given away to pieces.
        let free = store.statfs().free;
        // Some blocks are set aside for what removes and converts.
        assert!(free < 200, "hint {hint}: {free} blocks free, {written} written");
        assert!(file.metadata().blocks >= written);
        let rest = file.allocate(0, at, AllocateMode::Allocate);
        assert!(matches!(rest, Err(Error::NoSpace { .. })));
        assert!(store.check().unwrap().is_clean());
    }
    // An allocation that fits only without what the hint adds.
    let store = store(16 << 20);
    let file = hinted(&store, "f", 8 << 20);
    file.set_len(64 << 20).unwrap();
    let free = store.statfs().free;
    let most = free - free / 8;
    file.allocate(9 << 20, most * BLOCK, AllocateMode::Allocate).unwrap();
    assert_eq!(file.metadata().blocks, most);
}

#[test]
fn little_is_reserved_ahead_and_none_of_it_for_ever() {
    let sim = Arc::new(Sim::new(64 << 20).unwrap());
    let store = Store::create_sim(sim.clone(), &StoreOptions::new()).unwrap();
    // A file that is written once has what it needs.
    let file = store.create("once").unwrap();
    file.write_all_at(&[1; 3 * BLOCK as usize], 0).unwrap();
    assert_eq!(file.metadata().blocks, 3);
    // One that grows has at most as much again, and never more than its slot.
    let grows = store.create("grows").unwrap();
    let mut most = 0;
    for n in 1..=600 {
        grows.append(&[1; BLOCK as usize]).unwrap();
        let ahead = grows.metadata().blocks - n;
        assert!(ahead <= n && ahead <= 512, "{ahead} ahead of {n}");
        most = most.max(ahead);
    }
    assert!(most > 100, "{most}: appends are reserved for");
    // A crash leaves it to recovery.
    let crashed = Store::open_sim(Arc::new(sim.fork().unwrap())).unwrap();
    let file = crashed.open("grows", &OpenOptions::new().read(true)).unwrap();
    assert_eq!((file.len() / BLOCK, file.metadata().blocks), (600, 600));
    assert!(crashed.check().unwrap().is_clean());
    // The last close takes it, not the first.
    let again = store.open("grows", &OpenOptions::new().read(true)).unwrap();
    grows.append(&[1; BLOCK as usize]).unwrap();
    drop(grows);
    assert!(again.metadata().blocks > 601);
    drop(again);
    let again = store.open("grows", &OpenOptions::new().read(true).write(true)).unwrap();
    assert_eq!(again.metadata().blocks, 601);
    // Where less than a sixteenth of the pool is free, nothing is.
    let filler = store.create("filler").unwrap();
    let free = store.statfs().free;
    filler.allocate(0, (free - free / 20) * BLOCK, AllocateMode::Allocate).unwrap();
    for n in 602..=640 {
        again.append(&[1; BLOCK as usize]).unwrap();
        assert_eq!(again.metadata().blocks, n, "nothing is reserved ahead on a pool that is nearly full");
    }
}
