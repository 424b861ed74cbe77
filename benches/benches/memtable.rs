//! The memtable: inserts of new keys, overwrites, point reads, the ordered walk.
#![allow(missing_docs, clippy::expect_used)] // criterion makes undocumented items; a bench may stop

use coronet_benches::{key, scatter, value};
use coronet_lsm::{EntryKind, Memtable, Seq, key_hash};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;

const KEYS: u64 = 50_000;

fn filled(keys: u64, value: &[u8]) -> Memtable {
    let mut table = Memtable::new();
    for i in 0..keys {
        let key = key(scatter(i) % (keys * 4));
        table.insert(Seq(i + 1), EntryKind::Put, &key, key_hash(&key), value);
    }
    table
}

fn memtable(c: &mut Criterion) {
    for (name, len) in [("100B", 100), ("1KB", 1000)] {
        let value = value(1, len);
        let mut group = c.benchmark_group(format!("memtable/{name}"));
        group.throughput(Throughput::Elements(KEYS));
        group.sample_size(20);
        group.bench_function("fill 50k random keys", |b| {
            b.iter_batched(|| (), |()| filled(KEYS, &value), BatchSize::PerIteration);
        });
        group.bench_function("overwrite 50k keys", |b| {
            let write = |mut table: Memtable| {
                for i in 0..KEYS {
                    let key = key(scatter(i) % (KEYS * 4));
                    table.insert(Seq(KEYS + i), EntryKind::Put, &key, key_hash(&key), &value);
                }
                table
            };
            b.iter_batched(|| filled(KEYS, &value), write, BatchSize::PerIteration);
        });
        let table = filled(KEYS, &value);
        group.throughput(Throughput::Elements(1));
        group.sample_size(100);
        let mut i = 0;
        group.bench_function("get", |b| {
            b.iter(|| {
                i = (i + 1) % KEYS;
                let key = key(scatter(i) % (KEYS * 4));
                let entry = table.get(&key, key_hash(&key), Seq(u64::MAX));
                black_box(entry.map(|e| e.value.len()))
            });
        });
        group.bench_function("get absent", |b| {
            b.iter(|| {
                i += 1;
                let key = key(KEYS * 4 + i);
                black_box(table.get(&key, key_hash(&key), Seq(u64::MAX)).is_none())
            });
        });
        group.throughput(Throughput::Elements(table.len() as u64));
        group.bench_function("walk", |b| {
            b.iter(|| {
                let (mut pos, mut bytes) = (table.first(), 0);
                while let Some(at) = pos {
                    bytes += table.entry(at).key.len();
                    pos = table.next(at);
                }
                black_box(bytes)
            });
        });
    }
}

criterion_group!(benches, memtable);
criterion_main!(benches);
