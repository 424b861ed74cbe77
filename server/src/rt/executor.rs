//! One pinned executor per core: start, stop, join.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::{Either, select};
use glommio::{ExecutorJoinHandle, Latency, LocalExecutorBuilder, Placement, Shares, Task};

use super::coop::{Runnable, counted};
use super::core::{Core, Envelope, Queues, Shared, random_seed};
use super::driver::Driver;
use super::env::RtEnv;
use super::heartbeat::{Beat, Heartbeat};
use super::ring::Ring;
use super::signal::Signal;
use super::socket::Net;
use super::timers::{Sleep, Timers};
use super::xcore::{MeshEnd, mesh};
use crate::node::CoreId;

/// Time slice of a task queue. Needed although the driver looks at its ring itself: the executor
/// notices its own timers only between slices. It does not bound how long requests wait, as long
/// work calls `coop` far more often; each slice costs a timer's interrupt and two system calls.
const SLICE: Duration = Duration::from_millis(4);
/// Time slice while none of our queues can run, that is before the core's first step. An executor
/// preempted before its first step would park for good: nobody holds a waker of it yet.
const FIRST_SLICE: Duration = Duration::from_secs(3600);
/// Registered I/O buffers of an executor; the least it accepts, as file I/O runs on our ring.
const IO_MEMORY: usize = 64 * 1024;
/// Depth of glommio's own rings, which carry nothing but its timers.
const EXECUTOR_RING: usize = 32;

/// Why the cores could not start, or ended early.
#[derive(Debug, thiserror::Error)]
pub enum RtError {
    /// No CPU was given, or more than the mesh can address.
    #[error("cannot run {0} cores: give between 1 and 1024 CPUs")]
    Cores(usize),
    /// An executor did not start.
    #[error("cannot start the executor on CPU {cpu}: {cause}")]
    Start {
        /// The CPU it should run on.
        cpu: usize,
        /// What the executor says.
        cause: String,
    },
    /// The core's ring could not be set up, or broke.
    #[error("io_uring on CPU {cpu}: {source}")]
    Ring {
        /// The core's CPU.
        cpu: usize,
        /// The kernel's error.
        source: io::Error,
    },
    /// Eventfds, threads or randomness were refused.
    #[error("cannot set up the cores: {0}")]
    System(#[from] io::Error),
    /// The core's thread panicked; the message went to standard error.
    #[error("the thread of {0} panicked")]
    Panicked(CoreId),
}

/// Which cores to run.
#[derive(Debug, Clone)]
pub struct CoresConfig {
    /// One executor is pinned to each of these CPUs; core 0 to the first.
    pub cpus: Vec<usize>,
}

impl CoresConfig {
    /// The first `count` CPUs this process may use.
    pub fn first(count: usize) -> Self {
        Self { cpus: available_cpus().into_iter().take(count).collect() }
    }
}

/// The CPUs this process may use, ascending.
pub fn available_cpus() -> Vec<usize> {
    let mut cpus: Vec<_> =
        core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|core| core.id).collect();
    cpus.sort_unstable();
    cpus
}

/// What a core's main future gets.
pub struct CoreContext {
    /// The core's environment.
    pub env: RtEnv,
    /// The CPU it is pinned to.
    pub cpu: usize,
}

/// Ends all cores; may be used from any thread.
#[derive(Clone)]
pub struct Stopper(Arc<Shared>);

impl Stopper {
    /// Asks all cores to finish what is in flight and end. See [`RtEnv::serve`].
    pub fn stop(&self) {
        self.0.stop_all();
    }
}

impl Shared {
    pub(super) fn stop_all(&self) {
        self.stop.store(true, Ordering::SeqCst);
        for bell in &self.bells {
            bell.force();
        }
    }
}

/// The running cores.
pub struct Cores<T: Send + 'static> {
    threads: Vec<(usize, ExecutorJoinHandle<Result<T, RtError>>)>,
    shared: Arc<Shared>,
    // Outlives the threads it watches.
    _heartbeat: Heartbeat,
}

impl<T: Send + 'static> Cores<T> {
    /// A handle to end them.
    pub fn stopper(&self) -> Stopper {
        Stopper(Arc::clone(&self.shared))
    }

    /// Waits for all cores. The results are in the order of the cores.
    pub fn join(self) -> Vec<Result<T, RtError>> {
        let mut results = Vec::with_capacity(self.threads.len());
        for (core, (cpu, thread)) in self.threads.into_iter().enumerate() {
            let result = match thread.join() {
                Ok(result) => result,
                Err(glommio::GlommioError::BuilderError(_)) => {
                    Err(RtError::Panicked(CoreId(core as u16)))
                }
                Err(error) => Err(RtError::Start { cpu, cause: error.to_string() }),
            };
            results.push(result);
        }
        results
    }
}

/// Starts one executor per CPU and runs `main` on each. A core ends when its main future is done.
///
/// # Errors
/// As [`start_each`].
pub fn start<F, Fut, T>(config: &CoresConfig, main: F) -> Result<Cores<T>, RtError>
where
    F: FnOnce(CoreContext) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = T> + 'static,
    T: Send + 'static,
{
    start_each(config, |_| main.clone())
}

/// Starts one executor per CPU. `main` is asked, on the calling thread, for each core's main
/// function, which then runs on the core. A core ends when its main future is done.
///
/// # Errors
/// When there are no CPUs, or threads or eventfds are refused. What fails on a core's own thread
/// shows in [`Cores::join`].
pub fn start_each<F, Fut, T>(
    config: &CoresConfig,
    mut main: impl FnMut(CoreId) -> F,
) -> Result<Cores<T>, RtError>
where
    F: FnOnce(CoreContext) -> Fut + Send + 'static,
    Fut: Future<Output = T> + 'static,
    T: Send + 'static,
{
    let count = config.cpus.len();
    if count == 0 || count > 1024 {
        return Err(RtError::Cores(count));
    }
    let ends = mesh::<Envelope>(count)?;
    let shared = Arc::new(Shared {
        origin: Instant::now(),
        connections: AtomicUsize::new(0),
        stop: AtomicBool::new(false),
        bells: ends.iter().map(|end| Arc::clone(end.bell())).collect(),
    });
    let (heartbeat, beats) = Heartbeat::start(count)?;
    let mut threads = Vec::with_capacity(count);
    for ((id, end), beat) in ends.into_iter().enumerate().zip(beats) {
        let seat =
            Seat { id: CoreId(id as u16), cpu: config.cpus[id], shared: Arc::clone(&shared) };
        let (cpu, main) = (seat.cpu, main(seat.id));
        let thread = LocalExecutorBuilder::new(Placement::Fixed(cpu))
            .name(&format!("core-{id}"))
            .preempt_timer(FIRST_SLICE)
            .io_memory(IO_MEMORY)
            .ring_depth(EXECUTOR_RING)
            .spawn(move || async move { run_core(seat, end, beat, main).await })
            .map_err(|error| RtError::Start { cpu, cause: error.to_string() })?;
        threads.push((cpu, thread));
    }
    Ok(Cores { threads, shared, _heartbeat: heartbeat })
}

thread_local! {
    /// Dropped when a core's thread ends, in whatever way.
    static EXIT: RefCell<Option<Exit>> = const { RefCell::new(None) };
}

/// Ends the other cores when one ends by panic or error: they cannot do without.
struct Exit {
    shared: Arc<Shared>,
    in_order: Cell<bool>,
}

impl Drop for Exit {
    fn drop(&mut self) {
        if !self.in_order.get() {
            self.shared.stop_all();
        }
    }
}

/// A core's place before it runs.
struct Seat {
    id: CoreId,
    cpu: usize,
    shared: Arc<Shared>,
}

async fn run_core<F, Fut, T>(
    seat: Seat,
    mesh: MeshEnd<Envelope>,
    beat: Arc<Beat>,
    main: F,
) -> Result<T, RtError>
where
    F: FnOnce(CoreContext) -> Fut,
    Fut: Future<Output = T> + 'static,
    T: 'static,
{
    beat.attend().await;
    EXIT.set(Some(Exit { shared: Arc::clone(&seat.shared), in_order: Cell::new(false) }));
    let cpu = seat.cpu;
    let ring_error = move |source| RtError::Ring { cpu, source };
    let queues = queues();
    let signal = Rc::new(Signal::default());
    let ring = Rc::new(Ring::new(cpu, Rc::clone(&signal)).map_err(ring_error)?);
    let net = Net::new(&ring).map_err(ring_error)?;
    let core = Rc::new(Core {
        id: seat.id,
        ring,
        signal,
        queues,
        runnable: Arc::new(Runnable::default()),
        beat: Arc::clone(&beat),
        mesh: RefCell::new(mesh),
        net: RefCell::new(net),
        shared: seat.shared,
        timers: Timers::default(),
        ending: Cell::new(false),
        random: Cell::new(random_seed()?),
        last_stats: Cell::default(),
    });

    // The pulse is not counted as runnable: it serves the executor, not the core. It is never
    // ended either, as the executor must be kept from oversleeping up to its very last step.
    let woken = Rc::downgrade(&core);
    let pulse = Arc::clone(&beat).pulse(move || {
        if let Some(core) = woken.upgrade() {
            core.signal.wake();
        }
    });
    spawn_foreground(&core, pulse).detach();
    let context = CoreContext { env: RtEnv { core: Rc::clone(&core) }, cpu };
    let main = spawn_foreground(&core, counted(&core, main(context)));
    let result = counted(&core, drive(&core, main)).await;
    beat.end();
    EXIT.with_borrow(|exit| exit.iter().for_each(|exit| exit.in_order.set(result.is_ok())));
    result.map_err(ring_error)
}

/// Runs the driver until `main` is done and the kernel has let go of everything.
async fn drive<T: 'static>(core: &Rc<Core>, main: Task<T>) -> io::Result<T> {
    let driver = spawn_foreground(core, Driver::new(Rc::clone(core)).run());
    match select(main, driver).await {
        Either::Left((result, driver)) => {
            core.ending.set(true);
            core.signal.kick();
            match select(driver, Sleep::new(core, DRAIN_LIMIT)).await {
                Either::Left((ended, _)) => ended.map(|()| result),
                // What the kernel still holds after the limit is leaked, not freed.
                Either::Right(_) => Ok(result),
            }
        }
        Either::Right((Err(broken), _)) => Err(broken),
        // The driver ends by itself only after `ending` was set.
        Either::Right((Ok(()), main)) => Ok(main.await),
    }
}

fn spawn_foreground<T: 'static>(core: &Core, task: impl Future<Output = T> + 'static) -> Task<T> {
    match glommio::spawn_local_into(task, core.queues.foreground) {
        Ok(task) => task,
        // Queues live as long as the executor; without them there is nothing to run on.
        Err(error) => unreachable!("a task queue of this executor is gone: {error}"),
    }
}

/// How long operations that nobody waits for may take to end with their core.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);

fn queues() -> Queues {
    let executor = glommio::executor();
    // The latency is the slice only: no I/O goes through the executor's own rings.
    let queue = |shares, name: &str| {
        executor.create_task_queue(Shares::Static(shares), Latency::Matters(SLICE), name)
    };
    Queues {
        foreground: queue(1000, "foreground"),
        flush: queue(400, "flush"),
        compaction: queue(200, "compaction"),
        background: queue(50, "background"),
    }
}
