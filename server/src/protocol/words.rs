//! The words of a request, taken one after the other, each as what it must be.

use bytes::Bytes;
use groups::kv::Req;

use super::args::Args;
use super::command::SizeLimits;
use super::error::{ErrorReply, quoted};
use super::number;
use super::refusal::{self, key_too_big, not_an_integer, usage, value_too_big};
use super::table::CommandSpec;

/// The words of one request behind its name, taken one after the other.
pub(super) struct Words<'a> {
    pub(super) args: &'a Args,
    pub(super) next: usize,
    /// Behind the last word that is to be taken.
    pub(super) end: usize,
    /// The number that the client has given the command.
    pub(super) req: Option<Req>,
    /// The token of the lock whose holder the client is.
    pub(super) fence: Option<u64>,
    pub(super) parent: Option<&'static CommandSpec>,
    pub(super) spec: &'static CommandSpec,
    pub(super) limits: &'a SizeLimits,
}

impl Words<'_> {
    pub(super) fn word(&mut self) -> Option<&[u8]> {
        let word = self.args.get(self.next).filter(|_| self.next < self.end)?;
        self.next += 1;
        Some(word)
    }

    pub(super) fn bytes(&mut self) -> Option<Bytes> {
        let word = self.args.bytes(self.next).filter(|_| self.next < self.end)?;
        self.next += 1;
        Some(word)
    }

    pub(super) fn rest(&mut self) -> impl Iterator<Item = Bytes> {
        let from = std::mem::replace(&mut self.next, self.end);
        (from..self.end).filter_map(|at| self.args.bytes(at))
    }

    pub(super) fn left(&self) -> usize {
        self.end - self.next
    }

    pub(super) fn end(&self) -> Result<(), ErrorReply> {
        if self.left() == 0 { Ok(()) } else { Err(self.wrong_arity()) }
    }

    pub(super) fn required(&mut self) -> Result<Bytes, ErrorReply> {
        self.bytes().ok_or_else(|| self.wrong_arity())
    }

    pub(super) fn key(&mut self) -> Result<Bytes, ErrorReply> {
        let key = self.required()?;
        match key.len() <= self.limits.max_key {
            true => Ok(key),
            false => Err(key_too_big(key.len() as u64, self.limits)),
        }
    }

    pub(super) fn value(&mut self) -> Result<Bytes, ErrorReply> {
        let value = self.required()?;
        match value.len() <= self.limits.max_value {
            true => Ok(value),
            false => Err(value_too_big(value.len() as u64, self.limits)),
        }
    }

    pub(super) fn integer(&mut self) -> Result<i64, ErrorReply> {
        self.word().and_then(number::integer).ok_or_else(not_an_integer)
    }

    pub(super) fn wrong_arity(&self) -> ErrorReply {
        refusal::wrong_arity(self.parent, self.spec)
    }

    pub(super) fn syntax_error(&self, why: &str) -> ErrorReply {
        ErrorReply::err(format!(
            "syntax error: {why}; nothing was applied; usage: {}",
            usage(self.parent, self.spec)
        ))
    }

    pub(super) fn unexpected(&self, word: &[u8]) -> ErrorReply {
        self.syntax_error(&format!("'{}' is not expected here", quoted(word)))
    }
}

pub(super) fn lower(word: &[u8]) -> String {
    String::from_utf8_lossy(word).to_lowercase()
}
