//! One suite that every engine passes.

mod scratch;

use std::fs;
use std::io::Cursor;

use bytes::Bytes;
use checkpoint::format;
use checkpoint::store::{self, Batch, ChunkLimit, MirrorStore, Position, StoreError};
use checkpoint::transfer::{self, TransferError};
use checkpoint::{Entry, EntryRef, Generation, StateDigest};
use groups::ids::{ClusterId, GroupId, InstanceId};
use groups::kv::StateHash;

use scratch::{Kind, Model, Random, Scratch, entry};

macro_rules! of_kind {
    ($name:ident, $kind:ident, $($test:ident),*) => {
        mod $name {
            $(#[test] fn $test() { super::$test(super::Kind::$kind); })*
        }
    };
}

macro_rules! every_engine {
    ($($test:ident),* $(,)?) => {
        of_kind!(fjall, Fjall, $($test),*);
        of_kind!(sled, Sled, $($test),*);
        of_kind!(sim, Sim, $($test),*);
        of_kind!(sim_without_snapshots, SimWithoutSnapshots, $($test),*);
    };
}

every_engine!(
    data_and_position_move_together,
    nasty_keys_stay_in_their_group,
    scans_resume_behind_any_key,
    batches_apply_once_and_in_order,
    a_reader_sees_one_instant,
    install_is_a_switch,
    a_wrong_checkpoint_is_not_installed,
    staging_survives_a_restart,
    large_pieces_are_staged_past_the_journal,
    sweeping_is_bounded_and_complete,
    discarded_groups_start_afresh,
    lost_durable_data_is_noticed,
    only_verified_and_persisted_points_are_recorded,
    content_that_does_not_match_is_damage,
    limits_hold,
    strange_directories_are_refused,
    a_second_process_is_refused,
    quarantine_makes_room,
    a_checkpoint_file_carries_a_group_over,
);

fn open(dir: &std::path::Path, engine: Kind) -> MirrorStore {
    engine.open(dir).unwrap()
}

fn data_and_position_move_together(engine: Kind) {
    let scratch = Scratch::new("together");
    let dir = scratch.path("mirror");
    let mut models = [Model::new(0), Model::new(1), Model::new(u32::MAX)];
    let mut random = Random(1);
    for _ in 0..3 {
        let store = open(&dir, engine);
        for _ in 0..60 {
            let model = &mut models[random.below(3) as usize];
            model.step(&store, &mut random).unwrap();
        }
        models.iter().for_each(|model| model.check(&store));
        let model = &models[0];
        for key in model.entries.keys() {
            assert_eq!(store.get(model.group, key).unwrap().as_ref(), model.entries.get(key));
        }
        assert_eq!(store.get(model.group, b"no such key").unwrap(), None);
        store.persist().unwrap();
    }
    let store = open(&dir, engine);
    models.iter().for_each(|model| model.check(&store));
    assert_eq!(store.groups(), [GroupId(0), GroupId(1), GroupId(u32::MAX)]);
    assert_eq!(store.position(GroupId(77)).unwrap(), None);
    assert!(matches!(store.verify(GroupId(77)), Err(StoreError::Absent { .. })));
}

const NASTY: [&[u8]; 12] = [
    b"",
    b"\0",
    b"\0\0",
    b"\0\xff",
    b"a",
    b"a\0",
    b"aa",
    b"ab",
    b"\xff",
    b"\xff\xff",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
];

fn nasty_keys_stay_in_their_group(engine: Kind) {
    let scratch = Scratch::new("nasty");
    let store = open(&scratch.path("mirror"), engine);
    let mut models: Vec<Model> =
        [0, 1, 254, 255, 256, 0xffff, 0x1_0000, u32::MAX - 1, u32::MAX].map(Model::new).into();
    for model in &mut models {
        let mut batch = model.batch();
        for key in NASTY {
            model.put(&mut batch, key, &model.group.0.to_be_bytes());
        }
        model.write(&store, batch).unwrap();
    }
    // Every other group loses half of its keys; the others keep theirs.
    for model in models.iter_mut().step_by(2) {
        let mut batch = model.batch();
        NASTY.iter().step_by(2).for_each(|key| model.delete(&mut batch, key));
        model.write(&store, batch).unwrap();
    }
    models.iter().for_each(|model| model.check(&store));
    store.discard(models[3].group).unwrap();
    while store.sweep(5).unwrap().more {}
    for model in models.iter().filter(|model| model.group != GroupId(255)) {
        model.check(&store);
    }
}

fn scans_resume_behind_any_key(engine: Kind) {
    let scratch = Scratch::new("scan");
    let store = open(&scratch.path("mirror"), engine);
    let mut model = Model::new(3);
    let mut batch = model.batch();
    NASTY.iter().for_each(|key| model.put(&mut batch, key, b"value"));
    model.write(&store, batch).unwrap();
    let keys: Vec<Bytes> = model.entries.keys().cloned().collect();
    let reader = store.reader(model.group).unwrap();
    for limit in [
        ChunkLimit { entries: 1, bytes: 1 << 20 },
        ChunkLimit { entries: 5, bytes: 1 << 20 },
        ChunkLimit { entries: 100, bytes: 0 },
    ] {
        for start in 0..=keys.len() {
            let mut after = start.checked_sub(1).map(|before| keys[before].clone());
            let mut found = Vec::new();
            loop {
                let chunk = reader.chunk(after.as_deref(), limit).unwrap();
                assert!(chunk.entries.len() <= limit.entries);
                assert!(chunk.last || !chunk.entries.is_empty());
                found.extend(chunk.entries.iter().map(|entry| entry.key.clone()));
                after = chunk.entries.last().map(|entry| entry.key.clone()).or(after);
                if chunk.last {
                    break;
                }
            }
            assert_eq!(found, keys[start..], "from {start} with {limit:?}");
        }
    }
}

fn batches_apply_once_and_in_order(engine: Kind) {
    let scratch = Scratch::new("order");
    let store = open(&scratch.path("mirror"), engine);
    let mut model = Model::new(1);
    for _ in 0..5 {
        let mut batch = model.batch();
        model.put(&mut batch, b"counter", b"x");
        model.write(&store, batch).unwrap();
    }
    for (from, to) in [(4, 6), (6, 7), (5, 5), (5, 4), (0, 6)] {
        let mut batch = Batch::new(model.group, InstanceId(from));
        batch.put(entry(b"counter", b"twice", 9));
        let to = Position { applied: InstanceId(to), ..model.position() };
        assert!(matches!(store.write(batch, to), Err(StoreError::OutOfOrder { .. })), "{from}");
    }
    model.check(&store);
    // A batch of nothing still moves the group: no-ops are instances too.
    model.applied = InstanceId(9);
    store.write(Batch::new(model.group, InstanceId(5)), model.position()).unwrap();
    model.check(&store);
}

fn a_reader_sees_one_instant(engine: Kind) {
    let scratch = Scratch::new("instant");
    let store = open(&scratch.path("mirror"), engine);
    let mut model = Model::new(1);
    let mut random = Random(7);
    for _ in 0..30 {
        model.step(&store, &mut random).unwrap();
    }
    let mut batch = model.batch();
    batch.sessions(Bytes::from_static(b"then"));
    model.write(&store, batch).unwrap();
    let reader = store.reader(model.group).unwrap();
    let then = model.clone();
    for _ in 0..30 {
        model.step(&store, &mut random).unwrap();
    }
    // Another group's writes are no concern of a reader's, whatever the engine.
    Model::new(2).step(&store, &mut random).unwrap();
    let chunk = reader.chunk(None, ChunkLimit { entries: 1000, bytes: 1 << 30 });
    if engine.has_snapshots() {
        assert!(chunk.unwrap().entries.iter().eq(then.entries.values()));
        assert_eq!(reader.sessions().unwrap(), "then");
    } else {
        assert!(matches!(chunk, Err(StoreError::Moved { .. })));
        assert!(matches!(reader.sessions(), Err(StoreError::Moved { .. })));
    }
    assert_eq!(*reader.position(), then.position());
    drop(reader);
    model.check(&store);
}

/// A checkpoint of its own making, ahead of what the group has.
fn checkpoint_at(applied: u64, count: u64) -> (Position, Vec<Entry>) {
    let entries: Vec<Entry> =
        (0..count).map(|n| entry(&n.to_be_bytes(), &n.to_le_bytes(), 1000 + n)).collect();
    let mut hash = StateHash::default();
    entries.iter().for_each(|entry| entry.add_to(&mut hash));
    let state_hash = StateDigest::from(hash);
    (Position { applied: InstanceId(applied), state_hash, ..Position::default() }, entries)
}

fn holds(store: &MirrorStore, group: GroupId, position: &Position, entries: &[Entry]) {
    let mut found = Vec::new();
    let image = store.load(group, |entry| found.push(entry)).unwrap();
    assert_eq!((&image.position, &found[..]), (position, entries));
}

fn install_is_a_switch(engine: Kind) {
    let scratch = Scratch::new("install");
    let dir = scratch.path("mirror");
    let store = open(&dir, engine);
    let mut model = Model::new(1);
    let mut random = Random(3);
    for _ in 0..20 {
        model.step(&store, &mut random).unwrap();
    }
    let (position, entries) = checkpoint_at(500, 250);
    let sessions = Bytes::from_static(b"table");
    let generation = store.begin_generation(model.group, position.clone(), sessions.clone()).unwrap();
    for chunk in entries.chunks(60) {
        store.stage(model.group, generation, chunk).unwrap();
        // The live mirror goes on meanwhile.
        model.step(&store, &mut random).unwrap();
        model.check(&store);
    }
    let point = store.install(model.group, generation).unwrap();
    assert_eq!(point.applied, InstanceId(500));
    assert_eq!(store.durable(model.group), Some(point));
    holds(&store, model.group, &position, &entries);
    assert_eq!(store.sessions(model.group).unwrap(), sessions);
    assert!(store.staging(model.group).unwrap().is_none());
    drop(store);
    let store = open(&dir, engine);
    holds(&store, model.group, &position, &entries);
    while store.sweep(10).unwrap().more {}
    holds(&store, model.group, &position, &entries);
    // And on from there.
    let mut batch = Batch::new(model.group, InstanceId(500));
    batch.delete(entries[0].key.clone());
    let mut hash = StateHash::default();
    entries[1..].iter().for_each(|entry| entry.add_to(&mut hash));
    let next = Position { applied: InstanceId(501), state_hash: hash.into(), ..position };
    store.write(batch, next.clone()).unwrap();
    holds(&store, model.group, &next, &entries[1..]);
}

fn a_wrong_checkpoint_is_not_installed(engine: Kind) {
    let scratch = Scratch::new("wrong");
    let store = open(&scratch.path("mirror"), engine);
    let mut model = Model::new(1);
    model.step(&store, &mut Random(1)).unwrap();
    let (position, entries) = checkpoint_at(50, 20);
    let begin = || store.begin_generation(model.group, position.clone(), Bytes::new()).unwrap();

    let generation = begin();
    store.stage(model.group, generation, &entries[..19]).unwrap();
    let refused = store.install(model.group, generation);
    assert!(matches!(refused, Err(StoreError::NotThatState { .. })));
    model.check(&store);

    let newer = begin();
    let refused = store.stage(model.group, generation, &entries[19..]);
    assert!(matches!(refused, Err(StoreError::NotStaged { .. })));
    store.stage(model.group, newer, &entries[5..]).unwrap();
    for wrong in [&entries[4..5], &entries[19..]] {
        let refused = store.stage(model.group, newer, wrong);
        assert!(matches!(refused, Err(StoreError::Unsorted { .. })));
    }
    model.check(&store);

    // Nothing that was given up shines through.
    let last = begin();
    store.stage(model.group, last, &entries).unwrap();
    store.install(model.group, last).unwrap();
    holds(&store, model.group, &position, &entries);
    let backwards = store.begin_generation(model.group, position, Bytes::new());
    assert!(matches!(backwards, Err(StoreError::OutOfOrder { .. })));
    assert!(matches!(store.install(model.group, last), Err(StoreError::NotStaged { .. })));
}

fn staging_survives_a_restart(engine: Kind) {
    let scratch = Scratch::new("staging");
    let dir = scratch.path("mirror");
    let group = GroupId(9);
    let (position, entries) = checkpoint_at(50, 20);
    {
        let store = open(&dir, engine);
        let generation = store.begin_generation(group, position.clone(), Bytes::new()).unwrap();
        store.stage(group, generation, &entries[..7]).unwrap();
        store.persist().unwrap();
    }
    let store = open(&dir, engine);
    assert_eq!(store.position(group).unwrap(), None);
    let staging = store.staging(group).unwrap().unwrap();
    assert_eq!((&staging.promised, staging.entries), (&position, 7));
    assert_eq!(staging.last_key.as_ref(), Some(&entries[6].key));
    store.stage(group, staging.generation, &entries[7..]).unwrap();
    store.install(group, staging.generation).unwrap();
    holds(&store, group, &position, &entries);
}

fn large_pieces_are_staged_past_the_journal(engine: Kind) {
    let scratch = Scratch::new("large");
    let dir = scratch.path("mirror");
    let mut model = Model::new(1);
    let mut random = Random(5);
    let group = GroupId(9);
    let (mut hash, mut entries) = (StateHash::default(), Vec::new());
    for n in 0..1400_u64 {
        let value: Vec<u8> = (0..8192 / 8).flat_map(|_| random.next().to_le_bytes()).collect();
        let next = entry(&n.to_be_bytes(), &value, n);
        next.add_to(&mut hash);
        entries.push(next);
    }
    let position = Position { applied: InstanceId(7), state_hash: hash.into(), ..Position::default() };
    let (first, second) = entries.split_at(650);
    {
        let store = open(&dir, engine);
        let generation = store.begin_generation(group, position.clone(), Bytes::from_static(b"s")).unwrap();
        // Other groups go on before, between and behind the pieces.
        (0..20).for_each(|_| model.step(&store, &mut random).unwrap());
        store.stage(group, generation, first).unwrap();
        (0..20).for_each(|_| model.step(&store, &mut random).unwrap());
        model.check(&store);
        store.persist().unwrap();
    }
    {
        let store = open(&dir, engine);
        model.check(&store);
        let staging = store.staging(group).unwrap().unwrap();
        assert_eq!((staging.entries, staging.last_key), (650, Some(first[649].key.clone())));
        // A piece that came before a crash without its progress comes again.
        store.stage(group, staging.generation, second).unwrap();
        (0..20).for_each(|_| model.step(&store, &mut random).unwrap());
        let mut read = Vec::new();
        let take = |entry: EntryRef<'_>| read.push(entry.to_entry());
        let image = store.install_reading(group, staging.generation, take).unwrap();
        assert_eq!((&image.position, &image.sessions[..]), (&position, &b"s"[..]));
        assert!(read == entries);
        model.check(&store);
        store.persist().unwrap();
    }
    let store = open(&dir, engine);
    holds(&store, group, &position, &entries);
    model.check(&store);
    store.discard(group).unwrap();
    while store.sweep(500).unwrap().more {}
    assert!(matches!(store.load(group, drop), Err(StoreError::Absent { .. })));
    model.check(&store);
}

fn sweeping_is_bounded_and_complete(engine: Kind) {
    let scratch = Scratch::new("sweep");
    let dir = scratch.path("mirror");
    let store = open(&dir, engine);
    let group = GroupId(1);
    for round in 1..=3 {
        let (position, entries) = checkpoint_at(round, 25);
        let generation = store.begin_generation(group, position, Bytes::new()).unwrap();
        store.stage(group, generation, &entries).unwrap();
        store.install(group, generation).unwrap();
    }
    let first = store.sweep(10).unwrap();
    assert_eq!((first.deleted, first.more), (10, true));
    drop(store);
    let store = open(&dir, engine);
    let mut deleted = first.deleted;
    loop {
        let swept = store.sweep(10).unwrap();
        assert!(swept.deleted <= 10);
        deleted += swept.deleted;
        if !swept.more {
            break;
        }
    }
    assert_eq!(deleted, 50);
    assert_eq!(store.sweep(10).unwrap().deleted, 0);
    let (position, entries) = checkpoint_at(3, 25);
    holds(&store, group, &position, &entries);
}

fn discarded_groups_start_afresh(engine: Kind) {
    let scratch = Scratch::new("discard");
    let dir = scratch.path("mirror");
    let store = open(&dir, engine);
    let mut random = Random(5);
    let (mut gone, mut other) = (Model::new(1), Model::new(2));
    let mut batch = gone.batch();
    batch.sessions(Bytes::from_static(b"old table"));
    gone.write(&store, batch).unwrap();
    for _ in 0..10 {
        gone.step(&store, &mut random).unwrap();
        other.step(&store, &mut random).unwrap();
    }
    let persisted = store.persist().unwrap();
    store.record(&persisted, &[store.verify(gone.group).unwrap()]).unwrap();
    store.discard(gone.group).unwrap();
    assert_eq!(store.durable(gone.group), None);
    assert_eq!(store.position(gone.group).unwrap(), None);
    // Before anything is swept, and with nothing of the old shining through.
    let mut afresh = Model::new(1);
    afresh.step(&store, &mut random).unwrap();
    afresh.check(&store);
    drop(store);
    let store = open(&dir, engine);
    afresh.check(&store);
    while store.sweep(7).unwrap().more {}
    afresh.check(&store);
    other.check(&store);
    assert_ne!(store.sessions(gone.group).unwrap(), "old table");
}

fn lost_durable_data_is_noticed(engine: Kind) {
    let scratch = Scratch::new("lost");
    let (dir, older) = (scratch.path("mirror"), scratch.path("older"));
    let mut random = Random(5);
    let (mut lost, mut kept) = (Model::new(1), Model::new(2));
    let step = |store: &MirrorStore, lost: &mut Model, random: &mut Random| {
        lost.step(store, random).unwrap();
        let persisted = store.persist().unwrap();
        let verified = [store.verify(GroupId(1)).unwrap(), store.verify(GroupId(2)).unwrap()];
        store.record(&persisted, &verified).unwrap();
    };
    {
        let store = open(&dir, engine);
        kept.step(&store, &mut random).unwrap();
        step(&store, &mut lost, &mut random);
    }
    match engine.real() {
        Some(_) => {
            copy_dir(&dir.join("engine"), &older);
            step(&open(&dir, engine), &mut lost, &mut random);
            // The engine forgets what it had synced.
            fs::remove_dir_all(dir.join("engine")).unwrap();
            fs::rename(&older, dir.join("engine")).unwrap();
        }
        None => {
            let simulated = engine.simulated(&dir);
            let store = open(&dir, engine);
            // A sync that reports success and does nothing.
            simulated.fail_sync(1, std::io::ErrorKind::Other);
            assert!(matches!(store.persist(), Err(StoreError::Poisoned { .. })));
            drop(store);
            step(&open(&dir, engine), &mut lost, &mut random);
            simulated.crash(0);
        }
    }
    {
        let store = open(&dir, engine);
        assert!(matches!(store.position(lost.group), Err(StoreError::Damaged { .. })));
        assert!(matches!(store.reader(lost.group), Err(StoreError::Damaged { .. })));
        assert!(matches!(lost.clone().step(&store, &mut random), Err(StoreError::Damaged { .. })));
        kept.check(&store);
        store.discard(lost.group).unwrap();
        let mut rebuilt = Model::new(1);
        rebuilt.step(&store, &mut random).unwrap();
        rebuilt.check(&store);
    }
    // All of it gone.
    match engine.real() {
        Some(_) => fs::remove_dir_all(dir.join("engine")).unwrap(),
        None => engine.simulated(&dir).forget(),
    }
    let store = open(&dir, engine);
    assert!(matches!(store.position(kept.group), Err(StoreError::Damaged { .. })));
}

fn only_verified_and_persisted_points_are_recorded(engine: Kind) {
    let scratch = Scratch::new("record");
    let dir = scratch.path("mirror");
    let store = open(&dir, engine);
    let mut model = Model::new(1);
    let mut random = Random(5);
    model.step(&store, &mut random).unwrap();
    let early = store.verify(model.group).unwrap();
    let persisted = store.persist().unwrap();
    model.step(&store, &mut random).unwrap();
    let late = store.verify(model.group).unwrap();
    // Verified, but written after the sync.
    store.record(&persisted, &[late]).unwrap();
    assert_eq!(store.durable(model.group), None);
    store.record(&persisted, &[early]).unwrap();
    assert_eq!(store.durable(model.group), Some(early.point()));
    let persisted = store.persist().unwrap();
    store.record(&persisted, &[late]).unwrap();
    // Never back.
    store.record(&persisted, &[early]).unwrap();
    assert_eq!(store.durable(model.group), Some(late.point()));
    drop(store);
    assert_eq!(open(&dir, engine).durable(model.group), Some(late.point()));
}

fn content_that_does_not_match_is_damage(engine: Kind) {
    let scratch = Scratch::new("mismatch");
    let dir = scratch.path("mirror");
    let mut model = Model::new(1);
    let store = open(&dir, engine);
    model.step(&store, &mut Random(1)).unwrap();
    let mut batch = model.batch();
    batch.put(entry(b"smuggled", b"past the hash", 1));
    model.write(&store, batch).unwrap();
    let found = store.load(model.group, drop).unwrap_err();
    assert!(found.to_string().contains("hash to"), "{found}");
    assert!(matches!(store.position(model.group), Err(StoreError::Damaged { .. })));
    assert_eq!(store.persist().unwrap().point(model.group), None);
    drop(store);
    assert!(matches!(open(&dir, engine).verify(model.group), Err(StoreError::Damaged { .. })));
}

fn limits_hold(engine: Kind) {
    let scratch = Scratch::new("limits");
    let store = open(&scratch.path("mirror"), engine);
    let mut model = Model::new(1);
    let mut batch = model.batch();
    model.put(&mut batch, &[7; checkpoint::entry::MAX_KEY], &[8; checkpoint::entry::MAX_VALUE]);
    batch.sessions(Bytes::from(vec![9; 1 << 20]));
    model.write(&store, batch).unwrap();
    model.check(&store);
    for (key, value) in [(checkpoint::entry::MAX_KEY + 1, 0), (0, checkpoint::entry::MAX_VALUE + 1)] {
        let mut batch = model.batch();
        batch.put(entry(&vec![7; key], &vec![8; value], 1));
        let to = Position { applied: model.applied.next(), ..model.position() };
        assert!(matches!(store.write(batch, to), Err(StoreError::TooLarge { .. })));
    }
    model.check(&store);
}

fn strange_directories_are_refused(engine: Kind) {
    let scratch = Scratch::new("strange");
    let dir = scratch.path("mirror");
    {
        let store = open(&dir, engine);
        let mut model = Model::new(1);
        model.step(&store, &mut Random(1)).unwrap();
        let persisted = store.persist().unwrap();
        store.record(&persisted, &[store.verify(model.group).unwrap()]).unwrap();
    }
    let refused = |engine: Kind| engine.open(&dir).err().unwrap();
    let other = if engine == Kind::Fjall { Kind::Sled } else { Kind::Fjall };
    assert!(matches!(refused(other), StoreError::OtherEngine { .. }));
    for file in ["format", "durable"] {
        let good = fs::read(dir.join(file)).unwrap();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            fs::write(dir.join(file), &bad).unwrap();
            assert!(matches!(refused(engine), StoreError::Unusable { .. }), "{file} bit {bit}");
        }
        fs::write(dir.join(file), &good).unwrap();
    }
    let good = fs::read(dir.join("format")).unwrap();
    fs::remove_file(dir.join("format")).unwrap();
    assert!(matches!(refused(engine), StoreError::Unusable { .. }));
    let newer = format!("pelago-mirror 2 {}", engine.name());
    let newer = format!("{newer} {:08x}\n", crc32fast::hash(newer.as_bytes()));
    fs::write(dir.join("format"), newer).unwrap();
    assert!(matches!(refused(engine), StoreError::NewerFormat { found: 2, .. }));
    fs::write(dir.join("format"), good).unwrap();
    assert!(open(&dir, engine).durable(GroupId(1)).is_some());
}

fn a_second_process_is_refused(engine: Kind) {
    let scratch = Scratch::new("second");
    let dir = scratch.path("mirror");
    let _first = open(&dir, engine);
    let second = engine.open(&dir);
    assert!(matches!(second, Err(StoreError::Locked { .. })), "{:?}", second.err());
}

fn quarantine_makes_room(engine: Kind) {
    let scratch = Scratch::new("quarantine");
    let dir = scratch.path("mirror");
    for _ in 0..3 {
        let store = open(&dir, engine);
        assert!(store.groups().is_empty());
        let mut model = Model::new(1);
        model.step(&store, &mut Random(1)).unwrap();
        let persisted = store.persist().unwrap();
        store.record(&persisted, &[store.verify(model.group).unwrap()]).unwrap();
        drop(store);
        if engine.real().is_none() {
            let files = store::Directory::open(&dir).unwrap();
            engine.simulated(&dir).destroy();
            assert!(matches!(engine.open(&dir), Err(StoreError::Unusable { .. })));
            store::sim::quarantine(&files, &engine.simulated(&dir)).unwrap();
            continue;
        }
        let aside = store::quarantine(&dir).unwrap();
        assert!(aside.join("engine").exists() && !aside.join("durable").exists() && !dir.exists());
    }
}

fn a_checkpoint_file_carries_a_group_over(engine: Kind) {
    let scratch = Scratch::new("carry");
    let store = open(&scratch.path("mirror"), engine);
    let mut model = Model::new(5);
    let mut random = Random(11);
    for _ in 0..80 {
        model.step(&store, &mut random).unwrap();
    }
    let mut batch = model.batch();
    for n in 0..400u32 {
        model.put(&mut batch, format!("large {n:04}").as_bytes(), &[n as u8; 3000]);
    }
    batch.sessions(Bytes::from_static(b"the table"));
    model.write(&store, batch).unwrap();
    let (cluster, file) = (ClusterId(77), scratch.path("group-5.ckpt"));
    let summary = transfer::export(&store, cluster, model.group, &file).unwrap();
    assert_eq!(summary.entries, model.entries.len() as u64);
    assert!(summary.chunks > 3);
    assert_eq!(format::verify(&file).unwrap(), summary);
    let mut printed = Vec::new();
    format::dump(&file, true, &mut printed).unwrap();
    let lines = String::from_utf8(printed).unwrap().lines().count() as u64;
    assert_eq!(lines, 4 + summary.chunks + summary.entries + 1);

    let bytes = fs::read(&file).unwrap();
    for to in Kind::ALL {
        let target = open(&scratch.path(&format!("{to:?}")), to);
        // The connection breaks twice on the way; what was staged is not sent again.
        for cut in [bytes.len() / 3, bytes.len() - 10] {
            let broken = transfer::import(&target, cluster, model.group, Cursor::new(&bytes[..cut]));
            assert!(matches!(broken, Err(TransferError::Format(_))));
            assert_eq!(target.position(model.group).unwrap(), None);
        }
        let foreign = transfer::import(&target, cluster, GroupId(6), Cursor::new(&bytes));
        assert!(matches!(foreign, Err(TransferError::Foreign { .. })));
        let point = transfer::import(&target, cluster, model.group, Cursor::new(&bytes)).unwrap();
        assert_eq!(point.applied, model.applied);
        assert_eq!(target.reader(model.group).unwrap().sessions().unwrap(), "the table");
        model.check(&target);
    }

    // Continued by a receiver that has some of it, from another store of the same state.
    let reader = store.reader(model.group).unwrap();
    let (mut sender, head) = transfer::Sender::begin(cluster, reader).unwrap();
    let copy = scratch.path("copy.ckpt");
    let mut partial = format::StagedFile::create(&copy, &head).unwrap();
    partial.append_frame(&sender.frame().unwrap().unwrap()).unwrap();
    drop(partial);
    let mut partial = format::StagedFile::resume(&copy).unwrap().unwrap();
    let other = open(&scratch.path("again"), engine);
    transfer::import(&other, cluster, model.group, Cursor::new(&bytes)).unwrap();
    let reader = other.reader(model.group).unwrap();
    let (wanted, progress) = (partial.header().clone(), partial.progress().clone());
    let mut sender = transfer::Sender::resume(cluster, reader, &wanted, progress).unwrap();
    while let Some(frame) = sender.frame().unwrap() {
        partial.append_frame(&frame).unwrap();
    }
    partial.commit().unwrap();
    assert_eq!(fs::read(&copy).unwrap(), bytes);
    model.step(&store, &mut random).unwrap();
    let moved = store.reader(model.group).unwrap();
    let resumed = transfer::Sender::resume(cluster, moved, &wanted, summary_progress(&file));
    assert!(matches!(resumed, Err(TransferError::MovedOn)));
    assert_eq!(store.staging(model.group).unwrap().map(|staging| staging.generation), None::<Generation>);
}

fn summary_progress(file: &std::path::Path) -> format::Progress {
    format::Reader::open(fs::File::open(file).unwrap()).unwrap().progress().clone()
}

fn copy_dir(from: &std::path::Path, to: &std::path::Path) {
    fs::create_dir_all(to).unwrap();
    for found in fs::read_dir(from).unwrap() {
        let found = found.unwrap();
        let target = to.join(found.file_name());
        if found.file_type().unwrap().is_dir() {
            copy_dir(&found.path(), &target);
        } else {
            fs::copy(found.path(), target).unwrap();
        }
    }
}
