//! A client's request as the coordinator takes it, and the coordinator's outcome as the client
//! gets it.

use std::time::Duration;

use coronet_lsm::env::Nanos;
use coronet_net::codec::{
    Cursor, Entry, ErrorReply, ListRequest as WireList, PageWriter, Request, VersionRef,
    VersionsWriter, Written,
};
use coronet_net::{
    self as net, ErrorCode, FrameWriter, Quorum, QuorumMode, ReplyFlags, ReplyHead, RequestHead,
    Status,
};
use coronet_ring::causality::object::ObjectRef;
use coronet_ring::causality::resolve::{Conflicts, visible};
use coronet_ring::coordinate::get::GetRequest;
use coronet_ring::coordinate::list::{ListRequest, Page, Position};
use coronet_ring::coordinate::message::{Durability, NewWrite, Refusal};
use coronet_ring::coordinate::put::PutRequest;
use coronet_ring::coordinate::quorum::{Failure, Mode, Need, Outcome, Proof};
use coronet_ring::{CoreId, Epoch, KeyspaceId, PartitionId, Token};

use super::ClusterConfig;
use super::members::micros;
use super::spaces::Space;
use crate::node::ConnId;
use crate::node::keyspaces::Asker;

/// How long a request without deadline may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a naming replica may take before another is tried.
const NAMING: Duration = Duration::from_millis(500);
/// When a read asks another replica because one is slow.
const HEDGE: Duration = Duration::from_millis(20);

/// Whom an answer goes to.
#[derive(Debug, Clone)]
pub(super) struct Client {
    /// The core that holds the connection.
    pub origin: CoreId,
    /// The connection.
    pub conn: ConnId,
    /// The client's number of the request.
    pub request_id: u64,
    /// Bytes the request holds.
    pub cost: usize,
    /// When it arrived.
    pub arrived: Nanos,
    /// The operation's number.
    pub op: u8,
    /// The key's partition.
    pub partition: PartitionId,
    /// The core that owns it on this node.
    pub owner: CoreId,
}

/// How a read's outcome is shown.
#[derive(Debug, Clone)]
pub(super) struct View {
    /// The keyspace.
    pub keyspace: KeyspaceId,
    /// Binds contexts to key and keyspace.
    pub hash: u64,
    /// Which versions are shown.
    pub conflicts: Conflicts,
    /// A listing's prefix: its cursor is bound to it.
    pub prefix: Vec<u8>,
}

/// What a request asks of the quorum; `default` is its keyspace's.
fn need(quorum: Quorum, default: Option<u8>) -> Need {
    match quorum {
        Quorum::DEFAULT => default.map_or(Need::Quorum, Need::Count),
        Quorum::MAJORITY => Need::Quorum,
        Quorum::ALL => Need::All,
        Quorum(count) => Need::Count(count),
    }
}

fn mode(asked: QuorumMode, config: &ClusterConfig) -> Mode {
    match asked {
        QuorumMode::Default => config.mode,
        QuorumMode::Sloppy => Mode::Sloppy,
        QuorumMode::Strict => Mode::Strict,
    }
}

fn deadline(head: &RequestHead, arrived: Nanos) -> u64 {
    let patience = match head.deadline_us {
        0 => PATIENCE,
        asked => Duration::from_micros(u64::from(asked)),
    };
    micros(arrived.after(patience))
}

/// A GET.
pub(super) fn get_request(
    head: &RequestHead,
    space: Space,
    config: &ClusterConfig,
    arrived: Nanos,
    now: Nanos,
) -> GetRequest {
    GetRequest {
        need: need(head.r, space.quorums.map(|(r, _)| r)),
        mode: mode(head.consistency.mode, config),
        monotonic: head.consistency.monotonic,
        deadline: deadline(head, arrived),
        hedge_at: micros(now.after(HEDGE)),
    }
}

/// A PUT or DELETE.
pub(super) fn put_request(
    head: &RequestHead,
    token: Option<&Token>,
    request: &Request<'_>,
    space: Space,
    config: &ClusterConfig,
    arrived: Nanos,
) -> Option<PutRequest> {
    let (context, value) = match request {
        Request::Put(put) => (put.context, Some(put.value.to_vec())),
        Request::Delete(delete) => (delete.context, None),
        _ => return None,
    };
    let durability = match head.consistency.durability {
        net::Durability::Default => config.durability,
        net::Durability::Durable => Durability::Durable,
        net::Durability::Buffered => Durability::Buffered,
    };
    let lww = conflicts(head, space) == Conflicts::LastWriteWins;
    let replace = lww || (context.is_empty() && config.blind_replaces);
    let context = context.to_vec();
    Some(PutRequest {
        write: NewWrite { value, context, replace, token: token.copied() },
        need: need(head.w, space.quorums.map(|(_, w)| w)),
        racks: head.consistency.racks,
        mode: mode(head.consistency.mode, config),
        durability,
        deadline: deadline(head, arrived),
        patience: u64::try_from(NAMING.as_micros()).unwrap_or(u64::MAX),
    })
}

/// A LIST; an error's text when its cursor is not one.
pub(super) fn list_request(
    head: &RequestHead,
    list: &WireList<'_>,
    space: Space,
    partitions: u32,
    arrived: Nanos,
) -> Result<ListRequest, String> {
    let from = if list.cursor.is_empty() {
        Position::default()
    } else {
        let cursor = Cursor::decode(list.cursor, space.id, list.prefix, partitions)
            .map_err(|error| error.to_string())?;
        let after = (!cursor.last_key.is_empty()).then(|| cursor.last_key.to_vec());
        Position { partition: u32::from(cursor.partition.0), after }
    };
    Ok(ListRequest {
        prefix: list.prefix.to_vec(),
        from,
        limit: list.page_limit,
        need: need(head.r, space.quorums.map(|(r, _)| r)),
        conflicts: conflicts(head, space),
        deadline: deadline(head, arrived),
    })
}

/// Which versions a request wants to see.
pub(super) fn conflicts(head: &RequestHead, space: Space) -> Conflicts {
    if head.consistency.lww { Conflicts::LastWriteWins } else { space.conflicts }
}

impl Client {
    /// Whom answers about keyspaces go to.
    pub(super) fn asker(&self) -> Asker {
        let Client { origin, conn, request_id, cost, .. } = *self;
        Asker { origin, conn, request_id, cost }
    }

    pub(super) fn head(
        &self,
        status: Status,
        proof: &Proof,
        epoch: Epoch,
        now: Nanos,
    ) -> ReplyHead {
        let mut flags = ReplyFlags::NONE;
        for (set, flag) in [
            (proof.sloppy, ReplyFlags::SLOPPY),
            (proof.repaired, ReplyFlags::REPAIRED),
            (proof.hedged, ReplyFlags::HEDGED),
        ] {
            flags = if set { flags | flag } else { flags };
        }
        ReplyHead {
            flags,
            server_us: u32::try_from(now.since(self.arrived).as_micros()).unwrap_or(u32::MAX),
            partition: self.partition,
            acks: proof.acknowledgements,
            racks: proof.racks,
            owner: self.owner,
            epoch,
            ..ReplyHead::new(self.op, self.request_id, status)
        }
    }

    /// The whole reply to an outcome.
    pub(super) fn reply(
        &self,
        outcome: &Outcome,
        view: &View,
        secret: u64,
        partitions: u32,
        epoch: Epoch,
        now: Nanos,
    ) -> Vec<u8> {
        let mut out = Vec::new();
        match outcome {
            Outcome::Written { context, hlc, proof, .. } => {
                let head = self.head(Status::Ok, proof, epoch, now);
                let mut frame = FrameWriter::reply(&mut out, &head);
                Written::write(frame.body(), *hlc, |into| into.extend_from_slice(context));
                frame.finish();
            }
            Outcome::Read { object, proof } => {
                let head = |status| self.head(status, proof, epoch, now);
                let mut frame = FrameWriter::reply(&mut out, &head(Status::Ok));
                match object.as_deref().map(ObjectRef::decode) {
                    Some(Ok(object)) => {
                        if !view.shows(&object) {
                            frame.set_reply(&head(Status::NotFound));
                        }
                        write_versions(VersionsWriter::new(frame.body()), &object, view, secret);
                        frame.finish();
                    }
                    None => {
                        frame.set_reply(&head(Status::NotFound));
                        VersionsWriter::new(frame.body()).finish(|_| {});
                        frame.finish();
                    }
                    Some(Err(error)) => {
                        drop(frame);
                        out.clear();
                        let text = format!("stored object: {error}");
                        return self.error(ErrorCode::Corruption, &text, proof, epoch, now);
                    }
                }
            }
            Outcome::Page(page) => {
                let head = self.head(Status::Ok, &Proof::default(), epoch, now);
                let mut frame = FrameWriter::reply(&mut out, &head);
                write_page(frame.body(), page, view, partitions);
                frame.finish();
            }
            Outcome::Failed(failure) => {
                let (code, proof) = meaning(failure);
                return self.error(code, &failure.to_string(), &proof, epoch, now);
            }
        }
        out
    }

    /// An error reply.
    pub(super) fn error(
        &self,
        code: ErrorCode,
        text: &str,
        proof: &Proof,
        epoch: Epoch,
        now: Nanos,
    ) -> Vec<u8> {
        let mut out = Vec::new();
        let mut head = self.head(code.into(), proof, epoch, now);
        if code == ErrorCode::InDoubt {
            head.flags = head.flags | ReplyFlags::IN_DOUBT;
        }
        let mut frame = FrameWriter::reply(&mut out, &head);
        ErrorReply { retry_after_ms: 0, text }.write(frame.body());
        frame.finish();
        out
    }
}

/// Writes what a reader sees of an object.
pub(super) fn write_versions(
    mut versions: VersionsWriter<'_>,
    object: &ObjectRef<'_>,
    view: &View,
    secret: u64,
) {
    for version in visible(object, view.conflicts) {
        let (hlc, value) = (version.hlc, version.value);
        versions.push(VersionRef { hlc, tombstone: false, value });
    }
    versions.finish(|into| view.write_context(object, secret, into));
}

impl View {
    /// Whether a reader sees anything of an object.
    pub(super) fn shows(&self, object: &ObjectRef<'_>) -> bool {
        !visible(object, self.conflicts).is_empty()
    }

    /// Appends the context of an object: everything it has seen.
    pub(super) fn write_context(&self, object: &ObjectRef<'_>, secret: u64, into: &mut Vec<u8>) {
        let start = into.len();
        // A decoded object's context is within bounds. Should that ever change, no context is
        // safe: the next write stands beside instead of replacing.
        if object.seen().encode(self.hash, secret, into).is_err() {
            into.truncate(start);
        }
    }
}

fn write_page(body: &mut Vec<u8>, page: &Page, view: &View, partitions: u32) {
    let mut writer = PageWriter::new(body);
    for live in &page.keys {
        let (versions, bytes, hlc) = (live.versions, live.bytes, live.hlc);
        writer.push(Entry { key: &live.key, versions, bytes, hlc });
    }
    writer.finish(|into| {
        if let Some(next) = &page.next
            && let Ok(partition) = u16::try_from(next.partition)
        {
            let last_key = next.after.as_deref().unwrap_or_default();
            let cursor = Cursor { partition: PartitionId(partition), last_key };
            cursor.encode(view.keyspace, &view.prefix, partitions, into);
        }
    });
}

/// A failure in the client's words, with what is known of acknowledgements.
pub(super) fn meaning(failure: &Failure) -> (ErrorCode, Proof) {
    let counted = |acknowledgements| Proof { acknowledgements, ..Proof::default() };
    match failure {
        Failure::BadQuorum { .. } => (ErrorCode::InvalidArgument, Proof::default()),
        Failure::Unavailable { .. } | Failure::TooFewRacks { .. } => {
            (ErrorCode::NotEnoughReplicas, Proof::default())
        }
        Failure::InDoubt { acknowledgements, .. } => {
            (ErrorCode::InDoubt, counted(*acknowledgements))
        }
        Failure::TooFewAnswers { answers, .. } => (ErrorCode::DeadlineExceeded, counted(*answers)),
        Failure::Refused(refusal) => (refused(*refusal), Proof::default()),
    }
}

fn refused(refusal: Refusal) -> ErrorCode {
    match refusal {
        Refusal::Busy => ErrorCode::Busy,
        Refusal::NotReplica => ErrorCode::NotEnoughReplicas,
        Refusal::DiskFull => ErrorCode::DiskFull,
        Refusal::ShuttingDown => ErrorCode::ShuttingDown,
        Refusal::Corrupt => ErrorCode::Corruption,
        Refusal::Fenced => ErrorCode::NotEnoughReplicas,
        Refusal::UnknownKeyspace => ErrorCode::UnknownKeyspace,
        Refusal::BadContext => ErrorCode::BadContext,
        Refusal::TooManyVersions | Refusal::Invalid => ErrorCode::InvalidArgument,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_a_coordinator_knows_of_an_answer_is_in_its_header() {
        let client = Client {
            origin: CoreId(0),
            conn: ConnId(1),
            request_id: 7,
            cost: 0,
            arrived: Nanos(0),
            op: 4,
            partition: PartitionId(1),
            owner: CoreId(0),
        };
        let none = Proof { acknowledgements: 3, racks: 2, ..Proof::default() };
        for (proof, flags) in [
            (none, ReplyFlags::NONE),
            (Proof { sloppy: true, ..none }, ReplyFlags::SLOPPY),
            (Proof { repaired: true, ..none }, ReplyFlags::REPAIRED),
            (Proof { hedged: true, ..none }, ReplyFlags::HEDGED),
        ] {
            let head = client.head(Status::Ok, &proof, Epoch(9), Nanos(5_000));
            assert_eq!((head.acks, head.racks, head.flags), (3, 2, flags));
            assert_eq!((head.server_us, head.epoch, head.request_id), (5, Epoch(9), 7));
        }
    }
}
