//! Reading keys in their order, a page at a time.
//!
//! A page says where it ends by the first key that it has not: so the pages of many groups can be
//! merged, since up to the least of those keys every group has said everything.

use std::ops::Bound;

use bytes::{BufMut, Bytes};

use super::command::{BadCommand, MAX_KEYS, Reader, put_bytes};
use super::state::State;
use crate::planted::{self, Bug};

/// A question for a page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// The first key that may be in it.
    pub from: Bytes,
    /// The first key that may not; `None` for no end.
    pub to: Option<Bytes>,
    /// The most keys.
    pub limit: u32,
    /// The most bytes, [`ITEM_COST`] for each key included.
    pub max_bytes: u32,
    /// Whether values are wanted, too.
    pub values: bool,
}

/// What one key costs beside its bytes, so that many empty ones are bounded too.
pub const ITEM_COST: usize = 32;

/// A page. Everything of one instant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Keys in ascending order, and their values if they were wanted.
    pub items: Vec<(Bytes, Option<Bytes>)>,
    /// The first key of the range that is not in the page; `None` when it has them all.
    pub next: Option<Bytes>,
    /// That key alone is over the limit of bytes.
    pub large: bool,
}

impl Range {
    /// Reads the page, in time that follows what it holds.
    pub(super) fn read(&self, state: &State) -> Page {
        let mut page = Page::default();
        let to = match &self.to {
            Some(to) if *to <= self.from => return page,
            Some(to) => Bound::Excluded(&to[..]),
            None => Bound::Unbounded,
        };
        let mut left = self.max_bytes as usize;
        let mut range = state.range((Bound::Included(&self.from[..]), to));
        for (key, item) in range.by_ref() {
            let value = self.values.then_some(&item.value);
            let cost = ITEM_COST + key.len() + value.map_or(0, Bytes::len);
            if page.items.len() >= self.limit.min(MAX_KEYS as u32) as usize || cost > left {
                page.next = Some(Bytes::copy_from_slice(key));
                page.large = cost > self.max_bytes as usize;
                break;
            }
            left -= cost;
            page.items.push((Bytes::copy_from_slice(key), value.cloned()));
        }
        if planted::is(Bug::ScanSkipsAtPageEnd) && page.next.is_some() {
            page.next = range.next().map(|(key, _)| Bytes::copy_from_slice(key));
        }
        page
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(u8::from(self.values) | u8::from(self.to.is_some()) << 1);
        out.put_u32_le(self.limit);
        out.put_u32_le(self.max_bytes);
        put_bytes(out, &self.from);
        if let Some(to) = &self.to {
            put_bytes(out, to);
        }
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Range, BadCommand> {
        let flags = r.u8()?;
        if flags > 3 {
            return Err(BadCommand("unknown kind of range"));
        }
        let (limit, max_bytes, from) = (r.u32()?, r.u32()?, r.bytes()?);
        let to = if flags & 2 != 0 { Some(r.bytes()?) } else { None };
        Ok(Range { from, to, limit, max_bytes, values: flags & 1 != 0 })
    }
}

impl Page {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(u8::from(self.next.is_some()) | u8::from(self.large) << 1);
        if let Some(next) = &self.next {
            put_bytes(out, next);
        }
        out.put_u32_le(self.items.len() as u32);
        for (key, value) in &self.items {
            put_bytes(out, key);
            out.put_u8(u8::from(value.is_some()));
            if let Some(value) = value {
                put_bytes(out, value);
            }
        }
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Page, BadCommand> {
        let flags = r.u8()?;
        if flags > 3 {
            return Err(BadCommand("unknown kind of page"));
        }
        let next = if flags & 1 != 0 { Some(r.bytes()?) } else { None };
        let count = r.count(5)?;
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            let key = r.bytes()?;
            let value = match r.u8()? {
                0 => None,
                1 => Some(r.bytes()?),
                _ => return Err(BadCommand("neither a value nor none")),
            };
            items.push((key, value));
        }
        Ok(Page { items, next, large: flags & 2 != 0 })
    }

    /// About how many bytes it takes.
    pub(super) fn size(&self) -> usize {
        let item =
            |(key, value): &(Bytes, Option<Bytes>)| 9 + key.len() + value.as_ref().map_or(0, Bytes::len);
        self.items.iter().map(item).sum::<usize>() + self.next.as_ref().map_or(0, Bytes::len) + 16
    }
}
