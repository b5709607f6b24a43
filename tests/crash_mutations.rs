//! Would these tests notice if a rule of the crash protocol were broken?
//!
//! Each mutation breaks one rule, for this thread alone, while sequences run and while their images are recovered.
//! One that goes unnoticed means that a rule is not tested.

#![cfg(feature = "sim")]

mod common;

use common::crash::{Failure, Options, Report, Rig, tiny};
use common::model::Model;
use common::ops::{BLOCK, On, Op, Target, any_op};
use daxstore::pmem::mutation::{self, Mutation};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

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
}

#[test]
fn nothing_is_noticed_where_nothing_is_broken() {
    let (failure, tried) = hunt(None, 5);
    if let Some(failure) = failure {
        panic!("{failure}");
    }
    println!("{tried}");
}
