//! How long does an engine take to open after SIGKILL?
//!
//! A child loads all records, says so, and puts until it is killed. Then this process opens what it left, gets a
//! record, puts a new one, scans, and looks at a sample of all.

use crate::args::{Args, Run};
use crate::draw::{Rng, Zipf};
use crate::engine::{Engine, Size};
use crate::error::{Context, Failure, Result};
use crate::run::{Outcome, blank, load, room};
use crate::workload::{Inserted, SCAN, Shared, Worker, Workload};
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What the child says when all is loaded.
const LOADED: &str = "loaded";
/// How long it then puts.
const PUTTING: Duration = Duration::from_millis(300);
/// Records looked at after opening.
const SAMPLE: u64 = 10_000;

/// What opening gave.
#[derive(Serialize, Deserialize, Clone, Copy, Debug)]
pub struct Reopened {
    /// Until the engine was open.
    pub open_seconds: f64,
    /// And then until the first record was got.
    pub first_get_seconds: f64,
    /// How long the first change after that took, a new key: what an engine left for later is done then.
    pub first_put_seconds: f64,
    /// And the first scan of 100 records after that; `None` of an engine that can not scan.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub first_scan_seconds: Option<f64>,
    /// Records that were looked at, and were right.
    pub checked: u64,
}

/// Kills and reaps the child whatever happens here.
struct Victim(Child);

impl Drop for Victim {
    fn drop(&mut self) {
        // It may have ended by itself, which is what is wanted here.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Loads in a child, kills it, opens.
pub fn measure(args: &Args, run: Run, dir: &Path, medium: &str) -> Result<Outcome> {
    kill_a_child(args, run, dir)?;
    let size = args.size(run);
    let begun = Instant::now();
    let engine = run.engine.open(dir, room(size, args))?;
    let open_seconds = begun.elapsed().as_secs_f64();
    let zipf = Zipf::new(1);
    let inserted = Inserted::new(size.records, 1);
    let shared = Shared {
        engine: &*engine,
        workload: Workload::Get,
        size,
        threads: 1,
        seed: args.seed,
        zipf: &zipf,
        inserted: &inserted,
    };
    let mut worker = Worker::new(shared, 0);
    let middle = size.records / 2;
    let first_get_seconds = timed(|| worker.get(middle))?;
    let first_put_seconds = timed(|| worker.insert())?;
    let can_scan = run.engine.is_ordered();
    let first_scan_seconds = can_scan.then(|| timed(|| worker.scan(middle, SCAN))).transpose()?;
    let mut rng = Rng::new(args.seed, 1);
    for _ in 0..SAMPLE {
        worker.get(rng.below(size.records))?;
    }
    let mut outcome = blank(args, run, &*engine, medium);
    outcome.reopened = Some(Reopened {
        open_seconds,
        first_get_seconds,
        first_put_seconds,
        first_scan_seconds,
        checked: SAMPLE,
    });
    outcome.seconds = open_seconds;
    outcome.operations = 1;
    outcome.counters = engine.counters();
    outcome.measure_media(&*engine, dir)?;
    Ok(outcome)
}

/// How long `what` takes, in seconds.
fn timed(what: impl FnOnce() -> Result<()>) -> Result<f64> {
    let begun = Instant::now();
    what()?;
    Ok(begun.elapsed().as_secs_f64())
}

fn kill_a_child(args: &Args, run: Run, dir: &Path) -> Result<()> {
    let program = std::env::current_exe().context("find this program")?;
    let mut command = Command::new(program);
    command.args(["--victim", "--engine", run.engine.name(), "--workload", "reopen"]);
    command.args(["--records", &args.records.to_string(), "--value-size", &run.value_size.to_string()]);
    command.args(["--threads", &run.threads.to_string(), "--seed", &args.seed.to_string()]);
    command.args(["--operations", &args.operations().to_string()]).arg("--dir").arg(dir);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("start a child")?;
    let mut victim = Victim(child);
    let Some(output) = victim.0.stdout.take() else {
        return Err(Failure::new("start a child", "it has no standard output"));
    };
    let said = BufReader::new(output).lines().next().transpose().context("read what the child says")?;
    if said.as_deref() != Some(LOADED) {
        return Err(Failure::new("load in a child", "it ended before everything was loaded"));
    }
    std::thread::sleep(PUTTING);
    if let Some(status) = victim.0.try_wait().context("look for the child")? {
        return Err(Failure::new("put in a child", format!("it ended by itself: {status}")));
    }
    Ok(())
}

/// The child: loads, says so, and puts for ever.
pub fn be_victim(args: &Args, run: Run) -> Result<()> {
    let Some(dir) = &args.dir else { return Err(Failure::new("load", "no directory is named")) };
    let size = args.size(run);
    let engine = run.engine.open(dir, room(size, args))?;
    load(&*engine, size, args.seed)?;
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{LOADED}").and_then(|()| stdout.flush()).context("say that all is loaded")?;
    drop(stdout);
    let turns = |thread| put_for_ever(&*engine, size, args.seed, thread, run.threads.into());
    std::thread::scope(|scope| {
        let turns = &turns;
        let handles: Vec<_> =
            (0..run.threads.into()).map(|thread| scope.spawn(move || turns(thread))).collect();
        let joined =
            handles.into_iter().map(|h| h.join().map_err(|_| Failure::new("put", "a thread panicked"))?);
        joined.collect()
    })
}

fn put_for_ever(engine: &dyn Engine, size: Size, seed: u64, thread: usize, threads: usize) -> Result<()> {
    let zipf = Zipf::new(1);
    let inserted = Inserted::new(size.records, threads);
    let shared = Shared {
        engine,
        workload: Workload::Put,
        size,
        threads: threads as u64,
        seed: seed.wrapping_add(1),
        zipf: &zipf,
        inserted: &inserted,
    };
    let mut worker = Worker::new(shared, thread);
    for step in 0.. {
        worker.step(step)?;
    }
    Ok(())
}
