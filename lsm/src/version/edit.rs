//! One atomic change of the tree and its encoding.

use super::lost::{GivenUp, Lost};
use super::{Expiry, Written};
use crate::stats::LEVELS;
use crate::{KeyspaceId, KeyspaceOptions, Millis, Seq, TableId, TableUid};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// Table of manifest versions 1 and 2, which knew neither runs nor times; only read.
const TAG_ADD_V2: u8 = 1;
const TAG_REMOVE: u8 = 2;
/// Counters up to version 3, with the flushed entry of the only keyspace; only read.
const TAG_PROGRESS_V3: u8 = 3;
const TAG_LOST: u8 = 4;
const TAG_ACCEPTED: u8 = 5;
/// Table up to version 6, which did not keep expiries; only read.
const TAG_ADD_V6: u8 = 6;
const TAG_POLICY: u8 = 7;
const TAG_KEYSPACE: u8 = 8;
const TAG_DEFINE: u8 = 9;
const TAG_DROP: u8 = 10;
const TAG_FLUSHED: u8 = 11;
const TAG_PROGRESS: u8 = 12;
const TAG_GIVEN_UP: u8 = 13;
const TAG_ADD: u8 = 14;

/// A table as the manifest knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableMeta {
    /// Whose it is.
    pub keyspace: KeyspaceId,
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
    /// When its entries were written; zeros when the manifest does not say.
    pub written: Written,
    /// When its entries expire; never when the manifest does not say.
    pub expiry: Expiry,
}

/// Counters that only move forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Number of the next table.
    pub next_table: u64,
    /// Newest sequence number when the edit was written; recovery starts beyond it.
    pub last_seq: Seq,
    /// First log generation that a restart needs.
    pub log_floor: u64,
}

/// One atomic change. Applies in the order of the fields.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Edit {
    /// Tables that go.
    pub removed: Vec<TableId>,
    /// Keyspaces that go, with all of their tables.
    pub dropped: Vec<KeyspaceId>,
    /// Keyspaces that come or get other options.
    pub defined: Vec<(KeyspaceId, KeyspaceOptions)>,
    /// Keyspaces that get another compaction policy, as text.
    pub policies: Vec<(KeyspaceId, String)>,
    /// Tables that come. A table that changes its level is removed and added in one edit.
    pub added: Vec<TableMeta>,
    /// Keyspaces whose marks of damage all go: the loss was accepted.
    pub accepted: Vec<KeyspaceId>,
    /// Damage that was found.
    pub lost: Vec<Lost>,
    /// Damaged blocks whose loss was accepted earlier.
    pub given_up: Vec<GivenUp>,
    /// Per keyspace the entry up to which everything is in tables.
    pub flushed: Vec<(KeyspaceId, Seq)>,
    /// The counters after the edit.
    pub progress: Progress,
}

impl Edit {
    /// The edit's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer { bytes: Vec::new(), keyspace: KeyspaceId::DEFAULT };
        for id in &self.removed {
            writer.item(TAG_REMOVE, &[id.0]);
        }
        for id in &self.dropped {
            writer.of(*id).item(TAG_DROP, &[]);
        }
        for (id, options) in &self.defined {
            writer.of(*id).item(TAG_DEFINE, &[]);
            writer.block(&options.encode());
        }
        for (id, policy) in &self.policies {
            writer.of(*id).item(TAG_POLICY, &[]);
            writer.block(policy.as_bytes());
        }
        for table in &self.added {
            writer.of(table.keyspace).bytes.extend_from_slice(&[TAG_ADD, table.level]);
            let Written { oldest, newest } = table.written;
            writer.numbers(&[table.run, table.id.0, table.uid.0, oldest, newest]);
            writer.numbers(&[table.expiry.all.0, table.expiry.half.0]);
            writer.block(&table.first);
            writer.block(&table.last);
        }
        for id in &self.accepted {
            writer.of(*id).item(TAG_ACCEPTED, &[]);
        }
        for lost in &self.lost {
            let numbers = [lost.uid.0, lost.offset, lost.through.0];
            writer.of(lost.keyspace).item(TAG_LOST, &numbers);
            for part in [lost.file.as_bytes(), &lost.first, &lost.last] {
                writer.block(part);
            }
        }
        for block in &self.given_up {
            writer.of(block.keyspace).item(TAG_GIVEN_UP, &[block.uid.0, block.offset]);
        }
        for (id, seq) in &self.flushed {
            writer.of(*id).item(TAG_FLUSHED, &[seq.0]);
        }
        let Progress { next_table, last_seq, log_floor } = self.progress;
        writer.item(TAG_PROGRESS, &[next_table, last_seq.0, log_floor]);
        writer.bytes
    }

    /// Reads an edit; the error is the offset that makes no sense.
    pub fn decode(bytes: &[u8]) -> Result<Edit, usize> {
        let mut edit = Edit::default();
        let mut reader = Reader { bytes, at: 0, keyspace: KeyspaceId::DEFAULT };
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

struct Writer {
    bytes: Vec<u8>,
    /// Whose items follow.
    keyspace: KeyspaceId,
}

impl Writer {
    /// Items that follow belong to `keyspace`.
    fn of(&mut self, keyspace: KeyspaceId) -> &mut Self {
        if self.keyspace != keyspace {
            self.keyspace = keyspace;
            self.bytes.push(TAG_KEYSPACE);
            self.bytes.extend_from_slice(&keyspace.0.to_le_bytes());
        }
        self
    }

    fn item(&mut self, tag: u8, numbers: &[u64]) {
        self.bytes.push(tag);
        self.numbers(numbers);
    }

    fn numbers(&mut self, numbers: &[u64]) {
        for number in numbers {
            self.bytes.extend_from_slice(&number.to_le_bytes());
        }
    }

    fn block(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(bytes);
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Whose items follow.
    keyspace: KeyspaceId,
}

impl Reader<'_> {
    fn item(&mut self, edit: &mut Edit, complete: &mut bool) -> Option<()> {
        let keyspace = self.keyspace;
        match self.take(1)?[0] {
            tag @ (TAG_ADD | TAG_ADD_V6 | TAG_ADD_V2) => edit.added.push(self.table(tag)?),
            TAG_POLICY => {
                let text = self.key()?;
                edit.policies.push((keyspace, std::str::from_utf8(&text).ok()?.to_owned()));
            }
            TAG_REMOVE => edit.removed.push(TableId(self.u64()?)),
            TAG_ACCEPTED => edit.accepted.push(keyspace),
            TAG_LOST => {
                let (uid, offset) = (TableUid(self.u64()?), self.u64()?);
                let through = Seq(self.u64()?);
                let file = std::str::from_utf8(&self.key()?).ok()?.into();
                let (first, last) = (self.key()?, self.key()?);
                edit.lost.push(Lost { keyspace, uid, offset, through, file, first, last });
            }
            TAG_GIVEN_UP => {
                let (uid, offset) = (TableUid(self.u64()?), self.u64()?);
                edit.given_up.push(GivenUp { keyspace, uid, offset });
            }
            TAG_KEYSPACE => {
                let id = self.take(4)?.try_into().ok().map(u32::from_le_bytes)?;
                self.keyspace = KeyspaceId(id);
            }
            TAG_DEFINE => {
                let options = KeyspaceOptions::decode(&self.key()?)?;
                edit.defined.push((keyspace, options));
            }
            TAG_DROP => edit.dropped.push(keyspace),
            TAG_FLUSHED => edit.flushed.push((keyspace, Seq(self.u64()?))),
            TAG_PROGRESS_V3 => {
                let (next_table, last_seq) = (self.u64()?, Seq(self.u64()?));
                edit.flushed.push((KeyspaceId::DEFAULT, Seq(self.u64()?)));
                edit.progress = Progress { next_table, last_seq, log_floor: self.u64()? };
                *complete = true;
            }
            TAG_PROGRESS => {
                let (next_table, last_seq) = (self.u64()?, Seq(self.u64()?));
                edit.progress = Progress { next_table, last_seq, log_floor: self.u64()? };
                *complete = true;
            }
            _ => return None,
        }
        Some(())
    }

    fn table(&mut self, tag: u8) -> Option<TableMeta> {
        let (keyspace, level) = (self.keyspace, self.level()?);
        let run = if tag == TAG_ADD_V2 { None } else { Some(self.u64()?) };
        let (id, uid) = (TableId(self.u64()?), TableUid(self.u64()?));
        let written = match tag {
            TAG_ADD_V2 => Written::default(),
            _ => Written { oldest: self.u64()?, newest: self.u64()? },
        };
        let expiry = match tag {
            TAG_ADD => Expiry { all: Millis(self.u64()?), half: Millis(self.u64()?) },
            _ => Expiry::default(),
        };
        let (first, last) = (self.key()?, self.key()?);
        // Each flush was a run of its own, every deeper level was one.
        let run = run.unwrap_or(if level == 0 { id.0 } else { 0 });
        Some(TableMeta { keyspace, level, run, id, uid, first, last, written, expiry })
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

/// A keyspace as the manifest knows it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeyspaceState {
    /// What it sets for itself.
    pub options: KeyspaceOptions,
    /// Its compaction policy, as text, once one was chosen.
    pub policy: Option<String>,
    /// Everything of it up to here is in tables, or was written before it existed.
    pub flushed: Seq,
}

/// The sum of all edits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Every live table.
    pub tables: BTreeMap<TableId, TableMeta>,
    /// Damage that was found and not accepted.
    pub lost: Vec<Lost>,
    /// Damaged blocks of live tables whose loss was accepted.
    pub given_up: Vec<GivenUp>,
    /// Every keyspace; the default one is always there.
    pub keyspaces: BTreeMap<KeyspaceId, KeyspaceState>,
    /// The newest counters.
    pub progress: Progress,
}

impl Default for State {
    fn default() -> Self {
        State {
            tables: BTreeMap::new(),
            lost: Vec::new(),
            given_up: Vec::new(),
            keyspaces: BTreeMap::from([(KeyspaceId::DEFAULT, KeyspaceState::default())]),
            progress: Progress::default(),
        }
    }
}

impl State {
    /// Applies an edit; the error says what it contradicts.
    pub fn apply(&mut self, edit: &Edit) -> Result<(), String> {
        for id in &edit.removed {
            if self.tables.remove(id).is_none() {
                return Err(format!("edit removes table {}, which is not live", id.0));
            }
        }
        for id in &edit.dropped {
            if *id == KeyspaceId::DEFAULT || self.keyspaces.remove(id).is_none() {
                return Err(format!("edit drops keyspace {id}, which is not there to drop"));
            }
            self.tables.retain(|_, table| table.keyspace != *id);
            self.lost.retain(|lost| lost.keyspace != *id);
        }
        for (id, options) in &edit.defined {
            self.keyspaces.entry(*id).or_default().options = options.clone();
        }
        for (id, policy) in &edit.policies {
            match self.keyspaces.get_mut(id) {
                Some(keyspace) => keyspace.policy = Some(policy.clone()),
                None => return Err(format!("edit sets the policy of the unknown keyspace {id}")),
            }
        }
        for table in &edit.added {
            if !self.keyspaces.contains_key(&table.keyspace) {
                let (id, keyspace) = (table.id.0, table.keyspace);
                return Err(format!("edit adds table {id} to the unknown keyspace {keyspace}"));
            }
            if self.tables.insert(table.id, table.clone()).is_some() {
                return Err(format!("edit adds table {} twice", table.id.0));
            }
        }
        self.check_runs(edit)?;
        self.apply_damage(edit);
        for (id, seq) in &edit.flushed {
            match self.keyspaces.get_mut(id) {
                Some(keyspace) => keyspace.flushed = *seq,
                None => return Err(format!("edit flushes the unknown keyspace {id}")),
            }
        }
        self.progress = edit.progress;
        Ok(())
    }

    /// Tables of one run do not overlap, where the edit added any.
    fn check_runs(&self, edit: &Edit) -> Result<(), String> {
        let run_of = |table: &TableMeta| (table.keyspace, table.level, table.run);
        let touched: BTreeSet<_> = edit.added.iter().map(run_of).collect();
        let tables = self.tables.values().filter(|table| touched.contains(&run_of(table)));
        let mut tables: Vec<_> = tables.map(|table| (run_of(table), table)).collect();
        tables.sort_by(|(a_run, a), (b_run, b)| (a_run, &a.first).cmp(&(b_run, &b.first)));
        let overlap = tables.windows(2).find(|pair| {
            let [(a_run, a), (b_run, b)] = pair else { return false };
            a_run == b_run && a.last >= b.first
        });
        match overlap {
            Some([(_, a), (_, b)]) => {
                Err(format!("edit makes tables {} and {} of one run overlap", a.id.0, b.id.0))
            }
            _ => Ok(()),
        }
    }

    fn apply_damage(&mut self, edit: &Edit) {
        let State { tables, lost, given_up, .. } = self;
        let accepted = lost.iter().filter(|lost| edit.accepted.contains(&lost.keyspace));
        given_up.extend(accepted.filter_map(GivenUp::of));
        given_up.extend_from_slice(&edit.given_up);
        // What a merge has rewritten is not read any more.
        given_up.retain(|block| tables.values().any(|table| table.uid == block.uid));
        lost.retain(|lost| !edit.accepted.contains(&lost.keyspace));
        lost.extend_from_slice(&edit.lost);
    }

    /// The state as one edit on nothing.
    pub fn as_edit(&self) -> Edit {
        let keyspaces = || self.keyspaces.iter();
        let policy = |state: &KeyspaceState| state.policy.clone();
        Edit {
            defined: keyspaces().map(|(id, state)| (*id, state.options.clone())).collect(),
            policies: keyspaces().filter_map(|(id, s)| Some((*id, policy(s)?))).collect(),
            added: self.tables.values().cloned().collect(),
            lost: self.lost.clone(),
            given_up: self.given_up.clone(),
            flushed: keyspaces().map(|(id, state)| (*id, state.flushed)).collect(),
            progress: self.progress,
            ..Edit::default()
        }
    }

    /// The entry before which the log holds nothing that is not in tables, whatever the keyspace.
    pub fn flushed_by_all(&self) -> Seq {
        self.keyspaces.values().map(|keyspace| keyspace.flushed).min().unwrap_or_default()
    }

    /// The newest entry that is in tables by the manifest's word.
    pub fn flushed_by_any(&self) -> Seq {
        self.keyspaces.values().map(|keyspace| keyspace.flushed).max().unwrap_or_default()
    }

    /// Whether a log entry has to be applied: it is in no table and its keyspace still exists.
    pub fn needs(&self, keyspace: KeyspaceId, seq: Seq) -> bool {
        self.keyspaces.get(&keyspace).is_some_and(|state| seq > state.flushed)
    }
}

#[cfg(test)]
mod tests;
