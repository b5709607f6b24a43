//! What kind of medium was found, and what survives on it?

use std::fmt;
use std::path::PathBuf;

/// What a pool lies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Medium {
    /// A `/dev/dax` device.
    Devdax {
        /// The alignment its mappings need, in bytes; a translation covers as much.
        align: u64,
    },
    /// A file on a file system that maps persistent memory directly (`MAP_SYNC` was granted).
    Fsdax,
    /// Any other file.
    PlainFile,
    /// A plain file whose memory the caller said to be persistent.
    AssumedPersistent,
    /// Memory of the simulation.
    Simulated,
}

impl fmt::Display for Medium {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Devdax { align } => write!(f, "devdax device, alignment {align} bytes"),
            Self::Fsdax => f.write_str("file on a DAX file system"),
            Self::PlainFile => f.write_str("plain file"),
            Self::AssumedPersistent => f.write_str("plain file, assumed to be persistent memory"),
            Self::Simulated => f.write_str("simulated memory"),
        }
    }
}

/// What happens in a power cut to what a fence made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// It survives.
    PowerLoss,
    /// It survives if the caller was right to call the memory persistent.
    Assumed,
    /// It is lost: the pool lies in ordinary memory, such as a file on tmpfs. A killed process loses nothing of a file.
    ProcessOnly,
}

impl Durability {
    /// Whether a power cut loses nothing, by what the system says and not by what the caller does.
    #[must_use]
    pub const fn survives_power_loss(self) -> bool {
        matches!(self, Self::PowerLoss)
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PowerLoss => "survives power loss",
            Self::Assumed => "survives power loss only if the memory is persistent, which was assumed",
            Self::ProcessOnly => "does not survive power loss: the pool lies in ordinary memory",
        })
    }
}

/// What was found when a region was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionInfo {
    /// How stores are made durable, such as `lines (clwb)` or `pages (msync)`.
    pub backend: &'static str,
    /// What the pool lies on.
    pub medium: Medium,
    /// What a fence is worth.
    pub durability: Durability,
    /// Whether the CPU's caches survive a power cut (eADR), so that flushes are skipped.
    pub eadr: bool,
    /// Whether the region takes no stores.
    pub read_only: bool,
    /// Whether every byte was zero when the region was opened, because its file is new.
    pub zeroed: bool,
    /// Bytes of address space mapped: how far the region can grow without being opened again.
    pub mapped: u64,
    /// The path it was opened by.
    pub path: Option<PathBuf>,
}
