//! Where on its block device does a file of the host lie, and what of it was written?
//!
//! `FS_IOC_FIEMAP` without `FIEMAP_FLAG_SYNC`: a sync of a DAX file makes every page fault again.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// A run of a host file's blocks: `struct fiemap_extent` of Linux.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostExtent {
    /// Bytes from the file's start.
    pub logical: u64,
    /// Bytes from the device's start; means something only where [`Self::is_placed`].
    pub physical: u64,
    /// Bytes.
    pub len: u64,
    reserved: [u64; 2],
    /// `FIEMAP_EXTENT_...`
    pub flags: u32,
    reserved_flags: [u32; 3],
}

impl HostExtent {
    /// The file's last one.
    const LAST: u32 = 0x1;
    /// Unknown place, delayed allocation, encoded, encrypted, data that is not aligned, inside of metadata.
    const UNPLACED: u32 = 0x2 | 0x4 | 0x8 | 0x80 | 0x100 | 0x200;
    /// Allocated and never written.
    pub const UNWRITTEN: u32 = 0x800;

    /// A run of `len` bytes.
    #[must_use]
    pub fn new(logical: u64, physical: u64, len: u64, flags: u32) -> Self {
        Self { logical, physical, len, flags, ..Self::default() }
    }

    /// Whether it is a plain run of bytes at a known place of its device.
    #[must_use]
    pub const fn is_placed(&self) -> bool {
        self.flags & Self::UNPLACED == 0
    }

    /// Whether it has a place and was written.
    #[must_use]
    pub const fn is_written(&self) -> bool {
        self.is_placed() && self.flags & Self::UNWRITTEN == 0
    }
}

/// `struct fiemap` of Linux, with room for some extents.
#[repr(C)]
struct Fiemap {
    start: u64,
    length: u64,
    flags: u32,
    mapped_extents: u32,
    extent_count: u32,
    reserved: u32,
    extents: [HostExtent; EXTENTS],
}

const EXTENTS: usize = 64;
const _: () = assert!(size_of::<HostExtent>() == 56);
const _: () = assert!(std::mem::offset_of!(Fiemap, extents) == 32);

/// The extents of `file`, ascending, placed or not. Holes have none.
///
/// # Errors
/// The system's; `EOPNOTSUPP` or `ENOTTY` where the file system does not tell.
pub fn host_extents(file: &File) -> io::Result<Vec<HostExtent>> {
    let (mut all, mut start) = (Vec::new(), 0);
    loop {
        let found = fiemap(file, start)?;
        let extents = found.extents.get(..found.mapped_extents as usize).unwrap_or(&found.extents);
        all.extend_from_slice(extents);
        let Some(last) = extents.last() else { return Ok(all) };
        let end = last.logical.saturating_add(last.len);
        if last.flags & HostExtent::LAST != 0 || end <= start {
            return Ok(all);
        }
        start = end;
    }
}

/// Some extents of `file` from byte `start` on.
fn fiemap(file: &File, start: u64) -> io::Result<Fiemap> {
    // _IOWR('f', 11, struct fiemap)
    const FS_IOC_FIEMAP: u64 = 0xC020_660B;
    let mut map = Fiemap {
        start,
        length: u64::MAX - start,
        flags: 0,
        mapped_extents: 0,
        extent_count: EXTENTS as u32,
        reserved: 0,
        extents: [HostExtent::default(); EXTENTS],
    };
    // SAFETY: the call reads the head of `map` and writes no more extents behind it than `extent_count` says there is
    // room for; every bit pattern is one of these structs of integers.
    match unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_FIEMAP as _, &raw mut map) } {
        0 => Ok(map),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn extents_of_a_real_file_ascend_and_cover_what_was_written() {
        let file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        for i in 0..200 {
            file.write_all_at(&[1; 4096], i * 8192).unwrap();
        }
        file.sync_all().unwrap();
        let Ok(extents) = host_extents(&file) else { return };
        assert!(extents.windows(2).all(|pair| pair[0].logical + pair[0].len <= pair[1].logical));
        assert!(extents.iter().map(|extent| extent.len).sum::<u64>() >= 200 * 4096);
    }
}
