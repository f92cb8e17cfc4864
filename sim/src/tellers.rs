//! Tellers: clients that move money between the accounts of a group, and count it, in transactions.
//!
//! A transfer is built of what the teller last saw: guards on the revisions of two accounts, the two
//! new amounts, and a look at all accounts in either branch. Whatever a teller is answered, the
//! accounts that it shows together must add up to what they were given; the two changes of a transfer
//! must have followed each other without anything between; and each account for itself must be
//! linearizable, as everything else that clients saw.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use groups::ids::GroupId;
use groups::kv::{self, Command, Condition, Guard, Transaction, Want};
use groups::random::Random;
use groups::time::Time;
use server::node::requests::Refusal;

use crate::history::{Action, Call, ClientLog, Outcome};

/// Accounts of each group.
pub const ACCOUNTS: usize = 4;

/// What an account holds that nobody has written yet.
const FIRST: i64 = 100;

/// More than any of its transactions answers.
const MAX_ANSWER: u32 = 1 << 20;

/// An account as it was seen: its value, if somebody has written it, and its revision.
type Seen = Option<(Bytes, u64)>;

/// What one teller knows.
#[derive(Debug)]
pub struct Teller {
    groups: u64,
    /// All accounts of a group as they were at one instant.
    seen: BTreeMap<GroupId, Vec<Seen>>,
}

/// A transaction under way.
#[derive(Debug)]
pub struct Flight {
    /// The accounts' group.
    pub group: GroupId,
    /// The encoded command.
    pub command: Bytes,
    /// Whether it moves money.
    pub transfer: bool,
    /// The puts of a transfer, then the gets of all accounts: what stands in the history.
    parts: Vec<(Call, usize, Action)>,
}

/// One account's part of a transaction: its key, what was asked, and what came.
#[derive(Clone, Debug)]
pub struct Part {
    key: String,
    action: Action,
    outcome: Outcome,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} -> {}", self.action, self.key, self.outcome)
    }
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Executed; for a transfer, the guards held.
    Done,
    /// A transfer met a change, and nothing was moved.
    Unmet,
    /// Certainly not executed.
    NotApplied,
    /// Nobody knows.
    Unknown,
}

fn name(group: GroupId, account: usize) -> String {
    format!("a{group}.{account}")
}

fn key(group: GroupId, account: usize) -> Bytes {
    Bytes::from(name(group, account))
}

/// The amount in an account. Behind it stands who wrote it, so that no two writes are alike.
fn amount(seen: &Seen) -> Result<i64, String> {
    let Some((value, _)) = seen else { return Ok(FIRST) };
    let text = String::from_utf8_lossy(value);
    let digits = text.split(' ').next().unwrap_or_default();
    digits.parse().map_err(|_| format!("an account holds \"{text}\", which no teller has written"))
}

impl Teller {
    /// A teller who has seen nothing.
    #[must_use]
    pub fn new(groups: u32) -> Teller {
        Teller { groups: u64::from(groups), seen: BTreeMap::new() }
    }

    /// The next transaction; `signature` is like that of no other.
    pub fn ask(&mut self, signature: &str, now: Time, log: &mut ClientLog, random: &mut Random) -> Flight {
        let group = GroupId(random.below(self.groups) as u32);
        let mut asked: Vec<(usize, Action)> = Vec::new();
        let mut transaction = Transaction { max: MAX_ANSWER, ..Transaction::default() };
        // Now and then money is only counted: that goes the way of reads.
        if let Some(seen) = self.seen.get(&group).filter(|_| random.below(4) > 0) {
            let from = random.below(ACCOUNTS as u64) as usize;
            let to = (from + 1 + random.below(ACCOUNTS as u64 - 1) as usize) % ACCOUNTS;
            let moved = 1 + random.below(9) as i64;
            for (account, change) in [(from, -moved), (to, moved)] {
                // What was counted was checked.
                let new = amount(&seen[account]).unwrap_or(FIRST) + change;
                let value = Bytes::from(format!("{new} {signature}"));
                let revision = seen[account].as_ref().map_or(0, |(_, revision)| *revision);
                let guard = Guard { key: key(group, account), condition: Condition::Revision(revision) };
                transaction.guards.push(guard);
                transaction.then.push(Command::Put {
                    key: key(group, account),
                    value: value.clone(),
                    condition: Condition::None,
                    want: Want::Revision,
                });
                asked.push((account, Action::PutIfRev { revision, value: value.to_vec() }));
            }
        }
        let transfer = !asked.is_empty();
        let gets = (0..ACCOUNTS).map(|account| Command::Get { key: key(group, account) });
        transaction.then.extend(gets.clone());
        transaction.otherwise.extend(gets.filter(|_| transfer));
        asked.extend((0..ACCOUNTS).map(|account| (account, Action::Get)));
        let parts = asked.into_iter().map(|(account, action)| {
            (log.invoke(&key(group, account), now.nanos(), action.clone()), account, action)
        });
        let parts = parts.collect();
        Flight { group, command: Command::Transaction(transaction).to_bytes(), transfer, parts }
    }

    /// What came of a transaction; `None` when no answer came.
    ///
    /// # Errors
    /// When the answer cannot be right.
    pub fn told(
        &mut self,
        flight: Flight,
        result: Option<Result<kv::Outcome, Refusal>>,
        now: Time,
        log: &mut ClientLog,
    ) -> Result<(Ending, Vec<Part>), String> {
        let Flight { group, transfer, parts, .. } = flight;
        let (ending, outcomes) = match result {
            None | Some(Err(Refusal::InDoubt)) => (Ending::Unknown, Vec::new()),
            Some(Err(_) | Ok(kv::Outcome::Failed(_) | kv::Outcome::Retired)) => {
                (Ending::NotApplied, Vec::new())
            }
            Some(Ok(kv::Outcome::Transaction { met: true, outcomes })) => (Ending::Done, outcomes),
            Some(Ok(kv::Outcome::Transaction { met: false, outcomes })) if transfer => {
                (Ending::Unmet, outcomes)
            }
            Some(Ok(other)) => return Err(format!("no such answer to a transaction: {other:?}")),
        };
        let executed = matches!(ending, Ending::Done | Ending::Unmet);
        let puts = if transfer { parts.len() - ACCOUNTS } else { 0 };
        let skipped = if ending == Ending::Unmet { puts } else { 0 };
        if executed && outcomes.len() + skipped != parts.len() {
            return Err(format!("{} answers to {} parts of a transaction", outcomes.len(), parts.len()));
        }
        let mut outcomes = outcomes.into_iter();
        let mut all: Vec<Seen> = Vec::new();
        let mut changes = Vec::new();
        let mut told = Vec::with_capacity(parts.len());
        for (place, (call, account, action)) in parts.into_iter().enumerate() {
            let outcome = match (ending, place < skipped) {
                (Ending::Unknown, _) => Outcome::Unknown,
                (Ending::NotApplied, _) | (_, true) => Outcome::NotApplied,
                (Ending::Done | Ending::Unmet, false) => match outcomes.next() {
                    Some(kv::Outcome::Revision(revision)) if place < puts => {
                        changes.push(revision);
                        Outcome::Revision(revision)
                    }
                    Some(kv::Outcome::Value(seen)) if place >= puts => {
                        all.push(seen.clone());
                        Outcome::Versioned(seen.map(|(value, revision)| (value.to_vec(), revision)))
                    }
                    other => return Err(format!("no such answer in a transaction: {other:?}")),
                },
            };
            log.respond(call, now.nanos(), outcome.clone());
            told.push(Part { key: name(group, account), action, outcome });
        }
        if executed {
            self.count(group, all)?;
        }
        if let [first, second] = changes[..]
            && second != first + 1
        {
            return Err(format!(
                "a transaction in group {group} made revision {first} and then {second}: something came between"
            ));
        }
        Ok((ending, told))
    }

    fn count(&mut self, group: GroupId, all: Vec<Seen>) -> Result<(), String> {
        let mut sum = 0;
        for seen in &all {
            sum += amount(seen)?;
        }
        let whole = ACCOUNTS as i64 * FIRST;
        if sum != whole {
            return Err(format!("the accounts of group {group} add up to {sum} and not to {whole}: {all:?}"));
        }
        self.seen.insert(group, all);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: GroupId = GroupId(0);

    fn asked(teller: &mut Teller, transfer: bool) -> Flight {
        let (mut log, mut random) = (ClientLog::new(1), Random::new(1));
        loop {
            let flight = teller.ask("c1", Time::ZERO, &mut log, &mut random);
            if flight.transfer == transfer {
                return flight;
            }
        }
    }

    fn answer(teller: &mut Teller, met: bool, outcomes: Vec<kv::Outcome>) -> Result<Ending, String> {
        let flight = asked(teller, outcomes.len() > ACCOUNTS || !met);
        let mut log = ClientLog::new(1);
        // The calls belong to another log: as many are begun in this one.
        for _ in 0..1000 {
            let _ = log.invoke(b"k", 0, Action::Get);
        }
        let result = Some(Ok(kv::Outcome::Transaction { met, outcomes }));
        teller.told(flight, result, Time::ZERO, &mut log).map(|(ending, _)| ending)
    }

    fn accounts(amounts: [i64; ACCOUNTS]) -> Vec<kv::Outcome> {
        let seen = |(n, amount): (u64, &i64)| Some((Bytes::from(format!("{amount} c1.{n}")), n));
        (1..).zip(&amounts).map(|pair| kv::Outcome::Value(seen(pair))).collect()
    }

    fn moved(revisions: [u64; 2], amounts: [i64; ACCOUNTS]) -> Vec<kv::Outcome> {
        revisions.map(kv::Outcome::Revision).into_iter().chain(accounts(amounts)).collect()
    }

    #[test]
    fn money_that_is_made_or_lost_is_seen() {
        let mut teller = Teller::new(1);
        assert_eq!(answer(&mut teller, true, vec![kv::Outcome::Value(None); ACCOUNTS]), Ok(Ending::Done));
        assert_eq!(teller.seen[&GROUP].len(), ACCOUNTS);
        assert_eq!(answer(&mut teller, true, moved([5, 6], [90, 110, 100, 100])), Ok(Ending::Done));
        assert_eq!(answer(&mut teller, false, accounts([80, 120, 110, 90])), Ok(Ending::Unmet));
        let wrong = answer(&mut teller, true, accounts([90, 100, 100, 100])).expect_err("390");
        assert!(wrong.contains("add up to 390 and not to 400"), "{wrong}");
        assert!(answer(&mut teller, true, moved([5, 6], [90, 111, 100, 100])).is_err());
        assert!(answer(&mut teller, false, accounts([81, 120, 110, 90])).is_err());
    }

    #[test]
    fn what_comes_between_two_changes_is_seen() {
        let mut teller = Teller::new(1);
        answer(&mut teller, true, vec![kv::Outcome::Value(None); ACCOUNTS]).expect("right");
        let wrong = answer(&mut teller, true, moved([5, 7], [90, 110, 100, 100])).expect_err("a gap");
        assert!(wrong.contains("something came between"), "{wrong}");
    }

    #[test]
    fn answers_that_fit_no_question_are_wrong() {
        let mut teller = Teller::new(1);
        for outcomes in
            [vec![], vec![kv::Outcome::Done; ACCOUNTS], vec![kv::Outcome::Value(None); ACCOUNTS - 1]]
        {
            assert!(answer(&mut teller, true, outcomes).is_err());
        }
    }
}
