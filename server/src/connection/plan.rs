//! From a client's data command to commands of groups, and from their outcomes to one reply.

use std::collections::BTreeMap;

use bytes::Bytes;
use groups::ids::{GroupId, NodeId, Slot};
use groups::kv::{self, Failure, Life, Outcome, Renewal, Req, Want};

use super::ordered::{self, Gather};
use super::transaction::{self, Branches};
use super::wall::unix_millis;
use crate::node::layout::Layout;
use crate::node::requests::Refusal;
use crate::protocol::{
    Combine, Condition, DataCommand, ErrorClass, ErrorReply, KeyOperation, ManyKeys, Operation, PutAnswer,
    Reply, slot_of,
};

/// One group's part of a command.
#[derive(Debug)]
pub struct Piece {
    /// The group.
    pub group: GroupId,
    /// What it is asked.
    pub command: kv::Command,
}

/// How the outcome of a single piece reads as a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Value { revision: bool },
    Number,
    Put(PutAnswer),
    List,
    Rest { seconds: bool, at: bool },
    Kind,
    Part { start: i64, end: i64 },
}

/// A command under way: what has come of its pieces so far.
#[derive(Debug)]
pub struct Join {
    missing: usize,
    /// A write that some groups applied and others refused is in doubt as a whole.
    write: bool,
    applied: bool,
    refused: Option<(GroupId, Refusal)>,
    failed: Option<Failure>,
    /// The number that the client has given the command, and why its outcome is not known.
    req: Option<Req>,
    lost: Option<(GroupId, Lost)>,
    kind: Kind,
    /// The slot of its keys, if the client is to be told where they are instead of being forwarded.
    slot: Option<Slot>,
}

/// Why nobody knows the outcome of a numbered command.
#[derive(Clone, Copy, Debug)]
enum Lost {
    /// It is older than what is remembered of its client.
    Forgotten { newest: u64 },
    /// It was too large to be remembered.
    Unkept,
}

#[derive(Debug)]
enum Kind {
    One { shape: Shape, outcome: Option<Outcome> },
    List { values: Vec<Option<Bytes>>, places: BTreeMap<GroupId, Vec<u32>> },
    Sum(i64),
    Ok,
    Watch { keys: Vec<Bytes>, revisions: Vec<u64>, places: BTreeMap<GroupId, Vec<u32>> },
    Transaction { branches: Branches, outcome: Option<Outcome> },
    Ordered(Gather),
}

/// Splits a command by group.
///
/// # Errors
/// When it cannot be split and its keys are of several groups.
pub fn plan(command: DataCommand, layout: &Layout, max_value: u32) -> Result<(Vec<Piece>, Join), ErrorReply> {
    let write = command.is_write();
    let (command, req) = match command {
        DataCommand::Once { req, command } => (*command, Some(req)),
        command => (command, None),
    };
    let (command, fence) = match command {
        DataCommand::Fenced { token, command } => (*command, Some(token)),
        command => (command, None),
    };
    let (mut pieces, kind) = match command {
        DataCommand::One(one) => {
            let group = layout.group_of(slot_of(&one.key));
            let (command, shape) = single(one, max_value);
            (vec![Piece { group, command }], Kind::One { shape, outcome: None })
        }
        DataCommand::Many(many) => split(many, layout),
        DataCommand::Size => {
            let pieces = (0..layout.groups())
                .map(|g| Piece { group: GroupId(g), command: kv::Command::Count })
                .collect();
            (pieces, Kind::Sum(0))
        }
        DataCommand::Revisions(keys) => {
            let mut parts: BTreeMap<GroupId, (Vec<Bytes>, Vec<u32>)> = BTreeMap::new();
            for (place, key) in (0..).zip(&keys) {
                let (part, places) = parts.entry(layout.group_of(slot_of(key))).or_default();
                part.push(key.clone());
                places.push(place);
            }
            let places = parts.iter().map(|(group, (_, places))| (*group, places.clone())).collect();
            let revisions = vec![0; keys.len()];
            let pieces = pieces(parts, |(keys, _)| kv::Command::Revisions { keys });
            (pieces, Kind::Watch { keys, revisions, places })
        }
        DataCommand::Transaction(transaction) => {
            let (piece, branches) = transaction::plan(transaction, layout, max_value)?;
            (vec![piece], Kind::Transaction { branches, outcome: None })
        }
        DataCommand::Once { .. } | DataCommand::Fenced { .. } => {
            unreachable!("no command is numbered twice, and a fence is inside the number")
        }
        DataCommand::Ordered(command) => {
            let (pieces, gather) = ordered::plan(command, layout);
            (pieces, Kind::Ordered(gather))
        }
    };
    if let Some(token) = fence {
        one_group(&pieces)?;
        for piece in &mut pieces {
            let command = Box::new(std::mem::replace(&mut piece.command, kv::Command::Count));
            piece.command = kv::Command::Fenced { token, command };
        }
    }
    if let Some(req) = &req {
        for piece in &mut pieces {
            let command = Box::new(std::mem::replace(&mut piece.command, kv::Command::Count));
            piece.command = kv::Command::Once { req: req.clone(), command };
        }
    }
    let missing = pieces.len();
    Ok((
        pieces,
        Join {
            missing,
            write,
            applied: false,
            refused: None,
            failed: None,
            req,
            lost: None,
            kind,
            slot: None,
        },
    ))
}

/// A fence that refuses the part of one group would leave that of another one applied.
fn one_group(pieces: &[Piece]) -> Result<(), ErrorReply> {
    let mut keys = pieces.iter().filter_map(|piece| Some((piece.command.written().next()?, piece.group)));
    match (keys.next(), keys.next()) {
        (Some((one, group)), Some((other, another))) => {
            Err(ErrorReply::cross_slot((one, group), (other, another)))
        }
        _ => Ok(()),
    }
}

pub(super) fn single(one: KeyOperation, max_value: u32) -> (kv::Command, Shape) {
    let key = one.key;
    match one.operation {
        Operation::Get { revision, .. } => (kv::Command::Get { key }, Shape::Value { revision }),
        Operation::Length => (kv::Command::Length { key }, Shape::Number),
        Operation::Exists => (kv::Command::Exists { keys: vec![key] }, Shape::Number),
        Operation::Kind => (kv::Command::Exists { keys: vec![key] }, Shape::Kind),
        Operation::Part { start, end } => (kv::Command::Get { key }, Shape::Part { start, end }),
        Operation::Put(put) => {
            let condition = condition(put.condition);
            let want = match put.answer {
                PutAnswer::Ok | PutAnswer::Flag => Want::Done,
                PutAnswer::Revision => Want::Revision,
                PutAnswer::Previous => Want::Previous,
            };
            let life = match put.until {
                Some(until) => Some(Life::For(until.life(unix_millis()))),
                None => put.keep_ttl.then_some(Life::Keep),
            };
            let value = put.value;
            let command = match life {
                None => kv::Command::Put { key, value, condition, want },
                Some(life) => kv::Command::PutFor { key, value, condition, want, life },
            };
            (command, Shape::Put(put.answer))
        }
        Operation::Delete => (kv::Command::Delete { keys: vec![key] }, Shape::Number),
        Operation::GetDelete => (kv::Command::Take { key }, Shape::Value { revision: false }),
        Operation::Add(delta) => (kv::Command::Add { key, delta }, Shape::Number),
        Operation::Append(value) => (kv::Command::Append { key, value, max: max_value }, Shape::Number),
        Operation::CompareAndSwap { old, new } => (kv::Command::Cas { key, old, new }, Shape::Number),
        Operation::Renew(renew) => {
            let life = renew.until.map(|until| until.life(unix_millis()));
            let renewal = Renewal { life, when: renew.when, value: renew.value };
            let shape = if renew.value { Shape::Value { revision: false } } else { Shape::Number };
            (kv::Command::Renew { key, renewal }, shape)
        }
        Operation::Epoch => (kv::Command::Epoch, Shape::Number),
        Operation::Rest { seconds, at } => (kv::Command::Rest { key }, Shape::Rest { seconds, at }),
    }
}

pub(super) fn condition(condition: Condition) -> kv::Condition {
    match condition {
        Condition::Always => kv::Condition::None,
        Condition::Absent => kv::Condition::Absent,
        Condition::Present => kv::Condition::Present,
        Condition::Revision(revision) => kv::Condition::Revision(revision),
        Condition::Value(value) => kv::Condition::Value(value),
        Condition::Epoch(epoch) => kv::Condition::Epoch(epoch),
        Condition::Fence(token) => kv::Condition::Fence(token),
    }
}

fn split(many: ManyKeys, layout: &Layout) -> (Vec<Piece>, Kind) {
    let group_of = |key: &Bytes| layout.group_of(slot_of(key));
    let combine = many.combine();
    let mut places: BTreeMap<GroupId, Vec<u32>> = BTreeMap::new();
    for (place, key) in (0..).zip(many.keys()) {
        places.entry(group_of(key)).or_default().push(place);
    }
    let count = many.len();
    let by_group = |keys: Vec<Bytes>| {
        let mut parts: BTreeMap<GroupId, Vec<Bytes>> = BTreeMap::new();
        for key in keys {
            parts.entry(group_of(&key)).or_default().push(key);
        }
        parts
    };
    let pieces = match many {
        ManyKeys::Get(keys) => pieces(by_group(keys), |keys| kv::Command::GetMany { keys }),
        ManyKeys::Delete(keys) => pieces(by_group(keys), |keys| kv::Command::Delete { keys }),
        ManyKeys::Exists(keys) => pieces(by_group(keys), |keys| kv::Command::Exists { keys }),
        ManyKeys::Put(pairs) => {
            let mut parts: BTreeMap<GroupId, Vec<(Bytes, Bytes)>> = BTreeMap::new();
            for pair in pairs {
                parts.entry(group_of(&pair.0)).or_default().push(pair);
            }
            pieces(parts, |pairs| kv::Command::PutMany { pairs })
        }
    };
    let kind = match combine {
        Combine::List => Kind::List { values: vec![None; count], places },
        Combine::Sum => Kind::Sum(0),
        Combine::Ok => Kind::Ok,
    };
    (pieces, kind)
}

fn pieces<T>(parts: BTreeMap<GroupId, T>, command: impl Fn(T) -> kv::Command) -> Vec<Piece> {
    parts.into_iter().map(|(group, part)| Piece { group, command: command(part) }).collect()
}

impl Join {
    /// Whether it may change data.
    #[must_use]
    pub fn is_write(&self) -> bool {
        self.write
    }

    /// What the connection has answered by itself among the commands of a transaction, each with its
    /// place.
    pub fn set_locals(&mut self, locals: Vec<(usize, Reply)>) {
        if let Kind::Transaction { branches, .. } = &mut self.kind {
            branches.locals = locals;
        }
    }

    /// The client is to be told where the keys of this slot are.
    pub fn set_slot(&mut self, slot: Option<Slot>) {
        self.slot = slot;
    }

    /// Who leads the slot's group, when this node does not and the client is to be told.
    #[must_use]
    pub fn moved(&self) -> Option<(Slot, NodeId)> {
        match (self.slot, self.refused) {
            (Some(slot), Some((_, Refusal::Moved(node)))) => Some((slot, node)),
            _ => None,
        }
    }

    /// Whether it is a `WATCH`: the connection takes no other command before it is answered.
    #[must_use]
    pub fn is_watch(&self) -> bool {
        matches!(self.kind, Kind::Watch { .. })
    }

    /// What a `WATCH` has seen, once every piece has come: nothing when one was refused.
    pub fn seen(&mut self) -> impl Iterator<Item = (Bytes, u64)> + use<> {
        let whole = self.refused.is_none() && self.failed.is_none();
        let (keys, revisions) = match &mut self.kind {
            Kind::Watch { keys, revisions, .. } if whole => (std::mem::take(keys), std::mem::take(revisions)),
            _ => (Vec::new(), Vec::new()),
        };
        keys.into_iter().zip(revisions)
    }

    /// Takes what came of one piece. Returns whether that was the last one.
    pub fn take(&mut self, group: GroupId, result: Result<Outcome, Refusal>) -> bool {
        self.missing -= 1;
        match result {
            Err(refusal) => {
                // In doubt outweighs refused: something may have been applied.
                if self.refused.is_none() || refusal == Refusal::InDoubt {
                    self.refused = Some((group, refusal));
                }
            }
            Ok(Outcome::Failed(failure)) => self.failed = Some(failure),
            Ok(Outcome::Forgotten { newest }) => self.lost = Some((group, Lost::Forgotten { newest })),
            Ok(Outcome::Unkept) => self.lost = Some((group, Lost::Unkept)),
            Ok(outcome) => {
                self.applied = true;
                match &mut self.kind {
                    Kind::One { outcome: slot, .. } | Kind::Transaction { outcome: slot, .. } => {
                        *slot = Some(outcome);
                    }
                    Kind::Watch { revisions, places, .. } => {
                        if let (Outcome::Revisions(found), Some(places)) = (outcome, places.get(&group)) {
                            for (place, revision) in places.iter().zip(found) {
                                revisions[*place as usize] = revision;
                            }
                        }
                    }
                    Kind::List { values, places } => {
                        if let (Outcome::Values(found), Some(places)) = (outcome, places.get(&group)) {
                            for (place, value) in places.iter().zip(found) {
                                values[*place as usize] = value;
                            }
                        }
                    }
                    Kind::Sum(sum) => {
                        if let Outcome::Integer(n) = outcome {
                            *sum += n;
                        }
                    }
                    Kind::Ok => {}
                    Kind::Ordered(gather) => gather.take(outcome),
                }
            }
        }
        self.missing == 0
    }

    /// The reply, once every piece has come.
    #[must_use]
    pub fn reply(self, max_value: u64) -> Reply {
        if let Some((group, refusal)) = self.refused {
            let refusal = if self.write && self.applied { Refusal::InDoubt } else { refusal };
            return refusal_reply(group, refusal, self.applied, self.req.is_some()).into();
        }
        if let Some((group, lost)) = self.lost {
            return lost_reply(group, lost, self.req.as_ref()).into();
        }
        if let Some(failure) = self.failed {
            return failure_reply(failure, max_value).into();
        }
        match self.kind {
            Kind::One { shape, outcome } => match outcome {
                Some(outcome) => shaped(shape, outcome),
                None => ErrorReply::err("no outcome").into(),
            },
            Kind::List { values, .. } => Reply::Array(values.into_iter().map(Reply::bulk_or_nil).collect()),
            Kind::Sum(sum) => Reply::Integer(sum),
            Kind::Ok | Kind::Watch { .. } => Reply::ok(),
            Kind::Transaction { branches, outcome } => branches.reply(outcome, max_value),
            Kind::Ordered(gather) => gather.reply(),
        }
    }
}

pub(super) fn shaped(shape: Shape, outcome: Outcome) -> Reply {
    match (shape, outcome) {
        (Shape::Value { revision: true }, Outcome::Value(Some((value, revision)))) => {
            Reply::Array(vec![Reply::Bulk(value), Reply::unsigned(revision)])
        }
        (Shape::Part { start, end }, Outcome::Value(value)) => {
            Reply::Bulk(value.map(|(value, _)| part(&value, start, end)).unwrap_or_default())
        }
        (Shape::Kind, Outcome::Integer(n)) => Reply::Simple(if n > 0 { "string" } else { "none" }.into()),
        (Shape::Value { .. } | Shape::Put(PutAnswer::Previous), Outcome::Value(value)) => {
            Reply::bulk_or_nil(value.map(|(value, _)| value))
        }
        (Shape::Put(PutAnswer::Flag), Outcome::Done) => Reply::Integer(1),
        (Shape::Put(PutAnswer::Flag), Outcome::Unmet) => Reply::Integer(0),
        (Shape::List, Outcome::Values(values)) => {
            Reply::Array(values.into_iter().map(Reply::bulk_or_nil).collect())
        }
        (Shape::Rest { seconds, at }, Outcome::Integer(rest)) => {
            Reply::Integer(rest_of_life(rest, seconds, at))
        }
        (_, Outcome::Done) => Reply::ok(),
        (_, Outcome::Unmet) => Reply::Nil,
        (_, Outcome::Revision(revision)) => Reply::unsigned(revision),
        (_, Outcome::Integer(n)) => Reply::Integer(n),
        (shape, _) => not_understood(&shape),
    }
}

/// The bytes between two places, as `GETRANGE` counts them.
fn part(value: &Bytes, start: i64, end: i64) -> Bytes {
    let length = i64::try_from(value.len()).unwrap_or(i64::MAX);
    let place = |at: i64| if at < 0 { at.saturating_add(length).max(0) } else { at };
    // Two places before the beginning in the wrong order are nothing, not the first byte.
    if start < 0 && end < 0 && start > end {
        return Bytes::new();
    }
    let (first, last) = (place(start), place(end).min(length - 1));
    if first > last { Bytes::new() } else { value.slice(first as usize..=last as usize) }
}

/// A leader of another version answered something else: the write may be applied.
pub(super) fn not_understood(wanted: &dyn std::fmt::Debug) -> Reply {
    tracing::error!(?wanted, "an outcome of the wrong kind");
    ErrorReply::new(
        ErrorClass::InDoubt,
        "the leader gave an answer that this node does not understand; read the key back",
    )
    .into()
}

/// A rest of life as it is answered; negative ones say that there is none.
fn rest_of_life(rest: i64, seconds: bool, at: bool) -> i64 {
    if rest < 0 {
        return rest;
    }
    let from = if at { i64::try_from(unix_millis()).unwrap_or(i64::MAX) } else { 0 };
    let millis = rest.saturating_add(from);
    // Rounded as Redis does.
    if seconds { millis.saturating_add(500) / 1000 } else { millis }
}

fn lost_reply(group: GroupId, lost: Lost, req: Option<&Req>) -> ErrorReply {
    let (seq, client) =
        req.map_or((0, ""), |req| (req.seq, std::str::from_utf8(&req.client).unwrap_or_default()));
    match lost {
        Lost::Forgotten { newest } => ErrorReply::in_doubt(
            group,
            format!(
                "REQ {seq} of client {client} is older than what is remembered (newest {newest}): its outcome is no \
                 longer known here"
            ),
        ),
        Lost::Unkept => ErrorReply::new(
            ErrorClass::InDoubt,
            format!(
                "group={group} REQ {seq} of client {client} was applied before, and not again; its answer was too large \
                 to be remembered; read the key back"
            ),
        ),
    }
}

pub(super) fn failure_reply(failure: Failure, max_value: u64) -> ErrorReply {
    match failure {
        Failure::NotAnInteger => ErrorReply::err("value is not an integer or out of range"),
        Failure::Overflow => ErrorReply::err("increment or decrement would overflow"),
        Failure::TooLong(max) => {
            let longer = u64::from(max).max(max_value) + 1;
            ErrorReply::too_big("the resulting value", longer, u64::from(max), "limits.max_value")
        }
        Failure::Reused => ErrorReply::err(
            "this REQ was used for another command; nothing was applied; count seq up for every new command",
        ),
        Failure::Fenced(token) => ErrorReply::fenced(token),
        Failure::FencesFull => ErrorReply::busy(
            "the key's group has no room for one more fence: it remembers those of the last day, up to 16 MiB",
        ),
        Failure::SessionFull | Failure::OutOfOrder => {
            ErrorReply::busy("too many commands of this node are open")
        }
        Failure::AnswerTooLong(max) => ErrorReply::new(
            ErrorClass::TooBig,
            format!(
                "max={max} the answers of the transaction could have more bytes; nothing was applied; \
                 read fewer or shorter values in one transaction"
            ),
        ),
    }
}

/// Nothing was made of the request. Said most often when there is least time for it, so it is ready.
pub(super) const BUSY: ErrorReply = ErrorReply::fixed(
    ErrorClass::Busy,
    "this node or the group's leader has more in flight than it answers within a quarter of a second, or than \
     limits.max_inflight_bytes; nothing was applied; send the command again later",
);

pub(super) fn refusal_reply(group: GroupId, refusal: Refusal, partly: bool, numbered: bool) -> ErrorReply {
    match refusal {
        Refusal::TryAgain => ErrorReply::try_again(group, "has no leader that answers; leadership is moving"),
        Refusal::ClusterDown => {
            ErrorReply::cluster_down(group, "has no majority of its members alive and connected")
        }
        Refusal::InDoubt if numbered => ErrorReply::new(
            ErrorClass::InDoubt,
            format!(
                "group={group} did not answer in time; it is unknown whether the command was applied; send it again \
                 with the same REQ"
            ),
        ),
        Refusal::InDoubt if partly => ErrorReply::in_doubt(
            group,
            "did not answer in time or refused, while other groups applied their part",
        ),
        Refusal::InDoubt => {
            ErrorReply::in_doubt(group, "did not answer in time after the command was proposed")
        }
        Refusal::Busy => BUSY,
        // The connection that asked to be told answers it with the address.
        Refusal::Moved(node) => ErrorReply::try_again(
            group,
            format_args!("is led by node {node}, whose address is not known here"),
        ),
        Refusal::Halted => ErrorReply::corrupt(group, "has halted at its leader"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Args, Command, SizeLimits};
    use groups::ids::NodeId;

    fn layout() -> Layout {
        Layout::new(vec![NodeId(1), NodeId(2), NodeId(3)], 16, 3)
    }

    fn keys(names: &[&str]) -> Vec<Bytes> {
        names.iter().map(|n| Bytes::copy_from_slice(n.as_bytes())).collect()
    }

    #[test]
    fn a_list_comes_back_in_the_order_of_the_request() {
        let names = ["a", "b", "c", "d", "a", "e"];
        let (pieces, mut join) =
            plan(DataCommand::Many(ManyKeys::Get(keys(&names))), &layout(), 100).expect("a plan");
        assert!(pieces.len() > 1, "the keys spread over groups");
        let last = pieces.len() - 1;
        // The groups answer in the opposite order.
        for (i, piece) in pieces.into_iter().rev().enumerate() {
            let kv::Command::GetMany { keys } = piece.command else { panic!("not a read") };
            let values = keys.into_iter().map(Some).collect();
            assert_eq!(join.take(piece.group, Ok(Outcome::Values(values))), i == last);
        }
        let want: Vec<Reply> = keys(&names).into_iter().map(Reply::Bulk).collect();
        assert_eq!(join.reply(100), Reply::Array(want));
    }

    #[test]
    fn a_write_that_is_half_applied_is_in_doubt() {
        let pairs = keys(&["a", "b"]).into_iter().map(|k| (k.clone(), k)).collect();
        let (pieces, mut join) =
            plan(DataCommand::Many(ManyKeys::Put(pairs)), &layout(), 100).expect("a plan");
        assert_eq!(pieces.len(), 2);
        assert!(!join.take(pieces[0].group, Ok(Outcome::Done)));
        assert!(join.take(pieces[1].group, Err(Refusal::TryAgain)));
        let Reply::Error(error) = join.reply(100) else { panic!("no error") };
        assert!(error.to_string().starts_with("INDOUBT"), "{error}");
    }

    /// A command as a client types it.
    fn typed(line: &str) -> DataCommand {
        let limits = SizeLimits { max_key: 100, max_value: 100 };
        match Command::parse(&Args::from_words(line.split(' ')), &limits) {
            Ok(Command::Data(command)) => command,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn replied(line: &str, outcome: Outcome) -> Reply {
        let (pieces, mut join) = plan(typed(line), &layout(), 100).expect("a plan");
        assert_eq!(pieces.len(), 1, "{line}");
        assert!(join.take(pieces[0].group, Ok(outcome)));
        join.reply(100)
    }

    #[test]
    fn lives_are_planned_and_answered_as_redis_does() {
        let command = |line: &str| plan(typed(line), &layout(), 100).expect("a plan").0.remove(0).command;
        for (line, wanted) in [
            ("SET k v EX 10", Some(Life::For(10_000))),
            ("SET k v PX 10", Some(Life::For(10))),
            ("SETEX k 10 v", Some(Life::For(10_000))),
            ("SET k v EXAT 5", Some(Life::For(0))),
            ("SET k v KEEPTTL", Some(Life::Keep)),
            ("SET k v", None),
        ] {
            let found = match command(line) {
                kv::Command::PutFor { life, .. } => Some(life),
                kv::Command::Put { .. } => None,
                other => panic!("{line}: {other:?}"),
            };
            assert_eq!(found, wanted, "{line}");
        }
        let late = (unix_millis() + 60_000).to_string();
        let kv::Command::PutFor { life: Life::For(life), .. } = command(&format!("SET k v PXAT {late}"))
        else {
            panic!("no life")
        };
        assert!((50_000..=60_000).contains(&life), "{life}");
        let life = |line: &str| match command(line) {
            kv::Command::Renew { renewal, .. } => renewal.life,
            other => panic!("{line}: {other:?}"),
        };
        assert_eq!(life("EXPIRE k -5"), Some(0));
        assert_eq!(life("EXPIREAT k 5"), Some(0));
        assert_eq!((life("PERSIST k"), life("GETEX k PERSIST")), (None, None));
        for (line, rest, answer) in [
            ("TTL k", -2, -2),
            ("EXPIRETIME k", -1, -1),
            ("PTTL k", 1_499, 1_499),
            ("TTL k", 1_499, 1),
            ("TTL k", 1_500, 2),
            ("TTL k", i64::MAX, i64::MAX / 1000),
        ] {
            assert_eq!(replied(line, Outcome::Integer(rest)), Reply::Integer(answer), "{line} {rest}");
        }
        let Reply::Integer(at) = replied("PEXPIRETIME k", Outcome::Integer(60_000)) else {
            panic!("no number")
        };
        assert!((at - unix_millis() as i64 - 60_000).abs() < 10_000, "{at}");
    }

    #[test]
    fn parts_of_values_are_counted_as_redis_counts_them() {
        let value = || Outcome::Value(Some((Bytes::from_static(b"This is a string"), 7)));
        for (start, end, part) in [
            (0, 3, "This"),
            (-3, -1, "ing"),
            (0, -1, "This is a string"),
            (10, 100, "string"),
            (-100, 3, "This"),
            (-100, -100, "T"),
            (-99, -100, ""),
            (5, 3, ""),
            (16, 20, ""),
            (i64::MIN, i64::MAX, "This is a string"),
            (i64::MAX, i64::MIN, ""),
        ] {
            let found = replied(&format!("GETRANGE k {start} {end}"), value());
            assert_eq!(found, Reply::bulk(part), "{start} {end}");
        }
        assert_eq!(replied("GETRANGE k 0 -1", Outcome::Value(None)), Reply::bulk(""));
        let empty = || Outcome::Value(Some((Bytes::new(), 7)));
        assert_eq!(replied("GETRANGE k 0 0", empty()), Reply::bulk(""));
        assert_eq!(replied("TYPE k", Outcome::Integer(1)), Reply::Simple("string".into()));
        assert_eq!(replied("TYPE k", Outcome::Integer(0)), Reply::Simple("none".into()));
    }

    #[test]
    fn a_numbered_command_is_numbered_in_each_of_its_groups() {
        let (pieces, mut join) = plan(typed("DEL a b REQ app:7"), &layout(), 100).expect("a plan");
        assert_eq!(pieces.len(), 2);
        for piece in &pieces {
            let kv::Command::Once { req, command } = &piece.command else { panic!("{piece:?}") };
            assert_eq!((&req.client[..], req.seq), (&b"app"[..], 7));
            assert!(matches!(**command, kv::Command::Delete { .. }));
        }
        join.take(pieces[0].group, Ok(Outcome::Integer(1)));
        join.take(pieces[1].group, Ok(Outcome::Forgotten { newest: 30 }));
        let Reply::Error(error) = join.reply(100) else { panic!("no error") };
        let group = pieces[1].group;
        let wanted = format!(
            "INDOUBT group={group} REQ 7 of client app is older than what is remembered (newest 30): its outcome is no \
             longer known here; it is unknown whether the command was applied; read the key back before sending it again"
        );
        assert_eq!(error.to_string(), wanted);
    }

    #[test]
    fn a_fence_has_one_group_and_is_inside_the_number() {
        let (pieces, _) = plan(typed("PUT k v FENCE 7 REQ app:7"), &layout(), 100).expect("a plan");
        let kv::Command::Once { command, .. } = &pieces[0].command else { panic!("{pieces:?}") };
        let kv::Command::Fenced { token: 7, command } = &**command else { panic!("{command:?}") };
        assert!(matches!(**command, kv::Command::Put { .. }));
        for line in ["DEL a b FENCE 7", "MSET a 1 b 2 FENCE 7 REQ app:7"] {
            let error = plan(typed(line), &layout(), 100).map(|_| ()).expect_err(line);
            assert_eq!(error.class(), ErrorClass::CrossSlot, "{error}");
        }
        assert_eq!(plan(typed("DEL {t}a {t}b FENCE 7"), &layout(), 100).expect("one group").0.len(), 1);
        for (failure, words) in [
            (
                Failure::Fenced(8),
                "FENCED token=8 a newer holder of the lock has written with it; nothing was applied",
            ),
            (Failure::FencesFull, "BUSY the key's group has no room for one more fence"),
        ] {
            let Reply::Error(error) = replied("PUT k v FENCE 7", Outcome::Failed(failure)) else {
                panic!("no error")
            };
            assert!(error.to_string().starts_with(words), "{error}");
        }
    }

    #[test]
    fn what_became_of_a_numbered_command_is_said_in_words() {
        for (outcome, class, words) in [
            (Outcome::Unkept, "INDOUBT", "was applied before, and not again"),
            (Outcome::Failed(Failure::Reused), "ERR", "nothing was applied"),
        ] {
            let Reply::Error(error) = replied("GETDEL k REQ app:7", outcome) else { panic!("no error") };
            let line = error.to_string();
            assert!(line.starts_with(class) && line.contains(words), "{line}");
        }
        let (pieces, mut join) = plan(typed("INCR k REQ app:7"), &layout(), 100).expect("a plan");
        join.take(pieces[0].group, Err(Refusal::InDoubt));
        let Reply::Error(error) = join.reply(100) else { panic!("no error") };
        assert!(error.to_string().ends_with("send it again with the same REQ"), "{error}");
    }

    #[test]
    fn a_read_that_is_half_refused_is_refused() {
        let (pieces, mut join) =
            plan(DataCommand::Many(ManyKeys::Exists(keys(&["a", "b"]))), &layout(), 100).expect("a plan");
        assert!(!join.take(pieces[0].group, Ok(Outcome::Integer(1))));
        assert!(join.take(pieces[1].group, Err(Refusal::ClusterDown)));
        let Reply::Error(error) = join.reply(100) else { panic!("no error") };
        assert!(error.to_string().starts_with("CLUSTERDOWN"), "{error}");
    }
}
