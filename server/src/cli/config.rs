//! `pelago config`

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::{Failure, print};
use crate::config::{Config, reference};

/// Check and show configuration files
#[derive(Debug, Args)]
#[command(after_help = "Example: pelago config check config.toml")]
pub struct ConfigCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Check(File),
    Show(Shown),
    Reference(Reference),
}

/// Report every mistake of a file at once, with line and column
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes: 0 no mistakes (warnings are printed), 2 mistakes.

Example: pelago config check config.toml")]
struct File {
    /// The file
    #[arg(default_value = "config.toml")]
    file: PathBuf,

    /// Another value for a key of the file; may be given again
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
}

/// Print every setting as a node would use it, defaults included
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes: 0 printed, 2 the file has mistakes.

Example: pelago config show config.toml --set cluster.groups=64")]
struct Shown {
    #[command(flatten)]
    file: File,
}

/// Print what every key means, as Markdown
#[derive(Debug, Args)]
#[command(after_help = "Example: pelago config reference > reference.md")]
struct Reference {}

impl ConfigCommand {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self.action {
            Action::Check(File { file, set }) => {
                let config = load(&file, &set, "Nothing was changed")?;
                print(summary(&config, &file.display().to_string()))
            }
            Action::Show(Shown { file: File { file, set } }) => {
                let config = load(&file, &set, "Nothing was changed")?;
                // The names that only Redis tools ask for have no section.
                let own = config.settings().into_iter().filter(|(name, _)| name.contains('.'));
                print(own.map(|(name, value)| format!("{name} = {value}\n")).collect::<String>())
            }
            Action::Reference(Reference {}) => print(reference()),
        }
    }
}

/// Loads a file, or fails with all of its mistakes; `changed` says what did not happen.
pub fn load(file: &Path, set: &[String], changed: &str) -> Result<Config, Failure> {
    Config::load(file, set).map_err(|errors| {
        let count = match errors.problems.len() {
            1 => "1 mistake".to_owned(),
            count => format!("{count} mistakes"),
        };
        Failure::error(format!("{count} in the configuration. {changed}.\n{errors}"))
    })
}

fn summary(config: &Config, file: &str) -> String {
    let nodes = config.nodes.len();
    let mut text = format!(
        "{file}: no mistakes\ncluster \"{}\": {nodes} {}, {} groups of {} members, durability {}, data in {}\n",
        config.cluster.name,
        if nodes == 1 { "node" } else { "nodes" },
        config.cluster.groups,
        config.cluster.replication,
        config.storage.durability.name(),
        config.storage.data_dir.display(),
    );
    for warning in &config.warnings {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "warning: {warning}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_file_is_summed_up_in_two_lines() {
        let text = include_str!("../../../config.toml");
        let config = Config::parse(text, "config.toml", &[]).expect("no mistakes");
        assert_eq!(
            summary(&config, "config.toml"),
            "config.toml: no mistakes\n\
             cluster \"local\": 3 nodes, 16 groups of 3 members, durability fsync, data in data\n"
        );
    }

    #[test]
    fn mistakes_come_all_at_once_with_exit_code_2() {
        let path = Path::new("/nowhere/config.toml");
        let failure = load(path, &[], "Nothing was started").expect_err("no such file");
        assert_eq!(failure.code, 2);
        assert!(failure.message.starts_with("1 mistake in the configuration. Nothing was started.\n"));
    }
}
