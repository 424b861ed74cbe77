//! The executor: tasks, timers, virtual time. One thread, one seed, one order of events.
//!
//! Tasks and timers belong to an [`Owner`], one life of one node. Ending a life drops all of them
//! at once: that is what a crash does to a process.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use coronet_lsm::env::TaskClass;

use crate::rng::Rng;
use crate::trace::{Tag, Trace};

/// One life of one node: from its start to its crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Owner {
    pub(crate) node: u32,
    pub(crate) life: u32,
}

/// The test itself: never crashes.
pub(crate) const HARNESS: Owner = Owner { node: 0, life: 0 };

const ROOT: u64 = u64::MAX;

type LocalTask = Pin<Box<dyn Future<Output = ()>>>;
type Action = Box<dyn FnOnce()>;
/// When a timer fires and in which order among equals.
pub(crate) type TimerKey = (u64, u64);

/// Tasks that were woken and not polled since. `Mutex`, because wakers must be `Send`; there is
/// never a second thread.
#[derive(Default)]
struct ReadyQueue(Mutex<Vec<u64>>);

impl ReadyQueue {
    fn with<R>(&self, f: impl FnOnce(&mut Vec<u64>) -> R) -> R {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

struct TaskWaker {
    id: u64,
    queued: AtomicBool,
    ready: Arc<ReadyQueue>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            self.ready.with(|ready| ready.push(self.id));
        }
    }
}

struct Task {
    owner: Owner,
    class: TaskClass,
    /// `None` while the task is being polled.
    future: Option<LocalTask>,
    waker: Arc<TaskWaker>,
}

struct Timer {
    owner: Owner,
    action: Action,
}

struct State {
    now: u64,
    rng: Rng,
    trace: Trace,
    next_id: u64,
    tasks: BTreeMap<u64, Task>,
    timers: BTreeMap<TimerKey, Timer>,
    /// The current life of each node.
    lives: BTreeMap<u32, u32>,
    /// Nodes that stand still, with what is due for them.
    paused: BTreeMap<u32, Due>,
    closed: bool,
}

/// Tasks that were woken and timers that were due while their node stood still.
#[derive(Default)]
struct Due {
    tasks: Vec<u64>,
    timers: Vec<Timer>,
}

/// What one turn of the executor did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// A task was polled or a timer fired.
    Ran,
    /// It is the root future's turn; the caller polls it.
    Root,
    /// The time limit is reached.
    Limit,
    /// No task is ready and no timer is set.
    Idle,
}

/// The executor's shared state.
pub(crate) struct World {
    seed: u64,
    state: RefCell<State>,
    ready: Arc<ReadyQueue>,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        World {
            seed,
            ready: Arc::default(),
            state: RefCell::new(State {
                now: 0,
                rng: Rng::new(seed),
                trace: Trace::new(),
                next_id: 1,
                tasks: BTreeMap::new(),
                timers: BTreeMap::new(),
                lives: BTreeMap::from([(HARNESS.node, HARNESS.life)]),
                paused: BTreeMap::new(),
                closed: false,
            }),
        }
    }

    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    pub(crate) fn now(&self) -> u64 {
        self.state.borrow().now
    }

    pub(crate) fn fork_rng(&self) -> Rng {
        self.state.borrow_mut().rng.fork()
    }

    pub(crate) fn note(&self, tag: Tag, a: u64, b: u64) {
        self.state.borrow_mut().trace.note(tag, a, b);
    }

    pub(crate) fn trace_hash(&self) -> u64 {
        self.state.borrow().trace.digest()
    }

    pub(crate) fn events(&self) -> u64 {
        self.state.borrow().trace.events()
    }

    pub(crate) fn is_alive(&self, owner: Owner) -> bool {
        let state = self.state.borrow();
        !state.closed && state.lives.get(&owner.node) == Some(&owner.life)
    }

    /// Starts the first life of a node.
    pub(crate) fn begin(&self, node: u32) -> Owner {
        self.state.borrow_mut().lives.insert(node, 0);
        Owner { node, life: 0 }
    }

    /// The current life of a node.
    pub(crate) fn owner(&self, node: u32) -> Owner {
        let life = self.state.borrow().lives.get(&node).copied().unwrap_or(0);
        Owner { node, life }
    }

    /// Ends the current life of a node: all its tasks and timers are gone. The next life begins.
    pub(crate) fn end_life(&self, node: u32) -> Owner {
        let (next, tasks, timers, due) = {
            let mut state = self.state.borrow_mut();
            let due = state.paused.remove(&node);
            let life = state.lives.entry(node).or_insert(0);
            *life += 1;
            let next = Owner { node, life: *life };
            state.trace.note(Tag::Crash, u64::from(node), u64::from(next.life));
            let dead_tasks: Vec<Task> = state
                .tasks
                .extract_if(.., |_, task| task.owner.node == node)
                .map(|t| t.1)
                .collect();
            let dead_timers: Vec<Timer> = state
                .timers
                .extract_if(.., |_, timer| timer.owner.node == node)
                .map(|t| t.1)
                .collect();
            (next, dead_tasks, dead_timers, due)
        };
        // Dropped outside the borrow: destructors may call back into the environment.
        drop(tasks);
        drop(timers);
        drop(due);
        next
    }

    /// Stops a node's tasks and timers until [`World::resume`]; time goes on.
    pub(crate) fn pause(&self, node: u32) {
        let mut state = self.state.borrow_mut();
        state.trace.note(Tag::Pause, u64::from(node), 0);
        state.paused.entry(node).or_default();
    }

    /// Lets a paused node go on; what was due meanwhile is due now.
    pub(crate) fn resume(&self, node: u32) {
        let mut state = self.state.borrow_mut();
        state.trace.note(Tag::Pause, u64::from(node), 1);
        let Some(due) = state.paused.remove(&node) else { return };
        for timer in due.timers {
            let key = (state.now, state.next_id);
            state.next_id += 1;
            state.timers.insert(key, timer);
        }
        self.ready.with(|ready| ready.extend(due.tasks));
    }

    /// Whether a node stands still.
    pub(crate) fn is_paused(&self, node: u32) -> bool {
        self.state.borrow().paused.contains_key(&node)
    }

    /// Drops everything, so that tasks that hold an environment do not keep the world alive.
    pub(crate) fn close(&self) {
        let (tasks, timers) = {
            let mut state = self.state.borrow_mut();
            state.closed = true;
            (std::mem::take(&mut state.tasks), std::mem::take(&mut state.timers))
        };
        let paused = std::mem::take(&mut self.state.borrow_mut().paused);
        drop(paused);
        drop(tasks);
        drop(timers);
    }

    pub(crate) fn spawn(&self, owner: Owner, class: TaskClass, future: LocalTask) {
        if !self.is_alive(owner) {
            return; // a destructor of a crashed task: nobody is there to run it
        }
        let waker = {
            let mut state = self.state.borrow_mut();
            let id = state.next_id;
            state.next_id += 1;
            let waker = Arc::new(TaskWaker {
                id,
                queued: AtomicBool::new(false),
                ready: Arc::clone(&self.ready),
            });
            let task = Task { owner, class, future: Some(future), waker: Arc::clone(&waker) };
            state.tasks.insert(id, task);
            state.trace.note(Tag::Spawn, id, class as u64);
            waker
        };
        waker.wake();
    }

    /// Runs `action` when virtual time reaches `at`, unless the owner dies before.
    pub(crate) fn schedule(&self, owner: Owner, at: u64, action: Action) -> TimerKey {
        let mut state = self.state.borrow_mut();
        let key = (at, state.next_id);
        state.next_id += 1;
        if !state.closed && state.lives.get(&owner.node) == Some(&owner.life) {
            state.timers.insert(key, Timer { owner, action });
        }
        key
    }

    pub(crate) fn cancel(&self, key: TimerKey) {
        let timer = self.state.borrow_mut().timers.remove(&key);
        drop(timer);
    }

    /// One step of the history: a due timer, else a ready task, else time moves on.
    pub(crate) fn turn(&self, limit: Option<u64>) -> Turn {
        let mut state = self.state.borrow_mut();
        if limit.is_some_and(|limit| state.now >= limit) {
            return Turn::Limit;
        }
        let due = state.timers.first_key_value().map(|(key, _)| *key);
        if let Some(key) = due.filter(|key| key.0 <= state.now) {
            return self.fire(state, key);
        }
        let rng = &mut state.rng;
        let picked = self.ready.with(|ready| {
            (!ready.is_empty()).then(|| {
                let at = rng.index(ready.len());
                ready.swap_remove(at)
            })
        });
        match (picked, due) {
            (Some(ROOT), _) => Turn::Root,
            (Some(id), _) => {
                drop(state);
                self.poll(id);
                Turn::Ran
            }
            (None, Some(key)) => match limit.filter(|limit| *limit < key.0) {
                Some(limit) => {
                    state.now = limit;
                    Turn::Limit
                }
                None => {
                    state.now = key.0;
                    self.fire(state, key)
                }
            },
            (None, None) => match limit {
                // Time passes although nobody waits for it.
                Some(limit) => {
                    state.now = limit;
                    Turn::Limit
                }
                None => Turn::Idle,
            },
        }
    }

    fn fire(&self, mut state: std::cell::RefMut<'_, State>, key: TimerKey) -> Turn {
        let timer = state.timers.remove(&key);
        state.trace.note(Tag::Timer, key.0, key.1);
        if let Some(timer) = timer {
            if let Some(due) = state.paused.get_mut(&timer.owner.node) {
                due.timers.push(timer);
                return Turn::Ran;
            }
            drop(state);
            (timer.action)();
        }
        Turn::Ran
    }

    fn poll(&self, id: u64) {
        let taken = {
            let mut state = self.state.borrow_mut();
            let owner = state.tasks.get(&id).map(|task| task.owner.node);
            if let Some(due) = owner.and_then(|node| state.paused.get_mut(&node)) {
                due.tasks.push(id); // still marked as queued: nobody queues it again
                return;
            }
            // Every poll costs some CPU, so that a loop of yields cannot stop the clock.
            let cost = 100 + state.rng.below(2_000);
            state.now += cost;
            let now = state.now;
            state.trace.note(Tag::Poll, id, now);
            state.tasks.get_mut(&id).and_then(|task| {
                task.waker.queued.store(false, Ordering::Relaxed);
                let future = task.future.take()?;
                Some((future, Arc::clone(&task.waker)))
            })
        };
        let Some((mut future, waker)) = taken else { return };
        let waker = Waker::from(waker);
        let done = future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
        let gone = {
            let mut state = self.state.borrow_mut();
            match state.tasks.get_mut(&id) {
                Some(task) if !done => {
                    task.future = Some(future);
                    None
                }
                // Finished, or crashed by itself during the poll.
                _ => Some((state.tasks.remove(&id), future)),
            }
        };
        drop(gone);
    }

    /// Runs the world until `future` completes.
    pub(crate) fn block_on<F: Future>(&self, future: F) -> F::Output {
        let mut future = std::pin::pin!(future);
        let root = Arc::new(TaskWaker {
            id: ROOT,
            queued: AtomicBool::new(false),
            ready: Arc::clone(&self.ready),
        });
        root.wake_by_ref();
        let waker = Waker::from(Arc::clone(&root));
        loop {
            match self.turn(None) {
                Turn::Ran | Turn::Limit => {}
                Turn::Idle => panic!("seed={}: deadlock: {}", self.seed, self.describe()),
                Turn::Root => {
                    root.queued.store(false, Ordering::Relaxed);
                    self.note(Tag::Poll, ROOT, self.now());
                    if let Poll::Ready(out) = future.as_mut().poll(&mut Context::from_waker(&waker))
                    {
                        self.ready.with(|ready| ready.retain(|id| *id != ROOT));
                        return out;
                    }
                }
            }
        }
    }

    fn describe(&self) -> String {
        let state = self.state.borrow();
        let mut text = format!(
            "nothing is ready and no timer is set at {} ns after {} events; waiting tasks:",
            state.now,
            state.trace.events()
        );
        for (id, task) in &state.tasks {
            text.push_str(&format!(" #{id} {:?} of node {};", task.class, task.owner.node));
        }
        text
    }
}

/// Where an event leaves its result for the future that waits.
pub(crate) struct Slot<T> {
    value: RefCell<Option<T>>,
    waker: RefCell<Option<Waker>>,
}

impl<T> Slot<T> {
    pub(crate) fn new() -> Rc<Self> {
        Rc::new(Slot { value: RefCell::new(None), waker: RefCell::new(None) })
    }

    pub(crate) fn fill(&self, value: T) {
        *self.value.borrow_mut() = Some(value);
        let waker = self.waker.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Waits for [`Slot::fill`].
    pub(crate) async fn take(&self) -> T {
        std::future::poll_fn(|cx| match self.value.borrow_mut().take() {
            Some(value) => Poll::Ready(value),
            None => {
                *self.waker.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            }
        })
        .await
    }
}
