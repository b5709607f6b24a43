//! `cargo xtask TASK`: which task, and with which options?

use clap::{Parser, Subcommand};
use std::process::ExitCode;
use xtask::vm;

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", arg_required_else_help = true)]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Run scenarios on the persistent memory of a Debian kernel, in a virtual machine.
    Vm(vm::Options),
}

fn main() -> ExitCode {
    let Args { task: Task::Vm(options) } = Args::parse();
    match vm::run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::from(1)
        }
    }
}
