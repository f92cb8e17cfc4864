//! Every copy of a command is refused once at most, whatever the network repeats. The node that
//! asked counts the copies that may still be executed, and says "not applied" when all were
//! refused: a second refusal of one copy would stand for another that is being chosen.

use std::collections::BTreeMap;

use groups::group::{Answer, Reply, Submission};
use groups::ids::{Boot, GroupId, NodeId};

use super::{Judge, Verdict};

/// One command and one node that was asked to execute it.
type Errand = (NodeId, Boot, GroupId, bool, u64, NodeId);

/// See the module.
#[derive(Default)]
pub struct Copies {
    open: BTreeMap<Errand, u32>,
}

impl Judge for Copies {
    fn forwarded(&mut self, to: NodeId, group: GroupId, submission: &Submission) -> Verdict {
        let ticket = submission.ticket;
        let errand = (ticket.node, ticket.boot, group, submission.read, ticket.number, to);
        *self.open.entry(errand).or_default() += 1;
        Ok(())
    }

    fn answered(&mut self, from: NodeId, answer: &Answer) -> Verdict {
        if matches!(answer.reply, Reply::Outcome(_)) {
            return Ok(());
        }
        let errand = (answer.to, answer.boot, answer.group, answer.read, answer.number, from);
        match self.open.get_mut(&errand) {
            Some(copies) if *copies > 0 => {
                *copies -= 1;
                Ok(())
            }
            _ => Err(format!(
                "node {from} refuses command {} of node {} (life {}) in group {} more often than it got it",
                answer.number, answer.to, answer.boot, answer.group
            )),
        }
    }
}
