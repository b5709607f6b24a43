//! Does the store do what the model does, without crashes?
//!
//! Generated sequences; after every operation the answer, after some of them everything that can be seen, through
//! names and through open handles, is compared. The pool is so small that it fills up: then an operation
//! says so, and nothing has changed.

#![cfg(feature = "sim")]

mod common;

use common::crash::{POOL_BYTES, SEED, check, scaled, step, tiny};
use common::model::Model;
use common::ops::{BLOCK, Blocks, On, Op, any_op, share_op};
use common::real::{self, Real};
use common::state::State;
use daxstore::layout::Geometry;
use daxstore::pmem::sim::Sim;
use daxstore::{Store, StoreOptions};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::sync::Arc;

#[derive(Clone, Debug)]
enum Step {
    Op(Op),
    /// An operation that is left out if the model refuses it, as most would be by chance.
    Sensible(Op),
    /// Closes the store and opens it again.
    Reopen,
    /// Drops the store as a process that dies does, and opens it again.
    Die,
    Compare,
}

fn steps(most: u64, len: usize) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => any_op(most).prop_map(Step::Op),
        60 => any_op(most).prop_map(Step::Sensible),
        2 => share_op(most).prop_map(Step::Op),
        20 => share_op(most).prop_map(Step::Sensible),
        1 => Just(Step::Reopen),
        1 => Just(Step::Die),
        4 => Just(Step::Compare),
    ];
    prop::collection::vec(step, 1..len)
}

struct Pair {
    sim: Arc<Sim>,
    model: Model,
    real: Option<Real>,
}

impl Pair {
    fn new(geometry: Geometry) -> Self {
        let sim = Arc::new(Sim::new(POOL_BYTES).expect("memory"));
        let options = StoreOptions::new().geometry(geometry).seed(SEED);
        let store = Store::create_sim(sim.clone(), &options).expect("a new store");
        let root = real::state(&store).expect("an empty store");
        Self { sim, model: Model::new(&root.names[""]), real: Some(Real::new(store)) }
    }

    fn real(&mut self) -> &mut Real {
        self.real.as_mut().expect("an open store")
    }

    fn take(&mut self, to_take: &Step) -> Result<(), String> {
        match to_take {
            Step::Sensible(op) if !self.model.accepts(op) => Ok(()),
            Step::Op(op) | Step::Sensible(op) => {
                let real = self.real.as_mut().expect("an open store");
                step(&mut self.model, real, op).map(drop)
            }
            Step::Compare => self.compare(),
            Step::Reopen => {
                let real = self.real.take().expect("an open store");
                let store = real.store.clone();
                drop(real);
                store.close().map_err(|error| format!("close: {error}"))?;
                self.reopen()
            }
            Step::Die => {
                let before = self.sim.fork().expect("memory");
                drop(self.real.take());
                self.sim = Arc::new(before);
                self.reopen()
            }
        }
    }

    fn reopen(&mut self) -> Result<(), String> {
        self.model.close_all();
        let store = Store::open_sim(self.sim.clone());
        self.real = Some(Real::new(store.map_err(|error| format!("open: {error}"))?));
        self.compare()
    }

    fn compare(&mut self) -> Result<(), String> {
        let expected = self.model.state();
        let real = self.real();
        let found = real::state(&real.store).map_err(|error| format!("read: {error}"))?;
        expected.difference(&found, &expected, &[]).map_or(Ok(()), Err)?;
        let open = |files: std::collections::BTreeMap<u8, common::state::Entry>| State {
            names: files.into_iter().map(|(handle, entry)| (format!("handle {handle}"), entry)).collect(),
        };
        let found = open(real.open_files().map_err(|error| format!("read: {error}"))?);
        let expected = open(self.model.open_files());
        expected.difference(&found, &expected, &[]).map_or(Ok(()), Err)?;
        check(&self.real().store)
    }
}

fn agree(geometry: Geometry, steps: &[Step]) -> Result<(), String> {
    let mut pair = Pair::new(geometry);
    for (number, step) in steps.iter().enumerate() {
        pair.take(step).map_err(|what| format!("step {number}, {step:?}: {what}"))?;
    }
    pair.compare().map_err(|what| format!("at the end: {what}"))
}

/// Takes most of the pool, and then goes on.
fn nearly_full(most: u64, len: usize) -> impl Strategy<Value = Vec<Step>> {
    (1500..1950_u64, steps(most, len)).prop_map(|(blocks, rest)| {
        let on = On::Path("filler");
        let fill = Op::Fallocate { on, blocks: Blocks::Allocate, at: 0, len: blocks * BLOCK };
        [Op::Create("filler"), fill].map(Step::Op).into_iter().chain(rest).collect()
    })
}

fn cases(n: usize, geometry: Geometry, steps: impl Strategy<Value = Vec<Step>>) {
    let config = Config { cases: scaled(n) as u32, failure_persistence: None, ..Config::default() };
    let run = |steps: Vec<Step>| agree(geometry, &steps).map_err(TestCaseError::fail);
    if let Err(error) = TestRunner::new(config).run(&steps, run) {
        panic!("{error}");
    }
}

#[test]
fn small_files() {
    cases(400, tiny(2, 8192), steps(6 * BLOCK, 120));
}

#[test]
fn large_files() {
    cases(100, Geometry { arena_blocks: 4, ..tiny(4, 16384) }, steps(600 * BLOCK, 120));
}

#[test]
fn a_nearly_full_pool() {
    cases(100, tiny(1, 8192), nearly_full(100 * BLOCK, 120));
    cases(50, Geometry { arena_blocks: 4, ..tiny(4, 16384) }, nearly_full(600 * BLOCK, 120));
}

#[test]
fn a_full_pool_says_so_and_changes_nothing() {
    let mut pair = Pair::new(tiny(1, 8192));
    let mut refused = 0;
    pair.take(&Step::Op(Op::Create("a"))).expect("create");
    for round in 0..3000 {
        let op = match round % 3 {
            0 => Op::Append { on: On::Path("a"), len: 9000, fill: 1 },
            1 => Op::Write { on: On::Path("a"), at: round * 16 * BLOCK, len: 100, fill: 2 },
            _ => Op::CreateUnnamed { path: "b", len: 5000, fill: 3 },
        };
        let before = pair.real().store.statfs().free;
        let result = pair.real().run(&op);
        if matches!(&result, Err(error) if error.errno() == libc::ENOSPC) {
            refused += 1;
            assert_eq!(pair.real().store.statfs().free, before, "a refused call gives everything back");
        } else {
            assert_eq!(result.ok(), pair.model.apply(&op).ok());
        }
        if refused == 10 {
            break;
        }
    }
    assert_eq!(refused, 10, "8 MiB are full after 3000 calls");
    pair.compare().expect("the full pool");
    pair.take(&Step::Op(Op::Unlink("a"))).expect("removing makes room");
    pair.take(&Step::Op(Op::Append { on: On::Path("b"), len: 9000, fill: 1 })).expect("there is room again");
    pair.take(&Step::Reopen).expect("reopen");
}

/// A write that overwrites mapped blocks and fills holes, refused because the tree's new nodes found no space: it
/// had overwritten the mapped blocks already.
fn refused_for_a_tree_node() -> Vec<Op> {
    let b = On::Path("b");
    let write = |at, len, fill| Op::Write { on: b, at, len, fill };
    let filler = Op::Fallocate { on: On::Path("filler"), blocks: Blocks::Allocate, at: 0, len: 6_287_360 };
    let c = Op::Fallocate { on: On::Path("c"), blocks: Blocks::KeepSize, at: 12_289, len: 4096 };
    vec![
        Op::Create("filler"),
        filler,
        Op::CreateUnnamed { path: "b", len: 1, fill: 0 },
        write(151_552, 1, 0),
        Op::CreateUnnamed { path: "c", len: 6679, fill: 0 },
        c,
        Op::Append { on: On::Path("c"), len: 1514, fill: 0 },
        write(28_672, 1, 0),
        write(4096, 1, 0),
        write(0, 155_650, 101),
    ]
}

/// A file that grows by a truncate into space that was asked for beyond its end: the model had given it back.
fn grown_into_what_was_kept() -> Vec<Op> {
    let on = On::Path("a");
    vec![
        Op::Create("a"),
        Op::Fallocate { on, blocks: Blocks::KeepSize, at: 4097, len: 4096 },
        Op::Truncate { on, size: 4096 },
        Op::Fallocate { on, blocks: Blocks::Allocate, at: 8192, len: 1 },
    ]
}

/// Sequences that failed once.
#[test]
fn regressions() {
    for ops in [refused_for_a_tree_node(), grown_into_what_was_kept()] {
        let steps: Vec<_> = ops.into_iter().map(Step::Op).collect();
        agree(tiny(1, 8192), &steps).expect("a sequence that failed once");
    }
}
