//! The thread outside all executors that keeps each of them from oversleeping.
//!
//! glommio 0.9.0 can park an executor that still has runnable tasks (the scheduler says "nothing
//! ran" both when there was nothing to run and when it was preempted before it ran anything). A
//! wake-up from another thread gets it out. While a core is active and made no turn since the
//! last look, its pulse task is woken, about every millisecond; when all cores are idle the
//! thread sleeps until one of them becomes busy.

use std::future::poll_fn;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Poll, Waker};
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

use crossbeam_utils::CachePadded;

/// How often active executors are looked at.
const BEAT: Duration = Duration::from_millis(1);
/// How often idle ones are: a safety net, cheap enough not to show.
const IDLE_BEAT: Duration = Duration::from_millis(250);

/// What a core tells the heartbeat, written by the core alone.
#[derive(Default)]
pub(super) struct Beat {
    active: CachePadded<AtomicBool>,
    turns: CachePadded<AtomicU64>,
    rescues: AtomicU64,
    pulse: Mutex<Option<Waker>>,
    thread: Arc<OnceLock<Thread>>,
}

impl Beat {
    /// The core's driver made a turn.
    pub(super) fn turn(&self) {
        // The only writer: no read-modify-write needed.
        self.turns.store(self.turns.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// The core has something to do.
    pub(super) fn busy(&self) {
        if !self.active.load(Ordering::Relaxed) {
            self.active.store(true, Ordering::Release);
            if let Some(thread) = self.thread.get() {
                thread.unpark();
            }
        }
    }

    /// The core sleeps and no task of it can run.
    pub(super) fn idle(&self) {
        self.active.store(false, Ordering::Release);
    }

    /// Leaves the calling task's waker with the heartbeat, for ever. Run as a task of its own.
    pub(super) async fn pulse(self: Arc<Self>) {
        poll_fn(|cx| {
            *lock(&self.pulse) = Some(cx.waker().clone());
            Poll::<()>::Pending
        })
        .await;
    }

    /// Takes the waker back, on the executor's own thread and before it ends.
    pub(super) fn stop(&self) {
        *lock(&self.pulse) = None;
    }

    fn wake(&self) {
        if let Some(waker) = lock(&self.pulse).as_ref() {
            waker.wake_by_ref();
        }
    }
}

fn lock(pulse: &Mutex<Option<Waker>>) -> std::sync::MutexGuard<'_, Option<Waker>> {
    pulse.lock().unwrap_or_else(PoisonError::into_inner)
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
        let beats: Vec<_> = (0..cores)
            .map(|_| Arc::new(Beat { thread: Arc::clone(&slot), ..Beat::default() }))
            .collect();
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
    let mut seen = vec![0; beats.len()];
    while !stop.load(Ordering::Acquire) {
        let mut any = false;
        for (beat, seen) in beats.iter().zip(&mut seen) {
            let active = beat.active.load(Ordering::Acquire);
            any |= active;
            let turns = beat.turns.load(Ordering::Relaxed);
            if turns == std::mem::replace(seen, turns) {
                beat.wake();
                if active {
                    beat.rescues.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        thread::park_timeout(if any { BEAT } else { IDLE_BEAT });
    }
}
