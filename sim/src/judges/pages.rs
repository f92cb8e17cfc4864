//! What reads of many keys see (the promise of `RANGE`, `SCAN` and `SUBSCRIBEKV`).
//!
//! A page is what a group held at one revision, no older than what anybody had been told when it was
//! asked for (Herlihy and Wing, "Linearizability", 1990: a read of many keys is one operation). A walk
//! has met every key that was there all the time. A watch is told every change of its keys, in order,
//! or that some are gone.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use groups::ids::GroupId;
use groups::kv::{Change, Outcome, Page, Range};

use super::{GroupLedger, Ledger, Verdict};

type Held = BTreeMap<Bytes, Bytes>;

/// What is known of the groups, for judging pages.
pub struct Pages {
    groups: Vec<Known>,
}

#[derive(Default)]
struct Known {
    /// Somebody was told of this revision: what is read from now on is at least as new.
    floor: u64,
    /// What the group held at `revision`, which is not above the floor when a page was last asked for.
    held: Held,
    revision: u64,
}

impl Known {
    fn forward(&mut self, change: &Change) {
        match &change.value {
            Some(value) => self.held.insert(change.key.clone(), value.clone()),
            None => self.held.remove(&change.key),
        };
        self.revision = change.revision;
    }
}

impl Pages {
    /// Nothing is known of so many groups.
    #[must_use]
    pub fn new(groups: u32) -> Pages {
        Pages { groups: (0..groups).map(|_| Known::default()).collect() }
    }

    /// Somebody was told of a revision.
    pub fn known(&mut self, group: GroupId, revision: u64) {
        let known = &mut self.groups[group.0 as usize];
        known.floor = known.floor.max(revision);
    }

    /// The newest revision that anybody was told of.
    #[must_use]
    pub fn floor(&self, group: GroupId) -> u64 {
        self.groups[group.0 as usize].floor
    }

    /// A page of a group is asked for: it is judged from what is known now.
    pub fn begin(&mut self, group: GroupId, ledger: &Ledger) {
        let known = &mut self.groups[group.0 as usize];
        for change in ledger.group(group).changes(known.revision, known.floor) {
            known.forward(change);
        }
    }

    /// A page has come.
    ///
    /// # Errors
    /// When the group never held just this since the page was asked for.
    pub fn judge(&mut self, group: GroupId, range: &Range, page: &Page, ledger: &Ledger) -> Verdict {
        let ledger = ledger.group(group);
        let known = &self.groups[group.0 as usize];
        let mut now = Known { held: known.held.clone(), ..*known };
        let mut rest = ledger.changes(known.revision, ledger.revision()).iter();
        loop {
            if is_page(&now.held, range, page) {
                let revision = now.revision;
                self.known(group, revision);
                return Ok(());
            }
            match rest.next() {
                Some(change) => now.forward(change),
                None => break,
            }
        }
        Err(format!(
            "group {group} held at no revision from {} to {} what its page {range:?} says: {page:?}",
            known.revision,
            ledger.revision()
        ))
    }

    /// A walk through a group that began when it was at least at revision `began` is over.
    ///
    /// # Errors
    /// When it has not met a key that was there all the time.
    pub fn judge_walk(&self, group: GroupId, began: u64, met: &BTreeSet<Bytes>, ledger: &Ledger) -> Verdict {
        let ledger = ledger.group(group);
        let mut steady = Known::default();
        for change in ledger.changes(0, began) {
            steady.forward(change);
        }
        for change in ledger.changes(began, ledger.revision()).iter().filter(|c| c.value.is_none()) {
            steady.held.remove(&change.key);
        }
        match steady.held.keys().find(|key| !met.contains(*key)) {
            None => Ok(()),
            Some(key) => Err(format!(
                "a walk through group {group} has not met {key:?}, which was there from revision {began} on"
            )),
        }
    }
}

/// Whether the page begins with the first key of the range, leaves out none, and says truly where it ends.
fn is_page(held: &Held, range: &Range, page: &Page) -> bool {
    let mut rest = held.range(range.from.clone()..);
    page.items.iter().all(|(key, value)| rest.next() == value.as_ref().map(|value| (key, value)))
        && rest.next().map(|(key, _)| key) == page.next.as_ref()
}

impl GroupLedger {
    /// The revision of the chosen prefix.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.changes.len() as u64
    }

    /// What was changed behind one revision, up to another.
    pub(super) fn changes(&self, after: u64, through: u64) -> &[Change] {
        let end = (through as usize).min(self.changes.len());
        &self.changes[(after as usize).min(end)..end]
    }

    /// What a watch of keys that begin with `prefix`, which has been told everything up to `after`, is
    /// told next. Returns what it then has been told.
    ///
    /// # Errors
    /// When a change is left out, made up, or told out of its order.
    pub fn judge_changes(
        &self,
        group: GroupId,
        after: u64,
        prefix: &[u8],
        outcome: &Outcome,
    ) -> Result<u64, String> {
        match outcome {
            Outcome::Compacted { min } if *min > after && *min <= self.revision() => Ok(*min),
            Outcome::Changes { changes, through } if *through >= after => {
                if *through > self.revision().max(after) {
                    return Err(format!(
                        "a watch of group {group} is told of revision {through}, chosen is {}",
                        self.revision()
                    ));
                }
                let expected = self.changes(after, *through).iter().filter(|c| c.key.starts_with(prefix));
                if expected.eq(changes) {
                    return Ok(*through);
                }
                let revisions: Vec<u64> = changes.iter().map(|c| c.revision).collect();
                Err(format!(
                    "a watch of group {group} is told of revisions {revisions:?} between {after} and {through}, which \
                     is not what was chosen"
                ))
            }
            other => Err(format!("a watch of group {group} behind {after} is told {other:?}")),
        }
    }
}
