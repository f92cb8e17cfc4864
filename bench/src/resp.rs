//! The replies of a RESP server, as far as the workloads need them.

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
    /// `:…`
    Integer(i64),
    /// `*…`
    Array(Items<'a>),
}

/// The elements of an array, all of which are there and well-formed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Items<'a> {
    bytes: &'a [u8],
    left: usize,
}

impl<'a> Iterator for Items<'a> {
    type Item = Reply<'a>;

    fn next(&mut self) -> Option<Reply<'a>> {
        self.left = self.left.checked_sub(1)?;
        match scan(self.bytes) {
            Scanned::Reply(reply, length) => {
                self.bytes = &self.bytes[length..];
                Some(reply)
            }
            Scanned::Incomplete | Scanned::Malformed => None,
        }
    }
}

/// Arrays in arrays deeper than this are refused; a page of a scan is two deep.
const DEEPEST: usize = 8;

/// What stands at the beginning of the bytes received.
#[derive(Debug, PartialEq, Eq)]
pub enum Scanned<'a> {
    /// A reply of this many bytes.
    Reply(Reply<'a>, usize),
    /// The beginning of one.
    Incomplete,
    /// No reply that a request of the load can have.
    Malformed,
}

/// Reads one reply.
pub fn scan(bytes: &[u8]) -> Scanned<'_> {
    scan_within(bytes, DEEPEST)
}

fn scan_within(bytes: &[u8], depth: usize) -> Scanned<'_> {
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
        b':' => match std::str::from_utf8(line).ok().and_then(|digits| digits.parse().ok()) {
            Some(number) => Scanned::Reply(Reply::Integer(number), after),
            None => Scanned::Malformed,
        },
        b'*' => match length(line) {
            Some(count) if depth > 0 => array(bytes, after, count, depth - 1),
            _ => Scanned::Malformed,
        },
        _ => Scanned::Malformed,
    }
}

fn array(bytes: &[u8], start: usize, count: usize, depth: usize) -> Scanned<'_> {
    let mut end = start;
    for _ in 0..count {
        match scan_within(&bytes[end..], depth) {
            Scanned::Reply(_, length) => end += length,
            other => return other,
        }
    }
    Scanned::Reply(Reply::Array(Items { bytes: &bytes[start..end], left: count }), end)
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
        let replies: [(&[u8], Reply<'_>); 10] = [
            (b"+OK\r\n", Reply::Simple(b"OK")),
            (b"-TRYAGAIN group=5 moving\r\n", Reply::Error(b"TRYAGAIN group=5 moving")),
            (b"$5\r\na\r\nbc\r\n", Reply::Bulk(b"a\r\nbc")),
            (b"$0\r\n\r\n", Reply::Bulk(b"")),
            (b"$-1\r\n", Reply::Nil),
            (b"_\r\n", Reply::Nil),
            (b":-42\r\n", Reply::Integer(-42)),
            (b"*0\r\n", Reply::Array(Items { bytes: b"", left: 0 })),
            (b"*2\r\n:1\r\n+a\r\n", Reply::Array(Items { bytes: b":1\r\n+a\r\n", left: 2 })),
            (b"*1\r\n*1\r\n_\r\n", Reply::Array(Items { bytes: b"*1\r\n_\r\n", left: 1 })),
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
            b":1a\r\n",
            b":\r\n",
            b"*-1\r\n",
            b"*1\r\nx\r\n",
            b"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n",
        ] {
            assert_eq!(scan(wire), Scanned::Malformed, "{}", wire.escape_ascii());
        }
        assert_eq!(scan(&[b'+'; MAX_LINE]), Scanned::Malformed);
    }

    #[test]
    fn the_elements_of_an_array_come_one_by_one() {
        let Scanned::Reply(Reply::Array(items), _) = scan(b"*3\r\n$1\r\na\r\n*1\r\n:7\r\n_\r\n:9\r\n") else {
            panic!("an array")
        };
        let items: Vec<_> = items.collect();
        assert_eq!(items.len(), 3);
        assert_eq!((&items[0], &items[2]), (&Reply::Bulk(b"a"), &Reply::Nil));
        let Reply::Array(inner) = &items[1] else { panic!("an array") };
        assert_eq!(inner.clone().collect::<Vec<_>>(), [Reply::Integer(7)]);
    }
}
