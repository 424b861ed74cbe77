//! What can be wrong with the bytes of a small file of a data folder, and where.

use thiserror::Error;

/// Something wrong in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{what}")]
pub struct Flaw {
    /// Byte offset in the file.
    pub offset: u64,
    /// What is wrong there.
    pub what: Wrong,
}

/// What is wrong. The text goes on after the file's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Wrong {
    /// It has no bytes.
    #[error("is empty")]
    Empty,
    /// All of its bytes are zero.
    #[error("holds nothing but zeros")]
    Zeros,
    /// It begins with something else.
    #[error("is not {0} of Coronet")]
    Foreign(&'static str),
    /// It ends before what it should hold.
    #[error("is cut off")]
    CutOff,
    /// It was written by a later release.
    #[error("has format version {found}, this release reads version {supported}; upgrade coronetd")]
    Version {
        /// Its version.
        found: u32,
        /// The version this release reads.
        supported: u32,
    },
    /// Bytes changed since they were written.
    #[error("does not match its checksum")]
    Checksum,
    /// The checksum is right and the content is not.
    #[error("holds {0}")]
    Nonsense(&'static str),
}

impl Flaw {
    /// At `offset`, `what`.
    pub(crate) fn new(offset: usize, what: Wrong) -> Self {
        Flaw { offset: offset as u64, what }
    }

    /// Checks that the bytes begin with `magic`, as `name` does, and says what they are if not.
    pub(crate) fn unless_begins(
        bytes: &[u8],
        magic: &[u8; 8],
        name: &'static str,
    ) -> Result<(), Flaw> {
        if bytes.is_empty() {
            Err(Flaw::new(0, Wrong::Empty))
        } else if bytes.starts_with(magic) {
            Ok(())
        } else if bytes.iter().all(|byte| *byte == 0) {
            Err(Flaw::new(0, Wrong::Zeros))
        } else if magic.starts_with(bytes) {
            Err(Flaw::new(bytes.len(), Wrong::CutOff))
        } else {
            Err(Flaw::new(0, Wrong::Foreign(name)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_beginnings_are_told_apart() {
        let check = |bytes: &[u8]| Flaw::unless_begins(bytes, b"CORONETN", "an identity file");
        assert_eq!(check(b"CORONETN rest"), Ok(()));
        for (bytes, offset, text) in [
            (&b""[..], 0, "is empty"),
            (&[0; 20], 0, "holds nothing but zeros"),
            (b"CORO", 4, "is cut off"),
            (b"CORTABLE", 0, "is not an identity file of Coronet"),
        ] {
            let flaw = check(bytes).unwrap_err();
            assert_eq!((flaw.offset, flaw.to_string().as_str()), (offset, text));
        }
    }
}
