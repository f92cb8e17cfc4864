//! Commands of the state machine and their bytes, as they travel between nodes and stand in
//! chosen values. The bytes are part of the log's format: kinds are added, never reused.

use bytes::{Buf, BufMut, Bytes};

use super::history::Since;
use super::in_slot::InSlot;
use super::life::{Life, Renewal};
use super::once::Req;
use super::roll::MAX_ROLL;
use super::scan::Range;
use super::transaction::Transaction;
use super::walk::Walk;

/// The most keys in one command: what a request's limits allow, far below what a length can say.
pub const MAX_KEYS: usize = 1 << 20;

/// When a write applies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    /// Always.
    #[default]
    None,
    /// The key is absent.
    Absent,
    /// The key is present.
    Present,
    /// The key's revision is this one; 0 for an absent key.
    Revision(u64),
    /// The key is present with this value.
    Value(Bytes),
    /// The group has had so many leaderships, whatever the key is.
    Epoch(u64),
    /// The key was written with no token larger than this one; see `fence.rs`.
    Fence(u64),
}

/// What the writer wants to hear.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Want {
    /// That it was applied.
    #[default]
    Done,
    /// The new revision.
    Revision,
    /// The value before, whether applied or not.
    Previous,
}

/// One command. Reads change nothing and are never proposed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// The value and revision of a key.
    Get {
        /// The key.
        key: Bytes,
    },
    /// The values of several keys, at one instant.
    GetMany {
        /// The keys.
        keys: Vec<Bytes>,
    },
    /// The revisions of several keys at one instant, 0 for an absent one.
    Revisions {
        /// The keys.
        keys: Vec<Bytes>,
    },
    /// How many of these keys are present, repeats counted.
    Exists {
        /// The keys.
        keys: Vec<Bytes>,
    },
    /// How many keys the group has.
    Count,
    /// The length of a value in bytes, 0 for an absent key.
    Length {
        /// The key.
        key: Bytes,
    },
    /// For how many milliseconds a key will be there; -1 for one without an end, -2 for none.
    Rest {
        /// The key.
        key: Bytes,
    },
    /// Sets a key, which stays for good.
    /// The keys of a range, in their order.
    Scan(Range),
    /// The next keys of a walk through all of them.
    Walk(Walk),
    /// The next keys of a slot.
    InSlot(InSlot),
    /// The changes behind a revision, as far as the replica that answers remembers them.
    Changes(Since),
    /// Sets a key.
    Put {
        /// The key.
        key: Bytes,
        /// Its new value.
        value: Bytes,
        /// When.
        condition: Condition,
        /// What is answered.
        want: Want,
    },
    /// Sets several keys at once.
    PutMany {
        /// Keys and values; of a repeated key the last counts.
        pairs: Vec<(Bytes, Bytes)>,
    },
    /// Removes keys; answers how many were present.
    Delete {
        /// The keys.
        keys: Vec<Bytes>,
    },
    /// Removes a key; answers its value.
    Take {
        /// The key.
        key: Bytes,
    },
    /// Adds to the decimal number that a key holds; an absent key counts as 0.
    Add {
        /// The key.
        key: Bytes,
        /// What is added.
        delta: i64,
    },
    /// Appends to a value; answers its new length in bytes.
    Append {
        /// The key.
        key: Bytes,
        /// What is appended.
        value: Bytes,
        /// The longest result allowed, in bytes. In the command, so that every replica decides
        /// alike whatever its own configuration says.
        max: u32,
    },
    /// Sets a key to `new` if it holds `old`; answers 1 or 0.
    Cas {
        /// The key.
        key: Bytes,
        /// The value it must have.
        old: Bytes,
        /// The value it gets.
        new: Bytes,
    },
    /// Several commands at one instant; a read if all of them are.
    Transaction(Transaction),
    /// Sets a key whose life has an end, or goes on.
    PutFor {
        /// The key.
        key: Bytes,
        /// Its new value.
        value: Bytes,
        /// When.
        condition: Condition,
        /// What is answered.
        want: Want,
        /// Its life.
        life: Life,
    },
    /// Changes the life of a key.
    Renew {
        /// The key.
        key: Bytes,
        /// How, and what is answered.
        renewal: Renewal,
    },
    /// The cluster's roll and its version.
    Roll,
    /// Sets the roll, if its version is still this one; answers the new version.
    SetRoll {
        /// The version that its author knows.
        expect: u64,
        /// What it says from now on.
        bytes: Bytes,
    },
    /// A write that a client has numbered: executed once, however often it comes.
    Once {
        /// Whose, and which.
        req: Req,
        /// What is asked; neither a read nor numbered itself.
        command: Box<Command>,
    },
    /// How many leaderships the group has had.
    Epoch,
    /// A write by the holder of a lock: refused when one of its keys was written by a later holder.
    Fenced {
        /// The holder's token, from 1.
        token: u64,
        /// What is asked: a plain write of one or several keys.
        command: Box<Command>,
    },
}

/// Why bytes are not a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a command: {0}")]
pub struct BadCommand(pub(super) &'static str);

const GET: u8 = 1;
const GET_MANY: u8 = 2;
const EXISTS: u8 = 3;
const COUNT: u8 = 4;
const LENGTH: u8 = 5;
pub(super) const READ_TRANSACTION: u8 = 12;
const REVISIONS: u8 = 13;
const REST: u8 = 8;
pub(super) const SCAN: u8 = 10;
pub(super) const WALK: u8 = 11;
pub(super) const CHANGES: u8 = 14;
pub(super) const IN_SLOT: u8 = 7;
const ROLL: u8 = 9;
const PUT: u8 = 16;
const PUT_MANY: u8 = 17;
const DELETE: u8 = 18;
const TAKE: u8 = 19;
const ADD: u8 = 20;
const APPEND: u8 = 21;
const CAS: u8 = 22;
pub(super) const TRANSACTION: u8 = 28;
const PUT_FOR: u8 = 32;
const RENEW: u8 = 33;
pub(super) const ONCE: u8 = 34;
const SET_ROLL: u8 = 46;
const EPOCH: u8 = 15;
const FENCED: u8 = 41;

const KEEP: u8 = 0;
const FOR: u8 = 1;

impl Command {
    /// Whether it leaves the state as it is.
    #[must_use]
    pub fn is_read(&self) -> bool {
        match self {
            Command::Get { .. }
            | Command::GetMany { .. }
            | Command::Revisions { .. }
            | Command::Exists { .. }
            | Command::Count
            | Command::Length { .. }
            | Command::Rest { .. }
            | Command::Epoch
            | Command::Scan(_)
            | Command::Walk(_)
            | Command::InSlot(_)
            | Command::Roll
            | Command::Changes(_) => true,
            Command::Transaction(transaction) => transaction.is_read(),
            _ => false,
        }
    }

    /// The keys that a plain write changes, in its order; none of any other command.
    pub fn written(&self) -> impl Iterator<Item = &Bytes> {
        let (one, keys, pairs): (Option<&Bytes>, &[Bytes], &[(Bytes, Bytes)]) = match self {
            Command::Put { key, .. }
            | Command::PutFor { key, .. }
            | Command::Renew { key, .. }
            | Command::Take { key }
            | Command::Add { key, .. }
            | Command::Append { key, .. }
            | Command::Cas { key, .. } => (Some(key), &[], &[]),
            Command::Delete { keys } => (None, keys, &[]),
            Command::PutMany { pairs } => (None, &[], pairs),
            _ => (None, &[], &[]),
        };
        one.into_iter().chain(keys).chain(pairs.iter().map(|(key, _)| key))
    }

    /// The command itself, without the token of a lock.
    #[must_use]
    pub fn unfenced(&self) -> &Command {
        if let Command::Fenced { command, .. } = self { command } else { self }
    }

    /// Writes the command behind what `out` holds.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Command::Get { key } => {
                out.put_u8(GET);
                put_bytes(out, key);
            }
            Command::GetMany { keys } => put_keys(out, GET_MANY, keys),
            Command::Revisions { keys } => put_keys(out, REVISIONS, keys),
            Command::Exists { keys } => put_keys(out, EXISTS, keys),
            Command::Count => out.put_u8(COUNT),
            Command::Length { key } => {
                out.put_u8(LENGTH);
                put_bytes(out, key);
            }
            Command::Rest { key } => {
                out.put_u8(REST);
                put_bytes(out, key);
            }
            Command::Scan(range) => {
                out.put_u8(SCAN);
                range.encode(out);
            }
            Command::Walk(walk) => {
                out.put_u8(WALK);
                walk.encode(out);
            }
            Command::InSlot(question) => {
                out.put_u8(IN_SLOT);
                question.encode(out);
            }
            Command::Changes(since) => {
                out.put_u8(CHANGES);
                since.encode(out);
            }
            Command::Put { key, value, condition, want } => {
                out.put_u8(PUT);
                put_terms(out, condition, *want);
                put_bytes(out, key);
                put_bytes(out, value);
            }
            Command::PutMany { pairs } => {
                out.put_u8(PUT_MANY);
                out.put_u32_le(pairs.len() as u32);
                for (key, value) in pairs {
                    put_bytes(out, key);
                    put_bytes(out, value);
                }
            }
            Command::Delete { keys } => put_keys(out, DELETE, keys),
            Command::Take { key } => {
                out.put_u8(TAKE);
                put_bytes(out, key);
            }
            Command::Add { key, delta } => {
                out.put_u8(ADD);
                out.put_i64_le(*delta);
                put_bytes(out, key);
            }
            Command::Append { key, value, max } => {
                out.put_u8(APPEND);
                out.put_u32_le(*max);
                put_bytes(out, key);
                put_bytes(out, value);
            }
            Command::Cas { key, old, new } => {
                out.put_u8(CAS);
                put_bytes(out, key);
                put_bytes(out, old);
                put_bytes(out, new);
            }
            Command::Transaction(transaction) => transaction.encode(out),
            Command::PutFor { key, value, condition, want, life } => {
                out.put_u8(PUT_FOR);
                match life {
                    Life::Keep => out.put_u8(KEEP),
                    Life::For(millis) => {
                        out.put_u8(FOR);
                        out.put_u64_le(*millis);
                    }
                }
                put_terms(out, condition, *want);
                put_bytes(out, key);
                put_bytes(out, value);
            }
            Command::Renew { key, renewal } => {
                out.put_u8(RENEW);
                renewal.encode(out);
                put_bytes(out, key);
            }
            Command::Roll => out.put_u8(ROLL),
            Command::SetRoll { expect, bytes } => {
                out.put_u8(SET_ROLL);
                out.put_u64_le(*expect);
                put_bytes(out, bytes);
            }
            Command::Once { req, command } => {
                out.put_u8(ONCE);
                req.encode(out);
                command.encode(out);
            }
            Command::Epoch => out.put_u8(EPOCH),
            Command::Fenced { token, command } => {
                out.put_u8(FENCED);
                out.put_u64_le(*token);
                command.encode(out);
            }
        }
    }

    /// The command's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let mut out = Vec::with_capacity(64);
        self.encode(&mut out);
        Bytes::from(out)
    }

    /// Reads exactly one command. Keys and values are slices of `bytes`.
    ///
    /// # Errors
    /// When the bytes are anything else.
    pub fn decode(bytes: Bytes) -> Result<Command, BadCommand> {
        let mut r = Reader(bytes);
        let command = match r.u8()? {
            GET => Command::Get { key: r.bytes()? },
            GET_MANY => Command::GetMany { keys: r.keys()? },
            REVISIONS => Command::Revisions { keys: r.keys()? },
            EXISTS => Command::Exists { keys: r.keys()? },
            COUNT => Command::Count,
            LENGTH => Command::Length { key: r.bytes()? },
            REST => Command::Rest { key: r.bytes()? },
            SCAN => Command::Scan(Range::decode(&mut r)?),
            WALK => Command::Walk(Walk::decode(&mut r)?),
            IN_SLOT => Command::InSlot(InSlot::decode(&mut r)?),
            CHANGES => Command::Changes(Since::decode(&mut r)?),
            PUT => {
                let (condition, want) = r.terms()?;
                Command::Put { key: r.bytes()?, value: r.bytes()?, condition, want }
            }
            PUT_MANY => {
                let count = r.count(8)?;
                let mut pairs = Vec::with_capacity(count);
                for _ in 0..count {
                    pairs.push((r.bytes()?, r.bytes()?));
                }
                Command::PutMany { pairs }
            }
            DELETE => Command::Delete { keys: r.keys()? },
            TAKE => Command::Take { key: r.bytes()? },
            ADD => {
                let delta = r.u64()? as i64;
                Command::Add { key: r.bytes()?, delta }
            }
            APPEND => {
                let max = r.u32()?;
                Command::Append { key: r.bytes()?, value: r.bytes()?, max }
            }
            CAS => Command::Cas { key: r.bytes()?, old: r.bytes()?, new: r.bytes()? },
            kind @ (TRANSACTION | READ_TRANSACTION) => {
                Command::Transaction(Transaction::decode(&mut r, kind)?)
            }
            PUT_FOR => {
                let life = match r.u8()? {
                    KEEP => Life::Keep,
                    FOR => Life::For(r.u64()?),
                    _ => return Err(BadCommand("unknown life")),
                };
                let (condition, want) = r.terms()?;
                Command::PutFor { key: r.bytes()?, value: r.bytes()?, condition, want, life }
            }
            RENEW => {
                let renewal = Renewal::decode(&mut r.0).ok_or(BadCommand("unknown renewal"))?;
                Command::Renew { key: r.bytes()?, renewal }
            }
            ROLL => Command::Roll,
            SET_ROLL => {
                let (expect, bytes) = (r.u64()?, r.bytes()?);
                if bytes.len() > MAX_ROLL {
                    return Err(BadCommand("a roll that is too long"));
                }
                Command::SetRoll { expect, bytes }
            }
            ONCE => {
                let req = Req::decode(&mut r.0).ok_or(BadCommand("unknown request"))?;
                if r.0.first() == Some(&ONCE) {
                    return Err(BadCommand("numbered twice"));
                }
                let command = Command::decode(std::mem::take(&mut r.0))?;
                if command.is_read() {
                    return Err(BadCommand("a read is not numbered"));
                }
                Command::Once { req, command: Box::new(command) }
            }
            EPOCH => Command::Epoch,
            FENCED => {
                let token = r.u64()?;
                // Before it is decoded, so that nothing from outside decides about the stack.
                let plain = [PUT, PUT_MANY, DELETE, TAKE, ADD, APPEND, CAS, PUT_FOR, RENEW];
                if token == 0 || !r.0.first().is_some_and(|kind| plain.contains(kind)) {
                    return Err(BadCommand("a fence of something that is no plain write"));
                }
                let command = Command::decode(std::mem::take(&mut r.0))?;
                Command::Fenced { token, command: Box::new(command) }
            }
            _ => return Err(BadCommand("unknown kind")),
        };
        if r.0.is_empty() { Ok(command) } else { Err(BadCommand("bytes follow it")) }
    }
}

/// What a put answers, and when it applies.
fn put_terms(out: &mut Vec<u8>, condition: &Condition, want: Want) {
    out.put_u8(match want {
        Want::Done => 0,
        Want::Revision => 1,
        Want::Previous => 2,
    });
    put_condition(out, condition);
}

/// Writes what `write` does behind its length, which is known only then.
pub fn put_sized(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let length = out.len();
    out.put_u32_le(0);
    write(out);
    let written = (out.len() - length - 4) as u32;
    out[length..length + 4].copy_from_slice(&written.to_le_bytes());
}

/// Takes what stands behind its length, as [`put_sized`] writes it; `None` when there is less.
pub fn take_sized(bytes: &mut Bytes) -> Option<Bytes> {
    let length = bytes.try_get_u32_le().ok()? as usize;
    (length <= bytes.len()).then(|| bytes.split_to(length))
}

pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.put_u32_le(bytes.len() as u32);
    out.put_slice(bytes);
}

pub(super) fn put_condition(out: &mut Vec<u8>, condition: &Condition) {
    match condition {
        Condition::None => out.put_u8(0),
        Condition::Absent => out.put_u8(1),
        Condition::Present => out.put_u8(2),
        Condition::Revision(revision) => {
            out.put_u8(3);
            out.put_u64_le(*revision);
        }
        Condition::Value(value) => {
            out.put_u8(4);
            put_bytes(out, value);
        }
        Condition::Epoch(epoch) => {
            out.put_u8(5);
            out.put_u64_le(*epoch);
        }
        Condition::Fence(token) => {
            out.put_u8(6);
            out.put_u64_le(*token);
        }
    }
}

fn put_keys(out: &mut Vec<u8>, kind: u8, keys: &[Bytes]) {
    out.put_u8(kind);
    out.put_u32_le(keys.len() as u32);
    for key in keys {
        put_bytes(out, key);
    }
}

/// What is left of a command or an outcome that is being read.
pub(super) struct Reader(pub(super) Bytes);

impl Reader {
    fn need(&self, n: usize) -> Result<(), BadCommand> {
        if self.0.len() < n { Err(BadCommand("cut short")) } else { Ok(()) }
    }

    pub(super) fn u8(&mut self) -> Result<u8, BadCommand> {
        self.need(1)?;
        Ok(self.0.get_u8())
    }

    pub(super) fn u32(&mut self) -> Result<u32, BadCommand> {
        self.need(4)?;
        Ok(self.0.get_u32_le())
    }

    pub(super) fn u64(&mut self) -> Result<u64, BadCommand> {
        self.need(8)?;
        Ok(self.0.get_u64_le())
    }

    pub(super) fn bytes(&mut self) -> Result<Bytes, BadCommand> {
        let len = self.u32()? as usize;
        self.need(len)?;
        Ok(self.0.split_to(len))
    }

    fn terms(&mut self) -> Result<(Condition, Want), BadCommand> {
        let want = match self.u8()? {
            0 => Want::Done,
            1 => Want::Revision,
            2 => Want::Previous,
            _ => return Err(BadCommand("unknown answer wanted")),
        };
        Ok((self.condition()?, want))
    }

    /// A count of things that take at least `least` bytes each: one that cannot fit allocates
    /// nothing.
    pub(super) fn count(&mut self, least: usize) -> Result<usize, BadCommand> {
        let count = self.u32()? as usize;
        if count > MAX_KEYS {
            return Err(BadCommand("too many keys"));
        }
        self.need(count * least)?;
        Ok(count)
    }

    pub(super) fn condition(&mut self) -> Result<Condition, BadCommand> {
        Ok(match self.u8()? {
            0 => Condition::None,
            1 => Condition::Absent,
            2 => Condition::Present,
            3 => Condition::Revision(self.u64()?),
            4 => Condition::Value(self.bytes()?),
            5 => Condition::Epoch(self.u64()?),
            6 => Condition::Fence(self.u64()?),
            _ => return Err(BadCommand("unknown condition")),
        })
    }

    pub(super) fn keys(&mut self) -> Result<Vec<Bytes>, BadCommand> {
        let count = self.count(4)?;
        (0..count).map(|_| self.bytes()).collect()
    }
}
