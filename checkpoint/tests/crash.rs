//! Engines after a crash: every image of a store's directory either opens as some state that
//! the group really had, or is refused with an error. Never a mixture, never an endless crash.
//!
//! Each image is opened by a child process, because a panic inside an engine may end the whole
//! process whatever is done about it (fjall: a poisoned lock in a destructor).

mod scratch;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use checkpoint::StateDigest;
use checkpoint::store::{Engine, MirrorStore};
use groups::ids::{GroupId, InstanceId};

use scratch::{Model, Random, Scratch, small};

const GROUPS: u32 = 3;

/// The state that every group had at every instance.
type History = HashMap<(GroupId, InstanceId), StateDigest>;

/// What a child made of an image.
#[derive(Debug)]
enum Outcome {
    /// Every group is in one of its states, or says that it is damaged.
    Opened {
        groups: HashMap<GroupId, Option<InstanceId>>,
    },
    Refused(String),
    Died(String),
}

/// Not a test of its own: the child's side of the tests below.
#[test]
fn child_opens_an_image() {
    let Ok(dir) = std::env::var("PELAGO_CRASH_IMAGE") else { return };
    let engine: Engine = std::env::var("PELAGO_CRASH_ENGINE").unwrap().parse().unwrap();
    let store = match MirrorStore::open(Path::new(&dir), engine, &small()) {
        Ok(store) => store,
        Err(e) => return println!("\nREFUSED {e}"),
    };
    for group in store.groups() {
        match store.position(group).and_then(|position| {
            position.map(|position| store.verify(group).map(|verified| (position, verified))).transpose()
        }) {
            Ok(Some((position, _))) => {
                println!("\nGROUP {group} {} {}", position.applied, position.state_hash);
            }
            Ok(None) => {}
            Err(e) => println!("\nDAMAGED {group} {e}"),
        }
    }
    println!("\nOPENED");
    // Closing a damaged engine is not what is looked at here.
    std::process::exit(0);
}

fn open_in_child(image: &Path, engine: Engine, history: &History) -> Outcome {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_opens_an_image", "--nocapture", "--test-threads=1"])
        .env("PELAGO_CRASH_IMAGE", image)
        .env("PELAGO_CRASH_ENGINE", engine.name())
        .stdout(Stdio::piped())
        .stderr(File::create(image.with_extension("stderr")).unwrap())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{engine} hangs on {}", image.display());
        std::thread::sleep(Duration::from_millis(2));
    }
    let mut printed = String::new();
    child.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
    let mut groups = HashMap::new();
    for line in printed.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["GROUP", group, applied, hash] => {
                let group = GroupId(group.parse().unwrap());
                let applied = InstanceId(applied.parse().unwrap());
                let real = history.get(&(group, applied)).map(ToString::to_string);
                assert_eq!(real.as_deref(), Some(hash), "{engine} serves a state that never was");
                groups.insert(group, Some(applied));
            }
            ["DAMAGED", group, ..] => {
                groups.insert(GroupId(group.parse().unwrap()), None);
            }
            ["OPENED"] => return Outcome::Opened { groups },
            ["REFUSED", ..] => return Outcome::Refused(line.to_owned()),
            _ => {}
        }
    }
    let said = fs::read_to_string(image.with_extension("stderr")).unwrap_or_default();
    Outcome::Died(format!("{}: {said}", child.wait().unwrap()))
}

/// Opens an image as a supervisor would, starting again whenever the process dies: after a few
/// deaths it must be refused.
fn settle(image: &Path, engine: Engine, history: &History, tally: &mut Tally) -> Outcome {
    let mut died = String::new();
    for _ in 0..8 {
        match open_in_child(image, engine, history) {
            Outcome::Died(how) => {
                tally.deaths += 1;
                died = how;
            }
            Outcome::Refused(reason) => {
                tally.refused += 1;
                tally.panics += u32::from(reason.contains("panicked"));
                return Outcome::Refused(reason);
            }
            Outcome::Opened { groups } => {
                tally.opened += 1;
                tally.damaged_groups += groups.values().filter(|applied| applied.is_none()).count();
                return Outcome::Opened { groups };
            }
        }
    }
    panic!("{engine} dies on {} for ever: {died}", image.display());
}

#[derive(Debug, Default)]
struct Tally {
    opened: u32,
    refused: u32,
    deaths: u32,
    /// Of the opened ones: groups that said that they are damaged.
    damaged_groups: usize,
    /// Of the refused ones: after a panic of the engine.
    panics: u32,
}

/// `PELAGO_CRASH_FACTOR=10` takes ten times as many images.
fn rounds(usual: u32) -> u32 {
    std::env::var("PELAGO_CRASH_FACTOR").map_or(usual, |factor| usual * factor.parse::<u32>().unwrap())
}

struct Writer {
    store: MirrorStore,
    models: Vec<Model>,
    random: Random,
    history: History,
}

impl Writer {
    fn new(dir: &Path, engine: Engine, seed: u64) -> Writer {
        let store = MirrorStore::open(dir, engine, &small()).unwrap();
        let models = (0..GROUPS).map(Model::new).collect();
        Writer { store, models, random: Random(seed), history: History::new() }
    }

    fn step(&mut self) {
        let model = &mut self.models[self.random.below(u64::from(GROUPS)) as usize];
        // Known before it is written: a crash may come between.
        let mut after = model.clone();
        after.step(&self.store, &mut self.random).unwrap();
        *model = after;
        self.history.insert((model.group, model.applied), model.hash.into());
        if self.random.below(64) == 0 {
            self.record();
        }
    }

    fn record(&mut self) {
        let persisted = self.store.persist().unwrap();
        let verified: Vec<_> =
            self.store.groups().into_iter().map(|group| self.store.verify(group).unwrap()).collect();
        self.store.record(&persisted, &verified).unwrap();
    }
}

/// Not a test of its own: writes until it is killed, saying each state before it is written and
/// each point after it was recorded.
#[test]
fn child_writes() {
    let Ok(dir) = std::env::var("PELAGO_CRASH_WRITE") else { return };
    let engine: Engine = std::env::var("PELAGO_CRASH_ENGINE").unwrap().parse().unwrap();
    let seed = std::env::var("PELAGO_CRASH_SEED").unwrap().parse().unwrap();
    let mut writer = Writer::new(Path::new(&dir), engine, seed);
    for model in &mut writer.models {
        if let Some(position) = writer.store.position(model.group).unwrap() {
            let entries = &mut model.entries;
            writer.store.load(model.group, |entry| drop(entries.insert(entry.key.clone(), entry))).unwrap();
            entries.values().for_each(|entry| entry.add_to(&mut model.hash));
            (model.applied, model.revision) = (position.applied, position.revision);
        }
    }
    println!("\nREADY");
    loop {
        let index = writer.random.below(u64::from(GROUPS)) as usize;
        // The same random numbers twice: once to know the state, once to write it.
        let (seed, model) = (writer.random.next(), &mut writer.models[index]);
        let (batch, after) = model.clone().prepare(&mut Random(seed));
        println!("STEP {} {} {}", after.group, after.applied, StateDigest::from(after.hash));
        writer.store.write(batch, after.position()).unwrap();
        *model = after;
        if writer.random.below(64) == 0 {
            writer.record();
            for group in writer.store.groups() {
                println!("RECORDED {group} {}", writer.store.durable(group).unwrap().applied);
            }
        }
    }
}

/// kill -9 at random moments of writing, flushing and recording: the page cache survives, so
/// everything that was recorded must still be there, and what is there must have been real.
fn killed(engine: Engine) {
    let scratch = Scratch::new("killed");
    let dir = scratch.path("mirror");
    let mut random = Random(1);
    let mut tally = Tally::default();
    let mut history = History::new();
    let mut recorded: HashMap<GroupId, InstanceId> = HashMap::new();
    for round in 0..rounds(8) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_writes", "--nocapture", "--test-threads=1"])
            .env("PELAGO_CRASH_WRITE", &dir)
            .env("PELAGO_CRASH_ENGINE", engine.name())
            .env("PELAGO_CRASH_SEED", round.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = child.stdout.take().unwrap();
        let mut kill_at = None;
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["READY"] => kill_at = Some(Instant::now() + Duration::from_millis(random.below(400))),
                ["STEP", group, applied, hash] => {
                    let hash = (0..32).map(|at| u8::from_str_radix(&hash[2 * at..2 * at + 2], 16).unwrap());
                    let mut digest = StateDigest::default();
                    digest.0.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
                    let at = (GroupId(group.parse().unwrap()), InstanceId(applied.parse().unwrap()));
                    history.insert(at, digest);
                }
                ["RECORDED", group, applied] => {
                    let applied = InstanceId(applied.parse().unwrap());
                    recorded.insert(GroupId(group.parse().unwrap()), applied);
                }
                _ => {}
            }
            if kill_at.is_some_and(|at| Instant::now() >= at) {
                child.kill().unwrap();
                kill_at = None;
            }
        }
        assert!(!child.wait().unwrap().success());
        match settle(&dir, engine, &history, &mut tally) {
            Outcome::Opened { groups } => {
                for (group, recorded) in &recorded {
                    let found = groups.get(group).copied().flatten();
                    assert!(found >= Some(*recorded), "{engine}: {found:?} after {recorded:?}");
                }
            }
            other => panic!("{engine}, round {round}: {other:?}"),
        }
    }
    println!("{engine} killed: {tally:?}, {} states, recorded {recorded:?}", history.len());
    assert_eq!(tally.damaged_groups, 0);
}

/// Files copied one after the other while the engine writes, flushes and compacts: some of
/// these images no crash could leave behind, so refusing is fine, a false state is not.
fn copied_while_writing(engine: Engine) {
    let scratch = Scratch::new("copied");
    let dir = scratch.path("mirror");
    let writer = Mutex::new(Writer::new(&dir, engine, 2));
    let stop = AtomicBool::new(false);
    let images: Vec<PathBuf> = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                writer.lock().unwrap_or_else(PoisonError::into_inner).step();
            }
        });
        let mut random = Random(3);
        let images = (0..rounds(8)).map(|round| {
            std::thread::sleep(Duration::from_millis(20 + random.below(60)));
            let image = scratch.path(&format!("image-{round}"));
            copy_dir(&dir, &image);
            image
        });
        let images = images.collect();
        stop.store(true, Ordering::Relaxed);
        images
    });
    let writer = writer.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut tally = Tally::default();
    for image in images {
        settle(&image, engine, &writer.history, &mut tally);
    }
    println!("{engine} copied while writing: {tally:?}");
}

/// Torn, garbled and flipped bytes: the newest file's end, and any byte of any file.
fn damaged(engine: Engine) {
    let scratch = Scratch::new("damaged");
    let dir = scratch.path("mirror");
    let mut writer = Writer::new(&dir, engine, 4);
    for _ in 0..600 {
        writer.step();
    }
    writer.record();
    for _ in 0..40 {
        writer.step();
    }
    let mut tally = Tally::default();
    let mut random = Random(5);
    for round in 0..rounds(30) {
        let image = scratch.path("image");
        copy_dir(&dir, &image);
        let mut files = Vec::new();
        list(&image.join("engine"), &mut files);
        files.retain(|(_, data)| *data > 0);
        files.sort();
        // The journal or log is the longest: every other round hits its tail.
        let (path, data) = match round % 2 {
            0 => files.iter().max_by_key(|(_, data)| *data).unwrap().clone(),
            _ => files[random.below(files.len() as u64) as usize].clone(),
        };
        let mut file = File::options().read(true).write(true).open(&path).unwrap();
        let at = match round % 2 {
            0 => data - 1 - random.below(data.min(4096)),
            _ => random.below(data),
        };
        match round % 3 {
            0 => file.set_len(at).unwrap(),
            1 => flip(&mut file, at, random.next() as u8 | 1),
            _ => (at..data.min(at + 100)).for_each(|at| flip(&mut file, at, random.next() as u8 | 1)),
        }
        drop(file);
        settle(&image, engine, &writer.history, &mut tally);
        fs::remove_dir_all(&image).unwrap();
    }
    println!("{engine} damaged: {tally:?}");
    assert!(tally.opened > 0 && tally.refused > 0, "{tally:?}");
}

fn flip(file: &mut File, at: u64, with: u8) {
    let mut byte = [0];
    file.seek(SeekFrom::Start(at)).unwrap();
    file.read_exact(&mut byte).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(&[byte[0] ^ with]).unwrap();
}

/// Every file with the number of bytes up to its last one that is not zero.
fn list(dir: &Path, into: &mut Vec<(PathBuf, u64)>) {
    for found in fs::read_dir(dir).unwrap() {
        let found = found.unwrap();
        if found.file_type().unwrap().is_dir() {
            list(&found.path(), into);
        } else {
            let content = fs::read(found.path()).unwrap();
            let data = content.iter().rposition(|&byte| byte != 0).map_or(0, |last| last as u64 + 1);
            into.push((found.path(), data));
        }
    }
}

/// Copies with holes: fjall's journals are 64 MiB of mostly nothing. Files may come and go
/// meanwhile.
fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for found in fs::read_dir(from).unwrap() {
        let Ok(found) = found else { continue };
        let target = to.join(found.file_name());
        if found.file_type().unwrap().is_dir() {
            copy_dir(&found.path(), &target);
            continue;
        }
        let Ok(mut source) = File::open(found.path()) else { continue };
        let mut target = File::create(target).unwrap();
        let mut block = vec![0; 1 << 20];
        let mut length = 0;
        loop {
            let read = source.read(&mut block).unwrap();
            if read == 0 {
                break;
            }
            if block[..read].iter().any(|&byte| byte != 0) {
                target.seek(SeekFrom::Start(length)).unwrap();
                target.write_all(&block[..read]).unwrap();
            }
            length += read as u64;
        }
        target.set_len(length).unwrap();
    }
}

macro_rules! every_engine {
    ($($test:ident),* $(,)?) => {
        mod fjall { $(#[test] fn $test() { super::$test(checkpoint::store::Engine::Fjall); })* }
        mod sled { $(#[test] fn $test() { super::$test(checkpoint::store::Engine::Sled); })* }
    };
}

every_engine!(killed, copied_while_writing, damaged);
