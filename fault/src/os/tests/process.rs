//! What do processes see that do what they should not?

use super::child::{self, End};
use super::touch::{self, load, mremap, munmap, store};
use super::toy::{Mapped, PAGE, mapped, pool, wish};
use crate::os::{self, Protection, Wish};
use crate::table::Mode;
use daxstore::sync::atomic::Ordering;
use daxstore::sync::thread;
use daxstore::{Error, units::PoolOff};
use std::time::Duration;

fn mode(name: &str) -> Mode {
    match name {
        "U" => Mode::Userfault,
        "S" => Mode::Signal,
        _ => Mode::Eager,
    }
}

fn map_of(name: &str) -> Mapped {
    mapped(&pool(1 << 20), &wish(1 << 20, mode(name)))
}

/// Each mode's process must end by this signal.
fn dies(name: &str, modes: &[&str], signal: i32, body: impl Fn(&Mapped)) -> Vec<End> {
    let test = format!("os::tests::process::{name}");
    let run = |mode: &&str| {
        let end = child::run(&test, mode, |mode| body(&map_of(mode)));
        assert_eq!(end.signal(), Some(signal), "mode {mode}: {end:?}");
        end
    };
    modes.iter().map(run).collect()
}

#[test]
fn beyond_the_end_is_sigbus() {
    dies("beyond_the_end_is_sigbus", &["U", "S", "E"], libc::SIGBUS, |map| {
        map.toy.size.store(3, Ordering::SeqCst);
        if map.map.mode == Mode::Eager {
            map.toy.table.beyond(3 * PAGE, (1 << 20) - 3 * PAGE).unwrap();
        } else {
            store(map.page(2), 1);
        }
        store(map.page(3), 1);
    });
}

#[test]
fn what_was_cut_off_is_sigbus() {
    dies("what_was_cut_off_is_sigbus", &["U", "S"], libc::SIGBUS, |map| {
        store(map.page(8), 1);
        map.toy.table.beyond(8 * PAGE, 4 * PAGE).unwrap();
        load(map.page(8));
    });
}

#[test]
fn what_grew_is_there_again() {
    for name in ["U", "S"] {
        let map = map_of(name);
        map.toy.table.beyond(8 * PAGE, 4 * PAGE).unwrap();
        map.toy.evict(8, 4, false);
        assert_eq!((load(map.page(8)), load(map.page(11))), (0, 0));
    }
}

#[test]
fn a_stray_pointer_is_a_segmentation_fault() {
    dies("a_stray_pointer_is_a_segmentation_fault", &["U", "S"], libc::SIGSEGV, |map| {
        store(map.page(1), 1);
        load(std::hint::black_box(8));
    });
}

#[inline(never)]
fn endless(depth: u64) -> u64 {
    let frame = std::hint::black_box([depth; 64]);
    if depth == u64::MAX { 0 } else { endless(depth + 1) + frame[(depth % 64) as usize] }
}

#[test]
fn a_stack_overflow_says_so() {
    let ends = dies("a_stack_overflow_says_so", &["S"], libc::SIGABRT, |map| {
        store(map.page(1), 1);
        std::hint::black_box(endless(0));
    });
    assert!(ends.iter().all(|end| end.errors.contains("overflowed its stack")), "{ends:?}");
}

#[test]
fn a_store_to_what_can_only_be_read_is_a_segmentation_fault() {
    let test = "os::tests::process::a_store_to_what_can_only_be_read_is_a_segmentation_fault";
    for name in ["U", "S", "E"] {
        let end = child::run(test, name, |name| {
            let wish = Wish { protection: Protection::ReadOnly, ..wish(1 << 20, mode(name)) };
            let map = mapped(&pool(1 << 20), &wish);
            map.toy.table.block(0, PAGE, PoolOff(0)).unwrap();
            store(map.page(0), 1);
        });
        assert_eq!(end.signal(), Some(libc::SIGSEGV), "mode {name}: {end:?}");
    }
}

#[test]
fn an_answer_that_changes_nothing_is_not_given_for_ever() {
    dies("an_answer_that_changes_nothing_is_not_given_for_ever", &["S"], libc::SIGSEGV, |map| {
        map.toy.lazy.store(true, Ordering::SeqCst);
        load(map.page(1));
    });
}

#[test]
fn unmapping_wakes_who_waits() {
    dies("unmapping_wakes_who_waits", &["U"], libc::SIGSEGV, |map| {
        map.toy.deaf.store(true, Ordering::SeqCst);
        let address = map.page(1);
        let toucher = thread::spawn(move || load(address));
        while map.toy.faults.load(Ordering::SeqCst) == 0 {
            thread::yield_now();
        }
        let pool = pool(1 << 20);
        let (other, table) = os::map(&pool, &wish(1 << 20, Mode::Userfault)).unwrap();
        drop((other, table));
        assert!(!toucher.is_finished());
        drop(
            os::register(&os::map(&pool, &wish(1 << 20, Mode::Userfault)).unwrap().0, map.toy.clone())
                .unwrap(),
        );
        thread::sleep(Duration::from_millis(10));
        assert!(!toucher.is_finished());
        map.unregister();
        let _ = toucher.join();
    });
}

#[test]
fn what_the_user_unmapped_is_a_segmentation_fault() {
    dies("what_the_user_unmapped_is_a_segmentation_fault", &["U", "S"], libc::SIGSEGV, |map| {
        store(map.page(1), 1);
        munmap(map.page(1), PAGE as usize);
        if map.map.mode == Mode::Signal {
            // The handler takes the address for missing and maps the block once more; the unmapped one is another's.
            map.toy.lazy.store(true, Ordering::SeqCst);
        }
        load(map.page(1));
    });
}

#[test]
fn moving_a_mapping_ends_the_process_before_a_store_is_lost() {
    let name = "moving_a_mapping_ends_the_process_before_a_store_is_lost";
    let ends = dies(name, &["U"], libc::SIGABRT, |map| {
        assert_eq!(load(map.page(1)), 0);
        mremap(map.page(1), PAGE as usize);
        thread::sleep(Duration::from_secs(5));
    });
    assert!(ends.iter().all(|end| end.errors.contains("mremap")), "{ends:?}");
}

#[test]
fn a_forked_child_has_no_part_of_it() {
    for name in ["U", "S", "E"] {
        let map = map_of(name);
        let table = &map.toy.table;
        table.block(0, 4 * PAGE, PoolOff(0)).unwrap();
        table.zero(4 * PAGE, 4 * PAGE).unwrap();
        table.beyond(8 * PAGE, 4 * PAGE).unwrap();
        if map.map.mode != Mode::Eager {
            map.toy.evict(0, 2, false);
        }
        let inherited = || (0..256).any(|page| touch::is_mapped(map.page(page), PAGE as usize));
        assert!(inherited());
        assert!(touch::forked(|| !inherited()), "mode {name}");
        let refused = || {
            table.block(0, PAGE, PoolOff(0)).is_err()
                && table.zero(0, PAGE).is_err()
                && matches!(os::sys::settle(), Err(Error::Unsupported { .. }))
        };
        assert!(!refused());
        assert!(touch::forked(refused), "mode {name}: the child changes nothing");
    }
}

#[test]
fn a_process_that_was_started_by_one_with_mappings_is_like_any_other() {
    let map = map_of("U");
    store(map.page(0), 1);
    assert!(std::process::Command::new("true").status().unwrap().success());
    assert_eq!(load(map.page(0)), 1);
}

#[test]
fn signals_in_the_middle_of_faults_do_no_harm() {
    for name in ["U", "S"] {
        let end =
            child::run("os::tests::process::signals_in_the_middle_of_faults_do_no_harm", name, |name| {
                let map = mapped(&pool(16 << 20), &wish(1 << 20, mode(name)));
                touch::storm_of_signals();
                for round in 0..4000 {
                    let (page, punch) = (round % 256, round % 3 == 0);
                    store(map.page(page), round);
                    assert_eq!(load(map.page(page)), round);
                    map.toy.evict(page, 1, punch);
                    assert_eq!(load(map.page(page)), if punch { 0 } else { round });
                }
            });
        assert!(end.status.success(), "mode {name}: {end:?}");
    }
}

#[test]
fn without_privileges_the_kernels_own_faults_do_not_come() {
    let test = "os::tests::process::without_privileges_the_kernels_own_faults_do_not_come";
    let end = child::run(test, "U", |_| {
        let memory = pool(1 << 20);
        if !touch::lose_privileges() {
            eprintln!("skipped: this process has no privileges to lose");
            return;
        }
        let map = mapped(&memory, &Wish { mode: None, ..wish(1 << 20, Mode::Eager) });
        assert_eq!((map.map.mode, map.map.kernel_faults), (Mode::Userfault, false));
        assert_eq!(touch::pread(&memory.file, map.page(1), 8, 0), Err(libc::EFAULT));
        store(map.page(1), 1);
        assert_eq!((load(map.page(1)), load(map.page(2))), (1, 0));
        map.toy.evict(0, 256, false);
        assert_eq!(load(map.page(1)), 1);
    });
    assert!(end.status.success(), "{end:?}");
}

#[test]
fn without_userfaultfd_faults_come_by_signal() {
    let end = child::run("os::tests::process::without_userfaultfd_faults_come_by_signal", "S", |_| {
        let memory = pool(1 << 20);
        drop(mapped(&memory, &wish(1 << 20, Mode::Eager)));
        touch::limit(libc::RLIMIT_NOFILE, 0);
        assert_eq!(os::map(&memory, &wish(1 << 20, Mode::Userfault)).unwrap_err().errno(), libc::EMFILE);
        let map = mapped(&memory, &Wish { mode: None, ..wish(1 << 20, Mode::Eager) });
        assert_eq!(map.map.mode, Mode::Signal);
        store(map.page(1), 1);
        assert_eq!((load(map.page(1)), load(map.page(2))), (1, 0));
    });
    assert!(end.status.success(), "{end:?}");
}

#[test]
fn where_memory_is_promised_sparingly_faults_come_by_signal() {
    let test = "os::tests::process::where_memory_is_promised_sparingly_faults_come_by_signal";
    let end = child::run(test, "S", |_| {
        let memory = pool(1 << 20);
        drop(mapped(&memory, &wish(1 << 40, Mode::Userfault)));
        // As `vm.overcommit_memory` 2 does: what can be stored to counts, what has no rights does not.
        touch::limit(libc::RLIMIT_DATA, 1 << 30);
        assert_eq!(os::map(&memory, &wish(1 << 40, Mode::Userfault)).unwrap_err().errno(), libc::ENOMEM);
        let map = mapped(&memory, &Wish { mode: None, ..wish(1 << 40, Mode::Eager) });
        assert_eq!(map.map.mode, Mode::Signal);
        store(map.page(1), 1);
        assert_eq!((load(map.page(1)), load(map.page(2))), (1, 0));
        let small = mapped(&memory, &Wish { mode: None, ..wish(1 << 20, Mode::Eager) });
        assert_eq!(small.map.mode, Mode::Userfault);
        small.toy.evict(0, 256, false);
    });
    assert!(end.status.success(), "{end:?}");
}

#[test]
fn a_mode_that_is_forced_and_fails_says_why() {
    let test = "os::tests::process::a_mode_that_is_forced_and_fails_says_why";
    let end = child::run(test, "S", |_| {
        let (memory, wanted) = (pool(1 << 20), wish(1 << 20, Mode::Signal));
        drop(mapped(&memory, &wanted));
        touch::take_over_sigsegv();
        let refused = os::map(&memory, &wanted).unwrap_err();
        assert!(refused.to_string().contains("SIGSEGV"), "{refused}");
        let found = os::map(&memory, &Wish { mode: None, ..wanted }).unwrap().0;
        assert_eq!(found.mode, Mode::Userfault);
    });
    assert!(end.status.success(), "{end:?}");
}
