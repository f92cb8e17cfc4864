//! Counting and naming the keys of one hash slot, a stretch of the group's keys at a time.
//!
//! A group has a run of slots and keeps its keys in their own order, not by slot. Nobody needs an index
//! over slots but tools that ask now and then, so there is none: a question goes through a bounded number
//! of keys and says where the next one begins. Each answer is of one instant; a count that took several
//! questions is not, and a key that was there all the time is counted once.

use std::ops::Bound;

use bytes::{BufMut, Bytes};

use super::command::{BadCommand, Reader, put_bytes};
use super::outcome::Outcome;
use super::slot::{SLOTS, slot_of};
use super::state::State;
use crate::ids::Slot;

/// A question for the keys of a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InSlot {
    /// The slot.
    pub slot: Slot,
    /// The first key that may be among them.
    pub from: Bytes,
    /// The most keys to name; with 0 they are only counted.
    pub limit: u32,
}

/// Keys that one question goes through: about half a millisecond of their group's worker.
pub const SLICE: usize = 4_096;

/// The most bytes of keys that one answer names, but one key at least.
const MAX_BYTES: usize = 1 << 20;

impl InSlot {
    /// Goes through the next keys.
    pub(super) fn read(&self, state: &State) -> Outcome {
        let (mut count, mut bytes, mut keys) = (0, 0, Vec::new());
        for (seen, (key, _)) in state.range((Bound::Included(&self.from[..]), Bound::Unbounded)).enumerate() {
            let full = self.limit > 0 && (count >= u64::from(self.limit) || bytes >= MAX_BYTES);
            if seen >= SLICE || full {
                return Outcome::InSlot { count, keys, next: Some(Bytes::copy_from_slice(key)) };
            }
            if slot_of(key) == self.slot {
                count += 1;
                if self.limit > 0 {
                    bytes += key.len();
                    keys.push(Bytes::copy_from_slice(key));
                }
            }
        }
        Outcome::InSlot { count, keys, next: None }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u32_le(self.slot.0.into());
        out.put_u32_le(self.limit);
        put_bytes(out, &self.from);
    }

    pub(super) fn decode(r: &mut Reader) -> Result<InSlot, BadCommand> {
        let slot = u16::try_from(r.u32()?).ok().filter(|slot| *slot < SLOTS).ok_or(BadCommand("no slot"))?;
        Ok(InSlot { slot: Slot(slot), limit: r.u32()?, from: r.bytes()? })
    }
}

pub(super) fn encode_found(count: u64, keys: &[Bytes], next: Option<&Bytes>, out: &mut Vec<u8>) {
    out.put_u64_le(count);
    out.put_u32_le(keys.len() as u32);
    keys.iter().for_each(|key| put_bytes(out, key));
    out.put_u8(u8::from(next.is_some()));
    if let Some(next) = next {
        put_bytes(out, next);
    }
}

pub(super) fn decode_found(r: &mut Reader) -> Result<Outcome, BadCommand> {
    let (count, keys) = (r.u64()?, r.keys()?);
    let next = match r.u8()? {
        0 => None,
        1 => Some(r.bytes()?),
        _ => return Err(BadCommand("neither a key nor none")),
    };
    Ok(Outcome::InSlot { count, keys, next })
}
