//! How does a test see a process die?
//!
//! It runs itself again, alone, in a process of its own, told by an environment variable to do what kills it.

use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

const MARK: &str = "DAXSTORE_FAULT_CHILD";
const PATIENCE: Duration = Duration::from_secs(30);

/// What became of a process.
#[derive(Debug)]
pub(super) struct End {
    pub(super) status: ExitStatus,
    pub(super) errors: String,
}

impl End {
    /// The signal it died of.
    pub(super) fn signal(&self) -> Option<i32> {
        std::os::unix::process::ExitStatusExt::signal(&self.status)
    }
}

/// Runs the test `name` (its path in the crate) again with `what` to do, and waits for its end. In that process it
/// runs `body` with `what`, and does not return.
pub(super) fn run(name: &str, what: &str, body: impl Fn(&str)) -> End {
    if let Ok(what) = std::env::var(MARK) {
        body(&what);
        std::process::exit(0);
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]).env(MARK, what);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begun.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("{name} {what} hangs");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output().unwrap();
    End { status: output.status, errors: String::from_utf8_lossy(&output.stderr).into_owned() }
}
