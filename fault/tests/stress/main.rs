//! Is every store found and every byte its owner's, while everything happens to a mapped file at once?
//!
//! Owners store, write, copy and take away, by mappings, calls of the store and calls of the kernel, and know what each of
//! their pages holds; around them the file's end moves, another file takes freed blocks, mappings come and go, translations
//! are given up. At the end the store is sound and no block is missing.
//!
//! `DAXSTORE_STRESS_SECONDS` (5) is how long each configuration runs, `DAXSTORE_STRESS_SEED` (1) where its numbers start,
//! `DAXSTORE_STRESS_STALL` (40) after how many seconds without a step a thread counts as stuck, which ends the process.

#![cfg(target_arch = "x86_64")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;
mod others;
mod owner;
mod world;

use common::{Medium, PAGE, SLOT};
use daxstore_fault::{Count, Mode};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use world::{Config, OWNERS, World};

/// One at a time: they are many threads each.
static ONE: Mutex<()> = Mutex::new(());

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn stress(mode: Mode, mixed: bool, medium: Medium, unit: u64) {
    let time = Duration::from_secs(number("DAXSTORE_STRESS_SECONDS", 5));
    let seed = number("DAXSTORE_STRESS_SEED", 1);
    run(Config { mode, mixed, medium, unit, time, seed });
}

fn run(config: Config) {
    let _one = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    common::touch::install();
    println!("{config:?}");
    let fresh = common::Pool::new(config.pool(), config.medium);
    drop(fresh.file("main"));
    fresh.store.remove_file("main").unwrap();
    let free = fresh.reopened().store.statfs().free;
    let world = World::new(config);
    let left = AtomicUsize::new(OWNERS as usize + 6);
    std::thread::scope(|scope| {
        let (world, left) = (&world, &left);
        let spawn = |body: Box<dyn FnOnce() + Send>| {
            scope.spawn(move || {
                let _left = Left(left);
                body();
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
    report(&world);
    let failures = world.end(free);
    assert!(failures.is_empty(), "{config:?}\n{}", failures.join("\n"));
}

/// Counts a thread down when it ends, panicking or not.
struct Left<'a>(&'a AtomicUsize);

impl Drop for Left<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn report(world: &World) {
    println!("  steps {:?}", world.steps().into_iter().filter(|steps| *steps > 0).collect::<Vec<_>>());
    for map in &world.maps {
        let stats = map.stats();
        let counts = [
            Count::Loads,
            Count::Stores,
            Count::Waits,
            Count::Installs,
            Count::Zeros,
            Count::Upgrades,
            Count::Pmd,
        ];
        let counts: Vec<_> =
            counts.iter().map(|count| format!("{} {}", count.name(), stats.get(*count))).collect();
        println!("  {:?}: {}", map.mode(), counts.join(" "));
    }
}

#[test]
fn pages_by_userfault() {
    stress(Mode::Userfault, false, Medium::Lines, PAGE);
}

#[test]
fn pages_by_signal() {
    stress(Mode::Signal, false, Medium::Lines, PAGE);
}

#[test]
fn pages_by_both() {
    stress(Mode::Userfault, true, Medium::Lines, PAGE);
}

#[test]
fn slots_by_userfault() {
    stress(Mode::Userfault, false, Medium::Lines, SLOT);
}

#[test]
fn slots_by_signal() {
    stress(Mode::Signal, false, Medium::Lines, SLOT);
}

#[test]
fn slots_by_both() {
    stress(Mode::Userfault, true, Medium::Lines, SLOT);
}

#[test]
fn a_plain_file_by_userfault() {
    stress(Mode::Userfault, false, Medium::Pages, PAGE);
}

#[test]
fn a_plain_file_by_signal() {
    stress(Mode::Signal, false, Medium::Pages, PAGE);
}
