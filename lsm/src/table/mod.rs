//! Table files.
#![allow(missing_docs, unused_variables, clippy::all)]
use crate::{BlockCache, EntryKind, EntryRef, Options, Result, Seq, TableUid, env::Env};
use std::{
    marker::PhantomData,
    path::{Path, PathBuf},
    rc::Rc,
};
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableInfo {
    pub uid: TableUid,
    pub file_bytes: u64,
    pub smallest: Box<[u8]>,
    pub largest: Box<[u8]>,
    pub entries: u64,
    pub deletes: u64,
    pub min_seq: Seq,
    pub max_seq: Seq,
}
pub struct TableWriter<E: Env>(PhantomData<E>);
impl<E: Env> TableWriter<E> {
    pub async fn create(env: E, path: PathBuf, uid: TableUid, options: &Options) -> Result<Self> {
        unimplemented!()
    }
    pub async fn add(&mut self, entry: EntryRef<'_>) -> Result<()> {
        unimplemented!()
    }
    pub fn push(&mut self, entry: EntryRef<'_>) -> Result<bool> {
        unimplemented!()
    }
    pub async fn drain(&mut self) -> Result<()> {
        unimplemented!()
    }
    pub fn bytes(&self) -> u64 {
        unimplemented!()
    }
    pub fn entries(&self) -> u64 {
        unimplemented!()
    }
    pub async fn finish(self) -> Result<TableInfo> {
        unimplemented!()
    }
}
#[derive(Debug)]
pub enum Lookup {
    Found(Hit),
    Absent,
    NeedsBlock,
}
#[derive(Debug, Clone)]
pub struct Hit {}
impl Hit {
    pub fn seq(&self) -> Seq {
        unimplemented!()
    }
    pub fn kind(&self) -> EntryKind {
        unimplemented!()
    }
    pub fn value(&self) -> &[u8] {
        unimplemented!()
    }
}
pub struct Table<E: Env>(PhantomData<E>);
impl<E: Env> Table<E> {
    pub async fn open(env: &E, path: &Path, uid: TableUid) -> Result<Table<E>> {
        unimplemented!()
    }
    pub fn info(&self) -> &TableInfo {
        unimplemented!()
    }
    pub fn path(&self) -> &Path {
        unimplemented!()
    }
    pub fn memory_bytes(&self) -> usize {
        unimplemented!()
    }
    pub fn may_contain(&self, hash: u64) -> bool {
        unimplemented!()
    }
    pub fn get_cached(&self, cache: &BlockCache, key: &[u8], hash: u64, at: Seq) -> Result<Lookup> {
        unimplemented!()
    }
    pub async fn get(
        &self,
        cache: &BlockCache,
        key: &[u8],
        hash: u64,
        at: Seq,
    ) -> Result<Option<Hit>> {
        unimplemented!()
    }
}
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounds {
    pub first: Rc<[u8]>,
    pub last: Rc<[u8]>,
}
pub struct TableRef<E: Env> {
    pub table: Rc<Table<E>>,
    pub bounds: Bounds,
}
impl<E: Env> Clone for TableRef<E> {
    fn clone(&self) -> Self {
        TableRef { table: self.table.clone(), bounds: self.bounds.clone() }
    }
}
impl<E: Env> TableRef<E> {
    pub fn whole(table: Rc<Table<E>>) -> Self {
        unimplemented!()
    }
    pub fn smallest(&self) -> &[u8] {
        unimplemented!()
    }
    pub fn largest(&self) -> &[u8] {
        unimplemented!()
    }
    pub fn covers(&self, key: &[u8]) -> bool {
        unimplemented!()
    }
    pub fn get_cached(&self, cache: &BlockCache, key: &[u8], hash: u64, at: Seq) -> Result<Lookup> {
        unimplemented!()
    }
    pub async fn get(
        &self,
        cache: &BlockCache,
        key: &[u8],
        hash: u64,
        at: Seq,
    ) -> Result<Option<Hit>> {
        unimplemented!()
    }
}
