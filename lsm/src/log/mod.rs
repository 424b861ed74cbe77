//! The commit log: group commit into pre-written, recycled segments, and its replay.
//!
//! * [`format`]: bytes of segments and batches (`docs/FORMATS.md`, "Log segment").
//! * [`segments`]: files: which are spare, active, full; preparing and recycling them.
//! * [`writer`]: the group commit and its task.
//! * [`replay`]: what a restart reads back.
//!
//! The log knows nothing of memtables: it hands out sequence numbers, keeps bytes, and is told
//! which of them became tables.

pub(crate) mod format;
pub(crate) mod replay;
pub(crate) mod segments;
pub(crate) mod throttle;
pub(crate) mod writer;

pub(crate) use replay::replay;
pub(crate) use throttle::Throttle;
pub(crate) use writer::Log;
