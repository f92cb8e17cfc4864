use super::table::{bytes, line, micros, table};
use crate::client::overview::{Agreement, Overview};
use crate::client::survey::{Survey, Unreachable};
use crate::status::{FollowerLine, GroupLine, LogStatus, NodeStatus, PeerStatus, TrafficStatus};

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
            ..LogStatus::default()
        },
        transfers: Vec::new(),
        learning: Vec::new(),
        connections: 2,
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
        rebuilding: false,
        votes: true,
        holds_log: None,
        followers: match leader == node {
            true => members[1..]
                .iter()
                .map(|node| FollowerLine { node: *node, follows: true, behind: 0 })
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
fn without_node_3(groups: u32) -> Survey {
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

node  client address         state  leads  commit p50/p99     log size  clients
   1  127.0.0.1:7001         alive      2  900us/2.1ms          64 MiB        2
   2  127.0.0.1:7002         alive      1  900us/2.1ms          64 MiB        2
   3  127.0.0.1:7003         alive      1  900us/2.1ms          64 MiB        2

group  leader  members            applied    lag       keys       size  replicas
    0       1  1 2 3                   10      0          3    1.5 KiB  equal
    1       2  2 3 1                   10      0          3    1.5 KiB  equal
    2       3  3 1 2                   10      0          3    1.5 KiB  equal
    3       1  1 2 3                   10      0          3    1.5 KiB  equal
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

#[test]
fn the_json_document_has_the_documented_fields() {
    let json = serde_json::to_value(Overview::of(without_node_3(4))).expect("a document");
    for path in [
        "/summary/cluster_name",
        "/summary/healthy",
        "/summary/leads/1",
        "/summary/tolerates",
        "/summary/agreement/equal",
        "/summary/alarms/0/text",
        "/groups/0/leader",
        "/groups/2/problem",
        "/groups/0/agreement",
        "/nodes/0/log/commit_p50_us",
        "/unreachable/0/why",
    ] {
        assert!(json.pointer(path).is_some(), "{path} is not in {json:#}");
    }
    assert_eq!(json["groups"][2]["leader"], serde_json::Value::Null);
    assert_eq!(json["groups"][0]["agreement"], "partial");
}

#[test]
fn figures_for_people() {
    for (count, text) in [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (64 << 20, "64 MiB"),
        (150 * 1024 + 512, "150 KiB"),
        (u64::MAX, "16 EiB"),
    ] {
        assert_eq!(bytes(count), text);
    }
    for (count, text) in [(0, "0us"), (999, "999us"), (1_500, "1.5ms"), (25_400, "25ms"), (2_500_000, "2.5s")]
    {
        assert_eq!(micros(count), text);
    }
}
