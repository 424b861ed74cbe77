//! Ordered reading over memtables and tables.
//!
//! Owns cursors, their merge and the view of one point in time. All cursors have the same
//! methods: `seek` goes to a place and says which way to go on from there ([`Seek`]), `entry`
//! borrows the entry stood on (`None` at the end), `try_advance` steps as long as no I/O is needed
//! and otherwise returns false, upon which `load` completes the step; `advance` does both.
//! Backwards everything comes in exactly the reverse order: keys descending, versions of a key
//! oldest first. A change of direction is another seek.
//!
//! After an error a cursor's place is undefined until the next `seek`.

mod ahead;
mod cursor;
mod get;
mod merge;
mod scan;
mod seek;
mod table_cursor;
mod tournament;
mod view;

pub use ahead::Ahead;
pub use cursor::{MemtableCursor, RunCursor, Source};
pub use get::CachedRead;
pub use merge::MergeCursor;
pub use scan::{Scan, ScanOptions, ScanRange};
pub use seek::{Direction, Seek};
pub use table_cursor::{CursorOptions, TableCursor};
pub use view::Visible;
