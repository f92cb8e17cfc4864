//! The store's directory: what stands in it besides the engine, and what the engine's group
//! table says when it is opened.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use groups::ids::GroupId;

use super::durable::{self, Point};
use super::engine::{OpenEngine, Store};
use super::error::{EngineError, StoreError};
use super::files::{Directory, Files};
use super::keys::{self, TableKey};
use super::record::{Current, Staging};
use super::{GroupState, point_of};
use crate::durably;

/// The layout of the directory and of every key and record in the engine.
const FORMAT: u32 = 1;

const FORMAT_FILE: &str = "format";

/// A format file is one short line.
const MAX_FORMAT: usize = 128;

/// Moves a store's directory aside for good, so that an empty one can be built in its place.
/// One quarantined directory is kept, as evidence; an older one makes room.
///
/// # Errors
/// Whatever the operating system reports.
pub fn quarantine(dir: &Path) -> io::Result<PathBuf> {
    let mut aside = dir.as_os_str().to_owned();
    aside.push(".quarantine");
    let aside = PathBuf::from(aside);
    match fs::remove_dir_all(&aside) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    // The trust goes first: a half-finished quarantine must not leave points that log GC
    // would believe.
    durable::remove(&Directory::at(dir))?;
    fs::rename(dir, &aside)?;
    durably::sync_dir(durably::parent(dir))?;
    Ok(aside)
}

/// Checks the format file; a place without one is new if it has no engine either.
pub(super) fn check_format(files: &dyn Files, asked: &dyn OpenEngine) -> Result<(), StoreError> {
    let place = || files.place().to_owned();
    let reading = |source| StoreError::Io { what: "reading the format file", source };
    let damaged = || StoreError::Unusable { dir: place(), reason: "its format file is damaged".into() };
    let found = match files.read(FORMAT_FILE, MAX_FORMAT) {
        Ok(Some(found)) => found,
        Ok(None) => {
            if asked.exists().map_err(reading)? || durable::exists(files).map_err(reading)? {
                let reason = "its format file is missing".into();
                return Err(StoreError::Unusable { dir: place(), reason });
            }
            let line = format_line(FORMAT, asked.name());
            let written = files.replace(FORMAT_FILE, line.as_bytes());
            return written.map_err(StoreError::io("writing the format file"));
        }
        Err(e) if e.kind() == io::ErrorKind::InvalidData => return Err(damaged()),
        Err(e) => return Err(reading(e)),
    };
    let line = std::str::from_utf8(&found).map_err(|_| damaged())?;
    let mut words = line.split(' ').skip(1);
    let version: u32 = words.next().and_then(|word| word.parse().ok()).ok_or_else(damaged)?;
    let engine = words.next().ok_or_else(damaged)?;
    if line != format_line(version, engine) {
        return Err(damaged());
    }
    if version != FORMAT {
        return Err(StoreError::NewerFormat { dir: place(), found: version, known: FORMAT });
    }
    if engine != asked.name() {
        return Err(StoreError::OtherEngine { dir: place(), found: engine.into(), asked: asked.name() });
    }
    Ok(())
}

/// `pelago-mirror 1 fjall 1a2b3c4d`: readable, and with the crc of what stands before it.
fn format_line(version: u32, engine: &str) -> String {
    let line = format!("pelago-mirror {version} {engine}");
    format!("{line} {:08x}\n", crc32fast::hash(line.as_bytes()))
}

pub(super) fn read_table(store: &dyn Store) -> Result<BTreeMap<GroupId, GroupState>, EngineError> {
    let mut groups: BTreeMap<GroupId, GroupState> = BTreeMap::new();
    let mut stray = None;
    let (from, to) = keys::table();
    store.scan(&from, &to, &mut |raw, value| {
        match keys::parse_table(raw) {
            Some(TableKey::Current(group)) => {
                let state = groups.entry(group).or_default();
                state.current = Current::decode(value);
                if state.current.is_none() {
                    state.damaged = Some("its position is damaged".into());
                }
            }
            Some(TableKey::Staging(group)) => {
                let state = groups.entry(group).or_default();
                state.staging = Staging::decode(value);
                if state.staging.is_none() {
                    state.damaged = Some("its staging record is damaged".into());
                }
            }
            Some(TableKey::Garbage(group, generation)) => {
                groups.entry(group).or_default().garbage.push(generation.into());
            }
            None => stray = Some(format!("an unknown key of {} bytes in the group table", raw.len())),
        }
        ControlFlow::Continue(())
    })?;
    match stray {
        Some(reason) => Err(EngineError::Corrupt(reason)),
        None => Ok(groups),
    }
}

/// What a group has lost since its point was recorded, if anything.
pub(super) fn lost_since(point: &Point, current: Option<&Current>) -> Option<String> {
    let Some(current) = current else {
        return Some(format!("instance {} was durable, now it has no state", point.applied));
    };
    let now = point_of(&current.position);
    if now.applied < point.applied {
        return Some(format!("instance {} was durable, now it stands at {}", point.applied, now.applied));
    }
    (now.applied == point.applied && now != *point)
        .then(|| format!("its state at instance {} is not the one recorded", point.applied))
}
