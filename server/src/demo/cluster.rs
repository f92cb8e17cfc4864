//! The processes of a demo.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write as _};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::directory::Directory;
use super::interrupt::Interrupt;
use crate::cli::Failure;

/// Lines of a log that are shown when something went wrong.
const TAIL_LINES: usize = 12;
/// And the bytes that are read for them.
const TAIL_BYTES: u64 = 8 * 1024;

/// How long a node may take to end when it was asked to.
const PATIENCE: Duration = Duration::from_secs(10);

/// All nodes, as child processes. They end with it.
#[derive(Debug)]
pub struct Cluster<'a> {
    directory: &'a Directory,
    program: PathBuf,
    nodes: Vec<Process>,
}

#[derive(Debug)]
struct Process {
    node: u32,
    address: String,
    config: PathBuf,
    child: Option<Child>,
    /// Length of the log file when this process was started.
    log_start: u64,
}

/// A process that ended although nobody asked it to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Death {
    /// The node.
    pub node: u32,
    /// How it ended, and its last words.
    pub text: String,
}

impl<'a> Cluster<'a> {
    /// Starts every node of the directory's configuration.
    ///
    /// # Errors
    /// When a process cannot be started. Those that were are ended again.
    pub fn start(directory: &'a Directory) -> Result<Cluster<'a>, Failure> {
        let program = std::env::current_exe()
            .map_err(|error| Failure::error(format!("could not find the program's own file: {error}")))?;
        let nodes = directory.config.nodes.iter().map(|node| Process {
            node: node.id.0,
            address: node.client_addr.to_string(),
            config: directory.config_file(),
            child: None,
            log_start: 0,
        });
        let mut cluster = Cluster { directory, program, nodes: nodes.collect() };
        for node in cluster.ids() {
            cluster.start_node(node)?;
        }
        Ok(cluster)
    }

    /// Starts a node that the directory's configuration does not list, with one that does.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn join(&mut self, config: PathBuf, node: u32, address: String) -> Result<(), Failure> {
        self.nodes.push(Process { node, address, config, child: None, log_start: 0 });
        self.start_node(node)
    }

    /// Runs the program itself with these words, and returns whether it went well and what it said.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn run(&self, words: &[&str]) -> Result<(bool, String), Failure> {
        let output =
            Command::new(&self.program).args(words).stdin(Stdio::null()).output().map_err(|error| {
                Failure::error(format!("could not run {}: {error}", self.program.display()))
            })?;
        let said = [output.stdout, output.stderr].concat();
        Ok((output.status.success(), String::from_utf8_lossy(&said).trim_end().to_owned()))
    }

    /// Starts one node that is not running.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn start_node(&mut self, node: u32) -> Result<(), Failure> {
        let fail = |error: io::Error| Failure::error(format!("could not start node {node}: {error}"));
        let file = self.directory.log_file(node);
        let log = OpenOptions::new().create(true).append(true).open(&file).map_err(fail)?;
        let log_start = log.metadata().map_err(fail)?.len();
        let config = self.process(node)?.config.clone();
        let child = Command::new(&self.program)
            .arg("serve")
            .arg("--config")
            .arg(config)
            .arg("--node")
            .arg(node.to_string())
            .args(["--exit-with-stdin", "--stdin-commands"])
            .stdin(Stdio::piped())
            .stdout(log.try_clone().map_err(fail)?)
            .stderr(log)
            // Ctrl-C goes to the whole group of the terminal; the demo ends its nodes in its own time.
            .process_group(0)
            .spawn()
            .map_err(fail)?;
        let process = self.process(node)?;
        process.child = Some(child);
        process.log_start = log_start;
        Ok(())
    }

    /// The nodes, ascending.
    #[must_use]
    pub fn ids(&self) -> Vec<u32> {
        self.nodes.iter().map(|process| process.node).collect()
    }

    /// Where clients reach a node.
    #[must_use]
    pub fn address(&self, node: u32) -> String {
        let found = self.nodes.iter().find(|process| process.node == node);
        found.map(|process| process.address.clone()).unwrap_or_default()
    }

    /// Where clients reach the nodes whose processes run, or all of them when none does.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        let running = || self.nodes.iter().filter(|process| process.child.is_some());
        let of = |process: &Process| process.address.clone();
        match running().next() {
            Some(_) => running().map(of).collect(),
            None => self.nodes.iter().map(of).collect(),
        }
    }

    /// The process id of a node that runs.
    #[must_use]
    pub fn pid(&self, node: u32) -> Option<u32> {
        self.nodes.iter().find(|process| process.node == node)?.child.as_ref().map(Child::id)
    }

    /// The file of this very program.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Writes a line to the standard input of a node that runs; see `runtime::cut`.
    ///
    /// # Errors
    /// When it does not run or does not listen.
    pub fn tell(&mut self, node: u32, line: &str) -> Result<(), Failure> {
        let child = self.process(node)?.child.as_mut();
        let input = child.and_then(|child| child.stdin.as_mut());
        let input = input.ok_or_else(|| Failure::no(format!("node {node} is not running")))?;
        let told = writeln!(input, "{line}").and_then(|()| input.flush());
        told.map_err(|error| Failure::no(format!("could not tell node {node} to {line}: {error}")))
    }

    /// Ends a node with SIGKILL.
    ///
    /// # Errors
    /// When it does not run or cannot be killed.
    pub fn kill(&mut self, node: u32) -> Result<(), Failure> {
        let mut child = self.process(node)?.child.take();
        let child = child.as_mut().ok_or_else(|| Failure::no(format!("node {node} is not running")))?;
        let killed = child.kill().and_then(|()| child.wait());
        killed.map(|_| ()).map_err(|error| Failure::no(format!("could not kill node {node}: {error}")))
    }

    /// Who died since the last call.
    pub fn deaths(&mut self) -> Vec<Death> {
        let mut deaths = Vec::new();
        for index in 0..self.nodes.len() {
            let process = &mut self.nodes[index];
            let Some(child) = &mut process.child else { continue };
            let status = match child.try_wait() {
                Ok(None) => continue,
                Ok(Some(status)) => status.to_string(),
                Err(error) => format!("unknown, {error}"),
            };
            let (node, pid) = (process.node, child.id());
            process.child = None;
            let text = format!("node {node} (pid {pid}) ended: {status}\n{}", self.last_words(node));
            deaths.push(Death { node, text });
        }
        deaths
    }

    /// The end of what a node has logged since it was started, indented, under the file's name.
    #[must_use]
    pub fn last_words(&self, node: u32) -> String {
        let file = self.directory.log_file(node);
        let start = self.nodes.iter().find(|process| process.node == node).map_or(0, |p| p.log_start);
        let name = file.display();
        match tail(&file, start) {
            Ok(lines) if lines.is_empty() => format!("  {name} has nothing of it"),
            Ok(lines) => format!("  from {name}:\n{lines}"),
            Err(error) => format!("  {name} cannot be read: {error}"),
        }
    }

    /// Ends every node: first asks, by closing its stdin, then kills. A further signal makes it
    /// impatient. Returns what was not as it should be, one sentence each.
    pub fn stop(mut self, interrupt: Option<&Interrupt>) -> Vec<String> {
        for child in self.nodes.iter_mut().filter_map(|process| process.child.as_mut()) {
            drop(child.stdin.take());
        }
        let end = Instant::now() + PATIENCE;
        let mut notes = Vec::new();
        let pause = Duration::from_millis(20);
        loop {
            let mut running = 0;
            for process in &mut self.nodes {
                let Some(child) = &mut process.child else { continue };
                match child.try_wait() {
                    Ok(None) => running += 1,
                    Ok(Some(status)) => {
                        process.child = None;
                        notes.extend(strange_end(process.node, status));
                    }
                    Err(error) => {
                        process.child = None;
                        notes.push(format!("node {} cannot be waited for: {error}", process.node));
                    }
                }
            }
            let impatient = match interrupt {
                Some(interrupt) => interrupt.again(pause),
                None => {
                    thread::sleep(pause);
                    false
                }
            };
            if running == 0 || impatient || Instant::now() >= end {
                break;
            }
        }
        for process in self.nodes.iter_mut().filter(|process| process.child.is_some()) {
            notes.push(format!("node {} did not end when asked to and was killed", process.node));
        }
        // What still runs is killed when `self` goes.
        notes
    }

    fn process(&mut self, node: u32) -> Result<&mut Process, Failure> {
        let found = self.nodes.iter_mut().find(|process| process.node == node);
        found.ok_or_else(|| Failure::error(format!("the demo has no node {node}")))
    }
}

impl Drop for Cluster<'_> {
    fn drop(&mut self) {
        for child in self.nodes.iter_mut().filter_map(|process| process.child.as_mut()) {
            // One that has ended meanwhile needs neither.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn strange_end(node: u32, status: ExitStatus) -> Option<String> {
    (!status.success()).then(|| format!("node {node} was asked to end and ended with: {status}"))
}

/// The last lines of a file, of what lies behind `start`.
fn tail(file: &Path, start: u64) -> io::Result<String> {
    let mut file = File::open(file)?;
    let length = file.metadata()?.len();
    let from = start.max(length.saturating_sub(TAIL_BYTES)).min(length);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let shown = &lines[lines.len().saturating_sub(TAIL_LINES)..];
    Ok(shown.iter().map(|line| format!("  | {line}")).collect::<Vec<_>>().join("\n"))
}

/// The commands that a person types are shown with this name of the program: its path, shortened
/// where the current directory allows it.
#[must_use]
pub fn program_name() -> String {
    let Ok(program) = std::env::current_exe() else { return "pelago".to_owned() };
    let here = std::env::current_dir().and_then(fs::canonicalize);
    let short = here.ok().and_then(|here| Some(program.strip_prefix(here).ok()?.to_owned()));
    short.unwrap_or(program).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_the_last_lines_of_this_start() {
        let file = std::env::temp_dir().join(format!("pelago-demo-tail-{}", std::process::id()));
        let text: String = (0..1000).map(|n| format!("line {n}\n")).collect();
        fs::write(&file, &text).expect("written");
        let shown = tail(&file, 0).expect("read");
        assert_eq!(shown.lines().count(), TAIL_LINES);
        assert!(shown.ends_with("  | line 999"), "{shown}");
        let start = text.len() as u64 - "line 998\nline 999\n".len() as u64;
        assert_eq!(tail(&file, start).expect("read"), "  | line 998\n  | line 999");
        assert_eq!(tail(&file, u64::MAX).expect("read"), "");
        fs::remove_file(file).expect("removed");
    }
}
