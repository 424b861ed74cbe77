//! The chance that a read misses a write that was acknowledged before, where R + W <= N.
//!
//! After "Probabilistically bounded staleness for practical partial quorums" (Bailis et al., VLDB
//! 2012): delays are drawn from what messages really took, and the chance is the share of draws in
//! which none of the replicas that are read had got the write. The requests are those of this
//! program, which differ from that paper's:
//!
//! * a write is named by one replica, the coordinator itself if it is one, and only then sent to
//!   the others by the coordinator;
//! * a read asks R replicas and no more, the coordinator itself first, the others in the order of
//!   the key's list;
//! * what a node asks of itself takes no time on the wire, and a copy is visible only once it is
//!   committed.

use coronet_ring::NodeId;
use coronet_sim::Rng;

/// Draws per chance.
const TRIALS: u32 = 64;
/// How long a commit takes: at least, and at most so much more, microseconds. One write and one
/// sync of the simulated disk, and up to as much for the batch before. Buffered writes wait for no
/// sync.
const DURABLE: (u64, u64) = (240, 240);
const BUFFERED: (u64, u64) = (0, 80);

/// A read after a write of the same key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meeting {
    /// The write's coordinator.
    pub written_by: NodeId,
    /// The read's.
    pub read_by: NodeId,
    /// Replicas that had stored the write when it was acknowledged.
    pub w: u8,
    /// Replicas that answered the read.
    pub r: u8,
    /// Whether the write waited for disks.
    pub durable: bool,
    /// From the acknowledgement to the request, microseconds.
    pub later: u64,
}

/// The chance that the read is stale, in millionths. `homes` are the key's replicas in the order
/// of its list, `delays` what messages between nodes took, microseconds.
pub fn chance(meeting: &Meeting, homes: &[NodeId], delays: &[u64], rng: &mut Rng) -> u64 {
    if homes.is_empty() || delays.is_empty() {
        return 0;
    }
    let mut stale = 0;
    for _ in 0..TRIALS {
        stale += u64::from(draw(meeting, homes, delays, rng));
    }
    stale * 1_000_000 / u64::from(TRIALS)
}

/// Whether the read is stale in one draw.
fn draw(meeting: &Meeting, homes: &[NodeId], delays: &[u64], rng: &mut Rng) -> bool {
    let by = meeting.written_by;
    let (least, more) = if meeting.durable { DURABLE } else { BUFFERED };
    let wire = |from: NodeId, to: NodeId, rng: &mut Rng| match from == to {
        true => 0,
        false => delays[rng.index(delays.len())],
    };
    let namer = if homes.contains(&by) { by } else { homes[0] };
    let asked = wire(by, namer, rng);
    let named = asked + wire(namer, by, rng);
    let mut visible = Vec::new();
    let mut acknowledged = Vec::new();
    for home in homes {
        let arrives = if *home == namer { asked } else { named + wire(by, *home, rng) };
        let commits = arrives + least + rng.below(more + 1);
        visible.push(commits);
        acknowledged.push(commits + wire(*home, by, rng));
    }
    acknowledged.sort_unstable();
    let over = acknowledged[usize::from(meeting.w).clamp(1, homes.len()) - 1];
    let begins = over + meeting.later;
    let mut order: Vec<usize> = (0..homes.len()).collect();
    order.sort_by_key(|at| homes[*at] != meeting.read_by);
    let asked = order.into_iter().take(usize::from(meeting.r));
    !asked.into_iter().any(|at| begins + wire(meeting.read_by, homes[at], rng) >= visible[at])
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOMES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];

    /// One in eight messages is late.
    const DELAYS: [u64; 8] = [1_500, 1_700, 1_900, 2_000, 2_100, 2_300, 2_500, 40_000];

    fn of(written_by: u128, read_by: u128, w: u8, r: u8, later: u64) -> u64 {
        let (written_by, read_by) = (NodeId(written_by), NodeId(read_by));
        let meeting = Meeting { written_by, read_by, w, r, durable: true, later };
        let mut rng = Rng::new(3);
        (0..200).map(|_| chance(&meeting, &HOMES, &DELAYS, &mut rng)).sum::<u64>() / 200
    }

    #[test]
    fn overlapping_quorums_are_never_stale_and_time_heals() {
        assert_eq!(of(1, 2, 2, 2, 0), 0);
        assert_eq!(of(1, 2, 3, 1, 0), 0);
        assert!(of(1, 2, 1, 1, 0) > 900_000, "the coordinator alone has it");
        assert!(of(1, 2, 1, 2, 0) == 0, "the second replica asked is the writer");
        assert!(of(2, 3, 1, 2, 1_000) < of(2, 3, 1, 1, 1_000));
        assert!(of(1, 2, 1, 1, 5_000) < 200_000 && of(1, 2, 1, 1, 5_000) > 80_000);
        assert_eq!(of(1, 2, 1, 1, 60_000), 0);
    }

    /// W = 2 is over when the faster of two others has answered; the third is read by itself, and
    /// its message was late one time in eight.
    #[test]
    fn a_replica_that_is_asked_alone_may_be_the_one_that_is_late() {
        let chance = of(1, 2, 2, 1, 6_000);
        assert!((60_000..130_000).contains(&chance), "{chance}");
        assert_eq!(of(1, 1, 2, 1, 6_000), 0, "the coordinator reads what it wrote");
    }

    /// Nodes that hold no copy ask the first replica of the list, which has named the write.
    #[test]
    fn nodes_without_a_copy_ask_who_named_the_write() {
        assert_eq!(of(8, 9, 1, 1, 0), 0);
        assert!(of(3, 9, 1, 1, 0) > 100_000, "unless another replica coordinated it");
    }
}
