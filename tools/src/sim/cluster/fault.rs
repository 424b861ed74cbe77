//! The kinds of faults, and which of them a seed has.

use coronet_sim::Rng;

/// A kind of fault. Strength, place and duration of each single one are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Fault {
    /// Some hosts are cut off from the others, in both directions or in one.
    Partition,
    /// Two halves that see each other only through one host.
    Bridge,
    /// One way is many times slower.
    Slow,
    /// One way takes nothing for a short while, then everything at once.
    Clog,
    /// Connections between two hosts are reset.
    Reset,
    /// The wires lose packets: what is sent comes late after retries, or the connection breaks.
    Loss,
    /// The wires change bytes; checksums must notice.
    Corrupt,
    /// A process is killed and started again later.
    Kill,
    /// A machine loses its power and what was not synced.
    Power,
    /// A process stands still for a while.
    Pause,
    /// A process is killed and comes back with another number of cores.
    Cores,
    /// A wall clock jumps.
    Skew,
    /// A wall clock goes too fast or too slowly.
    Drift,
    /// A disk takes long to sync.
    SlowDisk,
    /// Reads, writes and syncs of a disk fail now and then.
    DiskErrors,
    /// A disk has no room left.
    FullDisk,
    /// A disk is replaced: of what it held only the node's name is left.
    EmptyDisk,
    /// A disk changes or misplaces what it stores in tables, or what it reads of them, without an
    /// error. It is replaced in the end.
    Rot,
}

/// All kinds.
pub const ALL: [Fault; 18] = [
    Fault::Partition,
    Fault::Bridge,
    Fault::Slow,
    Fault::Clog,
    Fault::Reset,
    Fault::Loss,
    Fault::Corrupt,
    Fault::Kill,
    Fault::Power,
    Fault::Pause,
    Fault::Cores,
    Fault::Skew,
    Fault::Drift,
    Fault::SlowDisk,
    Fault::DiskErrors,
    Fault::FullDisk,
    Fault::EmptyDisk,
    Fault::Rot,
];

impl Fault {
    /// Whether so many nodes can suffer it and still owe their clients something.
    fn is_possible(self, nodes: usize) -> bool {
        match self {
            Fault::Partition
            | Fault::Slow
            | Fault::Clog
            | Fault::Reset
            | Fault::Loss
            | Fault::Corrupt => nodes > 1,
            Fault::Bridge | Fault::EmptyDisk | Fault::Rot => nodes > 2,
            _ => true,
        }
    }

    /// How often a seed may have it, where that is bounded: every disk that is replaced takes a
    /// copy of everything along.
    pub(super) fn most(self) -> usize {
        match self {
            Fault::EmptyDisk => 2,
            Fault::Rot => 1,
            _ => usize::MAX,
        }
    }
}

/// Which kinds a seed has: those asked for, else a drawn share of all. A mix of everything would
/// hide what only a few of them show.
pub fn swarm(rng: &mut Rng, nodes: usize, asked: Option<&[Fault]>) -> Vec<Fault> {
    let share = [2, 3, 4][rng.index(3)];
    let calm = rng.below(12) == 0;
    let drawn: Vec<Fault> = ALL.into_iter().filter(|_| rng.below(share) == 0 && !calm).collect();
    let mut faults = asked.map_or(drawn, <[Fault]>::to_vec);
    faults.retain(|fault| fault.is_possible(nodes));
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_swarm_has_what_is_asked_for_or_a_part_of_all() {
        let mut rng = Rng::new(1);
        let asked = [Fault::Kill, Fault::Bridge];
        assert_eq!(swarm(&mut rng, 3, Some(&asked)), asked);
        assert_eq!(swarm(&mut rng, 2, Some(&asked)), [Fault::Kill]);
        let drawn: Vec<_> = (0..40).map(|_| swarm(&mut rng, 5, None)).collect();
        for fault in ALL {
            let count = drawn.iter().filter(|faults| faults.contains(&fault)).count();
            assert!(count > 0 && count < 40, "{fault:?} in {count} of 40");
        }
    }
}
