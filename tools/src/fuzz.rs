//! Every parser of bytes from outside, by name, for fuzzing.
//!
//! The fuzzer itself is under `fuzz/`, outside the workspace; its corpus is run here by an ordinary
//! test. A target takes any bytes and panics when something is wrong.

use std::path::Path;

use coronet_ring::Table;
use coronet_ring::gossip::message::Message;
use coronet_server::config::Config;
use coronet_server::data_dir::Identity;

use crate::bench::driver::{Driver, Parsed};
use crate::bench::resp::RespDriver;

/// A parser that takes any bytes.
pub type Target = fn(&[u8]);

/// Every target with its name.
pub fn targets() -> Vec<(&'static str, Target)> {
    let own: [(&str, Target); 5] = [
        ("config_file", config_file),
        ("resp_reply", resp_reply),
        ("identity", identity),
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

/// The identity of a data folder, with any checksum and with the right one.
fn identity(bytes: &[u8]) {
    let path = Path::new("node");
    let _ = Identity::decode(path, bytes);
    if bytes.len() >= 68 {
        let mut sealed = bytes.to_vec();
        let sum = crc32c::crc32c(&sealed[..64]);
        sealed[64..68].copy_from_slice(&sum.to_le_bytes());
        let _ = Identity::decode(path, &sealed);
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
