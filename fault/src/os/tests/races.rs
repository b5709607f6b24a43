//! Is a store lost, is a waiter forgotten, when translations change under those who touch the memory?

use super::touch::{load, pread, store};
use super::toy::{HUGE, Mapped, PAGE, mapped, pool, unregistered, wish};
use crate::os::{self};
use crate::table::Mode;
use daxstore::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use daxstore::sync::{Arc, thread};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

const PAGES: u64 = 64;

fn word(file: &File, at: u64) -> u64 {
    let mut word = [0; 8];
    file.read_exact_at(&mut word, at).unwrap();
    u64::from_ne_bytes(word)
}

/// Stores to pages of its own, and looks in the pool whether they are there; the other way round; and by the kernel.
fn check(map: &Mapped, file: &File, thread: u64, round: u64) -> u64 {
    let page = round * 2 % PAGES + thread;
    let (address, pool) = (map.page(page), page * PAGE);
    store(address, round);
    let mut lost = u64::from(word(file, pool) != round);
    file.write_all_at(&round.to_ne_bytes(), pool + 8).unwrap();
    lost += u64::from(load(address + 8) != round);
    if map.map.kernel_faults {
        assert_eq!(pread(file, address + 16, 8, pool as i64), Ok(8));
        lost += u64::from(word(file, pool + 16) != round);
    }
    lost
}

#[test]
fn no_store_is_lost_while_translations_are_taken_away() {
    for mode in [Mode::Userfault, Mode::Signal] {
        let pool = pool(1 << 20);
        let map = mapped(&pool, &wish(1 << 20, mode));
        map.toy.give(0, 0, PAGES);
        let (stop, lost, rounds) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
        let mut evictions = 0;
        thread::scope(|scope| {
            for thread in 0..2 {
                let (map, file, stop, lost, rounds) = (&map, &pool.file, &stop, &lost, &rounds);
                scope.spawn(move || {
                    for round in 1.. {
                        lost.fetch_add(check(map, file, thread, round), Ordering::Relaxed);
                        rounds.fetch_add(1, Ordering::Relaxed);
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                    }
                });
            }
            let begun = Instant::now();
            // Longer where the machine is so busy that too little happens.
            let few = |evictions| evictions <= 100 || rounds.load(Ordering::Relaxed) <= 100;
            while begun.elapsed() < Duration::from_secs(if few(evictions) { 30 } else { 2 }) {
                map.toy.evict(evictions * 7 % PAGES, PAGES - evictions * 7 % PAGES, false);
                evictions += 1;
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert_eq!(lost.load(Ordering::Relaxed), 0, "{mode:?}");
        assert!(evictions > 100 && rounds.load(Ordering::Relaxed) > 100, "{mode:?}: {evictions} {rounds:?}");
    }
}

#[test]
fn no_store_is_lost_on_its_way_from_zeros_to_a_block() {
    for mode in [Mode::Userfault, Mode::Signal] {
        for huge in [false, true] {
            let pool = pool(8 << 20);
            let map = mapped(&pool, &wish(2 * HUGE, mode));
            map.toy.huge.store(huge, Ordering::SeqCst);
            let begun = Instant::now();
            let mut round = 0;
            while begun.elapsed() < Duration::from_millis(500) && round < 1000 {
                thread::scope(|scope| {
                    for thread in 0..4 {
                        let (address, map) = (map.page(round % 1000) + thread * 8, &map);
                        scope.spawn(move || match thread {
                            0 => assert_eq!(load(address), 0),
                            _ => store(address, map.page(round) as u64),
                        });
                    }
                });
                let block = map.toy.block(round % 1000).unwrap();
                for thread in 1..4 {
                    assert_eq!(
                        word(&pool.file, block * PAGE + thread * 8),
                        map.page(round) as u64,
                        "{mode:?}"
                    );
                }
                round += 1;
            }
        }
    }
}

#[test]
fn a_touch_before_the_registration_waits_for_it() {
    for _ in 0..20 {
        let pool = pool(1 << 20);
        let (map, toy) = unregistered(&pool, &wish(1 << 20, Mode::Userfault));
        let base = map.base;
        toy.give(0, 3, 1);
        let toucher = thread::spawn(move || load(base));
        thread::sleep(Duration::from_millis(2));
        assert!(!toucher.is_finished());
        let registration = os::register(&map, toy).unwrap();
        assert_eq!(toucher.join().unwrap(), super::toy::number(3));
        drop(registration);
    }
}

#[test]
fn mappings_come_and_go_while_others_are_used() {
    for mode in [Mode::Userfault, Mode::Signal] {
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let begun = Instant::now();
                while begun.elapsed() < Duration::from_millis(700) {
                    let map = mapped(&pool(64 << 10), &wish(64 << 10, mode));
                    store(map.page(2), 8);
                    map.unregister();
                    assert_eq!(
                        Arc::strong_count(&map.toy),
                        1,
                        "the registry keeps nothing of a mapping that is gone"
                    );
                    let table = &map.toy;
                    assert!(
                        table.table.block(0, PAGE, daxstore::units::PoolOff(0)).is_err(),
                        "nothing is mapped any more"
                    );
                    table.table.missing(0, PAGE).unwrap();
                }
                stop.store(true, Ordering::Relaxed);
            });
            let map = mapped(&pool(1 << 20), &wish(1 << 20, mode));
            let mut round = 0;
            while !stop.load(Ordering::Relaxed) {
                map.toy.give(round % 256, round % 256, 1);
                map.toy.evict(round % 256, 1, false);
                store(map.page(round % 256), round);
                assert_eq!(load(map.page(round % 256)), round);
                round += 1;
            }
            assert!(round > 100, "{mode:?}");
        });
    }
}

#[test]
fn threads_that_end_leave_nothing_behind() {
    for mode in [Mode::Userfault, Mode::Signal] {
        let pool = pool(4 << 20);
        let map = mapped(&pool, &wish(4 << 20, mode));
        for round in 0..50 {
            thread::scope(|scope| {
                for thread in 0..4 {
                    let address = map.page(round * 4 + thread);
                    scope.spawn(move || store(address, round));
                }
            });
        }
        assert!((0..200).all(|page| load(map.page(page)) == page / 4), "{mode:?}");
    }
}

#[test]
fn huge_zeros_are_made_for_all_who_ask_at_once() {
    if !os::confirm::has_huge_zeros() {
        eprintln!("skipped: the kernel gives no huge zero page");
        return;
    }
    let pool = pool(1 << 20);
    for _ in 0..40 {
        let maps: Vec<_> = (0..4).map(|_| mapped(&pool, &wish(4 * HUGE, Mode::Userfault))).collect();
        thread::scope(|scope| {
            for map in &maps {
                map.toy.huge.store(true, Ordering::SeqCst);
                scope.spawn(move || (0..4).for_each(|slot| assert_eq!(load(map.page(slot * 512 + 9)), 0)));
            }
            // Somebody who answers no faults wants some too, and takes others away.
            let other = mapped(&pool, &wish(4 * HUGE, Mode::Userfault));
            for slot in 0..4 {
                assert!(other.toy.table.zero_huge(slot * HUGE).unwrap());
                other.toy.evict(slot * 512, 512, false);
            }
        });
        for map in &maps {
            let before = map.toy.faults.load(Ordering::SeqCst);
            assert!((0..4).all(|slot| load(map.page(slot * 512 + 500)) == 0));
            assert_eq!(map.toy.faults.load(Ordering::SeqCst), before, "one of them was not huge");
        }
    }
}
