//! Reading config.toml again while the node runs: SIGHUP, and `ADMIN RELOAD`.

use std::sync::Arc;

use groups::ids::NodeId;
use parking_lot::Mutex;

use crate::config::{Change, Config, LiveConfig, Source};
use crate::status::{ReloadStatus, SettingLine};

/// Takes over another level of the log, or says why it does not count.
pub type SetLevel = Box<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// Reads the file again and takes over what may change.
pub struct Reloader {
    node: NodeId,
    source: Source,
    live: Arc<LiveConfig>,
    set_level: SetLevel,
    /// One at a time.
    turn: Mutex<()>,
}

impl Reloader {
    /// For a node that runs with `config`, which came from `source`.
    #[must_use]
    pub fn new(node: NodeId, source: Source, config: Config, set_level: SetLevel) -> Reloader {
        let live = Arc::new(LiveConfig::new(config));
        Reloader { node, source, live, set_level, turn: Mutex::new(()) }
    }

    /// What is in force.
    #[must_use]
    pub fn live(&self) -> Arc<LiveConfig> {
        Arc::clone(&self.live)
    }

    /// Does it, and says what came of it, in the log as well.
    pub fn reload(&self) -> ReloadStatus {
        let _turn = self.turn.lock();
        let status = self.take_over();
        let file = self.source.file.display();
        if !status.mistakes.is_empty() {
            tracing::error!(
                "{file} was read again and has mistakes. Nothing was changed. {}",
                status.mistakes.join("; ")
            );
        } else if status.applied.is_empty() && status.restart.is_empty() {
            tracing::info!("{file} was read again: nothing has changed");
        }
        for line in &status.applied {
            tracing::info!(key = line.key, from = line.from, to = line.to, "a setting has changed");
        }
        for line in &status.restart {
            let note = line.note.as_deref().unwrap_or("it counts from the next start on");
            tracing::warn!(
                key = line.key,
                from = line.from,
                to = line.to,
                "a setting of the file is not in force: {note}"
            );
        }
        status
    }

    fn take_over(&self) -> ReloadStatus {
        let mut status = ReloadStatus { node: self.node.0, ..ReloadStatus::default() };
        let old = self.live.now();
        let (mut config, changes) = match self.source.again(&old.0) {
            Ok(read) => read,
            Err(errors) => {
                status.mistakes = errors.problems.iter().map(ToString::to_string).collect();
                return status;
            }
        };
        for Change { key, from, to, live } in changes {
            let note = match (live, key.as_str(), &to) {
                (true, "log.level", Some(level)) => (self.set_level)(level).err(),
                (true, "limits.max_key" | "limits.max_value" | "security.password", _) => {
                    Some("for connections that are opened from now on".to_owned())
                }
                (false, "nodes", _) => {
                    Some("the cluster's list of nodes counts: see pelago admin member".to_owned())
                }
                _ => None,
            };
            let refused = key == "log.level" && note.is_some();
            if refused {
                config.log.level.clone_from(&old.0.log.level);
            }
            let counts = live && !refused;
            let line = SettingLine { key, from, to, note };
            if counts { status.applied.push(line) } else { status.restart.push(line) }
        }
        self.live.set(config);
        status
    }
}

impl std::fmt::Debug for Reloader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reloader").field("source", &self.source).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHIPPED: &str = include_str!("../../../config.toml");

    struct File(std::path::PathBuf);

    impl File {
        fn new(name: &str) -> File {
            let path = std::env::temp_dir().join(format!("pelago-reload-{name}-{}.toml", std::process::id()));
            std::fs::write(&path, SHIPPED).expect("written");
            File(path)
        }

        fn write(&self, from: &str, to: &str) {
            assert!(SHIPPED.contains(from), "{from}");
            std::fs::write(&self.0, SHIPPED.replace(from, to)).expect("written");
        }
    }

    impl Drop for File {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    fn reloader(file: &File, set_level: SetLevel) -> Reloader {
        let source = Source { file: file.0.clone(), overrides: Vec::new() };
        let config = Config::load(&file.0, &[]).expect("no mistakes");
        Reloader::new(NodeId(2), source, config, set_level)
    }

    #[test]
    fn each_change_is_told_once_and_a_restart_is_asked_for_until_it_comes() {
        let file = File::new("told");
        let reloader = reloader(&file, Box::new(|_| Ok(())));
        file.write("max_connections = 10000", "max_connections = 5\nmax_key_ = 3");
        let told = reloader.reload();
        assert!(told.mistakes.len() == 1 && told.mistakes[0].contains("max_key_"), "{told:?}");
        assert_eq!(reloader.live().now().0.limits.max_connections, 10_000);

        file.write("max_connections = 10000", "max_connections = 5");
        let told = reloader.reload();
        assert_eq!((told.applied.len(), told.restart.len(), told.mistakes.len()), (1, 0, 0));
        assert_eq!(told.applied[0].key, "limits.max_connections");
        assert_eq!(reloader.live().now().0.limits.max_connections, 5);
        assert!(
            reloader.live().now().1.contains(&("limits.max_connections".into(), "5".into())),
            "CONFIG GET"
        );
        assert_eq!(reloader.reload(), ReloadStatus { node: 2, ..ReloadStatus::default() });

        file.write("window = 256", "window = 8");
        for _ in 0..2 {
            let told = reloader.reload();
            assert_eq!(told.restart.len(), 1, "{told:?}");
        }
        assert_eq!(reloader.live().now().0.paxos.window, 256);
    }

    #[test]
    fn a_level_that_the_command_line_fixes_is_not_said_to_count() {
        let file = File::new("level");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        let reloader = reloader(
            &file,
            Box::new(move |level| {
                seen.lock().push(level.to_owned());
                if level == "debug" { Ok(()) } else { Err("--log-level stands before it".to_owned()) }
            }),
        );
        file.write("level = \"info\"", "level = \"debug\"");
        assert_eq!(reloader.reload().applied.len(), 1);
        file.write("level = \"info\"", "level = \"warn\"");
        let told = reloader.reload();
        assert_eq!(told.restart[0].note.as_deref(), Some("--log-level stands before it"));
        // It once counted as in force from then on.
        assert_eq!(reloader.reload(), told);
        assert_eq!(*asked.lock(), ["debug", "warn", "warn"]);
    }
}
