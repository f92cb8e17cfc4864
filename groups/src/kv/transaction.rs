//! Several commands as one: guards on keys decide between two lists, and the chosen list is
//! executed at one instant (MultiOp: Chandra, Griesemer, Redstone, "Paxos Made Live", PODC '07,
//! section 5.6). This is what `MULTI`/`EXEC` and `MULTIOP` become.
//!
//! ```text
//! max:u32  n:u32 { key condition }*  n:u32 { length:u32 command }*  n:u32 { length:u32 command }*
//! ```
//! Guards, then what is executed when all of them hold, then what is executed when one does not. A
//! transaction holds no other transaction, so neither decoding nor executing one goes deeper than
//! one level.
//!
//! All or nothing means: the guards are looked at and the list is executed in one step of the
//! state machine, and nothing comes between. A command of the list that fails by itself (it adds to
//! something that is no number) changes nothing and says so in its own outcome; the others count.
//!
//! What a transaction answers is bounded by itself, like the length of an `Append`: `max` travels in
//! the command, so that every replica decides alike. It is looked at before anything is applied, with
//! the longest values that the keys can have by then: the bound may be too high where a condition
//! decides about a write, and is never too low.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes};

use super::command::{
    BadCommand, CHANGES, Command, Condition, IN_SLOT, ONCE, READ_TRANSACTION, Reader, SCAN, TRANSACTION,
    WALK, Want,
};
use super::command::{put_bytes, put_condition, put_sized};
use super::outcome::{Failure, Outcome};
use super::state::{Item, State};
use crate::planted::{self, Bug};

/// The most guards and commands in one transaction, together.
pub const MAX_PARTS: usize = 1 << 16;

/// What must hold of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    /// The key.
    pub key: Bytes,
    /// What must hold of it.
    pub condition: Condition,
}

/// Guards and two lists of commands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    /// What must hold for `then`, all at the same instant. None always holds.
    pub guards: Vec<Guard>,
    /// Executed in order when every guard holds.
    pub then: Vec<Command>,
    /// Executed in order when one does not.
    pub otherwise: Vec<Command>,
    /// The most bytes that the outcomes may take; a transaction that could answer more fails as a
    /// whole.
    pub max: u32,
}

impl Transaction {
    /// Whether it leaves the state as it is, whichever way it goes.
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.then.iter().chain(&self.otherwise).all(Command::is_read)
    }

    /// Its kind of command: reads go the way of reads.
    pub(super) fn kind(&self) -> u8 {
        if self.is_read() { READ_TRANSACTION } else { TRANSACTION }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(self.kind());
        out.put_u32_le(self.max);
        out.put_u32_le(self.guards.len() as u32);
        for guard in &self.guards {
            put_bytes(out, &guard.key);
            put_condition(out, &guard.condition);
        }
        for commands in [&self.then, &self.otherwise] {
            out.put_u32_le(commands.len() as u32);
            for command in commands {
                put_sized(out, |out| command.encode(out));
            }
        }
    }

    pub(super) fn decode(r: &mut Reader, kind: u8) -> Result<Transaction, BadCommand> {
        let mut left = MAX_PARTS;
        let mut parts = |r: &mut Reader| {
            let count = r.count(5)?;
            left = left.checked_sub(count).ok_or(BadCommand("too many parts"))?;
            Ok(count)
        };
        let max = r.u32()?;
        let count = parts(r)?;
        let mut guards = Vec::with_capacity(count);
        for _ in 0..count {
            guards.push(Guard { key: r.bytes()?, condition: r.condition()? });
        }
        let mut list = |r: &mut Reader| {
            let count = parts(r)?;
            let mut commands = Vec::with_capacity(count);
            for _ in 0..count {
                let bytes = r.bytes()?;
                // Before it is decoded: what comes from outside does not decide about the stack.
                if matches!(
                    bytes.first(),
                    Some(&(TRANSACTION | READ_TRANSACTION | ONCE | SCAN | WALK | IN_SLOT | CHANGES))
                ) {
                    return Err(BadCommand("what is no command on single keys in a transaction"));
                }
                commands.push(Command::decode(bytes)?);
            }
            Ok(commands)
        };
        let transaction = Transaction { guards, then: list(r)?, otherwise: list(r)?, max };
        if transaction.kind() != kind {
            return Err(BadCommand("a transaction of the other kind"));
        }
        Ok(transaction)
    }
}

impl State {
    /// Executes a transaction.
    pub(super) fn transact(&mut self, transaction: Transaction) -> Outcome {
        let met = self.holds(&transaction.guards) || planted::is(Bug::GuardIgnored);
        let Transaction { then, otherwise, max, .. } = transaction;
        let commands = if met { then } else { otherwise };
        if self.most_answered(&commands) > u64::from(max) {
            return Outcome::Failed(Failure::AnswerTooLong(max));
        }
        let mut outcomes: Vec<Outcome> = Vec::with_capacity(commands.len());
        for command in commands {
            match outcomes.last() {
                Some(first) if planted::is(Bug::TransactionHalfApplied) && !command.is_read() => {
                    outcomes.push(first.clone());
                }
                _ => outcomes.push(self.execute(command)),
            }
        }
        Outcome::Transaction { met, outcomes }
    }

    /// Answers a transaction of reads.
    pub(super) fn read_transaction(&self, transaction: &Transaction, clock: u64) -> Outcome {
        let met = self.holds(&transaction.guards);
        let commands = if met { &transaction.then } else { &transaction.otherwise };
        if self.most_answered(commands) > u64::from(transaction.max) {
            return Outcome::Failed(Failure::AnswerTooLong(transaction.max));
        }
        Outcome::Transaction {
            met,
            outcomes: commands.iter().map(|command| self.read_at(command, clock)).collect(),
        }
    }

    fn holds(&self, guards: &[Guard]) -> bool {
        guards.iter().all(|guard| self.meets(&guard.key, self.get(&guard.key), &guard.condition))
    }

    /// The most bytes that the outcomes of `commands` can take, executed in order from here on.
    fn most_answered(&self, commands: &[Command]) -> u64 {
        let mut bytes = (commands.len() as u64 + 1) * OUTCOME_COST;
        let answers_values = |command: &Command| {
            matches!(
                command.unfenced(),
                Command::Get { .. }
                    | Command::GetMany { .. }
                    | Command::Revisions { .. }
                    | Command::Take { .. }
                    | Command::Put { want: Want::Previous, .. }
                    | Command::PutFor { want: Want::Previous, .. }
                    | Command::Renew { .. }
            )
        };
        if !commands.iter().any(answers_values) {
            return bytes;
        }
        let mut values = Longest { state: self, written: BTreeMap::new() };
        for command in commands {
            bytes += match command.unfenced() {
                Command::Get { key }
                | Command::Take { key }
                | Command::Put { key, want: Want::Previous, .. }
                | Command::PutFor { key, want: Want::Previous, .. }
                | Command::Renew { key, .. } => values.of(key),
                Command::GetMany { keys } => keys.iter().map(|key| VALUE_COST + values.of(key)).sum(),
                Command::Revisions { keys } => VALUE_COST * keys.len() as u64,
                _ => 0,
            };
            values.follow(command);
        }
        bytes
    }
}

/// What an outcome takes beside its values, at most, and what each of several values does.
const OUTCOME_COST: u64 = 24;
const VALUE_COST: u64 = 8;

/// The decimal number that takes the most bytes.
const LONGEST_NUMBER: u64 = 20;

/// The longest value that each key can have at some point of a transaction.
struct Longest<'a> {
    state: &'a State,
    /// Of the keys that the commands so far may have written.
    written: BTreeMap<&'a [u8], u64>,
}

impl<'a> Longest<'a> {
    fn of(&self, key: &[u8]) -> u64 {
        let held = |item: &Item| item.value.len() as u64;
        self.written.get(key).copied().unwrap_or_else(|| self.state.get(key).map_or(0, held))
    }

    /// What the command leaves behind.
    fn follow(&mut self, command: &'a Command) {
        if let Command::Fenced { command, .. } = command {
            return self.follow_perhaps(command);
        }
        let mut sets = |key: &'a Bytes, length: u64| {
            self.written.insert(&key[..], length);
        };
        match command {
            Command::Put { key, value, condition: Condition::None, .. }
            | Command::PutFor { key, value, condition: Condition::None, .. } => sets(key, value.len() as u64),
            Command::Put { key, value: new, .. }
            | Command::PutFor { key, value: new, .. }
            | Command::Cas { key, new, .. } => {
                let length = self.of(key).max(new.len() as u64);
                self.written.insert(&key[..], length);
            }
            Command::PutMany { pairs } => pairs.iter().for_each(|(key, value)| sets(key, value.len() as u64)),
            Command::Delete { keys } => keys.iter().for_each(|key| sets(key, 0)),
            Command::Take { key } => sets(key, 0),
            Command::Add { key, .. } => {
                let length = self.of(key).max(LONGEST_NUMBER);
                self.written.insert(&key[..], length);
            }
            Command::Append { key, value, max } => {
                let held = self.of(key);
                let length = held.max((held + value.len() as u64).min(u64::from(*max)));
                self.written.insert(&key[..], length);
            }
            // Reads and new lives leave every value as it is, and no transaction holds another or
            // a numbered command.
            Command::Get { .. }
            | Command::GetMany { .. }
            | Command::Revisions { .. }
            | Command::Exists { .. }
            | Command::Count
            | Command::Length { .. }
            | Command::Rest { .. }
            | Command::Scan(_)
            | Command::Walk(_)
            | Command::InSlot(_)
            | Command::Changes(_)
            | Command::Renew { .. }
            | Command::Roll
            | Command::SetRoll { .. }
            | Command::Epoch
            | Command::Once { .. }
            | Command::Fenced { .. }
            | Command::Transaction(_) => {}
        }
    }

    /// What a command leaves behind that may be refused: the longer of both outcomes.
    fn follow_perhaps(&mut self, command: &'a Command) {
        let before: Vec<(&'a [u8], u64)> = command.written().map(|key| (&key[..], self.of(key))).collect();
        self.follow(command);
        for (key, length) in before {
            let longer = length.max(self.of(key));
            self.written.insert(key, longer);
        }
    }
}
