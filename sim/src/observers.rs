//! Clients that look at many keys: one that reads through groups page by page, one that walks through
//! them by a number, and one that watches. Each keeps to one thing at a time, and comes back at another
//! machine with what it last knew.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use groups::ids::GroupId;
use groups::kv::{self, Command, Page, Range, Since, Walk};
use groups::random::Random;
use server::node::requests::{Completion, Request, Token};
use server::node::watch::{Pull, Pulled};

use crate::judges::{Ledger, Pages};

/// Marks the connections of observers among those of clients.
const OBSERVER: u64 = 1 << 60;

/// Which of them a connection belongs to.
const READER: u64 = OBSERVER | 1;
const WALKER: u64 = OBSERVER | 2;
const WATCHER: u64 = OBSERVER | 3;

/// A machine and its life.
type At = (usize, u64);

/// A request to a machine's life.
#[derive(Debug)]
pub struct Asked {
    /// The machine and its life.
    pub at: At,
    /// What is asked of its groups.
    pub requests: Vec<Request>,
    /// Which changes are asked for.
    pub pulls: Vec<Pull>,
}

/// All of them.
pub struct Observers {
    random: Random,
    groups: u32,
    /// Counts requests, so that late answers find nobody.
    number: u64,
    reader: Reader,
    walker: Walker,
    watcher: Watcher,
    pages: Pages,
}

/// Reads one group at a time from its first key to its last, and begins again with another.
#[derive(Default)]
struct Reader {
    group: GroupId,
    from: Bytes,
    /// The page that is under way: its number and what was asked.
    open: Option<(u64, Range)>,
}

#[derive(Default)]
struct Walker {
    group: GroupId,
    place: u64,
    met: BTreeSet<Bytes>,
    /// The revision from which on a key must have been there all the time.
    began: u64,
    open: Option<u64>,
}

/// Watches all groups on one connection.
#[derive(Default)]
struct Watcher {
    at: Option<At>,
    /// The connection's number there.
    life: u64,
    prefix: Bytes,
    /// By group: what was told, and whether more is asked for.
    positions: Vec<(u64, bool)>,
}

impl Observers {
    /// Observers of a cluster with so many groups.
    #[must_use]
    pub fn new(groups: u32, seed: u64) -> Observers {
        let mut random = Random::new(seed);
        // Often everything, else the keys of one digit: a watch of few keys waits past those of others.
        let prefix = ["k", "k", "k1", "k3"][random.below(4) as usize];
        Observers {
            groups,
            number: 0,
            reader: Reader::default(),
            walker: Walker::default(),
            watcher: Watcher {
                prefix: Bytes::from_static(prefix.as_bytes()),
                positions: vec![(0, false); groups as usize],
                ..Watcher::default()
            },
            pages: Pages::new(groups),
            random,
        }
    }

    /// Whether a connection is one of theirs.
    #[must_use]
    pub fn own(connection: u64) -> bool {
        connection & OBSERVER != 0
    }

    /// How long they rest.
    pub fn pause(&mut self) -> Duration {
        // Now and then for so long that what comes next is gone when they ask.
        let most = if self.random.below(12) == 0 { 3_000 } else { 150 };
        Duration::from_millis(5 + self.random.below(most))
    }

    /// What they ask next.
    pub fn act(&mut self, up: &[At], ledger: &Ledger) -> Vec<Asked> {
        if up.is_empty() {
            return Vec::new();
        }
        let any = up[self.random.below(up.len() as u64) as usize];
        let mut asked = vec![self.watch(up, any)];
        match self.random.below(4) {
            0 => asked.push(self.read(any, ledger)),
            1 => asked.push(self.walk(any, ledger)),
            _ => {}
        }
        asked
    }

    fn request(&mut self, connection: u64, group: GroupId, command: &Command) -> Request {
        self.number += 1;
        let token = Token { connection, request: self.number };
        Request { token, group, read: true, ordered: false, stale: None, command: command.to_bytes() }
    }

    fn read(&mut self, at: At, ledger: &Ledger) -> Asked {
        // A request that was lost is given up by asking another.
        self.pages.begin(self.reader.group, ledger);
        let range = Range {
            from: self.reader.from.clone(),
            to: None,
            limit: 1 + self.random.below(4) as u32,
            max_bytes: [200, 5_000][self.random.below(2) as usize],
            values: true,
        };
        let request = self.request(READER, self.reader.group, &Command::Scan(range.clone()));
        self.reader.open = Some((request.token.request, range));
        Asked { at, requests: vec![request], pulls: Vec::new() }
    }

    fn walk(&mut self, at: At, ledger: &Ledger) -> Asked {
        let Walker { group, place, .. } = self.walker;
        if place == 0 {
            self.walker.met.clear();
            self.walker.began = self.pages.floor(group).min(ledger.group(group).revision());
        }
        let walk = Walk { from: place, limit: 1 + self.random.below(3) as u32, max_bytes: 1 << 16 };
        let request = self.request(WALKER, group, &Command::Walk(walk));
        self.walker.open = Some(request.token.request);
        Asked { at, requests: vec![request], pulls: Vec::new() }
    }

    fn watch(&mut self, up: &[At], any: At) -> Asked {
        let stays = self.watcher.at.is_some_and(|at| up.contains(&at)) && self.random.below(10) > 0;
        if !stays {
            self.watcher.at = Some(any);
            self.watcher.life += 1;
            self.watcher.positions.iter_mut().for_each(|(_, open)| *open = false);
        }
        let at = self.watcher.at.unwrap_or(any);
        let mut pulls = Vec::new();
        for (group, (after, open)) in (0..).map(GroupId).zip(&mut self.watcher.positions) {
            if !std::mem::replace(open, true) {
                let max_bytes = [1, 400, 1 << 16][self.random.below(3) as usize];
                let since = Since { after: Some(*after), prefix: self.watcher.prefix.clone(), max_bytes };
                let token = Token { connection: WATCHER, request: self.watcher.life };
                pulls.push(Pull { token, group, since, wait: true });
            }
        }
        Asked { at, requests: Vec::new(), pulls }
    }

    /// A client was told something of a group: whatever is read from now on is at least as new.
    pub fn known(&mut self, group: GroupId, outcome: &kv::Outcome) {
        match outcome {
            kv::Outcome::Revision(revision) | kv::Outcome::Value(Some((_, revision))) => {
                self.pages.known(group, *revision);
            }
            _ => {}
        }
    }

    /// The answer to a request. Returns what it was, in words, if somebody waits for it.
    ///
    /// # Errors
    /// When it is wrong.
    pub fn complete(&mut self, completion: Completion, ledger: &Ledger) -> Result<Option<String>, String> {
        let Completion { token, group, result } = completion;
        let number = token.request;
        if token.connection == READER
            && let Some((_, range)) = self.reader.open.take_if(|(open, _)| *open == number)
        {
            let Ok(outcome) = result else { return Ok(None) };
            let kv::Outcome::Page(page) = outcome else { return Err(format!("no page: {outcome:?}")) };
            self.pages.judge(group, &range, &page, ledger)?;
            return Ok(Some(self.turn_page(&range, page)));
        }
        if token.connection == WALKER && self.walker.open.take_if(|open| *open == number).is_some() {
            let Ok(outcome) = result else { return Ok(None) };
            let kv::Outcome::Walked { keys, next } = outcome else {
                return Err(format!("no walk: {outcome:?}"));
            };
            let told = format!("walk through group {group}: {} keys", keys.len());
            self.walker.met.extend(keys);
            match next {
                Some(place) if place < self.walker.place => {
                    return Err(format!("a walk goes back from {} to {place}", self.walker.place));
                }
                Some(place) => self.walker.place = place,
                None => {
                    let walker = &self.walker;
                    self.pages.judge_walk(group, walker.began, &walker.met, ledger)?;
                    self.walker = Walker { group: self.next_group(group), ..Walker::default() };
                }
            }
            return Ok(Some(told));
        }
        Ok(None)
    }

    fn turn_page(&mut self, range: &Range, page: Page) -> String {
        let group = self.reader.group;
        let told = format!("page of group {group} from {:?}: {} keys", range.from, page.items.len());
        match page.next {
            // A key alone over the limit of bytes: it is passed by the smallest step there is.
            Some(next) if page.large => self.reader.from = [&next[..], &[0]].concat().into(),
            Some(next) => self.reader.from = next,
            None => self.reader = Reader { group: self.next_group(group), ..Reader::default() },
        }
        told
    }

    fn next_group(&self, group: GroupId) -> GroupId {
        GroupId((group.0 + 1) % self.groups)
    }

    /// The answer to a watch. Returns what it was, in words, if somebody waits for it.
    ///
    /// # Errors
    /// When it is wrong.
    pub fn pulled(&mut self, at: At, pulled: Pulled, ledger: &Ledger) -> Result<Option<String>, String> {
        let Pulled { token, group, result } = pulled;
        let watcher = &mut self.watcher;
        if watcher.at != Some(at) || token != (Token { connection: WATCHER, request: watcher.life }) {
            return Ok(None);
        }
        let (after, open) = &mut watcher.positions[group.0 as usize];
        *open = false;
        let from = *after;
        *after = match result {
            Ok(outcome) => ledger.group(group).judge_changes(group, from, &watcher.prefix, &outcome)?,
            Err(refusal) => return Err(format!("a watch of group {group} ends: {refusal:?}")),
        };
        Ok(Some(format!("changes of group {group} from {from} to {after}")))
    }
}
