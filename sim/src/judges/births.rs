//! A disk votes for one birth at most, and a cluster is born once: whatever is lost meanwhile, no
//! two sets of founders can both believe that they are the cluster (ARCHITECTURE, "Birth"). To join a cluster that others
//! have founded is no vote.

use std::collections::BTreeMap;

use groups::ids::{NodeId, StorageId};
use server::node::birth::Word;
use server::node::manifest::{Founders, Stage};

use super::{Judge, Verdict};

/// See the module.
#[derive(Default)]
pub struct Births {
    votes: BTreeMap<StorageId, Founders>,
    born: Option<Founders>,
}

impl Judge for Births {
    fn birth(&mut self, node: NodeId, word: &Word) -> Verdict {
        let founders = match &word.stage {
            Stage::Empty | Stage::Replacement => return Ok(()),
            Stage::Voted(founders) | Stage::Born(_, founders) => founders,
        };
        if founders.contains(&(node, word.storage)) {
            let vote = self.votes.entry(word.storage).or_insert_with(|| founders.clone());
            if vote != founders {
                return Err(format!("the disk of node {node} votes for two births"));
            }
        }
        if matches!(word.stage, Stage::Born(..)) {
            let born = self.born.get_or_insert_with(|| founders.clone());
            if born != founders {
                return Err(format!("node {node} is born into a second cluster"));
            }
        }
        Ok(())
    }
}
