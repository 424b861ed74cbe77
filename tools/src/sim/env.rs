//! The environment of one simulated core: the simulator's disk, clock and tasks, and messages to
//! the node's other cores that take their time.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use coronet_lsm::env::{Env, Nanos, OpenMode, TaskClass};
use coronet_server::node::{CoreId, CoreMessage, NodeEnv};
use coronet_sim::{SimEnv, SimFile};

use super::network::Network;

/// One core of a simulated node in one of the node's lives.
#[derive(Clone)]
pub struct SimNodeEnv {
    env: SimEnv,
    core: CoreId,
    network: Rc<Network>,
}

impl SimNodeEnv {
    /// The environment of `core`.
    pub fn new(env: SimEnv, core: CoreId, network: Rc<Network>) -> Self {
        SimNodeEnv { env, core, network }
    }
}

impl Env for SimNodeEnv {
    type File = SimFile;

    fn now(&self) -> Nanos {
        self.env.now()
    }

    fn wall_micros(&self) -> u64 {
        self.env.wall_micros()
    }

    fn random(&self) -> u64 {
        self.env.random()
    }

    fn spawn(&self, class: TaskClass, task: impl Future<Output = ()> + 'static) {
        self.env.spawn(class, task);
    }

    async fn sleep(&self, duration: Duration) {
        self.env.sleep(duration).await;
    }

    async fn coop(&self) {
        self.env.coop().await;
    }

    async fn open(&self, path: &Path, mode: OpenMode) -> io::Result<SimFile> {
        self.env.open(path, mode).await
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        self.env.remove(path).await
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.env.rename(from, to).await
    }

    async fn link(&self, existing: &Path, new: &Path) -> io::Result<()> {
        self.env.link(existing, new).await
    }

    async fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.env.create_dir_all(path).await
    }

    async fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.env.remove_dir(path).await
    }

    async fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        self.env.list(dir).await
    }

    async fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.env.sync_dir(dir).await
    }
}

impl NodeEnv for SimNodeEnv {
    fn core(&self) -> CoreId {
        self.core
    }

    fn send(&self, to: CoreId, message: CoreMessage) {
        self.network.send_to_core(self.core, to, message);
    }

    fn output_ready(&self) {
        self.network.schedule_pump(self.core);
    }

    fn dial(&self, ticket: u64, address: SocketAddr) {
        self.network.dial(ticket, address);
    }

    fn log(&self, line: &str) {
        self.network.log(self.core, line);
    }
}
