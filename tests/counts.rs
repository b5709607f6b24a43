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
    WriteFlags, XattrMode,
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

/// In `strict` every write is write-through: only the bytes written, what of their blocks must be zeroed, and the record
/// reach the medium, and no line is left to be flushed by anybody. Asking for it by flag or by handle adds nothing.
#[test]
fn write_through_touches_what_is_written() {
    let pool = Pool::new();
    // One extent of 2 MiB and a bit; a page of holes between, and unwritten space.
    let file = pool.file("/f", 513);
    file.set_len(1200 * 4096).unwrap();
    file.allocate(800 * 4096, 400 * 4096, AllocateMode::Allocate).unwrap();
    let sync = pool.store.open("/f", &OpenOptions::new().write(true).sync(true)).unwrap();
    // The blocks of a kind follow each other, so that extents grow and records are alike.
    let mut next = [0, 520, 800];
    // Fences, lines flushed, bytes of non-temporal stores.
    let mut cost = |kind: usize, len: usize, ways: usize| {
        next[kind] += 1;
        let at = next[kind] * 4096;
        pool.store.grow(SIZE).unwrap();
        let before = pool.store.counts();
        let buf = vec![7; len];
        _ = match ways {
            0 => file.write_at(&buf, at).unwrap(),
            1 => file.write_at_with(&buf, at, WriteFlags::DSYNC).unwrap(),
            _ => sync.write_at(&buf, at).unwrap(),
        };
        let cost = pool.store.counts().since(before);
        (cost.fences, cost.flushed_lines, cost.nt_bytes)
    };
    for ways in 0..3 {
        for len in [1, 64, 4096] {
            // The time of an overwrite in place is flushed with it, at most once in 4 ms.
            let costs: Vec<_> = (0..5).map(|_| cost(0, len, ways)).collect();
            let expected = |cost: &(u64, u64, u64)| cost.0 == 1 && cost.1 <= 1 && cost.2 == len as u64;
            assert!(
                costs.iter().all(expected) && costs.contains(&(1, 0, len as u64)),
                "{len}, {ways}: {costs:?}"
            );
            for (kind, what) in [(1, "in a hole"), (2, "of unwritten space")] {
                let (fences, lines, bytes) = cost(kind, len, ways);
                assert_eq!((fences, lines), (2, 0), "{len} bytes {what}, way {ways}");
                // The block, filled with zeros where it is not written, and a record of some 500 bytes.
                assert!(
                    (4096 + 400..=4096 + 600).contains(&bytes),
                    "{len} bytes {what}, way {ways}: {bytes}"
                );
            }
        }
    }
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
    assert_eq!(allocate(8192, 8192, AllocateMode::Collapse), (1, 0), "collapse");
    assert_eq!(allocate(8192, 8192, AllocateMode::Insert), (1, 0), "insert");
    assert_eq!(pool.cost(|_| file.set_extent_hint(1 << 20).unwrap()), (1, 0), "extent-size hint");
    assert_eq!(pool.cost(|_| file.set_extent_hint(0).unwrap()), (1, 0), "no extent-size hint");
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
fn a_sequential_file_costs_what_any_file_does() {
    let pool = Pool::new();
    let options = OpenOptions::new().write(true).create_new(true).sequential(true);
    let first = pool.cost(|s| drop(s.open("/first", &options).unwrap()));
    assert_eq!(first, (3, 0), "the first of a pool, which says so in both superblocks");
    assert_eq!(pool.cost(|s| drop(s.open("/f", &options).unwrap())), (1, 0), "create");
    let file = pool.store.open("/f", &OpenOptions::new().write(true)).unwrap();
    pool.cost(|_| _ = file.append(&[1; 9000]).unwrap());
    for _ in 0..8 {
        assert_eq!(pool.cost(|_| _ = file.append(&[2; 4096]).unwrap()), (2, 0), "append");
    }
    assert_eq!(
        pool.cost(|_| _ = file.write_at(&[2; 100], file.len()).unwrap()),
        (2, 0),
        "write at the pointer"
    );
    assert_eq!(pool.cost(|_| drop(file.write_at(&[2; 100], 0).unwrap_err())), (0, 0), "refused");
    assert_eq!(pool.cost(|_| file.reset().unwrap()), (1, 0), "reset");
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
