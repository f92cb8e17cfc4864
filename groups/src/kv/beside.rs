//! What a state has beside its items: the group's clock, the clients' requests, the fences and the
//! session table, as one piece of bytes. The checkpoint formats carry it as they carried the session
//! table alone, which it still is where there is nothing else.
//!
//! ```text
//! 01 …                                            the session table, see `session.rs`
//! 02 clock:u64 length:u32 clients 01 …            the clients' table (`once.rs`) in front of it
//! 03 clock:u64 length:u32 clients
//!              length:u32 fences 01 …             and the fences (`fence.rs`), where there are any
//! ```

use bytes::{Buf, BufMut, Bytes};

use super::command::put_sized;
use super::fence::Fences;
use super::once::Clients;
use super::session::Sessions;

const WITH_CLIENTS: u8 = 2;
const WITH_FENCES: u8 = 3;

/// All of it.
#[derive(Debug, Default)]
pub struct Beside {
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
pub fn encode(clock: u64, clients: &Clients, fences: &Fences, sessions: &Sessions) -> Bytes {
    let sessions = sessions.encode();
    if clock == 0 && clients.is_empty() && fences.is_empty() {
        return sessions;
    }
    let mut out = Vec::with_capacity(64 + sessions.len());
    out.put_u8(if fences.is_empty() { WITH_CLIENTS } else { WITH_FENCES });
    out.put_u64_le(clock);
    put_sized(&mut out, |out| clients.encode(out));
    if !fences.is_empty() {
        put_sized(&mut out, |out| fences.encode(out));
    }
    out.put_slice(&sessions);
    Bytes::from(out)
}

/// Reads what [`encode`] wrote; `None` for anything else.
#[must_use]
pub fn decode(mut bytes: Bytes) -> Option<Beside> {
    let version = *bytes.first()?;
    if !matches!(version, WITH_CLIENTS | WITH_FENCES) {
        return Some(Beside { sessions: Sessions::decode(bytes)?, ..Beside::default() });
    }
    bytes.advance(1);
    let clock = bytes.try_get_u64_le().ok()?;
    let clients = Clients::decode(take_sized(&mut bytes)?)?;
    let fences = match version {
        WITH_FENCES => Fences::decode(take_sized(&mut bytes)?).filter(|fences| !fences.is_empty())?,
        _ => Fences::default(),
    };
    Some(Beside { clock, clients, fences, sessions: Sessions::decode(bytes)? })
}

fn take_sized(bytes: &mut Bytes) -> Option<Bytes> {
    let length = bytes.try_get_u32_le().ok()? as usize;
    (length <= bytes.len()).then(|| bytes.split_to(length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::Outcome;
    use crate::kv::once::Req;

    #[test]
    fn it_survives_its_bytes_and_a_bare_session_table_is_one_too() {
        let sessions = Sessions::default();
        let bare = encode(0, &Clients::default(), &Fences::default(), &sessions);
        assert_eq!(bare, sessions.encode(), "what was written before there was a clock");
        let read = decode(bare).expect("its own bytes");
        assert!(read.clock == 0 && read.clients.is_empty() && read.fences.is_empty());

        let mut clients = Clients::default();
        let req = Req { client: Bytes::from_static(b"c"), seq: 1, print: 2 };
        clients.record(&req, &Outcome::Integer(3), 4);
        let mut fences = Fences::default();
        let unfenced = encode(5, &clients, &fences, &sessions);
        fences.raise(b"k", 7, 5);
        let fenced = encode(5, &clients, &fences, &sessions);
        for (bytes, token) in [(unfenced, 0), (fenced, 7)] {
            let mut read = decode(bytes.clone()).expect("its own bytes");
            assert_eq!((read.clock, read.clients.admit(&req, 5)), (5, Some(Outcome::Integer(3))));
            assert_eq!(read.fences.token(b"k"), token);
            for length in 0..bytes.len() {
                assert!(decode(bytes.slice(..length)).is_none(), "cut to {length}");
            }
            assert!(decode(Bytes::from([&bytes[..], &[0]].concat())).is_none());
        }
    }
}
