//! How are the host's files read and made without being led astray?
//!
//! Invariants:
//! 1. Below the directory the user named, no symbolic link is followed, for reading attributes or for writing.
//! 2. A new file is made under a name that did not exist; an existing one is replaced by a rename, when the new
//!    one is complete. What was open or linked elsewhere keeps its old content.
//! 3. A name is one component: a pool can not reach out of the destination.

use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, RawMode, Timespec, Timestamps, Uid};
use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

const NANOS: i64 = 1_000_000_000;
/// How a directory on the way is opened.
const STEP: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The attributes that move with a file. Times are nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of the last access.
    pub atime: i64,
    /// Time of the last change of content.
    pub mtime: i64,
}

impl Attributes {
    /// Those of a file of the host. Times that 64-bit nanoseconds do not reach become the nearest that they do.
    pub fn of_host(metadata: &Metadata) -> Self {
        let nanos = |seconds: i64, part: i64| seconds.saturating_mul(NANOS).saturating_add(part);
        Self {
            mode: metadata.mode() & 0o7777,
            uid: metadata.uid(),
            gid: metadata.gid(),
            atime: nanos(metadata.atime(), metadata.atime_nsec()),
            mtime: nanos(metadata.mtime(), metadata.mtime_nsec()),
        }
    }

    /// Those of a file of a pool.
    pub fn of_pool(metadata: &daxstore::Metadata) -> Self {
        Self {
            mode: metadata.mode,
            uid: metadata.uid,
            gid: metadata.gid,
            atime: metadata.atime,
            mtime: metadata.mtime,
        }
    }

    fn timestamps(&self) -> Timestamps {
        let spec =
            |nanos: i64| Timespec { tv_sec: nanos.div_euclid(NANOS), tv_nsec: nanos.rem_euclid(NANOS) };
        Timestamps { last_access: spec(self.atime), last_modification: spec(self.mtime) }
    }

    /// Gives the owner to an open file or directory, where the process is root, as `cp -a` does. The kernel then
    /// takes set-user-id bits and capabilities away, so this comes before extended attributes and [`Self::finish`].
    pub fn own(&self, file: impl AsFd) -> io::Result<()> {
        if is_root() {
            let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
            rustix::fs::fchown(file.as_fd(), Some(uid), Some(gid))?;
        }
        Ok(())
    }

    /// Gives mode and times to an open file or directory, which then has its content and all else.
    pub fn finish(&self, file: impl AsFd) -> io::Result<()> {
        let file = file.as_fd();
        rustix::fs::fchmod(file, Mode::from_raw_mode(self.mode as RawMode))?;
        Ok(rustix::fs::futimens(file, &self.timestamps())?)
    }

    /// Gives owner and times to the symbolic link `name` in `dir`; a link has no mode of its own.
    pub fn apply_to_link(&self, dir: impl AsFd, name: &OsStr) -> io::Result<()> {
        let dir = dir.as_fd();
        if is_root() {
            let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
            rustix::fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(rustix::fs::utimensat(dir, name, &self.timestamps(), AtFlags::SYMLINK_NOFOLLOW)?)
    }
}

/// May this process give files away?
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Opens the regular file at `path` for reading: not through a symbolic link, and without waiting for a fifo
/// that took its place.
pub fn open_source(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

/// The next data of `file` at or after `offset`, as start and end, clipped to `len`; nothing where only a hole
/// follows. A host that knows no holes has data everywhere.
pub fn next_data(file: &File, offset: u64, len: u64) -> io::Result<Option<(u64, u64)>> {
    use rustix::fs::{SeekFrom, seek};
    let start = match seek(file, SeekFrom::Data(offset)) {
        Ok(start) => start,
        Err(rustix::io::Errno::NXIO) => return Ok(None),
        Err(rustix::io::Errno::INVAL) => return Ok((offset < len).then_some((offset, len))),
        Err(error) => return Err(error.into()),
    };
    let end = seek(file, SeekFrom::Hole(start))?.min(len);
    Ok((start < end).then_some((start, end)))
}

/// May a file with this metadata have holes?
pub fn may_have_holes(metadata: &Metadata) -> bool {
    metadata.blocks().saturating_mul(512) < metadata.len()
}

/// Is this one component that names something?
pub fn is_plain_name(name: &OsStr) -> bool {
    let bytes = name.as_bytes();
    !bytes.is_empty() && bytes != b"." && bytes != b".." && !bytes.contains(&b'/') && !bytes.contains(&0)
}

/// The extended attributes of an open file or directory.
pub fn xattrs_of(file: &File) -> io::Result<Vec<(OsString, Vec<u8>)>> {
    use xattr::FileExt;
    collect_xattrs(file.list_xattr(), |name| file.get_xattr(name))
}

/// The extended attributes of what is at `path`; a symbolic link is not followed.
pub fn xattrs_at(path: &Path) -> io::Result<Vec<(OsString, Vec<u8>)>> {
    collect_xattrs(xattr::list(path), |name| xattr::get(path, name))
}

fn collect_xattrs(
    names: io::Result<xattr::XAttrs>,
    get: impl Fn(&OsStr) -> io::Result<Option<Vec<u8>>>,
) -> io::Result<Vec<(OsString, Vec<u8>)>> {
    let names = match names {
        Err(error) if is_unsupported(&error) => return Ok(Vec::new()),
        names => names?,
    };
    let mut found = Vec::new();
    for name in names {
        if let Some(value) = get(&name)? {
            found.push((name, value));
        }
    }
    Ok(found)
}

/// Does the host refuse this kind of attribute, rather than this one?
pub fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied)
}

/// A directory of the host, and what is below it, reached without following a symbolic link.
pub struct HostTree {
    root: OwnedFd,
    /// The directory that was used last: the next file most often is in it too.
    last: Option<(PathBuf, OwnedFd)>,
}

impl HostTree {
    /// The tree below `path`, which the user named: links in `path` itself are followed.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { root: rustix::fs::openat(CWD, path, flags, Mode::empty())?, last: None })
    }

    /// The directory at `below`, relative to the tree's root; empty is the root.
    pub fn dir(&mut self, below: &Path) -> io::Result<BorrowedFd<'_>> {
        if self.last.as_ref().is_none_or(|(path, _)| path != below) {
            self.last = Some((below.to_path_buf(), self.walk(below)?));
        }
        Ok(self.last.as_ref().map_or(self.root.as_fd(), |(_, dir)| dir.as_fd()))
    }

    fn walk(&self, below: &Path) -> io::Result<OwnedFd> {
        let mut dir = self.root.try_clone()?;
        for component in below.components() {
            let Component::Normal(name) = component else { return Err(io::ErrorKind::InvalidInput.into()) };
            dir = rustix::fs::openat(&dir, name, STEP, Mode::empty())?;
        }
        Ok(dir)
    }

    /// The directory that holds `below`, and its name there.
    fn place<'b>(&mut self, below: &'b Path) -> io::Result<(BorrowedFd<'_>, &'b OsStr)> {
        let name = below.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        Ok((self.dir(below.parent().unwrap_or(Path::new("")))?, name))
    }

    /// Makes the directory `below`, or is content with one that is there.
    pub fn make_dir(&mut self, below: &Path) -> io::Result<()> {
        if below.as_os_str().is_empty() {
            return Ok(());
        }
        let (dir, name) = self.place(below)?;
        match rustix::fs::mkdirat(dir, name, Mode::RWXU) {
            Err(rustix::io::Errno::EXIST) => {
                // Opening tells whether it is a directory, and not a link to one.
                rustix::fs::openat(dir, name, STEP, Mode::empty())?;
                Ok(())
            }
            other => Ok(other?),
        }
    }

    /// Begins the file `below`.
    pub fn make_file(&mut self, below: &Path) -> io::Result<NewFile> {
        let (dir, name) = self.place(below)?;
        match create(dir, name) {
            Ok(file) => Ok(NewFile { file, temporary: None }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                refuse_directory(dir, name)?;
                let temporary = temporary_name();
                Ok(NewFile { file: create(dir, &temporary)?, temporary: Some(temporary) })
            }
            Err(error) => Err(error),
        }
    }

    /// Puts a complete file under its name, `below`.
    pub fn publish(&mut self, below: &Path, new: NewFile) -> io::Result<()> {
        let Some(temporary) = new.temporary else { return Ok(()) };
        let (dir, name) = self.place(below)?;
        Ok(rustix::fs::renameat(dir, &temporary, dir, name)?)
    }

    /// Takes back a file that did not become complete.
    pub fn abandon(&mut self, below: &Path, new: NewFile) -> io::Result<()> {
        let (dir, name) = self.place(below)?;
        let name = new.temporary.as_deref().unwrap_or(name);
        Ok(rustix::fs::unlinkat(dir, name, AtFlags::empty())?)
    }

    /// Makes the symbolic link `below`, in place of what is no directory.
    pub fn make_symlink(&mut self, below: &Path, target: &Path, attributes: &Attributes) -> io::Result<()> {
        let (dir, name) = self.place(below)?;
        replacing(dir, name, || rustix::fs::symlinkat(target, dir, name))?;
        attributes.apply_to_link(dir, name)
    }

    /// Makes `below` another name of `first`, in place of what is no directory.
    pub fn make_link(&mut self, first: &Path, below: &Path) -> io::Result<()> {
        let from = self.dir(first.parent().unwrap_or(Path::new("")))?.try_clone_to_owned()?;
        let from_name = first.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let (dir, name) = self.place(below)?;
        replacing(dir, name, || rustix::fs::linkat(&from, from_name, dir, name, AtFlags::empty()))
    }

    /// Gives the symbolic link `below` an extended attribute.
    pub fn set_link_xattr(&mut self, below: &Path, name: &OsStr, value: &[u8]) -> io::Result<()> {
        let (dir, link) = self.place(below)?;
        let path = Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(link);
        xattr::set(path, name, value)
    }
}

/// A file of the host that is not complete yet.
pub struct NewFile {
    /// The open file.
    pub file: File,
    temporary: Option<OsString>,
}

fn create(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR)?))
}

fn refuse_directory(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let kind = rustix::fs::FileType::from_raw_mode(stat.st_mode);
    if kind == rustix::fs::FileType::Directory { Err(io::ErrorKind::IsADirectory.into()) } else { Ok(()) }
}

/// Runs `make`; where the name exists and is no directory, removes it and tries once more.
fn replacing(dir: BorrowedFd<'_>, name: &OsStr, make: impl Fn() -> rustix::io::Result<()>) -> io::Result<()> {
    match make() {
        Err(rustix::io::Errno::EXIST) => {
            refuse_directory(dir, name)?;
            rustix::fs::unlinkat(dir, name, AtFlags::empty())?;
            Ok(make()?)
        }
        other => Ok(other?),
    }
}

/// A name that is not taken, but by a process with the same number that was killed.
pub fn temporary_name() -> OsString {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!(".daxstore-{}-{number}", std::process::id()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_inside_the_destination_are_not_followed() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("victim"), b"safe").unwrap();
        let dest = tempfile::tempdir().unwrap();
        symlink(outside.path(), dest.path().join("d")).unwrap();
        symlink(outside.path().join("victim"), dest.path().join("f")).unwrap();
        let mut tree = HostTree::open(dest.path()).unwrap();
        assert!(tree.make_dir(Path::new("d")).is_err());
        assert!(tree.make_file(Path::new("d/new")).is_err());
        assert!(tree.make_file(Path::new("../new")).is_err());
        let new = tree.make_file(Path::new("f")).unwrap();
        tree.publish(Path::new("f"), new).unwrap();
        assert!(!dest.path().join("f").is_symlink());
        assert_eq!(std::fs::read(outside.path().join("victim")).unwrap(), b"safe");
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_abandoned_file_leaves_what_was_there() {
        let dest = tempfile::tempdir().unwrap();
        std::fs::write(dest.path().join("f"), b"old").unwrap();
        let mut tree = HostTree::open(dest.path()).unwrap();
        let new = tree.make_file(Path::new("f")).unwrap();
        tree.abandon(Path::new("f"), new).unwrap();
        assert_eq!(std::fs::read(dest.path().join("f")).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(dest.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_directory_is_not_replaced_by_a_file() {
        let dest = tempfile::tempdir().unwrap();
        std::fs::create_dir(dest.path().join("d")).unwrap();
        let mut tree = HostTree::open(dest.path()).unwrap();
        assert!(tree.make_file(Path::new("d")).is_err());
        let attributes = Attributes { mode: 0, uid: 0, gid: 0, atime: 0, mtime: 0 };
        assert!(tree.make_symlink(Path::new("d"), Path::new("x"), &attributes).is_err());
        assert!(dest.path().join("d").is_dir());
    }

    #[test]
    fn names_are_one_component() {
        for name in ["", ".", "..", "a/b", "a\0b"] {
            assert!(!is_plain_name(OsStr::new(name)), "{name:?}");
        }
        assert!(is_plain_name(OsStr::new("...")));
    }

    #[test]
    fn data_and_holes() {
        use std::os::unix::fs::FileExt;
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(b"x", 1 << 20).unwrap();
        file.set_len(4 << 20).unwrap();
        let (start, end) = next_data(&file, 0, 4 << 20).unwrap().unwrap();
        assert!(start <= 1 << 20 && end > 1 << 20 && end < 4 << 20);
        assert_eq!(next_data(&file, end, 4 << 20).unwrap(), None);
    }
}
