//! Tasks that are counted while they can run, and the cooperative yield.
//!
//! The driver must know whether anybody else wants the core: if not, it waits inside its own ring,
//! which is several times cheaper than the executor's sleep. Every task therefore carries a waker
//! of ours, which counts it as runnable from wake-up to poll. It also keeps glommio's own 16-bit
//! waker count at one per task, whatever the node does with wakers.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Wake, Waker};

use super::core::Core;

/// How many of a core's tasks could run now. Atomic only because the type of wakers demands it:
/// wakers of a core are used on its own thread.
#[derive(Default)]
pub(super) struct Runnable(AtomicUsize);

impl Runnable {
    /// Whether any task could run now.
    pub(super) fn any(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }

    fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn remove(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
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
            if let Some(inner) = self.inner.get() {
                inner.wake_by_ref();
            }
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
pub(super) fn counted<T, F>(core: &Rc<Core>, task: F) -> impl Future<Output = T> + use<T, F>
where
    F: Future<Output = T>,
{
    let core = Rc::clone(core);
    core.runnable.add();
    let counted = Counted(Arc::new(TaskWake {
        queued: AtomicBool::new(true),
        inner: OnceLock::new(),
        runnable: Arc::clone(&core.runnable),
    }));
    async move {
        // Outlives the count: a driver that parked for this task runs again when it is gone.
        let _last = LetDriverRun(Rc::clone(&core));
        let counted = counted;
        let mut task = pin!(task);
        let waker = Waker::from(Arc::clone(&counted.0));
        poll_fn(|cx| {
            let wake = &counted.0;
            wake.inner.get_or_init(|| cx.waker().clone());
            if wake.queued.swap(false, Ordering::Relaxed) {
                wake.runnable.remove();
            }
            let polled = task.as_mut().poll(&mut Context::from_waker(&waker));
            after_poll(&core);
            polled
        })
        .await
    }
}

struct LetDriverRun(Rc<Core>);

impl Drop for LetDriverRun {
    fn drop(&mut self) {
        after_poll(&self.0);
    }
}

/// Gets a parked driver up when it has something to do, and always when it is the last that could
/// run: a core sleeps only in its driver.
fn after_poll(core: &Core) {
    if core.signal.is_parked() && (!core.runnable.any() || core.has_driver_work()) {
        core.signal.wake();
    }
}

/// The cooperative yield of [`coronet_lsm::env::Env::coop`].
///
/// The executor knows nothing of our ring, so long work looks for itself: a driver that could do
/// something gets the core at once.
pub(super) async fn coop(core: &Core) {
    if !core.signal.is_parked() || core.has_driver_work() {
        core.signal.wake();
        glommio::executor().yield_task_queue_now().await;
    } else {
        glommio::yield_if_needed().await;
    }
}
