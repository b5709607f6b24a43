//! What about a pool's place costs huge pages, speed or durability, and which command mends it?

use super::facts::{Facts, Mount};
use crate::names::shown;
use crate::size::grouped;
use daxstore::pmem::{Durability, Medium, RegionInfo};
use daxstore::units::CHUNK_BYTES;
use serde::Serialize;
use std::path::Path;

/// A misconfiguration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Warning {
    /// `huge pages`, `speed` or `durability`.
    pub costs: &'static str,
    /// What is wrong.
    pub what: String,
    /// What to run, or to do.
    pub mend: String,
}

const HUGE: &str = "huge pages";
const SPEED: &str = "speed";
const DURABILITY: &str = "durability";

fn warning(costs: &'static str, what: impl Into<String>, mend: impl Into<String>) -> Warning {
    Warning { costs, what: what.into(), mend: mend.into() }
}

/// The warnings about a pool of which `facts` were found, with what costs most first.
pub fn warnings(pool: &Path, region: &RegionInfo, facts: &Facts) -> Vec<Warning> {
    let mut found = Vec::new();
    found.extend(durability(region, facts));
    match region.medium {
        Medium::Devdax { align } if align < CHUNK_BYTES => found.push(devdax(pool, align, facts)),
        Medium::Fsdax => {
            found.extend(places(facts));
            found.extend(unwritten(pool, facts));
        }
        Medium::PlainFile if region.durability == Durability::PowerLoss => found.push(pages(facts)),
        _ => {}
    }
    found.extend(small_pages(facts));
    found
}

fn durability(region: &RegionInfo, facts: &Facts) -> Option<Warning> {
    let kind = facts.mount.as_ref().map_or("file system", |mount| mount.kind.as_str());
    match region.durability {
        Durability::ProcessOnly => {
            let what = format!("the pool lies in ordinary memory ({kind}): a power cut or a reboot takes it");
            Some(warning(DURABILITY, what, "put it on persistent memory or on a disk, unless it may be lost"))
        }
        Durability::Assumed if kind == "tmpfs" || kind == "ramfs" => {
            let what =
                format!("the memory of a {kind} was assumed to be persistent: a reboot takes the pool");
            Some(warning(DURABILITY, what, "use it for tests and measurements only"))
        }
        Durability::Assumed => {
            let what = format!(
                "the memory of a file on {kind} was assumed to be persistent: a power cut damages the pool"
            );
            Some(warning(DURABILITY, what, "leave --assume-persistent out"))
        }
        _ if facts.set_aside => {
            let what = "the memory was set aside by `memmap=`: it survives a reset, and a power cut only if it has a battery";
            Some(warning(DURABILITY, what, "see what the machine has with `ndctl list -R -D`"))
        }
        _ => None,
    }
}

fn devdax(pool: &Path, align: u64, facts: &Facts) -> Warning {
    let what = format!("{} is mapped {} bytes at a time, whatever lies in it", shown(pool), grouped(align));
    let mend = match &facts.namespace {
        Some(name) => format!(
            "`daxstore get` what is in it, then `ndctl create-namespace -f -e {name} -m devdax -a 2M`"
        ),
        None => String::from(
            "`daxctl create-device -a 2M` in its region, after `daxstore get` and `daxctl destroy-device`",
        ),
    };
    warning(HUGE, what, mend)
}

/// Blocks of a DAX file system that can not be mapped 2 MiB at a time.
fn places(facts: &Facts) -> Option<Warning> {
    let mount = facts.mount.as_ref()?;
    let remake = format!("make the file system anew: `{}`", mkfs(mount)?);
    let layout = facts.layout.unwrap_or_default();
    // XFS tells of a stripe in units of 512 bytes.
    let stripe = mount.option("sunit").and_then(|text| text.parse::<u64>().ok()).map_or(0, |n| n * 512);
    let has_stripe = stripe > 0 && stripe.is_multiple_of(CHUNK_BYTES);
    if layout.askew > 0 {
        let what = format!(
            "{} of the file's {} chunks do not lie at a multiple of 2 MiB of the device",
            grouped(layout.askew),
            grouped(layout.chunks)
        );
        return Some(warning(HUGE, what, remake));
    }
    if mount.kind == "xfs" && !has_stripe {
        let what = "this XFS was made without su=2m: it places blocks with no regard to 2 MiB";
        return Some(warning(HUGE, what, remake));
    }
    None
}

/// How to make a file system that places blocks at multiples of 2 MiB.
fn mkfs(mount: &Mount) -> Option<String> {
    let source = &mount.source;
    match mount.kind.as_str() {
        "xfs" => Some(format!("mkfs.xfs -f -d su=2m,sw=1 {source}")),
        "ext4" => Some(format!("mkfs.ext4 -b 4096 -E stride=512,stripe_width=512 {source}")),
        _ => None,
    }
}

fn unwritten(pool: &Path, facts: &Facts) -> Option<Warning> {
    let layout = facts.layout.filter(|layout| layout.unwritten > 0)?;
    let what = format!(
        "{} of the file's {} chunks have blocks that were never written: the first store to each waits for the journal \
         of the file system",
        grouped(layout.unwritten),
        grouped(layout.chunks)
    );
    let (old, size) = (shown(pool), layout.chunks * CHUNK_BYTES);
    let mend = format!(
        "while nobody uses it: `fallocate -l {size} {old}.new && dd if={old} of={old}.new bs=2M conv=notrunc,fsync && \
         mv {old}.new {old}`"
    );
    Some(warning(SPEED, what, mend))
}

fn pages(facts: &Facts) -> Warning {
    let what = "the pool is a plain file: every fence writes pages (msync)";
    match &facts.mount {
        Some(mount) if facts.device_is_memory => {
            let Mount { point, source, .. } = mount;
            let what = format!(
                "{point} is on persistent memory and mounted without DAX: every fence writes pages (msync)"
            );
            warning(SPEED, what, format!("`umount {point} && mount -o dax=always {source} {point}`"))
        }
        _ => {
            warning(SPEED, what, "put it on a devdax device or on a file system mounted with `-o dax=always`")
        }
    }
}

/// A tmpfs that does not use huge pages.
fn small_pages(facts: &Facts) -> Option<Warning> {
    let mount = facts.mount.as_ref().filter(|mount| mount.kind == "tmpfs")?;
    match mount.option("huge") {
        Some("always" | "within_size" | "advise") => None,
        _ => {
            let what = format!("the tmpfs at {} has pages of 4 KiB", mount.point);
            Some(warning(HUGE, what, format!("`mount -o remount,huge=always {}`", mount.point)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::layout::Layout;
    use super::*;

    fn region(medium: Medium, durability: Durability) -> RegionInfo {
        RegionInfo {
            backend: "lines (clwb)",
            medium,
            durability,
            eadr: false,
            read_only: true,
            zeroed: false,
            mapped: 0,
            path: None,
        }
    }

    fn mounted(kind: &str, options: &str) -> Facts {
        let mount = Mount {
            point: "/mnt".into(),
            kind: kind.into(),
            source: "/dev/pmem0".into(),
            options: options.split(',').map(str::to_owned).collect(),
        };
        Facts { mount: Some(mount), ..Facts::default() }
    }

    fn found(medium: Medium, durability: Durability, facts: &Facts) -> Vec<Warning> {
        warnings(Path::new("/mnt/pool"), &region(medium, durability), facts)
    }

    fn fsdax(options: &str, askew: u64, unwritten: u64) -> Vec<Warning> {
        let layout = Some(Layout { chunks: 8, askew, unwritten });
        found(Medium::Fsdax, Durability::PowerLoss, &Facts { layout, ..mounted("xfs", options) })
    }

    #[test]
    fn a_good_place_is_not_warned_of() {
        assert_eq!(fsdax("rw,dax=always,sunit=4096,swidth=4096", 0, 0), []);
        let device = Medium::Devdax { align: CHUNK_BYTES };
        assert_eq!(found(device, Durability::PowerLoss, &Facts::default()), []);
    }

    #[test]
    fn blocks_that_lie_askew_or_will_are_warned_of() {
        let [ref one] = fsdax("rw,dax=always", 0, 0)[..] else { panic!("one warning") };
        assert!(one.costs == HUGE && one.what.contains("su=2m"), "{one:?}");
        assert!(one.mend.contains("mkfs.xfs -f -d su=2m,sw=1 /dev/pmem0"), "{one:?}");
        assert!(fsdax("rw,sunit=8", 0, 0)[0].what.contains("su=2m"), "a stripe of 4 KiB");
        assert!(fsdax("rw,sunit=4096", 3, 0)[0].what.starts_with("3 of the file's 8 chunks"));
        let layout = Some(Layout { chunks: 8, askew: 0, unwritten: 0 });
        let ext4 = Facts { layout, ..mounted("ext4", "rw,dax=always") };
        assert_eq!(found(Medium::Fsdax, Durability::PowerLoss, &ext4), []);
        let layout = Some(Layout { chunks: 8, askew: 1, unwritten: 0 });
        let [ref one] = found(Medium::Fsdax, Durability::PowerLoss, &Facts { layout, ..ext4 })[..] else {
            panic!("one warning")
        };
        assert!(one.mend.contains("mkfs.ext4 -b 4096 -E stride=512,stripe_width=512 /dev/pmem0"), "{one:?}");
    }

    #[test]
    fn blocks_that_were_never_written_are_warned_of() {
        let [ref one] = fsdax("rw,sunit=4096", 0, 5)[..] else { panic!("one warning") };
        assert!(one.costs == SPEED && one.what.starts_with("5 of the file's 8 chunks"), "{one:?}");
        assert!(one.mend.contains("fallocate -l 16777216 /mnt/pool.new && dd "), "{one:?}");
    }

    #[test]
    fn a_device_of_small_pages_is_warned_of() {
        let facts = Facts { namespace: Some("namespace0.0".into()), ..Facts::default() };
        let [ref one] = found(Medium::Devdax { align: 4096 }, Durability::PowerLoss, &facts)[..] else {
            panic!("one warning")
        };
        assert!(one.costs == HUGE && one.mend.contains("-e namespace0.0 -m devdax -a 2M"), "{one:?}");
        let volatile = found(Medium::Devdax { align: 4096 }, Durability::PowerLoss, &Facts::default());
        assert!(volatile[0].mend.contains("`daxctl create-device -a 2M`"), "{volatile:?}");
    }

    #[test]
    fn pages_are_warned_of_with_the_cure_of_the_place() {
        let on_disk = found(Medium::PlainFile, Durability::PowerLoss, &mounted("ext4", "rw"));
        assert!(on_disk.len() == 1 && on_disk[0].mend.contains("devdax"), "{on_disk:?}");
        let facts = Facts { device_is_memory: true, ..mounted("ext4", "rw") };
        let on_memory = found(Medium::PlainFile, Durability::PowerLoss, &facts);
        assert_eq!(on_memory[0].mend, "`umount /mnt && mount -o dax=always /dev/pmem0 /mnt`");
    }

    #[test]
    fn what_a_power_cut_takes_is_warned_of_first() {
        let tmpfs = found(Medium::PlainFile, Durability::ProcessOnly, &mounted("tmpfs", "rw"));
        assert_eq!(tmpfs.iter().map(|w| w.costs).collect::<Vec<_>>(), [DURABILITY, HUGE]);
        let huge = found(Medium::AssumedPersistent, Durability::Assumed, &mounted("tmpfs", "rw,huge=always"));
        assert!(huge.len() == 1 && huge[0].what.contains("tmpfs"), "{huge:?}");
        let lie = found(Medium::AssumedPersistent, Durability::Assumed, &mounted("ext4", "rw"));
        assert!(lie[0].mend.contains("--assume-persistent"), "{lie:?}");
        let facts = Facts { set_aside: true, ..Facts::default() };
        let memmap = found(Medium::Devdax { align: CHUNK_BYTES }, Durability::PowerLoss, &facts);
        assert!(memmap.len() == 1 && memmap[0].what.contains("memmap="), "{memmap:?}");
    }
}
