//! The simulation as a test sees it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use coronet_lsm::env::TaskClass;

use crate::env::{NodeState, SimEnv};
use crate::exec::{HARNESS, Turn, World};
use crate::rng::Rng;
use crate::trace::Tag;

/// One simulated world: nodes with their disks, tasks and a clock, all drawn from one seed.
///
/// Dropping it drops every task.
pub struct Sim {
    world: Rc<World>,
    nodes: RefCell<BTreeMap<String, Rc<NodeState>>>,
}

impl Sim {
    /// A world at time zero. The same seed and the same calls give the same history.
    pub fn new(seed: u64) -> Self {
        Sim { world: Rc::new(World::new(seed)), nodes: RefCell::new(BTreeMap::new()) }
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.world.seed()
    }

    /// A generator for the test's own choices, drawn from the seed.
    pub fn rng(&self) -> Rng {
        self.world.fork_rng()
    }

    /// The environment of a node in its current life; the node and its empty disk are created on
    /// first use.
    pub fn node_env(&self, name: &str) -> SimEnv {
        let mut nodes = self.nodes.borrow_mut();
        if let Some(node) = nodes.get(name) {
            return SimEnv::new(&self.world, node, self.world.owner(node.id()));
        }
        let id = u32::try_from(nodes.len() + 1).unwrap_or(u32::MAX);
        let node = Rc::new(NodeState::new(id, name, &self.world));
        nodes.insert(name.to_owned(), Rc::clone(&node));
        SimEnv::new(&self.world, &node, self.world.begin(id))
    }

    /// Runs the world until `future` completes.
    ///
    /// # Panics
    /// When nothing can run any more and the future is not complete; the message has the seed.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.world.block_on(future)
    }

    /// Starts a task of the test itself; it survives crashes of nodes.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.world.spawn(HARNESS, TaskClass::Foreground, Box::pin(task));
    }

    /// Runs the world for a span of virtual time.
    pub fn run_for(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let limit = self.world.now().saturating_add(nanos);
        while matches!(self.world.turn(Some(limit)), Turn::Ran | Turn::Root) {}
    }

    /// Runs at most `events` steps (task polls, timers, I/O completions). Returns how many ran;
    /// fewer only when nothing can run any more.
    pub fn run_events(&self, events: u64) -> u64 {
        (0..events).find(|_| self.world.turn(None) == Turn::Idle).unwrap_or(events)
    }

    /// Power failure of a node: its tasks are gone, of its un-synced writes a random part
    /// survives. Returns the environment of its next life. Environments, files and engines of the
    /// old life are dead: their operations fail.
    pub fn crash(&self, env: &SimEnv) -> SimEnv {
        let owner = self.world.end_life(env.node().id());
        env.node().disk().power_failure();
        SimEnv::new(&self.world, env.node(), owner)
    }

    /// The process of a node is killed, the machine stays up: its tasks are gone, completed
    /// writes stay, writes under way are complete, partial or absent.
    pub fn kill(&self, env: &SimEnv) -> SimEnv {
        let owner = self.world.end_life(env.node().id());
        env.node().disk().process_killed();
        SimEnv::new(&self.world, env.node(), owner)
    }

    /// The process of a node stands still (a stopped process, a stalled machine): time goes on,
    /// its tasks, timers and completions do not.
    pub fn pause(&self, env: &SimEnv) {
        self.world.pause(env.node().id());
    }

    /// A paused node goes on with everything that was due meanwhile.
    pub fn resume(&self, env: &SimEnv) {
        self.world.resume(env.node().id());
    }

    /// Virtual time since the start.
    pub fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.world.now())
    }

    /// Folds something the test observed into the trace hash.
    pub fn note(&self, a: u64, b: u64) {
        self.world.note(Tag::Note, a, b);
    }

    /// Hash over every scheduling decision, I/O completion, fault and note so far.
    pub fn trace_hash(&self) -> u64 {
        self.world.trace_hash()
    }

    /// Number of events folded into the hash.
    pub fn events(&self) -> u64 {
        self.world.events()
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        self.world.close();
    }
}
