//! What does a database do whose image was changed?
//!
//! An [`Image`] has every structure: two named trees, records of many sizes, with runs of pages and of chunks, tombstones, a batch. It is
//! changed, opened, looked at and used, and then rolled back for the next trial.

use daxstore::pmem::sim::Sim;
use daxstore::pmem::sim::crash::{Cause, Replay};
use daxstore::units::PoolOff;
use daxstore_kv::media::SimMedia;
use daxstore_kv::{Batch, Db, Error, Options, Tree};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const BYTES: u64 = 24 << 20;
const CHUNK: u64 = 2 << 20;
const PAGE: u64 = 2048;

type State = BTreeMap<&'static str, BTreeMap<Vec<u8>, Vec<u8>>>;
type SimDb = Db<SimMedia>;

const TREES: [&str; 3] = ["", "one", "two"];

/// How many trials ended how.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tried {
    /// The open said what is wrong.
    pub refused: u64,
    /// A key's error, or `verify`, did.
    pub named: u64,
    /// Of these: where keys had errors.
    pub bare: u64,
    /// Nothing was lost.
    pub harmless: u64,
}

impl Tried {
    pub fn add(&mut self, other: Self) {
        self.refused += other.refused;
        self.named += other.named;
        self.bare += other.bare;
        self.harmless += other.harmless;
    }
}

static TRIALS: AtomicU64 = AtomicU64::new(0);

/// Ends the process when no trial of this one begins for a minute.
pub struct Watched(Arc<AtomicBool>);

pub fn watch(what: &'static str) -> Watched {
    let over = Arc::new(AtomicBool::new(false));
    let watched = Watched(over.clone());
    std::thread::spawn(move || {
        let (mut last, mut since) = (0, Instant::now());
        while !over.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(200));
            let now = TRIALS.load(Ordering::Relaxed);
            if now != last {
                (last, since) = (now, Instant::now());
            }
            if since.elapsed() > Duration::from_secs(120) {
                eprintln!("{what}: a trial does not end");
                std::process::abort();
            }
        }
    });
    watched
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn options() -> Options {
    Options::new().seed(7).small()
}

pub fn key(n: u64) -> Vec<u8> {
    format!("key {n:04}").into_bytes()
}

pub fn value(n: u64, round: u64) -> Vec<u8> {
    let len = match n {
        3 => 9000,
        4 => 2_200_000,
        _ => (n * 29 + round * 7) % 600,
    };
    (0..len).map(|i| (i * 3 + n + round) as u8).collect()
}

pub struct Image {
    sim: Arc<Sim>,
    /// What it holds, whole.
    state: State,
    /// Keys whose changes only a ring knows: a note or a record of theirs that is not right is one that power tore.
    pending: Vec<Vec<u8>>,
}

fn fill(db: &SimDb) -> State {
    let mut state: State = TREES.map(|tree| (tree, BTreeMap::new())).into();
    for (name, count) in [("", 90), ("one", 300), ("two", 40)] {
        let tree: Tree<_> = if name.is_empty() { (**db).clone() } else { db.tree(name).unwrap() };
        let map = state.get_mut(name).unwrap();
        for n in 0..count {
            let round = n % 3;
            let value = match name {
                "one" => value(100 + n % 5, round),
                "two" => value(200 + n, round),
                _ => value(n, round),
            };
            tree.put(&key(n), &value).unwrap();
            map.insert(key(n), value);
        }
        for n in (5..count).step_by(9) {
            tree.delete(&key(n)).unwrap();
            map.remove(&key(n));
        }
    }
    let mut batch = Batch::new();
    for n in 30..40 {
        batch.put(&key(n), &value(n, 5));
        state.get_mut("").unwrap().insert(key(n), value(n, 5));
    }
    db.write(&batch).unwrap();
    state
}

impl Image {
    /// Of a database that was closed.
    pub fn closed() -> Self {
        let sim = Arc::new(Sim::new(BYTES).unwrap());
        let db = Db::open_sim(sim.clone(), &options().create(true)).unwrap();
        let state = fill(&db);
        db.close().unwrap();
        sim.start_undo();
        Self { sim, state, pending: Vec::new() }
    }

    /// Of one that power cut, just after a change returned: nothing is durable that need not be.
    pub fn crashed() -> Self {
        let Self { sim, mut state, .. } = Self::closed();
        let after = Arc::new(sim.fork().unwrap());
        sim.start_trace();
        let db = Db::open_sim(sim.clone(), &options()).unwrap();
        let mut pending = Vec::new();
        for n in 0..20 {
            db.put(&key(500 + n), &value(n * 2 + 11, 4)).unwrap();
            state.get_mut("").unwrap().insert(key(500 + n), value(n * 2 + 11, 4));
            pending.push(key(500 + n));
        }
        let trace = sim.take_trace();
        let mut replay = Replay::new(&after, &trace);
        while replay.advance().unwrap().cause != Cause::End {}
        std::mem::forget(db);
        after.start_undo();
        Self { sim: after, state, pending }
    }

    pub fn byte(&self, at: u64) -> u8 {
        let mut byte = [0];
        self.sim.peek(PoolOff(at), &mut byte);
        byte[0]
    }

    pub fn word(&self, at: u64) -> u64 {
        let mut word = [0; 8];
        self.sim.peek(PoolOff(at), &mut word);
        u64::from_le_bytes(word)
    }

    /// The ring with most in it.
    pub fn ring(&self) -> u64 {
        let rings = (0..64).map(|n| 65536 + n * 8192);
        rings.max_by_key(|ring| (0..1024).filter(|n| self.word(ring + n * 8) != 0).count()).unwrap()
    }

    /// Where the maps of pages lie.
    pub fn maps(&self) -> Vec<u64> {
        let chunks = (0..BYTES / CHUNK).filter(|n| matches!(self.word((1 << 20) + n * 8) & 0xff, 2 | 7));
        chunks.map(|n| n * CHUNK).collect()
    }

    /// Where runs of pages with this kind of code lie, and their bytes.
    pub fn pages(&self, kind: u64) -> Vec<(u64, u64)> {
        let mut found = Vec::new();
        for map in self.maps() {
            for page in 1..1024 {
                let code = self.word(map + page / 4 * 8) >> (page % 4 * 16) & 0xffff;
                if code >> 12 == kind {
                    found.push((map + page * PAGE, if kind == 5 { 16 } else { code & 0xfff } * PAGE));
                }
            }
        }
        found
    }

    /// Where some records lie.
    pub fn records(&self) -> Vec<u64> {
        let mut slabs = self.pages(5);
        slabs.extend(self.pages(8));
        slabs.into_iter().map(|(at, _)| at).filter(|at| self.word(*at) != 0).collect()
    }

    /// Where bytes are that are not 0.
    pub fn used(&self) -> Vec<u64> {
        let words = (0..3 * CHUNK / 8).map(|n| n * 8).filter(|at| self.word(*at) != 0);
        words.flat_map(|at| at..at + 8).collect()
    }

    /// Tries these bytes.
    pub fn trial(&self, changes: &[(u64, u8)]) -> Tried {
        self.tried(changes, false)
    }

    /// The same, where one change may hide what another does.
    pub fn trial_of_many(&self, changes: &[(u64, u8)]) -> Tried {
        self.tried(changes, true)
    }

    fn tried(&self, changes: &[(u64, u8)], many: bool) -> Tried {
        TRIALS.fetch_add(1, Ordering::Relaxed);
        let base = self.sim.savepoint();
        changes.iter().for_each(|(at, byte)| self.sim.poke(PoolOff(*at), &[*byte]));
        let tried = catch_unwind(AssertUnwindSafe(|| self.look(many)));
        self.sim.roll_back_to(base);
        match tried {
            Ok(Ok(tried)) => tried,
            Ok(Err(what)) => panic!("{changes:x?}: {what}; word {:x}", self.word(changes[0].0 & !7)),
            Err(_) => panic!("{changes:x?}: a panic"),
        }
    }

    fn look(&self, many: bool) -> Result<Tried, String> {
        let db = match Db::open_sim(self.sim.clone(), &options()) {
            Ok(db) => db,
            Err(error) if is_told(&error) => return Ok(Tried { refused: 1, ..Tried::default() }),
            Err(error) => return Err(format!("open: {error}")),
        };
        let mut found = Found::default();
        for tree in TREES {
            self.look_at(&db, tree, &mut found)?;
        }
        let report = db.verify().map_err(|error| format!("verify: {error}"))?;
        if found.missing > found.torn && report.faults.is_empty() && found.errors == 0 && !many {
            return Err(format!("{found:?}, and nothing tells of it"));
        }
        change(&db)?;
        let is_named = found.errors > 0 || !report.faults.is_empty();
        let (named, bare) = (u64::from(is_named), u64::from(found.errors > 0));
        Ok(Tried { named, bare, harmless: 1 - named, refused: 0 })
    }

    fn look_at(&self, db: &SimDb, name: &'static str, found: &mut Found) -> Result<(), String> {
        let expected = &self.state[name];
        if !name.is_empty() && !db.trees().map_err(|error| error.to_string())?.iter().any(|tree| tree == name)
        {
            found.missing += 1;
            return Ok(());
        }
        let tree = if name.is_empty() {
            (**db).clone()
        } else {
            db.tree(name).map_err(|error| error.to_string())?
        };
        for (key, value) in expected {
            match tree.get(key) {
                Ok(Some(got)) if got == *value => {}
                Ok(Some(got)) => {
                    return Err(format!(
                        "{name}: {} has {} bytes that it never had",
                        key.escape_ascii(),
                        got.len()
                    ));
                }
                Ok(None) => {
                    found.missing += 1;
                    found.torn += u64::from(self.pending.contains(key));
                }
                Err(error) => found.error(&error)?,
            }
        }
        for (n, record) in tree.range(..).map_err(|error| error.to_string())?.enumerate() {
            match record {
                Ok((key, value)) if expected.get(&key) == Some(&value) => {}
                Ok((key, value)) => {
                    return Err(format!(
                        "{name}: a record that never was: {}, {} bytes",
                        key.escape_ascii(),
                        value.len()
                    ));
                }
                Err(error) => found.error(&error)?,
            }
            if n > 5000 {
                return Err(format!("{name}: a range that does not end"));
            }
        }
        match tree.len() {
            Ok(len) if len != expected.len() as u64 => found.missing += u64::from(found.missing == 0),
            Ok(_) => {}
            Err(error) => found.error(&error)?,
        }
        Ok(())
    }
}

/// What was not as it should be.
#[derive(Debug, Default)]
struct Found {
    missing: u64,
    /// Of these: what only a ring knew.
    torn: u64,
    errors: u64,
}

impl Found {
    fn error(&mut self, error: &Error) -> Result<(), String> {
        self.errors += 1;
        if is_told(error) { Ok(()) } else { Err(format!("an error that says nothing of damage: {error}")) }
    }
}

fn is_told(error: &Error) -> bool {
    matches!(
        error,
        Error::Damage(_)
            | Error::Record { .. }
            | Error::NotADatabase
            | Error::FutureVersion { .. }
            | Error::NotFound
    )
}

/// Uses the database; what it says does not matter, as long as it says it.
fn change(db: &SimDb) -> Result<(), String> {
    let told = |done: Result<(), Error>| match done {
        Err(error)
            if !is_told(&error) && !matches!(error, Error::NoSpace { .. } | Error::TooManyTrees(_)) =>
        {
            Err(format!("a change of a damaged database: {error}"))
        }
        _ => Ok(()),
    };
    for n in 0..12 {
        told(db.put(&key(n * 8), &value(n * 7 + 20, 9)))?;
        told(db.delete(&key(n * 8 + 1)).map(drop))?;
        told(db.put(format!("new {n}").as_bytes(), b"new"))?;
    }
    let mut batch = Batch::new();
    (0..8).for_each(|n| batch.put(&key(n * 11), b"of a batch"));
    told(db.write(&batch))?;
    told(db.tree("three").and_then(|tree| tree.put(b"a", b"b")))?;
    told(db.drop_tree("two").map(drop))?;
    told(db.compact().map(drop))?;
    told(db.verify().map(drop))
}
