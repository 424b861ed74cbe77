//! GET: from the engine's bytes to a reply, without a copy in between when nothing waits for the
//! disk.

use std::rc::Rc;

use coronet_lsm::env::TaskClass;
use coronet_lsm::{CachedRead, Keyspace};
use coronet_net::codec::{VersionRef, VersionsWriter};
use coronet_net::{ErrorCode, FrameWriter, Status};
use coronet_ring::causality::context::{MAX_DOTS, encode_parts};
use coronet_ring::causality::object::ObjectRef;
use coronet_ring::{Dot, SiblingRef};

use super::Inner;
use super::dispatch::{Call, Keyed, Progress};
use super::reply::{Failure, Ticket};
use super::spaces::Space;
use crate::node::NodeEnv;
use crate::node::stats::count;

/// How a stored object is shown.
#[derive(Debug, Clone, Copy)]
pub(super) struct View {
    /// Hash of the key and keyspace: binds the context to them.
    pub hash: u64,
    /// Keys the context's check.
    pub secret: u64,
    /// Only the latest version.
    pub latest_only: bool,
}

impl View {
    /// Appends the versions and the context of a stored object.
    pub(super) fn write(
        &self,
        object: &ObjectRef<'_>,
        mut versions: VersionsWriter<'_>,
        dots: &mut Vec<Dot>,
    ) {
        let mut push = |version: SiblingRef<'_>| {
            let (hlc, value) = (version.hlc, version.value);
            versions.push(VersionRef { hlc, tombstone: false, value });
        };
        if self.latest_only {
            let latest = object.values().max_by_key(|version| (version.hlc, version.dot));
            latest.into_iter().for_each(push);
        } else {
            object.values().for_each(&mut push);
        }
        versions.finish(|into| self.write_context(object, dots, into));
    }

    /// Appends the context of a stored object: everything it has seen.
    pub(super) fn write_context(
        &self,
        object: &ObjectRef<'_>,
        dots: &mut Vec<Dot>,
        into: &mut Vec<u8>,
    ) {
        dots.clear();
        dots.extend(object.vector_entries());
        let (entries, start) = (dots.len(), into.len());
        // A context that leaves out what it cannot hold is safe: the next write then leaves more
        // standing than it might.
        dots.extend(object.dot_entries().take(MAX_DOTS));
        let (vector, single) = dots.split_at(entries);
        // A decoded object's vector is within the bounds of a context. Should that ever change,
        // no context is safe: the next write stands beside instead of replacing.
        if encode_parts(vector, single, self.hash, self.secret, into).is_err() {
            into.truncate(start);
        }
    }
}

impl<E: NodeEnv> Inner<E> {
    pub(super) fn view(&self, hash: u64, latest_only: bool) -> View {
        View { hash, secret: self.config.secret, latest_only }
    }

    pub(super) fn get(
        self: &Rc<Self>,
        call: &Call<'_>,
        space: &Space<E>,
        keyed: Keyed<'_>,
        ticket: &Ticket,
        out: &mut Vec<u8>,
    ) -> Progress {
        count(&self.counters.gets);
        let view = self.view(keyed.hash, space.lww || call.head.consistency.lww);
        let scratch = &mut *self.scratch.borrow_mut();
        scratch.key.clear();
        Self::engine_key(keyed.partition, keyed.key, &mut scratch.key);
        let dots = &mut scratch.dots;
        let read = space
            .tree
            .get_cached(&scratch.key, |stored| write_found(ticket, view, stored, dots, out));
        match read {
            Ok(CachedRead::Done(())) => Progress::Answered,
            Ok(CachedRead::NeedsIo(_)) => {
                count(&self.counters.gets_waited);
                let key = std::mem::take(&mut scratch.key);
                self.get_from_disk(space.tree.clone(), key, view, ticket.clone());
                Progress::Pending
            }
            Err(error) => {
                ticket.fail(&Failure::of_engine(&error), out);
                Progress::Answered
            }
        }
    }

    fn get_from_disk(self: &Rc<Self>, tree: Keyspace<E>, key: Vec<u8>, view: View, ticket: Ticket) {
        let shard = Rc::clone(self);
        self.env.spawn(TaskClass::Foreground, async move {
            let read = tree.get(&key).await;
            if ticket.is_late(shard.env.now()) {
                count(&shard.counters.deadline_exceeded);
                return shard.answer(&ticket, |out| ticket.fail(&Failure::late(), out));
            }
            shard.answer(&ticket, |out| match read {
                Ok(stored) => {
                    write_found(&ticket, view, stored.as_deref(), &mut Vec::new(), out);
                }
                Err(error) => ticket.fail(&Failure::of_engine(&error), out),
            });
        });
    }
}

/// Appends the reply to a read that found `stored`.
fn write_found(
    ticket: &Ticket,
    view: View,
    stored: Option<&[u8]>,
    dots: &mut Vec<Dot>,
    out: &mut Vec<u8>,
) {
    let mut frame = FrameWriter::reply(out, &ticket.head(Status::Ok));
    let Some(stored) = stored else {
        frame.set_reply(&ticket.head(Status::NotFound));
        VersionsWriter::new(frame.body()).finish(|_| {});
        frame.finish();
        return;
    };
    match ObjectRef::decode(stored) {
        Ok(object) => {
            if object.is_deleted() {
                frame.set_reply(&ticket.head(Status::NotFound));
            }
            view.write(&object, VersionsWriter::new(frame.body()), dots);
            frame.finish();
        }
        Err(error) => {
            drop(frame);
            let text = format!("stored object: {error}");
            ticket.fail(&Failure::new(ErrorCode::Corruption, text), out);
        }
    }
}
