//! Manifests: dump.

use std::path::Path;

use coronet_lsm::TableUid;
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
        log_floor: u64,
    },
    Defined {
        keyspace: u32,
    },
    Dropped {
        dropped_keyspace: u32,
    },
    Flushed {
        flushed_keyspace: u32,
        through: u64,
    },
    Added {
        added: u64,
        keyspace: u32,
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
        loss_accepted_in: u32,
    },
    GivenUp {
        given_up: String,
        keyspace: u32,
        offset: u64,
    },
    Policy {
        of_keyspace: u32,
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
            ManifestItem::Record { offset, last_seq, log_floor } => {
                Item::Record { record: offset, last_seq: last_seq.0, log_floor }
            }
            ManifestItem::Defined { keyspace } => Item::Defined { keyspace: keyspace.0 },
            ManifestItem::Dropped { keyspace } => Item::Dropped { dropped_keyspace: keyspace.0 },
            ManifestItem::Flushed { keyspace, through } => {
                Item::Flushed { flushed_keyspace: keyspace.0, through: through.0 }
            }
            ManifestItem::Added { keyspace, level, run, id, uid, first, last } => Item::Added {
                added: id.0,
                keyspace: keyspace.0,
                level,
                run,
                uid: table_uid(uid),
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
            ManifestItem::LossAccepted { keyspace } => {
                Item::LossAccepted { loss_accepted_in: keyspace.0 }
            }
            ManifestItem::GivenUp { keyspace, uid, offset } => {
                Item::GivenUp { given_up: table_uid(uid), keyspace: keyspace.0, offset }
            }
            ManifestItem::Policy { keyspace, text } => {
                Item::Policy { of_keyspace: keyspace.0, policy: text.to_owned() }
            }
        }
    }

    fn text(&self) -> String {
        match self {
            Item::Record { record, last_seq, log_floor } => {
                format!("record at {record}: last {last_seq}, log from generation {log_floor}")
            }
            Item::Defined { keyspace } => format!("  + keyspace {keyspace}"),
            Item::Dropped { dropped_keyspace } => format!("  - keyspace {dropped_keyspace}"),
            Item::Flushed { flushed_keyspace, through } => {
                format!("  keyspace {flushed_keyspace} flushed through {through}")
            }
            Item::Added { added, keyspace, level, run, uid, first, last } => format!(
                "  + table {added} ({uid}) of keyspace {keyspace} on level {level}, run {run}: {} to {}",
                first.shown(),
                last.shown()
            ),
            Item::Removed { removed } => format!("  - table {removed}"),
            Item::Lost { lost, offset, first, last } => {
                let place = offset.map_or("all of it".into(), |at| format!("offset {at}"));
                format!("  ! {lost}, {place}: keys {} to {} lost", first.shown(), last.shown())
            }
            Item::Policy { of_keyspace, policy } => {
                format!("  policy of keyspace {of_keyspace}: {policy}")
            }
            Item::LossAccepted { loss_accepted_in } => {
                format!("  ! every earlier loss of keyspace {loss_accepted_in} accepted")
            }
            Item::GivenUp { given_up, keyspace, offset } => format!(
                "  ! block at {offset} of table ({given_up}) of keyspace {keyspace} given up: its \
                 loss was accepted"
            ),
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
            tables: report.live.len() as u64,
            lost_ranges: report.lost_ranges,
            end: report.end,
            torn_tail: report.torn_tail,
        };
        out.item(&item, || item.text());
        report.findings
    })
}

/// The identity of a table's bytes, the same in all items.
fn table_uid(uid: TableUid) -> String {
    format!("{:016x}", uid.0)
}

/// The number in a manifest's name, if the file still has such a name.
fn number(file: &Path) -> Option<u64> {
    file.file_name()?.to_str()?.strip_prefix("MANIFEST-")?.parse().ok()
}
