//! What is this pool?

mod facts;
mod layout;
mod warnings;

use crate::failure::{Context, Result};
use crate::names::{JsonName, shown};
use crate::output::{Output, Verdict};
use crate::pool::Opener;
use crate::size::{grouped, human};
use crate::time;
use daxstore::PoolInfo;
use daxstore::pmem::Medium;
use daxstore::units::BLOCK_BYTES;
use facts::Facts;
use serde::Serialize;
use std::path::Path;
use warnings::{Warning, warnings};

#[derive(Serialize)]
struct Info {
    pool: JsonName,
    label: String,
    uuid: String,
    created: i64,
    format_version: u32,
    epoch: u64,
    medium: String,
    /// Of a devdax device, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    align: Option<u64>,
    backend: String,
    eadr: bool,
    durability: String,
    survives_power_loss: bool,
    /// Of writes to files that name none.
    level: &'static str,
    geometry: Geometry,
    features: Features,
    space: Space,
    recovery: Recovery,
    bad: Vec<Bad>,
    warnings: Vec<Warning>,
}

/// Bytes of the pool that the medium has lost.
#[derive(Serialize)]
struct Bad {
    at: u64,
    bytes: u64,
}

#[derive(Serialize)]
struct Geometry {
    size: u64,
    block_bytes: u64,
    lanes: u32,
    lane_bytes: u32,
    arena_blocks: u32,
}

#[derive(Serialize)]
struct Features {
    compat: u64,
    ro_compat: u64,
    incompat: u64,
}

/// Blocks are of `block_bytes`, chunks of 2 MiB. `fragmentation` is the part of the free space, 0 to 1, that
/// can not serve a 2 MiB translation because its chunk is broken.
#[derive(Serialize)]
struct Space {
    inodes: u64,
    blocks: u64,
    free_blocks: u64,
    chunks: u64,
    free_chunks: u64,
    whole_chunks: u64,
    broken_chunks: u64,
    free_in_broken: u64,
    unwritten_blocks: u64,
    /// Blocks that several files own, and those that this saves.
    shared_blocks: u64,
    saved_blocks: u64,
    reserve_blocks: u64,
    inode_arena_blocks: u64,
    node_arena_blocks: u64,
    damaged_chunks: u64,
    damage: Vec<String>,
    fragmentation: f64,
}

#[derive(Serialize)]
struct Recovery {
    records: u64,
    objects: u64,
    intents: u64,
    nanos: u64,
}

impl Info {
    fn new(pool: &Path, info: &PoolInfo) -> Self {
        Self {
            pool: JsonName::new(pool),
            label: info.label.clone(),
            uuid: info.uuid.to_string(),
            created: info.created,
            format_version: info.version,
            epoch: info.epoch,
            medium: info.region.medium.to_string(),
            align: match info.region.medium {
                Medium::Devdax { align } => Some(align),
                _ => None,
            },
            backend: String::from(info.region.backend),
            eadr: info.region.eadr,
            durability: info.region.durability.to_string(),
            survives_power_loss: info.region.durability.survives_power_loss(),
            level: info.durability.name(),
            geometry: Geometry {
                size: info.geometry.size,
                block_bytes: BLOCK_BYTES,
                lanes: info.geometry.lanes,
                lane_bytes: info.geometry.lane_bytes,
                arena_blocks: info.geometry.arena_blocks,
            },
            features: Features::new(info.features),
            space: Space::new(info),
            recovery: Recovery {
                records: info.recovery.records,
                objects: info.recovery.objects,
                intents: info.recovery.intents,
                nanos: info.recovery.nanos,
            },
            bad: info.bad.iter().map(|(at, bytes)| Bad { at: at.0, bytes: *bytes }).collect(),
            warnings: warnings(pool, &info.region, &Facts::find(pool)),
        }
    }
}

impl Features {
    fn new([compat, ro_compat, incompat]: [u64; 3]) -> Self {
        Self { compat, ro_compat, incompat }
    }
}

impl Space {
    fn new(info: &PoolInfo) -> Self {
        let report = &info.space;
        let fragmentation = match report.free_blocks {
            0 => 0.0,
            free => report.free_in_broken as f64 / free as f64,
        };
        Self {
            inodes: report.inodes,
            blocks: report.usable_blocks,
            free_blocks: report.free_blocks,
            chunks: report.chunks,
            free_chunks: report.free_chunks,
            whole_chunks: report.whole_chunks,
            broken_chunks: report.broken_chunks,
            free_in_broken: report.free_in_broken,
            unwritten_blocks: report.unwritten_blocks,
            shared_blocks: info.shared.0,
            saved_blocks: info.shared.1,
            reserve_blocks: report.reserve_blocks,
            inode_arena_blocks: report.inode_arena_blocks,
            node_arena_blocks: report.node_arena_blocks,
            damaged_chunks: report.damaged_chunks,
            damage: report.damage.iter().map(ToString::to_string).collect(),
            fragmentation,
        }
    }
}

/// `info`.
pub fn info(opener: Opener, pool: &Path, output: &mut Output) -> Result<Verdict> {
    let store = opener.read(pool)?;
    let what = || format!("read {}", shown(pool));
    let info = Info::new(pool, &store.info().context(what)?);
    for (name, value) in rows(&info, pool) {
        output.line(format_args!("{name:<14} {value}"))?;
    }
    output.document(&info)?;
    Ok(Verdict::Good)
}

fn rows(info: &Info, pool: &Path) -> Vec<(&'static str, String)> {
    let (geometry, features, recovery) = (&info.geometry, &info.features, &info.recovery);
    let mut rows = vec![
        ("pool", shown(pool)),
        ("label", if info.label.is_empty() { String::from("(none)") } else { shown(&info.label) }),
        ("uuid", info.uuid.clone()),
        ("made", time::full(info.created)),
        ("format", format!("version {}, epoch {}", info.format_version, info.epoch)),
        ("medium", info.medium.clone()),
        ("backend", info.backend.clone()),
        ("durability", info.durability.clone()),
        ("level", info.level.to_owned()),
        ("size", format!("{} ({} bytes)", human(geometry.size), grouped(geometry.size))),
        ("journal", format!("{} lanes of {}", geometry.lanes, human(geometry.lane_bytes.into()))),
        ("arenas", format!("{} blocks", geometry.arena_blocks)),
        (
            "features",
            format!(
                "compat {:#x}, ro_compat {:#x}, incompat {:#x}",
                features.compat, features.ro_compat, features.incompat
            ),
        ),
    ];
    rows.extend(space_rows(&info.space));
    rows.push((
        "recovery",
        format!(
            "{}: {} records, {} objects, {} intents",
            time::duration(recovery.nanos),
            recovery.records,
            recovery.objects,
            recovery.intents
        ),
    ));
    rows.extend(bad_rows(&info.bad));
    for warning in &info.warnings {
        rows.push(("WARNING", format!("costs {}: {}", warning.costs, warning.what)));
        rows.push(("", format!("to mend it: {}", warning.mend)));
    }
    rows
}

fn bad_rows(bad: &[Bad]) -> Vec<(&'static str, String)> {
    let range = |Bad { at, bytes }: &Bad| format!("{bytes} bytes at pool offset {at:#x} are lost");
    let mut rows: Vec<_> = bad.iter().map(|bad| ("BAD MEDIUM", range(bad))).collect();
    if !bad.is_empty() {
        let advice = "`daxstore check` names the files; overwrite those bytes from a backup. Lost blocks that no file \
                      uses are left out of use; on a devdax device `ndctl clear-errors` brings them back";
        rows.push(("", String::from(advice)));
    }
    rows
}

fn space_rows(space: &Space) -> Vec<(&'static str, String)> {
    let bytes = |blocks: u64| human(blocks.saturating_mul(BLOCK_BYTES));
    let used = space.blocks.saturating_sub(space.free_blocks);
    let mut rows = vec![
        ("inodes", grouped(space.inodes)),
        (
            "space",
            format!("{} used, {} free of {}", bytes(used), bytes(space.free_blocks), bytes(space.blocks)),
        ),
        (
            "chunks",
            format!(
                "{} of 2 MiB: {} free, {} whole, {} broken",
                grouped(space.chunks),
                grouped(space.free_chunks),
                grouped(space.whole_chunks),
                grouped(space.broken_chunks)
            ),
        ),
        (
            "fragmentation",
            format!(
                "{:.1} % of the free space ({}) lies in broken chunks",
                space.fragmentation * 100.0,
                bytes(space.free_in_broken)
            ),
        ),
        (
            "metadata",
            format!(
                "{} of inodes, {} of tree nodes",
                bytes(space.inode_arena_blocks),
                bytes(space.node_arena_blocks)
            ),
        ),
        ("unwritten", format!("{} allocated and never written", bytes(space.unwritten_blocks))),
    ];
    if space.shared_blocks > 0 {
        let (shared, saved) = (bytes(space.shared_blocks), bytes(space.saved_blocks));
        rows.push(("shared", format!("{shared} by several files, which saves {saved}")));
    }
    rows.extend(space.damage.iter().map(|damage| ("DAMAGE", damage.clone())));
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_medium_has_lost_is_said_with_what_to_do() {
        assert!(bad_rows(&[]).is_empty());
        let rows = bad_rows(&[Bad { at: 0x5000, bytes: 8192 }]);
        assert_eq!(rows[0], ("BAD MEDIUM", String::from("8192 bytes at pool offset 0x5000 are lost")));
        assert!(rows[1].1.contains("daxstore check") && rows[1].1.contains("ndctl clear-errors"));
    }
}
