use super::*;
use crate::{Seq, key_hash};
use proptest::prelude::*;
use std::collections::BTreeMap;

const BUDGET: usize = 1 << 20;

fn put(rows: &mut Rows, space: Space, key: &[u8], value: &[u8], seq: u64, room: usize) {
    let entry = EntryRef { key, seq: Seq(seq), kind: EntryKind::Put, value };
    let hash = key_hash(key);
    if rows.wants(space, hash, &entry) {
        rows.put(space, hash, &entry, room);
    }
}

fn get(rows: &Rows, space: Space, key: &[u8]) -> Option<(u64, Vec<u8>)> {
    rows.get(space, key, key_hash(key)).map(|row| (row.seq.0, row.value.to_vec()))
}

#[test]
fn a_row_is_kept_from_the_second_asking_until_it_is_forgotten() {
    let mut rows = Rows::new(BUDGET);
    put(&mut rows, Space(1), b"k", b"v", 7, BUDGET);
    assert_eq!(get(&rows, Space(1), b"k"), None, "asked for once");
    put(&mut rows, Space(1), b"k", b"v", 7, BUDGET);
    assert_eq!(get(&rows, Space(1), b"k"), Some((7, b"v".to_vec())));
    assert_eq!(get(&rows, Space(2), b"k"), None, "another space");
    rows.forget(Space(2), b"k", key_hash(b"k"));
    rows.forget(Space(1), b"other", key_hash(b"other"));
    assert!(get(&rows, Space(1), b"k").is_some());
    rows.forget(Space(1), b"k", key_hash(b"k"));
    assert_eq!(get(&rows, Space(1), b"k"), None);
}

#[test]
fn what_is_too_large_or_a_delete_or_without_budget_is_no_row() {
    let mut rows = Rows::new(BUDGET);
    let large = vec![1; BUDGET / 16];
    let hash = key_hash(b"k");
    for (kind, value) in [(EntryKind::Put, &large[..]), (EntryKind::Delete, &b""[..])] {
        let entry = EntryRef { key: b"k", seq: Seq(1), kind, value };
        assert!(!rows.wants(Space(1), hash, &entry) && !rows.wants(Space(1), hash, &entry));
    }
    let mut none = Rows::new(4096);
    let entry = EntryRef { key: b"k", seq: Seq(1), kind: EntryKind::Put, value: b"v" };
    assert!(!none.wants(Space(1), hash, &entry) && !none.wants(Space(1), hash, &entry));
    assert_eq!(none.bytes(), 0);
}

#[test]
fn rows_in_use_survive_a_flood_and_the_room_is_kept() {
    let mut rows = Rows::new(BUDGET);
    let room = BUDGET / 4;
    let hot = |n: u32| format!("hot{n}").into_bytes();
    for n in 0..2 {
        (0..50).for_each(|key| put(&mut rows, Space(1), &hot(key), &[3; 100], n, room));
    }
    for n in 0..20_000u32 {
        let key = format!("flood{n}").into_bytes();
        put(&mut rows, Space(1), &key, &[4; 100], 1, room);
        put(&mut rows, Space(1), &key, &[4; 100], 1, room);
        get(&rows, Space(1), &hot(n % 50));
        assert!(rows.bytes() <= room, "{} bytes after {n}", rows.bytes());
    }
    let kept = (0..50).filter(|n| get(&rows, Space(1), &hot(*n)).is_some()).count();
    assert!(kept >= 45, "{kept} of 50 rows in use are left");
    while rows.shrink() {}
    assert!((0..50).all(|n| get(&rows, Space(1), &hot(n)).is_none()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever is put, forgotten and pushed out: a row that is found is the last one put.
    #[test]
    fn a_row_is_never_an_old_one(
        ops in proptest::collection::vec((0u8..5, 0u16..300, 0usize..400, 1u32..3), 1..2000))
    {
        let mut rows = Rows::new(128 << 10);
        let mut newest: BTreeMap<(u32, Vec<u8>), (u64, Vec<u8>)> = BTreeMap::new();
        for (seq, (op, key, len, space)) in ops.into_iter().enumerate() {
            let key = format!("{key}").into_bytes();
            let id = (space, key.clone());
            match op {
                0 => {
                    // A write: the row goes, the value is new.
                    rows.forget(Space(space), &key, key_hash(&key));
                    newest.insert(id, (seq as u64, vec![seq as u8; len]));
                }
                4 => {
                    rows.shrink();
                }
                _ => match get(&rows, Space(space), &key) {
                    Some(found) => prop_assert_eq!(Some(&found), newest.get(&id)),
                    None => {
                        if let Some((seq, value)) = newest.get(&id) {
                            put(&mut rows, Space(space), &key, value, *seq, 64 << 10);
                        }
                    }
                },
            }
        }
    }
}
