//! What do calls of the kernel get that are given mapped memory?
//!
//! In mode U what any memory would give; in mode S they fail with `EFAULT` where there is no translation yet, and never wait.

use crate::common::{PAGE, Pool, SLOT, address, byte, everywhere, read, shared, touch};
use daxstore::AllocateMode;
use daxstore_fault::{Advice, Mapping, Mode};
use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

/// A file of the store of which each slot is in another state (data, hole, space given ahead, data again), and its mapping.
fn mapped(pool: &Pool, mode: Mode) -> (daxstore::File, Mapping) {
    let file = pool.filled("f", SLOT, 7);
    file.allocate(2 * SLOT, SLOT, AllocateMode::Allocate).unwrap();
    file.write_all_at(&vec![7; SLOT as usize], 3 * SLOT).unwrap();
    let map = shared(&file, 5 * SLOT, mode);
    assert_eq!(map.serves_system_calls(), mode == Mode::Userfault, "these tests run as root");
    (file, map)
}

fn foreign() -> File {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(&[5; 16 * PAGE as usize], 0).unwrap();
    file
}

/// What a call says that meets memory without a translation.
fn unless_missing(mode: Mode, value: i64) -> Result<i64, i32> {
    if mode == Mode::Userfault { Ok(value) } else { Err(libc::EFAULT) }
}

#[test]
fn read_stores_into_every_state() {
    everywhere(64 << 20, |pool, mode| {
        let (file, map) = mapped(pool, mode);
        let other = foreign();
        for slot in 0..4 {
            let at = slot * SLOT + 9 * PAGE + 100;
            let got = touch::pread(&other, address(&map, at), 3 * PAGE as usize, 0);
            assert_eq!(got, unless_missing(mode, 3 * PAGE as i64), "slot {slot}");
            if mode == Mode::Userfault {
                assert_eq!((read(&file, at), read(&file, at + 3 * PAGE - 1), byte(&map, at)), (5, 5, 5));
            }
        }
    });
}

#[test]
fn write_loads_from_every_state() {
    everywhere(64 << 20, |pool, mode| {
        let (_file, map) = mapped(pool, mode);
        let other = foreign();
        for slot in 0..4 {
            let at = slot * SLOT + 9 * PAGE + 100;
            let got = touch::pwrite(&other, address(&map, at), 3 * PAGE as usize, 0);
            assert_eq!(got, unless_missing(mode, 3 * PAGE as i64), "slot {slot}");
            if mode == Mode::Userfault {
                let mut found = [9];
                other.read_exact_at(&mut found, 3 * PAGE - 1).unwrap();
                assert_eq!(found, [if slot % 3 == 0 { 7 } else { 0 }], "slot {slot}");
            }
        }
    });
}

#[test]
fn prefaulted_memory_is_good_for_every_call() {
    everywhere(64 << 20, |pool, mode| {
        let (file, map) = mapped(pool, mode);
        let other = foreign();
        map.prefault(0, 4 * SLOT, true).unwrap();
        for slot in 0..4 {
            let at = slot * SLOT + 9 * PAGE;
            assert_eq!(touch::pread(&other, address(&map, at), PAGE as usize, 0), Ok(PAGE as i64));
            assert_eq!(touch::pwrite(&other, address(&map, at), PAGE as usize, 0), Ok(PAGE as i64));
            assert_eq!(touch::remote_load(address(&map, at)), Ok(0x0505_0505_0505_0505));
            assert_eq!(touch::futex_wake(address(&map, at)), Ok(0));
            assert_eq!(touch::mlock(address(&map, at), PAGE as usize), Ok(0));
            assert_eq!(read(&file, at + 1), 5);
        }
    });
}

#[test]
fn behind_the_end_calls_get_efault() {
    everywhere(64 << 20, |pool, mode| {
        let (_file, map) = mapped(pool, mode);
        let other = foreign();
        for at in [4 * SLOT, 4 * SLOT + 100 * PAGE, 5 * SLOT - PAGE] {
            let place = address(&map, at);
            assert_eq!(touch::pread(&other, place, PAGE as usize, 0), Err(libc::EFAULT));
            assert_eq!(touch::pwrite(&other, place, PAGE as usize, 0), Err(libc::EFAULT));
            assert_eq!(touch::remote_load(place), Err(libc::EFAULT));
        }
        // A transfer that reaches the end stops there.
        map.prefault(4 * SLOT - PAGE, PAGE, true).unwrap();
        let got = touch::pread(&other, address(&map, 4 * SLOT - PAGE), 2 * PAGE as usize, 0);
        assert!(matches!(got, Ok(n) if n <= PAGE as i64) || got == Err(libc::EFAULT), "{got:?}");
    });
}

#[test]
fn direct_transfers_reach_the_pool() {
    everywhere(64 << 20, |pool, mode| {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let mut options = std::fs::OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false);
        let path = dir.path().join("direct");
        let Ok(other) = options.custom_flags(libc::O_DIRECT).open(&path) else { return };
        std::fs::write(&path, [5; 4 * PAGE as usize]).unwrap();
        let (file, map) = mapped(pool, mode);
        for slot in 0..4 {
            let at = slot * SLOT + 9 * PAGE;
            let got = touch::pread(&other, address(&map, at), 2 * PAGE as usize, 0);
            assert_eq!(got, unless_missing(mode, 2 * PAGE as i64), "slot {slot}");
            if mode == Mode::Userfault {
                assert_eq!(read(&file, at + 2 * PAGE - 1), 5);
                map.advise(0, map.len(), Advice::DontNeed).unwrap();
                assert_eq!(touch::pwrite(&other, address(&map, at), PAGE as usize, 0), Ok(PAGE as i64));
            }
        }
    });
}

#[test]
fn other_calls_that_touch_memory() {
    everywhere(64 << 20, |pool, mode| {
        let (file, map) = mapped(pool, mode);
        for slot in 0..4 {
            map.advise(0, map.len(), Advice::DontNeed).unwrap();
            let at = |page: u64| address(&map, slot * SLOT + page * PAGE);
            let word = if slot % 3 == 0 { 0x0707_0707_0707_0707 } else { 0 };
            let is_u = mode == Mode::Userfault;
            assert_eq!(touch::remote_load(at(1)), if is_u { Ok(word) } else { Err(libc::EFAULT) });
            let other_value = if slot % 3 == 0 { 1 } else { 7 };
            let waits = touch::futex_wait(at(40), other_value);
            assert_eq!(waits, Err(if is_u { libc::EAGAIN } else { libc::EFAULT }), "slot {slot}");
            let populated = touch::madvise(at(80), 2 * PAGE as usize, libc::MADV_POPULATE_WRITE);
            match populated {
                Err(libc::EINVAL) => {} // Before Linux 5.14.
                Ok(_) => assert!(is_u),
                Err(errno) => assert!(!is_u && matches!(errno, libc::EFAULT | libc::ENOMEM), "{errno}"),
            }
            let locked = touch::mlock(at(120), 2 * PAGE as usize);
            assert_eq!(locked.is_ok(), is_u, "slot {slot}: {locked:?}");
            map.write(slot * SLOT + 120 * PAGE, &[3]).unwrap();
            assert_eq!(read(&file, slot * SLOT + 120 * PAGE), 3);
        }
    });
}

#[test]
fn locked_memory_can_be_punched() {
    everywhere(64 << 20, |pool, mode| {
        let (file, map) = mapped(pool, mode);
        map.prefault(0, SLOT, true).unwrap();
        touch::mlock(address(&map, 0), SLOT as usize).unwrap();
        file.allocate(0, SLOT, AllocateMode::Punch).unwrap();
        let reuse = pool.reuse(0xee);
        assert!((0..SLOT).step_by(PAGE as usize).all(|at| byte(&map, at) == 0));
        drop(reuse);
        pool.store.remove_file("reuse").unwrap();
        map.write(0, &[1]).unwrap();
        assert_eq!(read(&file, 0), 1);
    });
}
