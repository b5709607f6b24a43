//! Where does a mapped file end?

use crate::common::{PAGE, SLOT, address, byte, everywhere, raised, read, shared, touch};
use daxstore::AllocateMode;

#[test]
fn the_page_behind_the_end_raises_sigbus_and_the_one_that_holds_it_does_not() {
    everywhere(64 << 20, |pool, mode| {
        for size in [0, 1, PAGE - 1, PAGE, PAGE + 1, SLOT - PAGE, SLOT - 1, SLOT, SLOT + 1, 2 * SLOT] {
            let file = pool.sparse(&format!("{size}"), size);
            let map = shared(&file, 3 * SLOT, mode);
            let end = size.next_multiple_of(PAGE);
            if end > 0 {
                assert_eq!(raised(&map, end - 8), None, "size {size}");
                assert_eq!(touch::store(address(&map, end - 8), 1), Ok(()), "size {size}");
            }
            for at in [end, end + PAGE - 8, end + SLOT / 2] {
                let place = address(&map, at);
                let sigbus = touch::Raised { signal: libc::SIGBUS, address: place };
                assert_eq!(touch::load(place), Err(sigbus), "size {size} at {at}");
                assert_eq!(touch::store(place, 1), Err(sigbus), "size {size} at {at}");
            }
            assert_eq!(file.len(), size, "a store does not make a file longer");
        }
    });
}

#[test]
fn written_files_end_as_sparse_ones_do() {
    everywhere(64 << 20, |pool, mode| {
        for size in [1, PAGE + 1, SLOT - PAGE, SLOT + 1, SLOT + PAGE] {
            let file = pool.filled(&format!("{size}"), size, 5);
            let map = shared(&file, 3 * SLOT, mode);
            let end = size.next_multiple_of(PAGE);
            assert_eq!(byte(&map, size - 1), 5);
            assert_eq!(raised(&map, end), Some(libc::SIGBUS), "size {size}");
            assert_eq!(touch::load(address(&map, end - 8)).unwrap() >> 56, if size == end { 5 } else { 0 });
        }
    });
}

#[test]
fn what_is_stored_behind_the_end_is_zero_when_the_file_grows() {
    everywhere(64 << 20, |pool, mode| {
        for (i, prepare) in [100, PAGE + 100, SLOT + 100].into_iter().enumerate() {
            let file = pool.filled(&format!("{i}"), prepare, 9);
            let map = shared(&file, 2 * SLOT, mode);
            let behind = (prepare + 8) & !7;
            touch::store(address(&map, behind), 0x7777).unwrap();
            file.set_len(prepare + 2000).unwrap();
            assert_eq!(touch::load(address(&map, behind)), Ok(0), "by set_len");
            assert_eq!(read(&file, behind), 0);
            touch::store(address(&map, behind + 2000), 0x7777).unwrap();
            file.write_all_at(&[1], prepare + 2500).unwrap();
            assert_eq!(touch::load(address(&map, behind + 2000)), Ok(0), "by a write past the end");
            let end = file.len();
            touch::store(address(&map, (end + 8) & !7), 0x7777).unwrap();
            file.allocate(end, 100, AllocateMode::Allocate).unwrap();
            assert_eq!(touch::load(address(&map, (end + 8) & !7)), Ok(0), "by fallocate");
        }
    });
}

#[test]
fn what_a_cut_leaves_in_the_last_page_is_zero() {
    everywhere(64 << 20, |pool, mode| {
        let file = pool.filled("f", SLOT, 0xff);
        let map = shared(&file, SLOT, mode);
        map.prefault(0, SLOT, true).unwrap();
        file.set_len(PAGE + 100).unwrap();
        assert_eq!((byte(&map, PAGE + 99), byte(&map, PAGE + 100), byte(&map, 2 * PAGE - 1)), (0xff, 0, 0));
        assert_eq!(raised(&map, 2 * PAGE), Some(libc::SIGBUS));
        file.set_len(SLOT).unwrap();
        assert_eq!((byte(&map, PAGE + 99), byte(&map, PAGE + 100), byte(&map, SLOT - 1)), (0xff, 0, 0));
    });
}

#[test]
fn the_last_page_of_a_file_that_was_never_mapped_ends_in_zeros() {
    everywhere(64 << 20, |pool, mode| {
        drop(pool.reuse(0xee));
        pool.store.remove_file("reuse").unwrap();
        for size in [1, 100, PAGE + 1, SLOT - 3] {
            let file = pool.filled(&format!("{size}"), size, 3);
            let map = shared(&file, SLOT, mode);
            let tail = size..size.next_multiple_of(PAGE);
            assert!(tail.clone().all(|at| byte(&map, at) == 0), "size {size}");
        }
    });
}

#[test]
fn growth_is_seen_where_sigbus_was() {
    everywhere(64 << 20, |pool, mode| {
        let file = pool.filled("f", 10, 1);
        let map = shared(&file, 4 * SLOT, mode);
        let is_sigbus = |at| assert_eq!(raised(&map, at), Some(libc::SIGBUS));
        is_sigbus(PAGE);
        file.set_len(PAGE + 1).unwrap();
        assert_eq!(byte(&map, PAGE), 0);
        is_sigbus(2 * PAGE);
        file.write_all_at(&[7; 10], 2 * PAGE).unwrap();
        assert_eq!(byte(&map, 2 * PAGE + 9), 7);
        is_sigbus(3 * PAGE);
        let at = file.append(&vec![8; 2 * PAGE as usize]).unwrap();
        assert_eq!(byte(&map, at + 2 * PAGE - 1), 8);
        is_sigbus(2 * SLOT + PAGE);
        file.allocate(2 * SLOT, SLOT, AllocateMode::Allocate).unwrap();
        assert_eq!(byte(&map, 2 * SLOT + PAGE), 0);
        map.write(3 * SLOT - 1, &[4]).unwrap();
        assert_eq!(read(&file, 3 * SLOT - 1), 4);
        is_sigbus(3 * SLOT);
        file.allocate(3 * SLOT, SLOT, AllocateMode::Zero).unwrap();
        assert_eq!(byte(&map, 4 * SLOT - 1), 0);
    });
}

#[test]
fn a_cut_is_seen_at_once_by_every_mapping() {
    everywhere(64 << 20, |pool, mode| {
        let file = pool.filled("f", 4 * SLOT, 6);
        let maps: Vec<_> = (0..3).map(|_| shared(&file, 4 * SLOT, mode)).collect();
        for size in [3 * SLOT, 2 * SLOT + PAGE, 2 * SLOT, PAGE, 0] {
            for map in &maps {
                let shown = size + PAGE;
                map.prefault(0, shown.min(file.len()), true).unwrap();
            }
            file.set_len(size).unwrap();
            for map in &maps {
                assert_eq!(raised(map, size), Some(libc::SIGBUS), "size {size}");
                assert_eq!(size.checked_sub(PAGE).map(|at| byte(map, at)), (size > 0).then_some(6));
            }
        }
    });
}
