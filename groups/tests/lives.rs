//! Lives of keys in a group of three: they end by an entry, not before they are over, soon after,
//! and not while nobody leads; and an idle group waits for a far end without a word.

mod paxos_support;

use std::time::Duration;

use bytes::Bytes;
use groups::kv::value::Value;
use groups::kv::{Command, Condition, Life, Want};
use paxos_support::{GROUP, Setup, World, text};

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Three nodes; node 1 leads.
fn world() -> World {
    let mut world = World::new(Setup::new(3));
    world.run(ms(800));
    assert_eq!(world.leader(), Some(1));
    world
}

fn put_for(key: &'static str, millis: u64) -> Command {
    let (key, value) = (Bytes::from_static(key.as_bytes()), Bytes::from_static(b"v"));
    Command::PutFor { key, value, condition: Condition::None, want: Want::Done, life: Life::For(millis) }
}

fn has(world: &World, node: u32, key: &str) -> bool {
    world.host(node).group(GROUP).expect("a seat").state().get(key.as_bytes()).is_some()
}

/// How many entries have ended lives.
fn expiries(world: &World) -> usize {
    world.chosen.values().filter(|v| matches!(Value::decode((*v).clone()), Ok(Value::Expire { .. }))).count()
}

#[test]
fn a_life_ends_on_every_replica_when_it_is_over_and_an_idle_group_says_nothing_before() {
    let mut world = world();
    world.write(1, &[put_for("k", 2_000)]);
    world.run(ms(1_000));
    let end = world.chosen.len();
    let begun = world.now;
    while world.now.since(begun) < ms(900) {
        world.step_clock();
        let said: usize = world.links.values().map(std::collections::VecDeque::len).sum();
        assert_eq!(said, 0, "an idle group speaks");
    }
    assert_eq!((world.chosen.len(), expiries(&world)), (end, 0), "nothing is over yet");
    assert!((1..=3).all(|node| has(&world, node, "k")));
    world.run(ms(1_500));
    assert_eq!(expiries(&world), 1);
    assert!((1..=3).all(|node| !has(&world, node, "k")));
    let end = world.chosen.len();
    world.run(ms(5_000));
    assert_eq!(world.chosen.len(), end, "where there is nothing to end, nothing is proposed");
}

#[test]
fn many_lives_end_in_few_entries_and_each_takes_a_bounded_number() {
    let mut world = world();
    let keys: Vec<String> = (0..1_500).map(|n| format!("k{n}")).collect();
    let life = Life::For(300);
    for keys in keys.chunks(500) {
        let puts: Vec<Command> = keys
            .iter()
            .map(|key| {
                let (key, value) = (Bytes::copy_from_slice(key.as_bytes()), Bytes::from_static(b"v"));
                Command::PutFor { key, value, condition: Condition::None, want: Want::Done, life }
            })
            .collect();
        world.write(1, &puts);
        world.settle();
    }
    assert_eq!(world.host(1).group(GROUP).expect("a seat").state().len(), 1_500);
    world.run(ms(600));
    assert!(world.host(2).group(GROUP).expect("a seat").state().is_empty());
    assert!((2..=6).contains(&expiries(&world)), "{} entries", expiries(&world));
}

/// The story: a leader dies. Its successor knows what the group's clock showed when it was elected,
/// and not how long nobody led; a life that ended by guesswork would end too early somewhere.
#[test]
fn time_does_not_run_while_nobody_leads() {
    let mut world = world();
    world.write(1, &[put_for("k", 1_000)]);
    world.settle();
    world.crash(1);
    world.crash(2);
    world.run(ms(3_000));
    world.start(2);
    world.run(ms(200));
    while world.leader().is_none() {
        world.step_clock();
    }
    world.run(ms(500));
    assert!(has(&world, 3, "k"), "half a second of its life has passed under the new leader");
    world.run(ms(2_000));
    assert!(!has(&world, 3, "k") && !has(&world, 2, "k"));
}

#[test]
fn a_key_that_was_written_anew_has_its_own_life() {
    let mut world = world();
    world.write(1, &[put_for("k", 300), put_for("l", 300)]);
    world.settle();
    world.write(1, &[text::parse_command("k=1")]);
    world.write(1, &[put_for("l", 3_000)]);
    world.run(ms(1_000));
    assert!(has(&world, 2, "k") && has(&world, 2, "l"));
    world.run(ms(4_000));
    assert!(has(&world, 2, "k") && !has(&world, 2, "l"));
}
