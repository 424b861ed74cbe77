//! Policies as text: `leveled`, `tiered(fanout=6)`, `fifo(ttl=3600s,max=10GiB)`.
//!
//! The text is what operators write and what the manifest keeps. Printing names every parameter,
//! so that a stored policy does not change when a preset does.

use super::policy::{CompactionPolicy, FifoPolicy, LevelShape, TreePolicy};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

const NAMES: &str = "leveled, tiered, lazy_leveled, tree or fifo";

pub(super) fn print_tree(tree: &TreePolicy, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let fanout = tree.shape(1).fanout;
    let uniform =
        |runs, last| tree.levels == [LevelShape { fanout, runs }] && tree.last_runs == last;
    match fanout.saturating_sub(1) {
        _ if uniform(1, 1) => write!(f, "leveled(fanout={fanout}")?,
        k if uniform(k, k) => write!(f, "tiered(fanout={fanout}")?,
        k if uniform(k, 1) => write!(f, "lazy_leveled(fanout={fanout}")?,
        _ => {
            let list = |value: fn(&LevelShape) -> u32| {
                let values: Vec<_> = tree.levels.iter().map(|s| value(s).to_string()).collect();
                values.join("/")
            };
            let (fanouts, runs) = (list(|shape| shape.fanout), list(|shape| shape.runs));
            write!(f, "tree(fanout={fanouts},runs={runs},last={}", tree.last_runs)?;
        }
    }
    let (level1, table) = (size(tree.level1_bytes), size(tree.table_bytes));
    write!(f, ",level0={},level1={level1},table={table})", tree.level0_runs)
}

pub(super) fn print_fifo(fifo: &FifoPolicy, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let ttl = fifo.ttl.map(|ttl| match ttl.subsec_millis() {
        0 => format!("ttl={}s", ttl.as_secs()),
        _ => format!("ttl={}ms", ttl.as_millis()),
    });
    let max = fifo.max_bytes.map(|bytes| format!("max={}", size(bytes)));
    let parameters: Vec<_> = [ttl, max].into_iter().flatten().collect();
    write!(f, "fifo({})", parameters.join(","))
}

/// A size with the largest unit that keeps it whole.
fn size(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    match units.iter().find(|(shift, _)| bytes > 0 && bytes.trailing_zeros() >= *shift) {
        Some((shift, unit)) => format!("{}{unit}", bytes >> shift),
        None => bytes.to_string(),
    }
}

impl FromStr for CompactionPolicy {
    type Err = String;

    /// Reads `name` or `name(parameter=value,...)`; parameters left out are the preset's.
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (name, inner) = match text.split_once('(') {
            Some((name, rest)) => {
                let inner = rest.strip_suffix(')');
                (name, inner.ok_or_else(|| format!("policy {text:?} lacks its closing )"))?)
            }
            None => (text, ""),
        };
        let pairs = inner.split(',').map(str::trim).filter(|pair| !pair.is_empty()).map(|pair| {
            pair.split_once('=').ok_or_else(|| format!("{pair:?} is not parameter=value"))
        });
        let pairs = pairs.collect::<Result<Vec<_>, _>>()?;
        let policy = match name {
            "fifo" => CompactionPolicy::Fifo(fifo(&pairs)?),
            _ => CompactionPolicy::Tree(tree(name, &pairs)?),
        };
        policy.validate()?;
        Ok(policy)
    }
}

fn fifo(pairs: &[(&str, &str)]) -> Result<FifoPolicy, String> {
    let mut fifo = FifoPolicy { ttl: None, max_bytes: None };
    for (name, value) in pairs {
        match *name {
            "ttl" => fifo.ttl = Some(duration(name, value)?),
            "max" => fifo.max_bytes = Some(bytes(name, value)?),
            _ => return Err(format!("fifo has ttl and max, not {name:?}")),
        }
    }
    Ok(fifo)
}

fn tree(preset: &str, pairs: &[(&str, &str)]) -> Result<TreePolicy, String> {
    let find = |wanted: &str| pairs.iter().find(|(name, _)| *name == wanted).map(|(_, v)| *v);
    let fanouts = find("fanout").map(|value| list("fanout", value)).transpose()?;
    let first = |default| fanouts.as_ref().map_or(default, |list: &Vec<u32>| list[0]);
    let mut tree = match preset {
        "leveled" | "tree" => TreePolicy::uniform(first(10), 1, 1),
        "tiered" => {
            let k = first(4).saturating_sub(1);
            TreePolicy::uniform(first(4), k, k)
        }
        "lazy_leveled" => TreePolicy::uniform(first(4), first(4).saturating_sub(1), 1),
        _ => return Err(format!("no policy is called {preset:?}, use {NAMES}")),
    };
    for (name, value) in pairs {
        match *name {
            "fanout" if preset == "tree" => {}
            "fanout" if fanouts.as_ref().is_some_and(|list| list.len() == 1) => {}
            "fanout" => return Err(format!("{preset} has one fanout, a list needs tree(...)")),
            "runs" | "last" if preset == "tree" => {}
            "level0" => tree.level0_runs = small(name, value)?,
            "level1" => tree.level1_bytes = bytes(name, value)?,
            "table" => tree.table_bytes = bytes(name, value)?,
            _ => return Err(format!("{preset} has no parameter {name:?}")),
        }
    }
    if preset == "tree" {
        let fanouts = fanouts.unwrap_or_else(|| vec![tree.shape(1).fanout]);
        let runs = find("runs").map_or(Ok(vec![1]), |value| list("runs", value))?;
        let at = |list: &[u32], n: usize| list[n.min(list.len() - 1)];
        let shapes = (0..fanouts.len().max(runs.len()))
            .map(|n| LevelShape { fanout: at(&fanouts, n), runs: at(&runs, n) });
        tree.levels = shapes.collect();
        tree.last_runs = find("last").map_or(Ok(1), |value| small("last", value))?;
    }
    Ok(tree)
}

fn number(name: &str, value: &str) -> Result<u64, String> {
    value.parse().map_err(|_| format!("{name}={value:?} is not a whole number"))
}

fn small(name: &str, value: &str) -> Result<u32, String> {
    value.parse().map_err(|_| format!("{name}={value:?} is not a small whole number"))
}

/// Milliseconds with `ms`, seconds with `s` or without a unit.
fn duration(name: &str, value: &str) -> Result<Duration, String> {
    match value.strip_suffix("ms") {
        Some(millis) => number(name, millis).map(Duration::from_millis),
        None => number(name, value.strip_suffix('s').unwrap_or(value)).map(Duration::from_secs),
    }
}

/// One or more numbers divided by `/`.
fn list(name: &str, value: &str) -> Result<Vec<u32>, String> {
    value.split('/').map(|item| small(name, item)).collect()
}

fn bytes(name: &str, value: &str) -> Result<u64, String> {
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40)];
    let unit = units.iter().find_map(|(unit, shift)| Some((value.strip_suffix(unit)?, *shift)));
    let (digits, shift) = unit.unwrap_or((value, 0));
    number(name, digits)?
        .checked_mul(1 << shift)
        .ok_or_else(|| format!("{name}={value:?} does not fit 64 bits"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn policies() -> impl Strategy<Value = CompactionPolicy> {
        let shape = (2..=100u32, 1..=99u32).prop_map(|(fanout, runs)| LevelShape { fanout, runs });
        let tree = (1..=64u32, 1..u64::MAX, 1..1u64 << 40, 1..=99u32).prop_flat_map(
            move |(level0_runs, level1_bytes, table_bytes, last_runs)| {
                proptest::collection::vec(shape.clone(), 1..=6).prop_map(move |levels| {
                    CompactionPolicy::Tree(TreePolicy {
                        level0_runs,
                        level1_bytes,
                        table_bytes,
                        levels,
                        last_runs,
                    })
                })
            },
        );
        let fifo = (any::<u32>(), proptest::option::of(any::<u64>())).prop_map(|(ttl, max)| {
            CompactionPolicy::fifo(Some(Duration::from_millis(ttl.into())), max)
        });
        prop_oneof![3 => tree, 1 => fifo]
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_the_same(policy in policies()) {
            prop_assert_eq!(policy.to_string().parse(), Ok(policy));
        }

        #[test]
        fn arbitrary_text_never_panics(text in "\\PC{0,40}", inner in "[a-z0-9=/,]{0,30}") {
            let read = text.parse::<CompactionPolicy>();
            prop_assert!(read.is_err() || !text.is_empty());
            for name in ["leveled", "tiered", "tree", "fifo", "lazy_leveled"] {
                if let Ok(policy) = format!("{name}({inner})").parse::<CompactionPolicy>() {
                    prop_assert!(policy.validate().is_ok());
                }
            }
        }
    }

    #[test]
    fn presets_go_by_name_and_take_parameters() {
        assert_eq!("leveled".parse(), Ok(CompactionPolicy::leveled()));
        assert_eq!("tiered".parse(), Ok(CompactionPolicy::tiered()));
        assert_eq!(" lazy_leveled() ".parse(), Ok(CompactionPolicy::lazy_leveled()));
        let six: CompactionPolicy = "tiered(fanout=6, level1=1GiB)".parse().unwrap();
        assert_eq!(six.to_string(), "tiered(fanout=6,level0=4,level1=1GiB,table=64MiB)");
        let mixed: CompactionPolicy = "tree(fanout=4/10,runs=3/1,table=16MiB)".parse().unwrap();
        let tree = mixed.tree().unwrap();
        assert_eq!((tree.shape(1).runs, tree.shape(2).runs, tree.shape(5).fanout), (3, 1, 10));
        let day = CompactionPolicy::fifo(Some(Duration::from_secs(86_400)), None);
        assert_eq!(day.to_string(), "fifo(ttl=86400s)");
        let short: CompactionPolicy = "fifo(ttl=1500ms)".parse().unwrap();
        assert_eq!(short, CompactionPolicy::fifo(Some(Duration::from_millis(1500)), None));
        assert_eq!("fifo(ttl=60)".parse(), "fifo(ttl=60s)".parse::<CompactionPolicy>());
    }

    #[test]
    fn mistakes_are_named() {
        let error = |text: &str| text.parse::<CompactionPolicy>().unwrap_err();
        assert!(error("level").contains("lazy_leveled"));
        assert!(error("tiered(fanout=1)").contains("2 to 100"));
        assert!(error("tiered(fanout=4/5)").contains("tree"));
        assert!(error("leveled(runs=2)").contains("runs"));
        assert!(error("leveled(table=9999999999TiB)").contains("64 bits"));
        assert!(error("fifo").contains("ttl"));
        assert!(error("fifo(ttl=5us)").contains("whole number"));
        let micros = CompactionPolicy::fifo(Some(Duration::from_micros(1500)), None);
        assert!(micros.validate().unwrap_err().contains("milliseconds"));
        assert!(error("leveled(table=1").contains("closing"));
    }
}
