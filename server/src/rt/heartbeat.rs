//! The thread outside all executors that keeps each of them from oversleeping.
//!
//! glommio 0.9.0 can park an executor that still has runnable tasks: the scheduler says "nothing
//! ran" both when there was nothing to run and when it was preempted before it ran anything. A
//! wake-up from another thread gets it out. While a core is active and made no turn since the last
//! look, its pulse task is woken, about every millisecond. A core that waits in its own ring is
//! not in the executor's hands and says so; when all do, this thread sleeps too.

use std::future::poll_fn;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Poll, Waker};
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

use crossbeam_utils::CachePadded;

/// How often active executors are looked at.
const BEAT: Duration = Duration::from_millis(1);
/// How often the thread looks when nobody is active, should an unpark ever get lost.
const IDLE_BEAT: Duration = Duration::from_secs(1);
/// Beats after a core's last step; its executor needs them to end.
const LAST_BEATS: u32 = 5_000;

/// What a core tells the heartbeat.
pub(super) struct Beat {
    active: CachePadded<AtomicBool>,
    turns: CachePadded<AtomicU64>,
    /// A beat waits to be noticed by the executor.
    pending: CachePadded<AtomicBool>,
    ended: AtomicBool,
    waker: Mutex<Option<Waker>>,
    thread: Arc<OnceLock<Thread>>,
}

impl Beat {
    fn new(thread: Arc<OnceLock<Thread>>) -> Self {
        Self {
            // An executor needs the beats from its first step.
            active: CachePadded::new(AtomicBool::new(true)),
            turns: CachePadded::default(),
            pending: CachePadded::default(),
            ended: AtomicBool::new(false),
            waker: Mutex::new(None),
            thread,
        }
    }

    /// The core's driver made a turn.
    pub(super) fn turn(&self) {
        // The only writer: no read-modify-write needed.
        self.turns.store(self.turns.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// The core works, or leaves itself to the executor.
    pub(super) fn busy(&self) {
        if !self.active.load(Ordering::Relaxed) {
            self.active.store(true, Ordering::Release);
            if let Some(thread) = self.thread.get() {
                thread.unpark();
            }
        }
    }

    /// The core waits in its own ring and no task of it can run.
    pub(super) fn idle(&self) {
        if self.active.load(Ordering::Relaxed) {
            self.active.store(false, Ordering::Release);
        }
    }

    /// Whether the executor must run for a moment, so that beats do not pile up in it.
    pub(super) fn is_pending(&self) -> bool {
        self.pending.load(Ordering::Relaxed)
    }

    /// The core's last step is being made.
    pub(super) fn end(&self) {
        self.busy();
        self.ended.store(true, Ordering::Release);
    }

    /// Has beats wake the calling task until the pulse takes over. The core's first step: from
    /// here on its executor can be got up.
    pub(super) async fn attend(&self) {
        poll_fn(|cx| {
            *lock(&self.waker) = Some(cx.waker().clone());
            Poll::Ready(())
        })
        .await;
    }

    /// Runs `pulse` whenever the heartbeat beats for this core. Never completes; a task of its own.
    pub(super) async fn pulse(self: Arc<Self>, pulse: impl Fn()) {
        poll_fn(|cx| {
            self.pending.store(false, Ordering::Relaxed);
            *lock(&self.waker) = Some(cx.waker().clone());
            pulse();
            Poll::<()>::Pending
        })
        .await;
    }

    fn wake(&self) {
        self.pending.store(true, Ordering::Relaxed);
        if let Some(waker) = lock(&self.waker).as_ref() {
            waker.wake_by_ref();
        }
    }
}

fn lock(waker: &Mutex<Option<Waker>>) -> MutexGuard<'_, Option<Waker>> {
    waker.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The running heartbeat; stops when dropped.
pub(super) struct Heartbeat {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Heartbeat {
    /// Makes the beats of `cores` cores and starts the thread.
    pub(super) fn start(cores: usize) -> io::Result<(Self, Vec<Arc<Beat>>)> {
        let slot = Arc::new(OnceLock::new());
        let beats: Vec<_> = (0..cores).map(|_| Arc::new(Beat::new(Arc::clone(&slot)))).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let (watched, stopped) = (beats.clone(), Arc::clone(&stop));
        let thread = thread::Builder::new().name("heartbeat".into()).spawn(move || {
            watch(&watched, &stopped);
        })?;
        let _ = slot.set(thread.thread().clone());
        Ok((Self { stop, thread: Some(thread) }, beats))
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

fn watch(beats: &[Arc<Beat>], stop: &AtomicBool) {
    let mut seen = vec![(u64::MAX, 0u32); beats.len()];
    while !stop.load(Ordering::Acquire) {
        let mut any = false;
        for (beat, (turns, last_beats)) in beats.iter().zip(&mut seen) {
            if beat.ended.load(Ordering::Acquire) {
                *last_beats += 1;
            }
            if !beat.active.load(Ordering::Acquire) || *last_beats > LAST_BEATS {
                continue;
            }
            any = true;
            let now = beat.turns.load(Ordering::Relaxed);
            if std::mem::replace(turns, now) == now {
                beat.wake();
            }
        }
        thread::park_timeout(if any { BEAT } else { IDLE_BEAT });
    }
}
