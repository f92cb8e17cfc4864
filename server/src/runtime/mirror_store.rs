//! Opening the mirror's store, and what becomes of one that is damaged.
//!
//! A damaged engine is not gone on with: whatever is bad in one of its files is met again by the
//! next sweep or compaction, and ends the process each time. So what a start finds sound in it,
//! group by group, is written into a fresh store beside it, which then takes its place; the rest
//! comes from the log and the peers. The damaged one is moved aside, never deleted.
//!
//! ```text
//! checkpoint              the store
//! checkpoint/failed       why the last life could not go on with it
//! checkpoint.rebuilt      being written; complete once `checkpoint` has been moved aside
//! checkpoint.quarantine   the last one that was moved aside
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use checkpoint::durably::sync_dir;
use checkpoint::mirror::{Mirror, MirrorConfig};
use checkpoint::store::{Engine, MirrorStore, Sizes, StoreError, quarantine};
use groups::ids::GroupId;
use groups::mirrored::MirrorOrder;
use groups::time::Time;
use parking_lot::Mutex;

use super::mirror::MirrorGauge;
use crate::node::mirror::{Loaded, NodeMirror, load_group, stored};
use crate::node::open::Refused;

const FAILED: &str = "failed";

/// Notes that the store cannot be gone on with, for the next start.
pub fn note_failure(dir: &Path, why: &str) {
    // Without the note the next start trusts what it can read, as it would after a power loss.
    let _ = fs::write(dir.join(FAILED), why);
}

/// Opens the store in `dir` and loads every group from it, `groups` at least. A damaged one is replaced; it and what
/// it has lost are named in an alarm.
///
/// # Errors
/// When it is in use, was written by a newer version or for another engine, or cannot be read.
pub fn open(
    dir: &Path,
    engine: Engine,
    groups: &[GroupId],
    gauge: &MirrorGauge,
) -> Result<(MirrorStore, Loaded), StoreError> {
    let alarm = |text: String| {
        tracing::error!("{text}");
        gauge.alarm(text);
    };
    finish_replacing(dir).map_err(io_error("putting the rebuilt mirror in its place"))?;
    let store = match MirrorStore::open(dir, engine, &Sizes::default()) {
        Err(StoreError::Unusable { reason, .. }) => {
            let aside = quarantine(dir).map_err(io_error("moving the damaged mirror aside"))?;
            alarm(format!(
                "the mirror checkpoint in {} could not be used: {reason}. It was moved to {}; a new one is built from \
                 the log and the peers. Check the disk",
                dir.display(),
                aside.display()
            ));
            MirrorStore::open(dir, engine, &Sizes::default())?
        }
        opened => opened?,
    };
    let mut loaded = load(&store, &stored(&store, groups));
    let Some(damage) = damage(dir, &loaded) else {
        loaded.settle(&store)?;
        return Ok((store, loaded));
    };
    match write_anew(dir, engine, &mut loaded) {
        Ok(()) => {
            drop(store);
            let aside = replace(dir).map_err(io_error("replacing the damaged mirror"))?;
            alarm(format!(
                "the mirror checkpoint in {} is damaged: {damage}. What is sound was written anew; the damaged one was \
                 moved to {}; what is missing comes from the log and the peers. Check the disk",
                dir.display(),
                aside.display()
            ));
            let store = MirrorStore::open(dir, engine, &Sizes::default())?;
            loaded.lost.clear();
            loaded.settle(&store)?;
            Ok((store, loaded))
        }
        Err(e) => {
            alarm(format!(
                "the mirror checkpoint in {} is damaged: {damage}. It could not be written anew ({e}) and is gone on \
                 with; what is missing comes from the log and the peers. Check the disk and its free space, then start \
                 the node again",
                dir.display()
            ));
            loaded.settle(&store)?;
            Ok((store, loaded))
        }
    }
}

/// Why the store is not to be gone on with.
fn damage(dir: &Path, loaded: &Loaded) -> Option<String> {
    if let Some((group, why)) = loaded.lost.first_key_value() {
        return Some(format!("{} groups are lost, the first is group {group} ({why})", loaded.lost.len()));
    }
    let why = fs::read(dir.join(FAILED)).ok()?;
    Some(format!("the last start of this node ended because of it ({})", String::from_utf8_lossy(&why)))
}

fn rebuilt(dir: &Path) -> PathBuf {
    let mut path = dir.as_os_str().to_owned();
    path.push(".rebuilt");
    PathBuf::from(path)
}

/// A process that died between the two renames of [`replace`] left the complete store beside its
/// place.
fn finish_replacing(dir: &Path) -> io::Result<()> {
    let fresh = rebuilt(dir);
    if fresh.try_exists()? {
        if dir.try_exists()? {
            return fs::remove_dir_all(fresh);
        }
        fs::rename(fresh, dir)?;
        return sync_parent(dir);
    }
    Ok(())
}

/// Writes everything that was loaded into a fresh store, verified and durable.
fn write_anew(dir: &Path, engine: Engine, loaded: &mut Loaded) -> Result<(), StoreError> {
    let fresh = rebuilt(dir);
    let store = MirrorStore::open(&fresh, engine, &Sizes::default())?;
    let mut mirror = NodeMirror::new(Mirror::new(store, MirrorConfig::default(), Time::ZERO));
    let written = loaded.states.iter_mut().try_for_each(|(group, (state, chain))| {
        let applied = state.applied();
        mirror.order(*group, MirrorOrder::Refill(state.image(*chain)), Time::ZERO);
        mirror.settle_now(&[], Time::ZERO)?;
        let points = mirror.mirror().durable_points();
        match points.get(group) {
            Some(point) if point.applied == applied => Ok(()),
            _ => Err(StoreError::Absent { group: *group }),
        }
    });
    drop(mirror);
    if written.is_err() {
        // What is left of it is removed by the next start at the latest.
        let _ = fs::remove_dir_all(&fresh);
    }
    written
}

/// Puts the fresh store in the place of the damaged one. Returns where that one is.
fn replace(dir: &Path) -> io::Result<PathBuf> {
    let aside = quarantine(dir)?;
    fs::rename(rebuilt(dir), dir)?;
    sync_parent(dir)?;
    Ok(aside)
}

fn sync_parent(dir: &Path) -> io::Result<()> {
    dir.parent().map_or(Ok(()), sync_dir)
}

fn io_error(what: &'static str) -> impl FnOnce(io::Error) -> StoreError {
    move |source| StoreError::Io { what, source }
}

/// Loads all `groups` in parallel.
fn load(store: &MirrorStore, groups: &[GroupId]) -> Loaded {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(8);
    let next = AtomicUsize::new(0);
    let loaded = Mutex::new(Loaded::default());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(&group) = groups.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let state = load_group(store, group);
                    loaded.lock().add(group, state);
                }
            });
        }
    });
    loaded.into_inner()
}

/// What an operator is told when the mirror keeps the node from starting: nothing in it was
/// touched, and each reason has its own way out.
#[must_use]
pub fn refused(error: StoreError) -> Refused {
    match error {
        StoreError::OtherEngine { dir, found, asked } => {
            let dir = dir.display();
            Refused::Foreign(format!(
                "the mirror checkpoint in {dir} was written by {found}, and [checkpoint] engine says {asked}. Nothing \
                 was changed. Put engine = \"{found}\" back into config.toml. Or, to change the engine while the other \
                 nodes of the cluster run, one node at a time: run `mv {dir} {dir}.{found}` and start the node again; \
                 it fetches from them what its log no longer has"
            ))
        }
        StoreError::NewerFormat { dir, found, known } => Refused::Foreign(format!(
            "the mirror checkpoint in {} has format {found}, and this program knows up to {known}. Nothing was \
             changed. Start the program that wrote it",
            dir.display()
        )),
        other => Refused::Mirror(other),
    }
}
