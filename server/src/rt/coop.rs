//! Tasks that are counted while they can run, and the cooperative yield.
//!
//! The driver must know whether anybody else wants the core: if not, it may wait inside its own
//! ring, which is several times cheaper than the executor's sleep. Every task of the environment
//! therefore carries a waker of ours, which counts it as runnable from wake-up to poll. It also
//! keeps glommio's own 16-bit waker count at one per task, whatever the node does with wakers.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Wake, Waker};

use super::core::Core;
use super::heartbeat::Beat;

/// How many of a core's tasks could run now.
pub(super) struct Runnable {
    count: AtomicUsize,
    beat: Arc<Beat>,
}

impl Runnable {
    pub(super) fn new(beat: Arc<Beat>) -> Arc<Self> {
        Arc::new(Self { count: AtomicUsize::new(0), beat })
    }

    /// Whether any task could run now.
    pub(super) fn any(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    fn add(&self) {
        // Wakers of a core are used on its own thread; the counter is atomic only because the
        // type of wakers demands it.
        if self.count.fetch_add(1, Ordering::Relaxed) == 0 {
            self.beat.busy();
        }
    }

    fn remove(&self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

struct TaskWake {
    /// Counted as runnable; stays set when the task is gone, so that late wake-ups do not count.
    queued: AtomicBool,
    inner: OnceLock<Waker>,
    runnable: Arc<Runnable>,
}

impl Wake for TaskWake {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            self.runnable.add();
        }
        if let Some(inner) = self.inner.get() {
            inner.wake_by_ref();
        }
    }
}

/// Uncounts a task that ends or is dropped.
struct Counted(Arc<TaskWake>);

impl Drop for Counted {
    fn drop(&mut self) {
        if self.0.queued.swap(true, Ordering::Relaxed) {
            self.0.runnable.remove();
        }
    }
}

/// Runs `task` and counts it while it could run.
pub(super) fn counted<T, F>(
    runnable: &Arc<Runnable>,
    task: F,
) -> impl Future<Output = T> + use<T, F>
where
    F: Future<Output = T>,
{
    runnable.add();
    let wake = Arc::new(TaskWake {
        queued: AtomicBool::new(true),
        inner: OnceLock::new(),
        runnable: Arc::clone(runnable),
    });
    let counted = Counted(wake);
    async move {
        let mut task = pin!(task);
        let waker = Waker::from(Arc::clone(&counted.0));
        poll_fn(|cx| {
            let wake = &counted.0;
            wake.inner.get_or_init(|| cx.waker().clone());
            if wake.queued.swap(false, Ordering::Relaxed) {
                wake.runnable.remove();
            }
            task.as_mut().poll(&mut Context::from_waker(&waker))
        })
        .await
    }
}

/// The cooperative yield of [`coronet_lsm::env::Env::coop`].
///
/// The executor notices completions of our ring only between time slices, so long work looks for
/// itself: a driver that could do something gets the core at once.
pub(super) async fn coop(core: &Core) {
    if core.driver_wants_core() {
        core.signal.wake();
        glommio::executor().yield_task_queue_now().await;
    } else {
        glommio::yield_if_needed().await;
    }
}
