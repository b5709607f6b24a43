//! Is a mapped file the memory it says it is?

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use daxstore::{AllocateMode, File, OpenOptions, Store, StoreOptions};
use daxstore_fault::{Advice, MapOptions, Mapping, Mode};
use std::sync::atomic::{AtomicU64, Ordering};

const MODES: [Mode; 2] = [Mode::Userfault, Mode::Signal];
const BLOCK: u64 = 4096;
const SLOT: u64 = 2 << 20;

struct Pool {
    store: Store,
    _dir: tempfile::TempDir,
}

fn pool(size: u64) -> Pool {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let options = StoreOptions::new().assume_persistent(true);
    let store = Store::create(dir.path().join("pool"), size, &options).unwrap();
    Pool { store, _dir: dir }
}

fn file(pool: &Pool, name: &str) -> File {
    pool.store.open(name, &OpenOptions::new().read(true).write(true).create(true)).unwrap()
}

fn shared(file: &File, len: u64, mode: Mode) -> Mapping {
    MapOptions::new().write(true).mode(mode).map(file, 0, len).unwrap()
}

fn byte(map: &Mapping, at: u64) -> u8 {
    let mut found = [0];
    map.read(at, &mut found).unwrap();
    found[0]
}

#[test]
fn stores_are_read_and_writes_are_loaded() {
    for mode in MODES {
        let pool = pool(64 << 20);
        let file = file(&pool, "f");
        file.set_len(4 * SLOT).unwrap();
        let map = shared(&file, 4 * SLOT, mode);
        assert_eq!(byte(&map, 5), 0);
        assert_eq!(file.metadata().blocks, 0, "a load takes no space");
        map.write(5, b"stored").unwrap();
        let mut found = [0; 6];
        file.read_exact_at(&mut found, 5).unwrap();
        assert_eq!(&found, b"stored");
        assert_eq!(byte(&map, SLOT + 10), 0);
        file.write_all_at(b"written", SLOT + 10).unwrap();
        assert_eq!(byte(&map, SLOT + 10), b'w');
        map.atomic::<AtomicU64>(2 * SLOT).unwrap().store(77, Ordering::Release);
        file.read_exact_at(&mut found, 2 * SLOT).unwrap();
        assert_eq!(found[0], 77);
        map.close().unwrap();
        drop(file);
        assert!(pool.store.check().unwrap().is_clean());
    }
}

#[test]
fn punched_bytes_are_zero_and_their_blocks_are_gone() {
    for mode in MODES {
        let pool = pool(64 << 20);
        let file = file(&pool, "f");
        file.write_all_at(&vec![7; 2 * SLOT as usize], 0).unwrap();
        let map = shared(&file, 2 * SLOT, mode);
        map.prefault(0, 2 * SLOT, true).unwrap();
        file.allocate(3 * BLOCK, BLOCK, AllocateMode::Punch).unwrap();
        assert_eq!((byte(&map, 3 * BLOCK - 1), byte(&map, 3 * BLOCK), byte(&map, 4 * BLOCK)), (7, 0, 7));
        map.write(3 * BLOCK, &[9]).unwrap();
        let mut found = [0; 2];
        file.read_exact_at(&mut found, 3 * BLOCK).unwrap();
        assert_eq!(found, [9, 0]);
    }
}

#[test]
fn a_file_grows_under_its_mapping_and_is_cut() {
    for mode in MODES {
        let pool = pool(64 << 20);
        let file = file(&pool, "f");
        let map = shared(&file, 4 * SLOT, mode);
        for step in 0..100_u64 {
            file.append(&[step as u8 + 1; 5000]).unwrap();
            assert_eq!(byte(&map, step * 5000 + 4999), step as u8 + 1);
        }
        file.set_len(10_000).unwrap();
        assert_eq!(byte(&map, 9_999), 2);
        assert_eq!(byte(&map, 10_000), 0, "what the last block holds beyond the end is gone");
        file.set_len(20_000).unwrap();
        assert_eq!(byte(&map, 19_000), 0);
    }
}

#[test]
fn a_new_large_file_is_mapped_by_2_mib() {
    for mode in MODES {
        let pool = pool(64 << 20);
        let file = file(&pool, "f");
        file.set_len(8 * SLOT).unwrap();
        let map = shared(&file, 8 * SLOT, mode);
        for slot in 0..8 {
            map.write(slot * SLOT + 123, &[1]).unwrap();
        }
        println!("{mode:?}\n{}", map.stats());
        println!("{:?}", file.extents(0, 8 * SLOT).unwrap());
        map.advise(0, 8 * SLOT, Advice::DontNeed).unwrap();
        assert_eq!(byte(&map, 123), 1);
    }
}

#[test]
fn a_write_may_come_from_a_mapping_of_the_bytes_it_writes() {
    for mode in MODES {
        let pool = pool(64 << 20);
        let file = file(&pool, "f");
        file.set_len(2 * SLOT).unwrap();
        let map = shared(&file, 2 * SLOT, mode);
        map.write(0, b"source").unwrap();
        // SAFETY: nobody stores to the bytes but this very write, which reads each before it stores it.
        let bytes = unsafe { std::slice::from_raw_parts(map.as_ptr(), SLOT as usize) };
        file.write_all_at(bytes, SLOT).unwrap();
        assert_eq!(byte(&map, SLOT), b's');
        file.write_all_at(&bytes[..100], BLOCK / 2).unwrap();
        assert_eq!(byte(&map, BLOCK / 2), b's');
    }
}

#[test]
fn a_terabyte_of_nothing_is_mapped_at_once() {
    for mode in MODES {
        let pool = pool(64 << 20);
        let file = file(&pool, "f");
        file.set_len(1 << 40).unwrap();
        let map = shared(&file, 1 << 40, mode);
        assert_eq!(byte(&map, (1 << 40) - 1), 0);
        map.write((1 << 39) + 1, &[1]).unwrap();
        assert_eq!(byte(&map, (1 << 39) + 1), 1);
    }
}
