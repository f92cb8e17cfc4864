//! Ports that nothing else takes, also while the node that owns them is dead.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

/// Below the range from which Linux takes the ports of outgoing connections (32 768 and up), so
/// that no client connection sits on the port of a node that is about to start again.
const RANGE: std::ops::Range<u32> = 12_000..32_000;

/// Ports of one block: the first is the block's lock, then three for each node.
const BLOCK: u32 = 32;

/// One block of loopback ports. Whoever listens on its first port owns it, so that tests of
/// several processes never take the same.
#[derive(Debug)]
pub struct Ports {
    first: u16,
    _lock: TcpListener,
}

impl Ports {
    /// Takes a free block.
    pub fn take() -> Ports {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let blocks = (RANGE.end - RANGE.start) / BLOCK;
        for _ in 0..blocks {
            let turn = std::process::id().wrapping_mul(37).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
            let first = (RANGE.start + turn % blocks * BLOCK) as u16;
            let bind = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
            let Ok(lock) = bind(first) else { continue };
            if (first + 1..first + BLOCK as u16).all(|port| bind(port).is_ok()) {
                return Ports { first, _lock: lock };
            }
        }
        panic!("no free block of {BLOCK} ports in {RANGE:?}");
    }

    fn of(&self, node: u32, which: u32) -> SocketAddr {
        let offset = 1 + (node - 1) * 3 + which;
        assert!(offset < BLOCK, "node {node} has no ports in a block of {BLOCK}");
        SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, self.first + offset as u16))
    }

    /// Where a node's clients connect.
    pub fn client(&self, node: u32) -> SocketAddr {
        self.of(node, 0)
    }

    /// Where a node's peers connect.
    pub fn peer(&self, node: u32) -> SocketAddr {
        self.of(node, 1)
    }

    /// Where a node's operators connect.
    pub fn admin(&self, node: u32) -> SocketAddr {
        self.of(node, 2)
    }
}
