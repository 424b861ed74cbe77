//! Clients' requests: from a frame to a machine that coordinates it.

use coronet_net::codec::{KeyList, Request, TopologyNode, TopologyReply};
use coronet_net::{
    ErrorCode, FrameWriter, Op, Parsed, ReplyHead, RequestFrame, RequestHead, Status,
};
use coronet_ring::coordinate::get::{Get, GetRequest};
use coronet_ring::coordinate::list::{List, ListRequest};
use coronet_ring::coordinate::put::{Put, PutRequest};
use coronet_ring::coordinate::quorum::Proof;
use coronet_ring::{CoreId, PartitionId, key_hash};

use super::State;
use super::client::{self, Client, View};
use super::gather::Gather;
use super::members::{PlacementNow, micros};
use super::requests::{Machine, ReplyTo, Running};
use super::spaces::Space;
use crate::node::{Coordinate, CoreMessage, NodeEnv, Timed};

impl<E: NodeEnv> State<E> {
    pub(super) fn coordinate(&mut self, request: Coordinate) {
        let Coordinate { origin, conn, arrived, cost, frame: bytes } = request;
        let Ok(Parsed::Frame { frame, .. }) =
            RequestFrame::parse(&bytes, self.config.limits.max_frame)
        else {
            // The data core has checked these very bytes.
            return self.env.log("a coordinated frame does not parse; its request is lost");
        };
        let head = &frame.head;
        let mut client = Client {
            origin,
            conn,
            request_id: head.request_id,
            cost,
            arrived,
            op: head.op.to_u8(),
            partition: PartitionId::NONE,
            owner: CoreId::ANY,
        };
        if self.members.gossip.table().is_none()
            && head.op != Op::Topology
            && head.op != Op::Keyspace
        {
            let text = "the cluster's nodes have not all met yet";
            return self.refuse(&client, ErrorCode::NotEnoughReplicas, text);
        }
        if !self.requests.has_room_for(bytes.len()) {
            return self.refuse(&client, ErrorCode::Busy, "too many requests in progress");
        }
        let decoded = Request::decode(&frame, &self.config.limits);
        let request = match decoded {
            Ok(request) => request,
            Err(error) => return self.refuse(&client, error.code(), &error.to_string()),
        };
        let Some(space) = self.space(head.space()) else {
            let text = format!("this node knows no keyspace with id {}, or not yet", head.keyspace);
            return self.refuse(&client, ErrorCode::UnknownKeyspace, &text);
        };
        let key = match &request {
            Request::Get { key } => key,
            Request::Put(put) => put.key,
            Request::Delete(delete) => delete.key,
            _ => &[],
        };
        let hash = key_hash(key);
        let conflicts = client::conflicts(head, space);
        let (keyspace, bound) = (space.id, space.id.bind(hash));
        let view = View { keyspace, hash: bound, conflicts, prefix: Vec::new() };
        if !key.is_empty() {
            client.partition = self.map.partition_of_hash(hash);
            client.owner = self.map.core_of(client.partition);
        }
        let now = self.env.now();
        match &request {
            Request::Get { .. } => {
                let get = client::get_request(head, space, &self.config, arrived, now);
                let (partition, reply_to) = (client.partition, ReplyTo::Client(client, view));
                self.start_get(get, space, partition, reply_to, key.to_vec());
            }
            Request::Put(_) | Request::Delete(_) => {
                let put =
                    client::put_request(head, frame.token, &request, space, &self.config, arrived);
                if let Some(put) = put {
                    self.start_put(put, space, client, view, key.to_vec());
                }
            }
            Request::List(list) => {
                let partitions = self.map.partitions();
                match client::list_request(head, list, space, partitions, arrived) {
                    Ok(request) => {
                        let view = View { prefix: list.prefix.to_vec(), ..view };
                        self.start_list(request, space, client, view);
                    }
                    Err(text) => self.refuse(&client, ErrorCode::BadCursor, &text),
                }
            }
            Request::MultiGet(keys) => self.start_gather(head, space, keys, client, &view),
            Request::Topology => self.topology(&client),
            Request::Keyspace(request) => self.keyspace_asked(client.asker(), request),
            _ => self.refuse(&client, ErrorCode::Internal, "not a request to coordinate"),
        }
    }

    fn start_get(
        &mut self,
        request: GetRequest,
        space: Space,
        partition: PartitionId,
        reply_to: ReplyTo,
        key: Vec<u8>,
    ) {
        let replicas = self.members.replicas(partition, space.n);
        let (id, mut effects) = (self.requests.number(), Vec::new());
        let (deadline, bytes) = (request.deadline, key.len());
        let machine = Machine::Get(Get::start(request, &replicas, &mut effects));
        let running = Running::new(machine, reply_to, space, partition, key, deadline, bytes);
        self.requests.insert(id, running);
        self.carry_out(id, effects);
    }

    /// One read per key.
    fn start_gather(
        &mut self,
        head: &RequestHead,
        space: Space,
        keys: &KeyList<'_>,
        client: Client,
        view: &View,
    ) {
        let view = |key: &[u8]| View { hash: space.id.bind(key_hash(key)), ..view.clone() };
        let views: Vec<View> = keys.iter().map(view).collect();
        let partitions: Vec<_> =
            keys.iter().map(|key| self.map.partition_of_hash(key_hash(key))).collect();
        let (arrived, number) = (client.arrived, self.requests.number());
        let gather = Gather::new(client, views);
        if gather.is_complete() {
            let (epoch, now) = (self.members.epoch(), self.env.now());
            let frames = gather.reply(self.config.secret, 0, epoch, now);
            return self.send_reply(gather.client(), frames);
        }
        self.gathers.insert(number, gather);
        for (index, (key, partition)) in keys.iter().zip(partitions).enumerate() {
            let get = client::get_request(head, space, &self.config, arrived, self.env.now());
            let reply_to = ReplyTo::Part(number, index);
            self.start_get(get, space, partition, reply_to, key.to_vec());
        }
    }

    fn start_put(
        &mut self,
        request: PutRequest,
        space: Space,
        client: Client,
        view: View,
        key: Vec<u8>,
    ) {
        let now = self.env.now();
        let replicas = self.members.replicas(client.partition, space.n);
        let (id, mut effects) = (self.requests.number(), Vec::new());
        let (deadline, partition, bytes) = (request.deadline, client.partition, client.cost);
        let put = Put::start(request, &replicas, micros(now), &mut effects);
        let (machine, reply_to) = (Machine::Put(put), ReplyTo::Client(client, view));
        let running = Running::new(machine, reply_to, space, partition, key, deadline, bytes);
        self.requests.insert(id, running);
        self.carry_out(id, effects);
    }

    fn start_list(&mut self, request: ListRequest, space: Space, client: Client, view: View) {
        let (id, mut effects) = (self.requests.number(), Vec::new());
        let placement = PlacementNow { members: &self.members, n: space.n };
        let (deadline, bytes) = (request.deadline, request.prefix.len());
        let machine = Machine::List(List::start(request, &placement, &mut effects));
        let (reply_to, none) = (ReplyTo::Client(client, view), PartitionId::NONE);
        let running = Running::new(machine, reply_to, space, none, Vec::new(), deadline, bytes);
        self.requests.insert(id, running);
        self.carry_out(id, effects);
    }

    fn topology(&self, client: &Client) {
        let mut table = Vec::new();
        if let Some(known) = self.members.gossip.table() {
            known.encode(&mut table);
        }
        let nodes: Vec<_> = self
            .members
            .gossip
            .members()
            .map(|member| TopologyNode {
                id: member.id,
                alive: self.members.is_reachable(member.id),
                cores: member.cores,
                address: member.client_address.clone(),
                rack: member.rack.clone(),
            })
            .collect();
        let reply = TopologyReply { replicas: self.config.replicas, nodes, table };
        let mut frames = Vec::new();
        let head = ReplyHead {
            epoch: self.members.epoch(),
            ..ReplyHead::new(client.op, client.request_id, Status::Ok)
        };
        let mut frame = FrameWriter::reply(&mut frames, &head);
        reply.write(frame.body());
        frame.finish();
        self.send_reply(client, frames);
    }

    fn refuse(&self, client: &Client, code: ErrorCode, text: &str) {
        let (epoch, now) = (self.members.epoch(), self.env.now());
        let frames = client.error(code, text, &Proof::default(), epoch, now);
        self.send_reply(client, frames);
    }

    pub(super) fn send_reply(&self, client: &Client, frames: Vec<u8>) {
        let Client { origin, conn, request_id, cost, op, arrived, .. } = *client;
        let timed = Some(Timed { op, arrived });
        self.env.send(origin, CoreMessage::Reply { conn, request_id, cost, timed, frames });
    }
}
