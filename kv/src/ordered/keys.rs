//! Where among the low bounds of a node does a key belong?
//!
//! Bounds in ascending order, searched by their first eight bytes after what they have in common; only equal heads are
//! compared in full. Whatever lies below the second bound belongs to the first place, so the first bound is no part of
//! a search.
//!
//! Invariants:
//! 1. `heads[i]` is the big-endian head of bound `i` after the first `common` bytes, which bounds 1.. share.
//! 2. Bounds are strictly ascending.

use smallvec::SmallVec;
use std::cmp::Ordering;
use std::ops::Range;

/// The first eight bytes of `key` from `from` on as a number that orders as they do; missing bytes are zero.
#[inline]
pub(super) fn head(key: &[u8], from: usize) -> u64 {
    let rest = key.get(from..).unwrap_or_default();
    match rest.first_chunk::<8>() {
        Some(chunk) => u64::from_be_bytes(*chunk),
        None => rest.iter().enumerate().fold(0, |word, (i, byte)| word | (u64::from(*byte) << (56 - 8 * i))),
    }
}

/// How many bytes `a` and `b` start with in common.
#[inline]
pub(super) fn common(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(x, y)| x == y).count()
}

/// The shortest key that is above `left` and at most `right`. `left` is below `right`.
pub(super) fn separator<'k>(left: &[u8], right: &'k [u8]) -> &'k [u8] {
    &right[..right.len().min(common(left, right) + 1)]
}

/// The low bounds of a node's places.
#[derive(Debug, Default)]
pub(super) struct Keys {
    /// What bounds 1.. start with; where keys are of the usual length it lies here, so that a search has a miss less.
    shared: SmallVec<[u8; 16]>,
    heads: Vec<u64>,
    bounds: Vec<Box<[u8]>>,
}

impl Keys {
    /// Of `bounds`, strictly ascending.
    pub(super) fn new(bounds: Vec<Box<[u8]>>) -> Self {
        let mut keys = Self { bounds, ..Self::default() };
        keys.reshape();
        keys
    }

    pub(super) fn get(&self, place: usize) -> &[u8] {
        &self.bounds[place]
    }

    /// The bound of the last place; the node is not empty.
    pub(super) fn last(&self) -> &[u8] {
        &self.bounds[self.bounds.len() - 1]
    }

    pub(super) fn bound_of(&self, place: usize) -> Option<&[u8]> {
        self.bounds.get(place).map(|bound| &**bound)
    }

    /// Computes the heads anew.
    fn reshape(&mut self) {
        self.shared = match (self.bounds.get(1), self.bounds.last()) {
            (Some(first), Some(last)) if self.bounds.len() > 2 => first[..common(first, last)].into(),
            _ => SmallVec::new(),
        };
        let from = self.shared.len();
        self.heads = self.bounds.iter().map(|bound| head(bound, from)).collect();
    }

    /// The place that `key` belongs to: the last whose bound is not above it, or the first. The node is not empty.
    #[inline]
    pub(super) fn find(&self, key: &[u8]) -> usize {
        let from = self.shared.len();
        match key.get(..from).unwrap_or(key).cmp(&*self.shared) {
            Ordering::Less => return 0,
            Ordering::Greater => return self.bounds.len() - 1,
            Ordering::Equal => {}
        }
        let wanted = head(key, from);
        let rest = self.heads.get(1..).unwrap_or_default();
        let place = rest.partition_point(|head| *head <= wanted);
        if place == 0 || self.heads[place] != wanted || *self.bounds[place] <= *key {
            return place;
        }
        let equal = rest[..place].partition_point(|head| *head < wanted);
        equal + self.bounds[1 + equal..=place].partition_point(|bound| **bound <= *key)
    }

    /// Whether `key` lies below the bound of `place`; `None` where there is no such bound.
    #[inline]
    pub(super) fn is_below(&self, key: &[u8], place: usize) -> Option<bool> {
        let bound = self.bounds.get(place)?;
        // Most times the heads tell, and the bound need not be looked at where it lies.
        if place > 0 && key.starts_with(&self.shared) {
            match head(key, self.shared.len()).cmp(&self.heads[place]) {
                Ordering::Less => return Some(true),
                Ordering::Greater => return Some(false),
                Ordering::Equal => {}
            }
        }
        Some(*key < **bound)
    }

    /// The place that keys just below `key` belong to.
    pub(super) fn find_below(&self, key: &[u8]) -> usize {
        let place = self.find(key);
        if place > 0 && *self.bounds[place] == *key { place - 1 } else { place }
    }

    /// Puts `bound` in at `place`.
    pub(super) fn insert(&mut self, place: usize, bound: Box<[u8]>) {
        let grown = self.bounds.len().is_power_of_two();
        let fits = place > 0 && !grown && bound.starts_with(&self.shared);
        self.heads.insert(place, head(&bound, self.shared.len()));
        self.bounds.insert(place, bound);
        if !fits {
            self.reshape();
        }
    }

    /// Puts `bounds` in the place of those of `places`: of what lies behind them nothing moves where these are as many.
    pub(super) fn replace(&mut self, places: Range<usize>, bounds: Vec<Box<[u8]>>) {
        let (had, from) = (self.bounds.len(), self.shared.len());
        let mut placed = bounds.iter().zip(places.start..);
        let fit = placed.all(|(bound, place)| place == 0 || bound.starts_with(&self.shared));
        self.heads.splice(places.clone(), bounds.iter().map(|bound| head(bound, from)));
        self.bounds.splice(places, bounds);
        // As for one that is put in.
        let grown = (had..self.bounds.len()).any(usize::is_power_of_two);
        if grown || !fit {
            self.reshape();
        }
    }

    /// Takes the bound at `place` out.
    pub(super) fn remove(&mut self, place: usize) -> Box<[u8]> {
        self.heads.remove(place);
        self.bounds.remove(place)
    }

    /// Adds the places of `upper`, whose bounds are all above.
    pub(super) fn append(&mut self, upper: Self) {
        self.bounds.extend(upper.bounds);
        self.reshape();
    }

    /// Takes the bounds from `place` on out.
    pub(super) fn split_off(&mut self, place: usize) -> Vec<Box<[u8]>> {
        let upper = self.bounds.split_off(place);
        self.reshape();
        upper
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn finds_what_a_scan_finds(
            mut bounds in prop::collection::vec(prop::collection::vec(0u8..3, 0..12), 1..20),
            more in prop::collection::vec(prop::collection::vec(0u8..3, 0..12), 0..8),
            shared in prop::collection::vec(0u8..3, 0..4),
            instead in (0..20_usize, 1..4_usize, prop::collection::vec(prop::collection::vec(0u8..3, 0..12), 0..5)),
            keys in prop::collection::vec(prop::collection::vec(0u8..3, 0..14), 1..30),
        ) {
            bounds.iter_mut().for_each(|bound| *bound = [&shared[..], bound].concat());
            bounds.sort();
            bounds.dedup();
            let mut tested = Keys::new(bounds.iter().map(|b| b.clone().into()).collect());
            for bound in more {
                if let Err(place) = bounds.binary_search(&bound) {
                    bounds.insert(place, bound.clone());
                    tested.insert(place, bound.into());
                }
            }
            if bounds.len() > 2 {
                bounds.remove(1);
                tested.remove(1);
            }
            let (first, last) = (instead.0.min(bounds.len() - 1), (instead.0 + instead.1).min(bounds.len()));
            let (low, high) = (bounds[first].clone(), bounds.get(last).cloned());
            let mut others: Vec<_> = instead.2.iter().map(|bound| [&shared[..], bound].concat()).collect();
            others.push(low.clone());
            others.retain(|bound| *bound >= low && high.as_ref().is_none_or(|high| bound < high));
            others.sort();
            others.dedup();
            bounds.splice(first..last, others.clone());
            tested.replace(first..last, others.into_iter().map(Into::into).collect());
            for key in keys.iter().chain(&bounds) {
                let place = bounds.iter().skip(1).filter(|b| *b <= key).count();
                let below = bounds.iter().skip(1).filter(|b| *b < key).count();
                prop_assert_eq!(tested.find(key), place);
                prop_assert_eq!(tested.find_below(key), below);
                for place in 0..=bounds.len() {
                    prop_assert_eq!(tested.is_below(key, place), bounds.get(place).map(|bound| key < bound));
                }
            }
        }
    }

    #[test]
    fn separators_are_short_and_apart() {
        assert_eq!(separator(b"abc", b"abdzz"), b"abd");
        assert_eq!(separator(b"ab", b"abc"), b"abc");
        assert_eq!(separator(b"", b"x"), b"x");
        assert_eq!(head(b"ab", 1), u64::from(b'b') << 56);
    }
}
