//! The beginning of a link: both sides say who they are, and whether they go on.

use coronet_net::peer::{FrameKind, Greeting, Refused};
use coronet_ring::NodeId;

use super::link::Role;
use super::links::{FIRST_PAUSE, LONGEST_PAUSE, LinkEvent, Links};
use crate::node::ConnId;

impl Links {
    /// The node that dialed says who it is.
    pub(super) fn greeted_by_dialer(&mut self, conn: ConnId, body: &[u8]) {
        let greeting = self.greeting;
        let known = Greeting::decode(body).ok_or(Refused::Unreadable);
        let accepted = known.and_then(|other| greeting.accepts(&other).map(|()| other));
        let Some(link) = self.links.get_mut(&conn) else { return };
        match accepted {
            Ok(other) => {
                link.node = Some(other.node);
                link.frame(FrameKind::Greeting, |into| greeting.write(into));
                self.mark(conn);
                // An older link of the same node is a leftover: answers on it may be lost.
                if let Some(old) = self.reads.insert(other.node, conn) {
                    self.close(old);
                    self.owed.remove(&other.node);
                    self.events.push_back(LinkEvent::Unheard(other.node));
                }
                self.events.push_back(LinkEvent::Heard(other.node));
            }
            Err(refused) => {
                link.frame(FrameKind::Refused, |into| into.push(refused as u8));
                self.close(conn);
            }
        }
    }

    /// The node that was dialed says who it is.
    pub(super) fn answered(&mut self, conn: ConnId, body: &[u8]) {
        let Some(link) = self.links.get_mut(&conn) else { return };
        let Role::Sends(address) = &link.role else { return };
        let address = address.clone();
        let known = Greeting::decode(body).ok_or(Refused::Unreadable);
        match known.and_then(|other| self.greeting.accepts(&other).map(|()| other)) {
            Ok(other) => {
                link.node = Some(other.node);
                if let Some(target) = self.targets.get_mut(&address) {
                    (target.node, target.pause) = (Some(other.node), FIRST_PAUSE);
                    target.complained = false;
                }
                // Two addresses of one node: the later link is the better one.
                let old = self.up.insert(other.node, conn);
                match old {
                    Some(old) => {
                        self.close(old);
                        self.answers_twice(other.node, old, &address);
                    }
                    None => self.events.push_back(LinkEvent::Up(other.node)),
                }
                for answer in self.owed.remove(&other.node).unwrap_or_default() {
                    self.send(other.node, &answer);
                }
            }
            Err(refused) => {
                self.complain(&address, refused);
                self.close(conn);
            }
        }
    }

    /// A node answers at the address of the link `old` and at another one: either it has moved, or
    /// there are two of it. The earlier address is left alone for a while.
    fn answers_twice(&mut self, node: NodeId, old: ConnId, address: &str) {
        let Some(Role::Sends(earlier)) = self.links.get(&old).map(|link| &link.role) else {
            return;
        };
        let Some(target) = self.targets.get_mut(earlier).filter(|_| earlier != address) else {
            return;
        };
        target.next_try = self.last_tick.unwrap_or_default().after(LONGEST_PAUSE);
        if !std::mem::replace(&mut target.told_twice, true) {
            let text = format!(
                "node {node} answers at {earlier} and at {address}: unless it has just moved, one \
                 was started on a copy of the other's data folder, and must be stopped"
            );
            self.events.push_back(LinkEvent::Trouble(text));
        }
    }

    pub(super) fn complain(&mut self, address: &str, refused: Refused) {
        let Some(target) = self.targets.get_mut(address) else { return };
        if !std::mem::replace(&mut target.complained, true) {
            self.events.push_back(LinkEvent::Trouble(format!("peer {address}: {refused}")));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use coronet_lsm::env::Nanos;
    use coronet_ring::{Epoch, Incarnation};

    use super::*;
    use crate::node::Door;

    fn links(cluster: u64, node: u128) -> Links {
        Links::new(Greeting::new(cluster, NodeId(node), Incarnation(1), Epoch(1)))
    }

    /// Dials an address and lets `there` answer; returns what is told about it.
    fn meet(here: &mut Links, there: &mut Links, conn: u64, address: &str) -> Vec<String> {
        let (now, conn) = (Nanos(1), ConnId(conn));
        here.reach(address, now);
        let dialed = here.tick(now, 0).into_iter().find(|dial| dial.address.to_string() == address);
        here.connect(conn, Door::Dialed(dialed.expect("it is dialed").ticket), now);
        there.connect(conn, Door::Peers, now);
        let mut bytes = Vec::new();
        here.take_output(conn, &mut bytes);
        there.receive(conn, &bytes);
        bytes.clear();
        there.take_output(conn, &mut bytes);
        here.receive(conn, &bytes);
        troubles(here)
    }

    fn troubles(links: &mut Links) -> Vec<String> {
        let told = links.events.drain(..).filter_map(|event| match event {
            LinkEvent::Trouble(text) => Some(text),
            _ => None,
        });
        told.collect()
    }

    #[test]
    fn what_an_operator_did_wrong_is_told_once_and_says_where() {
        let mut here = links(7, 1);
        let told = meet(&mut here, &mut links(8, 2), 1, "127.0.0.1:2");
        assert!(told[0].contains("127.0.0.1:2") && told[0].contains("cluster.nodes"), "{told:?}");
        let told = meet(&mut here, &mut links(7, 1), 2, "127.0.0.1:3");
        assert!(told[0].contains("127.0.0.1:3") && told[0].contains("data folder"), "{told:?}");
        assert!(meet(&mut here, &mut links(7, 4), 3, "127.0.0.1:4").is_empty());
        let told = meet(&mut here, &mut links(7, 4), 4, "127.0.0.1:5");
        assert!(told[0].contains("127.0.0.1:4 and at 127.0.0.1:5"), "{told:?}");
        // The earlier address is let go of, and not dialed again at once.
        here.disconnect(ConnId(3));
        assert!(here.sends_to(NodeId(4)));
        assert!(here.tick(Nanos(2), 0).is_empty());
    }

    #[test]
    fn an_address_where_nobody_is_is_told_once() {
        let (mut here, mut now) = (links(7, 1), Nanos(1));
        here.reach("127.0.0.1:9", now);
        let mut told = Vec::new();
        for _ in 0..400 {
            now = now.after(Duration::from_millis(50));
            here.tick(now, 0).into_iter().for_each(|dial| here.dial_failed(dial.ticket));
            told.extend(troubles(&mut here));
        }
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains("127.0.0.1:9: not reached"), "{told:?}");
    }
}
