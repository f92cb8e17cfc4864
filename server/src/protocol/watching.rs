//! Watching keys: `SUBSCRIBEKV` and `UNSUBSCRIBEKV`.

use bytes::Bytes;

use super::command::Command;
use super::error::ErrorReply;
use super::number;
use super::token::Position;
use super::words::Words;

/// What a connection is to watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchCommand {
    /// `SUBSCRIBEKV`.
    Begin {
        /// Keys that begin with this.
        prefix: Bytes,
        /// From where on.
        from: WatchFrom,
    },
    /// `UNSUBSCRIBEKV`, of one prefix or of all.
    End(Option<Bytes>),
}

/// From where on keys are watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchFrom {
    /// From now on: what was acknowledged before is not told, what is acknowledged later is.
    Now,
    /// Behind this revision, for prefixes whose keys are all of one group.
    Revision(u64),
    /// Behind a position that an earlier watch has told.
    Position(Position),
}

impl Words<'_> {
    pub(super) fn watch(mut self) -> Result<Command, ErrorReply> {
        let prefix = self.key()?;
        let mut from = WatchFrom::Now;
        while let Some(option) = self.bytes() {
            if !option.eq_ignore_ascii_case(b"FROM") {
                return Err(self.unexpected(&option));
            }
            let place = self.required()?;
            from = match number::unsigned(&place) {
                Some(revision) => WatchFrom::Revision(revision),
                None => WatchFrom::Position(Position::parse(&place).ok_or_else(|| {
                    ErrorReply::err(
                        "FROM needs a revision or the token of an earlier event; nothing is watched; leave it out to \
                         begin now",
                    )
                })?),
            };
        }
        Ok(Command::Watch(WatchCommand::Begin { prefix, from }))
    }

    pub(super) fn unwatch(mut self) -> Result<Command, ErrorReply> {
        let prefix = if self.left() == 0 { None } else { Some(self.key()?) };
        self.end()?;
        Ok(Command::Watch(WatchCommand::End(prefix)))
    }
}
