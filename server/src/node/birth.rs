//! The birth of a cluster: unanimous, once, without a flag that says "new".
//!
//! An empty node says who it is and what it sees. When it sees every configured node, all empty
//! and all configured alike, it votes, durably, for the birth with exactly these disks; one disk
//! votes once in its life. When it has seen every founder's vote for the same disks, the cluster
//! is born; its id follows from the founders. A node that was away in that moment learns of it
//! from any founder, who names the disks: it is one of them or it is a replacement.
//!
//! A disk that has voted for a birth that can be no more, because the disk of another of its founders has voted for others,
//! is free again: late words may have told an empty disk that nobody is born yet.
//!
//! A disk that is none of the founders' joins the cluster once a majority of its nodes has told of
//! it, and of the newest life of this node that they remember: it begins behind that. It learns
//! and serves, and each group takes it in by a chosen value. Should the majority be gone, it waits.
//!
//! Two clusters cannot come of one configuration: a birth needs the vote of every founder's
//! disk, and the votes of a disk never change.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};
use groups::ids::{Boot, ClusterId, NodeId, StorageId};
use groups::planted::{self, Bug};
use xxhash_rust::xxh3::xxh3_128;

use super::manifest::{Founders, Stage};
use super::roster::Roster;
use super::wire;

/// What a node says about itself while anybody is unborn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// What must be the same in every founder's configuration.
    pub fingerprint: u64,
    /// What stays the same for ever of that: who joins later need not list the nodes that were there.
    pub terms: u64,
    /// The sender's disk.
    pub storage: StorageId,
    /// How far the birth has come there.
    pub stage: Stage,
    /// The newest life of the receiver that the sender has heard of; 0 for none.
    pub heard: Boot,
    /// Who the cluster's nodes are now; from the born alone.
    pub roster: Option<Arc<Roster>>,
}

impl Word {
    /// The bytes of a frame body.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        out.put_u64_le(self.fingerprint);
        out.put_u64_le(self.terms);
        out.put_u128_le(self.storage.0);
        out.put_u64_le(self.heard.0);
        let (stage, cluster, founders) = match &self.stage {
            Stage::Empty => (0, ClusterId(0), &[][..]),
            Stage::Replacement => (3, ClusterId(0), &[][..]),
            Stage::Voted(founders) => (1, ClusterId(0), &founders[..]),
            Stage::Born(cluster, founders) => (2, *cluster, &founders[..]),
        };
        out.put_u8(stage);
        out.put_u128_le(cluster.0);
        out.put_u32_le(founders.len() as u32);
        for (node, storage) in founders {
            out.put_u32_le(node.0);
            out.put_u128_le(storage.0);
        }
        if let Some(roster) = &self.roster {
            out.extend(wire::encode_roster(roster));
        }
        out
    }

    /// Reads a frame body; `None` when it is no word.
    #[must_use]
    pub fn decode(mut body: Bytes) -> Option<Word> {
        let fingerprint = body.try_get_u64_le().ok()?;
        let terms = body.try_get_u64_le().ok()?;
        let storage = StorageId(body.try_get_u128_le().ok()?);
        let heard = Boot(body.try_get_u64_le().ok()?);
        let stage = body.try_get_u8().ok()?;
        let cluster = ClusterId(body.try_get_u128_le().ok()?);
        let count = body.try_get_u32_le().ok()? as usize;
        if count.saturating_mul(20) > body.len() {
            return None;
        }
        let founders: Founders =
            (0..count).map(|_| (NodeId(body.get_u32_le()), StorageId(body.get_u128_le()))).collect();
        let roster = match body.is_empty() {
            true => None,
            false => Some(Arc::new(wire::decode_roster(body)?)),
        };
        let stage = match stage {
            0 if founders.is_empty() => Stage::Empty,
            1 => Stage::Voted(founders),
            2 => Stage::Born(cluster, founders),
            3 if founders.is_empty() => Stage::Replacement,
            _ => return None,
        };
        (roster.is_some() == matches!(stage, Stage::Born(..))).then_some(Word {
            fingerprint,
            terms,
            storage,
            stage,
            heard,
            roster,
        })
    }
}

/// What keeps the cluster from being born, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// These nodes have not been seen yet.
    For(Vec<NodeId>),
    /// Everybody is there; the votes of these are missing.
    Votes(Vec<NodeId>),
    /// This node is configured differently.
    Configuration(NodeId),
    /// This node's disk was replaced in the middle of the birth.
    Replaced(NodeId),
    /// The cluster exists, and this node's disk is not one of its founders': so many nodes of it
    /// have been heard, so many must be.
    Stranger(ClusterId, usize, usize),
    /// The cluster exists, and this node's disk has voted for the birth of another, of which nobody can say any more
    /// that it is not born.
    Bound(ClusterId),
    /// The cluster exists and has no such node.
    Unlisted(ClusterId, NodeId),
    /// This node's directory has lost its memory, and no node has told of a cluster yet.
    Lost(Vec<NodeId>),
}

/// A node before its cluster is born.
#[derive(Debug)]
pub struct Birth {
    me: NodeId,
    name: String,
    nodes: Vec<NodeId>,
    own: Word,
    seen: BTreeMap<NodeId, Word>,
}

impl Birth {
    /// A node that is not born yet, in a cluster of `nodes`.
    #[must_use]
    pub fn new(me: NodeId, name: &str, mut nodes: Vec<NodeId>, own: Word) -> Birth {
        nodes.sort_unstable();
        Birth { me, name: name.into(), nodes, own, seen: BTreeMap::new() }
    }

    /// The newest life of this node that a peer remembers.
    #[must_use]
    pub fn heard(&self) -> Boot {
        self.seen.values().map(|w| w.heard).max().unwrap_or_default()
    }

    /// What to say to every peer, now and then.
    #[must_use]
    pub fn word(&self) -> &Word {
        &self.own
    }

    /// Takes a peer's word. Returns the stage to write down before anything else is said, if it
    /// has changed.
    pub fn hear(&mut self, from: NodeId, mut word: Word) -> Option<Stage> {
        let born = matches!(word.stage, Stage::Born(..));
        if from == self.me || !(born || self.nodes.contains(&from)) {
            return None;
        }
        // A disk goes on and never back, and its list of nodes only grows newer: what says less than it has said
        // already was sent before and came late.
        let newness =
            |word: &Word| (word.stage.progress(), word.roster.as_ref().map(|roster| roster.version()));
        match self.seen.get(&from).filter(|seen| seen.storage == word.storage) {
            Some(seen) if newness(&word) < newness(seen) => {}
            seen => {
                word.heard = word.heard.max(seen.map_or(Boot(0), |seen| seen.heard));
                self.seen.insert(from, word);
            }
        }
        self.advance()
    }

    /// Looks whether the next step can be taken; needed once for a cluster of one node.
    pub fn advance(&mut self) -> Option<Stage> {
        let stage = self.next()?;
        self.own.stage = stage.clone();
        Some(stage)
    }

    fn next(&self) -> Option<Stage> {
        if matches!(self.own.stage, Stage::Born(..)) {
            return None;
        }
        // A founder that missed the moment.
        let me = (self.me, self.own.storage);
        for word in self.seen.values().filter(|w| w.terms == self.own.terms) {
            if let Stage::Born(cluster, founders) = &word.stage
                && founders.contains(&me)
            {
                return Some(Stage::Born(*cluster, founders.clone()));
            }
        }
        // A disk in the place of a founder's.
        let free = match &self.own.stage {
            Stage::Empty | Stage::Replacement => true,
            Stage::Voted(founders) => self.is_void(founders),
            Stage::Born(..) => false,
        };
        if free
            && self.roster().is_some_and(|roster| roster.node(self.me).is_some())
            && let Some((cluster, founders)) = self.cluster_of_others()
            && self.tellers(cluster) >= self.needed()
        {
            return Some(Stage::Born(cluster, founders.clone()));
        }
        let others = || self.nodes.iter().filter(|n| **n != self.me);
        if !others().all(|n| self.seen.get(n).is_some_and(|w| w.fingerprint == self.own.fingerprint)) {
            return None;
        }
        match &self.own.stage {
            Stage::Voted(founders) if planted::is(Bug::BirthVotesAgain) && *founders != self.founders() => {
                Some(Stage::Voted(self.founders()))
            }
            Stage::Empty => {
                let founders = self.founders();
                // Whoever has voted already must have voted for the same.
                let agreed = self.seen.values().all(|w| match &w.stage {
                    Stage::Empty => true,
                    Stage::Voted(f) => *f == founders,
                    Stage::Born(..) | Stage::Replacement => false,
                });
                agreed.then_some(Stage::Voted(founders))
            }
            Stage::Voted(founders) => {
                let unanimous = others()
                    .all(|n| self.seen.get(n).is_some_and(|w| w.stage == Stage::Voted(founders.clone())));
                unanimous.then(|| Stage::Born(cluster_id(&self.name, founders), founders.clone()))
            }
            Stage::Born(..) | Stage::Replacement => None,
        }
    }

    /// Whether there can be no cluster of these founders: the disk of one of them has voted for others.
    fn is_void(&self, founders: &Founders) -> bool {
        self.seen.iter().any(|(node, word)| match &word.stage {
            Stage::Born(_, theirs) => {
                let disk = (*node, word.storage);
                theirs != founders && theirs.contains(&disk) && founders.contains(&disk)
            }
            _ => false,
        })
    }

    /// A cluster that this disk did not found, if anybody tells of one.
    fn cluster_of_others(&self) -> Option<(ClusterId, &Founders)> {
        self.seen.values().filter(|w| w.terms == self.own.terms).find_map(|word| match &word.stage {
            Stage::Born(cluster, founders) => Some((*cluster, founders)),
            _ => None,
        })
    }

    /// The newest list of the cluster's nodes that a born one has told of.
    #[must_use]
    pub fn roster(&self) -> Option<&Arc<Roster>> {
        let told = self.seen.values().filter(|w| w.terms == self.own.terms);
        told.filter_map(|w| w.roster.as_ref()).max_by_key(|roster| roster.version())
    }

    /// How many nodes tell of this cluster.
    fn tellers(&self, cluster: ClusterId) -> usize {
        let tells = |w: &&Word| {
            w.terms == self.own.terms && matches!(&w.stage, Stage::Born(theirs, _) if *theirs == cluster)
        };
        self.seen.values().filter(tells).count()
    }

    /// How many nodes must tell of a cluster before a new disk joins it: enough that one of them
    /// has heard whatever the old disk had made a majority believe: of `n` nodes that one made `n / 2`
    /// others believe something at least, and so many of the others meet any such set.
    fn needed(&self) -> usize {
        let nodes = self.roster().map_or(self.nodes.len(), |roster| roster.nodes().len());
        nodes - nodes / 2
    }

    fn founders(&self) -> Founders {
        self.nodes
            .iter()
            .map(|n| match self.seen.get(n) {
                Some(word) if *n != self.me => (*n, word.storage),
                _ => (*n, self.own.storage),
            })
            .collect()
    }

    /// What it waits for.
    #[must_use]
    pub fn waiting(&self) -> Waiting {
        for (node, word) in &self.seen {
            let alike = match word.stage {
                Stage::Born(..) => word.terms == self.own.terms,
                _ => word.fingerprint == self.own.fingerprint,
            };
            if !alike {
                return Waiting::Configuration(*node);
            }
        }
        if let Some((cluster, _)) = self.cluster_of_others()
            && self.roster().is_some_and(|roster| roster.node(self.me).is_none())
        {
            return Waiting::Unlisted(cluster, self.me);
        }
        if let Some((cluster, founders)) = self.cluster_of_others()
            && !founders.contains(&(self.me, self.own.storage))
        {
            if let Stage::Voted(voted) = &self.own.stage
                && !self.is_void(voted)
                && self.tellers(cluster) >= self.needed()
            {
                return Waiting::Bound(cluster);
            }
            return Waiting::Stranger(cluster, self.tellers(cluster), self.needed());
        }
        let mut lost: Vec<NodeId> =
            self.seen.iter().filter(|(_, w)| w.stage == Stage::Replacement).map(|(n, _)| *n).collect();
        if self.own.stage == Stage::Replacement {
            lost.push(self.me);
        }
        if !lost.is_empty() {
            return Waiting::Lost(lost);
        }
        let missing: Vec<NodeId> =
            self.nodes.iter().copied().filter(|n| *n != self.me && !self.seen.contains_key(n)).collect();
        if !missing.is_empty() {
            return Waiting::For(missing);
        }
        if let Stage::Voted(founders) = &self.own.stage {
            let replaced = founders
                .iter()
                .find(|(n, s)| *n != self.me && self.seen.get(n).is_some_and(|w| w.storage != *s));
            if let Some((node, _)) = replaced {
                return Waiting::Replaced(*node);
            }
        }
        let voted = |n: &NodeId| self.seen.get(n).is_some_and(|w| w.stage != Stage::Empty);
        Waiting::Votes(self.nodes.iter().copied().filter(|n| *n != self.me && !voted(n)).collect())
    }
}

impl std::fmt::Display for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let list = |nodes: &[NodeId]| {
            let names: Vec<String> = nodes.iter().map(|n| format!("node {n}")).collect();
            names.join(", ")
        };
        match self {
            Waiting::For(nodes) => write!(
                f,
                "a new cluster is born once every configured node is present; waiting for {}. \
                 Start them, or check peer_addr in config.toml. Does the cluster exist already? Then add this node: \
                 pelago admin member add",
                list(nodes)
            ),
            Waiting::Votes(nodes) => {
                write!(f, "every node is present; waiting for the agreement of {}", list(nodes))
            }
            Waiting::Configuration(node) => write!(
                f,
                "node {node} was started with another cluster name, node list, groups or replication. \
                 Nothing was written. Give all nodes the same config.toml and start them again"
            ),
            Waiting::Replaced(node) => write!(
                f,
                "the disk of node {node} was replaced while the cluster was being born. Nothing has been \
                 stored yet: stop all nodes, empty their data directories and start them again"
            ),
            Waiting::Stranger(cluster, heard, needed) => write!(
                f,
                "cluster {cluster} exists and this node's data directory is new to it: it joins as a replacement \
                 once {needed} other nodes are heard, {heard} are now. Nothing is served here meanwhile. Start the \
                 other nodes; without a majority of the old disks nobody can vouch for the data"
            ),
            Waiting::Bound(cluster) => write!(
                f,
                "cluster {cluster} exists, and this data directory has voted for the birth of another one with other \
                 disks, which may be born elsewhere: it joins none. Nothing was ever stored in it. To join cluster \
                 {cluster}, stop this node, empty its data directory and start it again"
            ),
            Waiting::Unlisted(cluster, me) => write!(
                f,
                "cluster {cluster} exists and has no node {me}. Nothing is served here meanwhile. Run: pelago admin \
                 member add {me} --peer-addr … --client-addr … --addr (a node of the cluster)"
            ),
            Waiting::Lost(nodes) => write!(
                f,
                "the data directory of {} has lost its memory (what was left is in its folder aside), so no new \
                 cluster is born; waiting for a node that still has the old one. Start the others. To begin a new \
                 cluster instead, stop all nodes and empty their data directories",
                list(nodes)
            ),
        }
    }
}

/// The cluster's id follows from its name and founders, so that all who vote alike compute the
/// same one.
fn cluster_id(name: &str, founders: &Founders) -> ClusterId {
    let mut bytes = Vec::with_capacity(name.len() + founders.len() * 20);
    bytes.extend_from_slice(name.as_bytes());
    bytes.push(0);
    for (node, storage) in founders {
        bytes.extend_from_slice(&node.0.to_le_bytes());
        bytes.extend_from_slice(&storage.0.to_le_bytes());
    }
    // Zero is kept for "not born".
    ClusterId(xxh3_128(&bytes).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::roster::tests::{born, entry};

    fn word(storage: u128, stage: Stage) -> Word {
        Word { fingerprint: 1, terms: 1, storage: StorageId(storage), stage, heard: Boot(0), roster: None }
    }

    /// What a born node says to the others.
    fn told(b: &Birth, heard: u64) -> Word {
        let roster = born(b.nodes.len() as u32, 4, b.nodes.len());
        Word { heard: Boot(heard), roster: Some(Arc::new(roster)), ..b.word().clone() }
    }

    fn birth(me: u32, storage: u128, nodes: u32) -> Birth {
        let stage = Stage::Empty;
        let own = word(storage, stage);
        Birth::new(NodeId(me), "t", (1..=nodes).map(NodeId).collect(), own)
    }

    /// Lets all speak to all, in rounds, as long as anything changes.
    fn talk(births: &mut [&mut Birth]) {
        for _ in 0..10 {
            for i in 0..births.len() {
                let (from, word) = (births[i].me, births[i].word().clone());
                for (j, b) in births.iter_mut().enumerate() {
                    if i != j {
                        b.hear(from, word.clone());
                    }
                }
            }
        }
    }

    fn cluster(b: &Birth) -> Option<ClusterId> {
        match &b.word().stage {
            Stage::Born(c, _) => Some(*c),
            _ => None,
        }
    }

    #[test]
    fn all_present_and_empty_are_born_alike() {
        let (mut a, mut b, mut c) = (birth(1, 11, 3), birth(2, 22, 3), birth(3, 33, 3));
        talk(&mut [&mut a, &mut b]);
        assert_eq!((cluster(&a), a.waiting()), (None, Waiting::For(vec![NodeId(3)])));
        talk(&mut [&mut a, &mut b, &mut c]);
        assert!(cluster(&a).is_some());
        assert_eq!(cluster(&a), cluster(&b));
        assert_eq!(cluster(&a), cluster(&c));
    }

    #[test]
    fn one_node_alone_is_its_own_majority() {
        let mut a = birth(1, 11, 1);
        assert!(matches!(a.advance(), Some(Stage::Voted(_))));
        assert!(matches!(a.advance(), Some(Stage::Born(..))));
    }

    #[test]
    fn a_founder_that_missed_the_moment_learns_and_a_new_disk_joins_by_a_majority() {
        let (mut a, mut b, mut c) = (birth(1, 11, 3), birth(2, 22, 3), birth(3, 33, 3));
        talk(&mut [&mut a, &mut b, &mut c]);
        let mut late = birth(2, 22, 3);
        late.hear(NodeId(1), told(&a, 0));
        assert_eq!(cluster(&late), cluster(&a));
        let mut fresh = birth(2, 99, 3);
        fresh.hear(NodeId(1), told(&a, 7));
        assert_eq!(fresh.word().stage, Stage::Empty, "it does not vote for a birth, and one node is too few");
        let id = cluster(&a).unwrap();
        assert_eq!(fresh.waiting(), Waiting::Stranger(id, 1, 2));
        fresh.hear(NodeId(3), told(&c, 9));
        assert_eq!((cluster(&fresh), fresh.heard()), (Some(id), Boot(9)));
    }

    #[test]
    fn a_node_that_was_not_there_at_the_birth_joins_once_the_cluster_knows_it() {
        let (mut a, mut b, mut c) = (birth(1, 11, 3), birth(2, 22, 3), birth(3, 33, 3));
        talk(&mut [&mut a, &mut b, &mut c]);
        let id = cluster(&a).unwrap();
        // Its configuration lists itself and one of them.
        let mut fourth = birth(4, 44, 1);
        fourth.nodes = vec![NodeId(1), NodeId(4)];
        fourth.own.fingerprint = 2;
        fourth.hear(NodeId(1), told(&a, 0));
        assert_eq!((cluster(&fourth), fourth.waiting()), (None, Waiting::Unlisted(id, NodeId(4))));
        let roster = Arc::new(born(3, 4, 3).add(entry(4), 3).expect("a new node"));
        fourth.hear(NodeId(1), Word { roster: Some(Arc::clone(&roster)), ..told(&a, 0) });
        assert_eq!(fourth.waiting(), Waiting::Stranger(id, 1, 2));
        fourth.hear(NodeId(3), told(&c, 0));
        assert_eq!(cluster(&fourth), Some(id));
        assert_eq!(fourth.roster(), Some(&roster), "the newest of those that it was told of");
    }

    #[test]
    fn a_directory_that_has_lost_its_memory_takes_no_part_in_a_birth() {
        let (mut a, mut b, mut c) = (birth(1, 11, 3), birth(2, 22, 3), birth(3, 33, 3));
        c.own.stage = Stage::Replacement;
        talk(&mut [&mut a, &mut b, &mut c]);
        assert_eq!((cluster(&a), cluster(&b), cluster(&c)), (None, None, None));
        assert_eq!(a.word().stage, Stage::Empty);
        assert_eq!(
            (a.waiting(), c.waiting()),
            (Waiting::Lost(vec![NodeId(3)]), Waiting::Lost(vec![NodeId(3)]))
        );
    }

    #[test]
    fn a_disk_replaced_during_the_birth_stops_it_and_never_makes_two_clusters() {
        let (mut a, mut b, mut c) = (birth(1, 11, 3), birth(2, 22, 3), birth(3, 33, 3));
        // a and b see everybody and vote; c is replaced before it votes.
        for (from, word) in [(2, b.word().clone()), (3, c.word().clone())] {
            a.hear(NodeId(from), word);
        }
        for (from, word) in [(1, a.word().clone()), (3, c.word().clone())] {
            b.hear(NodeId(from), word);
        }
        assert!(matches!(a.word().stage, Stage::Voted(_)));
        c = birth(3, 44, 3);
        talk(&mut [&mut a, &mut b, &mut c]);
        assert_eq!((cluster(&a), cluster(&b), cluster(&c)), (None, None, None));
        assert_eq!(a.waiting(), Waiting::Replaced(NodeId(3)));
    }

    #[test]
    fn late_words_of_the_time_before_the_birth_bind_no_new_disk() {
        // The story (seed 9012748): node 1's disk is lost right after the birth. The new one hears node 3, which is
        // born, and then, a second late, the words of nodes 2 and 3 from when they were empty. It took all for empty,
        // voted for a birth with them, and was no member of the cluster for ever after.
        let (mut a, mut b, mut c) = (birth(1, 11, 3), birth(2, 22, 3), birth(3, 33, 3));
        let late = [(2, b.word().clone()), (3, c.word().clone())];
        talk(&mut [&mut a, &mut b, &mut c]);
        let id = cluster(&a);
        let mut fresh = birth(1, 99, 3);
        fresh.hear(NodeId(3), told(&c, 0));
        for (from, word) in late.clone() {
            fresh.hear(NodeId(from), word);
        }
        assert_eq!(fresh.word().stage, Stage::Empty, "node 3 is born, whatever it said before");
        fresh.hear(NodeId(2), told(&b, 0));
        assert_eq!(cluster(&fresh), id);

        // Where nothing else was heard before them it votes; that binds it to nothing, because node 2's disk has voted
        // for others.
        let mut fresh = birth(1, 99, 3);
        for (from, word) in late {
            fresh.hear(NodeId(from), word);
        }
        assert!(matches!(fresh.word().stage, Stage::Voted(_)));
        fresh.hear(NodeId(2), told(&b, 4));
        assert_eq!(
            fresh.waiting(),
            Waiting::Stranger(id.unwrap(), 1, 2),
            "one node is too few, as for an empty disk"
        );
        fresh.hear(NodeId(3), told(&c, 6));
        assert_eq!((cluster(&fresh), fresh.heard()), (id, Boot(6)));
    }

    #[test]
    fn a_vote_that_may_still_count_is_kept() {
        // Nodes 2 and 3 of the cluster are other disks now than those that this one has voted with: of those nobody
        // knows what they have voted for.
        let (mut a, mut b, mut c) = (birth(1, 11, 3), birth(2, 22, 3), birth(3, 33, 3));
        talk(&mut [&mut a, &mut b, &mut c]);
        let mut voted = birth(1, 99, 3);
        for (from, word) in [(2, word(77, Stage::Empty)), (3, word(88, Stage::Empty))] {
            voted.hear(NodeId(from), word);
        }
        assert!(matches!(voted.word().stage, Stage::Voted(_)));
        voted.hear(NodeId(2), told(&b, 0));
        assert!(matches!(voted.waiting(), Waiting::Stranger(..)), "one teller is too few for any answer");
        voted.hear(NodeId(3), told(&c, 0));
        assert!(matches!(voted.word().stage, Stage::Voted(_)));
        assert_eq!(voted.waiting(), Waiting::Bound(cluster(&b).unwrap()));
        assert!(voted.waiting().to_string().contains("empty its data directory"));
    }

    #[test]
    fn another_configuration_is_named() {
        let (mut a, mut b) = (birth(1, 11, 2), birth(2, 22, 2));
        b.own.fingerprint = 2;
        talk(&mut [&mut a, &mut b]);
        assert_eq!(a.waiting(), Waiting::Configuration(NodeId(2)));
        assert_eq!(cluster(&a), None);
    }

    #[test]
    fn words_survive_the_wire_and_garbage_is_no_word() {
        let founders = vec![(NodeId(1), StorageId(9)), (NodeId(2), StorageId(7))];
        for stage in [
            Stage::Empty,
            Stage::Replacement,
            Stage::Voted(founders.clone()),
            Stage::Born(ClusterId(3), founders),
        ] {
            let roster = matches!(stage, Stage::Born(..)).then(|| Arc::new(born(2, 4, 2)));
            let word =
                Word { fingerprint: 5, terms: 6, storage: StorageId(8), stage, heard: Boot(6), roster };
            let bytes = Bytes::from(word.encode());
            assert_eq!(Word::decode(bytes.clone()), Some(word));
            for length in 0..bytes.len() {
                assert_eq!(Word::decode(bytes.slice(..length)), None, "cut to {length}");
            }
        }
    }
}
