//! Lines typed by people: words separated by blanks, with quotes where a word needs them.

use bytes::{BufMut, Bytes, BytesMut};

use super::args::{Args, Spans};

/// Splits a line, its end already taken off, into words. `None` if a quote is not closed, or is
/// closed in the middle of a word.
///
/// Between double quotes `\n \r \t \b \a \\ \"` and `\xHH` mean what they do in C, and any other
/// character behind a backslash means itself; between single quotes only `\'` is special. This is
/// Redis' `sdssplitargs`.
pub(crate) fn split(line: Bytes) -> Option<Args> {
    match line.iter().any(|byte| matches!(byte, b'"' | b'\'')) {
        true => unquote(&line),
        false => Some(plain(line)),
    }
}

/// Words without quotes lie in the line as they are.
fn plain(line: Bytes) -> Args {
    let mut spans = Spans::default();
    let mut start = None;
    for (at, byte) in line.iter().enumerate() {
        match (start, blank(*byte)) {
            (None, false) => start = Some(at),
            (Some(from), true) => {
                spans.push((from as u32, at as u32));
                start = None;
            }
            _ => {}
        }
    }
    if let Some(from) = start {
        spans.push((from as u32, line.len() as u32));
    }
    Args::new(line, spans)
}

fn unquote(mut rest: &[u8]) -> Option<Args> {
    let mut words = BytesMut::with_capacity(rest.len());
    let mut spans = Spans::default();
    loop {
        while let [first, behind @ ..] = rest
            && blank(*first)
        {
            rest = behind;
        }
        if rest.is_empty() {
            return Some(Args::new(words.freeze(), spans));
        }
        let start = words.len() as u32;
        rest = word(rest, &mut words)?;
        spans.push((start, words.len() as u32));
    }
}

/// Appends the first word of `rest` to `out`. Returns what is behind it.
fn word<'a>(mut rest: &'a [u8], out: &mut BytesMut) -> Option<&'a [u8]> {
    loop {
        match rest {
            [] => return Some(rest),
            [byte, ..] if blank(*byte) => return Some(rest),
            [b'"', inner @ ..] => return closed(double_quoted(inner, out)?),
            [b'\'', inner @ ..] => return closed(single_quoted(inner, out)?),
            [byte, behind @ ..] => {
                out.put_u8(*byte);
                rest = behind;
            }
        }
    }
}

/// A closing quote must end the word.
fn closed(rest: &[u8]) -> Option<&[u8]> {
    rest.first().is_none_or(|byte| blank(*byte)).then_some(rest)
}

fn double_quoted<'a>(mut rest: &'a [u8], out: &mut BytesMut) -> Option<&'a [u8]> {
    loop {
        match rest {
            [] => return None,
            [b'"', behind @ ..] => return Some(behind),
            [b'\\', b'x', high, low, behind @ ..] if hex(*high).is_some() && hex(*low).is_some() => {
                out.put_u8(hex(*high)? << 4 | hex(*low)?);
                rest = behind;
            }
            [b'\\', escaped, behind @ ..] => {
                out.put_u8(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 0x08,
                    b'a' => 0x07,
                    other => *other,
                });
                rest = behind;
            }
            [byte, behind @ ..] => {
                out.put_u8(*byte);
                rest = behind;
            }
        }
    }
}

fn single_quoted<'a>(mut rest: &'a [u8], out: &mut BytesMut) -> Option<&'a [u8]> {
    loop {
        match rest {
            [] => return None,
            [b'\'', behind @ ..] => return Some(behind),
            [b'\\', b'\'', behind @ ..] => {
                out.put_u8(b'\'');
                rest = behind;
            }
            [byte, behind @ ..] => {
                out.put_u8(*byte);
                rest = behind;
            }
        }
    }
}

/// The value of a hexadecimal digit.
pub(crate) fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

/// C's `isspace`.
fn blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        type Words = Option<&'static [&'static [u8]]>;
        let cases: [(&[u8], Words); 19] = [
            (b"", Some(&[])),
            (b"  \t ", Some(&[])),
            (b"get k", Some(&[b"get", b"k"])),
            (b"  get \t k  ", Some(&[b"get", b"k"])),
            (b"set k \"a b\"", Some(&[b"set", b"k", b"a b"])),
            (b"set k \"\"", Some(&[b"set", b"k", b""])),
            (b"set k ''", Some(&[b"set", b"k", b""])),
            (br#"set k "\x00\xfF\n\r\t\\\"""#, Some(&[b"set", b"k", b"\x00\xff\n\r\t\\\""])),
            (br#"set k "\xZZ\q""#, Some(&[b"set", b"k", b"xZZq"])),
            (br"set k 'a\'b\n'", Some(&[b"set", b"k", b"a'b\\n"])),
            (br"set k\n v", Some(&[b"set", b"k\\n", b"v"])),
            (b"set pre\"quoted\" v", Some(&[b"set", b"prequoted", b"v"])),
            (b"set k \xff\xfe", Some(&[b"set", b"k", b"\xff\xfe"])),
            (b"set k \"open", None),
            (b"set k 'open", None),
            (b"set k \"a\"b", None),
            (b"set k 'a'b", None),
            (b"set k \"ends in \\", None),
            (b"set k \"\\x4", None),
        ];
        for (line, expected) in cases {
            let args = split(Bytes::copy_from_slice(line));
            let words = args.as_ref().map(|args| args.iter().collect::<Vec<_>>());
            assert_eq!(words.as_deref(), expected, "{:?}", line.escape_ascii().to_string());
        }
    }
}
