//! What a state has beside its items: the group's clock, the cluster's roll, the clients' requests
//! and the session table, as one piece of bytes. The checkpoint formats carry it as they carried the
//! session table alone, which it still is where there is nothing else.
//!
//! ```text
//! 01 …                                              the session table, see `session.rs`
//! 02 clock:u64 length:u32 clients 01 …              the clients' table (`once.rs`) in front of it
//! 03 version:u64 length:u32 roll  02 … or 01 …      the roll (`roll.rs`) in front of that
//! ```

use bytes::{Buf, BufMut, Bytes};

use super::command::put_sized;
use super::once::Clients;
use super::roll::Roll;
use super::session::Sessions;

const CLIENTS: u8 = 2;
const ROLL: u8 = 3;

/// It, read.
#[derive(Debug, Default)]
pub struct Beside {
    /// The group's clock in milliseconds.
    pub clock: u64,
    /// The cluster's roll, in the group that keeps it.
    pub roll: Roll,
    /// What clients have numbered themselves.
    pub clients: Clients,
    /// The session table.
    pub sessions: Sessions,
}

/// Writes it.
#[must_use]
pub fn encode(clock: u64, roll: &Roll, clients: &Clients, sessions: &Sessions) -> Bytes {
    let sessions = sessions.encode();
    let timed = clock != 0 || !clients.is_empty();
    if !timed && roll.version == 0 {
        return sessions;
    }
    let mut out = Vec::with_capacity(64 + roll.bytes.len() + sessions.len());
    if roll.version != 0 {
        out.put_u8(ROLL);
        roll.encode(&mut out);
    }
    if timed {
        out.put_u8(CLIENTS);
        out.put_u64_le(clock);
        put_sized(&mut out, |out| clients.encode(out));
    }
    out.put_slice(&sessions);
    Bytes::from(out)
}

/// Reads what [`encode`] wrote; `None` for anything else.
#[must_use]
pub fn decode(mut bytes: Bytes) -> Option<Beside> {
    let mut beside = Beside::default();
    if bytes.first() == Some(&ROLL) {
        bytes.advance(1);
        beside.roll = Roll::decode(&mut bytes).filter(|roll| roll.version != 0)?;
    }
    if bytes.first() == Some(&CLIENTS) {
        bytes.advance(1);
        beside.clock = bytes.try_get_u64_le().ok()?;
        let length = bytes.try_get_u32_le().ok()? as usize;
        if length > bytes.len() {
            return None;
        }
        beside.clients = Clients::decode(bytes.split_to(length))?;
    }
    beside.sessions = Sessions::decode(bytes)?;
    Some(beside)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::Outcome;
    use crate::kv::once::Req;

    #[test]
    fn it_survives_its_bytes_and_a_bare_session_table_is_one_too() {
        let (sessions, none) = (Sessions::default(), Roll::default());
        let bare = encode(0, &none, &Clients::default(), &sessions);
        assert_eq!(bare, sessions.encode(), "what was written before there was a clock");
        let Beside { clock, roll, clients, .. } = decode(bare).expect("its own bytes");
        assert!(clock == 0 && clients.is_empty() && roll == none);

        let mut clients = Clients::default();
        let req = Req { client: Bytes::from_static(b"c"), seq: 1, print: 2 };
        clients.record(&req, &Outcome::Integer(3), 4);
        for roll in [none, Roll { version: 7, bytes: Bytes::from_static(b"who is there") }] {
            let bytes = encode(5, &roll, &clients, &sessions);
            let mut back = decode(bytes.clone()).expect("its own bytes");
            assert_eq!((back.clock, back.clients.admit(&req, 5)), (5, Some(Outcome::Integer(3))));
            assert_eq!(back.roll, roll);
            for length in 0..bytes.len() {
                assert!(decode(bytes.slice(..length)).is_none(), "cut to {length}");
            }
            assert!(decode(Bytes::from([&bytes[..], &[0]].concat())).is_none());
        }
        let roll = Roll { version: 1, bytes: Bytes::new() };
        let back = decode(encode(0, &roll, &Clients::default(), &sessions)).expect("its own bytes");
        assert_eq!(back.roll, roll);
    }
}
