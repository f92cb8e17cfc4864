//! Reads of many keys: what `RANGE`, `PREFIX`, `SCAN` and `KEYS` ask for.

use bytes::Bytes;
use groups::ids::{GroupId, Slot};
use groups::kv::walk::PLACES;

use super::command::Command;
use super::data::DataCommand;
use super::error::ErrorReply;
use super::number;
use super::refusal::not_an_integer;
use super::token::PageToken;
use super::words::Words;
use groups::kv::slot::pinned_slot;

/// A read of many keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ordered {
    /// `RANGE`, `PREFIX`: a page of keys and values in the order of the keys, and a token.
    Page(PageQuery),
    /// `SCAN`: some keys and a cursor.
    Scan(ScanQuery),
    /// `KEYS`: all keys that match, or an error.
    Keys(Bytes),
}

/// A page of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageQuery {
    /// The first key that may be in it.
    pub from: Bytes,
    /// The first key that may not; `None` for no end.
    pub to: Option<Bytes>,
    /// The most keys.
    pub limit: u32,
    /// Only the key `from`, which has a large value.
    pub alone: bool,
}

/// Some keys of a walk through all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanQuery {
    /// Where it goes on.
    pub cursor: Cursor,
    /// Only keys that match this pattern.
    pub pattern: Option<Bytes>,
    /// About so many keys are looked at.
    pub count: u32,
    /// Whether values of the wanted type exist at all.
    pub any_type: bool,
}

/// A place in a walk: a group, and a place in its order.
///
/// As a number: the place in the lowest 48 bits, one bit that is always set, so that only the
/// beginning of all is 0, and the group. It stays below 2^63, for clients without unsigned numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The group.
    pub group: GroupId,
    /// The first place there that was not visited.
    pub place: u64,
}

impl Cursor {
    /// The number; 0 for the beginning of all, which is also how a walk ends.
    #[must_use]
    pub fn to_number(self) -> u64 {
        match self {
            Cursor { group: GroupId(0), place: 0 } => 0,
            Cursor { group, place } => (u64::from(group.0) << 49) | PLACES | place,
        }
    }

    /// The cursor that a number stands for.
    #[must_use]
    pub fn from_number(number: u64) -> Option<Cursor> {
        if number == 0 {
            return Some(Cursor::default());
        }
        let (group, place) = (number >> 49, number & (PLACES - 1));
        (number & PLACES != 0 && number >> 63 == 0)
            .then(|| Some(Cursor { group: GroupId(u32::try_from(group).ok()?), place }))?
    }
}

/// `LIMIT` where none is given.
pub const DEFAULT_LIMIT: u32 = 100;
/// The largest `LIMIT`, and the largest `COUNT` that is followed.
pub const MAX_LIMIT: u32 = 10_000;
/// `COUNT` where none is given, as in Redis.
const DEFAULT_COUNT: u32 = 10;

impl PageQuery {
    /// All keys that begin with `prefix`.
    #[must_use]
    pub fn of_prefix(prefix: Bytes, limit: u32) -> PageQuery {
        PageQuery { to: behind_prefix(&prefix), from: prefix, limit, alone: false }
    }

    /// Whether no key can be in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.to.as_ref().is_some_and(|to| *to <= self.from)
    }

    /// The slot of all keys in it, if they have a `{tag}` in common.
    #[must_use]
    pub fn slot(&self) -> Option<Slot> {
        let to = self.to.as_ref()?;
        let common = self.from.iter().zip(to.iter()).take_while(|(a, b)| a == b).count();
        // Where `to` only closes a prefix, it differs from it in the prefix's last byte.
        let closes = behind_prefix(&self.from[..(common + 1).min(self.from.len())]).as_ref() == Some(to);
        let length = if closes { common + 1 } else { common };
        pinned_slot(&self.from[..length.min(self.from.len())])
    }
}

/// The first key behind all that begin with `prefix`; `None` when there is no such key.
#[must_use]
pub fn behind_prefix(prefix: &[u8]) -> Option<Bytes> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end.into())
}

impl Words<'_> {
    pub(super) fn range(mut self) -> Result<Command, ErrorReply> {
        let from = self.key()?;
        let to = self.key()?;
        let from = if &from[..] == b"-" { Bytes::new() } else { from };
        let to = (&to[..] != b"+").then_some(to);
        self.page(PageQuery { from, to, limit: DEFAULT_LIMIT, alone: false })
    }

    pub(super) fn prefix(mut self) -> Result<Command, ErrorReply> {
        let prefix = self.key()?;
        self.page(PageQuery::of_prefix(prefix, DEFAULT_LIMIT))
    }

    fn page(mut self, mut page: PageQuery) -> Result<Command, ErrorReply> {
        while let Some(option) = self.bytes() {
            if option.eq_ignore_ascii_case(b"LIMIT") {
                let limit = self.word().and_then(number::unsigned).ok_or_else(not_an_integer)?;
                page.limit = u32::try_from(limit)
                    .ok()
                    .filter(|limit| (1..=MAX_LIMIT).contains(limit))
                    .ok_or_else(|| {
                        ErrorReply::err(format!(
                            "LIMIT must be between 1 and {MAX_LIMIT}; use AFTER for more"
                        ))
                    })?;
            } else if option.eq_ignore_ascii_case(b"AFTER") {
                let text = self.required()?;
                // The empty token is what the last page says: it leads nowhere.
                let token = PageToken::parse(&text).ok_or_else(no_token)?;
                if token.from < page.from || page.to.as_ref().is_some_and(|to| token.from >= *to) {
                    return Err(no_token());
                }
                (page.from, page.alone) = (token.from, token.alone);
            } else {
                return Err(self.unexpected(&option));
            }
        }
        Ok(Command::Data(DataCommand::Ordered(Ordered::Page(page))))
    }

    pub(super) fn scan(mut self) -> Result<Command, ErrorReply> {
        let cursor = self
            .word()
            .and_then(number::unsigned)
            .and_then(Cursor::from_number)
            .ok_or_else(|| ErrorReply::err("invalid cursor; a scan begins with cursor 0"))?;
        let mut scan = ScanQuery { cursor, pattern: None, count: DEFAULT_COUNT, any_type: true };
        while let Some(option) = self.bytes() {
            if option.eq_ignore_ascii_case(b"MATCH") {
                let pattern = self.key()?;
                scan.pattern = (&pattern[..] != b"*").then_some(pattern);
            } else if option.eq_ignore_ascii_case(b"COUNT") {
                let count = self.integer()?;
                if count < 1 {
                    return Err(self.syntax_error("COUNT must be at least 1"));
                }
                scan.count = u32::try_from(count).unwrap_or(MAX_LIMIT).min(MAX_LIMIT);
            } else if option.eq_ignore_ascii_case(b"TYPE") {
                scan.any_type = self.required()?.eq_ignore_ascii_case(b"string");
            } else {
                return Err(self.unexpected(&option));
            }
        }
        Ok(Command::Data(DataCommand::Ordered(Ordered::Scan(scan))))
    }

    pub(super) fn all_keys(mut self) -> Result<Command, ErrorReply> {
        Ok(Command::Data(DataCommand::Ordered(Ordered::Keys(self.key()?))))
    }
}

fn no_token() -> ErrorReply {
    ErrorReply::err(
        "this is no token of this range; give AFTER what the page before answered, with the same range",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::slot_of;

    #[test]
    fn the_end_of_a_prefix() {
        for (prefix, end) in [
            (&b"a"[..], Some(&b"b"[..])),
            (b"a\xff", Some(b"b")),
            (b"", None),
            (b"\xff\xff", None),
            (b"az", Some(b"a{")),
        ] {
            assert_eq!(behind_prefix(prefix).as_deref(), end, "{prefix:?}");
        }
    }

    #[test]
    fn a_cursor_is_a_number_that_is_not_0() {
        for group in [0, 1, 15, 16_383] {
            for place in [0, 1, PLACES - 1] {
                let cursor = Cursor { group: GroupId(group), place };
                let number = cursor.to_number();
                assert_eq!(number == 0, cursor == Cursor::default());
                assert!(i64::try_from(number).is_ok());
                assert_eq!(Cursor::from_number(number), Some(cursor));
            }
        }
        for wrong in [1, PLACES - 1, 1 << 49, 1 << 63, u64::MAX] {
            assert_eq!(Cursor::from_number(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_range_within_one_tag_has_one_slot() {
        let tagged = Some(slot_of(b"{user7}:anything"));
        for (from, to, slot) in [
            ("{user7}:a", Some("{user7}:m"), tagged),
            ("{user7}", Some("{user7~"), tagged),
            ("{user7}:", Some("{user7};"), tagged),
            ("{user7}:", Some("{user8}:"), None),
            ("{user7", Some("{user8"), None),
            ("{}x", Some("{}y"), None),
            ("a", Some("b"), None),
            ("{user7}:", None, None),
        ] {
            let bytes = |text: &str| Bytes::from(text.to_owned());
            let page = PageQuery { from: bytes(from), to: to.map(bytes), limit: 1, alone: false };
            assert_eq!(page.slot(), slot, "{from} to {to:?}");
        }
        assert_eq!(PageQuery::of_prefix(Bytes::from_static(b"{user7}"), 1).slot(), tagged);
    }
}
