//! What clients asked and were told, in a few words for people.

use coronet_net::Quorum;

use super::history::Outcome;

/// How many answers were asked for.
pub fn of_quorum(quorum: Quorum) -> String {
    match quorum {
        Quorum::DEFAULT => "default".to_owned(),
        Quorum::MAJORITY => "majority".to_owned(),
        Quorum::ALL => "all".to_owned(),
        Quorum(count) => count.to_string(),
    }
}

/// What became of a write.
pub fn of_outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Unknown => "in doubt".to_owned(),
        Outcome::NotApplied => "not applied".to_owned(),
        Outcome::Acknowledged(ack) => {
            let whose = if ack.sloppy { " (stand-ins among them)" } else { "" };
            let how = if ack.durable { "durable" } else { "buffered" };
            format!("stored by {}{whose}, {how}", ack.acks)
        }
    }
}
