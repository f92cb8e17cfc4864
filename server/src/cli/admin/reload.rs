//! `pelago admin reload`: nodes read their config.toml again.

use std::fmt::Write as _;

use clap::Args;
use serde_json::json;

use crate::cli::connect::Servers;
use crate::cli::status::PATIENCE;
use crate::cli::{Failure, print};
use crate::client::survey::{reload, survey};
use crate::status::{ReloadStatus, SettingLine};

/// Have every node read its config.toml again
#[derive(Debug, Args)]
#[command(after_help = "\
Each node reads the file that it was started with. It takes over what may change while it runs
(`pelago config reference` says what) and names what waits for a restart. A mistake in the file
changes nothing on that node. SIGHUP does the same to one node, and its log says what came of it.
Exit codes: 0 read, 1 a node's file has mistakes, 2 a node was not reached.

Example: pelago admin reload --node 2 --addr 127.0.0.1:7001")]
pub struct Reload {
    #[command(flatten)]
    servers: Servers,

    /// Only this node
    #[arg(long, value_name = "ID")]
    node: Option<u32>,

    /// Print one JSON document instead of text
    #[arg(long)]
    json: bool,
}

impl Reload {
    pub(super) fn run(self) -> Result<(), Failure> {
        let options = Servers::options();
        let found = survey(&self.servers.addresses(), &options, PATIENCE)
            .map_err(|error| Failure::error(format!("{error}. Nothing was changed")))?;
        let wanted = |node: u32| self.node.is_none_or(|only| only == node);
        let mut missing: Vec<(u32, String)> = found
            .unreachable
            .iter()
            .filter(|node| wanted(node.node))
            .map(|node| (node.node, node.why.clone()))
            .collect();
        let mut told = Vec::new();
        for node in found.nodes.iter().filter(|node| wanted(node.node)) {
            match reload(node, &options, PATIENCE) {
                Ok(status) => told.push(status),
                Err(error) => missing.push((node.node, error.to_string())),
            }
        }
        if told.is_empty() && missing.is_empty() {
            let node = self.node.unwrap_or_default();
            let nodes: Vec<u32> = found.nodes.iter().map(|node| node.node).collect();
            let known = crate::client::overview::nodes(&nodes);
            return Err(Failure::error(format!(
                "the cluster has no node {node}; it has {known}. Nothing was changed"
            )));
        }
        if self.json {
            let missing: Vec<_> =
                missing.iter().map(|(node, why)| json!({ "node": node, "why": why })).collect();
            print(format!("{:#}\n", json!({ "nodes": told, "unreachable": missing })))?;
        } else {
            print(page(&told, &missing))?;
        }
        match (missing.is_empty(), told.iter().all(|status| status.mistakes.is_empty())) {
            (false, _) => Err(Failure::error("")),
            (true, false) => Err(Failure::no("")),
            (true, true) => Ok(()),
        }
    }
}

fn page(told: &[ReloadStatus], missing: &[(u32, String)]) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    for ReloadStatus { node, applied, restart, mistakes } in told {
        if !mistakes.is_empty() {
            let _ = writeln!(text, "node {node}: the file has mistakes, and nothing was changed:");
            for mistake in mistakes {
                let _ = writeln!(text, "  {mistake}");
            }
            continue;
        }
        if applied.is_empty() && restart.is_empty() {
            let _ = writeln!(text, "node {node}: nothing has changed");
        }
        for line in applied {
            let _ = writeln!(text, "node {node}: {}", setting(line, "in force"));
        }
        for line in restart {
            let _ = writeln!(text, "node {node}: {}", setting(line, "NOT in force: restart the node"));
        }
    }
    for (node, why) in missing {
        let _ = writeln!(text, "node {node} was not reached, and nothing was changed there: {why}");
    }
    text
}

fn setting(line: &SettingLine, what: &str) -> String {
    let SettingLine { key, from, to, note } = line;
    let values = match (from, to) {
        (Some(from), Some(to)) => format!(" from {from} to {to}"),
        _ => String::new(),
    };
    let note = note.as_ref().map(|note| format!(" ({note})")).unwrap_or_default();
    format!("{key}{values}: {what}{note}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counts_what_waits_and_what_is_wrong() {
        let line = |key: &str, note: Option<&str>| SettingLine {
            key: key.into(),
            from: Some("1".into()),
            to: Some("2".into()),
            note: note.map(str::to_owned),
        };
        let secret = SettingLine { from: None, to: None, ..line("security.password", None) };
        let told = [
            ReloadStatus {
                node: 1,
                applied: vec![line("limits.max_key", Some("later")), secret],
                ..Default::default()
            },
            ReloadStatus { node: 2, restart: vec![line("paxos.window", None)], ..Default::default() },
            ReloadStatus { node: 3, mistakes: vec!["config.toml:3: wrong".into()], ..Default::default() },
            ReloadStatus { node: 4, ..Default::default() },
        ];
        assert_eq!(
            page(&told, &[(5, "connection refused".into())]),
            "\
node 1: limits.max_key from 1 to 2: in force (later)
node 1: security.password: in force
node 2: paxos.window from 1 to 2: NOT in force: restart the node
node 3: the file has mistakes, and nothing was changed:
  config.toml:3: wrong
node 4: nothing has changed
node 5 was not reached, and nothing was changed there: connection refused
"
        );
    }
}
