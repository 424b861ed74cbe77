//! Bytes as text: values and keys for JSON, contexts and cursors for the command line.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::Serialize;

/// Bytes in JSON: text where they are UTF-8, base64 where they are not.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Encoded {
    /// The bytes in the encoding named beside it.
    pub value: String,
    /// `utf-8` or `base64`.
    pub encoding: &'static str,
}

impl Encoded {
    /// Encodes bytes.
    pub fn of(bytes: &[u8]) -> Encoded {
        match std::str::from_utf8(bytes) {
            Ok(text) => Encoded { value: text.to_owned(), encoding: "utf-8" },
            Err(_) => Encoded { value: STANDARD.encode(bytes), encoding: "base64" },
        }
    }

    /// The bytes for people, on one line: what is not printable ASCII is escaped.
    pub fn shown(&self) -> String {
        let bytes = match self.encoding {
            "base64" => STANDARD.decode(&self.value).unwrap_or_default(),
            _ => self.value.clone().into_bytes(),
        };
        bytes.escape_ascii().to_string()
    }
}

/// An opaque token as an argument can carry it.
pub fn token(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// An opaque token given as an argument: base64url, with or without padding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token(pub Vec<u8>);

impl std::str::FromStr for Token {
    type Err = String;

    fn from_str(text: &str) -> Result<Token, String> {
        let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('='));
        bytes.map(Token).map_err(|e| format!("not base64url: {e}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_text() {
        assert_eq!(Encoded::of("grüß".as_bytes()).value, "grüß");
        let binary = Encoded::of(b"\xff\x00");
        assert_eq!((binary.value.as_str(), binary.encoding), ("/wA=", "base64"));
        assert_eq!(binary.shown(), r"\xff\x00");
        assert_eq!(Encoded::of(b"a\n").shown(), r"a\n");
    }

    #[test]
    fn tokens_survive() {
        for bytes in [&b""[..], b"\xff\xfe\xfd", b"a"] {
            assert_eq!(token(bytes).parse(), Ok(Token(bytes.to_vec())));
        }
        assert!("**".parse::<Token>().is_err());
        assert_eq!("YQ==".parse(), Ok(Token(b"a".to_vec())));
    }
}
