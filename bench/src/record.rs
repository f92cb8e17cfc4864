//! `--verify`: the history as it was recorded, and its judgement.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use sim::history::{Action, History, Operation, Outcome, Verdict, check};

use crate::payload::Layout;
use crate::{End, Failure};

/// One operation, small enough to keep millions of them. Numbers stand for values until a key is judged.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The connection.
    pub client: u32,
    /// The key's number.
    pub key: u32,
    /// When it was first sent, in nanoseconds on the run's clock.
    pub invoke: u64,
    /// When its reply was read; without meaning if there was none.
    pub response: u64,
    /// What was asked.
    pub asked: Asked,
    /// What was learnt.
    pub seen: Seen,
}

/// What a client asked.
#[derive(Clone, Copy, Debug)]
pub enum Asked {
    /// The value.
    Get,
    /// To put the value of this sequence number.
    Put(u64),
    /// To put `new` if the value is `old`.
    Cas {
        /// A sequence number.
        old: u64,
        /// Another.
        new: u64,
    },
    /// To count one up.
    Incr,
}

/// What a client learnt from a reply.
#[derive(Clone, Debug)]
pub enum Seen {
    /// A put was acknowledged.
    Done,
    /// Nothing: outcome unknown.
    Nothing,
    /// The key was absent.
    Nil,
    /// The value of this sequence number.
    Sequence(u64),
    /// Whether a compare-and-swap was applied.
    Flag(bool),
    /// What a counter came to.
    Number(i64),
    /// Bytes that nobody put.
    Strange(Box<[u8]>),
}

/// What the judge said.
#[derive(Debug, Serialize)]
pub struct Judged {
    /// Operations recorded.
    pub operations: usize,
    /// `linearizable`, `not linearizable` or `undecided`.
    pub verdict: &'static str,
    /// The story of the first wrong key, or what could not be decided.
    pub explanation: Option<String>,
    /// How the command ends for this.
    #[serde(skip)]
    pub end: End,
}

/// Judges what was recorded, key by key, and keeps it in `file` if asked.
pub fn judge(mut entries: Vec<Entry>, layout: &Layout, file: Option<&Path>) -> Result<Judged, Failure> {
    entries.sort_by_key(|entry| entry.key);
    let mut file = file.map(|path| Ok::<_, Failure>((create(path)?, path))).transpose()?;
    let mut total =
        Judged { operations: entries.len(), verdict: "linearizable", explanation: None, end: End::Right };
    for of_key in entries.chunk_by(|a, b| a.key == b.key) {
        let history = history_of(of_key, layout)?;
        if let Some((file, path)) = &mut file {
            history.write_to(file).map_err(|error| unwritable(path, &error))?;
        }
        if total.end != End::Wrong {
            total.take(check(&history));
        }
    }
    if let Some((mut file, path)) = file {
        file.flush().map_err(|error| unwritable(path, &error))?;
    }
    Ok(total)
}

impl Judged {
    fn take(&mut self, verdict: Verdict) {
        let (name, explanation, end) = match verdict {
            Verdict::Linearizable => return,
            Verdict::NotLinearizable(explanation) => {
                ("not linearizable", explanation.to_string(), End::Wrong)
            }
            Verdict::Undecided(undecided) => ("undecided", undecided.to_string(), End::Undecided),
        };
        (self.verdict, self.explanation, self.end) = (name, Some(explanation), end);
    }
}

/// `pelago-bench judge`: judges kept histories again.
pub fn judge_files(files: &[PathBuf]) -> Result<End, Failure> {
    let mut worst = End::Right;
    for path in files {
        let name = path.display();
        let file = File::open(path).map_err(|error| Failure(format!("cannot open {name}: {error}")))?;
        let history =
            History::read_from(BufReader::new(file)).map_err(|error| Failure(format!("{name}: {error}")))?;
        let verdict = check(&history);
        println!("{name}: {} operations, {verdict}", history.operations().len());
        worst = match verdict {
            Verdict::Linearizable => worst,
            Verdict::NotLinearizable(_) => End::Wrong,
            Verdict::Undecided(_) if worst == End::Right => End::Undecided,
            Verdict::Undecided(_) => worst,
        };
    }
    Ok(worst)
}

fn create(path: &Path) -> Result<BufWriter<File>, Failure> {
    File::create(path).map(BufWriter::new).map_err(|error| unwritable(path, &error))
}

fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    Failure(format!("cannot write the history to {}: {error}", path.display()))
}

fn history_of(entries: &[Entry], layout: &Layout) -> Result<History, Failure> {
    let mut history = History::new();
    for entry in entries {
        let (action, key) = match entry.asked {
            Asked::Get => (Action::Get, layout.key(entry.key)),
            Asked::Put(sequence) => (Action::Put(value(sequence)), layout.key(entry.key)),
            Asked::Cas { old, new } => {
                (Action::Cas { old: value(old), new: value(new) }, layout.key(entry.key))
            }
            Asked::Incr => (Action::Add(1), layout.counter(entry.key)),
        };
        let outcome = match &entry.seen {
            Seen::Done => Outcome::Done,
            Seen::Nothing => Outcome::Unknown,
            Seen::Nil => Outcome::Value(None),
            Seen::Sequence(sequence) => Outcome::Value(Some(value(*sequence))),
            Seen::Flag(applied) => Outcome::Flag(*applied),
            Seen::Number(sum) => Outcome::Number(*sum),
            Seen::Strange(bytes) => Outcome::Value(Some([b"?", &bytes[..]].concat())),
        };
        let operation = Operation {
            client: u64::from(entry.client),
            key,
            invoke: entry.invoke,
            response: (outcome != Outcome::Unknown).then_some(entry.response),
            action,
            outcome,
        };
        history.push(operation).map_err(|malformed| Failure(malformed.to_string()))?;
    }
    Ok(history)
}

/// The sequence number is unique in the run, so it stands for the whole value.
fn value(sequence: u64) -> Vec<u8> {
    format!("{sequence:x}").into_bytes()
}
