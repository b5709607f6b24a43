//! Does every crash of these operations leave a state that existed, with everything that was acknowledged?
//!
//! A database in simulated memory is prepared and closed; then operations run on it and are traced. Every crash image of the trace is
//! opened in another piece of memory and compared with the states around the operation that was under way. Some images are used further
//! and verified, and some are crashed again in their recovery.

mod growing;

use daxstore::pmem::sim::crash::{Mode, Plan, Replay, Stop, crash_recovery};
use daxstore::pmem::sim::{Event, Sim, Trace};
use daxstore_kv::mutation::{self, Mutation};
use daxstore_kv::{Batch, Db, Options, Tree};
pub use growing::Growing;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Bytes of the memory here.
pub const BYTES: u64 = 16 << 20;

/// What a database holds: by tree and key.
pub type State = BTreeMap<&'static str, BTreeMap<Vec<u8>, Arc<[u8]>>>;

/// Names of the trees that operations use; the first is always there.
pub const TREES: [&str; 3] = ["", "one", "two"];

/// One change, in the session of its thread: 0 is the test's own, others have threads of their own.
#[derive(Clone, Debug)]
pub enum Op {
    Put(u8, Vec<u8>, Vec<u8>),
    Delete(u8, Vec<u8>),
    Batch(u8, Vec<(Vec<u8>, Option<Vec<u8>>)>),
    /// The same of one named tree, which is there.
    In(&'static str, Vec<(Vec<u8>, Option<Vec<u8>>)>),
    Make(&'static str),
    Drop(&'static str),
    Compact(u8),
}

pub type SimDb = Db<Growing>;

impl Op {
    fn session(&self) -> u8 {
        match self {
            Self::Put(session, ..)
            | Self::Delete(session, ..)
            | Self::Batch(session, ..)
            | Self::Compact(session) => *session,
            Self::In(..) | Self::Make(_) | Self::Drop(_) => 0,
        }
    }

    fn apply(&self, state: &mut State) {
        let mut one = |tree, key: &Vec<u8>, value: Option<&Vec<u8>>| {
            let map = state.get_mut(tree).expect("a tree");
            match value {
                Some(value) => map.insert(key.clone(), (&**value).into()),
                None => map.remove(key),
            };
        };
        match self {
            Self::Put(_, key, value) => one("", key, Some(value)),
            Self::Delete(_, key) => one("", key, None),
            Self::Batch(_, all) => all.iter().for_each(|(key, value)| one("", key, value.as_ref())),
            Self::In(tree, all) => all.iter().for_each(|(key, value)| one(tree, key, value.as_ref())),
            Self::Make(tree) => _ = state.entry(tree).or_default(),
            Self::Drop(tree) => _ = state.remove(tree),
            Self::Compact(_) => {}
        }
    }

    fn run(&self, db: &SimDb) -> Result<(), String> {
        match self {
            Self::Put(_, key, value) => db.put(key, value),
            Self::Delete(_, key) => db.delete(key).map(drop),
            Self::Batch(_, all) => db.write(batch(all)),
            Self::In(tree, all) => db.tree(tree).and_then(|tree| tree.write(batch(all))),
            Self::Make(tree) => db.tree(tree).map(drop),
            Self::Drop(tree) => db.drop_tree(tree).map(drop),
            Self::Compact(_) => db.compact().map(drop),
        }
        .map_err(|error| format!("{self:.200?}: {error}"))
    }
}

fn batch(all: &[(Vec<u8>, Option<Vec<u8>>)]) -> Batch {
    let mut batch = Batch::new();
    for (key, value) in all {
        match value {
            Some(value) => batch.put(key, value),
            None => batch.delete(key),
        }
    }
    batch
}

/// How a thread gets operations, and tells how they went.
type Line = (std::sync::mpsc::Sender<Op>, std::sync::mpsc::Receiver<Result<(), String>>);

/// Threads that wait for operations: each has its own session.
struct Threads {
    all: Vec<Line>,
}

impl Threads {
    fn new(count: u8, db: &SimDb, rule: Option<Mutation>) -> Self {
        let all = (0..count).map(|_| {
            let (ops, received) = std::sync::mpsc::channel::<Op>();
            let (done, results) = std::sync::mpsc::channel();
            let db = db.clone();
            std::thread::spawn(move || {
                mutation::set(rule);
                while let Ok(op) = received.recv() {
                    let _ = done.send(op.run(&db));
                }
            });
            (ops, results)
        });
        Self { all: all.collect() }
    }

    fn run(&self, op: &Op, db: &SimDb) -> Result<(), String> {
        match op.session() {
            0 => op.run(db),
            n => {
                let (ops, results) = &self.all[usize::from(n) - 1];
                ops.send(op.clone()).expect("a thread");
                results.recv().unwrap_or_else(|_| Err("a thread panicked".to_owned()))
            }
        }
    }
}

/// How much is tried.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Images at each point, about.
    pub images: usize,
    /// Points before the return of this operation are left out.
    pub first: u64,
    pub seed: u64,
    /// One image in so many is used further, and one is crashed again.
    pub further: u64,
}

/// What was tried.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub points: u64,
    pub images: u64,
    pub nested: u64,
}

/// What databases are made of here.
#[derive(Clone, Debug)]
pub struct Setting {
    pub options: Options,
    /// Bytes that the file has at first.
    pub len: u64,
    /// Whether the database itself is made in the trace; there is no setup then.
    pub made: bool,
    /// Whether who did the setup was killed: the trace begins with recovery.
    pub killed: bool,
}

impl Default for Setting {
    fn default() -> Self {
        Self { options: Options::new().create(true).seed(7), len: BYTES, made: false, killed: false }
    }
}

/// What is there: simulated memory, and how databases are opened in it.
#[derive(Clone)]
struct Host {
    sim: Arc<Sim>,
    options: Options,
    len: u64,
}

impl Host {
    fn open(&self) -> Result<SimDb, String> {
        let media = Growing::new(self.sim.clone(), self.len);
        Db::open_media(media, &self.options).map_err(|error| format!("open: {error}"))
    }
}

/// A new database.
#[allow(dead_code, reason = "not every suite needs one")]
pub fn fresh() -> SimDb {
    let Setting { options, len, .. } = Setting::default();
    let sim = Arc::new(Sim::new(BYTES).expect("memory"));
    Host { sim, options, len }.open().expect("a new database")
}

/// What the database holds: by its order, and each key again by itself.
pub fn contents(db: &SimDb) -> Result<State, String> {
    let fail = |error| format!("read: {error}");
    let mut state = State::new();
    let mut one = |name, tree: &Tree<Growing>| {
        let map = state.entry(name).or_default();
        for record in tree.range(..).map_err(fail)? {
            let (key, value) = record.map_err(fail)?;
            if tree.get(&key).map_err(fail)?.as_ref() != Some(&value) {
                return Err(format!("{key:?} differs between get and range"));
            }
            map.insert(key, value.into());
        }
        Ok(())
    };
    one("", db)?;
    for name in db.trees().map_err(fail)? {
        let known = TREES.iter().find(|known| **known == name).ok_or("a tree that nobody made")?;
        one(known, &db.tree(&name).map_err(fail)?)?;
    }
    Ok(state)
}

/// Enumerates the crashes of `ops` on a database that holds `setup`.
pub fn crashes(setup: &[Op], ops: &[Op], effort: Effort, rule: Option<Mutation>) -> Result<Counts, String> {
    crashes_in(&Setting::default(), setup, ops, effort, rule)
}

/// As [`crashes`], of databases as `setting` says.
pub fn crashes_in(
    setting: &Setting,
    setup: &[Op],
    ops: &[Op],
    effort: Effort,
    rule: Option<Mutation>,
) -> Result<Counts, String> {
    let sim = Arc::new(Sim::new(BYTES).expect("memory"));
    let mut primary = Host { sim, options: setting.options.clone(), len: setting.len };
    let mut state = State::from([("", BTreeMap::new())]);
    if !setting.made {
        let db = primary.open()?;
        for op in setup {
            op.run(&db)?;
            op.apply(&mut state);
        }
        match setting.killed {
            true => std::mem::forget(db),
            false => db.close().map_err(|error| error.to_string())?,
        }
        primary.len = primary.len.max(Growing::reached(&primary.sim));
    }
    let scratch = Host { sim: Arc::new(primary.sim.fork().expect("memory")), ..primary.clone() };
    let mut states = vec![state.clone()];
    primary.sim.start_trace();
    mutation::set(rule);
    let traced = trace(&primary, ops, &mut states, rule);
    let trace = primary.sim.take_trace();
    traced?;
    let judged = judge(scratch, &trace, &states, ops, effort);
    mutation::set(None);
    judged
}

fn trace(primary: &Host, ops: &[Op], states: &mut Vec<State>, rule: Option<Mutation>) -> Result<(), String> {
    let db = primary.open()?;
    let threads = Threads::new(ops.iter().map(Op::session).max().unwrap_or(0), &db, rule);
    for (number, op) in (0..).zip(ops) {
        primary.sim.mark(Event::Begin(number));
        threads.run(op, &db)?;
        primary.sim.mark(Event::Return(number));
        let mut state = states[states.len() - 1].clone();
        op.apply(&mut state);
        states.push(state);
    }
    // What is written after this is not looked at: the process ends here.
    std::mem::forget(db);
    Ok(())
}

fn judge(
    mut host: Host,
    trace: &Trace,
    states: &[State],
    ops: &[Op],
    effort: Effort,
) -> Result<Counts, String> {
    let mut counts = Counts::default();
    let scratch = host.sim.clone();
    scratch.start_undo();
    let mut replay = Replay::new(&scratch, trace);
    while let Some(mut stop) = replay.advance() {
        host.len = host.len.max(Growing::take_length(&mut stop));
        if effort.first > 0 && stop.returned.is_none_or(|returned| returned < effort.first) {
            continue;
        }
        counts.points += 1;
        for mode in [Mode::Words, Mode::InOrder] {
            let (exhaustive, singles) = (effort.images as u64, effort.images.div_ceil(6));
            let plan =
                Plan { mode, exhaustive, singles, samples: effort.images.div_ceil(3), seed: effort.seed };
            let pending = replay.pending(mode);
            let mut images = pending.images(&plan, stop.event as u64);
            let mut image = 0;
            while let Some(words) = images.next_image() {
                let base = scratch.savepoint();
                scratch.poke_words(words);
                counts.images += 1;
                let again = counts.images % effort.further == 1;
                let judged = catch_unwind(AssertUnwindSafe(|| one_image(&host, &stop, states, again)));
                let judged = judged.unwrap_or_else(|_| Err("a panic".to_owned()));
                let op = stop.in_flight.first().map(|op| &ops[*op as usize]);
                counts.nested += judged.map_err(|what| {
                    format!("{what}\n  image {image} of {plan:?}\n  at {stop:?}\n  in flight: {op:?}")
                })?;
                scratch.roll_back_to(base);
                image += 1;
            }
        }
    }
    Ok(counts)
}

/// Judges the image in `scratch`; `again`: also crashes of its recovery, and what it does after.
fn one_image(host: &Host, stop: &Stop, states: &[State], again: bool) -> Result<u64, String> {
    let before = stop.returned.map_or(0, |op| op as usize + 1);
    let after = stop.in_flight.first().map_or(before, |op| *op as usize + 1);
    let scratch = &*host.sim;
    let base = scratch.savepoint();
    let found = look(host, again)?;
    if found != states[before] && found != states[after] {
        return Err(difference(&found, &states[before], &states[after]));
    }
    if !again {
        return Ok(0);
    }
    scratch.roll_back_to(base);
    let plan = Plan { mode: Mode::Words, exhaustive: 4, singles: 2, samples: 3, seed: stop.event as u64 };
    let nested = crash_recovery(scratch, &plan, |again| {
        let grown = again.map_or(0, |(stop, _)| Growing::take_length(&mut stop.clone()));
        let second = look(&Host { len: host.len.max(grown), ..host.clone() }, false)?;
        let what =
            |()| format!("after a crash in recovery at {again:?}: {}", difference(&second, &found, &found));
        if second == found { Ok(()) } else { Err(what(())) }
    });
    nested.map(|counts| counts.images)
}

/// What is there after recovery; `further`: and after some more changes.
fn look(host: &Host, further: bool) -> Result<State, String> {
    let db = host.open()?;
    db.read_maps().map_err(|error| error.to_string())?;
    let found = contents(&db)?;
    if further {
        let mut expected = found.clone();
        for n in 0..70_u64 {
            let op = Op::Put(0, format!("further {n}").into_bytes(), vec![n as u8; (n as usize * 13) % 150]);
            op.run(&db)?;
            op.apply(&mut expected);
        }
        for (key, _) in found[""].iter().take(20) {
            let op = Op::Delete(0, key.clone());
            op.run(&db)?;
            op.apply(&mut expected);
        }
        let now = contents(&db)?;
        if now != expected {
            return Err(format!("used further: {}", difference(&now, &expected, &expected)));
        }
        let faults = db.verify().map_err(|error| error.to_string())?.faults;
        if let Some(fault) = faults.first() {
            return Err(format!("verify finds {} faults; the first: {fault}", faults.len()));
        }
    }
    Ok(found)
}

fn difference(found: &State, before: &State, after: &State) -> String {
    let all = |state: &State| -> BTreeMap<(&'static str, Vec<u8>), Arc<[u8]>> {
        let of = |(tree, map): (&&'static str, &BTreeMap<Vec<u8>, Arc<[u8]>>)| {
            let tree = *tree;
            map.iter().map(move |(key, value)| ((tree, key.clone()), value.clone())).collect::<Vec<_>>()
        };
        state.iter().flat_map(of).collect()
    };
    let found_all = all(found);
    let show = |other: &State| {
        let trees: Vec<_> = other.keys().collect();
        let other = all(other);
        let missing = other.iter().filter(|(key, value)| found_all.get(*key) != Some(value));
        let more = found_all.keys().filter(|key| !other.contains_key(*key));
        let name = |(tree, key): &(&str, Vec<u8>)| format!("{tree}/{}", String::from_utf8_lossy(key));
        let missing: Vec<_> = missing.map(|(key, _)| name(key)).take(6).collect();
        let more: Vec<_> = more.map(name).take(6).collect();
        format!("trees {trees:?}; not there or different: {missing:?}, too many: {more:?}")
    };
    let trees: Vec<_> = found.keys().collect();
    format!("neither before ({}) nor after ({}); trees {trees:?}", show(before), show(after))
}
