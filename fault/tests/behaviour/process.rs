//! What do processes see that fork, end threads, get signals, and change a mapping behind its back?

use crate::common::{
    self, Medium, PAGE, Pool, SLOT, address, byte, child, everywhere, mode_of, read, read_only, shared, touch,
};
use daxstore_fault::{Advice, Mode};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Runs `body` in a process of its own for each mode; each must end by `signal`, or well.
fn each(name: &str, signal: Option<i32>, body: impl Fn(Mode)) {
    for mode in ["U", "S"] {
        let end = child::run(&format!("process::{name}"), mode, |mode| body(mode_of(mode)));
        assert_eq!(end.signal(), signal, "mode {mode}: {end:?}");
        assert!(signal.is_some() || end.status.success(), "mode {mode}: {end:?}");
    }
}

#[test]
fn a_forked_child_has_no_part_of_a_mapping_and_the_parent_goes_on() {
    everywhere(64 << 20, |pool, mode| {
        let file = pool.filled("f", 3 * SLOT, 7);
        file.set_len(5 * SLOT).unwrap();
        let map = shared(&file, 6 * SLOT, mode);
        map.write(0, &[1]).unwrap();
        assert_eq!(byte(&map, 4 * SLOT), 0);
        let start = address(&map, 0);
        let child =
            || (0..6 * SLOT / PAGE).all(|i| !touch::is_mapped(start + (i * PAGE) as usize, PAGE as usize));
        assert!(touch::forked(child));
        map.write(SLOT, &[2]).unwrap();
        map.write(4 * SLOT, &[3]).unwrap();
        assert_eq!((read(&file, 0), read(&file, SLOT), read(&file, 4 * SLOT)), (1, 2, 3));
    });
}

#[test]
fn a_child_that_drops_a_mapping_does_the_parent_no_harm() {
    everywhere(64 << 20, |pool, mode| {
        let file = pool.filled("f", SLOT, 7);
        let (map, mut kept) = (shared(&file, SLOT, mode), Some(shared(&file, SLOT, mode)));
        map.write(0, &[1]).unwrap();
        assert!(touch::forked(|| {
            drop(kept.take());
            true
        }));
        assert_eq!(byte(kept.as_ref().unwrap(), 0), 1);
        map.write(PAGE, &[1]).unwrap();
        map.advise(0, SLOT, Advice::DontNeed).unwrap();
        assert_eq!((byte(&map, PAGE), byte(kept.as_ref().unwrap(), 2 * PAGE)), (1, 7));
    });
}

#[test]
fn programs_are_started_as_ever() {
    everywhere(64 << 20, |pool, mode| {
        let file = pool.sparse("f", SLOT);
        let map = shared(&file, SLOT, mode);
        std::thread::scope(|scope| {
            scope.spawn(|| (0..500).for_each(|i| map.write(i * PAGE, &[1]).unwrap()));
            for _ in 0..10 {
                assert!(std::process::Command::new("true").status().unwrap().success());
            }
        });
        assert!((0..500).all(|i| read(&file, i * PAGE) == 1));
    });
}

#[test]
fn threads_end_while_others_fault() {
    everywhere(64 << 20, |pool, mode| {
        let file = pool.sparse("f", 2 * SLOT);
        let map = shared(&file, 2 * SLOT, mode);
        let pages = 2 * SLOT / PAGE;
        std::thread::scope(|scope| {
            for thread in 0..120_u64 {
                let map = &map;
                scope.spawn(move || {
                    for i in 0..8 {
                        let at = (thread * 8 + i) % pages * PAGE;
                        touch::store(address(map, at), thread * 8 + i + 1).unwrap();
                    }
                });
                if thread % 8 == 0 {
                    map.advise(0, 2 * SLOT, Advice::DontNeed).unwrap();
                }
            }
        });
        for i in 0..960 {
            assert_eq!(touch::load(address(&map, i % pages * PAGE)), Ok(i + 1));
        }
    });
}

#[test]
fn signals_in_the_middle_of_faults_do_no_harm() {
    each("signals_in_the_middle_of_faults_do_no_harm", None, |mode| {
        touch::install();
        let pool = Pool::new(32 << 20, Medium::Lines);
        let file = pool.sparse("f", SLOT);
        let map = shared(&file, SLOT, mode);
        let _storm = touch::storm_of_signals();
        for round in 1..3000_u64 {
            let at = round % 512 * PAGE;
            touch::store(address(&map, at), round).unwrap();
            assert_eq!(touch::load(address(&map, at)), Ok(round));
            if round % 7 == 0 {
                file.allocate(at, PAGE, daxstore::AllocateMode::Punch).unwrap();
                assert_eq!(touch::load(address(&map, at)), Ok(0));
            } else if round % 5 == 0 {
                map.advise(0, SLOT, Advice::DontNeed).unwrap();
                assert_eq!(touch::load(address(&map, at)), Ok(round));
            }
        }
    });
}

#[test]
fn what_the_user_throws_away_by_madvise_is_there_again() {
    everywhere(64 << 20, |pool, mode| {
        let file = pool.filled("f", SLOT, 7);
        file.set_len(3 * SLOT).unwrap();
        let map = shared(&file, 4 * SLOT, mode);
        for _ in 0..2 {
            map.write(SLOT + 9 * PAGE, &[1]).unwrap();
            assert_eq!((byte(&map, 0), byte(&map, SLOT + PAGE), byte(&map, 2 * SLOT)), (7, 0, 0));
            touch::madvise(address(&map, 0), 4 * SLOT as usize, libc::MADV_DONTNEED).unwrap();
            assert_eq!((byte(&map, 0), byte(&map, SLOT + PAGE), byte(&map, 2 * SLOT)), (7, 0, 0));
            assert_eq!(byte(&map, SLOT + 9 * PAGE), 1);
            touch::madvise(address(&map, 0), 4 * SLOT as usize, libc::MADV_DONTNEED).unwrap();
            // A store, where zeros were shown and thrown away.
            map.write(2 * SLOT + PAGE, &[4]).unwrap();
            map.write(SLOT + PAGE, &[4]).unwrap();
            assert_eq!((read(&file, 2 * SLOT + PAGE), read(&file, SLOT + PAGE)), (4, 4));
            file.allocate(SLOT, 2 * SLOT, daxstore::AllocateMode::Punch).unwrap();
        }
    });
}

#[test]
fn a_private_copy_that_the_user_throws_away_is_the_files_page_again() {
    everywhere(64 << 20, |pool, mode| {
        let file = pool.filled("f", SLOT, 7);
        let map = common::private(&file, SLOT, mode);
        map.write(PAGE, &[1]).unwrap();
        touch::madvise(address(&map, 0), SLOT as usize, libc::MADV_DONTNEED).unwrap();
        let found = byte(&map, PAGE);
        assert!(found == 7 || (mode == Mode::Signal && found == 0), "{found}");
        map.write(PAGE, &[2]).unwrap();
        assert_eq!((byte(&map, PAGE), read(&file, PAGE)), (2, 7));
    });
}

#[test]
fn rights_that_the_user_takes_and_gives_lose_nothing() {
    everywhere(64 << 20, |pool, mode| {
        let file = pool.filled("f", SLOT, 7);
        let map = shared(&file, SLOT, mode);
        map.prefault(0, SLOT, true).unwrap();
        touch::mprotect(address(&map, 4 * PAGE), 4 * PAGE as usize, libc::PROT_READ);
        assert_eq!(touch::load(address(&map, 5 * PAGE)), Ok(0x0707_0707_0707_0707));
        touch::mprotect(address(&map, 4 * PAGE), 4 * PAGE as usize, libc::PROT_READ | libc::PROT_WRITE);
        map.write(5 * PAGE, &[1]).unwrap();
        file.allocate(4 * PAGE, PAGE, daxstore::AllocateMode::Punch).unwrap();
        assert_eq!((byte(&map, 4 * PAGE), read(&file, 5 * PAGE)), (0, 1));
    });
}

#[test]
fn what_the_user_unmapped_is_a_segmentation_fault_and_the_rest_lives() {
    each("what_the_user_unmapped_is_a_segmentation_fault_and_the_rest_lives", None, |mode| {
        touch::install();
        let pool = Pool::new(32 << 20, Medium::Lines);
        let file = pool.filled("f", 2 * SLOT, 7);
        let map = shared(&file, 2 * SLOT, mode);
        map.prefault(0, 2 * SLOT, true).unwrap();
        touch::munmap(address(&map, SLOT), SLOT as usize);
        if mode == Mode::Userfault {
            let raised = touch::load(address(&map, SLOT)).unwrap_err();
            assert_eq!(raised.signal, libc::SIGSEGV);
        }
        map.write(0, &[1]).unwrap();
        file.allocate(PAGE, PAGE, daxstore::AllocateMode::Punch).unwrap();
        assert_eq!((byte(&map, 0), byte(&map, PAGE), byte(&map, 2 * PAGE)), (1, 0, 7));
    });
}

#[test]
fn a_store_to_what_can_only_be_read_is_the_users_own_segmentation_fault() {
    everywhere(64 << 20, |pool, mode| {
        let file = pool.filled("f", SLOT, 7);
        file.set_len(3 * SLOT).unwrap();
        let map = read_only(&file, 4 * SLOT, mode);
        for touched in [false, true] {
            for at in [0, SLOT + PAGE, 2 * SLOT] {
                if touched {
                    assert!(touch::load(address(&map, at)).is_ok());
                }
                let place = address(&map, at);
                let expected = touch::Raised { signal: libc::SIGSEGV, address: place };
                assert_eq!(touch::store(place, 1), Err(expected), "at {at:#x}, touched before: {touched}");
            }
        }
        assert_eq!((read(&file, 0), file.metadata().blocks), (7, SLOT / PAGE));
        assert!(touch::load(8).is_err_and(|raised| raised.signal == libc::SIGSEGV), "and so is a stray one");
    });
}

#[test]
fn a_mapping_that_goes_wakes_who_waits_in_it() {
    each("a_mapping_that_goes_wakes_who_waits_in_it", Some(libc::SIGSEGV), |mode| {
        let pool = Pool::new(32 << 20, Medium::Lines);
        let file = pool.sparse("f", 8 * SLOT);
        let (map, started) = (shared(&file, 8 * SLOT, mode), AtomicU64::new(0));
        let start = address(&map, 0);
        std::thread::scope(|scope| {
            for thread in 0..2 {
                let started = &started;
                scope.spawn(move || {
                    for i in 0.. {
                        started.fetch_add(1, Ordering::Relaxed);
                        let at = (i * 2 + thread) % (8 * SLOT / PAGE) * PAGE;
                        // No probe: it is to end the process.
                        std::hint::black_box(touch::bytes(start + at as usize, 1)[0]);
                        std::thread::yield_now();
                    }
                });
            }
            while started.load(Ordering::Relaxed) < 200 {
                std::thread::yield_now();
            }
            drop(map);
            std::thread::sleep(Duration::from_secs(20));
        });
    });
}

#[test]
fn addresses_used_again_are_their_new_mappings() {
    // The next mapping often gets the addresses of one that has just gone: its faults are its own.
    everywhere(64 << 20, |pool, mode| {
        let files = [pool.filled("f", SLOT, 7), pool.filled("g", SLOT, 8)];
        let failed = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for (i, file) in files.iter().enumerate() {
                let failed = &failed;
                scope.spawn(move || {
                    for _ in 0..400 {
                        let map = shared(file, 16 * PAGE, mode);
                        let word = 0x0101_0101_0101_0101 * (7 + i as u64);
                        let found = [0, 9].map(|page| touch::load(address(&map, page * PAGE)));
                        if found != [Ok(word); 2] {
                            failed.store(true, Ordering::Relaxed);
                            panic!("{found:x?} where {word:x} is");
                        }
                    }
                });
            }
        });
        assert!(!failed.load(Ordering::Relaxed));
    });
}

#[test]
fn one_touch_each_of_many_mappings_at_one_address_is_answered() {
    // In mode S a touch that nothing helps is given up after some answers: those of other mappings do not count.
    everywhere(64 << 20, |pool, mode| {
        let file = pool.filled("f", SLOT, 7);
        for round in 0..700 {
            let map = read_only(&file, SLOT, mode);
            assert_eq!(touch::load(address(&map, PAGE)), Ok(0x0707_0707_0707_0707), "round {round}");
        }
    });
}
