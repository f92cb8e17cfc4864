//! Commands about data, as what they ask of the state machine.

use std::time::Duration;

use bytes::Bytes;
use groups::kv::{Req, When};

use super::expiry::Until;

use super::transaction::Transaction;

use super::ordered::Ordered;

/// A command about data. What it asks of one key is a [`KeyOperation`]; a command over many keys
/// is a list of them, each of which goes to the group of its own key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataCommand {
    /// One key. Also `DEL`, `EXISTS` and `MSET` of one key, since their answer is the same.
    One(KeyOperation),
    /// Many keys, perhaps of many groups.
    Many(ManyKeys),
    /// How many keys there are in all groups; the answer is the sum as an integer.
    Size,
    /// The revisions of keys, for `WATCH`.
    Revisions(Vec<Bytes>),
    /// Several commands of one group at one instant.
    Transaction(Transaction),
    /// A write that its client has numbered: applied at most once, however often it is sent.
    Once {
        /// Whose, and which.
        req: Req,
        /// The write.
        command: Box<DataCommand>,
    },
    /// A write by the holder of a lock: refused when a later holder has written one of its keys.
    Fenced {
        /// The holder's token, from 1.
        token: u64,
        /// The write: one operation, or the same on many keys.
        command: Box<DataCommand>,
    },
    /// A read of many keys in some order.
    Ordered(Ordered),
}

/// The same asked of many keys, in the order of the request. Keys may repeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ManyKeys {
    /// `MGET`.
    Get(Vec<Bytes>),
    /// `DEL`, `UNLINK`.
    Delete(Vec<Bytes>),
    /// `EXISTS`.
    Exists(Vec<Bytes>),
    /// `MSET`.
    Put(Vec<(Bytes, Bytes)>),
}

/// How the answers for many keys become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Combine {
    /// An array in the order of the request.
    List,
    /// The sum of integers.
    Sum,
    /// `+OK` once all are done.
    Ok,
}

/// One operation on one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyOperation {
    /// The key, at most `limits.max_key` bytes; may be empty, as in Redis.
    pub key: Bytes,
    /// What to do with it.
    pub operation: Operation,
}

/// What to do with a key, and how to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// The value or nil; with `revision` an array of value and revision, or nil.
    Get {
        /// Whether to answer the revision too.
        revision: bool,
        /// A replica that is no further behind than this may answer.
        stale: Option<Duration>,
    },
    /// The value's length as an integer, 0 for no key.
    Length,
    /// 1 or 0.
    Exists,
    /// `string`, or `none` if there is no key, as a status.
    Kind,
    /// The bytes of the value from one place to another, both included; negative places count from the
    /// end. Empty where there are none.
    Part {
        /// The first place.
        start: i64,
        /// The last one.
        end: i64,
    },
    /// Sets the key if `condition` holds. This is `SET`, `PUT`, `GETSET`, `SETNX`, and each pair
    /// of an `MSET`.
    Put(Put),
    /// Deletes the key; 1, or 0 if there was none.
    Delete,
    /// Deletes the key; the old value, or nil.
    GetDelete,
    /// Adds to the integer in the key, which counts as 0 if there is none; the sum. Anything
    /// else in the key, or an overflow, is an error.
    Add(i64),
    /// Appends to the value, which counts as empty if there is none; the new length. The state
    /// machine checks that the whole stays within `limits.max_value`.
    Append(Bytes),
    /// Sets the key to `new` if its value is `old`; 1 or 0. A missing key has no value.
    CompareAndSwap {
        /// The value that the key must have.
        old: Bytes,
        /// The value that it then gets.
        new: Bytes,
    },
    /// Changes how long the key is there.
    Renew(Renew),
    /// How long the key is there, as an integer: -1 if for good, -2 if there is none.
    Rest {
        /// In seconds, or in milliseconds.
        seconds: bool,
        /// Until when since the Unix epoch, or for how long.
        at: bool,
    },
    /// How many leaders the key's group has had, as an integer.
    Epoch,
}

/// How to change how long a key is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renew {
    /// Until when; `None` for good.
    pub until: Option<Until>,
    /// What must be so of the life that the key has, or nothing is changed.
    pub when: When,
    /// Whether the value or nil is answered, or 1 and 0.
    pub value: bool,
}

/// How to set a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// The new value, at most `limits.max_value` bytes.
    pub value: Bytes,
    /// What must be so, or nothing is changed.
    pub condition: Condition,
    /// The answer.
    pub answer: PutAnswer,
    /// Whether a time to live that the key has stays.
    pub keep_ttl: bool,
    /// Until when the key is there; `None` for good, or as `keep_ttl` says.
    pub until: Option<Until>,
}

/// What must be so before a key is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    #[default]
    Always,
    /// There is no such key.
    Absent,
    /// There is such a key.
    Present,
    /// The key has exactly this revision. Revision 0 means that there is no such key.
    Revision(u64),
    /// The key has exactly this value. A missing key has none.
    Value(Bytes),
    /// The key's group has had exactly so many leaders.
    Epoch(u64),
    /// The key was written with no larger token than this one.
    Fence(u64),
}

/// How a put answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PutAnswer {
    /// `+OK`, or nil if the condition failed.
    #[default]
    Ok,
    /// The new revision, or nil if the condition failed.
    Revision,
    /// The old value or nil, whether or not the condition held, as Redis answers `SET … GET`.
    Previous,
    /// 1, or 0 if the condition failed.
    Flag,
}

impl DataCommand {
    /// How far behind the replica that answers may be; `None` for not at all.
    #[must_use]
    pub fn stale(&self) -> Option<Duration> {
        match self {
            DataCommand::One(KeyOperation { operation: Operation::Get { stale, .. }, .. }) => *stale,
            _ => None,
        }
    }

    /// Whether it may change data, and so has to be proposed.
    #[must_use]
    pub fn is_write(&self) -> bool {
        match self {
            DataCommand::One(one) => one.operation.is_write(),
            DataCommand::Many(many) => matches!(many, ManyKeys::Delete(_) | ManyKeys::Put(_)),
            DataCommand::Size | DataCommand::Ordered(_) | DataCommand::Revisions(_) => false,
            DataCommand::Transaction(transaction) => transaction.is_write(),
            DataCommand::Once { command, .. } | DataCommand::Fenced { command, .. } => command.is_write(),
        }
    }

    /// Whether it is about a transaction: one itself, or `WATCH`.
    #[must_use]
    pub fn is_transaction(&self) -> bool {
        match self {
            DataCommand::Transaction(_) | DataCommand::Revisions(_) => true,
            DataCommand::Once { command, .. } | DataCommand::Fenced { command, .. } => {
                command.is_transaction()
            }
            _ => false,
        }
    }

    /// Whether it can only free space, and so is let through where writes are refused.
    #[must_use]
    pub fn frees(&self) -> bool {
        match self {
            DataCommand::One(one) => match one.operation {
                Operation::Delete | Operation::GetDelete => true,
                Operation::Renew(renew) => renew.until.is_some(),
                _ => false,
            },
            DataCommand::Many(many) => matches!(many, ManyKeys::Delete(_)),
            DataCommand::Size | DataCommand::Ordered(_) | DataCommand::Revisions(_) => false,
            DataCommand::Transaction(transaction) => transaction.frees(),
            DataCommand::Once { command, .. } | DataCommand::Fenced { command, .. } => command.frees(),
        }
    }

    /// All keys in it, in the order of the request.
    pub fn keys(&self) -> Box<dyn Iterator<Item = &Bytes> + '_> {
        match self {
            DataCommand::One(one) => Box::new(std::iter::once(&one.key)),
            DataCommand::Many(many) => Box::new(many.keys()),
            DataCommand::Size | DataCommand::Ordered(_) => Box::new(std::iter::empty()),
            DataCommand::Revisions(keys) => Box::new(keys.iter()),
            DataCommand::Once { command, .. } | DataCommand::Fenced { command, .. } => command.keys(),
            DataCommand::Transaction(transaction) => {
                let guards = transaction.guards.iter().map(|guard| &guard.key);
                Box::new(guards.chain(transaction.commands().flat_map(DataCommand::keys)))
            }
        }
    }
}

impl ManyKeys {
    /// How many operations it is.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            ManyKeys::Get(keys) | ManyKeys::Delete(keys) | ManyKeys::Exists(keys) => keys.len(),
            ManyKeys::Put(pairs) => pairs.len(),
        }
    }

    /// Whether it is none at all, which the parser never lets through.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How the answers become one.
    #[must_use]
    pub fn combine(&self) -> Combine {
        match self {
            ManyKeys::Get(_) => Combine::List,
            ManyKeys::Delete(_) | ManyKeys::Exists(_) => Combine::Sum,
            ManyKeys::Put(_) => Combine::Ok,
        }
    }

    /// The keys in the order of the request.
    pub fn keys(&self) -> impl Iterator<Item = &Bytes> {
        let (keys, pairs) = match self {
            ManyKeys::Get(keys) | ManyKeys::Delete(keys) | ManyKeys::Exists(keys) => (&keys[..], &[][..]),
            ManyKeys::Put(pairs) => (&[][..], &pairs[..]),
        };
        keys.iter().chain(pairs.iter().map(|(key, _)| key))
    }

    /// The operations, one per key, in the order of the request.
    pub fn into_operations(self) -> impl Iterator<Item = KeyOperation> {
        let (keys, pairs, operation) = match self {
            ManyKeys::Get(keys) => (keys, Vec::new(), Operation::Get { revision: false, stale: None }),
            ManyKeys::Delete(keys) => (keys, Vec::new(), Operation::Delete),
            ManyKeys::Exists(keys) => (keys, Vec::new(), Operation::Exists),
            ManyKeys::Put(pairs) => (Vec::new(), pairs, Operation::Exists),
        };
        let plain = keys.into_iter().map(move |key| KeyOperation { key, operation: operation.clone() });
        let puts = pairs
            .into_iter()
            .map(|(key, value)| KeyOperation { key, operation: Operation::Put(Put::new(value)) });
        plain.chain(puts)
    }
}

impl Operation {
    /// Whether it may change data.
    #[must_use]
    pub fn is_write(&self) -> bool {
        match self {
            Operation::Get { .. }
            | Operation::Length
            | Operation::Exists
            | Operation::Kind
            | Operation::Part { .. }
            | Operation::Rest { .. }
            | Operation::Epoch => false,
            Operation::Put(_)
            | Operation::Delete
            | Operation::GetDelete
            | Operation::Add(_)
            | Operation::Append(_)
            | Operation::CompareAndSwap { .. }
            | Operation::Renew(_) => true,
        }
    }
}

impl Put {
    /// A put without conditions that answers `+OK`.
    #[must_use]
    pub fn new(value: Bytes) -> Put {
        Put { value, condition: Condition::Always, answer: PutAnswer::Ok, keep_ttl: false, until: None }
    }
}
