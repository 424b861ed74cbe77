//! Answers: whom they go to, their headers, and the words of errors.

use coronet_lsm as lsm;
use coronet_lsm::env::Nanos;
use coronet_net::codec::ErrorReply;
use coronet_net::{ErrorCode, FrameWriter, ReplyFlags, ReplyHead, RequestHead, Status};
use coronet_ring::{CoreId, Epoch, PartitionId};

use crate::node::{ConnId, Timed};

/// The version of the placement: a single node has one and never changes it.
pub(super) const EPOCH: Epoch = Epoch(1);

/// Everything needed to answer one request, now or later.
#[derive(Debug, Clone)]
pub(super) struct Ticket {
    /// The core that holds the connection.
    pub origin: CoreId,
    /// The connection.
    pub conn: ConnId,
    /// The client's number of the request.
    pub request_id: u64,
    /// The operation's number.
    pub op: u8,
    /// Whether the request came to another core than this.
    pub forwarded: bool,
    /// When it arrived.
    pub arrived: Nanos,
    /// When it is too late.
    pub deadline: Option<Nanos>,
    /// Bytes it holds while in flight.
    pub cost: usize,
    /// The key's partition, or [`PartitionId::NONE`].
    pub partition: PartitionId,
    /// The core that owns it, or [`CoreId::ANY`].
    pub owner: CoreId,
}

impl Ticket {
    /// A ticket for a request that arrived at `arrived` over `conn` of core `origin`.
    pub(super) fn new(
        head: &RequestHead,
        origin: (CoreId, ConnId),
        me: CoreId,
        arrived: Nanos,
        cost: usize,
    ) -> Self {
        let micros = u64::from(head.deadline_us);
        let deadline = Nanos(arrived.0.saturating_add(micros.saturating_mul(1000)));
        Ticket {
            origin: origin.0,
            conn: origin.1,
            request_id: head.request_id,
            op: head.op.to_u8(),
            forwarded: origin.0 != me,
            arrived,
            deadline: (micros > 0).then_some(deadline),
            cost,
            partition: PartitionId::NONE,
            owner: CoreId::ANY,
        }
    }

    /// How its latency is counted.
    pub(super) fn timed(&self) -> Timed {
        Timed { op: self.op, arrived: self.arrived }
    }

    /// Whether the deadline has passed.
    pub(super) fn is_late(&self, now: Nanos) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }

    /// The reply's header.
    pub(super) fn head(&self, status: Status) -> ReplyHead {
        ReplyHead {
            flags: if self.forwarded { ReplyFlags::FORWARDED } else { ReplyFlags::NONE },
            partition: self.partition,
            acks: 1,
            racks: 1,
            owner: self.owner,
            epoch: EPOCH,
            ..ReplyHead::new(self.op, self.request_id, status)
        }
    }

    /// The header of an answer that took its time.
    pub(super) fn head_at(&self, status: Status, now: Nanos) -> ReplyHead {
        let micros = now.since(self.arrived).as_micros();
        ReplyHead { server_us: u32::try_from(micros).unwrap_or(u32::MAX), ..self.head(status) }
    }

    /// Appends an error reply.
    pub(super) fn fail(&self, failure: &Failure, out: &mut Vec<u8>) {
        let head = ReplyHead { acks: 0, racks: 0, ..self.head(failure.code.into()) };
        write_error(out, &head, failure);
    }
}

/// Appends an error reply with this header.
pub(super) fn write_error(out: &mut Vec<u8>, head: &ReplyHead, failure: &Failure) {
    let in_doubt = failure.code == ErrorCode::InDoubt;
    let flags = if in_doubt { head.flags | ReplyFlags::IN_DOUBT } else { head.flags };
    let mut frame = FrameWriter::reply(out, &ReplyHead { flags, ..*head });
    let body = ErrorReply { retry_after_ms: failure.retry_after_ms, text: &failure.text };
    body.write(frame.body());
    frame.finish();
}

/// Appends an error reply from the control core.
pub(in crate::node) fn error_frame(
    out: &mut Vec<u8>,
    head: &ReplyHead,
    code: ErrorCode,
    text: String,
) {
    write_error(out, head, &Failure { code, retry_after_ms: 0, text });
}

/// Why a request is not answered as asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// The class.
    pub code: ErrorCode,
    /// When to try again, milliseconds; zero leaves it to the client.
    pub retry_after_ms: u32,
    /// For people.
    pub text: String,
}

impl Failure {
    pub(super) fn new(code: ErrorCode, text: impl Into<String>) -> Self {
        Failure { code, retry_after_ms: 0, text: text.into() }
    }

    /// The deadline passed before anything was done.
    pub(super) fn late() -> Self {
        Self::new(ErrorCode::DeadlineExceeded, "the deadline passed before the request's turn")
    }

    /// The node is stopping.
    pub(super) fn stopping() -> Self {
        Self::new(ErrorCode::ShuttingDown, "the node is stopping; nothing was done")
    }

    /// A read, or a write that the engine refused at once: nothing was applied.
    pub(super) fn of_engine(error: &lsm::Error) -> Self {
        let text = error.to_string();
        let code = match error {
            lsm::Error::Busy { retry_after_ms } => {
                let retry_after_ms = (*retry_after_ms).max(1);
                // The code says already that it is busy and that nothing was applied.
                let text = format!("the engine takes no more writes for {retry_after_ms} ms");
                return Failure { code: ErrorCode::Busy, retry_after_ms, text };
            }
            lsm::Error::Corruption { .. } => ErrorCode::Corruption,
            lsm::Error::TooLarge { what: "key", .. } => ErrorCode::KeyTooLarge,
            lsm::Error::TooLarge { .. } => ErrorCode::ValueTooLarge,
            lsm::Error::Closed => ErrorCode::ShuttingDown,
            error if error.is_disk_full() => ErrorCode::DiskFull,
            lsm::Error::UnknownVersion { .. }
            | lsm::Error::Io { .. }
            | lsm::Error::LogFailed(_)
            | lsm::Error::Policy(_)
            | lsm::Error::Keyspace { .. }
            | lsm::Error::BadOptions(_)
            | lsm::Error::DiskFull => ErrorCode::Internal,
        };
        Self::new(code, text)
    }

    /// A write that was applied and whose commit failed: nobody knows what survives.
    pub(super) fn of_commit(error: &lsm::Error) -> Self {
        Self::new(ErrorCode::InDoubt, format!("the write may or may not survive: {error}"))
    }
}
