//! Memtable.
#![allow(missing_docs, unused_variables, clippy::all)]
use crate::{EntryKind, EntryRef, Seq};
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pos(u32);
#[derive(Debug, Default)]
pub struct Memtable {}
impl Memtable {
    pub fn new() -> Self {
        Self::default()
    }
    pub fn insert(&mut self, seq: Seq, kind: EntryKind, key: &[u8], hash: u64, value: &[u8]) {
        unimplemented!()
    }
    pub fn get(&self, key: &[u8], hash: u64, at: Seq) -> Option<EntryRef<'_>> {
        unimplemented!()
    }
    pub fn bytes(&self) -> usize {
        unimplemented!()
    }
    pub fn len(&self) -> usize {
        unimplemented!()
    }
    pub fn is_empty(&self) -> bool {
        unimplemented!()
    }
    pub fn first(&self) -> Option<Pos> {
        unimplemented!()
    }
    pub fn seek(&self, key: &[u8]) -> Option<Pos> {
        unimplemented!()
    }
    pub fn next(&self, pos: Pos) -> Option<Pos> {
        unimplemented!()
    }
    pub fn entry(&self, pos: Pos) -> EntryRef<'_> {
        unimplemented!()
    }
}
