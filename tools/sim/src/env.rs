//! The engine's environment on the simulator: clock, tasks and one node's disk.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use coronet_lsm::env::{AlignedBuf, Env, File, Nanos, OpenMode, PAGE, TaskClass};

use crate::disk::{Disk, Op};
use crate::exec::{Owner, Slot, TimerKey, World};
use crate::rng::Rng;
use crate::trace::Tag;

/// Wall clock at virtual time zero (2023-11-14), microseconds since the Unix epoch.
const WALL_START: i64 = 1_700_000_000_000_000;

/// Granularity of a node's reads: half of the disks have sectors of 512 bytes.
fn read_unit(seed: u64, node: u32) -> usize {
    if (seed ^ u64::from(node)).is_multiple_of(2) { 512 } else { PAGE }
}

/// What a node keeps across its lives.
pub(crate) struct NodeState {
    id: u32,
    name: String,
    disk: Disk,
    rng: RefCell<Rng>,
    wall_offset: Cell<i64>,
    /// Parts per million the wall clock goes too fast, and since which moment.
    drift: Cell<(i64, u64)>,
}

impl NodeState {
    pub(crate) fn new(id: u32, name: &str, world: &World) -> Self {
        NodeState {
            id,
            name: name.to_owned(),
            disk: Disk::new(world.fork_rng(), read_unit(world.seed(), id)),
            rng: RefCell::new(world.fork_rng()),
            wall_offset: Cell::new(0),
            drift: Cell::new((0, 0)),
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    pub(crate) fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Microseconds the wall clock is ahead of virtual time.
    fn ahead(&self, now: u64) -> i64 {
        let (ppm, since) = self.drift.get();
        let passed = i64::try_from(now.saturating_sub(since) / 1000).unwrap_or(i64::MAX);
        let drifted = passed.saturating_mul(ppm) / 1_000_000;
        self.wall_offset.get().saturating_add(drifted)
    }
}

/// The environment of one node in one of its lives. Clones are handles to the same.
#[derive(Clone)]
pub struct SimEnv {
    world: Rc<World>,
    node: Rc<NodeState>,
    owner: Owner,
}

impl SimEnv {
    pub(crate) fn new(world: &Rc<World>, node: &Rc<NodeState>, owner: Owner) -> Self {
        SimEnv { world: Rc::clone(world), node: Rc::clone(node), owner }
    }

    pub(crate) fn node(&self) -> &Rc<NodeState> {
        &self.node
    }

    /// The node's name.
    pub fn name(&self) -> &str {
        &self.node.name
    }

    /// The node's disk: faults, raw bytes, counters.
    pub fn disk(&self) -> &Disk {
        &self.node.disk
    }

    /// Whether this life of the node still goes on.
    pub fn is_alive(&self) -> bool {
        self.world.is_alive(self.owner)
    }

    /// Whether the node stands still (see [`Sim::pause`](crate::Sim::pause)).
    pub fn is_paused(&self) -> bool {
        self.world.is_paused(self.node.id)
    }

    /// The environment of the node's current life: what a restarted process gets.
    pub fn restart(&self) -> SimEnv {
        SimEnv::new(&self.world, &self.node, self.world.owner(self.node.id))
    }

    /// Moves the node's wall clock by `micros` against virtual time.
    pub fn set_wall_offset(&self, micros: i64) {
        self.node.wall_offset.set(micros);
        self.node.drift.set((self.node.drift.get().0, self.world.now()));
    }

    /// Lets the node's wall clock go too fast by `ppm` parts per million from now on, or too
    /// slowly.
    pub fn set_wall_drift(&self, ppm: i64) {
        self.node.wall_offset.set(self.node.ahead(self.world.now()));
        self.node.drift.set((ppm, self.world.now()));
    }

    /// Runs `action` after `delay`, unless this life of the node ends before: how a simulated
    /// network or interconnect delivers.
    pub fn after(&self, delay: Duration, action: impl FnOnce() + 'static) {
        let at = self.now().after(delay).0;
        self.world.schedule(self.owner, at, Box::new(action));
    }

    /// Starts an operation on the disk now and completes it after the latency the disk draws,
    /// whether or not somebody still waits then. `None` when the node crashed.
    async fn io<T: 'static>(
        &self,
        op: Op,
        complete: impl FnOnce(&Disk) -> T + 'static,
    ) -> io::Result<T> {
        if !self.is_alive() {
            return Err(crashed());
        }
        let at = self.now().after(self.node.disk.draw_latency(op)).0;
        let slot = Slot::new();
        let (node, world, out) = (Rc::clone(&self.node), Rc::clone(&self.world), Rc::clone(&slot));
        let action = move || {
            let result = complete(&node.disk);
            for (tag, a, b) in node.disk.drain_notes() {
                world.note(tag, a, b);
            }
            out.fill(result);
        };
        self.world.schedule(self.owner, at, Box::new(action));
        Ok(slot.take().await)
    }

    /// A change of names takes effect at once (a crash before its completion may keep or lose
    /// it, as it may without `sync_dir`) and is answered after the latency.
    async fn names<T: 'static>(
        &self,
        change: impl FnOnce(&Disk) -> io::Result<T>,
    ) -> io::Result<T> {
        if !self.is_alive() {
            return Err(crashed());
        }
        let result = change(&self.node.disk);
        self.world.note(Tag::Names, u64::from(self.node.id), u64::from(result.is_ok()));
        self.io(Op::Names, |_| ()).await?;
        result
    }
}

fn crashed() -> io::Error {
    io::Error::other("the simulated node has crashed")
}

/// Waits for virtual time. Cancels its timer when dropped.
struct Sleep {
    world: Rc<World>,
    key: TimerKey,
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.world.cancel(self.key);
    }
}

impl Env for SimEnv {
    type File = SimFile;

    fn now(&self) -> Nanos {
        Nanos(self.world.now())
    }

    fn wall_micros(&self) -> u64 {
        let virtual_micros = i64::try_from(self.world.now() / 1000).unwrap_or(i64::MAX);
        let ahead = self.node.ahead(self.world.now());
        let wall = WALL_START.saturating_add(virtual_micros).saturating_add(ahead);
        u64::try_from(wall).unwrap_or(0)
    }

    fn random(&self) -> u64 {
        self.node.rng.borrow_mut().next_u64()
    }

    fn spawn(&self, class: TaskClass, task: impl Future<Output = ()> + 'static) {
        self.world.spawn(self.owner, class, Box::pin(task));
    }

    async fn sleep(&self, duration: Duration) {
        let at = self.now().after(duration).0;
        let slot = Slot::new();
        let out = Rc::clone(&slot);
        let key = self.world.schedule(self.owner, at, Box::new(move || out.fill(())));
        let _cancel = Sleep { world: Rc::clone(&self.world), key };
        slot.take().await;
    }

    async fn coop(&self) {
        let waits = self.node.rng.borrow_mut().chance(500_000);
        let mut yielded = !waits;
        std::future::poll_fn(move |cx| {
            if std::mem::replace(&mut yielded, true) {
                return std::task::Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            std::task::Poll::Pending
        })
        .await;
    }

    async fn open(&self, path: &Path, mode: OpenMode) -> io::Result<SimFile> {
        let handle = self.names(|disk| {
            let ino = disk.open(path, mode == OpenMode::CreateNew)?;
            Ok(Rc::new(Handle {
                env: self.clone(),
                ino,
                path: path.to_owned(),
                writable: mode != OpenMode::Read,
            }))
        });
        Ok(SimFile { handle: handle.await? })
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        self.names(|disk| disk.remove(path)).await
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.names(|disk| disk.rename(from, to)).await
    }

    async fn link(&self, existing: &Path, new: &Path) -> io::Result<()> {
        self.names(|disk| disk.link(existing, new)).await
    }

    async fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.names(|disk| disk.create_dir_all(path)).await
    }

    async fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.names(|disk| disk.remove_dir(path)).await
    }

    async fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        self.names(|disk| disk.list(dir)).await
    }

    async fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let point = self.names(|disk| disk.begin_sync_dir(dir)).await?;
        self.io(Op::Sync, move |disk| disk.finish_sync_dir(point)).await?
    }
}

struct Handle {
    env: SimEnv,
    ino: u64,
    path: PathBuf,
    writable: bool,
}

impl Drop for Handle {
    fn drop(&mut self) {
        // A crash closed every file of the old life already.
        if self.env.is_alive() {
            self.env.node.disk.close(self.ino);
        }
    }
}

/// An open file of a [`SimEnv`].
#[derive(Clone)]
pub struct SimFile {
    handle: Rc<Handle>,
}

impl SimFile {
    fn check_alignment(&self, unit: usize, offset: u64, len: usize) {
        let path = self.handle.path.display();
        assert!(offset.is_multiple_of(unit as u64), "direct I/O at offset {offset} of {path}");
        assert!(len.is_multiple_of(unit), "direct I/O of {len} bytes in {path}");
    }

    fn check_writable(&self) -> io::Result<()> {
        if self.handle.writable {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::PermissionDenied, "file was opened for reading only"))
    }
}

impl File for SimFile {
    fn read_unit(&self) -> usize {
        self.handle.env.node.disk.read_unit()
    }

    async fn read_at(&self, offset: u64, len: usize) -> io::Result<AlignedBuf> {
        self.check_alignment(self.read_unit(), offset, len);
        if !self.handle.env.is_alive() {
            return Err(crashed());
        }
        let handle = Rc::clone(&self.handle);
        handle.env.node.disk.begin_read();
        self.handle
            .env
            .io(Op::Read, move |disk| disk.read(handle.ino, &handle.path, offset, len))
            .await?
    }

    async fn write_at(&self, offset: u64, buf: AlignedBuf) -> (io::Result<()>, AlignedBuf) {
        self.check_alignment(PAGE, offset, buf.len());
        if let Err(error) = self.check_writable() {
            return (Err(error), buf);
        }
        if !self.handle.env.is_alive() {
            return (Err(crashed()), buf);
        }
        let handle = Rc::clone(&self.handle);
        let id = handle.env.node.disk.begin_write(handle.ino, offset, buf);
        let done =
            self.handle.env.io(Op::Write, move |disk| disk.finish_write(id, &handle.path)).await;
        match done {
            Ok(done) => done,
            Err(error) => (Err(error), AlignedBuf::default()),
        }
    }

    async fn sync(&self) -> io::Result<()> {
        if !self.handle.env.is_alive() {
            return Err(crashed());
        }
        let handle = Rc::clone(&self.handle);
        let point = handle.env.node.disk.begin_sync(handle.ino);
        self.handle
            .env
            .io(Op::Sync, move |disk| disk.finish_sync(handle.ino, &handle.path, point))
            .await?
    }

    async fn len(&self) -> io::Result<u64> {
        self.handle.env.names(|disk| Ok(disk.len(self.handle.ino))).await
    }

    async fn set_len(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        self.handle.env.names(|disk| disk.set_len(self.handle.ino, len)).await
    }
}
