//! Which requests go out on which connection: all that fit in closed loop, all that are due in open loop.

use std::io;
use std::sync::atomic::Ordering;

use super::Worker;
use crate::connection::{Broken, OUT_LIMIT};
use crate::ledger::Request;
use crate::stats::Class;
use crate::workload::Kind;

/// Sequence numbers taken at a time.
const SEQUENCES: u64 = 1024;

impl Worker<'_> {
    /// Sends what this connection may send.
    pub(super) fn serve(&mut self, index: usize, now: u64) {
        loop {
            if !self.connections[index].is_open() {
                return;
            }
            self.resend(index, now);
            let more = if self.pace.is_none() { self.fill(index, now) } else { false };
            match self.connections[index].flush() {
                Ok(true) if more => {}
                Ok(_) => break,
                Err(Broken) => return self.lose(index, Class::Lost, now),
            }
        }
        self.list_free(index);
    }

    pub(super) fn resend(&mut self, index: usize, now: u64) {
        let connection = &mut self.connections[index];
        let mut position = 0;
        while position < connection.waiting.len() {
            if connection.waiting[position].0 > now {
                position += 1;
                continue;
            }
            let (_, mut request) = connection.waiting.swap_remove(position);
            request.sent = now;
            self.encoder.encode(&request, &mut connection.out);
            connection.under_way.push_back(request);
        }
    }

    /// Closed loop: begins requests until the pipeline is full. Whether it stopped only because much is encoded.
    pub(super) fn fill(&mut self, index: usize, now: u64) -> bool {
        if now < self.connections[index].rests_until {
            return false;
        }
        while self.connections[index].load() < self.plan.pipeline {
            if self.connections[index].out.len() >= OUT_LIMIT {
                return true;
            }
            if !self.begin_request(index, now, now) {
                return false;
            }
        }
        false
    }

    /// Begins the next request, if there is one.
    pub(super) fn begin_request(&mut self, index: usize, due: u64, now: u64) -> bool {
        if self.draining.is_some() || self.left == 0 {
            return false;
        }
        let Some((kind, key)) = self.source.next() else { return false };
        if due >= self.ledger.window.from {
            self.left -= 1;
        }
        let (kind, expected) = match self.plan.values.map(|values| values.get(key)) {
            Some(Some(known)) if kind == Kind::Cas => (kind, known),
            // There is nothing to compare with before the first value.
            _ if kind == Kind::Cas => (Kind::Put, 0),
            _ => (kind, 0),
        };
        let sequence = if matches!(kind, Kind::Put | Kind::Cas) { self.sequence() } else { 0 };
        let must_exist = kind == Kind::Get && self.plan.written.contains(key);
        self.send(
            index,
            Request {
                kind,
                key,
                sequence,
                expected,
                due,
                first_sent: now,
                sent: now,
                refusals: 0,
                must_exist,
            },
        );
        true
    }

    /// Reads the key of a lost compare-and-swap, beside the operations of the load.
    pub(super) fn learn(&mut self, index: usize, lost: &Request, now: u64) {
        if self.draining.is_some() {
            return;
        }
        let Request { key, expected, .. } = *lost;
        let (due, first_sent, sent) = (now, now, now);
        let must_exist = self.plan.written.contains(key);
        self.send(
            index,
            Request {
                kind: Kind::Learn,
                key,
                sequence: 0,
                expected,
                due,
                first_sent,
                sent,
                refusals: 0,
                must_exist,
            },
        );
    }

    fn send(&mut self, index: usize, request: Request) {
        let connection = &mut self.connections[index];
        self.encoder.encode(&request, &mut connection.out);
        connection.under_way.push_back(request);
    }

    pub(super) fn sequence(&mut self) -> u64 {
        loop {
            if let Some(sequence) = self.sequences.next() {
                return sequence;
            }
            let first = self.plan.sequences.fetch_add(SEQUENCES, Ordering::Relaxed);
            self.sequences = first..first + SEQUENCES;
        }
    }

    /// Open loop: notes that this connection can take a request.
    pub(super) fn list_free(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        if self.pace.is_some() && !connection.listed && connection.load() < self.plan.pipeline {
            connection.listed = true;
            self.free.push_back(index);
        }
    }

    /// Open loop: sends every request that is due, as far as connections are free, and sets the alarm for the next.
    pub(super) fn send_due(&mut self, now: u64) -> io::Result<()> {
        let mut used = std::mem::take(&mut self.used);
        while let Some(pace) = self.pace
            && self.draining.is_none()
        {
            if pace.due() > now {
                self.alarm.arm(pace.due(), now)?;
                break;
            }
            let Some(index) = self.free.pop_front() else { break };
            self.connections[index].listed = false;
            let connection = &self.connections[index];
            let fits = connection.is_open()
                && connection.load() < self.plan.pipeline
                && connection.out.len() < OUT_LIMIT;
            if !fits {
                continue;
            }
            if !self.begin_request(index, pace.due(), now) {
                break;
            }
            if let Some(pace) = &mut self.pace {
                pace.advance();
            }
            used.push(index);
            self.list_free(index);
        }
        for index in used.drain(..) {
            if let Err(Broken) = self.connections[index].flush() {
                self.lose(index, Class::Lost, now);
            }
        }
        self.used = used;
        Ok(())
    }
}
