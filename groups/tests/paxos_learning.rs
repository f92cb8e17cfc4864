//! Learning sessions under whatever a network does to them: loss, copies, another order, the
//! death of either end. The world of `paxos_support` checks after each turn that whatever a node
//! calls chosen is chosen, in order, and in its log.

mod paxos_support;

use std::time::Duration;

use paxos_support::{Setup, World, text};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

/// Cases of a property: a number to start from, more with `PROPTEST_CASES`.
fn config(cases: u32) -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(cases);
    ProptestConfig {
        cases,
        rng_seed: RngSeed::Fixed(11),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// Three nodes; the third has missed `missed` values, most of which only the logs still have.
fn far_behind(missed: u64, credit: usize) -> World {
    let mut setup = Setup::new(3);
    setup.tuning.recent = 4;
    setup.tuning.chunk_bytes = 100;
    setup.tuning.learn_bytes = credit;
    let mut world = World::new(setup);
    world.run(Duration::from_millis(700));
    assert_eq!(world.leader(), Some(1));
    world.isolate(3);
    for n in 0..missed {
        world.write(1, &[text::parse_command(&format!("x={n}"))]);
        world.settle();
    }
    world.run(Duration::from_millis(50));
    world.cut.clear();
    world
}

fn end(world: &World, id: u32) -> u64 {
    world.replica(id).mark().instance.0
}

/// What happens to the links and to the nodes.
#[derive(Clone, Debug)]
enum Event {
    Deliver { from: u32, to: u32, which: usize },
    Lose { from: u32, to: u32, which: usize },
    Copy { from: u32, to: u32, which: usize },
    Sync(u32),
    Tick,
    Crash(u32),
    Start(u32),
}

fn event() -> impl Strategy<Value = Event> {
    let link =
        || prop_oneof![Just((1, 3)), Just((3, 1)), Just((2, 3)), Just((3, 2)), Just((1, 2)), Just((2, 1))];
    let node = || 1..=3_u32;
    prop_oneof![
        12 => (link(), 0..4_usize).prop_map(|((from, to), which)| Event::Deliver { from, to, which }),
        2 => (link(), 0..4_usize).prop_map(|((from, to), which)| Event::Lose { from, to, which }),
        2 => (link(), 0..4_usize).prop_map(|((from, to), which)| Event::Copy { from, to, which }),
        8 => node().prop_map(Event::Sync),
        4 => Just(Event::Tick),
        1 => node().prop_map(Event::Crash),
        3 => node().prop_map(Event::Start),
    ]
}

fn apply(world: &mut World, event: &Event) {
    let waiting = |world: &World, from, to| world.links.get(&(from, to)).map_or(0, |q| q.len());
    match *event {
        Event::Deliver { from, to, which } => match waiting(world, from, to) {
            0 => {}
            n => world.deliver_at(from, to, which % n),
        },
        Event::Lose { from, to, which } => {
            let n = waiting(world, from, to);
            if let Some(queue) = world.links.get_mut(&(from, to)).filter(|_| n > 0) {
                queue.remove(which % n);
            }
        }
        Event::Copy { from, to, which } => {
            let n = waiting(world, from, to);
            if n > 0 && n < 50 {
                let message = world.links[&(from, to)][which % n].clone();
                world.links.entry((from, to)).or_default().push_back(message);
            }
        }
        Event::Sync(id) => drop(world.sync(id, 1)),
        Event::Tick => world.step_clock(),
        Event::Crash(id) => world.crash(id),
        Event::Start(id) if !world.up(id) => world.start(id),
        Event::Start(_) => {}
    }
}

proptest! {
    #![proptest_config(config(300))]

    /// Whatever happens to a session, the learner has everything soon after it stops happening.
    #[test]
    fn a_learner_gets_there_whatever_happens(
        missed in 1..60_u64,
        credit in prop_oneof![Just(1_usize), Just(150), Just(1_000), Just(1 << 20)],
        events in proptest::collection::vec(event(), 0..250),
    ) {
        let mut world = far_behind(missed, credit);
        for event in &events {
            apply(&mut world, event);
        }
        for id in world.ids() {
            if !world.up(id) {
                world.start(id);
            }
        }
        world.run(Duration::from_secs(4));
        let ends: Vec<u64> = world.ids().iter().map(|id| end(&world, *id)).collect();
        prop_assert!(ends[0] > missed && ends.iter().all(|e| *e == ends[0]), "{:?}", ends);
        for id in world.ids() {
            prop_assert!(world.replica(id).learning_sessions().is_empty(), "node {} has a session left", id);
        }
    }
}

/// However far behind, what is under way stays within the credit, and one round trip brings many
/// chunks.
#[test]
fn chunks_come_back_to_back_within_the_credit() {
    let mut world = far_behind(60, 16 * 1_000);
    while world.replica(3).learning_sessions().is_empty() {
        world.step_clock();
        world.deliver(1, 3, usize::MAX);
    }
    world.deliver(3, 1, usize::MAX);
    let session = world.replica(1).learning_sessions()[0];
    let waiting = world.links[&(1, 3)].len();
    assert!(session.bytes > 500 && session.bytes <= 1_000 + 100, "{} bytes are under way", session.bytes);
    assert!(waiting >= 5, "{waiting} chunks are under way");
    // Nothing more goes out before the learner's disk has something of it.
    world.deliver(1, 3, usize::MAX);
    world.deliver(3, 1, usize::MAX);
    assert_eq!(world.replica(1).learning_sessions()[0].bytes, session.bytes);
    world.sync(3, usize::MAX);
    world.deliver(3, 1, usize::MAX);
    assert!(world.replica(1).learning_sessions()[0].bytes > session.bytes);
}

/// The sender dies half way: the other peer goes on where the learner stands.
#[test]
fn another_peer_takes_over() {
    let mut world = far_behind(60, 300);
    while end(&world, 3) < 20 {
        world.step_clock();
        world.deliver_all();
        world.sync(3, usize::MAX);
        world.sync(1, usize::MAX);
    }
    world.crash(1);
    let before = end(&world, 3);
    assert!(before < 50);
    world.run(Duration::from_secs(2));
    assert!(end(&world, 3) > 60 && end(&world, 3) == end(&world, 2));
    assert_eq!(world.replica(3).counters.resumed, 1);
}

/// The learner dies: its sender forgets it after a while, and the next life begins anew.
#[test]
fn a_silent_learner_is_forgotten() {
    let mut world = far_behind(60, 300);
    while end(&world, 3) < 20 {
        world.step_clock();
        world.deliver_all();
        world.sync(3, usize::MAX);
        world.sync(1, usize::MAX);
    }
    world.crash(3);
    assert!(!world.replica(1).learning_sessions().is_empty());
    world.run(Duration::from_secs(4));
    assert!(world.replica(1).learning_sessions().is_empty());
    world.start(3);
    world.run(Duration::from_secs(2));
    assert_eq!(end(&world, 3), end(&world, 1));
}

/// A few values from memory: one message asks, one answers, and nobody keeps a session.
#[test]
fn a_small_gap_costs_one_message_each_way() {
    let mut world = far_behind(3, 1 << 20);
    while world.replica(3).learning_sessions().is_empty() {
        world.step_clock();
        world.deliver(1, 3, usize::MAX);
    }
    world.deliver(3, 1, usize::MAX);
    assert!(world.replica(1).learning_sessions().is_empty());
    world.deliver(1, 3, usize::MAX);
    assert_eq!(end(&world, 3), end(&world, 1));
    assert!(world.replica(3).learning_sessions().is_empty());
    assert_eq!(world.replica(3).counters.sessions, 1);
    let asks = world.links.get(&(3, 1)).map_or(0, |q| q.iter().filter(|m| m.name() == "Learn").count());
    assert_eq!(asks, 0);
}
