//! How do `put` and `get` find their sources and destinations?

use super::names::{is_directory, several_need_a_directory};
use crate::args::Transfer;
use crate::failure::{Context, Failure, Result};
use crate::names::{JsonName, shown};
use crate::output::{Output, Verdict};
use crate::pool::{Opener, close};
use crate::progress::Progress;
use crate::size::{counted, human};
use crate::time;
use crate::transfer::get::Get;
use crate::transfer::landing;
use crate::transfer::plan::{Limits, Plan};
use crate::transfer::put::Put;
use crate::transfer::report::{Naming, Reporter, Tally, Trouble};
use daxstore::Store;
use serde::Serialize;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

#[derive(Serialize)]
struct Done<'a> {
    destination: JsonName,
    #[serde(flatten)]
    tally: &'a Tally,
    seconds: f64,
    #[serde(flatten)]
    trouble: &'a Trouble,
}

/// `put`.
pub fn put(opener: Opener, args: &Transfer, output: &mut Output) -> Result<Verdict> {
    let (dest, sources) = split(args)?;
    let begun = Instant::now();
    let store = opener.write(&args.pool)?;
    let into = is_directory(&store, dest)?;
    if sources.len() > 1 && !into {
        return Err(several_need_a_directory("put into", dest));
    }
    let mut reporter = Reporter::new(output, naming(args), Progress::hidden());
    let plan = plan(args, sources, dest, into, &mut reporter)?;
    reporter.progress = Progress::bytes("copying in", plan.bytes, reporter.json());
    Put::new(&store, &mut reporter).run(&plan)?;
    let Reporter { progress, tally, trouble, .. } = reporter;
    drop(progress);
    close(store, &args.pool)?;
    finish(args, dest, &tally, &trouble, begun, output)
}

fn plan(
    args: &Transfer,
    sources: &[PathBuf],
    dest: &Path,
    into: bool,
    reporter: &mut Reporter<'_>,
) -> Result<Plan> {
    let limits = Limits {
        files: args.max_files.unwrap_or(Limits::NONE.files),
        bytes: args.max_bytes.unwrap_or(Limits::NONE.bytes),
    };
    let pool = std::fs::metadata(&args.pool).context(|| format!("read {}", shown(&args.pool)))?;
    let mut plan = Plan::new(limits, Some((pool.dev(), pool.ino())));
    for source in sources {
        plan.add(source, &landing(source, dest, into), reporter)?;
    }
    Ok(plan)
}

/// `get`.
pub fn get(opener: Opener, args: &Transfer, output: &mut Output) -> Result<Verdict> {
    let (dest, sources) = split(args)?;
    let begun = Instant::now();
    let store = opener.read(&args.pool)?;
    let into = dest.is_dir();
    if sources.len() > 1 && !into {
        return Err(Failure::new(
            format!("get into {}", shown(dest)),
            "several sources need a directory, and this is none",
            "make it first with `mkdir`, or name one source",
        ));
    }
    let progress = Progress::spinner("copying out", output.json());
    let mut reporter = Reporter::new(output, naming(args), progress);
    for source in sources {
        if let Err(failure) = get_one(&store, source, &landing(source, dest, into), into, &mut reporter) {
            reporter.failed(failure)?;
        }
    }
    let Reporter { progress, tally, trouble, .. } = reporter;
    drop(progress);
    finish(args, dest, &tally, &trouble, begun, output)
}

/// Copies `source` to `target`, whose parent is the directory that nothing may escape from.
fn get_one(
    store: &Store,
    source: &Path,
    target: &Path,
    into: bool,
    reporter: &mut Reporter<'_>,
) -> Result<()> {
    match target.file_name() {
        Some(name) if !into || source.file_name().is_some() => {
            let parent = target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            Get::new(store, parent, reporter)?.run(source, Path::new(name))
        }
        _ => Get::new(store, target, reporter)?.run(source, Path::new("")),
    }
}

fn split(args: &Transfer) -> Result<(&PathBuf, &[PathBuf])> {
    let missing = || Failure::new("copy", "there is no destination", "name one after the sources");
    args.paths.split_last().ok_or_else(missing)
}

fn naming(args: &Transfer) -> Naming {
    match (args.verbose, args.null) {
        (false, _) => Naming::Silent,
        (true, false) => Naming::Lines,
        (true, true) => Naming::Nul,
    }
}

fn finish(
    args: &Transfer,
    dest: &Path,
    tally: &Tally,
    trouble: &Trouble,
    begun: Instant,
    output: &mut Output,
) -> Result<Verdict> {
    let elapsed = begun.elapsed();
    if !args.verbose {
        output.line(summary(dest, tally, u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)))?;
    }
    let seconds = elapsed.as_secs_f64();
    output.document(&Done { destination: JsonName::new(dest), tally, seconds, trouble })?;
    Ok(Verdict::faults_if(!trouble.errors.is_empty()))
}

fn summary(dest: &Path, tally: &Tally, nanos: u64) -> String {
    let mut text = format!(
        "{}: {}, {}, {}, {}, {} in {}",
        shown(dest),
        counted(tally.files, "file", "files"),
        counted(tally.directories, "directory", "directories"),
        counted(tally.symlinks, "symbolic link", "symbolic links"),
        counted(tally.hard_links, "hard link", "hard links"),
        human(tally.bytes),
        time::duration(nanos)
    );
    if tally.special_skipped > 0 {
        text.push_str(&format!(
            "; {} left out",
            counted(tally.special_skipped, "special file", "special files")
        ));
    }
    if tally.xattrs_skipped > 0 {
        text.push_str(&format!(
            "; {} left out",
            counted(tally.xattrs_skipped, "extended attribute", "extended attributes")
        ));
    }
    text
}
