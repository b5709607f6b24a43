//! How fast is one engine at one workload?

use crate::args::{Args, Run};
use crate::draw::Zipf;
use crate::engine::{Engine, Size};
use crate::error::{Context, Failure, Result};
use crate::histogram::Histogram;
use crate::place::{Place, footprint};
use crate::reopen::{self, Reopened};
use crate::workload::{Inserted, Shared, Worker, Workload};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long the machine's own noise is looked at.
const NOISE_TIME: Duration = Duration::from_millis(300);

/// Bytes of the medium that a run takes for each byte of keys and values, about, at most.
const MOST_MEDIA: u64 = 3;

/// What a run gave.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct Outcome {
    /// The engine's name.
    pub engine: String,
    /// The workload's name.
    pub workload: String,
    /// Threads.
    pub threads: u16,
    /// Records that were there.
    pub records: u64,
    /// Bytes of each value.
    pub value_size: u32,
    /// Where random numbers started.
    pub seed: u64,
    /// How the engine was set up.
    pub configuration: String,
    /// What the database lay on.
    pub medium: String,
    /// Operations done (records, where they go in batches).
    pub operations: u64,
    /// How long they took.
    pub seconds: f64,
    /// Operations in a second.
    pub per_second: f64,
    /// How long one took, from a random eighth.
    pub latency: Latency,
    /// How long a loop that touches no memory took instead, on as many threads: the machine's own noise.
    pub noise: Latency,
    /// Bytes of the medium that the database took at the end.
    pub media_bytes: u64,
    /// Bytes of all keys and values at the end.
    pub logical_bytes: u64,
    /// What the engine counted meanwhile.
    pub counters: Vec<(String, u64)>,
    /// Of the workload `reopen`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reopened: Option<Reopened>,
}

/// Percentiles, in nanoseconds.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default)]
pub struct Latency {
    /// Half took at most this.
    pub p50: u64,
    /// 99 %.
    pub p99: u64,
    /// 99.9 %.
    pub p999: u64,
    /// The longest.
    pub max: u64,
}

impl From<&Histogram> for Latency {
    fn from(times: &Histogram) -> Self {
        let at = |part| times.percentile(part);
        Self { p50: at(0.5), p99: at(0.99), p999: at(0.999), max: times.longest() }
    }
}

impl Outcome {
    /// Bytes of the medium for each byte of keys and values.
    pub fn amplification(&self) -> f64 {
        self.media_bytes as f64 / self.logical_bytes.max(1) as f64
    }
}

/// How much is done.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Operations at most.
    pub operations: u64,
    /// Seconds at most.
    pub seconds: f64,
    /// Where random numbers start.
    pub seed: u64,
}

/// What the timed part of a run gave.
#[derive(Debug)]
pub struct Timed {
    /// Operations done.
    pub operations: u64,
    /// How long they took, in seconds.
    pub seconds: f64,
    /// How long each took, of those looked at.
    pub times: Histogram,
    /// Records that were added.
    pub inserted: u64,
}

/// Does one run in a directory of its own.
pub fn measure(args: &Args, run: Run) -> Result<Outcome> {
    let place = Place::new(args.dir.as_deref())?;
    let most = room(args.size(run), args);
    place.warm(most.logical(most.records).saturating_mul(MOST_MEDIA))?;
    let dir = place.path().join("database");
    std::fs::create_dir(&dir).context("make a directory")?;
    if run.workload == Workload::Reopen {
        return reopen::measure(args, run, &dir, place.medium());
    }
    let size = args.size(run);
    let engine = run.engine.open(&dir, room(size, args))?;
    if run.workload.is_loaded() {
        load(&*engine, size, args.seed)?;
        engine.settle();
        if args.require_huge {
            engine.require_huge()?;
        }
    }
    let before = engine.counters();
    let limits = limits(args, run.workload);
    let timed = time(&*engine, run.workload, size, run.threads.into(), limits)?;
    let counters = difference(&before, engine.counters());
    let mut outcome = blank(args, run, &*engine, place.medium());
    outcome.fill(&timed, run);
    outcome.counters = counters;
    outcome.measure_media(&*engine, &dir)?;
    Ok(outcome)
}

/// Inserts may add as many records as there are operations.
pub fn room(size: Size, args: &Args) -> Size {
    Size { records: size.records.saturating_add(args.operations()), ..size }
}

fn limits(args: &Args, workload: Workload) -> Limits {
    let is_load = matches!(workload, Workload::LoadSeq | Workload::LoadRand);
    Limits {
        operations: if is_load { args.records } else { args.operations() },
        seconds: if is_load { f64::INFINITY } else { args.seconds },
        // Not the load's: it would draw the keys in the order in which they were stored.
        seed: args.seed.wrapping_add(1),
    }
}

/// An outcome of which nothing is known but what was asked for.
pub fn blank(args: &Args, run: Run, engine: &dyn Engine, medium: &str) -> Outcome {
    Outcome {
        engine: run.engine.name().to_owned(),
        workload: run.workload.name(),
        threads: run.threads,
        records: args.records,
        value_size: run.value_size,
        seed: args.seed,
        configuration: engine.configuration().to_owned(),
        medium: medium.to_owned(),
        operations: 0,
        seconds: 0.0,
        per_second: 0.0,
        latency: Latency::default(),
        noise: Latency::default(),
        media_bytes: 0,
        logical_bytes: args.size(run).logical(args.records),
        counters: Vec::new(),
        reopened: None,
    }
}

impl Outcome {
    fn fill(&mut self, timed: &Timed, run: Run) {
        self.operations = timed.operations;
        self.seconds = timed.seconds;
        self.per_second = timed.operations as f64 / timed.seconds.max(1e-9);
        self.latency = Latency::from(&timed.times);
        self.noise = Latency::from(&noise(run.threads.into(), self.latency.p50));
        let size = Size { records: self.records, value_bytes: self.value_size as usize };
        let there = match run.workload {
            Workload::Delete => self.records.saturating_sub(timed.operations),
            _ => self.records + timed.inserted,
        };
        self.logical_bytes = size.logical(there);
    }

    /// Asks the engine, or the file system, what the database takes.
    pub fn measure_media(&mut self, engine: &dyn Engine, dir: &Path) -> Result<()> {
        let files = || footprint(dir).context("measure the files");
        self.media_bytes = engine.media_bytes().map_or_else(files, Ok)?;
        Ok(())
    }
}

/// Stores all records in scattered order.
///
/// # Errors
/// What the engine says.
pub fn load(engine: &dyn Engine, size: Size, seed: u64) -> Result<Timed> {
    let limits = Limits { operations: size.records, seconds: f64::INFINITY, seed };
    time(engine, Workload::LoadRand, size, 1, limits)
}

/// Does the workload on `threads` threads.
///
/// # Errors
/// What the engine says, and a value that is not the one stored.
pub fn time(
    engine: &dyn Engine,
    workload: Workload,
    size: Size,
    threads: usize,
    limits: Limits,
) -> Result<Timed> {
    let zipf = Zipf::new(size.records);
    let inserted = Inserted::new(size.records, threads);
    let shared = Shared {
        engine,
        workload,
        size,
        threads: threads as u64,
        seed: limits.seed,
        zipf: &zipf,
        inserted: &inserted,
    };
    let start = std::sync::Barrier::new(threads + 1);
    let (begun, shares) = std::thread::scope(|scope| {
        let start = &start;
        let share = |thread| {
            let mut worker = Worker::new(shared, thread);
            scope.spawn(move || {
                start.wait();
                run_thread(&mut worker, limits)
            })
        };
        let handles: Vec<_> = (0..threads).map(share).collect();
        let begun = Instant::now();
        start.wait();
        let shares: Vec<_> = handles.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        (begun, shares)
    });
    let seconds = begun.elapsed().as_secs_f64();
    let mut timed = Timed { operations: 0, seconds, times: Histogram::default(), inserted: inserted.count() };
    for share in shares {
        let (operations, times) = share.map_err(|_| Failure::new("measure", "a thread panicked"))??;
        timed.operations += operations;
        timed.times.add(&times);
    }
    Ok(timed)
}

fn run_thread(worker: &mut Worker<'_>, limits: Limits) -> Result<(u64, Histogram)> {
    let mut times = Histogram::default();
    let mut operations = 0;
    let begun = Instant::now();
    for step in 0..worker.steps(limits.operations) {
        if !worker.is_sampled() {
            operations += worker.step(step)?;
            continue;
        }
        let from = Instant::now();
        operations += worker.step(step)?;
        let to = Instant::now();
        times.record(to.duration_since(from).as_nanos() as u64);
        if to.duration_since(begun).as_secs_f64() > limits.seconds {
            break;
        }
    }
    Ok((operations, times))
}

/// How long loops take that would take `nanos` on a machine that does nothing else.
pub fn noise(threads: usize, nanos: u64) -> Histogram {
    let spins = spins_of(nanos);
    let all = std::thread::scope(|scope| {
        let handles: Vec<_> =
            (0..threads).map(|_| scope.spawn(move || spin_for(NOISE_TIME, spins))).collect();
        handles.into_iter().filter_map(|handle| handle.join().ok()).collect::<Vec<_>>()
    });
    let mut times = Histogram::default();
    all.iter().for_each(|share| times.add(share));
    times
}

/// Turns of the loop that take `nanos`.
fn spins_of(nanos: u64) -> u64 {
    const TRIAL: u64 = 100_000;
    let fastest = (0..5).map(|_| timed_spin(TRIAL)).min().unwrap_or(1).max(1);
    nanos.saturating_mul(TRIAL) / fastest
}

fn spin_for(time: Duration, spins: u64) -> Histogram {
    let mut times = Histogram::default();
    let begun = Instant::now();
    while begun.elapsed() < time {
        times.record(timed_spin(spins));
    }
    times
}

fn timed_spin(spins: u64) -> u64 {
    let from = Instant::now();
    for i in 0..spins {
        std::hint::black_box(i);
    }
    from.elapsed().as_nanos() as u64
}

fn difference(before: &[(String, u64)], after: Vec<(String, u64)>) -> Vec<(String, u64)> {
    let was = |name: &str| before.iter().find(|(known, _)| known == name).map_or(0, |(_, n)| *n);
    after.into_iter().map(|(name, n)| (name.clone(), n.saturating_sub(was(&name)))).collect()
}
