//! Fetches one group's state, as it was at one instance, from the mirror of any of its members.
//!
//! It is the transfer between two mirrors (see `checkpoint::mirror`) with a file in the place of the
//! receiver's store: `ADMIN IMAGE group frame` asks for one frame and is answered by one. What
//! comes is a state only once all its entries hash to what the group itself has noted at that
//! instance; the file gets its name only then. A transfer that is broken goes on behind the last
//! entry, at the same node or another one that stands at the same instance, and begins again where
//! none does.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use checkpoint::Entry;
use checkpoint::format::{FormatError, Header, StagedFile, Summary};
use checkpoint::mirror::FETCH;
use checkpoint::mirror::wire::{Attempt, Fetch, Frame, Has, Until, Why};
use checkpoint::store::{MAX_SESSIONS, Position, PositionDigest};
use groups::ids::{Boot, ClusterId, GroupId, InstanceId};

use super::{Client, ClientError, Options};
use crate::protocol::Reply;

/// A member of the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The node.
    pub node: u32,
    /// Where it takes clients.
    pub address: String,
}

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The cluster.
    pub cluster: ClusterId,
    /// The group.
    pub group: GroupId,
    /// The state must have this instance.
    pub least: InstanceId,
    /// Whom to ask, in this order, and over again.
    pub sources: Vec<Source>,
}

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Nothing has come for so long.
    #[error("nothing came for {} s: {why}", .after.as_secs())]
    Stalled {
        /// What was last in the way.
        why: String,
        /// How long.
        after: Duration,
    },
    /// The file.
    #[error("the file cannot be written: {0}")]
    File(#[from] FormatError),
    /// An address or a password that will not do.
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// Without any progress for so long it is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two questions where the answer was "not yet".
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Tells the questions of this run from those of others.
#[derive(Debug)]
pub struct Reader {
    options: Options,
    run: Boot,
    tries: u64,
}

impl Reader {
    /// One run; `run` is a number that no other run has.
    #[must_use]
    pub fn new(options: Options, run: u64) -> Reader {
        Reader { options: Options { once: true, ..options }, run: Boot(run), tries: 0 }
    }

    /// Writes the group's state into `path`, verified and synced. `told` hears how many keys and
    /// bytes have come, and of how many.
    ///
    /// # Errors
    /// When there is no state to be had, or the file cannot be written.
    pub fn fetch(
        &mut self,
        wanted: &Wanted,
        path: &Path,
        told: &mut dyn FnMut(Told),
    ) -> Result<(Summary, u32), ImageError> {
        let mut taking = Taking::new(wanted, path);
        let (mut moved, mut pause, mut source) = (Instant::now(), FIRST_PAUSE, 0);
        loop {
            let before = taking.steps;
            let at = &wanted.sources[source % wanted.sources.len()];
            let why = match self.try_source(at, &mut taking, told)? {
                End::Complete(summary) => return Ok((*summary, at.node)),
                End::Later(why) => why,
                End::Elsewhere(why) => {
                    source += 1;
                    why
                }
            };
            if taking.steps > before {
                (moved, pause) = (Instant::now(), FIRST_PAUSE);
            }
            if moved.elapsed() >= PATIENCE {
                let why = format!("node {} ({}): {why}", at.node, at.address);
                return Err(ImageError::Stalled { why, after: moved.elapsed() });
            }
            thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// One try at one node: a question after the other until there is nothing more to ask it.
    fn try_source(
        &mut self,
        source: &Source,
        taking: &mut Taking<'_>,
        told: &mut dyn FnMut(Told),
    ) -> Result<End, ImageError> {
        let mut client = match Client::connect(std::slice::from_ref(&source.address), self.options.clone()) {
            Ok(client) => client,
            Err(error @ (ClientError::BadAddress { .. } | ClientError::Password { .. })) => {
                return Err(error.into());
            }
            Err(error) => return Ok(End::Elsewhere(error.to_string())),
        };
        self.tries += 1;
        let attempt = Attempt { boot: self.run, count: self.tries };
        let mut next = 0;
        loop {
            let (frame, end) = match ask(&mut client, taking.wanted, taking.question(attempt, next, 1)) {
                Ok(Frame::Nothing(nothing)) => return Ok(refused(nothing.why)),
                Ok(frame) => {
                    let end = taking.take(frame, next)?;
                    next += 1;
                    told(taking.told());
                    (attempt, end)
                }
                Err(end) => return Ok(end),
            };
            match end {
                None => {}
                Some(end) => {
                    // So that the group's mirror goes on at once. It would in any case.
                    let _ = ask(&mut client, taking.wanted, taking.question(frame, next, 0));
                    return Ok(end);
                }
            }
        }
    }
}

/// How far a transfer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Keys that have come.
    pub keys: u64,
    /// Keys of the whole state; 0 while unknown.
    pub all: u64,
}

/// How a try ends.
#[derive(Debug)]
enum End {
    Complete(Box<Summary>),
    /// The same node may have it soon.
    Later(String),
    Elsewhere(String),
}

fn refused(why: Why) -> End {
    match why {
        Why::Behind => End::Later("its mirror is not yet at the instance that is wanted".to_owned()),
        Why::Soon => End::Later("it is at the limit of checkpoint.transfer_bytes_per_sec".to_owned()),
        Why::Busy => End::Later("it has as many readers as it takes".to_owned()),
        Why::Damaged => End::Elsewhere("its mirror is damaged and being built anew".to_owned()),
        Why::Foreign => End::Elsewhere("it belongs to another cluster".to_owned()),
    }
}

/// Asks for one frame.
fn ask(client: &mut Client, wanted: &Wanted, fetch: Fetch) -> Result<Frame, End> {
    let (kind, body) = Frame::Fetch(fetch).encode();
    debug_assert_eq!(kind, FETCH);
    let group = wanted.group.to_string();
    let reply = client.call(&[b"ADMIN", b"IMAGE", group.as_bytes(), &body]);
    let strange = || End::Elsewhere("it answered with something that is no checkpoint".to_owned());
    match reply.map_err(|error| End::Elsewhere(error.to_string()))? {
        Reply::Error(error) => Err(End::Later(error.to_string())),
        Reply::Array(parts) => match &parts[..] {
            [Reply::Integer(kind), Reply::Bulk(body)] => {
                let kind = u8::try_from(*kind).map_err(|_| strange())?;
                Frame::decode(kind, body).map_err(|_| strange())
            }
            _ => Err(strange()),
        },
        _ => Err(strange()),
    }
}

/// What has come of a state.
struct Taking<'a> {
    wanted: &'a Wanted,
    path: &'a Path,
    head: Option<PartialHead>,
    file: Option<(StagedFile, PositionDigest)>,
    all: u64,
    /// The last file was not what it should be.
    doubt: bool,
    /// Frames that were of use.
    steps: u64,
}

/// A state whose session table has come in part.
struct PartialHead {
    position: Position,
    digest: PositionDigest,
    sessions: Vec<u8>,
}

impl<'a> Taking<'a> {
    fn new(wanted: &'a Wanted, path: &'a Path) -> Taking<'a> {
        Taking { wanted, path, head: None, file: None, all: 0, doubt: false, steps: 0 }
    }

    fn told(&self) -> Told {
        Told { keys: self.file.as_ref().map_or(0, |(file, _)| file.progress().entries), all: self.all }
    }

    fn question(&self, attempt: Attempt, next: u32, credit: u32) -> Fetch {
        let has = match (&self.head, &self.file) {
            (Some(head), _) => {
                Some(Has { digest: head.digest, until: Until::Sessions(head.sessions.len() as u32) })
            }
            (None, Some((file, digest))) => {
                Some(Has { digest: *digest, until: Until::Key(file.progress().last_key.clone()) })
            }
            (None, None) => None,
        };
        let above = InstanceId(self.wanted.least.0.saturating_sub(1));
        Fetch { attempt, cluster: self.wanted.cluster, above, next, credit, doubt: self.doubt, has }
    }

    /// Takes a frame in. `Some` when the try is over.
    fn take(&mut self, frame: Frame, next: u32) -> Result<Option<End>, ImageError> {
        let strange = |what: &str| Ok(Some(End::Elsewhere(what.to_owned())));
        match frame {
            Frame::Head(head) => {
                if head.cluster != self.wanted.cluster || head.sequence != next {
                    return strange("it answered for something else");
                }
                let total = head.sessions_bytes as usize;
                if head.offset == 0 {
                    self.file = None;
                    self.head = Some(PartialHead {
                        position: head.position,
                        digest: head.digest,
                        sessions: Vec::new(),
                    });
                }
                let fits = |part: &PartialHead| {
                    part.digest == head.digest
                        && part.sessions.len() == head.offset as usize
                        && part.sessions.len() + head.piece.len() <= total.min(MAX_SESSIONS)
                };
                let Some(mut part) = self.head.take().filter(fits) else {
                    return strange("its session table came in pieces that do not fit");
                };
                self.steps += 1;
                part.sessions.extend_from_slice(&head.piece);
                if part.sessions.len() < total {
                    self.head = Some(part);
                    return Ok(None);
                }
                self.begin(part)
            }
            Frame::Chunk(chunk) => {
                let Some((file, digest)) = &mut self.file else {
                    return strange("entries came before their state");
                };
                if chunk.digest != *digest || chunk.sequence != next {
                    return strange("it answered for something else");
                }
                self.all = chunk.total_keys;
                append(file, &chunk.entries)?;
                self.steps += 1;
                if !chunk.last {
                    return Ok(None);
                }
                let Some((file, _)) = self.file.take() else { return Ok(None) };
                match file.commit() {
                    Ok(summary) => Ok(Some(End::Complete(Box::new(summary)))),
                    Err(FormatError::NotThatState { promised, found }) => {
                        self.doubt = true;
                        strange(&format!("what it sent hashes to {found}, its group has noted {promised}"))
                    }
                    Err(error) => Err(error.into()),
                }
            }
            Frame::Fetch(_) | Frame::Nothing(_) => strange("it answered with a question"),
        }
    }

    /// The head is whole: the file begins.
    fn begin(&mut self, head: PartialHead) -> Result<Option<End>, ImageError> {
        let PartialHead { position, digest, sessions } = head;
        if PositionDigest::of(&position, &sessions) != digest {
            return Ok(Some(End::Elsewhere("the head of its state is damaged".to_owned())));
        }
        if position.applied < self.wanted.least {
            return Ok(Some(End::Later("its mirror is not yet at the instance that is wanted".to_owned())));
        }
        let (cluster, group) = (self.wanted.cluster, self.wanted.group);
        let header = Header { cluster, group, position, sessions: Bytes::from(sessions) };
        self.file = Some((StagedFile::create(self.path, &header.encode()?)?, digest));
        Ok(None)
    }
}

/// Entries of a frame keep all of it in memory: a chunk is written before the next one comes.
fn append(file: &mut StagedFile, entries: &[Entry]) -> Result<(), FormatError> {
    if entries.is_empty() { Ok(()) } else { file.append(entries) }
}
