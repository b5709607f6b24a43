//! How is the key-value store measured beside others?
//!
//! By the program `kv-bench`, which is built with all of them; this one is not. It lies beside this program, or in the
//! search path, or cargo makes it where cargo runs this program in its workspace.

use crate::args::kv::Bench;
use crate::failure::{Context, Failure, Result};
use crate::output::{Output, Verdict};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

const PROGRAM: &str = "kv-bench";
const PACKAGE: &str = "daxstore-kv-bench";

/// `kv bench`.
pub fn bench(args: &Bench, output: &mut Output) -> Result<Verdict> {
    let mut command = program();
    command.args(&args.arguments);
    if output.json() {
        command.arg("--json");
    }
    match command.status() {
        Ok(status) => Ok(Verdict::faults_if(!status.success())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let advice = format!(
                "build it with `cargo build --release -p {PACKAGE}`, in the same directory as this program"
            );
            Err(Failure::new("measure", format!("there is no program {PROGRAM}"), advice))
        }
        error => error.context(|| format!("run {PROGRAM}")).map(|_| Verdict::Faults),
    }
}

fn program() -> Command {
    let in_workspace = std::env::var_os("CARGO").zip(std::env::var_os("CARGO_MANIFEST_DIR"));
    match (in_workspace, beside()) {
        (Some((cargo, manifest)), _) => by_cargo(cargo, manifest),
        (None, Some(path)) => Command::new(path),
        (None, None) => Command::new(PROGRAM),
    }
}

/// The program in this one's directory.
fn beside() -> Option<PathBuf> {
    let path = std::env::current_exe().ok()?.with_file_name(PROGRAM);
    path.is_file().then_some(path)
}

fn by_cargo(cargo: OsString, manifest: OsString) -> Command {
    let mut command = Command::new(cargo);
    let manifest = PathBuf::from(manifest).join("Cargo.toml");
    command.args(["run", "--quiet", "--release", "--package", PACKAGE, "--bin", PROGRAM, "--manifest-path"]);
    command.arg(manifest).arg("--");
    command
}
