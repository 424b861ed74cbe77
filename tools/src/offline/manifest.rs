//! Manifests: dump.

use std::path::Path;

use coronet_lsm::inspect::{ManifestItem, check_manifest};
use serde::Serialize;

use super::{DumpCommand, each_file};
use crate::cli::exit::{CliError, Exit};
use crate::cli::render::Encoded;

#[derive(Serialize)]
#[serde(untagged)]
enum Item {
    Record {
        record: u64,
        last_seq: u64,
        flushed: u64,
        log_floor: u64,
    },
    Added {
        added: u64,
        level: u8,
        run: u64,
        uid: String,
        first: Encoded,
        last: Encoded,
    },
    Removed {
        removed: u64,
    },
    Lost {
        lost: String,
        offset: Option<u64>,
        first: Encoded,
        last: Encoded,
    },
    LossAccepted {
        loss_accepted: bool,
    },
    Policy {
        policy: String,
    },
    Manifest {
        file: String,
        records: u64,
        tables: u64,
        lost_ranges: u64,
        end: u64,
        torn_tail: bool,
    },
}

impl Item {
    fn of(item: &ManifestItem<'_>) -> Self {
        match *item {
            ManifestItem::Record { offset, last_seq, flushed, log_floor } => {
                Item::Record { record: offset, last_seq: last_seq.0, flushed: flushed.0, log_floor }
            }
            ManifestItem::Added { level, run, id, uid, first, last } => Item::Added {
                added: id.0,
                level,
                run,
                uid: format!("{:016x}", uid.0),
                first: Encoded::of(first),
                last: Encoded::of(last),
            },
            ManifestItem::Removed { id } => Item::Removed { removed: id.0 },
            ManifestItem::Lost { file, offset, first, last } => Item::Lost {
                lost: file.to_owned(),
                offset,
                first: Encoded::of(first),
                last: Encoded::of(last),
            },
            ManifestItem::LossAccepted => Item::LossAccepted { loss_accepted: true },
            ManifestItem::Policy { text } => Item::Policy { policy: text.to_owned() },
        }
    }

    fn text(&self) -> String {
        match self {
            Item::Record { record, last_seq, flushed, log_floor } => format!(
                "record at {record}: last {last_seq}, flushed {flushed}, log from generation {log_floor}"
            ),
            Item::Added { added, level, run, uid, first, last } => format!(
                "  + table {added} ({uid}) on level {level}, run {run}: {} to {}",
                first.value, last.value
            ),
            Item::Removed { removed } => format!("  - table {removed}"),
            Item::Lost { lost, offset, first, last } => {
                let place = offset.map_or("all of it".into(), |at| format!("offset {at}"));
                format!("  ! {lost}, {place}: keys {} to {} lost", first.value, last.value)
            }
            Item::Policy { policy } => format!("  policy {policy}"),
            Item::LossAccepted { .. } => "  ! every earlier loss accepted".into(),
            Item::Manifest { file, records, tables, lost_ranges, end, torn_tail } => {
                let tail = if *torn_tail { ", with an unfinished record" } else { "" };
                format!(
                    "{file}: {records} records, {tables} tables, {lost_ranges} lost ranges, ends at {end}{tail}"
                )
            }
        }
    }
}

/// Runs `coronet manifest`.
pub fn run(DumpCommand::Dump(args): &DumpCommand) -> Result<Exit, CliError> {
    each_file(args, |file, bytes, out| {
        let report = check_manifest(bytes, number(file), |item| {
            let item = Item::of(&item);
            out.item(&item, || item.text());
        });
        let item = Item::Manifest {
            file: file.display().to_string(),
            records: report.records,
            tables: report.tables,
            lost_ranges: report.lost_ranges,
            end: report.end,
            torn_tail: report.torn_tail,
        };
        out.item(&item, || item.text());
        report.findings
    })
}

/// The number in a manifest's name, if the file still has such a name.
fn number(file: &Path) -> Option<u64> {
    file.file_name()?.to_str()?.strip_prefix("MANIFEST-")?.parse().ok()
}
