//! Model 17: who is given space of the key-value store, and who still looks at it.
//!
//! A value that is looked at where it lies stays there while its key is overwritten; its slot is free when its last reader has gone, once. Of a
//! chunk that is emptied nobody is given a slot; its free slots are all there afterwards, each once (K19). Pages and slots that a crash left are
//! found while others take pages, give them back, and overwrite what is damaged: nothing that is in use is freed, nothing twice (K2).
//! A number of a tree that was dropped is another tree's, and nobody sees, or deletes, the one's records by the other (K18).
//!
//! Mutations: `HoldLate`, `FreeHeld`, `NotApart`, `ForgetApart`, `NoWatch`, `FreeLostTwice`, `NoEnd`.

use crate::kv_memory::{BYTES, Base, filled, first_to_split, key, open, value};
use crate::{Pool, explore, explore_large, part, pick, together};
use daxstore::pmem::sim::Sim;
use daxstore::sync::Mutex;
use daxstore::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use daxstore::units::PoolOff;
use daxstore_kv::parts::{Epochs, Heap, Held, Kept, Old};
use std::sync::Arc;

/// Bytes of a record here, and slots of a slab of them.
const RECORD: (u64, u64) = (64, 512);

/// Fails where two have one slot, or one has none, in a database with so many records of one class.
fn assert_slots(db: &Base, records: u64) {
    let mut free = db.free_slots(RECORD.0).expect("sound");
    let count = free.len() as u64;
    free.sort_unstable();
    free.dedup();
    assert_eq!(free.len() as u64, count, "a slot that is free twice");
    assert!((count + records).is_multiple_of(RECORD.1), "slots that nobody knows: {count} are free");
    assert!(db.verify().expect("read").faults.is_empty(), "sound");
}

#[test]
fn a_value_that_is_looked_at_stays_where_it_lies() {
    let pool = filled(2);
    explore_large("kv space: a held record beside overwrites", move || {
        let db = open(pool.copy());
        (0..6).for_each(|n| db.put(&key(n % 2), &value(n)).expect("put"));
        let (one, two, writer) = (db.clone(), db.clone(), db.clone());
        let look = |reader: Base| {
            part(move || {
                for _ in 0..pick(1, 100) {
                    let found = reader.get_ref(&key(0)).expect("a record that is whole").expect("a value");
                    assert!(found.len() == 40 && found.iter().all(|b| *b == found[0]), "of one change");
                    assert!(found.is_still_there(), "its slot is used again");
                }
            })
        };
        let mut parts = vec![
            part(move || {
                for n in 1..pick(16, 300) as u64 {
                    writer.put(&key(0), &value(n)).expect("put");
                }
            }),
            look(one),
        ];
        if !cfg!(loom) {
            parts.push(look(two));
        }
        together(parts);
        assert_slots(&db, 2);
    });
}

/// An index of one key, its two slots, and who waits, holds and frees, without a database around them.
#[derive(Default)]
struct Small {
    epochs: Epochs,
    held: Held,
    /// Where the record lies.
    index: AtomicU64,
    slots: [AtomicU64; 2],
    freed: AtomicU64,
}

/// What is in a slot that was used again.
const REUSED: u64 = 99;

impl Small {
    fn free(&self, at: u64) {
        self.slots[at as usize / 64 - 1].store(REUSED, Ordering::Release);
        self.freed.fetch_add(1, Ordering::SeqCst);
    }

    /// Looks at the record for a while.
    fn look(&self) {
        let find = || Ok(Some((self.index.load(Ordering::Acquire), ())));
        let (at, ()) = self.held.hold_found(&self.epochs, find).expect("no error").expect("a record");
        let found = self.slots[at as usize / 64 - 1].load(Ordering::Acquire);
        assert_eq!(found, at, "its slot is used again");
        if let Some(old) = self.held.let_go(at) {
            self.free(old.at);
        }
    }

    /// Supersedes the record and frees its slot when who was there has left: whether that was so in time.
    fn supersede(&self) -> bool {
        self.index.store(128, Ordering::Release);
        let epoch = self.epochs.advance();
        let is_over = (0..pick(2, 10_000)).any(|_| self.epochs.oldest() > epoch);
        let old = Old { at: 64, bytes: 64, sequence: 1, until: 2, tombstone: false };
        if is_over && !self.held.keeps(&old) {
            self.free(64);
        }
        is_over
    }
}

#[test]
fn the_last_who_looks_at_a_record_frees_it() {
    explore("kv space: two hold a record that is superseded", || {
        let small = Arc::new(Small { index: AtomicU64::new(64), ..Small::default() });
        (1..=2).for_each(|n| small.slots[n - 1].store(n as u64 * 64, Ordering::Release));
        let is_over = Arc::new(AtomicBool::new(false));
        let (one, two, three, over) = (small.clone(), small.clone(), small.clone(), is_over.clone());
        together(vec![
            part(move || one.look()),
            part(move || two.look()),
            part(move || over.store(three.supersede(), Ordering::SeqCst)),
        ]);
        let freed = u64::from(is_over.load(Ordering::SeqCst));
        assert_eq!((small.freed.load(Ordering::SeqCst), small.held.count()), (freed, 0), "once");
    });
}

const CHUNK: u64 = 2 << 20;
/// Slots of 8 KiB: four a slab.
const CLASS: usize = 127;
const SLOT: u64 = 8 << 10;

/// A session's free slots, and a record that it has.
struct Session {
    kept: Kept,
    record: u64,
}

impl Session {
    /// Moves the record into a free slot, as an overwrite does, and gives the one that it was in to who keeps free slots. `None` where
    /// another session has all free ones: a database takes a new slab then.
    fn change(&mut self, heap: &Heap) -> Option<u64> {
        if self.kept.len(CLASS) == 0 {
            self.kept.take_from(heap, CLASS);
        }
        let at = self.kept.pop(CLASS)?;
        let old = std::mem::replace(&mut self.record, at);
        self.kept.push(heap, CLASS, old);
        Some(at)
    }
}

/// Empties the first chunk, whose only slab has four slots, as `compact` does: whether the slab is gone.
fn empty(heap: &Heap, sessions: &[Mutex<Session>; 2], is_closed: &AtomicBool) -> bool {
    heap.leave(CHUNK);
    for session in sessions {
        session.lock().kept.give_all(heap);
    }
    heap.gather();
    is_closed.store(true, Ordering::SeqCst);
    // The record that lies there moves, if its session did not move it.
    for session in sessions {
        let mut session = session.lock();
        if session.record < 2 * CHUNK {
            session.change(heap);
        }
    }
    let is_gone = heap.count_left(CLASS, CHUNK) == 4;
    is_closed.store(false, Ordering::SeqCst);
    let gone = if is_gone { vec![CHUNK] } else { Vec::new() };
    heap.stay(&gone);
    is_gone
}

/// Everybody's slots, in order.
fn all_slots(heap: &Heap, sessions: &[Mutex<Session>; 2]) -> Vec<u64> {
    let mut all = Vec::new();
    for session in sessions {
        let mut session = session.lock();
        all.push(session.record);
        session.kept.give_all(heap);
    }
    let mut kept = Kept::default();
    while kept.take_from(heap, CLASS) {
        all.extend(std::iter::from_fn(|| kept.pop(CLASS)));
    }
    all.sort_unstable();
    all
}

/// `is_held`: somebody looks at a record of the chunk until after, so that it stays.
fn emptied(name: &str, is_held: bool) {
    explore(name, move || {
        let slot = |chunk: u64, n: u64| chunk * CHUNK + n * SLOT;
        let heap = Arc::new(Heap::default());
        // Of each chunk: a slot that each session keeps, one with a record, and one that nobody keeps.
        let session = |n: u64| {
            let mut kept = Kept::default();
            [1, 2].iter().for_each(|chunk| kept.push(&heap, CLASS, slot(*chunk, n)));
            Mutex::new(Session { kept, record: slot(1 + n, 2) })
        };
        let sessions = Arc::new([session(0), session(1)]);
        heap.give(CLASS, slot(2, 3));
        if !is_held {
            heap.give(CLASS, slot(1, 3));
        }
        let before: Vec<_> = (1..3).flat_map(|chunk| (0..4).map(move |n| slot(chunk, n))).collect();
        let is_closed = Arc::new(AtomicBool::new(false));
        let gone = Arc::new(AtomicBool::new(false));
        let worker = (heap.clone(), sessions.clone(), is_closed.clone());
        let emptier = (heap.clone(), sessions.clone(), gone.clone());
        together(vec![
            part(move || {
                let (heap, sessions, is_closed) = worker;
                for _ in 0..pick(2, 50) {
                    let mut session = sessions[0].lock();
                    let was_closed = is_closed.load(Ordering::SeqCst);
                    let at = session.change(&heap);
                    let is_closed = was_closed && is_closed.load(Ordering::SeqCst);
                    assert!(
                        !is_closed || at.is_none_or(|at| at >= 2 * CHUNK),
                        "a slot of the chunk that is emptied"
                    );
                }
            }),
            part(move || {
                let (heap, sessions, gone) = emptier;
                gone.store(empty(&heap, &sessions, &is_closed), Ordering::SeqCst);
            }),
        ]);
        if is_held {
            heap.give(CLASS, slot(1, 3));
        }
        let mut expected = before;
        if gone.load(Ordering::SeqCst) {
            expected.retain(|at| *at >= 2 * CHUNK);
        }
        assert_eq!(all_slots(&heap, &sessions), expected, "every slot once");
    });
}

#[test]
fn a_chunk_is_emptied_while_slots_are_taken_and_given() {
    emptied("kv space: a chunk is emptied", false);
}

#[test]
fn a_chunk_that_can_not_be_emptied_has_its_slots() {
    emptied("kv space: a chunk is emptied but for one slot", true);
}

fn peek(sim: &Sim, at: u64) -> u64 {
    let mut bytes = [0; 8];
    sim.peek(PoolOff(at), &mut bytes);
    u64::from_le_bytes(bytes)
}

/// Where the map has the codes of pages 1000 to 1003 of the chunk for everything but records.
fn lost_word(sim: &Sim) -> u64 {
    let is_index = |chunk: &u64| peek(sim, (1 << 20) + chunk * 8) & 0xff == 7;
    (0..4).find(is_index).expect("a chunk of an index") * CHUNK + 2000
}

/// A closed database with the keys below `count`, and a page that a crash left: nobody names it.
fn filled_with_lost_page(count: u64) -> Arc<Pool> {
    let filled = filled(count);
    Pool::new(BYTES, move |sim| {
        let image = filled.copy();
        for at in (0..BYTES).step_by(4096) {
            let mut page = [0; 4096];
            image.peek(PoolOff(at), &mut page);
            sim.poke(PoolOff(at), &page);
        }
        sim.poke(PoolOff(lost_word(&sim)), &0x3001_u64.to_le_bytes());
    })
}

#[test]
fn lost_pages_are_found_while_pages_are_taken_and_given_back() {
    let count = first_to_split();
    let pool = filled_with_lost_page(count);
    explore_large("kv space: lost pages beside a split", move || {
        let sim = pool.copy();
        let db = open(sim.clone());
        let (finder, writer) = (db.clone(), db.clone());
        together(vec![
            part(move || {
                // The segment that this replaces is free some changes later.
                for n in 0..pick(2, 40) as u64 {
                    writer.put(&key(count + n), &value(1)).expect("put");
                }
            }),
            part(move || finder.free_lost().expect("found")),
        ]);
        assert_eq!(peek(&sim, lost_word(&sim)), 0, "the page is found");
        // What was freed is used.
        (500..pick(530, 700) as u64).for_each(|n| db.put(&key(n), &value(n)).expect("put"));
        assert!(db.verify().expect("read").faults.is_empty(), "sound");
        (0..count).for_each(|n| assert_eq!(db.get(&key(n)).expect("sound"), Some(value(0).to_vec())));
    });
}

/// A closed database with three keys, the record of one of which is damaged.
fn damaged() -> Arc<Pool> {
    Pool::new(BYTES, |sim| {
        let db = open(sim.clone());
        (0..3).for_each(|n| db.put(&key(n), &value(50 + n)).expect("put"));
        db.close().expect("closed");
        let word = u64::from_le_bytes([51; 8]);
        let at = (CHUNK..BYTES).step_by(8).find(|at| peek(&sim, *at) == word).expect("a value");
        sim.poke(PoolOff(at), &[0]);
    })
}

#[test]
fn a_damaged_record_is_superseded_while_lost_slots_are_looked_for() {
    let pool = damaged();
    explore_large("kv space: a lost slot beside its successor", move || {
        let db = open(pool.copy());
        // The slots that were there are swept.
        db.put(&key(0), &value(1)).expect("put");
        assert!(db.get(&key(1)).is_err(), "damaged");
        let (finder, writer) = (db.clone(), db.clone());
        together(vec![
            part(move || {
                (1..pick(6, 12) as u64).for_each(|n| writer.put(&key(1), &value(n)).expect("put"));
            }),
            part(move || finder.free_lost().expect("found")),
        ]);
        assert_slots(&db, 3);
    });
}

#[test]
fn a_number_is_another_trees_while_the_dropped_one_is_used() {
    let pool = Pool::new(BYTES, |sim| {
        let db = open(sim);
        db.tree("old").expect("a tree").put(&key(0), &value(1)).expect("put");
        db.close().expect("closed");
    });
    explore_large("kv space: a dropped tree and its successor", move || {
        let db = open(pool.copy());
        let old = db.tree("old").expect("a tree");
        let maker = db.clone();
        together(vec![
            part(move || {
                assert!(maker.drop_tree("old").expect("dropped"));
                let new = maker.tree("new").expect("a tree");
                new.put(&key(0), &value(2)).expect("put");
            }),
            part(move || {
                let found = old.get(&key(0)).expect("sound");
                assert!(found.is_none_or(|found| found == value(1)), "a record of another tree");
                if let Ok(was_there) = old.compare_and_swap(&key(0), Some(&value(2)), None) {
                    assert!(!was_there, "a record of another tree");
                }
            }),
        ]);
        let new = db.tree("new").expect("a tree");
        assert_eq!(new.get(&key(0)).expect("sound"), Some(value(2).to_vec()), "deleted by another tree");
    });
}

#[cfg(loom)]
#[test]
fn broken_rules_are_noticed() {
    use crate::assert_caught;
    use daxstore_kv::mutation::Mutation;
    assert_caught("kv_space::the_last_who_looks_at_a_record_frees_it", Mutation::HoldLate);
    assert_caught("kv_space::the_last_who_looks_at_a_record_frees_it", Mutation::FreeHeld);
    assert_caught("kv_space::a_chunk_is_emptied_while_slots_are_taken_and_given", Mutation::NotApart);
    assert_caught("kv_space::a_chunk_that_can_not_be_emptied_has_its_slots", Mutation::ForgetApart);
    assert_caught("kv_space::lost_pages_are_found_while_pages_are_taken_and_given_back", Mutation::NoWatch);
    let damaged = "kv_space::a_damaged_record_is_superseded_while_lost_slots_are_looked_for";
    assert_caught(damaged, Mutation::FreeLostTwice);
    assert_caught("kv_space::a_number_is_another_trees_while_the_dropped_one_is_used", Mutation::NoEnd);
}
