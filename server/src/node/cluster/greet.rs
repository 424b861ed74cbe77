//! The beginning of a link: both sides say who they are, and whether they go on.

use coronet_net::peer::{FrameKind, Greeting, Refused};

use super::link::Role;
use super::links::{FIRST_PAUSE, LinkEvent, Links};
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
                    Some(old) => self.close(old),
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

    pub(super) fn complain(&mut self, address: &str, refused: Refused) {
        let Some(target) = self.targets.get_mut(address) else { return };
        if !std::mem::replace(&mut target.complained, true) {
            self.events.push_back(LinkEvent::Trouble(format!("peer {address}: {refused}")));
        }
    }
}
