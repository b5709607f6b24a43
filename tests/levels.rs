//! Do writes keep the promises of their level of durability, without crashes?
//!
//! Content, sizes, reports and fences. What is left after a crash: `tests/crash_levels.rs`.

#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use daxstore::layout::Geometry;
use daxstore::pmem::sim::Sim;
use daxstore::{AllocateMode, Durability, Error, File, OpenOptions, State, Store, StoreOptions};
use proptest::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const SIZE: u64 = 256 << 20;

fn pool(level: Durability) -> Store {
    let sim = Arc::new(Sim::new(SIZE).unwrap());
    let store = Store::create_sim(sim, &StoreOptions::new().durability(level)).unwrap();
    // The bounds are not what is looked at here.
    store.set_ordered_bounds(u64::MAX, Duration::MAX).unwrap();
    store.create_dir("/warm", 0o755).unwrap();
    (0..64).for_each(|i| drop(store.create(format!("/warm/{i}")).unwrap()));
    store.remove_dir_all("/warm").unwrap();
    store
}

fn file(store: &Store, name: &str, blocks: usize) -> File {
    let file = store.create(name).unwrap();
    file.write_all_at(&vec![1; blocks * 4096], 0).unwrap();
    store.sync().unwrap();
    file
}

/// Fences and flushed lines of `f`, with empty lanes.
fn cost(store: &Store, f: impl FnOnce()) -> (u64, u64) {
    store.grow(SIZE).unwrap();
    let before = store.counts();
    f();
    let cost = store.counts().since(before);
    (cost.fences, cost.flushed_lines)
}

fn content(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; file.len() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn levels_are_named_inherited_and_kept() {
    let sim = Arc::new(Sim::new(64 << 20).unwrap());
    let store =
        Store::create_sim(sim.clone(), &StoreOptions::new().durability(Durability::AtomicData)).unwrap();
    assert_eq!(store.durability(), Durability::AtomicData);
    let plain = store.create("/plain").unwrap();
    assert_eq!((plain.durability(), plain.named_durability()), (Durability::AtomicData, None));
    store.create_dir("/d", 0o755).unwrap();
    store.open_dir("/d").unwrap().set_durability(Some(Durability::Ordered)).unwrap();
    store.create_dir("/d/e", 0o755).unwrap();
    let inherited = store.create("/d/e/f").unwrap();
    assert_eq!(inherited.named_durability(), Some(Durability::Ordered));
    let options = OpenOptions::new().write(true).create(true).durability(Durability::Strict);
    let own = store.open("/d/own", &options).unwrap();
    assert_eq!(own.durability(), Durability::Strict);
    own.set_durability(None).unwrap();
    assert_eq!((own.durability(), own.metadata().durability), (Durability::AtomicData, None));
    store.symlink("/d", "/l").unwrap();
    let link = store.open_node("/l", daxstore::Follow::No).unwrap();
    assert!(matches!(link.set_durability(Some(Durability::Strict)), Err(Error::NotRegular)));
    assert!(store.check().unwrap().is_clean());
    drop((plain, inherited, own, link));
    store.set_durability(Durability::Ordered).unwrap();
    store.close().unwrap();
    let store = Store::open_sim(sim).unwrap();
    assert_eq!(store.durability(), Durability::Ordered);
    assert_eq!(store.metadata("/d/e/f").unwrap().durability, Some(Durability::Ordered));
    assert_eq!(store.info().unwrap().durability, Durability::Ordered);
    for level in Durability::ALL {
        assert_eq!(Durability::of_name(level.name()), Some(level));
    }
}

#[test]
fn an_atomic_overwrite_costs_two_fences() {
    for level in [Durability::Strict, Durability::AtomicData] {
        let store = pool(level);
        let file = file(&store, "/f", 16);
        let write = |len: usize, at| cost(&store, || file.write_atomic(&vec![2; len], at).unwrap());
        assert_eq!(write(4096, 4096), (2, 0), "a block");
        assert_eq!(write(100, 30_000), (2, 0), "a part of a block");
        assert_eq!(write(20_000, 3000), (2, 0), "parts and blocks");
        assert_eq!(write(9000, 16 * 4096 - 100), (2, 0), "over the end");
        assert_eq!(write(9000, 50 * 4096 - 100), (2, 0), "past the end");
        let mut expected = vec![1; 16 * 4096];
        expected.resize(50 * 4096 + 8900, 0);
        let ranges =
            [(4096, 4096), (30_000, 100), (3000, 20_000), (16 * 4096 - 100, 9000), (50 * 4096 - 100, 9000)];
        ranges.into_iter().for_each(|(at, len)| expected[at..at + len].fill(2));
        assert!(content(&file) == expected);
        assert!(store.check().unwrap().is_clean());
    }
    let store = pool(Durability::AtomicData);
    let file = file(&store, "/f", 16);
    assert_eq!(
        cost(&store, || _ = file.write_at(&[3; 4096], 0).unwrap()),
        (2, 0),
        "an overwrite at the level"
    );
}

#[test]
fn an_atomic_write_that_is_too_long_changes_nothing() {
    let sim = Arc::new(Sim::new(16 << 20).unwrap());
    let geometry = Geometry { size: 16 << 20, lanes: 1, lane_bytes: 8192, arena_blocks: 1 };
    let store = Store::create_sim(sim, &StoreOptions::new().geometry(geometry)).unwrap();
    let file = store.create("/f").unwrap();
    let other = store.create("/g").unwrap();
    for i in 0..300 {
        file.write_all_at(&[1; 4096], i * 8192).unwrap();
        other.append(&[1; 4096]).unwrap();
    }
    let (free, before) = (store.statfs().free, content(&file));
    let result = file.write_atomic(&vec![2; 280 * 8192], 100);
    let Err(Error::NotAtOnce { len, fits }) = result else { panic!("{result:?}") };
    assert_eq!((len, store.statfs().free), (280 * 8192, free));
    assert!(content(&file) == before && fits > 0 && fits < len);
    file.set_durability(Some(Durability::AtomicData)).unwrap();
    assert!(matches!(file.write_at(&vec![2; 280 * 8192], 100), Err(Error::NotAtOnce { .. })));
    file.write_atomic(&vec![2; fits as usize], 100).unwrap();
    assert!(content(&file)[100..100 + fits as usize].iter().all(|byte| *byte == 2));
    assert!(store.check().unwrap().is_clean());
}

#[test]
fn a_commit_of_any_number_of_ordered_writes_costs_two_fences() {
    let store = pool(Durability::Ordered);
    let (f, g) = (file(&store, "/f", 16), file(&store, "/g", 16));
    let writes = || {
        for i in 0..200_u64 {
            f.append(&[2; 4096]).unwrap();
            g.append(&[3; 1000]).unwrap();
            g.write_all_at(&[4; 100], i * 7).unwrap();
        }
        f.write_all_at(&[5; 9000], 4000).unwrap();
    };
    assert_eq!(cost(&store, writes), (0, 0), "what waits costs nothing");
    assert_eq!((f.len(), g.len()), (216 * 4096, 16 * 4096 + 200_000));
    let before = (content(&f), content(&g));
    assert_eq!(cost_of_sync(&store, &f), 2);
    assert_eq!(cost_of_sync(&store, &f), 0, "nothing waits");
    assert!(before == (content(&f), content(&g)));
    let extents = f.extents(16 * 4096, 200 * 4096).unwrap();
    assert!(extents.len() <= 2, "a stream of appends is one extent: {extents:?}");
    assert!(store.check().unwrap().is_clean());
}

fn cost_of_sync(store: &Store, file: &File) -> u64 {
    let before = store.counts();
    file.sync_all().unwrap();
    store.counts().since(before).fences
}

#[test]
fn what_another_thread_wrote_is_flushed_and_fenced_once() {
    let store = pool(Durability::Ordered);
    let f = file(&store, "/f", 16);
    std::thread::scope(|threads| {
        threads.spawn(|| f.write_all_at(&[7; 8192], 4096).unwrap()).join().unwrap();
    });
    f.write_all_at(&[8; 4096], 0).unwrap();
    let before = store.counts();
    store.sync().unwrap();
    let cost = store.counts().since(before);
    assert_eq!((cost.fences, cost.flushed_lines), (2, 128), "the lines of the other thread's blocks");
}

#[test]
fn whatever_changes_the_pool_commits_what_waits_before() {
    let store = pool(Durability::Ordered);
    let f = file(&store, "/f", 16);
    let strict = file(&store, "/s", 4);
    strict.set_durability(Some(Durability::Strict)).unwrap();
    let fences = |what: &str, expected, change: &dyn Fn()| {
        f.write_all_at(&[2; 5000], 100).unwrap();
        let before = store.counts();
        change();
        assert_eq!(store.counts().since(before).fences, expected, "{what}");
        assert_eq!(cost_of_sync(&store, &f), 0, "{what}");
    };
    fences("create", 3, &|| drop(store.create("/n").unwrap()));
    fences("unlink", 3, &|| store.remove_file("/n").unwrap());
    fences("mkdir", 3, &|| store.create_dir("/n", 0o755).unwrap());
    fences("rename", 3, &|| store.rename("/n", "/m").unwrap());
    fences("rmdir", 3, &|| store.remove_dir("/m").unwrap());
    fences("link", 3, &|| store.hard_link("/f", "/m").unwrap());
    fences("truncate", 3, &|| strict.set_len(9000).unwrap());
    fences("punch", 3, &|| strict.allocate(0, 4096, AllocateMode::Punch).unwrap());
    fences("an overwrite in place", 3, &|| strict.write_all_at(&[2; 100], 4096).unwrap());
    fences("an atomic overwrite", 4, &|| strict.write_atomic(&[2; 100], 4096).unwrap());
    fences("setxattr", 3, &|| f.set_xattr("user.x", b"1", daxstore::XattrMode::Either).unwrap());
    fences("a level", 3, &|| f.set_durability(Some(Durability::Ordered)).unwrap());
    fences("opening", 2, &|| {
        drop(store.open("/f", &OpenOptions::new().read(true)).unwrap());
        f.sync_data().unwrap();
    });
    assert!(store.check().unwrap().is_clean());
}

#[test]
fn the_bounds_commit() {
    let store = pool(Durability::Ordered);
    let f = file(&store, "/f", 16);
    store.set_ordered_bounds(10_000, Duration::MAX).unwrap();
    let write = || f.write_all_at(&[2; 4096], 0).unwrap();
    let fences: Vec<_> = (0..6).map(|_| cost_in_place(&store, &write)).collect();
    assert_eq!(fences, [0, 0, 2, 0, 0, 2]);
    store.set_ordered_bounds(u64::MAX, Duration::from_millis(20)).unwrap();
    assert_eq!(cost_in_place(&store, &write), 0);
    std::thread::sleep(Duration::from_millis(30));
    assert_eq!(cost_in_place(&store, &write), 2, "with the first write after the time");
}

/// No further write comes, and the bound holds all the same for who has a timer.
#[test]
fn a_timer_keeps_the_bound_in_time() {
    let sim = Arc::new(Sim::new(64 << 20).unwrap());
    let store = Store::create_sim(sim.clone(), &StoreOptions::new().durability(Durability::Ordered)).unwrap();
    assert_eq!(store.sync_when_due().unwrap(), None, "nothing waits");
    let f = store.create("/f").unwrap();
    let durable = || Store::open_sim(Arc::new(sim.fork().unwrap())).unwrap().read("/f").unwrap();
    let bound = Duration::from_secs(3600);
    store.set_ordered_bounds(u64::MAX, bound).unwrap();
    f.write_all_at(&[1; 100], 0).unwrap();
    let cost = |f: &dyn Fn() -> Option<Duration>| {
        let before = store.counts();
        let left = f();
        (left, store.counts().since(before).fences)
    };
    let call = || store.sync_when_due().unwrap();
    let (left, fences) = cost(&call);
    let left = left.expect("something waits");
    assert!(left <= bound && left > bound / 2 && fences == 0, "{left:?}, {fences} fences");
    assert!(durable().is_empty());
    store.sync().unwrap();
    assert_eq!(cost(&call), (None, 0));

    let bound = Duration::from_millis(50);
    store.set_ordered_bounds(u64::MAX, bound).unwrap();
    f.write_all_at(&[2; 100], 0).unwrap();
    std::thread::sleep(bound);
    assert_eq!(cost(&call), (None, 2), "it is due");
    assert_eq!(durable(), [2; 100]);

    let stop = AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                std::thread::sleep(store.sync_when_due().unwrap().unwrap_or(bound));
            }
        });
        for round in 3..6 {
            f.write_all_at(&[round; 100], 0).unwrap();
            // Twice the bound, and as long again where others have the processor.
            let written = Instant::now();
            while durable() != [round; 100] {
                assert!(written.elapsed() < Duration::from_secs(20), "round {round}");
                std::thread::sleep(bound / 10);
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}

fn cost_in_place(store: &Store, f: &dyn Fn()) -> u64 {
    let before = store.counts();
    f();
    store.counts().since(before).fences
}

#[test]
fn reports_show_what_waits() {
    let store = pool(Durability::Ordered);
    let f = store.create("/f").unwrap();
    f.set_len(1 << 20).unwrap();
    f.write_all_at(&[1; 8192], 65536).unwrap();
    assert_eq!((f.seek_data(0).unwrap(), f.seek_hole(65536).unwrap()), (65536, 65536 + 8192));
    let extents = f.extents(0, 1 << 20).unwrap();
    let states: Vec<_> =
        extents.iter().map(|e| (e.range.offset, matches!(e.state, State::Mapped(_)))).collect();
    assert_eq!(states, [(0, false), (65536, true), (65536 + 8192, false)]);
    assert_eq!(f.metadata().blocks, 2);
    let before = f.metadata();
    store.sync().unwrap();
    assert_eq!(f.metadata(), before, "nothing that can be seen changes with the commit");
    assert_eq!(f.extents(0, 1 << 20).unwrap(), extents);
}

/// However full the pool is when ordered writes begin: one that finds no space says so and changes nothing, and what
/// was accepted is committed.
#[test]
fn no_space_is_an_answer_of_the_write_and_never_of_the_commit() {
    let geometry = Geometry { size: 8 << 20, lanes: 2, lane_bytes: 32 << 10, arena_blocks: 1 };
    let mut refused = 0;
    for spare in 0..24_u64 {
        let sim = Arc::new(Sim::new(8 << 20).unwrap());
        let store = Store::create_sim(sim.clone(), &StoreOptions::new().geometry(geometry)).unwrap();
        store.set_ordered_bounds(u64::MAX, Duration::MAX).unwrap();
        let file = file(&store, "/f", 300);
        let filler = store.create("/filler").unwrap();
        let mut blocks = store.statfs().free;
        while filler.allocate(0, blocks * 4096, AllocateMode::Allocate).is_err() {
            blocks -= 1;
        }
        filler.set_len((blocks - spare) * 4096).unwrap();
        file.set_durability(Some(Durability::Ordered)).unwrap();
        let mut model = content(&file);
        for i in 0..150_usize {
            // Every other block: each cuts an extent, and the tree grows.
            let (at, fill) = (i * 8192 % model.len() + i % 5, 2 + i as u8);
            match file.write_at(&[fill; 4096], at as u64) {
                Ok(wrote) => model[at..at + wrote].fill(fill),
                Err(Error::NoSpace { .. }) => refused += 1,
                Err(error) => panic!("{spare} spare, write {i}: {error}"),
            }
            if i % 40 == 39 {
                store.sync().unwrap_or_else(|error| panic!("{spare} spare, sync after {i}: {error}"));
            }
        }
        assert!(content(&file) == model, "{spare} spare");
        store.sync().unwrap();
        drop((file, filler));
        store.close().unwrap();
        let store = Store::open_sim(sim).unwrap();
        assert!(store.read("/f").unwrap() == model && store.check().unwrap().is_clean(), "{spare} spare");
    }
    assert!(refused > 0, "the pool was full now and then");
}

/// Writers of files of their own and of one file together, at all levels, while others sync, read and make names.
#[test]
fn threads_write_at_all_levels_while_others_sync() {
    let store = pool(Durability::Ordered);
    let shared = file(&store, "/shared", 16);
    let stop = std::sync::atomic::AtomicBool::new(false);
    let is_over = || stop.load(std::sync::atomic::Ordering::Relaxed);
    std::thread::scope(|threads| {
        let writers: Vec<_> = (0..3_u64)
            .map(|me| {
                let (store, shared) = (&store, &shared);
                threads.spawn(move || {
                    let file = store.create(format!("/{me}")).unwrap();
                    let mut model = Vec::new();
                    for round in 0..400_u64 {
                        let fill = (round % 250) as u8 + 1;
                        let len = (round * 977 % 9000) as usize + 1;
                        if round % 3 == 0 {
                            let at = (round * 131 % (model.len() as u64 + 1)) as usize;
                            file.write_all_at(&vec![fill; len], at as u64).unwrap();
                            model.resize(model.len().max(at + len), 0);
                            model[at..at + len].fill(fill);
                        } else {
                            assert_eq!(file.append(&vec![fill; len]).unwrap(), model.len() as u64);
                            model.resize(model.len() + len, fill);
                        }
                        // A block of one byte: never seen in part.
                        shared.write_all_at(&[fill; 4096], (round + me) % 16 * 4096).unwrap();
                        match round % 40 {
                            7 => {
                                file.set_durability(Some(Durability::ALL[(round / 40 % 3) as usize])).unwrap()
                            }
                            20 => {
                                file.write_atomic(&[fill; 100], 0).map(|()| model[..100].fill(fill)).unwrap()
                            }
                            30 => store.sync().unwrap(),
                            _ => {}
                        }
                        assert_eq!(file.len(), model.len() as u64);
                    }
                    assert!(content(&file) == model);
                    (me, model)
                })
            })
            .collect();
        threads.spawn(|| {
            let mut block = [0; 4096];
            for round in (0..u64::MAX).take_while(|_| !is_over()) {
                shared.read_exact_at(&mut block, round % 16 * 4096).unwrap();
                assert!(block.iter().all(|byte| *byte == block[0]), "a block is seen as a whole");
                if round % 64 == 0 {
                    drop(store.create("/name").unwrap());
                    store.remove_file("/name").unwrap();
                }
            }
        });
        let done: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        for (me, model) in done.into_iter().map(|done| done.unwrap()) {
            assert!(store.read(format!("/{me}")).unwrap() == model);
        }
    });
    drop(shared);
    assert!(store.check().unwrap().is_clean());
}

#[derive(Clone, Debug)]
enum Step {
    Write { file: usize, at: u64, len: u64, fill: u8 },
    Append { file: usize, len: u64, fill: u8 },
    Atomic { file: usize, at: u64, len: u64, fill: u8 },
    Cut { file: usize, len: u64 },
    Allocate { file: usize, at: u64, len: u64, mode: AllocateMode },
    Level { file: usize, level: Option<Durability> },
    Remove { file: usize },
    Defrag { file: usize },
    Sync,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let file = 0..3_usize;
    let at = prop_oneof![0..40_u64 * 4096, (0..40_u64).prop_map(|block| block * 4096)];
    let len = || prop_oneof![1..9000_u64, (1..5_u64).prop_map(|blocks| blocks * 4096), 1..200_000_u64];
    let level = prop::sample::select(vec![
        None,
        Some(Durability::Strict),
        Some(Durability::AtomicData),
        Some(Durability::Ordered),
        Some(Durability::Ordered),
    ]);
    let mode = prop::sample::select(vec![
        AllocateMode::Allocate,
        AllocateMode::KeepSize,
        AllocateMode::Punch,
        AllocateMode::Zero,
    ]);
    prop_oneof![
        12 => (file.clone(), at.clone(), len(), 1..=255_u8)
            .prop_map(|(file, at, len, fill)| Step::Write { file, at, len, fill }),
        8 => (file.clone(), len(), 1..=255_u8).prop_map(|(file, len, fill)| Step::Append { file, len, fill }),
        4 => (file.clone(), at.clone(), len(), 1..=255_u8)
            .prop_map(|(file, at, len, fill)| Step::Atomic { file, at, len, fill }),
        2 => (file.clone(), at.clone()).prop_map(|(file, len)| Step::Cut { file, len }),
        2 => (file.clone(), at, len(), mode)
            .prop_map(|(file, at, len, mode)| Step::Allocate { file, at, len, mode }),
        2 => (file.clone(), level).prop_map(|(file, level)| Step::Level { file, level }),
        1 => file.clone().prop_map(|file| Step::Remove { file }),
        1 => file.prop_map(|file| Step::Defrag { file }),
        2 => Just(Step::Sync),
        1 => Just(Step::Reopen),
    ]
}

/// Files as bytes in memory, beside a store.
struct Pair {
    sim: Arc<Sim>,
    store: Store,
    open: Vec<File>,
    models: [Vec<u8>; 3],
}

impl Pair {
    fn new(size: u64, geometry: Option<Geometry>) -> Self {
        let sim = Arc::new(Sim::new(size).unwrap());
        let mut options = StoreOptions::new().durability(Durability::Ordered);
        if let Some(geometry) = geometry {
            options = options.geometry(geometry);
        }
        let store = Store::create_sim(sim.clone(), &options).unwrap();
        let mut pair = Self { sim, store, open: Vec::new(), models: Default::default() };
        pair.open_all();
        pair
    }

    fn open_all(&mut self) {
        let options = OpenOptions::new().read(true).write(true).create(true);
        self.open = (0..3).map(|file| self.store.open(format!("/{file}"), &options).unwrap()).collect();
    }

    /// Whether `result` says that it was done; no space is an answer.
    fn done(result: Result<(), Error>) -> bool {
        match result {
            Ok(()) => true,
            Err(Error::NoSpace { .. } | Error::NotAtOnce { .. } | Error::TooBig { .. }) => false,
            Err(error) => panic!("{error}"),
        }
    }

    fn put(&mut self, file: usize, at: u64, len: u64, fill: u8) {
        let model = &mut self.models[file];
        model.resize(model.len().max((at + len) as usize), 0);
        model[at as usize..][..len as usize].fill(fill);
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Write { file, at, len, fill } => {
                match self.open[file].write_at(&vec![fill; len as usize], at) {
                    Ok(wrote) => self.put(file, at, wrote as u64, fill),
                    Err(error) => assert!(!Self::done(Err(error))),
                }
            }
            Step::Append { file, len, fill } => match self.open[file].append(&vec![fill; len as usize]) {
                Ok(at) => {
                    assert_eq!(at, self.models[file].len() as u64);
                    self.put(file, at, len, fill);
                }
                Err(error) => assert!(!Self::done(Err(error))),
            },
            Step::Atomic { file, at, len, fill } => {
                if Self::done(self.open[file].write_atomic(&vec![fill; len as usize], at)) {
                    self.put(file, at, len, fill);
                }
            }
            Step::Cut { file, len } => {
                self.open[file].set_len(len).unwrap();
                self.models[file].resize(len as usize, 0);
            }
            Step::Allocate { file, at, len, mode } => self.allocate(file, at, len, mode),
            Step::Level { file, level } => self.open[file].set_durability(level).unwrap(),
            Step::Remove { file } => {
                self.open.clear();
                self.store.remove_file(format!("/{file}")).unwrap();
                self.models[file].clear();
                self.open_all();
            }
            Step::Defrag { file } => drop(self.open[file].defrag().unwrap()),
            Step::Sync => self.store.sync().unwrap(),
            Step::Reopen => {
                self.open.clear();
                let sim = self.sim.clone();
                let old = std::mem::replace(
                    &mut self.store,
                    Store::create_sim(small(), &StoreOptions::new()).unwrap(),
                );
                old.close().unwrap();
                self.store = Store::open_sim(sim).unwrap();
                self.open_all();
            }
        }
    }

    fn allocate(&mut self, file: usize, at: u64, len: u64, mode: AllocateMode) {
        if !Self::done(self.open[file].allocate(at, len, mode)) {
            return;
        }
        let model = &mut self.models[file];
        if matches!(mode, AllocateMode::Allocate | AllocateMode::Zero) {
            model.resize(model.len().max((at + len) as usize), 0);
        }
        if matches!(mode, AllocateMode::Punch | AllocateMode::Zero) {
            let size = model.len();
            model[size.min(at as usize)..size.min((at + len) as usize)].fill(0);
        }
    }

    fn compare(&self, check: bool) {
        for (file, model) in self.open.iter().zip(&self.models) {
            assert_eq!(file.len(), model.len() as u64);
            let found = content(file);
            let differs = found.iter().zip(model).position(|(a, b)| a != b);
            assert_eq!(differs, None, "the first byte that differs");
        }
        if check {
            let report = self.store.check().unwrap();
            assert!(report.is_clean(), "{:?}", report.faults.first());
        }
    }
}

fn small() -> Arc<Sim> {
    Arc::new(Sim::new(8 << 20).unwrap())
}

fn agree(size: u64, geometry: Option<Geometry>, steps: &[Step]) {
    let mut pair = Pair::new(size, geometry);
    for (number, step) in steps.iter().enumerate() {
        pair.take(step);
        pair.compare(number % 8 == 7);
    }
    pair.compare(true);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(60) })]

    #[test]
    fn files_hold_what_was_written_at_every_level(steps in prop::collection::vec(step(), 1..80)) {
        agree(64 << 20, None, &steps);
    }

    #[test]
    fn on_a_small_pool_with_small_lanes_too(steps in prop::collection::vec(step(), 1..80)) {
        let geometry = Geometry { size: 8 << 20, lanes: 2, lane_bytes: 8192, arena_blocks: 1 };
        agree(8 << 20, Some(geometry), &steps);
    }
}
