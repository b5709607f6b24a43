//! What does a crash leave of queued writes?
//!
//! The queue has no threads here: the test does its work step by step, so that the trace is the same each time. The pool
//! was full of another file's bytes before. In every image each request is there as a whole or not at all, there if
//! its end was told, and no byte is one of those.

#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::crash::{Options, POOL_BYTES, SEED, check, each_image, tiny};
use daxstore::pmem::mutation::{self, Mutation};
use daxstore::pmem::sim::crash::{Stop, crash_recovery};
use daxstore::pmem::sim::{Event, Sim};
use daxstore::{
    AllocateMode, File, IoQueue, IoQueueOptions, IoRequest, OpenOptions, Queued, Store, StoreOptions,
};
use std::sync::Arc;

const B: u64 = 4096;
const OLD: u8 = 0xCC;

fn open(store: &Store, name: &str) -> File {
    store.open(name, &OpenOptions::new().read(true).write(true)).unwrap()
}

/// `a`: a block of data, a hole, unwritten blocks from 8 to 16, 24 blocks long. `b`: 100 bytes. `c`: empty.
fn pool(lane: u32) -> Arc<Sim> {
    let sim = Arc::new(Sim::new(POOL_BYTES).unwrap());
    let options = StoreOptions::new().geometry(tiny(1, lane)).seed(SEED);
    let store = Store::create_sim(sim.clone(), &options).unwrap();
    store.write("big", &vec![OLD; 5 << 20]).unwrap();
    store.remove_file("big").unwrap();
    for (name, content) in [("a", vec![1; B as usize]), ("b", vec![2; 100]), ("c", Vec::new())] {
        store.write(name, &content).unwrap();
    }
    let a = open(&store, "a");
    a.set_len(24 * B).unwrap();
    a.allocate(8 * B, 8 * B, AllocateMode::Allocate).unwrap();
    a.close().and_then(|()| store.close()).unwrap();
    sim
}

/// One queued write: where, and how many bytes.
#[derive(Clone, Copy, Debug)]
struct Write {
    file: &'static str,
    at: u64,
    len: u64,
    /// It overwrites bytes in place: words of it are old or new.
    in_place: bool,
}

const fn write(file: &'static str, at: u64, len: u64) -> Write {
    Write { file, at, len, in_place: false }
}

/// The byte that write number `i` writes.
const fn fill(i: usize) -> u8 {
    0x10 + i as u8
}

/// What every file must hold if the writes in `there` are and the others are not, ascending by name.
fn expected(writes: &[Write], there: &[bool]) -> Vec<(&'static str, Vec<u8>)> {
    let mut a = vec![0; 24 * B as usize];
    a[..B as usize].fill(1);
    let mut files = vec![("a", a), ("b", vec![2; 100]), ("c", Vec::new())];
    for (i, write) in writes.iter().enumerate().filter(|(i, _)| there[*i]) {
        let (_, content) = files.iter_mut().find(|(name, _)| *name == write.file).unwrap();
        let (at, end) = (write.at as usize, (write.at + write.len) as usize);
        content.resize(content.len().max(end), 0);
        content[at..end].fill(fill(i));
    }
    files
}

/// Which of the writes are there: each as a whole.
fn judge(stop: &Stop, store: &Store, writes: &[Write], told: usize) -> Vec<bool> {
    check(store).unwrap();
    let found: Vec<_> = ["a", "b", "c"].map(|name| (name, store.read(name).unwrap())).into();
    let there: Vec<_> = writes
        .iter()
        .enumerate()
        .map(|(i, write)| {
            let content = &found.iter().find(|(name, _)| *name == write.file).unwrap().1;
            let last = (write.at + write.len - 1) as usize;
            content.get(last).is_some_and(|byte| *byte == fill(i))
        })
        .collect();
    assert!(there[..told].iter().all(|there| *there), "a write that had ended is not there: {stop:?}");
    let mut expected = expected(writes, &there);
    for (i, write) in writes.iter().enumerate().filter(|(_, write)| write.in_place) {
        let (at, end) = (write.at as usize, (write.at + write.len) as usize);
        let find = |files: &[(&str, Vec<u8>)]| {
            files.iter().find(|(name, _)| *name == write.file).unwrap().1[at..end].to_vec()
        };
        let bytes = find(&found);
        assert!(bytes.iter().all(|byte| [1, fill(i)].contains(byte)), "neither old nor new: {stop:?}");
        assert!(i >= told || bytes.iter().all(|byte| *byte == fill(i)), "ended, and not there: {stop:?}");
        let own = expected.iter_mut().find(|(name, _)| *name == write.file).unwrap();
        own.1[at..end].copy_from_slice(&bytes);
    }
    for ((name, found), (_, expected)) in found.iter().zip(&expected) {
        let differ = (0..found.len().max(expected.len())).find(|i| found.get(*i) != expected.get(*i));
        if let Some(i) = differ {
            let (found, expected) = (found.get(i), expected.get(i));
            panic!("{name}: byte {i} is {found:?} and not {expected:?}, {there:?} there: {stop:?}");
        }
    }
    there
}

/// Submits the writes, does the work step by step, and judges every crash. How many images there were, and in how many some of
/// the writes but not all were there.
fn crash(lane: u32, options: IoQueueOptions, writes: &[Write], rule: Option<Mutation>) -> (u64, u64) {
    let primary = pool(lane);
    let store = Store::open_sim(primary.clone()).unwrap();
    let files = writes.iter().map(|write| open(&store, write.file)).collect::<Vec<_>>();
    let opened = Arc::new(primary.fork().unwrap());
    primary.start_trace();
    mutation::set(rule);
    let queue = IoQueue::new(&store, options.workers(0));
    let mut told = 0;
    let queued: Vec<Queued> = (0..)
        .zip(writes)
        .zip(&files)
        .map(|((i, write), file)| {
            let buffers =
                vec![vec![fill(i); write.len as usize / 2], vec![fill(i); write.len.div_ceil(2) as usize]];
            queue.submit(file, IoRequest::write(write.at, buffers))
        })
        .collect();
    loop {
        while told < queued.len() && queued[told].is_done() {
            primary.mark(Event::Begin(told as u64));
            primary.mark(Event::Return(told as u64));
            told += 1;
        }
        if !queue.step() {
            break;
        }
    }
    mutation::set(None);
    assert_eq!(told, writes.len());
    let trace = primary.take_trace();
    let (mut images, mut some, mut nested) = (0_u64, 0_u64, 0_u64);
    each_image(&opened, &trace, &Options::sampled(3, 40), |stop, store| {
        let told = stop.returned.map_or(0, |last| last as usize + 1);
        let there = judge(stop, &store, writes, told);
        images += 1;
        some += u64::from(there.contains(&true) && there.contains(&false));
        drop(store);
    });
    // A crash in the recovery of some of them.
    let plan = Options::sampled(3, 40).nested_plan;
    let mut number = 0_u64;
    each_image_raw(&opened, &trace, |stop| {
        number += 1;
        if !number.is_multiple_of(37) {
            return;
        }
        let told = stop.returned.map_or(0, |last| last as usize + 1);
        let counts = crash_recovery(&opened, &plan, |_| {
            let store = Store::open_sim(opened.clone()).unwrap();
            judge(stop, &store, writes, told);
            Ok::<_, ()>(())
        });
        nested += counts.unwrap().images;
    });
    println!("{images} images, {some} with some of the writes, {nested} of crashed recoveries");
    assert!(nested > 0, "no recovery was crashed");
    (images, some)
}

/// Every image of `trace` on `scratch`, not opened.
fn each_image_raw(scratch: &Arc<Sim>, trace: &daxstore::pmem::sim::Trace, mut each: impl FnMut(&Stop)) {
    scratch.roll_back();
    scratch.start_undo();
    let mut replay = daxstore::pmem::sim::crash::Replay::new(scratch, trace);
    while let Some(stop) = replay.advance() {
        let plan = Options::sampled(3, 12).plans[0];
        let pending = replay.pending(plan.mode);
        let mut images = pending.images(&plan, stop.event as u64);
        while let Some(words) = images.next_image() {
            let base = scratch.savepoint();
            scratch.poke_words(words);
            each(&stop);
            scratch.roll_back_to(base);
        }
    }
}

fn small() -> IoQueueOptions {
    IoQueueOptions::new().part_bytes(2 * B)
}

const HOLES: [Write; 4] =
    [write("a", 2 * B + 7, 5000), write("a", 9 * B, 2 * B), write("b", 4000, 6000), write("c", 0, 3 * B)];

#[test]
fn a_batch_is_there_or_not() {
    let (images, some) = crash(16384, small(), &HOLES, None);
    assert!(images > 300, "{images} images");
    assert_eq!(some, 0, "one record for all");
}

#[test]
fn one_after_the_other_in_order_of_their_ends() {
    let (images, some) = crash(8192, small().batch(1), &HOLES, None);
    assert!(images > 300 && some > 20, "{images} images, {some} between");
}

#[test]
fn a_large_write_of_many_parts_is_there_or_not() {
    for batch in [1, 3] {
        let writes = [write("c", 100, 20 * B), write("a", 7 * B + 100, 9 * B)];
        let (images, _) = crash(8192, small().batch(batch), &writes, None);
        assert!(images > 300, "{images} images");
    }
}

#[test]
fn an_overwrite_in_place_has_old_and_new_words() {
    let in_place = Write { in_place: true, ..write("a", 16, 2000) };
    let (images, _) = crash(8192, small(), &[in_place, write("a", 4 * B, B), write("b", B, 40)], None);
    assert!(images > 100, "{images} images");
}

fn noticed(rule: Mutation, writes: &[Write]) {
    let run = || crash(8192, small().batch(1), writes, Some(rule));
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
    mutation::set(None);
    let what = result.expect_err(&format!("{rule:?} goes unnoticed"));
    let what = what.downcast_ref::<String>().map_or("", String::as_str);
    println!("{rule:?} is noticed: {what}");
    assert!(["byte", "ended", "check finds"].iter().any(|sign| what.contains(sign)), "{what}");
}

/// The order of ext3 and ext4 in 2009: the record that converts blocks was durable before their data, and a crash between
/// showed what the blocks had held for somebody else.
#[test]
fn converting_before_the_data_is_noticed() {
    noticed(Mutation::ConvertFirst, &[write("a", 9 * B, 2 * B)]);
    noticed(Mutation::ConvertFirst, &[write("c", 0, 3 * B)]);
}

#[test]
fn a_missing_data_fence_is_noticed() {
    noticed(Mutation::NoDataFence, &HOLES[..3]);
}
