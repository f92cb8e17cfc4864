//! What belongs to the demo on the disk, and nothing else.
//!
//! ```text
//! data/demo/.pelago-demo   marks a directory that a demo made; locked while one runs
//! data/demo/config.toml    the cluster, for the nodes and for `pelago serve` by hand
//! data/demo/node-1/        the node's data
//! data/demo/node-1.log     what the node said on stderr, from all of its starts
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::Plan;
use super::ports::{self, Ports, USUAL};
use super::recipe::Recipe;
use crate::cli::Failure;
use crate::config::{Address, Config, Node};

/// The file that marks a directory as a demo's.
const MARKER: &str = ".pelago-demo";
const CONFIG: &str = "config.toml";
/// The same with one node more, which joins later.
const MORE: &str = "config-more.toml";

/// A demo's directory, held against other demos as long as this lives.
#[derive(Debug)]
pub struct Directory {
    /// Absolute.
    pub path: PathBuf,
    /// What the nodes run with.
    pub config: Config,
    /// Whether an earlier demo's cluster goes on.
    pub reused: bool,
    /// What a person should know about how it came about, one sentence each.
    pub notes: Vec<String>,
    _lock: File,
}

impl Directory {
    /// Makes the directory ready: a new cluster, or the one that an earlier demo left.
    ///
    /// # Errors
    /// When it cannot be used. What is not a demo's is never touched.
    pub fn prepare(plan: &Plan, path: &Path, wished: Ports) -> Result<Directory, Failure> {
        let path = std::path::absolute(path).map_err(|error| broken(path, "find", &error))?;
        let shown = path.display();
        let ours = path.join(MARKER).is_file();
        if !ours && is_occupied(&path).map_err(|error| broken(&path, "look into", &error))? {
            return Err(Failure::error(format!(
                "{shown} holds files that are not a demo's. Nothing was changed. Give another directory with --data"
            )));
        }
        fs::create_dir_all(&path).map_err(|error| broken(&path, "create", &error))?;
        let lock = lock(&path)?;
        let mut notes = Vec::new();
        if ours && plan.fresh {
            clear(&path).map_err(|error| broken(&path, "clear", &error))?;
            notes.push(format!("removed what an earlier demo left in {shown}"));
        }
        let file = path.join(CONFIG);
        let reused = file.is_file();
        let config = match reused {
            true => existing(plan, &path, &file, &mut notes)?,
            false => write(asked(plan), &path, &file, wished, &mut notes)?,
        };
        Ok(Directory { path, config, reused, notes, _lock: lock })
    }

    /// The cluster's configuration.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.path.join(CONFIG)
    }

    /// Writes a configuration with one node more, and returns where, and that node.
    ///
    /// # Errors
    /// When there is no room for it, or the file system fails.
    pub fn one_more(&self) -> Result<(PathBuf, Node), Failure> {
        let nodes = self.config.nodes.len() as u32;
        let first = self.config.nodes.first().map_or(0, |node| node.client_addr.port());
        let ports = Ports { base: first.saturating_sub(1) };
        let recipe = Recipe { nodes: nodes + 1, groups: self.config.cluster.groups };
        let text = recipe.text(&self.path, ports).map_err(Failure::error)?;
        let file = self.path.join(MORE);
        replace(&file, &text).map_err(|error| broken(&file, "write", &error))?;
        let config = Config::parse(&text, MORE, &[]).map_err(|errors| Failure::error(errors.to_string()))?;
        let node = config.nodes.last().cloned();
        node.map(|node| (file, node)).ok_or_else(|| Failure::error("a configuration without nodes"))
    }

    /// What a node says on stderr.
    #[must_use]
    pub fn log_file(&self, node: u32) -> PathBuf {
        self.path.join(format!("node-{node}.log"))
    }

    /// Removes everything.
    ///
    /// # Errors
    /// When the file system fails.
    pub fn remove(self) -> io::Result<()> {
        clear(&self.path)?;
        fs::remove_file(self.path.join(MARKER))?;
        fs::remove_dir(&self.path)
    }
}

fn broken(path: &Path, doing: &str, error: &io::Error) -> Failure {
    Failure::error(format!("could not {doing} {}: {error}", path.display()))
}

fn is_occupied(path: &Path) -> io::Result<bool> {
    match fs::read_dir(path) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn lock(path: &Path) -> Result<File, Failure> {
    let marker = path.join(MARKER);
    let fail = |error: &io::Error| broken(&marker, "lock", error);
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&marker);
    let mut file = file.map_err(|error| fail(&error))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            return Err(Failure::error(format!(
                "another demo is running in {}. Nothing was changed. Talk to that one, or start a second one in \
                 another directory with --data",
                path.display()
            )));
        }
        Err(error) => return Err(fail(&error.into())),
    }
    let text = "This directory was made by `pelago demo`, and `pelago demo --fresh` removes what is in it.\n";
    file.write_all(text.as_bytes()).map_err(|error| fail(&error))?;
    Ok(file)
}

/// Removes what a demo makes, and only that.
fn clear(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let is_dir = entry.file_type()?.is_dir();
        let node = name.strip_prefix("node-").map(|rest| rest.strip_suffix(".log").unwrap_or(rest));
        let of_a_node = node.is_some_and(|id| id.parse::<u32>().is_ok());
        if of_a_node && is_dir {
            fs::remove_dir_all(entry.path())?;
        } else if (of_a_node || name == CONFIG || name == MORE) && !is_dir {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn asked(plan: &Plan) -> Recipe {
    Recipe { nodes: plan.nodes.unwrap_or(3), groups: plan.groups.unwrap_or(16) }
}

/// The cluster that is in the directory, if it is the one that was asked for. Its file stays as
/// it is, unless somebody else listens on its ports.
fn existing(plan: &Plan, path: &Path, file: &Path, notes: &mut Vec<String>) -> Result<Config, Failure> {
    let config = Config::load(file, &[]).map_err(|errors| {
        Failure::error(format!(
            "the configuration of an earlier demo cannot be used. Nothing was changed. Begin anew with --fresh.\n{errors}"
        ))
    })?;
    let there = Recipe { nodes: config.nodes.len() as u32, groups: config.cluster.groups };
    if plan.nodes.is_some_and(|nodes| nodes != there.nodes)
        || plan.groups.is_some_and(|groups| groups != there.groups)
    {
        return Err(Failure::error(format!(
            "{} describes a cluster of {} nodes and {} groups, which are fixed at birth. Nothing was changed. Leave \
             --nodes and --groups out to go on with it, or begin anew with --fresh",
            file.display(),
            there.nodes,
            there.groups
        )));
    }
    let addresses =
        config.nodes.iter().flat_map(|node| [&node.client_addr, &node.peer_addr, &node.admin_addr]);
    if addresses.map(Address::port).all(ports::is_free) {
        return Ok(config);
    }
    write(there, path, file, USUAL, notes)
}

fn write(
    recipe: Recipe,
    path: &Path,
    file: &Path,
    wished: Ports,
    notes: &mut Vec<String>,
) -> Result<Config, Failure> {
    let ports = choose_ports(wished, recipe.nodes, notes)?;
    let text = recipe.text(path, ports).map_err(|why| Failure::error(format!("--data {why}")))?;
    let name = file.display().to_string();
    let config = Config::parse(&text, &name, &[])
        .map_err(|errors| Failure::error(format!("the demo's own configuration has mistakes:\n{errors}")))?;
    replace(file, &text).map_err(|error| broken(file, "write", &error))?;
    Ok(config)
}

fn choose_ports(wished: Ports, nodes: u32, notes: &mut Vec<String>) -> Result<Ports, Failure> {
    let Some(taken) = wished.taken(nodes) else { return Ok(wished) };
    let free = wished.free(nodes).ok_or_else(|| {
        Failure::error(format!(
            "port {taken} is in use, and so is one of every other choice up to 32000. Nothing was started. \
             See who listens with: ss -ltnp"
        ))
    })?;
    let [first, ..] = free.of(1);
    notes.push(format!("port {taken} is in use, so the client ports begin with {first} instead"));
    Ok(free)
}

/// The old content or the new one, whatever happens meanwhile.
fn replace(file: &Path, text: &str) -> io::Result<()> {
    let new = file.with_extension("toml.new");
    let mut out = File::create(&new)?;
    out.write_all(text.as_bytes())?;
    out.sync_all()?;
    fs::rename(new, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("pelago-demo-dir-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        path
    }

    fn ports() -> Ports {
        Ports::for_process(std::process::id().wrapping_add(7))
    }

    #[test]
    fn a_second_start_goes_on_with_the_same_cluster_and_fresh_does_not() {
        let path = scratch("again");
        let plan = Plan { nodes: Some(5), groups: Some(7), ..Plan::default() };
        let first = Directory::prepare(&plan, &path, ports()).expect("a new one");
        assert!(!first.reused);
        let config = first.config.clone();
        fs::create_dir(path.join("node-1")).expect("data");
        fs::write(path.join("mine.txt"), "a person's").expect("a file");

        let meanwhile = Directory::prepare(&plan, &path, ports()).expect_err("locked");
        assert!(meanwhile.message.contains("another demo is running"), "{}", meanwhile.message);
        drop(first);

        let second = Directory::prepare(&Plan::default(), &path, USUAL).expect("reused");
        assert!(second.reused && second.config == config);
        drop(second);

        let other = Plan { groups: Some(8), ..Plan::default() };
        let refused = Directory::prepare(&other, &path, ports()).expect_err("fixed at birth");
        assert!(refused.message.contains("5 nodes and 7 groups"), "{}", refused.message);

        let fresh = Plan { fresh: true, ..other };
        let third = Directory::prepare(&fresh, &path, ports()).expect("fresh");
        assert!(!third.reused && third.config.cluster.groups == 8);
        assert!(!path.join("node-1").exists() && path.join("mine.txt").exists());
        fs::remove_file(path.join("mine.txt")).expect("removed");
        third.remove().expect("all of it");
        assert!(!path.exists());
    }

    #[test]
    fn what_is_not_a_demos_is_never_touched() {
        let path = scratch("foreign");
        fs::create_dir_all(path.join("node-1")).expect("somebody's data");
        let plan = Plan { fresh: true, ..Plan::default() };
        let refused = Directory::prepare(&plan, &path, ports()).expect_err("not ours");
        assert!(refused.code == 2 && refused.message.contains("not a demo's"), "{}", refused.message);
        assert!(path.join("node-1").exists() && !path.join(MARKER).exists());
        let _ = fs::remove_dir_all(path);
    }
}
