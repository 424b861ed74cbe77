//! Definitions from the settings clients send, and as clients read them.

use coronet_net::Quorum;
use coronet_net::codec::{KeyspaceInfo, KeyspaceRequest};
use coronet_ring::NodeId;
use coronet_ring::causality::resolve::Conflicts;
use coronet_ring::gossip::keyspace::{DEFAULT_NAME, Keyspace};

use super::engine::EngineSettings;

const SIBLINGS: &str = "siblings";
const LAST_WRITE_WINS: &str = "lww";

/// The default keyspace as it is before anybody defines it.
pub fn default_keyspace(n: u8) -> Keyspace {
    blank(DEFAULT_NAME, n)
}

fn blank(name: &str, n: u8) -> Keyspace {
    Keyspace {
        name: name.to_owned(),
        version: 0,
        author: NodeId(0),
        dropped: false,
        n,
        r: n / 2 + 1,
        w: n / 2 + 1,
        conflicts: Conflicts::Siblings,
        options: Vec::new(),
    }
}

/// The definition a CREATE asks for. `n`: replicas when it does not say; `nodes`: the most there
/// can be.
pub fn created(request: &KeyspaceRequest<'_>, n: u8, nodes: u8) -> Result<Keyspace, String> {
    let mut n = n;
    for (_, value) in request.settings.iter().filter(|(name, _)| *name == "n") {
        n = number("n", value)?;
    }
    if n == 0 || n > nodes {
        return Err(format!("n is {n}, use 1 to {nodes}: so many nodes can hold a key here"));
    }
    let mut keyspace = blank(request.name, n);
    set(&mut keyspace, request)?;
    Ok(keyspace)
}

/// The definition an ALTER asks for.
pub fn altered(request: &KeyspaceRequest<'_>, present: &Keyspace) -> Result<Keyspace, String> {
    for (_, value) in request.settings.iter().filter(|(name, _)| *name == "n") {
        if number("n", value)? != present.n {
            return Err(format!("n stays {}: it cannot be changed", present.n));
        }
    }
    let mut keyspace = present.clone();
    set(&mut keyspace, request)?;
    Ok(keyspace)
}

fn set(keyspace: &mut Keyspace, request: &KeyspaceRequest<'_>) -> Result<(), String> {
    for (name, value) in request.settings.iter() {
        match name {
            "n" => {}
            "r" => keyspace.r = quorum(name, value, keyspace.n)?,
            "w" => keyspace.w = quorum(name, value, keyspace.n)?,
            "conflicts" => {
                keyspace.conflicts = match value {
                    SIBLINGS | "" => Conflicts::Siblings,
                    LAST_WRITE_WINS => Conflicts::LastWriteWins,
                    _ => {
                        let known = format!("use {SIBLINGS} or {LAST_WRITE_WINS}");
                        return Err(format!("conflicts is `{value}`, {known}"));
                    }
                }
            }
            _ => set_option(&mut keyspace.options, name, value),
        }
    }
    EngineSettings::parse(&keyspace.options)?;
    keyspace.check().map_err(|error| error.to_string())
}

/// Sets an option in the sorted list; an empty value removes it.
fn set_option(options: &mut Vec<(String, String)>, name: &str, value: &str) {
    let found = options.binary_search_by(|(known, _)| known.as_str().cmp(name));
    match (found, value.is_empty()) {
        (Ok(at), true) => drop(options.remove(at)),
        (Ok(at), false) => value.clone_into(&mut options[at].1),
        (Err(_), true) => {}
        (Err(at), false) => options.insert(at, (name.to_owned(), value.to_owned())),
    }
}

fn number(name: &str, value: &str) -> Result<u8, String> {
    value.parse().map_err(|_| format!("{name} is `{value}`, use a number from 1"))
}

fn quorum(name: &str, value: &str, n: u8) -> Result<u8, String> {
    let asked = match value {
        "" | "quorum" | "majority" => Quorum::MAJORITY,
        "all" => Quorum::ALL,
        "one" => Quorum(1),
        // The numbers beyond are those of words.
        value => match number(name, value)? {
            number if number > n => Quorum(n.saturating_add(1)),
            number => Quorum(number),
        },
    };
    let wrong = || format!("{name} is `{value}`, use one, quorum, all or a number from 1 to {n}");
    match asked {
        Quorum(0) => Err(wrong()),
        asked => asked.resolve(n).ok_or_else(wrong),
    }
}

/// The definition of a node in no cluster as a cluster takes it that has `known`: N, R and W of
/// that, or else those of `n` replicas, are what a node alone could not choose.
pub fn in_cluster(alone: Keyspace, known: Option<&Keyspace>, n: u8) -> Keyspace {
    let (n, r, w) = known.map_or((n, n / 2 + 1, n / 2 + 1), |known| (known.n, known.r, known.w));
    Keyspace { n, r, w, ..alone }
}

/// Whether two definitions say the same, whoever made them and when.
pub fn same_settings(a: &Keyspace, b: &Keyspace) -> bool {
    (a.n, a.r, a.w, a.conflicts, &a.options) == (b.n, b.r, b.w, b.conflicts, &b.options)
}

/// A definition as clients read it.
pub fn info(keyspace: &Keyspace) -> KeyspaceInfo {
    let conflicts = match keyspace.conflicts {
        Conflicts::Siblings => SIBLINGS,
        Conflicts::LastWriteWins => LAST_WRITE_WINS,
    };
    let pair = |name: &str, value: String| (name.to_owned(), value);
    let mut settings = vec![
        pair("n", keyspace.n.to_string()),
        pair("r", keyspace.r.to_string()),
        pair("w", keyspace.w.to_string()),
        pair("conflicts", conflicts.to_owned()),
    ];
    settings.extend(keyspace.options.iter().cloned());
    let (id, version, name) = (keyspace.id(), keyspace.version, keyspace.name.clone());
    KeyspaceInfo { id, version, name, settings }
}

#[cfg(test)]
mod tests {
    use coronet_net::codec::{KeyspaceAction, Settings};

    use super::*;

    fn create(name: &str, settings: &[(&str, &str)]) -> Result<Keyspace, String> {
        let mut buffer = Vec::new();
        let settings = Settings::encode(settings.iter().copied(), &mut buffer);
        created(&KeyspaceRequest { action: KeyspaceAction::Create, name, settings }, 3, 5)
    }

    fn alter(present: &Keyspace, settings: &[(&str, &str)]) -> Result<Keyspace, String> {
        let mut buffer = Vec::new();
        let settings = Settings::encode(settings.iter().copied(), &mut buffer);
        let name = &present.name;
        altered(&KeyspaceRequest { action: KeyspaceAction::Alter, name, settings }, present)
    }

    #[test]
    fn settings_make_a_definition_and_come_back() {
        let plain = create("carts", &[]).unwrap();
        assert_eq!((plain.n, plain.r, plain.w), (3, 2, 2));
        let asked = [("n", "5"), ("r", "one"), ("w", "all"), ("conflicts", "lww"), ("ttl", "1h")];
        let keyspace = create("carts", &asked).unwrap();
        let listed = info(&keyspace);
        let listed: Vec<_> =
            listed.settings.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        let wanted = [("n", "5"), ("r", "1"), ("w", "5"), ("conflicts", "lww"), ("ttl", "1h")];
        assert_eq!(listed, wanted);
        assert!(same_settings(&create("carts", &listed).unwrap(), &keyspace));
    }

    #[test]
    fn an_alteration_changes_what_it_names_and_an_empty_value_is_the_default() {
        let present = create("carts", &[("ttl", "1h"), ("r", "1")]).unwrap();
        let now = alter(&present, &[("compaction", "tiered"), ("ttl", "")]).unwrap();
        assert_eq!((now.r, now.options.len()), (1, 1));
        assert_eq!(now.options[0].0, "compaction");
        assert_eq!(alter(&present, &[("n", "3"), ("r", "")]).unwrap().r, 2);
        assert!(alter(&present, &[("n", "2")]).unwrap_err().contains("n stays 3"));
    }

    #[test]
    fn what_a_node_alone_defined_gets_the_replicas_of_the_cluster() {
        let alone = Keyspace { version: 4, ..blank("notes", 1) };
        let joined = in_cluster(alone.clone(), None, 3);
        assert_eq!((joined.n, joined.r, joined.w, joined.version), (3, 2, 2, 4));
        // One that the cluster had before keeps its replicas.
        let known = Keyspace { n: 2, r: 1, w: 2, version: 1, ..alone.clone() };
        let joined = in_cluster(alone, Some(&known), 3);
        assert_eq!((joined.n, joined.r, joined.w, joined.version), (2, 1, 2, 4));
    }

    #[test]
    fn impossible_settings_are_refused() {
        for settings in [
            [("n", "0")],
            [("n", "6")],
            [("n", "x")],
            [("r", "0")],
            [("r", "4")],
            [("w", "254")],
            [("w", "255")],
            [("conflicts", "maybe")],
            [("compaction", "best")],
            [("color", "red")],
        ] {
            assert!(create("carts", &settings).is_err(), "{settings:?}");
        }
        for name in ["", "a b", "käse"] {
            assert!(create(name, &[]).is_err(), "{name:?}");
        }
    }
}
