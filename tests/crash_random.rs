//! Do longer sequences survive crashes, with lanes that wrap and space that is used again?
//!
//! Sequences are made from seeds, so that a failure is a number: it belongs into [`REGRESSIONS`] then, and stays.

#![cfg(feature = "sim")]

mod common;

use common::crash::{Options, Report, Rig, scaled, tiny};
use common::model::Model;
use common::ops::{BLOCK, Op, any_op};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use std::time::Instant;

/// Seeds that failed once.
const REGRESSIONS: [u64; 0] = [];

/// The sequence with this seed. Of the operations that `model` refuses, one in eight is kept.
fn sequence(mut model: Model, seed: u64, len: usize) -> Vec<Op> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let op = (any_op(10 * BLOCK), 0..8_u8);
    let mut ops = Vec::new();
    while ops.len() < len {
        let (op, keep) = op.new_tree(&mut runner).expect("an operation").current();
        if keep == 0 || model.accepts(&op) {
            let _ = model.apply(&op);
            ops.push(op);
        }
    }
    ops
}

fn judge(seeds: impl Iterator<Item = u64>, lanes: u32, lane_bytes: u32, len: usize, images: usize) {
    let rig = Rig::new(tiny(lanes, lane_bytes), &[]);
    let (started, mut sum) = (Instant::now(), Report::default());
    for seed in seeds {
        match rig.run(&sequence(rig.start().clone(), seed, len), &Options::sampled(seed, images)) {
            Ok(report) => sum.add(&report),
            Err(failure) => panic!("seed {seed}: {failure}"),
        }
    }
    println!("{sum}; {:.1} s", started.elapsed().as_secs_f64());
}

#[test]
fn sequences_that_failed_once() {
    judge(REGRESSIONS.into_iter(), 1, 8192, 60, 20);
    judge(REGRESSIONS.into_iter(), 2, 8192, 60, 20);
}

#[test]
fn one_lane_that_wraps() {
    judge(0..scaled(60) as u64, 1, 8192, 60, 6);
}

#[test]
fn two_lanes() {
    judge(1000..1000 + scaled(40) as u64, 2, 8192, 60, 6);
}

#[test]
fn short_sequences_with_many_images() {
    judge(2000..2000 + scaled(100) as u64, 1, 8192, 8, 40);
}
