//! Does every crash of these operations leave what it may leave?
//!
//! A [`Rig`] is a prepared pool in two pieces of simulated memory: on one the operations run and are traced, on the
//! other the crash images of the trace are made, recovered, checked and compared, one after the other. Both
//! are rolled back, so that a rig serves any number of sequences.
//!
//! Images that recover to the same bytes are judged once: the digest of the memory after recovery, journal rings
//! left out, stands for the state (their records are of a past epoch then, and never looked at again). Some
//! images are nevertheless judged, used further and crashed again in their recovery, by turns.

use super::model::Model;
use super::ops::{Op, Outcome};
use super::real::{self, Real};
use super::state::{State, Torn};
use daxstore::layout::Geometry;
pub use daxstore::pmem::sim::crash::Plan;
use daxstore::pmem::sim::crash::{Mode, Replay, Stop, crash_recovery};
use daxstore::pmem::sim::{Event, Sim, Trace};
use daxstore::{OpenOptions, Store, StoreOptions};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes of the pools here.
pub const POOL_BYTES: u64 = 8 << 20;

/// Of the pools here, so that a failure is the same the next time.
pub const SEED: u64 = 0x5eed;

/// A geometry so small that a lane's ring wraps after a few records.
pub fn tiny(lanes: u32, lane_bytes: u32) -> Geometry {
    Geometry { size: POOL_BYTES, lanes, lane_bytes, arena_blocks: 1 }
}

/// How much is tried.
#[derive(Clone, Debug)]
pub struct Options {
    /// What is tried at every point.
    pub plans: Vec<Plan>,
    /// Crashes are enumerated from the operation with this number on.
    pub first: usize,
    /// One image in so many is used further.
    pub further: u64,
    /// One image in so many is crashed again in its recovery.
    pub nested: u64,
    /// What is tried at every point of a recovery.
    pub nested_plan: Plan,
}

/// `DAXSTORE_CRASH_SCALE`: how many times more than by default is tried.
pub fn scale() -> f64 {
    std::env::var("DAXSTORE_CRASH_SCALE").ok().and_then(|scale| scale.parse().ok()).unwrap_or(1.0)
}

/// `n`, scaled, and at least 1.
pub fn scaled(n: usize) -> usize {
    ((n as f64 * scale()) as usize).max(1)
}

/// `DAXSTORE_CRASH_SEED`: where seeds start, so that a long run tries what no run tried before.
pub fn first_seed() -> u64 {
    std::env::var("DAXSTORE_CRASH_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0)
}

impl Options {
    /// At every point about `images` images word by word, and half as many line by line.
    pub fn sampled(seed: u64, images: usize) -> Self {
        let images = scaled(images);
        let words = Plan {
            mode: Mode::Words,
            exhaustive: images as u64,
            singles: images.div_ceil(6),
            samples: images.div_ceil(3),
            seed,
        };
        let in_order = Plan {
            mode: Mode::InOrder,
            exhaustive: images.div_ceil(2) as u64,
            singles: images.div_ceil(12),
            samples: images.div_ceil(6),
            seed: seed ^ 1,
        };
        let nested_plan = Plan { exhaustive: 8, singles: 2, samples: 4, ..words };
        Self { plans: vec![words, in_order], first: 0, further: 97, nested: 211, nested_plan }
    }
}

/// What was tried.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    pub sequences: u64,
    pub points: u64,
    pub images: u64,
    /// Different memories after recovery, each judged.
    pub states: u64,
    pub further: u64,
    /// Images of crashes in recovery.
    pub nested: u64,
    /// Spent on images.
    pub spent: Duration,
}

impl Report {
    /// Adds the counts of another.
    pub fn add(&mut self, other: &Self) {
        self.sequences += other.sequences;
        self.points += other.points;
        self.images += other.images;
        self.states += other.states;
        self.further += other.further;
        self.nested += other.nested;
        self.spent += other.spent;
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.images + self.nested;
        let rate = all as f64 / self.spent.as_secs_f64().max(1e-9);
        write!(
            f,
            "{} sequences, {} points, {} images + {} of crashed recoveries, {} states judged, {} used further, \
             {rate:.0} images/s",
            self.sequences, self.points, self.images, self.nested, self.states, self.further
        )
    }
}

/// What went wrong, with everything needed to see it again.
#[derive(Clone, Debug)]
pub struct Failure {
    pub what: String,
    pub setup: Vec<Op>,
    pub ops: Vec<Op>,
    pub geometry: Geometry,
    /// Where, if in an image.
    pub image: Option<Crash>,
}

/// One image.
#[derive(Clone, Debug)]
pub struct Crash {
    pub stop: Stop,
    pub plan: Plan,
    pub image: u64,
    /// The image of a crash in the recovery of that image.
    pub again: Option<(Stop, u64)>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.what)?;
        if let Some(Crash { stop, plan, image, again }) = &self.image {
            writeln!(f, "  at event {} ({:?}), image {image} of {plan:?}", stop.event, stop.cause)?;
            writeln!(f, "  in flight {:?}, returned {:?}", stop.in_flight, stop.returned)?;
            if let Some((stop, image)) = again {
                writeln!(f, "  crashed again at event {} of the recovery, image {image}", stop.event)?;
            }
        }
        writeln!(f, "  {:?}", self.geometry)?;
        for op in &self.setup {
            writeln!(f, "  before: Op::{op:?},")?;
        }
        for (number, op) in self.ops.iter().enumerate() {
            writeln!(f, "  {number}: Op::{op:?},")?;
        }
        Ok(())
    }
}

/// The states around each operation.
struct Expected {
    /// Before the first, and after each.
    states: Vec<Rc<State>>,
    /// What each operation overwrites in place.
    torn: Vec<Vec<Torn>>,
}

/// A prepared pool.
pub struct Rig {
    pub geometry: Geometry,
    setup: Vec<Op>,
    start: Model,
    primary: Arc<Sim>,
    scratch: Arc<Sim>,
}

fn options(geometry: Geometry) -> StoreOptions {
    StoreOptions::new().geometry(geometry).seed(SEED)
}

fn open(sim: &Arc<Sim>) -> Result<Store, String> {
    Store::open_sim(sim.clone()).map_err(|error| format!("open: {error}"))
}

/// Whether `check` finds nothing wrong.
pub fn check(store: &Store) -> Result<(), String> {
    let report = store.check().map_err(|error| format!("check: {error}"))?;
    match report.faults.first() {
        Some(fault) => Err(format!("check finds {} faults; the first: {fault}", report.faults.len())),
        None => Ok(()),
    }
}

/// Runs `op` on both and compares what they answer. No space is an answer that only the store can give; then nothing
/// changes in the model, and `state` comparisons show that nothing did in the store. Returns the operation as it
/// was done: a write may be short.
pub fn step(model: &mut Model, real: &mut Real, op: &Op) -> Result<Op, String> {
    let found = real.run(op);
    let mut done = op.clone();
    if let (Ok(Outcome::Wrote(wrote)), Op::Write { len, .. }) = (&found, &mut done) {
        *len = (*wrote).min(*len);
    }
    if matches!(&found, Err(error) if error.errno() == libc::ENOSPC) {
        return Ok(done);
    }
    let expected = model.apply(&done);
    match (expected, &found) {
        (Ok(expected), Ok(found)) if expected == *found => Ok(done),
        (Err(errno), Err(error)) if errno == error.errno() => Ok(done),
        (Err(errno), Err(error)) if either_is_right(op, errno, error.errno()) => Ok(done),
        _ => Err(format!("{op:?} gives {found:?} instead of {expected:?}")),
    }
}

/// Whether both errors of `op` apply: then POSIX lets a file system choose.
fn either_is_right(op: &Op, a: i32, b: i32) -> bool {
    let both: &[(i32, i32)] = match op {
        // A directory into itself; a file or directory over one of its parents; two paths that lead nowhere.
        Op::Rename { .. } => &[
            (libc::EINVAL, libc::EEXIST),
            (libc::EINVAL, libc::ENOENT),
            (libc::ENOTEMPTY, libc::EISDIR),
            (libc::ENOTEMPTY, libc::ENOTDIR),
            (libc::ENOENT, libc::ENOTDIR),
            (libc::ENOENT, libc::ELOOP),
            (libc::ENOTDIR, libc::ELOOP),
        ],
        // A directory, over a name that is there or below one that is none; two paths that lead nowhere.
        Op::Link { .. } => &[
            (libc::EPERM, libc::EEXIST),
            (libc::EPERM, libc::ENOENT),
            (libc::EPERM, libc::ENOTDIR),
            (libc::EPERM, libc::ELOOP),
            (libc::ENOENT, libc::ELOOP),
            (libc::ENOTDIR, libc::ELOOP),
        ],
        _ => &[],
    };
    both.contains(&(a, b)) || both.contains(&(b, a))
}

/// Makes crash images of `trace` on `scratch`, which is as the traced pool was before, opens each, and has it judged.
pub fn each_image(scratch: &Arc<Sim>, trace: &Trace, options: &Options, mut judge: impl FnMut(&Stop, Store)) {
    scratch.start_undo();
    let mut replay = Replay::new(scratch, trace);
    while let Some(stop) = replay.advance() {
        for plan in &options.plans {
            let pending = replay.pending(plan.mode);
            let mut images = pending.images(plan, stop.event as u64);
            while let Some(words) = images.next_image() {
                let base = scratch.savepoint();
                scratch.poke_words(words);
                // The judge drops the store before the memory is put back: a store that goes writes.
                judge(&stop, Store::open_sim(scratch.clone()).expect("the pool"));
                scratch.roll_back_to(base);
            }
        }
    }
}

impl Rig {
    /// A pool of `geometry` in which `setup` was done and which was closed.
    pub fn new(geometry: Geometry, setup: &[Op]) -> Self {
        let primary = Arc::new(Sim::new(POOL_BYTES).expect("memory"));
        let store = Store::create_sim(primary.clone(), &options(geometry)).expect("a new store");
        let root = &real::state(&store).expect("an empty store").names[""];
        let mut start = Model::new(root);
        let mut real = Real::new(store);
        for op in setup {
            step(&mut start, &mut real, op).expect("setup");
        }
        real.close_all();
        start.close_all();
        let found = real::state(&real.store).expect("the prepared store");
        let state = start.state();
        assert_eq!(state.difference(&found, &state, &[]), None, "setup");
        real.store.close().expect("close");
        let scratch = Arc::new(primary.fork().expect("memory"));
        for sim in [&primary, &scratch] {
            let counters = daxstore::layout::LANE_COUNTER_BYTES;
            let rings = (0..geometry.lanes).map(|lane| {
                let start = geometry.lane(lane).0;
                start + counters..start + u64::from(geometry.lane_bytes)
            });
            sim.set_quiet(rings.collect());
            sim.start_undo();
        }
        Self { geometry, setup: setup.to_vec(), start, primary, scratch }
    }

    /// The model of the prepared pool.
    pub fn start(&self) -> &Model {
        &self.start
    }

    /// Runs `ops` and judges every crash; on failure drops operations while it still fails.
    pub fn run(&self, ops: &[Op], options: &Options) -> Result<Report, Box<Failure>> {
        self.attempt(ops, options).map_err(|failure| self.shrink(failure, options))
    }

    /// As [`Self::run`], without shrinking.
    pub fn attempt(&self, ops: &[Op], options: &Options) -> Result<Report, Box<Failure>> {
        let fail = |what, image| {
            let (setup, ops) = (self.setup.clone(), ops.to_vec());
            Box::new(Failure { what, setup, ops, geometry: self.geometry, image })
        };
        let traced = catch_unwind(AssertUnwindSafe(|| self.trace(ops)));
        let _ = self.primary.take_trace();
        self.primary.roll_back();
        let (trace, expected) = traced.unwrap_or_else(panicked).map_err(|what| fail(what, None))?;
        let mut judge = Judge {
            scratch: &self.scratch,
            expected: &expected,
            known: HashMap::new(),
            passed: HashSet::new(),
            report: Report { sequences: 1, ..Report::default() },
        };
        let result = judge.every_image(&trace, options);
        let _ = self.scratch.take_trace();
        self.scratch.roll_back();
        result.map_err(|bad| fail(bad.0, Some(bad.1)))?;
        Ok(judge.report)
    }

    fn shrink(&self, mut failure: Box<Failure>, options: &Options) -> Box<Failure> {
        let mut at = failure.ops.len();
        let mut options = options.clone();
        while at > 0 {
            at -= 1;
            let mut fewer = failure.ops.clone();
            fewer.remove(at);
            let mut tried = options.clone();
            tried.first -= usize::from(at < tried.first);
            if let Err(smaller) = self.attempt(&fewer, &tried) {
                (failure, options) = (smaller, tried);
            }
        }
        failure
    }

    /// Does `ops` on the primary memory and closes the store, with a mark around each operation.
    fn trace(&self, ops: &[Op]) -> Result<(Trace, Expected), String> {
        self.primary.start_trace();
        let mut real = Real::new(open(&self.primary)?);
        let mut model = self.start.clone();
        let mut expected = Expected { states: vec![Rc::new(model.state())], torn: Vec::new() };
        for (number, op) in (0..).zip(ops) {
            let before = model.clone();
            self.primary.mark(Event::Begin(number));
            let done = step(&mut model, &mut real, op)?;
            self.primary.mark(Event::Return(number));
            expected.torn.push(before.torn(&done, &expected.states[expected.states.len() - 1]));
            expected.states.push(Rc::new(model.state()));
        }
        let last = expected.states[ops.len()].clone();
        let found = real::state(&real.store).map_err(|error| format!("read: {error}"))?;
        if let Some(difference) = last.difference(&found, &last, &[]) {
            return Err(format!("after the last operation, without a crash: {difference}"));
        }
        self.primary.mark(Event::Begin(ops.len() as u64));
        real.close_all();
        real.store.close().map_err(|error| format!("close: {error}"))?;
        self.primary.mark(Event::Return(ops.len() as u64));
        expected.states.push(last);
        expected.torn.push(Vec::new());
        Ok((self.primary.take_trace(), expected))
    }
}

fn panicked<T>(payload: Box<dyn std::any::Any + Send>) -> Result<T, String> {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("a panic");
    Err(format!("panic: {text}"))
}

/// The operations around a crash: the number of states that certainly happened, and whether one more may have.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Between {
    before: usize,
    after: usize,
}

impl Between {
    fn of(stop: &Stop) -> Self {
        let before = stop.returned.map_or(0, |op| op as usize + 1);
        let after = stop.in_flight.first().map_or(before, |op| *op as usize + 1);
        Self { before, after }
    }
}

/// What is wrong, and in which image.
type Bad = Box<(String, Crash)>;

struct Judge<'r> {
    scratch: &'r Arc<Sim>,
    expected: &'r Expected,
    /// What memories with this digest hold.
    known: HashMap<u64, Rc<State>>,
    /// What was compared already and found right.
    passed: HashSet<(u64, Between)>,
    report: Report,
}

impl Judge<'_> {
    fn every_image(&mut self, trace: &Trace, options: &Options) -> Result<(), Bad> {
        let started = Instant::now();
        let mut replay = Replay::new(self.scratch, trace);
        while let Some(stop) = replay.advance() {
            let between = Between::of(&stop);
            if options.first > 0 && between.after.max(between.before) <= options.first {
                continue;
            }
            self.report.points += 1;
            for plan in &options.plans {
                let pending = replay.pending(plan.mode);
                let mut images = pending.images(plan, stop.event as u64);
                let mut image = 0;
                while let Some(words) = images.next_image() {
                    let base = self.scratch.savepoint();
                    self.scratch.poke_words(words);
                    self.one_image(&stop, between, plan, image, options)?;
                    self.scratch.roll_back_to(base);
                    image += 1;
                }
            }
        }
        self.report.spent = started.elapsed();
        Ok(())
    }

    fn one_image(
        &mut self,
        stop: &Stop,
        between: Between,
        plan: &Plan,
        image: u64,
        options: &Options,
    ) -> Result<(), Bad> {
        let count = self.report.images;
        self.report.images += 1;
        let crash = |again| Crash { stop: stop.clone(), plan: *plan, image, again };
        let further = count % options.further == options.further / 2;
        let nested = count % options.nested == options.nested / 2;
        let base = self.scratch.savepoint();
        let judged = catch_unwind(AssertUnwindSafe(|| self.recover(between, further)));
        let state = judged.unwrap_or_else(panicked).map_err(|what| Box::new((what, crash(None))))?;
        if nested {
            self.scratch.roll_back_to(base);
            self.crash_again(&state, &options.nested_plan)
                .map_err(|(what, again)| (format!("after a crash in recovery: {what}"), crash(again)))
                .map_err(Box::new)?;
        }
        Ok(())
    }

    /// Recovers what the scratch memory holds and judges it; `further`: uses the store, too.
    fn recover(&mut self, between: Between, further: bool) -> Result<Rc<State>, String> {
        let store = open(self.scratch)?;
        let (digest, state) = self.look(&store, further)?;
        if self.passed.insert((digest, between)) {
            self.compare(between, &state)?;
        }
        if further {
            self.report.further += 1;
            use_further(&store, &state)?;
        }
        Ok(state)
    }

    /// What the store just opened holds, and the digest of its memory; checked and read if the digest is new, or
    /// if `again`.
    fn look(&mut self, store: &Store, again: bool) -> Result<(u64, Rc<State>), String> {
        let digest = self.scratch.digest();
        if let Some(state) = self.known.get(&digest).filter(|_| !again) {
            return Ok((digest, state.clone()));
        }
        check(store)?;
        self.report.states += 1;
        let state = Rc::new(real::state(store).map_err(|error| format!("read: {error}"))?);
        self.known.insert(digest, state.clone());
        Ok((digest, state))
    }

    fn compare(&self, between: Between, found: &State) -> Result<(), String> {
        let Between { before, after } = between;
        let (old, new) = (&self.expected.states[before], &self.expected.states[after]);
        let torn = if before < after { &self.expected.torn[before][..] } else { &[] };
        let Some(from_new) = new.difference(found, old, torn) else { return Ok(()) };
        if before == after {
            return Err(format!("a change that had returned is not there: {from_new}"));
        }
        match old.difference(found, new, torn) {
            None => Ok(()),
            Some(from_old) => Err(format!("neither the state before: {from_old}\n  nor after: {from_new}")),
        }
    }

    /// Crashes the recovery of the image that the scratch memory holds.
    fn crash_again(&mut self, state: &Rc<State>, plan: &Plan) -> Result<(), (String, Option<(Stop, u64)>)> {
        let scratch = self.scratch;
        let counts = crash_recovery(scratch, plan, |again| {
            let recovered = catch_unwind(AssertUnwindSafe(|| {
                let store = open(self.scratch)?;
                let (_, found) = self.look(&store, false)?;
                let same = Rc::ptr_eq(&found, state);
                let difference = if same { None } else { state.difference(&found, state, &[]) };
                difference.map_or(Ok(()), Err)
            }));
            let at = again.map(|(stop, image)| (stop.clone(), image));
            recovered.unwrap_or_else(panicked).map_err(|what| (what, at))
        })?;
        self.report.nested += counts.images;
        Ok(())
    }
}

/// Changes this and that, undoes it, and sees that nothing else changed; files that grow have zeros at the end.
fn use_further(store: &Store, state: &State) -> Result<(), String> {
    let used = make_and_remove(store).and_then(|()| grow_and_shrink(store, state));
    match used {
        Ok(()) => {}
        Err(error) if error.errno() == libc::ENOSPC => {
            for path in ["zz-d/b", "zz-d", "zz-a", "zz-c"] {
                let root = store.root();
                let _ = root.remove_file(path).or_else(|_| root.remove_dir(path));
            }
        }
        Err(error) => return Err(format!("used further: {error}")),
    }
    check(store).map_err(|what| format!("used further: {what}"))?;
    let found = real::state(store).map_err(|error| format!("used further: read: {error}"))?;
    let mut expected = state.clone();
    for (path, entry) in &mut expected.names {
        entry.grown = true;
        if path.is_empty() || entry.size > 0 && entry.capacity.is_none() {
            entry.mtime = None;
        }
    }
    let difference = expected.difference(&found, &expected, &[]);
    difference.map_or(Ok(()), |difference| Err(format!("used further: {difference}")))
}

fn make_and_remove(store: &Store) -> daxstore::Result<()> {
    let root = store.root();
    let file = root.create("zz-a")?;
    let data = super::ops::bytes(7, 0, 5000);
    file.write_all_at(&data, 3)?;
    root.create_dir("zz-d", 0o700)?;
    root.rename("zz-a", "zz-d/b")?;
    let mut back = vec![0; 5003];
    file.read_exact_at(&mut back, 0)?;
    assert!(back[..3] == [0; 3] && back[3..] == data, "a new file reads back what was written");
    root.hard_link("zz-d/b", "zz-c")?;
    root.remove_file("zz-d/b")?;
    root.remove_dir("zz-d")?;
    root.remove_file("zz-c")
}

/// Never a foreign byte: what a file gains at its end reads as zeros.
fn grow_and_shrink(store: &Store, state: &State) -> daxstore::Result<()> {
    let others = |(_, entry): &(&String, &super::state::Entry)| entry.size > 0 && entry.capacity.is_none();
    for (path, entry) in state.names.iter().filter(others) {
        let file = store.root().open(path, &OpenOptions::new().read(true).write(true))?;
        file.set_len(entry.size + 9000)?;
        let mut gained = [0xa5; 9000];
        file.read_exact_at(&mut gained, entry.size)?;
        assert!(gained.iter().all(|byte| *byte == 0), "{path} grew by something else than zeros");
        file.set_len(entry.size)?;
    }
    Ok(())
}
