//! Who gets a turn beside whom?

use crate::turns::{Kind, Turns};
use daxstore::iomap::FileRange;
use daxstore::sync::Arc;
use daxstore::sync::thread;
use std::time::Duration;

const SLOT: u64 = 2 << 20;
use Kind::{Allocate, Invalidate, Read, Write};

fn range(offset: u64, len: u64) -> FileRange {
    FileRange { offset, len }
}

#[test]
fn the_table_of_conflicts() {
    let all = [Read, Write, Allocate, Invalidate];
    for held in all {
        for asked in all {
            let turns = Turns::default();
            let _id = turns.try_turn(range(0, SLOT), held).unwrap();
            let beside = matches!((held, asked), (Read, Allocate) | (Allocate, Read));
            assert_eq!(turns.try_turn(range(SLOT - 1, 2), asked).is_some(), beside, "{held:?} {asked:?}");
            assert!(turns.try_turn(range(SLOT, SLOT), Write).is_some() || beside, "no byte in common");
        }
    }
}

#[test]
fn who_was_dropped_is_told_of_at_the_end() {
    let turns = Turns::default();
    let id = turns.try_fault(range(0, SLOT), Write).unwrap();
    assert_eq!(turns.try_fault(range(0, SLOT), Read), None);
    assert_eq!(turns.end(id), Some(range(0, SLOT)));
    let id = turns.try_fault(range(0, SLOT), Write).unwrap();
    assert_eq!(turns.end(id), None, "told once");
}

#[test]
fn several_that_were_dropped_are_told_of_by_one_range() {
    let turns = Turns::default();
    let id = turns.wait(range(0, 10 * SLOT), Invalidate);
    assert_eq!(turns.try_fault(range(5 * SLOT, SLOT), Read), None);
    assert_eq!(turns.try_fault(range(2 * SLOT, SLOT), Read), None);
    assert_eq!(turns.end(id), Some(range(2 * SLOT, 4 * SLOT)));
}

/// Starts `wait` in a thread and returns when it waits.
fn waiting(turns: &Arc<Turns>, asked: FileRange, kind: Kind) -> thread::JoinHandle<crate::turns::TurnId> {
    let waiter = turns.clone();
    let before = turns.count().1;
    let handle = thread::spawn(move || waiter.wait(asked, kind));
    while turns.count().1 == before {
        thread::sleep(Duration::from_millis(1));
    }
    handle
}

#[test]
fn a_turn_that_waits_is_not_starved_by_faults() {
    let turns = Arc::new(Turns::default());
    let id = turns.try_fault(range(0, SLOT), Read).unwrap();
    let punch = waiting(&turns, range(0, 2 * SLOT), Invalidate);
    assert_eq!(turns.try_fault(range(SLOT, SLOT), Read), None, "newer faults stay out");
    assert_eq!(turns.end(id), None);
    let punch = punch.join().unwrap();
    assert_eq!(turns.end(punch), Some(range(SLOT, SLOT)), "and are woken by whom they made way for");
}

#[test]
fn loads_of_a_copy_do_not_wait_behind_who_waits_for_it() {
    let turns = Arc::new(Turns::default());
    let copy = turns.wait(range(0, 4096), Allocate);
    let punch = waiting(&turns, range(0, 4 * SLOT), Invalidate);
    let inside = turns.try_fault(range(0, SLOT), Read).expect("a load beside the copy");
    let elsewhere = turns.try_fault(range(2 * SLOT, SLOT), Read).expect("the source can be anywhere");
    assert_eq!(turns.end(inside).or(turns.end(elsewhere)), None);
    assert_eq!(turns.end(copy), None);
    let punch = punch.join().unwrap();
    assert_eq!(turns.end(punch), None);
}

#[test]
fn an_upgrade_waits_for_loads_and_keeps_new_ones_out() {
    let turns = Arc::new(Turns::default());
    let copy = turns.wait(range(0, 2 * SLOT), Allocate);
    let load = turns.try_fault(range(0, SLOT), Read).unwrap();
    let upgrader = turns.clone();
    let upgrade = thread::spawn(move || upgrader.upgrade(copy));
    while turns.try_fault(range(SLOT, SLOT), Read).is_some_and(|id| turns.end(id).is_none()) {
        thread::sleep(Duration::from_millis(1));
    }
    assert!(!upgrade.is_finished(), "a load is under way");
    assert_eq!(turns.end(load), None, "whom the upgrade keeps out is told of by it, not by the load");
    upgrade.join().unwrap();
    assert_eq!(turns.changing(range(0, 2 * SLOT)), Some(copy));
    assert_eq!(turns.allocating(range(0, 2 * SLOT)), None);
    assert!(turns.end(copy).is_some());
}

#[test]
fn a_turn_grows_as_far_as_nobody_is_in_the_way() {
    let turns = Turns::default();
    let id = turns.try_fault(range(5 * SLOT, SLOT), Read).unwrap();
    let low = turns.try_fault(range(SLOT, SLOT), Read).unwrap();
    let high = turns.wait(range(9 * SLOT + 4096, 4096), Invalidate);
    assert_eq!(turns.extend(id, range(0, 20 * SLOT), SLOT), range(2 * SLOT, 7 * SLOT));
    assert_eq!(turns.try_fault(range(2 * SLOT, SLOT), Read), None, "it has what it got");
    let _waked = (turns.end(low), turns.end(high));
    assert_eq!(turns.extend(id, range(4 * SLOT, SLOT), SLOT), range(2 * SLOT, 7 * SLOT), "it never shrinks");
    assert_eq!(turns.end(id), Some(range(2 * SLOT, SLOT)));
}

#[test]
fn a_turn_that_somebody_waits_for_does_not_grow() {
    let turns = Arc::new(Turns::default());
    let id = turns.try_fault(range(SLOT, SLOT), Read).unwrap();
    let punch = waiting(&turns, range(0, 4 * SLOT), Invalidate);
    assert_eq!(turns.extend(id, range(0, 8 * SLOT), SLOT), range(SLOT, SLOT));
    assert_eq!(turns.end(id), None);
    let punch = punch.join().unwrap();
    assert_eq!(turns.end(punch), None);
}
