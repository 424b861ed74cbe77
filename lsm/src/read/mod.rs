//! Ordered reading over memtables and tables.
//!
//! Owns cursors, their merge and the view of one point in time. All cursors have the same
//! methods: `seek` goes to the first entry not before a key, `entry` borrows the entry stood on
//! (`None` at the end), `try_advance` steps as long as no I/O is needed and otherwise returns
//! false, upon which `load` completes the step; `advance` does both.
//!
//! After an error a cursor's place is undefined until the next `seek`.

mod ahead;
mod cursor;
mod get;
mod merge;
mod scan;
mod table_cursor;
mod tournament;

pub use cursor::{MemtableCursor, RunCursor, Source};
pub use get::CachedRead;
pub use merge::{MergeCursor, Visible};
pub use scan::{Scan, ScanRange};
pub use table_cursor::{CursorOptions, TableCursor};
