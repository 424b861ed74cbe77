//! A log segment, batch by batch.

use super::Finding;
use crate::env::PAGE;
use crate::log::format::{BATCH_HEADER, BatchHeader, SegmentHeader};
use crate::write::Records;
use crate::{EntryKind, KeyspaceId, Seq};
use std::path::Path;

/// What a visitor of a log segment is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogItem<'a> {
    /// A whole batch.
    Batch {
        /// File offset.
        offset: u64,
        /// Sequence number of its first record.
        first: Seq,
        /// Number of records.
        count: u32,
        /// Bytes of this segment that were on the device when it was written.
        synced_to: u64,
    },
    /// A record of the batch before.
    Record {
        /// Where it belongs.
        keyspace: KeyspaceId,
        /// Its sequence number.
        seq: Seq,
        /// Put or delete.
        kind: EntryKind,
        /// The key.
        key: &'a [u8],
        /// The value; empty for a delete.
        value: &'a [u8],
    },
}

/// What a log segment holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogReport {
    /// Identity of this use of the file; `None`: the segment is free.
    pub uid: Option<u64>,
    /// Position in the log.
    pub generation: u64,
    /// Last sequence number before the segment.
    pub before: Seq,
    /// Whole batches.
    pub batches: u64,
    /// Records in them.
    pub records: u64,
    /// Newest record.
    pub last: Seq,
    /// Where the whole batches end.
    pub end: u64,
    /// The page behind the end began to be a batch that nobody was promised: a torn tail.
    pub torn_tail: bool,
    /// Everything wrong.
    pub findings: Vec<Finding>,
}

/// Reads a whole log segment and gives what it holds to `visit`. What a former use of the file
/// left behind is no part of it.
pub fn check_log(bytes: &[u8], mut visit: impl FnMut(LogItem<'_>)) -> LogReport {
    let mut report = LogReport::default();
    let header = match SegmentHeader::decode(bytes.get(..PAGE).unwrap_or(bytes), Path::new("")) {
        Ok(Some(header)) => header,
        Ok(None) => {
            if bytes.len() < PAGE {
                report.findings.push(Finding::new(0, "cut off: no room for a header"));
            } else if bytes[..PAGE].iter().any(|byte| *byte != 0) {
                report.findings.push(Finding::new(0, "the header page is damaged or torn"));
            }
            return report;
        }
        Err(error) => {
            report.findings.push(Finding::new(8, error.to_string()));
            return report;
        }
    };
    (report.uid, report.generation) = (Some(header.uid), header.generation);
    (report.before, report.last) = (header.before, header.before);
    let (mut at, mut chain) = (PAGE, header.chain_seed());
    while let Some((batch, whole)) = batch_at(bytes, at, &header) {
        let follows = if report.batches == 0 {
            batch.first > report.last
        } else {
            batch.first.0 == report.last.0 + 1
        };
        if batch.chain != chain || !follows {
            break;
        }
        read_batch(at as u64, &batch, whole, &mut report, &mut visit);
        chain = batch.crc;
        report.last = batch.last();
        at += batch.disk_len() as usize;
    }
    report.end = at as u64;
    let expected = BatchHeader::following(&header, chain, report.last);
    check_tail(bytes, at, &header, &expected, &mut report);
    report
}

/// The whole and valid batch at `at`, with all of its bytes.
fn batch_at<'a>(
    bytes: &'a [u8],
    at: usize,
    segment: &SegmentHeader,
) -> Option<(BatchHeader, &'a [u8])> {
    let rest = bytes.get(at..)?;
    let batch = BatchHeader::decode(rest, segment)?;
    let whole = rest.get(..BATCH_HEADER + batch.len as usize)?;
    batch.verify(whole).then_some((batch, whole))
}

fn read_batch(
    at: u64,
    batch: &BatchHeader,
    whole: &[u8],
    report: &mut LogReport,
    visit: &mut impl FnMut(LogItem<'_>),
) {
    let BatchHeader { first, count, synced_to, .. } = *batch;
    visit(LogItem::Batch { offset: at, first, count, synced_to });
    let mut found = 0;
    for record in Records::new(&whole[BATCH_HEADER..]) {
        match record {
            Ok(record) => visit(LogItem::Record {
                keyspace: record.keyspace,
                seq: Seq(first.0 + found),
                kind: record.kind,
                key: record.key,
                value: record.value,
            }),
            Err(offset) => {
                let at = at + (BATCH_HEADER + offset) as u64;
                report.findings.push(Finding::new(at, "log record cannot be decoded"));
                break;
            }
        }
        found += 1;
    }
    if found != u64::from(count) {
        let what = format!("log batch holds {found} records, its header says {count}");
        report.findings.push(Finding::new(at, what));
    }
    report.batches += 1;
    report.records += found;
}

/// A later batch that was written when the end had been synced proves damage.
fn check_tail(
    bytes: &[u8],
    end: usize,
    segment: &SegmentHeader,
    expected: &BatchHeader,
    report: &mut LogReport,
) {
    report.torn_tail = bytes.get(end..).is_some_and(|rest| expected.resembles(rest));
    for at in (end..bytes.len()).step_by(PAGE) {
        let later = batch_at(bytes, at, segment);
        if later.is_some_and(|(batch, _)| batch.synced_to > end as u64) {
            let what = format!("log batch is damaged, a whole one follows at {at}");
            report.findings.push(Finding::new(end as u64, what));
            return;
        }
    }
    if !bytes.len().is_multiple_of(PAGE) {
        let what = "the file ends inside a page: cut off";
        report.findings.push(Finding::new(bytes.len() as u64, what));
    }
}
