//! The mirror over the real engines: folds, durable points, a checkpoint from one to the other,
//! restarts in between.

mod mirror_world;
mod scratch;

use std::path::Path;

use checkpoint::mirror::{Event, Mirror, MirrorConfig, STAGE_AFTER};
use checkpoint::store::{Engine, MirrorStore};
use groups::ids::{Boot, InstanceId, NodeId};
use groups::time::Time;

use mirror_world::{CLUSTER, TICK, Truth};
use scratch::{Scratch, small};

fn open(dir: &Path, engine: Engine, boot: u64) -> Mirror {
    let store = MirrorStore::open(dir, engine, &small()).unwrap();
    let config =
        MirrorConfig { cluster: CLUSTER, boot: Boot(boot), chunk_bytes: 4000, ..MirrorConfig::default() };
    Mirror::new(store, config, Time::ZERO)
}

/// Hands frames to and fro until there are none; at most so many of them.
fn exchange(mirrors: &mut [Mirror; 2], mut most: usize) -> Vec<Event> {
    let (mut events, mut now) = (Vec::new(), Time::ZERO);
    loop {
        let mut quiet = true;
        for at in 0..2 {
            for event in mirrors[at].turn() {
                match event {
                    Event::Send { to, group, kind, body } => {
                        quiet = false;
                        assert_eq!(to, NodeId(2 - at as u32));
                        if most > 0 {
                            most -= 1;
                            mirrors[1 - at].on_frame(NodeId(at as u32 + 1), group, kind, body, now);
                        }
                    }
                    other => events.push(other),
                }
            }
        }
        if quiet || most == 0 {
            return events;
        }
        now = now + TICK;
    }
}

fn from_one_to_the_other(from: Engine, to: Engine) {
    let scratch = Scratch::new("mirror");
    let dirs = [scratch.path("one"), scratch.path("two")];
    let mut truth = Truth::new(7, 400, 300);
    (0..8).for_each(|_| truth.step(150));
    let mut mirrors = [open(&dirs[0], from, 1), open(&dirs[1], to, 1)];
    for at in (0..6).step_by(2) {
        mirrors[0].fold(truth.fold(at, at + 2));
        mirrors[0].settle(&[truth.group], Time::ZERO);
        assert_eq!(mirrors[0].durable(truth.group), Some(InstanceId(at + 2)));
    }
    exchange(&mut mirrors, 0);
    mirrors[1].want(truth.group, InstanceId(0), vec![NodeId(1)], Time::ZERO);
    let events = exchange(&mut mirrors, 12);
    assert!(!events.iter().any(|event| matches!(event, Event::Installed { .. })));
    // Both start again in the middle of it, a second later: what has come is in the store by then.
    mirrors[1].tick(Time::ZERO + STAGE_AFTER * 4);
    drop(mirrors);
    let mut mirrors = [open(&dirs[0], from, 2), open(&dirs[1], to, 2)];
    let loaded = mirrors[0].store().load(truth.group, drop).unwrap();
    assert_eq!(loaded.position, truth.at(6).position());
    let staged = mirrors[1].store().staging(truth.group).unwrap().unwrap();
    assert!(staged.entries > 20 && staged.promised == truth.at(6).position());
    mirrors[1].want(truth.group, InstanceId(0), vec![NodeId(1)], Time::ZERO);
    let events = exchange(&mut mirrors, usize::MAX);
    let installed = events.iter().find_map(|event| match event {
        Event::Installed { image, entries, .. } => Some((image, entries)),
        _ => None,
    });
    let (image, entries) = installed.expect("it came");
    assert_eq!((&image.position, &image.sessions), (&truth.at(6).position(), &truth.at(6).sessions));
    assert_eq!(*entries, truth.at(6).list());
    let sent = mirrors[0].transfers();
    assert_eq!(sent, []);
    // On from there, on both.
    for mirror in &mut mirrors {
        mirror.fold(truth.fold(6, 8));
        mirror.settle(&[truth.group], Time::ZERO);
        assert_eq!(mirror.durable(truth.group), Some(InstanceId(8)));
        assert_eq!(truth.check(mirror.store()), InstanceId(8));
        mirror.refill(truth.group, truth.at(8).position(), truth.at(8).sessions.clone(), truth.at(8).list());
        for _ in 0..20 {
            mirror.tick(Time::ZERO);
        }
        assert!(mirror.poisoned().is_none() && mirror.damaged().is_empty());
        assert!(mirror.disk_bytes().unwrap() > 0);
    }
}

#[test]
fn fjall_to_fjall() {
    from_one_to_the_other(Engine::Fjall, Engine::Fjall);
}

#[test]
fn fjall_to_sled() {
    from_one_to_the_other(Engine::Fjall, Engine::Sled);
}

#[test]
fn sled_to_fjall() {
    from_one_to_the_other(Engine::Sled, Engine::Fjall);
}
