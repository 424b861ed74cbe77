//! Where nodes are reached.

use super::ClientError;
use crate::DEFAULT_PORT;

/// One or more addresses of a cluster, each `host:port`; the port may be left out. Any node leads
/// to all others; several are named so that one may be down.
///
/// Made from a text with commas between addresses, or from a list of texts.
///
/// ```
/// use coronet_net::client::Addresses;
///
/// let text = Addresses::from("10.0.0.1,10.0.0.2:4730");
/// assert_eq!(text, Addresses::from(["10.0.0.1", "10.0.0.2:4730"]));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses(Vec<String>);

impl Addresses {
    /// The addresses, parsed.
    pub(super) fn parse(&self) -> Result<Vec<Address>, ClientError> {
        match self.0.is_empty() {
            true => Err(ClientError::Address(String::new())),
            false => self.0.iter().map(|text| Address::parse(text)).collect(),
        }
    }
}

impl From<&str> for Addresses {
    fn from(text: &str) -> Self {
        Self(text.split(',').map(|address| address.trim().to_owned()).collect())
    }
}

impl From<String> for Addresses {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

impl From<&String> for Addresses {
    fn from(text: &String) -> Self {
        text.as_str().into()
    }
}

impl<S: AsRef<str>> From<&[S]> for Addresses {
    fn from(list: &[S]) -> Self {
        Self(list.iter().map(|address| address.as_ref().to_owned()).collect())
    }
}

impl<S: AsRef<str>, const N: usize> From<[S; N]> for Addresses {
    fn from(list: [S; N]) -> Self {
        list.as_slice().into()
    }
}

impl<S: AsRef<str>> From<Vec<S>> for Addresses {
    fn from(list: Vec<S>) -> Self {
        list.as_slice().into()
    }
}

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub host: String,
    pub port: u16,
}

impl Address {
    /// Reads `host`, `host:port`, `[v6]`, `[v6]:port` or a bare `v6` address.
    pub fn parse(text: &str) -> Result<Self, ClientError> {
        let bad = || ClientError::Address(text.to_owned());
        let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, "")) => (host, None),
            Some((host, rest)) => (host, Some(rest.strip_prefix(':').ok_or_else(bad)?)),
            None if text.matches(':').count() > 1 => (text, None),
            None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
        };
        let port = port.map_or(Ok(DEFAULT_PORT), |port| port.parse().map_err(|_| bad()))?;
        if host.is_empty() || port == 0 {
            return Err(bad());
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, host, port) in [
            ("localhost", "localhost", 4720),
            ("10.0.0.1:99", "10.0.0.1", 99),
            ("[::1]:99", "::1", 99),
            ("[::1]", "::1", 4720),
            ("::1", "::1", 4720),
        ] {
            let parsed = Address::parse(text).unwrap();
            assert_eq!((parsed.host.as_str(), parsed.port), (host, port), "{text}");
        }
        for text in ["", ":1", "h:", "h:0", "h:70000", "h:x", "[::1]x"] {
            assert!(Address::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn several_addresses() {
        let ports = |addresses: Addresses| -> Vec<u16> {
            addresses.parse().unwrap().into_iter().map(|address| address.port).collect()
        };
        assert_eq!(ports("a:1, b:2,c".into()), [1, 2, 4720]);
        assert_eq!(ports(vec!["a:1".to_owned(), "b".to_owned()].into()), [1, 4720]);
        assert!(Addresses::from("a,,b").parse().is_err());
        assert!(Addresses::from(Vec::<String>::new()).parse().is_err());
    }
}
