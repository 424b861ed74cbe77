//! What bytes between nodes say, in a few words for people.

use coronet_net::frame::Parsed;
use coronet_net::peer::{Batch, Frame, FrameKind, PeerMessage};
use coronet_ring::coordinate::message::{Answer, Ask};

/// Messages named of one batch at most.
const MOST: usize = 6;

/// The words, and whether clients have a part in it: gossip, greetings and credits do not.
pub fn caption(mut bytes: &[u8]) -> (String, bool) {
    let (mut words, mut concerns_clients, mut more) = (Vec::new(), false, 0);
    let mut say = |what: String| match words.len() < MOST {
        true => words.push(what),
        false => more += 1,
    };
    while let Ok(Parsed::Frame { frame, consumed }) = Frame::parse(bytes, u32::MAX) {
        bytes = &bytes[consumed..];
        match frame.kind {
            FrameKind::Greeting => say("greeting".to_owned()),
            FrameKind::Refused => say("refused".to_owned()),
            FrameKind::Credit => say("credit".to_owned()),
            FrameKind::Batch => {
                for message in Batch::new(frame.body) {
                    let message = PeerMessage::decode(message);
                    concerns_clients |= !matches!(message, Ok(PeerMessage::Gossip(_)));
                    say(message
                        .map_or_else(|error| error.to_string(), |message| words_of(&message)));
                }
            }
        }
    }
    if !bytes.is_empty() {
        say("a part of a frame".to_owned());
        concerns_clients = true;
    }
    if more > 0 {
        words.push(format!("{more} more"));
    }
    (words.join(", "), concerns_clients)
}

fn words_of(message: &PeerMessage) -> String {
    match message {
        PeerMessage::Gossip(_) => "gossip".to_owned(),
        PeerMessage::Ask { ticket, key, ask, .. } => {
            let verb = match ask {
                Ask::Name { .. } => "name a write of",
                Ask::Merge { hint_for: Some(_), .. } => "keep for another",
                Ask::Merge { .. } => "merge",
                Ask::Read { .. } => "read",
                Ask::List { .. } => "list a partition",
            };
            format!("{verb} {} (ask {ticket})", String::from_utf8_lossy(key))
        }
        PeerMessage::Answer { ticket, answer } => {
            let what = match answer {
                Answer::Named { .. } => "named".to_owned(),
                Answer::Stored => "stored".to_owned(),
                Answer::Copy(Some(copy)) => format!("a copy of {} bytes", copy.len()),
                Answer::Copy(None) => "no copy".to_owned(),
                Answer::Digest(_) => "a digest".to_owned(),
                Answer::Keys { .. } => "keys".to_owned(),
                Answer::Refused(refusal) => format!("refused: {refusal:?}"),
            };
            format!("{what} (answer to {ticket})")
        }
    }
}

#[cfg(test)]
mod tests {
    use coronet_net::peer::{begin_batch, finish_frame};

    use super::*;

    fn batch(messages: &[PeerMessage]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let at = begin_batch(&mut bytes);
        messages.iter().for_each(|m| Batch::push(&mut bytes, |into| m.write(into)));
        finish_frame(&mut bytes, at);
        bytes
    }

    #[test]
    fn batches_are_told_in_words() {
        let stored = PeerMessage::Answer { ticket: 7, answer: Answer::Stored };
        let gossip = PeerMessage::Gossip(vec![1]);
        let mut bytes = batch(std::slice::from_ref(&gossip));
        assert_eq!(caption(&bytes), ("gossip".to_owned(), false));
        bytes.extend(batch(&[stored.clone(), gossip]));
        assert_eq!(caption(&bytes), ("gossip, stored (answer to 7), gossip".to_owned(), true));
        bytes.pop();
        assert_eq!(caption(&bytes), ("gossip, a part of a frame".to_owned(), true));
        let many = batch(&vec![stored; 9]);
        assert!(caption(&many).0.ends_with("stored (answer to 7), 3 more"), "{}", caption(&many).0);
    }
}
