//! What does a user of a mapping see?

use super::{PAGE, SLOT, Stage, file, holds, load, store, take_all, word};
use crate::Result;
use daxstore::AllocateMode;
use daxstore_fault::{Advice, MapOptions};

const SLOTS: u64 = 4;

/// Goes through it.
pub fn run(stage: &Stage) -> Result<()> {
    kept_and_coherent(stage)?;
    ends(stage)?;
    punched(stage)?;
    own_pages(stage)
}

fn kept_and_coherent(stage: &Stage) -> Result<()> {
    let pool = stage.create()?;
    let main = file(&pool, "main")?;
    main.set_len(SLOTS * SLOT)?;
    let map = stage.map(&main, SLOTS * SLOT)?;
    holds!(map.mode() == stage.mode, "mode {:?}", map.mode());
    let free = pool.statfs().free;
    for page in 0..SLOTS * SLOT / PAGE {
        holds!(load(&map, page * PAGE) == Ok(0), "page {page} of a hole is not zero");
    }
    holds!(pool.statfs().free == free, "loads took {} blocks", free - pool.statfs().free);
    for (i, at) in [0, 3 * PAGE, SLOT + 8, 3 * SLOT + 17 * PAGE].into_iter().enumerate() {
        map.write(at, &(i as u64 + 1).to_ne_bytes())?;
        map.flush(at, 8)?;
        holds!(load(&map, at) == Ok(i as u64 + 1), "a store at {at} is lost");
    }
    holds!(pool.statfs().free < free, "stores took no blocks");
    let other = stage.map(&main, SLOTS * SLOT)?;
    for at in [0, 3 * PAGE, 2 * SLOT, 2 * SLOT + 5 * PAGE] {
        holds!(store(&map, at, at + 7) == Ok(()), "a store at {at} raised a signal");
        holds!(load(&other, at) == Ok(at + 7), "two mappings differ at {at}");
    }
    main.write_all_at(&99_u64.to_ne_bytes(), 2 * SLOT + 6 * PAGE)?;
    main.write_all_at(&98_u64.to_ne_bytes(), 64)?;
    for map in [&map, &other] {
        holds!(load(map, 2 * SLOT + 6 * PAGE) == Ok(99), "a write is not seen");
        holds!(load(map, 64) == Ok(98), "a write is not seen");
    }
    let synced = map.sync(0, map.len())?;
    holds!(synced > 0, "a sync flushed nothing");
    holds!(load(&map, 64) == Ok(98), "a sync lost something");
    map.prefault(0, map.len(), true)?;
    map.advise(0, map.len(), Advice::DontNeed)?;
    holds!(load(&map, 3 * PAGE) == Ok(3 * PAGE + 7), "an eviction lost something");
    map.close()?;
    drop((other, main));
    holds!(pool.check()?.is_clean(), "the pool is not clean");
    pool.close()?;
    let pool = stage.open()?;
    let main = file(&pool, "main")?;
    let expected = [(0, 7), (64, 98), (SLOT + 8, 3), (2 * SLOT + 6 * PAGE, 99), (3 * SLOT + 17 * PAGE, 4)];
    let map = stage.map(&main, SLOTS * SLOT)?;
    for (at, value) in expected {
        holds!(word(&main, at)? == value, "reopened, {at} reads {}", word(&main, at)?);
        holds!(load(&map, at) == Ok(value), "reopened, {at} is {:?} in memory", load(&map, at));
    }
    Ok(())
}

fn ends(stage: &Stage) -> Result<()> {
    let pool = stage.create()?;
    let main = file(&pool, "main")?;
    main.set_len(SLOT)?;
    let map = stage.map(&main, SLOTS * SLOT)?;
    for at in [SLOT, 2 * SLOT + PAGE] {
        holds!(load(&map, at) == Err(libc::SIGBUS), "a load beyond the end: {:?}", load(&map, at));
        holds!(store(&map, at, 1) == Err(libc::SIGBUS), "a store beyond the end");
    }
    main.set_len(3 * SLOT)?;
    holds!(load(&map, SLOT) == Ok(0), "grown: {:?}", load(&map, SLOT));
    holds!(store(&map, 2 * SLOT + PAGE, 5) == Ok(()), "grown, and no store");
    main.write_all_at(&[6; 8], 3 * SLOT)?;
    let tail = load(&map, 3 * SLOT);
    // A device of 2 MiB has no translation for the 4 KiB that the file has there.
    let expected = if stage.unit == SLOT { Err(libc::SIGBUS) } else { Ok(u64::from_ne_bytes([6; 8])) };
    holds!(tail == expected, "grown by a write: {tail:?}");
    main.set_len(SLOT)?;
    holds!(load(&map, 2 * SLOT + PAGE) == Err(libc::SIGBUS), "cut, and no signal");
    main.set_len(SLOTS * SLOT)?;
    for at in [SLOT, 2 * SLOT + PAGE, 3 * SLOT] {
        holds!(load(&map, at) == Ok(0), "cut and grown: {:?} at {at}", load(&map, at));
    }
    Ok(())
}

fn punched(stage: &Stage) -> Result<()> {
    let pool = stage.create()?;
    let main = file(&pool, "main")?;
    main.set_len(SLOTS * SLOT)?;
    let map = stage.map(&main, SLOTS * SLOT)?;
    for page in 0..SLOTS * SLOT / PAGE {
        holds!(store(&map, page * PAGE, page + 1) == Ok(()), "a store to page {page} raised a signal");
    }
    let len = stage.unit;
    main.allocate(SLOT, len, AllocateMode::Punch)?;
    let thief = take_all(&pool, "thief", 0xbb)?;
    for page in 0..SLOTS * SLOT / PAGE {
        let gone = (SLOT..SLOT + len).contains(&(page * PAGE));
        let expected = if gone { 0 } else { page + 1 };
        holds!(load(&map, page * PAGE) == Ok(expected), "page {page}: {:x?}", load(&map, page * PAGE));
    }
    holds!(store(&map, SLOT, 1) == Err(libc::SIGBUS), "a store without space");
    holds!(word(&thief, 0)? == u64::from_ne_bytes([0xbb; 8]), "the other file was stored to");
    drop(thief);
    pool.remove_file("thief")?;
    // A page that failed is tried again when its translation is given up.
    map.advise(SLOT, len, Advice::DontNeed)?;
    holds!(store(&map, SLOT, 1) == Ok(()), "a store with space again");
    holds!(load(&map, SLOT) == Ok(1), "it is lost");
    map.close()?;
    holds!(pool.check()?.is_clean(), "the pool is not clean");
    Ok(())
}

fn own_pages(stage: &Stage) -> Result<()> {
    let pool = stage.create()?;
    let main = file(&pool, "main")?;
    main.write_all_at(&vec![1; 2 * SLOT as usize], 0)?;
    let map = MapOptions::new().write(true).private(true).mode(stage.mode).map(&main, 0, 2 * SLOT)?;
    let ones = u64::from_ne_bytes([1; 8]);
    holds!(load(&map, PAGE) == Ok(ones), "a private page: {:?}", load(&map, PAGE));
    for at in [PAGE, SLOT + 9 * PAGE] {
        holds!(store(&map, at, 2) == Ok(()), "a private store raised a signal");
        holds!(load(&map, at) == Ok(2) && word(&main, at)? == ones, "a private store at {at}");
    }
    main.allocate(0, SLOT, AllocateMode::Punch)?;
    holds!(load(&map, PAGE) == Ok(2), "a private page went with the file's");
    holds!(load(&map, 5 * PAGE) == Ok(0), "what was not private yet stayed");
    Ok(())
}
