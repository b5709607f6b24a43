//! Do a directory of a million names and a file of a million extents cost what small ones do?
//!
//! Times are not asserted: counted are the nodes on the way to a record, fences, and bytes stored. The pools are of
//! 32 GiB; what is never touched of them costs no memory.

#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use daxstore::error::Result;
use daxstore::journal::Journal;
use daxstore::layout::{Image, Inode, Kind};
use daxstore::pmem::sim::Sim;
use daxstore::pmem::{Counts, Region};
use daxstore::tree::{self, ReadNodes};
use daxstore::units::{Ino, PoolOff};
use daxstore::{AllocateMode, Error, File, OpenOptions, State, Store, StoreOptions};
use std::cell::Cell;
use std::collections::HashSet;
use std::ffi::OsString;
use std::sync::Arc;

const SIZE: u64 = 32 << 30;
const MILLION: u64 = 1_000_000;
const BLOCK: u64 = 4096;

fn pool() -> (Arc<Sim>, Store) {
    let sim = Arc::new(Sim::new(SIZE).unwrap());
    let store = Store::create_sim(sim.clone(), &StoreOptions::new()).unwrap();
    (sim, store)
}

/// Numbers below `bound` that look random and are the same every time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    /// `count` different ones.
    fn different(&mut self, count: usize, bound: u64) -> Vec<u64> {
        let mut seen = HashSet::new();
        std::iter::repeat_with(|| self.below(bound)).filter(|n| seen.insert(*n)).take(count).collect()
    }
}

/// What `count` calls of `f` cost together.
fn cost(store: &Store, count: u64, mut f: impl FnMut(u64)) -> Counts {
    let before = store.counts();
    (0..count).for_each(&mut f);
    store.counts().since(before)
}

/// That `late` is less than twice `early`, in everything that is counted.
fn assert_alike(what: &str, early: Counts, late: Counts) {
    let twice = |early: u64, late: u64| late < 2 * early.max(16);
    let alike = twice(early.fences, late.fences)
        && twice(early.nt_bytes, late.nt_bytes)
        && twice(early.flushed_lines, late.flushed_lines);
    assert!(alike, "{what}: {early:?}, then {late:?}");
}

/// Reads nodes of a closed pool and counts them.
struct Nodes {
    journal: Journal,
    read: Cell<u64>,
}

impl ReadNodes for Nodes {
    fn read_node(&self, at: PoolOff) -> Result<Image> {
        self.read.set(self.read.get() + 1);
        self.journal.read(at, Kind::Node)
    }
}

/// The most nodes that are read to find a record of the tree of inode `ino`, in a closed pool.
fn nodes_on_the_way(sim: &Arc<Sim>, ino: Ino, last_key: u64) -> u64 {
    let journal = Journal::open_read_only(Arc::new(Region::sim(sim.clone()))).unwrap();
    let image = journal.read(ino.offset(), Kind::Inode).unwrap();
    let inode = Inode::decode(ino.offset(), &image).unwrap().unwrap();
    let nodes = Nodes { journal, read: Cell::new(0) };
    let mut numbers = Numbers(3);
    let mut most = 0;
    for _ in 0..1000 {
        let key = numbers.below(1 << 31) * (last_key >> 31).max(1) % last_key;
        nodes.read.set(0);
        tree::get(&nodes, &inode.root, ino, key).unwrap();
        most = most.max(nodes.read.get());
    }
    assert_eq!(most, u64::from(inode.root.level));
    most
}

/// Opens a pool that was left as a process that died leaves it; that work is bounded by the lanes.
fn open_after_death(sim: &Arc<Sim>, intents: u64) -> Store {
    let store = Store::open_sim(sim.clone()).unwrap();
    let geometry = store.info().unwrap().geometry;
    let journal = u64::from(geometry.lanes) * u64::from(geometry.lane_bytes);
    let recovery = store.recovery();
    // A record is at least two lines; an object in it at least 24 bytes.
    assert!(recovery.records > 0 && recovery.records <= journal / 128, "{recovery:?}");
    assert!(recovery.objects > 0 && recovery.objects <= journal / 24, "{recovery:?}");
    assert_eq!(recovery.intents, intents, "{recovery:?}");
    // Each object is written home and flushed, and both superblocks twice at most.
    let counts = store.counts();
    assert!(counts.flushed_lines <= recovery.objects * 9 + 256, "{counts:?}, {recovery:?}");
    assert!(counts.nt_bytes <= journal + (64 << 10), "{counts:?}");
    assert!(counts.fences <= 16, "{counts:?}");
    store
}

fn name(i: u64) -> String {
    format!("entry-{i:07}")
}

/// The names from a cursor on.
fn names(store: &Store, cursor: u64) -> impl Iterator<Item = (OsString, u64)> + use<> {
    store.open_dir("/many").unwrap().read_dir_from(cursor).map(|entry| {
        let entry = entry.unwrap();
        (entry.name, entry.next)
    })
}

fn every_name_once(store: &Store, expected: u64) {
    let found: Vec<_> = names(store, 0).map(|(name, _)| name).collect();
    assert_eq!(found.len() as u64, expected);
    assert_eq!(found.into_iter().collect::<HashSet<_>>().len() as u64, expected);
}

/// Goes on from a cursor in the middle, while names before and after it come and go.
fn resume_in_the_middle(store: &Store) {
    let (mut seen, mut cursor) = (HashSet::new(), 0);
    for (name, next) in names(store, 0).take(400_000) {
        seen.insert(name);
        cursor = next;
    }
    let many = store.open_dir("/many").unwrap();
    let mut numbers = Numbers(5);
    let gone: HashSet<OsString> =
        numbers.different(500, MILLION).into_iter().map(|i| OsString::from(name(i))).collect();
    gone.iter().for_each(|name| many.remove_file(name).unwrap());
    let fresh: HashSet<OsString> = (0..500).map(|i| OsString::from(format!("fresh-{i}"))).collect();
    fresh.iter().for_each(|name| many.hard_link("/file", name).unwrap());
    let stood: u64 = seen.len() as u64;
    let rest: Vec<_> = names(store, cursor).map(|(name, _)| name).collect();
    let skipped = gone.iter().filter(|name| !seen.contains(*name)).count() as u64;
    let added = rest.iter().filter(|name| fresh.contains(*name)).count() as u64;
    assert!(rest.iter().all(|name| !gone.contains(name)), "a name that was removed before");
    assert!(added > 0 && skipped > 0);
    assert_eq!(stood + rest.len() as u64, MILLION - skipped + added);
    assert!(rest.into_iter().all(|name| seen.insert(name)), "a name twice");
    fresh.iter().for_each(|name| many.remove_file(name).unwrap());
    gone.iter().for_each(|name| many.hard_link("/file", name).unwrap());
}

#[test]
fn a_directory_of_a_million_names_costs_what_a_small_one_does() {
    let (sim, store) = pool();
    drop(store.create("/file").unwrap());
    store.create_dir("/many", 0o755).unwrap();
    let many = store.open_dir("/many").unwrap();
    let link = |i: u64| many.hard_link("/file", name(i)).unwrap();
    (0..1000).for_each(link);
    let early = cost(&store, 1000, |i| link(1000 + i));
    (2000..MILLION - 1000).for_each(link);
    let late = cost(&store, 1000, |i| link(MILLION - 1000 + i));
    assert_alike("inserts", early, late);
    let ino = store.metadata("/many").unwrap().ino;
    // A process that dies closes nothing.
    std::mem::forget((many, store));

    let store = open_after_death(&sim, 0);
    let many = store.open_dir("/many").unwrap();
    assert_eq!(many.metadata("/file").unwrap().links as u64, MILLION + 1);
    let picked = Numbers(1).different(1000, MILLION);
    let cold = cost(&store, 1000, |i| assert!(many.exists(name(picked[i as usize])).unwrap()));
    assert_eq!(cold, Counts::default(), "lookups store nothing");
    assert!(!many.exists(name(MILLION)).unwrap());
    let removed = cost(&store, 1000, |i| many.remove_file(name(picked[i as usize])).unwrap());
    assert!(picked.iter().all(|i| !many.exists(name(*i)).unwrap()));
    let inserted = cost(&store, 1000, |i| many.hard_link("/file", name(picked[i as usize])).unwrap());
    assert_alike("cold inserts", early, inserted);
    assert_alike("cold removals", early, removed);
    every_name_once(&store, MILLION);
    resume_in_the_middle(&store);
    drop(many);
    store.close().unwrap();
    // Keys are 63 bits of a name's hash and its number.
    assert!(nodes_on_the_way(&sim, ino, u64::MAX >> 1) <= 6);
}

/// A file of `extents` extents of a block with holes of a block between them.
fn broken_file(store: &Store, path: &str, extents: u64) -> File {
    let file = store.create(path).unwrap();
    file.allocate(0, 2 * extents * BLOCK, AllocateMode::Allocate).unwrap();
    for i in 0..extents {
        file.allocate((2 * i + 1) * BLOCK, BLOCK, AllocateMode::Punch).unwrap();
    }
    file
}

/// Reads, writes, seeks and asks for extents at 1000 random places; what the writes into unwritten blocks, those into
/// holes, and the overwrites cost.
fn use_at_random(store: &Store, file: &File, extents: u64) -> [Counts; 3] {
    let places = Numbers(9).different(1000, extents - 1);
    let at = |i: u64| places[i as usize] * 2 * BLOCK;
    let looks = cost(store, 1000, |i| {
        let mut buf = [7; 3 * BLOCK as usize];
        file.read_exact_at(&mut buf, at(i)).unwrap();
        assert!(buf.iter().all(|byte| *byte == 0));
        assert_eq!(file.seek_hole(at(i)).unwrap(), at(i));
        let runs = file.extents(at(i), 3 * BLOCK).unwrap();
        let kinds = runs.iter().map(|run| (run.range.len, run.state.address().is_some()));
        assert!(kinds.eq([(BLOCK, true), (BLOCK, false), (BLOCK, true)]), "{runs:?}");
    });
    assert_eq!(looks, Counts::default(), "who only looks stores nothing");
    let filled = cost(store, 1000, |i| file.write_all_at(&[1; BLOCK as usize], at(i)).unwrap());
    for i in 0..1000 {
        assert_eq!(file.seek_data(at(i)).unwrap(), at(i));
        assert_eq!(file.seek_hole(at(i)).unwrap(), at(i) + BLOCK);
        let run = file.extents(at(i), BLOCK).unwrap();
        assert!(run.len() == 1 && matches!(run[0].state, State::Mapped(_)), "{run:?}");
    }
    let holes = cost(store, 1000, |i| file.write_all_at(&[2; BLOCK as usize], at(i) + BLOCK).unwrap());
    let over = cost(store, 1000, |i| file.write_all_at(&[3; 2 * BLOCK as usize], at(i)).unwrap());
    let mut buf = [0; 2 * BLOCK as usize];
    for i in 0..1000 {
        file.read_exact_at(&mut buf, at(i)).unwrap();
        assert_eq!(buf, [3; 2 * BLOCK as usize]);
    }
    [filled, holes, over]
}

#[test]
fn a_file_of_a_million_extents_costs_what_a_small_one_does() {
    let (sim, store) = pool();
    drop(store.create("/warm").unwrap());
    let free = store.statfs().free;
    let small = broken_file(&store, "/small", 2000);
    let early = use_at_random(&store, &small, 2000);
    drop(small);
    store.remove_file("/small").unwrap();
    drop(broken_file(&store, "/broken", MILLION));
    std::mem::forget(store);

    let store = open_after_death(&sim, 0);
    let options = OpenOptions::new().read(true).write(true);
    let file = store.open("/broken", &options).unwrap();
    assert_eq!(file.metadata().blocks, MILLION);
    let late = use_at_random(&store, &file, MILLION);
    for (what, early, late) in
        [("filled", 0), ("holes", 1), ("overwritten", 2)].map(|(w, i)| (w, early[i], late[i]))
    {
        assert_alike(what, early, late);
    }
    let ino = file.metadata().ino;
    drop(file);
    store.close().unwrap();
    assert!(nodes_on_the_way(&sim, ino, 2 * MILLION) <= 6);

    let store = Store::open_sim(sim.clone()).unwrap();
    let file = store.open("/broken", &options).unwrap();
    file.set_len(0).unwrap();
    assert_eq!(file.metadata().blocks, 0);
    assert!(matches!(file.seek_data(0), Err(Error::NoSuchOffset)));
    file.close().unwrap();
    store.remove_file("/broken").unwrap();
    store.reclaim().unwrap();
    let space = store.info().unwrap().space;
    let arenas = space.inode_arena_blocks + space.node_arena_blocks;
    assert!(
        store.statfs().free <= free && free - store.statfs().free <= arenas,
        "{} of {free}",
        store.statfs().free
    );
    assert!(store.check().unwrap().faults.is_empty());
}
