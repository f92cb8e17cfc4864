//! What replicas compare of their states, and what a majority has said about it.

use std::fmt;

use bytes::{Buf, BufMut};

use super::StateHash;
use crate::ids::InstanceId;

/// A whole state in a few bytes: equal states have equal sums. Written as the hash, as `STATUS`
/// shows it, a slash and the rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// The hash over all items.
    pub hash: StateHash,
    /// A hash of what the map does not hold: revision, epoch, clock, session tables.
    pub rest: u64,
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.hash.to_bytes() {
            write!(f, "{byte:02x}")?;
        }
        write!(f, "/{:016x}", self.rest)
    }
}

/// The sum of a state at one instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Point {
    /// The instance: that of the check itself, once it is applied.
    pub instance: InstanceId,
    /// The sum there.
    pub sum: Sum,
}

/// What came of comparing the replicas at a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A majority of the members has this sum there.
    Agreed(Point),
    /// No sum can have a majority there any more.
    Split(InstanceId),
}

impl Verdict {
    /// The point that it is about.
    #[must_use]
    pub fn instance(&self) -> InstanceId {
        match self {
            Verdict::Agreed(point) => point.instance,
            Verdict::Split(instance) => *instance,
        }
    }
}

/// Bytes of an encoded point.
pub const POINT_BYTES: usize = 8 + 32 + 8;

impl Point {
    /// Writes it: instance, hash, rest.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64_le(self.instance.0);
        out.put_slice(&self.sum.hash.to_bytes());
        out.put_u64_le(self.sum.rest);
    }

    /// Reads one; `None` when there are too few bytes.
    #[must_use]
    pub fn decode(bytes: &mut impl Buf) -> Option<Point> {
        if bytes.remaining() < POINT_BYTES {
            return None;
        }
        let instance = InstanceId(bytes.get_u64_le());
        let mut hash = [0; 32];
        bytes.copy_to_slice(&mut hash);
        let sum = Sum { hash: StateHash::from_bytes(hash), rest: bytes.get_u64_le() };
        Some(Point { instance, sum })
    }
}
