//! What is refused, and how?

use crate::common::{
    MODES, Medium, PAGE, Pool, SLOT, address, byte, child, everywhere, mode_of, read, read_only, shared,
    touch,
};
use daxstore::{Error, OpenOptions};
use daxstore_fault::{Advice, MapOptions, Mode};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

#[test]
fn ranges_that_are_none() {
    everywhere(32 << 20, |pool, mode| {
        let file = pool.filled("f", SLOT, 7);
        let map = |offset, len| MapOptions::new().mode(mode).map(&file, offset, len).map(|_| ());
        for (offset, len) in
            [(0, 0), (1, PAGE), (PAGE / 2, PAGE), (PAGE - 1, 1), (0, 1 << 60), (1 << 61, 1 << 61)]
        {
            let refused = map(offset, len);
            assert!(
                matches!(
                    refused,
                    Err(Error::InvalidArgument(_) | Error::FileTooLarge { .. } | Error::Io { .. })
                ),
                "{offset} {len}: {refused:?}"
            );
        }
        for (offset, len) in [(u64::MAX, 1), (PAGE, u64::MAX), (u64::MAX - PAGE + 1, PAGE), (0, u64::MAX)] {
            assert!(map(offset, len).is_err(), "{offset} {len}");
        }
        assert!(map(0, 1).is_ok() && map(PAGE, 100).is_ok() && map(64 * SLOT, PAGE).is_ok());
        assert!(map(1 << 50, PAGE).is_ok(), "far behind the end");
    });
}

#[test]
fn calls_stay_inside_of_the_mapping() {
    everywhere(32 << 20, |pool, mode| {
        let file = pool.filled("f", SLOT, 7);
        let map = MapOptions::new().write(true).mode(mode).map(&file, PAGE, 100).unwrap();
        assert_eq!((map.len(), map.file_range().offset), (100, PAGE));
        let out = |result: daxstore::Result<()>| {
            assert!(matches!(result, Err(Error::OutOfMapping { .. })), "{result:?}")
        };
        for (offset, len) in [(100, 1), (0, 101), (u64::MAX, 1), (1, u64::MAX)] {
            if len < 200 {
                out(map.read(offset, &mut vec![0; len as usize]));
                out(map.write(offset, &vec![0; len as usize]));
                out(map.write_through(offset, &vec![0; len as usize]));
            }
            out(map.flush(offset, len));
            out(map.sync(offset, len).map(drop));
            out(map.prefault(offset, len, false));
            out(map.pin(offset, len).map(drop));
            out(map.advise(offset, len, Advice::DontNeed));
            out(map.require_huge(offset, len));
            out(map.installed(offset, len).map(drop));
        }
        out(map.atomic::<AtomicU64>(96).map(drop));
        out(map.atomic::<AtomicU64>(4).map(drop));
        map.atomic::<AtomicU32>(96).unwrap().store(1, Ordering::Relaxed);
        assert_eq!(byte(&map, 96), 1);
    });
}

#[test]
fn nothing_of_a_range_is_nothing() {
    everywhere(32 << 20, |pool, mode| {
        let file = pool.filled("f", SLOT, 7);
        let map = shared(&file, SLOT, mode);
        for at in [0, 100, SLOT] {
            map.read(at, &mut []).unwrap();
            map.write(at, &[]).unwrap();
            map.flush(at, 0).unwrap();
            assert_eq!(map.sync(at, 0).unwrap(), 0);
            map.prefault(at, 0, true).unwrap();
            map.advise(at, 0, Advice::DontNeed).unwrap();
            map.advise(at, 0, Advice::WillNeed).unwrap();
            drop(map.pin(at, 0).unwrap());
        }
    });
}

#[test]
fn calls_round_parts_of_pages_outwards() {
    everywhere(32 << 20, |pool, mode| {
        let file = pool.filled("f", SLOT + 100, 7);
        let map = shared(&file, SLOT + 200, mode);
        for (at, len) in [(5, 10), (PAGE - 1, 2), (3 * PAGE, 1), (SLOT - 1, 2), (SLOT + 50, 50), (SLOT, 200)]
        {
            let last = at + len - 1;
            let write = |value: u8| {
                map.write(at, &[value]).unwrap();
                map.write(last, &[value]).unwrap();
            };
            write(1);
            map.advise(at, len, Advice::DontNeed).unwrap();
            assert_eq!((byte(&map, at), byte(&map, last)), (1, 1));
            write(2);
            map.sync(at, len).unwrap();
            // Where pages are written back, the system knows which are clean, and nobody else.
            let again = map.sync(at, len).unwrap();
            assert!(again == 0 || pool.medium == Medium::Pages, "{at} {len}: {again}");
            write(3);
            drop(map.pin(at, len).unwrap());
            map.prefault(at, len, true).unwrap();
            map.flush(at, len).unwrap();
            assert_eq!((byte(&map, at), byte(&map, last), read(&file, at)), (3, 3, 3));
        }
    });
}

#[test]
fn rights_are_those_of_the_handle() {
    everywhere(32 << 20, |pool, mode| {
        pool.filled("f", SLOT, 7);
        let open = |options: &OpenOptions| pool.store.open("f", options).unwrap();
        let only_read = open(&OpenOptions::new().read(true));
        let only_write = open(&OpenOptions::new().write(true));
        let map = |file, write| MapOptions::new().write(write).mode(mode).map(file, 0, SLOT);
        assert!(matches!(map(&only_read, true), Err(Error::NotOpenedFor("writing"))));
        assert!(matches!(map(&only_write, true), Err(Error::NotOpenedFor("reading"))));
        assert!(matches!(map(&only_write, false), Err(Error::NotOpenedFor("reading"))));
        let seen = map(&only_read, false).unwrap();
        assert!(matches!(seen.write(0, &[1]), Err(Error::NotOpenedFor("writing"))));
        assert!(matches!(seen.write_through(0, &[1]), Err(Error::NotOpenedFor("writing"))));
        assert!(matches!(seen.atomic::<AtomicU64>(0), Err(Error::NotOpenedFor("writing"))));
        assert!(matches!(seen.prefault(0, PAGE, true), Err(Error::NotOpenedFor("writing"))));
        assert_eq!(byte(&seen, 0), 7);
    });
}

#[test]
fn prefaults_behind_the_end_say_so() {
    everywhere(32 << 20, |pool, mode| {
        let file = pool.filled("f", SLOT + 1, 7);
        let map = shared(&file, 4 * SLOT, mode);
        map.prefault(0, SLOT + PAGE, true).unwrap();
        for (at, len) in [(SLOT + PAGE, 1), (0, 2 * SLOT), (3 * SLOT, PAGE)] {
            let refused = map.prefault(at, len, false);
            assert!(matches!(refused, Err(Error::UnexpectedEnd { .. })), "{at} {len}: {refused:?}");
        }
    });
}

#[test]
fn advice_is_taken() {
    everywhere(32 << 20, |pool, mode| {
        let file = pool.filled("f", 2 * SLOT, 7);
        let map = shared(&file, 2 * SLOT, mode);
        map.advise(0, 2 * SLOT, Advice::WillNeed).unwrap();
        let installed = |map: &daxstore_fault::Mapping| {
            map.installed(0, 2 * SLOT).unwrap().iter().map(|entry| entry.range.len).sum::<u64>()
        };
        assert_eq!(installed(&map), 2 * SLOT);
        let before = map.stats();
        assert!((0..2 * SLOT).step_by(PAGE as usize).all(|at| byte(&map, at) == 7));
        assert_eq!(map.stats(), before, "nothing faults that was asked for");
        map.advise(SLOT, SLOT, Advice::DontNeed).unwrap();
        assert_eq!(installed(&map), SLOT);
        assert_eq!(byte(&map, 2 * SLOT - 1), 7);
    });
}

#[test]
fn the_mode_is_found_by_trying() {
    let end = child::run("arguments::the_mode_is_found_by_trying", "", |_| {
        let pool = Pool::new(32 << 20, Medium::Lines);
        let file = pool.filled("f", SLOT, 7);
        assert_eq!(MapOptions::new().map(&file, 0, SLOT).unwrap().mode(), Mode::Userfault);
        for mode in MODES {
            assert_eq!(read_only(&file, SLOT, mode).mode(), mode);
        }
    });
    assert!(end.status.success(), "{end:?}");
}

#[test]
fn who_has_no_rights_has_a_mode_that_says_what_it_serves() {
    // Without privileges the kernel may forbid userfaultfd, or allow it for what user code touches only.
    for mode in ["U", "S", "E"] {
        let end =
            child::run("arguments::who_has_no_rights_has_a_mode_that_says_what_it_serves", mode, |mode| {
                let pool = Pool::new(32 << 20, Medium::Lines);
                let file = pool.filled("f", SLOT, 7);
                file.set_len(2 * SLOT).unwrap();
                touch::become_nobody();
                let map = MapOptions::new().write(true).mode(mode_of(mode)).map(&file, 0, 2 * SLOT);
                match map {
                    Ok(map) => {
                        assert!(!map.serves_system_calls());
                        map.write(SLOT + 5, &[1]).unwrap();
                        assert_eq!((byte(&map, 0), byte(&map, SLOT + 5)), (7, 1));
                        let other = tempfile::tempfile().unwrap();
                        map.prefault(0, PAGE, false).unwrap();
                        assert_eq!(touch::pwrite(&other, address(&map, 0), 8, 0), Ok(8));
                    }
                    Err(refused) => {
                        assert_eq!(mode, "U");
                        assert!(refused.to_string().contains("userfaultfd"), "{refused}");
                        let map = MapOptions::new().map(&file, 0, SLOT).unwrap();
                        assert_eq!(map.mode(), Mode::Signal);
                    }
                }
            });
        assert!(end.status.success(), "{mode}: {end:?}");
    }
}

#[test]
fn a_store_that_is_only_read_can_be_mapped() {
    touch::install();
    for medium in [Medium::Lines, Medium::Pages] {
        for mode in MODES {
            let pool = Pool::new(32 << 20, medium);
            let file = pool.filled("f", 3 * PAGE + 5, 7);
            // What a mapping left in the last page beyond the end: it can not be cleaned here.
            shared(&file, SLOT, mode).write(3 * PAGE + 5, &[9]).unwrap();
            drop(file);
            let pool = pool.reopened_as(true);
            let file = pool.store.open("f", &daxstore::OpenOptions::new().read(true)).unwrap();
            let map = read_only(&file, SLOT, mode);
            assert_eq!((byte(&map, 3 * PAGE), byte(&map, 3 * PAGE + 4)), (7, 7), "{medium:?} {mode:?}");
            assert!(MapOptions::new().write(true).mode(mode).map(&file, 0, SLOT).is_err());
            let private = MapOptions::new().write(true).private(true).mode(mode).map(&file, 0, SLOT).unwrap();
            private.write(0, &[1]).unwrap();
            assert_eq!((byte(&private, 0), byte(&map, 0)), (1, 7));
        }
    }
}

#[test]
fn many_mappings_at_once() {
    everywhere(32 << 20, |pool, mode| {
        let file = pool.filled("f", SLOT, 7);
        let maps: Vec<_> = (0..600_u64)
            .map(|i| MapOptions::new().write(true).mode(mode).map(&file, i % 512 * PAGE, 2 * PAGE).unwrap())
            .collect();
        maps[7].write(PAGE, &[9]).unwrap();
        assert_eq!((byte(&maps[8], 0), byte(&maps[519], PAGE), byte(&maps[520], 0)), (9, 9, 9));
        file.allocate(8 * PAGE, PAGE, daxstore::AllocateMode::Punch).unwrap();
        assert_eq!((byte(&maps[8], 0), byte(&maps[7], PAGE), byte(&maps[520], 0)), (0, 0, 0));
    });
}
