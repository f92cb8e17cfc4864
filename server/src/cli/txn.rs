//! `pelago txn`

use std::cell::Cell;
use std::ffi::OsString;

use clap::Args;
use serde_json::{Value, json};

use super::Failure;
use super::connect::{Answer, OneShot, key, put_bytes};
use crate::protocol::Reply;

/// Execute operations on several keys of one group at once, if conditions hold
#[derive(Debug, Args)]
#[command(after_help = "\
The words are those of MULTIOP: conditions, then what is done if all of them hold, then what is done
if one does not.
  IF key REV revision | IF key VALUE value | IF key ABSENT | IF key PRESENT
  THEN operation, ELSE operation: GET, PUT, DEL, INCRBY, CAS ... of one key, with their options
Prints one answer per line. Exit codes: 0 THEN, 1 ELSE, 2 error, also of one operation among others.

Example: pelago txn IF {shop}:stock VALUE 1 THEN PUT {shop}:stock 0 THEN PUT {shop}:sold alice")]
pub struct Txn {
    /// IF, THEN and ELSE clauses
    #[arg(required = true, allow_negative_numbers = true, value_name = "WORD")]
    words: Vec<OsString>,

    #[command(flatten)]
    one_shot: OneShot,
}

impl Txn {
    pub(super) fn run(self) -> Result<(), Failure> {
        let words: Vec<&[u8]> = std::iter::once(&b"MULTIOP"[..]).chain(self.words.iter().map(key)).collect();
        let failed = Cell::new(0);
        let ended = self.one_shot.run(&words, |reply| answer(reply, &failed));
        match (ended, failed.get()) {
            (Err(failure), _) if failure.code > 1 => Err(failure),
            (ended, 0) => ended,
            (_, count) => Err(Failure::error(format!(
                "{count} of the operations failed and changed nothing; the others were executed"
            ))),
        }
    }
}

fn answer(reply: Reply, failed: &Cell<usize>) -> Option<Answer> {
    let Reply::Array(parts) = reply else { return None };
    let Ok([Reply::Integer(branch @ (0 | 1)), Reply::Array(results)]) = <[Reply; 2]>::try_from(parts) else {
        return None;
    };
    let mut text = Vec::new();
    let mut list = Vec::with_capacity(results.len());
    for result in results {
        failed.set(failed.get() + usize::from(matches!(result, Reply::Error(_))));
        list.push(one(result, &mut text)?);
        text.push(b'\n');
    }
    let no = (branch == 0).then(|| {
        "a condition did not hold: ELSE was executed, and nothing behind THEN was applied".to_owned()
    });
    Some(Answer { text, json: json!({ "then": branch == 1, "results": list }), no })
}

/// One result: its line without an end, and its JSON.
fn one(result: Reply, text: &mut Vec<u8>) -> Option<Value> {
    let mut json = json!({});
    match result {
        Reply::Simple(status) => {
            text.extend_from_slice(status.as_bytes());
            json["status"] = json!(status);
        }
        Reply::Integer(n) => {
            text.extend_from_slice(n.to_string().as_bytes());
            json["integer"] = json!(n);
        }
        Reply::Bulk(value) => {
            text.extend_from_slice(&value);
            put_bytes(&mut json, "value", &value);
        }
        Reply::Nil | Reply::NilArray => {
            text.extend_from_slice(b"(nil)");
            json["value"] = Value::Null;
        }
        Reply::Array(parts) => {
            let Ok([Reply::Bulk(value), Reply::Integer(revision)]) = <[Reply; 2]>::try_from(parts) else {
                return None;
            };
            text.extend_from_slice(format!("{revision} ").as_bytes());
            text.extend_from_slice(&value);
            put_bytes(&mut json, "value", &value);
            json["rev"] = json!(revision);
        }
        Reply::Error(error) => {
            text.extend_from_slice(format!("(error) {error}").as_bytes());
            json["error"] = json!({ "class": error.class().word(), "text": error.text() });
        }
        _ => return None,
    }
    Some(json)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::ErrorReply;

    #[test]
    fn every_result_is_a_line_and_a_piece_of_json() {
        let results = vec![
            Reply::ok(),
            Reply::Integer(-3),
            Reply::Bulk("v".into()),
            Reply::Nil,
            Reply::Array(vec![Reply::Bulk("v".into()), Reply::Integer(7)]),
            ErrorReply::err("value is not an integer or out of range").into(),
        ];
        let failed = Cell::new(0);
        let reply = Reply::Array(vec![Reply::Integer(0), Reply::Array(results)]);
        let Answer { text, json, no } = answer(reply, &failed).expect("an answer");
        assert_eq!(
            String::from_utf8(text).expect("text"),
            "OK\n-3\nv\n(nil)\n7 v\n(error) ERR value is not an integer or out of range\n"
        );
        assert_eq!(json["then"], json!(false));
        assert_eq!(json["results"][4], json!({ "value": "v", "rev": 7 }));
        assert_eq!(json["results"][5]["error"]["class"], json!("ERR"));
        assert!(no.is_some() && failed.get() == 1);
    }

    #[test]
    fn what_is_no_answer_to_a_multiop_is_none() {
        let failed = Cell::new(0);
        for reply in [
            Reply::ok(),
            Reply::Array(vec![]),
            Reply::Array(vec![Reply::Integer(2), Reply::Array(vec![])]),
            Reply::Array(vec![Reply::Integer(1), Reply::Array(vec![Reply::Array(vec![])])]),
        ] {
            assert!(answer(reply, &failed).is_none());
        }
    }
}
