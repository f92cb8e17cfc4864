//! The judge by values, in `n log n` (after Gibbons & Korach, "Testing Shared Memories", 1997). It decides keys with
//! puts of distinct values and gets, where clients were told no revisions or that of every value; of other keys it
//! finds most contradictions before the search is tried.
//!
//! Where a value is written once, whoever saw it names its write. The write and those who saw its value form a
//! *cluster*. In any legal order the cluster is one block: the write, then those who saw the value, with no other write
//! between; a compare-and-swap ends the block of its old value and begins that of its new one. So cluster A must come
//! before B if some operation of A was answered before some operation of B was sent: `finish(A) < start(B)`, with the
//! *earliest* answer in A and the *latest* sending in B. Two clusters that must each come before the other are a
//! contradiction, on every kind of key.
//!
//! Where there are only puts and gets, that is the whole truth. The blocks can be put in a row unless these demands
//! form a cycle, and then they also form one of two clusters: let A have the earliest finish on the cycle and Z stand
//! before A on it; then `finish(A) <= finish(predecessor of Z) < start(Z)`, so A must come before Z as well as Z
//! before A. Within a block there is one more demand: nobody may be told of the value before its write was sent.
//!
//! Where clients were told the revision of every value, the row is given: by rising revisions. It is legal if no block
//! in it was answered before one to the left of it was sent: `finish(later) >= start(earlier)`. Let then each operation
//! take effect when it has been sent, and everything of the blocks to the left, and (for a read) its own write: none
//! of these is behind its answer, and the blocks come one after the other.

use std::collections::HashMap;

use super::model::{Expect, NIL, Step, Value};
use super::prepare::{Call, Prepared, is_mortal, seen_by, written_by};

/// Why the blocks cannot be put in a row: the operations concerned (indices into the prepared calls) and the reason.
#[derive(Debug)]
pub(super) struct Conflict {
    pub(super) calls: Vec<usize>,
    pub(super) reason: String,
}

/// What the values say.
#[derive(Debug)]
pub(super) enum Zones {
    /// The key is linearizable.
    Right,
    /// The key is not linearizable.
    Wrong(Conflict),
    /// No contradiction, but the key has operations that this judge does not understand in full.
    Open,
}

/// Judges a key by its values.
pub(super) fn judge(key: &Prepared) -> Zones {
    if key.calls.iter().any(|call| matches!(call.step, Step::Add(_) | Step::Append(_))) {
        return Zones::Open; // sums and concatenations may produce any value, too
    }
    let clusters = match gather(&key.calls) {
        Ok(clusters) => clusters,
        Err(conflict) => return Zones::Wrong(conflict),
    };
    if let Some((a, b)) = find_cycle(&clusters) {
        return Zones::Wrong(tell(&clusters[a], &clusters[b]));
    }
    let puts = key.calls.iter().filter(|call| matches!(call.step, Step::Put(_))).count();
    let simple = |call: &Call| {
        matches!(
            (call.step, call.expect),
            (Step::Put(_), Expect::Done | Expect::Effect | Expect::Revision(_))
                | (Step::Get, Expect::Value(_) | Expect::Versioned(..))
        )
    };
    // Every put has a cluster of its own, and the initial absence has one.
    if !key.calls.iter().all(simple) || clusters.len() != puts + 1 {
        return Zones::Open;
    }
    if !key.track_revisions {
        return Zones::Right;
    }
    let Some(row) = by_revision(&clusters) else { return Zones::Open };
    match find_late(&clusters, &row) {
        None => Zones::Right,
        Some((earlier, later)) => {
            let mut conflict = tell(&clusters[earlier], &clusters[later]);
            "a value was current after one of a higher revision".clone_into(&mut conflict.reason);
            Zones::Wrong(conflict)
        }
    }
}

/// The clusters by rising revisions, if every one has a revision that is all its own.
fn by_revision(clusters: &[Cluster]) -> Option<Vec<usize>> {
    let revisions: Vec<u64> =
        clusters.iter().map(|cluster| cluster.revision.known()).collect::<Option<_>>()?;
    let mut row: Vec<usize> = (0..clusters.len()).collect();
    row.sort_by_key(|&index| revisions[index]);
    row.is_sorted_by(|&a, &b| revisions[a] < revisions[b]).then_some(row)
}

/// Two clusters of the row, the right one of which was answered before the left one was sent.
fn find_late(clusters: &[Cluster], row: &[usize]) -> Option<(usize, usize)> {
    let mut latest: Option<usize> = None;
    for &index in row {
        if let Some(earlier) = latest
            && clusters[index].finish.0 < clusters[earlier].start.0
        {
            return Some((earlier, index));
        }
        if latest.is_none_or(|latest| clusters[index].start.0 > clusters[latest].start.0) {
            latest = Some(index);
        }
    }
    None
}

/// The revision of a cluster, by what its members were told.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    Nothing,
    One(u64),
    /// Different ones.
    Several,
}

impl Told {
    fn hear(&mut self, revision: u64) {
        *self = match *self {
            Told::Nothing => Told::One(revision),
            Told::One(before) if before == revision => *self,
            Told::One(_) | Told::Several => Told::Several,
        };
    }

    fn known(self) -> Option<u64> {
        if let Told::One(revision) = self { Some(revision) } else { None }
    }
}

/// A write and those who saw its value. Times are signed so that the initial absence can finish before all time.
struct Cluster {
    /// `None` for the initial absence of the key.
    write: Option<usize>,
    /// Earliest answer, and whose it is.
    finish: (i128, Option<usize>),
    /// Latest sending, and whose it is.
    start: (i128, Option<usize>),
    revision: Told,
}

impl Cluster {
    fn add(&mut self, index: usize, call: &Call) {
        let (invoke, deadline) = (i128::from(call.invoke), i128::from(call.deadline));
        if deadline < self.finish.0 {
            self.finish = (deadline, Some(index));
        }
        if invoke > self.start.0 {
            self.start = (invoke, Some(index));
        }
        if let Expect::Revision(revision) | Expect::Versioned(_, revision) = call.expect {
            self.revision.hear(revision);
        }
    }
}

/// The clusters of all values that only one operation can have written. Absence counts as such a value, written
/// before all time, unless something removes the key or it may vanish by itself.
fn gather(calls: &[Call]) -> Result<Vec<Cluster>, Conflict> {
    let mut writers: HashMap<Value, Vec<usize>> = HashMap::new();
    for (index, call) in calls.iter().enumerate() {
        if let Some(value) = written_by(call) {
            writers.entry(value).or_default().push(index);
        }
    }
    let mut clusters: HashMap<Value, Cluster> = HashMap::new();
    for (&value, writers) in &writers {
        if let (&[only], true) = (writers.as_slice(), value != NIL) {
            let (finish, start) = ((i128::MAX, None), (-1, None));
            let mut cluster = Cluster { write: Some(only), finish, start, revision: Told::Nothing };
            cluster.add(only, &calls[only]);
            clusters.insert(value, cluster);
        }
    }
    if !writers.contains_key(&NIL) && !is_mortal(calls) {
        let (finish, start) = ((-1, None), (-1, None));
        clusters.insert(NIL, Cluster { write: None, finish, start, revision: Told::One(0) });
    }
    for (index, call) in calls.iter().enumerate() {
        let Some(value) = seen_by(call) else { continue };
        let Some(cluster) = clusters.get_mut(&value) else {
            if value == NIL || writers.contains_key(&value) {
                continue; // several may have written it
            }
            let reason = "a value was read that nobody ever wrote".to_owned();
            return Err(Conflict { calls: vec![index], reason });
        };
        if let Some(write) = cluster.write
            && call.deadline < calls[write].invoke
        {
            let reason = "a value was read before its put was sent".to_owned();
            return Err(Conflict { calls: vec![index, write], reason });
        }
        cluster.add(index, call);
    }
    let mut clusters: Vec<Cluster> = clusters.into_values().collect();
    clusters.sort_by_key(|cluster| cluster.write);
    Ok(clusters)
}

/// Two clusters each of which must come before the other.
fn find_cycle(clusters: &[Cluster]) -> Option<(usize, usize)> {
    let mut by_finish: Vec<usize> = (0..clusters.len()).collect();
    by_finish.sort_by_key(|&index| clusters[index].finish.0);
    // The two clusters of latest start among the first n by finish; two, because a cluster is no rival of itself.
    let mut latest: Vec<[Option<usize>; 2]> = Vec::with_capacity(clusters.len() + 1);
    latest.push([None, None]);
    for &index in &by_finish {
        let [first, second] = latest[latest.len() - 1];
        let later = |other: Option<usize>| {
            other.is_none_or(|other| clusters[index].start.0 > clusters[other].start.0)
        };
        latest.push(if later(first) {
            [Some(index), first]
        } else if later(second) {
            [first, Some(index)]
        } else {
            [first, second]
        });
    }
    for (index, cluster) in clusters.iter().enumerate() {
        let before = by_finish.partition_point(|&other| clusters[other].finish.0 < cluster.start.0);
        let rival = latest[before].into_iter().flatten().find(|&other| other != index);
        if let Some(rival) = rival
            && clusters[rival].start.0 > cluster.finish.0
        {
            return Some((index, rival));
        }
    }
    None
}

fn tell(a: &Cluster, b: &Cluster) -> Conflict {
    let mut involved: Vec<usize> =
        [a, b].iter().flat_map(|c| [c.write, c.finish.1, c.start.1]).flatten().collect();
    involved.sort_unstable();
    involved.dedup();
    let reason = if a.write.is_none() || b.write.is_none() {
        "the key was seen absent after a write to it was acknowledged or seen".to_owned()
    } else {
        "each of two values was current before the other and after it".to_owned()
    };
    Conflict { calls: involved, reason }
}
