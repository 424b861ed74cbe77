//! Asking the processor for memory before it is needed.
//!
//! A point read follows a chain of places that are rarely in the processor's caches, each named
//! only by the one before. For one read nothing can be done about that; for a group of reads each
//! step of all of them can be on its way at once. [`crate::Engine::prefetch`] does so with the
//! functions here.

/// Bytes the processor fetches at a time.
const LINE: usize = 64;
/// Lines fetched of one byte string; beyond, the processor sees the pattern by itself.
const MOST_LINES: usize = 20;

/// Asks for the memory of `place`. Has no effect but on time.
#[inline]
pub(crate) fn prefetch<T>(place: &T) {
    line(std::ptr::from_ref(place).cast());
}

/// Asks for the beginning of `bytes`. Has no effect but on time.
#[inline]
pub(crate) fn prefetch_bytes(bytes: &[u8]) {
    for part in bytes.chunks(LINE).take(MOST_LINES) {
        line(part.as_ptr());
    }
    // The last byte may lie on a line that no chunk begins on.
    if let Some(last) = bytes.get(..MOST_LINES * LINE).unwrap_or(bytes).last() {
        line(last);
    }
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
#[inline]
fn line(at: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a prefetch neither reads nor faults, whatever the address; SSE is part of x86-64.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
}

#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn line(_: *const u8) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_reference_may_be_named() {
        prefetch(&());
        prefetch(&[0u8; 300]);
        for len in [0, 1, 63, 64, 65, 5000] {
            prefetch_bytes(&vec![0; len]);
        }
        prefetch_bytes(&[]);
    }
}
