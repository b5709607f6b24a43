//! Does a database do what a map of maps does, whatever is done with it?
//!
//! Generated steps on databases in a mapped file and in simulated memory, of the sizes that ship and of small ones with which some hundred
//! changes split and merge everything. `KV_MODEL_SEED` says where seeds begin, `KV_MODEL_CASES` how many times as many are tried. A seed that
//! failed is printed with the shortest steps that fail; those become a named test.

#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, reason = "a test has nobody to report to")]

mod model {
    pub mod memory;
    pub mod pair;
    pub mod steps;
}

use daxstore_kv::Options;
use model::memory::{Host, Real, Simulated};
use model::pair::Pair;
use model::steps::{Step, Val, steps};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Takes the steps. Answers how many changes found no space, and how many bytes are in use after everything was deleted.
fn agree<H: Host>(host: H, steps: &[Step]) -> Result<(u64, u64), String> {
    let mut pair = Pair::new(host)?;
    for (number, step) in steps.iter().enumerate() {
        pair.take(step).map_err(|what| format!("step {number}, {step:?}: {what}"))?;
    }
    pair.compare().map_err(|what| format!("at the end: {what}"))?;
    let refused = pair.refused;
    let left = pair.end_empty().map_err(|what| format!("when everything is deleted: {what}"))?;
    Ok((refused, left))
}

/// Runs `count` seeds of `steps`, each with a database of its own.
fn cases<H: Host>(count: u64, most: u64, steps: impl Strategy<Value = Vec<Step>>, host: impl Fn() -> H) {
    let first = number("KV_MODEL_SEED").unwrap_or(0);
    let (mut refused, mut left) = (0, 0);
    for seed in first..first + count * number("KV_MODEL_CASES").unwrap_or(1) {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let config =
            Config { cases: 1, failure_persistence: None, max_shrink_iters: 400, ..Config::default() };
        let totals = std::cell::Cell::new((0, 0));
        let run = |steps: Vec<Step>| {
            totals.set(agree(host(), &steps).map_err(TestCaseError::fail)?);
            Ok(())
        };
        if let Err(error) = TestRunner::new_with_rng(config, rng).run(&steps, run) {
            panic!("seed {seed}: {error}");
        }
        refused += totals.get().0;
        left = left.max(totals.get().1);
    }
    println!(
        "seeds {first} to {}: {refused} changes found no space; at most {left} bytes left",
        first + count
    );
    assert!(left <= most, "{left} bytes are in use when everything was deleted");
}

fn options() -> Options {
    Options::new().create(true).seed(7).max_bytes(64 << 20)
}

#[test]
fn in_simulated_memory() {
    cases(12, 16 << 20, steps(600, true, 150), || Simulated::new(48 << 20, options().scan_memory(64 << 10)));
}

#[test]
fn in_simulated_memory_with_small_parts() {
    let options = || options().small().scan_memory(64 << 10);
    cases(16, 16 << 20, steps(4000, false, 200), || Simulated::new(32 << 20, options()));
}

#[test]
fn in_a_mapped_file() {
    cases(16, 16 << 20, steps(600, true, 200), || Real::new(128 << 20, options()));
}

#[test]
fn in_a_mapped_file_with_small_parts() {
    cases(16, 16 << 20, steps(4000, false, 200), || Real::new(128 << 20, options().small()));
}

/// A value of two chunks where pages were before: the chunk's first bytes are its record, and no map.
#[test]
fn a_chunk_is_pages_and_then_a_value() {
    let fill = |count| Step::Fill { tree: 0, first: 1, count, val: Val { len: 150, seed: 1 }, batch: true };
    let large = |key| Step::Put(0, key, Val { len: 3 << 20, seed: 5 });
    let steps = [
        fill(3000),
        Step::Empty { tree: 0, first: 1, count: 3000, batch: true },
        Step::Compact,
        large(1),
        Step::Cut(1),
        Step::Delete(0, 1),
        Step::Compact,
        fill(3000),
        Step::Cut(3),
        large(2),
        Step::Close,
    ];
    agree(Simulated::new(32 << 20, options()), &steps).unwrap();
    agree(Real::new(128 << 20, options()), &steps).unwrap();
}

/// The model sees a rule of copies that is broken.
#[test]
fn a_copy_that_is_believed_too_long_is_noticed() {
    use daxstore_kv::mutation::{self, Mutation};
    let val = |seed| Val { len: 30, seed };
    let scan = || Step::Scan(0, None, None);
    let over = [Step::Put(0, 3, val(1)), scan(), Step::Put(0, 3, val(2)), scan()];
    let gone = [Step::Put(0, 3, val(1)), scan(), Step::Delete(0, 3), scan()];
    let beside = [Step::Put(0, 3, val(1)), scan(), Step::Put(0, 4, val(2)), scan()];
    for (rule, steps) in [(Mutation::NoCount, over), (Mutation::NoCount, gone), (Mutation::KeepCopy, beside)]
    {
        assert_eq!(agree(Simulated::new(32 << 20, options()), &steps).map(drop), Ok(()));
        mutation::set(Some(rule));
        let found = agree(Simulated::new(32 << 20, options()), &steps);
        mutation::set(None);
        assert!(found.is_err(), "{rule:?}");
    }
}

/// The model sees a rule that is broken.
#[test]
fn a_broken_rule_is_noticed() {
    use daxstore_kv::mutation::{self, Mutation};
    // What a closed database's order misses nobody tells again.
    for (rule, closed) in [(Mutation::NoFence, false), (Mutation::NoOrder, true)] {
        let put = |key| Step::Put(0, key, Val { len: 30, seed: 1 });
        mutation::set(Some(rule));
        let found = (0..40).any(|seed| {
            let steps = [put(3), put(4), if closed { Step::Close } else { Step::Cut(seed) }];
            agree(Simulated::new(32 << 20, options()), &steps).is_err()
        });
        mutation::set(None);
        assert!(found, "{rule:?}");
    }
}
