//! The ratios that the engine is to reach, computed from one run.

use crate::record::{Outcome, ratio};
use crate::report::Kept;
use crate::spec::Workload;

/// One ratio.
pub struct Aim {
    what: &'static str,
    wanted: f64,
    /// Whether more is better.
    at_least: bool,
    /// None when the run lacks one side of it.
    measured: Option<f64>,
}

impl Aim {
    /// The ratio as a row of the table.
    pub fn row(&self, value_bytes: usize) -> String {
        let sign = if self.at_least { ">=" } else { "<=" };
        let result = match self.measured {
            Some(measured) if (measured >= self.wanted) == self.at_least => {
                format!("{measured:.2} | met")
            }
            Some(measured) => format!("{measured:.2} | **missed**"),
            None => "| **not measured**".to_owned(),
        };
        format!("| {} | {value_bytes} B | {sign} {:.2} | {result} |", self.what, self.wanted)
    }
}

/// The aims of issue and design.
pub fn aims(kept: &Kept, value_bytes: usize) -> Vec<Aim> {
    let find = |subject: &str, workload: Workload| {
        kept.outcomes.iter().find(|outcome| {
            outcome.subject == subject
                && outcome.workload == workload.name()
                && outcome.value_bytes == value_bytes
        })
    };
    let mut aims = Vec::new();
    let mut add = |what,
                   at_least,
                   wanted,
                   ours: Option<&Outcome>,
                   theirs: Option<&Outcome>,
                   value: &dyn Fn(&Outcome) -> f64| {
        let measured = ours.zip(theirs).map(|(ours, theirs)| ratio(value(ours), value(theirs)));
        aims.push(Aim { what, wanted, at_least, measured });
    };
    let per_cpu = |outcome: &Outcome| ratio(1.0, outcome.cpu_per_million());
    let written = |outcome: &Outcome| outcome.write_amplification().unwrap_or(0.0);
    let throughput = |outcome: &Outcome| outcome.throughput();
    let (fill, over) = (Workload::FillRandom, Workload::Overwrite);
    let [ours_fill, theirs_fill] = [find("coronet", fill), find("rocksdb", fill)];
    add(
        "fillrandom, operations per CPU second, Coronet / RocksDB",
        true,
        1.5,
        ours_fill,
        theirs_fill,
        &per_cpu,
    );
    add(
        "fillrandom, write amplification, Coronet / RocksDB",
        false,
        1.0,
        ours_fill,
        theirs_fill,
        &written,
    );
    let [ours_over, theirs_over] = [find("coronet", over), find("rocksdb", over)];
    add(
        "overwrite, operations per CPU second, Coronet / RocksDB",
        true,
        1.5,
        ours_over,
        theirs_over,
        &per_cpu,
    );
    add(
        "overwrite, write amplification, Coronet / RocksDB",
        false,
        1.0,
        ours_over,
        theirs_over,
        &written,
    );
    let cold = find("coronet", Workload::ColdRead32);
    add(
        "cold random reads, 32 in flight, Coronet / fio",
        true,
        0.85,
        cold,
        find("fio", Workload::ColdRead32),
        &throughput,
    );
    add(
        "cold random reads, Coronet with 32 in flight / RocksDB with one thread",
        true,
        4.0,
        cold,
        find("rocksdb", Workload::ColdRead1),
        &throughput,
    );
    let slow = |outcome: &Outcome| outcome.reads.p999;
    for (beside, what) in [
        (Workload::ReadWhileWriting, "p99.9 of reads while writing, Coronet / RocksDB"),
        (Workload::ReadBesideBusy, "the same, busy writer"),
    ] {
        add(what, false, 0.5, find("coronet", beside), find("rocksdb", beside), &slow);
    }
    add(
        "overwrite in a deep tree, write amplification, tiered / leveled",
        false,
        0.5,
        find("coronet-tiered", Workload::DeepOverwrite),
        find("coronet", Workload::DeepOverwrite),
        &written,
    );
    let scan = Workload::DeepScan;
    let cost = |outcome: &Outcome| outcome.run_cpu_per_million();
    add(
        "short scans in a deep tree, CPU, leveled / tiered",
        false,
        0.5,
        find("coronet", scan),
        find("coronet-tiered", scan),
        &cost,
    );
    let read = |outcome: &Outcome| outcome.read_amplification().unwrap_or(0.0);
    add(
        "short scans in a deep tree, device bytes read, leveled / tiered",
        false,
        0.5,
        find("coronet", scan),
        find("coronet-tiered", scan),
        &read,
    );
    aims
}
