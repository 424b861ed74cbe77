//! The list of acknowledged keys: one line for each, written before anything else happens, so that
//! after a crash of either side it is known what the server promised to keep.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// Appends acknowledged keys to a file.
#[derive(Debug)]
pub struct Journal {
    file: File,
}

impl Journal {
    /// Opens the journal for appending, creating it when needed.
    pub fn append_to(path: &Path) -> io::Result<Journal> {
        Ok(Journal { file: File::options().create(true).append(true).open(path)? })
    }

    /// Records a key; handed to the kernel when this returns.
    pub fn record(&mut self, key: &[u8]) -> io::Result<()> {
        let mut line = encode(key);
        line.push(b'\n');
        self.file.write_all(&line)
    }
}

/// The keys of a journal.
///
/// # Errors
/// When the file cannot be read, or a line of it is none of ours.
pub fn read(path: &Path) -> io::Result<Vec<Vec<u8>>> {
    parse(&std::fs::read(path)?).map_err(|number| {
        let message = format!("{}:{number}: not a journal line", path.display());
        io::Error::new(io::ErrorKind::InvalidData, message)
    })
}

/// The keys in the bytes of a journal. A last line without its end was being written when the
/// process died and is left out. The error is the number of the line, from 1, that is none of ours.
pub fn parse(bytes: &[u8]) -> Result<Vec<Vec<u8>>, usize> {
    let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
    bytes[..whole]
        .split_inclusive(|&byte| byte == b'\n')
        .enumerate()
        .map(|(number, line)| decode(&line[..line.len() - 1]).ok_or(number + 1))
        .collect()
}

/// Percent-encoding of everything that is not printable ASCII, and of the percent sign.
pub fn encode(key: &[u8]) -> Vec<u8> {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut line = Vec::with_capacity(key.len() + 16);
    for &byte in key {
        if matches!(byte, b'!'..=b'~') && byte != b'%' {
            line.push(byte);
        } else {
            line.extend_from_slice(&[
                b'%',
                HEX[usize::from(byte >> 4)],
                HEX[usize::from(byte & 15)],
            ]);
        }
    }
    line
}

fn decode(line: &[u8]) -> Option<Vec<u8>> {
    let mut key = Vec::with_capacity(line.len());
    let mut rest = line;
    while let Some((&first, after)) = rest.split_first() {
        if first == b'%' {
            let high = char::from(*after.first()?).to_digit(16)?;
            let low = char::from(*after.get(1)?).to_digit(16)?;
            key.push((high * 16 + low) as u8);
            rest = &after[2..];
        } else {
            key.push(first);
            rest = after;
        }
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_key_survives(key: Vec<u8>) {
            let line = encode(&key);
            prop_assert!(line.iter().all(|byte| (b'!'..=b'~').contains(byte)));
            prop_assert_eq!(decode(&line), Some(key));
        }
    }

    #[test]
    fn a_torn_last_line_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("acked");
        let keys = [&b"plain"[..], b"new\nline", b"100%", b"\xff\x00"];
        let mut journal = Journal::append_to(&path).unwrap();
        for key in keys {
            journal.record(key).unwrap();
        }
        let mut again = File::options().append(true).open(&path).unwrap();
        again.write_all(b"tor").unwrap();
        assert_eq!(read(&path).unwrap(), keys);
    }

    #[test]
    fn garbage_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("acked");
        std::fs::write(&path, "fine\n%zz\n").unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains(":2:"), "{error}");
    }
}
