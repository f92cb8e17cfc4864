//! Where a node's own words go: stderr, as text for people or as one JSON object per line.
//!
//! * `mod` what is logged, and another level while the node runs · `line` how an event is written
//! * `limit` what repeats itself is left out, and counted

mod limit;
mod line;

use std::io::{self, IsTerminal};
use std::sync::Arc;

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

use super::Failure;
use crate::config::{Log, LogFormat};
use line::Lines;

/// What the command line said about the log.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// `--log-level`.
    pub level: Option<String>,
    /// `--log-format`.
    pub format: Option<LogFormat>,
}

/// The level, for who wants another one while the node runs.
#[derive(Clone)]
pub struct LevelHandle {
    handle: Arc<reload::Handle<EnvFilter, Registry>>,
    /// What stands before the file.
    fixed: Option<&'static str>,
}

impl LevelHandle {
    /// Takes over the level that the file has now.
    ///
    /// # Errors
    /// With why it does not count.
    pub fn set(&self, level: &str) -> Result<(), String> {
        if let Some(fixed) = self.fixed {
            return Err(format!("{fixed} stands before it"));
        }
        let filter = EnvFilter::try_new(level).map_err(|error| error.to_string())?;
        self.handle.reload(filter).map_err(|error| error.to_string())
    }
}

/// Turns logging on. `--log-level` counts first, then `RUST_LOG`, then the file.
///
/// # Errors
/// When what is to count is no filter.
pub fn start(wanted: &Wanted, file: &Log) -> Result<LevelHandle, Failure> {
    let environment = std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty());
    let (text, from) = match (&wanted.level, &environment) {
        (Some(level), _) => (level, Some("--log-level")),
        (None, Some(text)) => (text, Some("RUST_LOG")),
        (None, None) => (&file.level, None),
    };
    let filter = EnvFilter::try_new(text).map_err(|error| {
        Failure::error(format!(
            "{} \"{text}\" is no log filter: {error}. Nothing was started. \
             Write error, warn, info, debug or trace, or for one part: info,server::runtime=debug",
            from.unwrap_or("log.level")
        ))
    })?;
    let (filter, handle) = reload::Layer::new(filter);
    let format = wanted.format.unwrap_or(file.format);
    let json = format == LogFormat::Json;
    let words = fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(!json && colour(io::stderr().is_terminal()))
        .event_format(Lines::new(json));
    tracing_subscriber::registry()
        .with(filter)
        .with(words)
        .try_init()
        .map_err(|error| Failure::error(format!("could not start logging: {error}")))?;
    Ok(LevelHandle { handle: Arc::new(handle), fixed: from })
}

/// Whether to write colour to something that is a terminal or not (<https://no-color.org>).
pub fn colour(terminal: bool) -> bool {
    terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
