//! Processor time of a process, read from `/proc`.

use std::fs;

use super::driver::BenchError;

/// Microseconds of processor time (user and system, all threads) a process has used so far.
/// The kernel reports ticks, usually a hundredth of a second.
pub fn cpu_micros(pid: u32) -> Result<u64, BenchError> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path)
        .map_err(|e| BenchError::io(format!("reading {path} (is the process running?)"), e))?;
    ticks(&text)
        .map(|ticks| ticks * 1_000_000 / rustix::param::clock_ticks_per_second().max(1))
        .ok_or_else(|| BenchError::Refused(format!("{path} has an unknown form")))
}

/// User plus system ticks. The command's name may contain anything, so counting starts after the
/// last closing parenthesis.
fn ticks(stat: &str) -> Option<u64> {
    let after_name = &stat[stat.rfind(')')? + 1..];
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    user.checked_add(system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_parentheses_do_not_shift_the_fields() {
        let stat = "12 (a) b (c)) S 1 12 12 0 -1 4194560 5 6 7 8 70 30 0 0 20 0 1 0 9 10";
        assert_eq!(ticks(stat), Some(100));
        assert_eq!(ticks("12 (a) S 1"), None);
        assert_eq!(ticks("no name"), None);
    }

    #[test]
    fn own_time_is_readable() {
        assert!(cpu_micros(std::process::id()).is_ok());
        assert!(cpu_micros(u32::MAX).is_err());
    }
}
