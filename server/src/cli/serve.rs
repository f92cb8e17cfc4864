//! `pelago serve`

use std::path::PathBuf;

use clap::Args;
use groups::ids::NodeId;

use super::{Failure, logging};
use crate::config::{LogFormat, Source};
use crate::runtime::reload::Reloader;
use crate::runtime::{self, ServeOptions};

/// Run one node of a cluster
#[derive(Debug, Args)]
#[command(after_help = "\
Runs until SIGTERM or Ctrl-C; SIGHUP reads the file again. Logs go to stderr, see RUST_LOG, too.
Exit codes: 0 ended as asked, 1 the system refused something, 2 a mistake in config.toml or a port
in use, 3 the data directory is refused; after 2 and 3 nothing was changed.

Example: pelago serve --config config.toml --node 1 --set storage.data_dir=/var/lib/pelago")]
pub struct Serve {
    /// The file that describes the cluster
    #[arg(long, value_name = "FILE", default_value = "config.toml")]
    config: PathBuf,

    /// Which of its nodes to be
    #[arg(long, value_name = "ID")]
    node: u32,

    /// Another value for a key of the file; may be given again
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,

    /// What to log: error, warn, info, debug or trace [default: as in the file]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,

    /// How to log: text or json [default: as in the file]
    #[arg(long, value_name = "FORMAT", value_parser = log_format)]
    log_format: Option<LogFormat>,

    /// End when stdin ends: for a parent process that must not leave nodes behind
    #[arg(long)]
    exit_with_stdin: bool,

    /// Obey "cut NODE…" and "heal" on stdin: for the demo
    #[arg(long, hide = true, requires = "exit_with_stdin")]
    stdin_commands: bool,
}

impl Serve {
    pub(super) fn run(self) -> Result<(), Failure> {
        let config = super::config::load(&self.config, &self.set, "Nothing was started")?;
        let node = NodeId(self.node);
        let wanted = logging::Wanted { level: self.log_level, format: self.log_format };
        let level = logging::start(&wanted, &config.log)?;
        let source = Source { file: self.config, overrides: self.set };
        let reloader = Reloader::new(node, source, config.clone(), Box::new(move |text| level.set(text)));
        let options =
            ServeOptions { exit_with_stdin: self.exit_with_stdin, stdin_commands: self.stdin_commands };
        runtime::serve(config, node, options, reloader)
            .map_err(|error| Failure { code: error.exit_code(), message: error.to_string() })
    }
}

fn log_format(text: &str) -> Result<LogFormat, String> {
    LogFormat::from_name(text).ok_or_else(|| "write text or json".to_owned())
}
