//! The operations.

use std::fmt;

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Op {
    /// Answers with the same bytes.
    Ping = 1,
    /// Opens a connection: versions, layout, limits.
    Hello = 2,
    /// Stores a value under a key.
    Put = 3,
    /// Reads a key.
    Get = 4,
    /// Deletes a key.
    Delete = 5,
    /// Reads several keys.
    MultiGet = 6,
    /// Lists keys with a prefix, page by page.
    List = 7,
    /// Reads the node's counters.
    Stats = 8,
    /// Asks where a key lives.
    Route = 9,
    /// Asks for the cluster's nodes and where partitions are.
    Topology = 10,
    /// Creates, changes and lists keyspaces.
    Keyspace = 11,
    /// Has the node do what its operator wants.
    Admin = 12,
}

impl Op {
    /// Every operation.
    pub const ALL: [Op; 12] = [
        Op::Ping,
        Op::Hello,
        Op::Put,
        Op::Get,
        Op::Delete,
        Op::MultiGet,
        Op::List,
        Op::Stats,
        Op::Route,
        Op::Topology,
        Op::Keyspace,
        Op::Admin,
    ];

    /// The operation of a number.
    #[inline]
    pub fn from_u8(number: u8) -> Option<Op> {
        Some(match number {
            1 => Op::Ping,
            2 => Op::Hello,
            3 => Op::Put,
            4 => Op::Get,
            5 => Op::Delete,
            6 => Op::MultiGet,
            7 => Op::List,
            8 => Op::Stats,
            9 => Op::Route,
            10 => Op::Topology,
            11 => Op::Keyspace,
            12 => Op::Admin,
            _ => return None,
        })
    }

    /// The number on the wire.
    #[inline]
    pub fn to_u8(self) -> u8 {
        self as u8
    }

    /// The name, as in the specification.
    pub fn name(self) -> &'static str {
        match self {
            Op::Ping => "PING",
            Op::Hello => "HELLO",
            Op::Put => "PUT",
            Op::Get => "GET",
            Op::Delete => "DELETE",
            Op::MultiGet => "MULTI_GET",
            Op::List => "LIST",
            Op::Stats => "STATS",
            Op::Route => "ROUTE",
            Op::Topology => "TOPOLOGY",
            Op::Keyspace => "KEYSPACE",
            Op::Admin => "ADMIN",
        }
    }

    /// Whether the operation works in the keyspace its request names; others ignore it.
    pub fn has_keyspace(self) -> bool {
        matches!(self, Op::Put | Op::Get | Op::Delete | Op::MultiGet | Op::List)
    }

    /// Whether the operation changes data, so that doing it twice may matter.
    pub fn is_write(self) -> bool {
        matches!(self, Op::Put | Op::Delete)
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back() {
        for op in Op::ALL {
            assert_eq!(Op::from_u8(op.to_u8()), Some(op));
        }
        assert_eq!(Op::from_u8(0), None);
        let known = (0..=u8::MAX).filter_map(Op::from_u8).count();
        assert_eq!(known, Op::ALL.len());
    }
}
