//! Do files that share blocks behave like files that do not?

#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use daxstore::pmem::sim::Sim;
use daxstore::{
    AllocateMode, Error, File, FileKind, Follow, OpenOptions, State, Store, StoreOptions, XattrMode,
};
use std::sync::Arc;

const BLOCK: u64 = 4096;
const SIZE: u64 = 64 << 20;

/// A store with arenas that have room: what is free changes with data only.
fn store() -> Store {
    let store = Store::create_sim(Arc::new(Sim::new(SIZE).unwrap()), &StoreOptions::new()).unwrap();
    file(&store, "/warm", 1, 1);
    store.reflink("/warm", "/again").unwrap();
    store.symlink("x".repeat(4000), "/long").unwrap();
    ["/warm", "/again", "/long"].iter().for_each(|name| store.remove_file(name).unwrap());
    store
}

fn file(store: &Store, name: &str, blocks: u64, fill: u8) -> File {
    let file = store.create(name).unwrap();
    file.write_all_at(&vec![fill; (blocks * BLOCK) as usize], 0).unwrap();
    file
}

fn content(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; file.len() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// Fences of `f`, and what it answers.
fn fences<R>(store: &Store, f: impl FnOnce() -> R) -> (u64, R) {
    let before = store.counts().fences;
    let answer = f();
    (store.counts().fences - before, answer)
}

fn sound(store: &Store) {
    let report = store.check().unwrap();
    assert!(report.is_clean(), "{:#?}", report.faults);
    assert_eq!(report.blocks_shared, store.shared_blocks().unwrap().0);
}

fn places(file: &File) -> Vec<(u64, u64, bool)> {
    let extents = file.extents(0, file.len()).unwrap();
    let place = |state: State| state.address().map_or(0, |at| at.0);
    extents.iter().map(|e| (e.range.offset, place(e.state), e.shared)).collect()
}

#[test]
fn a_copy_shares_every_block_until_one_is_written() {
    let store = store();
    let a = file(&store, "/a", 8, 1);
    let free = store.statfs().free;
    let b = store.create("/b").unwrap();
    b.reflink(&a).unwrap();
    assert_eq!(content(&a), content(&b));
    assert_eq!(places(&a), places(&b));
    assert!(places(&a).iter().all(|(.., shared)| *shared));
    assert_eq!(store.shared_blocks().unwrap(), (8, 8));
    assert_eq!(free, store.statfs().free, "metadata only");
    sound(&store);
    b.write_all_at(&[2; 100], BLOCK + 50).unwrap();
    assert_eq!(content(&a), vec![1; 8 * BLOCK as usize], "the other does not change");
    let mut expected = vec![1; 8 * BLOCK as usize];
    expected[BLOCK as usize + 50..BLOCK as usize + 150].fill(2);
    assert_eq!(content(&b), expected, "the rest of the block came along");
    assert_eq!(store.shared_blocks().unwrap(), (7, 7));
    sound(&store);
}

#[test]
fn what_was_shared_is_stored_to_in_place_when_the_others_are_gone() {
    let store = store();
    let a = file(&store, "/a", 8, 1);
    store.reflink("/a", "/b").unwrap();
    let before = places(&a);
    store.remove_file("/b").unwrap();
    assert_eq!(store.shared_blocks().unwrap(), (0, 0));
    sound(&store);
    assert!(places(&a)[0].2, "the flag is a hint");
    // A record that clears the hint, and the overwrite.
    let (count, ()) = fences(&store, || a.write_all_at(&[3; 4096], 0).unwrap());
    assert_eq!(count, 2);
    assert_eq!(
        places(&a).iter().map(|p| p.1).collect::<Vec<_>>(),
        before.iter().map(|p| p.1).collect::<Vec<_>>()
    );
    assert!(!places(&a)[0].2);
    let (count, ()) = fences(&store, || a.write_all_at(&[4; 4096], 5 * BLOCK).unwrap());
    assert_eq!(count, 1, "as if it had never been shared");
    sound(&store);
}

#[test]
fn counted() {
    let store = store();
    let a = file(&store, "/a", 64, 1);
    let b = store.create("/b").unwrap();
    b.reflink(&a).unwrap();
    store.grow(SIZE).unwrap();
    let c = store.create("/c").unwrap();
    assert_eq!(fences(&store, || c.reflink(&a).unwrap()).0, 1, "one record");
    assert_eq!(fences(&store, || c.reflink_range(&a, 0, 64 * BLOCK, 64 * BLOCK).unwrap()).0, 1, "one record");
    assert_eq!(fences(&store, || c.write_all_at(&[9; 100], 7).unwrap()).0, 2, "copy on write: data, record");
    assert_eq!(
        fences(&store, || c.allocate(BLOCK, 4 * BLOCK, AllocateMode::Unshare).unwrap()).0,
        2,
        "unshare"
    );
    assert_eq!(
        fences(&store, || c.allocate(BLOCK, 4 * BLOCK, AllocateMode::Unshare).unwrap()).0,
        0,
        "nothing to do"
    );
    assert_eq!(
        fences(&store, || c.allocate(8 * BLOCK, 4 * BLOCK, AllocateMode::Punch).unwrap()).0,
        1,
        "punch"
    );
    assert_eq!(
        fences(&store, || c.allocate(13 * BLOCK, 9, AllocateMode::Punch).unwrap()).0,
        3,
        "a shared edge"
    );
    assert!(fences(&store, || b.dedupe_range(&a, 0, 0, 64 * BLOCK).unwrap()) == (1, true), "shared already");
    assert_eq!(fences(&store, || store.remove_file("/c").unwrap()).0, 1, "open: an intent");
    sound(&store);
}

#[test]
fn the_tail_of_a_shared_block_is_zeros_where_a_file_grows() {
    let store = store();
    let a = store.create("/a").unwrap();
    a.write_all_at(&[1; 5000], 0).unwrap();
    // The last block holds more than the file shows.
    a.set_len(4500).unwrap();
    let b = store.create("/b").unwrap();
    b.reflink(&a).unwrap();
    b.set_len(6000).unwrap();
    assert_eq!(content(&b)[4500..], [0; 1500]);
    a.write_all_at(&[2; 10], 7000).unwrap();
    assert_eq!(content(&a)[4500..7000], [0; 2500]);
    assert_eq!(content(&b)[..4500], [1; 4500]);
    let c = store.create("/c").unwrap();
    c.reflink(&a).unwrap();
    c.write_all_at(&[3; 10], 20000).unwrap();
    assert_eq!(content(&c)[7010..20000], [0; 12990]);
    c.allocate(4600, 100, AllocateMode::Zero).unwrap();
    assert_eq!(content(&a)[7000..7010], [2; 10]);
    sound(&store);
}

#[test]
fn ranges_that_can_not_be_shared_are_refused() {
    let store = store();
    let (a, b) = (file(&store, "/a", 4, 1), file(&store, "/b", 4, 2));
    let refused =
        |from, to, len| matches!(b.reflink_range(&a, from, to, len), Err(Error::InvalidArgument(_)));
    assert!(refused(1, 0, BLOCK) && refused(0, 1, BLOCK), "offsets");
    assert!(refused(0, 0, 100), "a part of a block in the middle");
    assert!(refused(0, 0, 5 * BLOCK), "beyond the source");
    a.set_len(10000).unwrap();
    assert!(refused(8192, 0, 1808), "a part of a block before the end of the destination");
    b.reflink_range(&a, 8192, 3 * BLOCK, 1808).unwrap_err();
    b.reflink_range(&a, 8192, 4 * BLOCK, 1808).unwrap();
    assert_eq!(b.len(), 4 * BLOCK + 1808);
    assert!(matches!(a.reflink_range(&a, 0, BLOCK, 2 * BLOCK), Err(Error::InvalidArgument(_))), "overlap");
    assert!(matches!(a.reflink(&a), Err(Error::InvalidArgument(_))), "itself");
    let other = Store::create_sim(Arc::new(Sim::new(SIZE).unwrap()), &StoreOptions::new()).unwrap();
    assert!(matches!(file(&other, "/x", 1, 1).reflink(&a), Err(Error::CrossPool)));
    let read_only = store.open("/b", &OpenOptions::new().read(true)).unwrap();
    assert!(matches!(read_only.reflink(&a), Err(Error::NotOpenedFor(_))));
    sound(&store);
}

#[test]
fn a_range_of_the_same_file() {
    let store = store();
    let a = file(&store, "/a", 4, 1);
    a.write_all_at(&[7; 4096], BLOCK).unwrap();
    a.reflink_range(&a, BLOCK, 8 * BLOCK, BLOCK).unwrap();
    a.reflink_range(&a, 0, 2 * BLOCK, 2 * BLOCK).unwrap();
    let found = content(&a);
    let block = |i: usize| found[i * 4096];
    assert_eq!((0..9).map(block).collect::<Vec<_>>(), [1, 7, 1, 7, 0, 0, 0, 0, 7]);
    assert_eq!(store.shared_blocks().unwrap(), (2, 3));
    sound(&store);
    a.set_len(0).unwrap();
    assert_eq!(store.shared_blocks().unwrap(), (0, 0));
    sound(&store);
}

#[test]
fn the_same_bytes_are_shared_and_others_are_not() {
    let store = store();
    let (a, b) = (file(&store, "/a", 16, 5), file(&store, "/b", 16, 5));
    let mtime = b.metadata().mtime;
    b.write_all_at(&[6], 9 * BLOCK).unwrap();
    let moved = b.metadata().mtime;
    assert!(!b.dedupe_range(&a, 0, 0, 16 * BLOCK).unwrap());
    assert_eq!(store.shared_blocks().unwrap(), (0, 0));
    let free = store.statfs().free;
    assert!(b.dedupe_range(&a, 0, 0, 9 * BLOCK).unwrap());
    assert!(b.dedupe_range(&a, 0, 10 * BLOCK, 6 * BLOCK).unwrap(), "at another place");
    assert_eq!(b.metadata().mtime, moved);
    assert!(moved >= mtime && store.statfs().free >= free + 14);
    sound(&store);
}

#[test]
fn a_full_pool_refuses_a_copy_before_anything_changes() {
    let store = Store::create_sim(Arc::new(Sim::new(8 << 20).unwrap()), &StoreOptions::new()).unwrap();
    let a = file(&store, "/a", 700, 1);
    store.reflink("/a", "/b").unwrap();
    let b = store.open("/b", &OpenOptions::new().read(true).write(true)).unwrap();
    let filler = store.create("/filler").unwrap();
    let mut blocks = store.statfs().free;
    while filler.allocate(0, blocks * BLOCK, AllocateMode::Allocate).is_err() {
        blocks -= 1;
    }
    assert!(matches!(b.write_at(&vec![2; 700 * 4096], 0), Err(Error::NoSpace { .. })));
    assert!(matches!(b.allocate(0, 700 * BLOCK, AllocateMode::Unshare), Err(Error::NoSpace { .. })));
    assert_eq!(content(&b), content(&a));
    assert_eq!(store.shared_blocks().unwrap(), (700, 700));
    store.remove_file("/a").unwrap();
    drop(a);
    b.write_all_at(&vec![2; 700 * 4096], 0).unwrap();
    sound(&store);
}

#[test]
fn lost_blocks_are_mended_in_one_file_at_a_time() {
    let store = store();
    let a = file(&store, "/a", 4, 1);
    store.reflink("/a", "/b").unwrap();
    let b = store.open("/b", &OpenOptions::new().read(true).write(true)).unwrap();
    let at = a.extents(0, BLOCK).unwrap()[0].state.address().unwrap();
    store.mark_bad(at.plus(BLOCK), BLOCK).unwrap();
    let mut block = [0; 4096];
    assert!(matches!(a.read_at(&mut block, BLOCK), Err(Error::BadMedium { .. })));
    assert!(matches!(b.write_at(&[2; 8], BLOCK), Err(Error::BadMedium { .. })), "a part");
    b.write_all_at(&[2; 4096], BLOCK).unwrap();
    b.read_exact_at(&mut block, BLOCK).unwrap();
    assert_eq!(block, [2; 4096]);
    assert!(
        matches!(a.read_at(&mut block, BLOCK), Err(Error::BadMedium { .. })),
        "the other's is lost still"
    );
    a.write_all_at(&[3; 4096], BLOCK).unwrap();
    sound(&store);
}

#[test]
fn a_tree_is_copied_with_all_it_has() {
    let store = store();
    store.create_dir("/t", 0o750).unwrap();
    store.create_dir("/t/d", 0o700).unwrap();
    let big = file(&store, "/t/d/big", 300, 9);
    big.allocate(10 * BLOCK, 20 * BLOCK, AllocateMode::Punch).unwrap();
    store.write("/t/small", b"text").unwrap();
    store.hard_link("/t/small", "/t/d/again").unwrap();
    store.symlink("small", "/t/link").unwrap();
    store.open_node("/t/d", Follow::No).unwrap().set_xattr("user.x", &[5; 9000], XattrMode::Either).unwrap();
    let free = store.statfs().free;
    let made = store.snapshot("/t", "/t/snap").unwrap();
    assert_eq!((made.files, made.directories, made.symlinks, made.links), (2, 2, 1, 1));
    assert!(free - store.statfs().free < 20, "{} blocks", free - store.statfs().free);
    assert!(matches!(store.snapshot("/t", "/t/snap"), Err(Error::Exists)));
    let again = store.open("/t/snap/d/big", &OpenOptions::new().read(true)).unwrap();
    assert_eq!(content(&again), content(&big));
    assert_eq!(again.metadata().mtime, big.metadata().mtime);
    assert_eq!(store.metadata("/t/snap/small").unwrap().ino, store.metadata("/t/snap/d/again").unwrap().ino);
    assert_eq!(store.read("/t/snap/link").unwrap(), b"text");
    assert_eq!(store.symlink_metadata("/t/snap/link").unwrap().kind, FileKind::Symlink);
    let (d, snap) = (store.metadata("/t/d").unwrap(), store.metadata("/t/snap/d").unwrap());
    assert_eq!((d.mode, d.mtime), (snap.mode, snap.mtime));
    let node = store.open_node("/t/snap/d", Follow::No).unwrap();
    assert_eq!(node.get_xattr("user.x").unwrap(), vec![5; 9000]);
    big.write_all_at(&[1; 4096], 0).unwrap();
    assert_eq!(content(&again)[0], 9);
    sound(&store);
    store.remove_dir_all("/t").unwrap();
    drop((again, big));
    assert_eq!(store.shared_blocks().unwrap(), (0, 0));
    sound(&store);
}

#[test]
fn many_owners_and_pieces() {
    let store = store();
    let a = file(&store, "/a", 512, 1);
    let names: Vec<_> = (0..20).map(|i| format!("/{i}")).collect();
    for (i, name) in names.iter().enumerate() {
        store.reflink("/a", name).unwrap();
        let copy = store.open(name, &OpenOptions::new().read(true).write(true)).unwrap();
        for block in (i as u64..512).step_by(21) {
            copy.write_all_at(&[i as u8 + 2; 4096], block * BLOCK).unwrap();
        }
    }
    sound(&store);
    for (i, name) in names.iter().enumerate() {
        let found = store.read(name).unwrap();
        for block in 0..512 {
            let expected = if block % 21 == i { i as u8 + 2 } else { 1 };
            assert_eq!(found[block * 4096], expected, "{name} block {block}");
        }
    }
    drop(a);
    store.remove_file("/a").unwrap();
    names.iter().for_each(|name| store.remove_file(name).unwrap());
    assert_eq!(store.shared_blocks().unwrap(), (0, 0));
    sound(&store);
}

/// One record, however long the file is.
#[test]
fn a_gib_is_one_record() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let options = StoreOptions::new().assume_persistent(true);
    let store = Store::create(dir.path().join("pool"), 1280 << 20, &options).unwrap();
    let a = store.create("/a").unwrap();
    let piece = vec![7; 64 << 20];
    (0..16).for_each(|i| a.write_all_at(&piece, i << 26).unwrap());
    store.write("/warm", b"x").unwrap();
    store.reflink("/warm", "/again").unwrap();
    let b = store.create("/b").unwrap();
    assert_eq!(a.extents(0, 1 << 30).unwrap().len(), 2, "a run in each of two groups");
    assert_eq!(fences(&store, || b.reflink(&a).unwrap()).0, 1);
    assert_eq!(store.shared_blocks().unwrap().0, (1 << 18) + 1);
    assert_eq!(fences(&store, || b.set_len(0).unwrap()).0, 1);
    sound(&store);
}
