//! Histories as text, to be kept beside a failing run and judged again: one JSON object per line and operation.
//!
//! ```text
//! {"client":1,"key":"k7","do":"put","value":"a\u0000","invoke":10,"response":20,"done":true}
//! {"client":2,"key":"k7","do":"get","invoke":15,"response":30,"read":null}
//! {"client":1,"key":"k7","do":"add","delta":3,"invoke":40,"response":null}
//! ```
//! A string stands for bytes: each character is one byte, and what is not printable ASCII is written `\u00XX`.
//!
//! | `do` | its arguments | answered by one of |
//! | --- | --- | --- |
//! | `get` | | `"read":string or null`, with `"at":revision` where it was asked for |
//! | `put` | `value` | `"done":true`, `"revision":n` |
//! | `delete` | | `"applied":bool`, `"done":true` |
//! | `setnx` | `value` | `"applied":bool`, `"revision":n` |
//! | `cas` | `old`, `new` | `"applied":bool`, `"revision":n` |
//! | `putifrev` | `if_revision`, `value` | `"applied":bool`, `"revision":n` |
//! | `add`, `append` | `delta`, `value` | `"number":n` |
//! | `getset`, `getdel` | `value` | `"read":string or null` |
//! | `putfor` | `value`, `life` | `"done":true`, `"revision":n` |
//! | `renew` | `life`, a number or null | `"applied":bool` |
//!
//! Any of them may be refused (`"refused":true`) or have no outcome (`"response":null` and nothing else).

use std::fmt::{self, Write as _};
use std::io::{self, BufRead, Write};

use super::operation::{Action, Operation, Outcome};
use super::record::History;

impl History {
    /// Writes the history, one line per operation.
    ///
    /// # Errors
    /// What `to` reports.
    pub fn write_to(&self, to: &mut impl Write) -> io::Result<()> {
        self.operations().iter().try_for_each(|operation| writeln!(to, "{}", line(operation)))
    }

    /// Reads what [`History::write_to`] wrote. Empty lines are skipped.
    ///
    /// # Errors
    /// The first line that is no operation, by number and reason; the rest is not read.
    pub fn read_from(from: impl BufRead) -> Result<Self, ReadError> {
        let mut history = History::new();
        for (index, line) in from.lines().enumerate() {
            let at = |reason: String| ReadError { line: index + 1, reason };
            let line = line.map_err(|error| at(error.to_string()))?;
            if line.trim().is_empty() {
                continue;
            }
            let operation = parse(&line).map_err(at)?;
            history.push(operation).map_err(|malformed| at(malformed.to_string()))?;
        }
        Ok(history)
    }
}

/// A history file that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub reason: String,
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.reason)
    }
}

impl std::error::Error for ReadError {}

fn line(operation: &Operation) -> String {
    let mut object = Object::default();
    object.add("client", Scalar::from(operation.client));
    object.add("key", Scalar::text(&operation.key));
    write_action(&operation.action, &mut object);
    object.add("invoke", Scalar::from(operation.invoke));
    object.add("response", operation.response.map_or(Scalar::Null, Scalar::from));
    write_outcome(&operation.outcome, &mut object);
    object.to_string()
}

fn write_action(action: &Action, object: &mut Object) {
    let mut name = |name: &str| object.add("do", Scalar::text(name.as_bytes()));
    match action {
        Action::Get => name("get"),
        Action::Put(_) => name("put"),
        Action::Delete => name("delete"),
        Action::SetNx(_) => name("setnx"),
        Action::Cas { .. } => name("cas"),
        Action::PutIfRev { .. } => name("putifrev"),
        Action::Add(_) => name("add"),
        Action::Append(_) => name("append"),
        Action::GetSet(_) => name("getset"),
        Action::GetDel => name("getdel"),
        Action::PutFor { .. } => name("putfor"),
        Action::Renew(_) => name("renew"),
    }
    match action {
        Action::Get | Action::Delete | Action::GetDel => {}
        Action::Put(value) | Action::SetNx(value) | Action::Append(value) | Action::GetSet(value) => {
            object.add("value", Scalar::text(value));
        }
        Action::Cas { old, new } => {
            object.add("old", Scalar::text(old));
            object.add("new", Scalar::text(new));
        }
        Action::PutIfRev { revision, value } => {
            object.add("if_revision", Scalar::from(*revision));
            object.add("value", Scalar::text(value));
        }
        Action::Add(delta) => object.add("delta", Scalar::from(*delta)),
        Action::PutFor { value, life } => {
            object.add("value", Scalar::text(value));
            object.add("life", Scalar::from(*life));
        }
        Action::Renew(life) => object.add("life", life.map_or(Scalar::Null, Scalar::from)),
    }
}

fn write_outcome(outcome: &Outcome, object: &mut Object) {
    match outcome {
        Outcome::Unknown => {}
        Outcome::NotApplied => object.add("refused", Scalar::Bool(true)),
        Outcome::Done => object.add("done", Scalar::Bool(true)),
        Outcome::Value(value) => object.add("read", value.as_deref().map_or(Scalar::Null, Scalar::text)),
        Outcome::Versioned(versioned) => {
            let value = versioned.as_ref().map_or(Scalar::Null, |(value, _)| Scalar::text(value));
            object.add("read", value);
            object.add("at", Scalar::from(versioned.as_ref().map_or(0, |(_, revision)| *revision)));
        }
        Outcome::Flag(flag) => object.add("applied", Scalar::Bool(*flag)),
        Outcome::Number(number) => object.add("number", Scalar::from(*number)),
        Outcome::Revision(revision) => object.add("revision", Scalar::from(*revision)),
    }
}

fn parse(line: &str) -> Result<Operation, String> {
    let mut object = Object::parse(line)?;
    let operation = Operation {
        client: object.integer("client")?,
        key: object.bytes("key")?,
        invoke: object.integer("invoke")?,
        response: match object.take("response")? {
            Scalar::Null => None,
            other => Some(other.integer("response")?),
        },
        action: parse_action(&mut object)?,
        outcome: parse_outcome(&mut object)?,
    };
    match object.0.first() {
        Some((name, _)) => Err(format!("\"{name}\" is not expected here")),
        None => Ok(operation),
    }
}

fn parse_action(object: &mut Object) -> Result<Action, String> {
    let name = object.bytes("do")?;
    Ok(match name.as_slice() {
        b"get" => Action::Get,
        b"put" => Action::Put(object.bytes("value")?),
        b"delete" => Action::Delete,
        b"setnx" => Action::SetNx(object.bytes("value")?),
        b"cas" => Action::Cas { old: object.bytes("old")?, new: object.bytes("new")? },
        b"putifrev" => {
            Action::PutIfRev { revision: object.integer("if_revision")?, value: object.bytes("value")? }
        }
        b"add" => Action::Add(object.integer("delta")?),
        b"append" => Action::Append(object.bytes("value")?),
        b"getset" => Action::GetSet(object.bytes("value")?),
        b"getdel" => Action::GetDel,
        b"putfor" => Action::PutFor { value: object.bytes("value")?, life: object.integer("life")? },
        b"renew" => Action::Renew(match object.take("life")? {
            Scalar::Null => None,
            other => Some(other.integer("life")?),
        }),
        other => return Err(format!("unknown operation \"{}\"", other.escape_ascii())),
    })
}

fn parse_outcome(object: &mut Object) -> Result<Outcome, String> {
    for name in ["refused", "done", "read", "applied", "number", "revision"] {
        let Ok(scalar) = object.take(name) else { continue };
        return Ok(match (name, scalar) {
            ("refused", Scalar::Bool(true)) => Outcome::NotApplied,
            ("done", Scalar::Bool(true)) => Outcome::Done,
            ("applied", Scalar::Bool(flag)) => Outcome::Flag(flag),
            ("number", number) => Outcome::Number(number.integer(name)?),
            ("revision", number) => Outcome::Revision(number.integer(name)?),
            ("read", read) => {
                let value = match read {
                    Scalar::Null => None,
                    other => Some(other.bytes(name)?),
                };
                match object.take("at") {
                    Err(_) => Outcome::Value(value),
                    Ok(at) => {
                        let at = at.integer("at")?;
                        Outcome::Versioned(value.map(|value| (value, at)))
                    }
                }
            }
            (name, _) => return Err(format!("\"{name}\" has a value that makes no sense")),
        });
    }
    Ok(Outcome::Unknown)
}

/// A flat JSON object: names and scalars, in the order of the line.
#[derive(Default)]
struct Object(Vec<(String, Scalar)>);

enum Scalar {
    Null,
    Bool(bool),
    Integer(i128),
    Text(Vec<u8>),
}

impl Scalar {
    fn from(number: impl Into<i128>) -> Scalar {
        Scalar::Integer(number.into())
    }

    fn text(bytes: &[u8]) -> Scalar {
        Scalar::Text(bytes.to_vec())
    }

    fn integer<T: TryFrom<i128>>(self, name: &str) -> Result<T, String> {
        let Scalar::Integer(number) = self else { return Err(format!("\"{name}\" must be a number")) };
        T::try_from(number).map_err(|_| format!("\"{name}\" is out of range"))
    }

    fn bytes(self, name: &str) -> Result<Vec<u8>, String> {
        let Scalar::Text(bytes) = self else { return Err(format!("\"{name}\" must be a string")) };
        Ok(bytes)
    }
}

impl Object {
    fn add(&mut self, name: &str, scalar: Scalar) {
        self.0.push((name.to_owned(), scalar));
    }

    fn take(&mut self, name: &str) -> Result<Scalar, String> {
        let found = self.0.iter().position(|(known, _)| known == name);
        found.map(|index| self.0.remove(index).1).ok_or_else(|| format!("\"{name}\" is missing"))
    }

    fn integer<T: TryFrom<i128>>(&mut self, name: &str) -> Result<T, String> {
        self.take(name)?.integer(name)
    }

    fn bytes(&mut self, name: &str) -> Result<Vec<u8>, String> {
        self.take(name)?.bytes(name)
    }

    fn parse(line: &str) -> Result<Object, String> {
        let mut scan = Scan { rest: line.trim().as_bytes() };
        let mut object = Object::default();
        scan.expect(b'{')?;
        loop {
            let name = String::from_utf8_lossy(&scan.text()?).into_owned();
            scan.expect(b':')?;
            let scalar = scan.scalar()?;
            if object.0.iter().any(|(known, _)| *known == name) {
                return Err(format!("\"{name}\" stands here twice"));
            }
            object.0.push((name, scalar));
            match scan.token() {
                Some(b',') => {}
                Some(b'}') if scan.rest.is_empty() => return Ok(object),
                _ => return Err("expected , or the closing brace at the end of the line".to_owned()),
            }
        }
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = '{';
        for (name, scalar) in &self.0 {
            write!(f, "{separator}\"{name}\":")?;
            separator = ',';
            match scalar {
                Scalar::Null => f.write_str("null")?,
                Scalar::Bool(flag) => write!(f, "{flag}")?,
                Scalar::Integer(number) => write!(f, "{number}")?,
                Scalar::Text(bytes) => write_text(bytes, f)?,
            }
        }
        f.write_char('}')
    }
}

fn write_text(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_char('"')?;
    for &byte in bytes {
        match byte {
            b'"' | b'\\' => write!(f, "\\{}", char::from(byte))?,
            b' '..=b'~' => f.write_char(char::from(byte))?,
            _ => write!(f, "\\u{byte:04x}")?,
        }
    }
    f.write_char('"')
}

/// The unread rest of a line.
struct Scan<'a> {
    rest: &'a [u8],
}

impl Scan<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(byte)
    }

    /// The next byte that is no blank.
    fn token(&mut self) -> Option<u8> {
        self.rest = self.rest.trim_ascii_start();
        self.byte()
    }

    fn expect(&mut self, wanted: u8) -> Result<(), String> {
        match self.token() {
            Some(byte) if byte == wanted => Ok(()),
            _ => Err(format!("expected {}", char::from(wanted))),
        }
    }

    fn text(&mut self) -> Result<Vec<u8>, String> {
        self.expect(b'"')?;
        let mut bytes = Vec::new();
        loop {
            match self.byte().ok_or("a string without an end")? {
                b'"' => return Ok(bytes),
                b'\\' => bytes.push(self.escape()?),
                byte @ b' '..=b'~' => bytes.push(byte),
                _ => return Err("bytes beyond ASCII must be written as \\u00XX".to_owned()),
            }
        }
    }

    fn escape(&mut self) -> Result<u8, String> {
        match self.byte() {
            Some(byte @ (b'"' | b'\\' | b'/')) => Ok(byte),
            Some(b'n') => Ok(b'\n'),
            Some(b'r') => Ok(b'\r'),
            Some(b't') => Ok(b'\t'),
            Some(b'u') => {
                let digits = self.rest.get(..4).and_then(|digits| std::str::from_utf8(digits).ok());
                let byte = digits.and_then(|digits| u16::from_str_radix(digits, 16).ok());
                let byte = byte.and_then(|code| u8::try_from(code).ok()).ok_or("expected \\u00XX")?;
                self.rest = &self.rest[4..];
                Ok(byte)
            }
            _ => Err("unknown escape".to_owned()),
        }
    }

    fn scalar(&mut self) -> Result<Scalar, String> {
        self.rest = self.rest.trim_ascii_start();
        if self.rest.first() == Some(&b'"') {
            return self.text().map(Scalar::Text);
        }
        let end = self.rest.iter().position(|byte| matches!(byte, b',' | b'}')).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        match word.trim_ascii_end() {
            b"null" => Ok(Scalar::Null),
            b"true" => Ok(Scalar::Bool(true)),
            b"false" => Ok(Scalar::Bool(false)),
            digits => {
                let number = std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok());
                let word = digits.escape_ascii();
                number
                    .map(Scalar::Integer)
                    .ok_or_else(|| format!("{word} is no number, string, true, false or null"))
            }
        }
    }
}
