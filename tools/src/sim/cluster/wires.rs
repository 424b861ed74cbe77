//! Faults of the wires between hosts: who is cut off from whom, and how bad the weather is.

use coronet_sim::Rng;

use super::fault::Fault;
use super::nemesis::Strike;
use super::world::World;
use crate::sim::internet::Weather;

/// Cuts or slows ways between hosts; returns them.
pub(super) fn strike(world: &World, strike: &Strike, rng: &mut Rng) -> Vec<(usize, usize)> {
    let hosts = world.hosts.len();
    let ways = match strike.fault {
        Fault::Partition => partition(hosts, rng),
        Fault::Bridge => bridge(hosts, strike.host, rng),
        _ if strike.host != strike.other => vec![(strike.host, strike.other)],
        _ => Vec::new(),
    };
    let factor = rng.range(5, 400);
    for (from, to) in &ways {
        match strike.fault {
            Fault::Slow => world.internet.slow_down(*from, *to, factor),
            _ => world.internet.cut(*from, *to),
        }
    }
    ways
}

/// One host or some of them against the others; both ways, only out or only in.
fn partition(hosts: usize, rng: &mut Rng) -> Vec<(usize, usize)> {
    let side: Vec<bool> = match rng.below(2) {
        0 => {
            let alone = rng.index(hosts);
            (0..hosts).map(|host| host == alone).collect()
        }
        _ => (0..hosts).map(|_| rng.below(2) == 0).collect(),
    };
    let direction = rng.below(4); // 0: only out, 1: only in, else both
    let mut ways = Vec::new();
    for a in (0..hosts).filter(|host| side[*host]) {
        for b in (0..hosts).filter(|host| !side[*host]) {
            if direction != 1 {
                ways.push((a, b));
            }
            if direction != 0 {
                ways.push((b, a));
            }
        }
    }
    ways
}

/// Two sides without a way between them; the bridge reaches both.
fn bridge(hosts: usize, bridge: usize, rng: &mut Rng) -> Vec<(usize, usize)> {
    let side: Vec<bool> = (0..hosts).map(|_| rng.below(2) == 0).collect();
    let pairs = (0..hosts).flat_map(|a| (0..hosts).map(move |b| (a, b)));
    let apart = |(a, b): &(usize, usize)| *a != bridge && *b != bridge && side[*a] != side[*b];
    pairs.filter(apart).collect()
}

/// Wires that lose packets or change bytes.
pub(super) fn bad_weather(fair: Weather, fault: Fault, rng: &mut Rng) -> Weather {
    let mut share = |most: u64| u32::try_from(rng.below(most)).unwrap_or(0);
    match fault {
        // A lost packet is sent again after at least 200 ms; a few are never got through.
        Fault::Loss => Weather {
            late: share(300_000),
            late_factor: 200_000 / fair.delay.max(1),
            reset: share(5_000),
            ..fair
        },
        _ => Weather { corrupt: share(50_000), ..fair },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bridge_reaches_everybody_and_the_sides_do_not_meet() {
        for seed in 0..50 {
            let cut = bridge(5, 2, &mut Rng::new(seed));
            assert!(cut.iter().all(|(a, b)| *a != 2 && *b != 2));
            assert!(cut.iter().all(|(a, b)| cut.contains(&(*b, *a))), "both ways");
        }
    }

    #[test]
    fn some_partitions_are_one_way() {
        let both_ways = |seed| {
            let cut = partition(4, &mut Rng::new(seed));
            cut.iter().all(|(a, b)| cut.contains(&(*b, *a)))
        };
        let count = (0..100).filter(|seed| both_ways(*seed)).count();
        assert!((20..90).contains(&count), "{count} of 100 cut both ways");
    }
}
