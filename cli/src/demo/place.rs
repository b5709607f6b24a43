//! What does the demonstration import, and where does it work?

use crate::failure::{Context, Failure, Result};
use crate::names::shown;
use crate::transfer::plan::Plan;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The name of the exported tree in the working directory.
pub const EXPORT: &str = "export";
/// The name of the tree that is copied for comparison of times.
pub const BASELINE: &str = "baseline";

/// The directory of the key-value store's pool in the working directory.
pub const KV: &str = "kv";

/// A tmpfs on every ordinary Linux.
const SHM: &str = "/dev/shm";
/// Room for journal, tables and waste.
const SLACK_BYTES: u64 = 256 << 20;
/// What a file needs in the pool beyond its bytes: the rest of its last block, inode, entry, tree nodes.
const FILE_BYTES: u64 = 6 << 10;

/// The tree to import.
pub fn source(dir: Option<&OsStr>) -> Result<PathBuf> {
    if let Some(dir) = dir {
        let dir = PathBuf::from(dir);
        let is_dir = std::fs::metadata(&dir).context(|| format!("import {}", shown(&dir)))?.is_dir();
        let refusal =
            || Failure::new(format!("import {}", shown(&dir)), "it is not a directory", "name a directory");
        return if is_dir { Ok(dir) } else { Err(refusal()) };
    }
    Ok(cargo_sources().filter(|dir| has_entries(dir)).unwrap_or_else(|| PathBuf::from("/usr/share")))
}

fn cargo_sources() -> Option<PathBuf> {
    let below = |name, rest| std::env::var_os(name).map(|home| Path::new(&home).join(rest));
    below("CARGO_HOME", "registry/src").or_else(|| below("HOME", ".cargo/registry/src"))
}

fn has_entries(dir: &Path) -> bool {
    std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some())
}

/// A working directory, removed when dropped.
pub struct Place {
    dir: TempDir,
    pool: PathBuf,
    /// The pool's size.
    pub pool_bytes: u64,
    /// Is it on the host's tmpfs?
    pub tmpfs: bool,
}

impl Place {
    /// A place with room for the pool with two copies of the plan, and one copy more.
    pub fn new(plan: &Plan) -> Result<Self> {
        let entries = plan.entries.len() as u64;
        let copy = plan.bytes.saturating_add(entries.saturating_mul(FILE_BYTES));
        let pool_bytes = copy.saturating_mul(2).saturating_add(copy / 4).saturating_add(SLACK_BYTES);
        let pool_bytes = pool_bytes.next_multiple_of(SLACK_BYTES);
        let tmpfs = free_bytes(Path::new(SHM)).is_some_and(|free| free > pool_bytes.saturating_add(copy));
        let dir = make_dir(tmpfs)?;
        let pool = dir.path().join("pool");
        Ok(Self { dir, pool, pool_bytes, tmpfs })
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The pool in it.
    pub fn pool(&self) -> &Path {
        &self.pool
    }
}

fn make_dir(tmpfs: bool) -> Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    let prefix = format!("daxstore-demo-{}-", std::process::id());
    builder.prefix(&prefix);
    let made = if tmpfs { builder.tempdir_in(SHM) } else { builder.tempdir() };
    made.context(|| String::from("make a temporary directory"))
}

fn free_bytes(dir: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(dir).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// `root` plus `below`, without a trailing slash where `below` is empty.
pub fn join(root: &Path, below: &Path) -> PathBuf {
    if below.as_os_str().is_empty() { root.to_path_buf() } else { root.join(below) }
}
