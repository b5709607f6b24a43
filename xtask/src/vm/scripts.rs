//! How do the scenarios that are scripts of the guest go?
//!
//! One boot runs all of a backend's, others those that want an NVDIMM or CXL memory.

use super::machine::Machine;
use super::marks::Mark;
use super::plan::{Backend, Device, Kind, SCENARIOS};
use super::{Line, Outcome, Run, with_device};
use crate::Result;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How long a boot with all its scripts may take, on a machine that does other things too.
const BOUND: Duration = Duration::from_secs(900);

/// Runs the scripts that are asked for on `backend`, over memory that is set aside or over a device, and reports each.
///
/// # Errors
/// The machine can not be started.
pub fn run(
    run: &Run<'_>,
    device: Option<Device>,
    backend: Backend,
    report: &mut dyn FnMut(&Line),
) -> Result<()> {
    let wanted = SCENARIOS.iter().filter(|s| s.kind == Kind::Script(device) && run.options.wants(s, backend));
    let mut left: VecDeque<&str> = wanted.map(|s| s.name).collect();
    if left.is_empty() {
        return Ok(());
    }
    run.image.renew_disk()?;
    let began = Instant::now();
    let names = left.iter().copied().collect::<Vec<_>>().join(",");
    let log = match device {
        None => "scripts",
        Some(Device::Nvdimm) => "nvdimm-scripts",
        Some(Device::Cxl) => "cxl-scripts",
    };
    let mut spec = run.spec(backend, &names, log, BOUND);
    if let Some(device) = device {
        with_device(&mut spec, device)?;
    }
    let mut machine = Machine::boot(&spec)?;
    let mut since = began;
    let mut notes: Vec<String> = Vec::new();
    let line = |scenario: &str, outcome, took| Line { scenario: scenario.to_owned(), backend, outcome, took };
    let why = loop {
        let (name, outcome) = match machine.mark() {
            Ok(Mark::Begin(_)) => {
                if since == began {
                    report(&line("boot", Outcome::Passed(String::new()), began.elapsed()));
                }
                since = Instant::now();
                continue;
            }
            Ok(Mark::Note(_, text)) => {
                notes.push(text);
                continue;
            }
            Ok(Mark::Passed(name)) => (name, Outcome::Passed(std::mem::take(&mut notes).join("; "))),
            Ok(Mark::Failed(name, why)) if left.contains(&name.as_str()) => (name, Outcome::Failed(why)),
            Ok(Mark::Failed(name, why)) => break format!("{name}: {why}"),
            Ok(Mark::Skipped(name, why)) => (name, Outcome::Skipped(why)),
            Ok(Mark::End) => break String::from("the guest ended before it"),
            Ok(_) => continue,
            Err(error) => break error.to_string(),
        };
        notes.clear();
        left.retain(|other| *other != name);
        report(&line(&name, outcome, since.elapsed()));
        if left.is_empty() {
            return Ok(());
        }
    };
    for name in left {
        report(&line(name, Outcome::Failed(why.clone()), since.elapsed()));
    }
    Ok(())
}
