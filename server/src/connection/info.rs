//! `INFO`: what Redis' tools ask a server for, as far as it is true here. Fields that have no meaning here
//! are left out, and what Redis has no name for begins with `pelago_`.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use super::Shared;
use super::node_commands::node_name;
use crate::config::Durability;
use crate::runtime::tally::Counts;
use crate::runtime::worker::ShardReport;

/// The version of Redis whose replies these commands give.
const REDIS_VERSION: &str = "7.0.0";

/// The sections that are asked for, all if none is.
pub(super) fn info(shared: &Shared, reports: &[ShardReport], sections: &[String]) -> String {
    let wanted = |name: &str| {
        sections.is_empty()
            || sections.iter().any(|s| matches!(s.as_str(), "all" | "default" | "everything") || s == name)
    };
    let mut text = String::new();
    for (name, section) in SECTIONS {
        if wanted(&name.to_lowercase()) {
            if !text.is_empty() {
                text.push_str("\r\n");
            }
            // Writing to a string cannot fail.
            let _ = write!(text, "# {name}\r\n");
            section(&mut Lines(&mut text), shared, reports);
        }
    }
    text
}

/// The lines of a section.
struct Lines<'a>(&'a mut String);

impl Lines<'_> {
    fn add(&mut self, name: &str, value: impl std::fmt::Display) {
        let _ = write!(self.0, "{name}:{value}\r\n");
    }
}

type Section = fn(&mut Lines, &Shared, &[ShardReport]);

const SECTIONS: [(&str, Section); 9] = [
    ("Server", server),
    ("Clients", clients),
    ("Memory", memory),
    ("Persistence", persistence),
    ("Stats", stats),
    ("Replication", replication),
    ("CPU", cpu),
    ("Cluster", cluster),
    ("Keyspace", keyspace),
];

fn server(lines: &mut Lines, shared: &Shared, _: &[ShardReport]) {
    let uptime = shared.started.elapsed().as_secs();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let system = rustix::system::uname();
    let word = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
    lines.add("redis_version", REDIS_VERSION);
    lines.add("pelago_version", env!("CARGO_PKG_VERSION"));
    lines.add("redis_mode", "standalone");
    lines.add(
        "os",
        format_args!("{} {} {}", word(system.sysname()), word(system.release()), word(system.machine())),
    );
    lines.add("arch_bits", usize::BITS);
    lines.add("process_id", std::process::id());
    lines.add("run_id", node_name(shared, shared.node));
    lines.add("tcp_port", shared.config.node(shared.node).map_or(0, |n| n.client_addr.port()));
    lines.add("server_time_usec", now.as_micros());
    lines.add("uptime_in_seconds", uptime);
    lines.add("uptime_in_days", uptime / 86_400);
}

fn clients(lines: &mut Lines, shared: &Shared, _: &[ShardReport]) {
    lines.add("connected_clients", shared.connections.load(Ordering::Relaxed));
    lines.add("maxclients", shared.live.now().0.limits.max_connections);
}

fn memory(lines: &mut Lines, shared: &Shared, reports: &[ShardReport]) {
    if let Some(bytes) = resident() {
        lines.add("used_memory_rss", bytes);
    }
    lines.add("maxmemory", shared.live.now().0.limits.max_state_bytes.0);
    lines.add("maxmemory_policy", "noeviction");
    lines.add("pelago_state_bytes", reports.iter().map(|r| r.state_bytes).sum::<u64>());
}

fn persistence(lines: &mut Lines, shared: &Shared, _: &[ShardReport]) {
    let (log, _) = shared.gauge.stats();
    lines.add("loading", 0);
    lines.add("aof_enabled", u8::from(shared.config.storage.durability == Durability::Fsync));
    lines.add("pelago_durability", shared.config.storage.durability.name());
    lines.add("pelago_log_segments", log.segments);
    lines.add("pelago_log_bytes", log.disk_bytes);
    lines.add("pelago_log_commits", log.commits);
    lines.add("pelago_log_records", log.records);
}

fn stats(lines: &mut Lines, shared: &Shared, reports: &[ShardReport]) {
    lines.add("total_connections_received", shared.accepted.load(Ordering::Relaxed));
    lines.add("total_commands_processed", Counts::of(reports.iter().map(|r| &r.tally)).commands());
    lines.add("pelago_open_requests", reports.iter().map(|r| r.open_requests).sum::<usize>());
}

fn replication(lines: &mut Lines, _: &Shared, reports: &[ShardReport]) {
    let here = reports.iter().flat_map(|r| &r.groups).filter(|g| !g.parted);
    // Every node takes every write.
    lines.add("role", "master");
    lines.add("connected_slaves", 0);
    lines.add("pelago_groups", here.count());
    lines.add("pelago_groups_led", reports.iter().map(|r| r.leads).sum::<usize>());
}

fn cpu(lines: &mut Lines, _: &Shared, _: &[ShardReport]) {
    if let Some((user, system)) = processor_time() {
        lines.add("used_cpu_sys", format_args!("{system:.6}"));
        lines.add("used_cpu_user", format_args!("{user:.6}"));
    }
}

fn cluster(lines: &mut Lines, shared: &Shared, _: &[ShardReport]) {
    // A client that reads 1 would have to know where keys are, and none has to.
    lines.add("cluster_enabled", 0);
    lines.add("pelago_cluster_id", shared.cluster);
    lines.add("pelago_cluster_name", &shared.config.cluster.name);
    lines.add("pelago_nodes", shared.roster.current().nodes().len());
}

fn keyspace(lines: &mut Lines, _: &Shared, reports: &[ShardReport]) {
    let groups = || reports.iter().flat_map(|r| &r.groups).filter(|g| !g.parted);
    let keys: usize = groups().map(|g| g.keys).sum();
    if keys > 0 {
        lines.add("db0", format_args!("keys={keys},expires={}", groups().map(|g| g.mortal).sum::<usize>()));
    }
}

/// Bytes of this process in memory; `None` where the system does not say.
fn resident() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// Seconds of processor time of this process, its own and the system's for it; `None` where the system does
/// not say.
fn processor_time() -> Option<(f64, f64)> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is a name in brackets and may have blanks.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    let mut seconds = || Some(fields.next()?.parse::<u64>().ok()? as f64 / ticks);
    Some((seconds()?, seconds()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_says_how_much_this_process_takes() {
        if !std::path::Path::new("/proc/self/stat").exists() {
            return;
        }
        let bytes = resident().expect("statm");
        assert!((1 << 20..1 << 40).contains(&bytes), "{bytes}");
        let (user, system) = processor_time().expect("stat");
        let begun = std::time::Instant::now();
        let mut later = (user, system);
        // A tick is ten milliseconds: work until one has passed.
        while later == (user, system) {
            assert!(begun.elapsed().as_secs() < 30, "no tick in 30 s of work");
            later = processor_time().expect("stat");
        }
        assert!(later.0 >= user && later.1 >= system && later.0 + later.1 < user + system + 30.0);
    }
}
