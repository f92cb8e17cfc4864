//! The form of `MULTIOP`.
//!
//! ```text
//! MULTIOP [IF key condition]... [THEN operation]... [ELSE operation]... [REQ client:seq]
//! condition   REV revision | VALUE value | ABSENT | PRESENT | EPOCH epoch | FENCE token
//! operation   any command on one key, with its options: GET k REV, PUT k v NX, DEL k FENCE 7 ...
//! ```
//! It needs no counts and no quoting, whatever bytes keys and values are: at every place stands either
//! a keyword or data, never one of the two. An operation takes its key and its values by their places,
//! then options, and no option is called `THEN` or `ELSE`; so the first such word at a place for an
//! option begins the next clause.

use groups::kv::When;
use groups::kv::transaction::MAX_PARTS;

use super::command::Command;
use super::data::{Condition, DataCommand, KeyOperation, Operation, Put, PutAnswer, Renew};
use super::error::{ErrorReply, quoted};
use super::expiry::{EX, PX, Unit};
use super::number;
use super::refusal::not_an_integer;
use super::table::{self, Verb};
use super::transaction::{Guard, Transaction, TransactionForm};
use super::words::Words;

impl Words<'_> {
    pub(super) fn multi_operation(mut self) -> Result<Command, ErrorReply> {
        let (mut guards, mut then, mut otherwise) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(word) = self.bytes() {
            if guards.len() + then.len() + otherwise.len() >= MAX_PARTS {
                return Err(self.syntax_error(&format!("more than {MAX_PARTS} guards and operations")));
            }
            match &*word {
                w if w.eq_ignore_ascii_case(b"IF") => {
                    if !then.is_empty() || !otherwise.is_empty() {
                        return Err(self.syntax_error("every IF stands before the first THEN and ELSE"));
                    }
                    guards.push(self.guard()?);
                }
                w if w.eq_ignore_ascii_case(b"THEN") => {
                    if !otherwise.is_empty() {
                        return Err(self.syntax_error("every THEN stands before the first ELSE"));
                    }
                    then.push(self.operation()?);
                }
                w if w.eq_ignore_ascii_case(b"ELSE") => otherwise.push(self.operation()?),
                w if w.eq_ignore_ascii_case(b"REQ") => self.req()?,
                w => {
                    return Err(
                        self.syntax_error(&format!("IF, THEN or ELSE is expected, not '{}'", quoted(w)))
                    );
                }
            }
        }
        let form = TransactionForm::Branches;
        self.finish(DataCommand::Transaction(Transaction { guards, then, otherwise, form }))
    }

    fn guard(&mut self) -> Result<Guard, ErrorReply> {
        let key = self.data_key("IF")?;
        let Some(word) = self.bytes() else {
            return Err(self.syntax_error("IF needs a key and REV, VALUE, ABSENT, PRESENT, EPOCH or FENCE"));
        };
        let condition = match &*word {
            w if w.eq_ignore_ascii_case(b"REV") => {
                Condition::Revision(self.word().and_then(number::unsigned).ok_or_else(not_an_integer)?)
            }
            w if w.eq_ignore_ascii_case(b"VALUE") => {
                if self.left() == 0 {
                    return Err(self.syntax_error("VALUE needs a value"));
                }
                Condition::Value(self.value()?)
            }
            w if w.eq_ignore_ascii_case(b"ABSENT") => Condition::Absent,
            w if w.eq_ignore_ascii_case(b"PRESENT") => Condition::Present,
            w if w.eq_ignore_ascii_case(b"EPOCH") => {
                Condition::Epoch(self.word().and_then(number::unsigned).ok_or_else(not_an_integer)?)
            }
            w if w.eq_ignore_ascii_case(b"FENCE") => {
                Condition::Fence(self.word().and_then(number::unsigned).ok_or_else(not_an_integer)?)
            }
            w => return Err(self.syntax_error(&format!("'{}' is no condition", quoted(w)))),
        };
        Ok(Guard { key, condition })
    }

    /// One operation behind `THEN` or `ELSE`.
    fn operation(&mut self) -> Result<DataCommand, ErrorReply> {
        let Some(name) = self.bytes() else {
            return Err(self.syntax_error("THEN and ELSE need an operation"));
        };
        let verb = table::find(&name).map(|spec| spec.verb);
        let plain = |value, condition, answer| Operation::Put(Put { condition, answer, ..Put::new(value) });
        let mut key = || self.data_key(&quoted(&name));
        let (key, operation) = match verb {
            Some(Verb::Get) => (key()?, Operation::Get { revision: self.takes(b"REV"), stale: None }),
            Some(Verb::Set) => {
                let (key, mut put) = (key()?, Put::new(self.data_value(&name)?));
                while let Some(option) = self.option() {
                    self.put_option(&mut put, &option)?;
                }
                (key, Operation::Put(put))
            }
            Some(Verb::GetSet) => {
                (key()?, plain(self.data_value(&name)?, Condition::Always, PutAnswer::Previous))
            }
            Some(Verb::SetNx) => (key()?, plain(self.data_value(&name)?, Condition::Absent, PutAnswer::Flag)),
            Some(Verb::GetDel) => (key()?, Operation::GetDelete),
            Some(Verb::Del) => (key()?, Operation::Delete),
            Some(Verb::Exists) => (key()?, Operation::Exists),
            Some(Verb::Strlen) => (key()?, Operation::Length),
            Some(Verb::Epoch) => (key()?, Operation::Epoch),
            Some(Verb::Incr) => (key()?, Operation::Add(1)),
            Some(Verb::Decr) => (key()?, Operation::Add(-1)),
            Some(Verb::IncrBy) => (key()?, Operation::Add(self.integer()?)),
            Some(Verb::DecrBy) => (key()?, self.negated()?),
            Some(Verb::Expire) => (key()?, self.new_life(EX)?),
            Some(Verb::PExpire) => (key()?, self.new_life(PX)?),
            Some(Verb::Append) => (key()?, Operation::Append(self.data_value(&name)?)),
            Some(Verb::Cas) => {
                let (key, old) = (key()?, self.data_value(&name)?);
                (key, Operation::CompareAndSwap { old, new: self.data_value(&name)? })
            }
            _ => {
                return Err(self.syntax_error(&format!(
                    "'{}' is no operation on one key; known are GET, PUT, DEL, INCR, DECR, INCRBY, DECRBY, \
                     APPEND, CAS, GETSET, GETDEL, SETNX, EXISTS, STRLEN, EXPIRE, PEXPIRE and EPOCH",
                    quoted(&name)
                )));
            }
        };
        if self.takes(b"FENCE") {
            self.token()?;
        }
        self.fenced(DataCommand::One(KeyOperation { key, operation }))
    }

    /// How long the key is there from now on.
    fn new_life(&mut self, unit: Unit) -> Result<Operation, ErrorReply> {
        let until = Some(self.time(unit)?);
        Ok(Operation::Renew(Renew { until, when: When::default(), value: false }))
    }

    /// The next word if it is an option, and not the beginning of the next clause.
    fn option(&mut self) -> Option<bytes::Bytes> {
        let word = self.args.get(self.next)?;
        let clause = [&b"THEN"[..], b"ELSE"].iter().any(|name| word.eq_ignore_ascii_case(name));
        if clause { None } else { self.bytes() }
    }

    /// Whether the next word is this one, which is taken then.
    fn takes(&mut self, option: &[u8]) -> bool {
        let found = self.args.get(self.next).is_some_and(|word| word.eq_ignore_ascii_case(option));
        self.next += usize::from(found);
        found
    }

    fn data_key(&mut self, of: &str) -> Result<bytes::Bytes, ErrorReply> {
        if self.left() == 0 {
            return Err(self.syntax_error(&format!("{of} needs a key")));
        }
        self.key()
    }

    fn data_value(&mut self, of: &[u8]) -> Result<bytes::Bytes, ErrorReply> {
        if self.left() == 0 {
            return Err(self.syntax_error(&format!("{} needs a value", quoted(of))));
        }
        self.value()
    }
}
