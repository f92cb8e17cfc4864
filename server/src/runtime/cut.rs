//! Peers that a node does not hear, because its parent process says so: how the demo shows a partition without the
//! rights to change the machine's network.
//!
//! What a cut-off peer sends is read and dropped before anything looks at it, as a packet filter would drop it. Both
//! sides of a partition are told, so nothing passes in either direction. The words come on standard input, which only
//! the process has that started the node, and only a node that was started with `--stdin-commands` listens to them.

use groups::ids::NodeId;
use parking_lot::RwLock;

/// Nodes that one line may name.
const MAX_NODES: usize = 64;

/// The peers whose frames are dropped.
#[derive(Debug, Default)]
pub struct Cut {
    nodes: RwLock<Vec<NodeId>>,
}

impl Cut {
    /// Whether frames of this peer are dropped.
    #[must_use]
    pub fn drops(&self, node: NodeId) -> bool {
        self.nodes.read().contains(&node)
    }

    /// What an operator should know.
    #[must_use]
    pub fn alarm(&self) -> Option<String> {
        let nodes = self.nodes.read();
        let names: Vec<String> = nodes.iter().map(ToString::to_string).collect();
        (!names.is_empty()).then(|| {
            format!(
                "what nodes {} send is dropped here, because the process that started this node wants it so",
                names.join(", ")
            )
        })
    }

    /// Does what a line says: `cut 2 3` or `heal`. Anything else changes nothing.
    pub fn obey(&self, line: &str) {
        let mut words = line.split_whitespace();
        let wanted = match words.next() {
            Some("cut") => words.map(|word| word.parse().map(NodeId)).collect::<Result<Vec<_>, _>>().ok(),
            Some("heal") => Some(Vec::new()),
            _ => None,
        };
        match wanted.filter(|nodes| nodes.len() <= MAX_NODES) {
            Some(nodes) => {
                tracing::warn!(?nodes, "frames of these nodes are dropped from now on");
                *self.nodes.write() = nodes;
            }
            None => {
                tracing::warn!("a line on standard input is neither \"cut NODE…\" nor \"heal\": {line:?}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_cut_and_heal_and_nonsense_changes_nothing() {
        let cut = Cut::default();
        assert!(!cut.drops(NodeId(2)) && cut.alarm().is_none());
        cut.obey("cut 2 3\n");
        for line in ["", "cut x", "cut 2 -1", "mend", &format!("cut{}", " 1".repeat(65))] {
            cut.obey(line);
            assert!(cut.drops(NodeId(2)) && cut.drops(NodeId(3)) && !cut.drops(NodeId(1)), "{line:?}");
        }
        assert!(cut.alarm().is_some_and(|text| text.contains("nodes 2, 3 send")));
        cut.obey("heal");
        assert!(!cut.drops(NodeId(2)) && cut.alarm().is_none());
    }
}
