//! One atomic change of the tree and its encoding.

use super::Flushed;
use super::lost::Lost;
use crate::stats::LEVELS;
use crate::{Seq, TableId, TableUid};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Table of manifest versions 1 and 2, which knew neither runs nor times; only read.
const TAG_ADD_V2: u8 = 1;
const TAG_REMOVE: u8 = 2;
const TAG_PROGRESS: u8 = 3;
const TAG_LOST: u8 = 4;
const TAG_ACCEPTED: u8 = 5;
const TAG_ADD: u8 = 6;
const TAG_POLICY: u8 = 7;

/// A table as the manifest knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableMeta {
    /// Its level.
    pub level: u8,
    /// Number of its run; higher is newer, within the level.
    pub run: u64,
    /// Its number in this folder.
    pub id: TableId,
    /// Identity of its bytes.
    pub uid: TableUid,
    /// Smallest key of the table that belongs to this engine.
    pub first: Rc<[u8]>,
    /// Largest key of the table that belongs to this engine.
    pub last: Rc<[u8]>,
    /// When its entries were flushed; zeros when the manifest does not say.
    pub flushed: Flushed,
}

/// Counters that only move forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Number of the next table.
    pub next_table: u64,
    /// Newest sequence number when the edit was written; recovery starts beyond it.
    pub last_seq: Seq,
    /// Everything up to here is in tables.
    pub flushed: Seq,
    /// First log generation that a restart needs.
    pub log_floor: u64,
}

/// One atomic change.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Edit {
    /// Tables that come. A table that changes its level is removed and added in one edit.
    pub added: Vec<TableMeta>,
    /// Tables that go.
    pub removed: Vec<TableId>,
    /// Damage that was found.
    pub lost: Vec<Lost>,
    /// Every mark of damage goes, before those of this edit come: the loss was accepted.
    pub accepted: bool,
    /// The compaction policy from now on, as text; `None`: as before.
    pub policy: Option<String>,
    /// The counters after the edit.
    pub progress: Progress,
}

impl Edit {
    /// The edit's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for id in &self.removed {
            bytes.push(TAG_REMOVE);
            bytes.extend_from_slice(&id.0.to_le_bytes());
        }
        for table in &self.added {
            bytes.extend_from_slice(&[TAG_ADD, table.level]);
            let Flushed { oldest, newest } = table.flushed;
            for value in [table.run, table.id.0, table.uid.0, oldest, newest] {
                bytes.extend_from_slice(&value.to_le_bytes());
            }
            put_bytes(&mut bytes, &table.first);
            put_bytes(&mut bytes, &table.last);
        }
        if let Some(policy) = &self.policy {
            bytes.push(TAG_POLICY);
            put_bytes(&mut bytes, policy.as_bytes());
        }
        if self.accepted {
            bytes.push(TAG_ACCEPTED);
        }
        for lost in &self.lost {
            bytes.push(TAG_LOST);
            for value in [lost.uid.0, lost.offset, lost.through.0] {
                bytes.extend_from_slice(&value.to_le_bytes());
            }
            for part in [lost.file.as_bytes(), &lost.first, &lost.last] {
                bytes.extend_from_slice(&(part.len() as u32).to_le_bytes());
                bytes.extend_from_slice(part);
            }
        }
        bytes.push(TAG_PROGRESS);
        let Progress { next_table, last_seq, flushed, log_floor } = self.progress;
        for value in [next_table, last_seq.0, flushed.0, log_floor] {
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        bytes
    }

    /// Reads an edit; the error is the offset that makes no sense.
    pub fn decode(bytes: &[u8]) -> Result<Edit, usize> {
        let mut edit = Edit::default();
        let mut reader = Reader { bytes, at: 0 };
        let mut complete = false;
        while reader.at < bytes.len() {
            let start = reader.at;
            if complete {
                return Err(start);
            }
            reader.item(&mut edit, &mut complete).ok_or(start)?;
        }
        if complete { Ok(edit) } else { Err(bytes.len()) }
    }
}

fn put_bytes(into: &mut Vec<u8>, bytes: &[u8]) {
    into.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    into.extend_from_slice(bytes);
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn item(&mut self, edit: &mut Edit, complete: &mut bool) -> Option<()> {
        match self.take(1)?[0] {
            TAG_ADD => {
                let (level, run) = (self.level()?, self.u64()?);
                let (id, uid) = (TableId(self.u64()?), TableUid(self.u64()?));
                let flushed = Flushed { oldest: self.u64()?, newest: self.u64()? };
                let (first, last) = (self.key()?, self.key()?);
                edit.added.push(TableMeta { level, run, id, uid, first, last, flushed });
            }
            TAG_ADD_V2 => {
                let level = self.level()?;
                let (id, uid) = (TableId(self.u64()?), TableUid(self.u64()?));
                let (first, last) = (self.key()?, self.key()?);
                // Each flush was a run of its own, every deeper level was one.
                let run = if level == 0 { id.0 } else { 0 };
                let flushed = Flushed::default();
                edit.added.push(TableMeta { level, run, id, uid, first, last, flushed });
            }
            TAG_POLICY => {
                let text = self.key()?;
                edit.policy = Some(std::str::from_utf8(&text).ok()?.to_owned());
            }
            TAG_REMOVE => edit.removed.push(TableId(self.u64()?)),
            TAG_ACCEPTED => edit.accepted = true,
            TAG_LOST => {
                let (uid, offset) = (TableUid(self.u64()?), self.u64()?);
                let through = Seq(self.u64()?);
                let file = std::str::from_utf8(&self.key()?).ok()?.into();
                let (first, last) = (self.key()?, self.key()?);
                edit.lost.push(Lost { uid, offset, through, file, first, last });
            }
            TAG_PROGRESS => {
                edit.progress = Progress {
                    next_table: self.u64()?,
                    last_seq: Seq(self.u64()?),
                    flushed: Seq(self.u64()?),
                    log_floor: self.u64()?,
                };
                *complete = true;
            }
            _ => return None,
        }
        Some(())
    }

    fn level(&mut self) -> Option<u8> {
        let level = self.take(1)?[0];
        (usize::from(level) < LEVELS).then_some(level)
    }

    fn take(&mut self, len: usize) -> Option<&[u8]> {
        let end = self.at.checked_add(len)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_le_bytes)
    }

    fn key(&mut self) -> Option<Rc<[u8]>> {
        let len = self.take(4)?.try_into().ok().map(u32::from_le_bytes)?;
        self.take(len as usize).map(Rc::from)
    }
}

/// The sum of all edits.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    /// Every live table.
    pub tables: BTreeMap<TableId, TableMeta>,
    /// Damage that was found and not accepted.
    pub lost: Vec<Lost>,
    /// The compaction policy, as text, once one was chosen.
    pub policy: Option<String>,
    /// The newest counters.
    pub progress: Progress,
}

impl State {
    /// Applies an edit; the error says what it contradicts.
    pub fn apply(&mut self, edit: &Edit) -> Result<(), String> {
        for id in &edit.removed {
            if self.tables.remove(id).is_none() {
                return Err(format!("edit removes table {}, which is not live", id.0));
            }
        }
        for table in &edit.added {
            if self.tables.insert(table.id, table.clone()).is_some() {
                return Err(format!("edit adds table {} twice", table.id.0));
            }
        }
        if edit.accepted {
            self.lost.clear();
        }
        self.lost.extend_from_slice(&edit.lost);
        if let Some(policy) = &edit.policy {
            self.policy = Some(policy.clone());
        }
        self.progress = edit.progress;
        Ok(())
    }

    /// The state as one edit on nothing.
    pub fn as_edit(&self) -> Edit {
        Edit {
            added: self.tables.values().cloned().collect(),
            removed: Vec::new(),
            lost: self.lost.clone(),
            accepted: false,
            policy: self.policy.clone(),
            progress: self.progress,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn table() -> impl Strategy<Value = TableMeta> {
        let key = || proptest::collection::vec(any::<u8>(), 0..40);
        (0..LEVELS as u8, any::<[u64; 5]>(), key(), key()).prop_map(
            |(level, [run, id, uid, oldest, newest], first, last)| TableMeta {
                level,
                run,
                id: TableId(id),
                uid: TableUid(uid),
                first: first.into(),
                last: last.into(),
                flushed: Flushed { oldest, newest },
            },
        )
    }

    proptest! {
        #[test]
        fn edits_survive_and_truncation_is_seen(
            added in proptest::collection::vec(table(), 0..8),
            removed in proptest::collection::vec(any::<u64>().prop_map(TableId), 0..8),
            lost in proptest::collection::vec(table(), 0..4),
            accepted in any::<bool>(),
            policy in proptest::option::of("\\PC{0,20}"),
            numbers in any::<(u64, u64, u64, u64)>(),
            cut in any::<proptest::sample::Index>(),
        ) {
            let progress = Progress {
                next_table: numbers.0, last_seq: Seq(numbers.1),
                flushed: Seq(numbers.2), log_floor: numbers.3,
            };
            let lost = lost.iter().map(|meta| Lost::table(meta, "000001.sst".as_ref(), Seq(7)));
            let edit = Edit { added, removed, lost: lost.collect(), accepted, policy, progress };
            let bytes = edit.encode();
            prop_assert_eq!(Edit::decode(&bytes), Ok(edit));
            prop_assert!(Edit::decode(&bytes[..cut.index(bytes.len())]).is_err());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let decoded = Edit::decode(&bytes);
            prop_assert!(decoded.is_err() || !bytes.is_empty());
        }
    }

    #[test]
    fn contradictions_are_named() {
        let mut state = State::default();
        let edit = Edit { removed: vec![TableId(3)], ..Edit::default() };
        assert!(state.apply(&edit).unwrap_err().contains("table 3"));
        let meta = TableMeta {
            level: 0,
            run: 1,
            id: TableId(1),
            uid: TableUid(9),
            first: (*b"a").into(),
            last: (*b"b").into(),
            flushed: Flushed { oldest: 5, newest: 6 },
        };
        let add = Edit { added: vec![meta.clone()], ..Edit::default() };
        state.apply(&add).unwrap();
        assert!(state.apply(&add).unwrap_err().contains("twice"));
        let moved = TableMeta { level: 1, ..meta };
        let edit =
            Edit { added: vec![moved.clone()], removed: vec![TableId(1)], ..Edit::default() };
        state.apply(&edit).unwrap();
        assert_eq!(state.as_edit().added, vec![moved]);
    }

    #[test]
    fn tables_of_old_versions_get_their_runs() {
        let mut bytes = Vec::new();
        for (level, id) in [(0u8, 7u64), (2, 5)] {
            bytes.extend_from_slice(&[TAG_ADD_V2, level]);
            bytes.extend_from_slice(&id.to_le_bytes());
            bytes.extend_from_slice(&99u64.to_le_bytes());
            put_bytes(&mut bytes, b"a");
            put_bytes(&mut bytes, b"z");
        }
        bytes.push(TAG_PROGRESS);
        bytes.extend_from_slice(&[0; 32]);
        let edit = Edit::decode(&bytes).unwrap();
        let runs: Vec<_> = edit.added.iter().map(|meta| (meta.level, meta.run)).collect();
        assert_eq!(runs, [(0, 7), (2, 0)]);
        assert_eq!((&*edit.added[1].first, &*edit.added[1].last), (&b"a"[..], &b"z"[..]));
    }
}
