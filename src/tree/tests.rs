//! Does a tree hold what a sorted map holds, and is every damage of it found?

use super::mock::Mock;
use super::*;
use crate::error::{Class, Error};
use crate::layout::{Image, Kind, NODE_AREA_BYTES, NODE_FIXED_BYTES, RootArea};
use crate::units::{Ino, PoolOff};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

const OWNER: Ino = Ino(77);

type Model = BTreeMap<u64, Vec<u8>>;

/// A tree under either kind of root, with the same calls.
#[derive(Clone)]
enum Root {
    Area(RootArea),
    Node(NodeRoot),
}

impl Root {
    fn area(&self) -> RootArea {
        match self {
            Self::Area(root) => root.clone(),
            Self::Node(root) => root.area(),
        }
    }

    fn insert(&mut self, nodes: &mut Mock, key: u64, payload: &[u8]) -> crate::error::Result<()> {
        match self {
            Self::Area(root) => insert(nodes, root, OWNER, key, payload),
            Self::Node(root) => root.insert(nodes, OWNER, key, payload),
        }
    }

    fn rekey(&mut self, nodes: &mut Mock, from: u64, to: u64, payload: &[u8]) -> crate::error::Result<()> {
        if let Self::Area(root) = self {
            return rekey(nodes, root, OWNER, from, to, payload);
        }
        self.remove(nodes, from)?;
        self.insert(nodes, to, payload)
    }

    fn remove(&mut self, nodes: &mut Mock, key: u64) -> crate::error::Result<Option<Payload>> {
        match self {
            Self::Area(root) => remove(nodes, root, OWNER, key),
            Self::Node(root) => root.remove(nodes, OWNER, key),
        }
    }
}

fn both_roots() -> [Root; 2] {
    [Root::Area(RootArea::default()), Root::Node(NodeRoot::EMPTY)]
}

fn all(nodes: &Mock, root: &RootArea, from: u64) -> Vec<(u64, Vec<u8>)> {
    let mut found = Vec::new();
    scan(nodes, root, OWNER, from, |key, payload| {
        found.push((key, payload.to_vec()));
        Ok(ControlFlow::Continue(()))
    })
    .unwrap();
    found
}

fn pair(found: Option<(u64, Payload)>) -> Option<(u64, Vec<u8>)> {
    found.map(|(key, payload)| (key, payload.to_vec()))
}

fn assert_same(nodes: &Mock, root: &RootArea, model: &Model, probes: impl IntoIterator<Item = u64>) {
    for probe in probes {
        let own = |(k, v): (&u64, &Vec<u8>)| (*k, v.clone());
        let got = get(nodes, root, OWNER, probe).unwrap();
        assert_eq!(got.map(|p| p.to_vec()).as_ref(), model.get(&probe), "get {probe}");
        let below = model.range(..=probe).next_back().map(own);
        assert_eq!(pair(floor(nodes, root, OWNER, probe).unwrap()), below, "floor {probe}");
        let above = model.range(probe..).next().map(own);
        assert_eq!(pair(ceil(nodes, root, OWNER, probe).unwrap()), above, "ceil {probe}");
        let mut down = model.range(..=probe).rev().map(own);
        let (at, before) = (down.next(), down.next());
        let after = model.range((Bound::Excluded(probe), Bound::Unbounded)).next().map(own);
        for with_before in [false, true] {
            let found = near(nodes, root, OWNER, probe, with_before, |k, p| (k, p.to_vec())).unwrap();
            assert_eq!((&found.at, &found.after), (&at, &after), "near {probe}");
            let left = with_before || found.before.is_some();
            assert!(!left || found.before == before, "before {probe}: {:?}", found.before);
        }
        let rest: Vec<_> = model.range(probe..).map(own).collect();
        assert_eq!(all(nodes, root, probe), rest, "scan from {probe}");
    }
    assert_eq!(pair(last(nodes, root, OWNER).unwrap()).as_ref().map(|(k, _)| k), model.keys().next_back());
}

/// A random number from a seed.
fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn fill_percent(nodes: &Mock) -> u64 {
    let leaves = nodes.nodes.values().flatten().filter(|image| image.bytes()[24] == 0);
    let used: Vec<u64> = leaves.map(|image| (image.bytes().len() - NODE_FIXED_BYTES) as u64).collect();
    used.iter().sum::<u64>() * 100 / (used.len() * NODE_AREA_BYTES) as u64
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u64, usize),
    Remove(u64),
    RemoveFrom(u64, usize),
    /// From the key at or above the first, to the key so much higher or lower.
    Rekey(u64, i64, usize),
}

fn key() -> impl Strategy<Value = u64> {
    prop_oneof![
        8 => 0..200u64,
        1 => Just(0),
        1 => Just(u64::MAX),
        1 => (0..200u64).prop_map(|k| u64::MAX - k),
        1 => (0..200u64).prop_map(|k| k << 40),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let size = prop_oneof![4 => 0..30usize, 2 => Just(8), 2 => 0..=MAX_PAYLOAD, 1 => Just(MAX_PAYLOAD)];
    let distance = prop_oneof![3 => -3..4i64, 1 => any::<i64>()];
    prop_oneof![
        2 => (key(), distance, size.clone()).prop_map(|(k, d, n)| Step::Rekey(k, d, n)),
        6 => (key(), size).prop_map(|(k, n)| Step::Insert(k, n)),
        3 => key().prop_map(Step::Remove),
        1 => (key(), 1..40usize).prop_map(|(k, n)| Step::RemoveFrom(k, n)),
    ]
}

fn take_out(nodes: &mut Mock, root: &mut Root, model: &mut Model, key: u64) {
    let got = root.remove(nodes, key).unwrap().map(|p| p.to_vec());
    assert_eq!(got, model.remove(&key), "remove {key}");
}

fn perform(nodes: &mut Mock, root: &mut Root, model: &mut Model, seed: usize, step: &Step) {
    match step {
        Step::Insert(key, len) => {
            let payload = vec![seed as u8; *len];
            let (before, most) = (nodes.writes, insert_writes(&root.area()));
            root.insert(nodes, *key, &payload).unwrap();
            assert!(nodes.writes - before <= most, "{} of {most} writes", nodes.writes - before);
            model.insert(*key, payload);
        }
        Step::Remove(key) => take_out(nodes, root, model, *key),
        Step::Rekey(from, distance, len) => {
            let from = model.range(from..).next().map_or(*from, |(key, _)| *key);
            let to = from.wrapping_add_signed(*distance);
            // The old length half of the time: that is when a record moves where it is.
            let len = model.get(&from).filter(|_| len % 2 == 0).map_or(*len, Vec::len);
            let payload = vec![seed as u8; len];
            root.rekey(nodes, from, to, &payload).unwrap();
            model.remove(&from);
            model.insert(to, payload);
        }
        Step::RemoveFrom(key, count) => {
            let keys: Vec<u64> = model.range(key..).take(*count).map(|(k, _)| *k).collect();
            for key in keys {
                take_out(nodes, root, model, key);
                nodes.assert_exact(&[(&root.area(), OWNER)]);
            }
        }
    }
    nodes.assert_exact(&[(&root.area(), OWNER)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn behaves_as_a_sorted_map(steps in prop::collection::vec(step(), 1..250)) {
        for mut root in both_roots() {
            let (mut nodes, mut model) = (Mock::default(), Model::new());
            for (i, step) in steps.iter().enumerate() {
                perform(&mut nodes, &mut root, &mut model, i, step);
                let (Step::Insert(k, _) | Step::Remove(k) | Step::RemoveFrom(k, _) | Step::Rekey(k, ..)) = step;
                assert_same(&nodes, &root.area(), &model, [*k, k.saturating_add(1), k.saturating_sub(1)]);
            }
            for key in model.keys().copied().collect::<Vec<_>>() {
                take_out(&mut nodes, &mut root, &mut model, key);
            }
            prop_assert_eq!(nodes.assert_exact(&[(&root.area(), OWNER)]), 0);
            prop_assert_eq!(root.area(), RootArea::default());
        }
    }

    #[test]
    fn garbage_never_panics(
        area in prop::collection::vec(any::<u8>(), 0..=NODE_AREA_BYTES),
        count in 0..64u16,
        level in 0..4u8,
        victim in any::<prop::sample::Index>(),
        probe in any::<u64>(),
    ) {
        let (nodes, root) = sample();
        let at = *victim.get(&nodes.nodes.keys().copied().collect::<Vec<_>>());
        let mut torn = nodes.clone();
        let mut image = nodes.nodes[&at].clone().unwrap();
        image.set_len(NODE_FIXED_BYTES + area.len());
        image.bytes_mut()[NODE_FIXED_BYTES..].copy_from_slice(&area);
        image.bytes_mut()[24] = level;
        image.bytes_mut()[26..28].copy_from_slice(&count.to_le_bytes());
        torn.nodes.insert(at, Some(image));
        exercise(&torn, &root, [probe]);
        let used = area.len().min(120);
        let mut bad = RootArea { level, count, used, ..RootArea::default() };
        bad.area[..used].copy_from_slice(&area[..used]);
        exercise(&nodes, &bad, [probe]);
    }
}

/// A tree of three levels with records of many sizes.
fn sample() -> (Mock, RootArea) {
    let (mut nodes, mut root) = (Mock::default(), RootArea::default());
    for i in 0..60u64 {
        let len = (mix(i) % 60) as usize + if i % 17 == 0 { 300 } else { 0 };
        insert(&mut nodes, &mut root, OWNER, (mix(i) % 1000) * 3, &vec![i as u8; len]).unwrap();
    }
    for i in 0..200u64 {
        insert(&mut nodes, &mut root, OWNER, 5000 + i, &[1; 8]).unwrap();
    }
    assert_eq!(root.level, 2);
    (nodes, root)
}

/// Calls everything on what may be damaged; whatever fails must fail with damage.
fn exercise(nodes: &Mock, root: &RootArea, probes: impl IntoIterator<Item = u64>) {
    let ok = |result: Result<(), Error>| {
        if let Err(error) = result {
            assert_eq!(error.class(), Class::Damage, "{error}");
        }
    };
    for probe in probes {
        ok(get(nodes, root, OWNER, probe).map(|_| ()));
        ok(floor(nodes, root, OWNER, probe).map(|_| ()));
        ok(ceil(nodes, root, OWNER, probe).map(|_| ()));
        ok(near(nodes, root, OWNER, probe, true, |_, _| ()).map(|_| ()));
        let (mut torn, mut its) = (nodes.clone(), root.clone());
        ok(remove(&mut torn, &mut its, OWNER, probe).map(|_| ()));
        let (mut torn, mut its) = (nodes.clone(), root.clone());
        ok(insert(&mut torn, &mut its, OWNER, probe, &[9; 200]));
        let (mut torn, mut its) = (nodes.clone(), root.clone());
        ok(rekey(&mut torn, &mut its, OWNER, probe, probe.wrapping_add(1), &[9; 8]));
    }
    ok(scan(nodes, root, OWNER, 0, |_, _| Ok(ControlFlow::Continue(()))));
    ok(for_each_node(nodes, root, OWNER, |_, image| image.map(|_| ())));
    ok(last(nodes, root, OWNER).map(|_| ()));
}

#[test]
fn every_flipped_bit_of_a_node_is_survived() {
    let (nodes, root) = sample();
    let records = all(&nodes, &root, 0);
    for (at, image) in &nodes.nodes {
        let image = image.as_ref().unwrap();
        for bit in 12 * 8..image.bytes().len() * 8 {
            let mut torn = nodes.clone();
            let mut bad = image.clone();
            bad.bytes_mut()[bit / 8] ^= 1 << (bit % 8);
            let area = &image.bytes()[NODE_FIXED_BYTES..];
            let (probe, _) = records[bit % records.len()];
            let own = area.get(..8).map_or(0, |b| u64::from_le_bytes(b.try_into().unwrap()));
            torn.nodes.insert(*at, Some(bad));
            exercise(&torn, &root, [probe, own, own + 1]);
        }
    }
}

#[test]
fn every_flipped_bit_of_a_root_is_survived() {
    let (nodes, root) = sample();
    for bit in 0..120 * 8 {
        let mut bad = root.clone();
        bad.area[bit / 8] ^= 1 << (bit % 8);
        exercise(&nodes, &bad, [0, 300, 5100, u64::MAX]);
    }
    for level in 0..=255 {
        exercise(&nodes, &RootArea { level, ..root.clone() }, [0, 5100]);
        let root = NodeRoot { at: PoolOff(512), level };
        exercise(&nodes, &root.area(), [0, 5100]);
    }
    for count in 0..300 {
        exercise(&nodes, &RootArea { count, ..root.clone() }, [0, 5100]);
        exercise(&nodes, &RootArea { used: usize::from(count), ..root.clone() }, [0, 5100]);
    }
}

fn damaged_node(change: impl FnOnce(&mut Image)) -> &'static str {
    let (mut nodes, mut root) = (Mock::default(), RootArea::default());
    for i in 0..40 {
        insert(&mut nodes, &mut root, OWNER, i, &[7; 8]).unwrap();
    }
    let slot = nodes.nodes.values_mut().next().unwrap();
    change(slot.as_mut().unwrap());
    match get(&nodes, &root, OWNER, 3) {
        Err(Error::Corrupt(damage)) => damage.what,
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_rule_of_a_node_is_checked() {
    let at = NODE_FIXED_BYTES;
    assert_eq!(damaged_node(|n| n.bytes_mut()[16] ^= 1), "owner");
    assert_eq!(damaged_node(|n| n.bytes_mut()[24] = 1), "level");
    assert_eq!(damaged_node(|n| n.bytes_mut()[26] = 49), "record count");
    assert_eq!(damaged_node(|n| n.set_len(20)), "length");
    assert_eq!(damaged_node(|n| *n = Image::new(Kind::Free, 16)), "kind");
    assert_eq!(damaged_node(|n| n.bytes_mut()[at + 8] = 0), "key order");
    assert_eq!(damaged_node(|n| n.bytes_mut()[at + 26 * 8] = 200), "payload order");
    assert_eq!(damaged_node(|n| n.set_len(at + 460)), "payload bytes");
    assert_eq!(damaged_node(|n| n.bytes_mut()[at + 25 * 8] = 26), "highest key");
    let empty = |n: &mut Image| {
        n.set_len(at);
        n.bytes_mut()[26] = 0;
    };
    assert_eq!(damaged_node(empty), "record count");
}

#[test]
fn a_node_with_two_parents_is_damage() {
    let (mut nodes, mut root) = (Mock::default(), RootArea::default());
    for i in 0..40 {
        insert(&mut nodes, &mut root, OWNER, i, &[7; 8]).unwrap();
    }
    let first: [u8; 8] = root.area[20..28].try_into().unwrap();
    root.area[28..36].copy_from_slice(&first);
    let mut rules = Vec::new();
    for_each_node(&nodes, &root, OWNER, |_, image| {
        if let Err(Error::Corrupt(damage)) = image {
            rules.push(damage.what);
        }
        Ok(())
    })
    .unwrap();
    assert_eq!(rules, ["lowest key"], "the walk goes on past damage and finds all of it");
}

#[test]
fn growth_in_key_order_fills_nodes() {
    for mut root in both_roots() {
        let mut nodes = Mock::default();
        for i in 0..5000u64 {
            let before = nodes.writes;
            root.insert(&mut nodes, i, &[1; 8]).unwrap();
            let depth = u64::from(root.area().level);
            assert!(nodes.writes - before <= depth + 1);
        }
        assert!(fill_percent(&nodes) >= 97, "{} %", fill_percent(&nodes));
        assert!(nodes.writes < 5000 + 5000 / 20, "{} writes for 5000 inserts", nodes.writes);
        nodes.assert_exact(&[(&root.area(), OWNER)]);
    }
}

#[test]
fn random_keys_fill_two_thirds() {
    let (mut nodes, mut root) = (Mock::default(), RootArea::default());
    for i in 0..20_000u64 {
        insert(&mut nodes, &mut root, OWNER, mix(i), &[1; 8]).unwrap();
    }
    assert!((62..=75).contains(&fill_percent(&nodes)), "{} %", fill_percent(&nodes));
}

#[test]
fn a_million_records_are_few_levels() {
    for random in [false, true] {
        let (mut nodes, mut root) = (Mock::default(), RootArea::default());
        for i in 0..1_000_000u64 {
            let key = if random { mix(i) } else { i };
            insert(&mut nodes, &mut root, OWNER, key, &i.to_le_bytes()).unwrap();
        }
        // Full nodes hold 26 records: 26^4 x 6 holds a million sequential ones, 18^4 x 6 random ones nearly.
        assert!(root.level <= if random { 5 } else { 4 }, "level {}", root.level);
        let reads = nodes.reads.get();
        get(&nodes, &root, OWNER, 12345).unwrap();
        assert_eq!(nodes.reads.get() - reads, u64::from(root.level), "one read a level");
        let reads = nodes.reads.get();
        assert_eq!(all(&nodes, &root, 0).len(), 1_000_000);
        assert_eq!(nodes.reads.get() - reads, nodes.nodes.len() as u64, "a scan reads each node once");
    }
}

/// Leaves of one record each make many nodes above them, so that those are cut and joined too.
#[test]
fn nodes_above_leaves_grow_and_shrink() {
    for mut root in both_roots() {
        let (mut nodes, mut model) = (Mock::default(), Model::new());
        for i in 0..30_000u64 {
            let (key, growing) = (mix(i) % 1500, (i / 2000) % 2 == 0);
            if mix(i + 1) % 10 < if growing { 7 } else { 2 } {
                let len = 200 + (mix(i + 2) % 270) as usize;
                perform(&mut nodes, &mut root, &mut model, i as usize, &Step::Insert(key, len));
            } else {
                // Runs of keys go, so that bounds get stale.
                perform(&mut nodes, &mut root, &mut model, 0, &Step::RemoveFrom(key, 1 + (key % 3) as usize));
            }
            if i % 500 == 0 {
                assert_same(&nodes, &root.area(), &model, (0..1500).step_by(50));
            }
        }
    }
}

/// A node's first bound binds nothing until the node is joined to one on its left; then it must be right.
#[test]
fn joining_nodes_makes_a_stale_first_bound_true() {
    let (mut nodes, mut root) = (Mock::default(), RootArea::default());
    for i in 0..200 {
        insert(&mut nodes, &mut root, OWNER, i * 10, &[1; 200]).unwrap();
    }
    // Leaves of two records, 26 of them below each of the nodes A (0 to 510), B (520 to 1030), ...
    assert_eq!((root.level, root.count), (2, 4));
    // The first leaf of B goes and its second gets a key below its bound.
    for key in [520, 530, 550] {
        remove(&mut nodes, &mut root, OWNER, key).unwrap().unwrap();
    }
    insert(&mut nodes, &mut root, OWNER, 525, &[2; 200]).unwrap();
    let gone = (200..520).chain(560..1040).filter(|key| key % 10 == 0);
    for key in gone {
        remove(&mut nodes, &mut root, OWNER, key).unwrap().unwrap();
    }
    assert!(root.count < 4, "two nodes were joined");
    assert_eq!(*get(&nodes, &root, OWNER, 525).unwrap().unwrap(), [2; 200]);
    nodes.assert_exact(&[(&root, OWNER)]);
}

#[test]
fn a_replaced_payload_of_the_same_length_writes_one_node() {
    let (mut nodes, root) = sample();
    let mut its = root.clone();
    let before = nodes.writes;
    insert(&mut nodes, &mut its, OWNER, 5100, &[2; 8]).unwrap();
    assert_eq!((nodes.writes - before, &its), (1, &root));
    assert_eq!(*get(&nodes, &its, OWNER, 5100).unwrap().unwrap(), [2; 8]);
}

#[test]
fn the_last_record_leads_through_the_whole_tree() {
    let (mut nodes, mut root) = sample();
    let mut keys: Vec<u64> = all(&nodes, &root, 0).into_iter().map(|(key, _)| key).collect();
    while let Some((key, _)) = last(&nodes, &root, OWNER).unwrap() {
        assert_eq!(Some(key), keys.pop());
        remove(&mut nodes, &mut root, OWNER, key).unwrap();
    }
    assert!(keys.is_empty());
    assert_eq!(nodes.assert_exact(&[(&root, OWNER)]), 0);
}

#[test]
fn few_records_left_are_few_nodes() {
    let (mut nodes, mut root) = (Mock::default(), RootArea::default());
    for i in 0..20_000u64 {
        insert(&mut nodes, &mut root, OWNER, mix(i), &[1; 8]).unwrap();
    }
    for i in 100..20_000u64 {
        remove(&mut nodes, &mut root, OWNER, mix(i)).unwrap().unwrap();
    }
    let used = nodes.assert_exact(&[(&root, OWNER)]);
    assert!(used <= 20, "{used} nodes for 100 records");
    for i in 5..100u64 {
        remove(&mut nodes, &mut root, OWNER, mix(i)).unwrap().unwrap();
    }
    assert_eq!((nodes.assert_exact(&[(&root, OWNER)]), root.level, root.count), (0, 0, 5));
}

#[test]
fn a_payload_too_long_and_a_full_store_are_refused() {
    let (mut nodes, mut root) = (Mock::default(), RootArea::default());
    let long = insert(&mut nodes, &mut root, OWNER, 1, &[0; MAX_PAYLOAD + 1]);
    assert!(matches!(long, Err(Error::InvalidArgument(_))));
    assert_eq!(root, RootArea::default());
    nodes.left = Some(0);
    let full = insert(&mut nodes, &mut root, OWNER, 1, &[0; MAX_PAYLOAD]);
    assert!(matches!(full, Err(Error::NoSpace { .. })));
}

#[test]
fn a_scan_stops_where_it_is_told() {
    let (nodes, root) = sample();
    let mut seen = 0;
    let reads = nodes.reads.get();
    scan(&nodes, &root, OWNER, 5000, |_, _| {
        seen += 1;
        Ok(if seen == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })
    .unwrap();
    assert_eq!(seen, 3);
    assert!(nodes.reads.get() - reads <= 3);
}

#[test]
fn a_record_moves_between_its_neighbours_in_one_write() {
    let (mut nodes, mut root) = sample();
    remove(&mut nodes, &mut root, OWNER, 5100).unwrap();
    let (before, its) = (nodes.writes, root.clone());
    rekey(&mut nodes, &mut root, OWNER, 5101, 5100, &[3; 8]).unwrap();
    assert_eq!((nodes.writes - before, &root), (1, &its));
    assert_eq!(*get(&nodes, &root, OWNER, 5100).unwrap().unwrap(), [3; 8]);
    assert_eq!(get(&nodes, &root, OWNER, 5101).unwrap(), None);
}

/// A tree and what it holds, of keys below 20,000, with bounds that are stale in every way.
fn grown(steps: &[(bool, u64, usize)]) -> (Mock, RootArea, Model) {
    let (mut nodes, mut root, mut model) = (Mock::default(), RootArea::default(), Model::new());
    for (gone, key, len) in steps {
        for key in (*key..).take(if *gone { 30 } else { 9 }) {
            if *gone {
                remove(&mut nodes, &mut root, OWNER, key).unwrap();
                model.remove(&key);
            } else {
                insert(&mut nodes, &mut root, OWNER, key, &vec![key as u8; *len]).unwrap();
                model.insert(key, vec![key as u8; *len]);
            }
        }
    }
    (nodes, root, model)
}

fn moved(model: &Model, range: std::ops::Range<u64>, by: i64) -> Model {
    let key = |key: u64| if range.contains(&key) { key.wrapping_add_signed(by) } else { key };
    model.iter().map(|(k, v)| (key(*k), v.clone())).collect()
}

fn growth() -> impl Strategy<Value = Vec<(bool, u64, usize)>> {
    let key = prop_oneof![0..400_u64, 0..20_000_u64, (0..400_u64).prop_map(|k| 20_000 - k)];
    let len = prop_oneof![Just(8), 0..200_usize, Just(MAX_PAYLOAD)];
    prop::collection::vec((prop::bool::weighted(0.4), key, len), 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn keys_move_down_into_a_gap(steps in growth(), from in 1..20_300_u64, by in 1..3000_u64, leaves in 0..4_u32) {
        let (mut nodes, mut root, mut model) = grown(&steps);
        let by = by.min(from);
        for key in from - by..from {
            remove(&mut nodes, &mut root, OWNER, key).unwrap();
            model.remove(&key);
        }
        let (mut at, all) = (from, model.clone());
        loop {
            let mut left = leaves;
            let more = |_: &Mock| { left = left.saturating_sub(1); left > 0 };
            let stopped = shift_down(&mut nodes, &mut root, OWNER, at, by, more).unwrap();
            model = moved(&all, from..stopped.unwrap_or(u64::MAX), -(by as i64));
            nodes.assert_exact(&[(&root, OWNER)]);
            assert_same(&nodes, &root, &model, [0, from - by, from, stopped.unwrap_or(at)]);
            let Some(stopped) = stopped else { break };
            prop_assert!(stopped > at || at == from);
            // As a caller does: from the next key on.
            at = ceil(&nodes, &root, OWNER, stopped).unwrap().map_or(stopped, |(key, _)| key);
        }
        prop_assert_eq!(model, moved(&all, from..u64::MAX, -(by as i64)));
        use_after(nodes, root);
    }

    #[test]
    fn keys_move_up_and_leave_a_gap(steps in growth(), from in 0..20_300_u64, by in 1..3000_u64, leaves in 0..4_u32) {
        let (mut nodes, mut root, mut model) = grown(&steps);
        let (mut end, all) = (u64::MAX, model.clone());
        loop {
            let mut left = leaves;
            let more = |_: &Mock| { left = left.saturating_sub(1); left > 0 };
            let stopped = shift_up(&mut nodes, &mut root, OWNER, from..end, by, more).unwrap();
            model = moved(&all, stopped.unwrap_or(from)..u64::MAX, by as i64);
            nodes.assert_exact(&[(&root, OWNER)]);
            assert_same(&nodes, &root, &model, [0, from, from + by, stopped.unwrap_or(from)]);
            let Some(stopped) = stopped else { break };
            prop_assert!(stopped < end);
            end = stopped;
        }
        prop_assert_eq!(model, moved(&all, from..u64::MAX, by as i64));
        use_after(nodes, root);
    }
}

/// A tree whose keys moved takes and loses records as any other.
fn use_after(mut nodes: Mock, mut root: RootArea) {
    for key in (0..24_000).step_by(97) {
        insert(&mut nodes, &mut root, OWNER, key, &[3; 8]).unwrap();
    }
    nodes.assert_exact(&[(&root, OWNER)]);
    while let Some((key, _)) = last(&nodes, &root, OWNER).unwrap() {
        remove(&mut nodes, &mut root, OWNER, key).unwrap();
    }
    assert_eq!(nodes.assert_exact(&[(&root, OWNER)]), 0);
}
