//! What came of a transfer, for people and for scripts.

use serde::Serialize;

use super::journal;
use super::progress::Progress;
use super::walk::Skip;

/// Counts of what was left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// Symbolic links.
    pub links: u64,
    /// Sockets, pipes, devices.
    pub special: u64,
    /// Files and folders that could not be read.
    pub unreadable: u64,
    /// Files over the limit of a value.
    pub too_large: u64,
}

impl Skipped {
    /// Counts what was skipped and tells the user, except for links, of which trees are full.
    pub fn count(&mut self, skip: &Skip, progress: &Progress) {
        match skip {
            Skip::Link => self.links += 1,
            Skip::Special(path) => {
                self.special += 1;
                progress.note(&format!("skipped {}: not a regular file", path.display()));
            }
            Skip::Unreadable(path, cause) => {
                self.unreadable += 1;
                progress.note(&format!("skipped {}: {cause}", path.display()));
            }
            Skip::TooLarge(path, bytes) => {
                self.too_large += 1;
                let path = path.display();
                progress.note(&format!("skipped {path}: {bytes} bytes are over the limit"));
            }
        }
    }
}

/// The end of a load or a verification.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Summary {
    /// Files stored, or compared and found equal.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What was left out.
    pub skipped: Skipped,
    /// Keys without a value (verification).
    pub missing: u64,
    /// Keys with other bytes than the file (verification).
    pub different: u64,
    /// Seconds it took.
    pub seconds: f64,
}

impl Summary {
    /// Whether the verification found a difference.
    pub fn is_clean(&self) -> bool {
        self.missing == 0 && self.different == 0
    }

    /// One or two lines; `verb` says what was done with the files.
    pub fn text(&self, verb: &str) -> String {
        let rate = self.bytes as f64 / self.seconds.max(1e-3) / f64::from(1 << 20);
        let mut text = format!(
            "{verb} {} files, {} bytes in {:.1} s ({rate:.1} MiB/s)",
            self.files, self.bytes, self.seconds
        );
        let skipped = &self.skipped;
        let parts = [
            (skipped.links, "links"),
            (skipped.special, "special files"),
            (skipped.unreadable, "unreadable"),
            (skipped.too_large, "over the limit"),
        ];
        let left_out: Vec<String> = parts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        if !left_out.is_empty() {
            text.push_str(&format!("; skipped: {}", left_out.join(", ")));
        }
        if !self.is_clean() {
            text.push_str(&format!("; {} missing, {} different", self.missing, self.different));
        }
        text
    }
}

/// A key as the user sees it.
pub fn shown(key: &[u8]) -> String {
    match std::str::from_utf8(key) {
        Ok(text) if !text.contains(char::is_control) => text.to_owned(),
        _ => String::from_utf8_lossy(&journal::encode(key)).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_names_what_matters() {
        let mut summary = Summary { files: 2, bytes: 1 << 20, seconds: 0.5, ..Summary::default() };
        let text = summary.text("stored");
        assert_eq!(text, "stored 2 files, 1048576 bytes in 0.5 s (2.0 MiB/s)");
        summary.skipped.links = 3;
        summary.missing = 1;
        let text = summary.text("compared");
        assert!(text.ends_with("; skipped: 3 links; 1 missing, 0 different"), "{text}");
        assert!(!summary.is_clean());
    }

    #[test]
    fn odd_keys_are_shown_escaped() {
        assert_eq!(shown("docs/ä b".as_bytes()), "docs/ä b");
        assert_eq!(shown(b"a\nb"), "a%0ab");
        assert_eq!(shown(b"\xff"), "%ff");
    }
}
