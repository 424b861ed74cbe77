//! Cursors over a memtable and over a run of tables, and the choice between all kinds.

use super::table_cursor::{CursorOptions, TableCursor};
use super::{Direction, Seek};
use crate::env::Env;
use crate::table::TableRef;
use crate::{EntryKind, EntryRef, Memtable, Pos, Result, Seq};
use std::cell::RefCell;
use std::ops::{Bound, Range};
use std::rc::Rc;

/// All versions of a memtable, which may be written meanwhile. Copies the entry it stands on,
/// so that nothing stays borrowed.
pub struct MemtableCursor {
    memtable: Rc<RefCell<Memtable>>,
    direction: Direction,
    pos: Option<Pos>,
    /// Backwards: versions of the key stood on that come after this one, the next one last.
    newer: Vec<Pos>,
    seq: Seq,
    kind: EntryKind,
    key: Vec<u8>,
    value: Vec<u8>,
}

impl MemtableCursor {
    /// A cursor at the end; seek first.
    pub fn new(memtable: Rc<RefCell<Memtable>>) -> Self {
        MemtableCursor {
            memtable,
            direction: Direction::Forward,
            pos: None,
            newer: Vec::new(),
            seq: Seq(0),
            kind: EntryKind::Delete,
            key: Vec::new(),
            value: Vec::new(),
        }
    }

    /// Goes to a place.
    pub fn seek<'a>(&mut self, seek: impl Into<Seek<'a>>) {
        let seek = seek.into();
        self.direction = seek.direction();
        let pos = match seek {
            Seek::Forward(key) => self.memtable.borrow().seek(key),
            Seek::Backward(bound) => {
                let newest = self.memtable.borrow().seek_back(bound);
                self.oldest_from(newest)
            }
        };
        self.stand_on(pos);
    }

    /// The entry stood on.
    pub fn entry(&self) -> Option<EntryRef<'_>> {
        self.pos?;
        Some(EntryRef { key: &self.key, seq: self.seq, kind: self.kind, value: &self.value })
    }

    /// Steps to the next entry.
    pub fn advance(&mut self) {
        let Some(pos) = self.pos else { return };
        let next = match self.direction {
            Direction::Forward => self.memtable.borrow().next(pos),
            Direction::Backward => self.newer.pop().or_else(|| {
                let before = Bound::Excluded(&self.key[..]);
                let newest = self.memtable.borrow().seek_back(before);
                self.oldest_from(newest)
            }),
        };
        self.stand_on(next);
    }

    /// The oldest version of a key whose newest is given; the others follow it.
    fn oldest_from(&mut self, newest: Option<Pos>) -> Option<Pos> {
        let memtable = self.memtable.borrow();
        self.newer.clear();
        self.newer.extend(std::iter::successors(newest, |pos| memtable.older(*pos)));
        self.newer.pop()
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
    /// The tables it goes to; the others are passed over unread.
    within: Range<usize>,
    options: CursorOptions,
    direction: Direction,
    current: Option<TableCursor<E>>,
    /// Tables that are not entered yet: forwards from the start, backwards from the end.
    left: Range<usize>,
}

impl<E: Env> RunCursor<E> {
    /// A cursor at the end; seek first. `tables` ascend by key.
    pub fn new(tables: Rc<[TableRef<E>]>, options: CursorOptions) -> Self {
        let (direction, within) = (Direction::Forward, 0..tables.len());
        RunCursor { tables, within, options, direction, current: None, left: 0..0 }
    }

    /// The same for a reader who wants only some of the tables, in their order from 0.
    pub fn within(self, tables: Range<usize>) -> Self {
        RunCursor { within: tables, ..self }
    }

    /// Goes to a place.
    pub async fn seek<'a>(&mut self, seek: impl Into<Seek<'a>>) -> Result<()> {
        let seek = seek.into();
        self.current = None;
        self.direction = seek.direction();
        self.left = match self.direction {
            Direction::Forward => {
                let passed = self.tables.partition_point(|table| seek.passes(table.largest()));
                passed.max(self.within.start)..self.within.end
            }
            Direction::Backward => {
                let reached = self.tables.partition_point(|table| !seek.passes(table.smallest()));
                self.within.start..reached.min(self.within.end)
            }
        };
        if !self.enter(seek)? {
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
        self.enter(Seek::start(self.direction))
    }

    /// Completes a step that needs I/O.
    pub async fn load(&mut self) -> Result<()> {
        while let Some(current) = &mut self.current {
            current.load().await?;
            if current.entry().is_some() || self.enter(Seek::start(self.direction))? {
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
    fn enter(&mut self, seek: Seek<'_>) -> Result<bool> {
        while let Some(next) = match self.direction {
            Direction::Forward => self.left.next(),
            Direction::Backward => self.left.next_back(),
        } {
            let mut cursor = TableCursor::new(self.tables[next].clone(), self.options.clone());
            let ready = cursor.try_seek(seek)?;
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
    /// Goes to a place.
    pub async fn seek<'a>(&mut self, seek: impl Into<Seek<'a>>) -> Result<()> {
        match self {
            Source::Memtable(cursor) => {
                cursor.seek(seek);
                Ok(())
            }
            Source::Table(cursor) => cursor.seek(seek).await,
            Source::Run(cursor) => cursor.seek(seek).await,
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
