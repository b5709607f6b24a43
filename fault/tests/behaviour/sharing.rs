//! Is what several files own stored to by nobody, and seen by all?
//!
//! A store through a mapping of a copy must not be seen in the original, nor the other way round; and whoever maps the same
//! file sees it.

use crate::common::{
    MEDIA, PAGE, Pool, SLOT, address, byte, everywhere, private, read, read_only, shared, touch,
};
use daxstore::{AllocateMode, Error, File};
use daxstore_fault::{Count, MapOptions, Mode};

/// A file of a slot and a bit, all `fill`, and a copy of it.
fn pair(pool: &Pool, fill: u8) -> [File; 2] {
    let file = pool.filled("a", SLOT + 5000, fill);
    let copy = pool.file("b");
    copy.reflink(&file).unwrap();
    [file, copy]
}

#[test]
fn a_store_through_a_mapping_gets_a_block_of_its_own() {
    everywhere(32 << 20, |pool, mode| {
        let [a, b] = pair(pool, 7);
        let (ma, mb) = (shared(&a, SLOT + 5000, mode), shared(&b, SLOT + 5000, mode));
        let before = pool.store.shared_blocks().unwrap().0;
        for at in [0, 5 * PAGE + 9, SLOT, SLOT + 4999] {
            assert_eq!((byte(&ma, at), byte(&mb, at)), (7, 7));
        }
        assert_eq!(pool.store.shared_blocks().unwrap().0, before, "loads take no space");
        assert!(ma.stats().get(Count::Guarded) > 0);
        for (i, at) in [0, 5 * PAGE + 9, SLOT, SLOT + 4999].into_iter().enumerate() {
            let value = i as u8 + 20;
            mb.write(at, &[value]).unwrap();
            assert_eq!((byte(&mb, at), read(&b, at)), (value, value));
            assert_eq!((byte(&ma, at), read(&a, at)), (7, 7));
            let next = (at + 1).min(SLOT + 4998);
            assert_eq!(byte(&mb, next), 7, "the rest of the page came along");
        }
        assert_eq!(mb.stats().get(Count::Unshared), 4);
        ma.write(0, &[99]).unwrap();
        assert_eq!((read(&a, 0), read(&b, 0)), (99, 20));
        mb.sync(0, mb.len()).unwrap();
        drop((ma, mb));
        assert!(pool.is_clean());
    });
}

#[test]
fn every_mapping_of_the_file_sees_the_store() {
    everywhere(32 << 20, |pool, mode| {
        let [a, b] = pair(pool, 7);
        let maps = [shared(&b, SLOT, mode), shared(&b, SLOT, mode), read_only(&b, SLOT, mode)];
        let other = read_only(&a, SLOT, mode);
        for page in 0..8 {
            assert!(maps.iter().all(|map| byte(map, page * PAGE) == 7) && byte(&other, page * PAGE) == 7);
        }
        for page in 0..8 {
            maps[page as usize % 2].write(page * PAGE, &[page as u8]).unwrap();
            assert!(maps.iter().all(|map| byte(map, page * PAGE) == page as u8), "page {page}");
            assert_eq!((byte(&other, page * PAGE), read(&a, page * PAGE)), (7, 7));
            b.write_all_at(&[page as u8 + 100], page * PAGE).unwrap();
            assert!(maps.iter().all(|map| byte(map, page * PAGE) == page as u8 + 100), "page {page}");
        }
    });
}

#[test]
fn a_write_to_shared_blocks_is_seen_through_mappings() {
    everywhere(32 << 20, |pool, mode| {
        let [a, b] = pair(pool, 7);
        let maps = [shared(&b, SLOT, mode), read_only(&b, SLOT, mode), shared(&a, SLOT, mode)];
        assert!(maps.iter().all(|map| byte(map, 3 * PAGE) == 7));
        b.write_all_at(&[8; 4096], 3 * PAGE).unwrap();
        assert_eq!([0, 1, 2].map(|i: usize| byte(&maps[i], 3 * PAGE)), [8, 8, 7]);
        // The source of a write is a mapping of the shared bytes that are written.
        let mut page = vec![0; PAGE as usize];
        maps[0].read(5 * PAGE, &mut page).unwrap();
        b.write_all_at(&page, 6 * PAGE).unwrap();
        let source = touch::bytes(address(&maps[0], 9 * PAGE), PAGE as usize);
        b.write_all_at(source, 9 * PAGE).unwrap();
        assert_eq!(byte(&maps[1], 9 * PAGE), 7);
        maps[0].write(20 * PAGE, &[1]).unwrap();
        assert_eq!(byte(&maps[1], 20 * PAGE), 1);
    });
}

#[test]
fn what_is_mapped_and_then_shared_can_not_be_stored_to() {
    everywhere(32 << 20, |pool, mode| {
        let a = pool.filled("a", SLOT, 7);
        let map = shared(&a, SLOT, mode);
        map.prefault(0, SLOT, true).unwrap();
        map.write(PAGE, &[1]).unwrap();
        let b = pool.file("b");
        b.reflink(&a).unwrap();
        assert_eq!(read(&b, PAGE), 1, "what was stored before is in the copy");
        map.write(PAGE, &[2]).unwrap();
        map.write(2 * PAGE, &[3]).unwrap();
        assert_eq!([PAGE, 2 * PAGE].map(|at| read(&b, at)), [1, 7]);
        assert_eq!([PAGE, 2 * PAGE].map(|at| (read(&a, at), byte(&map, at))), [(2, 2), (3, 3)]);
        map.sync(0, SLOT).unwrap();
        // Into a mapped file, over what it has.
        let target = shared(&b, SLOT, mode);
        target.write(9 * PAGE, &[5]).unwrap();
        b.reflink_range(&a, 0, 8 * PAGE, 4 * PAGE).unwrap();
        assert_eq!([8, 9, 10, 12].map(|page| byte(&target, page * PAGE)), [7, 2, 3, 7]);
        target.write(9 * PAGE, &[6]).unwrap();
        assert_eq!((read(&a, PAGE), read(&b, 9 * PAGE)), (2, 6));
        assert!(pool.is_clean());
    });
}

#[test]
fn private_mappings_leave_shared_blocks_alone() {
    everywhere(32 << 20, |pool, mode| {
        let [a, b] = pair(pool, 7);
        let before = pool.store.shared_blocks().unwrap();
        let (own, map) = (private(&b, SLOT, mode), read_only(&b, SLOT, mode));
        own.write(PAGE, &[9]).unwrap();
        assert_eq!((byte(&own, PAGE), byte(&own, 2 * PAGE), byte(&map, PAGE)), (9, 7, 7));
        assert_eq!((read(&a, PAGE), read(&b, PAGE)), (7, 7));
        assert_eq!(pool.store.shared_blocks().unwrap(), before);
        b.write_all_at(&[8], PAGE).unwrap();
        assert_eq!((byte(&own, PAGE), byte(&map, PAGE)), (9, 8));
    });
}

#[test]
fn without_a_fault_handler_sharing_ends_when_a_file_is_mapped() {
    for medium in MEDIA {
        touch::install();
        let pool = Pool::new(32 << 20, medium);
        let [a, b] = pair(&pool, 7);
        let map = shared(&b, SLOT, Mode::Eager);
        assert_eq!(pool.store.shared_blocks().unwrap().0, 2, "the rest of the file");
        map.write(PAGE, &[1]).unwrap();
        assert_eq!((read(&a, PAGE), read(&b, PAGE)), (7, 1));
        let c = pool.file("c");
        assert!(matches!(c.reflink(&b), Err(Error::Unsupported { .. })), "it could be stored to");
        assert_eq!(c.len(), 0);
        drop(map);
        c.reflink(&b).unwrap();
        assert_eq!(read(&c, PAGE), 1);
    }
}

#[test]
fn pinned_blocks_are_not_shared() {
    everywhere(32 << 20, |pool, mode| {
        let [a, b] = pair(pool, 7);
        let map = shared(&b, SLOT, mode);
        let pin = map.pin(0, 4 * PAGE).unwrap();
        assert!(matches!(pool.file("c").reflink(&b), Err(Error::InvalidArgument(_))));
        let at = b.extents(0, PAGE).unwrap()[0].state.address();
        assert!(pin.runs().first().is_some_and(|run| Some(run.0) == at), "blocks of its own");
        assert_ne!(a.extents(0, PAGE).unwrap()[0].state.address(), at);
        drop(pin);
        pool.file("c").reflink(&b).unwrap();
    });
}

#[test]
fn a_full_pool_fails_the_store_and_nothing_else() {
    everywhere(16 << 20, |pool, mode| {
        let [a, b] = pair(pool, 7);
        let map = shared(&b, SLOT, mode);
        let filler = pool.file("filler");
        let mut blocks = pool.store.statfs().free;
        while filler.allocate(0, blocks * PAGE, AllocateMode::KeepSize).is_err() {
            blocks -= 1;
        }
        assert_eq!(byte(&map, 0), 7);
        assert!(map.prefault(0, PAGE, true).is_err());
        assert_eq!((byte(&map, 0), read(&a, 0)), (7, 7));
        drop(filler);
        pool.store.remove_file("filler").unwrap();
        map.write(0, &[1]).unwrap();
        assert_eq!((read(&b, 0), read(&a, 0)), (1, 7));
    });
}

#[test]
fn slots_that_are_shared_are_not_huge_where_they_can_be_stored_to() {
    let pool = Pool::new(32 << 20, MEDIA[0]);
    let [_a, b] = pair(&pool, 7);
    let map = MapOptions::new().write(true).map(&b, 0, SLOT).unwrap();
    assert!(matches!(map.require_huge(0, SLOT), Err(Error::NotHuge { .. })));
    drop(map);
    b.allocate(0, SLOT, AllocateMode::Unshare).unwrap();
    assert!(!b.extents(0, SLOT).unwrap()[0].shared);
}
