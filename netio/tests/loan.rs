//! The loop on a thread that is not its own, sleeping on its descriptor as a runtime would.

mod net;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use net::{Node, config, one, pair, until};
use netio::{Lane, Loan};

/// A thread that runs a borrowed loop: edge-triggered, and asleep whenever the loan says that it may be.
struct Borrower {
    thread: JoinHandle<u64>,
    over: Arc<AtomicBool>,
    waker: Waker,
}

impl Borrower {
    fn of(mut loan: Loan) -> Borrower {
        use std::os::fd::AsRawFd;
        let mut poll = Poll::new().unwrap();
        let waker = Waker::new(poll.registry(), Token(1)).unwrap();
        poll.registry().register(&mut SourceFd(&loan.as_raw_fd()), Token(0), Interest::READABLE).unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let ends = over.clone();
        let thread = std::thread::spawn(move || {
            let (mut events, mut turns) = (Events::with_capacity(8), 0);
            while !ends.load(Ordering::SeqCst) {
                let due = loan.turn();
                turns += 1;
                poll.poll(&mut events, Some(due.saturating_duration_since(Instant::now()))).unwrap();
            }
            poll.registry().deregister(&mut SourceFd(&loan.as_raw_fd())).unwrap();
            turns
        });
        Borrower { thread, over, waker }
    }

    /// Gives the loop back; returns how many turns it had.
    fn end(self) -> u64 {
        self.over.store(true, Ordering::SeqCst);
        self.waker.wake().unwrap();
        self.thread.join().unwrap()
    }
}

/// Both say numbers to each other and hear them in order.
fn converse(a: &Node, b: &Node, from: u32) {
    for n in from..from + 200 {
        for (node, to) in [(a, b), (b, a)] {
            // A body too large for the buffers of a socket leaves a rest to the loop.
            let mut body = n.to_le_bytes().to_vec();
            body.resize(if n % 50 == 0 { 1 << 20 } else { 20 }, 7);
            until("the queue takes it", || node.handle.send(to.id, Lane::Consensus, one(&body)).is_ok());
            let (_, frame) = to.wait_frame();
            assert_eq!(frame.body[..4], n.to_le_bytes(), "in order");
            assert_eq!(frame.body.len(), body.len());
        }
    }
}

fn up() -> (Node, Node) {
    let (a, b) = pair();
    a.wait_up(2, Lane::Consensus);
    b.wait_up(1, Lane::Consensus);
    (a, b)
}

#[test]
fn frames_come_in_order_whoever_runs_the_loop() {
    let (a, b) = up();
    converse(&a, &b, 0);
    let first = Borrower::of(b.lend());
    converse(&a, &b, 200);
    assert!(first.end() > 0);
    converse(&a, &b, 400);
    let (second, other) = (Borrower::of(b.lend()), Borrower::of(a.lend()));
    converse(&a, &b, 600);
    second.end();
    other.end();
    converse(&a, &b, 800);
}

/// A borrowed loop that has nothing to do is not turned: only its timers, a few times a second.
#[test]
fn a_borrowed_loop_sleeps() {
    let (a, b) = up();
    let borrower = Borrower::of(b.lend());
    converse(&a, &b, 0);
    let before = b.handle.stats().polls;
    let begun = Instant::now();
    until("a while has passed", || begun.elapsed() >= Duration::from_millis(500));
    let turns = b.handle.stats().polls - before;
    assert!(turns < 50, "{turns} turns in half a second of rest");
    borrower.end();
}

/// Peers that are added, and links that go down and come back, are the loop's business on any thread.
#[test]
fn links_are_made_anew_by_a_borrower() {
    let (a, b) = up();
    let borrower = Borrower::of(b.lend());
    let port = a.address;
    a.stop();
    until("it is gone", || !b.handle.is_connected(groups::ids::NodeId(1), Lane::Consensus));
    let mut again = config(1);
    again.listen = port;
    let mut bound = netio::bind(again).unwrap();
    bound.set_peer_address(b.id, b.address.to_string()).unwrap();
    let a = Node::start(bound);
    a.wait_up(2, Lane::Consensus);
    until("it is back", || b.handle.is_connected(groups::ids::NodeId(1), Lane::Consensus));
    converse(&a, &b, 0);
    borrower.end();
}

/// Who is told to end while the loop is lent ends when it has come back, with everything written.
#[test]
fn the_end_comes_behind_the_loan() {
    let (a, b) = up();
    let borrower = Borrower::of(b.lend());
    b.send(1, b"last words").unwrap();
    b.handle.shutdown();
    assert_eq!(a.wait_frame().1.body[..], b"last words"[..]);
    borrower.end();
    b.stop();
}
