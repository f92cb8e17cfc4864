//! Tab-separated lines: `key TAB value` or `key TAB value TAB milliseconds`.
//!
//! Inside a word `\n \r \t \\ \"` and `\xHH` mean what they mean in the line protocol; a backslash
//! before anything else is an error, because it would be lost. Bytes that are no UTF-8 are written
//! as `\xHH`, so that a dump is a text file.

use crate::client::bulk::Put;
use crate::protocol::hex_digit;

/// Appends a line.
pub fn write(key: &[u8], value: &[u8], life: Option<u64>, out: &mut Vec<u8>) {
    escape(key, out);
    out.push(b'\t');
    escape(value, out);
    if let Some(life) = life {
        out.push(b'\t');
        out.extend_from_slice(life.to_string().as_bytes());
    }
    out.push(b'\n');
}

/// Reads a line that is not empty.
pub(super) fn read(line: &[u8]) -> Result<Put, String> {
    let mut words = line.split(|byte| *byte == b'\t');
    let (key, Some(value)) = (words.next().unwrap_or_default(), words.next()) else {
        return Err("there is no tab between a key and a value".to_owned());
    };
    let life = match words.next() {
        None | Some(b"") => None,
        Some(word) => Some(life(word)?),
    };
    if words.next().is_some() {
        return Err("there are more than three columns; a tab inside a word is written as \\t".to_owned());
    }
    Ok(Put { key: unescape(key)?, value: unescape(value)?, life })
}

fn life(word: &[u8]) -> Result<u64, String> {
    let number = std::str::from_utf8(word).ok().and_then(|text| text.parse().ok());
    number.filter(|life| *life > 0).ok_or_else(|| {
        format!(
            "the third column is \"{}\" and no number of milliseconds from 1 on",
            word[..word.len().min(40)].escape_ascii()
        )
    })
}

fn escape(word: &[u8], out: &mut Vec<u8>) {
    for piece in word.utf8_chunks() {
        for byte in piece.valid().bytes() {
            match byte {
                b'\n' => out.extend_from_slice(b"\\n"),
                b'\r' => out.extend_from_slice(b"\\r"),
                b'\t' => out.extend_from_slice(b"\\t"),
                b'\\' => out.extend_from_slice(b"\\\\"),
                0..0x20 | 0x7f => hex(byte, out),
                _ => out.push(byte),
            }
        }
        piece.invalid().iter().for_each(|byte| hex(*byte, out));
    }
}

fn hex(byte: u8, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("\\x{byte:02x}").as_bytes());
}

fn unescape(word: &[u8]) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(word.len());
    let mut rest = word;
    loop {
        match rest {
            [] => return Ok(out),
            [b'\\', b'x', high, low, behind @ ..]
                if let (Some(high), Some(low)) = (hex_digit(*high), hex_digit(*low)) =>
            {
                out.push(high << 4 | low);
                rest = behind;
            }
            [b'\\', escaped, behind @ ..] => {
                out.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'\\' => b'\\',
                    b'"' => b'"',
                    other => {
                        return Err(format!(
                            "\\{} is no escape; a backslash is written as \\\\",
                            other.escape_ascii()
                        ));
                    }
                });
                rest = behind;
            }
            [b'\\'] => return Err("a word ends with a backslash, which is written as \\\\".to_owned()),
            [byte, behind @ ..] => {
                out.push(*byte);
                rest = behind;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_as_they_look() {
        for (key, value, life, line) in [
            (&b"k"[..], &b"v"[..], None, "k\tv\n"),
            (b"k", b"", Some(5), "k\t\t5\n"),
            (b"", b"a\tb\nc\rd\\", None, "\ta\\tb\\nc\\rd\\\\\n"),
            ("ä".as_bytes(), b"\xff\x00\x7f\"", None, "ä\t\\xff\\x00\\x7f\"\n"),
        ] {
            let mut out = Vec::new();
            write(key, value, life, &mut out);
            assert_eq!(String::from_utf8(out).expect("text"), line);
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (line, why) in [
            (&b"k"[..], "no tab"),
            (b"k\tv\t0", "milliseconds"),
            (b"k\tv\tsoon", "\"soon\""),
            (b"k\tv\t1\tx", "more than three"),
            (b"C:\\dir\tv", "\\d is no escape"),
            (b"k\tv\\", "ends with a backslash"),
            (b"k\t\\x4", "\\x is no escape"),
        ] {
            let said = read(line).expect_err("an error");
            assert!(said.contains(why), "{said}");
        }
        let put = read(b"k\\x41\t\\\"v\t").expect("an empty life is none");
        assert_eq!(put, Put { key: b"kA".to_vec(), value: b"\"v".to_vec(), life: None });
    }
}
