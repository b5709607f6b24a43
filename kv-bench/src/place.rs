//! Where do the databases lie?
//!
//! Invariant: what was made is removed when a `Place` is dropped.

use crate::error::{Context, Result};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const SHM: &str = "/dev/shm";

/// A directory for databases.
pub struct Place {
    dir: TempDir,
    mounted: bool,
    medium: String,
}

impl Place {
    /// A directory in `dir`, or without one on a tmpfs of its own with 2 MiB pages, or where that can not be mounted
    /// (it takes root) in `/dev/shm`.
    ///
    /// # Errors
    /// What the system says.
    pub fn new(dir: Option<&Path>) -> Result<Self> {
        let prefix = format!("daxstore-kv-bench-{}-", std::process::id());
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix);
        if let Some(parent) = dir {
            let dir = builder.tempdir_in(parent).context("make a directory")?;
            return Ok(Self { dir, mounted: false, medium: parent.display().to_string() });
        }
        let dir = builder.tempdir().context("make a directory")?;
        let options = c"huge=always,size=90%,mode=0700";
        if mount("tmpfs", dir.path(), "tmpfs", MountFlags::empty(), options).is_ok() {
            return Ok(Self { dir, mounted: true, medium: String::from("tmpfs, huge=always") });
        }
        let dir = builder.tempdir_in(SHM).context("make a directory")?;
        Ok(Self { dir, mounted: false, medium: format!("{SHM}, since no tmpfs could be mounted") })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// What it is on, for people.
    pub fn medium(&self) -> &str {
        &self.medium
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.mounted {
            // A mount that stays is told by the directory that then can not be removed.
            let _ = unmount(self.dir.path(), UnmountFlags::DETACH);
        }
    }
}

/// Bytes that the files below `dir` take.
pub fn footprint(dir: &Path) -> std::io::Result<u64> {
    let mut bytes = 0;
    let mut dirs: Vec<PathBuf> = vec![dir.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                dirs.push(entry.path());
            } else {
                bytes += metadata.blocks() * 512;
            }
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_removed_with_what_is_in_it() {
        let place = Place::new(Some(&std::env::temp_dir())).unwrap();
        let path = place.path().to_path_buf();
        std::fs::create_dir(path.join("d")).unwrap();
        std::fs::write(path.join("d/f"), vec![1; 8192]).unwrap();
        assert!(footprint(&path).unwrap() >= 8192);
        drop(place);
        assert!(!path.exists());
    }
}
