//! Where in 512 bits is a run of clear ones?
//!
//! A set bit is a block (or chunk) that can not be had. Runs are found by doubling: a word-parallel shift and
//! mask a step, so that the cost does not grow with how the bits are scattered.

use crate::layout::Bits;

/// The bits of `a` that are not in `b`.
pub(super) fn minus(a: &Bits, b: &Bits) -> Bits {
    Bits(std::array::from_fn(|i| a.0[i] & !b.0[i]))
}

/// The bits of `a` and those of `b`.
pub(super) fn union(a: &Bits, b: &Bits) -> Bits {
    Bits(std::array::from_fn(|i| a.0[i] | b.0[i]))
}

/// Whether `a` and `b` have a bit in common.
pub(super) fn overlap(a: &Bits, b: &Bits) -> bool {
    a.0.iter().zip(b.0).any(|(a, b)| a & b != 0)
}

/// `len` bits from `from`.
pub(super) fn run(from: u64, len: u64) -> Bits {
    let mut bits = Bits::default();
    bits.set_run(from, len);
    bits
}

/// The logarithm of `n`, rounded down; 0 for 0.
pub(super) fn floor_log2(n: u64) -> usize {
    n.max(1).ilog2() as usize
}

/// Whether no bit is set. Comparing with zeros would call `memcmp`.
pub(super) fn is_zero(bits: &Bits) -> bool {
    bits.0.iter().fold(0, |all, word| all | word) == 0
}

fn shifted_down(bits: &Bits, by: u64) -> Bits {
    if by >= 512 {
        return Bits::default();
    }
    let mut padded = [0; 17];
    padded[..8].copy_from_slice(&bits.0);
    let (words, rest) = ((by / 64) as usize & 7, by % 64);
    // In two steps, since a shift by 64 is none.
    Bits(std::array::from_fn(|i| padded[i + words] >> rest | (padded[i + words + 1] << 1) << (63 - rest)))
}

/// The bits that are in `a` and in `b`.
pub(super) fn both(a: &Bits, b: &Bits) -> Bits {
    Bits(std::array::from_fn(|i| a.0[i] & b.0[i]))
}

/// The bits at which a run of `len` clear bits of `taken` starts.
fn starts(taken: &Bits, len: u64) -> Bits {
    let mut at = minus(&Bits::ALL, taken);
    let mut have = 1;
    while have < len {
        let step = have.min(len - have);
        at = both(&at, &shifted_down(&at, step));
        have += step;
    }
    at
}

/// How many clear bits follow each other from `from`, 0 past the end.
pub(super) fn run_at(taken: &Bits, from: u64) -> u64 {
    if from >= 512 { 0 } else { taken.next_set(from) - from }
}

/// The first run of at least `len` (1 to 512) clear bits: where, and its whole length.
pub(super) fn runs_of(taken: &Bits, len: u64) -> Option<(u64, u64)> {
    let from = starts(taken, len).next_set(0);
    (from < 512 && (1..=512).contains(&len)).then(|| (from, run_at(taken, from)))
}

/// The logarithm, rounded down, of the length of the longest run of clear bits; `None` where all are set.
pub(super) fn longest_class(taken: &Bits) -> Option<u8> {
    let mut at = minus(&Bits::ALL, taken);
    let mut class = None;
    while !is_zero(&at) {
        let next = class.map_or(0, |c: u8| c + 1);
        class = Some(next);
        at = both(&at, &shifted_down(&at, 1 << next));
    }
    class
}

/// A run of clear bits at least half as long as the longest.
pub(super) fn longest_run(taken: &Bits) -> Option<(u64, u64)> {
    runs_of(taken, 1 << longest_class(taken)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn naive(taken: &Bits) -> Vec<(u64, u64)> {
        let (mut runs, mut at) = (Vec::new(), 0);
        while at < 512 {
            let len = (at..512).take_while(|i| !taken.get(*i)).count() as u64;
            if len > 0 {
                runs.push((at, len));
            }
            at += len + 1;
        }
        runs
    }

    proptest! {
        #[test]
        fn runs_agree_with_counting(words in prop::array::uniform8(prop_oneof![Just(0), Just(u64::MAX), any::<u64>()]),
                                    more in any::<u64>(), len in 1u64..=512) {
            let taken = Bits(words.map(|w: u64| w & more));
            let runs = naive(&taken);
            let longest = runs.iter().map(|r| r.1).max();
            prop_assert_eq!(longest_class(&taken), longest.map(|n| floor_log2(n) as u8));
            prop_assert_eq!(runs_of(&taken, len), runs.iter().copied().find(|r| r.1 >= len));
            match longest_run(&taken) {
                None => prop_assert!(runs.is_empty()),
                Some(run) => prop_assert!(runs.contains(&run) && run.1 * 2 > longest.unwrap()),
            }
        }
    }
}
