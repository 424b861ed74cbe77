//! Cursors over a memtable and over a run of tables, and the choice between all kinds.

use super::table_cursor::{CursorOptions, TableCursor};
use crate::env::Env;
use crate::table::TableRef;
use crate::{EntryKind, EntryRef, Memtable, Pos, Result, Seq};
use std::cell::RefCell;
use std::rc::Rc;

/// All versions of a memtable, which may be written meanwhile. Copies the entry it stands on,
/// so that nothing stays borrowed.
pub struct MemtableCursor {
    memtable: Rc<RefCell<Memtable>>,
    pos: Option<Pos>,
    seq: Seq,
    kind: EntryKind,
    key: Vec<u8>,
    value: Vec<u8>,
}

impl MemtableCursor {
    /// A cursor at the end; seek first.
    pub fn new(memtable: Rc<RefCell<Memtable>>) -> Self {
        let (key, value) = (Vec::new(), Vec::new());
        MemtableCursor { memtable, pos: None, seq: Seq(0), kind: EntryKind::Delete, key, value }
    }

    /// Goes to the first entry with a key not before `key`.
    pub fn seek(&mut self, key: &[u8]) {
        let pos = self.memtable.borrow().seek(key);
        self.stand_on(pos);
    }

    /// The entry stood on.
    pub fn entry(&self) -> Option<EntryRef<'_>> {
        self.pos?;
        Some(EntryRef { key: &self.key, seq: self.seq, kind: self.kind, value: &self.value })
    }

    /// Steps to the next entry.
    pub fn advance(&mut self) {
        if let Some(pos) = self.pos {
            let next = self.memtable.borrow().next(pos);
            self.stand_on(next);
        }
    }

    fn stand_on(&mut self, pos: Option<Pos>) {
        self.pos = pos;
        if let Some(pos) = pos {
            let memtable = self.memtable.borrow();
            let entry = memtable.entry(pos);
            (self.seq, self.kind) = (entry.seq, entry.kind);
            self.key.clear();
            self.key.extend_from_slice(entry.key);
            self.value.clear();
            self.value.extend_from_slice(entry.value);
        }
    }
}

/// All versions of consecutive tables that do not overlap, such as a level. Only the table
/// stood in holds blocks.
pub struct RunCursor<E: Env> {
    tables: Rc<[TableRef<E>]>,
    options: CursorOptions,
    current: Option<TableCursor<E>>,
    next_table: usize,
}

impl<E: Env> RunCursor<E> {
    /// A cursor at the end; seek first. `tables` ascend by key.
    pub fn new(tables: Rc<[TableRef<E>]>, options: CursorOptions) -> Self {
        let next_table = tables.len();
        RunCursor { tables, options, current: None, next_table }
    }

    /// Goes to the first entry with a key not before `key`.
    pub async fn seek(&mut self, key: &[u8]) -> Result<()> {
        self.current = None;
        self.next_table = self.tables.partition_point(|table| table.largest() < key);
        if !self.enter(key)? {
            self.load().await?;
        }
        Ok(())
    }

    /// The entry stood on.
    pub fn entry(&self) -> Option<EntryRef<'_>> {
        self.current.as_ref()?.entry()
    }

    /// See [`TableCursor::is_warm`].
    pub fn is_warm(&self) -> bool {
        self.current.as_ref().is_some_and(TableCursor::is_warm)
    }

    /// Steps to the next entry unless that needs I/O.
    pub fn try_advance(&mut self) -> Result<bool> {
        let Some(current) = &mut self.current else { return Ok(true) };
        if !current.try_advance()? {
            return Ok(false);
        }
        if current.entry().is_some() {
            return Ok(true);
        }
        self.enter(b"")
    }

    /// Completes a step that needs I/O.
    pub async fn load(&mut self) -> Result<()> {
        while let Some(current) = &mut self.current {
            current.load().await?;
            if current.entry().is_some() || self.enter(b"")? {
                break;
            }
        }
        Ok(())
    }

    /// Steps to the next entry.
    pub async fn advance(&mut self) -> Result<()> {
        if !self.try_advance()? {
            self.load().await?;
        }
        Ok(())
    }

    /// Opens tables until there is an entry or the end (true), or until I/O is needed.
    fn enter(&mut self, key: &[u8]) -> Result<bool> {
        while let Some(table) = self.tables.get(self.next_table) {
            self.next_table += 1;
            let mut cursor = TableCursor::new(table.clone(), self.options.clone());
            let ready = cursor.try_seek(key)?;
            let stands = cursor.entry().is_some();
            self.current = Some(cursor);
            if !ready || stands {
                return Ok(ready);
            }
        }
        self.current = None;
        Ok(true)
    }
}

/// One input of a merge.
pub enum Source<E: Env> {
    /// A memtable.
    Memtable(MemtableCursor),
    /// One table.
    Table(TableCursor<E>),
    /// Consecutive tables.
    Run(RunCursor<E>),
}

impl<E: Env> Source<E> {
    /// Goes to the first entry with a key not before `key`.
    pub async fn seek(&mut self, key: &[u8]) -> Result<()> {
        match self {
            Source::Memtable(cursor) => {
                cursor.seek(key);
                Ok(())
            }
            Source::Table(cursor) => cursor.seek(key).await,
            Source::Run(cursor) => cursor.seek(key).await,
        }
    }

    /// The entry stood on.
    pub fn entry(&self) -> Option<EntryRef<'_>> {
        match self {
            Source::Memtable(cursor) => cursor.entry(),
            Source::Table(cursor) => cursor.entry(),
            Source::Run(cursor) => cursor.entry(),
        }
    }

    /// See [`TableCursor::is_warm`]; what a memtable holds is read from there.
    pub fn is_warm(&self) -> bool {
        match self {
            Source::Memtable(_) => false,
            Source::Table(cursor) => cursor.is_warm(),
            Source::Run(cursor) => cursor.is_warm(),
        }
    }

    /// Steps to the next entry unless that needs I/O.
    pub fn try_advance(&mut self) -> Result<bool> {
        match self {
            Source::Memtable(cursor) => {
                cursor.advance();
                Ok(true)
            }
            Source::Table(cursor) => cursor.try_advance(),
            Source::Run(cursor) => cursor.try_advance(),
        }
    }

    /// Completes a step that needs I/O.
    pub async fn load(&mut self) -> Result<()> {
        match self {
            Source::Memtable(_) => Ok(()),
            Source::Table(cursor) => cursor.load().await,
            Source::Run(cursor) => cursor.load().await,
        }
    }
}
