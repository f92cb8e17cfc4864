//! What of the configuration changes while a node runs.
//!
//! The file is read again as a whole, with what `--set` said at the start. If it has one mistake, or what of it may
//! change live does not go together with what may not, nothing is taken over.

use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::RwLock;

use super::keys::keys;
use super::problem::{ConfigErrors, Place, Problem};
use super::{Address, Config, Node, read};

/// Where a configuration came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The file.
    pub file: PathBuf,
    /// What `--set` said.
    pub overrides: Vec<String>,
}

/// One key with another value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// `section.key`, or `nodes`.
    pub key: String,
    /// What a node has had so far; none for what must not be shown.
    pub from: Option<String>,
    /// What the file says now.
    pub to: Option<String>,
    /// Whether a node takes it over while it runs.
    pub live: bool,
}

/// A configuration, and what `CONFIG GET` shows of it.
pub type InForce = (Config, Vec<(String, String)>);

/// The configuration that is in force. Whoever reads it holds on to one state.
#[derive(Debug)]
pub struct LiveConfig(RwLock<Arc<InForce>>);

impl LiveConfig {
    /// In force from now on.
    #[must_use]
    pub fn new(config: Config) -> LiveConfig {
        let settings = config.settings();
        LiveConfig(RwLock::new(Arc::new((config, settings))))
    }

    /// What is in force: the configuration and its settings as text.
    #[must_use]
    pub fn now(&self) -> Arc<InForce> {
        Arc::clone(&self.0.read())
    }

    /// Takes another one over.
    pub fn set(&self, config: Config) {
        let settings = config.settings();
        *self.0.write() = Arc::new((config, settings));
    }
}

impl Source {
    /// Reads the file again. Returns what would be in force of it for a node that runs with `old`, and what differs.
    ///
    /// # Errors
    /// With every mistake.
    pub fn again(&self, old: &Config) -> Result<(Config, Vec<Change>), ConfigErrors> {
        let name = self.file.display().to_string();
        let text = read::file(&self.file).map_err(|message| {
            let problem = Problem { file: name.clone(), place: Place::File, message };
            ConfigErrors { problems: vec![problem] }
        })?;
        again(&text, &name, &self.overrides, old)
    }
}

fn again(
    text: &str,
    name: &str,
    overrides: &[String],
    old: &Config,
) -> Result<(Config, Vec<Change>), ConfigErrors> {
    let mut new = Config::parse(text, name, overrides)?;
    let mut old = old.clone();
    let mut changes = Vec::new();
    // What stays as it is, so that the rest is checked together with it.
    let mut stays = overrides.to_vec();
    for key in keys() {
        if !key.differs(&mut old, &mut new) {
            continue;
        }
        let (from, to) = (key.shown(&mut old), key.shown(&mut new));
        if let (false, Some(value)) = (key.live, &from) {
            stays.push(format!("{}={value}", key.path()));
        }
        changes.push(Change { key: key.path(), from, to, live: key.live });
    }
    if new.nodes != old.nodes {
        let shown = |config: &Config| {
            let nodes = config.nodes.iter().map(|n| format!("{} at {}", n.id, n.peer_addr));
            Some(nodes.collect::<Vec<_>>().join(", "))
        };
        changes.push(Change { key: "nodes".to_owned(), from: shown(&old), to: shown(&new), live: false });
    }
    let mut effective = if stays.len() > overrides.len() { Config::parse(text, name, &stays)? } else { new };
    effective.nodes = old.nodes;
    // The file was checked with its own addresses; the ports that are open are those of the start.
    let open = |n: &Node| [n.client_addr.clone(), n.admin_addr.clone()];
    let refused = |address: &Address| !effective.security.allows(address);
    if let Some(address) = effective.nodes.iter().flat_map(open).find(refused) {
        let message = format!(
            "without a password nothing would protect {address}, which other machines can reach until the node is \
             started again; keep `password` in [security] until then"
        );
        let problem = Problem { file: name.to_owned(), place: Place::File, message };
        return Err(ConfigErrors { problems: vec![problem] });
    }
    Ok((effective, changes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHIPPED: &str = include_str!("../../../config.toml");

    fn parse(text: &str) -> Config {
        Config::parse(text, "config.toml", &[]).unwrap_or_else(|errors| panic!("{errors}"))
    }

    fn with(changes: &[(&str, &str)]) -> String {
        changes.iter().fold(SHIPPED.to_owned(), |text, (from, to)| {
            assert!(text.contains(from), "{from}");
            text.replace(from, to)
        })
    }

    #[test]
    fn what_is_live_is_taken_over_and_the_rest_waits_for_a_restart() {
        let old = parse(SHIPPED);
        let text = with(&[
            ("max_connections = 10000", "max_connections = 5"),
            ("window = 256", "window = 128"),
            ("127.0.0.1:7103", "127.0.0.1:7203"),
            ("127.0.0.1:7203\"\n\n[storage]", "127.0.0.1:7303\"\n\n[storage]"),
        ]) + "[security]\npassword = \"hunter2\"\n";
        let (effective, changes) = again(&text, "config.toml", &[], &old).expect("no mistakes");
        let told: Vec<_> = changes.iter().map(|change| (change.key.as_str(), change.live)).collect();
        assert_eq!(
            told,
            [
                ("paxos.window", false),
                ("limits.max_connections", true),
                ("security.password", true),
                ("nodes", false)
            ]
        );
        assert_eq!((effective.limits.max_connections, effective.paxos.window), (5, 256));
        assert_eq!((&effective.nodes, effective.security.password.as_deref()), (&old.nodes, Some("hunter2")));
        assert!(!format!("{changes:?}").contains("hunter2"), "a secret is not shown");
        assert_eq!((changes[1].from.as_deref(), changes[1].to.as_deref()), (Some("10000"), Some("5")));
    }

    #[test]
    fn a_file_that_has_not_changed_changes_nothing() {
        let old = parse(SHIPPED);
        assert_eq!(again(SHIPPED, "config.toml", &[], &old), Ok((old.clone(), vec![])));
        // What the command line says stands before the file.
        let overrides = ["limits.max_connections=7".to_owned()];
        let old = Config::parse(SHIPPED, "config.toml", &overrides).expect("no mistakes");
        let text = with(&[("max_connections = 10000", "max_connections = 5")]);
        assert_eq!(again(&text, "config.toml", &overrides, &old), Ok((old.clone(), vec![])));
    }

    #[test]
    fn a_mistake_changes_nothing_at_all() {
        let old = parse(SHIPPED);
        let text =
            with(&[("max_connections = 10000", "max_connections = 5"), ("window = 256", "window = 0")]);
        let errors = again(&text, "config.toml", &[], &old).expect_err("a mistake");
        assert_eq!(errors.problems.len(), 1, "{errors}");
    }

    /// A value of 14 MiB needs larger segments than a running node has: the file is sound, and yet this part of it
    /// cannot be taken over before the rest is.
    #[test]
    fn what_does_not_go_together_with_what_stays_is_refused() {
        let small = with(&[("segment_size = \"64MiB\"", "segment_size = \"20MiB\"")]);
        let old = parse(&small);
        let text = with(&[("max_value = \"8MiB\"", "max_value = \"14MiB\"")]);
        parse(&text);
        let errors =
            again(&text, "config.toml", &[], &old).expect_err("too large for the segments that there are");
        assert!(errors.to_string().contains("max_value"), "{errors}");
    }

    /// The addresses of a file were checked with its security, and then those of the start stayed: a reload
    /// that took both back left the ports open to all without a password.
    #[test]
    fn a_password_stays_as_long_as_the_ports_that_it_protects_are_open() {
        let open = with(&[("client_addr = \"127.0.0.1:7001\"", "client_addr = \"0.0.0.0:7001\"")]);
        let old = parse(&format!("{open}[security]\npassword = \"hunter2\"\n"));
        let errors = again(SHIPPED, "config.toml", &[], &old).expect_err("nothing would protect it");
        let text = errors.to_string();
        assert!(text.contains("0.0.0.0:7001") && !text.contains("hunter2"), "{text}");
        let other = format!("{SHIPPED}[security]\npassword = \"another\"\n");
        assert!(again(&other, "config.toml", &[], &old).is_ok());
    }
}
