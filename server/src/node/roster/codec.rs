//! The roster's bytes, as they stand in the first group's log, in frames and in a node's file:
//!
//! ```text
//! 01 nodes:u32 { id:u32 state:u8 since:u64 3 × (length:u16 text) }*  groups:u32 { members:u8 { node:u32 }* }*
//! ```
//! All numbers little-endian. The version stands beside them.

use bytes::{Buf, BufMut, Bytes};
use groups::ids::NodeId;
use groups::paxos::quorum::MAX_MEMBERS;

use super::{MAX_NODES, NodeState, Roster, RosterNode};
use crate::node::layout::SLOTS;

const FORMAT: u8 = 1;

/// The longest address: a host name and a port.
const MAX_ADDRESS: usize = 300;

impl NodeState {
    fn number(self) -> u8 {
        match self {
            NodeState::Serving => 0,
            NodeState::Drained => 1,
            NodeState::Leaving => 2,
        }
    }

    fn from_number(number: u8) -> Option<NodeState> {
        [NodeState::Serving, NodeState::Drained, NodeState::Leaving]
            .into_iter()
            .find(|state| state.number() == number)
    }
}

impl Roster {
    /// The bytes, without the version.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(64 * self.nodes.len() + 16 * self.placement.len());
        out.put_u8(FORMAT);
        out.put_u32_le(self.nodes.len() as u32);
        for node in &self.nodes {
            out.put_u32_le(node.id.0);
            out.put_u8(node.state.number());
            out.put_u64_le(node.since);
            for address in [&node.peer_addr, &node.client_addr, &node.admin_addr] {
                out.put_u16_le(address.len() as u16);
                out.put_slice(address.as_bytes());
            }
        }
        out.put_u32_le(self.placement.len() as u32);
        for members in &self.placement {
            out.put_u8(members.len() as u8);
            members.iter().for_each(|node| out.put_u32_le(node.0));
        }
        Bytes::from(out)
    }

    /// Reads what [`Roster::encode`] has written; `None` when it is nothing of the kind, or places
    /// a group on a node that there is not.
    #[must_use]
    pub fn decode(version: u64, mut bytes: Bytes) -> Option<Roster> {
        if bytes.try_get_u8().ok()? != FORMAT {
            return None;
        }
        let count = bytes.try_get_u32_le().ok()? as usize;
        // A node takes 19 bytes at least, a group five: no length is believed that cannot be true.
        if count == 0 || count > MAX_NODES || count * 19 > bytes.len() {
            return None;
        }
        let mut nodes: Vec<RosterNode> = Vec::with_capacity(count);
        for _ in 0..count {
            let id = NodeId(bytes.try_get_u32_le().ok()?);
            let state = NodeState::from_number(bytes.try_get_u8().ok()?)?;
            let since = bytes.try_get_u64_le().ok()?;
            let (peer_addr, client_addr, admin_addr) =
                (address(&mut bytes)?, address(&mut bytes)?, address(&mut bytes)?);
            nodes.push(RosterNode { id, state, since, peer_addr, client_addr, admin_addr });
        }
        let ascending = nodes.is_sorted_by(|a, b| a.id < b.id) && nodes[0].id != NodeId(0);
        let groups = bytes.try_get_u32_le().ok()?;
        if !ascending || groups == 0 || groups > SLOTS || groups as usize * 5 > bytes.len() {
            return None;
        }
        let mut roster = Roster { version, nodes, placement: Vec::with_capacity(groups as usize) };
        for _ in 0..groups {
            let members = usize::from(bytes.try_get_u8().ok()?);
            if members == 0 || members > MAX_MEMBERS || bytes.len() < 4 * members {
                return None;
            }
            let placed: Vec<NodeId> = (0..members).map(|_| NodeId(bytes.get_u32_le())).collect();
            let twice = (1..members).any(|i| placed[..i].contains(&placed[i]));
            if twice || placed.iter().any(|id| roster.node(*id).is_none()) {
                return None;
            }
            roster.placement.push(placed);
        }
        bytes.is_empty().then_some(roster)
    }
}

fn address(bytes: &mut Bytes) -> Option<String> {
    let length = usize::from(bytes.try_get_u16_le().ok()?);
    if length > MAX_ADDRESS || length > bytes.len() {
        return None;
    }
    String::from_utf8(bytes.split_to(length).to_vec()).ok()
}
