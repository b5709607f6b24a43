//! What happens when blocks, chunks or mappings run out, and when blocks are pinned?

use crate::common::{
    MEDIA, MODES, Medium, PAGE, Pool, SLOT, address, byte, everywhere, raised, read, read_only, shared, touch,
};
use daxstore::{AllocateMode, Error, OpenOptions};
use daxstore_fault::{Advice, Count, Fallback, Mode, Reason, What};

#[test]
fn pinned_blocks_are_nobody_elses_until_they_are_let_go() {
    everywhere(32 << 20, |pool, mode| {
        let file = pool.filled("f", SLOT, 7);
        let map = shared(&file, SLOT, mode);
        let pin = map.pin(0, 64 * PAGE).unwrap();
        let places: Vec<_> = map.installed(0, 64 * PAGE).unwrap();
        assert!(places.iter().all(|entry| matches!(entry.what, What::Block(_))), "pinning installs");
        file.allocate(0, 128 * PAGE, AllocateMode::Punch).unwrap();
        let reuse = pool.reuse(0xee);
        let taken = reuse.len();
        // Another file got what was freed and not pinned, and nothing of the rest: 64 blocks are still to be had.
        drop(pin);
        let mut more = 0;
        while reuse.write_all_at(&[0xee; PAGE as usize], taken + more * PAGE).is_ok() {
            more += 1;
        }
        assert!(more >= 60, "{more} blocks came back with the pin");
        assert_eq!(byte(&map, 0), 0);
    });
}

#[test]
fn a_pin_of_a_hole_gives_it_blocks_and_of_what_can_only_be_read_does_not() {
    everywhere(32 << 20, |pool, mode| {
        let file = pool.sparse("f", SLOT);
        let seen = read_only(&file, SLOT, mode);
        drop(seen.pin(0, 4 * PAGE).unwrap());
        assert_eq!(file.metadata().blocks, 0);
        let map = shared(&file, SLOT, mode);
        drop(map.pin(0, 4 * PAGE).unwrap());
        assert!(file.metadata().blocks >= 4);
        assert!(matches!(map.pin(SLOT - PAGE, 2 * PAGE), Err(Error::OutOfMapping { .. })));
    });
}

#[test]
fn no_space_is_an_error_of_prefault_and_sigbus_of_a_touch_until_there_is_space() {
    everywhere(32 << 20, |pool, mode| {
        let file = pool.sparse("f", 4 * SLOT);
        let map = shared(&file, 4 * SLOT, mode);
        assert_eq!(byte(&map, 2 * SLOT), 0);
        let reuse = pool.reuse(0xee);
        assert!(matches!(map.prefault(0, SLOT, true), Err(Error::NoSpace { .. })));
        for at in [SLOT + PAGE, 2 * SLOT] {
            let sigbus = touch::Raised { signal: libc::SIGBUS, address: address(&map, at) };
            assert_eq!(touch::store(address(&map, at), 1), Err(sigbus));
        }
        assert_eq!(raised(&map, 3 * SLOT), None, "loads need no space");
        reuse.set_len(0).unwrap();
        map.advise(0, 4 * SLOT, Advice::DontNeed).unwrap();
        for at in [0, SLOT + PAGE, 2 * SLOT] {
            assert_eq!(touch::store(address(&map, at), 0x0909), Ok(()), "at {at:#x}");
            assert_eq!(read(&file, at), 9);
        }
        assert!(pool.is_clean());
    });
}

#[test]
fn a_store_beside_data_gets_the_piece_that_the_file_asks_for() {
    everywhere(32 << 20, |pool, mode| {
        let file = pool.sparse("f", SLOT);
        file.write_all_at(&[7; PAGE as usize], 0).unwrap();
        file.set_extent_hint(16 * PAGE).unwrap();
        let map = shared(&file, SLOT, mode);
        let before = file.metadata().blocks;
        for page in [40, 33, 47, 32] {
            assert_eq!(touch::store(address(&map, page * PAGE), 0x0909), Ok(()), "page {page}");
            assert_eq!(file.metadata().blocks, before + 16, "page {page}");
        }
        assert_eq!((read(&file, 40 * PAGE), byte(&map, 41 * PAGE), read(&file, 41 * PAGE)), (9, 0, 0));
        assert!(pool.is_clean());
    });
}

#[test]
fn when_2_mib_are_nowhere_free_4_kib_do() {
    everywhere(64 << 20, |pool, mode| {
        // Every chunk keeps some blocks of another file.
        let other = pool.reuse(0xee);
        for at in (0..other.len()).step_by(128 * PAGE as usize) {
            let _at_the_end_already = other.allocate(at + PAGE, 127 * PAGE, AllocateMode::Punch);
        }
        let file = pool.sparse("f", 2 * SLOT);
        let map = shared(&file, 2 * SLOT, mode);
        for at in (0..2 * SLOT).step_by(64 * PAGE as usize) {
            map.write(at, &[1]).unwrap();
            assert_eq!(read(&file, at), 1);
        }
        let stats = map.stats();
        assert_eq!(stats.get(Count::Pmd), 0);
        assert!(stats.fallbacks(Fallback::Pte, Reason::NoChunk) > 0, "{stats}");
        assert_eq!(read(&other, 128 * PAGE), 0xee);
    });
}

/// The reason for which a slot is not huge.
fn why_not(map: &daxstore_fault::Mapping, offset: u64, len: u64) -> String {
    match map.require_huge(offset, len) {
        Err(Error::NotHuge { why, .. }) => why.to_owned(),
        other => format!("{other:?}"),
    }
}

#[test]
fn who_requires_2_mib_is_told_why_there_are_none() {
    everywhere(64 << 20, |pool, mode| {
        let name = |reason: Reason| reason.text().to_owned();
        let file = pool.filled("f", 4 * SLOT, 7);
        let map = shared(&file, 6 * SLOT, mode);
        map.advise(0, SLOT, Advice::NoHuge).unwrap();
        assert_eq!(why_not(&map, 0, SLOT), name(Reason::Advised));
        map.advise(0, SLOT, Advice::Huge).unwrap();
        assert!(matches!(map.require_huge(PAGE, SLOT), Err(Error::InvalidArgument(_))));
        file.set_len(4 * SLOT + PAGE).unwrap();
        assert_eq!(why_not(&map, 4 * SLOT, SLOT), name(Reason::AfterEnd));
        assert_eq!(why_not(&map, 5 * SLOT, SLOT), name(Reason::AfterEnd));
        file.allocate(PAGE, PAGE, AllocateMode::Punch).unwrap();
        assert_eq!(why_not(&map, 0, SLOT), name(Reason::Mixed));
        file.write_all_at(&[7; PAGE as usize], PAGE).unwrap();
        let fragmented = why_not(&map, 0, SLOT);
        // The hole may have got its own block back.
        assert!(fragmented == name(Reason::Fragmented) || !fragmented.contains("data"), "{fragmented}");
        let own = crate::common::private(&file, 4 * SLOT, mode);
        assert_eq!(why_not(&own, SLOT, SLOT), name(Reason::PrivateWrite));
        let small = pool.filled("small", PAGE, 1);
        small.write_all_at(&vec![1; SLOT as usize], PAGE).unwrap();
        small.set_len(SLOT).unwrap();
        let told = why_not(&shared(&small, SLOT, mode), 0, SLOT);
        let possible = [Reason::Misplaced, Reason::Fragmented].map(name);
        assert!(possible.contains(&told) || told.contains("the system"), "{told}");
    });
}

#[test]
fn an_aligned_file_is_huge_to_the_handler() {
    everywhere(64 << 20, |pool, mode| {
        for (name, file) in
            [("sparse", pool.sparse("sparse", 4 * SLOT)), ("full", pool.filled("full", 4 * SLOT, 7))]
        {
            let map = shared(&file, 4 * SLOT, mode);
            let told = why_not(&map, 0, 4 * SLOT);
            // Whether the system follows depends on what the pool lies on.
            assert!(told.starts_with("Ok") || told.contains("the system"), "{name}: {told}");
            assert!((0..4 * SLOT).step_by(SLOT as usize).all(|at| raised(&map, at).is_none()));
            assert_eq!(map.stats().all_fallbacks(Fallback::Pte), 0, "{name}");
        }
    });
}

#[test]
fn more_fragments_than_the_system_has_mappings() {
    // Between any two pages is a hole: each takes two mappings, and there are 65530.
    const PAGES: u64 = 34_000;
    const PAIR: u64 = 8 * PAGE;
    for mode in MODES {
        let pool = Pool::new((PAGES + 32_000) * PAGE, Medium::Lines);
        let file = pool.sparse("f", PAGES * PAIR);
        for at in 0..PAGES {
            file.write_all_at(&(at + 1).to_ne_bytes(), at * PAIR).unwrap();
        }
        let map = shared(&file, PAGES * PAIR, mode);
        let mut wrong = 0;
        for at in 0..PAGES {
            wrong += u64::from(touch::load(address(&map, at * PAIR)) != Ok(at + 1));
        }
        assert_eq!(wrong, 0, "{mode:?}: {}", map.stats());
        for at in (0..PAGES).step_by(7) {
            touch::store(address(&map, at * PAIR), at + 2).unwrap();
        }
        for at in (0..PAGES).step_by(7) {
            assert_eq!(touch::load(address(&map, at * PAIR)), Ok(at + 2));
        }
        println!("{mode:?}\n{}", map.stats());
        assert!(map.stats().get(Count::Evictions) > 0, "there was not room for all");
    }
}

#[test]
fn a_terabyte_of_nothing_is_mapped_at_once() {
    const TERABYTE: u64 = 1 << 40;
    everywhere(64 << 20, |pool, mode| {
        let file = pool.sparse("f", TERABYTE);
        let begun = std::time::Instant::now();
        let map = shared(&file, TERABYTE + SLOT, mode);
        assert_eq!((byte(&map, 0), byte(&map, TERABYTE - 1)), (0, 0));
        map.write(TERABYTE / 2 + 1, &[1]).unwrap();
        file.write_all_at(&[2], TERABYTE - SLOT / 2).unwrap();
        assert_eq!((byte(&map, TERABYTE / 2 + 1), byte(&map, TERABYTE - SLOT / 2)), (1, 2));
        assert_eq!(raised(&map, TERABYTE), Some(libc::SIGBUS));
        file.set_len(TERABYTE / 2).unwrap();
        assert_eq!(raised(&map, TERABYTE / 2), Some(libc::SIGBUS));
        assert_eq!(file.metadata().blocks, 0);
        drop(map);
        assert!(begun.elapsed().as_secs() < 10, "{:?}", begun.elapsed());
    });
}

#[test]
fn eager_mappings_have_everything_at_once() {
    for medium in MEDIA {
        let pool = Pool::new(64 << 20, medium);
        let file = pool.filled("f", SLOT + 100, 7);
        file.set_len(2 * SLOT + 100).unwrap();
        let map = shared(&file, 4 * SLOT, Mode::Eager);
        assert_eq!(map.mode(), Mode::Eager);
        assert!(file.metadata().blocks > SLOT / PAGE + 1, "holes have blocks");
        map.write(SLOT + PAGE * 9, &[1]).unwrap();
        assert_eq!((read(&file, SLOT + PAGE * 9), byte(&map, SLOT + 99), byte(&map, SLOT + 100)), (1, 7, 0));
        assert_eq!(raised(&map, 3 * SLOT), Some(libc::SIGBUS));
        let refused = file.allocate(0, PAGE, AllocateMode::Punch);
        assert!(matches!(refused, Err(Error::Unsupported { .. })), "{refused:?}");
        assert_eq!(byte(&map, 0), 7);
        file.write_all_at(&[9; 2 * PAGE as usize], 3 * SLOT).unwrap();
        assert_eq!(byte(&map, 3 * SLOT + PAGE), 9, "growth is there");
        file.set_len(SLOT).unwrap();
        assert_eq!((byte(&map, SLOT - 1), raised(&map, SLOT)), (7, Some(libc::SIGBUS)));
        let all_there = touch::pwrite(&tempfile::tempfile().unwrap(), address(&map, 0), SLOT as usize, 0);
        assert_eq!(all_there, Ok(SLOT as i64));
        drop(map);
        file.allocate(0, PAGE, AllocateMode::Punch).unwrap();
        let only_read = pool.store.open("f", &OpenOptions::new().read(true)).unwrap();
        let seen = read_only(&only_read, SLOT, Mode::Eager);
        assert_eq!((byte(&seen, 0), byte(&seen, PAGE)), (0, 7));
    }
}
