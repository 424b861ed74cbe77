//! Directory trees to keys and back: `coronet load` and `coronet verify`. A thread walks the tree
//! and reads files ahead within a byte budget; the async side keeps requests in flight.

pub mod budget;
pub mod feed;
pub mod journal;
pub mod load;
pub mod progress;
pub mod summary;
pub mod verify;
pub mod walk;

use crate::cli::exit::CliError;

/// Where transferred files go: the client, or a map in tests.
pub trait Store {
    /// Stores a value; the future ends when it is acknowledged.
    fn put(&self, key: &[u8], value: Vec<u8>) -> impl Future<Output = Result<(), CliError>>;

    /// The value of a key.
    fn get(&self, key: &[u8]) -> impl Future<Output = Result<Option<Vec<u8>>, CliError>>;
}
