//! `pelago cas`

use std::ffi::OsString;

use clap::Args;
use serde_json::json;

use super::Failure;
use super::connect::{Answer, OneShot, key, put_bytes, shown};
use crate::protocol::Reply;

/// Compare and swap: set a key if it has the expected value
#[derive(Debug, Args)]
#[command(after_help = "\
Prints 1 if the key had the old value and has the new one now, else 0.
Exit codes: 0 swapped, 1 it had another value or none and nothing was applied, 2 error.

Example: pelago cas leader alice bob")]
pub struct Cas {
    /// The key
    key: OsString,

    /// The value that it must have
    #[arg(allow_negative_numbers = true)]
    old: OsString,

    /// The value that it then gets; - reads it from stdin, byte for byte
    #[arg(allow_negative_numbers = true)]
    new: OsString,

    #[command(flatten)]
    one_shot: OneShot,
}

impl Cas {
    pub(super) fn run(self) -> Result<(), Failure> {
        let new = super::connect::value(&self.new)?;
        self.one_shot.run(&[b"CAS", key(&self.key), key(&self.old), &new], |reply| {
            let swapped = match reply {
                Reply::Integer(0) => false,
                Reply::Integer(1) => true,
                _ => return None,
            };
            let mut json = json!({ "applied": swapped });
            put_bytes(&mut json, "key", key(&self.key));
            let no = (!swapped).then(|| {
                let key = shown(key(&self.key));
                format!("\"{key}\" does not have that value. Nothing was applied. Run: pelago get {key}")
            });
            Some(Answer { text: format!("{}\n", u8::from(swapped)).into_bytes(), json, no })
        })
    }
}
