//! Which key comes next, and what is stored under it?
//!
//! Invariants:
//! 1. What is drawn depends on the seed alone: all engines see the same keys in the same order.
//! 2. Keys are 16 bytes and different for different indices ([`mix`] is a bijection).
//! 3. A value begins with the index of its key, and the rest does not compress.

/// Bytes of every key.
pub const KEY_BYTES: usize = 16;
/// A key.
pub type Key = [u8; KEY_BYTES];
/// Skew of YCSB's distributions.
pub const THETA: f64 = 0.99;

/// Bytes that values are cut from.
const NOISE_BYTES: usize = 1 << 20;

/// Random numbers (Vigna's splitmix64).
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// The sequence of `seed` and `stream`.
    pub const fn new(seed: u64, stream: u64) -> Self {
        Self(mix(seed ^ mix(stream.wrapping_add(0x5DEE_CE66))))
    }

    /// 64 random bits.
    pub const fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    /// A number below `n`, which is not 0.
    pub const fn below(&mut self, n: u64) -> u64 {
        ((self.bits() as u128 * n as u128) >> 64) as u64
    }

    /// A number from 0 to 1, without 1.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// A bijection that scatters.
pub const fn mix(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    n ^ (n >> 31)
}

/// The key of an index: hexadecimal digits, scattered over the whole space of keys.
pub fn scattered(index: u64) -> Key {
    hexadecimal(mix(index.wrapping_add(1)))
}

/// The key of an index in a sequential load: greater for greater indices.
pub fn ascending(index: u64) -> Key {
    hexadecimal(index)
}

fn hexadecimal(mut n: u64) -> Key {
    let mut key = [0; KEY_BYTES];
    for place in key.iter_mut().rev() {
        *place = b"0123456789abcdef"[(n & 15) as usize];
        n >>= 4;
    }
    key
}

/// The `i`th index of a fixed order of all indices below `n` that is not the order they were loaded in.
pub const fn shuffled(i: u64, n: u64) -> u64 {
    // A prime that divides no number of records that anybody asks for.
    ((i as u128 * 2_654_435_761) % n as u128) as u64
}

/// Ranks from 0, the first the likeliest (Gray et al., "Quickly Generating Billion-Record Synthetic Databases", as
/// YCSB's `ZipfianGenerator`).
#[derive(Clone, Debug)]
pub struct Zipf {
    n: f64,
    alpha: f64,
    zeta: f64,
    eta: f64,
    second: f64,
}

impl Zipf {
    /// Ranks below `n`, which is not 0.
    pub fn new(n: u64) -> Self {
        let zeta_of = |n: u64| (1..=n).map(|i| (i as f64).powf(-THETA)).sum::<f64>();
        let zeta = zeta_of(n);
        let eta = (1.0 - (2.0 / n as f64).powf(1.0 - THETA)) / (1.0 - zeta_of(2) / zeta);
        Self { n: n as f64, alpha: 1.0 / (1.0 - THETA), zeta, eta, second: 1.0 + 0.5_f64.powf(THETA) }
    }

    /// A rank.
    pub fn rank(&self, rng: &mut Rng) -> u64 {
        let unit = rng.unit();
        let at = unit * self.zeta;
        if at < 1.0 {
            return 0;
        }
        if at < self.second && self.n > 1.0 {
            return 1;
        }
        let rank = self.n * (self.eta * unit - self.eta + 1.0).powf(self.alpha);
        (rank as u64).min(self.n as u64 - 1)
    }

    /// A rank turned into an index, so that likely records lie anywhere in the order of loading (YCSB's
    /// `ScrambledZipfianGenerator`).
    pub fn scrambled(&self, rng: &mut Rng) -> u64 {
        mix(self.rank(rng) ^ 0x5DEE_CE66_D00D) % self.n as u64
    }
}

/// Makes values.
pub struct Values {
    noise: Vec<u8>,
    value: Vec<u8>,
}

impl Values {
    /// Values of `bytes` bytes.
    pub fn new(bytes: usize, seed: u64) -> Self {
        let mut rng = Rng::new(seed, u64::MAX);
        let noise = (0..(NOISE_BYTES + bytes).div_ceil(8)).flat_map(|_| rng.bits().to_le_bytes()).collect();
        Self { noise, value: vec![0; bytes] }
    }

    /// A new value of the key with `index`.
    pub fn of(&mut self, index: u64, rng: &mut Rng) -> &[u8] {
        let at = rng.below(NOISE_BYTES as u64) as usize;
        let bytes = self.value.len();
        self.value.copy_from_slice(&self.noise[at..at + bytes]);
        let stamp = bytes.min(8);
        self.value[..stamp].copy_from_slice(&index.to_le_bytes()[..stamp]);
        &self.value
    }
}

/// Whether `value` is one of the key with `index`, of `bytes` bytes.
pub fn belongs(value: &[u8], index: u64, bytes: usize) -> bool {
    let stamp = bytes.min(8);
    value.len() == bytes && value[..stamp] == index.to_le_bytes()[..stamp]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn keys_differ_and_ascend() {
        let keys: HashSet<_> = (0..100_000).map(scattered).collect();
        assert_eq!(keys.len(), 100_000);
        assert!((1..10_000).all(|i| ascending(i - 1) < ascending(i)));
        assert!((1..100).any(|i| scattered(i - 1) > scattered(i)));
    }

    #[test]
    fn the_shuffle_takes_every_index_once() {
        for n in [1, 2, 1000, 99_991, 1 << 16] {
            let all: HashSet<_> = (0..n).map(|i| shuffled(i, n)).collect();
            assert_eq!(all.len() as u64, n);
        }
    }

    /// Each rank's share is `1 / (rank + 1)^theta / zeta`; the algorithm is exact for the first two and close after.
    #[test]
    fn ranks_are_zipfian() {
        const N: u64 = 1000;
        const DRAWS: u64 = 2_000_000;
        let zipf = Zipf::new(N);
        let mut rng = Rng::new(7, 0);
        let mut counts = vec![0_u64; N as usize];
        for _ in 0..DRAWS {
            counts[zipf.rank(&mut rng) as usize] += 1;
        }
        let zeta: f64 = (1..=N).map(|i| (i as f64).powf(-THETA)).sum();
        let share = |ranks: std::ops::Range<u64>| {
            let wanted: f64 = ranks.clone().map(|r| ((r + 1) as f64).powf(-THETA) / zeta).sum();
            let found: u64 = ranks.map(|r| counts[r as usize]).sum();
            (found as f64 / DRAWS as f64, wanted)
        };
        for (ranks, tolerance) in [(0..1, 0.01), (1..2, 0.01), (2..10, 0.15), (10..100, 0.05), (100..N, 0.05)]
        {
            let (found, wanted) = share(ranks.clone());
            assert!((found / wanted - 1.0).abs() < tolerance, "{ranks:?}: {found} for {wanted}");
        }
        assert!(Zipf::new(1).rank(&mut rng) == 0);
    }

    #[test]
    fn scrambling_spreads_the_likely_ones() {
        let zipf = Zipf::new(10_000);
        let mut rng = Rng::new(1, 0);
        let halves = (0..10_000).fold([0, 0], |mut halves, _| {
            halves[usize::from(zipf.scrambled(&mut rng) >= 5_000)] += 1;
            halves
        });
        assert!(halves.iter().all(|n| *n > 2_000), "{halves:?}");
    }

    #[test]
    fn random_numbers_are_even_and_follow_from_the_seed() {
        let draw = |seed, stream| {
            let mut rng = Rng::new(seed, stream);
            (0..1000).map(|_| rng.below(10)).collect::<Vec<_>>()
        };
        assert_eq!(draw(1, 0), draw(1, 0));
        assert!(draw(1, 0) != draw(1, 1) && draw(1, 0) != draw(2, 0));
        let drawn = draw(3, 0);
        assert!((0..10).all(|n| (60..140).contains(&drawn.iter().filter(|d| **d == n).count())));
    }

    #[test]
    fn values_tell_their_key_and_differ() {
        let (mut values, mut rng) = (Values::new(100, 1), Rng::new(1, 0));
        let first = values.of(5, &mut rng).to_vec();
        assert!(belongs(&first, 5, 100) && !belongs(&first, 6, 100) && !belongs(&first[1..], 5, 100));
        assert!(first != values.of(5, &mut rng));
        assert!(belongs(Values::new(3, 1).of(5, &mut rng), 5, 3));
    }
}
