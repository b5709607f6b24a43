//! Model 2: lanes. After each interleaving, a power cut at every fence and every return, and recovery.
//!
//! Objects hold the set of operations that changed them. What recovery brings back must have each operation in all of
//! its objects or in none, every one that returned, and none that had not begun. The lanes hold two or three records,
//! so they wrap. Mutations: `EpochWithoutLanes`, `NoCommitFence`, `NoVersion`, `NoCover`.

use crate::{Event, Pool, explore, geometry, part, superblock, together};
use daxstore::journal::Journal;
use daxstore::layout::{Geometry, Image, Kind};
use daxstore::pmem::sim::crash::{Cause, Mode, Plan, Replay, Stop};

use daxstore::pmem::sim::{Event as Mark, Sim};
use daxstore::pmem::{Durable, Region};
use daxstore::sync::{Mutex, MutexGuard};
use daxstore::units::PoolOff;
use std::sync::Arc;

/// Where the set of operations is in an object, after its header.
const SET_AT: usize = 16;
const OBJECTS: usize = 5;
const KIND: Kind = Kind::Node;

fn home(object: usize) -> PoolOff {
    PoolOff((4 << 20) + object as u64 * KIND.slot_bytes() as u64)
}

struct Objects {
    sim: Arc<Sim>,
    journal: Journal,
    locks: [Mutex<()>; OBJECTS],
}

fn read(journal: &Journal, object: usize) -> u64 {
    let image = journal.read(home(object), KIND).unwrap();
    let word = image.bytes().get(SET_AT..SET_AT + 8).map_or([0; 8], |word| word.try_into().unwrap());
    u64::from_le_bytes(word)
}

impl Objects {
    fn open(sim: Arc<Sim>) -> Self {
        let region = Arc::new(Region::sim(sim.clone()));
        Self { sim, journal: Journal::open(region).unwrap().0, locks: Default::default() }
    }

    /// Adds operation `number` to the set of each of `objects` (ascending), in one change.
    fn change(&self, number: u64, objects: &[usize]) {
        let guards: Vec<MutexGuard<'_, ()>> = objects.iter().map(|o| self.locks[*o].lock()).collect();
        self.sim.mark(Mark::Begin(number));
        let mut tx = self.journal.begin();
        for object in objects {
            let set = read(&self.journal, *object) | 1 << number;
            let mut image = Image::new(KIND, KIND.slot_bytes());
            image.bytes_mut()[SET_AT..SET_AT + 8].copy_from_slice(&set.to_le_bytes());
            tx.stage(home(*object), image).unwrap();
        }
        tx.commit(Durable::no_data()).unwrap();
        self.sim.mark(Mark::Return(number));
        drop(guards);
    }
}

/// Which operations change what, in this order; `None` is a quiesce.
type Script = [&'static [Option<(u64, &'static [usize])>]];

const PLAN: Plan = Plan { mode: Mode::InOrder, exhaustive: 8, singles: 2, samples: 2, seed: 1 };

fn run(pool: &Pool, before: &[(u64, &[usize])], script: &'static Script) {
    let sim = pool.copy();
    let scratch = Arc::new(pool.copy());
    sim.start_trace();
    let objects = Arc::new(Objects::open(sim.clone()));
    before.iter().for_each(|(number, of)| objects.change(*number, of));
    let parts = script.iter().map(|steps| {
        let objects = objects.clone();
        part(move || {
            for step in *steps {
                match step {
                    Some((number, of)) => objects.change(*number, of),
                    None => objects.journal.quiesce().unwrap(),
                }
            }
        })
    });
    together(parts.collect());
    let trace = sim.take_trace();
    scratch.start_undo();
    let all: Vec<(u64, &[usize])> =
        before.iter().copied().chain(script.iter().copied().flatten().copied().flatten()).collect();
    let mut replay = Replay::new(&scratch, &trace);
    let mut returned = 0;
    while let Some(stop) = replay.advance() {
        if let Cause::Return(number) = stop.cause {
            returned |= 1_u64 << number;
        }
        let pending = replay.pending(PLAN.mode);
        let mut images = pending.images(&PLAN, stop.event as u64);
        while let Some(words) = images.next_image() {
            let savepoint = scratch.savepoint();
            scratch.poke_words(words);
            assert_recovers(&scratch, &all, returned, &stop);
            scratch.roll_back_to(savepoint);
        }
    }
}

fn assert_recovers(sim: &Arc<Sim>, all: &[(u64, &[usize])], returned: u64, stop: &Stop) {
    let (journal, _) = Journal::open(Arc::new(Region::sim(sim.clone()))).unwrap();
    let sets: Vec<u64> = (0..OBJECTS).map(|object| read(&journal, object)).collect();
    let begun = stop.in_flight.iter().fold(returned, |set, number| set | 1 << number);
    for (number, of) in all {
        let has = of.iter().filter(|object| sets[**object] >> number & 1 == 1).count();
        assert!(has == 0 || has == of.len(), "operation {number} in part: {sets:x?} at {stop:?}");
        assert!(has > 0 || returned >> number & 1 == 0, "operation {number} is lost: {sets:x?} at {stop:?}");
        assert!(has == 0 || begun >> number & 1 == 1, "operation {number} had not begun at {stop:?}");
    }
}

fn pool(lanes: u32) -> Arc<Pool> {
    let geometry = Geometry { lane_bytes: 4096, ..geometry(lanes) };
    Pool::new(geometry.size, move |sim| {
        Journal::format(&Region::sim(sim), &superblock(geometry)).unwrap();
    })
}

#[test]
fn changes_of_overlapping_objects_in_one_lane() {
    let pool = pool(1);
    explore("journal: one lane", move || {
        // Object 4 is in the first record only, which the others overwrite.
        let before: &[(u64, &[usize])] = &[(0, &[4]), (1, &[0, 2])];
        run(&pool, before, &[&[Some((2, &[0, 1])), Some((3, &[3]))], &[Some((4, &[1, 2])), Some((5, &[0]))]]);
    });
}

#[test]
fn changes_of_overlapping_objects_in_two_lanes() {
    let pool = pool(2);
    explore("journal: two lanes", move || {
        let before: &[(u64, &[usize])] = &[(0, &[0, 1]), (1, &[2]), (2, &[1, 3])];
        run(
            &pool,
            before,
            &[&[Some((3, &[0, 1])), Some((4, &[1]))], &[Some((5, &[1, 2])), Some((6, &[0, 3]))]],
        );
    });
}

#[test]
fn an_epoch_begins_between_changes() {
    let pool = pool(2);
    explore("journal: quiesce", move || {
        let before: &[(u64, &[usize])] = &[(0, &[0, 1])];
        run(&pool, before, &[&[Some((1, &[0, 1])), Some((2, &[2]))], &[None], &[Some((3, &[1, 3]))]]);
    });
}

/// The object's lock alone keeps two changes of it apart; the lanes do not wait for each other.
#[test]
fn a_change_does_not_wait_for_another_in_its_lane_order() {
    let pool = pool(2);
    explore("journal: parallel", move || {
        let objects = Arc::new(Objects::open(pool.copy()));
        let done = [Arc::new(Event::default()), Arc::new(Event::default())];
        let parts = [0, 1].map(|i| {
            let (objects, own, other) = (objects.clone(), done[i].clone(), done[1 - i].clone());
            part(move || {
                objects.change(i as u64, &[i]);
                own.set();
                other.wait();
                assert_eq!(read(&objects.journal, 1 - i), 1 << (1 - i), "visible once it returned");
            })
        });
        together(parts.into());
    });
}

#[cfg(loom)]
#[test]
fn mutations_are_caught() {
    use daxstore::pmem::mutation::Mutation;
    crate::assert_caught("journal::an_epoch_begins_between_changes", Mutation::EpochWithoutLanes);
    let one = "journal::changes_of_overlapping_objects_in_one_lane";
    crate::assert_caught(one, Mutation::NoCommitFence);
    crate::assert_caught(one, Mutation::NoCover);
    crate::assert_caught("journal::changes_of_overlapping_objects_in_two_lanes", Mutation::NoVersion);
}
