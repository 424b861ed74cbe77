//! Which key comes next, what it looks like and which value belongs to it. Owns the key
//! distributions and the self-describing value pattern; knows nothing of sockets or time.

use super::random::{Random, Zipf};

/// How keys are picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Distribution {
    /// Every key equally often.
    Uniform,
    /// A few keys much more often than the rest, spread over the whole key space.
    Zipfian,
    /// Writes append new keys; reads prefer the newest ones.
    Latest,
    /// One after the other, from the first again after the last.
    Sequential,
}

/// A multiplier coprime to every number of keys the tool accepts: a prime above [`MAX_KEYS`].
const SCATTER: u64 = 2_654_435_761;
/// The most keys one run works on.
pub const MAX_KEYS: u64 = 2_000_000_000;

/// Picks key numbers; reproducible for a seed.
#[derive(Debug)]
pub struct KeyPicker {
    distribution: Distribution,
    keys: u64,
    zipf: Zipf,
    random: Random,
    next_read: u64,
    next_write: u64,
}

impl KeyPicker {
    /// A picker over key numbers `0..keys`; `latest` writes go beyond them.
    pub fn new(distribution: Distribution, keys: u64, exponent: f64, seed: u64) -> KeyPicker {
        assert!((1..=MAX_KEYS).contains(&keys), "the number of keys is out of range");
        let next_write = if distribution == Distribution::Latest { keys } else { 0 };
        KeyPicker {
            distribution,
            keys,
            zipf: Zipf::new(keys, exponent),
            random: Random::new(seed),
            next_read: 0,
            next_write,
        }
    }

    /// True with probability `percent` in a hundred.
    #[inline]
    pub fn coin(&mut self, percent: u32) -> bool {
        match percent {
            0 => false,
            100.. => true,
            _ => self.random.below(100) < u64::from(percent),
        }
    }

    /// The key number of the next read.
    #[inline]
    pub fn read(&mut self) -> u64 {
        match self.distribution {
            Distribution::Uniform => self.random.below(self.keys),
            Distribution::Zipfian => self.scattered(),
            Distribution::Latest => self.next_write - 1 - self.zipf.sample(&mut self.random),
            Distribution::Sequential => step(&mut self.next_read, self.keys),
        }
    }

    /// The key number of the next write.
    #[inline]
    pub fn write(&mut self) -> u64 {
        match self.distribution {
            Distribution::Uniform => self.random.below(self.keys),
            Distribution::Zipfian => self.scattered(),
            Distribution::Latest => {
                self.next_write += 1;
                self.next_write - 1
            }
            Distribution::Sequential => step(&mut self.next_write, self.keys),
        }
    }

    /// A zipfian rank mapped one to one onto the key numbers, so that hot keys are not neighbours.
    #[inline]
    fn scattered(&mut self) -> u64 {
        let rank = self.zipf.sample(&mut self.random);
        (u128::from(rank) * u128::from(SCATTER) % u128::from(self.keys)) as u64
    }
}

#[inline]
fn step(counter: &mut u64, keys: u64) -> u64 {
    let number = *counter;
    *counter = if number + 1 == keys { 0 } else { number + 1 };
    number
}

/// Writes key numbers as fixed-width keys.
#[derive(Clone, Debug)]
pub struct KeyFormat {
    prefix: Vec<u8>,
    width: usize,
}

/// Digits that hold every key number, `latest` writes of a long run included.
const MIN_DIGITS: usize = 12;

impl KeyFormat {
    /// Keys of `size` bytes that begin with `prefix`; longer when the digits need it.
    pub fn new(prefix: &str, size: usize) -> KeyFormat {
        let width = size.saturating_sub(prefix.len()).max(MIN_DIGITS);
        KeyFormat { prefix: prefix.as_bytes().to_vec(), width }
    }

    /// Puts the key with this number into `key`, replacing what was there.
    #[inline]
    pub fn write(&self, number: u64, key: &mut Vec<u8>) {
        key.clear();
        key.extend_from_slice(&self.prefix);
        let start = key.len();
        key.resize(start + self.width, b'0');
        let mut rest = number;
        for digit in key[start..].iter_mut().rev() {
            if rest == 0 {
                break;
            }
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
    }
}

/// The values of a run: incompressible bytes that name their key, so that a reply can be checked
/// without remembering what was written.
#[derive(Debug)]
pub struct Values {
    size: usize,
    pattern: Vec<u8>,
}

/// How many different starting points in the pattern values use, a power of two: so many that
/// values of neighbouring keys, which share a block of a table, hardly ever have bytes in common
/// for the server's compression to find.
const OFFSETS: u64 = 1 << 22;
/// Bytes at the start of a value that hold the key number.
const STAMP: usize = 8;

impl Values {
    /// Values of `size` bytes.
    pub fn new(size: usize) -> Values {
        let mut pattern = vec![0; size + OFFSETS as usize];
        // Not the run's seed: a later run with another seed must be able to check these values.
        Random::new(0x636f_726f_6e65_7431).fill(&mut pattern);
        Values { size, pattern }
    }

    /// Bytes of every value.
    pub fn size(&self) -> usize {
        self.size
    }

    /// The value of this key: the two parts that make it up, stamp and body.
    #[inline]
    pub fn of(&self, number: u64) -> ([u8; STAMP], usize, &[u8]) {
        let stamp = STAMP.min(self.size);
        // The top bits of a product spread neighbours over the whole pattern.
        let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let offset = (spread >> (64 - OFFSETS.trailing_zeros())) as usize;
        (number.to_le_bytes(), stamp, &self.pattern[offset..offset + self.size - stamp])
    }

    /// Puts the value of this key into `value`, replacing what was there.
    #[inline]
    pub fn write(&self, number: u64, value: &mut Vec<u8>) {
        let (number, stamp, body) = self.of(number);
        value.clear();
        value.extend_from_slice(&number[..stamp]);
        value.extend_from_slice(body);
    }

    /// Whether these are the bytes of this key's value.
    pub fn matches(&self, number: u64, value: &[u8]) -> bool {
        let (number, stamp, body) = self.of(number);
        value.len() == self.size && value[..stamp] == number[..stamp] && value[stamp..] == *body
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn gcd(a: u64, b: u64) -> u64 {
        if b == 0 { a } else { gcd(b, a % b) }
    }

    #[test]
    fn values_of_neighbours_have_nothing_in_common() {
        let values = Values::new(1024);
        let begins = |number| values.of(number).2.as_ptr() as usize;
        for first in [0u64, 1_000, 123_456_789] {
            let mut all: Vec<usize> = (first..first + 64).map(begins).collect();
            all.sort_unstable();
            assert!(all.windows(2).all(|pair| pair[1] - pair[0] >= 1024), "{first}");
        }
    }

    #[test]
    fn scattering_is_one_to_one() {
        for keys in [1u64, 2, 10, 1000, 4096, 1_000_000, MAX_KEYS] {
            assert_eq!(gcd(SCATTER, keys), 1);
        }
        let hit: BTreeSet<u64> = (0..1000u64).map(|rank| rank * SCATTER % 1000).collect();
        assert_eq!(hit.len(), 1000);
    }

    #[test]
    fn sequential_covers_every_key_in_order() {
        let mut picker = KeyPicker::new(Distribution::Sequential, 5, 0.99, 1);
        let reads: Vec<u64> = (0..7).map(|_| picker.read()).collect();
        assert_eq!(reads, [0, 1, 2, 3, 4, 0, 1]);
        assert_eq!(picker.write(), 0);
    }

    #[test]
    fn latest_reads_follow_the_writes() {
        let mut picker = KeyPicker::new(Distribution::Latest, 1000, 0.99, 1);
        for expected in 1000..1500 {
            assert_eq!(picker.write(), expected);
        }
        let reads: Vec<u64> = (0..1000).map(|_| picker.read()).collect();
        assert!(reads.iter().all(|&key| (500..1500).contains(&key)));
        let newest = reads.iter().filter(|&&key| key >= 1490).count();
        assert!(newest > 250, "only {newest} of 1000 reads hit the ten newest keys");
    }

    #[test]
    fn zipfian_has_hot_keys_that_are_not_neighbours() {
        let mut picker = KeyPicker::new(Distribution::Zipfian, 100_000, 0.99, 9);
        let mut counts = std::collections::BTreeMap::new();
        for _ in 0..100_000 {
            *counts.entry(picker.read()).or_insert(0u32) += 1;
        }
        let mut hot: Vec<(u32, u64)> =
            counts.into_iter().map(|(key, count)| (count, key)).collect();
        hot.sort_unstable_by(|a, b| b.cmp(a));
        assert!(hot[0].0 > 5_000, "the hottest key came {} times", hot[0].0);
        assert!(hot[0].1.abs_diff(hot[1].1) > 1);
    }

    #[test]
    fn keys_have_a_fixed_width_and_are_distinct() {
        let format = KeyFormat::new("bench:", 24);
        let (mut a, mut b) = (Vec::new(), Vec::new());
        format.write(0, &mut a);
        format.write(1_234_567, &mut b);
        assert_eq!(a, b"bench:000000000000000000");
        assert_eq!(b, b"bench:000000000001234567");
    }

    #[test]
    fn values_name_their_key() {
        for size in [0usize, 1, 8, 9, 1024] {
            let values = Values::new(size);
            let mut value = Vec::new();
            values.write(77, &mut value);
            assert_eq!(value.len(), size);
            assert!(values.matches(77, &value));
            if size >= STAMP {
                assert!(!values.matches(78, &value));
            }
            if let Some(last) = value.last_mut() {
                *last ^= 1;
                assert!(!values.matches(77, &value));
            }
        }
    }

    #[test]
    fn the_coin_is_fair_enough() {
        let mut picker = KeyPicker::new(Distribution::Uniform, 10, 0.99, 4);
        let heads = (0..10_000).filter(|_| picker.coin(90)).count();
        assert!((8_800..9_200).contains(&heads), "{heads}");
        assert!(picker.coin(100) && !picker.coin(0));
    }
}
