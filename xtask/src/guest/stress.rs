//! Is every store found and every byte its owner's, while everything happens to a mapped file at once?
//!
//! The stress of the crate for mappings, over a real pool. A device of 2 MiB is mapped by slots only, which that stress does
//! not keep to; it gets one of its own.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "the modules are of tests, which use all of them and fail by panicking"
)]

mod slots;

#[path = "../../../fault/tests/stress/others.rs"]
mod others;
#[path = "../../../fault/tests/stress/owner.rs"]
mod owner;
#[path = "../../../fault/tests/stress/world.rs"]
mod world;

/// What the stress has of the tests, over the pool of the scenario.
mod common {
    pub use crate::mapping::{PAGE, SLOT};
    pub(super) use crate::toucher as touch;
    use daxstore::{File, OpenOptions, Store, StoreOptions};
    use daxstore_fault::Mapping;
    use std::path::PathBuf;
    use std::sync::OnceLock;

    pub static PATH: OnceLock<PathBuf> = OnceLock::new();

    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Medium;

    pub struct Pool {
        pub store: Store,
    }

    impl Pool {
        pub fn new(size: u64, _medium: Medium) -> Self {
            let options = StoreOptions::new().force(true);
            Self { store: Store::create(PATH.get().unwrap(), size, &options).unwrap() }
        }

        #[must_use]
        pub fn reopened(self) -> Self {
            self.store.close().unwrap();
            Self { store: Store::open(PATH.get().unwrap(), &StoreOptions::new()).unwrap() }
        }

        pub fn file(&self, name: &str) -> File {
            self.store.open(name, &OpenOptions::new().read(true).write(true).create(true)).unwrap()
        }

        pub fn sparse(&self, name: &str, len: u64) -> File {
            let file = self.file(name);
            file.set_len(len).unwrap();
            file
        }
    }

    pub fn address(map: &Mapping, at: u64) -> usize {
        map.as_ptr().expose_provenance() + at as usize
    }
}

use crate::Result;
use crate::mapping::Stage;
use daxstore_fault::Count;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use world::{Config, OWNERS, World};

const TIME: Duration = Duration::from_secs(3);

/// As the tests' function of this name, without the environment.
const fn number(_name: &str, default: u64) -> u64 {
    default
}

/// Runs it.
pub fn run(stage: &Stage) -> Result<()> {
    if stage.unit == common::SLOT {
        return slots::run(stage, TIME);
    }
    let _first = common::PATH.set(stage.pool.clone());
    for unit in [common::PAGE, common::SLOT] {
        // Not both on one file at first: mode S is tried beside U in the second configuration.
        let mixed = unit == common::SLOT && !stage.is_device;
        config(Config { mode: stage.mode, mixed, medium: common::Medium, unit, time: TIME, seed: 1 })?;
    }
    Ok(())
}

fn config(config: Config) -> Result<()> {
    let fresh = common::Pool::new(config.pool(), config.medium);
    drop(fresh.file("main"));
    fresh.store.remove_file("main")?;
    let free = fresh.reopened().store.statfs().free;
    let world = World::new(config);
    let left = AtomicUsize::new(OWNERS as usize + 6);
    std::thread::scope(|scope| {
        let (world, left) = (&world, &left);
        let spawn = |body: Box<dyn FnOnce() + Send>| {
            scope.spawn(move || {
                body();
                left.fetch_sub(1, Ordering::SeqCst);
            })
        };
        for me in 0..OWNERS {
            spawn(Box::new(move || owner::run(world, me)));
        }
        let others: [fn(&World, usize); 6] =
            [others::reader, others::reader, others::tail, others::thief, others::visitor, others::keeper];
        for (i, other) in others.into_iter().enumerate() {
            spawn(Box::new(move || other(world, OWNERS as usize + i)));
        }
        scope.spawn(move || world.guard(|| left.load(Ordering::SeqCst) == 0));
        world.watch();
    });
    let steps: u64 = world.steps().iter().sum();
    let pmd: u64 = world.maps.iter().map(|map| map.stats().get(Count::Pmd)).sum();
    let failures = world.end(free);
    if !failures.is_empty() {
        return Err(format!("stress, {config:?}: {}", failures.join("; ")).into());
    }
    println!("note: {:?}, stress by {} KiB: {steps} steps, {pmd} Pmd", config.mode, config.unit >> 10);
    Ok(())
}
