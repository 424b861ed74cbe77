//! Tables on the simulated disk: the processor's part of writing, point reads and merging.
#![allow(missing_docs, clippy::expect_used)] // criterion makes undocumented items; a bench may stop

use coronet_benches::{key, scatter, value};
use coronet_lsm::read::{CursorOptions, MergeCursor, Source, TableCursor};
use coronet_lsm::table::{Lookup, Table, TableRef, TableWriter};
use coronet_lsm::{BlockCache, EntryKind, EntryRef, Options, Seq, TableUid, key_hash};
use coronet_sim::{Sim, SimEnv};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::path::PathBuf;
use std::rc::Rc;

const KEYS: u64 = 50_000;

fn sorted_keys() -> Vec<[u8; 18]> {
    let mut keys: Vec<_> = (0..KEYS).map(key).collect();
    keys.sort_unstable();
    keys
}

async fn write(env: &SimEnv, uid: TableUid, keys: &[[u8; 18]], value: &[u8]) -> PathBuf {
    let path = PathBuf::from(format!("/{}", uid.0));
    let options = Options::default();
    let writer = TableWriter::create(env.clone(), path.clone(), uid, &options).await;
    let mut writer = writer.expect("create");
    for key in keys {
        let entry = EntryRef { key, seq: Seq(uid.0), kind: EntryKind::Put, value };
        writer.add(entry).await.expect("add");
    }
    writer.finish().await.expect("finish");
    path
}

async fn table(env: &SimEnv, uid: u64, keys: &[[u8; 18]], value: &[u8]) -> Rc<Table<SimEnv>> {
    let path = write(env, TableUid(uid), keys, value).await;
    Rc::new(Table::open(env, &path, TableUid(uid)).await.expect("open"))
}

fn point_reads(c: &mut Criterion) {
    let keys = sorted_keys();
    for (name, len) in [("100B", 100), ("1KB", 1000)] {
        let sim = Sim::new(1);
        let env = sim.node_env("bench");
        let cache = BlockCache::new(256 << 20);
        let table = sim.block_on(async {
            let table = table(&env, 1, &keys, &value(1, len)).await;
            for key in &keys {
                table.get(&cache, key, key_hash(key), Seq(9)).await.expect("get");
            }
            table
        });
        let mut group = c.benchmark_group(format!("table/{name}"));
        group.throughput(Throughput::Elements(1));
        let mut i = 0;
        group.bench_function("get_cached", |b| {
            b.iter(|| {
                i += 1;
                let key = key(scatter(i) % KEYS);
                match table.get_cached(&cache, &key, key_hash(&key), Seq(9)) {
                    Ok(Lookup::Found(hit)) => black_box(hit.value().len()),
                    other => panic!("{other:?}"),
                }
            });
        });
        group.bench_function("get_cached one hot key", |b| {
            let key = key(7);
            b.iter(|| table.get_cached(&cache, &key, key_hash(&key), Seq(9)).is_ok());
        });
        group.bench_function("get_cached absent", |b| {
            b.iter(|| {
                i += 1;
                let key = key(KEYS + scatter(i) % KEYS);
                table.get_cached(&cache, &key, key_hash(&key), Seq(9)).is_ok()
            });
        });
    }
}

fn streams(c: &mut Criterion) {
    let (keys, value) = (sorted_keys(), value(1, 1000));
    let sim = Sim::new(1);
    let env = sim.node_env("bench");
    let mut group = c.benchmark_group("table/stream 1KB");
    group.throughput(Throughput::Elements(KEYS));
    group.sample_size(10);
    group.bench_function("write", |b| {
        b.iter(|| {
            let env = Sim::new(1);
            let node = env.node_env("bench");
            env.block_on(write(&node, TableUid(1), &keys, &value))
        });
    });
    let tables = sim.block_on(async {
        let mut tables = Vec::new();
        for part in 0..4 {
            let keys: Vec<_> = keys.iter().skip(part).step_by(4).copied().collect();
            tables.push(table(&env, part as u64 + 1, &keys, &value).await);
        }
        tables
    });
    group.bench_function("merge of 4 tables", |b| {
        b.iter(|| {
            let source = |table: &Rc<Table<SimEnv>>| {
                let whole = TableRef::whole(table.clone());
                Source::Table(TableCursor::new(whole, CursorOptions::compaction()))
            };
            let mut merge = MergeCursor::new(tables.iter().map(source).collect());
            sim.block_on(async {
                let mut count = 0;
                merge.seek(b"").await.expect("seek");
                while merge.entry().is_some() {
                    count += 1;
                    merge.advance().await.expect("advance");
                }
                assert_eq!(count, KEYS);
            });
        });
    });
}

criterion_group!(benches, point_reads, streams);
criterion_main!(benches);
