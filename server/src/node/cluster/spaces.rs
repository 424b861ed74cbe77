//! Keyspaces as gossip knows them: what requests take from them, and clients who define them.

use coronet_net::ErrorCode;
use coronet_net::codec::{KeyspaceAction, KeyspaceRequest};
use coronet_ring::KeyspaceId;
use coronet_ring::causality::resolve::Conflicts;
use coronet_ring::gossip::keyspace::{DEFAULT_NAME, Keyspace};
use coronet_ring::gossip::message::MAX_KEYSPACES;

use super::State;
use crate::node::NodeEnv;
use crate::node::keyspaces::{Asker, altered, created, default_keyspace, info, same_settings};

/// What a request takes from its keyspace.
#[derive(Debug, Clone, Copy)]
pub(super) struct Space {
    /// The keyspace.
    pub id: KeyspaceId,
    /// Replicas.
    pub n: u8,
    /// R and W of requests that do not say; `None`: a majority of the replicas there are.
    pub quorums: Option<(u8, u8)>,
    /// What readers see of concurrent versions.
    pub conflicts: Conflicts,
}

impl<E: NodeEnv> State<E> {
    /// A keyspace; `None` when this node does not know it, or not yet.
    pub(super) fn space(&self, id: KeyspaceId) -> Option<Space> {
        let Some(keyspace) = self.members.gossip.keyspace(id) else {
            let (n, conflicts) = (self.config.replicas, Conflicts::Siblings);
            let default = id == KeyspaceId::DEFAULT;
            return default.then_some(Space { id, n, quorums: None, conflicts });
        };
        let quorums = Some((keyspace.r, keyspace.w));
        Some(Space { id, n: keyspace.n, quorums, conflicts: keyspace.conflicts })
    }

    /// Has the data cores serve a keyspace as gossip knows it.
    pub(super) fn serve_keyspace(&mut self, id: KeyspaceId) {
        if let Some(keyspace) = self.members.gossip.keyspace(id) {
            self.rollout.want(keyspace.clone());
        }
    }

    /// A client creates, changes or lists keyspaces.
    pub(super) fn keyspace_asked(&mut self, asker: Asker, request: &KeyspaceRequest<'_>) {
        if request.action == KeyspaceAction::List {
            let undefined = self.members.gossip.keyspace(KeyspaceId::DEFAULT).is_none();
            let default = undefined.then(|| self.default_keyspace());
            let all = default.iter().chain(self.members.gossip.keyspaces());
            let wanted =
                |keyspace: &&Keyspace| request.name.is_empty() || request.name == keyspace.name;
            return asker.listed(&self.env, all.filter(wanted).map(info).collect());
        }
        match self.define_keyspace(request) {
            // The default keyspace, asked for as it is: it needs no definition.
            Ok(id) if self.members.gossip.keyspace(id).is_none() => {
                asker.listed(&self.env, vec![info(&self.default_keyspace())]);
            }
            Ok(id) => {
                self.serve_keyspace(id);
                let save = self.saving.want();
                self.announce(id);
                match request.action {
                    KeyspaceAction::Create => self.answer_when_agreed(asker, id, save),
                    _ => self.rollout.answer_when_served(asker, id, save),
                }
            }
            Err((code, text)) => asker.refuse(&self.env, code, &text),
        }
    }

    fn default_keyspace(&self) -> Keyspace {
        default_keyspace(self.config.replicas)
    }

    fn define_keyspace(
        &mut self,
        request: &KeyspaceRequest<'_>,
    ) -> Result<KeyspaceId, (ErrorCode, String)> {
        let invalid = |text: String| (ErrorCode::InvalidArgument, text);
        let Some(table) = self.members.gossip.table() else {
            let text = "the cluster's nodes have not all met yet".to_owned();
            return Err((ErrorCode::NotEnoughReplicas, text));
        };
        let nodes = table.nodes().len().min(usize::from(self.config.founding.depth));
        let nodes = u8::try_from(nodes).unwrap_or(u8::MAX);
        let id = KeyspaceId::of(request.name);
        let known = self.members.gossip.keyspace(id);
        let known = known.filter(|keyspace| keyspace.name == request.name).cloned();
        let present = known.or((request.name == DEFAULT_NAME).then(|| self.default_keyspace()));
        let wanted = match (request.action, present) {
            (KeyspaceAction::Alter, Some(present)) => {
                altered(request, &present).map_err(invalid)?
            }
            (KeyspaceAction::Alter, None) => {
                let text = format!("this node knows no keyspace {:?}, or not yet", request.name);
                return Err((ErrorCode::UnknownKeyspace, text));
            }
            (_, present) => {
                let n = self.config.replicas.min(nodes);
                let wanted = created(request, n, nodes).map_err(invalid)?;
                match present {
                    // Asked again, perhaps because the answer got lost.
                    Some(present) if same_settings(&present, &wanted) => return Ok(id),
                    Some(_) => {
                        let text = format!("keyspace {} exists already", request.name);
                        return Err(invalid(text));
                    }
                    None => wanted,
                }
            }
        };
        if self.members.gossip.keyspaces().count() >= MAX_KEYSPACES {
            return Err(invalid(format!("there are {MAX_KEYSPACES} keyspaces, the most")));
        }
        // The wall clock as the least version: see `Gossip::define`.
        let wanted = Keyspace { version: wanted.version.max(self.env.wall_micros()), ..wanted };
        self.members.gossip.define(wanted).map_err(|error| invalid(error.to_string()))
    }

    /// Tells all linked nodes of a keyspace at once; those who miss it learn it by gossip.
    fn announce(&mut self, id: KeyspaceId) {
        let Some(message) = self.members.gossip.announce(id) else { return };
        let linked: Vec<_> = self.links.linked().collect();
        linked.into_iter().for_each(|node| self.gossip(node, &message));
    }
}
