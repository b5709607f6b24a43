//! How is the demonstration told?

use super::mapped::Mapped;
use super::place::Place;
use super::records::Records;
use super::shown_seconds;
use crate::names::JsonName;
use crate::size::{counted, grouped, human};
use crate::transfer::plan::Plan;
use crate::transfer::report::Tally;
use daxstore::pmem::Counts;
use serde::Serialize;
use std::path::Path;

/// One timed piece of work.
#[derive(Serialize)]
pub struct Step {
    name: &'static str,
    files: u64,
    bytes: u64,
    seconds: f64,
    operations: u64,
    operations_per_second: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    fences_per_operation: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flushed_lines_per_operation: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    streamed_bytes: Option<u64>,
}

impl Step {
    /// A step that took `seconds`.
    pub fn new(name: &'static str, tally: &Tally, seconds: f64) -> Self {
        Self {
            name,
            files: tally.files + tally.symlinks + tally.hard_links,
            bytes: tally.bytes,
            seconds,
            operations: tally.operations,
            operations_per_second: tally.operations as f64 / seconds.max(1e-9),
            fences_per_operation: None,
            flushed_lines_per_operation: None,
            streamed_bytes: None,
        }
    }

    /// Adds what the work cost the medium.
    pub fn counted(mut self, counts: Counts) -> Self {
        let per_operation = |n: u64| Some(n as f64 / self.operations.max(1) as f64);
        self.fences_per_operation = per_operation(counts.fences);
        self.flushed_lines_per_operation = per_operation(counts.flushed_lines);
        self.streamed_bytes = Some(counts.nt_bytes);
        self
    }
}

/// What opening after the kill had to do.
#[derive(Serialize, Default)]
pub struct Recovery {
    records: u64,
    objects: u64,
    intents: u64,
    nanos: u64,
}

impl From<&daxstore::journal::Recovery> for Recovery {
    fn from(recovery: &daxstore::journal::Recovery) -> Self {
        Self {
            records: recovery.records,
            objects: recovery.objects,
            intents: recovery.intents,
            nanos: recovery.nanos,
        }
    }
}

/// Everything the demonstration found.
#[derive(Serialize)]
pub struct Report {
    source: JsonName,
    entries: usize,
    files: u64,
    bytes: u64,
    cut: bool,
    pool_bytes: u64,
    on_tmpfs: bool,
    /// The timed work.
    pub steps: Vec<Step>,
    /// Entries that the killed import had to copy.
    pub killed_of: u64,
    /// Entries that it acknowledged.
    pub acknowledged: u64,
    /// Entries that it left in the pool.
    pub survived: u64,
    /// Opening the pool after the kill, in all.
    pub open_seconds: f64,
    /// What recovery did.
    pub recovery: Recovery,
    /// Checking the pool.
    pub check_seconds: f64,
    /// What the check found.
    pub check_faults: Vec<String>,
    /// What mapping files showed.
    pub mapped: Mapped,
    /// What the key-value store showed.
    pub records: Records,
    /// Comparisons made.
    pub compared: u64,
    /// What differs.
    pub differences: Vec<String>,
}

impl Report {
    /// Nothing done yet.
    pub fn new(source: &Path, plan: &Plan, place: &Place) -> Self {
        Self {
            source: JsonName::new(source),
            entries: plan.entries.len(),
            files: plan.files,
            bytes: plan.bytes,
            cut: plan.cut,
            pool_bytes: place.pool_bytes,
            on_tmpfs: place.tmpfs,
            steps: Vec::new(),
            killed_of: 0,
            acknowledged: 0,
            survived: 0,
            open_seconds: 0.0,
            recovery: Recovery::default(),
            check_seconds: 0.0,
            check_faults: Vec::new(),
            mapped: Mapped::default(),
            records: Records::default(),
            compared: 0,
            differences: Vec::new(),
        }
    }

    /// The table and the verdict.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![String::new(), heading()];
        let base = self.steps.first().map_or(0.0, |step| step.seconds);
        lines.extend(self.steps.iter().map(|step| row(step, base)));
        lines.push(String::new());
        lines.push(format!(
            "kill      SIGKILL after {} of {} entries were acknowledged; {} are there",
            grouped(self.acknowledged),
            grouped(self.killed_of),
            grouped(self.survived)
        ));
        lines.push(format!(
            "recovery  {} to open, {} of it recovery: {}, {}, {}",
            shown_seconds(self.open_seconds),
            crate::time::duration(self.recovery.nanos),
            counted(self.recovery.records, "record", "records"),
            counted(self.recovery.objects, "object", "objects"),
            counted(self.recovery.intents, "intent", "intents")
        ));
        lines.push(format!(
            "check     {}: {}",
            shown_seconds(self.check_seconds),
            counted(self.check_faults.len() as u64, "fault", "faults")
        ));
        lines.extend(self.mapped.lines());
        lines.push(format!(
            "compare   {} comparisons of content, mode, owner, time, links, targets, attributes and holes: {}",
            grouped(self.compared),
            counted(self.differences.len() as u64, "difference", "differences")
        ));
        lines.extend(self.check_faults.iter().chain(&self.differences).map(|text| format!("  {text}")));
        lines.extend(self.records.lines());
        lines.push(String::new());
        lines.push(self.verdict());
        lines
    }

    fn verdict(&self) -> String {
        let good = self.differences.is_empty() && self.check_faults.is_empty();
        let text =
            if good { "all that was acknowledged is there, and all is the same" } else { "NOT the same" };
        format!("verdict   {text}")
    }
}

fn heading() -> String {
    format!(
        "{:<26}{:>9}{:>12}{:>11}{:>11}{:>11}{:>11}{:>10}",
        "step", "files", "bytes", "time", "ops/s", "fences/op", "lines/op", "vs host"
    )
}

fn row(step: &Step, base: f64) -> String {
    let ratio = |n: Option<f64>| n.map_or_else(|| String::from("-"), |n| format!("{n:.2}"));
    let against = if base > 0.0 { format!("{:.2}x", step.seconds / base) } else { String::from("-") };
    format!(
        "{:<26}{:>9}{:>12}{:>11}{:>11}{:>11}{:>11}{:>10}",
        step.name,
        grouped(step.files),
        human(step.bytes),
        shown_seconds(step.seconds),
        grouped(step.operations_per_second as u64),
        ratio(step.fences_per_operation),
        ratio(step.flushed_lines_per_operation),
        against
    )
}
