//! The files of an engine folder together: which file is what, and whether the log is whole.

use std::path::Path;

use super::{Finding, LogReport};
use crate::TableId;
use crate::log::{ends_early, gap, segment_id};
use crate::version::manifest::manifest_number;
use crate::version::table_id;

/// What a file of an engine folder is, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EngineFile {
    /// A manifest, with its number.
    Manifest(u64),
    /// A log segment, with its number.
    Segment(u64),
    /// A table.
    Table(TableId),
    /// A damaged table that was set aside; no engine reads it.
    SetAside,
}

impl EngineFile {
    /// What the file of this name is; `None`: an engine does not write such files.
    pub fn of(path: &Path) -> Option<Self> {
        let set_aside = || {
            let table = path.file_name()?.to_str()?.strip_suffix(".damaged")?;
            table_id(Path::new(table)).map(|_| EngineFile::SetAside)
        };
        (manifest_number(path).map(EngineFile::Manifest))
            .or_else(|| segment_id(path).map(EngineFile::Segment))
            .or_else(|| table_id(path).map(EngineFile::Table))
            .or_else(set_aside)
    }
}

/// Whether log segments follow each other from generation `floor` on as a restart wants it. Takes
/// the reports of those that it would read, in ascending order of their generations; gives
/// findings with the index of the segment each is about.
pub fn check_log_order(segments: &[LogReport], floor: u64) -> Vec<(usize, Finding)> {
    let mut findings = Vec::new();
    let mut wanted = floor;
    for (i, segment) in segments.iter().enumerate() {
        if let Some(what) = gap(wanted, segment.generation) {
            findings.push((i, Finding::new(0, what)));
        } else if let Some(before) = i.checked_sub(1).map(|i| &segments[i])
            && let Some(what) = ends_early(before.last, segment.before)
        {
            findings.push((i - 1, Finding::new(before.end, what)));
        }
        wanted = segment.generation.saturating_add(1);
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Seq;

    #[test]
    fn names_say_what_a_file_is() {
        let of = |name: &str| EngineFile::of(Path::new("/d").join(name).as_path());
        assert_eq!(of("MANIFEST-000007"), Some(EngineFile::Manifest(7)));
        assert_eq!(of("000003.log"), Some(EngineFile::Segment(3)));
        assert_eq!(of("000004.sst"), Some(EngineFile::Table(TableId(4))));
        assert_eq!(of("000004.sst.damaged"), Some(EngineFile::SetAside));
        for other in ["x.sst", "000004.sst.old", "x.damaged", "LOCK", "000004"] {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[test]
    fn a_missing_segment_and_one_that_ends_early_are_found() {
        let segment = |generation: u64, before: u64, last: u64| LogReport {
            uid: Some(1),
            generation,
            before: Seq(before),
            last: Seq(last),
            end: 8192,
            ..LogReport::default()
        };
        let check = |segments: &[LogReport]| {
            let findings = check_log_order(segments, 5);
            findings.into_iter().map(|(i, finding)| (i, finding.offset)).collect::<Vec<_>>()
        };
        assert_eq!(check(&[]), []);
        assert_eq!(check(&[segment(5, 10, 20), segment(6, 20, 30)]), []);
        assert_eq!(check(&[segment(6, 10, 20)]), [(0, 0)], "the first is missing");
        assert_eq!(check(&[segment(5, 10, 20), segment(7, 20, 30)]), [(1, 0)]);
        assert_eq!(check(&[segment(5, 10, 19), segment(6, 20, 30)]), [(0, 8192)]);
        assert_eq!(check(&[segment(5, 1, 2), segment(5, 1, 2)]), [(1, 0)], "one of them twice");
    }
}
