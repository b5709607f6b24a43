//! The stress where everything is 2 MiB.
//!
//! Owners have slots of one file each, store tags into all of them by two mappings, punch, zero and write them whole, and know
//! what is there; the file's end moves by slots behind them, another file takes what they give and looks after its bytes, and
//! translations are given up, synced and installed.

use super::world::{MAIN, Random, THIEF, tag};
use crate::Result;
use crate::mapping::{PAGE, SLOT, Stage, file, holds, load, store};
use daxstore::{AllocateMode, File, Store};
use daxstore_fault::{Advice, Count, Mapping};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const OWNERS: u64 = 3;
const SLOTS: u64 = 6;
/// Slots behind those, which come and go with the end.
const TAIL: u64 = 2;

struct World {
    pool: Store,
    file: File,
    maps: [Mapping; 2],
    stop: AtomicBool,
    steps: AtomicU64,
}

impl World {
    fn goes_on(&self) -> bool {
        self.steps.fetch_add(1, Ordering::Relaxed);
        !self.stop.load(Ordering::Relaxed)
    }

    /// What is to be known of a page that holds something else.
    fn report(
        &self,
        me: u64,
        map: &Mapping,
        at: u64,
        page: u64,
        found: std::result::Result<u64, i32>,
        expected: u64,
    ) -> String {
        let again = load(map, at + page);
        let file = crate::mapping::word(&self.file, at + page).ok();
        let entries = self.maps.each_ref().map(|map| map.installed(at, SLOT).ok());
        let others = self.maps.each_ref().map(|map| load(map, at + page));
        let first = map.as_ptr().expose_provenance() as u64 + at;
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
        let line = maps.lines().find(|line| {
            let hex = |text: &str| u64::from_str_radix(text, 16).unwrap_or(0);
            let (from, to) =
                line.split(' ').next().and_then(|range| range.split_once('-')).unwrap_or_default();
            (hex(from)..hex(to)).contains(&first)
        });
        format!(
            "owner {me} at {:#x}: {found:x?}, not {expected:x}; again {again:x?}, read {file:x?}, by both {others:x?}, \
             {entries:x?}, {line:?}, last {:?}",
            at + page,
            LAST.with(std::cell::Cell::get)
        )
    }

    fn map(&self, random: &mut Random) -> &Mapping {
        &self.maps[random.below(2) as usize]
    }
}

thread_local! {
    /// What the owner did last.
    static LAST: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// Runs it for `time`.
pub fn run(stage: &Stage, time: Duration) -> Result<()> {
    let pool = stage.create()?;
    let main = file(&pool, "main")?;
    let len = (SLOTS + TAIL) * SLOT;
    main.set_len(len)?;
    let maps = [stage.map(&main, len)?, stage.map(&main, len)?];
    let (stop, steps) = (AtomicBool::new(false), AtomicU64::new(0));
    let world = World { pool, file: main, maps, stop, steps };
    let stopping = |done: Result<()>| {
        if done.is_err() {
            world.stop.store(true, Ordering::Relaxed);
        }
        done
    };
    std::thread::scope(|scope| -> Result<()> {
        let (world, stopping) = (&world, &stopping);
        let mut all: Vec<_> = (0..OWNERS).map(|me| scope.spawn(move || stopping(owner(world, me)))).collect();
        all.push(scope.spawn(move || stopping(tail(world))));
        all.push(scope.spawn(move || stopping(thief(world))));
        all.push(scope.spawn(move || stopping(keeper(world))));
        let begun = Instant::now();
        while begun.elapsed() < time && !world.stop.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(20));
        }
        world.stop.store(true, Ordering::Relaxed);
        all.into_iter().try_for_each(|thread| thread.join().map_err(|_| "a thread panicked")?)
    })?;
    let World { pool, maps, steps, .. } = world;
    let pmd: u64 = maps.iter().map(|map| map.stats().get(Count::Pmd)).sum();
    maps.into_iter().try_for_each(Mapping::close)?;
    holds!(pool.check()?.is_clean(), "the pool is not clean");
    println!("note: {:?}, stress by slots: {} steps, {pmd} Pmd", stage.mode, steps.into_inner());
    Ok(())
}

/// A page of a slot, its first and last more often.
fn page(random: &mut Random) -> u64 {
    let any = random.below(512);
    PAGE * [0, 511, any, any][random.below(4) as usize]
}

fn owner(world: &World, me: u64) -> Result<()> {
    let mut random = Random::new(100 + me);
    let mut words = vec![[0_u64; 512]; SLOTS as usize];
    let mut seq = 0;
    while world.goes_on() {
        let slot = random.below(SLOTS / OWNERS) * OWNERS + me;
        let known = &mut words[slot as usize];
        let at = slot * SLOT;
        seq += 1;
        let word = tag(MAIN, me, seq);
        let op = random.below(16);
        LAST.with(|last| last.set(op));
        match op {
            0 => {
                world.file.allocate(at, SLOT, AllocateMode::Punch)?;
                known.fill(0);
            }
            1 => {
                world.file.allocate(at, SLOT, AllocateMode::Zero)?;
                known.fill(0);
            }
            2 => {
                world.file.write_all_at(&word.to_ne_bytes().repeat(SLOT as usize / 8), at)?;
                known.fill(word);
            }
            3 => {
                let page = page(&mut random);
                // Only where the slot has its blocks: else it would be in pieces.
                if world.file.seek_data(at).is_ok_and(|data| data == at) {
                    world.file.write_all_at(&word.to_ne_bytes(), at + page)?;
                    known[(page / PAGE) as usize] = word;
                }
            }
            4..10 => {
                let page = page(&mut random);
                let stored = store(world.map(&mut random), at + page, word);
                holds!(stored == Ok(()), "owner {me}: a store to {:#x}: {stored:?}", at + page);
                known[(page / PAGE) as usize] = word;
            }
            _ => {}
        }
        for _ in 0..4 {
            let page = page(&mut random);
            let expected = known[(page / PAGE) as usize];
            let map = world.map(&mut random);
            let found = load(map, at + page);
            if found != Ok(expected) {
                return Err(world.report(me, map, at, page, found, expected).into());
            }
        }
    }
    Ok(())
}

fn tail(world: &World) -> Result<()> {
    let mut random = Random::new(77);
    let mut seq = 0;
    while world.goes_on() {
        let slots = SLOTS + random.below(TAIL + 1);
        world.file.set_len(slots * SLOT)?;
        for slot in SLOTS..SLOTS + TAIL {
            let at = slot * SLOT + page(&mut random);
            let found = load(world.map(&mut random), at);
            if slot >= slots {
                holds!(found == Err(libc::SIGBUS), "the tail at {at:#x} behind the end: {found:x?}");
                continue;
            }
            let ok = found.is_ok_and(|word| word == 0 || word >> 52 == tag(MAIN, 9, 0) >> 52);
            holds!(ok, "the tail at {at:#x}: {found:x?}");
            seq += 1;
            let stored = store(world.map(&mut random), at, tag(MAIN, 9, seq));
            let found = load(world.map(&mut random), at);
            holds!(stored.is_ok() && found == Ok(tag(MAIN, 9, seq)), "the tail at {at:#x}: {found:x?}");
        }
    }
    Ok(())
}

fn thief(world: &World) -> Result<()> {
    let mut random = Random::new(78);
    let mut seq = 0;
    while world.goes_on() {
        let other = file(&world.pool, "thief")?;
        seq += 1;
        let word = tag(THIEF, 0, seq).to_ne_bytes();
        let len = (1 + random.below(2 * 512)) * PAGE;
        other.write_all_at(&word.repeat(len as usize / 8), 0)?;
        std::thread::sleep(Duration::from_millis(random.below(20)));
        let mut found = vec![0; len as usize];
        other.read_exact_at(&mut found, 0)?;
        let bad = found.chunks_exact(8).position(|chunk| chunk != word);
        holds!(bad.is_none(), "the thief's word {bad:?} is another's");
        drop(other);
        world.pool.remove_file("thief")?;
    }
    Ok(())
}

fn keeper(world: &World) -> Result<()> {
    let mut random = Random::new(79);
    while world.goes_on() {
        let map = world.map(&mut random);
        let at = random.below(SLOTS) * SLOT;
        match random.below(5) {
            0 => _ = map.sync(at, SLOT)?,
            1 => map.advise(at, SLOT, Advice::DontNeed)?,
            2 => _ = map.prefault(at, SLOT, random.once_in(2)),
            3 => _ = world.file.defrag_range(at, SLOT)?,
            _ => std::thread::sleep(Duration::from_millis(random.below(10))),
        }
    }
    Ok(())
}
