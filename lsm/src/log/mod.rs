//! The commit log: group commit into pre-written, recycled segments, and its replay.
//!
//! * [`format`]: bytes of segments and batches (`docs/FORMATS.md`, "Log segment").
//! * [`segments`]: files: which are spare, active, full; preparing and recycling them.
//! * [`handle`]: the log as its users see it; batches gather here.
//! * [`writer`]: the task that writes them: group commit.
//! * [`syncer`]: the task that makes them durable.
//! * [`pin`]: what a checkpoint copies.
//! * [`throttle`]: how fast it may go.
//! * [`inherited`]: debt for which nobody is slowed.
//! * [`replay`]: what a restart reads back.
//!
//! The log knows nothing of memtables: it hands out sequence numbers, keeps bytes, and is told
//! which of them became tables.

pub(crate) mod format;
mod handle;
pub(crate) mod inherited;
mod pin;
mod replay;
mod segments;
mod syncer;
pub(crate) mod throttle;
mod writer;

pub(crate) use handle::Log;
pub(crate) use pin::Pinned;
pub(crate) use replay::{ends_early, gap, replay};
pub(crate) use segments::{segment_id, segment_path};
pub(crate) use throttle::Throttle;
