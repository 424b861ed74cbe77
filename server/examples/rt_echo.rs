//! An echo, or a responder, over the runtime seam: `rt_echo [PORT] [REQUEST] [REPLY] [BUSY]`.
//!
//! Echoes when the request's size is missing or zero. With BUSY, a compaction-class task takes all
//! of the core that is left, in pieces of that many microseconds. Runs one core, on the first CPU
//! it may use. See `perf/seam`.

#[path = "support/answers.rs"]
mod answers;
#[path = "support/echo_handler.rs"]
mod echo_handler;

use std::net::TcpListener;
use std::rc::Rc;
use std::time::{Duration, Instant};

use answers::{Answers, argument};
use coronet_lsm::env::{Env, TaskClass};
use coronet_server::rt::{CoresConfig, ServeOptions, executor};
use echo_handler::EchoHandler;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port = u16::try_from(argument(1, 4792))?;
    let answers = Answers::of(argument(2, 0), argument(3, 1126));
    let busy = Duration::from_micros(argument(4, 0) as u64);
    let mut listener = Some(TcpListener::bind(("127.0.0.1", port))?);
    let cores = executor::start_each(&CoresConfig::first(1), move |_| {
        let options = ServeOptions { listener: listener.take(), ..ServeOptions::default() };
        let handler = answers.clone();
        move |context| async move {
            if busy > Duration::ZERO {
                let env = context.env.clone();
                context.env.spawn(TaskClass::Compaction, async move {
                    loop {
                        let piece = Instant::now();
                        while piece.elapsed() < busy {
                            std::hint::spin_loop();
                        }
                        env.coop().await;
                    }
                });
            }
            context.env.serve(Rc::new(EchoHandler::new(handler)), options).await;
        }
    })?;
    for result in cores.join() {
        result?;
    }
    Ok(())
}
