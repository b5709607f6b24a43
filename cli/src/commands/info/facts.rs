//! What does the host tell of the place that a pool lies in?
//!
//! Functions take the text or the tree that they read, so that tests can bring their own.

use super::layout::Layout;
use daxstore::pmem::host_extents;
use std::fs::{self, File};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// What was found; what could not be found out is missing, and warned of nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The mount that the file lies in.
    pub mount: Option<Mount>,
    /// Whether the device below the file system is memory.
    pub device_is_memory: bool,
    /// The namespace of the device, such as `namespace0.0`.
    pub namespace: Option<String>,
    /// Whether the memory was set aside on the kernel's command line.
    pub set_aside: bool,
    /// How the file lies on its device.
    pub layout: Option<Layout>,
}

/// A line of `/proc/self/mountinfo`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mount {
    /// Where it is mounted.
    pub point: String,
    /// The file system's name.
    pub kind: String,
    /// What is mounted.
    pub source: String,
    /// The file system's own options.
    pub options: Vec<String>,
}

impl Mount {
    /// The value of an option.
    pub fn option(&self, name: &str) -> Option<&str> {
        self.options.iter().find_map(|option| match option.split_once('=') {
            Some((key, value)) if key == name => Some(value),
            None if option == name => Some(""),
            _ => None,
        })
    }
}

impl Facts {
    /// The facts about `pool`.
    pub fn find(pool: &Path) -> Self {
        let Ok(metadata) = fs::metadata(pool) else { return Self::default() };
        let is_device = metadata.file_type().is_char_device();
        let (kind, number) = if is_device { ("char", metadata.rdev()) } else { ("block", metadata.dev()) };
        let mut facts = Self::of_device(Path::new("/sys"), kind, number);
        let told = fs::read_to_string("/proc/cmdline").unwrap_or_default();
        facts.set_aside &= told.split_ascii_whitespace().any(|word| word.starts_with("memmap="));
        if !is_device {
            let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
            facts.mount = mount(&mounts, number, pool);
            let start = partition_start(Path::new("/sys"), number);
            let extents = File::open(pool).and_then(|file| host_extents(&file)).ok();
            facts.layout = extents.map(|extents| Layout::new(metadata.len(), start, &extents));
        }
        facts
    }

    fn of_device(sysfs: &Path, kind: &str, number: u64) -> Self {
        let Ok(device) = fs::canonicalize(device(sysfs, kind, number)) else { return Self::default() };
        let dax = |dir: &Path| fs::read_to_string(dir.join("queue/dax")).is_ok_and(|text| text.trim() == "1");
        let name = |dir: &Path| {
            let own =
                dir.file_name()?.to_str().filter(|name| name.starts_with("namespace")).map(str::to_owned);
            own.or_else(|| Some(fs::read_to_string(dir.join("namespace")).ok()?.trim().to_owned()))
        };
        Self {
            device_is_memory: device.ancestors().take(2).any(dax),
            namespace: device.ancestors().find_map(name).filter(|name| !name.is_empty()),
            set_aside: device.components().any(|part| part.as_os_str() == "e820_pmem"),
            ..Self::default()
        }
    }
}

fn device(sysfs: &Path, kind: &str, number: u64) -> PathBuf {
    let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
    sysfs.join("dev").join(kind).join(format!("{major}:{minor}"))
}

/// Bytes from the start of the whole device to that of the partition.
fn partition_start(sysfs: &Path, number: u64) -> u64 {
    let sectors = fs::read_to_string(device(sysfs, "block", number).join("start"));
    sectors.ok().and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or(0) * 512
}

/// The mount of a device that `path` lies in: of several the one with the longest point above it.
fn mount(mounts: &str, number: u64, path: &Path) -> Option<Mount> {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let device = format!("{}:{}", rustix::fs::major(number), rustix::fs::minor(number));
    let of_device = mounts.lines().filter_map(|line| {
        let (place, source) = line.split_once(" - ")?;
        let place: Vec<_> = place.split(' ').collect();
        let [kind, source, options] = source.split(' ').collect::<Vec<_>>()[..] else { return None };
        (place.get(2) == Some(&device.as_str())).then(|| Mount {
            point: unescape(place.get(4).unwrap_or(&"/")),
            kind: kind.to_owned(),
            source: unescape(source),
            options: options.split(',').map(str::to_owned).collect(),
        })
    });
    of_device.filter(|mount| path.starts_with(&mount.point)).max_by_key(|mount| mount.point.len())
}

/// Spaces and such stand as three octal digits there.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (escaped, plain)| text.replace(escaped, plain))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn the_nearest_mount_of_the_device_is_found() {
        let mounts = "22 1 259:0 / / rw - xfs /dev/pmem0 rw,attr2,dax=always,sunit=4096\n\
                      23 22 259:0 /a /nowhere/a\\040b rw shared:1 - xfs /dev/pmem0 rw\n\
                      24 22 0:20 / /dev/shm rw - tmpfs tmpfs rw,huge=always\n";
        let found = |number, path| mount(mounts, number, Path::new(path)).map(|mount| mount.point);
        let pmem = rustix::fs::makedev(259, 0);
        assert_eq!(found(pmem, "/nowhere/pool").as_deref(), Some("/"));
        assert_eq!(found(pmem, "/nowhere/a b/pool").as_deref(), Some("/nowhere/a b"));
        assert_eq!(found(rustix::fs::makedev(259, 1), "/nowhere/pool"), None);
        let root = mount(mounts, pmem, Path::new("/nowhere/pool")).unwrap();
        assert_eq!(
            (root.option("sunit"), root.option("attr2"), root.option("dax")),
            (Some("4096"), Some(""), Some("always"))
        );
        assert_eq!(root.option("su"), None);
    }

    #[test]
    fn devices_are_told_by_sysfs() {
        let root = tempfile::tempdir().unwrap();
        let region = root.path().join("devices/platform/e820_pmem/ndbus0/region0");
        let make = |dir: &Path, link: &str| {
            fs::create_dir_all(dir).unwrap();
            let link = root.path().join("dev").join(link);
            fs::create_dir_all(link.parent().unwrap()).unwrap();
            symlink(dir, link).unwrap();
        };
        make(&region.join("pfn0.0/block/pmem0"), "block/259:0");
        make(&region.join("dax0.1/dax/dax0.1"), "char/251:3");
        fs::create_dir_all(region.join("pfn0.0/block/pmem0/queue")).unwrap();
        fs::write(region.join("pfn0.0/block/pmem0/queue/dax"), "1\n").unwrap();
        fs::write(region.join("pfn0.0/namespace"), "namespace0.0\n").unwrap();
        fs::write(region.join("dax0.1/namespace"), "namespace0.1\n").unwrap();
        let block = Facts::of_device(root.path(), "block", rustix::fs::makedev(259, 0));
        assert!(block.device_is_memory && block.set_aside, "{block:?}");
        assert_eq!(block.namespace.as_deref(), Some("namespace0.0"));
        let device = Facts::of_device(root.path(), "char", rustix::fs::makedev(251, 3));
        assert_eq!((device.device_is_memory, device.namespace.as_deref()), (false, Some("namespace0.1")));
        assert_eq!(Facts::of_device(root.path(), "char", 0), Facts::default());
        assert_eq!(partition_start(root.path(), rustix::fs::makedev(259, 0)), 0);
        fs::write(region.join("pfn0.0/block/pmem0/start"), "2048\n").unwrap();
        assert_eq!(partition_start(root.path(), rustix::fs::makedev(259, 0)), 1 << 20);
    }
}
