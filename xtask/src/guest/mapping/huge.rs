//! Where are translations 2 MiB, and where is that refused with its reason?

use super::{PAGE, SLOT, Stage, file, holds, load, refusal, store};
use crate::Result;
use crate::trace::{Faults, faults};
use daxstore::AllocateMode;
use daxstore_fault::{Count, Fallback, Mapping};

const SLOTS: u64 = 4;

/// Touches every page of `map`.
fn touch_all(map: &Mapping) -> Result<()> {
    for page in 0..map.len() / PAGE {
        holds!(store(map, page * PAGE, page) == Ok(()), "a store to page {page} raised a signal");
    }
    Ok(())
}

fn told(stage: &Stage, what: &str, faults: &Faults, map: &Mapping) {
    let stats = map.stats();
    println!(
        "note: {:?}, {what}: {faults}; decided {} Pmd, {} Pte",
        stage.mode,
        stats.get(Count::Pmd),
        stats.all_fallbacks(Fallback::Pte)
    );
}

/// Fails unless there was one fault of the kernel's for each slot of `map`.
fn one_each(stage: &Stage, faults: &Faults, slots: u64) -> Result<()> {
    match faults.events {
        Some((pmd, up, pte)) => holds!(pmd >= slots && up == 0 && pte == 0, "not all of 2 MiB: {faults}"),
        None => holds!(faults.taken < 8 * slots, "not all of {}: {faults}", stage.unit),
    }
    Ok(())
}

/// On memory that allows 2 MiB, or on a device of 4 KiB.
pub fn run(stage: &Stage) -> Result<()> {
    let pool = stage.create()?;
    let main = file(&pool, "main")?;
    main.set_len(SLOTS * SLOT)?;
    main.allocate(0, SLOTS * SLOT, AllocateMode::Zero)?;
    let map = stage.map(&main, SLOTS * SLOT)?;
    if stage.is_device && stage.unit == PAGE {
        let said = refusal(map.require_huge(0, map.len()));
        holds!(said.contains("no translations of 2 MiB"), "refused by: {said}");
        let ((), faults) = faults(true, || touch_all(&map))?;
        holds!(faults.taken >= SLOTS * 512, "fewer faults than pages: {faults}");
        told(stage, &format!("{SLOTS} slots"), &faults, &map);
        return Ok(());
    }
    let (said, took) = faults(stage.is_device, || Ok(refusal(map.require_huge(0, map.len()))))?;
    holds!(said == "it was granted", "require_huge: {said}");
    one_each(stage, &took, SLOTS)?;
    told(stage, &format!("require_huge of {SLOTS} slots"), &took, &map);
    let ((), took) = faults(stage.is_device, || touch_all(&map))?;
    holds!(took.events.is_none_or(|events| events == (0, 0, 0)), "faults after it: {took}");
    map.close()?;
    // By faults, in a file that is one hole.
    let sparse = file(&pool, "sparse")?;
    sparse.set_len(SLOTS * SLOT)?;
    let map = stage.map(&sparse, SLOTS * SLOT)?;
    let ((), took) = faults(stage.is_device, || touch_all(&map))?;
    one_each(stage, &took, SLOTS)?;
    told(stage, &format!("stores to all pages of a hole of {SLOTS} slots"), &took, &map);
    drop(map);
    if !stage.is_device {
        fragments(stage, &pool)?;
    }
    Ok(())
}

/// A slot in pieces.
fn fragments(stage: &Stage, pool: &daxstore::Store) -> Result<()> {
    let (one, other) = (file(pool, "one")?, file(pool, "other")?);
    for page in 0..512 {
        one.write_all_at(&[1; PAGE as usize], page * PAGE)?;
        other.write_all_at(&[2; PAGE as usize], page * PAGE)?;
    }
    // Every second page anew, elsewhere.
    for page in (0..512).step_by(2) {
        one.allocate(page * PAGE, PAGE, AllocateMode::Punch)?;
    }
    other.write_all_at(&[2; 200 * PAGE as usize], 512 * PAGE)?;
    for page in (0..512).step_by(2) {
        one.write_all_at(&[1; PAGE as usize], page * PAGE)?;
    }
    let map = stage.map(&one, SLOT)?;
    let said = refusal(map.require_huge(0, SLOT));
    holds!(said.contains("several places") || said.contains("do not begin at 2 MiB"), "refused by: {said}");
    let (all, took) = faults(stage.is_device, || {
        Ok((0..512).all(|page| load(&map, page * PAGE) == Ok(u64::from_ne_bytes([1; 8]))))
    })?;
    holds!(all, "the file in pieces is another");
    let pieces = one.extents(0, SLOT)?.len();
    told(stage, &format!("a slot in {pieces} pieces ({said})"), &took, &map);
    let _moved = one.defrag()?;
    let (said, took) = faults(stage.is_device, || Ok(refusal(map.require_huge(0, SLOT))))?;
    holds!(said == "it was granted", "defragmented, require_huge: {said}");
    one_each(stage, &took, 1)?;
    told(stage, "after defrag", &took, &map);
    Ok(())
}

/// On a file system that does not place the pool at 2 MiB.
pub fn askew(stage: &Stage) -> Result<()> {
    let pool = stage.create()?;
    let main = file(&pool, "main")?;
    main.allocate(0, SLOT, AllocateMode::Zero)?;
    let map = stage.map(&main, SLOT)?;
    let (said, took) = faults(false, || Ok(refusal(map.require_huge(0, SLOT))))?;
    holds!(said.contains("the system installed smaller ones"), "askew, require_huge: {said}");
    told(stage, "a pool askew", &took, &map);
    Ok(())
}

/// The first that happens to a chunk after a boot are 4 KiB of it in a mapping; later it is to be 2 MiB. Two runs: the first
/// makes the file (`kept` is not there), the file system is mounted anew between them.
pub fn kept(stage: &Stage) -> Result<()> {
    let is_first = !stage.pool.exists();
    if is_first {
        let pool = stage.create()?;
        let main = file(&pool, "main")?;
        main.write_all_at(&vec![1; SLOTS as usize * SLOT as usize], 0)?;
        return Ok(pool.close()?);
    }
    let pool = stage.open()?;
    let main = file(&pool, "main")?;
    {
        // Without the last page of each slot, nothing is 2 MiB.
        let maps = (0..SLOTS)
            .map(|slot| {
                let options = daxstore_fault::MapOptions::new().write(true).mode(stage.mode);
                options.map(&main, slot * SLOT + PAGE, SLOT - 2 * PAGE)
            })
            .collect::<daxstore::Result<Vec<_>>>()?;
        let (all, took) = faults(false, || {
            Ok(maps
                .iter()
                .all(|map| load(map, 0) == Ok(u64::from_ne_bytes([1; 8])) && store(map, PAGE, 1).is_ok()))
        })?;
        holds!(all, "the file is another");
        told(stage, "pages of 4 slots, first after mounting", &took, &maps[0]);
    }
    let map = stage.map(&main, SLOTS * SLOT)?;
    let (said, took) = faults(false, || Ok(refusal(map.require_huge(0, SLOTS * SLOT))))?;
    told(stage, "require_huge after pages were mapped", &took, &map);
    holds!(said == "it was granted", "after pages were mapped, require_huge: {said}: {took}");
    one_each(stage, &took, SLOTS)
}

/// Somebody else maps a page of a chunk before the pool does, and so spoils it. Two runs, as [`kept`]: the first says where the
/// chunk of the second slot lies, and the file system is mounted anew and the page touched between them.
pub fn spoiled(stage: &Stage) -> Result<()> {
    if !stage.pool.exists() {
        let pool = stage.create()?;
        let main = file(&pool, "main")?;
        main.write_all_at(&vec![1; 2 * SLOT as usize], 0)?;
        let at = main.extents(SLOT, 1)?[0].state.address().ok_or("the slot has no blocks")?;
        println!("at {}", at.0);
        return Ok(pool.close()?);
    }
    let pool = stage.open()?;
    let main = file(&pool, "main")?;
    let map = stage.map(&main, 2 * SLOT)?;
    let (said, took) = faults(false, || Ok(refusal(map.require_huge(0, SLOT))))?;
    holds!(said == "it was granted", "beside a spoiled chunk, require_huge: {said}");
    one_each(stage, &took, 1)?;
    let (said, took) = faults(false, || Ok(refusal(map.require_huge(SLOT, SLOT))))?;
    holds!(said.contains("the system installed smaller ones"), "a spoiled chunk, require_huge: {said}");
    told(stage, "a chunk that somebody spoiled", &took, &map);
    for page in [0, 1, 511] {
        holds!(load(&map, SLOT + page * PAGE) == Ok(u64::from_ne_bytes([1; 8])), "page {page} is another");
    }
    Ok(())
}
