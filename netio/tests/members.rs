//! Peers that come and go while the nodes run.

mod net;

use std::net::TcpListener;
use std::time::Duration;

use groups::ids::NodeId;
use net::{ByHand, Node, PATIENCE, Seen, config, hello, one, pair, together, until};
use netio::handshake::Message;
use netio::{BadConfig, Lane, LinkStats, RefusalCode, Rejection, SendError, Side};

const LANE: Lane = Lane::Consensus;

/// A node that knows nobody.
fn alone(node: u32) -> Node {
    let mut config = config(node);
    config.peers.clear();
    Node::start(netio::bind(config).unwrap())
}

fn listed(nodes: &[&Node]) -> Vec<(NodeId, String)> {
    nodes.iter().map(|node| (node.id, node.address.to_string())).collect()
}

fn link(of: &Node, to: u32, lane: Lane) -> LinkStats {
    let links = of.handle.stats().links;
    links.into_iter().find(|link| link.node == NodeId(to) && link.lane == lane).expect("a peer")
}

fn connected(a: &Node, b: &Node) -> bool {
    let sends = |from: &Node, to: &Node, lane| from.handle.is_connected(to.id, lane);
    Lane::ALL.into_iter().all(|lane| sends(a, b, lane) && sends(b, a, lane))
}

fn expect_exchange(a: &Node, b: &Node, word: &[u8]) {
    for (from, to) in [(a, b), (b, a)] {
        from.send(to.id.0, word).unwrap();
        to.wait("the word", |seen| match seen {
            Seen::Frames(peer, frames) if peer.node == from.id => {
                frames.iter().any(|frame| frame.body == word).then_some(())
            }
            _ => None,
        });
    }
}

fn expect_unknown(rejection: &Rejection, by: Side, node: u32) {
    assert_eq!((rejection.code, rejection.by), (RefusalCode::UnknownNode, by), "{rejection:?}");
    let words = format!("node {node} is not (or no longer) a member of this cluster");
    assert!(rejection.reason.contains(&words), "{}", rejection.reason);
}

#[test]
fn a_peer_is_added_and_frames_flow_both_ways() {
    let (a, b) = (alone(1), alone(2));
    assert_eq!(a.send(2, b"too early"), Err(SendError::UnknownPeer));
    // Its own entry is ignored, as in a configuration.
    a.handle.set_peers(listed(&[&a, &b])).unwrap();
    expect_unknown(&a.wait_rejected(), Side::Peer, 1);
    b.handle.set_peers(listed(&[&a, &b])).unwrap();
    until("both are connected", || connected(&a, &b));
    expect_exchange(&a, &b, b"welcome");
    assert_eq!(a.handle.stats().links.len(), 2);
    assert_eq!(a.send(1, b"to itself"), Err(SendError::UnknownPeer));
}

#[test]
fn a_removed_peer_is_told_so_and_frames_stop_both_ways() {
    let (a, b) = pair();
    until("both are connected", || connected(&a, &b));
    expect_exchange(&a, &b, b"before");
    let ups = link(&b, 1, LANE).ups;

    a.send(2, b"the last word").unwrap();
    a.handle.set_peers(listed(&[&a])).unwrap();
    assert_eq!(a.send(2, b"x"), Err(SendError::UnknownPeer));
    assert!(!a.handle.is_connected(NodeId(2), LANE));
    assert_eq!(a.handle.queued_bytes(NodeId(2), LANE), 0);
    assert_eq!(a.handle.stats().links, []);

    assert_eq!(b.wait_frame().1.body, "the last word");
    let why = a.wait("link down", |seen| match seen {
        Seen::Down(peer, why) if peer.node == NodeId(2) => Some(why),
        _ => None,
    });
    assert!(why.contains("not (or no longer) a member"), "{why}");
    let rejection = a.wait_rejected();
    expect_unknown(&rejection, Side::Us, 2);
    assert_eq!(rejection.node, Some(NodeId(2)));
    expect_unknown(&b.wait_rejected(), Side::Peer, 2);
    until("nothing is sent", || b.send(1, b"x") == Err(SendError::NotConnected));

    // It goes on asking and is told the same.
    while !a.seen.is_empty() {
        a.seen.try_recv().unwrap();
    }
    for _ in 0..4 {
        a.wait("a rejection and nothing else", |seen| match seen {
            Seen::Rejected(rejection) => {
                expect_unknown(&rejection, Side::Us, 2);
                Some(())
            }
            other => panic!("{other:?}"),
        });
    }
    assert_eq!(link(&b, 1, LANE).ups, ups);
    assert_eq!(link(&b, 1, LANE).receiving, 0);
}

#[test]
fn a_peer_that_is_removed_inside_its_handshake_is_not_let_in() {
    let node = Node::start(netio::bind(config(1)).unwrap());
    let mut peer = ByHand::dial(node.address);
    peer.say(Message::Hello(hello(2, 1)));
    assert!(matches!(peer.hear(), Some(Message::Hello(_))));
    node.handle.set_peers(Vec::new()).unwrap();
    let Some(Message::Refusal(refusal)) = peer.hear() else { panic!("no reason was given") };
    assert_eq!(refusal.code, RefusalCode::UnknownNode);
    until("nobody is greeting", || node.handle.stats().greeting == 0);
}

#[test]
fn another_address_is_dialled_and_accepted_links_stay() {
    let (a, b) = pair();
    until("both are connected", || connected(&a, &b));
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = elsewhere.local_addr().unwrap().to_string();
    a.handle.set_peers(vec![(NodeId(2), address)]).unwrap();
    let why = a.wait("link down", |seen| if let Seen::Down(_, why) = seen { Some(why) } else { None });
    assert!(why.contains("another address"), "{why}");
    for _ in Lane::ALL {
        let mut dialled = ByHand::accept(&elsewhere);
        assert!(matches!(dialled.hear(), Some(Message::Hello(hello)) if hello.expects == NodeId(2)));
    }
    b.send(1, b"undisturbed").unwrap();
    assert_eq!(a.wait_frame().1.body, "undisturbed");

    a.handle.set_peers(listed(&[&b])).unwrap();
    until("both are connected", || connected(&a, &b));
    expect_exchange(&a, &b, b"at home");
    for lane in Lane::ALL {
        assert_eq!((link(&b, 1, lane).ups, link(&a, 2, lane).ups), (1, 2));
    }
}

#[test]
fn peers_that_stay_keep_their_links_and_lose_nothing() {
    let nodes = together(vec![config(1), config(2), config(3)]);
    let [a, b, c] = &nodes[..] else { panic!("three nodes") };
    until("all are connected", || connected(a, b) && connected(a, c) && connected(b, c));
    let count = 20_000u32;
    std::thread::scope(|scope| {
        for (from, to) in [(a, b), (b, a)] {
            scope.spawn(move || {
                for n in 0..count {
                    while let Err(error) = from.handle.send(to.id, LANE, one(&n.to_le_bytes())) {
                        assert_eq!(error, SendError::Full);
                        std::thread::yield_now();
                    }
                }
            });
            scope.spawn(move || {
                let mut next = 0u32;
                while next < count {
                    let bodies = to.wait("frames", |seen| match seen {
                        Seen::Frames(peer, frames) if peer.node == from.id => Some(frames),
                        Seen::Down(peer, why) if peer.node == from.id => panic!("link down: {why}"),
                        _ => None,
                    });
                    for frame in bodies {
                        assert_eq!(frame.body, next.to_le_bytes()[..], "a frame was lost");
                        next += 1;
                    }
                }
            });
        }
        scope.spawn(|| {
            for round in 0..100 {
                // Node 3 comes and goes, and with it one that was never there, in another order.
                let mut list = listed(&[b, a]);
                if round % 2 == 0 {
                    list.push((NodeId(1000 + round), "127.0.0.1:1".to_owned()));
                    list.insert(0, (c.id, c.address.to_string()));
                }
                a.handle.set_peers(list.clone()).unwrap();
                list.reverse();
                b.handle.set_peers(list).unwrap();
            }
        });
    });
    for (from, to) in [(a, b), (b, a)] {
        for lane in Lane::ALL {
            let link = link(from, to.id.0, lane);
            assert_eq!((link.ups, link.connected, link.receiving), (1, true, 1), "{link:?}");
        }
        assert_eq!(from.handle.stats().links.len(), 2);
    }
}

#[test]
fn a_peer_is_removed_and_added_many_times() {
    let (a, b) = pair();
    let named = vec![(NodeId(2), format!("localhost:{}", b.address.port()))];
    for round in 0..60u32 {
        a.handle.set_peers(Vec::new()).unwrap();
        assert_eq!(a.send(2, b"x"), Err(SendError::UnknownPeer));
        if round % 3 == 0 {
            until("the loop has seen it", || link(&b, 1, LANE).receiving == 0);
        }
        // Sometimes a look-up or a dial is under way when the peer is removed.
        if round % 4 == 0 {
            a.handle.set_peers(named.clone()).unwrap();
            a.handle.set_peers(Vec::new()).unwrap();
        }
        a.handle.set_peers(listed(&[&b])).unwrap();
        if round % 2 == 0 {
            let (there, back) = (a.handle.clone(), b.handle.clone());
            until("frames flow both ways", || {
                let word = round.to_le_bytes();
                there.send(NodeId(2), LANE, one(&word)).is_ok()
                    && back.send(NodeId(1), LANE, one(&word)).is_ok()
            });
        }
    }
    until("both are connected", || {
        let settled =
            |from: &Node, to: u32| Lane::ALL.iter().all(|lane| link(from, to, *lane).receiving == 1);
        connected(&a, &b) && settled(&a, 2) && settled(&b, 1)
    });
    expect_exchange(&a, &b, b"still here");
    assert!(link(&a, 2, LANE).ups <= 2, "the counters of the last stay: {:?}", link(&a, 2, LANE));
}

#[test]
fn a_list_that_cannot_be_meant_changes_nothing() {
    let (a, b) = pair();
    until("both are connected", || connected(&a, &b));
    let nowhere = |n| (NodeId(n), "127.0.0.1:1".to_owned());
    let set = |list: Vec<(NodeId, String)>| a.handle.set_peers(list);
    assert_eq!(set(vec![nowhere(5), nowhere(4), nowhere(5)]), Err(BadConfig::DuplicatePeer(NodeId(5))));
    assert_eq!(set(vec![nowhere(4), nowhere(0)]), Err(BadConfig::NodeZero));
    let long = set((1..=4097).map(nowhere).collect());
    assert_eq!(long, Err(BadConfig::Range("the number of peers", 0, 4096)));
    let peers: Vec<NodeId> = a.handle.stats().links.iter().map(|link| link.node).collect();
    assert_eq!(peers, [2, 2, 3, 3].map(NodeId));
    expect_exchange(&a, &b, b"as before");
    assert_eq!((link(&a, 2, LANE).ups, link(&b, 1, LANE).ups), (1, 1));
}

#[test]
fn the_longest_list_comes_and_goes() {
    let (a, b) = pair();
    until("both are connected", || connected(&a, &b));
    for first in [2, 3, 2] {
        // None of the others was on the list before.
        let mut list = listed(&[&b]);
        list.extend((10_000 * first..).take(4095).map(|n| (NodeId(n), "no such name:1".to_owned())));
        a.handle.set_peers(list).unwrap();
        assert_eq!(a.handle.stats().links.len(), 2 * 4096);
    }
    a.handle.set_peers(listed(&[&b])).unwrap();
    expect_exchange(&a, &b, b"undisturbed");
    assert_eq!(link(&a, 2, LANE).ups, 1);
}

/// The other peer, which ends every connection, shows how often it would be tried otherwise.
#[test]
fn a_node_that_is_unknown_waits_for_the_longest_pause() {
    let a = alone(1);
    let closing = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut eager = config(2);
    (eager.backoff_min, eager.backoff_max) = (Duration::from_millis(1), PATIENCE * 10);
    eager.peers = listed(&[&a]);
    let b = Node::start(netio::bind(eager).unwrap());
    for _ in Lane::ALL {
        expect_unknown(&b.wait_rejected(), Side::Peer, 2);
    }
    let mut both = listed(&[&a]);
    both.push((NodeId(3), closing.local_addr().unwrap().to_string()));
    b.handle.set_peers(both).unwrap();
    for _ in 0..12 {
        drop(closing.accept().unwrap());
    }
    assert_eq!(a.handle.stats().accepted, 2);

    // Nobody waits for the end of the pause.
    a.handle.set_peers(listed(&[&b])).unwrap();
    until("both are connected", || connected(&a, &b));
    assert_eq!(a.handle.stats().accepted, 4);
}
