//! `coronet bench`: arguments, the phases of a run (fill, warm-up, measurement) and what is asked
//! of the server and the kernel between them. The loop is in `generator`, protocols are `Driver`s.

pub mod connection;
pub mod coronet;
pub mod driver;
pub mod generator;
pub mod keys;
pub mod process;
pub mod random;
pub mod raw;
pub mod record;
pub mod report;
pub mod resp;
pub mod server_side;

use std::time::Duration;

use coronet_net::Quorum;
use coronet_ring::KeyspaceId;
use driver::{BenchError, Driver, Op};
use generator::{Generator, PhaseResult, Plan, Setup, Work};
use keys::{Distribution, KeyFormat, KeyPicker, MAX_KEYS, Values};
use report::{Cpu, Fill, Report};
use server_side::{Counters, Storage};

use crate::cli::options::{Durability, quorum};

/// Measures a server. A closed loop keeps every connection at its depth; with --rate requests
/// start at their intended times whatever the server does, and the response time counts from the
/// intended start (no coordinated omission). The generator uses one thread; whether it was itself
/// the limit is seen from its share of a core in the report.
#[derive(Clone, Debug, clap::Args)]
pub struct BenchArgs {
    /// Drive a RESP server (Redis) at this address instead.
    #[arg(long, value_name = "HOST:PORT")]
    pub resp: Option<String>,
    /// Drive a responder of fixed-size frames at this address instead, reads only.
    #[arg(long, value_name = "HOST:PORT", conflicts_with_all = ["resp", "load", "load_only"])]
    pub raw: Option<String>,
    /// Bytes of a request to such a responder.
    #[arg(long, value_name = "BYTES", default_value_t = 68, requires = "raw")]
    pub raw_request: u32,
    /// Bytes of its reply.
    #[arg(long, value_name = "BYTES", default_value_t = 1126, requires = "raw")]
    pub raw_reply: u32,
    /// Connections, spread evenly over the cores of the server, of all nodes in a cluster.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub connections: u32,
    /// Requests in flight on each connection.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub depth: u32,
    /// Number of keys.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=MAX_KEYS))]
    pub keys: u64,
    /// Bytes of each value; values are incompressible and name their key.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(0..=16_777_216))]
    pub value_size: u32,
    /// Bytes of each key.
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub key_size: u32,
    /// What every key begins with.
    #[arg(long, default_value = "bench:")]
    pub prefix: String,
    /// Reads in a hundred requests; the rest are writes.
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u32).range(0..=100))]
    pub read_percent: u32,
    /// How keys are picked.
    #[arg(long, value_enum, default_value_t = Distribution::Uniform)]
    pub distribution: Distribution,
    /// Exponent of the zipfian and latest distributions.
    #[arg(long, default_value_t = 0.99, value_parser = positive)]
    pub zipf: f64,
    /// Length of the measurement (10 when --requests is not given either).
    #[arg(long, value_parser = positive)]
    pub seconds: Option<f64>,
    /// Stop after this many requests.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub requests: Option<u64>,
    /// Seconds of the same load before the measurement.
    #[arg(long, default_value_t = 0.0, value_parser = not_negative)]
    pub warmup: f64,
    /// Requests a second by the clock (open loop).
    #[arg(long, value_parser = positive)]
    pub rate: Option<f64>,
    /// Store every key once before measuring.
    #[arg(long)]
    pub load: bool,
    /// Store every key and measure nothing else.
    #[arg(long, conflicts_with_all = ["load", "seconds", "requests", "rate"])]
    pub load_only: bool,
    /// When a write counts as done.
    #[arg(long, value_enum, default_value_t = Durability::Durable)]
    pub durability: Durability,
    /// Replicas a read waits for: a number, quorum or all (0: the server's default).
    #[arg(long, value_name = "N|quorum|all", default_value = "0", value_parser = quorum)]
    pub r: Quorum,
    /// Replicas a write waits for, as --r.
    #[arg(long, value_name = "N|quorum|all", default_value = "0", value_parser = quorum)]
    pub w: Quorum,
    /// Count replicas of the key only, no nodes that stand in for them.
    #[arg(long)]
    pub strict: bool,
    /// Compare the content of every value read, not only its length.
    #[arg(long)]
    pub check: bool,
    /// Pin the generator to this processor.
    #[arg(long, value_name = "CPU")]
    pub pin: Option<usize>,
    /// Report the processor time of the server process with this id, of several together.
    #[arg(long, value_name = "PID,..", value_delimiter = ',')]
    pub server_pid: Vec<u32>,
    /// Seed of the key choice.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// No line every second.
    #[arg(long)]
    pub quiet: bool,
    /// Print the result as JSON.
    #[arg(long)]
    pub json: bool,
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number.is_finite() => Ok(number),
        _ => Err("a number above 0 is wanted".into()),
    }
}

fn not_negative(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number >= 0.0 && number.is_finite() => Ok(number),
        _ => Err("a number of at least 0 is wanted".into()),
    }
}

/// Runs the benchmark, a Coronet server's in this keyspace, and returns its report.
pub fn run(addr: &str, keyspace: &str, args: &BenchArgs) -> Result<Report, BenchError> {
    if let Some(cpu) = args.pin
        && !core_affinity::set_for_current(core_affinity::CoreId { id: cpu })
    {
        return Err(BenchError::Refused(format!("cannot run on processor {cpu}")));
    }
    raise_open_files(u64::from(args.connections) + 64);
    match (&args.resp, &args.raw) {
        (Some(resp), _) => measure(resp::RespDriver::new(resp), "resp", resp, args),
        (None, Some(raw)) => {
            let value = args.value_size as usize;
            let (request, reply) = (args.raw_request as usize, args.raw_reply as usize);
            let driver = raw::RawDriver::new(raw, request, reply, value)?;
            let args = &BenchArgs { read_percent: 100, ..args.clone() };
            measure(driver, "raw", raw, args)
        }
        (None, None) => {
            let BenchArgs { durability, r, w, strict, .. } = *args;
            let keyspace = KeyspaceId::of(keyspace);
            let asked = coronet::Asked { durability, r, w, strict, keyspace };
            let driver = coronet::CoronetDriver::new(addr, asked, args.depth)?;
            measure(driver, "coronet", addr, args)
        }
    }
}

/// Asks for enough file descriptors; when the limit forbids it, connecting says so.
fn raise_open_files(wanted: u64) {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < wanted) {
        limit.current = Some(limit.maximum.map_or(wanted, |maximum| maximum.min(wanted)));
        let _ = setrlimit(Resource::Nofile, limit);
    }
}

/// What is read off the kernel and the server around a phase.
struct Readings {
    own: u64,
    server: Option<u64>,
    counters: Option<Counters>,
}

impl Readings {
    fn take<D: Driver>(driver: &mut D, args: &BenchArgs) -> Result<Readings, BenchError> {
        let counters = driver.counters()?;
        let own = process::cpu_micros(std::process::id())?;
        let mut server = (!args.server_pid.is_empty()).then_some(0);
        for pid in &args.server_pid {
            server = Some(server.unwrap_or(0) + process::cpu_micros(*pid)?);
        }
        Ok(Readings { own, server, counters })
    }
}

fn measure<D: Driver>(
    driver: D,
    target: &'static str,
    addr: &str,
    args: &BenchArgs,
) -> Result<Report, BenchError> {
    let setup = Setup {
        connections: args.connections as usize,
        depth: args.depth as usize,
        keys: args.keys,
        format: KeyFormat::new(&args.prefix, args.key_size as usize),
        values: Values::new(args.value_size as usize),
        check: args.check,
    };
    let mut generator = Generator::open(driver, setup, |core| {
        let seed = args.seed.wrapping_mul(0x9E37_79B9).wrapping_add(core as u64);
        KeyPicker::new(args.distribution, args.keys, args.zipf, seed)
    })?;
    let progress = !args.quiet;
    let fill_plan = Plan { work: Work::Fill, rate: None, time: None, requests: None, progress };
    let mut fill = None;
    if args.load {
        let done = generator.run(fill_plan)?;
        fill = Some(Fill { seconds: done.window.as_secs_f64(), keys: args.keys });
    }
    let default_time = (args.requests.is_none() && !args.load_only).then_some(10.0);
    let plan = if args.load_only {
        fill_plan
    } else {
        Plan {
            work: Work::Mix(args.read_percent),
            rate: args.rate,
            time: args.seconds.or(default_time).map(Duration::from_secs_f64),
            requests: args.requests,
            progress,
        }
    };
    if args.warmup > 0.0 && !args.load_only {
        let time = Some(Duration::from_secs_f64(args.warmup));
        generator.run(Plan { time, requests: None, ..plan })?;
    }
    let before = Readings::take(generator.driver(), args)?;
    let started = std::time::Instant::now();
    let result = generator.run(plan)?;
    let whole = started.elapsed();
    let after = Readings::take(generator.driver(), args)?;
    Ok(report(target, addr, args, &result, fill, (&before, &after, whole)))
}

fn report(
    target: &'static str,
    addr: &str,
    args: &BenchArgs,
    result: &PhaseResult,
    fill: Option<Fill>,
    (before, after, whole): (&Readings, &Readings, Duration),
) -> Report {
    let replies = result.recorder.replies().max(1) as f64;
    // Processor time was read around the whole phase, so it is divided by all of its replies.
    let cpu = |used: u64| Cpu {
        percent: used as f64 / 1e4 / whole.as_secs_f64().max(1e-9),
        micros_per_request: used as f64 / replies,
    };
    let counters = before.counters.as_ref().zip(after.counters.as_ref());
    let storage = counters.and_then(|(before, after)| Storage::between(before, after));
    let seconds = result.window.as_secs_f64();
    Report {
        target,
        addr: addr.to_owned(),
        loop_kind: if args.rate.is_some() { "open" } else { "closed" },
        rate: args.rate,
        connections: args.connections as usize,
        depth: args.depth as usize,
        keys: args.keys,
        value_size: args.value_size as usize,
        read_percent: if args.load_only { 0 } else { args.read_percent },
        seconds,
        requests: result.in_window,
        throughput: result.in_window as f64 / seconds.max(1e-9),
        request_bytes: result.sent_bytes as f64 / replies,
        reply_bytes: result.received_bytes as f64 / replies,
        unsent: result.unsent,
        get: result.recorder.figures(Op::Get),
        put: result.recorder.figures(Op::Put),
        errors: result.recorder.errors.clone(),
        generator: cpu(after.own.saturating_sub(before.own)),
        server: before.server.zip(after.server).map(|(b, a)| cpu(a.saturating_sub(b))),
        storage,
        fill,
    }
}
