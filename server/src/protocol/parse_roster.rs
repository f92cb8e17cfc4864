//! The forms of `ADMIN MEMBER` and `ADMIN LEADER`: changes of which nodes the cluster has, and of
//! which leads what.
//!
//! ```text
//! ADMIN MEMBER LIST
//! ADMIN MEMBER ADD node peer_addr client_addr admin_addr [DRYRUN]
//! ADMIN MEMBER REMOVE node [DRYRUN]
//! ADMIN MEMBER FORGET node [DRYRUN]
//! ADMIN MEMBER REPLACE old node peer_addr client_addr admin_addr [DRYRUN]
//! ADMIN MEMBER DRAIN node [DRYRUN]
//! ADMIN MEMBER SERVE node [DRYRUN]
//! ADMIN LEADER group node [DRYRUN]
//! ```

use groups::ids::{GroupId, NodeId};

use super::error::{ErrorReply, quoted};
use super::words::{Words, lower};
use crate::config::Address;

/// Where a new node is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewNode {
    /// Its id.
    pub id: NodeId,
    /// By the other nodes.
    pub peer_addr: Address,
    /// By clients.
    pub client_addr: Address,
    /// Where its administration listens.
    pub admin_addr: Address,
}

/// What is asked of the roster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RosterAction {
    /// What it says.
    List,
    /// A new node.
    Add(NewNode),
    /// A node leaves: its groups move to the others.
    Remove(NodeId),
    /// A node that has left is a node of the cluster no more.
    Forget(NodeId),
    /// A new node takes the places of one that leaves.
    Replace(NodeId, NewNode),
    /// A node leads only where nobody else can (`true`), or takes its share again.
    Drain(NodeId, bool),
    /// A node becomes the best placed leader of a group.
    Lead(GroupId, NodeId),
}

impl Words<'_> {
    pub(super) fn member(&mut self) -> Result<(RosterAction, bool), ErrorReply> {
        let word = self.required()?;
        let action = match lower(&word).as_str() {
            "list" => RosterAction::List,
            "add" => RosterAction::Add(self.new_node()?),
            "remove" => RosterAction::Remove(self.node()?),
            "forget" => RosterAction::Forget(self.node()?),
            "replace" => RosterAction::Replace(self.node()?, self.new_node()?),
            "drain" => RosterAction::Drain(self.node()?, true),
            "serve" => RosterAction::Drain(self.node()?, false),
            _ => {
                return Err(ErrorReply::err(format!(
                    "unknown subcommand '{}'; nothing was changed; ADMIN MEMBER knows LIST, ADD, REMOVE, FORGET, \
                     REPLACE, DRAIN and SERVE",
                    quoted(&word)
                )));
            }
        };
        Ok((action, self.dry_run()?))
    }

    pub(super) fn leader(&mut self) -> Result<(RosterAction, bool), ErrorReply> {
        let group = self.integer()?;
        let group = u32::try_from(group)
            .map_err(|_| ErrorReply::err("a group is a number from 0 on; nothing was changed"))?;
        let node = self.node()?;
        Ok((RosterAction::Lead(GroupId(group), node), self.dry_run()?))
    }

    fn node(&mut self) -> Result<NodeId, ErrorReply> {
        let id = self.integer()?;
        let id = u32::try_from(id).ok().filter(|id| *id > 0);
        id.map(NodeId).ok_or_else(|| ErrorReply::err("a node is a number from 1 on; nothing was changed"))
    }

    fn new_node(&mut self) -> Result<NewNode, ErrorReply> {
        let id = self.node()?;
        let (peer_addr, client_addr, admin_addr) = (self.address()?, self.address()?, self.address()?);
        Ok(NewNode { id, peer_addr, client_addr, admin_addr })
    }

    fn address(&mut self) -> Result<Address, ErrorReply> {
        let word = self.required()?;
        let text = String::from_utf8_lossy(&word);
        Address::parse(&text)
            .map_err(|why| ErrorReply::err(format!("'{}' {why}; nothing was changed", quoted(&word))))
    }

    /// `DRYRUN`, or nothing; and then the end.
    fn dry_run(&mut self) -> Result<bool, ErrorReply> {
        let Some(word) = self.bytes() else { return Ok(false) };
        if !word.eq_ignore_ascii_case(b"DRYRUN") {
            return Err(self.unexpected(&word));
        }
        self.end().map(|()| true)
    }
}
