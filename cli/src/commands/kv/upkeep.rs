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
}

/// `kv stats`.
pub fn stats(opener: Opener, target: &Target, output: &mut Output) -> Result<Verdict> {
    let base = Base::read(opener, target)?;
    let stats = base.db.stats();
    let stats = Stats { records: stats.records };
    output.line(format_args!("records {}", grouped(stats.records)))?;
    output.document(&stats)?;
    base.close()?;
    Ok(Verdict::Good)
}

#[derive(Serialize)]
struct Verified {
    records: u64,
    faults: Vec<String>,
}

/// `kv verify`.
pub fn verify(opener: Opener, target: &Target, output: &mut Output) -> Result<Verdict> {
    let base = Base::read(opener, target)?;
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
    let bytes = || base.db.stats().media_bytes;
    let before = bytes();
    base.db.compact().kv(|| format!("compact {}", shown(&target.path)))?;
    let done = Compacted { before, after: bytes() };
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
