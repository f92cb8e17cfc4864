//! The processes of a cluster: start, kill, stop, continue, and what they say about themselves.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use server::status::NodeStatus;

use super::directory::TestDir;
use super::ports::Ports;
use super::wait::{until, within};
use super::wire::{Client, Reply};

/// The right to run a cluster: one at a time within a test program, since each wants the whole
/// machine.
pub type Turn = MutexGuard<'static, ()>;

/// Waits for the turn.
pub fn turn() -> Turn {
    static TURN: Mutex<()> = Mutex::new(());
    // A test that failed with the turn in its hands has cleaned up all the same.
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long a cluster may take to be born and to elect all leaders, on a busy machine.
const START: Duration = Duration::from_secs(20);

/// What a cluster is made of.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// How many nodes, numbered from 1.
    pub nodes: u32,
    /// How many groups.
    pub groups: u32,
    /// Its name.
    pub name: &'static str,
    /// The size of one file of the log.
    pub segment_size: &'static str,
    /// More lines of the configuration, with their section headers.
    pub more: &'static str,
}

impl Default for Recipe {
    fn default() -> Recipe {
        Recipe { nodes: 3, groups: 16, name: "test", segment_size: "32MiB", more: "" }
    }
}

impl Recipe {
    /// The text of config.toml, which lists `nodes` nodes.
    pub fn text(&self, nodes: u32, data: &Path, ports: &Ports) -> String {
        let Recipe { groups, name, segment_size, more, .. } = self;
        let replication = self.nodes.min(3);
        let mut text = format!(
            "[cluster]\nname = \"{name}\"\ngroups = {groups}\nreplication = {replication}\n\n\
             [storage]\ndata_dir = \"{}\"\ndurability = \"fsync\"\nsegment_size = \"{segment_size}\"\n\n{more}\n",
            data.display()
        );
        for node in 1..=nodes {
            let (peer, client, admin) = (ports.peer(node), ports.client(node), ports.admin(node));
            // Writing to a string cannot fail.
            let _ = write!(
                text,
                "\n[[nodes]]\nid = {node}\npeer_addr = \"{peer}\"\nclient_addr = \"{client}\"\nadmin_addr = \"{admin}\"\n"
            );
        }
        text
    }
}

/// How a process ended that was not meant to run on.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code; `None` after a signal.
    pub code: Option<i32>,
    /// What it wrote to stderr.
    pub said: String,
}

struct Process {
    child: Child,
    paused: bool,
}

/// Nodes that are configured alike, each running or not.
pub struct Cluster {
    recipe: Recipe,
    ports: Ports,
    processes: BTreeMap<u32, Process>,
    // Behind the processes, so that it is removed after they are gone.
    dir: TestDir,
}

impl Cluster {
    /// Starts every node and waits until all of them know a leader of every group.
    pub fn start(recipe: Recipe) -> Cluster {
        let mut cluster = Cluster::prepare(recipe);
        for node in cluster.nodes() {
            cluster.run(node);
        }
        cluster.wait_whole(START);
        cluster
    }

    /// Writes the configuration and starts nothing.
    pub fn prepare(recipe: Recipe) -> Cluster {
        let (dir, ports) = (TestDir::new(), Ports::take());
        let text = recipe.text(recipe.nodes, &dir.path().join("data"), &ports);
        fs::write(dir.path().join("config.toml"), text).expect("the configuration is written");
        Cluster { recipe, ports, processes: BTreeMap::new(), dir }
    }

    /// Nodes that start from now on have a configuration that lists so many.
    pub fn list(&self, nodes: u32) {
        let text = self.recipe.text(nodes, &self.dir.path().join("data"), &self.ports);
        fs::write(self.config(), text).expect("the configuration is written");
    }

    /// Runs `pelago` with these words and the address of a node behind them; returns its exit code and
    /// what it wrote.
    pub fn pelago(&self, words: &[&str], node: u32) -> (Option<i32>, String) {
        let address = self.ports.client(node).to_string();
        let mut command = Command::new(env!("CARGO_BIN_EXE_pelago"));
        command.args(words).args(["--addr", &address]).env_remove("RUST_LOG").env("NO_COLOR", "1");
        let output = command.stdin(Stdio::null()).output().expect("pelago runs");
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    }

    /// All node numbers.
    pub fn nodes(&self) -> Vec<u32> {
        (1..=self.recipe.nodes).collect()
    }

    /// The nodes whose process runs and is not paused.
    pub fn running(&self) -> Vec<u32> {
        self.processes.iter().filter(|(_, p)| !p.paused).map(|(node, _)| *node).collect()
    }

    /// The ports.
    pub fn ports(&self) -> &Ports {
        &self.ports
    }

    /// The cluster's configuration file.
    pub fn config(&self) -> PathBuf {
        self.dir.path().join("config.toml")
    }

    /// The directory in which everything is.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A node's data directory.
    pub fn data(&self, node: u32) -> PathBuf {
        self.dir.path().join("data").join(format!("node-{node}"))
    }

    fn command(&self, node: u32, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pelago"));
        command.arg("serve").arg("--config").arg(self.config()).arg("--node").arg(node.to_string());
        command.arg("--exit-with-stdin").args(more).env_remove("RUST_LOG").env("NO_COLOR", "1");
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        command
    }

    /// Starts a node that does not run.
    pub fn run(&mut self, node: u32) {
        self.run_with(node, &[]);
    }

    /// The same with more words on the command line.
    pub fn run_with(&mut self, node: u32, more: &[&str]) {
        let command = self.command(node, more);
        self.spawn(node, command);
    }

    /// Starts a node that does not run, with more in its environment.
    pub fn run_in(&mut self, node: u32, environment: &[(&str, &str)]) {
        let mut command = self.command(node, &[]);
        command.envs(environment.iter().copied());
        self.spawn(node, command);
    }

    fn spawn(&mut self, node: u32, mut command: Command) {
        let log = OpenOptions::new().create(true).append(true).open(self.log_path(node)).expect("a log file");
        let child = command.stderr(log).spawn().expect("pelago starts");
        let before = self.processes.insert(node, Process { child, paused: false });
        assert!(before.is_none(), "node {node} runs already");
    }

    /// Starts a node that is expected to end by itself, with more words on its command line.
    pub fn try_start(&self, node: u32, more: &[&str]) -> Ended {
        let path = self.dir.path().join("attempt.log");
        let log = File::create(&path).expect("a log file");
        let mut child = self.command(node, more).stderr(log).spawn().expect("pelago starts");
        let limit = Duration::from_secs(10);
        let (status, _) = within(limit, "the process ends by itself", || match child.try_wait() {
            Ok(Some(status)) => Ok(Some(status)),
            Ok(None) => Err("it runs"),
            Err(_) => Ok(None),
        });
        let said = fs::read_to_string(&path).expect("its log");
        Ended { code: status.and_then(|s| s.code()), said }
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self, node: u32) {
        let mut process = self.processes.remove(&node).expect("a running node");
        end(&mut process.child);
    }

    /// `kill -9` of several nodes before waiting for any.
    pub fn kill_all(&mut self) {
        for process in self.processes.values_mut() {
            let _ = process.child.kill();
        }
        for node in self.nodes() {
            if self.processes.contains_key(&node) {
                self.kill(node);
            }
        }
    }

    /// SIGTERM; waits for the end and returns how it ended.
    pub fn terminate(&mut self, node: u32) -> ExitStatus {
        self.signal(node, "TERM");
        let mut process = self.processes.remove(&node).expect("a running node");
        let gone =
            within(Duration::from_secs(10), "the end after SIGTERM", || match process.child.try_wait() {
                Ok(Some(status)) => Ok(status),
                Ok(None) => Err("it runs".to_owned()),
                Err(e) => Err(e.to_string()),
            });
        gone.0
    }

    /// SIGSTOP.
    pub fn pause(&mut self, node: u32) {
        self.signal(node, "STOP");
        self.processes.get_mut(&node).expect("a running node").paused = true;
    }

    /// SIGCONT.
    pub fn resume(&mut self, node: u32) {
        self.signal(node, "CONT");
        self.processes.get_mut(&node).expect("a running node").paused = false;
    }

    /// The process id of a running node.
    pub fn pid(&self, node: u32) -> u32 {
        self.processes[&node].child.id()
    }

    /// Resident memory of a running node in bytes.
    pub fn resident(&self, node: u32) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid(node))).expect("its /proc entry");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number of kB");
        kib << 10
    }

    fn signal(&self, node: u32, name: &str) {
        let pid = self.pid(node).to_string();
        // The shell's own `kill`: a minimal machine has no other.
        let done = Command::new("sh").args(["-c", "kill -s \"$0\" \"$1\"", name, &pid]).status();
        assert!(done.is_ok_and(|status| status.success()), "kill -s {name} {pid}");
    }

    /// A connection to a node, which must be there.
    pub fn client(&self, node: u32) -> Client {
        let address = self.ports.client(node);
        let limit = Duration::from_secs(5);
        within(limit, &format!("node {node} takes a client"), || Client::connect(address)).0
    }

    /// Where clients connect, by node.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes().into_iter().map(|node| self.ports.client(node)).collect()
    }

    /// What a node says about itself.
    ///
    /// # Errors
    /// With why it says nothing.
    pub fn status(&self, node: u32) -> Result<NodeStatus, String> {
        let patience = Duration::from_secs(2);
        let mut client =
            Client::connect_with(self.ports.client(node), patience).map_err(|e| e.to_string())?;
        match client.say("STATUS JSON").map_err(|e| e.to_string())? {
            Reply::Bulk(Some(text)) => serde_json::from_slice(&text).map_err(|e| e.to_string()),
            other => Err(format!("{other:?}")),
        }
    }

    /// Of how many groups each node is the leader by its own word.
    pub fn leads(&self) -> Result<BTreeMap<u32, u32>, String> {
        let mut leads = BTreeMap::new();
        for node in self.running() {
            let status = self.status(node)?;
            let own = status.groups.iter().filter(|g| g.role == "leader").count() as u32;
            leads.insert(node, own);
        }
        Ok(leads)
    }

    /// Checks that every running node knows a running leader of every group, the same one as the
    /// others, and hears the other running nodes.
    pub fn led(&self) -> Result<(), String> {
        let running = self.running();
        let mut leaders: BTreeMap<u32, (u32, u32)> = BTreeMap::new();
        for node in &running {
            let status = self.status(*node)?;
            if let Some(deaf) = status.nodes.iter().find(|n| running.contains(&n.node) && !n.alive) {
                return Err(format!("node {node} does not hear node {}", deaf.node));
            }
            if let Some(halted) = status.groups.iter().find_map(|g| g.halted.as_ref()) {
                return Err(format!("node {node} has halted a group: {halted}"));
            }
            for line in &status.groups {
                let group = line.group;
                match line.leader {
                    None => return Err(format!("node {node} knows no leader of group {group}")),
                    Some(leader) if !running.contains(&leader) => {
                        return Err(format!(
                            "node {node} takes the dead node {leader} for the leader of group {group}"
                        ));
                    }
                    Some(leader) => {
                        let (known, by) = *leaders.entry(group).or_insert((leader, *node));
                        if known != leader {
                            return Err(format!(
                                "group {group} is led by {known} for node {by}, by {leader} for node {node}"
                            ));
                        }
                    }
                }
            }
        }
        let missing = (0..self.recipe.groups).find(|g| !leaders.contains_key(g));
        missing.map_or(Ok(()), |group| Err(format!("nobody has group {group}")))
    }

    /// Checks that no node leads more than one group more than another.
    pub fn even(&self) -> Result<(), String> {
        self.led()?;
        let leads = self.leads()?;
        let (least, most) = (leads.values().min(), leads.values().max());
        match (least, most) {
            (Some(least), Some(most)) if most - least <= 1 => Ok(()),
            _ => Err(format!("leaderships by node: {leads:?}")),
        }
    }

    /// Waits until [`Cluster::led`]. Returns how long that took.
    pub fn wait_led(&self, deadline: Duration) -> Duration {
        within(deadline, "every group has a leader", || self.led()).1
    }

    /// Waits until [`Cluster::even`]. Returns how long that took.
    pub fn wait_whole(&self, deadline: Duration) -> Duration {
        within(deadline, "every group has a leader, spread evenly", || self.even()).1
    }

    /// Waits until all nodes have applied the same instances, and checks that they then have the
    /// same values and states. To be called when no client writes.
    pub fn wait_same(&self, deadline: Duration) {
        within(deadline, "all nodes agree on every group", || {
            let mut seen: BTreeMap<u32, (u32, u64, String, String)> = BTreeMap::new();
            for node in self.running() {
                for line in self.status(node)?.groups {
                    if line.rebuilding {
                        return Err(format!("node {node} is rebuilding group {}", line.group));
                    }
                    let here = (node, line.applied, line.chain, line.state_hash);
                    let there = seen.entry(line.group).or_insert_with(|| here.clone());
                    if there.1 != here.1 {
                        return Err(format!("group {} stands at {there:?} and {here:?}", line.group));
                    }
                    assert_eq!(
                        (&there.2, &there.3),
                        (&here.2, &here.3),
                        "group {}: {there:?}, {here:?}",
                        line.group
                    );
                }
            }
            Ok(())
        });
    }

    /// The node that leads most groups.
    pub fn busiest(&self) -> u32 {
        let leads = self.leads().expect("the nodes' status");
        leads.into_iter().max_by_key(|(node, count)| (*count, *node)).expect("a running node").0
    }

    /// The leader of a key's group, as node 1 or another running node knows it.
    pub fn leader_of(&self, key: &str) -> u32 {
        let limit = Duration::from_secs(5);
        within(limit, &format!("a leader of {key}'s group"), || self.known_leader(key)).0
    }

    fn known_leader(&self, key: &str) -> Result<u32, String> {
        let node = *self.running().first().ok_or("no node runs")?;
        let mut client = Client::connect(self.ports.client(node)).map_err(|e| e.to_string())?;
        let Reply::Array(items) = client.say(&format!("WHERE {key}")).map_err(|e| e.to_string())? else {
            return Err("WHERE is no array".into());
        };
        let pairs = items.chunks_exact(2);
        let leader = pairs.filter(|pair| pair[0] == Reply::bulk("leader")).map(|pair| &pair[1]).next();
        match leader {
            Some(Reply::Integer(leader)) if self.running().contains(&(*leader as u32)) => Ok(*leader as u32),
            other => Err(format!("{other:?}")),
        }
    }

    fn log_path(&self, node: u32) -> PathBuf {
        self.dir.path().join(format!("node-{node}.log"))
    }

    /// Everything that a node has logged, over all its lives.
    pub fn log(&self, node: u32) -> String {
        fs::read(self.log_path(node))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Waits until a node has logged something.
    pub fn wait_logged(&self, node: u32, text: &str, deadline: Duration) -> Duration {
        until(deadline, &format!("node {node} logs {text:?}"), || self.log(node).contains(text))
    }

    fn print_tails(&self) {
        const LINES: usize = 40;
        for node in self.nodes() {
            let log = self.log(node);
            let lines: Vec<&str> = log.lines().collect();
            let running = self.processes.contains_key(&node);
            eprintln!("--- node {node} (running: {running}), its last lines of {}:", lines.len());
            for line in &lines[lines.len().saturating_sub(LINES)..] {
                eprintln!("{line}");
            }
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.print_tails();
        }
        for process in self.processes.values_mut() {
            end(&mut process.child);
        }
    }
}

/// Kills a process and waits until it is gone, also when it is stopped.
fn end(child: &mut Child) {
    // Both fail only when it has ended already.
    let _ = child.kill();
    let _ = child.wait();
}
