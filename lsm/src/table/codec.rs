//! Compression of data blocks: which codecs there are, packing and unpacking.
//!
//! Owns the bytes of a packed payload (`docs/FORMATS.md`, "Frame"). Which level uses which codec
//! is a setting ([`crate::Options::compression`]); a reader takes the codec from the block.

use super::block::{Damage, u32_at};
use crate::env::AlignedBuf;
use std::cell::RefCell;

/// Largest payload that is ever packed, bytes; a reader refuses a packed block that claims to be
/// longer, before it allocates.
pub(super) const MAX_RAW: usize = 32 << 20;
/// Bytes before the packed ones: length of the payload when unpacked.
const RAW_LEN: usize = 4;
/// A payload is packed where that saves at least one of so many bytes: every read pays for the
/// unpacking.
const LEAST_SAVED: usize = 8;
/// Zstd's level: about three times LZ4's cost to pack, a fifth smaller.
const ZSTD_LEVEL: i32 = 3;

/// How data blocks are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum Codec {
    /// As they are.
    #[default]
    None = 0,
    /// LZ4 block format: cheap to unpack on every read.
    Lz4 = 1,
    /// Zstandard: smaller, dearer; for levels that are read rarely.
    Zstd = 2,
}

impl Codec {
    /// Decodes the byte of the table format.
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Codec::None),
            1 => Some(Codec::Lz4),
            2 => Some(Codec::Zstd),
            _ => None,
        }
    }

    /// The name used in settings and reports.
    pub fn name(self) -> &'static str {
        match self {
            Codec::None => "none",
            Codec::Lz4 => "lz4",
            Codec::Zstd => "zstd",
        }
    }
}

impl std::str::FromStr for Codec {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = [Codec::None, Codec::Lz4, Codec::Zstd];
        known
            .into_iter()
            .find(|codec| codec.name() == name)
            .ok_or_else(|| format!("unknown compression `{name}`, use none, lz4 or zstd"))
    }
}

/// Packs payloads with one codec; keeps its memory from block to block.
pub(super) struct Packer {
    codec: Codec,
    zstd: Option<zstd::bulk::Compressor<'static>>,
    packed: Vec<u8>,
}

impl Packer {
    pub fn new(codec: Codec) -> Self {
        // Without memory for its tables blocks are stored as they are.
        let zstd =
            (codec == Codec::Zstd).then(|| zstd::bulk::Compressor::new(ZSTD_LEVEL).ok()).flatten();
        Packer { codec, zstd, packed: Vec::new() }
    }

    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// `head` bytes of zero and the packed form of `payload`, if that saves an eighth of it.
    pub fn pack(&mut self, head: usize, payload: &[u8]) -> Option<&mut Vec<u8>> {
        if self.codec == Codec::None || payload.len() > MAX_RAW {
            return None;
        }
        self.packed.clear();
        self.packed.resize(head, 0);
        self.packed.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        let start = self.packed.len();
        let bound = match self.codec {
            Codec::None => 0,
            Codec::Lz4 => lz4_flex::block::get_maximum_output_size(payload.len()),
            Codec::Zstd => zstd::zstd_safe::compress_bound(payload.len()),
        };
        self.packed.resize(start + bound, 0);
        let room = &mut self.packed[start..];
        let len = match self.codec {
            Codec::None => None,
            Codec::Lz4 => lz4_flex::block::compress_into(payload, room).ok(),
            Codec::Zstd => self.zstd.as_mut()?.compress_to_buffer(payload, room).ok(),
        }?;
        self.packed.truncate(start + len);
        let most = payload.len() - payload.len().div_ceil(LEAST_SAVED);
        (RAW_LEN + len <= most).then_some(&mut self.packed)
    }
}

thread_local! {
    /// Zstd's working memory; a new one for every block would cost more than the block.
    static UNZSTD: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Unpacks a payload that was packed with `codec`.
pub(super) fn unpack(codec: Codec, payload: &[u8]) -> Result<AlignedBuf, Damage> {
    let raw = u32_at(payload, 0).ok_or("packed block is shorter than its header")? as usize;
    if raw > MAX_RAW {
        return Err("packed block claims to be too long");
    }
    let mut out = AlignedBuf::zeroed(raw);
    let packed = &payload[RAW_LEN..];
    let len = match codec {
        Codec::None => None,
        Codec::Lz4 => lz4_flex::block::decompress_into(packed, &mut out).ok(),
        Codec::Zstd => unzstd(packed, &mut out),
    };
    match len {
        Some(len) if len == raw => Ok(out),
        _ => Err("packed block cannot be unpacked"),
    }
}

fn unzstd(packed: &[u8], out: &mut [u8]) -> Option<usize> {
    UNZSTD.with_borrow_mut(|kept| {
        if kept.is_none() {
            *kept = zstd::bulk::Decompressor::new().ok();
        }
        kept.as_mut()?.decompress_to_buffer(packed, out).ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packed(codec: Codec, payload: &[u8]) -> Option<Vec<u8>> {
        Packer::new(codec).pack(20, payload).map(|bytes| bytes[20..].to_vec())
    }

    proptest! {
        #[test]
        fn what_is_packed_is_unpacked(
            seed in prop::collection::vec(any::<u8>(), 1..60), times in 1usize..400,
            zstd in any::<bool>(),
        ) {
            let codec = if zstd { Codec::Zstd } else { Codec::Lz4 };
            let payload = seed.repeat(times);
            if let Some(bytes) = packed(codec, &payload) {
                prop_assert!(bytes.len() * 8 <= payload.len() * 7);
                let unpacked = unpack(codec, &bytes).unwrap();
                prop_assert_eq!(&*unpacked, payload.as_slice());
                prop_assert!(unpack(codec, &bytes[..bytes.len() - 1]).is_err());
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..200), zstd in any::<bool>(),
            raw in 0u32..5000,
        ) {
            let codec = if zstd { Codec::Zstd } else { Codec::Lz4 };
            let _ = unpack(codec, &bytes);
            let _ = unpack(codec, &[&raw.to_le_bytes()[..], &bytes].concat());
        }
    }

    #[test]
    fn only_what_saves_an_eighth_is_packed() {
        for codec in [Codec::Lz4, Codec::Zstd] {
            assert!(packed(codec, &[7; 10_000]).is_some());
            assert!(packed(codec, &[7; 8]).is_none(), "what is that short cannot become less");
            assert!(packed(codec, &[]).is_none());
            let mut state = 1u64;
            let mut noise: Vec<u8> = std::iter::repeat_with(|| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 56) as u8
            })
            .take(16_000)
            .collect();
            assert!(packed(codec, &noise).is_none());
            noise[..1500].fill(7);
            assert!(packed(codec, &noise).is_none(), "less than an eighth is saved");
            noise[..2500].fill(7);
            assert!(packed(codec, &noise).is_some());
        }
        assert!(packed(Codec::None, &[7; 10_000]).is_none());
    }

    #[test]
    fn a_claim_to_be_huge_is_refused_before_memory_is_taken() {
        let bytes = [&u32::MAX.to_le_bytes()[..], b"xxxx"].concat();
        let refusal = |codec, bytes: &[u8]| unpack(codec, bytes).map(drop);
        assert_eq!(refusal(Codec::Zstd, &bytes), Err("packed block claims to be too long"));
        assert_eq!(
            refusal(Codec::Lz4, &bytes[..3]),
            Err("packed block is shorter than its header")
        );
    }

    #[test]
    fn names_are_read_back() {
        for codec in [Codec::None, Codec::Lz4, Codec::Zstd] {
            assert_eq!(codec.name().parse(), Ok(codec));
            assert_eq!(Codec::from_byte(codec as u8), Some(codec));
        }
        assert!("gzip".parse::<Codec>().is_err());
        assert_eq!(Codec::from_byte(3), None);
    }
}
