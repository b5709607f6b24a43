//! What does somebody find who is killed again and again?

#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, reason = "a test has nobody to report to")]

use daxstore::pmem::sim::Sim;
use daxstore_kv::media::SimMedia;
use daxstore_kv::{Db, Options};
use std::sync::Arc;

/// Notes of a ring.
const NOTES: u64 = 508;

fn open(sim: &Arc<Sim>) -> Db<SimMedia> {
    Db::open_sim(sim.clone(), &Options::new().create(true).seed(7)).unwrap()
}

/// Each life puts `each` new keys, 800 in all, and overwrites one: how many notes the fullest ring had when the next life began.
fn live_and_die(each: u32) -> u64 {
    let (mut sim, mut most, mut count) = (Arc::new(Sim::new(16 << 20).unwrap()), 0, 0_u32);
    while count < 800 {
        let db = open(&sim);
        most = most.max(db.recovery().notes);
        for n in count..count + each {
            db.put(&n.to_be_bytes(), &n.to_le_bytes()).unwrap();
        }
        count += each;
        db.put(&(count / 2).to_be_bytes(), &(count / 2).to_le_bytes()).unwrap();
        // Nothing of what it was about is done.
        sim = Arc::new(sim.fork().unwrap());
    }
    let db = open(&sim);
    let keys = db.range(..).unwrap().map(|one| one.unwrap().0.to_vec());
    assert!(keys.eq((0..count).map(|n| n.to_be_bytes().to_vec())), "{each}");
    for n in 0..count {
        assert_eq!(db.get(&n.to_be_bytes()).unwrap().as_deref(), Some(&n.to_le_bytes()[..]));
    }
    assert_eq!(db.len().unwrap(), u64::from(count));
    assert!(db.verify().unwrap().faults.is_empty());
    most
}

/// However few changes a life has, its ring is written back before it has no room for the next one's.
#[test]
fn rings_have_room_however_short_lives_are() {
    for each in [5, 40, 63, 100] {
        let most = live_and_die(each);
        println!("{each} a life: {most} notes");
        assert!(most < NOTES / 2, "{each} a life: {most} notes");
    }
}

/// One change takes some of what a killed process left into the order; the close that follows makes all of it durable.
#[test]
fn what_was_replayed_is_durable_when_a_database_is_closed() {
    let sim = Arc::new(Sim::new(16 << 20).unwrap());
    let db = open(&sim);
    (0..150_u32).for_each(|n| db.put(&n.to_be_bytes(), b"value").unwrap());
    let died = Arc::new(sim.fork().unwrap());
    let db = open(&died);
    assert!(db.recovery().notes > 10, "{:?}", db.recovery());
    db.delete(&7_u32.to_be_bytes()).unwrap();
    db.close().unwrap();
    let db = open(&died);
    assert_eq!((db.recovery().notes, db.recovery().clean), (0, true));
    assert_eq!((db.range(..).unwrap().count(), db.len().unwrap()), (149, 149));
}
