use std::collections::BTreeSet;

use serde_json::Value;

use super::table::{line, table};
use crate::client::overview::{Agreement, Overview};
use crate::client::survey::{Survey, Unreachable};
use crate::status::{
    FindingLine, FollowerLine, GroupLine, HeldLine, LearningLine, LogStatus, NodeStatus, PeerStatus,
    PointLine, TrafficStatus, TransferLine,
};

/// Three nodes, `groups` groups led in turn, all equal at instance 10.
pub(crate) fn healthy(groups: u32) -> Survey {
    Survey { nodes: (1..=3).map(|node| status(node, groups)).collect(), unreachable: Vec::new() }
}

fn status(node: u32, groups: u32) -> NodeStatus {
    NodeStatus {
        version: "0.1.0".into(),
        cluster_name: "local".into(),
        cluster: "7f3a".repeat(8),
        node,
        storage: "00".repeat(16),
        boot: 1,
        roster: 0,
        uptime_s: 12.5,
        pid: 100 + node,
        durability: "fsync".into(),
        nodes: (1..=3)
            .map(|peer| PeerStatus {
                node: peer,
                peer_addr: format!("127.0.0.1:{}", 7100 + peer),
                client_addr: format!("127.0.0.1:{}", 7000 + peer),
                alive: true,
                leads: 0,
            })
            .collect(),
        groups: (0..groups).map(|group| group_line(node, group, groups)).collect(),
        log: LogStatus {
            disk_bytes: 64 << 20,
            commit_p50_us: 900,
            commit_p99_us: 2_140,
            free_bytes: 20 << 30,
            ..LogStatus::default()
        },
        transfers: Vec::new(),
        learning: Vec::new(),
        connections: 2,
        commands: 0,
        open_requests: 0,
        traffic: TrafficStatus::default(),
        read_only: None,
        alarms: Vec::new(),
    }
}

fn group_line(node: u32, group: u32, groups: u32) -> GroupLine {
    let leader = group % 3 + 1;
    let per_group = 16_384 / groups;
    let mut members = vec![1, 2, 3];
    members.rotate_left((leader - 1) as usize);
    GroupLine {
        group,
        first_slot: (group * per_group) as u16,
        last_slot: ((group + 1) * per_group - 1) as u16,
        role: if leader == node { "leader".into() } else { "follower".into() },
        leader: Some(leader),
        round: 5,
        epoch: 2,
        members: members.clone(),
        wanted: members.clone(),
        applied: 10,
        chain: "c".repeat(16),
        state_hash: "h".repeat(64),
        keys: 3,
        bytes: 1_536,
        halted: None,
        mirrored: 10,
        checkpoint: 10,
        checkpoint_age_s: Some(4.0),
        rebuilding: false,
        votes: true,
        holds_log: None,
        followers: match leader == node {
            true => members[1..]
                .iter()
                .map(|node| FollowerLine { node: *node, follows: true, behind: 0, behind_s: 0.0 })
                .collect(),
            false => Vec::new(),
        },
        points: Vec::new(),
        rescans: 0,
        leased: 0,
        verified: 0,
    }
}

/// The same after node 3 died and before its groups found new leaders.
pub(crate) fn without_node_3(groups: u32) -> Survey {
    let mut survey = healthy(groups);
    survey.nodes.pop();
    for node in &mut survey.nodes {
        node.nodes[2].alive = false;
        for line in node.groups.iter_mut().filter(|line| line.leader == Some(3)) {
            line.leader = None;
            line.role = "probing".into();
        }
    }
    survey.unreachable.push(Unreachable {
        node: 3,
        client_addr: "127.0.0.1:7003".into(),
        alive: false,
        why: "connection refused".into(),
    });
    survey
}

#[test]
fn a_healthy_cluster_as_people_see_it() {
    let text = table(&Overview::of(healthy(4)), 24, false);
    assert_eq!(
        text,
        "\
cluster local (7f3a7f3a), pelago 0.1.0, 12 keys, 6 KiB
all 4 groups have a leader; 1 more node may fail
replicas compared: 4 groups equal
slowest replica 0 behind, oldest checkpoint 0 behind; no disk is filling

node  client address         state  leads  fsync p99 disk left  full in  clients
   1  127.0.0.1:7001         alive      2      2.1ms    20 GiB        -        2
   2  127.0.0.1:7002         alive      1      2.1ms    20 GiB        -        2
   3  127.0.0.1:7003         alive      1      2.1ms    20 GiB        -        2

group  leader  members   applied       lag checkpoint    keys     size  replicas
    0       1  1 2 3          10         0          0       3  1.5 KiB  equal
    1       2  2 3 1          10         0          0       3  1.5 KiB  equal
    2       3  3 1 2          10         0          0       3  1.5 KiB  equal
    3       1  1 2 3          10         0          0       3  1.5 KiB  equal
"
    );
    assert!(text.lines().all(|line| line.len() <= 80));
}

#[test]
fn one_line() {
    assert_eq!(
        line(&Overview::of(healthy(4))),
        "3/3 nodes, 4/4 groups led (2/1/1), 1 more node may fail, 12 keys, 6 connections"
    );
}

#[test]
fn a_dead_node_and_its_groups() {
    let overview = Overview::of(without_node_3(4));
    let summary = &overview.summary;
    assert_eq!((summary.nodes, summary.nodes_alive, summary.groups_led), (3, 2, 3));
    assert_eq!((summary.tolerates, summary.healthy), (None, false));
    let text = table(&overview, 24, false);
    for part in [
        "1 of 4 groups have no leader; not every group can be written",
        "   3  127.0.0.1:7003         dead       -\n",
        "    2    none  3 1 2 ",
        "- node 3 (127.0.0.1:7003) does not answer: no node hears it, and asking it ended with: connection refused",
        "- group 2: no leader yet: node 1 is probing, node 2 is probing",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

#[test]
fn without_a_majority_it_says_how_many_are_needed() {
    let mut survey = without_node_3(3);
    survey.nodes.pop();
    survey.unreachable.insert(0, Unreachable { node: 2, ..survey.unreachable[0].clone() });
    survey.nodes[0].groups[2].role = "follower".into();
    let overview = Overview::of(survey);
    assert_eq!(
        overview.groups[2].problem.as_deref(),
        Some("1 of 3 members is alive, 2 are needed; missing: nodes 3, 2")
    );
}

#[test]
fn a_leader_that_only_peers_hear_is_a_leader() {
    let mut survey = healthy(3);
    survey.nodes.pop();
    survey.unreachable.push(Unreachable {
        node: 3,
        client_addr: "127.0.0.1:7003".into(),
        alive: true,
        why: "no answer in time".into(),
    });
    let overview = Overview::of(survey);
    assert_eq!(overview.groups[2].leader, Some(3));
    assert_eq!(overview.summary.tolerates, Some(1));
    assert!(!overview.summary.healthy);
}

#[test]
fn many_groups_are_summed_up_and_only_troubled_ones_listed() {
    let fine = table(&Overview::of(healthy(64)), 24, false);
    assert!(fine.contains("64 groups: applied 10 to 10, largest lag 0\n"), "{fine}");
    assert!(!fine.contains("group  leader"), "{fine}");

    let mut survey = healthy(64);
    survey.nodes[0].groups[3].followers[1].behind = 7;
    survey.nodes[2].groups[9].halted = Some("checksum mismatch".into());
    let text = table(&Overview::of(survey), 24, false);
    assert!(text.contains("largest lag 7 (group 3)"), "{text}");
    assert!(text.contains("\n    9       1  1 2 3 "), "{text}");
    assert!(text.contains("- group 9: halted on node 3: checksum mismatch"), "{text}");
}

#[test]
fn replicas_are_compared_at_equal_instances_only() {
    let mut survey = healthy(3);
    survey.nodes[1].groups[0].applied = 9;
    survey.nodes[1].groups[0].state_hash = "x".repeat(64);
    survey.nodes[2].groups[1].chain = "x".repeat(16);
    let overview = Overview::of(survey);
    let agreement: Vec<Agreement> = overview.groups.iter().map(|group| group.agreement).collect();
    assert_eq!(agreement, [Agreement::Moving, Agreement::Differs, Agreement::Equal]);
    assert_eq!(
        overview.groups[1].problem.as_deref(),
        Some(
            "replicas differ at equal instances: nodes 1 and 3 at instance 10, nodes 2 and 3 at instance 10"
        )
    );
    assert!(!overview.summary.healthy);
}

/// A survey in which no list is empty and nothing is absent.
fn everything() -> Survey {
    let mut survey = without_node_3(4);
    let node = &mut survey.nodes[0];
    node.log.growth_bytes_per_s = Some(1.0);
    node.log.runway_s = Some(100.0);
    let finding =
        FindingLine { file: "f".into(), offset: 1, why: "w".into(), groups: vec![1], healed: false };
    node.log.scrub.findings.push(finding);
    node.log.held = Some(HeldLine {
        segment: "s".into(),
        group: Some(1),
        instance: 1,
        groups: 1,
        for_s: 1.0,
        urgent: false,
        why: "w".into(),
    });
    let (group, peer, incoming, bytes, elapsed_s) = (1, 2, true, 10, 1.0);
    node.transfers.push(TransferLine { group, peer, incoming, bytes, expected_bytes: 20, elapsed_s });
    node.learning.push(LearningLine { group, peer, incoming, next: 1, target: 2, bytes, elapsed_s });
    node.groups[0].points.push(PointLine { instance: 1, state: "s".into() });
    node.alarms.push("look".into());
    node.traffic.errors.insert("BUSY".into(), 1);
    for took in [&mut node.traffic.read_took, &mut node.traffic.write_took] {
        (took.bounds_us, took.counts) = (vec![100], vec![1, 0]);
    }
    survey
}

/// Every field of a document, as docs/status.md names it.
fn fields(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let name = match name {
                    _ if name.parse::<u32>().is_ok() => "{node}",
                    _ if name.chars().all(char::is_uppercase) => "{WORD}",
                    _ => name.as_str(),
                };
                let inner = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
                self::fields(value, &inner, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| fields(item, &format!("{path}[]"), found)),
        _ => {
            found.insert(path.to_owned());
        }
    }
}

#[test]
fn the_json_document_has_the_documented_fields_and_no_others() {
    let mut found = BTreeSet::new();
    for survey in [everything(), without_node_3(4)] {
        let json = serde_json::to_value(Overview::of(survey)).expect("a document");
        fields(&json, "", &mut found);
    }
    let documented: BTreeSet<String> = include_str!("../../../../docs/status.md")
        .split("## --json")
        .nth(1)
        .expect("the part about it")
        .lines()
        .filter_map(|line| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned()))
        .collect();
    let missing: Vec<_> = found.difference(&documented).collect();
    let gone: Vec<_> = documented.difference(&found).collect();
    assert!(
        missing.is_empty() && gone.is_empty(),
        "not documented: {missing:?}; documented and not there: {gone:?}"
    );
}

#[test]
fn what_is_absent_is_null_and_words_are_lowercase() {
    let json = serde_json::to_value(Overview::of(without_node_3(4))).expect("a document");
    assert_eq!(json["groups"][2]["leader"], Value::Null);
    assert_eq!(json["groups"][0]["agreement"], "partial");
    assert_eq!(json["summary"]["runway"], Value::Null);
}

#[test]
fn lag_age_and_runway_are_the_worst_there_are() {
    let mut survey = healthy(3);
    let leader = &mut survey.nodes[0].groups[0];
    (leader.followers[0].behind, leader.followers[0].behind_s) = (7, 0.5);
    (leader.followers[1].behind, leader.followers[1].behind_s) = (2, 9.0);
    survey.nodes[2].groups[1].checkpoint = 4;
    survey.nodes[2].groups[1].checkpoint_age_s = Some(60.0);
    survey.nodes[1].log.runway_s = Some(500.0);
    survey.nodes[2].log.runway_s = Some(50.0);
    let Overview { summary, groups, .. } = Overview::of(survey);
    assert_eq!((groups[0].lag, groups[0].lag_s), (7, Some(9.0)));
    assert_eq!((groups[1].checkpoint_behind, groups[1].checkpoint_age_s), (6, Some(60.0)));
    assert_eq!((groups[2].checkpoint_behind, groups[2].checkpoint_age_s), (0, Some(4.0)));
    assert_eq!((summary.lag, summary.lag_s, summary.checkpoint_behind), (7, Some(9.0), 6));
    assert_eq!(summary.runway.map(|runway| (runway.node, runway.seconds)), Some((3, 50.0)));
}

/// Members were taken from whoever answered first. A node that was away while a group changed its members still
/// names the old ones, and a majority of those may be there while the group has none, or the other way round.
#[test]
fn members_are_those_of_the_newest_list_of_nodes() {
    let mut survey = healthy(3);
    for (node, roster) in survey.nodes.iter_mut().zip([3, 7, 7]) {
        node.roster = roster;
    }
    for node in &mut survey.nodes[1..] {
        node.groups[0].members = vec![2, 3, 4];
    }
    assert_eq!(Overview::of(survey).groups[0].members, [2, 3, 4]);
}

#[test]
fn what_is_on_its_way_is_told_with_amount_rate_and_remaining_time() {
    let text = table(&Overview::of(everything()), 24, false);
    for part in [
        "on the way:\n",
        "- checkpoint of group 1, node 2 to 1 [##########..........] 50 %, 10 B of 20 B, 10 B/s, 1.0s left\n",
        "- values of group 1, node 2 to 1: 10 B, 10 B/s, 2 instances to go\n",
        "the disk of node 1 is full in 100s\n",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}
