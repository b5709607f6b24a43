//! Whatever a file was made of, does it hold the same after it was defragmented?

#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use daxstore::pmem::sim::Sim;
use daxstore::{AllocateMode, Defragmented, File, OpenOptions, Store, StoreOptions};
use proptest::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const SLOT: u64 = 2 << 20;

#[derive(Clone, Debug)]
enum Step {
    Write { file: usize, at: u64, len: u64, fill: u8 },
    Allocate { file: usize, at: u64, len: u64, mode: AllocateMode },
    Cut { file: usize, len: u64 },
    Remove { file: usize },
    Defrag { file: usize, from: u64 },
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let (file, at) = (0..3usize, 0..7 * SLOT);
    let len = prop_oneof![3 => 1..40_000u64, 2 => 1..SLOT, 1 => SLOT..3 * SLOT];
    let mode = prop_oneof![
        4 => Just(AllocateMode::Allocate),
        1 => Just(AllocateMode::KeepSize),
        1 => Just(AllocateMode::Punch),
        2 => Just(AllocateMode::Zero),
    ];
    let write = (file.clone(), at.clone(), len.clone(), 1..=255u8);
    prop_oneof![
        8 => write.prop_map(|(file, at, len, fill)| Step::Write { file, at, len, fill }),
        6 => (file.clone(), at.clone(), len, mode)
            .prop_map(|(file, at, len, mode)| Step::Allocate { file, at, len, mode }),
        1 => (file.clone(), at.clone()).prop_map(|(file, len)| Step::Cut { file, len }),
        1 => file.clone().prop_map(|file| Step::Remove { file }),
        4 => (file, 0..4u64).prop_map(|(file, from)| Step::Defrag { file, from }),
        1 => Just(Step::Reopen),
    ]
}

fn open(store: &Store, file: usize) -> File {
    store.open(format!("/{file}"), &OpenOptions::new().read(true).write(true).create(true)).unwrap()
}

fn assert_holds(file: &File, model: &[u8]) {
    let mut found = vec![0; model.len() + 1];
    assert_eq!(file.read_at(&mut found, 0).unwrap(), model.len());
    assert!(found[..model.len()] == *model, "the bytes of the file");
}

fn fit(model: &mut Vec<u8>, end: u64) {
    model.resize(model.len().max(end as usize), 0);
}

/// What the extents say of the slots: how many there are, one congruent chunk, with a hole.
fn count(file: &File) -> (u64, u64, u64) {
    let (mut slots, mut huge, mut holes) = (0, 0, 0);
    for n in 0..file.len().next_multiple_of(4096) / SLOT {
        let extents = file.extents(n * SLOT, SLOT).unwrap();
        let addresses: Vec<_> =
            extents.iter().map(|e| e.state.address().map(|at| at.0.wrapping_sub(e.range.offset))).collect();
        slots += 1;
        let first = addresses[0];
        holes += u64::from(addresses.contains(&None));
        let one = addresses.iter().all(|a| a.is_some() && *a == first);
        huge += u64::from(one && first.is_some_and(|a| a % SLOT == 0));
    }
    (slots, huge, holes)
}

fn defrag(file: &File, from: u64) {
    let (before, times) = (count(file), file.metadata());
    let found = if from == 0 { file.defrag() } else { file.defrag_range(from * SLOT, 3 * SLOT) }.unwrap();
    let after = count(file);
    let Defragmented { slots, already, moved, with_holes, no_chunk, .. } = found;
    assert_eq!(slots, already + moved + with_holes + no_chunk);
    assert_eq!((after.0, after.1, after.2), (before.0, before.1 + moved, before.2), "{found:?}");
    if from == 0 {
        assert_eq!((slots, already, with_holes), before, "{found:?}");
    }
    assert_eq!(file.metadata(), times);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn files_hold_the_same(steps in prop::collection::vec(step(), 1..60)) {
        let sim = Arc::new(Sim::new(64 << 20).unwrap());
        let mut store = Store::create_sim(sim.clone(), &StoreOptions::new()).unwrap();
        let mut models = [Vec::new(), Vec::new(), Vec::new()];
        for step in steps {
            match step {
                Step::Write { file, at, len, fill } => {
                    let Ok(()) = open(&store, file).write_all_at(&vec![fill; len as usize], at) else { continue };
                    fit(&mut models[file], at + len);
                    models[file][at as usize..][..len as usize].fill(fill);
                }
                Step::Allocate { file, at, len, mode } => {
                    let Ok(()) = open(&store, file).allocate(at, len, mode) else { continue };
                    if matches!(mode, AllocateMode::Allocate | AllocateMode::Zero) {
                        fit(&mut models[file], at + len);
                    }
                    if matches!(mode, AllocateMode::Punch | AllocateMode::Zero) {
                        let size = models[file].len();
                        models[file][size.min(at as usize)..size.min((at + len) as usize)].fill(0);
                    }
                }
                Step::Cut { file, len } => {
                    open(&store, file).set_len(len).unwrap();
                    models[file].resize(len as usize, 0);
                }
                Step::Remove { file } => {
                    if store.remove_file(format!("/{file}")).is_ok() {
                        models[file].clear();
                    }
                }
                Step::Defrag { file, from } => {
                    let file_of = open(&store, file);
                    defrag(&file_of, from);
                    assert_holds(&file_of, &models[file]);
                }
                Step::Reopen => {
                    drop(store);
                    store = Store::open_sim(sim.clone()).unwrap();
                }
            }
        }
        for (file, model) in models.iter().enumerate() {
            assert_holds(&open(&store, file), model);
        }
        prop_assert!(store.check().unwrap().is_clean());
    }
}

/// Readers and writers of the same file meet it: what they read is what was written.
#[test]
fn others_use_the_file_meanwhile() {
    let sim = Arc::new(Sim::new(64 << 20).unwrap());
    let store = Store::create_sim(sim, &StoreOptions::new()).unwrap();
    let file = open(&store, 0);
    file.write_all_at(&vec![1; 4 * SLOT as usize], 0).unwrap();
    let stop = AtomicBool::new(false);
    let moved = std::thread::scope(|threads| {
        let writer = threads.spawn(|| {
            let mut round = 1u64;
            while !stop.load(Ordering::Relaxed) {
                // Slots are broken up and filled again.
                let at = (round * 7 % 1024) * 4096;
                file.allocate(at, 4096, AllocateMode::Punch).unwrap();
                file.write_all_at(&[round as u8 | 1; 4096], at).unwrap();
                let mut found = [0; 4096];
                file.read_exact_at(&mut found, at).unwrap();
                assert_eq!(found, [round as u8 | 1; 4096]);
                round += 1;
            }
        });
        let reader = threads.spawn(|| {
            let mut found = vec![0; SLOT as usize];
            while !stop.load(Ordering::Relaxed) {
                // Nobody else writes the last slots.
                file.read_exact_at(&mut found, 3 * SLOT).unwrap();
                assert!(found.iter().all(|b| *b == 1));
            }
        });
        let mut moved = 0;
        for _ in 0..30 {
            // A neighbour takes what becomes free, so that slots break.
            open(&store, 1).append(&[5; 9 * 4096]).unwrap();
            moved += file.defrag().unwrap().moved;
        }
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap();
        reader.join().unwrap();
        moved
    });
    println!("{moved} slots moved");
    assert!(store.check().unwrap().is_clean());
}
