//! Checkpoints between mirrors over a network that loses, doubles, reorders and breaks.

mod mirror_world;

use std::time::Duration;

use bytes::Bytes;
use checkpoint::mirror::wire::{Attempt, Fetch, Frame, Why};
use checkpoint::mirror::{CHUNK, Direction, Event, FETCH, HEAD, NONE};
use checkpoint::store::sim::Hit;
use groups::ids::{Boot, ClusterId, GroupId, InstanceId, NodeId};
use groups::time::Time;

use mirror_world::{CLUSTER, Truth, World};

const GROUP: GroupId = GroupId(1);

/// A state of some fifteen chunks.
fn truth() -> Truth {
    let mut truth = Truth::new(1, 120, 200);
    (0..4).for_each(|_| truth.step(60));
    truth
}

/// Node 1 has the truth's last state, node 2 nothing.
fn world(truth: &Truth, nodes: u32, seed: u64) -> World {
    let mut world = World::new(nodes, seed);
    world.node(1).hold(truth.group, truth.last());
    world
}

fn installed(world: &mut World, id: u32) -> bool {
    world.node(id).installed(GROUP).is_some()
}

#[test]
fn a_checkpoint_comes_whole_and_the_sender_goes_on() {
    let mut truth = truth();
    let mut world = world(&truth, 2, 1);
    world.want(2, GROUP, 0, &[1]);
    world.turns();
    world.deliver();
    assert!(world.node(1).mirror().paused(GROUP));
    // What is folded during the transfer waits for its end.
    truth.step(30);
    let (from, to) = (truth.last().applied.0 - 1, truth.last().applied.0);
    let fold = truth.fold(from, to);
    world.node(1).mirror().fold(fold);
    assert!(world.node(1).events.is_empty());
    world.until(|world| installed(world, 2));
    world.assert_installed(2, &truth);
    assert_eq!(world.node(2).mirror().applied(GROUP), InstanceId(from));
    world.run(Duration::from_millis(100));
    assert!(!world.node(1).mirror().paused(GROUP));
    assert_eq!(world.node(1).events, [Event::Folded { group: GROUP, applied: InstanceId(to) }]);
    assert_eq!(truth.check(world.node(1).store()), InstanceId(to));
    for id in 1..=2 {
        assert_eq!(world.node(id).mirror().transfers(), []);
    }
    // The receiver goes on from the checkpoint with folds of its own.
    let fold = truth.fold(from, to);
    world.node(2).mirror().fold(fold);
    assert_eq!(truth.check(world.node(2).store()), InstanceId(to));
}

#[test]
fn it_arrives_over_a_bad_network() {
    for seed in 0..150 {
        let mut truth = truth();
        let mut world = world(&truth, 3, seed);
        world.node(2).hold(GROUP, &truth.at(3).clone());
        (world.lost, world.doubled, world.delay) = (seed % 31, 20, seed % 60);
        world.want(3, GROUP, 0, &[2, 1]);
        let mut rounds = 0;
        world.until(|world| {
            rounds += 1;
            if rounds % 20 == 0 && !world.node(1).mirror().paused(GROUP) {
                truth.step(5);
                let last = truth.last().applied.0;
                let at = world.node(1).mirror().applied(GROUP).0;
                world.node(1).mirror().fold(truth.fold(at, last));
            }
            installed(world, 3)
        });
        world.assert_installed(3, &truth);
        (world.lost, world.doubled) = (0, 0);
        world.run(Duration::from_secs(3));
        for id in 1..=3 {
            assert!(world.node(id).refills().is_empty(), "seed {seed}");
            assert!(!world.node(id).mirror().paused(GROUP), "seed {seed}: node {id} is paused for ever");
            truth.check(world.node(id).store());
        }
    }
}

#[test]
fn a_cut_at_any_frame_is_mended_and_not_everything_is_sent_again() {
    let truth = truth();
    let mut whole = world(&truth, 2, 1);
    whole.want(2, GROUP, 0, &[1]);
    whole.until(|world| installed(world, 2));
    let (frames, chunks) = (whole.frames, whole.chunks(1, GROUP));
    assert!(chunks > 10 && frames > 15, "{chunks} chunks, {frames} frames");
    for cut in 0..=frames {
        let mut world = world(&truth, 2, 1);
        world.cut_after = Some(cut);
        world.want(2, GROUP, 0, &[1]);
        // Longer than the lease: the sender forgets, and its mirror goes on.
        world.run(Duration::from_secs(5));
        assert!(!world.node(1).mirror().paused(GROUP), "cut after {cut}");
        let staged = world.node(2).store().staging(GROUP).unwrap().map_or(0, |staging| staging.entries);
        let before = world.chunks(1, GROUP);
        world.cut_after = None;
        world.until(|world| installed(world, 2));
        world.assert_installed(2, &truth);
        let again = world.chunks(1, GROUP) - before;
        let left = truth.last().entries.len() - staged as usize;
        // A chunk has at least two entries here; the last one may be empty.
        assert!(again <= chunks, "cut after {cut}: {again} chunks again");
        assert!(again <= left / 2 + 2, "cut after {cut}: {again} chunks for {left} entries");
    }
}

#[test]
fn a_crash_of_the_receiver_at_any_operation_leaves_an_old_state_or_a_new_one() {
    let truth = truth();
    let run = |stop: Option<u64>, on_disk: bool| {
        let mut world = world(&truth, 2, 1);
        world.node(2).hold(GROUP, &truth.at(1).clone());
        if let Some(stop) = stop {
            let node = world.node(2);
            if on_disk { node.disk.stop_after(stop) } else { node.engine.stop_after(stop) }
        }
        world.want(2, GROUP, 1, &[1]);
        for _ in 0..600 {
            if installed(&mut world, 2) || world.node(2).mirror().poisoned().is_some() {
                break;
            }
            world.step();
        }
        world.run(Duration::from_millis(30));
        world
    };
    for on_disk in [false, true] {
        let mut before = world(&truth, 2, 1);
        before.node(2).hold(GROUP, &truth.at(1).clone());
        let mut whole = run(None, on_disk);
        let count = |world: &mut World| {
            let node = world.node(2);
            if on_disk { node.disk.operations() } else { node.engine.operations() }
        };
        let (first, last) = (count(&mut before), count(&mut whole));
        assert!(on_disk || last > first + 10, "{first} to {last}");
        for stop in first..=last {
            let unsynced = run(Some(stop), on_disk).node(2).engine.unsynced() as u64;
            for keep in [0, unsynced / 2, unsynced, unsynced + 1] {
                let mut world = run(Some(stop), on_disk);
                let durable = world.node(2).mirror().durable(GROUP).unwrap();
                let (now, sent) = (world.now, world.chunks(1, GROUP));
                world.node(2).crash(keep);
                world.node(2).events.clear();
                world.node(2).start(now);
                let at = truth.check(world.node(2).store());
                assert!(at >= durable && (at.0 == 1 || at.0 == 4), "stopped after {stop}: {at}");
                let recorded = world.node(2).mirror().durable(GROUP).unwrap();
                assert!(durable <= recorded && recorded <= at, "stopped after {stop}: {recorded}");
                if at.0 == 1 {
                    let staging = world.node(2).store().staging(GROUP).unwrap();
                    world.want(2, GROUP, 1, &[1]);
                    world.until(|world| installed(world, 2));
                    world.assert_installed(2, &truth);
                    let left = truth.last().entries.len() - staging.map_or(0, |s| s.entries as usize);
                    let again = world.chunks(1, GROUP) - sent;
                    assert!(again <= left / 2 + 2, "{again} chunks for {left} entries");
                }
            }
        }
    }
}

#[test]
fn a_restart_of_the_sender_at_any_frame_is_no_matter() {
    let truth = truth();
    for restart in 0..40 {
        let mut world = world(&truth, 2, 1);
        world.delay = 15;
        world.want(2, GROUP, 0, &[1]);
        let mut restarted = false;
        world.until(|world| {
            if world.frames >= restart && !restarted {
                restarted = true;
                let now = world.now;
                world.node(1).crash(restart);
                world.node(1).start(now);
            }
            installed(world, 2)
        });
        world.assert_installed(2, &truth);
        assert_eq!(truth.check(world.node(1).store()), truth.last().applied);
    }
}

#[test]
fn the_next_source_goes_on_where_the_first_one_stopped() {
    let truth = truth();
    let mut world = world(&truth, 3, 1);
    world.node(2).hold(GROUP, truth.last());
    world.latency = 10;
    world.want(3, GROUP, 0, &[1, 2]);
    world.until(|world| world.chunks(1, GROUP) >= 8);
    world.node(1).crash(0);
    world.until(|world| installed(world, 3));
    world.assert_installed(3, &truth);
    assert!(world.sent.iter().all(|frame| frame.from != NodeId(2) || frame.kind != HEAD));
    assert!(world.chunks(2, GROUP) >= 2);
    let total = world.chunks(1, GROUP) + world.chunks(2, GROUP);
    assert!(total <= 15 + 6 + 4, "{total} chunks");
}

#[test]
fn a_slow_receiver_does_not_hold_a_group_for_ever() {
    // The story: a receiver that asks for one frame every second kept the group's mirror paused,
    // and with it the log, for as long as it lived.
    let mut truth = truth();
    let mut world = world(&truth, 2, 1);
    truth.step(20);
    let at = |seconds: u64| Time::from_nanos(seconds * 1_000_000_000);
    let mut folded_at = None;
    for second in 0..400_u64 {
        let fetch = Fetch {
            attempt: Attempt { boot: Boot(1), count: 1 },
            cluster: CLUSTER,
            above: InstanceId(0),
            next: second as u32 / 50,
            credit: 1,
            doubt: false,
            has: None,
        };
        let (kind, body) = Frame::Fetch(fetch).encode();
        let mirror = world.node(1).mirror();
        mirror.on_frame(NodeId(2), GROUP, kind, body, at(second));
        if second == 0 {
            mirror.fold(truth.fold(4, 5));
        }
        mirror.tick(at(second));
        let events = mirror.turn();
        if events.contains(&Event::Folded { group: GROUP, applied: InstanceId(5) }) {
            folded_at = Some(second);
            break;
        }
        assert!(mirror.paused(GROUP));
    }
    assert!(folded_at.is_some_and(|second| (60..90).contains(&second)), "{folded_at:?}");
    // It may begin again, and is given longer.
    world.want(2, GROUP, 0, &[1]);
    world.until(|world| installed(world, 2));
    world.assert_installed(2, &truth);
}

#[test]
fn a_sender_that_moved_on_begins_anew() {
    let mut truth = truth();
    let mut world = world(&truth, 2, 1);
    world.latency = 10;
    world.want(2, GROUP, 0, &[1]);
    world.until(|world| world.chunks(1, GROUP) >= 8);
    world.cut_after = Some(0);
    world.run(Duration::from_secs(3));
    truth.step(20);
    world.node(1).mirror().fold(truth.fold(4, 5));
    world.run(Duration::from_millis(50));
    assert!(world.node(2).store().staging(GROUP).unwrap().unwrap().entries > 0);
    world.cut_after = None;
    world.until(|world| installed(world, 2));
    world.assert_installed(2, &truth);
    assert_eq!(world.node(2).mirror().applied(GROUP), InstanceId(5));
}

fn reasons(world: &World, from: u32) -> Vec<Why> {
    let none = world.sent.iter().filter(|frame| frame.from == NodeId(from) && frame.kind == NONE);
    let reasons = none.map(|frame| match Frame::decode(frame.kind, &frame.body) {
        Ok(Frame::Nothing(nothing)) => nothing.why,
        other => panic!("{other:?}"),
    });
    reasons.collect()
}

#[test]
fn damage_is_not_sent_and_another_source_is_asked() {
    let truth = truth();
    for n in 0..40 {
        let mut world = world(&truth, 3, n);
        world.node(2).hold(GROUP, truth.last());
        let hit = world.node(1).engine.flip(n * 5, n * 13).unwrap();
        world.want(3, GROUP, 0, &[1, 2]);
        world.until(|world| installed(world, 3));
        world.assert_installed(3, &truth);
        assert_eq!(world.chunks(1, GROUP), 0, "{hit:?}");
        assert!(world.sent.iter().all(|frame| frame.from != NodeId(1) || frame.kind == NONE), "{hit:?}");
        assert_eq!(reasons(&world, 1), [Why::Damaged]);
        assert_eq!(world.node(1).refills(), [GROUP]);
        assert_eq!(world.node(1).mirror().durable(GROUP), None);
    }
}

#[test]
fn damage_during_the_transfer_is_not_installed() {
    let truth = truth();
    let mut found = 0;
    for n in 0..30 {
        let mut world = world(&truth, 2, n);
        world.latency = 10;
        world.want(2, GROUP, 0, &[1]);
        world.until(|world| {
            let staging = world.node(2).store().staging(GROUP).unwrap();
            staging.is_some_and(|staging| staging.entries > 5)
        });
        // Here or there, behind what has been read already.
        let victim = 1 + (n % 2) as u32;
        let entries = |hit| matches!(hit, Hit::Entry(_));
        world.node(victim).engine.flip_where(if victim == 1 { n * 7 } else { 2 }, n * 3, entries).unwrap();
        world.until(|world| {
            // The owner of the damaged mirror still has the state.
            if !world.node(1).refills().is_empty() {
                found += 1;
                world.node(1).events.clear();
                world.node(1).mirror().refill(
                    GROUP,
                    truth.last().position(),
                    truth.last().sessions.clone(),
                    truth.last().list(),
                );
            }
            installed(world, 2)
        });
        world.assert_installed(2, &truth);
    }
    assert!(found > 5, "{found} damaged senders found out");
}

/// A second receiver keeps the pause, and with it the proof from before the damage: the first
/// one's doubt has it proven again.
#[test]
fn doubt_finds_damage_that_came_after_the_proof() {
    let truth = truth();
    let mut world = world(&truth, 2, 3);
    world.latency = 10;
    world.want(2, GROUP, 0, &[1]);
    let mut count = 0;
    let mut flipped = false;
    world.until(|world| {
        count += 1;
        let fetch = Fetch {
            attempt: Attempt { boot: Boot(1), count },
            cluster: CLUSTER,
            above: InstanceId(0),
            next: 0,
            credit: 1,
            doubt: false,
            has: None,
        };
        let (kind, body) = Frame::Fetch(fetch).encode();
        let now = world.now;
        world.node(1).mirror().on_frame(NodeId(3), GROUP, kind, body, now);
        if !flipped && world.chunks(1, GROUP) >= 3 {
            flipped = true;
            let last = truth.last().entries.len() as u64 - 1;
            world.node(1).engine.flip_where(last, 77, |hit| matches!(hit, Hit::Entry(_))).unwrap();
        }
        !world.node(1).refills().is_empty()
    });
    assert!(!installed(&mut world, 2));
    assert_eq!(world.node(1).mirror().durable(GROUP), None);
}

#[test]
fn a_large_session_table_comes_in_pieces() {
    let mut truth = truth();
    truth.with_sessions((0..25_500u32).map(|n| n as u8).collect());
    for seed in 0..10 {
        let mut world = world(&truth, 2, seed);
        (world.lost, world.delay) = (seed, seed * 5);
        world.want(2, GROUP, 0, &[1]);
        world.until(|world| installed(world, 2));
        world.assert_installed(2, &truth);
        let heads = world.sent.iter().filter(|frame| frame.kind == HEAD).count();
        assert!(heads >= 26, "{heads}");
    }
    // With an empty table and no entry at all it is one head and one chunk.
    let mut empty = Truth::new(1, 1, 1);
    empty.with_sessions(Vec::new());
    let mut world = world(&empty, 2, 1);
    world.want(2, GROUP, 0, &[1]);
    world.until(|world| installed(world, 2));
    world.assert_installed(2, &empty);
    assert_eq!(world.sent.iter().map(|frame| frame.kind).collect::<Vec<_>>(), [FETCH, HEAD, CHUNK, FETCH]);
}

#[test]
fn several_groups_share_the_way_fairly() {
    let mut world = World::new(3, 5);
    let truths: Vec<Truth> = (1..=6)
        .map(|group| {
            let mut truth = Truth::new(group, 1, 1);
            truth.fill(100, 100);
            truth
        })
        .collect();
    for truth in &truths {
        world.node(1).hold(truth.group, truth.last());
    }
    // One chunk per tick, whoever it is for.
    world.node(1).mirror = None;
    world.node(1).config.bytes_per_sec = 100_000;
    let now = world.now;
    world.node(1).start(now);
    for truth in &truths {
        world.want(2, truth.group, 0, &[1]);
        world.want(3, truth.group, 0, &[1]);
    }
    let started = (world.now, world.sent.len());
    let mut most = 0;
    world.until(|world| {
        let transfers = world.node(2).mirror().transfers();
        let active = transfers.iter().filter(|transfer| transfer.peer != NodeId(0)).count();
        assert!(active <= 4, "{active} at once");
        most = most.max(active);
        let shares = world.node(1).mirror().transfers();
        let shares: Vec<u64> = shares.iter().map(|transfer| transfer.keys).collect();
        let first = world.node(2).events.is_empty() && world.node(3).events.is_empty();
        if let (true, Some(least), Some(best)) = (first, shares.iter().min(), shares.iter().max()) {
            assert!(best - least <= 3 * 9, "{shares:?}");
        }
        (1..=6).all(|group| (2..=3).all(|id| world.node(id).installed(GroupId(group)).is_some()))
    });
    assert_eq!(most, 4);
    for truth in &truths {
        world.assert_installed(2, truth);
        world.assert_installed(3, truth);
    }
    let bytes: usize =
        world.sent[started.1..].iter().filter(|f| f.from == NodeId(1)).map(|f| f.body.len()).sum();
    let seconds = world.now.since(started.0).as_secs_f64();
    let rate = bytes as f64 / seconds;
    assert!((80_000.0..=112_000.0).contains(&rate), "{rate} bytes per second");
}

#[test]
fn a_slow_pace_does_not_look_like_silence() {
    let truth = truth();
    let mut world = world(&truth, 3, 5);
    world.node(2).hold(GROUP, truth.last());
    for id in 1..=2 {
        world.node(id).mirror = None;
        // A chunk every two seconds: ten times the silence after which is asked again.
        world.node(id).config.bytes_per_sec = 500;
        let now = world.now;
        world.node(id).start(now);
    }
    world.want(3, GROUP, 0, &[1, 2]);
    world.until(|world| installed(world, 3));
    world.assert_installed(3, &truth);
    assert_eq!(world.chunks(2, GROUP), 0, "the first source was never silent");
}

#[test]
fn refusals_lead_to_the_next_source_and_back() {
    let mut truth = truth();
    let mut world = World::new(4, 3);
    world.node(1).hold(GROUP, &truth.at(2).clone());
    world.node(2).mirror = None;
    world.node(2).config.cluster = ClusterId(78);
    let now = world.now;
    world.node(2).start(now);
    world.node(2).hold(GROUP, truth.last());
    world.want(4, GROUP, 2, &[1, 2, 3]);
    world.run(Duration::from_secs(3));
    assert!(reasons(&world, 1).iter().all(|&why| why == Why::Behind));
    let foreign = reasons(&world, 2);
    assert!(foreign.len() > 1 && foreign.iter().all(|&why| why == Why::Foreign), "{foreign:?}");
    assert!(world.sent.iter().all(|frame| frame.from != NodeId(2) || frame.kind == NONE));
    assert!(reasons(&world, 3).len() > 1);
    assert!(!installed(&mut world, 4));
    let tries = world.sent.iter().filter(|frame| frame.kind == FETCH).count();
    assert!(tries < 60, "{tries} tries in 3 s");
    let applied = InstanceId(3);
    assert!(world.node(1).events.contains(&Event::Wanted { group: GROUP, through: applied }));
    world.node(1).mirror().fold(truth.fold(2, 3));
    world.until(|world| installed(world, 4));
    world.assert_installed(4, &truth);
    // Cancelled is cancelled, and nothing staged stays.
    truth.step(9);
    world.node(1).mirror().fold(truth.fold(3, 5));
    world.latency = 10;
    let before = world.chunks(1, GROUP);
    world.node(4).events.clear();
    world.want(4, GROUP, 3, &[1]);
    world.until(|world| world.chunks(1, GROUP) > before + 4);
    world.node(4).mirror().cancel(GROUP);
    world.run(Duration::from_secs(1));
    assert!(!installed(&mut world, 4));
    assert!(world.node(4).store().staging(GROUP).unwrap().is_none());
    assert!(!world.node(1).mirror().paused(GROUP));
    assert_eq!(world.node(4).mirror().transfers(), []);
}

#[test]
fn the_status_says_how_far_it_is() {
    let truth = truth();
    let mut world = world(&truth, 2, 1);
    world.latency = 10;
    world.want(2, GROUP, 0, &[1]);
    world.until(|world| world.chunks(1, GROUP) >= 8);
    let bytes: usize = truth.last().entries.values().map(|entry| entry.key.len() + entry.value.len()).sum();
    for (id, direction) in [(1, Direction::Out), (2, Direction::In)] {
        let transfers = world.node(id).mirror().transfers();
        let [transfer] = &transfers[..] else { panic!("{transfers:?}") };
        assert_eq!((transfer.group, transfer.direction), (GROUP, direction));
        assert_eq!((transfer.peer, transfer.expected), (NodeId(3 - id), bytes as u64));
        assert!(transfer.bytes > 0 && transfer.bytes < transfer.expected && transfer.keys > 0);
    }
}

#[test]
fn the_owner_may_go_on_while_a_checkpoint_comes() {
    let mut truth = truth();
    (0..6).for_each(|_| truth.step(5));
    let mut world = World::new(2, 1);
    world.node(1).hold(GROUP, &truth.at(4).clone());
    world.node(2).hold(GROUP, &truth.at(1).clone());
    world.latency = 10;
    world.want(2, GROUP, 1, &[1]);
    world.until(|world| world.chunks(1, GROUP) >= 4);
    // It caught up by other means, past the checkpoint: that one is of no use any more.
    world.node(2).mirror().fold(truth.fold(1, 6));
    world.run(Duration::from_secs(3));
    assert!(!installed(&mut world, 2));
    assert_eq!(truth.check(world.node(2).store()), InstanceId(6));
    world.node(1).mirror().fold(truth.fold(4, 9));
    world.until(|world| installed(world, 2));
    world.assert_installed(2, &truth);
    // A fold that was on its way when the checkpoint was installed is answered, not applied.
    world.node(2).events.clear();
    world.node(2).mirror().fold(truth.fold(6, 7));
    world.run(Duration::from_millis(20));
    assert_eq!(world.node(2).events, [Event::Folded { group: GROUP, applied: InstanceId(9) }]);
}

#[test]
fn what_is_wanted_may_rise_while_it_comes() {
    let mut truth = truth();
    let mut world = world(&truth, 3, 1);
    truth.step(10);
    world.node(3).hold(GROUP, truth.last());
    world.latency = 10;
    world.want(2, GROUP, 0, &[1, 3]);
    world.until(|world| world.chunks(1, GROUP) >= 8);
    world.want(2, GROUP, 4, &[1, 3]);
    world.until(|world| installed(world, 2));
    world.assert_installed(2, &truth);
    assert_eq!(world.node(2).mirror().applied(GROUP), InstanceId(5));
}

#[test]
fn garbage_on_the_wire_is_dropped() {
    let truth = truth();
    let mut world = world(&truth, 2, 9);
    world.delay = 10;
    world.want(2, GROUP, 0, &[1]);
    for _ in 0..200 {
        world.step();
        for id in 1..=2 {
            let (kind, length) = (8 + world.below(6) as u8, world.below(200));
            let body: Vec<u8> = (0..length).map(|_| world.below(256) as u8).collect();
            let now = world.now;
            world.node(id).mirror().on_frame(NodeId(3 - id), GROUP, kind, Bytes::from(body), now);
            // And frames that were sent, with a byte changed.
            let pick = world.below(world.sent.len() as u64) as usize;
            let frame = world.sent[pick].clone();
            let mut body = frame.body.to_vec();
            let at = world.below(body.len() as u64) as usize;
            body[at] ^= 1 << world.below(8);
            world.node(id).mirror().on_frame(NodeId(3 - id), GROUP, frame.kind, body.into(), now);
        }
    }
    world.until(|world| installed(world, 2));
    world.assert_installed(2, &truth);
    assert!(world.node(1).mirror().poisoned().is_none());
}
