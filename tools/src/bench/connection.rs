//! One non-blocking connection of the generator: its buffers and the requests in flight on it.
//! Moves bytes and matches replies to requests; decides nothing about what to send or when.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};

use mio::net::TcpStream;

use super::driver::{BenchError, Driver, Op, Outcome, Parsed};

/// A request in flight.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// What it does.
    pub op: Op,
    /// The number of its key.
    pub key: u64,
    /// When it should have been sent, in nanoseconds of the run's clock.
    pub intended: u64,
    /// When it was sent.
    pub sent: u64,
}

/// Bytes read at a time; also the least a partial reply's buffer holds.
pub const READ_BYTES: usize = 256 * 1024;

/// A connection and its requests in flight.
pub struct Connection {
    /// The socket.
    pub stream: TcpStream,
    /// The server core it belongs to.
    pub core: usize,
    /// Bytes sent so far.
    pub sent_bytes: u64,
    /// Bytes received so far.
    pub received_bytes: u64,
    /// The start of a reply whose end has not arrived; `partial_len` bytes are valid.
    partial: Vec<u8>,
    partial_len: usize,
    /// Requests not yet taken by the socket, from `written` on.
    output: Vec<u8>,
    written: usize,
    slots: Vec<Option<Request>>,
    free: Vec<usize>,
    order: VecDeque<usize>,
}

impl Connection {
    /// A connection that keeps at most `depth` requests in flight.
    pub fn new(stream: TcpStream, core: usize, depth: usize) -> Connection {
        Connection {
            stream,
            core,
            sent_bytes: 0,
            received_bytes: 0,
            partial: Vec::new(),
            partial_len: 0,
            output: Vec::new(),
            written: 0,
            slots: vec![None; depth],
            free: (0..depth).rev().collect(),
            order: VecDeque::with_capacity(depth),
        }
    }

    /// Whether another request may be sent.
    #[inline]
    pub fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    /// Encodes a request behind those waiting to be written. The caller made sure of room.
    pub fn enqueue<D: Driver>(
        &mut self,
        driver: &mut D,
        request: Request,
        key: &[u8],
        value: &[u8],
    ) {
        let Some(slot) = self.free.pop() else { unreachable!("enqueue without room") };
        self.slots[slot] = Some(request);
        self.order.push_back(slot);
        match request.op {
            Op::Get => driver.get(&mut self.output, slot as u64, key),
            Op::Put => driver.put(&mut self.output, slot as u64, key, value),
        }
    }

    /// Writes what the socket takes; the rest waits for writability.
    pub fn flush(&mut self) -> Result<(), BenchError> {
        while self.written < self.output.len() {
            match self.stream.write(&self.output[self.written..]) {
                Ok(0) => return Err(closed()),
                Ok(written) => self.written += written,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(BenchError::io("sending requests", e)),
            }
        }
        self.sent_bytes += self.output.len() as u64;
        self.output.clear();
        self.written = 0;
        Ok(())
    }

    /// Reads all there is and hands each reply with its request to `complete`. `scratch` is shared
    /// by all connections, so that whole replies stay in the processor's cache.
    pub fn receive<D: Driver>(
        &mut self,
        driver: &mut D,
        scratch: &mut [u8],
        mut complete: impl FnMut(Request, Outcome<'_>) -> Result<(), BenchError>,
    ) -> Result<(), BenchError> {
        loop {
            let through_scratch = self.partial_len == 0;
            let target: &mut [u8] =
                if through_scratch { &mut *scratch } else { &mut self.partial[self.partial_len..] };
            let space = target.len();
            let read = match self.stream.read(target) {
                Ok(0) => return Err(closed()),
                Ok(read) => read,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(BenchError::io("reading replies", e)),
            };
            self.received_bytes += read as u64;
            if through_scratch {
                let (used, need) = self.answer(driver, &scratch[..read], &mut complete)?;
                if used < read {
                    self.keep(&scratch[used..read], need);
                }
            } else {
                let end = self.partial_len + read;
                let partial = std::mem::take(&mut self.partial);
                let (used, need) = self.answer(driver, &partial[..end], &mut complete)?;
                self.partial = partial;
                self.partial.copy_within(used..end, 0);
                self.partial_len = end - used;
                self.reserve(need);
            }
            // Edge-triggered readiness: a short read has emptied the socket, and new bytes will
            // raise a new event.
            if read < space {
                return Ok(());
            }
        }
    }

    /// Answers all whole replies in `input`; returns the bytes used and the bytes that the rest
    /// needs in all.
    fn answer<D: Driver>(
        &mut self,
        driver: &mut D,
        input: &[u8],
        complete: &mut impl FnMut(Request, Outcome<'_>) -> Result<(), BenchError>,
    ) -> Result<(usize, usize), BenchError> {
        let mut used = 0;
        while used < input.len() {
            match driver.parse(&input[used..])? {
                Parsed::Reply { consumed, id, outcome } => {
                    used += consumed;
                    let request = self.take(id)?;
                    complete(request, outcome)?;
                }
                Parsed::Skip(consumed) => used += consumed,
                Parsed::Incomplete(need) => return Ok((used, need)),
            }
        }
        Ok((used, 0))
    }

    fn take(&mut self, id: Option<u64>) -> Result<Request, BenchError> {
        let slot = match id {
            None => self.order.pop_front(),
            Some(id) => {
                let position = self.order.iter().position(|&slot| slot as u64 == id);
                position.and_then(|position| self.order.remove(position))
            }
        };
        let request = slot.and_then(|slot| {
            self.free.push(slot);
            self.slots[slot].take()
        });
        request.ok_or_else(|| BenchError::Protocol("a reply to a request that was not sent".into()))
    }

    fn keep(&mut self, rest: &[u8], need: usize) {
        self.reserve(need.max(rest.len()));
        self.partial[..rest.len()].copy_from_slice(rest);
        self.partial_len = rest.len();
    }

    /// Room in `partial` for a reply of `need` bytes and for a good read beyond what is there.
    fn reserve(&mut self, need: usize) {
        let wanted = need.max(self.partial_len).max(READ_BYTES) + READ_BYTES / 4;
        if self.partial_len > 0 || need > 0 {
            self.partial.resize(wanted.max(self.partial.len()), 0);
        }
    }
}

fn closed() -> BenchError {
    BenchError::io(
        "a connection was closed by the server",
        std::io::Error::from(ErrorKind::ConnectionReset),
    )
}
