//! Do mappings follow blocks that move, and what do they show of blocks that the medium has lost?

use crate::common::{
    PAGE, Pool, SLOT, address, byte, everywhere, private, raised, read, read_only, shared, touch,
};
use daxstore::units::PoolOff;
use daxstore::{Error, File};
use daxstore_fault::{Advice, Count, Fallback, Mapping, Reason, What};
use std::sync::atomic::{AtomicBool, Ordering};

/// A file of two slots of sevens that lies in many places.
fn scattered(pool: &Pool) -> File {
    let (file, other) = (pool.sparse("f", 2 * SLOT), pool.sparse("other", 2 * SLOT));
    for at in (0..2 * SLOT).step_by(16 * PAGE as usize) {
        file.write_all_at(&[7; 16 * PAGE as usize], at).unwrap();
        other.write_all_at(&[1; PAGE as usize], at).unwrap();
    }
    // Whatever the first choice was: a page from elsewhere in each slot.
    for at in [5 * PAGE, SLOT + 9 * PAGE] {
        file.allocate(at, PAGE, daxstore::AllocateMode::Punch).unwrap();
        other.write_all_at(&[1; PAGE as usize], at + PAGE).unwrap();
        file.write_all_at(&[7; PAGE as usize], at).unwrap();
    }
    file
}

#[test]
fn defragmenting_makes_mapped_slots_huge() {
    everywhere(64 << 20, |pool, mode| {
        let file = scattered(pool);
        let (map, own) = (shared(&file, 2 * SLOT, mode), private(&file, 2 * SLOT, mode));
        map.prefault(0, 2 * SLOT, true).unwrap();
        own.write(9 * PAGE, &[3]).unwrap();
        let report = file.defrag().unwrap();
        assert_eq!(report.already + report.moved, 2, "{report:?}");
        let before = map.stats();
        map.write(0, &[1]).unwrap();
        map.write(SLOT, &[2]).unwrap();
        let after = map.stats().since(&before);
        assert_eq!(after.all_fallbacks(Fallback::Pte), 0, "{after}");
        assert!(after.get(Count::Pmd) >= report.moved.min(1));
        assert!(
            (PAGE..SLOT).step_by(PAGE as usize).all(|at| byte(&map, at) == 7 && byte(&map, SLOT + at) == 7)
        );
        assert_eq!((read(&file, 0), read(&file, SLOT), byte(&own, 9 * PAGE)), (1, 2, 3));
        assert!(pool.is_clean());
    });
}

#[test]
fn stores_go_on_while_a_file_is_defragmented() {
    everywhere(64 << 20, |pool, mode| {
        let file = scattered(pool);
        let map = shared(&file, 2 * SLOT, mode);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for thread in 0..2_u64 {
                let (map, file, done) = (&map, &file, &done);
                scope.spawn(move || {
                    for round in 1.. {
                        for at in (0..2 * SLOT).step_by(24 * PAGE as usize) {
                            let at = at + thread * 8;
                            touch::store(address(map, at), round).unwrap();
                            let mut found = [0; 8];
                            file.read_exact_at(&mut found, at).unwrap();
                            assert_eq!(u64::from_ne_bytes(found), round, "at {at:#x}");
                        }
                        if done.load(Ordering::Relaxed) {
                            break;
                        }
                    }
                });
            }
            for round in 0..30 {
                let hole = round % 2 * SLOT + 31 * PAGE;
                file.allocate(hole, PAGE, daxstore::AllocateMode::Punch).unwrap();
                file.write_all_at(&[7; PAGE as usize], hole).unwrap();
                file.defrag().unwrap();
                assert_eq!(byte(&map, hole + 100), 7);
            }
            done.store(true, Ordering::Relaxed);
        });
        assert!(pool.is_clean());
    });
}

/// Where the page at `at` lies in the pool.
fn place(map: &Mapping, at: u64) -> PoolOff {
    map.prefault(at, PAGE, false).unwrap();
    let entry = map.installed(at, PAGE).unwrap()[0];
    match entry.what {
        What::Block(pool) => pool.plus(at - entry.range.offset),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_lost_page_raises_sigbus_and_an_overwrite_brings_it_back() {
    everywhere(64 << 20, |pool, mode| {
        let file = pool.filled("f", 2 * SLOT, 7);
        let maps = [shared(&file, 2 * SLOT, mode), read_only(&file, 2 * SLOT, mode)];
        let bad = 5 * PAGE;
        pool.store.mark_bad(place(&maps[0], bad), PAGE).unwrap();
        for map in &maps {
            map.advise(0, 2 * SLOT, Advice::DontNeed).unwrap();
            assert_eq!(
                (raised(map, bad), raised(map, bad + PAGE - 8)),
                (Some(libc::SIGBUS), Some(libc::SIGBUS))
            );
            assert_eq!((byte(map, bad - 1), byte(map, bad + PAGE), byte(map, SLOT)), (7, 7, 7));
            let refused = map.prefault(bad, 8, false);
            assert!(matches!(refused, Err(Error::BadMedium { offset, .. }) if offset == bad), "{refused:?}");
        }
        assert!(touch::store(address(&maps[0], bad), 1).is_err());
        match file.read_exact_at(&mut [0; 8], bad) {
            Err(Error::BadMedium { offset, .. }) => assert_eq!(offset, bad),
            other => panic!("{other:?}"),
        }
        match maps[0].require_huge(0, SLOT) {
            Err(Error::NotHuge { why, .. }) => assert_eq!(why, Reason::BadMedium.text()),
            Err(Error::BadMedium { .. }) => {}
            other => panic!("{other:?}"),
        }
        file.write_all_at(&[9; PAGE as usize], bad).unwrap();
        for map in &maps {
            assert_eq!((byte(map, bad), byte(map, bad + PAGE - 1), byte(map, bad + PAGE)), (9, 9, 7));
        }
        maps[0].write(bad, &[1]).unwrap();
        assert_eq!((read(&file, bad), byte(&maps[1], bad)), (1, 1));
    });
}

#[test]
fn a_private_page_of_lost_bytes_raises_sigbus() {
    everywhere(64 << 20, |pool, mode| {
        let file = pool.filled("f", SLOT, 7);
        let map = shared(&file, SLOT, mode);
        pool.store.mark_bad(place(&map, 5 * PAGE), PAGE).unwrap();
        drop(map);
        let own = private(&file, SLOT, mode);
        own.write(4 * PAGE, &[1]).unwrap();
        assert_eq!((raised(&own, 5 * PAGE), byte(&own, 6 * PAGE)), (Some(libc::SIGBUS), 7));
    });
}
