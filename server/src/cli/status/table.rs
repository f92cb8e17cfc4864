//! The status for people: a table of at most 80 columns, or one line.

use std::fmt::Write as _;

use super::figures::{behind, bytes, micros, span};
use crate::client::overview::{Agreement, GroupOverview, Overview, Summary};
use crate::client::overview::{UnderWay, under_way};
use crate::status::NodeStatus;

/// The whole status. `listed` is how many groups may be listed one by one; of more, only those
/// with a problem are.
#[must_use]
pub fn table(overview: &Overview, listed: usize, colour: bool) -> String {
    let mut page = Page { text: String::new(), colour };
    page.head(&overview.summary, &overview.nodes);
    page.nodes(overview);
    page.groups(overview, listed);
    page.transfers(overview);
    page.alarms(&overview.summary);
    page.text
}

/// The status in one line, without a line end.
#[must_use]
pub fn line(overview: &Overview) -> String {
    let Summary { nodes, nodes_alive, groups, groups_led, keys, alarms, .. } = &overview.summary;
    let connections: u64 = overview.nodes.iter().map(|node| node.connections).sum();
    let mut text = format!(
        "{nodes_alive}/{nodes} nodes, {groups_led}/{groups} groups led ({}), {}, {keys} keys, {connections} connections",
        leads(&overview.summary),
        tolerance(&overview.summary),
    );
    if let Some(first) = alarms.first() {
        let more = alarms.len() - 1;
        text += &format!("; alarm: {}", first.text);
        if more > 0 {
            text += &format!(" (and {more} more)");
        }
    }
    text
}

const RED: &str = "\x1b[31m";
const GREEN: &str = "\x1b[32m";

/// Writing to a string cannot fail, so results of `write!` are dropped in here.
struct Page {
    text: String,
    colour: bool,
}

impl Page {
    /// Text in a colour, padded to `width` before it is coloured.
    fn paint(&self, text: &str, colour: &str, width: usize) -> String {
        match self.colour {
            true => format!("{colour}{text:<width$}\x1b[0m"),
            false => format!("{text:<width$}"),
        }
    }

    fn head(&mut self, summary: &Summary, nodes: &[NodeStatus]) {
        let Summary { cluster_name, cluster, version, groups, groups_led, agreement, .. } = summary;
        let short: String = cluster.chars().take(8).collect();
        let _ = writeln!(
            self.text,
            "cluster {cluster_name} ({short}), pelago {version}, {} keys, {}",
            summary.keys,
            bytes(summary.bytes)
        );
        let led = match groups_led == groups {
            true => self.paint(&format!("all {groups} groups have a leader"), GREEN, 0),
            false => {
                let without = groups - groups_led;
                self.paint(&format!("{without} of {groups} groups have no leader"), RED, 0)
            }
        };
        let _ = writeln!(self.text, "{led}; {}", tolerance(summary));
        let same = match agreement.differs {
            0 => format!("replicas compared: {} groups equal", agreement.equal),
            differs => self.paint(&format!("{differs} groups have replicas that differ"), RED, 0),
        };
        let mut rest = String::new();
        for (count, what) in [
            (agreement.partial, "equal where they answer"),
            (agreement.moving, "between instances"),
            (agreement.alone, "not comparable"),
        ] {
            if count > 0 {
                let _ = write!(rest, ", {count} {what}");
            }
        }
        let _ = writeln!(self.text, "{same}{rest}");
        let disks = match summary.runway {
            None => "no disk is filling".to_owned(),
            Some(runway) => format!("the disk of node {} is full in {}", runway.node, span(runway.seconds)),
        };
        let _ = writeln!(
            self.text,
            "slowest replica {} behind, oldest checkpoint {} behind; {disks}",
            behind(summary.lag, summary.lag_s),
            summary.checkpoint_behind
        );
        if nodes.iter().any(|node| node.durability == "none") {
            let text = "durability is none: a power loss loses acknowledged writes";
            let _ = writeln!(self.text, "{}", self.paint(text, RED, 0));
        }
    }

    fn nodes(&mut self, overview: &Overview) {
        let _ = writeln!(
            self.text,
            "\nnode  client address         state  leads  fsync p99 disk left  full in  clients"
        );
        let mut lines: Vec<(u32, String)> = Vec::new();
        for node in &overview.nodes {
            let own = node.nodes.iter().find(|peer| peer.node == node.node);
            let address = own.map_or("", |peer| peer.client_addr.as_str());
            let full = node.log.runway_s.map_or_else(|| "-".to_owned(), span);
            let leads = overview.summary.leads.get(&node.node).copied().unwrap_or(0);
            lines.push((
                node.node,
                format!(
                    "{:>4}  {:<21}  {}  {leads:>5}  {:>9} {:>9}  {full:>7}  {:>7}",
                    node.node,
                    address,
                    self.paint("alive", GREEN, 5),
                    micros(node.log.commit_p99_us),
                    bytes(node.log.free_bytes),
                    node.connections,
                ),
            ));
        }
        for missing in &overview.unreachable {
            let state = if missing.alive { "heard" } else { "dead" };
            let leads = match overview.summary.leads.get(&missing.node) {
                Some(leads) => leads.to_string(),
                None => "-".to_owned(),
            };
            let state = self.paint(state, RED, 5);
            let line = format!("{:>4}  {:<21}  {state}  {leads:>5}", missing.node, missing.client_addr);
            lines.push((missing.node, line));
        }
        lines.sort();
        for (_, line) in lines {
            let _ = writeln!(self.text, "{}", line.trim_end());
        }
    }

    fn groups(&mut self, overview: &Overview, listed: usize) {
        let groups = &overview.groups;
        if groups.len() > listed {
            self.many_groups(groups, listed);
            return;
        }
        self.text += GROUPS;
        for group in groups {
            self.group(group);
        }
    }

    fn many_groups(&mut self, groups: &[GroupOverview], listed: usize) {
        let applied = || groups.iter().map(|group| group.applied);
        let slowest = groups.iter().max_by_key(|group| group.lag);
        let _ = writeln!(
            self.text,
            "\n{} groups: applied {} to {}, largest lag {}",
            groups.len(),
            applied().min().unwrap_or(0),
            applied().max().unwrap_or(0),
            slowest.map_or_else(String::new, |group| match group.lag {
                0 => "0".to_owned(),
                lag => format!("{lag} (group {})", group.group),
            }),
        );
        let wrong: Vec<_> = groups.iter().filter(|group| group.problem.is_some()).collect();
        if wrong.is_empty() {
            return;
        }
        self.text += GROUPS;
        for group in wrong.iter().take(listed) {
            self.group(group);
        }
        if wrong.len() > listed {
            let _ = writeln!(self.text, "  and {} more with a problem", wrong.len() - listed);
        }
    }

    fn group(&mut self, group: &GroupOverview) {
        let members: Vec<String> = group.members.iter().map(u32::to_string).collect();
        let leader = match group.leader {
            Some(node) => format!("{node:>6}"),
            None => self.paint("  none", RED, 6),
        };
        let replicas = match group.agreement {
            Agreement::Equal => "equal".to_owned(),
            Agreement::Partial => "partial".to_owned(),
            Agreement::Moving => "moving".to_owned(),
            Agreement::Alone => "alone".to_owned(),
            Agreement::Differs => self.paint("DIFFER", RED, 6),
        };
        let _ = writeln!(
            self.text,
            "{:>5}  {leader}  {:<8} {:>8} {:>9} {:>10} {:>7} {:>8}  {replicas}",
            group.group,
            members.join(" "),
            group.applied,
            behind(group.lag, group.lag_s),
            behind(group.checkpoint_behind, group.checkpoint_age_s),
            group.keys,
            bytes(group.bytes),
        );
    }

    /// What is on its way; the rest is in the JSON.
    fn transfers(&mut self, overview: &Overview) {
        const SHOWN: usize = 10;
        let ways = under_way(&overview.nodes);
        if ways.is_empty() {
            return;
        }
        let _ = writeln!(self.text, "\non the way:");
        for way in ways.iter().take(SHOWN) {
            let _ = writeln!(self.text, "- {}", on_the_way(way));
        }
        if ways.len() > SHOWN {
            let _ = writeln!(self.text, "- and {} more; see --json", ways.len() - SHOWN);
        }
    }

    fn alarms(&mut self, summary: &Summary) {
        /// The rest is in the JSON.
        const SHOWN: usize = 10;
        if summary.alarms.is_empty() {
            return;
        }
        let _ = writeln!(self.text, "\n{}", self.paint("look at:", RED, 0));
        for alarm in summary.alarms.iter().take(SHOWN) {
            let _ = match alarm.node {
                Some(node) => writeln!(self.text, "- node {node}: {}", alarm.text),
                None => writeln!(self.text, "- {}", alarm.text),
            };
        }
        if summary.alarms.len() > SHOWN {
            let _ = writeln!(self.text, "- and {} more; see --json", summary.alarms.len() - SHOWN);
        }
    }
}

const GROUPS: &str = "\ngroup  leader  members   applied       lag checkpoint    keys     size  replicas\n";

fn on_the_way(way: &UnderWay) -> String {
    let UnderWay { group, from, to, .. } = way;
    let rate = bytes(way.rate() as u64);
    let left = way.remaining_s().map(|left| format!(", {} left", span(left))).unwrap_or_default();
    match (way.checkpoint, way.share()) {
        (true, Some(share)) => {
            let width = 20;
            let full = (share * width as f64) as usize;
            format!(
                "checkpoint of group {group}, node {from} to {to} [{}{}] {:.0} %, {} of {}, {rate}/s{left}",
                "#".repeat(full),
                ".".repeat(width - full),
                share * 100.0,
                bytes(way.bytes),
                bytes(way.expected_bytes),
            )
        }
        (true, None) => {
            format!("checkpoint of group {group}, node {from} to {to}: {}, {rate}/s", bytes(way.bytes))
        }
        (false, _) => format!(
            "values of group {group}, node {from} to {to}: {}, {rate}/s, {} instances to go",
            bytes(way.bytes),
            way.left
        ),
    }
}

/// How many more nodes may fail, in words.
pub(crate) fn tolerance(summary: &Summary) -> String {
    match summary.tolerates {
        None => "not every group can be written".to_owned(),
        Some(0) => "no more node may fail".to_owned(),
        Some(1) => "1 more node may fail".to_owned(),
        Some(more) => format!("{more} more nodes may fail"),
    }
}

fn leads(summary: &Summary) -> String {
    summary.leads.values().map(usize::to_string).collect::<Vec<_>>().join("/")
}
