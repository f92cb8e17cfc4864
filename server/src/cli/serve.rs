//! `pelago serve`

use std::path::PathBuf;

use clap::Args;
use groups::ids::NodeId;

use super::{Failure, logging};
use crate::config::Config;
use crate::runtime::{self, ServeOptions};

/// Run one node of a cluster
#[derive(Debug, Args)]
#[command(after_help = "\
Runs until SIGTERM or Ctrl-C. Logs go to stderr; RUST_LOG chooses them too.
Exit codes: 0 ended as asked, 2 a mistake in config.toml or a refused data directory (nothing
was changed), others as the message says.

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
        if config.node(node).is_none() {
            return Err(Failure::error(no_such_node(&config, node, &self.config.display().to_string())));
        }
        logging::start(self.log_level.as_deref())?;
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
        let options = ServeOptions { exit_with_stdin: self.exit_with_stdin };
        runtime::serve(config, node, options)
            .map_err(|error| Failure { code: error.exit_code(), message: error.to_string() })
    }
}

fn no_such_node(config: &Config, node: NodeId, file: &str) -> String {
    let ids: Vec<u32> = config.nodes.iter().map(|node| node.id.0).collect();
    format!(
        "{file} has no node {node}; it lists {}. Nothing was started. \
         Run it with --node and one of these, or add a [[nodes]] entry",
        crate::client::overview::nodes(&ids)
    )
}
