//! How are outcomes told in text?

use crate::run::Outcome;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Outcomes of one engine.
type Row<'o> = BTreeMap<&'o str, &'o Outcome>;

/// A group of outcomes that can be compared with one another.
pub struct Group<'o> {
    /// What they have in common.
    pub title: String,
    /// The engines, in the order of their first outcome.
    pub engines: Vec<&'o str>,
    /// Workloads in the order of their first outcome, and what each engine did.
    pub rows: Vec<(&'o str, Row<'o>)>,
}

/// The groups of `outcomes`.
pub fn groups(outcomes: &[Outcome]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for outcome in outcomes {
        let title = format!(
            "{} records, keys of 16 bytes, values of {} bytes, {} thread{}, on {}",
            outcome.records,
            outcome.value_size,
            outcome.threads,
            if outcome.threads == 1 { "" } else { "s" },
            outcome.medium
        );
        let at = groups.iter().position(|group| group.title == title).unwrap_or_else(|| {
            groups.push(Group { title, engines: Vec::new(), rows: Vec::new() });
            groups.len() - 1
        });
        groups[at].take(outcome);
    }
    groups
}

impl<'o> Group<'o> {
    fn take(&mut self, outcome: &'o Outcome) {
        if !self.engines.contains(&&*outcome.engine) {
            self.engines.push(&outcome.engine);
        }
        match self.rows.iter_mut().find(|(workload, _)| *workload == outcome.workload) {
            Some((_, row)) => drop(row.insert(&outcome.engine, outcome)),
            None => self.rows.push((&outcome.workload, Row::from([(&*outcome.engine, outcome)]))),
        }
    }
}

/// What counts of an outcome: more is better, but of `reopen`, where it is milliseconds.
pub fn figure(outcome: &Outcome) -> f64 {
    outcome.reopened.map_or(outcome.per_second / 1000.0, |reopened| reopened.open_seconds * 1000.0)
}

/// Which of a row is best.
pub fn best<'o>(row: &Row<'o>) -> Option<&'o str> {
    let reopened = row.values().any(|outcome| outcome.reopened.is_some());
    let better = |a: &&&Outcome, b: &&&Outcome| {
        let order = figure(a).total_cmp(&figure(b));
        if reopened { order.reverse() } else { order }
    };
    row.values().max_by(better).map(|outcome| &*outcome.engine)
}

/// A figure for people, with about three digits.
pub fn shown(figure: f64) -> String {
    match figure {
        f if f >= 100.0 => format!("{f:.0}"),
        f if f >= 10.0 => format!("{f:.1}"),
        f => format!("{f:.2}"),
    }
}

/// Nanoseconds for people.
pub fn seconds(nanos: u64) -> String {
    match nanos {
        n if n < 10_000 => format!("{n} ns"),
        n if n < 10_000_000 => format!("{:.1} us", n as f64 / 1e3),
        n => format!("{:.1} ms", n as f64 / 1e6),
    }
}

/// The outcomes as text, groups one below the other.
pub fn table(outcomes: &[Outcome]) -> String {
    let mut text = String::new();
    for group in groups(outcomes) {
        // Writing to a `String` does not fail.
        let _ = group_text(&mut text, &group);
    }
    let mut known = Vec::new();
    for outcome in outcomes {
        let line = (&outcome.engine, &outcome.configuration);
        if !known.contains(&line) {
            known.push(line);
            let _ = writeln!(text, "{:<14} {}", line.0, line.1);
        }
    }
    text
}

fn group_text(text: &mut String, group: &Group<'_>) -> std::fmt::Result {
    writeln!(text, "{}", group.title)?;
    let title = "thousand operations/s (records/s of loads and batches; reopen: ms), * the best";
    cells(text, title, group, |outcome, is_best| {
        Some(format!("{}{}", shown(figure(outcome)), if is_best { "*" } else { "" }))
    })?;
    let title = "p50 / p99 / p99.9 of one call (in brackets p99.9 of a loop as long that touches no memory)";
    cells(text, title, group, |outcome, _| {
        let (took, noise) = (outcome.latency, outcome.noise);
        let [a, b, c, d] = [took.p50, took.p99, took.p999, noise.p999].map(seconds);
        outcome.reopened.is_none().then(|| format!("{a} / {b} / {c} ({d})"))
    })?;
    let title = "bytes of the medium for each byte of keys and values, at the end";
    cells(text, title, group, |outcome, _| {
        (outcome.logical_bytes > 0).then(|| format!("{:.2}", outcome.amplification()))
    })?;
    counters(text, group)?;
    writeln!(text)
}

/// What engines counted, for each operation.
fn counters(text: &mut String, group: &Group<'_>) -> std::fmt::Result {
    for (workload, row) in &group.rows {
        for outcome in row.values().filter(|outcome| outcome.counters.iter().any(|(_, n)| *n > 0)) {
            let each = |n: u64| n as f64 / outcome.operations.max(1) as f64;
            let shown = outcome.counters.iter().filter(|(_, n)| *n > 0);
            let shown: Vec<_> = shown.map(|(name, n)| format!("{name} {n} ({:.3})", each(*n))).collect();
            writeln!(text, "{:<14} {}: {}", workload, outcome.engine, shown.join(", "))?;
        }
    }
    Ok(())
}

/// Prints a table with a column for each engine, each as wide as its widest cell; nothing where no cell has text.
fn cells<'o>(
    text: &mut String,
    title: &str,
    group: &Group<'o>,
    cell: impl Fn(&'o Outcome, bool) -> Option<String>,
) -> std::fmt::Result {
    let mut lines = vec![vec![String::new()]];
    lines[0].extend(group.engines.iter().map(|engine| String::from(*engine)));
    for (workload, row) in &group.rows {
        let first = best(row);
        let of = |engine: &&str| row.get(engine).and_then(|outcome| cell(outcome, first == Some(*engine)));
        let line: Vec<_> = group.engines.iter().map(of).collect();
        if line.iter().any(Option::is_some) {
            let line = line.into_iter().map(|cell| cell.unwrap_or_else(|| String::from("-")));
            lines.push([String::from(*workload)].into_iter().chain(line).collect());
        }
    }
    if lines.len() == 1 {
        return Ok(());
    }
    writeln!(text, "\n{title}")?;
    let width = |i: usize| lines.iter().map(|line| line[i].len()).max().unwrap_or(0);
    let widths: Vec<_> = (0..lines[0].len()).map(width).collect();
    for line in &lines {
        write!(text, "{:<w$}", line[0], w = widths[0])?;
        for (cell, w) in line.iter().zip(&widths).skip(1) {
            write!(text, "  {cell:>w$}")?;
        }
        writeln!(text)?;
    }
    Ok(())
}
