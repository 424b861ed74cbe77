//! Which keys a workload touches: a permutation, a Zipf distribution, a small generator. All are
//! functions of a seed, so that every engine is asked the very same.

/// Length of every key, bytes.
pub const KEY_BYTES: usize = 16;
/// Skew of the Zipf distribution, as YCSB has it.
const THETA: f64 = 0.99;

/// Mixes 64 bits (the finaliser of splitmix64).
pub fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// A generator of random numbers: splitmix64.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// A generator that `seed` decides.
    pub fn new(seed: u64) -> Self {
        Random(mix(seed))
    }

    /// The next 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// A number from 0 to below 1.
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// The key of number `index`: 16 bytes in the order of the numbers.
pub fn key(index: u64) -> [u8; KEY_BYTES] {
    let mut key = *b"user\0\0\0\0\0\0\0\0\0\0\0\0";
    key[KEY_BYTES - 8..].copy_from_slice(&index.to_be_bytes());
    key
}

/// Place `at` of a fixed shuffle of `0..count`; `count` is a power of two.
pub fn shuffled(at: u64, count: u64) -> u64 {
    debug_assert!(count.is_power_of_two());
    let mask = count - 1;
    let half = (count.trailing_zeros() / 2).max(1);
    let mut value = at & mask;
    // Every step can be undone within the mask: odd factor, xor with own high bits.
    for factor in [0x9e37_79b9_7f4a_7c15_u64, 0xbf58_476d_1ce4_e5b9, 0x94d0_49bb_1331_11eb] {
        value = value.wrapping_mul(factor) & mask;
        value ^= value >> half;
    }
    value
}

/// Values that no compression shortens: pieces of random bytes made once, so that making values
/// is no part of what is measured.
#[derive(Debug)]
pub struct Values {
    bytes: Vec<u8>,
    value_bytes: usize,
    random: Random,
}

/// Random bytes that values are pieces of.
const POOL_BYTES: usize = 1 << 20;

impl Values {
    /// Values of so many bytes that `seed` decides.
    pub fn new(value_bytes: usize, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let words = (POOL_BYTES + value_bytes).div_ceil(8);
        let bytes = (0..words).flat_map(|_| random.next().to_le_bytes()).collect();
        Values { bytes, value_bytes, random }
    }

    /// The next one.
    pub fn next(&mut self) -> &[u8] {
        let at = self.random.below(POOL_BYTES as u64) as usize;
        &self.bytes[at..at + self.value_bytes]
    }
}

/// Zipf-distributed ranks (Gray et al., "Quickly generating billion-record synthetic databases",
/// SIGMOD 1994, as YCSB uses it).
#[derive(Debug, Clone)]
pub struct Zipf {
    count: u64,
    zeta: f64,
    alpha: f64,
    eta: f64,
}

impl Zipf {
    /// Ranks below `count`.
    pub fn new(count: u64) -> Self {
        let zeta = |count: u64| (1..=count).map(|rank| (rank as f64).powf(-THETA)).sum::<f64>();
        let (all, two) = (zeta(count), zeta(2));
        let eta = (1.0 - (2.0 / count as f64).powf(1.0 - THETA)) / (1.0 - two / all);
        Zipf { count, zeta: all, alpha: 1.0 / (1.0 - THETA), eta }
    }

    /// A rank; 0 is the most frequent.
    pub fn rank(&self, random: &mut Random) -> u64 {
        let unit = random.unit();
        let scaled = unit * self.zeta;
        if scaled < 1.0 {
            return 0;
        }
        if scaled < 1.0 + 0.5_f64.powf(THETA) {
            return 1;
        }
        let rank = self.count as f64 * (self.eta * unit - self.eta + 1.0).powf(self.alpha);
        (rank as u64).min(self.count - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shuffle_hits_every_number_once() {
        for count in [2_u64, 64, 1 << 13, 1 << 16] {
            let mut seen = vec![false; count as usize];
            (0..count).for_each(|at| seen[shuffled(at, count) as usize] = true);
            assert!(seen.iter().all(|seen| *seen), "{count}");
        }
        let rises = (1..1 << 16).filter(|at| shuffled(*at, 1 << 16) > shuffled(at - 1, 1 << 16));
        let share = rises.count() as f64 / f64::from(1 << 16);
        assert!((0.4..0.6).contains(&share), "{share}");
    }

    #[test]
    fn zipf_is_skewed_and_bounded() {
        let (zipf, mut random) = (Zipf::new(1000), Random::new(1));
        let ranks: Vec<u64> = (0..100_000).map(|_| zipf.rank(&mut random)).collect();
        assert!(ranks.iter().all(|rank| *rank < 1000));
        let first = ranks.iter().filter(|rank| **rank == 0).count() as f64 / 100_000.0;
        // 1 / zeta(1000) is 0.130.
        assert!((0.12..0.14).contains(&first), "{first}");
    }

    #[test]
    fn values_differ_and_have_their_length() {
        let mut values = Values::new(100, 7);
        let all: std::collections::BTreeSet<Vec<u8>> =
            (0..1000).map(|_| values.next().to_vec()).collect();
        assert!(all.len() > 990 && all.iter().all(|value| value.len() == 100));
    }

    #[test]
    fn keys_sort_like_their_numbers() {
        assert!(key(1) < key(2) && key(255) < key(256) && key(1 << 40) > key(3));
    }
}
