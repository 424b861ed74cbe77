//! Telling the data cores of definitions, and answering clients once all of them serve it.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use coronet_lsm::env::Nanos;
use coronet_net::codec::{ErrorReply, KeyspaceInfo, KeyspaceReply};
use coronet_net::{ErrorCode, FrameWriter, Op, ReplyHead, Status};
use coronet_ring::gossip::keyspace::Keyspace;
use coronet_ring::{CoreId, KeyspaceId};

use super::settings::info;
use crate::node::{ConnId, CoreMessage, NodeEnv};

/// How often a core that could not apply a definition, or did not say, is told again.
const AGAIN: Duration = Duration::from_secs(1);
/// How long a client waits for the disk and the cores.
const PATIENCE: Duration = Duration::from_secs(8);

/// A client that asked about keyspaces.
#[derive(Debug, Clone)]
pub struct Asker {
    /// The core that holds the connection.
    pub origin: CoreId,
    /// The connection.
    pub conn: ConnId,
    /// The client's number of the request.
    pub request_id: u64,
    /// Bytes the request holds.
    pub cost: usize,
}

impl Asker {
    /// Answers with keyspaces.
    pub fn listed<E: NodeEnv>(&self, env: &E, keyspaces: Vec<KeyspaceInfo>) {
        self.answer(env, Status::Ok, |body| KeyspaceReply { keyspaces }.write(body));
    }

    /// Answers with an error.
    pub fn refuse<E: NodeEnv>(&self, env: &E, code: ErrorCode, text: &str) {
        let reply = ErrorReply { retry_after_ms: 0, text };
        self.answer(env, code.into(), |body| reply.write(body));
    }

    fn answer<E: NodeEnv>(&self, env: &E, status: Status, body: impl FnOnce(&mut Vec<u8>)) {
        let mut frames = Vec::new();
        let head = ReplyHead::new(Op::Keyspace.to_u8(), self.request_id, status);
        let mut frame = FrameWriter::reply(&mut frames, &head);
        body(frame.body());
        frame.finish();
        let Asker { origin, conn, request_id, cost } = *self;
        env.send(origin, CoreMessage::Reply { conn, request_id, cost, timed: None, frames });
    }
}

/// Which save is under way and which one is done: a client is answered once what it changed is on
/// disk.
#[derive(Debug, Default)]
pub struct Saving {
    /// There is something to save.
    pub wanted: bool,
    begun: u64,
    /// The last save that succeeded, and whether one is under way.
    state: Rc<Cell<(u64, bool)>>,
}

impl Saving {
    /// Asks for a save; returns its number.
    pub fn want(&mut self) -> u64 {
        self.wanted = true;
        self.begun + 1
    }

    /// Begins a save if there is need and none is under way: its end has to be told to what is
    /// returned.
    pub fn begin(&mut self) -> Option<Save> {
        let (done, busy) = self.state.get();
        if !self.wanted || busy {
            return None;
        }
        self.wanted = false;
        self.begun += 1;
        self.state.set((done, true));
        Some(Save { number: self.begun, state: Rc::clone(&self.state) })
    }

    fn done(&self) -> u64 {
        self.state.get().0
    }
}

/// A save under way.
#[derive(Debug)]
pub struct Save {
    number: u64,
    state: Rc<Cell<(u64, bool)>>,
}

impl Save {
    /// It is over.
    pub fn end(self, succeeded: bool) {
        let (done, _) = self.state.get();
        self.state.set((if succeeded { self.number } else { done }, false));
    }
}

/// A definition and the cores that do not serve it yet.
struct Wanted {
    definition: Keyspace,
    missing: BTreeSet<CoreId>,
    problem: Option<String>,
}

/// A client that waits.
struct Waiting {
    asker: Asker,
    id: KeyspaceId,
    save: u64,
    until: Nanos,
}

/// See the module.
pub struct Rollout<E: NodeEnv> {
    env: E,
    cores: u16,
    wanted: BTreeMap<KeyspaceId, Wanted>,
    waiting: Vec<Waiting>,
    again: Nanos,
}

impl<E: NodeEnv> Rollout<E> {
    /// For a node with so many data cores.
    pub fn new(env: E, cores: u16) -> Self {
        let (wanted, waiting) = (BTreeMap::new(), Vec::new());
        Rollout { env, cores, wanted, waiting, again: Nanos(0) }
    }

    /// Has all data cores serve a keyspace as it is defined.
    pub fn want(&mut self, definition: Keyspace) {
        let missing: BTreeSet<CoreId> = (0..self.cores).map(CoreId).collect();
        for core in &missing {
            self.env.send(*core, CoreMessage::Define(Box::new(definition.clone())));
        }
        self.wanted.insert(definition.id(), Wanted { definition, missing, problem: None });
    }

    /// A core serves a definition, or cannot.
    pub fn defined(&mut self, core: CoreId, id: KeyspaceId, version: u64, problem: Option<String>) {
        let Some(wanted) = self.wanted.get_mut(&id) else { return };
        if wanted.definition.version != version {
            return; // a newer one is on its way
        }
        match problem {
            None => drop(wanted.missing.remove(&core)),
            Some(problem) => {
                let name = &wanted.definition.name;
                if wanted.problem.as_ref() != Some(&problem) {
                    self.env.log(&format!("{core} cannot serve keyspace {name}: {problem}"));
                }
                wanted.problem = Some(problem);
            }
        }
    }

    /// Answers the client once save `save` is done and all cores serve the keyspace.
    pub fn answer_when_served(&mut self, asker: Asker, id: KeyspaceId, save: u64) {
        let until = self.env.now().after(PATIENCE);
        self.waiting.push(Waiting { asker, id, save, until });
    }

    /// Time passed.
    pub fn tick(&mut self, saving: &Saving) {
        let now = self.env.now();
        if now >= self.again {
            self.again = now.after(AGAIN);
            for Wanted { definition, missing, .. } in self.wanted.values() {
                for core in missing {
                    self.env.send(*core, CoreMessage::Define(Box::new(definition.clone())));
                }
            }
        }
        let (env, wanted) = (&self.env, &self.wanted);
        self.waiting.retain(|waiting| {
            let Some(Wanted { definition, missing, problem }) = wanted.get(&waiting.id) else {
                return false;
            };
            if missing.is_empty() && waiting.save <= saving.done() {
                waiting.asker.listed(env, vec![info(definition)]);
                return false;
            }
            if now < waiting.until {
                return true;
            }
            let what = problem.as_deref().unwrap_or("the disk or a core takes too long");
            waiting.asker.refuse(env, ErrorCode::Internal, what);
            false
        });
    }
}
