//! What the statuses of all nodes say together: the document of `pelago status --json`.

use std::collections::BTreeMap;

use serde::Serialize;

use super::survey::{Survey, Unreachable, by_group, leading};
use crate::status::{GroupLine, NodeStatus};

/// A cluster as its nodes describe it. The JSON of `pelago status --json` is this, field by
/// field; fields may be added.
#[derive(Clone, Debug, Serialize)]
pub struct Overview {
    /// The whole cluster in a few figures.
    pub summary: Summary,
    /// Every group, ascending.
    pub groups: Vec<GroupOverview>,
    /// What each node that answered said, ascending.
    pub nodes: Vec<NodeStatus>,
    /// The nodes that did not answer, ascending.
    pub unreachable: Vec<Unreachable>,
}

/// The whole cluster in a few figures.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// The cluster's name.
    pub cluster_name: String,
    /// The cluster's id, 32 hex digits.
    pub cluster: String,
    /// The lowest version that a node runs.
    pub version: String,
    /// Whether everybody answers, every group is led, nothing differs and there is no alarm.
    pub healthy: bool,
    /// How many nodes the cluster has.
    pub nodes: usize,
    /// How many of them answered or are heard by another.
    pub nodes_alive: usize,
    /// How many groups were reported.
    pub groups: usize,
    /// How many of them have a leader.
    pub groups_led: usize,
    /// Node to the number of groups that it leads. Nodes that answered and lead none are in it.
    pub leads: BTreeMap<u32, usize>,
    /// How many more nodes may fail, whichever they are, so that every group keeps a majority.
    /// `null` when a group has no leader now.
    pub tolerates: Option<usize>,
    /// Keys of all groups, each counted once.
    pub keys: u64,
    /// Bytes of keys and values of all groups, each counted once.
    pub bytes: u64,
    /// Groups by the agreement of their replicas.
    pub agreement: AgreementCount,
    /// What an operator should look at.
    pub alarms: Vec<Alarm>,
}

/// How many groups are in which state of agreement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AgreementCount {
    /// See [`Agreement::Equal`].
    pub equal: usize,
    /// See [`Agreement::Partial`].
    pub partial: usize,
    /// See [`Agreement::Moving`].
    pub moving: usize,
    /// See [`Agreement::Alone`].
    pub alone: usize,
    /// See [`Agreement::Differs`].
    pub differs: usize,
}

/// Something that an operator should look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Alarm {
    /// Who says so; `null` for what only the comparison of nodes shows.
    pub node: Option<u32>,
    /// What it is.
    pub text: String,
}

/// What the replicas of a group show when their checksums are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Agreement {
    /// All members answered, are at the same instance, and are equal there.
    Equal,
    /// At least two answered, all that did are at the same instance and equal there; a member
    /// did not answer.
    Partial,
    /// Not all that answered are at the same instance; those that are, are equal.
    Moving,
    /// Fewer than two answered.
    Alone,
    /// Two are at the same instance and are not equal.
    Differs,
}

/// One group as all of its members describe it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GroupOverview {
    /// The group.
    pub group: u32,
    /// Its first slot.
    pub first_slot: u16,
    /// Its last slot.
    pub last_slot: u16,
    /// Who leads it.
    pub leader: Option<u32>,
    /// Voting members as far as the first node that answered knows, ascending.
    pub members: Vec<u32>,
    /// The highest instance that a member has applied.
    pub applied: u64,
    /// How many instances the slowest member that answered is behind.
    pub lag: u64,
    /// Keys.
    pub keys: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
    /// Whether the replicas agree.
    pub agreement: Agreement,
    /// Why it has no leader, or what else is wrong.
    pub problem: Option<String>,
}

impl Overview {
    /// Puts the statuses together.
    #[must_use]
    pub fn of(survey: Survey) -> Overview {
        let Survey { nodes, unreachable } = survey;
        let alive = |node: u32| {
            nodes.iter().any(|status| status.node == node)
                || unreachable.iter().any(|missing| missing.node == node && missing.alive)
        };
        let groups: Vec<GroupOverview> =
            by_group(&nodes).values().map(|lines| group(lines, &alive)).collect();
        let summary = summary(&nodes, &unreachable, &groups, &alive);
        Overview { summary, groups, nodes, unreachable }
    }

    /// The group that a slot belongs to.
    #[must_use]
    pub fn group_of(&self, slot: u16) -> Option<&GroupOverview> {
        self.groups.iter().find(|group| (group.first_slot..=group.last_slot).contains(&slot))
    }
}

fn group(lines: &[(u32, &GroupLine)], alive: &dyn Fn(u32) -> bool) -> GroupOverview {
    let (_, first) = lines[0];
    let leading = leading(lines);
    // A leader whose client port does not answer is still a leader, if a follower says so.
    let leader = leading.map(|(node, _)| node).or_else(|| {
        let named = lines.iter().filter_map(|(_, line)| Some((line.round, line.leader?)));
        named
            .max()
            .map(|(_, node)| node)
            .filter(|node| alive(*node) && lines.iter().all(|(answered, _)| answered != node))
    });
    let best = leading
        .or_else(|| lines.iter().max_by_key(|(_, line)| line.applied).copied())
        .map_or(first, |(_, line)| line);
    let applied = lines.iter().map(|(_, line)| line.applied).max().unwrap_or(0);
    let agreement = agreement(lines, first.members.len());
    let halted = lines
        .iter()
        .find_map(|(node, line)| line.halted.as_ref().map(|why| format!("halted on node {node}: {why}")));
    let problem = match (agreement, leader) {
        (Agreement::Differs, _) => Some(format!("replicas differ at equal instances: {}", differing(lines))),
        (_, None) => Some(halted.unwrap_or_else(|| no_leader(lines, &first.members, alive))),
        (_, Some(_)) => halted,
    };
    GroupOverview {
        group: first.group,
        first_slot: first.first_slot,
        last_slot: first.last_slot,
        leader,
        members: first.members.clone(),
        applied,
        lag: lag(lines, leading.map(|(_, line)| line)),
        keys: best.keys,
        bytes: best.bytes,
        agreement,
        problem,
    }
}

/// The leader knows best, because it says it of one instant. Without it, what the members show.
fn lag(lines: &[(u32, &GroupLine)], leading: Option<&GroupLine>) -> u64 {
    let answered = |node: u32| lines.iter().any(|(other, _)| *other == node);
    if let Some(line) = leading {
        return line.followers.iter().filter(|f| answered(f.node)).map(|f| f.behind).max().unwrap_or(0);
    }
    let applied = || lines.iter().map(|(_, line)| line.applied);
    applied().max().unwrap_or(0) - applied().min().unwrap_or(0)
}

fn agreement(lines: &[(u32, &GroupLine)], members: usize) -> Agreement {
    if !differing_pairs(lines).is_empty() {
        return Agreement::Differs;
    }
    if members == 1 && lines.len() == 1 {
        return Agreement::Equal;
    }
    let together = lines.iter().all(|(_, line)| line.applied == lines[0].1.applied && !line.rebuilding);
    match lines.len() {
        0 | 1 => Agreement::Alone,
        answered if answered == members && together => Agreement::Equal,
        _ if together => Agreement::Partial,
        _ => Agreement::Moving,
    }
}

/// A state that is being rebuilt is behind what its replica knows to be chosen and has no checksum
/// of its own: it is compared once it is whole.
fn differing_pairs<'a>(lines: &[(u32, &'a GroupLine)]) -> Vec<(u32, u32, &'a GroupLine)> {
    let mut found = Vec::new();
    for (index, (node, line)) in lines.iter().enumerate() {
        for (other, against) in &lines[index + 1..] {
            let same = line.chain == against.chain && line.state_hash == against.state_hash;
            let whole = !line.rebuilding && !against.rebuilding;
            if whole && line.applied == against.applied && !same {
                found.push((*node, *other, *line));
            }
        }
    }
    found
}

fn differing(lines: &[(u32, &GroupLine)]) -> String {
    let pairs = differing_pairs(lines);
    let words = pairs.iter().map(|(a, b, line)| format!("nodes {a} and {b} at instance {}", line.applied));
    words.collect::<Vec<_>>().join(", ")
}

fn no_leader(lines: &[(u32, &GroupLine)], members: &[u32], alive: &dyn Fn(u32) -> bool) -> String {
    let majority = members.len() / 2 + 1;
    let dead: Vec<u32> = members.iter().copied().filter(|node| !alive(*node)).collect();
    let up = members.len() - dead.len();
    if up < majority {
        return format!(
            "{up} of {} members {}, {majority} are needed; missing: {}",
            members.len(),
            if up == 1 { "is alive" } else { "are alive" },
            nodes(&dead),
        );
    }
    let roles = lines.iter().map(|(node, line)| format!("node {node} is {}", line.role));
    format!("no leader yet: {}", roles.collect::<Vec<_>>().join(", "))
}

/// `node 2` or `nodes 2, 3`.
pub(crate) fn nodes(ids: &[u32]) -> String {
    let list = ids.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
    if ids.len() == 1 { format!("node {list}") } else { format!("nodes {list}") }
}

fn summary(
    nodes: &[NodeStatus],
    unreachable: &[Unreachable],
    groups: &[GroupOverview],
    alive: &dyn Fn(u32) -> bool,
) -> Summary {
    let mut leads: BTreeMap<u32, usize> = nodes.iter().map(|node| (node.node, 0)).collect();
    for leader in groups.iter().filter_map(|group| group.leader) {
        *leads.entry(leader).or_insert(0) += 1;
    }
    let groups_led = groups.iter().filter(|group| group.leader.is_some()).count();
    let spare = |group: &GroupOverview| {
        let up = group.members.iter().filter(|node| alive(**node)).count();
        up.saturating_sub(group.members.len() / 2 + 1)
    };
    let all_led = !groups.is_empty() && groups_led == groups.len();
    let alarms = alarms(nodes, unreachable, groups);
    let mut count = AgreementCount::default();
    for group in groups {
        match group.agreement {
            Agreement::Equal => count.equal += 1,
            Agreement::Partial => count.partial += 1,
            Agreement::Moving => count.moving += 1,
            Agreement::Alone => count.alone += 1,
            Agreement::Differs => count.differs += 1,
        }
    }
    Summary {
        cluster_name: nodes.first().map(|node| node.cluster_name.clone()).unwrap_or_default(),
        cluster: nodes.first().map(|node| node.cluster.clone()).unwrap_or_default(),
        version: nodes.iter().map(|node| node.version.clone()).min().unwrap_or_default(),
        healthy: all_led && unreachable.is_empty() && alarms.is_empty(),
        nodes: nodes.len() + unreachable.len(),
        nodes_alive: nodes.len() + unreachable.iter().filter(|missing| missing.alive).count(),
        groups: groups.len(),
        groups_led,
        leads,
        tolerates: groups.iter().map(spare).min().filter(|_| all_led),
        keys: groups.iter().map(|group| group.keys).sum(),
        bytes: groups.iter().map(|group| group.bytes).sum(),
        agreement: count,
        alarms,
    }
}

fn alarms(nodes: &[NodeStatus], unreachable: &[Unreachable], groups: &[GroupOverview]) -> Vec<Alarm> {
    let mut alarms = Vec::new();
    for missing in unreachable {
        let known = if missing.alive { "other nodes hear it, but" } else { "no node hears it, and" };
        let text = format!(
            "node {} ({}) does not answer: {known} asking it ended with: {}",
            missing.node, missing.client_addr, missing.why
        );
        alarms.push(Alarm { node: None, text });
    }
    for node in nodes {
        let mut say = |text: String| alarms.push(Alarm { node: Some(node.node), text });
        node.alarms.iter().for_each(|text| say(text.clone()));
        if let Some(why) = &node.read_only {
            say(format!("refuses writes: {why}"));
        }
    }
    for group in groups {
        if let Some(problem) = &group.problem {
            alarms.push(Alarm { node: None, text: format!("group {}: {problem}", group.group) });
        }
    }
    alarms
}
