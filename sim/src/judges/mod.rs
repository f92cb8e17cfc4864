//! The judges: one rule per file, each with its source named.
//!
//! They see what leaves a machine, what its log has made durable, what its replicas say after a
//! step and what they remember after a start. What they have in common stands in [`Ledger`]: for
//! every group, what each acceptor has on its disk, and what follows from that. So they judge by
//! the definition of Paxos and not by what the product believes.
//!
//! To add one: a file with a struct that implements [`Judge`], and a line in [`Judges::new`].

mod applied;
mod at_most_once;
mod ballots;
mod births;
mod checkpoints;
mod chosen;
mod confirmation;
mod copies;
mod durable_first;
mod equal_state;
mod in_order;
mod last_words;
pub mod leases;
mod ledger;
mod members;
mod memory;
mod one_value;
mod pages;
mod parted;
mod promise;
mod read_order;
mod refused;
mod report;
mod strangers;

pub use ledger::{GroupLedger, Ledger, Shadow};
pub use pages::Pages;
pub use read_order::ReadOrder;

use bytes::Bytes;
use groups::group::{Answer, Group, Submission};
use groups::ids::{GroupId, NodeId, StorageId};
use groups::log::Record;
use groups::paxos::Message;
use groups::paxos::message::Mark;
use netio::Frame;
use server::node::birth::Word;
use server::node::layout::Layout;
use server::node::manifest::Founders;
use server::node::wire;

use crate::coverage::{Coverage, Event};

/// `Err` is what is wrong, for people.
pub type Verdict = Result<(), String>;

/// A message that leaves a machine.
#[derive(Debug)]
pub struct Sent<'a> {
    /// The sender.
    pub from: NodeId,
    /// The sender's life.
    pub life: u64,
    /// The disk that it runs on.
    pub storage: StorageId,
    /// The receiver.
    pub to: NodeId,
    /// The group.
    pub group: GroupId,
    /// What is said.
    pub message: &'a Message,
}

/// A group on a machine, after a step of that machine or right after its start.
#[derive(Debug)]
pub struct Seen<'a> {
    /// The machine.
    pub node: NodeId,
    /// Its life.
    pub life: u64,
    /// The disk that it runs on.
    pub storage: StorageId,
    /// The group there.
    pub group: &'a Group,
}

/// What a rule may look at. Every method is a moment; a rule overrides those it cares about.
pub trait Judge: Send {
    /// Whether it compares states with what they should be.
    fn looks_into_states(&self) -> bool {
        false
    }

    /// A message leaves. The ledger holds what was durable before.
    fn sent(&mut self, _sent: &Sent<'_>, _ledger: &Ledger) -> Verdict {
        Ok(())
    }

    /// A machine has made a step.
    fn stepped(&mut self, _seen: &Seen<'_>, _ledger: &Ledger) -> Verdict {
        Ok(())
    }

    /// A group was rebuilt from the log. The ledger holds what was known to be durable before.
    fn started(&mut self, _seen: &Seen<'_>, _ledger: &Ledger) -> Verdict {
        Ok(())
    }

    /// A value has become chosen: the ledger has a new entry at the end of this group's prefix.
    fn decided(&mut self, _group: GroupId, _ledger: &GroupLedger) -> Verdict {
        Ok(())
    }

    /// A group has no majority of members that reach each other, or has one again.
    fn majority(&mut self, _group: GroupId, _connected: bool, _now_millis: u64) -> Verdict {
        Ok(())
    }

    /// A word of birth leaves a machine.
    fn birth(&mut self, _node: NodeId, _word: &Word) -> Verdict {
        Ok(())
    }

    /// A mirror calls a point verified and durable.
    fn settled(&mut self, _node: NodeId, _group: GroupId, _point: Mark, _ledger: &GroupLedger) -> Verdict {
        Ok(())
    }

    /// An anchor record is durable.
    fn anchored(&mut self, _node: NodeId, _group: GroupId, _anchor: Mark, _ledger: &GroupLedger) -> Verdict {
        Ok(())
    }

    /// A machine's mirror is damaged on purpose.
    fn mirror_damaged(&mut self, _node: NodeId) {}

    /// A command of `from`'s client leaves for the node that it takes for the leader.
    fn forwarded(&mut self, _to: NodeId, _group: GroupId, _submission: &Submission) -> Verdict {
        Ok(())
    }

    /// The answer to one leaves `from`.
    fn answered(&mut self, _from: NodeId, _answer: &Answer) -> Verdict {
        Ok(())
    }

    /// A client was told that a write with a value of its own was not applied.
    fn refused(&mut self, _group: GroupId, _command: &Bytes) -> Verdict {
        Ok(())
    }

    /// A process has ended.
    fn ended(&mut self, _node: NodeId, _life: u64) {}

    /// A machine has lost a disk for good, or what was on it.
    fn gone(&mut self, _node: NodeId, _storage: StorageId) {}

    /// Time has passed; the round of the highest ballot promised in each group.
    fn round(&mut self, _group: GroupId, _round: u64, _now_millis: u64) -> Verdict {
        Ok(())
    }
}

/// All rules and what they share.
pub struct Judges {
    ledger: Ledger,
    rules: Vec<Box<dyn Judge>>,
}

impl Judges {
    /// The judges of a cluster.
    #[must_use]
    pub fn new(layout: &Layout) -> Judges {
        let rules: Vec<Box<dyn Judge>> = vec![
            Box::new(last_words::LastWords::default()),
            Box::new(strangers::Strangers::default()),
            Box::new(durable_first::DurableFirst),
            Box::new(report::CompleteReport::default()),
            Box::new(ballots::Ballots::default()),
            Box::new(births::Births::default()),
            Box::new(confirmation::Confirmation),
            Box::new(one_value::OneValue::default()),
            Box::new(promise::PromiseRises::default()),
            Box::new(memory::Memory),
            Box::new(members::MembersFollow::default()),
            Box::new(parted::Parted),
            Box::new(chosen::ChosenByMajority),
            Box::new(checkpoints::Checkpoints::default()),
            Box::new(applied::Applied::default()),
            Box::new(equal_state::EqualState::default()),
            Box::new(at_most_once::AtMostOnce::default()),
            Box::new(in_order::InOrder::default()),
            Box::new(copies::Copies::default()),
            Box::new(refused::Refused::default()),
        ];
        Judges { ledger: Ledger::new(layout), rules }
    }

    /// Leaves out the rule that looks into states, so that what is wrong with one has to be found
    /// by the product itself.
    pub fn trust_states(&mut self) {
        self.rules.retain(|rule| !rule.looks_into_states());
    }

    /// What they share.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// A commit has made a record durable.
    ///
    /// # Errors
    /// When a rule is broken.
    pub fn durable(&mut self, node: NodeId, record: &Record) -> Verdict {
        let group = record.group();
        if self.ledger.durable(node, record) {
            self.settle(group)?;
        }
        if let Record::Anchor { instance, chain, .. } = record {
            let anchor = Mark { instance: *instance, chain: *chain };
            let ledger = self.ledger.group(group);
            self.rules.iter_mut().try_for_each(|rule| rule.anchored(node, group, anchor, ledger))?;
        }
        Ok(())
    }

    /// A mirror calls a point verified and durable.
    ///
    /// # Errors
    /// When a rule is broken.
    pub fn settled(&mut self, node: NodeId, group: GroupId, point: Mark) -> Verdict {
        let ledger = self.ledger.group(group);
        self.rules.iter_mut().try_for_each(|rule| rule.settled(node, group, point, ledger))
    }

    /// A machine's mirror is damaged on purpose.
    pub fn mirror_damaged(&mut self, node: NodeId) {
        self.rules.iter_mut().for_each(|rule| rule.mirror_damaged(node));
    }

    /// Takes over what has become chosen, one instance at a time.
    fn settle(&mut self, group: GroupId) -> Verdict {
        while let Some(ledger) = self.ledger.settle(group)? {
            for rule in &mut self.rules {
                rule.decided(group, ledger)?;
            }
        }
        Ok(())
    }

    /// A message leaves a machine.
    ///
    /// # Errors
    /// When a rule is broken.
    pub fn sent(&mut self, sent: &Sent<'_>, coverage: &mut Coverage) -> Verdict {
        match sent.message {
            Message::Promise(m) if m.parts > 1 && m.part == 0 => coverage.event(Event::LongPromise),
            Message::Accept(m) => {
                let chosen = self.ledger.group(sent.group).chosen_at(m.instance);
                if chosen.is_some_and(|(ballot, _)| m.ballot > ballot) {
                    coverage.event(Event::DecidedAgain);
                }
            }
            _ => {}
        }
        self.rules.iter_mut().try_for_each(|rule| rule.sent(sent, &self.ledger))
    }

    /// A word of birth leaves a machine.
    ///
    /// # Errors
    /// When a rule is broken.
    pub fn birth(&mut self, node: NodeId, word: &Word) -> Verdict {
        self.rules.iter_mut().try_for_each(|rule| rule.birth(node, word))
    }

    /// Forwarded commands or their answers leave a machine.
    ///
    /// # Errors
    /// When a rule is broken, or nobody can read them.
    pub fn forwarded(&mut self, from: NodeId, to: NodeId, frame: &Frame) -> Verdict {
        let mut body = frame.body.clone();
        let garbage = || format!("node {from} sends commands or answers that nobody can read");
        let stamp = wire::take_stamp(&mut body).ok_or_else(garbage)?;
        if frame.kind == wire::SUBMIT {
            for submission in wire::decode_submissions(from, stamp.from_boot, body).ok_or_else(garbage)? {
                self.rules.iter_mut().try_for_each(|rule| rule.forwarded(to, frame.group, &submission))?;
            }
        } else {
            for answer in wire::decode_answers(to, stamp.to_boot, frame.group, body).ok_or_else(garbage)? {
                self.rules.iter_mut().try_for_each(|rule| rule.answered(from, &answer))?;
            }
        }
        Ok(())
    }

    /// A client was told that a write with a value of its own was not applied.
    ///
    /// # Errors
    /// When a rule is broken.
    pub fn refused(&mut self, group: GroupId, command: &Bytes) -> Verdict {
        self.rules.iter_mut().try_for_each(|rule| rule.refused(group, command))
    }

    /// A machine has made a step.
    ///
    /// # Errors
    /// When a rule is broken.
    pub fn stepped(&mut self, seen: &Seen<'_>) -> Verdict {
        // No fault of the swarm makes a state wrong: one that was given up is a defect like a halt.
        if let Some(halt) = seen.group.replica.halted().or(seen.group.healed()) {
            return Err(format!("node {}: {halt}", seen.node));
        }
        self.rules.iter_mut().try_for_each(|rule| rule.stepped(seen, &self.ledger))
    }

    /// A machine has rebuilt its groups from its log.
    ///
    /// # Errors
    /// When a rule is broken.
    pub fn started(&mut self, seen: &Seen<'_>) -> Verdict {
        if let Some(halt) = seen.group.replica.halted() {
            return Err(format!("node {}: {halt}", seen.node));
        }
        self.rules.iter_mut().try_for_each(|rule| rule.started(seen, &self.ledger))?;
        // More may be on the disk than any commit has reported: the last one was cut short
        // behind its sync.
        let group = seen.group.replica.group();
        self.ledger.resume(seen.node, &seen.group.replica);
        self.settle(group)
    }

    /// A process has ended.
    pub fn ended(&mut self, node: NodeId, life: u64) {
        self.rules.iter_mut().for_each(|rule| rule.ended(node, life));
    }

    /// A machine has lost a disk for good, or what was on it.
    pub fn gone(&mut self, node: NodeId, storage: StorageId) {
        self.rules.iter_mut().for_each(|rule| rule.gone(node, storage));
    }

    /// A machine runs on this disk from now on; `founders` are those that its cluster was born on.
    pub fn runs_on(&mut self, node: NodeId, storage: StorageId, founders: &Founders) {
        self.ledger.runs_on(node, storage, founders);
    }

    /// A group has lost its connected majority, or has one again.
    ///
    /// # Errors
    /// When a rule is broken.
    pub fn majority(&mut self, group: GroupId, connected: bool, now_millis: u64) -> Verdict {
        self.rules.iter_mut().try_for_each(|rule| rule.majority(group, connected, now_millis))
    }

    /// Time has passed.
    ///
    /// # Errors
    /// When a rule is broken.
    pub fn round(&mut self, group: GroupId, round: u64, now_millis: u64) -> Verdict {
        self.rules.iter_mut().try_for_each(|rule| rule.round(group, round, now_millis))
    }
}
