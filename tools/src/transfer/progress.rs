//! Progress of a transfer: a bar on a terminal, a plain line now and then elsewhere.

use std::io::IsTerminal;
use std::path::Path;
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

use super::walk::walk;

/// Between two plain lines.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Before the number of files is known, and after.
const WITHOUT_END: &str = "{spinner} {prefix} {human_pos} files  {msg}  {elapsed}";
const WITH_END: &str =
    "{prefix} [{bar:30}] {percent} %  {human_pos} of {human_len} files  {msg}  {eta} left";

/// How many files a transfer goes through.
#[derive(Clone, Copy, Debug)]
pub enum Expected<'a> {
    /// Those of this tree, counted while the transfer runs.
    Tree(&'a Path),
    /// So many.
    Files(u64),
}

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
    pub fn new(verb: &'static str, quiet: bool, expected: Expected<'_>) -> Progress {
        let bar = (!quiet && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::no_length();
            set_style(&bar, WITHOUT_END);
            bar.set_prefix(verb);
            set_end(&bar, expected);
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

fn set_style(bar: &ProgressBar, template: &str) {
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
}

/// Gives the bar its end as soon as that is known.
fn set_end(bar: &ProgressBar, expected: Expected<'_>) {
    match expected {
        Expected::Files(files) => draw_end(bar, files),
        Expected::Tree(root) => {
            let (bar, root) = (bar.clone(), root.to_owned());
            std::thread::spawn(move || {
                if let Some(files) = count(&root, || !bar.is_finished()) {
                    draw_end(&bar, files);
                }
            });
        }
    }
}

fn draw_end(bar: &ProgressBar, files: u64) {
    bar.set_length(files);
    set_style(bar, WITH_END);
}

/// The files of a tree; `None` when nobody wants to know any more.
fn count(root: &Path, wanted: impl Fn() -> bool) -> Option<u64> {
    let mut files = 0;
    walk(root, &mut |found| {
        files += u64::from(found.is_ok());
        wanted()
    });
    wanted().then_some(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_gets_an_end_and_the_templates_are_sound() {
        for template in [WITHOUT_END, WITH_END] {
            ProgressStyle::with_template(template).unwrap();
        }
        let bar = ProgressBar::hidden();
        assert_eq!(bar.length(), None);
        set_end(&bar, Expected::Files(7));
        assert_eq!(bar.length(), Some(7));
    }

    #[test]
    fn files_are_counted_while_somebody_wants_to_know() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("folder")).unwrap();
        for name in ["a", "b", "folder/c"] {
            std::fs::write(root.path().join(name), name).unwrap();
        }
        assert_eq!(count(root.path(), || true), Some(3));
        assert_eq!(count(root.path(), || false), None);
    }
}
