//! Keys, values and lives as lines of text: what `pelago dump` writes and `pelago load` reads.
//!
//! A line is a key, its value, and how long the key shall be there where that is not for ever. The two
//! forms say the same and keep every byte: [`tsv`] and [`jsonl`].

mod base64;
pub mod jsonl;
pub mod tsv;

use std::ffi::OsStr;
use std::io::{self, BufRead};
use std::path::Path;

use clap::ValueEnum;

use crate::client::bulk::Put;

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Form {
    // No doc comments: clap would make them a long help, which fits no screen.
    Tsv,
    Jsonl,
}

impl Form {
    /// As it is named on the command line.
    #[must_use]
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// What has to be said again for the same form: ` --format …`, or nothing where none was given.
    #[must_use]
    pub fn option(given: Option<Form>) -> String {
        given.map(|form| format!(" --format {}", form.name())).unwrap_or_default()
    }

    /// The form that a file's name tells; TSV where it tells nothing.
    #[must_use]
    pub fn of(path: &Path) -> Form {
        let known = |end: &OsStr| end.eq_ignore_ascii_case("jsonl") || end.eq_ignore_ascii_case("ndjson");
        match path.extension().is_some_and(|end| known(end) || end.eq_ignore_ascii_case("json")) {
            true => Form::Jsonl,
            false => Form::Tsv,
        }
    }

    /// Appends a line, its end included.
    pub fn write(self, key: &[u8], value: &[u8], life: Option<u64>, out: &mut Vec<u8>) {
        match self {
            Form::Tsv => tsv::write(key, value, life, out),
            Form::Jsonl => jsonl::write(key, value, life, out),
        }
    }

    /// Reads a line without its end; `None` for a line that is empty.
    ///
    /// # Errors
    /// With what is wrong with it, for people.
    pub fn read(self, line: &[u8]) -> Result<Option<Put>, String> {
        // Files that came over from Windows; a value's own CR is written as an escape.
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            return Ok(None);
        }
        match self {
            Form::Tsv => tsv::read(line).map(Some),
            Form::Jsonl => jsonl::read(line).map(Some),
        }
    }
}

/// The longest line that is read: more than the largest value takes where each of its bytes is escaped.
pub const MAX_LINE: usize = 72 << 20;

/// A line as it came.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// Without its end.
    Whole(Vec<u8>),
    /// Over [`MAX_LINE`]; it was read past.
    TooLong,
}

/// The next line and how many bytes of the input it took, its end included; `None` at the end.
///
/// # Errors
/// When the input cannot be read.
pub fn next_line(input: &mut impl BufRead) -> io::Result<Option<(Line, u64)>> {
    let (mut line, mut taken, mut long) = (Vec::new(), 0_u64, false);
    loop {
        let piece = match input.fill_buf() {
            Ok(piece) => piece,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if piece.is_empty() {
            if taken == 0 {
                return Ok(None);
            }
            break;
        }
        let end = piece.iter().position(|byte| *byte == b'\n');
        let text = &piece[..end.unwrap_or(piece.len())];
        long |= line.len() + text.len() > MAX_LINE;
        if long {
            line = Vec::new();
        } else {
            line.extend_from_slice(text);
        }
        let used = text.len() + usize::from(end.is_some());
        input.consume(used);
        taken += used as u64;
        if end.is_some() {
            break;
        }
    }
    let line = if long { Line::TooLong } else { Line::Whole(line) };
    Ok(Some((line, taken)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_line_comes_back(key: Vec<u8>, value: Vec<u8>, life in proptest::option::of(1..u64::MAX >> 1)) {
            for form in [Form::Tsv, Form::Jsonl] {
                let mut out = Vec::new();
                form.write(&key, &value, life, &mut out);
                prop_assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 1);
                prop_assert!(std::str::from_utf8(&out).is_ok(), "it is text");
                let (line, taken) = next_line(&mut &out[..]).expect("memory").expect("a line");
                prop_assert_eq!(taken, out.len() as u64);
                let Line::Whole(line) = line else { panic!("short") };
                let put = form.read(&line).expect("its own line").expect("no empty one");
                prop_assert_eq!((&put.key, &put.value, put.life), (&key, &value, life));
            }
        }

        #[test]
        fn no_line_is_too_strange(line: Vec<u8>) {
            for form in [Form::Tsv, Form::Jsonl] {
                if let Err(why) = form.read(&line) {
                    prop_assert!(!why.is_empty());
                }
            }
        }

        #[test]
        fn lines_are_counted_whatever_the_pieces(
            lines in proptest::collection::vec("[a-z\t]{0,9}", 0..9), ended: bool, piece in 1..7_usize,
        ) {
            let mut text = lines.join("\n");
            if ended && !text.is_empty() {
                text.push('\n');
            }
            let mut input = io::BufReader::with_capacity(piece, text.as_bytes());
            let (mut read, mut bytes) = (Vec::new(), 0);
            while let Some((line, taken)) = next_line(&mut input).expect("memory") {
                let Line::Whole(line) = line else { panic!("short") };
                read.push(String::from_utf8(line).expect("text"));
                bytes += taken;
            }
            let expected: Vec<&str> = text.lines().collect();
            prop_assert_eq!(read, expected);
            prop_assert_eq!(bytes, text.len() as u64);
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_read_past() {
        let mut text = vec![b'x'; MAX_LINE + 1];
        text.extend_from_slice(b"\nk\tv\n");
        let mut input = &text[..];
        let long = next_line(&mut input).expect("memory");
        assert_eq!(long, Some((Line::TooLong, MAX_LINE as u64 + 2)));
        assert_eq!(next_line(&mut input).expect("memory"), Some((Line::Whole(b"k\tv".to_vec()), 4)));
        assert_eq!(next_line(&mut input).expect("memory"), None);
    }

    #[test]
    fn the_name_tells_the_form() {
        for (name, form) in [
            ("a.tsv", Form::Tsv),
            ("a", Form::Tsv),
            ("-", Form::Tsv),
            ("a.jsonl", Form::Jsonl),
            ("x/a.JSON", Form::Jsonl),
            ("a.ndjson", Form::Jsonl),
        ] {
            assert_eq!(Form::of(Path::new(name)), form, "{name}");
        }
    }
}
