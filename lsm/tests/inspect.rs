//! The offline readers on good, truncated and flipped files.
#![allow(clippy::unwrap_used)] // a failed step fails the test

use coronet_lsm::inspect::{check_log, check_manifest, check_table};
use std::path::Path;

fn golden(name: &str) -> Vec<u8> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/2");
    std::fs::read(dir.join(name)).unwrap()
}

#[test]
fn good_files_have_no_findings() {
    let mut entries = 0;
    let table = check_table(&golden("000001.sst"), |_, _| entries += 1);
    let info = table.info.unwrap();
    assert!(table.findings.is_empty(), "{:?}", table.findings);
    assert_eq!((entries, table.version), (info.entries, 2));
    assert_eq!(table.blocks.iter().map(|block| block.entries).sum::<u64>(), entries);
    let mut records = 0;
    for name in ["000001.log", "000002.log"] {
        let log = check_log(&golden(name), |_| records += 1);
        assert!(log.findings.is_empty() && log.records > 0 && !log.torn_tail, "{log:?}");
    }
    assert!(records > 0);
    let manifest = check_manifest(&golden("MANIFEST-000001"), Some(1), |_| {});
    assert!(manifest.findings.is_empty(), "{manifest:?}");
    assert_eq!((manifest.live.len(), manifest.records), (1, 2));
    let misnamed = check_manifest(&golden("MANIFEST-000001"), Some(2), |_| {});
    assert_eq!(misnamed.findings.len(), 1);
}

#[test]
fn a_cut_off_table_or_manifest_is_named() {
    let table = golden("000001.sst");
    for len in (0..table.len()).step_by(512) {
        assert!(!check_table(&table[..len], |_, _| {}).findings.is_empty(), "{len}");
    }
    let manifest = golden("MANIFEST-000001");
    for len in (4..8192).step_by(100) {
        assert!(!check_manifest(&manifest[..len], None, |_| {}).findings.is_empty(), "{len}");
    }
    assert!(!check_log(&golden("000001.log")[..100], |_| {}).findings.is_empty());
}

#[test]
fn every_flipped_byte_that_matters_is_named() {
    let table = golden("000001.sst");
    let info = check_table(&table, |_, _| {}).info.unwrap();
    let good = |bytes: &[u8]| {
        let mut all = Vec::new();
        let report = check_table(bytes, |_, e| all.push((e.key.to_vec(), e.value.to_vec())));
        (report.findings.is_empty(), all)
    };
    let (_, right) = good(&table);
    let mut noticed = 0;
    for at in 0..table.len() {
        let mut flipped = table.clone();
        flipped[at] ^= 0x20;
        let (silent, found) = good(&flipped);
        // What nothing is said about is padding: it changes no entry.
        assert!(!silent || found == right, "flip at {at}");
        assert!(found.iter().all(|entry| right.contains(entry)), "flip at {at} made up an entry");
        noticed += u64::from(!silent);
    }
    assert!(noticed > info.file_bytes / 4, "{noticed} of {}", info.file_bytes);
}

#[test]
fn a_damaged_log_batch_before_whole_ones_is_told_from_a_torn_tail() {
    let log = golden("000001.log");
    let whole = check_log(&log, |_| {});
    assert!(whole.batches >= 2, "{whole:?}");
    let mut damaged = log.clone();
    damaged[4096 + 70] ^= 1;
    let report = check_log(&damaged, |_| {});
    assert_eq!((report.batches, report.findings.len()), (0, 1), "{report:?}");
    assert_eq!(report.findings[0].offset, 4096);
    let mut torn = log;
    torn[whole.end as usize - 4096 + 70] ^= 1;
    let report = check_log(&torn, |_| {});
    assert!(report.findings.is_empty() && report.torn_tail, "{report:?}");
    assert_eq!(report.batches, whole.batches - 1);
}
