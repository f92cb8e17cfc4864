//! How far long work is, on stderr: a bar on a terminal, a line now and then elsewhere.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Keys.
    Keys,
}

/// A bar, or lines.
pub struct Progress {
    what: &'static str,
    unit: Unit,
    /// `None` where it is not known.
    all: Option<u64>,
    /// Done before this run.
    before: u64,
    begun: Instant,
    said: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Begins; `before` of `all` is done already.
    pub fn new(what: &'static str, unit: Unit, all: Option<u64>, before: u64) -> Progress {
        let now = Instant::now();
        let bar = io::stderr().is_terminal().then(|| {
            let bar = match all {
                Some(all) => ProgressBar::new(all),
                None => ProgressBar::no_length(),
            };
            bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(5));
            let form = match all {
                Some(_) => "{prefix} [{wide_bar}] {percent}% {msg}",
                None => "{prefix} {spinner} {msg}",
            };
            if let Ok(style) = ProgressStyle::with_template(form) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.set_prefix(what);
            bar
        });
        Progress { what, unit, all, before, begun: now, said: now, bar }
    }

    /// So much is done.
    pub fn at(&mut self, done: u64) {
        match &self.bar {
            Some(bar) => {
                bar.set_position(done);
                bar.set_message(self.line(done));
            }
            None if self.said.elapsed() >= LINE_EVERY => {
                self.said = Instant::now();
                // Whoever has closed stderr wants to hear nothing.
                let _ = writeln!(io::stderr(), "{}: {}", self.what, self.line(done));
            }
            None => {}
        }
    }

    /// Says something above the bar.
    pub fn say(&self, text: &str) {
        let say = || {
            let _ = writeln!(io::stderr(), "pelago: {text}");
        };
        match &self.bar {
            Some(bar) => bar.suspend(say),
            None => say(),
        }
    }

    fn line(&self, done: u64) -> String {
        let seconds = self.begun.elapsed().as_secs_f64();
        line(self.unit, self.before, done, self.all, seconds)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn line(unit: Unit, before: u64, done: u64, all: Option<u64>, seconds: f64) -> String {
    let rate = done.saturating_sub(before) as f64 / seconds.max(0.001);
    let mut text = match unit {
        Unit::Bytes => HumanBytes(done).to_string(),
        Unit::Keys => done.to_string(),
    };
    if let Some(all) = all {
        text += " of ";
        text += &match unit {
            Unit::Bytes => HumanBytes(all).to_string(),
            Unit::Keys => format!("{all} keys"),
        };
    } else if unit == Unit::Keys {
        text += " keys";
    }
    text += &match unit {
        Unit::Bytes => format!(", {}/s", HumanBytes(rate as u64)),
        Unit::Keys => format!(", {rate:.0}/s"),
    };
    if let Some(all) = all.filter(|all| rate > 0.0 && *all >= done) {
        text += &format!(", {} left", time((all - done) as f64 / rate));
    }
    text
}

/// Seconds for people.
pub fn time(seconds: f64) -> String {
    match seconds {
        s if s < 10.0 => format!("{s:.1} s"),
        s if s < 100.0 => format!("{s:.0} s"),
        s if s < 6000.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

/// `1 key`, `2 keys`.
pub fn count(n: u64, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// Bytes for people.
pub fn bytes(n: u64) -> String {
    HumanBytes(n).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amount_rate_and_what_is_left() {
        assert_eq!(line(Unit::Keys, 0, 500, Some(1500), 2.0), "500 of 1500 keys, 250/s, 4.0 s left");
        assert_eq!(line(Unit::Keys, 400, 500, Some(1500), 2.0), "500 of 1500 keys, 50/s, 20 s left");
        assert_eq!(line(Unit::Keys, 0, 500, None, 2.0), "500 keys, 250/s");
        assert_eq!(
            line(Unit::Bytes, 0, 1 << 20, Some(4 << 20), 1.0),
            "1.00 MiB of 4.00 MiB, 1.00 MiB/s, 3.0 s left"
        );
        assert_eq!(line(Unit::Keys, 0, 0, Some(7), 2.0), "0 of 7 keys, 0/s");
        for (seconds, text) in [(99.4, "99 s"), (150.0, "2 min"), (7200.0, "2.0 h")] {
            assert_eq!(time(seconds), text);
        }
    }
}
