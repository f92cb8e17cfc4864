//! Leases (FAULTS, rules 12 to 17): reads without a question, and what an acceptor must not do
//! meanwhile. The reasoning is the head of `groups/src/peers/lease.rs`.

mod paxos_support;

use std::time::Duration;

use groups::ids::{Ballot, Boot, InstanceId, NodeId};
use groups::kv::{Command, Outcome};
use groups::paxos::Message;
use groups::paxos::message::{Advance, Prepare, Probe};
use paxos_support::{GROUP, STEP, Setup, World, text};

const LEASE: Duration = Duration::from_millis(300);

fn with_leases() -> World {
    let mut setup = Setup::new(3);
    (setup.tuning.lease, setup.tuning.own_lease) = (LEASE, Duration::from_millis(288));
    World::new(setup)
}

/// Node 1 leads, and a value is there.
fn led() -> World {
    let mut world = with_leases();
    world.run(Duration::from_millis(800));
    assert_eq!(world.leader(), Some(1));
    world.write(1, &[text::parse_command("x=1")]);
    world.settle();
    world.run(Duration::from_millis(200));
    world
}

fn until(world: &World, id: u32) -> Option<Duration> {
    let host = world.host(id);
    world.replica(id).leased_until(host.peers()).map(|until| until.since(world.now))
}

fn prepare(world: &mut World, from: u32, to: u32, consent: Ballot) {
    let ballot = Ballot { round: 1_000, node: NodeId(from) };
    let message = Message::Prepare(Prepare { ballot, from: InstanceId(1), consent });
    world.hand_over(from, to, message);
}

fn promised(world: &World, id: u32) -> Ballot {
    world.replica(id).promised()
}

#[test]
fn a_read_under_a_lease_asks_nobody() {
    let mut world = led();
    assert!(until(&world, 1).is_some_and(|left| left > STEP), "two heartbeats have passed");
    assert_eq!(until(&world, 2), None, "who follows holds none");
    let before = world.answers.len();
    world.read(1, "x", 0);
    assert_eq!(world.answers.len(), before + 1, "answered in the turn in which it came");
    assert_eq!(world.replica(1).counters.leased, 1);
    assert!(world.links.values().all(|link| link.is_empty()), "and nothing was sent for it");
}

#[test]
fn a_leader_that_nobody_answers_holds_no_lease_after_its_time() {
    let mut world = led();
    world.isolate(1);
    world.tick(Duration::from_millis(250));
    assert!(until(&world, 1).is_none_or(|left| left == Duration::ZERO || left < Duration::from_millis(40)));
    let mut last = world.now;
    while until(&world, 1).is_some_and(|left| left > Duration::ZERO) {
        world.step_clock();
        last = world.now;
    }
    assert!(last.since(world.now) < LEASE);
    let before = world.answers.len();
    world.read(1, "x", 0);
    assert_eq!(world.answers.len(), before, "it waits for a majority's word, which does not come");
}

#[test]
fn an_acceptor_is_bound_while_it_hears_the_leader_and_for_a_lease_after() {
    let mut world = led();
    let held = promised(&world, 2);
    prepare(&mut world, 3, 2, Ballot::ZERO);
    assert_eq!(promised(&world, 2), held);
    assert_eq!(world.replica(2).counters.bound, 1);
    // Cut off from the leader it still is; when the lease has run out the silence is not yet long
    // enough for an election of its own, and the promise is free.
    world.isolate(1);
    world.tick(LEASE - 2 * STEP);
    prepare(&mut world, 3, 2, Ballot::ZERO);
    assert_eq!(promised(&world, 2), held);
    world.tick(Duration::from_millis(60));
    // It may be loyal still, which is no matter of safety: the leader's consent ends that.
    prepare(&mut world, 3, 2, held);
    assert_eq!(promised(&world, 2), Ballot { round: 1_000, node: NodeId(3) });
}

#[test]
fn the_consent_of_another_ballot_frees_nobody() {
    let mut world = led();
    let held = promised(&world, 2);
    let earlier = Ballot { round: held.round - 1, node: NodeId(1) };
    prepare(&mut world, 3, 2, earlier);
    assert_eq!(promised(&world, 2), held, "a late word of an earlier leadership");
    prepare(&mut world, 3, 2, held);
    assert_eq!(promised(&world, 2).node, NodeId(3));
}

#[test]
fn a_new_life_promises_nothing_for_one_lease() {
    let mut world = led();
    let held = promised(&world, 2);
    world.crash(2);
    world.start(2);
    prepare(&mut world, 3, 2, held);
    assert_eq!(promised(&world, 2), held, "not even with consent: who was granted what is forgotten");
    world.isolate(1);
    world.tick(LEASE + STEP);
    prepare(&mut world, 3, 2, Ballot::ZERO);
    assert_eq!(promised(&world, 2).node, NodeId(3));
}

/// Story: a node promised a candidate's ballot and was bound to it; the candidate never won, and
/// could not stand again. Its heartbeats went on, so it was granted a lease that it could not use,
/// and nobody else was ever promised anything.
#[test]
fn who_says_that_it_leads_no_more_binds_nobody() {
    let mut world = led();
    let held = promised(&world, 2);
    let probe =
        |renounced| Message::Probe(Probe { attempt: 0, chosen: InstanceId(1), life: Boot(1), renounced });
    world.hand_over(1, 2, probe(Ballot { round: held.round - 1, node: NodeId(1) }));
    prepare(&mut world, 3, 2, Ballot::ZERO);
    assert_eq!(promised(&world, 2), held, "that was said before it led");
    world.hand_over(1, 2, probe(held));
    prepare(&mut world, 3, 2, Ballot::ZERO);
    assert_eq!(promised(&world, 2).node, NodeId(3));
}

/// Story: the leader's disk was lost, and its node went on as another one, which knew of no ballot. A late
/// word of the leader that it had been had its followers confirm it once more; they were bound to a node
/// that could not say that it led at that ballot no more, elected nobody, and so no other disk ever took
/// the lost one's place (simulator, seed 5005528).
#[test]
fn a_new_disk_in_the_place_of_the_leaders_binds_nobody() {
    let mut world = led();
    let (held, mark) = (promised(&world, 2), world.replica(1).mark());
    world.crash(1);
    world.replace(1);
    world.run(Duration::from_millis(100));
    for follower in [2, 3] {
        assert_eq!(promised(&world, follower), held, "nobody else was elected yet");
        world.hand_over(1, follower, Message::Advance(Advance::new(held, mark, 0)));
    }
    world.run(Duration::from_secs(3));
    assert!(world.leader().is_some());
    assert!(world.replica(1).is_voter(), "and the new disk is a member");
    // Which does not use a ballot of the lost one: neither in the life in which it became a member nor in the next.
    let far = promised(&world, 1).round;
    assert!(world.leader() == Some(1) && far > 1 << 16, "{far}");
    world.crash(1);
    world.run(Duration::from_secs(1));
    world.start(1);
    world.run(Duration::from_secs(5));
    assert!(world.leader() == Some(1) && promised(&world, 1).round > far + (1 << 16));
}

#[test]
fn a_lease_does_not_outlive_the_promise_that_it_stands_on() {
    let mut world = led();
    let held = promised(&world, 2);
    // Both followers promise node 3 with the leader's consent, and go on echoing node 1.
    prepare(&mut world, 3, 2, held);
    assert_eq!(promised(&world, 2).node, NodeId(3));
    world.links.clear();
    world.cut.extend([(2, 1), (3, 1)]);
    world.tick(Duration::from_millis(100));
    world.cut.clear();
    // Node 1 hears heartbeats of node 2 only from here on, in which it has left.
    world.cut.extend([(3, 1), (1, 3)]);
    world.tick(Duration::from_millis(60));
    assert!(world.replica(1).is_leader(), "nothing but heartbeats has reached it");
    let host = world.host(1);
    let bound = world.replica(1).bound_followers(host.peers());
    assert!(bound.iter().all(|(node, _)| *node != NodeId(2)), "{bound:?}");
}

#[test]
fn a_follower_answers_what_may_be_old_once_it_can_prove_how_old() {
    let bound = Duration::from_millis(500);
    let get = Command::Get { key: "x".into() };
    let mut world = led();
    let now = world.now;
    let ask = |world: &mut World| {
        let now = world.now;
        let host = world.node(2).host.as_mut().expect("up");
        host.read_stale(GROUP, &get, bound, now)
    };
    assert_eq!(ask(&mut world), None, "it has heard nothing that proves anything; it asks the leader");
    world.run(2 * STEP);
    let value = Some(Outcome::Value(Some(("1".into(), 1))));
    assert_eq!(ask(&mut world), value);
    // Cut off, it answers as long as it may, and no longer.
    world.isolate(2);
    world.tick(bound - 3 * STEP);
    assert_eq!(ask(&mut world), value);
    world.tick(3 * STEP);
    assert!(world.now.since(now) > bound);
    assert_eq!(ask(&mut world), None);
}

#[test]
fn a_node_that_is_about_to_end_hands_over_at_once_and_is_handed_nothing_back() {
    let mut world = led();
    world.node(1).host.as_mut().expect("up").leave_all();
    world.run(Duration::from_millis(60));
    let heir = world.leader().expect("somebody leads");
    assert_ne!(heir, 1, "long before anybody would miss it");
    // It is the best placed of all, and alive.
    world.run(Duration::from_secs(3));
    assert_eq!(world.leader(), Some(heir));
    assert_eq!(world.host(1).leads(), 0);
}
