//! Readers for single values: sizes, durations, CPU lists. Each accepts what TOML offers for it
//! and the text form, which environment and flags use. Errors say what is expected.

use std::time::Duration;

use toml::Value;

/// The CPUs of the data cores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DataCores {
    /// One on every CPU this process may use, but for the control core's.
    All,
    /// This many, the runtime picks the CPUs.
    Count(usize),
    /// Exactly these.
    Cpus(Vec<usize>),
}

impl DataCores {
    /// The number of cores asked for, available or not.
    pub fn at_least(&self) -> usize {
        match self {
            DataCores::All => 1,
            DataCores::Count(count) => *count,
            DataCores::Cpus(cpus) => cpus.len(),
        }
    }

    /// The CPUs to use, out of those `available`, leaving `control` alone when it has one of its
    /// own.
    pub fn choose(&self, available: &[usize], control: ControlCore) -> Vec<usize> {
        let free = available.iter().copied().filter(|cpu| control != ControlCore::Cpu(*cpu));
        match self {
            DataCores::All => free.take(MAX_CORES).collect(),
            DataCores::Count(count) => free.take(*count).collect(),
            DataCores::Cpus(cpus) => cpus.clone(),
        }
    }
}

/// The CPU of the control core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlCore {
    /// It shares the executor of data core 0.
    Shared,
    /// It has an executor of its own on this CPU.
    Cpu(usize),
}

/// Most data cores of a node.
pub(super) const MAX_CORES: usize = 256;

/// A size in bytes: a number, or text such as `64 MiB`.
pub(super) fn size(value: &Value) -> Result<u64, String> {
    let expected = || "must be a size such as 67108864 or \"64 MiB\"".to_owned();
    match value {
        Value::Integer(bytes) => u64::try_from(*bytes).map_err(|_| expected()),
        Value::String(text) => parse_size(text).ok_or_else(expected),
        _ => Err(expected()),
    }
}

fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim() {
        "" | "B" => 1,
        "KiB" | "K" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        "GiB" | "G" => 1 << 30,
        "TiB" | "T" => 1_u64 << 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// A duration: text such as `50 ms`, `10 s`, `5 min`, or `0`.
pub(super) fn duration(value: &Value) -> Result<Duration, String> {
    let expected = || "must be a duration such as \"50 ms\", \"10 s\" or \"5 min\"".to_owned();
    match value {
        Value::Integer(0) => Ok(Duration::ZERO),
        Value::String(text) => parse_duration(text).ok_or_else(expected),
        _ => Err(expected()),
    }
}

fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    match unit.trim() {
        "" if number == 0 => Some(Duration::ZERO),
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "min" => Some(Duration::from_secs(number.checked_mul(60)?)),
        "h" => Some(Duration::from_secs(number.checked_mul(3600)?)),
        _ => None,
    }
}

/// A count within bounds.
pub(super) fn count(value: &Value, low: u64, high: u64) -> Result<u64, String> {
    let number = match value {
        Value::Integer(number) => u64::try_from(*number).ok(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    number
        .filter(|number| (low..=high).contains(number))
        .ok_or_else(|| format!("must be a number from {low} to {high}"))
}

/// True or false.
pub(super) fn boolean(value: &Value) -> Result<bool, String> {
    match value {
        Value::Boolean(yes) => Ok(*yes),
        Value::String(text) if text == "true" => Ok(true),
        Value::String(text) if text == "false" => Ok(false),
        _ => Err("must be true or false".to_owned()),
    }
}

/// Text.
pub(super) fn text(value: &Value) -> Result<&str, String> {
    value.as_str().filter(|text| !text.is_empty()).ok_or_else(|| "must be text".to_owned())
}

/// Data cores: `"all"`, a number of cores, or a list of CPUs (`[0, 1]`, `"0-3,6"`).
pub(super) fn data_cores(value: &Value) -> Result<DataCores, String> {
    let expected =
        || "must be \"all\", a number of cores such as 2, or CPUs such as [0, 1] or \"0-3,6\"";
    let cpus = match value {
        Value::Integer(count) => return core_count(usize::try_from(*count).ok()),
        Value::Array(items) => items
            .iter()
            .map(|item| item.as_integer().and_then(|cpu| usize::try_from(cpu).ok()))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(expected)?,
        Value::String(text) if text == "all" => return Ok(DataCores::All),
        Value::String(text) => {
            if let Ok(count) = text.trim().parse::<usize>() {
                return core_count(Some(count));
            }
            parse_cpus(text).ok_or_else(expected)?
        }
        _ => return Err(expected().to_owned()),
    };
    if cpus.is_empty() || cpus.len() > MAX_CORES {
        return Err(format!("must name at least one CPU and at most {MAX_CORES}"));
    }
    let mut sorted = cpus.clone();
    sorted.sort_unstable();
    sorted.dedup();
    if sorted.len() != cpus.len() {
        return Err("must not name a CPU twice".to_owned());
    }
    Ok(DataCores::Cpus(cpus))
}

fn core_count(count: Option<usize>) -> Result<DataCores, String> {
    count
        .filter(|count| (1..=MAX_CORES).contains(count))
        .map(DataCores::Count)
        .ok_or_else(|| format!("must be at least one core and at most {MAX_CORES}"))
}

fn parse_cpus(text: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last - first > MAX_CORES {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

/// The control core: `"shared"` or a CPU.
pub(super) fn control_core(value: &Value) -> Result<ControlCore, String> {
    let cpu = match value {
        Value::Integer(cpu) => usize::try_from(*cpu).ok(),
        Value::String(text) if text == "shared" => return Ok(ControlCore::Shared),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    cpu.map(ControlCore::Cpu).ok_or_else(|| "must be a CPU such as 2, or \"shared\"".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_read_with_units_and_refuse_overflow() {
        assert_eq!(parse_size("64 MiB"), Some(64 << 20));
        assert_eq!(parse_size("7"), Some(7));
        assert_eq!(parse_size("99999999999 GiB"), None);
        assert_eq!(parse_size("64 MB"), None);
        assert_eq!(parse_duration("50 ms"), Some(Duration::from_millis(50)));
        assert_eq!(parse_duration("5min"), Some(Duration::from_secs(300)));
        assert_eq!(parse_duration("5"), None);
    }

    #[test]
    fn the_control_cores_cpu_is_left_alone() {
        let available = [0, 1, 2, 3];
        assert_eq!(DataCores::All.choose(&available, ControlCore::Cpu(2)), [0, 1, 3]);
        assert_eq!(DataCores::Count(2).choose(&available, ControlCore::Cpu(0)), [1, 2]);
        assert_eq!(DataCores::Count(9).choose(&available, ControlCore::Shared), available);
    }

    #[test]
    fn cpu_lists_read_ranges() {
        let read = |text: &str| data_cores(&Value::String(text.to_owned()));
        assert_eq!(read("0-2,5"), Ok(DataCores::Cpus(vec![0, 1, 2, 5])));
        assert_eq!(read("3"), Ok(DataCores::Count(3)));
        assert_eq!(read("all"), Ok(DataCores::All));
        assert!(read("2-0").is_err());
        assert!(read("0-99999999").is_err());
        assert!(read("a").is_err());
        assert!(read("0,0").is_err());
    }
}
