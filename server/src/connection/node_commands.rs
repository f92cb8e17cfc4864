//! Commands that a node answers from what it knows of itself and the cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use groups::ids::{GroupId, NodeId, Slot};
use groups::paxos::Session;

use super::{Connection, Shared, info, roster, slots, trace};
use crate::config::{Address, Durability};
use crate::node::compaction::Held;
use crate::node::roster::RosterNode;
use crate::node::shard::GroupStatus;
use crate::protocol::{ErrorReply, NodeCommand, Reply, Shortage, slot_of};
use crate::runtime::roster::located;
use crate::runtime::scrub::alarm;
use crate::runtime::tally::Counts;
use crate::runtime::worker::{ShardReport, Worker};
use crate::status::{
    Begun, FollowerLine, GroupLine, HeldLine, LearningLine, LogStatus, NodeStatus, PeerStatus, PointLine,
};

/// Answers a node command of a connection.
pub async fn answer(command: NodeCommand, asker: &Connection, worker: &Rc<Worker>) -> Reply {
    let shared = worker.shared();
    match command {
        NodeCommand::Status { json } => {
            let status = status(shared, &worker.report().await);
            if !json {
                return Reply::text(summary(&status));
            }
            match serde_json::to_string(&status) {
                Ok(text) => Reply::bulk(text),
                Err(e) => ErrorReply::err(format!("the status cannot be written as JSON: {e}")).into(),
            }
        }
        NodeCommand::Admin { verify, group } => admin(worker, verify, group).await,
        NodeCommand::Image { group, fetch } => image(worker, group, fetch).await,
        NodeCommand::Reload => match serde_json::to_string(&shared.reloader.reload()) {
            Ok(text) => Reply::bulk(text),
            Err(e) => {
                ErrorReply::err(format!("it was done, but the answer cannot be written as JSON: {e}")).into()
            }
        },
        NodeCommand::Roster { action, dry_run } => roster::answer(action, dry_run, worker).await,
        NodeCommand::Where(key) => {
            let slot = slot_of(&key);
            let group = shared.layout.group_of(slot);
            let reports = worker.report().await;
            let leader = leaders(&reports).get(&group).copied();
            let here = reports.iter().flat_map(|r| &r.groups).find(|g| g.group == group);
            place(shared, slot, group, leader, here.map(|g| g.epoch))
        }
        NodeCommand::Info(sections) => Reply::text(info::info(shared, &worker.report().await, &sections)),
        NodeCommand::ClientList => {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            Reply::text(worker.clients(now).await)
        }
        NodeCommand::ClientKill(filter) => match worker.kill(&filter, asker.id).await {
            0 if filter.plain => ErrorReply::err("No such client").into(),
            _ if filter.plain => Reply::ok(),
            killed => Reply::unsigned(killed),
        },
        NodeCommand::ClusterMyId => Reply::bulk(node_name(shared, shared.node)),
        NodeCommand::ClusterInfo => Reply::text(cluster_info(shared, &worker.report().await)),
        NodeCommand::ClusterNodes => Reply::text(cluster_nodes(shared, &worker.report().await)),
        NodeCommand::ClusterSlots => cluster_slots(shared, &all_leaders(shared, &worker.report().await)),
        NodeCommand::ClusterShards => cluster_shards(shared, &all_leaders(shared, &worker.report().await)),
        NodeCommand::ClusterCountKeysInSlot(slot) => slots::count(slot, worker).await,
        NodeCommand::Trace { words, command } => trace::answer(&words, *command, &asker.sizes, worker).await,
        NodeCommand::ClusterGetKeysInSlot(slot, limit) => slots::keys(slot, limit, worker).await,
    }
}

/// Begins to verify, or to bring mirrors up to date, and says at once where things stood before:
/// `STATUS JSON` shows how far it has come.
async fn admin(worker: &Rc<Worker>, verify: bool, group: Option<GroupId>) -> Reply {
    let shared = worker.shared();
    if let Some(unknown) = group.filter(|g| g.0 >= shared.layout.groups()) {
        let last = shared.layout.groups() - 1;
        return ErrorReply::err(format!(
            "there is no group {unknown}: the cluster has groups 0 to {last}; nothing was changed and nothing was begun"
        ))
        .into();
    }
    let scrub = verify.then(|| shared.scrub.ask());
    let reports = worker.go_through(group, verify).await;
    let mut groups: Vec<GroupLine> = reports
        .iter()
        .flat_map(|r| &r.groups)
        .filter(|g| group.is_none_or(|only| only == g.group))
        .map(|g| line(shared, g))
        .collect();
    groups.sort_unstable_by_key(|g| g.group);
    match serde_json::to_string(&Begun { node: shared.node.0, scrub, groups }) {
        Ok(text) => Reply::bulk(text),
        Err(e) => {
            ErrorReply::err(format!("it was begun, but the answer cannot be written as JSON: {e}")).into()
        }
    }
}

/// How long the mirror may take to answer: it proves a state before it shows it. Shorter than a client
/// waits for a reply.
const IMAGE: Duration = Duration::from_secs(6);

/// A frame of a group's checkpoint, as kind and body.
async fn image(worker: &Rc<Worker>, group: GroupId, fetch: Bytes) -> Reply {
    if group.0 >= worker.shared().layout.groups() {
        return ErrorReply::err(format!("there is no group {group}; nothing was changed")).into();
    }
    let try_again = |why: &'static str| ErrorReply::try_again(group, why).into();
    match tokio::time::timeout(IMAGE, worker.image(group, fetch)).await {
        Ok(Some((kind, body))) => Reply::Array(vec![Reply::Integer(kind.into()), Reply::Bulk(body)]),
        Ok(None) => {
            try_again("that is no question for a checkpoint, or the mirror waits for space on the disk")
        }
        Err(_) => try_again("the mirror is busy: a state is proven before it is shown"),
    }
}

/// Who leads each group: as this node knows, and as the roster would have it of groups that it has no
/// part in. Every node takes every command, so that a wrong guess costs one hop.
fn all_leaders(shared: &Shared, reports: &[ShardReport]) -> BTreeMap<GroupId, NodeId> {
    let mut leaders = leaders(reports);
    let here: BTreeSet<GroupId> =
        reports.iter().flat_map(|r| &r.groups).filter(|g| !g.parted).map(|g| g.group).collect();
    let roster = shared.roster.current();
    for group in (0..roster.groups()).map(GroupId).filter(|g| !here.contains(g)) {
        let heard = |n: &NodeId| reports.iter().all(|r| r.alive.contains(n));
        leaders.extend(roster.preference(group).into_iter().find(heard).map(|node| (group, node)));
    }
    leaders
}

fn leaders(reports: &[ShardReport]) -> BTreeMap<GroupId, NodeId> {
    reports.iter().flat_map(|r| &r.groups).filter_map(|g| Some((g.group, g.leader?))).collect()
}

/// This node's account of itself.
#[must_use]
pub fn status(shared: &Shared, reports: &[ShardReport]) -> NodeStatus {
    // What other members have taken over is no group of this node any more.
    let mut groups: Vec<&GroupStatus> =
        reports.iter().flat_map(|r| &r.groups).filter(|g| !g.parted).collect();
    groups.sort_unstable_by_key(|g| g.group);
    let leads = leaders(reports);
    let counts = Counts::of(reports.iter().map(|r| &r.tally));
    let nodes = located(&shared.config, &shared.roster.current())
        .into_iter()
        .map(|n| PeerStatus {
            node: n.id.0,
            peer_addr: n.peer_addr,
            client_addr: n.client_addr,
            alive: n.id == shared.node || reports.iter().all(|r| r.alive.contains(&n.id)),
            leads: leads.values().filter(|l| **l == n.id).count() as u32,
        })
        .collect();
    let mut alarms = Vec::new();
    if shared.config.storage.durability == Durability::None {
        alarms.push("durability is \"none\": a power loss loses acknowledged writes".to_owned());
    }
    for group in &groups {
        if let Some(why) = &group.halted {
            alarms.push(format!("group {} has halted on this node: {why}", group.group));
        }
        if let Some(why) = &group.healed {
            alarms.push(format!(
                "the state of group {} was given up here and fetched from a peer: {why}. Check the memory of this \
                 machine",
                group.group
            ));
        }
        if group.rebuilding {
            alarms.push(format!(
                "the state of group {} is missing here and is fetched from a peer: this node votes in it and does not lead it",
                group.group
            ));
        }
    }
    alarms.extend(shared.notes.iter().cloned());
    let unproven = reports.iter().any(|r| !r.proven);
    if unproven {
        alarms.push(
            "too few peers have said yet that this disk is not an older copy of itself: it votes in no group"
                .to_owned(),
        );
    }
    if let Some(lag) = reports.iter().filter_map(|r| r.slow).max() {
        alarms.push(format!(
            "this node lags behind its peers: records take {} ms until they are synced. It has handed over what it led \
             and follows. Look at its disk, and at what else takes processor time here",
            lag.as_millis()
        ));
    }
    if shared.roster.is_off() {
        alarms.push(format!(
            "node {} was taken off the cluster: it serves nothing. Stop it, or add it again with `pelago admin member add`",
            shared.node
        ));
    }
    let here = |g: &&&GroupStatus| g.wanted.contains(&shared.node);
    let without = groups.iter().filter(here).filter(|g| !g.votes).count();
    if without > 0 {
        alarms.push(format!(
            "this disk ({}) is new to {without} of {} groups: it learns, and votes once a majority of their members \
             has taken it in",
            shared.storage,
            groups.len()
        ));
    }
    let read_only = shared.shortage().map(|s| match s {
        Shortage::Disk => "nospace".to_owned(),
        Shortage::Memory => "memory".to_owned(),
    });
    alarms.extend(shared.mirror.alarms());
    alarms.extend(shared.cut.alarm());
    let scrub = shared.scrub.status();
    alarms.extend(scrub.findings.iter().filter(|finding| !finding.healed).map(alarm));
    let learning =
        groups.iter().flat_map(|g| g.learning.iter().map(|(s, elapsed)| learning_line(g, s, *elapsed)));
    let learning = learning.collect();
    if let Some(why) = &read_only {
        alarms.push(format!("writes are refused here ({why})"));
    }
    let (log, times) = shared.gauge.stats();
    let runway = shared.gauge.runway();
    let min_free = shared.live.now().0.limits.min_free_disk.0;
    let held = shared.gauge.held().map(|(held, since)| held_line(&held, since, &groups));
    let quantile = |q: usize| times.get((times.len() * q / 100).min(times.len().saturating_sub(1)));
    NodeStatus {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        cluster_name: shared.config.cluster.name.clone(),
        cluster: shared.cluster.to_string(),
        node: shared.node.0,
        storage: shared.storage.to_string(),
        boot: shared.boot.0,
        roster: shared.roster.current().version(),
        uptime_s: shared.started.elapsed().as_secs_f64(),
        pid: std::process::id(),
        durability: shared.config.storage.durability.name().to_owned(),
        nodes,
        groups: groups.into_iter().map(|g| line(shared, g)).collect(),
        log: LogStatus {
            segments: log.segments,
            disk_bytes: log.disk_bytes,
            commits: log.commits,
            records: log.records,
            commit_p50_us: quantile(50).copied().unwrap_or(0).into(),
            commit_p99_us: quantile(99).copied().unwrap_or(0).into(),
            free_bytes: shared.gauge.free(),
            min_free_bytes: min_free,
            growth_bytes_per_s: runway.growth(),
            runway_s: runway.seconds(min_free),
            dropped_segments: log.dropped_segments,
            scrub,
            held,
        },
        transfers: shared.mirror.transfers(),
        learning,
        connections: shared.connections.load(Ordering::Relaxed),
        commands: counts.commands(),
        open_requests: reports.iter().map(|r| r.open_requests as u64).sum(),
        traffic: counts.traffic(),
        read_only,
        alarms,
    }
}

/// What keeps the log from being shortened, with the reason that the group itself gives.
fn held_line(held: &Held, since: Duration, groups: &[&GroupStatus]) -> HeldLine {
    let why = match held.by {
        None => "a peer that is behind is being sent values from it".to_owned(),
        Some((group, _)) => match groups.iter().find(|g| g.group == group) {
            None => "its group has no seat here any more".to_owned(),
            Some(g) => match (&g.halted, g.held_back) {
                (Some(_), _) => "the group has halted here".to_owned(),
                (None, Some(why)) => why.to_string(),
                (None, None) => "the group is moving on".to_owned(),
            },
        },
    };
    HeldLine {
        segment: held.segment.file_name(),
        group: held.by.map(|(group, _)| group.0),
        instance: held.by.map_or(0, |(_, instance)| instance.0),
        groups: held.groups as u64,
        for_s: since.as_secs_f64(),
        urgent: held.urgent,
        why,
    }
}

fn learning_line(group: &GroupStatus, session: &Session, elapsed_s: f64) -> LearningLine {
    LearningLine {
        group: group.group.0,
        peer: session.peer.0,
        incoming: session.incoming,
        next: session.next.0,
        target: session.target.0,
        bytes: session.bytes,
        elapsed_s,
    }
}

fn line(shared: &Shared, g: &GroupStatus) -> GroupLine {
    let (first, last) = shared.layout.slots_of(g.group);
    GroupLine {
        group: g.group.0,
        first_slot: first.0,
        last_slot: last.0,
        role: g.role.to_owned(),
        leader: g.leader.map(|l| l.0),
        round: g.round,
        epoch: g.epoch,
        members: g.members.iter().map(|n| n.0).collect(),
        wanted: g.wanted.iter().map(|n| n.0).collect(),
        applied: g.applied.0,
        chain: format!("{:016x}", g.chain),
        state_hash: g.state_hash.iter().fold(String::with_capacity(64), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        }),
        keys: g.keys as u64,
        bytes: g.bytes,
        halted: g.halted.clone(),
        mirrored: g.mirror.map_or(0, |(taken, _)| taken.0),
        checkpoint: g.mirror.map_or(0, |(_, durable)| durable.0),
        checkpoint_age_s: g.checkpoint_age.map(|age| age.as_secs_f64()),
        rebuilding: g.rebuilding,
        votes: g.votes,
        holds_log: g.held_back.map(|why| why.to_string()),
        followers: g
            .followers
            .iter()
            .map(|(node, follows, behind, time)| FollowerLine {
                node: node.0,
                follows: *follows,
                behind: *behind,
                behind_s: time.as_secs_f64(),
            })
            .collect(),
        points: g
            .points
            .iter()
            .map(|point| PointLine { instance: point.instance.0, state: point.sum.to_string() })
            .collect(),
        rescans: g.scrubbed.0,
        leased: g.leased,
        verified: g.scrubbed.1,
    }
}

/// `STATUS` for people.
fn summary(status: &NodeStatus) -> String {
    let mut text = String::new();
    let led = status.groups.iter().filter(|g| g.leader.is_some()).count();
    let _ = writeln!(
        text,
        "node {} of cluster {} ({}), up {:.0} s, boot {}, version {}",
        status.node, status.cluster_name, status.cluster, status.uptime_s, status.boot, status.version
    );
    for n in &status.nodes {
        let state = if n.alive { "alive" } else { "not heard" };
        let _ = writeln!(
            text,
            "node {}: {state}, leads {} groups, clients at {}",
            n.node, n.leads, n.client_addr
        );
    }
    let _ = writeln!(
        text,
        "groups: {} of {} here have a leader; {} keys, {} bytes",
        led,
        status.groups.len(),
        status.groups.iter().map(|g| g.keys).sum::<u64>(),
        status.groups.iter().map(|g| g.bytes).sum::<u64>()
    );
    let _ = writeln!(
        text,
        "log: {} commits, p50 {} us, p99 {} us, {} segments; durability {}",
        status.log.commits,
        status.log.commit_p50_us,
        status.log.commit_p99_us,
        status.log.segments,
        status.durability
    );
    let scrub = &status.log.scrub;
    let _ = match scrub.passes {
        0 => writeln!(text, "scrub: no pass over the sealed segments yet"),
        _ => writeln!(
            text,
            "scrub: {} passes, the last read {} segments ({} bytes), {} findings",
            scrub.passes,
            scrub.segments,
            scrub.bytes,
            scrub.findings.len()
        ),
    };
    if let Some(held) = &status.log.held {
        let who = match held.group {
            Some(group) if held.groups > 1 => format!("group {group} and {} others", held.groups - 1),
            Some(group) => format!("group {group}"),
            None => "a transfer".to_owned(),
        };
        let _ = writeln!(
            text,
            "log: {who} {} {} for {:.1} s (instance {}): {}{}",
            if held.groups > 1 { "hold" } else { "holds" },
            held.segment,
            held.for_s,
            held.instance,
            held.why,
            if held.urgent { "; urgent" } else { "" }
        );
    }
    for t in &status.transfers {
        let way = if t.incoming { "from" } else { "to" };
        let rate = t.bytes as f64 / t.elapsed_s.max(0.001) / 1e6;
        let left = t.expected_bytes.saturating_sub(t.bytes) as f64 / 1e6;
        let _ = writeln!(
            text,
            "checkpoint of group {} {way} node {}: {:.1} MB, {rate:.1} MB/s, {left:.1} MB left ({:.0} s)",
            t.group,
            t.peer,
            t.bytes as f64 / 1e6,
            left / rate.max(0.001)
        );
    }
    // One line for each node and direction: there may be as many sessions as groups.
    let mut learning: BTreeMap<(bool, u32), (u64, u64, u64, f64)> = BTreeMap::new();
    for l in &status.learning {
        let (groups, left, bytes, elapsed) = learning.entry((l.incoming, l.peer)).or_default();
        *groups += 1;
        *left += (l.target + 1).saturating_sub(l.next);
        *bytes += l.bytes;
        *elapsed = elapsed.max(l.elapsed_s);
    }
    for ((incoming, peer), (groups, left, bytes, elapsed)) in learning {
        let way = if incoming { "from" } else { "to" };
        let _ = writeln!(
            text,
            "values of {groups} groups {way} node {peer}: {:.1} MB, {:.1} MB/s, {left} instances left",
            bytes as f64 / 1e6,
            bytes as f64 / elapsed.max(0.001) / 1e6,
        );
    }
    if let Some(holder) = status.groups.iter().find(|g| g.holds_log.is_some()) {
        let why = holder.holds_log.as_deref().unwrap_or_default();
        let _ = writeln!(text, "log: group {} holds it back: {why}", holder.group);
    }
    for alarm in &status.alarms {
        let _ = writeln!(text, "ALARM {alarm}");
    }
    text
}

/// Where a key is. The epoch is that of this node's replica, and nil where it has none: `EPOCH key` asks the
/// leader.
fn place(shared: &Shared, slot: Slot, group: GroupId, leader: Option<NodeId>, epoch: Option<u64>) -> Reply {
    let members = shared.roster.current().preference(group);
    let members = members.iter().map(|n| Reply::Integer(n.0.into())).collect();
    Reply::Map(vec![
        (Reply::bulk("slot"), Reply::Integer(slot.0.into())),
        (Reply::bulk("group"), Reply::Integer(group.0.into())),
        (Reply::bulk("leader"), leader.map_or(Reply::Nil, |l| Reply::Integer(l.0.into()))),
        (Reply::bulk("members"), Reply::Array(members)),
        (Reply::bulk("epoch"), epoch.map_or(Reply::Nil, Reply::unsigned)),
    ])
}

/// Redis names nodes by 40 hex digits; these follow from cluster and node.
pub(super) fn node_name(shared: &Shared, node: NodeId) -> String {
    format!("{}{:08x}", shared.cluster, node.0)
}

fn cluster_info(shared: &Shared, reports: &[ShardReport]) -> String {
    let leaders = all_leaders(shared, reports);
    let led: u32 = leaders
        .keys()
        .map(|g| {
            let (first, last) = shared.layout.slots_of(*g);
            u32::from(last.0 - first.0) + 1
        })
        .sum();
    let state = if leaders.len() as u32 == shared.layout.groups() { "ok" } else { "fail" };
    let nodes = shared.roster.current().nodes().len();
    format!(
        "cluster_enabled:0\r\ncluster_state:{state}\r\ncluster_slots_assigned:16384\r\ncluster_slots_ok:{led}\r\n\
         cluster_slots_pfail:0\r\ncluster_slots_fail:{}\r\ncluster_known_nodes:{nodes}\r\ncluster_size:{nodes}\r\n",
        16_384 - led
    )
}

/// Runs of slots led by one node, ascending.
fn runs(shared: &Shared, leaders: &BTreeMap<GroupId, NodeId>) -> Vec<(u16, u16, NodeId, GroupId)> {
    leaders
        .iter()
        .map(|(group, leader)| {
            let (first, last) = shared.layout.slots_of(*group);
            (first.0, last.0, *leader, *group)
        })
        .collect()
}

fn cluster_nodes(shared: &Shared, reports: &[ShardReport]) -> String {
    let runs = runs(shared, &all_leaders(shared, reports));
    let mut text = String::new();
    for n in endpoints(shared) {
        let me = n.id == shared.node;
        let alive = me || reports.iter().all(|r| r.alive.contains(&n.id));
        let flags = if me { "myself,master" } else { "master" };
        let link = if alive { "connected" } else { "disconnected" };
        let _ = write!(
            text,
            "{} {}:{}@{} {flags} - 0 0 {} {link}",
            node_name(shared, n.id),
            n.client.host(),
            n.client.port(),
            n.peer.port(),
            n.id
        );
        for (first, last, leader, _) in &runs {
            if *leader == n.id {
                let _ = write!(text, " {first}-{last}");
            }
        }
        text.push('\n');
    }
    text
}

/// `MOVED` to a node, if its address is known.
pub fn moved(shared: &Shared, slot: Slot, node: NodeId) -> Option<Reply> {
    let client = endpoints(shared).into_iter().find(|n| n.id == node)?.client;
    Some(ErrorReply::moved(slot, format_args!("{}:{}", client.host(), client.port())).into())
}

/// Where a node is reached.
struct Endpoint {
    id: NodeId,
    client: Address,
    peer: Address,
}

/// The nodes whose addresses are known.
fn endpoints(shared: &Shared) -> Vec<Endpoint> {
    let known = |n: RosterNode| {
        let (client, peer) = (Address::parse(&n.client_addr).ok()?, Address::parse(&n.peer_addr).ok()?);
        Some(Endpoint { id: n.id, client: client.reached_like(&peer), peer })
    };
    located(&shared.config, &shared.roster.current()).into_iter().filter_map(known).collect()
}

/// Each run of slots with its leader and nobody else. Every node leads some groups and follows in others, which no node of a
/// Redis Cluster does: clients that are told of followers take a node for a replica that is one anywhere (redis-py 8 does), and
/// send it nothing but reads.
fn cluster_slots(shared: &Shared, leaders: &BTreeMap<GroupId, NodeId>) -> Reply {
    let nodes = endpoints(shared);
    let rows = runs(shared, leaders).into_iter().map(|(first, last, leader, _)| {
        let mut row = vec![Reply::Integer(first.into()), Reply::Integer(last.into())];
        if let Some(Endpoint { client, .. }) = nodes.iter().find(|n| n.id == leader) {
            row.push(Reply::Array(vec![
                Reply::bulk(client.host()),
                Reply::Integer(client.port().into()),
                Reply::bulk(node_name(shared, leader)),
                Reply::Array(Vec::new()),
            ]));
        }
        Reply::Array(row)
    });
    Reply::Array(rows.collect())
}

fn cluster_shards(shared: &Shared, leaders: &BTreeMap<GroupId, NodeId>) -> Reply {
    let runs = runs(shared, leaders);
    let rows = endpoints(shared).into_iter().map(|n| {
        let slots = runs
            .iter()
            .filter(|(_, _, leader, _)| *leader == n.id)
            .flat_map(|(first, last, _, _)| [Reply::Integer((*first).into()), Reply::Integer((*last).into())])
            .collect();
        let node = Reply::Map(vec![
            (Reply::bulk("id"), Reply::bulk(node_name(shared, n.id))),
            (Reply::bulk("port"), Reply::Integer(n.client.port().into())),
            (Reply::bulk("ip"), Reply::bulk(n.client.host())),
            (Reply::bulk("endpoint"), Reply::bulk(n.client.host())),
            (Reply::bulk("role"), Reply::bulk("master")),
            (Reply::bulk("replication-offset"), Reply::Integer(0)),
            (Reply::bulk("health"), Reply::bulk("online")),
        ]);
        Reply::Map(vec![
            (Reply::bulk("slots"), Reply::Array(slots)),
            (Reply::bulk("nodes"), Reply::Array(vec![node])),
        ])
    });
    Reply::Array(rows.collect())
}
