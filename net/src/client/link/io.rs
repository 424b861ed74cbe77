//! The socket of a link: HELLO, then reading and writing until one of them fails.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};

use super::{Reply, Shared};
use crate::client::ClientError;
use crate::codec::{ErrorReply, Hello, HelloReply, Request};
use crate::error::Status;
use crate::frame::{Parsed, ReplyFrame, RequestHead};
use crate::limits::PRE_HELLO_MAX_FRAME;
use crate::op::Op;

/// Room made for each read; a longer frame's full length is made room for once it is known.
const READ_BYTES: usize = 64 << 10;

/// A buffer that grew beyond this is not kept once it is empty.
const KEEP_BYTES: usize = 1 << 20;

/// Sends HELLO and waits for its answer. Returns what the node said, and bytes read beyond it.
pub(super) async fn say_hello(
    stream: &mut TcpStream,
    hello: &Hello<'_>,
) -> Result<(HelloReply, Vec<u8>), ClientError> {
    let lost = |_: io::Error| ClientError::Lost { possibly_applied: false };
    let mut out = Vec::new();
    Request::Hello(*hello).encode(&RequestHead::new(Op::Hello, 0), None, &mut out);
    stream.write_all(&out).await.map_err(lost)?;
    let mut input = Vec::with_capacity(4096);
    loop {
        let parsed = ReplyFrame::parse(&input, PRE_HELLO_MAX_FRAME.max(1 << 20))
            .map_err(|error| ClientError::Protocol(error.to_string()))?;
        if let Parsed::Frame { frame, consumed } = parsed {
            let reply = hello_reply(&frame)?;
            input.drain(..consumed);
            return Ok((reply, input));
        }
        if stream.read_buf(&mut input).await.map_err(lost)? == 0 {
            return Err(ClientError::Lost { possibly_applied: false });
        }
    }
}

fn hello_reply(frame: &ReplyFrame<'_>) -> Result<HelloReply, ClientError> {
    match frame.head.status {
        Status::Ok if frame.head.op == Op::Hello.to_u8() => Ok(HelloReply::decode(frame.body)?),
        Status::Error(code) => {
            let text = ErrorReply::decode(frame.body).unwrap_or_default().text.to_owned();
            Err(ClientError::Server { code, text, possibly_applied: false })
        }
        _ => Err(ClientError::Protocol("something else than an answer to HELLO".to_owned())),
    }
}

/// Closes the link when the task ends, however it ends.
struct CloseOnEnd(Arc<Shared>);

impl Drop for CloseOnEnd {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Serves the link until the socket fails, the node closes it, or the link is closed.
pub(super) async fn run(mut stream: TcpStream, rest: Vec<u8>, shared: Arc<Shared>) {
    let ending = CloseOnEnd(shared);
    let (read, write) = stream.split();
    // Whichever ends first ends the link; why it ended changes nothing for those who wait.
    tokio::select! {
        _ = read_replies(read, rest, &ending.0) => {}
        _ = write_requests(write, &ending.0) => {}
    }
}

async fn write_requests(mut socket: WriteHalf<'_>, shared: &Shared) -> io::Result<()> {
    let mut batch = Vec::new();
    loop {
        shared.work.notified().await;
        // Let every task that is ready now add its requests: one write carries them all.
        tokio::task::yield_now().await;
        if !shared.take_unsent(&mut batch) {
            return Ok(());
        }
        socket.write_all(&batch).await?;
        if batch.capacity() > KEEP_BYTES {
            batch = Vec::new();
        }
    }
}

async fn read_replies(
    mut socket: ReadHalf<'_>,
    mut input: Vec<u8>,
    shared: &Shared,
) -> io::Result<()> {
    loop {
        let need = deliver_all(&mut input, shared)?;
        if input.is_empty() && input.capacity() > KEEP_BYTES {
            input = Vec::new();
        }
        input.reserve(need.saturating_sub(input.len()).max(READ_BYTES));
        if socket.read_buf(&mut input).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        shared.heard();
    }
}

/// Delivers every whole frame and returns the length of the input that the next one needs.
fn deliver_all(input: &mut Vec<u8>, shared: &Shared) -> io::Result<usize> {
    let mut done = 0;
    loop {
        match ReplyFrame::parse(&input[done..], shared.max_reply) {
            Ok(Parsed::Frame { frame, consumed }) => {
                shared.deliver(Reply { head: frame.head, body: frame.body.to_vec() });
                done += consumed;
            }
            Ok(Parsed::Incomplete { need }) => {
                input.drain(..done);
                return Ok(need);
            }
            // Neither side can make sense of such a stream again.
            Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        }
    }
}
