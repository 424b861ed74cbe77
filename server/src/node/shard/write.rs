//! PUT and DELETE: read the key's versions, apply the change, write, acknowledge on commit.

use std::rc::Rc;

use coronet_lsm::{CachedRead, Durability, Seq};
use coronet_net::codec::{Request, Written};
use coronet_net::{self as net, ErrorCode, FrameWriter, Parsed, RequestFrame, RequestHead, Status};
use coronet_ring::causality::update::{self, Applied, Change, ChangeError};
use coronet_ring::{Context, Hlc, NodeId, PartitionId, Token};

use super::dispatch::{Call, Keyed, Progress};
use super::replica::ReplicaWrite;
use super::reply::{Failure, Ticket};
use super::spaces::Space;
use super::turns::Turn;
use super::{BlindWrites, Inner, Scratch};
use crate::node::NodeEnv;
use crate::node::stats::{Counters, count};

/// What a client is told once its write is committed.
#[derive(Debug)]
pub(super) struct WriteReply {
    ticket: Ticket,
    hlc: Hlc,
    /// Encoded.
    context: Vec<u8>,
}

/// Who waits for a commit.
#[derive(Debug)]
pub(super) enum Waiter {
    /// A client of this node.
    Client(WriteReply),
    /// The control core, for a replica's write.
    Replica(ReplicaWrite),
    /// Nobody any more, but the write left a hint, which is to be looked at.
    Hint(NodeId, PartitionId),
}

impl From<WriteReply> for Waiter {
    fn from(reply: WriteReply) -> Self {
        Waiter::Client(reply)
    }
}

/// The durability of a write: what it asks for, or the node's setting.
pub(super) fn durability(asked: net::Durability, setting: Durability) -> Durability {
    match asked {
        net::Durability::Default => setting,
        net::Durability::Durable => Durability::Durable,
        net::Durability::Buffered => Durability::Buffered,
    }
}

/// A write as its request asks for it.
struct Wish<'a> {
    value: Option<&'a [u8]>,
    context: Option<Context>,
    token: Option<&'a Token>,
    replace: bool,
    durability: Durability,
    hash: u64,
}

impl Wish<'_> {
    fn change(&self) -> Change<'_> {
        let (value, token, replace) = (self.value, self.token, self.replace);
        Change { value, context: self.context.as_ref(), replace, token }
    }
}

impl<E: NodeEnv> Inner<E> {
    /// PUT and DELETE.
    pub(super) fn write(
        self: &Rc<Self>,
        call: &Call<'_>,
        space: &Space<E>,
        keyed: Keyed<'_>,
        ticket: &Ticket,
        out: &mut Vec<u8>,
    ) -> Progress {
        let wish = match self.wish(call.head, call.token, &call.request, keyed.hash, space.lww) {
            Ok(wish) => {
                self.count_write(&wish);
                wish
            }
            Err(failure) => {
                ticket.fail(&failure, out);
                return Progress::Answered;
            }
        };
        let scratch = &mut *self.scratch.borrow_mut();
        scratch.key.clear();
        Self::engine_key(keyed.partition, keyed.key, &mut scratch.key);
        if self.locks.is_locked(space.id, &scratch.key) {
            let turn = Self::queued(ticket.clone(), call.whole.to_vec());
            if self.locks.join(space.id, &scratch.key, turn).is_ok() {
                return Progress::Pending;
            }
        }
        let Scratch { key, object, .. } = scratch;
        object.clear();
        let change = wish.change();
        let now = self.tick_clock();
        let read = space.tree.get_latest_cached(key, |stored| {
            update::apply(stored, &change, self.issued.get(), now, object)
        });
        let applied = match read {
            Ok(CachedRead::Done(applied)) => applied.map_err(Failure::from),
            Ok(CachedRead::NeedsIo(_)) => {
                let turn = Self::queued(ticket.clone(), call.whole.to_vec());
                self.lock_and_read(space, key.clone(), turn);
                return Progress::Pending;
            }
            Err(error) => Err(Failure::of_engine(&error)),
        };
        match applied.and_then(|applied| self.store(scratch, space, &wish, applied, ticket)) {
            Ok(()) => Progress::Pending,
            Err(failure) => {
                ticket.fail(&failure, out);
                Progress::Answered
            }
        }
    }

    /// Checks what the request wants. A context that fails its check is an error: taking it for
    /// none could destroy versions the client never saw, or leave some it wanted gone.
    fn wish<'a>(
        &self,
        head: &RequestHead,
        token: Option<&'a Token>,
        request: &Request<'a>,
        hash: u64,
        lww: bool,
    ) -> Result<Wish<'a>, Failure> {
        let (context, value) = match request {
            Request::Put(put) => (put.context, Some(put.value)),
            Request::Delete(delete) => (delete.context, None),
            _ => return Err(Failure::new(ErrorCode::Internal, "not a write")),
        };
        let context = if context.is_empty() {
            None
        } else {
            let decoded = Context::decode(context, hash, self.config.secret)
                .map_err(|error| Failure::new(ErrorCode::BadContext, error.to_string()))?;
            Some(decoded)
        };
        let blind = context.is_none() && self.config.blind_writes == BlindWrites::Replace;
        let replace = lww || head.consistency.lww || blind;
        Ok(Wish { value, context, token, replace, durability: self.durability_of(head), hash })
    }

    /// Counts a request once, however often it is looked at until its key is read.
    fn count_write(&self, wish: &Wish<'_>) {
        let Counters { puts, deletes, blind_writes, .. } = &self.counters;
        count(if wish.value.is_some() { puts } else { deletes });
        if wish.context.is_none() {
            count(blind_writes);
        }
    }

    /// Writes the object that `applied` left in the scratch and queues the acknowledgement.
    fn store(
        &self,
        scratch: &mut Scratch,
        space: &Space<E>,
        wish: &Wish<'_>,
        applied: Applied,
        ticket: &Ticket,
    ) -> Result<(), Failure> {
        let mut context = Vec::new();
        applied
            .context
            .encode(wish.hash, self.config.secret, &mut context)
            .map_err(|error| Failure::new(ErrorCode::InvalidArgument, error.to_string()))?;
        let Scratch { key, object, batch, .. } = scratch;
        batch.clear();
        space.put(batch, key, object);
        let commit =
            space.tree.write(batch, wish.durability).map_err(|error| Failure::of_engine(&error))?;
        if applied.repeated {
            count(&self.counters.retries_recognised);
        }
        if applied.versions > 1 {
            count(&self.counters.siblings_left);
        }
        let reply = WriteReply { ticket: ticket.clone(), hlc: applied.hlc, context };
        let patience = || ticket.arrived.after(self.config.limits.commit_wait);
        let deadline = ticket.deadline.unwrap_or_else(patience);
        self.commits(wish.durability).push(commit, deadline, reply.into());
        Ok(())
    }

    fn tick_clock(&self) -> Hlc {
        self.clock.borrow_mut().tick(self.env.wall_micros())
    }

    /// A write that waits for its turn.
    fn queued(ticket: Ticket, frame: Vec<u8>) -> Turn<E> {
        Box::new(move |shard, key, stored| {
            let applied = match stored {
                Ok(stored) => shard.apply_queued(key, stored, &ticket, &frame),
                Err(error) => Err(Failure::of_engine(error)),
            };
            applied.map_err(|failure| shard.refuse(&ticket, &failure)).ok()
        })
    }

    /// Applies a queued write on top of `stored`; returns the new object.
    fn apply_queued(
        &self,
        key: &[u8],
        stored: Option<&[u8]>,
        ticket: &Ticket,
        frame: &[u8],
    ) -> Result<Vec<u8>, Failure> {
        if ticket.is_late(self.env.now()) {
            count(&self.counters.deadline_exceeded);
            return Err(Failure::late());
        }
        let unreadable = || Failure::new(ErrorCode::Internal, "a queued frame does not parse");
        let Ok(Parsed::Frame { frame, .. }) = RequestFrame::parse(frame, self.wire.max_frame)
        else {
            return Err(unreadable());
        };
        let request = Request::decode(&frame, &self.wire).map_err(|_| unreadable())?;
        let space = self.space_or_failure(frame.head.keyspace)?;
        let hash = space.id.bind(coronet_ring::key_hash(&key[2..])); // after the partition
        let wish = self.wish(&frame.head, frame.token, &request, hash, space.lww)?;
        let scratch = &mut *self.scratch.borrow_mut();
        scratch.object.clear();
        let now = self.tick_clock();
        let applied =
            update::apply(stored, &wish.change(), self.issued.get(), now, &mut scratch.object)?;
        scratch.key.clear();
        scratch.key.extend_from_slice(key);
        self.store(scratch, &space, &wish, applied, ticket)?;
        Ok(scratch.object.clone())
    }

    fn refuse(&self, ticket: &Ticket, failure: &Failure) {
        self.answer(ticket, |out| ticket.fail(failure, out));
    }

    /// A write's log batch is committed, or failed.
    pub(super) fn committed(&self, waiter: Waiter, result: coronet_lsm::Result<Seq>) {
        let WriteReply { ticket, hlc, context } = match waiter {
            Waiter::Client(reply) => reply,
            Waiter::Replica(write) => return self.replicated(&write, result.is_ok()),
            Waiter::Hint(target, partition) => return self.note_again(target, partition),
        };
        match result {
            Ok(_) => self.answer(&ticket, |out| {
                let mut frame = FrameWriter::reply(out, &ticket.head(Status::Ok));
                Written::write(frame.body(), hlc, |into| into.extend_from_slice(&context));
                frame.finish();
            }),
            Err(error) => {
                count(&self.counters.in_doubt);
                self.refuse(&ticket, &Failure::of_commit(&error));
            }
        }
    }

    /// A write's deadline passed while it waits for its commit. Returns who waits on.
    pub(super) fn in_doubt(&self, waiter: Waiter) -> Option<Waiter> {
        let reply = match waiter {
            Waiter::Client(reply) => reply,
            Waiter::Replica(write) => {
                self.replicated(&write, false);
                return write.hinted.map(|(target, partition)| Waiter::Hint(target, partition));
            }
            hint @ Waiter::Hint(..) => return Some(hint),
        };
        count(&self.counters.in_doubt);
        let text = "the deadline passed while the write was on its way to the disk";
        self.refuse(&reply.ticket, &Failure::new(ErrorCode::InDoubt, text));
        None
    }
}

impl From<ChangeError> for Failure {
    fn from(error: ChangeError) -> Self {
        let code = match error {
            ChangeError::TooManyVersions => ErrorCode::InvalidArgument,
            ChangeError::Stored(_) | ChangeError::Exhausted => ErrorCode::Corruption,
        };
        Failure::new(code, error.to_string())
    }
}
