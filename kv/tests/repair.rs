//! Does a tree whose order is damaged get it back, with every key?

#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, reason = "a test has nobody to report to")]

use daxstore::pmem::Region;
use daxstore::pmem::sim::Sim;
use daxstore::units::PoolOff;
use daxstore_kv::media::SimMedia;
use daxstore_kv::{Db, Options};
use std::sync::Arc;

const KEYS: u64 = 3000;
/// Bytes of the memory.
const BYTES: u64 = 16 << 20;

fn options() -> Options {
    Options::new().create(true).seed(7)
}

fn key(n: u64) -> Vec<u8> {
    format!("key {:05}", n * 7919 % KEYS).into_bytes()
}

/// Where the catalog says that the ordered index of the tree without a name lies.
const ROOT: u64 = (64 << 10) + 64 * (8 << 10) + 8;

/// The value of a sealed word.
const SEALED: u64 = (1 << 48) - 1;

fn filled() -> Arc<Sim> {
    let sim = Arc::new(Sim::new(BYTES).unwrap());
    let db: Db<SimMedia> = Db::open_sim(sim.clone(), &options()).unwrap();
    let tree = db.tree("other").unwrap();
    for n in 0..KEYS {
        db.put(&key(n), &n.to_le_bytes()).unwrap();
        if n % 10 == 0 {
            tree.put(&key(n), b"of the other").unwrap();
        }
    }
    drop(tree);
    db.close().unwrap();
    sim
}

fn word(region: &Region, at: u64) -> u64 {
    region.load(PoolOff(at)).unwrap()
}

/// Overwrites `len` bytes at `at`.
fn damage(sim: &Arc<Sim>, at: u64, len: usize) {
    Region::sim(sim.clone()).store(PoolOff(at), &vec![0x5a; len]).unwrap();
}

/// Opens with a repair, and finds everything; then again without one.
fn repaired(sim: &Arc<Sim>, rebuilt: u64) {
    let db = Db::open_sim(sim.clone(), &Options::new().repair(true)).unwrap();
    assert_eq!(db.recovery().rebuilt, rebuilt);
    for again in [false, true] {
        let db = if again { Db::open_sim(sim.clone(), &Options::new()).unwrap() } else { db.clone() };
        let records: Vec<_> = db.range(..).unwrap().map(Result::unwrap).collect();
        assert_eq!(records.len() as u64, KEYS);
        assert!(records.is_sorted() && db.last().unwrap().unwrap().0 == records[records.len() - 1].0);
        assert_eq!(db.tree("other").unwrap().range(..).unwrap().count() as u64, KEYS / 10);
        let faults = db.verify().unwrap().faults;
        assert!(faults.is_empty(), "{faults:?}");
        // The pages of the old order are found, and what is new goes on.
        db.compact().unwrap();
        db.put(b"new", b"value").unwrap();
        assert!(db.delete(b"new").unwrap());
        assert_eq!(db.range(..).unwrap().count() as u64, KEYS);
        if !again {
            assert_eq!(
                Db::open_sim(Arc::new(sim.fork().unwrap()), &Options::new().repair(true))
                    .unwrap()
                    .recovery()
                    .rebuilt,
                0
            );
        }
        std::mem::forget(db);
    }
    std::mem::forget(db);
}

#[test]
fn an_order_that_is_whole_is_left_alone() {
    repaired(&filled(), 0);
}

#[test]
fn leaves_and_groups_that_can_not_be_read_come_back() {
    let sim = filled();
    let region = Region::sim(sim.clone());
    let root = word(&region, ROOT) & SEALED;
    // The first link of the root leads to a group, whose second link leads to a leaf.
    let group = word(&region, root + 64) & 0xffff_ffff_ff00;
    let leaf = word(&region, group + 72) & 0xffff_ffff_ff00;
    for (at, len) in [(leaf + 100, 16), (leaf, 8), (group, 16)] {
        let sim = Arc::new(sim.fork().unwrap());
        damage(&sim, at, len);
        let db = Db::open_sim(Arc::new(sim.fork().unwrap()), &Options::new()).map(|db| {
            let lost = db.range(..).unwrap().filter(Result::is_err).count();
            std::mem::forget(db);
            lost
        });
        assert!(!matches!(db, Ok(0)), "the damage is told of");
        repaired(&sim, 1);
    }
}

#[test]
fn an_order_without_a_root_comes_back() {
    let sim = filled();
    let root = word(&Region::sim(sim.clone()), ROOT) & SEALED;
    damage(&sim, root, 64);
    assert!(Db::open_sim(Arc::new(sim.fork().unwrap()), &Options::new()).is_err());
    repaired(&sim, 1);
}

/// Power may be cut at any moment of it: the order is damaged as before, or whole.
#[test]
fn a_repair_that_power_cut_off_can_be_done_again() {
    use daxstore::pmem::sim::crash::{Mode, Plan, crash_recovery};
    let sim = filled();
    let root = word(&Region::sim(sim.clone()), ROOT) & SEALED;
    let group = word(&Region::sim(sim.clone()), root + 64) & 0xffff_ffff_ff00;
    damage(&sim, (word(&Region::sim(sim.clone()), group + 72) & 0xffff_ffff_ff00) + 100, 16);
    sim.start_undo();
    let plan = Plan { mode: Mode::Words, exhaustive: 2, singles: 1, samples: 1, seed: 1 };
    let mut images = 0;
    let counts = crash_recovery(&sim, &plan, |_| {
        images += 1;
        let db =
            Db::open_sim(sim.clone(), &Options::new().repair(true)).map_err(|error| error.to_string())?;
        let found = db.range(..).map_err(|error| error.to_string())?.filter(Result::is_ok).count() as u64;
        std::mem::forget(db);
        if found == KEYS { Ok(()) } else { Err(format!("{found} keys")) }
    });
    assert!(counts.unwrap().images > 50 && images > 50, "{images}");
}
