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
    let (text, verdict) = verify(dir)?;
    print(text)?;
    verdict
}

/// What is to be printed, and how the command ends.
pub fn verify(dir: &Path) -> Result<(String, Result<(), Failure>), Failure> {
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
    let mut text = format!("{source}\n{count}");
    let verdict = match ending {
        Ending::None => {
            text += "sound: there is no log yet\n";
            Ok(())
        }
        Ending::Damaged(what) => Err(Failure::no(format!(
            "damaged: {what}. Nothing was changed. The node will refuse to start on it, because a restart must not \
             pretend to remember; the other members of its groups still have the data"
        ))),
        Ending::Whole(found) if strange > 0 => {
            text += &totals(&found);
            Err(Failure::no(format!(
                "all checksums hold, but {strange} values have a shape that this version does not know: {}. \
                 Nothing was changed. Was the log written by a newer version?",
                count.strange.join(", ")
            )))
        }
        Ending::Whole(found) => {
            text += &totals(&found);
            text += if found.torn.is_some() { "sound, with a torn tail\n" } else { "sound\n" };
            Ok(())
        }
    };
    Ok((text, verdict))
}

fn has_known_shape(value: &Bytes) -> bool {
    match Value::decode(value.clone()) {
        Ok(Value::Batch(mut commands)) => {
            commands.all(|entry| entry.is_ok_and(|(_, command)| Command::decode(command).is_ok()))
        }
        Ok(Value::Noop | Value::Lead(_) | Value::Check(_) | Value::Members(_) | Value::Expire { .. }) => true,
        Err(_) => false,
    }
}
