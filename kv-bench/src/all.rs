//! Which runs are done, in which order, and what is said of them?
//!
//! Invariants:
//! 1. Each run has a process of its own, so that no engine's threads, caches or memory meet another's.
//! 2. Rounds are interleaved: all engines do a workload before any does it again, so that a machine that slows down slows
//!    all of them.

use crate::args::{Args, Run};
use crate::error::{Context, Failure, Result};
use crate::place::Place;
use crate::run::{Outcome, measure};
use crate::{plot, reopen, table};
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::{Command, Stdio};

/// Measures what `args` say and prints it.
///
/// # Errors
/// What an engine or the system says. What each run before the failing one gave is a line of standard error where that is no terminal.
pub fn main(args: &Args) -> Result<()> {
    let runs = args.runs();
    match runs[..] {
        [] => Err(Failure::new("measure", "no engine can do what is asked for")),
        [run] if args.victim => reopen::be_victim(args, run),
        [run] if args.rounds() == 1 => {
            let outcome = measure(args, run)?;
            print(args, std::slice::from_ref(&outcome))
        }
        _ => print(args, &several(args, &runs)?),
    }
}

fn print(args: &Args, outcomes: &[Outcome]) -> Result<()> {
    if let Some(path) = &args.plot {
        std::fs::write(path, plot::draw(outcomes)).context("write the plot")?;
    }
    let text = if args.json {
        serde_json::to_string_pretty(outcomes).context("write JSON")? + "\n"
    } else {
        table::table(outcomes)
    };
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).context("write standard output")
}

/// The medians of all rounds.
fn several(args: &Args, runs: &[Run]) -> Result<Vec<Outcome>> {
    let place = Place::new(args.dir.as_deref())?;
    let mut all: Vec<Vec<Outcome>> = runs.iter().map(|_| Vec::new()).collect();
    let rounds = args.rounds();
    for round in 1..=rounds {
        for (run, outcomes) in runs.iter().zip(&mut all) {
            note(&format!("round {round} of {rounds}: {}, {}", run.workload.name(), run.engine.name()));
            let mut outcome = in_a_process(args, *run, place.path())?;
            place.medium().clone_into(&mut outcome.medium);
            tell(&outcome);
            outcomes.push(outcome);
        }
    }
    note("");
    Ok(all.into_iter().filter_map(median).collect())
}

/// One line of progress for somebody who waits at a terminal.
fn note(text: &str) {
    let mut stderr = std::io::stderr().lock();
    if stderr.is_terminal() {
        // Nobody needs it if it can not be written.
        let _ = write!(stderr, "\r\x1b[K{text}").and_then(|()| stderr.flush());
    }
}

/// One line with what a run gave, for a log: who is interrupted has that.
fn tell(outcome: &Outcome) {
    let mut stderr = std::io::stderr().lock();
    if !stderr.is_terminal() {
        let Outcome { workload, engine, threads, value_size, .. } = outcome;
        let (figure, times) = (table::shown(table::figure(outcome)), outcome.latency);
        // Nobody needs it if it can not be written.
        let _ = writeln!(
            stderr,
            "{workload}, {engine}, {threads} threads, {value_size} bytes: {figure}; p99.9 {}",
            table::seconds(times.p999)
        );
    }
}

fn in_a_process(args: &Args, run: Run, dir: &Path) -> Result<Outcome> {
    let program = std::env::current_exe().context("find this program")?;
    let mut command = Command::new(program);
    command.args([
        "--json",
        "--runs",
        "1",
        "--engine",
        run.engine.name(),
        "--workload",
        &run.workload.name(),
    ]);
    command.args(["--records", &args.records.to_string(), "--value-size", &run.value_size.to_string()]);
    command.args(["--threads", &run.threads.to_string(), "--seed", &args.seed.to_string()]);
    command.args(["--seconds", &args.seconds.to_string()]).arg("--dir").arg(dir);
    if let Some(operations) = args.operations {
        command.args(["--operations", &operations.to_string()]);
    }
    let output = command.stdin(Stdio::null()).output().context("start a process")?;
    if !output.status.success() {
        let what = format!("{} of {}", run.workload.name(), run.engine.name());
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Failure::new(what, format!("{}: {said}", output.status)));
    }
    let outcomes: Vec<Outcome> = serde_json::from_slice(&output.stdout).context("read what a run printed")?;
    outcomes.into_iter().next().ok_or_else(|| Failure::new("read what a run printed", "it is empty"))
}

/// The outcome in the middle by time for each operation; of an even number the slower of the two.
fn median(mut outcomes: Vec<Outcome>) -> Option<Outcome> {
    let time = |outcome: &Outcome| outcome.seconds / outcome.operations.max(1) as f64;
    outcomes.sort_by(|a, b| time(a).total_cmp(&time(b)));
    let middle = outcomes.len() / 2;
    outcomes.into_iter().nth(middle)
}
