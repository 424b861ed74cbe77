//! Time, processor time and device bytes between two moments; space of a folder; load.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Instant;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// Unit of the sector counts in `/proc/diskstats`, whatever the device's own sectors are.
const SECTOR: u64 = 512;

/// What happened between two moments.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Time that passed.
    pub seconds: f64,
    /// Processor time of this process: user and system, all threads, living and ended.
    pub cpu_seconds: f64,
    /// Bytes read from the device that holds the folder, by anybody on this machine.
    pub device_read: u64,
    /// Bytes written to that device, by anybody.
    pub device_written: u64,
    /// Bytes this process had the block layer read.
    pub process_read: u64,
    /// Bytes this process had the block layer write (buffered ones when they become dirty).
    pub process_written: u64,
}

/// The counters at one moment.
pub struct Moment {
    at: Instant,
    cpu: f64,
    device: [u64; 2],
    process: [u64; 2],
}

impl Moment {
    /// Now, for the device that holds `dir`.
    ///
    /// # Errors
    /// When the kernel's counters cannot be read.
    pub fn now(dir: &Path) -> io::Result<Self> {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        Ok(Moment {
            at: Instant::now(),
            cpu: cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9,
            device: device_bytes(fs::metadata(dir)?.dev())?,
            process: process_bytes()?,
        })
    }

    /// What happened since.
    ///
    /// # Errors
    /// As [`Moment::now`].
    pub fn since(&self, dir: &Path) -> io::Result<Usage> {
        let now = Moment::now(dir)?;
        Ok(Usage {
            seconds: (now.at - self.at).as_secs_f64(),
            cpu_seconds: now.cpu - self.cpu,
            device_read: now.device[0] - self.device[0],
            device_written: now.device[1] - self.device[1],
            process_read: now.process[0] - self.process[0],
            process_written: now.process[1] - self.process[1],
        })
    }
}

/// Bytes read from and written to a block device since the machine's start.
fn device_bytes(device: u64) -> io::Result<[u64; 2]> {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let table = fs::read_to_string("/proc/diskstats")?;
    let row = table.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    let row = row
        .into_iter()
        .find(|row| row.len() > 9 && row[0] == major.to_string() && row[1] == minor.to_string());
    // A file system without a device of its own (tmpfs, overlay) has no counters.
    let sectors = |at: usize| row.as_ref().and_then(|row| row[at].parse::<u64>().ok());
    Ok([sectors(5), sectors(9)].map(|count| count.unwrap_or(0) * SECTOR))
}

/// Bytes that this process read from and wrote to devices.
fn process_bytes() -> io::Result<[u64; 2]> {
    let text = fs::read_to_string("/proc/self/io")?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
    };
    Ok([field("read_bytes:"), field("write_bytes:")])
}

/// Bytes that a folder takes on disk.
///
/// # Errors
/// When the folder cannot be listed.
pub fn space(dir: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        match entry.metadata() {
            Ok(meta) if meta.is_dir() => bytes += space(&entry.path())?,
            Ok(meta) => bytes += meta.blocks() * SECTOR,
            // Removed meanwhile.
            Err(_) => {}
        }
    }
    Ok(bytes)
}

/// Lets go of what the page cache holds of a folder's files, so that all engines start cold.
///
/// # Errors
/// When the folder cannot be listed.
pub fn drop_page_cache(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            drop_page_cache(&path)?;
        } else if let Ok(file) = fs::File::open(&path) {
            file.sync_data()?;
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
        }
    }
    Ok(())
}

/// The machine's load average over the last minute.
pub fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0)
}

/// The most memory this process has had resident, bytes.
pub fn peak_memory() -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}
