//! The command-line tool of daxstore: what does the user want, and how did it go?
//!
//! Invariants:
//! 1. Results go to standard output, everything else (progress, warnings, errors) to standard error.
//! 2. With `--json` a command prints exactly one JSON document on standard output, and an error is one JSON
//!    document on standard error.
//! 3. Exit codes: 0 done, 1 refused or faults found, 2 not understood (clap's).
//! 4. A reader that closes the pipe ends the program without a message.

mod args;
mod commands;
mod demo;
mod failure;
mod names;
mod output;
mod picture;
mod pool;
mod progress;
mod size;
mod time;
mod transfer;

use clap::Parser;
use failure::Failure;
use output::Output;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = args::Args::parse();
    let json = args.json;
    let mut output = Output::new(json);
    let result = commands::run(args, &mut output).and_then(|verdict| output.finish().map(|()| verdict));
    match result {
        Ok(verdict) => verdict.exit_code(),
        Err(Failure::PipeClosed) => ExitCode::SUCCESS,
        Err(Failure::Refused(refusal)) => {
            refusal.report(json);
            ExitCode::from(1)
        }
    }
}
