//! The forms of the data commands.

use std::time::Duration;

use bytes::Bytes;

use super::command::Command;
use super::data::{Condition, DataCommand, KeyOperation, ManyKeys, Operation, Put, PutAnswer};
use super::error::ErrorReply;
use super::number;
use super::refusal::not_an_integer;
use super::table::flag::WRITE;
use super::words::Words;

impl Words<'_> {
    pub(super) fn one(
        mut self,
        operation: impl FnOnce(&mut Self) -> Result<Operation, ErrorReply>,
    ) -> Result<Command, ErrorReply> {
        let key = self.key()?;
        let operation = operation(&mut self)?;
        self.options_at_end()?;
        self.end()?;
        self.finish(DataCommand::One(KeyOperation { key, operation }))
    }

    pub(super) fn get(self) -> Result<Command, ErrorReply> {
        self.one(|words| {
            let (mut revision, mut stale) = (false, None);
            while let Some(option) = words.bytes() {
                match option {
                    option if option.eq_ignore_ascii_case(b"REV") => revision = true,
                    option if option.eq_ignore_ascii_case(b"STALE") => {
                        let millis = words.word().and_then(number::unsigned).ok_or_else(not_an_integer)?;
                        stale = Some(Duration::from_millis(millis));
                    }
                    option => return Err(words.unexpected(&option)),
                }
            }
            Ok(Operation::Get { revision, stale })
        })
    }

    pub(super) fn plain_put(self, condition: Condition, answer: PutAnswer) -> Result<Command, ErrorReply> {
        self.one(|words| Ok(Operation::Put(Put { condition, answer, ..Put::new(words.value()?) })))
    }

    pub(super) fn put(self) -> Result<Command, ErrorReply> {
        self.one(|words| {
            let mut put = Put::new(words.value()?);
            while let Some(option) = words.bytes() {
                words.put_option(&mut put, &option)?;
            }
            Ok(Operation::Put(put))
        })
    }

    pub(super) fn put_option(&mut self, put: &mut Put, option: &[u8]) -> Result<(), ErrorReply> {
        let mut upper = [0u8; 8];
        let Some(upper) = upper.get_mut(..option.len()) else { return Err(self.unexpected(option)) };
        upper.copy_from_slice(option);
        upper.make_ascii_uppercase();
        match &*upper {
            b"NX" => self.condition(put, Condition::Absent),
            b"XX" => self.condition(put, Condition::Present),
            b"IFREV" => {
                let revision = self.word().and_then(number::unsigned).ok_or_else(not_an_integer)?;
                self.condition(put, Condition::Revision(revision))
            }
            b"IFEQ" => {
                let Some(value) = self.bytes() else { return Err(self.syntax_error("IFEQ needs a value")) };
                self.condition(put, Condition::Value(value))
            }
            b"IFEPOCH" => {
                let epoch = self.word().and_then(number::unsigned).ok_or_else(not_an_integer)?;
                self.condition(put, Condition::Epoch(epoch))
            }
            b"GET" => self.answer(put, PutAnswer::Previous),
            b"REV" => self.answer(put, PutAnswer::Revision),
            b"KEEPTTL" => {
                put.keep_ttl = true;
                self.one_life(put)
            }
            b"REQ" => self.req(),
            b"FENCE" => self.token(),
            other => match self.until_option(other)? {
                Some(_) if put.until.is_some() => Err(self.more_than_one_life()),
                Some(until) => {
                    put.until = Some(until);
                    self.one_life(put)
                }
                None => Err(self.unexpected(option)),
            },
        }
    }

    fn one_life(&self, put: &Put) -> Result<(), ErrorReply> {
        if put.keep_ttl && put.until.is_some() { Err(self.more_than_one_life()) } else { Ok(()) }
    }

    fn more_than_one_life(&self) -> ErrorReply {
        self.syntax_error("only one of EX, PX, EXAT, PXAT and KEEPTTL can be given")
    }

    pub(super) fn condition(&self, put: &mut Put, condition: Condition) -> Result<(), ErrorReply> {
        if put.condition != Condition::Always && put.condition != condition {
            return Err(self.syntax_error("only one of NX, XX, IFREV, IFEQ and IFEPOCH can be given"));
        }
        put.condition = condition;
        Ok(())
    }

    pub(super) fn answer(&self, put: &mut Put, answer: PutAnswer) -> Result<(), ErrorReply> {
        if put.answer != PutAnswer::Ok && put.answer != answer {
            return Err(self.syntax_error("only one of GET and REV can be given"));
        }
        put.answer = answer;
        Ok(())
    }

    pub(super) fn negated(&mut self) -> Result<Operation, ErrorReply> {
        self.integer()?
            .checked_neg()
            .map(Operation::Add)
            .ok_or_else(|| ErrorReply::err("decrement would overflow"))
    }

    pub(super) fn keys(&mut self) -> Result<Vec<Bytes>, ErrorReply> {
        let mut keys = Vec::with_capacity(self.left());
        while self.left() > 0 {
            keys.push(self.key()?);
        }
        Ok(keys)
    }

    /// A command over keys whose answer for one key is the answer for the only key.
    pub(super) fn many(
        mut self,
        single: Operation,
        many: fn(Vec<Bytes>) -> ManyKeys,
    ) -> Result<Command, ErrorReply> {
        if self.spec.has(WRITE) {
            self.options_behind_keys()?;
        }
        if self.left() == 1 {
            return self.one(|_| Ok(single));
        }
        let keys = self.keys()?;
        self.finish(DataCommand::Many(many(keys)))
    }

    pub(super) fn pairs(mut self) -> Result<Command, ErrorReply> {
        self.options_behind_keys()?;
        if !self.left().is_multiple_of(2) {
            return Err(self.wrong_arity());
        }
        if self.left() == 2 {
            return self.plain_put(Condition::Always, PutAnswer::Ok);
        }
        let mut pairs = Vec::with_capacity(self.left() / 2);
        while self.left() > 0 {
            pairs.push((self.key()?, self.value()?));
        }
        self.finish(DataCommand::Many(ManyKeys::Put(pairs)))
    }
}
