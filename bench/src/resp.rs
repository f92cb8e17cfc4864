//! The replies of a RESP server, as far as puts and gets need them.

/// Longest line that a server may send; an error text is the longest.
const MAX_LINE: usize = 64 << 10;

/// One reply.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    /// `+…`
    Simple(&'a [u8]),
    /// `-…`, without the dash.
    Error(&'a [u8]),
    /// `$…`
    Bulk(&'a [u8]),
    /// `$-1` or `_`
    Nil,
}

/// What stands at the beginning of the bytes received.
#[derive(Debug, PartialEq, Eq)]
pub enum Scanned<'a> {
    /// A reply of this many bytes.
    Reply(Reply<'a>, usize),
    /// The beginning of one.
    Incomplete,
    /// No reply that a put or a get can have.
    Malformed,
}

/// Reads one reply.
pub fn scan(bytes: &[u8]) -> Scanned<'_> {
    let Some(&mark) = bytes.first() else { return Scanned::Incomplete };
    let Some(end) = bytes.iter().take(MAX_LINE).position(|&byte| byte == b'\n') else {
        return if bytes.len() >= MAX_LINE { Scanned::Malformed } else { Scanned::Incomplete };
    };
    if end < 2 || bytes[end - 1] != b'\r' {
        return Scanned::Malformed;
    }
    let (line, after) = (&bytes[1..end - 1], end + 1);
    match mark {
        b'+' => Scanned::Reply(Reply::Simple(line), after),
        b'-' => Scanned::Reply(Reply::Error(line), after),
        b'_' if line.is_empty() => Scanned::Reply(Reply::Nil, after),
        b'$' if line == b"-1" => Scanned::Reply(Reply::Nil, after),
        b'$' => match length(line) {
            Some(length) => bulk(bytes, after, length),
            None => Scanned::Malformed,
        },
        _ => Scanned::Malformed,
    }
}

fn bulk(bytes: &[u8], start: usize, length: usize) -> Scanned<'_> {
    match bytes.get(start..start + length + 2) {
        Some(body) if body.ends_with(b"\r\n") => {
            Scanned::Reply(Reply::Bulk(&body[..length]), start + length + 2)
        }
        Some(_) => Scanned::Malformed,
        None => Scanned::Incomplete,
    }
}

/// At most 512 MiB, as Redis has it.
fn length(digits: &[u8]) -> Option<usize> {
    let valid = !digits.is_empty() && digits.len() <= 9 && digits.iter().all(u8::is_ascii_digit);
    let length = digits.iter().fold(0, |sum, digit| sum * 10 + usize::from(digit.wrapping_sub(b'0')));
    (valid && length <= 512 << 20).then_some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reply_is_read_at_every_cut() {
        let replies: [(&[u8], Reply<'_>); 6] = [
            (b"+OK\r\n", Reply::Simple(b"OK")),
            (b"-TRYAGAIN group=5 moving\r\n", Reply::Error(b"TRYAGAIN group=5 moving")),
            (b"$5\r\na\r\nbc\r\n", Reply::Bulk(b"a\r\nbc")),
            (b"$0\r\n\r\n", Reply::Bulk(b"")),
            (b"$-1\r\n", Reply::Nil),
            (b"_\r\n", Reply::Nil),
        ];
        for (wire, reply) in replies {
            for cut in 0..wire.len() {
                assert_eq!(scan(&wire[..cut]), Scanned::Incomplete, "{cut} bytes of {}", wire.escape_ascii());
            }
            let followed = [wire, b"+next\r\n"].concat();
            assert_eq!(scan(&followed), Scanned::Reply(reply, wire.len()));
        }
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        for wire in [
            &b"$5\r\nabcdefg\r\n"[..],
            b"$-2\r\n",
            b"$9999999999\r\n",
            b"$\r\n",
            b"$1a\r\n",
            b"x\r\n",
            b"\n",
            b"+\n",
            b":1\r\n",
        ] {
            assert_eq!(scan(wire), Scanned::Malformed, "{}", wire.escape_ascii());
        }
        assert_eq!(scan(&[b'+'; MAX_LINE]), Scanned::Malformed);
    }
}
