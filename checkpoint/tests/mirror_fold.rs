//! Folds, refills and durable points of one mirror, and what crashes leave of them.

mod mirror_world;

use std::io;

use bytes::Bytes;
use checkpoint::mirror::{Event, Mirror};
use checkpoint::store::sim::Hit;
use checkpoint::store::{MAX_SESSIONS, Point, Position, StoreError};
use groups::ids::{GroupId, InstanceId};
use groups::time::Time;

use mirror_world::{Node, State, Truth};

fn truth(steps: usize) -> Truth {
    let mut truth = Truth::new(1, 40, 60);
    (0..steps).for_each(|_| truth.step(8));
    truth
}

fn node() -> Node {
    let mut node = Node::new(1);
    node.start(Time::ZERO);
    node
}

fn folded(group: GroupId, applied: u64) -> Event {
    Event::Folded { group, applied: InstanceId(applied) }
}

/// Only group 1 has a point, and it is at this state.
fn durable(at: &State) -> Event {
    let Position { applied, chain, state_hash, .. } = at.position();
    Event::Durable([(GroupId(1), Point { applied, chain, state_hash })].into())
}

fn refill(node: &mut Node, group: GroupId, state: &State) -> Vec<Event> {
    node.mirror().refill(group, state.position(), state.sessions.clone(), state.list());
    node.drain()
}

fn wants_refill(events: &[Event]) -> bool {
    events.iter().any(|event| matches!(event, Event::Refill { .. }))
}

#[test]
fn folds_become_durable_when_settled() {
    let (truth, mut node) = (truth(6), node());
    let group = truth.group;
    node.mirror().fold(truth.fold(0, 3));
    assert_eq!(node.drain(), [folded(group, 3)]);
    assert_eq!(node.mirror().durable(group), None);
    node.mirror().settle(&[group, GroupId(9)], Time::ZERO);
    assert_eq!(node.drain(), [durable(truth.at(3))]);
    node.mirror().fold(truth.fold(3, 6));
    assert_eq!(node.drain(), [folded(group, 6)]);
    assert_eq!(node.mirror().durable(group), Some(InstanceId(3)));
    assert_eq!(truth.check(node.store()), InstanceId(6));
    node.crash(0);
    node.start(Time::ZERO);
    assert_eq!(truth.check(node.store()), InstanceId(3));
    let mut entries = Vec::new();
    let image = node.store().load(group, |entry| entries.push(entry)).unwrap();
    assert_eq!((image.position, image.sessions), (truth.at(3).position(), truth.at(3).sessions.clone()));
    assert_eq!(entries, truth.at(3).list());
    assert!(matches!(node.store().load(GroupId(9), drop), Err(StoreError::Absent { .. })));
}

#[test]
fn a_fold_that_does_not_continue_is_never_guessed_at() {
    for (from, to) in [(0, 2), (2, 4), (4, 5), (0, 5)] {
        let (truth, mut node) = (truth(6), node());
        let group = truth.group;
        node.mirror().fold(truth.fold(0, 3));
        node.drain();
        node.mirror().fold(truth.fold(from, to));
        assert!(wants_refill(&node.drain()), "{from} to {to}");
        assert!(node.mirror().damaged().contains_key(&group));
        // Not even one that would continue, until the whole state has come.
        node.mirror().fold(truth.fold(3, 4));
        assert_eq!(node.drain(), []);
        assert_eq!(truth.check(node.store()), InstanceId(3));
        let events = refill(&mut node, group, truth.at(6));
        assert_eq!(events, [durable(truth.at(6)), folded(group, 6)]);
        assert_eq!(truth.check(node.store()), InstanceId(6));
        assert!(node.mirror().damaged().is_empty());
    }
}

#[test]
fn the_same_fold_twice_and_an_older_refill_change_nothing() {
    let (truth, mut node) = (truth(6), node());
    let group = truth.group;
    for _ in 0..2 {
        node.mirror().fold(truth.fold(0, 3));
        assert_eq!(node.drain(), [folded(group, 3)]);
    }
    for older in 0..=3 {
        assert_eq!(refill(&mut node, group, truth.at(older)), [folded(group, 3)]);
        assert_eq!(truth.check(node.store()), InstanceId(3));
    }
}

#[test]
fn a_refill_that_lies_is_not_installed_and_not_asked_for_for_ever() {
    let (truth, mut node) = (truth(6), node());
    node.mirror().fold(truth.fold(0, 3));
    node.drain();
    for round in 1..=3 {
        let mut entries = truth.at(6).list();
        entries.pop();
        let state = truth.at(6);
        node.mirror().refill(truth.group, state.position(), state.sessions.clone(), entries);
        match &node.drain()[..] {
            [Event::Refill { .. }] => assert!(round < 3),
            [Event::Unmirrored { .. }] => assert_eq!(round, 3),
            other => panic!("{other:?}"),
        }
        assert_eq!(truth.check(node.store()), InstanceId(3));
    }
    let sessions = Bytes::from(vec![0; MAX_SESSIONS + 1]);
    node.mirror().refill(truth.group, truth.at(6).position(), sessions, truth.at(6).list());
    assert!(matches!(node.drain()[..], [Event::Unmirrored { .. }]));
    assert!(refill(&mut node, truth.group, truth.at(6)).contains(&folded(truth.group, 6)));
}

#[test]
fn a_failed_write_or_sync_is_the_end_of_it() {
    for kind in [io::ErrorKind::Other, io::ErrorKind::StorageFull] {
        for (write, operation) in (0..12).map(|n| (n % 2 == 0, n / 2 + 1)) {
            if write && kind == io::ErrorKind::StorageFull {
                // That is no end: see the next test.
                continue;
            }
            let (truth, mut node) = (truth(6), node());
            if write {
                node.engine.fail_write(operation, kind);
            } else {
                node.engine.fail_sync(operation, kind);
            }
            let mut events = Vec::new();
            for at in 0..5 {
                node.mirror().fold(truth.fold(at, at + 1));
                node.mirror().settle(&[truth.group], Time::ZERO);
                events.extend(node.drain());
            }
            events.extend(refill(&mut node, truth.group, truth.at(6)));
            let poisoned = events.iter().filter(|event| matches!(event, Event::Poisoned { .. })).count();
            assert_eq!(poisoned, 1, "operation {operation}");
            assert!(node.mirror().poisoned().is_some());
            let operations = node.engine.operations();
            node.mirror().fold(truth.fold(5, 6));
            node.mirror().settle(&[truth.group], Time::ZERO);
            node.mirror().tick(Time::from_nanos(u64::MAX));
            assert_eq!(node.drain(), []);
            assert_eq!(node.engine.operations(), operations);
            let durable = node.mirror().durable(truth.group).unwrap_or_default();
            node.crash(u64::MAX - 3);
            node.start(Time::ZERO);
            assert!(truth.check(node.store()) >= durable);
        }
    }
}

/// The life that the crash tests cut short: two groups, folds, settling, refills, sweeping.
fn life(node: &mut Node, truths: &[Truth; 2]) -> Vec<Event> {
    let mut events = Vec::new();
    let mut now = Time::ZERO;
    for round in 0..4 {
        for truth in truths {
            node.mirror().fold(truth.fold(round, round + 1));
            events.extend(node.drain());
        }
        if round % 2 == 1 {
            node.mirror().settle(&[truths[0].group, truths[1].group], now);
            events.extend(node.drain());
        }
        now = now + mirror_world::TICK;
        node.mirror().tick(now);
    }
    // Out of line, then whole again, then on from there.
    node.mirror().fold(truths[0].fold(5, 6));
    events.extend(node.drain());
    events.extend(refill(node, truths[0].group, truths[0].at(6)));
    for _ in 0..3 {
        now = now + mirror_world::TICK;
        node.mirror().tick(now);
    }
    node.mirror().fold(truths[0].fold(6, 7));
    node.mirror().settle(&[truths[0].group], now);
    events.extend(node.drain());
    events
}

/// What was said to be durable by the time of the crash.
fn announced(events: &[Event], group: GroupId) -> InstanceId {
    let last = events.iter().rev().find_map(|event| match event {
        Event::Durable(points) => Some(points.get(&group).map_or(InstanceId::ZERO, |point| point.applied)),
        _ => None,
    });
    last.unwrap_or_default()
}

fn truths() -> [Truth; 2] {
    let mut truths = [Truth::new(1, 40, 60), Truth::new(2, 40, 60)];
    for truth in &mut truths {
        (0..8).for_each(|_| truth.step(8));
    }
    truths
}

#[test]
fn a_crash_at_any_operation_of_the_engine_leaves_an_old_state_or_a_new_one() {
    let truths = truths();
    let mut whole = node();
    life(&mut whole, &truths);
    let operations = whole.engine.operations();
    assert!(operations > 15, "{operations}");
    let mut images = 0;
    for stop in 0..=operations {
        let mut keep = 0;
        loop {
            let mut node = node();
            node.engine.stop_after(stop);
            let events = life(&mut node, &truths);
            let choices = node.engine.unsynced() as u64 + 2;
            node.crash(keep);
            reopen(&mut node, &truths, &events);
            images += 1;
            keep += 1;
            if keep >= choices {
                break;
            }
        }
    }
    assert!(images > 2 * operations, "{images} images");
}

#[test]
fn a_crash_at_any_operation_of_the_files_leaves_an_old_state_or_a_new_one() {
    let truths = truths();
    let mut whole = node();
    let first = whole.disk.operations();
    life(&mut whole, &truths);
    for stop in first..=whole.disk.operations() {
        for keep in 0..3 {
            let mut node = node();
            node.disk.stop_after(stop);
            let events = life(&mut node, &truths);
            node.crash(keep);
            reopen(&mut node, &truths, &events);
        }
    }
}

/// Both groups are in a state that was, none below what was said to be durable, and all goes on
/// from there.
fn reopen(node: &mut Node, truths: &[Truth; 2], events: &[Event]) {
    node.start(Time::ZERO);
    for truth in truths {
        let at = truth.check(node.store());
        assert!(at >= announced(events, truth.group), "{at} is less than was said to be durable");
        assert!(node.mirror().durable(truth.group).unwrap_or_default() <= at);
        node.mirror().fold(truth.fold(at.0, 8));
        let events = node.drain();
        assert_eq!(events, [folded(truth.group, 8)]);
    }
    node.mirror().settle(&[truths[0].group, truths[1].group], Time::ZERO);
    for _ in 0..20 {
        node.mirror().tick(Time::ZERO);
    }
    assert!(!wants_refill(&node.drain()));
    truths.iter().for_each(|truth| assert_eq!(truth.check(node.store()), InstanceId(8)));
}

#[test]
fn damage_is_never_recorded_as_durable() {
    let truths = truths();
    let mut hits = [0; 3];
    for n in 0.. {
        let mut node = node();
        for truth in &truths {
            node.mirror().fold(truth.fold(0, 2));
        }
        node.mirror().settle(&[truths[0].group, truths[1].group], Time::ZERO);
        truths.iter().for_each(|truth| node.mirror().fold(truth.fold(2, 4)));
        node.drain();
        if n >= node.engine.values() as u64 {
            break;
        }
        let hit = node.engine.flip(n, n * 37 + 5).unwrap();
        let group = match hit {
            Hit::Position(group) => (hits[0] += 1, group).1,
            Hit::Sessions(group) => (hits[1] += 1, group).1,
            Hit::Entry(group) | Hit::Staging(group) => (hits[2] += 1, group).1,
        };
        let sound = if group == truths[0].group { &truths[1] } else { &truths[0] };
        node.mirror().settle(&[truths[0].group, truths[1].group], Time::ZERO);
        let events = node.drain();
        let asked =
            events.iter().any(|event| matches!(event, Event::Refill { group: of, .. } if *of == group));
        assert!(asked, "{hit:?}: {events:?}");
        assert_eq!(node.mirror().durable(group), None, "{hit:?}");
        assert_eq!(node.mirror().durable(sound.group), Some(InstanceId(4)), "{hit:?}");
        assert_eq!(node.mirror().applied(group), InstanceId::ZERO);
        // After a restart too: the group is gone, not wrong, and comes back whole.
        node.crash(0);
        node.start(Time::ZERO);
        let loaded = node.store().load(group, drop);
        let gone = matches!(loaded, Err(StoreError::Absent { .. } | StoreError::Damaged { .. }));
        assert!(gone, "{hit:?}: {loaded:?}");
        node.store().discard(group).unwrap();
        assert!(matches!(node.store().load(group, drop), Err(StoreError::Absent { .. })));
        let whole = if group == truths[0].group { &truths[0] } else { &truths[1] };
        refill(&mut node, group, whole.at(5));
        assert_eq!(whole.check(node.store()), InstanceId(5));
        assert_eq!(sound.check(node.store()), InstanceId(4));
    }
    assert!(hits[0] == 2 && hits[1] == 2 && hits[2] > 20, "{hits:?}");
}

#[test]
fn groups_load_from_several_threads_at_once() {
    let mut node = node();
    let truths: Vec<Truth> = (0..12)
        .map(|group| {
            let mut truth = Truth::new(group, 100, 60);
            truth.fill(100, 50);
            truth
        })
        .collect();
    truths.iter().for_each(|truth| node.mirror().fold(truth.fold(0, 1)));
    node.engine.flip_where(3, 9, |hit| hit == Hit::Entry(GroupId(5)));
    let store = node.store();
    std::thread::scope(|scope| {
        for part in truths.chunks(3) {
            scope.spawn(move || {
                for truth in part {
                    let mut entries = Vec::new();
                    let loaded = store.load(truth.group, |entry| entries.push(entry));
                    if truth.group == GroupId(5) {
                        assert!(matches!(loaded, Err(StoreError::Damaged { .. })));
                        store.discard(truth.group).unwrap();
                        assert!(matches!(store.load(truth.group, drop), Err(StoreError::Absent { .. })));
                    } else {
                        assert_eq!(loaded.unwrap().position, truth.last().position());
                        assert_eq!(entries, truth.last().list());
                    }
                }
            });
        }
    });
}

#[test]
fn a_full_disk_is_waited_for() {
    // The story: a disk without space for the mirror ended the process, and every start anew.
    for operation in 1..=8 {
        let (truth, mut node) = (truth(6), node());
        node.engine.fail_write(operation, io::ErrorKind::StorageFull);
        let mut events = Vec::new();
        for at in 0..5 {
            node.mirror().fold(truth.fold(at, at + 1));
            node.mirror().settle(&[truth.group], Time::ZERO);
            events.extend(node.drain());
        }
        events.extend(refill(&mut node, truth.group, truth.at(6)));
        let said = events.iter().filter(|event| matches!(event, Event::NoSpace { .. })).count();
        assert_eq!(said, 1, "operation {operation}: {events:?}");
        assert!(!events.iter().any(|event| matches!(event, Event::Poisoned { .. } | Event::Refill { .. })));
        let operations = node.engine.operations();
        node.mirror().fold(truth.fold(5, 6));
        node.mirror().tick(Time::from_nanos(1 << 40));
        assert_eq!(node.drain(), []);
        assert_eq!(node.engine.operations(), operations);
        // Opened anew it has what was written, no more and no less, and goes on.
        let (at, durable) = (node.mirror().applied(truth.group), node.mirror().durable(truth.group));
        let _ = node.mirror.take().map(Mirror::close);
        node.start(Time::ZERO);
        assert_eq!((node.mirror().applied(truth.group), node.mirror().durable(truth.group)), (at, durable));
        assert!(refill(&mut node, truth.group, truth.at(6)).contains(&folded(truth.group, 6)));
        assert_eq!(truth.check(node.store()), InstanceId(6));
        // A power loss does not bring back what had no space.
        node.crash(u64::MAX - 3);
        node.start(Time::ZERO);
        assert_eq!(truth.check(node.store()), InstanceId(6));
    }
}

#[test]
fn a_group_that_cannot_be_read_is_not_believed_for_ever() {
    let (truth, mut node) = (truth(4), node());
    node.mirror().fold(truth.fold(0, 3));
    node.drain();
    for round in 1..=3 {
        node.engine.fail_read(1, io::ErrorKind::Other);
        node.mirror().settle(&[truth.group], Time::ZERO);
        let events = node.drain();
        assert_eq!(wants_refill(&events), round == 3, "{events:?}");
        assert_eq!(node.mirror().durable(truth.group), None);
    }
}

#[test]
fn sweeping_is_bounded_and_ends() {
    let (truth, mut node) = (truth(6), node());
    for at in 1..=4 {
        refill(&mut node, truth.group, truth.at(at));
    }
    let values = node.engine.values();
    let mut ticks = 0;
    while node.engine.values() > truth.at(4).entries.len() + 2 {
        let before = node.engine.values();
        node.mirror().tick(Time::ZERO);
        assert!(before - node.engine.values() <= 50 + 2);
        ticks += 1;
        assert!(ticks < 20, "{values} values, {} left", node.engine.values());
    }
    assert_eq!(truth.check(node.store()), InstanceId(4));
    assert!(node.mirror().disk_bytes().unwrap() > 0);
    let operations = node.engine.operations();
    (0..10).for_each(|_| node.mirror().tick(Time::ZERO));
    assert!(node.engine.operations() <= operations + 2, "an idle mirror touches nothing");
}

#[test]
fn what_is_lost_is_asked_for() {
    let (truth, mut node) = (truth(4), node());
    node.mirror().fold(truth.fold(0, 3));
    node.mirror().settle(&[truth.group], Time::ZERO);
    node.mirror = None;
    node.engine.forget();
    node.start(Time::ZERO);
    assert!(matches!(node.store().load(truth.group, drop), Err(StoreError::Damaged { .. })));
    node.store().discard(truth.group).unwrap();
    assert_eq!(node.mirror().durable(truth.group), None);
    node.mirror = None;
    node.engine.destroy();
    assert!(matches!(node.open_store(), Err(StoreError::Unusable { .. })));
}
