//! Real nodes over loopback: order, coalescing, reconnecting, limits.

mod net;

use std::time::{Duration, Instant};

use bytes::Bytes;
use groups::ids::{Boot, ClusterId, GroupId, NodeId};
use net::{ByHand, Node, PATIENCE, Seen, config, hello, one, pair, together, until};
use netio::{FrameBatch, Lane, RefusalCode, SendError};

const LANE: Lane = Lane::Consensus;

/// Frame number `n` of a stream: its size and bytes follow from the number.
fn nth(n: u32) -> (GroupId, u8, Vec<u8>) {
    let size = match n % 1000 {
        0 => 100_000,
        7 => 5_000,
        k => (k * 7 % 300) as usize,
    };
    let mut body = n.to_le_bytes().to_vec();
    body.extend((0..size).map(|i| (i as u32).wrapping_mul(31).wrapping_add(n) as u8));
    (GroupId(n % 64), (n % 200) as u8, body)
}

/// Sends everything in batches, waiting while the queue is full.
fn send_stream(node: &Node, to: u32, count: u32, lane: Lane) {
    let mut n = 0;
    while n < count {
        let mut batch = FrameBatch::new();
        for _ in 0..(n % 90 + 1).min(count - n) {
            let (group, kind, body) = nth(n);
            let (head, payload) = body.split_at(4);
            batch.push(group, kind, head, &Bytes::copy_from_slice(payload));
            n += 1;
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            match node.handle.send(NodeId(to), lane, batch.clone()) {
                Ok(()) => break,
                Err(SendError::Full) => std::thread::sleep(Duration::from_millis(1)),
                Err(error) => panic!("{error}"),
            }
            assert!(Instant::now() < deadline, "the queue stays full");
        }
    }
}

fn expect_stream(node: &Node, count: u32, lane: Lane) {
    let mut next = 0;
    while next < count {
        let frames = node.wait("frames", |seen| match seen {
            Seen::Frames(peer, frames) if peer.lane == lane => Some(frames),
            Seen::Down(_, why) => panic!("link down: {why}"),
            _ => None,
        });
        for frame in frames {
            let (group, kind, body) = nth(next);
            assert_eq!((frame.group, frame.kind), (group, kind), "frame {next}");
            assert!(frame.body == body, "frame {next} has other bytes");
            next += 1;
        }
    }
    assert_eq!(next, count);
}

#[test]
fn a_hundred_thousand_frames_arrive_intact_and_in_order_both_ways() {
    let (a, b) = pair();
    a.wait_up(2, LANE);
    b.wait_up(1, LANE);
    std::thread::scope(|scope| {
        scope.spawn(|| send_stream(&a, 2, 100_000, LANE));
        scope.spawn(|| send_stream(&b, 1, 100_000, LANE));
        scope.spawn(|| expect_stream(&a, 100_000, LANE));
        scope.spawn(|| expect_stream(&b, 100_000, LANE));
    });
    for node in [&a, &b] {
        let stats = node.handle.stats();
        let link = stats.links.iter().find(|link| link.connected && link.lane == LANE).unwrap();
        assert_eq!((link.frames_queued, link.frames_received), (100_000, 100_000));
        assert!(link.writes * 4 < link.frames_queued, "not coalesced: {link:?}");
        until("all is released", || node.handle.queued_bytes(link.node, LANE) == 0);
    }
}

#[test]
fn a_sender_writes_to_the_socket_by_itself() {
    let (a, b) = pair();
    a.wait_up(2, LANE);
    let before = a.handle.stats();
    for n in 0..1_000u32 {
        a.send(2, &n.to_le_bytes()).expect("there is room");
        let (_, frame) = b.wait_frame();
        assert_eq!(frame.body, n.to_le_bytes()[..]);
        // Once in a while the loop has just had the socket, for a sign of life, and writes it.
        until("it is written", || a.handle.queued_bytes(NodeId(2), LANE) == 0);
    }
    let after = a.handle.stats();
    assert_eq!(after.wakes, before.wakes, "nobody had to wake the network thread for it");
}

#[test]
fn single_frames_of_many_threads_are_gathered() {
    let (a, b) = pair();
    a.wait_up(2, LANE);
    let threads = 4;
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let handle = a.handle.clone();
            scope.spawn(move || {
                for n in 0..20_000u32 {
                    let body = [&[thread as u8][..], &n.to_le_bytes()].concat();
                    while handle.send(NodeId(2), LANE, one(&body)) == Err(SendError::Full) {
                        std::thread::yield_now();
                    }
                }
            });
        }
    });
    let mut next = vec![0u32; threads];
    while next.iter().sum::<u32>() < 20_000 * threads as u32 {
        let frames = b.wait("frames", |seen| match seen {
            Seen::Frames(_, frames) => Some(frames),
            _ => None,
        });
        for frame in frames {
            let thread = usize::from(frame.body[0]);
            assert_eq!(frame.body[1..], next[thread].to_le_bytes(), "thread {thread} is out of order");
            next[thread] += 1;
        }
    }
    let stats = a.handle.stats();
    let link = stats.links.iter().find(|link| link.node == NodeId(2) && link.lane == LANE).unwrap();
    // Whoever finds another writing leaves its frame to that one.
    assert!(link.writes < link.frames_queued, "not coalesced: {link:?}");
    until("all is released", || a.handle.queued_bytes(NodeId(2), LANE) == 0);
}

#[test]
fn a_stopped_peer_is_found_again_and_not_fed_with_old_frames() {
    let (a, b) = pair();
    a.wait_up(2, LANE);
    a.send(2, b"before").unwrap();
    assert_eq!(b.wait_frame().1.body, "before");
    let address = b.address;
    b.stop();
    a.wait("link down", |seen| matches!(seen, Seen::Down(peer, _) if peer.lane == LANE).then_some(()));
    assert_eq!(a.send(2, b"meanwhile"), Err(SendError::NotConnected));

    let mut again = config(2);
    again.listen = address;
    again.identity.boot = Boot(2);
    again.peers[0].1 = a.address.to_string();
    let b = Node::start(netio::bind(again).unwrap());
    assert_eq!(a.wait_up(2, LANE).boot, Boot(2));
    a.send(2, b"after").unwrap();
    let (peer, frame) = b.wait_frame();
    assert_eq!((peer.node, frame.body), (NodeId(1), Bytes::from_static(b"after")));
    until("the other direction is up", || b.handle.is_connected(NodeId(1), LANE));
}

#[test]
fn a_peer_that_dials_is_dialled_at_once() {
    let mut patient = config(1);
    (patient.backoff_min, patient.backoff_max) = (PATIENCE * 10, PATIENCE * 10);
    patient.handshake_timeout = Duration::from_millis(100);
    // Bound but not started: it takes connections and does not answer.
    let mut late = netio::bind(config(2)).unwrap();
    patient.peers[1].1 = late.local_addr().to_string();
    let a = Node::start(netio::bind(patient).unwrap());
    until("the first dials have failed", || {
        let links = a.handle.stats().links;
        links.iter().filter(|link| link.node == NodeId(2)).all(|link| link.last_trouble.is_some())
    });
    late.set_peer_address(NodeId(1), a.address.to_string()).unwrap();
    let _b = Node::start(late);
    a.wait_up(2, LANE);
    a.wait_up(2, Lane::Bulk);
}

#[test]
fn what_was_queued_is_written_before_the_end() {
    let (a, b) = pair();
    a.wait_up(2, LANE);
    for n in 0..1000u32 {
        a.send(2, &n.to_le_bytes()).unwrap();
    }
    a.stop();
    let mut count = 0;
    while count < 1000 {
        count += b.wait("frames", |seen| match seen {
            Seen::Frames(_, frames) => Some(frames.len()),
            _ => None,
        });
    }
}

#[test]
fn a_peer_that_does_not_read_fills_its_queue_and_no_more() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut narrow = config(1);
    narrow.max_frame = 256 << 10;
    narrow.consensus_queue_bytes = 1 << 20;
    narrow.idle_timeout = Duration::from_secs(2);
    narrow.peers = vec![(NodeId(2), listener.local_addr().unwrap().to_string())];
    let a = Node::start(netio::bind(narrow).unwrap());
    // Two dials, one per lane.
    let mut deaf: Vec<ByHand> = (0..2).map(|_| ByHand::accept(&listener)).collect();
    for peer in &mut deaf {
        assert!(matches!(peer.hear(), Some(netio::handshake::Message::Hello(_))));
        peer.say(netio::handshake::Message::Hello(hello(2, 0)));
    }
    a.wait_up(2, LANE);

    let body = vec![0u8; 100 << 10];
    until("the queue is full", || a.send(2, &body) == Err(SendError::Full));
    let queued = a.handle.queued_bytes(NodeId(2), LANE);
    assert!(queued > 800 << 10 && queued <= 1 << 20, "{queued} bytes queued");
    assert_eq!(
        a.send(2, &vec![0; (256 << 10) + 1]),
        Err(SendError::TooLarge { body: (256 << 10) + 1, limit: 256 << 10 })
    );
    // A link without progress is given up, and its memory with it.
    let why = a.wait("the stalled link is down", |seen| match seen {
        Seen::Down(peer, why) if peer.lane == LANE => Some(why),
        _ => None,
    });
    assert!(why.contains("took nothing") || why.contains("timed out"), "{why}");
    assert_eq!(a.handle.queued_bytes(NodeId(2), LANE), 0);
}

#[test]
fn an_empty_queue_takes_one_frame_that_is_larger_than_it() {
    let mut small = config(1);
    small.max_frame = 1 << 20;
    small.consensus_queue_bytes = 1000;
    let nodes = together(vec![small, config(2)]);
    nodes[0].wait_up(2, LANE);
    let body = vec![7u8; 1 << 20];
    // A ping of the link's own may be in the queue at this very moment.
    let deadline = Instant::now() + Duration::from_secs(10);
    while let Err(e) = nodes[0].send(2, &body) {
        assert!(e == SendError::Full && Instant::now() < deadline, "{e}");
        std::thread::yield_now();
    }
    assert!(nodes[1].wait_frame().1.body == body);
}

#[test]
fn unknown_peers_are_an_error_of_the_sender() {
    let (a, _b) = pair();
    assert_eq!(a.send(9, b"x"), Err(SendError::UnknownPeer));
    assert_eq!(a.send(1, b"to itself"), Err(SendError::UnknownPeer));
    assert_eq!(a.send(3, b"not there"), Err(SendError::NotConnected));
}

#[test]
fn the_bulk_lane_is_another_connection() {
    let (a, b) = pair();
    a.wait_up(2, Lane::Bulk);
    a.handle.send(NodeId(2), Lane::Bulk, one(b"bulk")).unwrap();
    let (peer, frame) = b.wait_frame();
    assert_eq!((peer.lane, frame.body), (Lane::Bulk, Bytes::from_static(b"bulk")));
}

#[test]
fn quiet_links_stay_up_on_both_lanes() {
    let mut configs = vec![config(1), config(2)];
    for config in &mut configs {
        config.idle_timeout = Duration::from_millis(200);
    }
    let nodes = together(configs);
    until("all links are up", || {
        nodes.iter().all(|node| node.handle.stats().links.iter().filter(|link| link.connected).count() == 2)
    });
    let received = |node: &Node| {
        node.handle.stats().links.iter().map(|link| link.bytes_received).filter(|n| *n > 0).min()
    };
    // Ten keep-alives are more than three idle timeouts.
    until("keep-alives arrive", || nodes.iter().all(|node| received(node) >= Some(160)));
    for node in &nodes {
        let polls = node.handle.stats().polls;
        assert!(polls < 500, "a quiet loop turns {polls} times");
        for link in node.handle.stats().links.iter().filter(|link| link.connected) {
            assert_eq!((link.ups, link.frames_received), (1, 0), "{link:?}");
        }
    }
}

#[test]
fn a_name_is_looked_up() {
    let mut bound = vec![netio::bind(config(1)).unwrap(), netio::bind(config(2)).unwrap()];
    let port = bound[1].local_addr().port();
    bound[0].set_peer_address(NodeId(2), format!("localhost:{port}")).unwrap();
    let nodes: Vec<Node> = bound.into_iter().map(Node::start).collect();
    nodes[0].wait_up(2, LANE);
}

#[test]
fn a_name_without_an_address_is_reported() {
    let mut lost = config(1);
    lost.peers[1].1 = "no such name:1".to_owned();
    let node = Node::start(netio::bind(lost).unwrap());
    until("the trouble is told", || {
        let stats = node.handle.stats();
        let trouble = stats.links.iter().find(|link| link.node == NodeId(2)).unwrap().last_trouble.clone();
        trouble.is_some_and(|why| why.starts_with("no address"))
    });
}

#[test]
fn a_birth_makes_the_links_anew_and_loses_nothing_queued() {
    let mut configs = vec![config(1), config(2)];
    for config in &mut configs {
        config.identity.cluster = ClusterId(0);
    }
    let nodes = together(configs);
    let (a, b) = (&nodes[0], &nodes[1]);
    a.wait_up(2, LANE);
    b.wait_up(1, LANE);
    a.send(2, b"we are born").unwrap();
    let mut born = a.handle.identity();
    born.cluster = ClusterId(77);
    a.handle.set_identity(born.clone()).unwrap();
    assert_eq!(b.wait_frame().1.body, "we are born");
    a.wait_up(2, LANE);

    // The other one is still unborn: both go on talking.
    a.send(2, b"are you?").unwrap();
    assert_eq!(b.wait_frame().1.body, "are you?");
    let mut born = b.handle.identity();
    born.cluster = ClusterId(77);
    b.handle.set_identity(born).unwrap();
    // The link may have been made anew at the other's birth already: that one going up is not this one.
    until("its link is up again", || b.send(1, b"yes").is_ok());
    assert_eq!(a.wait_frame().1.body, "yes");
}

#[test]
fn a_node_that_is_born_elsewhere_is_cut_off() {
    let mut configs = vec![config(1), config(2)];
    configs[0].identity.cluster = ClusterId(0);
    let nodes = together(configs);
    nodes[0].wait_up(2, LANE);
    nodes[1].wait_up(1, LANE);
    let mut elsewhere = nodes[0].handle.identity();
    elsewhere.cluster = ClusterId(0xBAD);
    nodes[0].handle.set_identity(elsewhere).unwrap();
    nodes[1].wait("the link is down", |seen| matches!(seen, Seen::Down(..)).then_some(()));
    assert_eq!(nodes[0].wait_rejected().code, RefusalCode::ClusterId);
    until("no link is left", || {
        nodes
            .iter()
            .all(|node| node.handle.stats().links.iter().all(|link| !link.connected && link.receiving == 0))
    });
}

#[test]
fn a_node_remains_the_node_that_it_is() {
    let node = Node::start(netio::bind(config(1)).unwrap());
    let mut other = node.handle.identity();
    other.node = NodeId(2);
    assert_eq!(node.handle.set_identity(other), Err(netio::BadConfig::OtherNode(NodeId(1), NodeId(2))));
}

#[test]
fn a_port_in_use_is_reported_with_what_to_do() {
    let taken = netio::bind(config(1)).unwrap();
    let mut second = config(2);
    second.listen = taken.local_addr();
    let error = netio::bind(second).unwrap_err();
    assert!(matches!(error, netio::BindError::InUse(address) if address == taken.local_addr()));
    let text = error.to_string();
    for word in [&*taken.local_addr().to_string(), "another process", "peer_addr", "Nothing was started"] {
        assert!(text.contains(word), "{text}");
    }
}

#[test]
fn a_configuration_that_cannot_be_meant_is_refused() {
    let mut twice = config(1);
    twice.peers.push((NodeId(2), "127.0.0.1:5".to_owned()));
    assert_eq!(netio::bind(twice).unwrap_err().to_string(), "node 2 is listed twice");
    let mut long = config(1);
    long.identity.cluster_name = "n".repeat(256);
    assert!(netio::bind(long).is_err());
    let mut zero = config(1);
    zero.max_frame = 0;
    assert!(netio::bind(zero).is_err());
}
