//! Does a file that is being defragmented hold what it held, wherever the power goes?

#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::crash::{Options, Rig, tiny};
use common::ops::{BLOCK, Blocks, On, Op};
use common::real;
use daxstore::pmem::mutation::{self, Mutation};
use daxstore::pmem::sim::Sim;
use daxstore::{Store, StoreOptions};
use std::sync::Arc;

const SLOT: u64 = 2 << 20;

/// A file "a" of a slot and a bit, of `pieces` written blocks between those of "b", and unwritten space for the rest.
fn fragmented(pieces: u64) -> Vec<Op> {
    let write = |path, at| Op::Write { on: On::Path(path), at: at * BLOCK, len: BLOCK, fill: 7 };
    let mut ops = vec![Op::Create("a"), Op::Create("b")];
    ops.extend((0..pieces).flat_map(|i| [write("a", 3 * i), write("b", i)]));
    ops.push(Op::Fallocate { on: On::Path("a"), blocks: Blocks::Allocate, at: 0, len: SLOT + 5000 });
    ops
}

fn defrag() -> Vec<Op> {
    vec![Op::Defrag(On::Path("a"))]
}

/// The setup fragments the file, and the operation moves it: in `records` records at least.
fn assert_moves(setup: &[Op], geometry: daxstore::layout::Geometry, records: u64) {
    let sim = Arc::new(Sim::new(geometry.size).unwrap());
    let store = Store::create_sim(sim, &StoreOptions::new().geometry(geometry)).unwrap();
    let mut real = real::Real::new(store.clone());
    setup.iter().for_each(|op| _ = real.run(op).unwrap());
    let file = store.root().open("a", &daxstore::OpenOptions::new().read(true).write(true)).unwrap();
    assert!(!file.extents(0, SLOT).unwrap().iter().any(|extent| extent.huge));
    let before = store.counts().fences;
    let found = file.defrag().unwrap();
    assert_eq!((found.slots, found.moved), (1, 1), "{found:?}");
    // One for the copy.
    let fences = store.counts().fences - before;
    assert!(fences > records, "{fences} fences");
}

#[test]
fn a_slot_is_moved_in_one_record() {
    let geometry = tiny(1, 64 << 10);
    assert_moves(&fragmented(6), geometry, 1);
    let rig = Rig::new(geometry, &fragmented(6));
    let report = rig.run(&defrag(), &Options::sampled(1, 400)).unwrap_or_else(|failure| panic!("{failure}"));
    println!("{report}");
    assert!(report.images > 1000, "too little was tried: {report}");
}

#[test]
fn a_slot_is_moved_in_several_records() {
    assert_moves(&fragmented(150), tiny(1, 8192), 3);
    let rig = Rig::new(tiny(1, 8192), &fragmented(150));
    let report = rig.run(&defrag(), &Options::sampled(2, 150)).unwrap_or_else(|failure| panic!("{failure}"));
    println!("{report}");
    assert!(report.images > 1000, "too little was tried: {report}");
}

#[test]
fn a_copy_that_is_not_waited_for_is_noticed() {
    let rig = Rig::new(tiny(1, 64 << 10), &fragmented(6));
    mutation::set(Some(Mutation::NoDataFence));
    let result = rig.run(&defrag(), &Options::sampled(1, 200));
    mutation::set(None);
    assert!(result.is_err(), "the copy's fence was left out, and nothing was noticed");
}
