//! The manifest as all keyspaces of an engine share it: one change at a time, each one edit.

use super::edit::{Edit, Progress, State};
use super::manifest::Manifest;
use crate::env::Env;
use crate::stats::Counters;
use crate::{Error, Result, Seq, TableId};
use futures_util::lock::Mutex;
use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;

/// Manifest and state, changed together under a lock.
struct Durable<E: Env> {
    manifest: Manifest<E>,
    state: State,
}

/// The durable truth about the tables and keyspaces of one engine.
pub struct Ledger<E: Env> {
    durable: Mutex<Durable<E>>,
    next_table: Cell<u64>,
    stats: Rc<Counters>,
}

impl<E: Env> Ledger<E> {
    /// Continues in a new manifest, whose number follows `highest`.
    pub async fn open(
        env: &E,
        dir: &Path,
        highest: u64,
        state: State,
        stats: Rc<Counters>,
    ) -> Result<Rc<Self>> {
        let manifest = Manifest::create(env.clone(), dir, highest + 1, &state).await?;
        let next_table = Cell::new(state.progress.next_table);
        let durable = Mutex::new(Durable { manifest, state });
        Ok(Rc::new(Ledger { durable, next_table, stats }))
    }

    /// A table number nobody had.
    pub fn allocate(&self) -> TableId {
        let id = self.next_table.get();
        self.next_table.set(id + 1);
        TableId(id)
    }

    /// Makes an edit durable, with the counters of this moment: the newest sequence number, and
    /// the first log generation still needed (`None`: no news). `installed` runs before the next
    /// edit can. An error means: not applied, and certain not to be after a restart. While that
    /// is uncertain, the call goes on trying and does not return.
    pub async fn commit<R>(
        &self,
        mut edit: Edit,
        last_seq: Seq,
        log_floor: Option<u64>,
        mut retry: impl AsyncFnMut(Error) -> Result<()>,
        installed: impl FnOnce(&State) -> R,
    ) -> Result<R> {
        let mut durable = self.durable.lock().await;
        let before = durable.state.progress;
        edit.progress = Progress {
            next_table: self.next_table.get(),
            last_seq: last_seq.max(before.last_seq),
            // Flushes of several keyspaces may come in another order than they looked.
            log_floor: log_floor.unwrap_or(0).max(before.log_floor),
        };
        let mut next = durable.state.clone();
        if let Err(what) = next.apply(&edit) {
            return Err(Error::corruption(Path::new("MANIFEST"), 0, what));
        }
        let written = durable.manifest.written();
        let mut outcome = if durable.manifest.wants_rewrite() {
            self.rewrite(&mut durable.manifest, &next).await
        } else {
            durable.manifest.append(&edit).await
        };
        while let Err(error) = outcome {
            retry(error).await?;
            outcome = self.rewrite(&mut durable.manifest, &next).await;
        }
        let written = durable.manifest.written() - written;
        self.stats.update(|stats| {
            stats.manifest_edits += 1;
            stats.manifest_bytes += written;
        });
        durable.state = next;
        Ok(installed(&durable.state))
    }

    /// Looks at the state of one moment; `look` runs while no edit can.
    pub async fn with_state<R>(&self, look: impl FnOnce(&State) -> R) -> R {
        look(&self.durable.lock().await.state)
    }

    async fn rewrite(&self, manifest: &mut Manifest<E>, state: &State) -> Result<()> {
        self.stats.update(|stats| stats.manifest_rewrites += 1);
        manifest.rewrite(state).await
    }
}
