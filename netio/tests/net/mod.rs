//! A node of tests: the real loop on a port of the system's choice, its deliveries in a
//! channel.

#![allow(dead_code, reason = "every test binary uses its own part")]

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use groups::ids::{Boot, ClusterId, GroupId, NodeId, StorageId};
use netio::handshake::{Hello, MAX_MESSAGE, Message};
use netio::{Bound, Config, Demux, Frame, FrameBatch, Identity, Lane, NetHandle, NetThread, Peer, Rejection};

pub const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub enum Seen {
    Frames(Peer, Vec<Frame>),
    Up(Peer),
    Down(Peer, String),
    Rejected(Rejection),
}

struct Tap(Sender<Seen>);

impl Tap {
    fn put(&self, seen: Seen) {
        // The test may have ended.
        let _ = self.0.send(seen);
    }
}

impl Demux for Tap {
    fn frames(&mut self, peer: &Peer, frames: &mut Vec<Frame>) {
        self.put(Seen::Frames(*peer, std::mem::take(frames)));
    }
    fn link_up(&mut self, peer: &Peer) {
        self.put(Seen::Up(*peer));
    }
    fn link_down(&mut self, peer: &Peer, why: &str) {
        self.put(Seen::Down(*peer, why.to_owned()));
    }
    fn rejected(&mut self, rejection: &Rejection) {
        self.put(Seen::Rejected(rejection.clone()));
    }
}

pub fn identity(node: u32) -> Identity {
    Identity {
        cluster_name: "test".to_owned(),
        cluster: ClusterId(0xC1),
        node: NodeId(node),
        storage: StorageId(1000 + u128::from(node)),
        boot: Boot(1),
        protocol_min: 1,
        protocol_max: 1,
    }
}

/// On any port, knowing nodes 1 to 3, which are nowhere yet.
pub fn config(node: u32) -> Config {
    let nowhere = |n| (NodeId(n), "127.0.0.1:1".to_owned());
    let mut config =
        Config::new("127.0.0.1:0".parse().unwrap(), (1..=3).map(nowhere).collect(), identity(node));
    config.backoff_max = Duration::from_millis(100);
    config
}

pub struct Node {
    pub id: NodeId,
    pub address: SocketAddr,
    pub handle: NetHandle,
    pub seen: Receiver<Seen>,
    thread: Option<NetThread>,
}

impl Node {
    pub fn start(bound: Bound) -> Node {
        let (sender, seen) = unbounded();
        let address = bound.local_addr();
        let (handle, thread) = bound.start(Tap(sender)).unwrap();
        Node { id: handle.identity().node, address, handle, seen, thread: Some(thread) }
    }

    pub fn lend(&self) -> netio::Loan {
        self.thread.as_ref().and_then(NetThread::lend).expect("a running thread has a loop")
    }

    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.handle.shutdown();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the network thread panicked");
        }
    }

    /// The first thing seen that `pick` takes; everything before it is dropped.
    pub fn wait<T>(&self, what: &str, mut pick: impl FnMut(Seen) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let seen = self.seen.recv_deadline(deadline);
            let seen = seen.unwrap_or_else(|_| panic!("node {} waited in vain for {what}", self.id));
            if let Some(found) = pick(seen) {
                return found;
            }
        }
    }

    pub fn wait_up(&self, node: u32, lane: Lane) -> Peer {
        self.wait("link up", |seen| match seen {
            Seen::Up(peer) if peer.node == NodeId(node) && peer.lane == lane => Some(peer),
            _ => None,
        })
    }

    pub fn wait_rejected(&self) -> Rejection {
        self.wait("a rejection", |seen| if let Seen::Rejected(it) = seen { Some(it) } else { None })
    }

    pub fn wait_frame(&self) -> (Peer, Frame) {
        self.wait("a frame", |seen| match seen {
            Seen::Frames(peer, frames) => frames.into_iter().next().map(|frame| (peer, frame)),
            _ => None,
        })
    }

    pub fn send(&self, to: u32, body: &[u8]) -> Result<(), netio::SendError> {
        self.handle.send(NodeId(to), Lane::Consensus, one(body))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.end();
    }
}

/// A batch of one frame.
pub fn one(body: &[u8]) -> FrameBatch {
    let mut batch = FrameBatch::new();
    batch.push(GroupId(1), 1, body, &bytes::Bytes::new());
    batch
}

pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Starts nodes that know each other's real ports.
pub fn together(configs: Vec<Config>) -> Vec<Node> {
    let mut bound: Vec<Bound> = configs.into_iter().map(|config| netio::bind(config).unwrap()).collect();
    let addresses: Vec<(NodeId, SocketAddr)> =
        bound.iter().map(|it| (it.handle().identity().node, it.local_addr())).collect();
    for it in &mut bound {
        let me = it.handle().identity().node;
        for (node, address) in addresses.iter().filter(|(node, _)| *node != me) {
            it.set_peer_address(*node, address.to_string()).unwrap();
        }
    }
    bound.into_iter().map(Node::start).collect()
}

pub fn pair() -> (Node, Node) {
    let mut nodes = together(vec![config(1), config(2)]);
    let b = nodes.pop().unwrap();
    (nodes.pop().unwrap(), b)
}

pub fn hello(node: u32, expects: u32) -> Hello {
    let me = identity(node);
    Hello {
        protocol_min: 1,
        protocol_max: 1,
        lane: Lane::Consensus,
        node: me.node,
        expects: NodeId(expects),
        boot: me.boot,
        cluster: me.cluster,
        storage: me.storage,
        cluster_name: me.cluster_name,
    }
}

/// A peer made by hand.
pub struct ByHand {
    pub stream: TcpStream,
    bytes: Vec<u8>,
}

impl ByHand {
    pub fn dial(address: SocketAddr) -> ByHand {
        ByHand::on(TcpStream::connect(address).unwrap())
    }

    pub fn accept(listener: &TcpListener) -> ByHand {
        ByHand::on(listener.accept().unwrap().0)
    }

    fn on(stream: TcpStream) -> ByHand {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        ByHand { stream, bytes: Vec::new() }
    }

    pub fn say(&mut self, message: Message) {
        self.write(&message.encode());
    }

    pub fn write(&mut self, bytes: &[u8]) {
        std::io::Write::write_all(&mut self.stream, bytes).unwrap();
    }

    /// The next handshake message, or `None` when the connection ended.
    pub fn hear(&mut self) -> Option<Message> {
        loop {
            if let Some((message, length)) = Message::decode(&self.bytes).unwrap() {
                self.bytes.drain(..length);
                return Some(message);
            }
            let mut chunk = [0; MAX_MESSAGE];
            match std::io::Read::read(&mut self.stream, &mut chunk) {
                Ok(0) => return None,
                Ok(n) => self.bytes.extend_from_slice(&chunk[..n]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("no answer: {error}"),
            }
        }
    }

    /// Dials with that hello and ends the handshake as a node does.
    pub fn join(address: SocketAddr, hello: Hello) -> ByHand {
        let mut peer = ByHand::dial(address);
        peer.say(Message::Hello(hello));
        assert!(matches!(peer.hear(), Some(Message::Hello(_))), "refused");
        peer.say(Message::Ready { protocol: 1 });
        peer
    }

    pub fn send(&mut self, body: &[u8]) {
        let bytes: Vec<u8> = one(body).into_segments().flatten().collect();
        self.write(&bytes);
    }
}
