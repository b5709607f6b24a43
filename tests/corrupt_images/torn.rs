//! Sectors that were not written, or half, and files cut short.
use super::flips::Random;
use super::observe::is_typed;
use super::pool::{SIZE, make};
use super::trial::{Bench, Expect};
use daxstore::pmem::sim::{Event, Sim};
use daxstore::store::check::{check_path, check_sim};
use daxstore::units::PoolOff;
use daxstore::{Store, StoreOptions};
use std::sync::Arc;

#[test]
fn torn_sectors_tell_no_lies_and_can_be_mended() {
    let bench = Bench::new();
    let mut random = Random(3);
    for sector in [512_u64, 4096] {
        let mut places: Vec<_> = bench.map().objects().iter().map(|o| o.at.0 / sector * sector).collect();
        places.dedup();
        for at in places.into_iter().map(PoolOff) {
            if at.0 > 0 && random.below(3) > 0 {
                continue;
            }
            let garbage: Vec<u8> = (0..sector).map(|_| random.below(256) as u8).collect();
            bench.trial(&format!("garbage, {sector} bytes at {at:?}"), Expect::NoLies, |sim| {
                sim.poke(at, &garbage);
            });
            bench.trial(&format!("zeros, {sector} bytes at {at:?}"), Expect::NoLies, |sim| {
                sim.poke(at, &vec![0; sector as usize]);
            });
        }
    }
}

#[test]
fn sectors_of_an_older_state_do_no_harm() {
    let bench = Bench::new();
    let mut old = vec![0; SIZE as usize];
    bench.sim.peek(PoolOff(0), &mut old);
    let store = Store::open_sim(bench.sim.clone()).unwrap();
    for i in 0..40 {
        store.write(format!("/a/more {i}"), &[i; 6000]).unwrap();
        store.remove_file(format!("/many/file number {}", i + 10)).unwrap();
    }
    store.rename("/a/b", "/many/b").unwrap();
    store.close().unwrap();
    let mut random = Random(4);
    // From here on the later state is the one to go back to.
    bench.sim.start_undo();
    let places: Vec<_> = bench.map().objects().iter().map(|o| o.at.0 / 512 * 512).collect();
    for at in places {
        let mut now = vec![0; 512];
        bench.sim.peek(PoolOff(at), &mut now);
        let before = &old[at as usize..at as usize + 512];
        if now != before && random.below(3) == 0 {
            bench.trial(&format!("old sector at {at:#x}"), Expect::NoHarm, |sim| {
                sim.poke(PoolOff(at), before)
            });
        }
    }
}

#[test]
fn a_file_cut_short_is_refused() {
    let sim = make();
    let mut image = vec![0; SIZE as usize];
    sim.peek(PoolOff(0), &mut image);
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = dir.path().join("pool");
    let options = StoreOptions::new().assume_persistent(true);
    for len in [0, 1, 511, 512, 4096, 100_000, 106_496, 107_008, 1 << 20, SIZE - 4096, SIZE - 1] {
        std::fs::write(&path, &image[..len as usize]).unwrap();
        let error = Store::open(&path, &options).err().unwrap_or_else(|| panic!("{len} bytes opened"));
        assert!(is_typed(&error), "{len} bytes: {error}");
        for repair in [false, true] {
            let error = check_path(&path, repair, &options, &|_| ()).expect_err("a pool cut short");
            assert!(is_typed(&error), "{len} bytes: {error}");
        }
    }
    std::fs::write(&path, &image).unwrap();
    assert!(check_path(&path, false, &options, &|_| ()).unwrap().is_clean());
    let read_only = options.clone().read_only(true);
    assert!(check_path(&path, false, &read_only, &|_| ()).unwrap().is_clean());
    assert!(check_path(&path, true, &read_only, &|_| ()).is_err(), "a repair that may not write");
}

/// A repair that is cut short leaves a pool that can be repaired.
#[test]
fn a_repair_that_was_cut_short_is_taken_up() {
    let bench = Bench::new();
    let objects: Vec<_> =
        bench.map().objects().into_iter().filter(|o| o.in_use && o.kind.is_some()).collect();
    let mut damaged = vec![0; SIZE as usize];
    bench.sim.peek(PoolOff(0), &mut damaged);
    // Something of every kind: every ninth object loses a bit.
    for object in objects.iter().step_by(9) {
        damaged[object.at.0 as usize + 20] ^= 4;
    }
    let whole = Arc::new(Sim::new(SIZE).unwrap());
    whole.poke(PoolOff(0), &damaged);
    whole.start_trace();
    assert!(!check_sim(whole.clone(), true).unwrap().is_clean());
    let trace = whole.take_trace();
    assert!(check_sim(whole, false).unwrap().is_clean());
    let fences = trace.events.iter().filter(|e| matches!(e, Event::Fence { .. })).count();
    assert!(fences > 20, "{fences}");
    let cut = Arc::new(Sim::new(SIZE).unwrap());
    cut.poke(PoolOff(0), &damaged);
    cut.start_undo();
    let mut random = Random(5);
    for _ in 0..150 {
        let end = random.below(trace.events.len() as u64) as usize;
        // Of the stores since the last fence any may be missing.
        let fenced = trace.events[..end].iter().rposition(|e| matches!(e, Event::Fence { .. })).unwrap_or(0);
        for (i, event) in trace.events[..end].iter().enumerate() {
            if let Event::Store { at, len, data, .. } = event
                && (i < fenced || random.below(2) == 0)
            {
                cut.poke(PoolOff(*at), &trace.data[*data..*data + *len as usize]);
            }
        }
        let report = check_sim(cut.clone(), true).unwrap_or_else(|e| panic!("cut at {end}: {e}"));
        let after = check_sim(cut.clone(), false).unwrap();
        assert!(after.is_clean(), "cut at {end}: {:?}\nbefore {:?}", after.faults, report.faults);
        cut.roll_back();
    }
}
