//! `pelago log dump`

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use bytes::Bytes;
use groups::ids::{GroupId, InstanceId, Member};
use groups::kv::value::Value;
use groups::kv::{Command, Condition, Guard, Life, Transaction, Verdict};
use groups::log::{At, Record, Recovered};
use groups::paxos::Members;

use super::source::{Ending, Source};
use crate::cli::Failure;

/// What is shown of one key or value.
const PREVIEW: usize = 40;
/// How many commands of one batch are shown.
const COMMANDS: usize = 4;

pub fn run(dir: &Path, only: Option<u32>) -> Result<(), Failure> {
    let source = Source::open(dir)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let mut failed = None;
    let mut count = Count::default();
    let ending = source.read(&mut |at, record| {
        count.record(&record);
        let wanted = only.is_none_or(|group| record.group() == GroupId(group));
        // The walk cannot be stopped from here; a reader that has gone is not written to again.
        if wanted && failed.is_none() {
            failed = writeln!(out, "{}", line(&at, &record)).err();
        }
    })?;
    match failed.or(out.flush().err()) {
        Some(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            return Err(Failure { code: 0, message: String::new() });
        }
        Some(error) => return Err(Failure::error(format!("could not write to stdout: {error}"))),
        None => {}
    }
    let mut summary = format!("{source}\n{count}");
    let outcome = match ending {
        Ending::None => {
            summary += "it has no log yet\n";
            Ok(())
        }
        Ending::Whole(found) => {
            summary += &totals(&found);
            Ok(())
        }
        Ending::Damaged(what) => Err(Failure::no(format!(
            "the log is damaged: {what}. The records above lie before the damage. Nothing was changed"
        ))),
    };
    // A closed stderr leaves nobody to tell.
    let _ = io::stderr().write_all(summary.as_bytes());
    outcome
}

/// What a whole log consists of, with a line end.
pub fn totals(found: &Recovered) -> String {
    let Recovered { records, commits, segments, last_commit, torn, .. } = found;
    let mut text =
        format!("{records} records in {commits} commits in {segments} segments, last commit {last_commit}\n");
    if let Some(torn) = torn {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "torn tail: {} at byte {}: {} bytes of a commit that was never acknowledged; the next start cuts them",
            torn.segment.file_name(),
            torn.offset,
            torn.bytes
        );
    }
    text
}

/// Records by kind, and how far each group's instances reach.
#[derive(Default)]
pub struct Count {
    promises: u64,
    accepts: u64,
    chosen: u64,
    watermarks: u64,
    anchors: u64,
    value_bytes: u64,
    groups: BTreeMap<GroupId, (InstanceId, InstanceId)>,
    /// Values whose checksum holds and whose shape no version has written.
    pub strange: Vec<String>,
}

impl Count {
    /// Takes one record in.
    pub fn record(&mut self, record: &Record) {
        match record {
            Record::Promise { .. } => self.promises += 1,
            Record::Accept { value, .. } => {
                self.accepts += 1;
                self.value_bytes += value.len() as u64;
            }
            Record::Chosen { value, .. } => {
                self.chosen += 1;
                self.value_bytes += value.len() as u64;
            }
            Record::Watermark { .. } => self.watermarks += 1,
            Record::Anchor { .. } => self.anchors += 1,
        }
        if let Record::Accept { group, instance, .. } | Record::Chosen { group, instance, .. } = record {
            let span = self.groups.entry(*group).or_insert((*instance, *instance));
            *span = (span.0.min(*instance), span.1.max(*instance));
        }
    }
}

impl std::fmt::Display for Count {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Count { promises, accepts, chosen, watermarks, anchors, value_bytes, groups, .. } = self;
        writeln!(
            f,
            "{promises} promises, {accepts} accepts, {chosen} chosen, {watermarks} watermarks, {anchors} anchors, {value_bytes} bytes of values"
        )?;
        let highest = groups.iter().max_by_key(|(_, (_, last))| *last);
        if let Some((group, (first, last))) = highest {
            let count = groups.len();
            writeln!(
                f,
                "values of {count} groups; the longest is group {group}, instances {first} to {last}"
            )?;
        }
        Ok(())
    }
}

/// One record in one line.
pub fn line(at: &At, record: &Record) -> String {
    let mut text =
        format!("{}:{} commit={} group={} ", at.segment.file_name(), at.offset, at.commit, record.group());
    // Writing to a string cannot fail.
    let _ = match record {
        Record::Promise { ballot, .. } => write!(text, "promise ballot={ballot}"),
        Record::Watermark { first: InstanceId::ZERO, instance, .. } => {
            write!(text, "watermark instance={instance}")
        }
        Record::Watermark { first, instance, .. } => {
            write!(text, "watermark instance={instance} first={first}")
        }
        Record::Anchor { instance, chain, ballot, members, .. } => {
            let members = match Members::decode(members.clone()) {
                Some(members) => format!(" {}", shown_members(members.list())),
                None => String::new(),
            };
            write!(text, "anchor instance={instance} ballot={ballot} chain={chain:016x}{members}")
        }
        Record::Accept { instance, ballot, value, .. } => {
            write!(text, "accept instance={instance} ballot={ballot} {}", shown_value(value))
        }
        Record::Chosen { instance, ballot, value, .. } => {
            write!(text, "chosen instance={instance} ballot={ballot} {}", shown_value(value))
        }
    };
    text
}

fn shown_members(list: &[Member]) -> String {
    let members: Vec<String> = list.iter().map(|m| format!("{} on {}", m.node, m.storage)).collect();
    format!("members {}", members.join(", "))
}

fn shown_value(bytes: &Bytes) -> String {
    let length = bytes.len();
    match Value::decode(bytes.clone()) {
        Ok(Value::Noop) => "no-op".to_owned(),
        Ok(Value::Lead(node)) => format!("lead node={node}"),
        Ok(Value::Members(new)) => shown_members(&new.list),
        Ok(Value::Check(None)) => "check".to_owned(),
        Ok(Value::Check(Some(Verdict::Agreed(point)))) => {
            format!("check agreed={} state={}", point.instance, point.sum)
        }
        Ok(Value::Check(Some(Verdict::Split(instance)))) => format!("check split={instance}"),
        Ok(Value::Expire { clock, most }) => format!("expire clock={clock}ms most={most}"),
        Ok(Value::Batch(commands)) => {
            let clock = match commands.clock() {
                0 => String::new(),
                clock => format!(" clock={clock}ms"),
            };
            let mut text = String::new();
            let mut count = 0;
            for entry in commands {
                count += 1;
                if count > COMMANDS {
                    continue;
                }
                let separator = if count == 1 { "" } else { "; " };
                text += separator;
                text += &match entry.map(|(_, command)| Command::decode(command)) {
                    Ok(Ok(command)) => shown_command(&command),
                    Ok(Err(_)) | Err(_) => "?".to_owned(),
                };
            }
            let more = if count > COMMANDS { "; …" } else { "" };
            format!("batch of {count} in {length} bytes{clock}: {text}{more}")
        }
        Err(_) => format!("{length} bytes of unknown shape: {}", preview(bytes)),
    }
}

fn shown_command(command: &Command) -> String {
    let keys = |name: &str, keys: &[Bytes]| {
        let first = keys.first().map(|key| preview(key)).unwrap_or_default();
        if keys.len() > 1 {
            format!("{name} {first} … ({} keys)", keys.len())
        } else {
            format!("{name} {first}")
        }
    };
    match command {
        Command::Get { key } => format!("get {}", preview(key)),
        Command::Length { key } => format!("length {}", preview(key)),
        Command::GetMany { keys: many } => keys("get", many),
        Command::Exists { keys: many } => keys("exists", many),
        Command::Count => "count".to_owned(),
        Command::Rest { key } => format!("rest {}", preview(key)),
        Command::Epoch => "epoch".to_owned(),
        Command::Fenced { token, command } => format!("fenced {token} {}", shown_command(command)),
        Command::Scan(range) => format!("scan from {}", preview(&range.from)),
        Command::InSlot(question) => format!("keys of slot {}", question.slot),
        Command::Walk(walk) => format!("walk from place {}", walk.from),
        Command::Changes(since) => format!("changes of {}", preview(&since.prefix)),
        Command::Put { key, value, condition, .. } => {
            format!("put {} = {}{}", preview(key), preview(value), shown_condition(condition))
        }
        Command::PutFor { key, value, condition, life, .. } => {
            let life = match life {
                Life::Keep => " keeping its life".to_owned(),
                Life::For(millis) => format!(" for {millis}ms"),
            };
            format!("put {} = {}{life}{}", preview(key), preview(value), shown_condition(condition))
        }
        Command::Renew { key, renewal } => match renewal.life {
            Some(millis) => format!("renew {} for {millis}ms", preview(key)),
            None => format!("renew {} for good", preview(key)),
        },
        Command::Roll => "roll".to_owned(),
        Command::SetRoll { expect, bytes } => {
            format!("set the roll, version {expect}, {} bytes", bytes.len())
        }
        Command::Once { req, command } => {
            format!("once {}:{} {}", req.client.escape_ascii(), req.seq, shown_command(command))
        }
        Command::PutMany { pairs } => match pairs.first() {
            Some((key, value)) => {
                format!("put {} = {} … ({} pairs)", preview(key), preview(value), pairs.len())
            }
            None => "put nothing".to_owned(),
        },
        Command::Delete { keys: many } => keys("delete", many),
        Command::Take { key } => format!("take {}", preview(key)),
        Command::Add { key, delta } => format!("add {} {delta:+}", preview(key)),
        Command::Append { key, value, .. } => format!("append {} {}", preview(key), preview(value)),
        Command::Cas { key, old, new } => {
            format!("cas {} {} -> {}", preview(key), preview(old), preview(new))
        }
        Command::Revisions { keys: many } => keys("revisions", many),
        Command::Transaction(transaction) => shown_transaction(transaction),
    }
}

fn shown_condition(condition: &Condition) -> String {
    match condition {
        Condition::None => String::new(),
        Condition::Absent => " if absent".to_owned(),
        Condition::Present => " if present".to_owned(),
        Condition::Revision(revision) => format!(" if revision {revision}"),
        Condition::Value(value) => format!(" if {}", preview(value)),
        Condition::Epoch(epoch) => format!(" if epoch {epoch}"),
        Condition::Fence(token) => format!(" if no token over {token}"),
    }
}

fn shown_transaction(transaction: &Transaction) -> String {
    let list = |commands: &[Command]| {
        let mut shown: Vec<String> = commands.iter().take(COMMANDS).map(shown_command).collect();
        if commands.len() > COMMANDS {
            shown.push(format!("… ({} commands)", commands.len()));
        }
        shown.join(", ")
    };
    let guard = |guard: &Guard| format!("{}{}", preview(&guard.key), shown_condition(&guard.condition));
    let mut guards: Vec<String> = transaction.guards.iter().take(COMMANDS).map(guard).collect();
    if transaction.guards.len() > COMMANDS {
        guards.push(format!("… ({} guards)", transaction.guards.len()));
    }
    let (then, otherwise) = (list(&transaction.then), list(&transaction.otherwise));
    format!("transaction [{}] then [{then}] else [{otherwise}]", guards.join(", "))
}

/// Quoted, one line, bounded.
fn preview(bytes: &[u8]) -> String {
    match bytes.len() {
        0..=PREVIEW => format!("\"{}\"", bytes.escape_ascii()),
        length => format!("\"{}\"… ({length} bytes)", bytes[..PREVIEW].escape_ascii()),
    }
}
