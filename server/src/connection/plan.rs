//! From a client's data command to commands of groups, and from their outcomes to one reply.

use std::collections::BTreeMap;

use bytes::Bytes;
use groups::ids::GroupId;
use groups::kv::{self, Failure, Outcome, Want};

use super::ordered::{self, Gather};
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
enum Shape {
    Value { revision: bool },
    Number,
    Put(PutAnswer),
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
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    One { shape: Shape, outcome: Option<Outcome> },
    List { values: Vec<Option<Bytes>>, places: BTreeMap<GroupId, Vec<u32>> },
    Sum(i64),
    Ok,
    Ordered(Gather),
}

/// Splits a command by group.
#[must_use]
pub fn plan(command: DataCommand, layout: &Layout, max_value: u32) -> (Vec<Piece>, Join) {
    let write = command.is_write();
    let (pieces, kind) = match command {
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
        DataCommand::Ordered(command) => {
            let (pieces, gather) = ordered::plan(command, layout);
            (pieces, Kind::Ordered(gather))
        }
    };
    let missing = pieces.len();
    (pieces, Join { missing, write, applied: false, refused: None, failed: None, kind })
}

fn single(one: KeyOperation, max_value: u32) -> (kv::Command, Shape) {
    let key = one.key;
    match one.operation {
        Operation::Get { revision } => (kv::Command::Get { key }, Shape::Value { revision }),
        Operation::Length => (kv::Command::Length { key }, Shape::Number),
        Operation::Exists => (kv::Command::Exists { keys: vec![key] }, Shape::Number),
        Operation::Put(put) => {
            let condition = match put.condition {
                Condition::Always => kv::Condition::None,
                Condition::Absent => kv::Condition::Absent,
                Condition::Present => kv::Condition::Present,
                Condition::Revision(revision) => kv::Condition::Revision(revision),
                Condition::Value(value) => kv::Condition::Value(value),
            };
            let want = match put.answer {
                PutAnswer::Ok | PutAnswer::Flag => Want::Done,
                PutAnswer::Revision => Want::Revision,
                PutAnswer::Previous => Want::Previous,
            };
            (kv::Command::Put { key, value: put.value, condition, want }, Shape::Put(put.answer))
        }
        Operation::Delete => (kv::Command::Delete { keys: vec![key] }, Shape::Number),
        Operation::GetDelete => (kv::Command::Take { key }, Shape::Value { revision: false }),
        Operation::Add(delta) => (kv::Command::Add { key, delta }, Shape::Number),
        Operation::Append(value) => (kv::Command::Append { key, value, max: max_value }, Shape::Number),
        Operation::CompareAndSwap { old, new } => (kv::Command::Cas { key, old, new }, Shape::Number),
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
            Ok(outcome) => {
                self.applied = true;
                match &mut self.kind {
                    Kind::One { outcome: slot, .. } => *slot = Some(outcome),
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
            return refusal_reply(group, refusal, self.applied).into();
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
            Kind::Ok => Reply::ok(),
            Kind::Ordered(gather) => gather.reply(),
        }
    }
}

fn shaped(shape: Shape, outcome: Outcome) -> Reply {
    match (shape, outcome) {
        (Shape::Value { revision: true }, Outcome::Value(Some((value, revision)))) => {
            Reply::Array(vec![Reply::Bulk(value), Reply::unsigned(revision)])
        }
        (Shape::Value { .. } | Shape::Put(PutAnswer::Previous), Outcome::Value(value)) => {
            Reply::bulk_or_nil(value.map(|(value, _)| value))
        }
        (Shape::Put(PutAnswer::Flag), Outcome::Done) => Reply::Integer(1),
        (Shape::Put(PutAnswer::Flag), Outcome::Unmet) => Reply::Integer(0),
        (_, Outcome::Done) => Reply::ok(),
        (_, Outcome::Unmet) => Reply::Nil,
        (_, Outcome::Revision(revision)) => Reply::unsigned(revision),
        (_, Outcome::Integer(n)) => Reply::Integer(n),
        // A leader of another version answered something else: the write may be applied.
        (shape, _) => {
            tracing::error!(?shape, "an outcome of the wrong kind");
            ErrorReply::new(
                ErrorClass::InDoubt,
                "the leader gave an answer that this node does not understand; read the key back",
            )
            .into()
        }
    }
}

fn failure_reply(failure: Failure, max_value: u64) -> ErrorReply {
    match failure {
        Failure::NotAnInteger => ErrorReply::err("value is not an integer or out of range"),
        Failure::Overflow => ErrorReply::err("increment or decrement would overflow"),
        Failure::TooLong(max) => {
            let longer = u64::from(max).max(max_value) + 1;
            ErrorReply::too_big("the resulting value", longer, u64::from(max), "limits.max_value")
        }
        Failure::SessionFull | Failure::OutOfOrder => {
            ErrorReply::busy("too many commands of this node are open")
        }
    }
}

pub(super) fn refusal_reply(group: GroupId, refusal: Refusal, partly: bool) -> ErrorReply {
    match refusal {
        Refusal::TryAgain => ErrorReply::try_again(group, "has no leader that answers; leadership is moving"),
        Refusal::ClusterDown => {
            ErrorReply::cluster_down(group, "has no majority of its members alive and connected")
        }
        Refusal::InDoubt if partly => ErrorReply::in_doubt(
            group,
            "did not answer in time or refused, while other groups applied their part",
        ),
        Refusal::InDoubt => {
            ErrorReply::in_doubt(group, "did not answer in time after the command was proposed")
        }
        Refusal::Busy => ErrorReply::busy(
            "this node or the group's leader has too much in flight (limits.max_inflight_bytes)",
        ),
        Refusal::Halted => ErrorReply::corrupt(group, "has halted at its leader"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
        let (pieces, mut join) = plan(DataCommand::Many(ManyKeys::Get(keys(&names))), &layout(), 100);
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
        let (pieces, mut join) = plan(DataCommand::Many(ManyKeys::Put(pairs)), &layout(), 100);
        assert_eq!(pieces.len(), 2);
        assert!(!join.take(pieces[0].group, Ok(Outcome::Done)));
        assert!(join.take(pieces[1].group, Err(Refusal::TryAgain)));
        let Reply::Error(error) = join.reply(100) else { panic!("no error") };
        assert!(error.to_string().starts_with("INDOUBT"), "{error}");
    }

    #[test]
    fn a_read_that_is_half_refused_is_refused() {
        let (pieces, mut join) = plan(DataCommand::Many(ManyKeys::Exists(keys(&["a", "b"]))), &layout(), 100);
        assert!(!join.take(pieces[0].group, Ok(Outcome::Integer(1))));
        assert!(join.take(pieces[1].group, Err(Refusal::ClusterDown)));
        let Reply::Error(error) = join.reply(100) else { panic!("no error") };
        assert!(error.to_string().starts_with("CLUSTERDOWN"), "{error}");
    }
}
