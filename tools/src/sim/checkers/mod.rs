//! Checkers of histories. Each is a function of what clients did and were told, and knows nothing
//! of nodes or wires.
//!
//! * [`linear`]: one register that all clients see change at one moment (Wing, Gong and Lowe).
//! * [`regular`]: one writer's register under strict quorums with R + W > N.
//! * [`session`]: what a client may no longer miss once it has written or seen it.
//! * [`staleness`]: how far behind reads are where nothing is promised, beside what to expect;
//!   [`plot`] draws it.

pub mod linear;
pub mod pbs;
pub mod plot;
pub mod regular;
pub mod session;
pub mod staleness;

/// What an operation on a register did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Wrote this; zero is "no value".
    Write(u64),
    /// Found this.
    Read(u64),
}

/// One operation on a register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Op {
    /// When it was sent.
    pub call: u64,
    /// When it was answered. `None`: never, and it may take effect at any time from `call` on.
    pub ret: Option<u64>,
    /// What it did.
    pub kind: Kind,
}

impl Op {
    /// When it was over at the latest.
    fn end(&self) -> u64 {
        self.ret.unwrap_or(u64::MAX)
    }

    /// What it found, if it is a read that was answered.
    fn found(&self) -> Option<u64> {
        match self.kind {
            Kind::Read(value) if self.ret.is_some() => Some(value),
            _ => None,
        }
    }

    /// Whether it was over before another began.
    fn precedes(&self, later: &Op) -> bool {
        self.end() < later.call
    }
}

#[cfg(test)]
mod testing {
    use super::{Kind, Op};

    pub fn write(call: u64, ret: u64, value: u64) -> Op {
        Op { call, ret: Some(ret), kind: Kind::Write(value) }
    }

    pub fn read(call: u64, ret: u64, value: u64) -> Op {
        Op { call, ret: Some(ret), kind: Kind::Read(value) }
    }

    pub fn unknown(call: u64, value: u64) -> Op {
        Op { call, ret: None, kind: Kind::Write(value) }
    }
}
