//! Reading the engine's files offline: what is in them, and what is wrong with them.
//!
//! Pure functions over the bytes of one file, for tools and fuzzing; no engine needs to run, and
//! no damage ends the reading before everything that can be read was read. Each function tells a
//! visitor what it finds on the way and returns a report.

mod folder;
mod log;
mod manifest;
mod table;

pub use folder::{EngineFile, check_log_order};
pub use log::{LogItem, LogReport, check_log};
pub use manifest::{ManifestItem, ManifestReport, check_manifest};
pub use table::{BlockReport, TableReport, check_table};

/// Something wrong in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Byte offset of the damaged structure.
    pub offset: u64,
    /// What is wrong.
    pub what: String,
}

impl Finding {
    /// At `offset`, `what`.
    pub fn new(offset: u64, what: impl Into<String>) -> Self {
        Finding { offset, what: what.into() }
    }
}
