//! What is said and written behind a value when nothing comes after it: as little as can be, without anybody
//! waiting for it.

mod paxos_support;

use std::time::Duration;

use groups::log::Record;
use groups::paxos::Tuning;
use paxos_support::{GROUP, Setup, World, text};

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Three members as they are by default, led by the first, with everything told.
fn world() -> World {
    let mut setup = Setup::new(3);
    let Tuning { quiet, rest, .. } = Tuning::default();
    (setup.tuning.quiet, setup.tuning.rest) = (quiet, rest);
    let mut world = World::new(setup);
    world.run(ms(3_000));
    assert_eq!(world.leader(), Some(1));
    assert_eq!(ends(&world), [1, 1, 1]);
    world
}

fn ends(world: &World) -> [u64; 3] {
    [1, 2, 3].map(|id| world.replica(id).mark().instance.0)
}

fn watermarks(world: &World) -> [usize; 3] {
    let written =
        |id: u32| world.nodes[&id].durable.iter().filter(|r| matches!(r, Record::Watermark { .. })).count();
    [1, 2, 3].map(written)
}

fn write(world: &mut World, n: u64) {
    world.write(1, &[text::parse_command(&format!("x={n}"))]);
    world.settle();
}

/// Story: with 1 024 groups nearly every put was the last of its group for a while, and each was followed by two
/// words of the leader, two answers and three records that said that it was chosen: twice the messages and twice the
/// records of the put itself. The next value says it as well.
#[test]
fn a_value_now_and_then_costs_no_words_and_no_records_of_its_own() {
    let mut world = world();
    let before = watermarks(&world);
    for n in 0..20 {
        write(&mut world, n);
        let at = n + 2;
        assert_eq!(ends(&world), [at, at - 1, at - 1], "the followers hear of it with the next value");
        world.run(ms(100));
        assert_eq!(ends(&world), [at, at - 1, at - 1]);
    }
    assert_eq!(watermarks(&world), before);
    // And when none comes, they are told, and then the logs are.
    world.run(ms(300));
    assert_eq!(ends(&world), [21, 21, 21]);
    assert_eq!(watermarks(&world), before);
    world.run(ms(1_300));
    assert_eq!(watermarks(&world), before.map(|count| count + 1));
}

/// Who watches keys at a follower is told as soon as ever.
#[test]
fn an_eager_follower_asks() {
    let mut world = world();
    let host = world.node(3).host.as_mut().expect("it is up");
    host.set_eager(GROUP, true);
    for n in 0..5 {
        write(&mut world, n);
        world.run(ms(50));
        assert_eq!(ends(&world)[2], n + 2);
    }
    let host = world.node(3).host.as_mut().expect("it is up");
    host.set_eager(GROUP, false);
    write(&mut world, 5);
    world.run(ms(50));
    assert_eq!(ends(&world)[2], 6, "it need not");
}

/// A leader that steps aside waits until the next one has everything: it says so at once.
#[test]
fn a_handover_does_not_wait_for_the_quiet() {
    let mut world = world();
    write(&mut world, 0);
    assert_eq!(ends(&world), [2, 1, 1]);
    world.node(1).host.as_mut().expect("it is up").leave_all();
    let begun = world.now;
    while world.leader() == Some(1) || world.leader().is_none() {
        world.step_clock();
        world.settle();
        assert!(world.now.since(begun) < ms(100), "a step of the clock is 10 ms");
    }
}
