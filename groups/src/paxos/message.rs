//! What replicas of one group say to each other.
//!
//! Every message belongs to one group and travels in a frame tagged with it. All of them may be
//! lost, repeated or overtaken; each handler says why that is harmless.

use bytes::Bytes;

use super::quorum::Members;
use crate::ids::{Ballot, Boot, InstanceId, NodeId, StorageId};
use crate::kv::Point;
use crate::peers::Tenure;
use crate::time::Time;

/// How far the sender's chosen prefix reaches, and the chained checksum of every value in it.
/// Two replicas with equal instances and different chains have diverged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// The last instance of the chosen prefix.
    pub instance: InstanceId,
    /// The chained checksum at that instance.
    pub chain: u64,
}

/// One accepted value as an acceptor reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The instance it was accepted in.
    pub instance: InstanceId,
    /// The ballot it was accepted at.
    pub ballot: Ballot,
    /// The value.
    pub value: Bytes,
}

/// Would you vote for me? Asked before a ballot is raised, so that a node that was cut off does
/// not drive the ballots up when it comes back (Ongaro, "Consensus", section 9.6, pre-vote).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Tells the rounds of one candidate apart.
    pub attempt: u64,
    /// The end of the candidate's chosen prefix.
    pub chosen: InstanceId,
    /// The sender's life.
    pub life: Boot,
    /// That life leads at no ballot up to this one, and never will again: no lease of its binds anybody
    /// to them.
    pub renounced: Ballot,
}

/// The answer to a [`Probe`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeReply {
    /// The attempt it answers.
    pub attempt: u64,
    /// No live leader is known here: go ahead.
    pub granted: bool,
    /// The highest ballot promised here; the candidate goes above it.
    pub promised: Ballot,
    /// The sender's life.
    pub life: Boot,
    /// As in [`Probe`]; zero when the sender leads or stands for election.
    pub renounced: Ballot,
}

/// Phase 1a over the open range: one for all instances from `from` on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepare {
    /// The candidate's ballot, durable at the candidate before this left it.
    pub ballot: Ballot,
    /// The candidate's first instance that it does not know to be chosen.
    pub from: InstanceId,
    /// The leader at this very ballot asked for this and has given up its lease for good: neither that
    /// lease nor loyalty to that leader stands in the way. Zero: nobody asked.
    pub consent: Ballot,
}

/// Phase 1b: leaves only once the promise is on the disk. Split into parts that fit a frame; a
/// promise counts when all its parts have come (a truncated report is no promise).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promise {
    /// The promised ballot.
    pub ballot: Ballot,
    /// The disk that has it: the promise counts if that disk is a member.
    pub voter: StorageId,
    /// The last change of members in this acceptor's chosen prefix. A candidate that does not know
    /// of it does not know whose promises it needs.
    pub changed: InstanceId,
    /// The end of this acceptor's chosen prefix. Everything up to it is chosen and is learned,
    /// not proposed again.
    pub chosen: InstanceId,
    /// Number of this part, from 0.
    pub part: u32,
    /// How many parts there are.
    pub parts: u32,
    /// Everything accepted here beyond `chosen`.
    pub entries: Vec<Entry>,
}

/// Phase 2a.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accept {
    /// The leader's ballot.
    pub ballot: Ballot,
    /// The instance.
    pub instance: InstanceId,
    /// The leader's chosen prefix.
    pub mark: Mark,
    /// The value.
    pub value: Bytes,
}

/// Phase 2b for a run of instances: leaves only once all of them are on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The ballot they were accepted at.
    pub ballot: Ballot,
    /// The disk that has them: the vote counts if that disk is a member.
    pub voter: StorageId,
    /// First of the run.
    pub first: InstanceId,
    /// Last of the run.
    pub last: InstanceId,
    /// The end of the sender's chosen prefix.
    pub chosen: InstanceId,
}

/// A higher ballot was promised here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    /// The ballot that was refused.
    pub refused: Ballot,
    /// The one that stands in its way.
    pub promised: Ballot,
}

/// The leader's word to a follower: I lead at this ballot, this much is chosen, and, with a
/// barrier, "is that still so?". Sent when there is something to say, never by an idle group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advance {
    /// The leader's ballot.
    pub ballot: Ballot,
    /// The leader's chosen prefix.
    pub mark: Mark,
    /// Numbers the read barriers of one leadership; 0 asks for none.
    pub barrier: u64,
    /// When the receiver asked, on its own clock: everything acknowledged before that lies in the mark.
    /// Zero says nothing.
    pub asked: Time,
    /// The receiver's life that asked.
    pub life: Boot,
}

impl Advance {
    /// A word that answers no [`Ask`].
    #[must_use]
    pub fn new(ballot: Ballot, mark: Mark, barrier: u64) -> Advance {
        Advance { ballot, mark, barrier, asked: Time::ZERO, life: Boot(0) }
    }
}

/// A follower wants to know how far it may be behind, for a read that need not be the newest. It
/// asks again when it still wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The life that asks.
    pub life: Boot,
    /// When it asks, on its own clock.
    pub sent: Time,
}

/// The answer to an [`Advance`]: nothing above its ballot is promised here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdvanceReply {
    /// The leader's ballot.
    pub ballot: Ballot,
    /// The disk whose promise stands behind the answer.
    pub voter: StorageId,
    /// The end of the sender's chosen prefix.
    pub chosen: InstanceId,
    /// The barrier it answers.
    pub barrier: u64,
    /// How often groups of the sender's shard had left a leader on the receiver by then.
    pub tenure: Tenure,
}

/// Asks for chosen values: opens a session, acknowledges, grants credit, or ends the session, and
/// says the whole of it each time, so that any of them may be lost or repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Learn {
    /// The learner's number for the session; rises with each one and with each life.
    pub session: u64,
    /// The first one wanted: everything before it is durable at the learner.
    pub from: InstanceId,
    /// Bytes of values that may be under way from there on; one value always may. 0 ends the
    /// session.
    pub credit: u32,
}

/// Chosen values in order, without gaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Values {
    /// The session they belong to.
    pub session: u64,
    /// The instance of the first value; without values, of the next that will come.
    pub first: InstanceId,
    /// What follows.
    pub then: Then,
    /// The values.
    pub entries: Vec<Entry>,
}

/// What follows on [`Values`] in their session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// More, as far as the credit goes. Without values: the sender is still at it.
    More,
    /// Nothing: the sender has no more, and has forgotten the session.
    End,
    /// Nothing: the sender's log begins only with this instance, what lies before it is in the
    /// checkpoint.
    Begins(InstanceId),
}

/// The leader at `ballot` asks the receiver to take over now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// The leader's ballot; a late copy from an older leadership is ignored.
    pub ballot: Ballot,
}

/// The leader's word to a replica that is no member any more and shall be none: a majority of the
/// members has everything up to the change that took it out, so nobody needs it, and it may forget
/// the group. At a lower ballot than the receiver has promised it is a late copy, and is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The leader's ballot, raised after that change was chosen.
    pub ballot: Ballot,
    /// The leader's chosen prefix.
    pub mark: Mark,
    /// The members that decide what lies behind it.
    pub members: Members,
}

/// What a follower's state was at the newest check: to the leader, which compares. True of the
/// sender's memory only, so it may leave at once; a lost one is made good by the next check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The sum of the state there.
    pub point: Point,
}

/// A message between two replicas of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each struct carries its own documentation")]
pub enum Message {
    Probe(Probe),
    ProbeReply(ProbeReply),
    Prepare(Prepare),
    Promise(Promise),
    Accept(Accept),
    Accepted(Accepted),
    Reject(Reject),
    Advance(Advance),
    AdvanceReply(AdvanceReply),
    Learn(Learn),
    Values(Values),
    Transfer(Transfer),
    Report(Report),
    Ask(Ask),
    Part(Part),
}

impl Message {
    /// Whether it may take the slow lane: nothing that a quorum waits for does.
    #[must_use]
    pub fn is_bulk(&self) -> bool {
        matches!(self, Message::Values(_))
    }

    /// The message's name in transcripts and logs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Message::Probe(_) => "Probe",
            Message::ProbeReply(_) => "ProbeReply",
            Message::Prepare(_) => "Prepare",
            Message::Promise(_) => "Promise",
            Message::Accept(_) => "Accept",
            Message::Accepted(_) => "Accepted",
            Message::Reject(_) => "Reject",
            Message::Advance(_) => "Advance",
            Message::AdvanceReply(_) => "AdvanceReply",
            Message::Learn(_) => "Learn",
            Message::Values(_) => "Values",
            Message::Transfer(_) => "Transfer",
            Message::Report(_) => "Report",
            Message::Ask(_) => "Ask",
            Message::Part(_) => "Part",
        }
    }
}

/// A message on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The receiver; the sender itself for its own votes, which wait for its own disk.
    pub to: NodeId,
    /// The group.
    pub group: crate::ids::GroupId,
    /// What is said.
    pub message: Message,
}
