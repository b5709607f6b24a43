//! Does the key-value store keep what it acknowledged, and how fast is it?
//!
//! A child, this program's own `kv put --stdin --ack`, puts records that this process names to it, each durable before it
//! is acknowledged, and is killed with SIGKILL in the middle. The database is opened again; every record that was
//! acknowledged is there, with the value that was sent; then the rest is put, and a small YCSB measures it.

use super::compare::Differences;
use super::place::{KV, Place};
use super::shown_seconds;
use crate::commands::{Encoding, encode};
use crate::failure::{Context, Failure, Result};
use crate::progress::Progress;
use crate::size::{counted, grouped};
use daxstore_kv_bench::draw::{Rng, Values, scattered};
use daxstore_kv_bench::engine::{Engine, Kind, Size};
use daxstore_kv_bench::run::{Latency, Limits, time};
use daxstore_kv_bench::workload::Workload;
use daxstore_kv_bench::{DATABASE, POOL, seconds};
use serde::Serialize;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

/// Bytes of each value.
const VALUE_BYTES: usize = 100;
/// Threads of the small YCSB.
const THREADS: usize = 2;
/// What it does at most of each workload.
const LIMITS: Limits = Limits { operations: 200_000, seconds: 2.0, seed: 7 };
const WORKLOADS: [Workload; 9] = [
    Workload::Put,
    Workload::Get,
    Workload::Scan,
    Workload::YcsbA,
    Workload::YcsbB,
    Workload::YcsbC,
    Workload::YcsbD,
    Workload::YcsbE,
    Workload::YcsbF,
];
const SEED: u64 = 1;

/// What the key-value store showed.
#[derive(Serialize, Default)]
pub struct Records {
    records: u64,
    acknowledged: u64,
    survived: u64,
    load_seconds: f64,
    open_seconds: f64,
    media_bytes: u64,
    logical_bytes: u64,
    workloads: Vec<Timing>,
    counts: Vec<(String, u64)>,
}

#[derive(Serialize)]
struct Timing {
    workload: String,
    threads: usize,
    operations: u64,
    per_second: f64,
    latency: Latency,
}

impl Records {
    /// For people.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![
            String::new(),
            format!(
                "records   SIGKILL after {} of {} puts were acknowledged in {}; opened in {}, {} are there",
                grouped(self.acknowledged),
                grouped(self.records),
                shown_seconds(self.load_seconds),
                shown_seconds(self.open_seconds),
                grouped(self.survived)
            ),
            format!(
                "          then all {}: {:.2} bytes of the medium for each byte of keys and values",
                counted(self.records, "record", "records"),
                self.media_bytes as f64 / self.logical_bytes.max(1) as f64
            ),
            format!("{:<10}{:>12}{:>12}{:>12}{:>12}", "", "ops/s", "p50", "p99", "p99.9"),
        ];
        lines.extend(self.workloads.iter().map(|timing| {
            let [p50, p99, p999] = [timing.latency.p50, timing.latency.p99, timing.latency.p999].map(seconds);
            let rate = grouped(timing.per_second as u64);
            format!("{:<10}{rate:>12}{p50:>12}{p99:>12}{p999:>12}", timing.workload)
        }));
        let counts = self.counts.iter().filter(|(_, n)| *n > 0).map(|(name, n)| format!("{name} {n}"));
        let counts: Vec<_> = counts.collect();
        if !counts.is_empty() {
            lines.push(format!("counts    {}", counts.join(", ")));
        }
        lines
    }
}

/// What was sent under an index: the same whenever it is asked for.
struct Sent(Values);

impl Sent {
    fn new() -> Self {
        Self(Values::new(VALUE_BYTES, SEED))
    }

    fn value(&mut self, index: u64) -> &[u8] {
        self.0.of(index, &mut Rng::new(SEED, index))
    }
}

/// Puts `records` records, kills, compares, measures.
pub fn run(place: &Place, records: u64, differences: &mut Differences, quiet: bool) -> Result<Records> {
    let mut report = Records { records, ..Records::default() };
    if records == 0 {
        return Ok(report);
    }
    let dir = place.dir().join(KV);
    std::fs::create_dir(&dir).context(|| String::from("make a directory"))?;
    // The inserts of the small YCSB need room too.
    let size = Size { records: records + 2 * LIMITS.operations, value_bytes: VALUE_BYTES };
    drop(open(&dir, size)?);
    report.acknowledged = kill_a_loader(&dir, &mut report, quiet)?;
    let begun = Instant::now();
    let engine = open(&dir, size)?;
    report.open_seconds = begun.elapsed().as_secs_f64();
    report.survived = survivors(&*engine, &report, differences)?;
    finish_load(&*engine, &report)?;
    let size = Size { records, ..size };
    (report.media_bytes, report.logical_bytes) = (engine.media_bytes().unwrap_or(0), size.logical(records));
    for workload in WORKLOADS {
        report.workloads.push(measure(&*engine, workload, size)?);
    }
    report.counts = engine.counters();
    Ok(report)
}

fn failure(error: daxstore_kv_bench::Failure) -> Failure {
    Failure::new("work with records", error.to_string(), "report this as a bug")
}

fn open(dir: &Path, size: Size) -> Result<Box<dyn Engine>> {
    Kind::Daxstore.open(dir, size).map_err(failure)
}

/// Kills and reaps the process whatever happens here.
struct Loader(Child);

impl Drop for Loader {
    fn drop(&mut self) {
        // It may have ended by itself, which is what is wanted here.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Lets a child put records until half of them are acknowledged, kills it, and tells how many were.
fn kill_a_loader(dir: &Path, report: &mut Records, quiet: bool) -> Result<u64> {
    let mut loader = Loader(spawn(dir)?);
    let (Some(input), Some(output)) = (loader.0.stdin.take(), loader.0.stdout.take()) else {
        return Err(Failure::new("start a loader", "it has no pipes", "report this as a bug"));
    };
    let records = report.records;
    let begun = Instant::now();
    let acknowledged = std::thread::scope(|scope| {
        // It ends with an error when the loader is killed: nobody reads any more.
        scope.spawn(move || send(input, records));
        count_until_killed(&mut loader, output, records, quiet)
    })?;
    report.load_seconds = begun.elapsed().as_secs_f64();
    Ok(acknowledged)
}

fn spawn(dir: &Path) -> Result<Child> {
    let what = || String::from("start a loader");
    let mut target = dir.join(POOL).into_os_string();
    target.push(":");
    target.push(DATABASE);
    Command::new(std::env::current_exe().context(what)?)
        .args(["--assume-persistent", "kv"])
        .arg(target)
        .args(["put", "--stdin", "--ack", "--encoding", "hex"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context(what)
}

fn send(input: ChildStdin, records: u64) -> std::io::Result<()> {
    let mut input = BufWriter::with_capacity(1 << 16, input);
    let mut sent = Sent::new();
    for index in 0..records {
        let key = encode(Encoding::Hex, &scattered(index));
        let value = encode(Encoding::Hex, sent.value(index));
        writeln!(input, "{key}\t{value}")?;
    }
    input.flush()
}

fn count_until_killed(loader: &mut Loader, output: ChildStdout, records: u64, quiet: bool) -> Result<u64> {
    let progress = Progress::spinner("putting", quiet);
    let mut output = BufReader::new(output);
    let mut acknowledged = 0;
    let mut key = Vec::new();
    let mut is_killed = false;
    loop {
        key.clear();
        let what = || String::from("read what the loader acknowledges");
        output.read_until(b'\n', &mut key).context(what)?;
        // What stands in the pipe was acknowledged before the kill, but for a key that was cut off.
        if key.pop() != Some(b'\n') {
            break;
        }
        if key != encode(Encoding::Hex, &scattered(acknowledged)).as_bytes() {
            return Err(Failure::new("load records", "another key was acknowledged", "report this as a bug"));
        }
        acknowledged += 1;
        progress.advance(1);
        if acknowledged >= records.div_ceil(2) && !is_killed {
            loader.0.kill().context(|| String::from("kill the loader"))?;
            is_killed = true;
        }
    }
    if is_killed {
        return Ok(acknowledged);
    }
    Err(Failure::new("load records", "the loader ended before it had done half", "see whether there is room"))
}

/// How many records are there; each that was acknowledged must be, with what was sent, and no other value.
fn survivors(engine: &dyn Engine, report: &Records, differences: &mut Differences) -> Result<u64> {
    let (mut sent, mut found, mut survived) = (Sent::new(), Vec::new(), 0);
    for index in 0..report.records {
        let there = engine.get(&scattered(index), &mut found).map_err(failure)?;
        survived += u64::from(there);
        let good = if there { found == sent.value(index) } else { index >= report.acknowledged };
        let what = if there { "has another value" } else { "was acknowledged and is lost" };
        differences.expect(good, || format!("record {index} {what}"));
    }
    Ok(survived)
}

fn finish_load(engine: &dyn Engine, report: &Records) -> Result<()> {
    let mut sent = Sent::new();
    for index in report.acknowledged..report.records {
        let value = sent.value(index);
        engine.put(&scattered(index), value).map_err(failure)?;
    }
    Ok(())
}

fn measure(engine: &dyn Engine, workload: Workload, size: Size) -> Result<Timing> {
    let timed = time(engine, workload, size, THREADS, LIMITS).map_err(failure)?;
    Ok(Timing {
        workload: workload.name(),
        threads: THREADS,
        operations: timed.operations,
        per_second: timed.operations as f64 / timed.seconds.max(1e-9),
        latency: Latency::from(&timed.times),
    })
}
