//! Does every sequence of two operations survive a crash at any point of the two?
//!
//! After ACE (CrashMonkey, OSDI 2018), which found most known crash bugs of Linux file systems with two or three
//! operations on a handful of names. What an operation needs (a parent, a file with content) is made just before
//! it, in the same open store, so that the lanes hold records when the two begin.

#![cfg(feature = "sim")]

mod common;

use common::crash::{Options, Report, Rig, tiny};
use common::model::Model;
use common::ops::{Attributes, BLOCK, Blocks, Must, On, Op, Outcome, Target};
use std::time::Instant;

fn name_ops() -> Vec<Op> {
    let rename = |from, to, target| Op::Rename { from, to, target };
    vec![
        Op::Create("a"),
        Op::Create("d/a"),
        Op::CreateUnnamed { path: "b", len: 5000, fill: 9 },
        Op::Mkdir("d"),
        Op::Mkdir("b"),
        Op::Rmdir("d"),
        Op::Unlink("a"),
        Op::Unlink("d/a"),
        Op::Link { from: "a", to: "b" },
        Op::Link { from: "a", to: "d/b" },
        Op::Link { from: "d/a", to: "b" },
        Op::Symlink { target: "a", path: "b" },
        Op::Symlink { target: "d/a", path: "d/b" },
        rename("a", "b", Target::Replace),
        rename("a", "d/a", Target::Replace),
        rename("d/a", "a", Target::Replace),
        rename("d/a", "d/b", Target::Replace),
        rename("d", "b", Target::Replace),
        rename("a", "b", Target::NoReplace),
        rename("a", "b", Target::Exchange),
        rename("a", "d/a", Target::Exchange),
        rename("d", "b", Target::Exchange),
    ]
}

fn data_ops(on: On) -> Vec<Op> {
    let write = |at, len| Op::Write { on, at, len, fill: 200 };
    let fallocate = |blocks, at, len| Op::Fallocate { on, blocks, at, len };
    vec![
        write(0, BLOCK),
        write(100, 300),
        write(BLOCK - 96, 2 * BLOCK),
        write(5 * BLOCK, 10),
        Op::Append { on, len: 1, fill: 201 },
        Op::Append { on, len: 5000, fill: 202 },
        Op::Truncate { on, size: 0 },
        Op::Truncate { on, size: 5000 },
        Op::Truncate { on, size: 30_000 },
        fallocate(Blocks::Allocate, 3 * BLOCK, 2 * BLOCK),
        fallocate(Blocks::KeepSize, BLOCK, 6 * BLOCK),
        fallocate(Blocks::Punch, 0, BLOCK),
        fallocate(Blocks::Punch, 2000, 6000),
        fallocate(Blocks::Zero, 2000, 6000),
        fallocate(Blocks::Zero, 2 * BLOCK, 3 * BLOCK),
        fallocate(Blocks::Collapse, BLOCK, BLOCK),
        fallocate(Blocks::Insert, BLOCK, 2 * BLOCK),
        Op::Populate { on, at: BLOCK, len: 2 * BLOCK, whole: false },
    ]
}

fn node_ops() -> Vec<Op> {
    let xattr = |path, len, must| Op::SetXattr { on: On::Path(path), name: "user.x", len, fill: 5, must };
    let set = Attributes { mode: Some(0o640), uid: Some(1), gid: Some(2), atime: Some(3), mtime: Some(4) };
    vec![
        Op::SetAttr { on: On::Path("a"), set },
        xattr("a", 20, Must::Either),
        xattr("a", 5000, Must::Create),
        xattr("d", 20, Must::Replace),
        Op::RemoveXattr { on: On::Path("a"), name: "user.x" },
        Op::Open { path: "a", handle: 0 },
        Op::Close(0),
    ]
}

fn share_ops() -> Vec<Op> {
    let (a, b) = (On::Path("a"), On::Path("d/a"));
    vec![
        Op::Reflink { from: a, to: b, at: 0, to_at: BLOCK, len: 2 * BLOCK, same: false },
        Op::Become { from: b, to: a },
        Op::Clone { from: "a", to: "d/c" },
        Op::Fallocate { on: a, blocks: Blocks::Unshare, at: 0, len: 3 * BLOCK },
    ]
}

fn all_ops() -> Vec<Op> {
    let mut ops = name_ops();
    ops.extend(share_ops());
    ops.extend(data_ops(On::Path("a")));
    ops.extend(data_ops(On::Path("d/a")).into_iter().step_by(4));
    ops.extend(node_ops());
    ops
}

/// What `op` needs to be there.
fn needs(op: &Op) -> Vec<&'static str> {
    let on = |on| match on {
        On::Path(path) => vec![path],
        On::Open(_) => vec![],
    };
    match *op {
        Op::Create(path)
        | Op::CreateSequential { path, .. }
        | Op::CreateUnnamed { path, .. }
        | Op::Mkdir(path)
        | Op::Symlink { path, .. } => parent(path).into_iter().collect(),
        Op::Rmdir(path) | Op::Unlink(path) | Op::Open { path, .. } => vec![path],
        Op::Link { from, to } | Op::Clone { from, to } => {
            vec![Some(from), parent(to)].into_iter().flatten().collect()
        }
        Op::Rename { from, to, target: Target::Exchange } => vec![from, to],
        Op::Rename { from, to, .. } => vec![Some(from), parent(to)].into_iter().flatten().collect(),
        Op::Write { on: at, .. } | Op::Append { on: at, .. } | Op::Truncate { on: at, .. } => on(at),
        Op::Fallocate { on: at, .. } | Op::SetAttr { on: at, .. } | Op::SetXattr { on: at, .. } => on(at),
        Op::RemoveXattr { on: at, .. }
        | Op::Populate { on: at, .. }
        | Op::Defrag(at)
        | Op::Reset(at)
        | Op::Hint { on: at, .. } => on(at),
        Op::Reflink { from, to, .. } | Op::Become { from, to } => [on(from), on(to)].concat(),
        Op::Close(_) => vec!["a"],
    }
}

fn parent(path: &'static str) -> Option<&'static str> {
    path.rsplit_once('/').map(|(parent, _)| parent)
}

/// Makes `path` unless it is there or can not be (what was to be its parent is a file by now): a directory for "d",
/// else a file with three blocks, the last one not full.
fn make(model: &mut Model, path: &'static str, ops: &mut Vec<Op>) {
    if model.exists(path) {
        return;
    }
    if let Some(parent) = parent(path) {
        make(model, parent, ops);
    }
    let write = Op::Write { on: On::Path(path), at: 0, len: 2 * BLOCK + 500, fill: 100 };
    let made = if path == "d" { vec![Op::Mkdir("d")] } else { vec![Op::Create(path), write] };
    for op in made {
        if model.apply(&op).is_err() {
            return;
        }
        ops.push(op);
    }
}

/// Adds `op` to `ops`, after whatever it needs and `model` does not have.
fn add(model: &mut Model, op: &Op, ops: &mut Vec<Op>) {
    for path in needs(op) {
        make(model, path, ops);
    }
    let mut after = model.clone();
    let first = match (after.apply(op), op) {
        (Err(libc::ENODATA), Op::SetXattr { on, name, .. } | Op::RemoveXattr { on, name }) => {
            Some(Op::SetXattr { on: *on, name, len: 3000, fill: 3, must: Must::Create })
        }
        (Ok(Outcome::Skipped), Op::Close(handle)) => Some(Op::Open { path: "a", handle: *handle }),
        _ => None,
    };
    if let Some(first) = first {
        model.apply(&first).expect("what the operation needs");
        ops.push(first);
    }
    let _ = model.apply(op);
    ops.push(op.clone());
}

/// Every sequence of two whose number leaves `part` when divided by the number of parts.
fn judge(part: usize, parts: usize, lanes: u32) {
    let rig = Rig::new(tiny(lanes, 8192), &[]);
    let (ops, started, mut sum) = (all_ops(), Instant::now(), Report::default());
    let pairs = ops.iter().flat_map(|first| ops.iter().map(move |second| (first, second)));
    for (number, (first, second)) in pairs.enumerate().skip(part).step_by(parts) {
        let (mut model, mut sequence) = (rig.start().clone(), Vec::new());
        add(&mut model, first, &mut sequence);
        let begin = sequence.len() - 1;
        add(&mut model, second, &mut sequence);
        let options = Options { first: begin, ..Options::sampled(number as u64, IMAGES) };
        match rig.run(&sequence, &options) {
            Ok(report) => sum.add(&report),
            Err(failure) => panic!("sequence {number}: {failure}"),
        }
    }
    println!("{sum}; {:.1} s", started.elapsed().as_secs_f64());
    let all = (ops.len() * ops.len()) as u64;
    assert!(sum.sequences >= all / parts as u64, "every sequence was tried");
    assert!(sum.images > sum.sequences * 10, "too little was tried: {sum}");
}

/// Images a point word by word, and half as many line by line.
const IMAGES: usize = 12;

#[test]
fn even_sequences_on_one_lane() {
    judge(0, 2, 1);
}

#[test]
fn odd_sequences_on_two_lanes() {
    judge(1, 2, 2);
}
