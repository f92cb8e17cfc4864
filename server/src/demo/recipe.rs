//! The configuration of a demo's cluster.

use std::fmt::Write as _;
use std::path::Path;

use super::ports::Ports;

/// Members of each group where there are enough nodes.
const REPLICATION: u32 = 3;

/// What the cluster is born with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// Nodes, numbered from 1.
    pub nodes: u32,
    /// Paxos groups.
    pub groups: u32,
}

impl Recipe {
    /// The text of config.toml. Everything that it leaves out has its default.
    ///
    /// # Errors
    /// When the path cannot be written in TOML.
    pub fn text(self, dir: &Path, ports: Ports) -> Result<String, String> {
        let Recipe { nodes, groups } = self;
        let dir = dir
            .to_str()
            .filter(|dir| !dir.contains(char::is_control))
            .ok_or_else(|| format!("{} is not UTF-8 or holds control characters", dir.display()))?;
        let dir = dir.replace('\\', "\\\\").replace('"', "\\\"");
        let replication = nodes.min(REPLICATION);
        let mut text = format!(
            "# Written by `pelago demo`; the ports are chosen anew when they are taken.\n\n\
             [cluster]\nname = \"demo\"\ngroups = {groups}\nreplication = {replication}\n\n\
             [storage]\ndata_dir = \"{dir}\"\nsegment_size = \"32MiB\"\n"
        );
        for node in 1..=nodes {
            let [client, peer, admin] = ports.of(node);
            // Writing to a string cannot fail.
            let _ = write!(
                text,
                "\n[[nodes]]\nid = {node}\npeer_addr   = \"127.0.0.1:{peer}\"\n\
                 client_addr = \"127.0.0.1:{client}\"\nadmin_addr  = \"127.0.0.1:{admin}\"\n"
            );
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Durability};
    use crate::demo::ports::USUAL;

    #[test]
    fn every_recipe_is_a_configuration_without_mistakes() {
        for nodes in [1, 2, 3, 5, 25] {
            for groups in [1, 16, 16_384] {
                let text = Recipe { nodes, groups }.text(Path::new("/tmp/a \"b\" \\c"), USUAL).expect("text");
                let config =
                    Config::parse(&text, "config.toml", &[]).unwrap_or_else(|e| panic!("{e}\n{text}"));
                assert_eq!((config.nodes.len() as u32, config.cluster.groups), (nodes, groups));
                assert_eq!(config.cluster.replication, nodes.min(3));
                assert_eq!(config.storage.data_dir, Path::new("/tmp/a \"b\" \\c"));
                assert_eq!(config.storage.durability, Durability::Fsync);
                assert_eq!(config.nodes[0].client_addr.to_string(), "127.0.0.1:7001");
            }
        }
    }

    #[test]
    fn a_path_that_toml_cannot_hold_is_refused() {
        assert!(Recipe { nodes: 3, groups: 1 }.text(Path::new("a\nb"), USUAL).is_err());
    }
}
