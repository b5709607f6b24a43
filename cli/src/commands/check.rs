//! Is everything on the media as it must be?

use crate::args::Check;
use crate::failure::{Context, Result};
use crate::names::{JsonName, shown};
use crate::output::{Output, Verdict};
use crate::pool::Opener;
use crate::progress::Progress;
use crate::size::counted;
use daxstore::check::{CheckReport, Fault as Found};
use serde::Serialize;

#[derive(Serialize)]
struct Report {
    pool: JsonName,
    clean: bool,
    files: u64,
    directories: u64,
    symlinks: u64,
    blocks: u64,
    faults: Vec<Fault>,
}

#[derive(Serialize)]
struct Fault {
    at: u64,
    what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    repair: Option<String>,
}

/// `check`: exit code 1 where a fault was found, repaired or not.
pub fn check(opener: Opener, args: &Check, output: &mut Output) -> Result<Verdict> {
    let progress = Progress::spinner("checking", output.json());
    let seen = |step: daxstore::check::Progress| progress.set(step.phase, step.done, step.total);
    let found = daxstore::check::check_path(&args.pool, args.repair, &opener.options(), &seen);
    drop(progress);
    let found = found.context(|| format!("check {}", shown(&args.pool)))?;
    print(args, &found, output)?;
    output.document(&report(args, &found))?;
    Ok(Verdict::faults_if(!found.faults.is_empty()))
}

fn print(args: &Check, found: &CheckReport, output: &mut Output) -> Result<()> {
    for fault in &found.faults {
        output.line(fault)?;
        if let Some(repair) = &fault.repair {
            output.line(format_args!("    {repair}"))?;
        }
    }
    let verdict = match (found.faults.len(), args.repair) {
        (0, _) => String::from("no faults"),
        (n, false) => {
            format!("{n} faults; `daxstore check --repair` fixes what can be fixed without guessing")
        }
        (n, true) => format!("{n} faults found"),
    };
    output.line(format_args!(
        "{}: {}, {}, {}, {}: {verdict}",
        shown(&args.pool),
        counted(found.files, "file", "files"),
        counted(found.dirs, "directory", "directories"),
        counted(found.symlinks, "symbolic link", "symbolic links"),
        counted(found.blocks, "block", "blocks"),
    ))
}

fn report(args: &Check, found: &CheckReport) -> Report {
    let fault = |fault: &Found| Fault {
        at: fault.at.0,
        what: fault.to_string(),
        repair: fault.repair.as_ref().map(ToString::to_string),
    };
    Report {
        pool: JsonName::new(&args.pool),
        clean: found.faults.is_empty(),
        files: found.files,
        directories: found.dirs,
        symlinks: found.symlinks,
        blocks: found.blocks,
        faults: found.faults.iter().map(fault).collect(),
    }
}
