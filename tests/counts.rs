//! How many fences does each operation cost, in the steady state?
//!
//! Counts are exact: a fence more is a regression, a fence less a lost guarantee. "Steady" means that no arena has to
//! be opened and no lane to be checkpointed; lanes are large here so that neither happens.

#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use daxstore::iomap::{FaultOps, FileRange, Placement};
use daxstore::pmem::sim::Sim;
use daxstore::units::CHUNK_BYTES;
use daxstore::{
    AllocateMode, Dir, Durability, File, Follow, OpenOptions, RenameMode, SetAttributes, Store, StoreOptions,
    XattrMode,
};
use std::sync::Arc;

const SIZE: u64 = 256 << 20;

struct Pool {
    store: Store,
}

impl Pool {
    fn new() -> Self {
        let sim = Arc::new(Sim::new(SIZE).unwrap());
        let store = Store::create_sim(sim, &StoreOptions::new()).unwrap();
        // Opens the arenas of both classes, so that what follows finds free slots.
        store.create_dir("/warm", 0o755).unwrap();
        for i in 0..64 {
            store.create(format!("/warm/{i}")).unwrap();
        }
        store.remove_dir_all("/warm").unwrap();
        Self { store }
    }

    /// Fences and flushed lines of `f`, with empty lanes, so that no earlier record's lines ride along.
    fn cost(&self, f: impl FnOnce(&Dir)) -> (u64, u64) {
        self.store.grow(SIZE).unwrap();
        let before = self.store.counts();
        f(&self.store);
        let cost = self.store.counts().since(before);
        (cost.fences, cost.flushed_lines)
    }

    fn fences(&self, f: impl FnOnce(&Dir)) -> u64 {
        self.cost(f).0
    }

    fn file(&self, name: &str, blocks: usize) -> File {
        let file = self.store.create(name).unwrap();
        file.write_all_at(&vec![1; blocks * 4096], 0).unwrap();
        file
    }
}

#[test]
fn names_cost_one_fence() {
    let pool = Pool::new();
    assert_eq!(pool.cost(|s| drop(s.create("/a").unwrap())), (1, 0), "create");
    assert_eq!(pool.cost(|s| s.create_dir("/d", 0o755).unwrap()), (1, 0), "mkdir");
    assert_eq!(pool.cost(|s| s.create_dir("/e", 0o755).unwrap()), (1, 0), "mkdir");
    assert_eq!(pool.cost(|s| s.symlink("/a", "/l").unwrap()), (1, 0), "symlink");
    assert_eq!(pool.cost(|s| s.symlink("x".repeat(4000), "/ll").unwrap()), (1, 0), "long symlink");
    assert_eq!(pool.cost(|s| s.hard_link("/a", "/d/b").unwrap()), (1, 0), "link");
    assert_eq!(pool.cost(|s| s.rename("/a", "/c").unwrap()), (1, 0), "rename in a directory");
    assert_eq!(pool.cost(|s| s.rename("/c", "/e/c").unwrap()), (1, 0), "rename across");
    assert_eq!(pool.cost(|s| s.rename("/d", "/e/d").unwrap()), (1, 0), "rename of a directory");
    pool.file("/x", 1);
    pool.file("/y", 1);
    assert_eq!(pool.cost(|s| s.rename("/x", "/y").unwrap()), (1, 0), "rename over a file");
    let exchange = |s: &Dir| s.rename_to("/y", s, "/e", RenameMode::Exchange).unwrap();
    assert_eq!(pool.cost(exchange), (1, 0), "exchange");
    let no_replace = |s: &Dir| s.rename_to("/y", s, "/z", RenameMode::NoReplace).unwrap();
    assert_eq!(pool.cost(no_replace), (1, 0), "rename without replacing");
    assert_eq!(pool.cost(|s| s.remove_file("/l").unwrap()), (1, 0), "unlink of a link");
    assert_eq!(pool.cost(|s| s.remove_file("/e").unwrap()), (1, 0), "unlink of a file");
    pool.store.create_dir("/gone", 0o700).unwrap();
    assert_eq!(pool.cost(|s| s.remove_dir("/gone").unwrap()), (1, 0), "rmdir");
    let unnamed = OpenOptions::new().write(true);
    assert_eq!(pool.fences(|s| std::mem::forget(s.open_unnamed(&unnamed).unwrap())), 1, "unnamed file");
}

#[test]
fn data_cost_a_fence_and_new_data_two() {
    let pool = Pool::new();
    let file = pool.file("/f", 16);
    assert_eq!(pool.fences(|_| _ = file.append(&[2; 4096]).unwrap()), 2, "first append");
    // The first append beyond the end notes the intent to trim; from then on nothing but the append is written.
    for _ in 0..8 {
        assert_eq!(pool.cost(|_| _ = file.append(&[2; 4096]).unwrap()), (2, 0), "append");
    }
    assert_eq!(pool.cost(|_| _ = file.append(&[2; 100]).unwrap()), (2, 0), "small append");
    std::thread::sleep(std::time::Duration::from_millis(10));
    assert_eq!(pool.cost(|_| _ = file.write_at(&[3; 4096], 4096).unwrap()), (1, 1), "overwrite, mtime due");
    // Within the resolution of file times a further overwrite need not store the time again.
    let costs: Vec<_> = (0..5).map(|_| pool.cost(|_| _ = file.write_at(&[3; 9000], 100).unwrap())).collect();
    assert!(costs.iter().all(|c| c.0 == 1 && c.1 <= 1), "{costs:?}");
    assert!(costs.contains(&(1, 0)), "{costs:?}");
    let sparse = pool.store.create("/s").unwrap();
    assert_eq!(pool.cost(|_| sparse.set_len(1 << 20).unwrap()), (1, 0), "truncate up");
    assert_eq!(pool.cost(|_| _ = sparse.write_at(&[1; 4096], 8192).unwrap()), (2, 0), "hole fill");
    assert_eq!(pool.cost(|_| sparse.set_len(100).unwrap()), (1, 0), "truncate down");
    assert_eq!(pool.cost(|_| _ = file.read_at(&mut [0; 8192], 10).unwrap()), (0, 0), "read");
    assert_eq!(pool.cost(|_| file.sync_all().unwrap()), (0, 0), "fsync");
    assert_eq!(pool.cost(|_| file.sync_data().unwrap()), (0, 0), "fdatasync");
}

#[test]
fn space_and_attributes_cost_one_fence() {
    let pool = Pool::new();
    let file = pool.store.create("/f").unwrap();
    let allocate = |offset, len, mode| pool.cost(|_| file.allocate(offset, len, mode).unwrap());
    assert_eq!(allocate(0, 1 << 20, AllocateMode::Allocate), (1, 0), "allocate");
    assert_eq!(allocate(1 << 20, 4 << 20, AllocateMode::KeepSize), (1, 0), "keep size");
    assert_eq!(pool.cost(|_| _ = file.write_at(&[5; 65536], 0).unwrap()), (2, 0), "unwritten fill");
    assert_eq!(allocate(5000, 20000, AllocateMode::Punch), (1, 0), "punch");
    assert_eq!(allocate(30000, 20000, AllocateMode::Zero), (1, 0), "zero");
    let attributes = SetAttributes { mode: Some(0o600), uid: Some(7), ..SetAttributes::default() };
    assert_eq!(pool.cost(|s| s.set_attributes("/f", &attributes, Follow::Yes).unwrap()), (1, 0), "setattr");
    let times = SetAttributes { mtime: Some(7), atime: Some(9), ..SetAttributes::default() };
    assert_eq!(pool.cost(|s| s.set_attributes("/f", &times, Follow::Yes).unwrap()), (1, 0), "utimens");
    file.write_at(&[6; 100], 0).unwrap();
    let utimens = pool.cost(|s| s.set_attributes("/f", &times, Follow::Yes).unwrap());
    assert_eq!(utimens, (2, 1), "utimens after an overwrite in place");
    assert_eq!(pool.cost(|_| file.set_xattr("user.x", b"1", XattrMode::Either).unwrap()), (1, 0), "setxattr");
    assert_eq!(
        pool.cost(|_| file.set_xattr("user.x", &[1; 5000], XattrMode::Either).unwrap()),
        (2, 0),
        "long value"
    );
    assert_eq!(pool.cost(|_| file.remove_xattr("user.x").unwrap()), (1, 0), "removexattr");
    assert_eq!(pool.cost(|_| drop(file.get_xattr("user.x").unwrap_err())), (0, 0), "getxattr");
    assert_eq!(pool.cost(|s| assert_eq!(s.metadata("/f").unwrap().size, 1 << 20)), (0, 0), "stat");
    assert_eq!(pool.cost(|s| assert_eq!(s.read_dir().count(), 1)), (0, 0), "readdir");
}

#[test]
fn blocks_of_a_fault_cost_two_fences_and_one_where_they_were_zeroed_ahead() {
    let pool = Pool::new();
    let file = pool.file("/f", 1);
    file.set_len(5 * CHUNK_BYTES).unwrap();
    file.allocate(8192, 8192, AllocateMode::Allocate).unwrap();
    file.allocate(CHUNK_BYTES, CHUNK_BYTES, AllocateMode::Allocate).unwrap();
    let populate = |offset, len, placement| {
        pool.cost(|_| assert!(file.populate(FileRange { offset, len }, placement).unwrap()))
    };
    assert_eq!(populate(40960, 4096, Placement::Any), (2, 0), "a hole");
    assert_eq!(populate(8192, 8192, Placement::Any), (2, 0), "unwritten blocks");
    assert_eq!(populate(0, 65536, Placement::Any), (2, 0), "data and holes");
    assert_eq!(populate(0, 65536, Placement::Any), (0, 0), "nothing");
    assert_eq!(populate(CHUNK_BYTES, CHUNK_BYTES, Placement::Whole), (2, 0), "an unwritten chunk");
    assert_eq!(populate(2 * CHUNK_BYTES, CHUNK_BYTES, Placement::Whole), (2, 0), "a slot");
    assert_eq!(pool.cost(|_| assert!(file.zero_ahead(1).unwrap())), (1, 0), "a chunk ahead");
    assert_eq!(populate(3 * CHUNK_BYTES, CHUNK_BYTES, Placement::Whole), (1, 0), "a slot, zeroed ahead");
    assert_eq!(populate(4 * CHUNK_BYTES, CHUNK_BYTES, Placement::Whole), (2, 0), "another slot");
    std::thread::sleep(std::time::Duration::from_millis(10));
    assert_eq!(pool.cost(|_| file.touch().unwrap()), (0, 1), "times");
}

#[test]
fn levels_of_durability_cost_two_fences_a_call_or_a_commit() {
    let pool = Pool::new();
    pool.store.set_ordered_bounds(u64::MAX, std::time::Duration::MAX).unwrap();
    let file = pool.file("/f", 16);
    assert_eq!(pool.cost(|_| file.write_atomic(&[2; 4096], 4096).unwrap()), (2, 0), "atomic overwrite");
    file.set_durability(Some(Durability::AtomicData)).unwrap();
    assert_eq!(pool.cost(|_| _ = file.write_at(&[2; 4096], 8192).unwrap()), (2, 0), "at the level");
    assert_eq!(pool.cost(|_| _ = file.write_at(&[2; 9000], 100).unwrap()), (2, 0), "of parts of blocks");
    assert_eq!(pool.cost(|_| _ = file.append(&[2; 4096]).unwrap()), (2, 0), "append");
    file.set_durability(Some(Durability::Ordered)).unwrap();
    let other = pool.file("/g", 1);
    other.set_durability(Some(Durability::Ordered)).unwrap();
    for many in [1, 10, 1000] {
        let writes = |_: &Dir| (0..many).for_each(|_| _ = file.append(&[3; 4096]).unwrap());
        assert_eq!(pool.cost(writes), (0, 0), "{many} ordered appends");
        assert_eq!(other.write_at(&[4; 5000], 100).unwrap(), 5000);
        let before = pool.store.counts();
        file.sync_all().unwrap();
        let cost = pool.store.counts().since(before);
        assert_eq!((cost.fences, cost.flushed_lines), (2, 0), "the commit of {many} and one");
    }
}

/// The flushes that make lanes reusable ride on the fences of later records: a long run of creates costs one fence
/// each, and each dirtied line is flushed at most once per half lane.
#[test]
fn checkpoints_ride_on_commits() {
    let pool = Pool::new();
    let dir = pool.store.root().clone();
    dir.create_dir("/many", 0o755).unwrap();
    let many = dir.open_dir("/many").unwrap();
    let names: Vec<String> = (0..200).map(|i| format!("file-{i:04}")).collect();
    let (fences, lines) = pool.cost(|_| {
        for name in &names {
            many.create(name).unwrap();
        }
    });
    // 200 inodes open one further arena: its zeros and its record are two fences.
    assert!((200..=204).contains(&fences), "{fences}");
    assert!(lines <= 200 * 8, "{lines} lines flushed");
}
