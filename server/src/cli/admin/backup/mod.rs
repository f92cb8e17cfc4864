//! `pelago admin backup`: every group's state at one instance, verified, from any node.
//!
//! A group's state is read from the mirror of one of its members, which stands still for it (the group
//! itself does not): that is the group at one instance. Groups have no instant in common, as nothing
//! that a client can do has. Everything that was acknowledged before the backup began is in it: it
//! waits for a mirror to reach what each group's leader had applied after that.

mod manifest;
pub mod restore;
#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use clap::{Args, Subcommand};
use groups::ids::{ClusterId, GroupId, InstanceId};

use self::manifest::{BadBackup, ImageLine, Manifest, clock_of, examine, file_name, verify};
use crate::cli::connect::Servers;
use crate::cli::load::quoted;
use crate::cli::progress::{Progress, Unit, bytes, count, time};
use crate::cli::sidefile;
use crate::cli::status::PATIENCE;
use crate::cli::{Failure, print};
use crate::client::Client;
use crate::client::image::{Reader, Source, Wanted};
use crate::client::survey::{Survey, by_group, client_address, leading, survey};
use crate::protocol::Reply;
use crate::status::GroupLine;

/// Copy every group's state at one instance into a directory, verified
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(after_help = "\
Any node will do for --addr: it says where the others are. The cluster serves on. In the backup is
everything that was acknowledged before it began, with lives; docs/tools.md says what else. DIR
appears when all of it is there, synced and checked against what the groups noted of their state.
Exit codes: 0 done, 1 a backup is damaged (verify), 2 error (no DIR then).

Example: pelago admin backup backups/monday --addr 127.0.0.1:7001")]
pub struct Backup {
    /// The directory to make; it must not exist
    #[arg(required = true)]
    dir: Option<PathBuf>,

    /// Say what would be copied, and from where
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    servers: Servers,

    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    Verify(Verify),
}

/// Check every byte of a backup, offline
#[derive(Debug, Args)]
#[command(after_help = "\
Checksums of all files, of all chunks in them, and the state hash of each group.
Exit codes: 0 sound, 1 damaged (what, on stderr), 2 no backup, or it could not be read.

Example: pelago admin backup verify backups/monday")]
struct Verify {
    /// The backup
    dir: PathBuf,
}

/// A group whose leader is not known is waited for this long.
const LEADERS: Duration = Duration::from_secs(15);

/// What is to be copied.
struct Plan {
    cluster: ClusterId,
    manifest: Manifest,
    groups: Vec<(GroupLine, Wanted)>,
}

impl Backup {
    pub(in crate::cli) fn run(self) -> Result<(), Failure> {
        match (self.action, self.dir) {
            (Some(Action::Verify(Verify { dir })), _) => check(&dir),
            (None, Some(dir)) => take(&sidefile::plain(&dir), &self.servers, self.dry_run),
            (None, None) => Err(Failure::error("a directory is missing. Run: pelago admin backup --help")),
        }
    }
}

fn take(dir: &Path, servers: &Servers, dry_run: bool) -> Result<(), Failure> {
    if dir.exists() {
        return Err(Failure::error(format!(
            "{} exists. Nothing was copied and nothing was changed. Name a directory that does not",
            dir.display()
        )));
    }
    let plan = plan(servers)?;
    if dry_run {
        let keys = plan.groups.iter().map(|(line, _)| line.keys).sum();
        let size = plan.groups.iter().map(|(line, _)| line.bytes).sum();
        return print(format!(
            "to copy: {} of cluster {} ({}), about {} ({})\nnothing was copied\n",
            count(plan.groups.len() as u64, "group"),
            plan.manifest.cluster_name,
            plan.manifest.cluster,
            count(keys, "key"),
            bytes(size)
        ));
    }
    let mut partial = dir.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let begun = Instant::now();
    let end = copy(&plan, &partial).and_then(|manifest| {
        fs::rename(&partial, dir)
            .and_then(|()| checkpoint::durably::sync_dir(dir.parent().unwrap_or(Path::new(""))))
            .map_err(|error| unwritable(dir, &error))?;
        Ok(manifest)
    });
    let manifest = match end {
        Ok(manifest) => manifest,
        Err(failure) => {
            // It would be taken for a backup by nobody, and takes space.
            let _ = fs::remove_dir_all(&partial);
            return Err(failure);
        }
    };
    print(format!(
        "{} of cluster {} in {}: {} ({}), verified, in {}\n",
        count(u64::from(manifest.groups), "group"),
        manifest.cluster_name,
        quoted(dir),
        count(manifest.keys, "key"),
        bytes(manifest.bytes),
        time(begun.elapsed().as_secs_f64())
    ))
}

/// Copies all groups into the directory and writes the manifest.
fn copy(plan: &Plan, partial: &Path) -> Result<Manifest, Failure> {
    match fs::remove_dir_all(partial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(unwritable(partial, &error)),
        _ => {}
    }
    checkpoint::durably::create_dir(partial).map_err(|error| unwritable(partial, &error))?;
    let expected = plan.groups.iter().map(|(line, _)| line.keys).sum();
    let mut progress = Progress::new("backup", Unit::Keys, Some(expected), 0);
    let mut reader = Reader::new(Servers::options(), run_number());
    let mut manifest = plan.manifest.clone();
    for (line, wanted) in &plan.groups {
        let file = file_name(line.group);
        let path = partial.join(&file);
        let before = manifest.keys;
        let (summary, node) =
            reader.fetch(wanted, &path, &mut |told| progress.at(before + told.keys)).map_err(|error| {
                Failure::error(format!(
                    "group {} was not copied: {error}. There is no backup, and nothing was changed. Run: pelago status",
                    line.group
                ))
            })?;
        let taken_unix_ms = unix_ms();
        // What is on the disk, not what was meant to be.
        let slots = (line.first_slot, line.last_slot);
        let (header, content) = examine(&path, slots, &mut |_| {}).map_err(|error| {
            Failure::error(format!("{} was written and is not what was written: {error}", path.display()))
        })?;
        let clock = clock_of(&header).filter(|_| header == summary.header).ok_or_else(|| {
            Failure::error(format!(
                "group {} came from node {node} in a form that this program does not know. There is no backup. Use the \
                 release that the cluster runs",
                line.group
            ))
        })?;
        let at = &header.position;
        manifest.keys += content.keys;
        manifest.bytes += content.bytes;
        manifest.images.push(ImageLine {
            group: line.group,
            first_slot: line.first_slot,
            last_slot: line.last_slot,
            node,
            taken_unix_ms,
            instance: at.applied.0,
            chain: at.chain.to_string(),
            state_hash: at.state_hash.to_string(),
            revision: at.revision,
            epoch: at.epoch,
            clock_ms: clock,
            keys: content.keys,
            mortal: content.mortal,
            bytes: content.bytes,
            file,
            file_bytes: content.file_bytes,
            file_xxh128: content.file_xxh128,
        });
        progress.at(manifest.keys);
    }
    manifest.ended_unix_ms = unix_ms();
    debug_assert_eq!(plan.cluster.to_string(), manifest.cluster);
    manifest.write(partial).map_err(|error| unwritable(partial, &error))?;
    checkpoint::durably::sync_dir(partial).map_err(|error| unwritable(partial, &error))?;
    Ok(manifest)
}

/// What there is to copy, and which instance of each group is the least that has everything which was
/// acknowledged before.
fn plan(servers: &Servers) -> Result<Plan, Failure> {
    let (addresses, options) = (servers.addresses(), Servers::options());
    let nothing = "Nothing was copied and nothing was changed";
    let begun = Instant::now();
    loop {
        let begun_unix_ms = unix_ms();
        let look = || survey(&addresses, &options, PATIENCE);
        let before = look().map_err(|error| Failure::error(format!("{error}. {nothing}")))?;
        // Whoever answers this leads, and has applied everything that was acknowledged before.
        let size = Client::connect(&addresses, options.clone()).and_then(|mut c| c.call(&[b"DBSIZE"]));
        let why = match size.map_err(|error| Failure::error(format!("{error}. {nothing}")))? {
            Reply::Integer(_) => {
                let after = look().map_err(|error| Failure::error(format!("{error}. {nothing}")))?;
                match planned(&before, &after, begun_unix_ms) {
                    Ok(plan) => return Ok(plan),
                    Err(why) => why,
                }
            }
            Reply::Error(error) => error.to_string(),
            _ => "a node answered DBSIZE with something else".to_owned(),
        };
        if begun.elapsed() >= LEADERS {
            return Err(Failure::error(format!("{why}. {nothing}. Run: pelago status")));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn planned(before: &Survey, after: &Survey, begun_unix_ms: u64) -> Result<Plan, String> {
    let some = after.nodes.first().ok_or("no node answers")?;
    let cluster = u128::from_str_radix(&some.cluster, 16)
        .map_err(|_| "the cluster has an id that is none".to_owned())
        .map(ClusterId)?;
    let address = |node: u32| {
        let status = after.nodes.iter().find(|status| status.node == node)?;
        status.nodes.iter().find(|peer| peer.node == node).map(client_address)
    };
    let (then, now) = (by_group(&before.nodes), by_group(&after.nodes));
    let mut groups = Vec::new();
    let mut next = 0;
    for (&group, lines) in &now {
        let no_leader = || format!("group {group} has no leader that answers");
        let (leader, line) = leading(lines).ok_or_else(no_leader)?;
        let (earlier, led) = then.get(&group).and_then(|lines| leading(lines)).ok_or_else(no_leader)?;
        if (earlier, led.round) != (leader, line.round) || lines.iter().any(|(_, of)| of.round > line.round) {
            return Err(format!("the leader of group {group} is changing"));
        }
        if group != next {
            break;
        }
        next += 1;
        let least = InstanceId(line.applied);
        // Whoever leads has enough to do.
        let mut sources: Vec<&(u32, &GroupLine)> =
            lines.iter().filter(|(_, of)| of.halted.is_none() && !of.rebuilding && of.mirrored > 0).collect();
        sources.sort_by_key(|(node, of)| (*node == leader, u64::MAX - of.applied));
        let mut sources: Vec<Source> = sources
            .into_iter()
            .filter_map(|(node, _)| Some(Source { node: *node, address: address(*node)? }))
            .collect();
        if sources.is_empty() {
            sources.extend(address(leader).map(|address| Source { node: leader, address }));
        }
        if sources.is_empty() {
            return Err(format!("no member of group {group} can be read from"));
        }
        groups.push((line.clone(), Wanted { cluster, group: GroupId(group), least, sources }));
    }
    let last = groups.last().map(|(line, _)| line.last_slot);
    if groups.len() != now.len() || last != Some(crate::protocol::SLOTS - 1) {
        return Err(format!("no node that answers has group {next}"));
    }
    let manifest = Manifest::new(&some.cluster_name, &some.cluster, next, begun_unix_ms);
    Ok(Plan { cluster, manifest, groups })
}

/// `verify`.
fn check(dir: &Path) -> Result<(), Failure> {
    let mut progress = Progress::new("verify", Unit::Keys, Manifest::read(dir).ok().map(|(m, _)| m.keys), 0);
    let mut keys = 0;
    let verified = verify(dir, &mut |more| {
        keys += more;
        progress.at(keys);
    });
    drop(progress);
    let manifest = verified.map_err(|bad| bad_backup(dir, &bad))?;
    print(format!(
        "sound: {} of cluster {} ({}), {} ({})\n",
        count(u64::from(manifest.groups), "group"),
        manifest.cluster_name,
        manifest.cluster,
        count(manifest.keys, "key"),
        bytes(manifest.bytes)
    ))
}

fn bad_backup(dir: &Path, bad: &BadBackup) -> Failure {
    let text = format!("{}: {bad}", dir.display());
    match bad {
        BadBackup::Damaged(..) => Failure::no(format!(
            "{text}. Nothing was changed. Take another copy of this backup, or an older one"
        )),
        _ => Failure::error(format!("{text}. Nothing was changed")),
    }
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    Failure::error(format!(
        "{} cannot be written: {error}. There is no backup, and nothing was changed",
        path.display()
    ))
}

fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// A number that no other run has: nodes tell readers by it.
fn run_number() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    (now.as_nanos() as u64) ^ (u64::from(std::process::id()) << 40)
}
