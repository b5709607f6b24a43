//! What becomes of files that do not fit a device that is mapped 2 MiB at a time?
//!
//! A slot is mapped only where all of it is the file's, also what lies beyond the file's end: its other pages may be
//! another file's.

use super::{PAGE, SLOT, Stage, file, holds, load, refusal, store, take_all, word};
use crate::Result;
use daxstore::AllocateMode;
use daxstore_fault::{Count, Fallback, MapOptions, Reason};

const BB: u64 = u64::from_ne_bytes([0xbb; 8]);

/// Goes through it.
pub fn run(stage: &Stage) -> Result<()> {
    short(stage)?;
    punched(stage)?;
    sparse_tail(stage)
}

/// A file of a block; the rest of its chunk is another's.
fn short(stage: &Stage) -> Result<()> {
    let pool = stage.create()?;
    let main = file(&pool, "main")?;
    main.write_all_at(&[1; PAGE as usize], 0)?;
    let thief = take_all(&pool, "thief", 0xbb)?;
    let chunk = |file: &daxstore::File, len| -> Result<Vec<u64>> {
        Ok(file.extents(0, len)?.iter().filter_map(|e| e.state.address()).map(|at| at.0 / SLOT).collect())
    };
    let own = chunk(&main, PAGE)?;
    holds!(chunk(&thief, thief.len())?.iter().any(|c| own.contains(c)), "nobody shares the chunk");
    for write in [false, true] {
        let map = MapOptions::new().write(write).mode(stage.mode).map(&main, 0, SLOT)?;
        for page in 0..512 {
            let found = load(&map, page * PAGE);
            // What is a hole is zeros, which are not the device's.
            let expected = if page == 0 { Err(libc::SIGBUS) } else { Ok(0) };
            holds!(found == expected, "page {page} of a short file: {found:x?}");
        }
        if write {
            holds!(store(&map, 9 * PAGE, 1) == Err(libc::SIGBUS), "a store behind a short file");
        }
        let said = [refusal(map.require_huge(0, SLOT)), refusal(map.prefault(0, PAGE, write))];
        holds!(said.iter().all(|s| s.contains("some of these pages have data")), "refused by: {said:?}");
        let counted = map.stats().fallbacks(Fallback::Sigbus, Reason::Mixed);
        holds!(counted > 0, "not counted: {:?}", map.stats());
        println!("note: {:?}, a short file: SIGBUS, counted {counted} times, {}", stage.mode, said[1]);
    }
    for at in (0..thief.len()).step_by(PAGE as usize) {
        holds!(word(&thief, at)? == BB, "the other file was stored to at {at}");
    }
    Ok(())
}

/// Blocks of a mapped slot are taken away and become another file's; then written again.
fn punched(stage: &Stage) -> Result<()> {
    let pool = stage.create()?;
    let main = file(&pool, "main")?;
    main.set_len(3 * SLOT)?;
    let map = stage.map(&main, 3 * SLOT)?;
    for page in 0..3 * 512 {
        holds!(store(&map, page * PAGE, page + 1) == Ok(()), "a store to page {page}");
    }
    main.allocate(SLOT + 5 * PAGE, PAGE, AllocateMode::Punch)?;
    let thief = take_all(&pool, "thief", 0xbb)?;
    for page in 0..3 * 512 {
        let expected = match page {
            517 => Ok(0),
            512..1024 => Err(libc::SIGBUS),
            _ => Ok(page + 1),
        };
        let found = load(&map, page * PAGE);
        holds!(found == expected, "page {page} beside a punch: {found:x?}");
        let read = word(&main, page * PAGE)?;
        holds!(read == if page == 517 { 0 } else { page + 1 }, "page {page} reads {read:x}");
    }
    holds!(store(&map, SLOT + 5 * PAGE, 1) == Err(libc::SIGBUS), "a store to a punched page");
    holds!(map.stats().fallbacks(Fallback::Sigbus, Reason::Mixed) > 0, "not counted");
    for at in (0..thief.len()).step_by(PAGE as usize) {
        holds!(word(&thief, at)? == BB, "the other file was stored to at {at}");
    }
    thief.set_len(thief.len() / SLOT * SLOT - 4 * SLOT)?;
    main.write_all_at(&[3; PAGE as usize], SLOT + 5 * PAGE)?;
    let said = refusal(map.prefault(SLOT, SLOT, true));
    let found = load(&map, SLOT + 5 * PAGE);
    println!("note: {:?}, a punched slot written again: {said}", stage.mode);
    holds!(found == Err(libc::SIGBUS) || said == "it was granted", "{said}, and {found:x?}");
    let _moved = main.defrag()?;
    map.prefault(SLOT, SLOT, true)?;
    for page in 512..1024 {
        let expected = if page == 517 { u64::from_ne_bytes([3; 8]) } else { page + 1 };
        let found = load(&map, page * PAGE);
        holds!(found == Ok(expected), "page {page} after defrag: {found:x?}");
    }
    map.require_huge(0, map.len())?;
    println!("note: {:?}, after defrag it is 2 MiB again", stage.mode);
    map.close()?;
    holds!(pool.check()?.is_clean(), "the pool is not clean");
    Ok(())
}

/// A hole whose end is not at 2 MiB.
fn sparse_tail(stage: &Stage) -> Result<()> {
    let pool = stage.create()?;
    let main = file(&pool, "main")?;
    main.set_len(SLOT + PAGE)?;
    let map = stage.map(&main, 2 * SLOT)?;
    holds!(load(&map, SLOT) == Ok(0), "a load of the tail: {:?}", load(&map, SLOT));
    holds!(store(&map, SLOT, 1) == Err(libc::SIGBUS), "a store to the tail");
    let said = refusal(map.prefault(SLOT, PAGE, true));
    println!("note: {:?}, a store to a tail of 4 KiB: SIGBUS, {said}", stage.mode);
    holds!(said.contains("end after the end of the file"), "refused by: {said}");
    holds!(map.stats().get(Count::Stores) > 0, "no store was counted");
    main.set_len(2 * SLOT)?;
    holds!(store(&map, SLOT, 1) == Ok(()), "a store once the file fills the slot");
    Ok(())
}
