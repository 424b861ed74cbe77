//! What the criterion benches share: data that looks like a workload, made from a counter.
//!
//! Run one with `cargo bench -p coronet-benches --bench memtable`.

/// A key as the engine sees it: a partition (two bytes, big endian) and a user key. Neighbouring
/// numbers land in different partitions, as hashing makes them.
pub fn key(number: u64) -> [u8; 18] {
    let mut key = [0; 18];
    let partition = (scatter(number) % 1024) as u16;
    key[..2].copy_from_slice(&partition.to_be_bytes());
    key[2..6].copy_from_slice(b"user");
    let mut rest = number;
    for digit in key[6..].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    key
}

/// A value of `len` bytes that does not compress well.
pub fn value(number: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| scatter(number ^ i << 32) as u8).collect()
}

/// A well-mixed number (SplitMix64): a cheap source of uniform draws.
pub fn scatter(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
