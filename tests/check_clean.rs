//! Does a check find nothing wrong with a store that did nothing wrong, and how long does it take?

#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
use daxstore::layout::Geometry;
use daxstore::pmem::sim::Sim;
use daxstore::{AllocateMode, Follow, OpenOptions, RenameMode, Store, StoreOptions, XattrMode};
use std::sync::Arc;
use std::time::Instant;

fn assert_clean(store: &Store, what: &str) {
    let report = store.check().unwrap();
    let faults: Vec<_> = report.faults.iter().map(ToString::to_string).collect();
    assert!(report.is_clean(), "after {what}:\n{}", faults.join("\n"));
}

#[test]
fn a_sound_store_is_clean_after_every_step() {
    let sim = Arc::new(Sim::new(64 << 20).unwrap());
    let store = Store::create_sim(sim.clone(), &StoreOptions::new()).unwrap();
    assert_clean(&store, "mkfs");
    for i in 0..40 {
        store.create_dir(format!("/d{i}"), 0o755).unwrap();
        store.create_dir(format!("/d{i}/sub"), 0o755).unwrap();
        store.write(format!("/d{i}/file"), &vec![i as u8; i * 3000]).unwrap();
        store.symlink("x".repeat(1 + i * 100), format!("/d{i}/link")).unwrap();
        store.hard_link(format!("/d{i}/file"), format!("/d{i}/sub/second")).unwrap();
    }
    assert_clean(&store, "making");
    let node = store.open_node("/d3", Follow::Yes).unwrap();
    for i in 0..20 {
        node.set_xattr(format!("user.{i}"), &vec![i as u8; i * 1000], XattrMode::Either).unwrap();
    }
    assert_clean(&store, "attributes");
    let file = store.create("/log").unwrap();
    for i in 0..300 {
        file.append(&[i as u8; 999]).unwrap();
        assert_clean(&store, "append");
    }
    file.allocate(5000, 100_000, AllocateMode::Punch).unwrap();
    assert_clean(&store, "punch");
    file.allocate(1 << 20, 8 << 20, AllocateMode::KeepSize).unwrap();
    assert_clean(&store, "keep size");
    file.allocate(0, 12 << 20, AllocateMode::Zero).unwrap();
    assert_clean(&store, "zero");
    for i in 0..500 {
        file.write_at(&[1; 10], i * 8192).unwrap();
    }
    assert_clean(&store, "fragments");
    store.remove_file("/log").unwrap();
    assert_clean(&store, "unlink of an open file");
    let unnamed = store.open_unnamed(&OpenOptions::new().write(true)).unwrap();
    unnamed.write_all_at(&[9; 20_000], 0).unwrap();
    assert_clean(&store, "an unnamed file");
    drop(file);
    assert_clean(&store, "last close");
    store.link_file(&unnamed, "/named").unwrap();
    drop(unnamed);
    assert_clean(&store, "a name for it");
    for i in 0..39 {
        store.rename(format!("/d{i}/sub"), format!("/d{}/moved{i}", i + 1)).unwrap();
        let (from, to) = (format!("/d{i}/file"), format!("/d{}/link", i + 1));
        store.rename_to(from, &store, to, RenameMode::Exchange).unwrap();
    }
    assert_clean(&store, "renames");
    for i in 0..20 {
        store.remove_dir_all(format!("/d{i}")).unwrap();
        assert_clean(&store, "removal");
    }
    drop((store, node));
    let store = Store::open_sim(sim).unwrap();
    assert_clean(&store, "opening again");
    let report = store.check().unwrap();
    // Directory 20 has the one moved from 19 too, and the link of 20 went with 19.
    assert_eq!((report.directories, report.symlinks), (1 + 20 + 21, 19));
}

/// Not a test of speed, which depends on the machine: prints what it takes.
#[test]
fn how_long_it_takes() {
    let sim = Arc::new(Sim::new(8 << 20).unwrap());
    let geometry = Geometry { size: 8 << 20, lanes: 2, lane_bytes: 4096, arena_blocks: 1 };
    let store = Store::create_sim(sim, &StoreOptions::new().geometry(geometry)).unwrap();
    for i in 0..4 {
        store.create_dir(format!("/d{i}"), 0o755).unwrap();
        store.write(format!("/d{i}/f"), &[1; 5000]).unwrap();
    }
    store.symlink("a", "/link").unwrap();
    assert_clean(&store, "a dozen inodes");
    let start = Instant::now();
    const ROUNDS: u32 = 20_000;
    for _ in 0..ROUNDS {
        assert!(store.check().unwrap().is_clean());
    }
    println!("tiny: {:?} a check", start.elapsed() / ROUNDS);
}

/// Prints what a hundred thousand files take.
#[test]
fn how_long_many_files_take() {
    let sim = Arc::new(Sim::new(1 << 30).unwrap());
    let store = Store::create_sim(sim, &StoreOptions::new()).unwrap();
    for i in 0..100 {
        let dir = format!("/d{i}");
        store.create_dir(&dir, 0o755).unwrap();
        let dir = store.open_dir(&dir).unwrap();
        for j in 0..1000 {
            dir.write(format!("file number {j}"), &[j as u8; 100]).unwrap();
        }
    }
    let start = Instant::now();
    let report = store.check().unwrap();
    println!("100000 files: {:?}", start.elapsed());
    assert!(report.is_clean());
    assert_eq!((report.files, report.directories, report.extents), (100_000, 101, 100_000));
}
