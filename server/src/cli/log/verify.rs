//! `pelago log verify`

use std::path::Path;

use bytes::Bytes;
use groups::kv::Command;
use groups::kv::value::Value;
use groups::log::Record;

use super::dump::{Count, totals};
use super::source::{Ending, Source};
use crate::cli::{Failure, print};

/// How many values of unknown shape are named.
const NAMED: usize = 10;

pub fn run(dir: &Path) -> Result<(), Failure> {
    let source = Source::open(dir)?;
    let mut count = Count::default();
    let mut strange = 0_u64;
    let ending = source.read(&mut |at, record| {
        count.record(&record);
        let (Record::Accept { value, .. } | Record::Chosen { value, .. }) = &record else { return };
        if !has_known_shape(value) {
            strange += 1;
            if count.strange.len() < NAMED {
                let group = record.group();
                let (file, offset) = (at.segment.file_name(), at.offset);
                count.strange.push(format!("{file} at byte {offset} (group {group})"));
            }
        }
    })?;
    print(format!("{source}\n{count}"))?;
    match ending {
        Ending::None => print("sound: there is no log yet\n"),
        Ending::Damaged(what) => Err(Failure::no(format!(
            "damaged: {what}. Nothing was changed. The node will refuse to start on it, because a restart must not \
             pretend to remember; the other members of its groups still have the data"
        ))),
        Ending::Whole(found) if strange > 0 => {
            print(totals(&found))?;
            Err(Failure::no(format!(
                "all checksums hold, but {strange} values have a shape that this version does not know: {}. \
                 Nothing was changed. Was the log written by a newer version?",
                count.strange.join(", ")
            )))
        }
        Ending::Whole(found) => {
            let verdict = if found.torn.is_some() { "sound, with a torn tail" } else { "sound" };
            print(format!("{}{verdict}\n", totals(&found)))
        }
    }
}

fn has_known_shape(value: &Bytes) -> bool {
    match Value::decode(value.clone()) {
        Ok(Value::Batch(mut commands)) => {
            commands.all(|entry| entry.is_ok_and(|(_, command)| Command::decode(command).is_ok()))
        }
        Ok(Value::Noop | Value::Lead(_)) => true,
        Err(_) => false,
    }
}
