//! Which of the possible contents are tried?
//!
//! What is pending at a point is a list of units, each with a few values, chosen independently: a word and the
//! values stored to it ([`Mode::Words`]), or a line and the prefixes of its stores ([`Mode::InOrder`]). All
//! combinations are tried where they are few. Else: none, all, each unit and line alone, all but each, and
//! seeded samples; the shapes after "only this" and "all but this" are those in which ordering bugs have
//! been found elsewhere (Chipmunk, Vinter).
//!
//! Invariants:
//! 1. Every image is a possible content: one of its values for every unit.
//! 2. No two images of one enumeration have the same content.
//! 3. The same plan, salt and pending stores give the same images.

use super::crash::{LINE_WORDS, Stored};
use crate::units::LINE_BYTES;
use std::collections::HashSet;
use std::ops::Range;

/// What is taken to become durable independently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Every word, at any of the values stored to it.
    Words,
    /// Every line, at any prefix of the stores to it.
    InOrder,
}

/// How much is tried at a point.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// What becomes durable independently.
    pub mode: Mode,
    /// All combinations are tried where there are no more than this.
    pub exhaustive: u64,
    /// Else so many lines, and so many units, are tried alone, and left out alone.
    pub singles: usize,
    /// Else so many random images are tried.
    pub samples: usize,
    /// Of the random choices.
    pub seed: u64,
}

/// Something that becomes durable independently.
#[derive(Clone, Debug)]
struct Unit {
    line: u64,
    /// Its values beside the durable one, in [`Pending::values`].
    values: Range<usize>,
    /// The value a load sees, counted from 1; 0 if that is the durable one.
    visible: usize,
}

/// What may be durable at a point beyond what is certain.
#[derive(Clone, Debug)]
pub struct Pending {
    mode: Mode,
    units: Vec<Unit>,
    /// For each value of a unit, its words in [`Self::words`].
    values: Vec<Range<usize>>,
    /// Pool offset and content.
    words: Vec<(u64, u64)>,
}

type LineWords = [u64; LINE_WORDS];

impl Pending {
    pub(super) fn new(mode: Mode) -> Self {
        Self { mode, units: Vec::new(), values: Vec::new(), words: Vec::new() }
    }

    pub(super) fn add_line(&mut self, line: u64, durable: &LineWords, stores: &[Stored]) {
        match self.mode {
            Mode::Words => {
                for word in 0..LINE_WORDS {
                    self.add_unit(line, durable, stores.iter().filter(|s| usize::from(s.word) == word));
                }
            }
            Mode::InOrder => self.add_unit(line, durable, stores.iter()),
        }
    }

    /// A unit that holds, after each of `stores`, one more value; equal values count once.
    fn add_unit<'a>(&mut self, line: u64, durable: &LineWords, stores: impl Iterator<Item = &'a Stored>) {
        let mut seen = vec![*durable];
        let (first, mut visible) = (self.values.len(), 0);
        let mut now = *durable;
        for stored in stores {
            now[usize::from(stored.word)] = stored.value;
            visible = seen.iter().position(|other| *other == now).unwrap_or(seen.len());
            if visible == seen.len() {
                seen.push(now);
                let start = self.words.len();
                let changed = (0..LINE_WORDS).filter(|w| now[*w] != durable[*w]);
                self.words.extend(changed.map(|w| (line * LINE_BYTES + w as u64 * 8, now[w])));
                self.values.push(start..self.words.len());
            }
        }
        if self.values.len() > first {
            self.units.push(Unit { line, values: first..self.values.len(), visible });
        }
    }

    /// How many units have more than one possible value.
    #[must_use]
    pub fn units(&self) -> usize {
        self.units.len()
    }

    /// How many different contents there are; saturates.
    #[must_use]
    pub fn combinations(&self) -> u64 {
        self.units.iter().fold(1, |product: u64, unit| product.saturating_mul(unit.values.len() as u64 + 1))
    }

    /// The images that `plan` asks for. Different salts give different random choices.
    #[must_use]
    pub fn images(&self, plan: &Plan, salt: u64) -> Images<'_> {
        let mut random = Random(plan.seed ^ salt.wrapping_mul(0xa076_1d64_78bd_642f));
        let exhaustive = self.combinations() <= plan.exhaustive;
        let shapes = if exhaustive { Vec::new() } else { self.shapes(plan, &mut random) };
        Images {
            pending: self,
            choice: vec![0; self.units.len()],
            exhaustive,
            started: false,
            shapes: shapes.into_iter(),
            random,
            seen: HashSet::new(),
            words: Vec::new(),
        }
    }

    fn shapes(&self, plan: &Plan, random: &mut Random) -> Vec<Shape> {
        let mut shapes = vec![Shape::None, Shape::All];
        let mut lines: Vec<u64> = self.units.iter().map(|unit| unit.line).collect();
        lines.dedup();
        random.thin(&mut lines, plan.singles);
        shapes.extend(lines.iter().flat_map(|line| [Shape::OnlyLine(*line), Shape::ButLine(*line)]));
        let mut units: Vec<usize> = (0..self.units.len()).collect();
        random.thin(&mut units, plan.singles);
        for unit in units {
            shapes.extend((1..=self.units[unit].values.len()).map(|value| Shape::Only(unit, value)));
            shapes.extend((0..=self.units[unit].values.len()).map(|value| Shape::But(unit, value)));
        }
        shapes.extend((0..plan.samples).map(|n| Shape::Sample(n as u64)));
        shapes
    }
}

/// How the values of the units are chosen.
#[derive(Clone, Copy, Debug)]
enum Shape {
    None,
    All,
    OnlyLine(u64),
    ButLine(u64),
    /// Only this unit, at this value.
    Only(usize, usize),
    /// Everything as loads see it, but this unit at this value.
    But(usize, usize),
    Sample(u64),
}

/// The images of one point, one after the other.
#[derive(Debug)]
pub struct Images<'p> {
    pending: &'p Pending,
    /// The value of every unit; 0 is the durable one.
    choice: Vec<usize>,
    exhaustive: bool,
    started: bool,
    shapes: std::vec::IntoIter<Shape>,
    random: Random,
    seen: HashSet<u64>,
    words: Vec<(u64, u64)>,
}

impl Images<'_> {
    /// The next image: the words (pool offset, content) in which it differs from what is certainly durable.
    pub fn next_image(&mut self) -> Option<&[(u64, u64)]> {
        let more = if self.exhaustive { self.count_up() } else { self.next_shape() };
        if !more {
            return None;
        }
        self.words.clear();
        for (unit, choice) in self.pending.units.iter().zip(&self.choice) {
            if *choice > 0 {
                let value = self.pending.values[unit.values.start + choice - 1].clone();
                self.words.extend_from_slice(&self.pending.words[value]);
            }
        }
        Some(&self.words)
    }

    /// Adds one to the choices, read as the digits of a number.
    fn count_up(&mut self) -> bool {
        if !std::mem::replace(&mut self.started, true) {
            return true;
        }
        for (unit, choice) in self.pending.units.iter().zip(&mut self.choice) {
            *choice += 1;
            if *choice <= unit.values.len() {
                return true;
            }
            *choice = 0;
        }
        false
    }

    fn next_shape(&mut self) -> bool {
        while let Some(shape) = self.shapes.next() {
            self.choose(shape);
            let mut sum = 0_u64;
            for (i, choice) in self.choice.iter().enumerate().filter(|(_, choice)| **choice > 0) {
                sum = sum.wrapping_add(Random((i as u64) << 20 ^ *choice as u64).next());
            }
            if self.seen.insert(sum) {
                return true;
            }
        }
        false
    }

    fn choose(&mut self, shape: Shape) {
        let units = self.pending.units.iter().enumerate().zip(&mut self.choice);
        match shape {
            Shape::None => self.choice.fill(0),
            Shape::All => units.for_each(|((_, unit), choice)| *choice = unit.visible),
            Shape::OnlyLine(line) => {
                units.for_each(|((_, u), choice)| *choice = if u.line == line { u.visible } else { 0 });
            }
            Shape::ButLine(line) => {
                units.for_each(|((_, u), choice)| *choice = if u.line == line { 0 } else { u.visible });
            }
            Shape::Only(unit, value) => {
                units.for_each(|((i, _), choice)| *choice = if i == unit { value } else { 0 });
            }
            Shape::But(unit, value) => {
                units.for_each(|((i, u), choice)| *choice = if i == unit { value } else { u.visible });
            }
            Shape::Sample(n) => self.sample(n),
        }
    }

    /// A random image: in turn of any values, or as loads see it, word by word or line by line, with a chance of a
    /// tenth, a half or nine tenths of being durable.
    fn sample(&mut self, n: u64) {
        let tenths = [5, 1, 9][(n % 3) as usize];
        let (any_value, by_line) = ([true, false, false][(n / 3 % 3) as usize], n / 3 % 3 == 2);
        let (mut line, mut durable) = (u64::MAX, false);
        for (unit, choice) in self.pending.units.iter().zip(&mut self.choice) {
            if !by_line || unit.line != line {
                durable = self.random.below(10) < tenths;
                line = unit.line;
            }
            *choice = match (durable, any_value) {
                (false, _) => 0,
                (true, true) => 1 + self.random.below(unit.values.len() as u64) as usize,
                (true, false) => unit.visible,
            };
        }
    }
}

/// A small generator of random numbers (splitmix64).
#[derive(Clone, Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// Keeps `keep` of the items, in their order.
    fn thin<T>(&mut self, items: &mut Vec<T>, keep: usize) {
        let (mut left, mut wanted) = (items.len() as u64, keep as u64);
        items.retain(|_| {
            let kept = self.below(left) < wanted;
            left -= 1;
            wanted -= u64::from(kept);
            kept
        });
    }
}
