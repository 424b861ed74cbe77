//! What an operator asks of the node, done by this core.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use coronet_lsm::env::TaskClass;
use coronet_net::ErrorCode;
use coronet_net::codec::Admin;

use super::Inner;
use super::dispatch::Progress;
use super::reply::{Failure, Ticket};
use crate::data_dir::checkpoint;
use crate::node::admin::{AdminTask, CoreDone, Outcome};
use crate::node::keyspaces::copy_keyspaces;
use crate::node::{ControlMessage, NodeEnv};

impl<E: NodeEnv> Inner<E> {
    /// Has the control core ask all cores.
    pub(super) fn administer(&self, admin: &Admin<'_>, ticket: &Ticket) -> Progress {
        let (origin, conn) = (ticket.origin, ticket.conn);
        let (request_id, cost) = (ticket.request_id, ticket.cost);
        let task = AdminTask::of(admin);
        self.tell_control(ControlMessage::Admin { origin, conn, request_id, cost, task });
        Progress::Pending
    }

    /// Does this core's part and tells the control core.
    pub(super) fn do_task(self: &Rc<Self>, ticket: u64, task: AdminTask) {
        let shard = Rc::clone(self);
        self.env.spawn(TaskClass::Foreground, async move {
            let outcome = shard.carry_out(&task).await;
            let core = shard.me;
            shard.tell_control(ControlMessage::AdminDone(CoreDone { ticket, core, outcome }));
        });
    }

    async fn carry_out(&self, task: &AdminTask) -> Outcome {
        let failed = |error: coronet_lsm::Error| {
            let failure = Failure::of_engine(&error);
            (failure.code, failure.text)
        };
        match task {
            AdminTask::ScrubRate(rate) => {
                // Each core gets its share; a rate that is not zero does not become zero.
                let share = rate.div_ceil(u64::from(self.config.cores.max(1)));
                self.engine.set_scrub_rate(share);
                Ok(vec![("scrub_bytes_per_second", share)])
            }
            AdminTask::ScrubNow => match self.engine.scrub_now() {
                0 => {
                    let text = "the scrub is off; give it a rate first (coronet scrub --rate)";
                    Err((ErrorCode::InvalidArgument, text.to_owned()))
                }
                passes => Ok(vec![("scrub_passes_begun", passes)]),
            },
            AdminTask::AcceptLoss => {
                let ranges = self.engine.stats().lost_ranges;
                self.engine.accept_loss().await.map_err(failed)?;
                if ranges > 0 && self.config.clustered {
                    // Others know writes of this node that it has given up.
                    self.take_new_names();
                }
                Ok(vec![("accepted_ranges", ranges)])
            }
            AdminTask::Checkpoint { name } => {
                let target = self.checkpoint_dir(name)?;
                let made = checkpoint::make_parents(&self.env, &target).await;
                made.map_err(|error| (ErrorCode::Internal, error.to_string()))?;
                match self.engine.checkpoint(&target).await {
                    Ok(made) => Ok(vec![
                        ("tables", made.tables),
                        ("linked_bytes", made.linked_bytes),
                        ("copied_bytes", made.copied_bytes),
                    ]),
                    Err(coronet_lsm::Error::Io { kind: ErrorKind::AlreadyExists, .. }) => {
                        Err(self.exists(name).await)
                    }
                    Err(error) => Err(failed(error)),
                }
            }
            AdminTask::Seal { name } => {
                let (data, target) = self.folders(name)?;
                let copied = copy_keyspaces(&self.env, &data, &target).await;
                copied.map_err(|error| (ErrorCode::Internal, error.to_string()))?;
                let sealed = checkpoint::seal(&self.env, &data, &target).await;
                sealed.map_err(|error| (ErrorCode::Internal, error.to_string()))?;
                Ok(Vec::new())
            }
        }
    }

    /// What to say of a checkpoint that is there already. Who asks again because an answer got lost
    /// must learn whether that request made it.
    async fn exists(&self, name: &str) -> (ErrorCode, String) {
        let whole = match self.folders(name) {
            Ok((_, target)) => checkpoint::is_sealed(&self.env, &target).await.unwrap_or(false),
            Err(_) => false,
        };
        let state = match whole {
            true => "it is whole; if an earlier request got no answer, that one made it",
            false => "it is not whole: another request is making it, or its folder can be removed",
        };
        let text = format!("there is a checkpoint of the name {name} already: {state}");
        (ErrorCode::InvalidArgument, text)
    }

    /// The node's data folder and the checkpoint's: the engine is in `DIR/gen-N/core-N`.
    fn folders(&self, name: &str) -> Result<(PathBuf, PathBuf), (ErrorCode, String)> {
        let data = self.dir.parent().and_then(Path::parent);
        let data = data.ok_or_else(|| {
            let text = format!("{} is not in the data folder of a node", self.dir.display());
            (ErrorCode::Internal, text)
        })?;
        Ok((data.to_owned(), checkpoint::dir(data, name)))
    }

    /// Where this core's part goes: the same place in the checkpoint's folder.
    fn checkpoint_dir(&self, name: &str) -> Result<PathBuf, (ErrorCode, String)> {
        let (data, target) = self.folders(name)?;
        Ok(self.dir.strip_prefix(&data).map_or_else(|_| target.clone(), |own| target.join(own)))
    }
}
