//! Which of the 16 384 slots a key belongs to, exactly as in Redis Cluster, so that
//! cluster-aware clients compute the same answer on their side.

use crate::ids::Slot;

/// How many slots the key space is cut into.
pub const SLOTS: u16 = 16_384;

/// The slot of `key`: CRC16 of the key, or of its `{tag}` where it has one, modulo [`SLOTS`].
///
/// Only the first `{` counts, up to the first `}` behind it, and an empty tag is no tag.
#[must_use]
pub fn slot_of(key: &[u8]) -> Slot {
    Slot(crc16(tag(key)) % SLOTS)
}

/// The part of a key that decides its slot.
fn tag(key: &[u8]) -> &[u8] {
    let Some(open) = key.iter().position(|byte| *byte == b'{') else { return key };
    let inner = &key[open + 1..];
    match inner.iter().position(|byte| *byte == b'}') {
        None | Some(0) => key,
        Some(close) => &inner[..close],
    }
}

/// The slot of every key that begins with `prefix`, if they all have the same `{tag}`.
#[must_use]
pub fn pinned_slot(prefix: &[u8]) -> Option<Slot> {
    // A tag that is closed within the prefix is that of every key; without one the whole key counts.
    (tag(prefix).len() < prefix.len()).then(|| slot_of(prefix))
}

/// CRC-16/XMODEM: polynomial 0x1021, initial value 0, not reflected.
#[must_use]
pub fn crc16(data: &[u8]) -> u16 {
    data.iter().fold(0, |crc, byte| (crc << 8) ^ TABLE[usize::from((crc >> 8) as u8 ^ byte)])
}

const TABLE: [u16; 256] = table();

const fn table() -> [u16; 256] {
    let mut table = [0u16; 256];
    let mut index = 0;
    while index < 256 {
        let mut crc = (index as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 != 0 { (crc << 1) ^ 0x1021 } else { crc << 1 };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_vectors() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
        assert_eq!(crc16(b""), 0);
        for (key, slot) in [
            ("foo", 12182),
            ("bar", 5061),
            ("hello", 866),
            ("somekey", 11058),
            ("foo{hash_tag}", 2515),
            ("bar{hash_tag}", 2515),
            ("", 0),
        ] {
            assert_eq!(slot_of(key.as_bytes()), Slot(slot), "{key:?}");
        }
    }

    #[test]
    fn a_prefix_with_a_tag_has_one_slot() {
        for (prefix, pinned) in [
            ("{user7}", true),
            ("{user7}:mail", true),
            ("a{b}", true),
            ("{user7", false),
            ("{}", false),
            ("{}{a}", false),
            ("user7", false),
            ("", false),
        ] {
            let slot = pinned_slot(prefix.as_bytes());
            assert_eq!(slot.is_some(), pinned, "{prefix:?}");
            for rest in ["", "x", "{y}", "}"] {
                let key = format!("{prefix}{rest}");
                assert!(slot.is_none_or(|slot| slot == slot_of(key.as_bytes())), "{key:?}");
            }
        }
    }

    #[test]
    fn tags() {
        for (key, tag) in [
            ("{user1000}.following", "user1000"),
            ("{user1000}.followers", "user1000"),
            ("foo{}{bar}", "foo{}{bar}"),
            ("foo{{bar}}zap", "{bar"),
            ("foo{bar}{zap}", "bar"),
            ("foo{bar", "foo{bar"),
            ("foo}bar{", "foo}bar{"),
        ] {
            assert_eq!(slot_of(key.as_bytes()).0, crc16(tag.as_bytes()) % SLOTS, "{key:?}");
        }
    }
}
