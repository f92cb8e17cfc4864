//! Why a call brought no reply, and whether the command may have been applied.

use std::fmt;

use crate::protocol::DecodeError;

/// Why there is no reply. Error replies of a server are replies, not this.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// An address is not `host:port`. Nothing was sent.
    #[error("the address \"{address}\" {why}. Nothing was sent")]
    BadAddress {
        /// As it was given.
        address: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// No server could be asked. Nothing was applied.
    #[error("no node answers: {}. Nothing was applied. Is it running, and is --addr right?", Tries(.0))]
    Unreachable(Vec<Attempt>),
    /// The server refused the password, or wants one. Nothing was applied.
    #[error("{address} refused the password: {why}. Nothing was applied. Set PELAGO_PASSWORD")]
    Password {
        /// The server.
        address: String,
        /// Its reply.
        why: String,
    },
    /// A write was sent, and the connection ended or was silent before the reply came.
    #[error(
        "{address}: {why}. It is unknown whether the command was applied. Read the key back before sending it again"
    )]
    InDoubt {
        /// The server.
        address: String,
        /// What happened.
        why: String,
    },
    /// What came back is not RESP.
    #[error("{address}: {why}. {}", applied(*.in_doubt))]
    NotResp {
        /// The server.
        address: String,
        /// What is wrong with it.
        why: DecodeError,
        /// Whether a write had been sent.
        in_doubt: bool,
    },
}

/// A server that could not be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Its address.
    pub address: String,
    /// What happened the last time.
    pub why: String,
    /// How often it was tried.
    pub count: u32,
}

impl ClientError {
    /// Whether the command may have been applied although no reply came.
    #[must_use]
    pub fn maybe_applied(&self) -> bool {
        matches!(self, ClientError::InDoubt { .. } | ClientError::NotResp { in_doubt: true, .. })
    }
}

struct Tries<'a>(&'a [Attempt]);

impl fmt::Display for Tries<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Attempt { address, why, count }) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "; " };
            write!(f, "{comma}{address}: {why}")?;
            if *count > 1 {
                write!(f, " ({count} attempts)")?;
            }
        }
        Ok(())
    }
}

fn applied(in_doubt: bool) -> &'static str {
    match in_doubt {
        true => "It is unknown whether the command was applied. Read the key back before sending it again",
        false => "Nothing was applied",
    }
}
