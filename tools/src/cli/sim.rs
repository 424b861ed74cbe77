//! `coronet sim`: simulated clusters, seed by seed, until one fails or time is over.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::ops::Range;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use coronet_probe::{AVAILABLE, Bug, Mark};

use super::exit::{CliError, Exit};
use crate::bench::process::cpu_micros;
use crate::sim::checkers::plot;
use crate::sim::checkers::staleness::Staleness;
use crate::sim::cluster::fault::Fault;
use crate::sim::cluster::operations::Chosen;
use crate::sim::cluster::{self, Options, Report, minimize};
use crate::sim::{light, record, timeline};

/// Between two lines about progress.
const PROGRESS: Duration = Duration::from_secs(10);
/// Failed seeds after which looking for more is no use.
const ENOUGH: usize = 20;
/// Seeds in which each mistake is looked for.
#[cfg(debug_assertions)]
const MOST_SEEDS: u64 = 300;
/// Reads of a setting that say something about how stale reads are.
const FEWEST_READS: u64 = 50;
/// Runs to make one failure smaller.
const MOST_RUNS: u64 = 500;

/// What to simulate.
#[derive(Debug, Args)]
pub struct SimArgs {
    /// Simulate this one.
    #[arg(long, value_name = "N", conflicts_with = "seeds")]
    pub seed: Option<u64>,
    /// Simulate these, the last one not included. Without either: seeds from 0 on.
    #[arg(long, value_name = "A..B", value_parser = range)]
    pub seeds: Option<Range<u64>>,
    /// Stop after so many minutes.
    #[arg(long, value_name = "M")]
    pub minutes: Option<f64>,
    /// Nodes of every cluster, 1 to 9; drawn per seed when absent.
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u8).range(1..=9))]
    pub nodes: Option<u8>,
    /// Kinds of faults, with commas between: all of these, nothing else. Drawn per seed when absent.
    #[arg(long, value_name = "LIST", value_enum, value_delimiter = ',')]
    pub faults: Option<Vec<Fault>>,
    /// Of the faults a seed plans only those with these numbers.
    #[arg(long, value_name = "LIST", value_delimiter = ',', num_args = 0..)]
    pub strikes: Option<Vec<u64>>,
    /// Clients of every cluster; drawn per seed when absent.
    #[arg(long, value_name = "K")]
    pub clients: Option<u64>,
    /// Keys at most.
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u64).range(1..))]
    pub keys: Option<u64>,
    /// Seconds of faults per cluster, such as 8 or 1.25; drawn per seed when absent.
    #[arg(long, value_name = "S", value_parser = millis)]
    pub seconds: Option<u64>,
    /// Of what clients plan to do only these steps: 1.4,2.7-9 are step 4 of client 1 and steps 7
    /// to 9 of client 2; 1.4@2.5 begins 2.5 simulated seconds after the beginning of the run.
    #[arg(long, value_name = "LIST", num_args = 0..=1, default_missing_value = "")]
    pub operations: Option<Chosen>,
    /// Simulate so many nodes without data instead: gossip, failure detectors, placement.
    #[arg(long, value_name = "NODES", value_parser = clap::value_parser!(u16).range(1..=2000))]
    pub light: Option<u16>,
    /// Make every failing run smaller, by up to 500 further runs.
    #[arg(long)]
    pub minimize: bool,
    /// Write what happened in every failing run, or in that of --seed, into this folder: as text
    /// and as a page for a browser.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Let the nodes make a mistake, to see it found; see docs/SEEDED_BUGS.md.
    #[cfg(debug_assertions)]
    #[arg(long, value_name = "NAME", value_parser = bug)]
    pub bug: Option<Bug>,
    /// Find every mistake there is from seed 0 on, and print the table of docs/SEEDED_BUGS.md.
    #[cfg(debug_assertions)]
    #[arg(long)]
    pub all_bugs: bool,
    /// Print a line for every seed.
    #[arg(long, short)]
    pub verbose: bool,
}

fn range(text: &str) -> Result<Range<u64>, String> {
    let expected = || format!("{text:?} is no range such as 10..20");
    let (from, to) = text.split_once("..").ok_or_else(expected)?;
    let number = |text: &str| text.parse::<u64>().map_err(|_| expected());
    Ok(number(from)?..number(to)?)
}

/// Milliseconds of a number of seconds.
fn millis(text: &str) -> Result<u64, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("{text:?} is no number of seconds"))?;
    let millis = Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())?;
    u64::try_from(millis.as_millis()).map_err(|error| error.to_string())
}

#[cfg(debug_assertions)]
fn bug(name: &str) -> Result<Bug, String> {
    let known = || Bug::ALL.iter().map(|bug| bug.name()).collect::<Vec<_>>().join(", ");
    Bug::by_name(name).ok_or_else(|| format!("no such bug; there are {}", known()))
}

impl SimArgs {
    /// The mistake the nodes shall make: builds without debug assertions have none.
    fn bug(&self) -> Option<Bug> {
        #[cfg(debug_assertions)]
        return self.bug;
        #[cfg(not(debug_assertions))]
        None
    }
}

/// Sums over all seeds.
#[derive(Default)]
struct Totals {
    seeds: u64,
    failed: Vec<u64>,
    simulated: Duration,
    acknowledged: u64,
    reads: u64,
    faults: u64,
    hash: u64,
    marks: BTreeMap<Mark, u64>,
    staleness: Staleness,
}

impl Totals {
    fn add(&mut self, report: &Report) {
        self.seeds += 1;
        self.simulated += report.simulated;
        self.acknowledged += report.acknowledged;
        self.reads += report.reads;
        self.faults += report.faults;
        for (mark, times) in &report.marks {
            *self.marks.entry(*mark).or_default() += times;
        }
        self.staleness.merge(&report.staleness);
        let mut both = self.hash.to_le_bytes().to_vec();
        both.extend_from_slice(&report.hash.to_le_bytes());
        self.hash = xxhash_rust::xxh3::xxh3_64(&both);
        if !report.violations.is_empty() {
            self.failed.push(report.seed);
        }
    }

    fn text(&self) -> String {
        let hours = self.simulated.as_secs_f64() / 3600.0;
        let cpu = cpu_micros(std::process::id()).unwrap_or(0).max(1) as f64 / 3.6e9;
        format!(
            "{} seeds, {hours:.2} h simulated at {:.0} h per CPU hour; {} writes acknowledged, {} \
             reads, {} faults",
            self.seeds,
            hours / cpu,
            self.acknowledged,
            self.reads,
            self.faults
        )
    }
}

/// Every mistake, and who finds it.
#[cfg(debug_assertions)]
fn find_all_bugs() -> Result<Exit, CliError> {
    line("| bug | what is wrong | first found with | by |\n|---|---|---|---|")?;
    let rows = Bug::ALL.iter().map(|bug| cluster::seeded::row(*bug, MOST_SEEDS));
    let found = rows.map(|row| line(&row).map(|()| !row.contains("none below")));
    let all: Result<Vec<bool>, CliError> = found.collect();
    Ok(if all?.contains(&false) { Exit::Data } else { Exit::Ok })
}

/// Runs the seeds; ends with [`Exit::Data`] when one failed.
pub fn run(args: &SimArgs) -> Result<Exit, CliError> {
    #[cfg(debug_assertions)]
    if args.all_bugs {
        return find_all_bugs();
    }
    if let Some(nodes) = args.light {
        return run_light(args, usize::from(nodes));
    }
    let (seeds, options) = (args.seeds(), args.options());
    let (began, limit) = (Instant::now(), args.limit());
    let (mut totals, mut told) = (Totals::default(), began);
    // A panic of a simulated node is a finding, told as one.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    for seed in seeds {
        let report = cluster::run(seed, &options);
        totals.add(&report);
        tell(args, &report)?;
        if !report.violations.is_empty() || args.seed.is_some() {
            examine(args, &options, report)?;
        }
        let over = limit.is_some_and(|limit| began.elapsed() >= limit);
        if over || totals.failed.len() >= ENOUGH {
            break;
        }
        if told.elapsed() >= PROGRESS {
            told = Instant::now();
            eprintln!("{}", totals.text());
        }
    }
    std::panic::set_hook(hook);
    if AVAILABLE {
        let missed: Vec<_> =
            Mark::ALL.iter().filter(|mark| !totals.marks.contains_key(mark)).collect();
        line(&format!("marks never passed: {missed:?}"))?;
    }
    draw_staleness(args, &totals.staleness)?;
    totals.staleness.table(FEWEST_READS).iter().try_for_each(|row| line(row))?;
    totals
        .staleness
        .divergence()
        .iter()
        .try_for_each(|text| line(&format!("staleness: {text}")))?;
    let passed = totals.failed.is_empty();
    let verdict = if passed { "passed".to_owned() } else { format!("FAILED {:?}", totals.failed) };
    line(&format!("{verdict}: {}; trace {:016x}", totals.text(), totals.hash))?;
    Ok(if passed { Exit::Ok } else { Exit::Data })
}

/// Milliseconds of faults in a light world; of more than [`FEW`] nodes, of which every second costs
/// with the square of their number.
const LIGHT_MILLIS: [u64; 2] = [30_000, 10_000];
const FEW: usize = 300;

/// Runs worlds of many nodes without data.
fn run_light(args: &SimArgs, nodes: usize) -> Result<Exit, CliError> {
    let millis = args.seconds.unwrap_or(LIGHT_MILLIS[usize::from(nodes > FEW)]);
    let options = light::Options { nodes, seconds: millis.div_ceil(1_000) };
    let (began, limit) = (Instant::now(), args.limit());
    let (mut failed, mut simulated, mut runs) = (Vec::new(), Duration::ZERO, 0_u64);
    for seed in args.seeds() {
        let report = light::run(seed, &options);
        (simulated, runs) = (simulated + report.simulated, runs + 1);
        line(&format!(
            "seed {seed}: {nodes} nodes, {:.0} s, founded after {:.0} s, agreed {:.0} s after the \
             last of {} faults and changes; {} messages, {:.1} MB; in {:.2} node-hours of calm {} \
             false suspicions and {:.0} bytes of gossip per node and second; a dead node suspected \
             by all after {:.1} s; trace {:016x}",
            report.simulated.as_secs_f64(),
            report.founding.as_secs_f64(),
            report.settling.as_secs_f64(),
            report.strikes,
            report.messages,
            report.bytes as f64 / 1e6,
            report.calm.node_hours,
            report.calm.false_suspicions,
            report.calm.bytes_per_second,
            report.detection.as_secs_f64(),
            report.hash,
        ))?;
        report.violations.iter().try_for_each(|violation| line(&format!("  {violation}")))?;
        if !report.violations.is_empty() {
            failed.push(seed);
        }
        if failed.len() >= ENOUGH || limit.is_some_and(|limit| began.elapsed() >= limit) {
            break;
        }
    }
    let verdict =
        if failed.is_empty() { "passed".to_owned() } else { format!("FAILED {failed:?}") };
    let rate =
        simulated.as_secs_f64() * 1e6 / cpu_micros(std::process::id()).unwrap_or(0).max(1) as f64;
    let hours = simulated.as_secs_f64() / 3600.0;
    line(&format!("{verdict}: {runs} seeds, {hours:.2} h simulated at {rate:.1} h per CPU hour"))?;
    Ok(if failed.is_empty() { Exit::Ok } else { Exit::Data })
}

impl SimArgs {
    fn seeds(&self) -> Range<u64> {
        match (self.seed, &self.seeds) {
            (Some(seed), _) => seed..seed.saturating_add(1),
            (None, Some(seeds)) => seeds.clone(),
            (None, None) => 0..u64::MAX,
        }
    }

    fn limit(&self) -> Option<Duration> {
        self.minutes.map(|minutes| Duration::from_secs_f64(minutes.max(0.0) * 60.0))
    }

    fn options(&self) -> Options {
        Options {
            nodes: self.nodes.map(usize::from),
            faults: self.faults.clone(),
            strikes: self.strikes.as_ref().map(|list| list.iter().copied().collect()),
            clients: self.clients,
            keys: self.keys,
            millis: self.seconds,
            operations: self.operations.clone(),
            record: false,
            bug: self.bug(),
        }
    }
}

/// The command that repeats a run.
fn command(seed: u64, options: &Options) -> String {
    let mut text = format!("coronet sim --seed {seed}");
    let mut add = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            let space = if value.is_empty() { "" } else { " " };
            text.push_str(&format!(" --{name}{space}{value}"));
        }
    };
    let names = |faults: &Vec<Fault>| {
        let names = faults.iter().filter_map(ValueEnum::to_possible_value);
        names.map(|name| name.get_name().to_owned()).collect::<Vec<_>>().join(",")
    };
    let numbers =
        |list: &BTreeSet<u64>| list.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
    add("nodes", options.nodes.map(|nodes| nodes.to_string()));
    add("faults", options.faults.as_ref().map(names));
    add("clients", options.clients.map(|clients| clients.to_string()));
    add("keys", options.keys.map(|keys| keys.to_string()));
    add("seconds", options.millis.map(|millis| (millis as f64 / 1e3).to_string()));
    add("strikes", options.strikes.as_ref().map(numbers));
    add("operations", options.operations.as_ref().map(Chosen::to_string));
    add("bug", options.bug.map(|bug| bug.to_string()));
    text
}

/// Makes a failing run smaller and writes down what happened, as far as asked for.
fn examine(args: &SimArgs, options: &Options, report: Report) -> Result<(), CliError> {
    let (seed, mut options) = (report.seed, options.clone());
    if args.minimize
        && let Some(first) = report.violations.first().cloned()
    {
        let again = |options: &Options| cluster::run(seed, options);
        let smaller = minimize::minimize(&options, report, MOST_RUNS, again);
        options = smaller.options;
        let first = smaller.report.violations.first().unwrap_or(&first);
        let (faults, runs) = (smaller.report.faults, smaller.runs);
        let operations = smaller.report.operations.len();
        let repeat = command(seed, &options);
        line(&format!(
            "seed {seed} made smaller by {runs} runs, {faults} faults and {operations} operations left: \
             {first}; {repeat}"
        ))?;
    }
    let Some(dir) = &args.out else { return Ok(()) };
    let recorded = cluster::run(seed, &Options { record: true, ..options.clone() });
    let failures = match recorded.violations.len() {
        0 => "no failure".to_owned(),
        1 => "one failure".to_owned(),
        more => format!("{more} failures"),
    };
    let title = format!("Seed {seed}: {failures}");
    let about = format!("{}. {}", recorded.setting, command(seed, &options));
    let page = timeline::page(&title, &about, &recorded.events);
    let failed = |e: std::io::Error| CliError::local("writing what happened", &e);
    std::fs::create_dir_all(dir).map_err(failed)?;
    for (end, text) in [("txt", record::lines(&recorded.events)), ("html", page)] {
        let path = dir.join(format!("seed-{seed}.{end}"));
        std::fs::write(&path, text).map_err(failed)?;
        line(&format!("wrote {}", path.display()))?;
    }
    Ok(())
}

fn tell(args: &SimArgs, report: &Report) -> Result<(), CliError> {
    let Report { seed, setting, hash, acknowledged, reads, faults, .. } = report;
    if let Some(first) = report.violations.first() {
        let more = report.violations.len() - 1;
        let repeat = command(*seed, &args.options());
        line(&format!("seed {seed} FAILED: {first} (and {more} more); {repeat}"))?;
    }
    if args.verbose || args.seed.is_some() {
        let seconds = report.simulated.as_secs_f64();
        line(&format!(
            "seed {seed}: {setting}; {seconds:.1} s, {acknowledged} writes, {reads} reads, {faults} \
             faults, trace {hash:016x}"
        ))?;
        report.violations.iter().try_for_each(|violation| line(&format!("  {violation}")))?;
    }
    Ok(())
}

/// Draws how stale reads were, if there is a folder to put the picture into.
fn draw_staleness(args: &SimArgs, staleness: &Staleness) -> Result<(), CliError> {
    let picture = plot::svg(staleness, FEWEST_READS);
    let Some((dir, picture)) = args.out.as_ref().zip(picture) else { return Ok(()) };
    let path = dir.join("staleness.svg");
    let written = std::fs::create_dir_all(dir).and_then(|()| std::fs::write(&path, picture));
    written.map_err(|e| CliError::local("writing the picture of stale reads", &e))?;
    line(&format!("wrote {}", path.display()))
}

fn line(text: &str) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").map_err(|e| CliError::local("writing to standard output", &e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_repeated_by_one_line() {
        let options = Options {
            nodes: Some(3),
            faults: Some(vec![Fault::Kill, Fault::EmptyDisk]),
            strikes: Some(BTreeSet::from([2, 5])),
            millis: Some(4_250),
            operations: Some(Chosen([((1, 3), None)].into())),
            ..Options::default()
        };
        assert_eq!(
            command(7, &options),
            "coronet sim --seed 7 --nodes 3 --faults kill,empty-disk --seconds 4.25 --strikes 2,5 \
             --operations 1.3"
        );
    }

    #[test]
    fn ranges_are_read() {
        assert_eq!(range("10..20"), Ok(10..20));
        assert!(range("10").is_err() && range("a..b").is_err());
    }
}
