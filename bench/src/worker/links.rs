//! Connections that come and go.

use std::io;

use mio::{Events, Token};

use super::{ALARM, TICK, Worker, backoff};
use crate::connection::{Broken, Connection};
use crate::stats::Class;

/// Time to get the first connections.
const CONNECT: u64 = 5_000_000_000;
/// A handshake that takes longer is tried elsewhere.
const DIAL: u64 = 2_000_000_000;

impl Worker<'_> {
    /// Connects everything. Whether at least one connection stands when all do or the time is up.
    pub(super) fn connect(&mut self) -> io::Result<bool> {
        let mut events = Events::with_capacity(1024);
        let mut now = self.plan.clock.now();
        let deadline = now + CONNECT;
        for connection in 0..self.connections.len() {
            self.dial(connection, now);
        }
        while now < deadline && self.connections.iter().any(|connection| !connection.is_open()) {
            self.poll_until(&mut events, deadline.min(now + TICK))?;
            now = self.plan.clock.now();
            for event in &events {
                if event.token() != ALARM && (event.is_writable() || event.is_error()) {
                    self.settle_dial(event.token().0, now);
                }
            }
            self.redial(now);
        }
        Ok(self.connections.iter().any(Connection::is_open))
    }

    /// Gives up connections whose oldest request got no reply in time.
    pub(super) fn expire(&mut self, now: u64) {
        for index in 0..self.connections.len() {
            let oldest = self.connections[index].under_way.front().map(|request| request.sent);
            if oldest.is_some_and(|sent| now.saturating_sub(sent) > self.plan.timeout) {
                self.lose(index, Class::Timeout, now);
            }
        }
    }

    /// Closes a connection; what was under way on it has no outcome.
    pub(super) fn lose(&mut self, index: usize, class: Class, now: u64) {
        let connection = &mut self.connections[index];
        connection.hang_up();
        connection.failures += 1;
        connection.address = (connection.address + 1) % self.plan.addresses.len();
        connection.dialled = now;
        for _ in 0..connection.under_way.len() {
            let Some(request) = self.connections[index].under_way.front_mut() else { break };
            let settled = self.ledger.no_reply(index, request, class, now);
            self.settled(index, settled, now);
        }
    }

    pub(super) fn dial(&mut self, index: usize, now: u64) {
        let connection = &mut self.connections[index];
        let to = self.plan.addresses[connection.address];
        if connection.dial(to, self.poll.registry(), Token(index), now).is_err() {
            self.lose(index, Class::Lost, now);
        }
    }

    /// Whether the connection stands now.
    pub(super) fn settle_dial(&mut self, index: usize, now: u64) -> bool {
        match self.connections[index].settle_dial() {
            Ok(open) => open,
            Err(Broken) => {
                self.lose(index, Class::Lost, now);
                false
            }
        }
    }

    /// Tries again where a connection failed, after a pause that grows, and elsewhere where a handshake hangs.
    pub(super) fn redial(&mut self, now: u64) {
        for index in 0..self.connections.len() {
            let connection = &self.connections[index];
            let since = now.saturating_sub(connection.dialled);
            if connection.is_dialled() {
                if !connection.is_open() && since > DIAL {
                    self.lose(index, Class::Lost, now);
                }
            } else if since >= backoff(connection.failures) {
                self.dial(index, now);
            }
        }
    }
}
