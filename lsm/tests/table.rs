//! Table files on the simulated disk: round trips, bounds, and every kind of wrong byte.

#![allow(clippy::unwrap_used)] // a failed step fails the test

use coronet_lsm::env::{Env, File, OpenMode, PAGE};
use coronet_lsm::inspect::check_table;
use coronet_lsm::read::{CursorOptions, TableCursor};
use coronet_lsm::table::{Bounds, Hit, Lookup, Table, TableInfo, TableRef, TableWriter};
use coronet_lsm::{
    BlockCache, Codec, EntryKind, EntryRef, Error, Options, Seq, TableUid, key_hash,
};
use coronet_sim::{Sim, SimEnv};
use proptest::prelude::*;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::rc::Rc;

const UID: TableUid = TableUid(0xfeed);

/// Key and sequence number to value; `None` is a delete.
type Model = BTreeMap<(Vec<u8>, Reverse<u64>), Option<Vec<u8>>>;

fn entry<'a>(key: &'a [u8], seq: u64, value: &'a Option<Vec<u8>>) -> EntryRef<'a> {
    let kind = if value.is_some() { EntryKind::Put } else { EntryKind::Delete };
    EntryRef { key, seq: Seq(seq), kind, value: value.as_deref().unwrap_or_default() }
}

async fn write(env: &SimEnv, path: &str, uid: TableUid, model: &Model) -> TableInfo {
    write_prefixed(env, path, uid, model, 2).await
}

async fn write_prefixed(
    env: &SimEnv,
    path: &str,
    uid: TableUid,
    model: &Model,
    filter_prefix_bytes: u32,
) -> TableInfo {
    let options = Options { block_bytes: 4096, filter_prefix_bytes, ..Options::tiny() };
    let mut writer = TableWriter::create(env.clone(), path.into(), uid, &options).await.unwrap();
    for ((key, Reverse(seq)), value) in model {
        writer.add(entry(key, *seq, value)).await.unwrap();
    }
    let estimate = writer.bytes();
    let info = writer.finish().await.unwrap();
    assert!(info.file_bytes.abs_diff(estimate) <= 4 * PAGE as u64);
    info
}

async fn open(env: &SimEnv, path: &str) -> Result<Rc<Table<SimEnv>>, Error> {
    Table::open(env, Path::new(path), UID).await.map(Rc::new)
}

type Seen = (u64, EntryKind, Vec<u8>);

fn seen(hit: &Hit) -> Seen {
    (hit.seq().0, hit.kind(), hit.value().to_vec())
}

fn newest(model: &Model, key: &[u8], at: u64) -> Option<Seen> {
    let ((k, seq), value) = model.range((key.to_vec(), Reverse(at))..).next()?;
    let e = entry(k, seq.0, value);
    (k == key).then(|| (e.seq.0, e.kind, e.value.to_vec()))
}

async fn scan(cursor: &mut TableCursor<SimEnv>, from: &[u8]) -> Result<Model, Error> {
    let mut all = Model::new();
    cursor.seek(from).await?;
    while let Some(e) = cursor.entry() {
        let value = (e.kind == EntryKind::Put).then(|| e.value.to_vec());
        assert!(all.insert((e.key.to_vec(), Reverse(e.seq.0)), value).is_none());
        cursor.advance().await?;
    }
    Ok(all)
}

fn from(model: &Model, first: &[u8], last: &[u8]) -> Model {
    let rest = model.range((first.to_vec(), Reverse(u64::MAX))..);
    rest.filter(|((k, _), _)| k.as_slice() <= last).map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// Asks the table for prefixes of the model's keys; its filter was built with those of `length`.
fn check_prefixes(table: &Table<SimEnv>, model: &Model, length: usize) {
    for (key, _) in model.keys() {
        for prefix in (0..=key.len()).map(|len| &key[..len]) {
            // Only longer ones, cut to its length, are known.
            let known = (length > 0 && prefix.len() >= length).then_some(false);
            assert_eq!(table.denies_prefix(prefix), known, "{prefix:?}");
        }
    }
    let prefixes: BTreeSet<_> = model.keys().filter_map(|(key, _)| key.get(..length)).collect();
    let prefixes = if length > 0 { prefixes.len() } else { 0 };
    assert_eq!(table.info().filter_prefixes, prefixes as u64);
    assert_eq!(table.info().filter_prefix_bytes, length as u32);
    let denied = (5..=255u8).filter(|byte| table.denies_prefix(&[*byte; 9]) == Some(true)).count();
    assert!(if length > 0 { denied > 200 } else { denied == 0 }, "{denied}");
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(0u8..4, 0..6)
}

fn model() -> impl Strategy<Value = Model> {
    let value = prop_oneof![
        1 => Just(None),
        4 => (any::<u8>(), 0usize..400).prop_map(|(b, len)| Some(vec![b; len])),
        1 => (any::<u8>(), 3000usize..14_000).prop_map(|(b, len)| Some(vec![b; len])),
    ];
    prop::collection::btree_map((key(), (1u64..60).prop_map(Reverse)), value, 1..150)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..Default::default() })]

    #[test]
    fn reads_what_was_written(
        model in model(),
        probes in prop::collection::vec((key(), 0u64..62), 40),
        first in key(), last in key(), prefix_bytes in 0u32..5, seed in 0..2u64,
        cache_bytes in prop_oneof![Just(0usize), Just(64 << 10), Just(8 << 20)],
    ) {
        // One disk is read in sectors, the other in pages.
        let sim = Sim::new(seed);
        let env = sim.node_env("a");
        sim.block_on(async {
            let info = write_prefixed(&env, "/t", UID, &model, prefix_bytes).await;
            let table = open(&env, "/t").await.unwrap();
            assert_eq!(&info, table.info());
            check_prefixes(&table, &model, prefix_bytes as usize);
            let report = check_table(&env.disk().read_raw(Path::new("/t")).unwrap(), |_, _| {});
            assert_eq!(report.findings, []);
            assert_eq!(info.entries, model.len() as u64);
            assert_eq!(info.deletes, model.values().filter(|v| v.is_none()).count() as u64);
            assert_eq!(info.min_seq.0, model.keys().map(|k| k.1.0).min().unwrap());
            assert_eq!(info.max_seq.0, model.keys().map(|k| k.1.0).max().unwrap());

            let cache = Rc::new(BlockCache::new(cache_bytes));
            let bounds = Bounds { first: first.as_slice().into(), last: last.as_slice().into() };
            let bounded = TableRef { table: table.clone(), bounds };
            for (key, at) in &probes {
                let (hash, want) = (key_hash(key), newest(&model, key, *at));
                let got = table.get(&cache, key, hash, Seq(*at)).await.unwrap();
                assert_eq!(got.as_ref().map(seen), want);
                match table.get_cached(&cache, key, hash, Seq(*at)).unwrap() {
                    Lookup::Found(hit) => assert_eq!(Some(seen(&hit)), want),
                    Lookup::Absent => assert_eq!(want, None),
                    Lookup::NeedsBlock(_) => assert!(cache_bytes < 8 << 20),
                }
                let inside = first <= *key && *key <= last;
                let got = bounded.get(&cache, key, hash, Seq(*at)).await.unwrap();
                assert_eq!(got.as_ref().map(seen), want.filter(|_| inside));
            }
            for options in [CursorOptions::scan(cache.clone()), CursorOptions::compaction()] {
                let whole = TableRef::whole(table.clone());
                let mut cursor = TableCursor::new(whole, options.clone());
                assert!(cursor.entry().is_none());
                assert_eq!(scan(&mut cursor, b"").await.unwrap(), model);
                let mut part = TableCursor::new(bounded.clone(), options);
                for (key, _) in &probes[..10] {
                    let got = scan(&mut cursor, key).await.unwrap();
                    assert_eq!(got, from(&model, key, &[4]));
                    let got = scan(&mut part, key).await.unwrap();
                    assert_eq!(got, from(&model, key.max(&first), &last));
                }
            }
        });
    }
}

/// A few blocks, with versions of one key that span two of them.
fn small() -> Model {
    let mut model = Model::new();
    for i in 0..12u8 {
        model.insert((vec![b'k', i], Reverse(u64::from(i) + 1)), Some(vec![i + 1; 700]));
    }
    for seq in 20..28 {
        model.insert((b"k\x05".to_vec(), Reverse(seq)), Some(vec![seq as u8; 900]));
    }
    model.insert((b"k\x07".to_vec(), Reverse(40)), None);
    model
}

/// Reads everything in every way; each answer must be right or an error.
async fn right_or_error(env: &SimEnv, model: &Model) -> Result<(), Error> {
    let table = open(env, "/t").await?;
    let cache = Rc::new(BlockCache::new(1 << 20));
    let mut outcome = Ok(());
    for (key, _) in model.keys() {
        for at in [10, 23, 100] {
            match table.get(&cache, key, key_hash(key), Seq(at)).await {
                Ok(hit) => assert_eq!(hit.as_ref().map(seen), newest(model, key, at)),
                Err(e) => outcome = Err(e),
            }
        }
    }
    let mut cursor = TableCursor::new(TableRef::whole(table), CursorOptions::compaction());
    match scan(&mut cursor, b"").await {
        Ok(all) => assert_eq!(&all, model),
        Err(e) => outcome = Err(e),
    }
    outcome
}

#[test]
fn a_flipped_byte_anywhere_is_noticed_and_gives_no_wrong_answer() {
    let sim = Sim::new(2);
    let env = sim.node_env("a");
    let model = small();
    sim.block_on(async {
        let info = write(&env, "/t", UID, &model).await;
        let path = Path::new("/t");
        let good = env.disk().read_raw(path).unwrap();
        assert_eq!(good.len() as u64, info.file_bytes);
        right_or_error(&env, &model).await.unwrap();
        // Nothing depends on what fills the page before the footer: it costs no table.
        let ends = good.len() - PAGE;
        let padding = good[..ends].iter().rposition(|byte| *byte != 0).unwrap() + 1..ends;
        assert!(padding.len() > 61);
        // Every byte that carries something, and some of the padding.
        let carries =
            |i: &usize| good[*i] != 0 || (*i > 0 && good[*i - 1] != 0) || i.is_multiple_of(61);
        for at in (0..good.len()).filter(carries) {
            let mask = 1 << (at % 8);
            env.disk().flip(path, at as u64, mask).unwrap();
            match right_or_error(&env, &model).await {
                Err(Error::Corruption { path, .. }) => assert_eq!(path, Path::new("/t")),
                Ok(()) if padding.contains(&at) => {}
                other => panic!("flip at {at}: {other:?}"),
            }
            env.disk().flip(path, at as u64, mask).unwrap();
        }
        assert_eq!(env.disk().read_raw(path).unwrap(), good);
    });
}

#[test]
fn blocks_in_the_wrong_place_are_noticed() {
    let sim = Sim::new(3);
    let env = sim.node_env("a");
    let model = small();
    sim.block_on(async {
        write(&env, "/t", UID, &model).await;
        write(&env, "/other", TableUid(1), &model).await;
        let path = Path::new("/t");
        let good = env.disk().read_raw(path).unwrap();
        let other = env.disk().read_raw(Path::new("/other")).unwrap();
        let pages = good.len() / PAGE;
        for a in 0..pages {
            for b in 0..pages {
                let mut bytes = good.clone();
                if a == b {
                    // The same page of a table with the same content but another identity.
                    bytes[a * PAGE..][..PAGE].copy_from_slice(&other[a * PAGE..][..PAGE]);
                } else {
                    bytes[a * PAGE..][..PAGE].copy_from_slice(&good[b * PAGE..][..PAGE]);
                }
                env.disk().write_raw(path, bytes).unwrap();
                let result = right_or_error(&env, &model).await;
                let corrupt = matches!(result, Err(Error::Corruption { .. }));
                assert!(corrupt, "page {a} replaced by {b}: {result:?}");
            }
        }
        env.disk().write_raw(path, other).unwrap();
        assert!(matches!(open(&env, "/t").await, Err(Error::Corruption { .. })));
    });
}

#[test]
fn cut_off_empty_foreign_and_newer_files_are_refused() {
    let sim = Sim::new(4);
    let env = sim.node_env("a");
    sim.block_on(async {
        write(&env, "/t", UID, &small()).await;
        let path = Path::new("/t");
        let good = env.disk().read_raw(path).unwrap();
        for len in (0..good.len()).step_by(PAGE).chain([1, 100, PAGE + 1, good.len() - 1]) {
            env.disk().write_raw(path, good[..len].to_vec()).unwrap();
            let result = open(&env, "/t").await;
            assert!(matches!(result, Err(Error::Corruption { .. })), "{len} bytes: {result:?}");
        }
        env.disk().write_raw(path, vec![7; 8 * PAGE]).unwrap();
        assert!(matches!(open(&env, "/t").await, Err(Error::Corruption { .. })));
        let mut newer = good.clone();
        let footer = good.len() - PAGE;
        newer[footer + 8] = 5;
        env.disk().write_raw(path, newer.clone()).unwrap();
        let damaged = open(&env, "/t").await;
        assert!(matches!(damaged, Err(Error::Corruption { .. })), "{damaged:?}");
        let parts = [&UID.0.to_le_bytes()[..], &(footer as u64).to_le_bytes()];
        let parts = parts.into_iter().chain([&newer[footer..footer + 12], &newer[footer + 16..]]);
        let crc = parts.fold(0, crc32c::crc32c_append);
        newer[footer + 12..footer + 16].copy_from_slice(&crc.to_le_bytes());
        env.disk().write_raw(path, newer).unwrap();
        let result = open(&env, "/t").await;
        let Err(Error::UnknownVersion { found: 5, supported: 4, .. }) = result else {
            panic!("{result:?}")
        };
        let missing = open(&env, "/missing").await;
        assert!(matches!(missing, Err(Error::Io { kind: std::io::ErrorKind::NotFound, .. })));
    });
}

#[test]
fn a_value_of_sixteen_mebibytes_gets_a_block_of_its_own() {
    let sim = Sim::new(5);
    let env = sim.node_env("a");
    let large: Vec<u8> = (0..16 << 20).map(|i: u32| ((i * 31) >> 3) as u8).collect();
    let model = Model::from([
        ((b"a".to_vec(), Reverse(1)), Some(b"small".to_vec())),
        ((b"b".to_vec(), Reverse(2)), Some(large)),
        ((b"c".to_vec(), Reverse(3)), None),
    ]);
    sim.block_on(async {
        write(&env, "/t", UID, &model).await;
        right_or_error(&env, &model).await.unwrap();
    });
}

#[test]
fn readers_of_one_block_share_one_read() {
    let sim = Sim::new(6);
    let env = sim.node_env("a");
    let model = small();
    sim.block_on(async {
        write(&env, "/t", UID, &model).await;
        let table = open(&env, "/t").await.unwrap();
        let cache = Rc::new(BlockCache::new(1 << 20));
        let before = env.disk().stats().reads;
        let key = b"k\x01";
        let gets = (0..8).map(|_| table.get(&cache, key, key_hash(key), Seq(100)));
        let hits = futures_util::future::try_join_all(gets).await.unwrap();
        assert!(hits.iter().all(|hit| hit.as_ref().map(seen) == newest(&model, key, 100)));
        assert_eq!(env.disk().stats().reads - before, 1);
        // An abandoned read is begun anew by the next reader.
        let last = b"k\x0b";
        {
            let get = table.get(&cache, last, key_hash(last), Seq(100));
            let mut get = std::pin::pin!(get);
            assert!(futures_util::poll!(get.as_mut()).is_pending());
        }
        let hit = table.get(&cache, last, key_hash(last), Seq(100)).await.unwrap();
        assert_eq!(hit.as_ref().map(seen), newest(&model, last, 100));
        let stats = cache.stats();
        assert!(stats.bytes > 0 && stats.bytes <= stats.budget && stats.hits + stats.misses > 8);
    });
}

#[test]
fn blocks_lie_back_to_back_and_a_point_read_reads_its_units() {
    let mut units = Vec::new();
    for seed in 0..2 {
        let sim = Sim::new(seed);
        let env = sim.node_env("a");
        sim.block_on(async {
            let info = write(&env, "/t", UID, &small()).await;
            let report = check_table(&env.disk().read_raw(Path::new("/t")).unwrap(), |_, _| {});
            let mut end = 0;
            for block in &report.blocks {
                assert_eq!(block.offset, end);
                end += block.disk_bytes as u64;
            }
            assert_eq!((end, report.blocks.len() > 3), (info.data_bytes, true));
            let unit = env.open(Path::new("/t"), OpenMode::Read).await.unwrap().read_unit() as u64;
            units.push(unit);
            let table = open(&env, "/t").await.unwrap();
            let cache = BlockCache::new(1 << 20);
            let before = env.disk().stats().read_bytes;
            let first = table.info().smallest.clone();
            table.get(&cache, &first, key_hash(&first), Seq(100)).await.unwrap().unwrap();
            let wanted = (report.blocks[0].disk_bytes as u64).next_multiple_of(unit);
            assert_eq!(env.disk().stats().read_bytes - before, wanted);
            assert_eq!(cache.stats().loaded_bytes, wanted);
            let last = table.info().largest.clone();
            table.get(&cache, &last, key_hash(&last), Seq(100)).await.unwrap().unwrap();
            // Neither keeps more memory than the pages that it needs.
            assert!(cache.stats().bytes < 2 * (4096 + 512), "{:?}", cache.stats());
        });
    }
    assert_eq!(units, [4096, 512]);
}

#[test]
fn long_reads_leave_the_cache_alone() {
    let sim = Sim::new(7);
    let env = sim.node_env("a");
    let model: Model = (0..2000u32)
        .map(|i| ((i.to_be_bytes().to_vec(), Reverse(1)), Some(vec![1; 500])))
        .collect();
    sim.block_on(async {
        let info = write(&env, "/t", UID, &model).await;
        let table = open(&env, "/t").await.unwrap();
        let cache = Rc::new(BlockCache::new(4 << 20));
        let before = env.disk().stats().reads;
        let whole = TableRef::whole(table);
        let mut cursor = TableCursor::new(whole.clone(), CursorOptions::compaction());
        assert_eq!(scan(&mut cursor, b"").await.unwrap(), model);
        assert_eq!(cache.stats().bytes, 0);
        let reads = env.disk().stats().reads - before;
        assert!(reads <= info.file_bytes / (200 << 10) + 1, "{reads} reads");
        let mut cursor = TableCursor::new(whole, CursorOptions::scan(cache.clone()));
        assert_eq!(scan(&mut cursor, b"").await.unwrap(), model);
        assert!(cache.stats().bytes < 16 << 10, "only the first block is kept");
    });
}

#[test]
fn a_full_disk_is_an_error_of_its_kind() {
    let sim = Sim::new(8);
    let env = sim.node_env("a");
    sim.block_on(async {
        let mut faults = env.disk().faults();
        faults.capacity = Some(2 * PAGE as u64);
        env.disk().set_faults(faults);
        let options = Options::tiny();
        let path = "/t".into();
        let mut writer = TableWriter::create(env.clone(), path, UID, &options).await.unwrap();
        for i in 0..40u32 {
            let value = Some(vec![0; 1000]);
            writer.add(entry(&i.to_be_bytes(), 1, &value)).await.unwrap();
        }
        assert!(writer.finish().await.unwrap_err().is_disk_full());
        assert!(env.remove(Path::new("/t")).await.is_ok());
    });
}

/// The bytes of version 4 are fixed: a change here breaks tables that were written before.
#[test]
fn the_format_is_what_it_was() {
    let sim = Sim::new(9);
    let env = sim.node_env("a");
    sim.block_on(async {
        write(&env, "/t", UID, &small()).await;
        let bytes = env.disk().read_raw(Path::new("/t")).unwrap();
        assert_eq!((bytes.len() / PAGE, crc32c::crc32c(&bytes)), (5, 0x107399db));
    });
}

/// A table of rows that compress to about a quarter, as text does.
async fn write_rows(env: &SimEnv, path: &str, codec: Codec) -> (Model, TableInfo) {
    let rows = (0..2000u64).map(|n| {
        let noise: String =
            (0..12).map(|i| char::from(b'a' + (n * 7 + i * n / 3) as u8 % 26)).collect();
        let row = format!("{{\"name\":\"{noise}\",\"city\":\"somewhere\",\"balance\":{}}}", n * 31);
        ((format!("row/{n:05}").into_bytes(), Reverse(n + 1)), Some(row.into_bytes()))
    });
    let model: Model = rows.collect();
    let options = Options { block_bytes: 8192, ..Options::tiny() };
    let writer = TableWriter::create(env.clone(), path.into(), UID, &options).await.unwrap();
    let mut writer = writer.with_codec(codec);
    for ((key, Reverse(seq)), value) in &model {
        writer.add(entry(key, *seq, value)).await.unwrap();
    }
    (model, writer.finish().await.unwrap())
}

#[test]
fn compressed_tables_are_smaller_and_read_the_same() {
    let sim = Sim::new(9);
    let env = sim.node_env("a");
    sim.block_on(async {
        let (_, plain) = write_rows(&env, "/none", Codec::None).await;
        assert!(plain.raw_bytes <= plain.data_bytes);
        for (codec, path, most) in [(Codec::Lz4, "/lz4", 0.55), (Codec::Zstd, "/zstd", 0.4)] {
            let (model, info) = write_rows(&env, path, codec).await;
            let ratio = info.data_bytes as f64 / plain.data_bytes as f64;
            assert!(ratio < most, "{path}: {ratio}");
            assert!(info.raw_bytes > info.data_bytes);
            let table = open(&env, path).await.unwrap();
            assert_eq!(*table.info(), info);
            let cache = BlockCache::new(1 << 20);
            for ((key, Reverse(seq)), value) in &model {
                let hit = table.get(&cache, key, key_hash(key), Seq(u64::MAX)).await.unwrap();
                let e = entry(key, *seq, value);
                assert_eq!(hit.map(|h| seen(&h)), Some((e.seq.0, e.kind, e.value.to_vec())));
            }
            let mut cursor = TableCursor::new(TableRef::whole(table), CursorOptions::compaction());
            assert_eq!(scan(&mut cursor, b"").await.unwrap(), model);
        }
    });
}

#[test]
fn a_flipped_byte_of_a_compressed_table_is_noticed() {
    let sim = Sim::new(10);
    let env = sim.node_env("a");
    let (_, info) = sim.block_on(write_rows(&env, "/t", Codec::Lz4));
    let mut rng = sim.rng();
    for _ in 0..300 {
        let (at, mask) = (rng.below(info.data_bytes), 1 << rng.below(8));
        env.disk().flip(Path::new("/t"), at, mask).unwrap();
        sim.block_on(async {
            let table = open(&env, "/t").await.unwrap();
            let mut cursor = TableCursor::new(TableRef::whole(table), CursorOptions::compaction());
            let found = scan(&mut cursor, b"").await;
            assert!(matches!(found, Err(Error::Corruption { .. })), "flip at {at}");
        });
        env.disk().flip(Path::new("/t"), at, mask).unwrap();
    }
}
