//! Progress of a transfer: a bar on a terminal, a plain line now and then elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

/// Between two plain lines.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Shows how far a transfer is.
pub struct Progress {
    verb: &'static str,
    bar: Option<ProgressBar>,
    started: Instant,
    last_line: Instant,
    files: u64,
    bytes: u64,
}

impl Progress {
    /// A display that begins each line with `verb`; `quiet` shows nothing.
    pub fn new(verb: &'static str, quiet: bool) -> Progress {
        let bar = (!quiet && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::no_length();
            let template = "{spinner} {prefix} {human_pos} files  {msg}  {elapsed}";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.set_prefix(verb);
            bar
        });
        let now = Instant::now();
        // A quiet display never reaches its next line.
        let last_line = if quiet { now + Duration::from_secs(u64::from(u32::MAX)) } else { now };
        Progress { verb, bar, started: now, last_line, files: 0, bytes: 0 }
    }

    /// One more file of this many bytes is done.
    pub fn file(&mut self, bytes: u64) {
        self.files += 1;
        self.bytes += bytes;
        if let Some(bar) = &self.bar {
            bar.set_position(self.files);
            bar.set_message(self.amount());
        } else if self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            eprintln!("{} {} files  {}", self.verb, self.files, self.amount());
        }
    }

    /// A line for the user that does not disturb the bar.
    pub fn note(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{line}")),
            None => eprintln!("{line}"),
        }
    }

    /// Removes the bar; returns the seconds since the start.
    pub fn finish(&self) -> f64 {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        self.started.elapsed().as_secs_f64()
    }

    fn amount(&self) -> String {
        let rate = self.bytes as f64 / self.started.elapsed().as_secs_f64().max(1e-3);
        format!("{}  {}/s", HumanBytes(self.bytes), HumanBytes(rate as u64))
    }
}
