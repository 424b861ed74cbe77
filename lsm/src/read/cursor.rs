//! Cursors.
#![allow(missing_docs, unused_variables, clippy::all)]
use crate::{BlockCache, EntryRef, Memtable, Result, Seq, env::Env, table::TableRef};
use std::{cell::RefCell, marker::PhantomData, rc::Rc};
#[derive(Debug, Clone)]
pub struct CursorOptions {}
impl CursorOptions {
    pub fn scan(cache: Rc<BlockCache>) -> Self {
        unimplemented!()
    }
    pub fn compaction() -> Self {
        unimplemented!()
    }
}
pub struct MemtableCursor {}
impl MemtableCursor {
    pub fn new(memtable: Rc<RefCell<Memtable>>) -> Self {
        unimplemented!()
    }
    pub async fn seek(&mut self, key: &[u8]) -> Result<()> {
        unimplemented!()
    }
    pub fn entry(&self) -> Option<EntryRef<'_>> {
        unimplemented!()
    }
    pub fn try_advance(&mut self) -> Result<bool> {
        unimplemented!()
    }
    pub async fn load(&mut self) -> Result<()> {
        unimplemented!()
    }
    pub async fn advance(&mut self) -> Result<()> {
        unimplemented!()
    }
}
pub struct TableCursor<E: Env>(PhantomData<E>);
impl<E: Env> TableCursor<E> {
    pub fn new(table: TableRef<E>, options: CursorOptions) -> Self {
        unimplemented!()
    }
    pub async fn seek(&mut self, key: &[u8]) -> Result<()> {
        unimplemented!()
    }
    pub fn entry(&self) -> Option<EntryRef<'_>> {
        unimplemented!()
    }
    pub fn try_advance(&mut self) -> Result<bool> {
        unimplemented!()
    }
    pub async fn load(&mut self) -> Result<()> {
        unimplemented!()
    }
    pub async fn advance(&mut self) -> Result<()> {
        unimplemented!()
    }
}
pub struct RunCursor<E: Env>(PhantomData<E>);
impl<E: Env> RunCursor<E> {
    pub fn new(tables: Rc<[TableRef<E>]>, options: CursorOptions) -> Self {
        unimplemented!()
    }
    pub async fn seek(&mut self, key: &[u8]) -> Result<()> {
        unimplemented!()
    }
    pub fn entry(&self) -> Option<EntryRef<'_>> {
        unimplemented!()
    }
    pub fn try_advance(&mut self) -> Result<bool> {
        unimplemented!()
    }
    pub async fn load(&mut self) -> Result<()> {
        unimplemented!()
    }
    pub async fn advance(&mut self) -> Result<()> {
        unimplemented!()
    }
}
pub enum Source<E: Env> {
    Memtable(MemtableCursor),
    Table(TableCursor<E>),
    Run(RunCursor<E>),
}
impl<E: Env> Source<E> {
    pub async fn seek(&mut self, key: &[u8]) -> Result<()> {
        unimplemented!()
    }
    pub fn entry(&self) -> Option<EntryRef<'_>> {
        unimplemented!()
    }
    pub fn try_advance(&mut self) -> Result<bool> {
        unimplemented!()
    }
    pub async fn load(&mut self) -> Result<()> {
        unimplemented!()
    }
    pub async fn advance(&mut self) -> Result<()> {
        unimplemented!()
    }
}
