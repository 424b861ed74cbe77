//! The bare echo: `bare_echo [PORT]`. See `perf/seam`.
#![allow(unsafe_code)]

#[path = "support/answers.rs"]
mod answers;
#[path = "support/bare_ring.rs"]
mod bare_ring;

use answers::{Answers, argument};
use bare_ring::BareRing;

fn main() -> std::io::Result<()> {
    let port = u16::try_from(argument(1, 4790)).unwrap_or(4790);
    let listener = std::net::TcpListener::bind(("127.0.0.1", port))?;
    let mut ring = BareRing::new(Some(listener))?;
    let echo = Answers::of(0, 0);
    ring.run(None, |_, bytes, output| echo.answer(&mut 0, bytes, output))
}
