//! The values that Paxos chooses: nothing, the opening of a leadership, a batch of commands, a check
//! of the replicas' states (see `groups/src/check.rs`), other members, or the end of lives.
//!
//! ```text
//! no-op    00
//! lead     01 node:u32
//! batch    02 count:u32 { node:u32 boot:u64 number:u64 behind:u32 length:u32 command }*
//! check    03 00                                    nothing is known of earlier ones
//!          03 01 instance:u64 hash:32 rest:u64      a majority had this sum at an earlier check
//!          03 02 instance:u64                       no sum can have a majority there
//! members  04 after:u64 count:u32 { node:u32 storage:u128 }*
//! batch    05 clock:u64 count:u32 { … }*            with the group's clock, which is not 0
//! expire   06 clock:u64 most:u32
//! ```
//! All numbers little-endian. `number - behind` is the lowest number of that session whose
//! answer is still awaited: the session table forgets what lies below it. A clock is that of the
//! leader which proposed the value, in milliseconds; see `groups/src/clock.rs`.

use bytes::{Buf, BufMut, Bytes};

use super::check::{POINT_BYTES, Point, Verdict};
use super::session::Ticket;
use crate::ids::{Boot, InstanceId, Member, NodeId};
use crate::paxos::quorum::{put_members, take_members};

const NOOP: u8 = 0;
const LEAD: u8 = 1;
const BATCH: u8 = 2;
const MEMBERS: u8 = 4;
const CHECK: u8 = 3;
const STAMPED: u8 = 5;
const EXPIRE: u8 = 6;

const UNKNOWN: u8 = 0;
const AGREED: u8 = 1;
const SPLIT: u8 = 2;

/// Bytes of one command in a batch before the command itself.
pub const COMMAND_HEAD: usize = 4 + 8 + 8 + 4 + 4;

/// A value that changes nothing and fills a gap.
#[must_use]
pub fn noop() -> Bytes {
    Bytes::from_static(&[NOOP])
}

/// The entry that a new leader begins with; it moves the group's epoch.
#[must_use]
pub fn lead(node: NodeId) -> Bytes {
    let mut out = Vec::with_capacity(5);
    out.put_u8(LEAD);
    out.put_u32_le(node.0);
    Bytes::from(out)
}

/// A change of the members, made by somebody who took those of instance `after` for the members.
///
/// It names all of the new ones. So it counts only where it follows those that its author knew: one that
/// was proposed long ago and is adopted behind another change would undo that one, and is a no-op.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewMembers {
    /// Where the members that its author knew were made; 0 for those of the birth.
    pub after: InstanceId,
    /// Who decides from the next instance on.
    pub list: Vec<Member>,
}

impl NewMembers {
    /// Whether it counts where the members are those that the value of `changed` has made.
    #[must_use]
    pub fn follows(&self, changed: InstanceId) -> bool {
        self.after == changed
    }

    fn decode(mut bytes: Bytes) -> Option<NewMembers> {
        let after = InstanceId(bytes.try_get_u64_le().ok()?);
        take_members(&mut bytes).map(|list| NewMembers { after, list })
    }
}

/// The value that makes these the members of the group from the next instance on, where those that the
/// value of `after` has made are the members.
#[must_use]
pub fn members(after: InstanceId, list: &[Member]) -> Bytes {
    let mut out = Vec::with_capacity(72);
    out.put_u8(MEMBERS);
    out.put_u64_le(after.0);
    put_members(list, &mut out);
    Bytes::from(out)
}

/// The members that a value makes, if it is one that does.
#[must_use]
pub fn as_members(value: &Bytes) -> Option<NewMembers> {
    if value.first() != Some(&MEMBERS) {
        return None;
    }
    NewMembers::decode(value.slice(1..))
}
/// Every replica notes its state where this is applied, and compares what it noted earlier with
/// the verdict.
#[must_use]
pub fn check(verdict: Option<Verdict>) -> Bytes {
    let mut out = Vec::with_capacity(2 + POINT_BYTES);
    out.put_u8(CHECK);
    match verdict {
        None => out.put_u8(UNKNOWN),
        Some(Verdict::Agreed(point)) => {
            out.put_u8(AGREED);
            point.encode(&mut out);
        }
        Some(Verdict::Split(instance)) => {
            out.put_u8(SPLIT);
            out.put_u64_le(instance.0);
        }
    }
    Bytes::from(out)
}

/// The value that ends the lives that are over when the group's clock shows `clock`, those that
/// ended first first, at most so many; it moves the clock there, if it is not beyond it.
#[must_use]
pub fn expire(clock: u64, most: u32) -> Bytes {
    let mut out = Vec::with_capacity(13);
    out.put_u8(EXPIRE);
    out.put_u64_le(clock);
    out.put_u32_le(most);
    Bytes::from(out)
}

/// Packs commands into one value.
#[derive(Debug)]
pub struct Batch {
    out: Vec<u8>,
    count: u32,
    /// Where the count stands.
    at: usize,
}

impl Default for Batch {
    fn default() -> Batch {
        Batch::new()
    }
}

impl Batch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Batch {
        Batch::with_capacity(0)
    }

    /// An empty batch with room for `bytes`.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Batch {
        Batch::stamped(0, bytes)
    }

    /// An empty batch at this time of the group's clock, 0 for no word of it, with room for
    /// `bytes`.
    #[must_use]
    pub fn stamped(clock: u64, bytes: usize) -> Batch {
        let mut out = Vec::with_capacity(13 + bytes);
        if clock == 0 {
            out.put_u8(BATCH);
        } else {
            out.put_u8(STAMPED);
            out.put_u64_le(clock);
        }
        let at = out.len();
        out.put_u32_le(0);
        Batch { out, count: 0, at }
    }

    /// Adds a command.
    pub fn push(&mut self, ticket: Ticket, command: &[u8]) {
        self.count += 1;
        self.out.put_u32_le(ticket.node.0);
        self.out.put_u64_le(ticket.boot.0);
        self.out.put_u64_le(ticket.number);
        self.out.put_u32_le(ticket.behind);
        self.out.put_u32_le(command.len() as u32);
        self.out.put_slice(command);
    }

    /// Whether it has no command.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes so far.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.out.len()
    }

    /// The value.
    #[must_use]
    pub fn finish(mut self) -> Bytes {
        self.out[self.at..self.at + 4].copy_from_slice(&self.count.to_le_bytes());
        Bytes::from(self.out)
    }
}

/// A decoded value.
#[derive(Debug)]
pub enum Value {
    /// Nothing.
    Noop,
    /// The opening of a leadership.
    Lead(NodeId),
    /// Commands, in order.
    Batch(Commands),
    /// The group has these members from the next instance on.
    Members(NewMembers),
    /// A check of the replicas' states, with what is known of an earlier one.
    Check(Option<Verdict>),
    /// The end of lives.
    Expire {
        /// The group's clock.
        clock: u64,
        /// At most so many end.
        most: u32,
    },
}

/// Iterates over the commands of a batch.
#[derive(Debug)]
pub struct Commands {
    clock: u64,
    left: u32,
    bytes: Bytes,
}

impl Commands {
    /// The group's clock when the batch was proposed, 0 for no word of it.
    #[must_use]
    pub fn clock(&self) -> u64 {
        self.clock
    }
}

/// A value that no proposer writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a chosen value of unknown shape")]
pub struct BadValue;

impl Value {
    /// Reads a chosen value.
    ///
    /// # Errors
    /// When it has no known shape. A batch is checked command by command as it is iterated.
    pub fn decode(mut bytes: Bytes) -> Result<Value, BadValue> {
        match bytes.try_get_u8().map_err(|_| BadValue)? {
            NOOP if bytes.is_empty() => Ok(Value::Noop),
            LEAD if bytes.len() == 4 => Ok(Value::Lead(NodeId(bytes.get_u32_le()))),
            BATCH if bytes.len() >= 4 => {
                let left = bytes.get_u32_le();
                Ok(Value::Batch(Commands { clock: 0, left, bytes }))
            }
            STAMPED if bytes.len() >= 12 => {
                let clock = bytes.get_u64_le();
                let left = bytes.get_u32_le();
                if clock == 0 { Err(BadValue) } else { Ok(Value::Batch(Commands { clock, left, bytes })) }
            }
            EXPIRE if bytes.len() == 12 => {
                Ok(Value::Expire { clock: bytes.get_u64_le(), most: bytes.get_u32_le() })
            }
            MEMBERS => NewMembers::decode(bytes).map(Value::Members).ok_or(BadValue),
            CHECK => check_verdict(bytes).map(Value::Check),
            _ => Err(BadValue),
        }
    }
}

fn check_verdict(mut bytes: Bytes) -> Result<Option<Verdict>, BadValue> {
    match bytes.try_get_u8().map_err(|_| BadValue)? {
        UNKNOWN if bytes.is_empty() => Ok(None),
        AGREED if bytes.len() == POINT_BYTES => {
            Point::decode(&mut bytes).map(|point| Some(Verdict::Agreed(point))).ok_or(BadValue)
        }
        SPLIT if bytes.len() == 8 => Ok(Some(Verdict::Split(InstanceId(bytes.get_u64_le())))),
        _ => Err(BadValue),
    }
}

impl Iterator for Commands {
    type Item = Result<(Ticket, Bytes), BadValue>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return if self.bytes.is_empty() {
                None
            } else {
                self.bytes.clear();
                Some(Err(BadValue))
            };
        }
        self.left -= 1;
        if self.bytes.len() < COMMAND_HEAD {
            self.left = 0;
            self.bytes.clear();
            return Some(Err(BadValue));
        }
        let ticket = Ticket {
            node: NodeId(self.bytes.get_u32_le()),
            boot: Boot(self.bytes.get_u64_le()),
            number: self.bytes.get_u64_le(),
            behind: self.bytes.get_u32_le(),
        };
        let len = self.bytes.get_u32_le() as usize;
        if len > self.bytes.len() {
            self.left = 0;
            self.bytes.clear();
            return Some(Err(BadValue));
        }
        Some(Ok((ticket, self.bytes.split_to(len))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::StorageId;
    use crate::kv::State;

    /// A change that its leader had proposed before it was cut off lay on one disk behind values that others
    /// went on from; they changed the members otherwise, adopted it on top, and were left to members of
    /// which no majority was there.
    #[test]
    fn a_change_of_members_that_were_others_by_then_is_a_no_op() {
        let disks = |nodes: &[u32]| -> Vec<Member> {
            nodes.iter().map(|n| Member { node: NodeId(*n), storage: StorageId(1) }).collect()
        };
        let mut state = State::default();
        let mut apply = |at: u64, value| {
            state.apply(InstanceId(at), value, &mut |_, _| {}).expect("a value");
            state.members().map(|m| (m.changed_at().0, m.list().to_vec()))
        };
        let first = disks(&[1, 2, 5]);
        assert_eq!(apply(1, members(InstanceId(0), &first)), Some((1, first.clone())));
        assert_eq!(apply(2, members(InstanceId(0), &disks(&[1, 3, 4]))), Some((1, first.clone())));
        assert_eq!(apply(3, members(InstanceId(2), &disks(&[1]))), Some((1, first)));
        let second = disks(&[2, 4, 5]);
        assert_eq!(apply(4, members(InstanceId(1), &second)), Some((4, second)));
    }
}
