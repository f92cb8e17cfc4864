//! Messages as bytes: a fixed little-endian head per kind, and the value of an [`Accept`] as
//! shared bytes behind it, so that the hot path copies no value to encode one message for
//! several peers.
//!
//! The kind travels in the frame's own kind byte; the frame carries length and checksum. What
//! is decoded here has passed that checksum, but lengths are bounded again all the same.

use bytes::{Buf, BufMut, Bytes};

use super::message::{
    Accept, Accepted, Advance, AdvanceReply, Ask, Entry, Learn, Mark, Message, Part, Prepare, Probe,
    ProbeReply, Promise, Reject, Report, Then, Transfer, Values,
};
use super::quorum::Members;
use crate::ids::{Ballot, Boot, InstanceId, NodeId, StorageId};
use crate::kv::Point;
use crate::peers::Tenure;
use crate::time::Time;

/// Frame kinds from this one on belong to Paxos messages.
pub const FIRST_KIND: u8 = 16;

const PROBE: u8 = FIRST_KIND;
const PROBE_REPLY: u8 = FIRST_KIND + 1;
const PREPARE: u8 = FIRST_KIND + 2;
const PROMISE: u8 = FIRST_KIND + 3;
/// The frame kind of an accept.
pub const ACCEPT: u8 = FIRST_KIND + 4;
const ACCEPTED: u8 = FIRST_KIND + 5;
const REJECT: u8 = FIRST_KIND + 6;
const ADVANCE: u8 = FIRST_KIND + 7;
const ADVANCE_REPLY: u8 = FIRST_KIND + 8;
const LEARN: u8 = FIRST_KIND + 9;
/// The frame kind of chosen values.
pub const VALUES: u8 = FIRST_KIND + 10;
const TRANSFER: u8 = FIRST_KIND + 11;
const REPORT: u8 = FIRST_KIND + 12;
const ASK: u8 = FIRST_KIND + 13;
const PART: u8 = FIRST_KIND + 14;

/// Frame kinds up to this one belong to Paxos messages.
pub const LAST_KIND: u8 = PART;

/// Why bytes are not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The body ends before the message does.
    #[error("a {kind} message is cut short")]
    Short {
        /// The frame kind.
        kind: u8,
    },
    /// The body goes on after the message.
    #[error("{extra} bytes follow a message of kind {kind}")]
    Trailing {
        /// The frame kind.
        kind: u8,
        /// How many.
        extra: usize,
    },
    /// A count or flag that no sender writes.
    #[error("a message of kind {kind} holds an impossible number")]
    Impossible {
        /// The frame kind.
        kind: u8,
    },
    /// Not a Paxos message.
    #[error("no message has kind {kind}")]
    UnknownKind {
        /// The frame kind.
        kind: u8,
    },
}

/// Writes the head of `message` behind what `head` holds and returns the frame kind and the
/// payload that follows the head (the value of an accept, else nothing).
pub fn encode(message: &Message, head: &mut Vec<u8>) -> (u8, Bytes) {
    match message {
        Message::Probe(m) => {
            head.put_u64_le(m.attempt);
            head.put_u64_le(m.chosen.0);
            head.put_u64_le(m.life.0);
            put_ballot(head, m.renounced);
            (PROBE, Bytes::new())
        }
        Message::ProbeReply(m) => {
            head.put_u64_le(m.attempt);
            head.put_u8(u8::from(m.granted));
            put_ballot(head, m.promised);
            head.put_u64_le(m.life.0);
            put_ballot(head, m.renounced);
            (PROBE_REPLY, Bytes::new())
        }
        Message::Prepare(m) => {
            put_ballot(head, m.ballot);
            head.put_u64_le(m.from.0);
            put_ballot(head, m.consent);
            (PREPARE, Bytes::new())
        }
        Message::Promise(m) => {
            put_ballot(head, m.ballot);
            head.put_u128_le(m.voter.0);
            head.put_u64_le(m.changed.0);
            head.put_u64_le(m.chosen.0);
            head.put_u32_le(m.part);
            head.put_u32_le(m.parts);
            put_entries(head, &m.entries);
            (PROMISE, Bytes::new())
        }
        Message::Accept(m) => {
            put_ballot(head, m.ballot);
            head.put_u64_le(m.instance.0);
            put_mark(head, m.mark);
            (ACCEPT, m.value.clone())
        }
        Message::Accepted(m) => {
            put_ballot(head, m.ballot);
            head.put_u128_le(m.voter.0);
            head.put_u64_le(m.first.0);
            head.put_u64_le(m.last.0);
            head.put_u64_le(m.chosen.0);
            (ACCEPTED, Bytes::new())
        }
        Message::Reject(m) => {
            put_ballot(head, m.refused);
            put_ballot(head, m.promised);
            (REJECT, Bytes::new())
        }
        Message::Advance(m) => {
            put_ballot(head, m.ballot);
            put_mark(head, m.mark);
            head.put_u64_le(m.barrier);
            head.put_u64_le(m.asked.nanos());
            head.put_u64_le(m.life.0);
            (ADVANCE, Bytes::new())
        }
        Message::AdvanceReply(m) => {
            put_ballot(head, m.ballot);
            head.put_u128_le(m.voter.0);
            head.put_u64_le(m.chosen.0);
            head.put_u64_le(m.barrier);
            head.put_u64_le(m.tenure.0);
            (ADVANCE_REPLY, Bytes::new())
        }
        Message::Learn(m) => {
            head.put_u64_le(m.session);
            head.put_u64_le(m.from.0);
            head.put_u32_le(m.credit);
            (LEARN, Bytes::new())
        }
        Message::Values(m) => {
            head.put_u64_le(m.session);
            head.put_u64_le(m.first.0);
            match m.then {
                Then::More => head.put_u8(0),
                Then::End => head.put_u8(1),
                Then::Begins(first) => {
                    head.put_u8(2);
                    head.put_u64_le(first.0);
                }
            }
            put_entries(head, &m.entries);
            (VALUES, Bytes::new())
        }
        Message::Transfer(m) => {
            put_ballot(head, m.ballot);
            (TRANSFER, Bytes::new())
        }
        Message::Report(m) => {
            m.point.encode(head);
            (REPORT, Bytes::new())
        }
        Message::Ask(m) => {
            head.put_u64_le(m.life.0);
            head.put_u64_le(m.sent.nanos());
            (ASK, Bytes::new())
        }
        Message::Part(m) => {
            put_ballot(head, m.ballot);
            put_mark(head, m.mark);
            (PART, m.members.encode())
        }
    }
}

/// Reads a message of frame kind `kind` from `body`. Values are slices of `body`.
///
/// # Errors
/// When the bytes are not exactly one message of that kind.
pub fn decode(kind: u8, body: Bytes) -> Result<Message, DecodeError> {
    let mut r = Reader { kind, body };
    let message = match kind {
        PROBE => Message::Probe(Probe {
            attempt: r.u64()?,
            chosen: r.instance()?,
            life: Boot(r.u64()?),
            renounced: r.ballot()?,
        }),
        PROBE_REPLY => Message::ProbeReply(ProbeReply {
            attempt: r.u64()?,
            granted: r.flag()?,
            promised: r.ballot()?,
            life: Boot(r.u64()?),
            renounced: r.ballot()?,
        }),
        PREPARE => {
            Message::Prepare(Prepare { ballot: r.ballot()?, from: r.instance()?, consent: r.ballot()? })
        }
        PROMISE => Message::Promise(Promise {
            ballot: r.ballot()?,
            voter: r.storage()?,
            changed: r.instance()?,
            chosen: r.instance()?,
            part: r.u32()?,
            parts: r.u32()?,
            entries: r.entries()?,
        }),
        ACCEPT => Message::Accept(Accept {
            ballot: r.ballot()?,
            instance: r.instance()?,
            mark: r.mark()?,
            value: r.rest(),
        }),
        ACCEPTED => Message::Accepted(Accepted {
            ballot: r.ballot()?,
            voter: r.storage()?,
            first: r.instance()?,
            last: r.instance()?,
            chosen: r.instance()?,
        }),
        REJECT => Message::Reject(Reject { refused: r.ballot()?, promised: r.ballot()? }),
        ADVANCE => Message::Advance(Advance {
            ballot: r.ballot()?,
            mark: r.mark()?,
            barrier: r.u64()?,
            asked: r.time()?,
            life: Boot(r.u64()?),
        }),
        ADVANCE_REPLY => Message::AdvanceReply(AdvanceReply {
            ballot: r.ballot()?,
            voter: r.storage()?,
            chosen: r.instance()?,
            barrier: r.u64()?,
            tenure: Tenure(r.u64()?),
        }),
        LEARN => Message::Learn(Learn { session: r.u64()?, from: r.instance()?, credit: r.u32()? }),
        VALUES => Message::Values(Values {
            session: r.u64()?,
            first: r.instance()?,
            then: r.then()?,
            entries: r.entries()?,
        }),
        TRANSFER => Message::Transfer(Transfer { ballot: r.ballot()? }),
        REPORT => Message::Report(Report { point: r.point()? }),
        ASK => Message::Ask(Ask { life: Boot(r.u64()?), sent: r.time()? }),
        PART => Message::Part(Part { ballot: r.ballot()?, mark: r.mark()?, members: r.members()? }),
        kind => return Err(DecodeError::UnknownKind { kind }),
    };
    r.end()?;
    Ok(message)
}

fn put_ballot(out: &mut Vec<u8>, ballot: Ballot) {
    out.put_u64_le(ballot.round);
    out.put_u32_le(ballot.node.0);
}

fn put_mark(out: &mut Vec<u8>, mark: Mark) {
    out.put_u64_le(mark.instance.0);
    out.put_u64_le(mark.chain);
}

fn put_entries(out: &mut Vec<u8>, entries: &[Entry]) {
    out.put_u32_le(entries.len() as u32);
    for entry in entries {
        out.put_u64_le(entry.instance.0);
        put_ballot(out, entry.ballot);
        out.put_u32_le(entry.value.len() as u32);
        out.put_slice(&entry.value);
    }
}

/// Bytes of one entry before its value.
pub const ENTRY_HEAD: usize = 8 + 12 + 4;

struct Reader {
    kind: u8,
    body: Bytes,
}

impl Reader {
    fn need(&self, n: usize) -> Result<(), DecodeError> {
        if self.body.len() < n { Err(DecodeError::Short { kind: self.kind }) } else { Ok(()) }
    }

    fn u64(&mut self) -> Result<u64, DecodeError> {
        self.need(8)?;
        Ok(self.body.get_u64_le())
    }

    fn u32(&mut self) -> Result<u32, DecodeError> {
        self.need(4)?;
        Ok(self.body.get_u32_le())
    }

    fn flag(&mut self) -> Result<bool, DecodeError> {
        self.need(1)?;
        match self.body.get_u8() {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::Impossible { kind: self.kind }),
        }
    }

    fn time(&mut self) -> Result<Time, DecodeError> {
        Ok(Time::from_nanos(self.u64()?))
    }

    fn instance(&mut self) -> Result<InstanceId, DecodeError> {
        Ok(InstanceId(self.u64()?))
    }

    fn storage(&mut self) -> Result<StorageId, DecodeError> {
        self.need(16)?;
        Ok(StorageId(self.body.get_u128_le()))
    }

    fn ballot(&mut self) -> Result<Ballot, DecodeError> {
        Ok(Ballot { round: self.u64()?, node: NodeId(self.u32()?) })
    }

    fn then(&mut self) -> Result<Then, DecodeError> {
        self.need(1)?;
        match self.body.get_u8() {
            0 => Ok(Then::More),
            1 => Ok(Then::End),
            2 => Ok(Then::Begins(self.instance()?)),
            _ => Err(DecodeError::Impossible { kind: self.kind }),
        }
    }

    fn mark(&mut self) -> Result<Mark, DecodeError> {
        Ok(Mark { instance: self.instance()?, chain: self.u64()? })
    }

    fn point(&mut self) -> Result<Point, DecodeError> {
        Point::decode(&mut self.body).ok_or(DecodeError::Short { kind: self.kind })
    }

    fn entries(&mut self) -> Result<Vec<Entry>, DecodeError> {
        let count = self.u32()? as usize;
        // Each entry takes at least its head: a count that cannot fit allocates nothing.
        self.need(count.saturating_mul(ENTRY_HEAD))?;
        let mut entries = Vec::with_capacity(count);
        for _ in 0..count {
            let instance = self.instance()?;
            let ballot = self.ballot()?;
            let len = self.u32()? as usize;
            self.need(len)?;
            entries.push(Entry { instance, ballot, value: self.body.split_to(len) });
        }
        Ok(entries)
    }

    fn members(&mut self) -> Result<Members, DecodeError> {
        self.need(Members::HEAD)?;
        let length = Members::length(&self.body);
        self.need(length)?;
        Members::decode(self.body.split_to(length)).ok_or(DecodeError::Impossible { kind: self.kind })
    }

    fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.body)
    }

    fn end(&self) -> Result<(), DecodeError> {
        match self.body.len() {
            0 => Ok(()),
            extra => Err(DecodeError::Trailing { kind: self.kind, extra }),
        }
    }
}
