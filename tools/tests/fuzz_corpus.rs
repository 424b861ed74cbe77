//! Every fuzz target over its kept corpus, and over mutations of it that are the same in every
//! run. The long way is `fuzz/run.sh`.
#![allow(clippy::unwrap_used)] // a failed step fails the test

use std::path::{Path, PathBuf};

use coronet_ring::gossip::codec::encode_keyspaces;
use coronet_ring::gossip::keyspace::Keyspace;
use coronet_ring::gossip::member::{Member, Newness, Standing};
use coronet_ring::gossip::state::{Founding, Gossip};
use coronet_ring::{Conflicts, Incarnation, NodeId};
use coronet_sim::Rng;
use coronet_tools::fuzz::targets;

/// Mutations per target. Enough to reach every branch near the corpus, few enough for every run.
const MUTATIONS: usize = 20_000;
/// Bytes of input looked at per target, so that large files do not take longer than small ones.
const BYTES: usize = 32 << 20;

fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let entries = std::fs::read_dir(&dir);
    let entries = entries.unwrap_or_else(|_| panic!("no corpus for {target}, see write_seeds"));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

/// Changes a few bytes, cuts, repeats, or joins two inputs.
fn mutate(rng: &mut Rng, bytes: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..rng.range(1, 6) {
        let at = rng.index(bytes.len() + 1);
        match rng.below(7) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, rng.below(256) as u8),
            2 => {
                let end = at + rng.index(bytes.len() - at + 1).min(64);
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            3 => {
                let from = rng.index(other.len() + 1);
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            kind => {
                let Some(byte) = bytes.get_mut(at) else { continue };
                *byte = match kind {
                    4 => [0, 1, 0x7f, 0x80, 0xff][rng.index(5)],
                    5 => *byte ^ 1 << rng.below(8),
                    _ => byte.wrapping_add(rng.below(9) as u8).wrapping_sub(4),
                };
            }
        }
    }
}

#[test]
fn no_target_minds_its_corpus_or_mutations_of_it() {
    for (name, target) in targets() {
        let corpus = corpus(name);
        assert!(!corpus.is_empty(), "no corpus for {name}");
        for (path, bytes) in &corpus {
            assert!(bytes.len() <= 64 << 10, "{} is too large to keep", path.display());
            target(bytes);
        }
        let mut rng = Rng::new(name.len() as u64);
        let mut left = BYTES;
        for n in 0..MUTATIONS {
            let mut bytes = corpus[n % corpus.len()].1.clone();
            let other = &corpus[rng.index(corpus.len())].1;
            mutate(&mut rng, &mut bytes, other);
            let Some(rest) = left.checked_sub(bytes.len()) else { break };
            left = rest;
            target(&bytes);
        }
    }
}

/// A definition.
fn keyspace(name: &str) -> Keyspace {
    let (dropped, n, r, w) = (false, 3, 2, 2);
    let (name, author, conflicts) = (name.to_owned(), NodeId(1), Conflicts::Siblings);
    let options = vec![("ttl".to_owned(), "90".to_owned())];
    Keyspace { name, version: 1, author, dropped, n, r, w, conflicts, options }
}

/// The list of a node alone.
fn keyspaces() -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_keyspaces(&[keyspace("default"), keyspace("docs")], &mut bytes);
    bytes
}

/// The message in the stored view of a cluster of one, without the hash behind it.
fn view() -> Vec<u8> {
    let me = Member {
        id: NodeId(1),
        newness: Newness { generation: 1, version: 1, beat: 1 },
        incarnation: Incarnation(2),
        standing: Standing::Up,
        client_address: "127.0.0.1:1".to_owned(),
        peer_address: "127.0.0.1:2".to_owned(),
        rack: "r".to_owned(),
        weight: 1,
        cores: 1,
    };
    let addresses = [me.peer_address.clone()].into();
    let mut gossip = Gossip::new(me, Founding { cluster: 1, partitions: 4, depth: 3, addresses });
    gossip.define(keyspace("docs")).unwrap();
    let mut bytes = Vec::new();
    gossip.snapshot(&mut bytes);
    bytes.truncate(bytes.len() - 8);
    bytes
}

/// Not a test: writes a first corpus for targets that have none.
#[test]
#[ignore = "writes files"]
fn write_seeds() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let golden = |name: &str| std::fs::read(root.join("lsm/tests/golden/2").join(name)).unwrap();
    let (table, log, manifest) =
        (golden("000001.sst"), golden("000001.log"), golden("MANIFEST-000001"));
    let footer = table.len() - 4096;
    let u32_at = |at: usize| u32::from_le_bytes(table[at..at + 4].try_into().unwrap()) as usize;
    let frame = |at: usize| table[at + 20..at + 20 + u32_at(at + 8)].to_vec();
    let (index, filter) = (u32_at(footer + 32), u32_at(footer + 40));
    let with = |head: &[u8], tail: Vec<u8>| [head, &tail].concat();
    let seeds: Vec<(&str, Vec<u8>)> = vec![
        ("table_footer", table[footer..footer + 112].to_vec()),
        ("table_block", with(&[table[5], table[16]], frame(0))),
        ("table_index", with(&[1, (index / 4096) as u8], frame(index))),
        ("table_filter", with(&[table[filter + 12]], frame(filter))),
        ("log_records", log[4096 + 64..4096 + 64 + 80].to_vec()),
        ("manifest_edit", manifest[4096 + 32..4096 + 32 + 33].to_vec()),
        ("config_file", b"addr = \"127.0.0.1:4720\"\n[engine]\nblock_bytes = 8192\n".to_vec()),
        ("resp_reply", b"+OK\r\n$5\r\nhello\r\n$-1\r\n-ERR no\r\n_\r\n".to_vec()),
        ("identity", with(b"CORONETN\x01\0\0\0\0\x04\0\0", vec![1; 52])),
        ("clean_end", with(b"CORONETE\x01\0\0\0\0\0\0\0", vec![1; 16])),
        ("kept_view", view()),
        ("kept_keyspaces", keyspaces()),
        ("load_journal", b"plain\nnew%0aline\n100%25\n%ff%00\ntor".to_vec()),
        ("table_file", table),
        ("log_segment", log),
        ("manifest_file", manifest),
    ];
    for (name, _) in targets() {
        let dir = root.join("fuzz/corpus").join(name);
        if dir.exists() {
            continue;
        }
        std::fs::create_dir_all(&dir).unwrap();
        let known = seeds.iter().find(|(seed, _)| *seed == name);
        std::fs::write(dir.join("seed"), known.map_or(&[0; 64][..], |(_, bytes)| bytes)).unwrap();
    }
}
