//! An engine folder: every file by its kind, and all of them against the manifest.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use coronet_lsm::inspect::{
    EngineFile, Finding, LogReport, ManifestReport, check_log, check_log_order, check_manifest,
    check_table,
};
use coronet_lsm::{TableId, TableUid};

use super::walk::{Walk, entries};

/// What the names of a folder's files say.
#[derive(Default)]
struct Files {
    /// The highest number first.
    manifests: Vec<(u64, PathBuf)>,
    segments: Vec<PathBuf>,
    tables: BTreeMap<TableId, PathBuf>,
}

/// A log segment that was read.
struct Segment {
    path: PathBuf,
    bytes: usize,
    report: LogReport,
    /// It was never used, or a crash ended its making.
    blank: bool,
}

/// Reads every file of an engine folder.
pub fn verify_engine(dir: &Path, walk: &mut Walk) {
    let files = match list(dir, walk) {
        Ok(files) => files,
        Err(error) => return walk.unreadable(dir, &error),
    };
    let manifest = verify_manifests(dir, &files, walk);
    verify_log(&files.segments, manifest.as_ref(), walk);
    verify_tables(dir, files.tables, manifest.as_ref(), walk);
}

fn list(dir: &Path, walk: &mut Walk) -> std::io::Result<Files> {
    let mut files = Files::default();
    for path in entries(dir)? {
        match EngineFile::of(&path).filter(|_| path.is_file()) {
            Some(EngineFile::Manifest(number)) => files.manifests.push((number, path)),
            Some(EngineFile::Segment(_)) => files.segments.push(path),
            Some(EngineFile::Table(id)) => drop(files.tables.insert(id, path)),
            Some(EngineFile::SetAside) => {
                walk.unused(&path, "a damaged table that was set aside, no engine reads it");
            }
            None => walk.unknown(&path),
        }
    }
    files.manifests.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
    Ok(files)
}

/// Reads the manifests; gives the one that an engine would take.
fn verify_manifests(dir: &Path, files: &Files, walk: &mut Walk) -> Option<ManifestReport> {
    let mut reports = Vec::new();
    for (number, path) in &files.manifests {
        match std::fs::read(path) {
            Ok(bytes) => {
                let report = check_manifest(&bytes, Some(*number), |_| {});
                reports.push((path, bytes.len(), report));
            }
            Err(error) => walk.unreadable(path, &error),
        }
    }
    let valid = reports.iter().position(|(.., report)| !report.unfinished);
    let fresh = files.tables.is_empty() && files.segments.is_empty();
    for (i, (path, bytes, report)) in reports.iter_mut().enumerate() {
        let began = report.unfinished && (fresh || valid.is_some());
        if began || valid.is_some_and(|valid| i > valid) {
            walk.unused(path, "a manifest left over from an opening that did not end");
            continue;
        }
        if report.lost_ranges > 0 {
            let ranges = report.lost_ranges;
            let what = format!(
                "{ranges} key ranges are in quarantine (`coronet manifest dump` names them)"
            );
            report.findings.push(Finding::new(report.end, what));
        }
        let what = format!("manifest of {} tables", report.live.len());
        walk.read(path, *bytes, &what, &report.findings);
    }
    if reports.is_empty() {
        walk.missing(dir, "has no manifest: its engine's files are lost, or were never made");
    }
    let (.., report) = reports.into_iter().nth(valid?)?;
    Some(report)
}

/// Reads the log segments, those that a restart needs in their order.
fn verify_log(paths: &[PathBuf], manifest: Option<&ManifestReport>, walk: &mut Walk) {
    let mut needed = Vec::new();
    for path in paths {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) => {
                walk.unreadable(path, &error);
                continue;
            }
        };
        let report = check_log(&bytes, |_| {});
        let blank = bytes.iter().all(|byte| *byte == 0);
        let segment = Segment { path: path.clone(), bytes: bytes.len(), report, blank };
        let floor = manifest.map_or(0, |manifest| manifest.log_floor);
        if segment.report.uid.is_some() && segment.report.generation >= floor {
            needed.push(segment);
        } else if segment.blank || segment.report.uid.is_some() {
            // What a former use left behind is never read.
            walk.read(path, segment.bytes, "log segment, free", &[]);
        } else {
            walk.read(path, segment.bytes, "", &segment.report.findings);
        }
    }
    needed.sort_by_key(|segment| segment.report.generation);
    if let Some(manifest) = manifest {
        add_order(&mut needed, manifest.log_floor);
    }
    for Segment { path, bytes, report, .. } in needed {
        let what =
            format!("log segment of generation {}, {} records", report.generation, report.records);
        walk.read(&path, bytes, &what, &report.findings);
    }
}

/// Adds what is wrong with the order of the segments to what is wrong in them.
fn add_order(needed: &mut [Segment], floor: u64) {
    let reports: Vec<LogReport> = needed.iter().map(|segment| segment.report.clone()).collect();
    for (i, finding) in check_log_order(&reports, floor) {
        let findings = &mut needed[i].report.findings;
        // Where a segment ends early its damage was found there already.
        if findings.iter().all(|known| known.offset != finding.offset) {
            findings.push(finding);
        }
    }
}

/// Reads the tables that the manifest names; without one, all.
fn verify_tables(
    dir: &Path,
    tables: BTreeMap<TableId, PathBuf>,
    manifest: Option<&ManifestReport>,
    walk: &mut Walk,
) {
    let live: Option<BTreeMap<TableId, TableUid>> =
        manifest.map(|manifest| manifest.live.iter().copied().collect());
    let gone = live.iter().flatten().filter(|(id, _)| !tables.contains_key(*id));
    for (id, _) in gone {
        let path = dir.join(format!("{:06}.sst", id.0));
        walk.missing(&path, "is missing: the manifest names it");
    }
    for (id, path) in &tables {
        let named = live.as_ref().map(|live| live.get(id).copied());
        match named {
            Some(None) => walk.unused(path, "a table that the manifest does not name"),
            Some(Some(uid)) => verify_table(path, Some(uid), walk),
            None => verify_table(path, None, walk),
        }
    }
}

fn verify_table(path: &Path, uid: Option<TableUid>, walk: &mut Walk) {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) => return walk.unreadable(path, &error),
    };
    let mut report = check_table(&bytes, |_, _| {});
    if let (Some(wanted), Some(info)) = (uid, &report.info)
        && info.uid != wanted
    {
        let (found, wanted) = (info.uid.0, wanted.0);
        let what = format!("is table {found:016x}, the manifest names table {wanted:016x} here");
        report.findings.push(Finding::new(0, what));
    }
    let entries: u64 = report.blocks.iter().map(|block| block.entries).sum();
    let what = format!("table of {entries} entries in {} blocks", report.blocks.len());
    walk.read(path, bytes.len(), &what, &report.findings);
}
