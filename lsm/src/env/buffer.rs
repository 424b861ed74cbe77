//! Page-aligned byte buffers for direct I/O, without `unsafe`.
//!
//! Memory of a buffer that is gone is used again by the next one of about that size: merges read
//! ahead in pieces of 256 KiB and write in pieces of 512 KiB, cold reads take a block each, and
//! clearing new memory for them costs as much as the checksums.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// Alignment and granularity of direct I/O, in bytes.
pub const PAGE: usize = 4096;

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, align(4096))]
struct Page([u8; PAGE]);

/// Buffers below this many pages are kept by their exact size.
const LARGE: usize = 16;
/// Largest buffer that is kept, pages.
const LARGEST: usize = 256;
/// Pages that one thread keeps at most: 4 MiB in large buffers, 1 MiB in small ones.
const LARGE_PAGES: usize = 1024;
const SMALL_PAGES: usize = 256;

/// Memory of a thread's buffers that are gone; what it holds does not matter.
struct Spare {
    /// By number of pages.
    small: [Vec<Vec<Page>>; LARGE],
    small_pages: usize,
    /// The longest unused first.
    large: VecDeque<Vec<Page>>,
    large_pages: usize,
}

thread_local! {
    static SPARE: RefCell<Spare> = const {
        RefCell::new(Spare {
            small: [const { Vec::new() }; LARGE],
            small_pages: 0,
            large: VecDeque::new(),
            large_pages: 0,
        })
    };
}

impl Spare {
    /// Memory of `pages` pages; a large one may have half again as much.
    fn take(&mut self, pages: usize) -> Option<Vec<Page>> {
        if let Some(same) = self.small.get_mut(pages) {
            let taken = same.pop()?;
            self.small_pages -= pages;
            return Some(taken);
        }
        let fits = |kept: &Vec<Page>| (pages..=pages + pages / 2).contains(&kept.len());
        let at = self.large.iter().rposition(fits)?;
        let taken = self.large.remove(at)?;
        self.large_pages -= taken.len();
        Some(taken)
    }

    /// Keeps memory that nobody uses, in the place of what is least likely to be asked for: of
    /// large memory what was not used for longest, of small memory the size of which there is most.
    fn keep(&mut self, memory: Vec<Page>) {
        match memory.len() {
            0 => {}
            pages @ 1..LARGE => {
                self.small_pages += pages;
                self.small[pages].push(memory);
                while self.small_pages > SMALL_PAGES {
                    let most = self
                        .small
                        .iter_mut()
                        .max_by_key(|same| same.len() * same.first().map_or(0, Vec::len));
                    self.small_pages -= most.and_then(Vec::pop).map_or(0, |one| one.len());
                }
            }
            pages @ LARGE..=LARGEST => {
                self.large_pages += pages;
                self.large.push_back(memory);
                while self.large_pages > LARGE_PAGES {
                    self.large_pages -= self.large.pop_front().map_or(0, |oldest| oldest.len());
                }
            }
            _ => {}
        }
    }
}

/// Spare memory of this thread for a buffer of at least `pages` pages.
fn take_spare(pages: usize) -> Option<Vec<Page>> {
    SPARE.with_borrow_mut(|spare| spare.take(pages))
}

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
        let pages = len.div_ceil(PAGE);
        let pages = Page::new_vec_zeroed(pages).unwrap_or_else(|_| vec![Page([0; PAGE]); pages]);
        AlignedBuf { pages, len }
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

    /// Makes room for `additional` bytes beyond the current length. What they hold is anything.
    pub fn reserve(&mut self, additional: usize) {
        let pages = (self.len + additional).div_ceil(PAGE);
        if pages > self.pages.len() {
            let pages = pages.max(self.pages.len() * 2);
            // Fresh zeroed memory from the allocator is cheaper than filling by hand.
            let bigger = take_spare(pages).or_else(|| Page::new_vec_zeroed(pages).ok());
            match bigger {
                Some(mut bigger) => {
                    bigger[..self.pages.len()].copy_from_slice(&self.pages);
                    self.pages = bigger;
                }
                None => self.pages.resize(pages, Page([0; PAGE])),
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

impl Drop for AlignedBuf {
    fn drop(&mut self) {
        let pages = std::mem::take(&mut self.pages);
        if !pages.is_empty() {
            // A thread that ends has no use for it any more.
            let _ = SPARE.try_with(|spare| spare.borrow_mut().keep(pages));
        }
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
    fn large_memory_is_used_again_and_shows_in_nothing() {
        let size = 20 * PAGE;
        let mut used = AlignedBuf::with_capacity(size);
        used.set_len(size);
        used.fill(7);
        let place = used.as_ptr();
        drop(used);
        let mut again = AlignedBuf::with_capacity(size - PAGE);
        assert_eq!((again.as_ptr(), again.len()), (place, 0));
        again.extend_from_slice(b"x");
        again.pad_to_page();
        assert!(again.len() == PAGE && again[1..].iter().all(|byte| *byte == 0));
        drop(again);
        // Much less, or more, than is wanted does not fit.
        assert_ne!(AlignedBuf::with_capacity(PAGE).as_ptr(), place);
        assert_ne!(AlignedBuf::with_capacity(2 * size).as_ptr(), place);
        assert_eq!(AlignedBuf::with_capacity(size).as_ptr(), place);
        assert!(AlignedBuf::zeroed(size).iter().all(|byte| *byte == 0));
    }

    #[test]
    fn small_memory_is_used_again_by_buffers_of_its_size() {
        let mut used = AlignedBuf::with_capacity(2 * PAGE);
        used.extend_from_slice(&[7; 2 * PAGE]);
        let place = used.as_ptr();
        drop(used);
        assert_ne!(AlignedBuf::with_capacity(PAGE).as_ptr(), place);
        assert_ne!(AlignedBuf::with_capacity(3 * PAGE).as_ptr(), place);
        let mut again = AlignedBuf::with_capacity(PAGE + 1);
        assert_eq!((again.as_ptr(), again.len()), (place, 0));
        again.extend_from_slice(b"x");
        again.pad_to_page();
        assert!(again.len() == PAGE && again[1..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn what_a_thread_keeps_is_bounded() {
        let make = |pages: usize| move |_| AlignedBuf::with_capacity(pages * PAGE);
        let large: Vec<_> = (0..40).map(make(64)).collect();
        let small: Vec<_> = (0..300).map(make(2)).collect();
        drop((large, small));
        let count = || {
            SPARE.with_borrow(|spare| {
                let counted = (spare.small_pages, spare.large_pages);
                let small = spare.small.iter().flatten().map(Vec::len).sum::<usize>();
                let large = spare.large.iter().map(Vec::len).sum::<usize>();
                assert_eq!((small, large), counted);
                counted
            })
        };
        assert_eq!(count(), (SMALL_PAGES, LARGE_PAGES));
        drop(AlignedBuf::with_capacity(300 * PAGE));
        drop(AlignedBuf::default());
        assert_eq!(count(), (SMALL_PAGES, LARGE_PAGES));
        // Another size makes its way among many of one.
        drop(AlignedBuf::with_capacity(8 * PAGE));
        drop(AlignedBuf::with_capacity(100 * PAGE));
        assert_eq!(SPARE.with_borrow(|spare| spare.small[8].len()), 1);
        assert_eq!(SPARE.with_borrow(|spare| spare.large.back().map(Vec::len)), Some(100));
        assert!(count() <= (SMALL_PAGES, LARGE_PAGES));
        let before = count();
        let taken = (AlignedBuf::with_capacity(2 * PAGE), AlignedBuf::with_capacity(64 * PAGE));
        assert_eq!(count(), (before.0 - 2, before.1 - 64));
        drop(taken);
        assert_eq!(count(), before);
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
