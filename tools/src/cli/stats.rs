//! `stats`: what a node counted, for people as a few tables, for machines as JSON.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use coronet_net::client::Client;
use coronet_net::codec::StatsReply;

use super::exit::{CliError, Exit};
use super::options::StatsArgs;
use super::{print, print_json};
use crate::bench::server_side::{Counters, Storage};

/// `stats`: any core answers for the whole node.
pub async fn stats(client: &Client, args: &StatsArgs) -> Result<Exit, CliError> {
    let stats = client.stats().await?;
    if args.json {
        let counters: BTreeMap<_, _> =
            stats.counters.iter().map(|(name, value)| (name, value)).collect();
        print_json(&counters)?;
    } else if args.all {
        print(all_counters(&stats).as_bytes())?;
    } else {
        let keyspaces = client.keyspaces().await?;
        let names = keyspaces.into_iter().map(|keyspace| (keyspace.id.0, keyspace.name)).collect();
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = Page { stats: &stats, names: &names, out: &mut out }.write();
        print(out.as_bytes())?;
    }
    Ok(Exit::Ok)
}

/// A line for each counter, in the server's order.
fn all_counters(stats: &StatsReply) -> String {
    let width = stats.counters.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut table = String::new();
    for (name, value) in &stats.counters {
        // Writing to a String cannot fail.
        let _ = writeln!(table, "{name:<width$} {value:>20}");
    }
    table
}

/// The number of the keyspace in which nodes keep hints.
const HINTS: u32 = 1;

/// Columns of the table of levels and the counters they show.
const LEVEL: [(&str, &str); 7] = [
    ("tables", "tables"),
    ("runs", "runs"),
    ("MiB", "bytes"),
    ("MiB written", "written_bytes"),
    ("MiB merged", "read_bytes"),
    ("looked into", "probes"),
    ("filtered", "filter_skips"),
];

/// Columns of the table of keyspaces and the counters they show.
const KEYSPACE: [(&str, &str); 8] = [
    ("entries", "entries_written"),
    ("MiB in", "logical_bytes"),
    ("MiB flushed", "flush_bytes"),
    ("MiB compacted", "compaction_write_bytes"),
    ("write ampl", "table_write_amplification_percent"),
    ("MiB", "table_bytes"),
    ("space ampl", "space_amplification_percent"),
    ("tables/read", "read_amplification_percent"),
];

/// The page for people, in the making.
struct Page<'a> {
    stats: &'a StatsReply,
    /// Names of keyspaces by their numbers in counters.
    names: &'a BTreeMap<u32, String>,
    out: &'a mut String,
}

impl Page<'_> {
    fn get(&self, name: &str) -> u64 {
        self.stats.get(name).unwrap_or(0)
    }

    fn write(mut self) -> std::fmt::Result {
        let node = ["connections", "requests", "puts", "gets", "deletes", "multi_gets", "lists"];
        let counts: Vec<_> = node
            .iter()
            .map(|name| format!("{} {name}", self.get(&format!("node.{name}"))))
            .collect();
        writeln!(self.out, "node        {}", counts.join(", "))?;
        let trouble =
            ["protocol_errors", "deadline_exceeded", "in_doubt", "stuck_cores"].map(|name| {
                format!("{} {}", self.get(&format!("node.{name}")), name.replace('_', " "))
            });
        writeln!(self.out, "trouble     {}", trouble.join(", "))?;
        let now = Counters::new(self.stats.counters.iter().cloned());
        if let Some(storage) = Storage::between(&Counters::default(), &now) {
            storage.write_text(self.out)?;
        }
        self.damage()?;
        let levels = self.groups("engine.level", |rest| rest.split_once('_').map(|(n, _)| n));
        let levels: Vec<_> = levels
            .into_iter()
            .filter(|n| {
                let written = self.get(&format!("engine.level{n}_written_bytes"));
                written > 0 || self.get(&format!("engine.level{n}_bytes")) > 0
            })
            .map(|n| (n, n.to_string()))
            .collect();
        self.table("level", &levels, &LEVEL, |n, name| format!("engine.level{n}_{name}"))?;
        let keyspaces = self.groups("keyspace.", |rest| rest.split_once('.').map(|(id, _)| id));
        let keyspaces: Vec<_> = keyspaces.into_iter().map(|id| (id, self.name_of(id))).collect();
        self.table("keyspace", &keyspaces, &KEYSPACE, |id, name| format!("keyspace.{id}.{name}"))
    }

    fn damage(&mut self) -> std::fmt::Result {
        let names = ["lost_ranges", "damaged_blocks", "damaged_tables", "scrub_passes"];
        let [lost, blocks, tables, passes] = names.map(|name| self.get(&format!("engine.{name}")));
        let names = ["unreadable_blocks", "rewritten_tables", "refused_tables", "refused_blocks"];
        let [unreadable, rewritten, put_aside, given_up] =
            names.map(|name| self.get(&format!("engine.{name}")));
        let (read, left) = (self.get("engine.scrub_bytes"), self.get("engine.scrub_left_bytes"));
        let (read, left) = (megabytes(read), megabytes(left));
        writeln!(
            self.out,
            "damage      {lost} key ranges in quarantine; {blocks} blocks, {tables} tables found; \
             {rewritten} tables written anew"
        )?;
        writeln!(
            self.out,
            "unreadable  {unreadable} blocks refused to the scrub; {put_aside} tables put aside by \
             merges, {given_up} blocks given up"
        )?;
        writeln!(self.out, "scrub       {passes} passes, {read} MiB read, {left} MiB to go")
    }

    /// What a keyspace is called: those that nodes have for themselves have no name.
    fn name_of(&self, id: u32) -> String {
        self.names.get(&id).cloned().unwrap_or_else(|| match id {
            HINTS => "(hints)".to_owned(),
            id => id.to_string(),
        })
    }

    /// The numbers that follow `prefix` in counter names, rising.
    fn groups(&self, prefix: &str, number: impl Fn(&str) -> Option<&str>) -> Vec<u32> {
        let names = self.stats.counters.iter().filter_map(|(name, _)| name.strip_prefix(prefix));
        let numbers: BTreeSet<u32> = names.filter_map(|rest| number(rest)?.parse().ok()).collect();
        numbers.into_iter().collect()
    }

    fn table(
        &mut self,
        title: &str,
        rows: &[(u32, String)],
        columns: &[(&str, &str)],
        counter: impl Fn(u32, &str) -> String,
    ) -> std::fmt::Result {
        if rows.is_empty() {
            return Ok(());
        }
        let width = rows.iter().map(|(_, name)| name.len() + 2).max().unwrap_or(0).max(10);
        write!(self.out, "{title:<width$}")?;
        for (head, _) in columns {
            write!(self.out, "  {head:>11}")?;
        }
        writeln!(self.out)?;
        for (row, title) in rows {
            write!(self.out, "  {title:<0$}", width - 2)?;
            for (head, name) in columns {
                let value = self.get(&counter(*row, name));
                let text = match *head {
                    head if head.starts_with("MiB") => megabytes(value),
                    _ if name.ends_with("_percent") => format!("{:.2}", value as f64 / 100.0),
                    _ => value.to_string(),
                };
                write!(self.out, "  {text:>width$}", width = head.len().max(11))?;
            }
            writeln!(self.out)?;
        }
        Ok(())
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(counters: &[(&str, u64)]) -> StatsReply {
        let counters = counters.iter().map(|(name, value)| ((*name).to_owned(), *value));
        StatsReply { counters: counters.collect() }
    }

    #[test]
    fn all_counters_are_a_line_each() {
        let table = all_counters(&reply(&[("a", 1), ("long.name", u64::MAX)]));
        let lines: Vec<Vec<&str>> =
            table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines, [vec!["a", "1"], vec!["long.name", "18446744073709551615"]]);
    }

    #[test]
    fn the_page_has_levels_in_use_and_every_keyspace() {
        let stats = reply(&[
            ("node.puts", 12),
            ("engine.user_bytes", 1 << 20),
            ("engine.log_bytes", 3 << 20),
            ("engine.level0_written_bytes", 0),
            ("engine.level0_bytes", 0),
            ("engine.level1_tables", 4),
            ("engine.level1_written_bytes", 2 << 20),
            ("engine.lost_ranges", 3),
            ("keyspace.0.entries_written", 7),
            ("keyspace.12.table_write_amplification_percent", 250),
            ("latency.put.upto_127_micros", 12),
        ]);
        let mut out = String::new();
        let names = BTreeMap::from([(0, "default".to_owned())]);
        Page { stats: &stats, names: &names, out: &mut out }.write().unwrap();
        let rows: Vec<Vec<&str>> =
            out.lines().map(|line| line.split_whitespace().collect()).collect();
        assert!(rows.contains(&vec!["1", "4", "0", "0.0", "2.0", "0.0", "0", "0"]), "{out}");
        assert!(!rows.iter().any(|row| row[..] == ["0", "0", "0", "0.0", "0.0", "0.0", "0", "0"]));
        let first = ["default", "7", "0.0", "0.0", "0.0", "0.00", "0.0", "0.00", "0.00"];
        assert!(rows.iter().any(|row| row[..] == first), "{out}");
        let twelfth = ["12", "0", "0.0", "0.0", "0.0", "2.50", "0.0", "0.00", "0.00"];
        assert!(rows.iter().any(|row| row[..] == twelfth), "{out}");
        for part in ["12 puts", "write amplification 3.00", "p99 127", "3 key ranges"] {
            assert!(out.contains(part), "{part} is not in\n{out}");
        }
    }
}
