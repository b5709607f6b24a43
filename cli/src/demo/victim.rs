//! What had an import finished when it was killed?
//!
//! The victim is this program's own `put`, in a process of its own; it names each file on its standard output
//! when it is durable.

use super::place::Place;
use super::{FIRST, SECOND};
use crate::args::Demo;
use crate::failure::{Context, Failure, Result};
use std::collections::HashSet;
use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Where the victim's messages go, in the working directory.
const MESSAGES: &str = "messages";

/// What is known of the import that was killed.
pub struct Killed {
    /// Paths in the pool that it had acknowledged.
    pub acknowledged: HashSet<PathBuf>,
}

/// Kills and reaps the process whatever happens here.
struct Victim(Child);

impl Drop for Victim {
    fn drop(&mut self) {
        // It may have ended by itself, which is what is wanted here.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Imports the source again and kills the import when half of `entries` are acknowledged.
pub fn run(args: &Demo, source: &Path, place: &Place, entries: usize) -> Result<Killed> {
    let mut victim = Victim(spawn(args, source, place)?);
    let Some(output) = victim.0.stdout.take() else {
        return Err(Failure::new("start an import", "it has no standard output", "report this as a bug"));
    };
    let mut output = BufReader::new(output);
    let mut acknowledged = HashSet::new();
    while acknowledged.len() < entries.div_ceil(2) {
        let what = || String::from("read what the import acknowledges");
        let Some(path) = next_name(&mut output).context(what)? else { return Err(ended_early(place)) };
        acknowledged.insert(path);
    }
    std::thread::sleep(a_moment());
    victim.0.kill().context(|| String::from("kill the import"))?;
    // What stands in the pipe was acknowledged before the kill.
    while let Some(path) = next_name(&mut output).context(|| String::from("read the rest"))? {
        acknowledged.insert(path);
    }
    Ok(Killed { acknowledged })
}

/// Up to 2 ms by the clock's last digits: right after an acknowledgement the victim would always be between two files.
fn a_moment() -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.subsec_nanos());
    Duration::from_micros(u64::from(now % 2000))
}

fn spawn(args: &Demo, source: &Path, place: &Place) -> Result<Child> {
    let program = std::env::current_exe().context(|| String::from("find this program"))?;
    // A file, since a pipe that nobody reads would stop it.
    let messages =
        std::fs::File::create(place.dir().join(MESSAGES)).context(|| String::from("start an import"))?;
    Command::new(program)
        .args(["--assume-persistent", "put", "--verbose", "--null"])
        .arg(format!("--max-files={}", args.max_files))
        .arg(format!("--max-bytes={}", args.max_bytes))
        .arg("--")
        .arg(place.pool())
        .arg(source)
        .arg(SECOND)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(messages)
        .spawn()
        .context(|| String::from("start an import"))
}

/// The next whole name; one that the kill cut off was not acknowledged.
fn next_name(output: &mut impl BufRead) -> std::io::Result<Option<PathBuf>> {
    let mut name = Vec::new();
    output.read_until(0, &mut name)?;
    Ok((name.pop() == Some(0)).then(|| PathBuf::from(OsString::from_vec(name))))
}

fn ended_early(place: &Place) -> Failure {
    // What can not be read is not told.
    let said = std::fs::read_to_string(place.dir().join(MESSAGES)).unwrap_or_default();
    let cause = match said.trim() {
        "" => String::from("it ended before it had done half"),
        said => format!("it ended before it had done half, saying: {said}"),
    };
    Failure::new(format!("import into {SECOND} after {FIRST}"), cause, "try a larger tree")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_was_cut_off_does_not_count() {
        let mut output = &b"/a\0/b\nc\0/cut"[..];
        assert_eq!(next_name(&mut output).unwrap(), Some(PathBuf::from("/a")));
        assert_eq!(next_name(&mut output).unwrap(), Some(PathBuf::from("/b\nc")));
        assert_eq!(next_name(&mut output).unwrap(), None);
    }
}
