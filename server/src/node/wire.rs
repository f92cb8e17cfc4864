//! What nodes say to each other beside Paxos: heartbeats, forwarded commands and their answers.
//!
//! ```text
//! kind 1  heartbeat   boot:u64 shard:u32 shards:u32 sent:u64 leaving:u8 lag:u32 (µs) slow:u8 roster:u64
//!                     storage:u128 opened:u64 commit:u64
//!                     knows:u8 [storage:u128 boot:u64 opened:u64 commit:u64] echo_boot:u64 n:u32 {stamp:u64}*
//!                     tenure:u64 n:u32 {granted:u64}*
//! kind 2  submit      stamp { read:u8 number:u64 behind:u32 after:u64 length:u32 command }*
//! kind 3  answer      stamp { read:u8 number:u64 reply:u8 leader:u32 length:u32 outcome }*
//!         stamp       from_boot:u64 to_boot:u64 shard:u32 sequence:u64
//! kind 4  birth       see `birth`
//! kind 5  roster      version:u64 roster, see `roster`
//! kind 8 to 11        checkpoints, see `checkpoint::mirror`
//! kind 12 trace       boot:u64 number:u64 read:u8, see `trace`
//! kind 13 watch       instance:u64
//! kind 14 seen        instance:u64 taken:u64 (ns) disk:u64 (ns)
//! kind 15 traced      boot:u64 number:u64 read:u8 { node:u32 kind:u8 peer:u32 took:u64 (ns) amount:u64 }*
//! kind 16 and up      Paxos messages, see `groups::paxos::codec`
//! ```
//! All numbers little-endian. The sender's node is the link's, never the frame's.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use groups::group::{Answer, Reply, Submission};
use groups::ids::{Boot, CommitId, GroupId, NodeId, StorageId};
use groups::kv::command::{put_sized, take_sized};
use groups::kv::{Outcome, Ticket};
use groups::peers::{Heartbeat, MAX_SHARDS, Memory, Tenure};
use groups::time::Time;

use super::roster::Roster;

/// A heartbeat between shards.
pub const HEARTBEAT: u8 = 1;
/// Commands for the leader of a group.
pub const SUBMIT: u8 = 2;
/// Answers to them.
pub const ANSWER: u8 = 3;
/// A word of the birth.
pub const BIRTH: u8 = 4;
/// The newest list of nodes and their groups, for a node that has an older one.
pub const ROSTER: u8 = 5;
/// A request that is about to come is traced.
pub const TRACE: u8 = 12;
/// The Accept of an instance that is about to come is traced.
pub const WATCH: u8 = 13;
/// How long a member took for such an instance.
pub const SEEN: u8 = 14;
/// The leader's account of a traced request.
pub const TRACED: u8 = 15;

/// Bytes of a submission or answer before its command or outcome, at most.
const ITEM_HEAD: usize = 25;

/// Encodes a heartbeat.
pub fn encode_heartbeat(beat: &Heartbeat, out: &mut Vec<u8>) {
    out.put_u64_le(beat.boot.0);
    out.put_u32_le(beat.shard);
    out.put_u32_le(beat.shards);
    out.put_u64_le(beat.sent.nanos());
    out.put_u8(u8::from(beat.leaving));
    out.put_u32_le(u32::try_from(beat.lag.as_micros()).unwrap_or(u32::MAX));
    out.put_u8(u8::from(beat.slow));
    out.put_u64_le(beat.roster);
    out.put_u128_le(beat.storage.0);
    out.put_u64_le(beat.opened.0);
    out.put_u64_le(beat.commit.0);
    out.put_u8(u8::from(beat.known.is_some()));
    if let Some(known) = &beat.known {
        out.put_u128_le(known.storage.0);
        out.put_u64_le(known.boot.0);
        out.put_u64_le(known.opened.0);
        out.put_u64_le(known.commit.0);
    }
    out.put_u64_le(beat.echo_boot.0);
    out.put_u32_le(beat.echoes.len() as u32);
    for echo in &beat.echoes {
        out.put_u64_le(echo.nanos());
    }
    out.put_u64_le(beat.tenure.0);
    out.put_u32_le(beat.grants.len() as u32);
    for from in &beat.grants {
        out.put_u64_le(from.nanos());
    }
}

/// Decodes a heartbeat; `None` when the bytes are no heartbeat.
#[must_use]
pub fn decode_heartbeat(mut body: Bytes) -> Option<Heartbeat> {
    let boot = Boot(body.try_get_u64_le().ok()?);
    let shard = body.try_get_u32_le().ok()?;
    let shards = body.try_get_u32_le().ok()?;
    let sent = Time::from_nanos(body.try_get_u64_le().ok()?);
    let leaving = flag(body.try_get_u8().ok()?)?;
    let lag = Duration::from_micros(u64::from(body.try_get_u32_le().ok()?));
    let slow = flag(body.try_get_u8().ok()?)?;
    let roster = body.try_get_u64_le().ok()?;
    let storage = StorageId(body.try_get_u128_le().ok()?);
    let opened = CommitId(body.try_get_u64_le().ok()?);
    let commit = CommitId(body.try_get_u64_le().ok()?);
    let known = if flag(body.try_get_u8().ok()?)? {
        let storage = StorageId(body.try_get_u128_le().ok()?);
        let boot = Boot(body.try_get_u64_le().ok()?);
        let opened = CommitId(body.try_get_u64_le().ok()?);
        Some(Memory { storage, boot, opened, commit: CommitId(body.try_get_u64_le().ok()?) })
    } else {
        None
    };
    let echo_boot = Boot(body.try_get_u64_le().ok()?);
    let echoes = take_times(&mut body)?;
    let tenure = Tenure(body.try_get_u64_le().ok()?);
    let grants = take_times(&mut body)?;
    let beat = Heartbeat {
        boot,
        shard,
        shards,
        sent,
        leaving,
        lag,
        slow,
        roster,
        storage,
        opened,
        commit,
        known,
        echo_boot,
        echoes,
        tenure,
        grants,
    };
    body.is_empty().then_some(beat)
}

/// A stamp for each shard.
fn take_times(body: &mut Bytes) -> Option<Vec<Time>> {
    let count = body.try_get_u32_le().ok()?;
    if count > MAX_SHARDS || body.len() < count as usize * 8 {
        return None;
    }
    Some((0..count).map(|_| Time::from_nanos(body.get_u64_le())).collect())
}

/// What a body of submissions or answers begins with: it makes every such frame count once.
///
/// "Not the leader" and "busy" mean that this copy of a command will never be executed. That is
/// only true if no second copy of the frame can be taken for another one, whatever the network
/// does; so a receiver takes only rising sequences of one life, addressed to its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The sender's life.
    pub from_boot: Boot,
    /// The receiver's life, as the sender knows it.
    pub to_boot: Boot,
    /// The sender's shard.
    pub shard: u32,
    /// Rises with every frame of that shard.
    pub sequence: u64,
}

/// Bytes of a [`Stamp`].
pub const STAMP: usize = 28;

/// Writes a stamp over the first [`STAMP`] bytes of `body`.
pub fn put_stamp(stamp: Stamp, body: &mut [u8]) {
    let mut head = &mut body[..STAMP];
    head.put_u64_le(stamp.from_boot.0);
    head.put_u64_le(stamp.to_boot.0);
    head.put_u32_le(stamp.shard);
    head.put_u64_le(stamp.sequence);
}

/// Takes the stamp off a body.
#[must_use]
pub fn take_stamp(body: &mut Bytes) -> Option<Stamp> {
    if body.len() < STAMP {
        return None;
    }
    Some(Stamp {
        from_boot: Boot(body.get_u64_le()),
        to_boot: Boot(body.get_u64_le()),
        shard: body.get_u32_le(),
        sequence: body.get_u64_le(),
    })
}

/// Adds a submission.
pub fn put_submission(submission: &Submission, out: &mut Vec<u8>) {
    out.put_u8(u8::from(submission.read));
    out.put_u64_le(submission.ticket.number);
    out.put_u32_le(submission.ticket.behind);
    out.put_u64_le(submission.after);
    out.put_u32_le(submission.command.len() as u32);
    out.put_slice(&submission.command);
}

/// Decodes what follows the stamp of node `from`'s submissions; `None` when the bytes are none.
#[must_use]
pub fn decode_submissions(from: NodeId, boot: Boot, mut body: Bytes) -> Option<Vec<Submission>> {
    let mut submissions = Vec::with_capacity((body.len() / 64).min(4096));
    while !body.is_empty() {
        if body.len() < ITEM_HEAD {
            return None;
        }
        let read = flag(body.get_u8())?;
        let number = body.get_u64_le();
        let behind = body.get_u32_le();
        let after = body.get_u64_le();
        let command = take_sized(&mut body)?;
        let ticket = Ticket { node: from, boot, number, behind };
        submissions.push(Submission { ticket, read, after, command });
    }
    Some(submissions)
}

/// Adds an answer; its addressee is the receiver of the frame.
pub fn put_answer(answer: &Answer, out: &mut Vec<u8>) {
    out.put_u8(u8::from(answer.read));
    out.put_u64_le(answer.number);
    let (kind, leader) = match &answer.reply {
        Reply::Outcome(_) => (0, NodeId(0)),
        Reply::NotLeader(leader) => (1, leader.unwrap_or_default()),
        Reply::Busy => (2, NodeId(0)),
        Reply::Halted => (3, NodeId(0)),
    };
    out.put_u8(kind);
    out.put_u32_le(leader.0);
    put_sized(out, |out| {
        if let Reply::Outcome(outcome) = &answer.reply {
            outcome.encode(out);
        }
    });
}

/// Decodes what follows the stamp of answers about `group` to this life of node `to`; `None`
/// when the bytes are none.
#[must_use]
pub fn decode_answers(to: NodeId, boot: Boot, group: GroupId, mut body: Bytes) -> Option<Vec<Answer>> {
    let mut answers = Vec::with_capacity((body.len() / 24).min(4096));
    while !body.is_empty() {
        if body.len() < 18 {
            return None;
        }
        let read = flag(body.get_u8())?;
        let number = body.get_u64_le();
        let kind = body.get_u8();
        let leader = NodeId(body.get_u32_le());
        let outcome = take_sized(&mut body)?;
        let reply = match kind {
            0 => Reply::Outcome(Outcome::decode(outcome)?),
            1 => Reply::NotLeader((leader != NodeId(0)).then_some(leader)),
            2 => Reply::Busy,
            3 => Reply::Halted,
            _ => return None,
        };
        answers.push(Answer { group, to, boot, read, number, reply });
    }
    Some(answers)
}

/// Encodes a roster.
#[must_use]
pub fn encode_roster(roster: &Roster) -> Vec<u8> {
    let body = roster.encode();
    let mut out = Vec::with_capacity(8 + body.len());
    out.put_u64_le(roster.version());
    out.put_slice(&body);
    out
}

/// Decodes a roster; `None` when the bytes are none.
#[must_use]
pub fn decode_roster(mut body: Bytes) -> Option<Roster> {
    let version = body.try_get_u64_le().ok()?;
    Roster::decode(version, body)
}

fn flag(byte: u8) -> Option<bool> {
    match byte {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}
