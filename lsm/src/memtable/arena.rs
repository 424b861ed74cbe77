//! Where the memtable keeps bytes and records: memory that is never moved once filled, so that
//! growing costs no copy, addressed by small indices instead of pointers.
//!
//! Owns allocation and its accounting; knows nothing of keys or versions.

use std::cell::RefCell;
use std::ops::{Index, IndexMut};
use std::rc::Rc;

/// First and largest size of a shared byte chunk; sizes double in between, so that an almost
/// empty memtable is small and a full one has few chunks.
const FIRST_CHUNK: usize = 4 << 10;
const LAST_CHUNK: usize = 1 << 20;

/// Place of a byte string in the [`Arena`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub chunk: u32,
    pub at: u32,
    pub len: u32,
}

/// Chunks that memtables of one engine hand on to each other: memory that goes back to the system
/// between two memtables comes anew, page by page, cleared.
#[derive(Debug, Default)]
pub(crate) struct ChunkPool {
    chunks: RefCell<Vec<Vec<u8>>>,
    /// Most chunks that are kept.
    most: usize,
}

impl ChunkPool {
    /// A pool that keeps up to `bytes`.
    pub fn new(bytes: usize) -> Rc<Self> {
        Rc::new(ChunkPool { chunks: RefCell::default(), most: bytes / LAST_CHUNK })
    }

    /// Bytes kept.
    pub fn bytes(&self) -> usize {
        self.chunks.borrow().len() * LAST_CHUNK
    }

    fn take(&self) -> Vec<u8> {
        let kept = self.chunks.borrow_mut().pop();
        kept.unwrap_or_else(|| Vec::with_capacity(LAST_CHUNK))
    }

    fn give_back(&self, mut chunk: Vec<u8>) {
        let mut chunks = self.chunks.borrow_mut();
        if chunk.capacity() == LAST_CHUNK && chunks.len() < self.most {
            chunk.clear();
            chunks.push(chunk);
        }
    }
}

/// Append-only byte storage.
#[derive(Debug, Default)]
pub(super) struct Arena {
    pool: Rc<ChunkPool>,
    chunks: Vec<Vec<u8>>,
    /// The chunk that takes small strings; large ones get a chunk of their own.
    open: Option<usize>,
    held: usize,
}

impl Drop for Arena {
    fn drop(&mut self) {
        self.chunks.drain(..).for_each(|chunk| self.pool.give_back(chunk));
    }
}

impl Arena {
    /// Empty storage that takes its chunks from `pool` and leaves them there.
    pub fn new(pool: Rc<ChunkPool>) -> Self {
        Arena { pool, chunks: Vec::new(), open: None, held: 0 }
    }

    /// The pool of this storage.
    pub fn pool(&self) -> Rc<ChunkPool> {
        self.pool.clone()
    }

    /// Stores `head` and `tail` side by side and returns the place of each.
    pub fn push(&mut self, head: &[u8], tail: &[u8]) -> (Span, Span) {
        let need = head.len() + tail.len();
        assert!(need <= u32::MAX as usize, "an entry of {need} bytes cannot be addressed");
        let chunk = self.chunk_for(need);
        let bytes = &mut self.chunks[chunk];
        let at = bytes.len() as u32;
        bytes.extend_from_slice(head);
        bytes.extend_from_slice(tail);
        let span = |at: u32, len: usize| Span { chunk: chunk as u32, at, len: len as u32 };
        (span(at, head.len()), span(at + head.len() as u32, tail.len()))
    }

    fn chunk_for(&mut self, need: usize) -> usize {
        let size = match self.open {
            Some(open) => {
                let chunk = &self.chunks[open];
                if chunk.capacity() - chunk.len() >= need {
                    return open;
                }
                (chunk.capacity() * 2).min(LAST_CHUNK)
            }
            None => FIRST_CHUNK,
        };
        // A large string must not retire a chunk that still has room for many small ones.
        let own = need > size / 4;
        let chunk = match (own, size) {
            (true, _) => Vec::with_capacity(need),
            (false, LAST_CHUNK) => self.pool.take(),
            (false, size) => Vec::with_capacity(size),
        };
        self.held += chunk.capacity();
        self.chunks.push(chunk);
        if !own {
            self.open = Some(self.chunks.len() - 1);
        }
        self.chunks.len() - 1
    }

    pub fn get(&self, span: Span) -> &[u8] {
        let at = span.at as usize;
        &self.chunks[span.chunk as usize][at..at + span.len as usize]
    }

    pub fn held(&self) -> usize {
        self.held + self.chunks.capacity() * size_of::<Vec<u8>>()
    }
}

/// A vector of records in segments of `N`, which never move. Only the first segment grows by
/// reallocation, so that a small memtable stays small.
#[derive(Debug)]
pub(super) struct Segments<T, const N: usize> {
    segments: Vec<Vec<T>>,
    len: u32,
    held: usize,
}

impl<T, const N: usize> Default for Segments<T, N> {
    fn default() -> Self {
        Segments { segments: Vec::new(), len: 0, held: 0 }
    }
}

impl<T, const N: usize> Segments<T, N> {
    pub fn push(&mut self, record: T) -> u32 {
        assert!(self.len < u32::MAX - 1, "a memtable cannot hold 2^32 records");
        let at = self.len as usize / N;
        if at == self.segments.len() {
            let capacity = if at == 0 { N.min(4) } else { N };
            self.segments.push(Vec::with_capacity(capacity));
            self.held += capacity * size_of::<T>();
        }
        let segment = &mut self.segments[at];
        let before = segment.capacity();
        if segment.len() == before {
            segment.reserve_exact(before.min(N - before));
            self.held += (segment.capacity() - before) * size_of::<T>();
        }
        segment.push(record);
        self.len += 1;
        self.len - 1
    }

    pub fn len(&self) -> usize {
        self.len as usize
    }

    pub fn held(&self) -> usize {
        self.held + self.segments.capacity() * size_of::<Vec<T>>()
    }
}

impl<T, const N: usize> Index<u32> for Segments<T, N> {
    type Output = T;

    fn index(&self, at: u32) -> &T {
        &self.segments[at as usize / N][at as usize % N]
    }
}

impl<T, const N: usize> IndexMut<u32> for Segments<T, N> {
    fn index_mut(&mut self, at: u32) -> &mut T {
        &mut self.segments[at as usize / N][at as usize % N]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_stay_where_they_are_and_large_ones_stand_alone() {
        let mut arena = Arena::default();
        let (small, _) = arena.push(b"small", b"");
        let (_, large) = arena.push(b"key", &vec![7; 16 << 20]);
        let (after, _) = arena.push(b"after", b"");
        assert_eq!(arena.get(small), b"small");
        assert_eq!(arena.get(after), b"after");
        assert_eq!(after.chunk, small.chunk, "a large value retires no chunk");
        assert!(arena.get(large).iter().all(|b| *b == 7));
        assert_eq!(large.len, 16 << 20);
        assert!(arena.held() < (16 << 20) + 3 + FIRST_CHUNK + 200);
    }

    #[test]
    fn full_chunks_are_handed_on_up_to_the_bound_and_come_back_empty() {
        let pool = ChunkPool::new(2 * LAST_CHUNK);
        let fill = |bytes: usize| {
            let mut arena = Arena::new(pool.clone());
            let piece = [7; 1000];
            let spans: Vec<_> = (0..bytes / 1000).map(|_| arena.push(b"", &piece).1).collect();
            assert!(spans.iter().all(|span| arena.get(*span) == piece));
            arena.held()
        };
        let held = fill(6 << 20);
        assert_eq!(pool.chunks.borrow().len(), 2);
        assert!(pool.chunks.borrow().iter().all(Vec::is_empty));
        assert_eq!(fill(6 << 20), held);
        assert_eq!(pool.chunks.borrow().len(), 2);
    }

    #[test]
    fn segments_count_exactly_what_they_hold() {
        let mut numbers: Segments<u64, 16> = Segments::default();
        for i in 0..100 {
            assert_eq!(numbers.push(i * 3), i as u32);
        }
        numbers[40] += 1;
        assert_eq!((numbers[0], numbers[40], numbers[99], numbers.len()), (0, 121, 297, 100));
        let capacity: usize = numbers.segments.iter().map(Vec::capacity).sum();
        assert_eq!(numbers.held, capacity * 8);
        assert_eq!(capacity, 7 * 16);
    }
}
