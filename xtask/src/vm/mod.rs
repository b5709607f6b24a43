//! Does the store do on real persistent memory what it does elsewhere?
//!
//! A Debian kernel is booted in a virtual machine (qemu) whose persistent memory is set aside by `memmap=` or is a file
//! that stands for an NVDIMM or a CXL device; scripts in `xtask/guest` run there, and their results come back over the serial console.
//! Nothing is installed but packages of the distribution; the kernel is unpacked and not installed.
//!
//! Invariant: at most one machine runs at a time, in one directory.

mod cuts;
mod image;
mod machine;
mod marks;
mod plan;
mod scripts;
mod tools;

pub use plan::{Backend, SCENARIOS, Scenario};

use crate::Result;
use image::Image;
use machine::{Memory, Spec};
use plan::Device;
use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Mistakes of mappings, which the guest's program has to be built for.
const PLANTS: [&str; 2] = ["askew", "unregistered"];

/// `cargo xtask vm`.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// Only these scenarios.
    #[arg(long, value_name = "NAME")]
    pub scenario: Vec<String>,
    /// Only on these backends.
    #[arg(long, value_enum)]
    pub backend: Vec<Backend>,
    /// Name the scenarios and do nothing.
    #[arg(long)]
    pub list: bool,
    /// Power cuts a backend.
    #[arg(long, default_value_t = 20)]
    pub cuts: u32,
    /// Decides what the writers write and when they are cut.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Keep the disks and NVDIMMs of the machines, which are removed otherwise; logs always stay.
    #[arg(long)]
    pub keep: bool,
    /// The accelerator in qemu's words, instead of kvm where it works and tcg elsewhere.
    #[arg(long)]
    pub accel: Option<String>,
    /// Make a mistake on purpose, which a scenario must notice: `assume` lets the writers treat any memory as
    /// persistent; `askew` maps files a page beside the place that is congruent, and `unregistered` does not register
    /// them with userfaultfd.
    #[arg(long, value_name = "MISTAKE")]
    pub plant: Option<String>,
}

impl Options {
    fn wants(&self, scenario: &Scenario, backend: Backend) -> bool {
        let named = self.scenario.is_empty() || self.scenario.iter().any(|name| name == scenario.name);
        let on = self.backend.is_empty() || self.backend.contains(&backend);
        named && on && scenario.backends.contains(&backend)
    }

    fn known(&self) -> Result<()> {
        if let Some(plant) =
            self.plant.as_deref().filter(|plant| *plant != "assume" && !PLANTS.contains(plant))
        {
            return Err(format!("no mistake {plant}; there are assume, {}", PLANTS.join(", ")).into());
        }
        match self.scenario.iter().find(|name| SCENARIOS.iter().all(|s| s.name != name.as_str())) {
            Some(name) => Err(format!("no scenario {name}; see --list").into()),
            None => Ok(()),
        }
    }
}

/// How a scenario went on a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It did what it should; something worth telling.
    Passed(String),
    /// It did not.
    Failed(String),
    /// It could not be tried.
    Skipped(String),
}

/// A line of the report.
#[derive(Clone, Debug)]
pub struct Line {
    /// The scenario.
    pub scenario: String,
    /// Where it ran.
    pub backend: Backend,
    /// How it went.
    pub outcome: Outcome,
    /// How long it took, without booting where several share a boot.
    pub took: Duration,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, text) = match &self.outcome {
            Outcome::Passed(text) => ("ok", text),
            Outcome::Failed(text) => ("FAILED", text),
            Outcome::Skipped(text) => ("skipped", text),
        };
        let (scenario, backend, seconds) = (&self.scenario, self.backend.name(), self.took.as_secs_f64());
        write!(f, "{scenario:<11} {backend:<10} {word:<8} {seconds:6.1} s")?;
        if text.is_empty() { Ok(()) } else { write!(f, "  {text}") }
    }
}

/// What all machines of a run have in common.
struct Run<'a> {
    image: Image,
    options: &'a Options,
}

impl Run<'_> {
    /// A machine whose guest is told to `run` something; its console goes to the log of that `name`.
    fn spec(&self, backend: Backend, run: &str, name: &str, bound: Duration) -> Spec<'_> {
        let accel = self.options.accel.clone().unwrap_or_else(|| tools::accelerator().to_owned());
        let mut tell = vec![("run", run.to_owned()), ("seed", self.options.seed.to_string())];
        tell.extend(self.options.plant.clone().map(|mistake| ("plant", mistake)));
        let log = self.image.dir.join(format!("{}-{name}.log", backend.name()));
        // Logs are of this run only; one that stays from an earlier run misleads.
        let _ = fs::remove_file(&log);
        Spec { image: &self.image, backend, memory: Memory::SetAside, tell, accel, bound, log }
    }
}

/// Why scenarios can not be run here as things are, if so: programs that only root can install, or a kernel that can not
/// be fetched.
#[must_use]
pub fn unavailable() -> Option<String> {
    let missing = tools::missing();
    if !missing.is_empty() {
        return Some(format!("missing: {}", missing.join(" ")));
    }
    directory().and_then(|dir| image::unpack_kernel(&dir)).err().map(|error| error.to_string())
}

/// The root of the workspace.
fn workspace() -> Result<&'static Path> {
    Ok(Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("no workspace")?)
}

/// Where all that is fetched, built and logged goes.
fn directory() -> Result<PathBuf> {
    let dir = workspace()?.join("target/vm");
    fs::create_dir_all(&dir)?;
    Ok(dir)
}

/// Runs what the options name: whether nothing failed.
///
/// # Errors
/// Nothing could be run.
pub fn run(options: &Options) -> Result<bool> {
    options.known()?;
    if options.list {
        for scenario in SCENARIOS {
            let backends: Vec<_> = scenario.backends.iter().map(|backend| backend.name()).collect();
            println!("{:<11} {}\n            on {}", scenario.name, scenario.about, backends.join(", "));
        }
        return Ok(true);
    }
    tools::install()?;
    let dir = directory()?;
    let lock = File::create(dir.join("lock"))?;
    lock.lock()?;
    let is_built_in = options.plant.as_deref().is_some_and(|plant| PLANTS.contains(&plant));
    let run = Run { image: Image::provide(&dir, workspace()?, is_built_in)?, options };
    let mut all_well = true;
    for backend in Backend::ALL {
        let mut report = |line: &Line| {
            all_well &= !matches!(line.outcome, Outcome::Failed(_));
            println!("{line}");
        };
        for device in [None, Some(Device::Nvdimm), Some(Device::Cxl)] {
            scripts::run(&run, device, backend, &mut report)?;
        }
        for scenario in SCENARIOS.iter().filter(|s| !s.kind.is_script() && options.wants(s, backend)) {
            report(&cuts::run(&run, scenario, backend));
        }
    }
    if !options.keep {
        for left in [run.image.disk.clone(), device(&dir), machine::labels(&device(&dir))] {
            let _ = fs::remove_file(left);
        }
    }
    Ok(all_well)
}

/// The file that stands for an NVDIMM or a CXL device.
fn device(dir: &Path) -> PathBuf {
    dir.join("device.img")
}

/// Makes that file anew, and has a machine use it as memory of such a `kind`.
fn with_device(spec: &mut Spec<'_>, kind: Device) -> Result<()> {
    let file = device(&spec.image.dir);
    for (file, bytes) in [(&file, 768 << 20), (&machine::labels(&file), 1 << 20)] {
        let _ = fs::remove_file(file);
        File::create(file)?.set_len(bytes)?;
    }
    let (word, memory) = match kind {
        Device::Nvdimm => ("nfit", Memory::Nvdimm(file)),
        Device::Cxl => ("cxl", Memory::Cxl(file)),
    };
    spec.tell.push(("memory", word.to_owned()));
    spec.memory = memory;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_all() {
        let line = |outcome| Line {
            scenario: "tree".into(),
            backend: Backend::Xfs,
            outcome,
            took: Duration::from_millis(3240),
        };
        assert_eq!(
            line(Outcome::Passed(String::new())).to_string(),
            "tree        xfs        ok          3.2 s"
        );
        let failed = line(Outcome::Failed("no".into())).to_string();
        assert_eq!(failed, "tree        xfs        FAILED      3.2 s  no");
    }
}
