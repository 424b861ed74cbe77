//! MULTI_GET: every core answers for its own keys; the core of the connection closes the answer.

use std::collections::BTreeSet;
use std::collections::hash_map::Entry as MapEntry;
use std::rc::Rc;

use coronet_lsm::env::TaskClass;
use coronet_lsm::{CachedRead, Keyspace};
use coronet_net::codec::{KeyList, MultiWriter};
use coronet_net::{ErrorCode, FrameWriter, ReplyFlags, ReplyHead, Status};
use coronet_ring::causality::object::ObjectRef;
use coronet_ring::{CoreId, Dot, key_hash};

use super::Inner;
use super::dispatch::{Call, Progress};
use super::read::View;
use super::reply::{Failure, Ticket};
use super::spaces::Space;
use crate::node::stats::count;
use crate::node::{CoreMessage, NodeEnv};

/// Body bytes from which a frame is ended and another one begun.
const FRAME_BYTES: usize = 256 << 10;
/// Keys read from disk at once.
const BATCH: usize = 32;

/// A key of this core that has to be read from disk.
struct Missing {
    index: u16,
    /// What its context is bound to.
    hash: u64,
    key: Vec<u8>,
}

impl<E: NodeEnv> Inner<E> {
    pub(super) fn multi_get(
        self: &Rc<Self>,
        call: &Call<'_>,
        space: &Space<E>,
        keys: &KeyList<'_>,
        ticket: &mut Ticket,
        out: &mut Vec<u8>,
    ) -> Progress {
        count(&self.counters.multi_gets);
        if ticket.forwarded {
            // The core of the connection sends the frame that ends the answer.
            return self.read_own(call, space, keys, ticket, out, false);
        }
        let owners: BTreeSet<CoreId> = keys.iter().map(|key| self.map.core_of_key(key)).collect();
        if owners.iter().all(|owner| *owner == self.me) {
            return self.read_own(call, space, keys, ticket, out, true);
        }
        // Parts are told apart by the request's number alone: two at once would end each other.
        match self.parts.borrow_mut().entry((ticket.conn, ticket.request_id)) {
            MapEntry::Vacant(entry) => drop(entry.insert(owners.len())),
            MapEntry::Occupied(_) => {
                let text = "the number of a request in flight is used again";
                ticket.fail(&Failure::new(ErrorCode::InvalidArgument, text), out);
                return Progress::Answered;
            }
        }
        for owner in owners {
            if owner != self.me {
                count(&self.counters.forwarded);
                let (origin, conn, arrived) = (ticket.origin, ticket.conn, ticket.arrived);
                let frame = call.whole.to_vec();
                self.env.send(owner, CoreMessage::Request { origin, conn, arrived, frame });
            } else if self.read_own(call, space, keys, ticket, out, false) == Progress::Answered {
                // Other parts are still to come: this was not the last one.
                self.last_part(ticket.conn, ticket.request_id, out);
            }
        }
        Progress::Pending
    }

    /// Reads the keys this core owns. `ends` says whether they are all there is to the answer.
    fn read_own(
        self: &Rc<Self>,
        call: &Call<'_>,
        space: &Space<E>,
        keys: &KeyList<'_>,
        ticket: &Ticket,
        out: &mut Vec<u8>,
        ends: bool,
    ) -> Progress {
        let mut missing = Vec::new();
        let latest_only = space.lww || call.head.consistency.lww;
        let budget = self.wire.max_reply as usize;
        let mut indexed = (0_u16..).zip(keys.iter());
        let scratch = &mut *self.scratch.borrow_mut();
        write_frames(ticket, out, |multi, written| {
            let Some((index, key)) = indexed.next() else { return false };
            let hash = key_hash(key);
            let partition = self.map.partition_of_hash(hash);
            if self.map.core_of(partition) != self.me {
                return true;
            }
            if written + multi.len() >= budget {
                multi.failed(index, ErrorCode::Busy);
                return true;
            }
            scratch.key.clear();
            Self::engine_key(partition, key, &mut scratch.key);
            let hash = space.id.bind(hash);
            let (view, dots) = (self.view(hash, latest_only), &mut scratch.dots);
            let read =
                space.tree.get_cached(&scratch.key, |stored| add(multi, index, view, stored, dots));
            match read {
                Ok(CachedRead::Done(())) => {}
                Ok(CachedRead::NeedsIo(_)) => {
                    missing.push(Missing { index, hash, key: scratch.key.clone() });
                }
                Err(error) => multi.failed(index, Failure::of_engine(&error).code),
            }
            true
        });
        if missing.is_empty() {
            if ends {
                end_answer(&ticket.head(Status::Ok), out);
            }
            return Progress::Answered;
        }
        // At the core of the connection `out` is its output. Elsewhere it is dropped with a pending
        // request, so what is in it goes with what is read later.
        let begun = if ticket.forwarded { std::mem::take(out) } else { Vec::new() };
        self.read_missing(space.tree.clone(), missing, latest_only, ticket.clone(), begun, ends);
        Progress::Pending
    }

    /// Reads keys from disk, a batch at a time, and answers with what it finds, after the frames
    /// of `begun`.
    fn read_missing(
        self: &Rc<Self>,
        tree: Keyspace<E>,
        missing: Vec<Missing>,
        latest_only: bool,
        ticket: Ticket,
        begun: Vec<u8>,
        ends: bool,
    ) {
        let shard = Rc::clone(self);
        self.env.spawn(TaskClass::Foreground, async move {
            let budget = shard.wire.max_reply as usize;
            let mut frames = begun;
            for batch in missing.chunks(BATCH) {
                let refused = if frames.len() >= budget {
                    Some(ErrorCode::Busy)
                } else {
                    ticket.is_late(shard.env.now()).then_some(ErrorCode::DeadlineExceeded)
                };
                let keys: Vec<_> = batch.iter().map(|read| read.key.clone()).collect();
                let found = match refused {
                    Some(code) => Err(code),
                    None => {
                        tree.multi_get(&keys).await.map_err(|error| Failure::of_engine(&error).code)
                    }
                };
                shard.write_batch(batch, &found, latest_only, &ticket, &mut frames);
            }
            if ends {
                end_answer(&ticket.head(Status::Ok), &mut frames);
            }
            if ticket.forwarded {
                shard.answer(&ticket, |out| out.append(&mut frames));
            } else {
                let (conn, request_id, cost) = (ticket.conn, ticket.request_id, ticket.cost);
                let timed = Some(ticket.timed());
                shard.answered_elsewhere((conn, request_id), cost, timed, &frames);
            }
        });
    }

    fn write_batch(
        &self,
        batch: &[Missing],
        found: &Result<Vec<Option<Vec<u8>>>, ErrorCode>,
        latest_only: bool,
        ticket: &Ticket,
        frames: &mut Vec<u8>,
    ) {
        let mut reads = batch.iter().enumerate();
        let mut dots = Vec::new();
        write_frames(ticket, frames, |multi, _| {
            let Some((at, read)) = reads.next() else { return false };
            match found {
                Ok(found) => {
                    let stored = found.get(at).and_then(Option::as_deref);
                    add(multi, read.index, self.view(read.hash, latest_only), stored, &mut dots);
                }
                Err(code) => multi.failed(read.index, *code),
            }
            true
        });
    }
}

/// Writes results into frames of a bounded size, each flagged MORE. `next` writes one result
/// knowing the bytes of the frames before, and returns whether there may be another.
fn write_frames(
    ticket: &Ticket,
    out: &mut Vec<u8>,
    mut next: impl FnMut(&mut MultiWriter<'_>, usize) -> bool,
) {
    let mut head = ticket.head(Status::Ok);
    head.flags = head.flags | ReplyFlags::MORE;
    let (mut written, mut more) = (0, true);
    while more {
        let mut frame = FrameWriter::reply(out, &head);
        let mut multi = MultiWriter::new(frame.body());
        while more && multi.len() < FRAME_BYTES {
            more = next(&mut multi, written);
        }
        written += multi.len();
        let empty = multi.is_empty();
        multi.finish();
        if !empty {
            frame.finish();
        }
    }
}

/// Appends the empty frame that ends an answer.
pub(super) fn end_answer(head: &ReplyHead, out: &mut Vec<u8>) {
    let mut frame = FrameWriter::reply(out, head);
    MultiWriter::new(frame.body()).finish();
    frame.finish();
}

/// Appends what was found for one key.
fn add(
    multi: &mut MultiWriter<'_>,
    index: u16,
    view: View,
    stored: Option<&[u8]>,
    dots: &mut Vec<Dot>,
) {
    let Some(stored) = stored else { return multi.not_found(index, |_| {}) };
    match ObjectRef::decode(stored) {
        Err(_) => multi.failed(index, ErrorCode::Corruption),
        Ok(object) if object.is_deleted() => {
            multi.not_found(index, |into| view.write_context(&object, dots, into));
        }
        Ok(object) => view.write(&object, multi.found(index), dots),
    }
}
