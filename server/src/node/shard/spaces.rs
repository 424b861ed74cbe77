//! The keyspaces this core serves: trees of its engine with what their definitions say.
//!
//! The control core tells definitions; a core that does not know one (yet) refuses its requests,
//! because it cannot say that something is absent.

use std::collections::VecDeque;
use std::rc::Rc;

use coronet_lsm::env::TaskClass;
use coronet_lsm::{Engine, Error, Keyspace as Tree, KeyspaceOptions, Millis, WriteBatch};
use coronet_net::ErrorCode;
use coronet_ring::KeyspaceId;
use coronet_ring::causality::object::ObjectRef;
use coronet_ring::causality::resolve::Conflicts;
use coronet_ring::gossip::keyspace::Keyspace as Definition;

use super::reply::Failure;
use super::{Inner, Map, map};
use crate::node::keyspaces::EngineSettings;
use crate::node::{ControlMessage, NodeEnv};

/// One keyspace.
pub(super) struct Space<E: NodeEnv> {
    /// Its id.
    pub id: KeyspaceId,
    /// Its part of the engine.
    pub tree: Tree<E>,
    /// Readers see only the latest version.
    pub lww: bool,
    /// What is set of its part of the engine.
    pub settings: EngineSettings,
}

impl<E: NodeEnv> Space<E> {
    /// Adds an object to a batch, which then is in this keyspace; returns when the object expires.
    ///
    /// The expiry follows from the object, not from this node's clock: all replicas of an object
    /// forget it at the same time, and none brings it back to another by repair.
    pub(super) fn put(&self, batch: &mut WriteBatch, key: &[u8], object: &[u8]) -> Option<Millis> {
        batch.in_keyspace(engine_id(self.id));
        let expiry = self.settings.ttl.and_then(|ttl| {
            let latest = ObjectRef::decode(object).ok()?.latest();
            let ttl = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
            Some(Millis((latest.micros() / 1000).saturating_add(ttl)))
        });
        match expiry {
            Some(at) => batch.put_until(key, object, at),
            None => batch.put(key, object),
        }
        expiry
    }
}

fn engine_id(id: KeyspaceId) -> coronet_lsm::KeyspaceId {
    coronet_lsm::KeyspaceId(id.0)
}

/// The keyspaces by id, and definitions that are still to be applied.
pub(super) struct Spaces<E: NodeEnv> {
    default: Rc<Space<E>>,
    others: Map<u32, Rc<Space<E>>>,
    waiting: VecDeque<Definition>,
    applying: bool,
}

impl<E: NodeEnv> Spaces<E> {
    /// The default keyspace; the others come with their definitions.
    pub(super) fn new(engine: &Engine<E>) -> Result<Self, Error> {
        let id = KeyspaceId::DEFAULT;
        let tree = engine.keyspace(engine_id(id))?;
        let default = Rc::new(Space { id, tree, lww: false, settings: EngineSettings::default() });
        Ok(Spaces { default, others: map(), waiting: VecDeque::new(), applying: false })
    }

    fn insert(&mut self, space: Rc<Space<E>>) {
        match space.id {
            KeyspaceId::DEFAULT => self.default = space,
            id => drop(self.others.insert(id.0, space)),
        }
    }
}

impl<E: NodeEnv> Inner<E> {
    /// A keyspace this core knows.
    pub(super) fn space(&self, id: KeyspaceId) -> Option<Rc<Space<E>>> {
        let spaces = self.spaces.borrow();
        match id {
            KeyspaceId::DEFAULT => Some(Rc::clone(&spaces.default)),
            id => spaces.others.get(&id.0).map(Rc::clone),
        }
    }

    /// The keyspace of a request.
    pub(super) fn space_or_failure(&self, id: KeyspaceId) -> Result<Rc<Space<E>>, Failure> {
        let unknown = || {
            let text = format!("this node knows no keyspace with id {id}, or not yet");
            Failure::new(ErrorCode::UnknownKeyspace, text)
        };
        self.space(id).ok_or_else(unknown)
    }

    /// Takes a definition and applies it after those that came before.
    pub(super) fn define(self: &Rc<Self>, definition: Definition) {
        let mut spaces = self.spaces.borrow_mut();
        spaces.waiting.push_back(definition);
        if std::mem::replace(&mut spaces.applying, true) {
            return;
        }
        drop(spaces);
        let shard = Rc::clone(self);
        self.env.spawn(TaskClass::Background, async move {
            loop {
                let next = shard.spaces.borrow_mut().waiting.pop_front();
                let Some(definition) = next else { break };
                let (core, id, version) = (shard.me, definition.id(), definition.version);
                let problem = shard.apply_definition(definition).await.err();
                shard.tell_control(ControlMessage::Defined { core, id, version, problem });
            }
            shard.spaces.borrow_mut().applying = false;
        });
    }

    /// Creates or changes the keyspace in the engine, then serves it. May be repeated.
    async fn apply_definition(&self, definition: Definition) -> Result<(), String> {
        let settings = EngineSettings::parse(&definition.options)?;
        let text = |error: Error| error.to_string();
        let id = engine_id(definition.id());
        let present = self.engine.keyspaces().await.into_iter().find(|(known, _)| *known == id);
        let wanted = |options: KeyspaceOptions| KeyspaceOptions {
            compression: settings.compression,
            filter_prefix_bytes: settings.filter_prefix_bytes(),
            ..options
        };
        match present {
            None => {
                let options = wanted(KeyspaceOptions::default());
                self.engine.create_keyspace(id, options).await.map_err(text)?;
            }
            Some((_, options)) if wanted(options.clone()) != options => {
                self.engine.alter_keyspace(id, wanted(options)).await.map_err(text)?;
            }
            Some(_) => {}
        }
        let tree = self.engine.keyspace(id).map_err(text)?;
        if let Some(policy) = settings.policy.clone()
            && tree.policy() != policy
        {
            tree.set_policy(policy).await.map_err(text)?;
        }
        let lww = definition.conflicts == Conflicts::LastWriteWins;
        let space = Space { id: definition.id(), tree, lww, settings };
        self.spaces.borrow_mut().insert(Rc::new(space));
        Ok(())
    }
}
