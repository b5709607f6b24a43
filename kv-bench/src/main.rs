//! The program of the crate: measures what its arguments say.

use clap::Parser;
use daxstore_kv_bench::{Args, main as run};
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("kv-bench: {failure}");
            ExitCode::from(1)
        }
    }
}
