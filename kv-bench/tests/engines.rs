//! Does every engine do what it is measured at?
//!
//! The same small history is done to each engine that is built in, beside a map in memory; then each is opened again,
//! and each does every workload, whose workers compare all that they read.

#![allow(clippy::unwrap_used, reason = "a test that can not go on fails")]

use clap::ValueEnum;
use daxstore_kv_bench::draw::{Key, Rng, Values, scattered};
use daxstore_kv_bench::engine::{Engine, Kind, Size};
use daxstore_kv_bench::run::{Limits, load, time};
use daxstore_kv_bench::workload::Workload;
use std::collections::BTreeMap;

const SIZE: Size = Size { records: 2000, value_bytes: 100 };
const ROOM: Size = Size { records: 4000, value_bytes: 100 };

type Model = BTreeMap<Key, Vec<u8>>;

fn each_engine(check: impl Fn(Kind, &std::path::Path)) {
    let built: Vec<_> = Kind::built().collect();
    assert!(!built.is_empty());
    for kind in built {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        check(kind, dir.path());
    }
}

/// What the engine holds is what the model holds.
fn compare(kind: Kind, engine: &dyn Engine, model: &Model) {
    let mut value = Vec::new();
    for index in 0..500 {
        let key = scattered(index);
        let there = engine.get(&key, &mut value).unwrap();
        assert_eq!(there.then_some(&value), model.get(&key), "{kind:?}: {index}");
    }
    if !kind.is_ordered() {
        assert!(engine.scan(&scattered(0), 1, &mut |_, _| ()).is_err(), "{kind:?}");
        return;
    }
    for from in (0..500).step_by(17).map(scattered) {
        let mut found = Vec::new();
        let seen = engine.scan(&from, 20, &mut |k, v| found.push((k.to_vec(), v.to_vec()))).unwrap();
        let wanted: Vec<_> =
            model.range(from..).take(20).map(|(key, value)| (key.to_vec(), value.clone())).collect();
        assert_eq!((seen, found), (wanted.len(), wanted), "{kind:?}");
    }
}

#[test]
fn a_history_is_kept_and_found_again() {
    each_engine(|kind, dir| {
        let mut model = Model::new();
        let (mut rng, mut values) = (Rng::new(5, 0), Values::new(100, 5));
        let engine = kind.open(dir, ROOM).unwrap();
        for _ in 0..1500 {
            let index = rng.below(500);
            let (key, value) = (scattered(index), values.of(index, &mut rng).to_vec());
            match rng.below(20) {
                0..12 => {
                    engine.put(&key, &value).unwrap();
                    model.insert(key, value);
                }
                12..18 => {
                    engine.delete(&key).unwrap();
                    model.remove(&key);
                }
                _ => {
                    let records: Vec<_> =
                        (0..30).map(|i| (scattered((index + i) % 500), value.clone())).collect();
                    engine.batch(&records).unwrap();
                    model.extend(records);
                }
            }
        }
        compare(kind, &*engine, &model);
        drop(engine);
        compare(kind, &*kind.open(dir, ROOM).unwrap(), &model);
    });
}

#[test]
fn every_workload_is_done_and_reads_what_was_stored() {
    let workloads = Workload::value_variants().iter().filter(|workload| **workload != Workload::Reopen);
    for &workload in workloads {
        each_engine(|kind, dir| {
            if workload.needs_order() && !kind.is_ordered() {
                return;
            }
            let engine = kind.open(dir, ROOM).unwrap();
            if workload.is_loaded() {
                assert_eq!(load(&*engine, SIZE, 1).unwrap().operations, SIZE.records);
            }
            let operations = if workload.is_loaded() { 400 } else { SIZE.records };
            let limits = Limits { operations, seconds: 60.0, seed: 2 };
            let timed = time(&*engine, workload, SIZE, 2, limits).unwrap();
            let wanted = if workload == Workload::Batch { 1000 } else { operations };
            assert_eq!(timed.operations, wanted, "{kind:?} {workload:?}");
            assert!(timed.times.total() <= wanted && engine.configuration().len() > 10);
        });
    }
}

/// An engine that forgets one record is caught by the workers.
#[test]
fn a_record_that_is_lost_is_noticed() {
    let workloads = [Workload::Get, Workload::Scan];
    each_engine(|kind, dir| {
        let engine = kind.open(dir, ROOM).unwrap();
        load(&*engine, SIZE, 1).unwrap();
        for index in 0..SIZE.records / 2 {
            engine.delete(&scattered(index)).unwrap();
        }
        for workload in workloads.into_iter().filter(|w| kind.is_ordered() || !w.needs_order()) {
            let limits = Limits { operations: 100, seconds: 60.0, seed: 2 };
            assert!(time(&*engine, workload, SIZE, 1, limits).is_err(), "{kind:?} {workload:?}");
        }
    });
}
