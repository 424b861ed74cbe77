//! The keyspaces this core serves: trees of its engine with what their definitions say.
//!
//! The control core tells definitions; a core that does not know one (yet) refuses its requests,
//! because it cannot say that something is absent.

use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

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
    /// What its data is kept under: see [`Definition::store`].
    pub id: KeyspaceId,
    /// Its part of the engine.
    pub tree: Tree<E>,
    /// Readers see only the latest version.
    pub lww: bool,
    /// How long after its latest version a key lives.
    pub ttl: Option<Duration>,
}

impl<E: NodeEnv> Space<E> {
    /// Adds an object to a batch, which then is in this keyspace; returns when the object expires.
    ///
    /// The expiry follows from the object, not from this node's clock: all replicas of an object
    /// forget it at the same time, and none brings it back to another by repair.
    pub(super) fn put(&self, batch: &mut WriteBatch, key: &[u8], object: &[u8]) -> Option<Millis> {
        batch.in_keyspace(engine_id(self.id));
        let expiry = self.ttl.and_then(|ttl| {
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

/// The keyspaces by the id of their data, and definitions that are still to be applied.
pub(super) struct Spaces<E: NodeEnv> {
    default: Rc<Space<E>>,
    others: Map<u32, Rc<Space<E>>>,
    /// The id of the data by the id that clients know.
    stores: Map<u32, KeyspaceId>,
    /// Data that is gone for ever.
    gone: BTreeSet<KeyspaceId>,
    waiting: VecDeque<Definition>,
    applying: bool,
}

impl<E: NodeEnv> Spaces<E> {
    /// The default keyspace; the others come with their definitions.
    pub(super) fn new(engine: &Engine<E>) -> Result<Self, Error> {
        let id = KeyspaceId::DEFAULT;
        let tree = engine.keyspace(engine_id(id))?;
        let default = Rc::new(Space { id, tree, lww: false, ttl: None });
        let (waiting, gone) = (VecDeque::new(), BTreeSet::new());
        Ok(Spaces { default, others: map(), stores: map(), gone, waiting, applying: false })
    }

    fn insert(&mut self, name: KeyspaceId, space: Rc<Space<E>>) {
        match space.id {
            KeyspaceId::DEFAULT => self.default = space,
            id => {
                self.stores.insert(name.0, id);
                self.others.insert(id.0, space);
            }
        }
    }

    /// Ids of data that a definition makes disappear: nobody finds it from here on.
    fn bury(&mut self, definition: &Definition) -> Vec<KeyspaceId> {
        let name = definition.id().0;
        // Known to this core only, should two nodes have created it anew without each other.
        let other = self.stores.get(&name).copied().filter(|store| *store != definition.store());
        let gone: Vec<_> = definition.gone().chain(other).collect();
        if definition.dropped || other.is_some() {
            self.stores.remove(&name);
        }
        for id in &gone {
            self.others.remove(&id.0);
        }
        self.gone.extend(&gone);
        gone
    }

    /// Whether another keyspace than `name` has its data under this id.
    fn is_taken(&self, store: KeyspaceId, name: KeyspaceId) -> bool {
        self.stores.iter().any(|(other, id)| *other != name.0 && *id == store)
    }

    /// Whether data of this id will never be there again.
    pub(super) fn is_gone(&self, id: KeyspaceId) -> bool {
        self.gone.contains(&id)
    }
}

impl<E: NodeEnv> Inner<E> {
    /// A keyspace this core knows, as nodes call it.
    pub(super) fn space(&self, id: KeyspaceId) -> Option<Rc<Space<E>>> {
        let spaces = self.spaces.borrow();
        match id {
            KeyspaceId::DEFAULT => Some(Rc::clone(&spaces.default)),
            id => spaces.others.get(&id.0).map(Rc::clone),
        }
    }

    /// The keyspace of a client's request.
    pub(super) fn space_or_failure(&self, id: KeyspaceId) -> Result<Rc<Space<E>>, Failure> {
        let store = match id {
            KeyspaceId::DEFAULT => Some(id),
            id => self.spaces.borrow().stores.get(&id.0).copied(),
        };
        let unknown = || {
            let text = format!("this node knows no keyspace with id {id}, or not yet");
            Failure::new(ErrorCode::UnknownKeyspace, text)
        };
        store.and_then(|store| self.space(store)).ok_or_else(unknown)
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

    /// Creates, changes or drops the keyspace in the engine, and serves it or no more. May be
    /// repeated.
    async fn apply_definition(&self, definition: Definition) -> Result<(), String> {
        let gone = self.spaces.borrow_mut().bury(&definition);
        for id in gone {
            self.remove_data(id, &definition.name).await?;
        }
        if definition.dropped {
            return Ok(());
        }
        let settings = EngineSettings::parse(&definition.options)?;
        let text = |error: Error| error.to_string();
        let (name, store) = (definition.id(), definition.store());
        if self.spaces.borrow().is_taken(store, name) {
            return Err("another keyspace has the same id".to_owned());
        }
        let id = engine_id(store);
        let present = self.engine.keyspaces().await.into_iter().find(|(known, _)| *known == id);
        let compression = settings.compression;
        match present {
            None => {
                let options = KeyspaceOptions { compression, ..KeyspaceOptions::default() };
                self.engine.create_keyspace(id, options).await.map_err(text)?;
            }
            Some((_, options)) if options.compression != compression => {
                let options = KeyspaceOptions { compression, ..options };
                self.engine.alter_keyspace(id, options).await.map_err(text)?;
            }
            Some(_) => {}
        }
        let tree = self.engine.keyspace(id).map_err(text)?;
        if let Some(policy) = settings.policy
            && tree.policy() != policy
        {
            tree.set_policy(policy).await.map_err(text)?;
        }
        let lww = definition.conflicts == Conflicts::LastWriteWins;
        let space = Space { id: store, tree, lww, ttl: settings.ttl };
        self.spaces.borrow_mut().insert(name, Rc::new(space));
        Ok(())
    }

    /// Removes what was kept under an id, if there is anything.
    async fn remove_data(&self, id: KeyspaceId, name: &str) -> Result<(), String> {
        let id = engine_id(id);
        if self.engine.keyspace(id).is_ok() {
            self.engine.drop_keyspace(id).await.map_err(|error| error.to_string())?;
            self.env.log(&format!("keyspace {name} is dropped, its data is removed"));
        }
        Ok(())
    }
}
