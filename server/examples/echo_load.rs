//! A closed-loop load client: `echo_load PORT CONNECTIONS DEPTH REQUEST REPLY SECONDS`.
//!
//! Keeps DEPTH requests of REQUEST bytes in flight on each connection, each answered by REPLY
//! bytes, and prints requests per second and the number of requests. See `perf/seam`.
#![allow(unsafe_code)]

#[path = "support/answers.rs"]
mod answers;
#[path = "support/bare_ring.rs"]
mod bare_ring;

use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use answers::{Answers, argument};
use bare_ring::BareRing;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port = u16::try_from(argument(1, 4790))?;
    let (connections, depth) = (argument(2, 50), argument(3, 16));
    let (request, reply, seconds) = (argument(4, 64), argument(5, 64), argument(6, 3));
    let mut ring = BareRing::new(None)?;
    for _ in 0..connections {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        ring.add(OwnedFd::from(stream), vec![7; request * depth]);
    }
    // To the client an answer is what a request is to a server.
    let answers = Answers::of(reply, request);
    let (mut partial, mut bytes) = (vec![0; connections], 0u64);
    let started = Instant::now();
    let until = started + Duration::from_secs(seconds as u64);
    ring.run(Some(until), |connection, received, output| {
        bytes += received.len() as u64;
        answers.answer(&mut partial[connection], received, output);
    })?;
    let requests = bytes / reply as u64;
    let rate = requests as f64 / started.elapsed().as_secs_f64();
    println!("{rate:.0} requests/s, {requests} requests");
    Ok(())
}
