//! `pelago incr`

use std::ffi::OsString;

use clap::Args;
use serde_json::json;

use super::Failure;
use super::connect::{Answer, OneShot, key, put_bytes};
use crate::protocol::Reply;

/// Add to the integer that a key holds
#[derive(Debug, Args)]
#[command(after_help = "\
Prints the sum. A key that is not there counts as 0.
Exit codes: 0 added, 2 error (also when the value is not an integer).

Example: pelago incr visitors 10")]
pub struct Incr {
    /// The key
    key: OsString,

    /// What to add; may be negative
    #[arg(default_value_t = 1, allow_negative_numbers = true)]
    by: i64,

    #[command(flatten)]
    one_shot: OneShot,
}

impl Incr {
    pub(super) fn run(self) -> Result<(), Failure> {
        let by = self.by.to_string();
        self.one_shot.run(&[b"INCRBY", key(&self.key), by.as_bytes()], |reply| {
            let Reply::Integer(sum) = reply else { return None };
            let mut json = json!({ "value": sum });
            put_bytes(&mut json, "key", key(&self.key));
            Some(Answer { text: format!("{sum}\n").into_bytes(), json, no: None })
        })
    }
}
