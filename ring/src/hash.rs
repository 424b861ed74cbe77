//! The one hash of keys. It decides partitions, so it may never change.

use xxhash_rust::xxh3::xxh3_64;

/// The hash of a key: XXH3, 64 bits, no seed.
///
/// ```
/// assert_eq!(coronet_ring::key_hash(b""), 0x2d06_8005_38d3_94c2);
/// ```
#[inline]
pub fn key_hash(key: &[u8]) -> u64 {
    xxh3_64(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values are part of the format: data written under them must be found again.
    #[test]
    fn never_changes() {
        assert_eq!(key_hash(b""), 0x2d06_8005_38d3_94c2);
        assert_eq!(key_hash(b"a"), 0xe6c6_32b6_1e96_4e1f);
        assert_eq!(key_hash(b"abc"), 0x78af_5f94_892f_3950);
    }
}
