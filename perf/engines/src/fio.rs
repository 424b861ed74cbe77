//! What the device gives to somebody who does nothing but read: fio over the engine's own files.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::Failure;
use crate::record::{Latency, Outcome};
use crate::spec::Job;
use crate::usage::{Usage, load};

/// Bytes of one read: a data block of Coronet's.
const BLOCK: u64 = 8 << 10;

/// Whether fio can be run.
pub fn is_installed() -> bool {
    Command::new("fio").arg("--version").output().is_ok_and(|output| output.status.success())
}

/// Random reads of the tables in `job`'s folder, as many in flight as `job` has, as a row.
///
/// # Errors
/// When there are no tables, or fio fails.
pub fn run(job: &Job) -> Result<Outcome, Failure> {
    let tables = tables(&job.dir)?;
    let names: Vec<_> = tables.iter().map(|path| path.to_string_lossy()).collect();
    let load_before = load();
    let output = Command::new("taskset")
        .args(["-c", &job.cpu.to_string(), "fio", "--name=cold", "--output-format=json"])
        .args(["--readonly", "--rw=randread", "--direct=1", "--ioengine=io_uring"])
        .args(["--time_based", "--randrepeat=0", "--norandommap"])
        .arg(format!("--iodepth={}", job.clients()))
        .arg(format!("--bs={BLOCK}"))
        .arg(format!("--runtime={}ms", job.seconds().as_millis()))
        .arg(format!("--filename={}", names.join(":")))
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let json: Value = serde_json::from_str(&text[text.find('{').unwrap_or(0)..])?;
    let fio = &json["jobs"][0];
    let number = |value: &Value| value.as_f64().unwrap_or(0.0);
    let (seconds, reads) =
        (number(&fio["read"]["runtime"]) / 1e3, number(&fio["read"]["total_ios"]));
    let bytes = reads as u64 * BLOCK;
    let quantile = |name: &str| number(&fio["read"]["clat_ns"]["percentile"][name]) / 1e3;
    Ok(Outcome {
        subject: "fio".to_owned(),
        workload: job.workload.name().to_owned(),
        planned: None,
        value_bytes: job.sizes.value_bytes,
        operations: reads as u64,
        logical_written: 0,
        logical_read: bytes,
        run: Usage {
            seconds,
            cpu_seconds: (number(&fio["usr_cpu"]) + number(&fio["sys_cpu"])) / 100.0 * seconds,
            device_read: bytes,
            process_read: bytes,
            ..Usage::default()
        },
        settle: Usage::default(),
        reads: Latency {
            count: reads as u64,
            p50: quantile("50.000000"),
            p99: quantile("99.000000"),
            p999: quantile("99.900000"),
            max: number(&fio["read"]["clat_ns"]["max"]) / 1e3,
        },
        writes: Latency::default(),
        scans: Latency::default(),
        missing: 0,
        space_bytes: 0,
        live_bytes: job.sizes.live_bytes(),
        peak_memory: 0,
        load: [load_before, load()],
        notes: vec![format!("{} files, {BLOCK} byte reads", tables.len())],
    })
}

fn tables(dir: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut tables = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "sst") {
            tables.push(path);
        }
    }
    tables.sort();
    if tables.is_empty() { Err("no tables to read".into()) } else { Ok(tables) }
}
