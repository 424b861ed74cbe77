//! The client library as the verbs use it: connecting, options, and what its errors mean for the
//! exit code.

use std::time::Duration;

use coronet_net::client::{Builder, Client, ClientError, ReplyInfo, RequestOptions};
use coronet_net::{ErrorCode, QuorumMode, ReplyFlags};

use super::exit::{CliError, Exit};
use super::options::{Durability, ReadArgs, RequestArgs, WriteArgs};
use crate::transfer::Store;

/// Connects to the server.
pub async fn connect(addr: &str) -> Result<Client, CliError> {
    Ok(settings().connect(addr).await?)
}

/// Connects to one server, whatever cluster it is in: what it says is its own view.
pub async fn pinned(addr: &str) -> Result<Client, CliError> {
    Ok(settings().pinned().connect(addr).await?)
}

fn settings() -> Builder {
    Client::builder().name(concat!("coronet/", env!("CARGO_PKG_VERSION")))
}

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> CliError {
        CliError::new(exit_of(&error), error.to_string())
    }
}

fn exit_of(error: &ClientError) -> Exit {
    match error {
        ClientError::Address(_) | ClientError::Size { .. } => Exit::Usage,
        ClientError::Protocol(_) => Exit::Failed,
        ClientError::Timeout { .. } => Exit::InDoubt,
        _ if error.possibly_applied() => Exit::InDoubt,
        ClientError::Connect { .. } | ClientError::Lost { .. } => Exit::Unavailable,
        ClientError::Server { code, .. } => exit_of_code(*code),
    }
}

fn exit_of_code(code: ErrorCode) -> Exit {
    match code {
        ErrorCode::InvalidArgument
        | ErrorCode::KeyTooLarge
        | ErrorCode::ValueTooLarge
        | ErrorCode::BadContext
        | ErrorCode::BadCursor => Exit::Usage,
        ErrorCode::DiskFull => Exit::Unavailable,
        ErrorCode::Corruption => Exit::Data,
        code if code.retryable() => Exit::Unavailable,
        _ => Exit::Failed,
    }
}

impl RequestArgs {
    /// The options of a request.
    pub fn options(&self) -> RequestOptions {
        let mode = match (self.strict, self.sloppy) {
            (true, _) => QuorumMode::Strict,
            (_, true) => QuorumMode::Sloppy,
            _ => QuorumMode::Default,
        };
        RequestOptions::new()
            .deadline(Duration::from_millis(u64::from(self.deadline_ms)))
            .quorum_mode(mode)
            .last_write_wins(self.lww)
    }
}

/// Says what a reply told beside its content, if that is wanted.
pub fn explain(wanted: bool, info: &ReplyInfo) {
    if wanted {
        eprintln!("{}", explained(info));
    }
}

/// A reply's header in words.
fn explained(info: &ReplyInfo) -> String {
    let mut text = format!(
        "node {}, {} acknowledgements from {} racks, {} us inside the node, {}",
        info.node,
        info.acks,
        info.racks,
        info.server_time.as_micros(),
        info.epoch
    );
    for (flag, name) in [
        (ReplyFlags::FORWARDED, ", forwarded"),
        (ReplyFlags::SLOPPY, ", sloppy"),
        (ReplyFlags::REPAIRED, ", repaired"),
        (ReplyFlags::HEDGED, ", hedged"),
    ] {
        text.push_str(if info.flags.contains(flag) { name } else { "" });
    }
    text
}

impl ReadArgs {
    /// The options of a read.
    pub fn options(&self) -> RequestOptions {
        self.request.options().r(self.r).monotonic(self.monotonic)
    }
}

impl WriteArgs {
    /// The options of a write.
    pub fn options(&self) -> RequestOptions {
        let options = self.request.options().w(self.w).durability(self.durability.into());
        match &self.context {
            Some(context) => options.context(context.0.clone()),
            None => options,
        }
    }
}

/// A server as the place where transferred files go.
pub struct Connected {
    client: Client,
    options: RequestOptions,
}

impl Connected {
    /// Every request of this client gets these options.
    pub fn new(client: Client, request: &RequestArgs, durability: Durability) -> Connected {
        let options = request.options().durability(durability.into());
        Connected { client, options }
    }

    /// The largest value that is sent: the server's limit, or a smaller one of the user's.
    pub fn max_value(&self, wanted: Option<u64>) -> u64 {
        let limit = u64::from(self.client.layout().limits().max_value);
        wanted.map_or(limit, |wanted| wanted.min(limit))
    }
}

impl Store for Connected {
    async fn put(&self, key: &[u8], value: Vec<u8>) -> Result<(), CliError> {
        self.client.put_with(key, &value, &self.options).await?;
        Ok(())
    }

    async fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, CliError> {
        Ok(self.client.get_with(key, &self.options).await?.into_value())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(code: ErrorCode, possibly_applied: bool) -> ClientError {
        ClientError::Server { code, text: String::new(), possibly_applied }
    }

    #[test]
    fn doubt_outweighs_everything_else() {
        assert_eq!(exit_of(&server(ErrorCode::Busy, false)), Exit::Unavailable);
        assert_eq!(exit_of(&server(ErrorCode::Busy, true)), Exit::InDoubt);
        assert_eq!(exit_of(&server(ErrorCode::InDoubt, true)), Exit::InDoubt);
        assert_eq!(exit_of(&ClientError::Lost { possibly_applied: true }), Exit::InDoubt);
        assert_eq!(exit_of(&ClientError::Lost { possibly_applied: false }), Exit::Unavailable);
        assert_eq!(exit_of(&ClientError::Timeout { possibly_applied: false }), Exit::InDoubt);
    }

    #[test]
    fn what_a_reply_told_is_said() {
        use coronet_ring::{Epoch, NodeId};
        let flags = [
            (ReplyFlags::SLOPPY, "sloppy"),
            (ReplyFlags::REPAIRED, "repaired"),
            (ReplyFlags::HEDGED, "hedged"),
            (ReplyFlags::FORWARDED, "forwarded"),
        ];
        for (flag, word) in flags {
            let info = ReplyInfo {
                flags: flag,
                acks: 3,
                racks: 2,
                server_time: Duration::from_micros(7),
                node: NodeId(1),
                owner: None,
                epoch: Epoch(4),
            };
            let said = explained(&info);
            assert!(said.contains("3 acknowledgements from 2 racks, 7 us"), "{said}");
            for (_, other) in flags {
                assert_eq!(said.contains(other), other == word, "{said}");
            }
        }
    }

    #[test]
    fn refusals_have_their_codes() {
        assert_eq!(exit_of(&server(ErrorCode::DiskFull, false)), Exit::Unavailable);
        assert_eq!(exit_of(&server(ErrorCode::BadContext, false)), Exit::Usage);
        assert_eq!(exit_of(&server(ErrorCode::Corruption, false)), Exit::Data);
        assert_eq!(exit_of(&server(ErrorCode::Unsupported, false)), Exit::Failed);
    }
}
