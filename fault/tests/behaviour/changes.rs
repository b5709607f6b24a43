//! Is a block ever reachable that is not the file's any more?
//!
//! After each change freed blocks are filled by another file, whose bytes must not be seen, nor stored to.

use crate::common::{PAGE, Pool, SLOT, address, byte, everywhere, raised, read, shared, touch};
use daxstore::{AllocateMode, File};
use daxstore_fault::{Advice, Mapping, Mode};

const FOREIGN: u8 = 0xee;

/// A file of two slots of sevens, mapped twice with everything installed, once by 2 MiB and once by 4 KiB.
fn installed(pool: &Pool, mode: Mode) -> (File, [Mapping; 2]) {
    let file = pool.filled("f", 2 * SLOT, 7);
    let maps = [shared(&file, 2 * SLOT, mode), shared(&file, 2 * SLOT, mode)];
    maps[1].advise(0, 2 * SLOT, Advice::NoHuge).unwrap();
    for map in &maps {
        map.prefault(0, 2 * SLOT, true).unwrap();
    }
    (file, maps)
}

fn all(file: &File, value: u8) -> bool {
    let mut bytes = vec![0; file.len() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes.iter().all(|byte| *byte == value)
}

/// Where blocks were taken away: zeros, and stores that are the file's own.
fn gone(pool: &Pool, file: &File, maps: &[Mapping], range: std::ops::Range<u64>) {
    let reuse = pool.reuse(FOREIGN);
    for map in maps {
        for at in range.clone().step_by(PAGE as usize) {
            assert_eq!((byte(map, at), byte(map, at + PAGE - 1)), (0, 0), "at {at:#x}");
        }
    }
    // Some space for stores; the other file keeps the rest.
    reuse.set_len(reuse.len() - 2 * SLOT).unwrap();
    for (i, at) in range.step_by(64 * PAGE as usize).enumerate() {
        maps[i % maps.len()].write(at, &[i as u8 + 1]).unwrap();
        assert_eq!(read(file, at), i as u8 + 1);
    }
    assert!(all(&reuse, FOREIGN), "nobody stores to another file's blocks");
}

#[test]
fn punched_blocks_are_out_of_reach() {
    everywhere(32 << 20, |pool, mode| {
        let (file, maps) = installed(pool, mode);
        file.allocate(PAGE, SLOT, AllocateMode::Punch).unwrap();
        gone(pool, &file, &maps, PAGE..SLOT + PAGE);
        assert!(maps.iter().all(|map| byte(map, PAGE - 1) == 7 && byte(map, SLOT + PAGE) == 7));
    });
}

#[test]
fn a_page_punched_out_of_2_mib_leaves_the_others() {
    everywhere(32 << 20, |pool, mode| {
        let (file, maps) = installed(pool, mode);
        let blocks = file.metadata().blocks;
        file.allocate(100 * PAGE, PAGE, AllocateMode::Punch).unwrap();
        assert_eq!(file.metadata().blocks, blocks - 1);
        gone(pool, &file, &maps, 100 * PAGE..101 * PAGE);
        for at in (0..2 * SLOT).step_by(PAGE as usize).filter(|at| *at != 100 * PAGE) {
            assert!(maps.iter().all(|map| byte(map, at) == 7), "at {at:#x}");
        }
    });
}

#[test]
fn zeroed_ranges_read_as_zeros() {
    everywhere(32 << 20, |pool, mode| {
        let (file, maps) = installed(pool, mode);
        file.allocate(PAGE, SLOT, AllocateMode::Zero).unwrap();
        gone(pool, &file, &maps, PAGE..SLOT + PAGE);
    });
}

#[test]
fn parts_of_pages_are_zeroed_too() {
    everywhere(32 << 20, |pool, mode| {
        let (file, maps) = installed(pool, mode);
        for (at, zero) in [(100, AllocateMode::Zero), (3 * PAGE + 100, AllocateMode::Punch)] {
            file.allocate(at, 2 * PAGE, zero).unwrap();
            for map in &maps {
                assert_eq!((byte(map, at - 1), byte(map, at)), (7, 0));
                assert_eq!((byte(map, at + 2 * PAGE - 1), byte(map, at + 2 * PAGE)), (0, 7));
            }
        }
    });
}

#[test]
fn blocks_that_were_cut_off_are_out_of_reach_when_the_file_grows_again() {
    everywhere(32 << 20, |pool, mode| {
        let (file, maps) = installed(pool, mode);
        file.set_len(SLOT).unwrap();
        let reuse = pool.reuse(FOREIGN);
        assert!(maps.iter().all(|map| raised(map, SLOT) == Some(libc::SIGBUS)));
        assert!(all(&reuse, FOREIGN));
        reuse.set_len(0).unwrap();
        file.set_len(2 * SLOT).unwrap();
        gone(pool, &file, &maps, SLOT..2 * SLOT);
    });
}

/// What is stored before and after blocks move, and what is loaded then, is that of the blocks, wherever they are.
#[test]
fn blocks_that_moved_are_found_where_they_are_now() {
    everywhere(32 << 20, |pool, mode| {
        let (file, maps) = installed(pool, mode);
        let word = |at: u64| read(&file, at);
        for (i, map) in maps.iter().enumerate() {
            map.write(SLOT + i as u64 * PAGE, &[20 + i as u8]).unwrap();
        }
        file.allocate(PAGE, 100 * PAGE, AllocateMode::Collapse).unwrap();
        let reuse = pool.reuse(FOREIGN);
        let moved = SLOT - 100 * PAGE;
        for map in &maps {
            assert_eq!((byte(map, 0), byte(map, moved), byte(map, moved + PAGE)), (7, 20, 21));
            assert_eq!(raised(map, 2 * SLOT - 100 * PAGE), Some(libc::SIGBUS), "the end moved too");
        }
        maps[0].write(moved, &[30]).unwrap();
        assert_eq!((byte(&maps[1], moved), word(moved)), (30, 30));
        assert!(all(&reuse, FOREIGN), "nobody stores to another file's blocks");
        reuse.set_len(reuse.len() - 4 * SLOT).unwrap();
        file.allocate(PAGE, 100 * PAGE, AllocateMode::Insert).unwrap();
        for map in &maps {
            assert!((PAGE..101 * PAGE).step_by(PAGE as usize).all(|at| byte(map, at) == 0));
            assert_eq!((byte(map, SLOT), byte(map, SLOT + PAGE), byte(map, 2 * SLOT - 1)), (30, 21, 7));
        }
        maps[1].write(50 * PAGE, &[9]).unwrap();
        assert_eq!((byte(&maps[0], 50 * PAGE), word(50 * PAGE), word(49 * PAGE)), (9, 9, 0));
        maps[0].sync(0, 2 * SLOT).unwrap();
        drop(maps);
        assert!(all(&reuse, FOREIGN));
        drop((file, reuse));
        assert!(pool.is_clean());
    });
}

#[test]
fn a_mapped_file_without_a_name_lives() {
    everywhere(32 << 20, |pool, mode| {
        // Its handle goes too: the mappings alone keep it.
        let (file, maps) = installed(pool, mode);
        drop(file);
        pool.store.remove_file("f").unwrap();
        let reuse = pool.reuse(FOREIGN);
        for map in &maps {
            map.write(5 * PAGE, &[8]).unwrap();
            map.advise(0, 2 * SLOT, Advice::DontNeed).unwrap();
            assert!((0..2 * SLOT).step_by(PAGE as usize).all(|at| byte(map, at + 1) == 7));
        }
        assert!(all(&reuse, FOREIGN));
        let free = pool.store.statfs().free;
        drop(maps);
        pool.store.reclaim().unwrap();
        assert!(pool.store.statfs().free >= free + 2 * SLOT / PAGE, "the last mapping gave the blocks up");
        assert!(pool.is_clean());
    });
}

#[test]
fn a_file_that_another_replaced_stays_mapped() {
    everywhere(32 << 20, |pool, mode| {
        let (file, maps) = installed(pool, mode);
        pool.filled("new", SLOT, 9);
        pool.store.rename("new", "f").unwrap();
        let reuse = pool.reuse(FOREIGN);
        assert!(maps.iter().all(|map| byte(map, 0) == 7 && byte(map, 2 * SLOT - 1) == 7));
        maps[0].write(0, &[1]).unwrap();
        assert_eq!((read(&file, 0), read(&pool.file("f"), 0)), (1, 9));
        assert!(all(&reuse, FOREIGN));
    });
}

#[test]
fn an_overwrite_is_seen_in_place() {
    everywhere(32 << 20, |pool, mode| {
        let (file, maps) = installed(pool, mode);
        for (i, len) in [1, 8, 100, PAGE, PAGE + 100, SLOT].into_iter().enumerate() {
            let value = i as u8 + 10;
            file.write_all_at(&vec![value; len as usize], 777).unwrap();
            assert!(maps.iter().all(|map| byte(map, 777) == value && byte(map, 776 + len) == value));
        }
    });
}

#[test]
fn space_given_ahead_becomes_data_by_a_store() {
    everywhere(64 << 20, |pool, mode| {
        drop(pool.reuse(FOREIGN));
        pool.store.remove_file("reuse").unwrap();
        let file = pool.file("f");
        file.allocate(0, 3 * SLOT, AllocateMode::Allocate).unwrap();
        let map = shared(&file, 3 * SLOT, mode);
        let blocks = file.metadata().blocks;
        assert!((0..SLOT).step_by(PAGE as usize).all(|at| byte(&map, at) == 0));
        assert_eq!(file.seek_data(0).ok(), None, "loads change nothing");
        map.write(PAGE + 1, &[1]).unwrap();
        map.write(SLOT + PAGE, &[2]).unwrap();
        assert_eq!((read(&file, PAGE), read(&file, PAGE + 1), read(&file, SLOT + PAGE)), (0, 1, 2));
        assert_eq!(file.metadata().blocks, blocks, "the space is used that was there");
        assert!((0..3 * SLOT).step_by(PAGE as usize).all(|at| byte(&map, at + 9) == 0));
    });
}

#[test]
fn stores_go_on_while_pages_are_punched_and_reused() {
    everywhere(32 << 20, |pool, mode| {
        let file = pool.filled("f", SLOT, 7);
        let map = shared(&file, SLOT, mode);
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for round in 0_u64.. {
                    let at = round % 512 * PAGE;
                    touch::store(address(&map, at), 0x0707_0707_0707_0707).unwrap();
                    if stop.load(std::sync::atomic::Ordering::Relaxed) {
                        break;
                    }
                }
            });
            for round in 0..150_u64 {
                file.allocate(round % 512 * PAGE, 8 * PAGE, AllocateMode::Punch).unwrap();
                let other = pool.filled("other", 8 * PAGE, FOREIGN);
                std::thread::yield_now();
                assert!(all(&other, FOREIGN), "a store reached another file's block in round {round}");
                drop(other);
                pool.store.remove_file("other").unwrap();
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    });
}
