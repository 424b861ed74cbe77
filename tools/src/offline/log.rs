//! Log segments: dump.

use coronet_lsm::EntryKind;
use coronet_lsm::inspect::{LogItem, check_log};
use serde::Serialize;

use super::sst::kind;
use super::{DumpCommand, each_file};
use crate::cli::exit::{CliError, Exit};
use crate::cli::render::Encoded;

#[derive(Serialize)]
#[serde(untagged)]
enum Item {
    Batch {
        batch: u64,
        first: u64,
        records: u32,
        synced_to: u64,
    },
    Record {
        keyspace: u32,
        seq: u64,
        kind: &'static str,
        key: Encoded,
        value: Option<Encoded>,
    },
    Segment {
        file: String,
        free: bool,
        generation: u64,
        batches: u64,
        records: u64,
        last: u64,
        end: u64,
        torn_tail: bool,
    },
}

/// Runs `coronet log`.
pub fn run(DumpCommand::Dump(args): &DumpCommand) -> Result<Exit, CliError> {
    each_file(args, |file, bytes, out| {
        let report = check_log(bytes, |item| match item {
            LogItem::Batch { offset, first, count, synced_to } => {
                let item = Item::Batch { batch: offset, first: first.0, records: count, synced_to };
                out.item(&item, || {
                    format!(
                        "batch at {offset}: {count} records from {}, synced to {synced_to}",
                        first.0
                    )
                });
            }
            LogItem::Record { keyspace, seq, kind: put, key, value } => {
                let item = Item::Record {
                    keyspace: keyspace.0,
                    seq: seq.0,
                    kind: kind(put),
                    key: Encoded::of(key),
                    value: (put != EntryKind::Delete).then(|| Encoded::of(value)),
                };
                out.item(&item, || {
                    format!(
                        "{}\t{}\t{}\t{}",
                        key.escape_ascii(),
                        seq.0,
                        kind(put),
                        value.escape_ascii()
                    )
                });
            }
        });
        let item = Item::Segment {
            file: file.display().to_string(),
            free: report.uid.is_none(),
            generation: report.generation,
            batches: report.batches,
            records: report.records,
            last: report.last.0,
            end: report.end,
            torn_tail: report.torn_tail,
        };
        out.item(&item, || match report.uid {
            None => format!("{}: free", file.display()),
            Some(_) => format!(
                "{}: generation {}, {} records in {} batches, last {}, ends at {}{}",
                file.display(),
                report.generation,
                report.records,
                report.batches,
                report.last.0,
                report.end,
                if report.torn_tail { ", with a torn tail" } else { "" }
            ),
        });
        report.findings
    })
}
