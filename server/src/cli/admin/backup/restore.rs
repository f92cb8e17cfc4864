//! `pelago admin restore`: a backup's keys into a cluster, with as many groups as it has.
//!
//! Keys are put like any client's, so they are dealt out by slot anew and are durable when the command
//! says so. The whole backup is checked before the first of them is sent. At the end every key is read
//! back and compared.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use checkpoint::Entry;
use checkpoint::format::Reader;
use clap::Args;
use serde::{Deserialize, Serialize};

use super::manifest::{ImageLine, Manifest, life_of, verify};
use super::{bad_backup, unix_ms};
use crate::cli::connect::{Servers, shown};
use crate::cli::load::{given, quoted};
use crate::cli::progress::{Progress, Unit, bytes, count, time};
use crate::cli::sidefile::{self, SideFile};
use crate::cli::status::PATIENCE;
use crate::cli::{Failure, print};
use crate::client::bulk::{Bulk, Put, WINDOW_BYTES, WINDOW_PUTS};
use crate::client::survey::survey;
use crate::client::{Client, ClientError};
use crate::protocol::Reply;

/// Put the keys of a backup into a cluster, and compare all of them
#[derive(Debug, Args)]
#[command(after_help = "\
The cluster may have any number of groups and no keys. A key with a life gets the rest that it had
at the backup; --deadlines counts the time since, and leaves out what is over. Revisions,
epochs, fences and REQ numbers begin anew: no lock or watch of the old cluster goes on.
DIR.restoring says how far it came, for --resume.
Exit codes: 0 restored, 1 damaged backup or not the same keys, 2 stopped (how to go on is said).

Example: pelago admin restore backups/monday --addr 127.0.0.1:7001")]
pub struct Restore {
    /// The backup
    dir: PathBuf,

    /// Also into a cluster that has keys: those of the backup replace them
    #[arg(long)]
    into_nonempty: bool,

    /// Let lives end when they would have ended in the old cluster
    #[arg(long)]
    deadlines: bool,

    /// Go on where an earlier restore was stopped
    #[arg(long)]
    resume: bool,

    /// Check the backup, look at the cluster and put nothing
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    servers: Servers,
}

/// A cluster that takes nothing for so long is given up.
const STALLED: Duration = Duration::from_secs(60);

/// Keys and bytes that are compared at a time.
const COMPARED: usize = 256;
const COMPARED_BYTES: usize = 1 << 20;

/// Differences that are listed.
const LISTED: u64 = 10;

/// What `DIR.restoring` holds.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    /// The manifest's checksum.
    backup: String,
    /// The cluster that the keys go to.
    cluster: String,
    /// Whether it had no keys at the beginning.
    was_empty: bool,
    /// Files that are done.
    files: usize,
    /// Entries of the next one that are done.
    entries: u64,
}

/// What has come of the entries.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    put: u64,
    bytes: u64,
    /// Lives that were over.
    over: u64,
}

impl Restore {
    pub(in crate::cli) fn run(mut self) -> Result<(), Failure> {
        let begun = Instant::now();
        self.dir = sidefile::plain(&self.dir);
        let manifest = self.checked()?;
        let (_, checksum) = Manifest::read(&self.dir).map_err(|bad| bad_backup(&self.dir, &bad))?;
        let (addresses, options) = (self.servers.addresses(), Servers::options());
        let nothing = "Nothing was changed";
        let found = survey(&addresses, &options, PATIENCE)
            .map_err(|error| Failure::error(format!("{error}. {nothing}")))?;
        let cluster = found.nodes.first().map(|node| node.cluster.clone()).unwrap_or_default();
        let name = found.nodes.first().map(|node| node.cluster_name.clone()).unwrap_or_default();
        let groups: BTreeSet<u32> =
            found.nodes.iter().flat_map(|node| &node.groups).map(|line| line.group).collect();
        let mut client = Client::connect(&addresses, options)
            .map_err(|error| Failure::error(format!("{error}. {nothing}")))?;
        let held = size(&mut client).map_err(|why| Failure::error(format!("{why}. {nothing}")))?;

        let mut side = SideFile::of(&self.dir, "restoring");
        let mut note =
            Note { backup: checksum, cluster: cluster.clone(), was_empty: held == 0, files: 0, entries: 0 };
        let mut going_on = false;
        if self.resume {
            match side.read::<Note>()? {
                Some(earlier) if earlier.backup == note.backup && earlier.cluster == cluster => {
                    (note, going_on) = (earlier, true);
                }
                Some(_) => {
                    return Err(Failure::error(format!(
                        "{} is of another backup or of another cluster. {nothing}. Run it again without --resume",
                        side.path().display()
                    )));
                }
                None => {}
            }
        }
        if held > 0 && !self.into_nonempty && !going_on {
            return Err(Failure::error(format!(
                "the cluster {name} has {} already. {nothing}. Restore into an empty cluster, go on with an earlier \
                 restore by --resume, or add --into-nonempty: keys of the backup then replace those of the same name",
                count(held, "key")
            )));
        }
        if self.dry_run {
            return print(format!(
                "to restore: {} ({}) of {} into cluster {name} ({cluster}), which has {} and {}\nnothing was changed\n",
                count(manifest.keys, "key"),
                bytes(manifest.bytes),
                count(u64::from(manifest.groups), "group"),
                count(groups.len() as u64, "group"),
                count(held, "key")
            ));
        }
        let sums = self.put(&manifest, &mut note, &mut side, &addresses)?;
        let compared = self.compare(&manifest, &mut client)?;
        side.remove().map_err(|error| {
            Failure::error(format!(
                "all is restored, but {} cannot be removed: {error}",
                side.path().display()
            ))
        })?;
        let extra = self.extra(&manifest, &note, &mut client, sums.over)?;
        let over = match sums.over {
            0 => String::new(),
            over => format!(", {over} left out because their lives were over"),
        };
        print(format!(
            "restored {} ({}) into cluster {name} in {}: {compared} read back, all the same{over}\n",
            count(manifest.keys - sums.over.min(manifest.keys), "key"),
            bytes(manifest.bytes),
            time(begun.elapsed().as_secs_f64())
        ))?;
        match extra {
            Some(why) => Err(Failure::no(why)),
            None => Ok(()),
        }
    }

    /// The manifest of a backup of which every byte was checked.
    fn checked(&self) -> Result<Manifest, Failure> {
        let all = Manifest::read(&self.dir).ok().map(|(manifest, _)| manifest.keys);
        let mut progress = Progress::new("verify", Unit::Keys, all, 0);
        let mut keys = 0;
        verify(&self.dir, &mut |more| {
            keys += more;
            progress.at(keys);
        })
        .map_err(|bad| bad_backup(&self.dir, &bad))
    }

    /// Puts everything behind what the note says is done.
    fn put(
        &self,
        manifest: &Manifest,
        note: &mut Note,
        side: &mut SideFile,
        addresses: &[String],
    ) -> Result<Sums, Failure> {
        let done: u64 =
            manifest.images.iter().take(note.files).map(|line| line.keys).sum::<u64>() + note.entries;
        let mut progress = Progress::new("restore", Unit::Keys, Some(manifest.keys), done);
        let mut bulk = Bulk::connect(addresses, &Servers::options(), STALLED)
            .map_err(|error| Failure::error(format!("{error}. Nothing was changed")))?;
        let mut sums = Sums::default();
        let mut noted = done;
        // Before the first key: whoever is stopped then has put some of them, and must be able to go on.
        side.note(note).map_err(|error| {
            let path = side.path().display();
            Failure::error(format!("{path} cannot be written: {error}. Nothing was put in this run"))
        })?;
        for (index, line) in manifest.images.iter().enumerate().skip(note.files) {
            let mut skip = if index == note.files { note.entries } else { 0 };
            (note.files, note.entries) = (index, skip);
            let mut entries = Entries::open(&self.dir, line).map_err(|why| self.stopped(&why, noted))?;
            loop {
                let mut window: Vec<Put> = Vec::new();
                let (mut size, mut taken, mut more) = (0, 0, true);
                while window.len() < WINDOW_PUTS && size < WINDOW_BYTES {
                    let Some(entry) = entries.next().map_err(|why| self.stopped(&why, noted))? else {
                        more = false;
                        break;
                    };
                    if skip > 0 {
                        skip -= 1;
                        continue;
                    }
                    taken += 1;
                    match self.life(&entry, line) {
                        Some(0) => sums.over += 1,
                        life => {
                            size += entry.bytes();
                            window.push(Put { key: entry.key.to_vec(), value: entry.value.to_vec(), life });
                        }
                    }
                }
                let refused = bulk.write(&window).map_err(|error| self.stopped(&error.to_string(), noted))?;
                if let Some((at, error)) = refused.first_key_value() {
                    let key = shown(&window[*at].key);
                    return Err(
                        self.stopped(&format!("the cluster refused the key \"{key}\": {error}"), noted)
                    );
                }
                sums.put += window.len() as u64;
                sums.bytes += size as u64;
                note.entries += taken;
                noted += taken;
                progress.at(noted);
                if side.is_due() {
                    side.note(note).map_err(|error| {
                        self.stopped(&format!("{} cannot be written: {error}", side.path().display()), noted)
                    })?;
                }
                if !more {
                    break;
                }
            }
            (note.files, note.entries) = (index + 1, 0);
        }
        Ok(sums)
    }

    /// Milliseconds that the entry shall be there; 0 for not at all, `None` for good.
    fn life(&self, entry: &Entry, line: &ImageLine) -> Option<u64> {
        let rest = life_of(entry, line.clock_ms)?;
        let since = if self.deadlines { unix_ms().saturating_sub(line.taken_unix_ms) } else { 0 };
        Some(rest.saturating_sub(since))
    }

    /// Reads every key back. Says how many there were.
    fn compare(&self, manifest: &Manifest, client: &mut Client) -> Result<String, Failure> {
        let mut progress = Progress::new("compare", Unit::Keys, Some(manifest.keys), 0);
        let (mut seen, mut wrong) = (0, 0);
        let fail = |why: String| {
            Failure::error(format!(
                "{why}. All keys are put, but not all are compared. Run it again with --resume: it puts little and compares"
            ))
        };
        for line in &manifest.images {
            let mut entries = Entries::open(&self.dir, line).map_err(fail)?;
            let mut batch: Vec<Entry> = Vec::new();
            loop {
                let next = entries.next().map_err(fail)?;
                let size: usize = batch.iter().map(Entry::bytes).sum();
                let last = next.is_none();
                if !batch.is_empty() && (last || batch.len() >= COMPARED || size >= COMPARED_BYTES) {
                    let keys = batch.iter().map(|entry| &entry.key[..]);
                    let words: Vec<&[u8]> = std::iter::once(&b"MGET"[..]).chain(keys).collect();
                    let values = values(client, &words).map_err(fail)?;
                    for (entry, value) in batch.iter().zip(values) {
                        let same = match &value {
                            Reply::Bulk(value) => *value == entry.value,
                            // Its life has ended since, or was over.
                            Reply::Nil => entry.expiry != 0,
                            _ => false,
                        };
                        if !same {
                            wrong += 1;
                            if wrong <= LISTED {
                                let key = shown(&entry.key);
                                progress
                                    .say(&format!("the key \"{key}\" has another value than in the backup"));
                            }
                        }
                    }
                    seen += batch.len() as u64;
                    progress.at(seen);
                    batch.clear();
                }
                match next {
                    // What was left out is nothing to compare with.
                    Some(entry) if self.life(&entry, line) == Some(0) => {}
                    Some(entry) => batch.push(entry),
                    None => break,
                }
            }
        }
        drop(progress);
        match wrong {
            0 => Ok(count(seen, "key")),
            _ => Err(Failure::no(format!(
                "{} of {seen} keys are not what the backup holds. Does anybody else write to this cluster? Nothing else \
                 was changed. Run the restore again with --into-nonempty once nobody does",
                wrong
            ))),
        }
    }

    /// Whether a cluster that was empty has as many keys as it must now.
    fn extra(
        &self,
        manifest: &Manifest,
        note: &Note,
        client: &mut Client,
        over: u64,
    ) -> Result<Option<String>, Failure> {
        if !note.was_empty {
            return Ok(None);
        }
        let held = size(client)
            .map_err(|why| Failure::error(format!("{why}. All keys are restored and compared")))?;
        let mortal: u64 = manifest.images.iter().map(|line| line.mortal).sum();
        let (least, most) =
            (manifest.keys - mortal.min(manifest.keys), manifest.keys - over.min(manifest.keys));
        Ok((!(least..=most).contains(&held)).then(|| {
            format!(
                "the cluster was empty and has {} now, the backup has {}. All of the backup are there: somebody else \
                 writes to this cluster",
                count(held, "key"),
                count(manifest.keys, "key")
            )
        }))
    }

    fn stopped(&self, why: &str, done: u64) -> Failure {
        Failure::error(format!(
            "{why}. {} of the backup were put before that, and perhaps some more. Go on with: pelago admin restore {} \
             --resume{}{}",
            count(done, "key"),
            quoted(&self.dir),
            given(&[(self.deadlines, "--deadlines"), (self.into_nonempty, "--into-nonempty")]),
            self.servers.hint()
        ))
    }
}

/// The entries of a group's file, one after the other. The file was checked before.
struct Entries {
    reader: Reader<BufReader<File>>,
    name: String,
    chunk: std::vec::IntoIter<Entry>,
}

impl Entries {
    fn open(dir: &Path, line: &ImageLine) -> Result<Entries, String> {
        let name = line.file.clone();
        let open = || Reader::open(BufReader::new(File::open(dir.join(&name))?));
        let reader = open().map_err(|error| format!("{name} cannot be read: {error}"))?;
        Ok(Entries { reader, name, chunk: Vec::new().into_iter() })
    }

    fn next(&mut self) -> Result<Option<Entry>, String> {
        loop {
            if let Some(entry) = self.chunk.next() {
                return Ok(Some(entry));
            }
            match self.reader.chunk() {
                Ok(Some(entries)) => self.chunk = entries.into_iter(),
                Ok(None) => return Ok(None),
                Err(error) => return Err(format!("{} cannot be read: {error}", self.name)),
            }
        }
    }
}

/// How many keys the cluster has.
fn size(client: &mut Client) -> Result<u64, String> {
    match patiently(client, &[b"DBSIZE"])? {
        Reply::Integer(keys) => Ok(u64::try_from(keys).unwrap_or(0)),
        _ => Err("the cluster did not say how many keys it has".to_owned()),
    }
}

fn values(client: &mut Client, words: &[&[u8]]) -> Result<Vec<Reply>, String> {
    match patiently(client, words)? {
        Reply::Array(values) if values.len() + 1 == words.len() => Ok(values),
        _ => Err(format!("{} answered MGET with something else", client.address())),
    }
}

/// A read, through any failover.
fn patiently(client: &mut Client, words: &[&[u8]]) -> Result<Reply, String> {
    let begun = Instant::now();
    loop {
        let why = match client.call(words) {
            Ok(Reply::Error(error)) => error.to_string(),
            Ok(reply) => return Ok(reply),
            Err(error @ ClientError::Unreachable(_)) => error.to_string(),
            Err(error) => return Err(error.to_string()),
        };
        if begun.elapsed() >= STALLED {
            return Err(why);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}
