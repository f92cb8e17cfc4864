//! What a state has beside its items: the cluster's roll, the group's clock, the clients' requests,
//! the fences and the session table, as one piece of bytes. The checkpoint formats carry it as they
//! carried the session table alone, which it still is where there is nothing else.
//!
//! ```text
//! 01 …                                            the session table, see `session.rs`
//! 02 clock:u64 length:u32 clients 01 …            the clients' table (`once.rs`) in front of it
//! 03 clock:u64 length:u32 clients
//!              length:u32 fences 01 …             and the fences (`fence.rs`), where there are any
//! 04 version:u64 length:u32 roll 01 … or more        the roll (`roll.rs`) in front of all that
//! ```

use bytes::{Buf, BufMut, Bytes};

use super::command::{put_sized, take_sized};
use super::fence::Fences;
use super::once::Clients;
use super::roll::Roll;
use super::session::Sessions;

const WITH_CLIENTS: u8 = 2;
const WITH_FENCES: u8 = 3;
const WITH_ROLL: u8 = 4;

/// All of it.
#[derive(Debug, Default)]
pub struct Beside {
    /// The cluster's roll, in the group that keeps it.
    pub roll: Roll,
    /// The group's clock, milliseconds.
    pub clock: u64,
    /// What clients have numbered.
    pub clients: Clients,
    /// The largest tokens that keys were written with.
    pub fences: Fences,
    /// What nodes have numbered.
    pub sessions: Sessions,
}

/// Writes it.
#[must_use]
pub fn encode(roll: &Roll, clock: u64, clients: &Clients, fences: &Fences, sessions: &Sessions) -> Bytes {
    let sessions = sessions.encode();
    let timed = clock != 0 || !clients.is_empty() || !fences.is_empty();
    if !timed && roll.version == 0 {
        return sessions;
    }
    let mut out = Vec::with_capacity(64 + roll.bytes.len() + sessions.len());
    if roll.version != 0 {
        out.put_u8(WITH_ROLL);
        roll.encode(&mut out);
    }
    if timed {
        out.put_u8(if fences.is_empty() { WITH_CLIENTS } else { WITH_FENCES });
        out.put_u64_le(clock);
        put_sized(&mut out, |out| clients.encode(out));
    }
    if !fences.is_empty() {
        put_sized(&mut out, |out| fences.encode(out));
    }
    out.put_slice(&sessions);
    Bytes::from(out)
}

/// Reads what [`encode`] wrote; `None` for anything else.
#[must_use]
pub fn decode(mut bytes: Bytes) -> Option<Beside> {
    let mut beside = Beside::default();
    if bytes.first() == Some(&WITH_ROLL) {
        bytes.advance(1);
        beside.roll = Roll::decode(&mut bytes).filter(|roll| roll.version != 0)?;
    }
    let version = *bytes.first()?;
    if matches!(version, WITH_CLIENTS | WITH_FENCES) {
        bytes.advance(1);
        beside.clock = bytes.try_get_u64_le().ok()?;
        beside.clients = Clients::decode(take_sized(&mut bytes)?)?;
    }
    if version == WITH_FENCES {
        beside.fences = Fences::decode(take_sized(&mut bytes)?).filter(|fences| !fences.is_empty())?;
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
        let (sessions, nobody, none) = (Sessions::default(), Clients::default(), Roll::default());
        let bare = encode(&none, 0, &nobody, &Fences::default(), &sessions);
        assert_eq!(bare, sessions.encode(), "what was written before there was a clock");
        let read = decode(bare).expect("its own bytes");
        assert!(read.clock == 0 && read.clients.is_empty() && read.fences.is_empty() && read.roll == none);

        let mut clients = Clients::default();
        let req = Req { client: Bytes::from_static(b"c"), seq: 1, print: 2 };
        clients.record(&req, &Outcome::Integer(3), 4);
        let mut fences = Fences::default();
        fences.raise(b"k", 7, 5);
        for roll in [none, Roll { version: 7, bytes: Bytes::from_static(b"who is there") }] {
            for (fences, token) in [(&Fences::default(), 0), (&fences, 7)] {
                let bytes = encode(&roll, 5, &clients, fences, &sessions);
                let mut read = decode(bytes.clone()).expect("its own bytes");
                assert_eq!((read.clock, read.clients.admit(&req, 5)), (5, Some(Outcome::Integer(3))));
                assert_eq!((read.fences.token(b"k"), &read.roll), (token, &roll));
                for length in 0..bytes.len() {
                    assert!(decode(bytes.slice(..length)).is_none(), "cut to {length}");
                }
                assert!(decode(Bytes::from([&bytes[..], &[0]].concat())).is_none());
            }
        }
        let roll = Roll { version: 1, bytes: Bytes::new() };
        let back = decode(encode(&roll, 0, &nobody, &Fences::default(), &sessions)).expect("its own bytes");
        assert_eq!(back.roll, roll, "the roll alone");
    }
}
