//! How much memory a node may count on: the machine's, or less where its control group says so.
//!
//! Owns the default of `memory.cache`, which no fixed number suits: a laptop and a database server
//! differ by a factor of a hundred.

use std::fs;
use std::path::Path;

/// The block cache gets one part of so many of the memory.
const CACHE_SHARE: u64 = 8;
/// Smallest and largest default of the block cache, bytes.
const CACHE_BOUNDS: (u64, u64) = (64 << 20, 64 << 30);
/// What is assumed where the kernel does not say, bytes.
const UNKNOWN: u64 = 2 << 30;

/// The block cache of a node whose settings name none, bytes: an eighth of the memory there is.
/// It is taken as it fills, not at the start.
pub(crate) fn default_cache() -> u64 {
    share_of(usable(Path::new("/proc"), Path::new("/sys/fs/cgroup")))
}

fn share_of(memory: u64) -> u64 {
    (memory / CACHE_SHARE).clamp(CACHE_BOUNDS.0, CACHE_BOUNDS.1)
}

/// The smallest of the machine's memory and the limits of this process's control group and the
/// groups around it (cgroup v2).
fn usable(proc: &Path, groups: &Path) -> u64 {
    let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    let machine = total(&read(&proc.join("meminfo"))).unwrap_or(UNKNOWN);
    let own = read(&proc.join("self/cgroup"));
    let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let limits = Path::new(own).ancestors().filter_map(|group| {
        read(&groups.join(group).join("memory.max")).trim().parse::<u64>().ok()
    });
    limits.fold(machine, u64::min)
}

/// `MemTotal` of `/proc/meminfo`, bytes.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn the_tightest_limit_counts() {
        let dir = tempfile::tempdir().unwrap();
        let (proc, groups) = (dir.path().join("proc"), dir.path().join("groups"));
        fs::create_dir_all(proc.join("self")).unwrap();
        fs::create_dir_all(groups.join("a/b")).unwrap();
        assert_eq!(usable(&proc, &groups), UNKNOWN);
        fs::write(proc.join("meminfo"), "MemTotal:       16777216 kB\nMemFree: 1 kB\n").unwrap();
        fs::write(proc.join("self/cgroup"), "1:cpu:/x\n0::/a/b\n").unwrap();
        fs::write(groups.join("a/b/memory.max"), "max\n").unwrap();
        assert_eq!(usable(&proc, &groups), 16 * GIB);
        fs::write(groups.join("a/memory.max"), format!("{}\n", 4 * GIB)).unwrap();
        assert_eq!(usable(&proc, &groups), 4 * GIB);
    }

    #[test]
    fn the_cache_gets_its_share_within_bounds() {
        assert_eq!(share_of(16 * GIB), 2 * GIB);
        assert_eq!(share_of(0), CACHE_BOUNDS.0);
        assert_eq!(share_of(u64::MAX), CACHE_BOUNDS.1);
        let here = default_cache();
        assert!((CACHE_BOUNDS.0..=CACHE_BOUNDS.1).contains(&here));
    }
}
