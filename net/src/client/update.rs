//! Read, merge, write, for values that clients may change at the same time.

use std::time::Duration;

use tokio::time::sleep;

use super::options::RequestOptions;
use super::types::{Found, Version};
use super::{Client, ClientError};
use crate::error::ErrorCode;

/// How often an update is done again because others changed the key meanwhile. Whatever then still
/// stands side by side is merged by the next update.
const ROUNDS: u32 = 8;

/// Pause before the second round, doubled each time and spread: clients that collided do not again.
const FIRST_PAUSE: Duration = Duration::from_millis(2);

impl Client {
    /// Reads a key, has the caller merge all its versions into one value, and stores that in their
    /// place. `merge` gets every version with a value, none when the key has none, and returns the
    /// new value, or `None` to leave the key as it is.
    ///
    /// Afterwards the key is read again, for others may have written at the same time. When there
    /// are several versions then, they are merged in turn, a bounded number of times. So `merge`
    /// may be called several times and may meet its own earlier result: applied to that it must
    /// change nothing more. Adding to a set is fine, adding to a number is not. Whatever others
    /// write is never overwritten unseen.
    ///
    /// Returns what the key has at the end.
    ///
    /// ```no_run
    /// # async fn example(client: coronet_net::client::Client)
    /// # -> Result<(), coronet_net::client::ClientError> {
    /// // The largest of all versions, and at least 10.
    /// let largest = |versions: &[coronet_net::client::Version]| {
    ///     let numbers = versions.iter().filter_map(|v| v.value.first().copied());
    ///     Some(vec![numbers.max().unwrap_or(0).max(10)])
    /// };
    /// let found = client.update(b"high score", largest).await?;
    /// println!("{:?}", found.value());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of reads and writes. [`ClientError::possibly_applied`] then holds for the whole
    /// update: it is set once any write of it was, or may have been, applied.
    pub async fn update(
        &self,
        key: &[u8],
        merge: impl FnMut(&[Version]) -> Option<Vec<u8>>,
    ) -> Result<Found, ClientError> {
        self.update_with(key, &RequestOptions::default(), merge).await
    }

    /// The same with options for its reads and writes; a deadline counts for each of them. Their
    /// context and token are the update's own.
    ///
    /// ```no_run
    /// use coronet_net::Quorum;
    /// use coronet_net::client::{RequestOptions, Version};
    ///
    /// # async fn example(client: coronet_net::client::Client)
    /// # -> Result<(), coronet_net::client::ClientError> {
    /// let options = RequestOptions::new().w(Quorum::ALL);
    /// let keep_first = |versions: &[Version]| Some(versions.first()?.value.clone());
    /// client.update_with(b"key", &options, keep_first).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn update_with(
        &self,
        key: &[u8],
        options: &RequestOptions,
        mut merge: impl FnMut(&[Version]) -> Option<Vec<u8>>,
    ) -> Result<Found, ClientError> {
        let options = options.for_update();
        let mut written = false;
        let mut pause = FIRST_PAUSE;
        let mut round = 0;
        let mut found = self.get_with(key, &options).await?;
        loop {
            found.versions.retain(|version| !version.tombstone);
            if written && (found.versions.len() <= 1 || round >= ROUNDS) {
                return Ok(found);
            }
            let Some(value) = merge(&found.versions) else { return Ok(found) };
            let put = options.clone().context(found.context);
            match self.put_with(key, &value, &put).await {
                Ok(_) => written = true,
                // The versions that were read are no longer what a write may name: read anew.
                Err(error) if is_conflict(&error) && round < ROUNDS => {}
                Err(error) => return Err(error.after_attempt_in_doubt(written)),
            }
            if round > 0 {
                sleep(self.inner.spread(pause)).await;
                pause *= 2;
            }
            round += 1;
            let again = self.get_with(key, &options).await;
            found = again.map_err(|error| error.after_attempt_in_doubt(written))?;
        }
    }
}

/// Whether a write was refused because the key is no longer what was read.
fn is_conflict(error: &ClientError) -> bool {
    error.code() == Some(ErrorCode::BadContext) && !error.possibly_applied()
}
