//! How does a pool come into the address space?
//!
//! A file that can grow is mapped with room for the largest pool, 16 TiB of addresses, so that growing it moves
//! nothing; where addresses are scarce, with its exact length. Memory that may be translated 2 MiB at a time
//! starts at a multiple of 2 MiB (or of the device's alignment, where that is larger). A child process does not
//! inherit a mapping, and a core dump does not hold it.
//!
//! Invariant: what [`Memory`] names stays mapped as long as the mapping it was taken from.

use super::memory::Memory;
use crate::sync::Arc;
use crate::units::{BLOCK_BYTES, CHUNK_BYTES, MAX_POOL_BYTES, PoolOff};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// How much to map, and for what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    /// Bytes that there are.
    pub(super) len: u64,
    /// Whether to leave room for the largest pool.
    pub(super) room: bool,
    /// Whether stores are allowed.
    pub(super) writable: bool,
}

impl Extent {
    /// Maps with room for the largest pool if that is asked for and possible, else with the exact length.
    fn map<T>(self, map: impl Fn(usize) -> io::Result<T>) -> io::Result<(T, u64)> {
        let exact = |len: u64| {
            let len = usize::try_from(len).map_err(|_| io::Error::from_raw_os_error(libc::ENOMEM))?;
            Ok((map(len)?, len as u64))
        };
        if self.room
            && let Ok(mapped) = exact(MAX_POOL_BYTES)
        {
            return Ok(mapped);
        }
        exact(self.len)
    }
}

/// A plain file, mapped for `Pages`.
#[derive(Debug)]
pub(super) struct PageMapping {
    memory: Memory,
    map: memmap2::MmapRaw,
    mapped: u64,
    file: Arc<File>,
}

impl PageMapping {
    /// Maps `extent` of `file`.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn new(file: Arc<File>, extent: Extent) -> io::Result<Self> {
        let (map, mapped) = extent.map(|len| {
            let mut options = memmap2::MmapOptions::new();
            options.len(len);
            if extent.writable { options.map_raw(&*file) } else { options.map_raw_read_only(&*file) }
        })?;
        map.advise(memmap2::Advice::DontFork)?;
        map.advise(memmap2::Advice::DontDump)?;
        // SAFETY: the mapping is page aligned and `mapped` bytes long, the same value keeps it, and a region opened
        // read-only stores nothing.
        let memory = unsafe { Memory::new(map.as_mut_ptr(), mapped) };
        Ok(Self { memory, map, mapped, file })
    }

    #[inline]
    pub(super) fn memory(&self) -> &Memory {
        &self.memory
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    pub(super) fn mapped(&self) -> u64 {
        self.mapped
    }

    /// Writes the pages of `len` bytes at `at` to the disk and waits.
    pub(super) fn write_back(&self, at: u64, len: u64) -> io::Result<()> {
        self.map.flush_range(at as usize, len as usize)
    }
}

/// What kind of mapping persistent memory is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sharing {
    /// A shared mapping like any other.
    Plain,
    /// `MAP_SYNC`: what a flush made durable can be reached after a power cut; only DAX file systems grant it.
    Sync,
}

/// Persistent memory, mapped for `Lines` and `Libpmem`.
#[derive(Debug)]
pub(super) struct LineMapping {
    memory: Memory,
    raw: RawMap,
}

impl LineMapping {
    /// Maps `extent` of `file` at a multiple of `align`, a power of two, or of 2 MiB, if that is larger.
    ///
    /// # Errors
    /// The system's; `EOPNOTSUPP` or `EINVAL` where `Sharing::Sync` is not granted.
    pub(super) fn new(file: &File, extent: Extent, align: u64, sharing: Sharing) -> io::Result<Self> {
        let align = align.max(CHUNK_BYTES) as usize;
        let (raw, mapped) = extent.map(|len| RawMap::new(file, len, align, extent.writable, sharing))?;
        raw.advise(libc::MADV_DONTFORK)?;
        raw.advise(libc::MADV_DONTDUMP)?;
        // SAFETY: the mapping is page aligned and `mapped` bytes long, the same value keeps it, and a region opened
        // read-only stores nothing.
        let memory = unsafe { Memory::new(raw.base, mapped) };
        Ok(Self { memory, raw })
    }

    #[inline]
    pub(super) fn memory(&self) -> &Memory {
        &self.memory
    }

    pub(super) fn mapped(&self) -> u64 {
        self.raw.len as u64
    }

    /// Has the system translate the chunk at `at`, as large as it can. Where it can not (before Linux 5.14), the first touch does
    /// that.
    pub(super) fn prime(&self, at: PoolOff, writable: bool) {
        let advice = if writable { libc::MADV_POPULATE_WRITE } else { libc::MADV_POPULATE_READ };
        let page = self.memory.pointer(at, BLOCK_BYTES);
        // SAFETY: `Memory` has checked that the page lies in this mapping; the advice changes no contents. What fails
        // changes nothing.
        unsafe { libc::madvise(page.cast(), BLOCK_BYTES as usize, advice) };
    }
}

/// Addresses that are given back on drop: a mapping, and around it what was reserved to align it.
#[derive(Debug)]
struct RawMap {
    area: *mut u8,
    area_len: usize,
    base: *mut u8,
    len: usize,
}

// SAFETY: the pointer is only a number here; the memory behind it is reached through `Memory`.
unsafe impl Send for RawMap {}
// SAFETY: as for Send; nothing is done through `&RawMap` but madvise, which any thread may call.
unsafe impl Sync for RawMap {}

impl RawMap {
    /// Maps `len` bytes of `file` at a multiple of `align`, inside a larger range that it reserves.
    fn new(file: &File, len: usize, align: usize, writable: bool, sharing: Sharing) -> io::Result<Self> {
        if sharing == Sharing::Sync {
            probe_sync(file, writable)?;
        }
        let too_large = || io::Error::from_raw_os_error(libc::ENOMEM);
        let area_len = len.checked_add(align).ok_or_else(too_large)?;
        let none = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping wherever the system likes touches none that exists.
        let area = unsafe { map(std::ptr::null_mut(), area_len, libc::PROT_NONE, none, -1)? };
        let base = area.wrapping_add((area as usize).wrapping_neg() % align);
        let reserved = Self { area, area_len, base, len };
        let prot = if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        let flags = match sharing {
            Sharing::Plain => libc::MAP_SHARED,
            Sharing::Sync => libc::MAP_SHARED_VALIDATE | libc::MAP_SYNC,
        };
        // SAFETY: `base` is less than `align` above `area`, so that the range lies inside the reservation, which is
        // ours and unused.
        match unsafe { map(base, len, prot, flags | libc::MAP_FIXED, file.as_raw_fd()) } {
            Ok(_) => Ok(reserved),
            Err(error) => {
                reserved.forget_middle();
                Err(error)
            }
        }
    }

    /// Gives back what lies around the mapping that failed. The system may have taken the range of it away before it failed, and
    /// another thread may have got it since: it is not ours to unmap any more. If it is still reserved, its
    /// addresses are lost, and nothing else.
    fn forget_middle(self) {
        let before = self.base as usize - self.area as usize;
        let after = self.area_len - before - self.len;
        // SAFETY: both ranges are parts of the reservation that the failed call did not name.
        unsafe {
            libc::munmap(self.area.cast(), before);
            libc::munmap(self.base.wrapping_add(self.len).cast(), after);
        }
        std::mem::forget(self);
    }

    fn advise(&self, advice: i32) -> io::Result<()> {
        // SAFETY: the range is mapped by `self`; the advice given here changes no contents.
        match unsafe { libc::madvise(self.base.cast(), self.len, advice) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for RawMap {
    fn drop(&mut self) {
        // SAFETY: the range was reserved by `self`, which alone names it; the `Memory` made of it lies beside it in
        // one owner. It can not fail for such a range, and there would be nobody to tell.
        unsafe { libc::munmap(self.area.cast(), self.area_len) };
    }
}

/// Whether the file grants `MAP_SYNC`, found out by a mapping at no fixed place: one that is refused at a fixed place
/// leaves a hole there.
fn probe_sync(file: &File, writable: bool) -> io::Result<()> {
    let prot = if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
    let flags = libc::MAP_SHARED_VALIDATE | libc::MAP_SYNC;
    // SAFETY: a new mapping wherever the system likes touches none that exists.
    let page = unsafe { map(std::ptr::null_mut(), BLOCK_BYTES as usize, prot, flags, file.as_raw_fd())? };
    // SAFETY: the page was mapped a moment ago, and nobody else knows of it.
    unsafe { libc::munmap(page.cast(), BLOCK_BYTES as usize) };
    Ok(())
}

/// # Safety
/// With `MAP_FIXED` in `flags`, the caller owns the addresses and nothing uses them.
unsafe fn map(at: *mut u8, len: usize, prot: i32, flags: i32, fd: i32) -> io::Result<*mut u8> {
    // SAFETY: the caller's promise; without MAP_FIXED no mapping that exists changes.
    let base = unsafe { libc::mmap(at.cast(), len, prot, flags, fd, 0) };
    if base == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(base.cast()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::PoolOff;

    fn file(len: u64) -> File {
        let file = tempfile::tempfile_in("/dev/shm").unwrap();
        file.set_len(len).unwrap();
        file
    }

    #[test]
    fn persistent_memory_is_aligned_and_shared() {
        let file = file(16 << 20);
        let extent = Extent { len: 16 << 20, room: false, writable: true };
        let first = LineMapping::new(&file, extent, 4096, Sharing::Plain).unwrap();
        let second = LineMapping::new(&file, extent, 1 << 30, Sharing::Plain).unwrap();
        assert_eq!(first.raw.base as u64 % CHUNK_BYTES, 0);
        assert_eq!(second.raw.base as u64 % (1 << 30), 0);
        assert_eq!(second.mapped(), 16 << 20);
        first.memory().write(PoolOff((16 << 20) - 8), b"at the e");
        let mut found = [0; 8];
        second.memory().read(PoolOff((16 << 20) - 8), &mut found);
        assert_eq!(&found, b"at the e");
    }

    #[test]
    fn room_is_made_for_the_largest_pool_and_given_up_where_it_can_not() {
        let file = Arc::new(file(8 << 20));
        let extent = Extent { len: 8 << 20, room: true, writable: true };
        let roomy = PageMapping::new(Arc::clone(&file), extent).unwrap();
        assert_eq!(roomy.mapped(), MAX_POOL_BYTES);
        let scarce = |len: usize| {
            if len as u64 > 1 << 30 { Err(io::Error::from_raw_os_error(libc::ENOMEM)) } else { Ok(()) }
        };
        assert_eq!(extent.map(scarce).unwrap().1, 8 << 20);
    }

    /// A refused mapping left a hole in its reservation, and the reservation was unmapped as a whole, with what another
    /// thread had got there meanwhile.
    #[cfg(not(loom))]
    #[test]
    fn what_is_refused_takes_nobodys_memory() {
        use std::sync::atomic::{AtomicBool, Ordering};
        let extent = Extent { len: 32 << 20, room: false, writable: true };
        // On a disk: file systems that could do DAX refuse late, with the range unmapped already; a tmpfs refuses early.
        let file = tempfile::tempfile().unwrap();
        file.set_len(extent.len).unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // Others come and go, so that the highest gap there is, is a hole now and then.
                let mut maps = std::collections::VecDeque::new();
                for round in 0.. {
                    let len = (20 + round * 7 % 14) << 20;
                    let mut map = memmap2::MmapOptions::new().len(len).map_anon().unwrap();
                    (map[0], map[len - 1]) = (7, 7);
                    maps.push_back(map);
                    let first = (maps.len() > round % 5).then(|| maps.pop_front()).flatten();
                    assert!(first.is_none_or(|map| map[0] == 7 && map.last() == Some(&7)));
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                }
            });
            for _ in 0..20_000 {
                assert!(LineMapping::new(&file, extent, 4096, Sharing::Sync).is_err());
            }
            done.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    fn a_file_in_memory_grants_no_sync_mapping() {
        let extent = Extent { len: 8 << 20, room: true, writable: true };
        let refused = LineMapping::new(&file(8 << 20), extent, 4096, Sharing::Sync).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EOPNOTSUPP));
    }
}
