//! Prints the table of docs/PLACEMENT.md: balance and movement for 3 to 300 nodes.

use coronet_ring::placement::table::{PlacedNode, Table, TableError};
use coronet_ring::{Epoch, NodeId, PartitionId, key_hash};

const PARTITIONS: u32 = 4096;
const KEYS: u64 = 100_000;

fn nodes(count: usize) -> Vec<PlacedNode> {
    let id = |n: usize| NodeId(u128::from(key_hash(&n.to_le_bytes())));
    (0..count)
        .map(|n| PlacedNode { id: id(n), rack: format!("rack {}", n % 3), weight: 1 })
        .collect()
}

fn main() -> Result<(), TableError> {
    println!(
        "| nodes | partitions per node | first in list | moved by a join | 1/(S+1) | hash mod N |"
    );
    println!("|---|---|---|---|---|---|");
    for count in [3, 6, 9, 12, 30, 60, 99, 150, 300] {
        let before = Table::create(Epoch(1), PARTITIONS, 3, nodes(count))?;
        let after = before.change(Epoch(2), nodes(count + 1))?;
        let (mut moved, mut modulo) = (0, 0);
        for key in 0..KEYS {
            let key = key.to_le_bytes();
            let hash = key_hash(&key);
            let partition: PartitionId = before.partition_of(&key);
            let old = before.preference(partition, 3);
            moved += after.preference(partition, 3).iter().filter(|id| !old.contains(id)).count();
            modulo += u64::from(hash % count as u64 != hash % (count as u64 + 1));
        }
        let balance = before.balance();
        let range = |count: &dyn Fn(usize) -> usize| {
            let all: Vec<usize> = (0..balance.nodes.len()).map(count).collect();
            let (min, max) = (all.iter().min().copied(), all.iter().max().copied());
            format!("{} to {}", min.unwrap_or(0), max.unwrap_or(0))
        };
        println!(
            "| {count} | {} | {} | {:.2} % | {:.2} % | {:.1} % |",
            range(&|n| balance.nodes[n].held),
            range(&|n| balance.nodes[n].first),
            moved as f64 * 100.0 / (3 * KEYS) as f64,
            100.0 / (count + 1) as f64,
            modulo as f64 * 100.0 / KEYS as f64,
        );
    }
    Ok(())
}
