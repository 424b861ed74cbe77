//! A replica that hears of writes of its own that it does not have.
//!
//! Something was lost that nobody noticed when the node started: a folder brought back from a copy,
//! an engine's files that went, a range whose loss was accepted. The names of those writes must not
//! be given again, so this node writes under another name from here on. That name need not be
//! durable: the mark of a clean end is not left, so the next start draws another anyway.

use coronet_probe::{Bug, Mark, mark, seeded};
use coronet_ring::causality::object::ObjectRef;
use coronet_ring::causality::own;
use coronet_ring::{Actor, Amnesia, Context, CoreId, Dot, Incarnation};

use super::Inner;
use super::spaces::Space;
use crate::node::stats::count;
use crate::node::{CoreMessage, NodeEnv};

impl<E: NodeEnv> Inner<E> {
    /// Looks for writes of this node in what was heard of a key, before anything of it is stored
    /// or named. `stored` is this replica's copy.
    pub(super) fn look_for_own(&self, space: &Space<E>, stored: Option<&[u8]>, heard: &Context) {
        let me = self.issued.get().actor;
        if heard.highest(me) == 0 || seeded(Bug::OldIncarnation) {
            return;
        }
        let held = stored.and_then(|object| ObjectRef::decode(object).ok());
        let held = held.map(|object| object.seen());
        // Every name comes with a sequence number of the engine that is at least as high.
        match own::check(me, self.engine.last_seq().0, held.as_ref(), heard) {
            Ok(()) => {}
            // The copy may simply have expired here.
            Err(Amnesia::Forgotten { .. }) if space.settings.ttl.is_some() => {}
            Err(lost) => {
                self.env.log(&format!(
                    "this node has lost writes ({lost}): it goes on under a new incarnation; if \
                     its folder was restored, read docs/BACKUP.md"
                ));
                self.take_new_names();
            }
        }
    }

    /// Has all cores of this node write under new names: what one has lost, others may have, too.
    pub(super) fn take_new_names(&self) {
        self.take_new_name();
        for core in (0..self.config.cores).map(CoreId).filter(|core| *core != self.me) {
            self.env.send(core, CoreMessage::TakeNewName);
        }
    }

    /// Writes under a new name from here on.
    pub(super) fn take_new_name(&self) {
        mark(Mark::NewName);
        count(&self.counters.new_names);
        let actor = Actor::from(Incarnation(self.env.random().max(1)));
        self.issued.set(Dot { actor, counter: self.engine.last_seq().0 });
    }
}
