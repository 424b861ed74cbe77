//! Simulated clients that write and read until the node is cut off, and check every answer.
//!
//! Owns the choice of operations; what an answer may be is the model's business.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use coronet_lsm::env::{Env, TaskClass};
use coronet_net::codec::{
    Delete, KeyListBuf, ListPage, ListRequest, MultiResults, Put, Request, Versions, Written,
};
use coronet_net::frame::TOKEN_BYTES;
use coronet_net::{Consistency, Durability, Op, RequestFlags, RequestHead, Status};
use coronet_ring::CoreId;
use coronet_sim::Rng;

use super::client::{Client, Replies, Reply};
use super::model::{Mode, Model};
use super::network::Network;

/// The common beginning of all keys.
const PREFIX: &[u8] = b"sim/";

/// Versions of one blindly written key, well below the node's limit.
const MAX_BLIND: usize = 20;

/// The clients of one life of a node.
pub struct Workload {
    network: Rc<Network>,
    model: Rc<RefCell<Model>>,
    rng: RefCell<Rng>,
    stop: Cell<bool>,
    running: Cell<usize>,
    /// Writes acknowledged, answers checked.
    pub acked: Cell<u64>,
}

/// A write on its way.
struct Pending {
    key: Vec<u8>,
    number: u64,
    value: Option<Vec<u8>>,
    context: Vec<u8>,
    head: RequestHead,
    token: [u8; TOKEN_BYTES],
    replies: Replies,
}

impl Pending {
    fn request(&self) -> Request<'_> {
        write_request(&self.key, &self.context, self.value.as_deref())
    }
}

fn write_request<'a>(key: &'a [u8], context: &'a [u8], value: Option<&'a [u8]>) -> Request<'a> {
    match value {
        Some(value) => Request::Put(Put { key, context, value }),
        None => Request::Delete(Delete { key, context }),
    }
}

impl Workload {
    /// Clients for a node that runs; keys and what is known of them live on in `model`.
    pub fn new(network: &Rc<Network>, model: &Rc<RefCell<Model>>, rng: Rng) -> Rc<Self> {
        Rc::new(Workload {
            network: Rc::clone(network),
            model: Rc::clone(model),
            rng: RefCell::new(rng),
            stop: Cell::new(false),
            running: Cell::new(0),
            acked: Cell::new(0),
        })
    }

    /// Starts a few workers, each with its own keys, and now and then a vandal.
    pub fn start(self: &Rc<Self>) {
        let workers = 1 + self.below(4);
        for worker in 0..workers {
            let keys = self.add_keys(worker);
            let this = Rc::clone(self);
            self.spawn(async move { this.work(keys).await });
        }
        if self.below(3) == 0 {
            let this = Rc::clone(self);
            self.spawn(async move { this.vandalise().await });
        }
    }

    /// Ends the clients after what they are at.
    pub async fn finish(&self) {
        self.stop.set(true);
        while self.running.get() > 0 {
            self.network.env().sleep(Duration::from_millis(1)).await;
        }
    }

    fn spawn(self: &Rc<Self>, task: impl Future<Output = ()> + 'static) {
        self.running.set(self.running.get() + 1);
        let this = Rc::clone(self);
        self.network.env().spawn(TaskClass::Foreground, async move {
            task.await;
            this.running.set(this.running.get() - 1);
        });
    }

    fn below(&self, bound: u64) -> u64 {
        self.rng.borrow_mut().below(bound)
    }

    fn index(&self, len: usize) -> usize {
        self.rng.borrow_mut().index(len)
    }

    async fn pause(&self, max_micros: u64) {
        let pause = Duration::from_micros(self.below(max_micros));
        self.network.env().sleep(pause).await;
    }

    fn add_keys(&self, worker: u64) -> Vec<Vec<u8>> {
        let count = 2 + self.below(12);
        let mut model = self.model.borrow_mut();
        (0..count)
            .map(|number| {
                let mode = [Mode::Replace, Mode::Context, Mode::Blind][(number % 3) as usize];
                let key = format!("sim/{worker}/{number:03}").into_bytes();
                model.add(key.clone(), mode);
                key
            })
            .collect()
    }

    /// A greeted connection, to a core of choice or to any. `None` when it broke on the way.
    pub async fn connect(&self) -> Option<Rc<Client>> {
        let client = Client::connect(&self.network);
        let wanted = match self.below(3) {
            0 => CoreId::ANY,
            _ => CoreId(u16::try_from(self.below(u64::from(self.network.cores()))).unwrap_or(0)),
        };
        client.hello(wanted).await?;
        Some(client)
    }

    async fn reconnect(&self) -> Rc<Client> {
        loop {
            match self.connect().await {
                Some(client) => return client,
                None => self.pause(500).await,
            }
        }
    }

    async fn work(self: Rc<Self>, keys: Vec<Vec<u8>>) {
        let mut client = self.reconnect().await;
        while !self.stop.get() {
            if self.below(60) == 0 || !client.is_open() {
                client.hang_up();
                client = self.reconnect().await;
            }
            match self.below(12) {
                0 => self.check_many(&client, &keys).await,
                1 => self.check_list(&client).await,
                2 => self.ask_small_things(&client, &keys).await,
                3..=5 => {
                    let key = keys[self.index(keys.len())].clone();
                    self.check_key(&client, &key).await;
                }
                _ => self.write_some(&mut client, &keys).await,
            }
            self.pause(400).await;
        }
    }

    /// Several writes of different keys at once, each answered and noted.
    async fn write_some(&self, client: &mut Rc<Client>, keys: &[Vec<u8>]) {
        let chosen: BTreeSet<usize> =
            (0..1 + self.below(6)).map(|_| self.index(keys.len())).collect();
        let sent: Vec<Pending> =
            chosen.into_iter().filter_map(|at| self.send_write(client, &keys[at])).collect();
        if self.below(40) == 0 {
            self.pause(300).await;
            client.hang_up();
        }
        for pending in sent {
            self.await_write(client, pending).await;
        }
    }

    fn send_write(&self, client: &Client, key: &[u8]) -> Option<Pending> {
        let mut model = self.model.borrow_mut();
        let number = model.issue();
        let known = model.key(key);
        let (mode, context) = (known.mode, known.context.clone());
        if mode == Mode::Blind && known.attempts() >= MAX_BLIND {
            return None;
        }
        let durable = self.below(2) == 0;
        let deletes = mode != Mode::Blind && self.below(5) == 0;
        let value = (!deletes).then(|| self.value(number));
        known.attempt(number, value.clone(), durable);
        let mut head = RequestHead::new(if deletes { Op::Delete } else { Op::Put }, 0);
        head.consistency = Consistency {
            durability: if durable { Durability::Durable } else { Durability::Buffered },
            lww: mode == Mode::Replace,
            ..Consistency::default()
        };
        let context = if mode == Mode::Context { context } else { Vec::new() };
        let mut token = [0; TOKEN_BYTES];
        token[..8].copy_from_slice(&number.to_le_bytes());
        let request = write_request(key, &context, value.as_deref());
        let replies = client.send(&request, &head, Some(&token));
        Some(Pending { key: key.to_vec(), number, value, context, head, token, replies })
    }

    fn value(&self, number: u64) -> Vec<u8> {
        let most = if self.below(20) == 0 { 5_000 } else { 200 };
        let mut value = format!("{number}:").into_bytes();
        let start = value.len();
        value.resize(start + self.index(most), 0);
        Rng::new(number).fill(&mut value[start..]);
        value
    }

    /// Waits for the answer of a write; a broken connection is followed by a retry on a new one,
    /// or by leaving the write in doubt.
    async fn await_write(&self, client: &mut Rc<Client>, mut pending: Pending) {
        loop {
            if let Some(reply) = pending.replies.recv().await {
                return self.note_answer(&pending, &reply);
            }
            if self.below(3) == 0 {
                return; // in doubt for ever
            }
            if !client.is_open() {
                *client = self.reconnect().await;
            }
            pending.head.flags = RequestFlags::RETRY;
            pending.replies = client.send(&pending.request(), &pending.head, Some(&pending.token));
        }
    }

    fn note_answer(&self, pending: &Pending, reply: &Reply) {
        let mut model = self.model.borrow_mut();
        let key = model.key(&pending.key);
        match reply.head.status {
            Status::Ok | Status::NotFound => {
                key.acked(pending.number);
                self.acked.set(self.acked.get() + 1);
                match Written::decode(&reply.body) {
                    Ok(written) => key.context = written.context.to_vec(),
                    Err(error) => panic!("answer to a write: {error}"),
                }
            }
            Status::Error(code) if code.possibly_applied() => {}
            // An earlier try of this very write may have been applied before this one was refused.
            Status::Error(_) if pending.head.flags.contains(RequestFlags::RETRY) => {}
            Status::Error(code) => {
                assert!(code.retryable(), "write refused for good: {code}");
                key.refused(pending.number);
            }
        }
    }

    /// Reads one key and checks the answer.
    pub async fn check_key(&self, client: &Client, key: &[u8]) {
        let head = RequestHead::new(Op::Get, 0);
        if let Some(reply) = client.call(&Request::Get { key }, &head, None).await
            && let Some((shown, context)) = versions(&reply)
        {
            let mut model = self.model.borrow_mut();
            let known = model.key(key);
            known.check(key, &shown);
            if self.below(2) == 0 && known.mode == Mode::Context {
                known.context = context;
            }
        }
    }

    async fn check_many(&self, client: &Client, keys: &[Vec<u8>]) {
        let mut list = KeyListBuf::new();
        assert!(keys.iter().all(|key| list.push(key)), "few keys fit in a list");
        let head = RequestHead::new(Op::MultiGet, 0);
        let mut replies = client.send(&Request::MultiGet(list.as_list()), &head, None);
        let mut answered = BTreeSet::new();
        loop {
            let Some(reply) = replies.recv().await else { return };
            if is_refusal(&reply) {
                return;
            }
            self.check_results(keys, &reply.body, &mut answered);
            if !reply.head.more() {
                break;
            }
        }
        assert_eq!(answered.len(), keys.len(), "keys answered by a multi-get");
    }

    fn check_results(&self, keys: &[Vec<u8>], body: &[u8], answered: &mut BTreeSet<u16>) {
        let results = match MultiResults::decode(body) {
            Ok(results) => results,
            Err(error) => panic!("answer to a multi-get: {error}"),
        };
        for entry in results {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => panic!("result of a multi-get: {error}"),
            };
            assert!(answered.insert(entry.index), "key {} is answered twice", entry.index);
            let key = &keys[usize::from(entry.index)];
            match entry.result {
                Ok(found) => self.model.borrow_mut().key(key).check(key, &values(&found)),
                Err(code) => assert!(code.retryable(), "a key of a multi-get: {code}"),
            }
        }
    }

    /// Lists everything; `None` when the connection broke or the node refused.
    pub async fn list(&self, client: &Client) -> Option<BTreeSet<Vec<u8>>> {
        let mut found = BTreeSet::new();
        let mut cursor = Vec::new();
        loop {
            let list = ListRequest {
                page_limit: 1 + u32::try_from(self.below(20)).unwrap_or(0),
                credit: 1 + u16::try_from(self.below(4)).unwrap_or(0),
                prefix: PREFIX,
                cursor: &cursor,
            };
            let mut replies =
                client.send(&Request::List(list), &RequestHead::new(Op::List, 0), None);
            let next = loop {
                let reply = replies.recv().await?;
                if is_refusal(&reply) {
                    return None;
                }
                let page = match ListPage::decode(&reply.body) {
                    Ok(page) => page,
                    Err(error) => panic!("page of a listing: {error}"),
                };
                for entry in page.entries() {
                    let name = String::from_utf8_lossy(entry.key).into_owned();
                    assert!(entry.key.starts_with(PREFIX), "{name} does not have the prefix");
                    assert!(entry.versions > 0, "{name} is listed without a version");
                    assert!(found.insert(entry.key.to_vec()), "{name} is listed twice");
                }
                if !reply.head.more() {
                    break page.cursor().to_vec();
                }
            };
            if next.is_empty() {
                return Some(found);
            }
            cursor = next;
        }
    }

    async fn check_list(&self, client: &Client) {
        let sure: Vec<Vec<u8>> = {
            let model = self.model.borrow();
            let keys = model.keys.iter().filter(|(_, known)| known.mode == Mode::Blind);
            keys.filter(|(_, known)| known.surely_present()).map(|(key, _)| key.clone()).collect()
        };
        if let Some(found) = self.list(client).await {
            for key in sure {
                let name = String::from_utf8_lossy(&key).into_owned();
                assert!(found.contains(&key), "{name} is missing from the listing");
            }
        }
    }

    async fn ask_small_things(&self, client: &Client, keys: &[Vec<u8>]) {
        let key = &keys[self.index(keys.len())];
        let ping = Request::Ping(b"are you there");
        for request in [ping, Request::Stats, Request::Route { key }] {
            let head = RequestHead::new(request.op(), 0);
            if let Some(reply) = client.call(&request, &head, None).await {
                assert!(!matches!(reply.head.status, Status::NotFound), "{}", request.op());
                if let Request::Ping(bytes) = request {
                    assert_eq!(reply.body, bytes);
                }
            }
        }
    }

    /// Connections that speak nonsense or stop in the middle: the node must not care.
    async fn vandalise(self: Rc<Self>) {
        while !self.stop.get() {
            let client = Client::connect(&self.network);
            let mut bytes = Vec::new();
            let greeting = Request::Get { key: b"sim/vandal" };
            greeting.encode(&RequestHead::new(Op::Get, 0), None, &mut bytes);
            match self.below(3) {
                0 => bytes.truncate(self.index(bytes.len())),
                1 => {
                    let at = self.index(bytes.len());
                    bytes[at] ^= 1 << self.below(8);
                }
                _ => self.rng.borrow_mut().fill(&mut bytes),
            }
            client.send_garbage(bytes);
            self.pause(2_000).await;
        }
    }

    /// Reads and lists everything after a restart; what is found is the truth from now on.
    ///
    /// # Panics
    /// When anything acknowledged is missing, anything is there that nobody wrote, or listing and
    /// reading differ.
    pub async fn check_everything(&self) {
        let client = self.reconnect().await;
        let keys: Vec<Vec<u8>> = self.model.borrow().keys.keys().cloned().collect();
        let mut present = BTreeSet::new();
        for key in keys {
            let head = RequestHead::new(Op::Get, 0);
            let (shown, context) = loop {
                let reply = client.call(&Request::Get { key: &key }, &head, None).await;
                match reply.as_ref().and_then(versions) {
                    Some(answer) => break answer,
                    None => assert!(client.is_open(), "an idle connection broke"),
                }
                self.pause(1_000).await;
            };
            self.model.borrow_mut().key(&key).recovered(&key, &shown, &context);
            if !shown.is_empty() {
                present.insert(key);
            }
        }
        let listed = loop {
            match self.list(&client).await {
                Some(listed) => break listed,
                None => self.pause(1_000).await,
            }
        };
        assert_eq!(listed, present, "listing and reading differ");
    }
}

fn is_refusal(reply: &Reply) -> bool {
    match reply.head.status {
        Status::Ok | Status::NotFound => false,
        Status::Error(code) => {
            assert!(code.retryable(), "read refused: {code}");
            true
        }
    }
}

fn values(versions: &Versions<'_>) -> Vec<Vec<u8>> {
    let alive = versions.iter().filter(|version| !version.tombstone);
    alive.map(|version| version.value.to_vec()).collect()
}

/// Values and context of a GET's answer; `None` when the node refused for now.
fn versions(reply: &Reply) -> Option<(Vec<Vec<u8>>, Vec<u8>)> {
    if is_refusal(reply) {
        return None;
    }
    match Versions::decode(&reply.body) {
        Ok(found) => {
            let shown = values(&found);
            assert_eq!(shown.is_empty(), reply.head.status == Status::NotFound, "status of a GET");
            Some((shown, found.context().to_vec()))
        }
        Err(error) => panic!("answer to a GET: {error}"),
    }
}
