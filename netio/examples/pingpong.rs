//! Two nodes in one process over loopback: ping-pong latency of one frame at a time, then the
//! throughput of small and of large frames.
//!
//! ```text
//! cargo run --release -p netio --example pingpong [seconds per measurement]
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded};
use groups::ids::{Boot, ClusterId, GroupId, NodeId, StorageId};
use netio::{Config, Demux, Frame, FrameBatch, Identity, Lane, NetHandle, Peer, SendError};

const PING: u8 = 1;
const PONG: u8 = 2;
const FLOOD: u8 = 3;

/// Echoes pings where they arrive, on the netio thread; counts the rest.
struct Echo {
    handle: NetHandle,
    pongs: Sender<()>,
    received: Arc<AtomicU64>,
}

impl Demux for Echo {
    fn frames(&mut self, peer: &Peer, frames: &mut Vec<Frame>) {
        let mut flood = 0;
        for frame in frames.drain(..) {
            match frame.kind {
                PING => {
                    let mut batch = FrameBatch::new();
                    batch.push(frame.group, PONG, &frame.body, &Bytes::new());
                    self.handle.send(peer.node, peer.lane, batch).expect("the link is up");
                }
                PONG => self.pongs.send(()).expect("somebody waits"),
                _ => flood += 1,
            }
        }
        self.received.fetch_add(flood, Ordering::Relaxed);
    }
    fn link_up(&mut self, _: &Peer) {}
    fn link_down(&mut self, peer: &Peer, why: &str) {
        eprintln!("link to node {} down: {why}", peer.node);
    }
}

fn identity(node: u32) -> Identity {
    Identity {
        cluster_name: "pingpong".to_owned(),
        cluster: ClusterId(1),
        node: NodeId(node),
        storage: StorageId(u128::from(node)),
        boot: Boot(1),
        protocol_min: 1,
        protocol_max: 1,
    }
}

fn ping_pong(from: &NetHandle, pongs: &Receiver<()>, time: Duration) {
    let mut latencies = Vec::new();
    let end = Instant::now() + time;
    while Instant::now() < end {
        let began = Instant::now();
        let mut batch = FrameBatch::new();
        batch.push(GroupId(1), PING, &[0; 32], &Bytes::new());
        from.send(NodeId(2), Lane::Consensus, batch).expect("the link is up");
        pongs.recv().expect("a pong");
        latencies.push(began.elapsed());
    }
    latencies.sort_unstable();
    let at = |q: f64| latencies[((latencies.len() - 1) as f64 * q) as usize];
    println!(
        "ping-pong 32 B: {} rounds, p50 {:?}, p99 {:?}, p99.9 {:?}",
        latencies.len(),
        at(0.5),
        at(0.99),
        at(0.999)
    );
}

fn flood(from: &NetHandle, received: &AtomicU64, size: usize, per_batch: usize, time: Duration) {
    let payload = Bytes::from(vec![0xA5; size]);
    let before = received.load(Ordering::Relaxed);
    let link = |from: &NetHandle| from.stats().links[0].clone();
    let start = link(from);
    let began = Instant::now();
    let mut sent = 0;
    while began.elapsed() < time {
        let mut batch = FrameBatch::new();
        for n in 0..per_batch {
            batch.push(GroupId(n as u32), FLOOD, &[0; 32], &payload);
        }
        // A full queue is waited for here; Paxos would send again instead.
        while let Err(error) = from.send(NodeId(2), Lane::Consensus, batch.clone()) {
            assert_eq!(error, SendError::Full);
            std::thread::sleep(Duration::from_micros(200));
        }
        sent += per_batch as u64;
    }
    while received.load(Ordering::Relaxed) - before < sent {
        std::thread::sleep(Duration::from_micros(100));
    }
    let seconds = began.elapsed().as_secs_f64();
    let writes = link(from).writes - start.writes;
    println!(
        "flood {:>7} B x {per_batch:>3} per batch: {:>9.0} frames/s, {:>6.0} MB/s, {:>6.1} frames per writev",
        size + 32,
        sent as f64 / seconds,
        sent as f64 * (size + 48) as f64 / seconds / 1e6,
        sent as f64 / writes as f64
    );
}

fn main() {
    let seconds = std::env::args().nth(1).and_then(|arg| arg.parse().ok()).unwrap_or(2.0);
    let time = Duration::from_secs_f64(seconds);
    let listen = "127.0.0.1:0".parse().expect("an address");
    let nowhere = "127.0.0.1:1".to_owned();
    let bind = |me: u32, other: u32| {
        let peers = vec![(NodeId(other), nowhere.clone())];
        netio::bind(Config::new(listen, peers, identity(me))).expect("a free port")
    };
    let (mut a, mut b) = (bind(1, 2), bind(2, 1));
    a.set_peer_address(NodeId(2), b.local_addr().to_string()).expect("a peer");
    b.set_peer_address(NodeId(1), a.local_addr().to_string()).expect("a peer");

    let (pongs, inbox) = bounded(1);
    let received = Arc::new(AtomicU64::new(0));
    let mut nodes = Vec::new();
    for bound in [a, b] {
        let echo = Echo { handle: bound.handle(), pongs: pongs.clone(), received: received.clone() };
        nodes.push(bound.start(echo).expect("a thread"));
    }
    let (from, to) = (nodes[0].0.clone(), nodes[1].0.clone());
    while !from.is_connected(NodeId(2), Lane::Consensus) || !to.is_connected(NodeId(1), Lane::Consensus) {
        std::thread::sleep(Duration::from_millis(1));
    }

    ping_pong(&from, &inbox, time);
    for (size, per_batch) in [(68, 1), (68, 64), (4064, 16), (1 << 20, 1)] {
        flood(&from, &received, size, per_batch, time);
    }
    println!("{:?}", from.stats());
    for (handle, thread) in nodes {
        handle.shutdown();
        thread.join().expect("the thread ends in order");
    }
}
