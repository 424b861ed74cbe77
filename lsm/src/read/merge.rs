//! Merging.
#![allow(missing_docs, unused_variables, clippy::all)]
use super::Source;
use crate::{BlockCache, EntryRef, Memtable, Result, Seq, env::Env, table::TableRef};
use std::{cell::RefCell, marker::PhantomData, rc::Rc};
pub struct MergeCursor<E: Env>(PhantomData<E>);
impl<E: Env> MergeCursor<E> {
    pub fn new(sources: Vec<Source<E>>) -> Self {
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
pub struct Visible<E: Env>(PhantomData<E>);
impl<E: Env> Visible<E> {
    pub fn new(env: E, merge: MergeCursor<E>, at: Seq) -> Self {
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
