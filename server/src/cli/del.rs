//! `pelago del`

use std::ffi::OsString;

use clap::Args;
use serde_json::json;

use super::Failure;
use super::connect::{Answer, OneShot, Written, key};
use crate::protocol::Reply;

/// Delete keys
#[derive(Debug, Args)]
#[command(after_help = "\
Prints how many of the keys there were. Keys of different groups are not deleted at one instant.
Exit codes: 0 at least one was deleted, 1 there was none of them, 2 error.

Example: pelago del greeting farewell")]
pub struct Del {
    /// The keys
    #[arg(required = true, value_name = "KEY")]
    keys: Vec<OsString>,

    #[command(flatten)]
    written: Written,

    #[command(flatten)]
    one_shot: OneShot,
}

impl Del {
    pub(super) fn run(self) -> Result<(), Failure> {
        let mut words: Vec<&[u8]> = vec![b"DEL"];
        words.extend(self.keys.iter().map(key));
        let options = self.written.words();
        words.extend(options.iter().map(Vec::as_slice));
        self.one_shot.run(&words, |reply| {
            let Reply::Integer(deleted) = reply else { return None };
            let no = (deleted == 0).then(|| match self.keys.len() {
                1 => "there is no such key".to_owned(),
                count => format!("there is none of these {count} keys"),
            });
            Some(Answer {
                text: format!("{deleted}\n").into_bytes(),
                json: json!({ "deleted": deleted }),
                no,
            })
        })
    }
}
