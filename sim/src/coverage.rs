//! How often what happened. An event that never occurs in a whole swarm is reported: a fault
//! that is never injected and a branch that is never taken prove nothing.

use groups::paxos::Counters;

use crate::fault::{KINDS, Kind};

/// Everything worth counting that is no fault and has no counter in the product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it; see `EVENTS`")]
pub enum Event {
    Start,
    Death,
    TornTail,
    Rotation,
    SpaceAwaited,
    DamageRefused,
    Rotted,
    Healed,
    Renewed,
    Lapsed,
    Stranger,
    LostBeforeBirth,
    LongPromise,
    LateEvents,
    NoMajority,
    MajorityBack,
    DecidedAgain,
    InDoubt,
    NotApplied,
    Unanswered,
    Unmet,
    Transfer,
    TransferUnmet,
    Count,
    OrderedRead,
    Settled,
    Dropped,
    Stateless,
    SealedRead,
    Pinned,
    Scanned,
    Watched,
    Resent,
    Echoed,
    LivesEnded,
    Rosters,
}

/// The events and what they are called in the report.
pub const EVENTS: &[(Event, &str)] = &[
    (Event::Start, "processes started"),
    (Event::Death, "processes ended by a failing disk"),
    (Event::TornTail, "torn tails cut"),
    (Event::Rotation, "segments begun"),
    (Event::SpaceAwaited, "commits that waited for space"),
    (Event::DamageRefused, "damaged logs refused"),
    (Event::Rotted, "sealed segments that rotted in a running node"),
    (Event::Healed, "rotten segments dropped by the node itself"),
    (Event::Renewed, "nodes that went on as another disk"),
    (Event::Lapsed, "older copies of a disk found out"),
    (Event::Stranger, "empty disks put into machines of a born cluster"),
    (Event::LostBeforeBirth, "disks lost before the birth was over"),
    (Event::LongPromise, "promises in several parts"),
    (Event::LateEvents, "events that met a paused process"),
    (Event::NoMajority, "times a group lost its connected majority"),
    (Event::MajorityBack, "times it came back"),
    (Event::DecidedAgain, "values proposed again after they were chosen"),
    (Event::InDoubt, "operations in doubt"),
    (Event::NotApplied, "operations refused"),
    (Event::Unanswered, "operations never answered"),
    (Event::Unmet, "conditions not met"),
    (Event::Transfer, "transfers between accounts"),
    (Event::TransferUnmet, "transfers that met a change"),
    (Event::Count, "times all accounts were counted"),
    (Event::OrderedRead, "reads behind a write of their own pipeline"),
    (Event::Settled, "checkpoints verified and recorded"),
    (Event::Dropped, "segments of the log dropped"),
    (Event::Stateless, "groups started without their state"),
    (Event::SealedRead, "values read for peers from sealed segments"),
    (Event::Pinned, "segments kept because they were being sent"),
    (Event::Scanned, "pages and steps of walks"),
    (Event::Watched, "answers to watches"),
    (Event::Resent, "numbered writes in doubt sent again"),
    (Event::Echoed, "numbered writes answered a second time"),
    (Event::LivesEnded, "entries that ended lives"),
    (Event::Rosters, "changes of the roster asked for"),
];

/// Counts of one run, or of many.
#[derive(Clone, Debug)]
pub struct Coverage {
    faults: Vec<u64>,
    events: Vec<u64>,
    /// The product's own.
    pub counters: Counters,
}

impl Default for Coverage {
    fn default() -> Coverage {
        Coverage {
            faults: vec![0; KINDS.len()],
            events: vec![0; EVENTS.len()],
            counters: Counters::default(),
        }
    }
}

impl Coverage {
    /// Counts a fault.
    pub fn fault(&mut self, kind: Kind) {
        self.faults[kind as usize] += 1;
    }

    /// Counts an event.
    pub fn event(&mut self, event: Event) {
        self.events(event, 1);
    }

    /// Counts several alike.
    pub fn events(&mut self, event: Event, count: u64) {
        self.events[event as usize] += count;
    }

    /// Adds the product's counters of one replica's life.
    pub fn count(&mut self, c: &Counters) {
        let sum = &mut self.counters;
        sum.probes += c.probes;
        sum.candidacies += c.candidacies;
        sum.elected += c.elected;
        sum.deposed += c.deposed;
        sum.isolated += c.isolated;
        sum.transfers += c.transfers;
        sum.adopted += c.adopted;
        sum.gaps += c.gaps;
        sum.resent += c.resent;
        sum.learned += c.learned;
        sum.log_reads += c.log_reads;
        sum.sessions += c.sessions;
        sum.resumed += c.resumed;
        sum.reopened += c.reopened;
        sum.sticky += c.sticky;
        sum.bound += c.bound;
        sum.leased += c.leased;
        sum.too_far += c.too_far;
        sum.installed += c.installed;
        sum.changes += c.changes;
        sum.admissions += c.admissions;
        sum.outdated += c.outdated;
        sum.checked += c.checked;
        sum.parted += c.parted;
    }

    /// Adds another run's counts.
    pub fn add(&mut self, other: &Coverage) {
        self.faults.iter_mut().zip(&other.faults).for_each(|(a, b)| *a += b);
        self.events.iter_mut().zip(&other.events).for_each(|(a, b)| *a += b);
        self.count(&other.counters);
    }

    /// Every count with its name: faults, then the simulator's events, then the product's.
    #[must_use]
    pub fn lines(&self) -> Vec<(&'static str, u64)> {
        let c = &self.counters;
        let faults = KINDS.iter().map(|k| (k.name, self.faults[k.kind as usize]));
        let events = EVENTS.iter().map(|(event, name)| (*name, self.events[*event as usize]));
        let product = [
            ("probe rounds", c.probes),
            ("ballots raised", c.candidacies),
            ("leaderships won", c.elected),
            ("leaderships lost", c.deposed),
            ("leaderships given up without a majority", c.isolated),
            ("leaderships handed over", c.transfers),
            ("values adopted", c.adopted),
            ("gaps filled", c.gaps),
            ("accepts repeated", c.resent),
            ("values learned", c.learned),
            ("chunks read from the log", c.log_reads),
            ("learning sessions", c.sessions),
            ("learning sessions resumed with another peer", c.resumed),
            ("learning sessions opened anew behind a lost chunk", c.reopened),
            ("prepares ignored for a live leader", c.sticky),
            ("prepares ignored for a lease", c.bound),
            ("reads answered on a lease", c.leased),
            ("accepts refused as too far ahead", c.too_far),
            ("new disks proposed as members", c.admissions),
            ("changes of members chosen, over all replicas", c.changes),
            ("candidacies given up for members not known yet", c.outdated),
            ("checkpoints of peers installed", c.installed),
            ("states compared", c.checked),
            ("groups given up by nodes that were taken out", c.parted),
        ];
        faults.chain(events).chain(product).collect()
    }
}
