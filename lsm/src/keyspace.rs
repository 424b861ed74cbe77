//! Keyspaces: trees of one engine that share its log, each with its own options.
//!
//! Owns the identity of a keyspace, what may be set for it alone, and the bytes of that in the
//! manifest (`docs/FORMATS.md`, "Manifest").

use crate::stats::LEVELS;
use crate::{Codec, Durability, Options};
use std::time::Duration;

/// Names a keyspace within an engine. Chosen by the caller, so that the cores and nodes of a
/// cluster can agree on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct KeyspaceId(pub u32);

impl KeyspaceId {
    /// The keyspace that always exists and cannot be dropped.
    pub const DEFAULT: KeyspaceId = KeyspaceId(0);
}

impl std::fmt::Display for KeyspaceId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What a keyspace sets for itself, beside its compaction policy
/// ([`crate::Keyspace::set_policy`]); `None` follows the engine's [`Options`] of the same name,
/// also when those change at a later opening. Kept in the manifest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeyspaceOptions {
    /// Share of [`Options::memtable_bytes`] at which the keyspace's memtable is flushed, percent,
    /// 1 to 100; `None` is 100. The active memtables of all keyspaces together never need more
    /// than the whole: beyond it the largest is flushed.
    pub memtable_percent: Option<u32>,
    /// See [`Options::block_bytes`].
    pub block_bytes: Option<usize>,
    /// See [`Options::compression`].
    pub compression: Option<[Codec; LEVELS]>,
    /// See [`Options::filter_bits_per_key`].
    pub filter_bits_per_key: Option<u32>,
    /// See [`Options::filter_prefix_bytes`].
    pub filter_prefix_bytes: Option<u32>,
    /// See [`Options::default_ttl`].
    pub default_ttl: Option<Duration>,
    /// See [`Options::durability`].
    pub durability: Option<Durability>,
}

/// One setting in the manifest: a tag and a number.
const FIELD_BYTES: usize = 9;

const MEMTABLE_PERCENT: u8 = 1;
const BLOCK_BYTES: u8 = 2;
const FILTER_BITS: u8 = 3;
const DEFAULT_TTL: u8 = 4;
const DURABILITY: u8 = 5;
/// One byte per level, level 0 lowest; zero beyond the last level.
const COMPRESSION: u8 = 6;
const FILTER_PREFIX: u8 = 7;

impl KeyspaceOptions {
    /// The keyspace's options: the engine's, with what is set here in their place.
    pub(crate) fn resolve(&self, engine: &Options) -> Options {
        let percent = self.memtable_percent.unwrap_or(100).clamp(1, 100) as usize;
        Options {
            memtable_bytes: (engine.memtable_bytes / 100 * percent).max(1),
            block_bytes: self.block_bytes.unwrap_or(engine.block_bytes),
            compression: self.compression.unwrap_or(engine.compression),
            filter_bits_per_key: self.filter_bits_per_key.unwrap_or(engine.filter_bits_per_key),
            filter_prefix_bytes: self.filter_prefix_bytes.unwrap_or(engine.filter_prefix_bytes),
            default_ttl: self.default_ttl.or(engine.default_ttl),
            durability: self.durability.unwrap_or(engine.durability),
            ..engine.clone()
        }
    }

    /// Checks bounds; the error names the field and the fix.
    pub(crate) fn validate(&self, engine: &Options) -> Result<(), String> {
        if let Some(percent) = self.memtable_percent
            && !(1..=100).contains(&percent)
        {
            return Err(format!("memtable_percent is {percent}, use 1 to 100"));
        }
        self.resolve(engine).validate()
    }

    /// The settings as tags and numbers.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let millis = |ttl: Duration| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        let fields = [
            (MEMTABLE_PERCENT, self.memtable_percent.map(u64::from)),
            (BLOCK_BYTES, self.block_bytes.map(|n| n as u64)),
            (FILTER_BITS, self.filter_bits_per_key.map(u64::from)),
            (DEFAULT_TTL, self.default_ttl.map(millis)),
            (DURABILITY, self.durability.map(|d| u64::from(d == Durability::Buffered))),
            (COMPRESSION, self.compression.map(encode_codecs)),
            (FILTER_PREFIX, self.filter_prefix_bytes.map(u64::from)),
        ];
        let mut bytes = Vec::new();
        for (tag, value) in fields {
            if let Some(value) = value {
                bytes.push(tag);
                bytes.extend_from_slice(&value.to_le_bytes());
            }
        }
        bytes
    }

    /// Reads [`KeyspaceOptions::encode`]; `None` when the bytes are not that.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (fields, rest) = bytes.as_chunks::<FIELD_BYTES>();
        if !rest.is_empty() {
            return None;
        }
        let mut options = KeyspaceOptions::default();
        for field in fields {
            let value = u64::from_le_bytes(*field[1..].first_chunk()?);
            let small = || u32::try_from(value).ok();
            match field[0] {
                MEMTABLE_PERCENT => options.memtable_percent = Some(small()?),
                BLOCK_BYTES => options.block_bytes = Some(small()? as usize),
                FILTER_BITS => options.filter_bits_per_key = Some(small()?),
                FILTER_PREFIX => options.filter_prefix_bytes = Some(small()?),
                DEFAULT_TTL => options.default_ttl = Some(Duration::from_millis(value)),
                DURABILITY => {
                    options.durability = Some(match value {
                        0 => Durability::Durable,
                        1 => Durability::Buffered,
                        _ => return None,
                    });
                }
                COMPRESSION => options.compression = Some(decode_codecs(value)?),
                _ => return None,
            }
        }
        Some(options)
    }
}

fn encode_codecs(codecs: [Codec; LEVELS]) -> u64 {
    let mut bytes = [0; 8];
    for (byte, codec) in bytes.iter_mut().zip(codecs) {
        *byte = codec as u8;
    }
    u64::from_le_bytes(bytes)
}

fn decode_codecs(value: u64) -> Option<[Codec; LEVELS]> {
    let mut codecs = [Codec::None; LEVELS];
    for (level, byte) in value.to_le_bytes().into_iter().enumerate() {
        let codec = Codec::from_byte(byte)?;
        match codecs.get_mut(level) {
            Some(place) => *place = codec,
            None if codec == Codec::None => {}
            None => return None,
        }
    }
    Some(codecs)
}

const _: () = assert!(LEVELS <= 8, "compression is stored as one byte per level in a number");

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn options_survive_and_bad_bytes_are_refused(
            numbers in proptest::collection::vec(proptest::option::of(0u32..1 << 20), 5),
            codecs in proptest::option::of(proptest::array::uniform7(0u8..3)),
            buffered in proptest::option::of(any::<bool>()),
            bytes in proptest::collection::vec(any::<u8>(), 0..60),
        ) {
            let options = KeyspaceOptions {
                memtable_percent: numbers[0],
                block_bytes: numbers[1].map(|n| n as usize),
                compression: codecs.map(|c| c.map(|byte| Codec::from_byte(byte).unwrap())),
                filter_bits_per_key: numbers[2],
                filter_prefix_bytes: numbers[4],
                default_ttl: numbers[3].map(|n| Duration::from_millis(n.into())),
                durability: buffered
                    .map(|b| if b { Durability::Buffered } else { Durability::Durable }),
            };
            let encoded = options.encode();
            prop_assert_eq!(KeyspaceOptions::decode(&encoded), Some(options));
            if !encoded.is_empty() {
                prop_assert_eq!(KeyspaceOptions::decode(&encoded[1..]), None);
            }
            // Whatever the bytes are, they are refused or read.
            let _ = KeyspaceOptions::decode(&bytes);
        }
    }

    #[test]
    fn what_is_not_set_follows_the_engine() {
        let engine = Options::tiny();
        let own = KeyspaceOptions {
            memtable_percent: Some(25),
            block_bytes: Some(700),
            ..KeyspaceOptions::default()
        };
        let options = own.resolve(&engine);
        assert_eq!(options.memtable_bytes, engine.memtable_bytes / 100 * 25);
        assert_eq!(options.block_bytes, 700);
        assert_eq!(options.filter_bits_per_key, engine.filter_bits_per_key);
        assert!(own.validate(&engine).is_ok());
        let zero = KeyspaceOptions { memtable_percent: Some(0), ..own.clone() };
        assert!(zero.validate(&engine).unwrap_err().contains("memtable_percent"));
        assert!(KeyspaceOptions { block_bytes: Some(1), ..own.clone() }.validate(&engine).is_err());
        let long = KeyspaceOptions { filter_prefix_bytes: Some(513), ..own };
        assert!(long.validate(&engine).unwrap_err().contains("filter_prefix_bytes"));
    }
}
