//! Every decoder of this crate that sees bytes from a disk, one function each.
//!
//! Each takes any bytes and must neither panic nor take memory beyond their size; where a format
//! is canonical, what decodes must encode to the same again. Decoders behind a checksum are given
//! the bytes as if the checksum were right: a fuzzer would never get past it.

use crate::env::PAGE;
use crate::inspect::{check_log, check_manifest, check_table};
use crate::table::raw;
use crate::version::edit::Edit;
use crate::write::{Records, WriteBatch};
use crate::{CompactionPolicy, EntryKind, Millis};

/// A decoder that takes any bytes.
pub type Entry = fn(&[u8]);

/// Every entry with its name.
pub const ENTRIES: &[(&str, Entry)] = &[
    ("table_file", table_file),
    ("table_footer", table_footer),
    ("table_block", raw::fuzz_block),
    ("table_index", raw::fuzz_index),
    ("table_filter", raw::fuzz_filter),
    ("log_segment", log_segment),
    ("log_records", log_records),
    ("manifest_file", manifest_file),
    ("manifest_edit", manifest_edit),
    ("policy_text", policy_text),
];

/// A whole table file.
pub fn table_file(bytes: &[u8]) {
    let report = check_table(bytes, |_, _| {});
    assert!(report.info.is_some() || !report.findings.is_empty());
}

/// The bytes as the footer of a table.
pub fn table_footer(bytes: &[u8]) {
    let mut file = vec![0; 4 * PAGE];
    let footer = &mut file[3 * PAGE..];
    let used = bytes.len().min(PAGE);
    footer[..used].copy_from_slice(&bytes[..used]);
    raw::seal_footer(&mut file);
    table_file(&file);
}

/// A whole log segment.
pub fn log_segment(bytes: &[u8]) {
    let mut records = 0;
    let report = check_log(bytes, |_| records += 1);
    assert_eq!(report.batches + report.records, records);
}

/// The bytes as the records of a log batch.
pub fn log_records(bytes: &[u8]) {
    let mut batch = WriteBatch::new();
    let mut whole = true;
    for record in Records::new(bytes) {
        match record {
            Ok(record) => {
                batch.in_keyspace(record.keyspace);
                match (record.kind, record.value.split_first_chunk()) {
                    (EntryKind::PutUntil, Some((expiry, value))) => {
                        let expires_at = Millis(u64::from_le_bytes(*expiry));
                        batch.put_until(record.key, value, expires_at);
                    }
                    (EntryKind::Delete, _) => batch.delete(record.key),
                    _ => batch.put(record.key, record.value),
                }
            }
            Err(offset) => {
                assert!(offset < bytes.len());
                whole = false;
            }
        }
    }
    // Lengths may have been written longer than needed, never shorter.
    assert!(!whole || batch.bytes() <= bytes.len());
}

/// A whole manifest.
pub fn manifest_file(bytes: &[u8]) {
    let report = check_manifest(bytes, None, |_| {});
    assert!(report.uid.is_some() || !report.findings.is_empty());
}

/// The bytes as an edit.
pub fn manifest_edit(bytes: &[u8]) {
    if let Ok(edit) = Edit::decode(bytes) {
        assert_eq!(Edit::decode(&edit.encode()), Ok(edit));
    }
}

/// The text of a compaction policy, as operators write it.
pub fn policy_text(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(policy) = text.parse::<CompactionPolicy>()
    {
        assert_eq!(policy.to_string().parse::<CompactionPolicy>().as_ref(), Ok(&policy));
    }
}
