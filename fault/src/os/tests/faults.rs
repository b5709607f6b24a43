//! Does each touch find what it should?

use super::touch::{load, madvise, munmap, pread, pwrite, store};
use super::toy::{HUGE, Mapped, PAGE, mapped, memory, number, pool, wish};
use crate::os::{self, Protection, Wish, confirm, service};
use crate::table::{Installed, Mode};
use daxstore::Error;
use daxstore::sync::atomic::Ordering;
use daxstore::units::PoolOff;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::time::{Duration, Instant};

const BOTH: [Mode; 2] = [Mode::Userfault, Mode::Signal];

fn faults(mapped: &Mapped) -> u64 {
    mapped.toy.faults.load(Ordering::SeqCst)
}

#[test]
fn blocks_are_the_pool_itself_and_an_extent_takes_one_fault() {
    for mode in BOTH {
        let pool = pool(1 << 20);
        let map = mapped(&pool, &wish(1 << 20, mode));
        map.toy.give(8, 100, 50);
        for i in 0..50 {
            assert_eq!(load(map.page(8 + i)), number(100 + i), "{mode:?}");
            store(map.page(8 + i) + 8, i);
        }
        assert_eq!(faults(&map), 1, "{mode:?}");
        let mut word = [0; 8];
        pool.file.read_exact_at(&mut word, 149 * PAGE + 8).unwrap();
        assert_eq!(u64::from_ne_bytes(word), 49);
        pool.file.write_all_at(&77u64.to_ne_bytes(), 149 * PAGE + 16).unwrap();
        assert_eq!(load(map.page(57) + 16), 77);
    }
}

#[test]
fn a_hole_reads_as_zeros_without_a_block_and_is_given_one_by_a_store() {
    for mode in BOTH {
        let pool = pool(1 << 20);
        let map = mapped(&pool, &wish(1 << 20, mode));
        assert_eq!((load(map.page(3)), load(map.page(4))), (0, 0));
        assert_eq!((map.toy.block(3), faults(&map), map.toy.stores.load(Ordering::SeqCst)), (None, 2, 0));
        assert_eq!(load(map.page(3)), 0);
        assert_eq!(faults(&map), 2, "zeros that are there are read without a fault");
        store(map.page(3) + 8, 5);
        assert_eq!((map.toy.block(3), map.toy.stores.load(Ordering::SeqCst)), (Some(0), 1), "{mode:?}");
        store(map.page(200), 6);
        assert_eq!((map.toy.block(200), load(map.page(200)), load(map.page(3) + 8)), (Some(1), 6, 5));
        let mut word = [0; 8];
        pool.file.read_exact_at(&mut word, 8).unwrap();
        assert_eq!(u64::from_ne_bytes(word), 5, "{mode:?}: the store is in the pool");
    }
}

/// The faults and the block that a load of a hole and then a store lead to.
fn told_of() -> (u64, Option<u64>) {
    let pool = pool(1 << 20);
    let map = mapped(&pool, &wish(1 << 20, Mode::Userfault));
    assert_eq!(load(map.page(3)), 0);
    store(map.page(3) + 8, 5);
    (faults(&map), map.toy.block(3))
}

#[test]
fn a_load_and_a_store_of_a_hole_are_told_of() {
    assert_eq!(told_of(), (2, Some(0)));
}

#[cfg(feature = "mutations")]
#[test]
fn what_is_not_congruent_or_not_registered_is_noticed() {
    use crate::mutation::{self, Mutation};
    mutation::set(Some(Mutation::Askew));
    let offsets = askew();
    mutation::set(Some(Mutation::Unregistered));
    let told = told_of();
    mutation::set(None);
    assert_eq!(offsets.len(), 4, "Askew goes unnoticed");
    assert_eq!(told, (0, None), "Unregistered goes unnoticed");
}

#[test]
fn the_huge_zero_page_is_one_fault_and_each_page_of_it_can_be_stored_to() {
    for mode in BOTH {
        let pool = pool(4 << 20);
        let map = mapped(&pool, &wish(3 * HUGE, mode));
        map.toy.huge.store(true, Ordering::SeqCst);
        assert_eq!(load(map.page(512 + 7)), 0);
        if !confirm::has_huge_zeros() {
            eprintln!("skipped: the kernel gives no huge zero page");
            return;
        }
        let before = faults(&map);
        let minor = confirm::minor_faults().unwrap();
        assert!((512..1024).all(|page| load(map.page(page)) == 0));
        assert_eq!(faults(&map), before, "{mode:?}");
        assert!(confirm::minor_faults().unwrap() - minor < 8, "{mode:?}: not one translation");
        for page in [600, 601, 1023, 512] {
            store(map.page(page), page);
        }
        assert_eq!(map.toy.stores.load(Ordering::SeqCst), 4, "{mode:?}");
        for page in 512..1024 {
            let stored = if [600, 601, 1023, 512].contains(&page) { page } else { 0 };
            assert_eq!(load(map.page(page)), stored, "{mode:?}");
        }
    }
}

/// Asks again where the addresses are changing just now, as who faults does: other tests of this process map and fork meanwhile.
fn install(mut install: impl FnMut() -> daxstore::Result<Installed>) {
    let is_done = (0..1000).any(|_| {
        let installed = install().unwrap();
        std::thread::yield_now();
        installed == Installed::Done
    });
    assert!(is_done);
}

#[test]
fn zeros_go_to_what_is_missing_and_leave_the_rest() {
    let pool = pool(1 << 20);
    let map = mapped(&pool, &wish(1 << 20, Mode::Userfault));
    map.toy.table.block(3 * PAGE, PAGE, PoolOff(9 * PAGE)).unwrap();
    store(map.page(20), 1);
    assert_eq!(load(map.page(5)), 0);
    let before = faults(&map);
    install(|| map.toy.table.zero(0, 40 * PAGE));
    for page in 0..40 {
        let there = match page {
            3 => number(9),
            20 => 1,
            _ => 0,
        };
        assert_eq!(load(map.page(page)), there);
    }
    assert_eq!(faults(&map), before);
    store(map.page(39), 2);
    assert_eq!(faults(&map), before + 1, "a store to zeros is told");
}

#[test]
fn the_kernel_faults_too_in_mode_u_and_is_refused_in_mode_s() {
    let other = tempfile::tempfile().unwrap();
    other.write_all_at(&[7; 3 * PAGE as usize], 0).unwrap();
    let pool = pool(1 << 20);
    let map = mapped(&pool, &wish(1 << 20, Mode::Userfault));
    if !map.map.kernel_faults {
        eprintln!("skipped: this process may not have the kernel's own faults");
        return;
    }
    map.toy.give(9, 40, 1);
    assert_eq!(pread(&other, map.page(1), 3 * PAGE as usize, 0), Ok(3 * PAGE as i64));
    assert_eq!(load(map.page(3) + 4088), u64::from_ne_bytes([7; 8]));
    assert_eq!(pwrite(&other, map.page(9), 8, 0), Ok(8));
    assert_eq!(pwrite(&other, map.page(60), 8, 8), Ok(8), "a hole");
    let mut words = [0; 16];
    other.read_exact_at(&mut words, 0).unwrap();
    assert_eq!(words[..8], number(40).to_ne_bytes());
    assert_eq!(words[8..], [0; 8]);
    map.toy.size.store(100, Ordering::SeqCst);
    assert_eq!(pread(&other, map.page(100), 8, 0), Err(libc::EFAULT), "beyond the end");

    let by_signal = mapped(&pool, &wish(1 << 20, Mode::Signal));
    assert!(!by_signal.map.kernel_faults);
    assert_eq!(pread(&other, by_signal.page(1), 8, 0), Err(libc::EFAULT));
    store(by_signal.page(1), 1);
    assert_eq!(pread(&other, by_signal.page(1), 8, 0), Ok(8));
}

#[test]
fn what_was_made_missing_faults_again_and_finds_the_file_as_it_is() {
    for mode in BOTH {
        let pool = pool(1 << 20);
        let map = mapped(&pool, &wish(1 << 20, mode));
        map.toy.give(0, 10, 20);
        assert_eq!(load(map.page(5)), number(15));
        map.toy.evict(5, 2, true);
        assert_eq!((load(map.page(4)), load(map.page(5)), load(map.page(6))), (number(14), 0, 0), "{mode:?}");
        map.toy.give(5, 50, 2);
        assert_eq!(load(map.page(6)), 0, "zeros stay until they are taken away");
        map.toy.evict(0, 256, false);
        assert_eq!((load(map.page(6)), load(map.page(19))), (number(51), number(29)), "{mode:?}");
    }
}

#[test]
fn staging_memory_that_somebody_filled_is_emptied() {
    let pool = pool(1 << 20);
    let map = mapped(&pool, &wish(1 << 20, Mode::Userfault));
    let staging = &service::userfault().unwrap().writable;
    map.toy.give(0, 10, 1);
    for _ in 0..10 {
        assert_eq!(load(map.page(0)), number(10));
        assert_eq!(load(staging.area_for_test().base()), 0, "whoever touches it goes on");
        let before = faults(&map);
        map.toy.evict(0, 256, false);
        assert_eq!(load(map.page(0)), number(10), "not zeros of the staging memory");
        assert_eq!(faults(&map), before + 1);
    }
}

#[test]
fn private_pages_have_what_they_were_given() {
    for mode in BOTH {
        let pool = pool(1 << 20);
        let map = mapped(&pool, &Wish { private: true, ..wish(1 << 20, mode) });
        install(|| map.toy.table.copy(2 * PAGE, &[9; 4096], false));
        assert_eq!(load(map.page(2)), u64::from_ne_bytes([9; 8]));
        store(map.page(2) + 8, 1);
        assert_eq!((load(map.page(2) + 8), faults(&map)), (1, 0), "{mode:?}: stored without a fault");
        map.toy.table.block(5 * PAGE, PAGE, PoolOff(30 * PAGE)).unwrap();
        store(map.page(5) + 8, 1);
        assert_eq!(load(map.page(5)), number(30));
        let mut word = [0; 8];
        pool.file.read_exact_at(&mut word, 30 * PAGE + 8).unwrap();
        assert_eq!(word, [0; 8], "{mode:?}: not stored to the pool");
    }
}

#[test]
fn what_can_only_be_read_is_read() {
    for mode in [Mode::Userfault, Mode::Signal, Mode::Eager] {
        let pool = pool(1 << 20);
        let map = mapped(&pool, &Wish { protection: Protection::ReadOnly, ..wish(1 << 20, mode) });
        map.toy.table.block(0, 4 * PAGE, PoolOff(0)).unwrap();
        map.toy.table.zero(4 * PAGE, 4 * PAGE).unwrap();
        assert_eq!((load(map.page(3)), load(map.page(7))), (number(3), 0));
        assert_eq!(faults(&map), 0);
        if mode == Mode::Eager {
            assert!(matches!(map.toy.table.missing(0, PAGE), Err(Error::Unsupported { .. })));
        } else {
            map.toy.evict(0, 8, false);
            assert_eq!((load(map.page(3)), faults(&map)), (0, 1));
        }
    }
}

#[test]
fn a_tebibyte_is_reserved_at_once() {
    for mode in [Mode::Userfault, Mode::Signal, Mode::Eager] {
        let pool = pool(1 << 20);
        let begun = Instant::now();
        let map = mapped(&pool, &wish(1 << 40, mode));
        map.toy.table.block((1 << 40) - PAGE, PAGE, PoolOff(PAGE)).unwrap();
        assert_eq!(load(map.map.base + (1 << 40) - PAGE as usize), number(1));
        map.toy.table.beyond(0, 1 << 39).unwrap();
        drop(map);
        assert!(begun.elapsed() < Duration::from_secs(5), "{mode:?}: {:?}", begun.elapsed());
    }
}

/// The file offsets of which a mapping does not lie at the same place of 2 MiB.
fn askew() -> Vec<u64> {
    let pool = pool(1 << 20);
    let offsets = [0, PAGE, HUGE - PAGE, 5 * HUGE + 17 * PAGE].into_iter();
    let is_askew = |offset: &u64| {
        let map = os::map(&pool, &Wish { congruent_to: *offset, ..wish(PAGE, Mode::Userfault) }).unwrap().0;
        assert_eq!(map.len, PAGE);
        map.base as u64 % HUGE != offset % HUGE
    };
    offsets.filter(is_askew).collect()
}

#[test]
fn addresses_are_congruent_to_the_file() {
    assert_eq!(askew(), []);
    let pool = pool(1 << 20);
    let refused = |wish| matches!(os::map(&pool, &wish), Err(Error::InvalidArgument(_)));
    assert!(refused(Wish { len: 0, ..wish(PAGE, Mode::Eager) }));
    assert!(refused(Wish { congruent_to: 8, ..wish(PAGE, Mode::Eager) }));
    assert!(refused(wish(u64::MAX - 8, Mode::Eager)));
}

#[test]
fn what_the_medium_can_not_map_is_refused_before_the_system_sees_it() {
    let mut pool = pool(8 << 20);
    pool.unit = HUGE;
    let map = mapped(&pool, &wish(PAGE, Mode::Userfault));
    assert_eq!(map.map.len, HUGE);
    let table = &map.toy.table;
    table.block(0, HUGE, PoolOff(HUGE)).unwrap();
    for (at, len, from) in [(0, HUGE, PAGE), (PAGE, HUGE, 0), (0, PAGE, 0), (0, 2 * HUGE, 0), (0, 0, 0)] {
        assert!(matches!(table.block(at, len, PoolOff(from)), Err(Error::InvalidArgument(_))));
    }
    assert_eq!(load(map.page(3)), number(515), "what was there before is there still");
}

#[test]
fn a_translation_that_fails_leaves_no_hole() {
    for mode in BOTH {
        let mut pool = pool(1 << 20);
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&*pool.file));
        pool.file = std::fs::File::open(path).unwrap().into();
        let map = mapped(&pool, &wish(1 << 20, mode));
        let block = || map.toy.table.block(4 * PAGE, 2 * PAGE, PoolOff(0)).unwrap_err().errno();
        assert_eq!((load(map.page(5)), block()), (0, libc::EACCES));
        assert_eq!((load(map.page(5)), faults(&map)), (0, 1), "{mode:?}: nothing was lost");
        // What a `mmap` that fails late leaves behind.
        munmap(map.page(4), 2 * PAGE as usize);
        assert_eq!(block(), libc::EACCES);
        assert_eq!(
            (load(map.page(4)), load(map.page(5)), faults(&map)),
            (0, 0, 3),
            "{mode:?}: faults come again"
        );
    }
}

#[test]
fn what_the_user_throws_away_comes_back() {
    for mode in BOTH {
        let pool = pool(1 << 20);
        let map = mapped(&pool, &wish(1 << 20, mode));
        map.toy.give(0, 10, 4);
        store(map.page(3) + 8, 3);
        assert_eq!(load(map.page(9)), 0);
        madvise(map.map.base, 1 << 20, libc::MADV_DONTNEED);
        assert_eq!((load(map.page(3) + 8), load(map.page(9))), (3, 0), "{mode:?}");
        madvise(map.map.base, 1 << 20, libc::MADV_DONTNEED);
        store(map.page(9), 4);
        assert!(map.toy.block(9).is_some(), "{mode:?}: the store was told of");
        madvise(map.map.base, 1 << 20, libc::MADV_DONTNEED);
        assert_eq!(load(map.page(9)), 4);
    }
}

#[test]
fn huge_translations_are_confirmed() {
    let dir = tempfile::tempdir().unwrap();
    let mount =
        |args: &[&str]| Command::new("mount").args(args).arg(dir.path()).status().is_ok_and(|s| s.success());
    if !mount(&["-t", "tmpfs", "-o", "huge=always,size=16m", "tmpfs"]) {
        eprintln!("skipped: can not mount a tmpfs with huge pages");
        return;
    }
    let pool = memory(tempfile::tempfile_in(dir.path()).unwrap(), 8 << 20);
    let map = mapped(&pool, &wish(4 * HUGE, Mode::Userfault));
    map.toy.give(512, 512, 1024);
    let base = map.map.base + HUGE as usize;
    assert_eq!(confirm::huge_bytes(base, 2 * HUGE).unwrap(), Some(0));
    store(base + 8, 1);
    store(base + HUGE as usize + 8, 1);
    assert_eq!(confirm::huge_bytes(base, 2 * HUGE).unwrap(), Some(2 * HUGE));
    assert_eq!(faults(&map), 1);
    drop(map);
    drop(pool);
    assert!(Command::new("umount").arg(dir.path()).status().unwrap().success());
}

#[test]
fn what_wants_tending_is_tended() {
    for mode in BOTH {
        let map = mapped(&pool(1 << 20), &wish(1 << 20, mode));
        assert_eq!(load(map.page(0)), 0);
        map.toy.wants.store(true, Ordering::SeqCst);
        assert_eq!(load(map.page(1)), 0);
        let begun = Instant::now();
        while map.toy.tended.load(Ordering::SeqCst) == 0 {
            assert!(begun.elapsed() < Duration::from_secs(10), "{mode:?}");
            std::thread::yield_now();
        }
        let before = faults(&map);
        assert_eq!((load(map.page(1)), faults(&map)), (0, before));
        assert_eq!((load(map.page(0)), faults(&map)), (0, before + 1), "{mode:?}: it took the page away");
    }
}
