//! Ballots: each belongs to one candidacy (FAULTS, rule 3), accepts follow a phase 1 that a
//! majority has promised (Lamport, "Paxos Made Simple", section 2.2), and no ballot is raised
//! over and over while there is no majority to ask (FAULTS, rule 35).

use std::collections::BTreeMap;

use groups::ids::{Ballot, GroupId, Member};
use groups::paxos::Message;

use super::{Judge, Ledger, Sent, Shadow, Verdict};

/// A candidacy that was under way, and heartbeats not missed yet, may still raise a ballot for
/// so long after a majority is gone.
const GRACE_MILLIS: u64 = 2_500;

/// So often may the round rise after that: a word or two may have been on a slow link.
const RISES: u64 = 2;

/// Rounds that a disk in the place of a lost one leaves out.
const OF_A_LOST_DISK: u64 = 1 << 16;

/// See the module.
#[derive(Default)]
pub struct Ballots {
    /// The life in which a ballot was first used.
    used: BTreeMap<(GroupId, Ballot), u64>,
    /// Groups without a majority: since when, and the round when the grace was over.
    lonely: BTreeMap<GroupId, (u64, Option<u64>)>,
}

impl Judge for Ballots {
    fn sent(&mut self, sent: &Sent<'_>, ledger: &Ledger) -> Verdict {
        let ballot = match sent.message {
            Message::Prepare(m) => m.ballot,
            Message::Accept(m) => m.ballot,
            _ => return Ok(()),
        };
        let Sent { from, life, group, .. } = sent;
        if ballot.node != *from {
            return Err(format!("node {from} uses ballot {ballot} of group {group}, which is not its own"));
        }
        let first = *self.used.entry((*group, ballot)).or_insert(*life);
        if first != *life {
            return Err(format!("node {from} uses ballot {ballot} of group {group} in a second life"));
        }
        if let Message::Accept(m) = sent.message {
            let (ledger, instance) = (ledger.group(*group), m.instance);
            let members = ledger.members_of(instance);
            let counts = |(member, disk): &(Member, &Shadow)| {
                members.list().contains(member) && disk.promised >= ballot
            };
            let promised = ledger.shadows().filter(counts).count();
            if promised < members.majority() {
                return Err(format!(
                    "node {from} proposes for instance {instance} at ballot {ballot} of group {group}, promised by \
                     {promised} members"
                ));
            }
        }
        Ok(())
    }

    fn majority(&mut self, group: GroupId, connected: bool, now_millis: u64) -> Verdict {
        if connected {
            self.lonely.remove(&group);
        } else {
            self.lonely.entry(group).or_insert((now_millis, None));
        }
        Ok(())
    }

    fn round(&mut self, group: GroupId, round: u64, now_millis: u64) -> Verdict {
        let Some((since, at)) = self.lonely.get_mut(&group) else { return Ok(()) };
        if now_millis < *since + GRACE_MILLIS {
            return Ok(());
        }
        let begun = *at.get_or_insert(round);
        // A disk in the place of a lost one begins so many rounds further on: one rise, however far.
        if (round - begun.min(round)) % OF_A_LOST_DISK > RISES {
            return Err(format!(
                "the ballots of group {group} have risen from round {begun} to {round} while no majority was \
                 connected"
            ));
        }
        Ok(())
    }
}
