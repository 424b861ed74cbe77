//! Creating, changing and listing keyspaces.
//!
//! Settings travel as names and values in text, so that nodes of different versions agree on what
//! they do not know. Little endian.

use coronet_ring::KeyspaceId;
use coronet_ring::bytes::Reader;

use super::{DecodeError, finished, read_short, write_short};

/// Most settings of a keyspace.
pub const MAX_SETTINGS: usize = 96;
/// Most keyspaces of one answer.
const MAX_LISTED: usize = 1100;

/// What a KEYSPACE request wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum KeyspaceAction {
    /// A new keyspace with these settings; defaults for the others.
    Create = 1,
    /// Every keyspace, or the named one if the name is not empty.
    List = 2,
    /// Other values for these settings; the others stay. An empty value is the default.
    Alter = 3,
}

impl KeyspaceAction {
    fn from_u8(number: u8) -> Option<Self> {
        [Self::Create, Self::List, Self::Alter].into_iter().find(|action| *action as u8 == number)
    }
}

/// The body of a KEYSPACE request: action u8, name (u16 length, UTF-8), settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyspaceRequest<'a> {
    /// What to do.
    pub action: KeyspaceAction,
    /// The keyspace's name.
    pub name: &'a str,
    /// The settings.
    pub settings: Settings<'a>,
}

impl<'a> KeyspaceRequest<'a> {
    pub(super) fn write(&self, body: &mut Vec<u8>) {
        body.push(self.action as u8);
        write_short(body, |body| body.extend_from_slice(self.name.as_bytes()));
        body.extend_from_slice(self.settings.0);
    }

    pub(super) fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let action = reader.u8().ok_or(DecodeError::Truncated("action"))?;
        let action =
            KeyspaceAction::from_u8(action).ok_or(DecodeError::OutOfBounds("keyspace action"))?;
        let name = read_text(&mut reader, "keyspace name")?;
        let settings = Settings::read(&mut reader)?;
        finished(&reader)?;
        Ok(Self { action, name, settings })
    }
}

/// Settings as bytes: count u16; each name and value, u16 length and UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings<'a>(&'a [u8]);

impl<'a> Settings<'a> {
    /// No settings.
    pub const NONE: Settings<'static> = Settings(&[0, 0]);

    /// Writes settings into a buffer and borrows it. More than [`MAX_SETTINGS`] are left out.
    pub fn encode<'s>(
        settings: impl IntoIterator<Item = (&'s str, &'s str)>,
        into: &'a mut Vec<u8>,
    ) -> Self {
        into.clear();
        write_settings(settings, into);
        Settings(into)
    }

    /// Name and value of each.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let mut reader = Reader::new(self.0);
        let count = reader.u16().unwrap_or_default();
        (0..count).map_while(move |_| {
            let name = read_text(&mut reader, "setting").ok()?;
            Some((name, read_text(&mut reader, "setting").ok()?))
        })
    }

    /// Takes settings from the front of `reader`.
    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let all = reader.rest();
        let mut reading = Reader::new(all);
        let count = reading.u16().ok_or(DecodeError::Truncated("settings"))?;
        if usize::from(count) > MAX_SETTINGS {
            return Err(DecodeError::OutOfBounds("number of settings"));
        }
        for _ in 0..count * 2 {
            read_text(&mut reading, "setting")?;
        }
        let used = all.len() - reading.len();
        *reader = Reader::new(&all[used..]);
        Ok(Settings(&all[..used]))
    }
}

fn write_settings<'s>(settings: impl IntoIterator<Item = (&'s str, &'s str)>, into: &mut Vec<u8>) {
    let at = into.len();
    into.extend_from_slice(&[0; 2]);
    let mut count = 0_u16;
    for (name, value) in settings.into_iter().take(MAX_SETTINGS) {
        write_short(into, |into| into.extend_from_slice(name.as_bytes()));
        write_short(into, |into| into.extend_from_slice(value.as_bytes()));
        count += 1;
    }
    into[at..at + 2].copy_from_slice(&count.to_le_bytes());
}

fn read_text<'a>(reader: &mut Reader<'a>, what: &'static str) -> Result<&'a str, DecodeError> {
    std::str::from_utf8(read_short(reader, what)?).map_err(|_| DecodeError::Text(what))
}

/// A keyspace as a node knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyspaceInfo {
    /// Its id.
    pub id: KeyspaceId,
    /// The version of its definition; zero when it was never defined, as the default one at first.
    pub version: u64,
    /// Its name.
    pub name: String,
    /// Names and values of its settings.
    pub settings: Vec<(String, String)>,
}

/// The answer to KEYSPACE: count u16; each id u32, version u64, name (u16 length, UTF-8), settings.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeyspaceReply {
    /// The keyspaces: those listed, or the one created or altered as it is now.
    pub keyspaces: Vec<KeyspaceInfo>,
}

impl KeyspaceReply {
    /// Appends the body.
    pub fn write(&self, body: &mut Vec<u8>) {
        let listed = self.keyspaces.len().min(MAX_LISTED);
        body.extend_from_slice(&(listed as u16).to_le_bytes()); // bounded above
        for keyspace in self.keyspaces.iter().take(listed) {
            body.extend_from_slice(&keyspace.id.0.to_le_bytes());
            body.extend_from_slice(&keyspace.version.to_le_bytes());
            write_short(body, |body| body.extend_from_slice(keyspace.name.as_bytes()));
            let settings = keyspace.settings.iter();
            write_settings(settings.map(|(name, value)| (name.as_str(), value.as_str())), body);
        }
    }

    /// Decodes the body.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let count = usize::from(reader.u16().ok_or(DecodeError::Truncated("keyspaces"))?);
        if count > MAX_LISTED {
            return Err(DecodeError::OutOfBounds("number of keyspaces"));
        }
        let mut keyspaces = Vec::new();
        for _ in 0..count {
            let (Some(id), Some(version)) = (reader.u32(), reader.u64()) else {
                return Err(DecodeError::Truncated("keyspace"));
            };
            let name = read_text(&mut reader, "keyspace name")?.to_owned();
            let settings = Settings::read(&mut reader)?;
            let settings = settings.iter().map(|(a, b)| (a.to_owned(), b.to_owned())).collect();
            keyspaces.push(KeyspaceInfo { id: KeyspaceId(id), version, name, settings });
        }
        finished(&reader)?;
        Ok(Self { keyspaces })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn requests_and_replies_come_back_and_no_cut_is_taken(
            action in 1_u8..4, name in "\\PC{0,20}",
            settings in prop::collection::vec(("\\PC{0,10}", "\\PC{0,30}"), 0..8),
            id: u32, version: u64, cut: prop::sample::Index,
        ) {
            let pairs = settings.iter().map(|(a, b)| (a.as_str(), b.as_str()));
            let (mut buffer, mut body) = (Vec::new(), Vec::new());
            let request = KeyspaceRequest {
                action: KeyspaceAction::from_u8(action).unwrap(),
                name: &name,
                settings: Settings::encode(pairs.clone(), &mut buffer),
            };
            request.write(&mut body);
            prop_assert_eq!(KeyspaceRequest::decode(&body), Ok(request));
            prop_assert!(request.settings.iter().eq(pairs));
            prop_assert!(KeyspaceRequest::decode(&body[..cut.index(body.len())]).is_err());
            let info = KeyspaceInfo { id: KeyspaceId(id), version, name, settings };
            let reply = KeyspaceReply { keyspaces: vec![info.clone(), info] };
            let mut body = Vec::new();
            reply.write(&mut body);
            prop_assert_eq!(KeyspaceReply::decode(&body), Ok(reply));
            prop_assert!(KeyspaceReply::decode(&body[..cut.index(body.len())]).is_err());
        }

        #[test]
        fn any_bytes_are_refused_or_read(body in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = KeyspaceReply::decode(&body);
            if let Ok(request) = KeyspaceRequest::decode(&body) {
                let mut again = Vec::new();
                request.write(&mut again);
                prop_assert_eq!(again, body);
            }
        }
    }

    #[test]
    fn too_many_settings_are_refused() {
        let mut body = vec![1, 0, 0];
        body.extend_from_slice(&(MAX_SETTINGS as u16 + 1).to_le_bytes());
        let error = KeyspaceRequest::decode(&body).unwrap_err();
        assert_eq!(error, DecodeError::OutOfBounds("number of settings"));
    }
}
