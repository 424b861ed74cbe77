//! The results as JSON, as a table and as plots.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::Failure;
use crate::aims::aims;
use crate::plot::{Bars, Group};
use crate::record::{Latency, Outcome, Unmeasured};
use crate::spec::Sizes;

/// Everything a run leaves.
#[derive(Serialize, Deserialize)]
pub struct Kept {
    /// Small sizes, short runs.
    pub quick: bool,
    /// The processor everything ran on.
    pub cpu: usize,
    /// Lines about machine and build.
    pub facts: Vec<String>,
    /// The sizes, one per value size.
    pub sizes: Vec<Sizes>,
    /// The rows.
    pub outcomes: Vec<Outcome>,
    /// Rows that could not be had.
    pub unmeasured: Vec<Unmeasured>,
    /// What else is to be said.
    pub remarks: Vec<String>,
}

/// Writes `out.json`, `out.md` and the plots.
///
/// # Errors
/// When a file cannot be written.
pub fn write(kept: &Kept, out: &Path) -> Result<(), Failure> {
    let beside = |suffix: &str| {
        let mut name = out.file_name().unwrap_or_default().to_owned();
        name.push(suffix);
        out.with_file_name(name)
    };
    fs::write(beside(".json"), serde_json::to_string_pretty(kept)?)?;
    fs::write(beside(".md"), markdown(kept))?;
    for sizes in &kept.sizes {
        for (name, bars) in plots(kept, sizes.value_bytes) {
            fs::write(beside(&format!("-{name}-{}.svg", sizes.value_bytes)), bars.svg())?;
        }
    }
    Ok(())
}

/// The table, with what one has to know to read it.
pub fn markdown(kept: &Kept) -> String {
    let mut text = String::new();
    let mode = if kept.quick { "quick" } else { "full" };
    // Writing into a string cannot fail.
    let _ = writeln!(text, "# The engine beside its peers ({mode} run)\n\n{}\n", load_line(kept));
    for fact in &kept.facts {
        let _ = writeln!(text, "- {fact}");
    }
    let _ = writeln!(
        text,
        "- everything of an engine, foreground and background, on processor {}; one process per row\n\
         - CPU: processor seconds of the process per million operations, with the flushes and \
         compactions that the workload left behind, in brackets without\n\
         - written and read: device bytes per logical byte, by the process's own block layer \
         counts; in brackets by the device's counters, which see everybody on this machine",
        kept.cpu
    );
    for sizes in &kept.sizes {
        section(&mut text, kept, sizes);
    }
    let _ = writeln!(
        text,
        "\n## Aims\n\n| aim | values | wanted | measured | |\n|---|---|---|---|---|"
    );
    for sizes in &kept.sizes {
        for aim in aims(kept, sizes.value_bytes) {
            let _ = writeln!(text, "{}", aim.row(sizes.value_bytes));
        }
    }
    if !kept.remarks.is_empty() {
        let _ = writeln!(text, "\n## Remarks\n");
        for remark in &kept.remarks {
            let _ = writeln!(text, "- {remark}");
        }
    }
    text
}

/// How busy the machine was.
fn load_line(kept: &Kept) -> String {
    let loads: Vec<f64> = kept.outcomes.iter().flat_map(|outcome| outcome.load).collect();
    let (least, most) = loads
        .iter()
        .fold((f64::MAX, 0.0_f64), |(least, most), load| (least.min(*load), most.max(*load)));
    if loads.is_empty() {
        return "Nothing was measured.".to_owned();
    }
    let verdict = if most > 2.5 {
        "**This machine was doing other work at the same time: throughput, latencies and the \
         device's counters are disturbed, only processor time and the process's own bytes travel.**"
    } else {
        "The run itself accounts for a load of 1 to 2."
    };
    format!("Load average between {least:.1} and {most:.1}. {verdict}")
}

fn section(text: &mut String, kept: &Kept, sizes: &Sizes) {
    let mib = |bytes: usize| bytes as f64 / f64::from(1 << 20);
    let deep = sizes.clone().deep();
    let _ = writeln!(
        text,
        "\n## Keys of 16 B, values of {} B\n\n{} keys, {:.0} MiB; block cache {:.1} MiB, \
         memtables of {:.1} MiB (up to three), first level {:.0} MiB, fan-out 10; in the deep tree \
         memtables of {:.1} MiB, first level {:.0} MiB\n",
        sizes.value_bytes,
        sizes.keys,
        mib(sizes.live_bytes() as usize),
        mib(sizes.cache_bytes),
        mib(sizes.memtable_bytes),
        mib(sizes.level1_bytes() as usize),
        mib(deep.memtable_bytes),
        mib(deep.level1_bytes() as usize),
    );
    let _ = writeln!(
        text,
        "| workload | engine | operations/s | CPU s per million | p50 us | p99 us | p99.9 us \
         | written | read | space | memory MiB | load |\n|---|---|---|---|---|---|---|---|---|---|---|---|"
    );
    for outcome in rows(kept, sizes.value_bytes) {
        let _ = writeln!(text, "{}", row(outcome));
    }
    for row in kept.unmeasured.iter().filter(|row| row.value_bytes == sizes.value_bytes) {
        let Unmeasured { subject, workload, why, .. } = row;
        let _ = writeln!(text, "| {workload} | {subject} | **{why}** | | | | | | | | | |");
    }
    let _ = writeln!(text, "\nWhat the engines say:\n");
    for outcome in rows(kept, sizes.value_bytes).filter(|outcome| !outcome.notes.is_empty()) {
        let missing = match outcome.missing {
            0 => String::new(),
            missing => format!("; **{missing} reads found nothing**"),
        };
        let notes = outcome.notes.join("; ");
        let _ = writeln!(text, "- {}, {}: {notes}{missing}", outcome.workload, outcome.subject);
    }
}

fn rows(kept: &Kept, value_bytes: usize) -> impl Iterator<Item = &Outcome> {
    kept.outcomes.iter().filter(move |outcome| outcome.value_bytes == value_bytes)
}

fn row(outcome: &Outcome) -> String {
    let Latency { p50, p99, p999, .. } = outcome.main_latency();
    let pair = |own: Option<f64>, device: Option<f64>| match (own, device) {
        (Some(own), Some(device)) => format!("{own:.2} ({device:.2})"),
        _ => String::new(),
    };
    let cut = match outcome.cut_at() {
        Some(share) => format!(" **(time was up at {:.0} %)**", share * 100.0),
        None => String::new(),
    };
    format!(
        "| {}{cut} | {} | {:.0} | {:.2} ({:.2}) | {p50:.1} | {p99:.1} | {p999:.1} | {} | {} | {:.2} | {:.0} | {:.1} |",
        outcome.workload,
        outcome.subject,
        outcome.throughput(),
        outcome.cpu_per_million(),
        outcome.run_cpu_per_million(),
        pair(outcome.write_amplification(), outcome.device_write_amplification()),
        pair(outcome.read_amplification(), outcome.device_read_amplification()),
        outcome.space_bytes as f64 / outcome.live_bytes as f64,
        outcome.peak_memory as f64 / f64::from(1 << 20),
        outcome.load[1],
    )
}

/// The plots of one value size, with their names.
fn plots(kept: &Kept, value_bytes: usize) -> [(&'static str, Bars); 4] {
    let bars = |title: &str, value: &dyn Fn(&Outcome) -> Option<f64>| {
        let mut groups: Vec<Group> = Vec::new();
        for outcome in rows(kept, value_bytes) {
            let Some(value) = value(outcome).filter(|value| *value > 0.0) else { continue };
            if groups.last().is_none_or(|group| group.label != outcome.workload) {
                groups.push(Group { label: outcome.workload.clone(), bars: Vec::new() });
            }
            if let Some(group) = groups.last_mut() {
                group.bars.push((outcome.subject.clone(), value));
            }
        }
        Bars { title: format!("{title}, values of {value_bytes} B (logarithmic)"), groups }
    };
    [
        ("throughput", bars("operations per second", &|row| Some(row.throughput()))),
        ("cpu", bars("CPU seconds per million operations", &|row| Some(row.cpu_per_million()))),
        ("p999", bars("p99.9, microseconds", &|row| Some(row.main_latency().p999))),
        ("written", bars("bytes written per logical byte", &Outcome::write_amplification)),
    ]
}
