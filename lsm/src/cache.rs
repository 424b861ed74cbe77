//! Block cache.
#![allow(missing_docs, unused_variables, clippy::all)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheStats {
    pub hits: u64,
    pub misses: u64,
    pub bytes: u64,
    pub budget: u64,
}
#[derive(Debug)]
pub struct BlockCache {}
impl BlockCache {
    pub fn new(budget_bytes: usize) -> Self {
        BlockCache {}
    }
    pub fn stats(&self) -> CacheStats {
        unimplemented!()
    }
}
