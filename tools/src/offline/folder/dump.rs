//! What the small files of a data folder say, a line for each field.

use std::path::Path;

use coronet_lsm::env::PAGE;
use coronet_lsm::inspect::Finding;
use coronet_ring::gossip::keyspace::Keyspace;
use coronet_ring::gossip::member::{Member, Standing};
use coronet_ring::gossip::snapshot::Stored;
use coronet_ring::{Conflicts, PartitionId, Table};
use coronet_server::data_dir::{Flaw, Identity};
use coronet_server::inspect::{Content, FileKind};
use serde::Serialize;

use super::time::utc;
use crate::offline::Output;

#[derive(Serialize)]
#[serde(untagged)]
enum Item {
    Identity {
        file: String,
        kind: &'static str,
        format: u32,
        node: String,
        incarnation: String,
        partitions: u32,
        data_cores: u16,
        generation: u64,
    },
    CleanEnd {
        file: String,
        kind: &'static str,
        format: u32,
        incarnation: String,
        at_micros: u64,
        at: String,
    },
    View {
        file: String,
        kind: &'static str,
        format: u32,
        cluster: String,
        founding: String,
        seen_by: String,
    },
    Keyspaces {
        file: String,
        kind: &'static str,
        format: u32,
        keyspaces: usize,
    },
    Member(MemberItem),
    Keyspace(KeyspaceItem),
    Placement {
        epoch: u64,
        partitions: u32,
        places: u8,
    },
    Placed {
        placed: String,
        rack: String,
        weight: u32,
    },
    Partition {
        partition: u16,
        nodes: Vec<String>,
    },
}

#[derive(Serialize)]
struct MemberItem {
    member: String,
    standing: &'static str,
    incarnation: String,
    clients: String,
    peers: String,
    rack: String,
    weight: u32,
    cores: u16,
    generation: u64,
    version: u64,
    beat: u64,
}

#[derive(Serialize)]
struct KeyspaceItem {
    keyspace: String,
    id: String,
    version: u64,
    author: String,
    dropped: bool,
    n: u8,
    r: u8,
    w: u8,
    conflicts: &'static str,
    options: Vec<(String, String)>,
}

/// Prints what a file says; returns what is wrong with it.
pub fn dump(file: &Path, bytes: &[u8], out: &mut Output) -> Vec<Finding> {
    let kind = FileKind::of_bytes(bytes).or_else(|| FileKind::of_name(file));
    match kind.map_or_else(|| Err(foreign(bytes)), |kind| content(kind, bytes)) {
        Ok(content) => {
            tell(file, &content, &mut |item| out.item(&item, || item.text()));
            Vec::new()
        }
        Err(finding) => vec![finding],
    }
}

/// Reads a file of a kind.
pub fn content(kind: FileKind, bytes: &[u8]) -> Result<Content, Finding> {
    kind.read(bytes).map_err(|Flaw { offset, what }| Finding { offset, what: what.to_string() })
}

/// What is wrong with a file that neither begins like one of ours nor is named like one.
fn foreign(bytes: &[u8]) -> Finding {
    let engine = [("log", &b"CRNTLOG\0"[..]), ("manifest", b"CRNTMAN\0")];
    let verb = engine.into_iter().find(|(_, magic)| bytes.starts_with(magic));
    let what = if bytes.is_empty() {
        "is empty".to_owned()
    } else if bytes.iter().all(|byte| *byte == 0) {
        "holds nothing but zeros".to_owned()
    } else if let Some((verb, _)) = verb {
        format!("is a file of an engine: `coronet {verb} dump` reads it")
    } else if bytes.len() >= PAGE && bytes[bytes.len() - PAGE..].starts_with(b"CORTABLE") {
        "is a table file: `coronet sst dump` reads it".to_owned()
    } else {
        let names = FileKind::ALL.map(FileKind::name).join(", ");
        format!("does not begin like any of the files {names} of a data folder")
    };
    Finding { offset: 0, what }
}

fn tell(file: &Path, content: &Content, tell: &mut impl FnMut(Item)) {
    let file = file.display().to_string();
    match content {
        Content::Identity(identity) => tell(Item::identity(file, identity)),
        Content::CleanEnd(mark) => tell(Item::CleanEnd {
            file,
            kind: FileKind::CleanEnd.what(),
            format: FileKind::CleanEnd.version(),
            incarnation: mark.incarnation.to_string(),
            at_micros: mark.at_micros,
            at: utc(mark.at_micros),
        }),
        Content::View(view, table) => tell_view(file, view, table.as_ref(), tell),
        Content::Keyspaces(keyspaces) => {
            tell(Item::Keyspaces {
                file,
                kind: FileKind::Keyspaces.what(),
                format: FileKind::Keyspaces.version(),
                keyspaces: keyspaces.len(),
            });
            keyspaces.iter().for_each(|keyspace| tell(Item::keyspace(keyspace)));
        }
    }
}

fn tell_view(file: String, view: &Stored, table: Option<&Table>, tell: &mut impl FnMut(Item)) {
    tell(Item::View {
        file,
        kind: FileKind::View.what(),
        format: FileKind::View.version(),
        cluster: format!("{:032x}", view.cluster.id),
        founding: format!("{:016x}", view.cluster.founding),
        seen_by: view.from.to_string(),
    });
    view.delta.members.iter().for_each(|member| tell(Item::member(member)));
    view.delta.keyspaces.iter().for_each(|keyspace| tell(Item::keyspace(keyspace)));
    let Some(table) = table else { return };
    tell(Item::Placement {
        epoch: table.epoch().0,
        partitions: table.partitions(),
        places: table.depth(),
    });
    for node in table.nodes() {
        let (rack, weight) = (node.rack.clone(), node.weight);
        tell(Item::Placed { placed: node.id.to_string(), rack, weight });
    }
    let partitions = table.partitions() as u16; // at most 2^15
    for partition in 0..partitions {
        let nodes = table.preference(PartitionId(partition), table.depth());
        let nodes = nodes.iter().map(ToString::to_string).collect();
        tell(Item::Partition { partition, nodes });
    }
}

impl Item {
    /// All of an identity but the secret, which whoever sees the dump need not know.
    fn identity(file: String, identity: &Identity) -> Self {
        Item::Identity {
            file,
            kind: FileKind::Identity.what(),
            format: FileKind::Identity.version(),
            node: identity.node_id.to_string(),
            incarnation: identity.incarnation.to_string(),
            partitions: identity.partitions,
            data_cores: identity.cores,
            generation: identity.generation,
        }
    }

    fn member(member: &Member) -> Self {
        Item::Member(MemberItem {
            member: member.id.to_string(),
            standing: match member.standing {
                Standing::Joining => "joining",
                Standing::Up => "up",
                Standing::Leaving => "leaving",
                Standing::Left => "left",
            },
            incarnation: member.incarnation.to_string(),
            clients: member.client_address.clone(),
            peers: member.peer_address.clone(),
            rack: member.rack.clone(),
            weight: member.weight,
            cores: member.cores,
            generation: member.newness.generation,
            version: member.newness.version,
            beat: member.newness.beat,
        })
    }

    fn keyspace(keyspace: &Keyspace) -> Self {
        Item::Keyspace(KeyspaceItem {
            keyspace: keyspace.name.clone(),
            id: keyspace.id().to_string(),
            version: keyspace.version,
            author: keyspace.author.to_string(),
            dropped: keyspace.dropped,
            n: keyspace.n,
            r: keyspace.r,
            w: keyspace.w,
            conflicts: match keyspace.conflicts {
                Conflicts::Siblings => "siblings",
                Conflicts::LastWriteWins => "lww",
            },
            options: keyspace.options.clone(),
        })
    }

    fn text(&self) -> String {
        match self {
            Item::Identity {
                file,
                kind,
                format,
                node,
                incarnation,
                partitions,
                data_cores,
                generation,
            } => format!(
                "{file}: {kind}, format {format}\n\
                 \x20 node {node}\n\
                 \x20 incarnation {incarnation}\n\
                 \x20 {partitions} partitions\n\
                 \x20 {data_cores} data cores\n\
                 \x20 generation {generation}: the engines are in gen-{generation:06}\n\
                 \x20 secret that contexts are checked with: not shown"
            ),
            Item::CleanEnd { file, kind, format, incarnation, at_micros, at } => format!(
                "{file}: {kind}, format {format}\n\
                 \x20 incarnation {incarnation}\n\
                 \x20 ended at {at} ({at_micros} microseconds since the Unix epoch)"
            ),
            Item::View { file, kind, format, cluster, founding, seen_by } => format!(
                "{file}: {kind}, format {format}\n\
                 \x20 cluster {cluster}\n\
                 \x20 founding settings {founding}\n\
                 \x20 seen by node {seen_by}"
            ),
            Item::Keyspaces { file, kind, format, keyspaces } => {
                format!("{file}: {kind}, format {format}\n\x20 {keyspaces} keyspaces")
            }
            Item::Member(member) => member.text(),
            Item::Keyspace(keyspace) => keyspace.text(),
            Item::Placement { epoch, partitions, places } => {
                format!(
                    "  placement of epoch {epoch}: {partitions} partitions, {places} places each"
                )
            }
            Item::Placed { placed, rack, weight } => {
                format!("    node {placed} on rack {rack:?}, weight {weight}")
            }
            Item::Partition { partition, nodes } => {
                format!("    partition {partition}: {}", nodes.join(" "))
            }
        }
    }
}

impl MemberItem {
    fn text(&self) -> String {
        format!(
            "  member {}: {}, incarnation {}, clients at {}, peers at {}, rack {:?}, weight {}, \
             {} data cores, generation {}, version {}, heartbeat {}",
            self.member,
            self.standing,
            self.incarnation,
            self.clients,
            self.peers,
            self.rack,
            self.weight,
            self.cores,
            self.generation,
            self.version,
            self.beat
        )
    }
}

impl KeyspaceItem {
    fn text(&self) -> String {
        let options: String =
            self.options.iter().map(|(name, value)| format!(" {name}={value}")).collect();
        format!(
            "  keyspace {} ({}): n={} r={} w={} conflicts={}{options}, version {} by node {}{}",
            self.keyspace,
            self.id,
            self.n,
            self.r,
            self.w,
            self.conflicts,
            self.version,
            self.author,
            if self.dropped { ", dropped" } else { "" }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_small_file_is_told_with_what_it_is() {
        let mut table = vec![1; 2 * PAGE];
        table[PAGE..PAGE + 8].copy_from_slice(b"CORTABLE");
        for (bytes, words) in [
            (&b""[..], "is empty"),
            (&[0; 9], "nothing but zeros"),
            (b"CRNTLOG\0", "coronet log dump"),
            (b"CRNTMAN\0", "coronet manifest dump"),
            (&table, "coronet sst dump"),
            (b"#!/bin/sh", "node, clean, cluster, keyspaces"),
        ] {
            let Finding { offset, what } = foreign(bytes);
            assert_eq!(offset, 0);
            assert!(what.contains(words), "{what}");
        }
    }
}
