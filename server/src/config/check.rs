//! What single values cannot show: whether they make sense together.

use super::problem::Place;
use super::read::{ADDRESSES, NodeDraft, Reading};
use super::units::{Size, show_duration};
use super::{Address, Durability};

/// What a record of the log holds besides keys and values, generously.
pub(super) const RECORD_OVERHEAD: Size = Size::kib(64);

/// Runs every check over a configuration whose values are all set.
pub(super) fn all(reading: &mut Reading<'_>) {
    replication(reading);
    node_ids(reading);
    duplicate_addresses(reading);
    reachable(reading);
    timing(reading);
    sizes(reading);
    durability(reading);
}

type Name = (&'static str, &'static str);
const REPLICATION: Name = ("cluster", "replication");
const HEARTBEAT: Name = ("paxos", "heartbeat_interval");
const ELECTION: Name = ("paxos", "election_timeout");
const LEASE: Name = ("paxos", "lease");
const DRIFT: Name = ("paxos", "max_clock_drift");
const BATCH: Name = ("paxos", "max_batch_bytes");
const SEGMENT: Name = ("storage", "segment_size");
const DURABILITY: Name = ("storage", "durability");
const MAX_KEY: Name = ("limits", "max_key");
const MAX_VALUE: Name = ("limits", "max_value");
const INFLIGHT: Name = ("limits", "max_inflight_bytes");
const PASSWORD: Name = ("security", "password");
const INSECURE: Name = ("security", "insecure");

fn replication(reading: &mut Reading<'_>) {
    let (replication, nodes) = (reading.config.cluster.replication, reading.nodes.len());
    if nodes == 0 {
        let message = "no node is listed; add a [[nodes]] entry with id, peer_addr, client_addr and admin_addr for each";
        reading.problem(Place::File, message);
        return;
    }
    let Some(place) = reading.blame(&[REPLICATION]) else { return };
    if replication as usize > nodes {
        let message = format!(
            "replication is {replication}, but only {nodes} nodes are listed; add nodes or set it to {nodes} or less"
        );
        reading.problem(place, message);
    } else if replication.is_multiple_of(2) {
        let message = format!(
            "replication {replication} tolerates no more failures than {}, and costs more",
            replication - 1
        );
        reading.warning(place, message);
    }
}

fn node_ids(reading: &mut Reading<'_>) {
    let ids: Vec<_> = reading.nodes.iter().filter_map(|node| node.id.clone()).collect();
    for (index, (id, place)) in ids.iter().enumerate() {
        if let Some((_, first)) = ids[..index].iter().find(|(earlier, _)| earlier == id) {
            let message = format!("node id {id} is taken already{}; ids must differ", elsewhere(first));
            reading.problem(place.clone(), message);
        }
    }
}

fn duplicate_addresses(reading: &mut Reading<'_>) {
    let mut seen: Vec<(usize, &'static str, Address, Place)> = Vec::new();
    let mut found = Vec::new();
    for (index, node) in reading.nodes.iter().enumerate() {
        for (key, address) in node.named() {
            let (address, place) = address.clone();
            let clash = seen.iter().find(|(earlier, _, other, _)| {
                // "Every interface" of another machine is another address.
                *other == address && (!address.is_unspecified() || *earlier == index)
            });
            match clash {
                Some((_, other_key, _, first)) => {
                    let message = format!(
                        "`{key}` {address} is taken already as `{other_key}`{}; each needs a port of its own",
                        elsewhere(first)
                    );
                    found.push((place, message));
                }
                None => seen.push((index, key, address, place)),
            }
        }
    }
    for (place, message) in found {
        reading.problem(place, message);
    }
}

/// Whether other machines can reach what they must and cannot reach what they may not.
fn reachable(reading: &mut Reading<'_>) {
    let security = reading.config.security.clone();
    let understood = reading.blame(&[INSECURE, PASSWORD]).is_some();
    let mut found = Vec::new();
    for node in &reading.nodes {
        for (key, (address, place)) in node.named() {
            if key == "peer_addr" && address.is_unspecified() {
                let message = format!(
                    "`peer_addr` {address} is where the other nodes connect to; name an address of this machine"
                );
                found.push((place.clone(), message));
                continue;
            }
            // No password protects what nodes say to each other.
            let allowed = match key {
                "peer_addr" => security.insecure || address.is_loopback(),
                _ => security.allows(address),
            };
            if understood && !allowed {
                let way = match key {
                    "peer_addr" => "set `insecure = true` in [security] if the network is trusted",
                    _ => "set `password` in [security], or `insecure = true` if the network is trusted",
                };
                let message = format!(
                    "`{key}` {address} can be reached from other machines and nothing protects it; \
                     use a loopback address, or {way}"
                );
                found.push((place.clone(), message));
            }
        }
    }
    for (place, message) in found {
        reading.problem(place, message);
    }
}

fn timing(reading: &mut Reading<'_>) {
    let paxos = reading.config.paxos.clone();
    if let Some(place) = reading.blame(&[LEASE, ELECTION])
        && paxos.lease >= paxos.election_timeout
    {
        let message = format!(
            "lease is {}, but must be shorter than election_timeout, which is {}: a new leader could be elected \
             while the old one still answers reads",
            show_duration(paxos.lease),
            show_duration(paxos.election_timeout),
        );
        reading.problem(place, message);
    }
    if let Some(place) = reading.blame(&[HEARTBEAT, ELECTION])
        && paxos.heartbeat_interval * 2 >= paxos.election_timeout
    {
        let message = format!(
            "heartbeat_interval is {}, but must be less than half of election_timeout, which is {}: one lost \
             heartbeat would depose a healthy leader",
            show_duration(paxos.heartbeat_interval),
            show_duration(paxos.election_timeout),
        );
        reading.problem(place, message);
    }
    if let Some(place) = reading.blame(&[LEASE, HEARTBEAT, DRIFT])
        && (paxos.heartbeat_interval + paxos.idle_tick()) * 2 > paxos.own_lease()
    {
        let message = format!(
            "lease is {}, of which a leader counts on {} because of max_clock_drift, less than two heartbeats of {}, by \
             up to {} later where nobody writes: it will run out between them and reads will be slower",
            show_duration(paxos.lease),
            show_duration(paxos.own_lease()),
            show_duration(paxos.heartbeat_interval),
            show_duration(paxos.idle_tick()),
        );
        reading.warning(place, message);
    }
}

fn sizes(reading: &mut Reading<'_>) {
    let segment = reading.config.storage.segment_size;
    let half = Size(segment.0 / 2);
    let batch = reading.config.paxos.max_batch_bytes;
    if let Some(place) = reading.blame(&[BATCH, SEGMENT])
        && batch.0 + RECORD_OVERHEAD.0 > half.0
    {
        let message = format!(
            "max_batch_bytes is {batch}, but with {RECORD_OVERHEAD} around it must fit into half a segment, and \
             segment_size is {segment}; lower the one or raise the other"
        );
        reading.problem(place, message);
    }
    let (key, value) = (reading.config.limits.max_key, reading.config.limits.max_value);
    let Some(place) = reading.blame(&[MAX_VALUE, MAX_KEY, SEGMENT]) else { return };
    if key.0 + value.0 + RECORD_OVERHEAD.0 > half.0 {
        let message = format!(
            "max_value is {value} and max_key is {key}, but together with {RECORD_OVERHEAD} around them they must \
             fit into half a segment, and segment_size is {segment}; lower the ones or raise the other"
        );
        reading.problem(place, message);
    }
    let inflight = reading.config.limits.max_inflight_bytes;
    let Some(place) = reading.blame(&[INFLIGHT, MAX_VALUE, MAX_KEY]) else { return };
    if key.0 + value.0 > inflight.0 {
        let message = format!(
            "max_inflight_bytes is {inflight}, less than one put of max_value {value} and max_key {key}, which \
             would always be answered with BUSY; raise it"
        );
        reading.problem(place, message);
    }
}

fn durability(reading: &mut Reading<'_>) {
    if let Some(place) = reading.blame(&[DURABILITY])
        && reading.config.storage.durability == Durability::None
    {
        reading.warning(
            place,
            "durability is none: a power loss loses acknowledged writes and may lose the cluster; for experiments only",
        );
    }
}

impl NodeDraft {
    fn named(&self) -> impl Iterator<Item = (&'static str, &(Address, Place))> {
        ADDRESSES.into_iter().zip(&self.addresses).filter_map(|(key, address)| Some((key, address.as_ref()?)))
    }
}

/// Where something else stands, if that is a line.
fn elsewhere(place: &Place) -> String {
    match place {
        Place::At { line, .. } => format!(" in line {line}"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::keys::keys;
    use super::*;

    #[test]
    fn every_name_is_a_key() {
        for (section, name) in [
            REPLICATION,
            HEARTBEAT,
            ELECTION,
            LEASE,
            BATCH,
            SEGMENT,
            DURABILITY,
            MAX_KEY,
            MAX_VALUE,
            INFLIGHT,
            PASSWORD,
            INSECURE,
        ] {
            assert!(keys().iter().any(|key| key.section == section && key.name == name), "{section}.{name}");
        }
    }
}
