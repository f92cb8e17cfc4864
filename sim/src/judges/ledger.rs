//! What is on the disks, group by group, and what has been chosen by that.
//!
//! A value is chosen in an instance once a majority has durably accepted it at one ballot
//! (Lamport, "Paxos Made Simple", section 2.2). The ledger finds that out from the records that
//! commits report, keeps the chosen values, and applies them to a state machine of its own. What
//! replicas say is never taken in here.
//!
//! An acceptor is a node and its disk: what a lost disk had accepted stays counted for the
//! instances that it decided, and its successor begins with nothing.

use std::collections::BTreeMap;

use bytes::Bytes;
use groups::ids::{Ballot, GroupId, InstanceId, Member, NodeId, StorageId};
use groups::kv::value::Value;
use groups::kv::{Change, Outcome, Since, State, Ticket};
use groups::log::Record;
use groups::paxos::{Members, Replica, chain};
use server::node::layout::Layout;
use server::node::manifest::Founders;

/// All groups.
#[derive(Debug)]
pub struct Ledger {
    groups: Vec<GroupLedger>,
    founded: bool,
}

/// One group.
#[derive(Debug)]
pub struct GroupLedger {
    /// Its members, as the chosen prefix has made them, from the birth on.
    members: Vec<Members>,
    /// The disks that there are.
    disks: BTreeMap<NodeId, StorageId>,
    acceptors: BTreeMap<Member, Shadow>,
    /// Who has accepted what, for instances beyond the chosen prefix and for those within it
    /// that somebody still accepts at higher ballots.
    votes: BTreeMap<InstanceId, Vec<Vote>>,
    /// Chosen by a majority and not taken over yet.
    found: BTreeMap<InstanceId, (Ballot, Bytes)>,
    /// The chosen prefix, from instance 1.
    prefix: Vec<Decided>,
    state: State,
    /// Every change of the prefix: that of revision `n + 1` is `changes[n]`.
    pub(super) changes: Vec<Change>,
    /// What the commands of the last chosen value answered.
    pub answers: Vec<(Ticket, Outcome)>,
    conflict: Option<String>,
}

#[derive(Debug)]
struct Vote {
    ballot: Ballot,
    value: Bytes,
    voters: Vec<Member>,
}

impl Vote {
    fn is_quorum(&self, members: &Members) -> bool {
        self.voters.iter().filter(|v| members.list().contains(v)).count() >= members.majority()
    }
}

/// One chosen value and what the state is with it.
#[derive(Clone, Debug)]
pub struct Decided {
    /// The ballot at which a majority first had it.
    pub ballot: Ballot,
    /// The value.
    pub value: Bytes,
    /// The chained checksum up to here.
    pub chain: u64,
    /// The hash of the state with it.
    pub state: [u8; 32],
    /// The state's revision with it.
    pub revision: u64,
}

/// What one acceptor certainly has on its disk.
#[derive(Debug, Default)]
pub struct Shadow {
    /// The highest ballot promised or accepted at.
    pub promised: Ballot,
    /// The newest accepted value of each instance.
    pub accepted: BTreeMap<InstanceId, (Ballot, Bytes)>,
    /// Instances whose chosen value was written as learned.
    pub learned: BTreeMap<InstanceId, Bytes>,
    /// Everything up to here was in the log at the last start.
    pub recovered: InstanceId,
    /// What the log calls chosen.
    pub marked: InstanceId,
    /// What the log leaves to the checkpoint.
    pub anchored: InstanceId,
}

impl Shadow {
    /// Whether some value of that instance is on the disk.
    #[must_use]
    pub fn holds(&self, instance: InstanceId) -> bool {
        instance <= self.recovered
            || instance <= self.anchored
            || self.accepted.contains_key(&instance)
            || self.learned.contains_key(&instance)
    }
}

impl Ledger {
    /// Empty disks.
    #[must_use]
    pub fn new(layout: &Layout) -> Ledger {
        let groups = (0..layout.groups())
            .map(|g| {
                // Who they are is known at the birth.
                let nodes = layout.members(GroupId(g)).into_iter();
                let unknown = nodes.map(|node| Member { node, storage: StorageId(0) }).collect();
                GroupLedger {
                    members: vec![Members::new(unknown)],
                    disks: BTreeMap::new(),
                    acceptors: BTreeMap::new(),
                    votes: BTreeMap::new(),
                    found: BTreeMap::new(),
                    prefix: Vec::new(),
                    state: State::default(),
                    changes: Vec::new(),
                    answers: Vec::new(),
                    conflict: None,
                }
            })
            .collect();
        Ledger { groups, founded: false }
    }

    /// A machine runs on this disk from now on; `founders` are those that its cluster was born on.
    pub(super) fn runs_on(&mut self, node: NodeId, storage: StorageId, founders: &Founders) {
        for ledger in &mut self.groups {
            if !self.founded {
                let disk = |m: &Member| {
                    let storage = founders.iter().find(|(n, _)| *n == m.node).map_or(m.storage, |(_, s)| *s);
                    Member { storage, ..*m }
                };
                let list = ledger.members[0].list().iter().map(disk).collect();
                ledger.members = vec![Members::new(list)];
            }
            ledger.disks.insert(node, storage);
            ledger.acceptors.entry(Member { node, storage }).or_default();
        }
        self.founded = true;
    }

    /// One group.
    #[must_use]
    pub fn group(&self, group: GroupId) -> &GroupLedger {
        &self.groups[group.0 as usize]
    }

    /// Takes in a durable record; `true` when something may have been chosen by it.
    pub(super) fn durable(&mut self, node: NodeId, record: &Record) -> bool {
        let ledger = &mut self.groups[record.group().0 as usize];
        let Some(shadow) = ledger.shadow_mut(node) else { return false };
        match record {
            Record::Promise { ballot, .. } => {
                shadow.promised = shadow.promised.max(*ballot);
                false
            }
            Record::Accept { instance, ballot, value, .. } => {
                ledger.accept(node, *instance, *ballot, value);
                true
            }
            Record::Chosen { instance, value, .. } => {
                shadow.learned.insert(*instance, value.clone());
                false
            }
            Record::Watermark { instance, .. } => {
                shadow.marked = shadow.marked.max(*instance);
                false
            }
            Record::Anchor { instance, ballot, .. } => {
                shadow.promised = shadow.promised.max(*ballot);
                shadow.anchored = shadow.anchored.max(*instance);
                false
            }
        }
    }

    /// Takes in what a replica has found on its disk.
    pub(super) fn resume(&mut self, node: NodeId, replica: &Replica) {
        let ledger = &mut self.groups[replica.group().0 as usize];
        for (instance, accepted) in replica.open() {
            ledger.accept(node, *instance, accepted.ballot, &accepted.value);
        }
        if let Some(shadow) = ledger.shadow_mut(node) {
            shadow.promised = shadow.promised.max(replica.promised());
            shadow.recovered = shadow.recovered.max(replica.mark().instance);
        }
    }

    /// Moves the next chosen value into the prefix.
    pub(super) fn settle(&mut self, group: GroupId) -> Result<Option<&GroupLedger>, String> {
        let ledger = &mut self.groups[group.0 as usize];
        if let Some(conflict) = ledger.conflict.take() {
            return Err(format!("group {group}: {conflict}"));
        }
        let next = ledger.end().next();
        let Some((ballot, value)) = ledger.found.remove(&next).or_else(|| ledger.look_up(next)) else {
            return Ok(None);
        };
        let before = ledger.prefix.last().map_or(0, |d| d.chain);
        let GroupLedger { state, answers, .. } = ledger;
        answers.clear();
        state.apply(next, value.clone(), &mut |ticket, outcome| answers.push((ticket, outcome))).map_err(
            |e| format!("group {group}: the value chosen in instance {next} cannot be applied: {e}"),
        )?;
        let since =
            Since { after: Some(ledger.changes.len() as u64), prefix: Bytes::new(), max_bytes: u32::MAX };
        match ledger.state.history().since(&since) {
            Outcome::Changes { changes, .. } => ledger.changes.extend(changes),
            other => return Err(format!("group {group}: instance {next} has too many changes: {other:?}")),
        }
        let decided = Decided {
            ballot,
            chain: chain(before, &value),
            value,
            state: ledger.state.hash().to_bytes(),
            revision: ledger.state.revision(),
        };
        ledger.prefix.push(decided);
        if let Some(members) = ledger.state.members().filter(|m| m.changed_at() == next) {
            ledger.members.push(members.clone());
            // What others seemed to have decided beyond it is theirs to decide no more.
            ledger.found.clear();
        }
        Ok(Some(ledger))
    }
}

impl GroupLedger {
    /// What a node with a seat certainly has on the disk that it runs on.
    #[must_use]
    pub fn shadow(&self, node: NodeId) -> Option<&Shadow> {
        self.acceptors.get(&self.member(node)?)
    }

    /// The node with the disk that it runs on.
    fn member(&self, node: NodeId) -> Option<Member> {
        Some(Member { node, storage: *self.disks.get(&node)? })
    }

    /// Whether the disk that the node runs on has accepted a value of this instance at this ballot, by
    /// a record that a later one at a higher ballot may stand above.
    #[must_use]
    pub fn has_accepted(&self, node: NodeId, instance: InstanceId, ballot: Ballot) -> bool {
        let Some(voter) = self.member(node) else { return false };
        let mut votes = self.votes.get(&instance).into_iter().flatten();
        votes.any(|vote| vote.ballot == ballot && vote.voters.contains(&voter))
    }

    fn shadow_mut(&mut self, node: NodeId) -> Option<&mut Shadow> {
        let member = self.member(node)?;
        self.acceptors.get_mut(&member)
    }

    /// All disks that ever were, with what they had.
    pub fn shadows(&self) -> impl Iterator<Item = (Member, &Shadow)> {
        self.acceptors.iter().map(|(m, s)| (*m, s))
    }

    /// Who decides the instance behind the chosen prefix.
    #[must_use]
    pub fn members(&self) -> &Members {
        &self.members[self.members.len() - 1]
    }

    /// Who decides `instance`, as far as the chosen prefix tells.
    #[must_use]
    pub fn members_of(&self, instance: InstanceId) -> &Members {
        self.members.iter().rev().find(|m| m.changed_at() < instance).unwrap_or(&self.members[0])
    }

    /// The value that the votes held back by an earlier change of members make chosen.
    fn look_up(&self, instance: InstanceId) -> Option<(Ballot, Bytes)> {
        let members = self.members();
        let mut chosen = self.votes.get(&instance)?.iter().filter(|v| v.is_quorum(members));
        let first = chosen.next()?;
        assert!(chosen.all(|v| v.value == first.value), "two values are chosen in instance {instance}");
        Some((first.ballot, first.value.clone()))
    }

    /// The end of the chosen prefix.
    #[must_use]
    pub fn end(&self) -> InstanceId {
        InstanceId(self.prefix.len() as u64)
    }

    /// How many values of the prefix have ended lives.
    #[must_use]
    pub fn ended_lives(&self) -> u64 {
        let ends = |d: &&Decided| matches!(Value::decode(d.value.clone()), Ok(Value::Expire { .. }));
        self.prefix.iter().filter(ends).count() as u64
    }

    /// A chosen value of the prefix.
    #[must_use]
    pub fn decided(&self, instance: InstanceId) -> Option<&Decided> {
        self.prefix.get((instance.0 as usize).checked_sub(1)?)
    }

    /// The value chosen in an instance, also beyond the prefix.
    #[must_use]
    pub fn chosen(&self, instance: InstanceId) -> Option<&Bytes> {
        self.chosen_at(instance).map(|(_, value)| value)
    }

    /// The same, with the ballot at which a majority first had it.
    #[must_use]
    pub fn chosen_at(&self, instance: InstanceId) -> Option<(Ballot, &Bytes)> {
        let prefix = self.decided(instance).map(|d| (d.ballot, &d.value));
        prefix.or_else(|| self.found.get(&instance).map(|(ballot, value)| (*ballot, value)))
    }

    fn accept(&mut self, node: NodeId, instance: InstanceId, ballot: Ballot, value: &Bytes) {
        let Some(voter) = self.member(node) else { return };
        if let Some(shadow) = self.shadow_mut(node) {
            shadow.promised = shadow.promised.max(ballot);
            match shadow.accepted.get(&instance) {
                Some((held, _)) if *held > ballot => {}
                _ => {
                    shadow.accepted.insert(instance, (ballot, value.clone()));
                }
            }
        }
        let votes = self.votes.entry(instance).or_default();
        let index = match votes.iter().position(|v| v.ballot == ballot) {
            Some(index) => index,
            None => {
                votes.push(Vote { ballot, value: value.clone(), voters: Vec::new() });
                votes.len() - 1
            }
        };
        let vote = &mut votes[index];
        if vote.value != *value {
            self.conflict = Some(format!(
                "two values were accepted in instance {instance} at ballot {ballot}, the second by node {node}"
            ));
            return;
        }
        if !vote.voters.contains(&voter) {
            vote.voters.push(voter);
        }
        let members =
            self.members.iter().rev().find(|m| m.changed_at() < instance).unwrap_or(&self.members[0]);
        if !vote.is_quorum(members) {
            return;
        }
        match self.chosen(instance) {
            None => {
                self.found.insert(instance, (ballot, value.clone()));
            }
            Some(chosen) if chosen == value => {}
            Some(_) => {
                self.conflict = Some(format!(
                    "two values are chosen in instance {instance}, the second at ballot {ballot}"
                ));
            }
        }
    }
}
