//! What became of a mapping's faults?
//!
//! [`Counters`] belong to one mapping and are counted by whoever answers its faults; [`Stats`] is what they were at one moment.
//! Nothing is decided by a count, so they are relaxed: two of one snapshot may be from moments apart.

use crate::choose::{Cause, Decision, Reason, ZeroSize};
use daxstore::sync::atomic::Ordering;
use std::array;
use std::fmt;

#[cfg(not(loom))]
use daxstore::sync::atomic::AtomicU64;
// No protocol reads a count; seen by loom, each would multiply the interleavings of a model.
#[cfg(loom)]
use std::sync::atomic::AtomicU64;

macro_rules! counts {
    ($($(#[$doc:meta])* $count:ident = $name:literal;)*) => {
        /// What is counted, but for fallbacks, which are counted by [`Reason`].
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Count {
            $($(#[$doc])* $count,)*
        }

        impl Count {
            /// Every count, in order.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$count),*];

            /// A stable name, for machines.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$count => $name,)*
                }
            }
        }
    };
}

counts! {
    /// Faults of loads.
    Loads = "loads";
    /// Faults of stores.
    Stores = "stores";
    /// Decisions for 2 MiB of the pool.
    Pmd = "pmd";
    /// Decisions for zeros of 2 MiB.
    ZeroPmd = "zero_pmd";
    /// SIGBUS beyond the end of the file.
    Beyond = "sigbus.beyond";
    /// SIGBUS where the medium is bad.
    BadMedium = "sigbus.bad_medium";
    /// Faults sent back to try again.
    Retries = "retries";
    /// Faults that met another's turn.
    Waits = "waits";
    /// Faults that ended in SIGBUS because the file or the system failed: no space, an error.
    Failures = "failures";
    /// Calls that installed translations of the pool.
    Installs = "installs";
    /// The bytes these covered.
    InstalledBytes = "installed_bytes";
    /// Calls that installed zeros.
    Zeros = "zeros";
    /// The bytes these covered.
    ZeroBytes = "zero_bytes";
    /// Pages copied for a private mapping.
    Copies = "copies";
    /// Copies of pages that other files own too, for loads.
    Guarded = "guarded";
    /// Pages that were given blocks of the file's own.
    Unshared = "unshared";
    /// Times that zeros gave way to blocks because of a store elsewhere: another mapping's.
    Upgrades = "upgrades";
    /// The bytes that did.
    UpgradedBytes = "upgraded_bytes";
    /// Times that translations were given up, to stay below the system's number of mappings.
    Evictions = "evictions";
    /// The bytes these covered.
    EvictedBytes = "evicted_bytes";
    /// Ranges made durable on request.
    Flushes = "flushes";
    /// The bytes these had.
    FlushedBytes = "flushed_bytes";
}

const COUNTS: usize = Count::ALL.len();
const REASONS: usize = Reason::ALL.len();

/// A decision that names a reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fallback {
    /// 4 KiB of the pool, or a copy.
    Pte,
    /// Zeros of 4 KiB.
    Zero,
    /// SIGBUS, for want of 4 KiB.
    Sigbus,
}

impl Fallback {
    /// Every one, in order.
    pub const ALL: [Self; 3] = [Self::Pte, Self::Zero, Self::Sigbus];

    /// A stable name, for machines; a reason's name follows it after a point.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pte => "pte",
            Self::Zero => "zero_pte",
            Self::Sigbus => "sigbus.not_huge",
        }
    }
}

/// The counts of one mapping, as they are counted.
#[derive(Debug)]
pub struct Counters {
    plain: [AtomicU64; COUNTS],
    fallbacks: [[AtomicU64; REASONS]; 3],
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            plain: array::from_fn(|_| AtomicU64::new(0)),
            fallbacks: array::from_fn(|_| array::from_fn(|_| AtomicU64::new(0))),
        }
    }
}

impl Counters {
    /// Counts `n` of `count`.
    pub fn add(&self, count: Count, n: u64) {
        if let Some(counter) = self.plain.get(count as usize) {
            counter.fetch_add(n, Ordering::Relaxed);
        }
    }

    /// Counts one of `calls`, and `len` of `bytes`.
    pub fn add_range(&self, calls: Count, bytes: Count, len: u64) {
        self.add(calls, 1);
        self.add(bytes, len);
    }

    /// Counts a fault that was taken up.
    pub fn fault(&self, write: bool) {
        self.add(if write { Count::Stores } else { Count::Loads }, 1);
    }

    /// Counts what a fault got. A decision that was asked for again without a chunk counts once, as the last.
    pub fn decided(&self, decision: Decision) {
        match decision {
            Decision::Pmd => self.add(Count::Pmd, 1),
            Decision::Zero(ZeroSize::Pmd) => self.add(Count::ZeroPmd, 1),
            Decision::Sigbus(Cause::Beyond) => self.add(Count::Beyond, 1),
            Decision::Sigbus(Cause::BadMedium) => self.add(Count::BadMedium, 1),
            Decision::Retry => self.add(Count::Retries, 1),
            Decision::Pte(why) => self.fell_back(Fallback::Pte, why),
            Decision::Zero(ZeroSize::Pte(why)) => self.fell_back(Fallback::Zero, why),
            Decision::Sigbus(Cause::NotHuge(why)) => self.fell_back(Fallback::Sigbus, why),
        }
    }

    fn fell_back(&self, to: Fallback, why: Reason) {
        let counter = self.fallbacks.get(to as usize).and_then(|reasons| reasons.get(why as usize));
        if let Some(counter) = counter {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What the counts are now.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            plain: self.plain.each_ref().map(load),
            fallbacks: self.fallbacks.each_ref().map(|reasons| reasons.each_ref().map(load)),
        }
    }
}

/// What became of a mapping's faults, at one moment. Shown as a table of what is not zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stats {
    plain: [u64; COUNTS],
    fallbacks: [[u64; REASONS]; 3],
}

impl Default for Stats {
    fn default() -> Self {
        Self { plain: [0; COUNTS], fallbacks: [[0; REASONS]; 3] }
    }
}

impl Stats {
    /// How many of `count`.
    #[must_use]
    pub fn get(&self, count: Count) -> u64 {
        self.plain.get(count as usize).copied().unwrap_or(0)
    }

    /// How many decisions fell back to `to` because of `why`.
    #[must_use]
    pub fn fallbacks(&self, to: Fallback, why: Reason) -> u64 {
        self.fallbacks.get(to as usize).and_then(|reasons| reasons.get(why as usize)).copied().unwrap_or(0)
    }

    /// How many decisions fell back to `to`, for whatever reason.
    #[must_use]
    pub fn all_fallbacks(&self, to: Fallback) -> u64 {
        self.fallbacks.get(to as usize).map_or(0, |reasons| reasons.iter().sum())
    }

    /// What was counted since `earlier`, a snapshot of the same mapping.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            plain: less(self.plain, &earlier.plain),
            fallbacks: array::from_fn(|to| match (self.fallbacks.get(to), earlier.fallbacks.get(to)) {
                (Some(now), Some(then)) => less(*now, then),
                _ => [0; REASONS],
            }),
        }
    }

    /// Adds what another mapping counted.
    pub fn add(&mut self, other: &Self) {
        more(&mut self.plain, &other.plain);
        for (mine, theirs) in self.fallbacks.iter_mut().zip(&other.fallbacks) {
            more(mine, theirs);
        }
    }

    /// Every count with its stable name and, for a fallback, what the reason means: zeros too, in a stable order.
    pub fn rows(&self) -> impl Iterator<Item = Row> + '_ {
        let plain = Count::ALL.iter().map(|&count| Row {
            group: None,
            name: count.name(),
            n: self.get(count),
            text: "",
        });
        let fallbacks = Fallback::ALL.iter().flat_map(move |&to| {
            Reason::ALL.iter().map(move |&why| Row {
                group: Some(to.name()),
                name: why.name(),
                n: self.fallbacks(to, why),
                text: why.text(),
            })
        });
        plain.chain(fallbacks)
    }
}

/// A line of [`Stats`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    /// For a fallback, what it fell back to ([`Fallback::name`]).
    pub group: Option<&'static str>,
    /// [`Count::name`] or [`Reason::name`].
    pub name: &'static str,
    /// How many.
    pub n: u64,
    /// What the reason means; empty for a plain count.
    pub text: &'static str,
}

/// Counters only grow, but a snapshot is not of one moment: no difference goes below zero.
fn less<const N: usize>(now: [u64; N], then: &[u64; N]) -> [u64; N] {
    let mut earlier = then.iter();
    now.map(|n| n.saturating_sub(earlier.next().copied().unwrap_or(0)))
}

fn more(sum: &mut [u64], other: &[u64]) {
    for (sum, n) in sum.iter_mut().zip(other) {
        *sum = sum.wrapping_add(*n);
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in self.rows().filter(|row| row.n > 0) {
            let name = match row.group {
                Some(group) => format!("{group}.{}", row.name),
                None => row.name.to_owned(),
            };
            writeln!(f, "{}", format!("{name:<30} {:>14}  {}", row.n, row.text).trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn every_decision() -> Vec<Decision> {
        let mut all = vec![
            Decision::Pmd,
            Decision::Zero(ZeroSize::Pmd),
            Decision::Sigbus(Cause::Beyond),
            Decision::Sigbus(Cause::BadMedium),
            Decision::Retry,
        ];
        for why in Reason::ALL {
            all.extend([
                Decision::Pte(why),
                Decision::Zero(ZeroSize::Pte(why)),
                Decision::Sigbus(Cause::NotHuge(why)),
            ]);
        }
        all
    }

    #[test]
    fn each_decision_has_a_count_of_its_own() {
        let mut grown = BTreeSet::new();
        for decision in every_decision() {
            let counters = Counters::default();
            counters.decided(decision);
            let rows: Vec<_> = counters
                .stats()
                .rows()
                .filter(|row| row.n > 0)
                .map(|row| (row.group, row.name, row.n))
                .collect();
            assert_eq!(rows.len(), 1, "{decision:?}: {rows:?}");
            assert_eq!(rows[0].2, 1);
            assert!(grown.insert((rows[0].0, rows[0].1)), "{decision:?} is counted as another: {rows:?}");
        }
    }

    #[test]
    fn names_of_counts_do_not_repeat_and_indices_are_in_order() {
        let stats = Stats::default();
        let names: BTreeSet<_> = stats.rows().map(|row| (row.group, row.name)).collect();
        assert_eq!(names.len(), COUNTS + 3 * REASONS);
        assert!(Count::ALL.iter().enumerate().all(|(i, count)| *count as usize == i));
        assert!(Fallback::ALL.iter().enumerate().all(|(i, to)| *to as usize == i));
    }

    #[test]
    fn what_is_counted_is_shown_and_since_takes_the_earlier_away() {
        let counters = Counters::default();
        counters.fault(true);
        counters.fault(false);
        counters.fault(false);
        counters.decided(Decision::Pte(Reason::Fragmented));
        counters.decided(Decision::Zero(ZeroSize::Pte(Reason::Mixed)));
        counters.add_range(Count::Installs, Count::InstalledBytes, 4096);
        let then = counters.stats();
        assert_eq!((then.get(Count::Loads), then.get(Count::Stores)), (2, 1));
        assert_eq!((then.get(Count::Installs), then.get(Count::InstalledBytes)), (1, 4096));

        counters.decided(Decision::Pte(Reason::Fragmented));
        counters.decided(Decision::Pte(Reason::Misplaced));
        counters.add_range(Count::Installs, Count::InstalledBytes, 8192);
        let since = counters.stats().since(&then);
        assert_eq!(since.fallbacks(Fallback::Pte, Reason::Fragmented), 1);
        assert_eq!((since.all_fallbacks(Fallback::Pte), since.all_fallbacks(Fallback::Zero)), (2, 0));
        assert_eq!((since.get(Count::InstalledBytes), since.get(Count::Loads)), (8192, 0));

        let mut sum = then;
        sum.add(&since);
        assert_eq!(sum, counters.stats());
        let expected = "installs                                    1\n\
                        installed_bytes                          8192\n\
                        pte.fragmented                              1  the pages lie in several places of the pool\n\
                        pte.misplaced                               1  the pages do not begin at 2 MiB of the pool\n";
        assert_eq!(since.to_string(), expected);
    }

    #[test]
    fn no_count_of_threads_that_count_together_is_lost() {
        let counters = Counters::default();
        daxstore::sync::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..5000).for_each(|_| counters.decided(Decision::Retry)));
            }
        });
        assert_eq!(counters.stats().get(Count::Retries), 20_000);
    }
}
