//! What is flushed, and when?

use crate::common::{MODES, Medium, PAGE, Pool, SLOT, byte, everywhere, read, shared};
use daxstore_fault::MapOptions;

const FILE: u64 = 8 * SLOT;

#[test]
fn a_sync_flushes_what_may_have_been_stored_to_since_the_last() {
    for mode in MODES {
        let pool = Pool::new(64 << 20, Medium::Lines);
        let file = pool.filled("f", FILE, 7);
        let map = shared(&file, FILE, mode);
        assert_eq!(map.sync(0, FILE).unwrap(), 0, "nothing was touched");
        map.write(5 * SLOT, &[1]).unwrap();
        let flushed = map.sync(0, FILE).unwrap();
        assert!((1..=SLOT).contains(&flushed), "one slot after the first sync, not {flushed}");
        assert_eq!(map.sync(0, FILE).unwrap(), 0, "{mode:?}: what is clean stays so");
        map.write(2 * SLOT + PAGE, &[1]).unwrap();
        assert_eq!(map.sync(0, SLOT).unwrap(), 0, "another range");
        assert!((1..=SLOT).contains(&map.sync(2 * SLOT, SLOT).unwrap()));
        assert_eq!((read(&file, 5 * SLOT), read(&file, 2 * SLOT + PAGE)), (1, 1));
    }
}

#[test]
fn loads_leave_nothing_to_flush_in_a_mapping_that_can_only_be_read() {
    for mode in MODES {
        let pool = Pool::new(64 << 20, Medium::Lines);
        let file = pool.filled("f", FILE, 7);
        let map = crate::common::read_only(&file, FILE, mode);
        assert!((0..FILE).step_by(PAGE as usize).all(|at| byte(&map, at) == 7));
        assert_eq!(map.sync(0, FILE).unwrap(), 0);
    }
}

#[test]
fn the_files_sync_covers_every_mapping() {
    for mode in MODES {
        let pool = Pool::new(64 << 20, Medium::Lines);
        let file = pool.filled("f", FILE, 7);
        let maps = [shared(&file, FILE, mode), shared(&file, FILE, mode)];
        maps[0].write(0, &[1]).unwrap();
        maps[1].write(SLOT, &[1]).unwrap();
        file.sync_all().unwrap();
        assert_eq!(maps[0].sync(0, FILE).unwrap(), 0);
        assert_eq!((byte(&maps[1], 0), byte(&maps[0], SLOT)), (1, 1));
    }
}

#[test]
fn who_flushes_by_himself_costs_a_sync_nothing() {
    everywhere(64 << 20, |pool, mode| {
        let file = pool.filled("f", FILE, 7);
        let map = MapOptions::new().write(true).flushed_by_user(true).mode(mode).map(&file, 0, FILE).unwrap();
        map.write(0, &[1]).unwrap();
        map.flush(0, 1).unwrap();
        map.write_through(PAGE, &[2; 64]).unwrap();
        map.fence().unwrap();
        let faults = map.stats().get(daxstore_fault::Count::Stores);
        assert_eq!(map.sync(0, FILE).unwrap(), 0);
        file.sync_all().unwrap();
        map.write(1, &[1]).unwrap();
        assert_eq!(map.stats().get(daxstore_fault::Count::Stores), faults, "its translations stay");
        assert_eq!((read(&file, 0), read(&file, PAGE)), (1, 2));
        map.close().unwrap();
    });
}

#[test]
fn what_a_punch_takes_away_of_2_mib_leaves_the_rest_to_be_flushed() {
    for mode in MODES {
        let pool = Pool::new(64 << 20, Medium::Lines);
        let file = pool.filled("f", FILE, 7);
        let map = shared(&file, FILE, mode);
        file.sync_all().unwrap();
        map.write(10, &[1]).unwrap();
        file.allocate(100 * PAGE, PAGE, daxstore::AllocateMode::Punch).unwrap();
        let flushed = map.sync(0, FILE).unwrap();
        assert!(flushed >= PAGE, "the store of the first page is to be flushed still: {flushed}");
    }
}

#[test]
fn what_was_stored_is_there_when_the_pool_is_opened_again() {
    for medium in crate::common::MEDIA {
        for mode in MODES {
            let pool = Pool::new(64 << 20, medium);
            let file = pool.sparse("f", FILE);
            let map = shared(&file, FILE, mode);
            for at in (0..FILE).step_by(SLOT as usize / 2) {
                map.write(at, &[3]).unwrap();
            }
            map.close().unwrap();
            drop(file);
            let pool = pool.reopened();
            let file = pool.file("f");
            assert!((0..FILE).step_by(SLOT as usize / 2).all(|at| read(&file, at) == 3));
            assert!(pool.is_clean());
        }
    }
}

#[test]
fn syncs_and_stores_at_once_lose_nothing() {
    everywhere(64 << 20, |pool, mode| {
        let file = pool.sparse("f", 2 * SLOT);
        let map = shared(&file, 2 * SLOT, mode);
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    map.sync(0, 2 * SLOT).unwrap();
                    file.sync_all().unwrap();
                }
            });
            for round in 1..40_u8 {
                for at in (0..2 * SLOT).step_by(32 * PAGE as usize) {
                    map.write(at, &[round]).unwrap();
                    assert_eq!(read(&file, at), round);
                }
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    });
}
