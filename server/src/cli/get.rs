//! `pelago get`

use std::ffi::OsString;

use clap::Args;
use serde_json::{Value, json};

use super::Failure;
use super::connect::{Answer, OneShot, key, put_bytes, shown};
use crate::protocol::Reply;

/// Print the value of a key
#[derive(Debug, Args)]
#[command(after_help = "\
The value is the latest one, whichever node is asked (linearizable).
Exit codes: 0 found, 1 no such key, 2 error.

Example: pelago get greeting")]
pub struct Get {
    /// The key
    key: OsString,

    /// Print the revision in front of the value, separated by a blank
    #[arg(long)]
    rev: bool,

    /// Print no line end behind the value
    #[arg(long)]
    raw: bool,

    #[command(flatten)]
    one_shot: OneShot,
}

impl Get {
    pub(super) fn run(self) -> Result<(), Failure> {
        let mut words: Vec<&[u8]> = vec![b"GET", key(&self.key)];
        if self.rev {
            words.push(b"REV");
        }
        self.one_shot.run(&words, |reply| self.answer(reply))
    }

    fn answer(&self, reply: Reply) -> Option<Answer> {
        let mut json = json!({});
        put_bytes(&mut json, "key", key(&self.key));
        let (value, revision) = match reply {
            Reply::Bulk(value) if !self.rev => (value, None),
            Reply::Array(items) if self.rev => match <[Reply; 2]>::try_from(items) {
                Ok([Reply::Bulk(value), Reply::Integer(revision)]) => (value, Some(revision)),
                _ => return None,
            },
            Reply::Nil | Reply::NilArray => {
                json["found"] = json!(false);
                json["value"] = Value::Null;
                let no = Some(format!("there is no key \"{}\"", shown(key(&self.key))));
                return Some(Answer { text: Vec::new(), json, no });
            }
            _ => return None,
        };
        json["found"] = json!(true);
        put_bytes(&mut json, "value", &value);
        let mut text = Vec::with_capacity(value.len() + 24);
        if let Some(revision) = revision {
            json["rev"] = json!(revision);
            text.extend_from_slice(format!("{revision} ").as_bytes());
        }
        text.extend_from_slice(&value);
        if !self.raw {
            text.push(b'\n');
        }
        Some(Answer { text, json, no: None })
    }
}
