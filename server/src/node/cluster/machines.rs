//! Driving the machines: what they are told, and what they want done.

use std::collections::VecDeque;

use coronet_ring::coordinate::Effect;
use coronet_ring::coordinate::quorum::Outcome;

use super::State;
use super::asks::Asking;
use super::members::PlacementNow;
use super::requests::{Input, Purpose, ReplyTo, merge_ask, partition_of};
use crate::node::NodeEnv;

impl<E: NodeEnv> State<E> {
    /// Does what a machine wants done, and what follows from it.
    pub(super) fn carry_out(&mut self, id: u64, effects: Vec<Effect>) {
        let mut waiting = VecDeque::from(effects);
        while let Some(effect) = waiting.pop_front() {
            match effect {
                Effect::Send { to, ask } => {
                    let Some(running) = self.requests.get(id) else { continue };
                    let partition = partition_of(running);
                    let (key, deadline) = (running.key.clone(), Some(running.deadline));
                    let purpose = Purpose::Request { id, partition };
                    let keyspace = running.space.id;
                    let asking = Asking { keyspace, partition, key, deadline, ask };
                    if !self.ask(to, asking, purpose) {
                        let mut more = Vec::new();
                        self.feed(id, Input::Failed(to), &mut more);
                        waiting.extend(more);
                    }
                }
                Effect::Reply(outcome) => self.reply(id, outcome),
                Effect::Repair { to, object } => {
                    let Some(running) = self.requests.get(id) else { continue };
                    let asking = Asking::background(running, merge_ask(object, None));
                    self.ask(to, asking, Purpose::Repair);
                }
                Effect::Hint { target, object } => {
                    let Some(running) = self.requests.get(id) else { continue };
                    let asking = Asking::background(running, merge_ask(object, Some(target)));
                    self.ask(self.config.me.id, asking, Purpose::Repair);
                }
                Effect::Done => self.requests.finish(id),
            }
        }
    }

    fn reply(&mut self, id: u64, outcome: Outcome) {
        let Some(running) = self.requests.get(id) else { return };
        let (secret, epoch, now) = (self.config.secret, self.members.epoch(), self.env.now());
        match running.reply_to.clone() {
            ReplyTo::Client(client, view) => {
                let partitions = self.map.partitions();
                let frames = client.reply(&outcome, &view, secret, partitions, epoch, now);
                self.send_reply(&client, frames);
            }
            ReplyTo::Part(number, index) => {
                let Some(gather) = self.gathers.get_mut(&number) else { return };
                gather.add(index, outcome);
                if gather.is_complete()
                    && let Some(gather) = self.gathers.remove(&number)
                {
                    let budget = self.config.limits.max_reply as usize;
                    let frames = gather.reply(secret, budget, epoch, now);
                    self.send_reply(gather.client(), frames);
                }
            }
        }
    }

    pub(super) fn feed(&mut self, id: u64, input: Input, effects: &mut Vec<Effect>) {
        let now = self.env.now();
        let Some(running) = self.requests.get(id) else { return };
        let placement = PlacementNow { members: &self.members, n: running.space.n };
        self.requests.feed(id, input, &placement, now, effects);
    }

    pub(super) fn tick_requests(&mut self) {
        for id in self.requests.due(self.env.now()) {
            let mut effects = Vec::new();
            self.feed(id, Input::Tick, &mut effects);
            self.carry_out(id, effects);
        }
    }
}
