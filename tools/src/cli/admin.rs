//! What an operator asks of one node: the scrub, quarantine, checkpoints.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::time::Duration;

use clap::Args;
use coronet_net::client::{Client, RequestOptions};
use coronet_net::codec::{Admin, StatsReply};

use super::exit::{CliError, Exit};
use super::{print, print_json};

/// How long a node may take: a checkpoint copies logs and links every table.
const PATIENCE: Duration = Duration::from_secs(600);
/// Pause between two looks at the progress of a pass.
const LOOK: Duration = Duration::from_millis(200);

/// `scrub`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true))]
pub struct ScrubArgs {
    /// Read so much per second from now on, all cores together, until the node restarts: bytes, or
    /// with KiB, MiB or GiB, such as 10MiB/s. 0 stops the scrub.
    #[arg(long, value_name = "RATE", value_parser = rate, group = "what")]
    pub rate: Option<u64>,
    /// Begin a new pass over all tables at once.
    #[arg(long, group = "what")]
    pub now: bool,
    /// Wait until the pass is over, with its progress. Ends with code 8 when keys are in
    /// quarantine then.
    #[arg(long, requires = "now")]
    pub wait: bool,
    /// Print the node's numbers as JSON.
    #[arg(long)]
    pub json: bool,
}

/// `accept-loss`.
#[derive(Debug, Args)]
pub struct AcceptLossArgs {
    /// Needed: what is lost stays lost, and reads no longer say so.
    #[arg(long, required = true)]
    pub yes: bool,
    /// Print the node's numbers as JSON.
    #[arg(long)]
    pub json: bool,
}

/// `checkpoint`.
#[derive(Debug, Args)]
pub struct CheckpointArgs {
    /// Its name: letters, digits, `.`, `_` and `-`. The copy is in DIR/checkpoints/NAME.
    #[arg(value_parser = name)]
    pub name: String,
    /// Print the node's numbers as JSON.
    #[arg(long)]
    pub json: bool,
}

fn name(text: &str) -> Result<String, String> {
    if coronet_net::codec::is_checkpoint_name(text) {
        return Ok(text.to_owned());
    }
    let most = coronet_net::codec::MAX_CHECKPOINT_NAME;
    Err(format!("use 1 to {most} letters, digits, `.`, `_`, `-`, and no dot at the beginning"))
}

/// Bytes per second.
fn rate(text: &str) -> Result<u64, String> {
    let text = text.strip_suffix("/s").unwrap_or(text);
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("B", 0), ("", 0)];
    let parsed = units.iter().find_map(|(unit, shift)| {
        let number = text.strip_suffix(unit)?.trim_end().parse::<u64>().ok()?;
        number.checked_mul(1 << shift)
    });
    parsed.ok_or_else(|| "use a number of bytes, or one with KiB, MiB or GiB".to_owned())
}

async fn ask(client: &Client, action: Admin<'_>) -> Result<StatsReply, CliError> {
    let options = RequestOptions::new().deadline(PATIENCE);
    Ok(client.admin(action, &options).await?)
}

fn show(reply: &StatsReply, json: bool, text: String) -> Result<(), CliError> {
    if json {
        let numbers: BTreeMap<_, _> = reply.counters.iter().cloned().collect();
        return print_json(&numbers);
    }
    print(text.as_bytes())
}

/// `scrub`.
pub async fn scrub(client: &Client, args: &ScrubArgs) -> Result<Exit, CliError> {
    if let Some(rate) = args.rate {
        let reply = ask(client, Admin::ScrubRate(rate)).await?;
        let set = reply.get("scrub_bytes_per_second").unwrap_or(0);
        show(&reply, args.json, format!("the scrub reads {set} bytes a second\n"))?;
    }
    if !args.now {
        return Ok(Exit::Ok);
    }
    let before = client.stats().await?.get("engine.scrub_passes").unwrap_or(0);
    let reply = ask(client, Admin::ScrubNow).await?;
    show(&reply, args.json, "a pass over all tables began\n".to_owned())?;
    if !args.wait {
        return Ok(Exit::Ok);
    }
    let over = before + reply.get("scrub_passes_begun").unwrap_or(0);
    let shown = std::io::stderr().is_terminal();
    let stats = loop {
        let stats = client.stats().await?;
        if stats.get("engine.scrub_passes").unwrap_or(0) >= over {
            break stats;
        }
        if shown {
            eprint!("\r{} bytes to go  ", stats.get("engine.scrub_left_bytes").unwrap_or(0));
        }
        tokio::time::sleep(LOOK).await;
    };
    if shown {
        eprintln!();
    }
    let lost = stats.get("engine.lost_ranges").unwrap_or(0);
    print(format!("the pass is over; {lost} key ranges are in quarantine\n").as_bytes())?;
    Ok(if lost > 0 { Exit::Data } else { Exit::Ok })
}

/// `accept-loss`.
pub async fn accept_loss(client: &Client, args: &AcceptLossArgs) -> Result<Exit, CliError> {
    let reply = ask(client, Admin::AcceptLoss).await?;
    let ranges = reply.get("accepted_ranges").unwrap_or(0);
    show(&reply, args.json, format!("{ranges} key ranges are given up\n"))?;
    Ok(Exit::Ok)
}

/// `checkpoint`.
pub async fn checkpoint(client: &Client, args: &CheckpointArgs) -> Result<Exit, CliError> {
    let reply = ask(client, Admin::Checkpoint { name: &args.name }).await?;
    let get = |name: &str| reply.get(name).unwrap_or(0);
    let text = format!(
        "checkpoints/{} has {} tables ({} bytes, shared) and {} bytes of log\n",
        args.name,
        get("tables"),
        get("linked_bytes"),
        get("copied_bytes"),
    );
    show(&reply, args.json, text)?;
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_units() {
        assert_eq!(rate("0"), Ok(0));
        assert_eq!(rate("1000B/s"), Ok(1000));
        assert_eq!(rate("10MiB/s"), Ok(10 << 20));
        assert_eq!(rate("2 GiB"), Ok(2 << 30));
        for bad in ["", "MiB", "-1", "1.5MiB", "10MB", "99999999999GiB"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
    }
}
