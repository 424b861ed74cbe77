//! A definition's options in the storage engine's terms.

use std::time::Duration;

use coronet_lsm::stats::LEVELS;
use coronet_lsm::{Codec, CompactionPolicy};

/// Name of the option for the compaction policy, as `coronet_lsm` reads it.
const COMPACTION: &str = "compaction";
/// Name of the option for the compression: one codec, or one per level from level 0 with `/`
/// between, the last one for all further levels.
const COMPRESSION: &str = "compression";
/// Name of the option for how long after its latest version a key lives, such as `90s` or `30d`.
const TTL: &str = "ttl";
/// Name of the option for how many first bytes of keys filters know beside whole keys.
const FILTER_PREFIX: &str = "filter_prefix";
/// The most of them.
const MAX_FILTER_PREFIX: u32 = 256;
/// Bytes that a shard puts before a key for its engine: the partition.
const PARTITION_BYTES: u32 = 2;

/// Seconds of the units of durations.
const UNITS: [(&str, u64); 5] =
    [("ms", 0), ("s", 1), ("m", 60), ("h", 60 * 60), ("d", 24 * 60 * 60)];

/// What a definition sets of the engine; `None` is as the node is set up.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct EngineSettings {
    /// How tables are merged.
    pub policy: Option<CompactionPolicy>,
    /// Compression by level, of tables written from then on.
    pub compression: Option<[Codec; LEVELS]>,
    /// How long after its latest version a key lives.
    pub ttl: Option<Duration>,
    /// How many first bytes of a key filters know beside the whole key; zero: none.
    pub filter_prefix: Option<u32>,
}

impl EngineSettings {
    /// [`EngineSettings::filter_prefix`] as the engine counts it, whose keys begin with the
    /// partition.
    pub fn filter_prefix_bytes(&self) -> Option<u32> {
        self.filter_prefix.map(|bytes| if bytes > 0 { PARTITION_BYTES + bytes } else { 0 })
    }

    /// Whether filters may know that no key of a partition begins with `prefix`.
    pub fn filters(&self, prefix: &[u8]) -> bool {
        self.filter_prefix.is_some_and(|bytes| bytes > 0 && prefix.len() >= bytes as usize)
    }

    /// Reads options; the error says which one is wrong and what is right.
    pub fn parse(options: &[(String, String)]) -> Result<Self, String> {
        let mut settings = EngineSettings::default();
        for (name, value) in options {
            match name.as_str() {
                COMPACTION => {
                    let policy: CompactionPolicy = value.parse()?;
                    policy.validate()?;
                    settings.policy = Some(policy);
                }
                COMPRESSION => settings.compression = Some(codecs(value)?),
                TTL => settings.ttl = Some(duration(value)?),
                FILTER_PREFIX => settings.filter_prefix = Some(prefix_bytes(value)?),
                _ => {
                    return Err(format!(
                        "unknown setting `{name}`; there are n, r, w, conflicts, {COMPACTION}, \
                         {COMPRESSION}, {FILTER_PREFIX} and {TTL}"
                    ));
                }
            }
        }
        Ok(settings)
    }
}

fn codecs(text: &str) -> Result<[Codec; LEVELS], String> {
    let parsed: Result<Vec<Codec>, String> = text.split('/').map(str::parse).collect();
    let parsed = parsed?;
    let Some(last) = parsed.last().filter(|_| parsed.len() <= LEVELS) else {
        return Err(format!("{COMPRESSION} names at most {LEVELS} levels"));
    };
    let mut codecs = [*last; LEVELS];
    codecs[..parsed.len()].copy_from_slice(&parsed);
    Ok(codecs)
}

fn prefix_bytes(text: &str) -> Result<u32, String> {
    let bytes = text.parse().ok().filter(|bytes| *bytes <= MAX_FILTER_PREFIX);
    bytes.ok_or_else(|| {
        format!(
            "{FILTER_PREFIX} is `{text}`, use a number of bytes from 0 (off) to {MAX_FILTER_PREFIX}"
        )
    })
}

const _: () = assert!(MAX_FILTER_PREFIX + PARTITION_BYTES <= coronet_lsm::MAX_FILTER_PREFIX_BYTES);

fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{TTL} is `{text}`, use a number above 0 with ms, s, m, h or d");
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let (_, seconds) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
    let duration = match seconds {
        0 => Some(Duration::from_millis(number)),
        seconds => number.checked_mul(*seconds).map(Duration::from_secs),
    };
    duration.filter(|duration| !duration.is_zero()).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(name: &str, value: &str) -> Result<EngineSettings, String> {
        EngineSettings::parse(&[(name.to_owned(), value.to_owned())])
    }

    #[test]
    fn options_are_read_and_wrong_ones_are_explained() {
        let policy = parse("compaction", "tiered(fanout=6)").unwrap().policy.unwrap();
        assert!(policy.to_string().starts_with("tiered(fanout=6"), "{policy}");
        let codecs = parse("compression", "none/lz4/zstd").unwrap().compression.unwrap();
        assert_eq!(codecs[..3], [Codec::None, Codec::Lz4, Codec::Zstd]);
        assert!(codecs[3..].iter().all(|codec| *codec == Codec::Zstd));
        for (text, seconds) in [("90s", 90), ("2m", 120), ("1h", 3600), ("1d", 86_400)] {
            assert_eq!(parse("ttl", text).unwrap().ttl, Some(Duration::from_secs(seconds)));
        }
        assert_eq!(parse("ttl", "5ms").unwrap().ttl, Some(Duration::from_millis(5)));
        for (name, value) in [
            ("compaction", ""),
            ("compaction", "tired"),
            ("compression", ""),
            ("compression", "none/none/none/none/none/none/none/none/none"),
            ("ttl", "0s"),
            ("ttl", "5"),
            ("ttl", "s"),
            ("ttl", "99999999999999999999d"),
            ("ttl", "18446744073709551615d"),
            ("filter_prefix", "257"),
            ("filter_prefix", "-1"),
            ("filter_prefix", "x"),
            ("tll", "5s"),
        ] {
            let error = parse(name, value).unwrap_err();
            assert!(!error.is_empty(), "{name}={value}");
        }
        for (text, engine, filters) in [("0", 0, false), ("4", 6, true), ("256", 258, false)] {
            let settings = parse("filter_prefix", text).unwrap();
            assert_eq!(settings.filter_prefix_bytes(), Some(engine));
            assert_eq!(settings.filters(b"user/"), filters);
            assert!(!settings.filters(b"usr"));
        }
        assert_eq!(EngineSettings::parse(&[]), Ok(EngineSettings::default()));
    }
}
