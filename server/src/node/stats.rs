//! What a node counts, per core and summed.

use std::cell::Cell;

use coronet_lsm::EngineStats;

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

/// Everything one core counts, or several summed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CoreStats {
    /// Requests and connections.
    pub node: NodeStats,
    /// Storage.
    pub engine: EngineStats,
}

impl CoreStats {
    /// Adds another core's counters to these.
    pub fn add(&mut self, other: &CoreStats) {
        self.node.add(&other.node);
        self.engine.add(&other.engine);
    }

    /// Every counter under its public name: `node.…` and `engine.…`.
    pub fn named(&self) -> Vec<(String, u64)> {
        let engine = &self.engine;
        let node = self.node.fields().map(|(name, value)| (format!("node.{name}"), value));
        let fields = engine.fields().map(|(name, value)| (format!("engine.{name}"), value));
        let derived = [
            ("engine.user_bytes", engine.logical_bytes),
            ("engine.compaction_bytes", engine.compaction_write_bytes),
            ("engine.device_bytes", engine.device_bytes()),
        ];
        let mut named: Vec<_> = node.chain(fields).collect();
        named.extend(derived.map(|(name, value)| (name.to_owned(), value)));
        for (level, (tables, bytes)) in
            engine.level_tables.into_iter().zip(engine.level_bytes).enumerate()
        {
            named.push((format!("engine.level{level}_tables"), tables));
            named.push((format!("engine.level{level}_bytes"), bytes));
            let (runs, written) = (engine.level_runs[level], engine.level_written_bytes[level]);
            named.push((format!("engine.level{level}_runs"), runs));
            named.push((format!("engine.level{level}_written_bytes"), written));
        }
        for (name, latency) in [("commit", &engine.commit_latency), ("read", &engine.read_latency)]
        {
            for (quantile, per_mille) in [("p50", 500), ("p99", 990), ("p999", 999)] {
                let micros = latency.quantile(per_mille);
                named.push((format!("engine.{name}_{quantile}_micros"), micros));
            }
        }
        // Counters are whole numbers: ratios come in hundredths.
        let ratios = [
            ("write_amplification", engine.write_amplification()),
            ("read_amplification", engine.read_amplification()),
            ("space_amplification", engine.space_amplification()),
            ("cache_hit_rate", engine.cache_hit_rate()),
            ("filter_skip_rate", engine.filter_skip_rate()),
        ];
        let hundredths = |ratio: f64| (ratio * 100.0).round() as u64;
        named.extend(ratios.map(|(n, ratio)| (format!("engine.{n}_percent"), hundredths(ratio))));
        named
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
        let copy = stats;
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
