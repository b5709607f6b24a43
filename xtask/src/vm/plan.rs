//! What is tried, and on which kind of memory?

use clap::ValueEnum;

/// What the pool lies on.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Backend {
    /// A file on XFS, mounted with `dax=always`.
    Xfs,
    /// A file on ext4, mounted with `dax=always`.
    Ext4,
    /// A devdax device that is mapped 2 MiB at a time.
    #[value(name = "devdax-2m")]
    Devdax2m,
    /// A devdax device that is mapped 4 KiB at a time.
    #[value(name = "devdax-4k")]
    Devdax4k,
    /// A file on ext4 on a disk: no persistent memory, but a page cache that a power cut takes.
    Plain,
}

impl Backend {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Xfs, Self::Ext4, Self::Devdax2m, Self::Devdax4k, Self::Plain];
    /// The ones on persistent memory.
    const PMEM: &'static [Self] = &[Self::Xfs, Self::Ext4, Self::Devdax2m, Self::Devdax4k];
    const GUIDE: &'static [Self] = &[Self::Xfs, Self::Ext4, Self::Devdax2m];
    const GUIDE_DEVICE: &'static [Self] = &[Self::Devdax2m];
    const DEVDAX: &'static [Self] = &[Self::Devdax2m, Self::Devdax4k];
    const FILES: &'static [Self] = &[Self::Xfs, Self::Ext4];

    /// Its name, on the command line, in the guest and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Xfs => "xfs",
            Self::Ext4 => "ext4",
            Self::Devdax2m => "devdax-2m",
            Self::Devdax4k => "devdax-4k",
            Self::Plain => "plain",
        }
    }
}

/// What a file of the host's stands for, where memory is not set aside by `memmap=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// An NVDIMM, of which firmware tables tell the kernel.
    Nvdimm,
    /// A CXL device with persistent memory.
    Cxl,
}

/// How a scenario is driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A script of the guest, `xtask/guest/NAME.sh`; all of a backend's and a device's share one boot.
    Script(Option<Device>),
    /// A writer whose machine is reset again and again.
    PowerCut,
    /// The same on a device, and the whole emulator killed.
    Kill(Device),
}

impl Kind {
    /// Whether a script of the guest does it.
    pub const fn is_script(self) -> bool {
        matches!(self, Self::Script(_))
    }
}

/// Something that is tried.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// What it shows, in a line.
    pub about: &'static str,
    /// How it is driven.
    pub kind: Kind,
    /// On which backends it has a meaning.
    pub backends: &'static [Backend],
}

const fn script(name: &'static str, backends: &'static [Backend], about: &'static str) -> Scenario {
    Scenario { name, about, kind: Kind::Script(None), backends }
}

/// Every scenario, in the order in which they run.
pub const SCENARIOS: &[Scenario] = &[
    script("tree", &Backend::ALL, "mkfs, put a tree, check, get, compare content and attributes"),
    script("detect", &Backend::ALL, "info names the backend; a second opener is refused with the holder"),
    script("grow", Backend::PMEM, "a file grows; a device grows to its end and no further"),
    script("mapsync", Backend::FILES, "without dax MAP_SYNC is refused: pages, and how info warns"),
    script(
        "warnings",
        &Backend::ALL,
        "info warns of what costs huge pages or durability, and its cures work",
    ),
    script(
        "faults",
        Backend::FILES,
        "the kernel's own count of 2 MiB and 4 KiB faults while a pool is written",
    ),
    script(
        "mapping",
        Backend::PMEM,
        "files as memory, in modes U and S: what is seen, which translations the kernel makes, a short stress",
    ),
    script("permissions", Backend::DEVDAX, "a device that was given to a group"),
    script("misaligned", Backend::DEVDAX, "what the kernel maps at an offset that is not the device's"),
    script(
        "badblocks",
        Backend::FILES,
        "the kernel takes blocks for bad: reads are errors, loads signals, an overwrite repairs",
    ),
    // A device of 4 KiB is none that the page makes.
    script("deploy", Backend::GUIDE, "the commands of docs/deploy.md, word for word"),
    Scenario {
        name: "machinecheck",
        about: "a machine check tells of a broken page of an NVDIMM under a device, which becomes the same",
        kind: Kind::Script(Some(Device::Nvdimm)),
        backends: Backend::DEVDAX,
    },
    Scenario {
        name: "cxl",
        about: "CXL memory becomes a region, a device, a pool of mapped files; a power cut",
        kind: Kind::Script(Some(Device::Cxl)),
        backends: Backend::GUIDE_DEVICE,
    },
    Scenario {
        name: "powercut",
        about: "two writers, reset at random moments: what was acknowledged is there, check is clean",
        kind: Kind::PowerCut,
        backends: &Backend::ALL,
    },
    Scenario {
        name: "kvcut",
        about: "a key-value store whose puts are acknowledged one by one, reset in the same way",
        kind: Kind::PowerCut,
        backends: &Backend::ALL,
    },
    Scenario {
        name: "nvdimm",
        about: "the same on a file-backed NVDIMM, whose emulator is killed",
        kind: Kind::Kill(Device::Nvdimm),
        backends: &[Backend::Xfs, Backend::Devdax2m],
    },
    Scenario {
        name: "cxlkill",
        about: "the same on persistent CXL memory, whose region is made again at each boot",
        kind: Kind::Kill(Device::Cxl),
        backends: &[Backend::Xfs, Backend::Devdax2m],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_on_the_command_line_are_those_of_the_reports() {
        for backend in Backend::ALL {
            let value = backend.to_possible_value().expect("every backend can be asked for");
            assert_eq!(value.get_name(), backend.name());
        }
    }

    #[test]
    fn every_script_is_there() {
        let guest = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("guest");
        for scenario in SCENARIOS.iter().filter(|s| s.kind.is_script()) {
            assert!(guest.join(format!("{}.sh", scenario.name)).is_file(), "{}", scenario.name);
        }
    }
}
