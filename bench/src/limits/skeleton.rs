//! The load at three replicas that do nothing but replicate: three processes, as the nodes of a cluster are, and the same
//! generator as everywhere.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde::Serialize;

use crate::Failure;
use crate::args::Load;
use crate::cost::{Processes, Spent};
use crate::report::Row;
use crate::sweep::Sweep;
use crate::target::Target;

/// Clients, one after the other.
const CONNECTIONS: &str = "1,64,256";

/// What a number of clients came to.
#[derive(Debug, Serialize)]
pub struct Replicated {
    pub connections: u32,
    pub puts_per_sec: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    /// Of all three replicas.
    pub cpu_us_per_put: Option<f64>,
    /// Of all three replicas.
    pub context_switches_per_put: Option<f64>,
}

/// Starts the replicas in `dir`, offers the loads and ends the replicas.
pub fn measure(dir: &Path, time: Duration) -> Result<Vec<Replicated>, Failure> {
    let followers = [Replica::start(dir, &[])?, Replica::start(dir, &[])?];
    let leader = Replica::start(dir, &[&followers[0].address, &followers[1].address])?;
    let pids: Vec<u32> = followers.iter().chain([&leader]).map(|replica| replica.child.id()).collect();
    let seconds = format!("{}ms", time.as_millis().max(1));
    let words = [
        "-w",
        "put",
        "-c",
        CONNECTIONS,
        "-d",
        &seconds,
        "--warmup",
        "200ms",
        "--no-environment",
        "--no-events",
    ];
    let sweep = Sweep::plan(Load::of(&words)?, false)?;
    let servers = Some(Processes::find(&pids)?);
    let mut target = Target::new(&sweep, std::slice::from_ref(&leader.address), servers)?;
    let mut found = Vec::new();
    for case in sweep.cases() {
        let outcome = target.offer(case, format!("bare skeleton, {}", case.told(sweep.differs())))?;
        found.push(Replicated::of(&Row::new(case, &outcome, None))?);
    }
    Ok(found)
}

impl Replicated {
    fn of(row: &Row) -> Result<Self, Failure> {
        if let Some((class, count)) = row.errors.iter().next() {
            return Err(Failure(format!(
                "{count} puts at the bare skeleton failed ({class}): one of its processes ended, see above"
            )));
        }
        let (cpu, switches) = match row.server_cost {
            Some(Spent::Known { cpu_us_per_op, context_switches_per_op }) => {
                (Some(cpu_us_per_op), Some(context_switches_per_op))
            }
            _ => (None, None),
        };
        Ok(Replicated {
            connections: row.connections,
            puts_per_sec: row.all.ops_per_sec,
            p50_us: row.all.latency_us.p50,
            p99_us: row.all.latency_us.p99,
            cpu_us_per_put: cpu,
            context_switches_per_put: switches,
        })
    }
}

/// A process that ends with this value. It ends by itself if this process dies before: its input is then closed.
struct Replica {
    child: Child,
    address: String,
}

impl Replica {
    fn start(dir: &Path, followers: &[&str]) -> Result<Self, Failure> {
        let failed =
            |why: String| Failure(format!("a replica of the bare skeleton cannot be started: {why}"));
        let program = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
        let mut child = Command::new(program)
            .arg("skeleton-replica")
            .arg(dir)
            .args(followers)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| failed(error.to_string()))?;
        let output = child.stdout.take();
        let mut replica = Replica { child, address: String::new() };
        let mut line = String::new();
        if let Some(output) = output {
            BufReader::new(output).read_line(&mut line).map_err(|error| failed(error.to_string()))?;
        }
        replica.address = line.trim_end().to_owned();
        if replica.address.is_empty() {
            return Err(failed("it ended at once, see above".to_owned()));
        }
        Ok(replica)
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        // One that has ended already needs no end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
