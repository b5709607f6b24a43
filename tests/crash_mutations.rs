//! Would these tests notice if a rule of the crash protocol were broken?
//!
//! Each mutation breaks one rule, for this thread alone, while sequences run and while their images are recovered.
//! One that goes unnoticed means that a rule is not tested.

#![cfg(feature = "sim")]

mod common;

use common::crash::{Failure, Options, POOL_BYTES, Report, Rig, SEED, tiny};
use common::model::Model;
use common::ops::{BLOCK, On, Op, Target, any_op};
use daxstore::pmem::mutation::{self, Mutation};
use daxstore::pmem::sim::Sim;
use daxstore::{AllocateMode, Store, StoreOptions};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use std::sync::Arc;

/// Switches a mutation on, and off again however the scope is left.
struct Broken;

impl Broken {
    fn new(rule: Option<Mutation>) -> Self {
        mutation::set(rule);
        Self
    }
}

impl Drop for Broken {
    fn drop(&mut self) {
        mutation::set(None);
    }
}

fn random(mut model: Model, seed: u64, len: usize) -> Vec<Op> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let op = any_op(10 * BLOCK);
    let mut ops = Vec::new();
    while ops.len() < len {
        let op = op.new_tree(&mut runner).expect("an operation").current();
        if model.accepts(&op) {
            let _ = model.apply(&op);
            ops.push(op);
        }
    }
    ops
}

/// Sequences in which a broken rule shows, the likeliest first.
fn sequences(rig: &Rig) -> Vec<Vec<Op>> {
    let on = On::Path("a");
    let write = |at, len, fill| Op::Write { on, at, len, fill };
    let mut all = vec![
        vec![Op::Create("a"), write(0, 9000, 1), Op::Rename { from: "a", to: "b", target: Target::Replace }],
        vec![Op::Create("a"), write(0, 5000, 1), Op::Truncate { on, size: 100 }, write(3000, 100, 2)],
        vec![Op::Create("a"), write(0, 8192, 1), write(0, 4096, 2), write(100, 50, 3), write(4000, 200, 4)],
    ];
    all.extend((0..12).map(|seed| random(rig.start().clone(), seed, 40)));
    all
}

/// The failure that a broken rule (or none) leads to, and how much was tried before it showed.
fn hunt(rule: Option<Mutation>, most: usize) -> (Option<Box<Failure>>, Report) {
    let mut tried = Report::default();
    let rig = Rig::new(tiny(1, 8192), &[]);
    let plans = Options::sampled(5, 60);
    let nested_plan = common::crash::Plan { exhaustive: 32, singles: 16, samples: 16, ..plans.nested_plan };
    let options = Options { further: 13, nested: 13, nested_plan, ..plans };
    for ops in sequences(&rig).into_iter().take(most) {
        let _broken = Broken::new(rule);
        match rig.attempt(&ops, &options) {
            Ok(report) => tried.add(&report),
            Err(failure) => return (Some(failure), tried),
        }
    }
    (None, tried)
}

macro_rules! noticed {
    ($($name:ident: $rule:ident,)*) => {
        $(
            #[test]
            fn $name() {
                let (failure, tried) = hunt(Some(Mutation::$rule), usize::MAX);
                match failure {
                    Some(failure) => println!("{}: noticed after {tried}: {}", stringify!($rule), failure.what),
                    None => panic!("{} goes unnoticed: {tried}", stringify!($rule)),
                }
            }
        )*
    };
}

noticed! {
    j1_no_home_byte_before_the_commit_fence: Steal,
    j2_data_before_the_record: NoDataFence,
    j4_versions_grow: NoVersion,
    j5_images_are_whole: PartialImage,
    j5_nothing_else_stores_to_an_object: StoreInObject,
    j6_ring_space_is_covered: NoCover,
    j8_a_record_is_valid_by_its_hash: NoHash,
    j10_homes_before_the_epoch: EpochFirst,
    j10_a_fence_before_the_epoch: NoRecoveryFence,
    the_commit_fence: NoCommitFence,
    one_superblock_after_the_other: OneSuperblockFence,
    the_tail_of_a_file_is_zeroed: NoTailZero,
    a_file_is_cut_in_one_step: FreeBeforeSize,
}

#[test]
fn nothing_is_noticed_where_nothing_is_broken() {
    let (failure, tried) = hunt(None, 5);
    if let Some(failure) = failure {
        panic!("{failure}");
    }
    println!("{tried}");
}

/// Sixteen names and more: as many inodes as a block holds.
const NAMES: [&str; 20] =
    ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q", "r", "s", "t"];

/// Files are made where a removed file's data lay: their arena must be zeros before it is one.
fn arenas_over_old_data(rule: Option<Mutation>) -> Result<Report, Box<Failure>> {
    let on = On::Path("big");
    let data = Op::Write { on, at: 0, len: 6 << 20, fill: 0x41 };
    let rig = Rig::new(tiny(1, 8192), &[Op::Create("big"), data, Op::Unlink("big")]);
    let ops: Vec<_> = NAMES.into_iter().map(Op::Create).collect();
    let _broken = Broken::new(rule);
    rig.attempt(&ops, &Options::sampled(3, 60))
}

#[test]
fn zeros_of_an_arena_before_its_slots() {
    let failure =
        arenas_over_old_data(Some(Mutation::NoArenaFence)).expect_err("NoArenaFence goes unnoticed");
    println!("noticed: {}", failure.what);
    if let Err(failure) = arenas_over_old_data(None) {
        panic!("{failure}");
    }
}

/// Empty files are removed, their arenas become a file's data, and the power goes: `true` if the data are there.
fn data_over_old_arenas(rule: Option<Mutation>) -> bool {
    let sim = Arc::new(Sim::new(POOL_BYTES).expect("memory"));
    let store = Store::create_sim(sim.clone(), &StoreOptions::new().geometry(tiny(1, 65536)).seed(SEED));
    let store = store.expect("a pool");
    let filler = store.create("filler").expect("a file");
    filler.allocate(0, 4 << 20, AllocateMode::Allocate).expect("space");
    let mut names = Vec::new();
    while names.len() < 2000 && store.write(format!("{}", names.len()), b"").is_ok() {
        names.push(format!("{}", names.len()));
    }
    names.iter().for_each(|name| store.remove_file(name).expect("removed"));
    let _broken = Broken::new(rule);
    let back = store.reclaim().expect("reclaimed");
    assert!(back > 0, "{} files, {:?}", names.len(), store.statfs());
    // Zeros look like a slot of version 0, which any record is newer than.
    let file = store.create("data").expect("a file");
    let fits = |len: &u64| file.write_at(&vec![0; *len as usize], 0).is_ok_and(|wrote| wrote as u64 == *len);
    let most = store.statfs().free * BLOCK;
    let len = (0..most / BLOCK).map(|less| most - less * BLOCK).find(fits).expect("a size that fits");
    let crashed = Arc::new(sim.fork().expect("memory"));
    let again = Store::open_sim(crashed).expect("the pool");
    again.read("data").is_ok_and(|found| found.len() as u64 == len && found.iter().all(|byte| *byte == 0))
}

#[test]
fn j7_a_new_epoch_before_arenas_are_data() {
    assert!(data_over_old_arenas(None));
    assert!(!data_over_old_arenas(Some(Mutation::NoEpochForArenas)), "NoEpochForArenas goes unnoticed");
}
