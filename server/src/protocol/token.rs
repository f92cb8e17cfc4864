//! Places that a client carries from one request to the next, on any node and at any later time: a
//! letter that says of what kind it is, and bytes in the alphabet that needs no quoting anywhere. A
//! checksum at their end tells a token that lost a letter from one that was given out here.

use bytes::Bytes;

use groups::kv::slot::{SLOTS, crc16};

use crate::base64::Alphabet;

/// Where the next page of a range begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageToken {
    /// The first key that may be in it.
    pub from: Bytes,
    /// That key has to come alone: no page that others share takes its value.
    pub alone: bool,
}

/// How far a watch has come: the revision of each group that it watches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The first group.
    pub first: u32,
    /// The revisions of that group and those behind it.
    pub revisions: Vec<u64>,
}

const PAGE: u8 = b'r';
const POSITION: u8 = b'w';

impl PageToken {
    /// The token as text.
    #[must_use]
    pub fn to_text(&self) -> String {
        text(PAGE, [&[u8::from(self.alone)], &self.from[..]].concat())
    }

    /// Reads a token; `None` for anything that is none.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<PageToken> {
        let bytes = Bytes::from(bytes(PAGE, text)?);
        let alone = match bytes.first()? {
            0 => false,
            1 => true,
            _ => return None,
        };
        Some(PageToken { from: bytes.slice(1..), alone })
    }
}

impl Position {
    /// The token as text.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut out = Vec::with_capacity(8 + 4 * self.revisions.len());
        put_number(&mut out, u64::from(self.first));
        put_number(&mut out, self.revisions.len() as u64);
        self.revisions.iter().for_each(|revision| put_number(&mut out, *revision));
        text(POSITION, out)
    }

    /// Reads a token; `None` for anything that is none.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Position> {
        let bytes = bytes(POSITION, text)?;
        let mut rest = &bytes[..];
        let first = u32::try_from(number(&mut rest)?).ok()?;
        let count = usize::try_from(number(&mut rest)?).ok()?;
        // Each takes a byte at least: what cannot be there allocates nothing.
        if count > usize::from(SLOTS) || count > rest.len() {
            return None;
        }
        let revisions = (0..count).map(|_| number(&mut rest)).collect::<Option<Vec<u64>>>()?;
        rest.is_empty().then_some(Position { first, revisions })
    }
}

/// Seven bits in each byte, the lowest first; the highest bit says that more follow.
fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn number(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, behind) = rest.split_first()?;
        *rest = behind;
        let part = u64::from(byte & 0x7f);
        if part << shift >> shift != part {
            return None;
        }
        number |= part << shift;
        if byte & 0x80 == 0 {
            // One spelling for each number.
            return (part != 0 || shift == 0).then_some(number);
        }
    }
    None
}

fn text(kind: u8, mut bytes: Vec<u8>) -> String {
    let sum = crc16(&[&[kind], &bytes[..]].concat());
    bytes.extend_from_slice(&sum.to_be_bytes());
    let mut text = String::with_capacity(2 + bytes.len() * 4 / 3);
    text.push(char::from(kind));
    Alphabet::Url.encode(&bytes, &mut text);
    text
}

fn bytes(kind: u8, text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Alphabet::Url.decode(text.strip_prefix(&[kind])?)?;
    let payload = bytes.len().checked_sub(2)?;
    let sum = crc16(&[&[kind], &bytes[..payload]].concat());
    let told = bytes.split_off(payload);
    (told == sum.to_be_bytes()).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_text_of_a_token_is_for_ever() {
        let page = PageToken { from: Bytes::from_static(b"user:7"), alone: false };
        assert_eq!(page.to_text(), PAGE_TEXT);
        let position = Position { first: 0, revisions: vec![0, 127, 128, u64::MAX] };
        assert_eq!(position.to_text(), POSITION_TEXT);
    }

    const PAGE_TEXT: &str = "rAHVzZXI6NzV2";
    const POSITION_TEXT: &str = "wAAQAf4AB____________ASik";

    #[test]
    fn what_is_no_token_is_none() {
        let good = PageToken { from: Bytes::from_static(b"k"), alone: true }.to_text();
        for text in ["", "r", "w", "rA", "rAA", "rAAA", "rAAAA", "r===", &good[..good.len() - 1], &good[1..]]
        {
            assert_eq!(PageToken::parse(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(Position::parse(good.as_bytes()), None, "of another kind");
        // As many groups as there cannot be, in a token whose checksum is right.
        let mut many = Vec::new();
        put_number(&mut many, 0);
        put_number(&mut many, 1 << 40);
        assert_eq!(Position::parse(text(POSITION, many).as_bytes()), None);
    }

    proptest! {
        #[test]
        fn a_page_token_comes_back(from: Vec<u8>, alone: bool) {
            let token = PageToken { from: from.into(), alone };
            prop_assert_eq!(PageToken::parse(token.to_text().as_bytes()), Some(token));
        }

        #[test]
        fn a_position_comes_back(first in 0..20_000_u32, revisions in proptest::collection::vec(any::<u64>(), 0..40)) {
            let position = Position { first, revisions };
            let text = position.to_text();
            prop_assert_eq!(Position::parse(text.as_bytes()), Some(position));
        }

        #[test]
        fn a_token_has_one_spelling(text in "[rw][A-Za-z0-9_-]{0,24}") {
            if let Some(token) = PageToken::parse(text.as_bytes()) {
                prop_assert_eq!(token.to_text(), text);
            } else if let Some(position) = Position::parse(text.as_bytes()) {
                prop_assert_eq!(position.to_text(), text);
            }
        }
    }
}
