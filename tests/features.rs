//! Does a pool say what it holds that a program may not know, before it holds it, and does a program heed what it does
//! not know?

#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::crash::{Options, POOL_BYTES, each_image, tiny};
use common::ops::BLOCK;
use daxstore::layout::{INCOMPAT_SHARES, INCOMPAT_UNFINISHED};
use daxstore::layout::{RO_COMPAT_SEQUENTIAL, SUPERBLOCK_A, SUPERBLOCK_B, Superblock};
use daxstore::pmem::mutation::{self, Mutation};
use daxstore::pmem::sim::Sim;
use daxstore::{AllocateMode, Error, File, OpenOptions, Store, StoreOptions};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// A bit that no program knows.
const UNKNOWN: u64 = 1 << 63;

/// compat, ro_compat, incompat.
type Bits = [u64; 3];

/// Something that the first programs of the format did not know.
struct Case {
    /// The bits that say so.
    bits: Bits,
    /// Does it in a store that [`prepare`] made, under the number.
    make: fn(&Store, u64),
    /// Whether a store holds it.
    holds: fn(&Store) -> bool,
}

const CASES: [Case; 3] = [
    Case { bits: [0, RO_COMPAT_SEQUENTIAL, 0], make: make_sequential, holds: has_sequential },
    Case { bits: [0, 0, INCOMPAT_UNFINISHED], make: collapse, holds: |store| store.recovery().intents > 0 },
    Case {
        bits: [0, 0, INCOMPAT_SHARES],
        make: |store, i| store.reflink("whole", format!("copy{i}")).unwrap(),
        holds: |store| store.shared_blocks().unwrap().0 > 0,
    },
];

fn make_sequential(store: &Store, i: u64) {
    let options = OpenOptions::new().write(true).create_new(true).sequential(true);
    store.open(format!("sequential{i}"), &options).unwrap();
}

fn has_sequential(store: &Store) -> bool {
    let capacity = |entry: daxstore::DirEntry| store.metadata(&entry.name).unwrap().capacity;
    store.read_dir().any(|entry| capacity(entry.unwrap()).is_some())
}

fn open(store: &Store, name: &str) -> File {
    store.open(name, &OpenOptions::new().read(true).write(true)).unwrap()
}

/// Moves what is more than a record can move.
fn collapse(store: &Store, _i: u64) {
    open(store, "pieces").allocate(0, BLOCK, AllocateMode::Collapse).unwrap();
}

/// A pool whose lane is short, with a file in one extent and one in many.
fn prepare(size: u64, lane: u32) -> (Arc<Sim>, Store) {
    let sim = Arc::new(Sim::new(size).unwrap());
    let store = Store::create_sim(sim.clone(), &StoreOptions::new().geometry(tiny(1, lane))).unwrap();
    store.write("whole", &[7; 5 * BLOCK as usize]).unwrap();
    let pieces = store.create("pieces").unwrap();
    (0..400).step_by(2).for_each(|block| pieces.write_all_at(&[1; 4096], block * BLOCK).unwrap());
    drop(pieces);
    (sim, store)
}

fn bits(store: &Store) -> Bits {
    store.info().unwrap().features
}

#[test]
fn a_pool_says_what_it_holds_and_nothing_else() {
    for case in &CASES {
        let (_sim, store) = prepare(POOL_BYTES, 4096);
        assert_eq!(bits(&store), [0; 3]);
        (case.make)(&store, 0);
        assert_eq!(bits(&store), case.bits);
    }
    let (sim, store) = prepare(POOL_BYTES, 4096);
    open(&store, "pieces").allocate(398 * BLOCK, BLOCK, AllocateMode::Insert).unwrap();
    open(&store, "whole").set_extent_hint(1 << 20).unwrap();
    assert_eq!(bits(&store), [0; 3], "what fits one record moves as a whole, and a hint binds nobody");
    CASES.iter().for_each(|case| (case.make)(&store, 0));
    let all = [0, RO_COMPAT_SEQUENTIAL, INCOMPAT_UNFINISHED | INCOMPAT_SHARES];
    assert_eq!(bits(&store), all);
    store.close().unwrap();
    assert_eq!(bits(&Store::open_sim(sim).unwrap()), all, "after it was closed");
}

/// A fence for each of the superblocks, and one where the lane holds something.
#[test]
fn it_is_said_once() {
    for case in &CASES {
        let (_sim, store) = prepare(POOL_BYTES, 4096);
        let cost = |i| {
            // Nothing is in the lane, so that nothing of what came before rides along.
            store.grow(POOL_BYTES).unwrap();
            let before = store.counts();
            (case.make)(&store, i);
            store.counts().since(before).fences
        };
        let costs = [cost(0), cost(1), cost(2)];
        assert!((2..=3).contains(&(costs[0] - costs[1])), "{costs:?}");
        assert!(costs[2].abs_diff(costs[1]) <= 1, "{costs:?}");
    }
}

/// Crashes the first making of `case` everywhere: how often a store held it without saying so, and how often it held it.
fn unsaid(case: &Case) -> (usize, usize) {
    let (sim, store) = prepare(POOL_BYTES, 4096);
    store.close().unwrap();
    let scratch = Arc::new(sim.fork().unwrap());
    sim.start_trace();
    let store = Store::open_sim(sim.clone()).unwrap();
    (case.make)(&store, 0);
    let trace = sim.take_trace();
    let (mut unsaid, mut held) = (0, 0);
    each_image(&scratch, &trace, &Options::sampled(1, 40), |_, store| {
        if (case.holds)(&store) {
            held += 1;
            let found = bits(&store);
            unsaid += usize::from((0..3).any(|i| found[i] & case.bits[i] != case.bits[i]));
        }
    });
    (unsaid, held)
}

#[test]
fn it_is_said_before_it_is_so_wherever_the_power_goes() {
    for case in &CASES {
        let (unsaid, held) = unsaid(case);
        assert!(unsaid == 0 && held > 20, "{:?}: {held} held it, {unsaid} did not say so", case.bits);
    }
}

#[test]
fn what_is_not_said_is_noticed() {
    for case in &CASES {
        mutation::set(Some(Mutation::Unannounced));
        let (unsaid, held) = unsaid(case);
        mutation::set(None);
        assert!(unsaid > 0 && unsaid == held, "{:?}: {held} held it, {unsaid} did not say so", case.bits);
    }
}

/// A pool in a file that a later program wrote: with `bits` in both superblocks beside those that are there.
fn later(dir: &std::path::Path, bits: Bits) -> std::path::PathBuf {
    let path = dir.join(format!("pool{}", bits.map(|bit| bit.to_string()).join("-")));
    let store = Store::create(&path, POOL_BYTES, &StoreOptions::new()).unwrap();
    store.write("a", b"what it holds").unwrap();
    store.close().unwrap();
    let file = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    for at in [SUPERBLOCK_A, SUPERBLOCK_B] {
        let mut bytes = [0; 512];
        file.read_exact_at(&mut bytes, at.0).unwrap();
        let mut superblock = Superblock::decode(at, &bytes).unwrap();
        superblock.compat |= bits[0];
        superblock.ro_compat |= bits[1];
        superblock.incompat |= bits[2];
        file.write_all_at(&superblock.encode(), at.0).unwrap();
    }
    path
}

#[test]
fn what_a_program_does_not_know_it_heeds() {
    let dir = tempfile::tempdir().unwrap();
    let read_only = StoreOptions::new().read_only(true);
    let (any, dir) = (StoreOptions::new(), dir.path());

    let incompat = later(dir, [0, 0, UNKNOWN | INCOMPAT_SHARES | INCOMPAT_UNFINISHED]);
    for options in [&any, &read_only] {
        let refused = Store::open(&incompat, options).unwrap_err();
        assert!(matches!(refused, Error::UnknownFeatures(UNKNOWN)), "{refused:?}");
        assert!(refused.to_string().contains("0x8000000000000000"), "{refused}");
    }

    let ro_compat = later(dir, [0, UNKNOWN | RO_COMPAT_SEQUENTIAL, 0]);
    let refused = Store::open(&ro_compat, &any).unwrap_err();
    assert!(matches!(refused, Error::ReadOnlyFeatures(UNKNOWN)), "{refused:?}");
    assert!(refused.to_string().contains("0x8000000000000000"), "{refused}");
    assert_eq!(Store::open(&ro_compat, &read_only).unwrap().read("a").unwrap(), b"what it holds");

    let compat = later(dir, [UNKNOWN, 0, 0]);
    let store = Store::open(&compat, &any).unwrap();
    store.reflink("a", "b").unwrap();
    assert_eq!(bits(&store), [UNKNOWN, 0, INCOMPAT_SHARES], "what is not known stays");
}
