//! A request's way: checks that concern every operation, then its handler here or the core that
//! owns its key.

use std::rc::Rc;

use coronet_lsm::env::Nanos;
use coronet_net::codec::{Request, RouteReply};
use coronet_net::{ErrorCode, FrameWriter, Quorum, RequestHead, Status};
use coronet_ring::{PartitionId, Token, key_hash};

use super::reply::{EPOCH, Failure, Ticket};
use super::spaces::Space;
use super::{Inner, write};
use crate::node::stats::count;
use crate::node::{ControlMessage, Coordinate, CoreMessage, NodeEnv};

/// Replicas of a key: this release serves from one node.
const REPLICAS: u8 = 1;

/// A decoded request with everything its handler may need.
#[derive(Debug)]
pub(super) struct Call<'a> {
    /// Its header.
    pub head: &'a RequestHead,
    /// The client's name for the write.
    pub token: Option<&'a Token>,
    /// Its meaning.
    pub request: Request<'a>,
    /// The whole frame, to be forwarded or kept.
    pub whole: &'a [u8],
    /// When its turn came.
    pub now: Nanos,
}

/// A key with what is derived from it once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keyed<'a> {
    pub key: &'a [u8],
    /// What its contexts are bound to: its hash and the keyspace.
    pub hash: u64,
    pub partition: PartitionId,
}

/// Executes a request for one key on the core that owns it.
type Handler<E> =
    fn(&Rc<Inner<E>>, &Call<'_>, &Space<E>, Keyed<'_>, &Ticket, &mut Vec<u8>) -> Progress;

/// How far a request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// Its reply was written.
    Answered,
    /// Its reply comes later, through [`Inner::answer`].
    Pending,
}

impl<E: NodeEnv> Inner<E> {
    /// Executes a request or sends it to its core; writes the reply to `out` when that is done
    /// at once.
    pub(super) fn execute(
        self: &Rc<Self>,
        call: &Call<'_>,
        ticket: &mut Ticket,
        out: &mut Vec<u8>,
    ) -> Progress {
        if let Request::Ping(bytes) = call.request {
            let mut frame = FrameWriter::reply(out, &ticket.head(Status::Ok));
            frame.body().extend_from_slice(bytes);
            frame.finish();
            return Progress::Answered;
        }
        if let Err(failure) = self.admit(call, ticket) {
            ticket.fail(&failure, out);
            return Progress::Answered;
        }
        let concerns_node =
            matches!(call.request, Request::Stats | Request::Route { .. } | Request::Admin(_));
        let concerns_control = matches!(call.request, Request::Keyspace(_));
        if concerns_control || (self.config.clustered && !concerns_node) {
            return self.coordinate(call, ticket);
        }
        let space = match self.space_or_failure(call.head.space()) {
            Ok(space) => space,
            Err(failure) => {
                ticket.fail(&failure, out);
                return Progress::Answered;
            }
        };
        match &call.request {
            Request::Get { key } => self.on_key(call, &space, ticket, out, key, Self::get),
            Request::Put(put) => self.on_key(call, &space, ticket, out, put.key, Self::write),
            Request::Delete(delete) => {
                self.on_key(call, &space, ticket, out, delete.key, Self::write)
            }
            Request::MultiGet(keys) => self.multi_get(call, &space, keys, ticket, out),
            Request::List(list) => self.list(call, &space, list, ticket, out),
            Request::Route { key } => self.route(key, ticket, out),
            Request::Stats => {
                let (origin, conn) = (ticket.origin, ticket.conn);
                let (request_id, cost) = (ticket.request_id, ticket.cost);
                self.tell_control(ControlMessage::Stats { origin, conn, request_id, cost });
                Progress::Pending
            }
            Request::Admin(admin) => self.administer(admin, ticket),
            Request::Topology => {
                let failure = Failure::new(ErrorCode::Unsupported, "this node is in no cluster");
                ticket.fail(&failure, out);
                Progress::Answered
            }
            // Connections answer HELLO themselves; a forwarded one makes no sense.
            Request::Hello(_) | Request::Ping(_) | Request::Keyspace(_) => {
                ticket.fail(&Failure::new(ErrorCode::InvalidArgument, "misplaced request"), out);
                Progress::Answered
            }
        }
    }

    /// Has the control core do a request, in a cluster together with the other nodes.
    fn coordinate(&self, call: &Call<'_>, ticket: &Ticket) -> Progress {
        let Ticket { origin, conn, arrived, cost, .. } = *ticket;
        let frame = call.whole.to_vec();
        let request = Coordinate { origin, conn, arrived, cost, frame };
        self.tell_control(ControlMessage::Coordinate(request));
        Progress::Pending
    }

    /// What every operation has to pass.
    fn admit(&self, call: &Call<'_>, ticket: &Ticket) -> Result<(), Failure> {
        if ticket.is_late(call.now) {
            count(&self.counters.deadline_exceeded);
            return Err(Failure::late());
        }
        if self.draining.get() {
            return Err(Failure::stopping());
        }
        if self.config.clustered {
            return Ok(()); // the coordinator knows how many replicas there are
        }
        let head = call.head;
        let quorum = |name: &str, quorum: Quorum| {
            if quorum.resolve(REPLICAS).is_some() {
                return Ok(());
            }
            let text = format!(
                "{name} = {} asks for more replicas than the {REPLICAS} there is; use 0 (the \
                 default), 1, quorum or all",
                quorum.0
            );
            Err(Failure::new(ErrorCode::InvalidArgument, text))
        };
        quorum("r", head.r)?;
        quorum("w", head.w)?;
        if head.consistency.racks > 1 {
            let text = "more than one rack is asked for, the node is on one";
            return Err(Failure::new(ErrorCode::InvalidArgument, text));
        }
        Ok(())
    }

    /// Runs a handler on the core that owns the key.
    fn on_key(
        self: &Rc<Self>,
        call: &Call<'_>,
        space: &Space<E>,
        ticket: &mut Ticket,
        out: &mut Vec<u8>,
        key: &[u8],
        handler: Handler<E>,
    ) -> Progress {
        let hash = key_hash(key);
        let partition = self.map.partition_of_hash(hash);
        ticket.partition = partition;
        ticket.owner = self.map.core_of(partition);
        if ticket.owner == self.me {
            let hash = space.id.bind(hash);
            return handler(self, call, space, Keyed { key, hash, partition }, ticket, out);
        }
        self.forward(call, ticket, out)
    }

    /// Sends a request to the core `ticket.owner`.
    pub(super) fn forward(&self, call: &Call<'_>, ticket: &Ticket, out: &mut Vec<u8>) -> Progress {
        if ticket.forwarded {
            // Both cores divide the partitions the same way.
            let text = "a request was forwarded to a core that does not own its key";
            ticket.fail(&Failure::new(ErrorCode::Internal, text), out);
            return Progress::Answered;
        }
        count(&self.counters.forwarded);
        let (origin, conn, arrived) = (ticket.origin, ticket.conn, ticket.arrived);
        let frame = call.whole.to_vec();
        self.env.send(ticket.owner, CoreMessage::Request { origin, conn, arrived, frame });
        Progress::Pending
    }

    fn route(&self, key: &[u8], ticket: &mut Ticket, out: &mut Vec<u8>) -> Progress {
        let partition = self.map.partition_of(key);
        let core = self.map.core_of(partition);
        (ticket.partition, ticket.owner) = (partition, core);
        let mut frame = FrameWriter::reply(out, &ticket.head(Status::Ok));
        let node_id = self.config.node_id;
        RouteReply { partition, core, epoch: EPOCH, node_id }.write(frame.body());
        frame.finish();
        Progress::Answered
    }

    /// The durability a write gets.
    pub(super) fn durability_of(&self, head: &RequestHead) -> coronet_lsm::Durability {
        write::durability(head.consistency.durability, self.config.durability)
    }
}
