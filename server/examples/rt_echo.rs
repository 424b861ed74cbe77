//! An echo, or a responder, over the runtime seam: `rt_echo [PORT] [REQUEST] [REPLY]`.
//!
//! Echoes when no sizes are given. Runs one core, on the first CPU it may use. See `perf/seam`.

#[path = "support/answers.rs"]
mod answers;
#[path = "support/echo_handler.rs"]
mod echo_handler;

use std::net::TcpListener;
use std::rc::Rc;

use answers::{Answers, argument};
use coronet_server::rt::{CoresConfig, ServeOptions, executor};
use echo_handler::EchoHandler;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port = u16::try_from(argument(1, 4792))?;
    let answers = Answers::of(argument(2, 0), argument(3, 1126));
    let mut listener = Some(TcpListener::bind(("127.0.0.1", port))?);
    let cores = executor::start_each(&CoresConfig::first(1), move |_| {
        let options = ServeOptions { listener: listener.take(), ..ServeOptions::default() };
        let handler = answers.clone();
        move |context| async move {
            context.env.serve(Rc::new(EchoHandler::new(handler)), options).await;
        }
    })?;
    for result in cores.join() {
        result?;
    }
    Ok(())
}
