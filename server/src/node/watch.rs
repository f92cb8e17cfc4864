//! Questions for changes that wait for their answer: what the connections of a node watch.
//!
//! A watch *pulls*: for each group it asks for what comes behind the revision that it has told last,
//! and asks again when it has passed the answer on. So a slow client holds nothing up and takes no
//! memory; it only falls behind, until what it asks for next is gone and it hears so.
//!
//! A group with a seat here is asked right here: what this replica has applied, every replica
//! applies, in the same order. Where there is none, or while its state is missing, the group's leader
//! is asked again and again. Where a group stands *now* only its leader knows: a watch that begins
//! there is not told of what was acknowledged before.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use groups::host::Host;
use groups::ids::GroupId;
use groups::kv::{Command, Outcome, Since, State};
use groups::planted::{self, Bug};
use groups::time::Time;

use super::requests::{Completion, Refusal, Request, Token};

/// One question.
#[derive(Clone, Debug)]
pub struct Pull {
    /// Who asks: the connection, and its watch.
    pub token: Token,
    /// The group.
    pub group: GroupId,
    /// What is asked.
    pub since: Since,
    /// Whether the answer waits for a change.
    pub wait: bool,
}

/// The answer to one.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// Who asked.
    pub token: Token,
    /// The group.
    pub group: GroupId,
    /// [`Outcome::Changes`] or [`Outcome::Compacted`]; a question that only wanted to know where the
    /// group stands may be refused.
    pub result: Result<Outcome, Refusal>,
}

/// A question that waits longer is answered with no changes, so that a quiet watch hears how far it
/// has come.
pub const REST: Duration = Duration::from_secs(10);

/// How often the leader of a group without a seat here is asked.
const ASK: Duration = Duration::from_millis(100);

/// How often it is looked who has waited long enough.
const LOOK: Duration = Duration::from_millis(50);

/// The most questions that wait in one shard.
const MAX_PULLS: usize = 65_536;

/// Names the questions to leaders among the requests of the shard.
const AWAY: u64 = u64::MAX;

#[derive(Debug)]
struct Parked {
    pull: Pull,
    begun: Time,
}

/// Questions to one group with a seat here.
#[derive(Debug)]
struct Here {
    /// The newest change when they were last looked at.
    seen: u64,
    parked: Vec<Parked>,
}

/// A question to a leader.
#[derive(Debug)]
struct Away {
    parked: Parked,
    /// When it is asked again; `None` while it is under way.
    due: Option<Time>,
}

/// The questions of a shard that wait.
#[derive(Debug, Default)]
pub struct Watches {
    here: BTreeMap<GroupId, Here>,
    away: BTreeMap<u64, Away>,
    /// Groups that were told that somebody waits: at least those of `here`.
    eager: BTreeSet<GroupId>,
    /// How many of both.
    count: usize,
    /// Numbers the questions to leaders.
    number: u64,
    next_look: Time,
    done: Vec<Pulled>,
}

impl Watches {
    /// Whether no question waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Takes a question. Returns what is to be asked of the group's leader, if need be.
    pub fn pull(&mut self, pull: Pull, host: &mut Host, now: Time) -> Option<Request> {
        if self.count >= MAX_PULLS {
            let Pull { token, group, .. } = pull;
            self.done.push(Pulled { token, group, result: Err(Refusal::Busy) });
            return None;
        }
        self.count += 1;
        self.ask(Parked { pull, begun: now }, host)
    }

    /// Whoever asked is gone: a connection, or one watch of it.
    pub fn forget(&mut self, connection: u64, watch: Option<u64>) {
        let named = |parked: &Parked| {
            let Token { connection: whose, request } = parked.pull.token;
            whose == connection && watch.is_none_or(|watch| watch == request)
        };
        for here in self.here.values_mut() {
            here.parked.retain(|parked| !named(parked));
        }
        self.here.retain(|_, here| !here.parked.is_empty());
        self.away.retain(|_, away| !named(&away.parked));
        self.recount();
    }

    /// The groups have had their turn: answers what can be answered now.
    pub fn look(&mut self, host: &Host) {
        let mut seats = std::mem::take(&mut self.here);
        for (group, here) in &mut seats {
            let Some(state) = seat(host, *group) else { continue };
            let newest = state.history().newest();
            if here.seen == newest {
                continue;
            }
            let parked = std::mem::take(&mut here.parked);
            here.parked = parked
                .into_iter()
                .filter_map(|parked| {
                    let outcome = state.history().since(&parked.pull.since);
                    self.settle(parked, outcome)
                })
                .collect();
            // A long look may have ended before the newest: the next turn goes on there.
            let behind = here.parked.iter().filter_map(|parked| parked.pull.since.after).min();
            here.seen = behind.unwrap_or(newest).min(newest);
        }
        seats.retain(|_, here| !here.parked.is_empty());
        self.here = seats;
    }

    /// Takes the answers of leaders out of the shard's completions.
    pub fn sort_out(&mut self, completions: &mut Vec<Completion>, now: Time) {
        if self.away.is_empty() {
            completions.retain(|completion| completion.token.connection != AWAY);
            return;
        }
        for completion in completions.extract_if(.., |c| c.token.connection == AWAY) {
            let Some(Away { parked, .. }) = self.away.remove(&completion.token.request) else { continue };
            let parked = match completion.result {
                Ok(outcome) => self.settle(parked, outcome),
                Err(_) if parked.pull.wait => Some(parked),
                Err(refusal) => {
                    self.finish(&parked, Err(refusal));
                    None
                }
            };
            if let Some(parked) = parked {
                self.away.insert(completion.token.request, Away { parked, due: Some(now + ASK) });
            }
        }
    }

    /// Lets time pass. Returns what is to be asked of leaders.
    pub fn tick(&mut self, host: &mut Host, now: Time) -> Vec<Request> {
        if now < self.next_look || (self.count == 0 && self.eager.is_empty()) {
            return Vec::new();
        }
        self.next_look = now + LOOK;
        self.eager
            .extract_if(.., |group| !self.here.contains_key(group))
            .for_each(|group| host.set_eager(group, false));
        let mut homeless = Vec::new();
        let mut seats = std::mem::take(&mut self.here);
        for (group, here) in &mut seats {
            for parked in here.parked.extract_if(.., |parked| now.since(parked.begun) >= REST) {
                self.rest(&parked);
            }
            if seat(host, *group).is_none() {
                homeless.append(&mut here.parked);
            }
        }
        seats.retain(|_, here| !here.parked.is_empty());
        self.here = seats;
        let due: Vec<u64> = self
            .away
            .iter()
            .filter(|(_, away)| away.due.is_some_and(|due| now >= due))
            .map(|(number, _)| *number)
            .collect();
        for number in due {
            let Some(Away { parked, .. }) = self.away.remove(&number) else { continue };
            if now.since(parked.begun) >= REST {
                self.rest(&parked);
            } else {
                homeless.push(parked);
            }
        }
        homeless.into_iter().filter_map(|parked| self.ask(parked, host)).collect()
    }

    /// The answers that have come since this was last called.
    pub fn take(&mut self) -> Vec<Pulled> {
        std::mem::take(&mut self.done)
    }

    fn ask(&mut self, parked: Parked, host: &mut Host) -> Option<Request> {
        let group = parked.pull.group;
        let Some(state) = seat(host, group).filter(|_| parked.pull.since.after.is_some()) else {
            self.number += 1;
            let request = Request {
                token: Token { connection: AWAY, request: self.number },
                group,
                read: true,
                ordered: false,
                stale: None,
                command: Command::Changes(parked.pull.since.clone()).to_bytes(),
            };
            self.away.insert(self.number, Away { parked, due: None });
            return Some(request);
        };
        let outcome = state.history().since(&parked.pull.since);
        if let Some(parked) = self.settle(parked, outcome) {
            // What comes in the meantime is met by the next look: this one knows less than the newest.
            let seen = parked.pull.since.after.unwrap_or(0);
            let here = self.here.entry(group).or_insert_with(|| Here { seen, parked: Vec::new() });
            here.seen = here.seen.min(seen);
            here.parked.push(parked);
            if self.eager.insert(group) {
                host.set_eager(group, true);
            }
        }
        None
    }

    /// Passes an answer on, or keeps a question that waits for more.
    fn settle(&mut self, mut parked: Parked, outcome: Outcome) -> Option<Parked> {
        match outcome {
            Outcome::Changes { changes, through } if changes.is_empty() && parked.pull.wait => {
                let ahead = u64::from(planted::is(Bug::WatchSkipsOne));
                parked.pull.since.after = Some(through + ahead);
                Some(parked)
            }
            outcome => {
                self.finish(&parked, Ok(outcome));
                None
            }
        }
    }

    /// Nothing has come for so long.
    fn rest(&mut self, parked: &Parked) {
        let result = match parked.pull.since.after {
            Some(through) => Ok(Outcome::Changes { changes: Vec::new(), through }),
            None => Err(Refusal::TryAgain),
        };
        self.finish(parked, result);
    }

    fn finish(&mut self, parked: &Parked, result: Result<Outcome, Refusal>) {
        let Pull { token, group, .. } = parked.pull;
        self.count -= 1;
        self.done.push(Pulled { token, group, result });
    }

    fn recount(&mut self) {
        self.count = self.here.values().map(|here| here.parked.len()).sum::<usize>() + self.away.len();
    }
}

/// The state of a group whose changes can be told from here.
fn seat(host: &Host, group: GroupId) -> Option<&State> {
    let seat = host.group(group)?;
    (seat.replica.halted().is_none() && !seat.is_rebuilding()).then(|| seat.state())
}
