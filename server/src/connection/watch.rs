//! What a connection watches: events out of the groups' changes, in the order of each group.
//!
//! A watch begins with a question to every group that its prefix may touch: whether what it asks for
//! is there, or where the group stands. Then one question at a time is under way to each of them. The
//! position that an event carries is that of all groups with that event told, so a client that
//! comes back with it, to any node, goes on where it was.

use std::time::{Duration, Instant};

use bytes::Bytes;
use groups::ids::GroupId;
use groups::kv::{Change, Outcome, Since};

use super::plan::refusal_reply;
use super::{Connection, Shared, Slot};
use crate::node::requests::Token;
use crate::node::watch::{Pull, Pulled, REST};
use crate::protocol::{
    Command, ErrorReply, LocalCommand, Position, Reply, Version, WatchCommand, WatchFrom, pinned_slot, quoted,
};
use crate::runtime::worker::Worker;

/// The most watches of one connection.
const MAX_WATCHES: usize = 16;

/// About so many bytes of changes of one group are taken at a time.
const PULL_BYTES: u32 = 64 << 10;

/// A watch that had nothing to tell for so long tells how far it is; a little less than the pulls rest.
const PROGRESS: Duration = REST.saturating_sub(Duration::from_secs(1));

/// What a connection watches.
#[derive(Debug, Default)]
pub(super) struct Watches {
    list: Vec<Watch>,
    /// Numbers the watches of all time.
    next: u64,
}

#[derive(Debug)]
struct Watch {
    number: u64,
    prefix: Bytes,
    /// What has been told, or handed to the socket.
    position: Position,
    /// Groups that no question is under way to.
    idle: Vec<GroupId>,
    stage: Stage,
    /// When something was last told.
    told: Instant,
}

#[derive(Debug)]
enum Stage {
    /// Groups have to say whether it can begin.
    Beginning { request: u64, missing: usize, from_now: bool, failed: Option<ErrorReply> },
    /// Events are told.
    Running,
}

impl Watches {
    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

impl Watch {
    fn place(&self, group: GroupId) -> usize {
        (group.0 - self.position.first) as usize
    }

    fn groups(&self) -> impl Iterator<Item = GroupId> + use<> {
        (self.position.first..self.position.first + self.position.revisions.len() as u32).map(GroupId)
    }

    fn event(&mut self, group: GroupId, change: Change) -> Reply {
        let place = self.place(group);
        self.position.revisions[place] = change.revision;
        let kind = if change.value.is_some() { "set" } else { "del" };
        Reply::Push(vec![
            Reply::bulk("subscribekv-event"),
            Reply::Bulk(self.prefix.clone()),
            Reply::Integer(group.0.into()),
            Reply::unsigned(change.revision),
            Reply::bulk(kind),
            Reply::Bulk(change.key),
            Reply::bulk_or_nil(change.value),
            Reply::bulk(self.position.to_text()),
        ])
    }

    fn progress(&self) -> Reply {
        Reply::Push(vec![
            Reply::bulk("subscribekv-progress"),
            Reply::Bulk(self.prefix.clone()),
            Reply::bulk(self.position.to_text()),
        ])
    }
}

/// Whether a RESP2 connection that watches takes `command`: it could not tell other replies from
/// events.
fn is_allowed(command: &Command) -> bool {
    use LocalCommand::{Ping, Quit, Reset};
    matches!(command, Command::Watch(_) | Command::Local(Ping(_) | Quit | Reset))
}

impl Connection {
    /// Whether replies and events have one shape here.
    fn is_watching_only(&self) -> bool {
        let state = self.state.borrow();
        !state.watches.is_empty() && state.session.version() == Version::Resp2
    }

    /// Whether the connection takes `command` while it watches.
    pub(super) fn allows(&self, command: Command) -> Result<Command, ErrorReply> {
        if is_allowed(&command) || !self.is_watching_only() {
            return Ok(command);
        }
        Err(ErrorReply::err(
            "only SUBSCRIBEKV, UNSUBSCRIBEKV, PING, QUIT and RESET are allowed while this connection watches keys; \
             nothing was applied; use another connection, or HELLO 3",
        ))
    }

    /// `PING` as Redis answers it where events and replies have one shape.
    pub(super) fn watching_ping(&self, command: &LocalCommand) -> Option<Reply> {
        let LocalCommand::Ping(message) = command else { return None };
        let message = message.clone().unwrap_or_default();
        self.is_watching_only().then(|| Reply::Array(vec![Reply::bulk("pong"), Reply::Bulk(message)]))
    }

    /// Begins or ends a watch.
    pub(super) fn watch(&self, command: WatchCommand, worker: &Worker, shared: &Shared) {
        match command {
            WatchCommand::Begin { prefix, from } => {
                if let Err(error) = self.begin_watch(prefix, from, worker, shared) {
                    self.push(Slot::Ready(error.into()));
                }
            }
            WatchCommand::End(prefix) => {
                let mut ended = Vec::new();
                let left = {
                    let list = &mut self.state.borrow_mut().watches.list;
                    list.retain(|watch| {
                        let stays = prefix.as_ref().is_some_and(|prefix| watch.prefix != *prefix);
                        if !stays {
                            ended.push(watch.number);
                        }
                        stays
                    });
                    list.len() as i64
                };
                ended.into_iter().for_each(|number| worker.unwatch(self.id, Some(number)));
                let named = Reply::bulk_or_nil(prefix);
                let reply = vec![Reply::bulk("unsubscribekv"), named, Reply::Integer(left)];
                self.push(Slot::Ready(Reply::Array(reply)));
            }
        }
    }

    fn begin_watch(
        &self,
        prefix: Bytes,
        from: WatchFrom,
        worker: &Worker,
        shared: &Shared,
    ) -> Result<(), ErrorReply> {
        {
            let list = &self.state.borrow().watches.list;
            if list.iter().any(|watch| watch.prefix == prefix) {
                return Err(ErrorReply::err("this connection watches that prefix already"));
            }
            if list.len() >= MAX_WATCHES {
                return Err(ErrorReply::err(format!("a connection has at most {MAX_WATCHES} watches")));
            }
        }
        let (first, count) = match pinned_slot(&prefix) {
            Some(slot) => (shared.layout.group_of(slot).0, 1),
            None => (0, shared.layout.groups()),
        };
        let after: Vec<Option<u64>> = match from {
            WatchFrom::Now => vec![None; count as usize],
            WatchFrom::Revision(revision) if count == 1 => vec![Some(revision)],
            WatchFrom::Revision(_) => {
                return Err(ErrorReply::err(
                    "a revision alone names no place in more than one group; nothing is watched; give the prefix a \
                     {tag}, or give FROM the token of an earlier event",
                ));
            }
            WatchFrom::Position(position) => {
                let of = |group: u32| {
                    let place = group.checked_sub(position.first)? as usize;
                    position.revisions.get(place).copied()
                };
                let after: Vec<Option<u64>> = (first..first + count).map(of).collect();
                if after.contains(&None) {
                    return Err(ErrorReply::err(
                        "the token after FROM is of other groups; nothing is watched; it goes with the prefix that it \
                         was told for",
                    ));
                }
                after
            }
        };
        let request = self.push(Slot::Later);
        let (number, pulls) = {
            let mut state = self.state.borrow_mut();
            // What comes behind it on this connection waits: whether it is watching decides what that means.
            state.asking = true;
            state.watches.next += 1;
            let number = state.watches.next;
            let position =
                Position { first, revisions: after.iter().map(|after| after.unwrap_or(0)).collect() };
            let from_now = after.contains(&None);
            let stage = Stage::Beginning { request, missing: after.len(), from_now, failed: None };
            let watch = Watch {
                number,
                prefix: prefix.clone(),
                position,
                idle: Vec::new(),
                stage,
                told: Instant::now(),
            };
            state.watches.list.push(watch);
            (number, after)
        };
        for (group, after) in (first..).map(GroupId).zip(pulls) {
            let since = Since { after, prefix: prefix.clone(), max_bytes: 0 };
            let token = Token { connection: self.id, request: number };
            worker.pull(Pull { token, group, since, wait: false });
        }
        Ok(())
    }

    /// Takes the answer of a group. Returns whether there may be something to write.
    pub fn pulled(&self, pulled: Pulled, worker: &Worker) -> bool {
        let Pulled { token, group, result } = pulled;
        let replies = {
            let mut state = self.state.borrow_mut();
            let Some(watch) = state.watches.list.iter_mut().find(|watch| watch.number == token.request)
            else {
                return false;
            };
            match watch.stage {
                Stage::Beginning { .. } => return self.begun(token.request, group, result, state, worker),
                Stage::Running => running(watch, group, result),
            }
        };
        match replies {
            Ok(replies) => {
                let told = !replies.is_empty();
                replies.into_iter().for_each(|reply| self.push_event(reply));
                self.pull_more(worker);
                told
            }
            Err(error) => {
                self.push(Slot::Ready(error.into()));
                self.unwatch(worker);
                // The client cannot go on as if nothing were: it comes back with the token, or reads anew.
                self.out_of_step.set(true);
                true
            }
        }
    }

    fn begun(
        &self,
        number: u64,
        group: GroupId,
        result: Result<Outcome, crate::node::requests::Refusal>,
        mut state: std::cell::RefMut<'_, super::State>,
        worker: &Worker,
    ) -> bool {
        let count = state.watches.list.len() as i64;
        let Some(index) = state.watches.list.iter().position(|watch| watch.number == number) else {
            return false;
        };
        let watch = &mut state.watches.list[index];
        let place = watch.place(group);
        let Stage::Beginning { request, missing, from_now, failed } = &mut watch.stage else { return false };
        let request = *request;
        *missing -= 1;
        match result {
            Ok(Outcome::Changes { through, .. }) if *from_now => watch.position.revisions[place] = through,
            Ok(Outcome::Changes { .. }) => {}
            Ok(Outcome::Compacted { min }) => {
                *failed = Some(ErrorReply::compacted(
                    min,
                    group,
                    "nothing is watched; begin without FROM, then read the keys with PREFIX",
                ));
            }
            Ok(_) => {
                *failed =
                    Some(ErrorReply::try_again(group, "gave an answer that is none; nothing is watched"))
            }
            Err(refusal) => *failed = Some(refusal_reply(group, refusal, false, false)),
        }
        if *missing > 0 {
            return false;
        }
        let reply = match failed.take() {
            Some(error) => {
                state.watches.list.remove(index);
                error.into()
            }
            None => {
                watch.stage = Stage::Running;
                watch.idle = watch.groups().collect();
                watch.told = Instant::now();
                Reply::Array(vec![
                    Reply::bulk("subscribekv"),
                    Reply::Bulk(watch.prefix.clone()),
                    Reply::Integer(count),
                    Reply::bulk(watch.position.to_text()),
                ])
            }
        };
        drop(state);
        self.fill(request, reply);
        self.pull_more(worker);
        true
    }

    /// Puts an event behind everything that was asked before.
    fn push_event(&self, reply: Reply) {
        let bytes = match &reply {
            Reply::Push(items) => items
                .iter()
                .map(|item| match item {
                    Reply::Bulk(bytes) => bytes.len() + 8,
                    _ => 8,
                })
                .sum(),
            _ => 0,
        };
        self.push(Slot::Ready(reply));
        let mut state = self.state.borrow_mut();
        state.ready_bytes += bytes;
        if let Some(pending) = state.pending.back_mut() {
            pending.bytes = bytes;
        }
    }

    /// Asks for what comes next, unless the client leaves too much unread.
    pub(super) fn pull_more(&self, worker: &Worker) {
        let mut pulls = Vec::new();
        {
            let mut state = self.state.borrow_mut();
            if state.watches.is_empty() || state.is_full() {
                return;
            }
            let connection = self.id;
            for watch in state.watches.list.iter_mut().filter(|w| matches!(w.stage, Stage::Running)) {
                for group in std::mem::take(&mut watch.idle) {
                    let after = Some(watch.position.revisions[watch.place(group)]);
                    let since = Since { after, prefix: watch.prefix.clone(), max_bytes: PULL_BYTES };
                    let token = Token { connection, request: watch.number };
                    pulls.push(Pull { token, group, since, wait: true });
                }
            }
        }
        pulls.into_iter().for_each(|pull| worker.pull(pull));
    }

    /// Ends all watches: the client is gone, has asked for it, or cannot go on.
    pub fn unwatch(&self, worker: &Worker) {
        let ended = std::mem::take(&mut self.state.borrow_mut().watches.list);
        if !ended.is_empty() {
            worker.unwatch(self.id, None);
        }
    }
}

/// What there is to tell of an answer to a watch that runs, or why it ends.
fn running(
    watch: &mut Watch,
    group: GroupId,
    result: Result<Outcome, crate::node::requests::Refusal>,
) -> Result<Vec<Reply>, ErrorReply> {
    match result {
        Ok(Outcome::Changes { changes, through }) => {
            let mut replies: Vec<Reply> =
                changes.into_iter().map(|change| watch.event(group, change)).collect();
            let place = watch.place(group);
            watch.position.revisions[place] = through;
            watch.idle.push(group);
            if !replies.is_empty() {
                watch.told = Instant::now();
            } else if watch.told.elapsed() >= PROGRESS {
                watch.told = Instant::now();
                replies.push(watch.progress());
            }
            Ok(replies)
        }
        Ok(Outcome::Compacted { min }) => Err(ErrorReply::compacted(
            min,
            group,
            format_args!(
                "the watch of '{}' was too slow and ends; everything before token={} was told; read the keys with \
                 PREFIX and watch anew",
                quoted(&watch.prefix),
                watch.position.to_text()
            ),
        )),
        Ok(_) => Err(ErrorReply::try_again(group, "gave an answer that is none; the watch ends")),
        Err(_) => Err(ErrorReply::busy(format_args!(
            "this node watches too much; the watch of '{}' ends at token={}",
            quoted(&watch.prefix),
            watch.position.to_text()
        ))),
    }
}
