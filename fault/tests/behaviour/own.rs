//! What does a private mapping show, and who sees what is stored to it?

use crate::common::{PAGE, SLOT, address, byte, everywhere, private, raised, read, shared, touch};
use daxstore::{AllocateMode, OpenOptions};
use daxstore_fault::{Advice, MapOptions};

#[test]
fn stores_are_the_mappings_own() {
    everywhere(64 << 20, |pool, mode| {
        let file = pool.filled("f", 2 * SLOT, 7);
        let (one, two) = (private(&file, 2 * SLOT, mode), private(&file, 2 * SLOT, mode));
        for at in (0..2 * SLOT).step_by(16 * PAGE as usize) {
            one.write(at, &[1]).unwrap();
            assert_eq!((byte(&one, at), byte(&one, at + 1)), (1, 7));
            assert_eq!((byte(&two, at), read(&file, at)), (7, 7));
        }
        one.advise(0, 2 * SLOT, Advice::DontNeed).unwrap();
        assert_eq!(byte(&one, 0), 1, "copies stay");
        assert_eq!(one.sync(0, 2 * SLOT).unwrap(), 0, "nothing of it is the file's");
        one.close().unwrap();
        assert_eq!(read(&file, 0), 7);
    });
}

#[test]
fn a_page_is_the_files_at_its_first_touch() {
    everywhere(64 << 20, |pool, mode| {
        let file = pool.filled("f", SLOT, 7);
        let map = private(&file, SLOT, mode);
        file.write_all_at(&[8], PAGE).unwrap();
        assert_eq!((byte(&map, 0), byte(&map, PAGE)), (7, 8));
        file.write_all_at(&[9; 2 * PAGE as usize], 0).unwrap();
        assert_eq!((byte(&map, 0), byte(&map, PAGE)), (7, 8), "what was touched is its own");
        file.write_all_at(&[9], 5 * PAGE).unwrap();
        assert_eq!(byte(&map, 5 * PAGE), 9);
    });
}

#[test]
fn punches_leave_copies_and_cuts_take_them() {
    everywhere(64 << 20, |pool, mode| {
        let file = pool.filled("f", 2 * SLOT, 7);
        let map = private(&file, 2 * SLOT, mode);
        for at in [0, 3 * PAGE, SLOT, SLOT + 5 * PAGE] {
            map.write(at, &[1]).unwrap();
        }
        file.allocate(0, 4 * PAGE, AllocateMode::Punch).unwrap();
        assert_eq!((byte(&map, 0), byte(&map, PAGE), byte(&map, 3 * PAGE)), (1, 0, 1));
        file.set_len(SLOT + 100).unwrap();
        assert_eq!(byte(&map, SLOT), 1, "the page of the end stays");
        assert_eq!(raised(&map, SLOT + 5 * PAGE), Some(libc::SIGBUS));
        file.set_len(2 * SLOT).unwrap();
        assert_eq!((byte(&map, SLOT), byte(&map, SLOT + 5 * PAGE)), (1, 0));
    });
}

#[test]
fn holes_have_copies_and_no_blocks() {
    everywhere(64 << 20, |pool, mode| {
        let file = pool.sparse("f", 4 * SLOT);
        let map = private(&file, 4 * SLOT, mode);
        for at in (0..4 * SLOT).step_by(64 * PAGE as usize) {
            assert_eq!(byte(&map, at + PAGE), 0);
            map.write(at, &[3]).unwrap();
            assert_eq!(byte(&map, at), 3);
        }
        assert_eq!(file.metadata().blocks, 0);
        assert_eq!(raised(&map, 4 * SLOT - PAGE), None);
    });
}

#[test]
fn a_file_that_can_only_be_read_may_be_mapped_privately() {
    everywhere(64 << 20, |pool, mode| {
        pool.filled("f", SLOT, 7);
        let file = pool.store.open("f", &OpenOptions::new().read(true)).unwrap();
        let map = private(&file, SLOT, mode);
        map.write(0, &[1]).unwrap();
        assert_eq!((byte(&map, 0), read(&file, 0)), (1, 7));
        let only_read = MapOptions::new().private(true).mode(mode).map(&file, 0, SLOT).unwrap();
        assert_eq!(byte(&only_read, 0), 7);
        assert!(only_read.write(0, &[1]).is_err());
    });
}

#[test]
fn one_private_page_is_not_torn_between_threads() {
    everywhere(64 << 20, |pool, mode| {
        let file = pool.filled("f", SLOT, 0);
        for _ in 0..20 {
            let map = private(&file, SLOT, mode);
            std::thread::scope(|scope| {
                for thread in 0..3_u64 {
                    let map = &map;
                    scope.spawn(move || {
                        for at in (0..SLOT).step_by(8 * PAGE as usize) {
                            let place = address(map, at + thread * 8);
                            touch::store(place, thread + 1).unwrap();
                            assert_eq!(touch::load(place), Ok(thread + 1));
                        }
                    });
                }
            });
            for at in (0..SLOT).step_by(8 * PAGE as usize) {
                let words = [0, 1, 2].map(|i| touch::load(address(&map, at + i * 8)).unwrap());
                assert_eq!(words, [1, 2, 3], "at {at:#x}");
            }
        }
    });
}

#[test]
fn private_and_shared_mappings_live_side_by_side() {
    everywhere(64 << 20, |pool, mode| {
        let file = pool.sparse("f", SLOT);
        let (own, common) = (private(&file, SLOT, mode), shared(&file, SLOT, mode));
        common.write(0, &[5]).unwrap();
        assert_eq!(byte(&own, 0), 5);
        common.write(0, &[6]).unwrap();
        own.write(PAGE, &[1]).unwrap();
        assert_eq!((byte(&own, 0), byte(&common, PAGE)), (5, 0));
    });
}
