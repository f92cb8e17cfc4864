//! The loop's part in connections from peers: accepting, the handshake, reading.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use groups::ids::NodeId;
use mio::Interest;
use mio::net::TcpStream;

use super::{Driver, close, inbound_token};
use crate::complaints::Who;
use crate::handshake::{Hello, Malformed, Message, Part, Refusal, RefusalCode, judge, unknown};
use crate::link::{Down, Greeting, Inbound, Phase, Progress, Receiving, tune};
use crate::{Lane, Side};

/// Connections accepted before the links have their turn again.
const ACCEPT_BUDGET: usize = 64;
/// After the system had no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Unread bytes of a replaced connection that are still delivered, in read budgets.
const LAST_READS: usize = 16;

impl Driver {
    pub(super) fn accept(&mut self) {
        for _ in 0..ACCEPT_BUDGET {
            match self.listener.accept() {
                Ok((stream, remote)) => self.accepted(stream, remote),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => {
                        self.accepting = false;
                        return;
                    }
                    io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => (),
                    _ => {
                        // No descriptor is left: the edge will not be reported again.
                        if self.complaints.first(Who::Listener, "accept", self.now).is_some() {
                            tracing::warn!(%error, "peer connections cannot be accepted now");
                        }
                        self.accepting = false;
                        let again = self.now + ACCEPT_PAUSE;
                        self.accept_again = Some(again);
                        return self.wake_at(again);
                    }
                },
            }
        }
    }

    pub(super) fn accepted(&mut self, mut stream: TcpStream, remote: SocketAddr) {
        self.shared.counters.accepted.add(1);
        // The list also has those that are through; they are skipped here.
        while self.shared.counters.greeting.get() >= self.config.max_greeting as u64 {
            let Some(oldest) = self.greetings.pop_front() else { break };
            if self.inbounds.get(&oldest).is_some_and(|link| link.receiving().is_none()) {
                self.inbound_down(oldest, Down::Evicted);
            }
        }
        self.serial += 1;
        let serial = self.serial;
        let token = inbound_token(serial);
        if let Err(error) = self.poll.registry().register(&mut stream, token, Interest::READABLE) {
            tracing::debug!(%error, "an accepted connection could not be registered");
            return;
        }
        tune(&stream, self.config.idle_timeout);
        let deadline = self.now + self.config.handshake_timeout;
        let phase = Phase::Greeting(Greeting::new(deadline));
        self.inbounds.insert(serial, Inbound { stream, remote, listed: false, ends: false, phase });
        self.shared.counters.greeting.add(1);
        self.greetings.push_back(serial);
        if self.greetings.len() > 2 * self.config.max_greeting {
            let inbounds = &self.inbounds;
            self.greetings
                .retain(|serial| inbounds.get(serial).is_some_and(|link| link.receiving().is_none()));
        }
        self.wake_at(deadline);
    }

    pub(super) fn list_readable(&mut self, serial: usize) {
        let Some(link) = self.inbounds.get_mut(&serial) else { return };
        if !link.listed {
            link.listed = true;
            let lane = link.receiving().map_or(Lane::Consensus, |receiving| receiving.peer.lane);
            self.readable[lane.index()].push_back(serial);
        }
    }

    pub(super) fn read_all(&mut self) {
        for lane in Lane::ALL {
            for _ in 0..self.readable[lane.index()].len() {
                let Some(serial) = self.readable[lane.index()].pop_front() else { break };
                self.read(serial);
            }
        }
    }

    pub(super) fn read(&mut self, serial: usize) {
        let Some(link) = self.inbounds.get_mut(&serial) else { return };
        link.listed = false;
        let Phase::Up(receiving) = &mut link.phase else { return self.greet(serial) };
        let progress = receiving.read(&mut link.stream, link.ends, self.now, &mut self.frames);
        if !self.frames.is_empty() {
            receiving.shelf.counters.frames_received.add(self.frames.len() as u64);
            self.demux.frames(&receiving.peer, &mut self.frames);
            self.frames.clear();
        }
        match progress {
            Ok(Progress::Done) => (),
            Ok(Progress::More) => self.list_readable(serial),
            Err(why) => self.inbound_down(serial, why),
        }
    }

    pub(super) fn greet(&mut self, serial: usize) {
        loop {
            let Some(link) = self.inbounds.get_mut(&serial) else { return };
            let Phase::Greeting(greeting) = &link.phase else { return };
            let introduced = greeting.hello.is_some();
            let message = match link.greet() {
                Ok(None) => return,
                Ok(Some(message)) => message,
                Err(why) => return self.inbound_down(serial, why),
            };
            match message {
                Message::Hello(hello) if !introduced => {
                    if let Err(why) = self.answer(serial, hello) {
                        return self.inbound_down(serial, why);
                    }
                }
                Message::Ready { .. } if introduced => return self.admit(serial),
                Message::Refusal(refusal) => {
                    return self.inbound_down(serial, Down::Refused(Side::Peer, refusal));
                }
                Message::Hello(_) | Message::Ready { .. } => {
                    return self.inbound_down(serial, Down::Malformed(Malformed::Field("order")));
                }
            }
        }
    }

    pub(super) fn answer(&mut self, serial: usize, hello: Hello) -> Result<(), Down> {
        let me = self.shared.identity.read().clone();
        let verdict = judge(&me, |node| self.shared.peers.knows(node), &hello, Part::Dial)
            .and_then(|_| self.seat(&hello));
        let Some(link) = self.inbounds.get_mut(&serial) else { return Ok(()) };
        let reply = Hello::new(&me, hello.lane, NodeId(0));
        if let Phase::Greeting(greeting) = &mut link.phase {
            greeting.hello = Some(hello);
        }
        match verdict {
            Ok(()) => link.say(&Message::Hello(reply)),
            Err(refusal) => Err(Down::Refused(Side::Us, refusal)),
        }
    }

    /// Whether the accepted links of that node leave a place for this one.
    pub(super) fn seat(&self, hello: &Hello) -> Result<(), Refusal> {
        let others = self.inbounds.values().filter_map(Inbound::receiving);
        for other in others.filter(|other| other.peer.node == hello.node) {
            let (node, there) = (hello.node, &other.peer);
            if there.storage != hello.storage {
                return Err(Refusal {
                    code: RefusalCode::OtherStorage,
                    reason: format!(
                        "node {node} with storage {} is connected, so node {node} with storage {} is not let \
                         in: two processes run with one --node. Stop one of them",
                        there.storage, hello.storage
                    ),
                });
            }
            if there.boot > hello.boot {
                return Err(Refusal {
                    code: RefusalCode::StaleBoot,
                    reason: format!(
                        "node {node} is connected with boot {}, this is boot {}: an older process, or an \
                         older copy of its data directory",
                        there.boot, hello.boot
                    ),
                });
            }
        }
        Ok(())
    }

    /// The handshake is complete. Another connection may have been admitted meanwhile, or the peer
    /// removed, so its place is asked for again.
    pub(super) fn admit(&mut self, serial: usize) {
        let Some(link) = self.inbounds.get(&serial) else { return };
        let Phase::Greeting(Greeting { hello: Some(hello), .. }) = &link.phase else { return };
        let hello = hello.clone();
        if let Err(refusal) = self.seat(&hello) {
            return self.inbound_down(serial, Down::Refused(Side::Us, refusal));
        }
        let Some(shelf) = self.shared.peers.shelf(hello.node, hello.lane) else {
            let refusal = unknown(self.shared.identity.read().node, hello.node);
            return self.inbound_down(serial, Down::Refused(Side::Us, refusal));
        };
        self.replace(&hello);

        let Some(link) = self.inbounds.get_mut(&serial) else { return };
        let Phase::Greeting(greeting) = &link.phase else { return };
        let node = hello.node;
        tracing::debug!(%node, lane = ?hello.lane, remote = %link.remote, "link accepted");
        link.phase = Phase::Up(Receiving::new(greeting, hello, shelf, self.now, self.config.max_frame));
        self.shared.counters.greeting.sub(1);
        self.wake_at(self.now + self.config.idle_timeout);
        self.dial_now(node);
        // The socket was not read until it would block.
        self.list_readable(serial);
    }

    /// Ends the links that a newly admitted one stands in for: the older connection of its
    /// lane, and all connections of an earlier life. What they had already brought is
    /// delivered first, because it was sent first.
    pub(super) fn replace(&mut self, hello: &Hello) {
        let replaced = |link: &Inbound| {
            link.receiving().is_some_and(|it| {
                it.peer.node == hello.node && (it.peer.lane == hello.lane || it.peer.boot < hello.boot)
            })
        };
        let old: Vec<usize> =
            self.inbounds.iter().filter(|(_, link)| replaced(link)).map(|(serial, _)| *serial).collect();
        for serial in old {
            for _ in 0..LAST_READS {
                self.read(serial);
                if !self.inbounds.get(&serial).is_some_and(|link| link.listed) {
                    break;
                }
            }
            let refusal = Refusal {
                code: RefusalCode::Replaced,
                reason: format!("a newer connection of node {} took the place", hello.node),
            };
            self.inbound_down(serial, Down::Refused(Side::Us, refusal));
        }
    }

    pub(super) fn inbound_down(&mut self, serial: usize, why: Down) {
        let Some(mut link) = self.inbounds.remove(&serial) else { return };
        let hello = match &link.phase {
            Phase::Greeting(greeting) => greeting.hello.as_ref(),
            Phase::Up(receiving) => Some(&receiving.hello),
        };
        let (node, lane) = (hello.map(|hello| hello.node), hello.map(|hello| hello.lane));
        if link.receiving().is_none() {
            self.shared.counters.greeting.sub(1);
        }
        if matches!(why, Down::Corrupt(_)) {
            self.shared.counters.corrupt.add(1);
        }
        // Whoever spoke the language so far is told why; noise is not answered.
        if let (Some(_), Some((Side::Us, refusal))) = (node, why.refusal())
            && let Err(error) = link.say(&Message::Refusal(refusal))
        {
            tracing::debug!(%error, "a refusal could not be sent");
        }
        close(&self.poll, &mut link.stream);
        let who = match node.filter(|node| self.shared.peers.knows(*node)) {
            Some(node) => Who::Node(node),
            None => Who::Address(link.remote.ip()),
        };
        self.report(who, Some(link.remote), node, lane, &why);
    }
}
