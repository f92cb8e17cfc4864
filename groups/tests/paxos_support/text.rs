//! What a transcript says about messages, records and values.

use std::fmt::Write as _;

use bytes::Bytes;
use groups::group::{Answer, Reply};
use groups::ids::{Ballot, Boot, InstanceId, NodeId};
use groups::kv::value::{self, Batch, Value};
use groups::kv::{Command, Condition, Failure, Outcome, Ticket, Want};
use groups::log::Record;
use groups::paxos::Message;
use groups::paxos::message::{Entry, Then};

/// A command: `x=1`, `x+1`, or its shape where a transcript does not care.
pub fn command(bytes: &Bytes) -> String {
    match Command::decode(bytes.clone()) {
        Ok(Command::Put { key, value, .. }) => format!("{}={}", lossy(&key), lossy(&value)),
        Ok(Command::Add { key, delta }) => format!("{}+{delta}", lossy(&key)),
        Ok(other) => format!("{other:?}"),
        Err(e) => e.to_string(),
    }
}

/// Reads `x=1` or `x+1`.
pub fn parse_command(text: &str) -> Command {
    let bytes = |s: &str| Bytes::copy_from_slice(s.as_bytes());
    if let Some((key, value)) = text.split_once('=') {
        let condition = Condition::None;
        return Command::Put { key: bytes(key), value: bytes(value), condition, want: Want::Done };
    }
    let (key, delta) = text.split_once('+').unwrap_or_else(|| panic!("`{text}` is neither x=1 nor x+1"));
    Command::Add { key: bytes(key), delta: delta.parse().expect("a number") }
}

/// A chosen or proposed value: `no-op`, `lead(1)`, `[x=1 y=2]`.
pub fn value(bytes: &Bytes) -> String {
    match Value::decode(bytes.clone()) {
        Ok(Value::Noop) => "no-op".into(),
        Ok(Value::Lead(node)) => format!("lead({node})"),
        Ok(Value::Members(new)) => {
            let disks = new.list.iter().map(|m| match m.storage.0 - u128::from(m.node.0) {
                0 => m.node.to_string(),
                later => format!("{}{}", m.node, "'".repeat(later as usize / 100)),
            });
            format!("members({})", disks.collect::<Vec<_>>().join(" "))
        }
        Ok(Value::Check(verdict)) => format!("check({verdict:?})"),
        Ok(Value::Expire { clock, most }) => format!("expire({clock} {most})"),
        Ok(Value::Batch(commands)) => {
            let texts: Vec<String> = commands
                .map(|c| match c {
                    Ok((_, bytes)) => command(&bytes),
                    Err(e) => e.to_string(),
                })
                .collect();
            format!("[{}]", texts.join(" "))
        }
        Err(e) => e.to_string(),
    }
}

/// Reads a value in the form that [`value`] writes, commands as those of a foreign client.
pub fn parse_value(text: &str, number: u64) -> Bytes {
    if text == "no-op" {
        return value::noop();
    }
    if let Some(node) = text.strip_prefix("lead(").and_then(|t| t.strip_suffix(')')) {
        return value::lead(NodeId(node.parse().expect("a node")));
    }
    let mut batch = Batch::new();
    let ticket = Ticket { node: NodeId(9), boot: Boot(1), number, behind: 0 };
    batch.push(ticket, &parse_command(text.trim_matches(['[', ']'])).to_bytes());
    batch.finish()
}

fn lossy(bytes: &[u8]) -> String {
    if bytes.len() > 12 {
        return format!("({} bytes)", bytes.len());
    }
    String::from_utf8_lossy(bytes).into_owned()
}

pub fn parse_ballot(text: &str) -> Ballot {
    let (round, node) = text.split_once('.').expect("round.node");
    Ballot { round: round.parse().expect("a round"), node: NodeId(node.parse().expect("a node")) }
}

fn entries(list: &[Entry]) -> String {
    if list.is_empty() {
        return "nothing".into();
    }
    let texts: Vec<String> =
        list.iter().map(|e| format!("#{} at {} {}", e.instance, e.ballot, value(&e.value))).collect();
    texts.join(", ")
}

fn run(first: InstanceId, last: InstanceId) -> String {
    if first == last { format!("#{first}") } else { format!("#{first}..{last}") }
}

/// A message on one line.
pub fn message(message: &Message) -> String {
    let mut out = message.name().to_string();
    let rest = match message {
        Message::Probe(m) => format!("chosen {}", m.chosen),
        Message::ProbeReply(m) => {
            format!("{}, promised {}", if m.granted { "yes" } else { "no" }, m.promised)
        }
        Message::Prepare(m) => {
            format!(
                "{} from #{}{}",
                m.ballot,
                m.from,
                if m.consent > Ballot::ZERO { format!(", consent {}", m.consent) } else { String::new() }
            )
        }
        Message::Promise(m) => {
            let part =
                if m.parts > 1 { format!(", part {} of {}", m.part + 1, m.parts) } else { String::new() };
            format!("{} chosen {}{part}: {}", m.ballot, m.chosen, entries(&m.entries))
        }
        Message::Accept(m) => {
            format!("{} #{} {} (chosen {})", m.ballot, m.instance, value(&m.value), m.mark.instance)
        }
        Message::Accepted(m) => format!("{} {} (chosen {})", m.ballot, run(m.first, m.last), m.chosen),
        Message::Reject(m) => format!("{}, promised {}", m.refused, m.promised),
        Message::Advance(m) => {
            let mut text = format!("{} chosen {}", m.ballot, m.mark.instance);
            if m.barrier > 0 {
                let _ = write!(text, " barrier {}", m.barrier);
            }
            text
        }
        Message::AdvanceReply(m) => {
            let mut text = format!("{} chosen {}", m.ballot, m.chosen);
            if m.barrier > 0 {
                let _ = write!(text, " barrier {}", m.barrier);
            }
            text
        }
        Message::Ask(_) => "how far am I behind?".to_owned(),
        Message::Learn(m) if m.credit == 0 => format!("s{}: enough", session(m.session)),
        Message::Learn(m) => format!("s{}: from #{}", session(m.session), m.from),
        Message::Values(m) => {
            let then = match m.then {
                Then::More => String::new(),
                Then::End => ", end".into(),
                Then::Begins(first) => format!(", the log begins with #{first}"),
            };
            let what = if m.entries.is_empty() { format!("next #{}", m.first) } else { entries(&m.entries) };
            format!("s{}: {what}{then}", session(m.session))
        }
        Message::Transfer(m) => format!("{}", m.ballot),
        Message::Part(m) => {
            let nodes: Vec<String> = m.members.nodes().iter().map(ToString::to_string).collect();
            format!("{} chosen {}, members {}", m.ballot, m.mark.instance, nodes.join(" "))
        }
        Message::Report(m) => format!("#{} is {}", m.point.instance, m.point.sum),
    };
    let _ = write!(out, " {rest}");
    out
}

/// Boot and number of a learning session.
fn session(number: u64) -> String {
    format!("{}.{}", number >> 32, number & 0xffff_ffff)
}

/// A record on one line.
pub fn record(record: &Record) -> String {
    match record {
        Record::Promise { ballot, .. } => format!("promise {ballot}"),
        Record::Accept { instance, ballot, value: v, .. } => {
            format!("accept {ballot} #{instance} {}", value(v))
        }
        Record::Chosen { instance, ballot, value: v, .. } => {
            format!("chosen {ballot} #{instance} {}", value(v))
        }
        Record::Watermark { instance, .. } => format!("watermark #{instance}"),
        Record::Anchor { instance, ballot, .. } => format!("anchor {ballot} #{instance}"),
    }
}

/// An answer on one line: `write 1/1/3: done` names node, life and number.
pub fn answer(answer: &Answer) -> String {
    let kind = if answer.read { "read" } else { "write" };
    let reply = match &answer.reply {
        Reply::Outcome(outcome) => self::outcome(outcome),
        Reply::NotLeader(Some(node)) => format!("not leader, ask {node}"),
        Reply::NotLeader(None) => "not leader".into(),
        Reply::Busy => "busy".into(),
        Reply::Halted => "halted".into(),
    };
    format!("{kind} {}/{}/{}: {reply}", answer.to, answer.boot, answer.number)
}

/// An outcome in words.
pub fn outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done => "done".into(),
        Outcome::Unmet => "unmet".into(),
        Outcome::Revision(revision) => format!("revision {revision}"),
        Outcome::Integer(n) => format!("{n}"),
        Outcome::Value(None) => "absent".into(),
        Outcome::Value(Some((value, _))) => lossy(value),
        Outcome::Values(values) => format!("{} values", values.len()),
        Outcome::Revisions(revisions) => format!("{} revisions", revisions.len()),
        Outcome::Transaction { met, outcomes } => {
            let outcomes: Vec<String> = outcomes.iter().map(self::outcome).collect();
            format!("{}: {}", if *met { "then" } else { "else" }, outcomes.join("; "))
        }
        Outcome::Failed(Failure::OutOfOrder) => "refused, out of order".into(),
        Outcome::Failed(failure) => format!("failed, {failure:?}"),
        Outcome::Retired => "retired".into(),
        Outcome::Forgotten { .. } | Outcome::Unkept => "forgotten".into(),
        other => format!("{other:?}"),
    }
}
