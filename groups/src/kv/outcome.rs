//! What a command came to, and its bytes: outcomes travel to the node that asked and stand in
//! the session table.

use bytes::{Buf, BufMut, Bytes};

use super::command::{BadCommand, MAX_KEYS, Reader, put_sized};
use super::history::{self, Change};
use super::in_slot;
use super::scan::Page;
use super::transaction::MAX_PARTS;
use super::walk;

const TRANSACTION: u8 = 24;

/// Why a command failed. Nothing of it was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The value is not a decimal number of 64 bits.
    NotAnInteger,
    /// The sum does not fit 64 bits.
    Overflow,
    /// The result would be longer than this many bytes.
    TooLong(u32),
    /// More commands of one session are unanswered than the table keeps.
    SessionFull,
    /// An earlier command of the same session is missing: send them again in order.
    OutOfOrder,
    /// The outcomes of a transaction could take more than this many bytes.
    AnswerTooLong(u32),
    /// The client has used this number for another command.
    Reused,
    /// A key was written with this larger token: a later holder of the lock has been there.
    Fenced(u64),
    /// There is no room for the fence of one more key.
    FencesFull,
}

/// What a command came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Applied.
    Done,
    /// The condition did not hold; nothing was applied.
    Unmet,
    /// Applied; the key's new revision.
    Revision(u64),
    /// A count, a length or a sum.
    Integer(i64),
    /// A value with its revision, or none.
    Value(Option<(Bytes, u64)>),
    /// Values in the order of the keys.
    Values(Vec<Option<Bytes>>),
    /// Revisions in the order of the keys.
    Revisions(Vec<u64>),
    /// A transaction was executed.
    Transaction {
        /// Whether the guards held: it says which of its two lists was executed.
        met: bool,
        /// What the commands of that list came to, in order; none of them is a transaction.
        outcomes: Vec<Outcome>,
    },
    /// Keys of a range, in their order.
    Page(Page),
    /// The next keys of a walk.
    Walked {
        /// The keys.
        keys: Vec<Bytes>,
        /// The place from which it goes on; `None` at the end.
        next: Option<u64>,
    },
    /// Keys of a slot, among those that were gone through.
    InSlot {
        /// How many.
        count: u64,
        /// Their names, if they were wanted.
        keys: Vec<Bytes>,
        /// The first key that was not gone through; `None` at the end.
        next: Option<Bytes>,
    },
    /// What has changed.
    Changes {
        /// The changes, by revision.
        changes: Vec<Change>,
        /// Every change asked for up to this revision is among them.
        through: u64,
    },
    /// Changes that were asked for are gone.
    Compacted {
        /// The lowest revision behind which they are all there.
        min: u64,
    },
    /// Not applied.
    Failed(Failure),
    /// A copy of a command whose answer was given up long ago. Not applied again; whether it
    /// ever was is no longer known here.
    Retired,
    /// A client's request whose number is below those that are remembered of it. Not applied
    /// again; whether it ever was is no longer known here.
    Forgotten {
        /// The highest number that the client has used.
        newest: u64,
    },
    /// A copy of a client's request that was applied, and whose answer was too large to be kept.
    Unkept,
}

impl Outcome {
    /// Writes the outcome behind what `out` holds.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Outcome::Done => out.put_u8(0),
            Outcome::Unmet => out.put_u8(1),
            Outcome::Revision(revision) => {
                out.put_u8(2);
                out.put_u64_le(*revision);
            }
            Outcome::Integer(n) => {
                out.put_u8(3);
                out.put_i64_le(*n);
            }
            Outcome::Value(None) => out.put_u8(4),
            Outcome::Value(Some((value, revision))) => {
                out.put_u8(5);
                out.put_u64_le(*revision);
                out.put_slice(value);
            }
            Outcome::Values(values) => {
                out.put_u8(6);
                out.put_u32_le(values.len() as u32);
                for value in values {
                    match value {
                        None => out.put_u32_le(u32::MAX),
                        Some(value) => {
                            out.put_u32_le(value.len() as u32);
                            out.put_slice(value);
                        }
                    }
                }
            }
            Outcome::Failed(Failure::NotAnInteger) => out.put_u8(7),
            Outcome::Failed(Failure::Overflow) => out.put_u8(8),
            Outcome::Failed(Failure::TooLong(max)) => {
                out.put_u8(9);
                out.put_u32_le(*max);
            }
            Outcome::Failed(Failure::SessionFull) => out.put_u8(10),
            Outcome::Retired => out.put_u8(11),
            Outcome::Failed(Failure::OutOfOrder) => out.put_u8(12),
            Outcome::Transaction { met, outcomes } => {
                out.put_u8(TRANSACTION);
                out.put_u8(u8::from(*met));
                out.put_u32_le(outcomes.len() as u32);
                for outcome in outcomes {
                    put_sized(out, |out| outcome.encode(out));
                }
            }
            Outcome::Failed(Failure::AnswerTooLong(max)) => {
                out.put_u8(25);
                out.put_u32_le(*max);
            }
            Outcome::Revisions(revisions) => {
                out.put_u8(26);
                out.put_u32_le(revisions.len() as u32);
                revisions.iter().for_each(|revision| out.put_u64_le(*revision));
            }
            Outcome::Forgotten { newest } => {
                out.put_u8(20);
                out.put_u64_le(*newest);
            }
            Outcome::Unkept => out.put_u8(21),
            Outcome::Failed(Failure::Reused) => out.put_u8(22),
            Outcome::Failed(Failure::Fenced(token)) => {
                out.put_u8(40);
                out.put_u64_le(*token);
            }
            Outcome::Failed(Failure::FencesFull) => out.put_u8(41),
            Outcome::Page(page) => {
                out.put_u8(27);
                page.encode(out);
            }
            Outcome::Walked { keys, next } => {
                out.put_u8(28);
                walk::encode_walked(keys, *next, out);
            }
            Outcome::InSlot { count, keys, next } => {
                out.put_u8(31);
                in_slot::encode_found(*count, keys, next.as_ref(), out);
            }
            Outcome::Changes { changes, through } => {
                out.put_u8(29);
                out.put_u64_le(*through);
                history::encode_changes(changes, out);
            }
            Outcome::Compacted { min } => {
                out.put_u8(30);
                out.put_u64_le(*min);
            }
        }
    }

    /// About how many bytes it takes.
    #[must_use]
    pub fn size(&self) -> usize {
        match self {
            Outcome::Value(Some((value, _))) => value.len() + 16,
            Outcome::Values(values) => values.iter().flatten().map(|v| v.len() + 8).sum::<usize>() + 8,
            Outcome::Revisions(revisions) => revisions.len() * 8 + 8,
            Outcome::Transaction { outcomes, .. } => {
                outcomes.iter().map(|o| o.size() + 4).sum::<usize>() + 16
            }
            Outcome::Page(page) => page.size(),
            Outcome::Walked { keys, .. } | Outcome::InSlot { keys, .. } => {
                keys.iter().map(|k| k.len() + 4).sum::<usize>() + 16
            }
            Outcome::Changes { changes, .. } => history::size(changes) + 16,
            _ => 16,
        }
    }

    /// Reads exactly one outcome; `None` when the bytes are anything else.
    #[must_use]
    pub fn decode(mut bytes: Bytes) -> Option<Outcome> {
        let outcome = match bytes.try_get_u8().ok()? {
            0 => Outcome::Done,
            1 => Outcome::Unmet,
            2 => Outcome::Revision(bytes.try_get_u64_le().ok()?),
            3 => Outcome::Integer(bytes.try_get_i64_le().ok()?),
            4 => Outcome::Value(None),
            5 => {
                let revision = bytes.try_get_u64_le().ok()?;
                Outcome::Value(Some((std::mem::take(&mut bytes), revision)))
            }
            6 => {
                let count = bytes.try_get_u32_le().ok()? as usize;
                if count > MAX_KEYS || bytes.len() < count * 4 {
                    return None;
                }
                let mut values = Vec::with_capacity(count);
                for _ in 0..count {
                    let len = bytes.try_get_u32_le().ok()?;
                    if len == u32::MAX {
                        values.push(None);
                    } else if len as usize <= bytes.len() {
                        values.push(Some(bytes.split_to(len as usize)));
                    } else {
                        return None;
                    }
                }
                Outcome::Values(values)
            }
            7 => Outcome::Failed(Failure::NotAnInteger),
            8 => Outcome::Failed(Failure::Overflow),
            9 => Outcome::Failed(Failure::TooLong(bytes.try_get_u32_le().ok()?)),
            10 => Outcome::Failed(Failure::SessionFull),
            11 => Outcome::Retired,
            12 => Outcome::Failed(Failure::OutOfOrder),
            TRANSACTION => decode_transaction(&mut bytes)?,
            25 => Outcome::Failed(Failure::AnswerTooLong(bytes.try_get_u32_le().ok()?)),
            26 => {
                let count = bytes.try_get_u32_le().ok()? as usize;
                if count > MAX_KEYS || bytes.len() < count * 8 {
                    return None;
                }
                Outcome::Revisions((0..count).map(|_| bytes.get_u64_le()).collect())
            }
            20 => Outcome::Forgotten { newest: bytes.try_get_u64_le().ok()? },
            21 => Outcome::Unkept,
            22 => Outcome::Failed(Failure::Reused),
            40 => Outcome::Failed(Failure::Fenced(bytes.try_get_u64_le().ok()?)),
            41 => Outcome::Failed(Failure::FencesFull),
            kind @ 27..=31 => {
                let mut r = Reader(bytes);
                let outcome = Outcome::decode_rest(kind, &mut r).ok()?;
                return r.0.is_empty().then_some(outcome);
            }
            _ => return None,
        };
        bytes.is_empty().then_some(outcome)
    }

    /// The outcomes of reads of many keys.
    fn decode_rest(kind: u8, r: &mut Reader) -> Result<Outcome, BadCommand> {
        Ok(match kind {
            27 => Outcome::Page(Page::decode(r)?),
            28 => {
                let (keys, next) = walk::decode_walked(r)?;
                Outcome::Walked { keys, next }
            }
            29 => {
                let through = r.u64()?;
                Outcome::Changes { changes: history::decode_changes(r)?, through }
            }
            30 => Outcome::Compacted { min: r.u64()? },
            _ => in_slot::decode_found(r)?,
        })
    }
}

fn decode_transaction(bytes: &mut Bytes) -> Option<Outcome> {
    let met = match bytes.try_get_u8().ok()? {
        0 => false,
        1 => true,
        _ => return None,
    };
    let count = bytes.try_get_u32_le().ok()? as usize;
    if count > MAX_PARTS || bytes.len() < count * 5 {
        return None;
    }
    let mut outcomes = Vec::with_capacity(count);
    for _ in 0..count {
        let length = bytes.try_get_u32_le().ok()? as usize;
        // One level deep, whatever the bytes say.
        if length > bytes.len() || bytes.first() == Some(&TRANSACTION) {
            return None;
        }
        outcomes.push(Outcome::decode(bytes.split_to(length))?);
    }
    Some(Outcome::Transaction { met, outcomes })
}
