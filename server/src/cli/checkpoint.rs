//! `pelago checkpoint`: reads the mirror checkpoints of a stopped node.

use std::fmt::Write as _;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use checkpoint::Entry;
use checkpoint::store::{Engine, MirrorStore, Sizes, StoreError};
use clap::{Args, Subcommand};
use groups::ids::GroupId;

use super::log::Source;
use super::{Failure, print};

/// Read the mirror checkpoints of a stopped node
#[derive(Debug, Args)]
#[command(after_help = "Example: pelago checkpoint verify data/node-1")]
pub struct CheckpointCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Dump(Dump),
    Verify(Verify),
}

/// Print keys, revisions and values, one per line, tab-separated
#[derive(Debug, Args)]
#[command(after_help = "\
A line is: group, key, revision, value; bytes that are no plain text are written as \\xHH.
A running node is refused: stop it first. The engine may tidy its files, as at any start.
Exit codes: 0 printed, 1 damaged (which group, on stderr), 2 could not be read.

Example: pelago checkpoint dump data/node-1 --group 5")]
struct Dump {
    /// The node's directory
    #[arg(value_name = "DATA_DIR")]
    dir: PathBuf,

    /// Only this group
    #[arg(long, value_name = "GROUP")]
    group: Option<u32>,
}

/// Hash every entry and compare with what each checkpoint says it is
#[derive(Debug, Args)]
#[command(after_help = "\
A running node is refused: stop it first. The engine may tidy its own files, as at any start.
Exit codes: 0 sound, 1 damaged: which group, and how (the next start builds it anew from the log
or from another node), 2 could not be checked.

Example: pelago checkpoint verify data/node-1")]
struct Verify {
    /// The node's directory
    #[arg(value_name = "DATA_DIR")]
    dir: PathBuf,
}

impl CheckpointCommand {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self.action {
            Action::Dump(Dump { dir, group }) => {
                let mut out = BufWriter::new(io::stdout().lock());
                dump(&dir, group.map(GroupId), &mut out)
            }
            Action::Verify(Verify { dir }) => {
                let (text, verdict) = verify(&dir)?;
                print(text)?;
                verdict
            }
        }
    }
}

/// The store of a node's directory, `None` while it has none. The node is locked as long as the
/// source lives.
fn open(dir: &Path) -> Result<(Source, Option<MirrorStore>), Failure> {
    let source = Source::open(dir)?;
    let folder = dir.join("checkpoint");
    if !folder.is_dir() {
        return Ok((source, None));
    }
    let sizes = Sizes::default();
    let opened = match MirrorStore::open(&folder, Engine::default(), &sizes) {
        Err(StoreError::OtherEngine { found, .. }) => match Engine::from_str(&found) {
            Ok(engine) => MirrorStore::open(&folder, engine, &sizes),
            Err(e) => return Err(Failure::error(format!("{}: {e}", folder.display()))),
        },
        opened => opened,
    };
    match opened {
        Ok(store) => Ok((source, Some(store))),
        Err(StoreError::Unusable { dir, reason }) => Err(Failure::no(format!(
            "damaged: {} cannot be used: {reason}. The next start of the node moves it aside and builds it anew from \
             the log and the other nodes",
            dir.display()
        ))),
        Err(e) => Err(Failure::error(format!("{}: {e}", folder.display()))),
    }
}

/// What is to be printed, and how the command ends.
fn verify(dir: &Path) -> Result<(String, Result<(), Failure>), Failure> {
    let (_source, store) = open(dir)?;
    let Some(store) = store else { return Ok(("sound: there is no checkpoint yet\n".into(), Ok(()))) };
    let mut text = format!("engine {}\n", store.engine());
    let (mut groups, mut damaged) = (0, Vec::new());
    for group in store.groups() {
        let (mut keys, mut bytes) = (0_u64, 0_u64);
        let loaded = store.load(group, |entry: Entry| {
            keys += 1;
            bytes += (entry.key.len() + entry.value.len()) as u64;
        });
        // Writing to a string cannot fail.
        let _ = match loaded {
            Ok(image) => {
                groups += 1;
                let durable = store.durable(group).map_or(0, |point| point.applied.0);
                let at = image.position;
                writeln!(
                    text,
                    "group {group}: instance {}, recorded {durable}, revision {}, epoch {}, {keys} keys, {bytes} bytes, \
                     state hash {}",
                    at.applied, at.revision, at.epoch, at.state_hash
                )
            }
            Err(StoreError::Absent { .. }) => Ok(()),
            Err(StoreError::Damaged { reason, .. }) => {
                damaged.push(format!("group {group}: {reason}"));
                writeln!(text, "group {group}: DAMAGED: {reason}")
            }
            Err(e) => return Err(Failure::error(format!("group {group} cannot be read: {e}"))),
        };
    }
    if damaged.is_empty() {
        let _ = writeln!(text, "sound: {groups} groups");
        return Ok((text, Ok(())));
    }
    let verdict = Failure::no(format!(
        "damaged: {}. The next start of the node builds them anew from the log or from another node",
        damaged.join("; ")
    ));
    Ok((text, Err(verdict)))
}

fn dump(dir: &Path, only: Option<GroupId>, out: &mut impl Write) -> Result<(), Failure> {
    let (_source, store) = open(dir)?;
    let Some(store) = store else { return Ok(()) };
    for group in store.groups().into_iter().filter(|g| only.is_none_or(|only| only == *g)) {
        let mut failed = None;
        let loaded = store.load(group, |entry| {
            if failed.is_none() {
                let (key, value) = (entry.key.escape_ascii(), entry.value.escape_ascii());
                failed = writeln!(out, "{group}\t{key}\t{}\t{value}", entry.revision).err();
            }
        });
        match failed.or(out.flush().err()) {
            Some(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                return Err(Failure { code: 0, message: String::new() });
            }
            Some(error) => return Err(Failure::error(format!("could not write to stdout: {error}"))),
            None => {}
        }
        match loaded {
            Ok(_) | Err(StoreError::Absent { .. }) => {}
            Err(StoreError::Damaged { reason, .. }) => {
                return Err(Failure::no(format!(
                    "group {group} is damaged: {reason}. What was printed of it is not to be trusted"
                )));
            }
            Err(e) => return Err(Failure::error(format!("group {group} cannot be read: {e}"))),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use checkpoint::store::{Batch, Position};
    use checkpoint::{Chain, StateDigest};
    use groups::ids::{Boot, InstanceId, NodeId, StorageId};
    use groups::kv::StateHash;
    use groups::log::RealDisk;

    use super::*;
    use crate::node::manifest::{Manifest, Stage};

    struct Node(PathBuf);

    impl Drop for Node {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn node(name: &str) -> Node {
        let dir = std::env::temp_dir().join(format!("pelago-checkpoint-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        let disk = RealDisk::open(&dir).expect("a directory");
        let manifest = Manifest {
            cluster_name: "local".into(),
            node: NodeId(1),
            storage: StorageId(7),
            boot: Boot(1),
            groups: 16,
            replication: 3,
            stage: Stage::Empty,
            log_begun: false,
        };
        manifest.store(&disk).expect("written");
        Node(dir)
    }

    fn fill(dir: &Path, keys: u64) {
        let store =
            MirrorStore::open(&dir.join("checkpoint"), Engine::Fjall, &Sizes::default()).expect("opens");
        let mut hash = StateHash::EMPTY;
        let mut batch = Batch::new(GroupId(5), InstanceId::ZERO);
        for n in 0..keys {
            let key = Bytes::from(format!("key-{n:03}"));
            let entry = Entry { key, value: Bytes::from(vec![b'v'; 90]), revision: n + 1, expiry: 0 };
            entry.add_to(&mut hash);
            batch.put(entry);
        }
        batch.sessions(Bytes::from_static(b"\x01\0\0\0\0"));
        let position = Position {
            applied: InstanceId(9),
            chain: Chain(3),
            state_hash: StateDigest::from(hash),
            revision: keys,
            epoch: 1,
            membership: Bytes::new(),
        };
        store.write(batch, position).expect("written");
        store.persist().expect("synced");
    }

    #[test]
    fn a_sound_checkpoint_is_described_and_dumped() {
        let node = node("sound");
        let (text, verdict) = verify(&node.0).expect("no checkpoint is no failure");
        assert_eq!((text.as_str(), verdict), ("sound: there is no checkpoint yet\n", Ok(())));
        fill(&node.0, 3);
        let (text, verdict) = verify(&node.0).expect("readable");
        assert_eq!(verdict, Ok(()));
        assert!(
            text.contains("group 5: instance 9, recorded 0, revision 3, epoch 1, 3 keys, 291 bytes"),
            "{text}"
        );
        assert!(text.ends_with("sound: 1 groups\n"), "{text}");
        let mut out = Vec::new();
        dump(&node.0, Some(GroupId(5)), &mut out).expect("dumped");
        let out = String::from_utf8(out).expect("text");
        assert_eq!(out.lines().count(), 3);
        assert!(out.starts_with("5\tkey-000\t1\tvvv"), "{out}");
        let mut other = Vec::new();
        dump(&node.0, Some(GroupId(6)), &mut other).expect("dumped");
        assert!(other.is_empty());
    }

    #[test]
    fn a_damaged_checkpoint_is_called_so() {
        let node = node("damaged");
        fill(&node.0, 50);
        std::fs::write(node.0.join("checkpoint/format"), "pelago-mirror 1 fjall 00000000\n")
            .expect("written");
        let failure = verify(&node.0).expect_err("its format file is damaged");
        assert_eq!(failure.code, 1);
        assert!(failure.message.contains("format file is damaged"), "{}", failure.message);
        assert!(failure.message.contains("builds it anew"), "{}", failure.message);
    }

    #[test]
    fn what_is_no_node_is_refused() {
        let failure = verify(Path::new("/nonexistent/node-1")).expect_err("nothing there");
        assert_eq!(failure.code, 2);
    }
}
