//! `coronet ls`: keys as they arrive, with a cursor to go on from when a limit ends the listing.

use std::io::Write;

use coronet_net::client::{Client, ListOptions, ListedKey, Position};
use coronet_net::codec::Cursor;
use serde::Serialize;

use super::exit::{CliError, Exit};
use super::options::LsArgs;
use super::print_json;
use super::render::{Encoded, token};

#[derive(Serialize)]
struct KeyJson {
    key: String,
    encoding: &'static str,
    bytes: u64,
    versions: u16,
    hlc: u64,
}

#[derive(Serialize)]
struct CursorJson {
    cursor: String,
}

/// `ls`.
pub async fn ls(client: &Client, args: &LsArgs) -> Result<Exit, CliError> {
    let prefix = std::os::unix::ffi::OsStrExt::as_bytes(args.prefix.as_os_str());
    let mut options = ListOptions::new().request(args.read.options());
    if let Some(cursor) = &args.cursor {
        let position = Position::from_bytes(&cursor.0)
            .ok_or_else(|| CliError::new(Exit::Usage, "the cursor is cut off"))?;
        options = options.start(position);
    }
    if let Some(limit) = args.limit {
        // One key more than wanted tells whether anything is left.
        options = options.page(u32::try_from(limit).unwrap_or(u32::MAX).saturating_add(1));
    }
    let mut listing = client.list_with(prefix, options);
    let mut out = Output::new(args.json);
    let mut last: Option<ListedKey> = None;
    let mut left = args.limit.unwrap_or(u64::MAX);
    while let Some(key) = listing.next().await? {
        if left == 0 {
            out.flush()?;
            return more(client, prefix, last.as_ref(), args);
        }
        left -= 1;
        out.key(&key)?;
        last = Some(key);
    }
    out.flush()?;
    Ok(Exit::Ok)
}

/// Says where a later listing goes on: right after the last key shown.
fn more(
    client: &Client,
    prefix: &[u8],
    last: Option<&ListedKey>,
    args: &LsArgs,
) -> Result<Exit, CliError> {
    let cursor = match last {
        Some(last) => {
            let layout = client.layout();
            let (partition, _) = layout.place(&last.key);
            let mut bytes = partition.0.to_le_bytes().to_vec();
            let place = Cursor { partition, last_key: &last.key };
            place.encode(client.keyspace_id(), prefix, layout.partitions(), &mut bytes);
            token(&bytes)
        }
        // Nothing was shown: a later listing begins where this one did.
        None => match &args.cursor {
            Some(cursor) => token(&cursor.0),
            None => token(&Position::default().to_bytes()),
        },
    };
    if args.json {
        print_json(&CursorJson { cursor })?;
    } else {
        eprintln!("more: --cursor {cursor}");
    }
    Ok(Exit::Ok)
}

/// Keys on standard output, many to a write.
struct Output {
    json: bool,
    buffer: Vec<u8>,
}

/// Bytes gathered before they are written.
const GATHER: usize = 32 << 10;

impl Output {
    fn new(json: bool) -> Output {
        Output { json, buffer: Vec::with_capacity(GATHER + 4096) }
    }

    fn key(&mut self, listed: &ListedKey) -> Result<(), CliError> {
        if self.json {
            let Encoded { value: key, encoding } = Encoded::of(&listed.key);
            let (bytes, versions, hlc) = (listed.bytes, listed.versions, listed.hlc.0);
            let line = KeyJson { key, encoding, bytes, versions, hlc };
            serde_json::to_writer(&mut self.buffer, &line)
                .map_err(|e| CliError::new(Exit::Failed, format!("making JSON: {e}")))?;
        } else {
            // Writing to a Vec cannot fail.
            let _ = self.buffer.write_all(&listed.key);
        }
        self.buffer.push(b'\n');
        if self.buffer.len() >= GATHER { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), CliError> {
        super::print(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }
}
