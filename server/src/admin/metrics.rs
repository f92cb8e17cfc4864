//! `/metrics`: the table of what is shown, and where each value comes from. Names follow Prometheus' conventions:
//! base units, `_total` for what only rises. Labels take few values; groups are one only with `?groups=1`.

use std::sync::atomic::Ordering;
use std::time::Duration;

use netio::Lane;

use super::exposition::Exposition;
pub use super::exposition::{Kind, Metric};
use super::look::Own;
use super::process::Process;
use super::ready::{Code, Readiness};
use super::{Desk, Serving, Stage};
use crate::connection::Shared;
use crate::status::{GroupLine, NodeStatus};

macro_rules! metrics {
    ($($name:ident $kind:ident $text:literal [$($label:literal)*] $help:literal;)*) => {
        $(const $name: Metric = Metric { name: $text, kind: Kind::$kind, labels: &[$($label),*], help: $help };)*

        /// Every metric, in the order of `/metrics`.
        pub const ALL: &[Metric] = &[$($name),*];
    };
}

metrics! {
    BUILD Gauge "pelago_build_info" ["version"] "Always 1; the version of the program is the label.";
    NODE Gauge "pelago_node_info" ["cluster" "cluster_id" "node"] "Always 1; the cluster and the node are the labels.";
    CPU Counter "process_cpu_seconds_total" [] "Processor time of the process, user and system.";
    RESIDENT Gauge "process_resident_memory_bytes" [] "Memory of the process.";
    OPEN_FDS Gauge "process_open_fds" [] "Open files and sockets of the process.";
    MAX_FDS Gauge "process_max_fds" [] "The most files and sockets that the process may open.";
    STARTED Gauge "process_start_time_seconds" [] "When the process was started, seconds since 1970.";
    READY Gauge "pelago_ready" [] "1 when /readyz answers 200.";
    NOT_READY Gauge "pelago_not_ready" ["reason"] "1 for each reason for which /readyz answers 503.";
    ALARMS Gauge "pelago_alarms" [] "Alarms of this node, as STATUS shows them.";
    READ_ONLY Gauge "pelago_read_only" ["reason"] "1 while writes are refused here for lack of disk (nospace) or memory (memory).";
    SLOW Gauge "pelago_slow" [] "1 while this node lags behind its peers and leads nothing for that.";
    ADMIN Counter "pelago_admin_requests_total" ["path" "code"] "Requests answered at the admin port.";

    COMMANDS Counter "pelago_commands_total" ["kind"] "Commands taken from clients: reads and writes of keys, and others.";
    ERRORS Counter "pelago_command_errors_total" ["code"] "Error replies to clients, by their first word.";
    TOOK Histogram "pelago_command_duration_seconds" ["kind"] "From taking a command to writing its reply, forwarding included.";
    CONNECTIONS Gauge "pelago_connections" [] "Open client connections.";
    CONNECTIONS_LIMIT Gauge "pelago_connections_limit" [] "The most client connections (limits.max_connections).";
    ACCEPTED Counter "pelago_connections_accepted_total" [] "Client connections accepted.";
    TURNED_AWAY Counter "pelago_connections_refused_total" [] "Client connections turned away because there were too many.";
    OPEN_REQUESTS Gauge "pelago_open_requests" [] "Requests of clients that are not answered yet.";

    GROUPS Gauge "pelago_groups" ["role"] "Groups with a seat on this node, by what the node does in them.";
    WITHOUT Gauge "pelago_groups_without_leader" [] "Groups here of which this node knows no leader.";
    REBUILDING Gauge "pelago_groups_rebuilding" [] "Groups whose state is missing here and is fetched.";
    NOT_VOTING Gauge "pelago_groups_not_voting" [] "Groups in which this node's disk does not vote though it should.";
    LEADER_CHANGES Counter "pelago_leader_changes_total" [] "Leaders that the groups here have had since the birth of the cluster, as far as it is applied.";
    APPLIED Counter "pelago_applied_instances_total" [] "Instances applied, over the groups here.";
    KEYS Gauge "pelago_keys" [] "Keys of the groups here.";
    STATE Gauge "pelago_state_bytes" [] "Keys and values of the groups here.";
    STATE_LIMIT Gauge "pelago_state_limit_bytes" [] "limits.max_state_bytes; 0 is no limit.";
    LED_KEYS Gauge "pelago_led_keys" [] "Keys of the groups that this node leads: the sum over the nodes counts each once.";
    LED_STATE Gauge "pelago_led_state_bytes" [] "Keys and values of the groups that this node leads.";
    LEASED Counter "pelago_lease_reads_total" [] "Reads answered on a leader's lease, without asking anybody.";
    FOLLOWER_LAG Gauge "pelago_follower_lag_instances" [] "How far the slowest follower of a group that this node leads is behind.";
    CHECKPOINT_LAG Gauge "pelago_checkpoint_lag_instances" [] "How far the checkpoint of a group here is behind its state, at most.";

    PEER_UP Gauge "pelago_peer_up" ["peer"] "1 while this node hears the peer.";
    LINK_UP Gauge "pelago_link_up" ["peer" "lane"] "1 while frames can be sent to the peer.";
    LINK_QUEUED Gauge "pelago_link_queued_bytes" ["peer" "lane"] "Bytes for the peer that are queued or being written.";
    LINK_SENT Counter "pelago_link_sent_bytes_total" ["peer" "lane"] "Bytes written to the peer.";
    LINK_RECEIVED Counter "pelago_link_received_bytes_total" ["peer" "lane"] "Bytes read from the peer.";
    LINK_DROPPED Counter "pelago_link_dropped_frames_total" ["peer" "lane"] "Frames for the peer dropped because its queue was full or the link down.";
    LINK_UPS Counter "pelago_link_established_total" ["peer" "lane"] "How often the link to the peer came up.";
    REJECTED Counter "pelago_peer_connections_rejected_total" [] "Peer connections that ended with a refusal or with garbage.";
    CORRUPT Counter "pelago_corrupt_frames_total" [] "Links dropped because of a damaged frame.";

    COMMITS Histogram "pelago_log_commit_duration_seconds" [] "One write and one sync of the log each.";
    RECORDS Counter "pelago_log_records_total" [] "Records written to the log.";
    WRITTEN Counter "pelago_log_written_bytes_total" [] "Bytes written to the log, headers and padding included.";
    SEGMENTS Gauge "pelago_log_segments" [] "Files of the log.";
    LOG_BYTES Gauge "pelago_log_disk_bytes" [] "Bytes of the log on the disk.";
    DROPPED Counter "pelago_log_dropped_segments_total" [] "Files of the log dropped because a checkpoint has what they held.";
    WAITS Counter "pelago_log_segment_waits_total" [] "Commits that waited because the next file of the log was not prepared.";
    HELD Gauge "pelago_log_held_seconds" [] "For how long the oldest file of the log has been kept from being dropped; 0 when nothing keeps it.";
    FREE Gauge "pelago_disk_free_bytes" [] "What the file system of the data directory has left.";
    FREE_LIMIT Gauge "pelago_disk_free_limit_bytes" [] "Under it writes are refused (limits.min_free_disk).";

    SCRUBS Counter "pelago_scrub_passes_total" [] "Passes over all sealed files of the log.";
    SCRUBBED Gauge "pelago_scrub_last_pass_timestamp_seconds" [] "When the last pass ended, seconds since 1970; 0 before the first.";
    FINDINGS Gauge "pelago_scrub_findings" [] "Damage in the log that is there now.";
    RESCANS Counter "pelago_state_rescans_total" [] "How often the whole state of a group was hashed anew and was sound.";
    VERIFIED Counter "pelago_mirror_verified_total" [] "How often the whole mirror of a group was read back and was sound.";
    TRANSFERS Gauge "pelago_transfers" ["direction"] "Checkpoints on their way.";
    TRANSFERRED Gauge "pelago_transfer_bytes" ["direction"] "Bytes of those checkpoints so far.";
    LEARNING Gauge "pelago_learning_sessions" ["direction"] "Sessions that bring chosen values to who missed them.";

    GROUP_LEADER Gauge "pelago_group_leader_node" ["group"] "Who leads the group, by number; 0 when nobody is known. With ?groups=1.";
    GROUP_APPLIED Counter "pelago_group_applied_instances_total" ["group"] "Instances applied. With ?groups=1.";
    GROUP_KEYS Gauge "pelago_group_keys" ["group"] "Keys. With ?groups=1.";
    GROUP_STATE Gauge "pelago_group_state_bytes" ["group"] "Keys and values. With ?groups=1.";
    GROUP_LAG Gauge "pelago_group_follower_lag_instances" ["group"] "At the leader: how far the slowest follower is behind. With ?groups=1.";
    GROUP_CHECKPOINT Gauge "pelago_group_checkpoint_lag_instances" ["group"] "How far the checkpoint is behind the state. With ?groups=1.";
}

/// Shown as 0 before they occur, so that an alert on their increase sees the first one.
const USUAL_ERRORS: [&str; 6] = ["TRYAGAIN", "CLUSTERDOWN", "INDOUBT", "BUSY", "READONLY", "CORRUPT"];

/// What a node does in a group.
const ROLES: [&str; 5] = ["leader", "follower", "probing", "candidate", "halted"];

/// The table as Markdown, as `docs/operations.md` has it.
#[must_use]
pub fn reference() -> String {
    let mut text = String::from("| metric | kind | labels | meaning |\n| --- | --- | --- | --- |\n");
    for metric in ALL {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let (name, kind, help) = (metric.name, metric.kind.word(), metric.help);
        text += &format!("| `{name}` | {kind} | {} | {help} |\n", labels.join(" "));
    }
    text
}

/// The text of `/metrics`.
pub(super) async fn text(desk: &Desk, by_group: bool) -> String {
    let stage = desk.board.stage();
    let (own, readiness) = match &stage {
        Stage::Serving(serving) => {
            let own = desk.look.own(serving).await;
            let readiness = super::ready::serving_readiness(serving, own.as_deref(), desk.board.is_leaving());
            (own.ok(), readiness)
        }
        stage => (None, Readiness::before(stage)),
    };
    let mut out = Exposition::default();
    out.family(&BUILD).sample(&[env!("CARGO_PKG_VERSION")], 1u64);
    if let Stage::Serving(Serving { shared, .. }) = &stage {
        let (name, node) = (shared.config.cluster.name.as_str(), shared.node.to_string());
        out.family(&NODE).sample(&[name, &shared.cluster.to_string(), &node], 1u64);
    }
    process(&mut out, &Process::look(desk.board.uptime()));
    ready(&mut out, &readiness);
    let mut family = out.family(&ADMIN);
    for ((route, code), count) in &*desk.answered.borrow() {
        family.sample(&[route.path(), &code.to_string()], *count);
    }
    if let Stage::Serving(Serving { shared, .. }) = &stage {
        if let Some(own) = &own {
            node(&mut out, own);
            clients(&mut out, shared, own);
            groups(&mut out, shared, own);
        }
        links(&mut out, shared, own.as_deref());
        log(&mut out, shared);
        if let Some(own) = &own {
            upkeep(&mut out, &own.status);
            if by_group {
                each_group(&mut out, &own.status.groups);
            }
        }
    }
    out.into_text()
}

fn process(out: &mut Exposition, process: &Process) {
    out.value(&CPU, process.cpu);
    for (metric, value) in
        [(RESIDENT, process.resident), (OPEN_FDS, process.open_fds), (MAX_FDS, process.max_fds)]
    {
        if let Some(value) = value {
            out.value(&metric, value);
        }
    }
    out.value(&STARTED, process.started);
}

fn ready(out: &mut Exposition, readiness: &Readiness) {
    out.value(&READY, readiness.ready);
    let mut family = out.family(&NOT_READY);
    for code in Code::ALL {
        family.sample(&[code.word()], readiness.reasons.iter().any(|reason| reason.code == code));
    }
}

fn node(out: &mut Exposition, own: &Own) {
    let status = &own.status;
    out.value(&ALARMS, status.alarms.len());
    let mut family = out.family(&READ_ONLY);
    for shortage in ["nospace", "memory"] {
        family.sample(&[shortage], status.read_only.as_deref() == Some(shortage));
    }
    out.value(&SLOW, own.reports.iter().any(|report| report.slow.is_some()));
}

fn clients(out: &mut Exposition, shared: &Shared, own: &Own) {
    let traffic = &own.status.traffic;
    let mut family = out.family(&COMMANDS);
    for (kind, count) in [("read", traffic.reads), ("write", traffic.writes), ("other", traffic.other)] {
        family.sample(&[kind], count);
    }
    let mut family = out.family(&ERRORS);
    for code in USUAL_ERRORS.into_iter().filter(|code| !traffic.errors.contains_key(*code)) {
        family.sample(&[code], 0u64);
    }
    for (code, count) in &traffic.errors {
        family.sample(&[code], *count);
    }
    let mut family = out.family(&TOOK);
    family.histogram(&["read"], &traffic.read_took);
    family.histogram(&["write"], &traffic.write_took);
    out.value(&CONNECTIONS, own.status.connections);
    out.value(&CONNECTIONS_LIMIT, u64::from(shared.live.now().0.limits.max_connections));
    out.value(&ACCEPTED, shared.accepted.load(Ordering::Relaxed));
    out.value(&TURNED_AWAY, shared.turned_away.load(Ordering::Relaxed));
    out.value(&OPEN_REQUESTS, own.status.open_requests);
}

fn follower_lag(group: &GroupLine) -> u64 {
    group.followers.iter().map(|follower| follower.behind).max().unwrap_or(0)
}

fn checkpoint_lag(group: &GroupLine) -> u64 {
    group.applied.saturating_sub(group.checkpoint)
}

fn groups(out: &mut Exposition, shared: &Shared, own: &Own) {
    let NodeStatus { groups, node, .. } = &own.status;
    let count = |wanted: &dyn Fn(&GroupLine) -> bool| groups.iter().filter(|g| wanted(g)).count();
    let sum = |of: &dyn Fn(&GroupLine) -> u64| groups.iter().map(of).sum::<u64>();
    let most = |of: &dyn Fn(&GroupLine) -> u64| groups.iter().map(of).max().unwrap_or(0);
    let led = |of: u64, group: &GroupLine| if group.role == "leader" { of } else { 0 };
    let mut family = out.family(&GROUPS);
    for role in ROLES {
        family.sample(&[role], count(&|g| g.role == role));
    }
    out.value(&WITHOUT, count(&|g| g.leader.is_none()));
    out.value(&REBUILDING, count(&|g| g.rebuilding));
    out.value(&NOT_VOTING, count(&|g| !g.votes && g.wanted.contains(node)));
    out.value(&LEADER_CHANGES, sum(&|g| g.epoch));
    out.value(&APPLIED, sum(&|g| g.applied));
    out.value(&KEYS, sum(&|g| g.keys));
    out.value(&STATE, sum(&|g| g.bytes));
    out.value(&STATE_LIMIT, shared.live.now().0.limits.max_state_bytes.0);
    out.value(&LED_KEYS, sum(&|g| led(g.keys, g)));
    out.value(&LED_STATE, sum(&|g| led(g.bytes, g)));
    out.value(&LEASED, sum(&|g| g.leased));
    out.value(&FOLLOWER_LAG, most(&follower_lag));
    out.value(&CHECKPOINT_LAG, most(&checkpoint_lag));
}

fn links(out: &mut Exposition, shared: &Shared, own: Option<&Own>) {
    if let Some(own) = own {
        let mut family = out.family(&PEER_UP);
        for peer in own.status.nodes.iter().filter(|peer| peer.node != own.status.node) {
            family.sample(&[&peer.node.to_string()], peer.alive);
        }
    }
    let stats = shared.net.stats();
    let links: Vec<(String, &str, _)> =
        stats.links.iter().map(|link| (link.node.to_string(), lane(link.lane), link)).collect();
    let mut each = |metric: &Metric, of: &dyn Fn(&netio::LinkStats) -> u64| {
        let mut family = out.family(metric);
        for (peer, lane, link) in &links {
            family.sample(&[peer, lane], of(link));
        }
    };
    each(&LINK_UP, &|link| link.connected.into());
    each(&LINK_QUEUED, &|link| link.queued_bytes);
    each(&LINK_SENT, &|link| link.bytes_written);
    each(&LINK_RECEIVED, &|link| link.bytes_received);
    each(&LINK_DROPPED, &|link| link.refused_full + link.refused_down);
    each(&LINK_UPS, &|link| link.ups);
    out.value(&REJECTED, stats.rejected);
    out.value(&CORRUPT, stats.corrupt);
}

fn lane(lane: Lane) -> &'static str {
    match lane {
        Lane::Consensus => "consensus",
        Lane::Bulk => "bulk",
    }
}

fn log(out: &mut Exposition, shared: &Shared) {
    let (log, _) = shared.gauge.stats();
    out.family(&COMMITS).histogram(&[], &shared.gauge.took().line());
    out.value(&RECORDS, log.records);
    out.value(&WRITTEN, log.written_bytes);
    out.value(&SEGMENTS, log.segments);
    out.value(&LOG_BYTES, log.disk_bytes);
    out.value(&DROPPED, log.dropped_segments);
    out.value(&WAITS, log.waits_for_segment);
    out.value(&HELD, shared.gauge.held().map_or(Duration::ZERO, |(_, since)| since));
    out.value(&FREE, shared.gauge.free());
    out.value(&FREE_LIMIT, shared.live.now().0.limits.min_free_disk.0);
}

/// What the node does beside serving.
fn upkeep(out: &mut Exposition, status: &NodeStatus) {
    let scrub = &status.log.scrub;
    out.value(&SCRUBS, scrub.passes);
    out.value(&SCRUBBED, scrub.last_pass_unix_s);
    out.value(&FINDINGS, scrub.findings.iter().filter(|finding| !finding.healed).count());
    out.value(&RESCANS, status.groups.iter().map(|g| g.rescans).sum::<u64>());
    out.value(&VERIFIED, status.groups.iter().map(|g| g.verified).sum::<u64>());
    let directions = [("in", true), ("out", false)];
    let mut family = out.family(&TRANSFERS);
    for (word, incoming) in directions {
        family.sample(&[word], status.transfers.iter().filter(|t| t.incoming == incoming).count());
    }
    let mut family = out.family(&TRANSFERRED);
    for (word, incoming) in directions {
        let way = status.transfers.iter().filter(|t| t.incoming == incoming);
        family.sample(&[word], way.map(|t| t.bytes).sum::<u64>());
    }
    let mut family = out.family(&LEARNING);
    for (word, incoming) in directions {
        family.sample(&[word], status.learning.iter().filter(|l| l.incoming == incoming).count());
    }
}

fn each_group(out: &mut Exposition, groups: &[GroupLine]) {
    let mut each = |metric: &Metric, of: &dyn Fn(&GroupLine) -> Option<u64>| {
        let mut family = out.family(metric);
        for group in groups {
            if let Some(value) = of(group) {
                family.sample(&[&group.group.to_string()], value);
            }
        }
    };
    each(&GROUP_LEADER, &|g| Some(g.leader.unwrap_or(0).into()));
    each(&GROUP_APPLIED, &|g| Some(g.applied));
    each(&GROUP_KEYS, &|g| Some(g.keys));
    each(&GROUP_STATE, &|g| Some(g.bytes));
    each(&GROUP_LAG, &|g| (g.role == "leader").then(|| follower_lag(g)));
    each(&GROUP_CHECKPOINT, &|g| Some(checkpoint_lag(g)));
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_follow_the_conventions() {
        let mut seen = BTreeSet::new();
        for metric in ALL {
            let name = metric.name;
            assert!(seen.insert(name), "{name} is there twice");
            assert!(name.starts_with("pelago_") || name.starts_with("process_"), "{name}");
            assert!(name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_')), "{name}");
            assert_eq!(
                name.ends_with("_total"),
                metric.kind == Kind::Counter,
                "{name}: counters end in _total"
            );
            for word in ["_ms", "_us", "_milliseconds", "_micros", "_kb", "_mib", "_percent", "_minutes"] {
                assert!(!name.contains(word), "{name}: base units only");
            }
            for suffix in ["_bucket", "_sum", "_count"] {
                assert!(!name.ends_with(suffix), "{name}: the suffix belongs to histograms");
            }
            if metric.kind == Kind::Histogram {
                assert!(name.ends_with("_seconds"), "{name}");
            }
            assert!(
                metric.help.ends_with('.') && !metric.help.contains(['\\', '\n', '|']),
                "{name}: {}",
                metric.help
            );
            for label in metric.labels {
                assert!(
                    !["le", "quantile", "instance", "job"].contains(label),
                    "{name}: label {label} is taken"
                );
                assert_eq!(
                    *label == "group",
                    name.starts_with("pelago_group_"),
                    "{name}: groups only by ?groups=1"
                );
            }
        }
    }
}
