//! What one child measured.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::ops::Op;
use crate::usage::Usage;

/// Kinds of operations that are counted apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Point reads; of several keys, the call.
    Read,
    /// Puts, and read-modify-writes.
    Write,
    /// Seeks with their steps.
    Scan,
}

/// Percentiles of one kind, microseconds.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Latency {
    /// Operations.
    pub count: u64,
    /// Median.
    pub p50: f64,
    /// 99 of 100 were as fast.
    pub p99: f64,
    /// 999 of 1000 were as fast.
    pub p999: f64,
    /// The slowest.
    pub max: f64,
}

/// Latencies of all kinds while they are measured, nanoseconds.
#[derive(Debug, Clone)]
pub struct Recorder {
    kinds: [Histogram<u64>; 3],
    /// Operations counted; those of a workload's helper are not.
    pub operations: u64,
    /// Point reads that found nothing, which no workload should have.
    pub missing: u64,
    /// Entries written.
    pub entries_written: u64,
    /// Entries read, scanned ones included.
    pub entries_read: u64,
}

impl Default for Recorder {
    fn default() -> Self {
        Recorder {
            kinds: [(); 3].map(|()| histogram()),
            operations: 0,
            missing: 0,
            entries_written: 0,
            entries_read: 0,
        }
    }
}

/// Three digits, as large as it needs to be.
#[allow(clippy::expect_used)] // a constant that is valid
fn histogram() -> Histogram<u64> {
    Histogram::new(3).expect("three digits are in the bounds of the histogram")
}

impl Recorder {
    /// Counts one operation of this duration.
    pub fn add(&mut self, kind: Kind, took: Duration) {
        self.operations += 1;
        self.add_beside(kind, took);
    }

    /// Counts the latency of something beside the workload's operations.
    pub fn add_beside(&mut self, kind: Kind, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        // The histogram grows as far as it has to, so there is nothing it could refuse.
        let _ = self.kinds[kind as usize].record(nanos.max(1));
    }

    /// Counts an operation that found `found` entries.
    pub fn count(&mut self, op: &Op, found: usize, took: Duration) {
        let (kind, expected) = match op {
            Op::Put(_) => (Kind::Write, 0),
            Op::Modify(_) => (Kind::Write, 1),
            Op::Get(_) => (Kind::Read, 1),
            Op::GetMany(keys) => (Kind::Read, keys.len()),
            Op::Scan(..) => (Kind::Scan, found),
        };
        if let Op::GetMany(keys) = op {
            // The table counts keys; the latency is the call's.
            self.operations += keys.len() as u64 - 1;
        }
        self.add(kind, took);
        self.missing += expected.saturating_sub(found) as u64;
        self.entries_written += u64::from(kind == Kind::Write);
        self.entries_read += found as u64;
    }

    /// Takes over what another client counted.
    pub fn merge(&mut self, other: &Recorder) {
        self.operations += other.operations;
        self.missing += other.missing;
        self.entries_written += other.entries_written;
        self.entries_read += other.entries_read;
        for (mine, theirs) in self.kinds.iter_mut().zip(&other.kinds) {
            // Both grow by themselves, so nothing is out of range.
            let _ = mine.add(theirs);
        }
    }

    /// The percentiles of one kind.
    pub fn latency(&self, kind: Kind) -> Latency {
        let histogram = &self.kinds[kind as usize];
        let micros = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        match histogram.len() {
            0 => Latency::default(),
            count => Latency {
                count,
                p50: micros(0.5),
                p99: micros(0.99),
                p999: micros(0.999),
                max: histogram.max() as f64 / 1e3,
            },
        }
    }
}

/// One row of the results.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// The engine's name.
    pub subject: String,
    /// The workload's name.
    pub workload: String,
    /// Bytes of a value.
    pub value_bytes: usize,
    /// Operations counted.
    pub operations: u64,
    /// Operations there would have been, had the time not been up before; none of a workload that
    /// runs for a time.
    #[serde(default)]
    pub planned: Option<u64>,
    /// Bytes of keys and values that were written meanwhile, and as results read.
    pub logical_written: u64,
    /// See `logical_written`.
    pub logical_read: u64,
    /// Time, processor and device while the workload ran.
    pub run: Usage,
    /// The same while flushes and compactions that it left came to an end.
    pub settle: Usage,
    /// Latencies of point reads.
    pub reads: Latency,
    /// Latencies of writes.
    pub writes: Latency,
    /// Latencies of scans.
    pub scans: Latency,
    /// Point reads that found nothing.
    pub missing: u64,
    /// Bytes the folder takes on disk afterwards.
    pub space_bytes: u64,
    /// Bytes of all keys and values once.
    pub live_bytes: u64,
    /// The most memory the process had, bytes.
    pub peak_memory: u64,
    /// Load average of the machine before and after.
    pub load: [f64; 2],
    /// What the engine itself counted, where that says more.
    pub notes: Vec<String>,
}

impl Outcome {
    /// Operations per second.
    pub fn throughput(&self) -> f64 {
        ratio(self.operations as f64, self.run.seconds)
    }

    /// How much of the planned was done before the time was up, 0 to 1; none when all was.
    pub fn cut_at(&self) -> Option<f64> {
        let planned = self.planned.filter(|planned| self.operations < *planned)?;
        Some(self.operations as f64 / planned as f64)
    }

    /// Processor seconds per million operations, what settling took included.
    pub fn cpu_per_million(&self) -> f64 {
        ratio((self.run.cpu_seconds + self.settle.cpu_seconds) * 1e6, self.operations as f64)
    }

    /// Processor seconds per million operations while the workload ran.
    pub fn run_cpu_per_million(&self) -> f64 {
        ratio(self.run.cpu_seconds * 1e6, self.operations as f64)
    }

    /// Latency of what the workload is about.
    pub fn main_latency(&self) -> &Latency {
        [&self.scans, &self.reads, &self.writes]
            .into_iter()
            .find(|latency| latency.count * 3 > self.operations)
            .unwrap_or(&self.reads)
    }

    /// Bytes this process wrote to the device per logical byte written, settling included.
    pub fn write_amplification(&self) -> Option<f64> {
        let bytes = self.run.process_written + self.settle.process_written;
        (self.logical_written > 0).then(|| bytes as f64 / self.logical_written as f64)
    }

    /// The same by the device's own counters, other processes included.
    pub fn device_write_amplification(&self) -> Option<f64> {
        let bytes = self.run.device_written + self.settle.device_written;
        (self.logical_written > 0).then(|| bytes as f64 / self.logical_written as f64)
    }

    /// Bytes this process read from the device per logical byte read.
    pub fn read_amplification(&self) -> Option<f64> {
        (self.logical_read > 0).then(|| self.run.process_read as f64 / self.logical_read as f64)
    }

    /// The same by the device's own counters, other processes included.
    pub fn device_read_amplification(&self) -> Option<f64> {
        (self.logical_read > 0).then(|| self.run.device_read as f64 / self.logical_read as f64)
    }
}

/// A row that there is not.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Unmeasured {
    /// The engine's name.
    pub subject: String,
    /// The workload's name.
    pub workload: String,
    /// Bytes of a value.
    pub value_bytes: usize,
    /// Why.
    pub why: String,
}

/// `part / of`, 0 without any.
pub fn ratio(part: f64, of: f64) -> f64 {
    if of == 0.0 { 0.0 } else { part / of }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_of_any_size_are_kept_and_merged() {
        let (mut all, mut other) = (Recorder::default(), Recorder::default());
        (0..900).for_each(|_| all.add(Kind::Read, Duration::from_micros(5)));
        (0..90).for_each(|_| other.add(Kind::Read, Duration::from_millis(3)));
        (0..10).for_each(|_| other.add(Kind::Read, Duration::from_secs(7)));
        all.merge(&other);
        let Latency { count, p50, p99, p999, max } = all.latency(Kind::Read);
        let near = |is: f64, should: f64| (is / should - 1.0).abs() < 0.002;
        assert_eq!((count, all.operations), (1000, 1000));
        assert!(near(p50, 5.0) && near(p99, 3e3) && near(p999, 7e6) && near(max, 7e6));
    }

    #[test]
    fn a_call_of_several_keys_counts_its_keys_and_what_is_missing() {
        let mut recorder = Recorder::default();
        recorder.count(&Op::GetMany(vec![1, 2, 3]), 2, Duration::from_micros(1));
        recorder.count(&Op::Put(1), 0, Duration::from_micros(1));
        recorder.count(&Op::Modify(1), 1, Duration::from_micros(1));
        assert_eq!((recorder.operations, recorder.missing), (5, 1));
        assert_eq!((recorder.entries_written, recorder.entries_read), (2, 3));
    }
}
