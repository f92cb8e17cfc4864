//! The loop's part in a new list of peers.
//!
//! The loop compares what it has with the list as it is now, not with the changes on the way to
//! it. A peer is the same one as before when its shelves are: one that was removed and added
//! again in between has others, and starts anew.

use std::sync::Arc;

use super::{Driver, Outbound};
use crate::handshake::{Refusal, RefusalCode, unknown};
use crate::link::{Down, Phase};
use crate::peers::{Listed, find};
use crate::{Lane, Side};

impl Driver {
    pub(super) fn on_peers(&mut self) {
        let list = self.shared.peers.list();
        tracing::debug!(peers = list.len(), "another list of peers");
        // Free numbers first, so that there are never more than the list may need.
        self.drop_removed(&list);
        self.judge_accepted(&list);
        for it in &*list {
            for lane in Lane::ALL {
                self.adopt(it, lane);
            }
        }
        self.wake_at(self.now);
    }

    fn drop_removed(&mut self, list: &[Listed]) {
        let stays = |it: &Outbound| {
            find(list, it.node).is_some_and(|listed| Arc::ptr_eq(&listed.shelves[it.lane.index()], &it.shelf))
        };
        let all = (0..self.outbounds.len()).map(|turn| self.outbounds.at(turn));
        let removed: Vec<usize> = all.filter(|link| !stays(&self.outbounds[*link])).collect();
        for link in removed {
            self.end_dialled(link, Down::Removed);
            self.outbounds.remove(link);
        }
    }

    /// Dials a new peer, or an old one at its new address.
    fn adopt(&mut self, listed: &Listed, lane: Lane) {
        let (node, address) = (listed.node, &listed.address);
        let Some(link) = self.outbounds.find(node, lane) else {
            let shelf = listed.shelves[lane.index()].clone();
            self.outbounds.add(Outbound::new(node, lane, address.clone(), shelf, self.now));
            return;
        };
        if self.outbounds[link].address == *address {
            return;
        }
        self.end_dialled(link, Down::Moved);
        let it = &mut self.outbounds[link];
        it.address.clone_from(address);
        // A look-up of the old name that is under way is not waited for.
        it.resolving = false;
        it.attempt = 0;
        it.next = self.now;
    }

    /// Closes a dialled connection, if there is one. Its queue is written as far as the system
    /// takes it at once: the last word to a node that is removed may be that it was.
    fn end_dialled(&mut self, link: usize, why: Down) {
        self.write(link);
        if self.outbounds[link].conn.is_some() {
            self.outbound_down(link, why);
        }
    }

    fn judge_accepted(&mut self, list: &[Listed]) {
        let me = self.shared.identity.read().node;
        let mut over = Vec::new();
        for (serial, link) in &self.inbounds {
            let (hello, shelf) = match &link.phase {
                Phase::Greeting(greeting) => match &greeting.hello {
                    Some(hello) => (hello, None),
                    // It will be judged by the new list.
                    None => continue,
                },
                Phase::Up(up) => (&up.hello, Some(&up.shelf)),
            };
            let refusal = match (find(list, hello.node), shelf) {
                (None, _) => unknown(me, hello.node),
                (Some(listed), Some(shelf)) if !Arc::ptr_eq(&listed.shelves[hello.lane.index()], shelf) => {
                    Refusal {
                        code: RefusalCode::Renewed,
                        reason: format!("node {} was removed and added again, connect again", hello.node),
                    }
                }
                (Some(_), _) => continue,
            };
            over.push((*serial, refusal));
        }
        for (serial, refusal) in over {
            self.inbound_down(serial, Down::Refused(Side::Us, refusal));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use groups::ids::{Boot, ClusterId, NodeId, StorageId};

    use super::*;
    use crate::driver::Socket;
    use crate::{Config, Frame, Identity, NetHandle, Peer};

    struct Nobody;

    impl crate::Demux for Nobody {
        fn frames(&mut self, _: &Peer, _: &mut Vec<Frame>) {}
        fn link_up(&mut self, _: &Peer) {}
        fn link_down(&mut self, _: &Peer, _: &str) {}
    }

    /// A loop that only turns when the test says so.
    fn driver() -> (Driver, NetHandle, SocketAddr) {
        let identity = Identity {
            cluster_name: "test".to_owned(),
            cluster: ClusterId(1),
            node: NodeId(1),
            storage: StorageId(1),
            boot: Boot(1),
            protocol_min: 1,
            protocol_max: 1,
        };
        let anywhere = "127.0.0.1:0".parse().expect("an address");
        let socket = Socket::bind(Config::new(anywhere, Vec::new(), identity)).expect("a free port");
        let (handle, address) = (NetHandle { shared: socket.shared.clone() }, socket.local_addr);
        (Driver::new(socket, Box::new(Nobody)), handle, address)
    }

    fn named(node: u32) -> Vec<(NodeId, String)> {
        vec![(NodeId(node), "localhost:1".to_owned())]
    }

    #[test]
    fn a_look_up_for_a_removed_peer_finds_nobody() {
        let (mut driver, handle, address) = driver();
        handle.set_peers(named(2)).expect("a list");
        driver.on_notes();
        let link = driver.outbounds.find(NodeId(2), Lane::Consensus).expect("a link");
        driver.dial(link);
        let first = driver.outbounds[link].dial;
        assert!(driver.outbounds[link].resolving);

        handle.set_peers(Vec::new()).expect("a list");
        driver.on_notes();
        assert_eq!(driver.outbounds.len(), 0);
        driver.on_resolved(link, first, Ok(vec![address]));

        // Another peer has the number and looks a name up, too.
        handle.set_peers(named(3)).expect("a list");
        driver.on_notes();
        assert_eq!(driver.outbounds.find(NodeId(3), Lane::Consensus), Some(link));
        driver.dial(link);
        let second = driver.outbounds[link].dial;
        assert_ne!(first, second);
        driver.on_resolved(link, first, Ok(vec![address]));
        assert!(driver.outbounds[link].resolving && driver.outbounds[link].conn.is_none());
        driver.on_resolved(link, second, Ok(vec![address]));
        assert_eq!(driver.outbounds[link].conn.as_ref().map(|conn| conn.remote), Some(address));
    }

    #[test]
    fn a_look_up_of_an_old_address_is_not_waited_for() {
        let (mut driver, handle, address) = driver();
        handle.set_peers(named(2)).expect("a list");
        driver.on_notes();
        let link = driver.outbounds.find(NodeId(2), Lane::Bulk).expect("a link");
        driver.dial(link);
        let first = driver.outbounds[link].dial;
        handle.set_peers(vec![(NodeId(2), address.to_string())]).expect("a list");
        driver.on_notes();
        driver.on_resolved(link, first, Ok(vec![address]));
        assert!(driver.outbounds[link].conn.is_none());
        assert!(driver.outbounds[link].next <= driver.now && driver.timer <= driver.now);
    }

    #[test]
    fn a_peer_that_was_away_between_two_turns_starts_anew() {
        let (mut driver, handle, _) = driver();
        handle.set_peers(named(2)).expect("a list");
        driver.on_notes();
        let old = driver.outbounds[0].shelf.clone();
        handle.set_peers(Vec::new()).expect("a list");
        handle.set_peers(named(2)).expect("a list");
        driver.on_notes();
        assert_eq!(driver.outbounds.len(), 2);
        for (it, lane) in driver.outbounds.iter().zip(Lane::ALL) {
            assert!(!Arc::ptr_eq(&it.shelf, &old));
            let listed = handle.shared.peers.shelf(NodeId(2), lane).expect("it is listed");
            assert!(Arc::ptr_eq(&it.shelf, &listed));
        }
    }
}
