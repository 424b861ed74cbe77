//! What an answer promises by itself, whatever the others know: enough nodes, of the right kind,
//! for the right key.

use coronet_net::codec::{Put, Request};
use coronet_net::{Op, Quorum, QuorumMode, RequestHead, Status};
use coronet_sim::SimEnv;

use super::history::History;
use super::reading::{self, PATIENCE, within};
use crate::sim::Client;

/// What a request asked for.
type Asked = (Quorum, QuorumMode);
/// How many nodes answered, and whether stand-ins were among them.
type Got = (u8, bool);

/// Checks the answer to a read.
pub(super) fn check_read(history: &mut History, key: &[u8], asked: Asked, got: Got) {
    check(history, key, "read", asked, got);
}

/// Checks the acknowledgement of a write.
pub(super) fn check_write(history: &mut History, key: &[u8], asked: Asked, got: Got) {
    check(history, key, "write", asked, got);
}

/// How many of all replicas a quorum is.
pub(super) fn needed(quorum: Quorum, replicas: u8) -> u8 {
    match quorum {
        Quorum::DEFAULT | Quorum::MAJORITY => replicas / 2 + 1,
        Quorum::ALL => replicas,
        Quorum(count) => count,
    }
}

fn check(history: &mut History, key: &[u8], what: &str, asked: Asked, got: Got) {
    let ((quorum, mode), (nodes, sloppy)) = (asked, got);
    let need = needed(quorum, history.replicas);
    if nodes < need {
        let text = format!("quorum: a {what} was answered by {nodes} nodes where {need} are asked");
        history.violation(key, &text);
    }
    let strict = match mode {
        QuorumMode::Default => history.strict,
        mode => mode == QuorumMode::Strict,
    };
    if strict && sloppy {
        history.violation(key, &format!("quorum: stand-ins answered a strict {what}"));
    }
}

/// Writes a key with the context of another one, which must be refused; says so when it is not.
pub(super) async fn foreign_contexts(
    env: &SimEnv,
    client: &Client,
    keys: &[Vec<u8>],
) -> Option<String> {
    let (from, to) = (keys.first()?, keys.last().filter(|_| keys.len() > 1)?);
    let found = reading::get(env, client, from, Quorum::ALL, reading::strict()).await?;
    let context = Some(&found.context).filter(|context| !context.is_empty())?;
    let request = Request::Put(Put { key: to, context, value: b"foreign" });
    let head = RequestHead { w: Quorum(1), ..RequestHead::new(Op::Put, 0) };
    let reply = within(env, PATIENCE, client.call(&request, &head, None)).await??;
    (reply.head.status == Status::Ok).then(|| "a context was taken for another key".to_owned())
}
