//! Keys and values. A value names its key and the request that wrote it, so that an answer to the wrong key, a torn
//! value and one that nobody wrote are all noticed.
//!
//! ```text
//! key    k00000000000004d2          prefix, number in hex padded to the key size
//! value  004d2.00000012f.abcdefgh…  key number in hex, sequence number in hex, filler that is always the same
//! ```

use crate::Failure;

/// Hex digits of a sequence number; 68 thousand million requests.
const SEQUENCE_DIGITS: usize = 9;

/// Hex digits of the largest number of a key.
const MOST_DIGITS: usize = 8;

/// What the keys of counters begin with, instead of the first byte of other keys.
const COUNTER: u8 = b'n';

/// Largest value offered; as many bytes as Redis takes.
const MAX_VALUE: usize = 512 << 20;

/// How keys and values of one run look.
#[derive(Clone, Debug)]
pub struct Layout {
    prefix: Vec<u8>,
    key_size: usize,
    value_size: usize,
    /// Hex digits of a key number inside a value.
    number_digits: usize,
    filler: Vec<u8>,
}

impl Layout {
    /// The layout for `keys` keys, or why they do not fit the sizes. With a `tag` the keys are not those of any other
    /// run, and made longer where that is needed.
    pub fn new(keys: u32, key_size: usize, value_size: usize, tag: Option<u64>) -> Result<Self, Failure> {
        let number_digits = hex_digits(u64::from(keys - 1));
        let prefix = match tag {
            None => b"k".to_vec(),
            Some(tag) => format!("v{tag:012x}-").into_bytes(),
        };
        let needed = prefix.len() + number_digits;
        let key_size = if tag.is_some() { key_size.max(needed) } else { key_size };
        if key_size < needed {
            return Err(Failure(format!(
                "--key-size {key_size} is too small to tell {keys} keys apart; it must be at least {needed}"
            )));
        }
        if key_size > 64 << 10 {
            return Err(Failure(format!("--key-size {key_size} is too large; at most {} bytes", 64 << 10)));
        }
        let header = number_digits + SEQUENCE_DIGITS + 2;
        if value_size < header {
            return Err(Failure(format!(
                "--value-size {value_size} is too small: a value names its key and its write, which takes {header} bytes"
            )));
        }
        if value_size > MAX_VALUE {
            return Err(Failure(format!(
                "--value-size {value_size} is too large; at most {MAX_VALUE} bytes"
            )));
        }
        let filler = (b'a'..=b'z').cycle().take(value_size - header).collect();
        Ok(Layout { prefix, key_size, value_size, number_digits, filler })
    }

    /// The key with this number.
    pub fn key(&self, number: u32) -> Vec<u8> {
        let mut key = vec![b'0'; self.key_size];
        key[..self.prefix.len()].copy_from_slice(&self.prefix);
        write_hex(u64::from(number), &mut key[self.prefix.len()..]);
        key
    }

    /// The counter that goes with this number; values lie under other keys.
    pub fn counter(&self, number: u32) -> Vec<u8> {
        let mut key = self.key(number);
        key[0] = COUNTER;
        key
    }

    /// The number of a key, if it is one of this layout.
    pub fn number(&self, key: &[u8]) -> Option<u64> {
        let digits = key.strip_prefix(self.prefix.as_slice())?;
        // More digits than a key number has could overflow the arithmetic; they are zeros.
        let (zeros, digits) = digits.split_at(digits.len().saturating_sub(MOST_DIGITS));
        let fits = key.len() == self.key_size && zeros.iter().all(|&digit| digit == b'0');
        read_hex(digits).filter(|_| fits)
    }

    /// The value of this key with this sequence number.
    pub fn value(&self, number: u32, sequence: u64) -> Vec<u8> {
        let mut value = Vec::with_capacity(self.value_size);
        value.resize(self.number_digits, b'0');
        value.push(b'.');
        value.resize(value.len() + SEQUENCE_DIGITS, b'0');
        value.push(b'.');
        value.extend_from_slice(&self.filler);
        self.number_value(&mut value, number, sequence);
        value
    }

    /// Changes the key that begins here into that of another number.
    pub fn number_key(&self, key: &mut [u8], number: u32) {
        write_hex(u64::from(number), &mut key[self.prefix.len()..self.key_size]);
    }

    /// Changes the value that begins here into that of another key and sequence number.
    pub fn number_value(&self, value: &mut [u8], number: u32, sequence: u64) {
        write_hex(u64::from(number), &mut value[..self.number_digits]);
        write_hex(sequence, &mut value[self.number_digits + 1..][..SEQUENCE_DIGITS]);
    }

    /// The sequence number of a value of this key, or what is wrong with the value.
    pub fn sequence(&self, number: u32, value: &[u8]) -> Result<u64, WrongValue> {
        if value.len() != self.value_size {
            return Err(WrongValue::Length(value.len()));
        }
        let (head, filler) = value.split_at(self.number_digits + SEQUENCE_DIGITS + 2);
        let (found, rest) = head.split_at(self.number_digits);
        let (sequence, end) = rest[1..].split_at(SEQUENCE_DIGITS);
        let (Some(found), Some(sequence), b'.', b".") = (read_hex(found), read_hex(sequence), rest[0], end)
        else {
            return Err(WrongValue::Form);
        };
        if found != u64::from(number) {
            return Err(WrongValue::OtherKey(found));
        }
        if filler != self.filler {
            return Err(WrongValue::Form);
        }
        Ok(sequence)
    }
}

/// What is wrong with a value that came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WrongValue {
    /// It has this length.
    Length(usize),
    /// It is no value that this program writes.
    Form,
    /// It belongs to the key with this number.
    OtherKey(u64),
}

fn hex_digits(number: u64) -> usize {
    (64 - number.leading_zeros() as usize).div_ceil(4).max(1)
}

/// Right-aligned, padded with zeros; digits that do not fit are lost.
fn write_hex(mut number: u64, digits: &mut [u8]) {
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 15) as usize];
        number >>= 4;
    }
}

fn read_hex(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0_u64, |number, &digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_recognised_and_a_wrong_one_is_told_apart() {
        let layout = Layout::new(100_000, 16, 100, None).expect("the default sizes");
        let value = layout.value(0x1_2345, 0xabc);
        assert!(value.starts_with(b"12345.000000abc.abcdef"));
        assert_eq!(layout.sequence(0x1_2345, &value), Ok(0xabc));
        assert_eq!(layout.sequence(7, &value), Err(WrongValue::OtherKey(0x1_2345)));
        assert_eq!(layout.sequence(0x1_2345, &value[1..]), Err(WrongValue::Length(99)));
        let mut torn = value.clone();
        torn[50] ^= 1;
        assert_eq!(layout.sequence(0x1_2345, &torn), Err(WrongValue::Form));
    }

    #[test]
    fn keys_have_their_numbers_and_counters_are_no_keys() {
        let layout = Layout::new(100_000, 40, 100, None).expect("fits");
        assert_eq!(layout.number(&layout.key(0x1_2345)), Some(0x1_2345));
        assert_eq!(layout.number(&layout.counter(7)), None);
        assert_eq!(layout.number(b"k7"), None);
        assert_eq!(layout.number(&[b"k1".as_slice(), &[b'0'; 38]].concat()), None);
    }

    #[test]
    fn sizes_that_cannot_hold_what_they_must_are_refused_with_the_least_that_can() {
        let reason = |keys, key, value| Layout::new(keys, key, value, None).expect_err("too small").0;
        assert!(reason(100_000, 5, 100).contains("at least 6"));
        assert!(reason(100_000, 16, 15).contains("takes 16 bytes"));
        assert!(Layout::new(100_000, 6, 16, None).is_ok());
        assert!(Layout::new(1, 2, 12, None).is_ok());
    }

    #[test]
    fn tagged_keys_make_room_for_their_tag() {
        let layout = Layout::new(16, 4, 100, Some(0xbeef)).expect("grows");
        assert_eq!(layout.key(15), b"v00000000beef-f");
    }
}
