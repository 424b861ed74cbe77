//! The ring of receive buffers that the kernel picks from.
//!
//! Multishot receives name this group instead of a buffer; a completion says which buffer was
//! filled. It is given back as soon as its bytes were handed to the connection, so a few hundred
//! buffers serve any number of connections.

use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

use coronet_lsm::env::AlignedBuf;
use io_uring::types::BufRingEntry;

use super::ring::Ring;

/// Buffers in the group; a power of two.
const COUNT: u16 = 256;
/// Bytes of one buffer: several pipelined requests, or a slice of a large value.
const SIZE: usize = 16 * 1024;
/// The group's name in receive operations.
pub(super) const GROUP: u16 = 1;

/// The receive buffers of one core.
pub(super) struct ReceiveBuffers {
    /// Page-aligned, as the kernel asks; shared with it.
    entries: AlignedBuf,
    data: AlignedBuf,
    tail: u16,
    registered: bool,
}

impl ReceiveBuffers {
    /// Allocates the buffers and registers them with the ring.
    #[allow(unsafe_code)]
    pub(super) fn register(ring: &Ring) -> io::Result<Self> {
        let mut entries = AlignedBuf::zeroed(usize::from(COUNT) * size_of::<BufRingEntry>());
        let address = entries.as_mut_ptr() as u64;
        // SAFETY: the memory lives until `release`, or for ever when that was not called.
        ring.with_submitter(|submitter| unsafe {
            submitter.register_buf_ring_with_flags(address, COUNT, GROUP, 0)
        })?;
        let data = AlignedBuf::zeroed(usize::from(COUNT) * SIZE);
        let mut buffers = Self { entries, data, tail: 0, registered: true };
        for id in 0..COUNT {
            buffers.put(id);
        }
        buffers.publish();
        Ok(buffers)
    }

    /// The bytes the kernel put into buffer `id`.
    pub(super) fn filled(&self, id: u16, len: usize) -> &[u8] {
        let start = usize::from(id) * SIZE;
        &self.data[start..start + len.min(SIZE)]
    }

    /// Gives buffer `id` back to the kernel.
    pub(super) fn recycle(&mut self, id: u16) {
        self.put(id);
        self.publish();
    }

    #[allow(unsafe_code)]
    fn put(&mut self, id: u16) {
        let at = usize::from(self.tail & (COUNT - 1));
        let start = usize::from(id) * SIZE;
        let address = self.data.spare_mut()[start..start + SIZE].as_mut_ptr() as u64;
        let entry = self.entries.spare_mut().as_mut_ptr().cast::<BufRingEntry>();
        // SAFETY: `at` is below COUNT, the memory holds COUNT aligned entries, and the kernel
        // reads an entry only after the tail moved past it. The setters leave the first entry's
        // reserved field, which is the tail, alone.
        let entry = unsafe { &mut *entry.add(at) };
        entry.set_addr(address);
        entry.set_len(SIZE as u32);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
    }

    #[allow(unsafe_code)]
    fn publish(&mut self) {
        let base = self.entries.as_ptr().cast::<BufRingEntry>();
        // SAFETY: `base` is the group's first entry; its tail field is an aligned u16 that lives
        // as long as the group and that only this thread writes.
        unsafe {
            let tail = BufRingEntry::tail(base).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }

    /// Takes the memory back from the kernel; no receive may be in flight.
    pub(super) fn release(&mut self, ring: &Ring) {
        if ring.with_submitter(|submitter| submitter.unregister_buf_ring(GROUP)).is_ok() {
            self.registered = false;
        }
    }
}

impl Drop for ReceiveBuffers {
    fn drop(&mut self) {
        if self.registered {
            // The kernel may still write here: leak rather than hand the memory out again.
            std::mem::forget(std::mem::take(&mut self.entries));
            std::mem::forget(std::mem::take(&mut self.data));
        }
    }
}
