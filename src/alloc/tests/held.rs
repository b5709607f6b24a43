//! Are pinned blocks and chunks zeroed ahead neither given away too early nor lost?

use super::*;
use crate::pmem::sim::Event;

/// 128 chunks.
const MIDDLE: u64 = 256 << 20;

fn pins_of(space: &Space) -> usize {
    space.pins.pinned_runs()
}

#[test]
fn a_freed_pinned_block_is_nobodys_until_it_is_unpinned() {
    let sim = format(TINY);
    let space = open(&sim);
    let run = get(&space, 20, 100, None).unwrap();
    let part = Run::new(Block(run.start.0 + 5), 10);
    space.pin(&[part]).unwrap();
    let free = space.free_blocks();
    release(&space, run).unwrap();
    assert_eq!(space.free_blocks(), free + 10, "what is not pinned");
    assert_eq!(space.journal.totals().used, 0, "on the media all is free");
    assert_eq!(open(&Arc::new(sim.fork().unwrap())).free_blocks(), free + 20, "for who opens it anew too");
    let goal = Some(part.start.0);
    let other = get(&space, 10, 105, goal).unwrap();
    assert!(other.start.0 >= part.end().0 || other.end().0 <= part.start.0, "{other:?} is withheld");
    release(&space, other).unwrap();
    space.unpin(&[part]);
    assert_eq!((space.free_blocks(), pins_of(&space)), (free + 20, 0));
    assert_eq!(get(&space, 10, 105, goal).unwrap(), part);
    check(&space);
}

#[test]
fn whole_chunks_are_withheld_too_and_chunks_in_part_break() {
    let space = space(SMALL);
    let run = get(&space, 4 * 512, 0, None).unwrap();
    let before = available(&space);
    // The second chunk, and the first blocks of the third.
    let pinned = Run::new(Block(run.start.0 + 512), 520);
    space.pin(&[pinned]).unwrap();
    release(&space, run).unwrap();
    assert_eq!(available(&space), before + 4 * 512 - 520);
    assert_eq!(free_chunks(&space), 30, "on the media");
    let again = get(&space, 512, 512, Some(pinned.start.0)).unwrap();
    assert_ne!(again.start, pinned.start);
    release(&space, again).unwrap();
    space.unpin(&[Run::new(pinned.start, 512)]);
    assert_eq!(get(&space, 512, 512, Some(pinned.start.0)).unwrap().start, pinned.start);
    space.unpin(&[Run::new(Block(pinned.start.0 + 512), 8)]);
    check(&space);
}

#[test]
fn pins_count_and_overlap() {
    let space = space(SMALL);
    let run = get(&space, 1024, 0, None).unwrap();
    let at = |from, len| Run::new(Block(run.start.0 + from), len);
    space.pin(&[at(0, 600), at(100, 100)]).unwrap();
    space.pin(&[at(150, 874)]).unwrap();
    release(&space, run).unwrap();
    let free = space.free_blocks();
    space.unpin(&[at(0, 600)]);
    assert_eq!(space.free_blocks(), free + 100, "those before the second pin");
    space.unpin(&[at(150, 874)]);
    assert_eq!(space.free_blocks(), free + 924);
    space.unpin(&[at(0, 1024)]);
    assert_eq!((space.free_blocks(), pins_of(&space)), (free + 1024, 0), "the last pin");
    space.unpin(&[at(0, 1024)]);
    check(&space);
}

#[test]
fn a_change_that_does_not_happen_withholds_nothing() {
    let space = space(TINY);
    let run = get(&space, 40, 0, None).unwrap();
    space.pin(&[run]).unwrap();
    let mut op = space.begin();
    op.release(run).unwrap();
    drop(op);
    space.unpin(&[run]);
    check(&space);
    assert!(space.pin(&[Run::new(Block(3 * 512), 513)]).is_err(), "past the end of the pool");
    assert_eq!(pins_of(&space), 0);
}

#[test]
fn pins_stay_while_arenas_are_reclaimed_and_the_pool_grows() {
    let sim = format_part(SMALL, TINY);
    let space = open(&sim);
    let run = get(&space, 512, 0, None).unwrap();
    space.pin(&[run]).unwrap();
    let inos: Vec<_> = (0..100).map(|_| new_inode(&space).unwrap()).collect();
    inos.into_iter().for_each(|ino| free_inode(&space, ino).unwrap());
    release(&space, run).unwrap();
    assert!(space.try_reclaim().unwrap().unwrap() > 0);
    space
        .journal
        .update_superblock(|s| {
            s.geometry.size = SMALL;
            Ok(())
        })
        .unwrap();
    while let Ok(got) = get(&space, 512, 0, None) {
        assert!(got.start.0 >= run.end().0 || got.end().0 <= run.start.0, "{got:?} is pinned");
    }
    space.unpin(&[run]);
    assert_eq!(get(&space, 512, 0, None).unwrap(), run);
    check(&space);
}

fn ahead(space: &Space) -> Vec<Run> {
    space.ahead.ready()
}

fn is_zero_run(sim: &Sim, run: Run) -> bool {
    let mut bytes = vec![1; (run.len * 4096) as usize];
    sim.peek(run.start.offset(), &mut bytes);
    bytes.iter().all(|b| *b == 0)
}

#[test]
fn chunks_zeroed_ahead_are_free_and_go_to_whole_wants_first() {
    let sim = format(MIDDLE);
    let space = open(&sim);
    // All of it held something once.
    (1..128).for_each(|chunk| sim.poke(Chunk(chunk).first_block().offset(), &[0xee; 1 << 21]));
    let free = (space.free_blocks(), free_chunks(&space));
    assert!((0..3).all(|_| space.zero_ahead(3).unwrap()));
    assert!(!space.zero_ahead(3).unwrap(), "enough");
    let ready = ahead(&space);
    assert_eq!(
        (ready.len(), space.free_blocks(), free_chunks(&space)),
        (3, free.0, free.1),
        "free as before"
    );
    assert!(ready.windows(2).all(|w| w[0].end() == w[1].start), "in a row: {ready:?}");
    let other = get(&space, 512, 0, None).unwrap();
    assert!(!ready.contains(&other), "nobody else's");
    let mut op = space.begin();
    assert_eq!(op.reserve_whole(FileBlock(3)).unwrap(), None, "not congruent");
    let (run, zeroed) = op.reserve_whole(FileBlock(1024)).unwrap().unwrap();
    assert_eq!((run, zeroed), (ready[0], true));
    assert!(is_zero_run(&sim, run));
    assert_eq!(space.free_blocks(), free.0 - 1024, "from now on it is taken");
    op.commit(Durable::no_data()).unwrap();
    let mut op = space.begin();
    let more: Vec<_> = (0..3).map(|_| op.reserve_whole(FileBlock(0)).unwrap().unwrap()).collect();
    assert_eq!(more.iter().map(|m| m.1).collect::<Vec<_>>(), [true, true, false]);
    drop(op);
    check(&space);
}

#[test]
fn zeros_are_durable_when_a_chunk_is_ready() {
    let sim = format(MIDDLE);
    let space = open(&sim);
    sim.poke(PoolOff(1 << 21), &[0xee; 1 << 21]);
    sim.start_trace();
    assert!(space.zero_ahead(1).unwrap());
    let run = ahead(&space)[0];
    assert_eq!(run.start, Block(512));
    let (mut waiting, mut zeroed) = (0, 0);
    for event in sim.take_trace().events {
        match event {
            Event::Store { at, len, nt, .. } => {
                assert!(nt && Chunk(1).first_block().offset().0 <= at && at + len <= 2 << 21, "{event:?}");
                (waiting, zeroed) = (waiting + len, zeroed + len);
            }
            _ => {
                assert!(matches!(event, Event::Fence { .. }), "{event:?}");
                waiting = 0;
            }
        }
    }
    assert_eq!((waiting, zeroed), (0, 1 << 21), "fenced, and nothing else of the media changed");
    assert!(is_zero_run(&sim, run));
}

#[test]
fn space_set_aside_is_given_back_before_there_is_no_space() {
    let space = space(MIDDLE);
    while space.zero_ahead(100).unwrap() {}
    let ready = ahead(&space).len() as u64;
    assert!((8..=127 / 8).contains(&ready), "an eighth, and 16 MiB more stay: {ready}");
    let mut chunks = 0;
    while get(&space, 512, 0, None).is_ok_and(|run| run.len == 512) {
        chunks += 1;
    }
    assert_eq!(chunks, 127, "every chunk");
    assert!(!space.zero_ahead(1).unwrap(), "nothing to spare");
    check(&space);
}

#[test]
fn one_large_want_after_the_other_gets_what_was_set_aside() {
    for blocks in [300, 1, 512 * 100] {
        let space = space(MIDDLE);
        while space.zero_ahead(4).unwrap() {}
        assert_eq!(ahead(&space).len(), 4);
        while get(&space, blocks, 0, None).is_ok() {}
        assert_eq!(space.spare_blocks(), 0, "wants of {blocks}");
        assert_eq!(ahead(&space), []);
        check(&space);
    }
}

#[test]
fn a_small_pool_sets_nothing_aside_and_a_dropped_one_loses_nothing() {
    assert!(!space(TINY).zero_ahead(4).unwrap());
    let sim = format(MIDDLE);
    let space = open(&sim);
    let free = space.free_blocks();
    assert!(space.zero_ahead(4).unwrap());
    drop(space);
    let space = open(&sim);
    assert_eq!(space.free_blocks(), free);
    check(&space);
}

#[test]
fn whole_chunks_for_faults_leave_the_floor_and_take_no_pieces() {
    let space = space(SMALL);
    let mut op = space.begin();
    let mut taken = Vec::new();
    while let Some((run, _)) = op.reserve_whole(FileBlock(0)).unwrap() {
        assert_eq!((run.start.in_chunk(), run.len), (0, 512));
        taken.push(run);
    }
    assert_eq!(taken.len(), 30, "chunk 0 has the headers, and holds the floor");
    assert!(space.free_blocks() >= space.floor());
    drop(op);
    check(&space);
}

#[derive(Clone, Debug)]
enum Step {
    Take { blocks: u64, goal: bool },
    Free { which: usize, part: bool },
    Pin { which: usize, part: bool },
    Unpin { which: usize },
    Ahead,
    Whole,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        5 => (1u64..900, any::<bool>()).prop_map(|(blocks, goal)| Step::Take { blocks, goal }),
        4 => (any::<usize>(), any::<bool>()).prop_map(|(which, part)| Step::Free { which, part }),
        4 => (any::<usize>(), any::<bool>()).prop_map(|(which, part)| Step::Pin { which, part }),
        3 => any::<usize>().prop_map(|which| Step::Unpin { which }),
        1 => Just(Step::Ahead),
        1 => Just(Step::Whole),
    ];
    prop::collection::vec(step, 1..120)
}

/// The model: a count of owners (0 or 1) and of pins for every block.
struct Model {
    space: Space,
    owned: Vec<Run>,
    pins: Vec<Run>,
    pinned: Vec<u8>,
}

fn part_of(run: Run, part: bool) -> Run {
    if part { Run::new(Block(run.start.0 + run.len / 3), run.len.div_ceil(2)) } else { run }
}

impl Model {
    fn own(&mut self, run: Run) {
        for block in run.start.0..run.end().0 {
            assert_eq!(self.pinned[block as usize], 0, "block {block} of {run:?} is pinned");
        }
        assert!(self.owned.iter().all(|o| o.end() <= run.start || run.end() <= o.start), "{run:?} twice");
        self.owned.push(run);
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Take { blocks, goal } => {
                let goal = self.pins.last().map(|run| run.start.0).filter(|_| goal);
                if let Ok(run) = get(&self.space, blocks, 0, goal) {
                    self.own(run);
                }
            }
            Step::Free { which, part } => self.free(which, part),
            Step::Pin { which, part } => {
                if let Some(run) = self.owned.get(which % self.owned.len().max(1)) {
                    let run = part_of(*run, part);
                    self.space.pin(&[run]).unwrap();
                    self.pins.push(run);
                    (run.start.0..run.end().0).for_each(|block| self.pinned[block as usize] += 1);
                }
            }
            Step::Unpin { which } => {
                if !self.pins.is_empty() {
                    let run = self.pins.swap_remove(which % self.pins.len());
                    (run.start.0..run.end().0).for_each(|block| self.pinned[block as usize] -= 1);
                    self.space.unpin(&[run]);
                }
            }
            Step::Ahead => _ = self.space.zero_ahead(2).unwrap(),
            Step::Whole => self.whole(),
        }
    }

    fn whole(&mut self) {
        let mut op = self.space.begin();
        if let Some((run, _)) = op.reserve_whole(FileBlock(512)).unwrap() {
            assert_eq!((run.start.in_chunk(), run.len), (0, 512));
            op.commit(Durable::no_data()).unwrap();
            self.own(run);
        }
    }

    fn free(&mut self, which: usize, part: bool) {
        if self.owned.is_empty() {
            return;
        }
        let run = self.owned.swap_remove(which % self.owned.len());
        let gone = part_of(run, part);
        release(&self.space, gone).unwrap();
        let rest = [
            Run::new(run.start, gone.start.0 - run.start.0),
            Run::new(gone.end(), run.end().0 - gone.end().0),
        ];
        self.owned.extend(rest.into_iter().filter(|run| run.len > 0));
    }

    /// Taken is what has an owner or a pin, no more and no less.
    fn compare(&self) {
        let mut taken: Vec<_> = self.pinned.iter().map(|pins| *pins > 0).collect();
        for run in &self.owned {
            (run.start.0..run.end().0).for_each(|block| taken[block as usize] = true);
        }
        let taken = taken.into_iter().filter(|taken| *taken).count() as u64;
        assert_eq!(self.space.free_blocks(), self.space.geometry().usable_blocks() - taken);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn pinned_blocks_have_no_second_owner(steps in steps()) {
        let space = space(64 << 20);
        let pinned = vec![0; space.geometry().blocks() as usize];
        let mut model = Model { space, owned: Vec::new(), pins: Vec::new(), pinned };
        for step in &steps {
            model.step(step);
            model.compare();
        }
        for run in std::mem::take(&mut model.pins) {
            model.space.unpin(&[run]);
        }
        model.space.give_ahead_back();
        check(&model.space);
        prop_assert_eq!(pins_of(&model.space), 0);
    }
}
