//! Do mappings, reads and writes agree at all times?

use crate::common::{PAGE, SLOT, address, byte, everywhere, read, read_only, shared, touch};
use daxstore::{AllocateMode, OpenOptions, XattrMode};
use daxstore_fault::{MapOptions, Mode};
use std::os::unix::ffi::OsStrExt;

#[test]
fn mappings_at_different_offsets_see_each_other() {
    everywhere(64 << 20, |pool, mode| {
        let file = pool.sparse("f", 3 * SLOT);
        let other = if mode == Mode::Signal { Mode::Userfault } else { Mode::Signal };
        let at = |offset, mode| MapOptions::new().write(true).mode(mode).map(&file, offset, SLOT).unwrap();
        let maps = [at(0, mode), at(5 * PAGE, mode), at(SLOT - PAGE, mode), at(PAGE, other)];
        let places = [SLOT - PAGE, SLOT - PAGE / 2, 7 * PAGE + 8];
        for (round, place) in places.into_iter().cycle().take(24).enumerate() {
            let shows = |map: &&daxstore_fault::Mapping| {
                let range = map.file_range();
                (range.offset..range.end()).contains(&place)
            };
            let stores: Vec<_> = maps.iter().filter(shows).collect();
            let map = stores[round % stores.len()];
            map.write(place - map.file_range().offset, &[round as u8]).unwrap();
            for map in stores {
                assert_eq!(byte(map, place - map.file_range().offset), round as u8);
            }
            assert_eq!(read(&file, place), round as u8);
        }
    });
}

#[test]
fn a_store_into_zeros_is_seen_in_every_mapping_that_showed_them() {
    everywhere(64 << 20, |pool, mode| {
        let file = pool.sparse("f", 4 * SLOT);
        let maps =
            [shared(&file, 4 * SLOT, mode), read_only(&file, 4 * SLOT, mode), shared(&file, 4 * SLOT, mode)];
        for at in [0, SLOT + 9 * PAGE, 4 * SLOT - 8] {
            assert!(maps.iter().all(|map| byte(map, at) == 0 && byte(map, at - at % SLOT) == 0));
            maps[2].write(at, &[1]).unwrap();
            assert!(maps.iter().all(|map| byte(map, at) == 1), "a store at {at:#x}");
        }
        assert!(maps.iter().all(|map| byte(map, 2 * SLOT) == 0));
        maps[0].prefault(2 * SLOT, PAGE, true).unwrap();
        maps[0].write(2 * SLOT, &[1]).unwrap();
        assert!(maps.iter().all(|map| byte(map, 2 * SLOT) == 1), "a prefault");
    });
}

#[test]
fn a_write_into_zeros_of_2_mib_is_seen_in_every_mapping() {
    everywhere(64 << 20, |pool, mode| {
        let file = pool.sparse("f", 4 * SLOT);
        let maps = [shared(&file, 4 * SLOT, mode), read_only(&file, 4 * SLOT, mode)];
        for (slot, len) in [(0, 1), (1, PAGE), (2, SLOT), (3, 3 * PAGE + 1)] {
            let at = slot * SLOT + if len == SLOT { 0 } else { 17 * PAGE };
            assert!(maps.iter().all(|map| byte(map, at) == 0 && byte(map, at + len - 1) == 0));
            file.write_all_at(&vec![9; len as usize], at).unwrap();
            for map in &maps {
                assert_eq!((byte(map, at), byte(map, at + len - 1)), (9, 9), "slot {slot}");
                assert_eq!(byte(map, slot * SLOT + SLOT - 1), if len == SLOT { 9 } else { 0 });
            }
        }
    });
}

#[test]
fn small_zeros_do_not_stay_under_2_mib() {
    everywhere(64 << 20, |pool, mode| {
        let file = pool.sparse("f", 2 * SLOT);
        let map = shared(&file, 2 * SLOT, mode);
        map.advise(0, SLOT, daxstore_fault::Advice::NoHuge).unwrap();
        assert_eq!(byte(&map, 9 * PAGE), 0);
        map.advise(0, SLOT, daxstore_fault::Advice::Huge).unwrap();
        map.write(100 * PAGE, &[1]).unwrap();
        file.write_all_at(&[2], 9 * PAGE).unwrap();
        assert_eq!((byte(&map, 9 * PAGE), byte(&map, 100 * PAGE)), (2, 1));
        assert_eq!(read(&file, 100 * PAGE), 1);
    });
}

#[test]
fn threads_that_meet_in_a_hole_keep_all_their_stores() {
    everywhere(64 << 20, |pool, mode| {
        let file = pool.sparse("f", 3 * SLOT);
        let maps = [shared(&file, 3 * SLOT, mode), shared(&file, 3 * SLOT, mode)];
        std::thread::scope(|scope| {
            for thread in 0..4_u64 {
                let map = &maps[thread as usize % 2];
                scope.spawn(move || {
                    for at in (0..3 * SLOT).step_by(3 * PAGE as usize) {
                        touch::store(address(map, at + thread * 8), thread + 1).unwrap();
                    }
                });
            }
        });
        for at in (0..3 * SLOT).step_by(3 * PAGE as usize) {
            let words = [0, 1, 2, 3].map(|i| touch::load(address(&maps[0], at + i * 8)).unwrap());
            assert_eq!(words, [1, 2, 3, 4], "at {at:#x}");
        }
    });
}

#[test]
fn a_write_may_come_from_a_mapping_of_what_it_writes() {
    everywhere(64 << 20, |pool, mode| {
        for (name, hole) in [("data", false), ("hole", true)] {
            let file = if hole { pool.sparse(name, 3 * SLOT) } else { pool.filled(name, 3 * SLOT, 7) };
            let expected = u8::from(!hole) * 7;
            let map = shared(&file, 3 * SLOT, mode);
            for (from, to, len) in [
                (0, 0, PAGE),
                (PAGE, PAGE + 100, PAGE),
                (5 * PAGE + 100, 5 * PAGE, 2 * PAGE),
                (SLOT - PAGE, SLOT + PAGE, 2 * PAGE),
                (0, SLOT, SLOT),
                (100, SLOT + 5000, SLOT),
            ] {
                file.write_all_at(touch::bytes(address(&map, from), len as usize), to).unwrap();
                assert_eq!(
                    (byte(&map, to), read(&file, to + len - 1)),
                    (expected, expected),
                    "{name} {from} {to}"
                );
            }
            // Its source was given up a moment ago, and is a hole now.
            map.write(40 * PAGE, &[1]).unwrap();
            map.advise(0, SLOT, daxstore_fault::Advice::DontNeed).unwrap();
            file.allocate(41 * PAGE, PAGE, AllocateMode::Punch).unwrap();
            file.write_all_at(touch::bytes(address(&map, 40 * PAGE), 2 * PAGE as usize), 41 * PAGE).unwrap();
            assert_eq!((byte(&map, 41 * PAGE), byte(&map, 42 * PAGE)), (1, byte(&map, 43 * PAGE - 1)));
            assert_eq!(byte(&map, 42 * PAGE), 0, "what was a hole before the write");
        }
    });
}

#[test]
fn a_file_is_appended_to_itself() {
    everywhere(64 << 20, |pool, mode| {
        let file = pool.filled("f", PAGE + 100, 7);
        let map = shared(&file, 4 * SLOT, mode);
        for _ in 0..9 {
            let len = file.len();
            assert_eq!(file.append(touch::bytes(address(&map, 0), len as usize)).unwrap(), len);
            assert_eq!((byte(&map, len), byte(&map, 2 * len - 1)), (7, 7));
        }
    });
}

#[test]
fn reads_go_into_mappings() {
    everywhere(64 << 20, |pool, mode| {
        let (file, other) = (pool.filled("f", 2 * SLOT, 7), pool.filled("other", SLOT, 8));
        let map = shared(&file, 2 * SLOT, mode);
        other.read_exact_at(touch::bytes_mut(address(&map, 100), SLOT as usize), 0).unwrap();
        assert_eq!((read(&file, 99), read(&file, 100), read(&file, SLOT + 99)), (7, 8, 8));
        file.read_exact_at(touch::bytes_mut(address(&map, SLOT), SLOT as usize), 50 * PAGE).unwrap();
        assert_eq!(byte(&map, SLOT), 8);
        file.read_exact_at(touch::bytes_mut(address(&map, PAGE), PAGE as usize), PAGE).unwrap();
        let sparse = pool.sparse("sparse", 2 * SLOT);
        let holes = shared(&sparse, 2 * SLOT, mode);
        sparse.read_exact_at(touch::bytes_mut(address(&holes, PAGE), SLOT as usize), 0).unwrap();
        file.read_exact_at(touch::bytes_mut(address(&holes, 9 * PAGE), PAGE as usize), SLOT).unwrap();
        assert_eq!((read(&sparse, 9 * PAGE), read(&sparse, 10 * PAGE)), (8, 0));
    });
}

#[test]
fn names_and_values_come_from_mapped_memory() {
    everywhere(64 << 20, |pool, mode| {
        let file = pool.sparse("f", SLOT);
        let map = shared(&file, SLOT, mode);
        let text = |at: u64, text: &str| {
            file.write_all_at(text.as_bytes(), at).unwrap();
            map.advise(0, SLOT, daxstore_fault::Advice::DontNeed).unwrap();
            std::ffi::OsStr::from_bytes(touch::bytes(address(&map, at), text.len()))
        };
        // The value is a hole of the file that gets it, the name its data.
        let value = touch::bytes(address(&map, 9 * PAGE), 3000);
        file.set_xattr(text(PAGE - 3, "user.name"), value, XattrMode::Either).unwrap();
        assert_eq!(file.get_xattr("user.name").unwrap(), vec![0; 3000]);
        file.remove_xattr(text(3 * PAGE - 3, "user.name")).unwrap();
        pool.store.symlink(text(5 * PAGE - 4, "some/where"), text(7 * PAGE - 2, "link")).unwrap();
        assert_eq!(
            pool.store.read_link(text(7 * PAGE - 2, "link")).unwrap(),
            std::path::Path::new("some/where")
        );
        pool.store.rename(text(11 * PAGE - 1, "f"), text(13 * PAGE - 1, "g")).unwrap();
        pool.store.create_dir(text(15 * PAGE - 1, "dir"), 0o755).unwrap();
        pool.store.hard_link("g", text(17 * PAGE - 3, "dir/h")).unwrap();
        assert!(pool.store.exists("dir/h").unwrap() && pool.is_clean());
    });
}

#[test]
fn loads_take_no_space_and_change_no_time() {
    everywhere(64 << 20, |pool, mode| {
        let whole = pool.sparse("f", 8 * SLOT);
        let before = (whole.metadata(), pool.store.statfs().free);
        let file = pool.store.open("f", &OpenOptions::new().read(true)).unwrap();
        let map = read_only(&file, 8 * SLOT, mode);
        assert!((0..8 * SLOT).step_by(PAGE as usize).all(|at| byte(&map, at) == 0));
        let after = (whole.metadata(), pool.store.statfs().free);
        assert_eq!((before.0.blocks, before.0.mtime, before.1), (after.0.blocks, after.0.mtime, after.1));
    });
}

#[test]
fn a_store_changes_the_files_time() {
    everywhere(64 << 20, |pool, mode| {
        for (name, file) in [("data", pool.filled("data", SLOT, 1)), ("hole", pool.sparse("hole", SLOT))] {
            let map = shared(&file, SLOT, mode);
            let before = file.metadata().mtime;
            // The clock of times in files ticks every few milliseconds.
            std::thread::sleep(std::time::Duration::from_millis(30));
            map.write(0, &[1]).unwrap();
            assert!(file.metadata().mtime > before, "{name}");
        }
    });
}

#[test]
fn readers_see_no_moment_without_their_data() {
    everywhere(64 << 20, |pool, mode| {
        // Every translation comes and goes, and each load finds what was there.
        let file = pool.filled("f", SLOT, 7);
        let map = shared(&file, SLOT, mode);
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        for at in (0..SLOT).step_by(16 * PAGE as usize) {
                            assert_eq!(touch::load(address(&map, at)), Ok(0x0707_0707_0707_0707));
                        }
                    }
                });
            }
            for round in 0..200 {
                match round % 4 {
                    0 => map.advise(0, SLOT, daxstore_fault::Advice::DontNeed).unwrap(),
                    1 => _ = map.sync(0, SLOT).unwrap(),
                    2 => file.write_all_at(&[7; 9 * PAGE as usize], 16 * PAGE).unwrap(),
                    _ => file.set_len(SLOT + round).unwrap(),
                }
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    });
}
