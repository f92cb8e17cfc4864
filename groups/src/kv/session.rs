//! The session table: what makes a command that is sent twice apply once, and commands of one
//! node apply in the order in which it took them.
//!
//! Every command carries a [`Ticket`] of the node that took it from a client: that node, its
//! boot, and a number counted up per group. A node sends its unanswered commands again, in
//! order, to whoever leads; the table, part of the replicated state, answers copies from memory
//! (RIFL, Lee et al., SOSP '15). A command that comes before its predecessor is refused, because
//! a new leader may fill the gap of a lost instance with a no-op and adopt the one behind it;
//! without the refusal the pipelined writes of one client could change places. Numbers whose
//! answer is no longer awaited are forgotten, and copies of them refused, so the table is
//! bounded by what is unanswered.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Buf, BufMut, Bytes};

use super::command::{put_sized, take_sized};
use super::outcome::{Failure, Outcome};
use crate::ids::{Boot, NodeId};
use crate::planted::{self, Bug};

/// Who asked, and which of its commands this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket {
    /// The node that took the command from a client.
    pub node: NodeId,
    /// That node's life.
    pub boot: Boot,
    /// Counts that life's writes to the group, from 1.
    pub number: u64,
    /// `number - behind` is the lowest number still unanswered.
    pub behind: u32,
}

/// The most commands of one session that are applied and not known to be answered. A node keeps
/// well under it.
pub const MAX_OPEN: u64 = 1 << 16;

/// A session whose remembered outcomes take more than this many bytes takes no further command
/// before some are answered: the table travels in every checkpoint. One outcome may be as large
/// as a value, that of a transaction a little larger.
const MAX_BYTES: usize = 4 << 20;

#[derive(Debug)]
struct Session {
    boot: Boot,
    /// Bytes of the outcomes.
    bytes: usize,
    /// Lower numbers are retired.
    low: u64,
    /// Outcomes of the numbers from `low` on, without a gap: `low + outcomes.len()` is next.
    outcomes: VecDeque<Outcome>,
}

impl Session {
    fn new(boot: Boot) -> Session {
        Session { boot, bytes: 0, low: 1, outcomes: VecDeque::new() }
    }

    fn next(&self) -> u64 {
        self.low + self.outcomes.len() as u64
    }
}

/// The format of an encoded table.
const VERSION: u8 = 1;

/// The sessions of a group.
#[derive(Debug, Default)]
pub struct Sessions {
    nodes: BTreeMap<NodeId, Session>,
}

/// What to do with a command.
#[derive(Debug, PartialEq, Eq)]
pub enum Admission {
    /// Apply it and [`Sessions::record`] the outcome.
    Apply,
    /// It was applied before, or must not be: this is the answer.
    Answer(Outcome),
}

impl Sessions {
    /// Decides over a command, deterministically.
    pub fn admit(&mut self, ticket: Ticket) -> Admission {
        if ticket.number > u64::MAX / 2 {
            // No node counts so far; believing it would leave no number for the next one.
            return Admission::Answer(Outcome::Retired);
        }
        let session = self.nodes.entry(ticket.node).or_insert_with(|| Session::new(ticket.boot));
        if planted::is(Bug::NoSessions) {
            *session = Session { low: ticket.number, ..Session::new(ticket.boot) };
            return Admission::Apply;
        }
        if planted::is(Bug::SessionIgnoresBoot) {
            session.boot = ticket.boot;
        }
        if planted::is(Bug::SessionOutOfOrder) && ticket.number > session.next() {
            *session = Session { low: ticket.number, ..Session::new(ticket.boot) };
        }
        if ticket.boot < session.boot {
            return Admission::Answer(Outcome::Retired);
        }
        if ticket.boot > session.boot {
            // The earlier life is over: nobody waits for its answers.
            *session = Session::new(ticket.boot);
        }
        let lowest = ticket.number.saturating_sub(u64::from(ticket.behind));
        while session.low < lowest {
            let Some(answered) = session.outcomes.pop_front() else {
                // Numbers given up by their node before they were applied.
                session.low = lowest;
                break;
            };
            session.bytes -= answered.size();
            session.low += 1;
        }
        if ticket.number < session.low {
            Admission::Answer(Outcome::Retired)
        } else if ticket.number > session.next() {
            if planted::is(Bug::SessionAnswersTooEarly) {
                return Admission::Answer(Outcome::Done);
            }
            Admission::Answer(Outcome::Failed(Failure::OutOfOrder))
        } else if let Some(outcome) = session.outcomes.get((ticket.number - session.low) as usize) {
            Admission::Answer(outcome.clone())
        } else if session.outcomes.len() as u64 >= MAX_OPEN || session.bytes > MAX_BYTES {
            Admission::Answer(Outcome::Failed(Failure::SessionFull))
        } else {
            Admission::Apply
        }
    }

    /// Remembers the outcome of the command that was just admitted and applied.
    pub fn record(&mut self, ticket: Ticket, outcome: Outcome) {
        if let Some(session) = self.nodes.get_mut(&ticket.node) {
            assert_eq!(ticket.number, session.next(), "recorded right after it was admitted");
            session.bytes += outcome.size();
            session.outcomes.push_back(outcome);
        }
    }

    /// Whether that life of `node` has had its write `number` applied or has given it up.
    #[must_use]
    pub fn is_past(&self, node: NodeId, boot: Boot, number: u64) -> bool {
        number == 0
            || self.nodes.get(&node).is_some_and(|s| s.boot > boot || (s.boot == boot && s.next() > number))
    }

    /// The table as bytes, the same on every replica:
    /// `version:u8 nodes:u32 { node:u32 boot:u64 low:u64 outcomes:u32 { length:u32 outcome }* }*`,
    /// little-endian, nodes ascending.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(64);
        out.put_u8(VERSION);
        out.put_u32_le(self.nodes.len() as u32);
        for (node, session) in &self.nodes {
            out.put_u32_le(node.0);
            out.put_u64_le(session.boot.0);
            out.put_u64_le(session.low);
            out.put_u32_le(session.outcomes.len() as u32);
            for outcome in &session.outcomes {
                put_sized(&mut out, |out| outcome.encode(out));
            }
        }
        Bytes::from(out)
    }

    /// Reads what [`Sessions::encode`] wrote; `None` for anything else.
    #[must_use]
    pub fn decode(mut bytes: Bytes) -> Option<Sessions> {
        if bytes.try_get_u8().ok()? != VERSION {
            return None;
        }
        let mut nodes = BTreeMap::new();
        for _ in 0..bytes.try_get_u32_le().ok()? {
            let node = NodeId(bytes.try_get_u32_le().ok()?);
            let boot = Boot(bytes.try_get_u64_le().ok()?);
            let low = bytes.try_get_u64_le().ok()?;
            let count = bytes.try_get_u32_le().ok()?;
            if u64::from(count) > MAX_OPEN || low == 0 || low > u64::MAX / 2 {
                return None;
            }
            let mut outcomes = VecDeque::with_capacity((count as usize).min(bytes.len() / 5));
            for _ in 0..count {
                outcomes.push_back(Outcome::decode(take_sized(&mut bytes)?)?);
            }
            let ascending = nodes.last_key_value().is_none_or(|(last, _)| *last < node);
            if !ascending {
                return None;
            }
            let bytes = outcomes.iter().map(Outcome::size).sum();
            nodes.insert(node, Session { boot, bytes, low, outcomes });
        }
        bytes.is_empty().then_some(Sessions { nodes })
    }

    /// How many outcomes are remembered.
    #[must_use]
    pub fn remembered(&self) -> usize {
        self.nodes.values().map(|s| s.outcomes.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket(boot: u64, number: u64, behind: u32) -> Ticket {
        Ticket { node: NodeId(1), boot: Boot(boot), number, behind }
    }

    fn apply(s: &mut Sessions, t: Ticket, outcome: Outcome) {
        assert_eq!(s.admit(t), Admission::Apply);
        s.record(t, outcome);
    }

    #[test]
    fn a_copy_is_answered_from_memory_and_a_retired_one_refused() {
        let mut s = Sessions::default();
        apply(&mut s, ticket(1, 1, 0), Outcome::Integer(7));
        assert_eq!(s.admit(ticket(1, 1, 0)), Admission::Answer(Outcome::Integer(7)));
        // Number 3 says that it is the lowest unanswered: 1 is answered, 2 was given up.
        apply(&mut s, ticket(1, 3, 0), Outcome::Done);
        assert_eq!(s.admit(ticket(1, 1, 0)), Admission::Answer(Outcome::Retired));
        assert_eq!(s.admit(ticket(1, 2, 0)), Admission::Answer(Outcome::Retired));
        assert_eq!(s.remembered(), 1);
        assert!(s.is_past(NodeId(1), Boot(1), 3) && !s.is_past(NodeId(1), Boot(1), 4));
    }

    #[test]
    fn a_command_before_its_predecessor_is_refused_and_forgotten() {
        let mut s = Sessions::default();
        apply(&mut s, ticket(1, 1, 0), Outcome::Done);
        let early = Admission::Answer(Outcome::Failed(Failure::OutOfOrder));
        assert_eq!(s.admit(ticket(1, 3, 2)), early);
        apply(&mut s, ticket(1, 2, 1), Outcome::Integer(2));
        apply(&mut s, ticket(1, 3, 2), Outcome::Integer(3));
        assert_eq!(s.remembered(), 3);
    }

    #[test]
    fn a_new_life_ends_the_old_one() {
        let mut s = Sessions::default();
        apply(&mut s, ticket(3, 9, 0), Outcome::Done);
        apply(&mut s, ticket(4, 1, 0), Outcome::Done);
        assert_eq!(s.admit(ticket(3, 10, 0)), Admission::Answer(Outcome::Retired));
        assert!(s.is_past(NodeId(1), Boot(3), 99), "nobody waits in an ended life");
    }

    /// Five pipelined GETDEL of the largest values once made a table that no checkpoint takes, on
    /// every replica alike; none of them could be mirrored then, and no log shortened.
    #[test]
    fn the_table_is_bounded_in_bytes_too() {
        let mut s = Sessions::default();
        let large = || Outcome::Value(Some((Bytes::from(vec![0; 3 << 20]), 1)));
        apply(&mut s, ticket(1, 1, 0), large());
        apply(&mut s, ticket(1, 2, 1), large());
        let full = Admission::Answer(Outcome::Failed(Failure::SessionFull));
        assert_eq!(s.admit(ticket(1, 3, 2)), full);
        let mut copy = Sessions::decode(s.encode()).expect("its own bytes");
        assert_eq!(
            copy.admit(ticket(1, 3, 2)),
            full,
            "a replica that started from a checkpoint says the same"
        );
        assert_eq!(s.admit(ticket(1, 3, 1)), Admission::Apply, "the first was answered");
    }

    #[test]
    fn the_table_survives_its_bytes_and_every_other_bytes_are_refused() {
        let mut s = Sessions::default();
        for number in 1..=3 {
            apply(&mut s, ticket(1, number, 2), Outcome::Integer(number as i64));
        }
        let other = Ticket { node: NodeId(2), boot: Boot(7), number: 9, behind: 0 };
        apply(&mut s, other, Outcome::Value(Some((Bytes::from_static(b"v"), 4))));
        let bytes = s.encode();
        let mut back = Sessions::decode(bytes.clone()).expect("its own bytes");
        assert_eq!(back.encode(), bytes);
        assert_eq!(back.admit(ticket(1, 2, 1)), Admission::Answer(Outcome::Integer(2)));
        assert_eq!(back.admit(ticket(1, 4, 2)), Admission::Apply);
        for length in 0..bytes.len() {
            assert!(Sessions::decode(bytes.slice(..length)).is_none(), "cut to {length}");
        }
        let mut longer = bytes.to_vec();
        longer.push(0);
        assert!(Sessions::decode(longer.into()).is_none());
    }

    #[test]
    fn the_table_is_bounded() {
        let mut s = Sessions::default();
        for number in 1..=MAX_OPEN {
            apply(&mut s, ticket(1, number, number as u32 - 1), Outcome::Done);
        }
        let over = ticket(1, MAX_OPEN + 1, MAX_OPEN as u32);
        assert_eq!(s.admit(over), Admission::Answer(Outcome::Failed(Failure::SessionFull)));
    }
}
