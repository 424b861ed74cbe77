//! Page-aligned byte buffers for direct I/O, without `unsafe`.

use std::ops::{Deref, DerefMut};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// Alignment and granularity of direct I/O, in bytes.
pub const PAGE: usize = 4096;

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, align(4096))]
struct Page([u8; PAGE]);

/// A growable byte buffer whose memory starts on a [`PAGE`] boundary.
///
/// `len` is any number of bytes; the allocation is whole pages. Bytes between `len` and
/// [`AlignedBuf::padded_len`] are zero after [`AlignedBuf::pad_to_page`].
#[derive(Clone, Default)]
pub struct AlignedBuf {
    pages: Vec<Page>,
    len: usize,
}

impl AlignedBuf {
    /// An empty buffer with room for `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> Self {
        let mut buf = Self::default();
        buf.reserve(capacity);
        buf
    }

    /// `len` zero bytes.
    pub fn zeroed(len: usize) -> Self {
        let mut buf = Self::with_capacity(len);
        buf.len = len;
        buf
    }

    /// A buffer with a copy of `bytes`, padded with zeros to whole pages. Unlike filling an empty
    /// one this writes the memory once.
    pub fn copy_of(bytes: &[u8]) -> Self {
        let (whole, rest) = bytes.as_chunks::<PAGE>();
        let mut pages = Vec::with_capacity(bytes.len().div_ceil(PAGE));
        pages.extend(whole.iter().map(|page| Page(*page)));
        if !rest.is_empty() {
            let mut last = Page([0; PAGE]);
            last.0[..rest.len()].copy_from_slice(rest);
            pages.push(last);
        }
        AlignedBuf { pages, len: bytes.len() }
    }

    /// Bytes that fit without another allocation.
    pub fn capacity(&self) -> usize {
        self.pages.len() * PAGE
    }

    /// The length rounded up to whole pages.
    pub fn padded_len(&self) -> usize {
        self.len.next_multiple_of(PAGE)
    }

    /// Makes room for `additional` bytes beyond the current length.
    pub fn reserve(&mut self, additional: usize) {
        let pages = (self.len + additional).div_ceil(PAGE);
        if pages > self.pages.len() {
            // Fresh zeroed memory from the allocator is cheaper than filling by hand.
            match Page::new_vec_zeroed(pages.max(self.pages.len() * 2)) {
                Ok(mut bigger) => {
                    bigger[..self.pages.len()].copy_from_slice(&self.pages);
                    self.pages = bigger;
                }
                Err(_) => self.pages.resize(pages, Page([0; PAGE])),
            }
        }
    }

    /// Appends bytes.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len());
        let at = self.len;
        self.pages.as_mut_bytes()[at..at + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    /// Shortens to `len` bytes; no effect when already shorter.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Empties the buffer and keeps its memory.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Sets the length to `len` within the capacity; the bytes keep whatever they held.
    /// Used by environments that filled the memory through [`AlignedBuf::spare_mut`].
    ///
    /// # Panics
    /// When `len` exceeds the capacity: a programming error.
    pub fn set_len(&mut self, len: usize) {
        assert!(len <= self.capacity(), "length {len} beyond capacity {}", self.capacity());
        self.len = len;
    }

    /// The whole allocation, including the bytes beyond `len`.
    pub fn spare_mut(&mut self) -> &mut [u8] {
        self.pages.as_mut_bytes()
    }

    /// Appends zeros up to the next page boundary.
    pub fn pad_to_page(&mut self) {
        let (len, padded) = (self.len, self.padded_len());
        self.pages.as_mut_bytes()[len..padded].fill(0);
        self.len = padded;
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.pages.as_bytes()[..self.len]
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.pages.as_mut_bytes()[..self.len]
    }
}

impl std::fmt::Debug for AlignedBuf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AlignedBuf({} of {} bytes)", self.len, self.capacity())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_page_aligned_and_survives_growth() {
        let mut buf = AlignedBuf::with_capacity(10);
        buf.extend_from_slice(b"hello");
        buf.reserve(100_000);
        buf.extend_from_slice(b" world");
        assert_eq!(&buf[..], b"hello world");
        assert_eq!(buf.as_ptr() as usize % PAGE, 0);
    }

    #[test]
    fn a_copy_is_what_was_copied_and_padded() {
        for len in [0, 1, PAGE - 1, PAGE, PAGE + 1, 3 * PAGE] {
            let bytes: Vec<u8> = (0..len).map(|at| (at % 251) as u8 + 1).collect();
            let mut buf = AlignedBuf::copy_of(&bytes);
            assert_eq!((&buf[..], buf.capacity()), (&bytes[..], len.next_multiple_of(PAGE)));
            buf.pad_to_page();
            assert!(buf[len..].iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn padding_is_zero_even_after_reuse() {
        let mut buf = AlignedBuf::zeroed(PAGE);
        buf.fill(7);
        buf.clear();
        buf.extend_from_slice(b"x");
        buf.pad_to_page();
        assert_eq!(buf.len(), PAGE);
        assert!(buf[1..].iter().all(|b| *b == 0));
    }
}
