//! A keyspace just created is answered for once the other nodes serve it, too: whoever is told that
//! it exists may go on at any of them.
//!
//! The definition itself travels by gossip. Whether it arrived shows an ask for one key of the new
//! keyspace to each data core of each node that can be reached: a core that does not know the
//! keyspace yet refuses it.

use std::collections::BTreeMap;
use std::time::Duration;

use coronet_lsm::env::Nanos;
use coronet_ring::coordinate::message::{Answer, Ask};
use coronet_ring::{CoreId, KeyspaceId, NodeId, PartitionMap};

use super::State;
use super::asks::Asking;
use super::requests::Purpose;
use crate::node::NodeEnv;
use crate::node::keyspaces::Asker;

/// How long the others are waited for. Those that take longer learn of the keyspace all the same.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often one is asked.
const AGAIN: Duration = Duration::from_millis(100);

/// A creation that waits for the other nodes.
pub(super) struct Agreeing {
    asker: Asker,
    keyspace: KeyspaceId,
    /// The save that stores it here.
    save: u64,
    until: Nanos,
    /// Data cores that did not answer yet, and when they are asked next.
    missing: BTreeMap<(NodeId, CoreId), Nanos>,
}

impl<E: NodeEnv> State<E> {
    /// Answers the client once this node and those it reaches serve the keyspace.
    pub(super) fn answer_when_agreed(&mut self, asker: Asker, keyspace: KeyspaceId, save: u64) {
        let now = self.env.now();
        let others = self.members.gossip.members().filter(|member| {
            member.id != self.config.me.id && self.members.is_reachable(member.id)
        });
        let cores = others.flat_map(|member| {
            (0..member.cores).map(|core| ((member.id, CoreId(core)), now.after(AGAIN / 2)))
        });
        let (missing, until) = (cores.collect(), now.after(PATIENCE));
        self.agreeing.push(Agreeing { asker, keyspace, save, until, missing });
    }

    /// Asks those that did not answer yet, answers clients that need not wait any more.
    pub(super) fn ask_for_agreement(&mut self) {
        let now = self.env.now();
        for mut agreeing in std::mem::take(&mut self.agreeing) {
            agreeing.missing.retain(|(node, _), _| self.members.is_reachable(*node));
            if agreeing.missing.is_empty() || now >= agreeing.until {
                let Agreeing { asker, keyspace, save, .. } = agreeing;
                self.rollout.answer_when_served(asker, keyspace, save);
                continue;
            }
            for ((node, core), next) in &mut agreeing.missing {
                if now >= *next {
                    *next = now.after(AGAIN);
                    self.ask_whether_served(agreeing.keyspace, *node, *core);
                }
            }
            self.agreeing.push(agreeing);
        }
    }

    fn ask_whether_served(&mut self, keyspace: KeyspaceId, node: NodeId, core: CoreId) {
        let Some(cores) = self.members.gossip.member(node).map(|member| member.cores) else {
            return;
        };
        let Ok(map) = PartitionMap::new(self.map.partitions(), cores) else { return };
        let partition = coronet_ring::PartitionId(map.range_of(core).start);
        let ask = Ask::List { prefix: Vec::new(), after: None, limit: 1 };
        let deadline = Some(self.env.now().after(PATIENCE));
        let asking = Asking { keyspace, partition, key: Vec::new(), deadline, ask };
        self.ask(node, asking, Purpose::Agreement { keyspace, core });
    }

    /// A data core of another node answered.
    pub(super) fn agreed(
        &mut self,
        from: NodeId,
        keyspace: KeyspaceId,
        core: CoreId,
        answer: &Answer,
    ) {
        if matches!(answer, Answer::Keys { .. }) {
            for agreeing in self.agreeing.iter_mut().filter(|one| one.keyspace == keyspace) {
                agreeing.missing.remove(&(from, core));
            }
        }
    }
}
