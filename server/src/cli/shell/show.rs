//! Replies as `redis-cli` prints them.

use std::fmt::Write as _;

use crate::protocol::{Reply, table};

/// How replies are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// For people: types, quotes, numbered lists.
    Pretty,
    /// Bytes as they are, a line end behind each.
    Raw,
}

/// A reply that is no error.
pub fn reply_text(words: &[&[u8]], reply: &Reply, style: Style) -> Vec<u8> {
    match (style, reply) {
        (Style::Raw, _) => {
            let mut out = Vec::new();
            raw(reply, &mut out);
            out
        }
        (Style::Pretty, Reply::Bulk(text) | Reply::Text(text)) if is_text(words, text) => {
            let mut out = text.to_vec();
            if !out.ends_with(b"\n") {
                out.push(b'\n');
            }
            out
        }
        (Style::Pretty, _) => {
            let mut out = String::new();
            pretty(reply, 0, &mut out);
            out.into_bytes()
        }
    }
}

/// Whether a reply is text for people: several lines from a command that has no keys.
fn is_text(words: &[&[u8]], text: &[u8]) -> bool {
    let spec = words.first().and_then(|name| table::find(name));
    let about_itself = spec
        .is_some_and(|spec| matches!(spec.group, "server" | "cluster" | "connection") && spec.name != "echo");
    about_itself && text.contains(&b'\n') && std::str::from_utf8(text).is_ok()
}

fn raw(reply: &Reply, out: &mut Vec<u8>) {
    match reply {
        Reply::Bulk(bytes) | Reply::Text(bytes) | Reply::BigNumber(bytes) => out.extend_from_slice(bytes),
        Reply::Simple(text) => out.extend_from_slice(text.as_bytes()),
        Reply::Error(error) => out.extend_from_slice(error.to_string().as_bytes()),
        Reply::Integer(number) => out.extend_from_slice(number.to_string().as_bytes()),
        Reply::Double(number) => out.extend_from_slice(number.to_string().as_bytes()),
        Reply::Boolean(yes) => out.extend_from_slice(if *yes { b"true" } else { b"false" }),
        Reply::Nil | Reply::NilArray => {}
        Reply::Array(items) | Reply::Set(items) | Reply::Push(items) => {
            return items.iter().for_each(|item| raw(item, out));
        }
        Reply::Map(pairs) => {
            return pairs.iter().for_each(|(key, value)| {
                raw(key, out);
                raw(value, out);
            });
        }
    }
    out.push(b'\n');
}

/// `indent` blanks stand before every line but the first.
fn pretty(reply: &Reply, indent: usize, out: &mut String) {
    // Writing to a string cannot fail.
    let _ = match reply {
        Reply::Simple(text) => writeln!(out, "{text}"),
        Reply::Error(error) => writeln!(out, "(error) {error}"),
        Reply::Integer(number) => writeln!(out, "(integer) {number}"),
        Reply::Bulk(bytes) | Reply::Text(bytes) => writeln!(out, "{}", quoted(bytes)),
        Reply::BigNumber(digits) => writeln!(out, "(big number) {}", String::from_utf8_lossy(digits)),
        Reply::Double(number) => writeln!(out, "(double) {number}"),
        Reply::Boolean(yes) => writeln!(out, "({yes})"),
        Reply::Nil | Reply::NilArray => writeln!(out, "(nil)"),
        Reply::Array(items) | Reply::Set(items) | Reply::Push(items) => {
            return list(items.iter().map(|item| (None, item)), items.len(), ')', indent, out);
        }
        Reply::Map(pairs) => {
            return list(pairs.iter().map(|(key, value)| (Some(key), value)), pairs.len(), '#', indent, out);
        }
    };
}

fn list<'a>(
    items: impl Iterator<Item = (Option<&'a Reply>, &'a Reply)>,
    count: usize,
    mark: char,
    indent: usize,
    out: &mut String,
) {
    if count == 0 {
        out.push_str("(empty array)\n");
        return;
    }
    let width = count.to_string().len();
    for (at, (key, item)) in items.enumerate() {
        if at > 0 {
            out.push_str(&" ".repeat(indent));
        }
        let _ = write!(out, "{:>width$}{mark} ", at + 1);
        let mut inner = indent + width + 2;
        if let Some(key) = key {
            let mut text = String::new();
            pretty(key, 0, &mut text);
            let _ = write!(out, "{} => ", text.trim_end());
            inner += text.trim_end().chars().count() + 4;
        }
        pretty(item, inner, out);
    }
}

/// Bytes as the line protocol takes them, in double quotes; text that is no ASCII stays readable.
fn quoted(bytes: &[u8]) -> String {
    let mut text = String::from("\"");
    for piece in bytes.utf8_chunks() {
        for c in piece.valid().chars() {
            match c {
                '"' | '\\' => text.extend(['\\', c]),
                '\n' => text.push_str("\\n"),
                '\r' => text.push_str("\\r"),
                '\t' => text.push_str("\\t"),
                '\x07' => text.push_str("\\a"),
                '\x08' => text.push_str("\\b"),
                c if c.is_ascii_control() => {
                    let _ = write!(text, "\\x{:02x}", u32::from(c));
                }
                // Also what would move the cursor, in other scripts.
                c if c.is_control() => text.extend(c.escape_unicode()),
                c => text.push(c),
            }
        }
        for byte in piece.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(words: &str, reply: &Reply, style: Style) -> String {
        let words: Vec<&[u8]> = words.split(' ').map(str::as_bytes).collect();
        String::from_utf8(reply_text(&words, reply, style)).expect("text")
    }

    #[test]
    fn as_redis_cli_prints() {
        let list = |items: &[&str]| Reply::Array(items.iter().map(|item| Reply::bulk(*item)).collect());
        for (reply, pretty, raw) in [
            (Reply::ok(), "OK\n", "OK\n"),
            (Reply::Integer(3), "(integer) 3\n", "3\n"),
            (Reply::Nil, "(nil)\n", "\n"),
            (Reply::bulk("a \"b\"\n\u{1}ä"), "\"a \\\"b\\\"\\n\\x01ä\"\n", "a \"b\"\n\u{1}ä\n"),
            (list(&[]), "(empty array)\n", ""),
            (list(&["a", "b"]), "1) \"a\"\n2) \"b\"\n", "a\nb\n"),
            (
                Reply::Array(vec![Reply::bulk("t"), list(&["a", "b"]), Reply::Nil]),
                "1) \"t\"\n2) 1) \"a\"\n   2) \"b\"\n3) (nil)\n",
                "t\na\nb\n\n",
            ),
            (Reply::Map(vec![(Reply::bulk("k"), Reply::Integer(1))]), "1# \"k\" => (integer) 1\n", "k\n1\n"),
        ] {
            assert_eq!(shown("GET k", &reply, Style::Pretty), pretty);
            assert_eq!(shown("GET k", &reply, Style::Raw), raw);
        }
        let ten = list(&["x"; 10]);
        assert!(shown("KEYS *", &ten, Style::Pretty).starts_with(" 1) \"x\"\n"));
    }

    #[test]
    fn text_for_people_is_text_and_a_value_is_a_value() {
        let reply = Reply::bulk("a\nb");
        assert_eq!(shown("INFO", &reply, Style::Pretty), "a\nb\n");
        assert_eq!(shown("GET k", &reply, Style::Pretty), "\"a\\nb\"\n");
        assert_eq!(shown("ECHO x", &reply, Style::Pretty), "\"a\\nb\"\n");
    }
}
