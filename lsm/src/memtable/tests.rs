use super::*;
use crate::key_hash;
use proptest::prelude::*;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::Bound;

type Model = BTreeMap<(Vec<u8>, Reverse<u64>), (EntryKind, Vec<u8>)>;

fn put(table: &mut Memtable, seq: u64, key: &[u8], value: &[u8]) {
    table.insert(Seq(seq), EntryKind::Put, key, key_hash(key), value);
}

fn walk(table: &Memtable, mut pos: Option<Pos>) -> Vec<(Vec<u8>, u64, EntryKind, Vec<u8>)> {
    let mut all = Vec::new();
    while let Some(at) = pos {
        let e = table.entry(at);
        all.push((e.key.to_vec(), e.seq.0, e.kind, e.value.to_vec()));
        pos = table.next(at);
    }
    all
}

#[test]
fn very_large_values_are_held_once() {
    let mut table = Memtable::new();
    let large = vec![42; 16 << 20];
    put(&mut table, 1, b"k", &large);
    put(&mut table, 2, b"small", b"v");
    let found = table.get(b"k", key_hash(b"k"), Seq(u64::MAX)).unwrap();
    assert!(found.value == large);
    assert!(table.bytes() < (16 << 20) + (32 << 10), "{} bytes held", table.bytes());
}

#[test]
fn an_empty_memtable_is_small_and_has_no_entries() {
    let table = Memtable::new();
    assert!(table.is_empty() && table.first().is_none() && table.seek(b"").is_none());
    assert!(table.get(b"", key_hash(b""), Seq(u64::MAX)).is_none());
    assert!(table.bytes() < 4096);
}

#[test]
fn a_scan_goes_on_while_writes_arrive() {
    let mut table = Memtable::new();
    for i in (0..1000u32).step_by(2) {
        put(&mut table, u64::from(i) + 1, &i.to_be_bytes(), b"old");
    }
    let mut seen = Vec::new();
    let mut pos = table.first();
    while let Some(at) = pos {
        let e = table.entry(at);
        if e.seq <= Seq(1000) {
            seen.push(e.key.to_vec());
        }
        let n = u64::from_be_bytes([0, 0, 0, 0, e.key[0], e.key[1], e.key[2], e.key[3]]) as u32;
        if n < 2000 {
            put(&mut table, 10_000 + u64::from(n), &(n + 1).to_be_bytes(), b"new");
            put(&mut table, 20_000 + u64::from(n), &n.to_be_bytes(), b"new");
        }
        pos = table.next(at);
    }
    assert_eq!(seen.len(), 500);
    assert!(seen.is_sorted());
}

#[test]
fn many_random_keys_come_out_sorted() {
    let mut table = Memtable::new();
    let mut model = BTreeMap::new();
    let mut state = 7u64;
    for seq in 1..50_000u64 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let key = format!("user{:06}", (state >> 33) % 30_000);
        put(&mut table, seq, key.as_bytes(), &seq.to_le_bytes());
        model.insert((key.into_bytes(), Reverse(seq)), seq);
    }
    let all = walk(&table, table.first());
    assert_eq!(all.len(), model.len());
    for ((key, seq, _, _), ((model_key, Reverse(model_seq)), _)) in all.iter().zip(&model) {
        assert_eq!((key, seq), (model_key, model_seq));
    }
}

proptest! {
    #[test]
    fn agrees_with_an_ordered_map(
        ops in prop::collection::vec(
            (prop::collection::vec(0u8..4, 0..10), 0u64..40, any::<bool>(), 0usize..40), 0..400),
        probes in prop::collection::vec((prop::collection::vec(0u8..4, 0..10), 0u64..42), 50),
    ) {
        let mut table = Memtable::new();
        let mut model = Model::new();
        for (key, seq, delete, len) in ops {
            let (kind, value) = if delete { (EntryKind::Delete, vec![]) }
                else { (EntryKind::Put, vec![len as u8; len]) };
            table.insert(Seq(seq), kind, &key, key_hash(&key), &value);
            model.insert((key, Reverse(seq)), (kind, value));
        }
        let flat = |from: &[u8]| -> Vec<_> {
            model.range((from.to_vec(), Reverse(u64::MAX))..)
                .map(|((k, s), (kind, v))| (k.clone(), s.0, *kind, v.clone())).collect()
        };
        prop_assert_eq!(table.len(), model.len());
        prop_assert_eq!(walk(&table, table.first()), flat(b""));
        for (key, at) in probes {
            prop_assert_eq!(walk(&table, table.seek(&key)), flat(&key));
            for bound in [Bound::Included(&key[..]), Bound::Excluded(&key[..]), Bound::Unbounded] {
                let inside = |k: &[u8]| match bound {
                    Bound::Included(last) => k <= last,
                    Bound::Excluded(end) => k < end,
                    Bound::Unbounded => true,
                };
                let mut rest = model.keys().rev().filter(|(k, _)| inside(k)).map(|(k, _)| k);
                let newest = table.seek_back(bound);
                prop_assert_eq!(newest.map(|pos| table.entry(pos).key), rest.next().map(|k| &k[..]));
                let versions = std::iter::successors(newest, |pos| table.older(*pos));
                let seqs: Vec<u64> = versions.map(|pos| table.entry(pos).seq.0).collect();
                let last = newest.map(|pos| table.entry(pos).key.to_vec());
                let of_last = model.keys().filter(|(k, _)| last.as_ref() == Some(k));
                prop_assert_eq!(seqs, of_last.map(|(_, Reverse(seq))| *seq).collect::<Vec<_>>());
            }
            let got = table.get(&key, key_hash(&key), Seq(at)).map(|e| (e.seq.0, e.kind, e.value));
            let want = model.range((key.clone(), Reverse(at))..).next()
                .filter(|((k, _), _)| *k == key)
                .map(|((_, s), (kind, v))| (s.0, *kind, v.as_slice()));
            prop_assert_eq!(got, want);
        }
    }
}
