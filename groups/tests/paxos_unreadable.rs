//! Stories about a chosen value that cannot be applied, for example a command of a later version.

mod paxos_support;

use std::time::Duration;

use bytes::Bytes;
use groups::group::Submission;
use groups::ids::{Boot, NodeId};
use groups::kv::Ticket;
use paxos_support::{Setup, World};

fn unreadable(number: u64) -> Submission {
    let ticket = Ticket { node: NodeId(1), boot: Boot(1), number, behind: 0 };
    Submission { ticket, read: false, after: 0, command: Bytes::from_static(b"\xEEfrom a later version") }
}

/// A read that does not decode is dropped when it comes; a write is proposed unseen. One such
/// command from one peer (of a later version, or one that has lost its mind) is then chosen and
/// halts the group on every replica for ever: the log replays it after every restart.
#[test]
fn a_command_that_cannot_be_applied_is_not_proposed() {
    let mut world = World::new(Setup::new(3));
    world.run(Duration::from_millis(500));
    world.submit(1, vec![unreadable(1)]);
    world.settle();
    world.run(Duration::from_millis(500));
    for id in [1, 2, 3] {
        assert_ne!(world.replica(id).role_name(), "halted", "node {id}");
    }
}
