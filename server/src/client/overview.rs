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
    /// The largest lag of a group's slowest member that answered, in instances.
    pub lag: u64,
    /// The largest one in seconds; `null` when nobody leads any group.
    pub lag_s: Option<f64>,
    /// Instances that the oldest checkpoint is behind, of the group for which that is most.
    pub checkpoint_behind: u64,
    /// The slowest disk: 99th percentile of a node's latest commits, microseconds.
    pub commit_p99_us: u64,
    /// The node whose disk will be full first; `null` while none is filling.
    pub runway: Option<NodeRunway>,
    /// Commands of clients that the nodes have executed since their starts.
    pub commands: u64,
    /// Checkpoints and chosen values on their way, each counted once.
    pub transfers: usize,
    /// Keys of all groups, each counted once.
    pub keys: u64,
    /// Bytes of keys and values of all groups, each counted once.
    pub bytes: u64,
    /// Groups by the agreement of their replicas.
    pub agreement: AgreementCount,
    /// What an operator should look at.
    pub alarms: Vec<Alarm>,
}

/// For how long a node's disk will do.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct NodeRunway {
    /// The node.
    pub node: u32,
    /// Seconds until it takes reads and deletes only, at the rate of the last ten minutes.
    pub seconds: f64,
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
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GroupOverview {
    /// The group.
    pub group: u32,
    /// Its first slot.
    pub first_slot: u16,
    /// Its last slot.
    pub last_slot: u16,
    /// Who leads it.
    pub leader: Option<u32>,
    /// Voting members as far as the node with the newest list of nodes knows.
    pub members: Vec<u32>,
    /// The highest instance that a member has applied.
    pub applied: u64,
    /// How many instances the slowest member that answered is behind.
    pub lag: u64,
    /// For how many seconds the leader has had the oldest of them; `null` while nobody leads.
    pub lag_s: Option<f64>,
    /// Instances that the oldest checkpoint of a member that answered does not have.
    pub checkpoint_behind: u64,
    /// Seconds since that checkpoint was last verified and durable; `null` when no member has one.
    pub checkpoint_age_s: Option<f64>,
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
        let rosters: BTreeMap<u32, u64> = nodes.iter().map(|node| (node.node, node.roster)).collect();
        let groups: Vec<GroupOverview> =
            by_group(&nodes).values().map(|lines| group(lines, &rosters, &alive)).collect();
        let summary = summary(&nodes, &unreachable, &groups, &alive);
        Overview { summary, groups, nodes, unreachable }
    }

    /// The group that a slot belongs to.
    #[must_use]
    pub fn group_of(&self, slot: u16) -> Option<&GroupOverview> {
        self.groups.iter().find(|group| (group.first_slot..=group.last_slot).contains(&slot))
    }
}

fn group(
    lines: &[(u32, &GroupLine)],
    rosters: &BTreeMap<u32, u64>,
    alive: &dyn Fn(u32) -> bool,
) -> GroupOverview {
    let (_, first) = lines[0];
    // Whoever was away while members changed still knows the old ones.
    let newest = |(node, line): &&(u32, &GroupLine)| (rosters.get(node).copied(), line.applied);
    let members = lines.iter().rev().max_by_key(newest).map_or(&first.members, |(_, line)| &line.members);
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
    let agreement = agreement(lines, members.len());
    let oldest = lines.iter().map(|(_, line)| *line).min_by_key(|line| line.checkpoint);
    let halted = lines
        .iter()
        .find_map(|(node, line)| line.halted.as_ref().map(|why| format!("halted on node {node}: {why}")));
    let problem = match (agreement, leader) {
        (Agreement::Differs, _) => Some(format!("replicas differ at equal instances: {}", differing(lines))),
        (_, None) => Some(halted.unwrap_or_else(|| no_leader(lines, members, alive))),
        (_, Some(_)) => halted,
    };
    GroupOverview {
        group: first.group,
        first_slot: first.first_slot,
        last_slot: first.last_slot,
        leader,
        members: members.clone(),
        applied,
        lag_s: lag_s(lines, leading.map(|(_, line)| line)),
        checkpoint_behind: applied.saturating_sub(oldest.map_or(0, |line| line.checkpoint)),
        checkpoint_age_s: oldest.and_then(|line| line.checkpoint_age_s),
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

/// As old as the oldest instance that a follower which answered lacks.
fn lag_s(lines: &[(u32, &GroupLine)], leading: Option<&GroupLine>) -> Option<f64> {
    let answered = |node: u32| lines.iter().any(|(other, _)| *other == node);
    let ages = leading?.followers.iter().filter(|f| answered(f.node)).map(|f| f.behind_s);
    Some(ages.fold(0.0, f64::max))
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
        lag: groups.iter().map(|group| group.lag).max().unwrap_or(0),
        lag_s: groups.iter().filter_map(|group| group.lag_s).max_by(f64::total_cmp),
        checkpoint_behind: groups.iter().map(|group| group.checkpoint_behind).max().unwrap_or(0),
        commit_p99_us: nodes.iter().map(|node| node.log.commit_p99_us).max().unwrap_or(0),
        runway: nodes
            .iter()
            .filter_map(|node| Some(NodeRunway { node: node.node, seconds: node.log.runway_s? }))
            .min_by(|a, b| a.seconds.total_cmp(&b.seconds)),
        commands: nodes.iter().map(|node| node.commands).sum(),
        transfers: under_way(nodes).len(),
        tolerates: groups.iter().map(spare).min().filter(|_| all_led),
        keys: groups.iter().map(|group| group.keys).sum(),
        bytes: groups.iter().map(|group| group.bytes).sum(),
        agreement: count,
        alarms,
    }
}

/// A checkpoint, or chosen values, on the way from one node to another.
#[derive(Clone, Debug, PartialEq)]
pub struct UnderWay {
    /// Whether it is a checkpoint.
    pub checkpoint: bool,
    /// The group.
    pub group: u32,
    /// The sender.
    pub from: u32,
    /// The receiver.
    pub to: u32,
    /// Bytes so far.
    pub bytes: u64,
    /// Bytes that there will be; 0 while that is not known, and for values.
    pub expected_bytes: u64,
    /// Values: instances that are still to come.
    pub left: u64,
    /// Seconds since it began.
    pub elapsed_s: f64,
}

impl UnderWay {
    /// Bytes per second so far.
    #[must_use]
    pub fn rate(&self) -> f64 {
        if self.elapsed_s > 0.0 { self.bytes as f64 / self.elapsed_s } else { 0.0 }
    }

    /// How much of a checkpoint has come, from 0 to 1; `None` while it is not known how much there is, and for values.
    #[must_use]
    pub fn share(&self) -> Option<f64> {
        (self.expected_bytes > 0).then(|| (self.bytes as f64 / self.expected_bytes as f64).min(1.0))
    }

    /// Seconds until a checkpoint has come, at the rate so far.
    #[must_use]
    pub fn remaining_s(&self) -> Option<f64> {
        let left = self.expected_bytes.checked_sub(self.bytes).filter(|_| self.expected_bytes > 0)?;
        (self.rate() > 0.0).then(|| left as f64 / self.rate())
    }
}

/// What is on its way, each once although both ends tell of it; the receiver's word counts.
#[must_use]
pub fn under_way(nodes: &[NodeStatus]) -> Vec<UnderWay> {
    let mut found: BTreeMap<(u32, u32, u32, bool), (bool, UnderWay)> = BTreeMap::new();
    let mut add = |incoming: bool, line: UnderWay| {
        let place = (line.group, line.from, line.to, line.checkpoint);
        if incoming || !found.contains_key(&place) {
            found.insert(place, (incoming, line));
        }
    };
    let ends = |node: u32, peer: u32, incoming: bool| if incoming { (peer, node) } else { (node, peer) };
    for node in nodes {
        for line in &node.transfers {
            let (from, to) = ends(node.node, line.peer, line.incoming);
            let (group, bytes, elapsed_s) = (line.group, line.bytes, line.elapsed_s);
            let expected_bytes = line.expected_bytes;
            let checkpoint = true;
            add(
                line.incoming,
                UnderWay { checkpoint, group, from, to, bytes, expected_bytes, left: 0, elapsed_s },
            );
        }
        for line in &node.learning {
            let (from, to) = ends(node.node, line.peer, line.incoming);
            let (group, bytes, elapsed_s) = (line.group, line.bytes, line.elapsed_s);
            let left = (line.target + 1).saturating_sub(line.next);
            let (checkpoint, expected_bytes) = (false, 0);
            add(
                line.incoming,
                UnderWay { checkpoint, group, from, to, bytes, expected_bytes, left, elapsed_s },
            );
        }
    }
    found.into_values().map(|(_, line)| line).collect()
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
