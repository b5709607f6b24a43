//! Does each path say "no space" at whichever of its reservations there is none, and leave everything as it was?
//!
//! Every reservation of blocks, chunks and slots that a call makes finds no space in turn, alone and with all that follow. The
//! answer is `NoSpace` or what the call does anyway; the files hold what they held, or what the call promises of a part; `check` is
//! clean, nothing reserved stays behind, and the same call succeeds afterwards.

#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::crash::{POOL_BYTES, check, tiny};
use common::ops::BLOCK;
use daxstore::alloc::shortage::{self, Shortage};
use daxstore::iomap::{FaultOps, FileRange, Placement};
use daxstore::pmem::mutation::{self, Mutation};
use daxstore::pmem::sim::Sim;
use daxstore::{
    AllocateMode, Durability, Error, File, IoQueue, IoQueueOptions, IoRequest, OpenOptions, Result, Store,
    StoreOptions, XattrMode,
};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

const CHUNK: u64 = 2 << 20;

/// What a call that failed may leave.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leaves {
    /// What was there before.
    Before,
    /// That, or what the call makes: it waits, or only what comes after it failed.
    BeforeOrAfter,
}

struct Case {
    name: &'static str,
    leaves: Leaves,
    call: fn(&Store) -> Result<()>,
}

const fn case(name: &'static str, call: fn(&Store) -> Result<()>) -> Case {
    Case { name, leaves: Leaves::Before, call }
}

fn open(store: &Store, name: &str) -> Result<File> {
    store.open(name, &OpenOptions::new().read(true).write(true))
}

fn bytes(blocks: u64, fill: u8) -> Vec<u8> {
    vec![fill; (blocks * BLOCK) as usize]
}

fn write(store: &Store, name: &str, at: u64, bytes: &[u8]) -> Result<()> {
    open(store, name)?.write_all_at(bytes, at)
}

fn allocate(store: &Store, name: &str, at: u64, blocks: u64, mode: AllocateMode) -> Result<()> {
    open(store, name)?.allocate(at, blocks * BLOCK, mode)
}

/// A queued write, driven by this thread.
fn queued(store: &Store, name: &str, requests: &[(u64, u64)]) -> Result<()> {
    let file = open(store, name)?;
    let queue = IoQueue::new(store, IoQueueOptions::new().workers(0).part_bytes(2 * BLOCK));
    let submit = |(at, blocks): &(u64, u64)| {
        queue.submit(&file, IoRequest::write(at * BLOCK, vec![bytes(*blocks, 9)]))
    };
    let tickets: Vec<_> = requests.iter().map(submit).collect();
    while queue.step() {}
    tickets.into_iter().map(|ticket| ticket.wait().result.map(drop)).fold(Ok(()), Result::and)
}

fn populate(store: &Store, at: u64, len: u64, placement: Placement) -> Result<()> {
    let range = FileRange { offset: at * BLOCK, len: len * BLOCK };
    open(store, "large")?.populate(range, placement).map(drop)
}

/// A prepared pool: a file in pieces, files whose next extent needs a node, shared blocks, a file of each other kind.
fn prepare() -> Arc<Sim> {
    let sim = Arc::new(Sim::new(POOL_BYTES).unwrap());
    let store = Store::create_sim(sim.clone(), &StoreOptions::new().geometry(tiny(1, 32768))).unwrap();
    let pieces = store.create("pieces").unwrap();
    (0..120).step_by(2).for_each(|block| pieces.write_all_at(&bytes(1, 1), block * BLOCK).unwrap());
    pieces.allocate(131 * BLOCK, 9 * BLOCK, AllocateMode::Allocate).unwrap();
    store.write("whole", &bytes(12, 2)[100..]).unwrap();
    store.reflink("whole", "shares").unwrap();
    for (name, written) in [("full", true), ("also-full", true), ("asked", false)] {
        let file = store.create(name).unwrap();
        // So that nothing is reserved ahead, which would have made nodes already.
        file.set_len(48 * BLOCK).unwrap();
        for i in 0..6 {
            match written {
                true => file.write_all_at(&bytes(4, 6), 8 * i * BLOCK).unwrap(),
                false => file.allocate(8 * i * BLOCK, 4 * BLOCK, AllocateMode::Allocate).unwrap(),
            }
        }
    }
    let large = store.create("large").unwrap();
    large.set_len(2 * CHUNK).unwrap();
    large.write_all_at(&[3], CHUNK).unwrap();
    let ordered = OpenOptions::new().write(true).create_new(true).durability(Durability::Ordered);
    store.open("ordered", &ordered).unwrap().write_all_at(&bytes(3, 4), 0).unwrap();
    let sequential = OpenOptions::new().write(true).create_new(true).sequential(true);
    store.open("sequential", &sequential).unwrap().append(&[5; 6000]).unwrap();
    store.create_dir("d", 0o755).unwrap();
    store.create_dir("d/e", 0o755).unwrap();
    (0..3).for_each(|i| store.reflink("pieces", format!("d/{i}")).unwrap());
    store.symlink("x".repeat(900), "d/e/link").unwrap();
    let hinted = store.create("hinted").unwrap();
    hinted.set_extent_hint(16 * BLOCK).unwrap();
    hinted.set_len(64 * BLOCK).unwrap();
    drop((pieces, large, hinted));
    store.close().unwrap();
    sim
}

/// What every file holds, by path, and every link.
fn look(store: &Store) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![String::new()];
    while let Some(dir) = dirs.pop() {
        for entry in store.open_dir(format!("/{dir}")).unwrap().read_dir() {
            let entry = entry.unwrap();
            let path = format!("{dir}/{}", entry.name.display());
            let at = format!("/{path}");
            let metadata = store.symlink_metadata(&at).unwrap();
            let content = match () {
                () if metadata.is_dir() => Vec::new(),
                () if metadata.is_symlink() => {
                    store.read_link(&at).unwrap().into_os_string().into_encoded_bytes()
                }
                () => store.read(&at).unwrap(),
            };
            if metadata.is_dir() {
                dirs.push(path.clone());
            }
            found.insert(path, content);
        }
    }
    found
}

/// What a run of a call leaves, when it went well.
struct Well {
    content: BTreeMap<String, Vec<u8>>,
    blocks: u64,
    asked: u64,
}

fn run_well(sim: &Arc<Sim>, case: &Case) -> Well {
    let sim = Arc::new(sim.fork().unwrap());
    let store = Store::open_sim(sim.clone()).unwrap();
    shortage::set(None);
    (case.call)(&store).unwrap_or_else(|error| panic!("{}: {error}", case.name));
    let asked = shortage::asked();
    let content = look(&store);
    Well { content, blocks: used(store, &sim), asked }
}

/// Blocks that files and metadata have once nothing is reserved and no arena is empty.
fn used(store: Store, sim: &Arc<Sim>) -> u64 {
    store.sync().unwrap();
    let free = store.statfs().free;
    store.close().unwrap();
    let store = Store::open_sim(sim.clone()).unwrap();
    let (statfs, report) = (store.statfs(), store.check().unwrap());
    assert!(report.is_clean());
    assert_eq!(free, statfs.free, "what is free, before the pool was closed and after");
    store.reclaim().unwrap();
    statfs.blocks - store.statfs().free
}

/// Runs `case` with a shortage, and then without: whether it failed.
fn run_short(sim: &Arc<Sim>, case: &Case, well: &Well, short: Shortage) -> bool {
    let at = format!("{}, {short:?}", case.name);
    let sim = Arc::new(sim.fork().unwrap());
    let store = Store::open_sim(sim.clone()).unwrap();
    let before = look(&store);
    shortage::set(Some(short));
    let answer = (case.call)(&store);
    shortage::set(None);
    let found = look(&store);
    match &answer {
        Ok(()) => assert!(found == well.content, "{at}: it went well, and the files hold something else"),
        Err(Error::NoSpace { .. }) => {
            let or_after = case.leaves == Leaves::BeforeOrAfter && found == well.content;
            assert!(found == before || or_after, "{at}: the files changed");
        }
        Err(error) => panic!("{at}: {error}"),
    }
    check(&store).unwrap_or_else(|what| panic!("{at}: {what}"));
    if answer.is_err() {
        (case.call)(&store).unwrap_or_else(|error| panic!("{at}: a second time: {error}"));
        assert!(look(&store) == well.content, "{at}: a second time, and the files hold something else");
    }
    let failed = answer.is_err();
    assert_eq!(used(store, &sim), well.blocks, "{at}: blocks in use");
    failed
}

/// Has each reservation of each call fail: how many calls did.
fn each(cases: &[Case]) -> u64 {
    let sim = prepare();
    let (mut failed, mut idle) = (0, Vec::new());
    for case in cases {
        let well = run_well(&sim, case);
        for number in 0..well.asked {
            failed += u64::from(run_short(&sim, case, &well, Shortage::At(number)));
            failed += u64::from(run_short(&sim, case, &well, Shortage::From(number)));
        }
        println!("{}: {} reservations, {failed} failures so far", case.name, well.asked);
        idle.extend((well.asked == 0).then_some(case.name));
    }
    assert!(idle.is_empty(), "{idle:?} ask for nothing");
    failed
}

#[test]
fn what_stays_reserved_is_noticed() {
    let sim = prepare();
    let case = case("holes and data", |store| write(store, "pieces", BLOCK, &bytes(40, 9)));
    let well = run_well(&sim, &case);
    mutation::set(Some(Mutation::LeakReserved));
    let noticed = catch_unwind(AssertUnwindSafe(|| run_short(&sim, &case, &well, Shortage::At(2))));
    mutation::set(None);
    shortage::set(None);
    let message = noticed.expect_err("it goes unnoticed").downcast::<String>().unwrap();
    assert!(message.contains("what is free"), "{message}");
}

#[test]
fn writes() {
    let later = |name, call| Case { name, leaves: Leaves::BeforeOrAfter, call };
    let cases = [
        case("a hole", |store| write(store, "pieces", BLOCK + 5, &[9; 100])),
        case("holes and data", |store| write(store, "pieces", BLOCK, &bytes(40, 9))),
        case("unwritten space", |store| write(store, "asked", 9 * BLOCK, &bytes(2, 9))),
        case("past the end", |store| write(store, "pieces", 150 * BLOCK + 9, &bytes(3, 9))),
        case("an append", |store| open(store, "pieces")?.append(&[9; 9000]).map(drop)),
        case("a sequential append", |store| open(store, "sequential")?.append(&[9; 9000]).map(drop)),
        case("shared blocks", |store| write(store, "shares", 3 * BLOCK + 7, &bytes(3, 9))),
        case("a hinted hole", |store| write(store, "hinted", 20 * BLOCK, &[9; 10])),
        case("at once", |store| open(store, "pieces")?.write_atomic(&bytes(5, 9), 3 * BLOCK + 1)),
        case("a queued write", |store| queued(store, "pieces", &[(1, 9)])),
        case("a queued append", |store| queued(store, "pieces", &[(150, 5)])),
        later("an ordered append and a sync", |store| {
            let file = open(store, "ordered")?;
            file.write_all_at(&[9; 9000], 3 * BLOCK)?;
            file.sync_all()
        }),
        later("an ordered overwrite and a sync", |store| {
            let file = open(store, "ordered")?;
            file.write_all_at(&bytes(2, 8), BLOCK + 50)?;
            file.sync_all()
        }),
    ];
    assert!(each(&cases) > 40);
}

#[test]
fn moves_and_space() {
    use AllocateMode::{Allocate, Collapse, Insert, KeepSize, Punch, Unshare, Zero};
    let cases = [
        case("allocate", |store| allocate(store, "pieces", 0, 110, Allocate)),
        case("keep size", |store| allocate(store, "pieces", 150 * BLOCK, 7, KeepSize)),
        case("punch", |store| allocate(store, "full", 9 * BLOCK, 1, Punch)),
        case("zero", |store| allocate(store, "pieces", 3 * BLOCK + 1, 30, Zero)),
        case("collapse", |store| allocate(store, "full", 9 * BLOCK, 1, Collapse)),
        case("insert", |store| allocate(store, "full", 9 * BLOCK, 3, Insert)),
        case("unshare", |store| allocate(store, "shares", BLOCK, 7, Unshare)),
        case("longer", |store| open(store, "shares")?.set_len(13 * BLOCK)),
        case("a fault's page", |store| populate(store, 40, 1, Placement::Any)),
        case("a fault beside data", |store| populate(store, 512, 20, Placement::Any)),
        case("a fault's slot", |store| {
            let range = FileRange { offset: 0, len: CHUNK };
            let file = open(store, "large")?;
            // As a handler does.
            if file.populate(range, Placement::Whole)? {
                Ok(())
            } else {
                file.populate(range, Placement::Any).map(drop)
            }
        }),
        case("a fault in a shared page", |store| {
            open(store, "shares")?.make_private(FileRange { offset: 4 * BLOCK, len: BLOCK })
        }),
    ];
    assert!(each(&cases) > 20);
}

#[test]
fn sharing_and_names() {
    let cases = [
        case("reflink", |store| open(store, "large")?.reflink(&open(store, "pieces")?)),
        case("reflink of a range", |store| {
            open(store, "full")?.reflink_range(&open(store, "also-full")?, 9 * BLOCK, 17 * BLOCK, 2 * BLOCK)
        }),
        case("dedupe", |store| {
            let (full, also) = (open(store, "full")?, open(store, "also-full")?);
            let same = full.dedupe_range(&also, 9 * BLOCK, 9 * BLOCK, 2 * BLOCK)?;
            assert!(same);
            Ok(())
        }),
        case("a copy", |store| store.reflink("pieces", "copy")),
        case("snapshot", |store| store.snapshot("d", "snapshot").map(drop)),
        case("create", |store| store.create("new").map(drop)),
        case("mkdir", |store| store.create_dir("new", 0o700)),
        case("symlink", |store| store.symlink("y".repeat(3000), "new")),
        case("an attribute", |store| {
            open(store, "whole")?.set_xattr("user.x", &[7; 9000], XattrMode::Either)
        }),
    ];
    assert!(each(&cases) > 20);
}
