//! The keyspaces of a node in no cluster, and the file that keeps them.
//!
//! The file is `keyspaces` in the data folder; its format is that of the stored view of a cluster
//! with another magic and, as content, definitions as gossip encodes them.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use coronet_lsm::env::{Env, TaskClass};
use coronet_net::ErrorCode;
use coronet_net::codec::{KeyspaceAction, KeyspaceRequest};
use coronet_ring::gossip::codec::{Unreadable, decode_keyspaces, encode_keyspaces};
use coronet_ring::gossip::keyspace::{DEFAULT_NAME, Keyspace, KeyspaceError};
use coronet_ring::gossip::message::MAX_KEYSPACES;
use coronet_ring::gossip::snapshot;
use coronet_ring::{CoreId, KeyspaceId, NodeId};

use super::rollout::{Asker, Rollout, Saving};
use super::settings::{altered, created, default_keyspace, info, same_settings};
use crate::node::NodeEnv;
use crate::node::cluster::read_cluster_view;
use crate::node::kept::{KEYSPACES, VIEW};

/// The definitions a node keeps, whether it made them alone or knew them of its cluster: names must
/// not be lost when it changes between the two.
///
/// # Errors
/// When a file cannot be read or is damaged.
pub async fn read_keyspaces<E: Env>(env: &E, dir: &Path) -> io::Result<Vec<Keyspace>> {
    let refused = |name: &str, why: Unreadable| {
        io::Error::other(format!("{}: {why}", dir.join(name).display()))
    };
    let mut known: BTreeMap<KeyspaceId, Keyspace> = BTreeMap::new();
    let mut add = |definitions: Vec<Keyspace>| {
        for definition in definitions {
            let other = known.get(&definition.id());
            if other.is_none_or(|other| definition.wins_over(other)) {
                known.insert(definition.id(), definition);
            }
        }
    };
    if let Some(bytes) = KEYSPACES.read(env, dir).await? {
        add(decode_keyspaces(&bytes).map_err(|why| refused(KEYSPACES.name, why))?);
    }
    if let Some(view) = read_cluster_view(env, dir).await? {
        add(snapshot::keyspaces(&view).map_err(|why| refused(VIEW.name, why))?);
    }
    Ok(known.into_values().collect())
}

/// Copies the definitions that the node in `from` made alone, if it keeps any, to the data folder
/// `to`.
///
/// # Errors
/// When they cannot be read or written, or are damaged.
pub async fn copy_keyspaces<E: Env>(env: &E, from: &Path, to: &Path) -> io::Result<()> {
    match KEYSPACES.read(env, from).await? {
        Some(bytes) => KEYSPACES.write(env, to, &bytes).await,
        None => Ok(()),
    }
}

/// See the module.
pub struct Alone<E: NodeEnv> {
    env: E,
    me: NodeId,
    dir: PathBuf,
    definitions: BTreeMap<KeyspaceId, Keyspace>,
    rollout: Rollout<E>,
    saving: Saving,
}

impl<E: NodeEnv> Alone<E> {
    /// The keyspaces of node `me` with so many data cores, kept in `dir`, as they were `stored`.
    pub fn new(env: E, me: NodeId, cores: u16, dir: PathBuf, stored: Vec<Keyspace>) -> Self {
        let mut rollout = Rollout::new(env.clone(), cores);
        stored.iter().cloned().for_each(|keyspace| rollout.want(keyspace));
        let definitions = stored.into_iter().map(|keyspace| (keyspace.id(), keyspace)).collect();
        Alone { env, me, dir, definitions, rollout, saving: Saving::default() }
    }

    /// A client asks.
    pub fn asked(&mut self, asker: Asker, request: &KeyspaceRequest<'_>) {
        match self.ask(request) {
            Ok(Done::Listed) => {
                let default = default_keyspace(1);
                let undefined = !self.definitions.contains_key(&KeyspaceId::DEFAULT);
                let all =
                    undefined.then_some(&default).into_iter().chain(self.definitions.values());
                let wanted =
                    |keyspace: &&Keyspace| request.name.is_empty() || request.name == keyspace.name;
                asker.listed(&self.env, all.filter(wanted).map(info).collect());
            }
            Ok(Done::Changed(id, save)) => self.rollout.answer_when_served(asker, id, save),
            Err((code, text)) => asker.refuse(&self.env, code, &text),
        }
    }

    fn ask(&mut self, request: &KeyspaceRequest<'_>) -> Result<Done, (ErrorCode, String)> {
        let invalid = |text: String| (ErrorCode::InvalidArgument, text);
        let known = self.definitions.get(&KeyspaceId::of(request.name));
        let known = known.filter(|keyspace| keyspace.name == request.name).cloned();
        let present = known.or((request.name == DEFAULT_NAME).then(|| default_keyspace(1)));
        let wanted = match (request.action, present) {
            (KeyspaceAction::List, _) => return Ok(Done::Listed),
            (KeyspaceAction::Create, None) => created(request, 1, 1).map_err(invalid)?,
            (KeyspaceAction::Create, Some(present)) => {
                let wanted = created(request, 1, 1).map_err(invalid)?;
                if !same_settings(&wanted, &present) {
                    let text = format!("keyspace {} exists already", present.name);
                    return Err(invalid(text));
                }
                Keyspace { version: present.version, ..present }
            }
            (KeyspaceAction::Alter, Some(present)) => {
                altered(request, &present).map_err(invalid)?
            }
            (KeyspaceAction::Alter, None) => {
                let text = format!("there is no keyspace {:?}", request.name);
                return Err((ErrorCode::UnknownKeyspace, text));
            }
        };
        if self.definitions.len() >= MAX_KEYSPACES && !self.definitions.contains_key(&wanted.id()) {
            return Err(invalid(format!("there are {MAX_KEYSPACES} keyspaces, the most")));
        }
        let id = wanted.id();
        if let Some(other) = self.definitions.get(&id).filter(|other| other.name != wanted.name) {
            return Err(invalid(KeyspaceError::Taken(other.name.clone()).to_string()));
        }
        let version = wanted.version + 1;
        let definition = Keyspace { version, author: self.me, ..wanted };
        self.definitions.insert(id, definition.clone());
        self.rollout.want(definition);
        Ok(Done::Changed(id, self.saving.want()))
    }

    /// A core serves a definition, or says why it cannot.
    pub fn defined(&mut self, core: CoreId, id: KeyspaceId, version: u64, problem: Option<String>) {
        self.rollout.defined(core, id, version, problem);
    }

    /// Time passed: saves what changed, answers who waits.
    pub fn tick(&mut self) {
        self.rollout.tick(&self.saving);
        let Some(save) = self.saving.begin() else { return };
        let mut bytes = Vec::new();
        encode_keyspaces(self.definitions.values(), &mut bytes);
        let (env, dir) = (self.env.clone(), self.dir.clone());
        self.env.spawn(TaskClass::Background, async move {
            let written = KEYSPACES.write(&env, &dir, &bytes).await;
            if let Err(error) = &written {
                env.log(&format!("cannot store the keyspaces: {error}"));
            }
            save.end(written.is_ok());
        });
    }
}

/// What an ask led to.
enum Done {
    Listed,
    Changed(KeyspaceId, u64),
}
