//! The bare responder: `bare_responder [PORT] [REQUEST BYTES] [REPLY BYTES]`. See `perf/seam`.
//!
//! Its default frames have the sizes of a GET of a 1 KiB value and its reply.
#![allow(unsafe_code)]

#[path = "support/answers.rs"]
mod answers;
#[path = "support/bare_ring.rs"]
mod bare_ring;

use answers::{Answers, argument};
use bare_ring::BareRing;

fn main() -> std::io::Result<()> {
    let port = u16::try_from(argument(1, 4791)).unwrap_or(4791);
    let answers = Answers::of(argument(2, 80), argument(3, 1126));
    let listener = std::net::TcpListener::bind(("127.0.0.1", port))?;
    let mut ring = BareRing::new(Some(listener))?;
    let mut partial = Vec::new();
    ring.run(None, move |connection, bytes, output| {
        if partial.len() <= connection {
            partial.resize(connection + 1, 0);
        }
        answers.answer(&mut partial[connection], bytes, output);
    })
}
