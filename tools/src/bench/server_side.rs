//! What the server counted between the start and the end of a run: bytes by cause, hit rates,
//! stalls, and how long requests took inside of it.

use std::collections::BTreeMap;
use std::fmt::Write;

use coronet_lsm::histogram::Histogram;
use serde::Serialize;

/// Counters by name, as STATS gives them, of one node or of several summed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters(BTreeMap<String, u64>);

impl Counters {
    /// The counters of one node.
    pub fn new(counters: impl IntoIterator<Item = (String, u64)>) -> Counters {
        Counters(counters.into_iter().collect())
    }

    /// Adds those of another node.
    pub fn add(&mut self, other: &Counters) {
        for (name, value) in &other.0 {
            *self.0.entry(name.clone()).or_default() += value;
        }
    }

    /// A counter's value; 0 when the server has none of this name.
    fn now(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }
}

/// Quantiles of the time between a request's arrival at the server and its answer on the way out,
/// microseconds; each is an upper bound, at most a quarter too high.
#[derive(Debug, Serialize, PartialEq, Eq)]
pub struct ServerLatency {
    /// Requests.
    pub count: u64,
    /// Half of them took no longer.
    pub p50_us: u64,
    /// 99 % of them took no longer.
    pub p99_us: u64,
    /// 99.9 % of them took no longer.
    pub p999_us: u64,
}

/// Storage work of the server during the measured phase; sizes are those at its end.
#[derive(Debug, Serialize)]
pub struct Storage {
    /// Bytes of keys and values that the engines took in, versions' metadata included.
    pub user_bytes: u64,
    /// Bytes written to the log.
    pub log_bytes: u64,
    /// Zeros that new log segments were filled with, once for each.
    pub log_fill_bytes: u64,
    /// Bytes written by flushes.
    pub flush_bytes: u64,
    /// Bytes written by compactions.
    pub compaction_bytes: u64,
    /// Bytes written to manifests.
    pub manifest_bytes: u64,
    /// All of these together.
    pub device_bytes: u64,
    /// Device bytes per user byte.
    pub write_amplification: Option<f64>,
    /// Bytes written to tables of each level, level 0 first.
    pub level_written_bytes: Vec<u64>,
    /// Bytes read by point reads and by scans that begin.
    pub block_read_bytes: u64,
    /// Bytes that scans read ahead.
    pub scan_read_bytes: u64,
    /// Bytes read by compactions.
    pub compaction_read_bytes: u64,
    /// Bytes read by the scrub.
    pub scrub_bytes: u64,
    /// All of these together.
    pub device_read_bytes: u64,
    /// Tables looked into per point read.
    pub read_amplification: Option<f64>,
    /// Bytes of all tables, at the end.
    pub table_bytes: u64,
    /// Bytes of all tables per byte of the deepest levels, at the end.
    pub space_amplification: Option<f64>,
    /// Share of looks into the block cache that found their block.
    pub cache_hit_rate: Option<f64>,
    /// Share of tables that a filter spared a point read.
    pub filter_skip_rate: Option<f64>,
    /// Tables that scans skipped, of those whose filter they asked for a prefix.
    pub scan_filter_skip_rate: Option<f64>,
    /// Time that commits were held back so that flush and compaction keep up, all cores together.
    pub delayed_ms: f64,
    /// Time that commits went at the slowest rate because memory or level 0 was full.
    pub stalled_ms: f64,
    /// Time that merges paused for the sake of foreground latency.
    pub paced_ms: f64,
    /// Bytes that compactions still owe, at the end.
    pub compaction_debt_bytes: u64,
    /// Latencies inside the server per operation, without those that were not asked for.
    pub latency: BTreeMap<String, ServerLatency>,
}

/// What was counted between two readings.
struct Between<'a> {
    before: &'a Counters,
    after: &'a Counters,
}

impl Between<'_> {
    fn of(&self, name: &str) -> u64 {
        self.after.now(name).saturating_sub(self.before.now(name))
    }

    fn millis(&self, name: &str) -> f64 {
        self.of(name) as f64 / 1000.0
    }

    /// The latencies of the operation whose counters begin with `group`.
    fn latency(&self, group: &str) -> Option<ServerLatency> {
        let mut histogram = Histogram::default();
        let prefix = format!("{group}.upto_");
        let buckets = self.after.0.range(prefix.clone()..);
        for (name, _) in buckets.take_while(|(name, _)| name.starts_with(&prefix)) {
            let last = name[prefix.len()..].strip_suffix("_micros").and_then(|n| n.parse().ok());
            if let Some(last) = last {
                histogram.record_many(last, self.of(name));
            }
        }
        (histogram.count() > 0).then(|| ServerLatency {
            count: histogram.count(),
            p50_us: histogram.quantile(500),
            p99_us: histogram.quantile(990),
            p999_us: histogram.quantile(999),
        })
    }
}

fn ratio(part: u64, of: u64) -> Option<f64> {
    (of > 0).then(|| part as f64 / of as f64)
}

impl Storage {
    /// The work between two readings; `None` when the server counts under other names.
    pub fn between(before: &Counters, after: &Counters) -> Option<Storage> {
        after.0.get("engine.user_bytes")?;
        let between = Between { before, after };
        let engine = |name: &str| between.of(&format!("engine.{name}"));
        let end = |name: &str| after.now(&format!("engine.{name}"));
        let user_bytes = engine("user_bytes");
        let causes =
            ["log_bytes", "log_fill_bytes", "flush_bytes", "compaction_bytes", "manifest_bytes"];
        let causes = causes.map(engine);
        let [log_bytes, log_fill_bytes, flush_bytes, compaction_bytes, manifest_bytes] = causes;
        let reads = ["block_read_bytes", "scan_read_bytes", "compaction_read_bytes", "scrub_bytes"];
        let reads = reads.map(engine);
        let [block_read_bytes, scan_read_bytes, compaction_read_bytes, scrub_bytes] = reads;
        let device_bytes = causes.iter().sum();
        let (hits, misses) = (engine("cache_hits"), engine("cache_misses"));
        let (skips, probes) = (engine("filter_skips"), engine("table_probes"));
        let (scan_skips, scan_probes) = (engine("scan_filter_skips"), engine("scan_filter_probes"));
        let levels = (0..).map(|n| format!("engine.level{n}_written_bytes"));
        let levels = levels.take_while(|name| after.0.contains_key(name));
        let operations = ["get", "put", "delete", "multi_get", "list"];
        let latency = operations
            .into_iter()
            .filter_map(|op| Some((op.to_owned(), between.latency(&format!("latency.{op}"))?)));
        Some(Storage {
            user_bytes,
            log_bytes,
            log_fill_bytes,
            flush_bytes,
            compaction_bytes,
            manifest_bytes,
            device_bytes,
            write_amplification: ratio(device_bytes, user_bytes),
            level_written_bytes: levels.map(|name| between.of(&name)).collect(),
            block_read_bytes,
            scan_read_bytes,
            compaction_read_bytes,
            scrub_bytes,
            device_read_bytes: reads.iter().sum(),
            read_amplification: ratio(probes, engine("gets")),
            table_bytes: end("table_bytes"),
            space_amplification: ratio(end("table_bytes"), end("bottom_bytes")),
            cache_hit_rate: ratio(hits, hits + misses),
            filter_skip_rate: ratio(skips, skips + probes),
            scan_filter_skip_rate: ratio(scan_skips, scan_skips + scan_probes),
            delayed_ms: between.millis("engine.delayed_micros"),
            stalled_ms: between.millis("engine.stalled_micros"),
            paced_ms: between.millis("engine.paced_micros"),
            compaction_debt_bytes: end("compaction_debt_bytes"),
            latency: latency.collect(),
        })
    }

    /// The figures for people.
    pub fn write_text(&self, out: &mut String) -> std::fmt::Result {
        write!(
            out,
            "storage     {:.1} MiB from users, {:.1} MiB written (log {:.1}, new segments {:.1}, \
             flush {:.1}, compaction {:.1}, manifest {:.1})",
            mib(self.user_bytes),
            mib(self.device_bytes),
            mib(self.log_bytes),
            mib(self.log_fill_bytes),
            mib(self.flush_bytes),
            mib(self.compaction_bytes),
            mib(self.manifest_bytes),
        )?;
        write_ratio(out, ", write amplification", self.write_amplification)?;
        write!(
            out,
            "\n  read      {:.1} MiB (points {:.1}, scans {:.1}, compaction {:.1}, scrub {:.1})",
            mib(self.device_read_bytes),
            mib(self.block_read_bytes),
            mib(self.scan_read_bytes),
            mib(self.compaction_read_bytes),
            mib(self.scrub_bytes),
        )?;
        write_ratio(out, ", tables per read", self.read_amplification)?;
        let percent = |rate: f64| rate * 100.0;
        write_ratio(out, ", cache hits %", self.cache_hit_rate.map(percent))?;
        write_ratio(out, ", filtered %", self.filter_skip_rate.map(percent))?;
        let scans = self.scan_filter_skip_rate.map(percent);
        write_ratio(out, ", filtered in scans %", scans)?;
        write!(out, "\n  space     {:.1} MiB of tables", mib(self.table_bytes))?;
        write_ratio(out, ", space amplification", self.space_amplification)?;
        writeln!(
            out,
            "\n  waits     commits delayed {:.0} ms, stalled {:.0} ms; merges paced {:.0} ms, \
             debt {:.1} MiB",
            self.delayed_ms,
            self.stalled_ms,
            self.paced_ms,
            mib(self.compaction_debt_bytes),
        )?;
        for (op, latency) in &self.latency {
            let ServerLatency { count, p50_us, p99_us, p999_us } = latency;
            writeln!(
                out,
                "  {op:<9} {count} in the server, p50 {p50_us}  p99 {p99_us}  p99.9 {p999_us} us"
            )?;
        }
        Ok(())
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn write_ratio(out: &mut String, name: &str, ratio: Option<f64>) -> std::fmt::Result {
    ratio.map_or(Ok(()), |ratio| write!(out, "{name} {ratio:.2}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(pairs: &[(&str, u64)]) -> Counters {
        Counters::new(pairs.iter().map(|(name, value)| ((*name).to_owned(), *value)))
    }

    #[test]
    fn the_report_is_what_came_between_the_readings() {
        let before = counters(&[
            ("engine.user_bytes", 1000),
            ("engine.log_bytes", 500),
            ("engine.level0_written_bytes", 7),
            ("latency.get.upto_15_micros", 90),
            ("latency.get.p50_micros", 15),
        ]);
        let after = counters(&[
            ("engine.user_bytes", 3000),
            ("engine.log_bytes", 3500),
            ("engine.flush_bytes", 2000),
            ("engine.manifest_bytes", 1000),
            ("engine.gets", 10),
            ("engine.table_probes", 15),
            ("engine.filter_skips", 45),
            ("engine.scan_filter_skips", 9),
            ("engine.scan_filter_probes", 1),
            ("engine.cache_hits", 3),
            ("engine.cache_misses", 1),
            ("engine.table_bytes", 360),
            ("engine.bottom_bytes", 300),
            ("engine.stalled_micros", 2500),
            ("engine.level0_written_bytes", 27),
            ("engine.level1_written_bytes", 30),
            ("latency.get.upto_15_micros", 92),
            ("latency.get.upto_1023_micros", 98),
            ("latency.get.p50_micros", 15),
        ]);
        let storage = Storage::between(&before, &after).unwrap();
        assert_eq!((storage.user_bytes, storage.device_bytes), (2000, 6000));
        assert_eq!(storage.write_amplification, Some(3.0));
        assert_eq!(storage.read_amplification, Some(1.5));
        assert_eq!(storage.space_amplification, Some(1.2));
        assert_eq!(storage.cache_hit_rate, Some(0.75));
        assert_eq!(storage.filter_skip_rate, Some(0.75));
        assert_eq!(storage.scan_filter_skip_rate, Some(0.9));
        assert_eq!(storage.stalled_ms, 2.5);
        assert_eq!(storage.level_written_bytes, [20, 30]);
        // Two of a hundred were fast; before the phase nearly all had been.
        let latency = ServerLatency { count: 100, p50_us: 1023, p99_us: 1023, p999_us: 1023 };
        assert_eq!(storage.latency, BTreeMap::from([("get".to_owned(), latency)]));
        let mut text = String::new();
        storage.write_text(&mut text).unwrap();
        for part in ["write amplification 3.00", "cache hits % 75.00", "p99 1023", "stalled 2 ms"] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }

    #[test]
    fn a_server_that_counts_otherwise_has_no_storage_figures() {
        let other = counters(&[("something", 1)]);
        assert!(Storage::between(&other, &other).is_none());
        let mut both = counters(&[("a", 1)]);
        both.add(&counters(&[("a", 2), ("b", 5)]));
        assert_eq!(both, counters(&[("a", 3), ("b", 5)]));
        let idle = counters(&[("engine.user_bytes", 0)]);
        let storage = Storage::between(&idle, &idle).unwrap();
        assert_eq!((storage.write_amplification, storage.latency.len()), (None, 0));
    }
}
