//! What an operator asks of a node, on its way from the core that was asked over the control core
//! to all data cores and back.

use std::collections::BTreeMap;

use coronet_net::codec::{Admin, StatsReply};
use coronet_net::{ErrorCode, FrameWriter, Op, ReplyHead, Status};
use coronet_ring::CoreId;

use super::CoreMessage;
use super::keyspaces::Asker;
use super::shard::error_frame;

/// What one core does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminTask {
    /// The scrub's rate, bytes per second of the whole node.
    ScrubRate(u64),
    /// A new pass of the scrub.
    ScrubNow,
    /// Takes every key range out of quarantine.
    AcceptLoss,
    /// A copy of the core's engine.
    Checkpoint {
        /// The checkpoint's name.
        name: String,
    },
    /// Makes a checkpoint whose engines are all there a data folder: gives it the definitions of
    /// the node's keyspaces and its identity.
    Seal {
        /// The checkpoint's name.
        name: String,
    },
}

impl AdminTask {
    /// The task of a request.
    pub(crate) fn of(admin: &Admin<'_>) -> Self {
        match admin {
            Admin::ScrubRate(rate) => AdminTask::ScrubRate(*rate),
            Admin::ScrubNow => AdminTask::ScrubNow,
            Admin::AcceptLoss => AdminTask::AcceptLoss,
            Admin::Checkpoint { name } => AdminTask::Checkpoint { name: (*name).to_owned() },
        }
    }

    /// What is to be done by the first core once all cores have done this.
    fn then(&self) -> Option<AdminTask> {
        match self {
            AdminTask::Checkpoint { name } => Some(AdminTask::Seal { name: name.clone() }),
            _ => None,
        }
    }
}

/// Numbers for the operator by name, or why it was not done.
pub type Outcome = Result<Vec<(&'static str, u64)>, (ErrorCode, String)>;

/// A core's part is done, or failed.
#[derive(Debug)]
pub struct CoreDone {
    /// The order it belongs to.
    pub ticket: u64,
    /// The core.
    pub core: CoreId,
    /// What came of it.
    pub outcome: Outcome,
}

struct Order {
    asker: Asker,
    task: AdminTask,
    missing: u16,
    sums: BTreeMap<&'static str, u64>,
    failed: Option<(ErrorCode, String)>,
}

/// The orders in progress, on the control core.
#[derive(Default)]
pub(crate) struct Orders {
    running: BTreeMap<u64, Order>,
    next: u64,
}

impl Orders {
    /// Begins an order; returns what to tell which core.
    pub fn begin(
        &mut self,
        asker: Asker,
        task: AdminTask,
        cores: u16,
    ) -> Vec<(CoreId, CoreMessage)> {
        self.next += 1;
        let ticket = self.next;
        let tell = |core| (CoreId(core), CoreMessage::Admin { ticket, task: task.clone() });
        let messages = (0..cores).map(tell).collect();
        let (sums, failed) = (BTreeMap::new(), None);
        self.running.insert(ticket, Order { asker, task, missing: cores, sums, failed });
        messages
    }

    /// A core is done; returns what to tell which core.
    pub fn done(&mut self, done: CoreDone) -> Option<(CoreId, CoreMessage)> {
        let CoreDone { ticket, core, outcome } = done;
        let order = self.running.get_mut(&ticket)?;
        match outcome {
            Ok(numbers) => {
                numbers
                    .into_iter()
                    .for_each(|(n, value)| *order.sums.entry(n).or_default() += value);
            }
            Err((code, text)) => {
                order.failed.get_or_insert((code, format!("{core}: {text}")));
            }
        }
        order.missing = order.missing.saturating_sub(1);
        if order.missing > 0 {
            return None;
        }
        if order.failed.is_none()
            && let Some(task) = order.task.then()
        {
            (order.task, order.missing) = (task.clone(), 1);
            return Some((CoreId(0), CoreMessage::Admin { ticket, task }));
        }
        self.running.remove(&ticket).map(Order::reply)
    }
}

impl Order {
    fn reply(self) -> (CoreId, CoreMessage) {
        let Asker { origin, conn, request_id, cost } = self.asker;
        let mut frames = Vec::new();
        match self.failed {
            Some((code, text)) => {
                let head = ReplyHead::new(Op::Admin.to_u8(), request_id, code.into());
                error_frame(&mut frames, &head, code, text);
            }
            None => {
                let head = ReplyHead::new(Op::Admin.to_u8(), request_id, Status::Ok);
                let mut frame = FrameWriter::reply(&mut frames, &head);
                StatsReply::write(frame.body(), self.sums);
                frame.finish();
            }
        }
        (origin, CoreMessage::Reply { conn, request_id, cost, timed: None, frames })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::ConnId;

    fn begin(orders: &mut Orders, task: AdminTask) -> u64 {
        let asker = Asker { origin: CoreId(1), conn: ConnId(7), request_id: 9, cost: 0 };
        let told = orders.begin(asker, task, 2);
        assert_eq!(told.iter().map(|(core, _)| core.0).collect::<Vec<_>>(), [0, 1]);
        match told[0].1 {
            CoreMessage::Admin { ticket, .. } => ticket,
            ref other => panic!("{other:?}"),
        }
    }

    fn done(ticket: u64, core: u16, outcome: Outcome) -> CoreDone {
        CoreDone { ticket, core: CoreId(core), outcome }
    }

    #[test]
    fn a_checkpoint_is_sealed_once_every_core_has_its_part() {
        let mut orders = Orders::default();
        let ticket = begin(&mut orders, AdminTask::Checkpoint { name: "a".into() });
        assert!(orders.done(done(ticket, 1, Ok(vec![("tables", 2)]))).is_none());
        let (core, next) = orders.done(done(ticket, 0, Ok(vec![("tables", 3)]))).unwrap();
        assert_eq!(core, CoreId(0));
        assert!(matches!(next, CoreMessage::Admin { task: AdminTask::Seal { .. }, .. }));
        let (core, reply) = orders.done(done(ticket, 0, Ok(Vec::new()))).unwrap();
        assert_eq!(core, CoreId(1), "the core of the connection");
        let CoreMessage::Reply { frames, request_id: 9, .. } = reply else { panic!("{reply:?}") };
        let mut body = Vec::new();
        StatsReply::write(&mut body, BTreeMap::from([("tables", 5)]));
        assert!(frames.ends_with(&body), "summed over the cores");
        assert!(orders.running.is_empty());
    }

    #[test]
    fn a_checkpoint_that_fails_on_one_core_is_not_sealed() {
        let mut orders = Orders::default();
        let ticket = begin(&mut orders, AdminTask::Checkpoint { name: "a".into() });
        let failed = Err((ErrorCode::Internal, "no space".to_owned()));
        assert!(orders.done(done(ticket, 0, failed)).is_none());
        let (_, reply) = orders.done(done(ticket, 1, Ok(Vec::new()))).unwrap();
        let CoreMessage::Reply { frames, .. } = reply else { panic!("{reply:?}") };
        assert!(String::from_utf8_lossy(&frames).contains("no space"));
        assert!(orders.done(done(ticket, 1, Ok(Vec::new()))).is_none(), "over");
    }
}
