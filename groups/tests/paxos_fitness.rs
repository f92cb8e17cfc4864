//! Leadership leaves a node that lags, and comes back when it does no longer.

mod paxos_support;

use std::time::Duration;

use paxos_support::{Setup, World, text};

/// Lets time pass while the nodes' records take so many milliseconds until they are synced.
fn pass(world: &mut World, millis: u64, lags: [u64; 3]) {
    for _ in 0..millis / 500 {
        let now = world.now;
        for (id, lag) in (1..).zip(lags) {
            let host = world.node(id).host.as_mut().expect("it is up");
            host.set_lag(Duration::from_millis(lag), now);
        }
        world.run(Duration::from_millis(500));
    }
}

#[test]
fn a_leader_whose_disk_lags_hands_over_and_is_handed_back_what_it_led() {
    let mut world = World::new(Setup::new(3));
    world.run(Duration::from_secs(3));
    assert_eq!(world.leader(), Some(1), "it is placed best");
    world.write(1, &[text::parse_command("x=1")]);
    // A hiccup moves nothing.
    pass(&mut world, 1_500, [400, 2, 2]);
    pass(&mut world, 3_000, [2, 2, 2]);
    assert_eq!(world.leader(), Some(1));
    pass(&mut world, 6_000, [400, 2, 2]);
    assert_eq!(world.leader(), Some(2), "the next best");
    // While the second lags as well there is the third, and while all do, nobody moves.
    pass(&mut world, 8_000, [400, 400, 2]);
    assert_eq!(world.leader(), Some(2), "two of three lag: the middle of its peers is as slow as node 2");
    // Shortly better is not better.
    pass(&mut world, 10_000, [2, 2, 2]);
    assert_eq!(world.leader(), Some(2));
    pass(&mut world, 20_000, [2, 2, 2]);
    assert_eq!(world.leader(), Some(1));
    world.write(1, &[text::parse_command("x=2")]);
    world.settle();
}

#[test]
fn whoever_lags_leads_where_nobody_else_can() {
    let mut world = World::new(Setup::new(3));
    world.run(Duration::from_secs(3));
    assert_eq!(world.leader(), Some(1));
    world.isolate(2);
    world.isolate(3);
    world.run(Duration::from_secs(3));
    assert_eq!(world.leader(), None);
    // Alone again with one peer that is far better, but has no vote to spare: what is led stays led.
    pass(&mut world, 6_000, [400, 2, 2]);
    assert_eq!(world.leader(), None);
}
