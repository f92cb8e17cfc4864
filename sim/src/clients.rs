//! The clients: each on a connection to one node at a time, on which it sends a pipeline of
//! commands, waits for the answers, and sends the next. What they saw is judged at the end.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use groups::ids::GroupId;
use groups::kv;
use groups::kv::{Command, Condition, Life, Renewal, Want, When};
use groups::random::Random;
use groups::time::Time;
use server::node::requests::{Completion, Refusal, Request, Token};

use crate::coverage::{Coverage, Event};
use crate::history::{Action, Call, ClientLog, Outcome};
use crate::judges::ReadOrder;
use crate::resend::{Numbered, Resends};
use crate::tellers::{self, Ending, Part, Teller};

/// The longest pipeline.
const PIPELINE: u64 = 5;

/// What a key is used for. Numbers, growing texts, plain values and lives have commands of their
/// own; a steady key is never removed, so that a read behind a write has something to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Plain,
    Steady,
    Number,
    Text,
    Mortal,
}

/// When a key may vanish at the soonest that is to be there for so many milliseconds, in nanoseconds
/// from the sending of its write: a leader's clock may run nearly twice as fast as it should.
fn earliest(life: u64) -> u64 {
    life * 1_000_000 * 10 / 19
}

/// The keys of a run.
#[derive(Clone, Debug)]
pub struct Keys {
    count: u64,
    groups: u64,
}

impl Keys {
    /// So many keys, dealt out to the groups.
    #[must_use]
    pub fn new(count: u64, groups: u32) -> Keys {
        Keys { count, groups: u64::from(groups) }
    }

    fn used_for(number: u64) -> Use {
        [Use::Plain, Use::Steady, Use::Number, Use::Text, Use::Mortal][(number % 5) as usize]
    }

    /// Spread so that every group has keys of several uses.
    fn group(&self, number: u64) -> GroupId {
        GroupId(((number + number / 5) % self.groups) as u32)
    }
}

struct Flight {
    /// `None` for a copy of a write that was answered before.
    call: Option<Call>,
    /// For a numbered write: whether a copy may have been applied before, and what it was answered.
    numbered: Option<(bool, Option<kv::Outcome>)>,
    action: Action,
    key: u64,
    group: GroupId,
    /// A write whose revision a later read of the same pipeline has to see.
    shows: bool,
    write: bool,
    /// The encoded command.
    command: Bytes,
}

/// One client.
pub struct Client {
    /// Its part of the history.
    pub log: ClientLog,
    /// The machine it is connected to, and that machine's life.
    pub at: Option<(usize, u64)>,
    /// Answers since the faults stopped.
    pub content: u64,
    index: u64,
    /// Numbers the connections of all time.
    connection: u64,
    random: Random,
    flights: BTreeMap<u64, Flight>,
    /// A teller has transactions instead of flights.
    teller: Option<Teller>,
    transactions: BTreeMap<u64, tellers::Flight>,
    calls: u64,
    /// The longest plain value it writes.
    value_bytes: u64,
    /// As in [`Plan::crowd`](crate::plan::Plan::crowd).
    crowd: bool,
    /// Numbered writes that it will send again.
    resends: Resends,
    /// What it last saw of each key.
    seen: BTreeMap<u64, (Vec<u8>, u64)>,
}

impl Client {
    /// A client that is not connected yet.
    #[must_use]
    pub fn new(index: u64, value_bytes: u64, seed: u64) -> Client {
        Client {
            log: ClientLog::new(index),
            at: None,
            content: 0,
            index,
            connection: 0,
            random: Random::new(seed),
            flights: BTreeMap::new(),
            teller: None,
            transactions: BTreeMap::new(),
            calls: 0,
            value_bytes,
            crowd: false,
            resends: Resends::default(),
            seen: BTreeMap::new(),
        }
    }

    /// The same, as one of a crowd or not.
    #[must_use]
    pub fn in_crowd(self, crowd: bool) -> Client {
        Client { crowd, ..self }
    }

    /// One that moves money between accounts of these groups.
    #[must_use]
    pub fn teller(index: u64, groups: u32, seed: u64) -> Client {
        Client { teller: Some(Teller::new(groups)), ..Client::new(index, 0, seed) }
    }

    /// Whether it waits for nothing.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.flights.is_empty() && self.transactions.is_empty()
    }

    /// The name of its connection: client and number, so that late answers find nobody.
    #[must_use]
    pub fn connection(&self) -> u64 {
        self.index << 32 | self.connection
    }

    /// The client that a connection belongs to.
    #[must_use]
    pub fn of(connection: u64) -> usize {
        (connection >> 32) as usize
    }

    /// Chooses a machine among those that take connections, now and then another than before.
    pub fn connect(&mut self, up: &[(usize, u64)]) -> bool {
        if up.is_empty() {
            return false;
        }
        let visits = if self.crowd { 2 } else { 8 };
        let stays = self.at.is_some_and(|at| up.contains(&at)) && self.random.below(visits) > 0;
        if !stays {
            self.connection += 1;
            self.at = Some(up[self.random.below(up.len() as u64) as usize]);
        }
        true
    }

    /// How long it thinks before the next pipeline.
    pub fn pause(&mut self, refused: bool) -> Duration {
        // Now and then there is a long silence, so that idle logs are sealed and idle groups rest.
        let most = match (refused, self.random.below(20)) {
            (false, _) if self.crowd => 300,
            (false, 0) => 2_000,
            (false, _) => 160,
            (true, _) => 200,
        };
        Duration::from_millis(1 + self.random.below(most))
    }

    /// The number of the last call, and the next pipeline.
    pub fn pipeline(
        &mut self,
        keys: &Keys,
        now: Time,
        order: &mut ReadOrder,
        coverage: &mut Coverage,
    ) -> Vec<Request> {
        if let Some(teller) = &mut self.teller {
            self.calls += 1;
            let signature = format!("t{}.{}", self.index, self.calls);
            let flight = teller.ask(&signature, now, &mut self.log, &mut self.random);
            let request = Request {
                token: Token { connection: self.index << 32 | self.connection, request: self.calls },
                group: flight.group,
                read: !flight.transfer,
                ordered: false,
                stale: None,
                command: flight.command.clone(),
            };
            self.transactions.insert(self.calls, flight);
            return vec![request];
        }
        let length = if self.random.below(2) == 0 { 1 } else { 2 + self.random.below(PIPELINE - 1) };
        let mut requests = Vec::with_capacity(length as usize);
        for numbered in self.resends.due(&mut self.random) {
            coverage.event(if numbered.call.is_some() { Event::Resent } else { Event::Echoed });
            requests.push(self.send_again(numbered));
        }
        // A pipeline often stays with one key: only then does its own order matter.
        let favourite = self.random.below(keys.count);
        for _ in 0..length {
            let key = if self.random.below(3) == 0 { self.random.below(keys.count) } else { favourite };
            // A crowd fights over steady keys, whose revisions tell their order.
            let key = if self.crowd { 1 + 5 * key } else { key };
            requests.push(self.request(key, keys, now, order, coverage));
        }
        requests
    }

    /// Another copy of a numbered write.
    fn send_again(&mut self, numbered: Numbered) -> Request {
        self.calls += 1;
        let number = self.calls;
        let Numbered { call, action, key, group, command, doubtful, answered } = numbered;
        let flight = Flight {
            call,
            numbered: Some((doubtful, answered)),
            action,
            key,
            group,
            shows: false,
            write: true,
            command: command.clone(),
        };
        self.flights.insert(number, flight);
        let token = Token { connection: self.connection(), request: number };
        Request { token, group, read: false, ordered: false, stale: None, command }
    }

    fn request(
        &mut self,
        key: u64,
        keys: &Keys,
        now: Time,
        order: &mut ReadOrder,
        coverage: &mut Coverage,
    ) -> Request {
        self.calls += 1;
        let number = self.calls;
        let name = Bytes::from(format!("k{key}"));
        let group = keys.group(key);
        let (action, mut command) = self.command(key, &name);
        let read = command.is_read();
        let mut numbered = None;
        if !read && self.random.below(4) == 0 {
            command = self.resends.number(self.index, command);
            numbered = Some((false, None));
        }
        // As the server's connections do it: a read waits for the writes before it.
        let ordered = read && self.flights.values().any(|f| f.write && f.group == group);
        if ordered {
            coverage.event(Event::OrderedRead);
            for (write, _) in self.flights.iter().filter(|(_, f)| f.shows && f.key == key) {
                order.behind(self.connection(), *write, number);
            }
        }
        let shows = Keys::used_for(key) == Use::Steady && matches!(action, Action::Put(_));
        // Some reads may be old: as if they had been asked so much earlier, by a clock that may drift.
        let bound = 20 << self.random.below(6);
        let stale = (read && !ordered && self.random.below(4) == 0).then(|| Duration::from_millis(bound));
        let earlier = stale.map_or(0, |bound| (bound + bound / 20).as_nanos() as u64);
        let call = Some(self.log.invoke(&name, now.nanos().saturating_sub(earlier), action.clone()));
        let command = command.to_bytes();
        let flight =
            Flight { call, numbered, action, key, group, shows, write: !read, command: command.clone() };
        self.flights.insert(number, flight);
        Request {
            token: Token { connection: self.connection(), request: number },
            group,
            read,
            ordered,
            stale,
            command,
        }
    }

    fn command(&mut self, key: u64, name: &Bytes) -> (Action, Command) {
        let mut value = format!("v{}.{}", self.index, self.calls).into_bytes();
        if self.value_bytes > 0 && Keys::used_for(key) != Use::Text {
            let length = value.len() + self.random.below(self.value_bytes) as usize;
            value.resize(length, b'.');
        }
        let put = |value: Vec<u8>, condition, want| Command::Put {
            key: name.clone(),
            value: value.into(),
            condition,
            want,
        };
        let get = || (Action::Get, Command::Get { key: name.clone() });
        let delete = || (Action::Delete, Command::Delete { keys: vec![name.clone()] });
        let take = || (Action::GetDel, Command::Take { key: name.clone() });
        match (Keys::used_for(key), self.random.below(12)) {
            (_, 0..=3) => get(),
            (_, 4 | 5) if self.crowd => get(),
            // With nothing but puts and gets the judge keeps up with so many unknown outcomes.
            (Use::Steady, number) if number <= 9 || self.crowd => {
                (Action::Put(value.clone()), put(value, Condition::None, Want::Revision))
            }
            (Use::Plain, 4 | 5) => (Action::Put(value.clone()), put(value, Condition::None, Want::Done)),
            (Use::Plain, 6) => delete(),
            (Use::Plain, 7) => (Action::SetNx(value.clone()), put(value, Condition::Absent, Want::Done)),
            (Use::Plain, 8) => (Action::GetSet(value.clone()), put(value, Condition::None, Want::Previous)),
            (Use::Plain, 9) => take(),
            (Use::Plain | Use::Steady, _) if self.random.below(2) == 0 => {
                let (old, _) = self.seen.get(&key).cloned().unwrap_or_default();
                let command =
                    Command::Cas { key: name.clone(), old: old.clone().into(), new: value.clone().into() };
                (Action::Cas { old, new: value }, command)
            }
            (Use::Plain | Use::Steady, _) => {
                let revision = self.seen.get(&key).map_or(0, |(_, revision)| *revision);
                let command = put(value.clone(), Condition::Revision(revision), Want::Revision);
                (Action::PutIfRev { revision, value }, command)
            }
            (Use::Number, 4..=10) => {
                let delta = self.random.below(7) as i64 - 2;
                (Action::Add(delta), Command::Add { key: name.clone(), delta })
            }
            (Use::Text, 4..=8) => {
                let tail = Bytes::from(format!("+{}", self.calls % 10));
                let action = Action::Append(tail.to_vec());
                (action, Command::Append { key: name.clone(), value: tail, max: 40 })
            }
            (Use::Mortal, 4..=7) => {
                let life = self.life();
                let action = Action::PutFor { value: value.clone(), life: earliest(life) };
                let (condition, want) = (Condition::None, Want::Revision);
                let (key, value, life) = (name.clone(), value.into(), Life::For(life));
                (action, Command::PutFor { key, value, condition, want, life })
            }
            (Use::Mortal, 8 | 9) => {
                let life = if self.random.below(3) == 0 { None } else { Some(self.life()) };
                let renewal = Renewal { life, when: When::default(), value: false };
                (Action::Renew(life.map(earliest)), Command::Renew { key: name.clone(), renewal })
            }
            (Use::Mortal, 10) => (Action::SetNx(value.clone()), put(value, Condition::Absent, Want::Done)),
            (Use::Mortal, _) if self.random.below(2) == 0 => take(),
            (Use::Mortal, _) => (Action::Put(value.clone()), put(value, Condition::None, Want::Done)),
            (Use::Number, _) => delete(),
            (Use::Text, 9) => (Action::GetSet(value.clone()), put(value, Condition::None, Want::Previous)),
            (Use::Text, _) => take(),
        }
    }

    /// How long a key is to be there, in milliseconds.
    fn life(&mut self) -> u64 {
        let most = if self.random.below(2) == 0 { 200 } else { 3_000 };
        20 + self.random.below(most)
    }

    /// An answer of the node. Returns what it was, or `None` when nobody waits for it.
    ///
    /// # Errors
    /// When a pipelined read has not seen its own write.
    pub fn complete(
        &mut self,
        completion: Completion,
        now: Time,
        order: &mut ReadOrder,
        coverage: &mut Coverage,
    ) -> Result<Option<Answered>, String> {
        let number = completion.token.request;
        if completion.token.connection != self.connection() {
            return Ok(None);
        }
        if self.transactions.contains_key(&number) {
            return self.end_transaction(number, Some(completion.result), now, coverage);
        }
        let Some(flight) = self.flights.get(&number) else { return Ok(None) };
        let revision = match &completion.result {
            Ok(kv::Outcome::Revision(revision)) => Some(Some(*revision)),
            Ok(kv::Outcome::Value(found)) => Some(found.as_ref().map(|(_, revision)| *revision)),
            _ => None,
        };
        if let (Ok(kv::Outcome::Value(Some((value, revision)))), Action::Get) =
            (&completion.result, &flight.action)
        {
            self.seen.insert(flight.key, (value.to_vec(), *revision));
        }
        if let Some((_, Some(first))) = &flight.numbered {
            let again = completion.result.ok();
            let lost = |o: &kv::Outcome| matches!(o, kv::Outcome::Forgotten { .. } | kv::Outcome::Unkept);
            if let Some(again) = again.filter(|again| again != first && !lost(again)) {
                let what = format!("{} of k{}", flight.action, flight.key);
                return Err(format!(
                    "{what} was answered {first:?}, and {again:?} when it was sent again with the same number"
                ));
            }
            return Ok(self.end(number, now, Outcome::Unknown));
        }
        let first = completion.result.clone().ok();
        let outcome = match (completion.result, &flight.action) {
            (Err(Refusal::InDoubt) | Ok(kv::Outcome::Forgotten { .. } | kv::Outcome::Unkept), _) => {
                coverage.event(Event::InDoubt);
                Outcome::Unknown
            }
            (Err(_) | Ok(kv::Outcome::Failed(_) | kv::Outcome::Retired), _) => {
                coverage.event(Event::NotApplied);
                Outcome::NotApplied
            }
            (Ok(kv::Outcome::Done), Action::SetNx(_)) => Outcome::Flag(true),
            (Ok(kv::Outcome::Unmet), _) => {
                coverage.event(Event::Unmet);
                Outcome::Flag(false)
            }
            (Ok(kv::Outcome::Done), _) => Outcome::Done,
            (Ok(kv::Outcome::Revision(revision)), _) => Outcome::Revision(revision),
            (Ok(kv::Outcome::Integer(n)), Action::Delete | Action::Cas { .. } | Action::Renew(_)) => {
                Outcome::Flag(n == 1)
            }
            (Ok(kv::Outcome::Integer(n)), _) => Outcome::Number(n),
            (Ok(kv::Outcome::Value(v)), Action::Get) => Outcome::Versioned(v.map(|(v, r)| (v.to_vec(), r))),
            (Ok(kv::Outcome::Value(v)), _) => Outcome::Value(v.map(|(v, _)| v.to_vec())),
            (Ok(other), _) => return Err(format!("no such answer: {other:?}")),
        };
        order.answered(self.connection(), number, revision)?;
        if let (Some(flight), Some(first)) = (self.flights.get(&number), first)
            && flight.numbered.is_some()
            && !matches!(outcome, Outcome::Unknown | Outcome::NotApplied)
        {
            let copy = Numbered {
                call: None,
                action: flight.action.clone(),
                key: flight.key,
                group: flight.group,
                command: flight.command.clone(),
                doubtful: false,
                answered: Some(first),
            };
            self.resends.echo(copy, &mut self.random);
        }
        Ok(self.end(number, now, outcome))
    }

    /// Gives up what is unanswered of a pipeline that ended with call `last`, and the connection.
    pub fn give_up(&mut self, last: u64, now: Time) -> Vec<Answered> {
        if !self.flights.keys().chain(self.transactions.keys()).any(|n| *n <= last) {
            return Vec::new();
        }
        self.hang_up(now)
    }

    /// The connection is gone: nobody knows what becomes of the rest.
    pub fn hang_up(&mut self, now: Time) -> Vec<Answered> {
        self.at = None;
        let open: Vec<u64> = self.flights.keys().copied().collect();
        let mut ended: Vec<Answered> =
            open.into_iter().filter_map(|n| self.end(n, now, Outcome::Unknown)).collect();
        let open: Vec<u64> = self.transactions.keys().copied().collect();
        for number in open {
            // No answer is never a wrong one.
            ended.extend(self.end_transaction(number, None, now, &mut Coverage::default()).ok().flatten());
        }
        ended
    }

    /// The number of its last call.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.calls
    }

    fn end(&mut self, number: u64, now: Time, outcome: Outcome) -> Option<Answered> {
        let Flight { call, numbered, action, key, group, command, .. } = self.flights.remove(&number)?;
        let only = numbered.is_none()
            && matches!(
                action,
                Action::Put(_)
                    | Action::SetNx(_)
                    | Action::GetSet(_)
                    | Action::Cas { .. }
                    | Action::PutIfRev { .. }
            );
        let only = only.then(|| (group, command.clone()));
        let refused = matches!(outcome, Outcome::Unknown | Outcome::NotApplied);
        if !refused {
            self.content += 1;
        }
        if let Some(call) = call {
            let doubtful = matches!(numbered, Some((true, _))) || outcome == Outcome::Unknown;
            if numbered.is_some() && refused && doubtful {
                // Nobody knows yet: the next copy may tell. One that is given up for it stays open.
                let (call, action) = (Some(call), action.clone());
                let again = Numbered { call, action, key, group, command, doubtful, answered: None };
                drop(self.resends.keep(again));
            } else {
                self.log.respond(call, now.nanos(), outcome.clone());
            }
        }
        Some(Answered { number, what: What::One { key, action, outcome }, refused, only })
    }

    fn end_transaction(
        &mut self,
        number: u64,
        result: Option<Result<kv::Outcome, Refusal>>,
        now: Time,
        coverage: &mut Coverage,
    ) -> Result<Option<Answered>, String> {
        let Some((teller, flight)) = self.teller.as_mut().zip(self.transactions.remove(&number)) else {
            return Ok(None);
        };
        let (group, command, transfer) = (flight.group, flight.command.clone(), flight.transfer);
        let (ending, parts) = teller.told(flight, result, now, &mut self.log)?;
        let refused = matches!(ending, Ending::NotApplied | Ending::Unknown);
        if !refused {
            self.content += 1;
        }
        coverage.event(match (ending, transfer) {
            (Ending::Done, true) => Event::Transfer,
            (Ending::Done, false) => Event::Count,
            (Ending::Unmet, _) => Event::TransferUnmet,
            (Ending::NotApplied, _) => Event::NotApplied,
            (Ending::Unknown, _) => Event::InDoubt,
        });
        let only = transfer.then_some((group, command));
        Ok(Some(Answered { number, what: What::Transaction(parts), refused, only }))
    }
}

/// The end of a call.
#[derive(Clone, Debug)]
pub struct Answered {
    /// Its number.
    pub number: u64,
    /// What was asked, and what came.
    pub what: What,
    /// Whether it says nothing.
    pub refused: bool,
    /// The group and the encoded command, when it writes a value that no other call writes.
    pub only: Option<(GroupId, Bytes)>,
}

/// What was asked, and what came.
#[derive(Clone, Debug)]
pub enum What {
    /// A command on one key.
    One {
        /// The key's number.
        key: u64,
        /// What was asked.
        action: Action,
        /// What came.
        outcome: Outcome,
    },
    /// A teller's transaction.
    Transaction(Vec<Part>),
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            What::One { key, action, outcome } => write!(f, "{action} of k{key} -> {outcome}"),
            What::Transaction(parts) => {
                for (n, part) in parts.iter().enumerate() {
                    let separator = if n == 0 { "" } else { "; " };
                    write!(f, "{separator}{part}")?;
                }
                Ok(())
            }
        }
    }
}
