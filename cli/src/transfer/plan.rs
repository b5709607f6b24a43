//! What is there on the host to be copied, and where will it land?
//!
//! Invariants:
//! 1. A directory stands before everything below it.
//! 2. Two walks of an unchanged tree give the same list, limits included: names are sorted.
//! 3. Symbolic links are listed, never followed.

use super::report::Reporter;
use crate::failure::{Context, Result};
use crate::names::shown;
use std::fs::{FileType, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Names a file of the host beyond its path: device and inode.
pub type HostId = (u64, u64);

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostKind {
    /// A directory.
    Directory,
    /// A regular file; `link` is known where it has more than one name.
    File {
        /// Its identity, where it has several names.
        link: Option<HostId>,
    },
    /// A symbolic link.
    Symlink,
}

/// One thing to copy.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Where it is.
    pub host: PathBuf,
    /// Where it goes.
    pub dest: PathBuf,
    /// What it is.
    pub kind: HostKind,
    /// Its length in bytes when it was listed; 0 for directories.
    pub size: u64,
}

/// Where a walk stops.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Entries other than directories.
    pub files: u64,
    /// Bytes of regular files.
    pub bytes: u64,
}

impl Limits {
    /// Nowhere.
    pub const NONE: Self = Self { files: u64::MAX, bytes: u64::MAX };
}

/// Everything to copy.
#[derive(Debug)]
pub struct Plan {
    /// The entries, directories first.
    pub entries: Vec<Entry>,
    /// Entries other than directories.
    pub files: u64,
    /// Bytes of regular files.
    pub bytes: u64,
    /// A limit left something out.
    pub cut: bool,
    limits: Limits,
    pool: Option<HostId>,
}

impl Plan {
    /// An empty plan. `pool` is left out wherever it is found: a pool can not hold itself.
    pub fn new(limits: Limits, pool: Option<HostId>) -> Self {
        Self { entries: Vec::new(), files: 0, bytes: 0, cut: false, limits, pool }
    }

    /// Adds `host`, to land at `dest`, and all that is below it.
    pub fn add(&mut self, host: &Path, dest: &Path, reporter: &mut Reporter<'_>) -> Result<()> {
        let mut waiting = Vec::new();
        self.add_one(host.to_path_buf(), dest.to_path_buf(), &mut waiting, reporter)?;
        while let Some((host, dest)) = waiting.pop() {
            let names = match sorted_names(&host).context(|| format!("list {}", shown(&host))) {
                Ok(names) => names,
                Err(failure) => {
                    reporter.failed(failure)?;
                    continue;
                }
            };
            let first = waiting.len();
            for name in names {
                self.add_one(host.join(&name), dest.join(&name), &mut waiting, reporter)?;
            }
            waiting[first..].reverse();
        }
        Ok(())
    }

    fn add_one(
        &mut self,
        host: PathBuf,
        dest: PathBuf,
        waiting: &mut Vec<(PathBuf, PathBuf)>,
        reporter: &mut Reporter<'_>,
    ) -> Result<()> {
        let metadata = match std::fs::symlink_metadata(&host).context(|| format!("read {}", shown(&host))) {
            Ok(metadata) => metadata,
            Err(failure) => return reporter.failed(failure),
        };
        let Some(kind) = self.kind_of(&host, &metadata, reporter) else { return Ok(()) };
        let size = if kind == HostKind::Directory { 0 } else { metadata.len() };
        if !self.has_room(kind, size) {
            self.cut = true;
            return Ok(());
        }
        if kind == HostKind::Directory {
            waiting.push((host.clone(), dest.clone()));
        } else {
            self.files += 1;
            self.bytes += size;
        }
        self.entries.push(Entry { host, dest, kind, size });
        Ok(())
    }

    /// What `host` is, where it can be copied.
    fn kind_of(&self, host: &Path, metadata: &Metadata, reporter: &mut Reporter<'_>) -> Option<HostKind> {
        let file_type = metadata.file_type();
        let id = (metadata.dev(), metadata.ino());
        if self.pool == Some(id) {
            reporter.warn(format!("{} is the pool itself and is left out", shown(host)));
            return None;
        }
        if file_type.is_dir() {
            return Some(HostKind::Directory);
        }
        if file_type.is_symlink() {
            return Some(HostKind::Symlink);
        }
        if file_type.is_file() {
            return Some(HostKind::File { link: (metadata.nlink() > 1).then_some(id) });
        }
        reporter.tally.special_skipped += 1;
        reporter.warn(format!("{} is a {} and is left out", shown(host), special_name(file_type)));
        None
    }

    fn has_room(&self, kind: HostKind, size: u64) -> bool {
        if kind == HostKind::Directory {
            return self.files < self.limits.files;
        }
        self.files < self.limits.files && self.bytes.saturating_add(size) <= self.limits.bytes
    }
}

fn special_name(file_type: FileType) -> &'static str {
    if file_type.is_fifo() {
        "fifo"
    } else if file_type.is_socket() {
        "socket"
    } else {
        "device"
    }
}

fn sorted_names(directory: &Path) -> std::io::Result<Vec<std::ffi::OsString>> {
    let names = std::fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name()));
    let mut names = names.collect::<std::io::Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Output;
    use crate::progress::Progress;
    use crate::transfer::report::Naming;

    fn plan(dir: &Path, limits: Limits) -> (Plan, u64) {
        let mut output = Output::new(true);
        let mut reporter = Reporter::new(&mut output, Naming::Silent, Progress::hidden());
        let mut plan = Plan::new(limits, None);
        assert!(plan.add(dir, Path::new("/t"), &mut reporter).is_ok());
        (plan, reporter.tally.special_skipped)
    }

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        for (name, len) in [("a", 10), ("b", 20), ("sub/c", 30)] {
            std::fs::write(dir.path().join(name), vec![1; len]).unwrap();
        }
        std::fs::hard_link(dir.path().join("a"), dir.path().join("sub/a2")).unwrap();
        std::os::unix::fs::symlink("nowhere", dir.path().join("link")).unwrap();
        let fifo = dir.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        dir
    }

    #[test]
    fn directories_come_first_and_special_files_are_left_out() {
        let dir = tree();
        let (plan, special) = plan(dir.path(), Limits::NONE);
        let dests: Vec<_> = plan.entries.iter().map(|e| e.dest.to_str().unwrap()).collect();
        assert_eq!(dests, ["/t", "/t/a", "/t/b", "/t/link", "/t/sub", "/t/sub/a2", "/t/sub/c"]);
        assert_eq!((plan.files, plan.cut, special), (5, false, 1));
        assert!(matches!(plan.entries[1].kind, HostKind::File { link: Some(_) }));
        assert!(matches!(plan.entries[2].kind, HostKind::File { link: None }));
        assert_eq!(plan.entries[3].kind, HostKind::Symlink);
    }

    #[test]
    fn limits_cut() {
        let dir = tree();
        let (few, _) = plan(dir.path(), Limits { files: 2, bytes: u64::MAX });
        assert_eq!((few.files, few.cut), (2, true));
        let (small, _) = plan(dir.path(), Limits { files: 100, bytes: 20 });
        assert!(small.cut && small.bytes <= 20);
    }
}
