//! What does the host tell of the file or device below a pool, and what does it do for it?
//!
//! Facts come from sysfs and `/proc`, not from guesses. Functions that read them take the root of the tree, so that
//! tests can bring their own.

use crate::error::{Error, Holder, Result};
use std::ffi::OsStr;
use std::fs::{self, File, Metadata, TryLockError};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where sysfs is.
pub(super) const SYSFS: &str = "/sys";

/// What sysfs tells of a devdax device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dax {
    /// Bytes.
    pub(super) size: u64,
    /// The alignment that mappings of it need, in bytes.
    pub(super) align: u64,
}

/// What sysfs has of a device, by its kind (`block`, `char`) and number.
pub(super) fn device(sysfs: &Path, kind: &str, number: u64) -> PathBuf {
    sysfs.join("dev").join(kind).join(format!("{}:{}", libc::major(number), libc::minor(number)))
}

/// The devdax device with this number, if it is one.
///
/// # Errors
/// [`Error::Path`] where sysfs has no size or alignment for it.
pub(super) fn devdax(sysfs: &Path, number: u64) -> Result<Option<Dax>> {
    let device = device(sysfs, "char", number);
    match fs::read_link(device.join("subsystem")) {
        Ok(subsystem) if subsystem.file_name() == Some(OsStr::new("dax")) => {
            Ok(Some(Dax { size: number_in(device.join("size"))?, align: number_in(device.join("align"))? }))
        }
        _ => Ok(None),
    }
}

/// The number that a file of sysfs holds, in decimal or after `0x`.
///
/// # Errors
/// [`Error::Path`].
pub(super) fn number_in(path: PathBuf) -> Result<u64> {
    let invalid = || io::Error::from_raw_os_error(libc::EINVAL);
    let parse = |text: &str| match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    let number = fs::read_to_string(&path).and_then(|text| parse(text.trim()).map_err(|_| invalid()));
    number.map_err(|source| Error::Path { what: "reading a number from", path, source })
}

/// Whether the power-fail protected domain of the device that `metadata` lies on (or is) holds the CPU's caches.
///
/// The answer is that of the device's own NVDIMM region; a machine may have several, and memory that is in none.
pub(super) fn caches_persist(sysfs: &Path, metadata: &Metadata) -> bool {
    let device = match metadata.file_type().is_file() {
        true => device(sysfs, "block", metadata.dev()),
        false => device(sysfs, "char", metadata.rdev()),
    };
    let Ok(device) = fs::canonicalize(device) else { return false };
    let domain = device.ancestors().find_map(|d| fs::read_to_string(d.join("persistence_domain")).ok());
    domain.is_some_and(|domain| domain.trim() == "cpu_cache")
}

/// Whether the file lies in memory that no power cut survives (tmpfs, ramfs).
///
/// # Errors
/// The system's.
pub(super) fn is_volatile(file: &File) -> io::Result<bool> {
    const TMPFS: u64 = 0x0102_1994;
    const RAMFS: u64 = 0x8584_58f6;
    let mut facts = std::mem::MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: the buffer is writable and as large as the call wants.
    if unsafe { libc::fstatfs(file.as_raw_fd(), facts.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so it filled the buffer.
    let kind = unsafe { facts.assume_init() }.f_type as u64 & 0xFFFF_FFFF;
    Ok(kind == TMPFS || kind == RAMFS)
}

/// Has the host give `len` bytes at `at` their blocks, so that storing to them can not fail. Does nothing where the
/// host's file system has no such call.
///
/// # Errors
/// The system's; `ENOSPC` where the host is full.
pub(super) fn allocate(file: &File, at: u64, len: u64) -> io::Result<()> {
    let too_large = |_| io::Error::from_raw_os_error(libc::EFBIG);
    let (at, len) = (at.try_into().map_err(too_large)?, len.try_into().map_err(too_large)?);
    loop {
        // SAFETY: the call takes no memory.
        if unsafe { libc::fallocate(file.as_raw_fd(), libc::FALLOC_FL_KEEP_SIZE, at, len) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EINTR) => {}
            Some(libc::EOPNOTSUPP | libc::ENOSYS) => return Ok(()),
            _ => return Err(error),
        }
    }
}

/// Locks a pool's file or device until it is closed: for everybody else, or against writers only.
///
/// # Errors
/// [`Error::Held`] with who holds it; [`Error::Io`].
pub(super) fn lock(file: &File, shared: bool) -> Result<()> {
    let locked = if shared { file.try_lock_shared() } else { file.try_lock() };
    match locked {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(Error::Held(holder(file))),
        Err(TryLockError::Error(source)) => Err(Error::io("locking the pool", source)),
    }
}

fn holder(file: &File) -> Holder {
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    let pid = file.metadata().ok().and_then(|m| holder_in(&locks, m.dev(), m.ino()));
    let command = pid.and_then(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).ok());
    Holder { pid, command: command.map(|c| c.trim_end().to_owned()) }
}

/// The process that holds a lock of flock(2) on an inode, by `/proc/locks`.
fn holder_in(locks: &str, device: u64, inode: u64) -> Option<u32> {
    let key = format!("{:02x}:{:02x}:{inode}", libc::major(device), libc::minor(device));
    locks.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        // A process that waits for the lock has an arrow here.
        if words.next() != Some("FLOCK") {
            return None;
        }
        let pid = words.nth(2)?;
        // The kernel writes 0 for a process that this one may not see.
        if words.next()? == key { pid.parse().ok().filter(|&pid| pid != 0) } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_lock_is_found_by_device_and_inode() {
        let locks = "1: POSIX  ADVISORY  WRITE 11 fe:00:77 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 12 fe:01:77 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 13 fe:00:77 0 EOF\n\
                     3: -> FLOCK  ADVISORY  WRITE 14 fe:00:78 0 EOF\n\
                     4: FLOCK  ADVISORY  READ  0 fe:00:79 0 EOF\n";
        let device = libc::makedev(0xfe, 0);
        assert_eq!(holder_in(locks, device, 77), Some(13));
        assert_eq!(holder_in(locks, device, 78), None);
        assert_eq!(holder_in(locks, device, 79), None);
        assert_eq!(holder_in("", device, 77), None);
    }

    /// A sysfs with one device, 251:3, in an NVDIMM region.
    fn sysfs(subsystem: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let device = root.path().join("devices/ndbus0/region0/dax0.0/dax/dax0.0");
        fs::create_dir_all(&device).unwrap();
        fs::create_dir_all(root.path().join("dev/char")).unwrap();
        symlink(&device, root.path().join("dev/char/251:3")).unwrap();
        symlink(format!("../../../../../../bus/{subsystem}"), device.join("subsystem")).unwrap();
        fs::write(device.join("size"), "270532608\n").unwrap();
        fs::write(device.join("align"), "2097152\n").unwrap();
        root
    }

    #[test]
    fn devdax_is_told_by_its_subsystem() {
        let number = libc::makedev(251, 3);
        let root = sysfs("dax");
        let dax = Dax { size: 270_532_608, align: 2 << 20 };
        assert_eq!(devdax(root.path(), number).unwrap(), Some(dax));
        assert_eq!(devdax(root.path(), libc::makedev(251, 4)).unwrap(), None);
        assert_eq!(devdax(sysfs("tty").path(), number).unwrap(), None);
        fs::write(root.path().join("dev/char/251:3/size"), "many\n").unwrap();
        assert!(matches!(devdax(root.path(), number), Err(Error::Path { .. })));
    }

    #[test]
    fn eadr_is_what_the_region_of_the_device_says() {
        let root = tempfile::tempdir().unwrap();
        let file = fs::File::open(root.path()).unwrap();
        let inside = tempfile::NamedTempFile::new_in(root.path()).unwrap();
        let metadata = inside.as_file().metadata().unwrap();
        let number = metadata.dev();
        let region = root.path().join("devices/region0");
        fs::create_dir_all(region.join("block/pmem0")).unwrap();
        fs::create_dir_all(root.path().join("dev/block")).unwrap();
        assert!(!caches_persist(root.path(), &metadata), "no such device");
        let link = format!("dev/block/{}:{}", libc::major(number), libc::minor(number));
        symlink(region.join("block/pmem0"), root.path().join(link)).unwrap();
        assert!(!caches_persist(root.path(), &metadata), "a device outside any region");
        fs::write(region.join("persistence_domain"), "memory_controller\n").unwrap();
        assert!(!caches_persist(root.path(), &metadata));
        fs::write(region.join("persistence_domain"), "cpu_cache\n").unwrap();
        assert!(caches_persist(root.path(), &metadata));
        assert!(!caches_persist(root.path(), &file.metadata().unwrap()), "not a file: looked up as a device");
    }

    #[test]
    fn memory_file_systems_are_volatile() {
        assert!(is_volatile(&tempfile::tempfile_in("/dev/shm").unwrap()).unwrap());
        assert!(!is_volatile(&File::open("/proc/self/stat").unwrap()).unwrap());
    }
}
