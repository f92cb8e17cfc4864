//! The loop's part in connections to peers: dialling, the handshake, writing.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use groups::ids::NodeId;
use mio::Interest;
use mio::event::Event;
use mio::net::TcpStream;

use super::{Driver, close, keep_alive_interval, outbound_token};
use crate::Side;
use crate::complaints::Who;
use crate::dial::{Resolver, numeric};
use crate::handshake::{Hello, Message, Part, Refusal, RefusalCode, judge};
use crate::link::{Dialled, Down, Inbound, Progress, Stage, tune};

impl Driver {
    /// That node has just dialled this one, so it is there: no need to wait any longer.
    pub(super) fn dial_now(&mut self, node: NodeId) {
        let now = self.now;
        for it in self.outbounds.of_node(node).filter(|it| it.conn.is_none() && !it.resolving) {
            it.next = now;
        }
        self.wake_at(now);
    }

    pub(super) fn dial(&mut self, link: usize) {
        let deadline = self.now + self.config.handshake_timeout;
        self.dials += 1;
        let it = &mut self.outbounds[link];
        it.dial = self.dials;
        if let Some(address) = numeric(&it.address) {
            return self.connect(link, address);
        }
        it.resolving = true;
        it.next = deadline;
        if self.resolver.is_none() {
            match Resolver::start(self.shared.clone()) {
                Ok(resolver) => self.resolver = Some(resolver),
                Err(error) => return self.outbound_down(link, Down::NoAddress(error.to_string())),
            }
        }
        let it = &self.outbounds[link];
        if !self.resolver.as_ref().is_some_and(|resolver| resolver.ask(link, it.dial, &it.address)) {
            return self.outbound_down(link, Down::NoAddress("too many look-ups wait".to_owned()));
        }
        self.wake_at(deadline);
    }

    pub(super) fn on_resolved(&mut self, link: usize, dial: usize, addresses: io::Result<Vec<SocketAddr>>) {
        // The answer may come late: after another dial, or for a peer that is none any more.
        let awaited = self.outbounds.get(link).is_some_and(|it| it.resolving && it.dial == dial);
        if !awaited || self.stopping {
            return;
        }
        let it = &mut self.outbounds[link];
        it.resolving = false;
        match addresses {
            // Every attempt takes the next address of the name.
            Ok(all) if !all.is_empty() => {
                let address = all[it.attempt as usize % all.len()];
                self.connect(link, address);
            }
            Ok(_) => self.outbound_down(link, Down::NoAddress("the name has none".to_owned())),
            Err(error) => self.outbound_down(link, Down::NoAddress(error.to_string())),
        }
    }

    pub(super) fn connect(&mut self, link: usize, address: SocketAddr) {
        let it = &mut self.outbounds[link];
        let token = outbound_token(link, it.dial);
        let stream = TcpStream::connect(address).and_then(|mut stream| {
            // WRITABLE tells that the connection stands; it is taken back then.
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut stream, token, interest)?;
            Ok(stream)
        });
        match stream {
            Ok(stream) => {
                tune(&stream, self.config.idle_timeout);
                let limit = self.config.handshake_timeout;
                let conn = Dialled::new(stream, token, address, self.now, limit);
                let deadline = conn.deadline;
                it.conn = Some(conn);
                self.wake_at(deadline);
            }
            Err(error) => self.outbound_down(link, Down::Unreachable(error)),
        }
    }

    pub(super) fn on_outbound_event(&mut self, link: usize, event: &Event) {
        let it = &mut self.outbounds[link];
        let Some(conn) = &mut it.conn else { return };
        if conn.stage == Stage::Connecting {
            match conn.connected(&it.shelf, self.poll.registry()) {
                None => return,
                Some(Err(error)) => return self.outbound_down(link, Down::Unreachable(error)),
                Some(Ok(())) => {
                    let hello = Hello::new(&self.shared.identity.read(), it.lane, it.node);
                    conn.say(&Message::Hello(hello), &it.shelf);
                    conn.stage = Stage::Greeting;
                    self.write(link);
                }
            }
        } else if event.is_writable() {
            match conn.unblock(&it.shelf, self.poll.registry()) {
                Ok(()) => self.write(link),
                Err(error) => return self.outbound_down(link, Down::Io(error)),
            }
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            self.listen(link);
        }
    }

    /// Reads what the acceptor says, until the socket would block.
    pub(super) fn listen(&mut self, link: usize) {
        while let Some(conn) = &mut self.outbounds[link].conn {
            match conn.listen() {
                Ok(Some(message)) => self.on_answer(link, message),
                Ok(None) => return,
                Err(why) => return self.outbound_down(link, why),
            }
        }
    }

    pub(super) fn on_answer(&mut self, link: usize, message: Message) {
        let it = &mut self.outbounds[link];
        let Some(conn) = &mut it.conn else { return };
        match message {
            Message::Refusal(refusal) => self.outbound_down(link, Down::Refused(Side::Peer, refusal)),
            Message::Hello(hello) if conn.stage == Stage::Greeting => {
                let part = Part::Answer(it.node);
                let verdict =
                    judge(&self.shared.identity.read(), |node| self.shared.peers.knows(node), &hello, part);
                match verdict {
                    Ok(protocol) => self.outbound_up(link, &hello, protocol),
                    Err(refusal) => {
                        conn.say(&Message::Refusal(refusal.clone()), &it.shelf);
                        self.write(link);
                        self.outbound_down(link, Down::Refused(Side::Us, refusal));
                    }
                }
            }
            Message::Hello(_) | Message::Ready { .. } => self.outbound_down(link, Down::Unexpected),
        }
    }

    pub(super) fn outbound_up(&mut self, link: usize, hello: &Hello, protocol: u16) {
        let now = self.now;
        let it = &mut self.outbounds[link];
        let Some(conn) = &mut it.conn else { return };
        let peer = hello.peer();
        conn.say(&Message::Ready { protocol }, &it.shelf);
        conn.stage = Stage::Up(peer);
        conn.up_since = now;
        it.shelf.counters.ups.add(1);
        *it.shelf.counters.last_trouble.lock() = None;
        it.shelf.queue.open();
        tracing::info!(node = %it.node, lane = ?it.lane, remote = %conn.remote, boot = %peer.boot, "link up");
        self.wake_at(now + keep_alive_interval(self.config.idle_timeout));
        self.demux.link_up(&peer);
        self.write(link);
    }

    pub(super) fn outbound_down(&mut self, link: usize, why: Down) {
        let unwelcome = self.is_unwelcome(link, &why);
        let it = &mut self.outbounds[link];
        let conn = it.conn.take();
        it.shelf.disconnect();
        it.resolving = false;
        it.more = false;
        let mut remote = None;
        let mut was_up = None;
        if let Some(mut conn) = conn {
            remote = Some(conn.remote);
            if let Stage::Up(peer) | Stage::Draining(peer) = conn.stage {
                was_up = Some(peer);
            }
            // A connection that did not last does not make the next dial sooner.
            if was_up.is_some() && self.now - conn.up_since >= self.config.backoff_max {
                it.attempt = 0;
            }
            close(&self.poll, &mut conn.stream);
        }
        *it.shelf.counters.last_trouble.lock() = Some(why.to_string());
        let pause = match why {
            Down::Renewed | Down::Moved => {
                it.attempt = 0;
                Duration::ZERO
            }
            // It would hear the same again until somebody adds it, and is dialled then.
            _ if unwelcome => self.jitter.backoff(0, self.config.backoff_max, self.config.backoff_max),
            _ => self.jitter.backoff(it.attempt, self.config.backoff_min, self.config.backoff_max),
        };
        it.attempt = it.attempt.saturating_add(1);
        it.next = self.now + pause;
        let (node, lane, next) = (it.node, it.lane, it.next);
        self.wake_at(next);

        if let Some(peer) = was_up {
            self.demux.link_down(&peer, &why.to_string());
        }
        self.report(Who::Node(node), remote, Some(node), Some(lane), &why);
    }

    /// The other end does not take this node for a peer, and does not dial it either: if it does,
    /// it has learned of this node in between.
    fn is_unwelcome(&self, link: usize, why: &Down) -> bool {
        let Down::Refused(Side::Peer, Refusal { code: RefusalCode::UnknownNode, .. }) = why else {
            return false;
        };
        let node = self.outbounds[link].node;
        !self.inbounds.values().filter_map(Inbound::receiving).any(|it| it.peer.node == node)
    }

    pub(super) fn write_all(&mut self) {
        for turn in 0..self.outbounds.len() {
            let link = self.outbounds.at(turn);
            if self.outbounds[link].wants_turn() {
                self.write(link);
            }
        }
        if self
            .outbounds
            .iter()
            .any(|it| matches!(&it.conn, Some(conn) if matches!(conn.stage, Stage::Draining(_))))
        {
            self.end_drained();
        }
    }

    pub(super) fn write(&mut self, link: usize) {
        let it = &mut self.outbounds[link];
        let Some(conn) = &mut it.conn else { return };
        it.more = false;
        match conn.flush(&it.shelf, self.poll.registry()) {
            Ok(Progress::More) => it.more = true,
            Ok(Progress::Done) => {
                if let Some(since) = conn.stalled_since(&it.shelf) {
                    let deadline = since + self.config.idle_timeout;
                    self.wake_at(deadline);
                }
            }
            Err(error) => self.outbound_down(link, Down::Io(error)),
        }
    }
}
