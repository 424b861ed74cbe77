//! The loop of a core: completions in, one send per connection with output, one `enter`.
//!
//! Decides when the core works, yields to other tasks and sleeps. While nobody else wants the core
//! it waits inside its own ring, which costs no more than a bare ring does; after about a
//! millisecond without work it sleeps in the executor, which the ring's eventfd (read through
//! glommio's ring) ends.

use std::future::poll_fn;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use glommio::io::BufferedFile;
use io_uring::{opcode, types};

use super::core::{Core, Envelope};
use super::ring::{Completion, Kind, tag};

/// The longest wait inside our own ring: how late the executor may notice its timers.
const WAIT: Duration = Duration::from_micros(200);
/// The wait while messages to another core wait for room there.
const WAIT_FOR_ROOM: Duration = Duration::from_micros(20);
/// Waits without work before the core sleeps in the executor.
const IDLE_ROUNDS: u32 = 5;
/// The housekeeping interval.
const TICK: Duration = Duration::from_millis(50);

/// The loop's own memory.
pub(super) struct Driver {
    core: Rc<Core>,
    batch: Vec<Completion>,
    inbox: Vec<Envelope>,
    /// Turns without work in a row.
    idle: u32,
}

impl Driver {
    pub(super) fn new(core: Rc<Core>) -> Self {
        let driver = Self { core, batch: Vec::new(), inbox: Vec::new(), idle: 0 };
        driver.listen_to_bell();
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
            let others = self.core.runnable.any();
            if others || glommio::executor().need_preempt() {
                self.enter()?;
                if others && self.idle > 0 && !self.has_work() {
                    self.park().await;
                } else {
                    glommio::executor().yield_task_queue_now().await;
                }
            } else if self.idle < IDLE_ROUNDS {
                self.wait()?;
            } else {
                self.enter()?;
                self.park().await;
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
        if core.tick.take() {
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

    /// Waits inside our own ring, a bounded time.
    fn wait(&self) -> io::Result<()> {
        let mesh = self.core.mesh.borrow();
        let alone = mesh.cores() == 1;
        if !alone {
            mesh.bell().announce_sleep();
        }
        let work = self.core.signal.is_kicked()
            || (mesh.has_inbound() && self.core.net.borrow().takes_messages());
        let result = if work {
            self.core.ring.submit()
        } else {
            let wait = if mesh.has_outbound() { WAIT_FOR_ROOM } else { WAIT };
            self.core.ring.submit_and_wait(wait)
        };
        if !alone {
            mesh.bell().awake();
        }
        result
    }

    /// Sleeps in the executor until the signal, a completion or another core wakes the driver.
    async fn park(&mut self) {
        let mut slept = false;
        poll_fn(|cx| {
            let core = &self.core;
            if slept && !core.signal.is_parked() {
                return Poll::Ready(());
            }
            slept = true;
            core.ring.arm_doorbell();
            core.mesh.borrow().bell().announce_sleep();
            if self.has_work() {
                return Poll::Ready(());
            }
            core.signal.park(cx.waker().clone());
            if !core.runnable.any() {
                core.beat.idle();
            }
            Poll::Pending
        })
        .await;
        self.core.ring.disarm_doorbell();
        self.core.mesh.borrow().bell().awake();
    }

    /// Whether the kernel holds nothing of this core any more.
    fn is_drained(&self) -> bool {
        self.core.ring.ops.borrow().in_flight() == 0 && self.core.net.borrow().is_empty()
    }

    #[allow(unsafe_code)]
    fn listen_to_bell(&self) {
        let bell = self.core.mesh.borrow().bell().as_raw_fd();
        let entry = opcode::PollAdd::new(types::Fd(bell), libc::POLLIN as u32).build();
        // SAFETY: the operation has no pointers.
        unsafe { self.core.ring.push(entry.user_data(tag(Kind::Bell, 0))) };
    }
}

/// Resets the bell and listens to it again.
#[allow(unsafe_code)]
fn answer_bell(core: &Core) {
    let bell = core.mesh.borrow().bell().as_raw_fd();
    let mut count = [0u8; 8];
    // SAFETY: eight writable bytes. The poll said that the counter is not zero and nobody else
    // reads it, so this does not block.
    unsafe { libc::read(bell, count.as_mut_ptr().cast(), count.len()) };
    let entry = opcode::PollAdd::new(types::Fd(bell), libc::POLLIN as u32).build();
    // SAFETY: the operation has no pointers.
    unsafe { core.ring.push(entry.user_data(tag(Kind::Bell, 0))) };
}

/// Wakes the driver when the kernel writes the doorbell: the bridge from our ring to glommio's.
#[allow(unsafe_code)]
pub(super) async fn bridge(core: Rc<Core>, doorbell: OwnedFd) {
    // SAFETY: the descriptor is ours and now the file's.
    let doorbell = unsafe { BufferedFile::from_raw_fd(doorbell.into_raw_fd()) };
    while !core.ending.get() {
        if doorbell.read_at(0, 8).await.is_err() {
            // Cannot happen for an eventfd; the tick still gets the driver up.
            glommio::timer::sleep(TICK).await;
        }
        core.signal.wake();
    }
    // A failed close of an eventfd means nothing.
    let _ = doorbell.close().await;
}

/// Wakes the driver every [`TICK`] for deadlines.
pub(super) async fn ticker(core: Rc<Core>) {
    while !core.ending.get() {
        glommio::timer::sleep(TICK).await;
        core.tick.set(true);
        core.signal.wake();
    }
}
