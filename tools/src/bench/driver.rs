//! What the load generator needs to know of a protocol: how to open a connection, write a request
//! and recognise a reply. Owns no sockets' readiness, no timing.

use std::borrow::Cow;
use std::net::TcpStream;

use super::server_side::Counters;

/// What one request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Read a value.
    Get,
    /// Store a value.
    Put,
}

/// What a reply said.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// A read found this value.
    Value(&'a [u8]),
    /// A read found nothing.
    Missing,
    /// A write was acknowledged.
    Stored,
    /// The server refused; the text names the kind of error.
    Failed(Cow<'a, str>),
}

/// One step of reading the input of a connection.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// A whole reply of this many bytes. Without an id it belongs to the oldest request.
    Reply {
        /// Bytes of input it took.
        consumed: usize,
        /// The request it answers, as given to `encode`.
        id: Option<u64>,
        /// What it said.
        outcome: Outcome<'a>,
    },
    /// Bytes that answer no request (a notice); skip them.
    Skip(usize),
    /// The input ends inside a reply; it needs at least this many bytes in all.
    Incomplete(usize),
}

/// A failure that ends the run.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// A connection could not be opened or broke.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// The cause.
        source: std::io::Error,
    },
    /// The server sent something that is no reply.
    #[error("protocol violation by the server: {0}")]
    Protocol(String),
    /// The server refuses to work with this tool.
    #[error("{0}")]
    Refused(String),
    /// Requests got no answer.
    #[error("{0}")]
    Stalled(String),
}

impl BenchError {
    /// An I/O error with what was being done.
    pub fn io(what: impl Into<String>, source: std::io::Error) -> BenchError {
        BenchError::Io { what: what.into(), source }
    }
}

/// A protocol the generator can speak.
pub trait Driver {
    /// Opens a connection, greets the server, and says which core it landed on (0 when the
    /// protocol has no notion of cores). The socket is still blocking.
    fn connect(&mut self, index: usize) -> Result<(TcpStream, usize), BenchError>;

    /// How many cores the server has; keys are routed to `0..cores`.
    fn cores(&self) -> usize;

    /// The core that owns a key.
    fn owner(&self, key: &[u8]) -> usize;

    /// Appends a read.
    fn get(&mut self, out: &mut Vec<u8>, id: u64, key: &[u8]);

    /// Appends a write.
    fn put(&mut self, out: &mut Vec<u8>, id: u64, key: &[u8], value: &[u8]);

    /// Reads the first reply in `input`.
    fn parse<'a>(&mut self, input: &'a [u8]) -> Result<Parsed<'a>, BenchError>;

    /// The server's counters, of all its nodes together, asked over connections of their own;
    /// `None` when the server has none.
    fn counters(&mut self) -> Result<Option<Counters>, BenchError>;
}
