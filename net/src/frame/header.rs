//! The fixed headers, in memory and on the wire.

use coronet_ring::{CoreId, Epoch, KeyspaceId, PartitionId};
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::flags::{Consistency, DIRECTION_REPLY, Quorum, ReplyFlags, RequestFlags};
use crate::VERSION;
use crate::error::Status;
use crate::op::Op;

/// Bytes of a header, request or reply, length field included.
pub const HEADER_BYTES: usize = 40;

/// Where the checksum's coverage begins: after the length and the checksum.
pub(crate) const CHECKED_FROM: usize = 8;

/// The part of a header that is the same in every version and both directions, ever.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct WirePrefix {
    /// Bytes after this field.
    pub len: U32,
    /// CRC-32C of everything after this field.
    pub crc: U32,
    pub version: u8,
    pub op: u8,
    pub flags: U16,
    pub request_id: U64,
}

/// A request's header in version 1.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct WireRequest {
    pub prefix: WirePrefix,
    pub deadline_us: U32,
    pub partition: U16,
    pub r: u8,
    pub w: u8,
    pub consistency: U16,
    pub reserved: U16,
    pub epoch: U64,
}

/// A reply's header in version 1.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct WireReply {
    pub prefix: WirePrefix,
    pub server_us: U32,
    pub partition: U16,
    pub acks: u8,
    pub racks: u8,
    pub status: U16,
    pub owner: U16,
    pub epoch: U64,
}

const _: () = assert!(size_of::<WireRequest>() == HEADER_BYTES);
const _: () = assert!(size_of::<WireReply>() == HEADER_BYTES);

/// A request's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestHead {
    /// What is asked for.
    pub op: Op,
    /// Flags.
    pub flags: RequestFlags,
    /// The client's number for the request; its reply carries the same.
    pub request_id: u64,
    /// Time left to answer in microseconds; 0 leaves it to the node.
    pub deadline_us: u32,
    /// The partition the client takes the key for, or [`PartitionId::NONE`].
    pub partition: PartitionId,
    /// Replicas a read waits for.
    pub r: Quorum,
    /// Replicas a write waits for.
    pub w: Quorum,
    /// Further wishes.
    pub consistency: Consistency,
    /// The partition's placement as the client knows it; 0 when it does not.
    pub epoch: Epoch,
    /// The keyspace. Any but the default one travels at the front of the body.
    pub keyspace: KeyspaceId,
}

impl RequestHead {
    /// A header with defaults for everything but the operation and the number.
    pub fn new(op: Op, request_id: u64) -> Self {
        Self {
            op,
            flags: RequestFlags::NONE,
            request_id,
            deadline_us: 0,
            partition: PartitionId::NONE,
            r: Quorum::DEFAULT,
            w: Quorum::DEFAULT,
            consistency: Consistency::default(),
            epoch: Epoch(0),
            keyspace: KeyspaceId::DEFAULT,
        }
    }

    /// The keyspace the request works in: the default one if its operation has none.
    pub fn space(&self) -> KeyspaceId {
        if self.op.has_keyspace() { self.keyspace } else { KeyspaceId::DEFAULT }
    }

    pub(crate) fn to_wire(self) -> WireRequest {
        WireRequest {
            prefix: prefix(self.op.to_u8(), self.flags.0, self.request_id),
            deadline_us: self.deadline_us.into(),
            partition: self.partition.0.into(),
            r: self.r.0,
            w: self.w.0,
            consistency: self.consistency.to_u16().into(),
            reserved: 0.into(),
            epoch: self.epoch.0.into(),
        }
    }
}

/// A reply's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyHead {
    /// The operation's number as the request had it; unknown ones are answered too.
    pub op: u8,
    /// Flags.
    pub flags: ReplyFlags,
    /// The request's number.
    pub request_id: u64,
    /// Microseconds from arrival to answer inside the node.
    pub server_us: u32,
    /// The key's partition, or the partition a listing continues at; else [`PartitionId::NONE`].
    pub partition: PartitionId,
    /// Replicas that answered.
    pub acks: u8,
    /// Racks they are on.
    pub racks: u8,
    /// The outcome.
    pub status: Status,
    /// The core that owns the key, or [`CoreId::ANY`].
    pub owner: CoreId,
    /// The partition's placement as the node knows it.
    pub epoch: Epoch,
}

impl ReplyHead {
    /// A header with the outcome and nothing else to tell.
    pub fn new(op: u8, request_id: u64, status: Status) -> Self {
        Self {
            op,
            flags: ReplyFlags::NONE,
            request_id,
            server_us: 0,
            partition: PartitionId::NONE,
            acks: 0,
            racks: 0,
            status,
            owner: CoreId::ANY,
            epoch: Epoch(0),
        }
    }

    /// Whether another frame answers the same request.
    pub fn more(&self) -> bool {
        self.flags.contains(ReplyFlags::MORE)
    }

    pub(crate) fn to_wire(self) -> WireReply {
        WireReply {
            prefix: prefix(self.op, self.flags.0 | DIRECTION_REPLY, self.request_id),
            server_us: self.server_us.into(),
            partition: self.partition.0.into(),
            acks: self.acks,
            racks: self.racks,
            status: self.status.to_u16().into(),
            owner: self.owner.0.into(),
            epoch: self.epoch.0.into(),
        }
    }

    pub(crate) fn from_wire(wire: &WireReply) -> Self {
        Self {
            op: wire.prefix.op,
            flags: ReplyFlags(wire.prefix.flags.get() & !DIRECTION_REPLY),
            request_id: wire.prefix.request_id.get(),
            server_us: wire.server_us.get(),
            partition: PartitionId(wire.partition.get()),
            acks: wire.acks,
            racks: wire.racks,
            status: Status::from_u16(wire.status.get()),
            owner: CoreId(wire.owner.get()),
            epoch: Epoch(wire.epoch.get()),
        }
    }
}

/// A prefix whose length and checksum are filled in when the frame is complete.
fn prefix(op: u8, flags: u16, request_id: u64) -> WirePrefix {
    WirePrefix {
        len: 0.into(),
        crc: 0.into(),
        version: VERSION,
        op,
        flags: flags.into(),
        request_id: request_id.into(),
    }
}
