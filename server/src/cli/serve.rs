//! `pelago serve`

use std::path::PathBuf;

use clap::Args;
use groups::ids::NodeId;

use super::{Failure, logging};
use crate::runtime::{self, ServeOptions};

/// Run one node of a cluster
#[derive(Debug, Args)]
#[command(after_help = "\
Runs until SIGTERM or Ctrl-C. Logs go to stderr; RUST_LOG chooses them too.
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

    /// What to log: error, warn, info, debug or trace [default: info]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,

    /// End when stdin ends: for a parent process that must not leave nodes behind
    #[arg(long)]
    exit_with_stdin: bool,
}

impl Serve {
    pub(super) fn run(self) -> Result<(), Failure> {
        let config = super::config::load(&self.config, &self.set, "Nothing was started")?;
        let node = NodeId(self.node);
        logging::start(self.log_level.as_deref())?;
        let options = ServeOptions { exit_with_stdin: self.exit_with_stdin };
        runtime::serve(config, node, options)
            .map_err(|error| Failure { code: error.exit_code(), message: error.to_string() })
    }
}
