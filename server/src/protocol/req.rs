//! The options that every write takes. `REQ client:seq`: a write that a client has numbered is applied at
//! most once, however often and through however many nodes it is sent. `FENCE token`: a write by the holder
//! of a lock is refused when a later holder has written the key.

use bytes::Bytes;
use groups::kv::Req;

use super::command::Command;
use super::data::DataCommand;
use super::error::ErrorReply;
use super::number;
use super::table::flag::WRITE;
use super::words::Words;

impl Words<'_> {
    /// `client:seq`, behind the word `REQ`.
    pub(super) fn req(&mut self) -> Result<(), ErrorReply> {
        if self.req.is_some() {
            return Err(self.syntax_error("REQ can be given once"));
        }
        let at = self.next;
        let (client, seq) = self.bytes().as_ref().and_then(read).ok_or_else(|| {
            ErrorReply::err(
                "REQ needs client:seq, as in REQ app-7:42; client is 1 to 64 of A-Z a-z 0-9 . _ - and seq counts \
                 from 1; nothing was applied",
            )
        })?;
        // What was asked is all other words.
        let words = self.args.iter().enumerate().skip(1);
        let others = words.filter(|(index, _)| *index != at && index + 1 != at).map(|(_, word)| word);
        let print = Req::print_of(std::iter::once(self.spec.name.as_bytes()).chain(others));
        self.req = Some(Req { client, seq, print });
        Ok(())
    }

    /// The token, behind the word `FENCE`.
    pub(super) fn token(&mut self) -> Result<(), ErrorReply> {
        if self.fence.is_some() {
            return Err(self.syntax_error("FENCE can be given once"));
        }
        let token = self.word().and_then(number::unsigned).filter(|token| *token > 0).ok_or_else(|| {
            ErrorReply::err(
                "FENCE needs a token from 1 on: the revision that the lock's key got when it was taken, as SET lock \
                 owner NX PX 5000 REV answers it; nothing was applied",
            )
        })?;
        self.fence = Some(token);
        Ok(())
    }

    /// Takes `FENCE token` and `REQ client:seq` where they are all there is left, in commands of a fixed form.
    pub(super) fn options_at_end(&mut self) -> Result<(), ErrorReply> {
        while self.spec.has(WRITE)
            && matches!(self.left(), 2 | 4)
            && let Some(word) = self.args.get(self.next).filter(|word| is_option_of_writes(word))
        {
            self.next += 1;
            if word.eq_ignore_ascii_case(b"REQ") { self.req()? } else { self.token()? }
        }
        Ok(())
    }

    /// Takes the last words if they are `FENCE token` or `REQ client:seq`, in commands that take any number
    /// of keys. Only in capitals, and behind a key at least: elsewhere it is a key of that name.
    pub(super) fn options_behind_keys(&mut self) -> Result<(), ErrorReply> {
        while let Some(at) = self.end.checked_sub(2).filter(|at| *at > self.next)
            && let Some(word @ (b"REQ" | b"FENCE")) = self.args.get(at)
        {
            let first = std::mem::replace(&mut self.next, at + 1);
            if word == b"REQ" {
                self.req()?
            } else {
                self.token()?
            }
            (self.next, self.end) = (first, at);
        }
        Ok(())
    }

    /// The command, with the token of the client's lock and the number that its client has given it.
    pub(super) fn finish(&mut self, command: DataCommand) -> Result<Command, ErrorReply> {
        let command = self.fenced(command)?;
        match self.req.take() {
            None => Ok(Command::Data(command)),
            Some(_) if !command.is_write() => Err(self.syntax_error("REQ is for commands that write")),
            Some(req) => Ok(Command::Data(DataCommand::Once { req, command: Box::new(command) })),
        }
    }

    /// The command, with the token of the client's lock.
    pub(super) fn fenced(&mut self, command: DataCommand) -> Result<DataCommand, ErrorReply> {
        match self.fence.take() {
            None => Ok(command),
            Some(_) if !command.is_write() => Err(self.syntax_error("FENCE is for commands that write")),
            Some(token) => Ok(DataCommand::Fenced { token, command: Box::new(command) }),
        }
    }
}

/// Whether this word begins an option that every write takes.
pub(super) fn is_option_of_writes(word: &[u8]) -> bool {
    word.eq_ignore_ascii_case(b"REQ") || word.eq_ignore_ascii_case(b"FENCE")
}

fn read(word: &Bytes) -> Option<(Bytes, u64)> {
    let colon = word.iter().rposition(|byte| *byte == b':')?;
    let seq = number::unsigned(&word[colon + 1..]).filter(|seq| *seq > 0)?;
    // Copied: it outlives the buffer that was read into.
    Some((Bytes::copy_from_slice(&word[..colon]), seq)).filter(|(client, _)| Req::is_name(client))
}
