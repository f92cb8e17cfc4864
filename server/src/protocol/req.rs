//! The option `REQ client:seq`: a write that a client has numbered is applied at most once, however
//! often and through however many nodes it is sent.

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

    /// Takes a `REQ` that is all there is left, in commands of a fixed form.
    pub(super) fn req_at_end(&mut self) -> Result<(), ErrorReply> {
        let named = self.args.get(self.next).is_some_and(|word| word.eq_ignore_ascii_case(b"REQ"));
        if self.left() == 2 && named && self.spec.has(WRITE) {
            self.next += 1;
            self.req()?;
        }
        Ok(())
    }

    /// Takes the last two words if they are a `REQ`, in commands that take any number of keys. Only
    /// in capitals, and behind a key at least: elsewhere it is a key of that name.
    pub(super) fn req_behind_keys(&mut self) -> Result<(), ErrorReply> {
        let Some(at) = self.end.checked_sub(2).filter(|at| *at > self.next) else { return Ok(()) };
        if self.args.get(at) != Some(b"REQ") {
            return Ok(());
        }
        let first = std::mem::replace(&mut self.next, at + 1);
        self.req()?;
        (self.next, self.end) = (first, at);
        Ok(())
    }

    /// The command, with the number that its client has given it.
    pub(super) fn finish(&mut self, command: DataCommand) -> Result<Command, ErrorReply> {
        match self.req.take() {
            None => Ok(Command::Data(command)),
            Some(_) if !command.is_write() => Err(self.syntax_error("REQ is for commands that write")),
            Some(req) => Ok(Command::Data(DataCommand::Once { req, command: Box::new(command) })),
        }
    }
}

fn read(word: &Bytes) -> Option<(Bytes, u64)> {
    let colon = word.iter().rposition(|byte| *byte == b':')?;
    let seq = number::unsigned(&word[colon + 1..]).filter(|seq| *seq > 0)?;
    // Copied: it outlives the buffer that was read into.
    Some((Bytes::copy_from_slice(&word[..colon]), seq)).filter(|(client, _)| Req::is_name(client))
}
