//! Merged reading over memtables, tables and runs, against an ordered map.

#![allow(clippy::unwrap_used)] // a failed step fails the test

use coronet_lsm::env::Env;
use coronet_lsm::inspect::check_table;
use coronet_lsm::read::{
    CursorOptions, MemtableCursor, MergeCursor, RunCursor, Seek, Source, TableCursor, Visible,
};
use coronet_lsm::table::{Bounds, Table, TableRef, TableWriter};
use coronet_lsm::{
    BlockCache, EntryKind, EntryRef, Memtable, Millis, Options, Seq, TableUid, key_hash,
};
use coronet_sim::{Sim, SimEnv};
use proptest::prelude::*;
use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::rc::Rc;

type Model = BTreeMap<(Vec<u8>, Reverse<u64>), Option<Vec<u8>>>;

fn entry<'a>(key: &'a [u8], seq: u64, value: &'a Option<Vec<u8>>) -> EntryRef<'a> {
    let kind = if value.is_some() { EntryKind::Put } else { EntryKind::Delete };
    EntryRef { key, seq: Seq(seq), kind, value: value.as_deref().unwrap_or_default() }
}

async fn table(env: &SimEnv, model: &Model) -> TableRef<SimEnv> {
    let uid = TableUid(env.random());
    let path = std::path::PathBuf::from(format!("/{:016x}", uid.0));
    let options = Options { block_bytes: 4096, ..Options::tiny() };
    let mut writer = TableWriter::create(env.clone(), path.clone(), uid, &options).await.unwrap();
    for ((key, Reverse(seq)), value) in model {
        writer.add(entry(key, *seq, value)).await.unwrap();
    }
    writer.finish().await.unwrap();
    TableRef::whole(Rc::new(Table::open(env, &path, uid).await.unwrap()))
}

fn memtable(model: &Model) -> Rc<RefCell<Memtable>> {
    let mut table = Memtable::new();
    for ((key, Reverse(seq)), value) in model {
        let e = entry(key, *seq, value);
        table.insert(e.seq, e.kind, key, key_hash(key), e.value);
    }
    Rc::new(RefCell::new(table))
}

/// Cuts a model into runs at key boundaries, each of about `len` versions.
fn cut(model: &Model, len: usize) -> Vec<Model> {
    let mut parts = vec![Model::new()];
    for ((key, seq), value) in model {
        let part = parts.last().unwrap();
        let same_key = part.last_key_value().is_some_and(|((k, _), _)| k == key);
        if part.len() >= len && !same_key {
            parts.push(Model::new());
        }
        parts.last_mut().unwrap().insert((key.clone(), *seq), value.clone());
    }
    parts.retain(|part| !part.is_empty());
    parts
}

/// The sources of one engine: newest versions in a memtable, then a table, then a run.
async fn sources(env: &SimEnv, parts: &[Model; 4], options: &CursorOptions) -> Vec<Source<SimEnv>> {
    let mut sources = vec![Source::Memtable(MemtableCursor::new(memtable(&parts[0])))];
    for part in &parts[1..3] {
        if !part.is_empty() {
            let table = table(env, part).await;
            sources.push(Source::Table(TableCursor::new(table, options.clone())));
        }
    }
    let mut run = Vec::new();
    for part in cut(&parts[3], 12) {
        run.push(table(env, &part).await);
    }
    sources.push(Source::Run(RunCursor::new(run.into(), options.clone())));
    sources
}

fn options(compaction: bool) -> CursorOptions {
    if compaction {
        CursorOptions::compaction()
    } else {
        CursorOptions::scan(Rc::new(BlockCache::new(64 << 10)))
    }
}

/// Every version with a number of its own, spread over four places.
fn parts() -> impl Strategy<Value = [Model; 4]> {
    let key = prop::collection::vec(0u8..4, 0..5);
    let value = prop_oneof![
        2 => Just(None),
        5 => (any::<u8>(), 0usize..1500).prop_map(|(b, len)| Some(vec![b; len])),
    ];
    prop::collection::vec((key, value, 0usize..4), 0..200).prop_map(|writes| {
        let mut parts: [Model; 4] = Default::default();
        for (seq, (key, value, part)) in writes.into_iter().enumerate() {
            parts[part].insert((key, Reverse(seq as u64 + 1)), value);
        }
        parts
    })
}

fn visible(model: &Model, from: &[u8], at: u64) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut newest: BTreeMap<&[u8], &Option<Vec<u8>>> = BTreeMap::new();
    for ((key, _), value) in model.iter().filter(|((k, s), _)| k.as_slice() >= from && s.0 <= at) {
        newest.entry(key).or_insert(value);
    }
    let shown = newest.into_iter().filter_map(|(k, v)| Some((k.to_vec(), v.clone()?)));
    shown.collect()
}

/// The last entry, the last up to `key`, the last before `key`.
fn bounds(key: &[u8]) -> [Bound<&[u8]>; 3] {
    [Bound::Unbounded, Bound::Included(key), Bound::Excluded(key)]
}

fn within(key: &[u8], bound: Bound<&[u8]>) -> bool {
    match bound {
        Bound::Unbounded => true,
        Bound::Included(last) => key <= last,
        Bound::Excluded(end) => key < end,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_merge_yields_every_version_in_order(
        parts in parts(), compaction in any::<bool>(),
        seeks in prop::collection::vec(prop::collection::vec(0u8..4, 0..5), 6),
    ) {
        let sim = Sim::new(1);
        let env = sim.node_env("a");
        sim.block_on(async {
            let all: Model = parts.iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
            let mut merge = MergeCursor::new(sources(&env, &parts, &options(compaction)).await);
            assert!(merge.entry().is_none());
            for from in std::iter::once(&Vec::new()).chain(&seeks) {
                merge.seek(from).await.unwrap();
                for ((key, seq), value) in all.range((from.clone(), Reverse(u64::MAX))..) {
                    assert_eq!(merge.entry(), Some(entry(key, seq.0, value)));
                    merge.advance().await.unwrap();
                }
                assert!(merge.entry().is_none());
                merge.advance().await.unwrap();
                assert!(merge.entry().is_none());
            }
        });
    }

    #[test]
    fn a_view_shows_what_was_so_at_its_time(
        parts in parts(), ats in prop::collection::vec(0u64..210, 4), from in prop::collection::vec(0u8..4, 0..5),
    ) {
        let sim = Sim::new(2);
        let env = sim.node_env("a");
        sim.block_on(async {
            let all: Model = parts.iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
            for at in ats {
                let merge = MergeCursor::new(sources(&env, &parts, &options(false)).await);
                let mut view = Visible::new(env.clone(), merge, Seq(at), Millis(0));
                assert!(view.entry().is_none());
                for from in [b"".as_slice(), &from] {
                    let mut shown = Vec::new();
                    view.seek(from).await.unwrap();
                    while let Some(e) = view.entry() {
                        assert!(e.kind == EntryKind::Put && e.seq <= Seq(at));
                        shown.push((e.key.to_vec(), e.value.to_vec()));
                        view.advance().await.unwrap();
                    }
                    assert_eq!(shown, visible(&all, from, at));
                }
            }
        });
    }

    #[test]
    fn backwards_a_merge_yields_the_same_in_reverse(
        parts in parts(), compaction in any::<bool>(),
        seeks in prop::collection::vec(prop::collection::vec(0u8..4, 0..5), 6),
    ) {
        let sim = Sim::new(1);
        let env = sim.node_env("a");
        sim.block_on(async {
            let all: Model = parts.iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
            let mut merge = MergeCursor::new(sources(&env, &parts, &options(compaction)).await);
            for key in &seeks {
                for bound in bounds(key) {
                    merge.seek(Seek::Backward(bound)).await.unwrap();
                    let inside = all.iter().rev().filter(|((k, _), _)| within(k, bound));
                    for ((key, seq), value) in inside {
                        assert_eq!(merge.entry(), Some(entry(key, seq.0, value)));
                        merge.advance().await.unwrap();
                    }
                    assert!(merge.entry().is_none());
                    merge.advance().await.unwrap();
                    assert!(merge.entry().is_none());
                }
                // The other way with the same cursor, part of the way.
                merge.seek(key).await.unwrap();
                for ((key, seq), value) in all.range((key.clone(), Reverse(u64::MAX))..).take(20) {
                    assert_eq!(merge.entry(), Some(entry(key, seq.0, value)));
                    merge.advance().await.unwrap();
                }
            }
        });
    }

    #[test]
    fn backwards_a_view_shows_the_same_in_reverse(
        parts in parts(), ats in prop::collection::vec(0u64..210, 4), key in prop::collection::vec(0u8..4, 0..5),
    ) {
        let sim = Sim::new(2);
        let env = sim.node_env("a");
        sim.block_on(async {
            let all: Model = parts.iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
            for at in ats {
                let merge = MergeCursor::new(sources(&env, &parts, &options(false)).await);
                let mut view = Visible::new(env.clone(), merge, Seq(at), Millis(0));
                for bound in bounds(&key) {
                    let mut shown = Vec::new();
                    view.seek(Seek::Backward(bound)).await.unwrap();
                    while let Some(e) = view.entry() {
                        assert!(e.kind == EntryKind::Put && e.seq <= Seq(at));
                        shown.push((e.key.to_vec(), e.value.to_vec()));
                        view.advance().await.unwrap();
                    }
                    let mut expected = visible(&all, b"", at);
                    expected.retain(|(k, _)| within(k, bound));
                    expected.reverse();
                    assert_eq!(shown, expected);
                }
            }
        });
    }

    #[test]
    fn a_run_keeps_to_the_bounds_of_each_table(
        parts in parts(), first in prop::collection::vec(0u8..4, 0..4),
        last in prop::collection::vec(0u8..4, 0..4), from in prop::collection::vec(0u8..4, 0..5),
        compaction in any::<bool>(),
    ) {
        let sim = Sim::new(3);
        let env = sim.node_env("a");
        sim.block_on(async {
            let mut run = Vec::new();
            for part in cut(&parts[3], 20) {
                let mut table = table(&env, &part).await;
                table.bounds = Bounds { first: first.as_slice().into(), last: last.as_slice().into() };
                if table.smallest() <= table.largest() {
                    run.push(table);
                }
            }
            let mut cursor = RunCursor::new(run.into(), options(compaction));
            cursor.seek(&from).await.unwrap();
            let inside = parts[3].iter().filter(|((k, _), _)| *k >= first && *k <= last && *k >= from);
            for ((key, seq), value) in inside {
                assert_eq!(cursor.entry(), Some(entry(key, seq.0, value)));
                cursor.advance().await.unwrap();
            }
            assert!(cursor.entry().is_none());
            for bound in bounds(&from) {
                cursor.seek(Seek::Backward(bound)).await.unwrap();
                let inside = parts[3].iter().rev();
                let inside = inside.filter(|((k, _), _)| *k >= first && *k <= last && within(k, bound));
                for ((key, seq), value) in inside {
                    assert_eq!(cursor.entry(), Some(entry(key, seq.0, value)));
                    cursor.advance().await.unwrap();
                }
                assert!(cursor.entry().is_none());
            }
        });
    }
}

#[test]
fn a_view_does_not_see_what_is_written_while_it_reads() {
    let sim = Sim::new(4);
    let env = sim.node_env("a");
    let before: Model = (0..500u32)
        .map(|i| (((i * 2).to_be_bytes().to_vec(), Reverse(u64::from(i) + 1)), Some(vec![1])))
        .collect();
    sim.block_on(async {
        let table = memtable(&before);
        let sources = vec![Source::Memtable(MemtableCursor::new(table.clone()))];
        let mut view = Visible::new(env, MergeCursor::new(sources), Seq(500), Millis(0));
        view.seek(b"").await.unwrap();
        let (mut shown, mut seq) = (0, 500);
        while let Some(e) = view.entry() {
            assert_eq!(e.value, [1]);
            shown += 1;
            let key = u32::from_be_bytes(e.key.try_into().unwrap());
            for key in [key, key + 1, key + 2] {
                let (key, kind) = (key.to_be_bytes(), EntryKind::Delete);
                seq += 1;
                table.borrow_mut().insert(Seq(seq), kind, &key, key_hash(&key), b"");
            }
            view.advance().await.unwrap();
        }
        assert_eq!(shown, 500);
    });
}

#[test]
fn going_backwards_reads_ahead_and_leaves_the_cache_alone() {
    let sim = Sim::new(6);
    let env = sim.node_env("a");
    let model: Model = (0..2000u32)
        .map(|i| ((i.to_be_bytes().to_vec(), Reverse(1)), Some(vec![7; 900])))
        .collect();
    sim.block_on(async {
        let table = table(&env, &model).await;
        let blocks = table.table.info().data_bytes / 4096;
        let cache = Rc::new(BlockCache::new(64 << 20));
        for seek in [Seek::Forward(b""), Seek::Backward(Bound::Unbounded)] {
            let before = env.disk().stats().reads;
            let mut cursor = TableCursor::new(table.clone(), CursorOptions::scan(cache.clone()));
            cursor.seek(seek).await.unwrap();
            let mut seen = 0;
            while cursor.entry().is_some() {
                seen += 1;
                cursor.advance().await.unwrap();
            }
            assert_eq!(seen, 2000);
            let reads = env.disk().stats().reads - before;
            assert!(reads <= blocks / 30, "{reads} reads of {blocks} blocks");
        }
        assert!(cache.stats().bytes < 3 * 8192, "only where it began");
    });
}

#[test]
fn damage_ends_a_merge_with_the_error() {
    let sim = Sim::new(5);
    let env = sim.node_env("a");
    let model: Model =
        (0..200u32).map(|i| ((i.to_be_bytes().to_vec(), Reverse(1)), Some(vec![7; 300]))).collect();
    sim.block_on(async {
        let table = table(&env, &model).await;
        let bytes = env.disk().read_raw(table.table.path()).unwrap();
        let block = check_table(&bytes, |_, _| {}).blocks[5].offset;
        env.disk().flip(table.table.path(), block + 100, 1).unwrap();
        let source = Source::Table(TableCursor::new(table, CursorOptions::compaction()));
        let mut merge = MergeCursor::new(vec![source]);
        for (seek, reads) in
            [(Seek::Forward(b""), 51..100), (Seek::Backward(Bound::Unbounded), 100..150)]
        {
            merge.seek(seek).await.unwrap();
            let mut read = 0;
            let error = loop {
                assert!(merge.entry().is_some());
                read += 1;
                if let Err(error) = merge.advance().await {
                    break error;
                }
            };
            assert!(reads.contains(&read), "{read}");
            assert!(error.to_string().contains(&format!("at offset {block}:")), "{error}");
        }
    });
}
