//! A backup's directory: one checkpoint file per group, `MANIFEST.json`, and `MANIFEST.xxh128`, which
//! holds the manifest's checksum in the form that `xxh128sum --check` reads.
//!
//! Every byte is under a checksum: those of a group's file twice, by its own chain (a checksum per
//! chunk, the state hash over all entries) and by the manifest's checksum of the whole file.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::Path;

use checkpoint::Entry;
use checkpoint::format::{FormatError, Header, Reader};
use groups::kv::beside;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use crate::protocol::{SLOTS, slot_of};

pub const MANIFEST: &str = "MANIFEST.json";
pub const CHECKSUM: &str = "MANIFEST.xxh128";

/// The newest form that is known here.
const FORMAT: u32 = 1;

/// A manifest of as many groups as there can be is shorter.
const MAX_MANIFEST: u64 = 64 << 20;

/// What a backup is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The form of the directory.
    pub format: u32,
    /// The program that wrote it.
    pub program: String,
    /// The cluster's name.
    pub cluster_name: String,
    /// Its id, 32 hex digits.
    pub cluster: String,
    /// How many groups it has.
    pub groups: u32,
    /// When the backup began, in milliseconds since 1970 by the clock of whoever took it. Everything that was
    /// acknowledged before is in it.
    pub begun_unix_ms: u64,
    /// When it ended.
    pub ended_unix_ms: u64,
    /// Keys of all groups.
    pub keys: u64,
    /// Bytes of all keys and values.
    pub bytes: u64,
    /// The groups, ascending.
    pub images: Vec<ImageLine>,
}

/// One group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageLine {
    /// The group.
    pub group: u32,
    /// Its first slot.
    pub first_slot: u16,
    /// Its last slot.
    pub last_slot: u16,
    /// The node that it was read from.
    pub node: u32,
    /// When it had come, as above. Lives are counted from here.
    pub taken_unix_ms: u64,
    /// The instance at which this is the group's state.
    pub instance: u64,
    /// The chained checksum over all chosen values up to there, 16 hex digits.
    pub chain: String,
    /// The hash of all entries, 64 hex digits.
    pub state_hash: String,
    /// The group's revision.
    pub revision: u64,
    /// The group's epoch.
    pub epoch: u64,
    /// The group's clock, milliseconds: lives end on it.
    pub clock_ms: u64,
    /// Keys.
    pub keys: u64,
    /// Keys that will not be there for ever.
    pub mortal: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
    /// The file.
    pub file: String,
    /// Its length.
    pub file_bytes: u64,
    /// Its xxh3-128, 32 hex digits.
    pub file_xxh128: String,
}

/// Why a directory is no backup, or a damaged one.
#[derive(Debug, thiserror::Error)]
pub enum BadBackup {
    /// It cannot be read.
    #[error("{what} cannot be read: {error}")]
    Io {
        /// What.
        what: String,
        /// Why not.
        error: io::Error,
    },
    /// There is no manifest.
    #[error("there is no {MANIFEST}: it is no backup, or one that was not completed")]
    None,
    /// Written by a newer release.
    #[error("it has form {0}, and this program knows up to {FORMAT}: read it with the release that wrote it")]
    Newer(u32),
    /// Something is not what it should be.
    #[error("{0} is damaged: {1}")]
    Damaged(String, String),
}

fn io_error(what: &str) -> impl FnOnce(io::Error) -> BadBackup + '_ {
    move |error| BadBackup::Io { what: what.to_owned(), error }
}

impl Manifest {
    /// An empty one of a cluster.
    pub fn new(cluster_name: &str, cluster: &str, groups: u32, begun_unix_ms: u64) -> Manifest {
        Manifest {
            format: FORMAT,
            program: format!("pelago {}", env!("CARGO_PKG_VERSION")),
            cluster_name: cluster_name.to_owned(),
            cluster: cluster.to_owned(),
            groups,
            begun_unix_ms,
            ended_unix_ms: begun_unix_ms,
            keys: 0,
            bytes: 0,
            images: Vec::new(),
        }
    }

    /// Writes manifest and checksum into the directory, synced.
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(self).map_err(io::Error::other)?;
        text.push(b'\n');
        checkpoint::durably::replace(&dir.join(CHECKSUM), checksum_line(&text).as_bytes())?;
        checkpoint::durably::replace(&dir.join(MANIFEST), &text)
    }

    /// Reads the manifest of a backup; the groups' files are not looked at. Also its checksum.
    pub fn read(dir: &Path) -> Result<(Manifest, String), BadBackup> {
        let text = match small(&dir.join(MANIFEST)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(BadBackup::None),
            read => read.map_err(io_error(MANIFEST))?,
        };
        let line = small(&dir.join(CHECKSUM)).map_err(io_error(CHECKSUM))?;
        let expected = checksum_line(&text);
        if line != expected.as_bytes() {
            let why = format!("{CHECKSUM} is not the checksum of {MANIFEST}; one of the two is damaged");
            return Err(BadBackup::Damaged(MANIFEST.to_owned(), why));
        }
        #[derive(Deserialize)]
        struct Form {
            format: u32,
        }
        let wrong = |error: serde_json::Error| BadBackup::Damaged(MANIFEST.to_owned(), error.to_string());
        let form: Form = serde_json::from_slice(&text).map_err(wrong)?;
        if form.format > FORMAT {
            return Err(BadBackup::Newer(form.format));
        }
        let manifest: Manifest = serde_json::from_slice(&text).map_err(wrong)?;
        manifest.check().map_err(|why| BadBackup::Damaged(MANIFEST.to_owned(), why))?;
        Ok((manifest, expected))
    }

    /// Whether it says of every group and slot what has become of it, once.
    fn check(&self) -> Result<(), String> {
        let mut next = 0_u32;
        let mut lines: Vec<&ImageLine> = self.images.iter().collect();
        lines.sort_by_key(|line| line.first_slot);
        for line in &lines {
            if u32::from(line.first_slot) != next || line.last_slot < line.first_slot {
                return Err(format!("no group, or more than one, has slot {next}"));
            }
            next = u32::from(line.last_slot) + 1;
            // It names a file in the directory and nothing else.
            if line.file != file_name(line.group) {
                return Err(format!("the file of group {} has another name", line.group));
            }
        }
        let groups: BTreeSet<u32> = lines.iter().map(|line| line.group).collect();
        if next != u32::from(SLOTS) || groups.len() != self.groups as usize || lines.len() != groups.len() {
            return Err("it does not have every group".to_owned());
        }
        let sum = |of: fn(&ImageLine) -> u64| self.images.iter().map(of).fold(0_u64, u64::saturating_add);
        if sum(|line| line.keys) != self.keys || sum(|line| line.bytes) != self.bytes {
            return Err("its sums are wrong".to_owned());
        }
        Ok(())
    }
}

/// The file of a group.
pub fn file_name(group: u32) -> String {
    format!("group-{group:05}.checkpoint")
}

fn checksum_line(text: &[u8]) -> String {
    format!("{:032x}  {MANIFEST}\n", xxh3_128(text))
}

fn small(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_MANIFEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What a group's file holds, as far as it is not known from elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// Keys.
    pub keys: u64,
    /// Of them, those with an end.
    pub mortal: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
    /// The file's length.
    pub file_bytes: u64,
    /// Its checksum.
    pub file_xxh128: String,
}

/// Counts and hashes what is read through it.
struct Hashed<R> {
    from: R,
    hash: Xxh3,
    bytes: u64,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(into)?;
        self.hash.update(&into[..count]);
        self.bytes += count as u64;
        Ok(count)
    }
}

/// Reads a group's file to its end and checks everything in it; `slots` are those that its keys may be of.
pub fn examine(
    path: &Path,
    slots: (u16, u16),
    told: &mut dyn FnMut(u64),
) -> Result<(Header, Content), FormatError> {
    let mut hashed = Hashed { from: BufReader::new(File::open(path)?), hash: Xxh3::new(), bytes: 0 };
    let mut content = Content::default();
    let mut reader = Reader::open(&mut hashed)?;
    while let Some(entries) = reader.chunk()? {
        for entry in &entries {
            content.keys += 1;
            content.mortal += u64::from(entry.expiry != 0);
            content.bytes += entry.bytes() as u64;
            if !(slots.0..=slots.1).contains(&slot_of(&entry.key).0) {
                let offset = reader.progress().bytes;
                return Err(FormatError::Damaged { offset, what: "a key of another group's slots" });
            }
        }
        told(entries.len() as u64);
    }
    let header = reader.header().clone();
    drop(reader);
    (content.file_bytes, content.file_xxh128) = (hashed.bytes, format!("{:032x}", hashed.hash.digest128()));
    Ok((header, content))
}

/// The group's clock at the instance of its state.
pub fn clock_of(header: &Header) -> Option<u64> {
    beside::decode(header.sessions.clone()).map(|beside| beside.clock)
}

/// How much longer an entry would have been there; `None` for good.
pub fn life_of(entry: &Entry, clock: u64) -> Option<u64> {
    (entry.expiry != 0).then(|| entry.expiry.saturating_sub(clock))
}

/// Checks a whole backup: the manifest, and every byte of every file that it names.
pub fn verify(dir: &Path, told: &mut dyn FnMut(u64)) -> Result<Manifest, BadBackup> {
    let (manifest, _) = Manifest::read(dir)?;
    for line in &manifest.images {
        let damaged = |why: String| BadBackup::Damaged(line.file.clone(), why);
        let (header, found) = match examine(&dir.join(&line.file), (line.first_slot, line.last_slot), told) {
            Ok(found) => found,
            Err(FormatError::Io(error)) => return Err(BadBackup::Io { what: line.file.clone(), error }),
            Err(error) => return Err(damaged(error.to_string())),
        };
        let at = &header.position;
        let noted = (line.keys, line.mortal, line.bytes, line.file_bytes, line.file_xxh128.as_str());
        if noted != (found.keys, found.mortal, found.bytes, found.file_bytes, found.file_xxh128.as_str()) {
            return Err(damaged(format!(
                "it holds {} keys in {} bytes with checksum {}, the manifest promises {} in {} with {}",
                found.keys, found.file_bytes, found.file_xxh128, line.keys, line.file_bytes, line.file_xxh128
            )));
        }
        let is = (header.group.0, at.applied.0, at.revision, at.epoch, clock_of(&header));
        let said = (line.group, line.instance, line.revision, line.epoch, Some(line.clock_ms));
        let hashes = [header.cluster.to_string(), at.chain.to_string(), at.state_hash.to_string()];
        if is != said || hashes != [manifest.cluster.clone(), line.chain.clone(), line.state_hash.clone()] {
            return Err(damaged("it is not the state that the manifest names".to_owned()));
        }
    }
    let known: BTreeSet<&str> =
        manifest.images.iter().map(|line| line.file.as_str()).chain([MANIFEST, CHECKSUM]).collect();
    for found in fs::read_dir(dir).map_err(io_error("the directory"))? {
        let name = found.map_err(io_error("the directory"))?.file_name();
        if !name.to_str().is_some_and(|name| known.contains(name)) {
            let why = "the manifest does not know it".to_owned();
            return Err(BadBackup::Damaged(name.to_string_lossy().into_owned(), why));
        }
    }
    Ok(manifest)
}
