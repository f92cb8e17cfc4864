//! `pelago completions` and `pelago man`: what packages ship beside the program.

use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, Failure, print};

/// Print the completions of a shell
#[derive(Debug, Args)]
#[command(after_help = "\
bash: put it into /etc/bash_completion.d or ~/.local/share/bash-completion/completions
zsh: as _pelago into a directory of $fpath      fish: into ~/.config/fish/completions

Example: pelago completions bash")]
pub struct Completions {
    /// For which shell
    shell: Shell,
}

/// Write the manual pages into a directory
#[derive(Debug, Args)]
#[command(after_help = "\
One page for each command: pelago.1, pelago-put.1, pelago-admin-backup.1 and so on.
Read one with: man -l man/pelago-put.1

Example: pelago man man")]
pub struct Man {
    /// The directory; it is made if need be
    dir: PathBuf,
}

impl Completions {
    pub(super) fn run(self) -> Result<(), Failure> {
        let mut out = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "pelago", &mut out);
        print(out)
    }
}

impl Man {
    pub(super) fn run(self) -> Result<(), Failure> {
        let mut command = Cli::command();
        command.build();
        let pages = pages(&self.dir, &command, "pelago")
            .map_err(|error| Failure::error(format!("{} cannot be written: {error}", self.dir.display())))?;
        print(format!("{pages} pages in {}\n", self.dir.display()))
    }
}

fn pages(dir: &Path, command: &clap::Command, name: &str) -> std::io::Result<usize> {
    std::fs::create_dir_all(dir)?;
    let mut page = Vec::new();
    let title: &'static str = Box::leak(name.to_owned().into_boxed_str());
    clap_mangen::Man::new(command.clone().name(title)).render(&mut page)?;
    std::fs::write(dir.join(format!("{name}.1")), page)?;
    let mut count = 1;
    for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set() && inner.get_name() != "help")
    {
        count += pages(dir, inner, &format!("{name}-{}", inner.get_name()))?;
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_and_every_page() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut out = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "pelago", &mut out);
            let text = String::from_utf8(out).expect("text");
            assert!(text.contains("into-nonempty") && text.contains("dry-run"), "{shell}");
        }
        let dir = std::env::temp_dir().join(format!("pelago-man-{}", std::process::id()));
        let mut command = Cli::command();
        command.build();
        let count = pages(&dir, &command, "pelago").expect("written");
        let page = std::fs::read_to_string(dir.join("pelago-admin-backup-verify.1")).expect("a page");
        assert!(count > 30 && page.contains("Example") && page.contains("offline"), "{page}");
        std::fs::remove_dir_all(&dir).expect("removed");
    }
}
