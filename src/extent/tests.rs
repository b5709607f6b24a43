//! Do extents hold what a map of single blocks holds, whatever is done to them?

use super::*;
use crate::error::{Error, Result, Structure};
use crate::layout::{Geometry, RootArea};
use crate::tree::{self, mock::Mock};
use crate::units::{Block, FileBlock, GROUP_BLOCKS, Ino};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{ControlFlow, Range};

const OWNER: Ino = Ino(5);
/// Blocks of the file that tests use.
const BLOCKS: u64 = 300;

/// Pool block and state of each file block that has one.
type Model = BTreeMap<u64, (u64, bool)>;

struct File {
    nodes: Mock,
    root: RootArea,
    geometry: Geometry,
}

fn blocks(range: Range<u64>) -> Range<FileBlock> {
    FileBlock(range.start)..FileBlock(range.end)
}

fn extent(file: u64, pool: u64, len: u64, written: bool) -> Extent {
    Extent { file: FileBlock(file), pool: Block(pool), len, written, shared: false }
}

impl File {
    fn new() -> Self {
        Self { nodes: Mock::default(), root: RootArea::default(), geometry: Geometry::for_size(4 << 30) }
    }

    fn map(&self) -> ExtentMap<'_, Mock> {
        ExtentMap::new(&self.nodes, &self.root, OWNER, self.geometry)
    }

    fn change(&mut self) -> ExtentMapMut<'_, Mock> {
        ExtentMapMut::new(&mut self.nodes, &mut self.root, OWNER, self.geometry)
    }

    fn insert(&mut self, file: u64, pool: u64, len: u64, written: bool) -> Result<()> {
        self.change().insert(extent(file, pool, len, written))
    }

    fn records(&self) -> Vec<Extent> {
        let mut records = Vec::new();
        self.map()
            .for_each(FileBlock(0), |extent| {
                records.push(extent);
                Ok(ControlFlow::Continue(()))
            })
            .unwrap();
        records
    }

    /// Puts a record past every check.
    fn forge(&mut self, key: u64, payload: &[u8]) {
        tree::insert(&mut self.nodes, &mut self.root, OWNER, key, payload).unwrap();
    }
}

/// Whether file block `b` is in the run of block `b - 1`.
fn same_run(model: &Model, b: u64) -> bool {
    match (model.get(&(b - 1)), model.get(&b)) {
        (None, None) => true,
        (Some((pool, written)), Some(next)) => (pool + 1, *written) == *next,
        _ => false,
    }
}

fn content(model: &Model, b: u64) -> Content {
    match model.get(&b) {
        None => Content::Hole,
        Some((pool, false)) => Content::Unwritten(Block(*pool)),
        Some((pool, true)) => Content::Mapped(Block(*pool)),
    }
}

fn assert_same(file: &File, model: &Model) {
    // Each block's run to its right end, and to its left.
    let (mut ends, mut starts) = (vec![MAX_FILE_BLOCKS; BLOCKS as usize + 1], vec![0; BLOCKS as usize + 1]);
    for b in (0..BLOCKS).rev() {
        ends[b as usize] = if same_run(model, b + 1) { ends[b as usize + 1] } else { b + 1 };
    }
    for b in 1..=BLOCKS {
        starts[b as usize] = if same_run(model, b) { starts[b as usize - 1] } else { b };
    }
    for b in 0..=BLOCKS {
        let (start, end) = (starts[b as usize], ends[b as usize]);
        for max in [1, 2, 7, BLOCKS, MAX_FILE_BLOCKS] {
            let run = file.map().run_at(FileBlock(b), max).unwrap();
            let expected = FileRun { file: FileBlock(b), len: max.min(end - b), content: content(model, b) };
            let past_the_end = end == MAX_FILE_BLOCKS && max == MAX_FILE_BLOCKS;
            assert_eq!(run, FileRun { len: if past_the_end { max } else { expected.len }, ..expected });
        }
        let around = file.map().run_around(FileBlock(b)).unwrap();
        let expected = FileRun { file: FileBlock(start), len: end - start, content: content(model, start) };
        let is_hole = |b: u64| content(model, b) == Content::Hole;
        let has_blocks = !is_hole(start);
        let beside = Beside {
            hole_before: has_blocks && start > 0 && is_hole(start - 1),
            hole_after: has_blocks && is_hole(end),
        };
        assert_eq!(around, (expected, beside), "around {b}");
    }
}

fn assert_sound(file: &File, model: &Model) {
    let records = file.records();
    for pair in records.windows(2) {
        assert!(!pair[0].continues_in(&pair[1]), "{pair:?} could be one record");
    }
    let got: Model =
        records.iter().flat_map(|e| (0..e.len).map(|i| (e.file.0 + i, (e.pool.0 + i, e.written)))).collect();
    assert_eq!(&got, model);
    assert_eq!(file.map().last().unwrap(), records.last().copied());
    file.nodes.assert_exact(&[(&file.root, OWNER)]);
}

#[derive(Clone, Debug)]
enum Step {
    /// Fill the holes of a range, at a distance in the pool that makes some neighbours continue each other.
    Fill(Range<u64>, u64, bool),
    Remove(Range<u64>),
    Convert(Range<u64>),
    Unconvert(Range<u64>),
}

fn step() -> impl Strategy<Value = Step> {
    let range = || {
        (0..BLOCKS, prop_oneof![3 => 1..12u64, 1 => 1..150u64, 1 => Just(1)])
            .prop_map(|(at, len)| at..(at + len).min(BLOCKS))
    };
    prop_oneof![
        4 => (range(), 0..3u64, any::<bool>()).prop_map(|(r, d, w)| Step::Fill(r, d, w)),
        2 => range().prop_map(Step::Remove),
        2 => range().prop_map(Step::Convert),
        1 => range().prop_map(Step::Unconvert),
    ]
}

fn fill(file: &mut File, model: &mut Model, range: Range<u64>, distance: u64, written: bool) {
    let mut at = range.start;
    while at < range.end {
        let run = file.map().run_at(FileBlock(at), range.end - at).unwrap();
        if run.content == Content::Hole {
            // The far distance lies in another group.
            let pool = at + [1000, 2000, GROUP_BLOCKS + 1000][distance as usize];
            file.insert(at, pool, run.len, written).unwrap();
            model.extend((0..run.len).map(|i| (at + i, (pool + i, written))));
        }
        at += run.len;
    }
}

fn remove(file: &mut File, model: &mut Model, range: Range<u64>) {
    let mut taken = Vec::new();
    let stopped = file.change().remove(blocks(range.clone()), |_, piece| {
        taken.extend((0..piece.len).map(|i| (piece.file.0 + i, (piece.pool.0 + i, piece.written))));
        Ok(ControlFlow::Continue(()))
    });
    assert_eq!(stopped.unwrap(), FileBlock(range.end));
    let expected: Vec<_> = model.range(range.clone()).map(|(b, at)| (*b, *at)).collect();
    assert_eq!(taken, expected, "pieces taken out");
    model.retain(|b, _| !range.contains(b));
}

fn set_state(file: &mut File, model: &mut Model, range: Range<u64>, written: bool) {
    let mut expected = 0;
    for (_, (_, state)) in model.range_mut(range.clone()) {
        expected += u64::from(*state != written);
        *state = written;
    }
    for again in [expected, 0] {
        let mut change = file.change();
        let range = blocks(range.clone());
        let changed = if written { change.convert(range) } else { change.unconvert(range) };
        assert_eq!(changed.unwrap(), again, "a second conversion changes nothing");
    }
}

fn perform(file: &mut File, model: &mut Model, step: &Step) {
    file.nodes.touched.clear();
    let before = (file.root.clone(), model.clone());
    let (Step::Fill(range, ..) | Step::Remove(range) | Step::Convert(range) | Step::Unconvert(range)) = step;
    match step {
        Step::Fill(range, distance, written) => fill(file, model, range.clone(), *distance, *written),
        Step::Remove(range) => remove(file, model, range.clone()),
        Step::Convert(range) => set_state(file, model, range.clone(), true),
        Step::Unconvert(range) => set_state(file, model, range.clone(), false),
    }
    let pieces = (range.start..range.end)
        .filter(|b| *b == range.start || !same_run(&before.1, *b) || !same_run(model, *b))
        .count() as u64;
    let level = if file.root.level > before.0.level { &file.root } else { &before.0 };
    let most = worst_case_nodes(level, pieces);
    let touched = file.nodes.touched.len() as u64;
    assert!(touched <= most, "{touched} slots of {most} for {pieces} pieces");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn behaves_as_a_map_of_blocks(steps in prop::collection::vec(step(), 1..80)) {
        let (mut file, mut model) = (File::new(), Model::new());
        for step in &steps {
            perform(&mut file, &mut model, step);
            assert_sound(&file, &model);
        }
        assert_same(&file, &model);
        remove(&mut file, &mut model, 0..BLOCKS);
        prop_assert_eq!(&file.root, &RootArea::default());
        assert_sound(&file, &model);
    }

    #[test]
    fn any_record_is_believed_or_damage(key in any::<u64>(), raw in any::<u64>(), other in 0..1u64 << 51) {
        let geometry = Geometry::for_size(4 << 30);
        for key in [key, key >> 13] {
            let mut file = File::new();
            file.insert(other % (1 << 49), 1000, 3, true).unwrap();
            file.forge(key, &raw.to_le_bytes());
            match Extent::decode(key, &raw.to_le_bytes(), OWNER, &geometry) {
                Ok(extent) => prop_assert_eq!(extent.encode(), raw.to_le_bytes()),
                Err(error) => assert_damage(Err(error)),
            }
            for at in [key, key.wrapping_sub(1), other, 0] {
                let _ = file.map().run_at(FileBlock(at), u64::MAX);
                let _ = file.map().run_around(FileBlock(at));
                let _ = file.change().convert(FileBlock(at)..FileBlock(u64::MAX));
                let _ = file.change().remove(FileBlock(at)..FileBlock(u64::MAX), |_, _| {
                    Ok(ControlFlow::Continue(()))
                });
            }
        }
    }
}

fn assert_damage(result: Result<()>) {
    match result {
        Err(Error::Corrupt(damage)) => assert_eq!(damage.structure, Structure::Extent),
        other => panic!("{other:?} is not damage"),
    }
}

#[test]
fn each_rule_of_a_record_is_checked() {
    let rule = |key, raw: u64| {
        let decoded = Extent::decode(key, &raw.to_le_bytes(), OWNER, &Geometry::for_size(4 << 30));
        match decoded {
            Ok(_) => "",
            Err(Error::Corrupt(damage)) => damage.what,
            Err(other) => panic!("{other}"),
        }
    };
    let good = 1000 | 5 << 36;
    assert_eq!(rule(7, good), "");
    assert_eq!(rule(7, good | 1 << 62), "");
    assert_eq!(rule(7, good | 2 << 62), "state");
    assert_eq!(rule(7, good | 3 << 62), "");
    assert_eq!(rule(7, 1000), "length");
    assert_eq!(rule(7, 3 | 5 << 36), "pool blocks");
    assert_eq!(rule(7, (GROUP_BLOCKS - 2) | (5 << 36)), "pool blocks");
    assert_eq!(rule(7, 1 << 35 | 5 << 36), "pool blocks");
    assert_eq!(rule(MAX_FILE_BLOCKS - 5, good), "");
    assert_eq!(rule(MAX_FILE_BLOCKS - 4, good), "file blocks");
    assert_eq!(rule(u64::MAX, good), "file blocks");
    let short = Extent::decode(1, &[0; 7], OWNER, &Geometry::for_size(4 << 30));
    assert_damage(short.map(|_| ()));
}

#[test]
fn overlapping_records_are_damage() {
    let mut file = File::new();
    file.insert(10, 1000, 20, true).unwrap();
    file.forge(15, &extent(15, 5000, 2, true).encode());
    assert_damage(file.map().for_each(FileBlock(0), |_| Ok(ControlFlow::Continue(()))));
    assert_damage(file.map().run_at(FileBlock(12), 100).map(|_| ()));
    assert_damage(file.change().unconvert(blocks(0..100)).map(|_| ()));
}

#[test]
fn a_hole_is_all_that_can_be_filled() {
    let mut file = File::new();
    file.insert(10, 1000, 10, true).unwrap();
    for (at, len) in [(10, 1), (19, 1), (5, 6), (19, 5), (5, 100), (10, 10)] {
        assert_damage(file.insert(at, 3000, len, true));
    }
    assert_damage(file.insert(30, 0, 1, true));
    assert_damage(file.insert(30, 3000, 0, true));
    assert_eq!(file.records(), [extent(10, 1000, 10, true)]);
}

#[test]
fn neighbours_on_both_sides_become_one_record() {
    let mut file = File::new();
    file.insert(0, 1000, 4, false).unwrap();
    file.insert(8, 1008, 4, false).unwrap();
    file.insert(4, 1004, 4, false).unwrap();
    assert_eq!(file.records(), [extent(0, 1000, 12, false)]);
    file.change().convert(blocks(3..9)).unwrap();
    assert_eq!(
        file.records(),
        [extent(0, 1000, 3, false), extent(3, 1003, 6, true), extent(9, 1009, 3, false)]
    );
    file.change().convert(blocks(0..100)).unwrap();
    assert_eq!(file.records(), [extent(0, 1000, 12, true)]);
}

#[test]
fn records_that_were_not_joined_are_one_run() {
    let mut file = File::new();
    for i in 0..50 {
        file.forge(i * 4, &extent(i * 4, 1000 + i * 4, 4, true).encode());
    }
    let whole = FileRun { file: FileBlock(0), len: 200, content: Content::Mapped(Block(1000)) };
    assert_eq!(file.map().run_around(FileBlock(77)).unwrap().0, whole);
    assert_eq!(file.map().run_at(FileBlock(0), u64::MAX).unwrap(), whole);
    assert_eq!(file.map().run_at(FileBlock(2), 100).unwrap().len, 100);
}

#[test]
fn a_removal_stops_where_it_is_told_and_goes_on() {
    let mut file = File::new();
    for i in 0..10 {
        file.insert(i * 10, 1000 + i * 20, 5, true).unwrap();
    }
    let (mut at, mut steps, mut freed) = (FileBlock(3), 0, BTreeSet::new());
    while at < FileBlock(92) {
        at = file
            .change()
            .remove(at..FileBlock(92), |_, piece| {
                freed.insert(piece.pool.0);
                Ok(ControlFlow::Break(()))
            })
            .unwrap();
        steps += 1;
    }
    // The last extent is cut at 92, which is where the walk stops.
    assert_eq!((steps, freed.len()), (10, 10));
    assert_eq!(file.records(), [extent(0, 1000, 3, true), extent(92, 1182, 3, true)]);
}

/// The blocks of an append into preallocated space: one record grows, its neighbour loses its front.
#[test]
fn a_conversion_at_a_border_writes_one_node() {
    let mut file = File::new();
    for i in 0..40 {
        file.insert(i * 10, 1000 + i * 20, 5, true).unwrap();
    }
    file.insert(1000, 3000, 500, false).unwrap();
    file.change().convert(blocks(1000..1001)).unwrap();
    assert_eq!(file.root.level, 1);
    for i in 1..100 {
        let before = file.nodes.writes;
        assert_eq!(file.change().convert(blocks(1000 + i..1001 + i)).unwrap(), 1);
        assert_eq!(file.nodes.writes - before, 2, "the same node, once for each record");
    }
    assert_eq!(file.records().len(), 42);
}

#[test]
fn a_file_of_many_extents_costs_few_nodes() {
    let mut file = File::new();
    for i in 0..10_000 {
        file.insert(i * 2, 1000 + i * 2, 1, true).unwrap();
    }
    assert!(file.nodes.nodes.len() < 10_000 / 24, "{} nodes", file.nodes.nodes.len());
    let reads = file.nodes.reads.get();
    file.map().lookup(FileBlock(7000)).unwrap();
    assert_eq!(file.nodes.reads.get() - reads, u64::from(file.root.level));
}

#[test]
fn a_change_deep_in_a_large_file_touches_few_nodes() {
    let (mut file, mut model) = (File::new(), Model::new());
    let count = 8000;
    for i in 0..count {
        // Pieces that do not continue each other.
        let at = (i * 7919 % count) * 4;
        file.insert(at, 1000 + at * 2, 4, false).unwrap();
        model.extend((0..4).map(|b| (at + b, (1000 + at * 2 + b, false))));
    }
    assert!(file.root.level >= 2);
    let mut most = 0;
    for i in 0..3 * count {
        let at = (i * 104_729) % (count * 4);
        let (limit, step) = (worst_case_nodes(&file.root, 1), i / count);
        file.nodes.touched.clear();
        match step {
            0 => set_state(&mut file, &mut model, at..at + 1, true),
            1 => remove(&mut file, &mut model, at..at + 1),
            _ => fill(&mut file, &mut model, at..at + 1, 1, i % 2 == 0),
        }
        let touched = file.nodes.touched.len() as u64;
        assert!(touched <= limit, "{touched} slots, {limit} allowed");
        most = most.max(touched);
    }
    assert!(most >= 5, "the test should see nodes cut and joined");
    assert_sound(&file, &model);
}
