//! Where the nodes can listen.

use std::net::{Ipv4Addr, TcpListener};

/// The ports of a demo: node i has its client port at `base + i`, its peer port 100 above and
/// its admin port 200 above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// Below the first client port.
    pub base: u16,
}

/// The ports of the repository's config.toml.
pub const USUAL: Ports = Ports { base: 7000 };

/// Between the client, peer and admin ports of one node.
const APART: u16 = 100;
/// From one choice of ports to the next, so that no two overlap.
const STEP: u16 = 300;
/// Where the system begins to hand out ports by itself, on Linux.
const END: u16 = 32_000;

impl Ports {
    /// The client, peer and admin port of a node.
    #[must_use]
    pub fn of(self, node: u32) -> [u16; 3] {
        let first = self.base + node as u16;
        [first, first + APART, first + 2 * APART]
    }

    /// The first port that somebody else listens on, of all that `nodes` nodes need.
    #[must_use]
    pub fn taken(self, nodes: u32) -> Option<u16> {
        (1..=nodes).flat_map(|node| self.of(node)).find(|port| !is_free(*port))
    }

    /// The first choice from `self` on, wrapping around, of which every port is free.
    #[must_use]
    pub fn free(self, nodes: u32) -> Option<Ports> {
        let choices = (END - USUAL.base) / STEP;
        let start = (self.base - USUAL.base) / STEP;
        (0..choices)
            .map(|n| Ports { base: USUAL.base + (start + n) % choices * STEP })
            .find(|ports| ports.taken(nodes).is_none())
    }

    /// A choice that other demos of this machine are unlikely to make at the same time.
    #[must_use]
    pub fn for_process(id: u32) -> Ports {
        let choices = u32::from((END - USUAL.base) / STEP) - 1;
        Ports { base: USUAL.base + STEP * (1 + id % choices) as u16 }
    }
}

/// Whether nobody on this machine listens on it.
#[must_use]
pub fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_ports_are_those_of_the_shipped_file() {
        assert_eq!(USUAL.of(1), [7001, 7101, 7201]);
        assert_eq!(USUAL.of(25), [7025, 7125, 7225]);
    }

    #[test]
    fn no_two_choices_overlap_and_all_fit() {
        for id in 0..500 {
            let ports = Ports::for_process(id);
            assert_eq!((ports.base - USUAL.base) % STEP, 0);
            assert!(ports.base > USUAL.base && ports.of(25)[2] < END, "{ports:?}");
        }
    }

    #[test]
    fn a_taken_port_is_found_and_avoided() {
        let ports = Ports::for_process(std::process::id()).free(3).expect("free ports");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, ports.of(2)[1])).expect("free");
        assert_eq!(ports.taken(3), Some(ports.of(2)[1]));
        assert_ne!(ports.free(3), Some(ports));
        drop(listener);
    }
}
