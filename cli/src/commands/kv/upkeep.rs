//! What is known of a database, and how is it kept in order?

use super::base::{Base, KvContext, both};
use crate::args::kv::{Backup, Target, Verify};
use crate::failure::{Context, Result};
use crate::names::{JsonName, shown};
use crate::output::{Output, Verdict};
use crate::pool::{Opener, close};
use crate::size::{counted, grouped, human};
use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Serialize)]
struct Stats {
    records: u64,
    trees: u64,
    logical_bytes: Option<u64>,
    media_bytes: u64,
    file_bytes: u64,
    space: BTreeMap<&'static str, u64>,
    sessions: u64,
    fences: u64,
    flushed_lines: u64,
    streamed_bytes: u64,
    faults: BTreeMap<String, u64>,
    huge: bool,
    not_huge: Option<String>,
}

/// `kv stats`. Reads every record for their bytes, and touches all of the file for how it is mapped.
pub fn stats(opener: Opener, target: &Target, output: &mut Output) -> Result<Verdict> {
    let base = Base::read(opener, target)?;
    let stats = measured(&base, target)?;
    let mut rows = vec![
        ("records", grouped(stats.records)),
        ("trees", format!("{}, with the one without a name", grouped(stats.trees))),
    ];
    if let Some(logical) = stats.logical_bytes {
        let each = stats.media_bytes as f64 / logical.max(1) as f64;
        rows.push(("keys, values", format!("{}; {each:.2} bytes are used for each", bytes(logical))));
    }
    rows.extend([("used", bytes(stats.media_bytes)), ("file", bytes(stats.file_bytes))]);
    rows.push(("sessions", grouped(stats.sessions)));
    rows.push(("fences", grouped(stats.fences)));
    rows.push(("flushed lines", grouped(stats.flushed_lines)));
    rows.push(("2 MiB", stats.not_huge.clone().unwrap_or_else(|| "each by one translation".to_owned())));
    for (name, value) in rows {
        output.line(format_args!("{name:<14} {value}"))?;
    }
    for (heading, counts) in [("space", names(&stats.space)), ("faults", names(&stats.faults))] {
        output.line(format_args!("{heading}:"))?;
        for (name, count) in counts.iter().filter(|(_, count)| *count > 0) {
            output.line(format_args!("  {name:<30} {:>16}", grouped(*count)))?;
        }
    }
    output.document(&stats)?;
    base.close()?;
    Ok(Verdict::Good)
}

fn bytes(count: u64) -> String {
    format!("{} ({} bytes)", human(count), grouped(count))
}

fn names<N: ToString>(counts: &BTreeMap<N, u64>) -> Vec<(String, u64)> {
    counts.iter().map(|(name, count)| (name.to_string(), *count)).collect()
}

fn measured(base: &Base<'_>, target: &Target) -> Result<Stats> {
    let what = || format!("measure {}", shown(&target.path));
    let stats = base.db.stats().kv(what)?;
    let daxstore_kv::Stats { records, trees, media_bytes, file_bytes, space, sessions, work, .. } = stats;
    // Where records are damaged, nobody knows their bytes; `verify` tells which.
    let logical_bytes = base.db.logical_bytes().ok();
    let huge = base.db.require_huge();
    let work = work.unwrap_or_default();
    let name = |row: daxstore_fault::Row| match row.group {
        Some(group) => format!("{group}.{}", row.name),
        None => row.name.to_owned(),
    };
    Ok(Stats {
        records,
        trees,
        logical_bytes,
        media_bytes,
        file_bytes,
        space: space.parts().into_iter().collect(),
        sessions,
        fences: work.fences,
        flushed_lines: work.lines,
        streamed_bytes: work.through,
        faults: base.db.faults().rows().map(|row| (name(row), row.n)).collect(),
        huge: huge.is_ok(),
        not_huge: huge.err().map(|why| why.to_string()),
    })
}

#[derive(Serialize)]
struct Verified {
    records: u64,
    rebuilt: u64,
    faults: Vec<String>,
}

/// `kv verify`. The pages of the ordered indexes can be looked at only when what waits for them is in them, so the database
/// is opened for writing.
pub fn verify(opener: Opener, target: &Target, args: &Verify, output: &mut Output) -> Result<Verdict> {
    let base = match args.repair {
        true => Base::repaired(opener, target)?,
        false => Base::write(opener, target, false)?,
    };
    let rebuilt = base.db.recovery().rebuilt;
    let report = base.db.verify().kv(|| format!("verify {}", shown(&target.path)))?;
    let faults = report.faults.iter().map(ToString::to_string).collect();
    let verified = Verified { records: report.records, rebuilt, faults };
    if rebuilt > 0 {
        output.line(format_args!("built the order of {} anew", counted(rebuilt, "tree", "trees")))?;
    }
    let faults = match verified.faults.len() {
        0 => String::from("no faults"),
        n => counted(n as u64, "fault", "faults"),
    };
    let records = counted(verified.records, "record", "records");
    output.line(format_args!("{}: {records}: {faults}", both(&target.pool, &target.path)))?;
    for fault in &verified.faults {
        output.line(format_args!("  {fault}"))?;
    }
    output.document(&verified)?;
    base.close()?;
    Ok(Verdict::faults_if(!verified.faults.is_empty()))
}

#[derive(Serialize)]
struct Compacted {
    before: u64,
    after: u64,
}

/// `kv compact`.
pub fn compact(opener: Opener, target: &Target, output: &mut Output) -> Result<Verdict> {
    let base = Base::write(opener, target, false)?;
    let what = || format!("compact {}", shown(&target.path));
    let used = || Ok(base.db.stats().kv(what)?.media_bytes);
    let before = used()?;
    base.db.compact().kv(what)?;
    let done = Compacted { before, after: used()? };
    output.line(format_args!(
        "{}: {}, was {}",
        both(&target.pool, &target.path),
        human(done.after),
        human(done.before)
    ))?;
    output.document(&done)?;
    base.close()?;
    Ok(Verdict::Good)
}

#[derive(Serialize)]
struct BackedUp {
    pool: JsonName,
    path: JsonName,
}

/// `kv backup`.
pub fn backup(opener: Opener, target: &Target, args: &Backup, output: &mut Output) -> Result<Verdict> {
    let what = || format!("back up to {}", both(&args.to.pool, &args.to.path));
    let same = same_file(&args.to.pool, &target.pool).context(what)?;
    let base = if same { Base::write(opener, target, false)? } else { Base::read(opener, target)? };
    if same {
        base.db.backup(&base.store, &args.to.path).kv(what)?;
    } else {
        let other = opener.write(&args.to.pool)?;
        base.db.backup(&other, &args.to.path).kv(what)?;
        close(other, &args.to.pool)?;
    }
    base.close()?;
    output.line(format_args!(
        "{}: a copy of {}",
        both(&args.to.pool, &args.to.path),
        both(&target.pool, &target.path)
    ))?;
    output.document(&BackedUp { pool: JsonName::new(&args.to.pool), path: JsonName::new(&args.to.path) })?;
    Ok(Verdict::Good)
}

fn same_file(a: &std::path::Path, b: &std::path::Path) -> std::io::Result<bool> {
    Ok(a.canonicalize()? == b.canonicalize()?)
}
