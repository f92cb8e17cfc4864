//! `pelago admin`: work that an operator asks a running cluster for.
//!
//! One node is asked who there is, then every node is told to begin (`ADMIN CHECKPOINT`, `ADMIN
//! VERIFY`). Each answers at once with where its groups stand; how far it has come is read from
//! `STATUS JSON` until everything is done, or nothing has moved for a while.

mod backup;
mod checkpoint;
mod leader;
mod member;
mod reload;
#[cfg(test)]
mod tests;
mod verify;

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use serde::Serialize;

use super::Failure;
use super::connect::Servers;
use super::status::PATIENCE;
use crate::client::survey::{Survey, Unreachable, begin, survey};
use crate::status::{Begun, GroupLine, NodeStatus};

/// Ask a running cluster to do something
#[derive(Debug, Args)]
#[command(after_help = "Example: pelago admin verify --addr 127.0.0.1:7001")]
pub struct AdminCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Backup(backup::Backup),
    Restore(backup::restore::Restore),
    Checkpoint(checkpoint::Checkpoint),
    Verify(verify::Verify),
    #[command(subcommand, after_help = "Example: pelago admin member list --addr 127.0.0.1:7001")]
    Member(member::Member),
    #[command(subcommand, after_help = "Example: pelago admin leader move 5 2 --addr 127.0.0.1:7001")]
    Leader(leader::Leader),
    Reload(reload::Reload),
    /// Move all leaderships off a node, and keep them off
    Drain(leader::Drain),
}

impl AdminCommand {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self.action {
            Action::Backup(command) => command.run(),
            Action::Restore(command) => command.run(),
            Action::Checkpoint(command) => command.run(),
            Action::Verify(command) => command.run(),
            Action::Member(command) => command.run(),
            Action::Leader(command) => command.run(),
            Action::Reload(command) => command.run(),
            Action::Drain(command) => command.run(),
        }
    }
}

/// What both commands take.
#[derive(Debug, Args)]
struct Asked {
    #[command(flatten)]
    servers: Servers,

    /// Only this group
    #[arg(long, value_name = "GROUP")]
    group: Option<u32>,

    /// Print one JSON document instead of text
    #[arg(long)]
    json: bool,
}

/// Work that was begun on every node that answered.
struct Work {
    addresses: Vec<String>,
    /// How the cluster stood just before.
    before: Survey,
    /// What each node answered.
    begun: Vec<Begun>,
    /// Who was not told, and why.
    missing: Vec<Unreachable>,
}

/// Where the work stands.
#[derive(Debug, Default, Serialize)]
struct Standing {
    /// Steps that are done, and all.
    done: usize,
    /// See `done`.
    all: usize,
    /// What is not done yet, one sentence each.
    open: Vec<String>,
    /// What is wrong, one sentence each.
    wrong: Vec<String>,
}

impl Standing {
    fn step(&mut self, done: bool, open: impl FnOnce() -> String) {
        self.all += 1;
        if done {
            self.done += 1;
        } else {
            self.open.push(open());
        }
    }

    fn accuse(&mut self, wrong: String) {
        if !self.wrong.contains(&wrong) {
            self.wrong.push(wrong);
        }
    }
}

/// Between two looks at the cluster, at least; a look at a large one takes longer and is rarer.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// When nothing has moved for this long it is not waited for any longer.
const STUCK: Duration = Duration::from_secs(45);

impl Work {
    /// Finds all nodes and tells each of them to begin.
    fn begin(asked: &Asked, verify: bool) -> Result<Work, Failure> {
        let (addresses, options) = (asked.servers.addresses(), Servers::options());
        let before = survey(&addresses, &options, PATIENCE)
            .map_err(|error| Failure::error(format!("{error}. Nothing was begun and nothing was changed")))?;
        let mut begun = Vec::new();
        let mut missing = before.unreachable.clone();
        for node in &before.nodes {
            match begin(node, verify, asked.group, &options, PATIENCE) {
                Ok(answer) => begun.push(answer),
                Err(error) => missing.push(Unreachable {
                    node: node.node,
                    client_addr: own_address(node),
                    alive: true,
                    why: error.to_string(),
                }),
            }
        }
        if begun.is_empty() {
            let why = missing.first().map_or_else(String::new, |m| m.why.clone());
            return Err(Failure::error(format!("no node began: {why}")));
        }
        if let Some(group) = asked.group.filter(|_| begun.iter().all(|b| b.groups.is_empty())) {
            return Err(Failure::error(format!(
                "no node that answers has group {group}. Nothing was changed. Run: pelago status --all"
            )));
        }
        Ok(Work { addresses, before, begun, missing })
    }

    /// Looks until nothing is open, or nothing moves any more.
    fn wait(
        &self,
        what: &str,
        standing: impl Fn(&Work, &Survey) -> Standing,
    ) -> Result<(Survey, Standing), Failure> {
        look_until(&self.addresses, what, STUCK, |now| standing(self, now))
    }
}

/// Looks at the cluster until nothing is open, or nothing has moved for `patience`.
fn look_until(
    addresses: &[String],
    what: &str,
    patience: Duration,
    standing: impl Fn(&Survey) -> Standing,
) -> Result<(Survey, Standing), Failure> {
    let mut progress = Progress::new();
    let (mut best, mut moved) = (0, Instant::now());
    loop {
        let began = Instant::now();
        let now = survey(addresses, &Servers::options(), PATIENCE).map_err(|error| {
            Failure::error(format!("{error}. What was begun goes on; ask again to see how it ends"))
        })?;
        let stands = standing(&now);
        if stands.done > best {
            (best, moved) = (stands.done, Instant::now());
        }
        if stands.open.is_empty() || moved.elapsed() >= patience {
            progress.clear();
            return Ok((now, stands));
        }
        progress.show(what, &stands);
        std::thread::sleep(LOOK_EVERY.max(began.elapsed() * 2));
    }
}

fn own_address(node: &NodeStatus) -> String {
    let own = node.nodes.iter().find(|peer| peer.node == node.node);
    own.map_or_else(String::new, |peer| peer.client_addr.clone())
}

/// How a group stands on a node now.
fn line(survey: &Survey, node: u32, group: u32) -> Option<&GroupLine> {
    let status = survey.nodes.iter().find(|status| status.node == node)?;
    status.groups.iter().find(|line| line.group == group)
}

/// `1 group`, `2 groups`.
fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// How far long work has come: in place on a terminal, a line now and then elsewhere.
struct Progress {
    terminal: bool,
    began: Instant,
    shown: Option<Instant>,
}

/// Between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(2);

impl Progress {
    fn new() -> Progress {
        let began = Instant::now();
        Progress { terminal: io::stderr().is_terminal(), began, shown: None }
    }

    fn show(&mut self, what: &str, stands: &Standing) {
        let last = self.shown.unwrap_or(self.began);
        if !self.terminal && last.elapsed() < LINE_EVERY {
            return;
        }
        self.shown = Some(Instant::now());
        let seconds = self.began.elapsed().as_secs_f64();
        let rate = stands.done as f64 / seconds.max(0.001);
        let left = (stands.all - stands.done) as f64 / rate.max(0.001);
        let first = stands.open.first().map_or("", String::as_str);
        let text = format!(
            "{what}: {} of {} steps, {seconds:.0} s, about {left:.0} s left; next: {first}",
            stands.done, stands.all
        );
        // A closed stderr leaves nobody to tell.
        let _ = match self.terminal {
            true => write!(io::stderr(), "\r\x1b[K{}", text.chars().take(118).collect::<String>()),
            false => writeln!(io::stderr(), "{text}"),
        };
    }

    fn clear(&self) {
        if self.terminal && self.shown.is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
