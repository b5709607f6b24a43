//! Does the whole store hold on real input?
//!
//! A real tree goes into a pool; a second import, in another process, is killed with SIGKILL half way; the pool
//! is opened again, checked, mapped into memory, and exported; every byte and attribute is compared with the original.
//! Then a key-value database is loaded, killed, opened again, compared and measured.
//!
//! Killing a process is not losing power: what the processor has stored survives. Power loss is the simulated
//! device's business, in the crash tests; here the recovery of a real process's real leftovers is shown.
//!
//! Invariants:
//! 1. Any difference makes the exit code 1.
//! 2. Temporary files are removed on every way out but a signal.

mod baseline;
mod compare;
mod mapped;
mod place;
mod records;
mod table;
mod victim;

use crate::args::Demo;
use crate::failure::{Context, Failure, Result};
use crate::names::shown;
use crate::output::{Output, Verdict};
use crate::pool::Opener;
use crate::progress::Progress;
use crate::size::{counted, human};
use crate::time;
use crate::transfer::get::Get;
use crate::transfer::plan::{Limits, Plan};
use crate::transfer::put::Put;
use crate::transfer::report::{Naming, Reporter, Tally};
use compare::Differences;
use daxstore::Store;
use place::Place;
use std::path::{Path, PathBuf};
use std::time::Instant;
use table::{Report, Step};
use victim::Killed;

/// Where the first import goes.
const FIRST: &str = "/first";
/// Where the killed import goes.
const SECOND: &str = "/second";
/// The pool may be treated as persistent memory: it lives no longer than this process.
const OPENER: Opener = Opener { assume_persistent: true };

/// `demo`.
pub fn demo(args: &Demo, output: &mut Output) -> Result<Verdict> {
    let source = place::source(args.dir.as_deref())?;
    let plan = plan(args, &source, output)?;
    let place = Place::new(&plan)?;
    output.line(opening(&source, &plan, &place))?;
    let mut report = Report::new(&source, &plan, &place);
    report.steps.push(baseline::copy(&plan, &place)?);
    let store = Store::create(place.pool(), place.pool_bytes, &OPENER.options())
        .context(|| format!("make {}", shown(place.pool())))?;
    report.steps.push(import(&store, &plan, output)?);
    store.close().context(|| String::from("close the pool"))?;
    let killed = victim::run(args, &source, &place, plan.entries.len())?;
    let store = reopen(&place, &mut report)?;
    check(&store, &mut report)?;
    let mut differences = survivors(&store, &plan, &killed, &mut report, output)?;
    report.mapped = mapped::run(&store, &plan, &mut differences)?;
    report.steps.push(export(&store, &place, &mut differences, output)?);
    compare_export(&store, &plan, &place, &mut differences, output)?;
    store.close().context(|| String::from("close the pool"))?;
    report.records = records::run(&place, args.records, &mut differences, output.json())?;
    report.finish(differences, output)
}

/// What is imported: the tree, up to the limits. Reading all of it once brings it into the page cache, so that
/// every later step finds it there; what can not be read is left out.
fn plan(args: &Demo, source: &Path, output: &mut Output) -> Result<Plan> {
    let progress = Progress::spinner("reading", output.json());
    let mut reporter = Reporter::new(output, Naming::Silent, progress);
    let mut plan = Plan::new(Limits { files: args.max_files, bytes: args.max_bytes }, None);
    plan.add(source, Path::new(FIRST), &mut reporter)?;
    let mut readable = Vec::with_capacity(plan.entries.len());
    for entry in plan.entries.drain(..) {
        reporter.progress.advance(1);
        match compare::warm(&entry) {
            Ok(()) => readable.push(entry),
            Err(failure) => reporter.failed(failure)?,
        }
    }
    plan.entries = readable;
    if plan.entries.is_empty() {
        let cause = "there is nothing in it that can be read";
        return Err(Failure::new(format!("import {}", shown(source)), cause, "name another directory"));
    }
    Ok(plan)
}

fn opening(source: &Path, plan: &Plan, place: &Place) -> String {
    let extent = if plan.cut { "a part of it, by --max-files and --max-bytes" } else { "all of it" };
    format!(
        "source  {}: {}, {} ({extent})\npool    {}, {}, as persistent memory",
        shown(source),
        counted(plan.files, "file", "files"),
        human(plan.bytes),
        shown(place.pool()),
        human(place.pool_bytes)
    )
}

fn import(store: &Store, plan: &Plan, output: &mut Output) -> Result<Step> {
    let progress = Progress::bytes("importing", plan.bytes, output.json());
    let mut reporter = Reporter::new(output, Naming::Silent, progress);
    let (before, begun) = (store.counts(), Instant::now());
    Put::new(store, &mut reporter).run(plan)?;
    let seconds = begun.elapsed().as_secs_f64();
    let counts = store.counts().since(before);
    Ok(Step::new("import into the pool", &reporter.tally, seconds).counted(counts))
}

fn reopen(place: &Place, report: &mut Report) -> Result<Store> {
    let begun = Instant::now();
    let store = OPENER.write(place.pool())?;
    report.open_seconds = begun.elapsed().as_secs_f64();
    report.recovery = store.recovery().into();
    Ok(store)
}

fn check(store: &Store, report: &mut Report) -> Result<()> {
    let begun = Instant::now();
    let found = store.check().context(|| String::from("check the pool"))?;
    report.check_seconds = begun.elapsed().as_secs_f64();
    report.check_faults = found.faults.iter().map(ToString::to_string).collect();
    Ok(())
}

/// Everything that the killed import had acknowledged must be there, and every file that is there complete.
fn survivors(
    store: &Store,
    plan: &Plan,
    killed: &Killed,
    report: &mut Report,
    output: &mut Output,
) -> Result<Differences> {
    let progress = Progress::spinner("comparing", output.json());
    let mut differences = Differences::default();
    for entry in &plan.entries {
        let below = entry.dest.strip_prefix(FIRST).unwrap_or(&entry.dest);
        let there = place::join(Path::new(SECOND), below);
        let acknowledged = killed.acknowledged.contains(&there);
        let present = compare::survivor(store, entry, &there, acknowledged, &mut differences)?;
        report.survived += u64::from(present);
        progress.advance(1);
    }
    report.acknowledged = killed.acknowledged.len() as u64;
    report.killed_of = plan.entries.len() as u64;
    Ok(differences)
}

fn export(store: &Store, place: &Place, differences: &mut Differences, output: &mut Output) -> Result<Step> {
    let progress = Progress::spinner("exporting", output.json());
    let mut reporter = Reporter::new(output, Naming::Silent, progress);
    let begun = Instant::now();
    Get::new(store, place.dir(), &mut reporter)?.run(Path::new(FIRST), Path::new(place::EXPORT))?;
    let step = Step::new("export to the host", &reporter.tally, begun.elapsed().as_secs_f64());
    differences.xattrs_refused = reporter.tally.xattrs_skipped > 0;
    Ok(step)
}

fn compare_export(
    store: &Store,
    plan: &Plan,
    place: &Place,
    differences: &mut Differences,
    output: &mut Output,
) -> Result<()> {
    let progress = Progress::spinner("comparing", output.json());
    let root = place.dir().join(place::EXPORT);
    let mut links = compare::Links::default();
    for entry in &plan.entries {
        let below = entry.dest.strip_prefix(FIRST).unwrap_or(&entry.dest);
        let copy: PathBuf = place::join(&root, below);
        compare::exported(store, entry, &copy, &mut links, differences)?;
        progress.advance(1);
    }
    drop(progress);
    compare::nothing_more(plan, &root, differences, output)
}

impl Report {
    /// Prints all of it; the verdict is good only where nothing differs.
    fn finish(mut self, differences: Differences, output: &mut Output) -> Result<Verdict> {
        self.compared = differences.compared;
        self.differences = differences.found;
        for line in self.lines() {
            output.line(line)?;
        }
        output.document(&self)?;
        Ok(Verdict::faults_if(!self.differences.is_empty() || !self.check_faults.is_empty()))
    }
}

/// Nanoseconds of a number of seconds, shown for people.
fn shown_seconds(seconds: f64) -> String {
    time::duration((seconds * 1e9) as u64)
}

/// An empty tally with a given number of files and bytes, for steps that count nothing else.
fn tally_of(files: u64, bytes: u64, operations: u64) -> Tally {
    Tally { files, bytes, operations, ..Tally::default() }
}
