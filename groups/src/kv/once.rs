//! The clients' own requests: what makes a command that a *client* sends twice apply once,
//! however often and through however many nodes it is sent.
//!
//! The session table (`session.rs`) does that for the commands of a node, and forgets them as soon
//! as the node has its answer. A client that has lost its connection asks another node, which
//! knows nothing of that. So a client may name a command by itself: its own name and a number
//! that it counts up. This table, part of the replicated state and of every checkpoint,
//! remembers the last few numbers of each client and what came of them. A copy is answered from
//! memory. A number below those that are remembered is refused: nobody knows any more.
//!
//! The table is bounded. A client that has not been heard of for a day of the group's clock is
//! forgotten; sooner only when there are too many, those that have been silent for longest
//! first. A forgotten client cannot be told from one that never was: it begins anew.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Buf, BufMut, Bytes};
use xxhash_rust::xxh3::Xxh3;

use super::command::{put_sized, take_sized};
use super::outcome::{Failure, Outcome};
use crate::planted::{self, Bug};

/// The longest name of a client, in bytes.
pub const MAX_NAME: usize = 64;

/// So many numbers of a client are remembered.
pub const REMEMBERED: usize = 16;

/// A client that has been silent for so many milliseconds of the group's clock may be forgotten.
pub const MIN_LIFE: u64 = 24 * 60 * 60 * 1000;

/// The most clients of a group.
const MAX_CLIENTS: usize = 1 << 16;

/// The most bytes of all clients of a group: the table travels in every checkpoint.
const MAX_BYTES: usize = 16 << 20;

/// Of a larger answer is remembered only that there was one: a few clients that ask for large ones must
/// not push the others out of the table.
const MAX_ANSWER: usize = 1 << 10;

/// What a client costs beside its name and its answers, and what an answer costs beside its
/// outcome.
const CLIENT_COST: usize = 64;
const ANSWER_COST: usize = 32;

/// So many silent clients are forgotten for each new one: the table shrinks, and no command pays
/// for all of it.
const FORGOTTEN_AT_ONCE: usize = 4;

/// Whose request, and which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Req {
    /// The client's name: 1 to [`MAX_NAME`] of `A-Z a-z 0-9 . _ -`.
    pub client: Bytes,
    /// Counts that client's requests, from 1.
    pub seq: u64,
    /// A hash of what was asked: the same number for something else is a client's mistake.
    pub print: u64,
}

impl Req {
    /// Whether a client may be called so.
    #[must_use]
    pub fn is_name(name: &[u8]) -> bool {
        let fine = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        (1..=MAX_NAME).contains(&name.len()) && name.iter().all(fine)
    }

    /// The print of a request of these words.
    pub fn print_of<'a>(words: impl Iterator<Item = &'a [u8]>) -> u64 {
        let mut print = Xxh3::new();
        for word in words {
            print.update(&(word.len() as u64).to_le_bytes());
            print.update(word);
        }
        print.digest()
    }

    /// Writes it: `length:u8 client seq:u64 print:u64`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(self.client.len() as u8);
        out.put_slice(&self.client);
        out.put_u64_le(self.seq);
        out.put_u64_le(self.print);
    }

    /// Reads one; `None` when the bytes are none.
    #[must_use]
    pub fn decode(bytes: &mut Bytes) -> Option<Req> {
        let client = take_name(bytes)?;
        let seq = bytes.try_get_u64_le().ok().filter(|seq| *seq > 0)?;
        Some(Req { client, seq, print: bytes.try_get_u64_le().ok()? })
    }
}

fn take_name(bytes: &mut Bytes) -> Option<Bytes> {
    let length = usize::from(bytes.try_get_u8().ok()?);
    if length > bytes.len() {
        return None;
    }
    Some(bytes.split_to(length)).filter(|name| Req::is_name(name))
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Answer {
    print: u64,
    /// `None` for one that was too large to be kept.
    outcome: Option<Outcome>,
}

impl Answer {
    fn cost(&self) -> usize {
        ANSWER_COST + self.outcome.as_ref().map_or(0, Outcome::size)
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Client {
    /// The group's clock when it was last heard of.
    used: u64,
    /// Nothing is known of this number and those below it. `every answer's number > floor`.
    floor: u64,
    answers: BTreeMap<u64, Answer>,
}

impl Client {
    fn cost(&self, name: &[u8]) -> usize {
        CLIENT_COST + 2 * name.len() + self.answers.values().map(Answer::cost).sum::<usize>()
    }
}

/// The clients of a group.
#[derive(Debug, Default)]
pub struct Clients {
    clients: BTreeMap<Box<[u8]>, Client>,
    /// All of them by when they were last heard of.
    order: BTreeSet<(u64, Box<[u8]>)>,
    /// What they cost together.
    bytes: usize,
}

impl Clients {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.clients.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// What a request is answered without being executed; `None` for one that is to be executed
    /// and then handed to [`Clients::record`]. `clock` is the group's.
    pub fn admit(&mut self, req: &Req, clock: u64) -> Option<Outcome> {
        if planted::is(Bug::ReqIgnored) {
            return None;
        }
        self.touch(&req.client, clock);
        let client = self.clients.get(&req.client[..])?;
        if req.seq <= client.floor {
            let newest = client.answers.last_key_value().map_or(client.floor, |(newest, _)| *newest);
            return Some(Outcome::Forgotten { newest });
        }
        let answer = client.answers.get(&req.seq)?;
        Some(match &answer.outcome {
            _ if answer.print != req.print => Outcome::Failed(Failure::Reused),
            Some(outcome) => outcome.clone(),
            None => Outcome::Unkept,
        })
    }

    /// Remembers what came of the request that was just admitted and executed.
    pub fn record(&mut self, req: &Req, outcome: &Outcome, clock: u64) {
        let name = &req.client[..];
        self.touch(name, clock);
        let cost = self.clients.get(name).map_or(0, |client| client.cost(name));
        if cost == 0 {
            self.order.insert((clock, name.into()));
        }
        let client = self.clients.entry(name.into()).or_insert(Client { used: clock, ..Client::default() });
        let outcome = (outcome.size() <= MAX_ANSWER).then(|| outcome.clone());
        client.answers.insert(req.seq, Answer { print: req.print, outcome });
        while client.answers.len() > REMEMBERED
            && let Some((seq, _)) = client.answers.pop_first()
        {
            client.floor = seq;
        }
        self.bytes += client.cost(name);
        self.bytes -= cost;
        self.shrink(name, clock);
    }

    /// Notes that a client was heard of.
    fn touch(&mut self, name: &[u8], clock: u64) {
        let Some(client) = self.clients.get_mut(name).filter(|client| client.used < clock) else { return };
        self.order.remove(&(client.used, name.into()));
        client.used = clock;
        self.order.insert((clock, name.into()));
    }

    /// Forgets clients that have been silent for long, and as many more as are too many; never
    /// the one that has just spoken.
    fn shrink(&mut self, speaker: &[u8], clock: u64) {
        let mut forgotten = 0;
        while let Some((used, name)) = self.order.iter().find(|(_, name)| **name != *speaker) {
            let silent = used.saturating_add(MIN_LIFE) <= clock && forgotten < FORGOTTEN_AT_ONCE;
            if !silent && self.clients.len() <= MAX_CLIENTS && self.bytes <= MAX_BYTES {
                return;
            }
            let key = (*used, name.clone());
            self.order.remove(&key);
            if let Some(client) = self.clients.remove(&key.1) {
                self.bytes -= client.cost(&key.1);
            }
            forgotten += 1;
        }
    }

    /// The table as bytes, the same on every replica, clients and numbers ascending:
    /// `clients:u32 { length:u8 name used:u64 floor:u64 answers:u8 { seq:u64 print:u64 kept:u8
    /// [length:u32 outcome] }* }*`, little-endian.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u32_le(self.clients.len() as u32);
        for (name, client) in &self.clients {
            out.put_u8(name.len() as u8);
            out.put_slice(name);
            out.put_u64_le(client.used);
            out.put_u64_le(client.floor);
            out.put_u8(client.answers.len() as u8);
            for (seq, answer) in &client.answers {
                out.put_u64_le(*seq);
                out.put_u64_le(answer.print);
                out.put_u8(u8::from(answer.outcome.is_some()));
                if let Some(outcome) = &answer.outcome {
                    put_sized(out, |out| outcome.encode(out));
                }
            }
        }
    }

    /// Reads exactly what [`Clients::encode`] wrote; `None` for anything else.
    #[must_use]
    pub fn decode(mut bytes: Bytes) -> Option<Clients> {
        let count = bytes.try_get_u32_le().ok()? as usize;
        if count > MAX_CLIENTS {
            return None;
        }
        let mut table = Clients::default();
        for _ in 0..count {
            let name: Box<[u8]> = take_name(&mut bytes)?[..].into();
            if table.clients.last_key_value().is_some_and(|(last, _)| *last >= name) {
                return None;
            }
            let used = bytes.try_get_u64_le().ok()?;
            let floor = bytes.try_get_u64_le().ok()?;
            let answers = take_answers(&mut bytes, floor)?;
            let client = Client { used, floor, answers };
            table.bytes += client.cost(&name);
            table.order.insert((used, name.clone()));
            table.clients.insert(name, client);
        }
        bytes.is_empty().then_some(table)
    }
}

fn take_answers(bytes: &mut Bytes, floor: u64) -> Option<BTreeMap<u64, Answer>> {
    let count = usize::from(bytes.try_get_u8().ok()?);
    if count > REMEMBERED {
        return None;
    }
    let mut answers = BTreeMap::new();
    for _ in 0..count {
        let seq = bytes.try_get_u64_le().ok()?;
        if seq <= answers.last_key_value().map_or(floor, |(last, _)| *last) {
            return None;
        }
        let print = bytes.try_get_u64_le().ok()?;
        let outcome = match bytes.try_get_u8().ok()? {
            0 => None,
            1 => {
                // Copied, so that a small answer does not keep the whole table's bytes alive.
                let outcome = Bytes::copy_from_slice(&take_sized(bytes)?);
                Some(Outcome::decode(outcome)?)
            }
            _ => return None,
        };
        answers.insert(seq, Answer { print, outcome });
    }
    Some(answers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn req(client: &str, seq: u64) -> Req {
        Req { client: Bytes::copy_from_slice(client.as_bytes()), seq, print: 7 }
    }

    /// Admits a request that is new, and remembers what came of it.
    fn run(table: &mut Clients, req: &Req, outcome: Outcome, clock: u64) {
        assert_eq!(table.admit(req, clock), None, "{req:?}");
        table.record(req, &outcome, clock);
    }

    fn copy(table: &Clients) -> Clients {
        let mut bytes = Vec::new();
        table.encode(&mut bytes);
        let copy = Clients::decode(Bytes::from(bytes)).expect("its own bytes");
        assert_eq!((&copy.clients, &copy.order, copy.bytes), (&table.clients, &table.order, table.bytes));
        copy
    }

    #[test]
    fn a_copy_is_answered_from_memory_however_late_and_out_of_order() {
        let mut table = Clients::default();
        run(&mut table, &req("a", 2), Outcome::Integer(2), 10);
        run(&mut table, &req("a", 1), Outcome::Integer(1), 11);
        run(&mut table, &req("b", 1), Outcome::Unmet, 12);
        let mut table = copy(&table);
        assert_eq!(table.admit(&req("a", 1), 13), Some(Outcome::Integer(1)));
        assert_eq!(table.admit(&req("a", 2), 14), Some(Outcome::Integer(2)));
        assert_eq!(table.admit(&req("b", 1), 15), Some(Outcome::Unmet), "a failed condition is an outcome");
        assert_eq!(table.admit(&req("b", 2), 16), None);
    }

    #[test]
    fn what_is_below_the_remembered_is_refused_and_a_gap_among_them_is_not() {
        let mut table = Clients::default();
        for seq in (2..=2 * REMEMBERED as u64 + 2).step_by(2) {
            run(&mut table, &req("a", seq), Outcome::Done, 1);
        }
        let newest = 2 * REMEMBERED as u64 + 2;
        for seq in [1, 2] {
            assert_eq!(table.admit(&req("a", seq), 1), Some(Outcome::Forgotten { newest }), "{seq}");
        }
        assert_eq!(table.admit(&req("a", 4), 1), Some(Outcome::Done));
        run(&mut table, &req("a", 5), Outcome::Integer(5), 1);
        assert_eq!(table.admit(&req("a", 4), 1), Some(Outcome::Forgotten { newest }), "the lowest made room");
    }

    #[test]
    fn a_number_that_is_used_for_something_else_is_said_so() {
        let mut table = Clients::default();
        run(&mut table, &req("a", 1), Outcome::Done, 1);
        let other = Req { print: 8, ..req("a", 1) };
        assert_eq!(table.admit(&other, 1), Some(Outcome::Failed(Failure::Reused)));
    }

    #[test]
    fn of_a_large_answer_is_kept_that_there_was_one() {
        let mut table = Clients::default();
        let large = Outcome::Value(Some((Bytes::from(vec![0; MAX_ANSWER + 1]), 1)));
        run(&mut table, &req("a", 1), large, 1);
        assert_eq!(copy(&table).admit(&req("a", 1), 1), Some(Outcome::Unkept));
    }

    #[test]
    fn silent_clients_are_forgotten_after_a_day_and_others_are_not() {
        let mut table = Clients::default();
        run(&mut table, &req("silent", 9), Outcome::Done, 1);
        run(&mut table, &req("busy", 1), Outcome::Done, 1);
        // A copy counts as a sign of life.
        assert_eq!(table.admit(&req("busy", 1), MIN_LIFE), Some(Outcome::Done));
        run(&mut table, &req("new", 1), Outcome::Done, MIN_LIFE);
        assert_eq!(table.len(), 3, "a day is not over yet");
        run(&mut table, &req("newer", 1), Outcome::Done, MIN_LIFE + 1);
        assert_eq!(table.len(), 3);
        assert_eq!(table.admit(&req("silent", 9), MIN_LIFE + 1), None, "it cannot be told from a new one");
        assert_eq!(table.admit(&req("busy", 1), MIN_LIFE + 1), Some(Outcome::Done));
    }

    #[test]
    fn too_many_make_room_for_each_other_the_longest_silent_first() {
        let mut table = Clients::default();
        for n in 0..=MAX_CLIENTS as u64 {
            run(&mut table, &req(&format!("c{n}"), 1), Outcome::Done, n + 1);
        }
        assert_eq!(table.len(), MAX_CLIENTS);
        assert_eq!(table.admit(&req("c1", 1), 1), Some(Outcome::Done));
        assert_eq!(table.admit(&req("c0", 1), 1), None);
        let mut large = Clients::default();
        let answer = || Outcome::Value(Some((Bytes::from(vec![0; MAX_ANSWER - 16]), 1)));
        for n in 0..2 * (MAX_BYTES / MAX_ANSWER) as u64 {
            run(&mut large, &req(&format!("c{n}"), 1), answer(), 1);
            assert!(large.bytes <= MAX_BYTES);
        }
        copy(&large);
    }

    #[test]
    fn names_are_what_they_may_be() {
        for name in ["a", "app-7.worker_3", "0", &"x".repeat(MAX_NAME)] {
            assert!(Req::is_name(name.as_bytes()), "{name}");
        }
        for name in ["", "a b", "a:b", "ä", "a\0", &"x".repeat(MAX_NAME + 1)] {
            assert!(!Req::is_name(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn every_other_bytes_are_refused() {
        let mut table = Clients::default();
        run(&mut table, &req("a", 3), Outcome::Value(Some((Bytes::from_static(b"v"), 4))), 5);
        run(&mut table, &req("b", 1), Outcome::Done, 6);
        let mut bytes = Vec::new();
        table.encode(&mut bytes);
        for length in 0..bytes.len() {
            assert!(Clients::decode(Bytes::copy_from_slice(&bytes[..length])).is_none(), "cut to {length}");
        }
        bytes.push(0);
        assert!(Clients::decode(Bytes::from(bytes)).is_none());
    }
}
