//! The handshake: who is there, and may we talk.
//!
//! ```text
//!   dialler                         acceptor
//!     Hello  ----------------------->  judge
//!     judge  <-----------------------  Hello      (or Refusal, and the end)
//!     Ready  ----------------------->  link is up (or Refusal, and the end)
//!     frames ----------------------->
//! ```
//!
//! Every message is one envelope, little-endian, at most [`MAX_MESSAGE`] bytes:
//!
//! ```text
//!   0          8        12       16    17     18         20
//!   | "pelago>n" | length | crc32 | ver | type | reserved | body, `length` bytes
//!   |  8 bytes   | u32    | u32   | 1   | u8   | u16 = 0  |
//! ```
//!
//! The crc covers `length` and everything after the crc field. Types and bodies:
//!
//! ```text
//!   1 Hello    0 protocol_min u16 | 2 protocol_max u16 | 4 lane u8 | 5 zero, 3 bytes
//!              8 node u32 | 12 expects u32 | 16 boot u64 | 24 cluster u128 | 40 storage u128
//!              56 name length u16 | 58 cluster name, UTF-8
//!   2 Refusal  0 code u16 | 2 reason length u16 | 4 reason, UTF-8
//!   3 Ready    0 protocol u16
//! ```
//!
//! `expects` is the node that the dialler wants to reach, and zero in the answer. Bytes after
//! the known fields of a body are ignored: a later version adds its fields there, and its
//! protocol range decides whether the two can talk.

use std::fmt;

use bytes::{Buf, BufMut};
use groups::ids::{Boot, ClusterId, NodeId, StorageId};
use thiserror::Error;

use crate::config::Identity;
use crate::{Lane, Peer};

const MAGIC: [u8; 8] = *b"pelago>n";
const ENVELOPE: usize = 20;
const ENVELOPE_VERSION: u8 = 1;
const HELLO_FIXED: usize = 58;

/// The longest body of a handshake message.
pub const MAX_BODY: usize = 1024;
/// The longest handshake message.
pub const MAX_MESSAGE: usize = ENVELOPE + MAX_BODY;
/// The longest cluster name, in bytes.
pub const MAX_CLUSTER_NAME: usize = 255;
const MAX_REASON: usize = 512;

/// How a node introduces itself on a new connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Oldest protocol spoken.
    pub protocol_min: u16,
    /// Newest protocol spoken.
    pub protocol_max: u16,
    /// What the connection is for.
    pub lane: Lane,
    /// Who speaks.
    pub node: NodeId,
    /// Who is meant to answer; zero in the answer.
    pub expects: NodeId,
    /// The speaker's life.
    pub boot: Boot,
    /// The speaker's cluster; zero before its birth.
    pub cluster: ClusterId,
    /// The speaker's disk.
    pub storage: StorageId,
    /// The name of the speaker's cluster.
    pub cluster_name: String,
}

impl Hello {
    pub(crate) fn new(me: &Identity, lane: Lane, expects: NodeId) -> Hello {
        Hello {
            protocol_min: me.protocol_min,
            protocol_max: me.protocol_max,
            lane,
            node: me.node,
            expects,
            boot: me.boot,
            cluster: me.cluster,
            storage: me.storage,
            cluster_name: me.cluster_name.clone(),
        }
    }

    pub(crate) fn peer(&self) -> Peer {
        Peer { node: self.node, boot: self.boot, storage: self.storage, lane: self.lane }
    }
}

/// Why two nodes do not talk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefusalCode {
    /// No protocol version is spoken by both.
    Protocol,
    /// The clusters have different names.
    ClusterName,
    /// The clusters have the same name but are not the same.
    ClusterId,
    /// Another node than the expected one is at that address.
    WrongNode,
    /// The other side has this node's own id.
    SameNode,
    /// That node is not, or no longer, a peer of the one that refuses it.
    UnknownNode,
    /// A later life of that node is already connected.
    StaleBoot,
    /// Another disk with that node id is already connected.
    OtherStorage,
    /// A newer connection of the same node and lane took the place.
    Replaced,
    /// The node's identity changed; connect again.
    Renewed,
    /// The bytes are no handshake.
    Malformed,
    /// The frames were damaged.
    Corrupt,
    /// Nothing arrived in time.
    Idle,
    /// A code that this binary does not know.
    Other(u16),
}

impl RefusalCode {
    const TABLE: [(u16, RefusalCode); 13] = [
        (1, RefusalCode::Protocol),
        (2, RefusalCode::ClusterName),
        (3, RefusalCode::ClusterId),
        (4, RefusalCode::WrongNode),
        (5, RefusalCode::SameNode),
        (6, RefusalCode::UnknownNode),
        (7, RefusalCode::StaleBoot),
        (8, RefusalCode::OtherStorage),
        (9, RefusalCode::Replaced),
        (10, RefusalCode::Renewed),
        (11, RefusalCode::Malformed),
        (12, RefusalCode::Corrupt),
        (13, RefusalCode::Idle),
    ];

    fn number(self) -> u16 {
        match self {
            RefusalCode::Other(n) => n,
            code => Self::TABLE.iter().find(|(_, c)| *c == code).map_or(0, |(n, _)| *n),
        }
    }

    fn from_number(n: u16) -> RefusalCode {
        Self::TABLE.iter().find(|(m, _)| *m == n).map_or(RefusalCode::Other(n), |(_, c)| *c)
    }
}

/// A refusal and its reason, for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// For programs.
    pub code: RefusalCode,
    /// For people: what does not fit and what to look at.
    pub reason: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

/// A handshake message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// The introduction, by both.
    Hello(Hello),
    /// The end, by either.
    Refusal(Refusal),
    /// By the dialler: it agrees too, frames in this protocol version follow.
    Ready {
        /// The newest version that both speak.
        protocol: u16,
    },
}

/// The bytes are no handshake of this program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Malformed {
    /// The first bytes are not the magic ones: some other program, or noise.
    #[error("the bytes are not from a pelago node")]
    Magic,
    /// The envelope announces more than a handshake can have.
    #[error("a handshake message of {0} bytes; at most {MAX_BODY} are allowed")]
    TooLong(u32),
    /// Damaged on the way.
    #[error("the handshake's checksum does not match")]
    Checksum,
    /// A version, type or field that cannot be.
    #[error("a handshake message with an impossible {0}")]
    Field(&'static str),
}

impl Message {
    /// The bytes on the wire.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(128);
        let kind = match self {
            Message::Hello(hello) => {
                body.put_u16_le(hello.protocol_min);
                body.put_u16_le(hello.protocol_max);
                body.put_u8(hello.lane.number());
                body.put_slice(&[0; 3]);
                body.put_u32_le(hello.node.0);
                body.put_u32_le(hello.expects.0);
                body.put_u64_le(hello.boot.0);
                body.put_u128_le(hello.cluster.0);
                body.put_u128_le(hello.storage.0);
                put_text(&mut body, &hello.cluster_name, MAX_CLUSTER_NAME);
                1
            }
            Message::Refusal(refusal) => {
                body.put_u16_le(refusal.code.number());
                put_text(&mut body, &refusal.reason, MAX_REASON);
                2
            }
            Message::Ready { protocol } => {
                body.put_u16_le(*protocol);
                3
            }
        };
        let mut bytes = Vec::with_capacity(ENVELOPE + body.len());
        bytes.put_slice(&MAGIC);
        bytes.put_u32_le(u32::try_from(body.len()).expect("a handshake body is small"));
        bytes.put_u32_le(0);
        bytes.put_u8(ENVELOPE_VERSION);
        bytes.put_u8(kind);
        bytes.put_u16_le(0);
        bytes.put_slice(&body);
        let crc = envelope_crc(&bytes);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The message at the start of `bytes` and its length, or `None` while it is incomplete.
    ///
    /// # Errors
    /// As soon as the bytes cannot become a message; foreign bytes with the first of them.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Message, usize)>, Malformed> {
        let seen = bytes.len().min(MAGIC.len());
        if bytes[..seen] != MAGIC[..seen] {
            return Err(Malformed::Magic);
        }
        let Some(mut head) = bytes.get(MAGIC.len()..ENVELOPE) else { return Ok(None) };
        let length = head.get_u32_le();
        let crc = head.get_u32_le();
        let version = head.get_u8();
        let kind = head.get_u8();
        let reserved = head.get_u16_le();
        if length as usize > MAX_BODY {
            return Err(Malformed::TooLong(length));
        }
        if version != ENVELOPE_VERSION {
            return Err(Malformed::Field("version"));
        }
        if reserved != 0 {
            return Err(Malformed::Field("reserved field"));
        }
        let end = ENVELOPE + length as usize;
        let Some(message) = bytes.get(..end) else { return Ok(None) };
        if envelope_crc(message) != crc {
            return Err(Malformed::Checksum);
        }
        let body = &message[ENVELOPE..];
        let message = match kind {
            1 => Message::Hello(decode_hello(body)?),
            2 => Message::Refusal(decode_refusal(body)?),
            3 => {
                let mut body = body;
                Message::Ready { protocol: body.try_get_u16_le().map_err(|_| Malformed::Field("length"))? }
            }
            _ => return Err(Malformed::Field("type")),
        };
        Ok(Some((message, end)))
    }
}

fn envelope_crc(message: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&message[8..12]);
    crc.update(&message[16..]);
    crc.finalize()
}

fn put_text(body: &mut Vec<u8>, text: &str, limit: usize) {
    let text = &text[..text.floor_char_boundary(limit)];
    body.put_u16_le(u16::try_from(text.len()).expect("text was cut to its limit"));
    body.put_slice(text.as_bytes());
}

fn get_text<'a>(body: &mut &'a [u8], limit: usize) -> Result<&'a [u8], Malformed> {
    let length = body.try_get_u16_le().map_err(|_| Malformed::Field("length"))? as usize;
    if length > limit {
        return Err(Malformed::Field("text length"));
    }
    body.get(..length).ok_or(Malformed::Field("text length"))
}

fn decode_hello(mut body: &[u8]) -> Result<Hello, Malformed> {
    if body.len() < HELLO_FIXED {
        return Err(Malformed::Field("length"));
    }
    let protocol_min = body.get_u16_le();
    let protocol_max = body.get_u16_le();
    let lane = Lane::from_number(body.get_u8()).ok_or(Malformed::Field("lane"))?;
    body.advance(3);
    let node = NodeId(body.get_u32_le());
    let expects = NodeId(body.get_u32_le());
    let boot = Boot(body.get_u64_le());
    let cluster = ClusterId(body.get_u128_le());
    let storage = StorageId(body.get_u128_le());
    let name = get_text(&mut body, MAX_CLUSTER_NAME)?;
    let name = std::str::from_utf8(name).map_err(|_| Malformed::Field("cluster name"))?;
    if node == NodeId(0) {
        return Err(Malformed::Field("node id"));
    }
    if protocol_min > protocol_max {
        return Err(Malformed::Field("protocol range"));
    }
    Ok(Hello {
        protocol_min,
        protocol_max,
        lane,
        node,
        expects,
        boot,
        cluster,
        storage,
        cluster_name: name.to_owned(),
    })
}

fn decode_refusal(mut body: &[u8]) -> Result<Refusal, Malformed> {
    let code = body.try_get_u16_le().map_err(|_| Malformed::Field("length"))?;
    let reason = String::from_utf8_lossy(get_text(&mut body, MAX_REASON)?);
    // It ends up in a log and on a terminal.
    let reason = reason.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    Ok(Refusal { code: RefusalCode::from_number(code), reason })
}

/// Which part of the handshake a Hello plays for the one who judges it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// It opens the connection.
    Dial,
    /// It answers a Hello that was meant for this node.
    Answer(NodeId),
}

/// Whether `me` talks to the sender of `hello`; the protocol version to speak.
///
/// The version comes first: without a common one no other field may mean what it says.
pub(crate) fn judge(
    me: &Identity,
    knows: impl Fn(NodeId) -> bool,
    hello: &Hello,
    part: Part,
) -> Result<u16, Refusal> {
    let refuse = |code, reason: String| Err(Refusal { code, reason });
    let (mine, theirs) = (me.node, hello.node);
    let newest = me.protocol_max.min(hello.protocol_max);
    if newest < me.protocol_min.max(hello.protocol_min) {
        return refuse(
            RefusalCode::Protocol,
            format!(
                "node {mine} speaks protocol {}..={}, node {theirs} {}..={}: no version in common. \
                 Upgrade the older of the two, one version at a time",
                me.protocol_min, me.protocol_max, hello.protocol_min, hello.protocol_max
            ),
        );
    }
    if hello.cluster_name != me.cluster_name {
        return refuse(
            RefusalCode::ClusterName,
            format!(
                "node {mine} belongs to cluster {:?}, node {theirs} to {:?}. Compare [cluster] name and \
                 peer_addr in both config files",
                me.cluster_name, hello.cluster_name
            ),
        );
    }
    if me.cluster.0 != 0 && hello.cluster.0 != 0 && me.cluster != hello.cluster {
        return refuse(
            RefusalCode::ClusterId,
            format!(
                "node {mine} was born in cluster {}, node {theirs} in {}: two clusters named {:?}. One of \
                 them uses the data directory or the peer_addr of another",
                me.cluster, hello.cluster, me.cluster_name
            ),
        );
    }
    match part {
        Part::Dial if theirs == mine => {
            let itself = hello.storage == me.storage && hello.boot == me.boot;
            let reason = if itself {
                format!(
                    "node {mine} dialled itself where it expected node {}: peer_addr of node {} is wrong",
                    hello.expects, hello.expects
                )
            } else {
                format!(
                    "both sides say they are node {mine} (storage {} and {}): a second process was started \
                     with the same --node, or on a copy of the data",
                    me.storage, hello.storage
                )
            };
            refuse(RefusalCode::SameNode, reason)
        }
        Part::Dial if hello.expects != mine => refuse(
            RefusalCode::WrongNode,
            format!(
                "node {theirs} expected node {} at this address, but node {mine} is here. Compare peer_addr \
                 in both config files",
                hello.expects
            ),
        ),
        Part::Answer(expected) if theirs != expected => refuse(
            RefusalCode::WrongNode,
            format!(
                "node {mine} expected node {expected} at this address, but node {theirs} answered. Compare \
                 peer_addr in both config files"
            ),
        ),
        _ if !knows(theirs) => Err(unknown(mine, theirs)),
        _ => Ok(newest),
    }
}

/// What a node is told that is not on the list of peers of `mine`.
pub(crate) fn unknown(mine: NodeId, theirs: NodeId) -> Refusal {
    Refusal {
        code: RefusalCode::UnknownNode,
        reason: format!(
            "node {theirs} is not (or no longer) a member of this cluster, says node {mine}: add it or stop it"
        ),
    }
}
