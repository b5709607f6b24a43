//! Do the scenarios hold, in a short form, where a virtual machine can be had?
//!
//! Without libtest, which would hide why nothing was run. Nothing is installed from here: `cargo xtask vm` does that.

use std::process::ExitCode;
use xtask::vm::{self, Backend, Options};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.iter().any(|arg| arg == "--list") {
        return ExitCode::SUCCESS;
    }
    if args.iter().any(|arg| !arg.starts_with('-') && arg != "vm") {
        println!("vm: skipped: other tests were asked for by name");
        return ExitCode::SUCCESS;
    }
    if let Some(why) = vm::unavailable() {
        println!("vm: skipped: {why}; `cargo xtask vm`, as root, installs it");
        return ExitCode::SUCCESS;
    }
    let scenario = ["tree", "detect", "grow", "misaligned", "powercut"].map(String::from).to_vec();
    let backend = vec![Backend::Xfs, Backend::Devdax2m];
    let options =
        Options { scenario, backend, list: false, cuts: 2, seed: 7, keep: false, accel: None, plant: None };
    match vm::run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("vm: {error}");
            ExitCode::FAILURE
        }
    }
}
