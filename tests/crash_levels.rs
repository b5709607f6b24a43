//! Does a crash leave what the level of durability promises?
//!
//! `ordered`: what some prefix of the calls made, which holds everything up to the last call that commits; the sequences
//! run on files that stay open, so that nothing but the calls named here commits. `atomic-data` and `write_atomic`: old
//! or new as a whole, which is the same with every call a commit.

#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::crash::{Options, POOL_BYTES, SEED, check, scaled, tiny};
use common::model::Model;
use common::ops::{Attributes, BLOCK, Blocks, On, Op, Target, bytes};
use common::real::{self, Real};
use common::state::State;
use daxstore::layout::Geometry;
use daxstore::pmem::mutation::{self, Mutation};
use daxstore::pmem::sim::crash::{Plan, Replay, Stop, crash_recovery};
use daxstore::pmem::sim::{Event, Sim, Trace};
use daxstore::{Durability, OpenOptions, Store, StoreOptions};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// One call.
#[derive(Clone, Debug)]
enum Call {
    /// A call of the tests of all operations.
    Op(Op),
    /// An atomic write.
    Atomic { path: &'static str, at: u64, len: u64, fill: u8 },
    /// The write is made by another thread.
    Elsewhere { path: &'static str, at: u64, len: u64, fill: u8 },
    /// Everything becomes durable.
    Sync,
}

impl Call {
    /// What the model does.
    fn op(&self) -> Option<Op> {
        match self {
            Self::Op(op) => Some(op.clone()),
            Self::Atomic { path, at, len, fill } | Self::Elsewhere { path, at, len, fill } => {
                Some(Op::Write { on: On::Path(path), at: *at, len: *len, fill: *fill })
            }
            Self::Sync => None,
        }
    }

    /// Whether the call only waits with others, at the level `ordered`.
    fn waits(&self, level: Durability) -> bool {
        let writes = matches!(self, Self::Op(Op::Write { .. } | Op::Append { .. }) | Self::Elsewhere { .. });
        level == Durability::Ordered && writes || matches!(self, Self::Op(Op::Open { .. }))
    }
}

/// What a sequence led to: the state after each call, how many calls are durable at least once a call has returned,
/// and what was stored in which order.
struct Run {
    states: Vec<Rc<State>>,
    durable: Vec<usize>,
    trace: Trace,
    before: Arc<Sim>,
}

const FILES: [&str; 3] = ["a", "b", "c"];

fn prepared(geometry: Geometry, level: Durability) -> Arc<Sim> {
    let sim = Arc::new(Sim::new(POOL_BYTES).unwrap());
    let options = StoreOptions::new().geometry(geometry).seed(SEED).durability(level);
    let store = Store::create_sim(sim.clone(), &options).unwrap();
    store.create_dir("d", 0o755).unwrap();
    for (name, size) in [("a", 5 * BLOCK), ("b", 100), ("c", 0)] {
        store.write(name, &bytes(1, 0, size)).unwrap();
    }
    store.close().unwrap();
    sim
}

fn model() -> Model {
    let sim = Arc::new(Sim::new(POOL_BYTES).unwrap());
    let store = Store::create_sim(sim, &StoreOptions::new().seed(SEED)).unwrap();
    let mut model = Model::new(&real::state(&store).unwrap().names[""]);
    let write = |path, len| Op::Write { on: On::Path(path), at: 0, len, fill: 1 };
    for op in [Op::Mkdir("d"), Op::Create("a"), Op::Create("b"), Op::Create("c")] {
        model.apply(&op).unwrap();
    }
    model.apply(&write("a", 5 * BLOCK)).unwrap();
    model.apply(&write("b", 100)).unwrap();
    model
}

/// Does the calls, with a mark around each, on files that stay open to the end.
fn traced(geometry: Geometry, level: Durability, calls: &[Call], rule: Option<Mutation>) -> Run {
    let primary = prepared(geometry, level);
    let before = Arc::new(primary.fork().unwrap());
    primary.start_trace();
    let store = Store::open_sim(primary.clone()).unwrap();
    store.set_ordered_bounds(u64::MAX, Duration::MAX).unwrap();
    let write = OpenOptions::new().read(true).write(true);
    let held: Vec<_> = FILES.iter().map(|name| store.open(name, &write).unwrap()).collect();
    let (mut real, mut model) = (Real::new(store.clone()), model());
    mutation::set(rule);
    let mut run =
        Run { states: vec![Rc::new(model.state())], durable: Vec::new(), trace: Trace::default(), before };
    let mut durable = 0;
    for (number, call) in calls.iter().enumerate() {
        primary.mark(Event::Begin(number as u64));
        match call {
            Call::Op(op) => drop(real.run(op).unwrap()),
            Call::Atomic { path, at, len, fill } => {
                store.open(path, &write).unwrap().write_atomic(&bytes(*fill, *at, *len), *at).unwrap();
            }
            Call::Elsewhere { path, at, len, fill } => {
                let file = store.open(path, &write).unwrap();
                let data = bytes(*fill, *at, *len);
                std::thread::scope(|s| s.spawn(|| file.write_all_at(&data, *at).unwrap()).join().unwrap());
            }
            Call::Sync => store.sync().unwrap(),
        }
        primary.mark(Event::Return(number as u64));
        if let Some(op) = call.op() {
            model.apply(&op).unwrap();
        }
        run.states.push(Rc::new(model.state()));
        durable = if call.waits(level) { durable } else { number + 1 };
        run.durable.push(durable);
    }
    let found = real::state(&store).unwrap();
    let last = run.states.last().unwrap();
    assert_eq!(last.difference(&found, last, &[]), None, "after the last call, without a crash");
    run.trace = primary.take_trace();
    real.close_all();
    drop(held);
    run
}

/// What was tried, and found.
#[derive(Debug, Default)]
struct Tried {
    images: u64,
    nested: u64,
    /// The calls that had happened, in one image or another.
    prefixes: BTreeSet<usize>,
}

struct Judge<'r> {
    run: &'r Run,
    scratch: Arc<Sim>,
    /// What memories with this digest hold.
    known: HashMap<u64, Rc<State>>,
    tried: Tried,
}

impl Judge<'_> {
    fn recover(&mut self) -> Result<Rc<State>, String> {
        let store = Store::open_sim(self.scratch.clone()).map_err(|error| format!("open: {error}"))?;
        let digest = self.scratch.digest();
        if let Some(state) = self.known.get(&digest) {
            return Ok(state.clone());
        }
        check(&store)?;
        let state = Rc::new(real::state(&store).map_err(|error| format!("read: {error}"))?);
        self.known.insert(digest, state.clone());
        Ok(state)
    }

    /// Which prefixes of the calls a crash at `stop` may leave: the shortest and the longest.
    fn allowed(&self, stop: &Stop) -> (usize, usize) {
        let returned = stop.returned.map_or(0, |call| call as usize + 1);
        let least = returned.checked_sub(1).map_or(0, |last| self.run.durable[last]);
        (least, stop.in_flight.first().map_or(returned, |call| *call as usize + 1))
    }

    fn image(&mut self, stop: &Stop, nested_plan: &Plan) -> Result<(), String> {
        let (least, most) = self.allowed(stop);
        let base = self.scratch.savepoint();
        let found = self.recover()?;
        // The longest that fits: a sync changes nothing.
        let states = self.run.states[least..=most].iter().enumerate().rev();
        let mut differences = states.map(|(k, state)| (least + k, state.difference(&found, state, &[])));
        let Some((prefix, _)) = differences.find(|(_, difference)| difference.is_none()) else {
            let last = &self.run.states[most];
            let difference = last.difference(&found, last, &[]).unwrap_or_default();
            return Err(format!("no prefix of {least} to {most} calls; from the longest: {difference}"));
        };
        self.tried.prefixes.insert(prefix);
        self.tried.images += 1;
        if self.tried.images % 61 == 30 {
            self.scratch.roll_back_to(base);
            let scratch = self.scratch.clone();
            let counts = crash_recovery(&scratch, nested_plan, |_| {
                let again = self.recover()?;
                found.difference(&again, &found, &[]).map_or(Ok(()), Err)
            })?;
            self.tried.nested += counts.images;
        }
        Ok(())
    }
}

fn attempt(geometry: Geometry, level: Durability, calls: &[Call], images: usize) -> Result<Tried, String> {
    attempt_with(None, geometry, level, calls, images)
}

/// Runs the calls and judges every crash; with a rule broken, while they run and in recovery.
fn attempt_with(
    rule: Option<Mutation>,
    geometry: Geometry,
    level: Durability,
    calls: &[Call],
    images: usize,
) -> Result<Tried, String> {
    let run = traced(geometry, level, calls, rule);
    let scratch = Arc::new(run.before.fork().unwrap());
    scratch.start_undo();
    let options = Options::sampled(7, images);
    let mut judge =
        Judge { run: &run, scratch: scratch.clone(), known: HashMap::new(), tried: Tried::default() };
    let mut replay = Replay::new(&scratch, &run.trace);
    while let Some(stop) = replay.advance() {
        for plan in &options.plans {
            let pending = replay.pending(plan.mode);
            let mut images = pending.images(plan, stop.event as u64);
            while let Some(words) = images.next_image() {
                let base = scratch.savepoint();
                scratch.poke_words(words);
                let judged = judge.image(&stop, &options.nested_plan);
                scratch.roll_back_to(base);
                judged.map_err(|what| format!("{what}\n  at {stop:?}\n  {calls:#?}"))?;
            }
        }
    }
    Ok(judge.tried)
}

fn judge(geometry: Geometry, level: Durability, calls: &[Call], images: usize) -> Tried {
    match attempt(geometry, level, calls, images) {
        Ok(tried) => {
            println!("{} images, {} nested, prefixes {:?}", tried.images, tried.nested, tried.prefixes);
            tried
        }
        Err(what) => panic!("{what}"),
    }
}

const LARGE: u32 = 64 << 10;

fn write(path: &'static str, at: u64, len: u64, fill: u8) -> Call {
    Call::Op(Op::Write { on: On::Path(path), at, len, fill })
}

fn append(path: &'static str, len: u64, fill: u8) -> Call {
    Call::Op(Op::Append { on: On::Path(path), len, fill })
}

fn atomic(path: &'static str, at: u64, len: u64, fill: u8) -> Call {
    Call::Atomic { path, at, len, fill }
}

/// Overwrites of whole blocks and of parts, over the end, past it, in holes, and of what waits already, in three files.
fn mixed() -> Vec<Call> {
    vec![
        write("a", BLOCK, BLOCK, 2),
        append("b", 50, 3),
        append("c", BLOCK, 4),
        write("a", BLOCK + 100, 300, 5),
        append("c", 5000, 6),
        write("b", 20, 200, 7),
        Call::Sync,
        write("b", 9 * BLOCK + 7, 10, 8),
        write("a", 100, 3 * BLOCK, 9),
        append("c", 3 * BLOCK, 10),
        write("c", BLOCK - 5, 10, 11),
        write("a", 5 * BLOCK - 10, 20, 12),
        Call::Sync,
        append("a", 1, 13),
    ]
}

#[test]
fn ordered_writes_leave_a_prefix() {
    let tried = judge(tiny(2, LARGE), Durability::Ordered, &mixed(), 60);
    // One commit, another, and nothing of what waited at the end.
    assert_eq!(tried.prefixes, BTreeSet::from([0, 7, 13]));
    assert!(tried.images > 500 && tried.nested > 20, "too little was tried: {tried:?}");
}

#[test]
fn ordered_writes_leave_a_prefix_where_the_record_is_full() {
    let tried = judge(tiny(1, 8192), Durability::Ordered, &mixed(), 60);
    assert!(tried.prefixes.len() > 3, "small lanes commit by themselves: {tried:?}");
}

#[test]
fn other_calls_commit_what_waits_before() {
    let calls = [
        write("a", BLOCK, BLOCK, 2),
        append("c", 5000, 6),
        Call::Op(Op::Create("d/x")),
        append("c", 5000, 7),
        Call::Op(Op::Rename { from: "c", to: "d/c", target: Target::Replace }),
        write("a", 10, 10, 8),
        Call::Op(Op::Truncate { on: On::Path("a"), size: 3 * BLOCK + 5 }),
        append("a", 2 * BLOCK, 9),
        Call::Op(Op::Fallocate { on: On::Path("a"), blocks: Blocks::Punch, at: BLOCK, len: BLOCK }),
        write("a", 0, 6 * BLOCK, 3),
        atomic("b", 10, 10, 4),
        write("a", 0, BLOCK, 3),
        Call::Op(Op::SetAttr {
            on: On::Path("b"),
            set: Attributes { mode: Some(0o600), ..Attributes::default() },
        }),
        write("b", 5, 5, 5),
        Call::Op(Op::Unlink("a")),
        append("b", 9000, 5),
    ];
    judge(tiny(2, LARGE), Durability::Ordered, &calls, 60);
}

#[test]
fn unwritten_space_is_filled_in_order() {
    let on = On::Path("c");
    let calls = [
        Call::Op(Op::Fallocate { on, blocks: Blocks::Allocate, at: 0, len: 8 * BLOCK }),
        write("c", 2 * BLOCK, 3 * BLOCK, 2),
        write("c", 6 * BLOCK + 10, 10, 3),
        write("c", 3 * BLOCK, BLOCK, 4),
        Call::Sync,
        write("c", 0, 8 * BLOCK, 5),
        append("c", 10, 5),
    ];
    let tried = judge(tiny(2, LARGE), Durability::Ordered, &calls, 60);
    assert_eq!(tried.prefixes, BTreeSet::from([0, 1, 5]));
}

#[test]
fn writes_of_several_threads_are_one_group() {
    let elsewhere = |path, at, len, fill| Call::Elsewhere { path, at, len, fill };
    let calls = [
        elsewhere("a", BLOCK, 2 * BLOCK, 2),
        write("a", 0, BLOCK, 3),
        elsewhere("b", 50, 20, 4),
        elsewhere("c", 0, 5000, 5),
        Call::Sync,
        elsewhere("c", 0, 5000, 6),
    ];
    let tried = judge(tiny(2, LARGE), Durability::Ordered, &calls, 100);
    assert_eq!(tried.prefixes, BTreeSet::from([0, 5]));
}

/// Overwrites and appends, of blocks and parts, into data, holes and unwritten space.
fn whole() -> Vec<Call> {
    vec![
        atomic("a", BLOCK, BLOCK, 2),
        atomic("a", 100, 300, 3),
        atomic("a", 100, 3 * BLOCK, 4),
        atomic("b", 50, 100, 5),
        atomic("b", 2 * BLOCK + 5, BLOCK, 6),
        atomic("a", 5 * BLOCK - 10, 2 * BLOCK, 7),
        Call::Op(Op::Fallocate {
            on: On::Path("a"),
            blocks: Blocks::Allocate,
            at: 9 * BLOCK,
            len: 3 * BLOCK,
        }),
        atomic("a", 6 * BLOCK, 5 * BLOCK, 8),
        append("a", 100, 9),
    ]
}

#[test]
fn atomic_writes_are_old_or_new() {
    for (level, geometry) in [
        (Durability::Strict, tiny(2, LARGE)),
        (Durability::AtomicData, tiny(1, 8192)),
        (Durability::Ordered, tiny(2, LARGE)),
    ] {
        let tried = judge(geometry, level, &whole(), 60);
        assert!(tried.images > 300 && tried.nested > 20, "too little was tried: {tried:?}");
    }
}

#[test]
fn at_atomic_data_every_write_is_old_or_new() {
    let plain = whole().into_iter().map(|call| match call {
        Call::Atomic { path, at, len, fill } => write(path, at, len, fill),
        other => other,
    });
    judge(tiny(2, LARGE), Durability::AtomicData, &plain.collect::<Vec<_>>(), 60);
}

fn any_call() -> impl Strategy<Value = Call> {
    use proptest::prelude::*;
    let path = || prop::sample::select(&FILES[..]);
    let at = || prop_oneof![0..8 * BLOCK, (0..8_u64).prop_map(|block| block * BLOCK)];
    let len = || prop_oneof![1..300_u64, 1..3 * BLOCK, (1..4_u64).prop_map(|blocks| blocks * BLOCK)];
    let modes = prop::sample::select(vec![Blocks::Allocate, Blocks::KeepSize]);
    prop_oneof![
        8 => (path(), at(), len(), any::<u8>()).prop_map(|(path, at, len, fill)| write(path, at, len, fill)),
        6 => (path(), len(), any::<u8>()).prop_map(|(path, len, fill)| append(path, len, fill)),
        2 => (path(), at(), len(), any::<u8>())
            .prop_map(|(path, at, len, fill)| Call::Elsewhere { path, at, len, fill }),
        1 => (path(), at(), len(), any::<u8>()).prop_map(|(path, at, len, fill)| atomic(path, at, len, fill)),
        1 => (path(), at()).prop_map(|(path, size)| Call::Op(Op::Truncate { on: On::Path(path), size })),
        1 => (path(), modes, at(), len())
            .prop_map(|(path, blocks, at, len)| Call::Op(Op::Fallocate { on: On::Path(path), blocks, at, len })),
        2 => Just(Call::Sync),
    ]
}

fn generated(seed: u64, len: usize) -> Vec<Call> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let call = any_call();
    (0..len).map(|_| call.new_tree(&mut runner).unwrap().current()).collect()
}

#[test]
fn generated_mixes_leave_a_prefix() {
    let mut sum = (0, 0);
    let first = common::crash::first_seed();
    for seed in first..first + scaled(16) as u64 {
        for geometry in [tiny(2, LARGE), tiny(1, 16384)] {
            let calls = generated(seed, 25);
            match attempt(geometry, Durability::Ordered, &calls, 24) {
                Ok(tried) => sum = (sum.0 + tried.images, sum.1 + tried.nested),
                Err(what) => panic!("seed {seed}, {geometry:?}: {what}"),
            }
        }
    }
    println!("{} images, {} of crashed recoveries", sum.0, sum.1);
    assert!(sum.0 > 1000);
}

/// Whether a broken rule shows in `calls`.
fn notices(rule: Mutation, level: Durability, calls: &[Call]) -> bool {
    struct Off;
    impl Drop for Off {
        fn drop(&mut self) {
            mutation::set(None);
        }
    }
    let _off = Off;
    let tried = std::panic::catch_unwind(|| attempt_with(Some(rule), tiny(2, LARGE), level, calls, 60));
    match tried {
        Ok(Ok(tried)) => {
            println!("{rule:?} goes unnoticed: {tried:?}");
            false
        }
        Ok(Err(what)) => {
            println!("{rule:?}: noticed: {}", what.lines().next().unwrap_or_default());
            true
        }
        Err(_) => {
            println!("{rule:?}: noticed: a panic");
            true
        }
    }
}

#[test]
fn the_exchange_waits_for_the_data() {
    assert!(notices(Mutation::NoDataFence, Durability::Strict, &[atomic("a", BLOCK, 2 * BLOCK, 2)]));
    assert!(notices(Mutation::NoDataFence, Durability::Ordered, &[write("a", BLOCK, BLOCK, 2), Call::Sync]));
}

#[test]
fn a_change_does_not_overtake_what_waits() {
    let calls = [write("a", BLOCK, BLOCK, 2), Call::Op(Op::Create("d/x")), Call::Sync];
    assert!(notices(Mutation::OvertakeGroup, Durability::Ordered, &calls));
}

#[test]
fn parts_of_blocks_are_not_stored_in_place() {
    let calls = [write("a", BLOCK + 8, 64, 2), Call::Sync];
    assert!(notices(Mutation::OrderedInPlace, Durability::Ordered, &calls));
}

#[test]
fn a_group_is_one_record() {
    let calls = [append("b", 50, 2), append("c", 50, 3), Call::Sync];
    assert!(notices(Mutation::GroupInTwo, Durability::Ordered, &calls));
}

#[test]
fn what_other_threads_stored_is_seen_to() {
    let calls = [Call::Elsewhere { path: "a", at: BLOCK, len: BLOCK, fill: 2 }, Call::Sync];
    assert!(notices(Mutation::NotAdopted, Durability::Ordered, &calls));
}

#[test]
fn overwritten_blocks_stay_until_the_commit() {
    let calls = [write("a", 0, 4 * BLOCK, 2), append("c", 4 * BLOCK, 3), append("c", 9 * BLOCK, 3)];
    assert!(notices(Mutation::ReuseBeforeCommit, Durability::Ordered, &calls));
}
