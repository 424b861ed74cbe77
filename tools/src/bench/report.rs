//! The result of a run: one structure that is printed as text or as JSON.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use super::record::{OpFigures, Percentiles};
use super::server_side::Storage;

/// The figures of a run.
#[derive(Debug, Serialize)]
pub struct Report {
    /// What was measured: `coronet`, `resp` or `raw`.
    pub target: &'static str,
    /// Where.
    pub addr: String,
    /// `closed` or `open`.
    pub loop_kind: &'static str,
    /// Intended requests a second of an open loop.
    pub rate: Option<f64>,
    /// Connections.
    pub connections: usize,
    /// Requests in flight on each.
    pub depth: usize,
    /// Number of keys.
    pub keys: u64,
    /// Bytes of each value.
    pub value_size: usize,
    /// Reads in a hundred requests.
    pub read_percent: u32,
    /// The measured window in seconds.
    pub seconds: f64,
    /// Replies in the window.
    pub requests: u64,
    /// Replies a second in the window.
    pub throughput: f64,
    /// Mean bytes of a request on the wire.
    pub request_bytes: f64,
    /// Mean bytes of a reply on the wire.
    pub reply_bytes: f64,
    /// Requests due in the window that could not be sent: the generator or the server fell behind.
    pub unsent: u64,
    /// Reads.
    pub get: Option<OpFigures>,
    /// Writes.
    pub put: Option<OpFigures>,
    /// Refused or wrong replies by kind.
    pub errors: BTreeMap<String, u64>,
    /// What the generator itself cost.
    pub generator: Cpu,
    /// What the server cost; with `--server-pid`.
    pub server: Option<Cpu>,
    /// Storage work of the server during the window.
    pub storage: Option<Storage>,
    /// Seconds and writes of the fill phase, when there was one.
    pub fill: Option<Fill>,
}

/// Processor time.
#[derive(Debug, Serialize)]
pub struct Cpu {
    /// Share of one core, 100 being all of it.
    pub percent: f64,
    /// Microseconds for each request.
    pub micros_per_request: f64,
}

/// The fill phase.
#[derive(Debug, Serialize)]
pub struct Fill {
    /// How long it took.
    pub seconds: f64,
    /// Keys stored.
    pub keys: u64,
}

impl Report {
    /// Replies that carried other data than was stored.
    pub fn wrong(&self) -> u64 {
        let count = |kind: &str| self.errors.get(kind).copied().unwrap_or(0);
        count("wrong-length") + count("wrong-content")
    }

    /// The report for people.
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = self.write_text(&mut out);
        out
    }

    fn write_text(&self, out: &mut String) -> std::fmt::Result {
        if let Some(fill) = &self.fill {
            let rate = fill.keys as f64 / fill.seconds.max(1e-9);
            writeln!(out, "fill        {} keys in {:.2} s, {rate:.0}/s", fill.keys, fill.seconds)?;
        }
        writeln!(
            out,
            "load        {} loop, {} connections x {} deep, {} keys, {} byte values, {} % reads",
            self.loop_kind,
            self.connections,
            self.depth,
            self.keys,
            self.value_size,
            self.read_percent
        )?;
        writeln!(
            out,
            "throughput  {:.0}/s  ({} requests in {:.2} s)",
            self.throughput, self.requests, self.seconds
        )?;
        writeln!(
            out,
            "wire        {:.1} bytes a request, {:.1} a reply",
            self.request_bytes, self.reply_bytes
        )?;
        if self.unsent > 0 {
            writeln!(
                out,
                "behind      {} requests were due and could not be sent in time",
                self.unsent
            )?;
        }
        for (name, figures) in [("get", &self.get), ("put", &self.put)] {
            if let Some(figures) = figures {
                write_op(out, name, figures)?;
            }
        }
        for (kind, count) in &self.errors {
            writeln!(out, "errors      {count} {kind}")?;
        }
        write_cpu(out, "generator", &self.generator)?;
        if let Some(server) = &self.server {
            write_cpu(out, "server", server)?;
        }
        if let Some(storage) = &self.storage {
            storage.write_text(out)?;
        }
        Ok(())
    }
}

fn write_op(out: &mut String, name: &str, figures: &OpFigures) -> std::fmt::Result {
    write!(out, "{name:<11} {} requests", figures.count)?;
    if figures.missing > 0 {
        write!(out, ", {} found nothing", figures.missing)?;
    }
    writeln!(out)?;
    write_percentiles(out, "service", &figures.service_us)?;
    if let Some(response) = &figures.response_us {
        write_percentiles(out, "response", response)?;
    }
    if let Some(median) = figures.median_second_p99_us {
        writeln!(out, "  {:<9} p99 {median:.1} us in the median second", "seconds")?;
    }
    Ok(())
}

fn write_percentiles(out: &mut String, name: &str, p: &Percentiles) -> std::fmt::Result {
    writeln!(
        out,
        "  {name:<9} mean {:.1}  p50 {:.1}  p90 {:.1}  p99 {:.1}  p99.9 {:.1}  p99.99 {:.1}  max {:.1} us",
        p.mean, p.p50, p.p90, p.p99, p.p999, p.p9999, p.max
    )
}

fn write_cpu(out: &mut String, name: &str, cpu: &Cpu) -> std::fmt::Result {
    writeln!(
        out,
        "{name:<11} {:.1} % of a core, {:.3} us a request",
        cpu.percent, cpu.micros_per_request
    )
}
