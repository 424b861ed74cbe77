//! The loop of a core: completions in, one send per connection with output, one `enter`.
//!
//! Decides when the core works, leaves the core to other tasks and sleeps. The core sleeps only
//! here, inside the `enter` of its own ring, until a completion, another core's bell or the next
//! timer: that costs no more than a bare ring does, and several times less than the executor's own
//! sleep. While other tasks can run and the sockets are quiet the driver parks; the tasks' own
//! bookkeeping ([`super::coop`]) gets it up as soon as completions arrive or nobody else can run.

use std::future::poll_fn;
use std::io;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use coronet_lsm::env::Nanos;
use io_uring::{opcode, types};

use super::core::{Core, Envelope};
use super::ring::{Completion, Kind, tag};

/// Without work for this long, the core counts as idle.
const SHORT_WAIT: Duration = Duration::from_millis(2);
/// The wait while messages to another core wait for room there.
const WAIT_FOR_ROOM: Duration = Duration::from_micros(20);
/// The housekeeping interval; also the longest wait.
const TICK: Duration = Duration::from_millis(50);

/// The loop's own memory.
pub(super) struct Driver {
    core: Rc<Core>,
    batch: Vec<Completion>,
    inbox: Vec<Envelope>,
    /// The next housekeeping.
    tick: Nanos,
    /// Turns without work in a row.
    idle: u32,
}

impl Driver {
    pub(super) fn new(core: Rc<Core>) -> Self {
        let tick = core.now().after(TICK);
        let driver = Self { core, batch: Vec::new(), inbox: Vec::new(), tick, idle: 0 };
        listen_to_bell(&driver.core);
        driver
    }

    /// Runs until the core ends. An error means that the ring itself is broken.
    pub(super) async fn run(mut self) -> io::Result<()> {
        loop {
            if self.turn() {
                self.idle = 0;
                self.core.beat.busy();
            } else {
                self.idle = self.idle.saturating_add(1);
            }
            if self.core.ending.get() && self.is_drained() {
                self.core.net.borrow_mut().release(&self.core.ring);
                return Ok(());
            }
            if !self.core.runnable.any() && !self.core.beat.is_pending() {
                self.wait()?;
                continue;
            }
            // From here on the executor decides, which only the heartbeat keeps honest.
            self.core.beat.busy();
            self.enter()?;
            if self.idle > 0 && !self.has_work() {
                self.park().await;
            } else {
                glommio::executor().yield_task_queue_now().await;
            }
        }
    }

    /// One turn. Returns whether there was anything to do.
    fn turn(&mut self) -> bool {
        let core = &*self.core;
        core.beat.turn();
        let mut worked = core.signal.take();
        core.ring.reap(&mut self.batch);
        worked |= !self.batch.is_empty();
        let mut net = core.net.borrow_mut();
        for completion in self.batch.drain(..) {
            match completion.kind() {
                Kind::Op => {
                    let waker = {
                        let mut ops = core.ring.ops.borrow_mut();
                        ops.complete(completion.rest(), completion.result)
                    };
                    if let Some(waker) = waker {
                        waker.wake();
                    }
                }
                Kind::Receive => net.received(core, completion),
                Kind::Send => net.sent(core, completion),
                Kind::Accept => net.accepted(core, completion),
                Kind::Bell => answer_bell(core),
                Kind::Ignore => {}
            }
        }
        if net.takes_messages() && core.mesh.borrow_mut().receive(&mut self.inbox) > 0 {
            worked = true;
            for envelope in self.inbox.drain(..) {
                net.deliver(core, envelope);
            }
        }
        let now = core.now();
        core.timers.fire(now);
        if now >= self.tick {
            self.tick = now.after(TICK);
            net.tick(core);
        }
        if core.shared.stopping() {
            net.stop(core);
        }
        net.flush(core);
        core.last_stats.set(net.stats());
        drop(net);
        core.mesh.borrow_mut().flush();
        worked
    }

    /// Whether a turn would find something.
    fn has_work(&self) -> bool {
        let core = &self.core;
        core.signal.is_kicked()
            || core.ring.has_events()
            || core.mesh.borrow().has_outbound()
            || (core.mesh.borrow().has_inbound() && core.net.borrow().takes_messages())
    }

    fn enter(&self) -> io::Result<()> {
        if self.core.ring.needs_enter() { self.core.ring.submit() } else { Ok(()) }
    }

    /// Sleeps inside our own ring.
    fn wait(&self) -> io::Result<()> {
        let core = &self.core;
        let mesh = core.mesh.borrow();
        let alone = mesh.cores() == 1;
        if !alone {
            mesh.bell().announce_sleep();
        }
        let inbound = mesh.has_inbound() && core.net.borrow().takes_messages();
        let result = if core.signal.is_kicked() || inbound {
            core.ring.submit()
        } else if mesh.has_outbound() {
            core.ring.submit_and_wait(WAIT_FOR_ROOM)
        } else {
            let deadline = core.timers.next().map_or(self.tick, |next| next.min(self.tick));
            let mut wait = deadline.since(core.now());
            if self.idle < 2 {
                wait = wait.min(SHORT_WAIT);
            } else {
                core.beat.idle();
            }
            core.ring.submit_and_wait(wait)
        };
        if !alone {
            mesh.bell().awake();
        }
        result
    }

    /// Leaves the core to other tasks until something wakes the driver.
    async fn park(&mut self) {
        let mut parked = false;
        poll_fn(|cx| {
            if parked && !self.core.signal.is_parked() {
                return Poll::Ready(());
            }
            parked = true;
            self.core.signal.park(cx.waker());
            Poll::Pending
        })
        .await;
    }

    /// Whether the kernel holds nothing of this core any more.
    fn is_drained(&self) -> bool {
        self.core.ring.ops.borrow().in_flight() == 0 && self.core.net.borrow().is_empty()
    }
}

/// Has other cores' ringing end a wait.
#[allow(unsafe_code)]
fn listen_to_bell(core: &Core) {
    let bell = core.mesh.borrow().bell().as_raw_fd();
    let entry = opcode::PollAdd::new(types::Fd(bell), libc::POLLIN as u32).build();
    // SAFETY: the operation has no pointers.
    unsafe { core.ring.push(entry.user_data(tag(Kind::Bell, 0))) };
}

/// Resets the bell and listens to it again.
#[allow(unsafe_code)]
fn answer_bell(core: &Core) {
    let bell = core.mesh.borrow().bell().as_raw_fd();
    let mut count = [0u8; 8];
    // SAFETY: eight writable bytes. The poll said that the counter is not zero and nobody else
    // reads it, so this does not block.
    unsafe { libc::read(bell, count.as_mut_ptr().cast(), count.len()) };
    listen_to_bell(core);
}
