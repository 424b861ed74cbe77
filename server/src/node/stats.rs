//! What a node counts, per core and summed.

use std::cell::Cell;
use std::collections::BTreeMap;

use coronet_lsm::env::Nanos;
use coronet_lsm::histogram::Histogram;
use coronet_lsm::stats::LEVELS;
use coronet_lsm::{EngineStats, KeyspaceId};
use coronet_net::Op;

use super::Timed;

/// Declares the counters once: the live cells and the plain copy.
macro_rules! counters {
    ($($(#[doc = $doc:literal])* $name:ident,)*) => {
        /// Counters of one core's requests and connections since the start.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct NodeStats {
            $($(#[doc = $doc])* pub $name: u64,)*
        }

        impl NodeStats {
            /// Every counter with its name, in a fixed order.
            pub fn fields(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }

            /// Adds another core's counters to these.
            pub fn add(&mut self, other: &NodeStats) {
                $(self.$name += other.$name;)*
            }
        }

        /// The counters while a core runs.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: Cell<u64>,)*
        }

        impl Counters {
            /// The counters now.
            pub(crate) fn snapshot(&self) -> NodeStats {
                NodeStats { $($name: self.$name.get(),)* }
            }
        }
    };
}

counters! {
    /// Connections open now.
    connections,
    /// Connections opened.
    connections_opened,
    /// Connections closed because the client was too slow: no HELLO, an unfinished frame, idle.
    connections_overdue,
    /// Requests received.
    requests,
    /// PUT requests executed.
    puts,
    /// GET requests executed.
    gets,
    /// GET requests that had to wait for the disk.
    gets_waited,
    /// DELETE requests executed.
    deletes,
    /// MULTI_GET requests executed.
    multi_gets,
    /// LIST requests executed.
    lists,
    /// Writes without context.
    blind_writes,
    /// Writes that left more than one version.
    siblings_left,
    /// Retries recognised by their token.
    retries_recognised,
    /// Requests passed on to the owning core.
    forwarded,
    /// Requests not done because their deadline had passed.
    deadline_exceeded,
    /// Writes answered "in doubt".
    in_doubt,
    /// New names taken because writes of this node were lost.
    new_names,
    /// Frames that broke the protocol.
    protocol_errors,
    /// Bytes received.
    bytes_received,
    /// Bytes of replies.
    bytes_sent,
}

/// Adds to a counter.
pub(crate) fn add(counter: &Cell<u64>, amount: u64) {
    counter.set(counter.get().wrapping_add(amount));
}

/// Adds one to a counter.
pub(crate) fn count(counter: &Cell<u64>) {
    add(counter, 1);
}

/// Operations whose latency is counted, with their names in the statistics.
const TIMED: [(Op, &str); 5] = [
    (Op::Get, "get"),
    (Op::Put, "put"),
    (Op::Delete, "delete"),
    (Op::MultiGet, "multi_get"),
    (Op::List, "list"),
];

/// Latencies per operation: from a request's arrival at this node to its answer on the way out,
/// refusals included. A request counts at the core that holds its connection.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OpLatencies([Histogram; TIMED.len()]);

impl OpLatencies {
    /// Counts requests whose answers leave now.
    pub(crate) fn count(&mut self, answered: impl Iterator<Item = (Timed, u32)>, now: Nanos) {
        for (Timed { op, arrived }, many) in answered {
            let Some(at) = TIMED.iter().position(|(timed, _)| timed.to_u8() == op) else {
                continue;
            };
            let micros = u64::try_from(now.since(arrived).as_micros()).unwrap_or(u64::MAX);
            self.0[at].record_many(micros, u64::from(many));
        }
    }

    /// Adds another core's latencies to these.
    pub fn add(&mut self, other: &OpLatencies) {
        self.0.iter_mut().zip(&other.0).for_each(|(ours, theirs)| ours.add(theirs));
    }

    /// The latencies of each operation, by name.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, &Histogram)> {
        TIMED.iter().map(|(_, name)| *name).zip(&self.0)
    }
}

/// Everything one core counts, or several summed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CoreStats {
    /// Requests and connections.
    pub node: NodeStats,
    /// Storage, all keyspaces together.
    pub engine: EngineStats,
    /// Storage of each keyspace.
    pub keyspaces: BTreeMap<KeyspaceId, EngineStats>,
    /// How long requests took.
    pub latencies: OpLatencies,
}

impl CoreStats {
    /// Adds another core's counters to these.
    pub fn add(&mut self, other: &CoreStats) {
        self.node.add(&other.node);
        self.engine.add(&other.engine);
        for (id, theirs) in &other.keyspaces {
            self.keyspaces.entry(*id).or_default().add(theirs);
        }
        self.latencies.add(&other.latencies);
    }

    /// Every counter under its public name (`docs/PROTOCOL.md`, "STATS").
    pub fn named(&self) -> Vec<(String, u64)> {
        let mut named = Named::default();
        self.node.fields().for_each(|(name, value)| named.push("node", name, value));
        for (op, latency) in self.latencies.named() {
            named.latency(&format!("latency.{op}"), latency);
        }
        named.engine("engine", &self.engine);
        for (id, stats) in &self.keyspaces {
            named.keyspace(&format!("keyspace.{id}"), stats);
        }
        named.0
    }
}

/// Counters with their public names.
#[derive(Default)]
struct Named(Vec<(String, u64)>);

impl Named {
    fn push(&mut self, group: &str, name: &str, value: u64) {
        self.0.push((format!("{group}.{name}"), value));
    }

    /// Counters are whole numbers: ratios come in hundredths.
    fn ratio(&mut self, group: &str, name: &str, ratio: f64) {
        self.push(group, &format!("{name}_percent"), (ratio * 100.0).round() as u64);
    }

    /// A histogram: how many, quantiles, and every bucket that counted something.
    fn latency(&mut self, group: &str, latency: &Histogram) {
        self.push(group, "count", latency.count());
        for (quantile, per_mille) in [("p50", 500), ("p99", 990), ("p999", 999)] {
            self.push(group, &format!("{quantile}_micros"), latency.quantile(per_mille));
        }
        for (last, count) in latency.buckets() {
            self.push(group, &format!("upto_{last}_micros"), count);
        }
    }

    fn engine(&mut self, group: &str, engine: &EngineStats) {
        engine.fields().for_each(|(name, value)| self.push(group, name, value));
        self.push(group, "user_bytes", engine.logical_bytes);
        self.push(group, "compaction_bytes", engine.compaction_write_bytes);
        self.push(group, "device_bytes", engine.device_bytes());
        self.push(group, "device_read_bytes", engine.device_read_bytes());
        (0..LEVELS).for_each(|level| self.level(group, engine, level));
        for (name, latency) in [
            ("commit", &engine.commit_latency),
            ("read", &engine.read_latency),
            ("multi_get", &engine.multi_get_latency),
            ("scan", &engine.scan_latency),
        ] {
            for (quantile, per_mille) in [("p50", 500), ("p99", 990), ("p999", 999)] {
                let micros = latency.quantile(per_mille);
                self.push(group, &format!("{name}_{quantile}_micros"), micros);
            }
        }
        self.ratio(group, "write_amplification", engine.write_amplification());
        self.ratio(group, "read_amplification", engine.read_amplification());
        self.ratio(group, "space_amplification", engine.space_amplification());
        self.ratio(group, "cache_hit_rate", engine.cache_hit_rate());
        self.ratio(group, "filter_skip_rate", engine.filter_skip_rate());
        self.ratio(group, "scan_filter_skip_rate", engine.scan_filter_skip_rate());
        self.ratio(group, "compression_ratio", engine.compression_ratio());
    }

    fn level(&mut self, group: &str, stats: &EngineStats, level: usize) {
        let group = format!("{group}.level{level}");
        for (name, values) in [
            ("tables", &stats.level_tables),
            ("bytes", &stats.level_bytes),
            ("runs", &stats.level_runs),
            ("written_bytes", &stats.level_written_bytes),
            ("read_bytes", &stats.level_read_bytes),
            ("probes", &stats.level_probes),
            ("filter_skips", &stats.level_filter_skips),
        ] {
            self.0.push((format!("{group}_{name}"), values[level]));
        }
    }

    /// What a keyspace has of its own, and only the levels it uses.
    fn keyspace(&mut self, group: &str, stats: &EngineStats) {
        for (name, value) in [
            ("entries_written", stats.entries_written),
            ("logical_bytes", stats.logical_bytes),
            ("flush_bytes", stats.flush_bytes),
            ("compaction_write_bytes", stats.compaction_write_bytes),
            ("compaction_read_bytes", stats.compaction_read_bytes),
            ("compaction_debt_bytes", stats.compaction_debt_bytes),
            ("memtable_bytes", stats.memtable_bytes),
            ("table_bytes", stats.table_bytes),
            ("gets", stats.gets),
            ("scans", stats.scans),
            ("table_probes", stats.table_probes),
            ("filter_skips", stats.filter_skips),
            ("scan_filter_skips", stats.scan_filter_skips),
            ("scan_filter_probes", stats.scan_filter_probes),
            ("lost_ranges", stats.lost_ranges),
        ] {
            self.push(group, name, value);
        }
        // Log and manifest are shared, so this counts tables only.
        self.ratio(group, "table_write_amplification", stats.table_write_amplification());
        self.ratio(group, "read_amplification", stats.read_amplification());
        self.ratio(group, "space_amplification", stats.space_amplification());
        self.ratio(group, "filter_skip_rate", stats.filter_skip_rate());
        self.ratio(group, "compression_ratio", stats.compression_ratio());
        for level in 0..LEVELS {
            let used = [stats.level_bytes[level], stats.level_written_bytes[level]];
            if used.iter().any(|bytes| *bytes > 0) {
                self.level(group, stats, level);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_cover_both_parts_and_names_are_unique() {
        let counters = Counters::default();
        count(&counters.puts);
        add(&counters.bytes_sent, 7);
        let mut stats = CoreStats { node: counters.snapshot(), ..CoreStats::default() };
        stats.engine.log_bytes = 5;
        let copy = stats.clone();
        stats.add(&copy);
        let named = stats.named();
        let get = |name: &str| named.iter().find(|(n, _)| n == name).map(|(_, value)| *value);
        assert_eq!(get("node.puts"), Some(2));
        assert_eq!(get("node.bytes_sent"), Some(14));
        assert_eq!(get("engine.log_bytes"), Some(10));
        assert_eq!(get("engine.device_bytes"), Some(10));
        assert_eq!(get("engine.commit_p99_micros"), Some(0));
        let unique: std::collections::BTreeSet<_> = named.iter().map(|(name, _)| name).collect();
        assert_eq!(unique.len(), named.len());
    }
}
