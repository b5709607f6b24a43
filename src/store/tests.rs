//! Tests that need what is below the public face.

#![cfg(all(feature = "sim", not(loom)))]

mod defrag;

use super::{File, Store, StoreOptions};
use crate::error::Error;
use crate::inode::Draft;
use crate::io::AllocateMode;
use crate::layout::Kind;
use crate::pmem::{Durable, sim::Sim};
use crate::sync::Arc;
use crate::units::{BLOCK_BYTES, CHUNK_BYTES, Ino, PoolOff};
use std::os::unix::fs::MetadataExt;

const SIZE: u64 = 8 << 20;

fn store() -> Store {
    Store::create_sim(Arc::new(Sim::new(SIZE).unwrap()), &StoreOptions::new().seed(1)).unwrap()
}

/// A file of five blocks cut to `size` by a truncate that could free nothing.
fn cut(store: &Store, size: u64) -> File {
    let fs = &store.inner.fs;
    let file = store.create("/f").unwrap();
    file.write_all_at(&[9; 5 * BLOCK_BYTES as usize], 0).unwrap();
    let core = fs.table.get(store.metadata("/f").unwrap().ino).unwrap();
    let mut draft = Draft::lock(&core);
    draft.inode.size = size;
    let mut op = fs.space.begin();
    draft.stage(&mut op).unwrap();
    op.commit(Durable::no_data()).unwrap();
    draft.publish(fs.region()).unwrap();
    file
}

fn assert_grown(file: &File, old: u64, written: u64) {
    let mut found = vec![0; written as usize];
    file.read_exact_at(&mut found, 0).unwrap();
    let (kept, gained) = found.split_at(old as usize);
    assert!(kept.iter().all(|byte| *byte == 9), "what was kept");
    assert_eq!(gained.iter().position(|byte| *byte != 0), None, "a byte of the longer file came back");
}

#[test]
fn a_file_whose_blocks_could_not_be_freed_grows_by_zeros() {
    for old in [100, BLOCK_BYTES, 2 * BLOCK_BYTES + 1] {
        let end = 5 * BLOCK_BYTES;
        let longer = store();
        let file = cut(&longer, old);
        file.set_len(end).unwrap();
        assert_grown(&file, old, end);
        let allocated = store();
        let file = cut(&allocated, old);
        file.allocate(0, end, AllocateMode::Allocate).unwrap();
        assert_grown(&file, old, end);
        let written = store();
        let file = cut(&written, old);
        file.write_all_at(&[3; 10], end - 100).unwrap();
        assert_grown(&file, old, end - 100);
        file.set_len(end).unwrap();
        let mut tail = [1; 90];
        file.read_exact_at(&mut tail, end - 90).unwrap();
        assert_eq!(tail, [0; 90]);
    }
}

#[test]
fn what_looks_like_an_inode_outside_of_arenas_is_none() {
    let store = store();
    let fs = &store.inner.fs;
    let journal = fs.journal();
    let at = PoolOff(SIZE - BLOCK_BYTES);
    let mut image = journal.read(fs.root.offset(), Kind::Inode).unwrap();
    image.seal(journal.seed(), at, 1);
    fs.region().store(at, image.bytes()).unwrap();
    assert!(matches!(fs.table.get(Ino::at(at)), Err(Error::Corrupt(damage)) if damage.at == at));
    assert!(matches!(fs.table.get(Ino(u64::MAX)), Err(Error::Corrupt(_))));
}

#[test]
fn a_new_pool_has_its_first_chunk_of_the_host() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = dir.path().join("pool");
    Store::create(&path, SIZE, &StoreOptions::new().assume_persistent(true)).unwrap();
    let blocks = std::fs::metadata(&path).unwrap().blocks();
    assert!(blocks * 512 >= CHUNK_BYTES, "{blocks} blocks of 512 bytes");
}
