//! Does every operation survive a crash at any point of it?
//!
//! Each operation alone, from several prepared states, with many images a point.

#![cfg(feature = "sim")]

mod common;

use common::crash::{Options, POOL_BYTES, Report, Rig, tiny};
use common::ops::{Attributes, BLOCK, Blocks, Must, On, Op, Target};
use daxstore::error::Class;
use daxstore::pmem::sim::crash::{Cause, Replay};
use daxstore::pmem::sim::{Event, Sim};
use daxstore::{Store, StoreOptions};
use std::sync::Arc;

/// A pool with files, directories, links and attributes, each small.
fn small() -> Vec<Op> {
    let write = |path, at, len| Op::Write { on: On::Path(path), at, len, fill: 3 };
    vec![
        Op::Create("a"),
        write("a", 0, 2 * BLOCK + 100),
        Op::Create("b"),
        Op::Mkdir("d"),
        Op::Create("d/a"),
        write("d/a", 5 * BLOCK, BLOCK),
        Op::Link { from: "a", to: "d/b" },
        Op::Mkdir("d/e"),
        Op::Symlink { target: "a", path: "c" },
        Op::SetXattr { on: On::Path("a"), name: "user.x", len: 30, fill: 1, must: Must::Either },
        Op::SetXattr { on: On::Path("d"), name: "user.y", len: 5000, fill: 2, must: Must::Either },
        Op::Mkdir("e"),
    ]
}

const NAMES: [&str; 40] = [
    "n00", "n01", "n02", "n03", "n04", "n05", "n06", "n07", "n08", "n09", "n10", "n11", "n12", "n13", "n14",
    "n15", "n16", "n17", "n18", "n19", "n20", "n21", "n22", "n23", "n24", "n25", "n26", "n27", "n28", "n29",
    "n30", "n31", "n32", "n33", "n34", "n35", "n36", "n37", "n38", "n39",
];

/// A root directory of several tree nodes and a file of many extents.
fn wide() -> Vec<Op> {
    let mut ops = small();
    ops.extend(NAMES.map(Op::Create));
    ops.extend((0..60).map(|i| Op::Write {
        on: On::Path("a"),
        at: (4 + 2 * i) * BLOCK,
        len: BLOCK,
        fill: 9,
    }));
    ops
}

fn name_ops() -> Vec<Op> {
    let rename = |from, to, target| Op::Rename { from, to, target };
    vec![
        Op::Create("x"),
        Op::Create("d/x"),
        Op::CreateUnnamed { path: "x", len: 5000, fill: 5 },
        Op::Mkdir("d/x"),
        Op::Rmdir("e"),
        Op::Rmdir("d/e"),
        Op::Unlink("a"),
        Op::Unlink("b"),
        Op::Unlink("c"),
        Op::Unlink("d/a"),
        Op::Link { from: "b", to: "d/x" },
        Op::Link { from: "d/a", to: "x" },
        Op::Symlink { target: "d/a", path: "x" },
        rename("b", "x", Target::Replace),
        rename("b", "x", Target::NoReplace),
        rename("a", "b", Target::Replace),
        rename("b", "d/a", Target::Replace),
        rename("d/a", "b", Target::Replace),
        rename("d/e", "x", Target::Replace),
        rename("d/e", "e", Target::Replace),
        rename("d", "e/x", Target::Replace),
        rename("c", "d/x", Target::NoReplace),
        rename("a", "d/a", Target::Exchange),
        rename("b", "d/e", Target::Exchange),
        rename("d", "e", Target::Exchange),
        rename("d/e", "e", Target::Exchange),
    ]
}

fn data_ops(path: &'static str) -> Vec<Op> {
    let on = On::Path(path);
    let write = |at, len| Op::Write { on, at, len, fill: 77 };
    let mut ops = vec![
        write(0, 8),
        write(3, 17),
        write(0, BLOCK),
        write(BLOCK - 100, 300),
        write(100, 3 * BLOCK),
        write(2 * BLOCK + 100, 50),
        write(2 * BLOCK + 200, 2 * BLOCK),
        write(3 * BLOCK, 1),
        write(9 * BLOCK + 5, 2 * BLOCK),
        Op::Append { on, len: 1, fill: 8 },
        Op::Append { on, len: 5000, fill: 8 },
    ];
    let sizes = [0, 1, 100, BLOCK, 2 * BLOCK, 2 * BLOCK + 100, 2 * BLOCK + 101, 5 * BLOCK + 9, 20 * BLOCK];
    ops.extend(sizes.map(|size| Op::Truncate { on, size }));
    let ranges = [(0, BLOCK), (100, 200), (100, 2 * BLOCK), (BLOCK, 30 * BLOCK), (40 * BLOCK, 2 * BLOCK + 1)];
    for blocks in [Blocks::Allocate, Blocks::KeepSize, Blocks::Punch, Blocks::Zero] {
        ops.extend(ranges.map(|(at, len)| Op::Fallocate { on, blocks, at, len }));
    }
    for (at, len) in [(0, 1), (1, 1), (0, 2), (5, 30), (99, 1)] {
        let (at, len) = (at * BLOCK, len * BLOCK);
        ops.extend([Blocks::Collapse, Blocks::Insert].map(|blocks| Op::Fallocate { on, blocks, at, len }));
    }
    ops
}

fn node_ops() -> Vec<Op> {
    let on = On::Path("a");
    let xattr = |on, name, len| Op::SetXattr { on, name, len, fill: 44, must: Must::Either };
    let set =
        Attributes { mode: Some(0o600), uid: Some(7), gid: Some(8), atime: Some(-1), mtime: Some(1 << 60) };
    vec![
        Op::SetAttr { on, set },
        Op::SetAttr { on: On::Path("d"), set: Attributes { mode: Some(0o711), ..Attributes::default() } },
        xattr(on, "user.x", 30),
        xattr(on, "user.x", 200),
        xattr(on, "user.x", 9000),
        xattr(on, "user.y", 10),
        xattr(On::Path("d"), "user.y", 3),
        xattr(On::Path("d"), "user.y", 6000),
        xattr(On::Path("b"), "user.y", 65536),
        Op::RemoveXattr { on, name: "user.x" },
        Op::RemoveXattr { on: On::Path("d"), name: "user.y" },
    ]
}

fn judge(rig: &Rig, ops: Vec<Op>, images: usize) {
    let mut sum = Report::default();
    for (seed, op) in (1..).zip(ops) {
        match rig.run(&[op], &Options::sampled(seed, images)) {
            Ok(report) => sum.add(&report),
            Err(failure) => panic!("{failure}"),
        }
    }
    println!("{sum}");
    assert!(sum.images > 1000 && sum.nested > 0 && sum.further > 0, "too little was tried: {sum}");
}

#[test]
fn names_of_a_small_pool() {
    judge(&Rig::new(tiny(1, 8192), &small()), name_ops(), 400);
}

#[test]
fn names_of_a_wide_directory() {
    judge(&Rig::new(tiny(2, 8192), &wide()), name_ops(), 200);
}

#[test]
fn data_of_a_small_file() {
    judge(&Rig::new(tiny(1, 8192), &small()), data_ops("a"), 300);
}

#[test]
fn data_of_a_hole_and_of_an_empty_file() {
    let rig = Rig::new(tiny(1, 8192), &small());
    judge(&rig, data_ops("d/a"), 150);
    judge(&rig, data_ops("b"), 150);
}

#[test]
fn data_of_a_file_of_many_extents() {
    judge(&Rig::new(tiny(1, 8192), &wide()), data_ops("a"), 150);
}

#[test]
fn attributes() {
    judge(&Rig::new(tiny(1, 8192), &small()), node_ops(), 300);
    judge(&Rig::new(tiny(2, 8192), &wide()), node_ops(), 150);
}

#[test]
fn files_that_are_open_when_the_power_goes() {
    let rig = Rig::new(tiny(1, 8192), &wide());
    let on = On::Open(0);
    let sequences = [
        vec![Op::Open { path: "b", handle: 0 }, Op::Unlink("b"), Op::Close(0)],
        vec![Op::Open { path: "a", handle: 0 }, Op::Unlink("a"), Op::Unlink("d/b"), Op::Close(0)],
        vec![
            Op::Open { path: "d/a", handle: 0 },
            Op::Rename { from: "b", to: "d/a", target: Target::Replace },
            Op::Write { on, at: 0, len: 9000, fill: 1 },
            Op::Close(0),
        ],
        vec![
            Op::Open { path: "b", handle: 0 },
            Op::Append { on, len: 3000, fill: 1 },
            Op::Append { on, len: 3000, fill: 2 },
            Op::Append { on, len: 3000, fill: 3 },
            Op::Close(0),
        ],
    ];
    let mut sum = Report::default();
    for (seed, ops) in (1..).zip(sequences) {
        match rig.run(&ops, &Options::sampled(seed, 200)) {
            Ok(report) => sum.add(&report),
            Err(failure) => panic!("{failure}"),
        }
    }
    println!("{sum}");
}

/// A pool whose making was cut short is no pool, or a whole and empty one.
#[test]
fn making_a_pool() {
    let sims = [(); 2].map(|()| Arc::new(Sim::new(POOL_BYTES).expect("memory")));
    let [primary, scratch] = &sims;
    primary.start_trace();
    let store = Store::create_sim(primary.clone(), &StoreOptions::new().geometry(tiny(2, 8192)));
    primary.mark(Event::Return(0));
    let trace = primary.take_trace();
    let empty = common::real::state(&store.expect("a new pool")).expect("an empty pool");
    scratch.start_undo();
    let (mut replay, mut made, mut missing) = (Replay::new(scratch, &trace), 0, 0);
    while let Some(stop) = replay.advance() {
        for plan in &Options::sampled(1, 2000).plans {
            let pending = replay.pending(plan.mode);
            let mut images = pending.images(plan, stop.event as u64);
            while let Some(words) = images.next_image() {
                let base = scratch.savepoint();
                scratch.poke_words(words);
                match Store::open_sim(scratch.clone()) {
                    Ok(store) => {
                        let found = common::real::state(&store).expect("a pool that opens can be read");
                        assert_eq!(empty.difference(&found, &empty, &[]), None, "{stop:?}");
                        made += 1;
                    }
                    Err(error) => {
                        assert_eq!(error.class(), Class::Damage, "{stop:?}: {error}");
                        assert!(!matches!(stop.cause, Cause::Return(_) | Cause::End), "{stop:?}: {error}");
                        missing += 1;
                    }
                }
                scratch.roll_back_to(base);
            }
        }
    }
    println!("{made} images with a pool, {missing} without");
    assert!(made > 20 && missing > 1000, "{made} images with a pool, {missing} without");
}
