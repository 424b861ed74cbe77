//! The body of ADMIN requests: what an operator asks of one node.

use coronet_ring::bytes::Reader;

use super::{DecodeError, finished, read_short, write_short};

const SCRUB_RATE: u8 = 1;
const SCRUB_NOW: u8 = 2;
const ACCEPT_LOSS: u8 = 3;
const CHECKPOINT: u8 = 4;

/// The longest name of a checkpoint, bytes.
pub const MAX_CHECKPOINT_NAME: usize = 64;

/// What an operator asks of a node; all its data cores do it. Answered with counters, as STATS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admin<'a> {
    /// The scrub reads so many bytes per second from now on, all cores together; zero stops it.
    ScrubRate(u64),
    /// The scrub begins a new pass over all tables at once.
    ScrubNow,
    /// What is in quarantine is given up: reads answer from what is left.
    AcceptLoss,
    /// A copy of the node's data as it is now.
    Checkpoint {
        /// Its name: letters, digits, `.`, `_` and `-`, not beginning with a dot.
        name: &'a str,
    },
}

impl<'a> Admin<'a> {
    /// Decodes the body: action u8, then what it needs.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let action = reader.u8().ok_or(DecodeError::Truncated("action"))?;
        let admin = match action {
            SCRUB_RATE => {
                Admin::ScrubRate(reader.u64().ok_or(DecodeError::Truncated("scrub rate"))?)
            }
            SCRUB_NOW => Admin::ScrubNow,
            ACCEPT_LOSS => Admin::AcceptLoss,
            CHECKPOINT => {
                let name = read_short(&mut reader, "checkpoint name")?;
                let name =
                    std::str::from_utf8(name).map_err(|_| DecodeError::Text("checkpoint name"))?;
                if !is_checkpoint_name(name) {
                    return Err(DecodeError::OutOfBounds("checkpoint name"));
                }
                Admin::Checkpoint { name }
            }
            _ => return Err(DecodeError::OutOfBounds("action")),
        };
        finished(&reader)?;
        Ok(admin)
    }

    /// Appends the body.
    pub(crate) fn write(&self, body: &mut Vec<u8>) {
        match self {
            Admin::ScrubRate(rate) => {
                body.push(SCRUB_RATE);
                body.extend_from_slice(&rate.to_le_bytes());
            }
            Admin::ScrubNow => body.push(SCRUB_NOW),
            Admin::AcceptLoss => body.push(ACCEPT_LOSS),
            Admin::Checkpoint { name } => {
                body.push(CHECKPOINT);
                write_short(body, |body| body.extend_from_slice(name.as_bytes()));
            }
        }
    }
}

/// Whether a checkpoint may have this name. It becomes the name of a folder, so nothing in it may
/// lead elsewhere.
pub fn is_checkpoint_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=MAX_CHECKPOINT_NAME).contains(&name.len())
        && !name.starts_with('.')
        && name.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_come_back_and_nothing_else_is_read() {
        let actions = [
            Admin::ScrubRate(10 << 20),
            Admin::ScrubNow,
            Admin::AcceptLoss,
            Admin::Checkpoint { name: "2026-11-21_a.b" },
        ];
        for action in actions {
            let mut body = Vec::new();
            action.write(&mut body);
            assert_eq!(Admin::decode(&body), Ok(action));
            for len in 0..body.len() {
                assert!(Admin::decode(&body[..len]).is_err(), "{action:?} cut to {len}");
            }
            body.push(0);
            assert!(Admin::decode(&body).is_err());
        }
        assert_eq!(Admin::decode(&[9]), Err(DecodeError::OutOfBounds("action")));
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let long = "x".repeat(MAX_CHECKPOINT_NAME + 1);
        for name in ["", ".", "..", ".hidden", "a/b", "a\\b", "a b", "a\0", "ä", &long] {
            let mut body = Vec::new();
            Admin::Checkpoint { name }.write(&mut body);
            let refused = Err(DecodeError::OutOfBounds("checkpoint name"));
            assert_eq!(Admin::decode(&body), refused, "{name:?}");
        }
        assert!(is_checkpoint_name(&long[1..]) && is_checkpoint_name("a"));
    }
}
