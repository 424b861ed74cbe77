//! Tables are balanced, rack-aware, deterministic, and change with as few moves as possible.

#![allow(clippy::unwrap_used)] // in helpers: a failure there is the test's failure

use std::collections::BTreeSet;

use coronet_ring::placement::table::{PlacedNode, Table, TableError};
use coronet_ring::{Epoch, NodeId, PartitionId, key_hash};
use proptest::prelude::*;

fn nodes(count: usize, racks: usize) -> Vec<PlacedNode> {
    let node = |n: usize| PlacedNode {
        id: NodeId(0x9e37_79b9_7f4a_7c15_u128.wrapping_mul(n as u128 + 1)),
        rack: format!("r{}", n % racks),
        weight: 1,
    };
    (0..count).map(node).collect()
}

fn table(partitions: u32, depth: u8, nodes: Vec<PlacedNode>) -> Table {
    Table::create(Epoch(1), partitions, depth, nodes).unwrap()
}

/// Lists hold distinct nodes, and a shorter list is the beginning of a longer one.
fn check_lists(table: &Table) {
    for partition in (0..table.partitions()).map(|p| PartitionId(p as u16)) {
        let list = table.preference(partition, table.depth());
        assert_eq!(list.iter().collect::<BTreeSet<_>>().len(), list.len());
        for n in 1..=table.depth() {
            let shorter = table.preference(partition, n);
            assert_eq!(shorter, list[..list.len().min(usize::from(n))]);
            let fallbacks = table.fallbacks(partition, n);
            let everybody: BTreeSet<_> = shorter.iter().chain(&fallbacks).collect();
            let able = table.nodes().iter().filter(|node| node.weight > 0).count();
            assert_eq!((everybody.len(), shorter.len() + fallbacks.len()), (able, able));
        }
    }
}

/// Largest and smallest of a count.
fn spread(counts: impl Iterator<Item = usize> + Clone) -> usize {
    counts.clone().max().unwrap_or(0) - counts.min().unwrap_or(0)
}

#[test]
fn equal_nodes_hold_the_same_to_within_one_partition() {
    for count in [3, 4, 5, 6, 7, 9, 10, 30, 100, 300] {
        let table = table(1024, 3, nodes(count, 3));
        let balance = table.balance();
        // Racks of different sizes share the data by rack, so their nodes by the rack's size.
        assert!(spread(balance.nodes.iter().map(|n| n.held)) <= 1 || count % 3 != 0, "{count}");
        let heads_its_part = balance.nodes.iter().all(|n| (n.first * 3).abs_diff(n.held) <= 2);
        assert!(heads_its_part, "{count}: {balance:?}");
        assert_eq!((balance.off_quota, balance.short, balance.racks_violated), (0, 0, 0));
        let alone = self::table(1024, 3, nodes(count, count)).balance();
        assert!(spread(alone.nodes.iter().map(|n| n.held)) <= 1, "{count} on as many racks");
        assert!(spread(alone.nodes.iter().map(|n| n.first)) <= 1, "{count} first, alone");
    }
}

#[test]
fn a_join_moves_the_newcomers_share_and_nothing_else() {
    for count in [3, 5, 6, 10, 30, 100] {
        let all = nodes(count + 1, count + 1);
        let before = table(1024, 3, all[..count].to_vec());
        let after = before.change(Epoch(2), all).unwrap();
        let moves = before.moves_to(&after);
        let newcomer = after.balance().nodes.iter().map(|node| node.held).min().unwrap();
        assert_eq!(after.balance().off_quota, 0);
        assert_eq!(moves.received.len(), 1, "only the newcomer receives");
        assert!(moves.moved <= 3 * 1024 / (count + 1) + 1 && moves.moved >= newcomer, "{count}");
        let back = after.change(Epoch(3), before.nodes().to_vec()).unwrap();
        assert_eq!(after.moves_to(&back).moved, moves.moved, "leaving moves what joining did");
    }
}

/// What docs/PLACEMENT.md shows, over keys: a join moves at most the newcomer's share of the copies,
/// where `hash % nodes` would move nearly every key.
#[test]
fn a_join_moves_few_keys_where_hash_mod_n_moves_nearly_all() {
    const KEYS: usize = 20_000;
    for count in [3, 6, 12, 30, 99, 300] {
        let before = table(4096, 3, nodes(count, 3));
        let after = before.change(Epoch(2), nodes(count + 1, 3)).unwrap();
        let (mut moved, mut modulo) = (0, 0);
        for key in 0..KEYS {
            let key = key.to_le_bytes();
            let hash = key_hash(&key);
            let partition = before.partition_of(&key);
            let old = before.preference(partition, 3);
            moved += after.preference(partition, 3).iter().filter(|id| !old.contains(id)).count();
            modulo += usize::from(hash % count as u64 != hash % (count as u64 + 1));
        }
        // Whole partitions move, so that keys are a sample: a tenth and one partition more.
        let share = 3 * KEYS / (count + 1);
        let partition = 3 * KEYS / 4096;
        assert!(
            moved > 0 && moved <= share + share / 10 + partition,
            "{count}: {moved} of {share}"
        );
        let expected = KEYS * count / (count + 1);
        assert!(modulo.abs_diff(expected) < KEYS / 50, "{count}: {modulo}, expected {expected}");
        assert!(before.balance().off_quota <= 1, "{count}");
    }
}

/// No plan can move less than what the nodes whose share grew have to get.
#[test]
fn joins_leaves_and_weights_move_hardly_more_than_the_shares_changed() {
    let all = nodes(12, 12);
    let before = table(1024, 3, all[..9].to_vec());
    let mut heavier = all[..9].to_vec();
    heavier[4].weight = 2;
    let mut drained = all[..9].to_vec();
    drained[0].weight = 0;
    let replaced = [&all[..4], &all[6..12]].concat();
    for change in [all.clone(), heavier, drained, replaced] {
        let after = before.change(Epoch(2), change).unwrap();
        let held = |table: &Table, id: NodeId| {
            let share = table.balance().nodes.into_iter().find(|node| node.id == id);
            share.map_or(0, |node| node.held)
        };
        let grown = |id: NodeId| held(&after, id).saturating_sub(held(&before, id));
        let least: usize = after.nodes().iter().map(|node| grown(node.id)).sum();
        // The last replicas of a node that left may find no node that may take them, and move
        // another out of the way.
        let moved = before.moves_to(&after).moved;
        assert!((least..=least + least / 100).contains(&moved), "{moved}, at least {least}");
        assert_eq!(after.balance().off_quota, 0);
    }
}

#[test]
fn too_few_nodes_or_racks_are_served_as_well_as_possible_and_reported() {
    let two = table(64, 3, nodes(2, 2)).balance();
    assert_eq!((two.short, two.racks_shared, two.racks_violated), (64, 0, 0));
    let one_rack = table(64, 3, nodes(5, 1)).balance();
    assert_eq!((one_rack.racks_shared, one_rack.racks_violated), (64, 0));
    let mut uneven = nodes(6, 1);
    uneven[0].rack = "b".to_owned();
    uneven[1].rack = "c".to_owned();
    let uneven = table(64, 3, uneven).balance();
    assert_eq!((uneven.racks_violated, uneven.off_quota), (0, 0));
    assert_eq!(uneven.nodes.iter().map(|n| n.held).max(), Some(64), "a lone node fills its rack");
}

#[test]
fn impossible_tables_are_refused() {
    let create = |partitions, depth, nodes| Table::create(Epoch(1), partitions, depth, nodes);
    assert_eq!(create(12, 3, nodes(3, 1)), Err(TableError::Partitions(12)));
    assert_eq!(create(16, 0, nodes(3, 1)), Err(TableError::Depth(0)));
    assert_eq!(create(16, 3, vec![]), Err(TableError::Nodes(0)));
    let mut twice = nodes(2, 1);
    twice[1].id = twice[0].id;
    assert_eq!(create(16, 3, twice), Err(TableError::Nodes(2)));
    let mut long = nodes(1, 1);
    long[0].rack = "x".repeat(65);
    assert_eq!(create(16, 3, long), Err(TableError::Rack(65)));
}

fn some_nodes() -> impl Strategy<Value = Vec<PlacedNode>> {
    prop::collection::btree_map(0_u128..40, (0_u8..5, 0_u32..4), 1..16).prop_map(|nodes| {
        let node =
            |(id, (rack, weight))| PlacedNode { id: NodeId(id), rack: format!("{rack}"), weight };
        nodes.into_iter().map(node).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Any change of nodes, weights and racks leaves sound, near-balanced, encodable tables.
    #[test]
    fn tables_stay_sound_through_changes(
        versions in prop::collection::vec(some_nodes(), 1..4),
        depth in 1_u8..6,
    ) {
        let able = |nodes: &Vec<PlacedNode>| nodes.iter().filter(|node| node.weight > 0).count();
        let mut versions = versions.into_iter().filter(|nodes| able(nodes) > 0);
        let Some(first) = versions.next() else { return Ok(()) };
        let mut table = table(64, depth, first);
        for nodes in std::iter::once(None).chain(versions.map(Some)) {
            if let Some(nodes) = nodes {
                let again = table.change(Epoch(2), nodes.clone()).unwrap();
                table = table.change(Epoch(2), nodes).unwrap();
                prop_assert_eq!(&table, &again);
            }
            check_lists(&table);
            let balance = table.balance();
            prop_assert_eq!(balance.racks_violated, 0);
            prop_assert!(balance.off_quota <= 1, "{:?}", balance);
            let short = if able(&table.nodes().to_vec()) < usize::from(depth) { 64 } else { 0 };
            prop_assert_eq!(balance.short, short);
            let mut bytes = Vec::new();
            table.encode(&mut bytes);
            prop_assert_eq!(Table::decode(&bytes), Ok(table.clone()));
        }
    }

    #[test]
    fn damaged_tables_are_refused(at: prop::sample::Index, bit in 0_u32..8) {
        let mut bytes = Vec::new();
        table(16, 3, nodes(4, 2)).encode(&mut bytes);
        let at = at.index(bytes.len());
        prop_assert_eq!(Table::decode(&bytes[..at]), Err(TableError::Damaged));
        bytes[at] ^= 1 << bit;
        prop_assert_eq!(Table::decode(&bytes), Err(TableError::Damaged));
    }
}

/// The bytes of format 1, fixed for ever.
#[test]
fn golden() {
    let node = PlacedNode { id: NodeId(7), rack: "a".to_owned(), weight: 2 };
    let table = Table::create(Epoch(9), 2, 2, vec![node]).unwrap();
    let mut bytes = Vec::new();
    table.encode(&mut bytes);
    let expected = [
        &b"CRPT\x01\x01\x02\x00"[..],
        &[9, 0, 0, 0, 0, 0, 0, 0, 1, 0],
        &[7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1, b'a'],
        &[0, 0, 255, 255, 0, 0, 255, 255],
    ]
    .concat();
    assert_eq!(bytes[..expected.len()], expected);
    assert_eq!(bytes.len(), expected.len() + 8);
}
