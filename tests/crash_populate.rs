//! What does a crash leave of the blocks that a fault asks for?
//!
//! The pools were full of another file's bytes before. In every image a byte of the file is what it was or zero, and never
//! one of those; when the call has returned, every block is there.

#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::crash::{Failure, Options, POOL_BYTES, Report, Rig, SEED, check, each_image, tiny};
use common::ops::{BLOCK, Blocks, On, Op};
use daxstore::iomap::{FaultOps, FileRange, Placement};
use daxstore::pmem::mutation::{self, Mutation};
use daxstore::pmem::sim::{Event, Sim};
use daxstore::{File, OpenOptions, State, Store, StoreOptions};
use std::sync::Arc;

const CHUNK: u64 = 2 << 20;
const ON: On = On::Path("a");

const fn populate(at: u64, len: u64) -> Op {
    Op::Populate { on: ON, at, len, whole: false }
}

const WHOLE: Op = Op::Populate { on: ON, at: CHUNK, len: CHUNK, whole: true };

const fn allocate(at: u64, len: u64) -> Op {
    Op::Fallocate { on: ON, blocks: Blocks::Allocate, at, len }
}

/// A file of two slots: a block of data, two unwritten ones and holes in the first, and what `more` makes.
fn rig(more: &[Op]) -> Rig {
    let mut setup = vec![
        Op::Create("big"),
        Op::Write { on: On::Path("big"), at: 0, len: 5 << 20, fill: 0x41 },
        Op::Unlink("big"),
        Op::Create("a"),
        Op::Truncate { on: ON, size: 2 * CHUNK },
        Op::Write { on: ON, at: 0, len: BLOCK, fill: 3 },
        allocate(2 * BLOCK, 2 * BLOCK),
    ];
    setup.extend_from_slice(more);
    Rig::new(tiny(1, 8192), &setup)
}

fn judge(rig: &Rig, sequences: Vec<Vec<Op>>) {
    let mut sum = Report::default();
    for (seed, ops) in (1..).zip(sequences) {
        match rig.run(&ops, &Options::sampled(seed, 120)) {
            Ok(report) => sum.add(&report),
            Err(failure) => panic!("{failure}"),
        }
    }
    println!("{sum}");
    assert!(sum.images > 300, "too little was tried: {sum}");
}

#[test]
fn blocks_are_there_with_zeros_or_not_at_all() {
    let write = Op::Write { on: ON, at: 10 * BLOCK + 7, len: 20, fill: 9 };
    let punch = Op::Fallocate { on: ON, blocks: Blocks::Punch, at: 0, len: 12 * BLOCK };
    judge(
        &rig(&[]),
        vec![
            vec![populate(10 * BLOCK, BLOCK)],
            vec![populate(2 * BLOCK, 2 * BLOCK)],
            vec![populate(0, 8 * BLOCK)],
            vec![populate(BLOCK, 2 * BLOCK), populate(0, 12 * BLOCK)],
            vec![populate(10 * BLOCK, BLOCK), write.clone(), punch, populate(0, 12 * BLOCK), write],
        ],
    );
}

/// What a hint adds is unwritten space, so nothing but zeros too.
#[test]
fn what_a_hint_adds_is_there_with_zeros_or_not_at_all() {
    let hint = Op::Hint { on: ON, blocks: 8 };
    judge(
        &rig(&[hint]),
        vec![
            vec![populate(10 * BLOCK, BLOCK)],
            vec![populate(5 * BLOCK, 2 * BLOCK), populate(0, 8 * BLOCK)],
            vec![populate(CHUNK + 17 * BLOCK, BLOCK), populate(CHUNK + 18 * BLOCK, BLOCK)],
        ],
    );
}

#[test]
fn a_slot_is_there_with_zeros_or_not_at_all() {
    judge(&rig(&[]), vec![vec![WHOLE], vec![populate(CHUNK + 9 * BLOCK, BLOCK), populate(CHUNK, 3 * BLOCK)]]);
    let pieces = [allocate(CHUNK + BLOCK, 2 * BLOCK), allocate(CHUNK + 7 * BLOCK, BLOCK)];
    judge(&rig(&pieces), vec![vec![WHOLE]]);
    judge(&rig(&[allocate(CHUNK, CHUNK)]), vec![vec![WHOLE]]);
}

/// Switches a mutation on, and off again however the scope is left.
struct Broken;

impl Drop for Broken {
    fn drop(&mut self) {
        mutation::set(None);
    }
}

fn with_broken(rule: Option<Mutation>, op: Op) -> Result<Report, Box<Failure>> {
    let rig = rig(&[]);
    let _broken = Broken;
    mutation::set(rule);
    rig.attempt(&[op], &Options::sampled(7, 60))
}

#[test]
fn zeros_before_the_record() {
    for op in [populate(10 * BLOCK, BLOCK), populate(2 * BLOCK, 2 * BLOCK), WHOLE] {
        let what = format!("{op:?}");
        let failure = with_broken(Some(Mutation::NoZeroFence), op.clone());
        println!("noticed: {}", failure.expect_err(&format!("NoZeroFence of {what} goes unnoticed")).what);
        if let Err(failure) = with_broken(None, op) {
            panic!("{failure}");
        }
    }
}

/// The file blocks of the file in pieces: every second one is a hole.
const PIECES: u64 = 320;

/// A pool with a file of more holes than fit a record.
fn pool_in_pieces() -> Arc<Sim> {
    let sim = Arc::new(Sim::new(POOL_BYTES).unwrap());
    let store =
        Store::create_sim(sim.clone(), &StoreOptions::new().geometry(tiny(1, 8192)).seed(SEED)).unwrap();
    store.write("big", &vec![0xcc; 5 << 20]).unwrap();
    store.remove_file("big").unwrap();
    let file = store.create("a").unwrap();
    file.set_len(PIECES * BLOCK).unwrap();
    for block in (0..PIECES).step_by(2) {
        file.write_all_at(&[6; BLOCK as usize], block * BLOCK).unwrap();
    }
    file.close().and_then(|()| store.close()).unwrap();
    sim
}

fn open(store: &Store) -> File {
    store.open("a", &OpenOptions::new().read(true).write(true)).unwrap()
}

/// How many of the blocks are mapped; each holds what it must.
fn mapped_of(store: &Store) -> u64 {
    let file = open(store);
    let mut found = vec![1; (PIECES * BLOCK) as usize];
    file.read_exact_at(&mut found, 0).unwrap();
    for (block, bytes) in found.chunks(BLOCK as usize).enumerate() {
        let expected = if block % 2 == 0 { 6 } else { 0 };
        assert!(bytes.iter().all(|byte| *byte == expected), "block {block} holds something else");
    }
    let extents = file.extents(0, PIECES * BLOCK).unwrap();
    let mapped = extents.iter().filter(|extent| matches!(extent.state, State::Mapped(_)));
    mapped.map(|extent| extent.range.len / BLOCK).sum()
}

#[test]
fn a_chain_of_records_is_there_as_far_as_it_came() {
    let primary = pool_in_pieces();
    let scratch = Arc::new(primary.fork().unwrap());
    primary.start_trace();
    let store = Store::open_sim(primary.clone()).unwrap();
    primary.mark(Event::Begin(0));
    assert!(open(&store).populate(FileRange { offset: 0, len: PIECES * BLOCK }, Placement::Any).unwrap());
    primary.mark(Event::Return(0));
    let trace = primary.take_trace();
    assert_eq!(mapped_of(&store), PIECES);
    let (mut parts, mut whole) = (0, 0);
    each_image(&scratch, &trace, &Options::sampled(1, 30), |stop, store| {
        check(&store).unwrap();
        match mapped_of(&store) {
            PIECES => whole += 1,
            mapped => {
                assert!(stop.returned.is_none(), "{mapped} blocks after the return: {stop:?}");
                parts += u64::from(mapped > PIECES / 2);
            }
        }
        drop(store);
    });
    println!("{parts} images with a part, {whole} with all");
    assert!(parts > 20 && whole > 20, "{parts} images with a part, {whole} with all");
}
