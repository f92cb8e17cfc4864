//! Majorities against plain sets.

use std::collections::BTreeSet;

use groups::ids::{Member, NodeId, StorageId};
use groups::paxos::Members;
use groups::paxos::quorum::{MAX_MEMBERS, Votes};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 500,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(7),
        ..ProptestConfig::default()
    }
}

/// Two majorities always share a member, and one vote less would not do.
fn disk(node: u32) -> Member {
    Member { node: NodeId(node), storage: StorageId(1) }
}

#[test]
fn a_majority_is_the_least_number_of_which_two_always_meet() {
    for n in 1..=MAX_MEMBERS {
        let members = Members::new((1..=n as u32).map(disk).collect());
        assert_eq!(members.count(), n);
        assert!(2 * members.majority() > n);
        assert!(2 * (members.majority() - 1) <= n);
    }
}

#[test]
#[should_panic(expected = "a group has 1 to 64 members")]
fn no_members_make_no_group() {
    let _ = Members::new(Vec::new());
}

#[test]
#[should_panic(expected = "a group has 1 to 64 members")]
fn too_many_members_make_no_group() {
    let _ = Members::new((1..=MAX_MEMBERS as u32 + 1).map(disk).collect());
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn votes_are_a_set_of_members(
        nodes in proptest::collection::vec(0..100_u32, 1..=MAX_MEMBERS),
        voters in proptest::collection::vec(0..110_u32, 0..120),
    ) {
        let members = Members::new(nodes.iter().copied().map(disk).collect());
        let set: BTreeSet<u32> = nodes.into_iter().collect();
        let listed: Vec<u32> = members.nodes().iter().map(|n| n.0).collect();
        prop_assert_eq!(&listed, &set.iter().copied().collect::<Vec<_>>());
        let mut votes = Votes::default();
        let mut model = BTreeSet::new();
        for voter in voters {
            votes.add(&members, NodeId(voter));
            if set.contains(&voter) {
                model.insert(voter);
            }
            prop_assert_eq!(votes.count(), model.len());
            prop_assert_eq!(votes.is_quorum(&members), 2 * model.len() > set.len());
        }
        for node in 0..110 {
            prop_assert_eq!(votes.has(&members, NodeId(node)), model.contains(&node));
            prop_assert_eq!(members.contains(NodeId(node)), set.contains(&node));
            if let Some(index) = members.index_of(NodeId(node)) {
                prop_assert_eq!(members.nodes()[index], NodeId(node));
            }
        }
    }
}
