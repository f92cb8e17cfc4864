//! Reads of many keys over all groups: the pages of the groups become one page.
//!
//! Each group is asked once and answers from one instant; so within a page every group is seen as it
//! was at some moment between request and reply. Pages, and groups, have no moment in common.

use bytes::Bytes;
use groups::ids::GroupId;
use groups::kv::scan::ITEM_COST;
use groups::kv::{self, Outcome, Page, Range, Walk};

use super::plan::Piece;
use crate::node::layout::Layout;
use crate::protocol::{Cursor, ErrorClass, ErrorReply, Ordered, PageQuery, PageToken, Reply, glob, slot_of};

/// A page has about so many bytes at most, [`ITEM_COST`] for each key included.
const PAGE_BYTES: usize = 1 << 20;

/// What a group may send towards a page, however many groups there are.
const LEAST_SHARE: usize = 4 << 10;

/// `KEYS` answers so many keys at most, and looks at about so many bytes of others.
const MAX_KEYS: u32 = 10_000;
const KEYS_BYTES: usize = 8 << 20;

/// What has come of the groups so far.
#[derive(Debug)]
pub(super) enum Gather {
    Page {
        query: PageQuery,
        pages: Vec<Page>,
    },
    Scan {
        group: GroupId,
        last: bool,
        pattern: Option<Bytes>,
        found: Option<(Vec<Bytes>, Option<u64>)>,
    },
    Keys {
        pattern: Bytes,
        pages: Vec<Page>,
    },
    /// Nobody needs to be asked.
    Known(Reply),
}

/// What the groups are asked.
pub(super) fn plan(ordered: Ordered, layout: &Layout) -> (Vec<Piece>, Gather) {
    let groups = layout.groups() as usize;
    match ordered {
        Ordered::Page(query) if query.is_empty() => (Vec::new(), Gather::Known(last_page())),
        Ordered::Page(query) if query.alone => {
            let group = layout.group_of(slot_of(&query.from));
            let to = Some(behind(&query.from));
            let range = Range { from: query.from.clone(), to, limit: 1, max_bytes: u32::MAX, values: true };
            (
                vec![Piece { group, command: kv::Command::Scan(range) }],
                Gather::Page { query, pages: Vec::new() },
            )
        }
        Ordered::Page(query) => {
            let among: Vec<GroupId> = match query.slot() {
                Some(slot) => vec![layout.group_of(slot)],
                None => (0..layout.groups()).map(GroupId).collect(),
            };
            let range = Range {
                from: query.from.clone(),
                to: query.to.clone(),
                limit: share(query.limit as usize, 16, among.len()) as u32,
                max_bytes: share(PAGE_BYTES, LEAST_SHARE, among.len()) as u32,
                values: true,
            };
            let ask = |group| Piece { group, command: kv::Command::Scan(range.clone()) };
            (among.into_iter().map(ask).collect(), Gather::Page { query, pages: Vec::new() })
        }
        Ordered::Scan(query) if !query.any_type => {
            let none = Reply::Array(vec![Reply::bulk("0"), Reply::Array(Vec::new())]);
            (Vec::new(), Gather::Known(none))
        }
        Ordered::Scan(query) => {
            let Cursor { group, place } = query.cursor;
            if group.0 >= layout.groups() {
                let why = "invalid cursor: there is no such group; a scan begins with cursor 0";
                return (Vec::new(), Gather::Known(ErrorReply::err(why).into()));
            }
            let walk = Walk { from: place, limit: query.count, max_bytes: PAGE_BYTES as u32 };
            let last = group.0 + 1 == layout.groups();
            let gather = Gather::Scan { group, last, pattern: query.pattern, found: None };
            (vec![Piece { group, command: kv::Command::Walk(walk) }], gather)
        }
        Ordered::Keys(pattern) => {
            let literal = glob::literal_prefix(&pattern);
            let query = PageQuery::of_prefix(pattern.slice(..literal), MAX_KEYS);
            let range = Range {
                from: query.from,
                to: query.to,
                limit: MAX_KEYS,
                max_bytes: (KEYS_BYTES / groups).max(64 << 10) as u32,
                values: false,
            };
            let pieces = (0..layout.groups())
                .map(|g| Piece { group: GroupId(g), command: kv::Command::Scan(range.clone()) })
                .collect();
            (pieces, Gather::Keys { pattern, pages: Vec::new() })
        }
    }
}

/// A group's share of `whole`: twice what it would have if keys were spread evenly, for they are not
/// quite; all of it when it is alone.
fn share(whole: usize, least: usize, groups: usize) -> usize {
    (2 * whole / groups).max(least).min(whole)
}

/// The first key behind `key`.
fn behind(key: &Bytes) -> Bytes {
    [&key[..], &[0]].concat().into()
}

fn last_page() -> Reply {
    Reply::Array(vec![Reply::bulk(""), Reply::Array(Vec::new())])
}

impl Gather {
    /// Takes what one group has answered.
    pub(super) fn take(&mut self, outcome: Outcome) {
        match (self, outcome) {
            (Gather::Page { pages, .. } | Gather::Keys { pages, .. }, Outcome::Page(page)) => {
                pages.push(page)
            }
            (Gather::Scan { found, .. }, Outcome::Walked { keys, next }) => *found = Some((keys, next)),
            // A leader of another version; the reply says so.
            (gather, outcome) => {
                tracing::error!(?outcome, "an outcome of the wrong kind");
                let why = "a group gave an answer that this node does not understand; nothing was applied";
                *gather = Gather::Known(ErrorReply::new(ErrorClass::TryAgain, why).into());
            }
        }
    }

    /// The reply, once all have answered.
    pub(super) fn reply(self) -> Reply {
        match self {
            Gather::Page { query, pages } if query.alone => alone(&query, pages),
            Gather::Page { query, pages } => {
                let (items, next) = merge(pages, query.limit as usize, PAGE_BYTES);
                page(items, next)
            }
            Gather::Scan { group, last, pattern, found } => {
                let (keys, next) = found.unwrap_or_default();
                let next = match next {
                    Some(place) => Cursor { group, place },
                    None if last => Cursor::default(),
                    None => Cursor { group: GroupId(group.0 + 1), place: 0 },
                };
                let matching = |key: &Bytes| pattern.as_ref().is_none_or(|p| glob::matches(p, key, false));
                let keys = keys.into_iter().filter(matching).map(Reply::Bulk).collect();
                Reply::Array(vec![Reply::bulk(next.to_number().to_string()), Reply::Array(keys)])
            }
            Gather::Keys { pattern, pages } => keys(&pattern, pages),
            Gather::Known(reply) => reply,
        }
    }
}

/// Items of a page: keys with their values.
type Items = Vec<(Bytes, Option<Bytes>)>;

/// One page out of those of the groups: up to the first key that some group has not told of, every
/// group has told all that it has. Within that, the first `limit` keys, and as many as `max_bytes` take,
/// but one at least. Also where the next page begins.
fn merge(pages: Vec<Page>, limit: usize, max_bytes: usize) -> (Items, Option<PageToken>) {
    let end = pages.iter().filter_map(|page| Some((page.next.clone()?, page.large))).min();
    let mut items: Items = pages.into_iter().flat_map(|page| page.items).collect();
    items.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    if let Some((end, _)) = &end {
        items.truncate(items.partition_point(|(key, _)| key < end));
    }
    let (mut count, mut bytes) = (0, 0);
    for (key, value) in items.iter().take(limit) {
        bytes += ITEM_COST + key.len() + value.as_ref().map_or(0, Bytes::len);
        if count > 0 && bytes > max_bytes {
            break;
        }
        count += 1;
    }
    let next = match items.get(count) {
        Some((key, _)) => Some(PageToken { from: key.clone(), alone: false }),
        None => end.map(|(from, alone)| PageToken { from, alone }),
    };
    items.truncate(count);
    (items, next)
}

/// The page of one key whose value is too large for pages of many.
fn alone(query: &PageQuery, pages: Vec<Page>) -> Reply {
    let items = pages.into_iter().flat_map(|page| page.items).collect();
    let from = behind(&query.from);
    let more = query.to.as_ref().is_none_or(|to| from < *to);
    page(items, more.then_some(PageToken { from, alone: false }))
}

fn page(items: Items, next: Option<PageToken>) -> Reply {
    let flat = items.into_iter().flat_map(|(key, value)| [Reply::Bulk(key), Reply::bulk_or_nil(value)]);
    Reply::Array(vec![
        Reply::bulk(next.map_or(String::new(), |token| token.to_text())),
        Reply::Array(flat.collect()),
    ])
}

fn keys(pattern: &Bytes, pages: Vec<Page>) -> Reply {
    let partial = pages.iter().any(|page| page.next.is_some());
    let all = pages.into_iter().flat_map(|page| page.items).map(|(key, _)| key);
    let mut keys: Vec<Bytes> = all.filter(|key| glob::matches(pattern, key, false)).collect();
    if partial || keys.len() > MAX_KEYS as usize {
        return ErrorReply::err(format!(
            "KEYS answers at most {MAX_KEYS} keys and there are more to go through; nothing was applied; use SCAN with \
             MATCH, or PREFIX"
        ))
        .into();
    }
    keys.sort_unstable();
    Reply::Array(keys.into_iter().map(Reply::Bulk).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn bytes(text: &str) -> Bytes {
        Bytes::from(text.to_owned())
    }

    fn page_of(keys: &[&str], next: Option<&str>, large: bool) -> Page {
        let items = keys.iter().map(|key| (bytes(key), Some(bytes("v")))).collect();
        Page { items, next: next.map(bytes), large }
    }

    fn names(items: &Items) -> Vec<String> {
        items.iter().map(|(key, _)| String::from_utf8_lossy(key).into_owned()).collect()
    }

    #[test]
    fn a_page_goes_as_far_as_every_group_has_told() {
        let pages = || vec![page_of(&["a", "e"], Some("f"), false), page_of(&["b", "c"], Some("d"), false)];
        let (items, next) = merge(pages(), 10, PAGE_BYTES);
        assert_eq!(names(&items), ["a", "b", "c"], "e may have a neighbour in the second group");
        assert_eq!(next, Some(PageToken { from: bytes("d"), alone: false }));
        let (items, next) = merge(pages(), 2, PAGE_BYTES);
        assert_eq!((names(&items).join(""), next.map(|t| t.from)), ("ab".into(), Some(bytes("c"))));
        let (items, next) = merge(pages(), 10, 2 * (ITEM_COST + 2));
        assert_eq!((names(&items).join(""), next.map(|t| t.from)), ("ab".into(), Some(bytes("c"))));
        let (items, next) = merge(vec![page_of(&["a"], None, false), page_of(&[], None, false)], 10, 1);
        assert_eq!((names(&items).join(""), next), ("a".into(), None));
    }

    #[test]
    fn a_large_value_comes_alone() {
        let pages = vec![page_of(&["a"], Some("b"), true), page_of(&["c"], None, false)];
        let (items, next) = merge(pages, 10, PAGE_BYTES);
        assert_eq!(names(&items), ["a"]);
        assert_eq!(next, Some(PageToken { from: bytes("b"), alone: true }));

        let layout = Layout::new(vec![groups::ids::NodeId(1)], 16, 1);
        let query = PageQuery { from: bytes("b"), to: Some(bytes("z")), limit: 10, alone: true };
        let (pieces, mut gather) = plan(Ordered::Page(query), &layout);
        assert_eq!(pieces.len(), 1);
        assert_eq!(pieces[0].group, layout.group_of(slot_of(b"b")));
        gather.take(Outcome::Page(page_of(&["b"], None, false)));
        let token = PageToken { from: bytes("b\0"), alone: false }.to_text();
        let flat = vec![Reply::bulk("b"), Reply::bulk("v")];
        assert_eq!(gather.reply(), Reply::Array(vec![Reply::bulk(token), Reply::Array(flat)]));
    }

    #[test]
    fn what_needs_no_group_asks_none() {
        let layout = Layout::new(vec![groups::ids::NodeId(1)], 4, 1);
        let query = PageQuery { from: bytes("b"), to: Some(bytes("a")), limit: 10, alone: false };
        let (pieces, gather) = plan(Ordered::Page(query), &layout);
        assert!(pieces.is_empty());
        assert_eq!(gather.reply(), last_page());
    }

    proptest! {
        /// Over any spread of keys and any sizes, following the tokens meets every key once, in order.
        #[test]
        fn tokens_lead_through_everything(
            held in proptest::collection::btree_map("[a-c]{0,4}", (0..4_u32, 0..300_usize), 0..60),
            limit in 1..12_usize,
            max_bytes in 1..900_usize,
            share in 1..500_u32,
        ) {
            // A state machine of its own for each group is what `groups` tests; here a plain page will do.
            let page = |group: u32, from: &Bytes, range_limit: u32, range_bytes: u32| {
                let mut page = Page::default();
                let mut left = range_bytes as usize;
                for (key, (at, size)) in &held {
                    if *at != group || key.as_bytes() < &from[..] {
                        continue;
                    }
                    let cost = ITEM_COST + key.len() + size;
                    if page.items.len() >= range_limit as usize || cost > left {
                        page.next = Some(bytes(key));
                        page.large = cost > range_bytes as usize;
                        break;
                    }
                    left -= cost;
                    page.items.push((bytes(key), Some(Bytes::from(vec![0; *size]))));
                }
                page
            };
            let mut seen: BTreeMap<Bytes, usize> = BTreeMap::new();
            let mut next = Some(PageToken { from: Bytes::new(), alone: false });
            let mut last: Option<Bytes> = None;
            while let Some(token) = next.take() {
                let (items, then) = if token.alone {
                    let group = held[std::str::from_utf8(&token.from).expect("of these keys")].0;
                    let items = page(group, &token.from, 1, u32::MAX).items;
                    (items, Some(PageToken { from: behind(&token.from), alone: false }))
                } else {
                    let pages = (0..4).map(|g| page(g, &token.from, limit as u32, share)).collect();
                    merge(pages, limit, max_bytes)
                };
                prop_assert!(items.len() <= limit);
                prop_assert!(!items.is_empty() || then.as_ref().is_none_or(|t| t.alone), "no progress");
                for (key, value) in items {
                    prop_assert!(last.as_ref().is_none_or(|last| *last < key), "{:?} behind {:?}", key, last);
                    last = Some(key.clone());
                    seen.insert(key, value.map_or(0, |v| v.len()));
                }
                next = then;
            }
            let all: BTreeMap<Bytes, usize> = held.iter().map(|(key, (_, size))| (bytes(key), *size)).collect();
            prop_assert_eq!(seen, all);
        }
    }
}
