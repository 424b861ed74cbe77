//! What runs on one core: a shard, the control core, or both.

use super::{Cluster, ConnId, Control, CoreMessage, Door, NodeEnv, OutputState, Shard};

/// One core of a node as its shell drives it. Cheap to clone.
pub struct NodeCore<E: NodeEnv> {
    shard: Option<Shard<E>>,
    control: Option<Control<E>>,
}

impl<E: NodeEnv> Clone for NodeCore<E> {
    fn clone(&self) -> Self {
        NodeCore { shard: self.shard.clone(), control: self.control.clone() }
    }
}

impl<E: NodeEnv> NodeCore<E> {
    /// A core with what it runs. Only cores with a shard get connections.
    pub fn new(shard: Option<Shard<E>>, control: Option<Control<E>>) -> Self {
        NodeCore { shard, control }
    }

    /// The shard, when the core has one.
    pub fn shard(&self) -> Option<&Shard<E>> {
        self.shard.as_ref()
    }

    /// A connection is there: a client's for the shard, a node's for the cluster.
    pub fn connect(&self, conn: ConnId, door: Door) {
        match (door, self.cluster()) {
            (Door::Clients, _) => drop(self.with_shard(|shard| shard.connect(conn))),
            (Door::Peers | Door::Dialed(_), Some(cluster)) => cluster.connect(conn, door),
            (Door::Peers | Door::Dialed(_), None) => {}
        }
    }

    /// See [`Cluster::dial_failed`].
    pub fn dial_failed(&self, ticket: u64) {
        if let Some(cluster) = self.cluster() {
            cluster.dial_failed(ticket);
        }
    }

    /// See [`Shard::receive`] and [`Cluster::receive`].
    pub fn receive(&self, conn: ConnId, bytes: &[u8]) {
        match self.cluster_of(conn) {
            Some(cluster) => cluster.receive(conn, bytes),
            None => drop(self.with_shard(|shard| shard.receive(conn, bytes))),
        }
    }

    /// See [`Shard::end_of_input`].
    pub fn end_of_input(&self, conn: ConnId) {
        match self.cluster_of(conn) {
            Some(cluster) => cluster.end(conn),
            None => drop(self.with_shard(|shard| shard.end_of_input(conn))),
        }
    }

    /// See [`Shard::disconnect`] and [`Cluster::disconnect`].
    pub fn disconnect(&self, conn: ConnId) {
        match self.cluster_of(conn) {
            Some(cluster) => cluster.disconnect(conn),
            None => drop(self.with_shard(|shard| shard.disconnect(conn))),
        }
    }

    /// See [`Shard::release`].
    pub fn release(&self, conn: ConnId) -> Vec<u8> {
        self.with_shard(|shard| shard.release(conn)).unwrap_or_default()
    }

    /// A message for this core or the control core on it.
    pub fn core_message(&self, message: CoreMessage) {
        match (message, &self.control) {
            (CoreMessage::Control(message), Some(control)) => control.message(message),
            (message, _) => {
                self.with_shard(|shard| shard.core_message(message));
            }
        }
    }

    /// See [`Shard::next_dirty`].
    pub fn next_dirty(&self) -> Option<ConnId> {
        let link = self.cluster().and_then(Cluster::next_dirty);
        link.or_else(|| self.with_shard(Shard::next_dirty).flatten())
    }

    /// See [`Shard::take_output`]. A connection on a core without shard is closed.
    pub fn take_output(&self, conn: ConnId, into: &mut Vec<u8>) -> OutputState {
        if let Some(cluster) = self.cluster_of(conn) {
            return cluster.take_output(conn, into);
        }
        let closed = OutputState { close_after: true, ..OutputState::default() };
        self.with_shard(|shard| shard.take_output(conn, into)).unwrap_or(closed)
    }

    /// See [`Shard::tick`] and [`Control::tick`].
    pub fn tick(&self) {
        self.with_shard(Shard::tick);
        if let Some(control) = &self.control {
            control.tick();
        }
    }

    /// See [`Shard::drain`].
    pub fn drain(&self) {
        self.with_shard(Shard::drain);
    }

    /// See [`Shard::in_flight`].
    pub fn in_flight(&self) -> usize {
        let coordinated = self.cluster().map_or(0, Cluster::in_flight);
        self.with_shard(Shard::in_flight).unwrap_or(0) + coordinated
    }

    /// The node's part in its cluster, on the control core of a node that has one.
    pub fn cluster(&self) -> Option<&Cluster<E>> {
        self.control.as_ref().and_then(Control::cluster)
    }

    /// The cluster, if the connection is a link of it.
    fn cluster_of(&self, conn: ConnId) -> Option<&Cluster<E>> {
        self.cluster().filter(|cluster| cluster.has(conn))
    }

    fn with_shard<R>(&self, act: impl FnOnce(&Shard<E>) -> R) -> Option<R> {
        self.shard.as_ref().map(act)
    }
}
