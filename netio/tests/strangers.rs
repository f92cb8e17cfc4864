//! Who is not let in, why, and that nobody else suffers from it.

mod net;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use groups::ids::{Boot, ClusterId, NodeId, StorageId};
use net::{ByHand, Node, PATIENCE, Seen, config, hello, pair, together, until};
use netio::handshake::{Hello, Message};
use netio::{Config, Lane, RefusalCode, Side};

const LANE: Lane = Lane::Consensus;

/// Both nodes of a pair refuse or are refused with that code, and say why.
fn refused(a: Config, b: Config, code: RefusalCode, words: &[&str]) {
    let mut bound: Vec<netio::Bound> = vec![netio::bind(a).unwrap(), netio::bind(b).unwrap()];
    // Node 1 dials what it believes to be node 2; the other one dials nobody.
    let address = bound[1].local_addr().to_string();
    bound[0].set_peer_address(NodeId(2), address).unwrap();
    let nodes: Vec<Node> = bound.into_iter().map(Node::start).collect();
    for (node, by) in [(&nodes[0], Side::Peer), (&nodes[1], Side::Us)] {
        let rejection = node.wait_rejected();
        assert_eq!((rejection.code, rejection.by), (code, by), "{rejection:?}");
        for word in words {
            assert!(rejection.reason.contains(word), "{word:?} is missing in: {}", rejection.reason);
        }
    }
    assert!(nodes[0].handle.stats().links.iter().all(|link| link.ups == 0));
    assert_eq!(nodes[0].send(2, b"x"), Err(netio::SendError::NotConnected));
    // It is tried again.
    nodes[1].wait_rejected();
}

#[test]
fn another_cluster_name() {
    let mut b = config(2);
    b.identity.cluster_name = "blue".to_owned();
    refused(config(1), b, RefusalCode::ClusterName, &["\"test\"", "\"blue\"", "peer_addr"]);
}

#[test]
fn another_cluster_of_the_same_name() {
    let mut b = config(2);
    b.identity.cluster = ClusterId(0xB);
    refused(config(1), b, RefusalCode::ClusterId, &["node 1", "node 2", "data directory"]);
}

#[test]
fn a_node_that_is_not_configured() {
    let mut b = config(2);
    b.peers.remove(0);
    refused(
        config(1),
        b,
        RefusalCode::UnknownNode,
        &["node 1 is not (or no longer) a member of this cluster", "node 2"],
    );
}

#[test]
fn two_processes_with_one_id() {
    let mut b = config(1);
    b.identity.storage = StorageId(5);
    refused(config(1), b, RefusalCode::SameNode, &["both sides say they are node 1", "--node"]);
}

#[test]
fn another_node_at_the_address() {
    refused(config(1), config(3), RefusalCode::WrongNode, &["expected node 2", "node 3 is here"]);
}

#[test]
fn no_protocol_in_common() {
    let mut b = config(2);
    (b.identity.protocol_min, b.identity.protocol_max) = (2, 3);
    refused(config(1), b, RefusalCode::Protocol, &["1..=1", "2..=3", "Upgrade"]);
}

#[test]
fn overlapping_protocols_agree() {
    let mut b = config(2);
    b.identity.protocol_max = 3;
    let nodes = together(vec![config(1), b]);
    nodes[0].wait_up(2, LANE);
    nodes[1].wait_up(1, LANE);
}

#[test]
fn a_node_that_dials_itself() {
    let mut bound = netio::bind(config(1)).unwrap();
    bound.set_peer_address(NodeId(2), bound.local_addr().to_string()).unwrap();
    let node = Node::start(bound);
    let rejection = node.wait_rejected();
    assert_eq!(rejection.code, RefusalCode::SameNode);
    assert!(rejection.reason.contains("peer_addr of node 2 is wrong"), "{}", rejection.reason);
}

/// The acceptor ignores whom the dialler expects: the dialler notices, and says so.
#[test]
fn a_wrong_answerer() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut a = config(1);
    a.peers[1].1 = listener.local_addr().unwrap().to_string();
    let a = Node::start(netio::bind(a).unwrap());
    let mut peer = ByHand::accept(&listener);
    let Some(Message::Hello(heard)) = peer.hear() else { panic!("no hello") };
    assert_eq!((heard.node, heard.expects), (NodeId(1), NodeId(2)));
    peer.say(Message::Hello(hello(3, 0)));
    let Some(Message::Refusal(refusal)) = peer.hear() else { panic!("no refusal") };
    assert_eq!(refusal.code, RefusalCode::WrongNode);
    let rejection = a.wait_rejected();
    assert_eq!((rejection.by, rejection.code), (Side::Us, RefusalCode::WrongNode));
    assert!(rejection.reason.contains("node 3 answered"), "{}", rejection.reason);
}

/// The connection ends without an answer.
fn expect_end(stream: &mut TcpStream) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    match stream.read(&mut [0; 64]) {
        Ok(0) => (),
        Ok(n) => panic!("{n} bytes of an answer"),
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
    }
}

#[test]
fn garbage_on_the_port_is_dropped_and_other_links_go_on() {
    let (a, b) = pair();
    a.wait_up(2, LANE);
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"*1\r\n$4\r\nPING\r\n",
        &[0xFF; 5000],
        b"pelago>n\xFF\xFF\xFF\xFF........",
    ] {
        let mut stream = TcpStream::connect(b.address).unwrap();
        // The other end may be gone before all is written.
        let _ = stream.write_all(garbage);
        expect_end(&mut stream);
        assert_eq!(b.wait_rejected().code, RefusalCode::Malformed);
        a.send(2, b"still here").unwrap();
        assert_eq!(b.wait_frame().1.body, "still here");
    }
    let stats = b.handle.stats();
    assert_eq!((stats.rejected, stats.greeting), (4, 0));
    assert_eq!(a.handle.stats().links.iter().map(|link| link.ups).max(), Some(1));
}

#[test]
fn a_handshake_out_of_order_is_dropped() {
    let node = Node::start(netio::bind(config(1)).unwrap());
    let mut peer = ByHand::dial(node.address);
    peer.say(Message::Ready { protocol: 1 });
    assert_eq!(peer.hear(), None);
    assert_eq!(node.wait_rejected().code, RefusalCode::Malformed);
}

#[test]
fn silent_and_half_said_handshakes_are_closed() {
    let mut short = config(1);
    short.handshake_timeout = Duration::from_millis(150);
    let node = Node::start(netio::bind(short).unwrap());
    let mut silent = TcpStream::connect(node.address).unwrap();
    let mut half = TcpStream::connect(node.address).unwrap();
    half.write_all(&Message::Hello(hello(2, 1)).encode()[..30]).unwrap();
    let mut unready = ByHand::dial(node.address);
    unready.say(Message::Hello(hello(2, 1)));
    assert!(matches!(unready.hear(), Some(Message::Hello(_))));
    expect_end(&mut silent);
    expect_end(&mut half);
    let Some(Message::Refusal(refusal)) = unready.hear() else { panic!("no reason was given") };
    assert_eq!(refusal.code, RefusalCode::Idle);
    until("nobody is greeting", || node.handle.stats().greeting == 0);
}

/// One byte now and then does not extend the deadline.
#[test]
fn a_slow_handshake_is_closed() {
    let mut short = config(1);
    short.handshake_timeout = Duration::from_millis(150);
    let node = Node::start(netio::bind(short).unwrap());
    let mut slow = TcpStream::connect(node.address).unwrap();
    let began = Instant::now();
    let bytes = Message::Hello(hello(2, 1)).encode();
    let mut sent = 0;
    while node.handle.stats().rejected == 0 {
        assert!(began.elapsed() < PATIENCE && sent < bytes.len(), "it was waited for");
        // Fails when the other end has closed it.
        let _ = slow.write_all(&bytes[sent..=sent]);
        sent += 1;
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn too_many_silent_connections_do_not_keep_a_peer_out() {
    let mut few = config(1);
    few.max_greeting = 8;
    let node = Node::start(netio::bind(few).unwrap());
    let silent: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(node.address).unwrap()).collect();
    until("all are accepted", || node.handle.stats().accepted == 100);
    assert!(node.handle.stats().greeting <= 8);
    let mut peer = ByHand::join(node.address, hello(2, 1));
    peer.send(b"through");
    assert_eq!(node.wait_frame().1.body, "through");
    drop(silent);
}

#[test]
fn a_damaged_frame_ends_its_link_and_nothing_after_it_is_delivered() {
    let node = Node::start(netio::bind(config(1)).unwrap());
    let mut peer = ByHand::join(node.address, hello(2, 1));
    let frame = |body: &[u8]| -> Vec<u8> { net::one(body).into_segments().flatten().collect() };
    let mut bytes = frame(b"good");
    let mut bad = frame(b"damaged");
    bad[20] ^= 4;
    bytes.extend(bad);
    bytes.extend(frame(b"good, but behind the damage"));
    peer.write(&bytes);
    let mut bodies = Vec::new();
    let rejection = node.wait("the end of the link", |seen| match seen {
        Seen::Frames(_, frames) => {
            bodies.extend(frames.into_iter().map(|frame| frame.body));
            None
        }
        Seen::Rejected(rejection) => Some(rejection),
        _ => None,
    });
    assert_eq!(bodies, ["good"]);
    assert_eq!((rejection.code, rejection.node), (RefusalCode::Corrupt, Some(NodeId(2))));
    assert_eq!(node.handle.stats().corrupt, 1);
    let Some(Message::Refusal(refusal)) = peer.hear() else { panic!("no reason was given") };
    assert_eq!(refusal.code, RefusalCode::Corrupt);
}

#[test]
fn a_frame_over_the_limit_ends_its_link() {
    let mut small = config(1);
    small.max_frame = 1000;
    let node = Node::start(netio::bind(small).unwrap());
    let mut peer = ByHand::join(node.address, hello(2, 1));
    peer.send(&[0; 1000]);
    assert_eq!(node.wait_frame().1.body.len(), 1000);
    peer.send(&[0; 1001]);
    let rejection = node.wait_rejected();
    assert!(rejection.reason.contains("1001 bytes, the limit is 1000"), "{}", rejection.reason);
}

#[test]
fn an_accepted_link_that_falls_silent_is_closed() {
    let mut short = config(1);
    short.idle_timeout = Duration::from_millis(150);
    let node = Node::start(netio::bind(short).unwrap());
    let mut peer = ByHand::join(node.address, hello(2, 1));
    let Some(Message::Refusal(refusal)) = peer.hear() else { panic!("no reason was given") };
    assert_eq!(refusal.code, RefusalCode::Idle);
}

#[test]
fn a_link_that_ends_behind_its_last_frame_is_over_at_once() {
    // A read that does not fill its room is taken for the last one, so the loop asks no more. Where the end has come
    // together with the last frame, nothing else would tell it: the link would stay until it falls silent.
    let mut patient = config(1);
    patient.idle_timeout = 2 * PATIENCE;
    let node = Node::start(netio::bind(patient).unwrap());
    for round in 0..200_u32 {
        let mut peer = ByHand::join(node.address, hello(2, 1));
        peer.send(&round.to_le_bytes());
        drop(peer);
        assert_eq!(node.wait_frame().1.body, round.to_le_bytes()[..]);
        until("the link is over", || node.handle.stats().links.iter().all(|link| link.receiving == 0));
    }
}

fn life(boot: u64, storage: u128, lane: Lane) -> Hello {
    Hello { boot: Boot(boot), storage: StorageId(storage), lane, ..hello(2, 1) }
}

#[test]
fn the_same_or_a_later_life_takes_the_place_of_an_older_connection() {
    let node = Node::start(netio::bind(config(1)).unwrap());
    let mut bulk = ByHand::join(node.address, life(1, 1, Lane::Bulk));
    let mut first = ByHand::join(node.address, life(1, 1, LANE));
    first.send(b"one");
    assert_eq!(node.wait_frame().1.body, "one");
    for boot in [1, 4] {
        // What the older connection has sent comes before what the newer one sends.
        first.send(b"late");
        let mut second = ByHand::join(node.address, life(boot, 1, LANE));
        second.send(b"two");
        assert_eq!(node.wait_frame().1.body, "late");
        let (peer, frame) = node.wait_frame();
        assert_eq!((peer.boot, frame.body), (Boot(boot), bytes::Bytes::from_static(b"two")));
        let Some(Message::Refusal(refusal)) = first.hear() else { panic!("no reason was given") };
        assert_eq!(refusal.code, RefusalCode::Replaced);
        first = second;
    }
    // The other lane belonged to boot 1.
    assert!(matches!(bulk.hear(), Some(Message::Refusal(refusal)) if refusal.code == RefusalCode::Replaced));
    let links = node.handle.stats().links;
    assert_eq!(links.iter().map(|link| link.receiving).sum::<u64>(), 1);
}

fn expect_refusal(node: &Node, hello: Hello, code: RefusalCode) {
    let mut peer = ByHand::dial(node.address);
    peer.say(Message::Hello(hello));
    let Some(Message::Refusal(refusal)) = peer.hear() else { panic!("it was let in") };
    assert_eq!(refusal.code, code, "{refusal}");
    assert_eq!(node.wait_rejected().code, code);
}

#[test]
fn an_earlier_life_and_another_disk_wait_until_the_place_is_free() {
    let node = Node::start(netio::bind(config(1)).unwrap());
    let mut current = ByHand::join(node.address, life(5, 1, LANE));
    for lane in Lane::ALL {
        expect_refusal(&node, life(4, 1, lane), RefusalCode::StaleBoot);
        expect_refusal(&node, life(9, 2, lane), RefusalCode::OtherStorage);
    }
    current.send(b"undisturbed");
    assert_eq!(node.wait_frame().1.body, "undisturbed");
    drop(current);
    until("the place is free", || node.handle.stats().links.iter().all(|link| link.receiving == 0));
    let mut replacement = ByHand::join(node.address, life(1, 2, LANE));
    replacement.send(b"a new disk");
    assert_eq!(node.wait_frame().0.storage, StorageId(2));
}
