//! What does a check say of a pool whose medium has lost bytes?

#![cfg(feature = "sim")]

use super::repair::check_region;
use super::{CheckReport, FaultKind, Repair};
use crate::error::{Error, Result, Structure};
use crate::journal::Journal;
use crate::layout::{Durability, Inode, SUPERBLOCK_A, SUPERBLOCK_B};
use crate::pmem::sim::Sim;
use crate::pmem::{Durable, Region};
use crate::store::{OpenOptions, Store, StoreOptions};
use crate::sync::Arc;
use crate::units::{BLOCK_BYTES, CHUNK_BYTES, PoolOff};

/// A pool with a file of 5 blocks, closed: its memory, and where the file's blocks begin.
fn closed_pool() -> (Arc<Sim>, PoolOff) {
    let sim = Arc::new(Sim::new(4 * CHUNK_BYTES).unwrap());
    let store = Store::create_sim(sim.clone(), &StoreOptions::new()).unwrap();
    store.write("/f", &[7; 5 * BLOCK_BYTES as usize]).unwrap();
    let file = store.open("/f", &OpenOptions::new().read(true)).unwrap();
    let at = file.extents(0, 1).unwrap()[0].state.address().unwrap();
    drop(file);
    store.close().unwrap();
    (sim, at)
}

fn check_with_bad(sim: &Arc<Sim>, at: PoolOff, repair: bool) -> Result<CheckReport> {
    let region = Region::sim(sim.clone());
    region.mark_bad(at, 1).unwrap();
    check_region(Arc::new(region), repair, &|_| ())
}

#[test]
fn lost_bytes_of_a_file_are_named_and_left() {
    let (sim, at) = closed_pool();
    let found = check_with_bad(&sim, at.plus(BLOCK_BYTES), false).unwrap();
    let repaired = check_with_bad(&sim, at.plus(BLOCK_BYTES), true).unwrap();
    for report in [found, repaired] {
        let [fault] = &report.faults[..] else { panic!("{:?}", report.faults) };
        assert_eq!((fault.kind, fault.path.as_deref()), (FaultKind::LostBytes, Some(&b"/f"[..])));
        assert!(matches!(&fault.outcome, None | Some(Repair::Left(_))), "{fault}");
    }
    assert!(check_region(Arc::new(Region::sim(sim)), false, &|_| ()).unwrap().is_clean());
}

#[test]
fn a_lost_copy_of_the_superblock_is_written_again() {
    for copy in [SUPERBLOCK_A, SUPERBLOCK_B] {
        let (sim, _) = closed_pool();
        let report = check_with_bad(&sim, copy, true).unwrap();
        assert!(report.faults.iter().all(|fault| fault.kind == FaultKind::Superblock));
        assert_eq!(report.faults.len(), 1);
        assert!(check_region(Arc::new(Region::sim(sim)), false, &|_| ()).unwrap().is_clean());
    }
}

#[test]
fn a_lost_lane_is_an_error_that_names_it() {
    let (sim, _) = closed_pool();
    let lane = Region::sim(sim.clone());
    let superblock = Journal::clean_superblock(&lane).unwrap();
    let ring = superblock.geometry.ring(0);
    let lost = check_with_bad(&sim, ring, true);
    let Err(Error::Corrupt(damage)) = lost else { panic!("{lost:?}") };
    assert_eq!(damage.structure, Structure::Medium);
    assert_eq!(damage.at.block(), ring.block());
}

#[test]
fn a_link_with_a_level_of_durability_is_named_and_mended_and_others_are_sound() {
    let sim = Arc::new(Sim::new(4 * CHUNK_BYTES).unwrap());
    let store = Store::create_sim(sim.clone(), &StoreOptions::new().durability(Durability::Ordered)).unwrap();
    store.write("/f", b"content").unwrap();
    store.symlink("/f", "/l").unwrap();
    store.create_dir("/d", 0o755).unwrap();
    let set = |path: &str, flags| {
        let ino = store.symlink_metadata(path).unwrap().ino;
        let space = &store.inner.fs.space;
        let mut op = space.begin();
        let inode = op.read_inode(ino).unwrap().unwrap();
        op.write_inode(ino, &Inode { flags, ..inode }).unwrap();
        op.commit(Durable::no_data()).unwrap();
    };
    (1..4).for_each(|level| set("/f", level << 2));
    set("/d", 3 << 2);
    assert!(store.check().unwrap().is_clean());
    set("/l", 1 << 2);
    set("/d", 1 << 4);
    store.close().unwrap();
    let kinds = |repair| {
        let report = check_region(Arc::new(Region::sim(sim.clone())), repair, &|_| ()).unwrap();
        report.faults.iter().map(|fault| fault.kind).collect::<Vec<_>>()
    };
    assert_eq!(kinds(true), [FaultKind::Flags, FaultKind::Flags]);
    assert_eq!(kinds(false), []);
    assert_eq!(Store::open_sim(sim).unwrap().durability(), Durability::Ordered);
}
