//! What can be done with a database, and what does the model say of it?
//!
//! The model is a map of maps. Values are told by length and seed, so that it copies none; what a change does to it is an [`Effect`], so
//! that the state at any moment can be made again from a state before and the effects since.

use proptest::prelude::*;
use std::collections::BTreeMap;

/// A value: its length in bytes, and what its bytes are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Val {
    pub len: usize,
    pub seed: u8,
}

impl Val {
    pub fn bytes(self) -> Vec<u8> {
        (0..self.len).map(|i| (i as u8).wrapping_mul(7) ^ (i >> 8) as u8 ^ self.seed).collect()
    }

    /// What an update makes of it: depends on what it was.
    pub fn updated(old: Option<Self>, seed: u8) -> Option<Self> {
        match old {
            Some(old) if (old.seed ^ seed).is_multiple_of(5) => None,
            Some(old) => Some(Self { len: (old.len * 3 + usize::from(seed)) % 700, seed: old.seed ^ seed }),
            None => Some(Self { len: usize::from(seed), seed }),
        }
    }
}

/// What a tree holds.
pub type Map = BTreeMap<Vec<u8>, Val>;

/// What a database holds: trees by name.
pub type State = BTreeMap<&'static str, Map>;

/// Names of trees. The first is always there.
pub const TREES: [&str; 4] = ["", "one", "two", "a tree with a longer name"];

/// What a step does to the state, all at once.
#[derive(Clone, Debug)]
pub enum Effect {
    Changes(Vec<(&'static str, Vec<u8>, Option<Val>)>),
    Make(&'static str),
    Drop(&'static str),
    Nothing,
}

impl Effect {
    pub fn apply(&self, state: &mut State) {
        match self {
            Self::Changes(all) => {
                for (tree, key, value) in all {
                    let map = state.get_mut(tree).expect("a tree of the model");
                    match value {
                        Some(value) => map.insert(key.clone(), *value),
                        None => map.remove(key),
                    };
                }
            }
            Self::Make(tree) => _ = state.entry(tree).or_default(),
            Self::Drop(tree) => _ = state.remove(tree),
            Self::Nothing => {}
        }
    }
}

/// The key with a number: short ones with much in common, some of bytes that are greater than all letters, and a few long ones.
pub fn key(n: u16) -> Vec<u8> {
    match n % 16 {
        0 => [&b"long "[..], &n.to_be_bytes(), &vec![b'x'; 40 + usize::from(n) * 13 % 700]].concat(),
        1 => [&[0xff_u8, 0xff][..], &n.to_le_bytes()].concat(),
        2 => n.to_be_bytes().to_vec(),
        _ => format!("key {n:05}").into_bytes(),
    }
}

/// An end of a range: a key, and whether it is left out; `None`: there is none.
pub type End = Option<(u16, bool)>;

#[derive(Clone, Debug)]
pub enum Step {
    Put(u8, u16, Val),
    Delete(u8, u16),
    Update(u8, u16, u8),
    Swap {
        tree: u8,
        key: u16,
        right: bool,
        new: Option<Val>,
    },
    /// Written to the first tree, with changes of any.
    Batch(u8, Vec<(u8, u16, Option<Val>)>),
    /// Many keys get values, one by one or in one batch.
    Fill {
        tree: u8,
        first: u16,
        count: u16,
        val: Val,
        batch: bool,
    },
    /// Many keys are deleted, one by one or in one batch.
    Empty {
        tree: u8,
        first: u16,
        count: u16,
        batch: bool,
    },
    Get(u8, u16),
    /// From both ends, as the bits say.
    Range(u8, End, End, u64),
    Prefix(u8, u16, u8),
    Scan(u8, End, End),
    Ends(u8),
    Snapshot,
    CompareSnapshot(u8),
    DropSnapshot(u8),
    Make(u8),
    Drop(u8),
    Compact,
    Verify,
    Close,
    /// The process dies.
    Die,
    /// Power is cut, somewhere since the last open.
    Cut(u64),
}

/// Values: mostly small ones; now and then one with a run of pages, or of chunks, of its own.
fn val(large: bool) -> impl Strategy<Value = Val> {
    let runs = u32::from(large);
    let len = prop_oneof![
        40 => 0..200_usize,
        8 => 200..9000_usize,
        2 * runs => 9000..60_000_usize,
        runs => (2_usize << 20)..(5 << 20),
    ];
    (len, any::<u8>()).prop_map(|(len, seed)| Val { len, seed })
}

fn end(keys: u16) -> impl Strategy<Value = End> {
    prop::option::weighted(0.8, (0..keys, any::<bool>()))
}

/// What is done by chance: `keys` different keys.
fn step(keys: u16, large: bool) -> impl Strategy<Value = Step> {
    let tree = || prop_oneof![3 => Just(0_u8), 4 => 1..TREES.len() as u8];
    let small = || (0..200_usize, any::<u8>()).prop_map(|(len, seed)| Val { len, seed });
    let item = (tree(), 0..keys, prop::option::weighted(0.7, val(false)));
    let swap = (tree(), 0..keys, any::<bool>(), prop::option::of(small()));
    let fill = (tree(), 0..keys, 1..400_u16, small(), any::<bool>());
    let empty = (tree(), 0..keys, 1..400_u16, any::<bool>());
    let changes = prop_oneof![
        24 => (tree(), 0..keys, val(large)).prop_map(|(tree, key, val)| Step::Put(tree, key, val)),
        10 => (tree(), 0..keys).prop_map(|(tree, key)| Step::Delete(tree, key)),
        5 => (tree(), 0..keys, any::<u8>()).prop_map(|(tree, key, seed)| Step::Update(tree, key, seed)),
        5 => swap.prop_map(|(tree, key, right, new)| Step::Swap { tree, key, right, new }),
        5 => (tree(), prop::collection::vec(item, 0..40)).prop_map(|(tree, all)| Step::Batch(tree, all)),
        6 => fill.prop_map(|(tree, first, count, val, batch)| Step::Fill { tree, first, count, val, batch }),
        4 => empty.prop_map(|(tree, first, count, batch)| Step::Empty { tree, first, count, batch }),
    ];
    let looks = prop_oneof![
        6 => (tree(), 0..keys).prop_map(|(tree, key)| Step::Get(tree, key)),
        3 => (tree(), end(keys), end(keys), any::<u64>()).prop_map(|(t, low, high, ends)| Step::Range(t, low, high, ends)),
        2 => (tree(), 0..keys, 0..12_u8).prop_map(|(tree, key, len)| Step::Prefix(tree, key, len)),
        3 => (tree(), end(keys), end(keys)).prop_map(|(tree, low, high)| Step::Scan(tree, low, high)),
        2 => tree().prop_map(Step::Ends),
        4 => Just(Step::Snapshot),
        4 => any::<u8>().prop_map(Step::CompareSnapshot),
        3 => any::<u8>().prop_map(Step::DropSnapshot),
    ];
    let rest = prop_oneof![
        5 => tree().prop_map(Step::Make),
        1 => tree().prop_map(Step::Drop),
        1 => Just(Step::Compact),
        1 => Just(Step::Verify),
        1 => Just(Step::Close),
        1 => Just(Step::Die),
        2 => any::<u64>().prop_map(Step::Cut),
    ];
    prop_oneof![12 => changes, 6 => looks, 2 => rest]
}

pub fn steps(keys: u16, large: bool, len: usize) -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(keys, large), 1..len)
}
