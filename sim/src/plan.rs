//! What a run is, derived from its seed, or cut down from that by `shrink`.

use std::collections::BTreeSet;
use std::time::Duration;

use groups::random::Random;

use crate::fault::{Fault, KINDS, Kind};
use crate::machine::Cluster;
use crate::operator;

/// A fault and when it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Its number in the seed's full plan, by which `--only` names it.
    pub number: usize,
    /// When it begins.
    pub at: Duration,
    /// What it is.
    pub fault: Fault,
}

/// What a run is.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Everything random follows from it.
    pub seed: u64,
    /// Other luck of the network and the clients under the same plan; 0 as a rule. A plan that
    /// was cut down needs some to fail again.
    pub salt: u64,
    /// The cluster.
    pub cluster: Cluster,
    /// Clients, each on a connection of its own.
    pub clients: u64,
    /// More clients, who move money between accounts in transactions.
    pub tellers: u64,
    /// Keys that they fight over.
    pub keys: u64,
    /// Plain values are as long as this at most: longer ones fill batches, windows and segments.
    pub value_bytes: u64,
    /// Whether many clients ask about few keys, now here, now there: whoever is cut off, or stood still, is
    /// asked about what has just been changed elsewhere, in the moment in which it would be wrong.
    pub crowd: bool,
    /// How long faults happen.
    pub turmoil: Duration,
    /// In how long after them everything must be well again.
    pub recovery: Duration,
    /// Whether more machines may be lost than a quorum can spare. Then nothing need come back;
    /// only nothing wrong may happen.
    pub beyond_repair: bool,
    /// The faults, in order of time.
    pub faults: Vec<Planned>,
}

impl Plan {
    /// The plan of a seed.
    #[must_use]
    pub fn from_seed(seed: u64) -> Plan {
        let mut random = Random::new(seed ^ 0x5EED);
        let nodes = [1, 3, 3, 3, 3, 3, 5, 5][random.below(8) as usize];
        let replication = if nodes == 5 && random.below(2) == 0 { 3 } else { nodes as usize };
        let beyond_repair = random.below(24) == 0;
        let turmoil = Duration::from_millis(2_000 + random.below(12_000));
        // With leases, clocks stay within what those allow for; without, they may do anything.
        let leases = random.below(3) > 0;
        let mut cluster = Cluster {
            nodes,
            spares: 0,
            leases,
            groups: 1 + random.below(4) as u32,
            replication,
            shards: 1 + random.below(2) as u32,
            // Small ones, so that short runs fill several.
            segment_size: [16 << 10, 64 << 10][random.below(2) as usize],
        };
        let clients = 1 + random.below(5);
        let keys = 4 + random.below(9);
        let value_bytes = [0, 0, 500, 2_000][random.below(4) as usize];
        // Drawn beside the others: the plans of all other seeds are the same without it.
        let mut luck = Random::new(seed ^ 0xC60D);
        let crowd = luck.below(8) == 0;
        let (clients, keys, value_bytes) = if crowd { (12, 2, 0) } else { (clients, keys, value_bytes) };
        let mut faults = faults(&cluster, turmoil, beyond_repair, &mut random);
        if beyond_repair && nodes > 1 && random.below(2) == 0 {
            // In the middle of the birth, which such a loss may end for ever.
            let at = Duration::from_micros(random.below(8_000));
            let node = random.below(u64::from(nodes)) as usize;
            let emptied: BTreeSet<usize> = faults
                .iter()
                .filter(|f| f.fault.kind() == Kind::EmptyDisk)
                .filter_map(|f| f.fault.ends())
                .chain([node])
                .collect();
            if emptied.len() < nodes as usize {
                let number = faults.len() + 1;
                faults.insert(0, Planned { number, at, fault: Fault::EmptyDisk { node } });
            }
        }
        if crowd && nodes > 1 {
            stand_still(&mut faults, nodes, turmoil, &mut luck);
        }
        if !beyond_repair {
            operator::plan(&mut cluster, turmoil, seed, &mut faults);
        }
        let recovery = Duration::from_secs(15);
        let tellers = [0, 0, 2, 3][random.below(4) as usize];
        Plan {
            seed,
            salt: 0,
            cluster,
            clients,
            tellers,
            keys,
            value_bytes,
            crowd,
            turmoil,
            recovery,
            beyond_repair,
            faults,
        }
    }

    /// The same plan with only those of its faults.
    #[must_use]
    pub fn only(mut self, numbers: &[usize]) -> Plan {
        self.faults.retain(|f| numbers.contains(&f.number));
        self
    }
}

/// Some node or other stands still every other second, for as long as it takes the others to go on without it: what a
/// crowd has asked it meanwhile it answers in the moment in which it wakes.
fn stand_still(faults: &mut Vec<Planned>, nodes: u32, turmoil: Duration, random: &mut Random) {
    let mut at = Duration::from_millis(1_000 + random.below(1_000));
    while at < turmoil {
        let node = random.below(u64::from(nodes)) as usize;
        let fault = Fault::Pause { node, length: Duration::from_millis(600 + random.below(900)) };
        faults.push(Planned { number: faults.len() + 1, at, fault });
        at += Duration::from_millis(1_500 + random.below(1_500));
    }
    faults.sort_by_key(|planned| planned.at);
}

/// Draws the faults. Every seed leaves about half of the kinds out, so that some have long runs
/// of few kinds and rare combinations come about (Groce et al., "Swarm Testing", 2012).
fn faults(cluster: &Cluster, turmoil: Duration, beyond_repair: bool, random: &mut Random) -> Vec<Planned> {
    let nodes = cluster.nodes as usize;
    let drawn: Vec<(Kind, u64)> =
        KINDS.iter().filter(|k| k.weight > 0 && random.below(2) == 0).map(|k| (k.kind, k.weight)).collect();
    let total: u64 = drawn.iter().map(|(_, weight)| weight).sum();
    let spare = if beyond_repair { nodes } else { (cluster.replication - 1) / 2 };
    // Whoever gives every node an empty disk has made a new cluster: one keeps its own.
    let mut emptied = 0;
    let mut gone = Vec::new();
    // Whose state may have to come from a peer: the others must be enough to give it.
    let mut spoiled = Vec::new();
    let mut planned = Vec::new();
    // The calmest seeds have a fault every two seconds, the wildest ten in one.
    let pace = [100, 300, 800, 2_000][random.below(4) as usize];
    let mut at = Duration::from_millis(if random.below(8) == 0 { 0 } else { 300 });
    while at < turmoil && total > 0 {
        let mut pick = random.below(total);
        for (kind, weight) in &drawn {
            if pick < *weight {
                if let Some(fault) = Fault::random(*kind, nodes, random) {
                    let fault = if cluster.leases { fault.with_true_clocks() } else { fault };
                    let lost = |node: usize, gone: &[usize], spoiled: &[usize]| {
                        let all: BTreeSet<usize> =
                            gone.iter().chain(spoiled).copied().chain([node]).collect();
                        all.len()
                    };
                    if let Some(node) = fault.spoils() {
                        if lost(node, &gone, &spoiled) > spare {
                            break;
                        }
                        spoiled.push(node);
                    }
                    let spared = match fault.ends() {
                        Some(node) if lost(node, &gone, &spoiled) > spare => false,
                        Some(_) if *kind == Kind::EmptyDisk && emptied + 1 >= nodes => false,
                        Some(node) => {
                            emptied += usize::from(*kind == Kind::EmptyDisk);
                            gone.push(node);
                            true
                        }
                        None => true,
                    };
                    if let Fault::PartialCut { a, b, .. } = fault
                        && let Some(node) = (0..nodes).find(|node| *node != a && *node != b)
                        && random.below(2) == 0
                    {
                        // One of both misses the other and asks for votes: whoever hears both forgets.
                        for _ in 0..2 {
                            let at = at + Duration::from_millis(400 + random.below(500));
                            let down = Duration::from_millis(1 + random.below(20));
                            let fault = Fault::Kill { node, down };
                            planned.push(Planned { number: planned.len() + 1, at, fault });
                        }
                    }
                    if let Fault::Eclipse { node, .. } = fault
                        && random.below(2) == 0
                    {
                        // What it hears last is old.
                        let by = Duration::from_millis(200 + random.below(150));
                        let length = by + Duration::from_millis(60);
                        for from in (0..nodes).filter(|from| *from != node) {
                            let fault = Fault::SlowLink { from, to: node, by, length };
                            planned.push(Planned { number: planned.len() + 1, at, fault });
                        }
                        at += length;
                    }
                    if spared {
                        planned.push(Planned { number: planned.len() + 1, at, fault });
                    }
                }
                break;
            }
            pick -= weight;
        }
        at += Duration::from_millis(1 + random.below(2 * pace));
    }
    planned
}
