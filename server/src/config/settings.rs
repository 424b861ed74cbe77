//! The list of settings: name, bounds, and the field each one fills.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use toml::Value;

use super::value::{boolean, control_core, count, data_cores, duration, size, text};
use super::{Config, ConfigError, ENV_PREFIX, cluster};
use crate::node::BlindWrites;

/// Puts one value into the settings, or says what it must be.
type Setter = fn(&mut Config, &Value) -> Result<(), String>;

/// Every setting there is.
const SETTINGS: &[(&str, Setter)] = &[
    ("data_dir", |c, v| put(&mut c.data_dir, text(v).map(|path| Some(PathBuf::from(path))))),
    ("insecure", |c, v| put(&mut c.insecure, boolean(v))),
    ("partitions", |c, v| put(&mut c.partitions, partitions(v))),
    ("listen.clients", |c, v| put(&mut c.clients, address(v))),
    ("listen.peers", |c, v| put(&mut c.peers, address(v))),
    ("listen.http", |c, v| put(&mut c.http, address(v))),
    ("cores.data", |c, v| put(&mut c.data_cores, data_cores(v))),
    ("cores.control", |c, v| put(&mut c.control_core, control_core(v))),
    ("cluster.name", |c, v| put(&mut c.cluster.name, text(v).map(str::to_owned))),
    ("cluster.nodes", |c, v| put(&mut c.cluster.nodes, cluster::nodes(v))),
    ("cluster.address", |c, v| put(&mut c.cluster.address, address(v).map(Some))),
    ("cluster.replicas", |c, v| put(&mut c.cluster.replicas, count(v, 1, 7).map(|n| n as u8))),
    ("cluster.rack", |c, v| put(&mut c.cluster.rack, text(v).map(str::to_owned))),
    ("cluster.quorum", |c, v| put(&mut c.cluster.mode, cluster::mode(v))),
    ("cluster.key", |c, v| put(&mut c.cluster.key, text(v).map(|key| Some(key.to_owned())))),
    ("memory.cache", |c, v| put(&mut c.cache_bytes, sized(v, 1 << 20, 1 << 44).map(Some))),
    ("memory.memtable", |c, v| put(&mut c.memtable_bytes, sized(v, 1 << 20, 4 << 30))),
    ("write.durability", |c, v| put(&mut c.buffered_by_default, buffered(v))),
    ("write.sync_interval", |c, v| put(&mut c.sync_interval, interval(v))),
    ("write.blind", |c, v| put(&mut c.blind_writes, blind(v))),
    ("limits.key", |c, v| put(&mut c.max_key_bytes, sized(v, 1, 64 << 10))),
    ("limits.value", |c, v| put(&mut c.max_value_bytes, sized(v, 1, 64 << 20))),
    ("limits.in_flight", |c, v| put(&mut c.max_in_flight, count(v, 1, 65_536))),
    ("limits.output", |c, v| put(&mut c.max_output_bytes, sized(v, 64 << 10, 1 << 30))),
    ("limits.connections", |c, v| put(&mut c.max_connections, count(v, 1, 1_000_000))),
    ("limits.idle", |c, v| put(&mut c.idle, duration(v))),
    ("limits.commit_wait", |c, v| put(&mut c.commit_wait, commit_wait(v))),
];

fn put<T>(field: &mut T, value: Result<T, String>) -> Result<(), String> {
    *field = value?;
    Ok(())
}

fn address(value: &Value) -> Result<SocketAddr, String> {
    let expected = || "must be an address and port such as \"127.0.0.1:4720\"".to_owned();
    text(value).ok().and_then(|text| text.parse().ok()).ok_or_else(expected)
}

fn partitions(value: &Value) -> Result<u32, String> {
    let number = count(value, 16, 32_768)?;
    u32::try_from(number)
        .ok()
        .filter(|number| number.is_power_of_two())
        .ok_or_else(|| "must be a power of two".to_owned())
}

fn sized(value: &Value, low: u64, high: u64) -> Result<u64, String> {
    let bytes = size(value)?;
    if (low..=high).contains(&bytes) {
        return Ok(bytes);
    }
    Err(format!("must be from {} to {}", readable(low), readable(high)))
}

fn readable(bytes: u64) -> String {
    let units = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1_u64 << 10, "KiB")];
    units
        .into_iter()
        .find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit))
        .map_or_else(|| format!("{bytes} B"), |(unit, name)| format!("{} {name}", bytes / unit))
}

fn buffered(value: &Value) -> Result<bool, String> {
    match value.as_str() {
        Some("durable") => Ok(false),
        Some("buffered") => Ok(true),
        _ => Err("must be \"durable\" or \"buffered\"".to_owned()),
    }
}

fn blind(value: &Value) -> Result<BlindWrites, String> {
    match value.as_str() {
        Some("replace") => Ok(BlindWrites::Replace),
        Some("siblings") => Ok(BlindWrites::Siblings),
        _ => Err("must be \"replace\" or \"siblings\"".to_owned()),
    }
}

/// At least a millisecond, so that a healthy disk gets the time it needs.
fn commit_wait(value: &Value) -> Result<Duration, String> {
    let wait = duration(value)?;
    if wait < Duration::from_millis(1) || wait > Duration::from_secs(3600) {
        return Err("must be from 1 ms to 1 hour".to_owned());
    }
    Ok(wait)
}

fn interval(value: &Value) -> Result<Duration, String> {
    let interval = duration(value)?;
    if interval.is_zero() || interval > Duration::from_secs(60) {
        return Err("must be a duration from 1 ms to 60 s".to_owned());
    }
    Ok(interval)
}

impl Config {
    /// Sets one value by its name. The error has no place yet.
    pub(super) fn apply(&mut self, name: &str, value: &Value) -> Result<(), ConfigError> {
        let Some((_, set)) = SETTINGS.iter().find(|(known, _)| *known == name) else {
            return Err(ConfigError::Unknown {
                place: String::new(),
                name: name.to_owned(),
                closest: closest(name, SETTINGS.iter().map(|(known, _)| (*known).to_owned())),
            });
        };
        set(self, value).map_err(|expected| ConfigError::Invalid {
            place: String::new(),
            name: name.to_owned(),
            expected,
            found: value.to_string(),
        })
    }
}

/// The values of a file under their full names, tables opened.
pub(super) fn flatten(table: &toml::Table) -> Vec<(String, &Value)> {
    let mut found = Vec::new();
    let mut open: Vec<(String, &toml::Table)> = vec![(String::new(), table)];
    while let Some((prefix, table)) = open.pop() {
        for (key, value) in table {
            let name = format!("{prefix}{key}");
            match value {
                Value::Table(inner) => open.push((format!("{name}."), inner)),
                _ => found.push((name, value)),
            }
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

fn variable_of(name: &str) -> String {
    format!("{ENV_PREFIX}{}", name.replace('.', "_").to_uppercase())
}

/// The setting an environment variable stands for.
pub(super) fn name_of_variable(variable: &str) -> Result<&'static str, ConfigError> {
    let found = SETTINGS.iter().find(|(name, _)| variable_of(name) == variable);
    found.map(|(name, _)| *name).ok_or_else(|| ConfigError::Unknown {
        place: "environment".to_owned(),
        name: variable.to_owned(),
        closest: closest(variable, SETTINGS.iter().map(|(name, _)| variable_of(name))),
    })
}

/// The candidate with the smallest edit distance.
fn closest(name: &str, candidates: impl Iterator<Item = String>) -> String {
    candidates.min_by_key(|known| distance(name, known)).unwrap_or_default()
}

/// Levenshtein distance in bytes; names are capped so that a hostile file costs nothing.
fn distance(a: &str, b: &str) -> usize {
    let a = a.as_bytes().get(..64).unwrap_or(a.as_bytes());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(*x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_edits() {
        assert_eq!(distance("cache", "cache"), 0);
        assert_eq!(distance("cahce", "cache"), 2);
        assert_eq!(distance("", "abc"), 3);
    }

    #[test]
    fn variables_are_unique() {
        let mut names: Vec<_> = SETTINGS.iter().map(|(name, _)| variable_of(name)).collect();
        names.sort();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
