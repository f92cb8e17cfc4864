use super::verify::examine;
use super::{Work, checkpoint};
use crate::cli::status::tests::healthy;
use crate::client::survey::Survey;
use crate::status::{Begun, FindingLine, PointLine};

fn point(instance: u64, state: &str) -> PointLine {
    PointLine { instance, state: state.into() }
}

/// Work that was begun on three nodes with two groups, and the same nodes when it is all done.
fn done() -> (Work, Survey) {
    let before = healthy(2);
    let begun = before.nodes.iter().map(|node| Begun {
        node: node.node,
        scrub: Some(1),
        groups: node.groups.clone(),
    });
    let begun = begun.collect();
    let mut now = before.clone();
    for node in &mut now.nodes {
        node.log.scrub.answered = 1;
        for line in &mut node.groups {
            (line.rescans, line.verified) = (1, 1);
            line.points = vec![point(8, "same"), point(12, "same")];
        }
    }
    (Work { addresses: Vec::new(), before, begun, missing: Vec::new() }, now)
}

#[test]
fn what_is_done_everywhere_is_done() {
    let (work, now) = done();
    let (stands, agreed) = examine(&work, &now);
    assert_eq!((&stands.open, &stands.wrong), (&vec![], &vec![]));
    assert_eq!((stands.done, stands.all), (3 + 2 * 3 * 2 + 2, 3 + 2 * 3 * 2 + 2));
    assert_eq!(agreed.len(), 2);
    let stands = checkpoint::standing(&work, &now);
    assert_eq!((stands.done, stands.all, stands.open.len()), (6, 6, 0));
}

#[test]
fn nothing_is_done_before_it_has_begun() {
    let (work, _) = done();
    let (stands, agreed) = examine(&work, &work.before);
    assert_eq!((stands.done, agreed.len()), (0, 0));
    assert_eq!(checkpoint::standing(&work, &work.before).done, 0);
}

#[test]
fn replicas_are_compared_at_an_instance_that_all_of_them_have() {
    let (work, mut now) = done();
    // Node 2 is a check behind, and differs where nobody else stands.
    now.nodes[1].groups[0].points = vec![point(8, "same"), point(9, "other")];
    let (stands, agreed) = examine(&work, &now);
    assert!(stands.wrong.is_empty());
    assert_eq!(serde_json::to_value(&agreed[0]).expect("JSON")["instance"], 8);
    now.nodes[1].groups[0].points = vec![point(8, "same"), point(12, "other")];
    let (stands, agreed) = examine(&work, &now);
    assert_eq!(agreed.len(), 1);
    assert_eq!(stands.wrong.len(), 1);
    for words in ["group 0", "instance 12", "node 2 has other", "node 3 has same"] {
        assert!(stands.wrong[0].contains(words), "{}", stands.wrong[0]);
    }
}

#[test]
fn a_comparison_from_before_does_not_count() {
    let (mut work, now) = done();
    for begun in &mut work.begun {
        begun.groups[0].points = vec![point(8, "same"), point(12, "same")];
    }
    let (stands, agreed) = examine(&work, &now);
    assert_eq!(agreed.len(), 1);
    assert_eq!(stands.open, ["the replicas of group 0"]);
}

#[test]
fn damage_and_halts_and_new_alarms_are_named() {
    let (mut work, mut now) = done();
    work.before.nodes[2].alarms.push("old".into());
    now.nodes[2].alarms.extend(["old".into(), "the mirror of group 1 cannot go on".into()]);
    now.nodes[0].groups[1].halted = Some("this replica is wrong".into());
    now.nodes[0].alarms.push("group 1 has halted on this node: this replica is wrong".into());
    let finding = FindingLine {
        file: "data/node-2/log/log-0000000000000001.seg".into(),
        offset: 4711,
        why: "a payload that does not match its checksum".into(),
        groups: vec![1],
        healed: false,
    };
    now.nodes[1].alarms.push(crate::runtime::scrub::alarm(&finding));
    now.nodes[1].log.scrub.findings.push(finding);
    let (stands, agreed) = examine(&work, &now);
    assert_eq!(agreed.len(), 2, "the other two replicas of group 1 agree");
    assert_eq!(stands.wrong.len(), 3, "{:#?}", stands.wrong);
    let all = stands.wrong.join("\n");
    for words in [
        "node 2: the log of this node is damaged: data/node-2/log/log-0000000000000001.seg at byte 4711",
        "group 1 has halted on node 1: this replica is wrong",
        "node 3: the mirror of group 1 cannot go on",
    ] {
        assert!(all.contains(words), "{all}");
    }
}
