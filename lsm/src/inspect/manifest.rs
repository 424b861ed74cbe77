//! A manifest, record by record.

use super::Finding;
use crate::env::PAGE;
use crate::version::edit::{Edit, State};
use crate::version::lost::GivenUp;
use crate::version::manifest::{RECORD_HEADER, decode_header, record_at};
use crate::{KeyspaceId, Seq, TableId, TableUid};
use std::path::Path;

/// What a visitor of a manifest is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManifestItem<'a> {
    /// A record begins.
    Record {
        /// File offset.
        offset: u64,
        /// Newest sequence number when it was written.
        last_seq: Seq,
        /// First log generation a restart needs.
        log_floor: u64,
    },
    /// A keyspace comes, or gets other options.
    Defined {
        /// Its number.
        keyspace: KeyspaceId,
    },
    /// A keyspace goes, with all of its tables.
    Dropped {
        /// Its number.
        keyspace: KeyspaceId,
    },
    /// A flush.
    Flushed {
        /// Whose.
        keyspace: KeyspaceId,
        /// Everything of the keyspace up to here is in tables.
        through: Seq,
    },
    /// A table comes.
    Added {
        /// Whose it is.
        keyspace: KeyspaceId,
        /// Its level.
        level: u8,
        /// Its run; higher is newer, within the level.
        run: u64,
        /// Its number.
        id: TableId,
        /// Identity of its bytes.
        uid: TableUid,
        /// First key that belongs to the engine.
        first: &'a [u8],
        /// Last key that belongs to the engine.
        last: &'a [u8],
    },
    /// A table goes.
    Removed {
        /// Its number.
        id: TableId,
    },
    /// Keys are lost.
    Lost {
        /// The damaged file.
        file: &'a str,
        /// Offset of the damaged block; `None`: the whole table.
        offset: Option<u64>,
        /// First lost key.
        first: &'a [u8],
        /// Last lost key.
        last: &'a [u8],
    },
    /// Every earlier loss of a keyspace was accepted.
    LossAccepted {
        /// Whose.
        keyspace: KeyspaceId,
    },
    /// The loss of a block of a live table was accepted: readers pass over it.
    GivenUp {
        /// Whose it is.
        keyspace: KeyspaceId,
        /// The table.
        uid: TableUid,
        /// File offset of the block.
        offset: u64,
    },
    /// Another compaction policy was chosen.
    Policy {
        /// For which keyspace.
        keyspace: KeyspaceId,
        /// Its text.
        text: &'a str,
    },
}

/// What a manifest holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ManifestReport {
    /// Identity; `None` when the header cannot be read.
    pub uid: Option<u64>,
    /// Whole records.
    pub records: u64,
    /// Live tables after all of them: their numbers and the identities of their bytes.
    pub live: Vec<(TableId, TableUid)>,
    /// First log generation a restart needs, after all of them.
    pub log_floor: u64,
    /// Key ranges in quarantine after all of them.
    pub lost_ranges: u64,
    /// Its beginning is not whole: nothing was ever built on it, and when another manifest is whole
    /// an engine takes that one.
    pub unfinished: bool,
    /// Where the whole records end.
    pub end: u64,
    /// Something was begun behind the end: an edit that never happened.
    pub torn_tail: bool,
    /// Everything wrong.
    pub findings: Vec<Finding>,
}

/// Reads a whole manifest; `number` is the one in its name, when it is known.
pub fn check_manifest(
    bytes: &[u8],
    number: Option<u64>,
    mut visit: impl FnMut(ManifestItem<'_>),
) -> ManifestReport {
    let mut report = ManifestReport::default();
    let uid = match decode_header(bytes, Path::new(""), number) {
        Ok(Some(uid)) => uid,
        Ok(None) => {
            report.unfinished = true;
            report.findings.push(Finding::new(0, "the header page is cut off or damaged"));
            return report;
        }
        Err(error) => {
            report.findings.push(Finding::new(8, error.to_string()));
            return report;
        }
    };
    report.uid = Some(uid);
    let (mut state, mut at) = (State::default(), PAGE);
    while let Some(payload) = record_at(bytes, at, uid, Some(report.records)) {
        match Edit::decode(payload) {
            Ok(edit) => {
                tell(at as u64, &edit, &mut visit);
                if let Err(what) = state.apply(&edit) {
                    report.findings.push(Finding::new(at as u64, what));
                }
            }
            Err(offset) => {
                let at = (at + RECORD_HEADER + offset) as u64;
                report.findings.push(Finding::new(at, "manifest edit cannot be decoded"));
            }
        }
        at += (RECORD_HEADER + payload.len()).next_multiple_of(PAGE);
        report.records += 1;
    }
    report.end = at as u64;
    report.live = state.tables.values().map(|table| (table.id, table.uid)).collect();
    report.log_floor = state.progress.log_floor;
    report.lost_ranges = state.lost.len() as u64;
    let tail = bytes.get(at..).unwrap_or_default();
    report.torn_tail = tail.iter().any(|byte| *byte != 0);
    let later = (PAGE..tail.len()).step_by(PAGE).find(|n| record_at(tail, *n, uid, None).is_some());
    if let Some(later) = later {
        let what = format!("manifest record is damaged, a whole one follows at {}", at + later);
        report.findings.push(Finding::new(at as u64, what));
    } else if report.records == 0 {
        report.unfinished = true;
        report.findings.push(Finding::new(at as u64, "the first record is cut off or damaged"));
    }
    if !bytes.len().is_multiple_of(PAGE) {
        let what = "the file ends inside a page: cut off";
        report.findings.push(Finding::new(bytes.len() as u64, what));
    }
    report
}

fn tell(offset: u64, edit: &Edit, visit: &mut impl FnMut(ManifestItem<'_>)) {
    let progress = &edit.progress;
    visit(ManifestItem::Record {
        offset,
        last_seq: progress.last_seq,
        log_floor: progress.log_floor,
    });
    edit.removed.iter().for_each(|id| visit(ManifestItem::Removed { id: *id }));
    edit.dropped.iter().for_each(|id| visit(ManifestItem::Dropped { keyspace: *id }));
    edit.defined.iter().for_each(|(id, _)| visit(ManifestItem::Defined { keyspace: *id }));
    for table in &edit.added {
        visit(ManifestItem::Added {
            keyspace: table.keyspace,
            level: table.level,
            run: table.run,
            id: table.id,
            uid: table.uid,
            first: &table.first,
            last: &table.last,
        });
    }
    for (id, text) in &edit.policies {
        visit(ManifestItem::Policy { keyspace: *id, text });
    }
    edit.accepted.iter().for_each(|id| visit(ManifestItem::LossAccepted { keyspace: *id }));
    for (id, through) in &edit.flushed {
        visit(ManifestItem::Flushed { keyspace: *id, through: *through });
    }
    for lost in &edit.lost {
        visit(ManifestItem::Lost {
            file: &lost.file,
            offset: lost.block(),
            first: &lost.first,
            last: &lost.last,
        });
    }
    for block in &edit.given_up {
        let GivenUp { keyspace, uid, offset } = *block;
        visit(ManifestItem::GivenUp { keyspace, uid, offset });
    }
}
