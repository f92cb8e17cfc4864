//! Regression tests. Each opens with the story of the bug.

mod paxos_support;

use std::time::Duration;

use bytes::Bytes;
use groups::ids::{Ballot, Boot, InstanceId, NodeId};
use groups::kv::Ticket;
use groups::kv::value::{Batch, noop};
use groups::paxos::message::{Accept, Advance, Entry, Mark, Promise};
use groups::paxos::{Message, chain};
use groups::time::Time;
use paxos_support::{Setup, World, text};

/// A whole promise of a node that has accepted one value.
fn promise_of(node: u32, ballot: Ballot, entry: Entry) -> Promise {
    let (changed, chosen) = (InstanceId::ZERO, InstanceId::ZERO);
    let voter = paxos_support::founder(node).storage;
    Promise { ballot, voter, changed, chosen, part: 0, parts: 1, entries: vec![entry] }
}

/// Story: a node that is more than `ahead` instances behind wins an election (a probe says how far
/// the candidate is, and nobody looks). It proposes its opening beyond the prefix that a promise
/// reported, but its own acceptor refuses: too far ahead of its own prefix. A follower would be
/// sent the accept again after it has learned; the leader's own vote is asked for once and never
/// again. With one node of three down the other's vote is not enough: the opening is never chosen
/// and the group stands still until the third node is back.
#[test]
fn a_leader_that_was_far_behind_votes_once_it_has_caught_up() {
    let mut setup = Setup::new(3);
    setup.prefer = vec![3, 1, 2];
    setup.tuning.ahead = 8;
    setup.tuning.window = 4;
    let mut world = World::new(setup);

    // Node 3 comes up late and misses 20 instances.
    world.crash(3);
    world.run(Duration::from_millis(700));
    assert_eq!(world.leader(), Some(1));
    for n in 0..20 {
        world.write(1, &[text::parse_command(&format!("x={n}"))]);
        world.settle();
    }
    world.run(Duration::from_millis(100));

    // Power loss. Nodes 2 and 3 come up together, and node 3 is placed best.
    world.crash(1);
    world.crash(2);
    world.start(2);
    world.start(3);
    while world.leader().is_none() {
        world.step_clock();
        world.settle();
    }
    // (By now node 2 does not let a node so far behind lead; whoever leads must get on.)
    let leader = world.leader().expect("just seen");
    let opening = world.replica(leader).opening().expect("it leads").0;
    world.run(Duration::from_secs(20));
    let ends: Vec<u64> = [2, 3].iter().map(|id| world.replica(*id).mark().instance.0).collect();
    assert!(
        ends.iter().all(|end| *end >= opening),
        "after twenty seconds the prefixes end at {ends:?}, before the leader's opening #{opening}"
    );
}

/// Story: the leader can send and cannot hear (a broken receive queue, a one-way firewall rule).
/// It notices that nobody echoes its heartbeats and steps down. But its pulse still reaches the
/// others, who therefore take it for a live leader and never look for another; and it cannot
/// probe, because it hears no majority. The group stays without a leader for as long as the cut
/// lasts, though two of three nodes hear each other perfectly. FAULTS section 1: under a one-way
/// partition the majority serves.
#[test]
fn a_majority_finds_a_leader_when_the_old_one_can_only_speak() {
    let mut world = World::new(Setup::new(3));
    world.run(Duration::from_millis(500));
    assert_eq!(world.leader(), Some(1));
    world.cut(2, 1);
    world.cut(3, 1);
    world.run(Duration::from_secs(10));
    let leader = world.leader();
    assert!(leader.is_some(), "ten seconds, two of three nodes hear each other, and nobody leads");
}

/// Brings node 1 to lead from #3 on without knowing #2; node 2 alone knows that #2 is chosen. With
/// `more`, node 2 also holds a #3 of its own, so that it has not told its log about #2 yet.
fn lead_beyond_a_gap(more: bool) -> World {
    let mut setup = Setup::new(3);
    // What is chosen is not told to the log before it has to be.
    setup.tuning.rest = Duration::from_secs(60);
    setup.prefer = vec![2, 1, 3];
    let mut world = World::new(setup);
    world.run(Duration::from_millis(600));
    assert_eq!(world.leader(), Some(2));

    // #2 is on every disk; node 2 alone hears of the votes.
    world.write(2, &[text::parse_command("x=1")]);
    world.deliver(2, 1, usize::MAX);
    world.deliver(2, 3, usize::MAX);
    world.sync(1, usize::MAX);
    world.sync(3, usize::MAX);
    world.deliver(1, 2, usize::MAX);
    world.deliver(3, 2, usize::MAX);
    assert_eq!(world.replica(2).mark().instance.0, 2);
    assert_eq!(world.replica(1).mark().instance.0, 1);

    // A short cut: node 2 steps down, the others begin to look for a leader.
    world.isolate(2);
    if more {
        world.write(2, &[text::parse_command("y=1")]);
    }
    while world.replica(1).role_name() != "probing" {
        world.step_clock();
    }
    world.cut.clear();
    assert!(!world.replica(2).is_leader());

    // Node 1's candidacy: the promise that completes its majority is node 2's.
    world.cut(3, 1);
    world.deliver(1, 3, usize::MAX);
    world.cut.clear();
    for _ in 0..100 {
        if world.replica(1).role_name() == "candidate" {
            break;
        }
        world.step_clock();
        world.deliver(1, 2, usize::MAX);
        // What node 2 would teach it on the way is lost.
        world.links.entry((2, 1)).or_default().retain(|m| !matches!(m, Message::Values(_)));
        world.deliver(2, 1, usize::MAX);
    }
    assert_eq!(world.replica(1).role_name(), "candidate");
    world.sync(1, usize::MAX);
    world.deliver(1, 2, usize::MAX);
    world.sync(2, usize::MAX);
    world.deliver(2, 1, usize::MAX);
    assert!(world.replica(1).is_leader());
    assert_eq!(world.replica(1).mark().instance.0, 1, "it leads and does not know #2 yet");
    world
}

/// Story: node 2 leads, #2 is accepted by all three, and only node 2 knows that it is chosen. A
/// short cut deposes it. Node 1 becomes a candidate; the first promise is node 2's, which says
/// "chosen up to #2" and so reports no value for #2. Node 1 leads from #3 on and asks node 2 for
/// #2. Now node 2 dies for good. Nodes 1 and 3 both hold #2 as accepted, a majority of the group is
/// up, but the leader waits for somebody who can tell it that #2 is chosen. Nobody can: it never
/// proposes #2 itself, never steps down, and every client of the group waits until node 2 is back.
/// ARCHITECTURE, FAULTS section 1: survivors with a majority go on within 1 s.
#[test]
fn a_leader_does_not_wait_for_ever_for_one_dead_peer() {
    let mut world = lead_beyond_a_gap(false);
    // The only node that knows #2 to be chosen is gone. Two of three live, and #2 is on both.
    world.crash(2);
    world.run(Duration::from_secs(20));
    let ends: Vec<u64> = [1, 3].iter().map(|id| world.replica(*id).mark().instance.0).collect();
    assert!(ends.iter().all(|end| *end > 2), "after twenty seconds the prefixes end at {ends:?}");
}

/// Worse: node 2 only restarts, at once. What it said to be chosen it had not told its log, so now
/// nobody knows. All three are up and well, and the group stands still.
#[test]
fn a_leader_does_not_wait_for_ever_for_what_everybody_forgot() {
    let mut world = lead_beyond_a_gap(true);
    world.crash(2);
    world.start(2);
    assert!(world.replica(2).mark().instance.0 < 2, "it knows no more that #2 is chosen");
    world.run(Duration::from_secs(20));
    let ends: Vec<u64> = [1, 2, 3].iter().map(|id| world.replica(*id).mark().instance.0).collect();
    assert!(ends.iter().all(|end| *end > 2), "after twenty seconds the prefixes end at {ends:?}");
}

/// Story: ballots are checked for plausibility, instances are not. One promise with one entry far
/// away (a flipped bit behind a right checksum, a peer of another configuration) makes the new
/// leader fill everything before it with no-ops, in one step, in memory: at #2^40 the process is
/// killed for its memory, and with it all groups of the node. An honest acceptor holds nothing
/// more than `ahead` instances beyond its own prefix. ARCHITECTURE section 4, invariant 12.
#[test]
fn a_promise_with_an_absurd_instance_is_not_filled_up_to() {
    let mut world = World::new(Setup::new(3));
    while world.replica(1).role_name() != "candidate" {
        world.step_clock();
        world.deliver_all();
    }
    world.sync(1, usize::MAX);
    let entry = Entry {
        instance: InstanceId(200_000),
        ballot: Ballot { round: 1, node: NodeId(2) },
        value: Bytes::from_static(&[0]),
    };
    let ballot = world.replica(1).promised();
    let promise = promise_of(2, ballot, entry);
    world.hand_over(2, 1, Message::Promise(promise));
    let records: usize = world.nodes[&1].pending.iter().map(|b| b.records.len()).sum();
    assert!(records < 10_000, "one promise made the leader write {records} records");
}

/// A chosen value that this version cannot read: a command of a later one.
fn unreadable() -> Bytes {
    let mut batch = Batch::new();
    batch.push(Ticket { node: NodeId(9), boot: Boot(1), number: 1, behind: 0 }, b"\xEEfrom a later version");
    batch.finish()
}

/// Story: two values are chosen at once and the first cannot be applied. The group halted, as it
/// should, but the second was still in its delivery queue. The next turn handed it to the state
/// machine, whose assertion "apply is in order" failed: the process died, and with it every group
/// of the node.
#[test]
fn a_halted_group_does_not_take_the_process_with_it() {
    let mut world = World::new(Setup::new(3));
    world.run(Duration::from_millis(500));
    world.trusting = true;
    let ballot = world.replica(1).promised();
    let values = [unreadable(), noop()];
    let mut mark = world.replica(2).mark();
    for (instance, value) in (2..).map(InstanceId).zip(values) {
        let accept = Accept { ballot, instance, mark: Mark::default(), value: value.clone() };
        world.hand_over(1, 2, Message::Accept(accept));
        mark = Mark { instance, chain: chain(mark.chain, &value) };
    }
    world.hand_over(
        1,
        2,
        Message::Advance(Advance { ballot, mark, barrier: 0, asked: Time::ZERO, life: Boot(0) }),
    );
    assert_eq!(world.replica(2).role_name(), "halted");
    world.run(Duration::from_millis(500));
}

/// Story: the group halts on its leader (say it is the only node of an older version). Nobody was
/// told, and the node's pulse went on for all its groups: the followers followed a leader that
/// never spoke again.
#[test]
fn followers_of_a_halted_leader_look_for_another() {
    let mut world = World::new(Setup::new(3));
    while world.replica(1).role_name() != "candidate" {
        world.step_clock();
        world.deliver_all();
    }
    world.sync(1, usize::MAX);
    let ballot = world.replica(1).promised();
    let entry =
        Entry { instance: InstanceId(1), ballot: Ballot { round: 1, node: NodeId(2) }, value: unreadable() };
    let promise = promise_of(2, ballot, entry);
    world.hand_over(2, 1, Message::Promise(promise));
    world.settle();
    assert_eq!(world.replica(1).role_name(), "halted");
    assert_eq!(world.replica(2).role_name(), "follower");
    world.run(Duration::from_secs(3));
    for id in [2, 3] {
        assert_ne!(world.replica(id).leader(), Some(NodeId(1)), "node {id} still follows a halted leader");
    }
}
