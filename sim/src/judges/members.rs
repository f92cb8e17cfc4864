//! Who decides an instance follows from the values before it (Lamport, "The Part-Time
//! Parliament", section 3.3.4): every replica knows the members that its chosen prefix has made;
//! a leadership proposes nothing behind a change of members, and none of its proposals lies
//! behind a change that it does not know (FAULTS, rules 22 and 31).

use std::collections::BTreeMap;

use groups::ids::{Ballot, GroupId, InstanceId};
use groups::kv::value::as_members;
use groups::paxos::Message;

use super::{Judge, Ledger, Seen, Sent, Verdict};

/// See the module.
#[derive(Default)]
pub struct MembersFollow {
    /// The change that a ballot has proposed.
    changes: BTreeMap<(GroupId, Ballot), InstanceId>,
}

impl Judge for MembersFollow {
    fn sent(&mut self, sent: &Sent<'_>, ledger: &Ledger) -> Verdict {
        let Message::Accept(m) = sent.message else { return Ok(()) };
        let key = (sent.group, m.ballot);
        // Members of an instance that is not chosen yet are made by nothing that counts elsewhere.
        let members = ledger.group(sent.group).members_of(m.instance);
        if as_members(&m.value).is_some_and(|new| new.follows(members.changed_at())) {
            self.changes.insert(key, m.instance);
        }
        match self.changes.get(&key) {
            Some(change) if m.instance > *change => Err(format!(
                "node {} proposes instance {} of group {} at ballot {}, behind the change of members in instance \
                 {change}",
                sent.from, m.instance, sent.group, m.ballot
            )),
            _ => Ok(()),
        }
    }

    fn stepped(&mut self, seen: &Seen<'_>, ledger: &Ledger) -> Verdict {
        let replica = &seen.group.replica;
        let (node, group) = (seen.node, replica.group());
        let ledger = ledger.group(group);
        let decides = ledger.members_of(replica.mark().instance.next());
        if replica.members().list() != decides.list() {
            return Err(format!(
                "node {node} takes {:?} for the members of group {group} behind instance {}; the values say {:?}",
                replica.members().list(),
                replica.mark().instance,
                decides.list()
            ));
        }
        // A leadership that is to end with a change opens nothing.
        let opening = replica.opening().filter(|opening| opening.0 < u64::MAX);
        match opening.map(|opening| ledger.members_of(opening).changed_at()) {
            Some(change) if change > replica.members().changed_at() => Err(format!(
                "node {node} leads group {group} behind the change of members in instance {change}, which it does not \
                 know"
            )),
            _ => Ok(()),
        }
    }

    fn started(&mut self, seen: &Seen<'_>, ledger: &Ledger) -> Verdict {
        self.stepped(seen, ledger)
    }
}
