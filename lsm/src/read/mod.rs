//! Ordered reading.
mod cursor;
mod merge;
pub use cursor::{CursorOptions, MemtableCursor, RunCursor, Source, TableCursor};
pub use merge::{MergeCursor, Visible};
