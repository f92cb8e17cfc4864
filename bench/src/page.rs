//! The answer to a scan: `[token, [key, value, key, value, …]]`. The keys of the load were all put before and are never
//! deleted, so none of them may be left out.

use crate::ledger::describe;
use crate::payload::Layout;
use crate::resp::{Items, Reply};

/// What a page held.
#[derive(Debug, PartialEq, Eq)]
pub struct Page {
    /// Keys of the load.
    pub keys: u32,
    /// The first thing in it that cannot be right.
    pub wrong: Option<String>,
}

/// Reads the page that was asked for from key number `first` on with `wanted` keys. `None` if it is no page. A page may
/// be shorter than asked, as long as it says where to go on.
pub fn read(layout: &Layout, first: u32, wanted: u32, reply: &Items<'_>) -> Option<Page> {
    let mut parts = reply.clone();
    let (Some(Reply::Bulk(token)), Some(Reply::Array(mut items)), None) =
        (parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    let mut page = Page { keys: 0, wrong: None };
    while let Some(key) = items.next() {
        let (Reply::Bulk(key), Some(Reply::Bulk(value))) = (key, items.next()) else { return None };
        // What others keep in the same store may lie between.
        let Some(number) = layout.number(key) else { continue };
        let due = u64::from(first) + u64::from(page.keys);
        page.keys += 1;
        if page.wrong.is_some() {
            continue;
        }
        let begin = layout.key(first);
        let begin = begin.escape_ascii();
        if number != due {
            let (due, key) = (layout.key(due as u32), key.escape_ascii());
            page.wrong =
                Some(format!("a scan from {begin} returned {key} where {} was due", due.escape_ascii()));
        } else if let Err(wrong) = layout.sequence(number as u32, value) {
            page.wrong =
                Some(format!("a scan from {begin}: {}", describe(layout, number as u32, wrong, value)));
        }
    }
    if token.is_empty() && page.keys < wanted && page.wrong.is_none() {
        let begin = layout.key(first);
        let begin = begin.escape_ascii();
        page.wrong =
            Some(format!("a scan from {begin} ended after {} of {wanted} keys that had been put", page.keys));
    }
    Some(page)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::{Scanned, scan};

    fn bulk(bytes: &[u8]) -> Vec<u8> {
        [format!("${}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
    }

    fn page(token: &[u8], items: &[(Vec<u8>, Vec<u8>)]) -> Option<Page> {
        let layout = layout();
        let mut wire = [b"*2\r\n", bulk(token).as_slice()].concat();
        wire.extend_from_slice(format!("*{}\r\n", items.len() * 2).as_bytes());
        for (key, value) in items {
            wire.extend([bulk(key), bulk(value)].concat());
        }
        let Scanned::Reply(Reply::Array(items), length) = scan(&wire) else { panic!("an array") };
        assert_eq!(length, wire.len());
        read(&layout, 7, 3, &items)
    }

    fn layout() -> Layout {
        Layout::new(100, 16, 100, None).expect("the default sizes")
    }

    /// A key with the value of key `of`.
    fn item(number: u32, of: u32) -> (Vec<u8>, Vec<u8>) {
        let layout = layout();
        (layout.key(number), layout.value(of, 1))
    }

    fn story(page: Option<Page>) -> String {
        page.and_then(|page| page.wrong).expect("wrong")
    }

    #[test]
    fn whole_pages_and_short_ones_with_a_token_are_right() {
        let right = |keys| Some(Page { keys, wrong: None });
        assert_eq!(page(b"", &[item(7, 7), item(8, 8), item(9, 9)]), right(3));
        assert_eq!(page(b"token", &[item(7, 7)]), right(1));
        assert_eq!(page(b"token", &[]), right(0));
        let foreign = (b"k0000000000000007x".to_vec(), b"?".to_vec());
        assert_eq!(page(b"", &[item(7, 7), foreign, item(8, 8), item(9, 9)]), right(3));
    }

    #[test]
    fn a_page_that_cannot_be_right_is_told() {
        assert!(
            story(page(b"", &[item(7, 7), item(9, 9), item(10, 10)])).contains("where k000000000000008 was")
        );
        assert!(story(page(b"t", &[item(8, 8)])).contains("where k000000000000007 was"));
        assert!(story(page(b"", &[item(7, 7), item(8, 8)])).contains("ended after 2 of 3"));
        assert!(story(page(b"t", &[item(7, 5)])).contains("of key number 5"));
    }

    #[test]
    fn what_is_no_page_is_refused() {
        let Scanned::Reply(Reply::Array(items), _) = scan(b"*2\r\n$0\r\n\r\n*1\r\n$1\r\nk\r\n") else {
            panic!("an array")
        };
        assert_eq!(read(&layout(), 7, 3, &items), None);
        let Scanned::Reply(Reply::Array(items), _) = scan(b"*1\r\n$0\r\n\r\n") else { panic!("an array") };
        assert_eq!(read(&layout(), 7, 3, &items), None);
    }
}
