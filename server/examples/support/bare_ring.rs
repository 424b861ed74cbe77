//! The least that an `io_uring` TCP loop can be: one thread, one ring, no executor, no safety net.
//!
//! The yardstick that the runtime seam is measured against (`perf/seam`), and the engine of the
//! load client. Multishot accept and receive, provided buffers, one send per connection and turn,
//! one `enter` per turn. It handles the errors it must to go on and nothing else.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use coronet_lsm::env::AlignedBuf;
use io_uring::types::BufRingEntry;
use io_uring::{IoUring, cqueue, opcode, squeue, types};

const BUFFERS: u16 = 256;
const BUFFER_BYTES: usize = 16 * 1024;
const GROUP: u16 = 0;
const ACCEPT: u64 = 0;
const RECEIVE: u64 = 1;
const SEND: u64 = 2;

struct Connection {
    socket: OwnedFd,
    /// Filled by the application.
    output: Vec<u8>,
    /// With the kernel, from `sent` on.
    sending: Vec<u8>,
    sent: usize,
    queued: bool,
    open: bool,
}

/// A ring with its connections.
pub struct BareRing {
    uring: IoUring,
    entries: AlignedBuf,
    data: AlignedBuf,
    tail: u16,
    connections: Vec<Connection>,
    dirty: Vec<usize>,
    listener: Option<TcpListener>,
}

impl BareRing {
    /// A ring that accepts from `listener`, when there is one.
    pub fn new(listener: Option<TcpListener>) -> io::Result<Self> {
        let uring: IoUring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_coop_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_cqsize(4096)
            .build(512)?;
        let mut entries = AlignedBuf::zeroed(usize::from(BUFFERS) * size_of::<BufRingEntry>());
        // SAFETY: the memory lives as long as the ring: both are fields of one value that is
        // never dropped before the process ends.
        unsafe {
            uring.submitter().register_buf_ring_with_flags(
                entries.as_mut_ptr() as u64,
                BUFFERS,
                GROUP,
                0,
            )?;
        }
        let data = AlignedBuf::zeroed(usize::from(BUFFERS) * BUFFER_BYTES);
        let mut ring = Self {
            uring,
            entries,
            data,
            tail: 0,
            connections: Vec::new(),
            dirty: Vec::new(),
            listener,
        };
        for id in 0..BUFFERS {
            ring.recycle(id);
        }
        if ring.listener.is_some() {
            ring.accept();
        }
        Ok(ring)
    }

    /// Adds a connected socket with something to say first.
    pub fn add(&mut self, socket: OwnedFd, output: Vec<u8>) {
        let index = self.connections.len();
        self.connections.push(Connection {
            socket,
            output,
            sending: Vec::new(),
            sent: 0,
            queued: true,
            open: true,
        });
        self.dirty.push(index);
        self.receive(index);
    }

    /// Runs until `until`; `on_bytes` gets what a connection received and appends what it answers.
    pub fn run(
        &mut self,
        until: Option<Instant>,
        mut on_bytes: impl FnMut(usize, &[u8], &mut Vec<u8>),
    ) -> io::Result<()> {
        let mut batch: Vec<(u64, i32, u32)> = Vec::new();
        while until.is_none_or(|until| Instant::now() < until) {
            self.flush();
            let patience = types::Timespec::from(Duration::from_millis(100));
            let args = types::SubmitArgs::new().timespec(&patience);
            let entered = match until {
                None => self.uring.submit_and_wait(1),
                Some(_) => self.uring.submitter().submit_with_args(1, &args),
            };
            match entered.map_err(|error| error.raw_os_error()) {
                Ok(_) | Err(Some(libc::EINTR | libc::ETIME | libc::EBUSY)) => {}
                Err(code) => return Err(io::Error::from_raw_os_error(code.unwrap_or(libc::EIO))),
            }
            let completions = self.uring.completion();
            batch.extend(completions.map(|cqe| (cqe.user_data(), cqe.result(), cqe.flags())));
            for (tag, result, flags) in batch.drain(..) {
                let index = (tag >> 8) as usize;
                match tag & 0xff {
                    ACCEPT => self.accepted(result, flags),
                    RECEIVE => self.received(index, result, flags, &mut on_bytes),
                    _ => self.sent(index, result),
                }
            }
        }
        Ok(())
    }

    fn accepted(&mut self, result: i32, flags: u32) {
        if result >= 0 {
            // SAFETY: a fresh descriptor that nobody else owns.
            let socket = unsafe { OwnedFd::from_raw_fd(result) };
            let stream = std::net::TcpStream::from(socket);
            let _ = stream.set_nodelay(true);
            self.add(OwnedFd::from(stream), Vec::new());
        }
        if !cqueue::more(flags) {
            self.accept();
        }
    }

    fn received(
        &mut self,
        index: usize,
        result: i32,
        flags: u32,
        on_bytes: &mut impl FnMut(usize, &[u8], &mut Vec<u8>),
    ) {
        if let Some(id) = cqueue::buffer_select(flags) {
            let start = usize::from(id) * BUFFER_BYTES;
            let bytes = &self.data[start..start + usize::try_from(result).unwrap_or(0)];
            let connection = &mut self.connections[index];
            on_bytes(index, bytes, &mut connection.output);
            if !connection.queued && !connection.output.is_empty() {
                connection.queued = true;
                self.dirty.push(index);
            }
            self.recycle(id);
        }
        if !cqueue::more(flags) {
            if result > 0 || result == -libc::ENOBUFS {
                self.receive(index);
            } else {
                self.connections[index].open = false;
            }
        }
    }

    fn sent(&mut self, index: usize, result: i32) {
        let connection = &mut self.connections[index];
        let Ok(count) = usize::try_from(result) else {
            connection.open = false;
            return;
        };
        connection.sent += count;
        if connection.sent < connection.sending.len() {
            return self.send(index);
        }
        connection.sending.clear();
        if !connection.output.is_empty() && !connection.queued {
            connection.queued = true;
            self.dirty.push(index);
        }
    }

    fn flush(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for index in dirty.drain(..) {
            let connection = &mut self.connections[index];
            connection.queued = false;
            if connection.sending.is_empty() && !connection.output.is_empty() && connection.open {
                std::mem::swap(&mut connection.sending, &mut connection.output);
                connection.sent = 0;
                self.send(index);
            }
        }
        self.dirty = dirty;
    }

    fn send(&mut self, index: usize) {
        let connection = &self.connections[index];
        let rest = &connection.sending[connection.sent..];
        let fd = types::Fd(connection.socket.as_raw_fd());
        let entry = opcode::Send::new(fd, rest.as_ptr(), rest.len() as u32)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
            .build();
        self.push(entry.user_data((index as u64) << 8 | SEND));
    }

    fn receive(&mut self, index: usize) {
        let fd = types::Fd(self.connections[index].socket.as_raw_fd());
        let entry = opcode::RecvMulti::new(fd, GROUP).build();
        self.push(entry.user_data((index as u64) << 8 | RECEIVE));
    }

    fn accept(&mut self) {
        let Some(listener) = &self.listener else { return };
        let fd = types::Fd(listener.as_raw_fd());
        let entry = opcode::AcceptMulti::new(fd).flags(libc::SOCK_CLOEXEC).build();
        self.push(entry.user_data(ACCEPT));
    }

    fn push(&mut self, entry: squeue::Entry) {
        // SAFETY: buffers that entries point to belong to connections, which are never dropped or
        // changed while a send is in flight.
        while unsafe { self.uring.submission().push(&entry) }.is_err() {
            if self.uring.submit().is_err() {
                return;
            }
        }
    }

    fn recycle(&mut self, id: u16) {
        let at = usize::from(self.tail & (BUFFERS - 1));
        let start = usize::from(id) * BUFFER_BYTES;
        let address = self.data.spare_mut()[start..].as_mut_ptr() as u64;
        let base = self.entries.spare_mut().as_mut_ptr().cast::<BufRingEntry>();
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: `at` is within the entries; the tail field is written by this thread only.
        unsafe {
            let entry = &mut *base.add(at);
            entry.set_addr(address);
            entry.set_len(BUFFER_BYTES as u32);
            entry.set_bid(id);
            let tail = BufRingEntry::tail(base).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }
}
