//! Does every concurrent protocol of daxstore keep its rules in every order of events?
//!
//! One scenario, two engines: built with `--cfg loom`, [`explore`] runs the body of a model in every interleaving
//! with a bounded number of preemptions (`LOOM_MAX_PREEMPTIONS`, else 2 or 3); built without, it runs it over and over
//! with real threads and larger constants ([`pick`]).
//!
//! Loom sees locks and atomics. It does not see the simulated medium, which is touched through raw pointers: models
//! watch it through things of their own that loom sees, or compare what the store says at the end. Loom's threads
//! never run at once, so what a missing lock alone would tear shows in the stress form only.
//!
//! Each model has mutations (`assert_caught`, built with loom): a rule is broken on purpose in a process of its
//! own, which must fail.

#[cfg(test)]
mod directories;
#[cfg(test)]
mod fault_install;
#[cfg(test)]
mod fault_share;
#[cfg(test)]
mod fault_sync;
#[cfg(test)]
mod fault_turns;
#[cfg(test)]
mod handles;
#[cfg(test)]
mod inode_table;
#[cfg(test)]
mod io_jobs;
#[cfg(test)]
mod io_queue;
#[cfg(test)]
mod journal;
#[cfg(test)]
mod kv_copies;
#[cfg(test)]
mod kv_core;
#[cfg(test)]
mod kv_memory;
#[cfg(test)]
mod kv_ordered;
#[cfg(test)]
mod kv_space;
#[cfg(test)]
mod levels;
#[cfg(test)]
mod pins;
#[cfg(test)]
mod range_lock;
#[cfg(test)]
mod recent;
#[cfg(test)]
mod reclaim;
#[cfg(test)]
mod share;
#[cfg(test)]
mod size;
#[cfg(test)]
mod slots;
#[cfg(test)]
mod space;

use daxstore::layout::{Geometry, LABEL_BYTES, Seed, Superblock};
use daxstore::pmem::mutation::{self, Mutation};
use daxstore::pmem::sim::Sim;
use daxstore::units::{Ino, PoolOff};
use daxstore::{Store, StoreOptions};
use daxstore_fault::mutation::Mutation as FaultMutation;
use daxstore_kv::mutation::{self as kv, Mutation as KvMutation};
use daxstore_kv::ordered::mutation::{self as ordered, Mutation as OrderedMutation};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Names the mutation of a process that [`assert_caught`] started.
const MUTATION: &str = "DAXSTORE_MUTATION";

/// The mutations that models are shown to catch.
const MUTATIONS: &[Mutation] = &[
    Mutation::WakeOne,
    Mutation::IgnoreCounted,
    Mutation::OvertakeQueue,
    Mutation::LeaveSilently,
    Mutation::IgnoreShort,
    Mutation::ReadersDoNotWait,
    Mutation::FreeEarly,
    Mutation::FreeUnknownSlot,
    Mutation::EpochWithoutLanes,
    Mutation::NoGoneCheck,
    Mutation::ForgetLate,
    Mutation::IntroduceLate,
    Mutation::NoPinCheck,
    Mutation::StaleEnd,
    Mutation::NoRenameLock,
    Mutation::NoGate,
    Mutation::IgnorePins,
    Mutation::UnpinInTwoSteps,
    Mutation::ForgetFirst,
    Mutation::LosePending,
    Mutation::NoEpochForArenas,
    Mutation::NoCover,
    Mutation::NoVersion,
    Mutation::NoCommitFence,
    Mutation::DrainWaiting,
    Mutation::ReleaseEarly,
    Mutation::SleepUnseen,
    Mutation::LastSleeps,
    Mutation::SourceUnheld,
];

/// The mutations of the fault handler that models are shown to catch.
const FAULT_MUTATIONS: &[FaultMutation] = &[
    FaultMutation::DropSilently,
    FaultMutation::WakeEarly,
    FaultMutation::UpgradeAtOnce,
    FaultMutation::WaitersFirst,
    FaultMutation::TurnOfPage,
    FaultMutation::InstallLate,
    FaultMutation::KeepZeros,
    FaultMutation::MapBeyondTurn,
    FaultMutation::RecordLate,
    FaultMutation::ClearFirst,
    FaultMutation::FlushFirst,
    FaultMutation::ForgetDirty,
    FaultMutation::StoreShared,
];

/// The mutations of the key-value store's ordered index that models are shown to catch.
const ORDERED_MUTATIONS: &[OrderedMutation] = &[OrderedMutation::NoRetry, OrderedMutation::SettleEarly];

/// The mutations of the key-value store that models are shown to catch.
const KV_MUTATIONS: &[KvMutation] = &[
    KvMutation::HoldLate,
    KvMutation::FreeHeld,
    KvMutation::NotApart,
    KvMutation::ForgetApart,
    KvMutation::NoWatch,
    KvMutation::FreeLostTwice,
    KvMutation::NoEnd,
    KvMutation::NoCount,
    KvMutation::CountEarly,
    KvMutation::StaleCopy,
    KvMutation::KeepCopy,
];

/// The mutation of `all` that this process is to run with.
fn active<M: Copy + std::fmt::Debug>(all: &[M]) -> Option<M> {
    let name = std::env::var(MUTATION).ok()?;
    all.iter().copied().find(|m| format!("{m:?}") == name)
}

/// Switches on, for this thread, what this process is to run with.
fn mutate() {
    mutation::set(active(MUTATIONS));
    daxstore_fault::mutation::set(active(FAULT_MUTATIONS));
    ordered::set(active(ORDERED_MUTATIONS));
    kv::set(active(KV_MUTATIONS));
}

/// `small` for loom, `large` for real threads.
#[must_use]
pub const fn pick(small: usize, large: usize) -> usize {
    if cfg!(loom) { small } else { large }
}

/// How long a model's stress form may take.
#[cfg(not(loom))]
const STRESS: Duration = Duration::from_millis(1500);

/// How long loom may look at a model: a bound for slow machines, said aloud when it is met.
#[cfg(loom)]
const LOOM: Duration = Duration::from_secs(20);

/// Runs `body` in every interleaving with two preemptions, and goes on to three where that took little time.
/// `LOOM_MAX_PREEMPTIONS` sets another bound.
#[cfg(loom)]
pub fn explore(name: &str, body: impl Fn() + Send + Sync + 'static) {
    let body: Arc<dyn Fn() + Send + Sync> = Arc::new(body);
    if loom::model::Builder::new().preemption_bound.is_some() {
        explore_within(name, None, &body);
    } else if explore_within(name, Some(2), &body) < LOOM / 5 {
        explore_within(name, Some(3), &body);
    }
}

/// As [`explore`], for a body with so many steps that not all with two preemptions can be looked at: those with one come first.
#[cfg(loom)]
pub fn explore_large(name: &str, body: impl Fn() + Send + Sync + 'static) {
    let body: Arc<dyn Fn() + Send + Sync> = Arc::new(body);
    explore_within(name, Some(1), &body);
    explore_within(name, Some(2), &body);
}

#[cfg(loom)]
fn explore_within(name: &str, bound: Option<usize>, body: &Arc<dyn Fn() + Send + Sync>) -> Duration {
    use std::sync::atomic::{AtomicU64, Ordering};
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(bound);
    builder.max_branches = 200_000;
    builder.max_duration = builder.max_duration.or(Some(LOOM));
    builder.checkpoint_interval = 100;
    builder.expect_explicit_explore = true;
    let count = Arc::new(AtomicU64::new(0));
    let (counter, body) = (count.clone(), body.clone());
    let (limit, preemptions) = (builder.max_duration.unwrap_or(LOOM), builder.preemption_bound.unwrap_or(0));
    let start = Instant::now();
    builder.check(move || {
        counter.fetch_add(1, Ordering::Relaxed);
        mutate();
        let body = body.clone();
        spawn(move || body()).join().expect("the model's body");
    });
    let (took, count) = (start.elapsed(), count.load(Ordering::Relaxed));
    let all = if took < limit { "all" } else { "NOT all" };
    println!(
        "{name}: {count} interleavings ({all} with {preemptions} preemptions), {:.1} s",
        took.as_secs_f64()
    );
    took
}

/// Words of a model thread's stack; loom's own 32 KiB are too few for a store.
#[cfg(loom)]
const STACK: usize = 64 << 10;

#[cfg(loom)]
fn spawn(f: impl FnOnce() + Send + 'static) -> loom::thread::JoinHandle<()> {
    loom::thread::Builder::new().stack_size(STACK).spawn(f).expect("a thread")
}

/// Runs `body` over and over.
#[cfg(not(loom))]
pub fn explore(name: &str, body: impl Fn() + Send + Sync + 'static) {
    let start = Instant::now();
    let mut count = 0_u64;
    mutate();
    while start.elapsed() < STRESS {
        body();
        count += 1;
    }
    println!("{name}: {count} rounds in {:.1} s", start.elapsed().as_secs_f64());
}

/// As [`explore`].
#[cfg(not(loom))]
pub fn explore_large(name: &str, body: impl Fn() + Send + Sync + 'static) {
    explore(name, body);
}

/// What one thread of a scenario does.
pub type Part = Box<dyn FnOnce() + Send + 'static>;

/// Runs the parts at the same time, each in a thread of its own (numbered from 1), and waits for all of them. The
/// last one runs in the caller's thread.
#[cfg(loom)]
pub fn together(mut parts: Vec<Part>) {
    let Some(last) = parts.pop() else { return };
    loom::explore();
    let own = parts.len() + 1;
    let start = |(i, part): (usize, Part)| {
        spawn(move || {
            daxstore::pmem::set_thread_number(i + 1);
            part();
        })
    };
    let threads: Vec<_> = parts.into_iter().enumerate().map(start).collect();
    daxstore::pmem::set_thread_number(own);
    last();
    threads.into_iter().for_each(|thread| thread.join().expect("a thread of the model"));
    daxstore::pmem::set_thread_number(0);
    loom::stop_exploring();
}

/// Runs the parts at the same time, each in a thread of its own, and waits for all of them.
#[cfg(not(loom))]
pub fn together(parts: Vec<Part>) {
    let start = std::sync::Barrier::new(parts.len());
    std::thread::scope(|scope| {
        for part in parts {
            let start = &start;
            scope.spawn(move || {
                mutate();
                start.wait();
                part();
            });
        }
    });
}

/// Something that happens once, which others wait for.
#[derive(Debug, Default)]
pub struct Event {
    happened: daxstore::sync::Mutex<bool>,
    told: daxstore::sync::Condvar,
}

impl Event {
    /// It happened.
    pub fn set(&self) {
        *self.happened.lock() = true;
        self.told.notify_all();
    }

    /// Waits until it happened.
    pub fn wait(&self) {
        let mut happened = self.happened.lock();
        while !*happened {
            happened = self.told.wait(happened);
        }
    }
}

/// A part of a scenario.
pub fn part(f: impl FnOnce() + Send + 'static) -> Part {
    Box::new(f)
}

/// A pool made once, of which each run of a model gets a copy.
#[derive(Debug)]
pub struct Pool {
    len: u64,
    pages: Vec<(u64, Vec<u8>)>,
}

const PAGE: u64 = 4096;

/// A superblock for `geometry`, for models below the store.
#[must_use]
pub fn superblock(geometry: Geometry) -> Superblock {
    Superblock {
        compat: 0,
        ro_compat: 0,
        incompat: 0,
        uuid: [7; 16],
        label: [0; LABEL_BYTES],
        geometry,
        epoch: 1,
        sequence: 1,
        seed: Seed(11),
        root: Ino(0),
        intents: Ino(0),
        created: 0,
    }
}

/// Fails unless what is in use is what `files` (paths of all files) and arenas have, the counters agree with the
/// media, and no work is left; also after the store was opened again. Everything else of the store is dropped.
///
/// # Panics
/// Where it is not so.
pub fn assert_settled(sim: &Arc<Sim>, store: Store, files: &[&str], directories: u64) {
    let check = |store: &Store| {
        let blocks: u64 = files.iter().map(|path| store.metadata(path).expect("a file").blocks).sum();
        for path in files {
            let metadata = store.metadata(path).expect("a file");
            assert_eq!(metadata.links, 1, "links of {path}");
            assert_eq!(metadata.blocks, metadata.size.div_ceil(PAGE), "blocks of {path}");
        }
        let info = store.info().expect("a sound pool");
        let (space, blocks) = (info.space, blocks - info.shared.1);
        assert_eq!(space.damage, []);
        assert_eq!(
            space.free_chunks * 512 + space.free_in_broken,
            space.free_blocks,
            "media against counters"
        );
        let used = space.usable_blocks - space.free_blocks;
        assert_eq!(
            used,
            blocks + space.inode_arena_blocks + space.node_arena_blocks,
            "blocks without an owner"
        );
        assert_eq!(store.statfs().files, files.len() as u64 + directories, "inodes");
    };
    check(&store);
    drop(store);
    let store = Store::open_sim(sim.clone()).expect("a store");
    assert_eq!(store.recovery().intents, 0, "work left behind");
    check(&store);
}

/// The smallest pool there is, whose lanes hold two or three records.
#[must_use]
pub fn geometry(lanes: u32) -> Geometry {
    Geometry { size: 8 << 20, lanes, lane_bytes: 8192, arena_blocks: 1 }
}

impl Pool {
    /// The pool that `prepare` leaves in new simulated memory.
    pub fn new(len: u64, prepare: impl Fn(Arc<Sim>) + Send + Sync + 'static) -> Arc<Self> {
        let sim = Arc::new(Sim::new(len).expect("memory"));
        let prepared = Mutex::new(Some(sim.clone()));
        once(move || {
            let sim = prepared.lock().expect("no panic before").take().expect("one run");
            prepare(sim);
        });
        let mut pages = Vec::new();
        for at in (0..len).step_by(PAGE as usize) {
            let mut page = vec![0; PAGE as usize];
            sim.peek(PoolOff(at), &mut page);
            if page.iter().any(|b| *b != 0) {
                pages.push((at, page));
            }
        }
        Arc::new(Self { len, pages })
    }

    /// A store of [`geometry`] with `lanes` in which `prepare` made what a model starts from.
    pub fn store(lanes: u32, prepare: impl Fn(&Store) + Send + Sync + 'static) -> Arc<Self> {
        let geometry = geometry(lanes);
        Self::new(geometry.size, move |sim| {
            let options = StoreOptions::new().geometry(geometry);
            prepare(&Store::create_sim(sim, &options).expect("a new store"));
        })
    }

    /// A copy.
    #[must_use]
    pub fn copy(&self) -> Arc<Sim> {
        let sim = Sim::new(self.len).expect("memory");
        self.pages.iter().for_each(|(at, page)| sim.poke(PoolOff(*at), page));
        Arc::new(sim)
    }

    /// A copy, open.
    #[must_use]
    pub fn open(&self) -> (Arc<Sim>, Store) {
        let sim = self.copy();
        (sim.clone(), Store::open_sim(sim).expect("a store"))
    }
}

#[cfg(loom)]
fn once(f: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.max_branches = 1_000_000;
    builder.max_permutations = Some(1);
    builder.expect_explicit_explore = true;
    let f = Arc::new(f);
    builder.check(move || {
        let f = f.clone();
        spawn(move || f()).join().expect("the preparation");
    });
}

#[cfg(not(loom))]
fn once(f: impl Fn()) {
    f();
}

/// Runs the test `name` of this binary with `mutation` on, one that is listed, and fails unless it fails.
///
/// # Panics
/// Where the broken rule was not noticed.
#[cfg(loom)]
pub fn assert_caught(name: &str, mutation: impl std::fmt::Debug) {
    let mutation = format!("{mutation:?}");
    let of_store = MUTATIONS.iter().any(|m| format!("{m:?}") == mutation);
    let of_fault = FAULT_MUTATIONS.iter().any(|m| format!("{m:?}") == mutation);
    let of_ordered = ORDERED_MUTATIONS.iter().any(|m| format!("{m:?}") == mutation);
    let of_kv = KV_MUTATIONS.iter().any(|m| format!("{m:?}") == mutation);
    assert!(of_store || of_fault || of_ordered || of_kv, "listed: {mutation}");
    let exe = std::env::current_exe().expect("this binary");
    let output = std::process::Command::new(exe)
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(MUTATION, &mutation)
        .output()
        .expect("a process");
    let said = String::from_utf8_lossy(&output.stdout);
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("running 1 test"), "no such test: {name}");
    assert!(!output.status.success(), "{mutation} was not noticed by {name}:\n{said}");
    let line = why.lines().find(|line| line.contains("panicked at")).unwrap_or_default();
    let after = why.lines().skip_while(|l| !l.contains("panicked at")).nth(1).unwrap_or_default();
    println!("{mutation}: {line} {after}");
}
