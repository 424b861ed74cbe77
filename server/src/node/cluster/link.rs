//! One connection between two nodes: what is being sent on it and what was worked off.

use std::collections::VecDeque;

use coronet_lsm::env::Nanos;
use coronet_net::peer::{Batch, Frame, FrameKind, begin_batch, finish_frame};
use coronet_ring::NodeId;

/// Bytes on their way to a peer that it has not worked off.
pub(super) const WINDOW: u64 = 16 << 20;
/// Size from which a batch is ended and the next one begun.
const BATCH: usize = 1 << 20;
/// Bytes of a message in a batch that are not counted: its length.
const MESSAGE_HEAD: usize = 4;

/// What a connection is for.
pub(super) enum Role {
    /// This node sends here; the address it dialed.
    Sends(String),
    /// This node reads here.
    Reads,
}

/// See the module.
pub(super) struct Link {
    pub role: Role,
    /// Who is at the other end, once greeted.
    pub node: Option<NodeId>,
    pub opened: Nanos,
    pub input: Vec<u8>,
    pub output: Vec<u8>,
    /// Where in `output` the batch begins that is being filled.
    pub batch: Option<usize>,
    /// Encoded messages that wait for credit.
    pub waiting: VecDeque<Vec<u8>>,
    pub waiting_bytes: usize,
    /// Bytes of messages sent, and of those the other side has worked off.
    pub sent: u64,
    pub credited: u64,
    /// When the other side last was seen to work something off, or had nothing to.
    pub moved: Nanos,
    /// Something was worked off since time was told last.
    pub moving: bool,
    /// The node was told to be quiet since it moved last.
    pub told_quiet: bool,
    /// Bytes of messages worked off here, and told.
    pub worked: u64,
    pub granted: u64,
    pub closing: bool,
    pub dirty: bool,
}

impl Link {
    pub(super) fn new(role: Role, now: Nanos) -> Self {
        Link {
            role,
            node: None,
            opened: now,
            input: Vec::new(),
            output: Vec::new(),
            batch: None,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            sent: 0,
            credited: 0,
            moved: now,
            moving: false,
            told_quiet: false,
            worked: 0,
            granted: 0,
            closing: false,
            dirty: false,
        }
    }

    pub(super) fn end_batch(&mut self) {
        if let Some(at) = self.batch.take() {
            finish_frame(&mut self.output, at);
        }
    }

    /// Whether the other side has room for a message.
    pub(super) fn has_credit(&self) -> bool {
        self.sent - self.credited < WINDOW
    }

    /// The other side has worked off so many bytes in all.
    pub(super) fn credit(&mut self, total: u64) {
        let total = total.min(self.sent);
        self.moving |= total > self.credited;
        self.credited = self.credited.max(total);
        self.drain();
    }

    /// Sends a message that `write` appends.
    pub(super) fn append(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.batch.is_some_and(|at| self.output.len() - at > BATCH) {
            self.end_batch();
        }
        if self.batch.is_none() {
            self.batch = Some(begin_batch(&mut self.output));
        }
        let before = self.output.len() + MESSAGE_HEAD;
        Batch::push(&mut self.output, write);
        self.sent += (self.output.len() - before) as u64;
    }

    pub(super) fn frame(&mut self, kind: FrameKind, write: impl FnOnce(&mut Vec<u8>)) {
        self.end_batch();
        Frame::write(kind, &mut self.output, write);
    }

    /// Sends what waits as far as the credit goes.
    fn drain(&mut self) {
        while self.has_credit() {
            let Some(message) = self.waiting.pop_front() else { break };
            self.waiting_bytes -= message.len();
            self.append(|into| into.extend_from_slice(&message));
        }
    }
}
