//! Which translations did the kernel install?
//!
//! For a file system with DAX its own trace events tell; for a device there are none, so its faults are counted.

use crate::Result;
use std::fs;
use std::path::Path;

const TRACING: &str = "/sys/kernel/tracing";

/// Faults that the kernel took while something was done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Faults {
    /// By the events: of 2 MiB installed, of 2 MiB given up, of 4 KiB. `None` for a device.
    pub events: Option<(u64, u64, u64)>,
    /// Of this thread, of any kind.
    pub taken: u64,
}

impl std::fmt::Display for Faults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.events {
            Some((pmd, 0, pte)) => write!(f, "{pmd} PMD, {pte} PTE"),
            Some((pmd, up, pte)) => write!(f, "{pmd} PMD, {up} given up, {pte} PTE"),
            None => write!(f, "{} faults", self.taken),
        }
    }
}

fn taken() -> Result<u64> {
    let stat = fs::read_to_string("/proc/thread-self/stat")?;
    // The name may hold blanks; the fields after it are counted from the third.
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let count = |at| -> Result<u64> {
        Ok(fields.split_ascii_whitespace().nth(at).ok_or("no field for faults")?.parse()?)
    };
    // One that userfaultfd answered is called major.
    Ok(count(7)? + count(9)?)
}

/// What `body` gives, and the faults that it took.
pub fn faults<T>(is_device: bool, body: impl FnOnce() -> Result<T>) -> Result<(T, Faults)> {
    let path = |name| Path::new(TRACING).join(name);
    if !is_device {
        fs::write(path("events/fs_dax/enable"), "1")?;
        fs::write(path("trace"), "")?;
        fs::write(path("tracing_on"), "1")?;
    }
    let before = taken()?;
    let done = body()?;
    let taken = taken()? - before;
    if is_device {
        return Ok((done, Faults { events: None, taken }));
    }
    fs::write(path("tracing_on"), "0")?;
    let text = fs::read_to_string(path("trace"))?;
    let count = |event: &str, fell: bool| {
        text.lines().filter(|line| line.contains(event) && line.contains("FALLBACK") == fell).count() as u64
    };
    let pmd = "dax_pmd_fault_done";
    let events = Some((count(pmd, false), count(pmd, true), count("dax_pte_fault_done", false)));
    Ok((done, Faults { events, taken }))
}
