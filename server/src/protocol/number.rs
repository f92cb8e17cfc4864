//! Decimal integers exactly as Redis reads them: no plus sign, no leading zeros, no blanks.

use bytes::{BufMut, BytesMut};

/// Reads a signed integer. `None` for anything that is not the one canonical spelling of an
/// `i64`, as Redis' `string2ll` does.
pub(super) fn integer(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    let magnitude = unsigned(digits)?;
    match negative {
        true if magnitude == 0 => None,
        true if magnitude <= i64::MIN.unsigned_abs() => Some(magnitude.wrapping_neg() as i64),
        true => None,
        false => i64::try_from(magnitude).ok(),
    }
}

/// Reads an unsigned integer in its canonical spelling.
pub(super) fn unsigned(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || (digits[0] == b'0' && digits.len() > 1) {
        return None;
    }
    digits.iter().try_fold(0u64, |sum, digit| {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        sum.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// Appends `value` in decimal.
pub(super) fn write_integer(out: &mut BytesMut, value: i64) {
    let mut digits = [0u8; 20];
    let mut start = digits.len();
    let mut rest = value.unsigned_abs();
    loop {
        start -= 1;
        digits[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        start -= 1;
        digits[start] = b'-';
    }
    out.put_slice(&digits[start..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling_per_integer() {
        for (text, value) in [
            ("0", Some(0)),
            ("7", Some(7)),
            ("-1", Some(-1)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("-9223372036854775809", None),
            ("99999999999999999999999", None),
            ("", None),
            ("-", None),
            ("-0", None),
            ("+1", None),
            ("01", None),
            (" 1", None),
            ("1 ", None),
            ("1.5", None),
            ("0x10", None),
        ] {
            assert_eq!(integer(text.as_bytes()), value, "{text:?}");
            if let Some(value) = value {
                let mut out = BytesMut::new();
                write_integer(&mut out, value);
                assert_eq!(&out[..], text.as_bytes());
            }
        }
    }
}
