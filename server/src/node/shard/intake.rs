//! From bytes to requests and from answers to bytes: the life of connections in the shard.

use std::rc::Rc;

use coronet_lsm::Ahead;
use coronet_lsm::env::Nanos;
use coronet_net::codec::{Hello, HelloReply, Request, negotiate};
use coronet_net::limits::PRE_HELLO_MAX_FRAME;
use coronet_net::{
    ErrorCode, FrameError, FrameWriter, Op, Parsed, ReplyHead, RequestFrame, Status,
};
use coronet_ring::{KeyspaceId, key_hash};

use super::connection::{Connection, Overdue};
use super::dispatch::{Call, Progress};
use super::multi::end_answer;
use super::reply::{EPOCH, Failure, Ticket, write_error};
use super::{Inner, OutputState};
use crate::node::stats::{add, count};
use crate::node::{ConnId, CoreId, CoreMessage, NodeEnv, Timed};

/// Requests that are cut from the stream before the first of them is executed.
const GROUP: usize = 16;

/// Frames from the front of a stream, each with its length, and why there are no more.
struct Cut<'a> {
    frames: Vec<(RequestFrame<'a>, usize)>,
    end: CutEnd,
}

enum CutEnd {
    /// The group is full, or nothing is left.
    More,
    /// The next frame is not whole.
    Partial,
    /// The next frame cannot be read.
    Bad(FrameError),
}

impl<E: NodeEnv> Inner<E> {
    pub(super) fn receive(self: &Rc<Self>, id: ConnId, bytes: &[u8]) {
        let mut conns = self.conns.borrow_mut();
        let Some(conn) = conns.get_mut(&id) else { return };
        let now = self.env.now();
        add(&self.counters.bytes_received, bytes.len() as u64);
        conn.note_arrival(now);
        if conn.has_input() || !conn.takes_requests(&self.config.limits) {
            conn.keep_input(bytes);
            self.pump(conn, id, now);
        } else {
            // The usual case: whole frames, read in place.
            let used = self.work(conn, id, bytes, now);
            conn.keep_input(&bytes[used..]);
        }
        self.mark_if_changed(conn, id);
    }

    /// Works on input that waits.
    fn pump(self: &Rc<Self>, conn: &mut Connection, id: ConnId, now: Nanos) {
        if conn.has_input() && conn.takes_requests(&self.config.limits) {
            let input = conn.take_input();
            let used = self.work(conn, id, &input, now);
            conn.return_input(input, used);
        }
    }

    /// Executes whole frames from the front of `bytes` while the connection takes requests.
    /// Returns how many bytes were used.
    fn work(self: &Rc<Self>, conn: &mut Connection, id: ConnId, bytes: &[u8], now: Nanos) -> usize {
        let mut at = 0;
        let mut partial = false;
        while conn.takes_requests(&self.config.limits) && at < bytes.len() && !partial {
            let cut = self.cut(conn, &bytes[at..]);
            let ahead = (cut.frames.len() > 1).then(|| self.look_ahead(&cut.frames));
            for (n, (frame, consumed)) in cut.frames.iter().enumerate() {
                if !conn.takes_requests(&self.config.limits) {
                    break;
                }
                if let Some(core) = self.moves_to(conn, frame) {
                    // The other core reads this HELLO anew.
                    conn.hand_over = Some(core);
                    break;
                }
                let whole = &bytes[at..at + consumed];
                at += consumed;
                count(&self.counters.requests);
                if let Some(ahead) = &ahead {
                    self.engine.prefetch_next(ahead, n);
                }
                self.take_request(conn, id, frame, whole, now);
            }
            // A full connection is not asked what comes next.
            if !conn.takes_requests(&self.config.limits) {
                break;
            }
            match cut.end {
                CutEnd::More => {}
                CutEnd::Partial => partial = true,
                CutEnd::Bad(error) => at += self.refuse_frame(conn, &error),
            }
        }
        conn.note_partial(partial, at > 0, now);
        at
    }

    /// Cuts the frames of one group from the front of `bytes`.
    fn cut<'a>(&self, conn: &Connection, bytes: &'a [u8]) -> Cut<'a> {
        // The limit of the second frame depends on what the first one says.
        let (limit, most) =
            if conn.greeted { (self.wire.max_frame, GROUP) } else { (PRE_HELLO_MAX_FRAME, 1) };
        let (mut frames, mut at) = (Vec::with_capacity(most), 0);
        let end = loop {
            if frames.len() == most || at == bytes.len() {
                break CutEnd::More;
            }
            match RequestFrame::parse(&bytes[at..], limit) {
                Ok(Parsed::Incomplete { .. }) => break CutEnd::Partial,
                Ok(Parsed::Frame { frame, consumed }) => {
                    at += consumed;
                    frames.push((frame, consumed));
                }
                Err(error) => break CutEnd::Bad(error),
            }
        };
        Cut { frames, end }
    }

    /// Has the engine bring closer what the group's reads and writes of single keys of the default
    /// keyspace need.
    fn look_ahead(&self, frames: &[(RequestFrame<'_>, usize)]) -> Ahead {
        let scratch = &mut *self.scratch.borrow_mut();
        scratch.key.clear();
        let mut ends = [0; GROUP];
        for ((frame, _), end) in frames.iter().zip(&mut ends) {
            if let Some(key) = self.own_key(frame) {
                let partition = self.map.partition_of_hash(key_hash(key));
                if self.map.core_of(partition) == self.me {
                    Self::engine_key(partition, key, &mut scratch.key);
                }
            }
            *end = scratch.key.len();
        }
        let mut start = 0;
        let keys: [&[u8]; GROUP] = std::array::from_fn(|n| {
            let end = ends[n].max(start);
            &scratch.key[std::mem::replace(&mut start, end)..end]
        });
        self.engine.prefetch(&keys)
    }

    /// The key of a request for a single key of the default keyspace.
    fn own_key<'a>(&self, frame: &RequestFrame<'a>) -> Option<&'a [u8]> {
        let one_key = matches!(frame.head.op, Op::Get | Op::Put | Op::Delete);
        if !one_key || frame.head.keyspace != KeyspaceId::DEFAULT {
            return None;
        }
        match Request::decode(frame, &self.wire).ok()? {
            Request::Get { key } => Some(key),
            Request::Put(put) => Some(put.key),
            Request::Delete(delete) => Some(delete.key),
            _ => None,
        }
    }

    /// Answers a frame that cannot be read. Returns how far the stream is readable after it; when
    /// it is not, the connection closes.
    fn refuse_frame(&self, conn: &mut Connection, error: &FrameError) -> usize {
        count(&self.counters.protocol_errors);
        let (op, request_id, consumed) = match error {
            FrameError::Refused { op, request_id, consumed, .. } => (*op, *request_id, *consumed),
            FrameError::Length { .. } | FrameError::Checksum => (0, 0, 0),
        };
        let head = ReplyHead::new(op, request_id, error.code().into());
        write_error(&mut conn.output, &head, &Failure::new(error.code(), error.to_string()));
        conn.closing |= error.fatal();
        consumed
    }

    /// The core a first HELLO asks for, when it is another one.
    fn moves_to(&self, conn: &Connection, frame: &RequestFrame<'_>) -> Option<CoreId> {
        if conn.greeted || frame.head.op != Op::Hello {
            return None;
        }
        let wanted = Hello::decode(frame.body).ok()?.wanted_core;
        (wanted != self.me && wanted.0 < self.config.cores).then_some(wanted)
    }

    fn take_request(
        self: &Rc<Self>,
        conn: &mut Connection,
        id: ConnId,
        frame: &RequestFrame<'_>,
        whole: &[u8],
        now: Nanos,
    ) {
        let arrived = conn.arrived();
        let mut ticket = Ticket::new(&frame.head, (self.me, id), self.me, arrived, whole.len());
        if !conn.greeted && !matches!(frame.head.op, Op::Hello | Op::Ping) {
            count(&self.counters.protocol_errors);
            let failure = Failure::new(ErrorCode::HelloRequired, "the first request must be HELLO");
            return ticket.fail(&failure, &mut conn.output);
        }
        match Request::decode(frame, &self.wire) {
            Err(error) => {
                count(&self.counters.protocol_errors);
                ticket.fail(&Failure::new(error.code(), error.to_string()), &mut conn.output);
            }
            Ok(Request::Hello(hello)) => self.hello(conn, &ticket, &hello),
            Ok(request) => {
                let call = Call { head: &frame.head, token: frame.token, request, whole, now };
                match self.execute(&call, &mut ticket, &mut conn.output) {
                    Progress::Answered => conn.answered(ticket.timed()),
                    Progress::Pending => {
                        conn.begin(ticket.cost);
                        self.in_flight.set(self.in_flight.get() + 1);
                    }
                }
            }
        }
    }

    fn hello(&self, conn: &mut Connection, ticket: &Ticket, hello: &Hello<'_>) {
        let Some(version) = negotiate(hello.min_version, hello.max_version) else {
            count(&self.counters.protocol_errors);
            let (low, high) = (coronet_net::MIN_VERSION, coronet_net::VERSION);
            let text = format!(
                "this node speaks versions {low} to {high}, the client {} to {}",
                hello.min_version, hello.max_version
            );
            ticket.fail(&Failure::new(ErrorCode::UnsupportedVersion, text), &mut conn.output);
            conn.closing = true;
            return;
        };
        conn.greeted = true;
        let reply = HelloReply {
            version,
            core: self.me,
            partitions: self.map.partitions(),
            epoch: EPOCH,
            node_id: self.config.node_id,
            incarnation: self.config.incarnation,
            features: 0,
            limits: self.wire,
            in_flight: u32::try_from(self.config.limits.in_flight).unwrap_or(u32::MAX),
            ports: vec![self.config.port; usize::from(self.config.cores)],
        };
        let mut frame = FrameWriter::reply(&mut conn.output, &ticket.head(Status::Ok));
        reply.write(frame.body());
        frame.finish();
    }

    /// Executes a request that another core forwarded.
    pub(super) fn serve_forwarded(
        self: &Rc<Self>,
        origin: (CoreId, ConnId),
        arrived: Nanos,
        bytes: &[u8],
    ) {
        let Ok(Parsed::Frame { frame, .. }) = RequestFrame::parse(bytes, self.wire.max_frame)
        else {
            // The origin has checked these very bytes.
            return self.env.log("a forwarded frame does not parse; its request is lost");
        };
        let mut ticket = Ticket::new(&frame.head, origin, self.me, arrived, bytes.len());
        let mut frames = Vec::new();
        let progress = match Request::decode(&frame, &self.wire) {
            Ok(request) => {
                let (head, token, whole) = (&frame.head, frame.token, bytes);
                let call = Call { head, token, request, whole, now: self.env.now() };
                self.execute(&call, &mut ticket, &mut frames)
            }
            Err(error) => {
                ticket.fail(&Failure::new(error.code(), error.to_string()), &mut frames);
                Progress::Answered
            }
        };
        self.in_flight_for_others.set(self.in_flight_for_others.get() + 1);
        if progress == Progress::Answered {
            self.answer(&ticket, |out| out.append(&mut frames));
        }
    }

    /// Answers a request that was in flight: to its connection, or to the core that has it.
    pub(super) fn answer(&self, ticket: &Ticket, write: impl FnOnce(&mut Vec<u8>)) {
        if ticket.forwarded {
            let mut frames = Vec::new();
            write(&mut frames);
            self.in_flight_for_others.set(self.in_flight_for_others.get() - 1);
            let (conn, request_id, cost) = (ticket.conn, ticket.request_id, ticket.cost);
            let timed = Some(ticket.timed());
            let reply = CoreMessage::Reply { conn, request_id, cost, timed, frames };
            self.env.send(ticket.origin, reply);
        } else if let Some(conn) = self.conns.borrow_mut().get_mut(&ticket.conn) {
            write(&mut conn.output);
            self.finish(conn, ticket.conn, ticket.cost, Some(ticket.timed()));
        }
    }

    /// One of this core's connections has its answer.
    fn finish(&self, conn: &mut Connection, id: ConnId, cost: usize, timed: Option<Timed>) {
        conn.finish(cost);
        timed.into_iter().for_each(|timed| conn.answered(timed));
        self.in_flight.set(self.in_flight.get() - 1);
        self.mark(conn, id);
        self.env.output_ready();
    }

    /// Another core answered a request of one of this core's connections, or its part of one.
    pub(super) fn answered_elsewhere(
        &self,
        (id, request_id): (ConnId, u64),
        cost: usize,
        timed: Option<Timed>,
        frames: &[u8],
    ) {
        let mut conns = self.conns.borrow_mut();
        let Some(conn) = conns.get_mut(&id) else { return };
        conn.output.extend_from_slice(frames);
        self.mark(conn, id);
        if self.last_part(id, request_id, &mut conn.output) {
            self.finish(conn, id, cost, timed);
        }
    }

    /// Counts a part of an answer; closes the answer with an empty frame after the last part of
    /// several. Returns whether the request is answered.
    pub(super) fn last_part(&self, conn: ConnId, request_id: u64, out: &mut Vec<u8>) -> bool {
        let mut parts = self.parts.borrow_mut();
        let Some(missing) = parts.get_mut(&(conn, request_id)) else { return true };
        *missing -= 1;
        if *missing > 0 {
            return false;
        }
        parts.remove(&(conn, request_id));
        end_answer(&ReplyHead::new(Op::MultiGet.to_u8(), request_id, Status::Ok), out);
        true
    }

    pub(super) fn end_of_input(&self, id: ConnId) {
        if let Some(conn) = self.conns.borrow_mut().get_mut(&id) {
            conn.ended = true;
            self.mark(conn, id);
        }
    }

    /// Removes a connection; its requests in flight are answered to nobody.
    pub(super) fn forget(&self, id: ConnId) -> Option<Connection> {
        let gone = self.conns.borrow_mut().remove(&id)?;
        self.in_flight.set(self.in_flight.get() - gone.in_flight());
        if gone.in_flight() > 0 {
            self.parts.borrow_mut().retain(|(conn, _), _| *conn != id);
        }
        Some(gone)
    }

    /// Puts the connection on the list of changes, once.
    pub(super) fn mark(&self, conn: &mut Connection, id: ConnId) {
        if !conn.dirty {
            conn.dirty = true;
            self.dirty.borrow_mut().push_back(id);
        }
    }

    fn mark_if_changed(&self, conn: &mut Connection, id: ConnId) {
        if !conn.output.is_empty() || conn.pause_changed(&self.config.limits) {
            self.mark(conn, id);
        }
    }

    pub(super) fn next_dirty(&self) -> Option<ConnId> {
        loop {
            let id = self.dirty.borrow_mut().pop_front()?;
            if let Some(conn) = self.conns.borrow_mut().get_mut(&id) {
                conn.dirty = false;
                return Some(id);
            }
        }
    }

    pub(super) fn take_output(self: &Rc<Self>, id: ConnId, into: &mut Vec<u8>) -> OutputState {
        let mut conns = self.conns.borrow_mut();
        let Some(conn) = conns.get_mut(&id) else {
            return OutputState { close_after: true, ..OutputState::default() };
        };
        let limits = &self.config.limits;
        add(&self.counters.bytes_sent, conn.output.len() as u64);
        conn.drain_output(into);
        let now = self.env.now();
        self.latencies.borrow_mut().count(conn.take_answered(), now);
        // Room again: requests that had to wait are taken up; what they answer goes out next.
        self.pump(conn, id, now);
        if !conn.output.is_empty() {
            self.mark(conn, id);
            self.env.output_ready();
        }
        let heard_all = conn.ended && conn.in_flight() == 0 && conn.takes_requests(limits);
        OutputState {
            close_after: conn.output.is_empty() && (conn.closing || heard_all),
            paused: conn.tell_paused(limits),
            hand_over: conn.hand_over,
        }
    }

    pub(super) fn tick(&self) {
        let now = self.env.now();
        for line in self.engine.take_incidents() {
            self.env.log(&line);
        }
        for queue in [&self.durable, &self.buffered] {
            queue.expire(now, |waiter| self.in_doubt(waiter));
        }
        let mut conns = self.conns.borrow_mut();
        for (id, conn) in conns.iter_mut() {
            let Some(overdue) = conn.overdue(&self.config.limits, now) else { continue };
            count(&self.counters.connections_overdue);
            let (code, text) = match overdue {
                Overdue::Hello => (ErrorCode::HelloRequired, "no HELLO in time"),
                Overdue::PartialFrame => (ErrorCode::BadFrame, "frame not finished in time"),
                Overdue::Idle => (ErrorCode::DeadlineExceeded, "idle for too long"),
            };
            let head = ReplyHead::new(0, 0, code.into());
            write_error(&mut conn.output, &head, &Failure::new(code, text));
            conn.closing = true;
            self.mark(conn, *id);
        }
        drop(conns);
        if !self.dirty.borrow().is_empty() {
            self.env.output_ready();
        }
    }
}
