//! One node as a client reaches it: its address, its layout, a connection per core, and whether
//! it seems to be of use.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use coronet_ring::{CoreId, NodeId, PartitionId, PartitionMap, key_hash};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::address::Address;
use super::builder::Builder;
use super::call::Target;
use super::layout::Layout;
use super::link::Link;
use super::topology::Topology;
use super::{ClientError, lock};
use crate::codec::{ErrorReply, Hello, Request, TopologyReply};
use crate::error::{ErrorCode, Status};
use crate::frame::RequestHead;

/// How long a node that failed is passed over while there are others.
const SHUNNED: Duration = Duration::from_secs(1);

/// The connection to one core, if any, and who may open it.
#[derive(Debug, Default)]
struct Slot {
    link: Mutex<Option<Arc<Link>>>,
    opening: tokio::sync::Mutex<()>,
}

impl Slot {
    fn open_link(&self) -> Option<Arc<Link>> {
        lock(&self.link).as_ref().filter(|link| link.is_open()).cloned()
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Node {
    pub id: NodeId,
    pub address: Address,
    /// Data cores as the cluster tells, for the time before the first connection.
    cores: u16,
    /// Part of a cluster: whoever answers at its address must be this very node, for another one
    /// may belong to another cluster. A node alone may come back as another.
    pub member: AtomicBool,
    layout: Mutex<Option<Arc<Layout>>>,
    slots: Mutex<HashMap<CoreId, Arc<Slot>>>,
    shunned_until: Mutex<Option<Instant>>,
}

impl Node {
    /// A member of a cluster, not connected to yet.
    pub fn member(id: NodeId, address: Address, cores: u16) -> Self {
        let (layout, slots) = (Mutex::default(), Mutex::default());
        let member = AtomicBool::new(true);
        Self { id, address, cores, member, layout, slots, shunned_until: Mutex::default() }
    }

    /// Connects to whatever node is at the address.
    pub async fn connect(
        settings: &Builder,
        address: Address,
    ) -> Result<(Self, Arc<Layout>), ClientError> {
        let deadline = Instant::now() + settings.connect_timeout;
        let (link, layout, core) =
            open_link(settings, &address, address.port, CoreId::ANY, deadline).await?;
        // Whichever core it came to: that core needs no other connection.
        let slot = Slot { link: Mutex::new(Some(Arc::new(link))), ..Slot::default() };
        let layout = Arc::new(layout);
        let node = Self {
            id: layout.node_id(),
            address,
            cores: layout.cores(),
            member: AtomicBool::new(false),
            layout: Mutex::new(Some(Arc::clone(&layout))),
            slots: Mutex::new(HashMap::from([(core, Arc::new(slot))])),
            shunned_until: Mutex::default(),
        };
        Ok((node, layout))
    }

    /// What the node said of itself when it was connected to last.
    pub fn layout(&self) -> Option<Arc<Layout>> {
        lock(&self.layout).clone()
    }

    /// The node failed: others are tried before it for a while.
    pub fn shun(&self) {
        *lock(&self.shunned_until) = Some(Instant::now() + SHUNNED);
    }

    /// Whether the node failed a short while ago.
    pub fn is_shunned(&self) -> bool {
        lock(&self.shunned_until).is_some_and(|until| Instant::now() < until)
    }

    /// Whether there is a connection.
    pub fn is_connected(&self) -> bool {
        lock(&self.slots).values().any(|slot| slot.open_link().is_some())
    }

    /// The partition of a target and the core of this node that owns it. `partitions` counts
    /// while the node was not connected to yet.
    pub fn place(&self, target: Target<'_>, partitions: Option<u32>) -> (PartitionId, CoreId) {
        let told = || PartitionMap::new(partitions?, self.cores.max(1)).ok();
        let map = self.layout().map(|layout| layout.map()).or_else(told);
        match (target, map) {
            (Target::Core(core), _) => (PartitionId::NONE, core),
            (Target::Key(key), Some(map)) => {
                let partition = map.partition_of_hash(key_hash(key));
                (partition, map.core_of(partition))
            }
            (Target::Partition(partition), Some(map)) => (partition, map.core_of(partition)),
            (Target::Key(_), None) => (PartitionId::NONE, CoreId::ANY),
            (Target::Partition(partition), None) => (partition, CoreId::ANY),
        }
    }

    /// The open connection to a core; opens one when there is none. Whoever comes while it is
    /// being opened waits for the same one.
    pub async fn link(
        &self,
        settings: &Builder,
        core: CoreId,
        deadline: Instant,
    ) -> Result<Arc<Link>, ClientError> {
        let slot = Arc::clone(lock(&self.slots).entry(core).or_default());
        if let Some(link) = slot.open_link() {
            return Ok(link);
        }
        let timed_out = |_| ClientError::Timeout { possibly_applied: false };
        let _opening = timeout_at(deadline, slot.opening.lock()).await.map_err(timed_out)?;
        if let Some(link) = slot.open_link() {
            return Ok(link);
        }
        let deadline = deadline.min(Instant::now() + settings.connect_timeout);
        let named = self.address.port;
        let port = self.layout().map_or(named, |layout| layout.port_of(core, named));
        let (link, layout, _) = open_link(settings, &self.address, port, core, deadline).await?;
        if self.member.load(Ordering::Relaxed) && layout.node_id() != self.id {
            let found = std::io::Error::other(format!("node {} is there", layout.node_id()));
            return Err(connect_error(&self.address, port, found));
        }
        *lock(&self.layout) = Some(Arc::new(layout));
        *lock(&self.shunned_until) = None;
        let link = Arc::new(link);
        *lock(&slot.link) = Some(Arc::clone(&link));
        Ok(link)
    }

    /// Asks for the cluster's topology; `None` when the node is in no cluster.
    pub async fn topology(&self, settings: &Builder) -> Result<Option<Topology>, ClientError> {
        let deadline = Instant::now() + settings.connect_timeout;
        let open = lock(&self.slots).values().find_map(|slot| slot.open_link());
        let link = match open {
            Some(link) => link,
            None => self.link(settings, CoreId(0), deadline).await?,
        };
        let time = u32::try_from(settings.connect_timeout.as_micros()).unwrap_or(u32::MAX);
        let mut queued = false;
        let asked = link.call(&mut queued, |id, out| {
            let request = Request::Topology;
            let mut head = RequestHead::new(request.op(), id);
            head.deadline_us = time.max(1);
            request.encode(&head, None, out);
        });
        let replies = match timeout_at(deadline, asked).await {
            Ok(Ok(replies)) => replies,
            Ok(Err(_)) => return Err(ClientError::Lost { possibly_applied: false }),
            Err(_) => return Err(ClientError::Timeout { possibly_applied: false }),
        };
        let reply = replies.last;
        match reply.head.status {
            Status::Error(ErrorCode::Unsupported | ErrorCode::UnknownOp) => Ok(None),
            Status::Error(code) => {
                let text = ErrorReply::decode(&reply.body).unwrap_or_default().text.to_owned();
                Err(ClientError::Server { code, text, possibly_applied: false })
            }
            _ => Topology::new(TopologyReply::decode(&reply.body)?).map(Some),
        }
    }
}

fn connect_error(address: &Address, port: u16, source: std::io::Error) -> ClientError {
    ClientError::Connect {
        address: format!("{}:{port}", address.host),
        source: Arc::new(source),
        possibly_applied: false,
    }
}

/// Opens a connection, asking for a core; returns the layout and the core that serves it.
async fn open_link(
    settings: &Builder,
    address: &Address,
    port: u16,
    core: CoreId,
    deadline: Instant,
) -> Result<(Link, Layout, CoreId), ClientError> {
    let failed = |source: std::io::Error| connect_error(address, port, source);
    let opening = async {
        let stream = TcpStream::connect((address.host.as_str(), port)).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let hello = Hello::new(core, &settings.name);
        let (link, reply) = Link::open(stream, &hello, settings.in_flight).await?;
        Ok((link, Layout::new(&reply)?, reply.core))
    };
    match timeout_at(deadline, opening).await {
        Ok(opened) => opened,
        Err(_) => Err(failed(std::io::ErrorKind::TimedOut.into())),
    }
}
