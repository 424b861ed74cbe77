//! One entry of a data block: `shared`, `unshared`, `value length` (LEB128), kind, sequence
//! number, the key's unshared end, the value.

use super::{Damage, u64_at};
use crate::{EntryKind, EntryRef, Seq};

/// Most bytes an entry needs beside key and value.
pub(super) const MAX_OVERHEAD: usize = 3 * 5 + 1 + 8;

/// An entry as it lies in the block.
#[derive(Debug, Clone, Copy)]
pub(super) struct RawEntry<'a> {
    /// Bytes of the key that are those of the key before.
    pub shared: usize,
    pub suffix: &'a [u8],
    pub kind: EntryKind,
    pub seq: Seq,
    /// Where the value lies in the block's entries.
    pub value: (u32, u32),
    /// Where the next entry lies.
    pub next: usize,
}

fn put_varint(out: &mut Vec<u8>, mut n: u32) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn varint(bytes: &[u8], at: &mut usize) -> Option<u32> {
    let first = *bytes.get(*at)?;
    *at += 1;
    if first < 0x80 {
        return Some(u32::from(first));
    }
    let mut n = u32::from(first & 0x7f);
    for shift in [7, 14, 21, 28] {
        let byte = *bytes.get(*at)?;
        *at += 1;
        n |= u32::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            // The fifth byte has room for four bits.
            return (shift < 28 || byte < 0x10).then_some(n);
        }
    }
    None
}

/// Appends an entry whose key shares `shared` bytes with the key before it.
pub(super) fn encode(out: &mut Vec<u8>, shared: usize, entry: EntryRef<'_>) {
    put_varint(out, shared as u32);
    put_varint(out, (entry.key.len() - shared) as u32);
    put_varint(out, entry.value.len() as u32);
    out.push(entry.kind as u8);
    out.extend_from_slice(&entry.seq.0.to_le_bytes());
    out.extend_from_slice(&entry.key[shared..]);
    out.extend_from_slice(entry.value);
}

/// Reads the entry at `at`.
pub(super) fn decode(entries: &[u8], at: usize) -> Result<RawEntry<'_>, Damage> {
    try_decode(entries, at).ok_or("block has a malformed entry")
}

fn try_decode(entries: &[u8], mut at: usize) -> Option<RawEntry<'_>> {
    let shared = varint(entries, &mut at)? as usize;
    let unshared = varint(entries, &mut at)? as usize;
    let value_len = varint(entries, &mut at)? as usize;
    let kind = EntryKind::from_byte(*entries.get(at)?)?;
    let seq = Seq(u64_at(entries, at + 1)?);
    let key_at = at + 9;
    let value_at = key_at.checked_add(unshared)?;
    let next = value_at.checked_add(value_len)?;
    if next > entries.len() || !kind.allows(value_len) {
        return None;
    }
    let suffix = &entries[key_at..value_at];
    Some(RawEntry { shared, suffix, kind, seq, value: (value_at as u32, next as u32), next })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn varints_round_trip(n in any::<u32>(), shift in 0u32..32) {
            let (n, mut out, mut at) = (n >> shift, Vec::new(), 0);
            put_varint(&mut out, n);
            prop_assert_eq!(varint(&out, &mut at), Some(n));
            prop_assert_eq!(at, out.len());
            prop_assert_eq!(varint(&out[..at - 1], &mut 0), None);
        }

        #[test]
        fn random_bytes_are_never_read_beyond_their_end(
            bytes in prop::collection::vec(any::<u8>(), 0..60), at in 0usize..70)
        {
            if let Ok(raw) = decode(&bytes, at) {
                prop_assert!(raw.next <= bytes.len() && raw.next > at);
            }
        }
    }

    #[test]
    fn overlong_numbers_are_refused() {
        assert_eq!(varint(&[0xff, 0xff, 0xff, 0xff, 0x10], &mut 0), None);
        assert_eq!(varint(&[0x80; 6], &mut 0), None);
        assert_eq!(varint(&[0xff, 0xff, 0xff, 0xff, 0x0f], &mut 0), Some(u32::MAX));
    }
}
