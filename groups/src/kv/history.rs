//! The newest changes of a group, for those who watch its keys.
//!
//! Every replica keeps them as it applies, so that a watcher may go on with another node. They are no
//! part of the state: they are in no hash and in no checkpoint, and how far back they reach differs
//! from node to node. Every change has a revision of its own, so a gap shows in the numbers: whoever
//! asks for what is gone is told so, and never handed what lies behind the gap.

use std::collections::VecDeque;

use bytes::{BufMut, Bytes};

use super::command::{BadCommand, MAX_KEYS, Reader, put_bytes};
use super::outcome::Outcome;
use crate::planted::{self, Bug};

/// What was done to one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The group's revision with it.
    pub revision: u64,
    /// The key.
    pub key: Bytes,
    /// Its new value; `None` when it is gone.
    pub value: Option<Bytes>,
}

/// What one remembered change costs beside key and value.
const CHANGE_COST: usize = 112;

/// Changes looked at for one question, whether they match or not.
const LOOK: usize = 4_096;

impl Change {
    fn cost(&self) -> usize {
        CHANGE_COST + self.key.len() + self.value.as_ref().map_or(0, Bytes::len)
    }
}

/// A question for changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Since {
    /// Only those behind this revision; `None` asks where the group stands.
    pub after: Option<u64>,
    /// Only those of keys that begin with this.
    pub prefix: Bytes,
    /// About so many bytes of them, but one at least; 0 asks only whether they are there.
    pub max_bytes: u32,
}

/// The remembered changes of one group.
#[derive(Debug)]
pub struct History {
    /// Their revisions follow one another: the first is `floor + 1`.
    changes: VecDeque<Change>,
    /// The revision of the newest change that is gone.
    floor: u64,
    bytes: usize,
    limit: usize,
}

impl Default for History {
    fn default() -> History {
        History::behind(0)
    }
}

impl History {
    /// What is remembered without a word on it, in bytes.
    const LIMIT: usize = 1 << 20;

    /// Nothing yet, of a state with that revision.
    #[must_use]
    pub fn behind(revision: u64) -> History {
        History { changes: VecDeque::new(), floor: revision, bytes: 0, limit: History::LIMIT }
    }

    /// At most so many bytes are remembered, but the newest change always.
    pub fn limit(&mut self, bytes: usize) {
        self.limit = bytes;
        self.shorten();
    }

    /// The revision of the newest change.
    #[must_use]
    pub fn newest(&self) -> u64 {
        self.floor + self.changes.len() as u64
    }

    /// The lowest revision behind which everything is there.
    #[must_use]
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// Remembers a change.
    pub fn note(&mut self, revision: u64, key: &[u8], value: Option<Bytes>) {
        if revision != self.newest() + 1 {
            // What lies between was not seen here: nothing before it may be told as if it were all.
            *self = History { limit: self.limit, ..History::behind(revision.saturating_sub(1)) };
        }
        let change = Change { revision, key: Bytes::copy_from_slice(key), value };
        self.bytes += change.cost();
        self.changes.push_back(change);
        self.shorten();
    }

    fn shorten(&mut self) {
        while self.bytes > self.limit
            && self.changes.len() > 1
            && let Some(oldest) = self.changes.pop_front()
        {
            self.bytes -= oldest.cost();
            self.floor = oldest.revision;
        }
    }

    /// The next changes behind a revision, or how much is gone. The work is bounded: what was looked
    /// at is said, and the rest is for the next question.
    #[must_use]
    pub fn since(&self, since: &Since) -> Outcome {
        let Some(after) = since.after else {
            return Outcome::Changes { changes: Vec::new(), through: self.newest() };
        };
        if after < self.floor && !planted::is(Bug::WatchSkipsGap) {
            return Outcome::Compacted { min: self.floor };
        }
        let skip = usize::try_from(after.saturating_sub(self.floor)).unwrap_or(usize::MAX);
        let (mut changes, mut bytes, mut through) = (Vec::new(), 0, after);
        if skip < self.changes.len() {
            for change in self.changes.range(skip..).take(LOOK) {
                if change.key.starts_with(&since.prefix) {
                    let max = since.max_bytes as usize;
                    if max == 0 || (!changes.is_empty() && bytes + change.cost() > max) {
                        break;
                    }
                    bytes += change.cost();
                    changes.push(change.clone());
                }
                through = change.revision;
            }
        }
        Outcome::Changes { changes, through }
    }
}

impl Since {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(u8::from(self.after.is_some()));
        out.put_u64_le(self.after.unwrap_or(0));
        out.put_u32_le(self.max_bytes);
        put_bytes(out, &self.prefix);
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Since, BadCommand> {
        let after = match (r.u8()?, r.u64()?) {
            (0, 0) => None,
            (1, after) => Some(after),
            _ => return Err(BadCommand("unknown place in the changes")),
        };
        let max_bytes = r.u32()?;
        Ok(Since { after, prefix: r.bytes()?, max_bytes })
    }
}

/// Bytes of an encoded change beside key and value, at least.
const CHANGE_HEAD: usize = 8 + 4 + 1;

pub(super) fn encode_changes(changes: &[Change], out: &mut Vec<u8>) {
    out.put_u32_le(changes.len() as u32);
    for change in changes {
        out.put_u64_le(change.revision);
        put_bytes(out, &change.key);
        out.put_u8(u8::from(change.value.is_some()));
        if let Some(value) = &change.value {
            put_bytes(out, value);
        }
    }
}

pub(super) fn decode_changes(r: &mut Reader) -> Result<Vec<Change>, BadCommand> {
    let count = r.count(CHANGE_HEAD)?;
    debug_assert!(count <= MAX_KEYS);
    let mut changes = Vec::with_capacity(count);
    for _ in 0..count {
        let (revision, key) = (r.u64()?, r.bytes()?);
        let value = match r.u8()? {
            0 => None,
            1 => Some(r.bytes()?),
            _ => return Err(BadCommand("neither a value nor none")),
        };
        changes.push(Change { revision, key, value });
    }
    Ok(changes)
}

/// About how many bytes an answer with them takes.
pub(super) fn size(changes: &[Change]) -> usize {
    changes.iter().map(|c| CHANGE_HEAD + 4 + c.key.len() + c.value.as_ref().map_or(0, Bytes::len)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(revisions: std::ops::RangeInclusive<u64>) -> History {
        let mut history = History::behind(revisions.start() - 1);
        for revision in revisions {
            let key = if revision % 2 == 0 { "even" } else { "odd" };
            history.note(revision, key.as_bytes(), Some(Bytes::from(revision.to_string())));
        }
        history
    }

    fn ask(history: &History, after: u64, prefix: &'static str, max_bytes: u32) -> Outcome {
        history.since(&Since { after: Some(after), prefix: Bytes::from_static(prefix.as_bytes()), max_bytes })
    }

    fn told(outcome: &Outcome) -> (Vec<u64>, u64) {
        match outcome {
            Outcome::Changes { changes, through } => (changes.iter().map(|c| c.revision).collect(), *through),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_comes_behind_a_revision_in_its_order() {
        let history = filled(4..=9);
        assert_eq!(told(&ask(&history, 3, "", 1 << 20)), (vec![4, 5, 6, 7, 8, 9], 9));
        assert_eq!(told(&ask(&history, 5, "ev", 1 << 20)), (vec![6, 8], 9));
        assert_eq!(told(&ask(&history, 9, "", 1 << 20)), (vec![], 9));
        assert_eq!(told(&ask(&history, 30, "", 1 << 20)), (vec![], 30), "it waits for a future");
        assert_eq!(told(&history.since(&Since::default())), (vec![], 9));
    }

    #[test]
    fn pages_of_it_make_up_the_whole() {
        let history = filled(1..=9);
        assert_eq!(told(&ask(&history, 0, "", 1)), (vec![1], 1), "one at least");
        assert_eq!(told(&ask(&history, 0, "even", 1)), (vec![2], 3), "up to the next that would match");
        assert_eq!(told(&ask(&history, 3, "even", 0)), (vec![], 3), "only whether it is there");
        let (mut after, mut seen) = (0, Vec::new());
        while after < 9 {
            let (revisions, through) = told(&ask(&history, after, "", 300));
            assert!(through > after, "it goes on");
            seen.extend(revisions);
            after = through;
        }
        assert_eq!(seen, (1..=9).collect::<Vec<_>>());
    }

    #[test]
    fn a_look_is_bounded() {
        let mut history = History::default();
        history.limit(usize::MAX);
        for revision in 1..=10_000 {
            history.note(revision, b"k", None);
        }
        assert_eq!(told(&ask(&history, 0, "other", 1 << 20)), (vec![], LOOK as u64));
    }

    #[test]
    fn what_is_gone_is_said() {
        let mut history = filled(1..=20);
        history.limit(3 * (CHANGE_COST + 6));
        assert_eq!(ask(&history, 0, "", 99), Outcome::Compacted { min: 17 });
        assert_eq!(ask(&history, 16, "", 0), Outcome::Compacted { min: 17 });
        assert_eq!(told(&ask(&history, 17, "", 1 << 20)), (vec![18, 19, 20], 20));
        history.note(21, b"large", Some(Bytes::from(vec![0; 9_000])));
        assert_eq!(told(&ask(&history, 20, "", 1 << 20)), (vec![21], 21), "the newest is always there");
        assert_eq!(history.floor(), 20);
    }

    #[test]
    fn a_jump_begins_anew() {
        let mut history = filled(1..=5);
        history.note(9, b"k", None);
        assert_eq!(ask(&history, 5, "", 99), Outcome::Compacted { min: 8 });
        assert_eq!(told(&ask(&history, 8, "", 99)), (vec![9], 9));
    }
}
