//! What memory do the model's databases lie in, and how do they end?

use daxstore::pmem::sim::crash::{Mode, Plan, Replay};
use daxstore::pmem::sim::{Event, Sim};
use daxstore::{Store, StoreOptions};
use daxstore_kv::media::{Mapped, Media, SimMedia};
use daxstore_kv::{Db, Error, Options};
use std::sync::Arc;

/// How many effects were certainly durable, and whether one more may be.
pub type Cut = Option<(usize, bool)>;

/// Some memory with a database.
pub trait Host {
    type Media: Media;

    fn open(&mut self) -> Result<Db<Self::Media>, Error>;

    /// The change with this number begins.
    fn begin(&mut self, number: u64);

    /// It is over.
    fn end(&mut self, number: u64);

    /// The process dies.
    fn die(&mut self, db: Db<Self::Media>);

    /// Power is cut somewhere since the last open, as `seed` says; `None`: this memory can not do that, and the process died.
    fn cut(&mut self, seed: u64, db: Db<Self::Media>) -> Result<Cut, String>;
}

/// A file of a store, mapped.
pub struct Real {
    _dir: tempfile::TempDir,
    store: Store,
    options: Options,
}

impl Real {
    pub fn new(bytes: u64, options: Options) -> Self {
        let dir = tempfile::tempdir_in("/dev/shm").expect("a directory");
        let store = StoreOptions::new().assume_persistent(true);
        let store = Store::create(dir.path().join("pool"), bytes, &store).expect("a store");
        Self { _dir: dir, store, options }
    }
}

impl Host for Real {
    type Media = Mapped;

    fn open(&mut self) -> Result<Db, Error> {
        Db::open(&self.store, "/kv", self.options.clone())
    }

    fn begin(&mut self, _number: u64) {}

    fn end(&mut self, _number: u64) {}

    fn die(&mut self, db: Db) {
        std::mem::forget(db);
    }

    fn cut(&mut self, _seed: u64, db: Db) -> Result<Cut, String> {
        self.die(db);
        Ok(None)
    }
}

/// Simulated memory, which keeps a trace from each open on.
pub struct Simulated {
    sim: Arc<Sim>,
    /// What it held when the trace began.
    before: Arc<Sim>,
    options: Options,
}

impl Simulated {
    pub fn new(bytes: u64, options: Options) -> Self {
        let sim = Arc::new(Sim::new(bytes).expect("memory"));
        Self { before: sim.clone(), sim, options }
    }
}

impl Host for Simulated {
    type Media = SimMedia;

    fn open(&mut self) -> Result<Db<SimMedia>, Error> {
        self.before = Arc::new(self.sim.fork().expect("memory"));
        self.sim.start_trace();
        Db::open_sim(self.sim.clone(), &self.options)
    }

    fn begin(&mut self, number: u64) {
        self.sim.mark(Event::Begin(number));
    }

    fn end(&mut self, number: u64) {
        self.sim.mark(Event::Return(number));
    }

    fn die(&mut self, db: Db<SimMedia>) {
        let left = Arc::new(self.sim.fork().expect("memory"));
        drop(db);
        self.sim = left;
    }

    fn cut(&mut self, seed: u64, db: Db<SimMedia>) -> Result<Cut, String> {
        let trace = self.sim.take_trace();
        drop(db);
        let is_stop = |event: &Event| matches!(event, Event::Fence { .. } | Event::Return(_));
        let stops = trace.events.iter().filter(|event| is_stop(event)).count() + 1;
        // Most cuts come late: what was done before has been a state of many sequences.
        let wanted = if seed.is_multiple_of(3) {
            seed as usize / 3 % stops
        } else {
            stops - 1 - seed as usize / 3 % stops.min(40)
        };
        let before = self.before.fork().expect("memory");
        let mut replay = Replay::new(&before, &trace);
        let mut stop = replay.advance();
        for _ in 0..wanted {
            stop = replay.advance();
        }
        let stop = stop.ok_or("the trace is shorter than its stops")?;
        let mode = if seed.is_multiple_of(2) { Mode::Words } else { Mode::InOrder };
        let plan = Plan { mode, exhaustive: 0, singles: 0, samples: 3, seed };
        let pending = replay.pending(mode);
        let mut images = pending.images(&plan, seed);
        let mut words = Vec::new();
        // None, all, and what chance has chosen.
        for _ in 0..=seed / 7 % 5 {
            let Some(image) = images.next_image() else { break };
            words = image.to_vec();
        }
        before.poke_words(&words);
        self.sim = Arc::new(before);
        Ok(Some((stop.returned.map_or(0, |last| last as usize + 1), !stop.in_flight.is_empty())))
    }
}
