//! The keys of the one ordered map that all groups share.
//!
//! ```text
//! 01 group(4)                        current   generation and position
//! 02 group(4)                        staging   generation, promised position, progress
//! 03 group(4) generation(8)          garbage   a generation to be swept
//! 04 group(4) generation(8)          sessions  the session table of a generation
//! 10 group(4) generation(8) key(..)  entry     revision, expiry, value
//! ```
//!
//! Numbers are big endian, so that the map's order is the order of (group, generation, key).
//! Every prefix has a fixed width: no user key can reach into another group or generation.

use groups::ids::GroupId;

use crate::entry::Generation;

const CURRENT: u8 = 0x01;
const STAGING: u8 = 0x02;
const GARBAGE: u8 = 0x03;
const SESSIONS: u8 = 0x04;
const ENTRY: u8 = 0x10;

const GENERATION_PREFIX: usize = 1 + 4 + 8;

pub(super) fn current(group: GroupId) -> Vec<u8> {
    of_group(CURRENT, group)
}

pub(super) fn staging(group: GroupId) -> Vec<u8> {
    of_group(STAGING, group)
}

pub(super) fn garbage(group: GroupId, generation: Generation) -> Vec<u8> {
    of_generation(GARBAGE, group, generation)
}

pub(super) fn sessions(group: GroupId, generation: Generation) -> Vec<u8> {
    of_generation(SESSIONS, group, generation)
}

pub(super) fn entry(group: GroupId, generation: Generation, key: &[u8]) -> Vec<u8> {
    let mut raw = of_generation(ENTRY, group, generation);
    raw.extend_from_slice(key);
    raw
}

/// All entries of a generation, as a half-open range.
pub(super) fn entries(group: GroupId, generation: Generation) -> (Vec<u8>, Vec<u8>) {
    let from = of_generation(ENTRY, group, generation);
    let to = successor(&from);
    (from, to)
}

/// The first raw key behind `key`'s.
pub(super) fn after(group: GroupId, generation: Generation, key: &[u8]) -> Vec<u8> {
    let mut raw = entry(group, generation, key);
    raw.push(0);
    raw
}

/// The user's part of an entry's raw key; `None` for a key of another kind.
pub(super) fn user_key(raw: &[u8]) -> Option<&[u8]> {
    if raw.first() != Some(&ENTRY) {
        return None;
    }
    raw.get(GENERATION_PREFIX..)
}

/// The generation of an entry's raw key; `None` for a key of another kind.
pub(super) fn generation(raw: &[u8]) -> Option<Generation> {
    user_key(raw)?;
    let bytes = raw.get(5..GENERATION_PREFIX)?.first_chunk::<8>()?;
    Some(Generation(u64::from_be_bytes(*bytes)))
}

/// A key of the group table.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum TableKey {
    Current(GroupId),
    Staging(GroupId),
    Garbage(GroupId, Generation),
}

/// What a raw key belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Current,
    Staging,
    Garbage,
    Sessions,
    Entry,
}

/// The kind and group of any raw key; `None` for a key of no kind.
pub(super) fn kind(raw: &[u8]) -> Option<(Kind, GroupId)> {
    let (&tag, rest) = raw.split_first()?;
    let group = GroupId(u32::from_be_bytes(*rest.first_chunk::<4>()?));
    let kind = match tag {
        CURRENT => Kind::Current,
        STAGING => Kind::Staging,
        GARBAGE => Kind::Garbage,
        SESSIONS => Kind::Sessions,
        ENTRY => Kind::Entry,
        _ => return None,
    };
    Some((kind, group))
}

/// The whole group table, as a half-open range.
pub(super) fn table() -> (Vec<u8>, Vec<u8>) {
    (vec![CURRENT], vec![SESSIONS])
}

/// Reads a key of the group table; `None` when it is none.
pub(super) fn parse_table(raw: &[u8]) -> Option<TableKey> {
    let (&tag, rest) = raw.split_first()?;
    let (group, rest) = rest.split_first_chunk::<4>()?;
    let group = GroupId(u32::from_be_bytes(*group));
    match (tag, rest.len()) {
        (CURRENT, 0) => Some(TableKey::Current(group)),
        (STAGING, 0) => Some(TableKey::Staging(group)),
        (GARBAGE, 8) => {
            let generation = u64::from_be_bytes(*rest.first_chunk::<8>()?);
            Some(TableKey::Garbage(group, Generation(generation)))
        }
        _ => None,
    }
}

fn of_group(tag: u8, group: GroupId) -> Vec<u8> {
    let mut raw = Vec::with_capacity(GENERATION_PREFIX);
    raw.push(tag);
    raw.extend_from_slice(&group.0.to_be_bytes());
    raw
}

fn of_generation(tag: u8, group: GroupId, generation: Generation) -> Vec<u8> {
    let mut raw = of_group(tag, group);
    raw.extend_from_slice(&generation.0.to_be_bytes());
    raw
}

/// The smallest string above every string with this prefix. The tag is never 0xff, so the
/// carry always ends.
fn successor(prefix: &[u8]) -> Vec<u8> {
    let mut next = prefix.to_vec();
    while let Some(last) = next.pop() {
        if last < u8::MAX {
            next.push(last + 1);
            break;
        }
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_exactly_their_generation() {
        for (group, generation) in [(0, 0), (0, 255), (255, u64::MAX), (u32::MAX, u64::MAX), (7, 1)] {
            let (group, generation) = (GroupId(group), Generation(generation));
            let (from, to) = entries(group, generation);
            for key in [&b""[..], b"\0", b"a", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"] {
                let raw = entry(group, generation, key);
                assert!(from <= raw && raw < to);
                assert_eq!(user_key(&raw), Some(key));
            }
            let next = entry(group, Generation(generation.0.wrapping_add(1)), b"");
            assert!(next < from || next >= to);
        }
    }

    #[test]
    fn table_keys_read_back() {
        let group = GroupId(0x0102_0304);
        assert_eq!(parse_table(&current(group)), Some(TableKey::Current(group)));
        assert_eq!(parse_table(&staging(group)), Some(TableKey::Staging(group)));
        let generation = Generation(9);
        assert_eq!(parse_table(&garbage(group, generation)), Some(TableKey::Garbage(group, generation)));
        assert_eq!(parse_table(b""), None);
        assert_eq!(parse_table(&[CURRENT, 0, 0, 0]), None);
        assert_eq!(parse_table(&sessions(group, generation)), None);
    }
}
