//! What a state has beside its items: the group's clock, the clients' requests and the session
//! table, as one piece of bytes. The checkpoint formats carry it as they carried the session
//! table alone, which it still is where there is nothing else.
//!
//! ```text
//! 01 …                                        the session table, see `session.rs`
//! 02 clock:u64 length:u32 clients 01 …        the clients' table (`once.rs`) in front of it
//! ```

use bytes::{Buf, BufMut, Bytes};

use super::command::put_sized;
use super::once::Clients;
use super::session::Sessions;

const VERSION: u8 = 2;

/// Writes it.
#[must_use]
pub fn encode(clock: u64, clients: &Clients, sessions: &Sessions) -> Bytes {
    let sessions = sessions.encode();
    if clock == 0 && clients.is_empty() {
        return sessions;
    }
    let mut out = Vec::with_capacity(64 + sessions.len());
    out.put_u8(VERSION);
    out.put_u64_le(clock);
    put_sized(&mut out, |out| clients.encode(out));
    out.put_slice(&sessions);
    Bytes::from(out)
}

/// Reads what [`encode`] wrote; `None` for anything else.
#[must_use]
pub fn decode(mut bytes: Bytes) -> Option<(u64, Clients, Sessions)> {
    if bytes.first() != Some(&VERSION) {
        return Some((0, Clients::default(), Sessions::decode(bytes)?));
    }
    bytes.advance(1);
    let clock = bytes.try_get_u64_le().ok()?;
    let length = bytes.try_get_u32_le().ok()? as usize;
    if length > bytes.len() {
        return None;
    }
    let clients = Clients::decode(bytes.split_to(length))?;
    Some((clock, clients, Sessions::decode(bytes)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::Outcome;
    use crate::kv::once::Req;

    #[test]
    fn it_survives_its_bytes_and_a_bare_session_table_is_one_too() {
        let sessions = Sessions::default();
        let bare = encode(0, &Clients::default(), &sessions);
        assert_eq!(bare, sessions.encode(), "what was written before there was a clock");
        let (clock, clients, _) = decode(bare).expect("its own bytes");
        assert!(clock == 0 && clients.is_empty());

        let mut clients = Clients::default();
        let req = Req { client: Bytes::from_static(b"c"), seq: 1, print: 2 };
        clients.record(&req, &Outcome::Integer(3), 4);
        let bytes = encode(5, &clients, &sessions);
        let (clock, mut back, _) = decode(bytes.clone()).expect("its own bytes");
        assert_eq!((clock, back.admit(&req, 5)), (5, Some(Outcome::Integer(3))));
        for length in 0..bytes.len() {
            assert!(decode(bytes.slice(..length)).is_none(), "cut to {length}");
        }
        assert!(decode(Bytes::from([&bytes[..], &[0]].concat())).is_none());
    }
}
