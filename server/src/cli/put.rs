//! `pelago put`

use std::ffi::OsString;

use clap::Args;
use serde_json::{Value, json};

use super::Failure;
use super::connect::{Answer, OneShot, Written, key, put_bytes, shown, value};
use crate::protocol::Reply;

/// Set a key
#[derive(Debug, Args)]
#[command(help_template = "{about}\n\n{usage-heading} {usage}\n\nOptions:\n{options}{after-help}")]
#[command(after_help = "\
A VALUE of - is read from stdin, byte for byte. Prints OK, or what --get or --rev asks for.
OK means: on the disks of a majority, and applied. --fence: see pelago lock.
Exit codes: 0 set, 1 the condition failed and nothing was applied, 2 error.

Example: pelago put greeting hello --nx")]
pub struct Put {
    /// The key
    key: OsString,

    /// The value; - reads it from stdin, byte for byte
    #[arg(allow_negative_numbers = true)]
    value: OsString,

    /// Only if there is no such key
    #[arg(long, group = "condition")]
    nx: bool,

    /// Only if there is such a key
    #[arg(long, group = "condition")]
    xx: bool,

    /// Only if the key has this revision; 0 means that there is no such key
    #[arg(long, value_name = "REVISION", group = "condition", conflicts_with = "get")]
    ifrev: Option<u64>,

    /// Only if the key has exactly this value
    #[arg(long, value_name = "VALUE", group = "condition", allow_negative_numbers = true)]
    ifeq: Option<OsString>,

    /// Print the value before, or nothing if there was none
    #[arg(long, conflicts_with = "rev")]
    get: bool,

    /// Print the new revision
    #[arg(long)]
    rev: bool,

    /// The key vanishes after so many seconds
    #[arg(long, value_name = "SECONDS", group = "life", value_parser = clap::value_parser!(u64).range(1..))]
    ex: Option<u64>,

    /// The key vanishes after so many milliseconds
    #[arg(long, value_name = "MILLISECONDS", group = "life", value_parser = clap::value_parser!(u64).range(1..))]
    px: Option<u64>,

    #[command(flatten)]
    written: Written,

    #[command(flatten)]
    one_shot: OneShot,
}

impl Put {
    pub(super) fn run(self) -> Result<(), Failure> {
        let value = value(&self.value)?;
        let words = self.words(&value);
        let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        self.one_shot.run(&words, |reply| self.answer(reply))
    }

    fn words(&self, value: &[u8]) -> Vec<Vec<u8>> {
        let mut words: Vec<Vec<u8>> = vec![b"PUT".to_vec(), key(&self.key).to_vec(), value.to_vec()];
        let mut word = |bytes: &[u8]| words.push(bytes.to_vec());
        if self.nx {
            word(b"NX");
        }
        if self.xx {
            word(b"XX");
        }
        if let Some(revision) = self.ifrev {
            word(b"IFREV");
            word(revision.to_string().as_bytes());
        }
        if let Some(expected) = &self.ifeq {
            word(b"IFEQ");
            word(key(expected));
        }
        if self.get {
            word(b"GET");
        }
        if self.rev {
            word(b"REV");
        }
        for (name, time) in [(&b"EX"[..], self.ex), (b"PX", self.px)] {
            if let Some(time) = time {
                word(name);
                word(time.to_string().as_bytes());
            }
        }
        words.extend(self.written.words());
        words
    }

    fn answer(&self, reply: Reply) -> Option<Answer> {
        let mut text = Vec::new();
        let mut json = json!({ "applied": true });
        put_bytes(&mut json, "key", key(&self.key));
        let applied = match reply {
            Reply::Simple(ok) if !self.get && !self.rev => {
                text.extend_from_slice(ok.as_bytes());
                true
            }
            Reply::Integer(revision) if self.rev => {
                text.extend_from_slice(revision.to_string().as_bytes());
                json["rev"] = json!(revision);
                true
            }
            Reply::Bulk(before) if self.get => {
                text.extend_from_slice(&before);
                put_bytes(&mut json, "previous", &before);
                self.applied_over(Some(&before))
            }
            Reply::Nil if self.get => {
                json["previous"] = Value::Null;
                self.applied_over(None)
            }
            Reply::Nil => false,
            _ => return None,
        };
        if !text.is_empty() {
            text.push(b'\n');
        }
        json["applied"] = json!(applied);
        let no = (!applied).then(|| {
            let key = shown(key(&self.key));
            format!(
                "the condition did not hold for \"{key}\". Nothing was applied. Run: pelago get {key} --rev"
            )
        });
        Some(Answer { text, json, no })
    }

    /// With `--get` the reply is the value before in either case, and only the condition tells
    /// whether it held. (`--ifrev` cannot tell, and so does not go with `--get`.)
    fn applied_over(&self, before: Option<&[u8]>) -> bool {
        match &self.ifeq {
            Some(expected) => before == Some(key(expected)),
            None if self.nx => before.is_none(),
            None if self.xx => before.is_some(),
            None => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        put: Put,
    }

    #[test]
    fn options_become_the_words_of_put() {
        for (line, words) in [
            ("k v", "PUT k v"),
            ("k v --ex 10", "PUT k v EX 10"),
            ("k v --px 1500 --nx --rev", "PUT k v NX REV PX 1500"),
            ("k v --fence 47 --req app-7:42", "PUT k v FENCE 47 REQ app-7:42"),
            ("k v --ifrev 4 --ex 1 --fence 2", "PUT k v IFREV 4 EX 1 FENCE 2"),
        ] {
            let line = std::iter::once("put").chain(line.split(' '));
            let put = Line::try_parse_from(line).expect("a command line").put;
            let said: Vec<String> =
                put.words(b"v").into_iter().map(|word| String::from_utf8(word).expect("text")).collect();
            assert_eq!(said.join(" "), words);
        }
        for line in ["k v --ex 1 --px 1", "k v --ex 0", "k v --fence 0", "k v --fence x"] {
            assert!(Line::try_parse_from(std::iter::once("put").chain(line.split(' '))).is_err(), "{line}");
        }
    }
}
