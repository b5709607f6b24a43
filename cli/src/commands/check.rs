//! Is everything on the media as it must be?

use crate::args::Check;
use crate::failure::{Context, Result};
use crate::names::{JsonName, shown};
use crate::output::{Output, Verdict};
use crate::pool::Opener;
use crate::progress::Progress;
use crate::size::counted;
use daxstore::{CheckReport, Error, Fault, Phase, Progress as Progressed, Repair, check_path};
use serde::Serialize;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

#[derive(Serialize)]
struct Report<'a> {
    pool: JsonName,
    clean: bool,
    files: u64,
    directories: u64,
    symlinks: u64,
    extents: u64,
    xattrs: u64,
    nodes: u64,
    blocks_used: u64,
    blocks_arena: u64,
    blocks_unwritten: u64,
    blocks_shared: u64,
    intents: u64,
    faults: Vec<JsonFault<'a>>,
    lost: Vec<&'a str>,
}

/// `at` is the pool offset in bytes; `repair` is `mended`, `lost` or `left`, with `detail` for the latter two.
#[derive(Serialize)]
struct JsonFault<'a> {
    kind: String,
    at: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    ino: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<JsonName>,
    what: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    repair: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
}

impl<'a> JsonFault<'a> {
    fn new(fault: &'a Fault) -> Self {
        let (repair, detail) = match &fault.outcome {
            None => (None, None),
            Some(Repair::Mended) => (Some("mended"), None),
            Some(Repair::Lost(what)) => (Some("lost"), Some(what.as_str())),
            Some(Repair::Left(why)) => (Some("left"), Some(why.as_str())),
        };
        Self {
            kind: fault.kind.to_string(),
            at: fault.at.0,
            ino: fault.ino.map(|ino| ino.0),
            path: fault.path.clone().map(|path| JsonName::new(OsString::from_vec(path))),
            what: &fault.what,
            repair,
            detail,
        }
    }
}

/// `check`: exit code 1 where a fault was found, repaired or not.
pub fn check(opener: Opener, args: &Check, output: &mut Output) -> Result<Verdict> {
    let progress = Progress::spinner("checking", output.json());
    let seen = |step: Progressed| progress.set(phase(step.phase), step.done, step.total);
    let found = run(opener, args, &seen);
    drop(progress);
    let found = found.context(|| format!("check {}", shown(&args.pool)))?;
    for fault in &found.faults {
        output.line(fault)?;
    }
    output.line(summary(args, &found))?;
    output.document(&report(args, &found))?;
    Ok(Verdict::faults_if(!found.is_clean()))
}

/// A check without repair changes nothing, but a pool that was not closed is recovered before.
fn run(opener: Opener, args: &Check, seen: &dyn Fn(Progressed)) -> daxstore::Result<CheckReport> {
    let options = opener.options();
    match check_path(&args.pool, args.repair, &options.clone().read_only(!args.repair), seen) {
        Err(Error::NeedsRecovery) => check_path(&args.pool, args.repair, &options, seen),
        checked => checked,
    }
}

fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Space => "space",
        Phase::Files => "files",
        Phase::Directories => "directories",
        Phase::Repair => "repair",
    }
}

fn summary(args: &Check, found: &CheckReport) -> String {
    let verdict = match (found.faults.len(), args.repair) {
        (0, _) => String::from("no faults"),
        (n, true) => counted(n as u64, "fault", "faults"),
        (n, false) => {
            let faults = counted(n as u64, "fault", "faults");
            format!("{faults}; `daxstore check --repair` fixes what can be fixed without guessing")
        }
    };
    format!(
        "{}: {}, {}, {}, {}: {verdict}",
        shown(&args.pool),
        counted(found.files, "file", "files"),
        counted(found.directories, "directory", "directories"),
        counted(found.symlinks, "symbolic link", "symbolic links"),
        counted(found.blocks_used, "block", "blocks"),
    )
}

fn report<'a>(args: &Check, found: &'a CheckReport) -> Report<'a> {
    Report {
        pool: JsonName::new(&args.pool),
        clean: found.is_clean(),
        files: found.files,
        directories: found.directories,
        symlinks: found.symlinks,
        extents: found.extents,
        xattrs: found.xattrs,
        nodes: found.nodes,
        blocks_used: found.blocks_used,
        blocks_arena: found.blocks_arena,
        blocks_unwritten: found.blocks_unwritten,
        blocks_shared: found.blocks_shared,
        intents: found.intents,
        faults: found.faults.iter().map(JsonFault::new).collect(),
        lost: found.lost().collect(),
    }
}
