//! The receiving side: which groups are fetched, from whom, and what has come.

use std::time::Duration;

use bytes::Bytes;
use groups::ids::{GroupId, InstanceId, NodeId};
use groups::time::Time;

use super::wire::{Attempt, Chunk, Fetch, Frame, Has, Head, Nothing, Until, Why};
use super::{Direction, Event, Mirror, Transfer};
use crate::entry::{Entry, Generation};
use crate::store::{MAX_SESSIONS, Position, PositionDigest, StoreError};

/// So many tries without an answer, and another source is asked.
const SILENT_TRIES: u32 = 3;

/// The longest pause between rounds over all sources, in retries: 2 to this power.
const BACKOFF: u32 = 4;

/// What has come of a state is put into the store after this at the latest: so much of a transfer
/// is lost with the process.
pub const STAGE_AFTER: Duration = Duration::from_secs(1);

/// A group that is to be fetched.
#[derive(Debug)]
pub(super) struct Incoming {
    above: InstanceId,
    sources: Vec<NodeId>,
    /// Whose turn it is.
    source: usize,
    /// Sources that have refused or kept silent since the last progress.
    failed: usize,
    /// Rounds over all sources without progress.
    rounds: u32,
    /// What came before did not hash to what was promised.
    doubt: bool,
    /// Waits until then.
    not_before: Time,
    /// Its place in the queue.
    place: u64,
    active: Option<Try>,
    /// What has come of the session table of a state that is not staged yet; outlives a try.
    head: Option<PartialHead>,
    started: Time,
    bytes: u64,
    keys: u64,
    expected: u64,
}

/// A try that is going on.
#[derive(Debug)]
struct Try {
    attempt: Attempt,
    source: NodeId,
    next: u32,
    /// The first number beyond the credit that was given.
    limit: u32,
    /// Bytes of frames that came since the sender was last told.
    untold: usize,
    deadline: Time,
    /// Tries without any answer, this one included.
    silent: u32,
    staged: Option<InStore>,
}

/// A state whose session table has come in part.
#[derive(Debug)]
struct PartialHead {
    position: Position,
    digest: PositionDigest,
    total: usize,
    /// Grows as pieces come, to at most `MAX_SESSIONS`.
    sessions: Vec<u8>,
}

/// A state that is being staged in the store.
#[derive(Debug)]
struct InStore {
    generation: Generation,
    digest: PositionDigest,
    /// Of what has come, whether it is in the store or waits.
    last_key: Option<Bytes>,
    /// What has come and is not in the store yet; frames are kept alive by it.
    waits: Vec<Entry>,
    waits_bytes: usize,
    waits_since: Time,
}

impl InStore {
    fn new(generation: Generation, digest: PositionDigest, last_key: Option<Bytes>) -> InStore {
        InStore { generation, digest, last_key, waits: Vec::new(), waits_bytes: 0, waits_since: Time::ZERO }
    }
}

impl Incoming {
    pub(super) fn transfer(&self, group: GroupId) -> Transfer {
        let peer = self.active.as_ref().map_or(NodeId(0), |active| active.source);
        let Incoming { bytes, keys, expected, started, .. } = *self;
        Transfer { group, peer, direction: Direction::In, bytes, expected, keys, started }
    }

    fn has(&self) -> Option<Has> {
        if let Some(head) = self.head.as_ref().filter(|head| !head.sessions.is_empty()) {
            let until = Until::Sessions(head.sessions.len() as u32);
            return Some(Has { digest: head.digest, until });
        }
        let staged = self.active.as_ref()?.staged.as_ref()?;
        Some(Has { digest: staged.digest, until: Until::Key(staged.last_key.clone()) })
    }

    /// Beyond which instance it is wanted, and from whom.
    pub(super) fn wanted(self) -> (InstanceId, Vec<NodeId>) {
        (self.above, self.sources)
    }

    fn progress(&mut self) {
        (self.failed, self.rounds) = (0, 0);
    }
}

impl Mirror {
    /// Fetches a checkpoint of a group beyond `above` from the first of `sources` that has one;
    /// after silence or a refusal from the next, and so on until it is there
    /// ([`Event::Installed`]) or cancelled. Called again, it takes over the new list. Tries at
    /// most `max_incoming` groups at once.
    pub fn want(&mut self, group: GroupId, above: InstanceId, sources: Vec<NodeId>, now: Time) {
        self.now = now;
        if self.poisoned.is_some() {
            return;
        }
        if let Some(incoming) = self.incoming.get_mut(&group) {
            incoming.above = above;
            let current = incoming.active.as_ref().map(|active| active.source);
            let kept = current.and_then(|node| sources.iter().position(|&source| source == node));
            incoming.source = kept.unwrap_or(0);
            if incoming.sources.is_empty() && !sources.is_empty() {
                incoming.not_before = now;
            }
            incoming.sources = sources;
            self.drop_outdated(group, above);
        } else {
            self.queued += 1;
            let incoming = Incoming {
                above,
                sources,
                source: 0,
                failed: 0,
                rounds: 0,
                doubt: false,
                not_before: now,
                place: self.queued,
                active: None,
                head: None,
                started: now,
                bytes: 0,
                keys: 0,
                expected: 0,
            };
            self.incoming.insert(group, incoming);
        }
        self.start_waiting();
    }

    /// A checkpoint that does not reach beyond what is wanted now is not worth its end.
    fn drop_outdated(&mut self, group: GroupId, above: InstanceId) {
        let staging = self.store.staging(group).ok().flatten();
        if staging.is_some_and(|staging| staging.promised.applied <= above) {
            // The next try finds it too old and gives it up.
            self.restage(group);
        }
    }

    /// The group is not to be fetched any more; what was staged of it is given up.
    pub fn cancel(&mut self, group: GroupId) {
        if self.poisoned.is_some() {
            return;
        }
        if let Some(incoming) = self.incoming.remove(&group) {
            self.part(group, incoming.active.as_ref());
        }
        self.garbage = true;
        match self.store.abandon(group) {
            Ok(()) => {}
            Err(error) => self.failed(group, error),
        }
        self.start_waiting();
    }

    pub(super) fn fetches(&self, group: GroupId) -> bool {
        self.incoming.contains_key(&group)
    }

    /// Tells a sender that it may let go.
    fn part(&mut self, group: GroupId, active: Option<&Try>) {
        if let Some(active) = active {
            self.fetch(group, active.source, active.attempt, 0, 0);
        }
    }

    fn fetch(&mut self, group: GroupId, to: NodeId, attempt: Attempt, next: u32, credit: u32) {
        let incoming = self.incoming.get(&group);
        let has = incoming.and_then(Incoming::has);
        let fetch = Fetch {
            attempt,
            cluster: self.config.cluster,
            above: incoming.map_or(InstanceId::ZERO, |incoming| incoming.above),
            next,
            credit,
            doubt: incoming.is_some_and(|incoming| incoming.doubt),
            has,
        };
        self.send(to, group, &Frame::Fetch(fetch));
    }

    /// Begins with the groups that have waited longest, as far as there is room.
    pub(super) fn start_waiting(&mut self) {
        while self.poisoned.is_none() {
            let active = self.incoming.values().filter(|incoming| incoming.active.is_some()).count();
            if active >= self.config.max_incoming {
                return;
            }
            let waiting = self.incoming.iter().filter(|(_, incoming)| {
                incoming.active.is_none() && incoming.not_before <= self.now && !incoming.sources.is_empty()
            });
            let next = waiting.min_by_key(|(_, incoming)| incoming.place);
            let Some((&group, _)) = next else { return };
            self.begin_try(group, 1);
        }
    }

    /// Asks the source whose turn it is, from where the store has come.
    fn begin_try(&mut self, group: GroupId, silent: u32) {
        if !self.stage_waiting(group) {
            return;
        }
        let staged = match self.staged(group) {
            Ok(staged) => staged,
            Err(error) => {
                self.failed(group, error);
                None
            }
        };
        let Some(incoming) = self.incoming.get_mut(&group) else { return };
        let Some(&source) = incoming.sources.get(incoming.source) else { return };
        self.attempts += 1;
        let attempt = Attempt { boot: self.config.boot, count: self.attempts };
        let limit = self.config.window;
        let deadline = self.now + self.config.retry;
        let (next, untold) = (0, 0);
        incoming.active = Some(Try { attempt, source, next, limit, untold, deadline, silent, staged });
        self.fetch(group, source, attempt, 0, limit);
    }

    /// What the store has staged of the group, as far as it is of use.
    fn staged(&mut self, group: GroupId) -> Result<Option<InStore>, StoreError> {
        let at = self.store.position(group)?.unwrap_or_default().applied;
        let Some(incoming) = self.incoming.get_mut(&group) else { return Ok(None) };
        incoming.above = incoming.above.max(at);
        let Some(staging) = self.store.staging(group)? else { return Ok(None) };
        if staging.promised.applied <= incoming.above {
            self.garbage = true;
            self.store.abandon(group)?;
            return Ok(None);
        }
        incoming.keys = staging.entries;
        let digest = staging.digest();
        Ok(Some(InStore::new(staging.generation, digest, staging.last_key)))
    }

    /// The staged state of the group is gone from the store: it is fetched from the start.
    pub(super) fn restage(&mut self, group: GroupId) {
        let now = self.now;
        self.attempts += 1;
        let unknown = Attempt { boot: self.config.boot, count: self.attempts };
        if let Some(active) = self.active(group) {
            (active.staged, active.deadline) = (None, now);
            // Nothing that is on its way is taken any more.
            active.attempt = unknown;
        }
    }

    pub(super) fn retry_silent(&mut self) {
        let due = self.incoming.iter().filter(|(_, incoming)| {
            incoming.active.as_ref().is_some_and(|active| active.deadline <= self.now)
        });
        let due: Vec<GroupId> = due.map(|(&group, _)| group).collect();
        for group in due {
            if self.poisoned.is_some() {
                return;
            }
            let silent = self.active(group).map_or(0, |active| active.silent);
            if silent >= SILENT_TRIES {
                if self.stage_waiting(group) {
                    self.next_source(group);
                }
            } else {
                self.begin_try(group, silent + 1);
            }
        }
    }

    /// This source has nothing or says nothing. After a round over all of them the group goes
    /// to the end of the queue, so that one that nobody has keeps no other waiting.
    fn next_source(&mut self, group: GroupId) {
        let Some(incoming) = self.incoming.get_mut(&group) else { return };
        let left = incoming.active.take();
        incoming.failed += 1;
        incoming.source = (incoming.source + 1) % incoming.sources.len().max(1);
        if incoming.failed >= incoming.sources.len() {
            incoming.failed = 0;
            // What waits holds nothing.
            incoming.head = None;
            incoming.not_before = self.now + self.config.retry * (1 << incoming.rounds.min(BACKOFF));
            incoming.rounds += 1;
            self.queued += 1;
            incoming.place = self.queued;
            self.part(group, left.as_ref());
            self.start_waiting();
        } else {
            self.part(group, left.as_ref());
            self.begin_try(group, 1);
        }
    }

    /// Whether a frame is the one that is waited for.
    fn expects(&mut self, from: NodeId, group: GroupId, attempt: Attempt, sequence: u32) -> bool {
        let soon = self.now + self.config.retry / 8;
        let Some(incoming) = self.incoming.get_mut(&group) else {
            // A sender that has not heard the end is told again.
            self.fetch(group, from, attempt, 0, 0);
            return false;
        };
        let Some(active) = incoming.active.as_mut() else { return false };
        if (active.source, active.attempt) != (from, attempt) {
            return false;
        }
        if sequence > active.next {
            // What is between may still come, but rarely does.
            active.deadline = active.deadline.min(soon);
        }
        sequence == active.next
    }

    /// The try that is going on.
    fn active(&mut self, group: GroupId) -> Option<&mut Try> {
        self.incoming.get_mut(&group)?.active.as_mut()
    }

    pub(super) fn on_head(&mut self, from: NodeId, group: GroupId, head: Head, size: usize) {
        let cluster = self.config.cluster;
        if !self.expects(from, group, head.attempt, head.sequence) {
            return;
        }
        if head.cluster != cluster {
            return self.next_source(group);
        }
        let Some(incoming) = self.incoming.get_mut(&group) else { return };
        if head.offset == 0 {
            let (position, digest) = (head.position, head.digest);
            let (total, sessions) = (head.sessions_bytes as usize, Vec::new());
            incoming.head = Some(PartialHead { position, digest, total, sessions });
            if let Some(active) = incoming.active.as_mut() {
                active.staged = None;
            }
        }
        let fits = incoming.head.as_ref().is_some_and(|partial| {
            let told = (partial.digest, partial.total, partial.sessions.len());
            told == (head.digest, head.sessions_bytes as usize, head.offset as usize)
        });
        let Some(partial) = incoming.head.as_mut().filter(|_| fits) else {
            incoming.head = None;
            return self.next_source(group);
        };
        partial.sessions.extend_from_slice(&head.piece);
        assert!(partial.sessions.len() <= MAX_SESSIONS, "the decoder bounds it");
        if partial.sessions.len() == partial.total {
            let Some(whole) = incoming.head.take() else { return };
            if !self.begin_staging(group, whole) {
                return;
            }
        }
        self.took(group, size);
    }

    /// Begins a new generation for a state of which everything but the entries is known.
    fn begin_staging(&mut self, group: GroupId, head: PartialHead) -> bool {
        let Some(incoming) = self.incoming.get_mut(&group) else { return false };
        let honest = PositionDigest::of(&head.position, &head.sessions) == head.digest;
        if !honest || head.position.applied <= incoming.above {
            self.next_source(group);
            return false;
        }
        (incoming.keys, incoming.bytes) = (0, 0);
        self.garbage = true;
        match self.store.begin_generation(group, head.position, head.sessions.into()) {
            Ok(generation) => {
                let staged = InStore::new(generation, head.digest, None);
                if let Some(active) = self.active(group) {
                    active.staged = Some(staged);
                }
                true
            }
            // The group's own mirror has gone beyond it meanwhile.
            Err(StoreError::OutOfOrder { .. }) => {
                self.next_source(group);
                false
            }
            Err(error) => {
                self.failed(group, error);
                false
            }
        }
    }

    pub(super) fn on_chunk(&mut self, from: NodeId, group: GroupId, chunk: Chunk, size: usize) {
        if !self.expects(from, group, chunk.attempt, chunk.sequence) {
            return;
        }
        let staged = self.active(group).and_then(|active| active.staged.as_ref());
        let staged = staged.filter(|staged| staged.digest == chunk.digest);
        let Some(generation) = staged.map(|staged| staged.generation) else { return };
        let (now, stage_bytes) = (self.now, self.config.stage_bytes);
        let came: usize = chunk.entries.iter().map(Entry::bytes).sum();
        if let Some(incoming) = self.incoming.get_mut(&group) {
            incoming.bytes += came as u64;
            incoming.keys += chunk.entries.len() as u64;
            incoming.expected = chunk.total_bytes;
        }
        let Some(staged) = self.active(group).and_then(|active| active.staged.as_mut()) else { return };
        if let (Some(first), Some(last)) = (chunk.entries.first(), chunk.entries.last()) {
            if staged.last_key.as_ref().is_some_and(|before| *before >= first.key) {
                return self.next_source(group);
            }
            // Copied: the key must not keep the frame alive.
            staged.last_key = Some(Bytes::copy_from_slice(&last.key));
            if staged.waits.is_empty() {
                staged.waits_since = now;
            }
            staged.waits.extend(chunk.entries);
            staged.waits_bytes += came;
        }
        if chunk.last {
            if self.stage_waiting(group) {
                self.install(group, generation);
            }
            return;
        }
        self.took(group, size);
        if self.waiting().map(|(bytes, _)| bytes).sum::<usize>() >= stage_bytes
            && let Some((_, fullest)) = self.waiting().max()
        {
            self.stage_waiting(fullest);
        }
    }

    /// The bytes that wait of each group.
    fn waiting(&self) -> impl Iterator<Item = (usize, GroupId)> {
        self.incoming.iter().filter_map(|(&group, incoming)| {
            let staged = incoming.active.as_ref()?.staged.as_ref()?;
            Some((staged.waits_bytes, group))
        })
    }

    /// Puts what has come of a group into the store. Says whether the transfer goes on.
    fn stage_waiting(&mut self, group: GroupId) -> bool {
        let Some(staged) = self.active(group).and_then(|active| active.staged.as_mut()) else { return true };
        let waits = std::mem::take(&mut staged.waits);
        staged.waits_bytes = 0;
        let generation = staged.generation;
        if waits.is_empty() {
            return true;
        }
        match self.store.stage(group, generation, &waits) {
            Ok(()) => return true,
            Err(StoreError::Unsorted { .. }) => self.next_source(group),
            Err(StoreError::NotStaged { .. }) => self.restage(group),
            Err(error) => {
                self.restage(group);
                self.failed(group, error);
            }
        }
        false
    }

    /// Puts into the store what has waited long enough.
    pub(super) fn stage_old(&mut self) {
        let old = |staged: &InStore| !staged.waits.is_empty() && staged.waits_since + STAGE_AFTER <= self.now;
        let due = self.incoming.iter().filter(|(_, incoming)| {
            incoming.active.as_ref().and_then(|active| active.staged.as_ref()).is_some_and(old)
        });
        let due: Vec<GroupId> = due.map(|(&group, _)| group).collect();
        for group in due {
            if self.poisoned.is_none() {
                self.stage_waiting(group);
            }
        }
    }

    /// A frame was taken: the next one is waited for, and credit renewed when half is used.
    fn took(&mut self, group: GroupId, bytes: usize) {
        let (deadline, window) = (self.now + self.config.retry, self.config.window);
        let enough = self.config.window_bytes / 4 / self.config.max_incoming;
        let Some(incoming) = self.incoming.get_mut(&group) else { return };
        incoming.progress();
        let Some(active) = incoming.active.as_mut() else { return };
        active.next = active.next.saturating_add(1);
        (active.silent, active.deadline) = (0, deadline);
        active.untold += bytes;
        if active.limit.saturating_sub(active.next) <= window / 2 || active.untold >= enough {
            active.untold = 0;
            active.limit = active.next.saturating_add(window);
            let (source, attempt, next) = (active.source, active.attempt, active.next);
            self.fetch(group, source, attempt, next, window);
        }
    }

    fn install(&mut self, group: GroupId, generation: Generation) {
        self.garbage = true;
        let mut entries = Vec::new();
        let installed = self.store.install_reading(group, generation, |entry| entries.push(entry.to_entry()));
        let image = match installed {
            Ok(image) => image,
            Err(StoreError::NotThatState { .. }) => return self.disappointed(group),
            // The group's own mirror has gone beyond it meanwhile.
            Err(StoreError::OutOfOrder { .. }) => return self.next_source(group),
            Err(StoreError::NotStaged { .. }) => return self.restage(group),
            Err(error) => return self.failed(group, error),
        };
        self.break_pause(group);
        let applied = image.position.applied;
        if let Some(incoming) = self.incoming.remove(&group) {
            self.part(group, incoming.active.as_ref());
        }
        self.events.push(Event::Installed { group, image, entries });
        self.replaced(group, applied);
        self.start_waiting();
    }

    /// Everything came, and it is not what was promised: here or there something is damaged.
    fn disappointed(&mut self, group: GroupId) {
        if let Err(error) = self.store.abandon(group) {
            return self.failed(group, error);
        }
        if let Some(incoming) = self.incoming.get_mut(&group) {
            incoming.doubt = true;
        }
        self.next_source(group);
    }

    pub(super) fn on_nothing(&mut self, from: NodeId, group: GroupId, nothing: Nothing) {
        let deadline = self.now + self.config.retry;
        let Some(incoming) = self.incoming.get_mut(&group) else { return };
        let Some(active) = incoming.active.as_mut() else { return };
        if (active.source, active.attempt) != (from, nothing.attempt) {
            return;
        }
        match nothing.why {
            Why::Soon => (active.silent, active.deadline) = (0, deadline),
            Why::Behind | Why::Damaged | Why::Busy | Why::Foreign => {
                if self.stage_waiting(group) {
                    self.next_source(group);
                }
            }
        }
    }
}
