//! Replicas that compare their states through the log, and states that are hashed anew: who is
//! found to be wrong, who goes on, and what an idle group costs.

mod paxos_support;

use std::time::Duration;

use bytes::Bytes;
use groups::group::Reply;
use groups::host::MirrorWord;
use groups::ids::{Boot, InstanceId, NodeId};
use groups::kv::value::{self, Batch, Value};
use groups::kv::{ApplyError, Command, Point, Scanned, State, Sum, Ticket, Verdict};
use groups::mirrored::{MirrorLimits, MirrorOrder};
use groups::paxos::Halt;
use paxos_support::{GROUP, Setup, World, text};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Three nodes that compare every few instances; node 1 leads.
fn world() -> World {
    let mut setup = Setup::new(3);
    setup.limits.check.entries = 6;
    setup.limits.check.interval = Duration::from_secs(3600);
    setup.limits.check.retry = ms(100);
    // What the replicas say of each other is to find it, not the pass over the own memory.
    setup.limits.rescan = Duration::from_secs(1 << 40);
    let mut world = World::new(setup);
    world.run(ms(800));
    assert_eq!(world.leader(), Some(1));
    world
}

/// Writes `x`, one instance per write.
fn write(world: &mut World, node: u32, from: u64, count: u64) {
    for n in from..from + count {
        world.write(node, &[text::parse_command(&format!("x={n}"))]);
        world.settle();
    }
}

/// A bit of `x` flips in the memory of a node. The next write takes the hash of what it finds
/// away from the one that is kept, which is wrong from then on.
fn skew(world: &mut World, node: u32) {
    let group = world.node(node).host.as_mut().expect("up").group_mut(GROUP).expect("a seat");
    // Another bit at every node: no two go wrong alike.
    assert!(group.state_mut().rot(b"x", node as usize), "there is a value");
}

fn halted(world: &World, node: u32) -> Option<&Halt> {
    world.replica(node).halted()
}

fn checks(world: &World) -> Vec<Option<Verdict>> {
    let values = world.chosen.values().map(|bytes| Value::decode(bytes.clone()));
    let verdict = |value| match value {
        Ok(Value::Check(verdict)) => Some(verdict),
        _ => None,
    };
    values.filter_map(verdict).collect()
}

#[test]
fn equal_states_are_compared_while_there_is_traffic_and_an_idle_group_is_silent() {
    let mut world = world();
    write(&mut world, 1, 0, 40);
    world.run(ms(300));
    let found = checks(&world);
    assert!((4..=8).contains(&found.len()), "{found:?}");
    assert_eq!(found[0], None, "nothing is known before the first one");
    assert!(found[1..].iter().all(|v| matches!(v, Some(Verdict::Agreed(_)))), "{found:?}");
    assert!(world.replica(1).counters.checked >= 4);
    assert!((1..=3).all(|node| halted(&world, node).is_none()));

    // Nothing is said but heartbeats, which are below this world, and nothing is chosen.
    let end = world.chosen.len();
    for _ in 0..500 {
        world.step_clock();
        let said: usize = world.links.values().map(std::collections::VecDeque::len).sum();
        assert_eq!(said, 0, "an idle group speaks");
    }
    assert_eq!(world.chosen.len(), end);
}

#[test]
fn time_brings_a_check_only_when_something_was_chosen_meanwhile() {
    let mut setup = Setup::new(3);
    setup.limits.check.interval = ms(500);
    let mut world = World::new(setup);
    world.run(ms(2_000));
    // The opening of the leadership alone may be compared, once.
    let before = checks(&world).len();
    assert!(before <= 1);
    world.run(ms(5_000));
    assert_eq!(checks(&world).len(), before, "an idle group is not compared again and again");
    write(&mut world, 1, 0, 1);
    world.run(ms(2_000));
    assert_eq!(checks(&world).len(), before + 1);
}

#[test]
fn the_odd_follower_halts_and_the_others_go_on() {
    let mut world = world();
    write(&mut world, 1, 0, 2);
    skew(&mut world, 3);
    write(&mut world, 1, 2, 20);
    world.run(ms(300));
    let Some(halt) = halted(&world, 3).cloned() else { panic!("node 3 goes on") };
    let Halt::StateDiffers { instance, ours, agreed } = &halt else { panic!("{halt}") };
    assert!(halt.is_own_state());
    assert_ne!(ours, agreed);
    let words = halt.to_string();
    for said in [&format!("instance {instance}"), &ours.to_string(), &agreed.to_string()] {
        assert!(words.contains(said.as_str()), "{words}");
    }
    assert_eq!((halted(&world, 1), halted(&world, 2)), (None, None));
    assert_eq!(world.leader(), Some(1));
    let before = world.replica(2).mark().instance;
    write(&mut world, 1, 22, 1);
    world.run(ms(100));
    assert!(world.replica(2).mark().instance > before, "the majority serves");
    // It stopped where the verdict came, and nothing behind it was applied.
    let state = world.host(3).group(GROUP).expect("a seat").state();
    assert!(state.applied() < before);
}

/// The story: a replica's memory has gone wrong, and a majority says so. Halting for good would cost
/// the group a replica until an operator comes, although log and votes are sound: it gives the
/// state up, in memory and in the mirror, votes on, and takes the state from a peer.
#[test]
fn the_odd_follower_gives_its_state_up_and_takes_it_from_a_peer() {
    let mut setup = Setup::new(3);
    setup.limits.check.entries = 6;
    setup.limits.check.interval = Duration::from_secs(3600);
    setup.limits.mirror = Some(MirrorLimits::default());
    // What memory keeps is not enough to make the state from.
    setup.tuning.recent = 4;
    let mut world = World::new(setup);
    world.run(ms(800));
    write(&mut world, 1, 0, 2);
    skew(&mut world, 3);
    write(&mut world, 1, 2, 20);
    world.run(ms(300));
    assert_eq!(halted(&world, 3), None);
    let healed = |world: &World| world.host(3).group(GROUP).expect("a seat").healed().cloned();
    assert!(matches!(healed(&world), Some(Halt::StateDiffers { .. })), "{:?}", healed(&world));
    let orders: Vec<&MirrorOrder> =
        world.orders.iter().filter(|(node, _)| *node == 3).map(|(_, o)| o).collect();
    let given_up =
        orders.iter().position(|o| matches!(o, MirrorOrder::Discard)).expect("the mirror forgets it");
    let fetched = orders[given_up..].iter().any(|o| matches!(o, MirrorOrder::Fetch { .. }));
    assert!(fetched, "{orders:?}");

    // It votes while it has no state, and does not lead.
    world.isolate(2);
    let before = world.replica(1).mark().instance;
    write(&mut world, 1, 30, 3);
    world.run(ms(200));
    assert!(world.replica(1).mark().instance > before, "the vote of node 3 is needed, and counts");
    world.cut.clear();
    world.run(ms(200));

    let mark = world.replica(1).mark();
    let host = world.node(1).host.as_mut().expect("up");
    let image = host.group_mut(GROUP).expect("a seat").state_mut().image(mark.chain);
    let state = Box::new(image.into_state().expect("a state"));
    let now = world.now;
    let host = world.node(3).host.as_mut().expect("up");
    host.on_mirror(GROUP, MirrorWord::Installed(mark, state), now);
    world.run(ms(300));
    write(&mut world, 1, 40, 20);
    world.run(ms(300));
    let seat = |node: u32| world.host(node).group(GROUP).expect("a seat");
    assert!(!seat(3).is_rebuilding() && halted(&world, 3).is_none());
    assert_eq!(seat(3).state().hash(), seat(1).state().hash());
    assert_eq!(seat(3).state().applied(), seat(1).state().applied());
}

/// The story: a halted replica cannot know whether it or the others are wrong. When they go on
/// without it, they are a majority that agrees, and what is here is what is wrong.
#[test]
fn a_halted_replica_that_the_others_leave_behind_is_outlived() {
    let mut world = world();
    let why = Halt::Diverged { peer: NodeId(1), instance: InstanceId(1), ours: 1, theirs: 2 };
    let host = world.node(3).host.as_mut().expect("up");
    host.group_mut(GROUP).expect("a seat").replica.halt(why);
    write(&mut world, 1, 0, 20);
    assert_eq!(world.host(3).outlived(), None, "these may have been under way with its own vote");
    world.crash(1);
    world.run(ms(3_000));
    assert_eq!(world.leader(), None, "a halted replica helps nobody");
    world.start(1);
    world.run(ms(3_000));
    assert!(world.leader().is_some());
    let (group, why) = world.host(3).outlived().expect("a leader was elected without it");
    assert!(group == GROUP && why.contains("chained checksum"), "{why}");
}

#[test]
fn an_odd_leader_halts_and_another_leads() {
    let mut world = world();
    write(&mut world, 1, 0, 2);
    skew(&mut world, 1);
    write(&mut world, 1, 2, 10);
    world.run(ms(3_000));
    let Some(halt) = halted(&world, 1) else { panic!("node 1 goes on") };
    assert!(matches!(halt, Halt::StateDiffers { .. }), "{halt}");
    assert_eq!((halted(&world, 2), halted(&world, 3)), (None, None));
    let leader = world.leader().expect("one of the others");
    write(&mut world, leader, 50, 20);
    world.run(ms(300));
    assert_eq!((halted(&world, 2), halted(&world, 3)), (None, None));
}

#[test]
fn where_no_majority_agrees_the_group_stops() {
    let mut world = world();
    write(&mut world, 1, 0, 2);
    skew(&mut world, 1);
    skew(&mut world, 2);
    write(&mut world, 1, 2, 10);
    world.run(ms(1_000));
    let halts: Vec<&Halt> = (1..=3).filter_map(|node| halted(&world, node)).collect();
    // One may not hear of it, when those who applied it have halted; it finds no majority.
    assert!(halts.len() >= 2, "{halts:?}");
    for halt in halts {
        assert!(matches!(halt, Halt::NoMajorityAgrees { .. }), "{halt}");
        assert!(!halt.is_own_state(), "nobody knows whose state is wrong");
    }
    assert_eq!(world.leader(), None);
    world.run(ms(5_000));
    assert_eq!(world.leader(), None);
}

/// Two of three differ and the third is away: nobody knows who is right, so nothing is served
/// until it is back. Then the odd one halts and the group goes on.
#[test]
fn while_it_depends_on_a_silent_member_nothing_is_served() {
    let mut world = world();
    write(&mut world, 1, 0, 2);
    world.crash(3);
    skew(&mut world, 2);
    write(&mut world, 1, 2, 10);
    world.run(ms(500));
    world.answers.clear();
    world.read(1, "x", 0);
    write(&mut world, 1, 12, 1);
    world.run(ms(500));
    assert!(!world.answers.is_empty());
    for (_, answer) in &world.answers {
        assert_eq!(answer.reply, Reply::Halted, "{answer:?}");
    }
    assert_eq!((halted(&world, 1), halted(&world, 2)), (None, None));

    world.start(3);
    world.run(ms(2_000));
    assert!(matches!(halted(&world, 2), Some(Halt::StateDiffers { .. })), "{:?}", halted(&world, 2));
    assert_eq!((halted(&world, 1), halted(&world, 3)), (None, None));
    world.answers.clear();
    world.read(1, "x", 0);
    world.run(ms(100));
    let answered = world.answers.iter().any(|(_, answer)| matches!(answer.reply, Reply::Outcome(_)));
    assert!(answered, "{:?}", world.answers);
}

/// The verdict is in the log: whoever was away when it was found gets it with the values.
#[test]
fn an_absent_replica_is_told_when_it_comes_back() {
    let mut world = world();
    write(&mut world, 1, 0, 2);
    skew(&mut world, 3);
    write(&mut world, 1, 2, 2);
    let (mut before, mut n) = (checks(&world).len(), 4);
    // It applies one more check, and nobody hears what it found.
    for other in [1, 2] {
        world.cut(3, other);
    }
    while checks(&world).len() == before {
        write(&mut world, 1, n, 1);
        n += 1;
    }
    world.isolate(3);
    before = checks(&world).len();
    while checks(&world).len() < before + 2 {
        write(&mut world, 1, n, 1);
        n += 1;
    }
    assert_eq!((1..=3).filter(|node| halted(&world, *node).is_some()).count(), 0);
    world.cut.clear();
    world.run(ms(3_000));
    assert!(matches!(halted(&world, 3), Some(Halt::StateDiffers { .. })), "{:?}", halted(&world, 3));
    assert_eq!((halted(&world, 1), halted(&world, 2)), (None, None));
    // What it has written down is right: started again it makes the right state of it.
    world.crash(3);
    world.start(3);
    write(&mut world, 1, n, 20);
    world.run(ms(1_000));
    assert_eq!(halted(&world, 3), None);
}

#[test]
fn rotten_memory_is_found_by_going_through_it_and_halts_the_group_here() {
    let mut setup = Setup::new(3);
    setup.limits.rescan = ms(400);
    let mut world = World::new(setup);
    world.run(ms(800));
    for n in 0..50 {
        world.write(1, &[text::parse_command(&format!("k{n}=value"))]);
        world.settle();
    }
    world.run(ms(2_000));
    assert!((1..=3).all(|node| halted(&world, node).is_none()));
    assert!((1..=3).all(|node| world.host(node).group(GROUP).expect("a seat").scrubbed().0 >= 3));
    let group = world.node(3).host.as_mut().expect("up").group_mut(GROUP).expect("a seat");
    assert!(group.state_mut().rot(b"k33", 17));
    world.run(ms(1_000));
    let halt = halted(&world, 3).expect("it is found");
    assert!(matches!(halt, Halt::MemoryRotten { .. }) && halt.is_own_state(), "{halt}");
    assert_eq!((halted(&world, 1), halted(&world, 2)), (None, None));
    write(&mut world, 1, 0, 3);
    assert_eq!(world.leader(), Some(1));
}

fn put(state: &mut State, number: u64, command: &Command) {
    let mut batch = Batch::new();
    batch.push(Ticket { node: NodeId(1), boot: Boot(1), number, behind: 0 }, &command.to_bytes());
    state.apply(InstanceId(number), batch.finish(), &mut |_, _| {}).expect("applies");
}

fn key(n: u8) -> Bytes {
    Bytes::from(format!("k{n:03}"))
}

/// The rest of the pass, to its end.
fn finish(state: &mut State) -> Scanned {
    loop {
        match state.rescan(100) {
            Scanned::More(_) => {}
            end => return end,
        }
    }
}

#[test]
fn a_verdict_about_a_point_that_was_not_noted_here_says_nothing() {
    let mut state = State::default();
    let agreed = Verdict::Agreed(Point { instance: InstanceId(1), sum: Sum { rest: 5, ..state.sum() } });
    let check = |verdict| value::check(Some(verdict));
    state.apply(InstanceId(1), value::check(None), &mut |_, _| {}).expect("applies");
    let wrong = state.apply(InstanceId(2), check(agreed), &mut |_, _| {}).unwrap_err();
    assert!(matches!(wrong, ApplyError::Differs { .. }), "{wrong}");
    assert_eq!(state.applied(), InstanceId(1), "nothing behind it is applied");
    // The same state after a restart from its mirror was not there when it was compared.
    let mut state = state.image(0).into_state().expect("a state");
    state.apply(InstanceId(2), check(agreed), &mut |_, _| {}).expect("no opinion");
    let split = state.apply(InstanceId(3), check(Verdict::Split(InstanceId(1))), &mut |_, _| {});
    assert_eq!(split, Err(ApplyError::Split(InstanceId(1))));
}

#[test]
fn sums_cover_what_the_map_does_not_hold() {
    let (mut a, mut b) = (State::default(), State::default());
    assert_eq!(a.sum(), b.sum());
    put(
        &mut a,
        1,
        &Command::Put {
            key: key(1),
            value: Bytes::new(),
            condition: groups::kv::Condition::Present,
            want: groups::kv::Want::Done,
        },
    );
    b.apply(InstanceId(1), value::noop(), &mut |_, _| {}).expect("applies");
    assert_eq!(a.hash(), b.hash(), "no key was set");
    assert_ne!(a.sum(), b.sum(), "a session remembers its command");
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        rng_seed: RngSeed::Fixed(0x5c52_0b5c),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// However writes and steps are interleaved, a sound state is found sound, and a rotten value
    /// that nobody overwrites is found when the pass that was under way and one more are over.
    #[test]
    fn a_pass_in_steps_tells_sound_from_rotten(
        steps in proptest::collection::vec((0_u8..40, 0_u8..4, 1_u64..400), 1..200),
        victim in 0_u8..40,
        when in 0_usize..200,
    ) {
        let mut state = State::default();
        for n in 0..40 {
            let value = Bytes::from(vec![n; usize::from(n % 5) * 30 + 1]);
            put(&mut state, u64::from(n) + 1, &Command::PutMany { pairs: vec![(key(n), value)] });
        }
        let mut rotten = false;
        for (at, (n, what, budget)) in steps.iter().enumerate() {
            if at == when {
                rotten = state.rot(&key(victim), 3);
            }
            let number = state.applied().0 + 1;
            if *n != victim || !rotten {
                match what {
                    0 => put(&mut state, number, &Command::PutMany { pairs: vec![(key(*n), Bytes::from(vec![9; 40]))] }),
                    1 => put(&mut state, number, &Command::Delete { keys: vec![key(*n)] }),
                    _ => {}
                }
            }
            let scanned = state.rescan(*budget);
            prop_assert!(rotten || !matches!(scanned, Scanned::Rotten { .. }), "{:?}", scanned);
        }
        let first = finish(&mut state);
        prop_assert!(rotten || matches!(first, Scanned::Sound(_)), "{:?}", first);
        let second = finish(&mut state);
        prop_assert_eq!(rotten, matches!(second, Scanned::Rotten { .. }), "{:?}", second);
        prop_assert_eq!(rotten, state.recomputed_hash() != state.hash());
    }
}
