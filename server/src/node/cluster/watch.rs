//! The time limit of links: one on which the other side works nothing off is given up.
//!
//! A node is held for alive as long as anything comes from it. That does not show that what is
//! sent to it arrives: the way there may be cut, its connection stalled, its reading stuck. What
//! shows it is credit. Asks are worked off when a data core has answered them, which may take
//! long; so a node that owes credit is first sent a message that its control core works off at
//! once.

use std::time::Duration;

use coronet_lsm::env::Nanos;
use coronet_ring::NodeId;

use super::link::Role;
use super::links::{LinkEvent, Links};
use crate::node::ConnId;

/// Without credit for so long, the other side is asked for a sign.
const QUIET: Duration = Duration::from_secs(2);
/// Without credit for so long, the link is given up: its asks fail, it is dialed anew.
const STUCK: Duration = Duration::from_secs(5);
/// Between two ticks that are so far apart this node itself stood still.
const STOOD_STILL: Duration = Duration::from_millis(500);

impl Links {
    /// Ends links that are stuck. Called with every tick.
    pub(super) fn watch(&mut self, now: Nanos) {
        let gap = now.since(self.last_tick.replace(now).unwrap_or(now));
        let still = if gap > STOOD_STILL { gap } else { Duration::ZERO };
        let mut stuck = Vec::new();
        for (node, conn) in &self.up {
            let Some(link) = self.links.get_mut(conn) else { continue };
            let owes = link.sent > link.credited;
            link.moved = link.moved.after(still);
            if std::mem::take(&mut link.moving) || !owes {
                (link.moved, link.told_quiet) = (now, false);
            }
            let silence = now.since(link.moved);
            if silence >= STUCK {
                stuck.push((*node, silence));
            } else if silence >= QUIET && !std::mem::replace(&mut link.told_quiet, true) {
                self.events.push_back(LinkEvent::Quiet(*node));
            }
        }
        for (node, silence) in stuck {
            let seconds = silence.as_secs();
            let text = format!("node {node} has worked nothing off for {seconds} s: linking anew");
            self.events.push_back(LinkEvent::Trouble(text));
            self.abandon(node);
        }
    }

    /// Ends the link this node sends to another on, so that it is dialed anew.
    pub(super) fn reset(&mut self, node: NodeId) {
        if let Some(conn) = self.up.get(&node).copied() {
            self.close(conn);
        }
    }

    /// Gives the link up that this node sends to another on. Does not wait for the connection's
    /// end: what stands in its buffers may never leave.
    fn abandon(&mut self, node: NodeId) {
        let Some(conn) = self.up.remove(&node) else { return };
        self.events.push_back(LinkEvent::Down(node));
        self.free_target(conn);
        self.close(conn);
    }

    /// Lets the address of a link be dialed again.
    pub(super) fn free_target(&mut self, conn: ConnId) {
        let Some(link) = self.links.get(&conn) else { return };
        if let Role::Sends(address) = &link.role
            && let Some(target) = self.targets.get_mut(address)
            && target.conn == Some(conn)
        {
            target.conn = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use coronet_net::peer::{Greeting, PeerMessage};
    use coronet_ring::coordinate::message::Answer;
    use coronet_ring::{Epoch, Incarnation};

    use super::*;
    use crate::node::Door;
    use crate::node::cluster::links::Dial;

    const HERE: NodeId = NodeId(1);
    const THERE: NodeId = NodeId(2);
    const TICK: Duration = Duration::from_millis(50);

    /// This node's links and those of the node it sends to.
    struct Pair {
        now: Nanos,
        here: Links,
        there: Links,
        conn: ConnId,
        /// What is to be dialed.
        dials: Vec<Dial>,
    }

    fn links(node: NodeId) -> Links {
        Links::new(Greeting::new(7, node, Incarnation(1), Epoch(1)))
    }

    impl Pair {
        fn new() -> Self {
            let (now, conn) = (Nanos(1), ConnId(0));
            let (here, there) = (links(HERE), links(THERE));
            let mut pair = Pair { now, here, there, conn, dials: Vec::new() };
            pair.here.reach("127.0.0.1:1", now);
            pair.dials = pair.here.tick(now, 0);
            pair.link();
            pair
        }

        /// What was dialed is connected, and both sides greet.
        fn link(&mut self) {
            let dial = self.dials.pop().expect("something is dialed");
            self.conn = ConnId(self.conn.0 + 1);
            self.there.connect(self.conn, Door::Peers, self.now);
            self.here.connect(self.conn, Door::Dialed(dial.ticket), self.now);
            self.carry();
            assert!(matches!(self.here.events.pop_front(), Some(LinkEvent::Up(THERE))));
        }

        /// Carries everything both ways.
        fn carry(&mut self) {
            for _ in 0..4 {
                let mut bytes = Vec::new();
                self.here.take_output(self.conn, &mut bytes);
                self.there.receive(self.conn, &bytes);
                bytes.clear();
                self.there.take_output(self.conn, &mut bytes);
                self.here.receive(self.conn, &bytes);
            }
        }

        fn ask(&mut self) {
            let message = PeerMessage::Answer { ticket: 1, answer: Answer::Stored };
            assert!(self.here.send(THERE, &message));
        }

        /// Works off what the other node has read.
        fn work_off(&mut self) {
            while let Some(event) = self.there.events.pop_front() {
                if let LinkEvent::Message(from, _, bytes) = event {
                    self.there.worked_off(from, bytes);
                }
            }
        }

        /// Ticks for a time; what happened here.
        fn pass(&mut self, time: Duration, carries: bool, works: bool) -> Vec<LinkEvent> {
            let end = self.now.after(time);
            while self.now < end {
                self.now = self.now.after(TICK);
                self.dials.extend(self.here.tick(self.now, 0));
                self.there.tick(self.now, 0);
                if carries {
                    self.carry();
                }
                if works {
                    self.work_off();
                }
            }
            self.here.events.drain(..).collect()
        }
    }

    fn is_down(events: &[LinkEvent]) -> bool {
        events.iter().any(|event| matches!(event, LinkEvent::Down(THERE)))
    }

    #[test]
    fn a_link_whose_bytes_do_not_arrive_is_given_up_and_dialed_anew() {
        let mut pair = Pair::new();
        pair.ask();
        let quiet = pair.pass(QUIET + TICK, false, true);
        assert!(quiet.iter().any(|event| matches!(event, LinkEvent::Quiet(THERE))), "{quiet:?}");
        assert!(pair.here.sends_to(THERE) && !is_down(&quiet));
        assert!(!is_down(&pair.pass(STUCK - QUIET - TICK * 3, false, true)), "no sooner than said");
        assert!(is_down(&pair.pass(TICK * 3, false, true)));
        assert!(!pair.here.send(THERE, &PeerMessage::Gossip(Vec::new())), "no link, no message");
        // The old connection still stands; a new one gets through and works.
        let old = pair.conn;
        pair.link();
        pair.here.disconnect(old);
        assert!(pair.here.sends_to(THERE), "the old connection's end is not the new link's");
        pair.ask();
        assert!(!is_down(&pair.pass(STUCK * 2, true, true)));
    }

    #[test]
    fn a_link_with_nothing_to_say_or_slow_asks_is_left_alone() {
        let mut pair = Pair::new();
        assert!(pair.pass(STUCK * 3, true, true).is_empty(), "nothing was sent");
        // One ask that nobody works off, and something else now and then that is.
        pair.ask();
        pair.pass(TICK, true, false);
        pair.there.events.clear();
        for _ in 0..4 {
            let events = pair.pass(QUIET + TICK, true, true);
            assert!(events.iter().any(|event| matches!(event, LinkEvent::Quiet(_))), "{events:?}");
            pair.ask();
            assert!(!is_down(&pair.pass(TICK * 4, true, true)));
        }
    }

    #[test]
    fn time_in_which_this_node_stood_still_does_not_count() {
        let mut pair = Pair::new();
        pair.ask();
        pair.pass(TICK, false, true);
        pair.now = pair.now.after(STUCK * 4);
        assert!(!is_down(&pair.pass(TICK, false, true)));
        assert!(!is_down(&pair.pass(TICK, true, true)));
    }
}
