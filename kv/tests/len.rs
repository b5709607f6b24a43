//! Is the number of records right when a crash left nobody who knows it?

#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, reason = "a test has nobody to report to")]

use daxstore::pmem::sim::Sim;
use daxstore_kv::media::SimMedia;
use daxstore_kv::{Db, Options};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

fn open(sim: Arc<Sim>) -> Db<SimMedia> {
    Db::open_sim(sim, &Options::new().create(true).seed(7)).unwrap()
}

fn key(n: u32) -> [u8; 4] {
    n.to_be_bytes()
}

/// A process that dies with 3000 records in the tree without a name, 500 in one with a name, and none in a third.
fn died() -> Arc<Sim> {
    let sim = Arc::new(Sim::new(16 << 20).unwrap());
    let db = open(sim.clone());
    let (some, none) = (db.tree("some").unwrap(), db.tree("none").unwrap());
    for n in 0..4000 {
        db.put(&key(n), b"value").unwrap();
        db.put(&key(n), b"another").unwrap();
    }
    (0..1000).for_each(|n| some.put(&key(n), b"value").unwrap());
    none.put(b"key", b"value").unwrap();
    none.delete(b"key").unwrap();
    (0..4000).step_by(4).for_each(|n| assert!(db.delete(&key(n)).unwrap()));
    (0..1000).step_by(2).for_each(|n| assert!(some.delete(&key(n)).unwrap()));
    Arc::new(sim.fork().unwrap())
}

#[test]
fn after_a_crash_the_records_of_all_trees_are_counted() {
    let db = open(died());
    assert!(!db.recovery().clean);
    let (some, none) = (db.tree("some").unwrap(), db.tree("none").unwrap());
    some.put(&key(0), b"again").unwrap();
    assert_eq!((db.len().unwrap(), some.len().unwrap(), none.len().unwrap()), (3000, 501, 0));
    some.delete(&key(1)).unwrap();
    none.put(b"key", b"value").unwrap();
    db.put(&key(1), b"overwritten").unwrap();
    assert_eq!((db.len().unwrap(), some.len().unwrap(), none.len().unwrap()), (3000, 500, 1));
}

#[test]
fn records_are_counted_beside_changes() {
    let db = open(died());
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Two keys come and go; the others stay.
            for n in 0_u32.. {
                db.put(&key(5000 + n % 2), b"value").unwrap();
                db.delete(&key(5001 - n % 2)).unwrap();
                if over.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        let counts: Vec<_> = (0..20).map(|_| db.len().unwrap()).collect();
        over.store(true, Ordering::Relaxed);
        assert!(counts.iter().all(|count| (3000..=3002).contains(count)), "{counts:?}");
    });
    assert_eq!(db.len().unwrap(), db.snapshot().len().unwrap());
}
