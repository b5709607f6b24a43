//! Where do the databases lie?
//!
//! Memory that nobody used for a while may be the host's: then whoever touches it first waits for it, several times as long as for all else that a
//! run does. So that this is nobody's, memory is touched before it is measured ([`Place::warm`]).
//!
//! Invariant: what was made is removed when a `Place` is dropped.

use crate::error::{Context, Result};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const SHM: &str = "/dev/shm";
/// What the system calls a tmpfs.
const TMPFS: rustix::fs::FsWord = 0x0102_1994;

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

    /// Where files lie in memory: takes about `bytes` bytes of it, at most half of what there is, and gives them back.
    ///
    /// # Errors
    /// What the system says.
    pub fn warm(&self, bytes: u64) -> Result<()> {
        let system = rustix::fs::statfs(self.path()).context("look at the file system")?;
        if system.f_type != TMPFS {
            return Ok(());
        }
        let free = system.f_bavail * system.f_bsize as u64;
        let path = self.path().join("warm");
        let mut file = File::create(&path).context("make a file")?;
        let chunk = vec![0; 2 << 20];
        let chunks = bytes.min(free / 2) / chunk.len() as u64;
        let written = (0..chunks).try_for_each(|_| file.write_all(&chunk)).context("write a file");
        drop(file);
        std::fs::remove_file(&path).context("remove a file")?;
        written
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
        place.warm(4 << 20).unwrap();
        assert!(!path.join("warm").exists());
        drop(place);
        assert!(!path.exists());
    }
}
