//! Which bytes has the medium lost?
//!
//! The kernel keeps a list of them for each device of persistent memory (`badblocks` in sysfs), and a load of such a
//! byte raises SIGBUS. So they are known before anything is touched, and [`super::Region`] does not touch them.
//!
//! Invariants:
//! 1. Ranges are whole blocks of 4 KiB: the kernel gives no translation of a page any byte of which is bad.
//! 2. Ranges neither overlap nor touch.
//! 3. What sysfs says is not trusted: lines that make no sense are left out, and no number overflows.

use super::fiemap::{HostExtent, host_extents};
use super::host;
use crate::error::{Error, Result};
use crate::units::{BLOCK_BYTES, PoolOff};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::ops::Range;
use std::path::Path;

/// Bytes of the sectors that sysfs counts in, whatever the device.
const SECTOR_BYTES: u64 = 512;
/// A file in sysfs has at most a page: one that is nearly as long was cut.
const SYSFS_BYTES: usize = 4096 - 32;

/// Bad ranges: start to end in bytes, the end exclusive.
#[derive(Debug, Default)]
pub(super) struct BadRanges(BTreeMap<u64, u64>);

impl BadRanges {
    /// Adds the blocks that `bytes` touch.
    pub(super) fn add(&mut self, bytes: Range<u64>) {
        if bytes.is_empty() {
            return;
        }
        let mut start = bytes.start - bytes.start % BLOCK_BYTES;
        let mut end = bytes.end.checked_next_multiple_of(BLOCK_BYTES).unwrap_or(bytes.end);
        while let Some((from, to)) = self.0.range(..=end).next_back().map(|(from, to)| (*from, *to)) {
            if to < start {
                break;
            }
            self.0.remove(&from);
            (start, end) = (start.min(from), end.max(to));
        }
        self.0.insert(start, end);
    }

    /// Takes the blocks of `bytes`, whole ones, off the list.
    pub(super) fn remove(&mut self, bytes: Range<u64>) {
        while let Some(found) = self.first(bytes.clone()) {
            let Some((from, to)) = self.0.range(..=found.start).next_back().map(|(from, to)| (*from, *to))
            else {
                return;
            };
            self.0.remove(&from);
            for rest in [from..found.start, found.end..to] {
                if !rest.is_empty() {
                    self.0.insert(rest.start, rest.end);
                }
            }
        }
    }

    /// The first bad bytes of `bytes`.
    pub(super) fn first(&self, bytes: Range<u64>) -> Option<Range<u64>> {
        let before = self.0.range(..=bytes.start).next_back().filter(|(_, end)| **end > bytes.start);
        let (from, to) = before.or_else(|| self.0.range(bytes.start..bytes.end).next())?;
        Some((*from).max(bytes.start)..(*to).min(bytes.end)).filter(|found| !found.is_empty())
    }

    /// The lowest bad byte.
    pub(super) fn lowest(&self) -> Option<u64> {
        self.0.first_key_value().map(|(start, _)| *start)
    }

    /// Every range, ascending: where, and how many bytes.
    pub(super) fn all(&self) -> Vec<(PoolOff, u64)> {
        self.0.iter().map(|(start, end)| (PoolOff(*start), end - start)).collect()
    }
}

/// What `badblocks` in sysfs lists: "sector length" a line, as byte ranges.
fn parse(text: &str) -> Vec<Range<u64>> {
    if text.len() >= SYSFS_BYTES {
        tracing::warn!("the kernel lists more bad blocks than fit its file; the rest is not known");
    }
    let range = |line: &str| {
        let mut words = line.split_ascii_whitespace().map(|word| word.parse::<u64>().ok());
        let (sector, count) = (words.next()??, words.next()??);
        let start = sector.checked_mul(SECTOR_BYTES)?;
        let end = start.checked_add(count.checked_mul(SECTOR_BYTES)?)?;
        (start < end).then_some(start..end)
    };
    text.lines().filter_map(range).collect()
}

fn listed(directory: &Path) -> Option<Vec<Range<u64>>> {
    fs::read_to_string(directory.join("badblocks")).ok().map(|text| parse(&text))
}

/// What of `ranges` lies in `window`, counted from its start.
fn within(ranges: Vec<Range<u64>>, window: Range<u64>) -> Vec<Range<u64>> {
    let clip = |range: Range<u64>| {
        let (start, end) = (range.start.max(window.start), range.end.min(window.end));
        (start < end).then(|| start - window.start..end - window.start)
    };
    ranges.into_iter().filter_map(clip).collect()
}

/// Bad bytes of the block device with this number. A partition has no list of its own: its disk's is cut to it.
pub(super) fn of_block_device(sysfs: &Path, number: u64) -> Vec<Range<u64>> {
    let Ok(device) = fs::canonicalize(host::device(sysfs, "block", number)) else { return Vec::new() };
    let sectors = |name| host::number_in(device.join(name)).ok()?.checked_mul(SECTOR_BYTES);
    match (sectors("start"), sectors("size"), device.parent()) {
        (Some(start), Some(size), Some(disk)) => {
            within(listed(disk).unwrap_or_default(), start..start.saturating_add(size))
        }
        _ => listed(&device).unwrap_or_default(),
    }
}

/// Bad bytes of the devdax device with this number. Its NVDIMM region has the list; where in it the device lies is told
/// to the administrator alone.
///
/// # Errors
/// [`Error::Path`] where the region has bad bytes and sysfs does not tell which of them are the device's.
pub(super) fn of_devdax(sysfs: &Path, number: u64) -> Result<Vec<Range<u64>>> {
    let Ok(device) = fs::canonicalize(host::device(sysfs, "char", number)) else { return Ok(Vec::new()) };
    let region = device.ancestors().skip(1).find_map(|dir| Some((dir, listed(dir)?)));
    let Some((region, ranges)) = region.filter(|(_, ranges)| !ranges.is_empty()) else {
        return Ok(Vec::new());
    };
    let place = host::number_in(device.join("resource"))?;
    let start = place.saturating_sub(host::number_in(region.join("resource"))?);
    let size = host::number_in(device.join("size"))?;
    Ok(within(ranges, start..start.saturating_add(size)))
}

/// Where `bad` bytes of a device come to lie in a file that has these extents; what is not placed yet, and what
/// is no plain run of bytes there, is left out.
fn in_file(bad: &[Range<u64>], extents: &[HostExtent]) -> Vec<Range<u64>> {
    let mut found = Vec::new();
    for extent in extents.iter().filter(|extent| extent.is_placed()) {
        let window = extent.physical..extent.physical.saturating_add(extent.len);
        let inside = within(bad.to_vec(), window);
        found.extend(inside.into_iter().filter_map(|range| {
            Some(extent.logical.checked_add(range.start)?..extent.logical.checked_add(range.end)?)
        }));
    }
    found
}

/// Bad bytes of a file that lies on the block device with this number.
///
/// # Errors
/// [`Error::Io`] where the device has bad bytes and the file system does not tell where the file lies on it.
pub(super) fn of_file(sysfs: &Path, number: u64, file: &File) -> Result<Vec<Range<u64>>> {
    let bad = of_block_device(sysfs, number);
    if bad.is_empty() {
        return Ok(Vec::new());
    }
    let extents = host_extents(file).map_err(|source| {
        Error::io("asking where the pool lies on its device, which has bad blocks", source)
    })?;
    Ok(in_file(&bad, &extents))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::symlink;

    const B: u64 = BLOCK_BYTES;

    #[test]
    fn lists_of_the_kernel_are_read_and_nonsense_is_left_out() {
        assert_eq!(parse("0 8\n1024 1\n"), [0..4096, 1024 * 512..1025 * 512]);
        assert_eq!(parse(""), []);
        assert_eq!(parse("\n"), []);
        let hostile = "8\n-1 5\n7 0\n18446744073709551615 2\n36028797018963967 1\n1 x\n\u{fe}\n3 1";
        assert_eq!(parse(hostile), vec![3 * 512..4 * 512]);
        assert_eq!(parse("36028797018963966 1\n"), vec![u64::MAX - 1023..u64::MAX - 511]);
    }

    fn block_device(root: &Path) -> std::path::PathBuf {
        let disk = root.join("devices/ndbus0/region0/namespace0.0/block/pmem0");
        fs::create_dir_all(disk.join("pmem0p1")).unwrap();
        fs::create_dir_all(root.join("dev/block")).unwrap();
        symlink(&disk, root.join("dev/block/259:0")).unwrap();
        symlink(disk.join("pmem0p1"), root.join("dev/block/259:1")).unwrap();
        fs::write(disk.join("size"), "16384\n").unwrap();
        fs::write(disk.join("badblocks"), "16 8\n2060 2\n4095 9\n").unwrap();
        fs::write(disk.join("pmem0p1/start"), "2048\n").unwrap();
        fs::write(disk.join("pmem0p1/size"), "2050\n").unwrap();
        disk
    }

    #[test]
    fn the_list_of_a_disk_is_cut_to_the_partition() {
        let root = tempfile::tempdir().unwrap();
        let disk = block_device(root.path());
        let of = |minor| of_block_device(root.path(), libc::makedev(259, minor));
        assert_eq!(of(0), [16 * 512..24 * 512, 2060 * 512..2062 * 512, 4095 * 512..4104 * 512]);
        assert_eq!(of(1), [12 * 512..14 * 512, 2047 * 512..2050 * 512]);
        assert_eq!(of(2), [], "no such device");
        fs::remove_file(disk.join("badblocks")).unwrap();
        assert_eq!(of(0), [], "no list");
    }

    #[test]
    fn the_list_of_a_region_is_cut_to_the_devdax_device() {
        let root = tempfile::tempdir().unwrap();
        let region = root.path().join("devices/ndbus0/region0");
        let device = region.join("dax0.0/dax0.0");
        fs::create_dir_all(&device).unwrap();
        fs::create_dir_all(root.path().join("dev/char")).unwrap();
        symlink(&device, root.path().join("dev/char/251:3")).unwrap();
        let of = || of_devdax(root.path(), libc::makedev(251, 3));
        assert_eq!(of().unwrap(), [], "memory without a list");
        fs::write(region.join("badblocks"), "\n").unwrap();
        assert_eq!(of().unwrap(), [], "nothing is bad, and nothing else is asked");
        fs::write(region.join("badblocks"), "0 8\n4104 8\n100000 8\n").unwrap();
        assert!(matches!(of(), Err(Error::Path { .. })), "bad bytes that can not be placed");
        fs::write(region.join("resource"), "0x240000000\n").unwrap();
        fs::write(device.join("resource"), "0x240200000\n").unwrap();
        fs::write(device.join("size"), "4194304\n").unwrap();
        assert_eq!(of().unwrap(), vec![4096..8192]);
    }

    #[test]
    fn bad_bytes_of_a_device_are_found_in_the_extents_of_a_file() {
        let extent = |file, device, len| HostExtent::new(file, device, len, 0);
        let nowhere = HostExtent::new(0, 0, 100 * B, 0x2);
        let extents =
            [extent(0, 10 * B, 2 * B), extent(4 * B, 2 * B, B), extent(5 * B, u64::MAX - 10, 100), nowhere];
        let bad = [B..B + 512, 2 * B + 512..3 * B + 512, 11 * B - 512..11 * B + 512, 20 * B..21 * B];
        assert_eq!(in_file(&bad, &extents), [B - 512..B + 512, 4 * B + 512..5 * B]);
        assert_eq!(in_file(&bad, &[]), []);
    }

    #[test]
    fn bad_bytes_of_a_device_are_found_in_a_file_on_it() {
        use std::io::Write;
        let (root, mut file) = (tempfile::tempdir().unwrap(), tempfile::NamedTempFile::new().unwrap());
        file.write_all(&[1; 8 * B as usize]).unwrap();
        file.as_file().sync_all().unwrap();
        let device = std::os::unix::fs::MetadataExt::dev(&file.as_file().metadata().unwrap());
        let of = || of_file(root.path(), device, file.as_file());
        assert_eq!(of().unwrap(), [], "a device without a list");
        let link = host::device(root.path(), "block", device);
        fs::create_dir_all(&link).unwrap();
        // Without physical addresses there is nothing to compare with.
        let extents = match host_extents(file.as_file()) {
            Ok(extents) if extents.iter().all(HostExtent::is_placed) && !extents.is_empty() => extents,
            _ => return,
        };
        assert_eq!(extents[0].logical, 0);
        fs::write(link.join("badblocks"), format!("{} 3\n", extents[0].physical / SECTOR_BYTES + 1)).unwrap();
        assert_eq!(of().unwrap(), vec![SECTOR_BYTES..4 * SECTOR_BYTES]);
        let memory = tempfile::tempfile_in("/dev/shm").unwrap();
        assert!(matches!(of_file(root.path(), device, &memory), Err(Error::Io { .. })), "no addresses");
    }

    proptest! {
        #[test]
        fn ranges_are_as_a_set_of_blocks(steps in prop::collection::vec((any::<bool>(), 0u64..40, 1u64..6, 0u64..B), 0..40)) {
            let (mut ranges, mut model) = (BadRanges::default(), [false; 64]);
            for (add, block, blocks, skew) in steps {
                if add {
                    ranges.add(block * B + skew..(block + blocks) * B - (B - 1 - skew).min(skew));
                } else {
                    ranges.remove(block * B..(block + blocks) * B);
                }
                model[block as usize..(block + blocks) as usize].fill(add);
            }
            let all = ranges.all();
            let listed = |i: u64| all.iter().any(|(at, len)| (at.0..at.0 + len).contains(&(i * B)));
            for i in 0..64 {
                prop_assert_eq!(listed(i), model[i as usize]);
                let rest = (i..64).find(|i| model[*i as usize]);
                prop_assert_eq!(ranges.first(i * B..64 * B).map(|r| r.start), rest.map(|i| i * B));
            }
            prop_assert!(all.windows(2).all(|pair| pair[0].0.0 + pair[0].1 < pair[1].0.0), "{:?}", all);
            prop_assert_eq!(ranges.lowest(), all.first().map(|first| first.0.0));
        }
    }
}
