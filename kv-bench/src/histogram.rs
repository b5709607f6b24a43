//! How long do operations take, from the usual to the rare?
//!
//! Invariant: a percentile is at most 1/32 above the time it stands for.

/// Parts of each power of two.
const PARTS: u64 = 32;

/// Times in nanoseconds.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    longest: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; bucket(u64::MAX) + 1], total: 0, longest: 0 }
    }
}

impl Histogram {
    /// Counts an operation that took `nanos`.
    pub fn record(&mut self, nanos: u64) {
        self.counts[bucket(nanos)] += 1;
        self.total += 1;
        self.longest = self.longest.max(nanos);
    }

    /// Counts what another has counted.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.total += other.total;
        self.longest = self.longest.max(other.longest);
    }

    /// How many were counted.
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// The longest.
    pub const fn longest(&self) -> u64 {
        self.longest
    }

    /// The time that `part` (0 to 1) of the operations took at most; 0 of none.
    pub fn percentile(&self, part: f64) -> u64 {
        let wanted = (part * self.total as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (i, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return upper(i).min(self.longest);
            }
        }
        0
    }
}

/// The bucket of a time: exact below `PARTS`, then `PARTS` to a power of two.
const fn bucket(nanos: u64) -> usize {
    if nanos < PARTS {
        return nanos as usize;
    }
    let shift = nanos.ilog2() - PARTS.ilog2();
    (shift as u64 * PARTS + (nanos >> shift)) as usize
}

/// The longest time of a bucket.
const fn upper(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < 2 * PARTS {
        return bucket;
    }
    let shift = bucket / PARTS - 1;
    let first = (bucket - shift * PARTS) << shift;
    first + ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_one_another_and_are_narrow() {
        for nanos in (0..100_000).chain([1 << 40, u64::MAX]) {
            let at = bucket(nanos);
            assert!(upper(at) >= nanos, "{nanos}");
            assert!(upper(at) - nanos <= nanos / PARTS, "{nanos}: {}", upper(at));
            assert!(at == 0 || upper(at - 1) < nanos, "{nanos}");
        }
    }

    #[test]
    fn percentiles() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.percentile(0.5), 0);
        let mut half = Histogram::default();
        for nanos in 1..=1000 {
            if nanos % 2 == 0 { &mut histogram } else { &mut half }.record(nanos);
        }
        histogram.add(&half);
        assert_eq!((histogram.total(), histogram.longest()), (1000, 1000));
        for (part, wanted) in [(0.5, 500), (0.99, 990), (0.999, 999), (1.0, 1000)] {
            let found = histogram.percentile(part);
            assert!((wanted..=wanted + wanted / PARTS).contains(&found), "{part}: {found}");
        }
    }
}
