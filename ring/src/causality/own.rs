//! A replica that meets its own forgotten past.
//!
//! A replica always stores its own write before it tells anybody. So every object and context it
//! hears of can name its own dots only up to what its copy of the key has. More than that means
//! that it lost data: a broken disk, a restored backup, a stolen identity. Going on under the same
//! incarnation would issue those dots again, and the other replicas would take new writes for old
//! ones and drop them. The only safe answer is a new incarnation, before anything else is written.

use thiserror::Error;

use super::context::Context;
use super::dot::Dot;
use crate::ids::Actor;

/// Proof that this replica lost writes of its own. It must take a new incarnation and have the
/// partition repaired; the incoming object may be stored once it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Amnesia {
    /// The dot was never issued as far as this replica knows: its counter went back.
    #[error("own write {counter} was seen, but only {issued} were issued", counter = dot.counter)]
    Beyond {
        /// The dot nobody here remembers.
        dot: Dot,
        /// The highest counter that may have been issued.
        issued: u64,
    },
    /// The dot may have been issued, but this replica's copy of the key does not know it.
    #[error("own write {counter} was seen, but the copy here ends at {held}", counter = dot.counter)]
    Forgotten {
        /// The dot that is missing here.
        dot: Dot,
        /// The highest of this actor's counters the copy has; zero without a copy.
        held: u64,
    },
}

/// Checks what was heard of a key, from a replica or in a client's context, against this replica's
/// copy. `issued` is the highest counter that may have been issued: the engine's newest sequence
/// number, because every dot comes with one that is at least as high.
pub fn check(
    me: Actor,
    issued: u64,
    held: Option<&Context>,
    heard: &Context,
) -> Result<(), Amnesia> {
    let dot = Dot { actor: me, counter: heard.highest(me) };
    if dot.counter > issued {
        return Err(Amnesia::Beyond { dot, issued });
    }
    let held = held.map_or(0, |held| held.highest(me));
    if dot.counter > held {
        return Err(Amnesia::Forgotten { dot, held });
    }
    Ok(())
}
