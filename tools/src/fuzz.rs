//! Every parser of bytes from outside, by name, for fuzzing.
//!
//! The fuzzer itself is under `fuzz/`, outside the workspace; its corpus is run here by an ordinary
//! test. A target takes any bytes and panics when something is wrong.

use std::path::Path;

use coronet_lsm::env::PAGE;
use coronet_ring::Table;
use coronet_ring::gossip::codec::encode_keyspaces;
use coronet_ring::gossip::message::Message;
use coronet_server::config::Config;
use coronet_server::data_dir::Identity;
use coronet_server::inspect::{Content, FileKind};

use crate::bench::driver::{Driver, Parsed};
use crate::bench::resp::RespDriver;
use crate::transfer::journal;

/// A parser that takes any bytes.
pub type Target = fn(&[u8]);

/// Every target with its name.
pub fn targets() -> Vec<(&'static str, Target)> {
    let own: [(&str, Target); 9] = [
        ("config_file", config_file),
        ("resp_reply", resp_reply),
        ("identity", identity),
        ("clean_end", clean_end),
        ("kept_view", kept_view),
        ("kept_keyspaces", kept_keyspaces),
        ("load_journal", load_journal),
        ("placement_table", placement_table),
        ("gossip_message", gossip_message),
    ];
    let theirs = coronet_net::fuzz::ENTRIES.iter().chain(coronet_lsm::fuzz::ENTRIES);
    theirs.copied().chain(own).collect()
}

/// The text of a settings file.
fn config_file(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = Config::default().apply_file("fuzz.toml", text);
    }
}

/// Replies of a RESP server, as the load generator reads them.
fn resp_reply(mut bytes: &[u8]) {
    let mut driver = RespDriver::new("unused");
    while let Ok(Parsed::Reply { consumed, .. }) = driver.parse(bytes) {
        assert!(consumed > 0);
        bytes = &bytes[consumed..];
    }
}

/// The identity of a data folder, as it is and with the right checksum.
fn identity(bytes: &[u8]) {
    let _ = Identity::decode(Path::new("node"), bytes);
    let _ = FileKind::Identity.read(&sealed_page(bytes, 64));
}

/// The mark of a clean end, as it is and with the right checksum.
fn clean_end(bytes: &[u8]) {
    let _ = FileKind::CleanEnd.read(bytes);
    let _ = FileKind::CleanEnd.read(&sealed_page(bytes, 32));
}

/// A page that begins with these bytes and has the checksum of the first `body` behind them.
fn sealed_page(bytes: &[u8], body: usize) -> Vec<u8> {
    let mut page = vec![0; PAGE];
    let used = bytes.len().min(body);
    page[..used].copy_from_slice(&bytes[..used]);
    let sum = crc32c::crc32c(&page[..body]);
    page[body..body + 4].copy_from_slice(&sum.to_le_bytes());
    page
}

/// The stored view of a cluster: the bytes as the file, and as the message in it.
fn kept_view(bytes: &[u8]) {
    let _ = FileKind::View.read(bytes);
    let check = xxhash_rust::xxh3::xxh3_64(bytes).to_le_bytes();
    let _ = FileKind::View.read(&sealed_file(b"CORONETC", &[bytes, &check].concat()));
}

/// The stored keyspaces of a node alone: the bytes as the file, and as the list in it.
fn kept_keyspaces(bytes: &[u8]) {
    let _ = FileKind::Keyspaces.read(bytes);
    let file = sealed_file(b"CORONETK", bytes);
    if let Ok(Content::Keyspaces(keyspaces)) = FileKind::Keyspaces.read(&file) {
        let mut again = Vec::new();
        encode_keyspaces(&keyspaces, &mut again);
        assert_eq!(again, bytes);
    }
}

/// A kept file with this content: see View of the cluster in docs/FORMATS.md.
fn sealed_file(magic: &[u8; 8], content: &[u8]) -> Vec<u8> {
    let len = u32::try_from(content.len()).unwrap_or(u32::MAX).to_le_bytes();
    let sum = crc32c::crc32c(content).to_le_bytes();
    let mut file = [magic, &len[..], &sum, content].concat();
    file.resize(file.len().next_multiple_of(PAGE), 0);
    file
}

/// The keys that `coronet load` noted as acknowledged.
fn load_journal(bytes: &[u8]) {
    if let Ok(keys) = journal::parse(bytes) {
        let again: Vec<u8> =
            keys.iter().flat_map(|key| [journal::encode(key), b"\n".to_vec()].concat()).collect();
        assert_eq!(journal::parse(&again).as_ref(), Ok(&keys));
    }
}

/// A placement table, with the right checksum.
fn placement_table(bytes: &[u8]) {
    let check = xxhash_rust::xxh3::xxh3_64(bytes).to_le_bytes();
    let sealed = [bytes, &check].concat();
    if let Ok(table) = Table::decode(&sealed) {
        let mut again = Vec::new();
        table.encode(&mut again);
        assert_eq!(again, sealed);
    }
}

/// A gossip message.
fn gossip_message(bytes: &[u8]) {
    if let Some(message) = Message::decode(bytes) {
        let mut again = Vec::new();
        message.encode(&mut again);
        assert_eq!(Message::decode(&again), Some(message));
    }
}
