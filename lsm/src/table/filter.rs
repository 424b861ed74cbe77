//! Bloom filter in cache-line blocks: a question costs one cache line.
//!
//! Beside the keys, the filter may know prefixes of them ([`Hashes`]); to it they are hashes, too.
//!
//! A key's hash picks a line of 512 bits with its upper half and the bits within with its lower
//! half. About 1.2 % of absent keys pass at 10 bits per key (a plain filter: 0.8 %).

use super::block::{Damage, u32_at};
use crate::key_hash;
use crate::prefetch::prefetch;
use crate::types::prefix_hash;
use coronet_probe::{Bug, seeded};

/// Most bits that are set per key; more would need more hash than a line's probes use.
const MAX_PROBES: u32 = 16;
const LINE_BYTES: usize = 64;

/// One cache line.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Line([u64; 8]);

/// What is to be entered into a table's filter: its keys, and what prefixes of a certain length
/// they have.
#[derive(Debug)]
pub(super) struct Hashes {
    hashes: Vec<u64>,
    /// Length of the prefixes, bytes; zero: none.
    prefix_bytes: u32,
    prefixes: u64,
}

impl Hashes {
    /// Nothing yet.
    pub fn new(prefix_bytes: u32) -> Self {
        Hashes { hashes: Vec::new(), prefix_bytes, prefixes: 0 }
    }

    /// Adds a key, and its prefix unless the key before (empty: there is none) has the same.
    /// Keys come in ascending order.
    pub fn add(&mut self, last: &[u8], key: &[u8]) {
        self.hashes.push(key_hash(key));
        let prefix = key.get(..self.prefix_bytes as usize).unwrap_or_default();
        if !last.starts_with(prefix) {
            self.hashes.push(prefix_hash(prefix));
            self.prefixes += 1;
        }
    }

    /// All of them.
    pub fn all(&self) -> &[u64] {
        &self.hashes
    }

    /// Length of the prefixes, bytes; zero: none.
    pub fn prefix_bytes(&self) -> u32 {
        self.prefix_bytes
    }

    /// How many of them are of prefixes.
    pub fn prefixes(&self) -> u64 {
        self.prefixes
    }
}

/// Approximate set of key hashes: never denies a member.
#[derive(Debug)]
pub(super) struct Filter {
    lines: Vec<Line>,
    probes: u32,
}

impl Filter {
    /// An empty filter with room for `keys`.
    pub fn with_capacity(keys: usize, bits_per_key: u32) -> Self {
        let bits = (keys as u64).saturating_mul(u64::from(bits_per_key));
        let lines = bits.div_ceil(LINE_BYTES as u64 * 8).clamp(1, u64::from(u32::MAX / 64));
        // ln 2 bits per key is the optimum; a blocked filter wants a little less.
        let probes = (bits_per_key * 69 / 100).clamp(1, MAX_PROBES);
        Filter { lines: vec![Line([0; 8]); lines as usize], probes }
    }

    fn line_of(&self, hash: u64) -> usize {
        (((hash >> 32) * self.lines.len() as u64) >> 32) as usize
    }

    /// Adds a key's hash.
    pub fn insert(&mut self, hash: u64) {
        let at = self.line_of(hash);
        let line = &mut self.lines[at].0;
        for bit in bits(hash, self.probes) {
            line[bit >> 6] |= 1 << (bit & 63);
        }
    }

    /// Asks for the memory that [`Filter::may_contain`] looks at.
    pub fn prefetch(&self, hash: u64) {
        if let Some(line) = self.lines.get(self.line_of(hash)) {
            prefetch(line);
        }
    }

    /// Whether the hash may have been added.
    pub fn may_contain(&self, hash: u64) -> bool {
        if hash.is_multiple_of(4) && seeded(Bug::FilterDenies) {
            return false;
        }
        let Line(line) = &self.lines[self.line_of(hash)];
        bits(hash, self.probes).all(|bit| line[bit >> 6] >> (bit & 63) & 1 == 1)
    }

    /// Appends the encoded filter.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.reserve(4 + self.lines.len() * LINE_BYTES);
        out.extend_from_slice(&self.probes.to_le_bytes());
        for word in self.lines.iter().flat_map(|line| line.0) {
            out.extend_from_slice(&word.to_le_bytes());
        }
    }

    /// Reads a filter of `lines` lines.
    pub fn decode(payload: &[u8], lines: u32) -> Result<Filter, Damage> {
        let probes = u32_at(payload, 0).ok_or("filter is cut off")?;
        let (words, rest) = payload[4..].as_chunks::<8>();
        let (chunks, odd) = words.as_chunks::<8>();
        if lines == 0 || chunks.len() != lines as usize || !odd.is_empty() || !rest.is_empty() {
            return Err("filter length does not match its size");
        }
        if !(1..=MAX_PROBES).contains(&probes) {
            return Err("filter has an impossible number of probes");
        }
        let lines = chunks.iter().map(|line| Line(line.map(u64::from_le_bytes))).collect();
        Ok(Filter { lines, probes })
    }

    /// Number of lines.
    pub fn lines(&self) -> u32 {
        self.lines.len() as u32
    }

    /// Memory held, bytes.
    pub fn held(&self) -> usize {
        self.lines.capacity() * LINE_BYTES
    }
}

/// The bits of a hash within its line: the top nine bits of successive products.
fn bits(hash: u64, probes: u32) -> impl Iterator<Item = usize> {
    let mut state = hash as u32;
    (0..probes).map(move |_| {
        let bit = (state >> 23) as usize;
        state = state.wrapping_mul(0x9e37_79b9);
        bit
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key_hash;

    fn false_positives(bits_per_key: u32) -> f64 {
        let keys = 100_000u64;
        let mut filter = Filter::with_capacity(keys as usize, bits_per_key);
        (0..keys).for_each(|k| filter.insert(key_hash(&k.to_le_bytes())));
        assert!((0..keys).all(|k| filter.may_contain(key_hash(&k.to_le_bytes()))));
        let passed =
            (keys..keys * 6).filter(|k| filter.may_contain(key_hash(&k.to_le_bytes()))).count();
        passed as f64 / (keys * 5) as f64
    }

    #[test]
    fn denies_nearly_every_absent_key() {
        for (bits_per_key, most) in [(5, 0.13), (10, 0.013), (16, 0.003)] {
            let rate = false_positives(bits_per_key);
            assert!(rate < most, "{bits_per_key} bits per key: {rate}");
        }
    }

    #[test]
    fn survives_its_encoding_and_refuses_another_length() {
        let mut filter = Filter::with_capacity(1000, 10);
        (0..1000u64).for_each(|k| filter.insert(key_hash(&k.to_le_bytes())));
        let mut bytes = Vec::new();
        filter.encode(&mut bytes);
        let read = Filter::decode(&bytes, filter.lines()).unwrap();
        for k in 0..5000u64 {
            let hash = key_hash(&k.to_le_bytes());
            assert_eq!(read.may_contain(hash), filter.may_contain(hash));
        }
        assert!(Filter::decode(&bytes[..bytes.len() - 1], filter.lines()).is_err());
        assert!(Filter::decode(&bytes, filter.lines() + 1).is_err());
        assert!(Filter::decode(&[], 0).is_err());
        bytes[0] = 17;
        assert!(Filter::decode(&bytes, filter.lines()).is_err());
    }

    #[test]
    fn each_prefix_is_added_once_and_short_keys_have_none() {
        let added = |prefix_bytes, keys: &[&[u8]]| {
            let mut hashes = Hashes::new(prefix_bytes);
            let mut last: &[u8] = b"";
            for key in keys {
                hashes.add(last, key);
                last = key;
            }
            assert_eq!(hashes.all().len() as u64, keys.len() as u64 + hashes.prefixes());
            hashes.all().to_vec()
        };
        let keys: [&[u8]; 6] = [b"", b"a", b"aaa", b"aab", b"ab", b"abc"];
        let hashes = added(2, &keys);
        let wanted = [
            key_hash(b""),
            key_hash(b"a"),
            key_hash(b"aaa"),
            prefix_hash(b"aa"),
            key_hash(b"aab"),
            key_hash(b"ab"),
            prefix_hash(b"ab"),
            key_hash(b"abc"),
        ];
        assert_eq!(hashes, wanted);
        assert_ne!(key_hash(b"ab"), prefix_hash(b"ab"));
        assert_eq!(added(0, &keys), keys.map(key_hash));
        assert_eq!(added(9, &keys), keys.map(key_hash));
    }

    #[test]
    fn an_empty_filter_still_answers() {
        let filter = Filter::with_capacity(0, 10);
        assert!(!filter.may_contain(12345));
    }
}
