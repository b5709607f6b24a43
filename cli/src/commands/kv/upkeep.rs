//! What is known of a database, and how is it kept in order?

use super::base::{Base, KvContext, both};
use crate::args::kv::{Backup, Target};
use crate::failure::{Context, Result};
use crate::names::{JsonName, shown};
use crate::output::{Output, Verdict};
use crate::pool::{Opener, close};
use crate::size::{counted, grouped, human};
use serde::Serialize;

#[derive(Serialize)]
struct Stats {
    records: u64,
    trees: u64,
    media_bytes: u64,
    file_bytes: u64,
}

/// `kv stats`.
pub fn stats(opener: Opener, target: &Target, output: &mut Output) -> Result<Verdict> {
    let base = Base::read(opener, target)?;
    let stats = measured(&base, target)?;
    let rows = [
        ("records", grouped(stats.records)),
        ("trees", format!("{}, with the one without a name", grouped(stats.trees))),
        ("used", format!("{} ({} bytes)", human(stats.media_bytes), grouped(stats.media_bytes))),
        ("file", format!("{} ({} bytes)", human(stats.file_bytes), grouped(stats.file_bytes))),
    ];
    for (name, value) in rows {
        output.line(format_args!("{name:<14} {value}"))?;
    }
    output.document(&stats)?;
    base.close()?;
    Ok(Verdict::Good)
}

fn measured(base: &Base<'_>, target: &Target) -> Result<Stats> {
    let stats = base.db.stats().kv(|| format!("measure {}", shown(&target.path)))?;
    let daxstore_kv::Stats { records, trees, media_bytes, file_bytes, .. } = stats;
    Ok(Stats { records, trees, media_bytes, file_bytes })
}

#[derive(Serialize)]
struct Verified {
    records: u64,
    faults: Vec<String>,
}

/// `kv verify`. The pages of the ordered indexes can be looked at only when what waits for them is in them, so the database
/// is opened for writing.
pub fn verify(opener: Opener, target: &Target, output: &mut Output) -> Result<Verdict> {
    let base = Base::write(opener, target, false)?;
    let report = base.db.verify().kv(|| format!("verify {}", shown(&target.path)))?;
    let verified =
        Verified { records: report.records, faults: report.faults.iter().map(ToString::to_string).collect() };
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
    let before = measured(&base, target)?.media_bytes;
    base.db.compact().kv(|| format!("compact {}", shown(&target.path)))?;
    let done = Compacted { before, after: measured(&base, target)?.media_bytes };
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
