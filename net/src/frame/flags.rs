//! The small fields of headers: flags, quorums, consistency.

use std::fmt;

/// Defines a set of flag bits.
macro_rules! flag_set {
    ($(#[$doc:meta])* $name:ident { $($(#[$flag_doc:meta])* $flag:ident = $bit:expr,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
        pub struct $name(pub u16);

        impl $name {
            /// No flag.
            pub const NONE: Self = Self(0);
            $($(#[$flag_doc])* pub const $flag: Self = Self(1 << $bit);)*
            /// Every flag this version knows.
            pub const KNOWN: Self = Self(0 $(| 1 << $bit)*);

            /// Whether all flags of `other` are set.
            #[inline]
            pub const fn contains(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }

            /// These flags and those of `other`.
            #[inline]
            #[must_use]
            pub const fn with(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }

            /// These flags without those of `other`.
            #[inline]
            #[must_use]
            pub const fn without(self, other: Self) -> Self {
                Self(self.0 & !other.0)
            }
        }

        impl std::ops::BitOr for $name {
            type Output = Self;
            fn bitor(self, other: Self) -> Self {
                self.with(other)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut left = self.0;
                f.write_str(stringify!($name))?;
                f.write_str("(")?;
                $(if self.contains(Self::$flag) {
                    left &= !Self::$flag.0;
                    f.write_str(concat!(stringify!($flag), " "))?;
                })*
                if left != 0 {
                    write!(f, "{left:#x}")?;
                }
                f.write_str(")")
            }
        }
    };
}

flag_set! {
    /// Flags of a request.
    RequestFlags {
        /// The body begins with an idempotency token.
        TOKEN = 0,
        /// An earlier attempt of this request may have been applied.
        RETRY = 1,
        /// The body begins, after the token, with the keyspace's id; else it is the default one.
        KEYSPACE = 2,
    }
}

flag_set! {
    /// Flags of a reply.
    ReplyFlags {
        /// The request came to the wrong core and was forwarded; `owner` names the right one.
        FORWARDED = 0,
        /// Another frame answers the same request.
        MORE = 1,
        /// Some acknowledgements came from stand-ins for unreachable replicas.
        SLOPPY = 2,
        /// The read found replicas that differ and repaired them.
        REPAIRED = 3,
        /// A slow replica was asked a second time elsewhere.
        HEDGED = 4,
        /// The write's outcome is not known.
        IN_DOUBT = 5,
        /// The body begins with routing information.
        ROUTING = 6,
    }
}

/// Bit of both flag fields that tells a reply from a request.
pub(crate) const DIRECTION_REPLY: u16 = 1 << 15;

/// How many replicas have to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Quorum(pub u8);

impl Quorum {
    /// The cluster's default, a majority.
    pub const DEFAULT: Quorum = Quorum(0);
    /// A majority of the replicas.
    pub const MAJORITY: Quorum = Quorum(254);
    /// All replicas.
    pub const ALL: Quorum = Quorum(255);

    /// The number of answers to wait for with `replicas`; `None` when it asks for more than
    /// there are.
    pub fn resolve(self, replicas: u8) -> Option<u8> {
        match self {
            Quorum::DEFAULT | Quorum::MAJORITY => Some(replicas / 2 + 1),
            Quorum::ALL => Some(replicas),
            Quorum(number) => (number <= replicas).then_some(number),
        }
    }
}

/// When a write counts as stored by a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Durability {
    /// As the node is configured.
    #[default]
    Default,
    /// After the disk confirmed it.
    Durable,
    /// Once written, synced within an interval.
    Buffered,
}

/// Whether stand-ins may answer for unreachable replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum QuorumMode {
    /// As the cluster is configured.
    #[default]
    Default,
    /// Stand-ins count.
    Sloppy,
    /// Only the replicas themselves count.
    Strict,
}

/// What a request asks of consistency beyond R and W. Two bytes on the wire:
/// bits 0-1 durability, 2-3 quorum mode, 4 last write wins, 5 monotonic, 8-11 racks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Consistency {
    /// When a write counts as stored.
    pub durability: Durability,
    /// Who may count towards R and W.
    pub mode: QuorumMode,
    /// Resolve siblings by the latest timestamp.
    pub lww: bool,
    /// A read: no later read with the same R may miss what this one returns.
    pub monotonic: bool,
    /// Racks the acknowledgements must come from, up to 15; 0 asks for nothing.
    pub racks: u8,
}

impl Consistency {
    /// The field on the wire. More than 15 racks are sent as 15.
    pub fn to_u16(self) -> u16 {
        let durability = match self.durability {
            Durability::Default => 0,
            Durability::Durable => 1,
            Durability::Buffered => 2,
        };
        let mode = match self.mode {
            QuorumMode::Default => 0,
            QuorumMode::Sloppy => 1 << 2,
            QuorumMode::Strict => 2 << 2,
        };
        let told = u16::from(self.lww) << 4 | u16::from(self.monotonic) << 5;
        durability | mode | told | u16::from(self.racks.min(15)) << 8
    }

    /// The meaning of the field; `None` when it has bits this version does not know.
    pub fn from_u16(bits: u16) -> Option<Self> {
        if bits == 0 {
            return Some(Self::default());
        }
        let durability = match bits & 3 {
            0 => Durability::Default,
            1 => Durability::Durable,
            2 => Durability::Buffered,
            _ => return None,
        };
        let mode = match bits >> 2 & 3 {
            0 => QuorumMode::Default,
            1 => QuorumMode::Sloppy,
            2 => QuorumMode::Strict,
            _ => return None,
        };
        let known = bits & !0x0f3f == 0;
        let racks = (bits >> 8 & 15) as u8; // four bits
        let (lww, monotonic) = (bits & 1 << 4 != 0, bits & 1 << 5 != 0);
        known.then_some(Self { durability, mode, lww, monotonic, racks })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consistency_comes_back_and_unknown_bits_are_refused() {
        let mut known = 0;
        for bits in 0..=u16::MAX {
            if let Some(consistency) = Consistency::from_u16(bits) {
                assert_eq!(consistency.to_u16(), bits);
                known += 1;
            }
        }
        assert_eq!(known, 3 * 3 * 2 * 2 * 16);
    }

    #[test]
    fn quorums_resolve() {
        assert_eq!(Quorum::DEFAULT.resolve(3), Some(2));
        assert_eq!(Quorum::MAJORITY.resolve(1), Some(1));
        assert_eq!(Quorum::ALL.resolve(5), Some(5));
        assert_eq!(Quorum(2).resolve(3), Some(2));
        assert_eq!(Quorum(2).resolve(1), None);
    }

    #[test]
    fn flags_combine_and_print() {
        let flags = ReplyFlags::MORE | ReplyFlags::HEDGED;
        assert!(flags.contains(ReplyFlags::MORE) && !flags.contains(ReplyFlags::SLOPPY));
        assert_eq!(flags.without(ReplyFlags::MORE), ReplyFlags::HEDGED);
        assert_eq!(format!("{flags:?}"), "ReplyFlags(MORE HEDGED )");
    }
}
