//! Where a node's own words go: stderr, in colour only for a terminal.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use super::Failure;

/// Turns logging on. `level` is what `--log-level` said; without it `RUST_LOG` counts, and
/// without that, `info`.
pub fn start(level: Option<&str>) -> Result<(), Failure> {
    let environment = std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty());
    let (text, from) = match (level, &environment) {
        (Some(level), _) => (level, "--log-level"),
        (None, Some(text)) => (text.as_str(), "RUST_LOG"),
        (None, None) => ("info", "the default"),
    };
    let filter = EnvFilter::try_new(text).map_err(|error| {
        Failure::error(format!(
            "{from} \"{text}\" is no log filter: {error}. Nothing was started. \
             Write error, warn, info, debug or trace, or for one part: info,server::runtime=debug"
        ))
    })?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(colour(io::stderr().is_terminal()))
        .try_init()
        .map_err(|error| Failure::error(format!("could not start logging: {error}")))
}

/// Whether to write colour to something that is a terminal or not (<https://no-color.org>).
pub fn colour(terminal: bool) -> bool {
    terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
