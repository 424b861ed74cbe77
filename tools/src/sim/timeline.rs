//! A run as a page for a browser: nodes and clients as lanes, messages between them, faults,
//! operations, failures. One file that loads nothing else.

use super::record::{Event, EventKind, Lane};

/// Messages drawn at most: the last ones, which are nearest to the failure.
const MOST_MESSAGES: usize = 100_000;

/// The page: `title`, a line about the run, and its events.
pub fn page(title: &str, about: &str, events: &[Event]) -> String {
    let mut lanes: Vec<Lane> = events.iter().map(|event| event.lane).collect();
    lanes.extend(events.iter().filter_map(|event| event.to.map(Lane::Host)));
    lanes.sort();
    lanes.dedup();
    let place = |lane: Lane| lanes.binary_search(&lane).unwrap_or(0);
    let is_message = |event: &Event| matches!(event.kind, EventKind::Message | EventKind::Chatter);
    let messages = events.iter().filter(|event| is_message(event)).count();
    let mut skip = messages.saturating_sub(MOST_MESSAGES);
    let mut rows = Vec::new();
    for event in events {
        if is_message(event) && skip > 0 {
            skip -= 1;
            continue;
        }
        let to = event.to.map_or(-1, |to| place(Lane::Host(to)) as i64);
        rows.push(serde_json::json!([
            event.kind as u8,
            place(event.lane),
            to,
            event.from / 1_000,
            event.until / 1_000,
            event.text
        ]));
    }
    let names: Vec<String> = lanes.iter().map(Lane::to_string).collect();
    include_str!("timeline.html")
        .replace("@title@", &escape(title))
        .replace("@about@", &escape(about))
        .replace("@lanes@", &data(&serde_json::json!(names)))
        .replace("@events@", &data(&serde_json::Value::Array(rows)))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Data inside a script: nothing in it may look like the script's end.
fn data(value: &serde_json::Value) -> String {
    value.to_string().replace('<', "\\u003c")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_on_the_page_and_nothing_ends_its_script() {
        let event = |kind, lane, to, text: &str| Event {
            kind,
            from: 1_000,
            until: 3_000,
            lane,
            to,
            text: text.to_owned(),
        };
        let events = [
            event(EventKind::Message, Lane::Host(0), Some(1), "12 bytes"),
            event(EventKind::Failure, Lane::Client(0), None, "lost </script>"),
        ];
        let page = page("seed 7 <b>", "three nodes", &events);
        assert!(page.contains(r#"["node-1","node-2","client-1"]"#), "{page}");
        assert!(page.contains(r#"[0,0,1,1,3,"12 bytes"]"#), "{page}");
        assert!(page.contains("seed 7 &lt;b&gt;") && page.contains("three nodes"));
        assert_eq!(page.matches("</script>").count(), 1);
        assert!(!page.contains("http"), "nothing is loaded from elsewhere");
    }
}
